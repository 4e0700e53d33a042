/* SPDX-License-Identifier: Apache-2.0 */
/* The list of members: every step, who is asked, what each word means when. Lies: test_member_lies.c. */
#include "tests/core/member_pod.h"

#include <errno.h>
#include <string.h>

/* ---- steps ----------------------------------------------------------------------------------- */

static void where_it_begins(void **state)
{
	struct pod *pod = *state;

	for (uint16_t n = 0; n < NODES; n++) {
		assert_int_equal(pod->list[n].leading, n == 0);
		for (uint16_t m = 0; m < NODES; m++) {
			assert_true(member_list_counts(&pod->list[n], m));
			assert_int_equal(member_list_hears(&pod->list[n], m), n != m);
			assert_int_equal(member_list_may_begin(&pod->list[n], m), n != m);
			assert_int_equal(member_list_may_be_begun(&pod->list[n], m), n != m);
			assert_true(member_list_may_be_named(&pod->list[n], m));
		}
		assert_false(member_list_counts(&pod->list[n], NODES));
		assert_false(member_list_hears(&pod->list[n], NODES));
		assert_false(member_list_may_be_named(&pod->list[n], NODES));
		assert_false(member_list_hears(&pod->list[n], NODE_NONE));
		assert_false(member_list_may_be_named(&pod->list[n], NODE_NONE));
	}
	assert_int_equal(member_list_joiner(&pod->list[0]), NODE_NONE);
	assert_true(member_list_deadline(&pod->list[0]) == UINT64_MAX);
	run(pod);
	expect(pod, 0, 0, MEMBER_ACTIVE);
}

static void somebody_joins(void **state)
{
	struct pod *pod = *state;

	wish_join(pod, 2, "e");
	run(pod);
	expect(pod, 1, 4, MEMBER_JOINING);
	assert_int_equal(pod->over[2].kind, KIND_JOIN);
	assert_int_equal(pod->over[2].by, 2);
	assert_string_equal(pod->list[3].now.member[4].about.address, "e:7000");
	/* His words are taken; nothing begins. */
	assert_true(member_list_hears(&pod->list[1], 4));
	assert_true(member_list_may_be_begun(&pod->list[1], 4));
	assert_false(member_list_may_begin(&pod->list[1], 4));
	joiner_begins(pod, 4, 2);
	assert_false(member_list_may_begin(&pod->list[4], 1));
	assert_true(member_list_may_be_begun(&pod->list[4], 1));
	member_list_ready(&pod->list[4]);
	run(pod);
	expect(pod, 2, 4, MEMBER_ACTIVE);
	for (uint16_t n = 0; n < 4; n++) {
		assert_true(member_list_may_begin(&pod->list[n], 4));
		assert_true(member_list_may_begin(&pod->list[4], n));
		assert_true(pod->list[n].over);
	}
	/* He is one of those who are asked from then on. */
	pod->hold[4] = true;
	wish(pod, 4, KIND_DRAIN, 3);
	run(pod);
	assert_false(pod->list[0].over);
	member_list_done(&pod->list[4]);
	run(pod);
	assert_true(pod->list[0].over);
}

static void nobody_is_left_out(void **state)
{
	struct pod *pod = *state;

	/* Each may be the one that has not said DONE, the steward too. */
	for (uint16_t slow = 0; slow < 3; slow++) {
		uint64_t step = pod->list[0].now.step;

		pod->hold[slow] = true;
		wish(pod, 1, KIND_DRAIN, 3);
		run(pod);
		wish(pod, 2, KIND_ACTIVE, 3);
		run(pod);
		for (uint16_t n = 0; n < NODES; n++) {
			assert_int_equal(pod->list[n].now.step, step + 1);
			assert_false(pod->list[n].over);
		}
		pod->hold[slow] = false;
		member_list_done(&pod->list[slow]);
		run(pod);
		assert_int_equal(pod->list[3].now.step, step + 2);
	}
}

