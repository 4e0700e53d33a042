/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts to other nodes' vCPUs, also when they are too many, and accesses to node 0's devices. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/link/support.h"
#include "tests/node/half.h"
#include "tests/test.h"

static struct control_message msg;

static void interrupt(struct half *half, uint8_t mode, uint8_t vector, uint32_t to)
{
	struct interrupt i = { .dest = to,
			       .source = mode == INTERRUPT_FIXED ? INTERRUPT_SOURCE_DEVICE : 0,
			       .mode = mode,
			       .vector = vector };
	guest_io_interrupt(half->node, &i);
}

static void test_routed(void **state)
{
	struct half half;
	half_create(&half, 0);
	assert_int_equal(guest_io_create(half.node), 0);
	interrupt(&half, INTERRUPT_FIXED, 0x41, 2);
	assert_true(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.interrupt.vector, 0x41);
	assert_int_equal(msg.interrupt.from_vcpu, NODE_NONE);
	assert_int_equal(msg.interrupt.vcpu_count, 1);
	assert_int_equal(msg.interrupt.vcpu[0], 2);
}

/*
 * A peer that does not read, and a guest that sends without end: nothing grows, the link stands, and
 * what the peer hears in the end is what its APICs would have known: each vector once, INIT before
 * SIPI.
 */
static void test_flood(void **state)
{
	struct control_channel *channel;
	struct half half;
	bool vectors[256] = { false }, nmi = false, init = false, sipi = false;
	unsigned int heard = 0;

	half_create(&half, 0);
	half_little_room(&half);
	assert_int_equal(guest_io_create(half.node), 0);
	channel = mesh_control(half.node->mesh, 1);
	/* For less than a peer may leave unread what has come, also where each takes long. */
	uint64_t flood_ns = test_now_ns() + 1500000000;
	for (unsigned int i = 0; i < 600000 && test_now_ns() < flood_ns; i++)
		interrupt(&half, INTERRUPT_FIXED, (uint8_t)(32 + i % 200), 1 + i / 7 % 2);
	interrupt(&half, INTERRUPT_NMI, 0, 2);
	interrupt(&half, INTERRUPT_INIT, 0, 2);
	interrupt(&half, INTERRUPT_SIPI, 0x9a, 2);
	interrupt(&half, INTERRUPT_FIXED, 0xfe, 1);
	assert_null(half_end(&half, 0));
	/* None at all if the host's buffers have just grown. */
	assert_in_range(control_backlog(channel), 0, 1 << 17);
	/* The peer reads again. */
	uint64_t end_ns = test_now_ns() + 30000000000;
	while (!vectors[0xfe] || !sipi) {
		if (control_flush(channel) == 0)
			guest_io_flush(half.node, 1);
		if (!half_peer_hear(&half, CONTROL_INTERRUPT, &msg, 1)) {
			if (test_now_ns() > end_ns)
				fail_msg("after %u: vector %d, NMI %d, INIT %d, SIPI %d", heard,
					 vectors[0xfe], nmi, init, sipi);
			continue;
		}
		heard++;
		if (msg.interrupt.delivery == CONTROL_DELIVERY_FIXED)
			vectors[msg.interrupt.vector] = true;
		nmi |= msg.interrupt.delivery == CONTROL_DELIVERY_NMI;
		if (msg.interrupt.delivery == CONTROL_DELIVERY_INIT) {
			struct control_taken taken = { 2 };
			assert_false(init);
			init = true;
			startup_taken(half.node, &taken);
		}
		if (msg.interrupt.delivery == CONTROL_DELIVERY_SIPI) {
			assert_int_equal(msg.interrupt.vector, 0x9a);
			assert_true(init);
			sipi = true;
		}
	}
	assert_true(nmi);
	/* The flood did exceed what the link and the host's buffers take. */
	assert_true(heard < 600000);
	for (unsigned int v = 32; v < 232; v++)
		assert_true(vectors[v]);
	/* And then straight again. */
	interrupt(&half, INTERRUPT_FIXED, 0x55, 1);
	do
		assert_true(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, HALF_PATIENCE_MS));
	while (msg.interrupt.vector != 0x55);
}

/* A guest that sends as fast as the node forwards: as soon as one has left, there is another. */
static struct half *floods;
static const struct control_channel_ops *real_ops;
static unsigned int flood_sends;

static int send_and_post(struct control_channel *channel, const struct control_message *sent)
{
	if (flood_sends++ < 10000)
		guest_io_put(floods->node, 2, INTERRUPT_NMI, 0);
	return real_ops->send(channel, sent);
}

/* Nobody runs after a flood: the control thread would do nothing else, and fill the channel. */
static void test_flush_ends(void **state)
{
	struct half half;
	half_create(&half, 0);
	half_little_room(&half);
	assert_int_equal(guest_io_create(half.node), 0);
	struct control_channel *channel = mesh_control(half.node->mesh, 1);
	struct control_channel_ops ops = *channel->ops;
	unsigned int sent = 0;
	/* What makes the node gather: a peer that does not read. */
	while (control_backlog(channel) <= 65536)
		interrupt(&half, INTERRUPT_FIXED, (uint8_t)(32 + sent++ % 200), 1);
	interrupt(&half, INTERRUPT_NMI, 0, 2);
	floods = &half;
	real_ops = channel->ops;
	ops.send = send_and_post;
	channel->ops = &ops;
	guest_io_flush(half.node, 1);
	channel->ops = real_ops;
	assert_in_range(flood_sends, 1, 300);
}

