/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What placement saw and decided, as text: a trace that can be replayed under another policy, and in
 * which each decision can be explained; and a decision in words. Pure: bytes in the caller's buffers.
 *
 *     eagre placement trace 2 nodes=3 vcpus=2 move_ns=164000
 *     place AT VCPU NODE TOOK                        where it is at first; then each move
 *     stall AT VCPU OWNER TOOK KIND GPN PROGRAM SHARERS SLEPT
 *                                                    AT: the end. OWNER -: nobody's page. SLEPT:
 *                                                    how long it was halted since the one before
 *     load AT NODE CORES AWAKE                       what the node has said of itself
 *     pin AT VCPU 0|1
 *     choice AT VCPU HERE TARGET ARM HOW PREDICTED MOVE BASE EAGER FEATURE=VALUE:PART ...
 *                                                    a threshold was chosen: what was expected to be
 *                                                    lost with either, and each feature's part of
 *                                                    the difference (struct placement_record)
 *     outcome AT VCPU BEGAN LOST                     what came of the choice that began then
 *     go AT VCPU HERE TARGET WHY FACTOR MOVE CREDIT  a move was advised
 *     end LINES
 *
 * Times are in ns. A trace without its end is cut off, and refused.
 *
 * Replay. The policy runs over the recorded stalls with vCPUs in places of its own: a stall costs
 * it what it took, unless its vCPU is where the page was. What it would have stalled on in its own
 * places, and the recorded run did not, no trace can know; so figures compare decisions about the
 * same demands, and are not a forecast. The best choice in hindsight over the same demands comes
 * from dynamic programming (one number a node and vCPU).
 *
 * Tested in tests/core/test_placement_trace.c and tests/core/test_placement_bound.c.
 */
#ifndef CORE_PLACEMENT_TRACE_H
#define CORE_PLACEMENT_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/placement.h"

#define PLACEMENT_TRACE_LINE 1024u

enum placement_trace_what {
	PLACEMENT_TRACE_STALL,
	PLACEMENT_TRACE_MOVE,
	PLACEMENT_TRACE_LOAD,
	PLACEMENT_TRACE_PIN,
	PLACEMENT_TRACE_OUTCOME,
	PLACEMENT_TRACE_DECISION, /* choice, go */
};

struct placement_trace_event {
	enum placement_trace_what what;
	uint64_t at_ns, took_ns; /* an outcome: since the choice began */
	uint32_t vcpu;
	uint16_t node; /* where it is now; the page's owner, NODE_NONE: nobody; whose load it is */
	/* Of a stall. */
	enum coh_stall_kind kind;
	uint64_t gpn, slept_ns;
	uint32_t program;
	uint16_t sharers;
	/* Of others. */
	uint16_t cores, awake;
	bool pinned;
	uint64_t lost_ns;
	const struct placement_record *record;
};

/* What a struct placement has decided since: zeros, or placement_trace_skip(), and then again and
 * again. False: nothing more. The record is copied to *record. */
struct placement_trace_seen {
	uint64_t record, closed;
	uint64_t lost; /* too many came in between */
};
void placement_trace_skip(const struct placement *placement, struct placement_trace_seen *seen);
bool placement_trace_next(const struct placement *placement, struct placement_trace_seen *seen,
			  struct placement_trace_event *ret_event, struct placement_record *record);

struct placement_trace_writer {
	uint32_t node_count, vcpu_count;
	uint64_t move_ns;
	uint64_t lines;
};

void placement_trace_begin(struct placement_trace_writer *writer, uint32_t node_count,
			   uint32_t vcpu_count, uint64_t move_ns);
/* Each writes one line with its end; returns its length, -ENOSPC (PLACEMENT_TRACE_LINE is enough). */
int placement_trace_head(struct placement_trace_writer *writer, char *line, size_t size);
int placement_trace_put(struct placement_trace_writer *writer,
			const struct placement_trace_event *event, char *line, size_t size);
int placement_trace_end(struct placement_trace_writer *writer, char *line, size_t size);
/* Reads what placement_trace_put() writes, without the newline; a decision's record is in *record, which
 * the event then names. -EINVAL: it is none for so many nodes and vCPUs. */
int placement_trace_get(const struct placement_trace_writer *of, const char *line, size_t length,
			struct placement_trace_event *ret_event, struct placement_record *record);

/* The first line, and the last: -EINVAL with *ret_reason, a constant; -EINVAL. */
int placement_trace_head_get(struct placement_trace_writer *writer, const char *line, size_t length,
			     const char **ret_reason);
int placement_trace_end_get(const char *line, size_t length, uint64_t *ret_lines);

struct placement_replay;

struct placement_replay_result {
	uint64_t stall_count, move_count;
	uint64_t recorded_ns;	 /* what stalls and moves took as recorded */
	uint64_t recorded_moves; /* without the first places */
	uint64_t policy_ns;	 /* what they would have taken */
	uint64_t best_ns;	 /* the least possible, moves at the trace's move_ns */
	uint64_t last_ns;	 /* time of the last event */
	uint64_t longest_ns;	 /* the longest stall */
	/* What was recorded of decisions. */
	uint64_t choice_count, outcome_count, go_count;
	uint64_t odd_count; /* choices that are not what their figures say */
};

/*
 * Reads a trace line by line. `line` needs no zero at its end, and has no newline. -EINVAL with
 * *ret_reason, a constant: the line makes no sense there; the replay is then over. -ENOMEM.
 */
int placement_replay_create(enum placement_policy policy, uint32_t broken,
			    struct placement_replay **ret_replay);
int placement_replay_line(struct placement_replay *replay, const char *line, size_t length,
			  const char **ret_reason);
/* After the last line. -EINVAL: the trace was cut off. */
int placement_replay_finish(struct placement_replay *replay,
			    struct placement_replay_result *ret_result, const char **ret_reason);
void placement_replay_destroy(struct placement_replay *replay);
/* Each decision that was recorded is told: a move at once, a choice when what came of it is known, or
 * nothing more can be. Before the first line. */
typedef void placement_replay_fn(void *arg, const struct placement_record *record);
void placement_replay_explain(struct placement_replay *replay, placement_replay_fn *told,
			      void *arg);
/* Where the policy has the vCPU now; NODE_NONE: nowhere yet. */
uint16_t placement_replay_node(const struct placement_replay *replay, uint32_t vcpu);

/*
 * A decision in words, several lines:
 *
 *     3.201944 s: vCPU 2 at node 0, stalls on node 1: threshold eager
 *       expected to lose, of 10 ms: base 7.90, eager 2.35
 *       + program 3.20 + stalled-lately 2.05 - left 0.31 better than base
 *       lost 2.64 ms
 *     3.202160 s: vCPU 2 goes from node 0 to node 1: a move is expected to pay, so early
 *       threshold 0.41 ms: a move costs 0.82 ms, times 0.50
 *
 * Returns the length; -ENOSPC (PLACEMENT_TEXT_BYTES is enough).
 */
#define PLACEMENT_TEXT_BYTES 1024u
int placement_record_text(const struct placement_record *record, char *text, size_t size);

#endif
