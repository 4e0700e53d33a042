/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI: what a guest finds by ECAM and by ports, sizing and moving base addresses, capabilities as a
 * list, power states; and a guest that writes anything anywhere.
 */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/memory_map.h"
#include "machine/pci.h"
#include "tests/rng.h"

#define HIGH_GPA   0x4000000000ull
#define HIGH_BYTES 0x1000000000ull

static const struct pci_identity identity = { .vendor = 0x1234,
					      .device = 0x5678,
					      .subsystem_vendor = 0x9abc,
					      .subsystem = 0xdef0,
					      .revision = 3,
					      .class_code = 0x020100 };
static const struct pci_bar bars[PCI_BARS] = {
	[0] = { .bytes = 0x4000, .wide = true, .prefetchable = true },
	[2] = { .bytes = 0x1000 },
};
static struct pci pci;
static struct pci_function *function;
static struct {
	uint32_t moved, configs, bars, bar, offset;
	uint64_t value;
} seen;

static void on_config(void *ctx, const struct pci_access *access)
{
	assert_ptr_equal(ctx, &seen);
	assert_true(access->size >= 1 && access->size <= 8);
	seen.configs++;
}

static void on_bar(void *ctx, uint32_t bar, struct pci_access *access)
{
	assert_ptr_equal(ctx, &seen);
	assert_true(bar < PCI_BARS && bars[bar].bytes);
	assert_true(access->offset + access->size <= bars[bar].bytes);
	seen.bars++;
	seen.bar = bar;
	seen.offset = access->offset;
	if (access->write)
		seen.value = access->value;
	else
		access->value = seen.value;
}

static void on_moved(void *ctx)
{
	assert_ptr_equal(ctx, &seen);
	seen.moved++;
}

static const struct pci_function_ops ops = { on_config, on_bar, on_moved };

static int set_up(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	pci_reset(&pci, HIGH_GPA, HIGH_BYTES);
	return pci_add(&pci, 3, &identity, bars, &ops, &seen, &function) || pci_express(function);
}

static uint64_t ecam(uint32_t slot, uint32_t reg, uint8_t size)
{
	struct pci_access access = { .size = size };

	pci_config(&pci, slot << 15 | reg, &access);
	return access.value;
}

static void write_ecam(uint32_t slot, uint32_t reg, uint8_t size, uint64_t value)
{
	struct pci_access access = { .size = size, .write = true, .value = value };

	pci_config(&pci, slot << 15 | reg, &access);
}

static uint64_t port(uint32_t address, uint32_t byte, uint8_t size)
{
	struct pci_access access = { .offset = byte, .size = size };

	pci.address = address;
	pci_config_port(&pci, &access);
	return access.value;
}

static bool memory(uint64_t gpa, uint8_t size, bool write, uint64_t *value)
{
	struct pci_access access = { .size = size, .write = write, .value = write ? *value : 0 };
	bool found = pci_memory(&pci, gpa, &access);

	*value = access.value;
	return found;
}

/* The header of type 0 (PCI 3.0, 6.1), by both mechanisms. */
static void test_header(void **state)
{
	(void)state;
	assert_int_equal(ecam(3, 0, 4), 0x56781234);
	assert_int_equal(ecam(3, 8, 4), 0x02010003);
	assert_int_equal(ecam(3, 0xe, 1), 0); /* one function */
	assert_int_equal(ecam(3, 0x2c, 4), 0xdef09abc);
	assert_int_equal(ecam(3, 0x3d, 1), 0); /* no INTx */
	assert_int_equal(ecam(3, 2, 2), 0x5678);
	assert_int_equal(ecam(3, 1, 1), 0x12);
	assert_int_equal(ecam(3, 0, 8), 0x0010000056781234ull);
	assert_int_equal(port(0x80001800, 0, 4), 0x56781234);
	assert_int_equal(port(0x80001800, 2, 2), 0x5678);
	assert_int_equal(port(0x8000182c, 3, 1), 0xde);
	/* nobody: the bridge's other functions, other slots, other buses, not enabled */
	assert_int_equal(ecam(0, 0, 4), 0x00081b36);
	assert_int_equal(ecam(0, 0x1000, 4), 0xffffffff);
	assert_int_equal(ecam(3, 0x7000, 4), 0xffffffff);
	assert_int_equal(ecam(4, 0, 4), 0xffffffff);
	assert_int_equal(ecam(32, 0, 2), 0xffff);
	assert_true(ecam(4, 0, 8) == UINT64_MAX);
	assert_int_equal(port(0x80011800, 0, 4), 0xffffffff);
	assert_int_equal(port(0x00001800, 0, 4), 0xffffffff);
	/* no extended capabilities (PCIe 4.0, 7.6.1) */
	assert_int_equal(ecam(3, 0x100, 4), 0);
	assert_int_equal(ecam(3, 0xffc, 8), 0);
	/* what is read-only stays */
	for (uint32_t at = 0; at < 0x1000; at += 4) {
		if (at != 0x04 && (at < 0x10 || at >= 0x28))
			write_ecam(3, at, 4, 0xffffffff);
	}
	assert_int_equal(ecam(3, 0, 4), 0x56781234);
	assert_int_equal(ecam(3, 8, 4), 0x02010003);
	assert_int_equal(ecam(3, 0x2c, 4), 0xdef09abc);
	assert_int_equal(ecam(3, 0x34, 4), 0x40);
	assert_int_equal(ecam(3, 0x3c, 4), 0xff);
	write_ecam(0, 4, 4, 0xffffffff);
	assert_int_equal(ecam(0, 4, 4), 0);
}

