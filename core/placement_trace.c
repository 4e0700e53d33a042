// SPDX-License-Identifier: Apache-2.0
/*
 * Traces and explanations of placement as text. The formats are in the header.
 *
 * Lines are read by hand and judged wholly: numbers in their one form, within bounds, one space
 * between words. What follows a line that was refused is refused, too.
 */
#include "core/placement_trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIME_MAX  (1ull << 60)
#define TICKS_MAX 256u

static const char *const kind_name[COH_STALL_KINDS] = {
	[COH_STALL_ZERO] = "zero",
	[COH_STALL_READ] = "read",
	[COH_STALL_WRITE] = "write",
	[COH_STALL_UPGRADE] = "upgrade",
};

__attribute__((format(printf, 3, 4))) static int print(char *text, size_t size, const char *format,
						       ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text, size, format, arguments);
	va_end(arguments);
	return length < 0 || (size_t)length >= size ? -ENOSPC : length;
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
	return print(line, size, "eagre placement trace 1 nodes=%u vcpus=%u move_ns=%" PRIu64 "\n",
		     writer->node_count, writer->vcpu_count, writer->move_ns);
}

int placement_trace_put(struct placement_trace_writer *writer,
			const struct placement_trace_event *event, char *line, size_t size)
{
	int length;

	if (event->move)
		length = print(line, size, "place %" PRIu64 " %u %u %" PRIu64 "\n", event->at_ns,
			       event->vcpu, event->node, event->took_ns);
	else if (event->node == NODE_NONE)
		length = print(line, size, "stall %" PRIu64 " %u - %" PRIu64 " %s %" PRIu64 " %u\n",
			       event->at_ns, event->vcpu, event->took_ns, kind_name[event->kind],
			       event->gpn, event->program);
	else
		length =
			print(line, size, "stall %" PRIu64 " %u %u %" PRIu64 " %s %" PRIu64 " %u\n",
			      event->at_ns, event->vcpu, event->node, event->took_ns,
			      kind_name[event->kind], event->gpn, event->program);
	if (length > 0)
		writer->lines++;
	return length;
}

int placement_trace_end(struct placement_trace_writer *writer, char *line, size_t size)
{
	return print(line, size, "end %" PRIu64 "\n", writer->lines);
}

/* Replay. */

struct replay_vcpu {
	uint16_t recorded, node; /* NODE_NONE: not placed yet */
	uint64_t *best_ns;	 /* by node: the least cost of whoever is there now */
};

struct placement_replay {
	enum placement_policy policy;
	uint32_t broken;
	uint32_t node_count, vcpu_count;
	uint64_t move_ns, lines;
	uint64_t tick_ns;
	bool headed, ended, failed;
	struct placement **placement; /* by node */
	struct replay_vcpu *vcpu;
	uint64_t *best_ns;
	struct placement_replay_result result;
};

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

int placement_replay_create(enum placement_policy policy, uint32_t broken,
			    struct placement_replay **ret_replay)
{
	struct placement_replay *replay = calloc(1, sizeof(*replay));

	if (!replay)
		return -ENOMEM;
	replay->policy = policy;
	replay->broken = broken;
	*ret_replay = replay;
	return 0;
}

void placement_replay_destroy(struct placement_replay *replay)
{
	if (!replay)
		return;
	for (uint32_t i = 0; replay->placement && i < replay->node_count; i++)
		placement_destroy(replay->placement[i]);
	free(replay->placement);
	free(replay->vcpu);
	free(replay->best_ns);
	free(replay);
}

static int prepare(struct placement_replay *replay)
{
	replay->placement = calloc(replay->node_count, sizeof(*replay->placement));
	replay->vcpu = calloc(replay->vcpu_count, sizeof(*replay->vcpu));
	replay->best_ns = calloc((size_t)replay->node_count * replay->vcpu_count, sizeof(uint64_t));
	if (!replay->placement || !replay->vcpu || !replay->best_ns)
		return -ENOMEM;
	for (uint32_t i = 0; i < replay->vcpu_count; i++) {
		replay->vcpu[i].recorded = replay->vcpu[i].node = NODE_NONE;
		replay->vcpu[i].best_ns = &replay->best_ns[(size_t)i * replay->node_count];
	}
	for (uint32_t i = 0; i < replay->node_count; i++) {
		struct placement_config config = { .self = (uint16_t)i,
						   .node_count = (uint16_t)replay->node_count,
						   .vcpu_count = replay->vcpu_count,
						   .policy = replay->policy,
						   .move_ns = replay->move_ns,
						   .refault_ns = PLACEMENT_REFAULT_MOVES *
								 replay->move_ns,
						   .broken = replay->broken };
		struct placement_load load = { .cores = VCPUS_MAX };
		int error = placement_create(&config, &replay->placement[i]);

		if (error)
			return error;
		/* A trace does not say how crowded nodes were. */
		for (uint16_t k = 0; k < replay->node_count; k++)
			placement_load(replay->placement[i], k, &load);
	}
	return 0;
}

