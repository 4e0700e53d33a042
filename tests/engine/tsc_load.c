/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc_load N: measures the TSC's rate N times, on one core and at the lowest priority, as a node's
 * start does; whoever calls it brings the load. The truth is what the two clocks show over all of
 * that time. Fails if one of the measurements is off by more than 200 ppm, or does not contain the
 * truth.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/host_clock.h"
#include "engine/tsc_rate.h"

#define OFF_PPM_MAX 200
#define STARTS_MAX  10000
#define SLACK_KHZ   1 /* whole kHz are compared */

static void read_bracket(struct tsc_bracket *ret_bracket)
{
	ret_bracket->after = UINT64_MAX;
	ret_bracket->before = 0;
	for (int i = 0; i < 1000; i++) {
		struct tsc_bracket now = { .before = host_clock_tsc() };

		now.ns = host_clock_raw_ns();
		now.after = host_clock_tsc();
		if (now.after - now.before < ret_bracket->after - ret_bracket->before)
			*ret_bracket = now;
	}
}

int main(int argc, char **argv)
{
	static struct tsc_rate rate[STARTS_MAX];
	struct tsc_rate truth = { 0 };
	struct tsc_bracket first, last;
	long count = argc > 1 ? strtol(argv[1], NULL, 10) : 20, wrong = 0;
	double worst_ppm = 0;
	cpu_set_t one;
	char why[256];

	if (count < 1 || count > STARTS_MAX) {
		fprintf(stderr, "usage: tsc_load [1..%d]\n", STARTS_MAX);
		return 2;
	}
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	errno = 0;
	if (nice(19) < 0 && errno)
		perror("nice");
	read_bracket(&first);
	for (long i = 0; i < count; i++)
		if (tsc_rate_measure(0, &rate[i], why, sizeof(why)) < 0) {
			fprintf(stderr, "start %ld: %s\n", i, why);
			return 1;
		}
	read_bracket(&last);
	if (!tsc_rate_bounds(&first, &last, &truth)) {
		fprintf(stderr, "the two clocks do not go together\n");
		return 1;
	}
	for (long i = 0; i < count; i++) {
		double khz = ((double)truth.low_khz + truth.high_khz) / 2;
		double ppm = (rate[i].khz - khz) / khz * 1e6;

		if (ppm < 0)
			ppm = -ppm;
		if (ppm > worst_ppm)
			worst_ppm = ppm;
		if (ppm > OFF_PPM_MAX || rate[i].low_khz > truth.high_khz + SLACK_KHZ ||
		    rate[i].high_khz + SLACK_KHZ < truth.low_khz) {
			printf("start %ld: %u to %u kHz, in truth %u to %u\n", i, rate[i].low_khz,
			       rate[i].high_khz, truth.low_khz, truth.high_khz);
			wrong++;
		}
	}
	printf("%ld starts: %ld wrong; off by at most %.1f ppm; the TSC runs at %u to %u kHz; %.1f s\n",
	       count, wrong, worst_ppm, truth.low_khz, truth.high_khz,
	       (double)(last.ns - first.ns) / 1e9);
	return wrong != 0;
}
