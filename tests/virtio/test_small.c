/* SPDX-License-Identifier: Apache-2.0 */
/* The front halves of virtio-rng and virtio-console against a model driver, whatever memory is missing. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "tests/virtio/model.h"
#include "virtio/console.h"
#include "virtio/rng.h"

#define MEMORY_BYTES (1u << 20)
#define RING_AT(q)   (MODEL_BASE + (q)*MODEL_RING_BYTES)
#define DATA_AT	     0x80000u
#define HEARD_MAX    300000u

struct rig {
	struct model_memory memory;
	struct model_host host;
	struct model_ring ring[VIRTIO_CONSOLE_QUEUES];
	struct virtio_front *front;
	struct virtio_offer offer;
	struct virtio_published published;
	uint32_t asked_random;
	uint8_t *heard; /* what the console put out */
	size_t heard_count, heard_room;
	uint32_t rooms;
};

static void driver_starts(struct rig *rig)
{
	rig->published.generation++;
	rig->published.running = false;
	virtio_front_publish(rig->front, &rig->published);
	rig->published.features = rig->offer.features;
	rig->published.queue_count = rig->offer.queue_count;
	for (uint32_t q = 0; q < rig->offer.queue_count; q++) {
		memset(model_at(&rig->memory, RING_AT(q)), 0, MODEL_RING_BYTES);
		model_ring_init(&rig->ring[q], &rig->memory, RING_AT(q), 64);
		rig->published.queue[q] = model_ring_published(&rig->ring[q]);
	}
	rig->published.running = true;
	virtio_front_publish(rig->front, &rig->published);
}

static void count_up(void *ctx, void *to, size_t bytes)
{
	struct rig *rig = ctx;

	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)to)[i] = (uint8_t)++rig->asked_random;
}

static size_t hear(void *ctx, const void *bytes, size_t count)
{
	struct rig *rig = ctx;

	if (count > rig->heard_room)
		count = rig->heard_room;
	memcpy(rig->heard + rig->heard_count, bytes, count);
	rig->heard_count += count;
	rig->heard_room -= count;
	return count;
}

static void room(void *ctx)
{
	((struct rig *)ctx)->rooms++;
}

static void rig_create(struct rig *rig, uint8_t kind)
{
	struct virtio_rng_config rng = { .random = count_up, .ctx = rig };
	struct virtio_console_config console = {
		.name = "streams", .output = hear, .room = room, .ctx = rig
	};
	struct virtio_host host;

	memset(rig, 0, sizeof(*rig));
	model_memory_create(&rig->memory, MEMORY_BYTES);
	rig->host.memory = &rig->memory;
	rig->heard = malloc(HEARD_MAX);
	rig->heard_room = HEARD_MAX;
	host = model_host_of(&rig->host);
	if (kind == VIRTIO_KIND_RNG) {
		virtio_rng_offer(&rig->offer);
		assert_int_equal(virtio_rng_create(&rng, &host, &rig->front), 0);
	} else {
		virtio_console_offer(&rig->offer);
		assert_int_equal(virtio_console_create(&console, &host, &rig->front), 0);
	}
	assert_int_equal(virtio_offer_check(&rig->offer), 0);
	driver_starts(rig);
}

static void rig_destroy(struct rig *rig)
{
	assert_int_equal(rig->memory.pins, 0);
	virtio_front_destroy(rig->front);
	model_memory_destroy(&rig->memory);
	free(rig->heard);
}

static void settle(struct rig *rig)
{
	do {
		rig->memory.asked = false;
		for (uint16_t q = 0; q < rig->offer.queue_count; q++)
			virtio_front_work(rig->front, q);
	} while (rig->memory.asked);
}

static void random_bytes(void **state)
{
	for (uint64_t fail_at = 0; fail_at < 40; fail_at++) {
		struct model_buffer two[2] = { { DATA_AT + 4090, 10, true },
					       { DATA_AT + 9000, 1000, true } };
		struct rig rig;
		uint32_t head, written;
		const uint8_t *at;

		rig_create(&rig, VIRTIO_KIND_RNG);
		rig.memory.calls = 0;
		rig.memory.fail_at = fail_at;
		model_ring_add(&rig.ring[0], two, 1, 0);
		model_ring_add(&rig.ring[0], two, 2, 0x60000);
		settle(&rig);
		assert_true(model_ring_used(&rig.ring[0], &head, &written));
		assert_int_equal(written, 10);
		assert_true(model_ring_used(&rig.ring[0], &head, &written));
		assert_int_equal(written, 256);
		at = model_at(&rig.memory, DATA_AT + 4090);
		for (uint32_t i = 0; i < 10; i++)
			assert_int_equal(at[i], 11 + i);
		at = model_at(&rig.memory, DATA_AT + 9000);
		for (uint32_t i = 0; i < 246; i++)
			assert_int_equal(at[i], (uint8_t)(21 + i));
		assert_true(rig.host.interrupts[0] > 0);
		rig_destroy(&rig);
	}
}

