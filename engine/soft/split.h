/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locked accesses across two cache lines, within a page: does this host let them be? Some trap each
 * one, to make it slow (bus_lock_detect, or a hypervisor's like) or to forbid it (split_lock_detect).
 */
#ifndef ENGINE_SOFT_SPLIT_H
#define ENGINE_SOFT_SPLIT_H

#include <stdbool.h>

/*
 * Tried once in a process, by four of them, 30 ms apart where they are dear. Signals are installed.
 * EAGRE_SOFT_SPLIT_LOCKS=1 or =0, for tests: they trap, or they do not.
 */
bool soft_split_locks_trap(void);
/* The host has forbidden one to this thread. Returns if that was not the one that is tried. */
void soft_split_forbidden(void);

#endif
