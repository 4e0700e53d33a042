/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the vCPUs live, as one node knows it: a table that routes interrupts while vCPUs move. Pure.
 *
 * Every node has a seat for every vCPU: a thread, an inbox, and room for its state. A vCPU's place is
 * a node and an epoch: how often it has moved, or come back from a move that was refused. One word a
 * vCPU holds what this node knows, and is read by anybody without a lock:
 *
 *        leave (S)               sent (S, L): MOVE e+1 is in the channel to `to`
 *   HERE e -------> LEAVING e,to ----------------> SENT to,e+1 -------------------> AWAY n,e'
 *    ^  ^              |                            |       on PLACE of `to`, or    | ^ ^ |
 *    |  +--------------+ stay (S)                   |       of a higher epoch (C)   | | +-+ on PLACE of a
 *    |                                              |                               | |     higher epoch (C)
 *    +------- ARRIVING from,e <---------------------+                               | |
 *     here (S)  ^    |          on REFUSED e+2 (C)                                  | |
 *               |    +-- refuse (S, L): REFUSED e+1 is in the channel to `from` ----|-+
 *               +-------------------------------------------------------------------+ on MOVE (C)
 *
 * In each state one thread may change the word: HERE, LEAVING, ARRIVING the seat's (S), SENT and AWAY
 * the control thread (C). There is one lock a vCPU, the caller's ("the lock" below). It is held only
 * to send and to change a word, never while anything is waited for; (L) and (C) want it:
 *
 *   seat, leaving     [lock: PLACE, if owed; MOVE into the channel; sent(); forward the inbox :unlock]
 *   seat, refusing    [lock: REFUSED into the channel; refuse(); forward the inbox :unlock]
 *   control thread    [lock: on_move(), on_place(), on_refused(); if AWAY: forward the inbox :unlock]
 *   control thread    [lock: PLACE, if owed :unlock]
 *   forward the inbox [lock: route() again; only if it says FORWARD: take out, send there :unlock]
 *
 * So an answer is not judged before SENT is written; nothing is forwarded before its MOVE; and nobody
 * who looked long ago takes something out of the inbox of a vCPU that is back, to send it round.
 *
 * Interrupts. Who has one for v, whether its own or another node's, puts it into inbox[v] and THEN
 * reads the place: WAKE: wakes or kicks the seat; LEAVE_IT: nothing; FORWARD: forwards the inbox.
 * Who changes the place writes it and THEN looks into the inbox: leave(): drains it into the LAPIC
 * that leaves; sent(), refuse(): forwards; here(): drains it before it enters the guest. All of it is
 * sequentially consistent, so of poster and mover one sees the other, and taking out of an inbox is
 * atomic: nothing is lost, nothing comes twice. This holds for everything put into an inbox, also if
 * it is only gathered there because a channel is full: post, then read the place, then act on what
 * was read. Where route() says FORWARD and the inbox is empty, an interrupt may be sent on without
 * being posted: it goes behind the MOVE all the same.
 *
 * Forwards end. A node that forwards v to n by a word of epoch e knows from n's own PLACE, or from its
 * own MOVE further ahead in the same channel, that n's word has an epoch of at least e; and if n
 * forwards it, its word has a higher one (MOVE and REFUSED count up, and n was at e itself). So each
 * forward is by a higher epoch. That holds between correct nodes even where a third one lies: no word
 * names n but by n's own doing, or one's own MOVE to n.
 *
 * Not kept is the order of two messages of one sender: the second may go a shorter way. Only for INIT
 * and SIPI does it matter; they have core/vcpu_startup.h.
 *
 * Messages, each judged against the word (PLACE_LIE: no correct node says that, end the link). The
 * channels keep the order of each pair of nodes.
 *   MOVE v,e     from the node that it leaves. It has said PLACE v,e-1 before in the same channel (or
 *                v began there), and nobody else can have had v since: so my word is AWAY src,e-1.
 *   PLACE v,e    to all, soon behind here(), which makes it owed: the vCPU runs meanwhile. The
 *                control thread says it, or the seat's before MOVE, whoever comes first. To the
 *                source of the move it is the answer, "taken".
 *                Lower than my epoch: overtaken by later news, PLACE_OLD. Equal: it must name the node
 *                that I have (I moved it there, or refused it to there). Higher: it moved on; if I am
 *                SENT, it was taken, whatever has become of it since: PLACE_TAKEN. Higher while I have
 *                v myself: a lie.
 *   REFUSED v,e  from the node that I sent it to, e = my epoch + 1, and I am SENT: a node says either
 *                PLACE or REFUSED to a MOVE, and after REFUSED nobody else can have news of v before
 *                me. It comes back at that epoch: ARRIVING from myself, with the state that the seat
 *                has kept. That cannot be refused.
 *
 * Who joins a pod that runs knows of no vCPU: UNKNOWN, to which PLACE of any epoch is news; nothing
 * moves to it, and an interrupt would wait. Whoever has v (HERE, LEAVING) when the newcomer can hear
 * says PLACE v to it, under the lock, and from then on it is among "all". Each way of v ends with a
 * PLACE to all, or with a REFUSED that brings it back to such a node: so the newcomer hears of each v.
 *
 * A member that leaves is no member of vcpu_places_members() any more, and nothing is sent to it when
 * vcpu_places_name() says that no word goes there: a seat's thread writes LEAVING and then looks again
 * whether `to` is a member, so of it and of who has changed the members one sees the other.
 *
 * Tested in tests/core/test_vcpu_place.c, in the simulator (tests/sim/moves), and by models/move.pml.
 */
