/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt routing: every destination form, and a comparison with a plain model on random
 * messages. */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/interrupt_route.h"

static struct interrupt from(uint32_t source, uint8_t mode, uint8_t shorthand, uint32_t dest)
{
	return (struct interrupt){
		.source = source, .mode = mode, .shorthand = shorthand, .dest = dest, .vector = 0x40
	};
}

static void assert_members(const struct interrupt *interrupt, uint32_t vcpu_count,
			   const uint32_t *members, uint32_t count)
{
	struct vcpu_set set;
	uint32_t vcpu = VCPUS_MAX;

	assert_int_equal(interrupt_route(interrupt, vcpu_count, &set), 0);
	assert_int_equal(vcpu_set_count(&set), count);
	vcpu = vcpu_set_next(&set, 0);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(vcpu, members[i]);
		vcpu = vcpu_set_next(&set, vcpu + 1);
	}
	assert_int_equal(vcpu, VCPUS_MAX);
}

static void test_physical(void **state)
{
	struct interrupt ipi = from(0, INTERRUPT_FIXED, INTERRUPT_TO_DEST, 3);

	(void)state;
	assert_members(&ipi, 4, (uint32_t[]){ 3 }, 1);
	ipi.dest = 4; /* nobody there */
	assert_members(&ipi, 4, NULL, 0);
	ipi.dest = 255;
	assert_members(&ipi, 4, NULL, 0);
	ipi.dest = 511;
	assert_members(&ipi, 512, (uint32_t[]){ 511 }, 1);
	ipi.dest = INTERRUPT_BROADCAST;
	assert_members(&ipi, 3, (uint32_t[]){ 0, 1, 2 }, 3);
}

static void test_logical(void **state)
{
	struct interrupt ipi = from(0, INTERRUPT_FIXED, INTERRUPT_TO_DEST, 0x8003);

	(void)state;
	ipi.logical = 1;
	assert_members(&ipi, 64, (uint32_t[]){ 0, 1, 15 }, 3);
	ipi.dest = 2u << 16 | 0x8003;
	assert_members(&ipi, 64, (uint32_t[]){ 32, 33, 47 }, 3);
	assert_members(&ipi, 34, (uint32_t[]){ 32, 33 }, 2);
	ipi.dest = 0xffff0001u; /* a cluster far outside */
	assert_members(&ipi, 512, NULL, 0);
	ipi.dest = INTERRUPT_BROADCAST;
	assert_members(&ipi, 2, (uint32_t[]){ 0, 1 }, 2);
}

static void test_shorthands(void **state)
{
	struct interrupt ipi = from(1, INTERRUPT_FIXED, INTERRUPT_TO_SELF, 0);

	(void)state;
	assert_members(&ipi, 3, (uint32_t[]){ 1 }, 1);
	ipi.shorthand = INTERRUPT_TO_ALL;
	assert_members(&ipi, 3, (uint32_t[]){ 0, 1, 2 }, 3);
	ipi.shorthand = INTERRUPT_TO_OTHERS;
	assert_members(&ipi, 3, (uint32_t[]){ 0, 2 }, 2);
	ipi.mode = INTERRUPT_INIT;
	assert_members(&ipi, 3, (uint32_t[]){ 0, 2 }, 2);
}

static void test_lowest(void **state)
{
	struct interrupt ipi = from(0, INTERRUPT_LOWEST, INTERRUPT_TO_DEST, 0xf);
	uint32_t seen = 0;

	(void)state;
	ipi.logical = 1;
	for (uint32_t vector = 0x30; vector < 0x40; vector++) {
		struct vcpu_set set, again;

		ipi.vector = (uint8_t)vector;
		assert_int_equal(interrupt_route(&ipi, 8, &set), 0);
		assert_int_equal(vcpu_set_count(&set), 1);
		assert_true(vcpu_set_next(&set, 0) < 4);
		seen |= 1u << vcpu_set_next(&set, 0);
		assert_int_equal(interrupt_route(&ipi, 8, &again), 0);
		assert_memory_equal(&set, &again, sizeof(set));
	}
	assert_int_equal(seen, 0xf); /* they are spread */
	ipi.dest = 0x10000;
	assert_members(&ipi, 8, NULL, 0);
}

