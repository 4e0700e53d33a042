/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk's front half against a model driver and a model disk: every request, whatever memory is
 * missing; disks that are full or fail; resets in the middle; and drivers that lie.
 */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "tests/virtio/model.h"
#include "virtio/blk.h"

#define MEMORY_BYTES (24u << 20)
#define RING_AT(q)   (MODEL_BASE + (q)*MODEL_RING_BYTES)
#define TABLE_AT     0x30000u
#define HEADER_AT    0x40000u
#define STATUS_AT    0x50000u
#define DATA_AT	     0x100000u
#define DISK_BYTES   (16u << 20)
#define QUEUES	     2u

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2 };

#define F_FLUSH	     (1ull << 9)
#define F_CONFIG_WCE (1ull << 11)

struct rig {
	struct model_memory memory;
	struct model_disk disk;
	struct model_host host;
	struct model_ring ring[QUEUES];
	struct virtio_front *front;
	struct virtio_offer offer;
	struct virtio_published published;
	uint32_t headers; /* used so far */
};

static void publish(struct rig *rig)
{
	virtio_front_publish(rig->front, &rig->published);
}

/* The driver sets the device up, as after each reset. */
static void driver_starts(struct rig *rig)
{
	rig->published.generation++;
	rig->published.running = false;
	publish(rig);
	rig->published.features = rig->offer.features;
	rig->published.queue_count = QUEUES;
	memcpy(rig->published.config, rig->offer.config, sizeof(rig->published.config));
	for (uint32_t q = 0; q < QUEUES; q++) {
		memset(model_at(&rig->memory, RING_AT(q)), 0, MODEL_RING_BYTES);
		model_ring_init(&rig->ring[q], &rig->memory, RING_AT(q), 256);
		rig->published.queue[q] = model_ring_published(&rig->ring[q]);
	}
}

static void runs(struct rig *rig)
{
	rig->published.running = true;
	publish(rig);
}

static void rig_create_by(struct rig *rig, struct virtio_blk_config config, uint32_t memory_bytes,
			  uint32_t disk_bytes)
{
	struct virtio_host host;

	memset(rig, 0, sizeof(*rig));
	model_memory_create(&rig->memory, memory_bytes);
	model_disk_create(&rig->disk, disk_bytes);
	rig->host.memory = &rig->memory;
	host = model_host_of(&rig->host);
	config.disk = &rig->disk.disk;
	config.queue_count = QUEUES;
	virtio_blk_offer(&rig->disk.disk.info, QUEUES, &rig->offer);
	assert_int_equal(virtio_offer_check(&rig->offer), 0);
	assert_int_equal(virtio_blk_create(&config, &host, &rig->front), 0);
	driver_starts(rig);
	runs(rig);
}

static void rig_create(struct rig *rig, bool in_place)
{
	rig_create_by(rig, (struct virtio_blk_config){ .in_place = in_place }, MEMORY_BYTES,
		      DISK_BYTES);
}

static void rig_destroy(struct rig *rig)
{
	struct disk_request *request;

	while ((request = disk_done(&rig->disk.disk)))
		virtio_blk_done(rig->front, request);
	virtio_front_destroy(rig->front);
	model_disk_destroy(&rig->disk);
	model_memory_destroy(&rig->memory);
}

/* Until nothing moves any more: memory that was asked for is there, and the disk is done. */
static void settle(struct rig *rig)
{
	struct disk_request *request;
	bool more = true;

	while (more) {
		more = rig->memory.asked;
		rig->memory.asked = false;
		for (uint16_t q = 0; q < QUEUES; q++)
			virtio_front_work(rig->front, q);
		while ((request = disk_done(&rig->disk.disk))) {
			virtio_blk_done(rig->front, request);
			more = true;
		}
		more |= rig->memory.asked;
	}
}

struct request {
	uint32_t type;
	uint64_t sector;
	uint64_t data; /* gpa; 0: none */
	uint32_t length;
	bool table;    /* in an indirect table */
	uint32_t part; /* data in buffers of so many bytes; 0: one */
	bool split;    /* the header is two buffers, and header and data lie in one */
};

