/* SPDX-License-Identifier: Apache-2.0 */
/* Places of vCPUs: every transition, what each message means in each state, and what is a lie. */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/vcpu_place.h"
#include "tests/rng.h"

/* Three nodes, six vCPUs: two begin on each. */
#define NODES 3
#define VCPUS 6
static const uint16_t first[VCPUS] = { 0, 0, 1, 1, 2, 2 };

struct pod {
	struct vcpu_places node[NODES];
};

static int set_up(void **state)
{
	static struct pod pod;

	memset(&pod, 0, sizeof(pod));
	for (uint16_t n = 0; n < NODES; n++)
		vcpu_places_init(&pod.node[n], n, NODES, VCPUS, first);
	*state = &pod;
	return 0;
}

static void assert_place(const struct vcpu_places *places, uint32_t vcpu, enum place_state state,
			 uint16_t node, uint64_t epoch)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	assert_int_equal(place.state, state);
	assert_int_equal(place.node, node);
	assert_int_equal(place.epoch, epoch);
}

/* Goes round, by the ways that there are, until the vCPU is in this state. */
static void bring(struct vcpu_places *places, uint32_t vcpu, enum place_state state)
{
	uint16_t other = places->self == 0 ? 1 : 0;

	for (;;) {
		struct vcpu_place place = vcpu_place_read(places, vcpu);

		if (place.state == state)
			return;
		switch (place.state) {
		case PLACE_AWAY:
			assert_int_equal(
				vcpu_place_on_move(places, vcpu, place.node, place.epoch + 1),
				PLACE_NEWS);
			break;
		case PLACE_ARRIVING:
			vcpu_place_here(places, vcpu);
			break;
		case PLACE_HERE:
			assert_int_equal(vcpu_place_leave(places, vcpu, other), 0);
			break;
		case PLACE_LEAVING:
			vcpu_place_sent(places, vcpu);
			break;
		case PLACE_SENT:
			assert_int_equal(vcpu_place_on_place(places, vcpu, place.node, place.epoch),
					 PLACE_TAKEN);
			break;
		case PLACE_UNKNOWN:
			fail_msg("vCPU %u is nowhere", vcpu);
		}
	}
}

static void test_begins_where_it_was_put(void **state)
{
	struct pod *pod = *state;

	for (uint16_t n = 0; n < NODES; n++)
		for (uint32_t v = 0; v < VCPUS; v++)
			assert_place(&pod->node[n], v, first[v] == n ? PLACE_HERE : PLACE_AWAY,
				     first[v], 0);
}

static void test_routes(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[1];
	uint16_t to = 99;

	assert_int_equal(vcpu_place_route(places, 0, &to), PLACE_FORWARD);
	assert_int_equal(to, 0);
	to = 99;
	bring(places, 0, PLACE_ARRIVING);
	assert_int_equal(vcpu_place_route(places, 0, &to), PLACE_LEAVE_IT);
	vcpu_place_here(places, 0);
	assert_int_equal(vcpu_place_route(places, 0, &to), PLACE_WAKE);
	assert_int_equal(vcpu_place_leave(places, 0, 2), 0);
	assert_int_equal(vcpu_place_route(places, 0, &to), PLACE_LEAVE_IT);
	assert_int_equal(to, 99);
	vcpu_place_sent(places, 0);
	assert_int_equal(vcpu_place_route(places, 0, &to), PLACE_FORWARD);
	assert_int_equal(to, 2);
}

/* A move that is taken, as all three see it. */
static void test_move(void **state)
{
	struct pod *pod = *state;

	assert_int_equal(vcpu_place_leave(&pod->node[0], 1, 1), 0);
	assert_place(&pod->node[0], 1, PLACE_LEAVING, 1, 0);
	vcpu_place_sent(&pod->node[0], 1);
	assert_place(&pod->node[0], 1, PLACE_SENT, 1, 1);
	assert_int_equal(vcpu_place_on_move(&pod->node[1], 1, 0, 1), PLACE_NEWS);
	assert_place(&pod->node[1], 1, PLACE_ARRIVING, 0, 1);
	assert_int_equal(vcpu_place_here(&pod->node[1], 1), 1);
	assert_place(&pod->node[1], 1, PLACE_HERE, 1, 1);
	assert_int_equal(vcpu_place_on_place(&pod->node[0], 1, 1, 1), PLACE_TAKEN);
	assert_int_equal(vcpu_place_on_place(&pod->node[2], 1, 1, 1), PLACE_NEWS);
	assert_place(&pod->node[0], 1, PLACE_AWAY, 1, 1);
	assert_place(&pod->node[2], 1, PLACE_AWAY, 1, 1);
	/* the others have not moved */
	assert_place(&pod->node[0], 0, PLACE_HERE, 0, 0);
	assert_place(&pod->node[1], 2, PLACE_HERE, 1, 0);
}

