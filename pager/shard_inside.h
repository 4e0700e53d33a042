/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a shard share. All of it is for the shard's thread alone. Each file knows those
 * below it: shard_loop.c waits and looks, shard.c takes what comes in and hands on what comes of it,
 * shard_stall.c keeps stalls and their times.
 */
#ifndef PAGER_SHARD_INSIDE_H
#define PAGER_SHARD_INSIDE_H

#include <sys/epoll.h>
#include <time.h>

#include "pager/shard.h"

#define TID_CACHE 256u

/* epoll's data: peers by number, then these. */
#define EVENT_FAULT   0x10000u
#define EVENT_COMMAND 0x10001u
#define EVENT_SEEN    0x10002u /* taken already */

static inline uint64_t pod_now_ns(const struct shard *shard)
{
	return shard->pager->config.now_ns(shard->pager->config.arg);
}

/* Frames of who has not been ACTIVE stay where they are: members.c. */
static inline bool shard_hears(const struct shard *shard, uint16_t node)
{
	return shard->members.was_active[node];
}

/* What epoll is to tell of a peer's channel. */
static inline uint32_t shard_watches(const struct shard *shard, uint16_t node)
{
	return (uint32_t)(shard_hears(shard, node) ? EPOLLIN : EPOLLRDHUP) |
	       (shard->want_writable[node] ? (uint32_t)EPOLLOUT : 0);
}

static inline uint64_t local_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* shard_stall.c: `actor` begins to wait; those that `wake` ends, as `count` actions say how. */
void shard_wait_begin(struct shard *shard, uint32_t actor, const struct guest_fault *fault,
		      enum coh_access want);
void shard_wait_end(struct shard *shard, const struct coh_action *wake,
		    const struct coh_action *action, uint32_t count);
/* Those that have ended are counted and told. */
void shard_count_woken(struct shard *shard);

/* shard.c: where a call of the protocol puts its actions, and what it does with them: 0, or the shard
 * has failed. */
struct coh_out shard_out(struct shard *shard);
int shard_carry_out(struct shard *shard, const struct coh_out *out, const void *received);
/* The protocol refused something that is not a peer's fault. */
void shard_core_failed(struct shard *shard, int error, const char *what);
/* A peer's channel is of no more use; whether that is a failure: members.c. */
void shard_peer_failed(struct shard *shard, uint16_t node, int error, const char *what);
/* Its channel is heard from now on (members.c); or is never looked at again. */
void shard_hear(struct shard *shard, uint16_t node);
void shard_watch_end(struct shard *shard, uint16_t node);
/* Whether there were any. */
bool shard_take_faults(struct shard *shard);
bool shard_take_frames(struct shard *shard, uint16_t node);
/* Frames to the peers; those that nobody waits for only when `idle`. */
void shard_send_all(struct shard *shard, bool idle);
/* One pass: what is ready goes in, what comes of it goes out. */
void shard_pass(struct shard *shard, const struct epoll_event *event, int count);

#endif
