/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast does this host's TSC run, by its own clock?
 *
 * Two readings of both clocks, some time apart. A thread can lose its CPU between reading one clock
 * and the other, for longer than the two readings are apart, so each is bracketed:
 *
 *      TSC  ----- before ------------------- after -----      CLOCK_MONOTONIC_RAW was read at
 *                   '--- clock_gettime() ---'                 some time in between
 *
 * Of many brackets the narrowest counts. Two of them bound the rate from both sides, whatever
 * happened in between, and one goes on until the bound is close enough or TSC_RATE_PATIENCE_NS have
 * passed. So the load of the host costs time, never truth.
 *
 * What the kernel or the CPU publish is more exact than what is measured in milliseconds, but can
 * be a lie (a hypervisor that scales the TSC and passes CPUID on, say). So it is taken if it lies
 * within the measured bounds, and then in the order in which it is close to what
 * CLOCK_MONOTONIC_RAW itself runs by: perf's page (the kernel's own factors), KVM's leaf, the
 * crystal's leaf. Left out: leaf 16h, which is rounded to what is printed on the CPU, and the
 * vDSO's data, whose layout is nobody's promise.
 *
 * Tested in tests/engine/test_tsc_rate.c, with preemption made up, and on busy cores in
 * tests/engine/tsc_load.
 */
#ifndef ENGINE_TSC_RATE_H
#define ENGINE_TSC_RATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TSC_RATE_GOAL_PPB    2000u   /* good enough at once */
#define TSC_RATE_BOUND_PPB   200000u /* what is not known better is refused */
#define TSC_RATE_PATIENCE_NS 1000000000ull
#define TSC_RATE_KHZ_MIN     1000u /* Bochs has some 90 MHz */
#define TSC_RATE_KHZ_MAX     20000000u

struct tsc_rate {
	uint32_t khz;
	uint32_t low_khz, high_khz; /* measured: the rate is between these */
	const char *source;	    /* static: "measured", or what published khz */
};

/* A reading of both clocks: ns was read while the TSC was between before and after. */
struct tsc_bracket {
	uint64_t before, after, ns;
};

/* What someone says about the rate; khz 0: nothing. */
struct tsc_claim {
	const char *source;
	uint32_t khz;
};

/*
 * `khz_of_engine`: what the engine's kernel module says, or 0; it comes before all others. 0;
 * -ENOTSUP with `why`: the clocks do not go together, or cannot be read well enough.
 */
int tsc_rate_measure(uint32_t khz_of_engine, struct tsc_rate *ret_rate, char *why, size_t why_size);

/* ---- its parts, for tests ----------------------------------------------------------------- */

/* The rate's bounds from two brackets. False: these cannot be two readings of one clock. */
bool tsc_rate_bounds(const struct tsc_bracket *first, const struct tsc_bracket *last,
		     struct tsc_rate *ret_rate);
/* Sets khz and source: the first claim within the bounds, or else their middle. */
void tsc_rate_choose(struct tsc_rate *rate, const struct tsc_claim *claim, size_t count);

#endif
