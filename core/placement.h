/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where should a vCPU be? docs/placement.md has the picture, the guarantee and its proof.
 *
 * A struct placement is one node's part: it hears what the vCPUs here go through and advises which
 * of them should go where. It moves nothing itself.
 *
 *   a stall ends -----> placement_stall() ----> advice: stay, or go to node n, and why
 *   every few ms -----> placement_tick() -----> the same for several vCPUs (gather, spread)
 *   loads, times -----> placement_load(), placement_time()
 *   moves ------------> placement_left() at the node it leaves, placement_arrived() where it
 *                       comes to, placement_placed() at all others; placement_refused()
 *
 * What a move takes along: PLACEMENT_CARRY_BYTES that placement_left() makes and
 * placement_arrived() reads, so that the node it comes to learns how the move turned out.
 *
 * Each vCPU here has a whole credit that is shared among the nodes. A stall on a page of node o
 * gives o a part of it: the stall's time divided by the threshold, taken from the other nodes and
 * in the end from this one. When o has all of it, the vCPU should go there:
 *
 *      share of  this node ######################............    |
 *                node 1    ......................#######.....    | always 1 in all
 *                node 2    .............................#####    |
 *
 * Pure: time is an argument, nothing is allocated after placement_create(), the same inputs give
 * the same advice. A call takes below a microsecond (bench/placement-sim). One thread at a time
 * per struct placement: the caller locks.
 *
 * Tested in tests/core/test_placement*.c and by bench/placement-sim.
 */
#ifndef CORE_PLACEMENT_H
#define CORE_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/coherence.h"
#include "core/limits.h"
#include "core/member_set.h"
#include "core/placement_learner.h"

enum placement_policy {
	PLACEMENT_PAGES,   /* vCPUs never move, pages come to them */
	PLACEMENT_VCPUS,   /* a vCPU goes to whatever it stalled on */
	PLACEMENT_BASE,	   /* by credit, with the guarantee */
	PLACEMENT_LEARNED, /* the same, with a threshold that is learned within bounds */
	PLACEMENT_PINNED,  /* only the user moves vCPUs */
	PLACEMENT_POLICIES,
};

#define PLACEMENT_POLICY_DEFAULT PLACEMENT_LEARNED

/* One word each: pages, vcpus, base, learned, pinned. */
const char *placement_policy_name(enum placement_policy policy);
/* Do idle vCPUs go to one node? Where they do, those that wait for their start-up go, too. */
bool placement_policy_gathers(enum placement_policy policy);
/* 0; -EINVAL: there is none of this name. */
int placement_policy_parse(const char *name, enum placement_policy *ret_policy);

enum placement_why {
	/* It stays, because ... */
	PLACEMENT_WHY_CREDIT,  /* the credit does not suffice */
	PLACEMENT_WHY_POLICY,  /* the policy moves nothing */
	PLACEMENT_WHY_PIN,     /* the user pinned it */
	PLACEMENT_WHY_DWELL,   /* it has only just come */
	PLACEMENT_WHY_RATE,    /* it has moved too often */
	PLACEMENT_WHY_CROWDED, /* it would wait for a core there longer than for pages here */
	PLACEMENT_WHY_REFUSED, /* that node has refused it only just */
	/* It goes, because ... */
	PLACEMENT_WHY_PAID,   /* its stalls have cost what a move costs, by the base rule */
	PLACEMENT_WHY_EAGER,  /* the same, with a threshold that the learner has lowered */
	PLACEMENT_WHY_ALWAYS, /* the policy says so */
	PLACEMENT_WHY_GATHER, /* it is idle: to the other idle ones */
	PLACEMENT_WHY_SPREAD, /* there are more runnable vCPUs than cores here */
	PLACEMENT_WHYS,
};

/* A few words, to be put after "stays: " or "goes: ". */
const char *placement_why_text(enum placement_why why);

/*
 * The threshold is the cost of a move times a factor in 16ths: 2 by the base rule; a quarter of
 * that by the learner's choice; doubled for each wasted stay in a row, up to two; doubled
 * for who yields. So it is always within these bounds.
 */
#define PLACEMENT_FACTOR_ONE  16u
#define PLACEMENT_FACTOR_BASE (2u * PLACEMENT_FACTOR_ONE)
#define PLACEMENT_FACTOR_MIN  (PLACEMENT_FACTOR_ONE / 2)
#define PLACEMENT_FACTOR_MAX  (16u * PLACEMENT_FACTOR_ONE)

