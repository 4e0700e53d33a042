/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When may a vCPU's timer interrupt come, if its vCPU spends its time in stalls? Pure.
 *
 * A guest's tick comes every few milliseconds of real time, whatever the guest got done meanwhile.
 * Where a tick's own pages (run queue, time keeper, page tables) are on another node whenever it
 * comes, the tick takes longer than the time to the next one, and the guest does nothing else. So a
 * timer interrupt waits until the vCPU has run as long as it was stalled since the last one, up to
 * TIMER_PACE_RUN_NS, and never longer than TIMER_PACE_LATE_NS. A vCPU that does not stall sees no
 * difference, and to one that does it looks like a hypervisor that gave its CPU to others: guests
 * know that. A vCPU in HLT gets its timer in time.
 *
 * Stalls are what the pager says they are (pager/stall_time.h). To run is to have a core: on a busy
 * host a thread waits for one behind every stall, and if that counted, too, each tick would bring
 * the next one there. A vCPU that has next to no core and no stalls gets its timer in time all the
 * same: to wait would not give it the core.
 *
 *      |--ran--|====stalled====|  |-ran-|==stalled==|  |  |--ran--| interrupt
 *      ^ the last one           ^ no core  ^ the timer expires    ^ ran >= min(stalled, 40 ms)
 *
 * One thread per struct. Tested in tests/core/test_timer_pace.c.
 */
#ifndef CORE_TIMER_PACE_H
#define CORE_TIMER_PACE_H

#include <stdint.h>

#define TIMER_PACE_RUN_NS  40000000u
#define TIMER_PACE_LATE_NS 500000000u

/* Of a vCPU, until now. */
struct timer_pace_times {
	uint64_t now_ns;
	uint64_t stalled_ns; /* in all */
	uint64_t core_ns;    /* likewise, that its thread had a core */
};

struct timer_pace {
	struct timer_pace_times fired; /* when the last one came */
};

/* It comes now, or the vCPU has slept: a new beginning. */
void timer_pace_restart(struct timer_pace *pace, const struct timer_pace_times *times);

/*
 * The timer has expired at deadline_ns <= now_ns. 0: let it come. Otherwise ask again so many ns
 * from now.
 */
uint64_t timer_pace_wait(const struct timer_pace *pace, uint64_t deadline_ns,
			 const struct timer_pace_times *times);

#endif
