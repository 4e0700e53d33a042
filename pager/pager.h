/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager: a node's side of the pod's memory. One thread a shard moves pages; share-nothing.
 *
 *      vCPU thread --fault--> uffd of the shard --+
 *      device thread --pin--> command queue ------+--> shard thread: struct coh --> guest memory
 *      peers' shards ------> page channels -------+                            \--> page channels
 *
 * Life:  pager_create -> pager_add_channel (every shard and peer) -> pager_start -> ... ->
 * pager_stop
 *        -> pager_destroy
 *
 * Peers may come and go meanwhile: pager/members.h.
 *
 * Threads that run guest code bind themselves to an actor before their first touch of guest memory
 * (any other thread's touch is served too, as a nameless actor). They stay blocked on a stall when
 * the pager stops: kick them with a signal first (KVM_RUN then gives -EINTR), or end the process.
 */
#ifndef PAGER_PAGER_H
#define PAGER_PAGER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/coherence.h"
#include "core/limits.h"
#include "core/member_set.h"
#include "core/page_hints.h"
#include "link/channel.h"
#include "memory/access.h"
#include "memory/guest_memory.h"

enum pager_spin {
	PAGER_SPIN_AUTO, /* while it pays */
	PAGER_SPIN_OFF,	 /* always sleep */
	PAGER_SPIN_ON,	 /* never sleep: benchmarks, dedicated cores */
};

/* vCPUs and ports of a node at most: each may have a request out, in a window of 256. */
#define PAGER_ACTORS_MAX 248u

/* A stall of a vCPU that has ended, but for what was no stall (the page was there already). */
struct pager_stall {
	uint32_t actor;
	enum coh_stall_kind kind;
	uint16_t
		from; /* the node whose message ended it; NODE_NONE: this node did it alone, or it is
			  a first touch */
	uint16_t sharers; /* other nodes that had the page, as far as its home knew */
	uint64_t gpn, took_ns;
};

struct pager_config {
	struct guest_memory *memory; /* borrowed; outlives the pager */
	uint16_t self, node_count;   /* numbers are below node_count <= NODES_MAX */
	struct member_set members;   /* whose numbers they are, with this node's; none: all are */
	/*
	 * This node comes while they run: `members` are all whose numbers are not FREE, and of these
	 * some are on their way out (core/member_list.h). Without it all are ACTIVE.
	 */
	bool joins;
	struct member_set draining, gone;
	uint32_t vcpu_count;	 /* actors 0..vcpu_count-1, bound by pager_bind_actor() */
	uint32_t port_count;	 /* ports that may be open at once */
	uint32_t window_count;	 /* of the io thread (pager/window.h) */
	uint64_t capacity_bytes; /* what this node promises; divided among the shards */

	/* 0: the default of pager.c (readahead, zero_batch: UINT32_MAX turns them off). */
	uint32_t window, readahead, zero_batch;
	uint32_t refetch; /* lost pages fetched back together, 0: off (struct coh_config) */
	uint64_t hold_ns, hold_ns_max;
	uint32_t spin_ns_max;
	uint64_t unlink_ns; /* from pager_unlink() on, for who is GONE to end its channels */
	enum pager_spin spin;
	uint32_t broken; /* tests only: enum coh_broken */

	uint64_t (*now_ns)(void *arg); /* the pod clock; NULL: CLOCK_MONOTONIC */
	/*
	 * Called once, from a shard's thread: the pager cannot go on. `node` is the peer at fault
	 * (NODE_NONE: this node itself), `error` -EPROTO, -EPIPE, -ENOMEM, ..., `cause` one line.
	 * Must not call back into the pager.
	 */
	void (*failed)(void *arg, uint16_t node, int error, const char *cause);
	/*
	 * This node no longer has these pages, and nobody has been told yet, or a device has written
	 * to them: what was made of their contents is void (engine_ops.page_lost). From a shard's
	 * thread, or the windows', so it must not wait for guest memory. May be NULL.
	 */
	void (*lost)(void *arg, uint64_t gpa, uint64_t bytes);
	/* Called at every stall's end, when the vCPU may run again. From a shard's thread, so it must
	 * not wait. May be NULL. */
	void (*stalled)(void *arg, const struct pager_stall *stall);
	/* pager_window_ready() has something to say. From a shard's thread, so it must not wait. May be
	 * NULL. */
	void (*window_ready)(void *arg);
	/* What pager/members.h is asked for may be true now. From a shard's thread, so it must not wait.
	 * May be NULL. */
	void (*members_changed)(void *arg);
	/*
	 * The channel to `node`, which joins, or is GONE, has ended, with this error and one line. That
	 * is no failure; once a shard and life. From a shard's thread, so it must not wait. May be NULL.
	 */
	void (*link_ended)(void *arg, uint16_t node, int error, const char *cause);
	void *arg;
};

struct pager;

/* 0; -EINVAL, also for more than PAGER_ACTORS_MAX; -ENOMEM. */
int pager_create(const struct pager_config *config, struct pager **ret_pager);
/* Stops if need be; ports still open become invalid. */
void pager_destroy(struct pager *pager);

/* The channel to its peer for `shard`, borrowed (the mesh's) until pager_destroy(), or until
 * pager_linked() is false. Before pager_start(). 0; -EINVAL; -EEXIST. */
int pager_add_channel(struct pager *pager, uint32_t shard, struct page_channel *channel);

/* Starts the shards' threads. -ENOTCONN: a channel to a member is missing (who is GONE needs none). */
int pager_start(struct pager *pager);

/* Ends the threads; waiting and later port calls get -ESHUTDOWN. Not from a shard's thread.
 * Idempotent. */
void pager_stop(struct pager *pager);

/* Waiting and later port calls get -ESHUTDOWN; everything else goes on. Any thread; never
 * waits. */
void pager_interrupt(struct pager *pager);

/* The thread `tid` is actor `vcpu` from now on (0: nobody is). Any thread. 0 or -EINVAL. */
int pager_bind_actor(struct pager *pager, uint32_t vcpu, pid_t tid);

/* The vCPU's own thread: it goes to sleep (HLT), or is back. Sleeping, it keeps no page from
 * others. */
void pager_actor_idle(struct pager *pager, uint32_t vcpu, bool idle);

/*
 * What the vCPU takes along when it moves, and where it has come to (core/page_hints.h): pages that it
 * will want soon. Any thread. Where it arrives, they are asked for at once if `fetch` says so, and
 * nobody waits for them; pages that are no memory are left out.
 */
void pager_hints_leave(struct pager *pager, uint32_t vcpu, struct page_hints *ret_hints);
void pager_hints_arrive(struct pager *pager, uint32_t vcpu, const struct page_hints *hints,
			bool fetch);

/* A port for devices or the loader (memory/access.h). -EMFILE: port_count are open. Any thread. */
int pager_open_port(struct pager *pager, struct memory_port **ret_port);
void pager_close_port(struct pager *pager, struct memory_port *port);

/*
 * Histogram of stall times: bucket b counts stalls of [2^(b/4), 2^((b+1)/4)) ns, roughly: four a
 * doubling.
 */
#define PAGER_BUCKETS 160

struct pager_stats {
	uint64_t stall_count[COH_STALL_KINDS];
	uint64_t stall_ns_sum[COH_STALL_KINDS];
	uint64_t stall_bucket[COH_STALL_KINDS][PAGER_BUCKETS];
	uint64_t spurious_count; /* faults that were over before they were looked at */
	uint64_t message_count;	 /* sent to other nodes */
	uint64_t bytes_out, bytes_in;
	uint64_t page_count; /* page contents sent */
	uint64_t readahead_count, fetch_count, deferred_count, evict_push_count, evict_drop_count;
	uint64_t freed_count; /* pages that became untouched again, homed here */
	uint64_t pages_owned, pages_shared, pages_reserved, capacity_pages;
	uint64_t chunks_homed;
	uint64_t hold_ns; /* the longest of any shard */
	uint64_t sleep_count, spin_hit_count, spin_miss_count;
	uint64_t
		call_count; /* of the kernel by the shards, to look, to wait and to wake included */
	uint64_t shootdown_count, shootdown_page_count; /* memory/guest_memory.h */
	uint64_t moves_denied_count;
	int move_error; /* the last of some shard's */
};

/* Sum over the shards, as of at most some milliseconds ago. Any thread, no locks. */
void pager_stats_get(const struct pager *pager, struct pager_stats *ret_stats);

/* The p-quantile (0 < p < 1) of one kind's stall time, or of all for COH_STALL_KINDS; 0 when there
 * were none. */
uint64_t pager_stats_quantile_ns(const struct pager_stats *stats, enum coh_stall_kind kind,
				 double p);

/* Stalls of one vCPU so far. Any thread. */
uint64_t pager_vcpu_stalls(const struct pager *pager, uint32_t vcpu);
/* How long they took, the present one included, in ns. Any thread. */
uint64_t pager_vcpu_stalled_ns(const struct pager *pager, uint32_t vcpu);

/*
 * Pages that stalled most, first touches left out, most first, and the offsets in them that were
 * touched then, most first (approximate: bounded tables). Where only the page is known, the
 * offset is 0. Any thread.
 */
#define PAGER_HOT_OFFSETS 4

struct pager_hot_page {
	uint64_t gpn, count;
	uint32_t offset_count;
	struct pager_hot_offset {
		uint64_t offset, count;
	} offset[PAGER_HOT_OFFSETS];
};
uint32_t pager_hot_pages(const struct pager *pager, struct pager_hot_page *ret_page, uint32_t max);

#endif