/* Puts it into queue q; its status will be at STATUS_AT + 1 byte a request. Its number. */
static uint32_t add(struct rig *rig, uint32_t q, const struct request *request)
{
	static struct model_buffer buffer[300];
	uint32_t number = rig->headers++;
	uint64_t header = HEADER_AT + number * 16u, data = request->data;
	bool write = request->type == IN || request->type == GET_ID;
	uint32_t left = data ? request->length : 0;
	uint16_t count = 0;

	memcpy(model_at(&rig->memory, header), &request->type, 4);
	memcpy(model_at(&rig->memory, header + 8), &request->sector, 8);
	*(uint8_t *)model_at(&rig->memory, STATUS_AT + number) = 0xee;
	buffer[count++] = (struct model_buffer){ header, request->split ? 5 : 16, false };
	if (request->split)
		buffer[count++] = (struct model_buffer){ header + 5, 11, false };
	while (left > 0) {
		uint32_t part = request->part && request->part < left ? request->part : left;

		buffer[count++] = (struct model_buffer){ data, part, write };
		data += part;
		left -= part;
	}
	buffer[count++] = (struct model_buffer){ STATUS_AT + number, 1, true };
	model_ring_add(&rig->ring[q], buffer, count,
		       request->table ? TABLE_AT + number % 8 * 0x1000 : 0);
	return number;
}

static uint8_t status_of(struct rig *rig, uint32_t number)
{
	return *(uint8_t *)model_at(&rig->memory, STATUS_AT + number);
}

/* Alone, to its end: the status, and what was written into the guest's buffers. */
static uint8_t ask(struct rig *rig, const struct request *request, uint32_t *ret_written)
{
	uint32_t number = add(rig, 0, request), head, written;

	settle(rig);
	assert_true(model_ring_used(&rig->ring[0], &head, &written));
	assert_false(model_ring_used(&rig->ring[0], &head, &written));
	if (ret_written)
		*ret_written = written;
	return status_of(rig, number);
}

static void fill(struct rig *rig, uint64_t gpa, uint32_t length, uint8_t seed)
{
	uint8_t *at = model_at(&rig->memory, gpa);

	for (uint32_t i = 0; i < length; i++)
		at[i] = (uint8_t)(seed + i * 3);
}

static void expect_data(struct rig *rig, uint64_t gpa, uint64_t offset, uint32_t length)
{
	assert_memory_equal(model_at(&rig->memory, gpa), rig->disk.data + offset, length);
}

static void what_it_offers(void **state)
{
	struct model_disk disk;
	struct virtio_offer offer;
	uint64_t capacity;
	uint16_t queues;

	model_disk_create(&disk, 1000000);
	virtio_blk_offer(&disk.disk.info, 5, &offer);
	memcpy(&capacity, offer.config, 8);
	memcpy(&queues, offer.config + 34, 2);
	assert_int_equal(capacity, 1000000 / 512);
	assert_int_equal(queues, 5);
	assert_int_equal(offer.queue_count, 5);
	assert_int_equal(offer.config[32], 1);
	assert_int_equal(offer.config_writable[32], 1);
	assert_true(offer.features & F_FLUSH);
	assert_false(offer.features & 1ull << 5);
	disk.disk.info.write_back = false;
	disk.disk.info.read_only = true;
	virtio_blk_offer(&disk.disk.info, 5, &offer);
	assert_true(offer.features & 1ull << 5);
	assert_false(offer.features & (F_FLUSH | F_CONFIG_WCE | 1ull << 13 | 1ull << 14));
	assert_int_equal(offer.config_writable[32], 0);
	model_disk_destroy(&disk);
}

