/* SPDX-License-Identifier: Apache-2.0 */
/* Events in time order, links, the beginning and the end: see world.h. */
#include "tests/sim/moves/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 20000000u

/* ---- small things ---------------------------------------------------------------------------- */

uint64_t up_to(struct world *world, uint64_t ns)
{
	return rng_below_64(&world->rng, ns + 1);
}

uint64_t step_ns(struct world *world)
{
	const struct plan *plan = world->plan;
	uint64_t ns = up_to(world, plan->step_ns);

	if (rng_chance_64(&world->rng, (uint32_t)plan->pause_percent))
		ns += up_to(world, plan->pause_ns);
	return ns;
}

void bag_add(struct bag *bag, const struct parcel *parcel)
{
	if (bag->count == bag->size) {
		bag->size = bag->size ? bag->size * 2 : 4;
		bag->item = realloc(bag->item, bag->size * sizeof(*bag->item));
		if (!bag->item)
			abort();
	}
	bag->item[bag->count++] = *parcel;
}

void bag_free(struct bag *bag)
{
	free(bag->item);
	*bag = (struct bag){ 0 };
}

/* ---- events ---------------------------------------------------------------------------------- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct world *world, struct event event)
{
	uint32_t at = world->heap_count++;

	if (world->heap_count > world->heap_size) {
		world->heap_size = world->heap_size ? world->heap_size * 2 : 1024;
		world->heap = realloc(world->heap, world->heap_size * sizeof(*world->heap));
		if (!world->heap)
			abort();
	}
	event.order = world->order++;
	while (at && before(&event, &world->heap[(at - 1) / 2])) {
		world->heap[at] = world->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	world->heap[at] = event;
}

static struct event pop(struct world *world)
{
	struct event first = world->heap[0], last = world->heap[--world->heap_count];
	uint32_t at = 0, child;

	while ((child = 2 * at + 1) < world->heap_count) {
		if (child + 1 < world->heap_count &&
		    before(&world->heap[child + 1], &world->heap[child]))
			child++;
		if (!before(&world->heap[child], &last))
			break;
		world->heap[at] = world->heap[child];
		at = child;
	}
	world->heap[at] = last;
	return first;
}

/* The thread goes on then, unless it does so earlier anyway. */
void later(struct world *world, enum event_kind kind, uint32_t index, struct thread *thread,
	   uint64_t at_ns)
{
	if (thread->at_ns <= at_ns)
		return;
	thread->at_ns = at_ns;
	push(world, (struct event){ .at_ns = at_ns,
				    .kind = kind,
				    .index = index,
				    .generation = ++thread->generation });
}

void flush_later(struct world *world, uint16_t from, uint16_t to, uint64_t at_ns)
{
	push(world, (struct event){ .at_ns = at_ns,
				    .kind = EVENT_FLUSH,
				    .index = from * world->nodes + to });
}

/* ---- links ----------------------------------------------------------------------------------- */

struct message *message_new(enum message_type type, uint16_t src, uint16_t dst, uint32_t vcpu)
{
	struct message *message = calloc(1, sizeof(*message));

	if (!message)
		abort();
	message->type = type;
	message->src = src;
	message->dst = dst;
	message->vcpu = vcpu;
	return message;
}

/* In order on each channel. A pair of nodes is slow, or not, in both directions. */
void message_send(struct world *world, struct message *message)
{
	const struct plan *plan = world->plan;
	uint64_t *arrival_ns = &world->arrival_ns[message->src * world->nodes + message->dst];
	struct rng pair = { plan->seed ^ (uint64_t)message->src * message->dst * 0x9e37u };
	uint64_t slow = rng_chance_64(&pair, (uint32_t)plan->slow_percent) ? 20 : 1;
	uint64_t at_ns = world->now_ns + (plan->delay_ns + up_to(world, plan->jitter_ns)) * slow;

	if (at_ns < *arrival_ns)
		at_ns = *arrival_ns;
	*arrival_ns = at_ns;
	message->sent_ns = world->now_ns;
	world->messages++;
	push(world, (struct event){ .at_ns = at_ns, .kind = EVENT_ARRIVAL, .message = message });
}

/* ---- a run ----------------------------------------------------------------------------------- */

static int world_init(struct world *world, const struct plan *plan)
{
	uint16_t first[VCPUS_MAX];

	world->plan = plan;
	world->rng = (struct rng){ plan->seed ^ 0x6d6f766573u };
	world->nodes = (uint32_t)plan->nodes;
	world->vcpus = (uint32_t)plan->vcpus;
	world->node = calloc(world->nodes, sizeof(*world->node));
	world->seat = calloc((size_t)world->nodes * world->vcpus, sizeof(*world->seat));
	world->arrival_ns = calloc((size_t)world->nodes * world->nodes, sizeof(*world->arrival_ns));
	world->full_ns = calloc((size_t)world->nodes * world->nodes, sizeof(*world->full_ns));
	world->waits = calloc((size_t)world->nodes * world->nodes, sizeof(*world->waits));
	if (judge_init(&world->judge, world->vcpus) || !world->node || !world->seat ||
	    !world->arrival_ns || !world->full_ns || !world->waits)
		return -ENOMEM;
	for (uint32_t v = 0; v < world->vcpus; v++) {
		first[v] = (uint16_t)rng_below_64(&world->rng, world->nodes);
		world->moves_left[v] = (uint32_t)plan->moves;
		world->sends_left[v] = (uint32_t)plan->interrupts;
	}
	for (uint16_t n = 0; n < world->nodes; n++) {
		vcpu_places_init(&world->node[n].places, n, (uint16_t)world->nodes, world->vcpus,
				 first);
		world->node[n].places.broken = (uint8_t)plan->core_broken;
		world->node[n].control.at_ns = world->node[n].device.at_ns = UINT64_MAX;
		world->node[n].device_left = n < plan->devices ? (uint32_t)plan->interrupts : 0;
		later(world, EVENT_DEVICE, n, &world->node[n].device, up_to(world, plan->think_ns));
		for (uint32_t v = 0; v < world->vcpus; v++)
			seat_of(world, n, v)->thread.at_ns = UINT64_MAX;
	}
	for (uint32_t v = 0; v < world->vcpus; v++) {
		struct seat *seat = seat_of(world, first[v], v);

		judge_runs(&world->judge, v, first[v]);
		seat->stage = SEAT_GUEST;
		seat->leave_ns = plan->dwell_ns + up_to(world, plan->stay_ns);
		seat->think_ns = up_to(world, plan->think_ns);
		seat_go_on(world, first[v], v);
	}
	return 0;
}

