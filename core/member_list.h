/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's members: a numbered list that changes by steps, one at a time. Pure; time is an
 * argument.
 *
 *   FREE --JOIN--> JOINING --ACTIVE--> ACTIVE --DRAIN--> DRAINING --GONE--> GONE --FREE--> FREE
 *                     |                  ^                  |               ^
 *                     |                  +----- ACTIVE -----+ (cancelled)   |
 *                     +----------------------- GONE (it failed) ------------+
 *
 * One member has the seat STEWARD. It numbers the steps and orders each (STEP). Who hears of one
 * changes its list at once, and says DONE when what the step asks of it has been done
 * (member_list_done(), the table below). When all have said that, the step is over (OVER), and only
 * then comes the next. So two members are never more than one step apart, whoever acts on OVER
 * knows that all have been there, and steps are made so that neighbours agree:
 *
 *   step       who hears        a member says DONE when
 *   JOIN x     all but x        it takes x's links and words. Nobody begins anything at x, nor x at
 *                               others
 *   ACTIVE x   all, x           at once
 *   DRAIN x    all, x           it begins nothing at x any more, and what it began there is
 *                               answered
 *   GONE x     all, x if alive  nothing here names x, and nothing of its own goes by x; behind that
 *                               it sends FLUSH to x. x owes no DONE, and ends when GONE is over and
 *                               all have flushed: until then words come that it has to send on. Of
 *                               a joiner that failed: its links are ended, with all that came by
 *                               them
 *   FREE x     all              FLUSH, which each sends when STEP comes, has come from all in each
 *                               channel with words that may name x, and x's links have ended, by x.
 *                               From then on a word that names x is a lie
 *   SEAT s, x  all              at once
 *
 * While somebody joins, no step is taken but his ACTIVE, or his GONE: so the list that he is given
 * stays true. He has MEMBER_JOIN_NS. Whoever loses him meanwhile says so (FAILED), and he takes
 * nobody along. His number may be another joiner's soon: a link that is asked for says the number
 * of the JOIN's step. Loss of any other member ends the pod, as its pages are gone, and a step that
 * it has not answered is never over. Of one that is GONE it ends only those who have not said DONE:
 * they may need it still.
 *
 * Facts are reported to the steward. READY: by x, when its links with all stand and it knows what
 * it must. DRAINED: by x, when DRAIN is over, and it holds nothing, and all that it began is
 * answered. FAILED: by anybody. One that does not fit the state is old: it lies in the channel
 * before its sender's DONE to the step that has changed the state, so it cannot be taken for one of
 * a later life.
 *
 * Wishes (JOIN, ACTIVE to cancel a drain, DRAIN, SEAT) are judged by the steward when their turn
 * comes, in the order in which they came to it, and are either ordered or REFUSED; a member has one
 * at a time. Who leaves takes his along, as his number may be another's when its turn comes.
 *
 * The steward's seat is handed over by a step, too. DONE goes to who ordered it; it alone tells the
 * new one OVER, and that one tells all. In between nobody sends a wish or a report, and those that
 * come to the old one it sends on, behind STEP. So the new one has all of them when it begins. A
 * member with a seat is not drained.
 *
 * All of it goes by channels that keep the order of each pair of nodes. One thread owns the list.
 *
 * Tested in tests/core/test_member_list.c and test_member_lies.c, in a simulator (tests/sim/members),
 * and by models/member.pml.
 */
#ifndef CORE_MEMBER_LIST_H
#define CORE_MEMBER_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"
#include "core/member_set.h"

#define MEMBER_ADDRESS_MAX 128
/* From JOIN to READY: a busy host needs 10 s for its clock, and links to all. */
#define MEMBER_JOIN_NS 30000000000ull

/* Duties that one member has. */
enum member_seat {
	SEAT_STEWARD,
	SEAT_CLOCK,
	SEAT_PC,
	SEAT_WORDS,
	SEAT_LOADER,
	SEAT_COUNT,
};

