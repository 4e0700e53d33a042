/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vCPU threads need from outside their node: devices, interrupts, time, and a way to end.
 *
 * Devices are on one node, which has the seat PC. There, a vCPU goes straight to them; elsewhere its
 * access becomes an IO_REQUEST and the thread sleeps until the IO_REPLY, which the control thread
 * puts into the vCPU's slot: a vCPU has one access under way at most, so the slots are as many as the
 * vCPUs and nothing queues.
 *
 * A write to a virtio device's doorbell waits for nobody (queues.c).
 *
 * Interrupts are routed where they arise, by the table of places (core/vcpu_place.h). There is an
 * inbox for every vCPU: here it is the seat's own. For a vCPU that is elsewhere it is where
 * interrupts wait that cannot be named in a message at once: because the vCPU has just left, or is
 * about to come, or because its node does not take them as fast as they come. The same interrupt
 * twice is one then, as in an APIC. They leave when the channel is empty again, so a guest's flood
 * fills no queue.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/capabilities.h"
#include "node/confine.h"
#include "node/cores.h"
#include "node/deadline.h"
#include "node/node_state.h"
#include "node/placer.h"

struct io_slot {
	pthread_mutex_t lock; /* guards all */
	pthread_cond_t done;
	uint64_t id; /* of the request waited for; 0: none */
	bool answered;
	uint16_t bytes;
	uint8_t data[CONTROL_IO_BYTES_MAX];
};

/* Beyond so much unsent, interrupts are gathered. */
#define BACKLOG_BYTES 65536u

struct guest_io {
	struct node *node;
	struct lapic_inbox waiting[VCPUS_MAX]; /* by number: of vCPUs without a seat here */
	atomic_bool node_waits[NODES_MAX];     /* some of its inboxes are not empty */
	pthread_mutex_t flush_lock;	       /* one thread empties them at a time */
	atomic_uint_fast64_t next_id;
	struct io_slot slot[VCPUS_MAX]; /* by number */
};

int guest_io_create(struct node *node)
{
	struct guest_io *io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->node = node;
	atomic_init(&io->next_id, 1);
	pthread_mutex_init(&io->flush_lock, NULL);
	for (uint32_t i = 0; i < node->config->vcpu_count; i++) {
		pthread_mutex_init(&io->slot[i].lock, NULL);
		pthread_cond_init(&io->slot[i].done, NULL);
	}
	node->io = io;
	return 0;
}

static int started(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	int r = cores_bind(node_own(node)->cores, node->self);
	if (!r)
		r = pager_bind_actor(node->pager, node_actor(node, vcpu), gettid());
	capabilities_keep(0);
	if (!r)
		r = confine_thread(node->confine);
	if (!r)
		torture_call();
	return r;
}

static void idle(void *ctx, uint32_t vcpu, bool sleeping)
{
	struct node *node = ctx;
	pager_actor_idle(node->pager, node_actor(node, vcpu), sleeping);
	placer_slept(node->placer, vcpu, sleeping);
}

static void ticks(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	placer_awake(node->placer, vcpu);
}

static uint64_t now_ns(void *ctx)
{
	return node_now_ns(ctx);
}

static uint64_t stalled_ns(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	return pager_vcpu_stalled_ns(node->pager, node_actor(node, vcpu));
}

static void tsc(void *ctx, struct tsc_line *ret_tsc)
{
	struct node *node = ctx;
	node_clock_tsc(node->clock, ret_tsc);
}

int guest_io_ask(struct node *node, uint32_t vcpu, enum control_io_kind kind,
		 const struct pc_access *access)
{
	struct io_slot *slot = &node->io->slot[vcpu];
	struct control_message msg = { .type = CONTROL_IO_REQUEST };
	struct control_io_request *request = &msg.io_request;
	size_t bytes = (size_t)access->size * access->count;

	*request = (struct control_io_request){
		.id = atomic_fetch_add(&node->io->next_id, 1),
		.address = access->address,
		.vcpu = (uint16_t)vcpu,
		.kind = (uint8_t)kind,
		.size = access->size,
		.write = access->write,
		.count = (uint16_t)access->count,
	};
	if (access->write)
		memcpy(request->data, access->data, bytes);

	pthread_mutex_lock(&slot->lock);
	slot->id = request->id;
	slot->answered = false;
	pthread_mutex_unlock(&slot->lock);
	node_send_seat(node, SEAT_PC, &msg);

	pthread_mutex_lock(&slot->lock);
	while (!slot->answered && !node_has_ended(node)) {
		/* The pod's end does not signal the slot. */
		struct timespec until = deadline_after_ms(1000);
		deadline_wait(&slot->done, &slot->lock, &until);
	}
	bool answered = slot->answered;
	if (answered && !access->write)
		memcpy(access->data, slot->data, bytes < slot->bytes ? bytes : slot->bytes);
	slot->id = 0;
	pthread_mutex_unlock(&slot->lock);
	return answered ? 0 : -ESHUTDOWN;
}

