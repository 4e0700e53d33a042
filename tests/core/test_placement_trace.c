// SPDX-License-Identifier: Apache-2.0
/* Traces of placement: written and read back; what is cut off, spoilt or of another version is
 * refused with a line; and decisions in words, from a trace, too. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/placement_trace.h"
#include "tests/rng.h"

#define TRACE_BYTES 131072

static char text[TRACE_BYTES];
static size_t text_length;

/* A decision, as whoever writes it has it. */
static void make_record(struct rng *rng, struct placement_trace_event *event,
			struct placement_record *record)
{
	*record = (struct placement_record){ .at_ns = event->at_ns,
					     .vcpu = event->vcpu,
					     .move = rng_chance(rng, 30),
					     .here = (uint16_t)rng_below(rng, 3),
					     .target = (uint16_t)rng_below(rng, 3),
					     .move_ns = rng_below(rng, PLACEMENT_MOVE_NS_MAX),
					     .lost_ns = -1 };
	event->record = record;
	if (record->move) {
		record->why = (uint8_t)(PLACEMENT_WHY_PAID +
					rng_below(rng, PLACEMENT_WHYS - PLACEMENT_WHY_PAID));
		record->factor = (uint16_t)rng_below(rng, PLACEMENT_FACTOR_MAX + 1);
		record->credit = rng_below(rng, PLACEMENT_WHOLE + 1);
		return;
	}
	record->arm = (uint8_t)rng_below(rng, PLACEMENT_ARMS);
	record->how = (uint8_t)rng_below(rng, PLACEMENT_HOWS);
	record->drawn = record->how == PLACEMENT_HOW_CONTROL || record->how == PLACEMENT_HOW_TRY;
	record->predicted = rng_chance(rng, 50);
	for (int i = 0; i < PLACEMENT_ARMS; i++)
		record->arm_ns[i] = rng_below(rng, 20000000);
	for (int i = 0; i < PLACEMENT_FEATURES; i++) {
		record->feature[i] = (int8_t)rng_next(rng);
		record->part_ns[i] = (int32_t)rng_next(rng);
	}
}

/* Of each kind; first where the two are. */
static struct placement_trace_event make_event(struct rng *rng, uint32_t i, uint64_t now_ns,
					       struct placement_record *record)
{
	struct placement_trace_event event = { .what = PLACEMENT_TRACE_STALL,
					       .at_ns = now_ns,
					       .vcpu = i % 2,
					       .node = (uint16_t)rng_below(rng, 3) };

	if (i < 2)
		event.what = PLACEMENT_TRACE_MOVE;
	else if (rng_chance(rng, 20))
		event.what =
			(enum placement_trace_what)rng_below(rng, PLACEMENT_TRACE_DECISION + 1);
	switch (event.what) {
	case PLACEMENT_TRACE_STALL:
		event.took_ns = rng_below(rng, 100000);
		event.kind = (enum coh_stall_kind)rng_below(rng, COH_STALL_KINDS);
		event.gpn = rng_next(rng) % GPN_LIMIT;
		event.slept_ns = rng_below(rng, 1000000);
		event.program = (uint32_t)rng_next(rng);
		event.sharers = (uint16_t)rng_below(rng, NODES_MAX);
		if (rng_chance(rng, 5))
			event.node = NODE_NONE;
		break;
	case PLACEMENT_TRACE_MOVE:
		event.took_ns = rng_below(rng, 100000);
		break;
	case PLACEMENT_TRACE_LOAD:
		event.vcpu = 0;
		event.cores = (uint16_t)rng_below(rng, 65536);
		event.awake = (uint16_t)rng_below(rng, 65536);
		break;
	case PLACEMENT_TRACE_PIN:
		event.node = 0;
		event.pinned = rng_chance(rng, 50);
		break;
	case PLACEMENT_TRACE_OUTCOME:
		event.node = 0;
		event.took_ns = rng_below(rng, 1000000);
		event.lost_ns = rng_next(rng) >> 8;
		break;
	case PLACEMENT_TRACE_DECISION:
		event.node = 0;
		make_record(rng, &event, record);
		break;
	}
	return event;
}

