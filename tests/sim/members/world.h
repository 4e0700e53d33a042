/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated pod whose members come and go: each process runs the very core/member_list.c, with
 * what a node does around it; links with delays, a control and a page channel each, between which
 * there is no order; processes that die; and virtual time. One seed is one run.
 *
 * What members have is a few things (a vCPU, a home), each at one process at a time. They are
 * handed on (MOVE, TAKEN), asked for by what one knows of where they are (ASK, sent on; REPLY), and
 * told of (HINT). So there is something that must not be begun at who leaves, that goes by him,
 * that names him.
 *
 *      node.c    a process: its list, its links, its things
 *      judge.c   who may be at which step, who may end, what has to be there in the end
 *      world.c   plans, events in time order, links, deaths, wishes, the end
 */
#ifndef TESTS_SIM_MEMBERS_WORLD_H
#define TESTS_SIM_MEMBERS_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/member_list.h"
#include "tests/rng.h"
#include "tests/sim/command.h"
#include "tests/sim/event_heap.h"

#define SIM_THINGS    6
#define SIM_PROCESSES 1024 /* that ever live in a run */
#define SIM_STEPS     2048
#define NOBODY	      UINT32_MAX

/* Defects of what is around the core. */
enum edge_broken {
	EDGE_BROKEN_NONE = 0,
	EDGE_BROKEN_DRAIN_AT_ONCE,   /* DONE of DRAIN is said while answers are owed */
	EDGE_BROKEN_GONE_AT_ONCE,    /* DONE of GONE is said while words name him */
	EDGE_BROKEN_UNFLUSHED,	     /* DONE of FREE is said before all have flushed */
	EDGE_BROKEN_FREE_LINKED,     /* and before the links with him have ended */
	EDGE_BROKEN_DRAINED_EARLY,   /* DRAINED is said before DRAIN is over */
	EDGE_BROKEN_READY_EARLY,     /* READY is said before all links stand */
	EDGE_BROKEN_BEGINS_DRAINING, /* things are handed to who leaves */
	EDGE_BROKEN_BEGINS_JOINING,  /* a joiner hands things on, and gets them */
	EDGE_BROKEN_LEAVES_EARLY,    /* who is GONE ends at OVER */
	EDGE_BROKEN_ENDS_EARLY,	     /* links to who is GONE are ended at DONE */
	EDGE_BROKEN_COUNT,
};

struct plan {
	uint64_t seed, nodes, numbers, things, wishes, deaths, any_dies, refusals, hangs;
	uint64_t delay_ns, jitter_ns, slow_percent, slow_ns, tick_ns, rest_ns;
	uint8_t core_broken, edge_broken;
};
void plan_make(struct plan *plan, uint64_t seed);

enum rule {
	RULE_NONE,
	RULE_LIE,   /* a correct word is refused */
	RULE_APART, /* two members are more than a step apart, or take a step before all were done */
	RULE_AGREE,    /* two take different steps of one number */
	RULE_TWO,      /* two lead */
	RULE_STRANGER, /* a word for one who was meets one who is */
	RULE_ENDS,     /* the pod ends, and need not */
	RULE_SURVIVES, /* it goes on, and must not */
	RULE_LOST,     /* a thing, an answer, or a wish */
	RULE_LEFTOVER, /* of somebody who is no more */
	RULE_STUCK,    /* a joiner, a leaver or a step does not come to its end */
	RULE_ENDLESS,
	RULE_COUNT,
};
const char *rule_name(enum rule rule);

enum message_type {
	MESSAGE_LIST, /* control: a word of the list */
	MESSAGE_LINK, /* a joiner's links: asked for, and there */
	MESSAGE_LINKED,
	MESSAGE_LOST, /* the end of the link */
	MESSAGE_MOVE, /* pages: */
	MESSAGE_TAKEN,
	MESSAGE_ASK,
	MESSAGE_REPLY,
	MESSAGE_HINT,
	MESSAGE_FLUSH,
};
struct message {
	enum message_type type;
	uint32_t src, dst; /* processes */
	uint8_t thing;
	uint16_t named;	    /* ASK: who asks; HINT: who has it */
	uint32_t named_who; /* for the judge: whom the number means */
	uint64_t epoch;	    /* FLUSH: the step; LINK: its own */
	struct member_word word;
};

struct sim_thing {
	bool here;
	uint16_t node; /* else: where it is thought to be */
	uint32_t who;
	uint64_t epoch;
	uint16_t owed_by; /* TAKEN, or NODE_NONE */
	bool asking;
	uint64_t asked_at_step;
};

enum fate { FATE_WAITS, FATE_LIVES, FATE_DIED, FATE_LEFT, FATE_ENDED };
struct process {
	enum fate fate;
	bool hangs;   /* it joins and never is ready */
	bool refuses; /* the next joiner */
	bool owes_done, dawdles, said_ready, said_drained;
	uint16_t number;
	struct member_list list;
	struct sim_thing thing[SIM_THINGS];
	uint32_t link[NODES_MAX]; /* by number: the process, or NOBODY */
	uint64_t flushed[NODES_MAX];
	uint64_t deadline_ns; /* that an event is there for */
};

enum event_kind { EVENT_ARRIVAL, EVENT_TICK, EVENT_WAKE, EVENT_WISH, EVENT_DEATH };
struct event {
	struct event_time time; /* first */
	enum event_kind kind;
	uint32_t who;
	struct message *message;
};

/* What the judge knows of a step. */
struct judged_step {
	struct member_word word;
	bool taken;
};

struct world {
	const struct plan *plan;
	struct rng rng;
	bool trace;
	uint64_t now_ns, events;
	struct event_heap heap;

	struct process *process[SIM_PROCESSES];
	uint32_t process_count, live_count;
	uint64_t *arrival_ns; /* [channel][src number][dst number] */
	uint32_t wishes_left, deaths_left;

	struct judged_step step[SIM_STEPS];
	uint32_t holder[NODES_MAX]; /* of each number, the last one */
	bool may_end, must_end;

	enum rule rule;
	char text[160];
	uint64_t messages, steps, joins, failed_joins, leaves, seats, refused, moves, ends;
};

/* The world's memory is the caller's, to be looked at afterwards. */
void world_run(struct world *world, const struct plan *plan, bool trace);

void world_fail(struct world *world, enum rule rule, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void later(struct world *world, const struct event *event, uint64_t after_ns);
/* Dropped if the link is not there. */
void message_send(struct world *world, const struct message *message);
/* A host that would join. Its name is its index. NOBODY: there have been enough. */
uint32_t process_new(struct world *world);
struct member_about about_of(uint32_t who);
uint32_t who_is(const struct member_about *about);
void process_dies(struct world *world, uint32_t who, enum fate fate);
static inline bool lives(const struct world *world, uint32_t who)
{
	return who != NOBODY && world->process[who]->fate == FATE_LIVES;
}

/* node.c */
void node_arrival(struct world *world, const struct message *message);
void node_tick(struct world *world, uint32_t who);
/* All that its list has to say, and what it can do by now. */
void node_act(struct world *world, uint32_t who);

/* judge.c */
void judge_applied(struct world *world, uint32_t who, const struct member_word *step);
void judge_end(struct world *world, uint32_t who);
/* Somebody dies: may the pod go on? */
void judge_death(struct world *world, uint32_t who);
/* A word that names `number`, which then was `named_who`, is heard by `who`. */
void judge_named(struct world *world, uint32_t who, uint16_t number, uint32_t named_who);
void judge_world(struct world *world);

#endif
