/* SPDX-License-Identifier: Apache-2.0 */
/* Plans, events in time order, links, deaths, wishes, the end: see world.h. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/members/world.h"

#define EVENTS_MAX 3000000u

#define US 1000ull
#define MS 1000000ull

/* Most pods are small, since most defects show with three members. */
void plan_make(struct plan *plan, uint64_t seed)
{
	struct rng rng = { seed };
	uint64_t size = rng_below_64(&rng, 1000);

	*plan = (struct plan){ .seed = seed };
	plan->nodes = size < 900 ? rng_range(&rng, 1, 4) : rng_range(&rng, 5, 16);
	if (size >= 996)
		plan->nodes = rng_range(&rng, 17, NODES_MAX - 1);
	plan->numbers = plan->nodes + RNG_ONE_OF(&rng, 1, 1, 2, 4);
	if (plan->numbers > NODES_MAX)
		plan->numbers = NODES_MAX;
	plan->things = rng_range(&rng, 1, SIM_THINGS);
	plan->wishes = plan->nodes > 16 ? 6 : RNG_ONE_OF(&rng, 10, 30, 60);
	plan->any_dies = RNG_ONE_OF(&rng, 0, 0, 1);
	plan->deaths = plan->any_dies ? 1 : RNG_ONE_OF(&rng, 0, 1, 4);
	plan->refusals = RNG_ONE_OF(&rng, 0, 0, 10, 30);
	plan->hangs = RNG_ONE_OF(&rng, 0, 0, 20);
	plan->delay_ns = rng_range(&rng, 2, 100) * US;
	plan->jitter_ns = RNG_ONE_OF(&rng, 1, 10 * US, 100 * US, 1 * MS);
	plan->slow_percent = RNG_ONE_OF(&rng, 0, 2, 20);
	plan->slow_ns = RNG_ONE_OF(&rng, 1 * MS, 5 * MS);
	plan->tick_ns = RNG_ONE_OF(&rng, 50 * US, 200 * US, 1 * MS) * (plan->nodes > 16 ? 20 : 1);
	plan->rest_ns = RNG_ONE_OF(&rng, 10 * US, 300 * US, 3 * MS);
}

void world_fail(struct world *world, enum rule rule, const char *format, ...)
{
	va_list args;

	if (world->rule)
		return;
	world->rule = rule;
	va_start(args, format);
	vsnprintf(world->text, sizeof(world->text), format, args);
	va_end(args);
	TRACE(world, "%s: %s", rule_name(rule), world->text);
}

/* ---- events ---------------------------------------------------------------------------------- */

void later(struct world *world, const struct event *event, uint64_t after_ns)
{
	event_heap_put(&world->heap, event, world->now_ns + after_ns);
}

/* ---- links ----------------------------------------------------------------------------------- */

static bool is_pages(enum message_type type)
{
	return type >= MESSAGE_MOVE;
}

static uint64_t *arrival_of(struct world *world, int channel, uint32_t src, uint32_t dst)
{
	return &world->arrival_ns[((size_t)channel * NODES_MAX + world->process[src]->number) *
					  NODES_MAX +
				  world->process[dst]->number];
}

static uint64_t travel_ns(struct world *world, bool slow)
{
	const struct plan *plan = world->plan;
	uint64_t ns = plan->delay_ns + rng_below_64(&world->rng, plan->jitter_ns);

	if (slow && rng_chance(&world->rng, (uint32_t)plan->slow_percent))
		ns += rng_below_64(&world->rng, plan->slow_ns);
	return ns;
}

/* In the order in which they were sent, in each channel of each pair. */
void message_send(struct world *world, const struct message *message)
{
	struct message *copy;
	uint64_t at_ns, *arrival_ns;

	if (message->dst == NOBODY ||
	    (!lives(world, message->dst) && message->type != MESSAGE_LINK))
		return;
	copy = malloc(sizeof(*copy));
	if (!copy)
		abort();
	*copy = *message;
	arrival_ns = arrival_of(world, is_pages(message->type), message->src, message->dst);
	at_ns = world->now_ns + travel_ns(world, is_pages(message->type));
	if (at_ns < *arrival_ns)
		at_ns = *arrival_ns;
	*arrival_ns = at_ns;
	world->messages++;
	later(world, &(struct event){ .kind = EVENT_ARRIVAL, .message = copy },
	      at_ns - world->now_ns);
}

