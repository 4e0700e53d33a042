/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of the list of members, between a node, its peer and its users. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/link/support.h"
#include "tests/node/half.h"
#include "tests/test.h"

/* A pod whose guest runs. The peer beats. */
static void run(struct half *half, uint16_t self)
{
	half_create(half, self);
	assert_int_equal(guest_io_create(half->node), 0);
	atomic_store(&half->node->phase, NODE_RUNNING);
	atomic_store(&half->node->run_ns, 1);
	assert_int_equal(control_start(half->node), 0);
	half_peer_beats(half);
}

static void say(struct half *half, struct member_word word)
{
	struct control_message msg = { .type = control_member_type(word.type), .member = word };

	half_peer_send(half, &msg);
}

static void say_number(struct half *half, enum member_word_type type, uint64_t number)
{
	say(half, (struct member_word){ .type = type, .number = number });
}

static struct member_word hear(struct half *half, enum member_word_type type)
{
	static struct control_message msg;

	if (!half_peer_hear(half, control_member_type(type), &msg, HALF_PATIENCE_MS))
		fail_msg("no %s", control_type_name(control_member_type(type)));
	return msg.member;
}

static void hear_number(struct half *half, enum member_word_type type, uint64_t number)
{
	assert_int_equal(hear(half, type).number, number);
}

static struct member_word seat(enum member_word_type type, uint16_t to, uint16_t by, uint32_t id)
{
	return (struct member_word){
		.type = type, .kind = KIND_SEAT, .node = to, .by = by, .id = id
	};
}

static void say_step(struct half *half, uint64_t number, uint16_t to, uint16_t by, uint32_t id)
{
	struct member_word step = seat(MEMBER_STEP, to, by, id);

	step.number = number;
	say(half, step);
}

static void assert_steward(struct half *half, uint16_t node, uint64_t step)
{
	const struct members *members = half->node->members;

	for (int i = 0; i < HALF_PATIENCE_MS && (members_step(members) != step ||
						 members_seat(members, SEAT_STEWARD) != node);
	     i++)
		test_sleep_ms(1);
	assert_int_equal(members_step(members), step);
	assert_int_equal(members_seat(members, SEAT_STEWARD), node);
}

struct asker {
	struct half *half;
	const char *words;
	pthread_t thread;
	char *answer;
};

static void *asker_main(void *arg)
{
	struct asker *asker = arg;

	asker->answer = steps_steward_request(asker->half->node, asker->words);
	return NULL;
}

static void ask(struct asker *asker, struct half *half, const char *words)
{
	*asker = (struct asker){ .half = half, .words = words };
	assert_int_equal(pthread_create(&asker->thread, NULL, asker_main, asker), 0);
}

/* A machine that is busy may be slower than a user is kept waiting. */
static void assert_answer(struct asker *asker, const char *says)
{
	pthread_join(asker->thread, NULL);
	if (!strstr(asker->answer, says) && !strstr(asker->answer, "perhaps it is done later"))
		fail_msg("%s, not %s", asker->answer, says);
	free(asker->answer);
}

/* There and back, as the peer wants it: who has the seat orders the next step. */
static void test_seat_comes_and_goes(void **state)
{
	struct half half;
	struct member_word step;

	run(&half, 1);
	for (uint32_t turn = 0; turn < 5; turn++) {
		uint64_t number = 2 * turn;

		say_step(&half, ++number, 1, 0, 2 * turn + 1);
		hear_number(&half, MEMBER_DONE, number);
		assert_steward(&half, 1, number);
		say_number(&half, MEMBER_OVER, number); /* to the new one, which tells all */
		hear_number(&half, MEMBER_OVER, number);

		say(&half, seat(MEMBER_WISH, 0, 0, 2 * turn + 2));
		step = hear(&half, MEMBER_STEP);
		assert_int_equal(step.number, ++number);
		assert_int_equal(step.kind, KIND_SEAT);
		assert_int_equal(step.seat, SEAT_STEWARD);
		assert_int_equal(step.node, 0);
		assert_int_equal(step.by, 0);
		assert_int_equal(step.id, 2 * turn + 2);
		say_number(&half, MEMBER_DONE, number);
		hear_number(&half, MEMBER_OVER, number);
		say_number(&half, MEMBER_OVER, number);
		assert_steward(&half, 0, number);
	}
	assert_null(half_end(&half, 0));
}

