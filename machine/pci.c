/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI Express: bus 0 (contract: pci.h).
 *
 * What a register does is in two arrays of bytes, its value and what may be written of it: sizing a
 * base address, for one, is nothing but that (PCI 3.0, 6.2.5.1: bits below the size are read-only
 * zeros). Whatever the guest writes, the values stay ones that the rest can live with: a base address
 * may be anywhere, and what it hides (RAM, the I/O APIC) is looked up before it.
 *
 * Left out: buses behind bridges, functions other than 0, extended capabilities (offset 100h reads
 * 0: there are none; PCIe 4.0, 7.6.1), INTx, I/O base addresses, expansion ROMs, function level
 * reset.
 *
 * Tested in tests/machine/test_pci.c; fuzzed by tests/fuzz/fuzz_pci.c.
 */
#include "machine/pci.h"

#include <errno.h>
#include <string.h>

#include "machine/memory_map.h"

/* The header (PCI 3.0, 6.1). */
#define VENDOR		  0x00u
#define DEVICE		  0x02u
#define COMMAND		  0x04u
#define STATUS		  0x06u
#define REVISION	  0x08u
#define CLASS		  0x09u
#define CACHE_LINE	  0x0cu
#define BAR_0		  0x10u
#define BARS_END	  0x28u
#define SUBSYSTEM_VENDOR  0x2cu
#define SUBSYSTEM	  0x2eu
#define CAPABILITIES	  0x34u
#define INTERRUPT_LINE	  0x3cu
#define FIRST_CAPABILITY  0x40u
#define CAPABILITIES_BASE 0xfcu /* the low bits of a place are 0 */

#define COMMAND_MEMORY	 0x0002u
#define COMMAND_MASTER	 0x0004u
#define COMMAND_WRITABLE 0x0546u /* and parity and SERR reporting, INTx disable */
#define STATUS_LIST	 0x0010u

#define BAR_WIDE	 0x4u
#define BAR_PREFETCHABLE 0x8u
#define BAR_FLAGS	 0xfull

#define CAPABILITY_POWER   0x01u
#define CAPABILITY_EXPRESS 0x10u
#define POWER_CONTROL	   4u /* behind the capability's place */
#define POWER_STATE	   0x03u
#define POWER_D0	   0u
#define POWER_D3	   3u

#define ECAM_FUNCTION_BYTES 4096u
#define PORT_ENABLE	    0x80000000u

static uint64_t get(const uint8_t *bytes, uint32_t count)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < count; i++)
		value |= (uint64_t)bytes[i] << (i * 8);
	return value;
}

static void put(uint8_t *bytes, uint64_t value, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)(value >> (i * 8));
}

static uint64_t ones(uint32_t count)
{
	return count >= 8 ? UINT64_MAX : (1ull << (count * 8)) - 1;
}

static bool overlaps(const struct pci_access *access, uint32_t first, uint32_t count)
{
	return access->offset < first + count && first < access->offset + access->size;
}

/* ---- what there is --------------------------------------------------------------------------- */

static void identify(struct pci_function *function, const struct pci_identity *identity)
{
	uint8_t *value = function->value;

	function->present = true;
	function->capabilities_end = FIRST_CAPABILITY;
	put(value + VENDOR, identity->vendor, 2);
	put(value + DEVICE, identity->device, 2);
	value[REVISION] = identity->revision;
	put(value + CLASS, identity->class_code, 3);
	put(value + SUBSYSTEM_VENDOR, identity->subsystem_vendor, 2);
	put(value + SUBSYSTEM, identity->subsystem, 2);
	put(function->writable + COMMAND, COMMAND_WRITABLE, 2);
	/* Of no effect, but software keeps things there. */
	function->writable[CACHE_LINE] = 0xff;
	function->writable[INTERRUPT_LINE] = 0xff;
}

void pci_reset(struct pci *pci, uint64_t high_gpa, uint64_t high_bytes)
{
	static const struct pci_identity host_bridge = { .vendor = 0x1b36,
							 .device = 0x0008,
							 .class_code = 0x060000 };

	*pci = (struct pci){ .high_gpa = high_gpa,
			     .high_end = high_gpa + high_bytes,
			     .low_gpa = PCI_MMIO_BASE };
	identify(&pci->function[0], &host_bridge);
	memset(pci->function[0].writable, 0, PCI_CONFIG_BYTES);
}

