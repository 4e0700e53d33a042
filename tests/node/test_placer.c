/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy at work, with vCPUs that are played: what stalls lead to under each policy, that nobody
 * waits for the lock at a stall, what is said about loads and outcomes and when, what is learned of
 * other nodes' outcomes, and that an idle node rests.
 *
 * Time is played, too: it passes where a test says so (pass(), stall()), and the placer's turns come
 * when they are due by it. So a machine that is busy changes nothing. The placer's own thread, which
 * waits by the real clock, has a test of its own, which waits for what must come and for nothing that
 * must not.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node/placer.h"
#include "tests/test.h"

#define VCPUS 4u

/* What a node would be: vCPUs 0 and 1 begin on node 0, 2 and 3 on node 1. */
struct played {
	struct placer *placer;
	_Atomic uint16_t self;
	atomic_bool sleeps[VCPUS], stuck, is_stuck;
	bool real; /* its clock is the real one */
	_Atomic uint64_t now_ns;
	uint64_t next_ns; /* the placer's turn; PLACER_NEWS */
	atomic_uint looks, went_count, said_count;
	atomic_uint went; /* the last: vCPU * 16 + node */
	atomic_uint said; /* the last: cores * 16 + awake */
	_Atomic uint64_t waited_ns[VCPUS];
	atomic_uint told_count, told_program, told_lost_us; /* of outcomes; the last one */
	char learner[16]; /* what was said of it: '-' off, '+' again */
};

static const uint16_t first[VCPUS] = { 0, 0, 1, 1 };

static uint64_t real_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t played_now(void *ctx)
{
	struct played *played = ctx;
	while (atomic_load(&played->stuck)) {
		atomic_store(&played->is_stuck, true);
		usleep(1000);
	}
	return played->real ? real_now_ns() : atomic_load(&played->now_ns);
}

static bool played_look(void *ctx, uint32_t vcpu, struct placer_vcpu *ret_vcpu)
{
	struct played *played = ctx;
	atomic_fetch_add(&played->looks, 1);
	*ret_vcpu = (struct placer_vcpu){ .sleeps = atomic_load(&played->sleeps[vcpu]),
					  .waited_ns = atomic_load(&played->waited_ns[vcpu]) };
	return first[vcpu] == played->self;
}

static uint32_t played_program(void *ctx, uint32_t vcpu)
{
	return 77 + vcpu;
}

static void played_say_outcomes(void *ctx, const struct placement_outcome *outcome, uint32_t count)
{
	struct played *played = ctx;
	assert_in_range(count, 1, PLACEMENT_OUTCOMES);
	assert_true(placement_outcome_valid(&outcome[count - 1]));
	atomic_store(&played->told_program, outcome[count - 1].program);
	atomic_store(&played->told_lost_us, outcome[count - 1].lost_us);
	atomic_fetch_add(&played->told_count, count);
}

static void played_go(void *ctx, uint32_t vcpu, uint16_t to)
{
	struct played *played = ctx;
	atomic_store(&played->went, vcpu * 16 + to);
	atomic_fetch_add(&played->went_count, 1);
}

static void played_say(void *ctx, const struct placement_load *load)
{
	struct played *played = ctx;
	atomic_store(&played->said, load->cores * 16u + load->awake);
	atomic_fetch_add(&played->said_count, 1);
}

static void played_say_learner(void *ctx, const struct placement_stats *stats)
{
	struct played *played = ctx;
	size_t used = strlen(played->learner);
	assert_true(used + 1 < sizeof(played->learner));
	played->learner[used] = stats->learner_off ? '-' : '+';
}

static const struct placer_ops ops = { played_now,	  played_look, played_program,
				       played_go,	  played_say,  played_say_outcomes,
				       played_say_learner };

static void play(struct played *played, uint16_t self, enum placement_policy policy)
{
	struct placer_config config = { .placement = { .self = self,
						       .node_count = 2,
						       .vcpu_count = VCPUS,
						       .policy = policy,
						       .move_ns = 300000 },
					.cores = 3,
					.traces_pins = self == 0,
					.ops = &ops,
					.ctx = played };
	memset(played, 0, sizeof(*played));
	played->self = self;
	played->now_ns = 1000000000;
	played->next_ns = played->now_ns + PLACEMENT_TICK_NS;
	assert_int_equal(placer_create(&config, first, &played->placer), 0);
	placer_load(played->placer, 0, &(struct placement_load){ 3, 0 });
	placer_load(played->placer, 1, &(struct placement_load){ 3, 0 });
}

#define MS 1000000ull

/* The thread would be waiting for news, and has some. */
static bool has_news(struct played *played)
{
	struct placer_stats stats;
	placer_stats(played->placer, &stats);
	return placer_is_wanted(played->placer) && !stats.rests;
}

