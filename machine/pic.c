/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8259 (contract: pic.h; registers: Intel 8259A data sheet). Fixed priorities, IRQ 0 first; normal
 * and automatic EOI.
 *
 * Left out: rotating priorities, special masks, polling, special fully nested mode; ELCR's bits are
 * what decides level or edge, not ICW1's.
 *
 * Tested in tests/machine/test_pic.c.
 */
#include "machine/pic.h"

#define CASCADE 2u /* the master's input that the slave is at */

#define ICW1	      0x10u
#define ICW1_SINGLE   0x02u
#define ICW1_FOURTH   0x01u
#define ICW4_AUTO_EOI 0x02u
#define OCW3	      0x08u
#define OCW3_READ     0x02u
#define OCW3_READ_ISR 0x01u
#define OCW2_EOI      0x20u
#define OCW2_SPECIFIC 0x40u
#define OCW2_LEVEL    0x07u
#define LEVEL_MASTER  0xf8u /* IRQs 0, 1, 2, 8 and 13 are edge-triggered for good */
#define LEVEL_SLAVE   0xdeu

static int first_of(uint8_t bits)
{
	return bits ? __builtin_ctz(bits) : 8;
}

/* The input that would interrupt the CPU now, or 8. */
static int next_of(const struct pic_chip *chip)
{
	int next = first_of(chip->irr & (uint8_t)~chip->mask);

	return chip->ready && next < first_of(chip->isr) ? next : 8;
}

static void set_input(struct pic_chip *chip, uint32_t input, bool asserted)
{
	uint8_t bit = (uint8_t)(1u << input);
	bool rises = asserted && !(chip->line & bit);

	chip->line = asserted ? chip->line | bit : chip->line & (uint8_t)~bit;
	if (chip->level & bit)
		chip->irr = asserted ? chip->irr | bit : chip->irr & (uint8_t)~bit;
	else if (rises)
		chip->irr |= bit;
}

/* The slave's output is an input of the master's. */
static void cascade(struct pic *pic)
{
	struct pic_chip *master = &pic->chip[0];
	bool wanted = next_of(&pic->chip[1]) < 8;

	/* It goes down and up again between two interrupts of the slave, as far as one can see. */
	set_input(master, CASCADE, false);
	master->irr &= (uint8_t) ~(1u << CASCADE);
	set_input(master, CASCADE, wanted);
}

static void acknowledge(struct pic_chip *chip, int input)
{
	uint8_t bit = (uint8_t)(1u << input);

	if (!(chip->level & bit))
		chip->irr &= (uint8_t)~bit;
	if (!chip->auto_eoi)
		chip->isr |= bit;
}

void pic_reset(struct pic *pic)
{
	*pic = (struct pic){ .chip = { { .mask = 0xff }, { .mask = 0xff } } };
}

void pic_set_line(struct pic *pic, uint32_t irq, bool asserted)
{
	set_input(&pic->chip[irq / 8], irq % 8, asserted);
	cascade(pic);
}

int pic_take(struct pic *pic)
{
	struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
	int input = next_of(master), behind;

	if (input == 8)
		return -1;
	acknowledge(master, input);
	if (input != CASCADE)
		return master->base + input;
	behind = next_of(slave);
	acknowledge(slave, behind);
	cascade(pic);
	return slave->base + behind;
}

uint8_t pic_read(const struct pic *pic, enum pic_port port)
{
	const struct pic_chip *chip = &pic->chip[port / 2];

	switch (port) {
	case PIC_20:
	case PIC_A0:
		return chip->read_isr ? chip->isr : chip->irr;
	case PIC_21:
	case PIC_A1:
		return chip->mask;
	default:
		return pic->chip[port - PIC_4D0].level;
	}
}

static void write_command(struct pic_chip *chip, uint8_t value)
{
	uint8_t in_service = (uint8_t)first_of(chip->isr);

	if (value & ICW1) {
		chip->words_left = (uint8_t)(1 + !(value & ICW1_SINGLE) + (value & ICW1_FOURTH));
		chip->has_fourth = value & ICW1_FOURTH;
		chip->base_next = true;
		chip->irr = chip->isr = chip->mask = 0;
		chip->ready = chip->auto_eoi = chip->read_isr = false;
	} else if (value & OCW3) {
		if (value & OCW3_READ)
			chip->read_isr = value & OCW3_READ_ISR;
	} else if (value & OCW2_EOI) {
		if (value & OCW2_SPECIFIC)
			in_service = value & OCW2_LEVEL;
		chip->isr &= (uint8_t) ~(1u << in_service);
	}
}

static void write_data(struct pic_chip *chip, uint8_t value)
{
	if (!chip->words_left) {
		chip->mask = value;
		return;
	}
	if (chip->base_next)
		chip->base = value & 0xf8;
	chip->base_next = false;
	if (--chip->words_left)
		return;
	if (chip->has_fourth)
		chip->auto_eoi = value & ICW4_AUTO_EOI;
	chip->ready = true;
	/* Edges from before the initialisation are gone, levels are not. */
	chip->irr = chip->line & chip->level;
}

void pic_write(struct pic *pic, enum pic_port port, uint8_t value)
{
	struct pic_chip *chip = &pic->chip[port / 2 % 2];

	switch (port) {
	case PIC_20:
	case PIC_A0:
		write_command(chip, value);
		break;
	case PIC_21:
	case PIC_A1:
		write_data(chip, value);
		break;
	default:
		chip = &pic->chip[port - PIC_4D0];
		chip->level = value & (port == PIC_4D0 ? LEVEL_MASTER : LEVEL_SLAVE);
		break;
	}
	cascade(pic);
}