/* Reads and writes of all shapes; in place, and through the pool. */
static void reads_and_writes(void **state)
{
	static const struct request shape[] = {
		{ .length = 512 },
		{ .length = 4096, .table = true },
		{ .length = 20480, .part = 512, .table = true },
		{ .length = 20480, .part = 4096, .split = true },
		{ .length = 300 * 512, .part = 3 * 512, .table = true, .split = true },
		{ .length = 4u << 20, .part = 16384 + 512, .table = true },
	};

	for (uint32_t i = 0; i < 2 * sizeof(shape) / sizeof(shape[0]); i++) {
		struct request request = shape[i / 2];
		struct rig rig;
		uint32_t written;

		rig_create(&rig, i % 2);
		request.sector = 1000;
		request.data = DATA_AT + (i % 3 ? 0 : 100);
		request.type = IN;
		assert_int_equal(ask(&rig, &request, &written), OK);
		assert_int_equal(written, request.length + 1);
		expect_data(&rig, request.data, 1000 * 512, request.length);
		fill(&rig, request.data, request.length, 99);
		request.type = OUT;
		assert_int_equal(ask(&rig, &request, &written), OK);
		assert_int_equal(written, 1);
		expect_data(&rig, request.data, 1000 * 512, request.length);
		assert_int_equal(rig.memory.pins, 0);
		assert_true(rig.host.interrupts[0] >= 1);
		rig_destroy(&rig);
	}
}

static void other_requests(void **state)
{
	struct rig rig;
	struct request request = { .type = FLUSH };
	struct {
		uint64_t sector;
		uint32_t sectors, flags;
	} * range;
	uint32_t written;

	rig_create(&rig, true);
	assert_int_equal(ask(&rig, &request, &written), OK);
	assert_int_equal(rig.disk.flushes, 1);
	request = (struct request){ .type = GET_ID, .data = DATA_AT, .length = 20 };
	assert_int_equal(ask(&rig, &request, &written), OK);
	assert_int_equal(written, 21);
	assert_memory_equal(model_at(&rig.memory, DATA_AT), "serial-0123456789abc", 20);
	request.length = 6;
	assert_int_equal(ask(&rig, &request, &written), OK);
	assert_int_equal(written, 7);

	range = model_at(&rig.memory, DATA_AT);
	range->sector = 8;
	range->sectors = 16;
	range->flags = 0;
	request = (struct request){ .type = DISCARD, .data = DATA_AT, .length = 16 };
	assert_int_equal(ask(&rig, &request, NULL), OK);
	assert_int_equal(rig.disk.data[8 * 512], 0xdd);
	assert_int_equal(rig.disk.data[24 * 512 - 1], 0xdd);
	request.type = ZEROES;
	range->flags = 1;
	assert_int_equal(ask(&rig, &request, NULL), OK);
	assert_int_equal(rig.disk.data[8 * 512], 0);
	request.type = DISCARD;
	assert_int_equal(ask(&rig, &request, NULL), UNSUPP); /* unmap is not for discards */
	request.type = ZEROES;
	range->flags = 2;
	assert_int_equal(ask(&rig, &request, NULL), UNSUPP);
	range->flags = 0;
	range->sector = DISK_BYTES / 512 - 15;
	assert_int_equal(ask(&rig, &request, NULL), IOERR);
	range->sectors = 0;
	assert_int_equal(ask(&rig, &request, NULL), IOERR);
	request.length = 32; /* two ranges */
	assert_int_equal(ask(&rig, &request, NULL), UNSUPP);
	request.type = 77;
	assert_int_equal(ask(&rig, &request, NULL), UNSUPP);
	assert_int_equal(rig.host.resets, 0);
	rig_destroy(&rig);
}

