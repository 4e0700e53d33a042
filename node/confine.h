/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A filter on the system calls of the threads that run guest code on `soft` (docs/security.md).
 *
 * Such a thread makes some thirty calls, for memory, sleep, signals, its timer and messages to other
 * nodes. Any other is a sign that guest code has broken out of the translator, or a mistake of ours:
 * the process ends with a line that names the call.
 *
 * EAGRE_SECCOMP=off in the environment leaves the filter out; `log` has the kernel log such calls, and
 * lets them be. Builds with a sanitizer have none: what those call is their own affair.
 */
#ifndef NODE_CONFINE_H
#define NODE_CONFINE_H

#include <stdbool.h>
#include <stddef.h>

struct confine;

/*
 * What all filtered threads share. `forbidden` is called in a signal handler of the thread that made
 * a call that it may not make, with the call's name; it says so, and the process ends behind it. One
 * for a process. *ret_confine is NULL where there shall be no filter. 0, or -errno with one line in
 * `why`: this kernel has none.
 */
int confine_create(void (*forbidden)(const char *call), struct confine **ret_confine, char *why,
		   size_t why_size);

/*
 * The calling thread is filtered until it ends, and what it makes. It must have a stack for signals,
 * and let SIGSYS in. NULL: nothing. 0 or -errno.
 */
int confine_thread(struct confine *confine);

#endif
