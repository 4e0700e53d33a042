/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC (contract: ioapic.h; registers: Intel 82093AA data sheet, ICH EOI register).
 *
 * A level-triggered pin sends once and then waits (remote IRR) for the EOI; if it is still asserted
 * then, it sends again. An edge that comes while its pin is masked is kept and sent at the
 * unmasking: guests are ready for one interrupt too many, but not for one too few.
 *
 * Tested in tests/machine/test_ioapic.c.
 */
#include "machine/ioapic.h"

#define OFFSET_SELECT 0x00u
#define OFFSET_WINDOW 0x10u
#define OFFSET_EOI    0x40u

#define INDEX_ID      0x00u
#define INDEX_VERSION 0x01u
#define INDEX_ARB     0x02u
#define INDEX_ENTRY   0x10u

#define VERSION_VALUE ((IOAPIC_PINS - 1) << 16 | 0x20u)
#define ID_BITS	      0x0f000000u

#define ENTRY_STATUS   (1ull << 12)
#define ENTRY_REMOTE   (1ull << 14)
#define ENTRY_LEVEL    (1ull << 15)
#define ENTRY_MASKED   (1ull << 16)
#define ENTRY_READONLY (ENTRY_STATUS | ENTRY_REMOTE)
#define ENTRY_BITS     0xfffe00000001ffffull

static uint8_t entry_vector(uint64_t entry)
{
	return (uint8_t)entry;
}

static uint8_t entry_mode(uint64_t entry)
{
	return (uint8_t)(entry >> 8 & 7);
}

/* Modes with an EOI. Trigger mode has no meaning for the others. */
static bool is_level(uint64_t entry)
{
	return (entry & ENTRY_LEVEL) && entry_mode(entry) <= INTERRUPT_LOWEST;
}

static void send_entry(const struct ioapic *ioapic, uint64_t entry)
{
	struct interrupt interrupt = {
		.dest = (uint32_t)(entry >> 56) | (uint32_t)(entry >> 49 & 0x7f) << 8,
		.source = INTERRUPT_SOURCE_DEVICE,
		.vector = entry_vector(entry),
		.mode = entry_mode(entry),
		.logical = (uint8_t)(entry >> 11 & 1),
		.level = is_level(entry),
	};

	/*
	 * SMI, reserved and SIPI do not come out of an I/O APIC in this machine, nor is the
	 * i8259s' output one of its pins.
	 */
	if (interrupt.mode == INTERRUPT_SMI || interrupt.mode == 3 ||
	    interrupt.mode == INTERRUPT_SIPI || interrupt.mode == INTERRUPT_EXTINT)
		return;
	ioapic->send(ioapic->ctx, &interrupt);
}

/* Sends what the pin has to say, if it may. */
static void service(struct ioapic *ioapic, uint32_t pin)
{
	uint64_t *entry = &ioapic->entry[pin];
	uint32_t bit = 1u << pin;

	if (*entry & ENTRY_MASKED)
		return;
	if (is_level(*entry)) {
		ioapic->latched &= ~bit;
		if (!(ioapic->line & bit) || (*entry & ENTRY_REMOTE))
			return;
		*entry |= ENTRY_REMOTE;
	} else {
		if (!(ioapic->latched & bit))
			return;
		ioapic->latched &= ~bit;
	}
	send_entry(ioapic, *entry);
}

void ioapic_reset(struct ioapic *ioapic, ioapic_send_fn *send, void *ctx)
{
	*ioapic = (struct ioapic){ .send = send, .ctx = ctx };
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++)
		ioapic->entry[pin] = ENTRY_MASKED;
}

void ioapic_set_line(struct ioapic *ioapic, uint32_t pin, bool asserted)
{
	uint32_t bit;

	if (pin >= IOAPIC_PINS)
		return;
	bit = 1u << pin;
	if (asserted == !!(ioapic->line & bit))
		return;
	ioapic->line ^= bit;
	if (!asserted)
		return;
	ioapic->latched |= bit;
	service(ioapic, pin);
}

static void end_pin(struct ioapic *ioapic, uint32_t pin, uint8_t vector)
{
	uint64_t *entry = &ioapic->entry[pin];

	if (entry_vector(*entry) != vector || !(*entry & ENTRY_REMOTE))
		return;
	*entry &= ~ENTRY_REMOTE;
	service(ioapic, pin);
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++)
		end_pin(ioapic, pin, vector);
}

static void write_entry(struct ioapic *ioapic, uint32_t pin, bool high, uint32_t value)
{
	uint64_t before = ioapic->entry[pin];
	uint64_t entry = high ? (before & 0xffffffffull) | (uint64_t)value << 32
			      : (before & ~0xffffffffull) | value;

	entry = (entry & ENTRY_BITS & ~ENTRY_READONLY) | (before & ENTRY_READONLY);
	/* Back to edge: the pin forgets that it waited for an EOI (how Linux un-wedges old ones).
	 */
	if (!(entry & ENTRY_LEVEL))
		entry &= ~ENTRY_REMOTE;
	ioapic->entry[pin] = entry;
	service(ioapic, pin);
}

uint32_t ioapic_read(const struct ioapic *ioapic, uint32_t offset)
{
	uint32_t index = ioapic->select;

	if (offset == OFFSET_SELECT)
		return index;
	if (offset != OFFSET_WINDOW)
		return UINT32_MAX;
	if (index == INDEX_ID || index == INDEX_ARB)
		return ioapic->id;
	if (index == INDEX_VERSION)
		return VERSION_VALUE;
	if (index < INDEX_ENTRY || index >= INDEX_ENTRY + 2 * IOAPIC_PINS)
		return UINT32_MAX;
	index -= INDEX_ENTRY;
	return (uint32_t)(ioapic->entry[index / 2] >> (index % 2 * 32));
}

void ioapic_write(struct ioapic *ioapic, uint32_t offset, uint32_t value)
{
	uint32_t index = ioapic->select;

	if (offset == OFFSET_SELECT) {
		ioapic->select = value & 0xff;
	} else if (offset == OFFSET_EOI) {
		ioapic_eoi(ioapic, (uint8_t)value);
	} else if (offset == OFFSET_WINDOW) {
		if (index == INDEX_ID)
			ioapic->id = value & ID_BITS;
		else if (index >= INDEX_ENTRY && index < INDEX_ENTRY + 2 * IOAPIC_PINS)
			write_entry(ioapic, (index - INDEX_ENTRY) / 2, (index - INDEX_ENTRY) % 2,
				    value);
	}
}
