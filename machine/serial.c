/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A (contract: serial.h; registers: National PC16550D data sheet).
 *
 * Interrupts are levels computed from the state (serial_line()). The one thing that has a memory is
 * "transmitter empty": it is raised by a write to THR and by the enabling of its interrupt, and
 * taken back by the read of IIR that reports it.
 *
 * A BREAK is a zero byte in the FIFO; while it is the next to be read, LSR says so until LSR has
 * been read (8.4).
 *
 * Left out: baud rates, parity, other errors, sending a BREAK, DMA mode.
 *
 * Tested in tests/machine/test_serial.c.
 */
#include "machine/serial.h"

#include <string.h>

enum serial_register {
	REG_DATA,
	REG_IER,
	REG_IIR_FCR,
	REG_LCR,
	REG_MCR,
	REG_LSR,
	REG_MSR,
	REG_SCR
};

#define IER_RX	  0x01u
#define IER_THRE  0x02u
#define IER_LINE  0x04u
#define IER_MODEM 0x08u
#define IER_BITS  0x0fu

#define IIR_NONE    0x01u
#define IIR_MODEM   0x00u
#define IIR_THRE    0x02u
#define IIR_RX	    0x04u
#define IIR_LINE    0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFO    0xc0u

#define FCR_ENABLE   0x01u
#define FCR_RESET_RX 0x02u

#define LCR_DLAB 0x80u

#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_BITS 0x1fu

#define LSR_READY 0x01u
#define LSR_BREAK 0x18u /* BI, and FE: there was no stop bit */
#define LSR_EMPTY 0x60u /* THR and shift register */
#define LSR_FIFO  0x80u /* an error is somewhere in the FIFO */

#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI	0x40u
#define MSR_DCD 0x80u

void serial_reset(struct serial *serial)
{
	*serial = (struct serial){ .dll = 12,
				   .trigger = 1,
				   .msr_lines = MSR_DCD | MSR_DSR | MSR_CTS };
}

/* Moves input from the queue to the FIFO (which is one byte deep when it is off). */
static void refill(struct serial *serial)
{
	uint32_t depth = serial->fifo_enabled ? SERIAL_FIFO : 1;

	while (serial->fifo_count < depth && serial->queue_count && !(serial->mcr & MCR_LOOP)) {
		serial->fifo[serial->fifo_count++] = serial->queue[serial->queue_first];
		serial->queue_first = (serial->queue_first + 1) % SERIAL_QUEUE;
		serial->queue_count--;
	}
}

static uint8_t take_byte(struct serial *serial)
{
	uint8_t byte = (uint8_t)serial->fifo[0];

	if (serial->fifo_count == 0)
		return 0;
	serial->fifo_count--;
	memmove(serial->fifo, serial->fifo + 1, serial->fifo_count * sizeof(serial->fifo[0]));
	refill(serial);
	return byte;
}

static bool next_is_break(const struct serial *serial)
{
	return serial->fifo_count && (serial->fifo[0] & SERIAL_BREAK);
}

static uint8_t read_lsr(struct serial *serial)
{
	uint8_t value =
		(uint8_t)((serial->held ? 0 : LSR_EMPTY) | (serial->fifo_count ? LSR_READY : 0));

	for (uint32_t i = 0; serial->fifo_enabled && i < serial->fifo_count; i++)
		if (serial->fifo[i] & SERIAL_BREAK)
			value |= LSR_FIFO;
	if (next_is_break(serial)) {
		value |= LSR_BREAK;
		serial->fifo[0] = 0;
	}
	return value;
}

/* The cause that IIR names: the pending one of highest priority. */
static uint8_t pending_cause(const struct serial *serial)
{
	if ((serial->ier & IER_LINE) && next_is_break(serial))
		return IIR_LINE;
	if ((serial->ier & IER_RX) && serial->fifo_count >= serial->trigger)
		return IIR_RX;
	if ((serial->ier & IER_RX) && serial->fifo_count)
		return IIR_TIMEOUT;
	if ((serial->ier & IER_THRE) && serial->thre_pending && !serial->held)
		return IIR_THRE;
	if ((serial->ier & IER_MODEM) && serial->msr_delta)
		return IIR_MODEM;
	return IIR_NONE;
}

bool serial_line(const struct serial *serial)
{
	/* A PC gates the pin with OUT2, which loopback disconnects. */
	if (!(serial->mcr & MCR_OUT2) || (serial->mcr & MCR_LOOP))
		return false;
	return pending_cause(serial) != IIR_NONE;
}

