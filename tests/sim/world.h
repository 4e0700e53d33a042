/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated pod: a struct coh for every node (and shard), links with delays, memories, actors,
 * and virtual time. The core under test is the very code of a node; everything around it is made
 * here from one seed, so a seed is a whole run.
 *
 *      actor.c   actors: instructions, stalls, pins
 *      edge.c    carries out a core's actions on a node's memory, as the real memory/ and link/ do
 *      world.c   events in time order, links, phases of a run
 *      checker.c judges
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/coherence.h"
#include "memory/gate.h"
#include "tests/sim/checker.h"
#include "tests/sim/plan.h"
#include "tests/rng.h"

enum event_kind {
	EVENT_MESSAGE,
	EVENT_TICK,
	EVENT_ACTOR,
	EVENT_CONTROL, /* about members: steps.c */
	EVENT_END,     /* a channel ends */
};

enum control_kind {
	CONTROL_LOOK,	    /* whether there is something to order */
	CONTROL_STEP,	    /* a node hears of a step */
	CONTROL_STEP_OVER,  /* all have done it */
	CONTROL_DRAIN_OVER, /* its leaver hears that */
	CONTROL_GONE_OVER,
	CONTROL_LINK, /* with the joiner */
};

struct control {
	enum control_kind kind;
	enum member_state state;
	uint32_t node, number;
	bool owes;
};

struct event {
	uint64_t at_ns, order; /* equal times: in the order of their making */
	uint32_t target;       /* a node, or an actor */
	uint8_t kind, shard;
	bool has_content;
	struct control control;
	struct coh_msg msg;
	uint32_t target_life, src_life, requester_life, node_life; /* when it was sent */
	struct content content;
	uint32_t next_free;
};

struct event_queue {
	struct event *pool;
	uint32_t *heap; /* of indexes into the pool */
	uint32_t pool_size, count, first_free;
	uint64_t order;
};

enum actor_state {
	ACTOR_READY,   /* its event is in the queue */
	ACTOR_STALLED, /* waits for COH_WAKE */
	ACTOR_PINNING, /* waits for COH_PINNED */
	ACTOR_PINNED,
	ACTOR_INSIDE, /* has entered all its pages' gates */
	ACTOR_STOPPED,
};

struct sim_actor {
	struct rng rng;
	uint32_t node, index; /* index: within its node, as the core numbers it */
	enum actor_state state;
	bool device, begun, sweeping;
	uint32_t pattern;
	uint32_t cursor, stride, region, region_size;
	uint64_t done, useful_ns;
	uint64_t think_ns; /* of the present instruction */
	/* the present instruction */
	uint32_t page_count;
	uint32_t page[PLAN_INSTRUCTION_PAGES];
	uint8_t want[PLAN_INSTRUCTION_PAGES];
	bool increment;
	bool enters; /* by gates, and stays for a while */
	/* what it waits for */
	uint32_t stall_page;
	uint8_t stall_want;
};

#define FAILED_LIVES 512

struct sim_node {
	struct coh *coh[SHARDS_MAX];
	struct coh_actors *actors;
	uint64_t tick_at[SHARDS_MAX];
	uint64_t release_ns;
	uint8_t *access;	 /* by page */
	struct content *content; /* by page */
	struct gates gates;
	uint32_t stopped; /* actors */
	bool leaving, releasing, released;
	/* Where members come and go. coh[0] NULL: there is no such node now. */
	uint32_t life;			/* which owner of the number this is */
	uint32_t asks;			/* for homes, without an answer */
	bool failed_life[FAILED_LIVES]; /* joined in vain: its links were lost with all in them */
	bool drain_over, gone_over, failed, step_open;
	uint32_t step_number, step_about; /* whose number is to be FREE then, or NODE_NONE */
	uint8_t view[NODES_MAX];	  /* enum member_state, as it has heard */
	bool has_link[NODES_MAX];
	struct event *early; /* messages of who is not ACTIVE here yet, as they came */
	uint32_t early_count, early_size;
	uint32_t frees[SHARDS_MAX]; /* groups that it has under way */
	uint64_t *freeing;	    /* by group: the pages */
};

/* What a registrar has said of a chunk. */
struct told {
	uint32_t version;
	uint16_t node;
};

/* Who orders members' steps: steps.c. */
struct steps {
	struct rng rng;
	uint8_t state[NODES_MAX]; /* enum member_state */
	uint64_t last_ns[NODES_MAX];
	bool owes[NODES_MAX];
	uint32_t number, node, awaited;
	uint64_t changes;
	enum member_state kind;
	uint32_t joiner;
	uint64_t delay_ns;
	bool open, fails, finished;
	struct told *told;
};

