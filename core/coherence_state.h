/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of struct coh, shared by the files core/coherence*.c and nobody else.
 *
 *   coherence.c            entry points, validation and dispatch of messages, messages to oneself
 *   coherence_actor.c      actors, episodes, holds
 *   coherence_requester.c  stalls, requests, grants, acks
 *   coherence_stream.c     read-ahead and zero batches
 *   coherence_home.c       the directory and its transactions
 *   coherence_chunk.c      who is home: registrar, cache, handing on
 *   coherence_holder.c     takings, put off by holds
 *   coherence_capacity.c   slots, eviction, pushes
 *   coherence_release.c    leaving
 *   coherence_member.c     members' steps, registrars' slots
 *   coherence_free.c       pages that become untouched again
 *
 * All tables are made by coh_create(). Indexes into tables are kept plus one, so that zeroed memory
 * means "none".
 *
 * Slots: used = pages with a copy or a request + slots reserved for peers' pushes <= capacity.
 */
#ifndef CORE_COHERENCE_STATE_H
#define CORE_COHERENCE_STATE_H

#include <assert.h>
#include <errno.h>

#include "core/coherence.h"
#include "core/coherence_broken.h"

_Static_assert(GPN_LIMIT < UINT32_MAX, "struct coh_list and struct coh_page link pages by gpn + 1");

#define COH_WINDOW_MAX	 256u /* so that what one message sets free fits in the action array */
#define COH_ACTORS_MAX	 (VCPUS_MAX + 64u)
#define COH_HOLDS	 64u /* remembered grants of an actor: more pages than an instruction needs */
#define COH_STREAMS	 4u  /* sequential accesses followed per actor */
#define COH_RUN		 64u /* pages that leave together: neighbours, so that one call takes them */
#define COH_PUSHES	 128u /* pushes of a node in flight */
#define COH_ROOM_BATCH	 128u /* slots asked of a peer at once */
#define COH_SCAN	 64u  /* pages looked at for a victim in one go */
#define COH_BATCH_MAX	 256u /* zero pages granted in one go */
#define COH_AHEAD_MAX	 128u /* read-ahead requests in one go, each with a page dropped for it */
#define COH_LONG_RUN	 8u   /* stalls in a row that make a stream trusted to go on by itself */
#define COH_LONG_AHEAD	 4u   /* how many times as far it then goes */
#define COH_WRITES_RUN	 3u  /* stalls to write in a row from which on pages are asked for to own */
#define COH_FREES_HOME	 64u /* groups of pages that become untouched at a home at once */
#define COH_AGE_NEVER	 UINT64_MAX
#define COH_RETRY_NS	 200000u  /* no node had room: ask again after this */
#define COH_RETRY_NS_MAX 5000000u /* growing up to this */
#define COH_PINNED_NS                                                                              \
	5000000u	   /* a page that a device has pinned, if coh_unpinned() was not called */
#define COH_POLL_NS 20000u /* a hold of a stalled actor is looked at again after this */

enum coh_page_flag {
	PAGE_KEEPER = 1,
	PAGE_PUSHING = 2,
};

/* A page as this node holds it. Lists: read-only copies, and owned or kept pages, oldest first. */
struct coh_page {
	uint8_t access;
	uint8_t flags;
	uint16_t pending; /* request outstanding */
	uint32_t holds;	  /* list of struct coh_hold */
	uint32_t taking;  /* put off */
	uint32_t prev, next;
	uint32_t stamp; /* order of the last change of state */
};

struct coh_list {
	uint32_t head, tail; /* gpn + 1 */
	uint32_t count;
};

enum coh_phase {
	PENDING_FREE = 0,
	PENDING_HOME, /* waits to learn the home */
	PENDING_SENT, /* waits for the grant, the acks, or both */
};

struct coh_pending {
	uint64_t gpn;
	uint64_t seq;
	uint64_t age;
	uint64_t sent_ns;
	uint64_t waited_ns;
	uint16_t home;
	uint32_t version; /* of the home, as it was asked */
	uint8_t phase;
	uint8_t want;
	bool ahead;
	bool own;     /* to own, if nobody shares the page */
	bool granted; /* the grant came, acks are missing */
	bool data;    /* page content came */
	bool remote;  /* it took a message from another node */
	bool upgrade;
	uint32_t back_for; /* fetched back for this actor, plus one */
	uint32_t acks_needed, acks_got;
	uint32_t sharers; /* other nodes that had the page, by the grant */
	uint64_t ack_from[NODES_MAX / 64];
	uint32_t waiters; /* actors */
	uint16_t next;	  /* free, or waiting for the chunk's home */
};