static uint8_t read_iir(struct serial *serial)
{
	uint8_t cause = pending_cause(serial);

	if (cause == IIR_THRE)
		serial->thre_pending = false;
	return cause | (serial->fifo_enabled ? IIR_FIFO : 0);
}

uint8_t serial_read(struct serial *serial, uint32_t reg)
{
	bool dlab = serial->lcr & LCR_DLAB;
	uint8_t value;

	switch (reg) {
	case REG_DATA:
		return dlab ? serial->dll : take_byte(serial);
	case REG_IER:
		return dlab ? serial->dlm : serial->ier;
	case REG_IIR_FCR:
		return read_iir(serial);
	case REG_LCR:
		return serial->lcr;
	case REG_MCR:
		return serial->mcr;
	case REG_LSR:
		return read_lsr(serial);
	case REG_MSR:
		value = serial->msr_lines | serial->msr_delta;
		serial->msr_delta = 0;
		return value;
	case REG_SCR:
		return serial->scr;
	default:
		return 0xff;
	}
}

/* Modem inputs: in loopback they are the modem outputs (PC16550D 8.6.7). */
static void update_modem_lines(struct serial *serial)
{
	uint8_t lines = MSR_DCD | MSR_DSR | MSR_CTS;
	uint8_t changed;

	if (serial->mcr & MCR_LOOP)
		lines = (uint8_t)((serial->mcr & 0x02 ? MSR_CTS : 0) |
				  (serial->mcr & 0x01 ? MSR_DSR : 0) |
				  (serial->mcr & 0x04 ? MSR_RI : 0) |
				  (serial->mcr & 0x08 ? MSR_DCD : 0));
	changed = lines ^ serial->msr_lines;
	/* RI is reported only when it ends. */
	if ((changed & MSR_RI) && (lines & MSR_RI))
		changed &= (uint8_t)~MSR_RI;
	serial->msr_delta |= changed >> 4;
	serial->msr_lines = lines;
}

static void write_ier(struct serial *serial, uint8_t value)
{
	bool was_on = serial->ier & IER_THRE;

	serial->ier = value & IER_BITS;
	if ((serial->ier & IER_THRE) && !was_on)
		serial->thre_pending = true;
	if (!(serial->ier & IER_THRE))
		serial->thre_pending = false;
}

static void write_fcr(struct serial *serial, uint8_t value)
{
	static const uint8_t trigger[4] = { 1, 4, 8, 14 };
	bool enabled = value & FCR_ENABLE;

	if (enabled != serial->fifo_enabled || (value & FCR_RESET_RX))
		serial->fifo_count = 0;
	serial->fifo_enabled = enabled;
	serial->trigger = enabled ? trigger[value >> 6] : 1;
	refill(serial);
}

/* THR: the byte goes out, or comes back in loopback. */
static bool write_data(struct serial *serial, uint8_t value, uint8_t *ret_output)
{
	uint32_t depth = serial->fifo_enabled ? SERIAL_FIFO : 1;

	serial->thre_pending = serial->ier & IER_THRE;
	if (serial->mcr & MCR_LOOP) {
		if (serial->fifo_count < depth)
			serial->fifo[serial->fifo_count++] = value;
		return false;
	}
	*ret_output = value;
	return true;
}

bool serial_write(struct serial *serial, uint32_t reg, uint8_t value, uint8_t *ret_output)
{
	bool dlab = serial->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		if (!dlab)
			return write_data(serial, value, ret_output);
		serial->dll = value;
		break;
	case REG_IER:
		if (dlab)
			serial->dlm = value;
		else
			write_ier(serial, value);
		break;
	case REG_IIR_FCR:
		write_fcr(serial, value);
		break;
	case REG_LCR:
		serial->lcr = value;
		break;
	case REG_MCR:
		serial->mcr = value & MCR_BITS;
		update_modem_lines(serial);
		refill(serial);
		break;
	case REG_SCR:
		serial->scr = value;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
	return false;
}

void serial_hold(struct serial *serial, bool held)
{
	serial->held = held;
}

size_t serial_room(const struct serial *serial)
{
	return SERIAL_QUEUE - serial->queue_count;
}

static void enqueue(struct serial *serial, uint16_t value)
{
	serial->queue[(serial->queue_first + serial->queue_count) % SERIAL_QUEUE] = value;
	serial->queue_count++;
}

size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t count)
{
	size_t taken = count < serial_room(serial) ? count : serial_room(serial);

	for (size_t i = 0; i < taken; i++)
		enqueue(serial, bytes[i]);
	refill(serial);
	return taken;
}

size_t serial_break(struct serial *serial)
{
	if (!serial_room(serial))
		return 0;
	enqueue(serial, SERIAL_BREAK);
	refill(serial);
	return 1;
}
