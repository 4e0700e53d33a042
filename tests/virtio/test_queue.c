/* SPDX-License-Identifier: Apache-2.0 */
/* Split rings: what a driver does, what a hostile one does, and memory that is not there. */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "tests/virtio/model.h"
#include "virtio/queue.h"

#define MEMORY_BYTES 0x40000u
#define RING_AT	     MODEL_BASE
#define TABLE_AT     0x20000u
#define DATA_AT	     0x30000u
#define SIZE	     8u

#define NEXT	 1u
#define WRITE	 2u
#define INDIRECT 4u

struct rig {
	struct model_memory memory;
	struct model_ring ring;
	struct virtio_queue queue;
	struct virtio_chain chain;
};

static void rig_create(struct rig *rig, uint64_t features)
{
	struct virtio_published_queue published;

	memset(rig, 0, sizeof(*rig));
	model_memory_create(&rig->memory, MEMORY_BYTES);
	model_ring_init(&rig->ring, &rig->memory, RING_AT, SIZE);
	published = model_ring_published(&rig->ring);
	assert_int_equal(
		virtio_queue_start(&rig->queue, &rig->memory.dma, &published, features, 16), 0);
}

static void rig_destroy(struct rig *rig)
{
	assert_int_equal(rig->memory.pins, 0);
	model_memory_destroy(&rig->memory);
}

#define ALL (VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC)

static const struct model_buffer three[] = { { DATA_AT, 16, false },
					     { DATA_AT + 0x1000, 600, false },
					     { DATA_AT + 0x2000, 1, true } };

static void expect_three(struct rig *rig, uint16_t head)
{
	assert_int_equal(virtio_queue_pop(&rig->queue, &rig->chain), 0);
	assert_int_equal(rig->chain.head, head);
	assert_int_equal(rig->chain.count, 3);
	assert_int_equal(rig->chain.readable, 2);
	assert_int_equal(rig->chain.read_bytes, 616);
	assert_int_equal(rig->chain.write_bytes, 1);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(rig->chain.span[i].gpa, three[i].gpa);
		assert_int_equal(rig->chain.span[i].length, three[i].length);
		assert_int_equal(rig->chain.span[i].write, three[i].write);
	}
}

static void chains_come_and_go(void **state)
{
	struct rig rig;
	uint32_t head, written;

	rig_create(&rig, ALL);
	assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), -ENOENT);
	/* Around the ring, and around 16 bits. */
	for (uint32_t i = 0; i < 70000; i++) {
		uint16_t added = model_ring_add(&rig.ring, three, 3, i % 2 ? TABLE_AT : 0);

		expect_three(&rig, added);
		assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), -ENOENT);
		assert_false(model_ring_used(&rig.ring, &head, &written));
		assert_int_equal(virtio_queue_push(&rig.queue, added, i), 0);
		assert_true(model_ring_used(&rig.ring, &head, &written));
		assert_int_equal(head, added);
		assert_int_equal(written, i);
	}
	rig_destroy(&rig);
}

/* Elements that are filled in are the driver's only when they are published, all at once. */
static void many_are_published_at_once(void **state)
{
	struct rig rig;
	uint32_t head, written;

	rig_create(&rig, ALL);
	for (uint16_t i = 0; i < 3; i++) {
		model_ring_add(&rig.ring, three, 1, 0);
		assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), 0);
		assert_int_equal(virtio_queue_fill(&rig.queue, i, rig.chain.head, 100u + i), 0);
	}
	assert_false(model_ring_used(&rig.ring, &head, &written));
	assert_int_equal(virtio_queue_publish(&rig.queue, 3), 0);
	for (uint32_t i = 0; i < 3; i++) {
		assert_true(model_ring_used(&rig.ring, &head, &written));
		assert_int_equal(written, 100 + i);
	}
	rig_destroy(&rig);
}

