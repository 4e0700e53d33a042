/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod inside one process whose members come and go: hosts with guest memory, a pager, and a list of
 * members each, joined by channels over socket pairs, or by meshes over TCP. The lists' words go by queues in the order of each
 * pair, and hosts take turns at random, so that words and pages come in any order to each other.
 *
 * What a host's turn does is what core/member_list.h and pager/members.h ask of a node's control thread,
 * which is the test's own thread here.
 */
#ifndef TESTS_MEMORY_CHANGING_POD_H
#define TESTS_MEMORY_CHANGING_POD_H

#include <stdatomic.h>
#include <stdbool.h>

#include "core/member_list.h"
#include "link/channel.h"
#include "memory/guest_memory.h"
#include "pager/members.h"
#include "pager/pager.h"
#include "tests/rng.h"

#define HOSTS	   4
#define HOST_WORDS 64
#define POD_SHARDS 2
#define POD_CAUSE  200

struct host {
	struct changing_pod *pod;
	uint16_t self;
	bool there;
	struct guest_memory *memory;
	struct pager *pager;
	struct page_channel *channel[HOSTS][SHARDS_MAX];
	struct member_list list;

	struct letter {
		uint16_t src;
		struct member_word word;
	} letter[HOST_WORDS];
	uint32_t first, count;

	bool owes_done; /* of the last step */
	bool said_ready, said_drained, drain_over, gone_over;
	bool held;	   /* it does not begin to release */
	bool late;	   /* its pager is not given the links that its mesh has made */
	bool stays;	   /* when it is GONE, and nobody needs it */
	uint32_t unlinked; /* how often a node's channels became free */

	/* By shards' threads. */
	atomic_bool lost[HOSTS];
	atomic_uint ended; /* how often link_ended was called */
	atomic_uint failures;
	uint16_t failed_node;
	int failed_error;
	char cause[POD_CAUSE];
};

struct changing_pod {
	struct host host[HOSTS];
	uint32_t shard_count;
	uint64_t memory_bytes, capacity_bytes;
	uint64_t unlink_ns; /* struct pager_config */
	enum pager_spin spin;
	bool meshed, encrypt;
	int event_fd; /* a pager has something to say */
	struct rng rng;
	struct node *mesh; /* of each number (tests/link/mesh_pod.h), or NULL */
	uint16_t joiner;   /* brings up its mesh, in a thread; or NODE_NONE */
	uint16_t sponsor;
	uint64_t beat_ns;
	bool ended;    /* some list says that the pod ends */
	bool no_ready; /* who joins does not say that it is READY */
};

/* Numbers 0 to member_count - 1 are there, the others free. */
void changing_pod_create(struct changing_pod *pod, uint16_t member_count);
void changing_pod_destroy(struct changing_pod *pod);

/* `by` wishes that a host joins; that a member drains, or stays after all. */
void pod_wish_join(struct changing_pod *pod, uint16_t by, const char *name);
void pod_wish(struct changing_pod *pod, uint16_t by, enum member_kind kind, uint16_t node);

/* Turns of all, until number `node` is in this state at all that are there, and all steps are over. */
void pod_run_until(struct changing_pod *pod, uint16_t node, enum member_state state);
/* One turn of each that is there. Whether anything was done. */
bool pod_turn(struct changing_pod *pod);
/* Waits until a pager has something to say; fails the test when none has for very long. */
void pod_wait(struct changing_pod *pod);

/* The host ends, without a word. */
void host_end(struct host *host);

/* Fails the test with the first cause if any pager has failed. */
void pod_assert_well(struct changing_pod *pod);

static inline void *host_at(const struct host *host, uint64_t gpa)
{
	return guest_memory_hva(host->memory, gpa);
}

#endif
