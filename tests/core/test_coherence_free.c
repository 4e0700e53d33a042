/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that become untouched again, directed: who keeps them, who is asked, what crosses it. */
#include "tests/core/pod.h"

#include <errno.h>

#define HELD_NS 10000000 /* longer than any hold of these tests */

static struct pod *small_pod(uint32_t nodes)
{
	struct coh_config config = pod_config();

	return pod_new(nodes, &config);
}

static void assert_nowhere(struct pod *pod, uint64_t gpn)
{
	for (uint32_t i = 0; i < pod->node_count; i++)
		assert_int_equal(coh_access(pod->node[i].coh, gpn), COH_NONE);
}

/* Owned by another node than the home and the asker; few messages for all pages together. */
static void test_owned(void **state)
{
	struct pod *pod = small_pod(3);

	pod_write(pod, 1, 0, 0, 7); /* node 1 is home */
	for (uint64_t gpn = 0; gpn < 64; gpn++)
		pod_write(pod, 2, 0, gpn, 100 + gpn);
	pod_run(pod, HELD_NS);
	assert_int_equal(pod_untouch(pod, 0, 0, UINT64_MAX), 0);
	pod_settle(pod);
	assert_int_equal(pod->node[0].frees, 1);
	assert_true(pod->node[0].freed == UINT64_MAX);
	assert_int_equal(pod->node[2].resident, 0);
	assert_int_equal(pod_count(pod, COH_DROP), 1);
	assert_int_equal(pod_count(pod, COH_DROPPED), 1);
	assert_int_equal(pod_read(pod, 1, 0, 5), 0);
	pod_write(pod, 0, 0, 6, 8);
	assert_int_equal(pod_read(pod, 2, 0, 6), 8);
	pod_check(pod);
	pod_free(pod);
}

/* All sharers drop theirs before the keeper is asked. */
static void test_shared(void **state)
{
	struct pod *pod = small_pod(4);

	pod_write(pod, 3, 0, 1, 7);
	for (uint32_t node = 0; node < 3; node++)
		assert_int_equal(pod_read(pod, node, 0, 1), 7);
	pod_run(pod, HELD_NS);
	assert_int_equal(pod_untouch(pod, 0, 0, 0x2), 0);
	while (!pod_peek(pod, 3, 1))
		pod_deliver(pod, 0, 3);
	assert_int_equal(pod_peek(pod, 3, 1), COH_DROP);
	pod_deliver(pod, 3, 1);
	assert_int_equal(coh_access(pod->node[3].coh, 1), COH_READ);
	pod_settle(pod);
	assert_true(pod->node[0].freed == 0x2);
	assert_nowhere(pod, 1);
	assert_int_equal(pod_read(pod, 2, 0, 1), 0);
	pod_free(pod);
}

/* A sharer has it pinned: the others are gone, it stays, and so does the keeper's. */
static void test_sharer_refuses(void **state)
{
	struct pod *pod = small_pod(4);

	pod_write(pod, 3, 0, 1, 7);
	for (uint32_t node = 0; node < 3; node++)
		assert_int_equal(pod_read(pod, node, 0, 1), 7);
	pod_run(pod, HELD_NS);
	pod_pin(pod, 2, 0, 1, COH_READ);
	assert_int_equal(pod_untouch(pod, 0, 0, 0x2), 0);
	pod_settle(pod);
	assert_int_equal(pod->node[0].frees, 1);
	assert_true(pod->node[0].freed == 0);
	assert_int_equal(coh_access(pod->node[3].coh, 1), COH_READ);
	assert_int_equal(coh_access(pod->node[2].coh, 1), COH_READ);
	pod_unpin(pod, 2, 0);
	pod_run(pod, HELD_NS);
	assert_int_equal(pod_read(pod, 1, 0, 1), 7);
	pod_write(pod, 1, 0, 1, 8);
	assert_int_equal(pod_read(pod, 2, 0, 1), 8);
	pod_check(pod);
	pod_free(pod);
}

