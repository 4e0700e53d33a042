/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shard counts. Its thread alone writes; any thread reads. Every field is an atomic of its
 * own, written and read relaxed: a reader may see one counter ahead of another by a stall, never a
 * torn or a falling one.
 */
#ifndef PAGER_STATS_H
#define PAGER_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "pager/pager.h"

/* A bounded table of the pages with the most stalls ("space saving", Metwally et al. 2005): a page
 * that is not in it replaces the least one and inherits its count, so a count is never too low. */
#define HOT_PAGES 64

/* And for each of them a table of the offsets in it, of the same kind. */
struct hot_count {
	_Atomic uint64_t key; /* UINT64_MAX: free */
	_Atomic uint64_t count;
};

struct hot_page {
	struct hot_count gpn;
	struct hot_count offset[PAGER_HOT_OFFSETS];
};

struct shard_stats {
	_Atomic uint64_t stall_count[COH_STALL_KINDS];
	_Atomic uint64_t stall_ns_sum[COH_STALL_KINDS];
	_Atomic uint64_t stall_bucket[COH_STALL_KINDS][PAGER_BUCKETS];
	_Atomic uint64_t spurious_count;
	_Atomic uint64_t message_count, bytes_out, bytes_in, page_count;
	_Atomic uint64_t freed_count, readahead_count, fetch_count, deferred_count,
		evict_push_count, evict_drop_count;
	_Atomic uint64_t pages_owned, pages_shared, pages_reserved, capacity_pages;
	_Atomic uint64_t chunks_homed, hold_ns;
	_Atomic uint64_t sleep_count, spin_hit_count, spin_miss_count;
	_Atomic uint64_t call_count, shootdown_count, shootdown_page_count, moves_denied_count;
	_Atomic uint64_t move_error;
	struct hot_page hot[HOT_PAGES];
};

/* The one writer's increment: no locked instruction. */
static inline void stat_add(_Atomic uint64_t *stat, uint64_t n)
{
	atomic_store_explicit(stat, atomic_load_explicit(stat, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline void stat_set(_Atomic uint64_t *stat, uint64_t n)
{
	atomic_store_explicit(stat, n, memory_order_relaxed);
}

static inline uint64_t stat_get(const _Atomic uint64_t *stat)
{
	return atomic_load_explicit(stat, memory_order_relaxed);
}

void shard_stats_init(struct shard_stats *stats);
void shard_stats_stall(struct shard_stats *stats, enum coh_stall_kind kind, uint64_t ns);
void shard_stats_hot(struct shard_stats *stats, uint64_t gpn, uint16_t offset);

/* Adds the shard's counters to *sum. */
void shard_stats_sum(const struct shard_stats *stats, struct pager_stats *sum);

#endif
