/* SPDX-License-Identifier: Apache-2.0 */
/* What a node's threads see of the pod's members, also while steps change it. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/members.h"
#include "node/pod_config.h"
#include "tests/test.h"

#define NODES	  70 /* more than a word's bits */
#define SELF	  1
#define GUEST	  66 /* who comes and goes */
#define READERS	  2
#define LIVES	  100
#define PROMISE_M 256u

static struct members *make(uint32_t nodes, uint16_t self)
{
	struct pod_config *config;
	struct members *members;
	char *text = malloc(nodes * 64u), why[256];
	int length = 0;

	for (uint32_t n = 0; n < nodes; n++)
		length += sprintf(text + length,
				  "[node n%u]\naddress=h%u:1\nmemory=%uM\nvcpus=1\ncores=%u\n", n,
				  n, PROMISE_M, n + 1);
	if (pod_config_parse(text, "members", &config, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_int_equal(members_create(config, self, &members), 0);
	free(config);
	free(text);
	return members;
}

static void say(struct members *members, const struct member_word *word)
{
	struct member_out out;

	assert_int_equal(member_list_hear(&members->list, 0, word, 0), 0);
	while (member_list_next(&members->list, 0, &out))
		if (out.type == MEMBER_APPLIED) {
			assert_int_equal(members_publish(members), 0);
			member_list_done(&members->list);
			assert_int_equal(members_publish(members), 0);
		}
}

/* A step, from its order to its end, as this node hears of it from the steward. */
static void step(struct members *members, struct member_word word)
{
	word.type = MEMBER_STEP;
	word.number = members->list.now.step + 1;
	word.by = NODE_NONE;
	say(members, &word);
	say(members, &(struct member_word){ .type = MEMBER_OVER, .number = word.number });
}

static void join(struct members *members, uint16_t node, unsigned int life)
{
	struct member_word word = { .kind = KIND_JOIN, .node = node };

	snprintf(word.about.name, sizeof(word.about.name), "guest%u", life);
	snprintf(word.about.address, sizeof(word.about.address), "guest%u:1", life);
	word.about.promise_bytes = life;
	step(members, word);
}

static void leave(struct members *members, uint16_t node)
{
	step(members, (struct member_word){ .kind = KIND_DRAIN, .node = node });
	step(members, (struct member_word){ .kind = KIND_GONE, .node = node });
	step(members, (struct member_word){ .kind = KIND_FREE, .node = node });
}

static void test_start(void **state)
{
	struct members *members = make(NODES, SELF);
	uint16_t expected = 0;

	members_for_each(members, n) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", n);
		assert_int_equal(n, expected++);
		assert_string_equal(members_name(members, n), name);
		assert_int_equal(members_find(members, name), n);
		assert_int_equal(members_state(members, n), MEMBER_ACTIVE);
		assert_int_equal(members_about(members, n)->promise_bytes,
				 (uint64_t)PROMISE_M << 20);
		assert_int_equal(members_about(members, n)->cores, n + 1);
		assert_int_equal(members_may_begin(members, n), n != SELF);
	}
	assert_int_equal(expected, NODES);
	assert_int_equal(members_count(members), NODES);
	members_for_each_other(members, n)
		assert_int_not_equal(n, SELF);
	for (enum member_seat seat = 0; seat < SEAT_COUNT; seat++) {
		assert_int_equal(members_seat(members, seat), FIRST_NODE);
		assert_false(members_seat_is_here(members, seat));
	}
	assert_true(members_may_have_others(members));
	members_destroy(members);
}

/* Numbers may come from anywhere. */
static void test_nobody(void **state)
{
	static const uint32_t numbers[] = { 1,	       63,	  64,	     NODES_MAX - 1,
					    NODES_MAX, NODE_NONE, UINT32_MAX };
	struct members *members = make(1, 0);

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		assert_string_equal(members_name(members, numbers[i]), "?");
		assert_int_equal(members_state(members, numbers[i]), MEMBER_FREE);
		assert_false(members_may_be_named(members, numbers[i]));
		assert_false(members_may_begin(members, numbers[i]));
	}
	members_for_each_other(members, n)
		fail_msg("%u", n);
	assert_int_equal(members_find(members, "?"), NODE_NONE);
	assert_int_equal(members_pick(members, 17), NODE_NONE);
	assert_false(members_may_have_others(members));
	members_destroy(members);
}

static bool is_among(const struct members *members, uint16_t node)
{
	members_for_each_other(members, n)
		if (n == node)
			return true;
	return false;
}

