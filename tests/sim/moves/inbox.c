/* SPDX-License-Identifier: Apache-2.0 */
/* What a node does about a vCPU's inbox, by the rules of core/vcpu_place.h and core/vcpu_startup.h. */
#include <stdio.h>

#include "core/interrupt_route.h"
#include "tests/sim/moves/world.h"

#define SVR_ON 0x1ffu

static uint16_t slot_of(uint8_t mode, uint8_t vector)
{
	return mode == INTERRUPT_NMI	? SLOT_NMI
	       : mode == INTERRUPT_INIT ? SLOT_INIT
	       : mode == INTERRUPT_SIPI ? SLOT_SIPI
					: vector;
}

/* All parcels of the slot, out of the bag. */
static struct bag take_slot(struct bag *bag, uint16_t slot)
{
	struct bag taken = { 0 };
	uint32_t kept = 0;

	for (uint32_t i = 0; i < bag->count; i++) {
		if (bag->item[i].slot == slot)
			bag_add(&taken, &bag->item[i]);
		else
			bag->item[kept++] = bag->item[i];
	}
	bag->count = kept;
	return taken;
}

/* Whether a vector is level-triggered goes by its number, so that it can be looked at in the end. */
static bool is_level(uint8_t vector)
{
	return vector & 1;
}

void inbox_note(struct world *world, uint16_t node, const struct parcel *parcel)
{
	struct bag *shadow = &seat_of(world, node, parcel->vcpu)->shadow, replaced;

	/* An INIT takes back an earlier SIPI; of each, the last is left. */
	if (parcel->slot == SLOT_INIT || parcel->slot == SLOT_SIPI) {
		replaced = take_slot(shadow, SLOT_SIPI);
		bag_free(&replaced);
	}
	if (parcel->slot == SLOT_INIT) {
		replaced = take_slot(shadow, SLOT_INIT);
		bag_free(&replaced);
	}
	bag_add(shadow, parcel);
}

/* ---- drain ----------------------------------------------------------------------------------- */

static void drain_slot(struct world *world, struct seat *seat, uint32_t vcpu, uint16_t slot)
{
	struct bag taken = take_slot(&seat->shadow, slot);

	if (!taken.count)
		judge_fail(&world->judge, RULE_TWICE, "vCPU %u gets %u out of nothing", vcpu, slot);
	for (uint32_t i = 0; i < taken.count; i++)
		judge_got(&world->judge, &seat->image, &taken.item[i]);
	world->merged += taken.count > 1 ? taken.count - 1 : 0;
	bag_free(&taken);
}

void inbox_drain(struct world *world, uint16_t node, uint32_t vcpu)
{
	struct seat *seat = seat_of(world, node, vcpu);
	struct lapic_state lapic;

	lapic_reset(&lapic, vcpu, false);
	lapic.svr = SVR_ON;
	if (!lapic_inbox_drain(&seat->inbox, &lapic))
		return;
	for (uint32_t vector = 16; vector < 256; vector++) {
		if (!(lapic.irr[vector / 64] >> (vector % 64) & 1))
			continue;
		if ((lapic.tmr[vector / 64] >> (vector % 64) & 1) != is_level((uint8_t)vector))
			judge_fail(&world->judge, RULE_LOST, "vector %u lost its trigger mode",
				   vector);
		drain_slot(world, seat, vcpu, (uint16_t)vector);
	}
	if (lapic.nmi_pending)
		drain_slot(world, seat, vcpu, SLOT_NMI);
	if (lapic.init_pending)
		drain_slot(world, seat, vcpu, SLOT_INIT);
	if (lapic.sipi_pending)
		drain_slot(world, seat, vcpu, SLOT_SIPI);
	if (seat->shadow.count)
		judge_fail(&world->judge, RULE_LOST, "an inbox of vCPU %u keeps interrupt %u", vcpu,
			   seat->shadow.item[0].id);
	TRACE(world, "node %u: vCPU %u drains", node, vcpu);
}

/* ---- forward --------------------------------------------------------------------------------- */