/* 6.2.5.1: all ones are written, and the zeros at the bottom tell the size. */
static void test_bars(void **state)
{
	uint64_t wide = ecam(3, 0x10, 8), low = ecam(3, 0x18, 4), value = 0x77;

	(void)state;
	/* as firmware would assign them, in the windows */
	assert_int_equal(wide & 0xf, 0xc);
	assert_true((wide & ~0xfull) == HIGH_GPA);
	assert_int_equal(low, PCI_MMIO_BASE);
	assert_int_equal(pci_bar_gpa(function, 0), HIGH_GPA);
	write_ecam(3, 0x10, 4, 0xffffffff);
	write_ecam(3, 0x14, 4, 0xffffffff);
	write_ecam(3, 0x18, 4, 0xffffffff);
	write_ecam(3, 0x1c, 4, 0xffffffff);
	assert_true(ecam(3, 0x10, 8) == 0xffffffffffffc00cull);
	assert_int_equal(ecam(3, 0x18, 4), 0xfffff000);
	assert_int_equal(ecam(3, 0x1c, 4), 0);
	assert_int_equal(ecam(3, 0x20, 8), 0);
	write_ecam(3, 0x10, 8, 0x5000000000);
	write_ecam(3, 0x18, 4, 0xd0000000);
	/* memory decode (6.2.2) */
	assert_false(memory(0x5000000000, 4, false, &value));
	assert_true(seen.moved > 0);
	seen.moved = 0;
	write_ecam(3, 4, 2, 0x0002);
	assert_int_equal(seen.moved, 1);
	assert_true(pci_decodes(function) && !pci_masters(function));
	value = 0x1122334455667788;
	assert_true(memory(0x5000003ff8, 8, true, &value));
	assert_int_equal(seen.offset, 0x3ff8);
	assert_int_equal(seen.bar, 0);
	assert_true(memory(0xd0000ffc, 4, false, &value));
	assert_int_equal(seen.bar, 2);
	assert_int_equal(seen.offset, 0xffc);
	/* across an end, and beside */
	assert_false(memory(0x5000003ffc, 8, false, &value));
	assert_false(memory(0x5000004000, 1, false, &value));
	assert_false(memory(0x4ffffffffc, 8, false, &value));
	assert_false(memory(HIGH_GPA, 4, false, &value));
	/* at the very end of all addresses */
	write_ecam(3, 0x10, 8, UINT64_MAX);
	assert_true(memory(UINT64_MAX - 3, 4, false, &value));
	assert_int_equal(seen.offset, 0x3ffc);
	write_ecam(3, 4, 2, 0x0004);
	assert_true(!pci_decodes(function) && pci_masters(function));
	write_ecam(3, 4, 2, 0xffff);
	assert_int_equal(ecam(3, 4, 2), 0x0546);
}

/* Each names the next; power management and PCI Express are there (PCIe 4.0, 7.5.2, 7.5.3). */
static void test_capabilities(void **state)
{
	uint32_t at = (uint32_t)ecam(3, 0x34, 1), count = 0, express = 0, power = 0;

	(void)state;
	assert_int_equal(ecam(3, 6, 2) & 0x10, 0x10);
	for (; at && count < 48; count++, at = (uint32_t)ecam(3, at + 1, 1)) {
		assert_true(at >= 0x40 && at % 4 == 0);
		if (ecam(3, at, 1) == 0x10)
			express = at;
		if (ecam(3, at, 1) == 0x01)
			power = at;
	}
	assert_int_equal(count, 2);
	assert_int_equal(ecam(3, express + 2, 2), 0x0092);
	assert_int_equal(ecam(3, express + 4, 4), 0x8000);
	write_ecam(3, express + 8, 2, 0xffff);
	assert_int_equal(ecam(3, express + 8, 2), 0x700f);
	assert_int_equal(ecam(3, power + 2, 2), 3);
	assert_int_equal(ecam(3, power + 4, 2), 8);
	/* D3hot neither decodes nor masters; it has no D1 and D2 */
	write_ecam(3, 4, 2, 6);
	assert_true(pci_decodes(function) && pci_masters(function));
	seen.moved = 0;
	write_ecam(3, power + 4, 2, 3);
	assert_int_equal(seen.moved, 1);
	assert_false(pci_decodes(function) || pci_masters(function));
	write_ecam(3, power + 4, 2, 2);
	assert_int_equal(ecam(3, power + 4, 2), 8 | 3);
	write_ecam(3, power + 4, 2, 0);
	assert_true(pci_decodes(function) && pci_masters(function));
	write_ecam(3, power + 4, 1, 1);
	assert_int_equal(ecam(3, power + 4, 2), 8);
}

