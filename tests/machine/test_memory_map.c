/* SPDX-License-Identifier: Apache-2.0 */
/* RAM ranges and e820 for every interesting size. */
#include "tests/test.h"

#include <errno.h>

#include "core/limits.h"
#include "machine/memory_map.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

/* Ranges ascend without overlap, RAM adds up but for the low megabyte's holes. */
static void check(uint64_t bytes)
{
	struct e820_range range[E820_RANGES_MAX];
	struct memory_map map;
	uint64_t sum = 0, ram = 0, end = 0;
	uint32_t count, reserved = 0;

	assert_int_equal(memory_map_build(bytes, &map), 0);
	for (uint32_t i = 0; i < map.count; i++) {
		assert_true(map.range[i].bytes > 0);
		assert_int_equal(map.range[i].gpa % CHUNK_BYTES, 0);
		sum += map.range[i].bytes;
	}
	assert_int_equal(sum, bytes);
	count = memory_map_e820(&map, range);
	assert_true(count <= E820_RANGES_MAX);
	for (uint32_t i = 0; i < count; i++) {
		if (i)
			assert_true(range[i].gpa >= range[i - 1].gpa + range[i - 1].bytes);
		if (range[i].type == E820_RAM) {
			ram += range[i].bytes;
			end = range[i].gpa + range[i].bytes;
		}
		if (range[i].gpa == PCI_ECAM_GPA) {
			assert_int_equal(range[i].bytes, PCI_ECAM_BYTES);
			assert_int_equal(range[i].type, E820_RESERVED);
			reserved++;
			continue;
		}
		/* nothing else but the hole of RAM between LOW_RAM_LIMIT and 4 GiB */
		assert_false(range[i].gpa < HIGH_RAM_BASE &&
			     range[i].gpa + range[i].bytes > LOW_RAM_LIMIT);
	}
	assert_int_equal(ram, bytes - (HIMEM_GPA - EBDA_GPA));
	assert_int_equal(end, memory_map_end(&map));
	assert_int_equal(reserved, 1);
}

static void test_sizes(void **state)
{
	static const uint64_t sizes[] = { 64 * MIB,	     256 * MIB, 3 * GIB - 2 * MIB, 3 * GIB,
					  3 * GIB + 2 * MIB, 4 * GIB,	512 * GIB };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		check(sizes[i]);
	check(GPA_LIMIT - GIB);
}

static void test_ranges(void **state)
{
	struct memory_map map;

	(void)state;
	assert_int_equal(memory_map_build(3 * GIB, &map), 0);
	assert_int_equal(map.count, 1);
	assert_int_equal(memory_map_end(&map), 3 * GIB);
	assert_int_equal(memory_map_build(3 * GIB + 2 * MIB, &map), 0);
	assert_int_equal(map.count, 2);
	assert_int_equal(map.range[1].gpa, 4 * GIB);
	assert_int_equal(memory_map_end(&map), 4 * GIB + 2 * MIB);
}

static void test_refused(void **state)
{
	struct memory_map map;

	(void)state;
	assert_int_equal(memory_map_build(0, &map), -EINVAL);
	assert_int_equal(memory_map_build(62 * MIB, &map), -EINVAL);
	assert_int_equal(memory_map_build(65 * MIB, &map), -EINVAL);
	assert_int_equal(memory_map_build(64 * MIB + 4096, &map), -EINVAL);
	assert_int_equal(memory_map_build(GPA_LIMIT, &map), -E2BIG);
	assert_int_equal(memory_map_build(UINT64_MAX - CHUNK_BYTES + 1, &map), -E2BIG);
}

static void check_window(uint64_t memory, uint32_t bits, uint64_t gpa, uint64_t end)
{
	struct memory_map map;
	struct memory_range window;

	assert_int_equal(memory_map_build(memory, &map), 0);
	window = memory_map_high_window(&map, bits);
	assert_true(window.gpa == gpa && window.gpa + window.bytes == end);
}

static void test_high_window(void **state)
{
	(void)state;
	check_window(GUEST_MEMORY_MIN, 32, 0, 0); /* nothing is above 4 GiB but what may be RAM */
	check_window(GUEST_MEMORY_MIN, 36, 48 * GIB, 64 * GIB);
	check_window(47 * GIB, 36, 48 * GIB, 64 * GIB); /* the hole is a GiB */
	check_window(47 * GIB + CHUNK_BYTES, 36, 0, 0);
	check_window(GIB, 39, 384 * GIB, 512 * GIB);
	for (uint32_t bits = 44; bits <= 52; bits++)
		check_window(GIB, bits, 12288 * GIB, GPA_LIMIT);
	check_window(13000 * GIB, 48, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_high_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