struct forward {
	struct world *world;
	struct seat *seat;
	uint16_t node, to;
	uint32_t vcpu;
	uint64_t epoch;
};

static void forward_one(void *ctx, uint8_t mode, uint8_t vector, bool level)
{
	struct forward *f = ctx;
	struct message *message = message_new(MESSAGE_INTERRUPT, f->node, f->to, f->vcpu);

	(void)level;
	message->mode = mode;
	message->vector = vector;
	message->bag = take_slot(&f->seat->shadow, slot_of(mode, vector));
	for (uint32_t i = 0; i < message->bag.count; i++) {
		message->bag.item[i].epoch = f->epoch;
		message->bag.item[i].forwards++;
	}
	if (!message->bag.count)
		judge_fail(&f->world->judge, RULE_TWICE, "vCPU %u's %u is forwarded out of nothing",
			   f->vcpu, slot_of(mode, vector));
	if (mode == INTERRUPT_INIT || mode == INTERRUPT_SIPI)
		(void)vcpu_startup_pay(&f->seat->debt);
	TRACE(f->world, "node %u: forwards %u of vCPU %u to node %u", f->node,
	      slot_of(mode, vector), f->vcpu, f->to);
	message_send(f->world, message);
}

static bool is_full(struct world *world, uint16_t node, uint16_t to)
{
	uint64_t *full_ns = &world->full_ns[node * world->nodes + to];

	if (world->now_ns >= *full_ns &&
	    rng_chance_64(&world->rng, (uint32_t)world->plan->full_percent))
		*full_ns = world->now_ns + up_to(world, world->plan->full_ns);
	return world->now_ns < *full_ns;
}

static void forward_to(struct world *world, uint16_t node, uint32_t vcpu, uint16_t to, bool anyway)
{
	struct seat *seat = seat_of(world, node, vcpu);
	struct forward forward = { world, seat,
				   node,  to,
				   vcpu,  vcpu_place_read(&world->node[node].places, vcpu).epoch };

	if (lapic_inbox_pending(&seat->inbox)) {
		if (!anyway && is_full(world, node, to)) {
			bool *waits = &world->waits[node * world->nodes + to];

			if (!*waits)
				flush_later(world, node, to,
					    world->full_ns[node * world->nodes + to]);
			*waits = true;
			return;
		}
		lapic_inbox_forward(&seat->inbox, forward_one, &forward);
	}
	/* What is owed and not in the inbox is in the state that left. */
	startup_settle(world, node, vcpu);
}

void inbox_forward(struct world *world, uint16_t node, uint32_t vcpu, bool anyway)
{
	uint16_t to;

	if (vcpu_place_route(&world->node[node].places, vcpu, &to) == PLACE_FORWARD)
		forward_to(world, node, vcpu, to, anyway);
}

void inbox_flush(struct world *world, uint16_t node, uint16_t to)
{
	uint16_t at;

	world->waits[node * world->nodes + to] = false;
	for (uint32_t vcpu = 0; vcpu < world->vcpus; vcpu++)
		if (vcpu_place_route(&world->node[node].places, vcpu, &at) == PLACE_FORWARD &&
		    at == to)
			inbox_forward(world, node, vcpu, true);
}

/* ---- INIT and SIPI --------------------------------------------------------------------------- */

void startup_settle(struct world *world, uint16_t node, uint32_t vcpu)
{
	if (!vcpu_startup_pay(&seat_of(world, node, vcpu)->debt))
		return;
	if (node == 0)
		startup_taken(world, vcpu);
	else
		message_send(world, message_new(MESSAGE_TAKEN, node, 0, vcpu));
}

