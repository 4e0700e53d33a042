// SPDX-License-Identifier: Apache-2.0
/*
 * Traces and explanations of placement as text. The formats are in the header.
 *
 * Lines are read by hand and judged wholly: numbers in their one form, within bounds, one space
 * between words.
 */
#include "core/placement_trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIME_MAX (1ull << 60)

static const char *const kind_name[COH_STALL_KINDS] = {
	[COH_STALL_ZERO] = "zero",
	[COH_STALL_READ] = "read",
	[COH_STALL_WRITE] = "write",
	[COH_STALL_UPGRADE] = "upgrade",
};
static const char *const how_name[PLACEMENT_HOWS] = {
	[PLACEMENT_HOW_BASE] = "base",
	[PLACEMENT_HOW_CONTROL] = "control",
	[PLACEMENT_HOW_TRY] = "try",
	[PLACEMENT_HOW_LEARNED] = "learned",
};
/* Of moves. */
static const char *const why_name[PLACEMENT_WHYS] = {
	[PLACEMENT_WHY_PAID] = "paid",	   [PLACEMENT_WHY_EAGER] = "eager",
	[PLACEMENT_WHY_ALWAYS] = "always", [PLACEMENT_WHY_GATHER] = "gather",
	[PLACEMENT_WHY_SPREAD] = "spread",
};

struct writer {
	char *text;
	size_t size, at;
	bool full;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *w, const char *format, ...)
{
	va_list arguments;
	int length;

	if (w->full)
		return;
	va_start(arguments, format);
	length = vsnprintf(w->text + w->at, w->size - w->at, format, arguments);
	va_end(arguments);
	w->full = length < 0 || (size_t)length >= w->size - w->at;
	w->at += w->full ? 0 : (size_t)length;
}

static int length_of(const struct writer *w)
{
	return w->full ? -ENOSPC : (int)w->at;
}

void placement_trace_begin(struct placement_trace_writer *writer, uint32_t node_count,
			   uint32_t vcpu_count, uint64_t move_ns)
{
	*writer = (struct placement_trace_writer){ .node_count = node_count,
						   .vcpu_count = vcpu_count,
						   .move_ns = move_ns };
}

int placement_trace_head(struct placement_trace_writer *writer, char *line, size_t size)
{
	struct writer w = { line, size, 0, false };

	put(&w, "eagre placement trace 2 nodes=%u vcpus=%u move_ns=%" PRIu64 "\n",
	    writer->node_count, writer->vcpu_count, writer->move_ns);
	return length_of(&w);
}

static void put_stall(struct writer *w, const struct placement_trace_event *event)
{
	put(w, "stall %" PRIu64 " %u ", event->at_ns, event->vcpu);
	if (event->node == NODE_NONE)
		put(w, "-");
	else
		put(w, "%u", event->node);
	put(w, " %" PRIu64 " %s %" PRIu64 " %u %u %" PRIu64 "\n", event->took_ns,
	    kind_name[event->kind], event->gpn, event->program, event->sharers, event->slept_ns);
}

static void put_decision(struct writer *w, const struct placement_trace_event *event)
{
	const struct placement_record *r = event->record;

	put(w, "%s %" PRIu64 " %u %u %u ", r->move ? "go" : "choice", event->at_ns, event->vcpu,
	    r->here, r->target);
	if (r->move) {
		put(w, "%s %u %" PRIu64 " %u\n", why_name[r->why], r->factor, r->move_ns,
		    r->credit);
		return;
	}
	put(w, "%s %s %u %" PRIu64 " %" PRId64 " %" PRId64,
	    placement_arm_name((enum placement_arm)r->arm), how_name[r->how], r->predicted,
	    r->move_ns, r->arm_ns[PLACEMENT_ARM_BASE], r->arm_ns[PLACEMENT_ARM_EAGER]);
	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		put(w, " %s=%d:%d", placement_feature_name((enum placement_feature)i),
		    r->feature[i], r->part_ns[i]);
	put(w, "\n");
}

