/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's physical address space (contract: memory_map.h). Tested in
 * tests/machine/test_memory_map.c.
 */
#include "machine/memory_map.h"

#include <errno.h>

#include "core/limits.h"

/* The smallest number of bits that have room for GPA_LIMIT. */
#define GPA_LIMIT_BITS 44u
_Static_assert(GPA_LIMIT <= 1ull << GPA_LIMIT_BITS && GPA_LIMIT > 1ull << (GPA_LIMIT_BITS - 1),
	       "GPA_LIMIT_BITS is not GPA_LIMIT's");

int memory_map_build(uint64_t bytes, struct memory_map *ret_map)
{
	struct memory_map map = { .count = 1 };

	if (bytes < GUEST_MEMORY_MIN || bytes % CHUNK_BYTES)
		return -EINVAL;
	if (bytes > GPA_LIMIT - (HIGH_RAM_BASE - LOW_RAM_LIMIT))
		return -E2BIG;
	map.range[0] = (struct memory_range){ 0, bytes < LOW_RAM_LIMIT ? bytes : LOW_RAM_LIMIT };
	if (bytes > LOW_RAM_LIMIT) {
		map.range[1] = (struct memory_range){ HIGH_RAM_BASE, bytes - LOW_RAM_LIMIT };
		map.count = 2;
	}
	*ret_map = map;
	return 0;
}

uint64_t memory_map_end(const struct memory_map *map)
{
	const struct memory_range *last = &map->range[map->count - 1];

	return last->gpa + last->bytes;
}

struct memory_range memory_map_high_window(const struct memory_map *map, uint32_t physical_bits)
{
	uint32_t bits = physical_bits < GPA_LIMIT_BITS ? physical_bits : GPA_LIMIT_BITS;
	uint64_t gpa = 3ull << (bits - 2);
	uint64_t end = 1ull << bits;

	if (end > GPA_LIMIT)
		end = GPA_LIMIT;
	if (bits < 34 || memory_map_end(map) > gpa)
		return (struct memory_range){ 0 };
	return (struct memory_range){ gpa, end - gpa };
}

uint32_t memory_map_e820(const struct memory_map *map, struct e820_range ret_range[E820_RANGES_MAX])
{
	uint32_t count = 0;

	ret_range[count++] = (struct e820_range){ 0, EBDA_GPA, E820_RAM };
	ret_range[count++] =
		(struct e820_range){ EBDA_GPA, ISA_HOLE_GPA - EBDA_GPA, E820_RESERVED };
	ret_range[count++] = (struct e820_range){ ACPI_GPA, HIMEM_GPA - ACPI_GPA, E820_RESERVED };
	ret_range[count++] =
		(struct e820_range){ HIMEM_GPA, map->range[0].bytes - HIMEM_GPA, E820_RAM };
	ret_range[count++] = (struct e820_range){ PCI_ECAM_GPA, PCI_ECAM_BYTES, E820_RESERVED };
	for (uint32_t i = 1; i < map->count; i++)
		ret_range[count++] =
			(struct e820_range){ map->range[i].gpa, map->range[i].bytes, E820_RAM };
	return count;
}
