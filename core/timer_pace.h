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
 * Stalls are what the pager says they are (pager/stall_time.h). A thread that waits for a core
 * counts as running here: on a busy host the wait would not give it the core.
 *
 *      |--ran--|====stalled====|-ran-|==stalled==|--ran--| interrupt
 *      ^ the last one                ^ the timer expires ^ ran >= min(stalled, 40 ms)
 *
 * One thread per struct. Tested in tests/core/test_timer_pace.c.
 */
#ifndef CORE_TIMER_PACE_H
#define CORE_TIMER_PACE_H

#include <stdint.h>

#define TIMER_PACE_RUN_NS  40000000u
#define TIMER_PACE_LATE_NS 500000000u

struct timer_pace {
	uint64_t fired_ns; /* when the last one came */
	uint64_t fired_stalled_ns;
};

/* It comes now, or the vCPU has slept: a new beginning. stalled_ns: of the vCPU so far. */
void timer_pace_restart(struct timer_pace *pace, uint64_t now_ns, uint64_t stalled_ns);

/*
 * The timer has expired at deadline_ns <= now_ns. 0: let it come. Otherwise ask again so many ns
 * from now.
 */
uint64_t timer_pace_wait(const struct timer_pace *pace, uint64_t deadline_ns, uint64_t now_ns,
			 uint64_t stalled_ns);

#endif