enum coh_wait_state {
	WAIT_NONE = 0,
	WAIT_PENDING, /* on the waiter list of a pending request */
	WAIT_PARKED,  /* for a slot or a place in the window */
};

/* A shard's view of an actor. */
struct coh_wait {
	uint64_t gpn;
	uint32_t next;
	uint8_t state;
	uint8_t want;
	bool pin;
	bool own;	   /* it will write: coh_will_write() */
	bool read;	   /* its last read is not known to be followed by a write */
	uint8_t writes;	   /* pages in a row that it has read and then written; to WRITES_SURE */
	uint8_t turns;	   /* reads since, that asked to own */
	bool lost;	   /* stalled on a page that it lost shortly before */
	uint8_t hold_next; /* ring position */
	uint32_t pinned;   /* its hold entry that is a pin */
	uint64_t since_ns;
};

enum coh_hold_state {
	HOLD_FREE = 0,
	HOLD_LINKED, /* on its page's list */
	HOLD_LOST,   /* the page was taken: remembered to know a stall on it */
};

struct coh_hold {
	uint64_t gpn;
	uint64_t run_ns;  /* running time of the actor at the grant, or when it was lost */
	uint64_t lost_ns; /* when it was lost */
	uint32_t prev, next;
	uint8_t state;
	uint8_t want;
	uint8_t raise; /* times that a read stall asks for write access, when lost */
	uint8_t again; /* times that it is fetched back without a stall, when lost */
	bool pinned;
};

struct coh_stream {
	uint64_t next;	/* the page a sequential access would touch next */
	uint64_t ahead; /* first page not yet asked for */
	uint64_t limit; /* how far it may go on by itself as pages come */
	uint32_t run;
	bool own; /* it asks to be owner of what nobody shares */
};

struct coh_taking {
	struct coh_msg msg;
	uint64_t prio_age;
	uint64_t since_ns;
	uint64_t deadline;
	uint32_t heap; /* position + 1 */
	uint32_t next; /* free list */
	uint16_t prio_node;
};

enum coh_dir_state {
	DIR_UNTOUCHED = 0,
	DIR_SHARED,
	DIR_OWNED,
};

/* What a transaction will have done to the directory when DONE comes. */
enum coh_outcome {
	OUTCOME_NONE,
	OUTCOME_SHARE,
	OUTCOME_OWN,
	OUTCOME_PUSH,
};

/* A request at its home: queued or running. */
struct coh_request {
	uint64_t gpn;
	uint64_t age;
	uint64_t seq;
	uint64_t since_ns;
	uint64_t prio_age; /* the oldest that waits for this transaction */
	uint16_t prio_node;
	uint16_t requester;
	uint16_t node; /* running: who was asked to grant; PUSH: the target */
	uint8_t type;  /* COH_READ_REQ, COH_WRITE_REQ, COH_PUSH_REQ */
	uint8_t flags;
	uint8_t outcome;
	uint8_t life;  /* in which it began to run */
	uint32_t acks; /* running: how many were told to drop their copy */
	uint32_t next;
};

#define COH_BUSY_FREE 0x80000000u

struct coh_dir_entry {
	uint8_t state;
	uint16_t node; /* owner or keeper */
	uint32_t busy; /* running request; COH_BUSY_FREE and an index: it becomes untouched */
	uint32_t queue;
};

struct coh_directory {
	uint32_t busy_count;
	bool moving; /* frozen: struct coh_move has it */
	struct coh_dir_entry entry[CHUNK_PAGES];
	uint64_t sharers[]; /* CHUNK_PAGES times sharer_words */
};

struct coh_chunk {
	uint16_t home;	  /* NODE_NONE: it has left the pod, and who is home since is not known */
	uint16_t waiting; /* pending requests that wait for HOME_IS */
	uint32_t version; /* 0: home unknown */
	uint32_t useless; /* of the last answer that named a home that has gone */
	bool asked;
	struct coh_directory *dir;	/* this node is home */
	struct coh_directory *incoming; /* HOME_MOVE under way to this node */
	uint32_t incoming_count;
	uint32_t incoming_version; /* it is whole, and waits for what this node itself hands on */
	uint16_t incoming_from;
	bool stale; /* tests only: COH_BROKEN_STALE_HOME_SERVES */
};