static void a_joiner_fails(void **state)
{
	struct pod *pod = *state;

	/* Refused by a member; lost by another while it is under way; late. */
	wish_join(pod, 1, "e");
	pod->hold[3] = true;
	run(pod);
	member_list_fail_joiner(&pod->list[3], -ENOMEM);
	member_list_lost(&pod->list[2], 4);
	member_list_lost(&pod->list[2], 4);
	run(pod);
	expect(pod, 1, 4, MEMBER_JOINING);
	pod->hold[3] = false;
	member_list_done(&pod->list[3]);
	run(pod);
	expect(pod, 3, 4, MEMBER_FREE);
	for (uint16_t n = 0; n < NODES; n++)
		assert_false(pod->ended[n]);

	pod->now_ns = 5;
	wish_join(pod, 1, "e");
	run(pod);
	assert_true(member_list_deadline(&pod->list[0]) == 5 + MEMBER_JOIN_NS);
	assert_true(member_list_deadline(&pod->list[1]) == UINT64_MAX);
	pod->now_ns = 4 + MEMBER_JOIN_NS;
	run(pod);
	expect(pod, 4, 4, MEMBER_JOINING);
	pod->now_ns++;
	run(pod);
	expect(pod, 6, 4, MEMBER_FREE);
	assert_true(member_list_deadline(&pod->list[0]) == UINT64_MAX);
	/* He that has failed is told nothing: his links end. */
	wish_join(pod, 1, "e");
	run(pod);
	joiner_begins(pod, 4, 1);
	member_list_fail_joiner(&pod->list[3], -ENOMEM);
	run(pod);
	assert_int_equal(pod->list[4].now.step, 7);
	assert_int_equal(pod->list[0].now.step, 9);
	pod->there[4] = false;
	/* The name is free, the number too. */
	join(pod, 4, "e");
	expect(pod, 11, 4, MEMBER_ACTIVE);
}

/* A number is freed when there is nothing else to do. */
static void freeing_is_in_nobodys_way(void **state)
{
	struct pod *pod = *state;

	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	pod->hold[1] = true;
	member_list_drained(&pod->list[3]);
	run(pod);
	wish(pod, 1, KIND_DRAIN, 2);
	wish_join(pod, 2, "e");
	run(pod);
	pod->hold[1] = false;
	member_list_done(&pod->list[1]);
	run(pod);
	pod->there[3] = false;
	expect(pod, 4, 2, MEMBER_DRAINING);
	expect(pod, 4, 3, MEMBER_GONE);
	joiner_begins(pod, 4, 2);
	member_list_ready(&pod->list[4]);
	run(pod);
	expect(pod, 6, 3, MEMBER_FREE);
}

static void nothing_comes_between(void **state)
{
	struct pod *pod = *state;

	wish_join(pod, 1, "e");
	run(pod);
	wish_join(pod, 1, "f");
	wish(pod, 2, KIND_DRAIN, 3);
	run(pod);
	expect(pod, 1, 3, MEMBER_ACTIVE);
	joiner_begins(pod, 4, 1);
	member_list_ready(&pod->list[4]);
	run(pod);
	/* Then all of it, until there is a joiner again. */
	expect(pod, 3, 5, MEMBER_JOINING);
	joiner_begins(pod, 5, 1);
	member_list_ready(&pod->list[5]);
	run(pod);
	expect(pod, 5, 3, MEMBER_DRAINING);
}

static void somebody_leaves(void **state)
{
	struct pod *pod = *state;

	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	expect(pod, 1, 3, MEMBER_DRAINING);
	assert_false(member_list_may_begin(&pod->list[1], 3));
	assert_true(member_list_may_be_begun(&pod->list[1], 3));
	assert_true(member_list_may_begin(&pod->list[3], 1));
	/* Somebody joins meanwhile. */
	join(pod, 4, "e");
	expect(pod, 3, 3, MEMBER_DRAINING);
	pod->hold[1] = true;
	member_list_drained(&pod->list[3]);
	run(pod);
	expect(pod, 4, 3, MEMBER_GONE);
	assert_false(pod->list[3].over);
	assert_true(pod->list[3].done);
	member_list_done(&pod->list[1]);
	run(pod);
	/* He hears of the end, and no more; his number is freed by the others. */
	assert_true(pod->list[3].over);
	assert_int_equal(pod->list[3].now.step, 4);
	assert_int_equal(pod->list[0].now.step, 5);
	assert_true(member_list_may_be_named(&pod->list[1], 3));
	assert_true(member_list_hears(&pod->list[1], 3));
	assert_false(member_list_may_be_begun(&pod->list[1], 3));
	assert_false(member_list_may_be_named(&pod->list[2], 3));
	assert_false(member_list_hears(&pod->list[2], 3));
	pod->there[3] = false;
	member_list_lost(&pod->list[1], 3);
	member_list_lost(&pod->list[2], 3);
	pod->hold[1] = false;
	member_list_done(&pod->list[1]);
	run(pod);
	assert_false(member_list_may_be_named(&pod->list[1], 3));
	expect(pod, 5, 3, MEMBER_FREE);
	join(pod, 3, "d");
	expect(pod, 7, 3, MEMBER_ACTIVE);
}

