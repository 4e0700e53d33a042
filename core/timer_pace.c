/* SPDX-License-Identifier: Apache-2.0 */
/* When a stalled vCPU's timer interrupt may come: idea, invariant and bounds are in timer_pace.h.
 */
#include "core/timer_pace.h"

void timer_pace_restart(struct timer_pace *pace, uint64_t now_ns, uint64_t stalled_ns)
{
	pace->fired_ns = now_ns;
	pace->fired_stalled_ns = stalled_ns;
}

uint64_t timer_pace_wait(const struct timer_pace *pace, uint64_t deadline_ns, uint64_t now_ns,
			 uint64_t stalled_ns)
{
	uint64_t passed = now_ns > pace->fired_ns ? now_ns - pace->fired_ns : 0;
	uint64_t need =
		stalled_ns > pace->fired_stalled_ns ? stalled_ns - pace->fired_stalled_ns : 0;
	uint64_t ran = passed > need ? passed - need : 0;
	uint64_t late = now_ns > deadline_ns ? now_ns - deadline_ns : 0;
	uint64_t wait;

	if (need > TIMER_PACE_RUN_NS)
		need = TIMER_PACE_RUN_NS;
	if (ran >= need || late >= TIMER_PACE_LATE_NS)
		return 0;
	wait = need - ran;
	return wait < TIMER_PACE_LATE_NS - late ? wait : TIMER_PACE_LATE_NS - late;
}
