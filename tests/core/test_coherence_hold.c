/* SPDX-License-Identifier: Apache-2.0 */
/* Holds, ages, nudges, pins, directed. */
#include <errno.h>

#include "tests/core/pod.h"

#define HOLD_NS 10000u

static struct pod *hold_pod(uint32_t nodes)
{
	struct coh_config config = pod_config();

	config.hold_ns = HOLD_NS;
	config.hold_ns_max = HOLD_NS; /* no adapting here */
	return pod_new(nodes, &config);
}

static void advance(struct pod *pod, uint64_t ns)
{
	pod->now_ns += ns;
	for (uint32_t i = 0; i < pod->node_count; i++)
		pod_tick(pod, i);
}

/* A taking by a younger actor waits for the hold, and no longer. */
static void test_fresh_grant_is_held(void **state)
{
	struct pod *pod = hold_pod(2);

	pod_write(pod, 0, 0, 7, 1);
	advance(pod, 100);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_settle(pod);
	assert_true(pod->node[1].waiting[0]);
	assert_int_equal(pod->node[0].access[7], COH_WRITE);
	advance(pod, HOLD_NS - 200);
	pod_settle(pod);
	assert_true(pod->node[1].waiting[0]);
	advance(pod, 200);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[0]);
	pod_free(pod);
}

/* Time spent stalled on another page does not use the hold up. */
static void test_hold_is_running_time(void **state)
{
	struct pod *pod = hold_pod(3);

	pod_write(pod, 2, 0, 9, 1);
	pod_run(pod, 1000000);
	pod_pin(pod, 2, 1, 9, COH_WRITE);
	pod_write(pod, 0, 0, 7, 1);
	advance(pod, 100);
	pod_stall(pod, 0, 0, 9, COH_READ); /* pinned elsewhere: takes long */
	pod_settle(pod);
	advance(pod, 100);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_run(pod, 100 * HOLD_NS);
	assert_true(pod->node[1].waiting[0]);
	pod_unpin(pod, 2, 1);
	pod_run(pod, HOLD_NS / 2);
	assert_false(pod->node[0].waiting[0]);
	assert_true(pod->node[1].waiting[0]);
	pod_run(pod, 3 * HOLD_NS);
	assert_false(pod->node[1].waiting[0]);
	pod_free(pod);
}

static void test_reading_hold_lets_readers_in(void **state)
{
	struct pod *pod = hold_pod(2);

	pod_write(pod, 0, 1, 6, 1);
	pod_run(pod, 1000000);
	pod_stall(pod, 0, 0, 7, COH_READ); /* owner of a zero page, but only reading */
	advance(pod, 100);
	pod_stall(pod, 1, 0, 7, COH_READ);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[0]);
	pod_free(pod);
}

/* An older episode takes at once. */
static void test_older_takes(void **state)
{
	struct pod *pod = hold_pod(3);

	pod_write(pod, 2, 0, 9, 1);
	pod_run(pod, 1000000);
	pod_pin(pod, 2, 1, 9, COH_WRITE);
	pod_stall(pod, 1, 0, 9, COH_WRITE); /* node 1's episode begins */
	pod_settle(pod);
	advance(pod, 1000);
	pod_write(pod, 0, 0, 7, 1); /* a younger one */
	pod_unpin(pod, 2, 1);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[0]);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[0]);
	pod_free(pod);
}

/* An older request queues behind a younger one that waits for a hold: NUDGE. */
static void test_nudge(void **state)
{
	struct pod *pod = hold_pod(4);

	pod_write(pod, 3, 0, 600, 1);
	pod_run(pod, 1000000);
	pod_pin(pod, 3, 1, 600, COH_WRITE);
	pod_stall(pod, 2, 0, 600, COH_WRITE); /* the oldest */
	pod_settle(pod);
	advance(pod, 1000);
	pod_write(pod, 0, 0, 7, 1);
	advance(pod, 1000);
	pod_stall(pod, 1, 0, 7, COH_WRITE); /* the youngest: waits for the hold */
	pod_settle(pod);
	assert_true(pod->node[1].waiting[0]);
	pod_unpin(pod, 3, 1);
	pod_settle(pod);
	assert_false(pod->node[2].waiting[0]);
	pod_stall(pod, 2, 0, 7, COH_WRITE);
	pod_settle(pod);
	assert_false(pod->node[2].waiting[0]);
	assert_false(pod->node[1].waiting[0]);
	assert_int_equal(pod->node[2].access[7], COH_WRITE);
	pod_free(pod);
}