static void test_stays(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[0];

	assert_int_equal(vcpu_place_leave(places, 0, 2), 0);
	vcpu_place_stay(places, 0);
	assert_place(places, 0, PLACE_HERE, 0, 0);
	assert_int_equal(vcpu_place_leave(places, 0, 0), -EINVAL);
	assert_int_equal(vcpu_place_leave(places, 0, NODES), -EINVAL);
	assert_int_equal(vcpu_place_leave(places, 0, NODE_NONE), -EINVAL);
	assert_place(places, 0, PLACE_HERE, 0, 0);
}

/* Refused: it comes back with an epoch of its own, is said to be there, and may be sent again. */
static void test_refused(void **state)
{
	struct pod *pod = *state;
	uint16_t to = 99;

	bring(&pod->node[0], 0, PLACE_SENT);
	assert_int_equal(vcpu_place_on_move(&pod->node[1], 0, 0, 1), PLACE_NEWS);
	vcpu_place_refuse(&pod->node[1], 0);
	assert_place(&pod->node[1], 0, PLACE_AWAY, 0, 2);
	assert_int_equal(vcpu_place_route(&pod->node[1], 0, &to), PLACE_FORWARD);
	assert_int_equal(to, 0);
	assert_int_equal(vcpu_place_on_refused(&pod->node[0], 0, 1, 2), PLACE_NEWS);
	assert_place(&pod->node[0], 0, PLACE_ARRIVING, 0, 2);
	assert_int_equal(vcpu_place_route(&pod->node[0], 0, &to), PLACE_LEAVE_IT);
	assert_int_equal(vcpu_place_here(&pod->node[0], 0), 2);
	assert_int_equal(vcpu_place_on_place(&pod->node[1], 0, 0, 2), PLACE_OLD);
	assert_int_equal(vcpu_place_on_place(&pod->node[2], 0, 0, 2), PLACE_NEWS);
	assert_int_equal(vcpu_place_leave(&pod->node[0], 0, 1), 0);
	vcpu_place_sent(&pod->node[0], 0);
	assert_int_equal(vcpu_place_on_move(&pod->node[1], 0, 0, 3), PLACE_NEWS);
}

/* 0 -> 1 -> 2 -> 0, and only now 1's answer to the first move is here. */
static void test_answer_overtaken_by_the_return(void **state)
{
	struct pod *pod = *state;

	bring(&pod->node[0], 0, PLACE_SENT);
	assert_int_equal(vcpu_place_on_place(&pod->node[0], 0, 2, 2), PLACE_TAKEN);
	assert_place(&pod->node[0], 0, PLACE_AWAY, 2, 2);
	assert_int_equal(vcpu_place_on_move(&pod->node[0], 0, 2, 3), PLACE_NEWS);
	assert_int_equal(vcpu_place_on_place(&pod->node[0], 0, 1, 1), PLACE_OLD);
	assert_place(&pod->node[0], 0, PLACE_ARRIVING, 2, 3);
	vcpu_place_here(&pod->node[0], 0);
	assert_int_equal(vcpu_place_on_place(&pod->node[0], 0, 1, 1), PLACE_OLD);
	assert_place(&pod->node[0], 0, PLACE_HERE, 0, 3);
}

