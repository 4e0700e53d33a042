/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Litmus tests across nodes: the roles' code, and which outcomes x86-TSO forbids.
 *
 * Problem: a run takes nanoseconds and a page's journey a tenth of a millisecond, so runs of one
 * variable hardly ever overlap. Idea: a batch is an array of runs over a few pages; roles start
 * together at a barrier in the shared memory itself, walk the array with random pauses, and pages
 * are taken from them in the middle of it. In the timed layout every run also has its moment by the
 * clock (the test's nodes are processes of one machine), with a random offset, so that its stalls
 * overlap. How often runs overlapped is counted: outcomes that others cannot have. What the roles
 * do is in tests/litmus_programs.h: what is tested is the pod's memory under the CPU's own order.
 * Forbidden outcomes: Sewell et al., "x86-TSO", CACM 2010.
 */
#include "tests/podmem/podmem.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "tests/litmus_programs.h"

#define BARRIER_SECONDS 20u
#define COUNTERS	8u
#define SLOT_NS		300000u /* a run's time in the timed layout */
#define JITTER_NS	100000u

struct litmus_kind {
	const char *name;
	uint32_t roles;
	litmus_act *act; /* NULL: count() */
};

static const struct litmus_kind kinds[LITMUS_TESTS] = {
	[LITMUS_SB] = { "SB", 2, litmus_sb },
	[LITMUS_SB_FENCE] = { "SB+mfence", 2, litmus_sb_fence },
	[LITMUS_LB] = { "LB", 2, litmus_lb },
	[LITMUS_MP] = { "MP", 2, litmus_mp },
	[LITMUS_WRC] = { "WRC", 3, litmus_wrc },
	[LITMUS_IRIW] = { "IRIW", 4, litmus_iriw },
	[LITMUS_CORR] = { "CoRR", 2, litmus_corr },
	[LITMUS_COWW] = { "CoWW", 4, litmus_coww },
	[LITMUS_INC] = { "INC", 4, NULL },
	[LITMUS_LOCK] = { "LOCK", 4, NULL },
};

const char *litmus_name(uint32_t test)
{
	return kinds[test].name;
}

uint32_t litmus_role_count(uint32_t test)
{
	return kinds[test].roles;
}

uint64_t podmem_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- where variables lie --- */

/* Memory is cut in eight: variables x, y; counters; locks; and the barriers, which are thus in
 * several shards. */
static uint64_t area(const struct guest_memory *memory, uint32_t index)
{
	return guest_memory_top(memory) / 8 * index;
}

static uint64_t *variable(struct guest_memory *memory, const struct litmus_batch *batch,
			  uint32_t run, uint32_t v)
{
	uint64_t gpa;

	switch (batch->layout) {
	case LAYOUT_SAME:
		gpa = area(memory, 0) + run / 16 * PAGE_BYTES + run % 16 * 256 + v * 64;
		break;
	case LAYOUT_DENSE:
		gpa = area(memory, 1 + v) + run / 32 * PAGE_BYTES + run % 32 * 128;
		break;
	default:
		gpa = area(memory, 3 + v) + run / 4 * PAGE_BYTES + run % 4 * 1024;
		break;
	}
	return guest_memory_hva(memory, gpa);
}

/* Counters of LITMUS_INC; [0] is the lock and [1] its counter for LITMUS_LOCK. */
static volatile uint64_t *counter(struct guest_memory *memory, uint32_t test, uint32_t layout,
				  uint32_t index)
{
	uint64_t stride = layout == LAYOUT_SAME	   ? 64
			  : layout == LAYOUT_DENSE ? PAGE_BYTES
						   : CHUNK_BYTES / 4;

	return guest_memory_hva(memory, area(memory, test == LITMUS_INC ? 5 : 6) +
						layout * (CHUNK_BYTES / 16) + index * stride);
}

/* --- values and times --- */

/* Values are id * 4 + v. */
static uint8_t meaning(const struct litmus_batch *batch, uint64_t value)
{
	if (value >> 2 == batch->id)
		return (value & 3) == 3 ? LITMUS_CORRUPT : (uint8_t)(value & 3);
	return value >> 2 < batch->id ? 0 : LITMUS_CORRUPT;
}

/* Mostly none, sometimes microseconds' worth. */
static uint32_t pick_turns(uint64_t *random)
{
	uint64_t r = podmem_random(random);

	if ((r & 15) == 0)
		return r >> 8 & 2047;
	if ((r & 15) <= 4)
		return r >> 8 & 255;
	return (r & 15) <= 8 ? r >> 8 & 15 : 0;
}

/* Until the run's moment. Who is late goes on at once. */
static void await_moment(const struct litmus_batch *batch, uint32_t run, uint64_t *random)
{
	uint64_t at_ns =
		batch->start_ns + (uint64_t)run * SLOT_NS + podmem_random(random) % JITTER_NS;
	struct timespec at = { .tv_sec = (time_t)(at_ns / 1000000000u),
			       .tv_nsec = (long)(at_ns % 1000000000u) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
		;
}

/* In the memory under test. The target rises for ever, so nothing needs to be reset. */
static bool barrier(struct guest_memory *memory, const struct litmus_batch *batch)
{
	volatile uint64_t *at =
		guest_memory_hva(memory, area(memory, 7) + batch->id % LITMUS_BARRIERS * 64);
	uint64_t end_ns = podmem_now_ns() + BARRIER_SECONDS * 1000000000ull;

	__atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(at, __ATOMIC_SEQ_CST) < batch->barrier_target) {
		if (podmem_now_ns() > end_ns)
			return false;
		sched_yield();
	}
	return true;
}

/* --- the roles --- */

/* Whether another role was here since this one's last turn, or had the lock. */
static bool count(struct guest_memory *memory, const struct litmus_batch *batch, uint32_t run,
		  uint64_t last[COUNTERS])
{
	volatile uint64_t *lock = counter(memory, batch->test, batch->layout, 0);
	volatile uint64_t *plain = counter(memory, batch->test, batch->layout, 1);
	bool others;

	if (batch->test == LITMUS_INC) {
		uint64_t *mine = &last[run % COUNTERS];
		uint64_t before = __atomic_fetch_add(
			counter(memory, batch->test, batch->layout, run % COUNTERS), 1,
			__ATOMIC_RELAXED);

		others = run >= COUNTERS && before != *mine + 1;
		*mine = before;
		return others;
	}
	while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0)
		while (__atomic_load_n(lock, __ATOMIC_RELAXED) != 0)
			sched_yield();
	others = run > 0 && *plain != last[0];
	last[0] = *plain + 1;
	*plain = last[0];
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
	return others;
}

