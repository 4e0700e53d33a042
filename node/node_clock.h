/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod clock on this node: the filter of core/clock.h behind a lock that readers never wait for.
 *
 * Node 0's CLOCK_MONOTONIC_RAW since it started is the pod clock; the others follow it by
 * CLOCK_PING and CLOCK_PONG. Readable by any thread; it never goes backwards on a node.
 */
#ifndef NODE_NODE_CLOCK_H
#define NODE_NODE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/clock.h"
#include "engine/engine.h"

struct node_clock;

int node_clock_create(uint16_t self, struct node_clock **ret_clock);
void node_clock_destroy(struct node_clock *clock);

uint64_t node_clock_now(const struct node_clock *clock);
/* This host's own clock, which pings carry. */
uint64_t node_clock_local_ns(void);

/* A pong came. Control thread only. */
void node_clock_pong(struct node_clock *clock, const struct clock_sample *sample);
/* Now and then, when no pongs come. Control thread only. */
void node_clock_update(struct node_clock *clock);
/* Enough pongs to go by. Node 0: always. */
bool node_clock_ready(const struct node_clock *clock);
/* Bound of the difference to node 0's clock. */
uint64_t node_clock_error_ns(const struct node_clock *clock);

/*
 * The guest's TSC on this node: a line through (host TSC, guest TSC) that all its vCPUs share,
 * begun at the pod clock: guest TSC = (pod clock - epoch) * guest_khz / 10^6. The control thread
 * starts it, before vCPUs run, and follows the pod clock in steps so small that no vCPU sees one:
 * leaving and entering the guest takes longer than a step back. False: the line is as it was.
 */
void node_clock_tsc_start(struct node_clock *clock, uint64_t epoch_ns, uint32_t guest_khz,
			  uint32_t host_khz);
bool node_clock_tsc_follow(struct node_clock *clock);
/* Where the line is now. Any thread. */
void node_clock_tsc(const struct node_clock *clock, struct engine_tsc *ret_tsc);
/* The distance that the last node_clock_tsc_follow() saw. Any thread. */
int64_t node_clock_tsc_error_ns(const struct node_clock *clock);

#endif
