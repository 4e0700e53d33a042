/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that a vCPU takes along: what is asked for, for how long, and what others may write. */
#include <errno.h>
#include <string.h>

#include "core/limits.h"
#include "core/page_hints.h"
#include "tests/rng.h"
#include "tests/test.h"

static const struct page_hint *find(const struct page_hints *hints, uint64_t gpn)
{
	for (uint32_t i = 0; i < hints->count; i++)
		if (hints->hint[i].gpn == gpn)
			return &hints->hint[i];
	return NULL;
}

/* To the next node, as a message. */
static uint32_t move(struct page_hints *hints)
{
	uint8_t bytes[PAGE_HINTS_BYTES_MAX];
	uint32_t size = page_hints_write(hints, bytes);
	struct page_hints there;

	assert_int_equal(page_hints_read(bytes, size, &there), 0);
	*hints = there;
	return page_hints_ask(hints);
}

/* Until nothing is asked for. */
static uint32_t moves_asked(struct page_hints *hints)
{
	uint32_t moves = 0;

	while (move(hints) > 0)
		assert_true(++moves < 100);
	return moves;
}

/* Wanted once: not asked for. Again: for 3 moves, then 7, and so on up to 63. */
static void test_proof(void **state)
{
	static const uint32_t want[] = { 3, 7, 15, 31, 63, 63 };
	struct page_hints hints = { 0 };

	page_hints_stalled(&hints, 32, COH_STALL_ZERO);
	assert_int_equal(hints.count, 0);
	page_hints_stalled(&hints, 32, COH_STALL_READ);
	assert_int_equal(hints.count, 1);
	assert_int_equal(moves_asked(&hints), 0);
	for (uint32_t i = 0; i < 6; i++) {
		page_hints_stalled(&hints, 32, COH_STALL_READ);
		assert_int_equal(hints.count, 1);
		assert_int_equal(moves_asked(&hints), want[i]);
	}
	/* One that is there and is written after all has not come back. */
	page_hints_stalled(&hints, 6, COH_STALL_READ);
	page_hints_stalled(&hints, 6, COH_STALL_UPGRADE);
	assert_int_equal(moves_asked(&hints), 0);
}

static void idle_moves(struct page_hints *hints, uint32_t count)
{
	while (count--)
		assert_int_equal(move(hints), 0);
}

/* How soon a page is wanted again says for how long to ask for it. */
static void test_seldom(void **state)
{
	struct page_hints hints = { 0 };

	page_hints_stalled(&hints, 32, COH_STALL_READ);
	idle_moves(&hints, 31);
	page_hints_stalled(&hints, 32, COH_STALL_READ);
	assert_int_equal(moves_asked(&hints), 3);
	idle_moves(&hints, 6);
	page_hints_stalled(&hints, 32, COH_STALL_READ);
	assert_int_equal(moves_asked(&hints), 7);
	idle_moves(&hints, 12); /* neither soon nor late */
	page_hints_stalled(&hints, 32, COH_STALL_READ);
	assert_int_equal(moves_asked(&hints), 7);
	idle_moves(&hints, 100);
	page_hints_stalled(&hints, 32, COH_STALL_READ);
	assert_int_equal(moves_asked(&hints), 3);
}

/* A stall while it is still asked for does not count twice. */
static void test_renewed(void **state)
{
	struct page_hints hints = { 0 };

	page_hints_stalled(&hints, 8, COH_STALL_WRITE);
	for (int i = 0; i < 5; i++)
		page_hints_stalled(&hints, 8, COH_STALL_WRITE);
	assert_int_equal(moves_asked(&hints), 3);
}

/* What was proven together does not end together: pages of a stack lie side by side. */
static void test_staggered(void **state)
{
	struct page_hints hints = { 0 };
	uint32_t ended, asked;

	for (int level = 0; level < 4; level++) {
		for (uint64_t gpn = 100; gpn < 132; gpn++)
			page_hints_stalled(&hints, gpn, COH_STALL_WRITE);
		asked = move(&hints);
		assert_int_equal(asked, level ? 32 : 0);
		for (uint32_t now, moves = 0; asked; asked = now) {
			now = move(&hints);
			ended = asked - now;
			moves++;
			assert_true(ended <= 16);
			if (level > 1)
				assert_true(ended <= 8);
			if (level == 3)
				assert_true(moves <= 15 && ended <= 4);
		}
	}
}

static bool writes(const struct page_hints *hints)
{
	return find(hints, 5)->write;
}

static void test_write(void **state)
{
	struct page_hints hints = { 0 };

	page_hints_stalled(&hints, 5, COH_STALL_READ);
	assert_false(writes(&hints));
	page_hints_stalled(&hints, 5, COH_STALL_UPGRADE);
	assert_true(writes(&hints));
	/* Read when it was no longer asked for: once that is no proof, twice it is. */
	page_hints_stalled(&hints, 5, COH_STALL_READ);
	assert_true(writes(&hints));
	moves_asked(&hints);
	page_hints_stalled(&hints, 5, COH_STALL_READ);
	assert_false(writes(&hints));
	/* Written in between: the doubt is over. */
	page_hints_stalled(&hints, 5, COH_STALL_WRITE);
	moves_asked(&hints);
	page_hints_stalled(&hints, 5, COH_STALL_READ);
	page_hints_stalled(&hints, 5, COH_STALL_UPGRADE);
	moves_asked(&hints);
	page_hints_stalled(&hints, 5, COH_STALL_READ);
	assert_true(writes(&hints));
	/* Somebody has taken it while it was asked for. */
	page_hints_stalled(&hints, 5, COH_STALL_READ);
	assert_false(writes(&hints));
}