/* Time passes, and the placer has its turns. */
static void pass(struct played *played, uint64_t ns)
{
	uint64_t end_ns = played->now_ns + ns;
	for (;;) {
		if (played->next_ns == PLACER_NEWS && has_news(played))
			played->next_ns = played->now_ns;
		if (played->next_ns > end_ns)
			break;
		if (played->next_ns > played->now_ns)
			played->now_ns = played->next_ns;
		uint64_t ns_more = placer_turn(played->placer);
		played->next_ns = ns_more == PLACER_NEWS ? PLACER_NEWS : played->now_ns + ns_more;
	}
	played->now_ns = end_ns;
}

static bool rests(const struct played *played)
{
	struct placer_stats stats;
	placer_stats(played->placer, &stats);
	return stats.rests;
}

/* Stalls of a vCPU on another node's pages, one after the other, and no turn meanwhile. */
#define STALLS	 100u
#define STALL_NS 200000u
static void stall(struct played *played, uint32_t vcpu, uint16_t from)
{
	for (uint32_t i = 0; i < STALLS; i++) {
		struct pager_stall stall = { .kind = COH_STALL_WRITE,
					     .from = from,
					     .sharers = 2,
					     .gpn = 1000 + i,
					     .took_ns = STALL_NS };
		played->now_ns += STALL_NS;
		placer_stalled(played->placer, vcpu, &stall);
	}
}

static void test_stalls_lead_there(void **state)
{
	static const enum placement_policy moving[] = { PLACEMENT_VCPUS, PLACEMENT_BASE,
							PLACEMENT_LEARNED };
	struct played played;
	for (size_t i = 0; i < sizeof(moving) / sizeof(moving[0]); i++) {
		struct placer_stats stats;
		play(&played, 0, moving[i]);
		stall(&played, 2, 1); /* not here */
		stall(&played, 1, 0); /* its own node's page */
		stall(&played, 1, NODE_NONE);
		assert_int_equal(played.went_count, 0);
		played.now_ns += 2 * MS; /* it has been here for a moment */
		stall(&played, 1, 1);
		assert_true(played.went_count > 0);
		assert_int_equal(played.went, 1 * 16 + 1);
		placer_stats(played.placer, &stats);
		assert_true(stats.placement.move_count > 0 && stats.missed_count == 0);
		assert_int_equal(stats.policy, moving[i]);
		placer_destroy(played.placer);
	}
}

static void test_stalls_lead_nowhere(void **state)
{
	struct placer_stats stats;
	struct played played;
	play(&played, 0, PLACEMENT_PAGES);
	played.now_ns += 2 * MS;
	stall(&played, 1, 1);
	placer_set_policy(played.placer, PLACEMENT_PINNED);
	stall(&played, 1, 1);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.placement.stall_count, 0); /* it was not even asked */
	placer_set_policy(played.placer, PLACEMENT_BASE);
	placer_pin(played.placer, 1, true);
	assert_true(placer_pinned(played.placer, 1) && !placer_pinned(played.placer, 0));
	stall(&played, 1, 1);
	assert_int_equal(played.went_count, 0);
	placer_pin(played.placer, 1, false);
	stall(&played, 1, 1);
	assert_true(played.went_count > 0);
	placer_destroy(played.placer);
}

static void *place_one(void *arg)
{
	placer_placed(((struct played *)arg)->placer, 2, 1);
	return NULL;
}

/* Somebody has the lock and does not get on: the shard's thread does. */
static void test_a_stall_does_not_wait(void **state)
{
	struct placer_stats stats;
	struct played played;
	pthread_t thread;
	play(&played, 0, PLACEMENT_BASE);
	atomic_store(&played.stuck, true);
	pthread_create(&thread, NULL, place_one, &played);
	while (!atomic_load(&played.is_stuck))
		usleep(1000);
	for (uint32_t i = 0; i < 50; i++)
		placer_stalled(played.placer, 1,
			       &(struct pager_stall){ .kind = COH_STALL_READ, .from = 1 });
	atomic_store(&played.stuck, false);
	pthread_join(thread, NULL);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.missed_count, 50);
	placer_destroy(played.placer);
}

static void test_loads(void **state)
{
	struct played played;
	play(&played, 1, PLACEMENT_BASE);
	placer_pin(played.placer, 2, true); /* for else they gather */
	placer_pin(played.placer, 3, true);
	pass(&played, 4 * MS);
	assert_int_equal(played.said, 3 * 16 + 2);
	atomic_store(&played.sleeps[3], true);
	pass(&played, 8 * MS);
	assert_int_equal(played.said, 3 * 16 + 1);
	assert_int_equal(played.said_count, 2);
	pass(&played, 1000 * MS);
	assert_int_equal(played.said_count, 2); /* nothing new */
	/* One comes that sleeps: the others have counted it as awake, and hear that it is not. */
	placer_arrived(played.placer, 0, 0, played.now_ns, NULL);
	pass(&played, 1000 * MS);
	assert_int_equal(played.said, 3 * 16 + 1);
	/* At once, and when those have counted it who are slower; and no more. */
	assert_int_equal(played.said_count, 4);
	atomic_store(&played.sleeps[2], true);
	pass(&played, 8 * MS);
	assert_int_equal(played.said, 3 * 16 + 0);
	/* Nobody is awake: it looks at four vCPUs some 20 times a second, not 250. */
	pass(&played, 100 * MS);
	unsigned int said = played.said_count, looks = played.looks;
	pass(&played, 1000 * MS);
	assert_in_range(played.looks - looks, 4 * 20, 4 * 21);
	assert_int_equal(played.said_count, said);
	/* And sees it soon when somebody wakes. */
	atomic_store(&played.sleeps[2], false);
	pass(&played, 50 * MS);
	assert_int_equal(played.said, 3 * 16 + 1);
	placer_destroy(played.placer);
}