/* The doorbell is wanted for the next one only when there is nothing left. */
static void the_doorbell_is_asked_for(void **state)
{
	struct rig rig;

	rig_create(&rig, ALL);
	assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), -ENOENT);
	assert_int_equal(model_ring_avail_event(&rig.ring), 0);
	model_ring_add(&rig.ring, three, 1, 0);
	model_ring_add(&rig.ring, three, 1, 0);
	assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), 0);
	assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), 0);
	assert_int_equal(model_ring_avail_event(&rig.ring), 0);
	assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), -ENOENT);
	assert_int_equal(model_ring_avail_event(&rig.ring), 2);
	rig_destroy(&rig);
}

static bool wants_interrupt(struct rig *rig)
{
	bool wanted;

	assert_int_equal(virtio_queue_interrupt(&rig->queue, &wanted), 0);
	return wanted;
}

static void use_one(struct rig *rig)
{
	model_ring_add(&rig->ring, three, 1, 0);
	assert_int_equal(virtio_queue_pop(&rig->queue, &rig->chain), 0);
	assert_int_equal(virtio_queue_push(&rig->queue, rig->chain.head, 0), 0);
}

static void interrupts_as_the_driver_wants(void **state)
{
	struct rig rig;
	uint16_t *flags;

	rig_create(&rig, ALL);
	assert_false(wants_interrupt(&rig));
	use_one(&rig); /* used_event is 0: tell me of the first */
	assert_true(wants_interrupt(&rig));
	assert_false(wants_interrupt(&rig));
	use_one(&rig);
	assert_false(wants_interrupt(&rig));
	model_ring_set_used_event(&rig.ring, 4); /* of the fifth */
	for (int i = 0; i < 2; i++)
		use_one(&rig);
	assert_false(wants_interrupt(&rig));
	for (int i = 0; i < 3; i++)
		use_one(&rig);
	assert_true(wants_interrupt(&rig));
	rig_destroy(&rig);

	rig_create(&rig, 0);
	flags = model_at(&rig.memory, rig.ring.avail);
	use_one(&rig);
	assert_true(wants_interrupt(&rig));
	*flags = 1;
	use_one(&rig);
	assert_false(wants_interrupt(&rig));
	*flags = 0;
	use_one(&rig);
	assert_true(wants_interrupt(&rig));
	rig_destroy(&rig);
}

/* --- hostile --- */

static void expect_broken(struct rig *rig)
{
	bool wanted;

	assert_int_equal(virtio_queue_pop(&rig->queue, &rig->chain), -EPROTO);
	assert_true(rig->queue.broken);
	/* And it stays so. */
	assert_int_equal(virtio_queue_pop(&rig->queue, &rig->chain), -EPROTO);
	assert_int_equal(virtio_queue_push(&rig->queue, 0, 0), -EPROTO);
	assert_int_equal(virtio_queue_interrupt(&rig->queue, &wanted), -EPROTO);
	rig_destroy(rig);
}

static void indices_that_jump(void **state)
{
	struct rig rig;

	rig_create(&rig, ALL);
	rig.ring.avail_index = SIZE; /* one more than there can be */
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	rig.ring.avail_index = 0xfffe; /* backwards */
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	/* As many as there can be are fine. */
	rig_create(&rig, ALL);
	for (uint32_t i = 0; i < SIZE; i++)
		model_ring_add(&rig.ring, three, 1, 0);
	for (uint32_t i = 0; i < SIZE; i++)
		assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), 0);
	rig_destroy(&rig);
	rig_create(&rig, ALL);
	model_ring_avail(&rig.ring, SIZE); /* no such head */
	expect_broken(&rig);
}

static void chains_that_loop(void **state)
{
	struct rig rig;

	rig_create(&rig, ALL);
	model_ring_desc(&rig.ring, 0, DATA_AT, 8, NEXT, 1);
	model_ring_desc(&rig.ring, 1, DATA_AT, 8, NEXT, 0);
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	model_ring_desc(&rig.ring, 0, DATA_AT, 8, NEXT, SIZE); /* no such descriptor */
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
}

