/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated pod of a device whose queues move: on each node the very core/queue_place.c, with the
 * threads that use it, which stop between any two of their steps; rings that are a few numbers in
 * memory that all nodes share; links with delays; and virtual time. One seed is one run.
 *
 *      guest.c   the driver: what it adds to rings, doorbells, resets; the registers on node 0
 *      node.c    control thread and io thread
 *      judge.c   who may touch a ring, and what has to have been served
 *      world.c   events in time order, links, the end
 */
#ifndef TESTS_SIM_QUEUES_WORLD_H
#define TESTS_SIM_QUEUES_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/queue_place.h"
#include "tests/rng.h"
#include "tests/sim/command.h"
#include "tests/sim/event_heap.h"

#define SIM_NODES  16
#define SIM_QUEUES 4
#define SIM_CHAINS 4096 /* of a queue in a generation */
#define SIM_USERS  8

/* Defects of the threads around the core. */
enum edge_broken {
	EDGE_BROKEN_NONE = 0,
	EDGE_BROKEN_NO_LOOK,	   /* who takes a queue waits for a doorbell */
	EDGE_BROKEN_DROP,	   /* a doorbell for a queue that has gone is dropped */
	EDGE_BROKEN_LEFT,	   /* so is one that the io thread finds when it has given it */
	EDGE_BROKEN_WORD_FIRST,	   /* AWAY is written before QUEUE is in the channel */
	EDGE_BROKEN_UNDER_WAY,	   /* a queue is given while the disk has some of its chains */
	EDGE_BROKEN_STOPPED_EARLY, /* STOPPED is said while the disk has chains */
	EDGE_BROKEN_ONE_STOPPED,   /* node 0 waits for nobody but itself */
	EDGE_BROKEN_TOLD_FIRST,	   /* node 0 tells the others of a generation, then itself */
	EDGE_BROKEN_UNSTARTED,	   /* QUEUE is taken before the front half has started */
	EDGE_BROKEN_COUNT,
};

struct plan {
	uint64_t seed, nodes, queues, users, chains, moves, resets;
	uint64_t delay_ns, jitter_ns, step_ns, pause_percent, pause_ns, disk_ns, think_ns, stay_ns;
	uint64_t event_index, skip_percent, halt_percent;
	uint8_t core_broken, edge_broken;
};
void plan_make(struct plan *plan, uint64_t seed);

enum rule {
	RULE_NONE,
	RULE_ONE_PLACE, /* a ring is touched by who has not got it */
	RULE_RESET,	/* or after the end of the reset */
	RULE_TWICE,	/* a chain is begun, or used, twice, or out of turn */
	RULE_LOST,	/* a chain is not served in the end */
	RULE_LIE,	/* a correct word is refused */
	RULE_ROUND,	/* a doorbell is sent on by no newer word */
	RULE_BOUND,	/* a chain took longer than it may */
	RULE_ENDLESS,
};
const char *rule_name(enum rule rule);

struct queue_image {
	uint16_t queue;
	uint64_t generation, epoch;
	uint32_t popped, used;
};

enum message_type {
	MESSAGE_PUBLISHED,
	MESSAGE_STOPPED,
	MESSAGE_QUEUE,
	MESSAGE_PLACE,
	MESSAGE_BELL
};
struct message {
	enum message_type type;
	uint16_t src, dst, queue;
	bool running;
	uint64_t generation, epoch; /* BELL: of the word that it was sent by */
	uint64_t sent_ns;
	struct queue_image image;
	struct message *next;
};

/* A doorbell on its way through a node: the word is read, then acted on. */
struct bell {
	bool active, forward, received;
	uint16_t queue, to;
	uint64_t generation, epoch; /* of the word read */
	uint64_t came_generation, came_epoch;
};

/* A doorbell that was left for the io thread. */
struct left {
	bool rung;
	bool received; /* by another node's word, of which the newest is: */
	uint64_t generation, epoch;
};

/* A queue in a node's front half. */
struct sim_front_queue {
	bool has, look, armed, mail, leaving;
	uint32_t popped, seen, used, at_disk;
	uint64_t stay_until_ns;
	struct queue_image image; /* in the mail */
};

struct sim_node {
	struct queue_places places;
	struct message *first, *last; /* arrived */
	bool control_busy;
	struct bell control_bell;
	struct message *control_message; /* QUEUE or PUBLISHED that is to go into the mail */