/* What flickers is no stream of messages. */
static void test_loads_are_said_seldom(void **state)
{
	struct played played;
	play(&played, 1, PLACEMENT_BASE);
	placer_pin(played.placer, 2, true);
	placer_pin(played.placer, 3, true);
	for (uint32_t i = 0; i < 250; i++) {
		atomic_store(&played.sleeps[3], i % 4 < 2);
		pass(&played, 4 * MS);
	}
	assert_in_range(played.said_count, 2, 126);
	placer_destroy(played.placer);
}

/* What came of a choice is told to the others: for what runs, and with the time that it had no core. */
static void test_outcomes_are_told(void **state)
{
	struct pager_stall one = { .kind = COH_STALL_READ, .from = 1, .gpn = 5, .took_ns = 200000 };
	struct played played;
	play(&played, 0, PLACEMENT_BASE);
	pass(&played, 20 * MS);
	assert_int_equal(played.said, 3 * 16 + 2);
	placer_stalled(played.placer, 1, &one);
	played.waited_ns[1] += 3000000;
	pass(&played, PLACEMENT_HORIZON_NS - 1 * MS);
	assert_int_equal(played.told_count, 0);
	pass(&played, 5 * MS);
	assert_int_equal(played.told_count, 1);
	assert_int_equal(played.told_lost_us, 3000);
	assert_int_equal(played.told_program, 78);
	/* The next one not before its time. */
	placer_stalled(played.placer, 1, &one);
	pass(&played, PLACER_OUTCOMES_NS - 5 * MS);
	assert_int_equal(played.told_count, 1);
	pass(&played, 10 * MS);
	assert_int_equal(played.told_count, 2);
	placer_destroy(played.placer);
}

/* Others' outcomes count, and no more of them than a node has to say. */
static void test_outcomes_are_learned(void **state)
{
	struct placement_outcome outcome[PLACEMENT_OUTCOMES] = { { .lost_us = 1 } };
	struct placer_stats stats;
	struct played played;
	play(&played, 0, PLACEMENT_BASE);
	/* A thousand in a second, where 31 may be said. */
	for (uint32_t i = 0; i < 1000; i++) {
		placer_outcomes(played.placer, 1, outcome, PLACEMENT_OUTCOMES);
		played.now_ns += 1 * MS;
	}
	placer_stats(played.placer, &stats);
	assert_in_range(stats.heard_count, 31 * PLACEMENT_OUTCOMES, 63 * PLACEMENT_OUTCOMES);
	played.now_ns += PLACER_OUTCOMES_NS;
	uint64_t before = stats.heard_count;
	outcome[1].lost_us = PLACEMENT_LOST_US_MAX + 1;
	placer_outcomes(played.placer, 1, outcome, 2);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.heard_count, before + 1);
	placer_destroy(played.placer);
}

static void test_rests_while_nothing_moves(void **state)
{
	struct played played;
	play(&played, 1, PLACEMENT_PAGES);
	pass(&played, 1000 * MS);
	assert_int_equal(played.looks, 0);
	assert_int_equal(played.said_count, 0);
	placer_set_policy(played.placer, PLACEMENT_BASE);
	pass(&played, 20 * MS);
	assert_int_equal(played.said, 3 * 16 + 2);
	placer_set_policy(played.placer, PLACEMENT_PINNED);
	unsigned int looks = played.looks;
	pass(&played, 1000 * MS);
	assert_int_equal(played.looks, looks);
	placer_destroy(played.placer);
}

