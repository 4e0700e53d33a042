/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A struct placement as tests make it, in which a vCPU stalls and arrives.
 */
#ifndef TESTS_CORE_PLACEMENT_MADE_H
#define TESTS_CORE_PLACEMENT_MADE_H

#include <string.h>

#include "core/placement.h"
#include "tests/test.h"

#define MOVE_NS 100000u
#define MS	1000000u

static inline struct placement *make(uint16_t self, uint16_t nodes, enum placement_policy policy,
				     uint32_t broken)
{
	struct placement_config config = { .self = self,
					   .node_count = nodes,
					   .vcpu_count = 8,
					   .policy = policy,
					   .move_ns = MOVE_NS,
					   .seed = 1,
					   .broken = broken };
	struct placement_load load = { .cores = 4, .awake = 1 };
	struct placement *p;

	assert_int_equal(placement_create(&config, &p), 0);
	for (uint16_t i = 0; i < nodes; i++)
		assert_int_equal(placement_load(p, i, &load), 0);
	return p;
}

static inline struct placement_advice stall(struct placement *p, uint32_t vcpu, uint16_t owner,
					    uint64_t *now_ns, uint64_t took_ns)
{
	struct placement_stall stall = { .vcpu = vcpu,
					 .kind = COH_STALL_WRITE,
					 .owner = owner,
					 .gpn = 7,
					 .begin_ns = *now_ns,
					 .end_ns = *now_ns + took_ns };
	struct placement_advice advice;

	assert_int_equal(placement_stall(p, &stall, &advice), 0);
	*now_ns += took_ns;
	return advice;
}

/* How many stalls of 10 us on `owner` until it should go there; 0: not within `most`. */
static inline uint32_t stalls_until(struct placement *p, uint16_t owner, uint64_t *now_ns,
				    uint32_t most)
{
	for (uint32_t i = 1; i <= most; i++) {
		if (stall(p, 0, owner, now_ns, 10000).to == owner)
			return i;
	}
	return 0;
}

static inline void arrive(struct placement *p, uint16_t from, uint64_t now_ns, uint8_t wasted,
			  uint32_t debt_us)
{
	uint8_t carry[PLACEMENT_CARRY_BYTES] = { 3, wasted };

	memcpy(carry + 8, &debt_us, 4);
	assert_int_equal(placement_arrived(p, 0, from, now_ns - MOVE_NS, now_ns, carry), 0);
}

#endif