/* An older actor joins a request of its node that is out, its grant come, an ack missing: HURRY. */
static void test_hurry(void **state)
{
	struct pod *pod = hold_pod(3);

	pod_write(pod, 0, 0, 9, 1);
	pod_write(pod, 0, 0, 7, 1);
	pod_run(pod, 1000000);
	pod_pin(pod, 0, 2, 9, COH_WRITE);
	pod_stall(pod, 1, 0, 9, COH_WRITE); /* the oldest, on node 1 */
	pod_settle(pod);
	advance(pod, 1000);
	pod_read(pod, 2, 0, 7);
	advance(pod, 1000);
	pod_stall(pod, 1, 1, 7, COH_WRITE); /* the youngest: node 2 holds its copy */
	pod_settle(pod);
	assert_true(pod->node[1].waiting[1]);
	assert_int_equal(pod->node[1].access[7], COH_READ); /* data is here, the ack is not */
	pod_unpin(pod, 0, 2);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[0]);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_settle(pod);
	assert_int_equal(pod_count(pod, COH_HURRY), 1);
	assert_false(pod->node[1].waiting[0]);
	assert_false(pod->node[1].waiting[1]);
	pod_free(pod);
}

/* Two sharers that hold their copies and both want to write: neither waits for its own hold. */
static void test_two_upgrades(void **state)
{
	struct pod *pod = hold_pod(3);

	pod_write(pod, 0, 0, 7, 1);
	pod_run(pod, 1000000);
	pod_stall(pod, 1, 0, 7, COH_READ);
	pod_stall(pod, 2, 0, 7, COH_READ);
	pod_settle(pod);
	advance(pod, 10);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_stall(pod, 2, 0, 7, COH_WRITE);
	pod_run(pod, 2 * HOLD_NS);
	assert_false(pod->node[1].waiting[0]);
	assert_false(pod->node[2].waiting[0]);
	pod_free(pod);
}

static void test_pin(void **state)
{
	struct pod *pod = hold_pod(2);

	pod_pin(pod, 0, 0, 7, COH_WRITE);
	assert_true(pod->node[0].pinned[0]);
	pod_stall(pod, 1, 0, 7, COH_READ);
	pod_run(pod, 100 * HOLD_NS);
	assert_true(pod->node[1].waiting[0]);
	pod_unpin(pod, 0, 0);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[0]);
	/* A pin for reading lets readers in, not writers. */
	pod_pin(pod, 0, 0, 7, COH_READ);
	pod_stall(pod, 1, 1, 7, COH_WRITE);
	pod_run(pod, 100 * HOLD_NS);
	assert_true(pod->node[1].waiting[1]);
	pod_unpin(pod, 0, 0);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[1]);
	pod_free(pod);
}

/* Only what is here is pinned at once, and then stays as any pin; two by two actors. */
static void test_pin_here(void **state)
{
	struct pod *pod = hold_pod(2);

	pod_write(pod, 1, 0, 7, 1);
	pod_write(pod, 0, 0, 8, 1);
	pod_read(pod, 1, 0, 8);
	pod_run(pod, 100 * HOLD_NS);
	assert_int_equal(pod_pin_here(pod, 0, 1, 7, COH_WRITE), -EAGAIN);
	assert_int_equal(pod_pin_here(pod, 0, 1, 8, COH_WRITE), -EAGAIN);
	assert_false(pod->node[0].pinned[1]);
	assert_int_equal(pod->node[0].access[7], COH_NONE);
	pod_write(pod, 0, 0, 7, 2);
	pod_write(pod, 0, 0, 8, 2);
	assert_int_equal(pod_pin_here(pod, 0, 1, 7, COH_WRITE), 0);
	assert_int_equal(pod_pin_here(pod, 0, 2, 8, COH_WRITE), 0);
	assert_true(pod->node[0].pinned[1] && pod->node[0].pinned[2]);
	assert_int_equal(pod_pin_here(pod, 0, 2, 7, COH_WRITE), -EINVAL);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_stall(pod, 1, 1, 8, COH_READ);
	pod_run(pod, 100 * HOLD_NS);
	assert_true(pod->node[1].waiting[0] && pod->node[1].waiting[1]);
	pod_unpin(pod, 0, 2);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[1]);
	assert_true(pod->node[1].waiting[0]);
	pod_unpin(pod, 0, 1);
	pod_settle(pod);
	assert_false(pod->node[1].waiting[0]);
	assert_int_equal(pod_pin_here(pod, 0, 1, 7, COH_READ), -EAGAIN);
	pod_check(pod);
	pod_free(pod);
}

/* A stall given up for another (the vCPU was kicked) leaves nobody waiting. */
static void test_abandoned_stall(void **state)
{
	struct pod *pod = hold_pod(2);

	pod_write(pod, 0, 0, 7, 1);
	pod_write(pod, 0, 0, 8, 2);
	pod_run(pod, 1000000);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_stall(pod, 1, 0, 8, COH_READ);
	pod_run(pod, 1000000);
	assert_false(pod->node[1].waiting[0]);
	assert_int_equal(pod->node[1].access[8], COH_READ);
	assert_int_equal(pod->node[1].access[7], COH_WRITE);
	pod_check(pod);
	pod_free(pod);
}