/* Where the idle ones are to be nobody looks at them, until one has something to do. */
static void test_rests_while_all_sleep(void **state)
{
	struct played played;
	play(&played, 0, PLACEMENT_BASE);
	for (uint32_t v = 0; v < VCPUS; v++)
		atomic_store(&played.sleeps[v], true);
	for (uint32_t v = 0; v < 2; v++)
		placer_slept(played.placer, v, true);
	pass(&played, 200 * MS);
	assert_true(rests(&played));
	/* Awake for a moment: not worth a look. */
	unsigned int looks = played.looks;
	placer_slept(played.placer, 0, false);
	played.now_ns += 1 * MS;
	placer_awake(played.placer, 0);
	placer_slept(played.placer, 0, true);
	pass(&played, 1000 * MS);
	assert_int_equal(played.looks, looks);
	/* For longer. */
	atomic_store(&played.sleeps[0], false);
	placer_slept(played.placer, 0, false);
	played.now_ns += PLACEMENT_TICK_NS;
	placer_awake(played.placer, 0);
	pass(&played, 1 * MS);
	assert_int_equal(played.said, 3 * 16 + 1);
	atomic_store(&played.sleeps[0], true);
	placer_slept(played.placer, 0, true);
	pass(&played, 20 * MS);
	assert_int_equal(played.said, 3 * 16 + 0);
	/* A stall of one that is awake for a moment: neither. */
	pass(&played, 500 * MS);
	assert_true(rests(&played));
	looks = played.looks;
	placer_slept(played.placer, 0, false);
	played.now_ns += 1 * MS;
	placer_stalled(played.placer, 0,
		       &(struct pager_stall){ .kind = COH_STALL_READ, .from = 1 });
	placer_slept(played.placer, 0, true);
	pass(&played, 500 * MS);
	assert_int_equal(played.looks, looks);
	/* A stall of one that has been for longer, a vCPU that comes, one that goes. */
	placer_slept(played.placer, 0, false);
	played.now_ns += PLACEMENT_TICK_NS;
	placer_stalled(played.placer, 0,
		       &(struct pager_stall){ .kind = COH_STALL_READ, .from = 1 });
	placer_slept(played.placer, 0, true);
	pass(&played, 1 * MS);
	assert_true(played.looks > looks);
	pass(&played, 500 * MS);
	assert_true(rests(&played));
	looks = played.looks;
	unsigned int said = played.said_count;
	placer_arrived(played.placer, 2, 1, played.now_ns, NULL);
	pass(&played, 1 * MS);
	assert_true(played.looks > looks);
	pass(&played, 20 * MS);
	assert_int_equal(played.said_count, said + 2); /* the load after a move, as above */
	placer_destroy(played.placer);
}

/* One more than there are cores: at once, and however short they have been awake. */
static void test_rest_ends_in_a_crowd(void **state)
{
	struct played played;
	play(&played, 0, PLACEMENT_BASE);
	for (uint32_t v = 0; v < VCPUS; v++) {
		atomic_store(&played.sleeps[v], true);
		placer_arrived(played.placer, v, 1, played.now_ns, NULL);
		placer_slept(played.placer, v, true);
	}
	pass(&played, 200 * MS);
	assert_true(rests(&played));
	unsigned int looks = played.looks;
	for (uint32_t v = 0; v < 3; v++)
		placer_slept(played.placer, v, false);
	pass(&played, 1000 * MS);
	assert_int_equal(played.looks, looks); /* three cores */
	placer_slept(played.placer, 3, false);
	pass(&played, 0);
	assert_true(played.looks > looks);
	placer_destroy(played.placer);
}

/* A node where no vCPU is. */
static void test_rests_while_all_are_away(void **state)
{
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	struct played played;
	play(&played, 1, PLACEMENT_BASE);
	for (uint32_t v = 2; v < 4; v++) {
		assert_true(placer_left(played.placer, v, 0, carry));
		placer_slept(played.placer, v, true);
	}
	played.self = 2; /* it looks at none as if it were here */
	pass(&played, 4 * MS);
	assert_int_equal(played.said, 3 * 16 + 0);
	pass(&played, 200 * MS);
	assert_true(rests(&played));
	played.self = 1;
	placer_slept(played.placer, 2, false);
	placer_arrived(played.placer, 2, 0, played.now_ns, NULL);
	pass(&played, 1 * MS);
	assert_int_equal(played.said, 3 * 16 + 2);
	placer_destroy(played.placer);
}

static void test_who_is_idle_gathers(void **state)
{
	struct played played;
	play(&played, 1, PLACEMENT_BASE);
	for (uint32_t v = 0; v < VCPUS; v++)
		atomic_store(&played.sleeps[v], v == 3);
	placer_pin(played.placer, 2, true);
	/* Not while the other one works here. */
	pass(&played, 1000 * MS);
	assert_int_equal(played.went_count, 0);
	atomic_store(&played.sleeps[2], true);
	pass(&played, 200 * MS);
	assert_true(played.went_count > 0);
	assert_int_equal(played.went, 3 * 16 + 0);
	placer_destroy(played.placer);
	/* And where none is awake, so that the thread looks seldom. */
	play(&played, 1, PLACEMENT_BASE);
	for (uint32_t v = 0; v < VCPUS; v++)
		atomic_store(&played.sleeps[v], true);
	placer_pin(played.placer, 3, true);
	pass(&played, 1000 * MS);
	assert_true(played.went_count > 0);
	assert_int_equal(played.went, 2 * 16 + 0);
	placer_destroy(played.placer);
}

static void wait_until(atomic_uint *word, unsigned int value, const char *what)
{
	uint64_t end_ns = real_now_ns() + 20000000000;
	while (atomic_load(word) != value)
		if (real_now_ns() > end_ns)
			fail_msg("%s: %u, not %u", what, atomic_load(word), value);
		else
			usleep(1000);
}