/* The whole credit. */
#define PLACEMENT_WHOLE (1u << 30)

/* How long after a decision its outcome is looked at. */
#define PLACEMENT_HORIZON_NS 10000000u

/* What a move costs is between these, whatever was measured. */
#define PLACEMENT_MOVE_NS_MIN 1000u
#define PLACEMENT_MOVE_NS_MAX 100000000u

/* A vCPU's moves in a row, and a second, at most. */
#define PLACEMENT_MOVES_BURST  32u
#define PLACEMENT_MOVES_SECOND 1000u

struct placement_config {
	uint16_t self, node_count; /* the number space */
	struct member_set members; /* where vCPUs may go; none: all numbers */
	uint16_t gather_node;	   /* where idle vCPUs belong: the node of the guest's first vCPU */
	uint32_t vcpu_count;	   /* of the whole pod */
	enum placement_policy policy;
	/* What a move costs, and the stalls that it brings (this many moves' time at most: a vCPU that
	 * has not moved takes no hints along), until moves have been seen. */
#define PLACEMENT_REFAULT_MOVES 8u
	uint64_t move_ns, refault_ns;
	uint64_t seed;
	/* Nobody follows its advice: what comes of its choices teaches it nothing. */
	bool shadow;
	uint32_t broken; /* tests only: which guard is left out (enum placement_broken) */
};

struct placement;

/* 0; -EINVAL; -ENOMEM. No vCPU is anywhere yet. */
int placement_create(const struct placement_config *config, struct placement **ret_placement);
void placement_destroy(struct placement *placement);

/*
 * Who is a member now, and where idle vCPUs belong. Who is none has no cores, whatever it says; a
 * newcomer has one until it says (placement_load()). -EINVAL: this node, or the other, is none.
 */
int placement_members(struct placement *placement, const struct member_set *members,
		      uint16_t gather_node);

/* Takes effect at once; the learner, if it was switched off, may try again. 0 or -EINVAL. */
int placement_set_policy(struct placement *placement, enum placement_policy policy,
			 uint64_t now_ns);
/* The vCPU stays where it is, whatever the policy. 0 or -EINVAL. */
int placement_pin(struct placement *placement, uint32_t vcpu, bool pinned);

struct placement_advice {
	uint32_t vcpu;
	uint16_t to; /* NODE_NONE: stay */
	enum placement_why why;
};

/* A stall of a vCPU that is here, when it has ended. */
struct placement_stall {
	uint32_t vcpu;
	enum coh_stall_kind kind;
	uint16_t owner;	  /* where the page, or the right to write it, came from; NODE_NONE: from
			     nowhere (first touch) or this node */
	uint16_t sharers; /* other nodes that had the page, its owner among them, as far as known */
	uint64_t gpn;
	uint64_t begin_ns, end_ns;
	uint64_t slept_ns; /* how long it has been halted since the stall before, or its arrival */
	uint32_t program;  /* placement_program(); 0: not known */
};

/*
 * A hash of what runs: the same on every node and vCPU, for one page of code of one program. Of CR3
 * neither the PCID counts nor which half of Linux's two tables of a process it is. Never 0.
 */
uint32_t placement_program(uint64_t cr3, uint64_t rip);

/* -EINVAL: no such vCPU, node or kind, or the vCPU is not here. */
int placement_stall(struct placement *placement, const struct placement_stall *stall,
		    struct placement_advice *ret_advice);

/* How crowded a node is, this one included. What was said last counts. */
struct placement_load {
	uint16_t cores; /* it can run so many vCPUs at once; 0: it takes none */
	uint16_t awake; /* vCPUs there that are not halted; stalled ones would run if they had
			   their pages, so they count */
};
int placement_load(struct placement *placement, uint16_t node, const struct placement_load *load);

/* What a vCPU here has done since it was last said, in ns; what is left of the time it ran. */
struct placement_time {
	uint64_t halted_ns, waited_ns; /* asleep; ready but without a core */
	/* When that is: what was before has faded until then. 0: at the last tick, which is no matter
	 * where that was PLACEMENT_TICK_NS ago. */
	uint64_t now_ns;
};
int placement_time(struct placement *placement, uint32_t vcpu, const struct placement_time *time);

/*
 * Every PLACEMENT_TICK_NS or so. Advice for up to `max` vCPUs; returns how many. What did not fit
 * comes with the next tick.
 */
