// SPDX-License-Identifier: Apache-2.0
/*
 * A trace of placement under another policy. What that can say, and what not, is in the header.
 *
 * What follows a line that was refused is refused, too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/placement_trace.h"

#define TICKS_MAX 256u

struct replay_vcpu {
	uint16_t recorded, node; /* NODE_NONE: not placed yet */
	uint16_t counted;	 /* recorded: in whose load it is, also while it is on its way */
	uint64_t *best_ns;	 /* by node: the least cost of whoever is there now */
	bool chosen;		 /* a choice was recorded, and nothing yet of what came of it: */
	struct placement_record choice;
};

struct placement_replay {
	enum placement_policy policy;
	uint32_t broken;
	struct placement_trace_writer head;
	uint32_t node_count, vcpu_count;
	uint64_t move_ns, lines;
	uint64_t tick_ns;
	bool headed, ended, failed;
	struct placement **placement; /* by node */
	struct replay_vcpu *vcpu;
	uint64_t *best_ns;
	placement_replay_fn *told;
	void *told_arg;
	struct placement_replay_result result;
};

int placement_replay_create(enum placement_policy policy, uint32_t broken,
			    struct placement_replay **ret_replay)
{
	struct placement_replay *replay = calloc(1, sizeof(*replay));

	if (!replay)
		return -ENOMEM;
	replay->policy = policy;
	replay->broken = broken;
	*ret_replay = replay;
	return 0;
}

void placement_replay_destroy(struct placement_replay *replay)
{
	if (!replay)
		return;
	for (uint32_t i = 0; replay->placement && i < replay->node_count; i++)
		placement_destroy(replay->placement[i]);
	free(replay->placement);
	free(replay->vcpu);
	free(replay->best_ns);
	free(replay);
}

uint16_t placement_replay_node(const struct placement_replay *replay, uint32_t vcpu)
{
	return replay->headed && vcpu < replay->vcpu_count ? replay->vcpu[vcpu].node : NODE_NONE;
}

static int prepare(struct placement_replay *replay)
{
	replay->placement = calloc(replay->node_count, sizeof(*replay->placement));
	replay->vcpu = calloc(replay->vcpu_count, sizeof(*replay->vcpu));
	replay->best_ns = calloc((size_t)replay->node_count * replay->vcpu_count, sizeof(uint64_t));
	if (!replay->placement || !replay->vcpu || !replay->best_ns)
		return -ENOMEM;
	for (uint32_t i = 0; i < replay->vcpu_count; i++) {
		replay->vcpu[i].recorded = replay->vcpu[i].node = NODE_NONE;
		replay->vcpu[i].counted = NODE_NONE;
		replay->vcpu[i].best_ns = &replay->best_ns[(size_t)i * replay->node_count];
	}
	for (uint32_t i = 0; i < replay->node_count; i++) {
		struct placement_config config = { .self = (uint16_t)i,
						   .node_count = (uint16_t)replay->node_count,
						   .vcpu_count = replay->vcpu_count,
						   .policy = replay->policy,
						   .move_ns = replay->move_ns,
						   .refault_ns = PLACEMENT_REFAULT_MOVES *
								 replay->move_ns,
						   .broken = replay->broken };
		struct placement_load load = { .cores = VCPUS_MAX };
		int error = placement_create(&config, &replay->placement[i]);

		if (error)
			return error;
		/* Until the trace says how crowded the nodes are. */
		for (uint16_t k = 0; k < replay->node_count; k++)
			placement_load(replay->placement[i], k, &load);
	}
	return 0;
}

void placement_replay_explain(struct placement_replay *replay, placement_replay_fn *told, void *arg)
{
	replay->told = told;
	replay->told_arg = arg;
}

static int read_head(struct placement_replay *replay, const char *line, size_t length,
		     const char **ret_reason)
{
	int error = placement_trace_head_get(&replay->head, line, length, ret_reason);

	if (error)
		return error;
	replay->node_count = replay->head.node_count;
	replay->vcpu_count = replay->head.vcpu_count;
	replay->move_ns = replay->head.move_ns;
	replay->headed = true;
	return prepare(replay);
}

