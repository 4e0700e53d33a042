/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's world: events in the order of virtual time, links that keep order, the phases of a run.
 *
 *      work: actors do their quota, nodes leave in the middle
 *      still: everybody stops; the queue of events must run empty, and all accounts must balance
 *      sweep: one actor touches every page, so a page or a lock that was lost in the work shows
 *      still: again
 */
#include "tests/sim/world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_PAGES	 64u /* that leave together, as the core has it */
#define NO_EVENT	 UINT32_MAX
#define TIME_CHECK_EVERY 256

/* ---- the queue of events: a binary heap of indexes, by time and then by order ---- */

static bool earlier(const struct event_queue *q, uint32_t a, uint32_t b)
{
	const struct event *x = &q->pool[a], *y = &q->pool[b];

	return x->at_ns != y->at_ns ? x->at_ns < y->at_ns : x->order < y->order;
}

static int queue_grow(struct event_queue *q)
{
	uint32_t size = q->pool_size ? 2 * q->pool_size : 256;
	struct event *pool = realloc(q->pool, size * sizeof(*pool));
	uint32_t *heap;

	if (!pool)
		return -ENOMEM;
	q->pool = pool;
	heap = realloc(q->heap, size * sizeof(*heap));
	if (!heap)
		return -ENOMEM;
	q->heap = heap;
	for (uint32_t i = q->pool_size; i < size; i++)
		q->pool[i].next_free = i + 1 < size ? i + 1 : NO_EVENT;
	q->first_free = q->pool_size;
	q->pool_size = size;
	return 0;
}

static struct event *queue_push(struct event_queue *q, uint64_t at_ns)
{
	uint32_t index, i;

	if (q->count == q->pool_size && queue_grow(q))
		abort(); /* a test program out of memory has nothing to say */
	index = q->first_free;
	q->first_free = q->pool[index].next_free;
	q->pool[index] = (struct event){ .at_ns = at_ns, .order = q->order++ };
	for (i = q->count++; i && earlier(q, index, q->heap[(i - 1) / 2]); i = (i - 1) / 2)
		q->heap[i] = q->heap[(i - 1) / 2];
	q->heap[i] = index;
	return &q->pool[index];
}

static void queue_pop(struct event_queue *q, struct event *ret_event)
{
	uint32_t first = q->heap[0], last = q->heap[--q->count], i = 0;

	*ret_event = q->pool[first];
	q->pool[first].next_free = q->first_free;
	q->first_free = first;
	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= q->count)
			break;
		if (child + 1 < q->count && earlier(q, q->heap[child + 1], q->heap[child]))
			child++;
		if (!earlier(q, q->heap[child], last))
			break;
		q->heap[i] = q->heap[child];
		i = child;
	}
	q->heap[i] = last;
}

/* ---- what the other files use ---- */

uint32_t world_shard(const struct world *world, uint32_t page)
{
	return page / CHUNK_PAGES % world->shard_count;
}

void world_fail(struct world *world, enum rule rule, uint32_t node, uint32_t page, const char *text)
{
	checker_fail(world->checker, rule, node, page, world->now_ns, "%s", text);
}

