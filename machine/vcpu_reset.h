/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's state at power-on, after INIT, and at a start-up IPI (SDM vol. 3, table 10-1 and 9.4).
 * Pure.
 */
#ifndef MACHINE_VCPU_RESET_H
#define MACHINE_VCPU_RESET_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vcpu_state.h"

/* Power-on, x2APIC on: vCPU 0 is the BSP and runnable, the others wait for a SIPI. */
void vcpu_state_power_on(struct vcpu_state *state, uint32_t number);
/* INIT: keeps x87/SSE/AVX state, most MSRs, the TSC, the APIC's id and mode; waits for a SIPI. */
void vcpu_state_init(struct vcpu_state *state);
/* SIPI: real mode at vector << 12, runnable. */
void vcpu_state_sipi(struct vcpu_state *state, uint8_t vector);

#endif