static void event_run(struct world *world, const struct event *event)
{
	uint16_t node = (uint16_t)event->index;
	struct thread *thread = NULL;

	if (event->kind == EVENT_ARRIVAL) {
		control_arrival(world, event->message);
		return;
	}
	if (event->kind == EVENT_FLUSH) {
		inbox_flush(world, (uint16_t)(event->index / world->nodes),
			    (uint16_t)(event->index % world->nodes));
		return;
	}
	thread = event->kind == EVENT_SEAT	? &world->seat[event->index].thread
		 : event->kind == EVENT_CONTROL ? &world->node[node].control
						: &world->node[node].device;
	if (thread->generation != event->generation)
		return; /* it has gone on earlier */
	thread->at_ns = UINT64_MAX;
	if (event->kind == EVENT_SEAT)
		seat_step(world, (uint16_t)(event->index / world->vcpus),
			  event->index % world->vcpus);
	else if (event->kind == EVENT_CONTROL)
		control_step(world, node);
	else
		device_step(world, node);
}

/* Everything is still. */
static void world_judge(struct world *world)
{
	for (uint32_t v = 0; v < world->vcpus; v++) {
		const struct image *image = NULL;
		uint32_t places = 0;

		for (uint16_t n = 0; n < world->nodes; n++) {
			struct vcpu_place place = vcpu_place_read(&world->node[n].places, v);

			if (place.state == PLACE_HERE) {
				places++;
				image = &seat_of(world, n, v)->image;
			} else if (place.state != PLACE_AWAY) {
				judge_fail(&world->judge, RULE_ONE_PLACE,
					   "node %u waits for vCPU %u for ever, in state %d", n, v,
					   place.state);
			}
		}
		judge_end(&world->judge, v, places == 1 ? image : NULL);
		if (world->hub[v].startup.out || world->hub[v].startup.init ||
		    world->hub[v].startup.sipi)
			judge_fail(&world->judge, RULE_LOST, "an INIT or SIPI of vCPU %u waits", v);
	}
}

static void world_destroy(struct world *world)
{
	while (world->heap_count) {
		struct event event = pop(world);

		if (event.message) {
			bag_free(&event.message->bag);
			free(event.message->image);
			free(event.message);
		}
	}
	for (uint32_t n = 0; n < world->nodes; n++) {
		while (world->node[n].first) {
			struct message *message = world->node[n].first;

			world->node[n].first = message->next;
			bag_free(&message->bag);
			free(message->image);
			free(message);
		}
		bag_free(&world->node[n].control.op.bag);
		bag_free(&world->node[n].device.op.bag);
		free(world->node[n].control.op.bundle);
		free(world->node[n].device.op.bundle);
	}
	for (uint32_t i = 0; i < world->nodes * world->vcpus; i++) {
		bag_free(&world->seat[i].shadow);
		bag_free(&world->seat[i].thread.op.bag);
		free(world->seat[i].thread.op.bundle);
	}
	free(world->heap);
	free(world->node);
	free(world->seat);
	free(world->arrival_ns);
	free(world->full_ns);
	free(world->waits);
	judge_destroy(&world->judge);
}

int world_run(const struct plan *plan, bool trace, struct world_result *ret_result)
{
	struct world *world = calloc(1, sizeof(*world));

	if (!world)
		return -ENOMEM;
	world->trace = trace;
	if (world_init(world, plan)) {
		free(world);
		return -ENOMEM;
	}
	while (world->heap_count && !world->judge.rule) {
		struct event event = pop(world);

		world->now_ns = world->judge.now_ns = event.at_ns;
		if (++world->events > EVENTS_MAX)
			judge_fail(&world->judge, RULE_ENDLESS, "still at it");
		event_run(world, &event);
	}
	*ret_result = (struct world_result){ 0 };
	if (!world->judge.rule) {
		world_judge(world);
		world->judge.hop_ns =
			world->travel_ns + world->op_ns + (plan->full_percent ? plan->full_ns : 0);
		world->judge.change_ns = world->change_ns;
		ret_result->bound_permille = judge_bound(&world->judge, plan->dwell_ns);
	}
	ret_result->rule = world->judge.rule;
	ret_result->at_ns = world->judge.at_ns;
	ret_result->now_ns = world->now_ns;
	snprintf(ret_result->text, sizeof(ret_result->text), "%s", world->judge.text);
	ret_result->events = world->events;
	ret_result->messages = world->messages;
	ret_result->moves = world->taken;
	ret_result->refused = world->refused;
	ret_result->forwards = world->judge.worst_forwards;
	for (uint32_t v = 0; v < world->vcpus; v++)
		ret_result->interrupts += world->judge.id_count[v] + world->judge.turn[v];
	world_destroy(world);
	free(world);
	return 0;
}