/* A scan takes no proven page's place. */
static void test_room(void **state)
{
	struct page_hints hints = { 0 };

	for (uint64_t gpn = 1; gpn <= 40; gpn++) {
		page_hints_stalled(&hints, gpn, COH_STALL_READ);
		page_hints_stalled(&hints, gpn, COH_STALL_READ);
	}
	for (uint64_t gpn = 1000; gpn < 2000; gpn++)
		page_hints_stalled(&hints, gpn, COH_STALL_READ);
	assert_int_equal(hints.count, PAGE_HINTS_MAX);
	for (uint64_t gpn = 1; gpn <= 40; gpn++)
		assert_non_null(find(&hints, gpn));
	assert_int_equal(hints.hint[0].gpn, 1999);
	assert_int_equal(move(&hints), 40);
	/* Where all are proven, the oldest goes. */
	memset(&hints, 0, sizeof(hints));
	for (uint64_t gpn = 1; gpn <= PAGE_HINTS_MAX + 1; gpn++) {
		page_hints_stalled(&hints, gpn, COH_STALL_READ);
		page_hints_stalled(&hints, gpn, COH_STALL_READ);
	}
	assert_null(find(&hints, 1));
	assert_non_null(find(&hints, 2));
	assert_int_equal(hints.count, PAGE_HINTS_MAX);
}

/* gpn, turns, level and flags are where they are; nobody says more. */
static void test_bytes(void **state)
{
	struct page_hints hints = { 0 }, untouched;
	uint8_t bytes[PAGE_HINTS_BYTES_MAX + PAGE_HINT_BYTES] = { 0 };
	static const uint8_t want[] = { 2 << 5 | 1 << 2 | 1, 5 << 3, 0x45, 0x23, 1, 0, 0, 0 };

	page_hints_stalled(&hints, 0x12345, COH_STALL_READ);
	page_hints_stalled(&hints, 0x12345, COH_STALL_WRITE);
	hints.hint[0].idle = 5;
	assert_int_equal(page_hints_write(&hints, bytes), sizeof(want));
	assert_memory_equal(bytes, want, sizeof(want));
	memset(&untouched, 0x77, sizeof(untouched));
	hints = untouched;
	assert_int_equal(page_hints_read(bytes, 7, &hints), -EBADMSG);
	assert_int_equal(page_hints_read(bytes, sizeof(bytes), &hints), -EBADMSG);
	bytes[0] = 4 << 5 | 1 << 2; /* more turns than the level has */
	assert_int_equal(page_hints_read(bytes, 8, &hints), -EBADMSG);
	bytes[0] = 1 << 5 | 6 << 2; /* a level that is none */
	assert_int_equal(page_hints_read(bytes, 8, &hints), -EBADMSG);
	memset(bytes, 0, 8);
	bytes[7] = 1; /* a page above all */
	assert_true(1ull << 40 >= GPN_LIMIT);
	assert_int_equal(page_hints_read(bytes, 8, &hints), -EBADMSG);
	assert_memory_equal(&hints, &untouched, sizeof(hints));
	assert_int_equal(page_hints_read(bytes, 0, &hints), 0);
	assert_int_equal(hints.count, 0);
}

/* Anything that is believed can be gone on with. */
static void test_nonsense(void **state)
{
	struct rng rng = { 1 };
	struct page_hints hints;
	uint8_t bytes[PAGE_HINTS_BYTES_MAX];

	for (int round = 0; round < 2000; round++) {
		for (uint32_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = i % 8 == 0	? (uint8_t)(rng_below(&rng, 8) << 5 | 0x14)
				   : i % 8 == 1 ? (uint8_t)rng_below(&rng, 256)
				   : i % 8 == 2 ? (uint8_t)rng_below(&rng, 4) /* the same ones */
						: 0;
		assert_int_equal(page_hints_read(bytes, sizeof(bytes), &hints), 0);
		for (int k = 0; k < 20; k++)
			page_hints_stalled(
				&hints, rng_below(&rng, 8),
				(enum coh_stall_kind)rng_below(&rng, COH_STALL_KINDS + 1));
		assert_true(hints.count <= PAGE_HINTS_MAX);
		page_hints_ask(&hints);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proof),	cmocka_unit_test(test_seldom),
		cmocka_unit_test(test_renewed), cmocka_unit_test(test_staggered),
		cmocka_unit_test(test_write),	cmocka_unit_test(test_room),
		cmocka_unit_test(test_bytes),	cmocka_unit_test(test_nonsense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
