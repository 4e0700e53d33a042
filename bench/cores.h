/* SPDX-License-Identifier: Apache-2.0 */
/* How many cores a benchmark may use. */
#ifndef BENCH_CORES_H
#define BENCH_CORES_H

#include <sched.h>
#include <stdint.h>

static inline uint32_t count_cores(void)
{
	cpu_set_t cores;

	CPU_ZERO(&cores);
	if (sched_getaffinity(0, sizeof(cores), &cores) < 0)
		return 1;
	return (uint32_t)CPU_COUNT(&cores);
}

#endif