static void wait_for_more(atomic_uint *word, unsigned int value, const char *what)
{
	uint64_t end_ns = real_now_ns() + 20000000000;
	while (atomic_load(word) <= value)
		if (real_now_ns() > end_ns)
			fail_msg("%s: still %u", what, value);
		else
			usleep(1000);
}

static void wait_for_rest(struct played *played)
{
	uint64_t end_ns = real_now_ns() + 20000000000;
	for (; !rests(played); usleep(1000))
		assert_true(real_now_ns() < end_ns);
}

/* It has its turns, rests, is woken by each kind of news, and ends wherever it is. */
static void test_the_thread(void **state)
{
	struct played played;
	play(&played, 0, PLACEMENT_PAGES);
	assert_int_equal(placer_start(played.placer), 0);
	placer_destroy(played.placer); /* at its beginning, and where nothing moves */
	play(&played, 0, PLACEMENT_PAGES);
	played.real = true;
	assert_int_equal(placer_start(played.placer), 0);
	placer_set_policy(played.placer, PLACEMENT_BASE);
	wait_until(&played.said, 3 * 16 + 2, "its load is said");
	for (uint32_t v = 0; v < VCPUS; v++)
		atomic_store(&played.sleeps[v], true);
	for (uint32_t v = 0; v < 2; v++)
		placer_slept(played.placer, v, true);
	wait_until(&played.said, 3 * 16 + 0, "none is awake");
	wait_for_rest(&played);
	unsigned int looks = atomic_load(&played.looks);
	placer_arrived(played.placer, 2, 1, real_now_ns(), NULL);
	wait_for_more(&played.looks, looks, "a look after a move");
	wait_for_rest(&played);
	looks = atomic_load(&played.looks);
	for (uint32_t v = 0; v < VCPUS; v++)
		placer_slept(played.placer, v, false);
	wait_for_more(&played.looks, looks, "a look at a crowd");
	for (uint32_t v = 0; v < VCPUS; v++)
		placer_slept(played.placer, v, true);
	wait_for_rest(&played);
	looks = atomic_load(&played.looks);
	assert_int_equal(placer_set_shadow(played.placer, PLACEMENT_VCPUS), 0);
	wait_for_more(&played.looks, looks, "a look for a shadow");
	wait_for_rest(&played);
	placer_destroy(played.placer);
}

static void test_a_move(void **state)
{
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	struct placement_record record[4];
	struct played here, there;
	play(&here, 0, PLACEMENT_BASE);
	play(&there, 1, PLACEMENT_BASE);
	here.now_ns += 2 * MS;
	stall(&here, 1, 1);
	assert_int_equal(here.went, 1 * 16 + 1);
	assert_true(placer_records(here.placer, false, record, 4) >= 1);
	assert_true(record[0].move && record[0].vcpu == 1 && record[0].target == 1);
	assert_true(placer_left(here.placer, 1, 1, carry));
	assert_int_equal(placement_carry_check(carry), 0);
	assert_false(placer_left(here.placer, 1, 1, carry)); /* it is not here any more */
	unsigned int went = here.went_count;
	stall(&here, 1, 1);
	assert_int_equal(here.went_count, went);
	there.now_ns = here.now_ns;
	placer_arrived(there.placer, 1, 0, there.now_ns - 200000, carry);
	there.now_ns += 2 * MS;
	stall(&there, 1, 0);
	assert_true(there.went_count > 0);
	/* Refused: it is here again, and may stall. */
	placer_refused(here.placer, 1, 1);
	assert_true(placer_left(here.placer, 1, 1, carry));
	carry[3] = 7;
	assert_true(placement_carry_check(carry) < 0);
	placer_destroy(here.placer);
	placer_destroy(there.placer);
}

/* What was chosen is told, with what came of it: the latest of each vCPU, so that one that chooses all the
 * time leaves the others theirs. */
static void test_choices(void **state)
{
	struct placement_record record[64];
	struct played played;
	uint32_t count, of_vcpu[VCPUS] = { 0 };
	play(&played, 0, PLACEMENT_BASE);
	assert_int_equal(placer_choices(played.placer, false, record, 64), 0);
	played.now_ns += 2 * MS;
	placer_pin(played.placer, 0, true); /* it stays, and its thresholds are told all the same */
	placer_pin(played.placer, 1, true);
	stall(&played, 1, 1);
	for (int i = 0; i < 20; i++) {
		played.now_ns += 20 * MS;
		stall(&played, 0, 1);
	}
	count = placer_choices(played.placer, false, record, 64);
	for (uint32_t i = 0; i < count; i++) {
		assert_false(record[i].move);
		assert_int_equal(record[i].target, 1);
		assert_true(i == 0 || record[i].at_ns <= record[i - 1].at_ns);
		of_vcpu[record[i].vcpu]++;
	}
	assert_int_equal(of_vcpu[0], PLACER_CHOICES);
	assert_in_range(of_vcpu[1], 1, PLACER_CHOICES);
	assert_true(record[1].lost_ns > 0);
	assert_int_equal(placer_choices(played.placer, false, record, 3), 3);
	assert_int_equal(placer_records(played.placer, false, record, 64), 0);
	assert_int_equal(placer_choices(played.placer, true, record, 64),
			 0); /* nobody rides along */
	placer_destroy(played.placer);
}

