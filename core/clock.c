// SPDX-License-Identifier: Apache-2.0
/*
 * The pod clock's filter. The idea and its proof are in the header.
 *
 * Arithmetic is in integers: offsets in ns, rates in ppb, products in 128 bits, always rounded such
 * that intervals become wider. The rate's bounds are computed anew at every sample from the
 * anchors: intervals of the past minute, set ANCHOR_SPAN_NS_MIN apart at first and further apart as
 * time goes on, so that both the first second and the long run have a long enough base.
 *
 * Tested by tests/core/test_clock.c, against simulated clocks and links.
 */
#include "core/clock.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define ANCHOR_SPAN_NS_MIN 20000000ull /* 20 ms */
#define ANCHOR_SPAN_NS_MAX                                                                         \
	2000000000ull /* 2 s: 32 of them are a minute, in which drift wanders little */
#define SLEW_HORIZON_NS 500000000ll /* an error is taken back over about this time */
#define ROUNDING_NS	3u
#define PPB		1000000000ll

static int64_t scale_down(int64_t value, int64_t numerator, int64_t denominator)
{
	__int128 product = (__int128)value * numerator;
	__int128 quotient = product / denominator;

	if (quotient * denominator > product)
		quotient--;
	return (int64_t)quotient;
}

static int64_t scale_up(int64_t value, int64_t numerator, int64_t denominator)
{
	return -scale_down(-value, numerator, denominator);
}

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

int pod_clock_init(struct pod_clock *clock, const struct clock_config *config)
{
	memset(clock, 0, sizeof(*clock));
	clock->config = *config;
	if (config->drift_ppb_max == 0)
		clock->config.drift_ppb_max = CLOCK_DRIFT_PPB_MAX;
	if (config->wander_ppb == 0)
		clock->config.wander_ppb = CLOCK_WANDER_PPB;
	if (config->slew_ppb_max == 0)
		clock->config.slew_ppb_max = CLOCK_SLEW_PPB_MAX;
	if (config->step_ns == 0)
		clock->config.step_ns = CLOCK_STEP_NS;
	/* Drift and slew together must leave the clock running forward, well. */
	if (clock->config.drift_ppb_max > 10000000 || clock->config.slew_ppb_max > 10000000 ||
	    clock->config.wander_ppb > clock->config.drift_ppb_max)
		return -EINVAL;
	clock->map.error_ns = config->reference ? 0 : UINT64_MAX;
	return 0;
}

void pod_clock_start(struct pod_clock *clock)
{
	clock->started = true;
}

static int64_t width(const struct clock_interval *interval)
{
	return interval->high - interval->low;
}

static int64_t middle(const struct clock_interval *interval)
{
	return interval->low + width(interval) / 2;
}

/* An interval `span_ns` later, if the offset's rate is within [rate_low, rate_high]. */
static struct clock_interval later(const struct clock_interval *interval, uint64_t span_ns,
				   int64_t rate_low, int64_t rate_high)
{
	return (struct clock_interval){
		.low = interval->low + scale_down((int64_t)span_ns, rate_low, PPB),
		.high = interval->high + scale_up((int64_t)span_ns, rate_high, PPB),
	};
}

static struct clock_interval proven_later(const struct pod_clock *clock, uint64_t local_ns)
{
	uint64_t span_ns = local_ns > clock->local_ns ? local_ns - clock->local_ns : 0;

	return later(&clock->proven, span_ns, clock->rate_low, clock->rate_high);
}

static struct clock_interval likely_later(const struct pod_clock *clock, uint64_t local_ns)
{
	uint64_t span_ns = local_ns > clock->local_ns ? local_ns - clock->local_ns : 0;

	return later(&clock->likely, span_ns, clock->rate_ppb - clock->rate_spread,
		     clock->rate_ppb + clock->rate_spread);
}

/* What both intervals have in common. False: nothing. */
static bool cut(struct clock_interval *interval, const struct clock_interval *by)
{
	interval->low = larger(interval->low, by->low);
	interval->high = smaller(interval->high, by->high);
	return interval->low <= interval->high;
}

static void begin_anew(struct pod_clock *clock, uint64_t local_ns,
		       const struct clock_interval *interval)
{
	clock->known = true;
	clock->local_ns = local_ns;
	clock->proven = clock->likely = *interval;
	clock->rate_low = -(int64_t)clock->config.drift_ppb_max;
	clock->rate_high = clock->config.drift_ppb_max;
	clock->rate_ppb = 0;
	clock->rate_spread = clock->config.drift_ppb_max;
	clock->anchor[0] = (struct clock_anchor){ local_ns, *interval, *interval };
	clock->anchor_count = 1;
	clock->anchor_next = 1;
	clock->anchor_span_ns = ANCHOR_SPAN_NS_MIN;
}

