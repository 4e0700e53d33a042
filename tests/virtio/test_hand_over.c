/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device with two front halves, as on two nodes: its queues go to and fro between them, at every step
 * of the work, while memory is missing. What the driver sees, and the disk, and the wire, is the same as
 * with one that has them all the time.
 */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net_header.h"
#include "tests/virtio/model.h"
#include "virtio/blk.h"
#include "virtio/net.h"
#include "virtio/queue.h"
#include "virtio/rng.h"

#define MEMORY_BYTES (2u << 20)
#define DISK_BYTES   (512u << 10)
#define RING_AT(q)   (MODEL_BASE + (q)*MODEL_RING_BYTES)
#define TABLE_AT     0x40000u
#define HEADER_AT    0x50000u
#define STATUS_AT    0x58000u
#define DATA_AT	     0x80000u
#define QUEUES	     2u
#define HALVES	     2u
#define NEVER	     UINT32_MAX
#define MOVING_STEPS 300u /* else it would never be still */

/* A network that keeps what it gets and gives what it has. */
struct wire {
	uint8_t sent[65536], waiting[32][2048];
	size_t sent_bytes, waiting_bytes[32];
	uint32_t first, count;
};

struct model_net {
	struct net net; /* first */
	struct wire *wire;
};

struct half {
	struct virtio_front *front;
	struct model_host host;
	struct model_disk disk;
	struct model_net net;
};

struct rig {
	struct model_memory memory;
	struct wire wire;
	struct model_ring ring[QUEUES];
	struct virtio_offer offer;
	struct virtio_published published;
	struct half half[HALVES];
	uint32_t seat[QUEUES];
	bool leaving[QUEUES];
	uint32_t steps, move_at, move_every, moves;
	uint32_t random;
};

/* --- the model ------------------------------------------------------------------------------------ */

static int net_model_send(struct net *base, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	struct wire *wire = ((struct model_net *)base)->wire;

	assert_int_equal(pair, 0);
	for (uint32_t i = 0; i < count; i++) {
		assert_true(wire->sent_bytes + iov[i].iov_len <= sizeof(wire->sent));
		memcpy(wire->sent + wire->sent_bytes, iov[i].iov_base, iov[i].iov_len);
		wire->sent_bytes += iov[i].iov_len;
	}
	return 0;
}

static const uint8_t *net_model_peek(struct net *base, uint16_t pair, uint32_t *ret_bytes)
{
	struct wire *wire = ((struct model_net *)base)->wire;

	(void)pair;
	if (wire->first == wire->count)
		return NULL;
	*ret_bytes = (uint32_t)wire->waiting_bytes[wire->first];
	return wire->waiting[wire->first];
}

static void net_model_drop(struct net *base, uint16_t pair)
{
	struct wire *wire = ((struct model_net *)base)->wire;

	(void)pair;
	assert_true(wire->first < wire->count);
	wire->first++;
}

static int net_model_offload(struct net *base, const struct net_offloads *offloads)
{
	(void)base;
	(void)offloads;
	return 0;
}

static int net_model_set_pairs(struct net *base, uint16_t pairs)
{
	(void)base;
	(void)pairs;
	return 0;
}

static const struct net_ops net_model_ops = { .send = net_model_send,
					      .peek = net_model_peek,
					      .drop = net_model_drop,
					      .offload = net_model_offload,
					      .set_pairs = net_model_set_pairs };

static void count_up(void *ctx, void *to, size_t bytes)
{
	struct rig *rig = ctx;

	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)to)[i] = (uint8_t)++rig->random;
}