#define PLACEMENT_TICK_NS 4000000u
#define PLACEMENT_TICK_ADVICE                                                                      \
	64u /* so many at once: else a crowd would not be gone within 100 ms */
uint32_t placement_tick(struct placement *placement, uint64_t now_ns,
			struct placement_advice *ret_advice, uint32_t max);

/* The vCPU is at `node` (all nodes call it, at the start and when they hear of a move). */
int placement_placed(struct placement *placement, uint32_t vcpu, uint16_t node, uint64_t now_ns);

/*
 * The vCPU leaves this node for `to`, by advice or by the user's will. `carry` is for
 * placement_arrived() there; its layout is little-endian and has a version.
 */
#define PLACEMENT_CARRY_BYTES 80u
int placement_left(struct placement *placement, uint32_t vcpu, uint16_t to, uint64_t now_ns,
		   uint8_t carry[PLACEMENT_CARRY_BYTES]);
/* 0, or -EPROTO: a carry that makes no sense; who sent it lies. */
int placement_carry_check(const uint8_t carry[PLACEMENT_CARRY_BYTES]);
/*
 * It has come from `from`, where it stopped at stopped_ns. A carry that makes no sense is a lie of
 * the peer: -EPROTO, nothing changed. NULL: it brought none (another version).
 */
int placement_arrived(struct placement *placement, uint32_t vcpu, uint16_t from,
		      uint64_t stopped_ns, uint64_t now_ns,
		      const uint8_t carry[PLACEMENT_CARRY_BYTES]);
/* It could not go to `node` and is here again. */
int placement_refused(struct placement *placement, uint32_t vcpu, uint16_t node, uint64_t now_ns);

/* How a threshold came to be chosen. */
enum placement_how {
	PLACEMENT_HOW_BASE,    /* the policy is base, or the learner is off or knows too little */
	PLACEMENT_HOW_CONTROL, /* drawn: the base rule's, for comparison */
	PLACEMENT_HOW_TRY,     /* drawn: either */
	PLACEMENT_HOW_LEARNED,
	PLACEMENT_HOWS,
};

/* Of two thresholds that are expected to lose so much of the horizon, the one that the learner takes. */
enum placement_arm placement_arm_of(const double loss[PLACEMENT_ARMS]);

/*
 * Decisions, as they are traced and explained (core/placement_trace.h has the text): which
 * threshold a vCPU has until it moves, and moves.
 */
struct placement_record {
	uint64_t sequence; /* of this struct placement, from 1 */
	uint64_t at_ns;
	uint32_t vcpu;
	bool move;	       /* else the choice of a threshold */
	bool late;	       /* a choice that was made where the vCPU was before */
	uint16_t here, target; /* where it is; where it goes, or would first */
	uint64_t move_ns;      /* what a move there is taken to cost */
	uint16_t factor;       /* of the threshold, in 16ths; 0: of a move that did not need one */
	uint8_t arm;	       /* enum placement_arm */
	/* Of a move. */
	uint8_t why;	 /* enum placement_why */
	uint32_t credit; /* the target's, of PLACEMENT_WHOLE */
	/* Of a choice. */
	uint8_t how;	       /* enum placement_how */
	bool predicted, drawn; /* the learner could be asked; it was not, to compare or to learn */
	int8_t feature[PLACEMENT_FEATURES];
	int32_t part_ns[PLACEMENT_FEATURES]; /* each one's part of what it was to save against the
						other threshold (before losses are taken as at
						least 0) */
	int64_t arm_ns[PLACEMENT_ARMS];	     /* what each threshold was expected to lose */
	int64_t lost_ns; /* what was lost within the horizon; -1: not known yet, or elsewhere */
};

#define PLACEMENT_RECORDS 256u
/* The newest record's sequence number, 0: there is none. The last PLACEMENT_RECORDS are kept. */
uint64_t placement_record_newest(const struct placement *placement);
/* -ENOENT: there is none of this number (any more). */
int placement_record_get(const struct placement *placement, uint64_t sequence,
			 struct placement_record *ret_record);

/*
 * What came of choices, here or where the vCPU was when it was made: which one says its vCPU and when
 * it began. Numbered from 1 as records are, and so many of them are kept.
 */
