/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC (82093AA with the EOI register of later ones): 24 pins, each with a redirection entry
 * that turns its level or edges into interrupt messages. Pure; single-threaded.
 *
 * Entries may name 15-bit x2APIC destinations: bits 55:49 are destination bits 14:8, as KVM's
 * CPUID feature MSI_EXT_DEST_ID has it (Documentation/virt/kvm/x86/cpuid.rst). 255 is an id, not a
 * broadcast. Pins are given as asserted or not; the polarity bit is kept, without effect.
 */
#ifndef MACHINE_IOAPIC_H
#define MACHINE_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/interrupt_route.h"

#define IOAPIC_PINS  24u
#define IOAPIC_BYTES 0x1000u

typedef void ioapic_send_fn(void *ctx, const struct interrupt *interrupt);

struct ioapic {
	uint64_t entry[IOAPIC_PINS];
	uint32_t line;	  /* asserted pins */
	uint32_t latched; /* edges that came while masked */
	uint32_t select;  /* IOREGSEL */
	uint32_t id;
	ioapic_send_fn *send;
	void *ctx;
};

void ioapic_reset(struct ioapic *ioapic, ioapic_send_fn *send, void *ctx);
void ioapic_set_line(struct ioapic *ioapic, uint32_t pin, bool asserted);
/* A level-triggered interrupt of this vector has ended on some vCPU. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

/* 32-bit registers at offset 0 (select), 10h (window), 40h (EOI); others read all ones. */
uint32_t ioapic_read(const struct ioapic *ioapic, uint32_t offset);
void ioapic_write(struct ioapic *ioapic, uint32_t offset, uint32_t value);

#endif