static void half_create(struct rig *rig, uint32_t number, uint8_t kind)
{
	static const uint8_t mac[6] = { 2 };
	struct half *half = &rig->half[number];
	struct virtio_blk_config blk = { .disk = &half->disk.disk,
					 .queue_count = QUEUES,
					 .in_place = number == 0 };
	struct virtio_net_config net = { .net = &half->net.net, .pairs = 1 };
	struct virtio_rng_config rng = { .random = count_up, .ctx = rig };
	struct virtio_host host;

	half->host.memory = &rig->memory;
	host = model_host_of(&half->host);
	host.queues_elsewhere = number > 0;
	half->net = (struct model_net){ .net = { .ops = &net_model_ops,
						 .info = { .mtu = 1500, .pairs = 1 } },
					.wire = &rig->wire };
	if (kind == VIRTIO_KIND_BLOCK) {
		model_disk_create(&half->disk, DISK_BYTES);
		if (number > 0) {
			model_disk_destroy(&half->disk);
			half->disk.data = rig->half[0].disk.data;
		}
		virtio_blk_offer(&half->disk.disk.info, QUEUES, &rig->offer);
		assert_int_equal(virtio_blk_create(&blk, &host, &half->front), 0);
	} else if (kind == VIRTIO_KIND_NET) {
		virtio_net_offer(&half->net.net.info, mac, 1, &rig->offer);
		assert_int_equal(virtio_net_create(&net, &host, &half->front), 0);
	} else {
		virtio_rng_offer(&rig->offer);
		assert_int_equal(virtio_rng_create(&rng, &host, &half->front), 0);
	}
}

static uint16_t queues(const struct rig *rig)
{
	return rig->offer.queue_count < QUEUES ? rig->offer.queue_count : QUEUES;
}

static void publish(struct rig *rig)
{
	for (uint32_t i = 0; i < HALVES; i++)
		virtio_front_publish(rig->half[i].front, &rig->published);
}

static void driver_starts(struct rig *rig)
{
	rig->published.generation++;
	rig->published.running = false;
	publish(rig);
	rig->published.features = rig->offer.features;
	rig->published.queue_count = rig->offer.queue_count;
	memcpy(rig->published.config, rig->offer.config, sizeof(rig->published.config));
	for (uint32_t q = 0; q < queues(rig); q++) {
		memset(model_at(&rig->memory, RING_AT(q)), 0, MODEL_RING_BYTES);
		model_ring_init(&rig->ring[q], &rig->memory, RING_AT(q), 64);
		rig->published.queue[q] = model_ring_published(&rig->ring[q]);
		rig->seat[q] = 0;
		rig->leaving[q] = false;
	}
	rig->published.running = true;
	publish(rig);
}

static struct rig *rig_create(uint8_t kind)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	model_memory_create(&rig->memory, MEMORY_BYTES);
	for (uint32_t i = 0; i < HALVES; i++)
		half_create(rig, i, kind);
	rig->move_at = NEVER;
	driver_starts(rig);
	return rig;
}

static void rig_destroy(struct rig *rig)
{
	assert_int_equal(rig->memory.pins, 0);
	for (uint32_t i = 0; i < HALVES; i++) {
		assert_int_equal(rig->half[i].host.resets, 0);
		virtio_front_destroy(rig->half[i].front);
	}
	free(rig->half[0].disk.data);
	model_memory_destroy(&rig->memory);
	free(rig);
}

/* --- hand-overs ----------------------------------------------------------------------------------- */

static void give(struct rig *rig, uint16_t q)
{
	struct virtio_queue_state state;

	if (!rig->leaving[q] || virtio_front_give(rig->half[rig->seat[q]].front, q, &state) < 0)
		return;
	rig->leaving[q] = false;
	rig->seat[q] ^= 1;
	rig->moves++;
	assert_int_equal(virtio_front_take(rig->half[rig->seat[q]].front, q, &state), 0);
}

/* After each step: whoever is to move does so as soon as it can. */
static void step(struct rig *rig)
{
	uint32_t now = rig->steps++;
	bool moves = now == rig->move_at ||
		     (rig->move_every && now % rig->move_every == 0 && now < MOVING_STEPS);

	for (uint16_t q = 0; q < queues(rig); q++) {
		if (moves && !rig->leaving[q])
			rig->leaving[q] = virtio_front_leave(rig->half[rig->seat[q]].front, q) == 0;
		give(rig, q);
	}
}

static bool work(struct rig *rig)
{
	struct disk_request *request;
	bool more = false;

	for (uint32_t i = 0; i < HALVES; i++) {
		struct half *half = &rig->half[i];

		for (uint16_t q = 0; q < queues(rig); q++) {
			virtio_front_work(half->front, q);
			step(rig);
		}
		while (half->disk.disk.ops && (request = disk_done(&half->disk.disk))) {
			virtio_blk_done(half->front, request);
			step(rig);
			more = true;
		}
	}
	return more;
}

