/* SPDX-License-Identifier: Apache-2.0 */
/* i8254: counting, latches, the gate of channel 2, interrupts of channel 0, wrap-around. */
#include "tests/test.h"

#include <stdlib.h>

#include "machine/pit.h"

#define MS 1000000ull

static void load(struct pit *pit, uint32_t channel, uint8_t mode, uint16_t count, uint64_t now)
{
	pit_write(pit, 3, (uint8_t)(channel << 6 | 0x30 | mode << 1), now);
	pit_write(pit, channel, (uint8_t)count, now);
	pit_write(pit, channel, (uint8_t)(count >> 8), now);
}

static uint16_t latched(struct pit *pit, uint32_t channel, uint64_t now)
{
	uint16_t count;

	pit_write(pit, 3, (uint8_t)(channel << 6), now);
	count = pit_read(pit, channel, now + 5 * MS); /* the latch holds */
	return (uint16_t)(count | pit_read(pit, channel, now + 9 * MS) << 8);
}

static void test_counting(void **state)
{
	struct pit pit;

	(void)state;
	pit_reset(&pit, 0);
	load(&pit, 0, 2, 10000, 1000);
	assert_int_equal(latched(&pit, 0, 1000), 10000);
	assert_int_equal(latched(&pit, 0, 1000 + MS), 10000 - 1193);
	assert_int_equal(latched(&pit, 0, 1000 + 10 * MS), 10000 - (11931 - 10000));
	load(&pit, 0, 3, 10000, 0);
	assert_int_equal(latched(&pit, 0, MS), 10000 - 2 * 1193);
	load(&pit, 0, 0, 1000, 0);
	assert_int_equal(latched(&pit, 0, MS), (uint16_t)(1000 - 1193)); /* wraps below zero */
	load(&pit, 0, 2, 0, 0);						 /* 65536 */
	assert_int_equal(latched(&pit, 0, MS), 65536 - 1193);
	assert_int_equal(pit_read(&pit, 3, 0), 0xff);
}

/* How Linux and others calibrate: mode 0, gate on, wait for OUT. */
static void test_calibration(void **state)
{
	struct pit pit;
	uint64_t now = 7 * MS;

	(void)state;
	pit_reset(&pit, 0);
	pit_write_port_61(&pit, 0x01, now);
	assert_int_equal(pit_read_port_61(&pit, now) & 0x03, 0x01);
	load(&pit, 2, 0, 11931, now); /* 10 ms */
	assert_false(pit_read_port_61(&pit, now) & 0x20);
	assert_false(pit_read_port_61(&pit, now + 9990000) & 0x20);
	assert_true(pit_read_port_61(&pit, now + 10000000) & 0x20);
	/* closing the gate stops mode 0, opening lets it go on */
	load(&pit, 2, 0, 11931, now);
	pit_write_port_61(&pit, 0x00, now + 4 * MS);
	assert_int_equal(latched(&pit, 2, now + 50 * MS), 11931 - 4772);
	pit_write_port_61(&pit, 0x01, now + 50 * MS);
	assert_false(pit_read_port_61(&pit, now + 55900000) & 0x20);
	assert_true(pit_read_port_61(&pit, now + 56100000) & 0x20);
	/* the refresh bit toggles */
	assert_int_not_equal(pit_read_port_61(&pit, 0) & 0x10,
			     pit_read_port_61(&pit, 16000) & 0x10);
	assert_int_equal(pit.irq_ns, UINT64_MAX);
}

static void test_interrupts(void **state)
{
	struct pit pit;
	uint64_t due;

	(void)state;
	pit_reset(&pit, 0);
	assert_int_equal(pit_deadline(&pit), UINT64_MAX);
	load(&pit, 0, 2, 4773, 0); /* 250 Hz */
	for (int i = 1; i < 100; i++) {
		due = pit_deadline(&pit);
		assert_int_equal(due, ((uint64_t)i * 4773 * 1000000000 + 1193181) / 1193182);
		assert_false(pit_tick(&pit, due - 1));
		assert_true(pit_tick(&pit, due));
		assert_false(pit_tick(&pit, due));
	}
	assert_true(pit_tick(&pit, due + 1000 * MS)); /* far behind: one */
	assert_true(pit_deadline(&pit) > due + 1000 * MS);
	load(&pit, 0, 4, 1193, 50 * MS); /* one shot */
	due = pit_deadline(&pit);
	assert_true(due > 50 * MS + 999000 && due < 50 * MS + 1001000);
	assert_true(pit_tick(&pit, due));
	assert_int_equal(pit_deadline(&pit), UINT64_MAX);
	pit_write(&pit, 3, 0x34, due); /* a new mode without a count: silent */
	assert_int_equal(pit_deadline(&pit), UINT64_MAX);
	load(&pit, 0, 1, 100, 0); /* waits for a gate that never moves */
	assert_int_equal(pit_deadline(&pit), UINT64_MAX);
}

static void test_access_modes(void **state)
{
	struct pit pit;

	(void)state;
	pit_reset(&pit, 0);
	pit_write(&pit, 3, 0x14, 0); /* channel 0, low byte only, mode 2 */
	pit_write(&pit, 0, 200, 0);
	assert_int_equal(pit_read(&pit, 0, 0), 200);
	pit_write(&pit, 3, 0x24, 0); /* high byte only */
	pit_write(&pit, 0, 0x12, 0);
	assert_int_equal(pit_read(&pit, 0, 0), 0x12);
	assert_int_equal(pit.channel[0].reload, 0x1200);
	/* read back: status, then count */
	load(&pit, 0, 2, 1000, 0);
	pit_write(&pit, 3, 0xc2, 0);
	assert_int_equal(pit_read(&pit, 0, 0), 0x80 | 0x30 | 0x04);
	assert_int_equal(pit_read(&pit, 0, MS / 2), 1000 & 0xff);
	assert_int_equal(pit_read(&pit, 0, MS / 2), 1000 >> 8);
	pit_write(&pit, 3, 0x34, 0); /* null count until loaded */
	pit_write(&pit, 3, 0xe2, 0);
	assert_true(pit_read(&pit, 0, 0) & 0x40);
}

static void test_fuzz(void **state)
{
	struct pit pit;
	uint64_t now = 0;

	(void)state;
	srand(4);
	pit_reset(&pit, 0);
	for (int round = 0; round < 500000; round++) {
		now += (uint64_t)rand() >> (rand() % 31);
		if (rand() % 8 == 0)
			pit_write_port_61(&pit, (uint8_t)rand(), now);
		pit_write(&pit, (uint32_t)rand() % 4, (uint8_t)rand(), now);
		pit_read(&pit, (uint32_t)rand() % 5, now);
		pit_read_port_61(&pit, now);
		pit_tick(&pit, now);
		assert_true(pit_deadline(&pit) > now);
	}
	/* years of uptime */
	load(&pit, 0, 2, 1000, now);
	assert_true(latched(&pit, 0, 1ull << 60) <= 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counting),   cmocka_unit_test(test_calibration),
		cmocka_unit_test(test_interrupts), cmocka_unit_test(test_access_modes),
		cmocka_unit_test(test_fuzz),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
