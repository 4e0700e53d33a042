/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod clock on a node (node_clock.h): core/clock.c's map behind a sequence lock.
 *
 * Every exit of every vCPU reads the time, so readers take no lock: they copy the map, read the
 * local clock, and do both again if the control thread has changed the map meanwhile. That also is
 * what the filter asks for: an old map is only ever used with a time from before the new one
 * begins.
 *
 * Tested in tests/node/test_node_clock.c, with a TSC that the test moves.
 */
#include "node/node_clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/host_clock.h"
#include "engine/tsc_rate.h"

/* The clock is good enough to start by, or will not become so soon (a busy host, a slow link). */
#define READY_SAMPLES	  100
#define SETTLED_SAMPLES	  400
#define READY_ERROR_NS	  50000u
#define READY_SPREAD_PPB  5000
#define READY_PATIENCE_NS 5000000000ull

#define CONTRADICTIONS_MAX 3 /* before the start: one may be a host that was suspended */
#define TSC_FINE_NS	   200
#define TSC_FINE_PART	   50 /* of the clock's error */
#define TSC_LATER_NS	   500000000ull
#define TSC_SOON_NS	   20000000ull /* the rate is not known well yet */

/* How often the TSC is held against the kernel's clock anew. */
#define RATE_SPAN_NS  60000000000ull
#define RATE_LEAST_NS 1000000000ull

struct node_clock {
	uint32_t host_khz;
	bool exact_rate;
	uint64_t ns_factor; /* ns a tick, 2^NS_BITS */

	struct pod_clock filter; /* control thread's, as the next two */
	uint64_t first_sample_ns;
	struct tsc_bracket rate_from;

	atomic_uint sequence; /* odd while map is being written; pairs with the readers' loads */
	struct clock_map map;
	atomic_bool ready, settled;

	pthread_mutex_t lock; /* guards the rest */
	struct node_clock_tsc tsc;
	struct tsc_line line;
	uint64_t doubt_ns; /* how far from the pod's time the line may be, by what was known */
	bool line_exists;
};

#define NS_BITS 40

static uint64_t ns_of(const struct node_clock *clock, uint64_t tsc)
{
	return (uint64_t)((unsigned __int128)tsc * clock->ns_factor >> NS_BITS);
}

uint64_t node_clock_local_ns(const struct node_clock *clock)
{
	return ns_of(clock, host_clock_tsc());
}

void node_clock_update(struct node_clock *clock)
{
	atomic_fetch_add(&clock->sequence, 1);
	atomic_thread_fence(memory_order_seq_cst);
	pod_clock_update(&clock->filter, node_clock_local_ns(clock), &clock->map);
	atomic_thread_fence(memory_order_seq_cst);
	atomic_fetch_add(&clock->sequence, 1);
}

static void read_bracket(struct tsc_bracket *ret_bracket)
{
	ret_bracket->before = host_clock_tsc();
	ret_bracket->ns = host_clock_raw_ns();
	ret_bracket->after = host_clock_tsc();
}

int node_clock_create(const struct node_clock_config *config, struct node_clock **ret_clock)
{
	struct node_clock *clock = calloc(1, sizeof(*clock));
	if (!clock)
		return -ENOMEM;
	struct clock_config filter = { .reference = config->reference };
	uint32_t host_khz = config->host_khz;
	int r = pod_clock_init(&clock->filter, &filter);
	if (r < 0 || host_khz < TSC_RATE_KHZ_MIN || host_khz > TSC_RATE_KHZ_MAX) {
		free(clock);
		return r < 0 ? r : -EINVAL;
	}
	clock->host_khz = host_khz;
	clock->exact_rate = config->exact_rate;
	clock->ns_factor = (1000000ull << NS_BITS) / host_khz;
	pthread_mutex_init(&clock->lock, NULL);
	read_bracket(&clock->rate_from);
	node_clock_update(clock);
	*ret_clock = clock;
	return 0;
}

void node_clock_destroy(struct node_clock *clock)
{
	if (!clock)
		return;
	pthread_mutex_destroy(&clock->lock);
	free(clock);
}

/* A map and a TSC that belong together. */
static struct clock_map read_map(const struct node_clock *clock, uint64_t *ret_tsc)
{
	struct clock_map map;
	unsigned int before, after;
	do {
		before = atomic_load(&clock->sequence);
		memcpy(&map, &clock->map, sizeof(map));
		*ret_tsc = host_clock_tsc();
		atomic_thread_fence(memory_order_seq_cst);
		after = atomic_load(&clock->sequence);
	} while (before != after || (before & 1));
	return map;
}

uint64_t node_clock_now(const struct node_clock *clock)
{
	uint64_t tsc;
	struct clock_map map = read_map(clock, &tsc);
	return clock_map_pod_ns(&map, ns_of(clock, tsc));
}

