/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page protocol: directory-based write-invalidate MSI over 4 KiB pages. docs/protocol.md has
 * the states, the messages and the argument for progress.
 *
 * A struct coh is one node's part of one shard: requester, home and holder in one. It is pure: the
 * caller brings faults, messages, ticks and the time, and carries out the actions it gets back, in
 * order, before the next input. No clocks, no threads, no I/O, no allocation after coh_create() but
 * for a directory block when the node becomes home of a chunk. Same inputs, same bytes out.
 *
 *   fault ----> coh_stall() ----+               +--> COH_SEND, COH_SEND_PAGE   (to a peer's coh)
 *   message --> coh_message() --+--> actions ---+--> COH_PROTECT, COH_INSTALL  (this node's memory)
 *   time -----> coh_tick() -----+               +--> COH_WAKE, COH_PINNED      (who waited)
 *
 * One thread per struct coh. All functions return 0 or a negative errno: -EINVAL the caller broke
 * the contract; -EPROTO a peer sent what no correct peer sends (the caller ends the pod, naming the
 * peer); -ENOMEM no memory for a directory block.
 *
 * Links must keep order from each node to each node within a shard. The order of actions matters:
 * COH_PROTECT before COH_SEND_PAGE takes writing away before the page is read, and the COH_PROTECT
 * to COH_NONE after it gives the page back to the host.
 */
#ifndef CORE_COHERENCE_H
#define CORE_COHERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "core/member_set.h"

/* What a node may do with a page; also what a stall wants. Ordered. */
enum coh_access {
	COH_NONE = 0,
	COH_READ = 1,
	COH_WRITE = 2,
};

/*
 * For coh_config.hold_ns where nothing else is known. Threads of a host wake within some 60 us:
 * with 20 us a dozen pages of one instruction were gone before it got on, again and again (seeds
 * 20194 and 21427 in tests/sim/regressions.txt); at 40 us the longest instruction of 2,000 such
 * seeds takes a fiftieth of its bound.
 */
#define COH_HOLD_NS_DEFAULT 40000u

struct coh_config {
	uint16_t self;		   /* this node */
	uint16_t node_count;	   /* the number space: nodes are numbered below it */
	uint32_t actor_count;	   /* who can stall here: local vCPUs, then devices */
	struct member_set members; /* who is in the pod, with this node; none: all numbers */
	bool joins;		   /* this node comes while they run: see coh_linked() */
	uint64_t gpn_limit;	   /* pages are numbered below this; at most GPN_LIMIT */
	uint32_t capacity;	   /* pages this node may hold at once, in-flight ones included */
	uint32_t window;	   /* outstanding requests of this node, read-ahead included */
	uint32_t readahead;	   /* most pages fetched beyond a sequential stall; 0: off */
	uint32_t zero_batch; /* most untouched pages granted locally at a sequential first touch; 1:
				off */
	/*
	 * Read-ahead may go on into the next chunk: it is this shard's, too, as there is one only;
	 * but never into the chunk of gap_gpn, where guest memory has a hole (0: it has none).
	 */
	bool neighbours;
	uint64_t gap_gpn;
	/* Most neighbouring pages that leave together when slots are short, up to a quarter of the
	 * capacity; 0: as many as suit the capacity. */
	uint32_t run;
	uint32_t refetch; /* most lost pages fetched back together at a stall; 0: off */
	uint64_t hold_ns; /* running time that an actor gets with a fresh grant, to begin with */
	uint64_t hold_ns_max; /* bound of the adaptive hold */
	uint32_t
		broken; /* tests only: which deliberate defect to have (enum coh_broken), 0: none */
	struct coh_actors
		*actors; /* shared by the shards of a node; NULL: this shard has its own */
	/*
	 * Devices that pin pages here without a word (memory/gate.h). Asked before a page, or writing,
	 * is taken away: from a true on, nobody pins what is more than `after`. False: somebody has,
	 * and the page stays as it is; with `tell`, coh_unpinned() is called when that may be over.
	 * Closed in vain is fine. NULL: there are none. Who pins so waits for nothing in the pod
	 * meanwhile.
	 */
	bool (*close)(void *arg, uint64_t gpn, enum coh_access after, bool tell);
	/*
	 * The page will be here with this access, once the actions are carried out that say so: what
	 * was closed before may be opened then. Told in the order of the decisions, as close() is, as
	 * one call may decide both about a page.
	 */
	void (*allow)(void *arg, uint64_t gpn, enum coh_access access);
	void *close_arg; /* of both */
};

/*
 * What the shards of one node must agree on about an actor: whether it runs or stalls, how long its
 * episode lasts, its hold. An instruction may need pages of several shards, and the oldest actor
 * must be the oldest in all of them. Written by the shard that serves the actor's stall, read by
 * all: atomics inside. hold_ns and hold_ns_max as in struct coh_config (which then does not count).
 */
struct coh_actors;
int coh_actors_create(uint32_t actor_count, uint64_t hold_ns, uint64_t hold_ns_max,
		      struct coh_actors **ret_actors);
/*
 * The actor sleeps (HLT), or is on another node, and has nothing half done: its holds do not stand
 * until it is back, nor those of a stall that it has left. By the thread that is the actor, between
 * stalls; the one function here that needs no other thread
 * to be still.
 */
void coh_actors_idle(struct coh_actors *actors, uint32_t actor, bool idle);
void coh_actors_destroy(struct coh_actors *actors); /* after every coh that uses it; NULL is fine */

/*
 * Message types; docs/protocol.md has the table of who sends what in which state. Numbers are part
 * of the wire format.
 */
enum coh_msg_type {
	COH_HOME_GET = 1,
	COH_HOME_IS,
	COH_NOT_HOME,
	COH_READ_REQ,
	COH_WRITE_REQ,
	COH_FWD_READ,
	COH_FWD_WRITE,
	COH_INVALIDATE,
	COH_INVALIDATE_ACK,
	COH_GRANT_READ,
	COH_GRANT_WRITE,
	COH_GRANT_NONE,
	COH_DONE,
	COH_NUDGE,
	COH_HURRY,
	COH_PUSH_REQ,
	COH_PUSH_GO,
	COH_PUSH_NO,
	COH_PUSH_DATA,
	COH_ROOM_GET,
	COH_ROOM_IS,
	COH_ROOM_PUT,
	COH_HOME_MOVE,
	COH_HOME_SET,
	COH_FREE,
	COH_DROP,
	COH_DROPPED,
	COH_FREED,
	COH_REG_MOVE,
	COH_REG_IS,
	COH_FLUSH,
	COH_MSG_TYPES,
};

/* The registrar of a chunk has the slot of its number modulo this. REG_IS of it: these were all. */
#define COH_SLOTS 256u

/* Flags of a message. */
#define COH_MSG_DATA  0x01u /* one page of content goes with it */
#define COH_MSG_ZERO  0x02u /* GRANT_WRITE: the page is zero, nobody had it */
#define COH_MSG_COPY  0x04u /* WRITE_REQ: I have a copy. GRANT: the copy you have is good */
#define COH_MSG_AHEAD 0x08u /* READ_REQ, FWD_*: read-ahead, to be refused rather than waited for */
#define COH_MSG_REFUSED                                                                            \
	0x10u /* DONE: nothing changed. GRANT_NONE: answer with DONE, the page is busy */
#define COH_MSG_KEEPER                                                                             \
	0x20u /* PUSH_*, HOME_MOVE: about a kept page; without it an owned one. DROP: owners and keepers.        \
		 READ_REQ: make me the owner, if nobody shares it */
#define COH_MSG_LEAVING 0x40u /* ROOM_IS: never ask me again */
#define COH_MSG_MORE                                                                               \
	0x80u /* HOME_MOVE: a part of the chunk's directory; without it the end. FREED: ask `node`.       \
		 REG_MOVE: an entry. HOME_SET: to the registrar, of a slot that has moved */

/*
 * One protocol message: the same 48 bytes in memory and (little-endian) on the wire, where
 * wire/page_message.h encodes it. A message flagged COH_MSG_DATA has one page with it.
 * `src` is set by the transport on arrival, never trusted from the bytes.
 */
struct coh_msg {
	uint8_t type;	    /* enum coh_msg_type, docs/protocol.md */
	uint8_t flags;	    /* COH_MSG_* */
	uint16_t src;	    /* node it came from */
	uint16_t requester; /* node whose request this is about */
	uint16_t node;	    /* a node named by the message (home, keeper, target) */
	uint32_t acks;	    /* invalidation acks the requester must wait for; of FWD_READ and
			       GRANT_READ: other nodes that have the page, as far as the home knows;
			       or a count */
	uint32_t version;   /* of the home of a chunk */
	uint64_t gpn;
	uint64_t age; /* when the requester's episode began: older wins holds (pod clock, ns); of
			 FREE, DROP, DROPPED and FREED: which pages from gpn on, a bit each */
	uint64_t seq; /* requester's request number: matches grants and acks to requests */
	uint64_t waited_ns; /* what holds and queues, not the network, made this take so far */
};

enum coh_action_kind {
	COH_SEND,      /* send msg to node `to` */
	COH_SEND_PAGE, /* send msg to node `to` with the page's content as it is now */
	COH_PROTECT,   /* set this node's access to gpn; COH_NONE gives the page back to the host */
	COH_INSTALL_DATA, /* map the page that came with the message being handled, with `access` */
	COH_INSTALL_ZERO, /* map a zero page, with `access` */
	COH_WAKE,	 /* the stall of whoever waits on gpn for at most `access` is over; msg.acks
			     other nodes had the page, as far as was told */
	COH_PINNED,	 /* coh_pin() by `actor` is complete: the page stays until coh_unpin() */
	COH_FREED_PAGES, /* coh_free() of the group at gpn is over: msg.age are those that are gone */
};

struct coh_action {
	uint8_t kind;
	uint8_t access;
	uint16_t to;
	uint32_t actor;
	uint64_t gpn;
	struct coh_msg msg;
};

/*
 * Actions go into the caller's array. COH_ACTIONS_MIN entries must be free at every call; no call
 * makes more. Work that does not fit waits: coh_deadline() is then 0 and coh_tick() goes on.
 */
#define COH_ACTIONS_MIN (6 * NODES_MAX)
struct coh_out {
	struct coh_action *action;
	uint32_t count;
	uint32_t capacity;
};

enum coh_stall_kind {
	COH_STALL_ZERO,	   /* first touch, granted without data */
	COH_STALL_READ,	   /* data came, read-only */
	COH_STALL_WRITE,   /* data came, writable */
	COH_STALL_UPGRADE, /* already held read-only: no data moved */
	COH_STALL_KINDS,
};

struct coh_stats {
	uint64_t stall_count[COH_STALL_KINDS];
	uint64_t message_count;	  /* sent to other nodes */
	uint64_t page_count;	  /* page contents sent to other nodes */
	uint64_t readahead_count; /* pages that read-ahead brought */
	uint64_t fetch_count;	  /* pages asked for by coh_fetch() */
	uint64_t refetch_count;	  /* lost pages fetched back before anybody stalled on them */
	uint64_t deferred_count;  /* takings put off by a hold */
	uint64_t freed_count;	  /* pages that became untouched at this home */
	uint64_t evict_push_count, evict_drop_count;
	uint32_t pages_owned, pages_shared, pages_reserved;
	uint32_t capacity;
	uint32_t chunks_homed;
	uint64_t hold_ns; /* present adaptive hold, the longest of any actor */
};

struct coh;

int coh_create(const struct coh_config *config, struct coh **ret_coh);
void coh_destroy(struct coh *coh);

/* Actor `actor` touched gpn and needs `want`. Ends with COH_WAKE, perhaps at once (a spurious
 * fault). */
int coh_stall(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want, uint64_t now_ns,
	      struct coh_out *out);

/*
 * Somebody will touch gpn soon, it is said, and want `want`: asks for the page, if it is not here and
 * there is a slot and a place in the window to spare, as the youngest of all. Nobody waits for it, and
 * when it comes nobody holds it.
 */
int coh_fetch(struct coh *coh, uint64_t gpn, enum coh_access want, uint64_t now_ns,
	      struct coh_out *out);

/*
 * A message from a peer. -EPROTO: see above. It was judged wholly before anything was done: no
 * action was made, and the state is as before. No lie that is believed makes a later call fail.
 */
int coh_message(struct coh *coh, const struct coh_msg *msg, uint64_t now_ns, struct coh_out *out);

/* Time passed. Call at coh_deadline() (ns; UINT64_MAX: nothing waits for time), or earlier. */
int coh_tick(struct coh *coh, uint64_t now_ns, struct coh_out *out);
uint64_t coh_deadline(const struct coh *coh);

/*
 * Devices and the loader: like coh_stall(), and the page then stays with at least `want` until
 * coh_unpin(). An actor pins one page at a time: that is why pins cannot deadlock.
 */
int coh_pin(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want, uint64_t now_ns,
	    struct coh_out *out);
int coh_unpin(struct coh *coh, uint32_t actor, uint64_t now_ns, struct coh_out *out);
/* A page that coh_config.close() found pinned may be free now. */
int coh_unpinned(struct coh *coh, uint64_t gpn, uint64_t now_ns, struct coh_out *out);
/*
 * As coh_pin(), but only if the page is here with `want` now; else -EAGAIN, and no pin is asked for
 * (actions that an earlier call left over may be there all the same, to be carried out). It
 * never waits, so one may have a pin while one asks for another (as another actor): who gets
 * -EAGAIN gives up what it has, touches both pages, as a stalling actor with its age and its holds,
 * and asks again.
 */
int coh_pin_here(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		 uint64_t now_ns, struct coh_out *out);

/*
 * The guest needs the contents of these pages no more: they are to be untouched again, if that is
 * easy. A group of pages, a bit each; `first` is a multiple of COH_FREE_PAGES. Ends with
 * COH_FREED_PAGES, within a few messages' time: until then they may become zero at any moment, and
 * those that it names have; from then on they are pages like any other. -EBUSY: COH_FREES groups are
 * under way, or this one is. -EINVAL.
 */
#define COH_FREE_PAGES 64u
#define COH_FREES      8u
int coh_free(struct coh *coh, uint64_t first, uint64_t mask, uint64_t now_ns, struct coh_out *out);

/*
 * This node will hold nothing any more (it is leaving): owned pages are pushed to nodes with room,
 * copies dropped, homes handed on. No coh_stall()/coh_pin() afterwards. Done when coh_released()
 * says so.
 */
int coh_release_all(struct coh *coh, uint64_t now_ns, struct coh_out *out);
bool coh_released(const struct coh *coh);
/* It stays after all. What is under way goes on, and coh_stall() may be called again. */
int coh_release_cancel(struct coh *coh, uint64_t now_ns, struct coh_out *out);

/*
 * Members that come and go (core/member_list.h; coherence_member.c says what each step waits for). A
 * step, when this node hears of it: `node`, which may be this one, is `state` now. Only when
 * coh_member_done() may DONE be said, and the next step be told here. What it waits for comes by
 * messages and ticks. -EINVAL: the last step is not done, or this one does not fit.
 *
 * The caller's part: coh_linked(x) comes before ACTIVE x, and messages of x, which may have heard of
 * that earlier, are kept until ACTIVE x was told here; before, they are -EPROTO. Who leaves calls
 * coh_release_all() when DRAINING is over, says DRAINED when coh_released(), and ends its channels when
 * GONE is over and coh_flushed(). Who stays calls coh_release_cancel() at ACTIVE. A newcomer's coh is
 * made with config.joins, config.members all that may be named, and then told of those that are not
 * ACTIVE by steps; it is READY when coh_member_ready(), and stalls only from ACTIVE on.
 */
int coh_member(struct coh *coh, uint16_t node, enum member_state state, uint64_t now_ns,
	       struct coh_out *out);
bool coh_member_done(const struct coh *coh);
/* The channel with `node`, which is JOINING, or with which this node joins, stands. */
int coh_linked(struct coh *coh, uint16_t node, uint64_t now_ns, struct coh_out *out);
/* Nothing comes from `node` any more: behind the last of it. */
int coh_unlinked(struct coh *coh, uint16_t node, uint64_t now_ns, struct coh_out *out);
/* This node joins, and knows what it must. */
bool coh_member_ready(const struct coh *coh);
/* This node is GONE, and nobody here needs it any more. */
bool coh_flushed(const struct coh *coh);

/* What this node may do with gpn now. */
enum coh_access coh_access(const struct coh *coh, uint64_t gpn);
void coh_stats_get(const struct coh *coh, struct coh_stats *ret_stats);

#endif
