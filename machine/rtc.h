/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CMOS clock (MC146818) and its 128 bytes of memory. Pure; single-threaded. Time is UTC.
 */
#ifndef MACHINE_RTC_H
#define MACHINE_RTC_H

#include <stdbool.h>
#include <stdint.h>

#define RTC_BYTES 128u

struct rtc {
	int64_t epoch_s;	/* UTC seconds since 1970 at pod clock 0 */
	uint8_t index;		/* of the next data access */
	uint8_t b, c;		/* status registers B and C */
	uint8_t ram[RTC_BYTES]; /* time fields here are only in use while B says SET */
	uint64_t alarm_ns;	/* pod clock of the next alarm; UINT64_MAX: none */
};

void rtc_reset(struct rtc *rtc, int64_t epoch_s);
/* reg 0: index (70h), 1: data (71h) */
uint8_t rtc_read(struct rtc *rtc, uint32_t reg, uint64_t now_ns);
void rtc_write(struct rtc *rtc, uint32_t reg, uint8_t value, uint64_t now_ns);
bool rtc_line(const struct rtc *rtc);
uint64_t rtc_deadline(const struct rtc *rtc);
bool rtc_tick(struct rtc *rtc, uint64_t now_ns);

#endif
