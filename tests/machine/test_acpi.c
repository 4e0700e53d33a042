/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables: found the way a guest finds them, checksums, the MADT for every kind of size, the
 * AML by iasl where that is installed (Debian: acpica-tools).
 */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/limits.h"
#include "machine/acpi.h"
#include "machine/acpi_pm.h"
#include "machine/aml.h"
#include "machine/memory_map.h"
#include "machine/numa.h"

static uint8_t bytes[ACPI_BYTES_MAX];
static size_t used;

static uint64_t get(const uint8_t *at, size_t count)
{
	uint64_t value = 0;

	for (size_t i = 0; i < count; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

static uint8_t sum(const uint8_t *at, size_t count)
{
	uint8_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += at[i];
	return total;
}

static const uint8_t *at_gpa(uint64_t gpa, size_t count)
{
	assert_true(gpa >= ACPI_GPA && gpa - ACPI_GPA + count <= used);
	return bytes + (gpa - ACPI_GPA);
}

static struct numa_view numa;

static void build_with(uint32_t vcpu_count, const struct numa_view *view)
{
	struct acpi_config config = { .vcpu_count = vcpu_count,
				      .numa = view,
				      .high_window = { 0x4000000000, 0x1000000000 },
				      .gpa = ACPI_GPA };

	memset(bytes, 0xcc, sizeof(bytes));
	assert_int_equal(acpi_build(&config, bytes, sizeof(bytes), &used), 0);
	assert_true(used <= sizeof(bytes));
	for (size_t i = used; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], 0xcc);
}

static void build(uint32_t vcpu_count)
{
	build_with(vcpu_count, NULL);
}

/* A table by signature, through RSDP, XSDT and FADT. */
static const uint8_t *find(const char *signature)
{
	const uint8_t *rsdp = bytes, *xsdt, *found = NULL;

	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	xsdt = at_gpa(get(rsdp + 24, 8), 36);
	assert_memory_equal(xsdt, "XSDT", 4);
	assert_int_equal(sum(xsdt, get(xsdt + 4, 4)), 0);
	for (size_t at = 36; at < get(xsdt + 4, 4); at += 8) {
		const uint8_t *table = at_gpa(get(xsdt + at, 8), 36);

		at_gpa(get(xsdt + at, 8), get(table + 4, 4));
		assert_int_equal(sum(table, get(table + 4, 4)), 0);
		if (memcmp(table, signature, 4) == 0)
			found = table;
	}
	return found;
}

static void test_fadt(void **state)
{
	const uint8_t *fadt, *dsdt, *facs;

	(void)state;
	build(1);
	fadt = find("FACP");
	assert_non_null(fadt);
	assert_int_equal(get(fadt + 4, 4), 276);
	facs = at_gpa(get(fadt + 36, 4), 64);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(get(fadt + 36, 4) % 64, 0);
	assert_int_equal(get(fadt + 40, 4), get(fadt + 140, 8));
	dsdt = at_gpa(get(fadt + 140, 8), 36);
	assert_memory_equal(dsdt, "DSDT", 4);
	assert_int_equal(sum(dsdt, get(dsdt + 4, 4)), 0);
	/* the old fields and the generic addresses agree */
	assert_int_equal(get(fadt + 56, 4), ACPI_PM_EVENT);
	assert_int_equal(get(fadt + 152, 8), ACPI_PM_EVENT);
	assert_int_equal(get(fadt + 64, 4), ACPI_PM_CONTROL);
	assert_int_equal(get(fadt + 176, 8), ACPI_PM_CONTROL);
	assert_int_equal(get(fadt + 76, 4), ACPI_PM_TIMER);
	assert_int_equal(get(fadt + 212, 8), ACPI_PM_TIMER);
	assert_int_equal(get(fadt + 120, 8), 0xcf9);
	assert_int_equal(get(fadt + 109, 2) & 2, 0); /* no 8042 */
}

/* Every vCPU once, by the entry that its id wants. */
static void check_madt(uint32_t vcpu_count)
{
	const uint8_t *madt;
	uint32_t next = 0, io_apics = 0, overrides = 0;
	size_t at = 44;

	build(vcpu_count);
	madt = find("APIC");
	assert_non_null(madt);
	while (at < get(madt + 4, 4)) {
		const uint8_t *entry = madt + at;

		assert_true(entry[1] >= 2);
		switch (entry[0]) {
		case 0:
			assert_true(next < 255);
			assert_int_equal(entry[2], next);
			assert_int_equal(entry[3], next++);
			assert_int_equal(get(entry + 4, 4), 1);
			break;
		case 9:
			assert_true(next >= 255);
			assert_int_equal(get(entry + 4, 4), next);
			assert_int_equal(get(entry + 12, 4), next++);
			assert_int_equal(get(entry + 8, 4), 1);
			break;
		case 1:
			assert_int_equal(get(entry + 4, 4), IOAPIC_GPA);
			io_apics++;
			break;
		case 2:
			overrides++;
			break;
		default:
			fail();
		}
		at += entry[1];
	}
	assert_int_equal(at, get(madt + 4, 4));
	assert_int_equal(next, vcpu_count);
	assert_int_equal(io_apics, 1);
	assert_int_equal(overrides, 2);
}

static void test_madt(void **state)
{
	static const uint32_t counts[] = { 1, 2, 64, 254, 255, 256, 257, VCPUS_MAX };

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		check_madt(counts[i]);
}

/* Nodes of equal parts, vCPUs in turn. */
static void view_of(uint32_t nodes, uint32_t vcpus, uint64_t memory)
{
	static uint64_t weight[NODES_MAX];
	struct memory_map map;

	for (uint32_t i = 0; i < nodes; i++)
		weight[i] = 1;
	assert_int_equal(memory_map_build(memory, &map), 0);
	assert_int_equal(numa_view_build(&map, weight, nodes, &numa), 0);
	numa.vcpu_count = vcpus;
	for (uint32_t v = 0; v < vcpus; v++)
		numa.vcpu_node[v] = (uint16_t)(v % nodes);
}

static void check_slit(uint32_t nodes)
{
	const uint8_t *slit = find("SLIT");

	assert_non_null(slit);
	assert_int_equal(get(slit + 4, 4), 44 + nodes * nodes);
	assert_int_equal(get(slit + 36, 8), nodes);
	for (uint32_t i = 0; i < nodes; i++)
		for (uint32_t j = 0; j < nodes; j++)
			assert_int_equal(slit[44 + i * nodes + j], i == j ? 10 : 20);
}

/* Every vCPU once, by the entry that its id wants, and every part of memory. */
static void check_numa(uint32_t nodes, uint32_t vcpus, uint64_t memory)
{
	const uint8_t *srat;
	uint32_t vcpu = 0, range = 0;
	size_t at = 48;

	view_of(nodes, vcpus, memory);
	build_with(vcpus, &numa);
	srat = find("SRAT");
	assert_non_null(srat);
	assert_int_equal(get(srat + 36, 4), 1);
	for (; at < get(srat + 4, 4); at += srat[at + 1]) {
		const uint8_t *entry = srat + at;

		if (entry[0] == 1) {
			assert_int_equal(entry[1], 40);
			assert_int_equal(get(entry + 2, 4), numa.range[range].node);
			assert_true(get(entry + 8, 8) == numa.range[range].gpa);
			assert_true(get(entry + 16, 8) == numa.range[range++].bytes);
			assert_int_equal(get(entry + 28, 4), 1);
		} else if (entry[0] == 0) {
			assert_int_equal(entry[1], 16);
			assert_true(vcpu < 255);
			assert_int_equal(entry[3], vcpu);
			assert_int_equal(entry[2] | get(entry + 9, 3) << 8, vcpu++ % nodes);
			assert_int_equal(get(entry + 4, 4), 1);
		} else {
			assert_int_equal(entry[0], 2);
			assert_int_equal(entry[1], 24);
			assert_true(vcpu >= 255);
			assert_int_equal(get(entry + 8, 4), vcpu);
			assert_int_equal(get(entry + 4, 4), vcpu++ % nodes);
			assert_int_equal(get(entry + 12, 4), 1);
		}
	}
	assert_int_equal(at, get(srat + 4, 4));
	assert_int_equal(vcpu, vcpus);
	assert_int_equal(range, numa.range_count);
	check_slit(nodes);
}

static void test_numa(void **state)
{
	check_numa(1, 1, GUEST_MEMORY_MIN);
	check_numa(3, 3, 768ull << 20);
	check_numa(3, 4, 5ull << 30);
	check_numa(NODES_MAX, VCPUS_MAX, 1ull << 40);
	build(4);
	assert_null(find("SRAT"));
	assert_null(find("SLIT"));
}

static void test_mcfg(void **state)
{
	const uint8_t *mcfg;

	(void)state;
	build(1);
	mcfg = find("MCFG");
	assert_non_null(mcfg);
	assert_int_equal(get(mcfg + 4, 4), 60);
	assert_int_equal(get(mcfg + 36, 8), 0);
	assert_int_equal(get(mcfg + 44, 8), PCI_ECAM_GPA);
	assert_int_equal(get(mcfg + 52, 8), 0); /* segment 0, buses 0 to 0 */
}

static void test_refused(void **state)
{
	struct acpi_config config = { .vcpu_count = 0, .gpa = ACPI_GPA };

	(void)state;
	assert_int_equal(acpi_build(&config, bytes, sizeof(bytes), &used), -EINVAL);
	config.vcpu_count = VCPUS_MAX + 1;
	assert_int_equal(acpi_build(&config, bytes, sizeof(bytes), &used), -EINVAL);
	config.vcpu_count = 4;
	config.gpa = ACPI_GPA + 1;
	assert_int_equal(acpi_build(&config, bytes, sizeof(bytes), &used), -EINVAL);
	config.gpa = 1ull << 32;
	assert_int_equal(acpi_build(&config, bytes, sizeof(bytes), &used), -EINVAL);
	/* every size that is too small says so, and writes nothing behind its end */
	view_of(3, 4, 768ull << 20);
	build_with(4, &numa);
	config.numa = &numa;
	config.high_window = (struct memory_range){ 0x4000000000, 0x1000000000 };
	config.gpa = ACPI_GPA;
	for (size_t size = 0; size < used; size++) {
		size_t unused = 7;

		memset(bytes, 0xcc, sizeof(bytes));
		assert_int_equal(acpi_build(&config, bytes, size, &unused), -ENOSPC);
		assert_int_equal(unused, 7);
		for (size_t i = size; i < size + 64; i++)
			assert_int_equal(bytes[i], 0xcc);
	}
}

static void test_aml(void **state)
{
	static const uint8_t expected[] = {
		0x08, 'A',  'A',  'A',	'A',  0x01,		/* Name (AAAA, 1) */
		0x08, 'B',  'B',  'B',	'B',  0x0b, 0x34, 0x12, /* Name (BBBB, 0x1234) */
		0x08, '_',  'H',  'I',	'D',  0x0c, 0x41, 0xd0, 0x05, 0x01, /* EisaId ("PNP0501") */
		0x10, 0xcb, 0x00, 0x00, 0x00, '_',  'S',  'B',	'_',  0x0e,
		1,    0, /* Scope (_SB_) {... */
	};
	uint8_t out[64];
	struct aml aml = { .bytes = out, .size = sizeof(out) };
	size_t scope;

	(void)state;
	aml_name_integer(&aml, "AAAA", 1);
	aml_name_integer(&aml, "BBBB", 0x1234);
	aml_name_eisa_id(&aml, "_HID", "PNP0501");
	scope = aml_begin_scope(&aml, "_SB_");
	out[aml.used++] = 0x0e;
	out[aml.used++] = 1;
	out[aml.used++] = 0;
	aml_end(&aml, scope);
	assert_false(aml.overflow);
	assert_int_equal(aml.used, sizeof(expected));
	assert_memory_equal(out, expected, sizeof(expected));
}

static bool has_iasl(void)
{
	return system("iasl -v >/dev/null 2>&1") == 0;
}

/* What iasl has to find in the DSDT. */
static const char *const lines[] = {
	"PNP0501",
	"Name (_S5",
	"PNP0A08.*PCI Express Bus",
	"PNP0A03.*PCI Bus",
	"PNP0C02",
	"Method (_OSC, 4, Serialized)",
	"ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")",
	"WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,",
	"DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,",
	"0x3EB00000, *// Length",
	"QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Prefetchable, ReadWrite,",
	"0x0000004FFFFFFFFF, *// Range Maximum",
	"0x0000001000000000, *// Length",
	"Memory32Fixed (ReadWrite,",
	"0xFEB00000, *// Address Base",
};

