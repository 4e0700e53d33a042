/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which model-specific registers a guest finds, on every engine: those that a move carries
 * (enum vcpu_msr), those that follow from other state, those whose value is the same on all nodes,
 * and the caller's (APIC, TSC deadline). All others are #GP, whatever the host has: what a guest
 * put there would stay behind.
 */
#ifndef VCPU_MSR_H
#define VCPU_MSR_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/cpuid.h"
#include "vcpu/vcpu_state.h"

#define MSR_INDEX_TSC	       0x10u
#define MSR_INDEX_APIC_BASE    0x1bu
#define MSR_INDEX_PRED_CMD     0x49u /* a barrier; it cannot be read */
#define MSR_INDEX_TSC_DEADLINE 0x6e0u
#define MSR_INDEX_X2APIC_FIRST 0x800u
#define MSR_INDEX_X2APIC_LAST  0x8ffu
#define MSR_INDEX_EFER	       0xc0000080u
#define MSR_INDEX_FS_BASE      0xc0000100u
#define MSR_INDEX_GS_BASE      0xc0000101u

/* Its enum vcpu_msr, or -1. */
int vcpu_msr_find(uint32_t index);
/* An MSR of the APIC, or the TSC deadline: it exits to the engine's caller. */
bool vcpu_msr_is_callers(uint32_t index);
/* Another part of struct vcpu_state, or the time. */
bool vcpu_msr_is_derived(uint32_t index);

/*
 * One that has the same value on all nodes for ever, and ignores what is written to it, or faults.
 * For reads *value is set. False: #GP.
 */
bool vcpu_msr_constant(uint32_t index, bool write, uint64_t *value);

/*
 * What becomes of a value that a guest writes to one that a move carries, so that every engine can
 * load it later: the value that it then has in *value. False: #GP, as from a CPU that has what
 * `cpuid` says and no more.
 */
bool vcpu_msr_accept(enum vcpu_msr msr, const struct cpuid_set *cpuid, uint64_t *value);
/*
 * What the state has of one that a guest writes without anybody looking: a CPU with 57 bits of
 * address takes all of them, whatever CPUID says, and others refuse that. An address is cut then.
 */
uint64_t vcpu_msr_narrow(enum vcpu_msr msr, uint64_t value);

#endif
