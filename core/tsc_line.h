/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's TSC on one node: a line over the host's TSC that all vCPUs of the node share, steered
 * after the pod clock. Pure; both TSCs are arguments.
 *
 *      guest TSC                                  ..... where the pod clock says it should be
 *         |                          ____....----       (the aim: a point and a slope)
 *         |             ____....----       _____
 *         |      .....-----      ________--  <-- the line: bent towards the aim, never broken
 *         |   ----________-------
 *         +-----------------------------------> host TSC
 *
 * The line is only ever bent: at each correction it begins where it is and takes another slope, so
 * no vCPU sees its TSC jump. The slope that is wanted is the aim's, and a part more or less that
 * takes the distance back within TSC_LINE_HORIZON.
 *
 * The vCPUs of a node take a new line over one after the other, some time after it began. Until all
 * have, two of them are apart by that time multiplied by how much the slope has changed. So it
 * changes by TSC_LINE_CHANGE_PPB at most in one go: 10 ms late is 50 ns, which is less than handing
 * a cache line over takes.
 *
 * Engines that cannot run at any slope (no TSC scaling, or KVM, which does without for the last
 * 250 ppm) say which one they use instead. There the line is stepped besides, TSC_LINE_STEP_NS at a
 * time and forward only. Such a guest is promised a rate a little above what all its hosts have
 * (node/start.c), so there always is something to step forward. On a host so busy that there are
 * too few steps, they get longer when the line has fallen far behind: a vCPU that is ahead of
 * another by a microsecond for a moment is better than a node that loses the pod's time.
 *
 * Tested in tests/core/test_tsc_line.c: nodes, engines of both kinds, late vCPUs.
 */
#ifndef CORE_TSC_LINE_H
#define CORE_TSC_LINE_H

#include <stdbool.h>
#include <stdint.h>

/* Guest ticks a host tick, as a number with so many binary digits behind the point. */
#define TSC_RATIO_BITS 48
#define TSC_RATIO_ONE  (1ull << TSC_RATIO_BITS)

#define TSC_LINE_HORIZON_NS 400000000ull
#define TSC_LINE_SLEW_PPB   100000 /* what is taken back, at most: 100 ppm */
#define TSC_LINE_CHANGE_PPB 5000   /* of the slope in one go: 5 ppm */
#define TSC_LINE_STEP_NS    50u
#define TSC_LINE_FAR_NS	    100000u /* behind: from there on steps are longer, */
#define TSC_LINE_FAR_PART   400u    /* by this part of the rest */

/* When the host's TSC is host_tsc, the guest's is guest_tsc; from there on, ratio. */
struct tsc_line {
	uint64_t host_tsc, guest_tsc;
	uint64_t ratio;
};

/* guest / host as a ratio. */
uint64_t tsc_ratio(uint64_t guest_khz, uint64_t host_khz);
/* ratio * (1 + ppb / 10^9). */
uint64_t tsc_ratio_change(uint64_t ratio, int64_t ppb);
/* How much faster `to` is than `from`. */
int64_t tsc_ratio_ppb(uint64_t from, uint64_t to);

/* The guest's TSC at host_tsc, which may be before line->host_tsc. */
uint64_t tsc_line_at(const struct tsc_line *line, uint64_t host_tsc);

/* What moves a line, in ticks of the guest. */
struct tsc_steering {
	uint32_t guest_khz;
	uint64_t fine_ns; /* a distance that is not worth a correction */
};

/*
 * The slope to ask the engine for, so that the line comes to `aim` (whose host_tsc is now). False:
 * it is fine as it is. *ret_ahead_ns: how far the aim is ahead of the line.
 */
bool tsc_line_steer(const struct tsc_line *line, const struct tsc_line *aim,
		    const struct tsc_steering *steering, uint64_t *ret_ratio,
		    int64_t *ret_ahead_ns);

/*
 * Goes on from host_tsc with the slope that the engine runs at. If that is not `wanted`, and the
 * aim is ahead, a step. Returns after how many ns to look again.
 */
uint64_t tsc_line_turn(struct tsc_line *line, const struct tsc_line *aim,
		       const struct tsc_steering *steering, uint64_t wanted, uint64_t ratio);

#endif
