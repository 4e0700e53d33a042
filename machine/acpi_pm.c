/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware (contract: acpi_pm.h). Tested in tests/machine/test_acpi_pm.c.
 */
#include "machine/acpi_pm.h"

/* High byte of PM1 status and enable: bits 8 and 10 of the registers. */
#define HIGH_POWER_BUTTON 0x01u
#define HIGH_RTC	  0x04u

/* Low byte of PM1 control. */
#define LOW_SCI_ENABLED 0x01u

/* High byte of PM1 control: SLP_TYP 12:10, SLP_EN 13. */
#define HIGH_SLEEP_ENABLE 0x20u
#define HIGH_SLEEP_TYPE	  0x1cu

enum pm_register { STATUS_LOW, STATUS_HIGH, ENABLE_LOW, ENABLE_HIGH, CONTROL_LOW, CONTROL_HIGH };

void acpi_pm_reset(struct acpi_pm *pm)
{
	*pm = (struct acpi_pm){ .control = { LOW_SCI_ENABLED, 0 } };
}

uint8_t acpi_pm_read(const struct acpi_pm *pm, uint32_t reg)
{
	switch (reg) {
	case STATUS_LOW:
	case STATUS_HIGH:
		return pm->status[reg - STATUS_LOW];
	case ENABLE_LOW:
	case ENABLE_HIGH:
		return pm->enable[reg - ENABLE_LOW];
	case CONTROL_LOW:
	case CONTROL_HIGH:
		return pm->control[reg - CONTROL_LOW];
	default:
		return 0;
	}
}

bool acpi_pm_write(struct acpi_pm *pm, uint32_t reg, uint8_t value)
{
	switch (reg) {
	case STATUS_LOW:
	case STATUS_HIGH: /* write 1 to clear */
		pm->status[reg - STATUS_LOW] &= (uint8_t)~value;
		return false;
	case ENABLE_LOW:
	case ENABLE_HIGH:
		pm->enable[reg - ENABLE_LOW] = value;
		return false;
	case CONTROL_LOW:
		pm->control[0] = value | LOW_SCI_ENABLED;
		return false;
	case CONTROL_HIGH: /* SLP_EN reads as 0 */
		pm->control[1] = value & (uint8_t)~HIGH_SLEEP_ENABLE;
		return (value & HIGH_SLEEP_ENABLE) &&
		       (value & HIGH_SLEEP_TYPE) >> 2 == ACPI_S5_SLEEP_TYPE;
	default:
		return false;
	}
}

void acpi_pm_rtc_alarm(struct acpi_pm *pm)
{
	pm->status[1] |= HIGH_RTC;
}

bool acpi_pm_press_power_button(struct acpi_pm *pm)
{
	if (!(pm->enable[1] & HIGH_POWER_BUTTON))
		return false;
	pm->status[1] |= HIGH_POWER_BUTTON;
	return true;
}

bool acpi_pm_line(const struct acpi_pm *pm)
{
	return pm->status[1] & pm->enable[1] & (HIGH_RTC | HIGH_POWER_BUTTON);
}

uint32_t acpi_pm_timer(uint64_t now_ns)
{
	return (uint32_t)((unsigned __int128)now_ns * ACPI_PM_TIMER_HZ / 1000000000u);
}