struct coh_registered {
	uint16_t node;
	uint32_t version;
};

enum coh_move_phase {
	MOVE_NONE = 0,
	MOVE_YIELD, /* running transactions are told to end; nothing new starts */
	MOVE_SEND,  /* the directory goes to the new home */
	MOVE_WAIT,  /* until the registrar says that the new home has it */
	MOVE_TURN,  /* queued requests are sent there */
};

struct coh_move {
	uint64_t chunk;
	uint32_t cursor; /* page within the chunk */
	uint32_t word;	 /* next sharer words of that page */
	uint32_t sent;
	uint16_t to;
	uint8_t phase;
};

struct coh_push {
	uint64_t gpn;
	uint64_t seq;
	uint16_t target;
	uint16_t home;
	bool active;
};

/* Pages that this node has asked to be untouched; mask 0: none. */
struct coh_freeing {
	uint64_t first, mask;
	uint64_t seq;
	uint32_t version; /* of the home that was asked; 0: the registrar was */
	uint16_t asked;
};

/* The same at their home: coherence_free.c. */
struct coh_free {
	uint64_t first;
	uint64_t frozen; /* busy with this */
	uint64_t left;	 /* may become untouched yet; at the end, are to go on */
	uint64_t freed;
	uint64_t seq;
	uint64_t asked[NODES_MAX / 64]; /* have not answered */
	uint16_t asked_count;
	uint16_t requester;
	uint8_t phase;
};

struct coh_slot {
	uint32_t epoch;	 /* how often it was handed over */
	uint32_t coming; /* entries that have come from who has it */
	uint16_t node;	 /* NODE_NONE: not known */
	bool had;	 /* this node has it, or had it */
	bool first;	 /* ... at epoch 0 */
};

enum coh_slot_phase {
	SLOT_NONE = 0,
	SLOT_SEND, /* entries go to the heir */
	SLOT_WAIT, /* until it says that it has the slot */
};

struct coh_slot_move {
	enum coh_slot_phase phase;
	uint32_t slot;
	uint16_t to;
	uint64_t cursor; /* next chunk */
	uint64_t sent;
};

struct coh {
	struct coh_config config;
	bool changed; /* it is not the pod of the beginning: there was a step, or this node joined */
	struct member_set members;  /* who may be named: all but FREE numbers */
	struct member_set stay;	    /* at whom something may be begun: ACTIVE */
	struct member_set share;    /* whose bits of sharers count: all but FREE and GONE */
	struct member_set heard;    /* whose messages count: who is or was ACTIVE */
	struct member_set leavers;  /* who is or was DRAINING */
	struct member_set channels; /* from whom words may come */
	struct member_set linked;   /* to whom words may be sent */
	struct coh_slot slot[COH_SLOTS];
	struct coh_slot_move slot_move;
	enum member_state step; /* the last one */
	bool step_open;
	uint16_t step_node;
	uint64_t forget_cursor, sharers_cursor; /* GONE: next chunk to look at */
	uint8_t life;				/* changes with each GONE */
	uint32_t running[2];	   /* transactions at this home, by the life in which they began */
	uint16_t flush_node;	   /* whom the FLUSHes were about */
	struct member_set flushed; /* from whom they came */
	struct member_set awaited; /* this node joins: who has not said all its slots */
	uint16_t tell_node;	   /* who learns which slots are here */
	uint32_t tell_cursor;
	uint64_t now_ns;
	uint64_t seq;
	uint32_t sharer_words;
	uint32_t unit_actions; /* most actions of one unit of work */

	struct coh_page *page;
	size_t page_bytes;
	struct coh_chunk *chunk;
	size_t chunk_bytes;
	uint64_t chunk_count;
	struct coh_registered *registered; /* by chunk, of those registered here */
	size_t registered_bytes, request_bytes, taking_bytes, heap_bytes;

	struct coh_actors *actors;
	struct coh_actors *actors_own;
	struct coh_wait *wait;
	struct coh_hold *hold;
	struct coh_stream *stream;
	uint32_t stream_actor; /* whose latest stream goes on by itself, plus one */
	uint32_t parked_count;
	bool parked_retry;