/* The user of a member that is not the steward. */
static void test_user_wishes(void **state)
{
	struct half half;
	struct asker asker;
	struct member_word wish;

	run(&half, 1);
	ask(&asker, &half, "b");
	wish = hear(&half, MEMBER_WISH);
	assert_int_equal(wish.kind, KIND_SEAT);
	assert_int_equal(wish.seat, SEAT_STEWARD);
	assert_int_equal(wish.node, 1);
	assert_int_equal(wish.by, 1);
	say(&half, (struct member_word){ .type = MEMBER_REFUSED, .id = wish.id, .why = -ENOENT });
	assert_answer(&asker, "it cannot be: No such file");

	ask(&asker, &half, "b");
	wish = hear(&half, MEMBER_WISH);
	say_step(&half, 1, 1, 1, wish.id);
	hear_number(&half, MEMBER_DONE, 1);
	say_number(&half, MEMBER_OVER, 1);
	hear_number(&half, MEMBER_OVER, 1);
	assert_answer(&asker, "node b is the pod's steward now");
	assert_steward(&half, 1, 1);

	ask(&asker, &half, "b");
	assert_answer(&asker, "node b is the pod's steward already");
	ask(&asker, &half, "c");
	assert_answer(&asker, "no such node");
	assert_null(half_end(&half, 0));
}

/* The steward's own user gives the seat away, and hears of it when the new one has begun. */
static void test_steward_gives(void **state)
{
	struct half half;
	struct asker asker;

	run(&half, 0);
	ask(&asker, &half, "b");
	assert_int_equal(hear(&half, MEMBER_STEP).node, 1);
	assert_steward(&half, 1, 1);
	say_number(&half, MEMBER_DONE, 1);
	hear_number(&half, MEMBER_OVER, 1);
	say_number(&half, MEMBER_OVER, 1);
	assert_answer(&asker, "node b is the pod's steward now");
	assert_null(half_end(&half, 0));
}

/* A wish that nobody answers is not the next asker's; and who waits hears of the pod's end. */
static void test_no_answer(void **state)
{
	struct half half;
	struct asker asker;

	run(&half, 1);
	ask(&asker, &half, "b");
	(void)hear(&half, MEMBER_WISH);
	pthread_join(asker.thread, NULL);
	assert_non_null(strstr(asker.answer, "perhaps it is done later"));
	free(asker.answer);
	ask(&asker, &half, "b");
	assert_answer(&asker, "another wish is not answered yet");
	say_step(&half, 1, 1, 1, 1);
	hear_number(&half, MEMBER_DONE, 1);
	say_number(&half, MEMBER_OVER, 1);
	assert_steward(&half, 1, 1);
	assert_null(half_end(&half, 0));

	run(&half, 1);
	ask(&asker, &half, "b");
	(void)hear(&half, MEMBER_WISH);
	node_end_with(half.node, CONTROL_END_USER, 0, "enough");
	assert_answer(&asker, "the pod has ended");
}

/* ---- who leaves ------------------------------------------------------------------------------ */

/* No vCPU is at the node that leaves: this test has no threads for them. */
static void all_vcpus_at(struct half *half, uint16_t node)
{
	const uint16_t first[] = { node, node, node };

	assert_true(control_hold(half->node));
	vcpu_places_init(&half->node->places, half->node->self, 2, 3, first);
	control_let_go(half->node);
}

