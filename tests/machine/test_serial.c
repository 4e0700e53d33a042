/* SPDX-License-Identifier: Apache-2.0 */
/* 16550A: what drivers do to find it, its interrupts, FIFO, loopback, bounded input. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "machine/serial.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR  IIR
#define OUT2 0x08

static uint8_t out;

static bool put(struct serial *serial, uint32_t reg, uint8_t value)
{
	return serial_write(serial, reg, value, &out);
}

static void test_detection(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	put(&serial, IER, 0xff);
	assert_int_equal(serial_read(&serial, IER), 0x0f); /* no UUE bit, as Xscale has */
	put(&serial, IER, 0);
	put(&serial, MCR, 0x10 | 0x0a); /* loopback: RTS, OUT2 -> CTS, DCD */
	assert_int_equal(serial_read(&serial, MSR) & 0xf0, 0x90);
	put(&serial, MCR, 0);
	assert_int_equal(serial_read(&serial, MSR) & 0xf0, 0xb0);
	assert_int_equal(serial_read(&serial, IIR), 0x01);
	put(&serial, FCR, 0x01);
	assert_int_equal(serial_read(&serial, IIR), 0xc1);
	put(&serial, FCR, 0x21); /* no 64-byte FIFO, as 16750 has */
	assert_int_equal(serial_read(&serial, IIR) >> 5, 6);
	put(&serial, LCR, 0x83);
	put(&serial, DATA, 0x34);
	put(&serial, IER, 0x12);
	assert_int_equal(serial_read(&serial, DATA), 0x34);
	assert_int_equal(serial_read(&serial, IER), 0x12);
	put(&serial, LCR, 0x03);
	assert_int_equal(serial_read(&serial, IER), 0);
	put(&serial, SCR, 0xa5);
	assert_int_equal(serial_read(&serial, SCR), 0xa5);
	put(&serial, LSR, 0); /* read-only */
	assert_int_equal(serial_read(&serial, LSR), 0x60);
	assert_int_equal(serial_read(&serial, 8), 0xff);
}

static void test_transmit(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	assert_true(put(&serial, DATA, 'x'));
	assert_int_equal(out, 'x');
	assert_false(serial_line(&serial));
	put(&serial, MCR, OUT2);
	put(&serial, IER, 0x02); /* enabled while empty: at once */
	assert_true(serial_line(&serial));
	assert_int_equal(serial_read(&serial, IIR), 0x02);
	assert_false(serial_line(&serial)); /* reported: taken back */
	assert_int_equal(serial_read(&serial, IIR), 0x01);
	put(&serial, IER, 0x02); /* no new edge of the enable bit */
	assert_false(serial_line(&serial));
	assert_true(put(&serial, DATA, 'y'));
	assert_true(serial_line(&serial));
	put(&serial, IER, 0);
	assert_false(serial_line(&serial));
	put(&serial, IER, 0x02);
	put(&serial, MCR, 0); /* OUT2 gates the pin */
	assert_false(serial_line(&serial));
	put(&serial, MCR, OUT2 | 0x10);
	assert_false(serial_line(&serial));
}

static void test_receive(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	put(&serial, FCR, 0x81); /* trigger at 8 */
	put(&serial, MCR, OUT2);
	put(&serial, IER, 0x01);
	assert_int_equal(serial_input(&serial, (const uint8_t *)"abc", 3), 3);
	assert_true(serial_line(&serial));
	assert_int_equal(serial_read(&serial, IIR), 0xcc); /* timeout */
	assert_int_equal(serial_read(&serial, LSR), 0x61);
	assert_int_equal(serial_read(&serial, DATA), 'a');
	serial_input(&serial, (const uint8_t *)"defghijk", 8);
	assert_int_equal(serial_read(&serial, IIR), 0xc4);
	for (int c = 'b'; c <= 'k'; c++)
		assert_int_equal(serial_read(&serial, DATA), c);
	assert_int_equal(serial_read(&serial, LSR), 0x60);
	assert_false(serial_line(&serial));
	assert_int_equal(serial_read(&serial, DATA), 0);
	/* receive has the priority over transmit */
	put(&serial, IER, 0x03);
	serial_input(&serial, (const uint8_t *)"z", 1);
	assert_int_equal(serial_read(&serial, IIR), 0xcc);
	serial_read(&serial, DATA);
	assert_int_equal(serial_read(&serial, IIR), 0xc2);
}

static void test_bounded_in_order(void **state)
{
	struct serial serial;
	uint8_t bytes[SERIAL_QUEUE + SERIAL_FIFO + 100];
	size_t taken, more;

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	serial_reset(&serial);
	put(&serial, FCR, 1);
	taken = serial_input(&serial, bytes, sizeof(bytes));
	assert_int_equal(taken, SERIAL_QUEUE);
	assert_int_equal(serial_room(&serial), SERIAL_FIFO);
	more = serial_input(&serial, bytes + taken, sizeof(bytes) - taken);
	assert_int_equal(more, SERIAL_FIFO);
	assert_int_equal(serial_input(&serial, bytes, 1), 0);
	for (size_t i = 0; i < taken + more; i++)
		assert_int_equal(serial_read(&serial, DATA), bytes[i]);
	assert_int_equal(serial_read(&serial, LSR), 0x60);
}

static void test_fifo_reset(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	put(&serial, FCR, 1);
	serial_input(&serial, (const uint8_t *)"0123456789abcdefXY", 18);
	put(&serial, FCR, 3); /* the FIFO's 16 are gone, what waits behind comes */
	assert_int_equal(serial_read(&serial, DATA), 'X');
	put(&serial, FCR, 0); /* off: empties it, too */
	serial_input(&serial, (const uint8_t *)"pq", 2);
	assert_int_equal(serial_read(&serial, DATA), 'p');
	assert_int_equal(serial_read(&serial, DATA), 'q');
}