static int read_head(struct placement_replay *replay, struct reader *reader,
		     const char **ret_reason)
{
	uint64_t nodes, vcpus;

	*ret_reason = "this is not a trace of placement";
	if (!pass(reader, "eagre placement trace "))
		return -EINVAL;
	*ret_reason = "the trace is of another version";
	if (!pass(reader, "1 "))
		return -EINVAL;
	*ret_reason = "the trace's first line has nonsense in it";
	if (!pass(reader, "nodes=") || !pass_number(reader, NODES_MAX + 1, &nodes) || nodes == 0 ||
	    !pass(reader, " vcpus=") || !pass_number(reader, VCPUS_MAX + 1, &vcpus) || vcpus == 0 ||
	    !pass(reader, " move_ns=") ||
	    !pass_number(reader, PLACEMENT_MOVE_NS_MAX + 1ull, &replay->move_ns) ||
	    replay->move_ns == 0 || reader->at != reader->end)
		return -EINVAL;
	replay->node_count = (uint32_t)nodes;
	replay->vcpu_count = (uint32_t)vcpus;
	replay->headed = true;
	return prepare(replay);
}

/* " AT VCPU" */
static bool read_begin(const struct placement_replay *replay, struct reader *reader,
		       struct placement_trace_event *event)
{
	uint64_t vcpu;

	if (!pass(reader, " ") || !pass_number(reader, TIME_MAX, &event->at_ns) ||
	    !pass(reader, " ") || !pass_number(reader, replay->vcpu_count, &vcpu) ||
	    !pass(reader, " "))
		return false;
	event->vcpu = (uint32_t)vcpu;
	return true;
}

static bool read_place(const struct placement_replay *replay, struct reader *reader,
		       struct placement_trace_event *event)
{
	uint64_t node;

	event->move = true;
	if (!read_begin(replay, reader, event) || !pass_number(reader, replay->node_count, &node) ||
	    !pass(reader, " ") || !pass_number(reader, TIME_MAX, &event->took_ns) ||
	    reader->at != reader->end)
		return false;
	event->node = (uint16_t)node;
	return true;
}

static bool read_stall(const struct placement_replay *replay, struct reader *reader,
		       struct placement_trace_event *event)
{
	uint64_t node = NODE_NONE, program;

	if (!read_begin(replay, reader, event))
		return false;
	if (!pass(reader, "-") && !pass_number(reader, replay->node_count, &node))
		return false;
	event->node = (uint16_t)node;
	if (!pass(reader, " ") || !pass_number(reader, TIME_MAX, &event->took_ns) ||
	    !pass(reader, " "))
		return false;
	for (event->kind = 0; event->kind < COH_STALL_KINDS; event->kind++) {
		if (pass(reader, kind_name[event->kind]))
			break;
	}
	if (event->kind == COH_STALL_KINDS || !pass(reader, " ") ||
	    !pass_number(reader, GPN_LIMIT, &event->gpn) || !pass(reader, " ") ||
	    !pass_number(reader, UINT32_MAX + 1ull, &program) || reader->at != reader->end)
		return false;
	event->program = (uint32_t)program;
	return event->took_ns <= event->at_ns;
}

static void place(struct placement_replay *replay, uint32_t vcpu, uint16_t node, uint64_t now_ns)
{
	replay->vcpu[vcpu].node = node;
	for (uint32_t i = 0; i < replay->node_count; i++)
		placement_placed(replay->placement[i], vcpu, node, now_ns);
}

