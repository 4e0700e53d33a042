/* SPDX-License-Identifier: Apache-2.0 */
/* Counting: quantiles are within a bucket's width, the hot table finds what is hot among what is
 * not. */
#include "tests/test.h"

#include <string.h>

#include "pager/stats.h"

static void quantiles_are_near(void **state)
{
	static struct shard_stats stats;
	static struct pager_stats sum;

	shard_stats_init(&stats);
	for (uint64_t us = 1; us <= 1000; us++)
		shard_stats_stall(&stats, COH_STALL_READ, us * 1000);
	shard_stats_stall(&stats, COH_STALL_WRITE, UINT64_MAX);
	shard_stats_stall(&stats, COH_STALL_ZERO, 0);
	memset(&sum, 0, sizeof(sum));
	shard_stats_sum(&stats, &sum);
	assert_int_equal(sum.stall_count[COH_STALL_READ], 1000);
	assert_in_range(pager_stats_quantile_ns(&sum, COH_STALL_READ, 0.5), 437500, 562500);
	assert_in_range(pager_stats_quantile_ns(&sum, COH_STALL_READ, 0.99), 866000, 1120000);
	assert_int_equal(pager_stats_quantile_ns(&sum, COH_STALL_UPGRADE, 0.5), 0);
	assert_int_equal(pager_stats_quantile_ns(&sum, COH_STALL_ZERO, 0.5), 0);
	assert_true(pager_stats_quantile_ns(&sum, COH_STALL_KINDS, 0.9999) > 1000000000);
}

static void hot_pages_stay_in_the_table(void **state)
{
	static struct shard_stats stats;
	const struct hot_page *hot = NULL;
	uint64_t at_count = 0;

	shard_stats_init(&stats);
	for (uint64_t i = 0; i < 10000; i++) {
		shard_stats_hot(&stats, 1000000 + i, (uint16_t)(i & 63));
		if (i % 10 == 0)
			shard_stats_hot(&stats, 42, i % 20 ? 0xff8 : (uint16_t)(i & 1023));
	}
	for (uint32_t i = 0; i < HOT_PAGES; i++)
		if (stat_get(&stats.hot[i].gpn.key) == 42)
			hot = &stats.hot[i];
	assert_non_null(hot);
	assert_in_range(stat_get(&hot->gpn.count), 1000, 1400);
	for (uint32_t i = 0; i < PAGER_HOT_OFFSETS; i++)
		if (stat_get(&hot->offset[i].key) == 0xff8)
			at_count = stat_get(&hot->offset[i].count);
	assert_in_range(at_count, 500, 700);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantiles_are_near),
		cmocka_unit_test(hot_pages_stay_in_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
