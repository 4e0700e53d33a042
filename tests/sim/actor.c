/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Actors: vCPUs that execute instructions, and devices that pin pages.
 *
 * An instruction needs one or more pages at the same instant. It is tried: at the first page that
 * is not accessible the actor stalls on it, and when it is woken the whole instruction is tried
 * again from its start, some time later, as a processor does. Only when all pages are accessible at
 * once it reads and writes them, which is one instant too. Nothing is remembered of a page that was
 * there a try ago: that is what makes progress a duty of the protocol.
 *
 * A device pins one page at a time, reads or writes it at any instant until it unpins it.
 *
 * With plan.windows some instructions are as an io thread's: they enter the gates of all their pages
 * and stay inside for a while. Whoever finds a gate shut leaves the others, and tries again.
 */
#include "tests/sim/world.h"

#include <string.h>

/* PATTERN_GROUP: so many nodes share their pages. */
#define GROUP_NODES 4

static uint64_t between(struct rng *rng, uint64_t low, uint64_t high)
{
	return rng_range(rng, low, high > low ? high : low);
}

void actor_make(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];
	const struct plan *plan = &world->plan;
	uint32_t share = world->page_count / world->actor_count;

	a->node = actor / world->actors_per_node;
	a->index = actor % world->actors_per_node;
	a->device = a->index >= plan->vcpus;
	a->rng.state = rng_next(&world->rng);
	a->pattern = plan->pattern != PATTERN_MIXED
			     ? (uint32_t)plan->pattern
			     : (uint32_t)rng_below_64(&a->rng, PATTERN_COUNT);
	a->stride = (uint32_t)(rng_chance_64(&a->rng, 60) ? 1 : rng_range(&a->rng, 2, 9));
	a->region = share * actor;
	a->region_size = share ? share : 1;
	a->cursor = a->pattern == PATTERN_STRIDE
			    ? (uint32_t)rng_below_64(&a->rng, world->page_count)
			    : 0;
	world_schedule_actor(world, actor, between(&a->rng, 0, plan->think_max_ns));
}

void actor_restart(struct world *world, uint32_t actor, bool anew)
{
	struct sim_actor *a = &world->actor[actor];

	world->node[actor / world->actors_per_node].stopped--;
	if (anew) {
		*a = (struct sim_actor){ 0 };
		actor_make(world, actor);
		return;
	}
	a->state = ACTOR_READY;
	a->begun = false;
	world_schedule_actor(world, actor, between(&a->rng, 0, world->plan.think_max_ns));
}

static uint32_t hot_page(struct world *world, struct rng *rng)
{
	return world->hot[rng_below_64(rng, world->plan.hot_pages)];
}

static uint32_t group_page(struct world *world, struct sim_actor *a)
{
	uint32_t groups = world->node_count / GROUP_NODES, group = a->node / GROUP_NODES;
	uint32_t size = world->page_count / groups, index = (uint32_t)rng_below_64(&a->rng, size);

	return a->pattern == PATTERN_GROUP ? group * size + index : index * groups + group;
}

static uint32_t next_page(struct world *world, struct sim_actor *a)
{
	uint32_t page;

	switch (a->pattern) {
	case PATTERN_HOT:
	case PATTERN_MULTI:
		return hot_page(world, &a->rng);
	case PATTERN_FALSE_SHARING:
	case PATTERN_INCREMENT:
		return world->hot[0];
	case PATTERN_STRIDE:
		a->cursor = (a->cursor + a->stride) % world->page_count;
		return a->cursor;
	case PATTERN_PRIVATE:
		if (rng_chance_64(&a->rng, 10))
			return hot_page(world, &a->rng);
		return a->region + (uint32_t)rng_below_64(&a->rng, a->region_size);
	case PATTERN_GROUP:
	case PATTERN_SCATTER:
		return group_page(world, a);
	case PATTERN_FILL:
		if (a->cursor < a->region_size) {
			page = a->region + a->cursor++;
			return page;
		}
		break;
	default:
		break;
	}
	return (uint32_t)rng_below_64(&a->rng, world->page_count);
}

/* A page of an instruction is named once; the greater want counts. */
static void add_page(struct sim_actor *a, uint32_t page, enum coh_access want)
{
	for (uint32_t i = 0; i < a->page_count; i++) {
		if (a->page[i] != page)
			continue;
		if (a->want[i] < want)
			a->want[i] = (uint8_t)want;
		return;
	}
	a->page[a->page_count] = page;
	a->want[a->page_count] = (uint8_t)want;
	a->page_count++;
}

