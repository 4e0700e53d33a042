/* SPDX-License-Identifier: Apache-2.0 */
/* CMOS clock: against gmtime(), setting it, the alarm. */
#include "tests/test.h"

#include <stdlib.h>
#include <time.h>

#include "machine/rtc.h"

#define S 1000000000ull

static uint8_t get(struct rtc *rtc, uint8_t index, uint64_t now)
{
	rtc_write(rtc, 0, index, now);
	return rtc_read(rtc, 1, now);
}

static void set(struct rtc *rtc, uint8_t index, uint8_t value, uint64_t now)
{
	rtc_write(rtc, 0, index, now);
	rtc_write(rtc, 1, value, now);
}

static int bcd(uint8_t value)
{
	return (value >> 4) * 10 + (value & 15);
}

static void assert_time(struct rtc *rtc, time_t wall, uint64_t now)
{
	struct tm tm;

	gmtime_r(&wall, &tm);
	assert_int_equal(bcd(get(rtc, 0, now)), tm.tm_sec);
	assert_int_equal(bcd(get(rtc, 2, now)), tm.tm_min);
	assert_int_equal(bcd(get(rtc, 4, now)), tm.tm_hour);
	assert_int_equal(bcd(get(rtc, 6, now)), tm.tm_wday + 1);
	assert_int_equal(bcd(get(rtc, 7, now)), tm.tm_mday);
	assert_int_equal(bcd(get(rtc, 8, now)), tm.tm_mon + 1);
	assert_int_equal(bcd(get(rtc, 9, now)), tm.tm_year % 100);
	assert_int_equal(bcd(get(rtc, 0x32, now)), (tm.tm_year + 1900) / 100);
}

static void test_time(void **state)
{
	struct rtc rtc;

	(void)state;
	srand(2);
	for (int round = 0; round < 20000; round++) {
		time_t epoch = (time_t)rand() * 3; /* to the year 2174 */
		uint64_t later = (uint64_t)rand();

		rtc_reset(&rtc, epoch);
		assert_time(&rtc, epoch + (time_t)later, later * S + (uint64_t)rand() % S);
	}
	rtc_reset(&rtc, 951782400); /* 29 February 2000 */
	assert_time(&rtc, 951782400, 0);
	assert_int_equal(get(&rtc, 10, 0), 0x26);
	assert_int_equal(get(&rtc, 11, 0), 0x02);
	assert_int_equal(get(&rtc, 13, 0), 0x80);
	assert_int_equal(rtc_read(&rtc, 0, 0), 0xff);
}

static void test_formats(void **state)
{
	struct rtc rtc;
	const time_t noon = 1700000000 / 86400 * 86400 + 12 * 3600;

	(void)state;
	rtc_reset(&rtc, noon + 13 * 60);
	set(&rtc, 11, 0x00, 0); /* 12 hours, BCD */
	assert_int_equal(get(&rtc, 4, 0), 0x92);
	assert_int_equal(get(&rtc, 4, 3600 * S), 0x81);
	assert_int_equal(get(&rtc, 4, 12 * 3600 * S), 0x12);
	set(&rtc, 11, 0x06, 0); /* 24 hours, binary */
	assert_int_equal(get(&rtc, 2, 0), 13);
	assert_int_equal(get(&rtc, 4, 11 * 3600 * S), 23);
}

static void test_setting(void **state)
{
	struct rtc rtc;

	(void)state;
	rtc_reset(&rtc, 1700000000);
	set(&rtc, 11, 0x82, 5 * S); /* SET: the fields stand still */
	set(&rtc, 0, 0x56, 5 * S);
	set(&rtc, 2, 0x34, 6 * S);
	set(&rtc, 4, 0x12, 6 * S);
	set(&rtc, 7, 0x29, 6 * S);
	set(&rtc, 8, 0x02, 6 * S);
	set(&rtc, 9, 0x28, 6 * S);
	assert_int_equal(get(&rtc, 0, 9 * S), 0x56);
	set(&rtc, 11, 0x02, 10 * S);
	assert_time(&rtc, 1835440496, 10 * S); /* 2028-02-29 12:34:56 */
	assert_time(&rtc, 1835440496 + 100, 110 * S);
	set(&rtc, 0, 0x00, 110 * S); /* one field, without SET */
	assert_int_equal(get(&rtc, 0, 111 * S), 0x01);
	set(&rtc, 0x40, 0x77, 0); /* plain memory */
	assert_int_equal(get(&rtc, 0x40, 0), 0x77);
	set(&rtc, 0xc0, 0x66, 0); /* bit 7 of the index is not part of it */
	assert_int_equal(get(&rtc, 0x40, 0), 0x66);
}

static void test_alarm(void **state)
{
	struct rtc rtc;

	(void)state;
	rtc_reset(&rtc, 86400 * 100 + 3600); /* 01:00:00 */
	set(&rtc, 1, 0x10, 0);
	set(&rtc, 3, 0x00, 0);
	set(&rtc, 5, 0x01, 0);
	assert_int_equal(rtc_deadline(&rtc), UINT64_MAX);
	set(&rtc, 11, 0x22, S / 2);
	assert_int_equal(rtc_deadline(&rtc), 10 * S);
	rtc_tick(&rtc, 10 * S - 1);
	assert_false(rtc_line(&rtc));
	rtc_tick(&rtc, 10 * S);
	assert_true(rtc_line(&rtc));
	assert_int_equal(rtc_deadline(&rtc), (86400 + 10) * S);
	assert_int_equal(get(&rtc, 12, 10 * S), 0xa0);
	assert_false(rtc_line(&rtc));
	assert_int_equal(get(&rtc, 12, 10 * S), 0);
	/* wildcards: each minute at second 10 */
	set(&rtc, 3, 0xff, 20 * S);
	set(&rtc, 5, 0xc0, 20 * S);
	assert_int_equal(rtc_deadline(&rtc), 70 * S);
	set(&rtc, 1, 0x99, 20 * S); /* never */
	assert_int_equal(rtc_deadline(&rtc), UINT64_MAX);
	set(&rtc, 1, 0x10, 20 * S);
	set(&rtc, 11, 0x02, 20 * S);
	assert_int_equal(rtc_deadline(&rtc), UINT64_MAX);
}

static void test_update(void **state)
{
	struct rtc rtc;

	(void)state;
	rtc_reset(&rtc, 0);
	assert_int_equal(get(&rtc, 10, S / 2), 0x26);
	assert_int_equal(get(&rtc, 10, S - 1000), 0xa6);
	assert_int_equal(get(&rtc, 0, S - 1000), 0);
	assert_int_equal(get(&rtc, 10, S), 0x26);
	assert_int_equal(get(&rtc, 0, S), 1);
	set(&rtc, 11, 0x82, S); /* being set: nothing is updated */
	assert_int_equal(get(&rtc, 10, 2 * S - 1000), 0x26);
}

static void test_fuzz(void **state)
{
	struct rtc rtc;
	uint64_t now = 0;

	(void)state;
	srand(9);
	rtc_reset(&rtc, 1700000000);
	for (int round = 0; round < 20000; round++) {
		now += (uint64_t)rand() * 10;
		rtc_write(&rtc, (uint32_t)rand() % 2, (uint8_t)rand(), now);
		rtc_read(&rtc, (uint32_t)rand() % 2, now);
		rtc_tick(&rtc, now);
		assert_true(rtc_deadline(&rtc) > now);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time),	cmocka_unit_test(test_formats),
		cmocka_unit_test(test_setting), cmocka_unit_test(test_alarm),
		cmocka_unit_test(test_update),	cmocka_unit_test(test_fuzz),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