int placement_trace_put(struct placement_trace_writer *writer,
			const struct placement_trace_event *event, char *line, size_t size)
{
	struct writer w = { line, size, 0, false };

	switch (event->what) {
	case PLACEMENT_TRACE_STALL:
		put_stall(&w, event);
		break;
	case PLACEMENT_TRACE_MOVE:
		put(&w, "place %" PRIu64 " %u %u %" PRIu64 "\n", event->at_ns, event->vcpu,
		    event->node, event->took_ns);
		break;
	case PLACEMENT_TRACE_LOAD:
		put(&w, "load %" PRIu64 " %u %u %u\n", event->at_ns, event->node, event->cores,
		    event->awake);
		break;
	case PLACEMENT_TRACE_PIN:
		put(&w, "pin %" PRIu64 " %u %u\n", event->at_ns, event->vcpu, event->pinned);
		break;
	case PLACEMENT_TRACE_OUTCOME:
		put(&w, "outcome %" PRIu64 " %u %" PRIu64 " %" PRIu64 "\n", event->at_ns,
		    event->vcpu, event->at_ns - event->took_ns, event->lost_ns);
		break;
	case PLACEMENT_TRACE_DECISION:
		put_decision(&w, event);
		break;
	}
	writer->lines += !w.full;
	return length_of(&w);
}

int placement_trace_end(struct placement_trace_writer *writer, char *line, size_t size)
{
	struct writer w = { line, size, 0, false };

	put(&w, "end %" PRIu64 "\n", writer->lines);
	return length_of(&w);
}

/* What is decided. */

void placement_trace_skip(const struct placement *placement, struct placement_trace_seen *seen)
{
	seen->record = placement_record_newest(placement);
	seen->closed = placement_closed_newest(placement);
}

/* The next number after *seen that is still kept of so many. */
static bool step(uint64_t newest, uint64_t *seen, uint64_t *lost)
{
	if (*seen == newest)
		return false;
	if (newest - *seen > PLACEMENT_RECORDS) {
		*lost += newest - *seen - PLACEMENT_RECORDS;
		*seen = newest - PLACEMENT_RECORDS;
	}
	++*seen;
	return true;
}

bool placement_trace_next(const struct placement *placement, struct placement_trace_seen *seen,
			  struct placement_trace_event *ret_event, struct placement_record *record)
{
	struct placement_closed closed;

	/* A choice is over before the next one is made. */
	while (step(placement_closed_newest(placement), &seen->closed, &seen->lost)) {
		if (placement_closed_get(placement, seen->closed, &closed) < 0)
			continue;
		*ret_event = (struct placement_trace_event){
			.what = PLACEMENT_TRACE_OUTCOME,
			.at_ns = closed.at_ns,
			.took_ns = closed.at_ns - closed.begin_ns,
			.vcpu = closed.vcpu,
			.lost_ns = closed.lost_ns,
		};
		return true;
	}
	while (step(placement_record_newest(placement), &seen->record, &seen->lost)) {
		if (placement_record_get(placement, seen->record, record) < 0)
			continue;
		/* Made where the vCPU was before, and told there. */
		if (!record->move && record->late)
			continue;
		*ret_event = (struct placement_trace_event){ .what = PLACEMENT_TRACE_DECISION,
							     .at_ns = record->at_ns,
							     .vcpu = record->vcpu,
							     .record = record };
		return true;
	}
	return false;
}

/* Reading. */

struct reader {
	const char *at, *end;
};

static bool pass(struct reader *reader, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
		return false;
	reader->at += length;
	return true;
}

/* A decimal number below `limit`, without needless zeros. */
static bool pass_number(struct reader *reader, uint64_t limit, uint64_t *ret_value)
{
	const char *first = reader->at;
	uint64_t value = 0;

	while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') {
		if (value > UINT64_MAX / 10 - 1)
			return false;
		value = value * 10 + (uint64_t)(*reader->at++ - '0');
	}
	*ret_value = value;
	return reader->at > first && value < limit && (*first != '0' || reader->at == first + 1);
}

/* The same behind a space. */
static bool pass_next(struct reader *reader, uint64_t limit, uint64_t *ret_value)
{
	return pass(reader, " ") && pass_number(reader, limit, ret_value);
}