/* The hold follows what a stall costs, without what holds of others add. */
static void test_hold_follows_latency(void **state)
{
	struct coh_config config = pod_config();
	struct coh_stats stats;
	struct pod *pod;

	config.hold_ns = 1000;
	config.hold_ns_max = 100000000;
	pod = pod_new(2, &config);
	for (uint64_t gpn = 0; gpn < 64; gpn++)
		pod_write(pod, 0, 0, gpn, 1);
	pod_run(pod, 1000000);
	for (uint64_t gpn = 0; gpn < 64; gpn++) {
		pod_stall(pod, 1, 0, gpn, COH_READ);
		pod->now_ns += 200000; /* the link is slow */
		pod_settle(pod);
		assert_false(pod->node[1].waiting[0]);
		pod->now_ns += 1000;
	}
	coh_stats_get(pod->node[1].coh, &stats);
	assert_in_range(stats.hold_ns, 150000, 250000);
	coh_stats_get(pod->node[0].coh, &stats);
	assert_int_equal(stats.hold_ns, 1000);
	pod_free(pod);
}

/* Actor 0 of this node writes pages 7, 8, 9, one after the other, long after any hold. */
static void write_three(struct pod *pod, uint32_t node)
{
	for (uint64_t gpn = 7; gpn <= 9; gpn++) {
		pod_run(pod, 100 * HOLD_NS);
		pod_write(pod, node, 0, gpn, 1);
	}
	pod_run(pod, 100 * HOLD_NS);
}

static struct pod *refetching_pod(uint32_t refetch)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.hold_ns = config.hold_ns_max = HOLD_NS;
	config.refetch = refetch;
	pod = pod_new(2, &config);
	write_three(pod, 0);
	write_three(pod, 1); /* 0 has lost them */
	write_three(pod, 0); /* and wanted them back */
	write_three(pod, 1);
	return pod;
}

/* One stall brings what was lost, and was wanted back before, with the access it had. */
static void test_lost_come_back_together(void **state)
{
	struct pod *pod = refetching_pod(8);

	pod_read(pod, 0, 0, 8);
	for (uint64_t gpn = 7; gpn <= 9; gpn++) {
		assert_int_equal(pod->node[0].access[gpn], COH_WRITE);
		assert_int_equal(pod->node[1].access[gpn], COH_NONE);
	}
	pod_free(pod);

	pod = refetching_pod(0);
	pod_read(pod, 0, 0, 8);
	assert_int_equal(pod->node[0].access[8], COH_READ);
	assert_int_equal(pod->node[0].access[7], COH_NONE);
	pod_free(pod);

	pod = refetching_pod(1);
	pod_read(pod, 0, 0, 8);
	assert_int_equal(pod->node[0].access[7] + pod->node[0].access[9], COH_WRITE);
	pod_free(pod);
}

/* A page that is not stalled on for long is no longer fetched. */
static void test_unwanted_stay_away(void **state)
{
	struct pod *pod = refetching_pod(8);
	uint32_t turns = 0;

	for (; turns < 100; turns++) {
		pod_write(pod, 0, 0, 8, 1);
		if (pod->node[0].access[7] == COH_NONE)
			break;
		write_three(pod, 1);
	}
	assert_in_range(turns, 2, 20);
	assert_int_equal(pod->node[0].access[8], COH_WRITE);
	pod_free(pod);
}

/* Who read a page and then wrote it asks for both at once, the next times that it comes back. */
static void test_read_to_write(void **state)
{
	struct pod *pod = hold_pod(2);

	pod_write(pod, 1, 0, 7, 1);
	for (uint32_t turn = 0; turn < 6; turn++) {
		pod_run(pod, 100 * HOLD_NS);
		pod_read(pod, 0, 0, 7);
		assert_int_equal(pod->node[0].access[7],
				 turn >= 1 && turn <= 3 ? COH_WRITE : COH_READ);
		if (turn == 0) {
			pod_run(pod, 100 * HOLD_NS);
			pod_write(pod, 0, 0, 7, 2);
		}
		pod_run(pod, 100 * HOLD_NS);
		pod_write(pod, 1, 0, 7, 3);
	}
	pod_free(pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_to_write),
		cmocka_unit_test(test_lost_come_back_together),
		cmocka_unit_test(test_unwanted_stay_away),
		cmocka_unit_test(test_fresh_grant_is_held),
		cmocka_unit_test(test_hold_is_running_time),
		cmocka_unit_test(test_reading_hold_lets_readers_in),
		cmocka_unit_test(test_older_takes),
		cmocka_unit_test(test_nudge),
		cmocka_unit_test(test_hurry),
		cmocka_unit_test(test_two_upgrades),
		cmocka_unit_test(test_pin),
		cmocka_unit_test(test_pin_here),
		cmocka_unit_test(test_abandoned_stall),
		cmocka_unit_test(test_hold_follows_latency),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