/* News of 2 comes before the older news of 1. */
static void test_older_epochs_are_ignored(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[2];

	assert_int_equal(vcpu_place_on_place(places, 0, 1, 7), PLACE_NEWS);
	for (uint64_t epoch = 0; epoch < 7; epoch++)
		for (uint16_t src = 0; src < 2; src++)
			assert_int_equal(vcpu_place_on_place(places, 0, src, epoch), PLACE_OLD);
	assert_int_equal(vcpu_place_on_place(places, 0, 1, 7), PLACE_OLD);
	assert_place(places, 0, PLACE_AWAY, 1, 7);
	/* in no state is an older one anything else */
	for (int s = PLACE_SENT; s <= PLACE_LEAVING; s++) {
		struct vcpu_places other;

		vcpu_places_init(&other, 2, NODES, VCPUS, first);
		vcpu_place_on_place(&other, 0, 1, 7);
		bring(&other, 0, (enum place_state)s);
		assert_int_equal(vcpu_place_on_place(&other, 0, 1, 7), PLACE_OLD);
		assert_int_equal(vcpu_place_on_place(&other, 0, 0, 6), PLACE_OLD);
		assert_int_equal(vcpu_place_read(&other, 0).state, s);
	}
}

/* What would make two of one vCPU, or none. */
static void test_lies(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[1];

	/* AWAY 0,0: only node 0 can send it, and only as its next epoch */
	assert_int_equal(vcpu_place_on_move(places, 0, 2, 1), PLACE_LIE);
	assert_int_equal(vcpu_place_on_move(places, 0, 0, 0), PLACE_LIE);
	assert_int_equal(vcpu_place_on_move(places, 0, 0, 2), PLACE_LIE);
	assert_int_equal(vcpu_place_on_place(places, 0, 2, 0), PLACE_LIE);
	assert_int_equal(vcpu_place_on_refused(places, 0, 0, 1), PLACE_LIE);
	assert_place(places, 0, PLACE_AWAY, 0, 0);

	/* ARRIVING 0,1: here in epoch 1 */
	bring(places, 0, PLACE_ARRIVING);
	for (int s = PLACE_ARRIVING; s <= PLACE_LEAVING; s++) {
		bring(places, 0, (enum place_state)s);
		for (uint64_t epoch = 1; epoch < 4; epoch++) {
			for (uint16_t src = 0; src < NODES; src++) {
				assert_int_equal(vcpu_place_on_move(places, 0, src, epoch),
						 PLACE_LIE);
				assert_int_equal(vcpu_place_on_place(places, 0, src, epoch),
						 PLACE_LIE);
				assert_int_equal(vcpu_place_on_refused(places, 0, src, epoch),
						 PLACE_LIE);
			}
		}
		assert_int_equal(vcpu_place_read(places, 0).state, s);
	}

	/* SENT 0,2: only node 0 answers with epoch 2, or refuses with 3, and it does not come back
	 * before that */
	vcpu_place_sent(places, 0);
	assert_int_equal(vcpu_place_on_place(places, 0, 2, 2), PLACE_LIE);
	assert_int_equal(vcpu_place_on_refused(places, 0, 2, 3), PLACE_LIE);
	assert_int_equal(vcpu_place_on_refused(places, 0, 0, 2), PLACE_LIE);
	assert_int_equal(vcpu_place_on_refused(places, 0, 0, 4), PLACE_LIE);
	assert_int_equal(vcpu_place_on_move(places, 0, 0, 3), PLACE_LIE);
	assert_place(places, 0, PLACE_SENT, 0, 2);
	/* both answers */
	assert_int_equal(vcpu_place_on_place(places, 0, 0, 2), PLACE_TAKEN);
	assert_int_equal(vcpu_place_on_refused(places, 0, 0, 3), PLACE_LIE);
	/* twice */
	assert_int_equal(vcpu_place_on_move(places, 0, 0, 3), PLACE_NEWS);
	assert_int_equal(vcpu_place_on_move(places, 0, 0, 3), PLACE_LIE);
}

static void test_out_of_range(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[1];
	uint64_t beyond = PLACE_EPOCH_MAX + 1;

	assert_int_equal(vcpu_place_on_move(places, VCPUS, 0, 1), PLACE_LIE);
	assert_int_equal(vcpu_place_on_place(places, UINT32_MAX, 0, 1), PLACE_LIE);
	assert_int_equal(vcpu_place_on_refused(places, VCPUS, 0, 1), PLACE_LIE);
	assert_int_equal(vcpu_place_on_place(places, 0, NODES, 1), PLACE_LIE);
	assert_int_equal(vcpu_place_on_place(places, 0, NODE_NONE, 1), PLACE_LIE);
	assert_int_equal(vcpu_place_on_place(places, 0, 1, 1), PLACE_LIE); /* by itself */
	assert_int_equal(vcpu_place_on_place(places, 0, 0, beyond), PLACE_LIE);
	assert_int_equal(vcpu_place_on_place(places, 0, 0, UINT64_MAX), PLACE_LIE);
	assert_place(places, 0, PLACE_AWAY, 0, 0);
}

