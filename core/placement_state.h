/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a struct placement is made of, for core/placement*.c alone.
 *
 *   placement.c        its life, and what moves do to it
 *   placement_credit.c stalls: credit, threshold, guards
 *   placement_tick.c   gathering and spreading
 *   placement_choice.c features, outcomes, the learner against its control, records
 */
#ifndef CORE_PLACEMENT_STATE_H
#define CORE_PLACEMENT_STATE_H

#include "core/placement.h"

/* Ages are counted in steps of about a millisecond. */
#define AGE_SHIFT 20

/* Stall times of lately fade by a 64th a step, so this is the span that they stand for. */
#define LATELY_SHIFT 6
#define NOW_NS	     (2ull << AGE_SHIFT)
#define LATELY_NS    (1ull << (AGE_SHIFT + LATELY_SHIFT))
/* Credit fades by a 64th a step, several steps at a time; after so many nothing is left. */
#define CREDIT_SHIFT	 6
#define CREDIT_STEPS	 4u
#define CREDIT_STEPS_MAX 512u

/* One stall counts as no more than this: something else was wrong. */
#define STALL_NS_MAX 50000000u
/* And as no more than this part of a threshold: one stall, however long, says that one page is there. */
#define STALLS_MIN 4u

/* From the grant that ends a stall to the guest's next instruction; more is a host without cores. */
#define LAG_NS_MAX 50000u

/*
 * What a vCPU leaves behind. From its arrival its stalls on pages of the node that it left are what
 * the move cost, until they are less than BURST_SHARE of its time.
 */
#define BURST_SHARE   8u
#define LEAVES_NS_MAX 8000000u
#define LEAVES_SHIFT  12 /* fades by so much a step: a vCPU does something else in a while */
#define WASTED_MAX    2u
#define PROGRAM_COUNT 64u
#define NEAR_MIN      512u /* of 1024 stalls: so many are near the one before, or nobody is eager */
#define CONTROL_SHARE 8u   /* one decision in so many is the base rule's, for comparison */
#define TRY_SHARE     16u  /* and one is drawn, to learn what comes of it */
#define VERDICT_COUNT 8u   /* decisions of the control for a verdict */
#define VERDICTS_LOST 3u   /* in a row, and the learner is switched off */

/* For each vCPU and node. */
struct placement_share {
	uint32_t credit;	    /* of PLACEMENT_WHOLE */
	uint32_t now_ns, lately_ns; /* stall time on the node's pages */
};

/* The threshold that was chosen until the next move; its outcome is watched for a horizon. */
struct placement_choice {
	bool open;
	bool holds; /* the threshold is still this: it has not moved since */
	uint8_t arm, how;
	uint16_t target;
	uint64_t begin_ns, lost_ns, expected_ns;
	uint32_t program;
	int8_t feature[PLACEMENT_FEATURES];
	uint64_t sequence; /* of its record here; 0: there is none */
};

struct placement_vcpu {
	uint16_t node; /* NODE_NONE: not known */
	bool here, pinned;
	uint8_t wasted; /* stays in a row that were not worth their move */
	uint16_t left_node;
	uint16_t refused_node;
	uint64_t refused_until_ns;
	uint64_t arrived_ns, aged_ns, heard_ns; /* heard: the last stall's end */
	uint64_t faded_ns;			/* as aged, but of credit */
	uint64_t useful_ns; /* of this stay: time that it ran, with next to no credit elsewhere */
	uint64_t debt_ns, debt_begin_ns;
	uint16_t met_node;  /* somebody came here from there ... */
	uint64_t met_ns;    /* ... and what he left there may cost this one so much */
	uint64_t leaves_ns; /* what it has been seen to leave behind; 0: nothing, or not known */
	uint64_t burst_ns;  /* stalls on what it left, of this stay */
	bool burst;	    /* they go on */
	uint64_t ran_ns;    /* in this stay */
	uint64_t waited_ns; /* without a core, not yet taken from what it is thought to have run */
	uint32_t stays; /* log2 of a stay's length in moves, in 64ths of 8, averaged; 16 times */
	uint32_t now_ns, lately_ns;	     /* sums over the nodes */
	uint16_t near, left, writes, shared; /* averages, of 1024 */
	uint64_t gap_ns;		     /* run from stall to stall, averaged */
	uint64_t last_gpn;
	uint32_t program;
	uint64_t token_ns; /* the rate of moves: when the bucket was empty, if it were never full */
	uint64_t halted_ns; /* faded likewise */
	uint16_t spread_from;
	uint8_t spread_failed;
	uint64_t spread_ns, spread_after_ns;
	uint32_t moves; /* of lately, times 64 */
	bool advised;	/* the last advice was to go to advised_node */
	bool advised_spread;
	uint16_t advised_node;
	struct placement_choice choice;
	struct placement_share *share; /* by node */
};

