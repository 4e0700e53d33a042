/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod in virtual time, as placement sees it: nodes with cores and memory, pages that are
 * somewhere, vCPUs that touch them, stall, and go where core/placement.h advises. One struct
 * placement a node, and what a move carries goes from one to the other, as in a real pod.
 *
 * Costs are figures of docs/benchmarks.md, rounded; struct world_costs names them. What it leaves
 * out: messages, links that are busy, homes, misses of the host's caches.
 */
#ifndef BENCH_PLACEMENT_WORLD_H
#define BENCH_PLACEMENT_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/placement.h"
#include "tests/rng.h"

#define WORLD_NODES_MAX 64u
#define WORLD_VCPUS_MAX 128u
#define WORLD_PHASES	8u
#define WORLD_HASTY_NS	50000u /* of work in a stay */

struct world_costs {
	uint64_t stall_ns;   /* read or write stall, 2 hops, threads that sleep */
	uint64_t upgrade_ns; /* the right to write alone */
	uint64_t sharer_ns;  /* each further sharer at a write */
	uint64_t ahead_ns;   /* each page that read-ahead brings */
	uint64_t zero_ns;    /* first touch */
	uint64_t lag_ns;     /* of these, from the grant to the guest's next instruction: what the
				policy is told does not have it */
	uint64_t hold_ns;    /* a fresh grant is kept so long */
	uint64_t move_ns;    /* stop, image, message, load, run */
	uint64_t ipi_ns;     /* wake a vCPU on another node */
	uint64_t wake_ns;    /* and on this one */
	uint32_t own_pages;  /* of its own that a vCPU touches first wherever it comes to */
};
extern const struct world_costs world_costs_default;

enum world_load {
	LOAD_SCAN,	  /* one thread scans 2.5 nodes' memory, again and again */
	LOAD_REGIONS,	  /* one thread, regions of 8 MB, every page four times, in random order */
	LOAD_RANDOM,	  /* one thread at random over 2.5 nodes' memory */
	LOAD_PAIR,	  /* two threads write one structure, on two nodes at first */
	LOAD_CROSSED,	  /* two such pairs, on two nodes, each pair split */
	LOAD_INDEPENDENT, /* a thread for each core, each with its own pages */
	LOAD_APART, /* a thread a node with its own pages, and cores left; the kernel's are all's */
	LOAD_TABLE, /* all read one table, one touch in 100,000 writes */
	LOAD_PIPE,  /* producer and consumer */
	LOAD_RELAY, /* a pair that takes turns; a third has little to do; the kernel's are all's */
	LOAD_QUARTET, /* two such pairs, crossed on two nodes; the kernel is all four's */
	LOAD_TURNS,   /* these of one and two threads in turn */
	LOAD_BURSTS, /* as many threads as cores sleep; now and then some have work, each its own */
	WORLD_LOADS,
};
const char *world_load_name(enum world_load load);

struct world_config {
	uint32_t node_count; /* 3..WORLD_NODES_MAX; of quartet 2, too */
	uint32_t core_count; /* of a node */
	uint32_t node_pages; /* that a node can hold */
	enum world_load load;
	enum placement_policy policy;
	uint64_t seed, duration_ns;
	struct world_costs costs;
	bool no_hints;	  /* a vCPU takes no pages along (core/page_hints.h) */
	uint32_t broken;  /* enum placement_broken */
	uint32_t without; /* what the policies are not told: a bit for each enum world_told */
	uint32_t busy; /* others take the hosts' cores: of 1000, the chance of a stall or a move to
			  wait for one, and of QUANTUM_NS of running */
	uint64_t stir_ns; /* every so often somebody is moved by hand, anywhere; 0: nobody */
	uint32_t come; /* a stall on a page that is fought over counts so many times; 0: as any */
	const char *state; /* what was learned before, or NULL */
	FILE *trace;	   /* core/placement_trace.h, or NULL */
	bool time_decisions;
};

enum world_told {
	TOLD_PROGRAM,  /* what runs */
	TOLD_WAITED,   /* how long vCPUs had no core */
	TOLD_OUTCOMES, /* what came of other nodes' choices */
	WORLD_TOLD,
};
/* One word each. */
const char *world_told_name(enum world_told told);

struct world_result {
	uint64_t work_ns; /* sum of what the touches that were made take by themselves */
	uint64_t stall_ns, move_ns, wait_ns;
	uint64_t stall_count, move_count, touch_count, stir_count;
	uint64_t message_count; /* that go from one node to another */
	uint64_t event_count;
	uint64_t
		hasty_count; /* moves of a vCPU that had worked for less than WORLD_HASTY_NS there */
	uint32_t hasty_row;  /* the most in a row, of one vCPU */
	/* LOAD_BURSTS: how often a node had work for more cores than it has while others were free, and for how
	 * long at most. */
	uint32_t crowd_count;
	uint64_t crowded_ns;
	uint32_t vcpu_count; /* that have work */
	uint64_t phase_work_ns[WORLD_PHASES];
	struct placement_stats stats; /* sums over the nodes */
	uint64_t decision_ns_p50, decision_ns_p99;
	char state[PLACEMENT_STATE_BYTES]; /* what node 0 has learned */
};

/* 0; -EINVAL; -ENOMEM. */
int world_run(const struct world_config *config, struct world_result *ret_result);

#endif