#ifndef CORE_VCPU_PLACE_H
#define CORE_VCPU_PLACE_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/limits.h"
#include "core/member_set.h"

/* No vCPU moves more often: at a move a microsecond that is half a year. */
#define PLACE_EPOCH_MAX ((1ull << 44) - 1)
/* A node hears of each move; of so many at once it has not missed the news: who says so lies, and
 * would else leave the blame to the next one whose epoch is true. */
#define PLACE_STEP_MAX (1ull << 20)

enum place_state {
	PLACE_AWAY,	/* on `node` */
	PLACE_SENT,	/* the same, but `node` has not answered: the seat keeps the state */
	PLACE_ARRIVING, /* from `node`, here itself: a move of ours was refused. The seat loads it */
	PLACE_HERE,
	PLACE_LEAVING, /* for `node`, MOVE is not in the channel. It does not run */
	PLACE_UNKNOWN, /* this node joins, and nobody has said: `node` is NODE_NONE */
};

struct vcpu_place {
	uint64_t epoch;
	enum place_state state;
	uint16_t node; /* HERE: this one */
};

/* Deliberate defects, for the simulator, which must catch each. Never set outside of tests. */
enum place_broken {
	PLACE_BROKEN_NONE = 0,
	PLACE_BROKEN_OLD_BELIEVED,  /* PLACE of an older epoch counts */
	PLACE_BROKEN_NEWS_IGNORED,  /* SENT: only the target's own PLACE is an answer */
	PLACE_BROKEN_LEAVING_AWAY,  /* LEAVING is routed to where it will go */
	PLACE_BROKEN_ARRIVING_AWAY, /* ARRIVING is routed to where it comes from */
	PLACE_BROKEN_COUNT,
};

struct vcpu_places {
	_Atomic uint64_t word[VCPUS_MAX]; /* by vCPU: state 2:0, node 18:3, epoch 63:19 */
	uint32_t vcpu_count;
	uint16_t node_count, self;
	uint8_t broken;				  /* enum place_broken */
	_Atomic uint64_t members[NODES_MAX / 64]; /* to whom a vCPU may go */
};

/* Before any thread reads it. first[v]: the node where vCPU v begins, at epoch 0; below node_count. */
void vcpu_places_init(struct vcpu_places *places, uint16_t self, uint16_t node_count,
		      uint32_t vcpu_count, const uint16_t *first);

/* The same at a node that joins: all are UNKNOWN. */
void vcpu_places_init_joiner(struct vcpu_places *places, uint16_t self, uint16_t node_count,
			     uint32_t vcpu_count);

