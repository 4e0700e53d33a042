/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod of member lists without links: words wait in one queue, in the order in which they were sent, and
 * DONE is said at once unless a test holds it.
 */
#ifndef TESTS_CORE_MEMBER_POD_H
#define TESTS_CORE_MEMBER_POD_H

#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/member_list.h"

#define NODES	4
#define NUMBERS 6
#define WORDS	256

struct post {
	uint16_t src, dst;
	struct member_word word;
};

/* Lists whose words wait in one queue, in order, and whose DONE is said at once unless held. */
struct pod {
	struct member_list list[NUMBERS];
	bool there[NUMBERS], hold[NUMBERS], ended[NUMBERS];
	int unwanted[NUMBERS]; /* why the last wish was refused */
	struct member_word over[NUMBERS];
	uint32_t applied[NUMBERS];
	struct post post[WORDS];
	uint32_t first, count;
	uint64_t now_ns;
	uint16_t deaf; /* words to it wait */
	bool all_deaf;
};

static inline struct member_about about_of(const char *name)
{
	struct member_about about = { .promise_bytes = 1ull << 30, .cores = 2 };

	snprintf(about.name, sizeof(about.name), "%s", name);
	snprintf(about.address, sizeof(about.address), "%s:7000", name);
	return about;
}

static inline int pod_begin(void **state)
{
	struct pod *pod = calloc(1, sizeof(*pod));
	struct member_about about[NODES] = { about_of("a"), about_of("b"), about_of("c"),
					     about_of("d") };

	assert_non_null(pod);
	pod->deaf = NODE_NONE;
	for (uint16_t n = 0; n < NODES; n++) {
		member_list_init(&pod->list[n], n, NUMBERS, NODES, about);
		pod->there[n] = true;
	}
	*state = pod;
	return 0;
}

static inline int pod_end(void **state)
{
	free(*state);
	return 0;
}

static inline void outs_of(struct pod *pod, uint16_t node)
{
	struct member_out out;

	while (member_list_next(&pod->list[node], pod->now_ns, &out)) {
		switch (out.type) {
		case MEMBER_SEND:
			assert_false(member_set_has(&out.to, node));
			for (uint16_t to = 0; to < NUMBERS; to++) {
				if (!member_set_has(&out.to, to) || !pod->there[to])
					continue;
				assert_true(pod->count < WORDS);
				pod->post[(pod->first + pod->count++) % WORDS] =
					(struct post){ node, to, out.word };
			}
			break;
		case MEMBER_APPLIED:
			pod->applied[node]++;
			if (!pod->list[node].done && !pod->hold[node])
				member_list_done(&pod->list[node]);
			break;
		case MEMBER_IS_OVER:
			pod->over[node] = out.word;
			break;
		case MEMBER_UNWANTED:
			pod->unwanted[node] = out.word.why;
			break;
		case MEMBER_END:
			pod->ended[node] = true;
			break;
		}
	}
}

/* Until nothing moves; words to who is deaf stay, and with them all that one has sent him. */
static inline void run(struct pod *pod)
{
	uint32_t idle = 0;

	for (uint16_t n = 0; n < NUMBERS; n++)
		if (pod->there[n])
			outs_of(pod, n);
	while (pod->count > 0 && idle < pod->count) {
		struct post post = pod->post[pod->first];

		pod->first = (pod->first + 1) % WORDS;
		pod->count--;
		if (post.dst == pod->deaf || pod->all_deaf) {
			pod->post[(pod->first + pod->count++) % WORDS] = post;
			idle++;
			continue;
		}
		idle = 0;
		if (!pod->there[post.dst])
			continue;
		assert_int_equal(
			member_list_hear(&pod->list[post.dst], post.src, &post.word, pod->now_ns),
			0);
		outs_of(pod, post.dst);
	}
}

static inline void expect(const struct pod *pod, uint64_t step, uint16_t node,
			  enum member_state state)
{
	for (uint16_t n = 0; n < NUMBERS; n++) {
		if (!pod->there[n])
			continue;
		assert_int_equal(pod->list[n].now.step, step);
		assert_int_equal(pod->list[n].now.member[node].state, state);
	}
}

static inline void wish(struct pod *pod, uint16_t by, enum member_kind kind, uint16_t node)
{
	struct member_word word = { .kind = kind, .node = node, .seat = SEAT_STEWARD };
	uint32_t id;

	assert_int_equal(member_list_wish(&pod->list[by], &word, &id), 0);
}

static inline void wish_join(struct pod *pod, uint16_t by, const char *name)
{
	struct member_word word = { .kind = KIND_JOIN, .about = about_of(name) };
	uint32_t id;

	assert_int_equal(member_list_wish(&pod->list[by], &word, &id), 0);
}

/* The joiner has been told by its sponsor. */
static inline void joiner_begins(struct pod *pod, uint16_t node, uint16_t sponsor)
{
	assert_int_equal(member_list_init_joiner(&pod->list[node], node, &pod->list[sponsor].now),
			 0);
	pod->there[node] = true;
	pod->ended[node] = pod->hold[node] = false;
}

static inline void join(struct pod *pod, uint16_t node, const char *name)
{
	wish_join(pod, 1, name);
	run(pod);
	joiner_begins(pod, node, 1);
	member_list_ready(&pod->list[node]);
	run(pod);
}

/* node has left: FREE's DONE waits for that outside. */
static inline void leave(struct pod *pod, uint16_t node)
{
	wish(pod, 0, KIND_DRAIN, node);
	run(pod);
	member_list_drained(&pod->list[node]);
	run(pod);
	pod->there[node] = false;
}

#define POD_TEST(test) cmocka_unit_test_setup_teardown(test, pod_begin, pod_end)

#endif
