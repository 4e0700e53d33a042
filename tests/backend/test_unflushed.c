/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not flushed yet, against a model: two copies of a small disk. One has all that was done; the
 * other, which is the server's after it has lost what it may lose, becomes the same by what is kept.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/unflushed.h"
#include "tests/rng.h"

#define BLOCK  4096u
#define BLOCKS 512u
#define BYTES  (BLOCK * BLOCKS)

static uint8_t memory[DISK_BYTES_MAX];

struct model {
	struct unflushed *u;
	uint64_t mark;
	uint8_t all[BYTES], marked[BYTES], flushed[BYTES], server[BYTES];
};

static struct disk_request request_of(enum disk_op op, uint64_t offset, uint64_t length,
				      struct iovec iov[2])
{
	uint64_t part = length / 3;
	iov[0] = (struct iovec){ memory, part };
	iov[1] = (struct iovec){ memory + part, length - part };
	return (struct disk_request){ .op = op,
				      .offset = offset,
				      .length = length,
				      .iov = op == DISK_WRITE ? iov : NULL,
				      .iov_count = op == DISK_WRITE ? 2 : 0,
				      .unmap = op == DISK_DISCARD };
}

/* What is discarded has a value of its own: its order is seen, too. */
static void apply(uint8_t *disk, enum disk_op op, uint64_t offset, uint64_t length,
		  const uint8_t *data)
{
	if (op == DISK_WRITE)
		memcpy(disk + offset, data, length);
	else
		memset(disk + offset, op == DISK_ZERO ? 0 : 0xdd, length);
}

static void write_again(struct model *m, uint64_t number)
{
	struct unflushed_record record;
	unflushed_get(m->u, number, &record);
	uint64_t offset = record.offset;
	assert_int_equal(record.unmap, record.op == DISK_DISCARD);
	if (record.op != DISK_WRITE) {
		assert_int_equal(record.data_count, 0);
		apply(m->server, record.op, offset, record.length, memory);
		return;
	}
	for (uint32_t i = 0; i < record.data_count; i++) {
		assert_int_equal(record.data[i].iov_len % BLOCK, 0);
		apply(m->server, DISK_WRITE, offset, record.data[i].iov_len,
		      record.data[i].iov_base);
		offset += record.data[i].iov_len;
	}
	assert_int_equal(offset, record.offset + record.length);
}

/* The server comes back with what was flushed, and any part of the rest; a batch in any order. */
static void replay(struct model *m, struct rng *rng)
{
	uint64_t first = unflushed_first(m->u), end = unflushed_end(m->u);
	memcpy(m->server, m->flushed, BYTES);
	for (uint64_t n = first; n < end; n++)
		if (rng_below(rng, 3) == 0)
			write_again(m, n);
	for (uint64_t n = first; n < end;) {
		uint32_t count = unflushed_batch(m->u, n);
		assert_in_range(count, 1, UNFLUSHED_TOGETHER);
		for (uint32_t i = count; i-- > 0;)
			write_again(m, n + i);
		n += count;
	}
	assert_int_equal(unflushed_batch(m->u, end), 0);
	assert_memory_equal(m->server, m->all, BYTES);
}

static void flush_sent(struct model *m)
{
	m->mark = unflushed_end(m->u);
	memcpy(m->marked, m->all, BYTES);
}

static void flush_done(struct model *m)
{
	unflushed_flushed(m->u, m->mark);
	memcpy(m->flushed, m->marked, BYTES);
}

/* One request; when there is no room a flush makes some. */
static void change(struct model *m, struct rng *rng)
{
	static const enum disk_op ops[] = { DISK_WRITE, DISK_WRITE, DISK_ZERO, DISK_DISCARD };
	struct iovec iov[2];
	enum disk_op op = ops[rng_below(rng, 4)];
	uint32_t first = rng_below(rng, BLOCKS);
	uint32_t blocks = rng_below(rng, BLOCKS - first < 64 ? BLOCKS - first : 64) + 1;
	struct disk_request request =
		request_of(op, (uint64_t)first * BLOCK, (uint64_t)blocks * BLOCK, iov);
	for (uint32_t i = 0; op == DISK_WRITE && i < blocks; i++)
		memset(memory + (size_t)i * BLOCK, (int)rng_below(rng, 256), BLOCK);
	if (!unflushed_reserve(m->u, &request)) {
		assert_true(unflushed_wants_flush(m->u));
		flush_sent(m);
		flush_done(m);
		assert_true(unflushed_reserve(m->u, &request));
	}
	if (rng_below(rng, 10) == 0) {
		unflushed_release(m->u, &request); /* it has failed */
		return;
	}
	unflushed_add(m->u, &request);
	apply(m->all, op, request.offset, request.length, memory);
}

