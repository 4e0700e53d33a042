// SPDX-License-Identifier: Apache-2.0
/*
 * The pod in virtual time. The idea is in the header.
 *
 * One vCPU at a time goes on, the one whose time is earliest: it makes touches until one stalls or
 * its turn is over (QUANTUM_NS).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/placement_world_state.h"

#define QUANTUM_NS   20000u
#define HOST_WAIT_NS 4000000u /* at most */
#define OWN_MAX	     64u
#define NEVER	     UINT64_MAX
#define SAMPLES	     65536u

/*
 * bench/stalls, sleeping: p50 in docs/benchmarks.md. bench/moves: what a move takes, and how many stalls
 * one without hints brings.
 */
const struct world_costs world_costs_default = {
	.stall_ns = 82000,
	.upgrade_ns = 84000,
	.sharer_ns = 12000,
	.ahead_ns = 1800,
	.zero_ns = 39000,
	.lag_ns = 30000,
	.hold_ns = 40000,
	.move_ns = 135000,
	.ipi_ns = 60000,
	.wake_ns = 20000,
	.own_pages = 30,
};

static int prepare(struct world *w)
{
	const struct world_config *config = &w->config;
	uint64_t most = (uint64_t)config->node_count * config->node_pages * 2 + 65536;

	if (config->node_count < (config->load == LOAD_QUARTET ? 2 : 3) ||
	    config->node_count > WORLD_NODES_MAX || config->core_count == 0 ||
	    config->node_pages < REGION_PAGES || most > UINT32_MAX ||
	    (unsigned int)config->load >= WORLD_LOADS || config->costs.own_pages > OWN_MAX)
		return -EINVAL;
	w->page = malloc(most * sizeof(*w->page));
	w->sample = calloc(SAMPLES, sizeof(*w->sample));
	if (!w->page || !w->sample)
		return -ENOMEM;
	for (uint64_t i = 0; i < most; i++)
		w->page[i] = (struct page){ .owner = NODE_NONE, .comes_to = NODE_NONE };
	for (uint32_t i = 0; i < config->node_count; i++) {
		/* A node has at most a page more than it holds. */
		w->copies[i].capacity = 4 * config->node_pages + 4096;
		w->owned[i].page = malloc((config->node_pages + 4096) * sizeof(uint32_t));
		w->copies[i].page = malloc(w->copies[i].capacity * sizeof(uint32_t));
		if (!w->owned[i].page || !w->copies[i].page)
			return -ENOMEM;
	}
	world_lay_out(w);
	for (uint32_t i = 0; i < config->node_count; i++) {
		struct placement_config placement = { .self = (uint16_t)i,
						      .node_count = (uint16_t)config->node_count,
						      .vcpu_count = w->vcpu_count,
						      .policy = config->policy,
						      .move_ns = config->costs.move_ns,
						      .refault_ns = PLACEMENT_REFAULT_MOVES *
								    config->costs.move_ns,
						      .seed = config->seed,
						      .broken = config->broken };
		const char *reason;
		int error = placement_create(&placement, &w->placement[i]);

		if (error)
			return error;
		if (config->state) {
			error = placement_load_state(w->placement[i], config->state,
						     strlen(config->state), &reason);
			if (error)
				return error;
		}
		for (uint32_t k = 0; k < w->vcpu_count; k++)
			placement_placed(w->placement[i], k, w->vcpu[k].node, 0);
	}
	if (config->trace)
		placement_trace_begin(&w->trace, config->node_count, w->vcpu_count,
				      config->costs.move_ns);
	return 0;
}

static void clean(struct world *w)
{
	for (uint32_t i = 0; i < WORLD_NODES_MAX; i++) {
		placement_destroy(w->placement[i]);
		free(w->owned[i].page);
		free(w->copies[i].page);
	}
	free(w->page);
	free(w->sample);
}

/* Running. */

