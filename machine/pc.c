/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's port and memory map (contract: pc.h): who answers which address, and whose pin goes
 * where.
 *
 * Every device here has byte-wide registers, as ISA devices do: a wider access is one access a
 * byte, at ascending ports (all of them at the same now_ns, so that a wide read of the PM timer is
 * not torn). The one exception is the PCI address port, which exists only as a double word.
 *
 * After every access the pins of all devices are put to the I/O APIC anew (update_lines()): cheap,
 * and no device needs a callback.
 *
 * Output bytes are gathered: to the end of a line, OUTPUT_BYTES, or OUTPUT_NS, whatever is first.
 *
 * Left out: a keyboard controller (the ACPI tables say so), HPET, DMA, floppy.
 *
 * Tested in tests/machine/test_pc.c.
 */
#include "machine/pc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/acpi_pm.h"
#include "machine/ioapic.h"
#include "machine/memory_map.h"
#include "machine/pic.h"
#include "machine/pit.h"
#include "machine/rtc.h"
#include "machine/serial.h"

#define OUTPUT_BYTES 256u
#define OUTPUT_NS    2000000ull

#define PIT_IRQ 0u
#define PIT_PIN 2u /* of the I/O APIC */
#define RTC_IRQ 8u

#define PCI_ADDRESS_PORT 0xcf8u
#define PCI_DATA_PORT	 0xcfcu
#define PCI_ENABLE	 0x80000000u
#define PCI_ADDRESS_BITS 0x80fffffcu

#define RESET_PORT     0xcf9u
#define RESET_CPU      0x04u
#define RESET_FULL     0x08u
#define KEYBOARD_RESET 0xfeu

struct output {
	uint32_t count;
	uint64_t since_ns;
	uint8_t bytes[OUTPUT_BYTES];
};

struct pc {
	const struct pc_ops *ops;
	void *ctx;
	struct ioapic ioapic;
	struct serial serial[PC_SERIALS];
	struct output output[PC_SERIALS];
	struct rtc rtc;
	struct pit pit;
	struct acpi_pm pm;
	struct pic pic;
	uint32_t pci_address;
	uint8_t reset_register;
};

static const uint8_t serial_irq[PC_SERIALS] = { 4, 3 };

/* Who answers a port. */
enum port_owner {
	PORT_NOBODY,
	PORT_PIC_0,
	PORT_PIC_1,
	PORT_PIC_EDGE_LEVEL,
	PORT_PIT,
	PORT_KEYBOARD,
	PORT_61,
	PORT_RTC,
	PORT_DELAY,
	PORT_SERIAL_0,
	PORT_SERIAL_1,
	PORT_PM,
	PORT_PM_TIMER,
	PORT_PCI_ADDRESS,
	PORT_RESET,
	PORT_PCI_DATA,
};

/* Ascending. */
static const struct port_range {
	uint16_t first, last;
	enum port_owner owner;
} port_ranges[] = {
	{ 0x20, 0x21, PORT_PIC_0 },
	{ 0x40, 0x43, PORT_PIT },
	{ 0x61, 0x61, PORT_61 },
	{ 0x64, 0x64, PORT_KEYBOARD },
	{ 0x70, 0x71, PORT_RTC },
	{ 0x80, 0x80, PORT_DELAY },
	{ 0xa0, 0xa1, PORT_PIC_1 },
	{ 0xed, 0xed, PORT_DELAY },
	{ 0x2f8, 0x2ff, PORT_SERIAL_1 },
	{ 0x3f8, 0x3ff, PORT_SERIAL_0 },
	{ 0x4d0, 0x4d1, PORT_PIC_EDGE_LEVEL },
	{ ACPI_PM_PORT, ACPI_PM_TIMER - 1, PORT_PM },
	{ ACPI_PM_TIMER, ACPI_PM_TIMER + 3, PORT_PM_TIMER },
	{ PCI_ADDRESS_PORT, PCI_ADDRESS_PORT, PORT_PCI_ADDRESS },
	{ RESET_PORT, RESET_PORT, PORT_RESET },
	{ PCI_DATA_PORT, PCI_DATA_PORT + 3, PORT_PCI_DATA },
};

static const struct port_range *find_port(uint32_t port)
{
	for (size_t i = 0; i < sizeof(port_ranges) / sizeof(port_ranges[0]); i++) {
		if (port >= port_ranges[i].first && port <= port_ranges[i].last)
			return &port_ranges[i];
	}
	return NULL;
}

/* ---- outputs --------------------------------------------------------------------------------- */