static void place(struct placement_replay *replay, uint32_t vcpu, uint16_t node, uint64_t now_ns)
{
	replay->vcpu[vcpu].node = node;
	for (uint32_t i = 0; i < replay->node_count; i++)
		placement_placed(replay->placement[i], vcpu, node, now_ns);
}

static void replay_move(struct placement_replay *replay, uint32_t vcpu, uint16_t to,
			uint64_t now_ns)
{
	struct replay_vcpu *v = &replay->vcpu[vcpu];
	uint16_t from = v->node;
	uint8_t carry[PLACEMENT_CARRY_BYTES];

	if (placement_left(replay->placement[from], vcpu, to, now_ns, carry) != 0)
		return;
	placement_arrived(replay->placement[to], vcpu, from, now_ns, now_ns + replay->move_ns,
			  carry);
	place(replay, vcpu, to, now_ns);
	replay->result.move_count++;
	replay->result.policy_ns += replay->move_ns;
}

/* Of all ways through the demands so far that end at a node, the cheapest. */
static void best_after(struct placement_replay *replay, struct replay_vcpu *v,
		       const struct placement_trace_event *event)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < replay->node_count; i++) {
		if (i != event->node)
			v->best_ns[i] += event->took_ns;
		if (v->best_ns[i] < least)
			least = v->best_ns[i];
	}
	for (uint32_t i = 0; i < replay->node_count; i++) {
		if (v->best_ns[i] > least + replay->move_ns)
			v->best_ns[i] = least + replay->move_ns;
	}
}

/* Time passes, as it did; who would gather or spread the trace does not say. */
static void replay_ticks(struct placement_replay *replay, uint64_t now_ns)
{
	struct placement_advice advice;

	if (now_ns > replay->tick_ns + TICKS_MAX * PLACEMENT_TICK_NS)
		replay->tick_ns = now_ns / PLACEMENT_TICK_NS * PLACEMENT_TICK_NS;
	for (; replay->tick_ns <= now_ns; replay->tick_ns += PLACEMENT_TICK_NS) {
		for (uint32_t i = 0; i < replay->node_count; i++)
			placement_tick(replay->placement[i], replay->tick_ns, &advice, 0);
	}
}

/* Where it is at first, or a move that was made: the policy makes its own. */
static void replay_place(struct placement_replay *replay, const struct placement_trace_event *event)
{
	struct replay_vcpu *v = &replay->vcpu[event->vcpu];
	struct placement_load load = { .cores = VCPUS_MAX, .awake = 1 };

	v->counted = event->node;
	if (v->recorded != NODE_NONE) {
		replay->result.recorded_ns += event->took_ns;
		replay->result.recorded_moves++;
		v->recorded = event->node;
		return;
	}
	for (uint32_t i = 0; i < replay->vcpu_count; i++)
		load.awake += replay->vcpu[i].node == event->node;
	place(replay, event->vcpu, event->node, event->at_ns);
	for (uint32_t i = 0; i < replay->node_count; i++)
		placement_load(replay->placement[i], event->node, &load);
	for (uint32_t i = 0; i < replay->node_count; i++)
		v->best_ns[i] = i == event->node ? 0 : replay->move_ns;
	v->recorded = event->node;
}

/* A node's load is what it said, but with the vCPUs that the policy has there. */
static void replay_load(struct placement_replay *replay, const struct placement_trace_event *event)
{
	struct placement_load load = { .cores = event->cores };
	int32_t awake = event->awake;

	for (uint32_t i = 0; i < replay->vcpu_count; i++) {
		awake += replay->vcpu[i].node == event->node;
		awake -= replay->vcpu[i].counted == event->node;
	}
	load.awake = (uint16_t)(awake < 0 ? 0 : awake);
	for (uint32_t i = 0; i < replay->node_count; i++)
		placement_load(replay->placement[i], event->node, &load);
}