/* A place for the base address, the next in the window; 0: none. */
static uint64_t place(struct pci *pci, const struct pci_bar *bar)
{
	bool high = bar->wide && pci->high_end > pci->high_gpa;
	uint64_t *next = high ? &pci->high_gpa : &pci->low_gpa;
	uint64_t end = high ? pci->high_end : PCI_ECAM_GPA;
	uint64_t gpa = (*next + bar->bytes - 1) & ~(bar->bytes - 1);

	if (gpa < *next || gpa > end || bar->bytes > end - gpa)
		return 0;
	*next = gpa + bar->bytes;
	return gpa;
}

static int add_bar(struct pci *pci, struct pci_function *function, uint32_t index)
{
	const struct pci_bar *bar = &function->bar[index];
	uint32_t count = bar->wide ? 8 : 4;
	uint64_t flags = (bar->wide ? BAR_WIDE : 0) | (bar->prefetchable ? BAR_PREFETCHABLE : 0);
	uint64_t gpa;

	if (bar->bytes < 16 || (bar->bytes & (bar->bytes - 1)) ||
	    (bar->wide && (index == PCI_BARS - 1 || function->bar[index + 1].bytes)) ||
	    (!bar->wide && bar->bytes > UINT32_MAX))
		return -EINVAL;
	gpa = place(pci, bar);
	if (!gpa)
		return -ENOSPC;
	put(function->value + BAR_0 + index * 4, gpa | flags, count);
	put(function->writable + BAR_0 + index * 4, ~(bar->bytes - 1), count);
	return 0;
}

int pci_add(struct pci *pci, uint32_t slot, const struct pci_identity *identity,
	    const struct pci_bar bar[PCI_BARS], const struct pci_function_ops *ops, void *ctx,
	    struct pci_function **ret_function)
{
	struct pci_function function = { .ops = ops, .ctx = ctx };

	if (slot >= PCI_FUNCTIONS)
		return -EINVAL;
	if (pci->function[slot].present)
		return -EEXIST;
	identify(&function, identity);
	memcpy(function.bar, bar, sizeof(function.bar));
	for (uint32_t i = 0; i < PCI_BARS; i++) {
		int error = bar[i].bytes ? add_bar(pci, &function, i) : 0;

		if (error)
			return error;
	}
	pci->function[slot] = function;
	*ret_function = &pci->function[slot];
	return 0;
}

int pci_capability(struct pci_function *function, const uint8_t *bytes, const uint8_t *writable,
		   uint32_t count)
{
	uint32_t at = function->capabilities_end;

	if (count < 2 || count > PCI_CONFIG_BYTES - at)
		return -ENOSPC;
	memcpy(function->value + at, bytes, count);
	if (writable)
		memcpy(function->writable + at, writable, count);
	/* Behind the last one; it ends the list itself. */
	function->value[at + 1] = 0;
	function->writable[at] = function->writable[at + 1] = 0;
	function->value[function->capability ? function->capability + 1u : CAPABILITIES] =
		(uint8_t)at;
	function->capability = (uint8_t)at;
	function->capabilities_end =
		(uint8_t)(at + count > CAPABILITIES_BASE ? CAPABILITIES_BASE
							 : (at + count + 3) & ~3u);
	function->value[STATUS] |= STATUS_LIST;
	return (int)at;
}

int pci_express(struct pci_function *function)
{
	/* Version 3; state kept over D3hot (No_Soft_Reset). PCI Power Management 1.2, 3.2. */
	static const uint8_t power[8] = { CAPABILITY_POWER, 0, 0x03, 0, 0x08 };
	static const uint8_t power_writable[8] = { [POWER_CONTROL] = POWER_STATE };
	/*
	 * Version 2, root complex integrated endpoint; payloads of 128 bytes, role-based errors; no
	 * link. Writable: error reporting, the size of read requests. PCIe 4.0, 7.5.3.
	 */
	static const uint8_t express[60] = {
		CAPABILITY_EXPRESS, 0, 0x92, 0, 0, 0x80, 0, 0, 0, 0x20
	};
	static const uint8_t express_writable[60] = { [8] = 0x0f, [9] = 0x70 };
	int at = pci_capability(function, power, power_writable, sizeof(power));

	if (at < 0)
		return at;
	function->power = (uint8_t)at;
	at = pci_capability(function, express, express_writable, sizeof(express));
	return at < 0 ? at : 0;
}