static void trace(struct world *w, const struct placement_trace_event *event)
{
	char line[PLACEMENT_TRACE_LINE];

	if (w->config.trace && placement_trace_put(&w->trace, event, line, sizeof(line)) > 0)
		fputs(line, w->config.trace);
}

/* What the node has decided, and what has come of it. */
static void trace_decisions(struct world *w, uint16_t node)
{
	struct placement_trace_event event;
	struct placement_record record;

	while (w->config.trace &&
	       placement_trace_next(w->placement[node], &w->seen[node], &event, &record))
		trace(w, &event);
}

static void trace_load(struct world *w, uint16_t node, const struct placement_load *load)
{
	if (w->traced[node].cores == load->cores && w->traced[node].awake == load->awake)
		return;
	w->traced[node] = *load;
	trace(w, &(struct placement_trace_event){ .what = PLACEMENT_TRACE_LOAD,
						  .at_ns = w->now_ns,
						  .node = node,
						  .cores = load->cores,
						  .awake = load->awake });
}

void world_awake(struct vcpu *v, uint64_t now_ns)
{
	v->at_ns = now_ns;
	if (v->state != HALTED)
		return;
	v->state = RUNS;
	v->halted_ns += now_ns - v->halted_since_ns;
	v->slept_ns += now_ns - v->asleep_ns;
}

/* Who needs a core of a busy host may wait for it; `chance` of a million. */
static uint64_t host_wait(struct world *w, struct vcpu *v, uint64_t chance)
{
	return chance && rng_below(&v->rng, 1000000) < chance ? rng_below(&v->rng, HOST_WAIT_NS)
							      : 0;
}

/* Has it done anything since it came? */
static void count_hasty(struct world *w, struct vcpu *v)
{
	bool hasty = v->ran_ns < WORLD_HASTY_NS;

	w->result->hasty_count += hasty;
	v->hasty_row = hasty ? v->hasty_row + 1 : 0;
	if (v->hasty_row > w->result->hasty_row)
		w->result->hasty_row = v->hasty_row;
	v->ran_ns = 0;
}

static void begin_move(struct world *w, struct vcpu *v, uint16_t to)
{
	if (placement_left(w->placement[v->node], v->index, to, v->at_ns, v->carry) != 0)
		abort();
	trace_decisions(w, v->node);
	count_hasty(w, v);
	v->state = MOVES;
	v->target = to;
	v->stopped_ns = v->at_ns;
	v->at_ns += w->config.costs.move_ns + host_wait(w, v, (uint64_t)w->config.busy * 1000);
	w->result->move_count++;
	/* MOVE, and PLACE to all. */
	w->result->message_count += w->config.node_count;
	w->result->move_ns += w->config.costs.move_ns;
}

static void end_move(struct world *w, struct vcpu *v)
{
	uint16_t from = v->node;

	v->node = v->target;
	if (placement_arrived(w->placement[v->node], v->index, from, v->stopped_ns, v->at_ns,
			      v->carry) != 0)
		abort();
	for (uint32_t i = 0; i < w->config.node_count; i++) {
		if (i != v->node)
			placement_placed(w->placement[i], v->index, v->node, v->at_ns);
	}
	trace(w, &(struct placement_trace_event){ .what = PLACEMENT_TRACE_MOVE,
						  .at_ns = v->at_ns,
						  .vcpu = v->index,
						  .node = v->node,
						  .took_ns = v->at_ns - v->stopped_ns });
	v->own_left = w->config.costs.own_pages;
	if (!w->config.no_hints)
		world_ask_ahead(w, v);
	/* If it was asleep it finds that there is nothing to do. */
	v->state = RUNS;
}