static void write_text(struct rig *rig, uint64_t gpa, uint32_t bytes, uint32_t from)
{
	uint8_t *at = model_at(&rig->memory, gpa);

	for (uint32_t i = 0; i < bytes; i++)
		at[i] = (uint8_t)((from + i) * 5 + (from + i) / 256);
	model_ring_add(&rig->ring[1], &(struct model_buffer){ gpa, bytes, false }, 1, 0);
}

/* All bytes, in order, also where the reader takes few at a time and memory comes late. */
static void the_guest_writes(void **state)
{
	for (uint32_t how = 0; how < 8; how++) {
		struct rig rig;
		uint32_t head, written, total = 0;

		rig_create(&rig, VIRTIO_KIND_CONSOLE);
		rig.memory.fail_every = how & 1 ? 3 : 0;
		rig.heard_room = how & 2 ? 7 : HEARD_MAX;
		for (uint32_t i = 0; i < 20; i++) {
			write_text(&rig, DATA_AT + i * 0x5000 % 0x60000, 1 + i * 997, total);
			total += 1 + i * 997;
			if (how & 4)
				settle(&rig);
			while (rig.heard_count < total) {
				settle(&rig);
				rig.heard_room += 1001;
				virtio_console_ready(rig.front);
			}
			settle(&rig);
			assert_true(model_ring_used(&rig.ring[1], &head, &written));
		}
		assert_int_equal(rig.heard_count, total);
		for (uint32_t i = 0; i < total; i++)
			assert_int_equal(rig.heard[i], (uint8_t)(i * 5 + i / 256));
		rig_destroy(&rig);
	}
}

static void the_guest_reads(void **state)
{
	static uint8_t text[3 * VIRTIO_CONSOLE_INPUT_MAX];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 11 + i / 256);
	for (uint32_t how = 0; how < 2; how++) {
		struct rig rig;
		size_t given = 0, got = 0;

		rig_create(&rig, VIRTIO_KIND_CONSOLE);
		rig.memory.fail_every = how ? 4 : 0;
		/* Nobody reads: it is bounded. */
		given = virtio_console_input(rig.front, text, sizeof(text));
		assert_int_equal(given, VIRTIO_CONSOLE_INPUT_MAX);
		assert_int_equal(virtio_console_input(rig.front, text, 1), 0);
		while (got < sizeof(text)) {
			uint32_t head, written, bytes = 1 + (uint32_t)(got % 5000);

			model_ring_add(&rig.ring[0],
				       &(struct model_buffer){ DATA_AT + 77, bytes, true }, 1, 0);
			settle(&rig);
			given +=
				virtio_console_input(rig.front, text + given, sizeof(text) - given);
			settle(&rig);
			assert_true(model_ring_used(&rig.ring[0], &head, &written));
			assert_true(written >= 1 && written <= bytes);
			assert_memory_equal(model_at(&rig.memory, DATA_AT + 77), text + got,
					    written);
			got += written;
		}
		assert_true(rig.rooms > 0);
		/* A reset loses what waits for nobody. */
		assert_int_equal(virtio_console_input(rig.front, "hello", 5), 5);
		driver_starts(&rig);
		model_ring_add(&rig.ring[0], &(struct model_buffer){ DATA_AT, 100, true }, 1, 0);
		settle(&rig);
		assert_memory_equal(model_at(&rig.memory, DATA_AT), "hello", 5);
		rig_destroy(&rig);
	}
}

#define CONTROL_AT(i) (0x70000u + (i)*64u)

/* What the driver says, and then what the device has said since. */
static void control(struct rig *rig, uint16_t event, uint16_t value)
{
	uint8_t message[8] = { 0, 0, 0, 0, (uint8_t)event, 0, (uint8_t)value, 0 };
	uint32_t head, written;

	memcpy(model_at(&rig->memory, CONTROL_AT(0)), message, sizeof(message));
	model_ring_add(&rig->ring[VIRTIO_CONSOLE_QUEUE_HEAR],
		       &(struct model_buffer){ CONTROL_AT(0), sizeof(message), false }, 1, 0);
	settle(rig);
	assert_true(model_ring_used(&rig->ring[VIRTIO_CONSOLE_QUEUE_HEAR], &head, &written));
}

static void is_told(struct rig *rig, uint32_t place, uint16_t event, const char *name)
{
	const uint8_t *at = model_at(&rig->memory, CONTROL_AT(place));
	uint32_t head, written;

	assert_true(model_ring_used(&rig->ring[VIRTIO_CONSOLE_QUEUE_TELL], &head, &written));
	assert_int_equal(written, 8 + strlen(name));
	assert_int_equal(at[0] | at[1] | at[2] | at[3] | at[5] | at[7], 0);
	assert_int_equal(at[4], event);
	assert_int_equal(at[6], 1);
	assert_memory_equal(at + 8, name, strlen(name));
}