/* String accesses are cut to what one message carries. */
static int remote_accesses(struct node *node, uint32_t vcpu, bool mmio,
			   const struct pc_access *access)
{
	struct pc_access piece = *access;
	for (uint32_t done = 0; done < access->count; done += piece.count) {
		piece.count = access->count - done;
		if (piece.count > CONTROL_IO_ITEMS_MAX)
			piece.count = CONTROL_IO_ITEMS_MAX;
		piece.data = access->data + (size_t)done * access->size;
		int r = guest_io_ask(node, vcpu, mmio ? CONTROL_IO_MMIO : CONTROL_IO_PORT, &piece);
		if (r < 0)
			return r;
	}
	return 0;
}

static int device_access(struct node *node, uint32_t vcpu, bool mmio,
			 const struct pc_access *access)
{
	if (!node->devices)
		return remote_accesses(node, vcpu, mmio, access);
	devices_access(node->devices, vcpu, mmio, access);
	return node_has_ended(node) ? -ESHUTDOWN : 0;
}

static int io(void *ctx, uint32_t vcpu, const struct pc_access *access)
{
	return device_access(ctx, vcpu, false, access);
}

static int mmio(void *ctx, uint32_t vcpu, const struct pc_access *access)
{
	if (queues_ring(ctx, access))
		return 0;
	return device_access(ctx, vcpu, true, access);
}

