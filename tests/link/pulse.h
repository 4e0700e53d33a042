/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pulse: the one thread of a node that never waits for anybody. It sends heartbeats, judges who
 * is silent (core/heartbeat.h), asks node 0 for the time and keeps the pod clock (core/clock.h).
 *
 *      control thread --pulse_message()--> [ heartbeats, clock ] <-- its own thread
 *      vCPU threads   --pulse_pod_ns()---> [ map, lock-free ]
 *
 * It is a thread of its own because a busy node must not look dead: it touches no guest memory,
 * holds no lock over anything that can block, and asks the scheduler for a better place if it may.
 * The other half is the control thread: what it does not read was not heard. So it must not block,
 * either; yet if it is late, bytes that keep arriving unread count as life, too.
 *
 * A node that dies, stops, or is cut off is reported by mesh_down() within 4 s (a broken connection
 * at once, by whoever uses it).
 */
#ifndef TESTS_LINK_PULSE_H
#define TESTS_LINK_PULSE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/heartbeat.h"
#include "link/mesh.h"

struct pulse_config {
	struct mesh *mesh; /* brought up; outlives the pulse */
	uint16_t self, node_count;
	/* The local clock, ns, any thread. NULL: CLOCK_MONOTONIC_RAW. */
	uint64_t (*local_ns)(void *ctx);
	void *ctx;
	struct heartbeat_config heartbeat; /* times only; 0: defaults */
};

struct pulse;

/* Starts the thread. 0, -EINVAL, -ENOMEM, -EAGAIN (no more threads). */
int pulse_create(const struct pulse_config *config, struct pulse **ret_pulse);

/*
 * Control thread: for every message that came, right after it was received. True: it was the
 * pulse's own (HEARTBEAT, CLOCK_PING, CLOCK_PONG), and there is nothing more to do with it.
 */
bool pulse_message(struct pulse *pulse, const struct control_message *msg);

/* `node` has left or is known to be gone: not judged any more. Any thread. */
void pulse_forget(struct pulse *pulse, uint16_t node);

/*
 * The pod clock now. Any thread, lock-free, never goes back once pulse_clock_start() was called. On
 * nodes other than 0 it means nothing before pulse_clock_ready().
 */
uint64_t pulse_pod_ns(const struct pulse *pulse);

/* The same, and the bound of the error of just this reading. */
uint64_t pulse_bounded_pod_ns(const struct pulse *pulse, uint64_t *ret_error_ns);

/* The same at a reading of the local clock that was just taken; and the present map, for those who
 * convert often. */
void pulse_map(const struct pulse *pulse, struct clock_map *ret_map);

/* Bound of the pod clock's error now; UINT64_MAX: not known yet. Any thread. */
uint64_t pulse_error_ns(const struct pulse *pulse);

/* Has asked often enough to start a guest: some 2 s after pulse_create(); at once on node 0. Any
 * thread. */
bool pulse_clock_ready(const struct pulse *pulse);

/* From now on the pod clock is never stepped back. Call on every node when it is ready, before
 * vCPUs run. */
void pulse_clock_start(struct pulse *pulse);

/* Stops the thread. Nobody else may call any more. NULL is fine. */
void pulse_destroy(struct pulse *pulse);

#endif
