/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are in the guest's physical address space.
 *
 *   0                         RAM (a0000..fffff: not usable; ACPI tables from e0000)
 *   LOW_RAM_LIMIT (3 GiB)     hole: PCI, I/O APIC fec00000, local APIC fee00000
 *   4 GiB                     RAM
 *   high above                PCI's 64-bit window
 *
 * All pure, all constant: every node computes the same map from the memory's size.
 */
#ifndef MACHINE_MEMORY_MAP_H
#define MACHINE_MEMORY_MAP_H

#include <stdint.h>

#define LOW_RAM_LIMIT	 0xc0000000ull
#define HIGH_RAM_BASE	 0x100000000ull
#define PCI_MMIO_BASE	 0xc0000000ull
#define PCI_MMIO_LIMIT	 0xfec00000ull
#define PCI_ECAM_GPA	 0xfeb00000ull /* configuration space of bus 0: the window's end */
#define PCI_ECAM_BYTES	 0x100000ull
#define IOAPIC_GPA	 0xfec00000ull
#define LAPIC_GPA	 0xfee00000ull
#define EBDA_GPA	 0x9fc00ull
#define ISA_HOLE_GPA	 0xa0000ull
#define ACPI_GPA	 0xe0000ull
#define ACPI_BYTES_MAX	 0x1fff0u
#define RESET_VECTOR_GPA 0xffff0ull
#define HIMEM_GPA	 0x100000ull
#define GUEST_MEMORY_MIN (64ull << 20)

struct memory_range {
	uint64_t gpa, bytes;
};
#define MEMORY_RANGES_MAX 2

struct memory_map {
	uint32_t count;
	struct memory_range range[MEMORY_RANGES_MAX]; /* RAM, ascending */
};

/*
 * RAM for `bytes` of guest memory. -EINVAL: not a multiple of CHUNK_BYTES, or below
 * GUEST_MEMORY_MIN; -E2BIG: reaches beyond GPA_LIMIT.
 */
int memory_map_build(uint64_t bytes, struct memory_map *ret_map);
/* Guest-physical address just behind the last byte of RAM. */
uint64_t memory_map_end(const struct memory_map *map);
/*
 * The window for PCI's 64-bit base addresses: the top quarter of what CPUs with so many physical
 * address bits can address, and of what the wire can name, far above RAM that may be added. bytes 0:
 * RAM reaches into it, and there is no such window.
 */
struct memory_range memory_map_high_window(const struct memory_map *map, uint32_t physical_bits);

/* BIOS e820 types */
enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };
struct e820_range {
	uint64_t gpa, bytes;
	uint32_t type;
};
#define E820_RANGES_MAX 8
/* Fills `ret_range`, returns the count. */
uint32_t memory_map_e820(const struct memory_map *map,
			 struct e820_range ret_range[E820_RANGES_MAX]);

#endif