static bool is_linked(struct half *half)
{
	bool linked;

	assert_true(control_hold(half->node));
	linked = mesh_control(half->node->mesh, 1) != NULL;
	control_let_go(half->node);
	return linked;
}

static struct member_word change(enum member_word_type type, enum member_kind kind, uint16_t node,
				 uint16_t by, uint64_t number)
{
	return (struct member_word){ .type = type,
				     .kind = kind,
				     .node = node,
				     .by = by,
				     .id = by == NODE_NONE ? 0 : 1,
				     .number = number };
}

static void assert_state(struct half *half, uint16_t node, enum member_state state)
{
	for (int i = 0; i < HALF_PATIENCE_MS && members_state(half->node->members, node) != state;
	     i++)
		test_sleep_ms(1);
	assert_int_equal(members_state(half->node->members, node), state);
}

static bool hears_within(struct half *half, enum member_word_type type, unsigned int ms)
{
	static struct control_message msg;

	return half_peer_hear(half, control_member_type(type), &msg, ms);
}

/* The node's side of the control channel has ended, behind all that it said. */
static bool has_been_shut(struct half *half)
{
	static struct control_message msg;
	struct control_channel *channel = mesh_control(half->peer, half->node->self);

	for (int i = 0; i < HALF_PATIENCE_MS; i++) {
		int r = control_receive(channel, &msg);

		if (r == -EPIPE)
			return true;
		if (r == -EAGAIN)
			test_sleep_ms(1);
		else if (r < 0)
			return false;
	}
	return false;
}

#define SHORT_MS 100

/* The peer leaves, as it wishes, and this node does what it must, each thing at its time. */
static void test_peer_leaves(void **state)
{
	struct half half;
	struct member_word step;

	run(&half, 0);
	all_vcpus_at(&half, 0);
	say(&half, change(MEMBER_WISH, KIND_DRAIN, 1, 1, 0));
	step = hear(&half, MEMBER_STEP);
	assert_int_equal(step.kind, KIND_DRAIN);
	assert_state(&half, 1, MEMBER_DRAINING);
	say_number(&half, MEMBER_DONE, 1);
	hear_number(&half, MEMBER_OVER, 1);
	/* It stays after all, and leaves again; a vCPU's word names it meanwhile. */
	say(&half, (struct member_word){
			   .type = MEMBER_WISH, .kind = KIND_ACTIVE, .node = 1, .by = 1, .id = 2 });
	assert_int_equal(hear(&half, MEMBER_STEP).kind, KIND_ACTIVE);
	say_number(&half, MEMBER_DONE, 2);
	hear_number(&half, MEMBER_OVER, 2);
	say(&half, (struct member_word){
			   .type = MEMBER_WISH, .kind = KIND_DRAIN, .node = 1, .by = 1, .id = 3 });
	assert_int_equal(hear(&half, MEMBER_STEP).kind, KIND_DRAIN);
	say_number(&half, MEMBER_DONE, 3);
	hear_number(&half, MEMBER_OVER, 3);
	all_vcpus_at(&half, 1);
	say(&half, (struct member_word){ .type = MEMBER_DRAINED, .node = 1, .by = 1 });
	assert_int_equal(hear(&half, MEMBER_STEP).kind, KIND_GONE);
	assert_false(hears_within(&half, MEMBER_OVER, SHORT_MS));
	all_vcpus_at(&half, 0);
	hear_number(&half, MEMBER_OVER, 4);
	assert_true(has_been_shut(&half));
	/* FREE waits for its end. */
	assert_state(&half, 1, MEMBER_FREE);
	assert_true(is_linked(&half));
	assert_false(node_has_ended(half.node));
	mesh_shutdown(half.peer);
	for (int i = 0; i < HALF_PATIENCE_MS && is_linked(&half); i++)
		test_sleep_ms(1);
	assert_false(is_linked(&half));
	assert_int_equal(members_count(half.node->members), 1);
	assert_null(half_end(&half, SHORT_MS));
}