static void end_stall(struct world *w, struct vcpu *v)
{
	struct placement_advice advice;
	struct timespec before, after;
	bool timed = w->config.time_decisions && w->sample_count < SAMPLES;

	v->stall.end_ns = v->at_ns;
	v->stall.slept_ns = v->slept_ns;
	v->slept_ns = 0;
	page_hints_stalled(&v->hints, v->stall.gpn, v->stall.kind);
	w->result->stall_count++;
	w->result->stall_ns += v->at_ns - v->stall.begin_ns;
	if (timed)
		clock_gettime(CLOCK_MONOTONIC, &before);
	if (placement_stall(w->placement[v->node], &v->stall, &advice) != 0)
		abort();
	if (timed) {
		clock_gettime(CLOCK_MONOTONIC, &after);
		w->sample[w->sample_count++] =
			(uint32_t)((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec -
				   before.tv_nsec);
	}
	trace(w, &(struct placement_trace_event){ .at_ns = v->stall.end_ns,
						  .vcpu = v->index,
						  .node = v->stall.owner,
						  .took_ns = v->stall.end_ns - v->stall.begin_ns,
						  .kind = v->stall.kind,
						  .gpn = v->stall.gpn,
						  .slept_ns = v->stall.slept_ns,
						  .program = v->stall.program,
						  .sharers = v->stall.sharers });
	trace_decisions(w, v->node);
	v->state = RUNS;
	if (advice.to != NODE_NONE)
		begin_move(w, v, advice.to);
	else
		v->at_ns += w->config.costs.lag_ns;
}

static uint32_t runs_at(const struct world *w, uint16_t node)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < w->vcpu_count; i++)
		count += w->vcpu[i].node == node && w->vcpu[i].state == RUNS;
	return count;
}

static void run(struct world *w, struct vcpu *v)
{
	uint64_t begin_ns = v->at_ns, ran_ns = 0;
	uint32_t others = runs_at(w, v->node);
	uint64_t scale =
		others > w->config.core_count ? others * 1024 / w->config.core_count : 1024;

	while (ran_ns < QUANTUM_NS) {
		struct touch touch = { .work_ns = 0, .write = true };

		if (v->own_left > 0)
			touch.page = v->own_first + --v->own_left;
		else if (!world_next_touch(w, v, &touch)) {
			v->state = HALTED;
			v->halted_since_ns = v->asleep_ns = v->at_ns;
			v->at_ns = v->wakes_ns ? v->wakes_ns : NEVER;
			v->wakes_ns = 0;
			return;
		}
		ran_ns += touch.work_ns;
		v->at_ns = begin_ns + ran_ns * scale / 1024;
		w->result->work_ns += touch.waits ? 0 : touch.work_ns;
		v->ran_ns += touch.waits ? 0 : touch.work_ns;
		w->result->phase_work_ns[w->phase] += touch.waits ? 0 : touch.work_ns;
		w->result->touch_count++;
		if (world_stalls(w, v, &touch)) {
			v->at_ns += world_fetch(w, v, &touch) - w->config.costs.lag_ns;
			v->at_ns += host_wait(w, v, (uint64_t)w->config.busy * 1000);
			v->state = STALLED;
			break;
		}
		if (touch.waits)
			break;
	}
	if (w->config.busy && v->state == RUNS) {
		uint64_t ns = host_wait(w, v, w->config.busy * ran_ns / (QUANTUM_NS / 1000));

		v->at_ns += ns;
		v->waited_ns += ns;
	}
	v->waited_ns += ran_ns * scale / 1024 - ran_ns;
	w->result->wait_ns += ran_ns * scale / 1024 - ran_ns;
}

/* In turn: everybody does the next thing. */
static void change_phase(struct world *w)
{
	uint32_t phase = (uint32_t)(w->now_ns * w->phases / w->config.duration_ns);

	if (w->config.load != LOAD_TURNS || (phase == w->phase && w->now_ns > 0) ||
	    phase >= w->phases)
		return;
	w->phase = phase;
	for (uint32_t i = 0; i < w->vcpu_count; i++) {
		struct vcpu *v = &w->vcpu[i];

		v->load = world_turn[phase];
		v->left = v->step = v->next = 0;
		v->group->asleep = 0;
		v->group->produced = v->group->consumed = 0;
		if (v->state == HALTED) {
			world_awake(v, w->now_ns);
		}
	}
}

