/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8254 (contract: pit.h; Intel 8254 data sheet).
 *
 * A channel is a mode, a reload value and the time its count began; counter and output pin follow
 * from these and the present time. Only channel 0's edges must be made to happen: irq_ns is the
 * next one.
 *
 * Left out: BCD counting (counts are binary whatever bit 0 says), gates of channels 0 and 1 (tied
 * high), edges that a guest would have missed by reading too late (one interrupt for any number of
 * periods).
 *
 * Tested in tests/machine/test_pit.c.
 */
#include "machine/pit.h"

#define NS_PER_S 1000000000ull

enum pit_mode { TERMINAL_COUNT, ONE_SHOT, RATE, SQUARE, SOFTWARE_STROBE, HARDWARE_STROBE };

#define ACCESS_LATCH 0u
#define ACCESS_BOTH  3u
#define READ_BACK    3u /* channel number in a control word */

#define STATUS_OUT  0x80u
#define STATUS_NULL 0x40u

#define PORT_61_GATE	0x01u
#define PORT_61_SPEAKER 0x02u
#define PORT_61_REFRESH 0x10u
#define PORT_61_OUT	0x20u
#define REFRESH_NS	15085u

static uint64_t ns_to_ticks(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_S);
}

/* Rounded up: at that time the tick has surely happened. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

static bool is_periodic(const struct pit_channel *channel)
{
	return channel->mode == RATE || channel->mode == SQUARE;
}

static uint64_t elapsed_ticks(const struct pit_channel *channel, uint64_t now_ns)
{
	return channel->gate ? ns_to_ticks(now_ns - channel->start_ns) : channel->frozen_ticks;
}

static uint16_t counter(const struct pit_channel *channel, uint64_t now_ns)
{
	uint64_t ticks = elapsed_ticks(channel, now_ns);

	if (!channel->loaded)
		return 0;
	switch (channel->mode) {
	case RATE:
		return (uint16_t)(channel->reload - ticks % channel->reload);
	case SQUARE: /* counts by two, twice a period */
		return (uint16_t)((channel->reload - ticks * 2 % channel->reload) & ~1u);
	default: /* goes on below zero */
		return (uint16_t)(channel->reload - ticks);
	}
}

static bool output(const struct pit_channel *channel, uint64_t now_ns)
{
	uint64_t ticks = elapsed_ticks(channel, now_ns);

	if (!channel->loaded)
		return channel->mode != TERMINAL_COUNT;
	switch (channel->mode) {
	case TERMINAL_COUNT:
	case ONE_SHOT:
		return ticks >= channel->reload;
	case RATE:
		return ticks % channel->reload != channel->reload - 1;
	case SQUARE:
		return ticks % channel->reload < (channel->reload + 1) / 2;
	default: /* strobes: low for one tick */
		return ticks != channel->reload;
	}
}

/* When channel 0 next raises its output after now. */
static void plan_irq(struct pit *pit, uint64_t now_ns)
{
	const struct pit_channel *channel = &pit->channel[0];
	uint64_t ticks = elapsed_ticks(channel, now_ns);

	pit->irq_ns = UINT64_MAX;
	if (!channel->loaded)
		return;
	if (is_periodic(channel))
		ticks = (ticks / channel->reload + 1) * channel->reload;
	else if (ticks < channel->reload && channel->mode != ONE_SHOT &&
		 channel->mode != HARDWARE_STROBE)
		ticks = channel->reload;
	else
		return;
	pit->irq_ns = channel->start_ns + ticks_to_ns(ticks);
}

static void load(struct pit *pit, uint32_t number, uint32_t count, uint64_t now_ns)
{
	struct pit_channel *channel = &pit->channel[number];

	channel->reload = count ? count : 65536;
	channel->loaded = true;
	channel->start_ns = now_ns;
	channel->frozen_ticks = 0;
	if (number == 0)
		plan_irq(pit, now_ns);
}

void pit_reset(struct pit *pit, uint64_t now_ns)
{
	*pit = (struct pit){ .irq_ns = UINT64_MAX };
	for (uint32_t number = 0; number < PIT_CHANNELS; number++) {
		pit->channel[number] = (struct pit_channel){
			.mode = SQUARE,
			.access = ACCESS_BOTH,
			.gate = number != 2,
			.reload = 65536,
			.start_ns = now_ns,
		};
	}
}

static void latch_count(struct pit_channel *channel, uint64_t now_ns)
{
	if (channel->count_latched)
		return;
	channel->count_latched = true;
	channel->latched_count = counter(channel, now_ns);
	channel->read_high = false;
}

