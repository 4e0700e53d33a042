/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One shard of the pager: its thread and what that thread owns. Private to pager/.
 */
#ifndef PAGER_SHARD_H
#define PAGER_SHARD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/coherence.h"
#include "core/page_hints.h"
#include "pager/free_state.h"
#include "pager/members_state.h"
#include "pager/pager.h"
#include "pager/plan.h"
#include "pager/queue.h"
#include "pager/spin.h"
#include "pager/stall_time.h"
#include "pager/stats.h"
#include "pager/window_state.h"

/* Threads that touch guest memory without having been bound to an actor take one of these for a
 * stall's time; when all are taken they wait in a queue. */
#define NAMELESS_ACTORS 8u
#define NAMELESS_QUEUE	256u

/* A shard that is promised fewer pages cannot keep one instruction's pages and its requests. */
#define PAGER_SHARD_PAGES_MIN 64u

/* Faults, commands and events taken at a time. */
#define SHARD_FAULTS   64
#define SHARD_COMMANDS 32
#define SHARD_EVENTS   64
/* Stalls whose end is counted at a time. */
#define SHARD_WOKEN 64

/* What a vCPU takes along. */
struct pager_hints {
	pthread_mutex_t lock; /* guards list; nobody holds it while it waits for anything */
	struct page_hints list;
	/* A shard's thread, which does not wait, found it locked: who unlocks it tells shards again. */
	atomic_bool missed;
};

/* Who is an actor, by thread: an open-addressed table from thread id to actor, rebuilt at every
 * bind. */
struct pager_actors {
	uint32_t vcpu_count, port_count;
	uint32_t
		asker_count; /* of windows; in the order of numbers: vCPUs, ports, askers, nameless */
	_Atomic int32_t
		*tid; /* of vCPU i, 0: nobody. Written by pager_bind_actor(), read by shards */
	_Atomic uint64_t *stalls;   /* of vCPU i. Added to by shards */
	struct stall_time *stalled; /* likewise */
	struct pager_hints *hints;  /* likewise */
};

struct pager_port {
	struct memory_port port; /* first: ops get this */
	struct pager *pager;
	uint32_t actor;
	bool open;	       /* guarded by the pager's mutex */
	pthread_mutex_t mutex; /* guards state */
	pthread_cond_t done;
	int state; /* 0: the pin is complete; -EINPROGRESS; or the error that ended it */
};

/* A stall that has not ended, one an actor. */
struct shard_wait {
	bool waiting, wp;
	enum coh_access want;
	uint64_t gpn, since_ns;
	uint16_t offset;
};

struct shard_woken {
	enum coh_stall_kind kind; /* COH_STALL_KINDS: spurious */
	uint32_t actor;
	uint64_t gpn, since_ns;
	uint16_t offset;
	uint16_t from, sharers; /* struct pager_stall */
};

struct shard {
	struct pager *pager;
	uint32_t index;
	struct coh *coh;
	int epoll_fd;
	pthread_t thread;
	bool started;

	/* The thread's own. */
	struct plan plan;
	struct pager_spinner spinner;
	bool *want_writable; /* by node: EPOLLOUT is on */
	bool *unread;	     /* by node: its turn ended before its frames did */
	uint32_t unread_count;
	uint32_t blocked_count;		       /* peers whose queue is not empty: want_writable */
	struct shard_wait *wait;	       /* by actor */
	struct shard_woken woken[SHARD_WOKEN]; /* stalls that ended and are to be counted */
	uint32_t woken_count;
	struct guest_fault queued[NAMELESS_QUEUE]; /* of nameless threads, a ring */
	uint32_t queued_first, queued_count;
	uint16_t from;	      /* whose message is being handled, NODE_NONE: it is none */
	uint16_t hot_node;    /* whose frame came last, NODE_NONE: no frame yet */
	bool fault_is_next;   /* the last frame woke somebody, who may stall again soon */
	uint32_t lazy_passes; /* since a frame that nobody waits for was left */
	uint64_t published_ns;
	uint64_t calls; /* of the kernel, but for memory and channels, which count theirs */
	bool failed;
	struct page_frame frame; /* received */
	struct coh_action action[COH_ACTIONS_MIN];
	int32_t *cached_tid; /* the actor that a thread id was last found at: by tid modulo
				TID_CACHE */
	uint32_t *cached_actor;
	bool ask_woken[ASKERS_MAX];   /* the asker's page came */
	bool ask_blocked[ASKERS_MAX]; /* its page is wanted by others, and waits for an unpin */
	bool asks_due;		      /* any of these */
	bool ended;		      /* a stall has, or a free, since somebody looked */
	struct shard_free free;
	struct shard_members members; /* a part is shared */

	/* Shared: locked or atomic inside. */
	struct pager_queue queue;
	atomic_bool *fetch_posted; /* by vCPU: PAGER_FETCH is in the queue */
	struct shard_stats stats;
};

struct pager {
	struct pager_config config;
	uint32_t shard_count;
	struct shard *shard;
	struct coh_actors *coh_actors; /* atomics inside; shared by the shards */
	struct pager_actors actors;
	struct pager_port *port;
	struct pager_windows windows;
	struct pager_frees frees;
	struct pager_members members;
	pthread_mutex_t mutex;	      /* guards port[].open */
	atomic_bool stopping;	      /* set by pager_stop(), read by shards */
	atomic_flag failure_reported; /* the first shard that fails reports */
};

/* 0 or -errno; the shard is then to be finished whatever came. */
int shard_init(struct shard *shard, struct pager *pager, uint32_t index);
int shard_add_channel(struct shard *shard, struct page_channel *channel); /* 0, -EEXIST, -errno */
void shard_fini(struct shard *shard);
void *shard_run(void *shard);

/* For window.c, in the shard's thread: shard->failed says whether it went well. */
void shard_stall(struct shard *shard, uint32_t actor, uint64_t gpn, enum coh_access want);
void shard_fetch(struct shard *shard, uint64_t gpn, enum coh_access want);
void shard_unpinned(struct shard *shard, uint64_t gpn);
/* For free.c, likewise. It ends with shard_free_over(), perhaps at once. */
void shard_free(struct shard *shard, uint64_t first, uint64_t mask);
void shard_plan_failed(struct shard *shard, int error);

/* Asks for (more of) what the vCPU's hints name. Any thread. In pager.c. */
void shard_post_fetch(struct shard *shard, uint32_t vcpu);
/*
 * A vCPU's hints. In pager.c. A shard's thread tries, for it does not wait; false: somebody has them,
 * and tells the shards again when he unlocks them.
 */
bool pager_hints_trylock(struct pager *pager, uint32_t vcpu);
void pager_hints_unlock(struct pager *pager, uint32_t vcpu);
/* No pin will be answered any more. Any thread. In pager.c. */
void pager_close_ports(struct pager *pager, int error);
void pager_port_complete(struct pager *pager, uint32_t actor, int error);

#endif