/* A number of at most `limit` either way. */
static bool pass_signed(struct reader *reader, uint64_t limit, int64_t *ret_value)
{
	bool negative = pass(reader, "-");
	uint64_t value;

	if (!pass_number(reader, limit + 1, &value) || (negative && value == 0))
		return false;
	*ret_value = negative ? -(int64_t)value : (int64_t)value;
	return true;
}

/* One of `count` words, some of which may be NULL, that a space or the line's end follows. */
static bool pass_word(struct reader *reader, const char *const *word, uint32_t count,
		      uint32_t *ret_index)
{
	for (uint32_t i = 0; i < count; i++) {
		struct reader tried = *reader;

		if (!word[i] || !pass(&tried, word[i]) ||
		    (tried.at != tried.end && *tried.at != ' '))
			continue;
		*reader = tried;
		*ret_index = i;
		return true;
	}
	return false;
}

static bool at_end(const struct reader *reader)
{
	return reader->at == reader->end;
}

static bool get_place(struct reader *r, const struct placement_trace_writer *of,
		      struct placement_trace_event *event)
{
	uint64_t node;

	event->what = PLACEMENT_TRACE_MOVE;
	if (!pass_next(r, of->node_count, &node) || !pass_next(r, TIME_MAX, &event->took_ns))
		return false;
	event->node = (uint16_t)node;
	return true;
}

static bool get_stall(struct reader *r, const struct placement_trace_writer *of,
		      struct placement_trace_event *event)
{
	uint64_t node = NODE_NONE, program, sharers;
	uint32_t kind;

	event->what = PLACEMENT_TRACE_STALL;
	if (!pass(r, " -") && !pass_next(r, of->node_count, &node))
		return false;
	if (!pass_next(r, TIME_MAX, &event->took_ns) || !pass(r, " ") ||
	    !pass_word(r, kind_name, COH_STALL_KINDS, &kind) ||
	    !pass_next(r, GPN_LIMIT, &event->gpn) || !pass_next(r, UINT32_MAX + 1ull, &program) ||
	    !pass_next(r, NODES_MAX, &sharers) || !pass_next(r, TIME_MAX, &event->slept_ns))
		return false;
	event->node = (uint16_t)node;
	event->kind = (enum coh_stall_kind)kind;
	event->program = (uint32_t)program;
	event->sharers = (uint16_t)sharers;
	return event->took_ns <= event->at_ns;
}

static bool get_load(struct reader *r, struct placement_trace_event *event)
{
	uint64_t cores, awake;

	event->what = PLACEMENT_TRACE_LOAD;
	if (!pass_next(r, UINT16_MAX + 1ull, &cores) || !pass_next(r, UINT16_MAX + 1ull, &awake))
		return false;
	event->cores = (uint16_t)cores;
	event->awake = (uint16_t)awake;
	return true;
}

static bool get_pin(struct reader *r, struct placement_trace_event *event)
{
	uint64_t pinned;

	event->what = PLACEMENT_TRACE_PIN;
	if (!pass_next(r, 2, &pinned))
		return false;
	event->pinned = pinned;
	return true;
}

static bool get_outcome(struct reader *r, struct placement_trace_event *event)
{
	uint64_t began_ns;

	event->what = PLACEMENT_TRACE_OUTCOME;
	if (!pass_next(r, event->at_ns + 1, &began_ns) || !pass_next(r, TIME_MAX, &event->lost_ns))
		return false;
	event->took_ns = event->at_ns - began_ns;
	return true;
}