static void latch_status(struct pit_channel *channel, uint64_t now_ns)
{
	if (channel->status_latched)
		return;
	channel->status_latched = true;
	channel->latched_status = (uint8_t)((output(channel, now_ns) ? STATUS_OUT : 0) |
					    (channel->loaded ? 0 : STATUS_NULL) |
					    channel->access << 4 | channel->mode << 1);
}

static void read_back(struct pit *pit, uint8_t value, uint64_t now_ns)
{
	for (uint32_t number = 0; number < PIT_CHANNELS; number++) {
		if (!(value >> (number + 1) & 1))
			continue;
		if (!(value & 0x20))
			latch_count(&pit->channel[number], now_ns);
		if (!(value & 0x10))
			latch_status(&pit->channel[number], now_ns);
	}
}

static void write_control(struct pit *pit, uint8_t value, uint64_t now_ns)
{
	uint32_t number = value >> 6;
	uint8_t access = value >> 4 & 3;
	uint8_t mode = value >> 1 & 7;
	struct pit_channel *channel;

	if (number == READ_BACK) {
		read_back(pit, value, now_ns);
		return;
	}
	channel = &pit->channel[number];
	if (access == ACCESS_LATCH) {
		latch_count(channel, now_ns);
		return;
	}
	channel->access = access;
	channel->mode = mode > HARDWARE_STROBE ? mode - 4 : mode; /* 6 and 7 are 2 and 3 */
	channel->loaded = false;
	channel->write_high = channel->read_high = false;
	channel->count_latched = channel->status_latched = false;
	if (number == 0)
		plan_irq(pit, now_ns);
}

static void write_count(struct pit *pit, uint32_t number, uint8_t value, uint64_t now_ns)
{
	struct pit_channel *channel = &pit->channel[number];

	switch (channel->access) {
	case 1:
		load(pit, number, value, now_ns);
		break;
	case 2:
		load(pit, number, (uint32_t)value << 8, now_ns);
		break;
	default:
		if (channel->write_high)
			load(pit, number, (uint32_t)value << 8 | channel->write_low, now_ns);
		else
			channel->write_low = value;
		channel->write_high = !channel->write_high;
		break;
	}
}

void pit_write(struct pit *pit, uint32_t reg, uint8_t value, uint64_t now_ns)
{
	if (reg == 3)
		write_control(pit, value, now_ns);
	else
		write_count(pit, reg, value, now_ns);
}

uint8_t pit_read(struct pit *pit, uint32_t reg, uint64_t now_ns)
{
	struct pit_channel *channel;
	uint16_t count;
	bool high;

	if (reg >= PIT_CHANNELS)
		return 0xff;
	channel = &pit->channel[reg];
	if (channel->status_latched) {
		channel->status_latched = false;
		return channel->latched_status;
	}
	count = channel->count_latched ? channel->latched_count : counter(channel, now_ns);
	high = channel->access == 2 || (channel->access == ACCESS_BOTH && channel->read_high);
	if (channel->access == ACCESS_BOTH)
		channel->read_high = !channel->read_high;
	/* A latched count is gone when all of it has been read. */
	if (channel->access != ACCESS_BOTH || high)
		channel->count_latched = false;
	return (uint8_t)(high ? count >> 8 : count);
}

uint8_t pit_read_port_61(const struct pit *pit, uint64_t now_ns)
{
	const struct pit_channel *channel = &pit->channel[2];

	return (uint8_t)((channel->gate ? PORT_61_GATE : 0) | pit->speaker |
			 (now_ns / REFRESH_NS % 2 ? PORT_61_REFRESH : 0) |
			 (output(channel, now_ns) ? PORT_61_OUT : 0));
}

void pit_write_port_61(struct pit *pit, uint8_t value, uint64_t now_ns)
{
	struct pit_channel *channel = &pit->channel[2];
	bool gate = value & PORT_61_GATE;

	pit->speaker = value & PORT_61_SPEAKER;
	if (gate == channel->gate)
		return;
	if (gate) {
		/* Modes 0 and 4 go on where they were; the others start anew at the gate's edge. */
		bool resume = channel->mode == TERMINAL_COUNT || channel->mode == SOFTWARE_STROBE;

		channel->start_ns = now_ns - (resume ? ticks_to_ns(channel->frozen_ticks) : 0);
	} else {
		channel->frozen_ticks = elapsed_ticks(channel, now_ns);
	}
	channel->gate = gate;
}

uint64_t pit_deadline(const struct pit *pit)
{
	return pit->irq_ns;
}

bool pit_tick(struct pit *pit, uint64_t now_ns)
{
	if (now_ns < pit->irq_ns)
		return false;
	plan_irq(pit, now_ns);
	return true;
}