/* Until nothing moves any more: memory that was asked for is there, and the disk is done. */
static void settle(struct rig *rig)
{
	bool more = true;

	while (more) {
		rig->memory.asked = false;
		more = work(rig) || rig->memory.asked;
		for (uint16_t q = 0; q < queues(rig); q++)
			more |= rig->leaving[q];
	}
}

struct outcome {
	uint8_t *ram, *disk;
	struct wire wire;
	uint32_t steps, moves;
};

/* How a run differs from the one that it is compared with. */
struct variant {
	uint32_t move_at, move_every, fail_every;
	bool last_first;
};

static struct rig *begin(uint8_t kind, const struct variant *variant)
{
	struct rig *rig = rig_create(kind);

	rig->move_at = variant->move_at;
	rig->move_every = variant->move_every;
	rig->memory.fail_every = variant->fail_every;
	rig->steps = 0;
	for (uint32_t i = 0; i < HALVES; i++)
		rig->half[i].disk.last_first = variant->last_first;
	for (uint32_t i = 0; i < 0x20000; i++)
		*(uint8_t *)model_at(&rig->memory, DATA_AT + i) = (uint8_t)(i * 3 + i / 512);
	return rig;
}

static void end(struct rig *rig, struct outcome *ret_outcome)
{
	/* The rings themselves may be in another order. */
	memset(rig->memory.ram, 0, QUEUES * MODEL_RING_BYTES);
	ret_outcome->ram = rig->memory.ram;
	ret_outcome->disk = rig->half[0].disk.data;
	ret_outcome->wire = rig->wire;
	ret_outcome->steps = rig->steps;
	ret_outcome->moves = rig->moves;
	rig->memory.ram = NULL;
	rig->half[0].disk.data = NULL;
	rig_destroy(rig);
}

static void same(const struct outcome *good, struct outcome *outcome)
{
	assert_memory_equal(outcome->ram, good->ram, MEMORY_BYTES);
	if (good->disk)
		assert_memory_equal(outcome->disk, good->disk, DISK_BYTES);
	assert_int_equal(outcome->wire.sent_bytes, good->wire.sent_bytes);
	assert_memory_equal(outcome->wire.sent, good->wire.sent, good->wire.sent_bytes);
	free(outcome->ram);
	free(outcome->disk);
}

typedef void run_fn(const struct variant *variant, struct outcome *ret_outcome);

static void at_every_step(run_fn *run, uint32_t moves_min)
{
	struct outcome good, outcome;
	uint32_t moves = 0;

	run(&(struct variant){ .move_at = NEVER }, &good);
	assert_int_equal(good.moves, 0);
	for (uint32_t at = 0; at <= good.steps; at++) {
		run(&(struct variant){ .move_at = at, .last_first = at % 2 }, &outcome);
		same(&good, &outcome);
	}
	/* With every other access to memory to be tried again, there are many more steps. */
	for (uint32_t i = 0; i < 60; i++) {
		run(&(struct variant){ .move_at = NEVER,
				       .move_every = 1 + i % 7,
				       .fail_every = 2 + i % 5,
				       .last_first = i % 2 },
		    &outcome);
		moves += outcome.moves;
		same(&good, &outcome);
		run(&(struct variant){ .move_at = i, .fail_every = 2 + i % 3 }, &outcome);
		moves += outcome.moves;
		same(&good, &outcome);
	}
	assert_true(moves > moves_min);
	free(good.ram);
	free(good.disk);
}

/* --- disks ---------------------------------------------------------------------------------------- */

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8 };

static void add(struct rig *rig, uint32_t number, uint32_t type, uint64_t sector, uint64_t data,
		uint32_t length)
{
	uint64_t header = HEADER_AT + number * 16u, status = STATUS_AT + number;
	struct model_buffer buffer[3] = { { header, 16, false } };
	uint16_t count = 1;

	memcpy(model_at(&rig->memory, header), &type, 4);
	memcpy(model_at(&rig->memory, header + 8), &sector, 8);
	*(uint8_t *)model_at(&rig->memory, status) = 0xee;
	if (length)
		buffer[count++] =
			(struct model_buffer){ data, length, type == IN || type == GET_ID };
	buffer[count++] = (struct model_buffer){ status, 1, true };
	model_ring_add(&rig->ring[number % QUEUES], buffer, count,
		       number % 3 ? TABLE_AT + number * 0x100 : 0);
}