static void what_is_not_on_the_disk(void **state)
{
	static const struct {
		uint64_t sector;
		uint32_t length;
		uint8_t status;
	} c[] = {
		{ DISK_BYTES / 512 - 1, 512, OK },
		{ DISK_BYTES / 512 - 1, 1024, IOERR },
		{ DISK_BYTES / 512, 512, IOERR },
		{ UINT64_MAX, 512, IOERR },
		{ UINT64_MAX / 512, 4096, IOERR },
		{ 0, 100, IOERR },
		{ 0, 0, IOERR },
		{ 0, (4u << 20) + 512, IOERR },
	};
	struct rig rig;

	rig_create(&rig, true);
	for (uint32_t i = 0; i < 2 * sizeof(c) / sizeof(c[0]); i++) {
		struct request request = { .type = i % 2 ? OUT : IN,
					   .sector = c[i / 2].sector,
					   .data = DATA_AT,
					   .length = c[i / 2].length };

		assert_int_equal(ask(&rig, &request, NULL), c[i / 2].status);
	}
	rig.disk.disk.info.read_only = true;
	assert_int_equal(
		ask(&rig,
		    &(struct request){ .type = OUT, .sector = 0, .data = DATA_AT, .length = 512 },
		    NULL),
		IOERR);
	assert_int_equal(
		ask(&rig,
		    &(struct request){ .type = IN, .sector = 0, .data = DATA_AT, .length = 512 },
		    NULL),
		OK);
	rig.disk.fail = -EIO;
	assert_int_equal(
		ask(&rig,
		    &(struct request){ .type = IN, .sector = 0, .data = DATA_AT, .length = 512 },
		    NULL),
		IOERR);
	rig.disk.fail = -EOPNOTSUPP;
	assert_int_equal(ask(&rig, &(struct request){ .type = FLUSH }, NULL), UNSUPP);
	assert_int_equal(rig.host.resets, 0);
	rig_destroy(&rig);
}

/* --- memory that is not there --- */

static const struct request mixture[] = {
	{ .type = IN, .sector = 3, .data = DATA_AT + 0x10000, .length = 8192, .table = true },
	{ .type = OUT, .sector = 64, .data = DATA_AT + 0x1100, .length = 12288, .part = 1024 },
	{ .type = GET_ID, .sector = 0, .data = DATA_AT + 0x20000, .length = 20 },
	{ .type = OUT,
	  .sector = 200,
	  .data = DATA_AT + 0x1000,
	  .length = 4096,
	  .split = true,
	  .table = true },
	{ .type = FLUSH, .sector = 0, .data = 0, .length = 0 },
	{ .type = IN, .sector = UINT64_MAX, .data = DATA_AT + 0x30000, .length = 512 },
	{ DISCARD, 0, DATA_AT + 0x8000, 16, .table = true },
	{ .type = IN,
	  .sector = 64,
	  .data = DATA_AT + 0x40f00,
	  .length = 70000 / 512 * 512,
	  .part = 2048,
	  .table = true },
	{ .type = 99, .sector = 0, .data = 0, .length = 0 },
};

#define SMALL_MEMORY (2u << 20)
#define SMALL_DISK   (512u * 1024)

#define MIXTURE (sizeof(mixture) / sizeof(mixture[0]))

struct outcome {
	uint8_t *ram, *disk;
	uint64_t calls;
};

static void mixture_run(bool in_place, uint64_t fail_at, uint32_t fail_every, bool last_first,
			uint64_t pages_max, struct outcome *ret_outcome)
{
	struct {
		uint64_t sector;
		uint32_t sectors, flags;
	} * range;
	struct rig rig;
	uint32_t head, written, used = 0;

	rig_create_by(&rig, (struct virtio_blk_config){ .in_place = in_place }, SMALL_MEMORY,
		      SMALL_DISK);
	rig.memory.calls = 0;
	rig.memory.fail_at = fail_at;
	rig.memory.fail_every = fail_every;
	rig.memory.pages_max = pages_max;
	rig.disk.last_first = last_first;
	fill(&rig, DATA_AT, 0x8000, 5);
	range = model_at(&rig.memory, DATA_AT + 0x8000);
	range->sector = 500;
	range->sectors = 8;
	range->flags = 0;
	/* In two goes: some are under way when others come. What one reads the other does not write. */
	for (uint32_t i = 0; i < MIXTURE; i++) {
		add(&rig, i % 2, &mixture[i]);
		if (i == MIXTURE / 2)
			settle(&rig);
	}
	settle(&rig);
	for (uint32_t q = 0; q < QUEUES; q++)
		while (model_ring_used(&rig.ring[q], &head, &written))
			used++;
	assert_int_equal(used, MIXTURE);
	assert_int_equal(rig.memory.pins, 0);
	assert_int_equal(rig.host.resets, 0);
	assert_true(rig.host.interrupts[0] > 0 && rig.host.interrupts[1] > 0);
	/* The rings themselves may be in another order. */
	memset(rig.memory.ram, 0, QUEUES * MODEL_RING_BYTES);
	ret_outcome->ram = rig.memory.ram;
	ret_outcome->disk = rig.disk.data;
	ret_outcome->calls = rig.memory.calls;
	rig.memory.ram = rig.disk.data = NULL;
	virtio_front_destroy(rig.front);
}