uint64_t litmus_counter(struct guest_memory *memory, uint32_t test, uint32_t layout)
{
	uint64_t sum = 0;

	if (test == LITMUS_LOCK)
		return *counter(memory, test, layout, 1);
	for (uint32_t i = 0; i < COUNTERS; i++)
		sum += *counter(memory, test, layout, i);
	return sum;
}

bool litmus_run(struct guest_memory *memory, const struct litmus_batch *batch, uint32_t role,
		struct litmus_result *ret_result)
{
	uint64_t random = batch->seed * 2654435761u + role * 40503u + 1;

	uint64_t last[COUNTERS] = { 0 };

	/* A protocol that is broken on purpose has no barrier that can be relied on. */
	if (batch->barrier_target == 0)
		await_moment(batch, 0, &random);
	else if (!barrier(memory, batch))
		return false;
	for (uint32_t run = 0; run < batch->runs; run++) {
		uint64_t r[2] = { 0, 0 };
		struct litmus_cell cell = { .x = variable(memory, batch, run, 0),
					    .y = variable(memory, batch, run, 1),
					    .one = batch->id * 4 + 1,
					    .two = batch->id * 4 + 2 };

		if (batch->layout == LAYOUT_TIMED)
			await_moment(batch, run, &random);
		else
			litmus_pause(pick_turns(&random));
		/* Between two accesses mostly not at all. */
		cell.between = pick_turns(&random) & ~15u;
		if (kinds[batch->test].act)
			kinds[batch->test].act(&cell, role, r);
		else
			r[0] = count(memory, batch, run, last) ? cell.one : 0;
		ret_result->reg[run][0] = meaning(batch, r[0]);
		ret_result->reg[run][1] = meaning(batch, r[1]);
	}
	return true;
}

