/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a wait: a moment of CLOCK_MONOTONIC. Somebody may set the time of day while we wait,
 * so nothing waits by it; tools/clocks sees to that.
 */
#ifndef NODE_DEADLINE_H
#define NODE_DEADLINE_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
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

static inline bool deadline_is_over(const struct timespec *until)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > until->tv_sec ||
	       (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec);
}

/* As pthread_cond_clockwait(): 0, perhaps for no reason, or ETIMEDOUT. */
static inline int deadline_wait(pthread_cond_t *changed, pthread_mutex_t *lock,
				const struct timespec *until)
{
	return pthread_cond_clockwait(changed, lock, CLOCK_MONOTONIC, until);
}

/*
 * As pthread_mutex_clocklock(): 0, or ETIMEDOUT. Under ThreadSanitizer by trying every 100 us: not
 * every version of it knows that function, and one that does not takes what the lock guards for races.
 */
static inline int deadline_lock(pthread_mutex_t *lock, const struct timespec *until)
{
#ifdef __SANITIZE_THREAD__
	const struct timespec turn = { .tv_nsec = 100000 };
	int r;
	while ((r = pthread_mutex_trylock(lock)) == EBUSY) {
		if (deadline_is_over(until))
			return ETIMEDOUT;
		nanosleep(&turn, NULL);
	}
	return r;
#else
	return pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, until);
#endif
}

/*
 * As pthread_clockjoin_np(): 0, or ETIMEDOUT. By looking every millisecond, as ThreadSanitizer does
 * not know that function, and then takes what the thread did for races.
 */
static inline int deadline_join(pthread_t thread, const struct timespec *until)
{
	const struct timespec turn = { .tv_nsec = 1000000 };
	int r;
	while ((r = pthread_tryjoin_np(thread, NULL)) == EBUSY) {
		if (deadline_is_over(until))
			return ETIMEDOUT;
		nanosleep(&turn, NULL);
	}
	return r;
}

#endif