static void is_told_no_more(struct rig *rig)
{
	uint32_t head, written;

	assert_false(model_ring_used(&rig->ring[VIRTIO_CONSOLE_QUEUE_TELL], &head, &written));
}

/* The way of Linux's driver, whatever memory comes late; anything else changes nothing. */
static void the_port_is_agreed_on(void **state)
{
	for (uint64_t fail_at = 0; fail_at < 60; fail_at++) {
		struct rig rig;

		rig_create(&rig, VIRTIO_KIND_CONSOLE);
		assert_int_equal(rig.offer.config[4], 1);
		rig.memory.calls = 0;
		rig.memory.fail_at = fail_at;
		control(&rig, 0, 1); /* there is no buffer for the answer yet */
		control(&rig, 3, 0);
		control(&rig, 77, 1);
		for (uint32_t i = 1; i <= 6; i++)
			model_ring_add(&rig.ring[VIRTIO_CONSOLE_QUEUE_TELL],
				       &(struct model_buffer){ CONTROL_AT(i), 64, true }, 1, 0);
		settle(&rig);
		is_told(&rig, 1, 1, "");
		is_told_no_more(&rig);
		control(&rig, 3, 1);
		is_told(&rig, 2, 6, "");
		is_told(&rig, 3, 7, "streams");
		control(&rig, 6, 1);
		is_told_no_more(&rig);
		/* Again from the beginning. */
		driver_starts(&rig);
		settle(&rig);
		is_told_no_more(&rig);
		rig_destroy(&rig);
	}
}

/* What is longer than can be pinned at once goes out page by page. */
static void few_pages_at_once(void **state)
{
	struct rig rig;
	uint32_t head, written;

	rig_create(&rig, VIRTIO_KIND_CONSOLE);
	rig.memory.pages_max = 1;
	write_text(&rig, DATA_AT + 77, 50000, 0);
	settle(&rig);
	assert_true(model_ring_used(&rig.ring[1], &head, &written));
	assert_int_equal(rig.heard_count, 50000);
	for (uint32_t i = 0; i < 50000; i++)
		assert_int_equal(rig.heard[i], (uint8_t)(i * 5 + i / 256));
	rig_destroy(&rig);
}

static void drivers_that_lie(void **state)
{
	struct rig rig;

	for (uint32_t how = 0; how < 3; how++) {
		rig_create(&rig, how ? VIRTIO_KIND_CONSOLE : VIRTIO_KIND_RNG);
		if (how == 1)
			assert_int_equal(virtio_console_input(rig.front, "x", 1), 1);
		model_ring_add(&rig.ring[how == 2], &(struct model_buffer){ 0x100, 8, how != 2 }, 1,
			       0);
		settle(&rig);
		assert_int_equal(rig.host.resets, 1);
		driver_starts(&rig);
		settle(&rig);
		assert_int_equal(rig.host.resets, 1);
		rig_destroy(&rig);
	}
	/* A message that has no room, and one that is none. */
	rig_create(&rig, VIRTIO_KIND_CONSOLE);
	model_ring_add(&rig.ring[VIRTIO_CONSOLE_QUEUE_HEAR],
		       &(struct model_buffer){ CONTROL_AT(0), 7, false }, 1, 0);
	settle(&rig);
	assert_int_equal(rig.host.resets, 0);
	control(&rig, 0, 1);
	model_ring_add(&rig.ring[VIRTIO_CONSOLE_QUEUE_TELL],
		       &(struct model_buffer){ CONTROL_AT(1), 7, true }, 1, 0);
	settle(&rig);
	assert_int_equal(rig.host.resets, 1);
	rig_destroy(&rig);
	/* A buffer for input that nothing fits in is used, and nothing is lost. */
	rig_create(&rig, VIRTIO_KIND_CONSOLE);
	virtio_console_input(rig.front, "x", 1);
	model_ring_add(&rig.ring[0], &(struct model_buffer){ DATA_AT, 8, false }, 1, 0);
	model_ring_add(&rig.ring[0], &(struct model_buffer){ DATA_AT, 8, true }, 1, 0);
	settle(&rig);
	assert_memory_equal(model_at(&rig.memory, DATA_AT), "x", 1);
	rig_destroy(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_bytes),	     cmocka_unit_test(the_guest_writes),
		cmocka_unit_test(the_guest_reads),   cmocka_unit_test(the_port_is_agreed_on),
		cmocka_unit_test(few_pages_at_once), cmocka_unit_test(drivers_that_lie),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
