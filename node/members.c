/* SPDX-License-Identifier: Apache-2.0 */
/* The pod's members, as all threads of a node see them: see members.h. */
#include "node/members.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/pod_config.h"

_Static_assert(sizeof(((struct member_about *)0)->address) >= ADDRESS_MAX, "they fit");

/*
 * A host that goes and comes back is known already. So these are no more than there have been
 * members that differ, by name, address, promise or cores.
 */
struct member_known {
	struct member_known *next;
	struct member_about about;
};

static bool is_same(const struct member_about *a, const struct member_about *b)
{
	return !strcmp(a->name, b->name) && !strcmp(a->address, b->address) &&
	       a->promise_bytes == b->promise_bytes && a->cores == b->cores &&
	       a->token_id == b->token_id && a->token_expiry_s == b->token_expiry_s;
}

/* What may be pointed to for ever, or NULL: no memory. */
static const struct member_about *keep(struct members *members, const struct member_about *about)
{
	struct member_known *known = members->known;

	while (known && !is_same(&known->about, about))
		known = known->next;
	if (known)
		return &known->about;
	known = malloc(sizeof(*known));
	if (!known)
		return NULL;
	*known = (struct member_known){ members->known, *about };
	members->known = known;
	return &known->about;
}

static void publish_named(struct members *members, uint16_t node)
{
	uint64_t bit = 1ull << (node % 64);

	if (member_list_may_be_named(&members->list, node))
		atomic_fetch_or(&members->named[node / 64], bit);
	else
		atomic_fetch_and(&members->named[node / 64], ~bit);
}

int members_publish(struct members *members)
{
	const struct member_snapshot *now = &members->list.now;
	int r = 0;

	for (uint16_t node = 0; node < members->number_count; node++) {
		const struct member *member = &now->member[node];
		const struct member_about *about;

		about = atomic_load(&members->about[node]);
		if (member->state != MEMBER_FREE && !(about && is_same(about, &member->about))) {
			about = keep(members, &member->about);
			r = about ? r : -ENOMEM;
			atomic_store(&members->about[node], about);
		}
		atomic_store(&members->state[node], (uint8_t)member->state);
		/* Last: who sees the bit finds the rest. */
		publish_named(members, node);
	}
	for (int seat = 0; seat < SEAT_COUNT; seat++)
		atomic_store(&members->seat[seat], now->seat[seat]);
	atomic_store(&members->step, now->step);
	return r;
}

static void about_of(const struct node_config *config, struct member_about *ret_about)
{
	snprintf(ret_about->name, sizeof(ret_about->name), "%s", config->name);
	snprintf(ret_about->address, sizeof(ret_about->address), "%s", config->address);
	ret_about->promise_bytes = config->memory;
	ret_about->cores = config->cores < UINT16_MAX ? (uint16_t)config->cores : UINT16_MAX;
}

int members_create(const struct pod_config *config, uint16_t self, struct members **ret_members)
{
	struct members *members = calloc(1, sizeof(*members));
	struct member_about *about = calloc(NODES_MAX, sizeof(*about));
	uint16_t count = (uint16_t)config->node_count;
	int r = members && about ? 0 : -ENOMEM;

	if (!r) {
		for (uint16_t node = 0; node < count; node++)
			about_of(&config->node[node], &about[node]);
		member_list_init(&members->list, self, pod_config_numbers(config), count, about);
		members->self = self;
		members->number_count = pod_config_numbers(config);
		r = members_publish(members);
	}
	free(about);
	if (r)
		members_destroy(members);
	else
		*ret_members = members;
	return r;
}

int members_create_joiner(const struct member_snapshot *snapshot, uint16_t self,
			  struct members **ret_members)
{
	struct members *members = calloc(1, sizeof(*members));
	int r = members ? member_list_init_joiner(&members->list, self, snapshot) : -ENOMEM;

	if (!r) {
		members->self = self;
		members->number_count = snapshot->number_count;
		atomic_store(&members->joins, true);
		r = members_publish(members);
	}
	if (r)
		members_destroy(members);
	else
		*ret_members = members;
	return r;
}

/* ---- who holds the list ---------------------------------------------------------------------- */

/*
 * Who begins says so and then looks whether that is still the age; whoever ends an age says so and then
 * looks who has begun in it. So of the two one sees the other.
 */
