/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adaptive spin: see spin.h. Tested in tests/memory/test_pager_spin.c.
 */
#include "pager/spin.h"

#define WEIGHT_SHIFT	4		  /* a gap moves the score by a sixteenth */
#define SCORE_ON	(SPINNER_ONE / 2) /* begin to spin above */
#define SCORE_OFF	(SPINNER_ONE / 4) /* stop below */
#define WAKE_NS		60000u /* a gap that ended asleep is measured this much too long */
#define JUMP_NS		20000u /* a spin loop's turn takes about 1 us */
#define JUMP_COST_SHIFT 1      /* a jump halves the score */

void spinner_init(struct pager_spinner *spinner, enum pager_spin mode, uint64_t bound_ns,
		  uint32_t cores)
{
	*spinner = (struct pager_spinner){ .mode = mode, .bound_ns = bound_ns };
	if (mode == PAGER_SPIN_AUTO && cores < 2)
		spinner->mode = PAGER_SPIN_OFF;
}

uint64_t spinner_budget_ns(const struct pager_spinner *spinner)
{
	if (spinner->mode == PAGER_SPIN_ON)
		return UINT64_MAX;
	return spinner->on ? spinner->bound_ns : 0;
}

static void judge(struct pager_spinner *spinner)
{
	if (spinner->mode != PAGER_SPIN_AUTO)
		return;
	if (spinner->score >= SCORE_ON)
		spinner->on = true;
	else if (spinner->score < SCORE_OFF)
		spinner->on = false;
}

void spinner_gap(struct pager_spinner *spinner, uint64_t gap_ns, bool slept)
{
	uint64_t bound_ns = spinner->bound_ns + (slept ? WAKE_NS : 0);

	spinner->score -= spinner->score >> WEIGHT_SHIFT;
	if (gap_ns <= bound_ns)
		spinner->score += SPINNER_ONE >> WEIGHT_SHIFT;
	judge(spinner);
}

bool spinner_jump(struct pager_spinner *spinner, uint64_t jump_ns)
{
	if (jump_ns < JUMP_NS || spinner->mode != PAGER_SPIN_AUTO)
		return false;
	spinner->score >>= JUMP_COST_SHIFT;
	judge(spinner);
	return true;
}
