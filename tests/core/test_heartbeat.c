// SPDX-License-Identifier: Apache-2.0
/* Heartbeats: the silent are found in time, the living are left alone, whatever the ticks' timing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/heartbeat.h"

#define MS    1000000ull
#define START (1000 * MS)
#define TICK  (100 * MS)

static struct heartbeat make(uint16_t self, uint16_t count)
{
	struct heartbeat_config config = { .self = self, .node_count = count };
	struct heartbeat heartbeat;

	assert_int_equal(heartbeat_init(&heartbeat, &config, START), 0);
	return heartbeat;
}

static void test_config(void **state)
{
	struct heartbeat_config config = { .self = 2, .node_count = 2 };
	struct heartbeat heartbeat;

	assert_int_equal(heartbeat_init(&heartbeat, &config, 0), -EINVAL);
	config.node_count = NODES_MAX + 1;
	assert_int_equal(heartbeat_init(&heartbeat, &config, 0), -EINVAL);
	config.node_count = 0;
	config.self = 0;
	assert_int_equal(heartbeat_init(&heartbeat, &config, 0), -EINVAL);
}

static void test_sends_at_interval(void **state)
{
	struct heartbeat heartbeat = make(0, 3);
	uint16_t dead[NODES_MAX];
	unsigned sent = 0;

	for (uint64_t now = START; now < START + 10000 * MS; now = heartbeat_deadline(&heartbeat)) {
		bool send;

		heartbeat_heard(&heartbeat, 1, now);
		heartbeat_heard(&heartbeat, 2, now);
		assert_int_equal(heartbeat_tick(&heartbeat, now, &send, dead), 0);
		sent += send;
	}
	assert_int_equal(sent, 20);
}

/* A node that falls silent at any time is named once, in less than 4 s, and nobody else is. */
static void test_silence(void **state)
{
	for (uint64_t silent_from = START; silent_from < START + 3000 * MS;
	     silent_from += 70 * MS) {
		struct heartbeat heartbeat = make(1, 4);
		uint16_t dead[NODES_MAX];
		uint64_t found = 0;

		for (uint64_t now = START; now < START + 20000 * MS; now += TICK) {
			bool send;
			uint32_t count;

			heartbeat_heard(&heartbeat, 0, now);
			heartbeat_heard(&heartbeat, 2, now);
			if (now <= silent_from)
				heartbeat_heard(&heartbeat, 3, now);
			count = heartbeat_tick(&heartbeat, now, &send, dead);
			if (count == 0)
				continue;
			assert_int_equal(found, 0);
			assert_int_equal(count, 1);
			assert_int_equal(dead[0], 3);
			found = now;
		}
		assert_true(found - silent_from >= 2500 * MS);
		assert_true(found - silent_from < 4000 * MS);
	}
}

/* Nobody is judged by the short timeout before the first word: bring-up ends at different times. */
static void test_first_word(void **state)
{
	struct heartbeat heartbeat = make(0, 2);
	uint16_t dead[NODES_MAX];
	uint64_t now = START;
	bool send;

	while (heartbeat_tick(&heartbeat, now, &send, dead) == 0)
		now += TICK;
	assert_int_equal((now - START) / 1000000, HEARTBEAT_FIRST_NS / 1000000);
	assert_int_equal(dead[0], 1);
}

/* A judge that did not run (loaded host) hears what waited in its sockets before it judges. */
static void test_starved_judge(void **state)
{
	struct heartbeat heartbeat = make(0, 3);
	uint16_t dead[NODES_MAX];
	uint64_t now = START, back;
	uint32_t dead_count;
	bool send;

	for (unsigned i = 0; i < 50; i++, now += TICK) {
		heartbeat_heard(&heartbeat, 1, now);
		heartbeat_heard(&heartbeat, 2, now);
		assert_int_equal(heartbeat_tick(&heartbeat, now, &send, dead), 0);
	}
	now += 6000 * MS; /* nothing ran */
	assert_int_equal(heartbeat_tick(&heartbeat, now, &send, dead), 0);
	assert_true(send);
	back = now;
	/* Node 2 has its whole time, and stays silent. */
	for (dead_count = 0; !dead_count; now += TICK) {
		heartbeat_heard(&heartbeat, 1, now);
		dead_count = heartbeat_tick(&heartbeat, now, &send, dead);
	}
	assert_int_equal(dead_count, 1);
	assert_int_equal(dead[0], 2);
	assert_true(now - back >= 2000 * MS && now - back <= 3500 * MS);
	assert_true(heartbeat_silence_ns(&heartbeat, 2, now) >= 8000 * MS);
}

/*
 * A host on which everybody runs a few ms in some seconds: each reads, ticks and sends when it gets
 * to run, and the others' words come a turn later. Nobody is dead; and who says nothing more is found
 * dead when it has had its time in which the judge ran.
 */
