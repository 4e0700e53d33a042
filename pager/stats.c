/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters, the log histogram of stall times and the table of hot pages: see stats.h.
 * Tested in tests/memory/test_pager_stats.c.
 */
#include "pager/stats.h"

#include <string.h>

/* Four buckets a doubling: bucket 4e + m counts [2^e * (4 + m) / 4, 2^e * (5 + m) / 4) ns. */
static uint32_t bucket_of(uint64_t ns)
{
	uint32_t exponent, bucket;

	if (ns < 4)
		return (uint32_t)ns;
	exponent = 63u - (uint32_t)__builtin_clzll(ns);
	bucket = exponent * 4 + (uint32_t)(ns >> (exponent - 2) & 3);
	return bucket < PAGER_BUCKETS ? bucket : PAGER_BUCKETS - 1;
}

/* The middle of a bucket. */
static uint64_t bucket_ns(uint32_t bucket)
{
	uint32_t exponent = bucket / 4, part = bucket % 4;

	if (exponent < 2)
		return bucket;
	return ((4ull + part) << (exponent - 2)) + ((1ull << (exponent - 2)) >> 1);
}

static void forget_offsets(struct hot_page *page)
{
	for (uint32_t i = 0; i < PAGER_HOT_OFFSETS; i++) {
		stat_set(&page->offset[i].key, UINT64_MAX);
		stat_set(&page->offset[i].count, 0);
	}
}

static void count_offset(struct hot_page *page, uint16_t offset)
{
	struct hot_count *least = &page->offset[0];

	for (uint32_t i = 0; i < PAGER_HOT_OFFSETS && stat_get(&least->key) != offset; i++) {
		struct hot_count *hot = &page->offset[i];

		if (stat_get(&hot->key) == offset ||
		    stat_get(&hot->count) < stat_get(&least->count))
			least = hot;
	}
	stat_set(&least->key, offset);
	stat_add(&least->count, 1);
}

void shard_stats_init(struct shard_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	for (uint32_t i = 0; i < HOT_PAGES; i++) {
		stat_set(&stats->hot[i].gpn.key, UINT64_MAX);
		forget_offsets(&stats->hot[i]);
	}
}

void shard_stats_stall(struct shard_stats *stats, enum coh_stall_kind kind, uint64_t ns)
{
	stat_add(&stats->stall_count[kind], 1);
	stat_add(&stats->stall_ns_sum[kind], ns);
	stat_add(&stats->stall_bucket[kind][bucket_of(ns)], 1);
}

void shard_stats_hot(struct shard_stats *stats, uint64_t gpn, uint16_t offset)
{
	struct hot_page *page = &stats->hot[0];

	for (uint32_t i = 0; i < HOT_PAGES && stat_get(&page->gpn.key) != gpn; i++) {
		struct hot_page *hot = &stats->hot[i];

		if (stat_get(&hot->gpn.key) == gpn ||
		    stat_get(&hot->gpn.count) < stat_get(&page->gpn.count))
			page = hot;
	}
	if (stat_get(&page->gpn.key) != gpn) {
		stat_set(&page->gpn.key, gpn);
		forget_offsets(page);
	}
	stat_add(&page->gpn.count, 1);
	count_offset(page, offset);
}

void shard_stats_sum(const struct shard_stats *stats, struct pager_stats *sum)
{
	for (uint32_t kind = 0; kind < COH_STALL_KINDS; kind++) {
		sum->stall_count[kind] += stat_get(&stats->stall_count[kind]);
		sum->stall_ns_sum[kind] += stat_get(&stats->stall_ns_sum[kind]);
		for (uint32_t i = 0; i < PAGER_BUCKETS; i++)
			sum->stall_bucket[kind][i] += stat_get(&stats->stall_bucket[kind][i]);
	}
	sum->spurious_count += stat_get(&stats->spurious_count);
	sum->message_count += stat_get(&stats->message_count);
	sum->bytes_out += stat_get(&stats->bytes_out);
	sum->bytes_in += stat_get(&stats->bytes_in);
	sum->page_count += stat_get(&stats->page_count);
	sum->readahead_count += stat_get(&stats->readahead_count);
	sum->fetch_count += stat_get(&stats->fetch_count);
	sum->freed_count += stat_get(&stats->freed_count);
	sum->deferred_count += stat_get(&stats->deferred_count);
	sum->evict_push_count += stat_get(&stats->evict_push_count);
	sum->evict_drop_count += stat_get(&stats->evict_drop_count);
	sum->pages_owned += stat_get(&stats->pages_owned);
	sum->pages_shared += stat_get(&stats->pages_shared);
	sum->pages_reserved += stat_get(&stats->pages_reserved);
	sum->capacity_pages += stat_get(&stats->capacity_pages);
	sum->chunks_homed += stat_get(&stats->chunks_homed);
	if (sum->hold_ns < stat_get(&stats->hold_ns))
		sum->hold_ns = stat_get(&stats->hold_ns);
	sum->sleep_count += stat_get(&stats->sleep_count);
	sum->spin_hit_count += stat_get(&stats->spin_hit_count);
	sum->spin_miss_count += stat_get(&stats->spin_miss_count);
	sum->call_count += stat_get(&stats->call_count);
	sum->shootdown_count += stat_get(&stats->shootdown_count);
	sum->shootdown_page_count += stat_get(&stats->shootdown_page_count);
	sum->moves_denied_count += stat_get(&stats->moves_denied_count);
	if (stat_get(&stats->move_error))
		sum->move_error = (int)stat_get(&stats->move_error);
}

static uint64_t in_bucket(const struct pager_stats *stats, enum coh_stall_kind kind,
			  uint32_t bucket)
{
	uint64_t count = 0;

	if (kind < COH_STALL_KINDS)
		return stats->stall_bucket[kind][bucket];
	for (uint32_t k = 0; k < COH_STALL_KINDS; k++)
		count += stats->stall_bucket[k][bucket];
	return count;
}

uint64_t pager_stats_quantile_ns(const struct pager_stats *stats, enum coh_stall_kind kind,
				 double p)
{
	uint64_t total = 0, below = 0, rank;

	for (uint32_t i = 0; i < PAGER_BUCKETS; i++)
		total += in_bucket(stats, kind, i);
	if (total == 0)
		return 0;
	rank = (uint64_t)(p * (double)total);
	if (rank >= total)
		rank = total - 1;
	for (uint32_t i = 0; i < PAGER_BUCKETS; i++) {
		below += in_bucket(stats, kind, i);
		if (below > rank)
			return bucket_ns(i);
	}
	return bucket_ns(PAGER_BUCKETS - 1);
}