void world_trace(const struct world *world, uint32_t node, const char *format, ...)
{
	va_list args;

	if (!world->trace)
		return;
	printf("%10" PRIu64 ".%03u us  n%u  ", world->now_ns / 1000,
	       (unsigned int)(world->now_ns % 1000), node);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void world_schedule_actor(struct world *world, uint32_t actor, uint64_t delay_ns)
{
	struct event *event = queue_push(&world->queue, world->now_ns + delay_ns);

	event->kind = EVENT_ACTOR;
	event->target = actor;
}

void world_schedule_control(struct world *world, uint64_t at_ns, uint32_t node,
			    const struct control *word)
{
	struct event *event = queue_push(&world->queue, at_ns);

	event->kind = EVENT_CONTROL;
	event->target = node;
	event->control = *word;
}

/* The channel ends behind all that is in it. */
void world_send_end(struct world *world, uint32_t from, uint32_t to, uint32_t shard)
{
	uint64_t *last =
		&world->link_last_ns[(shard * world->node_count + from) * world->node_count + to];
	struct event *event;

	if (*last < world->now_ns + world->plan.delay_min_ns)
		*last = world->now_ns + world->plan.delay_min_ns;
	event = queue_push(&world->queue, *last);
	event->kind = EVENT_END;
	event->target = to;
	event->shard = (uint8_t)shard;
	event->msg.src = (uint16_t)from;
	event->target_life = world->node[to].life;
}

void world_send(struct world *world, uint32_t from, uint32_t shard, const struct coh_action *action,
		const struct content *content)
{
	const struct plan *plan = &world->plan;
	uint64_t delay = rng_range(&world->rng, plan->delay_min_ns, plan->delay_max_ns);
	uint64_t *last =
		&world->link_last_ns[(shard * world->node_count + from) * world->node_count +
				     action->to];
	struct event *event;

	if (plan->slow_ns && from == plan->slow_from && action->to == plan->slow_to)
		delay += plan->slow_ns;
	if (plan->burst_percent && rng_chance_64(&world->rng, (uint32_t)plan->burst_percent))
		delay += rng_below_64(&world->rng, plan->burst_ns);
	if (*last < world->now_ns + delay)
		*last = world->now_ns + delay;
	event = queue_push(&world->queue, *last);
	event->kind = EVENT_MESSAGE;
	event->target = action->to;
	event->shard = (uint8_t)shard;
	event->msg = action->msg;
	event->msg.src = (uint16_t)from;
	event->target_life = world->node[action->to].life;
	event->src_life = world->node[from].life;
	event->requester_life = world->node[action->msg.requester].life;
	event->node_life = world->node[action->msg.node].life;
	if (content) {
		event->has_content = true;
		event->content = *content;
		world->pages_sent++;
	}
	world->messages++;
}

/* ---- ticks ---- */

/* Makes sure that a tick comes at (or a little after) every deadline of the node's cores. */
static void schedule_ticks(struct world *world, uint32_t node)
{
	struct sim_node *n = &world->node[node];

	for (uint32_t shard = 0; n->coh[0] && shard < world->shard_count; shard++) {
		uint64_t deadline = coh_deadline(n->coh[shard]), at;
		struct event *event;

		if (deadline == UINT64_MAX) {
			n->tick_at[shard] = UINT64_MAX;
			continue;
		}
		at = deadline > world->now_ns ? deadline : world->now_ns;
		if (n->tick_at[shard] != UINT64_MAX && n->tick_at[shard] >= at &&
		    n->tick_at[shard] <= at + world->plan.tick_late_ns)
			continue;
		at += rng_range(&world->rng, 0, world->plan.tick_late_ns);
		n->tick_at[shard] = at;
		event = queue_push(&world->queue, at);
		event->kind = EVENT_TICK;
		event->target = node;
		event->shard = (uint8_t)shard;
	}
}

/* ---- nodes that leave ---- */

/* The last `leaves` nodes are those that leave: capacity was not counted on them. */
static uint32_t leaver(const struct world *world, uint32_t index)
{
	return world->node_count - 1 - index;
}

static void begin_leaves(struct world *world)
{
	const struct plan *plan = &world->plan;
	uint64_t total = plan->quota * plan->nodes * plan->vcpus;

	while (world->leaves_begun < plan->leaves && !world->stopping) {
		uint64_t percent = plan->leave_percent + 7 * world->leaves_begun;

		if (world->instructions * 100 < total * percent)
			return;
		world_trace(world, leaver(world, world->leaves_begun), "LEAVING");
		world->node[leaver(world, world->leaves_begun)].leaving = true;
		world->leaves_begun++;
	}
}

static bool all_released(const struct world *world, const struct sim_node *n)
{
	for (uint32_t shard = 0; shard < world->shard_count; shard++)
		if (!coh_released(n->coh[shard]))
			return false;
	return true;
}

static void follow_leaves(struct world *world)
{
	for (uint32_t i = 0; i < world->leaves_begun; i++) {
		uint32_t node = leaver(world, i);
		struct sim_node *n = &world->node[node];

		if (n->leaving && !n->releasing && n->stopped == world->actors_per_node) {
			n->releasing = true;
			n->release_ns = world->now_ns;
			edge_release(world, node);
			schedule_ticks(world, node);
		}
		if (n->releasing && !n->released && all_released(world, n)) {
			world_trace(world, node, "RELEASED");
			n->released = true;
			for (uint32_t shard = 0; shard < world->shard_count; shard++)
				if (checker_resident(world->checker, node, shard))
					world_fail(world, RULE_RELEASE, node, 0,
						   "released, and yet it holds pages");
		}
	}
}

static void judge_leaves(struct world *world)
{
	for (uint32_t i = 0; i < world->leaves_begun; i++) {
		const struct sim_node *n = &world->node[leaver(world, i)];

		if (n->releasing && !n->released &&
		    world->now_ns - n->release_ns > plan_release_bound_ns(&world->plan))
			world_fail(world, RULE_RELEASE, leaver(world, i), 0,
				   "does not get rid of its pages in time");
	}
}

/* ---- a run ---- */

/* Nobody is there, or another one by that number. A joiner that failed is lost with all its links. */
static bool nobody_there(struct world *world, const struct event *event)
{
	const struct sim_node *n = &world->node[event->target];

	if (n->coh[0] && n->life == event->target_life)
		return false;
	if (event->kind == EVENT_MESSAGE && !n->failed_life[event->target_life % FAILED_LIVES])
		world_fail(world, RULE_STRANGER, event->target, (uint32_t)event->msg.gpn,
			   "a message to who is not in the pod");
	return true;
}

static void handle_control(struct world *world, const struct event *event)
{
	steps_control(world, event->target, &event->control);
	for (uint32_t node = 0; node < world->node_count; node++) {
		steps_follow(world, node);
		schedule_ticks(world, node);
	}
}

static void handle(struct world *world, const struct event *event)
{
	struct sim_node *n;

	switch (event->kind) {
	case EVENT_CONTROL:
		handle_control(world, event);
		break;
	case EVENT_END:
		if (nobody_there(world, event))
			break;
		edge_end(world, event->target, event->shard, event->msg.src);
		schedule_ticks(world, event->target);
		steps_follow(world, event->target);
		break;
	case EVENT_MESSAGE:
		if (nobody_there(world, event))
			break;
		if (steps_early(world, event))
			break;
		edge_message(world, event);
		steps_follow(world, event->target);
		schedule_ticks(world, event->target);
		break;
	case EVENT_TICK:
		n = &world->node[event->target];
		if (n->tick_at[event->shard] != event->at_ns)
			break; /* another one took its place */
		n->tick_at[event->shard] = UINT64_MAX;
		edge_tick(world, event->target, event->shard);
		steps_follow(world, event->target);
		schedule_ticks(world, event->target);
		break;
	case EVENT_ACTOR:
		actor_go(world, event->target);
		steps_follow(world, world->actor[event->target].node);
		schedule_ticks(world, world->actor[event->target].node);
		break;
	}
}

static void judge_time(struct world *world)
{
	const struct plan *plan = &world->plan;

	checker_time(world->checker, world->now_ns);
	judge_leaves(world);
	if (world->events > plan->events_max)
		world_fail(world, RULE_QUIESCENCE, 0, 0, "too many events, there is no end to it");
	if (world->stopping && world->now_ns - world->stop_ns > 2 * plan_release_bound_ns(plan))
		world_fail(world, RULE_QUIESCENCE, 0, 0,
			   "everybody stopped, and it does not become still");
}

static void sum_stats(const struct world *world, struct coh_stats *ret_sum);

static bool changes_over(struct world *world)
{
	if (!steps_finished(world))
		return false;
	if (!world->changed_ns) {
		world->changed_ns = world->now_ns;
		sum_stats(world, &world->before);
	}
	return world->now_ns >= world->changed_ns + world->plan.after_ns;
}

static void run_events(struct world *world)
{
	const struct plan *plan = &world->plan;

	while (world->queue.count && !checker_verdict(world->checker)->rule) {
		struct event event;

		queue_pop(&world->queue, &event);
		world->now_ns = event.at_ns;
		world->events++;
		handle(world, &event);
		if (world->leaves_begun < plan->leaves)
			begin_leaves(world);
		if (world->leaves_begun)
			follow_leaves(world);
		if (!world->stopping && (plan->run_ns	 ? world->now_ns >= plan->run_ns
					 : plan->changes ? changes_over(world)
							 : world->below_quota == 0)) {
			world->stopping = true;
			world->stop_ns = world->now_ns;
		}
		if (world->events % TIME_CHECK_EVERY == 0)
			judge_time(world);
	}
}

static void judge_accounts(struct world *world, uint32_t node, uint32_t shard)
{
	struct coh_stats stats;
	uint32_t resident = checker_resident(world->checker, node, shard);

	if (!world->node[node].coh[0])
		return;
	coh_stats_get(world->node[node].coh[shard], &stats);
	if (stats.pages_owned + stats.pages_shared != resident)
		checker_fail(world->checker, RULE_ACCOUNT, node, 0, world->now_ns,
			     "%u owned and %u shared pages, but %u resident", stats.pages_owned,
			     stats.pages_shared, resident);
	if (stats.pages_reserved)
		checker_fail(world->checker, RULE_ACCOUNT, node, 0, world->now_ns,
			     "all is still, and %u slots are reserved", stats.pages_reserved);
	if (coh_deadline(world->node[node].coh[shard]) != UINT64_MAX)
		checker_fail(world->checker, RULE_QUIESCENCE, node, 0, world->now_ns,
			     "all is still, and it has a deadline");
}

static void judge_still(struct world *world)
{
	if (checker_verdict(world->checker)->rule)
		return;
	checker_still(world->checker, world->now_ns);
	steps_judge_still(world);
	for (uint32_t i = 0; i < world->actor_count; i++)
		if (world->actor[i].state != ACTOR_STOPPED)
			world_fail(world, RULE_PROGRESS_BOUND, world->actor[i].node,
				   world->actor[i].stall_page,
				   "nothing happens any more, and an actor has not stopped");
	for (uint32_t i = 0; i < world->leaves_begun; i++)
		if (!world->node[leaver(world, i)].released)
			world_fail(world, RULE_RELEASE, leaver(world, i), 0,
				   "nothing happens any more, and it is not released");
	for (uint32_t node = 0; node < world->node_count; node++)
		for (uint32_t shard = 0; shard < world->shard_count; shard++)
			judge_accounts(world, node, shard);
}

/*
 * A push makes room for a page that was asked for, or for a run of those that will be; it makes no
 * other node push. So pushes are no more than pages that were asked for, but for a run of each
 * shard, and for a few pages that are pushed twice, because their first target was short itself.
 */
static void judge_pushes(struct world *world)
{
	uint64_t runs = (uint64_t)world->node_count * world->shard_count * RUN_PAGES;
	uint64_t pushed = 0;
	char text[96];

	if (world->plan.leaves || world->plan.changes) /* who leaves pushes all it has */
		return;
	for (uint32_t node = 0; node < world->node_count; node++)
		for (uint32_t shard = 0; shard < world->shard_count; shard++) {
			struct coh_stats stats;

			coh_stats_get(world->node[node].coh[shard], &stats);
			pushed += stats.evict_push_count;
		}
	if (pushed <= world->fetched + world->fetched / 8 + runs)
		return;
	snprintf(text, sizeof(text), "%" PRIu64 " pages pushed, and %" PRIu64 " asked for", pushed,
		 world->fetched);
	world_fail(world, RULE_PUSHES, 0, 0, text);
}

static void run_phases(struct world *world)
{
	uint32_t live = world->node_count - (uint32_t)world->plan.leaves;

	run_events(world);
	judge_still(world);
	if (checker_verdict(world->checker)->rule || world->plan.quick_end)
		return;
	world_trace(world, 0, "SWEEP");
	world->stop_ns = world->now_ns;
	actor_sweep(world, (world->plan.changes ? steps_any_active(world)
						: (uint32_t)rng_below_64(&world->rng, live)) *
				   world->actors_per_node);
	run_events(world);
	judge_still(world);
	judge_pushes(world);
}

/* ---- making it, and taking it down ---- */

/* Pages of a shard: chunk after chunk, as world_shard() has it. */
static uint32_t shard_pages(const struct world *world, uint32_t shard)
{
	uint32_t pages = 0;

	for (uint32_t page = 0; page < world->page_count; page++)
		pages += world_shard(world, page) == shard;
	return pages;
}

/* Nodes that stay can hold all pages, filled to at most fill_percent; their promises may differ. */
static uint32_t node_capacity(struct world *world, uint32_t pages)
{
	const struct plan *plan = &world->plan;
	uint64_t live = plan_members_min(plan);
	uint64_t capacity =
		(pages * 100ull + plan->fill_percent * live - 1) / (plan->fill_percent * live);

	if (plan->uneven) /* pairs would be exact; more room than asked for is fine */
		capacity += rng_below_64(&world->rng, capacity / 2 + 1);
	if (capacity < plan_capacity_floor(plan))
		capacity = plan_capacity_floor(plan);
	return (uint32_t)capacity;
}

static bool close_gate(void *arg, uint64_t gpn, enum coh_access after, bool tell)
{
	return gate_close(arg, gpn, after, tell);
}

static void allow_gate(void *arg, uint64_t gpn, enum coh_access access)
{
	gate_allow(arg, gpn, access);
}

static int make_shard(struct world *world, uint32_t node, uint32_t shard, uint32_t pages,
		      const struct member_set *members, bool joins)
{
	const struct plan *plan = &world->plan;
	struct coh_config config = {
		.self = (uint16_t)node,
		.node_count = (uint16_t)world->node_count,
		.members = members ? *members : (struct member_set){ { 0 } },
		.joins = joins,
		.actor_count = world->actors_per_node,
		.gpn_limit = plan->pages,
		.capacity = node_capacity(world, pages),
		.window = (uint32_t)plan->window,
		.readahead = (uint32_t)plan->readahead,
		.zero_batch = (uint32_t)plan->zero_batch,
		.neighbours = plan->shards == 1,
		.refetch = (uint32_t)plan->refetch,
		.run = (uint32_t)plan->run,
		.hold_ns = plan->hold_ns,
		.hold_ns_max = plan->hold_ns_max,
		.broken = (uint32_t)plan->broken,
		.actors = world->node[node].actors,
		.close = plan->windows ? close_gate : NULL,
		.allow = plan->windows ? allow_gate : NULL,
		.close_arg = &world->node[node].gates,
	};

	checker_set_capacity(world->checker, node, shard, config.capacity);
	world->node[node].tick_at[shard] = UINT64_MAX;
	return coh_create(&config, &world->node[node].coh[shard]);
}

int world_make_node(struct world *world, uint32_t node, const struct member_set *members,
		    bool joins)
{
	struct sim_node *n = &world->node[node];

	if (world->shard_count > 1 && coh_actors_create(world->actors_per_node, world->plan.hold_ns,
							world->plan.hold_ns_max, &n->actors))
		return -ENOMEM;
	for (uint32_t shard = 0; shard < world->shard_count; shard++) {
		int ret = make_shard(world, node, shard, shard_pages(world, shard), members, joins);

		if (ret)
			return ret;
	}
	return 0;
}

static int make_nodes(struct world *world)
{
	struct member_set first = member_set_below((uint32_t)world->plan.nodes);

	for (uint32_t i = 0; i < world->node_count; i++) {
		struct sim_node *n = &world->node[i];
		int ret = 0;

		n->access = calloc(world->page_count, sizeof(*n->access));
		n->content = calloc(world->page_count, sizeof(*n->content));
		n->freeing = calloc(world->page_count / COH_FREE_PAGES + 1, sizeof(*n->freeing));
		if (!n->access || !n->content || !n->freeing ||
		    (world->plan.windows && gates_create(&n->gates, world->page_count)))
			return -ENOMEM;
		for (uint32_t shard = 0; shard < world->shard_count; shard++)
			n->tick_at[shard] = UINT64_MAX;
		if (i < world->plan.nodes)
			ret = world_make_node(world, i, &first, false);
		if (ret)
			return ret;
	}
	return 0;
}

static void add_stats(struct coh_stats *sum, const struct coh_stats *one);

void world_end_node(struct world *world, uint32_t node)
{
	struct sim_node *n = &world->node[node];

	for (uint32_t shard = 0; shard < world->shard_count; shard++) {
		struct coh_stats stats;

		coh_stats_get(n->coh[shard], &stats);
		add_stats(&world->ended, &stats);
		coh_destroy(n->coh[shard]);
		n->coh[shard] = NULL;
		n->tick_at[shard] = UINT64_MAX;
	}
	coh_actors_destroy(n->actors);
	n->actors = NULL;
}

static int make_world(struct world *world, const struct plan *plan, bool trace)
{
	struct checker_config config = {
		.node_count = plan_numbers(plan),
		.actor_count = (uint32_t)(plan_numbers(plan) * (plan->vcpus + plan->devices)),
		.page_count = (uint32_t)plan->pages,
		.stall_bound_ns = plan_stall_bound_ns(plan),
		.progress_bound_ns = plan_progress_bound_ns(plan),
	};
	int ret;

	world->plan = *plan;
	world->trace = trace;
	world->rng.state = plan->seed ^ 0x6a09e667f3bcc909u;
	world->node_count = config.node_count;
	if (plan->changes) {
		world->plan.keep_busy = 1;
		world->plan.leaves = 0;
		/* A step is as many messages as pairs of nodes. */
		world->plan.events_max *= (world->node_count > 64 ? 10 : 1) + plan->changes / 30;
	}
	world->actors_per_node = (uint32_t)(plan->vcpus + plan->devices);
	world->actor_count = config.actor_count;
	world->page_count = config.page_count;
	world->shard_count = (uint32_t)plan->shards;
	world->below_quota = (uint32_t)(plan->nodes * plan->vcpus);
	world->checker = checker_create(&config);
	world->node = calloc(world->node_count, sizeof(*world->node));
	world->actor = calloc(world->actor_count, sizeof(*world->actor));
	world->hot = calloc(plan->hot_pages, sizeof(*world->hot));
	world->link_last_ns =
		calloc((size_t)world->shard_count * world->node_count * world->node_count,
		       sizeof(*world->link_last_ns));
	world->freeing = calloc(world->page_count / COH_FREE_PAGES + 1, sizeof(*world->freeing));
	world->action = calloc(COH_ACTIONS_MIN + 1, sizeof(*world->action));
	if (!world->checker || !world->node || !world->actor || !world->hot ||
	    !world->link_last_ns || !world->action || !world->freeing)
		return -ENOMEM;
	for (uint32_t i = 0; i < plan->hot_pages; i++)
		world->hot[i] = (uint32_t)rng_below_64(&world->rng, plan->pages);
	for (uint32_t i = 0; i < plan->nodes * world->actors_per_node; i++)
		actor_make(world, i);
	for (uint32_t i = (uint32_t)plan->nodes * world->actors_per_node; i < world->actor_count;
	     i++)
		world->actor[i].state = ACTOR_STOPPED;
	ret = make_nodes(world);
	return ret ? ret : steps_begin(world);
}

static void take_down(struct world *world)
{
	for (uint32_t i = 0; world->node && i < world->node_count; i++) {
		for (uint32_t shard = 0; shard < world->shard_count; shard++)
			coh_destroy(world->node[i].coh[shard]);
		coh_actors_destroy(world->node[i].actors);
		free(world->node[i].access);
		free(world->node[i].content);
		free(world->node[i].freeing);
		free(world->node[i].early);
		gates_destroy(&world->node[i].gates);
	}
	checker_destroy(world->checker);
	free(world->node);
	free(world->actor);
	free(world->hot);
	free(world->link_last_ns);
	free(world->action);
	free(world->freeing);
	free(world->steps.told);
	free(world->queue.pool);
	free(world->queue.heap);
}

static void add_stats(struct coh_stats *sum, const struct coh_stats *one)
{
	for (int i = 0; i < COH_STALL_KINDS; i++)
		sum->stall_count[i] += one->stall_count[i];
	sum->message_count += one->message_count;
	sum->page_count += one->page_count;
	sum->readahead_count += one->readahead_count;
	sum->deferred_count += one->deferred_count;
	sum->freed_count += one->freed_count;
	sum->evict_push_count += one->evict_push_count;
	sum->evict_drop_count += one->evict_drop_count;
	if (one->hold_ns > sum->hold_ns)
		sum->hold_ns = one->hold_ns;
}

static void sum_stats(const struct world *world, struct coh_stats *ret_sum)
{
	*ret_sum = world->ended;
	for (uint32_t node = 0; node < world->node_count; node++)
		for (uint32_t shard = 0; shard < world->shard_count && world->node[node].coh[0];
		     shard++) {
			struct coh_stats stats;

			coh_stats_get(world->node[node].coh[shard], &stats);
			add_stats(ret_sum, &stats);
		}
}

static void collect(const struct world *world, struct world_result *result)
{
	uint64_t useful = 0;

	*result = (struct world_result){
		.verdict = *checker_verdict(world->checker),
		.events = world->events,
		.instructions = world->instructions,
		.stalls = world->stalls,
		.messages = world->messages,
		.pages_sent = world->pages_sent,
		.now_ns = world->now_ns,
		.stall_permille = 1000 * checker_longest_stall_ns(world->checker) /
				  plan_stall_bound_ns(&world->plan),
		.progress_permille = 1000 * checker_longest_instruction_ns(world->checker) /
				     plan_progress_bound_ns(&world->plan),
	};
	for (uint32_t i = 0; i < world->actor_count; i++)
		useful += world->actor[i].useful_ns;
	if (world->now_ns)
		result->useful_permille = 1000 * useful / world->now_ns / world->actor_count;
	sum_stats(world, &result->stats);
	result->after_messages = result->stats.message_count - world->before.message_count;
	for (int k = 0; k < COH_STALL_KINDS; k++)
		result->after_stalls += result->stats.stall_count[k] - world->before.stall_count[k];
}

int world_run(const struct plan *plan, bool trace, struct world_result *ret_result)
{
	struct world world = { 0 };
	int ret = make_world(&world, plan, trace);

	if (!ret) {
		run_phases(&world);
		collect(&world, ret_result);
	}
	take_down(&world);
	return ret;
}
