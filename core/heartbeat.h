/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heartbeats: when to send one, and when a silent peer is dead. Pure; time is an argument.
 *
 * A peer is dead when nothing has been heard from it for timeout_ns. Anything from its control
 * channel counts. Before the first word it has first_ns, for nodes finish their bring-up at
 * different times.
 *
 * A node that did not run (its host was overloaded, or stopped it) could not hear anybody, and what
 * kept it may keep its peers on the same host as well. So the time by which its ticks came late is
 * no silence of theirs: they are dead when nothing was heard for timeout_ns in which it could have
 * been. And when a tick comes late by more than interval_ns, nobody is judged for another grace_ns,
 * in which the control thread reads what has been waiting in its sockets.
 *
 * The other half of that is the caller's: heartbeats are sent by a thread that never waits for
 * anything else (no guest memory, no lock held over a system call that can block, no engine), so
 * that a busy node is never silent. node/control.c is that thread.
 *
 * One thread owns it, or a lock.
 */
#ifndef CORE_HEARTBEAT_H
#define CORE_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"
#include "core/member_set.h"

#define HEARTBEAT_INTERVAL_NS 500000000ull
#define HEARTBEAT_TIMEOUT_NS  3000000000ull
#define HEARTBEAT_FIRST_NS    30000000000ull
#define HEARTBEAT_GRACE_NS    500000000ull

struct heartbeat_config {
	uint16_t self, node_count; /* the number space */
	struct member_set
		members; /* who is watched, with this node or without; none: all numbers */
	uint64_t interval_ns, timeout_ns, first_ns, grace_ns; /* 0: the defaults above */
};

struct heartbeat_peer {
	uint64_t heard_ns;
	uint64_t missed_ns; /* since then: this node did not run */
	bool watched;	    /* a member, not self, not yet declared dead or left */
	bool heard;	    /* at least once */
};

struct heartbeat {
	struct heartbeat_config config;
	uint64_t send_ns;  /* next heartbeat is due */
	uint64_t tick_ns;  /* of the last tick */
	uint64_t judge_ns; /* nobody is judged before */
	struct heartbeat_peer peer[NODES_MAX];
};

/* -EINVAL: config. */
int heartbeat_init(struct heartbeat *heartbeat, const struct heartbeat_config *config,
		   uint64_t now_ns);

/* Something came from `node`. Unknown numbers are ignored. */
void heartbeat_heard(struct heartbeat *heartbeat, uint16_t node, uint64_t now_ns);

/* `node` is a peer from now on: one that is watched already stays as it is. */
void heartbeat_watch(struct heartbeat *heartbeat, uint16_t node, uint64_t now_ns);

/* `node` is known to be gone, or left: not judged any more. */
void heartbeat_forget(struct heartbeat *heartbeat, uint16_t node);

/*
 * Call at heartbeat_deadline(). *ret_send: send a heartbeat to all peers now. Returns how many
 * peers have died, and their numbers in ret_dead (room for NODES_MAX), each once.
 */
uint32_t heartbeat_tick(struct heartbeat *heartbeat, uint64_t now_ns, bool *ret_send,
			uint16_t *ret_dead);
uint64_t heartbeat_deadline(const struct heartbeat *heartbeat);

/* How long nothing has been heard from `node`. */
uint64_t heartbeat_silence_ns(const struct heartbeat *heartbeat, uint16_t node, uint64_t now_ns);

#endif