static uint32_t interrupts(const struct rig *rig, uint32_t queue)
{
	return rig->half[0].host.interrupts[queue] + rig->half[1].host.interrupts[queue];
}

static void disk_run(const struct variant *variant, struct outcome *ret_outcome)
{
	struct rig *rig = begin(VIRTIO_KIND_BLOCK, variant);
	uint32_t head, written, used = 0;

	for (uint32_t round = 0; round < 3; round++) {
		uint32_t first = round * 6;

		/* An interrupt is wanted for the round's last in each queue, and for no other. */
		for (uint32_t q = 0; q < QUEUES; q++)
			model_ring_set_used_event(&rig->ring[q], (uint16_t)(round * 3 + 2));

		add(rig, first, OUT, 8 + round * 64, DATA_AT + round * 8192, 8192);
		add(rig, first + 1, IN, 500 + round * 8, DATA_AT + 0x10000 + round * 4096, 4096);
		add(rig, first + 2, FLUSH, 0, 0, 0);
		add(rig, first + 3, GET_ID, 0, DATA_AT + 0x18000 + round * 64, 20);
		add(rig, first + 4, OUT, 300 + round * 16, DATA_AT + 0x8000, 7168);
		add(rig, first + 5, IN, UINT64_MAX, DATA_AT, 512);
		settle(rig);
		for (uint32_t q = 0; q < QUEUES; q++)
			assert_int_equal(interrupts(rig, q), round + 1);
	}
	for (uint32_t q = 0; q < QUEUES; q++)
		while (model_ring_used(&rig->ring[q], &head, &written))
			used++;
	assert_int_equal(used, 18);
	for (uint32_t i = 0; i < 18; i++)
		assert_int_equal(*(uint8_t *)model_at(&rig->memory, STATUS_AT + i), i % 6 == 5);
	end(rig, ret_outcome);
}

static void a_disks_queues(void **state)
{
	(void)state;
	at_every_step(disk_run, 500);
}

/* --- cards ---------------------------------------------------------------------------------------- */

static void net_run(const struct variant *variant, struct outcome *ret_outcome)
{
	struct rig *rig = begin(VIRTIO_KIND_NET, variant);
	uint32_t head, written, got = 0;
	uint8_t last = 0;

	for (uint32_t i = 0; i < 12; i++) {
		uint64_t data = DATA_AT + i * 2048;
		struct model_buffer out[2] = { { data, 300, false }, { data + 300, 900, false } };
		struct model_buffer in = { DATA_AT + 0x20000 + i * 2048, 1600, true };

		memset(model_at(&rig->memory, data), 0, NET_HEADER_BYTES);
		model_ring_add(&rig->ring[1], out, 2, 0);
		model_ring_add(&rig->ring[0], &in, 1, 0);
		if (i % 2) {
			struct wire *wire = &rig->wire;

			memset(wire->waiting[wire->count], 0, NET_HEADER_BYTES);
			memset(wire->waiting[wire->count] + NET_HEADER_BYTES, (int)i, 1000);
			wire->waiting_bytes[wire->count++] = NET_HEADER_BYTES + 1000;
		}
		if (i % 3 == 0)
			settle(rig);
	}
	settle(rig);
	/* In order, each whole; there were buffers for all of them. */
	while (model_ring_used(&rig->ring[0], &head, &written)) {
		const uint8_t *at = model_at(&rig->memory, DATA_AT + 0x20000 + got * 2048);

		assert_int_equal(written, NET_HEADER_BYTES + 1000);
		assert_true(at[NET_HEADER_BYTES] > last);
		last = at[NET_HEADER_BYTES];
		got++;
	}
	assert_int_equal(got, 6);
	memset(model_at(&rig->memory, DATA_AT + 0x20000), 0, 12 * 2048);
	while (model_ring_used(&rig->ring[1], &head, &written))
		got++;
	end(rig, ret_outcome);
}

static void a_cards_queues(void **state)
{
	(void)state;
	at_every_step(net_run, 500);
}

static void a_control_queue_stays(void **state)
{
	struct rig *rig = rig_create(VIRTIO_KIND_NET);

	(void)state;
	assert_int_equal(virtio_front_leave(rig->half[0].front, 2), -EBUSY); /* it is not enabled */
	rig->published.queue[2] = rig->published.queue[1];
	driver_starts(rig);
	assert_int_equal(virtio_front_leave(rig->half[0].front, 2), -EOPNOTSUPP);
	assert_int_equal(virtio_front_leave(rig->half[0].front, 9), -EBUSY);
	rig_destroy(rig);
}

