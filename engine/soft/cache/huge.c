/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/soft/cache/huge.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "core/limits.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* newer than the C library's headers */
#endif

/* Somebody may write there after all. */
#define TRIES	 20
#define AGAIN_MS 100

struct soft_huge {
	pthread_t thread;
	uint8_t *next; /* the thread's: which piece comes */
	uint8_t *last; /* ... and where the last one ends */
	ptrdiff_t alias;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wanted;
	const uint8_t *end;
	bool stop;
};

/* One page has to be there already. */
static bool make_piece(const struct soft_huge *huge)
{
	(void)madvise(huge->next + huge->alias, PAGE_BYTES, MADV_POPULATE_WRITE);
	return madvise(huge->next, HUGE_BYTES, MADV_COLLAPSE) == 0 ||
	       (errno != EAGAIN && errno != EBUSY && errno != ENOMEM);
}

/* The lock, which is let go meanwhile. */
static void wait_a_moment(struct soft_huge *huge)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += AGAIN_MS * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_clockwait(&huge->wanted, &huge->lock, CLOCK_MONOTONIC, &until);
}

static void *make_huge(void *arg)
{
	struct soft_huge *huge = arg;

	pthread_setname_np(pthread_self(), "huge pages");
	pthread_mutex_lock(&huge->lock);
	for (int tries = 0; !huge->stop;) {
		if (huge->next >= huge->end || huge->next >= huge->last) {
			pthread_cond_wait(&huge->wanted, &huge->lock);
			continue;
		}
		pthread_mutex_unlock(&huge->lock);
		bool settled = make_piece(huge) || ++tries == TRIES;
		pthread_mutex_lock(&huge->lock);
		if (settled) {
			huge->next += HUGE_BYTES;
			tries = 0;
		} else if (!huge->stop) {
			wait_a_moment(huge);
		}
	}
	pthread_mutex_unlock(&huge->lock);
	return NULL;
}

static void give_up(struct soft_huge *huge)
{
	pthread_cond_destroy(&huge->wanted);
	pthread_mutex_destroy(&huge->lock);
	free(huge);
}

struct soft_huge *soft_huge_create(uint8_t *base, size_t bytes, ptrdiff_t alias)
{
	struct soft_huge *huge = calloc(1, sizeof(*huge));
	sigset_t all, before;
	int error;

	if (!huge)
		return NULL;
	huge->next = base;
	huge->last = base + bytes;
	huge->alias = alias;
	huge->end = base;
	pthread_mutex_init(&huge->lock, NULL);
	pthread_cond_init(&huge->wanted, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for others */
	error = pthread_create(&huge->thread, NULL, make_huge, huge);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		give_up(huge);
		return NULL;
	}
	return huge;
}

void soft_huge_want(struct soft_huge *huge, const uint8_t *end)
{
	if (!huge)
		return;
	pthread_mutex_lock(&huge->lock);
	huge->end = end;
	pthread_cond_signal(&huge->wanted);
	pthread_mutex_unlock(&huge->lock);
}

void soft_huge_destroy(struct soft_huge *huge)
{
	if (!huge)
		return;
	pthread_mutex_lock(&huge->lock);
	huge->stop = true;
	pthread_cond_signal(&huge->wanted);
	pthread_mutex_unlock(&huge->lock);
	pthread_join(huge->thread, NULL);
	give_up(huge);
}