/* Every other anchor goes, and new ones come half as often. */
static void thin_anchors(struct pod_clock *clock)
{
	for (uint32_t i = 0; i < CLOCK_ANCHORS / 2; i++)
		clock->anchor[i] = clock->anchor[2 * i];
	clock->anchor_count = clock->anchor_next = CLOCK_ANCHORS / 2;
	clock->anchor_span_ns *= 2;
}

static void keep_anchor(struct pod_clock *clock)
{
	uint32_t last = (clock->anchor_next + CLOCK_ANCHORS - 1) % CLOCK_ANCHORS;

	if (clock->local_ns - clock->anchor[last].local_ns < clock->anchor_span_ns)
		return;
	if (clock->anchor_count == CLOCK_ANCHORS && clock->anchor_span_ns < ANCHOR_SPAN_NS_MAX)
		thin_anchors(clock);
	clock->anchor[clock->anchor_next % CLOCK_ANCHORS] =
		(struct clock_anchor){ clock->local_ns, clock->proven, clock->likely };
	clock->anchor_next = (clock->anchor_next + 1) % CLOCK_ANCHORS;
	if (clock->anchor_count < CLOCK_ANCHORS)
		clock->anchor_count++;
}

/* The rate's bounds from the present interval and the anchors. False: they contradict each other.
 */
static bool bound_rate(struct pod_clock *clock)
{
	int64_t low = -(int64_t)clock->config.drift_ppb_max;
	int64_t high = clock->config.drift_ppb_max;

	for (uint32_t i = 0; i < clock->anchor_count; i++) {
		const struct clock_anchor *anchor = &clock->anchor[i];
		int64_t span_ns = (int64_t)(clock->local_ns - anchor->local_ns);

		if (span_ns < (int64_t)ANCHOR_SPAN_NS_MIN)
			continue;
		low = larger(low,
			     scale_down(clock->proven.low - anchor->proven.high, PPB, span_ns));
		high = smaller(high,
			       scale_up(clock->proven.high - anchor->proven.low, PPB, span_ns));
	}
	if (low > high)
		return false;
	clock->rate_low = low - clock->config.wander_ppb;
	clock->rate_high = high + clock->config.wander_ppb;
	return true;
}

/*
 * The likely rate: between the middles of now and of that anchor that gives the sharpest answer.
 * The middle of an interval is taken to be off by an eighth of its width: half of it is the
 * journeys, which are alike.
 */
static void estimate_rate(struct pod_clock *clock)
{
	int64_t best = clock->config.drift_ppb_max;

	for (uint32_t i = 0; i < clock->anchor_count; i++) {
		const struct clock_anchor *anchor = &clock->anchor[i];
		int64_t span_ns = (int64_t)(clock->local_ns - anchor->local_ns);
		int64_t doubt_ns = (width(&clock->likely) + width(&anchor->likely)) / 8;
		int64_t spread;

		if (span_ns < (int64_t)ANCHOR_SPAN_NS_MIN)
			continue;
		spread = scale_up(doubt_ns, PPB, span_ns) + clock->config.wander_ppb;
		if (spread >= best)
			continue;
		best = spread;
		clock->rate_ppb =
			scale_down(middle(&clock->likely) - middle(&anchor->likely), PPB, span_ns);
		clock->rate_spread = spread;
	}
	clock->rate_ppb = smaller(larger(clock->rate_ppb, clock->rate_low), clock->rate_high);
}

/* Cuts both intervals by what a ping has shown. False: the proven one has become empty. */
static bool take(struct pod_clock *clock, uint64_t local_ns, const struct clock_interval *measured)
{
	struct clock_interval proven = proven_later(clock, local_ns);
	struct clock_interval likely = likely_later(clock, local_ns);

	if (!cut(&proven, measured))
		return false;
	/* It may have been wrong; what is proven is the place to begin again. */
	if (!cut(&likely, &proven))
		likely = proven;
	clock->local_ns = local_ns;
	clock->proven = proven;
	clock->likely = likely;
	return true;
}