static void flush_output(struct pc *pc, enum pc_serial port)
{
	struct output *output = &pc->output[port];

	if (output->count == 0)
		return;
	pc->ops->output(pc->ctx, port, output->bytes, output->count);
	output->count = 0;
}

static void put_output(struct pc *pc, enum pc_serial port, uint8_t byte, uint64_t now_ns)
{
	struct output *output = &pc->output[port];

	if (output->count == 0)
		output->since_ns = now_ns;
	output->bytes[output->count++] = byte;
	if (output->count == OUTPUT_BYTES || byte == '\n')
		flush_output(pc, port);
}

static void flush_all(struct pc *pc)
{
	for (int port = 0; port < PC_SERIALS; port++)
		flush_output(pc, (enum pc_serial)port);
}

static void power_off(struct pc *pc)
{
	flush_all(pc);
	pc->ops->power_off(pc->ctx);
}

static void reset(struct pc *pc, enum pc_reset why)
{
	flush_all(pc);
	pc->ops->reset(pc->ctx, why);
}

/* An ISA interrupt, to both controllers; the guest uses one of them. Timers have another pin. */
static void set_irq(struct pc *pc, uint32_t irq, bool asserted)
{
	ioapic_set_line(&pc->ioapic, irq == PIT_IRQ ? PIT_PIN : irq, asserted);
	pic_set_line(&pc->pic, irq, asserted);
}

static void send_pic_interrupts(struct pc *pc)
{
	struct interrupt interrupt = { .source = INTERRUPT_SOURCE_DEVICE,
				       .mode = INTERRUPT_EXTINT };

	/* Bounded: a level-triggered one with automatic EOI would be there for ever. */
	for (uint32_t i = 0; i < PIC_IRQS; i++) {
		int vector = pic_take(&pc->pic);

		if (vector < 0)
			return;
		interrupt.vector = (uint8_t)vector;
		pc->ops->interrupt(pc->ctx, &interrupt);
	}
}

static void update_lines(struct pc *pc)
{
	for (int port = 0; port < PC_SERIALS; port++)
		set_irq(pc, serial_irq[port], serial_line(&pc->serial[port]));
	set_irq(pc, RTC_IRQ, rtc_line(&pc->rtc));
	set_irq(pc, ACPI_SCI_PIN, acpi_pm_line(&pc->pm));
	send_pic_interrupts(pc);
}

/* ---- small devices --------------------------------------------------------------------------- */

/*
 * The reset register of chipsets: a rising RST_CPU resets, all of the machine ("cold", 0eh) or not
 * all of it ("warm", 06h; 04h).
 */
static void write_reset(struct pc *pc, uint8_t value)
{
	bool rises = (value & RESET_CPU) && !(pc->reset_register & RESET_CPU);

	pc->reset_register = value & (uint8_t)~RESET_CPU;
	if (rises)
		reset(pc, value & RESET_FULL ? PC_RESET_COLD : PC_RESET_WARM);
}

/*
 * PCI configuration: one host bridge at 00:00.0, read-only, so that guests find the bus at all.
 * Functions that do not exist read all ones. The DSDT has no root bridge yet, so nothing is
 * enumerated.
 */
static uint8_t pci_config_read(const struct pc *pc, uint32_t reg)
{
	static const uint8_t host_bridge[12] = {
		0x36, 0x1b, 0x08, 0x00, /* vendor, device */
		0x00, 0x00, 0x00, 0x00, /* command, status */
		0x00, 0x00, 0x00, 0x06, /* revision, class: host bridge */
	};
	uint32_t function = pc->pci_address >> 8 & 0xffff;
	uint32_t offset = (pc->pci_address & 0xfc) + reg;

	if (!(pc->pci_address & PCI_ENABLE) || function != 0)
		return 0xff;
	return offset < sizeof(host_bridge) ? host_bridge[offset] : 0;
}

/* ---- ports ----------------------------------------------------------------------------------- */

/* Those that need no pc. True: answered. */
static bool read_stateless(enum port_owner owner, uint32_t reg, uint64_t now_ns, uint8_t *ret_value)
{
	switch (owner) {
	case PORT_PM_TIMER:
		*ret_value = (uint8_t)(acpi_pm_timer(now_ns) >> (reg * 8));
		return true;
	case PORT_NOBODY:
	case PORT_DELAY:
		*ret_value = 0xff;
		return true;
	default:
		return false;
	}
}