/* A vCPU that is on its way to it: DRAIN is not done before there is an answer. */
static void test_drain_waits_for_who_is_under_way(void **state)
{
	struct half half;

	run(&half, 0);
	all_vcpus_at(&half, 0);
	assert_int_equal(vcpu_place_leave(&half.node->places, 1, 1), 0);
	vcpu_place_sent(&half.node->places, 1);
	say(&half, change(MEMBER_WISH, KIND_DRAIN, 1, 1, 0));
	assert_int_equal(hear(&half, MEMBER_STEP).kind, KIND_DRAIN);
	say_number(&half, MEMBER_DONE, 1);
	assert_false(hears_within(&half, MEMBER_OVER, SHORT_MS));
	assert_int_equal(vcpu_place_leave(&half.node->places, 0, 1), -EINVAL);
	half_peer_send(&half, &(struct control_message){ .type = CONTROL_PLACE,
							 .place = { .vcpu = 1, .epoch = 1 } });
	hear_number(&half, MEMBER_OVER, 1);
	assert_null(half_end(&half, 0));
}

/* This node leaves: it says what is so, no sooner, and ends behind the last word of all others. */
static void test_leaves(void **state)
{
	struct half half;
	const char *text;

	run(&half, 1);
	all_vcpus_at(&half, 0);
	say(&half, change(MEMBER_STEP, KIND_DRAIN, 1, 0, 1));
	hear_number(&half, MEMBER_DONE, 1);
	assert_false(hears_within(&half, MEMBER_DRAINED, SHORT_MS));
	say_number(&half, MEMBER_OVER, 1);
	(void)hear(&half, MEMBER_DRAINED);
	say(&half, change(MEMBER_STEP, KIND_ACTIVE, 1, 0, 2));
	hear_number(&half, MEMBER_DONE, 2);
	say_number(&half, MEMBER_OVER, 2);
	say(&half, change(MEMBER_STEP, KIND_DRAIN, 1, 0, 3));
	hear_number(&half, MEMBER_DONE, 3);
	say_number(&half, MEMBER_OVER, 3);
	(void)hear(&half, MEMBER_DRAINED);
	say(&half, change(MEMBER_STEP, KIND_GONE, 1, NODE_NONE, 4));
	say_number(&half, MEMBER_OVER, 4);
	assert_state(&half, 1, MEMBER_GONE);
	assert_null(half_end(&half, SHORT_MS));
	mesh_shutdown(half.peer);
	text = half_end(&half, HALF_PATIENCE_MS);
	assert_non_null(text);
	assert_string_equal(text, "node b holds nothing and can be switched off");
	assert_true(half.node->leaves);
	assert_int_equal(half.node->end.status, 0);
}

/* One that is on its way out is a member: its loss ends the pod, until all have done without it. */
static void test_leaver_is_lost(void **state)
{
	struct half half;
	const char *text;

	run(&half, 0);
	say(&half, change(MEMBER_WISH, KIND_DRAIN, 1, 1, 0));
	(void)hear(&half, MEMBER_STEP);
	say_number(&half, MEMBER_DONE, 1);
	hear_number(&half, MEMBER_OVER, 1);
	say(&half, (struct member_word){ .type = MEMBER_DRAINED, .node = 1, .by = 1 });
	/* vCPUs 1 and 2 are there, as this node knows it. */
	assert_int_equal(hear(&half, MEMBER_STEP).kind, KIND_GONE);
	mesh_shutdown(half.peer);
	text = half_end(&half, HALF_PATIENCE_MS);
	assert_non_null(text);
	assert_non_null(strstr(text, "node 1 (b) is gone"));
}

