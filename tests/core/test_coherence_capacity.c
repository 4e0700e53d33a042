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

/* Node 0 is full of pages homed at node 1 and wants one more. */
static struct pod *full_pod(void)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.capacity = 8;
	pod = pod_new(3, &config);
	pod_write(pod, 1, 0, 0, 100);
	for (uint64_t gpn = 1; gpn <= 8; gpn++)
		pod_write(pod, 0, 0, gpn, 100 + gpn);
	pod_run(pod, 10000000);
	assert_int_equal(pod->node[0].resident, 8);
	return pod;
}

/* The messages from node 0 to whom it asks for room, and back, until PUSH_REQ is under way. */
static void until_push_req(struct pod *pod)
{
	for (uint32_t i = 0; i < 10 && pod_peek(pod, 0, 1) != COH_PUSH_REQ; i++) {
		for (uint32_t k = 1; k <= 2; k++) {
			if (pod_peek(pod, 0, k) == COH_ROOM_GET) {
				pod_deliver(pod, 0, k);
				pod_deliver(pod, k, 0);
			}
		}
	}
	assert_int_equal(pod_peek(pod, 0, 1), COH_PUSH_REQ);
}

static void test_push(void **state)
{
	struct pod *pod = full_pod();

	pod_stall(pod, 0, 0, 9, COH_WRITE);
	until_push_req(pod);
	pod_settle(pod);
	assert_false(pod->node[0].waiting[0]);
	assert_int_equal(pod->node[0].access[1], COH_NONE); /* the oldest */
	assert_int_equal(pod_count(pod, COH_PUSH_DATA), 1);
	assert_int_equal(pod_read(pod, 2, 0, 1), 101);
	pod_check(pod);
	pod_free(pod);
}

/* Somebody takes the page while its pusher asks: PUSH_NO, and another page goes. */
static void test_push_races_forward(void **state)
{
	struct pod *pod = full_pod();

	pod_stall(pod, 2, 0, 1, COH_WRITE);
	if (pod_peek(pod, 2, 0) == COH_HOME_GET) {
		pod_deliver(pod, 2, 0);
		pod_deliver(pod, 0, 2);
	}
	pod_stall(pod, 0, 0, 9, COH_WRITE);
	until_push_req(pod);
	pod_deliver(pod, 2, 1); /* WRITE_REQ */
	assert_int_equal(pod_peek(pod, 1, 0), COH_FWD_WRITE);
	pod_deliver(pod, 0, 1); /* PUSH_REQ */
	pod_deliver(pod, 1, 0);
	assert_int_equal(pod_peek(pod, 1, 0), COH_PUSH_NO);
	pod_run(pod, 10000000);
	assert_false(pod->node[0].waiting[0]);
	assert_false(pod->node[2].waiting[0]);
	assert_int_equal(pod->node[2].content[1], 101);
	pod_check(pod);
	pod_free(pod);
}

/* The page is wanted again before PUSH_GO comes: the push is called off. */
static void test_push_refused(void **state)
{
	struct pod *pod = full_pod();
	struct coh_stats stats;

	pod_stall(pod, 0, 0, 9, COH_WRITE);
	until_push_req(pod);
	pod_pin(pod, 0, 1, 1, COH_WRITE);
	assert_true(pod->node[0].pinned[1]);
	pod_deliver(pod, 0, 1);
	assert_int_equal(pod_peek(pod, 1, 0), COH_PUSH_GO);
	pod_run(pod, 10000000);
	assert_int_equal(pod->node[0].access[1], COH_WRITE);
	assert_false(pod->node[0].waiting[0]);
	pod_unpin(pod, 0, 1);
	pod_run(pod, 10000000);
	for (uint32_t i = 0; i < 3; i++) {
		coh_stats_get(pod->node[i].coh, &stats);
		assert_int_equal(stats.pages_reserved, 0);
	}
	assert_int_equal(pod_read(pod, 2, 0, 1), 101);
	pod_check(pod);
	pod_free(pod);
}

