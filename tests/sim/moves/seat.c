/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread on one node. In the guest it looks at nothing until it is kicked, or by its own will
 * sends an interrupt or leaves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/interrupt_route.h"
#include "tests/sim/moves/world.h"

void seat_go_on(struct world *world, uint16_t node, uint32_t vcpu)
{
	later(world, EVENT_SEAT, node * world->vcpus + vcpu, &seat_of(world, node, vcpu)->thread,
	      world->now_ns + step_ns(world));
}

void seat_kick(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);

	if (seat->stage != SEAT_GUEST)
		return; /* it is outside of the guest */
	if (!seat->kicked)
		seat->kicked_ns = world->now_ns;
	seat->kicked = true;
	seat_go_on(world, node, vcpu);
}

void seat_load(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);

	seat->stage = SEAT_LOADING;
	seat->begun_ns = world->now_ns;
	seat_go_on(world, node, vcpu);
}

static void changed(struct world *world, const struct seat *seat, uint64_t since_ns)
{
	(void)seat;
	if (world->now_ns - since_ns > world->change_ns)
		world->change_ns = world->now_ns - since_ns;
}

static void plan_leave(struct world *world, struct seat *seat)
{
	seat->leave_ns = world->now_ns + world->plan->dwell_ns + up_to(world, world->plan->stay_ns);
}

/* [lock] for all that comes behind the message. */
static void refuse(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct sim_node *n = &world->node[node];
	struct seat *seat = seat_of(world, node, vcpu);
	struct vcpu_place place = vcpu_place_read(&n->places, vcpu);
	struct message *message = message_new(MESSAGE_REFUSED, node, place.node, vcpu);

	TRACE(world, "node %u: refuses vCPU %u", node, vcpu);
	message->epoch = place.epoch + 1;
	message_send(world, message);
	vcpu_place_refuse(&n->places, vcpu);
	memset(&seat->image, 0, sizeof(seat->image));
	seat->stage = SEAT_PARKED;
	world->refused++;
	if (world->plan->edge_broken == EDGE_BROKEN_REFUSAL_DROPS) {
		lapic_inbox_clear(&seat->inbox);
		seat->shadow.count = 0;
	} else if (world->plan->edge_broken != EDGE_BROKEN_FORGET) {
		inbox_forward(world, node, vcpu, false);
	}
	changed(world, seat, seat->begun_ns);
}

static void load(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct sim_node *n = &world->node[node];
	struct seat *seat = seat_of(world, node, vcpu);

	if (world->plan->edge_broken == EDGE_BROKEN_GATHERED)
		inbox_drain(world, node, vcpu);
	if (vcpu_place_read(&n->places, vcpu).node != node && world->moves_left[vcpu] &&
	    rng_chance_64(&world->rng, (uint32_t)world->plan->refuse_percent)) {
		world->moves_left[vcpu]--;
		refuse(world, node, vcpu);
		return;
	}
	TRACE(world, "node %u: vCPU %u is here", node, vcpu);
	judge_runs(&world->judge, vcpu, node);
	vcpu_place_here(&n->places, vcpu);
	plan_leave(world, seat);
	seat->owes = true;
	seat->came_ns = seat->begun_ns;
	world->node[node].owed_count++;
	control_go_on(world, node);
	seat->stage = SEAT_GUEST;
	seat->think_ns = world->now_ns + up_to(world, world->plan->think_ns);
	seat->kicked = true;
	seat->kicked_ns = world->now_ns;
	changed(world, seat, seat->begun_ns);
	seat_go_on(world, node, vcpu);
}

void seat_say(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);

	if (!seat->owes)
		return;
	seat->owes = false;
	world->node[node].owed_count--;
	for (uint16_t to = 0; to < world->nodes; to++) {
		struct message *message;

		if (to == node)
			continue;
		message = message_new(MESSAGE_PLACE, node, to, vcpu);
		message->epoch = vcpu_place_read(&world->node[node].places, vcpu).epoch;
		message_send(world, message);
	}
	changed(world, seat, seat->came_ns);
}

/* ---- leaving --------------------------------------------------------------------------------- */

static void leave(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);
	uint16_t to =
		(uint16_t)((node + 1 + rng_below_64(&world->rng, world->nodes - 1)) % world->nodes);

	if (vcpu_place_leave(&world->node[node].places, vcpu, to))
		abort();
	TRACE(world, "node %u: vCPU %u leaves for node %u", node, vcpu, to);
	judge_stops(&world->judge, vcpu, node);
	seat->kicked = false;
	seat->begun_ns = world->now_ns;
	seat->stage = SEAT_LEAVING;
	seat_go_on(world, node, vcpu);
}

static void stay(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);

	TRACE(world, "node %u: vCPU %u stays", node, vcpu);
	judge_runs(&world->judge, vcpu, node);
	vcpu_place_stay(&world->node[node].places, vcpu);
	startup_settle(world, node, vcpu);
	plan_leave(world, seat);
	seat->stage = SEAT_GUEST;
	seat->kicked = true;
	seat->kicked_ns = world->now_ns;
	changed(world, seat, seat->begun_ns);
	seat_go_on(world, node, vcpu);
}

static void send_move(struct world *world, uint16_t node, uint32_t vcpu, uint64_t epoch)
{
	struct seat *seat = seat_of(world, node, vcpu);
	uint16_t to = vcpu_place_read(&world->node[node].places, vcpu).node;
	struct message *message = message_new(MESSAGE_MOVE, node, to, vcpu);

	message->epoch = epoch;
	message->image = malloc(sizeof(*message->image));
	if (!message->image)
		abort();
	*message->image = seat->image;
	message_send(world, message);
}