/*
 * Who is a member, from now on; all numbers before the first time. Any one thread; others read it. A
 * vCPU that is on its way to who is none any more goes on, or has been refused.
 */
void vcpu_places_members(struct vcpu_places *places, const struct member_set *members);

/* Words of places: those that name `node`, and of these which are on their way there. Any thread. */
enum place_naming {
	PLACES_NAME_NONE,
	PLACES_NAME,	/* some vCPU is there, as far as this node knows, or comes from there */
	PLACES_GO_THERE /* LEAVING or SENT: this node has begun it, and has no answer */
};
enum place_naming vcpu_places_name(const struct vcpu_places *places, uint16_t node);
/* How many are UNKNOWN. */
uint32_t vcpu_places_unknown(const struct vcpu_places *places);

/* ---- any thread, no lock; vcpu < vcpu_count -------------------------------------------------- */

struct vcpu_place vcpu_place_read(const struct vcpu_places *places, uint32_t vcpu);

enum place_route {
	PLACE_WAKE,	/* it is here: wake or kick its thread */
	PLACE_LEAVE_IT, /* it is on its way in or out: its thread looks into the inbox afterwards */
	PLACE_FORWARD,	/* to *ret_node */
};

/*
 * For who has put something into the vCPU's inbox, or has a message for it. *ret_node is set if
 * PLACE_FORWARD. A request to move it goes the same way; LEAVE_IT is then "it is moving".
 */
enum place_route vcpu_place_route(const struct vcpu_places *places, uint32_t vcpu,
				  uint16_t *ret_node);

/* ---- the seat's thread ----------------------------------------------------------------------- */

/*
 * HERE -> LEAVING. 0; -EINVAL: `to` is this node, or no member; -EOVERFLOW: it has moved too often. It may
 * have been LEAVING for a moment if not 0: look into the inbox.
 */
int vcpu_place_leave(struct vcpu_places *places, uint32_t vcpu, uint16_t to);
/* LEAVING -> HERE: its state cannot be saved now. Then look into the inbox. */
void vcpu_place_stay(struct vcpu_places *places, uint32_t vcpu);
/* LEAVING -> SENT. The lock; MOVE with the word's epoch + 1 is in the channel. */
void vcpu_place_sent(struct vcpu_places *places, uint32_t vcpu);
/* ARRIVING -> HERE: loaded. Returns the epoch to say to all by PLACE. */
uint64_t vcpu_place_here(struct vcpu_places *places, uint32_t vcpu);
/*
 * ARRIVING -> AWAY: it cannot be loaded. The lock; REFUSED with the word's epoch + 1 is in the channel
 * to the word's node, which is not this one.
 */
void vcpu_place_refuse(struct vcpu_places *places, uint32_t vcpu);

/* ---- the control thread, the lock ------------------------------------------------------------ */

/* Where `src` is not of this pod, or is this node, or vcpu or epoch is out of range: PLACE_LIE. */
enum place_verdict {
	PLACE_LIE,   /* end the link to src; nothing has changed */
	PLACE_OLD,   /* nothing has changed, nothing is wrong */
	PLACE_NEWS,  /* the word has changed: see each */
	PLACE_TAKEN, /* that, and the seat need no longer keep the state */
};

/* NEWS: ARRIVING; hand the state to the seat's thread. Or LIE. */
enum place_verdict vcpu_place_on_move(struct vcpu_places *places, uint32_t vcpu, uint16_t src,
				      uint64_t epoch);
/* NEWS, TAKEN: AWAY, elsewhere than before; forward the inbox. Or OLD, or LIE. */
enum place_verdict vcpu_place_on_place(struct vcpu_places *places, uint32_t vcpu, uint16_t src,
				       uint64_t epoch);
/* NEWS: ARRIVING; have the seat's thread load what it has kept. Or LIE. */
enum place_verdict vcpu_place_on_refused(struct vcpu_places *places, uint32_t vcpu, uint16_t src,
					 uint64_t epoch);

#endif
