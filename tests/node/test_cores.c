/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which CPUs a node's vCPUs run on (node/cores.h).
 */
#include "tests/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "node/cores.h"
#include "node/pod_config.h"

static cpu_set_t set_of(const char *cpus)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	for (int cpu = 0; cpus[cpu]; cpu++)
		if (cpus[cpu] != '-')
			CPU_SET(cpu, &set);
	return set;
}

static void check(const char *allowed, uint32_t cores, uint16_t node, const char *chosen)
{
	cpu_set_t all = set_of(allowed), want = set_of(chosen), got;
	cores_choose(&all, cores, node, &got);
	assert_true(CPU_EQUAL(&want, &got));
}

static void test_as_many_as_asked_for_of_those_allowed(void **state)
{
	check("xxxx", 1, 0, "x");
	check("xxxx", 3, 0, "xxx");
	check("-x-x-xx", 2, 0, "-x-x");
	check("-x-x-xx", 4, 0, "-x-x-xx");
	check("-x-x-xx", 5, 0, "-x-x-xx");
	check("-x-x-xx", CORES_MAX, 7, "-x-x-xx");
}

static void test_nodes_of_one_host_take_others(void **state)
{
	check("xxxx", 1, 1, "-x");
	check("xxxx", 1, 3, "---x");
	check("xxxx", 1, 4, "x");
	check("xxxx", 2, 1, "--xx");
	check("xxxx", 3, 1, "xx-x");
	check("-x-x-xx", 2, 1, "-----xx");
	check("xx", 1, NODES_MAX - 1, NODES_MAX % 2 ? "x" : "-x");
}

struct busy {
	pthread_t thread;
	uint32_t cores;
	uint16_t node;
	int error;
	uint64_t cpu_ns;
	cpu_set_t cpus;
	atomic_bool *ends;
	pthread_barrier_t *begin; /* so that neither has run long before the other is there */
};

static uint64_t ns_of(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *busy_main(void *arg)
{
	struct busy *busy = arg;
	busy->error = cores_bind(busy->cores, busy->node);
	sched_getaffinity(0, sizeof(busy->cpus), &busy->cpus);
	pthread_barrier_wait(busy->begin);
	while (!atomic_load(busy->ends))
		;
	busy->cpu_ns = ns_of(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

static uint64_t ran_ns(const struct busy *busy)
{
	clockid_t clock;
	return pthread_getcpuclockid(busy->thread, &clock) ? 0 : ns_of(clock);
}

/* Two threads that are always busy, until both have run for a while. Returns the time that passed.
 */
static uint64_t run_two(uint32_t cores, struct busy busy[2])
{
	atomic_bool ends = false;
	pthread_barrier_t both;
	uint64_t begin = ns_of(CLOCK_MONOTONIC);
	pthread_barrier_init(&both, NULL, 2);
	for (int i = 0; i < 2; i++) {
		busy[i] = (struct busy){ .cores = cores, .node = 1, .ends = &ends, .begin = &both };
		assert_int_equal(pthread_create(&busy[i].thread, NULL, busy_main, &busy[i]), 0);
	}
	for (int i = 0; i < 200 && ran_ns(&busy[0]) + ran_ns(&busy[1]) < 300000000; i++)
		usleep(50000);
	atomic_store(&ends, true);
	for (int i = 0; i < 2; i++) {
		pthread_join(busy[i].thread, NULL);
		assert_int_equal(busy[i].error, 0);
	}
	pthread_barrier_destroy(&both);
	return ns_of(CLOCK_MONOTONIC) - begin;
}

static void test_two_share_one(void **state)
{
	struct busy busy[2];
	uint64_t passed = run_two(1, busy);
	assert_int_equal(CPU_COUNT(&busy[0].cpus), 1);
	assert_true(CPU_EQUAL(&busy[0].cpus, &busy[1].cpus));
	assert_true(busy[0].cpu_ns + busy[1].cpu_ns <= passed + passed / 20);
	/* Others may want the CPU, too; of what these two get each has its part. */
	assert_true(busy[0].cpu_ns * 3 > busy[1].cpu_ns && busy[1].cpu_ns * 3 > busy[0].cpu_ns);
}

static void test_no_limit(void **state)
{
	struct busy busy[2];
	run_two(CORES_OF_HOST, busy);
	assert_int_equal(CPU_COUNT(&busy[0].cpus), cores_of_host());
	run_two(CORES_MAX, busy);
	assert_int_equal(CPU_COUNT(&busy[0].cpus), cores_of_host());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_many_as_asked_for_of_those_allowed),
		cmocka_unit_test(test_nodes_of_one_host_take_others),
		cmocka_unit_test(test_two_share_one),
		cmocka_unit_test(test_no_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