static void test_life(void **state)
{
	struct members *members = make(NODES, SELF);
	const char *before = members_name(members, GUEST);

	step(members, (struct member_word){ .kind = KIND_DRAIN, .node = GUEST });
	assert_int_equal(members_state(members, GUEST), MEMBER_DRAINING);
	assert_true(is_among(members, GUEST));
	assert_false(members_may_begin(members, GUEST));
	for (uint32_t i = 0; i < 2 * NODES; i++)
		assert_int_not_equal(members_pick(members, i), GUEST);

	step(members, (struct member_word){ .kind = KIND_GONE, .node = GUEST });
	assert_true(is_among(members, GUEST));
	assert_int_equal(members_find(members, "n66"), NODE_NONE);

	step(members, (struct member_word){ .kind = KIND_FREE, .node = GUEST });
	assert_false(is_among(members, GUEST));
	assert_false(members_may_be_named(members, GUEST));
	assert_int_equal(members_count(members), NODES - 1);

	join(members, GUEST, 5);
	assert_true(is_among(members, GUEST));
	assert_false(members_may_begin(members, GUEST));
	assert_int_equal(members_find(members, "guest5"), GUEST);
	assert_string_equal(members_name(members, GUEST), "guest5");
	assert_string_equal(before, "n66");

	step(members, (struct member_word){ .kind = KIND_ACTIVE, .node = GUEST });
	assert_true(members_may_begin(members, GUEST));
	members_destroy(members);
}

/* While it is being freed there may be words yet that name it. */
static void test_freed_last(void **state)
{
	struct members *members = make(NODES, SELF);
	struct member_word word = { .type = MEMBER_STEP, .kind = KIND_FREE, .node = GUEST };
	struct member_out out;

	step(members, (struct member_word){ .kind = KIND_DRAIN, .node = GUEST });
	step(members, (struct member_word){ .kind = KIND_GONE, .node = GUEST });
	word.number = members->list.now.step + 1;
	assert_int_equal(member_list_hear(&members->list, 0, &word, 0), 0);
	assert_true(member_list_next(&members->list, 0, &out) && out.type == MEMBER_APPLIED);
	assert_int_equal(members_publish(members), 0);
	assert_int_equal(members_state(members, GUEST), MEMBER_FREE);
	assert_true(members_may_be_named(members, GUEST));
	member_list_done(&members->list);
	assert_int_equal(members_publish(members), 0);
	assert_false(members_may_be_named(members, GUEST));
	members_destroy(members);
}

static void test_seats(void **state)
{
	struct members *members = make(3, SELF);

	step(members, (struct member_word){ .kind = KIND_SEAT, .seat = SEAT_CLOCK, .node = SELF });
	step(members, (struct member_word){ .kind = KIND_SEAT, .seat = SEAT_PC, .node = 2 });
	assert_int_equal(members_step(members), 2);
	assert_true(members_seat_is_here(members, SEAT_CLOCK));
	assert_false(members_seat_is_here(members, SEAT_PC));
	assert_int_equal(members_seat(members, SEAT_PC), 2);
	assert_int_equal(members_seat(members, SEAT_WORDS), FIRST_NODE);
	members_destroy(members);
}

static void test_pick(void **state)
{
	struct members *members = make(4, SELF);
	uint32_t picked[4] = { 0 };

	for (uint32_t i = 0; i < 300; i++)
		picked[members_pick(members, i)]++;
	assert_int_equal(picked[SELF], 0);
	for (int n = 0; n < 4; n++)
		assert_true(n == SELF || picked[n] == 100);
	members_destroy(members);
}

struct readers {
	struct members *members;
	atomic_bool over;
	atomic_uint turns, wrong;
};

static bool is_whole(const struct member_about *about)
{
	bool guest = about->name[0] == 'g';
	char address[MEMBER_ADDRESS_MAX];

	snprintf(address, sizeof(address), "%s%s:1", guest ? "g" : "h", about->name + 1);
	return strcmp(about->address, address) == 0 &&
	       about->promise_bytes == (guest ? strtoul(about->name + strlen("guest"), NULL, 10)
					      : (uint64_t)PROMISE_M << 20);
}

