/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables (contract: acpi.h; ACPI 6.4, chapter 5).
 *
 *   RSDP | FACS | DSDT | FADT | MADT | MCFG | SRAT | SLIT | XSDT
 *
 * Each table but RSDP and FACS begins with a header of 36 bytes, whose length and checksum are
 * filled in when the table is complete. Fields are put by their offset in the specification's
 * tables, so that they can be checked against it line by line.
 *
 * Full (not hardware-reduced) ACPI, because guests then find the PM timer and the power button
 * where they look. No 8042 (IAPC_BOOT_ARCH), no VGA, no HPET. Processors are in the MADT only.
 *
 * PCI's root bridge has bus 0 and two windows; its devices have MSI-X, so there is no _PRT. The
 * configuration space is a motherboard's resource besides, as MCFG demands (PCI Firmware 3.2, 4.1.2).
 *
 * Tested in tests/machine/test_acpi.c, with iasl where that is installed.
 */
#include "machine/acpi.h"

#include <errno.h>
#include <string.h>

#include "core/limits.h"
#include "machine/acpi_pm.h"
#include "machine/aml.h"
#include "machine/memory_map.h"
#include "machine/numa.h"

#define RSDP_BYTES   36u
#define FACS_BYTES   64u
#define HEADER_BYTES 36u
#define FADT_BYTES   276u
#define MADT_BYTES   44u /* before its entries */
#define MCFG_BYTES   60u /* with its entry */
#define SRAT_BYTES   48u /* before its entries */
#define SLIT_BYTES   44u /* before its distances */

#define FADT_REVISION 6u
#define MADT_REVISION 5u
#define MCFG_REVISION 1u
#define DSDT_REVISION 2u
#define XSDT_REVISION 1u
#define SRAT_REVISION 3u
#define SLIT_REVISION 1u

/* Linux takes what is further away than 30 for a reason to give memory back rather than to use the
 * other node's, and not to move tasks there. */
#define DISTANCE_HERE  10u
#define DISTANCE_THERE 20u

/* ids from here on have x2APIC entries; 255 cannot be named by the old ones (ACPI 6.4, 5.2.12.12).
 */
#define OLD_APIC_IDS 255u

#define FLAGS_BUS_DEFAULT	0x0u
#define FLAGS_ACTIVE_HIGH_LEVEL 0xdu

/* FADT flags (ACPI 6.4, table 5.10) */
#define FADT_WBINVD	  (1u << 0)
#define FADT_C1		  (1u << 2)
#define FADT_NO_SLEEP_KEY (1u << 5)
#define FADT_TIMER_32	  (1u << 8)
#define FADT_RESET	  (1u << 10)

#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_NO_VGA	    (1u << 2)
#define BOOT_NO_ASPM	    (1u << 4) /* no links, nothing to save */

#define PROFILE_SERVER 4u
#define RESET_PORT     0xcf9u
#define RESET_COLD     0x0eu
#define RTC_CENTURY    0x32u

struct builder {
	uint8_t *bytes;
	size_t size, used;
	uint64_t gpa;
	bool overflow;
};

static void put_at(uint8_t *table, size_t offset, uint64_t value, size_t count)
{
	for (size_t i = 0; i < count; i++)
		table[offset + i] = (uint8_t)(value >> (i * 8));
}

static uint8_t checksum(const uint8_t *bytes, size_t count)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += bytes[i];
	return (uint8_t)-sum;
}

/* Zeroed room at the next multiple of `align`; NULL: overflow. */
static uint8_t *reserve(struct builder *builder, size_t count, size_t align)
{
	size_t at = (builder->used + align - 1) & ~(align - 1);

	if (at > builder->size || count > builder->size - at) {
		builder->overflow = true;
		return NULL;
	}
	builder->used = at + count;
	return memset(builder->bytes + at, 0, count);
}

static uint64_t gpa_of(const struct builder *builder, const uint8_t *table)
{
	return builder->gpa + (uint64_t)(table - builder->bytes);
}

static uint8_t *begin_table(struct builder *builder, size_t count, const char *signature,
			    uint8_t revision)
{
	uint8_t *table = reserve(builder, count, 16);

	if (!table)
		return NULL;
	memcpy(table, signature, 4);
	table[8] = revision;
	memcpy(table + 10, "EAGRE ", 6);
	memcpy(table + 16, "EAGREPOD", 8);
	put_at(table, 24, 1, 4);
	memcpy(table + 28, "EAGR", 4);
	put_at(table, 32, 1, 4);
	return table;
}

