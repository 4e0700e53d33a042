/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CMOS clock (contract: rtc.h; registers: Motorola MC146818A data sheet).
 *
 * The time is computed from the pod clock when it is read. A guest that sets it shifts epoch_s: the
 * fields it writes are kept in `ram` until it takes SET away (or are taken at once without SET).
 *
 * Left out: periodic and update-ended interrupts (guests emulate them with the alarm or a timer),
 * daylight saving. The time may be read at any moment; the update-in-progress flag is shown before
 * each second's end as the chip shows it, for those who wait for it to find the second's beginning.
 *
 * Tested in tests/machine/test_rtc.c.
 */
#include "machine/rtc.h"

#define NS_PER_S 1000000000ull

enum rtc_register {
	REG_SECONDS = 0,
	REG_ALARM_SECONDS = 1,
	REG_MINUTES = 2,
	REG_ALARM_MINUTES = 3,
	REG_HOURS = 4,
	REG_ALARM_HOURS = 5,
	REG_WEEKDAY = 6,
	REG_DAY = 7,
	REG_MONTH = 8,
	REG_YEAR = 9,
	REG_A = 10,
	REG_B = 11,
	REG_C = 12,
	REG_D = 13,
	REG_CENTURY = 0x32,
};

#define A_VALUE	  0x26u /* 32768 Hz */
#define A_UPDATE  0x80u
#define UPDATE_NS 2228000ull /* 244 us of warning, 1984 us of update */
#define D_VALID	  0x80u

#define B_SET	  0x80u
#define B_ALARM	  0x20u
#define B_BINARY  0x04u
#define B_24_HOUR 0x02u
#define C_ALARM	  0xa0u /* IRQF, AF */

#define HOUR_PM	  0x80u
#define ALARM_ANY 0xc0u
#define DAY_S	  86400

struct civil_time {
	int64_t year;
	int month, day, weekday, hour, minute,
		second; /* month and day from 1, weekday from 1 = Sunday */
};

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* Days since 1970-01-01 of a date in the Gregorian calendar; years are counted from March. */
static int64_t days_from_civil(int64_t year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = floor_div(y, 400);
	int64_t year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
	       day_of_year - 719468;
}

static struct civil_time civil_from_seconds(int64_t seconds)
{
	int64_t days = floor_div(seconds, DAY_S);
	int rest = (int)(seconds - days * DAY_S);
	int64_t z = days + 719468;
	int64_t era = floor_div(z, 146097);
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int doy = (int)(doe - (365 * yoe + yoe / 4 - yoe / 100));
	int mp = (5 * doy + 2) / 153;
	struct civil_time time = {
		.month = mp < 10 ? mp + 3 : mp - 9,
		.day = doy - (153 * mp + 2) / 5 + 1,
		.weekday = (int)(((days + 4) % 7 + 7) % 7) + 1,
		.hour = rest / 3600,
		.minute = rest / 60 % 60,
		.second = rest % 60,
	};

	time.year = yoe + era * 400 + (time.month <= 2);
	return time;
}

static uint8_t encode(const struct rtc *rtc, int value)
{
	if (rtc->b & B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 % 10 << 4 | value % 10);
}

static int decode(const struct rtc *rtc, uint8_t value)
{
	return rtc->b & B_BINARY ? value : (value >> 4) * 10 + (value & 0xf);
}

static uint8_t encode_hour(const struct rtc *rtc, int hour)
{
	if (rtc->b & B_24_HOUR)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct rtc *rtc, uint8_t value)
{
	if (rtc->b & B_24_HOUR)
		return decode(rtc, value);
	return decode(rtc, value & 0x7f) % 12 + (value & HOUR_PM ? 12 : 0);
}

static int64_t wall_seconds(const struct rtc *rtc, uint64_t now_ns)
{
	return rtc->epoch_s + (int64_t)(now_ns / NS_PER_S);
}

static bool is_time_field(uint8_t index)
{
	switch (index) {
	case REG_SECONDS:
	case REG_MINUTES:
	case REG_HOURS:
	case REG_WEEKDAY:
	case REG_DAY:
	case REG_MONTH:
	case REG_YEAR:
	case REG_CENTURY:
		return true;
	default:
		return false;
	}
}

/* Fills the time fields of `ram` from the clock. */
static void fields_from_clock(struct rtc *rtc, uint64_t now_ns)
{
	struct civil_time time = civil_from_seconds(wall_seconds(rtc, now_ns));

	rtc->ram[REG_SECONDS] = encode(rtc, time.second);
	rtc->ram[REG_MINUTES] = encode(rtc, time.minute);
	rtc->ram[REG_HOURS] = encode_hour(rtc, time.hour);
	rtc->ram[REG_WEEKDAY] = encode(rtc, time.weekday);
	rtc->ram[REG_DAY] = encode(rtc, time.day);
	rtc->ram[REG_MONTH] = encode(rtc, time.month);
	rtc->ram[REG_YEAR] = encode(rtc, (int)(time.year % 100));
	rtc->ram[REG_CENTURY] = encode(rtc, (int)(time.year / 100));
}