int pod_clock_sample(struct pod_clock *clock, const struct clock_sample *sample)
{
	struct clock_interval measured;

	if (clock->config.reference || sample->received_ns < sample->sent_ns ||
	    sample->pod_sent_ns < sample->pod_received_ns ||
	    (clock->known && sample->received_ns < clock->local_ns))
		return -EINVAL;
	measured = (struct clock_interval){
		.low = (int64_t)(sample->pod_sent_ns - sample->received_ns),
		/* Known for the time of sending: until the time of receiving it may have grown. */
		.high = (int64_t)(sample->pod_received_ns - sample->sent_ns) +
			scale_up((int64_t)(sample->received_ns - sample->sent_ns),
				 clock->config.drift_ppb_max, PPB),
	};
	if (measured.low > measured.high)
		return -EINVAL; /* it took less than no time */
	clock->sample_count++;
	if (!clock->known) {
		begin_anew(clock, sample->received_ns, &measured);
		return 0;
	}
	if (!take(clock, sample->received_ns, &measured) || !bound_rate(clock)) {
		clock->reset_count++;
		begin_anew(clock, sample->received_ns, &measured);
		return 1;
	}
	estimate_rate(clock);
	keep_anchor(clock);
	return 0;
}

uint64_t clock_map_pod_ns(const struct clock_map *map, uint64_t local_ns)
{
	uint64_t span_ns = local_ns > map->local_ns ? local_ns - map->local_ns : 0;
	uint64_t slewing_ns = span_ns < map->slew_span_ns ? span_ns : map->slew_span_ns;

	return map->pod_ns + span_ns + (uint64_t)scale_down((int64_t)span_ns, map->rate_ppb, PPB) +
	       (uint64_t)scale_down((int64_t)slewing_ns, map->slew_ppb, PPB);
}

uint64_t clock_map_error_ns(const struct clock_map *map, uint64_t local_ns)
{
	uint64_t span_ns = local_ns > map->local_ns ? local_ns - map->local_ns : 0;

	if (map->error_ns == UINT64_MAX)
		return UINT64_MAX;
	return map->error_ns + (uint64_t)scale_up((int64_t)span_ns, map->growth_ppb, PPB);
}

int64_t clock_map_left_ns(const struct clock_map *map, uint64_t local_ns)
{
	uint64_t span_ns = local_ns > map->local_ns ? local_ns - map->local_ns : 0;

	if (span_ns >= map->slew_span_ns)
		return 0;
	return scale_down((int64_t)(map->slew_span_ns - span_ns), map->slew_ppb, PPB);
}

static void slew(const struct pod_clock *clock, struct clock_map *map, int64_t behind_ns)
{
	int64_t limit = clock->config.slew_ppb_max;
	int64_t ppb = scale_down(behind_ns, PPB, SLEW_HORIZON_NS);

	if (behind_ns == 0)
		return;
	ppb = smaller(larger(ppb, -limit), limit);
	if (ppb == 0)
		ppb = 1;
	map->slew_ppb = (int32_t)ppb;
	map->slew_span_ns = (uint64_t)(behind_ns > 0 ? scale_down(behind_ns, PPB, ppb)
						     : scale_down(-behind_ns, PPB, -ppb));
}

void pod_clock_update(struct pod_clock *clock, uint64_t local_ns, struct clock_map *ret_map)
{
	struct clock_map map = { .local_ns = local_ns, .pod_ns = local_ns, .error_ns = UINT64_MAX };
	struct clock_interval proven, likely;
	int64_t offset, aim;

	if (clock->config.reference) {
		map.error_ns = 0;
		goto out;
	}
	if (!clock->known)
		goto out;
	proven = proven_later(clock, local_ns);
	likely = likely_later(clock, local_ns);
	map.rate_ppb = (int32_t)clock->rate_ppb;
	map.rate_spread_ppb = (int32_t)clock->rate_spread;
	map.growth_ppb = (uint32_t)larger(clock->rate_high - clock->rate_ppb,
					  clock->rate_ppb - clock->rate_low);
	aim = middle(&likely);
	map.pod_ns = local_ns + (uint64_t)aim;
	if (clock->started && clock->map.error_ns != UINT64_MAX) {
		uint64_t pod_ns = clock_map_pod_ns(&clock->map, local_ns);
		int64_t behind_ns = (int64_t)(map.pod_ns - pod_ns);

		if (behind_ns < (int64_t)clock->config.step_ns) {
			map.pod_ns = pod_ns;
			slew(clock, &map, behind_ns);
		}
	}
	offset = (int64_t)(map.pod_ns - local_ns);
	/* Of the whole way that the map slews: the aim may be further from one end than the start. */
	map.error_ns = ROUNDING_NS + (uint64_t)larger(larger(offset, aim) - proven.low,
						      proven.high - smaller(offset, aim));
out:
	clock->map = map;
	*ret_map = map;
}
