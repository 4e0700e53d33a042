/* SPDX-License-Identifier: Apache-2.0 */
/* The front half of virtio-balloon against a model driver, whatever memory is missing. */
#include "tests/test.h"

#include <string.h>

#include "tests/virtio/model.h"
#include "virtio/balloon.h"

#define MEMORY_BYTES (1u << 20)
#define RING_AT(q)   (MODEL_BASE + (q)*MODEL_RING_BYTES)
#define DATA_AT	     0x80000u
#define TABLE_AT     0xf0000u
#define QUEUES	     5u

enum { INFLATE = 0, DEFLATE = 1, STATS = 2, REPORTING = 4 };

struct rig {
	struct model_memory memory;
	struct model_host host;
	struct model_ring ring[QUEUES];
	struct virtio_front *front;
	struct virtio_offer offer;
	struct virtio_published published;
	/* What was freed, and not yet said to be over. */
	uint32_t frees, span_count, refuse;
	bool under_way;
	struct dma_span span[VIRTIO_BALLOON_SPANS];
};

static int free_spans(void *ctx, const struct dma_span *span, uint32_t count)
{
	struct rig *rig = ctx;

	assert_false(rig->under_way);
	assert_true(count > 0 && count <= VIRTIO_BALLOON_SPANS);
	if (rig->refuse) {
		rig->refuse--;
		return -1;
	}
	memcpy(rig->span, span, count * sizeof(*span));
	rig->span_count = count;
	rig->frees++;
	rig->under_way = true;
	return 0;
}

static void free_ends(struct rig *rig)
{
	assert_true(rig->under_way);
	rig->under_way = false;
	virtio_balloon_freed(rig->front);
}

static void new_generation(struct rig *rig)
{
	rig->published.generation++;
	rig->published.running = false;
	virtio_front_publish(rig->front, &rig->published);
}

static void driver_starts(struct rig *rig)
{
	rig->published.features = rig->offer.features;
	rig->published.queue_count = rig->offer.queue_count;
	for (uint32_t q = 0; q < QUEUES; q++) {
		memset(model_at(&rig->memory, RING_AT(q)), 0, MODEL_RING_BYTES);
		model_ring_init(&rig->ring[q], &rig->memory, RING_AT(q), 64);
		rig->published.queue[q] = model_ring_published(&rig->ring[q]);
	}
	rig->published.running = true;
	virtio_front_publish(rig->front, &rig->published);
}

static void rig_create(struct rig *rig)
{
	struct virtio_balloon_config config = { .free = free_spans, .ctx = rig };
	struct virtio_host host;

	memset(rig, 0, sizeof(*rig));
	model_memory_create(&rig->memory, MEMORY_BYTES);
	rig->host.memory = &rig->memory;
	host = model_host_of(&rig->host);
	virtio_balloon_offer(&rig->offer);
	assert_int_equal(virtio_offer_check(&rig->offer), 0);
	assert_int_equal(virtio_balloon_create(&config, &host, &rig->front), 0);
	new_generation(rig);
	driver_starts(rig);
}

static void rig_destroy(struct rig *rig)
{
	assert_int_equal(rig->memory.pins, 0);
	virtio_front_destroy(rig->front);
	model_memory_destroy(&rig->memory);
}

static void settle(struct rig *rig)
{
	do {
		rig->memory.asked = false;
		for (uint16_t q = 0; q < QUEUES; q++)
			virtio_front_work(rig->front, q);
	} while (rig->memory.asked);
}

/* The blocks are freed, all together, and the chain is used after that. */
static void reported(void **state)
{
	const uint16_t q = REPORTING;

	for (uint64_t fail_at = 0; fail_at < 40; fail_at++) {
		struct model_buffer block[32];
		struct rig rig;
		uint32_t head, written;

		rig_create(&rig);
		for (uint32_t i = 0; i < 32; i++)
			block[i] = (struct model_buffer){ DATA_AT + i * 8192, 4096 + i, true };
		rig.memory.calls = 0;
		rig.memory.fail_at = fail_at;
		model_ring_add(&rig.ring[q], block, 32, fail_at % 3 ? TABLE_AT : 0);
		settle(&rig);
		assert_int_equal(rig.frees, 1);
		assert_int_equal(rig.span_count, 32);
		for (uint32_t i = 0; i < 32; i++) {
			assert_int_equal(rig.span[i].gpa, DATA_AT + i * 8192);
			assert_int_equal(rig.span[i].length, 4096 + i);
		}
		assert_false(model_ring_used(&rig.ring[q], &head, &written));
		free_ends(&rig);
		settle(&rig);
		assert_true(model_ring_used(&rig.ring[q], &head, &written));
		assert_int_equal(written, 0);
		assert_int_equal(rig.host.interrupts[q], 1);
		rig_destroy(&rig);
	}
}