	struct coh_pending *pending;
	uint32_t pending_free, pending_count;

	struct coh_request *request;
	uint32_t request_free, request_used; /* those behind have never been used */
	uint16_t *request_count;	     /* by node: requests, pushes */
	uint32_t request_total;

	struct coh_freeing freeing[COH_FREES];
	uint32_t freeing_count;
	struct coh_free free[COH_FREES_HOME];
	uint32_t frees_ending;

	struct coh_taking *taking;
	uint32_t taking_free, taking_used;
	uint32_t takings_remote; /* put off, of other homes than this node */
	uint32_t *heap;
	uint32_t heap_count;

	/* Messages to this node itself. */
	struct coh_msg *local;
	uint32_t local_head, local_count, local_size;

	/* Capacity. */
	uint32_t used;
	struct coh_list copies, kept;
	uint32_t stamp;
	uint32_t *credit; /* slots reserved here, by node */
	uint32_t credit_total;
	struct coh_push push[COH_PUSHES];
	uint32_t push_count;
	uint32_t push_failures; /* in a row */
	uint64_t push_retry;
	uint16_t room_node;  /* who has room for us, or whom to ask next */
	uint32_t room_count; /* slots reserved for us there */
	uint32_t room_tried;
	bool room_asked;
	uint64_t room_retry; /* when to ask again */
	uint64_t room_backoff;
	uint64_t random;
	uint64_t leaving_nodes[NODES_MAX / 64];

	uint32_t asked_count; /* chunks whose registrar was asked and has not answered */
	bool releasing;
	uint64_t release_cursor; /* next chunk to hand on */
	struct coh_move move;

	struct coh_stats stats;
};

/* Short names for what every file needs. */

static inline bool coh_broken(const struct coh *coh, enum coh_broken which)
{
	return __builtin_expect(coh->config.broken == (uint32_t)which, 0);
}

/* Total order of ages; equal is not older. */
static inline bool coh_older(uint64_t age, uint16_t node, uint64_t than_age, uint16_t than_node)
{
	return age != than_age ? age < than_age : node < than_node;
}

static inline struct coh_page *coh_page_of(struct coh *coh, uint64_t gpn)
{
	return &coh->page[gpn];
}

static inline struct coh_chunk *coh_chunk_of(struct coh *coh, uint64_t gpn)
{
	return &coh->chunk[gpn / CHUNK_PAGES];
}

static inline struct coh_dir_entry *coh_entry_of(struct coh *coh, uint64_t gpn)
{
	return &coh->chunk[gpn / CHUNK_PAGES].dir->entry[gpn % CHUNK_PAGES];
}

static inline uint64_t *coh_sharers_of(struct coh *coh, uint64_t gpn)
{
	return coh->chunk[gpn / CHUNK_PAGES].dir->sharers + gpn % CHUNK_PAGES * coh->sharer_words;
}

/* Those of 64 nodes that share the page as far as is known: who has left shares nothing. */
static inline uint64_t coh_sharers_word(const struct coh *coh, const uint64_t *sharers, uint32_t w)
{
	return sharers[w] & coh->share.word[w];
}

static inline bool coh_bit(const uint64_t *set, uint32_t bit)
{
	return set[bit / 64] >> (bit % 64) & 1;
}

static inline void coh_bit_set(uint64_t *set, uint32_t bit)
{
	set[bit / 64] |= 1ull << (bit % 64);
}

static inline void coh_bit_clear(uint64_t *set, uint32_t bit)
{
	set[bit / 64] &= ~(1ull << (bit % 64));
}

/* coherence.c: an input begins, and what it has brought about goes on as far as it can. */
int coh_begin(struct coh *coh, uint64_t now_ns, struct coh_out *out);
int coh_settle(struct coh *coh, struct coh_out *out);
/* Output. A message to this node itself is queued and handled in the same call. */
void coh_send(struct coh *coh, struct coh_out *out, uint16_t to, const struct coh_msg *msg);
void coh_send_page(struct coh *coh, struct coh_out *out, uint16_t to, const struct coh_msg *msg);
/* Whether another unit of work fits into the action array. */
bool coh_room(const struct coh *coh, const struct coh_out *out);
void coh_act(struct coh_out *out, enum coh_action_kind kind, uint64_t gpn, enum coh_access access);
/* A message to this node itself that is not handled yet, about gpn and of a type in `types`. */
bool coh_local_waits(const struct coh *coh, uint64_t gpn, uint32_t types);
uint64_t coh_random(struct coh *coh);