static enum coh_access next_want(const struct world *world, struct sim_actor *a)
{
	if (a->pattern == PATTERN_FALSE_SHARING || a->pattern == PATTERN_INCREMENT ||
	    (a->pattern == PATTERN_FILL && a->cursor < a->region_size))
		return COH_WRITE;
	return rng_chance_64(&a->rng, (uint32_t)world->plan.write_percent) ? COH_WRITE : COH_READ;
}

static void make_sweep(struct sim_actor *a)
{
	a->page_count = 0;
	a->increment = a->enters = false;
	add_page(a, a->cursor++, rng_chance_64(&a->rng, 50) ? COH_WRITE : COH_READ);
}

static void make_instruction(struct world *world, struct sim_actor *a)
{
	uint64_t pages = 1;

	a->think_ns = between(&a->rng, world->plan.think_min_ns, world->plan.think_max_ns);
	if (a->sweeping) {
		make_sweep(a);
		return;
	}
	a->page_count = 0;
	a->increment = a->pattern == PATTERN_INCREMENT;
	a->enters = world->plan.windows && !a->device && rng_chance_64(&a->rng, 40);
	if (a->pattern == PATTERN_MULTI && !a->device)
		pages = rng_range(&a->rng, 1, world->plan.multi_pages);
	while (pages--) {
		enum coh_access want = next_want(world, a);

		add_page(a, next_page(world, a), want);
	}
}

static void access_page(struct world *world, uint32_t actor, uint32_t page, enum coh_access want)
{
	struct sim_actor *a = &world->actor[actor];
	struct content *content = &world->node[a->node].content[page];
	struct content before = *content;

	world_trace(world, a->node, "%s actor %u page %u version %u",
		    want == COH_WRITE ? "WRITE" : "READ", a->index, page, before.version);
	checker_read(world->checker, a->node, page, &before, world->now_ns);
	if (want != COH_WRITE)
		return;
	content->version++;
	content->writer = actor;
	content->stamp = ++world->writes;
	content->sum += a->increment;
	checker_write(world->checker, a->node, page, &before, content, a->increment, world->now_ns);
}

static void stop(struct world *world, struct sim_actor *a)
{
	a->state = ACTOR_STOPPED;
	world->node[a->node].stopped++;
	if (!a->device && a->done < world->plan.quota && !world->plan.changes)
		world->below_quota--;
}

static bool should_stop(const struct world *world, const struct sim_actor *a)
{
	const struct plan *plan = &world->plan;

	if (a->sweeping)
		return a->cursor >= world->page_count;
	if (world->stopping || world->node[a->node].leaving)
		return true;
	return !a->device && !plan->keep_busy && !plan->run_ns && a->done >= plan->quota;
}

static void complete(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];

	for (uint32_t i = 0; i < a->page_count; i++)
		access_page(world, actor, a->page[i], a->want[i]);
	a->begun = false;
	checker_complete(world->checker, actor, world->now_ns);
	a->done++;
	a->useful_ns += a->think_ns;
	world->instructions++;
	if (a->done == world->plan.quota && !a->sweeping && !world->plan.changes)
		world->below_quota--;
	world_schedule_actor(world, actor, a->think_ns);
}

static void stall(struct world *world, uint32_t actor, uint32_t page, enum coh_access want)
{
	struct sim_actor *a = &world->actor[actor];

	a->state = ACTOR_STALLED;
	a->stall_page = page;
	a->stall_want = (uint8_t)want;
	world->stalls++;
	checker_stall(world->checker, actor, a->node, page, want, world->now_ns);
	edge_stall(world, a, page, want);
}

/* Leaves the first `count` of its pages' gates; who waits for them hears of it last. */
static void leave_gates(struct world *world, struct sim_actor *a, uint32_t count)
{
	struct gates *gates = &world->node[a->node].gates;
	uint32_t page[PLAN_INSTRUCTION_PAGES], told = 0;

	for (uint32_t i = 0; i < count; i++)
		if (gate_leave(gates, a->page[i], (enum coh_access)a->want[i]))
			page[told++] = a->page[i];
	for (uint32_t i = 0; i < told; i++)
		edge_unpinned(world, a->node, page[i]);
}

/* The gate of a page that is here was closed in vain: the shard opens it when asked. */
static void reopen(struct sim_node *n, uint32_t page)
{
	if (gate_wanted(&n->gates, page))
		return;
	gate_allow(&n->gates, page, (enum coh_access)n->access[page]);
	gate_open(&n->gates, page, (enum coh_access)n->access[page]);
}

static void enter_gates(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];
	struct sim_node *n = &world->node[a->node];
	uint32_t i = 0;

	while (i < a->page_count && gate_enter(&n->gates, a->page[i], (enum coh_access)a->want[i]))
		i++;
	if (i == a->page_count) {
		a->state = ACTOR_INSIDE;
		world_schedule_actor(world, actor, between(&a->rng, 1, world->plan.pin_ns_max));
		return;
	}
	reopen(n, a->page[i]);
	world_schedule_actor(world, actor,
			     between(&a->rng, world->plan.wake_min_ns, world->plan.wake_max_ns));
	leave_gates(world, a, i);
}