static void sent(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);

	vcpu_place_sent(&world->node[node].places, vcpu);
	if (world->plan->edge_broken != EDGE_BROKEN_FORGET)
		inbox_forward(world, node, vcpu, false);
	changed(world, seat, seat->begun_ns);
}

/* [lock] Its state is saved. */
static void move(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);
	uint64_t epoch = vcpu_place_read(&world->node[node].places, vcpu).epoch + 1;

	if (rng_chance_64(&world->rng, (uint32_t)world->plan->unsaved_percent)) {
		stay(world, node, vcpu);
		return;
	}
	world->moves_left[vcpu]--;
	seat->stage = SEAT_PARKED;
	if (world->plan->edge_broken != EDGE_BROKEN_OWED)
		seat_say(world, node, vcpu);
	if (world->plan->edge_broken == EDGE_BROKEN_FORWARD_EARLY) {
		seat->stage = SEAT_SENDING;
		sent(world, node, vcpu);
	} else if (world->plan->edge_broken == EDGE_BROKEN_NO_LOCK) {
		seat->stage = SEAT_SENDING;
		send_move(world, node, vcpu, epoch);
	} else {
		send_move(world, node, vcpu, epoch);
		sent(world, node, vcpu);
	}
	if (seat->stage == SEAT_SENDING)
		seat_go_on(world, node, vcpu);
}

static void move_on(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct vcpu_place place = vcpu_place_read(&world->node[node].places, vcpu);

	seat_of(world, node, vcpu)->stage = SEAT_PARKED;
	if (world->plan->edge_broken == EDGE_BROKEN_FORWARD_EARLY)
		send_move(world, node, vcpu, place.epoch);
	else if (place.state == PLACE_LEAVING)
		sent(world, node, vcpu);
}

/* ---- in the guest ---------------------------------------------------------------------------- */

/* An INIT or SIPI: node 0 is asked, and answers at once. */
static void ask(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct message *message = message_new(MESSAGE_STARTUP, node, 0, vcpu);

	message->mode = rng_chance_64(&world->rng, 50) ? INTERRUPT_INIT : INTERRUPT_SIPI;
	message->target = (uint32_t)rng_below_64(&world->rng, world->vcpus);
	message->number = judge_asked(&world->judge, vcpu);
	if (node == 0) {
		judge_heard(&world->judge, vcpu, message->number);
		startup_turn(world, message->target, message->mode);
		free(message);
		return;
	}
	seat_of(world, node, vcpu)->asking = true;
	message_send(world, message);
}

static void act(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);

	world->sends_left[vcpu]--;
	seat->think_ns = world->now_ns + up_to(world, world->plan->think_ns);
	if (world->judge.runs_on[vcpu] != node)
		judge_fail(&world->judge, RULE_ONE_PLACE, "vCPU %u runs on node %u unseen", vcpu,
			   node);
	if (rng_chance_64(&world->rng, (uint32_t)world->plan->startup_percent))
		ask(world, node, vcpu);
	else
		op_random(world, &seat->thread.op);
}

static void guest(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);
	bool stays = seat->asking && world->plan->edge_broken != EDGE_BROKEN_LEAVES_ASKING;
	uint64_t next_ns = UINT64_MAX;

	if (seat->thread.op.active) {
		op_step(world, node, &seat->thread.op);
		seat_go_on(world, node, vcpu);
		return;
	}
	if (seat->kicked) {
		seat->kicked = false;
		inbox_drain(world, node, vcpu);
		changed(world, seat, seat->kicked_ns);
		seat_go_on(world, node, vcpu);
		return;
	}
	if (!stays && world->moves_left[vcpu] && world->now_ns >= seat->leave_ns) {
		if (world->plan->edge_broken == EDGE_BROKEN_DRAIN_FIRST) {
			inbox_drain(world, node, vcpu);
			seat->stage = SEAT_DRAINED;
			seat_go_on(world, node, vcpu);
		} else {
			leave(world, node, vcpu);
		}
		return;
	}
	if (!seat->asking && world->sends_left[vcpu] && world->now_ns >= seat->think_ns) {
		act(world, node, vcpu);
		seat_go_on(world, node, vcpu);
		return;
	}
	if (!stays && world->moves_left[vcpu])
		next_ns = seat->leave_ns;
	if (!seat->asking && world->sends_left[vcpu] && seat->think_ns < next_ns)
		next_ns = seat->think_ns;
	if (next_ns != UINT64_MAX)
		later(world, EVENT_SEAT, node * world->vcpus + vcpu, &seat->thread, next_ns);
}

void seat_step(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);

	switch (seat->stage) {
	case SEAT_PARKED:
		break;
	case SEAT_LOADING:
		load(world, node, vcpu);
		break;
	case SEAT_GUEST:
		guest(world, node, vcpu);
		break;
	case SEAT_DRAINED:
		leave(world, node, vcpu);
		break;
	case SEAT_LEAVING:
		if (world->plan->edge_broken != EDGE_BROKEN_DRAIN_FIRST)
			inbox_drain(world, node, vcpu);
		seat->stage = SEAT_SAVED;
		seat_go_on(world, node, vcpu);
		break;
	case SEAT_SAVED:
		move(world, node, vcpu);
		break;
	case SEAT_SENDING:
		move_on(world, node, vcpu);
		break;
	}
}