/* What all know of a member. Strings end within. */
struct member_about {
	char name[NODE_NAME_MAX];
	char address[MEMBER_ADDRESS_MAX];
	uint64_t promise_bytes;
	uint64_t token_id,
		token_expiry_s; /* by which it has joined (wire/token.h); 0: it has not */
	uint16_t cores;
};

struct member {
	enum member_state state;
	uint64_t since; /* the step that brought the state */
	struct member_about about;
};

enum member_kind {
	KIND_JOIN,
	KIND_ACTIVE,
	KIND_DRAIN,
	KIND_GONE,
	KIND_FREE,
	KIND_SEAT,
	KIND_COUNT,
};

enum member_word_type {
	MEMBER_STEP, /* steward to all: number, kind, node, seat, why (GONE), by, id, about (JOIN) */
	MEMBER_DONE,	/* member to who ordered it: number */
	MEMBER_OVER,	/* steward to all: number */
	MEMBER_WISH,	/* member to the steward: by, id, kind, node, seat, about (JOIN) */
	MEMBER_REFUSED, /* steward to who wished: id, why */
	MEMBER_READY,	/* joiner to the steward: node, by */
	MEMBER_FAILED,	/* member to the steward: node, by, why */
	MEMBER_DRAINED, /* leaver to the steward: node, by */
	MEMBER_WORD_COUNT,
};

struct member_word {
	enum member_word_type type;
	enum member_kind kind;
	enum member_seat seat;
	uint16_t node; /* whom it is about; JOIN wished for: any */
	uint16_t by;   /* who wished, or reports; a step of the steward's own: NODE_NONE */
	uint32_t id;   /* the wisher's own number for it */
	int why;       /* a negative errno, or 0 */
	uint64_t number;
	struct member_about about;
};

/* What is to be done outside: see member_list_next(). */
enum member_out_type {
	MEMBER_SEND,	/* `word` into the control channels to `to`, which has not this node */
	MEMBER_APPLIED, /* the list has changed by the step `word`: do what it asks, then _done() */
	MEMBER_IS_OVER, /* the step `word` is over: all members have done what it asks */
	MEMBER_UNWANTED, /* this node's wish word.id has been refused: word.why */
	MEMBER_END,	 /* the pod ends: word.node is lost. Nothing comes after that */
};
struct member_out {
	enum member_out_type type;
	struct member_set to;
	struct member_word word;
};

/* Deliberate defects, for the simulator, which must catch each. Never set outside of tests. */
enum member_broken {
	MEMBER_BROKEN_NONE = 0,
	MEMBER_BROKEN_ONE_DONE,	      /* a step is over when one has not said DONE */
	MEMBER_BROKEN_NOT_OVER,	      /* the next step is ordered before */
	MEMBER_BROKEN_BESIDE_JOIN,    /* steps are taken while somebody joins */
	MEMBER_BROKEN_JOINER_ENDS,    /* a joiner's loss ends the pod */
	MEMBER_BROKEN_LOST_ACTIVE,    /* who has lost a joiner takes his ACTIVE */
	MEMBER_BROKEN_GONE_EARLY,     /* loss of one that is GONE is none, DONE or not */
	MEMBER_BROKEN_TWO_STEWARDS,   /* the new one begins when it hears of its seat */
	MEMBER_BROKEN_WISHES_DROPPED, /* the old one does not send on what it has */
	MEMBER_BROKEN_NO_DEADLINE,    /* a joiner has all the time in the world */
	MEMBER_BROKEN_SEAT_LEAVES,    /* a member with a seat is drained */
	MEMBER_BROKEN_EAGER,	      /* reports and wishes go out while the steward changes */
	MEMBER_BROKEN_COUNT,
};

/* What a joiner is given: the list when his JOIN is over. */
struct member_snapshot {
	uint64_t step;
	uint16_t number_count; /* numbers are below it */
	uint16_t seat[SEAT_COUNT];
	struct member member[NODES_MAX];
};

#define MEMBER_OUTS 8