static int replay_stall(struct placement_replay *replay, const struct placement_trace_event *event,
			const char **ret_reason)
{
	struct replay_vcpu *v = &replay->vcpu[event->vcpu];
	struct placement_advice advice;

	*ret_reason = "the trace has a stall of a vCPU that is nowhere yet";
	if (v->recorded == NODE_NONE)
		return -EINVAL;
	replay->result.stall_count++;
	replay->result.recorded_ns += event->took_ns;
	if (event->took_ns > replay->result.longest_ns)
		replay->result.longest_ns = event->took_ns;
	if (event->node == NODE_NONE) {
		/* Nobody's page: it takes that everywhere. */
		replay->result.policy_ns += event->took_ns;
		for (uint32_t i = 0; i < replay->node_count; i++)
			v->best_ns[i] += event->took_ns;
		return 0;
	}
	best_after(replay, v, event);
	if (v->node == event->node)
		return 0;
	replay->result.policy_ns += event->took_ns;
	struct placement_stall stall = { .vcpu = event->vcpu,
					 .kind = event->kind,
					 .owner = event->node,
					 .sharers = event->sharers,
					 .gpn = event->gpn,
					 .begin_ns = event->at_ns - event->took_ns,
					 .end_ns = event->at_ns,
					 .slept_ns = event->slept_ns,
					 .program = event->program };
	if (placement_stall(replay->placement[v->node], &stall, &advice) == 0 &&
	    advice.to != NODE_NONE)
		replay_move(replay, event->vcpu, advice.to, event->at_ns);
	return 0;
}

/* Decisions as recorded: they are no input, and the policy makes its own. */

/* ns: figures are whole ones, and features' parts one each. */
#define ROUNDED_NS (2 * PLACEMENT_FEATURES)

/* Is the choice what its figures say, and do they add up? */
static bool is_odd(const struct placement_record *r)
{
	int64_t most_ns = (int64_t)(PLACEMENT_LOSS_MAX * PLACEMENT_HORIZON_NS), sum_ns = 0;
	int64_t base_ns = r->arm_ns[PLACEMENT_ARM_BASE], eager_ns = r->arm_ns[PLACEMENT_ARM_EAGER];
	int64_t gain_ns = r->arm == PLACEMENT_ARM_BASE ? eager_ns - base_ns : base_ns - eager_ns;
	double loss[PLACEMENT_ARMS] = { (double)base_ns / PLACEMENT_HORIZON_NS,
					(double)eager_ns / PLACEMENT_HORIZON_NS };
	double less[PLACEMENT_ARMS] = { loss[0], (double)(eager_ns - 2) / PLACEMENT_HORIZON_NS };
	double more[PLACEMENT_ARMS] = { loss[0], (double)(eager_ns + 2) / PLACEMENT_HORIZON_NS };

	if (r->how == PLACEMENT_HOW_LEARNED &&
	    (!r->predicted || (placement_arm_of(less) != (enum placement_arm)r->arm &&
			       placement_arm_of(more) != (enum placement_arm)r->arm)))
		return true;
	if ((r->how == PLACEMENT_HOW_BASE || r->how == PLACEMENT_HOW_CONTROL) &&
	    r->arm != PLACEMENT_ARM_BASE)
		return true;
	/* What was cut off at its bounds does not add up. */
	if (base_ns <= 0 || eager_ns <= 0 || base_ns >= most_ns || eager_ns >= most_ns)
		return false;
	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		sum_ns += r->part_ns[i];
	return llabs(sum_ns - gain_ns) > ROUNDED_NS;
}

static void tell(struct placement_replay *replay, const struct placement_record *record)
{
	if (replay->told)
		replay->told(replay->told_arg, record);
}

static void tell_choice(struct placement_replay *replay, struct replay_vcpu *v)
{
	if (v->chosen)
		tell(replay, &v->choice);
	v->chosen = false;
}

