/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the queues of a virtio device are worked on, as one node knows it: a table that routes
 * doorbells while queues move. Pure.
 *
 * Every node has a front half of every device. A queue's rings are touched by one of them, where the
 * queue's *place* is: a node and an epoch, how often it has been handed over. What is handed over are
 * the few indices that say how far the rings have been worked on; all else is in guest memory.
 *
 *        leave            gave: QUEUE e+1 is in the channel to `to`
 *   HERE e ---> LEAVING e,to ---> AWAY to,e+1 ---> AWAY n,e' on PLACE of n, of a higher epoch
 *    ^  ^            | stay          |
 *    |  '------------'               |
 *    '--- ARRIVING e <---------------' on QUEUE: PLACE is said to all
 *   taken: the front half has it
 *
 * A device's *generation* begins with a reset, by a word of node 0, which has the registers: then all
 * queues are on node 0 at epoch 0, whatever was, and nothing that is said of an earlier generation
 * counts. Node 0 takes a generation for itself first, and then tells all others (PUBLISHED). Each says
 * STOPPED when nothing of earlier ones is under way with it any more. Only when all have, the driver
 * sees the reset's end, and only then a queue may leave node 0: so whoever hears of a queue, hears it
 * in a generation that he knows.
 *
 * Threads. There is one lock a device, the caller's. It is held to change anything here and to send
 * what belongs to the change, never while anything is waited for:
 *
 *   io thread, giving   [lock: generation; QUEUE into the channel; gave() :unlock], and then what was
 *                       left for it until there
 *   control thread      [lock: on_queue(); PLACE into all channels :unlock]  [lock: on_place() :unlock]
 *
 * Doorbells. Who has one, by a vCPU of its own or from another node, reads the place, without a lock.
 * HERE, LEAVING, ARRIVING: leaves it for the io thread. AWAY: sends it there. The io thread looks at
 * the ring of each queue that it takes. So no look is missing:
 *
 *   - A doorbell that was left for an io thread may be found when the queue has gone: then it is sent
 *     after it. Who takes the queue may have looked before the driver wrote the ring, as the word says
 *     AWAY only when QUEUE is in the channel, and the driver may have read it in between.
 *   - So is one that comes to a node which has given the queue away, behind QUEUE.
 *   - One that is found while the queue is ARRIVING is dropped: it will be looked at.
 *
 * They do not go round: a node that sends a doorbell to n by a word of epoch e knows from n's own
 * PLACE, from its own QUEUE further ahead in the same channel, or from node 0's PUBLISHED (n is node
 * 0), that n's word is at least as new; and if n sends it on, its word is newer. No word names n but
 * by n's own doing, node 0's, or one's own QUEUE to n, so that holds where a third node lies.
 *
 * Messages, each judged against the table (QUEUE_LIE: no correct node says that, end the link). The
 * channels keep the order of each pair of nodes. An earlier generation: QUEUE_OLD; a later one: a lie.
 *   QUEUE q,e   from the node that gives it away: my word is AWAY src,e-1, for the reason that
 *               core/vcpu_place.h has for MOVE. It cannot be refused.
 *   PLACE q,e   to all, from who has got it. Lower than my epoch: overtaken, QUEUE_OLD. Equal: names
 *               the node that I have. Higher: it moved on; while I have the queue myself, a lie.
 *   STOPPED     to node 0.
 *
 * Tested in tests/core/test_queue_place.c and in a simulator (tests/sim/queues); models/queue.pml.
 */
#ifndef CORE_QUEUE_PLACE_H
#define CORE_QUEUE_PLACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"
#include "core/member_set.h"

#define QUEUE_PLACES_MAX 67 /* of a device; virtio/published.h has as many */
/* No queue moves more often in a generation, and no news of more moves is missed: vcpu_place.h. */
#define QUEUE_EPOCH_MAX ((1ull << 44) - 1)
#define QUEUE_STEP_MAX	(1ull << 20)

enum queue_state {
	QUEUE_AWAY,	/* on `node` */
	QUEUE_ARRIVING, /* here; the io thread has not taken it */
	QUEUE_HERE,
	QUEUE_LEAVING, /* for `node`; nothing new is begun */
};

struct queue_place {
	uint64_t epoch;
	enum queue_state state;
	uint16_t node; /* HERE, ARRIVING: this one */
};

