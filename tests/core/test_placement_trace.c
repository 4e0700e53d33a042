// SPDX-License-Identifier: Apache-2.0
/* Traces of placement: written and read back; what is cut off, spoilt or of another version is
 * refused with a line; and a decision in words. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/placement_trace.h"
#include "tests/rng.h"

#define TRACE_BYTES 65536

static char text[TRACE_BYTES];
static size_t text_length;

static void write_trace(uint64_t seed)
{
	struct placement_trace_writer writer;
	struct rng rng = { seed };
	uint64_t now_ns = 1000000;

	placement_trace_begin(&writer, 3, 2, 164000);
	text_length = (size_t)placement_trace_head(&writer, text, sizeof(text));
	for (uint32_t i = 0; i < 300; i++) {
		struct placement_trace_event event = { .move = i < 2 || rng_chance(&rng, 5),
						       .at_ns = now_ns,
						       .vcpu = i % 2,
						       .node = (uint16_t)rng_below(&rng, 3),
						       .took_ns = rng_below(&rng, 100000),
						       .kind = (enum coh_stall_kind)rng_below(
							       &rng, COH_STALL_KINDS),
						       .gpn = rng_next(&rng) % GPN_LIMIT,
						       .program = (uint32_t)rng_next(&rng) };

		if (!event.move && rng_chance(&rng, 5))
			event.node = NODE_NONE;
		now_ns += rng_below(&rng, 200000);
		text_length += (size_t)placement_trace_put(&writer, &event, text + text_length,
							   sizeof(text) - text_length);
	}
	text_length += (size_t)placement_trace_end(&writer, text + text_length,
						   sizeof(text) - text_length);
}

/* 0, or what is wrong with it. */
static const char *read_trace(const char *from, size_t length,
			      struct placement_replay_result *ret_result)
{
	struct placement_replay *replay;
	const char *reason = NULL, *at = from;
	int error = 0;

	assert_int_equal(placement_replay_create(PLACEMENT_BASE, 0, &replay), 0);
	while (!error && at < from + length) {
		const char *end = memchr(at, '\n', (size_t)(from + length - at));
		size_t size = end ? (size_t)(end - at) : (size_t)(from + length - at);

		error = placement_replay_line(replay, at, size, &reason);
		at += size + 1;
	}
	if (!error)
		error = placement_replay_finish(replay, ret_result, &reason);
	placement_replay_destroy(replay);
	assert_true((error == 0) == (reason == NULL));
	return reason;
}

static void there_and_back(void **state)
{
	struct placement_replay_result result;

	for (uint64_t seed = 1; seed <= 20; seed++) {
		write_trace(seed);
		assert_null(read_trace(text, text_length, &result));
		assert_true(result.stall_count > 200);
		assert_true(result.best_ns > 0 && result.best_ns <= result.policy_ns);
	}
}

static void refused(void **state)
{
	static const struct {
		const char *trace, *reason;
	} bad[] = {
		{ "", "cut off" },
		{ "eagre placement trace 2 nodes=3", "another version" },
		{ "#!/bin/sh", "not a trace" },
		{ "eagre placement trace 1 nodes=0 vcpus=1 move_ns=1", "first line" },
		{ "eagre placement trace 1 nodes=257 vcpus=1 move_ns=1", "first line" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=0", "first line" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=1 ", "first line" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=9\nstall 9 0 1 5 read 1 1",
		  "nowhere" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=9\nplace 0 1 0 0", "nonsense" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=9\nplace 0 0 3 0", "nonsense" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=9\nplace 0 0 1 0\nend 2",
		  "lost lines" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=9\nplace 0 0 1 0\nend 1\nend 1",
		  "behind its end" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=9\nplace 0 0 1 0\n"
		  "stall 4 0 2 5 read 1 1",
		  "nonsense" },
		{ "eagre placement trace 1 nodes=3 vcpus=1 move_ns=9\nplace 0 0 1 0\n"
		  "stall 99999999999999999999 0 2 5 read 1 1",
		  "nonsense" },
	};
	struct placement_replay_result result;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *reason = read_trace(bad[i].trace, strlen(bad[i].trace), &result);

		assert_non_null(reason);
		if (!strstr(reason, bad[i].reason))
			fail_msg("%s: %s", bad[i].trace, reason);
	}
	/* Every cut, but for that of the last newline. */
	write_trace(1);
	for (size_t length = 0; length + 1 < text_length; length += 7)
		assert_non_null(read_trace(text, length, &result));
}

static void spoilt(void **state)
{
	static char bytes[TRACE_BYTES];
	struct placement_replay_result result;
	struct rng rng = { 9 };
	uint32_t refused_count = 0;

	write_trace(2);
	for (int i = 0; i < 2000; i++) {
		memcpy(bytes, text, text_length);
		for (uint32_t k = 1 + rng_below(&rng, 3); k > 0; k--)
			bytes[rng_below(&rng, (uint32_t)text_length)] = (char)rng_next(&rng);
		refused_count += read_trace(bytes, text_length, &result) != NULL;
	}
	assert_true(refused_count > 1800);
}

static void in_words(void **state)
{
	struct placement_record record = { .at_ns = 3201944000,
					   .vcpu = 2,
					   .here = 0,
					   .target = 1,
					   .arm = PLACEMENT_ARM_EAGER,
					   .predicted = true,
					   .arm_ns = { 7900000, 2350000 },
					   .lost_ns = 2640000 };
	char words[PLACEMENT_TEXT_BYTES];
	int length;

	record.part_ns[PLACEMENT_PROGRAM] = 3200000;
	record.part_ns[PLACEMENT_LEFT] = -310000;
	length = placement_record_text(&record, words, sizeof(words));
	assert_int_equal(length, strlen(words));
	assert_string_equal(words,
			    "3.201944 s: vCPU 2 at node 0, stalls on node 1: threshold eager\n"
			    "  expected to lose, of 10 ms: base 7.90, eager 2.35\n"
			    "  + program 3.20 - left 0.31 better than base\n"
			    "  lost 2.64 ms\n");
	for (int size = 0; size <= length; size++)
		assert_int_equal(placement_record_text(&record, words, (size_t)size), -ENOSPC);
	record = (struct placement_record){ .at_ns = 3202160000,
					    .vcpu = 2,
					    .move = true,
					    .target = 1,
					    .why = PLACEMENT_WHY_EAGER,
					    .move_ns = 820000,
					    .factor = PLACEMENT_FACTOR_MIN };
	assert_true(placement_record_text(&record, words, sizeof(words)) > 0);
	assert_string_equal(
		words,
		"3.202160 s: vCPU 2 goes from node 0 to node 1: a move is expected to pay, so early\n"
		"  threshold 0.41 ms: a move costs 0.82 ms, times 0.50\n");
	/* The longest there is. */
	memset(&record, 0xff, sizeof(record));
	record.move = false;
	record.predicted = record.drawn = true;
	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		record.part_ns[i] = INT32_MIN + 1;
	record.arm_ns[0] = record.arm_ns[1] = record.lost_ns = INT64_MAX;
	assert_true(placement_record_text(&record, words, sizeof(words)) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(refused),
		cmocka_unit_test(spoilt),
		cmocka_unit_test(in_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
