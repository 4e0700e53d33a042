/* SPDX-License-Identifier: Apache-2.0 */
/* A node's control thread, which takes one message after the other, and its devices' thread. */
#include <stdio.h>
#include <stdlib.h>

#include "core/interrupt_route.h"
#include "tests/sim/moves/world.h"

void control_go_on(struct world *world, uint16_t node)
{
	later(world, EVENT_CONTROL, node, &world->node[node].control,
	      world->now_ns + step_ns(world));
}

void control_arrival(struct world *world, struct message *message)
{
	struct sim_node *n = &world->node[message->dst];

	message->next = NULL;
	if (n->last)
		n->last->next = message;
	else
		n->first = message;
	n->last = message;
	control_go_on(world, message->dst);
}

static void lie(struct world *world, const struct message *message, const char *what)
{
	struct vcpu_place place = vcpu_place_read(&world->node[message->dst].places, message->vcpu);

	judge_fail(
		&world->judge, RULE_LIE,
		"%s of vCPU %u, epoch %llu, from node %u to node %u, which has it in state %d of "
		"node %u, epoch %llu",
		what, message->vcpu, (unsigned long long)message->epoch, message->src, message->dst,
		place.state, place.node, (unsigned long long)place.epoch);
}

/* [lock] */
static void take_move(struct world *world, struct message *message)
{
	struct sim_node *n = &world->node[message->dst];

	if (vcpu_place_on_move(&n->places, message->vcpu, message->src, message->epoch) !=
	    PLACE_NEWS) {
		lie(world, message, "MOVE");
		return;
	}
	world->taken++;
	seat_of(world, message->dst, message->vcpu)->image = *message->image;
	seat_load(world, message->dst, message->vcpu);
}

/* [lock] */
static void take_place(struct world *world, struct message *message)
{
	struct sim_node *n = &world->node[message->dst];

	switch (vcpu_place_on_place(&n->places, message->vcpu, message->src, message->epoch)) {
	case PLACE_LIE:
		lie(world, message, "PLACE");
		break;
	case PLACE_OLD:
		break;
	case PLACE_NEWS:
	case PLACE_TAKEN:
		if (world->plan->edge_broken != EDGE_BROKEN_FORGET)
			inbox_forward(world, message->dst, message->vcpu, false);
		break;
	}
}

/* [lock] */
static void take_refused(struct world *world, struct message *message)
{
	struct sim_node *n = &world->node[message->dst];

	if (vcpu_place_on_refused(&n->places, message->vcpu, message->src, message->epoch) !=
	    PLACE_NEWS)
		lie(world, message, "REFUSED");
	else
		seat_load(world, message->dst, message->vcpu);
}

static void take_interrupt(struct world *world, struct message *message)
{
	struct sim_node *n = &world->node[message->dst];
	struct op *op = &n->control.op;

	for (uint32_t i = 0; i < message->bag.count; i++) {
		const struct parcel *parcel = &message->bag.item[i];
		struct vcpu_place place = vcpu_place_read(&n->places, parcel->vcpu);
		bool away = place.state == PLACE_AWAY || place.state == PLACE_SENT;

		if (place.epoch < parcel->epoch || (away && place.epoch == parcel->epoch))
			judge_fail(
				&world->judge, RULE_ROUND,
				"interrupt %u of vCPU %u is sent to node %u by epoch %llu, which "
				"knows of %llu",
				parcel->id, parcel->vcpu, message->dst,
				(unsigned long long)parcel->epoch, (unsigned long long)place.epoch);
		if (message->mode == INTERRUPT_INIT || message->mode == INTERRUPT_SIPI)
			startup_post(world, message->dst, message->mode, message->vector, parcel);
		else
			bag_add(&op->bag, parcel);
	}
	if (op->bag.count)
		op_begin(world, op, message->mode, message->vector, rng_chance_64(&world->rng, 50));
}

static void take(struct world *world, struct message *message)
{
	if (world->now_ns - message->sent_ns > world->travel_ns)
		world->travel_ns = world->now_ns - message->sent_ns;
	switch (message->type) {
	case MESSAGE_MOVE:
		take_move(world, message);
		break;
	case MESSAGE_PLACE:
		take_place(world, message);
		break;
	case MESSAGE_REFUSED:
		take_refused(world, message);
		break;
	case MESSAGE_INTERRUPT:
		take_interrupt(world, message);
		break;
	case MESSAGE_STARTUP:
		judge_heard(&world->judge, message->vcpu, message->number);
		startup_turn(world, message->target, message->mode);
		message_send(world, message_new(MESSAGE_HEARD, 0, message->src, message->vcpu));
		break;
	case MESSAGE_HEARD:
		seat_of(world, message->dst, message->vcpu)->asking = false;
		seat_go_on(world, message->dst, message->vcpu);
		break;
	case MESSAGE_TAKEN:
		startup_taken(world, message->vcpu);
		break;
	}
}

/* What seats owe. */
static void settle(struct world *world, uint16_t node)
{
	for (uint32_t vcpu = 0; vcpu < world->vcpus && world->node[node].owed_count; vcpu++) {
		if (!seat_of(world, node, vcpu)->owes)
			continue;
		seat_say(world, node, vcpu);
		if (vcpu_place_read(&world->node[node].places, vcpu).state == PLACE_HERE ||
		    world->plan->edge_broken == EDGE_BROKEN_SETTLE)
			startup_settle(world, node, vcpu);
	}
}

void control_step(struct world *world, uint16_t node)
{
	struct sim_node *n = &world->node[node];

	if (n->owed_count && (!n->first || rng_chance_64(&world->rng, 50))) {
		settle(world, node);
	} else if (n->control.op.active) {
		op_step(world, node, &n->control.op);
	} else if (n->first) {
		struct message *message = n->first;

		n->first = message->next;
		if (!n->first)
			n->last = NULL;
		take(world, message);
		bag_free(&message->bag);
		free(message->image);
		free(message);
	}
	if (n->control.op.active || n->first || n->owed_count)
		control_go_on(world, node);
}

void device_step(struct world *world, uint16_t node)
{
	struct sim_node *n = &world->node[node];
	struct op *op = &n->device.op;
	uint64_t at_ns = world->now_ns + step_ns(world);

	if (!op->active) {
		if (!n->device_left)
			return;
		n->device_left--;
		op_random(world, op);
	} else if (op_step(world, node, op)) {
		at_ns = world->now_ns + up_to(world, world->plan->think_ns);
	}
	later(world, EVENT_DEVICE, node, &n->device, at_ns);
}