static void replay_decision(struct placement_replay *replay,
			    const struct placement_trace_event *event)
{
	struct replay_vcpu *v = &replay->vcpu[event->vcpu];

	v->counted = event->record->move ? event->record->target : event->record->here;
	if (event->record->move) {
		replay->result.go_count++;
		tell(replay, event->record);
		return;
	}
	tell_choice(replay, v);
	replay->result.choice_count++;
	replay->result.odd_count += is_odd(event->record);
	v->choice = *event->record;
	v->chosen = true;
}

/* Of a choice that was made before the trace began there is no more than this. */
static void replay_outcome(struct placement_replay *replay,
			   const struct placement_trace_event *event)
{
	struct replay_vcpu *v = &replay->vcpu[event->vcpu];

	if (!v->chosen || v->choice.at_ns != event->at_ns - event->took_ns)
		return;
	replay->result.outcome_count++;
	v->choice.lost_ns = (int64_t)event->lost_ns;
	tell_choice(replay, v);
}

static int replay_event(struct placement_replay *replay, const struct placement_trace_event *event,
			const char **ret_reason)
{
	switch (event->what) {
	case PLACEMENT_TRACE_STALL:
		replay_ticks(replay, event->at_ns);
		return replay_stall(replay, event, ret_reason);
	case PLACEMENT_TRACE_MOVE:
		replay_ticks(replay, event->at_ns);
		replay_place(replay, event);
		break;
	case PLACEMENT_TRACE_LOAD:
		replay_ticks(replay, event->at_ns);
		replay_load(replay, event);
		break;
	case PLACEMENT_TRACE_PIN:
		for (uint32_t i = 0; i < replay->node_count; i++)
			placement_pin(replay->placement[i], event->vcpu, event->pinned);
		break;
	case PLACEMENT_TRACE_OUTCOME:
		replay_outcome(replay, event);
		break;
	case PLACEMENT_TRACE_DECISION:
		replay_decision(replay, event);
		break;
	}
	return 0;
}

static int read_line(struct placement_replay *replay, const char *line, size_t length,
		     const char **ret_reason)
{
	struct placement_trace_event event;
	struct placement_record record;
	uint64_t lines;

	if (!replay->headed)
		return read_head(replay, line, length, ret_reason);
	*ret_reason = "the trace goes on behind its end";
	if (replay->ended)
		return -EINVAL;
	if (placement_trace_end_get(line, length, &lines) == 0) {
		*ret_reason = "the trace has lost lines";
		if (lines != replay->lines)
			return -EINVAL;
		replay->ended = true;
		return 0;
	}
	*ret_reason = "a line of the trace has nonsense in it";
	if (placement_trace_get(&replay->head, line, length, &event, &record) < 0)
		return -EINVAL;
	replay->lines++;
	if (event.at_ns > replay->result.last_ns)
		replay->result.last_ns = event.at_ns;
	return replay_event(replay, &event, ret_reason);
}

int placement_replay_line(struct placement_replay *replay, const char *line, size_t length,
			  const char **ret_reason)
{
	int error;

	*ret_reason = "the trace has nonsense in it";
	if (replay->failed)
		return -EINVAL;
	error = read_line(replay, line, length, ret_reason);
	if (error)
		replay->failed = true;
	else
		*ret_reason = NULL;
	return error;
}

int placement_replay_finish(struct placement_replay *replay,
			    struct placement_replay_result *ret_result, const char **ret_reason)
{
	*ret_reason = "the trace is cut off";
	if (!replay->ended || replay->failed)
		return -EINVAL;
	for (uint32_t i = 0; i < replay->vcpu_count; i++)
		tell_choice(replay, &replay->vcpu[i]);
	for (uint32_t i = 0; i < replay->vcpu_count; i++) {
		const struct replay_vcpu *v = &replay->vcpu[i];
		uint64_t least = v->recorded == NODE_NONE ? 0 : UINT64_MAX;

		for (uint32_t k = 0; k < replay->node_count; k++)
			least = v->best_ns[k] < least ? v->best_ns[k] : least;
		replay->result.best_ns += least;
	}
	*ret_result = replay->result;
	*ret_reason = NULL;
	return 0;
}