/* Sets the clock from the time fields. Nonsense in them makes some other time, no harm. */
static void clock_from_fields(struct rtc *rtc, uint64_t now_ns)
{
	int64_t year = decode(rtc, rtc->ram[REG_CENTURY]) * 100 + decode(rtc, rtc->ram[REG_YEAR]);
	int month = decode(rtc, rtc->ram[REG_MONTH]);
	int64_t days = days_from_civil(year, month < 1 || month > 12 ? 1 : month,
				       decode(rtc, rtc->ram[REG_DAY]));

	rtc->epoch_s = days * DAY_S + decode_hour(rtc, rtc->ram[REG_HOURS]) * 3600 +
		       decode(rtc, rtc->ram[REG_MINUTES]) * 60 +
		       decode(rtc, rtc->ram[REG_SECONDS]) - (int64_t)(now_ns / NS_PER_S);
}

static bool alarm_matches(uint8_t alarm, int alarm_value, int value)
{
	return alarm >= ALARM_ANY || alarm_value == value;
}

/* The alarm is within a day, or never (fields that no time has). */
static void plan_alarm(struct rtc *rtc, uint64_t now_ns)
{
	uint8_t hour = rtc->ram[REG_ALARM_HOURS], minute = rtc->ram[REG_ALARM_MINUTES];
	uint8_t second = rtc->ram[REG_ALARM_SECONDS];
	int64_t wall = wall_seconds(rtc, now_ns);

	rtc->alarm_ns = UINT64_MAX;
	if (!(rtc->b & B_ALARM) || (rtc->b & B_SET))
		return;
	for (int64_t after = 1; after <= DAY_S; after++) {
		int of_day = (int)((wall + after) - floor_div(wall + after, DAY_S) * DAY_S);

		if (alarm_matches(hour, decode_hour(rtc, hour), of_day / 3600) &&
		    alarm_matches(minute, decode(rtc, minute), of_day / 60 % 60) &&
		    alarm_matches(second, decode(rtc, second), of_day % 60)) {
			rtc->alarm_ns = (now_ns / NS_PER_S + (uint64_t)after) * NS_PER_S;
			return;
		}
	}
}

static bool is_updating(const struct rtc *rtc, uint64_t now_ns)
{
	return !(rtc->b & B_SET) && now_ns % NS_PER_S >= NS_PER_S - UPDATE_NS;
}

void rtc_reset(struct rtc *rtc, int64_t epoch_s)
{
	*rtc = (struct rtc){ .epoch_s = epoch_s, .b = B_24_HOUR, .alarm_ns = UINT64_MAX };
}

uint8_t rtc_read(struct rtc *rtc, uint32_t reg, uint64_t now_ns)
{
	uint8_t index = rtc->index;
	uint8_t value;

	if (reg == 0)
		return 0xff; /* the index is write-only */
	if (is_time_field(index) && !(rtc->b & B_SET))
		fields_from_clock(rtc, now_ns);
	switch (index) {
	case REG_A:
		return A_VALUE | (is_updating(rtc, now_ns) ? A_UPDATE : 0);
	case REG_B:
		return rtc->b;
	case REG_C:
		value = rtc->c;
		rtc->c = 0;
		return value;
	case REG_D:
		return D_VALID;
	default:
		return rtc->ram[index];
	}
}

static void write_b(struct rtc *rtc, uint8_t value, uint64_t now_ns)
{
	uint8_t before = rtc->b;

	if ((value & B_SET) && !(before & B_SET))
		fields_from_clock(rtc, now_ns);
	rtc->b = value & (B_SET | B_ALARM | B_BINARY | B_24_HOUR);
	if (!(value & B_SET) && (before & B_SET))
		clock_from_fields(rtc, now_ns);
	plan_alarm(rtc, now_ns);
}

void rtc_write(struct rtc *rtc, uint32_t reg, uint8_t value, uint64_t now_ns)
{
	uint8_t index = rtc->index;

	if (reg == 0) {
		rtc->index = value % RTC_BYTES; /* bit 7 masks NMIs on old PCs */
		return;
	}
	if (index == REG_B) {
		write_b(rtc, value, now_ns);
		return;
	}
	if (index == REG_A || index == REG_C || index == REG_D)
		return;
	if (is_time_field(index) && !(rtc->b & B_SET)) {
		fields_from_clock(rtc, now_ns);
		rtc->ram[index] = value;
		clock_from_fields(rtc, now_ns);
	} else {
		rtc->ram[index] = value;
	}
	if (index < REG_A || index == REG_CENTURY)
		plan_alarm(rtc, now_ns);
}

bool rtc_line(const struct rtc *rtc)
{
	return rtc->c & C_ALARM;
}

uint64_t rtc_deadline(const struct rtc *rtc)
{
	return rtc->alarm_ns;
}

bool rtc_tick(struct rtc *rtc, uint64_t now_ns)
{
	if (now_ns < rtc->alarm_ns)
		return false;
	rtc->c |= C_ALARM;
	plan_alarm(rtc, now_ns);
	return true;
}
