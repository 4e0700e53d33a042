/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Should a shard's thread spin before it sleeps? Pure; owned by that thread.
 *
 * A sleep costs whoever waits for us a wake-up (some 25 us); a spin costs a core. What decides is
 * how long the thread would have spun: so every idle gap is measured, whether it was spent spinning
 * or asleep, and spinning is on while enough of the recent gaps were shorter than the bound. Being
 * asleep teaches as much as spinning, so nothing has to be tried out. A jump of the clock inside a
 * spin says that somebody else needed this core (a vCPU, mostly): that counts as several long gaps
 * at once.
 */
#ifndef PAGER_SPIN_H
#define PAGER_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#include "pager/pager.h"

struct pager_spinner {
	enum pager_spin mode;
	uint64_t bound_ns; /* longest spin */
	uint32_t score;	   /* share of recent gaps that were short: 0..SPINNER_ONE */
	bool on;
};

#define SPINNER_ONE 4096u

/* cores: those that this process may use. One core: never spins by itself. */
void spinner_init(struct pager_spinner *spinner, enum pager_spin mode, uint64_t bound_ns,
		  uint32_t cores);

/* How long to spin now, ns: 0 not at all, UINT64_MAX for ever. */
uint64_t spinner_budget_ns(const struct pager_spinner *spinner);

/* An idle gap of gap_ns is over, which ended asleep or not. */
void spinner_gap(struct pager_spinner *spinner, uint64_t gap_ns, bool slept);

/* Between two looks at the clock in a spin jump_ns went by: true if another thread wants the core
 * (sleep now). */
bool spinner_jump(struct pager_spinner *spinner, uint64_t jump_ns);

#endif