/* ---- configuration space --------------------------------------------------------------------- */

static void write_config(struct pci_function *function, const struct pci_access *access)
{
	uint32_t control = function->power ? function->power + POWER_CONTROL : 0;
	uint8_t state = function->value[control];

	for (uint32_t i = 0; i < access->size && access->offset + i < PCI_CONFIG_BYTES; i++) {
		uint8_t mask = function->writable[access->offset + i];
		uint8_t *byte = &function->value[access->offset + i];

		*byte = (uint8_t)((*byte & ~mask) | ((uint8_t)(access->value >> (i * 8)) & mask));
	}
	/* To a state that it does not have: nothing happens (PCI Power Management 1.2, 3.2.4). */
	if (control && (function->value[control] & POWER_STATE) != POWER_D0 &&
	    (function->value[control] & POWER_STATE) != POWER_D3)
		function->value[control] = state;
	if (function->ops && function->ops->config)
		function->ops->config(function->ctx, access);
	if (function->ops && function->ops->moved &&
	    (overlaps(access, COMMAND, 2) || overlaps(access, BAR_0, BARS_END - BAR_0) ||
	     (control && overlaps(access, control, 1))))
		function->ops->moved(function->ctx);
}

static void read_config(struct pci_function *function, struct pci_access *access)
{
	if (function->ops && function->ops->config)
		function->ops->config(function->ctx, access);
	access->value = 0;
	for (uint32_t i = 0; i < access->size && access->offset + i < PCI_CONFIG_BYTES; i++)
		access->value |= (uint64_t)function->value[access->offset + i] << (i * 8);
}

void pci_config(struct pci *pci, uint32_t ecam_offset, struct pci_access *access)
{
	uint32_t number = ecam_offset / ECAM_FUNCTION_BYTES;
	struct pci_function *function = &pci->function[number / 8 % PCI_FUNCTIONS];

	access->offset = ecam_offset % ECAM_FUNCTION_BYTES;
	if (number / 8 >= PCI_FUNCTIONS || number % 8 || !function->present) {
		if (!access->write)
			access->value = ones(access->size);
		return;
	}
	if (access->write)
		write_config(function, access);
	else
		read_config(function, access);
}

void pci_config_port(struct pci *pci, struct pci_access *access)
{
	uint32_t bus = pci->address >> 16 & 0xff;
	uint32_t number = pci->address >> 8 & 0xff;

	if (!(pci->address & PORT_ENABLE) || bus) {
		if (!access->write)
			access->value = ones(access->size);
		return;
	}
	pci_config(pci, number * ECAM_FUNCTION_BYTES + (pci->address & 0xfc) + access->offset,
		   access);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool is_awake(const struct pci_function *function)
{
	return !function->power ||
	       (function->value[function->power + POWER_CONTROL] & POWER_STATE) == POWER_D0;
}

bool pci_decodes(const struct pci_function *function)
{
	return (function->value[COMMAND] & COMMAND_MEMORY) && is_awake(function);
}

bool pci_master_given(const struct pci_function *function)
{
	return function->value[COMMAND] & COMMAND_MASTER;
}

bool pci_masters(const struct pci_function *function)
{
	return pci_master_given(function) && is_awake(function);
}

uint64_t pci_bar_gpa(const struct pci_function *function, uint32_t bar)
{
	return get(function->value + BAR_0 + bar * 4, function->bar[bar].wide ? 8 : 4) & ~BAR_FLAGS;
}

static bool bar_access(struct pci_function *function, uint64_t gpa, struct pci_access *access)
{
	for (uint32_t i = 0; i < PCI_BARS; i++) {
		uint64_t bytes = function->bar[i].bytes, offset;

		if (!bytes)
			continue;
		offset = gpa - pci_bar_gpa(function, i);
		if (offset >= bytes || access->size > bytes - offset)
			continue;
		access->offset = (uint32_t)offset;
		if (function->ops && function->ops->bar)
			function->ops->bar(function->ctx, i, access);
		else if (!access->write)
			access->value = ones(access->size);
		return true;
	}
	return false;
}

bool pci_memory(struct pci *pci, uint64_t gpa, struct pci_access *access)
{
	for (uint32_t slot = 0; slot < PCI_FUNCTIONS; slot++) {
		struct pci_function *function = &pci->function[slot];

		if (function->present && pci_decodes(function) && bar_access(function, gpa, access))
			return true;
	}
	return false;
}