struct member_list {
	struct member_snapshot now; /* as this node knows it */
	uint16_t self;
	uint8_t broken; /* enum member_broken */
	bool ended;
	uint64_t needs_bytes;

	/* The last step. */
	struct member_word last;
	uint16_t orderer;
	bool done, over;

	bool lost[NODES_MAX]; /* while it joined */
	struct member_word wish;
	uint32_t wish_id;
	bool wishing, wish_waits, drained_waits;

	/* The steward's; `queue` also of who has been that, until all is sent on. */
	bool leading;
	bool open; /* a step that this node ordered is not over */
	struct member_set awaited;
	struct member_word queue[NODES_MAX]; /* wishes, one a member */
	uint16_t queue_first, queue_count;
	struct member_set drained; /* who has reported it, as they are now */
	bool ready;
	int failed;
	uint64_t join_by_ns;

	struct member_out out[MEMBER_OUTS];
	uint32_t out_first, out_count;
};

/* The members of a pod's beginning: numbers 0 to member_count - 1, ACTIVE; 0 has all seats. */
void member_list_init(struct member_list *list, uint16_t self, uint16_t number_count,
		      uint16_t member_count, const struct member_about *about);
/* A joiner's. -EINVAL: a snapshot that no correct member gives to `self`. */
int member_list_init_joiner(struct member_list *list, uint16_t self,
			    const struct member_snapshot *snapshot);

/* A drain that would leave less promised, or no core, is refused: -ENOSPC. 0: none is, for that. */
void member_list_needs(struct member_list *list, uint64_t bytes);

/*
 * A word came from `src`. 0; -EPROTO: no correct node says that, end the link. The word is judged
 * wholly before anything changes; its enums may be any number. Then call member_list_next().
 */
int member_list_hear(struct member_list *list, uint16_t src, const struct member_word *word,
		     uint64_t now_ns);
/* The links with `node` have ended, though this node has not ended them. */
void member_list_lost(struct member_list *list, uint16_t node);
/* The last step's DONE, once after MEMBER_APPLIED. */
void member_list_done(struct member_list *list);

/*
 * This node wishes a step. The wish's fields kind, node, seat, about count. *ret_id: what
 * MEMBER_UNWANTED and a step with by = self will say. -EBUSY: an earlier wish is not answered;
 * -EPERM: this node is no member; -EINVAL: no such wish.
 */
int member_list_wish(struct member_list *list, const struct member_word *wish, uint32_t *ret_id);
/* This node joins, and all its links stand. */
void member_list_ready(struct member_list *list);
/* This node drains, DRAIN is over, and it holds nothing. Again after each DRAIN. */
void member_list_drained(struct member_list *list);
/* The joiner, if there is one, must not be let in: why < 0. */
void member_list_fail_joiner(struct member_list *list, int why);

/*
 * What is to be done next, until it is false. Call after each of the above, and at the deadline
 * (UINT64_MAX: none).
 */
bool member_list_next(struct member_list *list, uint64_t now_ns, struct member_out *ret);
uint64_t member_list_deadline(const struct member_list *list);

/* ---- what messages are judged by ------------------------------------------------------------- */

/* Words of `node` are taken. */
bool member_list_hears(const struct member_list *list, uint16_t node);
/* This node may begin something at `node`, another one: a vCPU, a home, a queue, a push. */
bool member_list_may_begin(const struct member_list *list, uint16_t node);
/* `node` may begin something here: it may be a step ahead, or behind. */
bool member_list_may_be_begun(const struct member_list *list, uint16_t node);
/* A word that names `node` is no lie. It may be old: GONE. */
bool member_list_may_be_named(const struct member_list *list, uint16_t node);

/* Those who say DONE. */
bool member_list_counts(const struct member_list *list, uint16_t node);
/* NODE_NONE: nobody joins. */
uint16_t member_list_joiner(const struct member_list *list);
bool member_list_has_seat(const struct member_list *list, uint16_t node);

#endif
