/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI fixed registers: power-off, the button, the timer's rate and wrap-around. */
#include "tests/test.h"

#include "machine/acpi_pm.h"

static void test_power_off(void **state)
{
	struct acpi_pm pm;

	(void)state;
	acpi_pm_reset(&pm);
	assert_int_equal(acpi_pm_read(&pm, 4), 1); /* SCI_EN */
	assert_false(acpi_pm_write(&pm, 4, 0));
	assert_int_equal(acpi_pm_read(&pm, 4), 1);   /* stays */
	assert_false(acpi_pm_write(&pm, 5, 5 << 2)); /* type alone */
	assert_false(acpi_pm_write(&pm, 5, 0x20 | 3 << 2));
	assert_int_equal(acpi_pm_read(&pm, 5), 3 << 2);
	assert_true(acpi_pm_write(&pm, 5, 0x20 | 5 << 2));
	assert_false(acpi_pm_write(&pm, 6, 0xff));
	assert_int_equal(acpi_pm_read(&pm, 6), 0);
}

static void test_alarm(void **state)
{
	struct acpi_pm pm;

	(void)state;
	acpi_pm_reset(&pm);
	acpi_pm_rtc_alarm(&pm);
	assert_false(acpi_pm_line(&pm));
	acpi_pm_write(&pm, 3, 0x04);
	assert_true(acpi_pm_line(&pm));
	assert_int_equal(acpi_pm_read(&pm, 1), 0x04);
	acpi_pm_write(&pm, 1, 0x02); /* another bit */
	assert_true(acpi_pm_line(&pm));
	acpi_pm_write(&pm, 1, 0x04);
	assert_false(acpi_pm_line(&pm));
}

/* Who does not listen is not told later, either. */
static void test_power_button(void **state)
{
	struct acpi_pm pm;

	(void)state;
	acpi_pm_reset(&pm);
	assert_false(acpi_pm_press_power_button(&pm));
	acpi_pm_write(&pm, 3, 0x01);
	assert_false(acpi_pm_line(&pm));
	assert_true(acpi_pm_press_power_button(&pm));
	assert_true(acpi_pm_line(&pm));
	assert_int_equal(acpi_pm_read(&pm, 1), 0x01);
	acpi_pm_write(&pm, 1, 0x01);
	assert_false(acpi_pm_line(&pm));
	assert_true(acpi_pm_press_power_button(&pm));
	assert_true(acpi_pm_line(&pm));
}

static void test_timer(void **state)
{
	uint32_t before = 0;

	(void)state;
	assert_int_equal(acpi_pm_timer(0), 0);
	assert_int_equal(acpi_pm_timer(1000000000), 3579545);
	/* 32 bits wrap after 1199.86 s */
	assert_int_equal(acpi_pm_timer(1199864031602ull), (uint32_t)4294967295u);
	assert_int_equal(acpi_pm_timer(1199864032440ull), 2);
	for (uint64_t now = 0; now < 1000000000; now += 12345) {
		assert_true(acpi_pm_timer(now) >= before);
		before = acpi_pm_timer(now);
	}
	acpi_pm_timer(UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_off),
		cmocka_unit_test(test_alarm),
		cmocka_unit_test(test_power_button),
		cmocka_unit_test(test_timer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
