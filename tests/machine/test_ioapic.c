/* SPDX-License-Identifier: Apache-2.0 */
/* I/O APIC: edges, levels and their EOI, masking, destinations, hostile registers. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "machine/ioapic.h"

#define SELECT 0x00u
#define WINDOW 0x10u
#define EOI    0x40u
#define MASKED 0x10000u
#define LEVEL  0x8000u
#define REMOTE 0x4000u

static struct interrupt last;
static uint32_t sent;

static void on_send(void *ctx, const struct interrupt *interrupt)
{
	struct vcpu_set set;

	(void)ctx;
	last = *interrupt;
	sent++;
	assert_int_equal(interrupt_route(interrupt, 4, &set), 0);
}

static void set_register(struct ioapic *ioapic, uint32_t index, uint32_t value)
{
	ioapic_write(ioapic, SELECT, index);
	ioapic_write(ioapic, WINDOW, value);
}

static uint32_t get_register(struct ioapic *ioapic, uint32_t index)
{
	ioapic_write(ioapic, SELECT, index);
	return ioapic_read(ioapic, WINDOW);
}

static void set_entry(struct ioapic *ioapic, uint32_t pin, uint32_t low, uint32_t high)
{
	set_register(ioapic, 0x10 + pin * 2 + 1, high);
	set_register(ioapic, 0x10 + pin * 2, low);
}

static void fresh(struct ioapic *ioapic)
{
	ioapic_reset(ioapic, on_send, NULL);
	sent = 0;
	memset(&last, 0, sizeof(last));
}

static void test_registers(void **state)
{
	struct ioapic ioapic;

	(void)state;
	fresh(&ioapic);
	assert_int_equal(get_register(&ioapic, 0), 0);
	assert_int_equal(get_register(&ioapic, 1), 0x170020);
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++)
		assert_int_equal(get_register(&ioapic, 0x10 + pin * 2), MASKED);
	set_register(&ioapic, 0, 0xffffffff);
	assert_int_equal(get_register(&ioapic, 0), 0x0f000000);
	set_register(&ioapic, 1, 0);
	assert_int_equal(get_register(&ioapic, 1), 0x170020);
	assert_int_equal(get_register(&ioapic, 0x40), UINT32_MAX);
	assert_int_equal(get_register(&ioapic, 0xff), UINT32_MAX);
	set_register(&ioapic, 0x40, 1);
	assert_int_equal(ioapic_read(&ioapic, 0x20), UINT32_MAX);
	/* read-only and reserved bits */
	set_entry(&ioapic, 3, 0xffffffff, 0xffffffff);
	assert_int_equal(get_register(&ioapic, 0x16), 0x1ffff & ~0x5000u);
	assert_int_equal(get_register(&ioapic, 0x17), 0xfffe0000);
}

static void test_edge(void **state)
{
	struct ioapic ioapic;

	(void)state;
	fresh(&ioapic);
	set_entry(&ioapic, 4, 0x31, 2u << 24);
	ioapic_set_line(&ioapic, 4, true);
	assert_int_equal(sent, 1);
	assert_int_equal(last.vector, 0x31);
	assert_int_equal(last.dest, 2);
	assert_int_equal(last.level, 0);
	assert_int_equal(last.source, INTERRUPT_SOURCE_DEVICE);
	ioapic_set_line(&ioapic, 4, true);
	assert_int_equal(sent, 1);
	ioapic_set_line(&ioapic, 4, false);
	assert_int_equal(sent, 1);
	ioapic_set_line(&ioapic, 4, true);
	assert_int_equal(sent, 2);
	ioapic_eoi(&ioapic, 0x31);
	assert_int_equal(sent, 2);
	ioapic_set_line(&ioapic, 24, true);
	ioapic_set_line(&ioapic, 99, true);
	assert_int_equal(sent, 2);
}

static void test_edge_while_masked(void **state)
{
	struct ioapic ioapic;

	(void)state;
	fresh(&ioapic);
	ioapic_set_line(&ioapic, 4, true);
	ioapic_set_line(&ioapic, 4, false);
	assert_int_equal(sent, 0);
	set_entry(&ioapic, 4, 0x31, 0);
	assert_int_equal(sent, 1);
	set_entry(&ioapic, 4, 0x31, 0);
	assert_int_equal(sent, 1);
}