static void test_loopback(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	put(&serial, FCR, 1);
	put(&serial, MCR, 0x10);
	serial_input(&serial, (const uint8_t *)"line", 4); /* waits outside */
	assert_false(put(&serial, DATA, 'L'));
	assert_int_equal(serial_read(&serial, DATA), 'L');
	assert_int_equal(serial_read(&serial, LSR), 0x60);
	for (int i = 0; i < 40; i++)
		assert_false(put(&serial, DATA, (uint8_t)i)); /* an overrun is dropped */
	for (int i = 0; i < 16; i++)
		assert_int_equal(serial_read(&serial, DATA), i);
	put(&serial, MCR, OUT2);
	put(&serial, FCR, 1);
	assert_int_equal(serial_read(&serial, DATA), 'l');
}

static void test_modem_status(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	put(&serial, MCR, 0x10);
	assert_int_equal(serial_read(&serial, MSR), 0x0b); /* CTS, DSR, DCD went away */
	assert_int_equal(serial_read(&serial, MSR), 0x00);
	put(&serial, MCR, 0x14);
	assert_int_equal(serial_read(&serial, MSR), 0x40); /* RI tells only of its end */
	put(&serial, IER, 0x08);
	put(&serial, MCR, OUT2);
	assert_true(serial_line(&serial));
	assert_int_equal(serial_read(&serial, IIR), 0x00);
	assert_int_equal(serial_read(&serial, MSR), 0xbf);
	assert_false(serial_line(&serial));
}

static void test_fuzz(void **state)
{
	struct serial serial;
	uint8_t bytes[64] = { 0 };

	(void)state;
	serial_reset(&serial);
	srand(5);
	for (int round = 0; round < 500000; round++) {
		put(&serial, (uint32_t)rand() % 9, (uint8_t)rand());
		serial_read(&serial, (uint32_t)rand() % 9);
		if (rand() % 4 == 0)
			serial_input(&serial, bytes, (size_t)rand() % sizeof(bytes));
		assert_true(serial.fifo_count <= SERIAL_FIFO);
		assert_true(serial.queue_count <= SERIAL_QUEUE);
	}
}

/* Who waits for the transmitter waits, and is interrupted when it is let go. */
static void test_a_held_transmitter(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	put(&serial, MCR, OUT2);
	serial_hold(&serial, true);
	put(&serial, IER, 0x02);
	assert_int_equal(serial_read(&serial, LSR), 0x00);
	assert_int_equal(serial_read(&serial, IIR), 0x01);
	assert_false(serial_line(&serial));
	assert_true(put(&serial, DATA, 'x')); /* it does not wait */
	assert_int_equal(out, 'x');
	assert_false(serial_line(&serial));
	serial_input(&serial, (const uint8_t *)"a", 1);
	assert_int_equal(serial_read(&serial, LSR), 0x01);
	serial_hold(&serial, false);
	assert_true(serial_line(&serial));
	assert_int_equal(serial_read(&serial, IIR), 0x02);
	assert_false(serial_line(&serial)); /* and it is told once */
	assert_int_equal(serial_read(&serial, LSR), 0x61);
}

/* A BREAK comes in its place among the bytes, is told by LSR once, and interrupts by itself. */
static void test_break(void **state)
{
	struct serial serial;

	(void)state;
	serial_reset(&serial);
	put(&serial, FCR, 0x01);
	put(&serial, MCR, OUT2);
	assert_int_equal(serial_input(&serial, (const uint8_t *)"ab", 2), 2);
	assert_int_equal(serial_break(&serial), 1);
	assert_int_equal(serial_input(&serial, (const uint8_t *)"c", 1), 1);
	put(&serial, IER, 0x04);
	assert_false(serial_line(&serial)); /* not yet */
	assert_int_equal(serial_read(&serial, LSR), 0xe1);
	assert_int_equal(serial_read(&serial, DATA), 'a');
	assert_int_equal(serial_read(&serial, LSR), 0xe1);
	assert_int_equal(serial_read(&serial, DATA), 'b');
	assert_true(serial_line(&serial));
	assert_int_equal(serial_read(&serial, IIR), 0xc6);
	assert_int_equal(serial_read(&serial, LSR), 0xf9);
	assert_int_equal(serial_read(&serial, LSR), 0x61);
	assert_false(serial_line(&serial));
	assert_int_equal(serial_read(&serial, DATA), 0);
	assert_int_equal(serial_read(&serial, DATA), 'c');
	assert_int_equal(serial_read(&serial, LSR), 0x60);

	/* It is before "data ready" where both are due. */
	put(&serial, IER, 0x05);
	assert_int_equal(serial_break(&serial), 1);
	assert_int_equal(serial_read(&serial, IIR), 0xc6);
	assert_int_equal(serial_read(&serial, LSR), 0xf9);
	assert_int_equal(serial_read(&serial, IIR), 0xc4);
	assert_int_equal(serial_read(&serial, DATA), 0);

	/* A full queue takes none. */
	while (serial_room(&serial))
		assert_int_equal(serial_break(&serial), 1);
	assert_int_equal(serial_break(&serial), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_break),	     cmocka_unit_test(test_a_held_transmitter),
		cmocka_unit_test(test_detection),    cmocka_unit_test(test_transmit),
		cmocka_unit_test(test_receive),	     cmocka_unit_test(test_bounded_in_order),
		cmocka_unit_test(test_fifo_reset),   cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_modem_status), cmocka_unit_test(test_fuzz),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
