/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy at work in a node (core/placement.h): hears what the vCPUs here go through, and says
 * which of them should go where. It knows nothing of messages and seats: struct placer_ops.
 *
 *   a stall ends (shard) ----> placer_stalled() ---+
 *   moves (seats, control) --> placer_left(), ... -+--> struct placement --> ops->go
 *   loads and outcomes of others (control) > placer_load(), placer_outcomes()
 *   its own thread: how long vCPUs have slept, the load here, --+--> ops->say_load
 *   and the policy's tick                                       +--> ops->say_outcomes
 *
 * A shard's thread never waits: where it does not get the lock at once the stall is not told, and
 * counted. Under a policy that moves nothing (pages, pinned) a stall's end is one load of a word, and
 * the thread sleeps. While no vCPU here is awake the thread looks only now and then; and not at all
 * where none of them could gather elsewhere. Then it is woken by a vCPU that comes, has been awake for
 * a turn when its timer ticks or it stalls, or is one more than there are cores.
 *
 * Everything takes NULL for a pod whose vCPUs do not move, and does nothing. Any thread may call,
 * where nothing else is said.
 *
 * Tested in tests/node/test_placer.c.
 */
#ifndef NODE_PLACER_H
#define NODE_PLACER_H

#include "core/placement.h"
#include "core/placement_trace.h"
#include "pager/pager.h"

/* How a vCPU that is here spends its time. */
struct placer_vcpu {
	bool sleeps;	    /* now */
	uint64_t slept_ns;  /* in all sleeps that are over */
	uint64_t waited_ns; /* for a core, at this seat so far */
};

/* None may wait. All but now_ns and program are called without the placer's lock. */
struct placer_ops {
	uint64_t (*now_ns)(void *ctx); /* pod clock */
	/* False: it is not here. From the placer's thread. */
	bool (*look)(void *ctx, uint32_t vcpu, struct placer_vcpu *ret_vcpu);
	/* What runs (placement_program()); 0: not known. From a shard's thread. */
	uint32_t (*program)(void *ctx, uint32_t vcpu);
	/* A vCPU that is here should go: a wish. From the placer's thread or a shard's. */
	void (*go)(void *ctx, uint32_t vcpu, uint16_t to);
	/* This node's load has changed: for all others. From the placer's thread. */
	void (*say_load)(void *ctx, const struct placement_load *load);
	/* What came of choices here, for all others: 1..PLACEMENT_OUTCOMES. From the placer's thread. */
	void (*say_outcomes)(void *ctx, const struct placement_outcome *outcome, uint32_t count);
	/* The learner has been switched off here, or is let try again. From the placer's thread, or who
	 * has changed the policy. */
	void (*say_learner)(void *ctx, const struct placement_stats *stats);
};

struct placer_config {
	struct placement_config placement;
	uint16_t cores;	  /* of this node, for vCPUs */
	bool traces_pins; /* of all nodes one does, as they are the pod's */
	const struct placer_ops *ops;
	void *ctx;
};

struct placer;

/* first[v]: the node where vCPU v begins. 0, -EINVAL, -ENOMEM. */
int placer_create(const struct placer_config *config, const uint16_t *first,
		  struct placer **ret_placer);
/* Starts the thread. Once. */
int placer_start(struct placer *placer);
/*
 * What the thread does, for a test that plays its time: a turn. Returns in how many ns the next one is
 * due; PLACER_NEWS: when there is some (while it rests: !placer_stats.rests, else placer_is_wanted()).
 * Of a placer that was not started.
 */
#define PLACER_NEWS UINT64_MAX
uint64_t placer_turn(struct placer *placer);
/* Ends the thread, and frees. */
void placer_destroy(struct placer *placer);

enum placement_policy placer_policy(const struct placer *placer);
void placer_set_policy(struct placer *placer, enum placement_policy policy);
bool placer_pinned(const struct placer *placer, uint32_t vcpu);
void placer_pin(struct placer *placer, uint32_t vcpu, bool pinned);

/*
 * A second policy that hears the same and whose advice is only counted; PLACEMENT_POLICIES: none. 0 or
 * -ENOMEM, and nothing has changed.
 */
int placer_set_shadow(struct placer *placer, enum placement_policy policy);
enum placement_policy placer_shadow(const struct placer *placer);

/* Somebody wants to know where vCPUs should be, or what happens. */
bool placer_is_wanted(const struct placer *placer);