/* Nobody has taken any of its pages meanwhile. */
static void inside_go(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];
	uint32_t count = a->page_count;

	for (uint32_t i = 0; i < count; i++)
		if (world->node[a->node].access[a->page[i]] < a->want[i])
			world_fail(world, RULE_PIN_BROKEN, a->node, a->page[i],
				   "a page was taken from who is inside its gate");
	a->state = ACTOR_READY;
	complete(world, actor);
	leave_gates(world, a, count);
}

static void try_instruction(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];

	for (uint32_t i = 0; i < a->page_count; i++) {
		if (world->node[a->node].access[a->page[i]] >= a->want[i])
			continue;
		stall(world, actor, a->page[i], a->want[i]);
		return;
	}
	if (a->enters)
		enter_gates(world, actor);
	else
		complete(world, actor);
}

static void device_go(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];

	if (a->state == ACTOR_PINNED) {
		access_page(world, actor, a->stall_page, a->stall_want);
		checker_unpinned(world->checker, actor);
		a->state = ACTOR_READY;
		a->done++;
		edge_unpin(world, a);
		world_schedule_actor(world, actor, 20 * a->think_ns);
		return;
	}
	if (should_stop(world, a)) {
		stop(world, a);
		return;
	}
	make_instruction(world, a);
	a->state = ACTOR_PINNING;
	a->stall_page = a->page[0];
	a->stall_want = a->want[0];
	checker_begin(world->checker, actor, world->now_ns);
	edge_pin(world, a, a->page[0], a->want[0]);
}

/* Anybody may say so of any pages, whoever uses them. */
static void free_pages(struct world *world, struct sim_actor *a)
{
	uint32_t page = rng_chance_64(&a->rng, 60)
				? hot_page(world, &a->rng)
				: (uint32_t)rng_below_64(&a->rng, world->page_count);
	uint64_t mask = 1ull << (page % COH_FREE_PAGES);

	if (rng_chance_64(&a->rng, 60))
		mask |= rng_next(&a->rng);
	if (rng_chance_64(&a->rng, 30))
		mask = UINT64_MAX;
	edge_free(world, a->node, page / COH_FREE_PAGES, mask);
}

void actor_go(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];

	if (a->device) {
		device_go(world, actor);
		return;
	}
	if (a->state == ACTOR_INSIDE) {
		inside_go(world, actor);
		return;
	}
	a->state = ACTOR_READY;
	if (!a->begun) {
		if (should_stop(world, a)) {
			stop(world, a);
			return;
		}
		if (world->plan.frees && !a->sweeping &&
		    rng_chance_64(&a->rng, (uint32_t)world->plan.frees))
			free_pages(world, a);
		make_instruction(world, a);
		a->begun = true;
		checker_begin(world->checker, actor, world->now_ns);
	}
	try_instruction(world, actor);
}

void actor_wake(struct world *world, uint32_t node, uint32_t page, enum coh_access access)
{
	uint32_t first = node * world->actors_per_node;

	for (uint32_t i = first; i < first + world->actors_per_node; i++) {
		struct sim_actor *a = &world->actor[i];

		if (a->state != ACTOR_STALLED || a->stall_page != page || a->stall_want > access)
			continue;
		a->state = ACTOR_READY;
		checker_wake(world->checker, i, world->now_ns);
		world_schedule_actor(
			world, i,
			between(&a->rng, world->plan.wake_min_ns, world->plan.wake_max_ns));
	}
}

void actor_pinned(struct world *world, uint32_t node, uint32_t index, uint32_t page)
{
	uint32_t actor = node * world->actors_per_node + index;
	struct sim_actor *a = &world->actor[actor];

	if (index >= world->actors_per_node || a->state != ACTOR_PINNING || a->stall_page != page) {
		world_fail(world, RULE_ACTIONS, node, page, "PINNED for nobody");
		return;
	}
	a->state = ACTOR_PINNED;
	checker_complete(world->checker, actor, world->now_ns);
	checker_pinned(world->checker, actor, node, page, a->stall_want, world->now_ns);
	world_schedule_actor(world, actor, between(&a->rng, 1, world->plan.pin_ns_max));
}

void actor_sweep(struct world *world, uint32_t actor)
{
	struct sim_actor *a = &world->actor[actor];

	a->sweeping = true;
	a->cursor = 0;
	a->state = ACTOR_READY;
	world->node[a->node].stopped--;
	world_schedule_actor(world, actor, 1);
}