void guest_io_reply(struct node *node, const struct control_message *msg)
{
	const struct control_io_reply *reply = &msg->io_reply;
	struct io_slot *slot = &node->io->slot[reply->vcpu];
	pthread_mutex_lock(&slot->lock);
	if (slot->id == reply->id && !slot->answered) {
		slot->bytes = (uint16_t)(reply->size * reply->count);
		memcpy(slot->data, reply->data, slot->bytes);
		slot->answered = true;
		pthread_cond_signal(&slot->done);
	}
	pthread_mutex_unlock(&slot->lock);
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static struct lapic_inbox *inbox_of(struct node *node, uint32_t vcpu)
{
	struct vcpu *seat = node_vcpu(node, vcpu);
	return seat ? vcpu_inbox(seat) : &node->io->waiting[vcpu];
}

/* What one vCPU's inbox has, to the node where the vCPU is. */
struct forward {
	struct node *node;
	struct control_message *msg;
	uint16_t to;
};

static void send_one(void *ctx, uint8_t mode, uint8_t vector, bool level)
{
	struct forward *f = ctx;
	struct control_interrupt *interrupt = &f->msg->interrupt;
	interrupt->delivery = mode;
	interrupt->vector = vector;
	interrupt->level = level;
	if (mode == INTERRUPT_INIT || mode == INTERRUPT_SIPI)
		startup_forwarded(f->node, interrupt->vcpu[0]);
	node_send(f->node, f->to, f->msg);
}

/* Who sent which is not remembered: any of this node's, a device's, or another node's. */
void guest_io_forward(struct node *node, uint32_t vcpu)
{
	struct lapic_inbox *inbox = inbox_of(node, vcpu);
	struct control_message msg; /* large, and little of it is sent */
	struct forward forward = { .node = node, .msg = &msg };
	if (vcpu_place_route(&node->places, vcpu, &forward.to) != PLACE_FORWARD)
		return;
	msg.type = CONTROL_INTERRUPT;
	msg.interrupt.from_vcpu = NODE_NONE;
	msg.interrupt.vcpu_count = 1;
	msg.interrupt.vcpu[0] = (uint16_t)vcpu;
	lapic_inbox_forward(inbox, send_one, &forward);
	startup_settle(node, vcpu);
}

void guest_io_put(struct node *node, uint32_t vcpu, uint8_t mode, uint8_t vector)
{
	lapic_inbox_post(inbox_of(node, vcpu), mode, vector, false);
}

void guest_io_wake(struct node *node, uint32_t vcpu)
{
	struct vcpu *seat = node_vcpu(node, vcpu);
	if (seat)
		vcpu_wake(seat);
}

static void forward_all(struct node *node, uint16_t to)
{
	for (uint32_t v = 0; v < node->config->vcpu_count; v++) {
		uint16_t at;
		if (!lapic_inbox_pending(inbox_of(node, v)) ||
		    vcpu_place_route(&node->places, v, &at) != PLACE_FORWARD || at != to)
			continue;
		moves_lock(node, v);
		guest_io_forward(node, v);
		moves_unlock(node, v);
	}
}

void guest_io_flush(struct node *node, uint16_t to)
{
	struct guest_io *io = node->io;
	if (!atomic_load(&io->node_waits[to]))
		return;
	pthread_mutex_lock(&io->flush_lock);
	/* As long as it waits, nothing is sent past what is gathered. */
	forward_all(node, to);
	/* Who gathers from here on says so again, and looks again: a flood is not run after. */
	atomic_store(&io->node_waits[to], false);
	forward_all(node, to);
	pthread_mutex_unlock(&io->flush_lock);
}

static bool is_startup(uint8_t mode)
{
	return mode == INTERRUPT_INIT || mode == INTERRUPT_SIPI;
}

static bool is_behind(struct node *node, uint16_t to)
{
	return atomic_load(&node->io->node_waits[to]) || node_backlog(node, to) > BACKLOG_BYTES;
}

/*
 * An interrupt into a vCPU's inbox, and then whoever is to take it out: the order that
 * core/vcpu_place.h asks for. The channel may have been emptied, and the inboxes with it, before it
 * went in: so who puts something in looks again.
 */
static void post(struct node *node, uint32_t vcpu, uint8_t mode, uint8_t vector, bool level)
{
	uint16_t to;
	if (is_startup(mode)) {
		startup_deliver(node, vcpu, mode, vector);
		return;
	}
	bool first = lapic_inbox_post(inbox_of(node, vcpu), mode, vector, level);
	switch (vcpu_place_route(&node->places, vcpu, &to)) {
	case PLACE_WAKE:
		if (first)
			guest_io_wake(node, vcpu);
		break;
	case PLACE_LEAVE_IT:
		break;
	case PLACE_FORWARD:
		if (is_behind(node, to)) {
			atomic_store(&node->io->node_waits[to], true);
			if (node_backlog(node, to) == 0)
				guest_io_flush(node, to);
		} else {
			moves_lock(node, vcpu);
			guest_io_forward(node, vcpu);
			moves_unlock(node, vcpu);
		}
		break;
	}
}

/* One message to a node that has all these vCPUs; sent when the next is for another. */
struct batch {
	struct node *node;
	struct control_message msg;
	uint16_t to;
};

static void batch_send(struct batch *batch)
{
	if (batch->msg.interrupt.vcpu_count)
		node_send(batch->node, batch->to, &batch->msg);
	batch->msg.interrupt.vcpu_count = 0;
}

static void batch_add(struct batch *batch, uint32_t vcpu, uint16_t to)
{
	struct control_interrupt *interrupt = &batch->msg.interrupt;
	if (to != batch->to || interrupt->vcpu_count == CONTROL_VCPUS_MAX)
		batch_send(batch);
	batch->to = to;
	interrupt->vcpu[interrupt->vcpu_count++] = (uint16_t)vcpu;
}

/* It may be named in a message, as nothing waits that it would overtake. */
static bool goes_at_once(struct node *node, uint32_t vcpu, uint16_t *ret_to)
{
	return vcpu_place_route(&node->places, vcpu, ret_to) == PLACE_FORWARD &&
	       !is_behind(node, *ret_to) && !lapic_inbox_pending(inbox_of(node, vcpu));
}

void guest_io_interrupt(struct node *node, const struct interrupt *interrupt)
{
	struct vcpu_set set;
	uint16_t to;
	if (interrupt_route(interrupt, node->config->vcpu_count, &set) < 0)
		return;	    /* the guest wrote nonsense; an APIC would drop it too */
	struct batch batch; /* large, and little of it is sent */
	batch.node = node;
	batch.to = NODE_NONE;
	batch.msg.type = CONTROL_INTERRUPT;
	batch.msg.interrupt.delivery = interrupt->mode;
	batch.msg.interrupt.vector = interrupt->vector;
	batch.msg.interrupt.level = interrupt->level;
	batch.msg.interrupt.from_vcpu = interrupt->source == INTERRUPT_SOURCE_DEVICE
						? NODE_NONE
						: (uint16_t)interrupt->source;
	batch.msg.interrupt.vcpu_count = 0;
	if (is_startup(interrupt->mode)) {
		for (uint32_t v = vcpu_set_next(&set, 0); v < VCPUS_MAX;
		     v = vcpu_set_next(&set, v + 1))
			startup_interrupt(node, interrupt->source, v, interrupt->mode,
					  interrupt->vector);
		return;
	}
	/* Where a vCPU is must not become old before the message has left. */
	uint32_t held = members_hold(node->members);
	for (uint32_t v = vcpu_set_next(&set, 0); v < VCPUS_MAX; v = vcpu_set_next(&set, v + 1)) {
		if (goes_at_once(node, v, &to))
			batch_add(&batch, v, to);
		else
			post(node, v, interrupt->mode, interrupt->vector, interrupt->level);
	}
	batch_send(&batch);
	members_let_go(node->members, held);
}

void guest_io_deliver(struct node *node, const struct control_message *msg)
{
	const struct control_interrupt *interrupt = &msg->interrupt;
	for (uint32_t i = 0; i < interrupt->vcpu_count; i++)
		post(node, interrupt->vcpu[i], interrupt->delivery, interrupt->vector,
		     interrupt->level);
}

static void send_interrupt(void *ctx, const struct interrupt *interrupt)
{
	guest_io_interrupt(ctx, interrupt);
}

static void eoi(void *ctx, uint32_t vcpu, uint8_t vector)
{
	struct node *node = ctx;
	if (node->devices) {
		devices_eoi(node->devices, vector);
		return;
	}
	struct control_message msg = { .type = CONTROL_EOI };
	msg.eoi = (struct control_eoi){ .vcpu = (uint16_t)vcpu, .vector = vector };
	node_send_seat(node, SEAT_PC, &msg);
}

static void ended(void *ctx, uint32_t vcpu, const struct vcpu_end *why)
{
	struct node *node = ctx;
	const char *name = members_name(node->members, node->self);
	struct control_end end = {
		.node = node->self, .vcpu = (uint16_t)vcpu, .rip = why->rip, .status = 1
	};
	switch (why->kind) {
	case VCPU_END_STOPPED:
		return;
	case VCPU_END_SHUTDOWN:
		end.kind = CONTROL_END_TRIPLE_FAULT;
		snprintf(end.text, sizeof(end.text),
			 "the guest made a triple fault: vCPU %u at rip 0x%llx on node %u (%s)",
			 vcpu, (unsigned long long)why->rip, node->self, name);
		node_guest_reset(node, &end);
		return;
	case VCPU_END_INIT:
		end.kind = CONTROL_END_RESET;
		snprintf(end.text, sizeof(end.text),
			 "the guest reset itself by an INIT of vCPU %u (rip 0x%llx, node %u (%s))",
			 vcpu, (unsigned long long)why->rip, node->self, name);
		node_guest_reset(node, &end);
		return;
	case VCPU_END_FAILED:
		end.kind = CONTROL_END_ENGINE;
		snprintf(end.text, sizeof(end.text),
			 "vCPU %u cannot go on on node %u (%s): %s (0x%llx), rip 0x%llx", vcpu,
			 node->self, name, why->reason ? why->reason : "engine error",
			 (unsigned long long)why->detail, (unsigned long long)why->rip);
		break;
	}
	node_end(node, &end, true);
}

static bool wants_program(void *ctx)
{
	const struct node *node = ctx;
	return node->placer && placer_is_wanted(node->placer);
}

const struct vcpu_ops guest_io_ops = {
	.started = started,
	.idle = idle,
	.ticks = ticks,
	.now_ns = now_ns,
	.wants_program = wants_program,
	.stalled_ns = stalled_ns,
	.tsc = tsc,
	.io = io,
	.mmio = mmio,
	.send_interrupt = send_interrupt,
	.eoi = eoi,
	.leave = moves_leave,
	.left = moves_left,
	.arrived = moves_arrived,
	.look = coming_look,
	.refused = moves_refused,
	.ended = ended,
};