static void a_drain_is_cancelled(void **state)
{
	struct pod *pod = *state;

	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	/* It has just drained, and the steward hears of the other thing first. */
	wish(pod, 0, KIND_ACTIVE, 3);
	outs_of(pod, 0);
	member_list_drained(&pod->list[3]);
	run(pod);
	expect(pod, 2, 3, MEMBER_ACTIVE);
	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	expect(pod, 3, 3, MEMBER_DRAINING);
	/* Too late. */
	member_list_drained(&pod->list[3]);
	run(pod);
	pod->there[3] = false;
	wish(pod, 1, KIND_ACTIVE, 3);
	run(pod);
	assert_int_equal(pod->unwanted[1], -ENOENT);
}

static void wishes_are_judged_in_their_turn(void **state)
{
	struct pod *pod = *state;
	struct member_word word = { .kind = KIND_DRAIN, .node = NUMBERS };
	uint32_t id;

	assert_int_equal(member_list_wish(&pod->list[1], &word, &id), -EINVAL);
	word.kind = KIND_GONE;
	word.node = 1;
	assert_int_equal(member_list_wish(&pod->list[1], &word, &id), -EINVAL);
	word = (struct member_word){ .kind = KIND_JOIN };
	assert_int_equal(member_list_wish(&pod->list[1], &word, &id), -EINVAL);
	wish(pod, 1, KIND_DRAIN, 0); /* it has seats */
	word = (struct member_word){ .kind = KIND_DRAIN, .node = 2 };
	assert_int_equal(member_list_wish(&pod->list[1], &word, &id), -EBUSY);
	run(pod);
	assert_int_equal(pod->unwanted[1], -EBUSY);
	wish(pod, 1, KIND_DRAIN, 5);
	run(pod);
	assert_int_equal(pod->unwanted[1], -ENOENT);
	wish(pod, 0, KIND_ACTIVE, 1);
	run(pod);
	assert_int_equal(pod->unwanted[0], -ENOENT);
	wish(pod, 1, KIND_SEAT, 0);
	run(pod);
	assert_int_equal(pod->unwanted[1], -EALREADY);
	wish_join(pod, 1, "c");
	run(pod);
	assert_int_equal(pod->unwanted[1], -EEXIST);
	expect(pod, 0, 1, MEMBER_ACTIVE);
	/* By a token that another has come by. */
	for (int n = 0; n < NUMBERS; n++) {
		pod->list[n].now.member[3].about.token_id = 7;
		pod->list[n].now.member[3].about.token_expiry_s = 9;
	}
	word = (struct member_word){
		.kind = KIND_JOIN,
		.about = { .name = "t", .address = "a", .token_id = 7, .token_expiry_s = 9 }
	};
	assert_int_equal(member_list_wish(&pod->list[1], &word, &id), 0);
	run(pod);
	assert_int_equal(pod->unwanted[1], -EKEYREJECTED);
	/* Two want the same. */
	wish(pod, 1, KIND_DRAIN, 3);
	wish(pod, 2, KIND_DRAIN, 3);
	pod->unwanted[1] = pod->unwanted[2] = 0;
	run(pod);
	assert_int_equal(pod->unwanted[1] + pod->unwanted[2], -EALREADY);
	wish(pod, 1, KIND_SEAT, 3);
	run(pod);
	assert_int_equal(pod->unwanted[1], -ENOENT);
	member_list_drained(&pod->list[3]);
	run(pod);
	pod->there[3] = false;
	join(pod, 3, "e");
	join(pod, 4, "f");
	join(pod, 5, "g");
	pod->unwanted[1] = 0;
	wish_join(pod, 1, "h");
	run(pod);
	assert_int_equal(pod->unwanted[1], -ENOSPC);
	/* A number that has only to be freed is freed for him. */
	pod->hold[2] = true;
	wish(pod, 1, KIND_DRAIN, 5);
	run(pod);
	member_list_done(&pod->list[2]);
	run(pod);
	member_list_drained(&pod->list[5]);
	run(pod);
	wish_join(pod, 1, "h");
	run(pod);
	pod->hold[2] = false;
	member_list_done(&pod->list[2]);
	run(pod);
	pod->there[5] = false;
	assert_int_equal(pod->list[0].now.member[5].state, MEMBER_JOINING);
	assert_string_equal(pod->list[2].now.member[5].about.name, "h");
}

