/* SPDX-License-Identifier: Apache-2.0 */
/* Members that come and go, directed; the simulator has the orders that nobody thinks of. */
#include "tests/core/pod.h"

#include <errno.h>

#define STEP (CHUNK_PAGES / 8)

static struct pod *pod_of(uint32_t numbers, uint32_t members)
{
	struct coh_config config = pod_config();

	config.members = member_set_below(members);
	return pod_new(numbers, &config);
}

static void fill(struct pod *pod, uint32_t node, uint64_t add)
{
	for (uint64_t gpn = 0; gpn < POD_PAGES; gpn += STEP) {
		pod_write(pod, node, 0, gpn, gpn + add);
		pod_run(pod, 1000000);
	}
}

static void verify(struct pod *pod, uint32_t node, uint64_t add)
{
	for (uint64_t gpn = 0; gpn < POD_PAGES; gpn += STEP)
		assert_int_equal(pod_read(pod, node, 0, gpn), gpn + add);
}

/* All hear of it, and all have done what it asks. */
static void step(struct pod *pod, uint16_t about, enum member_state state)
{
	for (uint32_t i = 0; i < pod->node_count; i++)
		if (pod->node[i].coh && !(state == MEMBER_JOINING && i == about))
			pod_member(pod, i, about, state);
	pod_run(pod, 100000000);
	for (uint32_t i = 0; i < pod->node_count; i++)
		assert_true(!pod->node[i].coh || coh_member_done(pod->node[i].coh));
}

static void join(struct pod *pod, uint16_t node, struct member_set members)
{
	step(pod, node, MEMBER_JOINING);
	member_set_add(&members, node);
	pod_join(pod, node, &members);
	assert_false(coh_member_ready(pod->node[node].coh));
	for (uint16_t i = 0; i < pod->node_count; i++)
		if (pod->node[i].coh && i != node) {
			pod_linked(pod, node, i);
			pod_linked(pod, i, node);
		}
	pod_run(pod, 1000000);
	assert_true(coh_member_ready(pod->node[node].coh));
	step(pod, node, MEMBER_ACTIVE);
}

static void drain(struct pod *pod, uint16_t node)
{
	step(pod, node, MEMBER_DRAINING);
	assert_false(coh_released(pod->node[node].coh));
	pod_release(pod, node);
	pod_run(pod, 1000000000);
	assert_true(coh_released(pod->node[node].coh));
	assert_int_equal(pod->node[node].resident, 0);
}

static void leave(struct pod *pod, uint16_t node)
{
	drain(pod, node);
	assert_false(coh_flushed(pod->node[node].coh));
	step(pod, node, MEMBER_GONE);
	assert_true(coh_flushed(pod->node[node].coh));
	coh_destroy(pod->node[node].coh);
	pod->node[node].coh = NULL;
	for (uint32_t i = 0; i < pod->node_count; i++)
		if (pod->node[i].coh)
			pod_unlinked(pod, i, node);
	step(pod, node, MEMBER_FREE);
}

static struct member_set present(const struct pod *pod)
{
	struct member_set members = { 0 };

	for (uint32_t i = 0; i < pod->node_count; i++)
		if (pod->node[i].coh)
			member_set_add(&members, (uint16_t)i);
	return members;
}

static int say(struct coh *coh, struct coh_msg msg)
{
	struct coh_action action[COH_ACTIONS_MIN];
	struct coh_out out = { .action = action, .capacity = COH_ACTIONS_MIN };

	return coh_message(coh, &msg, 0, &out);
}

/* A member that has no slot is waited for, too: it must have its link before it hears of ACTIVE. */
static void test_ready_waits_for_all(void **state)
{
	struct pod *pod = pod_of(4, 2);
	struct member_set members;

	join(pod, 2, present(pod));
	step(pod, 3, MEMBER_JOINING);
	members = present(pod);
	member_set_add(&members, 3);
	pod_join(pod, 3, &members);
	for (uint16_t i = 0; i < 3; i++)
		pod_linked(pod, 3, i);
	for (uint16_t i = 0; i < 3; i++) {
		pod_run(pod, 1000000);
		assert_false(coh_member_ready(pod->node[3].coh));
		pod_linked(pod, i, 3);
	}
	pod_run(pod, 1000000);
	assert_true(coh_member_ready(pod->node[3].coh));
	/* Who joins has said nothing, and nobody says it twice. */
	for (uint16_t i = 0; i < 3; i++) {
		const struct coh_msg all = {
			.type = COH_REG_IS, .src = i, .requester = i, .node = i, .acks = COH_SLOTS
		};

		assert_int_equal(pod_peek(pod, 3, i), 0);
		assert_int_equal(say(pod->node[3].coh, all), -EPROTO);
	}
	pod_free(pod);
}