/* Stalls after which those choices lose most that are the learner's own, until it is off. */
static void make_it_lose(struct played *played)
{
	struct placement_record record;
	struct placer_stats stats = { 0 };
	for (uint32_t i = 0; i < 40000 && !stats.placement.learner_off; i++) {
		struct pager_stall stall = { .kind = COH_STALL_WRITE,
					     .from = 1,
					     .sharers = 2,
					     .gpn = 1000 + i % 100,
					     .took_ns = 30000 };
		played->now_ns += stall.took_ns;
		placer_stalled(played->placer, 0, &stall);
		if (placer_choices(played->placer, false, &record, 1) && record.lost_ns < 0 &&
		    (!record.drawn || record.arm != PLACEMENT_ARM_BASE)) {
			stall.took_ns = 400000;
			played->now_ns += stall.took_ns;
			placer_stalled(played->placer, 0, &stall);
		}
		pass(played, 700000);
		placer_stats(played->placer, &stats);
	}
	assert_true(stats.placement.learner_off);
}

/* One line when the learner is switched off, and one when it is let try again. */
static void test_learner_is_told_of(void **state)
{
	struct played played;
	play(&played, 0, PLACEMENT_LEARNED);
	placer_pin(played.placer, 0, true);
	pass(&played, 20 * MS);
	assert_string_equal(played.learner, "");
	make_it_lose(&played);
	pass(&played, 20 * MS);
	assert_string_equal(played.learner, "-");
	placer_set_policy(played.placer, PLACEMENT_LEARNED);
	assert_string_equal(played.learner, "-+");
	placer_set_policy(played.placer, PLACEMENT_LEARNED);
	pass(&played, 20 * MS);
	assert_string_equal(played.learner, "-+");
	make_it_lose(&played);
	/* Said even if there was no turn between the two. */
	placer_set_policy(played.placer, PLACEMENT_BASE);
	assert_string_equal(played.learner, "-+-+");
	placer_destroy(played.placer);
}

/* How long a vCPU has slept between stalls is told with them: what it left behind is no less for it. */
static void test_sleep_is_told(void **state)
{
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	struct played played;
	play(&played, 0, PLACEMENT_BASE);
	placer_pin(played.placer, 2, true);
	placer_arrived(played.placer, 2, 1, played.now_ns - 200000, NULL);
	placer_slept(played.placer, 2, false);
	for (uint32_t i = 0; i < 20; i++) {
		struct pager_stall stall = {
			.kind = COH_STALL_WRITE, .from = 1, .gpn = i, .took_ns = 500000
		};
		placer_slept(played.placer, 2, true);
		played.now_ns += 500000;
		placer_slept(played.placer, 2, false);
		played.now_ns += stall.took_ns;
		placer_stalled(played.placer, 2, &stall);
	}
	assert_true(placer_left(played.placer, 2, 1, carry));
	assert_true((carry[12] | (uint32_t)carry[13] << 8) >= 5000);
	placer_destroy(played.placer);
}

/* One that rides along: it hears the same, its wishes are counted, and nobody goes. */
static void test_a_shadow(void **state)
{
	struct placement_record record[64];
	struct placer_stats stats;
	struct played played;
	play(&played, 0, PLACEMENT_PAGES);
	played.now_ns += 2 * MS;
	assert_int_equal(placer_shadow(played.placer), PLACEMENT_POLICIES);
	assert_int_equal(placer_set_shadow(played.placer, PLACEMENT_BASE), 0);
	assert_int_equal(placer_shadow(played.placer), PLACEMENT_BASE);
	played.now_ns += 2 * MS; /* its vCPUs have only just come */
	stall(&played, 1, 1);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.shadow, PLACEMENT_BASE);
	assert_int_equal(stats.shadow_wishes, 1); /* however often it says so */
	/* Its credit fades meanwhile: it may stay again, and then wants to go once more. */
	played.now_ns += 30 * MS;
	stall(&played, 1, 1);
	assert_int_equal(played.went_count, 0);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.shadow_wishes, 2);
	/* It says so every 20 ms at most, and not at each of 200 stalls, which took 70. */
	assert_in_range(placer_records(played.placer, true, record, 64), 2, 4);
	assert_int_equal(stats.shadow_agreed, 0);
	assert_true(stats.shadow_placement.why_count[PLACEMENT_WHY_PAID] > 0);
	assert_true(record[0].vcpu == 1 && record[0].target == 1);
	assert_int_equal(placer_records(played.placer, false, record, 4), 0);
	/* The policy wants the same. */
	placer_set_policy(played.placer, PLACEMENT_BASE);
	stall(&played, 0, 1);
	assert_true(played.went_count > 0);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.shadow_wishes, 3);
	assert_int_equal(stats.shadow_agreed, 1);
	/* Where vCPUs are and which are pinned is known to it, and to the next one. */
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	assert_true(placer_left(played.placer, 0, 1, carry));
	placer_pin(played.placer, 1, true);
	assert_int_equal(placer_set_shadow(played.placer, PLACEMENT_VCPUS), 0);
	placer_set_policy(played.placer, PLACEMENT_PAGES);
	played.now_ns += 2 * MS;
	stall(&played, 0, 1);
	stall(&played, 1, 1);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.shadow_wishes, 0);
	uint64_t heard = stats.placement.stall_count;
	assert_int_equal(placer_set_shadow(played.placer, PLACEMENT_POLICIES), 0);
	stall(&played, 1, 1);
	placer_stats(played.placer, &stats);
	assert_int_equal(stats.shadow, PLACEMENT_POLICIES);
	assert_int_equal(stats.placement.stall_count, heard); /* it costs nothing */
	placer_destroy(played.placer);
}