/* Page numbers, some of them neighbours, more than fit at a time; what is taken back needs nothing. */
static void inflated(void **state)
{
	for (uint64_t fail_at = 0; fail_at < 40; fail_at++) {
		struct model_buffer numbers = { DATA_AT, 4 * 100, false };
		uint32_t *number, head, written, pages = 0;
		struct rig rig;

		rig_create(&rig);
		number = model_at(&rig.memory, DATA_AT);
		for (uint32_t i = 0; i < 100; i++)
			number[i] = i < 20 ? 100 + i : i < 40 ? 400 - i : 1000 + 2 * i;
		rig.memory.calls = 0;
		rig.memory.fail_at = fail_at;
		model_ring_add(&rig.ring[INFLATE], &numbers, 1, 0);
		model_ring_add(&rig.ring[DEFLATE], &numbers, 1, 0);
		settle(&rig);
		assert_true(model_ring_used(&rig.ring[DEFLATE], &head, &written));
		assert_int_equal(rig.span[0].gpa, 100u << 12);
		assert_int_equal(rig.span[0].length, 20u << 12);
		assert_int_equal(rig.span[1].gpa, (400u - 39) << 12);
		assert_int_equal(rig.span[1].length, 20u << 12);
		while (rig.under_way) {
			assert_false(model_ring_used(&rig.ring[INFLATE], &head, &written));
			for (uint32_t i = 0; i < rig.span_count; i++)
				pages += rig.span[i].length >> 12;
			free_ends(&rig);
			settle(&rig);
		}
		assert_int_equal(rig.frees, 2);
		assert_int_equal(pages, 100);
		assert_true(model_ring_used(&rig.ring[INFLATE], &head, &written));
		rig_destroy(&rig);
	}
}

/* One at a time, whichever queue it is of; what cannot be done is done for the driver. */
static void one_at_a_time(void **state)
{
	struct model_buffer block = { DATA_AT, 8192, true }, number = { DATA_AT, 4, false };
	struct rig rig;
	uint32_t head, written;

	rig_create(&rig);
	model_ring_add(&rig.ring[REPORTING], &block, 1, 0);
	model_ring_add(&rig.ring[REPORTING], &block, 1, 0);
	model_ring_add(&rig.ring[INFLATE], &number, 1, 0);
	model_ring_add(&rig.ring[STATS], &number, 1, 0); /* kept, and not looked at */
	settle(&rig);
	assert_int_equal(rig.frees, 1);
	free_ends(&rig);
	assert_int_equal(rig.frees, 2);
	free_ends(&rig);
	assert_int_equal(rig.frees, 3);
	free_ends(&rig);
	rig.refuse = 1;
	model_ring_add(&rig.ring[REPORTING], &block, 1, 0);
	settle(&rig);
	assert_int_equal(rig.frees, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_true(model_ring_used(&rig.ring[REPORTING], &head, &written));
	assert_true(model_ring_used(&rig.ring[INFLATE], &head, &written));
	assert_false(model_ring_used(&rig.ring[STATS], &head, &written));
	assert_int_equal(rig.host.resets, 0);
	rig_destroy(&rig);
}

/* A reset waits for what is under way; what the driver has then is a new ring. */
static void reset_meanwhile(void **state)
{
	struct model_buffer block = { DATA_AT, 8192, true };
	struct rig rig;
	uint32_t head, written, stops;

	rig_create(&rig);
	model_ring_add(&rig.ring[REPORTING], &block, 1, 0);
	settle(&rig);
	stops = rig.host.stops;
	new_generation(&rig);
	assert_int_equal(rig.host.stops, stops);
	free_ends(&rig);
	assert_int_equal(rig.host.stops, stops + 1);
	assert_int_equal(rig.host.stopped, rig.published.generation);
	driver_starts(&rig);
	settle(&rig);
	assert_false(model_ring_used(&rig.ring[REPORTING], &head, &written));
	model_ring_add(&rig.ring[REPORTING], &block, 1, 0);
	settle(&rig);
	free_ends(&rig);
	assert_true(model_ring_used(&rig.ring[REPORTING], &head, &written));
	rig_destroy(&rig);
}

/* It breaks while something is under way: nothing more is touched, and the reset waits all the same. */
static void broken_meanwhile(void **state)
{
	struct model_buffer block = { DATA_AT, 8192, true };
	struct rig rig;
	uint32_t head, written, stops;

	rig_create(&rig);
	model_ring_add(&rig.ring[REPORTING], &block, 1, 0);
	settle(&rig);
	model_ring_avail(&rig.ring[DEFLATE], 999);
	settle(&rig);
	assert_int_equal(rig.host.resets, 1);
	stops = rig.host.stops;
	new_generation(&rig);
	assert_int_equal(rig.host.stops, stops);
	free_ends(&rig);
	assert_int_equal(rig.host.stops, stops + 1);
	assert_false(model_ring_used(&rig.ring[REPORTING], &head, &written));
	driver_starts(&rig);
	model_ring_add(&rig.ring[INFLATE], &block, 1, 0); /* nothing to read in it */
	settle(&rig);
	assert_true(model_ring_used(&rig.ring[INFLATE], &head, &written));
	assert_int_equal(rig.frees, 1);
	rig_destroy(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reported),	    cmocka_unit_test(inflated),
		cmocka_unit_test(one_at_a_time),    cmocka_unit_test(reset_meanwhile),
		cmocka_unit_test(broken_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
