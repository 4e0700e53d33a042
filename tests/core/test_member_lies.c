/* SPDX-License-Identifier: Apache-2.0 */
/* The list of members: what no correct member says, in every state, and whatever else may be said. */
#include "tests/core/member_pod.h"

#include <errno.h>
#include <string.h>

#include "tests/rng.h"

static void lie(struct pod *pod, uint16_t to, uint16_t src, struct member_word word)
{
	static struct member_list before;
	struct member_list *list = &pod->list[to];

	before = *list;
	assert_int_equal(member_list_hear(list, src, &word, 0), -EPROTO);
	assert_memory_equal(list, &before, sizeof(before));
}

static void lies_about_steps(void **state)
{
	struct pod *pod = *state;
	struct member_word step = {
		.type = MEMBER_STEP, .kind = KIND_DRAIN, .node = 3, .by = NODE_NONE, .number = 1
	};
	struct member_word bad;

	lie(pod, 1, 2, step); /* not the steward */
	lie(pod, 0, 1, step);
	lie(pod, 1, 1, step);
	lie(pod, 1, NODES, step);
	lie(pod, 1, NODE_NONE, step);
	bad = step, bad.number = 2;
	lie(pod, 1, 0, bad);
	bad = step, bad.number = 0;
	lie(pod, 1, 0, bad);
	bad = step, bad.node = NUMBERS;
	lie(pod, 1, 0, bad);
	bad = step, bad.node = 0; /* has seats */
	lie(pod, 1, 0, bad);
	bad = step, bad.node = 4; /* is free */
	lie(pod, 1, 0, bad);
	bad = step, bad.why = -1;
	lie(pod, 1, 0, bad);
	bad = step, bad.why = 1;
	lie(pod, 1, 0, bad);
	bad = step, bad.by = 1; /* it has wished nothing */
	lie(pod, 1, 0, bad);
	bad = step, bad.by = NUMBERS;
	lie(pod, 1, 0, bad);
	for (int kind = 0; kind < 8; kind++) {
		bad = step, bad.kind = (enum member_kind)kind;
		if (kind == KIND_DRAIN)
			continue;
		if (kind == KIND_SEAT)
			bad.seat = SEAT_COUNT;
		lie(pod, 1, 0, bad);
	}
	bad = step, bad.kind = KIND_SEAT, bad.node = 0; /* has it */
	lie(pod, 1, 0, bad);
	bad = step, bad.kind = KIND_JOIN, bad.node = 4, bad.about = about_of("e");
	memset(bad.about.address, 'x', sizeof(bad.about.address));
	lie(pod, 1, 0, bad);
	bad.about = about_of("");
	lie(pod, 1, 0, bad);
	/* One after the other only. */
	assert_int_equal(member_list_hear(&pod->list[1], 0, &step, 0), 0);
	step.kind = KIND_ACTIVE;
	step.number = 2;
	lie(pod, 1, 0, step);
	lie(pod, 1, 0, (struct member_word){ .type = MEMBER_OVER, .number = 1 });
	outs_of(pod, 1);
	lie(pod, 1, 0, step);
	lie(pod, 1, 2, (struct member_word){ .type = MEMBER_OVER, .number = 1 });
	lie(pod, 1, 0, (struct member_word){ .type = MEMBER_OVER, .number = 2 });
	bad = (struct member_word){ .type = MEMBER_OVER, .number = 1 };
	assert_int_equal(member_list_hear(&pod->list[1], 0, &bad, 0), 0);
	lie(pod, 1, 0, bad);
}

static void lies_to_the_steward(void **state)
{
	struct pod *pod = *state;
	struct member_word word = { .type = MEMBER_DONE };

	lie(pod, 0, 1, word);
	lie(pod, 1, 2, word);
	pod->hold[1] = true;
	wish(pod, 0, KIND_DRAIN, 3);
	run(pod);
	word.number = 1;
	lie(pod, 0, 2, word); /* twice */
	word.number = 0;
	lie(pod, 0, 1, word);
	member_list_done(&pod->list[1]);
	run(pod);

	word = (struct member_word){ .type = MEMBER_WISH, .kind = KIND_DRAIN, .node = 1, .by = 2 };
	lie(pod, 0, 1, word); /* another's */
	lie(pod, 1, 2, word); /* not to the steward */
	word.node = NUMBERS;
	lie(pod, 0, 2, word);
	word.kind = KIND_FREE;
	lie(pod, 0, 2, word);
	word = (struct member_word){ .type = MEMBER_REFUSED, .why = -EBUSY };
	lie(pod, 1, 0, word);
	word = (struct member_word){ .type = MEMBER_DRAINED, .node = 3, .by = 2 };
	lie(pod, 0, 2, word);
	word = (struct member_word){ .type = MEMBER_DRAINED, .node = 3, .by = 3, .why = -1 };
	lie(pod, 0, 3, word);
	word = (struct member_word){ .type = MEMBER_FAILED, .node = 2, .by = 2, .why = -1 };
	lie(pod, 0, 2, word);
	word = (struct member_word){ .type = MEMBER_FAILED, .node = 4, .by = 2 };
	lie(pod, 0, 2, word);
	word = (struct member_word){ .type = MEMBER_WORD_COUNT };
	lie(pod, 0, 2, word);
	/* One a member. */
	pod->hold[0] = true;
	wish(pod, 0, KIND_ACTIVE, 3);
	run(pod);
	word = (struct member_word){ .type = MEMBER_WISH, .kind = KIND_DRAIN, .node = 1, .by = 2 };
	assert_int_equal(member_list_hear(&pod->list[0], 2, &word, 0), 0);
	lie(pod, 0, 2, word);
	/* A joiner wishes nothing. */
	member_list_done(&pod->list[0]);
	pod->hold[0] = false;
	run(pod);
	wish_join(pod, 1, "e");
	run(pod);
	word = (struct member_word){ .type = MEMBER_WISH, .kind = KIND_DRAIN, .node = 1, .by = 4 };
	lie(pod, 0, 4, word);
}