static struct placer_trace *take_trace(struct played *played)
{
	struct placer_trace *trace;
	assert_int_equal(placer_trace(played->placer, &trace), 0);
	return trace;
}

static void test_a_trace(void **state)
{
	struct placer_trace *trace;
	struct played played;
	play(&played, 0, PLACEMENT_PAGES);
	stall(&played, 1, 1);
	trace = take_trace(&played);
	assert_true(trace->begun && trace->count == 0);
	free(trace);
	stall(&played, 1, 1);
	stall(&played, 2, 1); /* not here */
	placer_arrived(played.placer, 2, 1, played.now_ns - 5000000, NULL);
	trace = take_trace(&played);
	assert_false(trace->begun);
	assert_int_equal(trace->count, STALLS + 2);
	assert_int_equal(trace->lost, 0);
	assert_in_range(trace->move_ns, 300000, 2000000); /* it has seen one */
	struct placement_trace_event *event = &trace->event[0];
	assert_true(event->what == PLACEMENT_TRACE_LOAD && event->node == 0 && event->cores == 3);
	event = &trace->event[8];
	assert_true(event->what == PLACEMENT_TRACE_STALL && event->vcpu == 1 && event->node == 1 &&
		    event->gpn == 1007 && event->sharers == 2);
	assert_int_equal(event->took_ns, STALL_NS);
	assert_int_equal(event->program, 78);
	event = &trace->event[STALLS + 1];
	assert_true(event->what == PLACEMENT_TRACE_MOVE && event->vcpu == 2 && event->node == 0);
	assert_true(event->took_ns == 5000000 && event->at_ns >= event[-1].at_ns);
	free(trace);
	for (uint32_t i = 0; i < PLACER_TRACE_EVENTS / STALLS + 1; i++)
		stall(&played, 1, 1);
	trace = take_trace(&played);
	assert_int_equal(trace->count, PLACER_TRACE_EVENTS);
	assert_int_equal(trace->lost,
			 (PLACER_TRACE_EVENTS / STALLS + 1) * STALLS - PLACER_TRACE_EVENTS);
	free(trace);
	/* While somebody asks now and then it is kept; and then nobody does. */
	pass(&played, PLACER_TRACE_NS - 10 * MS);
	trace = take_trace(&played);
	assert_false(trace->begun);
	free(trace);
	pass(&played, PLACER_TRACE_NS + 10 * MS);
	trace = take_trace(&played);
	assert_true(trace->begun);
	free(trace);
	placer_destroy(played.placer);
}

/* How many of a kind there are; *ret_last is the last one. */
static uint32_t count_of(const struct placer_trace *trace, enum placement_trace_what what,
			 const struct placement_trace_event **ret_last)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < trace->count; i++)
		if (trace->event[i].what == what) {
			*ret_last = &trace->event[i];
			count++;
		}
	return count;
}