/* Deliberate defects, for the simulator, which must catch each. Never set outside of tests. */
enum queue_broken {
	QUEUE_BROKEN_NONE = 0,
	QUEUE_BROKEN_OLD_PLACE,	   /* PLACE of an older epoch counts */
	QUEUE_BROKEN_OLD_QUEUE,	   /* QUEUE of an older generation counts */
	QUEUE_BROKEN_OLD_GAVE,	   /* gave() in an older generation counts */
	QUEUE_BROKEN_STAYS,	   /* a generation does not bring queues back to node 0 */
	QUEUE_BROKEN_LEAVING_AWAY, /* LEAVING is routed to where it will go */
	QUEUE_BROKEN_EARLY,	   /* a queue leaves node 0 before all have stopped */
	QUEUE_BROKEN_COUNT,
};

struct queue_places {
	uint64_t generation;
	uint16_t self, node_count, queue_count;
	uint8_t broken;		   /* enum queue_broken */
	struct member_set members; /* to whom a queue may go, and who has to say STOPPED */
	struct member_set stopped; /* node 0: who has said it of this generation */
	uint64_t epoch[QUEUE_PLACES_MAX];
	_Atomic uint32_t word[QUEUE_PLACES_MAX]; /* state 2:0, node 18:3 */
};

/* Before any thread reads it. Generation 0 begins. */
void queue_places_init(struct queue_places *places, uint16_t self, uint16_t node_count,
		       uint16_t queue_count);

/*
 * Who is a member, from now on; all numbers before the first time. The lock. A newcomer has to say
 * STOPPED, too: so no queue leaves node 0 before it knows the generation. Who has gone need not. Returns
 * whether all have said STOPPED by that, as QUEUE_NEWS of queue_places_on_stopped().
 */
bool queue_places_members(struct queue_places *places, const struct member_set *members);

/* ---- any thread, no lock; queue < queue_count --------------------------------------------------- */

enum queue_route {
	QUEUE_LEAVE_IT, /* for the io thread here */
	QUEUE_FORWARD,	/* to *ret_node */
};

/* For who has a doorbell, and for the io thread once more. *ret_node is set if QUEUE_FORWARD. */
enum queue_route queue_place_route(const struct queue_places *places, uint16_t queue,
				   uint16_t *ret_node);

/* ---- the lock --------------------------------------------------------------------------------- */

/* Where `src` is not of this pod, or queue or epoch is out of range: QUEUE_LIE. */
enum queue_verdict {
	QUEUE_LIE,  /* end the link to src; nothing has changed */
	QUEUE_OLD,  /* nothing has changed, nothing is wrong */
	QUEUE_NEWS, /* see each */
};

struct queue_place queue_place_read(const struct queue_places *places, uint16_t queue);

/*
 * A generation as node 0 has published it. NEWS: it has begun; this node's io thread lets go of all
 * that was, and then says STOPPED. OLD: it is the one that there is. LIE: an earlier one.
 */
enum queue_verdict queue_places_begin(struct queue_places *places, uint64_t generation);
/* Node 0: `src`, which may be itself, has let go of what was before. NEWS: it was the last. */
enum queue_verdict queue_places_on_stopped(struct queue_places *places, uint16_t src,
					   uint64_t generation);

/*
 * The io thread's; `generation` is the one that its front half is in. -ESTALE: there is a later one,
 * and nothing has changed.
 */

/* HERE -> LEAVING. 0; -ESTALE; -EAGAIN: not yet, some node has not stopped; -EINVAL: `to` is this node,
 * or no member; -EBUSY: it is not here; -EOVERFLOW: it has moved too often. */
int queue_place_leave(struct queue_places *places, uint16_t queue, uint64_t generation,
		      uint16_t to);
/* LEAVING -> HERE. */
int queue_place_stay(struct queue_places *places, uint16_t queue, uint64_t generation);
/* Whether a queue that is LEAVING may be given now: 0, and then QUEUE has to say *ret_epoch. */
int queue_place_giving(const struct queue_places *places, uint16_t queue, uint64_t generation,
		       uint64_t *ret_epoch);
/* LEAVING -> AWAY. QUEUE is in the channel to the word's node. */
void queue_place_gave(struct queue_places *places, uint16_t queue);
/* ARRIVING -> HERE: the front half has it. */
int queue_place_taken(struct queue_places *places, uint16_t queue, uint64_t generation);

/* The control thread's. */

/* NEWS: ARRIVING. Say PLACE to all, and hand the state to the io thread. */
enum queue_verdict queue_place_on_queue(struct queue_places *places, uint16_t queue, uint16_t src,
					uint64_t generation, uint64_t epoch);
/* NEWS: AWAY, elsewhere than before. */
enum queue_verdict queue_place_on_place(struct queue_places *places, uint16_t queue, uint16_t src,
					uint64_t generation, uint64_t epoch);

#endif