/* --- judging --- */

enum verdict { PLAIN, INTERLEAVED, RELAXED, FORBIDDEN };

static enum verdict judge_pair(uint32_t test, const uint8_t a[2], const uint8_t b[2])
{
	switch (test) {
	case LITMUS_SB:
		return !a[0] && !b[0] ? RELAXED : a[0] && b[0] ? INTERLEAVED : PLAIN;
	case LITMUS_SB_FENCE:
		return !a[0] && !b[0] ? FORBIDDEN : a[0] && b[0] ? INTERLEAVED : PLAIN;
	case LITMUS_LB:
		return a[0] && b[0] ? FORBIDDEN : !a[0] && !b[0] ? INTERLEAVED : PLAIN;
	default: /* MP and CoRR: role 1 reads the later write first */
		return b[0] && !b[1] ? FORBIDDEN : !b[0] && b[1] ? INTERLEAVED : PLAIN;
	}
}

static enum verdict judge_many(uint32_t test, const uint8_t *r1, const uint8_t *r2,
			       const uint8_t *r3)
{
	switch (test) {
	case LITMUS_WRC:
		return r1[0] && r2[0] && !r2[1]	  ? FORBIDDEN
		       : !r2[0] && r2[1] && r1[0] ? INTERLEAVED
						  : PLAIN;
	case LITMUS_IRIW:
		return r2[0] && !r2[1] && r3[0] && !r3[1] ? FORBIDDEN
		       : r2[0] != r2[1] || r3[0] != r3[1] ? INTERLEAVED
							  : PLAIN;
	default: /* CoWW: a value never goes back to 0, and readers agree on the order of 1 and 2 */
		if ((r2[0] && !r2[1]) || (r3[0] && !r3[1]))
			return FORBIDDEN;
		if (r2[0] && r2[0] != r2[1] && r3[0] && r3[0] != r3[1] && r2[0] != r3[0])
			return FORBIDDEN;
		return r2[0] != r2[1] || r3[0] != r3[1] ? INTERLEAVED : PLAIN;
	}
}

void litmus_judge(const struct litmus_batch *batch, const struct litmus_result result[ROLES_MAX],
		  struct litmus_tally *tally)
{
	tally->runs += batch->runs;
	if (batch->test == LITMUS_INC || batch->test == LITMUS_LOCK) {
		for (uint32_t run = 0; run < batch->runs; run++)
			for (uint32_t role = 0; role < batch->role_count; role++)
				tally->interleaved += result[role].reg[run][0] == 1;
		return;
	}
	for (uint32_t run = 0; run < batch->runs; run++) {
		enum verdict verdict;
		bool corrupt = false;

		for (uint32_t role = 0; role < batch->role_count; role++)
			for (uint32_t i = 0; i < 2; i++)
				corrupt |= result[role].reg[run][i] == LITMUS_CORRUPT;
		tally->corrupt += corrupt;
		if (kinds[batch->test].roles == 2)
			verdict = judge_pair(batch->test, result[0].reg[run], result[1].reg[run]);
		else
			verdict = judge_many(batch->test, result[1].reg[run], result[2].reg[run],
					     result[3].reg[run]);
		tally->forbidden += verdict == FORBIDDEN;
		tally->relaxed += verdict == RELAXED;
		tally->interleaved += verdict == INTERLEAVED;
	}
}