static bool get_choice(struct reader *r, struct placement_record *record)
{
	static const char *const arms[PLACEMENT_ARMS] = { "base", "eager" };
	uint64_t predicted;
	uint32_t arm, how;

	if (!pass(r, " ") || !pass_word(r, arms, PLACEMENT_ARMS, &arm) || !pass(r, " ") ||
	    !pass_word(r, how_name, PLACEMENT_HOWS, &how) || !pass_next(r, 2, &predicted) ||
	    !pass_next(r, PLACEMENT_MOVE_NS_MAX + 1ull, &record->move_ns))
		return false;
	record->arm = (uint8_t)arm;
	record->how = (uint8_t)how;
	record->drawn = how == PLACEMENT_HOW_CONTROL || how == PLACEMENT_HOW_TRY;
	record->predicted = predicted;
	record->lost_ns = -1;
	for (int i = 0; i < PLACEMENT_ARMS; i++)
		if (!pass(r, " ") || !pass_signed(r, TIME_MAX, &record->arm_ns[i]))
			return false;
	for (int i = 0; i < PLACEMENT_FEATURES; i++) {
		int64_t value, part;

		if (!pass(r, " ") || !pass(r, placement_feature_name((enum placement_feature)i)) ||
		    !pass(r, "=") || !pass_signed(r, 128, &value) || value > 127 || !pass(r, ":") ||
		    !pass_signed(r, 1ull << 31, &part) || part > INT32_MAX)
			return false;
		record->feature[i] = (int8_t)value;
		record->part_ns[i] = (int32_t)part;
	}
	return true;
}

static bool get_go(struct reader *r, struct placement_record *record)
{
	uint64_t factor, credit;
	uint32_t why;

	if (!pass(r, " ") || !pass_word(r, why_name, PLACEMENT_WHYS, &why) ||
	    !pass_next(r, PLACEMENT_FACTOR_MAX + 1u, &factor) ||
	    !pass_next(r, PLACEMENT_MOVE_NS_MAX + 1ull, &record->move_ns) ||
	    !pass_next(r, PLACEMENT_WHOLE + 1ull, &credit))
		return false;
	record->move = true;
	record->why = (uint8_t)why;
	record->factor = (uint16_t)factor;
	record->credit = (uint32_t)credit;
	record->lost_ns = -1;
	return true;
}

static bool get_decision(struct reader *r, bool move, const struct placement_trace_writer *of,
			 struct placement_trace_event *event, struct placement_record *record)
{
	uint64_t here, target;

	event->what = PLACEMENT_TRACE_DECISION;
	event->record = record;
	*record = (struct placement_record){ .at_ns = event->at_ns, .vcpu = event->vcpu };
	if (!pass_next(r, of->node_count, &here) || !pass_next(r, of->node_count, &target))
		return false;
	record->here = (uint16_t)here;
	record->target = (uint16_t)target;
	return move ? get_go(r, record) : get_choice(r, record);
}

enum line_word {
	WORD_STALL,
	WORD_PLACE,
	WORD_LOAD,
	WORD_PIN,
	WORD_CHOICE,
	WORD_OUTCOME,
	WORD_GO,
	WORDS,
};

int placement_trace_get(const struct placement_trace_writer *of, const char *line, size_t length,
			struct placement_trace_event *ret_event, struct placement_record *record)
{
	static const char *const words[WORDS] = {
		[WORD_STALL] = "stall", [WORD_PLACE] = "place",	  [WORD_LOAD] = "load",
		[WORD_PIN] = "pin",	[WORD_CHOICE] = "choice", [WORD_OUTCOME] = "outcome",
		[WORD_GO] = "go",
	};
	struct reader r = { line, line + length };
	struct placement_trace_event event = { .what = PLACEMENT_TRACE_STALL };
	uint64_t number;
	uint32_t word;
	bool good = false;

	if (!pass_word(&r, words, WORDS, &word) || !pass_next(&r, TIME_MAX, &event.at_ns) ||
	    !pass_next(&r, word == WORD_LOAD ? of->node_count : of->vcpu_count, &number))
		return -EINVAL;
	if (word == WORD_LOAD)
		event.node = (uint16_t)number;
	else
		event.vcpu = (uint32_t)number;
	switch ((enum line_word)word) {
	case WORD_STALL:
		good = get_stall(&r, of, &event);
		break;
	case WORD_PLACE:
		good = get_place(&r, of, &event);
		break;
	case WORD_LOAD:
		good = get_load(&r, &event);
		break;
	case WORD_PIN:
		good = get_pin(&r, &event);
		break;
	case WORD_OUTCOME:
		good = get_outcome(&r, &event);
		break;
	case WORD_CHOICE:
	case WORD_GO:
		good = get_decision(&r, word == WORD_GO, of, &event, record);
		break;
	case WORDS:
		break;
	}
	if (!good || !at_end(&r))
		return -EINVAL;
	*ret_event = event;
	return 0;
}