static void write_table(const char *folder, const char *name, const uint8_t *table)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s.aml", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(table, 1, get(table + 4, 4), file), get(table + 4, 4));
	fclose(file);
}

static void run_in(const char *folder, const char *what)
{
	char command[512];

	snprintf(command, sizeof(command), "cd %s && { %s; } >log 2>&1 || { cat log; exit 1; }",
		 folder, what);
	assert_int_equal(system(command), 0);
}

/* iasl disassembles the tables, and takes its own result back. */
static void test_iasl(void **state)
{
	char folder[] = "/tmp/eagre-acpi.XXXXXX", command[384];

	(void)state;
	if (!has_iasl())
		skip();
	build(4);
	assert_non_null(mkdtemp(folder));
	write_table(folder, "dsdt", at_gpa(get(find("FACP") + 140, 8), 36));
	write_table(folder, "mcfg", find("MCFG"));
	run_in(folder, "iasl -d dsdt.aml && ! grep -qi error dsdt.dsl && "
		       "iasl -we -p again dsdt.dsl");
	run_in(folder, "iasl -d mcfg.aml && ! grep -qi error mcfg.dsl && "
		       "iasl -we -p again mcfg.dsl");
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		snprintf(command, sizeof(command),
			 "grep -q '%s' dsdt.dsl || { cat dsdt.dsl; false; }", lines[i]);
		run_in(folder, command);
	}
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fadt), cmocka_unit_test(test_madt),
		cmocka_unit_test(test_numa), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_mcfg), cmocka_unit_test(test_aml),
		cmocka_unit_test(test_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
