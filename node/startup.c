/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INIT and SIPI to vCPUs that move, in the order in which they were sent: the messages and threads
 * around core/vcpu_startup.h, which has the argument.
 *
 *      vCPU's thread     startup_interrupt(): asks the PC's node, as for a device, and waits for it
 *      control thread    PC's node: startup_request(), startup_taken(). All: startup_deliver()
 *      any thread        startup_forwarded(), startup_settle()
 */
#include <errno.h>

#include "node/node_state.h"

/* As the address of an IO_REQUEST: the vCPU, the mode and the vector. */
static uint64_t pack(uint32_t vcpu, uint8_t mode, uint8_t vector)
{
	return vcpu | (uint64_t)mode << CONTROL_STARTUP_MODE |
	       (uint64_t)vector << CONTROL_STARTUP_VECTOR;
}

static void taken(struct node *node, uint32_t vcpu);

/* The lock. */
static void deliver(struct node *node, uint32_t vcpu, uint8_t mode, uint8_t vector)
{
	uint16_t to;
	vcpu_startup_owe(&node->startup_debt[vcpu]);
	guest_io_put(node, vcpu, mode, vector);
	switch (vcpu_place_route(&node->places, vcpu, &to)) {
	case PLACE_WAKE:
		if (vcpu_startup_pay(&node->startup_debt[vcpu]))
			taken(node, vcpu);
		guest_io_wake(node, vcpu);
		break;
	case PLACE_LEAVE_IT:
		break;
	case PLACE_FORWARD:
		guest_io_forward(node, vcpu);
		break;
	}
}

/* The PC's node, the lock. */
static void next(struct node *node, uint32_t vcpu)
{
	struct vcpu_startup_ipi ipi;
	if (vcpu_startup_taken(&node->startup[vcpu], &ipi) == 1)
		deliver(node, vcpu, ipi.mode, ipi.vector);
}

/* What was owed for this vCPU's INIT or SIPI is paid. The lock. */
static void taken(struct node *node, uint32_t vcpu)
{
	struct control_message msg; /* large, and little of it is sent */
	if (members_seat_is_here(node->members, SEAT_PC)) {
		next(node, vcpu);
		return;
	}
	msg.type = CONTROL_TAKEN;
	msg.taken = (struct control_taken){ .vcpu = (uint16_t)vcpu };
	node_send_seat(node, SEAT_PC, &msg);
}

void startup_deliver(struct node *node, uint32_t vcpu, uint8_t mode, uint8_t vector)
{
	moves_lock(node, vcpu);
	deliver(node, vcpu, mode, vector);
	moves_unlock(node, vcpu);
}

void startup_forwarded(struct node *node, uint32_t vcpu)
{
	vcpu_startup_pay(&node->startup_debt[vcpu]);
}

void startup_settle(struct node *node, uint32_t vcpu)
{
	if (vcpu_startup_pay(&node->startup_debt[vcpu]))
		taken(node, vcpu);
}

/* The PC's node. */
static void post(struct node *node, uint32_t vcpu, uint8_t mode, uint8_t vector)
{
	struct vcpu_startup_ipi ipi;
	moves_lock(node, vcpu);
	if (vcpu_startup_post(&node->startup[vcpu], mode, vector, &ipi))
		deliver(node, vcpu, ipi.mode, ipi.vector);
	moves_unlock(node, vcpu);
}

void startup_interrupt(struct node *node, uint32_t source, uint32_t vcpu, uint8_t mode,
		       uint8_t vector)
{
	uint8_t none = 0;
	struct pc_access access = { .address = pack(vcpu, mode, vector),
				    .count = 1,
				    .size = 1,
				    .write = 1,
				    .data = &none };
	if (members_seat_is_here(node->members, SEAT_PC))
		post(node, vcpu, mode, vector);
	else
		guest_io_ask(node, source, CONTROL_IO_STARTUP, &access);
}

const char *startup_request(struct node *node, const struct control_message *msg)
{
	const struct control_io_request *request = &msg->io_request;
	struct control_message reply; /* large, and little of it is sent */
	uint32_t vcpu = request->address & 0xffff;
	if (vcpu >= node->config->vcpu_count)
		return "about a vCPU that does not exist";
	post(node, vcpu, (uint8_t)(request->address >> CONTROL_STARTUP_MODE),
	     (uint8_t)(request->address >> CONTROL_STARTUP_VECTOR));
	reply.type = CONTROL_IO_REPLY;
	reply.io_reply =
		(struct control_io_reply){ .id = request->id, .vcpu = request->vcpu, .size = 1 };
	node_send(node, msg->src, &reply);
	return NULL;
}

/*
 * Of what nobody had sent: ignored. Who says it may be right, and have got an INIT from a third node
 * that lies; or that one has said it first.
 */
void startup_taken(struct node *node, const struct control_taken *taken)
{
	moves_lock(node, taken->vcpu);
	next(node, taken->vcpu);
	moves_unlock(node, taken->vcpu);
}