/* [lock] */
void startup_post(struct world *world, uint16_t node, uint8_t mode, uint8_t vector,
		  const struct parcel *parcel)
{
	struct seat *seat = seat_of(world, node, parcel->vcpu);
	uint16_t to;

	vcpu_startup_owe(&seat->debt);
	inbox_note(world, node, parcel);
	(void)lapic_inbox_post(&seat->inbox, mode, vector, false);
	switch (vcpu_place_route(&world->node[node].places, parcel->vcpu, &to)) {
	case PLACE_WAKE:
		startup_settle(world, node, parcel->vcpu);
		seat_kick(world, node, parcel->vcpu);
		break;
	case PLACE_LEAVE_IT:
		if (world->plan->edge_broken == EDGE_BROKEN_TAKEN_EARLY)
			startup_settle(world, node, parcel->vcpu);
		break;
	case PLACE_FORWARD:
		inbox_forward(world, node, parcel->vcpu, false);
		break;
	}
}

static void startup_send(struct world *world, uint32_t vcpu, const struct vcpu_startup_ipi *ipi)
{
	bool init = ipi->mode == INTERRUPT_INIT;
	struct parcel parcel = {
		.vcpu = (uint16_t)vcpu,
		.slot = init ? SLOT_INIT : SLOT_SIPI,
		.id = init ? world->hub[vcpu].init_turn : world->hub[vcpu].sipi_turn,
	};

	TRACE(world, "node 0: %s, turn %u, to vCPU %u", init ? "INIT" : "SIPI", parcel.id, vcpu);
	startup_post(world, 0, ipi->mode, ipi->vector, &parcel);
}

/* On node 0. */
void startup_turn(struct world *world, uint32_t vcpu, uint8_t mode)
{
	struct hub *hub = &world->hub[vcpu];
	uint32_t turn = judge_turn(&world->judge, vcpu, mode == INTERRUPT_INIT);
	struct vcpu_startup_ipi ipi = { mode, (uint8_t)turn };

	if (mode == INTERRUPT_INIT)
		hub->init_turn = turn;
	else
		hub->sipi_turn = turn;
	if (world->plan->edge_broken == EDGE_BROKEN_STRAIGHT ||
	    vcpu_startup_post(&hub->startup, mode, (uint8_t)turn, &ipi))
		startup_send(world, vcpu, &ipi);
}

void startup_taken(struct world *world, uint32_t vcpu)
{
	struct vcpu_startup_ipi ipi;

	if (world->plan->edge_broken == EDGE_BROKEN_STRAIGHT)
		return;
	switch (vcpu_startup_taken(&world->hub[vcpu].startup, &ipi)) {
	case 0:
		break;
	case 1:
		startup_send(world, vcpu, &ipi);
		break;
	default:
		judge_fail(&world->judge, RULE_LIE, "TAKEN of vCPU %u, to which nothing is out",
			   vcpu);
	}
}

/* ---- an interrupt on its way through a node ---------------------------------------------------- */

void op_begin(struct world *world, struct op *op, uint8_t mode, uint8_t vector, bool straight)
{
	op->active = true;
	op->straight = straight;
	op->stage = OP_LOOK;
	op->mode = mode;
	op->vector = vector;
	op->index = 0;
	op->begun_ns = world->now_ns;
}

/* One vCPU, or several; vectors are few, so that some meet in an inbox. */
void op_random(struct world *world, struct op *op)
{
	bool nmi = rng_chance_64(&world->rng, 5);
	bool many = rng_chance_64(&world->rng, (uint32_t)world->plan->many_percent);
	uint8_t vector = nmi ? 0 : (uint8_t)rng_range(&world->rng, 0x30, 0x37);
	uint32_t one = (uint32_t)rng_below_64(&world->rng, world->vcpus);

	op->bag.count = 0;
	for (uint32_t vcpu = 0; vcpu < world->vcpus; vcpu++) {
		struct parcel parcel = { .vcpu = (uint16_t)vcpu, .slot = nmi ? SLOT_NMI : vector };

		if (vcpu != one && (!many || rng_chance_64(&world->rng, 30)))
			continue;
		parcel.id = judge_sent(&world->judge, vcpu);
		bag_add(&op->bag, &parcel);
	}
	op_begin(world, op, nmi ? INTERRUPT_NMI : INTERRUPT_FIXED, vector, true);
}

