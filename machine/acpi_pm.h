/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware: PM1 event and control registers, the PM timer (ACPI 6.4, 4.8.3). Pure.
 *
 * ACPI mode is always on (there is no SMM to switch it). The timer has no state but the pod clock,
 * so that every node can answer for it; its overflow makes no interrupt.
 */
#ifndef MACHINE_ACPI_PM_H
#define MACHINE_ACPI_PM_H

#include <stdbool.h>
#include <stdint.h>

#define ACPI_PM_PORT	   0x600u
#define ACPI_PM_EVENT	   0x600u /* status, 2 bytes; enable, 2 bytes */
#define ACPI_PM_CONTROL	   0x604u /* 2 bytes */
#define ACPI_PM_TIMER	   0x608u /* 4 bytes */
#define ACPI_PM_TIMER_HZ   3579545u
#define ACPI_SCI_PIN	   9u
#define ACPI_S5_SLEEP_TYPE 5u

struct acpi_pm {
	uint8_t status[2], enable[2], control[2];
};

void acpi_pm_reset(struct acpi_pm *pm);
/* reg: port - ACPI_PM_PORT, below ACPI_PM_TIMER - ACPI_PM_PORT */
uint8_t acpi_pm_read(const struct acpi_pm *pm, uint32_t reg);
/* True: the guest enters S5, power off. */
bool acpi_pm_write(struct acpi_pm *pm, uint32_t reg, uint8_t value);
/* The clock's alarm: it wakes a guest that sleeps (ACPI 6.4, 4.8.2.4). */
void acpi_pm_rtc_alarm(struct acpi_pm *pm);
/* Somebody presses the power button. False: the guest does not want to know, and it is not pressed. */
bool acpi_pm_press_power_button(struct acpi_pm *pm);
/* The SCI: level-triggered, active high. */
bool acpi_pm_line(const struct acpi_pm *pm);

/* 32 bits wide. */
uint32_t acpi_pm_timer(uint64_t now_ns);

#endif
