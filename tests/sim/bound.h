/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bound on what a seed may compute: of the CPU's time, since others may have that for minutes.
 */
#ifndef TESTS_SIM_BOUND_H
#define TESTS_SIM_BOUND_H

#include <signal.h>
#include <sys/time.h>

#define BOUND_SIGNAL SIGPROF

/* The process ends by that signal then; 0: no bound any more. */
static inline void bound_cpu(unsigned int seconds)
{
	struct itimerval time = { .it_value = { .tv_sec = seconds } };

	setitimer(ITIMER_PROF, &time, NULL);
}

#endif