static void replay_move(struct placement_replay *replay, uint32_t vcpu, uint16_t to,
			uint64_t now_ns)
{
	struct replay_vcpu *v = &replay->vcpu[vcpu];
	uint16_t from = v->node;
	uint8_t carry[PLACEMENT_CARRY_BYTES];

	if (placement_left(replay->placement[from], vcpu, to, now_ns, carry) != 0)
		return;
	placement_arrived(replay->placement[to], vcpu, from, now_ns, now_ns + replay->move_ns,
			  carry);
	place(replay, vcpu, to, now_ns);
	replay->result.move_count++;
	replay->result.policy_ns += replay->move_ns;
}

/* Of all ways through the demands so far that end at a node, the cheapest. */
static void best_after(struct placement_replay *replay, struct replay_vcpu *v,
		       const struct placement_trace_event *event)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < replay->node_count; i++) {
		if (i != event->node)
			v->best_ns[i] += event->took_ns;
		if (v->best_ns[i] < least)
			least = v->best_ns[i];
	}
	for (uint32_t i = 0; i < replay->node_count; i++) {
		if (v->best_ns[i] > least + replay->move_ns)
			v->best_ns[i] = least + replay->move_ns;
	}
}

/* Time passes, as it did; who would gather or spread the trace does not say. */
static void replay_ticks(struct placement_replay *replay, uint64_t now_ns)
{
	struct placement_advice advice;

	if (now_ns > replay->tick_ns + TICKS_MAX * PLACEMENT_TICK_NS)
		replay->tick_ns = now_ns / PLACEMENT_TICK_NS * PLACEMENT_TICK_NS;
	for (; replay->tick_ns <= now_ns; replay->tick_ns += PLACEMENT_TICK_NS) {
		for (uint32_t i = 0; i < replay->node_count; i++)
			placement_tick(replay->placement[i], replay->tick_ns, &advice, 0);
	}
}

static int replay_event(struct placement_replay *replay, const struct placement_trace_event *event,
			const char **ret_reason)
{
	struct replay_vcpu *v = &replay->vcpu[event->vcpu];
	struct placement_advice advice;

	replay_ticks(replay, event->at_ns);
	if (event->move) {
		if (v->recorded == NODE_NONE) {
			struct placement_load load = { .cores = VCPUS_MAX, .awake = 1 };

			for (uint32_t i = 0; i < replay->vcpu_count; i++)
				load.awake += replay->vcpu[i].node == event->node;
			place(replay, event->vcpu, event->node, event->at_ns);
			for (uint32_t i = 0; i < replay->node_count; i++)
				placement_load(replay->placement[i], event->node, &load);
			for (uint32_t i = 0; i < replay->node_count; i++)
				v->best_ns[i] = i == event->node ? 0 : replay->move_ns;
		} else {
			replay->result.recorded_ns += event->took_ns;
			replay->result.recorded_moves++;
		}
		v->recorded = event->node;
		return 0;
	}
	*ret_reason = "the trace has a stall of a vCPU that is nowhere yet";
	if (v->recorded == NODE_NONE)
		return -EINVAL;
	replay->result.stall_count++;
	replay->result.recorded_ns += event->took_ns;
	if (event->took_ns > replay->result.longest_ns)
		replay->result.longest_ns = event->took_ns;
	if (event->node == NODE_NONE) {
		/* Nobody's page: it takes that everywhere. */
		replay->result.policy_ns += event->took_ns;
		for (uint32_t i = 0; i < replay->node_count; i++)
			v->best_ns[i] += event->took_ns;
		return 0;
	}
	best_after(replay, v, event);
	if (v->node == event->node)
		return 0;
	replay->result.policy_ns += event->took_ns;
	struct placement_stall stall = { .vcpu = event->vcpu,
					 .kind = event->kind,
					 .owner = event->node,
					 .gpn = event->gpn,
					 .begin_ns = event->at_ns - event->took_ns,
					 .end_ns = event->at_ns,
					 .program = event->program };
	if (placement_stall(replay->placement[v->node], &stall, &advice) == 0 &&
	    advice.to != NODE_NONE)
		replay_move(replay, event->vcpu, advice.to, event->at_ns);
	return 0;
}