static void test_level(void **state)
{
	struct ioapic ioapic;

	(void)state;
	fresh(&ioapic);
	set_entry(&ioapic, 9, 0x39 | LEVEL, 0);
	ioapic_set_line(&ioapic, 9, true);
	assert_int_equal(sent, 1);
	assert_int_equal(last.level, 1);
	assert_true(get_register(&ioapic, 0x10 + 18) & REMOTE);
	ioapic_eoi(&ioapic, 0x38); /* another's */
	assert_int_equal(sent, 1);
	ioapic_eoi(&ioapic, 0x39); /* still asserted: again */
	assert_int_equal(sent, 2);
	ioapic_set_line(&ioapic, 9, false);
	ioapic_set_line(&ioapic, 9, true); /* before the EOI: no second message */
	assert_int_equal(sent, 2);
	ioapic_set_line(&ioapic, 9, false);
	ioapic_write(&ioapic, EOI, 0x39);
	assert_int_equal(sent, 2);
	assert_false(get_register(&ioapic, 0x10 + 18) & REMOTE);
	ioapic_set_line(&ioapic, 9, true);
	assert_int_equal(sent, 3);
	/* masked at the EOI: at the unmasking */
	set_entry(&ioapic, 9, 0x39 | LEVEL | MASKED, 0);
	ioapic_eoi(&ioapic, 0x39);
	assert_int_equal(sent, 3);
	set_entry(&ioapic, 9, 0x39 | LEVEL, 0);
	assert_int_equal(sent, 4);
	/* to edge and back: no longer waits for the EOI */
	set_entry(&ioapic, 9, 0x39 | MASKED, 0);
	assert_false(get_register(&ioapic, 0x10 + 18) & REMOTE);
}

static void test_shared_vector(void **state)
{
	struct ioapic ioapic;

	(void)state;
	fresh(&ioapic);
	set_entry(&ioapic, 9, 0x39 | LEVEL, 0);
	set_entry(&ioapic, 10, 0x39 | LEVEL, 0);
	ioapic_set_line(&ioapic, 9, true);
	ioapic_set_line(&ioapic, 10, true);
	assert_int_equal(sent, 2);
	ioapic_eoi(&ioapic, 0x39);
	assert_int_equal(sent, 4);
}

static void test_destinations(void **state)
{
	struct ioapic ioapic;

	(void)state;
	fresh(&ioapic);
	set_entry(&ioapic, 5, 0x40, 0x34u << 24 | 0x12u << 17);
	ioapic_set_line(&ioapic, 5, true);
	assert_int_equal(last.dest, 0x1234);
	set_entry(&ioapic, 6, 0x40 | 1 << 8 | 1 << 11, 0x03u << 24);
	ioapic_set_line(&ioapic, 6, true);
	assert_int_equal(last.logical, 1);
	assert_int_equal(last.mode, INTERRUPT_LOWEST);
	assert_int_equal(last.dest, 3);
	set_entry(&ioapic, 7, 0x40 | 4 << 8 | LEVEL, 0); /* NMI: no level, no remote IRR */
	ioapic_set_line(&ioapic, 7, true);
	assert_int_equal(last.mode, INTERRUPT_NMI);
	assert_int_equal(last.level, 0);
	assert_int_equal(sent, 3);
	set_entry(&ioapic, 8, 0x40 | 2 << 8, 0);
	ioapic_set_line(&ioapic, 8, true);
	set_entry(&ioapic, 11, 0x40 | 3 << 8, 0);
	ioapic_set_line(&ioapic, 11, true);
	set_entry(&ioapic, 12, 0x40 | 6 << 8, 0);
	ioapic_set_line(&ioapic, 12, true);
	assert_int_equal(sent, 3);
}

static void test_fuzz(void **state)
{
	struct ioapic ioapic;

	(void)state;
	fresh(&ioapic);
	srand(3);
	for (int round = 0; round < 200000; round++) {
		ioapic_write(&ioapic, (uint32_t)rand() % 5 * 0x10,
			     (uint32_t)rand() ^ (uint32_t)rand() << 16);
		ioapic_read(&ioapic, (uint32_t)rand() % 0x1000);
		ioapic_set_line(&ioapic, (uint32_t)rand() % 32, rand() & 1);
		ioapic_eoi(&ioapic, (uint8_t)rand());
	}
	assert_true(sent > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_edge),
		cmocka_unit_test(test_edge_while_masked),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_shared_vector),
		cmocka_unit_test(test_destinations),
		cmocka_unit_test(test_fuzz),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
