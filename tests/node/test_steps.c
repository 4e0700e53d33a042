/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of the list of members, between a node, its peer and its users: the steward's seat moves. */
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

	asker->answer = steps_request(asker->half->node, asker->words);
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
	bad = step, bad.kind = KIND_DRAIN;
	assert_lie(1, bad, not_yet);
	bad = seat(MEMBER_WISH, 1, 1, 1), bad.kind = KIND_DRAIN;
	assert_lie(0, bad, not_yet);
	assert_lie(0, (struct member_word){ .type = MEMBER_DRAINED, .node = 1, .by = 1 }, not_yet);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seat_comes_and_goes),
		cmocka_unit_test(test_user_wishes),
		cmocka_unit_test(test_steward_gives),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
