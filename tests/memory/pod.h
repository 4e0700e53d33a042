/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod inside one process: several pagers, each with guest memory of its own, joined by channels
 * over socket pairs. For unit tests; tests/podmem has real processes and TCP.
 */
#ifndef TESTS_MEMORY_POD_H
#define TESTS_MEMORY_POD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "link/channel.h"
#include "memory/guest_memory.h"
#include "pager/pager.h"

#define POD_NODES_MAX 4

struct pod_failure {
	uint32_t count;
	uint16_t node;
	int error;
	char cause[200];
};

/* What the hook `lost` was told, and whether `told` was set then or while the hook took its time.
 */
struct pod_lost {
	pthread_mutex_t lock; /* guards the rest but told */
	uint32_t count;	      /* calls */
	uint64_t pages;
	uint64_t gpa; /* the last call's */
	bool late;
	atomic_bool told; /* the test's: the other node has the page */
};

/* What the hook `stalled` was told last of each kind. */
struct pod_stalled {
	pthread_mutex_t lock; /* guards the rest */
	struct pager_stall last[COH_STALL_KINDS];
	uint32_t count[COH_STALL_KINDS];
};

struct pod_node {
	struct guest_memory *memory;
	struct pager *pager;
	struct page_channel *channel[SHARDS_MAX][POD_NODES_MAX];
	struct pod_lost lost;
	struct pod_stalled stalled;
	atomic_uint ready;	    /* how often windows were said to be */
	struct pod_failure failure; /* written by a shard's thread; read after pager_stop() */
};

struct pod {
	uint16_t node_count;
	uint32_t shard_count;
	struct pod_node node[POD_NODES_MAX];
};

struct pod_options {
	uint16_t node_count;
	uint32_t shard_count;
	uint64_t memory_bytes, capacity_bytes;
	enum pager_spin spin;
	bool watch_lost;     /* node[].lost is kept */
	uint32_t port_count; /* 0: two */
	uint32_t window_count;
	uint64_t hold_ns; /* 0: the pager's default */
};

/* Started. Asserts that all went well. */
void pod_create(struct pod *pod, const struct pod_options *options);
void pod_destroy(struct pod *pod);

/* A node's address of a gpa. */
void *pod_at(struct pod *pod, uint16_t node, uint64_t gpa);

#endif