	bool io_busy;
	struct left left[SIM_QUEUES];
	bool giving; /* and holds the lock: QUEUE is in the channel, and the word not yet written */
	uint16_t given;
	bool posted, post_running, running, started, owes_stopped;
	uint64_t post_generation, generation;
	uint32_t orphans;
	bool sending; /* WORD_FIRST */
	struct message *unsent;
	struct sim_front_queue queue[SIM_QUEUES];
};

enum chain_state { CHAIN_NEW, CHAIN_BEGUN, CHAIN_USED };
struct sim_ring {
	uint32_t avail, event;
	uint16_t holder; /* NODE_NONE: nobody, or a QUEUE message */
	uint32_t begun, used_count, handed;
	enum chain_state chain[SIM_CHAINS];
	uint64_t added_ns[SIM_CHAINS];
	uint32_t handed_at[SIM_CHAINS]; /* hand-overs of the ring when it was added */
};

enum user_stage { USER_THINK, USER_KICK, USER_READ, USER_ACT };
struct user {
	enum user_stage stage;
	uint16_t node, queue;
	uint64_t generation;
	uint32_t old;
	struct bell bell;
};

enum driver_stage { DRIVER_RUNS, DRIVER_RESETS, DRIVER_IDLE, DRIVER_HALTED };
struct guest {
	enum driver_stage stage;
	uint64_t generation; /* of the registers */
	uint32_t chains_left, resets_left, halts_left;
	struct user user[SIM_USERS];
	/* What the registers say next, in steps. */
	bool publishing, publish_running, began, posted;
	uint16_t publish_to;
};

enum event_kind {
	EVENT_ARRIVAL,
	EVENT_CONTROL,
	EVENT_IO,
	EVENT_DISK,
	EVENT_USER,
	EVENT_DRIVER,
	EVENT_TELL
};
struct event {
	struct event_time time; /* first */
	enum event_kind kind;
	uint16_t node;
	uint32_t index;
	uint64_t generation;
	uint16_t queue;
	struct message *message;
};

struct world {
	const struct plan *plan;
	struct rng rng;
	bool trace;
	uint64_t now_ns, events;
	struct event_heap heap;
	struct sim_node node[SIM_NODES];
	struct sim_ring ring[SIM_QUEUES];
	struct guest guest;
	uint64_t arrival_ns[SIM_NODES][SIM_NODES];
	uint64_t clean_generation; /* nothing older may be touched */
	uint32_t moves_left;

	enum rule rule;
	char text[160];
	uint64_t messages, bells, forwards, moves, resets, served;
	uint64_t travel_ns, step_max_ns, disk_max_ns;
	uint32_t bound_permille;
};

/* 0, or -ENOMEM. The world's memory is the caller's, to be looked at afterwards. */
int world_run(struct world *world, const struct plan *plan, bool trace);

void world_fail(struct world *world, enum rule rule, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
uint64_t step_ns(struct world *world);
void later(struct world *world, const struct event *event, uint64_t after_ns);
struct message *message_new(enum message_type type, uint16_t src, uint16_t dst);
void message_send(struct world *world, struct message *message);

/* guest.c */
void guest_begin(struct world *world);
void guest_user_step(struct world *world, uint32_t index);
void guest_driver_step(struct world *world);
void guest_tell_step(struct world *world);
/* Node 0: everybody has stopped. */
void guest_stopped(struct world *world, uint64_t generation);
/* One step: true: it is over. */
void bell_begin(struct world *world, struct bell *bell, uint16_t queue, bool received,
		uint64_t came_generation, uint64_t came_epoch);
bool bell_step(struct world *world, uint16_t node, struct bell *bell);
void bell_forward(struct world *world, uint16_t node, const struct bell *bell);

/* node.c */
void control_arrival(struct world *world, struct message *message);
void control_step(struct world *world, uint16_t node);
void io_wake(struct world *world, uint16_t node);
void io_step(struct world *world, uint16_t node);
void io_disk_done(struct world *world, const struct event *event);

/* judge.c */
void judge_touch(struct world *world, uint16_t node, uint16_t queue, uint64_t generation);
void judge_begun(struct world *world, uint16_t queue, uint32_t chain);
void judge_used(struct world *world, uint16_t queue, uint32_t chain);
void judge_taken(struct world *world, uint16_t node, uint16_t queue);
void judge_given(struct world *world, uint16_t node, uint16_t queue);
void judge_clean(struct world *world);
void judge_end(struct world *world);

#endif