static void add_table(struct rig *rig, uint32_t bytes)
{
	model_ring_desc(&rig->ring, 0, TABLE_AT, bytes, INDIRECT, 0);
	model_ring_avail(&rig->ring, 0);
}

static void put_table(struct rig *rig, uint32_t index, uint64_t gpa, uint32_t length,
		      uint16_t flags, uint16_t next)
{
	struct model_ring table = rig->ring;

	table.desc = TABLE_AT;
	model_ring_desc(&table, (uint16_t)index, gpa, length, flags, next);
}

static void tables_that_are_wrong(void **state)
{
	struct rig rig;

	/* A table in a table; one that loops; one whose next is behind its end. */
	rig_create(&rig, ALL);
	put_table(&rig, 0, TABLE_AT, 16, INDIRECT, 0);
	add_table(&rig, 16);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	put_table(&rig, 0, DATA_AT, 8, NEXT, 0);
	add_table(&rig, 16);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	put_table(&rig, 0, DATA_AT, 8, NEXT, 1);
	put_table(&rig, 1, DATA_AT, 8, 0, 0);
	add_table(&rig, 16);
	expect_broken(&rig);
	/* Sizes: none, odd; in no memory; at the end of everything. */
	rig_create(&rig, ALL);
	add_table(&rig, 0);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	put_table(&rig, 0, DATA_AT, 8, 0, 0);
	add_table(&rig, 24);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	model_ring_desc(&rig.ring, 0, MODEL_BASE + MEMORY_BYTES - 8, 16, INDIRECT, 0);
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	model_ring_desc(&rig.ring, 0, UINT64_MAX - 15, 32, INDIRECT, 0);
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	/* With a successor; without having been agreed on. */
	rig_create(&rig, ALL);
	put_table(&rig, 0, DATA_AT, 8, 0, 0);
	model_ring_desc(&rig.ring, 0, TABLE_AT, 16, INDIRECT | NEXT, 1);
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	rig_create(&rig, VIRTIO_F_EVENT_IDX);
	put_table(&rig, 0, DATA_AT, 8, 0, 0);
	add_table(&rig, 16);
	expect_broken(&rig);
	/* Too long for the device; its longest is fine. */
	for (uint32_t count = 16; count <= 17; count++) {
		rig_create(&rig, ALL);
		for (uint32_t i = 0; i < count; i++)
			put_table(&rig, i, DATA_AT, 8, i + 1 < count ? NEXT : 0, (uint16_t)(i + 1));
		add_table(&rig, 16 * count);
		if (count == 17) {
			expect_broken(&rig);
		} else {
			assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), 0);
			assert_int_equal(rig.chain.count, 16);
			rig_destroy(&rig);
		}
	}
	/* Ordinary descriptors may come before it. */
	rig_create(&rig, ALL);
	put_table(&rig, 0, DATA_AT, 8, WRITE, 0);
	model_ring_desc(&rig.ring, 0, DATA_AT, 8, NEXT, 1);
	model_ring_desc(&rig.ring, 1, TABLE_AT, 16, INDIRECT, 0);
	model_ring_avail(&rig.ring, 0);
	assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), 0);
	assert_int_equal(rig.chain.count, 2);
	assert_int_equal(rig.chain.readable, 1);
	rig_destroy(&rig);
}

static void buffers_that_are_wrong(void **state)
{
	struct rig rig;

	rig_create(&rig, ALL);
	model_ring_desc(&rig.ring, 0, DATA_AT, 0, 0, 0); /* no length */
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	model_ring_desc(&rig.ring, 0, UINT64_MAX - 7, 16, 0, 0); /* around the end */
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
	rig_create(&rig, ALL);
	model_ring_desc(&rig.ring, 0, DATA_AT, 8, NEXT | WRITE, 1); /* writable first */
	model_ring_desc(&rig.ring, 1, DATA_AT, 8, 0, 0);
	model_ring_avail(&rig.ring, 0);
	expect_broken(&rig);
}