/* Whoever is met is met whole, and those who stay are always among them. */
static bool reads_well(const struct members *members)
{
	uint16_t seat = members_seat(members, SEAT_WORDS), next = 0;

	members_for_each(members, n) {
		const struct member_about *about = members_about(members, n);

		if (n != next && (n != next + 1 || next != GUEST))
			return false;
		if (!is_whole(about) || (n != GUEST && about->name[0] != 'n'))
			return false;
		next = (uint16_t)(n + 1);
	}
	return next == NODES && members_pick(members, next) != NODE_NONE &&
	       (seat == FIRST_NODE || seat == SELF);
}

static void *reader(void *arg)
{
	struct readers *readers = arg;

	while (!atomic_load(&readers->over)) {
		if (!reads_well(readers->members))
			atomic_fetch_add(&readers->wrong, 1);
		atomic_fetch_add(&readers->turns, 1);
	}
	return NULL;
}

static void test_readers(void **state)
{
	struct readers readers = { .members = make(NODES, SELF) };
	pthread_t thread[READERS];
	unsigned int life = 0;

	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, reader, &readers), 0);
	/* However slow they are, they read while it changes. */
	for (; life < LIVES || atomic_load(&readers.turns) < 2 * READERS; life++) {
		leave(readers.members, GUEST);
		join(readers.members, GUEST, life % 7);
		step(readers.members, (struct member_word){ .kind = KIND_ACTIVE, .node = GUEST });
		step(readers.members, (struct member_word){ .kind = KIND_SEAT,
							    .seat = SEAT_WORDS,
							    .node = life % 2 ? 0 : SELF });
	}
	atomic_store(&readers.over, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(readers.wrong, 0);
	members_destroy(readers.members);
}

/* ---- who holds the list ---------------------------------------------------------------------- */

static void test_quiet(void **state)
{
	struct members *members = make(3, SELF);
	uint32_t first, second, third;
	uint64_t quiet;

	quiet = members_quiet_begin(members);
	assert_true(members_is_quiet(members, quiet));
	first = members_hold(members);
	quiet = members_quiet_begin(members);
	assert_false(members_is_quiet(members, quiet));
	/* Who comes later is not waited for, however many they are. */
	second = members_hold(members);
	members_let_go(members, first);
	assert_true(members_is_quiet(members, quiet));
	/* One that begins while another is under way. */
	quiet = members_quiet_begin(members);
	third = members_hold(members);
	uint64_t later = members_quiet_begin(members);
	assert_false(members_is_quiet(members, quiet) || members_is_quiet(members, later));
	members_let_go(members, second);
	assert_true(members_is_quiet(members, quiet));
	assert_false(members_is_quiet(members, later));
	members_let_go(members, third);
	assert_true(members_is_quiet(members, later));
	members_destroy(members);
}

/* Threads use what the list's thread takes away when it is quiet. */
struct user {
	struct members *members;
	_Atomic(uint32_t *) *thing;
	atomic_bool *stop;
	_Atomic uint64_t uses;
	pthread_t thread;
};

static void *use(void *arg)
{
	struct user *user = arg;

	while (!atomic_load(user->stop)) {
		uint32_t held = members_hold(user->members);
		uint32_t *thing = atomic_load(user->thing);

		for (int i = 0; i < 8 && *(volatile uint32_t *)thing != 17; i++)
			fail_msg("it was taken away");
		atomic_fetch_add(&user->uses, 1);
		members_let_go(user->members, held);
	}
	return NULL;
}

#define TAKEN 20000
static void test_nothing_is_taken_from_who_holds_it(void **state)
{
	struct members *members = make(3, SELF);
	_Atomic(uint32_t *) thing;
	uint32_t things[2] = { 17, 0 };
	atomic_bool stop = false;
	struct user users[READERS];

	atomic_init(&thing, &things[0]);
	for (int i = 0; i < READERS; i++) {
		users[i] = (struct user){ .members = members, .thing = &thing, .stop = &stop };
		assert_int_equal(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
		while (!atomic_load(&users[i].uses))
			sched_yield();
	}
	for (int turn = 0; turn < TAKEN; turn++) {
		uint32_t *old = &things[turn % 2];
		uint64_t quiet;

		*(volatile uint32_t *)&things[(turn + 1) % 2] = 17;
		atomic_store(&thing, &things[(turn + 1) % 2]);
		quiet = members_quiet_begin(members);
		while (!members_is_quiet(members, quiet))
			sched_yield();
		*(volatile uint32_t *)old = 0;
	}
	atomic_store(&stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(users[i].thread, NULL);
	members_destroy(members);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_freed_last),
		cmocka_unit_test(test_seats),
		cmocka_unit_test(test_pick),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_quiet),
		cmocka_unit_test(test_nothing_is_taken_from_who_holds_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