struct placement_program {
	int16_t loss[PLACEMENT_ARMS]; /* averages, in 1024ths of the horizon */
};

/* What was lost after decisions of the learner, or of its control; faded. */
struct placement_tally {
	uint64_t lost_ns, time_ns;
	uint32_t count;
};

struct placement {
	struct placement_config config;
	struct placement_load *load; /* by node */
	uint64_t *wire_ns;	     /* by node: what a move there takes */
	uint64_t refault_ns;	     /* what moves cost vCPUs in such stalls, averaged */
	uint64_t lag_ns;
	uint32_t crowded_ticks;
	struct placement_vcpu *vcpu;
	struct placement_share *share;
	struct placement_learner learner;
	struct placement_program program[PROGRAM_COUNT];
	struct placement_tally control, learned;
	uint32_t verdicts_lost;
	bool learner_off;
	struct placement_stats stats;
	uint64_t record_newest;
	struct placement_record record[PLACEMENT_RECORDS];
	uint64_t closed_newest;
	struct placement_closed closed[PLACEMENT_RECORDS];
	uint64_t outcome_newest, outcome_taken;
	struct placement_outcome outcome[PLACEMENT_OUTCOMES];
};

static inline uint64_t placement_since(uint64_t then_ns, uint64_t now_ns)
{
	return now_ns > then_ns ? now_ns - then_ns : 0;
}

/* splitmix64's mixer: what is drawn depends on the seed and on what happened, not on the order. */
static inline uint64_t placement_mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15u;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
	return value ^ (value >> 31);
}

/* placement.c: time passes for a vCPU that is here. */
void placement_age(struct placement *p, struct placement_vcpu *v, uint64_t now_ns);

/* placement.c: what was stalled for is less and less a reason to go. */
void placement_fade_credit(struct placement *p, struct placement_vcpu *v, uint64_t now_ns);

/* placement.c: what a move of this vCPU is taken to cost. */
uint64_t placement_cost(const struct placement *p, const struct placement_vcpu *v, uint16_t to);
/* placement.c: are the stalls of its move over? */
void placement_burst(struct placement *p, struct placement_vcpu *v, uint64_t now_ns);

/* placement_credit.c */
/* May it go there now? PLACEMENT_WHY_CREDIT: yes. */
enum placement_why placement_guard(const struct placement *p, uint32_t vcpu, uint16_t to,
				   uint64_t now_ns);
/* Writes the advice and what the move has to remember. */
void placement_advise(struct placement *p, uint32_t vcpu, uint16_t to, enum placement_why why,
		      uint16_t factor, uint64_t now_ns, struct placement_advice *ret_advice);

/* placement_choice.c */
void placement_features(const struct placement *p, uint32_t vcpu, uint16_t to, uint64_t now_ns,
			int8_t feature[PLACEMENT_FEATURES]);
/* Time was lost: the choice that is being watched is to answer for it. */
void placement_lost(struct placement_vcpu *v, uint64_t ns);
/* Closes a choice whose horizon is over. */
void placement_choice_due(struct placement *p, uint32_t vcpu, uint64_t now_ns);
/* Credit of `to` grows: makes a choice, if none is open. */
void placement_choose(struct placement *p, uint32_t vcpu, uint16_t to, uint64_t now_ns);
/* Returns the record's sequence number. */
uint64_t placement_record_add(struct placement *p, const struct placement_record *record);

#endif
