/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's port and memory map (contract: pc.h): who answers which address, and whose pin goes
 * where.
 *
 * Every device here has byte-wide registers, as ISA devices do: a wider access is one access a
 * byte, at ascending ports (all of them at the same now_ns, so that a wide read of the PM timer is
 * not torn). The exceptions are PCI's: its address port exists only as a double word, and its data
 * port hands an access on as it is.
 *
 * After every access the pins of all devices are put to the I/O APIC anew (update_lines()): cheap,
 * and no device needs a callback.
 *
 * Output bytes are gathered: to the end of a line, OUTPUT_BYTES, or OUTPUT_NS, whatever is first. While
 * not all of them are taken the port's transmitter is held; what a driver writes before it has seen
 * that fits behind OUTPUT_BYTES. Nobody waits for who reads them until the guest's end.
 *
 * Left out: a keyboard controller (the ACPI tables say so), HPET, DMA, floppy.
 *
 * Tested in tests/machine/test_pc.c.
 */
#include "machine/pc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "machine/acpi_pm.h"
#include "machine/ioapic.h"
#include "machine/memory_map.h"
#include "machine/pci.h"
#include "machine/pic.h"
#include "machine/pit.h"
#include "machine/rtc.h"
#include "machine/serial.h"
#include "machine/virtio_pci.h"

#define OUTPUT_BYTES 256u
#define OUTPUT_NS    2000000ull

#define PIT_IRQ 0u
#define PIT_PIN 2u /* of the I/O APIC */
#define RTC_IRQ 8u

#define PCI_ADDRESS_PORT 0xcf8u
#define PCI_DATA_PORT	 0xcfcu
#define PCI_ADDRESS_BITS 0x80fffffcu

#define RESET_PORT     0xcf9u
#define RESET_CPU      0x04u
#define RESET_FULL     0x08u
#define KEYBOARD_RESET 0xfeu

struct output {
	uint32_t count;
	uint64_t since_ns;
	uint8_t bytes[OUTPUT_BYTES + SERIAL_FIFO];
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
	struct pci pci;
	uint8_t reset_register;
	uint32_t device_count;
	struct virtio_pci *device;
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
	uint32_t taken;

	if (output->count == 0)
		return;
	taken = (uint32_t)pc->ops->output(pc->ctx, port, output->bytes, output->count);
	output->count -= taken;
	memmove(output->bytes, output->bytes + taken, output->count);
	serial_hold(&pc->serial[port], output->count > 0);
}

static void put_output(struct pc *pc, enum pc_serial port, uint8_t byte, uint64_t now_ns)
{
	struct output *output = &pc->output[port];

	if (pc->ops->wrote)
		pc->ops->wrote(pc->ctx, port, byte);
	if (output->count == 0)
		output->since_ns = now_ns;
	/* An overrun: it has been written although the transmitter is busy. */
	if (output->count == sizeof(output->bytes))
		return;
	output->bytes[output->count++] = byte;
	if (!pc->serial[port].held && (output->count >= OUTPUT_BYTES || byte == '\n'))
		flush_output(pc, port);
}

static void flush_all(struct pc *pc)
{
	for (int port = 0; port < PC_SERIALS; port++)
		flush_output(pc, (enum pc_serial)port);
}

/* The guest's last words. */
static void drain_all(struct pc *pc)
{
	flush_all(pc);
	while (pc->output[PC_CONSOLE].count || pc->output[PC_COMMAND].count) {
		pc->ops->drain(pc->ctx);
		flush_all(pc);
	}
}

static void power_off(struct pc *pc)
{
	drain_all(pc);
	pc->ops->power_off(pc->ctx);
}

static void reset(struct pc *pc, enum pc_reset why)
{
	drain_all(pc);
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
	default: /* delays, the timer */
		break;
	}
}

static bool is_pci_address(const struct pc_access *access)
{
	return access->address == PCI_ADDRESS_PORT && access->size == 4;
}

/* All of it is within the four bytes. */
static bool is_pci_data(const struct pc_access *access)
{
	return access->address >= PCI_DATA_PORT &&
	       access->address + access->size <= PCI_DATA_PORT + 4;
}

static void access_pci_address(struct pc *pc, const struct pc_access *access, uint8_t *item)
{
	uint32_t value = pc->pci.address;

	if (access->write) {
		memcpy(&value, item, sizeof(value));
		pc->pci.address = value & PCI_ADDRESS_BITS;
	} else {
		memcpy(item, &value, sizeof(value));
	}
}

static struct pci_access pci_access_of(const struct pc_access *access, const uint8_t *item)
{
	struct pci_access pci = { .size = access->size, .write = access->write };

	if (access->write)
		memcpy(&pci.value, item, access->size);
	return pci;
}

static void access_pci_data(struct pc *pc, const struct pc_access *access, uint8_t *item)
{
	struct pci_access pci = pci_access_of(access, item);

	pci.offset = (uint32_t)(access->address - PCI_DATA_PORT);
	pci_config_port(&pc->pci, &pci);
	if (!access->write)
		memcpy(item, &pci.value, access->size);
}

