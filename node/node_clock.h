/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod clock on this node, and the guest's TSC: core/clock.h's filter and core/tsc_line.h's line
 * behind locks that readers hardly wait for.
 *
 * A node has one clock only, its host's TSC, counted in ns by the rate that was measured at the
 * start (engine/tsc_rate.h). That of who has the seat CLOCK is the pod clock; the others follow it by
 * CLOCK_PING and CLOCK_PONG. Since the guest's TSC is made from the same TSC, no two clocks ever have
 * to be read at one moment, which a busy host does not allow.
 */
#ifndef NODE_NODE_CLOCK_H
#define NODE_NODE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/tsc_line.h"
#include "engine/engine.h"

struct node_clock;

struct node_clock_config {
	bool reference;	   /* its own is the pod clock */
	bool exact_rate;   /* ready only when the rate is known well: for hosts that cannot scale */
	uint32_t host_khz; /* of the host's TSC */
};

int node_clock_create(const struct node_clock_config *config, struct node_clock **ret_clock);
void node_clock_destroy(struct node_clock *clock);

/* The pod clock. Any thread; it never goes backwards on a node. */
uint64_t node_clock_now(const struct node_clock *clock);
/* This host's own clock, which pings carry. Any thread. */
uint64_t node_clock_local_ns(const struct node_clock *clock);

/*
 * A pong came. Control thread only. 0; -ERANGE: this host's clock and the reference cannot be what they
 * are taken for, since they run apart by more than CLOCK_DRIFT_PPB_MAX or have jumped.
 */
int node_clock_pong(struct node_clock *clock, const struct clock_sample *sample);
/* Now and then, when no pongs come. Control thread only. */
void node_clock_update(struct node_clock *clock);
/* Enough pongs to go by. The reference: always. */
bool node_clock_ready(const struct node_clock *clock);
/* It gains little by more pongs in a hurry. */
bool node_clock_settled(const struct node_clock *clock);
/* Bound of the difference to the reference. */
uint64_t node_clock_error_ns(const struct node_clock *clock);
/* The host's TSC rate by the pod clock, in kHz: what it likely is at most. */
uint32_t node_clock_pod_khz(const struct node_clock *clock);

/*
 * The guest's TSC: (pod clock - epoch) * guest_khz / 10^6, which the line of this node follows. It
 * can begin anew as long as no vCPU runs: the clock is better then. From then on the control thread
 * calls _follow(), after which all vCPUs take the line again if it says so.
 */
struct node_clock_tsc {
	uint64_t epoch_ns;
	uint32_t guest_khz;
	const struct engine_ops *engine_ops; /* whose vCPUs follow the line: tsc_ratio() */
	struct engine *engine;
};

struct node_clock_follow {
	bool moved;	   /* the vCPUs are to take the line again */
	uint64_t again_ns; /* call again after so long */
			   /* The line is off by more than this, beyond any doubt: -ERANGE. */
#define NODE_CLOCK_TSC_LOST_NS 1000000u
	uint64_t lost_ns; /* by how much, at least; 0: not lost */
};

void node_clock_tsc_start(struct node_clock *clock, const struct node_clock_tsc *tsc);
void node_clock_tsc_follow(struct node_clock *clock, struct node_clock_follow *ret_follow);
/* The line as it is now. Any thread. */
void node_clock_tsc(const struct node_clock *clock, struct tsc_line *ret_line);
/* How far the pod clock is ahead of the guest's TSC here; and the bound of what that TSC is off,
 * error of the pod clock included. Any thread. 0 before the start. */
int64_t node_clock_tsc_error_ns(const struct node_clock *clock);
uint64_t node_clock_tsc_bound_ns(const struct node_clock *clock);

/*
 * Does the TSC still run by the kernel's clock? Once a second or so. True: *ret_khz is what it runs
 * at, more than NODE_CLOCK_RATE_PPM off what was measured at the start.
 */
#define NODE_CLOCK_RATE_PPM 500u
bool node_clock_rate_changed(struct node_clock *clock, uint32_t *ret_khz);

#endif