/* What is held stays; what was never touched is not named. */
static void test_held(void **state)
{
	struct pod *pod = small_pod(2);

	pod_write(pod, 1, 0, 1, 7);
	pod_run(pod, HELD_NS);
	pod_write(pod, 1, 0, 2, 9);
	assert_int_equal(pod_untouch(pod, 0, 0, 0xe), 0);
	pod_settle(pod);
	assert_true(pod->node[0].freed == 0x2);
	assert_int_equal(pod_read(pod, 0, 0, 2), 9);
	pod_free(pod);
}

/* Who stalls while it lasts waits for its end, and gets a zero page. */
static void test_stall_meanwhile(void **state)
{
	struct pod *pod = small_pod(3);

	pod_write(pod, 1, 0, 1, 7);
	pod_write(pod, 2, 0, 1, 8);
	pod_run(pod, HELD_NS);
	assert_int_equal(pod_untouch(pod, 1, 0, 0x2), 0);
	pod_stall(pod, 0, 0, 1, COH_READ);
	for (uint32_t i = 0; i < 4 && pod_peek(pod, 0, 1) != COH_READ_REQ; i++) {
		pod_deliver(pod, 0, 1);
		while (pod_peek(pod, 1, 0))
			pod_deliver(pod, 1, 0);
	}
	pod_deliver(pod, 0, 1);
	assert_true(pod->node[0].waiting[0]);
	pod_settle(pod);
	assert_false(pod->node[0].waiting[0]);
	assert_true(pod->node[1].freed == 0x2);
	assert_int_equal(pod->node[0].content[1], 0);
	assert_int_equal(coh_access(pod->node[0].coh, 1), COH_WRITE);
	pod_check(pod);
	pod_free(pod);
}

/* Somebody asks for the page before: it is his. */
static void test_busy(void **state)
{
	struct pod *pod = small_pod(3);

	pod_write(pod, 1, 0, 1, 7);
	pod_run(pod, HELD_NS);
	pod_stall(pod, 2, 0, 1, COH_WRITE);
	while (pod_peek(pod, 2, 1) != COH_DONE) {
		for (uint32_t i = 0; i < 3; i++)
			if (i != 2 && pod_peek(pod, 2, i) && pod_peek(pod, 2, i) != COH_DONE)
				pod_deliver(pod, 2, i);
		for (uint32_t i = 0; i < 3; i++)
			if (pod_peek(pod, i, 2))
				pod_deliver(pod, i, 2);
	}
	assert_int_equal(pod_untouch(pod, 1, 0, 0x2), 0);
	assert_int_equal(pod->node[1].frees, 1);
	assert_true(pod->node[1].freed == 0);
	pod_settle(pod);
	assert_int_equal(pod_read(pod, 0, 0, 1), 7);
	pod_free(pod);
}

/* A chunk that nobody has touched gets no home; one that went elsewhere is found. */
static void test_home_unknown(void **state)
{
	struct pod *pod = small_pod(3);
	struct coh_stats stats;
	uint64_t far = 3 * CHUNK_PAGES; /* registered at node 0 */

	assert_int_equal(pod_untouch(pod, 1, far, 0xff), 0);
	pod_settle(pod);
	assert_int_equal(pod->node[1].frees, 1);
	assert_true(pod->node[1].freed == 0);
	coh_stats_get(pod->node[1].coh, &stats);
	assert_int_equal(stats.chunks_homed, 0);

	pod_write(pod, 2, 0, far, 7);
	pod_run(pod, HELD_NS);
	assert_int_equal(pod_untouch(pod, 1, far, 0xff), 0);
	pod_settle(pod);
	assert_int_equal(pod->node[1].frees, 2);
	assert_true(pod->node[1].freed == 0x1);
	assert_nowhere(pod, far);
	pod_free(pod);
}