/* A shard's thread: a stall of a vCPU has ended. */
void placer_stalled(struct placer *placer, uint32_t vcpu, const struct pager_stall *stall);
/* A vCPU's thread: it goes to sleep in HLT, or leaves; or is awake again, or comes. */
void placer_slept(struct placer *placer, uint32_t vcpu, bool sleeps);
/* A vCPU's thread, now and then, but at least every few ms if the guest's timer ticks: it is awake. */
void placer_awake(struct placer *placer, uint32_t vcpu);
/* What another node says of itself. */
void placer_load(struct placer *placer, uint16_t node, const struct placement_load *load);
/*
 * To whom vCPUs may go from now on, with this node, and where the idle ones gather (placement_members()).
 * All are told this node's load again; a newcomer's for a while, since they hear at different times that
 * it is a member.
 */
void placer_members(struct placer *placer, const struct member_set *members, uint16_t gather_node,
		    bool newcomer);
/* Likewise; valid ones. What comes faster than it is said (PLACER_OUTCOMES_NS) is left out. */
#define PLACER_OUTCOMES_NS 32000000ull
void placer_outcomes(struct placer *placer, uint16_t node, const struct placement_outcome *outcome,
		     uint32_t count);

/* The moves, as in core/placement.h. False: there is no carry. */
bool placer_left(struct placer *placer, uint32_t vcpu, uint16_t to,
		 uint8_t carry[PLACEMENT_CARRY_BYTES]);
void placer_arrived(struct placer *placer, uint32_t vcpu, uint16_t from, uint64_t stopped_ns,
		    const uint8_t carry[PLACEMENT_CARRY_BYTES]); /* judged before; NULL: none */
void placer_placed(struct placer *placer, uint32_t vcpu, uint16_t node);
void placer_refused(struct placer *placer, uint32_t vcpu, uint16_t node);

struct placer_stats {
	enum placement_policy policy;
	uint16_t cores, awake;
	bool rests;	       /* its thread sleeps until there is news */
	uint64_t missed_count; /* stalls that were not told */
	uint64_t heard_count;  /* outcomes of other nodes that were learned */
	struct placement_stats placement;
	/* PLACEMENT_POLICIES: there is none, and the rest is 0. */
	enum placement_policy shadow;
	uint64_t
		shadow_wishes; /* a vCPU that it wants to go is one, until it moves or may stay again */
	uint64_t shadow_agreed; /* of them, when the policy wanted the same */
	struct placement_stats shadow_placement;
};
void placer_stats(struct placer *placer, struct placer_stats *ret_stats);

/* As placement_save() and placement_load_state(). */
int placer_save(struct placer *placer, char *text, size_t size);
int placer_load_state(struct placer *placer, const char *text, size_t length,
		      const char **ret_reason);

/* The newest decisions about moves, newest first; the shadow's or the policy's. Returns how many. */
uint32_t placer_records(struct placer *placer, bool shadow, struct placement_record *ret_record,
			uint32_t max);
/* Likewise of the choices of thresholds: no more than PLACER_CHOICES of each vCPU. */
#define PLACER_CHOICES 4u
uint32_t placer_choices(struct placer *placer, bool shadow, struct placement_record *ret_record,
			uint32_t max);

/*
 * A trace of what happens here and is decided (core/placement_trace.h): stalls, vCPUs that come, this
 * node's load, the policy's decisions and what came of them; and on one node (traces_pins) the pins,
 * which are the pod's. From the first call on it is kept, beginning with the load and the pins that
 * there are, and each call takes what has come since, in order of its end. Who has not called for
 * PLACER_TRACE_NS does not want it any more.
 */
#define PLACER_TRACE_EVENTS    8192u
#define PLACER_TRACE_DECISIONS 512u
#define PLACER_TRACE_NS	       3000000000ull
struct placer_trace {
	bool begun;	  /* just now: there is nothing before */
	uint64_t lost;	  /* events that did not fit, since the last call */
	uint64_t move_ns; /* what a move is seen to take */
	uint32_t count;
	struct placement_trace_event event[PLACER_TRACE_EVENTS];
	uint32_t decision_count;
	struct placement_record decision[PLACER_TRACE_DECISIONS]; /* which events name */
};
/* *ret_trace is the caller's, to be freed. 0; -ENOMEM; -ENOENT: no placer. */
int placer_trace(struct placer *placer, struct placer_trace **ret_trace);

#endif
