/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers of the clocks' simulations (xorshift64*), one sequence a test program. Their
 * seeds mean something only as long as it is this one; others use tests/rng.h.
 */
#ifndef TESTS_XORSHIFT_H
#define TESTS_XORSHIFT_H

#include <stdint.h>

static uint64_t random_state;

static inline uint64_t random_next(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dull;
}

static inline void random_begin(uint64_t seed)
{
	random_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
	for (int i = 0; i < 10; i++)
		random_next();
}

#endif
