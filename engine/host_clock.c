/* SPDX-License-Identifier: Apache-2.0 */
/* The host's clock as it is (host_clock.h); tests of skewed hosts link another one in its place. */
#include "engine/host_clock.h"

#include <time.h>

/* In assembler: the compiler's LFENCE belongs to SSE2, which is switched off here. */
uint64_t host_clock_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

uint64_t host_clock_raw_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void host_clock_pause(uint64_t ns)
{
	const struct timespec pause = { .tv_nsec = (long)ns };

	nanosleep(&pause, NULL);
}

bool host_clock_tsc_is_real(void)
{
	return true;
}
