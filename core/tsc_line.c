/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's TSC on a node: idea, bounds and drawing are in tsc_line.h. */
#include "core/tsc_line.h"

#define PPB		1000000000ll
#define SOON_NS		20000000ull  /* while it is on its way to the aim */
#define LATER_NS	500000000ull /* when it is there */
#define STEPPING_NS_MIN 1000000ull   /* between two steps */
#define CLOSE_PPB	200	     /* slopes that need no correction: 200 ns a second */
#define EXACT_PPB	2	     /* an engine's slope that is as good as the one wanted */

static int64_t clamp(int64_t value, int64_t limit)
{
	return value > limit ? limit : value < -limit ? -limit : value;
}

uint64_t tsc_ratio(uint64_t guest_khz, uint64_t host_khz)
{
	return (uint64_t)(((unsigned __int128)guest_khz << TSC_RATIO_BITS) / host_khz);
}

uint64_t tsc_ratio_change(uint64_t ratio, int64_t ppb)
{
	return ratio + (uint64_t)(int64_t)((__int128)ratio * ppb / PPB);
}

int64_t tsc_ratio_ppb(uint64_t from, uint64_t to)
{
	return (int64_t)(((__int128)to - (__int128)from) * PPB / (__int128)from);
}

uint64_t tsc_line_at(const struct tsc_line *line, uint64_t host_tsc)
{
	int64_t ticks = (int64_t)(host_tsc - line->host_tsc);

	/* Signed: a host's TSC may be read just before the line's point. The shift rounds down. */
	return line->guest_tsc +
	       (uint64_t)(int64_t)((__int128)ticks * (__int128)line->ratio >> TSC_RATIO_BITS);
}

static int64_t ahead_ns(const struct tsc_line *line, const struct tsc_line *aim,
			const struct tsc_steering *steering)
{
	int64_t ticks = (int64_t)(aim->guest_tsc - tsc_line_at(line, aim->host_tsc));

	return (int64_t)((__int128)ticks * 1000000 / steering->guest_khz);
}

bool tsc_line_steer(const struct tsc_line *line, const struct tsc_line *aim,
		    const struct tsc_steering *steering, uint64_t *ret_ratio, int64_t *ret_ahead_ns)
{
	int64_t ahead = ahead_ns(line, aim, steering), slew, change;

	*ret_ahead_ns = ahead;
	slew = clamp(ahead, (int64_t)TSC_LINE_HORIZON_NS) * PPB / (int64_t)TSC_LINE_HORIZON_NS;
	if (ahead <= (int64_t)steering->fine_ns && ahead >= -(int64_t)steering->fine_ns)
		slew = 0;
	change = tsc_ratio_ppb(line->ratio,
			       tsc_ratio_change(aim->ratio, clamp(slew, TSC_LINE_SLEW_PPB)));
	if (change <= CLOSE_PPB && change >= -CLOSE_PPB)
		return false;
	*ret_ratio = tsc_ratio_change(line->ratio, clamp(change, TSC_LINE_CHANGE_PPB));
	return true;
}

uint64_t tsc_line_turn(struct tsc_line *line, const struct tsc_line *aim,
		       const struct tsc_steering *steering, uint64_t wanted, uint64_t ratio)
{
	int64_t ahead = ahead_ns(line, aim, steering), short_ppb = tsc_ratio_ppb(ratio, aim->ratio);

	line->guest_tsc = tsc_line_at(line, aim->host_tsc);
	line->host_tsc = aim->host_tsc;
	line->ratio = ratio;
	if (tsc_ratio_ppb(ratio, wanted) <= EXACT_PPB && tsc_ratio_ppb(ratio, wanted) >= -EXACT_PPB)
		return SOON_NS;
	if (ahead > 0) {
		uint64_t step_ns =
			ahead < (int64_t)TSC_LINE_STEP_NS ? (uint64_t)ahead : TSC_LINE_STEP_NS;

		if (ahead > (int64_t)TSC_LINE_FAR_NS)
			step_ns += ((uint64_t)ahead - TSC_LINE_FAR_NS) / TSC_LINE_FAR_PART;
		line->guest_tsc += step_ns * steering->guest_khz / 1000000;
		if (ahead > 2 * (int64_t)TSC_LINE_STEP_NS)
			return STEPPING_NS_MIN;
	}
	if (short_ppb < (int64_t)(TSC_LINE_STEP_NS * PPB / LATER_NS))
		return LATER_NS;
	return TSC_LINE_STEP_NS * PPB / (uint64_t)short_ppb;
}
