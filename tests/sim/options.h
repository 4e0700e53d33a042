/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator's command line, and what its commands share. */
#ifndef TESTS_SIM_OPTIONS_H
#define TESTS_SIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/world.h"

#define SETTINGS_MAX 24

struct options {
	uint64_t first, last; /* seeds */
	uint32_t jobs;
	uint32_t failures_max; /* stop after so many */
	bool trace, verbose;
	const char *setting[SETTINGS_MAX]; /* name=value, applied to every plan */
	uint32_t setting_count;
};

/* The plan of a seed with the settings applied; they were checked before. */
void options_plan(const struct options *options, uint64_t seed, struct plan *ret_plan);

/* Runs seeds first..last in `jobs` processes. Returns how many failed; prints each. */
uint64_t seeds_run(const struct options *options);

/* Runs the seeds of a file of regressions. Returns how many failed. */
uint64_t regressions_run(const struct options *options, const char *path);

/* Every broken variant of the core must be caught. Returns how many were not. */
uint64_t broken_run(const struct options *options);

/* Tables; they return how many of their bounds are not kept. */
uint64_t report_messages(void);
uint64_t report_holds(void);
uint64_t report_members(uint64_t changes);

#endif
