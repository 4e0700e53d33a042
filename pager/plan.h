/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: what one pass of a shard's loop does to guest memory and sends to peers, in as few
 * system calls as its order allows. Owned by the shard's thread.
 *
 *   memory   a few runs of neighbouring pages, each under one operation, carried out by
 *            plan_settle(). Pages are independent of each other, so what is done to different
 *            pages may be done in any order; a page is in one run only, and a second operation on
 *            it settles the first. So evictions make runs although pages come between them.
 *   frames   one per peer, sent by plan_flush(), after the runs. So no message leaves before what
 *            it tells of is true of this node's memory: another node may act on it at once.
 *
 * Nobody waits for COH_DONE but the next in the page's queue, and it costs the home a wake-up. A
 * frame of nothing else may stay until this thread has nothing better to do (plan_flush() with
 * `idle`): then what a node does next, mostly the next request, has taken it along.
 *
 * Page contents are sent from where they are. For a page that stays readable that is guest memory
 * itself: nobody can write it before the flush, since raising or dropping such a page flushes
 * first. For a page that is given up it is where guest_memory_take() put it.
 */
#ifndef PAGER_PLAN_H
#define PAGER_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/coherence.h"
#include "link/channel.h"
#include "memory/gate.h"
#include "memory/guest_memory.h"

enum plan_op {
	PLAN_LOWER,	   /* to read-only */
	PLAN_RAISE,	   /* to writable */
	PLAN_DROP,	   /* to nothing */
	PLAN_TAKE,	   /* to nothing, the content goes to a peer */
	PLAN_INSTALL_READ, /* from nothing */
	PLAN_INSTALL_WRITE,
};

struct plan_peer {
	struct page_channel *channel; /* NULL: self, and who is not linked */
	struct page_frame frame;      /* to be sent */
	bool eager;		      /* somebody waits for a message in it */
	bool sent;		      /* is in the plan's list */
	bool loose;		      /* its loss is no failure: what cannot be sent is dropped */
	int error;		      /* not 0: its channel has ended */
};

/* Where the content of a page that goes to a peer is to be filled in. */
struct plan_slot {
	struct page_frame *frame;
	uint32_t index;
};

#define PLAN_RUNS      16u
#define PLAN_TAKES_MAX 64u /* pages in a run that are taken */

/* Pages [gpn, gpn + count), of one stripe. */
struct plan_run {
	enum plan_op op;
	bool wake;
	uint64_t gpn;
	uint32_t count;
	const uint8_t *data;		       /* installs: the first page, or NULL for zeros */
	struct plan_slot slot[PLAN_TAKES_MAX]; /* PLAN_TAKE: one a page */
};

struct plan {
	struct guest_memory *memory;
	struct gates *gates; /* NULL: no device uses pages without asking */
	uint32_t shard;
	uint16_t peer_count;
	struct plan_peer *peer; /* by node number */

	struct plan_run run[PLAN_RUNS];
	uint32_t run_count;
	uint32_t takes; /* pages in runs that are taken */

	/* Guest pages that frames point to. */
	uint64_t staged[FRAME_MESSAGES_MAX];
	uint32_t staged_count;
	/* Peers whose frame is not empty. */
	uint16_t dirty[NODES_MAX];
	uint32_t dirty_count;
	/* Peers who were sent a frame, which may be stuck in the channel's queue: plan_sent(). */
	uint16_t sent[NODES_MAX];
	uint32_t sent_count;
	uint64_t pages_sent;
	bool ended; /* the channel of a loose peer, since somebody looked */

	uint16_t failed_node; /* whom the last error is about, NODE_NONE: memory */

	/* After each run that was dropped or taken, before a message tells of it; or NULL. */
	void (*lost)(void *arg, uint64_t gpa, uint64_t bytes);
	void *lost_arg;
};

int plan_init(struct plan *plan, struct guest_memory *memory, uint32_t shard, uint16_t node_count);
void plan_fini(struct plan *plan);

/* All return 0 or a negative errno with failed_node set. -ENOTCONN: that one is not linked. */
int plan_send(struct plan *plan, uint16_t to, const struct coh_msg *msg);
int plan_send_page(struct plan *plan, uint16_t to, const struct coh_msg *msg);
/* Sends the page's last content and gives it up, in one. */
int plan_send_last(struct plan *plan, uint16_t to, const struct coh_msg *msg);
int plan_protect(struct plan *plan, uint64_t gpn, enum coh_access access);
int plan_install(struct plan *plan, uint64_t gpn, const void *data, enum coh_access access);
int plan_wake(struct plan *plan, uint64_t gpn);

/* Carries out the runs, so that all so far is true of memory and received pages are no longer
 * needed. */
int plan_settle(struct plan *plan);
/* And sends the frames; those that nobody waits for only when `idle`. */
int plan_flush(struct plan *plan, bool idle);
/* The next peer who was sent a frame since it was last named; NODE_NONE: no other. */
uint16_t plan_sent(struct plan *plan);
/* Nothing goes to the peer any more: its channel is nobody's, and what was left for it is dropped. */
int plan_unlink(struct plan *plan, uint16_t node);
/* Whether a frame that nobody waits for is left. */
bool plan_has_lazy(const struct plan *plan);

#endif
