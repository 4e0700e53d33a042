/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A serial port. Pure; single-threaded.
 *
 * Sending takes no time: what the guest writes is output at once and the transmitter is empty, unless
 * it is held because nobody takes what comes out. Input waits in a bounded queue behind the 16-byte
 * FIFO; nothing of it is ever lost to an overrun. A BREAK waits its turn there as a zero byte with a
 * mark.
 */
#ifndef MACHINE_SERIAL_H
#define MACHINE_SERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIAL_FIFO  16u
#define SERIAL_QUEUE 4096u
#define SERIAL_BREAK 0x100u /* in the FIFO and the queue: a BREAK, not a byte */

struct serial {
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	uint8_t msr_delta; /* low half of MSR */
	uint8_t msr_lines; /* high half of MSR */
	bool fifo_enabled;
	uint8_t trigger;   /* bytes in the FIFO that make "data ready" instead of "timeout" */
	bool thre_pending; /* the transmitter has become empty, and nobody has been told */
	bool held;	   /* it is not empty */
	uint16_t fifo[SERIAL_FIFO];
	uint32_t fifo_count;
	uint16_t queue[SERIAL_QUEUE];
	uint32_t queue_first, queue_count;
};

void serial_reset(struct serial *serial);

/* reg: 0..7. Reading has side effects. */
uint8_t serial_read(struct serial *serial, uint32_t reg);
/* True: `*ret_output` goes out. */
bool serial_write(struct serial *serial, uint32_t reg, uint8_t value, uint8_t *ret_output);

/*
 * The transmitter is busy until it is let go. A driver waits for it then; what one writes nevertheless
 * is output all the same, and may find no room there.
 */
void serial_hold(struct serial *serial, bool held);

/* The interrupt pin, after every call that changes something. */
bool serial_line(const struct serial *serial);

/* Input. Returns the bytes taken: at most serial_room(). */
size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t count);
size_t serial_room(const struct serial *serial);
/* A BREAK behind the input so far. 1: taken; 0: there is no room. */
size_t serial_break(struct serial *serial);

#endif