/* Everybody who was there at first leaves, and two come by numbers that were others'. */
static void test_all_change(void **state)
{
	struct pod *pod = pod_of(5, 3);

	fill(pod, 1, 1);
	verify(pod, 2, 1);
	join(pod, 3, present(pod));
	verify(pod, 3, 1);
	leave(pod, 1);
	fill(pod, 2, 2);
	verify(pod, 3, 2);
	leave(pod, 0);
	join(pod, 1, present(pod));
	verify(pod, 1, 2);
	fill(pod, 1, 3);
	leave(pod, 2);
	join(pod, 0, present(pod));
	verify(pod, 0, 3);
	verify(pod, 3, 3);
	fill(pod, 0, 4);
	verify(pod, 1, 4);
	pod_check(pod);
	pod_free(pod);
}

/* Who has drained stays after all: it has homes and pages again, and leaves once more. */
static void test_stays(void **state)
{
	struct pod *pod = pod_of(3, 3);
	struct coh_stats stats;

	fill(pod, 1, 1);
	drain(pod, 1);
	step(pod, 1, MEMBER_ACTIVE);
	pod_release_cancel(pod, 1);
	fill(pod, 1, 2);
	verify(pod, 2, 2);
	coh_stats_get(pod->node[1].coh, &stats);
	assert_true(stats.pages_owned + stats.pages_shared > 0);
	leave(pod, 1);
	verify(pod, 0, 2);
	pod_check(pod);
	pod_free(pod);
}

/* A home waits for all that it has asked who has gone. */
static void test_gone_waits(void **state)
{
	struct pod *pod = pod_of(3, 3);

	pod_write(pod, 0, 0, 0, 1);
	pod_read(pod, 1, 0, 0);
	pod_run(pod, 10000000);
	step(pod, 1, MEMBER_DRAINING);
	pod_stall(pod, 0, 0, 0, COH_WRITE);
	assert_int_equal(pod_peek(pod, 0, 1), COH_INVALIDATE);
	pod_member(pod, 0, 1, MEMBER_GONE);
	assert_false(coh_member_done(pod->node[0].coh));
	pod_deliver(pod, 0, 1);
	pod_deliver(pod, 1, 0);
	pod_release(pod, 1);
	pod_run(pod, 1000000000);
	assert_true(coh_member_done(pod->node[0].coh));
	pod_free(pod);
}

/* Homes go to whoever has most of a chunk. */
static void test_heir(void **state)
{
	struct pod *pod = pod_of(4, 4);
	struct coh_stats stats;

	for (uint64_t gpn = 0; gpn < 20; gpn++)
		pod_write(pod, 0, 0, gpn, gpn);
	for (uint64_t gpn = 0; gpn < 15; gpn++)
		pod_write(pod, gpn < 5 ? 1 : 3, 0, gpn, gpn);
	drain(pod, 0);
	coh_stats_get(pod->node[3].coh, &stats);
	assert_int_equal(stats.chunks_homed, 1);
	pod_free(pod);
}