/* What a user hears. */
static void test_drain_is_refused(void **state)
{
	static const struct {
		const char *words, *says;
		bool leaves;
	} rows[] = {
		{ "a", "the first, or the steward", true },
		{ "c", "no such node", true },
		{ "", "no such node", true },
		{ "c", "no such node", false },
		{ "b", "it does not leave", false },
	};
	struct half half;
	char *answer;

	run(&half, 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		answer = steps_drain_request(half.node, rows[i].words, rows[i].leaves);
		if (!strstr(answer, rows[i].says))
			fail_msg("%s, not %s", answer, rows[i].says);
		free(answer);
	}
	/* The list is the control thread's; but it does not look at this one meanwhile. */
	member_list_needs(&half.node->members->list, 1ull << 40);
	answer = steps_drain_request(half.node, "b", true);
	assert_non_null(strstr(answer, "no room for the guest without it"));
	free(answer);
	assert_int_equal(members_step(half.node->members), 0);
	assert_null(half_end(&half, 0));
}

/* ---- lies ------------------------------------------------------------------------------------ */

static void assert_lie(uint16_t self, struct member_word word, const char *says)
{
	struct half half;
	const char *text;

	run(&half, self);
	say(&half, word);
	text = half_end(&half, HALF_PATIENCE_MS);
	if (!text || !strstr(text, says))
		fail_msg("it ends with \"%s\", not \"%s\"", text ? text : "", says);
	assert_int_equal(members_step(half.node->members), 0);
}

static void test_lies(void **state)
{
	struct member_word step = seat(MEMBER_STEP, 1, 0, 1), bad;
	struct member_word done = { .type = MEMBER_DONE, .number = 1 };
	struct member_word over = { .type = MEMBER_OVER, .number = 1 };
	struct member_word refused = { .type = MEMBER_REFUSED, .id = 1, .why = -EBUSY };
	static const char unfit[] = "which does not fit the pod's list of members";
	static const char not_yet[] = "for what no node does yet";

	step.number = 1;
	assert_lie(0, step, unfit); /* of who is not the steward */
	bad = step, bad.number = 2;
	assert_lie(1, bad, unfit);
	bad = step, bad.node = 0; /* has it */
	assert_lie(1, bad, unfit);
	bad = step, bad.node = NODES_MAX - 1;
	assert_lie(1, bad, unfit);
	bad = step, bad.by = 1; /* it has wished nothing */
	assert_lie(1, bad, unfit);
	assert_lie(0, done, unfit);
	assert_lie(1, done, unfit);
	assert_lie(0, over, unfit);
	assert_lie(1, over, unfit);
	assert_lie(1, refused, unfit);
	assert_lie(0, seat(MEMBER_WISH, 1, 0, 1), unfit); /* in another's name */
	assert_lie(1, seat(MEMBER_WISH, 1, 0, 1), unfit); /* to who is not the steward */
	bad = step, bad.seat = SEAT_PC;
	assert_lie(1, bad, not_yet);
	assert_lie(1, change(MEMBER_STEP, KIND_DRAIN, 0, 0, 1), unfit); /* it has seats */
	assert_lie(1, change(MEMBER_STEP, KIND_ACTIVE, 1, 0, 1), unfit);
	assert_lie(1, change(MEMBER_STEP, KIND_GONE, 1, NODE_NONE, 1), unfit);
	assert_lie(1, change(MEMBER_STEP, KIND_FREE, 1, NODE_NONE, 1), unfit);
	assert_lie(0, change(MEMBER_STEP, KIND_DRAIN, 1, 0, 1), unfit);
	bad = seat(MEMBER_WISH, 1, 0, 1), bad.kind = KIND_DRAIN; /* in another's name */
	assert_lie(0, bad, unfit);
	assert_lie(1, (struct member_word){ .type = MEMBER_DRAINED, .node = 0, .by = 0 }, unfit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seat_comes_and_goes),
		cmocka_unit_test(test_user_wishes),
		cmocka_unit_test(test_steward_gives),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_peer_leaves),
		cmocka_unit_test(test_drain_waits_for_who_is_under_way),
		cmocka_unit_test(test_leaves),
		cmocka_unit_test(test_leaver_is_lost),
		cmocka_unit_test(test_drain_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