struct placement_closed {
	uint64_t at_ns, begin_ns, lost_ns;
	uint32_t vcpu;
};
uint64_t placement_closed_newest(const struct placement *placement);
int placement_closed_get(const struct placement *placement, uint64_t sequence,
			 struct placement_closed *ret_closed);

/*
 * What was learned here, for the other nodes of the pod: each outcome once, oldest first (of more
 * than PLACEMENT_OUTCOMES that nobody took the oldest are lost). -ENOENT: there is none.
 */
#define PLACEMENT_OUTCOMES    16u
#define PLACEMENT_LOST_US_MAX 1000000u
struct placement_outcome {
	uint8_t arm; /* enum placement_arm */
	int8_t feature[PLACEMENT_FEATURES];
	uint32_t program;
	uint32_t lost_us; /* to PLACEMENT_LOST_US_MAX */
};
int placement_outcome_take(struct placement *placement, struct placement_outcome *ret_outcome);
/* False: it makes no sense; who sent it lies. */
bool placement_outcome_valid(const struct placement_outcome *outcome);
/* An outcome of another node. -EPROTO: it makes no sense. */
int placement_outcome_learn(struct placement *placement, const struct placement_outcome *outcome);

/* `to` hears what `from` has been told of loads, places and pins, and knows what it has learned; for a
 * shadow that begins. */
void placement_copy(const struct placement *from, struct placement *to, uint64_t now_ns);

struct placement_stats {
	uint64_t stall_count, move_count; /* seen; advised */
	uint64_t why_count
		[PLACEMENT_WHYS]; /* of each advice to go, and to stay in spite of credit */
	uint64_t wasted_count, return_count; /* stays not worth their move; moves back */
	uint64_t learned_count;		     /* outcomes */
	uint64_t arm_count[PLACEMENT_ARMS];  /* thresholds chosen */
	/* Lost of a million, after choices of either; while the learner is off, what it was judged by. */
	uint64_t control_loss, learner_loss;
	uint32_t learner_off_count; /* how often the learner was switched off */
	bool learner_off;	    /* it lost to the base rule, which decides alone now */
	uint64_t learner_off_ns;    /* when it was switched off the last time; 0: never */
	uint64_t learner_back_ns;   /* when it was let try again the last time; 0: never */
	uint64_t refault_ns;	    /* what moves have been seen to cost in refaults */
};
void placement_stats_get(const struct placement *placement, struct placement_stats *ret_stats);

/* What a move to `node` is taken to cost now, refaults included. */
uint64_t placement_move_ns(const struct placement *placement, uint16_t node);
/* Of the vCPU's whole credit, what `node` has; 0 for a vCPU that is not here. */
uint32_t placement_credit(const struct placement *placement, uint32_t vcpu, uint16_t node);

/* As placement_learner_save() and placement_learner_load(). */
int placement_save(const struct placement *placement, char *text, size_t size);
/* A copy of what saves it, for who holds a lock meanwhile: no text is made. */
void placement_learner_get(const struct placement *placement,
			   struct placement_learner *ret_learner);
int placement_load_state(struct placement *placement, const char *text, size_t length,
			 const char **ret_reason);

/* Deliberate defects: each must be caught by a test. */
enum placement_broken {
	PLACEMENT_BROKEN_NOTHING,
	PLACEMENT_BROKEN_DWELL,	  /* goes on at once */
	PLACEMENT_BROKEN_RATE,	  /* no bound of moves a second */
	PLACEMENT_BROKEN_WASTED,  /* wasted stays have no price */
	PLACEMENT_BROKEN_DEBT,	  /* refaults of what it took away itself count for going back */
	PLACEMENT_BROKEN_RIVALS,  /* credit is not taken from the others */
	PLACEMENT_BROKEN_YIELD,	  /* nobody yields of two who want to go to each other */
	PLACEMENT_BROKEN_CROWD,	  /* cores do not count */
	PLACEMENT_BROKEN_CONTROL, /* the learner is never switched off */
	PLACEMENT_BROKEN_LEAVES,  /* what a vCPU was seen to leave behind does not count */
	PLACEMENT_BROKEN_NEAR,	  /* the learner is eager for pages far from each other, too */
	PLACEMENT_BROKEN_LONG,	  /* credit fades in stalls that are too long to count, too */
	PLACEMENT_BROKEN_WAITED,  /* who waits for a core is thought to run */
	/* No defect: the base rule as docs/placement.md proves it, and nothing of what is added. */
	PLACEMENT_RULE_ALONE,
};

#endif
