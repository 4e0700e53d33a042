/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a simulated pod is made of, for bench/placement_world*.c alone.
 *
 *   placement_world.c         time passes: turns, stalls, moves, ticks
 *   placement_world_memory.c  where pages are, and what it takes to bring one
 *   placement_world_loads.c   what the threads do, and where everything is at first
 */
#ifndef BENCH_PLACEMENT_WORLD_STATE_H
#define BENCH_PLACEMENT_WORLD_STATE_H

#include "bench/placement_world.h"
#include "core/page_hints.h"
#include "core/placement_trace.h"

#define REGION_PAGES 2048u

struct page {
	uint64_t sharers; /* nodes with a read-only copy, the owner not among them */
	uint64_t held_until_ns;
	uint64_t written_ns; /* when a node last took it to write */
	uint32_t fought;     /* how often that was soon after another had */
	uint64_t comes_ns;   /* comes_to has asked ahead for it, and has it then from came_from */
	uint32_t index;	     /* in its owner's list */
	uint16_t owner;	     /* NODE_NONE: untouched */
	uint16_t comes_to, came_from, came_sharers;
	uint16_t home; /* who knows where it is: its first owner */
};

/* Pages of a node: those that it owns, or copies, with some that have gone. */
struct residents {
	uint32_t *page;
	uint32_t count, capacity;
};

enum vcpu_state {
	RUNS,
	STALLED,
	MOVES,
	HALTED,
};

/* What a group's threads share. */
struct group {
	uint32_t first_page, pages; /* its data */
	uint64_t produced, consumed;
	uint32_t kernel_page; /* LOAD_RELAY, LOAD_QUARTET: the first of the kernel's */
	uint32_t turn;	      /* likewise: whose it is */
	uint32_t asleep;      /* vCPU + 1, of the one that waits for the other */
};

struct vcpu {
	uint32_t index, role; /* role: which thread of its group */
	struct group *group;
	enum vcpu_state state;
	uint64_t at_ns;
	uint16_t node, target;
	uint32_t own_first, own_left; /* pages of its own; how many it still touches after a move */
	struct placement_stall stall;
	uint64_t stopped_ns;
	uint64_t ran_ns;    /* what it worked in this stay */
	uint32_t hasty_row; /* stays in a row that were next to no work */
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	struct page_hints hints; /* the pods' own code: what it takes along */
	uint64_t halted_since_ns, halted_ns, waited_ns;
	uint64_t asleep_ns, slept_ns; /* since when; in all since its last stall */
	uint64_t wakes_ns;	      /* by itself; 0: when somebody wakes it */
	uint64_t tick_ns;	      /* likewise: when the guest's timer is due */
	struct rng rng;
	enum world_load load; /* now */
	uint32_t next, left, region, step;
	uint32_t ahead_page, ahead_count; /* read-ahead's stream */
};

struct touch {
	uint32_t page;
	bool write;
	bool waits; /* it looks whether it may go on: no work, and the turn is over */
	uint64_t work_ns;
};

struct world {
	struct world_config config;
	struct world_result *result;
	struct rng rng;
	struct page *page;
	uint32_t page_count;
	struct residents owned[WORLD_NODES_MAX], copies[WORLD_NODES_MAX];
	uint32_t here[WORLD_NODES_MAX]; /* pages that a node holds */
	struct placement *placement[WORLD_NODES_MAX];
	struct vcpu vcpu[WORLD_VCPUS_MAX];
	uint32_t vcpu_count;
	struct group group[WORLD_VCPUS_MAX];
	uint32_t group_count;
	uint64_t now_ns, tick_ns, stir_ns;
	uint64_t crowd_ns; /* since when there has been a crowd; 0: there is none */
	uint32_t phase, phases;
	uint32_t *sample;
	uint32_t sample_count;
	struct placement_trace_writer trace;
	struct placement_trace_seen seen[WORLD_NODES_MAX];
	struct placement_load traced[WORLD_NODES_MAX];
};

static inline bool is_told(const struct world *w, enum world_told told)
{
	return !(w->config.without >> told & 1);
}

/* placement_world.c: the vCPU goes on at this time, if it was asleep, too. */
void world_awake(struct vcpu *v, uint64_t now_ns);

/* placement_world_memory.c */
/* `count` pages that nobody has begin at a node. */
void world_lay(struct world *w, uint32_t first, uint32_t count, uint16_t node);
/* Must the vCPU wait for this touch? */
bool world_stalls(const struct world *w, const struct vcpu *v, const struct touch *touch);
/* It does: the page changes its place. Returns how long that takes; v->stall tells it. */
uint64_t world_fetch(struct world *w, struct vcpu *v, const struct touch *touch);
/* It has come here: asks for what it is known to want, without waiting for it. */
void world_ask_ahead(struct world *w, struct vcpu *v);
/* A message, counted if it goes from one node to another. */
void world_message(struct world *w, uint16_t from, uint16_t to);

/* placement_world_loads.c */
/* LOAD_BURSTS: which one there is at that time, and does the vCPU have work in it? */
struct burst {
	uint32_t number;
	uint64_t begin_ns, end_ns;
	uint32_t first,
		count; /* the vCPUs that have work: so many, from this one on, round and round */
};
struct burst world_burst(const struct world *w, uint64_t at_ns);
bool world_has_work(const struct world *w, const struct vcpu *v, uint64_t at_ns);
/* The groups, their vCPUs and their pages. */
void world_lay_out(struct world *w);
/* False: the vCPU has nothing to do, and sleeps. */
bool world_next_touch(struct world *w, struct vcpu *v, struct touch *touch);
/* LOAD_TURNS: how many things are done in turn, and which. */
extern const enum world_load world_turn[];
extern const uint32_t world_turns;

#endif