/* Nobody pins more than `after` of the page from now on; false: somebody has (struct coh_config). */
static inline bool coh_close(const struct coh *coh, uint64_t gpn, enum coh_access after, bool tell)
{
	return !coh->config.close || coh->config.close(coh->config.close_arg, gpn, after, tell);
}

/* coherence_actor.c */
void coh_actor_stall(struct coh *coh, uint32_t actor, uint64_t gpn);
void coh_actor_run(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		   uint64_t waited_ns);
uint64_t coh_actor_age(const struct coh *coh, uint32_t actor);
void coh_latency_sample(struct coh *coh, uint64_t latency_ns);
uint64_t coh_hold_longest(const struct coh *coh);
void coh_hold_unpin(struct coh *coh, uint32_t actor);
/* Whether the actor writes to whatever it reads, as far as is known. */
bool coh_writes(const struct coh *coh, uint32_t actor);
/* Its next stall: whether it should ask to own. To be called before that is noted. */
bool coh_will_write(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want);
/* What to ask for: a page that was written before it was lost will be written again. */
enum coh_access coh_want_back(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want);
/* A lost page came back without a stall. */
void coh_actor_refetched(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access access);
/* Asks for the pages that this actor has lost and will want again. */
void coh_refetch(struct coh *coh, uint32_t actor, struct coh_out *out);
void coh_holds_lose(struct coh *coh, uint64_t gpn, enum coh_access after);
/* The page leaves because this node needs its slot: no one took it from the actors. */
void coh_holds_forget(struct coh *coh, uint64_t gpn);
/* Whether holds keep the page from a taking of this priority; *ret_deadline: when to look again. */
bool coh_held(struct coh *coh, uint64_t gpn, enum coh_access after, uint64_t age, uint16_t node,
	      uint64_t *ret_deadline);
bool coh_pinned(const struct coh *coh, uint64_t gpn);

/* coherence_requester.c */
int coh_request(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want, bool pin,
		struct coh_out *out);
bool coh_request_ahead(struct coh *coh, uint64_t gpn, bool own, struct coh_out *out);
/* The same for a page that `actor` had: with its age, so that it is waited for. */
bool coh_request_back(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		      struct coh_out *out);
/* The same for a page that somebody may want soon: as the youngest of all. */
bool coh_request_fetch(struct coh *coh, uint64_t gpn, enum coh_access want, struct coh_out *out);
void coh_requests_of_chunk(struct coh *coh, uint64_t chunk, struct coh_out *out);
void coh_satisfy(struct coh *coh, uint64_t gpn, struct coh_out *out);
/*
 * Requests that nobody waits on (fetched back, or left by their actor) may fill the window and wait
 * for holds themselves: whoever is parked waits for those holds, too, and lends them its age.
 */
