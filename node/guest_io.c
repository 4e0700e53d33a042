/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vCPU threads need from outside their node: devices, interrupts, time, and a way to end.
 *
 * Devices are on node 0. There, a vCPU goes straight to them; elsewhere its access becomes an
 * IO_REQUEST and the thread sleeps until the IO_REPLY, which the control thread puts into the
 * vCPU's slot: a vCPU has one access under way at most, so the slots are as many as the vCPUs and
 * nothing queues.
 *
 * Interrupts are routed where they arise; each vCPU reached is posted to here, or named in a
 * message to its node. A node that does not take them as fast as they come has them gathered here,
 * in an inbox for each of its vCPUs, as its own APIC would: the same interrupt twice is one. They
 * leave when the channel is empty again, so a guest's flood fills no queue.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/deadline.h"
#include "node/node_state.h"

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
	struct lapic_inbox waiting[VCPUS_MAX]; /* by number: for other nodes' vCPUs */
	atomic_bool node_waits[NODES_MAX];     /* some of its inboxes are not empty */
	pthread_mutex_t flush_lock;	       /* one thread empties them at a time */
	atomic_uint_fast64_t next_id;
	struct io_slot slot[VCPUS_MAX]; /* by local index */
};

int guest_io_create(struct node *node)
{
	struct guest_io *io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->node = node;
	atomic_init(&io->next_id, 1);
	pthread_mutex_init(&io->flush_lock, NULL);
	for (uint32_t i = 0; i < node_vcpu_count(node); i++) {
		pthread_mutex_init(&io->slot[i].lock, NULL);
		pthread_cond_init(&io->slot[i].done, NULL);
	}
	node->io = io;
	return 0;
}

static int started(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	return pager_bind_actor(node->pager, vcpu - node->config->node[node->self].vcpu_first,
				gettid());
}

static void idle(void *ctx, uint32_t vcpu, bool sleeping)
{
	struct node *node = ctx;
	pager_actor_idle(node->pager, vcpu - node->config->node[node->self].vcpu_first, sleeping);
}

static uint64_t now_ns(void *ctx)
{
	return node_now_ns(ctx);
}

static uint64_t stalled_ns(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	return pager_vcpu_stalled_ns(node->pager, vcpu - node->config->node[node->self].vcpu_first);
}

static void tsc(void *ctx, struct tsc_line *ret_tsc)
{
	struct node *node = ctx;
	node_clock_tsc(node->clock, ret_tsc);
}