static void test_refused(void **state)
{
	struct interrupt good = from(0, INTERRUPT_FIXED, INTERRUPT_TO_DEST, 0), bad;
	struct vcpu_set set, before;

	(void)state;
	memset(&set, 0x5a, sizeof(set));
	before = set;
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		bad = good;                                                                        \
		change;                                                                            \
		assert_int_equal(interrupt_route(&bad, 4, &set), -EINVAL);                         \
		assert_memory_equal(&set, &before, sizeof(set));                                   \
	} while (0)
	REFUSED(bad.source = 4);
	REFUSED(bad.mode = 3);
	REFUSED(bad.mode = 8);
	REFUSED(bad.mode = INTERRUPT_EXTINT);
	REFUSED(bad.shorthand = 4);
	REFUSED(bad.logical = 2);
	REFUSED(bad.level = 2);
	REFUSED(bad.reserved[1] = 1);
	REFUSED((bad.shorthand = INTERRUPT_TO_SELF, bad.mode = INTERRUPT_NMI));
	REFUSED((bad.shorthand = INTERRUPT_TO_ALL, bad.mode = INTERRUPT_INIT));
	REFUSED((bad.source = INTERRUPT_SOURCE_DEVICE, bad.shorthand = INTERRUPT_TO_OTHERS));
	REFUSED((bad.source = INTERRUPT_SOURCE_DEVICE, bad.mode = INTERRUPT_SIPI));
	assert_int_equal(interrupt_route(&good, 0, &set), -EINVAL);
	assert_int_equal(interrupt_route(&good, VCPUS_MAX + 1, &set), -EINVAL);
}

/* SDM vol. 3, 11.12.10.2, said the other way round: does this vCPU accept that destination? */
static bool model_accepts(const struct interrupt *ipi, uint32_t vcpu)
{
	uint32_t ldr = (vcpu >> 4) << 16 | 1u << (vcpu & 15);

	switch (ipi->shorthand) {
	case INTERRUPT_TO_SELF:
		return vcpu == ipi->source;
	case INTERRUPT_TO_ALL:
		return true;
	case INTERRUPT_TO_OTHERS:
		return vcpu != ipi->source;
	default:
		if (ipi->dest == 0xffffffff)
			return true;
		if (!ipi->logical)
			return vcpu == ipi->dest;
		return ipi->dest >> 16 == ldr >> 16 && (ipi->dest & ldr & 0xffff);
	}
}

static void test_model(void **state)
{
	(void)state;
	srand(1);
	for (int round = 0; round < 20000; round++) {
		uint32_t count = (uint32_t)rand() % VCPUS_MAX + 1;
		struct interrupt ipi = from((uint32_t)rand() % count, INTERRUPT_FIXED,
					    (uint8_t)(rand() % 4), (uint32_t)rand() % 600);
		struct vcpu_set set;

		ipi.logical = (uint8_t)(rand() % 2);
		if (ipi.logical)
			ipi.dest = (uint32_t)(rand() % 40) << 16 | (uint32_t)(rand() & 0xffff);
		if (rand() % 50 == 0)
			ipi.dest = INTERRUPT_BROADCAST;
		assert_int_equal(interrupt_route(&ipi, count, &set), 0);
		for (uint32_t vcpu = 0; vcpu < VCPUS_MAX; vcpu++)
			assert_int_equal(vcpu_set_has(&set, vcpu),
					 vcpu < count && model_accepts(&ipi, vcpu));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_physical),   cmocka_unit_test(test_logical),
		cmocka_unit_test(test_shorthands), cmocka_unit_test(test_lowest),
		cmocka_unit_test(test_refused),	   cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
