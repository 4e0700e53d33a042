/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two pages kept here at once (node/page_pair.h): a sum whose halves are in two pages, which the
 * threads of all nodes change by plain instructions, while they keep both; and nobody waits for
 * ever.
 */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "node/page_pair.h"
#include "tests/memory/pod.h"

#define MIB    (1ull << 20)
#define TURNS  300u
#define FIRST  (4 * MIB - 8) /* across two chunks: two shards */
#define SECOND (4 * MIB)

static const struct pod_options three = {
	.node_count = 3, .shard_count = 2, .memory_bytes = 16 * MIB, .capacity_bytes = 16 * MIB
};

struct worker {
	struct pod *pod;
	uint16_t node;
	struct page_pair pair;
	uint64_t again;
};

static void keep_both(struct worker *worker, const struct engine_pages *pages)
{
	static const uint64_t gpa[] = { FIRST, SECOND };
	int error;

	for (;; worker->again++) {
		for (int i = 0; i < 2; i++)
			atomic_fetch_or(
				(_Atomic uint64_t *)pod_at(worker->pod, worker->node, gpa[i]), 0);
		error = pages->keep(pages->arg, gpa, 2);
		if (error == 0)
			return;
		assert_int_equal(error, -EAGAIN);
	}
}

static void *count_up(void *arg)
{
	struct worker *worker = arg;
	struct engine_pages pages = page_pair_pages(&worker->pair);
	volatile uint64_t *first = pod_at(worker->pod, worker->node, FIRST);
	volatile uint64_t *second = pod_at(worker->pod, worker->node, SECOND);

	for (uint32_t i = 0; i < TURNS; i++) {
		uint64_t a, b;

		keep_both(worker, &pages);
		a = *first;
		b = *second;
		if (i % 16 == 0)
			usleep(100);
		*first = a + 1;
		*second = b + 3;
		pages.release(pages.arg);
		assert_int_equal(b, 3 * a);
	}
	return NULL;
}

static void updates_of_two_pages_are_one(void **state)
{
	struct worker worker[3];
	pthread_t thread[3];
	struct pod pod;

	pod_create(&pod, &three);
	for (uint16_t i = 0; i < 3; i++) {
		worker[i] = (struct worker){ .pod = &pod, .node = i };
		assert_int_equal(page_pair_open(&worker[i].pair, pod.node[i].pager), 0);
		assert_int_equal(pthread_create(&thread[i], NULL, count_up, &worker[i]), 0);
	}
	for (uint16_t i = 0; i < 3; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(*(volatile uint64_t *)pod_at(&pod, 0, FIRST), 3 * TURNS);
	assert_int_equal(*(volatile uint64_t *)pod_at(&pod, 0, SECOND), 9 * TURNS);
	for (uint16_t i = 0; i < 3; i++)
		page_pair_close(&worker[i].pair);
	pod_destroy(&pod);
}

static void *write_one(void *arg)
{
	*(volatile uint64_t *)arg = 1;
	return NULL;
}

/* Of two pages only one is here: nothing is kept, and others get it at once. */
static void one_of_two_is_not_kept(void **state)
{
	static const uint64_t gpa[] = { FIRST, SECOND };
	struct page_pair pair;
	struct engine_pages pages;
	pthread_t thread;
	struct pod pod;

	pod_create(&pod, &three);
	assert_int_equal(page_pair_open(&pair, pod.node[0].pager), 0);
	pages = page_pair_pages(&pair);
	*(volatile uint64_t *)pod_at(&pod, 0, FIRST) = 5;
	*(volatile uint64_t *)pod_at(&pod, 1, SECOND) = 5;
	assert_int_equal(pages.keep(pages.arg, gpa, 2), -EAGAIN);
	assert_int_equal(pages.keep(pages.arg, &gpa[1], 1), -EAGAIN);
	assert_int_equal(pthread_create(&thread, NULL, write_one, pod_at(&pod, 2, FIRST)), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(pages.keep(pages.arg, gpa, 1), -EAGAIN);
	/* A copy for reading is not enough. */
	assert_int_equal(*(volatile uint64_t *)pod_at(&pod, 0, FIRST), 1);
	assert_int_equal(pages.keep(pages.arg, gpa, 1), -EAGAIN);
	pager_stop(pod.node[0].pager);
	assert_int_equal(pages.keep(pages.arg, gpa, 1), -ESHUTDOWN);
	page_pair_close(&pair);
	pod_destroy(&pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(updates_of_two_pages_are_one),
		cmocka_unit_test(one_of_two_is_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