/* Where nobody comes or goes nothing of it is believed, and later only what fits. */
static void test_lies(void **state)
{
	struct pod *pod = pod_of(4, 3);
	struct coh *coh = pod->node[0].coh;
	struct coh_action action[COH_ACTIONS_MIN];
	struct coh_out out = { .action = action, .capacity = COH_ACTIONS_MIN };
	struct coh_msg move = { .type = COH_REG_MOVE, .src = 1, .requester = 1, .acks = 1 };
	struct coh_msg is = { .type = COH_REG_IS, .src = 2, .requester = 2, .node = 2, .acks = 1 };
	struct coh_msg flush = { .type = COH_FLUSH, .src = 1, .requester = 1, .node = 2 };

	move.version = is.version = 1;
	assert_int_equal(say(coh, move), -EPROTO);
	assert_int_equal(say(coh, is), -EPROTO);
	assert_int_equal(say(coh, flush), -EPROTO);
	assert_int_equal(coh_member(coh, 1, MEMBER_JOINING, 0, &out), -EINVAL); /* is there */
	assert_int_equal(coh_member(coh, 3, MEMBER_ACTIVE, 0, &out), -EINVAL);	/* is not */
	assert_int_equal(coh_member(coh, 0, MEMBER_FREE, 0, &out), -EINVAL);
	assert_int_equal(coh_member(coh, 1, MEMBER_DRAINING, 0, &out), 0);
	move.src = move.requester = 2; /* does not leave */
	assert_int_equal(say(coh, move), -EPROTO);
	move.src = move.requester = 1;
	move.version = 2; /* an epoch too far */
	assert_int_equal(say(coh, move), -EPROTO);
	move.version = 1;
	move.age = 1; /* an entry that has not come */
	assert_int_equal(say(coh, move), -EPROTO);
	move.age = 0;
	move.acks = 2; /* a slot that node 2 has */
	assert_int_equal(say(coh, move), -EPROTO);
	move.acks = 256;
	assert_int_equal(say(coh, move), -EPROTO);
	move.acks = 1;
	assert_int_equal(say(coh, move), 0);
	is.version = 2; /* it is here, and was given to nobody */
	assert_int_equal(say(coh, is), -EPROTO);
	is.acks = 2;
	is.node = 1;
	assert_int_equal(say(coh, is), -EPROTO);
	flush.node = 1; /* who flushes about himself */
	assert_int_equal(say(coh, flush), -EPROTO);
	flush.node = 3; /* no member */
	assert_int_equal(say(coh, flush), -EPROTO);
	pod_free(pod);
}

/* Who joins asks for nothing and says nothing before it is a member here, and if it failed it never does. */
static void test_joiner_is_not_heard(void **state)
{
	struct pod *pod = pod_of(4, 3);
	struct coh *coh = pod->node[0].coh;
	const struct coh_msg room = {
		.type = COH_ROOM_GET, .src = 3, .requester = 3, .acks = 1, .age = 1
	};
	const struct coh_msg home = { .type = COH_HOME_GET, .src = 3, .requester = 3 };
	const struct coh_msg write = { .type = COH_WRITE_REQ,
				       .src = 3,
				       .requester = 3,
				       .version = 1,
				       .gpn = 3 * CHUNK_PAGES,
				       .seq = 1 };
	const struct coh_msg flush = { .type = COH_FLUSH, .src = 3, .requester = 3, .node = 1 };

	pod_write(pod, 0, 0, write.gpn, 1);
	for (int life = 0; life < 2; life++) {
		pod_member(pod, 0, 3, MEMBER_JOINING);
		pod_linked(pod, 0, 3);
		assert_int_equal(say(coh, room), -EPROTO);
		assert_int_equal(say(coh, home), -EPROTO);
		assert_int_equal(say(coh, write), -EPROTO);
		assert_int_equal(say(coh, flush), -EPROTO);
		if (life)
			break;
		pod_member(pod, 0, 3, MEMBER_GONE);
		assert_true(coh_member_done(coh));
		assert_int_equal(say(coh, room), -EPROTO);
		pod_unlinked(pod, 0, 3);
		pod_member(pod, 0, 3, MEMBER_FREE);
		for (uint16_t i = 1; i < 3; i++) {
			const struct coh_msg free = {
				.type = COH_FLUSH, .src = i, .requester = i, .node = 3
			};

			assert_int_equal(say(coh, free), 0);
		}
		pod_tick(pod, 0);
		assert_true(coh_member_done(coh));
	}
	pod_member(pod, 0, 3, MEMBER_ACTIVE);
	assert_int_equal(say(coh, room), 0);
	assert_int_equal(say(coh, home), 0);
	assert_int_equal(say(coh, write), 0);
	pod_member(pod, 0, 3, MEMBER_DRAINING);
	assert_int_equal(say(coh, room), 0);
	pod_free(pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_change),
		cmocka_unit_test(test_ready_waits_for_all),
		cmocka_unit_test(test_stays),
		cmocka_unit_test(test_gone_waits),
		cmocka_unit_test(test_heir),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_joiner_is_not_heard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
