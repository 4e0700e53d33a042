/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod clock: one time for all nodes, node 0's. Pure; the local clock's reading is an argument.
 *
 * The others ask node 0 and reason in intervals, with nothing assumed but that a message takes no
 * negative time and that oscillators are good to drift_ppb_max. With offset = pod clock - local
 * clock:
 *
 *      local    sent o-------.                 .--------> o received
 *                             \               /
 *      pod                     '-> received --' sent
 *
 *      offset at `sent`     <=  pod received - sent      (too large by the ping's journey)
 *      offset at `received` >=  pod sent - received      (too small by the pong's journey)
 *
 * Every ping thus cuts off a piece of what the offset may be, from above and below; between pings
 * the interval widens by what is not known of the rate, and old intervals bound the rate in turn. A
 * slow ping cuts off nothing, so outliers need no judging. This interval is proven; the reported
 * error comes from it. If it becomes empty, an oscillator broke its promise (a suspended host,
 * say): the filter begins anew and counts it.
 *
 * The estimate is the middle of a second interval, cut by the same pings, that widens only by what
 * the rate is likely to be off. Its error is about half the difference of the best journeys there
 * and back: far below the proven bound where links are alike in both directions.
 *
 * What is read is a map (struct clock_map): continuous, always growing; it slews towards the
 * estimate, and is never stepped once pod_clock_start() was called, save forward, when it is behind
 * by more than step_ns.
 *
 * Causality: a time read at node A is never above a time read at B after a message from A has
 * arrived there, when the estimates' errors at A and B differ by less than the message's journey.
 * So it holds where links are about alike in both directions, and not where, say, one direction is
 * several times as slow.
 *
 * The guest's TSC should run a little faster than the fastest host's (START.tsc_khz a few hundred
 * ppm above): then a host's TSC always lags behind the pod's, and corrections only ever go forward.
 */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_DRIFT_PPB_MAX 500000u /* between two hosts: 500 ppm */
#define CLOCK_WANDER_PPB    1500u   /* change of that drift that goes unnoticed: 1.5 ppm */
#define CLOCK_SLEW_PPB_MAX  500000u
#define CLOCK_STEP_NS	    10000000u
#define CLOCK_ANCHORS	    32u /* old intervals that bound the rate */

struct clock_config {
	bool reference; /* node 0: its local clock is the pod clock */
	uint32_t drift_ppb_max, wander_ppb, slew_ppb_max; /* 0: as above */
	uint64_t step_ns;				  /* 0: as above */
};

/* One ping: the two local and the two remote times, ns. */
struct clock_sample {
	uint64_t sent_ns, received_ns;	       /* local clock */
	uint64_t pod_received_ns, pod_sent_ns; /* pod clock at node 0 */
};

/*
 * pod = pod_ns + (local - local_ns) * (1 + rate) + min(local - local_ns, slew_span_ns) * slew
 */
struct clock_map {
	uint64_t local_ns, pod_ns;
	int32_t rate_ppb, slew_ppb;
	int32_t rate_spread_ppb; /* the rate is likely known to this */
	uint64_t slew_span_ns;
	uint64_t error_ns;   /* bound at local_ns, slew included; UINT64_MAX: no sample yet */
	uint32_t growth_ppb; /* of the bound afterwards */
};

/* At one local time, the offset is within [low, high] (ns). */
struct clock_interval {
	int64_t low, high;
};

/* What was known at some time in the past. */
struct clock_anchor {
	uint64_t local_ns;
	struct clock_interval proven, likely;
};

struct pod_clock {
	struct clock_config config;
	bool started, known;
	uint64_t local_ns; /* of the last sample; the intervals are of that time */
	struct clock_interval proven, likely;
	int64_t rate_low, rate_high;   /* of the offset, ppb, wander included: proven */
	int64_t rate_ppb, rate_spread; /* likely: rate_ppb +- rate_spread */
	struct clock_anchor anchor[CLOCK_ANCHORS];
	uint32_t anchor_count, anchor_next;
	uint64_t anchor_span_ns; /* between anchors; doubles as they come to reach further back */
	struct clock_map map;
	uint64_t sample_count, reset_count;
};

/* -EINVAL: nonsense in the config. */
int pod_clock_init(struct pod_clock *clock, const struct clock_config *config);

/*
 * A ping came back. 0; -EINVAL: times that cannot be (received before sent, ...), or older than the
 * last one's; 1: taken, but the filter had to begin anew.
 */
int pod_clock_sample(struct pod_clock *clock, const struct clock_sample *sample);

/* From now on the map is never stepped back. Call before the first guest instruction. */
void pod_clock_start(struct pod_clock *clock);

/*
 * The map from local time `local_ns` on, which must not be less than at the last call. Continuous
 * with the map before. Call after samples, and at least every few seconds. Readers must have read
 * the local clock before this call's local_ns was read to use the old map (node/node_clock.c shows
 * how).
 */
void pod_clock_update(struct pod_clock *clock, uint64_t local_ns, struct clock_map *ret_map);

/* Pod clock at local_ns >= map->local_ns, and the bound of its error. */
uint64_t clock_map_pod_ns(const struct clock_map *map, uint64_t local_ns);
uint64_t clock_map_error_ns(const struct clock_map *map, uint64_t local_ns);

/* What is left to slew at local_ns: the estimate is so far ahead of the map. */
int64_t clock_map_left_ns(const struct clock_map *map, uint64_t local_ns);

#endif