static void test_starved_all(void **state)
{
	for (uint64_t turn = 200 * MS; turn <= 5000 * MS; turn += 150 * MS) {
		struct heartbeat heartbeat = make(0, 3);
		uint16_t dead[NODES_MAX];
		uint64_t now = START;
		bool send;

		/* Every third turn only one of them has been let run. */
		for (unsigned i = 0; i < 100; i++, now += turn) {
			if (i % 3 < 2)
				heartbeat_heard(&heartbeat, 1, now);
			if (i % 3 > 0)
				heartbeat_heard(&heartbeat, 2, now);
			assert_int_equal(heartbeat_tick(&heartbeat, now, &send, dead), 0);
			assert_int_equal(heartbeat_tick(&heartbeat, now + 2 * MS, &send, dead), 0);
		}
		for (unsigned i = 0; i < 100; i++, now += TICK) {
			heartbeat_heard(&heartbeat, 1, now);
			if (heartbeat_tick(&heartbeat, now, &send, dead))
				break;
		}
		assert_int_equal(dead[0], 2);
		assert_true(heartbeat_silence_ns(&heartbeat, 2, now) < 2 * turn + 4000 * MS);
	}
}

static void test_forgotten(void **state)
{
	struct heartbeat heartbeat = make(0, 2);
	uint16_t dead[NODES_MAX];
	bool send;

	heartbeat_forget(&heartbeat, 1);
	heartbeat_forget(&heartbeat, 77); /* no such node: nothing */
	heartbeat_heard(&heartbeat, 77, START);
	for (uint64_t now = START; now < START + 100000 * MS; now += TICK)
		assert_int_equal(heartbeat_tick(&heartbeat, now, &send, dead), 0);
}

static void test_deadline(void **state)
{
	struct heartbeat heartbeat = make(0, 2);
	uint16_t dead[NODES_MAX];
	bool send;

	assert_int_equal(heartbeat_deadline(&heartbeat), START);
	heartbeat_tick(&heartbeat, START, &send, dead);
	assert_int_equal(heartbeat_deadline(&heartbeat), START + HEARTBEAT_INTERVAL_NS);
	heartbeat_heard(&heartbeat, 1, START);
	/* Ticked at its deadlines alone, it finds the dead at the very end of its patience. */
	for (;;) {
		uint64_t now = heartbeat_deadline(&heartbeat);

		if (heartbeat_tick(&heartbeat, now, &send, dead) > 0) {
			assert_int_equal(now, START + HEARTBEAT_TIMEOUT_NS);
			break;
		}
	}
	assert_int_equal(heartbeat_silence_ns(&heartbeat, 1, START + 5), 5);
	assert_int_equal(heartbeat_silence_ns(&heartbeat, 1, START - 5), 0);
}

/* Members 0, 1 and 5 of eight numbers; then 3 comes, and 1 goes. */
static void test_members(void **state)
{
	struct heartbeat_config config = { .self = 1, .node_count = 8, .first_ns = 1000 * MS };
	struct heartbeat heartbeat;
	uint16_t dead[NODES_MAX];
	bool send;

	member_set_add(&config.members, 0);
	member_set_add(&config.members, 1);
	member_set_add(&config.members, 5);
	assert_int_equal(heartbeat_init(&heartbeat, &config, START), 0);
	heartbeat_forget(&heartbeat, 0);
	heartbeat_watch(&heartbeat, 3, START + 400 * MS);
	heartbeat_watch(&heartbeat, 1, START); /* itself: never */
	heartbeat_watch(&heartbeat, 8, START); /* no number */
	for (uint64_t now = START; now < START + 1000 * MS; now += TICK)
		assert_int_equal(heartbeat_tick(&heartbeat, now, &send, dead), 0);
	heartbeat_watch(&heartbeat, 5, START + 900 * MS); /* is watched: as it was */
	assert_int_equal(heartbeat_tick(&heartbeat, START + 1100 * MS, &send, dead), 1);
	assert_int_equal(dead[0], 5);
	assert_int_equal(heartbeat_tick(&heartbeat, START + 1200 * MS, &send, dead), 0);
	for (uint64_t now = START + 1300 * MS; now < START + 1700 * MS; now += TICK)
		if (heartbeat_tick(&heartbeat, now, &send, dead))
			assert_int_equal(dead[0], 3);
	assert_false(heartbeat.peer[3].watched);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),	      cmocka_unit_test(test_sends_at_interval),
		cmocka_unit_test(test_silence),	      cmocka_unit_test(test_first_word),
		cmocka_unit_test(test_starved_judge), cmocka_unit_test(test_starved_all),
		cmocka_unit_test(test_forgotten),     cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