/* Who leaves takes his wishes along: his number may be another's when their turn comes. */
static void a_leavers_wish_is_forgotten(void **state)
{
	struct pod *pod = *state;

	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	pod->hold[1] = true;
	wish(pod, 0, KIND_SEAT, 2);
	run(pod);
	pod->deaf = 0; /* it has the seat still, until 1 has said DONE */
	wish(pod, 3, KIND_ACTIVE, 3);
	member_list_drained(&pod->list[3]);
	pod->deaf = NODE_NONE;
	pod->hold[1] = false;
	member_list_done(&pod->list[1]);
	run(pod);
	assert_int_equal(pod->list[2].now.member[3].state, MEMBER_FREE);
	assert_int_equal(pod->list[2].queue_count, 0);
}

/* ---- the steward's seat ---------------------------------------------------------------------- */

static void the_steward_changes(void **state)
{
	struct pod *pod = *state;

	pod->hold[1] = true;
	wish(pod, 3, KIND_SEAT, 2);
	run(pod);
	assert_false(pod->list[0].leading);
	assert_false(pod->list[2].leading);
	/* Nobody sends anything meanwhile, but the old one may have words. */
	wish(pod, 1, KIND_ACTIVE, 2);
	wish(pod, 0, KIND_DRAIN, 0);
	run(pod);
	assert_int_equal(pod->count, 0);
	expect(pod, 1, 2, MEMBER_ACTIVE);
	member_list_done(&pod->list[1]);
	pod->hold[1] = false;
	run(pod);
	assert_true(pod->list[2].leading);
	assert_int_equal(pod->unwanted[1], -ENOENT);
	/* 0 has four seats yet. */
	assert_int_equal(pod->unwanted[0], -EBUSY);
	for (int seat = SEAT_CLOCK; seat < SEAT_COUNT; seat++) {
		struct member_word word = { .kind = KIND_SEAT,
					    .seat = (enum member_seat)seat,
					    .node = 1 };
		uint32_t id;

		assert_int_equal(member_list_wish(&pod->list[0], &word, &id), 0);
		run(pod);
		assert_int_equal(pod->over[0].id, id);
	}
	leave(pod, 0);
	for (uint16_t n = 1; n < NODES; n++)
		assert_int_equal(pod->list[n].now.member[0].state, MEMBER_FREE);
	join(pod, 0, "z");
	assert_int_equal(pod->list[0].now.seat[SEAT_STEWARD], 2);
	wish(pod, 0, KIND_SEAT, 0);
	run(pod);
	assert_true(pod->list[0].leading);
}

/* What has come to the old one, and what comes late, the new one judges. */
static void wishes_are_sent_on(void **state)
{
	struct pod *pod = *state;

	wish(pod, 1, KIND_SEAT, 2);
	outs_of(pod, 1);
	wish_join(pod, 3, "e");
	outs_of(pod, 3);
	wish(pod, 2, KIND_DRAIN, 1);
	outs_of(pod, 2);
	pod->hold[1] = true;
	run(pod);
	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	expect(pod, 1, 3, MEMBER_ACTIVE);
	assert_int_equal(pod->list[0].queue_count, 0);
	member_list_done(&pod->list[1]);
	pod->hold[1] = false;
	run(pod);
	assert_int_equal(pod->list[2].now.step, 2);
	assert_int_equal(member_list_joiner(&pod->list[2]), 4);
	joiner_begins(pod, 4, 3);
	member_list_ready(&pod->list[4]);
	run(pod);
	expect(pod, 5, 1, MEMBER_DRAINING);
	expect(pod, 5, 3, MEMBER_DRAINING);
}

/* ---- loss ------------------------------------------------------------------------------------ */

