/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands from other threads to a shard's thread: a ring behind a mutex, and an eventfd that tells
 * of it.
 *
 * A port has at most one command under way per shard that it waits for and one (an unpin) that it
 * does not, a vCPU's hints are told of once until they are read, and so are an asker's two commands
 * and that pages were unpinned; so the ring's size is bounded by ports, vCPUs and askers, and a full
 * ring is a bug. So are the two that a shard frees pages, and those of members (members.c).
 */
#ifndef PAGER_QUEUE_H
#define PAGER_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/coherence.h"

enum pager_command_kind {
	PAGER_PIN,
	PAGER_PIN_HERE, /* only if the page is here; answered at once */
	PAGER_UNPIN,
	PAGER_FETCH,   /* what the actor's hints say */
	PAGER_FREE,    /* pager_free()'s pages */
	PAGER_FREE_ON, /* more of them; it may come when they are over */
	/* Of members (members.c); `actor` is the node. */
	PAGER_MEMBER,  /* gpn: its state from now on */
	PAGER_LINK,    /* it joins, and this is its channel */
	PAGER_UNLINK,  /* its channel ends, or is not used any more */
	PAGER_RELEASE, /* this node is to hold nothing */
	PAGER_CANCEL,  /* it stays */
	/* Of windows (window.c); `actor` is the asker's index. */
	PAGER_ASK,	 /* it is this shard's turn */
	PAGER_ASK_AHEAD, /* this shard has pages of it */
	PAGER_UNPINNED,	 /* see the shard's ring */
};

struct pager_command {
	enum pager_command_kind kind;
	enum coh_access want;
	uint32_t actor;
	uint64_t gpn;
	struct page_channel *channel; /* PAGER_LINK */
};

/* Of members, at a time. */
#define PAGER_MEMBER_COMMANDS(node_count) (2 * (node_count) + 3)

struct pager_queue {
	pthread_mutex_t mutex; /* guards all below but event_fd */
	struct pager_command *command;
	uint32_t size, first, count;
	bool closed;
	int event_fd; /* readable when there may be commands */
};

/* As many as it may have to take at once: see above. */
int pager_queue_init(struct pager_queue *queue, uint32_t size);
void pager_queue_destroy(struct pager_queue *queue); /* fine on a zeroed one with event_fd -1 */

/* Any thread. 0; -ESHUTDOWN: closed. */
int pager_queue_post(struct pager_queue *queue, const struct pager_command *command);

/* Whether posts fail. Any thread. */
bool pager_queue_closed(struct pager_queue *queue);

/* Later posts fail; the reader is woken. Any thread. */
void pager_queue_close(struct pager_queue *queue);

/* The shard's thread: up to `max` commands; their number. Quiets the eventfd. */
uint32_t pager_queue_take(struct pager_queue *queue, struct pager_command *ret_command,
			  uint32_t max);

#endif