static void outcome_free(struct outcome *outcome)
{
	free(outcome->ram);
	free(outcome->disk);
}

static void expect_same(const struct outcome *good, struct outcome *outcome)
{
	assert_memory_equal(outcome->disk, good->disk, SMALL_DISK);
	assert_memory_equal(outcome->ram, good->ram, SMALL_MEMORY);
	outcome_free(outcome);
}

static void every_access_may_fail(void **state)
{
	for (uint32_t in_place = 0; in_place < 2; in_place++) {
		struct outcome good, outcome;

		mixture_run(in_place, 0, 0, false, 0, &good);
		assert_true(good.calls > 100 && good.calls < 1000);
		for (uint64_t at = 1; at <= good.calls + 2; at++) {
			mixture_run(in_place, at, 0, at % 2, 0, &outcome);
			expect_same(&good, &outcome);
		}
		for (uint32_t every = 2; every < 12; every++) {
			mixture_run(in_place, 0, every, every % 2, 0, &outcome);
			expect_same(&good, &outcome);
		}
		/* Few pages at once: through the pool, all the same. */
		mixture_run(in_place, 0, 3, false, 2, &outcome);
		expect_same(&good, &outcome);
		outcome_free(&good);
	}
}

/* --- what is full --- */

static void a_disk_that_is_full(void **state)
{
	struct rig rig;
	uint32_t head, written, used = 0;

	rig_create(&rig, true);
	rig.disk.max = 3;
	for (uint32_t i = 0; i < 80; i++)
		add(&rig, i % 2,
		    &(struct request){ .type = IN,
				       .sector = i,
				       .data = DATA_AT + i * 512,
				       .length = 512,
				       .table = false });
	for (uint16_t q = 0; q < QUEUES; q++)
		virtio_front_work(rig.front, q);
	assert_int_equal(rig.disk.count, 3);
	settle(&rig);
	for (uint32_t q = 0; q < QUEUES; q++)
		while (model_ring_used(&rig.ring[q], &head, &written))
			used++;
	assert_int_equal(used, 80);
	expect_data(&rig, DATA_AT, 0, 80 * 512);
	rig_destroy(&rig);
}

/* Each takes half of the pool, and all are served. */
static void a_pool_that_is_empty(void **state)
{
	struct rig rig;
	uint32_t head, written, used = 0;

	rig_create(&rig, false);
	for (uint32_t i = 0; i < 8; i++)
		add(&rig, i % 2,
		    &(struct request){ .type = IN,
				       .sector = i,
				       .data = DATA_AT + (i % 4) * (4u << 20),
				       .length = 4u << 20,
				       .part = 32768,
				       .table = true });
	for (uint16_t q = 0; q < QUEUES; q++)
		virtio_front_work(rig.front, q);
	assert_int_equal(rig.disk.count, 2);
	settle(&rig);
	for (uint32_t q = 0; q < QUEUES; q++)
		while (model_ring_used(&rig.ring[q], &head, &written))
			used++;
	assert_int_equal(used, 8);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(status_of(&rig, i), OK);
	rig_destroy(&rig);
}

/* The driver: whatever was used is available again. */
static void refill(void *arg)
{
	struct rig *rig = arg;
	uint32_t head, written;

	while (model_ring_used(&rig->ring[0], &head, &written))
		model_ring_avail(&rig->ring[0], 0);
}

