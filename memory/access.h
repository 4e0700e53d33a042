/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory for devices and the loader: acquire, use, release.
 *
 * A port is one accessor's window to guest memory. It has at most one page at a time: acquiring
 * asks the page protocol for it and waits; until the release nobody in the pod can take it. As an
 * accessor that has a page waits for nothing, ports cannot deadlock. Acquiring waits for the pod,
 * so never call this in a thread that serves the protocol (a pager's shard), nor with such a
 * thread's lock held.
 *
 * A port is used by one thread at a time. All functions return 0 or: -EFAULT not RAM (nothing was
 * touched of the page at fault); -EBUSY the port has a page already; -ESHUTDOWN the pager stopped.
 */
#ifndef MEMORY_ACCESS_H
#define MEMORY_ACCESS_H

#include <stddef.h>
#include <stdint.h>

#include "core/coherence.h"
#include "memory/guest_memory.h"

struct memory_port;

/* Who speaks to the page protocol for a port: pager/pager.c. */
struct memory_port_ops {
	/* Returns when the page is here with `want` and stays; 0 or -ESHUTDOWN. */
	int (*pin)(struct memory_port *port, uint64_t gpn, enum coh_access want);
	/* Only if it is here now, else -EAGAIN. Waits for this node's shard, for no other node. */
	int (*pin_here)(struct memory_port *port, uint64_t gpn, enum coh_access want);
	/* Does not wait. */
	void (*unpin)(struct memory_port *port, uint64_t gpn);
};

#define MEMORY_PORT_IDLE UINT64_MAX

struct memory_port {
	const struct memory_port_ops *ops;
	struct guest_memory *memory;
	uint64_t gpn; /* the page it has, or MEMORY_PORT_IDLE */
};

/*
 * Makes [gpa, gpa + *length) usable in place as far as it lies in gpa's page: *ret_hva, and *length
 * cut to it. `want` COH_READ or COH_WRITE.
 */
int memory_acquire(struct memory_port *port, uint64_t gpa, enum coh_access want, void **ret_hva,
		   size_t *length);
/*
 * The same if the page is here already; else -EAGAIN. As it waits for no other node, its caller may
 * have another port's page meanwhile: two pages at once, for an access that crosses from one into
 * the next (node/page_pair.h). Whoever gets -EAGAIN releases what it has before it waits for
 * anything.
 */
int memory_acquire_here(struct memory_port *port, uint64_t gpa, enum coh_access want,
			void **ret_hva, size_t *length);
void memory_release(struct memory_port *port);

/* Any length, page by page, one pinned at a time: not atomic beyond a page. */
int memory_read(struct memory_port *port, uint64_t gpa, void *ret_data, size_t length);
int memory_write(struct memory_port *port, uint64_t gpa, const void *data, size_t length);

#endif