static void write_trace(uint64_t seed)
{
	struct placement_trace_writer writer;
	struct rng rng = { seed };
	uint64_t now_ns = 1000000;

	placement_trace_begin(&writer, 3, 2, 164000);
	text_length = (size_t)placement_trace_head(&writer, text, sizeof(text));
	for (uint32_t i = 0; i < 300; i++) {
		struct placement_record record;
		struct placement_trace_event event = make_event(&rng, i, now_ns, &record);

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

/* Each line says all that was written, and nothing less is taken for one. */
static void lines(void **state)
{
	struct placement_trace_writer writer;
	uint32_t seen[PLACEMENT_TRACE_DECISION + 1] = { 0 };
	struct rng rng = { 4 };

	placement_trace_begin(&writer, 3, 2, 164000);
	for (uint32_t i = 0; i < 3000; i++) {
		char line[PLACEMENT_TRACE_LINE], again[PLACEMENT_TRACE_LINE];
		struct placement_record record, read;
		struct placement_trace_event event = make_event(&rng, i, 1000000 + i, &record),
					     back;
		int length = placement_trace_put(&writer, &event, line, sizeof(line));

		assert_true(length > 0 && line[length - 1] == '\n');
		memset(&read, 0, sizeof(read));
		if (placement_trace_get(&writer, line, (size_t)length - 1, &back, &read) != 0)
			fail_msg("%s", line);
		assert_int_equal(placement_trace_put(&writer, &back, again, sizeof(again)), length);
		assert_memory_equal(line, again, length);
		if (event.record) {
			assert_ptr_equal(back.record, &read);
			assert_memory_equal(read.feature, record.feature, sizeof(read.feature));
			assert_memory_equal(read.part_ns, record.part_ns, sizeof(read.part_ns));
			assert_int_equal(read.drawn, record.drawn);
			assert_int_equal(read.predicted, record.predicted);
			assert_int_equal(read.lost_ns, -1);
		}
		assert_int_equal(back.what, event.what);
		seen[event.what]++;
		/* A decision's end may be that of a number; what is shorter by a word is no line. */
		line[length - 1] = '\0';
		*strrchr(line, ' ') = '\0';
		assert_true(placement_trace_get(&writer, line, strlen(line), &back, &read) < 0);
		for (int size = 0; size < length; size += 11)
			assert_int_equal(placement_trace_put(&writer, &event, again, (size_t)size),
					 -ENOSPC);
	}
	for (int what = 0; what <= PLACEMENT_TRACE_DECISION; what++)
		assert_true(seen[what] > 50);
}

/* The longest of all fits. */
static void longest_line(void **state)
{
	struct placement_trace_writer writer = { 0 };
	char line[PLACEMENT_TRACE_LINE];
	struct placement_record record = { .here = NODES_MAX - 1,
					   .target = NODES_MAX - 1,
					   .move_ns = UINT64_MAX,
					   .arm = PLACEMENT_ARM_EAGER,
					   .how = PLACEMENT_HOW_LEARNED,
					   .arm_ns = { INT64_MIN, INT64_MIN } };
	struct placement_trace_event event = { .what = PLACEMENT_TRACE_DECISION,
					       .at_ns = UINT64_MAX,
					       .vcpu = UINT32_MAX,
					       .record = &record };

	for (int i = 0; i < PLACEMENT_FEATURES; i++) {
		record.feature[i] = -128;
		record.part_ns[i] = INT32_MIN;
	}
	assert_true(placement_trace_put(&writer, &event, line, sizeof(line)) > 0);
}

#define HEAD(nodes, vcpus, move)                                                                   \
	"eagre placement trace 2 nodes=" nodes " vcpus=" vcpus " move_ns=" move
#define GOOD HEAD("3", "1", "9") "\n"

static void refused(void **state)
{
	static const struct {
		const char *trace, *reason;
	} bad[] = {
		{ "", "cut off" },
		{ "eagre placement trace 1 nodes=3", "another version" },
		{ "eagre placement trace 3 nodes=3", "another version" },
		{ "#!/bin/sh", "not a trace" },
		{ HEAD("0", "1", "1"), "first line" },
		{ HEAD("257", "1", "1"), "first line" },
		{ HEAD("3", "1", "0"), "first line" },
		{ HEAD("3", "1", "1 "), "first line" },
		{ GOOD "stall 9 0 1 5 read 1 1 1 0", "nowhere" },
		{ GOOD "place 0 1 0 0", "nonsense" },
		{ GOOD "place 0 0 3 0", "nonsense" },
		{ GOOD "place 0 0 1 0\nend 2", "lost lines" },
		{ GOOD "place 0 0 1 0\nend 1\nend 1", "behind its end" },
		{ GOOD "place 0 0 1 0\nstall 4 0 2 5 read 1 1 1 0", "nonsense" },
		{ GOOD "place 0 0 1 0\nstall 6 0 2 5 read 1 1", "nonsense" },
		{ GOOD "place 0 0 1 0\nstall 99999999999999999999 0 2 5 read 1 1 1 0", "nonsense" },
		{ GOOD "load 5 3 1 1", "nonsense" },
		{ GOOD "load 5 1 65536 1", "nonsense" },
		{ GOOD "pin 5 0 2", "nonsense" },
		{ GOOD "pin 5 1 1", "nonsense" },
		{ GOOD "outcome 5 0 6 1", "nonsense" },
		{ GOOD "go 5 0 0 1 lost 32 9 1", "nonsense" },
		{ GOOD "go 5 0 0 1 paid 257 9 1", "nonsense" },
		{ GOOD "choice 5 0 0 1 base base 1 9 1 1", "nonsense" },
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

#define REST                                                                                        \
	" stalled-lately=0:0 near=0:0 left=0:0 writes=0:0 shared=0:0 stay=0:0 stays=0:0 moves=0:0 " \
	"load-here=0:0 load-there=0:0 program=-7:3250000 gap=0:0\n"
#define CHOICE(at, arm, how, base, eager)                                                          \
	"choice " at " 0 0 1 " arm " " how " 1 9 " base " " eager                                  \
	" always=64:2300000 owner-now=0:0 owner-lately=0:0 stalled-now=0:0" REST

struct heard {
	char text[4096];
	size_t length;
};

static void hear(void *arg, const struct placement_record *record)
{
	struct heard *heard = arg;
	int length = placement_record_text(record, heard->text + heard->length,
					   sizeof(heard->text) - heard->length);

	assert_true(length > 0);
	heard->length += (size_t)length;
}

static struct placement_replay_result hear_all(const char *trace, struct heard *heard)
{
	struct placement_replay_result result;
	struct placement_replay *replay;
	const char *reason;

	*heard = (struct heard){ .length = 0 };
	assert_int_equal(placement_replay_create(PLACEMENT_BASE, 0, &replay), 0);
	placement_replay_explain(replay, hear, heard);
	for (const char *end; (end = strchr(trace, '\n')); trace = end + 1)
		if (placement_replay_line(replay, trace, (size_t)(end - trace), &reason) != 0)
			fail_msg("%s: %s", reason, trace);
	assert_int_equal(placement_replay_finish(replay, &result, &reason), 0);
	placement_replay_destroy(replay);
	return result;
}

/* From the trace alone: what was expected, by which features, what was chosen, what came of it. */
static void explained(void **state)
{
	struct placement_replay_result result;
	struct heard heard;

	result = hear_all(
		GOOD "place 0 0 0 0\n" CHOICE(
			"5000000", "eager", "learned", "7900000",
			"2350000") "go 6000000 0 0 1 eager 8 820000 1073741824\n"
				   /* What came of one that was made before, and then of this one. */
				   "outcome 14000000 0 4000000 7\n"
				   "outcome 15000000 0 5000000 2640000\n" CHOICE(
					   "16000000", "base", "control", "2350000",
					   "7900000") "end 6\n",
		&heard);
	assert_string_equal(
		heard.text,
		"0.006000 s: vCPU 0 goes from node 0 to node 1: a move is expected to pay, so early\n"
		"  threshold 0.41 ms: a move costs 0.82 ms, times 0.50\n"
		"0.005000 s: vCPU 0 at node 0, stalls on node 1: threshold eager\n"
		"  expected to lose, of 10 ms: base 7.90, eager 2.35\n"
		"  + program 3.25 + always 2.30 better than base\n"
		"  lost 2.64 ms\n"
		"0.016000 s: vCPU 0 at node 0, stalls on node 1: threshold base, drawn to compare\n"
		"  expected to lose, of 10 ms: base 2.35, eager 7.90\n"
		"  + program 3.25 + always 2.30 better than eager\n"
		"  what came of it is not known here\n");
	assert_int_equal(result.choice_count, 2);
	assert_int_equal(result.outcome_count, 1);
	assert_int_equal(result.go_count, 1);
	assert_int_equal(result.odd_count, 0);
}

/* Choices that are not what their own figures say are seen. */
static void odd(void **state)
{
	static const char *const choice[] = {
		CHOICE("5", "base", "learned", "7900000", "2350000"),  /* eager is better */
		CHOICE("5", "eager", "learned", "2350000", "7900000"), /* base is */
		CHOICE("5", "eager", "learned", "7900000", "7800000"), /* not by enough */
		CHOICE("5", "eager", "base", "7900000", "2350000"), /* nobody asked the learner */
		CHOICE("5", "eager", "control", "7900000",
		       "2350000"), /* it was to be the base rule's */
		CHOICE("5", "eager", "try", "7900000", "2349000"), /* does not add up */
	};
	char trace[2048];
	struct heard heard;

	for (size_t i = 0; i < sizeof(choice) / sizeof(choice[0]); i++) {
		snprintf(trace, sizeof(trace), "%s%send 1\n", GOOD, choice[i]);
		if (hear_all(trace, &heard).odd_count != 1)
			fail_msg("nobody saw: %s", choice[i]);
	}
}

/* Loads and pins count in a replay, as they did. */
static void what_was_so(void **state)
{
	static const char *const before[] = { "", "pin 1 0 1\n", "load 1 1 1 3\n",
					      "load 1 1 4 3\n" };
	static const uint64_t moves[] = { 1, 0, 0, 1 };
	static char trace[16384];
	struct heard heard;

	for (int i = 0; i < 4; i++) {
		size_t at =
			(size_t)snprintf(trace, sizeof(trace),
					 "eagre placement trace 2 nodes=2 vcpus=1 move_ns=50000\n"
					 "place 0 0 0 0\n%s",
					 before[i]);
		unsigned lines = 1 + (before[i][0] != 0);

		/* A tenth of its time it stalls there. */
		for (unsigned k = 1; k <= 200; k++, lines++)
			at += (size_t)snprintf(trace + at, sizeof(trace) - at,
					       "stall %u 0 1 10000 write 7 1 1 0\n",
					       1000000 + k * 100000);
		snprintf(trace + at, sizeof(trace) - at, "end %u\n", lines);
		assert_int_equal(hear_all(trace, &heard).move_count, moves[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back), cmocka_unit_test(lines),
		cmocka_unit_test(longest_line),	  cmocka_unit_test(refused),
		cmocka_unit_test(spoilt),	  cmocka_unit_test(in_words),
		cmocka_unit_test(explained),	  cmocka_unit_test(odd),
		cmocka_unit_test(what_was_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