void coh_parked_hurry(struct coh *coh, struct coh_out *out);
void coh_parked_pump(struct coh *coh, struct coh_out *out);
int coh_grant(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_ack(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_not_home(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);

/* coherence_stream.c */
void coh_stream_follow(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		       struct coh_out *out);

void coh_stream_pump(struct coh *coh, struct coh_out *out);

/* coherence_home.c */
int coh_home_request(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_home_push(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_home_done(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_home_hurry(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
/*
 * Lies that this node can see through because it is the page's home itself. They would else come to
 * light in the middle of its own work, as a directory that does not fit its pages.
 */
bool coh_home_here(const struct coh *coh, uint64_t gpn);
/* Whether what `src`, another node, says to this node as requester fits what runs here. */
bool coh_home_grants(const struct coh *coh, const struct coh_msg *msg);
bool coh_home_acks(const struct coh *coh, const struct coh_msg *msg);
bool coh_home_pushes(const struct coh *coh, const struct coh_msg *msg);
/* This node asked itself for the page, and has not answered: its copy must stay. */
bool coh_home_asked_self(const struct coh *coh, uint64_t gpn);
/* It answered that it will not: read-ahead. */
void coh_home_refused_self(struct coh *coh, uint64_t gpn);
bool coh_home_take_zero(struct coh *coh, uint64_t gpn);
bool coh_home_yield(struct coh *coh, uint64_t gpn, struct coh_out *out);
bool coh_home_turn_away(struct coh *coh, uint64_t gpn, struct coh_out *out);
/* The page is not busy any more: the oldest that has queued for it goes on. */
void coh_home_next(struct coh *coh, uint64_t gpn, struct coh_out *out);

/* coherence_chunk.c */
/* The newest that this node knows, as registrar too; version 0: nothing. */
void coh_chunk_known(const struct coh *coh, uint64_t chunk, uint16_t *ret_node,
		     uint32_t *ret_version);
void coh_chunk_ask(struct coh *coh, uint64_t chunk, struct coh_out *out);
int coh_chunk_adopt(struct coh *coh, uint64_t chunk, const struct coh_msg *msg,
		    struct coh_out *out);
/* Whether a correct node can say so: nobody but the old home makes this node one. */
bool coh_chunk_learnable(const struct coh *coh, uint64_t chunk, uint16_t node, uint32_t version);
void coh_chunk_learn(struct coh *coh, uint64_t chunk, uint16_t node, uint32_t version);
bool coh_chunk_believable(const struct coh *coh, uint64_t chunk, uint16_t node, uint32_t version);
struct coh_directory *coh_directory_new(const struct coh *coh);
int coh_chunk_home_get(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_chunk_home_is(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_chunk_home_move(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_chunk_home_set(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
void coh_chunk_move(struct coh *coh, uint64_t chunk, uint16_t to);
void coh_move_pump(struct coh *coh, struct coh_out *out);

/* Whether there is somebody to send a request to. */
bool coh_chunk_home_known(const struct coh *coh, uint64_t chunk);
/* As coh_chunk_learn(), of what `msg` says; asks the registrar if it does not help. */
void coh_chunk_learn_from(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);

/* coherence_member.c */
void coh_members_init(struct coh *coh);
uint16_t coh_registrar_of(const struct coh *coh, uint64_t chunk);
bool coh_registrar_here(const struct coh *coh, uint64_t chunk);
/* The chunk's slot is not where it was at first: who says so may have it from others. */
bool coh_slot_moved(const struct coh *coh, uint64_t chunk);
/* This node had it at first. */
bool coh_slot_was_first(const struct coh *coh, uint64_t chunk);
/* What is for the registrar goes to who has it now. -EPROTO: this node never had it. */
int coh_send_on(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
/* What this registrar knows of the chunk is new. */
void coh_entry_changed(struct coh *coh, uint64_t chunk, struct coh_out *out);
void coh_member_pump(struct coh *coh, struct coh_out *out);
bool coh_member_due(const struct coh *coh);
bool coh_member_released(const struct coh *coh);
int coh_reg_move(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_reg_is(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_flush(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);

/* coherence_holder.c */
int coh_take(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_nudge(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
void coh_taking_again(struct coh *coh, uint64_t gpn, struct coh_out *out);
/* Whatever the holds say. */
void coh_taking_serve(struct coh *coh, uint64_t gpn, struct coh_out *out);
void coh_takings_due(struct coh *coh, struct coh_out *out);
void coh_give_up(struct coh *coh, uint64_t gpn, struct coh_out *out);

/* coherence_capacity.c */
void coh_page_set(struct coh *coh, uint64_t gpn, enum coh_access access, bool keeper);
bool coh_slot_take(struct coh *coh, uint64_t age, struct coh_out *out);
bool coh_slot_spare(struct coh *coh, struct coh_out *out);
void coh_slot_free(struct coh *coh);
/* The earlier of `deadline` and when capacity or release have something to do. */
uint64_t coh_work_deadline(const struct coh *coh, uint64_t deadline);
void coh_capacity_pump(struct coh *coh, struct coh_out *out);
int coh_push_go(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_push_no(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_push_data(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_room_get(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_room_is(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_room_put(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);

/* Room at who leaves goes back to it. */
void coh_room_leave(struct coh *coh, struct coh_out *out);

/* coherence_release.c */
void coh_release_pump(struct coh *coh, struct coh_out *out);

/* coherence_free.c */
int coh_free_begin(struct coh *coh, uint64_t first, uint64_t mask, struct coh_out *out);
void coh_free_pump(struct coh *coh, struct coh_out *out);
int coh_home_free(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_home_dropped(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_drop(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);
int coh_freed(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);

#endif