static bool good_enough(const struct node_clock *clock, uint64_t now_ns)
{
	if (clock->filter.sample_count < READY_SAMPLES)
		return false;
	if (now_ns - clock->first_sample_ns >=
	    (clock->exact_rate ? 2 * READY_PATIENCE_NS : READY_PATIENCE_NS))
		return true;
	return clock_map_error_ns(&clock->map, now_ns) <= READY_ERROR_NS &&
	       (!clock->exact_rate || clock->filter.rate_spread <= READY_SPREAD_PPB);
}

static uint64_t magnitude(int64_t value)
{
	return value < 0 ? -(uint64_t)value : (uint64_t)value;
}

/* Of what the map is off, what is not known: not the way that it still has to go. */
static uint64_t unknown_ns(uint64_t error_ns, int64_t left_ns)
{
	uint64_t known_ns = magnitude(left_ns);
	return error_ns > known_ns ? error_ns - known_ns : 0;
}

/* The line has gone after a clock that was off by so much, of which a sample may leave little. */
static void note_doubt(struct node_clock *clock, uint64_t local_ns)
{
	uint64_t error_ns = unknown_ns(clock_map_error_ns(&clock->map, local_ns),
				       clock_map_left_ns(&clock->map, local_ns));
	pthread_mutex_lock(&clock->lock);
	if (clock->line_exists && error_ns > clock->doubt_ns)
		clock->doubt_ns = error_ns;
	pthread_mutex_unlock(&clock->lock);
}

int node_clock_pong(struct node_clock *clock, const struct clock_sample *sample)
{
	note_doubt(clock, sample->received_ns);
	int r = pod_clock_sample(&clock->filter, sample);
	if (r < 0)
		return 0; /* late or nonsense: it says nothing */
	if (!clock->first_sample_ns)
		clock->first_sample_ns = sample->received_ns;
	node_clock_update(clock);
	atomic_store(&clock->settled, clock->filter.sample_count >= SETTLED_SAMPLES);
	if (!node_clock_ready(clock) && good_enough(clock, sample->received_ns)) {
		/* Whoever waits for node_clock_ready() sees no step. */
		pod_clock_start(&clock->filter);
		atomic_store(&clock->ready, true);
	}
	if (r == 0)
		return 0;
	return node_clock_ready(clock) || clock->filter.reset_count >= CONTRADICTIONS_MAX ? -ERANGE
											  : 0;
}

bool node_clock_ready(const struct node_clock *clock)
{
	return clock->filter.config.reference || atomic_load(&clock->ready);
}

bool node_clock_settled(const struct node_clock *clock)
{
	return atomic_load(&clock->settled);
}

uint64_t node_clock_error_ns(const struct node_clock *clock)
{
	uint64_t tsc;
	struct clock_map map = read_map(clock, &tsc);
	return clock->filter.config.reference ? 0 : clock_map_error_ns(&map, ns_of(clock, tsc));
}

uint32_t node_clock_pod_khz(const struct node_clock *clock)
{
	uint64_t tsc;
	struct clock_map map = read_map(clock, &tsc);
	int64_t spread_ppb = map.rate_spread_ppb < 2 * READY_SPREAD_PPB ? map.rate_spread_ppb
									: 2 * READY_SPREAD_PPB;
	int64_t slowest = 1000000000 + map.rate_ppb - spread_ppb;
	/* Where local seconds are short, the pod's have more of the TSC's ticks. Rounded up. */
	return (uint32_t)(((uint64_t)clock->host_khz * 1000000000u + (uint64_t)slowest - 1) /
			  (uint64_t)slowest);
}

/* ---- the guest's TSC ---- */

/*
 * Where the guest's TSC should be, and by which slope it grows. That is the filter's estimate, not
 * the map, which is still on its way there: one lag is enough.
 */
struct target {
	struct tsc_line aim;
	int64_t left_ns;   /* what the map still lacks */
	uint64_t error_ns; /* the map's */
};

static struct target target_now(const struct node_clock *clock)
{
	struct target target;
	struct clock_map map = read_map(clock, &target.aim.host_tsc);
	uint64_t local_ns = ns_of(clock, target.aim.host_tsc), pod_ns;
	target.left_ns = clock_map_left_ns(&map, local_ns);
	pod_ns = clock_map_pod_ns(&map, local_ns) + (uint64_t)target.left_ns;
	target.aim.guest_tsc = (uint64_t)((__int128)(int64_t)(pod_ns - clock->tsc.epoch_ns) *
					  clock->tsc.guest_khz / 1000000);
	target.aim.ratio =
		tsc_ratio_change(tsc_ratio(clock->tsc.guest_khz, clock->host_khz), map.rate_ppb);
	target.error_ns = clock->filter.config.reference ? 0 : clock_map_error_ns(&map, local_ns);
	return target;
}

static uint64_t engine_ratio(const struct node_clock *clock, uint64_t wanted)
{
	return clock->tsc.engine_ops->tsc_ratio(clock->tsc.engine, wanted);
}

