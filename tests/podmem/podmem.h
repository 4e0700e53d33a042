/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native pod memory test: what its parts share.
 *
 *      parent (podmem.c) --- orders, answers over a socket pair --- node process (pod_node.c), N
 * times picks, judges                                                pager, mesh over TCP, worker
 * threads
 *
 * Nothing that is judged goes through the memory under test: orders, results and verdicts go over
 * the socket pairs, so a protocol that is broken on purpose cannot hide itself. Variables are never
 * reset: a batch's values are above those of all earlier batches, so an older value reads as "not
 * yet".
 */
#ifndef TESTS_PODMEM_H
#define TESTS_PODMEM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pager/pager.h"

#define PODMEM_NODES_MAX   8
#define PODMEM_WORKERS_MAX 4
#define ROLES_MAX	   4
#define RUNS_MAX	   512 /* of a batch */

/* --- litmus tests --- */

enum litmus_test {
	LITMUS_SB,	 /* store buffering: x=1 r0=y | y=1 r0=x */
	LITMUS_SB_FENCE, /* the same with mfence */
	LITMUS_LB,	 /* load buffering: r0=x y=1 | r0=y x=1 */
	LITMUS_MP,	 /* message passing: x=1 y=1 | r0=y r1=x */
	LITMUS_WRC,	 /* write to read causality: x=1 | r0=x y=1 | r0=y r1=x */
	LITMUS_IRIW,	 /* independent reads: x=1 | y=1 | r0=x r1=y | r0=y r1=x */
	LITMUS_CORR,	 /* one location, reads: x=1 | r0=x r1=x */
	LITMUS_COWW,	 /* one location, two writers: x=1 | x=2 | r0=x r1=x | r0=x r1=x */
	LITMUS_INC,	 /* atomic increments */
	LITMUS_LOCK,	 /* spin locks around plain increments */
	LITMUS_TESTS,
};

enum litmus_layout {
	LAYOUT_SAME,   /* a run's variables on one page: false sharing */
	LAYOUT_DENSE,  /* each variable on a page of its own, with those of 31 other runs */
	LAYOUT_SPARSE, /* the same, with 3 other runs: pages move a lot */
	LAYOUT_TIMED,  /* as sparse, and run i begins at the same time everywhere, give or take */
	LAYOUTS,
};

struct litmus_role {
	uint16_t node, worker;
};

struct litmus_batch {
	uint64_t id; /* from 1, rising */
	uint32_t test, layout, runs, role_count;
	uint64_t seed;
	uint64_t barrier_target;
	uint64_t start_ns; /* LAYOUT_TIMED: of run 0 */
	struct litmus_role role[ROLES_MAX];
};

/* What a role read, 0, 1 or 2; or LITMUS_CORRUPT, a value that nobody ever wrote there. */
#define LITMUS_CORRUPT 0xff
struct litmus_result {
	uint8_t reg[RUNS_MAX][2];
};

/* Guest memory for litmus tests: variables, then one page of barriers. */
#define LITMUS_BARRIERS 64

/* Runs `role` of the batch in this thread. false: the barrier did not come together in seconds. */
bool litmus_run(struct guest_memory *memory, const struct litmus_batch *batch, uint32_t role,
		struct litmus_result *ret_result);

/* Sum of the counters of LITMUS_INC, or the counter of LITMUS_LOCK, as this node sees them. */
uint64_t litmus_counter(struct guest_memory *memory, uint32_t test, uint32_t layout);

/* Judging, in the parent. */
struct litmus_tally {
	uint64_t runs, forbidden, corrupt;
	uint64_t relaxed;     /* allowed by TSO, not by sequential consistency */
	uint64_t interleaved; /* outcomes that need the roles' runs to overlap; INC, LOCK: others
				 came between */
};
const char *litmus_name(uint32_t test);
uint32_t litmus_role_count(uint32_t test);
void litmus_judge(const struct litmus_batch *batch, const struct litmus_result result[ROLES_MAX],
		  struct litmus_tally *tally);

/* --- versioned contents under capacity pressure --- */

struct pressure_order {
	uint32_t milliseconds;
	uint64_t seed;
	uint16_t node, node_count, worker_count;
};

struct pressure_result {
	uint64_t reads, writes, stale, lost, corrupt;
	uint64_t first_bad_gpa;
};

/* What a worker knows; private memory, the size of the slots. */
struct pressure_worker;
int pressure_worker_create(struct guest_memory *memory, struct pressure_worker **ret_worker);
void pressure_worker_destroy(struct pressure_worker *worker);

/* Reads and writes until the time is over, and then looks at every slot. */
void pressure_run(struct pressure_worker *worker, const struct pressure_order *order,
		  uint16_t worker_index, struct pressure_result *ret_result);

/* --- orders and answers --- */

enum order_kind {
	ORDER_LITMUS,
	ORDER_COUNTER,
	ORDER_PRESSURE,
	ORDER_STATS,
	ORDER_QUIT,
};

struct order {
	uint32_t kind;
	struct litmus_batch litmus; /* ORDER_LITMUS, ORDER_COUNTER */
	struct pressure_order pressure;
};

struct answer {
	uint32_t kind; /* of the order */
	bool barrier_timeout;
	char failure[240];			/* not empty: the node ends; one line */
	struct litmus_result litmus[ROLES_MAX]; /* of the roles that this node has */
	uint64_t counter;
	struct pressure_result pressure;
	struct pager_stats stats;
};

struct podmem_config {
	uint16_t node_count, worker_count;
	uint32_t shard_count;
	uint64_t memory_bytes, capacity_bytes; /* of the guest, of one node */
	uint32_t broken;
	enum pager_spin spin;
	char address[PODMEM_NODES_MAX][32];
};

/* A node process: never returns. */
void pod_node_main(const struct podmem_config *config, uint16_t self, int order_fd)
	__attribute__((noreturn));

/* Pages of guest memory that a child has, by stopping it for a moment. 0; -ECHILD: it has ended. */
int podmem_resident(pid_t pid, uint64_t *ret_pages);

uint64_t podmem_now_ns(void);

/* xorshift; *state is not 0. */
static inline uint64_t podmem_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
