/* SPDX-License-Identifier: Apache-2.0 */
/* The time that a vCPU was stalled: stall_time.h. */
#include "pager/stall_time.h"

static void add(struct stall_time *time, uint64_t since_ns, uint64_t now_ns)
{
	if (now_ns > since_ns)
		atomic_fetch_add_explicit(&time->sum_ns, now_ns - since_ns, memory_order_relaxed);
}

void stall_time_begin(struct stall_time *time, uint64_t now_ns)
{
	uint64_t before = atomic_exchange(&time->since_ns, now_ns);

	if (before)
		add(time, before, now_ns);
}

void stall_time_end(struct stall_time *time, uint64_t since_ns, uint64_t now_ns)
{
	if (atomic_compare_exchange_strong(&time->since_ns, &since_ns, 0))
		add(time, since_ns, now_ns);
}

uint64_t stall_time_ns(const struct stall_time *time, uint64_t now_ns)
{
	uint64_t since_ns = atomic_load(&time->since_ns);
	uint64_t sum_ns = atomic_load_explicit(&time->sum_ns, memory_order_relaxed);

	return sum_ns + (since_ns && now_ns > since_ns ? now_ns - since_ns : 0);
}
