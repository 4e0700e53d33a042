/* SPDX-License-Identifier: Apache-2.0 */
/* INIT and SIPI: one at a time, in order, merged as a local APIC merges them. */
#include "tests/test.h"

#include <errno.h>

#include "core/interrupt_route.h"
#include "core/vcpu_startup.h"

static struct vcpu_startup startup;
static struct vcpu_startup_ipi ipi;

static int set_up(void **state)
{
	(void)state;
	startup = (struct vcpu_startup){ 0 };
	ipi = (struct vcpu_startup_ipi){ 0 };
	return 0;
}

static void assert_ipi(uint8_t mode, uint8_t vector)
{
	assert_int_equal(ipi.mode, mode);
	assert_int_equal(ipi.vector, vector);
}

static void test_one_at_a_time(void **state)
{
	(void)state;
	assert_true(vcpu_startup_post(&startup, INTERRUPT_INIT, 0, &ipi));
	assert_ipi(INTERRUPT_INIT, 0);
	assert_false(vcpu_startup_post(&startup, INTERRUPT_SIPI, 0x9a, &ipi));
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), 1);
	assert_ipi(INTERRUPT_SIPI, 0x9a);
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), 0);
	assert_true(vcpu_startup_post(&startup, INTERRUPT_SIPI, 0x9b, &ipi));
	assert_ipi(INTERRUPT_SIPI, 0x9b);
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), 0);
}

/* The same as what a local APIC has in the end that got them all at once. */
static void test_merged(void **state)
{
	(void)state;
	assert_true(vcpu_startup_post(&startup, INTERRUPT_INIT, 0, &ipi));
	assert_false(vcpu_startup_post(&startup, INTERRUPT_SIPI, 1, &ipi));
	assert_false(vcpu_startup_post(&startup, INTERRUPT_SIPI, 2, &ipi)); /* replaces */
	assert_false(vcpu_startup_post(&startup, INTERRUPT_INIT, 0, &ipi)); /* takes back */
	assert_false(vcpu_startup_post(&startup, INTERRUPT_SIPI, 3, &ipi));
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), 1);
	assert_ipi(INTERRUPT_INIT, 0);
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), 1);
	assert_ipi(INTERRUPT_SIPI, 3);
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), 0);
}

static void test_a_lie(void **state)
{
	(void)state;
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), -EPROTO);
	assert_true(vcpu_startup_post(&startup, INTERRUPT_INIT, 0, &ipi));
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), 0);
	assert_int_equal(vcpu_startup_taken(&startup, &ipi), -EPROTO);
}

static void test_debt_is_paid_once(void **state)
{
	struct vcpu_startup_debt debt = { 0 };

	(void)state;
	assert_false(vcpu_startup_pay(&debt));
	vcpu_startup_owe(&debt);
	assert_true(vcpu_startup_pay(&debt));
	assert_false(vcpu_startup_pay(&debt));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_one_at_a_time, set_up),
		cmocka_unit_test_setup(test_merged, set_up),
		cmocka_unit_test_setup(test_a_lie, set_up),
		cmocka_unit_test(test_debt_is_paid_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