/* The table reaches to what has been used so far. */
static void end_table(struct builder *builder, uint8_t *table)
{
	size_t count = (size_t)(builder->bytes + builder->used - table);

	if (builder->overflow)
		return;
	put_at(table, 4, count, 4);
	table[9] = checksum(table, count);
}

/* Generic address structure: system I/O, `bits` wide. */
static void put_port(uint8_t *table, size_t offset, uint16_t port, uint8_t bits)
{
	table[offset] = 1;
	table[offset + 1] = bits;
	table[offset + 3] = bits == 8 ? 1 : bits == 16 ? 2 : 3; /* access size */
	put_at(table, offset + 4, port, 8);
}

static void build_facs(uint8_t *facs)
{
	memcpy(facs, "FACS", 4);
	put_at(facs, 4, FACS_BYTES, 4);
	facs[32] = 2; /* version */
}

static void add_serial(struct aml *aml, const char *name, uint8_t uid, uint16_t port, uint8_t irq)
{
	size_t device = aml_begin_device(aml, name);
	struct aml_resources resources;

	aml_name_eisa_id(aml, "_HID", "PNP0501");
	aml_name_integer(aml, "_UID", uid);
	resources = aml_begin_resources(aml);
	aml_io_ports(aml, port, 8);
	aml_irq(aml, irq);
	aml_end_resources(aml, &resources);
	aml_end(aml, device);
}

static void add_rtc(struct aml *aml)
{
	size_t device = aml_begin_device(aml, "RTC_");
	struct aml_resources resources;

	aml_name_eisa_id(aml, "_HID", "PNP0B00");
	resources = aml_begin_resources(aml);
	aml_io_ports(aml, 0x70, 2);
	aml_irq(aml, 8);
	aml_end_resources(aml, &resources);
	aml_end(aml, device);
}

static void add_pci(struct aml *aml, const struct memory_range *high_window)
{
	size_t device = aml_begin_device(aml, "PCI0");
	struct aml_resources resources;

	aml_name_eisa_id(aml, "_HID", "PNP0A08");
	aml_name_eisa_id(aml, "_CID", "PNP0A03");
	aml_name_integer(aml, "_UID", 0);
	aml_name_integer(aml, "_SEG", 0);
	aml_name_integer(aml, "_BBN", 0);
	resources = aml_begin_resources(aml);
	aml_bus_window(aml, 0, 1);
	aml_io_ports(aml, 0xcf8, 8);
	aml_low_window(aml, (uint32_t)PCI_MMIO_BASE, (uint32_t)(PCI_ECAM_GPA - PCI_MMIO_BASE));
	if (high_window->bytes)
		aml_high_window(aml, high_window);
	aml_end_resources(aml, &resources);
	aml_pci_osc(aml);
	aml_end(aml, device);

	device = aml_begin_device(aml, "ECAM");
	aml_name_eisa_id(aml, "_HID", "PNP0C02");
	aml_name_integer(aml, "_UID", 1);
	resources = aml_begin_resources(aml);
	aml_memory(aml, (uint32_t)PCI_ECAM_GPA, (uint32_t)PCI_ECAM_BYTES);
	aml_end_resources(aml, &resources);
	aml_end(aml, device);
}

static uint8_t *build_dsdt(struct builder *builder, const struct memory_range *high_window)
{
	static const uint8_t s5[4] = { ACPI_S5_SLEEP_TYPE, ACPI_S5_SLEEP_TYPE, 0, 0 };
	uint8_t *table = begin_table(builder, HEADER_BYTES, "DSDT", DSDT_REVISION);
	struct aml aml;
	size_t scope;

	if (!table)
		return NULL;
	aml = (struct aml){ builder->bytes, builder->size, builder->used, false };
	aml_name_package(&aml, "_S5_", s5, sizeof(s5));
	scope = aml_begin_scope(&aml, "_SB_");
	add_serial(&aml, "COM1", 1, 0x3f8, 4);
	add_serial(&aml, "COM2", 2, 0x2f8, 3);
	add_rtc(&aml);
	add_pci(&aml, high_window);
	aml_end(&aml, scope);
	builder->used = aml.used;
	builder->overflow |= aml.overflow;
	end_table(builder, table);
	return table;
}

