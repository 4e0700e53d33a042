/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows between the io thread and the shards' threads. Private to pager/: window.c has both
 * sides.
 */
#ifndef PAGER_WINDOW_STATE_H
#define PAGER_WINDOW_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/dma.h"
#include "memory/gate.h"
#include "pager/queue.h"

/* Askers: actors by which windows ask for pages. More windows than those take turns. */
#define ASKERS_MAX 8u
/* Pages of an ask. */
#define ASK_PAGES_MAX 512u
/* Pages that are pinned at once, by all windows of a pager. */
#define WINDOW_PAGES_MAX 8000u
/* Pages that somebody waits for and that were unpinned, not yet looked at by their shard. */
#define UNPINNED_MAX 1024u

_Static_assert(WINDOW_PAGES_MAX < GATE_USERS_MAX, "no page is ever pinned too often");

struct pager_window {
	struct dma dma; /* first */
	struct pager *pager;
	struct asker *asker; /* that asks for it, or has and kept the pages for it; or NULL */
	bool queued;	     /* waits for an asker */
	uint32_t next;
};

enum asker_state {
	ASKER_FREE,
	ASKER_ASKS, /* the shards have it */
	ASKER_DONE, /* its window is to be told */
	ASKER_TOLD, /* and was */
};

struct ask_page {
	uint64_t gpn;
	enum coh_access want;
};

struct asker {
	uint32_t actor;
	struct pager_window *window;
	/* enum asker_state. To ASKS and back to FREE by the io thread, to DONE by a shard. */
	atomic_uint state;
	/* Parts of the ask that are not over: the pages one after the other, and each shard's fetch. */
	atomic_uint left;

	/* From the io thread to the shards; constant while it asks. */
	uint32_t count;
	struct ask_page page[ASK_PAGES_MAX];

	/* Of the shard whose turn it is. */
	uint32_t at;
	bool stalled; /* page[at] has been asked for */
};

/* The io thread tells a shard's: somebody may have waited for these. A full ring loses: the core
 * looks again by itself. */
struct unpinned {
	uint64_t gpn[UNPINNED_MAX];
	atomic_uint head, tail;
	atomic_bool posted;
};

struct pager_windows {
	struct gates gates; /* word NULL: there are no windows */
	uint32_t window_count;
	struct pager_window *window;
	struct asker *asker;
	struct unpinned *unpinned; /* by shard */
	/* The io thread's. */
	uint32_t pages, pages_max;
	uint32_t first, last; /* windows that wait for an asker; UINT32_MAX: none */
};

struct shard;

/* 0 or -errno; to be finished whatever came. */
int pager_windows_init(struct pager *pager);
void pager_windows_fini(struct pager *pager);

/* The shard's thread: a command; an asker's page came; what waited for an unpin may go on. */
void shard_window_command(struct shard *shard, const struct pager_command *command);
void shard_window_woken(struct shard *shard, uint32_t actor);
void shard_windows_step(struct shard *shard);

#endif