static void rings_that_are_nowhere(void **state)
{
	struct virtio_published_queue good, bad;
	struct virtio_queue queue;
	struct virtio_chain chain;
	struct rig rig;

	rig_create(&rig, ALL);
	good = model_ring_published(&rig.ring);
	for (uint32_t i = 0; i < 9; i++) {
		bad = good;
		switch (i) {
		case 0:
			bad.desc += 8;
			break;
		case 1:
			bad.avail += 1;
			break;
		case 2:
			bad.used += 2;
			break;
		case 3:
			bad.desc = UINT64_MAX - 31;
			break;
		case 4:
			bad.avail = UINT64_MAX - 15;
			break;
		case 5:
			bad.used = UINT64_MAX - 31;
			break;
		case 6:
			bad.size = 0;
			break;
		case 7:
			bad.size = 6;
			break;
		case 8:
			bad.size = 2 * VIRTIO_QUEUE_SIZE_MAX;
			break;
		}
		assert_int_equal(virtio_queue_start(&queue, &rig.memory.dma, &bad, ALL, 16),
				 -EPROTO);
		assert_int_equal(virtio_queue_pop(&queue, &chain), -EPROTO);
	}
	/* Well formed, and no memory. */
	for (uint32_t i = 0; i < 3; i++) {
		uint64_t *place[] = { &bad.desc, &bad.avail, &bad.used };

		bad = good;
		*place[i] = MODEL_BASE + MEMORY_BYTES + 0x1000;
		model_ring_init(&rig.ring, &rig.memory, RING_AT, SIZE);
		assert_int_equal(virtio_queue_start(&queue, &rig.memory.dma, &bad, ALL, 16), 0);
		if (i == 0)
			model_ring_add(&rig.ring, three, 3, 0);
		assert_int_equal(virtio_queue_pop(&queue, &chain), i == 2 ? 0 : -EPROTO);
		if (i == 2)
			assert_int_equal(virtio_queue_push(&queue, 0, 0), -EPROTO);
	}
	rig_destroy(&rig);
}

/* --- memory that is not there --- */

/* Pops, pushes and tells once; whatever is said to be missing is tried again. */
static void once(struct rig *rig, uint32_t written)
{
	bool wanted;
	int error;

	do {
		rig->memory.asked = false;
		error = virtio_queue_pop(&rig->queue, &rig->chain);
		assert_int_equal(error, rig->memory.asked ? -EAGAIN : 0);
	} while (error < 0);
	assert_int_equal(rig->chain.count, 3);
	assert_int_equal(rig->chain.read_bytes, 616);
	do {
		error = virtio_queue_push(&rig->queue, rig->chain.head, written);
	} while (error == -EAGAIN);
	assert_int_equal(error, 0);
	do {
		error = virtio_queue_interrupt(&rig->queue, &wanted);
	} while (error == -EAGAIN);
	assert_int_equal(error, 0);
	assert_true(wanted);
	do {
		error = virtio_queue_pop(&rig->queue, &rig->chain);
	} while (error == -EAGAIN);
	assert_int_equal(error, -ENOENT);
}

static void every_access_may_fail(void **state)
{
	uint8_t *good = NULL;

	for (uint64_t fail_at = 0; fail_at < 62; fail_at++) {
		struct rig rig;

		rig_create(&rig, ALL);
		rig.memory.fail_at = fail_at;
		for (uint32_t i = 0; i < 3; i++) {
			model_ring_add(&rig.ring, three, 3, i == 1 ? TABLE_AT + 0xff8 : 0);
			model_ring_set_used_event(&rig.ring, (uint16_t)i);
			once(&rig, 1000 + i);
		}
		if (!good) {
			assert_true(rig.memory.calls < 60 && rig.memory.calls > 30);

			good = rig.memory.ram;
			continue;
		}
		assert_memory_equal(good, rig.memory.ram, MEMORY_BYTES);
		rig_destroy(&rig);
	}
	free(good);
}