uint32_t members_hold(struct members *members)
{
	for (;;) {
		uint64_t age = atomic_load(&members->age);

		atomic_fetch_add(&members->holders[age % 2], 1);
		if (atomic_load(&members->age) == age)
			return age % 2;
		atomic_fetch_sub(&members->holders[age % 2], 1);
	}
}

void members_let_go(struct members *members, uint32_t held)
{
	atomic_fetch_sub(&members->holders[held], 1);
}

/* The age before has ended when nobody is left of it; only then the next begins. */
static void go_on(struct members *members)
{
	uint64_t age = atomic_load(&members->age);

	for (;;) {
		if (members->quiet_age < age && atomic_load(&members->holders[(age - 1) % 2]) == 0)
			members->quiet_age = age;
		if (members->quiet_age < age || members->wanted_age <= age)
			return;
		atomic_store(&members->age, ++age);
	}
}

/* An age that has begun already may be too early. */
uint64_t members_quiet_begin(struct members *members)
{
	uint64_t quiet = atomic_load(&members->age) + 1;

	members->wanted_age = quiet;
	go_on(members);
	return quiet;
}

bool members_is_quiet(struct members *members, uint64_t quiet)
{
	go_on(members);
	return members->quiet_age >= quiet;
}

void members_destroy(struct members *members)
{
	struct member_known *next;

	if (!members)
		return;
	for (struct member_known *known = members->known; known; known = next) {
		next = known->next;
		free(known);
	}
	free(members);
}

uint16_t members_next(const struct members *members, uint32_t from)
{
	uint64_t bits;

	for (uint32_t word = from / 64; word < NODES_MAX / 64; word++) {
		bits = atomic_load(&members->named[word]);
		if (word == from / 64)
			bits &= UINT64_MAX << (from % 64);
		if (bits)
			return (uint16_t)(word * 64 + (uint32_t)__builtin_ctzll(bits));
	}
	return NODES_MAX;
}

uint16_t members_next_other(const struct members *members, uint32_t from)
{
	uint16_t node = members_next(members, from);

	return node == members->self ? members_next(members, node + 1u) : node;
}

uint32_t members_count(const struct members *members)
{
	uint32_t count = 0;

	for (uint32_t word = 0; word < NODES_MAX / 64; word++)
		count += (uint32_t)__builtin_popcountll(atomic_load(&members->named[word]));
	return count;
}

enum member_state members_state(const struct members *members, uint32_t number)
{
	if (number >= NODES_MAX)
		return MEMBER_FREE;
	return (enum member_state)atomic_load(&members->state[number]);
}

bool members_may_be_named(const struct members *members, uint32_t number)
{
	return number < NODES_MAX && atomic_load(&members->named[number / 64]) >> (number % 64) & 1;
}

bool members_may_begin(const struct members *members, uint32_t number)
{
	enum member_state own = members_state(members, members->self);

	return (own == MEMBER_ACTIVE || own == MEMBER_DRAINING) && number != members->self &&
	       members_state(members, number) == MEMBER_ACTIVE;
}

void members_active(const struct members *members, struct member_set *ret_set)
{
	*ret_set = (struct member_set){ 0 };
	members_for_each(members, node)
		if (members_state(members, node) == MEMBER_ACTIVE)
			member_set_add(ret_set, node);
}

uint16_t members_pick(const struct members *members, uint32_t random)
{
	uint16_t found[NODES_MAX];
	uint32_t count = 0;

	members_for_each_other(members, node)
		if (members_may_begin(members, node))
			found[count++] = node;
	return count ? found[random % count] : NODE_NONE;
}

const struct member_about *members_about(const struct members *members, uint32_t number)
{
	static const struct member_about nobody = { .name = "?", .address = "?" };
	const struct member_about *about =
		number < NODES_MAX ? atomic_load(&members->about[number]) : NULL;

	return about ? about : &nobody;
}

uint16_t members_find(const struct members *members, const char *name)
{
	members_for_each(members, node)
		if (members_state(members, node) != MEMBER_GONE &&
		    !strcmp(members_name(members, node), name))
			return node;
	return NODE_NONE;
}

uint16_t members_seat(const struct members *members, enum member_seat seat)
{
	return atomic_load(&members->seat[seat]);
}
