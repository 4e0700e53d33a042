/* SPDX-License-Identifier: Apache-2.0 */
/* Homes handed on, and nodes that leave, directed. */
#include "tests/core/pod.h"

#include <errno.h>

static void fill(struct pod *pod)
{
	for (uint64_t gpn = 0; gpn < 1024; gpn += 8) {
		pod_write(pod, 1, 0, gpn, gpn + 1);
		if (gpn % 16)
			pod_read(pod, 2, 0, gpn);
	}
	pod_write(pod, 3, 0, 8, 9);
}

static void verify(struct pod *pod, uint32_t node)
{
	for (uint64_t gpn = 0; gpn < 1024; gpn += 8)
		assert_int_equal(pod_read(pod, node, 0, gpn), gpn + 1);
}

/* Node 1 is home of two chunks and leaves; everything is where somebody finds it. */
static void test_release(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(4, &config);
	struct coh_stats stats;

	fill(pod);
	pod_run(pod, 10000000);
	coh_stats_get(pod->node[1].coh, &stats);
	assert_int_equal(stats.chunks_homed, 2);
	pod_release(pod, 1);
	pod_run(pod, 1000000000);
	assert_true(coh_released(pod->node[1].coh));
	assert_int_equal(pod->node[1].resident, 0);
	coh_stats_get(pod->node[1].coh, &stats);
	assert_int_equal(stats.chunks_homed, 0);
	verify(pod, 2);
	verify(pod, 3);
	verify(pod, 0);
	pod_write(pod, 0, 0, 16, 17);
	verify(pod, 3);
	pod_check(pod);
	pod_free(pod);
}

/* Two nodes leave one after the other; the second had taken over from the first. */
static void test_release_twice(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(4, &config);

	fill(pod);
	pod_release(pod, 1);
	pod_run(pod, 1000000000);
	assert_true(coh_released(pod->node[1].coh));
	pod_release(pod, 2);
	pod_run(pod, 1000000000);
	assert_true(coh_released(pod->node[2].coh));
	verify(pod, 0);
	verify(pod, 3);
	pod_check(pod);
	pod_free(pod);
}

/* Both at once. */
static void test_release_together(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(4, &config);

	fill(pod);
	pod_release(pod, 1);
	pod_release(pod, 2);
	pod_run(pod, 1000000000);
	assert_true(coh_released(pod->node[1].coh));
	assert_true(coh_released(pod->node[2].coh));
	verify(pod, 0);
	verify(pod, 3);
	pod_check(pod);
	pod_free(pod);
}

/*
 * Both at once, each the other's heir and not knowing that it leaves, too: the chunk is back at its
 * first home before the registrar has said that it was gone.
 */
static void test_release_to_each_other(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(4, &config);
	uint32_t sent = 0;

	for (uint64_t gpn = 0; gpn < 8; gpn++)
		pod_write(pod, gpn < 3 ? 1 : 2, 0, gpn, gpn + 1);
	pod->now_ns += 10000000;
	pod_release(pod, 1);
	pod_release(pod, 2);
	while (pod_peek(pod, 1, 2))
		pod_deliver(pod, 1, 2);
	while (pod_peek(pod, 2, 1)) {
		sent += pod_peek(pod, 2, 1) == COH_HOME_MOVE;
		pod_deliver(pod, 2, 1);
	}
	assert_int_not_equal(sent, 0);
	assert_int_equal(pod_peek(pod, 2, 0), COH_HOME_SET);
	pod_run(pod, 1000000000);
	assert_true(coh_released(pod->node[1].coh));
	assert_true(coh_released(pod->node[2].coh));
	for (uint64_t gpn = 0; gpn < 8; gpn++)
		assert_int_equal(pod_read(pod, 3, 0, gpn), gpn + 1);
	pod_check(pod);
	pod_free(pod);
}

/*
 * A transaction is put off by a holder that is itself queued in the frozen chunk: the move makes it
 * yield, or nobody ever got on.
 */