/* All nodes learn from what one has seen. */
static void tell(struct world *w)
{
	struct placement_outcome outcome;

	if (!is_told(w, TOLD_OUTCOMES))
		return;
	for (uint16_t i = 0; i < w->config.node_count; i++) {
		while (placement_outcome_take(w->placement[i], &outcome) == 0) {
			for (uint16_t k = 0; k < w->config.node_count; k++) {
				if (k != i)
					placement_outcome_learn(w->placement[k], &outcome);
			}
		}
	}
}

static void tick(struct world *w)
{
	uint32_t awake[WORLD_NODES_MAX] = { 0 };
	struct placement_advice advice[PLACEMENT_TICK_ADVICE];

	for (uint32_t i = 0; i < w->vcpu_count; i++) {
		struct vcpu *v = &w->vcpu[i];
		struct placement_time time = { .waited_ns =
						       is_told(w, TOLD_WAITED) ? v->waited_ns : 0 };

		awake[v->state == MOVES ? v->target : v->node] += v->state != HALTED;
		if (v->state == MOVES)
			continue;
		if (v->state == HALTED && v->halted_since_ns < w->now_ns) {
			v->halted_ns += w->now_ns - v->halted_since_ns;
			v->halted_since_ns = w->now_ns;
		}
		time.halted_ns = v->halted_ns;
		v->halted_ns = v->waited_ns = 0;
		placement_time(w->placement[v->node], i, &time);
	}
	for (uint16_t i = 0; i < w->config.node_count; i++) {
		for (uint16_t k = 0; k < w->config.node_count; k++) {
			struct placement_load load = { .cores = (uint16_t)w->config.core_count,
						       .awake = (uint16_t)awake[k] };

			placement_load(w->placement[i], k, &load);
			if (i == k)
				trace_load(w, k, &load);
		}
	}
	tell(w);
	for (uint16_t i = 0; i < w->config.node_count; i++) {
		uint32_t count =
			placement_tick(w->placement[i], w->now_ns, advice, PLACEMENT_TICK_ADVICE);

		trace_decisions(w, i);
		for (uint32_t k = 0; k < count; k++) {
			struct vcpu *v = &w->vcpu[advice[k].vcpu];

			if (v->state != RUNS && v->state != HALTED)
				continue;
			world_awake(v, w->now_ns);
			begin_move(w, v, advice[k].to);
		}
	}
}

/* Does a node have work for more cores than it has, with others free? */
static bool is_crowded(const struct world *w)
{
	uint32_t work[WORLD_NODES_MAX] = { 0 };
	bool crowd = false, free = false;

	for (uint32_t i = 0; i < w->vcpu_count; i++)
		work[w->vcpu[i].node] += world_has_work(w, &w->vcpu[i], w->now_ns);
	for (uint32_t i = 0; i < w->config.node_count; i++) {
		crowd |= work[i] > w->config.core_count;
		free |= work[i] < w->config.core_count;
	}
	return crowd && free;
}

/* How long has that been so in a burst? Looked at in each tick: it may have begun after the last one. */
static void watch_crowds(struct world *w)
{
	struct burst burst = world_burst(w, w->now_ns);
	uint64_t ns;

	if (w->now_ns < burst.begin_ns || w->now_ns >= burst.end_ns || !is_crowded(w)) {
		w->crowd_ns = 0;
		return;
	}
	if (w->crowd_ns == 0) {
		w->crowd_ns = w->now_ns - PLACEMENT_TICK_NS;
		w->result->crowd_count++;
	}
	ns = w->now_ns - w->crowd_ns;
	if (ns > w->result->crowded_ns)
		w->result->crowded_ns = ns;
}

