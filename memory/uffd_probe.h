/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this host's kernel carry a node's memory? Asked once, at start, before anything is mapped.
 *
 * Needed: userfaultfd that sees faults from kernel mode (KVM resolves its guest's faults there, so
 * UFFD_USER_MODE_ONLY is not enough), MISSING and WP on anonymous memory, and the faulting thread's
 * id.
 */
#ifndef MEMORY_UFFD_PROBE_H
#define MEMORY_UFFD_PROBE_H

#include <stdbool.h>
#include <stddef.h>

struct uffd_probe {
	bool interruptible;   /* a vCPU blocked in a fault takes signals (Linux 6.2) */
	bool move;	      /* UFFDIO_MOVE is there (Linux 6.8) */
	bool move_in_batches; /* and flushes once, not a page at a time (Linux 6.18) */
};

/*
 * 0 and *ret_probe; -EPERM or -EACCES: this process may not; -ENOSYS or -EOPNOTSUPP: the kernel
 * cannot; others as userfaultfd(2) fails. On error `why` has one line that names what is missing
 * and the remedy. Any thread.
 */
int uffd_probe(struct uffd_probe *ret_probe, char *why, size_t why_size);

/* Opens a userfaultfd (close-on-exec, non-blocking) with the features above. The fd or -errno. Any
 * thread. */
int uffd_open(void);

#endif