static uint8_t *build_fadt(struct builder *builder, uint64_t facs_gpa, uint64_t dsdt_gpa)
{
	uint8_t *table = begin_table(builder, FADT_BYTES, "FACP", FADT_REVISION);

	if (!table)
		return NULL;
	put_at(table, 36, facs_gpa, 4);
	put_at(table, 40, dsdt_gpa, 4);
	table[45] = PROFILE_SERVER;
	put_at(table, 46, ACPI_SCI_PIN, 2);
	put_at(table, 56, ACPI_PM_EVENT, 4);
	put_at(table, 64, ACPI_PM_CONTROL, 4);
	put_at(table, 76, ACPI_PM_TIMER, 4);
	table[88] = 4;		      /* PM1_EVT_LEN */
	table[89] = 2;		      /* PM1_CNT_LEN */
	table[91] = 4;		      /* PM_TMR_LEN */
	put_at(table, 96, 0xffff, 2); /* no C2 */
	put_at(table, 98, 0xffff, 2); /* no C3 */
	table[106] = 0;		      /* the RTC alarm has no day of month */
	table[108] = RTC_CENTURY;
	put_at(table, 109, BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM, 2);
	put_at(table, 112, FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_KEY | FADT_TIMER_32 | FADT_RESET,
	       4);
	put_port(table, 116, RESET_PORT, 8);
	table[128] = RESET_COLD;
	table[131] = 4; /* minor version: ACPI 6.4 */
	put_at(table, 140, dsdt_gpa, 8);
	put_port(table, 148, ACPI_PM_EVENT, 32);
	put_port(table, 172, ACPI_PM_CONTROL, 16);
	put_port(table, 208, ACPI_PM_TIMER, 32);
	memcpy(table + 268, "Eagre", 5);
	end_table(builder, table);
	return table;
}

static uint8_t *add_entry(struct builder *builder, uint8_t type, uint8_t count)
{
	uint8_t *entry = reserve(builder, count, 1);

	if (entry) {
		entry[0] = type;
		entry[1] = count;
	}
	return entry;
}

static void add_processor(struct builder *builder, uint32_t number)
{
	bool old = number < OLD_APIC_IDS;
	uint8_t *entry = old ? add_entry(builder, 0, 8) : add_entry(builder, 9, 16);

	if (!entry)
		return;
	if (old) {
		entry[2] = entry[3] = (uint8_t)number;
		put_at(entry, 4, 1, 4); /* enabled */
	} else {
		put_at(entry, 4, number, 4);
		put_at(entry, 8, 1, 4);
		put_at(entry, 12, number, 4);
	}
}

static void add_override(struct builder *builder, uint8_t irq, uint32_t pin, uint16_t flags)
{
	uint8_t *entry = add_entry(builder, 2, 10);

	if (!entry)
		return;
	entry[3] = irq;
	put_at(entry, 4, pin, 4);
	put_at(entry, 8, flags, 2);
}

static void add_io_apic(struct builder *builder)
{
	uint8_t *entry = add_entry(builder, 1, 12);

	if (entry)
		put_at(entry, 4, IOAPIC_GPA, 4);
}

static uint8_t *build_madt(struct builder *builder, uint32_t vcpu_count)
{
	uint8_t *table = begin_table(builder, MADT_BYTES, "APIC", MADT_REVISION);

	if (!table)
		return NULL;
	put_at(table, 36, LAPIC_GPA, 4);
	put_at(table, 40, 1, 4); /* PCAT_COMPAT: there is (something like) an 8259 */
	for (uint32_t number = 0; number < vcpu_count; number++)
		add_processor(builder, number);
	add_io_apic(builder);
	add_override(builder, 0, 2, FLAGS_BUS_DEFAULT);
	add_override(builder, ACPI_SCI_PIN, ACPI_SCI_PIN, FLAGS_ACTIVE_HIGH_LEVEL);
	end_table(builder, table);
	return table;
}

static uint8_t *build_mcfg(struct builder *builder)
{
	uint8_t *table = begin_table(builder, MCFG_BYTES, "MCFG", MCFG_REVISION);

	if (!table)
		return NULL;
	/* 44: segment 0, buses 0 to 0 */
	put_at(table, 44, PCI_ECAM_GPA, 8);
	end_table(builder, table);
	return table;
}