static void access_item(struct pc *pc, const struct pc_access *access, uint8_t *item,
			uint64_t now_ns)
{
	if (is_pci_address(access)) {
		access_pci_address(pc, access, item);
		return;
	}
	if (is_pci_data(access)) {
		access_pci_data(pc, access, item);
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

static bool is_ioapic(const struct pc_access *access)
{
	return access->address - IOAPIC_GPA < IOAPIC_BYTES;
}

/* Where a base address may be: what is RAM there does not come here. */
static bool is_pci(const struct pc_access *access)
{
	return (access->address >= PCI_MMIO_BASE && access->address < PCI_MMIO_LIMIT) ||
	       (access->address >= HIGH_RAM_BASE && access->address < GPA_LIMIT);
}

bool pc_mmio_local(const struct pc_access *access)
{
	if (is_ioapic(access) || is_pci(access))
		return false;
	if (!access->write)
		memset(access->data, 0xff, access->size);
	return true;
}

static void access_ioapic(struct pc *pc, const struct pc_access *access)
{
	uint32_t offset = (uint32_t)(access->address - IOAPIC_GPA);
	uint32_t value;

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

static void access_pci(struct pc *pc, const struct pc_access *access)
{
	struct pci_access pci = pci_access_of(access, access->data);
	uint64_t offset = access->address - PCI_ECAM_GPA;

	if (offset < PCI_ECAM_BYTES)
		pci_config(&pc->pci, (uint32_t)offset, &pci);
	else if (!pci_memory(&pc->pci, access->address, &pci))
		pci.value = UINT64_MAX;
	if (!access->write)
		memcpy(access->data, &pci.value, access->size);
}

void pc_mmio(struct pc *pc, const struct pc_access *access, uint64_t now_ns)
{
	(void)now_ns;
	if (pc_mmio_local(access))
		return;
	if (is_ioapic(access))
		access_ioapic(pc, access);
	else
		access_pci(pc, access);
}

/* ---- the rest of the contract ---------------------------------------------------------------- */

static void send_interrupt(void *ctx, const struct interrupt *interrupt)
{
	struct pc *pc = ctx;

	pc->ops->interrupt(pc->ctx, interrupt);
}

static void send_doorbell(void *ctx, uint8_t device, uint16_t queue)
{
	struct pc *pc = ctx;

	pc->ops->doorbell(pc->ctx, device, queue);
}

static void send_published(void *ctx, const struct virtio_published *published)
{
	struct pc *pc = ctx;

	pc->ops->published(pc->ctx, published);
}

static const struct virtio_pci_ops virtio_ops = {
	.interrupt = send_interrupt,
	.doorbell = send_doorbell,
	.published = send_published,
};

static int add_devices(struct pc *pc, const struct pc_config *config)
{
	int error = 0;

	pci_reset(&pc->pci, config->high_window.gpa, config->high_window.bytes);
	if (config->device_count > VIRTIO_DEVICES_MAX)
		return -EINVAL;
	pc->device_count = config->device_count;
	pc->device = calloc(config->device_count, sizeof(*pc->device));
	if (!pc->device && config->device_count)
		return -ENOMEM;
	for (uint32_t i = 0; i < config->device_count && !error; i++)
		error = virtio_pci_add(&pc->device[i], &pc->pci, (uint8_t)i, &config->device[i],
				       &virtio_ops, pc);
	return error;
}

int pc_create(const struct pc_config *config, const struct pc_ops *ops, void *ctx,
	      struct pc **ret_pc)
{
	struct pc *pc = calloc(1, sizeof(*pc));
	int error;

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
	error = add_devices(pc, config);
	if (error) {
		pc_destroy(pc);
		return error;
	}
	*ret_pc = pc;
	return 0;
}

void pc_destroy(struct pc *pc)
{
	if (!pc)
		return;
	free(pc->device);
	free(pc);
}

void pc_output_room(struct pc *pc)
{
	flush_all(pc);
	update_lines(pc);
}

void pc_device_needs_reset(struct pc *pc, uint8_t device, uint64_t generation)
{
	if (device < pc->device_count)
		virtio_pci_needs_reset(&pc->device[device], generation);
}

void pc_device_stopped(struct pc *pc, uint8_t device, uint64_t generation)
{
	if (device < pc->device_count)
		virtio_pci_stopped(&pc->device[device], generation);
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

bool pc_press_power_button(struct pc *pc)
{
	bool pressed = acpi_pm_press_power_button(&pc->pm);

	update_lines(pc);
	return pressed;
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
		if (pc->output[port].count && !pc->serial[port].held)
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
		if (pc->output[port].count && !pc->serial[port].held &&
		    now_ns >= pc->output[port].since_ns + OUTPUT_NS)
			flush_output(pc, (enum pc_serial)port);
	}
	update_lines(pc);
}
