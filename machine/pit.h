/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interval timer (i8254) and the system control port 61h. Pure; single-threaded.
 *
 * Channel 0 makes timer interrupts (pin 2 of the I/O APIC) for guests that have no better timer;
 * channel 2 is what guests calibrate their TSC with. Counts are computed from the pod clock.
 */
#ifndef MACHINE_PIT_H
#define MACHINE_PIT_H

#include <stdbool.h>
#include <stdint.h>

#define PIT_CHANNELS 3u
#define PIT_HZ	     1193182u

struct pit_channel {
	uint8_t mode;	/* 0..5 */
	uint8_t access; /* 1 low byte, 2 high byte, 3 both */
	bool loaded;	/* a count has been written since the mode */
	bool gate;
	bool write_high; /* next byte written, read is the high one */
	bool read_high;
	uint8_t write_low;
	uint32_t reload;       /* 1..65536 */
	uint64_t start_ns;     /* pod clock when the count began */
	uint64_t frozen_ticks; /* counted while the gate was open, if it is shut now */
	bool count_latched, status_latched;
	uint16_t latched_count;
	uint8_t latched_status;
};

struct pit {
	struct pit_channel channel[PIT_CHANNELS];
	uint8_t speaker; /* bit 1 of port 61h */
	uint64_t irq_ns; /* pod clock of channel 0's next interrupt; UINT64_MAX: none */
};

void pit_reset(struct pit *pit, uint64_t now_ns);
/* reg: 0..3 (ports 40h..43h) */
uint8_t pit_read(struct pit *pit, uint32_t reg, uint64_t now_ns);
void pit_write(struct pit *pit, uint32_t reg, uint8_t value, uint64_t now_ns);
uint8_t pit_read_port_61(const struct pit *pit, uint64_t now_ns);
void pit_write_port_61(struct pit *pit, uint8_t value, uint64_t now_ns);

uint64_t pit_deadline(const struct pit *pit);
/* True: channel 0 has made an edge since the last call. */
bool pit_tick(struct pit *pit, uint64_t now_ns);

#endif