static void op_send_bundle(struct world *world, struct op *op)
{
	if (op->bundle)
		message_send(world, op->bundle);
	op->bundle = NULL;
}

static uint32_t op_end_of_vcpu(const struct op *op)
{
	uint32_t end = op->index;

	while (end < op->bag.count && op->bag.item[end].vcpu == op->bag.item[op->index].vcpu)
		end++;
	return end;
}

/* Nothing is gathered: straight on, one message for neighbours on one node. */
static bool op_bundle(struct world *world, uint16_t node, struct op *op)
{
	uint32_t vcpu = op->bag.item[op->index].vcpu, end = op_end_of_vcpu(op);
	struct vcpu_place place = vcpu_place_read(&world->node[node].places, vcpu);

	if (!op->straight || op->seen != PLACE_FORWARD ||
	    (place.state != PLACE_AWAY && place.state != PLACE_SENT) ||
	    lapic_inbox_pending(&seat_of(world, node, vcpu)->inbox) ||
	    world->waits[node * world->nodes + place.node] || is_full(world, node, place.node))
		return false;
	if (op->bundle && op->bundle->dst != place.node)
		op_send_bundle(world, op);
	if (!op->bundle) {
		op->bundle = message_new(MESSAGE_INTERRUPT, node, place.node, vcpu);
		op->bundle->mode = op->mode;
		op->bundle->vector = op->vector;
	}
	for (uint32_t i = op->index; i < end; i++) {
		op->bag.item[i].epoch = place.epoch;
		op->bag.item[i].forwards++;
		bag_add(&op->bundle->bag, &op->bag.item[i]);
	}
	return true;
}

static bool op_next(struct world *world, struct op *op)
{
	op->index = op_end_of_vcpu(op);
	op->stage = OP_LOOK;
	if (op->index < op->bag.count)
		return false;
	op_send_bundle(world, op);
	op->active = false;
	op->bag.count = 0;
	if (world->now_ns - op->begun_ns > world->op_ns)
		world->op_ns = world->now_ns - op->begun_ns;
	return true;
}

static bool op_post(struct world *world, uint16_t node, struct op *op)
{
	uint32_t vcpu = op->bag.item[op->index].vcpu, end = op_end_of_vcpu(op);

	for (uint32_t i = op->index; i < end; i++)
		inbox_note(world, node, &op->bag.item[i]);
	return lapic_inbox_post(&seat_of(world, node, vcpu)->inbox, op->mode, op->vector,
				is_level(op->vector));
}

static void op_act(struct world *world, uint16_t node, struct op *op)
{
	uint32_t vcpu = op->bag.item[op->index].vcpu;

	if (op->seen == PLACE_WAKE)
		seat_kick(world, node, vcpu);
	else if (op->seen == PLACE_FORWARD && world->plan->edge_broken == EDGE_BROKEN_STEAL)
		forward_to(world, node, vcpu, op->seen_node, false);
	else if (op->seen == PLACE_FORWARD)
		inbox_forward(world, node, vcpu, false);
}

bool op_step(struct world *world, uint16_t node, struct op *op)
{
	uint32_t vcpu = op->bag.item[op->index].vcpu;

	switch (op->stage) {
	case OP_LOOK:
		op->seen = vcpu_place_route(&world->node[node].places, vcpu, &op->seen_node);
		if (op_bundle(world, node, op))
			return op_next(world, op);
		op->stage = OP_POST;
		return false;
	case OP_POST:
		/* Who put the first thing into an empty inbox sees to all that is in it. */
		if (!op_post(world, node, op))
			return op_next(world, op);
		op->stage = world->plan->edge_broken == EDGE_BROKEN_LOOK_FIRST ? OP_ACT : OP_READ;
		return false;
	case OP_READ:
		op->seen = vcpu_place_route(&world->node[node].places, vcpu, &op->seen_node);
		op->stage = OP_ACT;
		return false;
	case OP_ACT:
		op_act(world, node, op);
		break;
	}
	return op_next(world, op);
}
