/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pair of i8259 interrupt controllers, for guests that leave the I/O APIC alone (noapic,
 * nosmp). Pure; single-threaded.
 *
 *      IRQ 0, 1, 3..7  --> master --> LINT0 of vCPU 0, as ExtINT
 *      IRQ 8..15 --> slave --> its input 2
 *
 * On hardware the CPU asks for the vector when it takes the interrupt. Here the vector goes with
 * the interrupt (pic_take()), so that a vCPU on another node need not ask back: an IRQ is in
 * service from when it is sent. Masking it comes too late then, as it may on hardware.
 */
#ifndef MACHINE_PIC_H
#define MACHINE_PIC_H

#include <stdbool.h>
#include <stdint.h>

#define PIC_IRQS 16u

/* The ports, in this order. */
enum pic_port { PIC_20, PIC_21, PIC_A0, PIC_A1, PIC_4D0, PIC_4D1, PIC_PORTS };

struct pic_chip {
	uint8_t irr, isr, mask;
	uint8_t line;	    /* asserted inputs */
	uint8_t level;	    /* inputs that are level-triggered (4d0, 4d1) */
	uint8_t base;	    /* vector of input 0 */
	uint8_t words_left; /* of the initialisation */
	bool base_next, has_fourth;
	bool ready; /* initialised: makes interrupts */
	bool auto_eoi;
	bool read_isr;
};

struct pic {
	struct pic_chip chip[2]; /* master, slave */
};

void pic_reset(struct pic *pic);
uint8_t pic_read(const struct pic *pic, enum pic_port port);
void pic_write(struct pic *pic, enum pic_port port, uint8_t value);
void pic_set_line(struct pic *pic, uint32_t irq, bool asserted);
/* The vector of the IRQ that interrupts what is in service, which then is; or -1. */
int pic_take(struct pic *pic);

#endif