/* One after the other to a vCPU elsewhere, whoever forwards them; TAKEN lets the next go. */
static void test_startup(void **state)
{
	struct control_taken taken = { 2 };
	struct half half;
	half_create(&half, 0);
	assert_int_equal(guest_io_create(half.node), 0);
	interrupt(&half, INTERRUPT_SIPI, 0x11, 2);
	interrupt(&half, INTERRUPT_INIT, 0, 2);
	interrupt(&half, INTERRUPT_SIPI, 0x12, 2);
	interrupt(&half, INTERRUPT_SIPI, 0x13, 2);
	assert_true(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.interrupt.delivery, CONTROL_DELIVERY_SIPI);
	assert_int_equal(msg.interrupt.vector, 0x11);
	assert_false(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, 50));
	startup_taken(half.node, &taken);
	assert_true(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.interrupt.delivery, CONTROL_DELIVERY_INIT);
	assert_false(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, 50));
	startup_taken(half.node, &taken);
	assert_true(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.interrupt.delivery, CONTROL_DELIVERY_SIPI);
	assert_int_equal(msg.interrupt.vector, 0x13);
	startup_taken(half.node, &taken);
	/* Nothing is out: no blame, as the peer may have got an INIT from a liar; and nothing is upset. */
	startup_taken(half.node, &taken);
	interrupt(&half, INTERRUPT_INIT, 0, 2);
	interrupt(&half, INTERRUPT_SIPI, 0x14, 2);
	assert_true(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.interrupt.delivery, CONTROL_DELIVERY_INIT);
	assert_false(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, 50));
	assert_null(half_end(&half, 0));
}

/* On another node: said when it has come to the vCPU, or forwarded after it, saying nothing. */
static void test_startup_taken(void **state)
{
	struct half half;
	uint16_t to;
	half_create(&half, 1);
	assert_int_equal(guest_io_create(half.node), 0);
	msg = (struct control_message){ .type = CONTROL_INTERRUPT, .src = 0 };
	msg.interrupt = (struct control_interrupt){ .delivery = CONTROL_DELIVERY_INIT,
						    .vcpu_count = 1,
						    .vcpu = { 2 } };
	guest_io_deliver(half.node, &msg);
	assert_true(half_peer_hear(&half, CONTROL_TAKEN, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.taken.vcpu, 2);
	/* It comes while the vCPU leaves, and goes on behind it; node 0 is where it goes. */
	assert_int_equal(vcpu_place_leave(&half.node->places, 1, 0), 0);
	startup_deliver(half.node, 1, INTERRUPT_SIPI, 0x9a);
	vcpu_place_sent(&half.node->places, 1);
	assert_int_equal(vcpu_place_route(&half.node->places, 1, &to), PLACE_FORWARD);
	moves_lock(half.node, 1);
	guest_io_forward(half.node, 1);
	moves_unlock(half.node, 1);
	assert_true(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.interrupt.vector, 0x9a);
	assert_false(half_peer_hear(&half, CONTROL_TAKEN, &msg, 50));
}

struct access {
	struct half *half;
	uint8_t data[4];
	int result;
};

static void *access_main(void *arg)
{
	struct access *a = arg;
	struct pc_access access = { .address = 0x71, .count = 1, .size = 1, .data = a->data };
	a->result = guest_io_ops.io(a->half->node, 2, &access);
	return NULL;
}

/* The access is on its way to node 0: the request is in msg. */
static pthread_t begin_access(struct half *half, struct access *access)
{
	pthread_t thread;
	half_create(half, 1);
	assert_int_equal(guest_io_create(half->node), 0);
	pthread_create(&thread, NULL, access_main, access);
	assert_true(half_peer_hear(half, CONTROL_IO_REQUEST, &msg, HALF_PATIENCE_MS));
	return thread;
}

static void reply(struct half *half, uint64_t id, uint16_t vcpu, uint8_t value)
{
	static struct control_message answer;
	answer = (struct control_message){ .type = CONTROL_IO_REPLY };
	answer.io_reply =
		(struct control_io_reply){ .id = id, .vcpu = vcpu, .size = 1, .count = 1 };
	answer.io_reply.data[0] = value;
	guest_io_reply(half->node, &answer);
}

/* Only the answer to the request that is out counts, and once. */
static void test_access(void **state)
{
	struct half half;
	struct access access = { .half = &half };
	pthread_t thread;
	thread = begin_access(&half, &access);
	assert_int_equal(msg.io_request.vcpu, 2);
	assert_int_equal(msg.io_request.address, 0x71);
	reply(&half, msg.io_request.id + 1, 2, 0x11);
	reply(&half, msg.io_request.id, 1, 0x22);
	reply(&half, msg.io_request.id, 0, 0x33);
	reply(&half, msg.io_request.id, 2, 0x44);
	reply(&half, msg.io_request.id, 2, 0x55);
	pthread_join(thread, NULL);
	assert_int_equal(access.result, 0);
	assert_int_equal(access.data[0], 0x44);
}

/* The pod's end ends the wait. */
static void test_access_ends(void **state)
{
	struct half half;
	struct access access = { .half = &half };
	pthread_t thread;
	thread = begin_access(&half, &access);
	node_end_with(half.node, CONTROL_END_USER, 1, "enough");
	pthread_join(thread, NULL);
	assert_int_equal(access.result, -ESHUTDOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routed),	      cmocka_unit_test(test_startup),
		cmocka_unit_test(test_startup_taken), cmocka_unit_test(test_flood),
		cmocka_unit_test(test_access),	      cmocka_unit_test(test_access_ends),
		cmocka_unit_test(test_flush_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