/* The end of who has left comes behind his last word; that of who has died when it comes. */
static void tell_lost(struct world *world, uint32_t who, uint32_t to, bool in_order)
{
	struct message *copy = malloc(sizeof(*copy));
	uint64_t at_ns = world->now_ns + travel_ns(world, false);

	if (!copy)
		abort();
	*copy = (struct message){ .type = MESSAGE_LOST, .src = who, .dst = to };
	for (int channel = 0; channel < 2 && in_order; channel++)
		if (at_ns <= *arrival_of(world, channel, who, to))
			at_ns = *arrival_of(world, channel, who, to) + 1;
	later(world, &(struct event){ .kind = EVENT_ARRIVAL, .message = copy },
	      at_ns - world->now_ns);
}

static void arrive(struct world *world, const struct message *message)
{
	uint16_t src = world->process[message->src]->number;
	bool joins = message->type == MESSAGE_LINK || message->type == MESSAGE_LINKED;

	if (!lives(world, message->dst)) {
		if (message->type == MESSAGE_LINK) /* nobody answers */
			tell_lost(world, message->dst, message->src, false);
		return;
	}
	/* A link that has ended here says nothing more. */
	if (joins) {
		if (!lives(world, message->src))
			return;
	} else if (world->process[message->dst]->link[src] != message->src &&
		   message->type != MESSAGE_LOST) {
		return;
	} else if (message->type == MESSAGE_LOST &&
		   world->process[message->dst]->link[src] != message->src &&
		   world->process[message->dst]->link[src] != NOBODY) {
		return;
	}
	node_arrival(world, message);
}

/* ---- processes ------------------------------------------------------------------------------- */

struct member_about about_of(uint32_t who)
{
	struct member_about about = { .cores = 1 };

	snprintf(about.name, sizeof(about.name), "p%u", who);
	return about;
}

uint32_t who_is(const struct member_about *about)
{
	return (uint32_t)strtoul(about->name + 1, NULL, 10);
}

uint32_t process_new(struct world *world)
{
	struct process *process;

	if (world->process_count == SIM_PROCESSES)
		return NOBODY;
	process = calloc(1, sizeof(*process));
	if (!process)
		abort();
	for (uint32_t node = 0; node < NODES_MAX; node++)
		process->link[node] = NOBODY;
	for (uint32_t t = 0; t < SIM_THINGS; t++)
		process->thing[t].owed_by = NODE_NONE;
	world->process[world->process_count] = process;
	return world->process_count++;
}

void process_dies(struct world *world, uint32_t who, enum fate fate)
{
	struct process *process = world->process[who];

	TRACE(world, "%u (p%u) %s", process->number, who,
	      fate == FATE_DIED	  ? "dies"
	      : fate == FATE_LEFT ? "has left"
				  : "has ended");
	if (process->fate == FATE_LIVES && fate != FATE_LEFT)
		judge_death(world, who);
	for (uint32_t i = 0; i < world->process_count && process->fate == FATE_LIVES; i++) {
		const struct process *other = world->process[i];

		if (i != who && lives(world, i) &&
		    (other->link[process->number] == who || process->link[other->number] == i))
			tell_lost(world, who, i, fate == FATE_LEFT);
	}
	process->fate = fate;
}

static void begin_pod(struct world *world)
{
	const struct plan *plan = world->plan;
	struct member_about about[NODES_MAX];

	for (uint32_t node = 0; node < plan->nodes; node++)
		about[node] = about_of(node);
	for (uint16_t node = 0; node < plan->nodes; node++) {
		struct process *process = world->process[process_new(world)];

		process->fate = FATE_LIVES;
		process->number = node;
		world->holder[node] = node;
		member_list_init(&process->list, node, (uint16_t)plan->numbers,
				 (uint16_t)plan->nodes, about);
		process->list.broken = plan->core_broken;
		for (uint32_t other = 0; other < plan->nodes; other++)
			if (other != node)
				process->link[other] = other;
		for (uint16_t t = 0; t < plan->things; t++) {
			process->thing[t].here = t % plan->nodes == node;
			process->thing[t].node =
				process->thing[t].here ? NODE_NONE : (uint16_t)(t % plan->nodes);
			process->thing[t].who = t % (uint32_t)plan->nodes;
		}
		later(world, &(struct event){ .kind = EVENT_TICK, .who = node },
		      rng_below_64(&world->rng, plan->tick_ns));
	}
}

/* ---- wishes, deaths -------------------------------------------------------------------------- */

/* NOBODY: none. */
static uint32_t choose_process(struct world *world, bool (*fits)(const struct process *process))
{
	uint32_t first = rng_below(&world->rng, world->process_count);

	for (uint32_t i = 0; i < world->process_count; i++) {
		uint32_t who = (first + i) % world->process_count;

		if (lives(world, who) && fits(world->process[who]))
			return who;
	}
	return NOBODY;
}

