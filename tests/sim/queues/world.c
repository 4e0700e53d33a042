/* SPDX-License-Identifier: Apache-2.0 */
/* Events in time order, links, the end: see world.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/queues/world.h"

#define EVENTS_MAX 2000000u

#define US 1000ull
#define MS 1000000ull

/* Most worlds are small, since most defects show with three nodes and one queue. */
void plan_make(struct plan *plan, uint64_t seed)
{
	struct rng rng = { seed };

	*plan = (struct plan){ .seed = seed };
	plan->nodes = rng_below_64(&rng, 100) < 85 ? rng_range(&rng, 2, 4)
						   : rng_range(&rng, 5, SIM_NODES);
	plan->queues = rng_range(&rng, 1, SIM_QUEUES);
	plan->users = rng_range(&rng, 1, SIM_USERS);
	plan->chains = RNG_ONE_OF(&rng, 20, 60, 200);
	plan->moves = RNG_ONE_OF(&rng, 5, 20, 60);
	plan->resets = RNG_ONE_OF(&rng, 0, 2, 5);
	plan->delay_ns = rng_range(&rng, 2, 100) * US;
	plan->jitter_ns = RNG_ONE_OF(&rng, 1, 10 * US, 100 * US, 1 * MS);
	plan->step_ns = RNG_ONE_OF(&rng, 1 * US, 10 * US, 50 * US);
	plan->pause_percent = RNG_ONE_OF(&rng, 0, 1, 10);
	plan->pause_ns = RNG_ONE_OF(&rng, 100 * US, 1 * MS);
	plan->disk_ns = RNG_ONE_OF(&rng, 10 * US, 200 * US, 5 * MS);
	plan->think_ns = RNG_ONE_OF(&rng, 20 * US, 300 * US, 2 * MS);
	plan->stay_ns = RNG_ONE_OF(&rng, 1, 200 * US, 2 * MS);
	plan->event_index = RNG_ONE_OF(&rng, 0, 1, 1);
	plan->skip_percent = RNG_ONE_OF(&rng, 0, 50);
	plan->halt_percent = RNG_ONE_OF(&rng, 0, 0, 50);
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

uint64_t step_ns(struct world *world)
{
	uint64_t step = rng_below_64(&world->rng, world->plan->step_ns) + 1;

	if (rng_chance(&world->rng, (uint32_t)world->plan->pause_percent))
		step += rng_below_64(&world->rng, world->plan->pause_ns);
	if (step > world->step_max_ns)
		world->step_max_ns = step;
	return step;
}

/* ---- events ------------------------------------------------------------------------------------- */

void later(struct world *world, const struct event *event, uint64_t after_ns)
{
	if (event->kind == EVENT_DISK && after_ns > world->disk_max_ns)
		world->disk_max_ns = after_ns;
	event_heap_put(&world->heap, event, world->now_ns + after_ns);
}

/* ---- links -------------------------------------------------------------------------------------- */

struct message *message_new(enum message_type type, uint16_t src, uint16_t dst)
{
	struct message *message = calloc(1, sizeof(*message));

	if (!message)
		abort();
	message->type = type;
	message->src = src;
	message->dst = dst;
	return message;
}

/* In the order in which they were sent, of each pair of nodes. */
void message_send(struct world *world, struct message *message)
{
	uint64_t *arrival_ns = &world->arrival_ns[message->src][message->dst];
	uint64_t at_ns = world->now_ns + world->plan->delay_ns +
			 rng_below_64(&world->rng, world->plan->jitter_ns);

	if (at_ns < *arrival_ns)
		at_ns = *arrival_ns;
	*arrival_ns = at_ns;
	if (at_ns - world->now_ns > world->travel_ns)
		world->travel_ns = at_ns - world->now_ns;
	world->messages++;
	later(world, &(struct event){ .kind = EVENT_ARRIVAL, .message = message },
	      at_ns - world->now_ns);
}

/* ---- a run -------------------------------------------------------------------------------------- */

static void happen(struct world *world, const struct event *event)
{
	switch (event->kind) {
	case EVENT_ARRIVAL:
		control_arrival(world, event->message);
		break;
	case EVENT_CONTROL:
		control_step(world, event->node);
		break;
	case EVENT_IO:
		io_step(world, event->node);
		break;
	case EVENT_DISK:
		io_disk_done(world, event);
		break;
	case EVENT_USER:
		guest_user_step(world, event->index);
		break;
	case EVENT_DRIVER:
		guest_driver_step(world);
		break;
	case EVENT_TELL:
		guest_tell_step(world);
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
	for (uint32_t n = 0; n < world->plan->nodes; n++) {
		struct sim_node *node = &world->node[n];

		while (node->first) {
			struct message *message = node->first;

			node->first = message->next;
			free(message);
		}
		free(node->control_message);
		free(node->unsent);
	}
	event_heap_end(&world->heap);
}

int world_run(struct world *world, const struct plan *plan, bool trace)
{
	memset(world, 0, sizeof(*world));
	world->plan = plan;
	world->trace = trace;
	world->heap.bytes = sizeof(struct event);
	world->rng.state = plan->seed * 0x9e3779b97f4a7c15u + 1;
	world->moves_left = (uint32_t)plan->moves;
	for (uint16_t n = 0; n < plan->nodes; n++) {
		queue_places_init(&world->node[n].places, n, (uint16_t)plan->nodes,
				  (uint16_t)plan->queues);
		world->node[n].places.broken = plan->core_broken;
		world->node[n].generation = UINT64_MAX; /* it has heard of none */
	}
	guest_begin(world);
	while (!world->rule && world->heap.count > 0) {
		struct event event;

		event_heap_take(&world->heap, &event);
		world->now_ns = event.time.at_ns;
		happen(world, &event);
		if (++world->events > EVENTS_MAX)
			world_fail(world, RULE_ENDLESS, "it does not end");
	}
	if (!world->rule)
		judge_end(world);
	clean_up(world);
	return 0;
}
