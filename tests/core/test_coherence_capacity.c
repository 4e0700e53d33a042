/* SPDX-License-Identifier: Apache-2.0 */
/* Capacity, directed: eviction, pushes, room. The pod's memory checks that no node has too much. */
#include "tests/core/pod.h"

static void sweep(struct pod *pod, uint32_t node, uint64_t pages, uint64_t round)
{
	for (uint64_t gpn = 0; gpn < pages; gpn++) {
		assert_int_equal(pod_read(pod, node, 0, gpn), round ? gpn * 16 + round : 0);
		pod_write(pod, node, 0, gpn, gpn * 16 + round + 1);
		pod->now_ns += 300;
	}
}

/* Guest memory is 0.875 of the sum; each node in turn touches all of it. */
static void test_sweeps(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.capacity = 2048;
	config.zero_batch = 64;
	config.readahead = 16;
	pod = pod_new(2, &config);
	for (uint64_t round = 0; round < 4; round++)
		sweep(pod, round & 1, 3584, round);
	pod_check(pod);
	pod_free(pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sweeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
