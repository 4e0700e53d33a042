/* SPDX-License-Identifier: Apache-2.0 */
/* The pair of i8259 (machine/pic.h), used as Linux uses it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "machine/pic.h"

static struct pic pic;

/* Vectors 30h and 38h, all masked: arch/x86/kernel/i8259.c, init_8259A(). */
static int set_up(void **state)
{
	static const struct {
		enum pic_port port;
		uint8_t value;
	} words[] = {
		{ PIC_21, 0xff }, { PIC_20, 0x11 }, { PIC_21, 0x30 }, { PIC_21, 0x04 },
		{ PIC_21, 0x01 }, { PIC_A0, 0x11 }, { PIC_A1, 0x38 }, { PIC_A1, 0x02 },
		{ PIC_A1, 0x01 }, { PIC_21, 0xff }, { PIC_A1, 0xff },
	};

	(void)state;
	pic_reset(&pic);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		pic_write(&pic, words[i].port, words[i].value);
	return 0;
}

static void unmask_all(void)
{
	pic_write(&pic, PIC_21, 0);
	pic_write(&pic, PIC_A1, 0);
}

static void pulse(uint32_t irq)
{
	pic_set_line(&pic, irq, true);
	pic_set_line(&pic, irq, false);
}

static void test_uninitialised(void **state)
{
	(void)state;
	pic_reset(&pic);
	assert_int_equal(pic_read(&pic, PIC_21), 0xff);
	unmask_all();
	pulse(0);
	pulse(9);
	assert_int_equal(pic_take(&pic), -1);
	/* edges from before are forgotten */
	set_up(NULL);
	unmask_all();
	assert_int_equal(pic_take(&pic), -1);
}

static void test_edge(void **state)
{
	(void)state;
	pulse(4);
	assert_int_equal(pic_take(&pic), -1);
	assert_int_equal(pic_read(&pic, PIC_20), 0x10);
	unmask_all();
	assert_int_equal(pic_take(&pic), 0x34);
	assert_int_equal(pic_take(&pic), -1);
	assert_int_equal(pic_read(&pic, PIC_20), 0);
	pic_write(&pic, PIC_20, 0x0b);
	assert_int_equal(pic_read(&pic, PIC_20), 0x10);
	pulse(4); /* once more while in service */
	assert_int_equal(pic_take(&pic), -1);
	pic_write(&pic, PIC_20, 0x64);
	assert_int_equal(pic_take(&pic), 0x34);
	/* the line stays up: no other edge */
	pic_write(&pic, PIC_20, 0x20);
	pic_set_line(&pic, 4, true);
	assert_int_equal(pic_take(&pic), 0x34);
	pic_write(&pic, PIC_20, 0x20);
	pic_set_line(&pic, 4, true);
	assert_int_equal(pic_take(&pic), -1);
}

static void test_priority(void **state)
{
	(void)state;
	unmask_all();
	pulse(4);
	pulse(3);
	pulse(8);
	pulse(0);
	assert_int_equal(pic_take(&pic), 0x30);
	assert_int_equal(pic_take(&pic), -1);
	pic_write(&pic, PIC_20, 0x60);
	assert_int_equal(pic_take(&pic), 0x38); /* the slave is at input 2 */
	pulse(0);				/* is more urgent */
	assert_int_equal(pic_take(&pic), 0x30);
	pic_write(&pic, PIC_20, 0x60);
	assert_int_equal(pic_take(&pic), -1);
	pic_write(&pic, PIC_A0, 0x60);
	pic_write(&pic, PIC_20, 0x62);
	assert_int_equal(pic_take(&pic), 0x33);
	pic_write(&pic, PIC_20, 0x63);
	assert_int_equal(pic_take(&pic), 0x34);
}

static void test_slave(void **state)
{
	(void)state;
	unmask_all();
	pulse(12);
	pulse(14);
	assert_int_equal(pic_take(&pic), 0x3c);
	assert_int_equal(pic_take(&pic), -1);
	pic_write(&pic, PIC_A0, 0x64);
	assert_int_equal(pic_take(&pic), -1); /* the master's input 2 is in service yet */
	pic_write(&pic, PIC_20, 0x62);
	assert_int_equal(pic_take(&pic), 0x3e);
	pic_write(&pic, PIC_A0, 0x66);
	pic_write(&pic, PIC_20, 0x62);
	assert_int_equal(pic_take(&pic), -1);
	pic_write(&pic, PIC_21, 0x04);
	pulse(12);
	assert_int_equal(pic_take(&pic), -1);
}

static void test_level(void **state)
{
	(void)state;
	pic_write(&pic, PIC_4D1, 0x02);
	pic_write(&pic, PIC_4D0, 0x07); /* IRQs 0 to 2 stay edge-triggered */
	assert_int_equal(pic_read(&pic, PIC_4D0), 0);
	assert_int_equal(pic_read(&pic, PIC_4D1), 0x02);
	unmask_all();
	pic_set_line(&pic, 9, true);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pic_take(&pic), 0x39);
		pic_write(&pic, PIC_A0, 0x61);
		pic_write(&pic, PIC_20, 0x62);
	}
	pic_set_line(&pic, 9, false);
	assert_int_equal(pic_take(&pic), -1);
}

static void test_auto_eoi(void **state)
{
	(void)state;
	pic_write(&pic, PIC_20, 0x11);
	pic_write(&pic, PIC_21, 0x40);
	pic_write(&pic, PIC_21, 0x04);
	pic_write(&pic, PIC_21, 0x03);
	pulse(5);
	assert_int_equal(pic_take(&pic), 0x45);
	pulse(5);
	assert_int_equal(pic_take(&pic), 0x45);
}

/* Whatever is written: no vector but those of the bases, and no endless stream of edges. */
static void test_fuzz(void **state)
{
	(void)state;
	srand(7);
	for (int i = 0; i < 200000; i++) {
		int taken = 0, vector;

		if (rand() % 2)
			pic_write(&pic, (enum pic_port)(rand() % PIC_PORTS), (uint8_t)rand());
		else
			pic_set_line(&pic, (uint32_t)rand() % PIC_IRQS, rand() % 2);
		while ((vector = pic_take(&pic)) >= 0) {
			assert_in_range(vector, 0, 255);
			/* automatic EOI of a level that stays is without end */
			if (pic.chip[0].auto_eoi || pic.chip[1].auto_eoi)
				break;
			assert_true(++taken <= 16);
		}
		pic_read(&pic, (enum pic_port)(rand() % PIC_PORTS));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uninitialised),
		cmocka_unit_test_setup(test_edge, set_up),
		cmocka_unit_test_setup(test_priority, set_up),
		cmocka_unit_test_setup(test_slave, set_up),
		cmocka_unit_test_setup(test_level, set_up),
		cmocka_unit_test_setup(test_auto_eoi, set_up),
		cmocka_unit_test_setup(test_fuzz, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