/* Somebody is sent somewhere, as by eagre move. */
static void stir(struct world *w)
{
	struct vcpu *v = &w->vcpu[rng_below(&w->rng, w->vcpu_count)];
	uint16_t to = (uint16_t)rng_below(&w->rng, w->config.node_count);

	if (!w->config.stir_ns || w->now_ns < w->stir_ns)
		return;
	w->stir_ns += w->config.stir_ns;
	if (to == v->node || (v->state != RUNS && v->state != HALTED))
		return;
	world_awake(v, w->now_ns);
	begin_move(w, v, to);
	w->result->stir_count++;
}

static struct vcpu *earliest(struct world *w)
{
	struct vcpu *best = &w->vcpu[0];

	for (uint32_t i = 1; i < w->vcpu_count; i++) {
		if (w->vcpu[i].at_ns < best->at_ns)
			best = &w->vcpu[i];
	}
	return best;
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void add_stats(struct placement_stats *sum, const struct placement_stats *one)
{
	sum->stall_count += one->stall_count;
	sum->move_count += one->move_count;
	for (int i = 0; i < PLACEMENT_WHYS; i++)
		sum->why_count[i] += one->why_count[i];
	for (int i = 0; i < PLACEMENT_ARMS; i++)
		sum->arm_count[i] += one->arm_count[i];
	sum->wasted_count += one->wasted_count;
	sum->return_count += one->return_count;
	sum->learned_count += one->learned_count;
	sum->learner_off_count += one->learner_off_count;
	sum->refault_ns = sum->refault_ns > one->refault_ns ? sum->refault_ns : one->refault_ns;
}

static void finish(struct world *w)
{
	for (uint32_t i = 0; i < w->config.node_count; i++) {
		struct placement_stats stats;

		placement_stats_get(w->placement[i], &stats);
		add_stats(&w->result->stats, &stats);
	}
	placement_save(w->placement[0], w->result->state, sizeof(w->result->state));
	if (w->sample_count > 0) {
		qsort(w->sample, w->sample_count, sizeof(*w->sample), compare);
		w->result->decision_ns_p50 = w->sample[w->sample_count / 2];
		w->result->decision_ns_p99 = w->sample[w->sample_count / 100 * 99];
	}
	if (w->config.trace) {
		char line[PLACEMENT_TRACE_LINE];

		placement_trace_end(&w->trace, line, sizeof(line));
		fputs(line, w->config.trace);
	}
}

int world_run(const struct world_config *config, struct world_result *ret_result)
{
	struct world *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		return -ENOMEM;
	memset(ret_result, 0, sizeof(*ret_result));
	w->config = *config;
	w->result = ret_result;
	w->rng.state = config->seed;
	w->phases = world_turns;
	error = prepare(w);
	if (error)
		goto out;
	if (config->trace) {
		char line[PLACEMENT_TRACE_LINE];

		placement_trace_head(&w->trace, line, sizeof(line));
		fputs(line, config->trace);
		for (uint32_t i = 0; i < w->vcpu_count; i++)
			trace(w, &(struct placement_trace_event){ .what = PLACEMENT_TRACE_MOVE,
								  .vcpu = i,
								  .node = w->vcpu[i].node });
	}
	while (w->now_ns < config->duration_ns) {
		struct vcpu *v = earliest(w);

		w->result->event_count++;
		if (v->at_ns >= w->tick_ns) {
			w->now_ns = w->tick_ns;
			change_phase(w);
			tick(w);
			if (config->load == LOAD_BURSTS)
				watch_crowds(w);
			stir(w);
			w->tick_ns += PLACEMENT_TICK_NS;
			continue;
		}
		w->now_ns = v->at_ns;
		if (v->state == STALLED)
			end_stall(w, v);
		else if (v->state == MOVES)
			end_move(w, v);
		else if (v->state == HALTED)
			world_awake(v, v->at_ns);
		else
			run(w, v);
	}
	finish(w);
out:
	clean(w);
	free(w);
	return error;
}