static void loss_ends_the_pod(void **state)
{
	struct pod *pod = *state;

	member_list_lost(&pod->list[1], NODES); /* nobody */
	member_list_lost(&pod->list[1], NODE_NONE);
	member_list_lost(&pod->list[1], 1);
	run(pod);
	assert_false(pod->ended[1]);
	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	member_list_lost(&pod->list[1], 3);
	member_list_lost(&pod->list[2], 0);
	run(pod);
	assert_true(pod->ended[1] && pod->ended[2]);
	/* Nothing comes after that, and nothing is done. */
	wish(pod, 0, KIND_ACTIVE, 3);
	run(pod);
	assert_int_equal(pod->list[1].now.step, 1);
	assert_int_equal(pod->list[0].now.step, 2);
	assert_false(pod->list[0].over);
}

static void loss_of_one_that_is_gone(void **state)
{
	struct pod *pod = *state;

	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	pod->hold[1] = true;
	member_list_drained(&pod->list[3]);
	run(pod);
	pod->there[3] = false;
	member_list_lost(&pod->list[2], 3); /* has said DONE */
	member_list_lost(&pod->list[0], 3);
	member_list_lost(&pod->list[1], 3); /* has not */
	run(pod);
	assert_false(pod->ended[0] || pod->ended[2]);
	assert_true(pod->ended[1]);
	/* Who is gone cares for the steward only, and not when all is over. */
	member_list_lost(&pod->list[3], 1);
	outs_of(pod, 3);
	assert_false(pod->ended[3]);
	member_list_lost(&pod->list[3], 0);
	outs_of(pod, 3);
	assert_true(pod->ended[3]);
}

static void loss_of_a_joiner_that_has_become_a_member(void **state)
{
	struct pod *pod = *state;

	wish_join(pod, 1, "e");
	run(pod);
	joiner_begins(pod, 4, 1);
	member_list_ready(&pod->list[4]);
	outs_of(pod, 4);
	pod->deaf = 3; /* has lost him, and not heard of ACTIVE */
	run(pod);
	member_list_lost(&pod->list[3], 4);
	pod->deaf = NODE_NONE;
	run(pod);
	assert_true(pod->ended[3]);
	assert_false(pod->ended[0]);
}

static void a_joiner_loses_one(void **state)
{
	struct pod *pod = *state;

	wish_join(pod, 1, "e");
	run(pod);
	joiner_begins(pod, 4, 1);
	member_list_lost(&pod->list[4], 2);
	run(pod);
	assert_true(pod->ended[4]);
	assert_false(pod->ended[2]);
}

/* Who stays has to have room for the guest, and a core. A wish is judged when its turn comes. */
static void who_has_no_room_keeps_all(void **state)
{
	struct pod *pod = *state;

	for (uint16_t n = 0; n < NODES; n++) {
		member_list_needs(&pod->list[n], 2);
		for (uint16_t m = 0; m < NODES; m++) {
			pod->list[n].now.member[m].about.promise_bytes = 1;
			pod->list[n].now.member[m].about.cores = m == 2;
		}
	}
	wish(pod, 1, KIND_DRAIN, 2); /* all cores are his */
	run(pod);
	assert_int_equal(pod->unwanted[1], -ENOSPC);
	for (uint16_t n = 0; n < NODES; n++)
		member_list_needs(&pod->list[n], NODES - 1);
	/* Room for one of them: two wish it at once. */
	wish(pod, 1, KIND_DRAIN, 3);
	wish(pod, 2, KIND_DRAIN, 1);
	pod->unwanted[1] = pod->unwanted[2] = 0;
	run(pod);
	assert_int_equal(pod->unwanted[1] + pod->unwanted[2], -ENOSPC);
	assert_int_equal((pod->list[0].now.member[1].state == MEMBER_DRAINING) +
				 (pod->list[0].now.member[3].state == MEMBER_DRAINING),
			 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		POD_TEST(where_it_begins),
		POD_TEST(somebody_joins),
		POD_TEST(nobody_is_left_out),
		POD_TEST(a_joiner_fails),
		POD_TEST(freeing_is_in_nobodys_way),
		POD_TEST(nothing_comes_between),
		POD_TEST(somebody_leaves),
		POD_TEST(a_drain_is_cancelled),
		POD_TEST(wishes_are_judged_in_their_turn),
		POD_TEST(a_leavers_wish_is_forgotten),
		POD_TEST(the_steward_changes),
		POD_TEST(wishes_are_sent_on),
		POD_TEST(loss_ends_the_pod),
		POD_TEST(loss_of_one_that_is_gone),
		POD_TEST(loss_of_a_joiner_that_has_become_a_member),
		POD_TEST(a_joiner_loses_one),
		POD_TEST(who_has_no_room_keeps_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