int placement_trace_head_get(struct placement_trace_writer *writer, const char *line, size_t length,
			     const char **ret_reason)
{
	struct reader r = { line, line + length };
	uint64_t nodes, vcpus, move_ns;

	*ret_reason = "this is not a trace of placement";
	if (!pass(&r, "eagre placement trace "))
		return -EINVAL;
	*ret_reason = "the trace is of another version; record it anew";
	if (!pass(&r, "2 "))
		return -EINVAL;
	*ret_reason = "the trace's first line has nonsense in it";
	if (!pass(&r, "nodes=") || !pass_number(&r, NODES_MAX + 1, &nodes) || nodes == 0 ||
	    !pass(&r, " vcpus=") || !pass_number(&r, VCPUS_MAX + 1, &vcpus) || vcpus == 0 ||
	    !pass(&r, " move_ns=") || !pass_number(&r, PLACEMENT_MOVE_NS_MAX + 1ull, &move_ns) ||
	    move_ns == 0 || !at_end(&r))
		return -EINVAL;
	placement_trace_begin(writer, (uint32_t)nodes, (uint32_t)vcpus, move_ns);
	*ret_reason = NULL;
	return 0;
}

int placement_trace_end_get(const char *line, size_t length, uint64_t *ret_lines)
{
	struct reader r = { line, line + length };

	return pass(&r, "end") && pass_next(&r, UINT64_MAX, ret_lines) && at_end(&r) ? 0 : -EINVAL;
}

/* Explanations. */

static double ms(int64_t ns)
{
	return (double)ns / 1e6;
}

/* The features by the size of their part, largest first. */
static void order(const struct placement_record *record, int index[PLACEMENT_FEATURES])
{
	for (int i = 0; i < PLACEMENT_FEATURES; i++) {
		int at = i;

		while (at > 0 &&
		       llabs(record->part_ns[index[at - 1]]) < llabs(record->part_ns[i])) {
			index[at] = index[at - 1];
			at--;
		}
		index[at] = i;
	}
}

int placement_record_text(const struct placement_record *record, char *text, size_t size)
{
	struct writer w = { text, size, 0, false };
	int index[PLACEMENT_FEATURES];

	put(&w, "%.6f s: vCPU %u ", (double)record->at_ns / 1e9, record->vcpu);
	if (record->move) {
		put(&w, "goes from node %u to node %u: %s\n", record->here, record->target,
		    placement_why_text((enum placement_why)record->why));
		if (record->factor)
			put(&w, "  threshold %.2f ms: a move costs %.2f ms, times %.2f\n",
			    ms((int64_t)(record->move_ns * record->factor / PLACEMENT_FACTOR_ONE)),
			    ms((int64_t)record->move_ns),
			    (double)record->factor / PLACEMENT_FACTOR_ONE);
		return length_of(&w);
	}
	put(&w, "at node %u, stalls on node %u: threshold %s%s\n", record->here, record->target,
	    placement_arm_name((enum placement_arm)record->arm),
	    record->drawn ? ", drawn to compare" : "");
	if (record->predicted) {
		put(&w, "  expected to lose, of %.0f ms: base %.2f, eager %.2f\n ",
		    ms(PLACEMENT_HORIZON_NS), ms(record->arm_ns[PLACEMENT_ARM_BASE]),
		    ms(record->arm_ns[PLACEMENT_ARM_EAGER]));
		order(record, index);
		for (int i = 0; i < PLACEMENT_FEATURES; i++) {
			int32_t part = record->part_ns[index[i]];

			if (i > 0 && llabs(part) < 5000)
				break;
			put(&w, " %s %s %.2f", part < 0 ? "-" : "+",
			    placement_feature_name((enum placement_feature)index[i]),
			    ms(llabs(part)));
		}
		put(&w, " better than %s\n", record->arm == PLACEMENT_ARM_BASE ? "eager" : "base");
	} else {
		put(&w, "  too little seen to expect anything\n");
	}
	if (record->lost_ns >= 0)
		put(&w, "  lost %.2f ms\n", ms(record->lost_ns));
	else
		put(&w, "  what came of it is not known here\n");
	return length_of(&w);
}
