/* SPDX-License-Identifier: Apache-2.0 */
/* When a stalled vCPU's timer interrupt may come: idea, invariant and bounds are in timer_pace.h.
 */
#include "core/timer_pace.h"

void timer_pace_restart(struct timer_pace *pace, const struct timer_pace_times *times)
{
	pace->fired = *times;
}

static uint64_t since(uint64_t then_ns, uint64_t now_ns)
{
	return now_ns > then_ns ? now_ns - then_ns : 0;
}

uint64_t timer_pace_wait(const struct timer_pace *pace, uint64_t deadline_ns,
			 const struct timer_pace_times *times)
{
	uint64_t passed = since(pace->fired.now_ns, times->now_ns);
	uint64_t need = since(pace->fired.stalled_ns, times->stalled_ns);
	uint64_t ran = since(need, passed);
	uint64_t core = since(pace->fired.core_ns, times->core_ns);
	uint64_t late = since(deadline_ns, times->now_ns);
	uint64_t wait;

	if (core < ran)
		ran = core;
	if (need > TIMER_PACE_RUN_NS)
		need = TIMER_PACE_RUN_NS;
	if (ran >= need || late >= TIMER_PACE_LATE_NS)
		return 0;
	wait = need - ran;
	return wait < TIMER_PACE_LATE_NS - late ? wait : TIMER_PACE_LATE_NS - late;
}
