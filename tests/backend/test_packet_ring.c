/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of packets against a list: what goes in comes out, whole and in its order; what does not
 * fit is refused, and nothing else; a ring that has been emptied takes what a new one takes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/packet_ring.h"

#define SIZE  5000u
#define STEPS 200000u

struct expected {
	uint32_t bytes;
	uint8_t byte;
};

static uint64_t random_state = 7;

static uint32_t random_below(uint32_t bound)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(random_state >> 33) % bound;
}

static void check_first(struct packet_ring *ring, const struct expected *expected)
{
	uint32_t bytes = 0;
	const uint8_t *packet = packet_ring_peek(ring, &bytes);
	assert_non_null(packet);
	assert_int_equal(bytes, expected->bytes);
	for (uint32_t i = 0; i < bytes; i++)
		assert_int_equal(packet[i], expected->byte);
	packet_ring_drop(ring);
}

static void test_random(void **state)
{
	static struct expected list[STEPS];
	struct packet_ring ring;
	uint32_t first = 0, end = 0, held = 0, refused = 0, bytes;

	assert_int_equal(packet_ring_create(&ring, SIZE), 0);
	for (uint32_t step = 0; step < STEPS; step++) {
		if (random_below(16) < 7 + step / 1000 % 3) {
			struct expected new = { random_below(700), (uint8_t)random_below(256) };
			uint8_t *room = packet_ring_reserve(&ring, new.bytes);
			if (!room) {
				/* Two gaps may be between, each too small. */
				assert_true(held + 3 * PACKET_RING_TAKES(700) > SIZE);
				refused++;
				continue;
			}
			assert_true(room >= ring.memory && room + new.bytes <= ring.memory + SIZE);
			memset(room, new.byte, new.bytes);
			packet_ring_commit(&ring, new.bytes);
			list[end++] = new;
			held += (uint32_t)PACKET_RING_TAKES(new.bytes);
		} else if (first < end) {
			held -= (uint32_t)PACKET_RING_TAKES(list[first].bytes);
			check_first(&ring, &list[first++]);
		} else {
			assert_null(packet_ring_peek(&ring, &bytes));
		}
	}
	assert_true(refused > 1000);
	packet_ring_destroy(&ring);
	packet_ring_destroy(&ring);
}

/* Others are taken out while a run is on its way in, down to the last one. */
static void test_runs(void **state)
{
	static struct expected list[STEPS];
	struct packet_ring ring;
	uint32_t first = 0, end = 0, bytes;

	assert_int_equal(packet_ring_create(&ring, SIZE), 0);
	for (uint32_t step = 0; step + 4 < STEPS; step++) {
		uint8_t run[3000];
		uint32_t length = 0, count = 1 + random_below(4), whole = end;
		for (uint32_t i = 0; i < count; i++) {
			struct expected new = { 10 + random_below(500), (uint8_t)step };
			memcpy(run + length, &new.bytes, 4);
			memset(run + length + 4, new.byte, new.bytes);
			length += (uint32_t)PACKET_RING_TAKES(new.bytes);
			list[(end + i) % STEPS] = new;
		}
		assert_int_equal(packet_run_check(run, length, 10, 510), count);
		uint8_t *room = packet_ring_reserve_run(&ring, length);
		assert_true(room || first < end);
		if (room) {
			assert_true(room >= ring.memory && room + length <= ring.memory + SIZE);
			end += count;
		}
		for (uint32_t i = random_below(12); i > 0 && first < whole; i--, first++)
			check_first(&ring, &list[first % STEPS]);
		if (first == whole)
			assert_null(packet_ring_peek(&ring, &bytes));
		if (room) {
			memcpy(room, run, length);
			packet_ring_commit_run(&ring, length);
		}
	}
	assert_true(end > STEPS / 2);
	packet_ring_destroy(&ring);
}

static void test_no_runs(void **state)
{
	static const uint8_t bad[][12] = {
		{ 1 }, { 9 }, { 5 }, { 0, 0, 0, 1 }, { 255, 255, 255, 255 }
	};
	static const uint8_t good[12] = { 3, 0, 0, 0, 1, 2, 3, 0, 2 };

	assert_int_equal(packet_run_check(good, 0, 2, 8), 0);
	assert_int_equal(packet_run_check(good, 8, 2, 8), 1);
	for (size_t cut = 1; cut < 8; cut++)
		assert_int_equal(packet_run_check(good, cut, 2, 8), -EPROTO);
	assert_int_equal(packet_run_check(good, 12, 2, 8), -EPROTO);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(packet_run_check(bad[i], 8, 2, 8), -EPROTO);
}

static void test_full(void **state)
{
	struct packet_ring ring;
	uint32_t bytes;

	assert_int_equal(packet_ring_create(&ring, SIZE), 0);
	assert_null(packet_ring_reserve(&ring, SIZE));
	assert_null(packet_ring_reserve(&ring, UINT32_MAX - 8));
	for (int round = 0; round < 3; round++) {
		assert_non_null(packet_ring_reserve(&ring, SIZE - 4));
		packet_ring_commit(&ring, SIZE - 4);
		assert_null(packet_ring_reserve(&ring, 0));
		assert_non_null(packet_ring_peek(&ring, &bytes));
		if (round == 1)
			packet_ring_clear(&ring);
		else
			packet_ring_drop(&ring);
		assert_null(packet_ring_peek(&ring, &bytes));
	}
	packet_ring_destroy(&ring);
}

static void test_pieces(void **state)
{
	uint8_t a[3] = { 0 }, b[1] = { 0 }, c[9] = { 0 }, all[16];
	struct iovec iov[3] = { { a, 3 }, { b, 1 }, { c, 9 } };

	memcpy(a, "\0\0a", 3);
	b[0] = 'b';
	memcpy(c, "cdef", 4);
	assert_int_equal(packet_gather(iov, 3, all, sizeof(all)), 13);
	assert_memory_equal(all, "\0\0abcdef\0\0\0\0\0", 13);
	assert_int_equal(packet_gather(iov, 3, all, 13), 13);
	assert_int_equal(packet_gather(iov, 3, all, 12), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random), cmocka_unit_test(test_full),
		cmocka_unit_test(test_runs),   cmocka_unit_test(test_no_runs),
		cmocka_unit_test(test_pieces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
