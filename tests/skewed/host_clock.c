/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_clock.h for hosts whose oscillators are off: `eagre-skewed` is eagre with this in the place
 * of engine/host_clock.c. Both clocks of the process run fast or slow by the same part, which
 * wanders, as those of a host with another crystal do.
 *
 *   EAGRE_SKEW_PPB      how much faster than this machine's (-1000000 to 1000000)
 *   EAGRE_SKEW_WANDER   changes by up to so many ppb a second, at random
 *   EAGRE_SKEW_SEED
 *   EAGRE_SKEW_STUMBLE  in this slice they run at half their speed, as if the host had been stopped
 *
 * Each clock is a table of seconds, or what is one at 2 GHz, made before main(): integers only,
 * since this is called with the guest's vectors in the registers. After the table's end
 * (SLICES) the clocks run on at the last rate.
 */
#include <stdlib.h>
#include <time.h>

#include "engine/host_clock.h"

#define SLICES	   4096u
#define TSC_SHIFT  31 /* a slice in ticks: 2^31 */
#define NS_SHIFT   30
#define WANDER_MAX 4000 /* ppb to each side, in all */
#define PPB	   1000000000ll

struct skewed {
	uint64_t origin, start[SLICES];
	int64_t rate_ppb[SLICES];
	unsigned int shift;
};

static struct skewed tsc, raw;

static uint64_t real_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static uint64_t real_raw_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t skew(const struct skewed *clock, uint64_t real)
{
	uint64_t span = real > clock->origin ? real - clock->origin : 0;
	uint64_t slice = span >> clock->shift;

	if (slice >= SLICES)
		slice = SLICES - 1;
	span -= slice << clock->shift;
	return clock->start[slice] + span +
	       (uint64_t)(int64_t)((__int128)span * clock->rate_ppb[slice] / PPB);
}

static void begin(struct skewed *clock, uint64_t real, unsigned int shift, const int64_t *rate_ppb)
{
	clock->origin = clock->start[0] = real;
	clock->shift = shift;
	for (unsigned int i = 0; i < SLICES; i++) {
		clock->rate_ppb[i] = rate_ppb[i];
		if (i + 1 < SLICES)
			clock->start[i + 1] =
				skew(clock, real + ((uint64_t)(i + 1) << shift) - 1) + 1;
	}
}

static int64_t setting(const char *name)
{
	const char *text = getenv(name);

	return text ? strtoll(text, NULL, 10) : 0;
}

__attribute__((constructor)) static void make_clocks(void)
{
	static int64_t rate_ppb[SLICES];
	int64_t base = setting("EAGRE_SKEW_PPB"), most = setting("EAGRE_SKEW_WANDER"), wander = 0;
	int64_t stumble = setting("EAGRE_SKEW_STUMBLE");
	uint64_t random = (uint64_t)setting("EAGRE_SKEW_SEED") * 0x9e3779b97f4a7c15ull + 1;

	for (unsigned int i = 0; i < SLICES; i++) {
		random ^= random >> 12;
		random ^= random << 25;
		random ^= random >> 27;
		wander += most ? (int64_t)((random * 0x2545f4914f6cdd1dull >> 16) %
					   (uint64_t)(2 * most + 1)) -
					  most
			       : 0;
		if (wander > WANDER_MAX || wander < -WANDER_MAX)
			wander = wander > 0 ? WANDER_MAX : -WANDER_MAX;
		rate_ppb[i] = base + wander;
		if (stumble > 0 && i == stumble)
			rate_ppb[i] -= PPB / 2;
	}
	begin(&tsc, real_tsc(), TSC_SHIFT, rate_ppb);
	begin(&raw, real_raw_ns(), NS_SHIFT, rate_ppb);
}

uint64_t host_clock_tsc(void)
{
	return skew(&tsc, real_tsc());
}

uint64_t host_clock_raw_ns(void)
{
	return skew(&raw, real_raw_ns());
}

void host_clock_pause(uint64_t ns)
{
	const struct timespec pause = { .tv_nsec = (long)ns };

	nanosleep(&pause, NULL);
}

bool host_clock_tsc_is_real(void)
{
	return false;
}
