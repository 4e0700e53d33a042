/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of memory for nodes: all of it, once, in order, by their weights.
 */
#include "tests/test.h"

#include <errno.h>

#include "machine/numa.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct numa_view view;
static struct memory_map map;

static void build(uint64_t bytes, const uint64_t *weight, uint32_t count)
{
	uint64_t sum = 0, in_range = 0;
	uint32_t range = 0;

	assert_int_equal(memory_map_build(bytes, &map), 0);
	assert_int_equal(numa_view_build(&map, weight, count, &view), 0);
	assert_int_equal(view.node_count, count);
	for (uint32_t i = 0; i < view.range_count; i++) {
		/* goes on where the last one ended, in the map */
		assert_true(range < map.count);
		assert_true(view.range[i].gpa == map.range[range].gpa + in_range);
		assert_true(view.range[i].bytes > 0 && view.range[i].bytes % CHUNK_BYTES == 0);
		in_range += view.range[i].bytes;
		assert_true(in_range <= map.range[range].bytes);
		if (in_range == map.range[range].bytes) {
			range++;
			in_range = 0;
		}
		sum += view.range[i].bytes;
		assert_true(view.range[i].node < count);
		assert_true(i == 0 || view.range[i].node >= view.range[i - 1].node);
	}
	assert_true(sum == bytes);
}

static uint64_t bytes_of(uint32_t node)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < view.range_count; i++)
		sum += view.range[i].node == node ? view.range[i].bytes : 0;
	return sum;
}

static void test_parts(void **state)
{
	static const uint64_t one[] = { 5 }, two[] = { GIB, 3 * GIB }, three[] = { 7, 7, 7 };

	build(768 * MIB, one, 1);
	assert_int_equal(view.range_count, 1);
	build(1 * GIB, two, 2);
	assert_true(bytes_of(0) == 256 * MIB && bytes_of(1) == 768 * MIB);
	build(768 * MIB, three, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_true(bytes_of(i) == 256 * MIB);
	build(770 * MIB, three, 3);
	assert_true(bytes_of(2) == 258 * MIB);
}

/* One part has the hole below 4 GiB in it. */
static void test_hole(void **state)
{
	static const uint64_t three[] = { 1, 1, 1 };

	build(5 * GIB, three, 3);
	assert_int_equal(view.range_count, 4);
	assert_int_equal(view.range[1].node, 1);
	assert_true(view.range[1].gpa + view.range[1].bytes == LOW_RAM_LIMIT);
	assert_int_equal(view.range[2].node, 1);
	assert_true(view.range[2].gpa == HIGH_RAM_BASE);
}

/* Nodes without a chunk have no range, but all is given away. */
static void test_many(void **state)
{
	static uint64_t weight[NODES_MAX];

	for (uint32_t i = 0; i < NODES_MAX; i++)
		weight[i] = i + 1;
	build(64 * MIB, weight, NODES_MAX);
	build(6 * GIB, weight, NODES_MAX);
	for (uint32_t i = 0; i < NODES_MAX; i++)
		weight[i] = 1ull << 44;
	build(1ull << 43, weight, NODES_MAX);
	assert_true(bytes_of(0) == bytes_of(NODES_MAX - 1));
}

static void test_refused(void **state)
{
	static const uint64_t zero[] = { 1, 0 }, large[] = { UINT64_MAX, 1 };
	static uint64_t many[NODES_MAX + 1];

	assert_int_equal(memory_map_build(GIB, &map), 0);
	assert_int_equal(numa_view_build(&map, zero, 2, &view), -EINVAL);
	assert_int_equal(numa_view_build(&map, large, 2, &view), -EINVAL);
	assert_int_equal(numa_view_build(&map, zero, 0, &view), -EINVAL);
	for (uint32_t i = 0; i <= NODES_MAX; i++)
		many[i] = 1;
	assert_int_equal(numa_view_build(&map, many, NODES_MAX, &view), 0);
	assert_int_equal(numa_view_build(&map, many, NODES_MAX + 1, &view), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_hole),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
