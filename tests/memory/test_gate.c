/* SPDX-License-Identifier: Apache-2.0 */
/* Gates: who comes in when, what shuts them, and that nobody is in when they are shut. */
#include "tests/test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "memory/gate.h"

#define PAGES 16u

static void opened_to_what_is_allowed(void **state)
{
	struct gates gates = { 0 };

	assert_int_equal(gates_create(&gates, PAGES), 0);
	assert_false(gate_enter(&gates, 3, COH_READ));
	gate_allow(&gates, 3, COH_READ);
	assert_false(gate_enter(&gates, 3, COH_READ));
	gate_open(&gates, 3, COH_READ);
	assert_true(gate_enter(&gates, 3, COH_READ));
	assert_false(gate_enter(&gates, 3, COH_WRITE));
	gate_allow(&gates, 3, COH_WRITE);
	gate_open(&gates, 3, COH_WRITE);
	assert_true(gate_enter(&gates, 3, COH_WRITE));
	assert_false(gate_enter(&gates, 2, COH_READ));
	assert_false(gate_enter(&gates, 4, COH_READ));
	gates_destroy(&gates);
	gates_destroy(&gates);
}

/* Decided away before it came: it comes, and stays shut; or open only as far as was left of it. */
static void closed_before_it_is_open(void **state)
{
	struct gates gates = { 0 };

	assert_int_equal(gates_create(&gates, PAGES), 0);
	gate_allow(&gates, 1, COH_WRITE);
	assert_true(gate_close(&gates, 1, COH_NONE, true));
	gate_open(&gates, 1, COH_WRITE);
	assert_int_equal(gate_access(&gates, 1), COH_NONE);
	gate_allow(&gates, 1, COH_WRITE);
	assert_true(gate_close(&gates, 1, COH_READ, true));
	gate_open(&gates, 1, COH_WRITE);
	assert_int_equal(gate_access(&gates, 1), COH_READ);
	/* A later, weaker opening changes nothing. */
	gate_allow(&gates, 1, COH_WRITE);
	gate_open(&gates, 1, COH_WRITE);
	gate_open(&gates, 1, COH_READ);
	assert_int_equal(gate_access(&gates, 1), COH_WRITE);
	gates_destroy(&gates);
}

static void users_keep_it_open(void **state)
{
	struct gates gates = { 0 };

	assert_int_equal(gates_create(&gates, PAGES), 0);
	gate_allow(&gates, 0, COH_WRITE);
	gate_open(&gates, 0, COH_WRITE);
	assert_true(gate_enter(&gates, 0, COH_READ));
	assert_true(gate_enter(&gates, 0, COH_WRITE));
	/* Without telling, nothing changes. */
	assert_false(gate_close(&gates, 0, COH_READ, false));
	assert_false(gate_close(&gates, 0, COH_NONE, false));
	assert_false(gate_wanted(&gates, 0));
	assert_true(gate_enter(&gates, 0, COH_READ));
	assert_false(gate_leave(&gates, 0, COH_READ));

	assert_false(gate_close(&gates, 0, COH_READ, true));
	assert_true(gate_wanted(&gates, 0));
	assert_false(gate_enter(&gates, 0, COH_READ));
	assert_true(gate_leave(&gates, 0, COH_WRITE));
	/* Readers may stay when it is for reading. */
	assert_true(gate_close(&gates, 0, COH_READ, true));
	assert_false(gate_wanted(&gates, 0));
	assert_true(gate_enter(&gates, 0, COH_READ));
	assert_false(gate_close(&gates, 0, COH_NONE, true));
	assert_false(gate_leave(&gates, 0, COH_READ));
	assert_true(gate_leave(&gates, 0, COH_READ));
	assert_true(gate_close(&gates, 0, COH_NONE, true));
	assert_int_equal(gate_access(&gates, 0), COH_NONE);
	gates_destroy(&gates);
}

static void users_are_counted(void **state)
{
	struct gates gates = { 0 };

	assert_int_equal(gates_create(&gates, PAGES), 0);
	gate_allow(&gates, 5, COH_WRITE);
	gate_open(&gates, 5, COH_WRITE);
	for (uint32_t i = 0; i < GATE_USERS_MAX; i++) {
		assert_true(gate_enter(&gates, 5, COH_READ));
		assert_true(gate_enter(&gates, 5, COH_WRITE));
	}
	assert_false(gate_enter(&gates, 5, COH_READ));
	assert_false(gate_enter(&gates, 5, COH_WRITE));
	assert_int_equal(gate_access(&gates, 5), COH_WRITE);
	assert_false(gate_wanted(&gates, 5));
	for (uint32_t i = 0; i < GATE_USERS_MAX; i++) {
		assert_false(gate_close(&gates, 5, COH_NONE, false));
		assert_false(gate_leave(&gates, 5, COH_READ));
		assert_false(gate_leave(&gates, 5, COH_WRITE));
	}
	assert_true(gate_close(&gates, 5, COH_NONE, false));
	gates_destroy(&gates);
}

struct race {
	struct gates gates;
	atomic_bool stop;
	uint64_t value; /* not atomic: the gate orders who touches it */
	uint64_t entered;
};

static void *use(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		if (!gate_enter(&race->gates, 7, COH_WRITE))
			continue;
		race->value++;
		race->entered++;
		(void)gate_leave(&race->gates, 7, COH_WRITE);
	}
	return NULL;
}

/* A user and one who shuts, as fast as they can: each changes the value only while it may. */
static void nobody_is_in_when_it_is_shut(void **state)
{
	struct race race = { 0 };
	pthread_t thread;
	uint64_t changed = 0;

	assert_int_equal(gates_create(&race.gates, PAGES), 0);
	assert_int_equal(pthread_create(&thread, NULL, use, &race), 0);
	for (uint32_t i = 0; i < 100000; i++) {
		gate_allow(&race.gates, 7, COH_WRITE);
		gate_open(&race.gates, 7, COH_WRITE);
		while (!gate_close(&race.gates, 7, i % 2 ? COH_NONE : COH_READ, i % 3))
			;
		race.value++;
		changed++;
	}
	atomic_store(&race.stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(race.value, changed + race.entered);
	gates_destroy(&race.gates);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opened_to_what_is_allowed),
		cmocka_unit_test(closed_before_it_is_open),
		cmocka_unit_test(users_keep_it_open),
		cmocka_unit_test(users_are_counted),
		cmocka_unit_test(nobody_is_in_when_it_is_shut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