void node_clock_tsc_start(struct node_clock *clock, const struct node_clock_tsc *tsc)
{
	pthread_mutex_lock(&clock->lock);
	clock->tsc = *tsc;
	struct target target = target_now(clock);
	clock->line = target.aim;
	clock->doubt_ns = target.error_ns;
	clock->line.ratio = engine_ratio(clock, clock->line.ratio);
	clock->line_exists = true;
	pthread_mutex_unlock(&clock->lock);
}

void node_clock_tsc_follow(struct node_clock *clock, struct node_clock_follow *ret_follow)
{
	uint64_t wanted, known_ns, apart_ns;
	int64_t ahead_ns;
	*ret_follow = (struct node_clock_follow){ .again_ns = TSC_LATER_NS };
	pthread_mutex_lock(&clock->lock);
	struct target target = target_now(clock);
	uint64_t doubt_ns = unknown_ns(target.error_ns, target.left_ns);
	struct tsc_steering steering = { .guest_khz = clock->tsc.guest_khz,
					 .fine_ns = target.error_ns / TSC_FINE_PART };
	/* What the clock itself may be off is not worth a kick of every vCPU. */
	if (steering.fine_ns < TSC_FINE_NS)
		steering.fine_ns = TSC_FINE_NS;
	ret_follow->moved =
		tsc_line_steer(&clock->line, &target.aim, &steering, &wanted, &ahead_ns);
	if (ret_follow->moved)
		ret_follow->again_ns = tsc_line_turn(&clock->line, &target.aim, &steering, wanted,
						     engine_ratio(clock, wanted));
	if (!clock->filter.config.reference && !node_clock_settled(clock) &&
	    ret_follow->again_ns > TSC_SOON_NS)
		ret_follow->again_ns = TSC_SOON_NS;
	/*
	 * The line is bent slowly: that it went where the clock was thought to be, when little was known of it, is no
	 * sign that it is lost. It is no further from the pod's time than what is found now says.
	 */
	apart_ns = magnitude(ahead_ns - target.left_ns);
	if (doubt_ns > clock->doubt_ns)
		clock->doubt_ns = doubt_ns;
	known_ns = clock->doubt_ns + target.error_ns;
	if (apart_ns > known_ns && apart_ns - known_ns > NODE_CLOCK_TSC_LOST_NS)
		ret_follow->lost_ns = apart_ns - known_ns;
	if (apart_ns + target.error_ns < clock->doubt_ns)
		clock->doubt_ns = apart_ns + target.error_ns;
	pthread_mutex_unlock(&clock->lock);
}

void node_clock_tsc(const struct node_clock *clock, struct tsc_line *ret_line)
{
	struct node_clock *c = (struct node_clock *)(uintptr_t)clock;
	pthread_mutex_lock(&c->lock);
	*ret_line = c->line;
	pthread_mutex_unlock(&c->lock);
}

static int64_t ahead_now(const struct node_clock *clock, uint64_t *ret_error_ns)
{
	struct node_clock *c = (struct node_clock *)(uintptr_t)clock;
	int64_t ticks = 0, left_ns = 0;
	*ret_error_ns = 0;
	pthread_mutex_lock(&c->lock);
	if (c->line_exists) {
		struct target target = target_now(c);
		ticks = (int64_t)(target.aim.guest_tsc -
				  tsc_line_at(&c->line, target.aim.host_tsc));
		ticks = (int64_t)((__int128)ticks * 1000000 / c->tsc.guest_khz);
		left_ns = target.left_ns;
		*ret_error_ns = target.error_ns;
	}
	pthread_mutex_unlock(&c->lock);
	return ticks - left_ns;
}

int64_t node_clock_tsc_error_ns(const struct node_clock *clock)
{
	uint64_t error_ns;
	return ahead_now(clock, &error_ns);
}

uint64_t node_clock_tsc_bound_ns(const struct node_clock *clock)
{
	uint64_t error_ns;
	int64_t ahead_ns = ahead_now(clock, &error_ns);
	return error_ns + magnitude(ahead_ns);
}

bool node_clock_rate_changed(struct node_clock *clock, uint32_t *ret_khz)
{
	uint64_t khz = clock->host_khz, slack = khz * NODE_CLOCK_RATE_PPM / 1000000;
	struct tsc_bracket now;
	struct tsc_rate rate;
	bool changed = false;
	read_bracket(&now);
	if (now.ns - clock->rate_from.ns < RATE_LEAST_NS)
		return false;
	if (!tsc_rate_bounds(&clock->rate_from, &now, &rate)) {
		*ret_khz = 0;
		changed = true;
	} else if (rate.low_khz > khz + slack || rate.high_khz < khz - slack) {
		*ret_khz = rate.low_khz + (rate.high_khz - rate.low_khz) / 2;
		changed = true;
	}
	if (changed || now.ns - clock->rate_from.ns >= RATE_SPAN_NS)
		clock->rate_from = now;
	return changed;
}
