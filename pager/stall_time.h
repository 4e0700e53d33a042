/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long has a vCPU been stalled in all, the present stall included?
 *
 * The shards write it: the one that takes a vCPU's fault, and the one that ends it, which may by
 * then be about an older fault, since a vCPU that was kicked out of a stall can come back with
 * another. So a stall is known by the time at which it began, and whoever ends one that has been
 * replaced counts nothing: the time up to the replacement has been counted then. A thread that waits
 * for a core is not stalled.
 *
 * Tested in tests/memory/test_stall_time.c.
 */
#ifndef PAGER_STALL_TIME_H
#define PAGER_STALL_TIME_H

#include <stdatomic.h>
#include <stdint.h>

struct stall_time {
	_Atomic uint64_t sum_ns;   /* of stalls that have ended */
	_Atomic uint64_t since_ns; /* of the present one; 0: none */
};

void stall_time_begin(struct stall_time *time, uint64_t now_ns);
/* The stall that began at since_ns, if it still is the present one. */
void stall_time_end(struct stall_time *time, uint64_t since_ns, uint64_t now_ns);
/* Any thread. */
uint64_t stall_time_ns(const struct stall_time *time, uint64_t now_ns);

#endif