static void lies_to_a_joiner(void **state)
{
	struct pod *pod = *state;
	struct member_snapshot good, bad;
	struct member_list *list = &pod->list[4];

	wish_join(pod, 1, "e");
	run(pod);
	good = pod->list[1].now;
	assert_int_equal(member_list_init_joiner(list, 4, &good), 0);
	assert_int_equal(member_list_init_joiner(list, 3, &good), -EINVAL);
	assert_int_equal(member_list_init_joiner(list, NUMBERS, &good), -EINVAL);
	bad = good, bad.number_count = NODES_MAX + 1;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, bad.step++;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, bad.seat[SEAT_PC] = 4;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, bad.seat[SEAT_PC] = NODE_NONE;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, bad.member[2].state = MEMBER_JOINING;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, bad.member[2].state = (enum member_state)7;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, bad.member[2].since = 9;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, bad.member[NUMBERS].state = MEMBER_ACTIVE;
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
	bad = good, memset(bad.member[1].about.name, 'x', NODE_NAME_MAX);
	assert_int_equal(member_list_init_joiner(list, 4, &bad), -EINVAL);
}

static struct member_word any_word(struct rng *rng)
{
	struct member_word word = {
		.type = (enum member_word_type)rng_below(rng, MEMBER_WORD_COUNT + 1),
		.kind = (enum member_kind)rng_below(rng, KIND_COUNT + 1),
		.seat = (enum member_seat)rng_below(rng, SEAT_COUNT + 1),
		.node = (uint16_t)rng_below(rng, NUMBERS + 1),
		.by = (uint16_t)rng_below(rng, NUMBERS + 1),
		.id = rng_below(rng, 4),
		.why = rng_chance(rng, 60) ? 0 : (int)rng_below(rng, 3) - 1,
		.number = rng_below(rng, 12),
		.about = about_of(rng_chance(rng, 80) ? "y" : "b"),
	};

	if (rng_chance(rng, 30))
		word.by = NODE_NONE;
	return word;
}

static void nearly_true(const struct member_list *list, struct rng *rng, struct member_word *word,
			uint16_t *src)
{
	word->number = list->now.step;
	word->by = *src;
	if (list->orderer == list->self && list->open) {
		word->type = MEMBER_DONE;
	} else if (list->leading) {
		word->type = rng_chance(rng, 50) ? MEMBER_WISH : MEMBER_FAILED;
		word->why = word->type == MEMBER_FAILED ? -1 : 0;
	} else {
		*src = list->now.seat[SEAT_STEWARD];
		word->by = NODE_NONE;
		word->type = list->over ? MEMBER_STEP : MEMBER_OVER;
		word->number += list->over;
		word->why = rng_chance(rng, 80) ? 0 : -1;
	}
}

/* The others say anything: no assert, and who has a seat is a member. */
static void anything_may_be_said(void **state)
{
	struct pod *pod = *state;
	struct rng rng = { 1 };
	uint32_t taken = 0;

	for (uint32_t round = 0; round < 3000; round++) {
		uint16_t self = (uint16_t)rng_below(&rng, 3);
		struct member_list *list = &pod->list[self];
		void *fresh = NULL;

		pod_begin(&fresh);
		*list = ((struct pod *)fresh)->list[self];
		pod_end(&fresh);
		for (uint32_t i = 0; i < 60 && !list->ended; i++) {
			struct member_word word = any_word(&rng);
			uint16_t src = (uint16_t)rng_below(&rng, NUMBERS + 1);
			uint64_t step = list->now.step;
			struct member_out out;

			if (rng_chance(&rng, 60)) /* what is nearly true */
				nearly_true(list, &rng, &word, &src);
			taken += !member_list_hear(list, src, &word, i);
			while (member_list_next(list, i, &out)) {
			}
			assert_true(list->now.step <= step + NUMBERS);
			if (!list->done && member_list_counts(list, self) && rng_chance(&rng, 70))
				member_list_done(list);
			while (member_list_next(list, i, &out)) {
			}
			for (int seat = 0; seat < SEAT_COUNT; seat++)
				assert_int_equal(list->now.member[list->now.seat[seat]].state,
						 MEMBER_ACTIVE);
		}
	}
	assert_true(taken > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		POD_TEST(lies_about_steps),
		POD_TEST(lies_to_the_steward),
		POD_TEST(lies_to_a_joiner),
		POD_TEST(anything_may_be_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