/* A queue that is never empty gives others their turn. */
static void a_queue_that_is_never_empty(void **state)
{
	struct rig rig;

	rig_create(&rig, true);
	model_ring_desc(&rig.ring[0], 0, HEADER_AT, 16, 1, 1);
	model_ring_desc(&rig.ring[0], 1, STATUS_AT, 1, 2, 0);
	*(uint32_t *)model_at(&rig.memory, HEADER_AT) = 99;
	for (uint32_t i = 0; i < 256; i++)
		model_ring_avail(&rig.ring[0], 0);
	rig.memory.before = refill;
	rig.memory.before_arg = &rig;
	for (uint32_t round = 1; round < 4; round++) {
		virtio_front_work(rig.front, 0);
		assert_int_equal(rig.host.agains, round);
	}
	assert_int_equal(rig.host.resets, 0);
	rig_destroy(&rig);
}

/* --- writes that are to be safe --- */

static void writes_without_a_write_cache(void **state)
{
	struct rig rig;
	struct request request = { .type = OUT, .sector = 0, .data = DATA_AT, .length = 512 };

	rig_create(&rig, true);
	assert_int_equal(ask(&rig, &request, NULL), OK);
	assert_int_equal(rig.disk.flushes, 0);
	rig.published.config[32] = 0; /* the driver turns it off */
	publish(&rig);
	assert_int_equal(ask(&rig, &request, NULL), OK);
	assert_int_equal(rig.disk.flushes, 1);
	rig.disk.max = 1; /* the flush finds it full first */
	add(&rig, 0, &request);
	add(&rig, 0, &request);
	settle(&rig);
	assert_int_equal(rig.disk.flushes, 3);
	rig.published.config[32] = 1;
	publish(&rig);
	add(&rig, 0, &request);
	settle(&rig);
	assert_int_equal(rig.disk.flushes, 3);
	/* A driver that knows no flush. */
	driver_starts(&rig);
	rig.published.features &= ~F_FLUSH;
	runs(&rig);
	assert_int_equal(ask(&rig, &request, NULL), OK);
	assert_int_equal(rig.disk.flushes, 4);
	rig_destroy(&rig);
}

/* --- resets --- */