/* The home leaves, and the directory that it hands on has no such page. */
static void test_home_leaves(void **state)
{
	struct pod *pod = small_pod(3);

	pod_write(pod, 1, 0, 1, 7);
	pod_write(pod, 1, 0, 2, 8);
	pod_run(pod, HELD_NS);
	assert_int_equal(pod_untouch(pod, 0, 0, 0x2), 0);
	pod_settle(pod);
	pod_release(pod, 1);
	pod_run(pod, HELD_NS);
	assert_true(coh_released(pod->node[1].coh));
	assert_int_equal(pod_untouch(pod, 0, 0, 0x6), 0);
	pod_settle(pod);
	assert_true(pod->node[0].freed == 0x4);
	assert_int_equal(pod_read(pod, 2, 0, 2), 0);
	/* Who leaves asks nobody. */
	assert_int_equal(pod_untouch(pod, 1, 0, 0x4), 0);
	assert_int_equal(pod->node[1].frees, 1);
	assert_true(pod->node[1].freed == 0);
	pod_free(pod);
}

static void test_bounds(void **state)
{
	struct pod *pod = small_pod(2);

	pod_write(pod, 1, 0, 0, 7);
	pod_run(pod, HELD_NS);
	assert_int_equal(pod_untouch(pod, 0, 1, 1), -EINVAL);
	assert_int_equal(pod_untouch(pod, 0, 0, 0), -EINVAL);
	assert_int_equal(pod_untouch(pod, 0, POD_PAGES, 1), -EINVAL);
	for (uint64_t i = 0; i < COH_FREES; i++)
		assert_int_equal(
			pod_untouch(pod, 0, (2 * i + 1) * CHUNK_PAGES % POD_PAGES + i / 4 * 64, 1),
			0);
	assert_int_equal(pod_untouch(pod, 0, 5 * COH_FREE_PAGES, 1), -EBUSY);
	pod_settle(pod);
	assert_int_equal(pod->node[0].frees, COH_FREES);
	assert_int_equal(pod_untouch(pod, 0, CHUNK_PAGES, 1), 0);
	assert_int_equal(pod_untouch(pod, 0, CHUNK_PAGES, 1), -EBUSY);
	pod_settle(pod);
	pod_free(pod);
}

static int tell(struct pod *pod, uint32_t to, struct coh_msg msg)
{
	static struct coh_action actions[COH_ACTIONS_MIN];
	struct coh_out out = { .action = actions, .capacity = COH_ACTIONS_MIN };

	return coh_message(pod->node[to].coh, &msg, pod->now_ns, &out);
}

/* What no correct peer says. */
static void test_lies(void **state)
{
	struct pod *pod = small_pod(3);
	struct coh_msg drop = {
		.type = COH_DROP, .src = 0, .requester = 0, .version = 1, .gpn = 0, .age = 0x2
	};
	struct coh_msg reply = { .type = COH_DROPPED, .src = 2, .requester = 1, .age = 0x2 };
	struct coh_msg freed = { .type = COH_FREED, .src = 2, .requester = 1, .age = 0x2 };

	pod_write(pod, 1, 0, 1, 7); /* node 1 is home and owner */
	assert_int_equal(tell(pod, 1, drop), -EPROTO);
	drop.flags = COH_MSG_KEEPER;
	drop.src = 2;
	assert_int_equal(tell(pod, 1, drop), -EPROTO); /* not the home */
	drop.src = 1;
	assert_int_equal(tell(pod, 2, drop), -EPROTO); /* not the owner */
	assert_int_equal(tell(pod, 1, reply), -EPROTO);
	assert_int_equal(tell(pod, 1, freed), -EPROTO);
	pod_check(pod);
	pod_free(pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owned),		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_sharer_refuses),	cmocka_unit_test(test_held),
		cmocka_unit_test(test_stall_meanwhile), cmocka_unit_test(test_busy),
		cmocka_unit_test(test_home_unknown),	cmocka_unit_test(test_home_leaves),
		cmocka_unit_test(test_bounds),		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
