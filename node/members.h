/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's members, as all threads of a node see them: which numbers there are, in which state,
 * under which names, and who has which of the pod's seats.
 *
 * They change by steps, which core/member_list.h orders and judges. That list is one thread's: the
 * main thread's until there is a control thread, and that one's from then on. It publishes what the
 * list says whenever that has changed:
 *
 *	control thread                        any thread, at any time, without waiting
 *	member_list_hear(&members->list)
 *	MEMBER_APPLIED: members_publish()     members_for_each_other(members, n)
 *	(what the step asks is done)                  node_send(node, n, &msg);
 *	member_list_done(&members->list)      members_name(members, n)
 *	members_publish()                     members_seat(members, SEAT_PC)
 *
 * What a reader has read may be old when it uses it. That is what steps are made for: who is new is
 * known to all before he begins anything, and who goes is served until nothing names him, so a step
 * is not "done" while a thread may still act on the list before it.
 *
 * A pod begins with its configuration's nodes, and the first has all seats (FIRST_NODE).
 *
 * Who sends by what he has read holds the list meanwhile (members_hold()), never while he waits for
 * anything. So the list's thread can wait until nobody acts on what was published before
 * (members_quiet_begin()), and then close a link, or say that nothing here names somebody.
 *
 * Tested in tests/node/test_members.c.
 */
#ifndef NODE_MEMBERS_H
#define NODE_MEMBERS_H

#include <stdatomic.h>

#include "core/member_list.h"

struct member_known;
struct pod_config;

/* What of this node's words goes to a number that is linked. */
enum member_ears {
	EARS_ALL,   /* all */
	EARS_NAMED, /* what is said to it alone: it joins, and cannot make anything of the rest yet */
	EARS_NONE, /* nothing any more: its link is about to be closed */
};

struct members {
	struct member_list list; /* its thread's alone */

	/* Never change. Numbers are below number_count, whether there is a member of it or not. */
	uint16_t self, number_count;

	/* By members_publish(), for all. */
	_Atomic uint64_t named[NODES_MAX / 64]; /* member_list_may_be_named() */
	_Atomic uint8_t state[NODES_MAX];	/* enum member_state */
	_Atomic uint16_t seat[SEAT_COUNT];
	_Atomic uint64_t step;		 /* the last one */
	_Atomic uint8_t ears[NODES_MAX]; /* enum member_ears; its thread writes */
	atomic_bool
		joins; /* this node, and not all know yet that it is a member: it begins nothing */
	const struct member_about *_Atomic about[NODES_MAX]; /* NULL: there has been none yet */

	/* Who holds the list, by the parity of the age in which he began; the rest is its thread's. */
	char apart[64]; /* what follows is written by who sends, all the time */
	_Atomic uint64_t age;
	_Atomic uint32_t holders[2];
	uint64_t quiet_age;  /* nobody holds a list of an age before this one */
	uint64_t wanted_age; /* to be begun */

	/* All that about[] ever pointed to, as a thread may still be reading it. */
	struct member_known *known;
};

/*
 * The members of a pod that starts: the configuration's nodes. 0, or -ENOMEM. To be destroyed only
 * when no other thread reads them.
 */
int members_create(const struct pod_config *config, uint16_t self, struct members **ret_members);
/* Those of a pod that runs, as who joins it was told (JOIN_TOLD). -EINVAL: no correct node tells that. */
int members_create_joiner(const struct member_snapshot *snapshot, uint16_t self,
			  struct members **ret_members);
void members_destroy(struct members *members);

/* All others see the list as it is now. Its thread. 0; -ENOMEM: somebody's name is not known. */
int members_publish(struct members *members);

/* Any thread, which may hold it more than once. What it returns is for members_let_go(). */
uint32_t members_hold(struct members *members);
void members_let_go(struct members *members, uint32_t held);
/*
 * The list's thread. members_is_quiet(), asked again and again with what begin returned, is true when all
 * have let go who held the list at that moment.
 */
uint64_t members_quiet_begin(struct members *members);
bool members_is_quiet(struct members *members, uint64_t quiet);

static inline enum member_ears members_ears(const struct members *members, uint16_t number)
{
	return (enum member_ears)atomic_load(&members->ears[number]);
}

/*
 * Each who may be named, which is all but those whose number is free, in the order of numbers; and
 * each but this node. Who comes or goes meanwhile may be among them or not.
 */
#define members_for_each(members, n)                                                               \
	for (uint16_t n = members_next(members, 0); n < NODES_MAX;                                 \
	     n = members_next(members, n + 1u))
#define members_for_each_other(members, n)                                                         \
	for (uint16_t n = members_next_other(members, 0); n < NODES_MAX;                           \
	     n = members_next_other(members, n + 1u))
/* The first from `from` on; NODES_MAX: none. */
uint16_t members_next(const struct members *members, uint32_t from);
uint16_t members_next_other(const struct members *members, uint32_t from);
/* How many that are. */
uint32_t members_count(const struct members *members);

/* Are there others, or may there be some day? */
static inline bool members_may_have_others(const struct members *members)
{
	return members->number_count > 1;
}

/* Of any number, also one that a peer or a user has said: */
enum member_state members_state(const struct members *members, uint32_t number);
/* A word that names it is no lie. */
bool members_may_be_named(const struct members *members, uint32_t number);
/* This node may send a vCPU or a queue there: another member, that stays. */
bool members_may_begin(const struct members *members, uint32_t number);
/* What is, or was last, known of who has that number; never NULL, and never freed. */
const struct member_about *members_about(const struct members *members, uint32_t number);
static inline const char *members_name(const struct members *members, uint32_t number)
{
	return members_about(members, number)->name;
}

/* Those who are ACTIVE. */
void members_active(const struct members *members, struct member_set *ret_set);
/* One at whom this node may begin something, by a random number; NODE_NONE: there is none. */
uint16_t members_pick(const struct members *members, uint32_t random);

/* The member with this name that has not gone, or NODE_NONE. */
uint16_t members_find(const struct members *members, const char *name);

/* How many steps the list has taken. */
static inline uint64_t members_step(const struct members *members)
{
	return atomic_load(&members->step);
}

/* Who has it; and whether that is this node. */
uint16_t members_seat(const struct members *members, enum member_seat seat);
static inline bool members_seat_is_here(const struct members *members, enum member_seat seat)
{
	return members_seat(members, seat) == members->self;
}

#endif
