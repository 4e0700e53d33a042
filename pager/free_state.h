/* SPDX-License-Identifier: Apache-2.0 */
/* Freeing between the io thread and the shards' threads. Private to pager/: free.c has both sides. */
#ifndef PAGER_FREE_STATE_H
#define PAGER_FREE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/coherence.h"
#include "pager/free.h"

enum frees_state {
	FREES_IDLE,
	FREES_BUSY, /* the shards have it */
	FREES_OVER, /* and are done; the io thread has not asked yet */
};

struct pager_frees {
	/* enum frees_state. To OVER by a shard, else by the io thread. */
	atomic_uint state;
	atomic_uint left;    /* shards that are at it */
	atomic_bool stopped; /* no further group is begun. Any thread */

	/* Constant while it is busy: whole pages. */
	uint32_t count;
	struct frees_range {
		uint64_t first, end;
	} range[PAGER_FREE_RANGES];
};

/* How far a shard is. */
struct shard_free {
	bool active, due;
	bool posted;	/* PAGER_FREE_ON is in the queue, perhaps of an earlier one */
	uint32_t range; /* which, and from which page on */
	uint64_t gpn;
	uint32_t under_way; /* groups */
};

struct shard;

/* The shard's thread: PAGER_FREE, PAGER_FREE_ON; a group is over, which may be in the midst of it; what
 * is due. */
void shard_free_begin(struct shard *shard);
void shard_free_on(struct shard *shard);
void shard_free_over(struct shard *shard);
void shard_free_step(struct shard *shard);

#endif