/* --- parts of chains --- */

static void parts_of_chains(void **state)
{
	struct rig rig;
	struct dma_span span[VIRTIO_CHAIN_MAX];
	struct model_buffer buffer[] = { { DATA_AT + 1, 5, false },
					 { DATA_AT + 0x1ffe, 10, false },
					 { DATA_AT + 0x3000, 3, true },
					 { DATA_AT + 0x4000, 7, true } };
	uint8_t bytes[32];
	size_t done = 0;

	rig_create(&rig, ALL);
	model_ring_add(&rig.ring, buffer, 4, 0);
	for (uint32_t i = 0; i < 5; i++)
		*(uint8_t *)model_at(&rig.memory, DATA_AT + 1 + i) = (uint8_t)i;
	for (uint32_t i = 0; i < 10; i++)
		*(uint8_t *)model_at(&rig.memory, DATA_AT + 0x1ffe + i) = (uint8_t)(5 + i);
	assert_int_equal(virtio_queue_pop(&rig.queue, &rig.chain), 0);

	assert_int_equal(virtio_chain_slice(&rig.chain, false, 4, 5, span), 2);
	assert_int_equal(span[0].gpa, DATA_AT + 5);
	assert_int_equal(span[0].length, 1);
	assert_int_equal(span[1].length, 4);
	assert_int_equal(virtio_chain_slice(&rig.chain, false, 5, 100, span), 1);
	assert_int_equal(span[0].length, 10);
	assert_int_equal(virtio_chain_slice(&rig.chain, true, 1, 9, span), 2);
	assert_int_equal(span[0].gpa, DATA_AT + 0x3001);
	assert_true(span[0].write);
	assert_int_equal(virtio_chain_slice(&rig.chain, true, 10, 1, span), 0);
	assert_int_equal(virtio_chain_slice(&rig.chain, true, 0, 0, span), 0);

	/* Each page may fail: the copy goes on where it was. */
	rig.memory.fail_every = 2;
	while (virtio_chain_read(&rig.memory.dma, &rig.chain, 2, bytes, 13, &done) == -EAGAIN)
		;
	rig.memory.fail_every = 0;
	assert_int_equal(done, 13);
	for (uint32_t i = 0; i < 13; i++)
		assert_int_equal(bytes[i], 2 + i);
	done = 0;
	assert_int_equal(virtio_chain_write(&rig.memory.dma, &rig.chain, 2, bytes, 6, &done), 0);
	assert_int_equal(done, 6);
	assert_int_equal(*(uint8_t *)model_at(&rig.memory, DATA_AT + 0x3002), 2);
	assert_int_equal(*(uint8_t *)model_at(&rig.memory, DATA_AT + 0x4004), 7);
	/* No further than the part goes. */
	done = 0;
	assert_int_equal(virtio_chain_read(&rig.memory.dma, &rig.chain, 10, bytes, 32, &done), 0);
	assert_int_equal(done, 5);
	rig_destroy(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains_come_and_go),
		cmocka_unit_test(many_are_published_at_once),
		cmocka_unit_test(the_doorbell_is_asked_for),
		cmocka_unit_test(interrupts_as_the_driver_wants),
		cmocka_unit_test(indices_that_jump),
		cmocka_unit_test(chains_that_loop),
		cmocka_unit_test(tables_that_are_wrong),
		cmocka_unit_test(buffers_that_are_wrong),
		cmocka_unit_test(rings_that_are_nowhere),
		cmocka_unit_test(every_access_may_fail),
		cmocka_unit_test(parts_of_chains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