/* What is decided and why, what comes of it, loads and pins: all of it is in the trace. */
static void test_decisions_are_traced(void **state)
{
	const struct placement_trace_event *event = NULL, *outcome = NULL;
	struct placer_trace *trace;
	struct played played;
	play(&played, 0, PLACEMENT_BASE);
	placer_pin(played.placer, 3, true);
	stall(&played, 0, 1); /* of what was decided before nothing is told */
	free(take_trace(&played));
	pass(&played, 20 * MS);
	/* One that stalls a little: a threshold is chosen, and no more. */
	placer_stalled(played.placer, 1,
		       &(struct pager_stall){
			       .kind = COH_STALL_READ, .from = 1, .gpn = 5, .took_ns = STALL_NS });
	uint64_t chosen_ns = played.now_ns;
	placer_pin(played.placer, 1, true);
	trace = take_trace(&played);
	assert_int_equal(count_of(trace, PLACEMENT_TRACE_PIN, &event), 2);
	assert_true(event->vcpu == 1 && event->pinned);
	assert_int_equal(count_of(trace, PLACEMENT_TRACE_LOAD, &event),
			 2); /* 0 were awake at first */
	assert_true(event->node == 0 && event->cores == 3 && event->awake == 2);
	assert_int_equal(count_of(trace, PLACEMENT_TRACE_DECISION, &event), 1);
	assert_true(event->vcpu == 1 && event->at_ns == chosen_ns && !event->record->move);
	assert_true(event->record->here == 0 && event->record->target == 1);
	assert_int_equal(event->record->feature[PLACEMENT_ALWAYS], PLACEMENT_FEATURE_ONE);
	assert_int_equal(event->record->how, PLACEMENT_HOW_BASE);
	free(trace);
	/* What comes of it, when its time is over. */
	played.waited_ns[1] += 3000000;
	pass(&played, PLACEMENT_HORIZON_NS + 5 * MS);
	placer_pin(played.placer, 1, false);
	trace = take_trace(&played);
	assert_int_equal(count_of(trace, PLACEMENT_TRACE_OUTCOME, &outcome), 1);
	assert_true(outcome->vcpu == 1 && outcome->at_ns - outcome->took_ns == chosen_ns);
	assert_int_equal(outcome->lost_ns, 3000000);
	assert_int_equal(count_of(trace, PLACEMENT_TRACE_PIN, &event), 1);
	assert_false(event->pinned);
	free(trace);
	/* It should go. */
	stall(&played, 1, 1);
	assert_int_equal(played.went, 1 * 16 + 1);
	trace = take_trace(&played);
	assert_true(count_of(trace, PLACEMENT_TRACE_DECISION, &event) >= 2);
	assert_true(event->record->move && event->record->target == 1 &&
		    event->record->why == PLACEMENT_WHY_PAID);
	free(trace);
	placer_destroy(played.placer);
}

/* More decisions than are kept between two questions: they are counted as lost, and nothing else is. */
static void test_many_decisions_are_traced(void **state)
{
	const struct placement_trace_event *event = NULL;
	struct placer_trace *trace;
	struct played played;
	play(&played, 0, PLACEMENT_VCPUS);
	free(take_trace(&played));
	played.now_ns += 2 * MS;
	for (uint32_t i = 0; i < 10; i++)
		stall(&played, 1, 1);
	trace = take_trace(&played);
	assert_int_equal(trace->decision_count, PLACER_TRACE_DECISIONS);
	assert_int_equal(count_of(trace, PLACEMENT_TRACE_DECISION, &event), PLACER_TRACE_DECISIONS);
	assert_int_equal(count_of(trace, PLACEMENT_TRACE_STALL, &event), 10 * STALLS);
	assert_int_equal(trace->lost, played.went_count - PLACER_TRACE_DECISIONS);
	free(trace);
	placer_destroy(played.placer);
}

/* A pod whose vCPUs do not move. */
static void test_none(void **state)
{
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	struct placement_record record;
	struct placer_stats stats;
	assert_int_equal(placer_start(NULL), 0);
	placer_set_policy(NULL, PLACEMENT_BASE);
	assert_int_equal(placer_policy(NULL), PLACEMENT_PAGES);
	placer_pin(NULL, 0, true);
	assert_false(placer_pinned(NULL, 0) || placer_left(NULL, 0, 1, carry));
	placer_stalled(NULL, 0, &(struct pager_stall){ .from = 1 });
	placer_load(NULL, 0, &(struct placement_load){ 1, 1 });
	placer_outcomes(NULL, 0, &(struct placement_outcome){ 0 }, 1);
	placer_arrived(NULL, 0, 1, 0, NULL);
	placer_placed(NULL, 0, 1);
	placer_refused(NULL, 0, 1);
	placer_stats(NULL, &stats);
	assert_int_equal(stats.policy, PLACEMENT_PAGES);
	assert_int_equal(placer_set_shadow(NULL, PLACEMENT_BASE), 0);
	assert_int_equal(placer_trace(NULL, NULL), -ENOENT);
	assert_int_equal(placer_records(NULL, false, &record, 1), 0);
	assert_int_equal(placer_choices(NULL, false, &record, 1), 0);
	placer_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stalls_lead_there),
		cmocka_unit_test(test_stalls_lead_nowhere),
		cmocka_unit_test(test_a_stall_does_not_wait),
		cmocka_unit_test(test_loads),
		cmocka_unit_test(test_loads_are_said_seldom),
		cmocka_unit_test(test_outcomes_are_told),
		cmocka_unit_test(test_outcomes_are_learned),
		cmocka_unit_test(test_rests_while_nothing_moves),
		cmocka_unit_test(test_rests_while_all_sleep),
		cmocka_unit_test(test_rest_ends_in_a_crowd),
		cmocka_unit_test(test_rests_while_all_are_away),
		cmocka_unit_test(test_who_is_idle_gathers),
		cmocka_unit_test(test_the_thread),
		cmocka_unit_test(test_a_move),
		cmocka_unit_test(test_choices),
		cmocka_unit_test(test_learner_is_told_of),
		cmocka_unit_test(test_sleep_is_told),
		cmocka_unit_test(test_a_shadow),
		cmocka_unit_test(test_a_trace),
		cmocka_unit_test(test_decisions_are_traced),
		cmocka_unit_test(test_many_decisions_are_traced),
		cmocka_unit_test(test_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
