/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC of one vCPU, in x2APIC mode, on the plain struct lapic_state
 * (vcpu/vcpu_state.h). Pure.
 *
 *   MSR exits ------> lapic_read(), lapic_write() ----> struct lapic_effect: IPI out, EOI, timer
 *   other threads --> lapic_inbox_post()
 *                          ||
 *                     lapic_inbox_drain() --> IRR, NMI, INIT, SIPI
 *   time -----------> lapic_tick() ---------> IRR
 *                     lapic_next() <--------- IRR
 *                          |
 *                     engine injects --> lapic_accept() --> ISR --> EOI
 *
 * The guest is handed its machine with x2APIC already on, and it stays on: like a processor that
 * reports LEGACY_XAPIC_DISABLED (SDM vol. 3, 11.12.5), writes that would leave x2APIC mode fault.
 * There is no MMIO page.
 *
 * Times are the pod clock in ns. The timer's input clock is 1 GHz. One thread owns a lapic_state; a
 * lapic_inbox may be posted to by any thread.
 */
#ifndef MACHINE_LAPIC_H
#define MACHINE_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/interrupt_route.h"
#include "vcpu/vcpu_state.h"

#define MSR_INDEX_APIC_BASE    0x1bu
#define MSR_INDEX_TSC_DEADLINE 0x6e0u
#define MSR_INDEX_X2APIC_FIRST 0x800u
#define MSR_INDEX_X2APIC_LAST  0x8ffu

/*
 * Guest TSC = (pod clock - tsc_epoch_ns) * tsc_khz / 10^6 + tsc_adjust. The last is the vCPU's own,
 * and has to be right when the TSC deadline is written; one that changes while the timer is armed
 * counts from the next arming.
 */
struct lapic_config {
	uint64_t tsc_epoch_ns;
	uint64_t tsc_adjust; /* modulo 2^64: the guest may have set it back */
	uint32_t tsc_khz;
	bool tsc_deadline; /* CPUID offers it (cpuid_has_tsc_deadline()) */
};

/* What a register write asks of the caller. Zeroed by lapic_write(). */
struct lapic_effect {
	bool send; /* route and deliver `interrupt`; the sender itself may be among those it reaches
		    */
	bool eoi;  /* a level-triggered `eoi_vector` has ended: tell the I/O APIC */
	bool timer; /* lapic_deadline() has changed */
	bool tpr;   /* TPR was written: the engine's CR8 := state->tpr >> 4 */
	uint8_t eoi_vector;
	struct interrupt interrupt;
};

/* Power-on, then x2APIC enabled. */
void lapic_reset(struct lapic_state *lapic, uint32_t id, bool bsp);
/* INIT: registers as after power-on, but id, mode and what came after the INIT (a pending SIPI)
 * stay. */
void lapic_init(struct lapic_state *lapic);

/* Is this MSR the APIC's (else the caller decides)? */
bool lapic_owns_msr(uint32_t msr);
/* 0, or -EINVAL: #GP for the guest; nothing has changed. */
int lapic_read(const struct lapic_config *config, const struct lapic_state *lapic, uint32_t msr,
	       uint64_t now_ns, uint64_t *ret_value);
int lapic_write(const struct lapic_config *config, struct lapic_state *lapic, uint32_t msr,
		uint64_t value, uint64_t now_ns, struct lapic_effect *ret_effect);

/* An interrupt that interrupt_route() has brought here. Sets IRR or the pending flags. */
void lapic_deliver(struct lapic_state *lapic, uint8_t mode, uint8_t vector, bool level);

/*
 * The vector to inject now, or -1: one of the i8259's, if LINT0 is for that (they have no place in
 * the priorities), or one of ours. cr8: the vCPU's, as the engine has it.
 */
int lapic_next(const struct lapic_state *lapic, uint8_t cr8);
/* The engine has taken `vector` (from lapic_next()): IRR -> ISR, but for those of the i8259's. */
void lapic_accept(struct lapic_state *lapic, uint8_t vector);

/* Pod clock of the next timer expiry; UINT64_MAX: none. */
uint64_t lapic_deadline(const struct lapic_state *lapic);
/* Lets an expired timer fire. Any time, any often. */
void lapic_tick(const struct lapic_config *config, struct lapic_state *lapic, uint64_t now_ns);

/*
 * Where other threads leave interrupts for a vCPU; lock-free. Posting sets bits and then `pending`;
 * draining clears `pending` and then takes the bits: what is posted is drained now or leaves
 * `pending` set.
 */
struct lapic_inbox {
	_Atomic uint64_t irr[4];
	_Atomic uint64_t tmr[4]; /* trigger mode of the bits in irr */
	_Atomic uint64_t extint[4];
	_Atomic uint32_t events; /* bit 8 NMI, bit 9 INIT, bit 10 SIPI (of vector 7:0); an INIT
				    takes back an earlier SIPI */
	_Atomic uint32_t pending;
};

void lapic_inbox_clear(struct lapic_inbox *inbox);
/* Any thread. True: the inbox was empty, so the vCPU has to be woken or kicked. */
bool lapic_inbox_post(struct lapic_inbox *inbox, uint8_t mode, uint8_t vector, bool level);
bool lapic_inbox_pending(const struct lapic_inbox *inbox);
/* Takes out what is there, one call of `post` each, in an order that means the same: for one that
 * stands for a vCPU elsewhere. One thread at a time. */
void lapic_inbox_forward(struct lapic_inbox *inbox,
			 void (*post)(void *ctx, uint8_t mode, uint8_t vector, bool level),
			 void *ctx);
/* Owner of `lapic`. True: something came. */
bool lapic_inbox_drain(struct lapic_inbox *inbox, struct lapic_state *lapic);

#endif