static void a_reset_in_the_middle(void **state)
{
	struct rig rig;
	struct disk_request *request;

	rig_create(&rig, true);
	assert_int_equal(rig.host.stops, 1);
	for (uint32_t i = 0; i < 4; i++)
		add(&rig, 0,
		    &(struct request){
			    .type = IN, .sector = i, .data = DATA_AT + i * 4096, .length = 4096 });
	rig.disk.max = 2;
	virtio_front_work(rig.front, 0);
	assert_int_equal(rig.disk.count, 2);
	driver_starts(&rig);
	/* What the disk has is waited for, and concerns nobody. */
	assert_int_equal(rig.host.stops, 1);
	while ((request = disk_done(&rig.disk.disk)))
		virtio_blk_done(rig.front, request);
	assert_int_equal(rig.host.stops, 2);
	assert_int_equal(rig.host.stopped, rig.published.generation);
	assert_int_equal(rig.memory.pins, 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(status_of(&rig, i), 0xee);
	assert_int_equal(*(uint16_t *)model_at(&rig.memory, rig.ring[0].used + 2), 0);
	runs(&rig);
	assert_int_equal(
		ask(&rig,
		    &(struct request){ .type = IN, .sector = 9, .data = DATA_AT, .length = 4096 },
		    NULL),
		OK);
	/* A pause: what came back meanwhile is told later. */
	add(&rig, 0,
	    &(struct request){
		    .type = IN, .sector = 1, .data = DATA_AT + 0x10000, .length = 4096 });
	virtio_front_work(rig.front, 0);
	rig.published.running = false;
	publish(&rig);
	virtio_blk_done(rig.front, disk_done(&rig.disk.disk));
	virtio_front_work(rig.front, 0);
	assert_int_equal(status_of(&rig, 5), 0xee);
	rig.published.running = true;
	publish(&rig);
	assert_int_equal(status_of(&rig, 5), OK);
	rig_destroy(&rig);
}

/* --- drivers that lie --- */

static void expect_broken(struct rig *rig)
{
	virtio_front_work(rig->front, 0);
	assert_int_equal(rig->host.resets, 1);
	virtio_front_work(rig->front, 0);
	virtio_front_work(rig->front, 1);
	assert_int_equal(rig->host.resets, 1);
	assert_int_equal(rig->memory.pins, 0);
	/* And after a reset it works. */
	driver_starts(rig);
	runs(rig);
	assert_int_equal(
		ask(rig,
		    &(struct request){ .type = IN, .sector = 9, .data = DATA_AT, .length = 4096 },
		    NULL),
		OK);
	rig_destroy(rig);
}

static void drivers_that_lie(void **state)
{
	struct model_buffer header = { HEADER_AT, 16, false }, status = { STATUS_AT, 1, true };
	struct model_buffer buffer[3];
	struct rig rig;

	/* No header, half a header, no status. */
	rig_create(&rig, true);
	model_ring_add(&rig.ring[0], &status, 1, 0);
	expect_broken(&rig);
	rig_create(&rig, true);
	buffer[0] = (struct model_buffer){ HEADER_AT, 15, false };
	buffer[1] = status;
	model_ring_add(&rig.ring[0], buffer, 2, 0);
	expect_broken(&rig);
	rig_create(&rig, true);
	model_ring_add(&rig.ring[0], &header, 1, 0);
	expect_broken(&rig);
	/* Header, data, status that are no memory; in place, and through the pool. */
	for (uint32_t i = 0; i < 6; i++) {
		rig_create(&rig, i % 2);
		buffer[0] = header;
		buffer[1] = (struct model_buffer){ DATA_AT, 4096, true };
		buffer[2] = status;
		buffer[i / 2].gpa = 0x8000;
		model_ring_add(&rig.ring[0], buffer, 3, 0);
		virtio_front_work(rig.front, 0);
		if (rig.disk.count)
			virtio_blk_done(rig.front, disk_done(&rig.disk.disk));
		expect_broken(&rig);
	}
	/* Others are at the disk when it breaks. */
	rig_create(&rig, true);
	add(&rig, 1, &(struct request){ .type = IN, .sector = 1, .data = DATA_AT, .length = 4096 });
	virtio_front_work(rig.front, 1);
	model_ring_add(&rig.ring[0], &header, 1, 0);
	virtio_front_work(rig.front, 0);
	assert_int_equal(rig.host.resets, 1);
	virtio_blk_done(rig.front, disk_done(&rig.disk.disk));
	assert_int_equal(status_of(&rig, 0), 0xee);
	assert_int_equal(rig.host.stops, 1);
	expect_broken(&rig);
	/* Rings at no good place. */
	rig_create(&rig, true);
	driver_starts(&rig);
	rig.published.queue[1].used += 1;
	runs(&rig);
	assert_int_equal(rig.host.resets, 1);
	expect_broken(&rig);
	/* Data that is its own ring is data. */
	rig_create(&rig, true);
	assert_int_equal(ask(&rig,
			     &(struct request){
				     .type = OUT, .sector = 0, .data = RING_AT(0), .length = 4096 },
			     NULL),
			 OK);
	rig_destroy(&rig);
}

/* From the moment on when three large requests are at the disk. */
static void narrow_again(void *arg)
{
	struct rig *rig = arg;

	if (rig->disk.submitted >= 3)
		rig->memory.pages_max = 1;
}

/* What the disk refused cannot have its status' page. */
static void stop_at_status(void *arg)
{
	struct rig *rig = arg;

	if (rig->disk.refused > 0)
		rig->memory.fail_every = 1;
}

/* A queue's turn at the pool ends when its request can be had in place after all. */
static void turns_at_the_pool_end(void **state)
{
	struct rig rig;
	struct request large = {
		.type = OUT, .data = DATA_AT, .length = 4u << 20, .table = true, .part = 32768
	};
	struct request small = { .type = OUT, .data = DATA_AT, .length = 65536 };
	uint32_t number, head, written;

	rig_create(&rig, true);
	rig.memory.pages_max = 1;
	for (uint32_t i = 0; i < 3; i++)
		add(&rig, 0, &large);
	virtio_front_work(rig.front, 0);
	number = add(&rig, 1, &small);
	virtio_front_work(rig.front, 1);
	assert_int_equal(rig.disk.count, 2); /* the pool is theirs, and the third's turn is next */
	rig.memory.pages_max = 0;
	rig.memory.before = narrow_again;
	rig.memory.before_arg = &rig;
	virtio_front_work(rig.front, 0);
	settle(&rig);
	assert_true(model_ring_used(&rig.ring[1], &head, &written));
	assert_int_equal(status_of(&rig, number), OK);
	rig_destroy(&rig);
}

/* Whoever waits for memory keeps none: neither does a request that the disk refused. */
static void refused_by_the_disk(void **state)
{
	struct rig rig;
	struct request request = { .type = IN, .data = DATA_AT, .length = 512 };
	uint32_t number;

	rig_create(&rig, true);
	rig.disk.refuse = -EINVAL;
	rig.memory.before = stop_at_status;
	rig.memory.before_arg = &rig;
	number = add(&rig, 0, &request);
	virtio_front_work(rig.front, 0);
	assert_true(rig.memory.asked);
	assert_int_equal(rig.memory.pins, 0);
	rig.memory.before = NULL;
	rig.memory.fail_every = 0;
	settle(&rig);
	assert_int_equal(status_of(&rig, number), IOERR);
	rig_destroy(&rig);
}

/*
 * One queue's request has the pool, and two queues wait for it. Of the next that gets it the disk will
 * have nothing: whose turn comes behind that is told, whatever the order in which they are tried.
 */
static void refused_with_the_pool(void **state)
{
	struct request large = {
		.type = OUT, .data = DATA_AT, .length = 4u << 20, .table = true, .part = 32768
	};

	for (uint32_t turn = 0; turn < QUEUES; turn++) {
		struct rig rig;
		uint32_t number[3];

		rig_create_by(&rig,
			      (struct virtio_blk_config){ .bounce_bytes = VIRTIO_BLK_BYTES_MAX },
			      MEMORY_BYTES, DISK_BYTES);
		for (uint32_t i = 0; i < turn; i++)
			virtio_front_work(rig.front, 0);
		for (uint16_t i = 0; i < 3; i++) {
			number[i] = add(&rig, i % 2, &large);
			virtio_front_work(rig.front, i % 2);
		}
		assert_int_equal(rig.disk.count, 1);
		rig.disk.refuse = -EINVAL;
		virtio_blk_done(rig.front, disk_done(&rig.disk.disk));
		for (uint16_t q = 0; q < QUEUES; q++)
			if (rig.host.again[q])
				virtio_front_work(rig.front, q);
		assert_int_equal(status_of(&rig, number[0]), OK);
		assert_int_equal(status_of(&rig, number[1]), IOERR);
		assert_int_equal(status_of(&rig, number[2]), IOERR);
		rig_destroy(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_offers),
		cmocka_unit_test(reads_and_writes),
		cmocka_unit_test(other_requests),
		cmocka_unit_test(what_is_not_on_the_disk),
		cmocka_unit_test(every_access_may_fail),
		cmocka_unit_test(a_disk_that_is_full),
		cmocka_unit_test(a_pool_that_is_empty),
		cmocka_unit_test(a_queue_that_is_never_empty),
		cmocka_unit_test(writes_without_a_write_cache),
		cmocka_unit_test(a_reset_in_the_middle),
		cmocka_unit_test(drivers_that_lie),
		cmocka_unit_test(turns_at_the_pool_end),
		cmocka_unit_test(refused_by_the_disk),
		cmocka_unit_test(refused_with_the_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