static bool may_wish(const struct process *process)
{
	return member_list_counts(&process->list, process->number) && !process->list.wishing;
}

static bool is_no_member(const struct process *process)
{
	return !member_list_counts(&process->list, process->number);
}

static bool is_any(const struct process *process)
{
	(void)process;
	return true;
}

static void wish_something(struct world *world)
{
	uint32_t who = choose_process(world, may_wish), joiner, id;
	struct member_word wish = { .node = (uint16_t)rng_below_64(&world->rng,
								   world->plan->numbers) };
	uint32_t percent = rng_below(&world->rng, 100);
	struct process *process;

	if (who == NOBODY)
		return;
	process = world->process[who];
	if (percent < 40) {
		wish.kind = KIND_JOIN;
		joiner = process_new(world);
		if (joiner == NOBODY)
			return;
		world->process[joiner]->hangs =
			rng_chance(&world->rng, (uint32_t)world->plan->hangs);
		wish.about = about_of(joiner);
		process->refuses = rng_chance(&world->rng, (uint32_t)world->plan->refusals);
	} else if (percent < 70) {
		wish.kind = KIND_DRAIN;
	} else if (percent < 82) {
		wish.kind = KIND_ACTIVE;
	} else {
		wish.kind = KIND_SEAT;
		wish.seat = percent < 96 ? SEAT_STEWARD : SEAT_PC;
	}
	if (member_list_wish(&process->list, &wish, &id))
		abort();
	node_act(world, who);
}

/* Who is no member dies when there is one; any other at once. */
static void somebody_dies(struct world *world)
{
	uint32_t who = choose_process(world, world->plan->any_dies ? is_any : is_no_member);

	if (who != NOBODY) {
		world->deaths_left--;
		process_dies(world, who, FATE_DIED);
	}
	if (world->deaths_left > 0 && world->wishes_left > 0)
		later(world, &(struct event){ .kind = EVENT_DEATH },
		      1 + rng_below_64(&world->rng, world->plan->rest_ns));
}

/* ---- a run ----------------------------------------------------------------------------------- */

static void happen(struct world *world, const struct event *event)
{
	switch (event->kind) {
	case EVENT_ARRIVAL:
		arrive(world, event->message);
		free(event->message);
		break;
	case EVENT_TICK:
		if (lives(world, event->who))
			node_tick(world, event->who);
		break;
	case EVENT_WAKE:
		if (lives(world, event->who)) {
			world->process[event->who]->dawdles = false;
			node_act(world, event->who);
		}
		break;
	case EVENT_WISH:
		wish_something(world);
		if (--world->wishes_left > 0)
			later(world, event, 1 + rng_below_64(&world->rng, world->plan->rest_ns));
		break;
	case EVENT_DEATH:
		somebody_dies(world);
		break;
	}
}

static void clean_up(struct world *world)
{
	for (uint32_t i = 0; i < world->heap.count; i++) {
		struct event *event = event_heap_at(&world->heap, i);

		if (event->kind == EVENT_ARRIVAL)
			free(event->message);
	}
	for (uint32_t i = 0; i < world->process_count; i++)
		free(world->process[i]);
	free(world->arrival_ns);
	event_heap_end(&world->heap);
}

void world_run(struct world *world, const struct plan *plan, bool trace)
{
	memset(world, 0, sizeof(*world));
	world->plan = plan;
	world->trace = trace;
	world->heap.bytes = sizeof(struct event);
	world->rng.state = plan->seed * 0x9e3779b97f4a7c15u + 1;
	world->wishes_left = (uint32_t)plan->wishes;
	world->deaths_left = (uint32_t)plan->deaths;
	world->arrival_ns = calloc((size_t)2 * NODES_MAX * NODES_MAX, sizeof(uint64_t));
	if (!world->arrival_ns)
		abort();
	for (uint32_t node = 0; node < NODES_MAX; node++)
		world->holder[node] = NOBODY;
	begin_pod(world);
	later(world, &(struct event){ .kind = EVENT_WISH }, plan->rest_ns);
	if (plan->deaths)
		later(world, &(struct event){ .kind = EVENT_DEATH },
		      rng_below_64(&world->rng, plan->rest_ns * plan->wishes));
	while (!world->rule && world->heap.count > 0) {
		struct event event;

		event_heap_take(&world->heap, &event);
		world->now_ns = event.time.at_ns;
		happen(world, &event);
		if (++world->events > EVENTS_MAX)
			world_fail(world, RULE_ENDLESS, "it does not end");
	}
	if (!world->rule)
		judge_world(world);
	clean_up(world);
}
