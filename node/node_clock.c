/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod clock on a node (node_clock.h): core/clock.c's map behind a sequence lock.
 *
 * Every exit of every vCPU reads the time, so readers take no lock: they copy the map, read the
 * local clock, and do both again if the control thread has changed the map meanwhile. That also is
 * what the filter asks for: an old map is only ever used with a time from before the new one
 * begins.
 */
#include "node/node_clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#define READY_SAMPLES 100
#define TSC_STEP_NS   100
#define TSC_FINE_NS   200

struct node_clock {
	struct pod_clock filter; /* control thread's */

	atomic_uint sequence; /* odd while map is being written; pairs with the readers' loads */
	struct clock_map map;
	atomic_uint samples;

	pthread_mutex_t lock; /* guards the line */
	struct engine_tsc line;
	uint64_t epoch_ns;
	uint32_t guest_khz, host_khz;
	atomic_int_fast64_t tsc_error_ns;
};

static uint64_t raw_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t node_clock_local_ns(void)
{
	return raw_ns();
}

void node_clock_update(struct node_clock *clock)
{
	atomic_fetch_add(&clock->sequence, 1);
	atomic_thread_fence(memory_order_seq_cst);
	pod_clock_update(&clock->filter, raw_ns(), &clock->map);
	atomic_thread_fence(memory_order_seq_cst);
	atomic_fetch_add(&clock->sequence, 1);
}

int node_clock_create(uint16_t self, struct node_clock **ret_clock)
{
	struct node_clock *clock = calloc(1, sizeof(*clock));
	if (!clock)
		return -ENOMEM;
	struct clock_config config = { .reference = self == 0 };
	int r = pod_clock_init(&clock->filter, &config);
	if (r < 0) {
		free(clock);
		return r;
	}
	pthread_mutex_init(&clock->lock, NULL);
	node_clock_update(clock);
	*ret_clock = clock;
	return 0;
}

void node_clock_destroy(struct node_clock *clock)
{
	free(clock);
}

/* A map and a local time that belong together. */
static struct clock_map read_map(const struct node_clock *clock, uint64_t *ret_local_ns)
{
	struct clock_map map;
	unsigned int before, after;
	do {
		before = atomic_load(&clock->sequence);
		memcpy(&map, &clock->map, sizeof(map));
		*ret_local_ns = raw_ns();
		atomic_thread_fence(memory_order_seq_cst);
		after = atomic_load(&clock->sequence);
	} while (before != after || (before & 1));
	return map;
}

uint64_t node_clock_now(const struct node_clock *clock)
{
	uint64_t local;
	struct clock_map map = read_map(clock, &local);
	return clock_map_pod_ns(&map, local);
}

void node_clock_pong(struct node_clock *clock, const struct clock_sample *sample)
{
	if (pod_clock_sample(&clock->filter, sample) < 0)
		return;
	if (atomic_load(&clock->samples) + 1 == READY_SAMPLES)
		pod_clock_start(
			&clock->filter); /* whoever waits for node_clock_ready() sees no step */
	node_clock_update(clock);
	atomic_fetch_add(&clock->samples, 1);
}

bool node_clock_ready(const struct node_clock *clock)
{
	return clock->filter.config.reference || atomic_load(&clock->samples) >= READY_SAMPLES;
}

uint64_t node_clock_error_ns(const struct node_clock *clock)
{
	uint64_t local;
	struct clock_map map = read_map(clock, &local);
	return clock->filter.config.reference ? 0 : clock_map_error_ns(&map, local);
}

/* Both clocks at one moment: the reading of the pod clock that took the least time of a few. */
static void read_both(const struct node_clock *clock, uint64_t *ret_tsc, uint64_t *ret_now_ns)
{
	uint64_t least = UINT64_MAX;
	for (int i = 0; i < 5; i++) {
		uint64_t before = __rdtsc();
		uint64_t now = node_clock_now(clock);
		uint64_t took = __rdtsc() - before;
		if (took < least) {
			least = took;
			*ret_tsc = before + took / 2;
			*ret_now_ns = now;
		}
	}
}

static uint64_t guest_tsc_at(const struct node_clock *clock, uint64_t now_ns)
{
	return (uint64_t)((unsigned __int128)(now_ns - clock->epoch_ns) * clock->guest_khz /
			  1000000);
}

void node_clock_tsc_start(struct node_clock *clock, uint64_t epoch_ns, uint32_t guest_khz,
			  uint32_t host_khz)
{
	uint64_t now = 0;
	pthread_mutex_lock(&clock->lock);
	clock->epoch_ns = epoch_ns;
	clock->guest_khz = guest_khz;
	clock->host_khz = host_khz;
	read_both(clock, &clock->line.host_tsc, &now);
	clock->line.guest_tsc = guest_tsc_at(clock, now);
	pthread_mutex_unlock(&clock->lock);
}

/* Moves the point along the line to the host's TSC. */
static void line_advance(struct node_clock *clock, uint64_t host_tsc)
{
	uint64_t ticks = host_tsc - clock->line.host_tsc;
	if (clock->guest_khz != clock->host_khz)
		ticks = (uint64_t)((unsigned __int128)ticks * clock->guest_khz / clock->host_khz);
	clock->line.guest_tsc += ticks;
	clock->line.host_tsc = host_tsc;
}

bool node_clock_tsc_follow(struct node_clock *clock)
{
	uint64_t host = 0, now = 0;
	pthread_mutex_lock(&clock->lock);
	read_both(clock, &host, &now);
	line_advance(clock, host);
	int64_t ticks = (int64_t)(guest_tsc_at(clock, now) - clock->line.guest_tsc);
	int64_t error = ticks * 1000000 / (int64_t)clock->guest_khz;
	int64_t step = error > TSC_STEP_NS    ? TSC_STEP_NS
		       : error < -TSC_STEP_NS ? -TSC_STEP_NS
					      : error;
	/* What the clock itself may be off is not worth a kick of every vCPU. */
	int64_t fine = (int64_t)(node_clock_error_ns(clock) / 8);
	fine = fine > TSC_FINE_NS ? fine : TSC_FINE_NS;
	bool move = error > fine || error < -fine;
	if (move)
		clock->line.guest_tsc += (uint64_t)(step * (int64_t)clock->guest_khz / 1000000);
	atomic_store(&clock->tsc_error_ns, error);
	pthread_mutex_unlock(&clock->lock);
	return move;
}

void node_clock_tsc(const struct node_clock *clock, struct engine_tsc *ret_tsc)
{
	struct node_clock *c = (struct node_clock *)(uintptr_t)clock;
	pthread_mutex_lock(&c->lock);
	line_advance(c, __rdtsc());
	*ret_tsc = c->line;
	pthread_mutex_unlock(&c->lock);
}

int64_t node_clock_tsc_error_ns(const struct node_clock *clock)
{
	return atomic_load(&clock->tsc_error_ns);
}
