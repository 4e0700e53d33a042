/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod for directed tests of the page protocol: a few struct coh, links with explicit delivery,
 * and a memory per node whose pages are one number each. What a correct pod never does fails the
 * test here: a writable copy beside another copy, content sent from a page that is not there, more
 * pages than the capacity, -EPROTO between correct nodes.
 */
#ifndef TESTS_CORE_POD_H
#define TESTS_CORE_POD_H

#include "tests/test.h"

#include <stdbool.h>

#include "core/coherence.h"

#define POD_NODES  8
#define POD_ACTORS 8
#define POD_PAGES  4096
#define POD_LINK   2048

struct pod_packet {
	struct coh_msg msg;
	uint64_t content;
	uint64_t at_ns; /* not before */
};

struct pod_link {
	struct pod_packet packet[POD_LINK];
	uint32_t head, count;
};

struct pod_node {
	struct coh *coh;
	uint8_t access[POD_PAGES];
	uint64_t content[POD_PAGES];
	uint32_t resident;
	bool waiting[POD_ACTORS];
	uint64_t wait_gpn[POD_ACTORS];
	uint8_t wait_want[POD_ACTORS];
	bool pinned[POD_ACTORS];
	uint32_t wakes;
	uint32_t sharers; /* of the page, as the last wake says */
	uint32_t frees;	  /* that have ended */
	uint64_t freed;	  /* pages that the last one named */
};

struct pod {
	struct coh_config config;
	uint32_t node_count;
	uint64_t now_ns;
	struct pod_node node[POD_NODES];
	struct pod_link link[POD_NODES][POD_NODES];
	uint32_t sent[COH_MSG_TYPES];
	uint32_t pages_sent;
	int error; /* first error of a node; checked by the helpers unless `lenient` */
	bool lenient;
};

/* A pod of nodes that are all like `config` (self and node_count are set here), of its members. */
struct pod *pod_new(uint32_t node_count, const struct coh_config *config);
void pod_free(struct pod *pod);
struct coh_config pod_config(void);

void pod_stall(struct pod *pod, uint32_t node, uint32_t actor, uint64_t gpn, enum coh_access want);
void pod_pin(struct pod *pod, uint32_t node, uint32_t actor, uint64_t gpn, enum coh_access want);
/* Somebody may want the page there soon. */
void pod_fetch(struct pod *pod, uint32_t node, uint64_t gpn, enum coh_access want);
/* -EAGAIN: nothing was done. */
int pod_pin_here(struct pod *pod, uint32_t node, uint32_t actor, uint64_t gpn,
		 enum coh_access want);
/* The group of pages is needed no more: coh_free(). */
int pod_untouch(struct pod *pod, uint32_t node, uint64_t first, uint64_t mask);
void pod_unpin(struct pod *pod, uint32_t node, uint32_t actor);
void pod_release(struct pod *pod, uint32_t node);
/* `node` hears of a step, its channel with `with` stands, has ended, or it stays after all. */
void pod_member(struct pod *pod, uint32_t node, uint16_t about, enum member_state state);
void pod_linked(struct pod *pod, uint32_t node, uint16_t with);
void pod_unlinked(struct pod *pod, uint32_t node, uint16_t with);
void pod_release_cancel(struct pod *pod, uint32_t node);
/* A newcomer; `members` are those that it may name. */
void pod_join(struct pod *pod, uint32_t node, const struct member_set *members);

/* One message from a node to another; fails the test if there is none. */
void pod_deliver(struct pod *pod, uint32_t from, uint32_t to);
/* What waits on a link; 0: nothing. */
uint8_t pod_peek(const struct pod *pod, uint32_t from, uint32_t to);
/* Everything, until all links are empty; time stands still. */
void pod_settle(struct pod *pod);
/* Time goes on in steps, with ticks at the nodes' deadlines, and everything is delivered. */
void pod_run(struct pod *pod, uint64_t ns);
void pod_tick(struct pod *pod, uint32_t node);

/* The actor accesses the page and is done with it: stall, settle, and it must have been granted. */
void pod_write(struct pod *pod, uint32_t node, uint32_t actor, uint64_t gpn, uint64_t value);
uint64_t pod_read(struct pod *pod, uint32_t node, uint32_t actor, uint64_t gpn);
uint32_t pod_count(const struct pod *pod, uint8_t type);
void pod_check(const struct pod *pod);

#endif
