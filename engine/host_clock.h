/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This host's two clocks, and nothing else: every reading that a guest's time is made from goes
 * through here.
 *
 * A library of its own, so that tests can put another one in its place: hosts whose clocks run fast
 * and wander (tests/skewed), or a clock that a test moves by hand. No vector registers are touched:
 * the soft engine calls it with the guest's in them.
 */
#ifndef ENGINE_HOST_CLOCK_H
#define ENGINE_HOST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* The TSC; no earlier than what comes before in the program, no later than what comes after. */
uint64_t host_clock_tsc(void);

/* CLOCK_MONOTONIC_RAW: the kernel's clock without NTP's corrections. */
uint64_t host_clock_raw_ns(void);

/* Sleeps for about that long. */
void host_clock_pause(uint64_t ns);

/* host_clock_tsc() is what RDTSC reads, so translated code may use the instruction itself. */
bool host_clock_tsc_is_real(void);

#endif
