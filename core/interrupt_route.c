/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt routing (contract: interrupt_route.h). x2APIC ids are vCPU numbers, so a physical
 * destination is one bit and a logical one at most 16 neighbours: no tables, nothing to keep in
 * step between nodes. That a guest has switched a local APIC off is not known here; the receiver
 * ignores then.
 *
 * Tested in tests/core/test_interrupt_route.c.
 */
#include "core/interrupt_route.h"

#include <errno.h>

uint32_t vcpu_set_next(const struct vcpu_set *set, uint32_t from)
{
	for (uint32_t word = from / 64; word < VCPU_SET_WORDS; word++) {
		uint64_t bits = set->word[word];

		if (word == from / 64)
			bits &= ~0ull << (from % 64);
		if (bits)
			return word * 64 + (uint32_t)__builtin_ctzll(bits);
	}
	return VCPUS_MAX;
}

uint32_t vcpu_set_count(const struct vcpu_set *set)
{
	uint32_t count = 0;

	for (uint32_t word = 0; word < VCPU_SET_WORDS; word++)
		count += (uint32_t)__builtin_popcountll(set->word[word]);
	return count;
}

static void set_add(struct vcpu_set *set, uint32_t vcpu)
{
	set->word[vcpu / 64] |= 1ull << (vcpu % 64);
}

static void set_fill(struct vcpu_set *set, uint32_t vcpu_count)
{
	for (uint32_t vcpu = 0; vcpu < vcpu_count; vcpu++)
		set_add(set, vcpu);
}

/* Cluster in dest[31:16], up to 16 members in dest[15:0]. */
static void set_add_cluster(struct vcpu_set *set, uint32_t dest, uint32_t vcpu_count)
{
	uint32_t first = (dest >> 16) * 16;

	for (uint32_t member = 0; member < 16; member++) {
		if ((dest >> member & 1) && first + member < vcpu_count)
			set_add(set, first + member);
	}
}

/* Lowest priority: nobody knows priorities across nodes, so the vector chooses, as hashing chipsets
 * do. */
static void set_keep_one(struct vcpu_set *set, uint8_t vector)
{
	uint32_t count = vcpu_set_count(set);
	uint32_t vcpu = vcpu_set_next(set, 0);

	if (!count)
		return;
	for (uint32_t skip = vector % count; skip; skip--)
		vcpu = vcpu_set_next(set, vcpu + 1);
	*set = (struct vcpu_set){ 0 };
	set_add(set, vcpu);
}

static bool is_valid(const struct interrupt *interrupt, uint32_t vcpu_count)
{
	bool from_device = interrupt->source == INTERRUPT_SOURCE_DEVICE;

	if (vcpu_count == 0 || vcpu_count > VCPUS_MAX)
		return false;
	if (!from_device && interrupt->source >= vcpu_count)
		return false;
	if (interrupt->mode > INTERRUPT_EXTINT || interrupt->mode == 3)
		return false;
	if (interrupt->shorthand > INTERRUPT_TO_OTHERS || interrupt->logical > 1 ||
	    interrupt->level > 1)
		return false;
	if (interrupt->reserved[0] || interrupt->reserved[1] || interrupt->reserved[2])
		return false;
	if (from_device)
		return interrupt->shorthand == INTERRUPT_TO_DEST &&
		       interrupt->mode != INTERRUPT_SIPI;
	/* SDM vol. 3, table 11-3: what an ICR sends with a shorthand that includes the sender. */
	if (interrupt->shorthand == INTERRUPT_TO_SELF || interrupt->shorthand == INTERRUPT_TO_ALL)
		return interrupt->mode == INTERRUPT_FIXED;
	return interrupt->mode != INTERRUPT_EXTINT;
}

int interrupt_route(const struct interrupt *interrupt, uint32_t vcpu_count,
		    struct vcpu_set *ret_set)
{
	struct vcpu_set set = { 0 };

	if (!is_valid(interrupt, vcpu_count))
		return -EINVAL;

	switch (interrupt->shorthand) {
	case INTERRUPT_TO_SELF:
		set_add(&set, interrupt->source);
		break;
	case INTERRUPT_TO_ALL:
		set_fill(&set, vcpu_count);
		break;
	case INTERRUPT_TO_OTHERS:
		set_fill(&set, vcpu_count);
		set.word[interrupt->source / 64] &= ~(1ull << (interrupt->source % 64));
		break;
	default:
		if (interrupt->dest == INTERRUPT_BROADCAST)
			set_fill(&set, vcpu_count);
		else if (interrupt->logical)
			set_add_cluster(&set, interrupt->dest, vcpu_count);
		else if (interrupt->dest < vcpu_count)
			set_add(&set, interrupt->dest);
		break;
	}
	if (interrupt->mode == INTERRUPT_LOWEST)
		set_keep_one(&set, interrupt->vector);
	*ret_set = set;
	return 0;
}