/* As it would be after so many moves. */
static void go_to_epoch(struct vcpu_places *places, uint32_t vcpu, uint64_t epoch)
{
	while (vcpu_place_read(places, vcpu).epoch < epoch) {
		uint64_t word = atomic_load(&places->word[vcpu]);
		uint64_t left = epoch - vcpu_place_read(places, vcpu).epoch;

		/* A step by the rules says where the epoch is in the word. */
		assert_int_equal(vcpu_place_on_place(places, vcpu, 0,
						     vcpu_place_read(places, vcpu).epoch + 1),
				 PLACE_NEWS);
		atomic_fetch_add(&places->word[vcpu],
				 (left - 1) * (atomic_load(&places->word[vcpu]) - word));
	}
}

/* Nobody has moved so often since a node heard of it. */
static void test_step_of_epochs(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[1];

	assert_int_equal(vcpu_place_on_place(places, 0, 2, 1 + PLACE_STEP_MAX), PLACE_LIE);
	assert_place(places, 0, PLACE_AWAY, 0, 0);
	assert_int_equal(vcpu_place_on_place(places, 0, 2, PLACE_STEP_MAX), PLACE_NEWS);
	assert_int_equal(vcpu_place_on_place(places, 0, 0, PLACE_EPOCH_MAX), PLACE_LIE);
	assert_place(places, 0, PLACE_AWAY, 2, PLACE_STEP_MAX);
}

/* The last epochs: no word overflows into the next field. */
static void test_end_of_epochs(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[1];

	go_to_epoch(places, 0, PLACE_EPOCH_MAX - 3);
	assert_int_equal(vcpu_place_on_move(places, 0, 0, PLACE_EPOCH_MAX - 2), PLACE_NEWS);
	assert_int_equal(vcpu_place_here(places, 0), PLACE_EPOCH_MAX - 2);
	assert_int_equal(vcpu_place_leave(places, 0, 2), 0);
	vcpu_place_sent(places, 0);
	assert_int_equal(vcpu_place_on_refused(places, 0, 2, PLACE_EPOCH_MAX), PLACE_NEWS);
	assert_int_equal(vcpu_place_here(places, 0), PLACE_EPOCH_MAX);
	assert_int_equal(vcpu_place_leave(places, 0, 2), -EOVERFLOW);
	assert_place(places, 0, PLACE_HERE, 1, PLACE_EPOCH_MAX);
	go_to_epoch(places, 1, PLACE_EPOCH_MAX - 1);
	assert_int_equal(vcpu_place_on_move(places, 1, 0, PLACE_EPOCH_MAX), PLACE_LIE);
}

/* What a seat's thread does next, if it is its turn. */
static void step_seat(struct vcpu_places *places, uint32_t vcpu, struct rng *rng)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	switch (place.state) {
	case PLACE_ARRIVING:
		if (place.node != places->self && rng_chance(rng, 30))
			vcpu_place_refuse(places, vcpu);
		else
			assert_int_equal(vcpu_place_here(places, vcpu), place.epoch);
		break;
	case PLACE_HERE:
		(void)vcpu_place_leave(places, vcpu, (uint16_t)rng_below(rng, NODES + 1));
		break;
	case PLACE_LEAVING:
		if (rng_chance(rng, 30))
			vcpu_place_stay(places, vcpu);
		else
			vcpu_place_sent(places, vcpu);
		break;
	default: /* the control thread's turn */
		break;
	}
}

/* Near what is known, or anything. */
static uint64_t random_epoch(const struct vcpu_place *place, struct rng *rng)
{
	switch (rng_below(rng, 8)) {
	case 0:
		return rng_next(rng);
	case 1:
		return PLACE_EPOCH_MAX - rng_below(rng, 4);
	default:
		return place->epoch + rng_below(rng, 4) - 1;
	}
}

/*
 * Peers that say anything: only the control thread's states change by that, epochs only grow, a lie
 * and what is old change nothing, and whatever the word is then, the seat can go on from it.
 */