/* One request and its answer. 0, or -ESHUTDOWN: the pod ends. */
static int remote_access(struct node *node, uint32_t vcpu, bool mmio,
			 const struct pc_access *access)
{
	struct io_slot *slot = &node->io->slot[vcpu - node->config->node[node->self].vcpu_first];
	struct control_message msg = { .type = CONTROL_IO_REQUEST };
	struct control_io_request *request = &msg.io_request;
	size_t bytes = (size_t)access->size * access->count;

	*request = (struct control_io_request){
		.id = atomic_fetch_add(&node->io->next_id, 1),
		.address = access->address,
		.vcpu = (uint16_t)vcpu,
		.kind = mmio ? CONTROL_IO_MMIO : CONTROL_IO_PORT,
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
	node_send(node, 0, &msg);

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
		int r = remote_access(node, vcpu, mmio, &piece);
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
	return device_access(ctx, vcpu, true, access);
}

void guest_io_reply(struct node *node, const struct control_message *msg)
{
	const struct control_io_reply *reply = &msg->io_reply;
	uint32_t index = reply->vcpu - node->config->node[node->self].vcpu_first;
	if (index >= node_vcpu_count(node))
		return;
	struct io_slot *slot = &node->io->slot[index];
	pthread_mutex_lock(&slot->lock);
	if (slot->id == reply->id && !slot->answered) {
		slot->bytes = (uint16_t)(reply->size * reply->count);
		memcpy(slot->data, reply->data, slot->bytes);
		slot->answered = true;
		pthread_cond_signal(&slot->done);
	}
	pthread_mutex_unlock(&slot->lock);
}

/* Interrupts of this node's for one vCPU elsewhere. */
struct forward {
	struct node *node;
	struct control_message *msg;
};

static void send_one(void *ctx, uint8_t mode, uint8_t vector, bool level)
{
	struct forward *f = ctx;
	struct control_interrupt *interrupt = &f->msg->interrupt;
	interrupt->delivery = mode;
	interrupt->vector = vector;
	interrupt->level = level;
	node_send(f->node, pod_config_vcpu_node(f->node->config, interrupt->vcpu[0]), f->msg);
}

static void forward_all(struct forward *f, const struct node_config *peer)
{
	for (uint32_t v = peer->vcpu_first; v < peer->vcpu_first + peer->vcpu_count; v++) {
		f->msg->interrupt.vcpu[0] = (uint16_t)v;
		lapic_inbox_forward(&f->node->io->waiting[v], send_one, f);
	}
}

static bool any_waits(const struct guest_io *io, const struct node_config *peer)
{
	for (uint32_t v = peer->vcpu_first; v < peer->vcpu_first + peer->vcpu_count; v++)
		if (lapic_inbox_pending(&io->waiting[v]))
			return true;
	return false;
}

/* Who sent which is not remembered: any of this node's, or its devices. */
void guest_io_flush(struct node *node, uint16_t to)
{
	const struct node_config *peer = &node->config->node[to];
	struct guest_io *io = node->io;
	struct control_message msg; /* large, and little of it is sent */
	struct forward forward = { node, &msg };
	if (!atomic_load(&io->node_waits[to]))
		return;
	msg.type = CONTROL_INTERRUPT;
	msg.interrupt.from_vcpu =
		node->self == 0 ? NODE_NONE : (uint16_t)node->config->node[node->self].vcpu_first;
	msg.interrupt.vcpu_count = 1;
	pthread_mutex_lock(&io->flush_lock);
	/* As long as it waits, nothing is sent past what is gathered: an INIT before its SIPI. */
	do {
		forward_all(&forward, peer);
		atomic_store(&io->node_waits[to], false);
	} while (any_waits(io, peer));
	pthread_mutex_unlock(&io->flush_lock);
}

/*
 * The channel may have been emptied, and the inboxes with it, before these went in: so who puts
 * something in looks again.
 */
static void gather(struct node *node, uint16_t to, const struct control_message *msg)
{
	struct guest_io *io = node->io;
	const struct control_interrupt *interrupt = &msg->interrupt;
	for (uint32_t i = 0; i < interrupt->vcpu_count; i++)
		lapic_inbox_post(&io->waiting[interrupt->vcpu[i]], interrupt->delivery,
				 interrupt->vector, interrupt->level);
	atomic_store(&io->node_waits[to], true);
	if (control_backlog(mesh_control(node->mesh, to)) == 0)
		guest_io_flush(node, to);
}

static void send_to(struct node *node, uint16_t to, struct control_message *msg)
{
	if (!msg->interrupt.vcpu_count)
		return;
	if (atomic_load(&node->io->node_waits[to]) ||
	    control_backlog(mesh_control(node->mesh, to)) > BACKLOG_BYTES)
		gather(node, to, msg);
	else
		node_send(node, to, msg);
	msg->interrupt.vcpu_count = 0;
}

void guest_io_interrupt(struct node *node, const struct interrupt *interrupt)
{
	struct vcpu_set set;
	if (interrupt_route(interrupt, node->config->vcpu_count, &set) < 0)
		return;		    /* the guest wrote nonsense; an APIC would drop it too */
	struct control_message msg; /* large, and little of it is sent */
	msg.type = CONTROL_INTERRUPT;
	msg.interrupt.delivery = interrupt->mode;
	msg.interrupt.vector = interrupt->vector;
	msg.interrupt.level = interrupt->level;
	msg.interrupt.from_vcpu = interrupt->source == INTERRUPT_SOURCE_DEVICE
					  ? NODE_NONE
					  : (uint16_t)interrupt->source;
	msg.interrupt.vcpu_count = 0;
	/* vCPUs of a node have neighbouring numbers: one message a node, unless it names too many.
	 */
	uint16_t to = NODE_NONE;
	for (uint32_t v = vcpu_set_next(&set, 0); v < VCPUS_MAX; v = vcpu_set_next(&set, v + 1)) {
		uint16_t at = pod_config_vcpu_node(node->config, v);
		if (at == node->self) {
			vcpu_post(node_vcpu(node, v), interrupt->mode, interrupt->vector,
				  interrupt->level);
			continue;
		}
		if (at != to || msg.interrupt.vcpu_count == CONTROL_VCPUS_MAX) {
			if (to != NODE_NONE)
				send_to(node, to, &msg);
			to = at;
		}
		msg.interrupt.vcpu[msg.interrupt.vcpu_count++] = (uint16_t)v;
	}
	if (to != NODE_NONE)
		send_to(node, to, &msg);
}

void guest_io_deliver(struct node *node, const struct control_message *msg)
{
	const struct control_interrupt *interrupt = &msg->interrupt;
	for (uint32_t i = 0; i < interrupt->vcpu_count; i++) {
		struct vcpu *vcpu = node_vcpu(node, interrupt->vcpu[i]);
		if (vcpu)
			vcpu_post(vcpu, interrupt->delivery, interrupt->vector, interrupt->level);
	}
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
	node_send(node, 0, &msg);
}

static void ended(void *ctx, uint32_t vcpu, const struct vcpu_end *why)
{
	struct node *node = ctx;
	const char *name = node->config->node[node->self].name;
	struct control_end end = {
		.node = node->self, .vcpu = (uint16_t)vcpu, .rip = why->rip, .status = 1
	};
	switch (why->kind) {
	case VCPU_END_STOPPED:
		return;
	case VCPU_END_SHUTDOWN:
		end.kind = CONTROL_END_TRIPLE_FAULT;
		snprintf(end.text, sizeof(end.text),
			 "the guest ended by a triple fault: vCPU %u at rip 0x%llx on node %u (%s)",
			 vcpu, (unsigned long long)why->rip, node->self, name);
		break;
	case VCPU_END_INIT:
		end.kind = CONTROL_END_RESET;
		snprintf(
			end.text, sizeof(end.text),
			"the guest reset itself (INIT of vCPU %u, rip 0x%llx, node %u (%s)); a pod does not "
			"restart a guest",
			vcpu, (unsigned long long)why->rip, node->self, name);
		break;
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

const struct vcpu_ops guest_io_ops = {
	.started = started,
	.idle = idle,
	.now_ns = now_ns,
	.stalled_ns = stalled_ns,
	.tsc = tsc,
	.io = io,
	.mmio = mmio,
	.send_interrupt = send_interrupt,
	.eoi = eoi,
	.ended = ended,
};
