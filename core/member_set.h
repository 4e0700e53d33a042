/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of nodes, by number. Numbers are below a pod's number space, which is fixed for its life; who
 * is a member is a set within it.
 */
#ifndef CORE_MEMBER_SET_H
#define CORE_MEMBER_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"

/* What becomes of a number: core/member_list.h. */
enum member_state {
	MEMBER_FREE,
	MEMBER_JOINING,
	MEMBER_ACTIVE,
	MEMBER_DRAINING,
	MEMBER_GONE,
};

struct member_set {
	uint64_t word[NODES_MAX / 64];
};

static inline bool member_set_has(const struct member_set *set, uint16_t node)
{
	return set->word[node / 64] >> (node % 64) & 1;
}

static inline void member_set_add(struct member_set *set, uint16_t node)
{
	set->word[node / 64] |= 1ull << (node % 64);
}

static inline void member_set_remove(struct member_set *set, uint16_t node)
{
	set->word[node / 64] &= ~(1ull << (node % 64));
}

/* All numbers below `count`. */
static inline struct member_set member_set_below(uint32_t count)
{
	struct member_set set = { 0 };

	for (uint32_t node = 0; node < count; node++)
		member_set_add(&set, (uint16_t)node);
	return set;
}

static inline uint32_t member_set_count(const struct member_set *set)
{
	uint32_t count = 0;

	for (uint32_t w = 0; w < NODES_MAX / 64; w++)
		count += (uint32_t)__builtin_popcountll(set->word[w]);
	return count;
}

/* Whether all of `part` are in `set`. */
static inline bool member_set_covers(const struct member_set *set, const struct member_set *part)
{
	for (uint32_t w = 0; w < NODES_MAX / 64; w++)
		if (part->word[w] & ~set->word[w])
			return false;
	return true;
}

/* The member that `index` smaller ones are before; index < member_set_count(). */
static inline uint16_t member_set_nth(const struct member_set *set, uint32_t index)
{
	for (uint16_t node = 0; node < NODES_MAX; node++)
		if (member_set_has(set, node) && index-- == 0)
			return node;
	return NODE_NONE;
}

/* What a configuration means: no set is all numbers below `count`. */
static inline struct member_set member_set_or_all(const struct member_set *set, uint32_t count)
{
	return member_set_count(set) ? *set : member_set_below(count);
}

#endif
