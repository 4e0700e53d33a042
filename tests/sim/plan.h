/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed means: the world that is simulated for it, and the bounds that its requests must
 * keep. A plan is made of the seed alone; single values can then be set by name (--set,
 * regressions.txt).
 */
#ifndef TESTS_SIM_PLAN_H
#define TESTS_SIM_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/limits.h"

/* Pages that one instruction may need at once. */
#define PLAN_INSTRUCTION_PAGES 12
#define PLAN_LEAVES_MAX	       3

enum pattern {
	PATTERN_UNIFORM,       /* any page */
	PATTERN_HOT,	       /* few pages that everybody uses */
	PATTERN_STRIDE,	       /* through memory by a stride */
	PATTERN_FALSE_SHARING, /* writes to one page */
	PATTERN_MULTI,	       /* instructions that need several pages at once */
	PATTERN_INCREMENT,     /* atomic increments of one page */
	PATTERN_PRIVATE,       /* a region of the actor's own, sometimes a hot page */
	PATTERN_FILL,	       /* writes every page of a region once, then as PATTERN_UNIFORM */
	PATTERN_COUNT,
	PATTERN_MIXED = PATTERN_COUNT, /* each actor another one */
	PATTERN_GROUP,	 /* pages that four nodes share, in chunks of their own: for report.c */
	PATTERN_SCATTER, /* the same, but scattered over all chunks */
};

/* Every value is 64 bits wide so that plan_set() can be a table. */
struct plan {
	uint64_t seed;
	uint64_t nodes, shards, vcpus, devices; /* vcpus and devices: of each node */
	uint64_t pages;				/* of the guest */
	uint64_t fill_percent;			/* pages / sum of capacities, at most */
	uint64_t uneven;			/* nodes promise different capacities */
	uint64_t window, readahead, zero_batch, refetch, run;
	uint64_t hold_ns, hold_ns_max;
	uint64_t delay_min_ns, delay_max_ns;  /* of links */
	uint64_t slow_from, slow_to, slow_ns; /* one link that is slower; slow_ns 0: none */
	uint64_t burst_percent, burst_ns;     /* a message that is late, and all behind it */
	uint64_t wake_min_ns, wake_max_ns;    /* from COH_WAKE to the instruction's next try */
	uint64_t think_min_ns, think_max_ns;  /* between instructions */
	uint64_t tick_late_ns;		      /* ticks come up to so much after the deadline */
	uint64_t pattern, hot_pages, write_percent, multi_pages;
	uint64_t quota;	    /* instructions of every actor */
	uint64_t keep_busy; /* actors go on until the last has its quota */
	uint64_t pin_ns_max;
	uint64_t leaves, leave_percent; /* how many nodes leave, after how much of the work */
	uint64_t events_max;
	uint64_t run_ns;    /* not 0: run for this time instead of quotas */
	uint64_t broken;    /* enum coh_broken */
	uint64_t quick_end; /* no sweep over all pages at the end */
	/* Some instructions are a device's: all their pages are pinned by gates (memory/gate.h) for a
	 * while. Only by setting, as seeds mean what they did. */
	uint64_t windows;
	/* In so many percent of the cases an actor, before an instruction, says that pages are free. */
	uint64_t frees;
	/*
	 * So many times somebody joins, is drained, or stays after all; `nodes` are members at first,
	 * of `numbers` numbers (two more than nodes at least).
	 */
	uint64_t changes, numbers;
	uint64_t after_ns; /* they run on for so long, and that is what is counted */
};

void plan_make(struct plan *plan, uint64_t seed);

/* "name=value". Returns 0, or -EINVAL: no such name or not a number. */
int plan_set(struct plan *plan, const char *setting);
void plan_print(const struct plan *plan, FILE *file);

/* The longest that a stall, and an instruction, may take: derived in plan.c. */
uint64_t plan_stall_bound_ns(const struct plan *plan);
uint64_t plan_progress_bound_ns(const struct plan *plan);
uint64_t plan_release_bound_ns(const struct plan *plan);

/* Members and others. */
uint32_t plan_numbers(const struct plan *plan);
/* So many members there are at least. */
uint32_t plan_members_min(const struct plan *plan);

/* Pages that a node must be able to hold, whatever the plan says (per shard). */
uint32_t plan_capacity_floor(const struct plan *plan);

#endif
