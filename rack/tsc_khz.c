/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc_khz: prints the frequency of this machine's TSC, in kHz.
 *
 * An emulated host's TSC is this machine's, but its kernel can only guess the frequency, and
 * guesses badly when the machine is busy: by a factor of three was seen, and its clock then runs
 * three times too fast. So the rack measures it here and tells the kernels (tsc_early_khz).
 *
 * Both clocks are read together; of several readings the one that took the shortest counts, since
 * nothing can have come between. 100 ms apart, that is good to a few parts in a million.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#define READINGS    16
#define DISTANCE_NS 100000000
#define NS_PER_S    1000000000u

struct reading {
	uint64_t tsc;
	uint64_t ns;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static struct reading read_both(void)
{
	struct reading best = { 0 };
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < READINGS; i++) {
		uint64_t before = now_ns();
		uint64_t tsc = __rdtsc();
		uint64_t took = now_ns() - before;

		if (took < shortest) {
			shortest = took;
			best.tsc = tsc;
			best.ns = before + took / 2;
		}
	}
	return best;
}

int main(void)
{
	const struct timespec distance = { .tv_nsec = DISTANCE_NS };
	struct reading first = read_both();
	struct reading last;

	nanosleep(&distance, NULL);
	last = read_both();
	printf("%.0f\n", (double)(last.tsc - first.tsc) * 1e6 / (double)(last.ns - first.ns));
	return 0;
}
