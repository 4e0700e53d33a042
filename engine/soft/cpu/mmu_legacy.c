/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paging without long mode (SDM vol. 3, 4.3 and 4.4): 32-bit tables of two levels, with pages of 4
 * MiB, and PAE's of three.
 *
 *   32-bit   CR3 -> 1024 entries of 4 bytes -> 1024 entries of 4 bytes    pages of 4 KiB, 4 MiB
 *   PAE      CR3 -> 4 entries -> 512 entries of 8 bytes -> 512 of 8      pages of 4 KiB, 2 MiB
 *
 * PAE's first 4 entries are read at every walk, and what is wrong with them is a page fault, as
 * AMD's CPUs have it under nested paging (APM vol. 2, 15.25.10). Intel's keep them in registers
 * since CR3 was written, and find the fault then: a guest cannot rely on either.
 */
#include "engine/soft/cpu/mmu.h"

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"

#define PDPT_ADDRESS	 0xffffffe0ull
#define PDPT_RESERVED	 0xfff00000000001e6ull
#define PTE_ADDRESS_32	 0xfffff000ull
#define LARGE_ADDRESS_32 0xffc00000ull
#define LARGE_RESERVED	 0x200000ull /* of 4 MiB pages; bits 13 to 20 are address bits 32 to 39 */
#define PAE_RESERVED	 0x7ff0000000000000ull
#define PAE_LARGE_LOW	 0x1fe000ull

struct format {
	uint32_t entry_bytes, index_bits;
	uint64_t address; /* in an entry */
};

static const struct format format_32 = { 4, 10, PTE_ADDRESS_32 };
static const struct format format_pae = { 8, 9, PTE_ADDRESS };

struct entry {
	uint8_t *host;
	uint64_t value;
};

/* One of 4 bytes is half of a quadword, whose other half may change at any time. */
static uint64_t part_of(const struct format *format, const uint8_t *host, uint64_t whole)
{
	return format->entry_bytes == 8 ? whole
					: (uint32_t)((uintptr_t)host & 4 ? whole >> 32 : whole);
}

static uint8_t *quadword(uint8_t *host)
{
	return host - ((uintptr_t)host & 4);
}

/* False: it has changed meanwhile. */
static bool set_bits(const struct format *format, const struct entry *entry, uint64_t bits)
{
	uint64_t whole;

	if ((entry->value & bits) == bits)
		return true;
	whole = soft_load64(quadword(entry->host));
	return part_of(format, entry->host, whole) == entry->value &&
	       soft_exchange64(quadword(entry->host), whole,
			       whole | ((uintptr_t)entry->host & 4 ? bits << 32 : bits));
}

static uint64_t reserved_bits(const struct engine_vcpu *vcpu, const struct format *format,
			      bool large)
{
	uint64_t beyond = ~vcpu->physical_mask;

	if (format == &format_32)
		return large ? LARGE_RESERVED | (beyond >> 32 & 0xff) << 13 : 0;
	return PAE_RESERVED | (PTE_ADDRESS & beyond) | (large ? PAE_LARGE_LOW : 0) |
	       (vcpu->state.efer & EFER_NXE ? 0 : PTE_NX);
}

static bool is_large(const struct engine_vcpu *vcpu, int level, uint64_t value)
{
	return level == 1 && (value & PTE_LARGE) && (vcpu->state.cr4 & (CR4_PSE | CR4_PAE));
}

/* Where the table of level 1 is. False with *ret_code: the page fault's code. */
static bool find_directory(const struct engine_vcpu *vcpu, const struct format *format,
			   uint64_t linear, uint64_t *ret_table, uint32_t *ret_code)
{
	uint8_t *host;
	uint64_t entry;

	*ret_code = 0;
	*ret_table = vcpu->state.cr3 & PTE_ADDRESS_32;
	if (format == &format_32)
		return true;
	host = soft_memory_host(vcpu->engine,
				(vcpu->state.cr3 & PDPT_ADDRESS) + (linear >> 30 & 3) * 8);
	if (!host)
		return false;
	entry = soft_load64(host);
	if (!(entry & PTE_PRESENT))
		return false;
	*ret_code = PF_PRESENT | PF_RSVD;
	*ret_table = entry & PTE_ADDRESS;
	return !(entry & (PDPT_RESERVED | (PTE_ADDRESS & ~vcpu->physical_mask)));
}

/* One level down, as find_directory(). */
static bool look_up(const struct engine_vcpu *vcpu, const struct format *format, uint64_t table,
		    uint64_t linear, int level, struct soft_walk *walk, struct entry *ret_entry,
		    uint32_t *ret_code)
{
	uint32_t bits = format->index_bits;
	uint64_t index = linear >> (12 + bits * (uint32_t)level) & (BIT64(bits) - 1), value;
	uint8_t *host = soft_memory_host(vcpu->engine, table + index * format->entry_bytes);

	*ret_code = 0;
	if (!host)
		return false;
	value = part_of(format, host, soft_load64(quadword(host)));
	if (!(value & PTE_PRESENT))
		return false;
	if (value & reserved_bits(vcpu, format, is_large(vcpu, level, value))) {
		*ret_code = PF_PRESENT | PF_RSVD;
		return false;
	}
	*ret_entry = (struct entry){ host, value };
	walk->write = walk->write && (value & PTE_WRITE);
	walk->user = walk->user && (value & PTE_USER);
	walk->nx = walk->nx || (value & PTE_NX);
	return true;
}

static uint64_t address_of(const struct format *format, uint64_t leaf, int level, uint64_t linear)
{
	uint64_t inside = BIT64(12 + format->index_bits * (uint32_t)level) - 1;
	uint64_t page = leaf & format->address & ~inside;

	if (format == &format_32 && level == 1)
		page = (leaf & LARGE_ADDRESS_32) | (leaf >> 13 & 0xff) << 32;
	return page | (linear & inside);
}

int soft_walk_legacy(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		     enum soft_access access, struct soft_walk *ret_walk)
{
	const struct format *format = vcpu->state.cr4 & CR4_PAE ? &format_pae : &format_32;
	struct soft_walk walk = { .write = true, .user = true };
	struct entry entry[2] = { 0 };
	uint64_t table;
	uint32_t code;
	int level = 1;
	bool found = find_directory(vcpu, format, linear, &table, &code);

	if (found)
		found = look_up(vcpu, format, table, linear, 1, &walk, &entry[1], &code);
	if (found && !is_large(vcpu, 1, entry[1].value)) {
		level = 0;
		found = look_up(vcpu, format, entry[1].value & format->address, linear, 0, &walk,
				&entry[0], &code);
	}
	if (found)
		code = soft_walk_rights(vcpu, view, access, &walk);
	if (!found || code)
		return soft_raise_page_fault(vcpu, linear,
					     soft_walk_fault(vcpu, view, access, code));
	walk.leaf = entry[level].value;
	if ((level == 0 && !set_bits(format, &entry[1], PTE_ACCESSED)) ||
	    !set_bits(format, &entry[level],
		      PTE_ACCESSED | (access == ACCESS_WRITE ? PTE_DIRTY : 0)))
		return SOFT_AGAIN;
	walk.dirty = access == ACCESS_WRITE || (walk.leaf & PTE_DIRTY);
	walk.global = (walk.leaf & PTE_GLOBAL) && (vcpu->state.cr4 & CR4_PGE);
	walk.gpa = address_of(format, walk.leaf, level, linear);
	walk.level = level == 1 && format == &format_32 ? 2 : (uint8_t)level;
	*ret_walk = walk;
	return SOFT_OK;
}
