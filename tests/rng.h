/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers of tests (splitmix64): the same seed gives the same sequence everywhere.
 *
 * Seeds that failed once are kept (tests/sim/regressions.txt, the regressions of soft-diff), and
 * mean something only as long as every number is made from the sequence as it was then. So there
 * are two ways to stay below a bound: by the high half of a number, and by its remainder, for
 * bounds beyond 32 bits. Neither may change, nor may a user change from one to the other.
 */
#ifndef TESTS_RNG_H
#define TESTS_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t z = (rng->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 0..bound-1; bound > 0. */
static inline uint32_t rng_below(struct rng *rng, uint32_t bound)
{
	return (uint32_t)((rng_next(rng) >> 32) * bound >> 32);
}

/* True in `percent` of 100 cases. */
static inline bool rng_chance(struct rng *rng, uint32_t percent)
{
	return rng_below(rng, 100) < percent;
}

/* The same of 64 bits, by remainder. The bias is below 2^-32 for every bound used. */
static inline uint64_t rng_below_64(struct rng *rng, uint64_t bound)
{
	return rng_next(rng) % bound;
}

static inline bool rng_chance_64(struct rng *rng, uint32_t percent)
{
	return rng_below_64(rng, 100) < percent;
}

/* low..high, both included; fewer than 2^64. */
static inline uint64_t rng_range(struct rng *rng, uint64_t low, uint64_t high)
{
	return low + rng_below_64(rng, high - low + 1);
}

static inline uint64_t rng_one_of(struct rng *rng, const uint64_t *values, uint64_t count)
{
	return values[rng_below_64(rng, count)];
}
#define RNG_ONE_OF(rng, ...)                                                                       \
	rng_one_of(rng, (const uint64_t[]){ __VA_ARGS__ },                                         \
		   sizeof((const uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))

#endif