static uint8_t read_byte(struct pc *pc, uint32_t port, uint64_t now_ns)
{
	const struct port_range *range = find_port(port);
	enum port_owner owner = range ? range->owner : PORT_NOBODY;
	uint32_t reg = range ? port - range->first : 0;
	uint8_t value = 0xff;

	if (read_stateless(owner, reg, now_ns, &value))
		return value;
	switch (owner) {
	case PORT_PIC_0:
	case PORT_PIC_1:
		return pic_read(&pc->pic, owner == PORT_PIC_0 ? PIC_20 + reg : PIC_A0 + reg);
	case PORT_PIC_EDGE_LEVEL:
		return pic_read(&pc->pic, PIC_4D0 + reg);
	case PORT_PIT:
		return pit_read(&pc->pit, reg, now_ns);
	case PORT_61:
		return pit_read_port_61(&pc->pit, now_ns);
	case PORT_RTC:
		return rtc_read(&pc->rtc, reg, now_ns);
	case PORT_SERIAL_0:
	case PORT_SERIAL_1:
		return serial_read(&pc->serial[owner - PORT_SERIAL_0], reg);
	case PORT_PM:
		return acpi_pm_read(&pc->pm, reg);
	case PORT_RESET:
		return pc->reset_register;
	case PORT_PCI_DATA:
		return pci_config_read(pc, reg);
	default:
		return 0xff;
	}
}

static void write_serial(struct pc *pc, enum pc_serial port, uint32_t reg, uint8_t value,
			 uint64_t now_ns)
{
	uint8_t byte;
	struct serial *serial = &pc->serial[port];

	if (!serial_write(serial, reg, value, &byte))
		return;
	/* The transmitter was busy for no time, yet its pin must show an edge. */
	set_irq(pc, serial_irq[port], false);
	put_output(pc, port, byte, now_ns);
}

static void write_byte(struct pc *pc, uint32_t port, uint8_t value, uint64_t now_ns)
{
	const struct port_range *range = find_port(port);
	uint32_t reg = range ? port - range->first : 0;

	if (!range)
		return;
	switch (range->owner) {
	case PORT_PIC_0:
	case PORT_PIC_1:
		pic_write(&pc->pic, (range->owner == PORT_PIC_0 ? PIC_20 : PIC_A0) + reg, value);
		break;
	case PORT_PIC_EDGE_LEVEL:
		pic_write(&pc->pic, PIC_4D0 + reg, value);
		break;
	case PORT_PIT:
		pit_write(&pc->pit, reg, value, now_ns);
		break;
	case PORT_61:
		pit_write_port_61(&pc->pit, value, now_ns);
		break;
	case PORT_KEYBOARD:
		if (value == KEYBOARD_RESET)
			reset(pc, PC_RESET_COLD);
		break;
	case PORT_RTC:
		rtc_write(&pc->rtc, reg, value, now_ns);
		break;
	case PORT_SERIAL_0:
	case PORT_SERIAL_1:
		write_serial(pc, (enum pc_serial)(range->owner - PORT_SERIAL_0), reg, value,
			     now_ns);
		break;
	case PORT_PM:
		if (acpi_pm_write(&pc->pm, reg, value))
			power_off(pc);
		break;
	case PORT_RESET:
		write_reset(pc, value);
		break;
	default: /* delays, the timer, PCI registers that are not there */
		break;
	}
}

static bool is_pci_address(const struct pc_access *access)
{
	return access->address == PCI_ADDRESS_PORT && access->size == 4;
}

static void access_pci_address(struct pc *pc, const struct pc_access *access, uint8_t *item)
{
	uint32_t value = pc->pci_address;

	if (access->write) {
		memcpy(&value, item, sizeof(value));
		pc->pci_address = value & PCI_ADDRESS_BITS;
	} else {
		memcpy(item, &value, sizeof(value));
	}
}

static void access_item(struct pc *pc, const struct pc_access *access, uint8_t *item,
			uint64_t now_ns)
{
	if (is_pci_address(access)) {
		access_pci_address(pc, access, item);
		return;
	}
	for (uint32_t byte = 0; byte < access->size; byte++) {
		uint32_t port = (uint32_t)(access->address + byte) & 0xffff;

		if (access->write)
			write_byte(pc, port, item[byte], now_ns);
		else
			item[byte] = read_byte(pc, port, now_ns);
	}
}

void pc_io(struct pc *pc, const struct pc_access *access, uint64_t now_ns)
{
	for (uint32_t i = 0; i < access->count; i++)
		access_item(pc, access, access->data + (size_t)i * access->size, now_ns);
	/* Writes may plan an interrupt that is already due. */
	pc_tick(pc, now_ns);
}