static void test_room(void **state)
{
	static const uint8_t vendor[32] = { 0x09 };
	static const struct pci_bar huge[PCI_BARS] = { { .bytes = HIGH_BYTES, .wide = true } };
	static const struct pci_bar bad[][PCI_BARS] = {
		{ { .bytes = 8 } },
		{ { .bytes = 0x3000 } },
		{ [5] = { .bytes = 0x1000, .wide = true } },
		{ [2] = { .bytes = 0x1000, .wide = true }, [3] = { .bytes = 0x1000 } },
		{ { .bytes = 1ull << 32 } },
	};
	struct pci_function *other;
	int places = 0;

	(void)state;
	assert_int_equal(pci_add(&pci, 3, &identity, bars, &ops, &seen, &other), -EEXIST);
	assert_int_equal(pci_add(&pci, 32, &identity, bars, &ops, &seen, &other), -EINVAL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(pci_add(&pci, 4, &identity, bad[i], &ops, &seen, &other), -EINVAL);
	assert_int_equal(pci_add(&pci, 4, &identity, huge, &ops, &seen, &other), -ENOSPC);
	assert_int_equal(ecam(4, 0, 4), 0xffffffff);
	assert_int_equal(pci_add(&pci, 4, &identity, bars, &ops, &seen, &other), 0);
	assert_int_equal(pci_bar_gpa(other, 0), HIGH_GPA + 0x4000);
	assert_int_equal(pci_bar_gpa(other, 2), PCI_MMIO_BASE + 0x1000);
	while (pci_capability(other, vendor, NULL, sizeof(vendor)) > 0)
		places++;
	assert_int_equal(places, 6);
	assert_int_equal(ecam(4, 0x41, 1), 0x60);
	assert_int_equal(ecam(4, 0xe1, 1), 0);
	/* without a high window all are below 4 GiB */
	pci_reset(&pci, 0, 0);
	assert_int_equal(pci_add(&pci, 1, &identity, bars, &ops, &seen, &other), 0);
	assert_int_equal(pci_bar_gpa(other, 0), PCI_MMIO_BASE);
	assert_int_equal(ecam(1, 0x10, 8), PCI_MMIO_BASE | 0xc);
	assert_int_equal(pci_bar_gpa(other, 2), PCI_MMIO_BASE + 0x4000);
}

static void test_anything(void **state)
{
	struct rng rng = { 1 };

	(void)state;
	for (int i = 0; i < 200000; i++) {
		struct pci_access access = { .size = (uint8_t)(1 + rng_below(&rng, 8)),
					     .write = rng_chance(&rng, 50),
					     .value = rng_next(&rng) };
		uint64_t bar = pci_bar_gpa(function, rng_below(&rng, 2) * 2);

		if (access.size < 8)
			access.value &= (1ull << access.size * 8) - 1;
		if (rng_chance(&rng, 60))
			pci_config(&pci,
				   (rng_chance(&rng, 90) ? 3u : rng_below(&rng, 40)) << 15 |
					   rng_below(&rng, rng_chance(&rng, 90) ? 256 : 4096),
				   &access);
		else
			pci_memory(&pci, bar + rng_below(&rng, 0x5000) - 0x800, &access);
		assert_int_equal(ecam(3, 0, 4), 0x56781234);
		assert_int_equal(pci_bar_gpa(function, 0) % 0x4000, 0);
		assert_int_equal(pci_bar_gpa(function, 2) % 0x1000, 0);
	}
	assert_true(seen.bars > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_header, set_up),
		cmocka_unit_test_setup(test_bars, set_up),
		cmocka_unit_test_setup(test_capabilities, set_up),
		cmocka_unit_test_setup(test_room, set_up),
		cmocka_unit_test_setup(test_anything, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