static void test_peers_that_say_anything(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[1];
	struct rng rng = { 7 };
	uint32_t seen[4] = { 0 };

	for (uint32_t round = 0; round < 300000; round++) {
		uint32_t vcpu = rng_below(&rng, VCPUS + 1), what = rng_below(&rng, 3);
		uint16_t src = (uint16_t)rng_below(&rng, NODES + 1);
		struct vcpu_place before = vcpu_place_read(places, vcpu < VCPUS ? vcpu : 0), after;
		uint64_t epoch = random_epoch(&before, &rng);
		enum place_verdict verdict =
			what == 0   ? vcpu_place_on_move(places, vcpu, src, epoch)
			: what == 1 ? vcpu_place_on_place(places, vcpu, src, epoch)
				    : vcpu_place_on_refused(places, vcpu, src, epoch);

		seen[verdict]++;
		if (vcpu == VCPUS) {
			assert_int_equal(verdict, PLACE_LIE);
			continue;
		}
		after = vcpu_place_read(places, vcpu);
		if (verdict == PLACE_LIE || verdict == PLACE_OLD) {
			assert_place(places, vcpu, before.state, before.node, before.epoch);
		} else {
			assert_true(before.state == PLACE_AWAY || before.state == PLACE_SENT);
			assert_true(after.epoch > before.epoch || before.state == PLACE_SENT);
			assert_true(after.node < NODES);
		}
		assert_true(after.epoch >= before.epoch && after.epoch <= PLACE_EPOCH_MAX);
		if (rng_chance(&rng, 50))
			step_seat(places, vcpu, &rng);
		if (rng_chance(&rng, 1) || after.epoch > PLACE_EPOCH_MAX - 8)
			set_up(state); /* else one great lie would be the end of it */
		places = &((struct pod *)*state)->node[1];
	}
	for (int verdict = PLACE_LIE; verdict <= PLACE_TAKEN; verdict++)
		assert_true(seen[verdict] > 1000);
}

/* Nobody leaves for who is no member. */
static void test_leaves_to_members(void **state)
{
	struct pod *pod = *state;
	struct member_set members = { 0 };

	member_set_add(&members, 0);
	member_set_add(&members, 2);
	vcpu_places_members(&pod->node[0], &members);
	assert_int_equal(vcpu_place_leave(&pod->node[0], 0, 1), -EINVAL);
	assert_place(&pod->node[0], 0, PLACE_HERE, 0, 0);
	assert_int_equal(vcpu_place_leave(&pod->node[0], 0, 2), 0);
	member_set_add(&members, 1);
	vcpu_places_members(&pod->node[0], &members);
	assert_int_equal(vcpu_place_leave(&pod->node[0], 1, 1), 0);
}

/* Who joins: any epoch is news, once; nothing moves to it, and nothing is sent on, while it does not know. */
static void test_joiner_knows_nothing(void **state)
{
	struct vcpu_places places = { 0 };
	uint16_t to = 99;

	vcpu_places_init_joiner(&places, 2, NODES, VCPUS);
	assert_int_equal(vcpu_places_unknown(&places), VCPUS);
	for (uint32_t v = 0; v < VCPUS; v++) {
		assert_place(&places, v, PLACE_UNKNOWN, NODE_NONE, 0);
		assert_int_equal(vcpu_place_route(&places, v, &to), PLACE_LEAVE_IT);
		assert_int_equal(vcpu_place_on_move(&places, v, 0, 1), PLACE_LIE);
		assert_int_equal(vcpu_place_on_refused(&places, v, 0, 1), PLACE_LIE);
		assert_int_equal(vcpu_place_on_place(&places, v, 2, 1), PLACE_LIE);
		assert_int_equal(vcpu_place_on_place(&places, v, NODES, 1), PLACE_LIE);
	}
	assert_int_equal(to, 99);
	/* Beyond PLACE_STEP_MAX of a node that has been there. */
	assert_int_equal(vcpu_place_on_place(&places, 0, 1, 5 * PLACE_STEP_MAX), PLACE_NEWS);
	assert_place(&places, 0, PLACE_AWAY, 1, 5 * PLACE_STEP_MAX);
	assert_int_equal(vcpu_place_on_place(&places, 1, 0, 0), PLACE_NEWS);
	assert_place(&places, 1, PLACE_AWAY, 0, 0);
	assert_int_equal(vcpu_places_unknown(&places), VCPUS - 2);
	/* What its second node says, and the first one's word behind that. */
	assert_int_equal(vcpu_place_on_place(&places, 2, 1, 8), PLACE_NEWS);
	assert_int_equal(vcpu_place_on_place(&places, 2, 0, 7), PLACE_OLD);
	assert_int_equal(vcpu_place_on_move(&places, 1, 0, 1), PLACE_NEWS);
}