static void test_move_with_queue(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.hold_ns = config.hold_ns_max = 1000000000;
	pod = pod_new(4, &config);
	pod_write(pod, 1, 0, 0, 1);
	pod_write(pod, 1, 0, 8, 2);
	pod->now_ns += 2000000000;
	pod_write(pod, 2, 0, 0, 3); /* node 2 holds 0 */
	pod->now_ns += 1000;
	pod_pin(pod, 1, 1, 8, COH_WRITE);
	pod_stall(pod, 3, 0, 0, COH_WRITE); /* waits for node 2's hold */
	pod_settle(pod);
	pod_stall(pod, 2, 0, 8, COH_WRITE); /* waits for the pin */
	pod_settle(pod);
	assert_true(pod->node[3].waiting[0]);
	pod_unpin(pod, 1, 1);
	pod_release(pod, 1);
	pod_settle(pod);
	assert_false(pod->node[3].waiting[0]);
	assert_false(pod->node[2].waiting[0]);
	pod_run(pod, 10000000);
	assert_true(coh_released(pod->node[1].coh));
	pod->now_ns += 2000000000;
	assert_int_equal(pod_read(pod, 0, 0, 8), 2);
	pod_check(pod);
	pod_free(pod);
}

/* A request reaches a new home before the registrar's word does. */
static void test_request_before_home_is(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(3, &config);

	pod_stall(pod, 1, 0, 3, COH_WRITE);
	pod_deliver(pod, 1, 0);
	pod_stall(pod, 2, 0, 4, COH_WRITE);
	pod_deliver(pod, 2, 0);
	pod_deliver(pod, 0, 2);
	assert_int_equal(pod_peek(pod, 2, 1), COH_WRITE_REQ);
	pod_deliver(pod, 2, 1);
	assert_false(pod->node[1].waiting[0]);
	pod_settle(pod);
	assert_false(pod->node[2].waiting[0]);
	pod_check(pod);
	pod_free(pod);
}

/* Three members among eight numbers, none of them 0. One leaves. */
static void test_holes(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;
	struct coh_stats stats;

	member_set_add(&config.members, 1);
	member_set_add(&config.members, 3);
	member_set_add(&config.members, 6);
	config.capacity = 100;
	pod = pod_new(8, &config);
	for (uint64_t gpn = 0; gpn < 8 * CHUNK_PAGES; gpn += CHUNK_PAGES / 16) {
		pod_write(pod, 3, 0, gpn, gpn + 1);
		if (gpn % 3)
			pod_read(pod, 6, 0, gpn);
		pod_run(pod, 1000000);
	}
	coh_stats_get(pod->node[3].coh, &stats);
	assert_true(stats.evict_push_count > 0);
	pod_release(pod, 3);
	pod_run(pod, 1000000000);
	assert_true(coh_released(pod->node[3].coh));
	for (uint64_t gpn = 0; gpn < 8 * CHUNK_PAGES; gpn += CHUNK_PAGES / 16) {
		assert_int_equal(pod_read(pod, 1, 0, gpn), gpn + 1);
		pod_run(pod, 1000000);
	}
	pod_check(pod);
	pod_free(pod);
}

/* Who is no member says nothing, and nobody names him. */
static void test_strangers(void **state)
{
	struct coh_config config = pod_config();
	struct coh_msg get = { .type = COH_HOME_GET, .src = 3, .requester = 3 };
	struct coh_action action[COH_ACTIONS_MIN];
	struct coh_out out = { .action = action, .capacity = COH_ACTIONS_MIN };
	struct coh *coh;

	config.self = 1;
	config.node_count = 8;
	member_set_add(&config.members, 3);
	assert_int_equal(coh_create(&config, &coh), -EINVAL); /* it is no member itself */
	member_set_add(&config.members, 9);
	member_set_add(&config.members, 1);
	assert_int_equal(coh_create(&config, &coh), -EINVAL); /* beyond the numbers */
	member_set_remove(&config.members, 9);
	assert_int_equal(coh_create(&config, &coh), 0);
	assert_int_equal(coh_message(coh, &get, 0, &out), 0);
	get.src = get.requester = 2;
	assert_int_equal(coh_message(coh, &get, 0, &out), -EPROTO);
	get.src = 3;
	assert_int_equal(coh_message(coh, &get, 0, &out), -EPROTO);
	get.requester = 3;
	get.node = 4;
	assert_int_equal(coh_message(coh, &get, 0, &out), -EPROTO);
	coh_destroy(coh);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_release_twice),
		cmocka_unit_test(test_release_together),
		cmocka_unit_test(test_release_to_each_other),
		cmocka_unit_test(test_move_with_queue),
		cmocka_unit_test(test_request_before_home_is),
		cmocka_unit_test(test_holes),
		cmocka_unit_test(test_strangers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