struct world {
	struct plan plan;
	struct steps steps;
	struct coh_stats ended;	 /* of nodes that have left */
	struct coh_stats before; /* until members changed no more */
	uint64_t changed_ns;	 /* when that was */
	struct rng rng;
	struct checker *checker;
	struct sim_node *node;
	struct sim_actor *actor;
	uint32_t node_count, actor_count, actors_per_node, page_count, shard_count;
	uint32_t *hot;
	uint64_t *link_last_ns; /* by shard, from, to: when its last message arrives */
	struct event_queue queue;
	uint64_t now_ns, events;
	uint64_t instructions, stalls, messages, pages_sent;
	uint64_t writes;
	uint64_t fetched;     /* pages that came because they were asked for */
	uint32_t below_quota; /* actors that have not done their instructions */
	uint64_t stop_ns;     /* when the stop was called */
	uint64_t *freeing;    /* by group: pages that some node is freeing */
	uint32_t leaves_begun;
	bool stopping, trace;
	struct coh_action *action; /* COH_ACTIONS_MIN, and one that must stay untouched */
};

/* What a run was like; the caller adds them up. */
struct world_result {
	struct verdict verdict;
	uint64_t events, instructions, stalls, messages, pages_sent, now_ns;
	uint64_t stall_permille, progress_permille; /* the longest, of its bound */
	uint64_t useful_permille;		    /* of all actors' time */
	uint64_t after_messages, after_stalls;	    /* since members change no more */
	struct coh_stats stats;			    /* of all nodes */
};

/* Simulates one plan to its end or to the first verdict. Returns 0, -ENOMEM, or what coh_create()
 * said. */
int world_run(const struct plan *plan, bool trace, struct world_result *ret_result);

/* Between the files of the simulator. */
void world_schedule_actor(struct world *world, uint32_t actor, uint64_t delay_ns);
void world_send(struct world *world, uint32_t from, uint32_t shard, const struct coh_action *action,
		const struct content *content);
void world_fail(struct world *world, enum rule rule, uint32_t node, uint32_t page,
		const char *text);
void world_trace(const struct world *world, uint32_t node, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
uint32_t world_shard(const struct world *world, uint32_t page);

void world_schedule_control(struct world *world, uint64_t at_ns, uint32_t node,
			    const struct control *word);
void world_send_end(struct world *world, uint32_t from, uint32_t to, uint32_t shard);
/* A node's shards; `members` NULL: all numbers. */
int world_make_node(struct world *world, uint32_t node, const struct member_set *members,
		    bool joins);
void world_end_node(struct world *world, uint32_t node);

/* steps.c: nothing but in worlds with plan.changes. */
int steps_begin(struct world *world);
void steps_control(struct world *world, uint32_t node, const struct control *word);
void steps_follow(struct world *world, uint32_t node);
/* Whether a message is too early for its receiver: then it is kept. */
bool steps_early(struct world *world, const struct event *event);
void steps_judge(struct world *world, const struct event *event);
void steps_judge_send(struct world *world, uint32_t node, uint32_t to, const struct coh_msg *msg);
void steps_judge_answer(struct world *world, uint32_t node, const struct coh_msg *msg);
void steps_judge_still(struct world *world);
bool steps_finished(const struct world *world);
uint32_t steps_any_active(struct world *world);

/* edge.c: one input to a core. What comes of it is done before these return. */
void edge_stall(struct world *world, const struct sim_actor *actor, uint32_t page,
		enum coh_access want);
void edge_pin(struct world *world, const struct sim_actor *actor, uint32_t page,
	      enum coh_access want);
void edge_unpin(struct world *world, const struct sim_actor *actor);
void edge_unpinned(struct world *world, uint32_t node, uint32_t page);
/* Those of the group that nobody else is freeing, if the node may ask now. */
void edge_free(struct world *world, uint32_t node, uint32_t group, uint64_t mask);
void edge_message(struct world *world, const struct event *event);
void edge_tick(struct world *world, uint32_t node, uint32_t shard);
void edge_release(struct world *world, uint32_t node);
void edge_release_cancel(struct world *world, uint32_t node);
void edge_member(struct world *world, uint32_t node, uint32_t about, enum member_state state);
void edge_linked(struct world *world, uint32_t node, uint32_t with);
/* Nothing more comes from there: in one shard, in all. */
void edge_end(struct world *world, uint32_t node, uint32_t shard, uint32_t from);
void edge_unlinked(struct world *world, uint32_t node, uint32_t with);

/* actor.c */
void actor_make(struct world *world, uint32_t actor);
void actor_go(struct world *world, uint32_t actor); /* its event */
/* One that has stopped, or is another's by that number: anew. */
void actor_restart(struct world *world, uint32_t actor, bool anew);
void actor_wake(struct world *world, uint32_t node, uint32_t page, enum coh_access access);
void actor_pinned(struct world *world, uint32_t node, uint32_t index, uint32_t page);
void actor_sweep(struct world *world, uint32_t actor); /* through all pages, then stop */

#endif