static void add_processor_affinity(struct builder *builder, uint32_t number, uint32_t node)
{
	bool old = number < OLD_APIC_IDS;
	uint8_t *entry = old ? add_entry(builder, 0, 16) : add_entry(builder, 2, 24);

	if (!entry)
		return;
	if (old) {
		entry[2] = (uint8_t)node;
		entry[3] = (uint8_t)number;
		put_at(entry, 4, 1, 4); /* enabled */
		put_at(entry, 9, node >> 8, 3);
	} else {
		put_at(entry, 4, node, 4);
		put_at(entry, 8, number, 4);
		put_at(entry, 12, 1, 4);
	}
}

static void add_memory_affinity(struct builder *builder, const struct numa_range *range)
{
	uint8_t *entry = add_entry(builder, 1, 40);

	if (!entry)
		return;
	put_at(entry, 2, range->node, 4);
	put_at(entry, 8, range->gpa, 8);
	put_at(entry, 16, range->bytes, 8);
	put_at(entry, 28, 1, 4); /* enabled */
}

static uint8_t *build_srat(struct builder *builder, const struct numa_view *numa)
{
	uint8_t *table = begin_table(builder, SRAT_BYTES, "SRAT", SRAT_REVISION);

	if (!table)
		return NULL;
	put_at(table, 36, 1, 4); /* reserved, 1 */
	for (uint32_t number = 0; number < numa->vcpu_count; number++)
		add_processor_affinity(builder, number, numa->vcpu_node[number]);
	for (uint32_t i = 0; i < numa->range_count; i++)
		add_memory_affinity(builder, &numa->range[i]);
	end_table(builder, table);
	return table;
}

static uint8_t *build_slit(struct builder *builder, uint32_t nodes)
{
	uint8_t *table = begin_table(builder, SLIT_BYTES, "SLIT", SLIT_REVISION);
	uint8_t *distances = reserve(builder, (size_t)nodes * nodes, 1);

	if (!table || !distances)
		return NULL;
	put_at(table, 36, nodes, 8);
	memset(distances, DISTANCE_THERE, (size_t)nodes * nodes);
	for (size_t i = 0; i < nodes; i++)
		distances[i * nodes + i] = DISTANCE_HERE;
	end_table(builder, table);
	return table;
}

/* All tables but the DSDT, which the FADT names. */
static uint8_t *build_xsdt(struct builder *builder, uint8_t *const *table, uint32_t count)
{
	uint8_t *xsdt = begin_table(builder, HEADER_BYTES + count * 8, "XSDT", XSDT_REVISION);

	if (!xsdt)
		return NULL;
	for (uint32_t i = 0; i < count; i++)
		put_at(xsdt, HEADER_BYTES + i * 8, gpa_of(builder, table[i]), 8);
	end_table(builder, xsdt);
	return xsdt;
}

static void build_rsdp(uint8_t *rsdp, uint64_t xsdt_gpa)
{
	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "EAGRE ", 6);
	rsdp[15] = 2; /* revision */
	put_at(rsdp, 20, RSDP_BYTES, 4);
	put_at(rsdp, 24, xsdt_gpa, 8);
	rsdp[8] = checksum(rsdp, 20);
	rsdp[32] = checksum(rsdp, RSDP_BYTES);
}

int acpi_build(const struct acpi_config *config, void *ret_bytes, size_t size, size_t *ret_used)
{
	struct builder builder = { .bytes = ret_bytes, .size = size, .gpa = config->gpa };
	uint8_t *rsdp, *facs, *dsdt, *table[5], *xsdt;
	uint32_t count = 0;

	if (config->vcpu_count == 0 || config->vcpu_count > VCPUS_MAX || config->gpa % 64 ||
	    config->gpa + size > UINT32_MAX)
		return -EINVAL;
	rsdp = reserve(&builder, RSDP_BYTES, 16);
	facs = reserve(&builder, FACS_BYTES, 64);
	dsdt = build_dsdt(&builder, &config->high_window);
	if (builder.overflow)
		return -ENOSPC;
	table[count++] = build_fadt(&builder, gpa_of(&builder, facs), gpa_of(&builder, dsdt));
	table[count++] = build_madt(&builder, config->vcpu_count);
	table[count++] = build_mcfg(&builder);
	if (config->numa) {
		table[count++] = build_srat(&builder, config->numa);
		table[count++] = build_slit(&builder, config->numa->node_count);
	}
	if (builder.overflow)
		return -ENOSPC;
	xsdt = build_xsdt(&builder, table, count);
	if (builder.overflow)
		return -ENOSPC;
	build_facs(facs);
	build_rsdp(rsdp, gpa_of(&builder, xsdt));
	*ret_used = builder.used;
	return 0;
}