static void test_who_is_named(void **state)
{
	struct vcpu_places *places = &((struct pod *)*state)->node[0];

	assert_int_equal(vcpu_places_name(places, 2), PLACES_NAME);
	assert_int_equal(vcpu_place_leave(places, 0, 2), 0);
	assert_int_equal(vcpu_places_name(places, 2), PLACES_GO_THERE);
	vcpu_place_sent(places, 0);
	assert_int_equal(vcpu_places_name(places, 2), PLACES_GO_THERE);
	assert_int_equal(vcpu_place_on_place(places, 0, 1, 2), PLACE_TAKEN);
	assert_int_equal(vcpu_places_name(places, 2), PLACES_NAME);
	for (uint32_t v = 4; v < VCPUS; v++)
		assert_int_equal(vcpu_place_on_place(places, v, 1, 1), PLACE_NEWS);
	assert_int_equal(vcpu_places_name(places, 2), PLACES_NAME_NONE);
}

/*
 * A seat's thread that leaves while the control thread takes the member out: of the two one sees the other.
 * Whoever has left is seen on its way.
 */
struct race {
	struct vcpu_places places;
	_Atomic uint32_t round, left_round;
	int result;
};

#define RACE_ROUNDS 400000u
#define RACE_NS	    2000000000ull

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void *leave_each_round(void *arg)
{
	struct race *race = arg;

	for (uint32_t round = 1;; round++) {
		uint32_t now;

		while ((now = atomic_load(&race->round)) < round)
			;
		if (now == UINT32_MAX)
			return NULL;
		race->result = vcpu_place_leave(&race->places, 0, 1);
		atomic_store(&race->left_round, round);
	}
}

static void test_leaves_or_is_seen(void **state)
{
	static struct race race;
	struct member_set without = member_set_below(NODES);
	uint64_t end_ns = now_ns() + RACE_NS;
	uint32_t left = 0, round = 1;
	pthread_t thread;

	member_set_remove(&without, 1);
	vcpu_places_init(&race.places, 0, NODES, 1, first);
	assert_int_equal(pthread_create(&thread, NULL, leave_each_round, &race), 0);
	for (; round < RACE_ROUNDS && now_ns() < end_ns; round++) {
		enum place_naming seen;

		vcpu_places_init(&race.places, 0, NODES, 1, first);
		atomic_store(&race.round, round);
		for (volatile uint32_t spin = round % 128; spin > 0; spin--)
			;
		vcpu_places_members(&race.places, &without);
		seen = vcpu_places_name(&race.places, 1);
		while (atomic_load(&race.left_round) < round)
			;
		left += race.result == 0;
		if (race.result == 0 && seen != PLACES_GO_THERE)
			fail_msg("round %u: it left unseen", round);
		assert_place(&race.places, 0, race.result ? PLACE_HERE : PLACE_LEAVING,
			     race.result ? 0 : 1, 0);
	}
	atomic_store(&race.round, UINT32_MAX);
	pthread_join(thread, NULL);
	printf("%u of %u left\n", left, round);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_begins_where_it_was_put, set_up),
		cmocka_unit_test_setup(test_routes, set_up),
		cmocka_unit_test_setup(test_move, set_up),
		cmocka_unit_test_setup(test_stays, set_up),
		cmocka_unit_test_setup(test_refused, set_up),
		cmocka_unit_test_setup(test_answer_overtaken_by_the_return, set_up),
		cmocka_unit_test_setup(test_older_epochs_are_ignored, set_up),
		cmocka_unit_test_setup(test_lies, set_up),
		cmocka_unit_test_setup(test_out_of_range, set_up),
		cmocka_unit_test_setup(test_step_of_epochs, set_up),
		cmocka_unit_test_setup(test_end_of_epochs, set_up),
		cmocka_unit_test_setup(test_leaves_to_members, set_up),
		cmocka_unit_test(test_joiner_knows_nothing),
		cmocka_unit_test_setup(test_who_is_named, set_up),
		cmocka_unit_test(test_leaves_or_is_seen),
		cmocka_unit_test_setup(test_peers_that_say_anything, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