static int read_line(struct placement_replay *replay, struct reader *reader,
		     const char **ret_reason)
{
	struct placement_trace_event event = { .at_ns = 0 };
	uint64_t lines;

	if (!replay->headed)
		return read_head(replay, reader, ret_reason);
	*ret_reason = "the trace goes on behind its end";
	if (replay->ended)
		return -EINVAL;
	*ret_reason = "a line of the trace has nonsense in it";
	if (pass(reader, "end ")) {
		if (!pass_number(reader, UINT64_MAX, &lines) || reader->at != reader->end)
			return -EINVAL;
		*ret_reason = "the trace has lost lines";
		if (lines != replay->lines)
			return -EINVAL;
		replay->ended = true;
		return 0;
	}
	if (pass(reader, "place") ? !read_place(replay, reader, &event)
				  : !(pass(reader, "stall") && read_stall(replay, reader, &event)))
		return -EINVAL;
	replay->lines++;
	if (event.at_ns > replay->result.last_ns)
		replay->result.last_ns = event.at_ns;
	return replay_event(replay, &event, ret_reason);
}

int placement_replay_line(struct placement_replay *replay, const char *line, size_t length,
			  const char **ret_reason)
{
	struct reader reader = { line, line + length };
	int error;

	*ret_reason = "the trace has nonsense in it";
	if (replay->failed)
		return -EINVAL;
	error = read_line(replay, &reader, ret_reason);
	if (error)
		replay->failed = true;
	else
		*ret_reason = NULL;
	return error;
}

int placement_replay_finish(struct placement_replay *replay,
			    struct placement_replay_result *ret_result, const char **ret_reason)
{
	*ret_reason = "the trace is cut off";
	if (!replay->ended || replay->failed)
		return -EINVAL;
	for (uint32_t i = 0; i < replay->vcpu_count; i++) {
		const struct replay_vcpu *v = &replay->vcpu[i];
		uint64_t least = v->recorded == NODE_NONE ? 0 : UINT64_MAX;

		for (uint32_t k = 0; k < replay->node_count; k++)
			least = v->best_ns[k] < least ? v->best_ns[k] : least;
		replay->result.best_ns += least;
	}
	*ret_result = replay->result;
	*ret_reason = NULL;
	return 0;
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
	int index[PLACEMENT_FEATURES];
	size_t at = 0;
	int length;

#define PUT(...)                                                                                   \
	do {                                                                                       \
		length = print(text + at, size - at, __VA_ARGS__);                                 \
		if (length < 0)                                                                    \
			return length;                                                             \
		at += (size_t)length;                                                              \
	} while (0)
	PUT("%.6f s: vCPU %u ", (double)record->at_ns / 1e9, record->vcpu);
	if (record->move) {
		PUT("goes from node %u to node %u: %s\n", record->here, record->target,
		    placement_why_text((enum placement_why)record->why));
		if (record->factor)
			PUT("  threshold %.2f ms: a move costs %.2f ms, times %.2f\n",
			    ms((int64_t)(record->move_ns * record->factor / PLACEMENT_FACTOR_ONE)),
			    ms((int64_t)record->move_ns),
			    (double)record->factor / PLACEMENT_FACTOR_ONE);
		return (int)at;
	}
	PUT("at node %u, stalls on node %u: threshold %s%s\n", record->here, record->target,
	    placement_arm_name((enum placement_arm)record->arm),
	    record->drawn ? ", drawn to compare" : "");
	if (record->predicted) {
		PUT("  expected to lose, of %.0f ms: base %.2f, eager %.2f\n ",
		    ms(PLACEMENT_HORIZON_NS), ms(record->arm_ns[PLACEMENT_ARM_BASE]),
		    ms(record->arm_ns[PLACEMENT_ARM_EAGER]));
		order(record, index);
		for (int i = 0; i < PLACEMENT_FEATURES; i++) {
			int32_t part = record->part_ns[index[i]];

			if (i > 0 && llabs(part) < 5000)
				break;
			PUT(" %s %s %.2f", part < 0 ? "-" : "+",
			    placement_feature_name((enum placement_feature)index[i]),
			    ms(llabs(part)));
		}
		PUT(" better than %s\n", record->arm == PLACEMENT_ARM_BASE ? "eager" : "base");
	} else {
		PUT("  too little seen to expect anything\n");
	}
	if (record->lost_ns >= 0)
		PUT("  lost %.2f ms\n", ms(record->lost_ns));
	else
		PUT("  what came of it is not known here\n");
#undef PUT
	return (int)at;
}
