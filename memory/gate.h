/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gates: whether a device's thread may use a page of guest memory without asking anybody.
 *
 * A page has one atomic word:
 *
 *	bits  0-1   open      what users may do with the page now (enum coh_access)
 *	      2-3   allowed   what it will be opened to at most, once it is here
 *	      4     wanted    somebody waits for the users to leave: no new ones
 *	      5-17  readers   users who only read
 *	      18-30 writers
 *
 * Users (windows of the io thread, pager/window.c) enter and leave. The page's shard thread, which
 * is the only one to change what is in guest memory, closes the gate before it takes a page, or
 * writing, away:
 *
 *	gate_allow(access)  it has been decided that the page will be here
 *	gate_open(access)   it is here: opened to what is still allowed
 *	gate_close(after)   it has been decided to leave no more than `after`; refused while there are
 *	                    users who need more
 *
 * Deciding and doing are apart, as many pages are done in one call (pager/plan.h). So a page may be
 * decided away before it has come: `allowed` keeps it from being opened then.
 */
#ifndef MEMORY_GATE_H
#define MEMORY_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/coherence.h"

#define GATE_USERS_MAX 8191u /* of a page, of each kind */

struct gates {
	_Atomic uint32_t *word; /* by gpn; sparse */
	void *at;		/* the same, as it was mapped */
	size_t bytes;
};

/* All closed. 0 or -ENOMEM. */
int gates_create(struct gates *gates, uint64_t gpn_limit);
void gates_destroy(struct gates *gates); /* fine on a zeroed one */

/* Users. True: in, until gate_leave() with the same `want`. */
bool gate_enter(struct gates *gates, uint64_t gpn, enum coh_access want);
/* True: somebody wants the page, and the last of this kind has left: its shard is to be told. */
bool gate_leave(struct gates *gates, uint64_t gpn, enum coh_access want);

/* The page's shard thread. */
void gate_allow(struct gates *gates, uint64_t gpn, enum coh_access access);
void gate_open(struct gates *gates, uint64_t gpn, enum coh_access access);
/*
 * False: there are users who need more than `after`, and nothing has changed but, with `tell`, that
 * nobody new comes in and gate_leave() says when it is worth another try.
 */
bool gate_close(struct gates *gates, uint64_t gpn, enum coh_access after, bool tell);
/* What users may do now; whether somebody waits for them to leave. */
enum coh_access gate_access(const struct gates *gates, uint64_t gpn);
bool gate_wanted(const struct gates *gates, uint64_t gpn);

#endif