/* Copies go before owned pages, and without a word. */
static void test_copies_are_dropped_first(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.capacity = 8;
	pod = pod_new(2, &config);
	for (uint64_t gpn = 0; gpn < 4; gpn++)
		pod_write(pod, 1, 0, gpn, gpn);
	pod_run(pod, 10000000);
	for (uint64_t gpn = 0; gpn < 4; gpn++)
		pod_read(pod, 0, 0, gpn);
	for (uint64_t gpn = 4; gpn < 12; gpn++) {
		pod_write(pod, 0, 0, gpn, gpn);
		pod->now_ns += 1000000;
	}
	assert_int_equal(pod_count(pod, COH_PUSH_REQ), 0);
	assert_int_equal(pod->node[0].resident, 8);
	pod_write(pod, 1, 0, 0, 7); /* invalidates a copy that is gone */
	pod_check(pod);
	pod_free(pod);
}

/* Node 0 writes pages from *gpn on, one by one, until some have left. */
static uint32_t write_until_push(struct pod *pod, uint64_t *gpn)
{
	uint32_t before = pod_count(pod, COH_PUSH_DATA);

	while (pod_count(pod, COH_PUSH_DATA) == before) {
		assert_true(*gpn < 3000);
		pod_write(pod, 0, 0, *gpn, *gpn);
		pod_settle(pod);
		pod->now_ns += 1000000;
		++*gpn;
	}
	return pod_count(pod, COH_PUSH_DATA) - before;
}

/* Slots are used up one by one, but pages leave in runs, and before the last slot is gone. */
static void test_pages_leave_in_runs(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;
	uint64_t gpn = 0, first;

	config.capacity = 2048;
	pod = pod_new(2, &config);
	assert_int_equal(write_until_push(pod, &gpn), 64);
	assert_in_range(gpn, 2048 - 2048 / 16, 2048 - 1);
	for (uint64_t i = 0; i < 64; i++)
		assert_int_equal(pod->node[1].access[i], COH_WRITE);
	for (uint32_t run = 1; run < 8; run++) {
		first = gpn;
		assert_int_equal(write_until_push(pod, &gpn), 64);
		assert_int_equal(gpn - first, 64);
	}
	for (uint64_t i = 0; i < gpn; i++)
		assert_int_equal(pod->node[1].access[i], i < 512 ? COH_WRITE : COH_NONE);
	pod_check(pod);
	pod_free(pod);
}

/* The run ends where a page must not leave, and begins again behind it. */
static void test_a_pinned_page_stays_out_of_a_run(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;
	uint64_t gpn = 0;

	config.capacity = 2048;
	pod = pod_new(2, &config);
	for (; gpn < 1500; gpn++)
		pod_write(pod, 0, 0, gpn, gpn);
	pod_pin(pod, 0, 1, 10, COH_READ);
	assert_int_equal(write_until_push(pod, &gpn), 64);
	for (uint64_t i = 0; i < 65; i++)
		assert_int_equal(pod->node[1].access[i], i == 10 ? COH_NONE : COH_WRITE);
	assert_int_equal(pod->node[0].access[10], COH_WRITE);
	pod_unpin(pod, 0, 1);
	pod_check(pod);
	pod_free(pod);
}

/* Copies go in runs, too: a reader of much costs few shootdowns. */
static void test_copies_are_dropped_in_runs(void **state)
{
	struct coh_config config = pod_config();
	uint32_t drops = 0, before = 0;
	struct pod *pod;

	config.capacity = 2048;
	config.readahead = 0;
	pod = pod_new(3, &config);
	for (uint64_t gpn = 0; gpn < 3000; gpn++)
		pod_write(pod, gpn < 1500 ? 1 : 2, 0, gpn, gpn);
	for (uint64_t gpn = 0; gpn < 3000; gpn++) {
		assert_int_equal(pod_read(pod, 0, 0, gpn), gpn);
		pod->now_ns += 1000000;
		drops += pod->node[0].resident < before;
		before = pod->node[0].resident;
	}
	assert_in_range(drops, 3000 / 64 - 2048 / 64 - 1, 3000 / 64 - 2048 / 64 + 2);
	pod_check(pod);
	pod_free(pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_push),
		cmocka_unit_test(test_push_races_forward),
		cmocka_unit_test(test_push_refused),
		cmocka_unit_test(test_copies_are_dropped_first),
		cmocka_unit_test(test_pages_leave_in_runs),
		cmocka_unit_test(test_a_pinned_page_stays_out_of_a_run),
		cmocka_unit_test(test_copies_are_dropped_in_runs),
		cmocka_unit_test(test_sweeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