/* --- random numbers ------------------------------------------------------------------------------- */

static void rng_run(const struct variant *variant, struct outcome *ret_outcome)
{
	struct rig *rig = begin(VIRTIO_KIND_RNG, variant);
	uint32_t head, written, used = 0;

	for (uint32_t i = 0; i < 8; i++) {
		struct model_buffer two[2] = { { DATA_AT + 4090 + i * 4096, 10, true },
					       { DATA_AT + 0x10000 + i * 64, 50, true } };

		model_ring_add(&rig->ring[0], two, 2, 0);
		if (i % 2)
			settle(rig);
	}
	while (model_ring_used(&rig->ring[0], &head, &written)) {
		assert_int_equal(written, 60);
		used++;
	}
	assert_int_equal(used, 8);
	end(rig, ret_outcome);
}

static void the_source_of_random_numbers(void **state)
{
	(void)state;
	at_every_step(rng_run, 200);
}

/* --- lives ---------------------------------------------------------------------------------------- */

static void resets_and_pauses(void **state)
{
	struct rig *rig = rig_create(VIRTIO_KIND_BLOCK);
	struct virtio_front *here = rig->half[0].front, *there = rig->half[1].front;
	struct virtio_queue_state given;

	(void)state;
	/* Who has not got it does nothing. */
	add(rig, 0, FLUSH, 0, 0, 0);
	virtio_front_work(there, 0);
	assert_int_equal(rig->half[1].disk.count, 0);
	assert_int_equal(virtio_front_leave(there, 0), -EBUSY);
	/* What is with the disk is waited for; what comes meanwhile stays in the ring. */
	virtio_front_work(here, 0);
	assert_int_equal(rig->half[0].disk.count, 1);
	assert_int_equal(virtio_front_give(here, 0, &given), -EBUSY); /* it is not leaving */
	assert_int_equal(virtio_front_leave(here, 0), 0);
	assert_int_equal(virtio_front_give(here, 0, &given), -EBUSY);
	add(rig, 2, FLUSH, 0, 0, 0);
	virtio_front_work(here, 0);
	assert_int_equal(rig->half[0].disk.count, 1);
	/* It stays, after all. */
	virtio_front_stay(here, 0);
	assert_int_equal(rig->half[0].disk.count, 2);
	assert_int_equal(virtio_front_leave(here, 0), 0);
	/* A reset forgets that, and all is where it begins. */
	driver_starts(rig);
	assert_int_equal(rig->half[1].host.stopped, rig->published.generation);
	assert_true(rig->half[0].host.stopped < rig->published.generation);
	settle(rig);
	assert_int_equal(rig->half[0].host.stopped, rig->published.generation);
	add(rig, 0, FLUSH, 0, 0, 0);
	settle(rig);
	assert_int_equal(rig->half[0].disk.flushes, 3);
	/* It is given in a pause, and goes on behind it. */
	assert_int_equal(virtio_front_leave(here, 0), 0);
	assert_int_equal(virtio_front_give(here, 0, &given), 0);
	rig->published.running = false;
	publish(rig);
	add(rig, 2, FLUSH, 0, 0, 0);
	assert_int_equal(virtio_front_take(there, 0, &given), 0);
	assert_int_equal(rig->half[1].disk.count, 0);
	rig->published.running = true;
	publish(rig);
	assert_int_equal(rig->half[1].disk.count, 1);
	assert_int_equal(virtio_front_take(there, 0, &given), -EPROTO); /* it is here */
	assert_int_equal(virtio_front_take(there, QUEUES, &given), -EPROTO);
	/* Before its generation has started there is nothing to take. */
	rig->published.generation++;
	rig->published.running = false;
	publish(rig);
	assert_int_equal(virtio_front_take(there, 0, &given), -EAGAIN);
	settle(rig);
	rig_destroy(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disks_queues),
		cmocka_unit_test(a_cards_queues),
		cmocka_unit_test(a_control_queue_stays),
		cmocka_unit_test(the_source_of_random_numbers),
		cmocka_unit_test(resets_and_pauses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