static void test_random(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	struct rng rng = { 7 };
	assert_int_equal(unflushed_create(&m->u), 0);
	for (uint32_t i = 0; i < 3000; i++) {
		change(m, &rng);
		if (rng_below(&rng, 50) == 0)
			flush_sent(m);
		if (rng_below(&rng, 50) == 0)
			flush_done(m);
		if (rng_below(&rng, 100) == 0)
			replay(m, &rng);
	}
	replay(m, &rng);
	unflushed_destroy(m->u);
	free(m);
}

static void add(struct unflushed *u, enum disk_op op, uint64_t offset, uint64_t length)
{
	struct iovec iov[2];
	struct disk_request request = request_of(op, offset, length, iov);
	assert_true(unflushed_reserve(u, &request));
	unflushed_add(u, &request);
}

/* A flush covers what was done when it was sent. */
static void test_marks(void **state)
{
	struct unflushed *u;
	assert_int_equal(unflushed_create(&u), 0);
	assert_int_equal(unflushed_batch(u, 0), 0);
	add(u, DISK_WRITE, 0, BLOCK);
	add(u, DISK_WRITE, BLOCK, BLOCK);
	uint64_t one = unflushed_end(u);
	add(u, DISK_ZERO, 0, BLOCK);
	uint64_t two = unflushed_end(u);
	add(u, DISK_WRITE, 0, BLOCK);
	unflushed_flushed(u, two);
	assert_int_equal(unflushed_first(u), two);
	unflushed_flushed(u, one); /* its answer comes later */
	assert_int_equal(unflushed_first(u), two);
	assert_int_equal(unflushed_end(u), two + 1);
	unflushed_destroy(u);
}

/* What overlaps goes in order, and no more than so many at once. */
static void test_batches(void **state)
{
	struct unflushed *u;
	assert_int_equal(unflushed_create(&u), 0);
	add(u, DISK_WRITE, 8 * BLOCK, 4 * BLOCK);
	add(u, DISK_DISCARD, 0, 8 * BLOCK);
	add(u, DISK_ZERO, 12 * BLOCK, 1ull << 40);
	add(u, DISK_WRITE, 11 * BLOCK, BLOCK);
	add(u, DISK_ZERO, 7 * BLOCK, BLOCK);
	assert_int_equal(unflushed_batch(u, 0), 3);
	assert_int_equal(unflushed_batch(u, 1), 3);
	assert_int_equal(unflushed_batch(u, 3), 2);
	for (uint32_t i = 0; i < 2 * UNFLUSHED_TOGETHER; i++)
		add(u, DISK_WRITE, (100 + i) * BLOCK, BLOCK);
	assert_int_equal(unflushed_batch(u, 5), UNFLUSHED_TOGETHER);
	unflushed_destroy(u);
}

/* Full of records, or of bytes: who has room reserved gets it, others none, until there was a flush. */
static void test_bounds(void **state)
{
	struct unflushed *u;
	struct iovec iov[2];
	struct disk_request large = request_of(DISK_WRITE, 0, DISK_BYTES_MAX, iov);
	struct disk_request small = request_of(DISK_DISCARD, 0, BLOCK, iov);
	assert_int_equal(unflushed_create(&u), 0);
	assert_true(unflushed_reserve(u, &large) && unflushed_reserve(u, &large));
	assert_false(unflushed_reserve(u, &large));
	assert_true(unflushed_reserve(u, &small));
	assert_false(unflushed_wants_flush(u));
	unflushed_release(u, &large);
	assert_true(unflushed_reserve(u, &large));
	unflushed_add(u, &large);
	assert_false(unflushed_wants_flush(u)); /* half */
	unflushed_add(u, &large);
	assert_true(unflushed_wants_flush(u));
	unflushed_add(u, &small);
	assert_false(unflushed_reserve(u, &large));
	unflushed_flushed(u, unflushed_end(u));
	assert_false(unflushed_wants_flush(u));
	for (uint32_t i = 0; i < UNFLUSHED_RECORDS; i++) {
		assert_int_equal(unflushed_wants_flush(u), i > UNFLUSHED_RECORDS / 2);
		add(u, DISK_DISCARD, 0, BLOCK);
	}
	assert_false(unflushed_reserve(u, &small));
	unflushed_flushed(u, unflushed_first(u) + 1);
	assert_true(unflushed_reserve(u, &small));
	unflushed_destroy(u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