bool pc_io_local(const struct pc_access *access, uint64_t now_ns)
{
	uint8_t value;

	for (uint32_t byte = 0; byte < access->size; byte++) {
		const struct port_range *range =
			find_port((uint32_t)(access->address + byte) & 0xffff);

		if (!read_stateless(range ? range->owner : PORT_NOBODY, 0, now_ns, &value))
			return false;
	}
	if (!access->write) {
		for (uint32_t i = 0; i < access->count; i++)
			access_item(NULL, access, access->data + (size_t)i * access->size, now_ns);
	}
	return true;
}

/* ---- memory-mapped --------------------------------------------------------------------------- */

bool pc_mmio_local(const struct pc_access *access)
{
	uint64_t offset = access->address - IOAPIC_GPA;

	if (offset < IOAPIC_BYTES)
		return false;
	if (!access->write)
		memset(access->data, 0xff, access->size);
	return true;
}

void pc_mmio(struct pc *pc, const struct pc_access *access, uint64_t now_ns)
{
	uint32_t offset = (uint32_t)(access->address - IOAPIC_GPA);
	uint32_t value;

	(void)now_ns;
	if (pc_mmio_local(access))
		return;
	/* Registers are 32 bits wide, and accessed so; the EOI may be narrower. */
	if (access->write) {
		value = 0;
		memcpy(&value, access->data, access->size < 4 ? access->size : 4);
		ioapic_write(&pc->ioapic, offset, value);
	} else {
		memset(access->data, 0xff, access->size);
		value = ioapic_read(&pc->ioapic, offset);
		memcpy(access->data, &value, access->size < 4 ? access->size : 4);
	}
}

/* ---- the rest of the contract ---------------------------------------------------------------- */

static void send_interrupt(void *ctx, const struct interrupt *interrupt)
{
	struct pc *pc = ctx;

	pc->ops->interrupt(pc->ctx, interrupt);
}

int pc_create(const struct pc_config *config, const struct pc_ops *ops, void *ctx,
	      struct pc **ret_pc)
{
	struct pc *pc = calloc(1, sizeof(*pc));

	if (!pc)
		return -ENOMEM;
	pc->ops = ops;
	pc->ctx = ctx;
	ioapic_reset(&pc->ioapic, send_interrupt, pc);
	for (int port = 0; port < PC_SERIALS; port++)
		serial_reset(&pc->serial[port]);
	rtc_reset(&pc->rtc, config->wall_epoch_s);
	pit_reset(&pc->pit, 0);
	acpi_pm_reset(&pc->pm);
	pic_reset(&pc->pic);
	*ret_pc = pc;
	return 0;
}

void pc_destroy(struct pc *pc)
{
	free(pc);
}

void pc_eoi(struct pc *pc, uint8_t vector)
{
	ioapic_eoi(&pc->ioapic, vector);
}

size_t pc_serial_room(const struct pc *pc, enum pc_serial port)
{
	return serial_room(&pc->serial[port]);
}

size_t pc_serial_input(struct pc *pc, enum pc_serial port, const uint8_t *bytes, size_t count,
		       uint64_t now_ns)
{
	size_t taken = serial_input(&pc->serial[port], bytes, count);

	(void)now_ns;
	update_lines(pc);
	return taken;
}

size_t pc_serial_break(struct pc *pc, enum pc_serial port)
{
	size_t taken = serial_break(&pc->serial[port]);

	update_lines(pc);
	return taken;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t pc_deadline(const struct pc *pc)
{
	uint64_t deadline = earlier(pit_deadline(&pc->pit), rtc_deadline(&pc->rtc));

	for (int port = 0; port < PC_SERIALS; port++) {
		if (pc->output[port].count)
			deadline = earlier(deadline, pc->output[port].since_ns + OUTPUT_NS);
	}
	return deadline;
}

void pc_tick(struct pc *pc, uint64_t now_ns)
{
	if (pit_tick(&pc->pit, now_ns)) {
		set_irq(pc, PIT_IRQ, true);
		set_irq(pc, PIT_IRQ, false);
	}
	if (rtc_tick(&pc->rtc, now_ns))
		acpi_pm_rtc_alarm(&pc->pm);
	for (int port = 0; port < PC_SERIALS; port++) {
		if (pc->output[port].count && now_ns >= pc->output[port].since_ns + OUTPUT_NS)
			flush_output(pc, (enum pc_serial)port);
	}
	update_lines(pc);
}
