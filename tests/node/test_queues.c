/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio devices between nodes: what their registers say, doorbells, and queues that are given away. */
#include <errno.h>
#include <string.h>

#include "core/queue_place.h"
#include "node/stats_json.h"
#include "tests/link/support.h"
#include "tests/node/half.h"
#include "tests/test.h"
#include "virtio/queue.h"

#define DOORBELLS 0x4000003000ull

static struct control_message msg;
static struct virtio_published published;

static void create(struct half *half, uint16_t self)
{
	half_create(half, self);
	assert_int_equal(guest_io_create(half->node), 0);
	assert_int_equal(queues_create(half->node), 0);
}

static bool ring(struct half *half, uint64_t gpa, bool write)
{
	uint8_t data[2] = { 0 };
	struct pc_access access = {
		.address = gpa, .count = 1, .size = 2, .write = write, .data = data
	};
	return queues_ring(half->node, &access);
}

static const char *says(struct half *half, uint8_t type)
{
	msg.type = type;
	msg.src = half->peer_number;
	return queues_message(half->node, &msg);
}

/* Node 0, the peer, has a device whose doorbells are there; 0: it does not run. */
static const char *device_is(struct half *half, uint8_t device, uint16_t count, uint64_t gpa)
{
	msg.published = (struct virtio_published){ .device = device,
						   .generation = 1,
						   .running = gpa != 0,
						   .queue_count = count,
						   .notify_gpa = gpa };
	return says(half, CONTROL_PUBLISHED);
}

static const char *place_is(struct half *half, uint16_t queue, uint64_t generation, uint64_t epoch)
{
	msg.queue_place = (struct control_queue_place){
		.device = 2, .queue = queue, .generation = generation, .epoch = epoch
	};
	return says(half, CONTROL_QUEUE_PLACE);
}

