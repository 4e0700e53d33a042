/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a wait: a moment of CLOCK_MONOTONIC. Somebody may set the time of day while we wait,
 * so nothing waits by it; tools/clocks sees to that.
 */
#ifndef NODE_DEADLINE_H
#define NODE_DEADLINE_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

static inline struct timespec deadline_after_ns(uint64_t ns)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(ns / 1000000000);
	until.tv_nsec = (long)(ns % 1000000000);
	return until;
}

static inline struct timespec deadline_after_ms(uint64_t ms)
{
	return deadline_after_ns(ms * 1000000);
}

/* As pthread_cond_clockwait(): 0, perhaps for no reason, or ETIMEDOUT. */
static inline int deadline_wait(pthread_cond_t *changed, pthread_mutex_t *lock,
				const struct timespec *until)
{
	return pthread_cond_clockwait(changed, lock, CLOCK_MONOTONIC, until);
}

/*
 * As pthread_clockjoin_np(): 0, or ETIMEDOUT. By looking every millisecond, as ThreadSanitizer does
 * not know that function, and then takes what the thread did for races.
 */
static inline int deadline_join(pthread_t thread, const struct timespec *until)
{
	const struct timespec turn = { .tv_nsec = 1000000 };
	struct timespec now;
	int r;
	while ((r = pthread_tryjoin_np(thread, NULL)) == EBUSY) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > until->tv_sec ||
		    (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec))
			return ETIMEDOUT;
		nanosleep(&turn, NULL);
	}
	return r;
}

#endif