static void expect_doorbell(struct half *half, uint8_t device, uint16_t queue)
{
	assert_true(half_peer_hear(half, CONTROL_DOORBELL, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.doorbell.device, device);
	assert_int_equal(msg.doorbell.queue, queue);
}

/* A doorbell is a message that nobody waits for; all else is an access. */
static void test_doorbells(void **state)
{
	struct half half;
	create(&half, 1);
	assert_false(ring(&half, DOORBELLS, true));
	assert_false(ring(&half, 0, true));
	assert_null(device_is(&half, 3, 4, DOORBELLS));
	/* A node without an io thread has let go at once; it says so once. */
	assert_true(half_peer_hear(&half, CONTROL_STOPPED, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.stopped.device, 3);
	assert_int_equal(msg.stopped.generation, 1);
	assert_null(device_is(&half, 3, 4, DOORBELLS));
	assert_false(half_peer_hear(&half, CONTROL_STOPPED, &msg, 100));
	assert_null(device_is(&half, 5, VIRTIO_QUEUES_MAX, DOORBELLS + PAGE_BYTES));
	assert_true(ring(&half, DOORBELLS, true));
	expect_doorbell(&half, 3, 0);
	assert_true(ring(&half, DOORBELLS + 12, true));
	expect_doorbell(&half, 3, 3);
	assert_true(ring(&half, DOORBELLS + PAGE_BYTES + 4 * 66 + 2, true));
	expect_doorbell(&half, 5, 66);
	assert_false(ring(&half, DOORBELLS + 16, true));
	assert_false(ring(&half, DOORBELLS + PAGE_BYTES + 4 * 67, true));
	assert_false(ring(&half, DOORBELLS - 4, true));
	assert_false(ring(&half, DOORBELLS, false));
	assert_null(device_is(&half, 3, 4, 0));
	assert_false(ring(&half, DOORBELLS, true));
	assert_true(ring(&half, DOORBELLS + PAGE_BYTES, true));
	assert_null(device_is(&half, 5, 1, GPA_LIMIT));
	assert_false(ring(&half, GPA_LIMIT, true));
}

/* Who rings without end gets to wait for answers, before much has gathered. */
static void test_flood(void **state)
{
	struct half half;
	unsigned int rung = 0;
	create(&half, 1);
	half_little_room(&half);
	assert_null(device_is(&half, 0, 1, DOORBELLS));
	while (rung < 10000000 && ring(&half, DOORBELLS, true))
		rung++;
	assert_in_range(rung, 1000, 9999999);
	assert_in_range(control_backlog(mesh_control(half.node->mesh, 0)), 1, 1 << 20);
}

static void publish(struct half *half, uint64_t generation, bool running)
{
	published = (struct virtio_published){ .device = 2,
					       .generation = generation,
					       .running = running,
					       .queue_count = 3,
					       .notify_gpa = DOORBELLS };
	for (uint16_t q = 0; q < 3; q++)
		published.queue[q].size = 16;
	queues_publish(half->node, &published);
}

/* Node 0 says all that changes. */
static void test_published(void **state)
{
	struct half half;
	create(&half, 0);
	publish(&half, 0, false);
	assert_false(ring(&half, DOORBELLS, true));
	publish(&half, 0, true);
	assert_true(ring(&half, DOORBELLS + 8, true));
	assert_false(ring(&half, DOORBELLS + 12, true));
	assert_true(half_peer_hear(&half, CONTROL_PUBLISHED, &msg, HALF_PATIENCE_MS));
	assert_false(msg.published.running);
	assert_true(half_peer_hear(&half, CONTROL_PUBLISHED, &msg, HALF_PATIENCE_MS));
	assert_memory_equal(&msg.published, &published, sizeof(published));
	/* What has not changed is not said again. */
	publish(&half, 0, true);
	assert_false(half_peer_hear(&half, CONTROL_PUBLISHED, &msg, 100));
}

/* A peer that does not read gets the newest, once it does. */
static void test_published_flood(void **state)
{
	struct half half;
	uint64_t last = 0, heard = 0;
	create(&half, 0);
	half_little_room(&half);
	while (control_backlog(mesh_control(half.node->mesh, 1)) < 65536)
		publish(&half, ++last, false);
	for (uint64_t i = 0; i < 1000; i++)
		publish(&half, ++last, false);
	assert_in_range(control_backlog(mesh_control(half.node->mesh, 1)), 1, 1 << 17);
	while (heard < last) {
		(void)control_flush(mesh_control(half.node->mesh, 1));
		if (control_backlog(mesh_control(half.node->mesh, 1)) == 0)
			queues_flush(half.node, 1);
		if (!half_peer_hear(&half, CONTROL_PUBLISHED, &msg, 100))
			continue;
		assert_true(msg.published.generation > heard);
		heard = msg.published.generation;
	}
}

static void stopped(struct half *half, uint64_t generation)
{
	msg.stopped = (struct control_stopped){ .device = 2, .generation = generation };
	assert_null(says(half, CONTROL_STOPPED));
}

static void give(struct half *half, uint16_t queue, uint64_t generation)
{
	struct virtio_queue_state at = { 7, 6, 5 };
	assert_int_equal(queues_leave(half->node, 2, queue, generation, 1), 0);
	assert_int_equal(queues_give(half->node, 2, queue, generation, &at), 0);
	assert_true(half_peer_hear(half, CONTROL_QUEUE, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.queue.device, 2);
	assert_int_equal(msg.queue.queue, queue);
	assert_int_equal(msg.queue.generation, generation);
	assert_int_equal(msg.queue.avail_index, 7);
	assert_int_equal(msg.queue.used_index, 6);
	assert_int_equal(msg.queue.told_index, 5);
}

/* A queue leaves node 0 when all know its generation; its doorbells go after it, and back with a reset. */
static void test_given(void **state)
{
	struct virtio_queue_state at = { 0 };
	struct queues_counts counts;
	struct half half;
	create(&half, 0);
	publish(&half, 1, true);
	queues_stopped(half.node, 2, 1);
	assert_int_equal(queues_leave(half.node, 2, 1, 1, 1), -EAGAIN);
	stopped(&half, 1);
	give(&half, 1, 1);
	assert_int_equal(msg.queue.epoch, 1);
	assert_true(ring(&half, DOORBELLS + 4, true));
	expect_doorbell(&half, 2, 1);
	queues_doorbell(half.node, 2, 1); /* another node's, that came too late */
	expect_doorbell(&half, 2, 1);
	/* The io thread's, that was left for it before the queue had gone. */
	assert_true(queues_send_on(half.node, 2, 1));
	expect_doorbell(&half, 2, 1);
	assert_false(queues_send_on(half.node, 2, 0));
	assert_null(place_is(&half, 1, 1, 1));
	queues_counts(half.node, &counts);
	assert_int_equal(counts.given, 1);
	assert_int_equal(counts.doorbells, 1);
	assert_int_equal(counts.doorbells_sent, 1);
	assert_int_equal(counts.doorbells_sent_on, 2);
	/* One that is leaving when a reset comes does not go. */
	assert_int_equal(queues_leave(half.node, 2, 0, 1, 1), 0);
	assert_false(queues_send_on(half.node, 2, 0));
	publish(&half, 2, false);
	assert_int_equal(queues_give(half.node, 2, 0, 1, &at), -ESTALE);
	assert_int_equal(queues_leave(half.node, 2, 1, 1, 1), -ESTALE);
	assert_int_equal(queues_leave(half.node, 2, 1, 2, 1), -EAGAIN);
	assert_null(place_is(&half, 1, 1, 1)); /* overtaken */
}

/* What no correct node says ends the link. */
static void test_lies(void **state)
{
	struct half half;
	create(&half, 0);
	publish(&half, 1, true);
	assert_non_null(place_is(&half, 1, 1, 1)); /* it is here */
	assert_non_null(place_is(&half, 1, 2, 1));
	msg.queue = (struct control_queue){ .device = 2, .generation = 1, .epoch = 1 };
	assert_non_null(says(&half, CONTROL_QUEUE));
	msg.stopped = (struct control_stopped){ .device = 2, .generation = 2 };
	assert_non_null(says(&half, CONTROL_STOPPED));
	create(&half, 1);
	assert_null(device_is(&half, 2, 3, DOORBELLS));
	msg.published.generation = 0;
	assert_non_null(says(&half, CONTROL_PUBLISHED));
	/* This node has no such device. */
	msg.queue = (struct control_queue){ .device = 2, .generation = 1, .epoch = 1 };
	assert_non_null(says(&half, CONTROL_QUEUE));
	static struct queues *kept;
	kept = half.node->queues;
	half.node->queues = NULL;
	assert_non_null(says(&half, CONTROL_PUBLISHED));
	half.node->queues = kept;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_doorbells), cmocka_unit_test(test_flood),
		cmocka_unit_test(test_published), cmocka_unit_test(test_published_flood),
		cmocka_unit_test(test_given),	  cmocka_unit_test(test_lies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
