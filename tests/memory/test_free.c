/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that are freed, in a pod inside one process: no node keeps memory for them, they are zero or
 * what was written since, and nobody who uses them meanwhile is in the way.
 */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pager/free.h"
#include "pager/shard.h"
#include "pager/window.h"
#include "tests/memory/pod.h"
#include "tests/rng.h"

#define MIB	     (1ull << 20)
#define MEMORY_BYTES (16 * MIB)

static const struct pod_options two = { .node_count = 2,
					.shard_count = 2,
					.memory_bytes = MEMORY_BYTES,
					.capacity_bytes = MEMORY_BYTES,
					.window_count = 1,
					.hold_ns = 20000 };

static void free_soon(struct pod *pod, const struct dma_span *range, uint32_t count)
{
	struct pager *pager = pod->node[0].pager;

	assert_int_equal(pager_free(pager, range, count), 0);
	while (!pager_freed(pager))
		usleep(50);
	assert_false(pager_freed(pager));
}

static void free_one(struct pod *pod, uint64_t gpa, uint32_t bytes)
{
	struct dma_span range = { .gpa = gpa, .length = bytes };

	free_soon(pod, &range, 1);
}

/* Pages of the range that take memory, on all nodes. */
static uint64_t resident(struct pod *pod, uint64_t gpa, uint64_t bytes)
{
	static unsigned char in[MEMORY_BYTES / PAGE_BYTES];
	uint64_t count = 0;

	for (uint16_t n = 0; n < pod->node_count; n++) {
		assert_int_equal(mincore(pod_at(pod, n, gpa), bytes, in), 0);
		for (uint64_t i = 0; i < bytes / PAGE_BYTES; i++)
			count += in[i] & 1;
	}
	return count;
}

static volatile uint64_t *word(struct pod *pod, uint16_t node, uint64_t gpa)
{
	return pod_at(pod, node, gpa);
}

/* Until nobody holds what was touched last. */
static void let_holds_pass(void)
{
	usleep(50000);
}

static void memory_is_given_back(void **state)
{
	struct pod pod;
	struct pod_options options = two;

	options.watch_lost = true;
	pod_create(&pod, &options);
	for (uint64_t gpa = 0; gpa < 8 * MIB; gpa += PAGE_BYTES)
		*word(&pod, gpa / MIB % 2, gpa) = gpa + 1;
	for (uint64_t gpa = 0; gpa < MIB; gpa += PAGE_BYTES) /* shared */
		assert_int_equal(*word(&pod, 1, gpa), gpa + 1);
	let_holds_pass();
	assert_true(resident(&pod, 0, 8 * MIB) >= 8 * MIB / PAGE_BYTES);
	free_one(&pod, 0, 8 * MIB);
	assert_true(resident(&pod, 0, 8 * MIB) <= 16); /* what came last may be held */
	assert_true(pod.node[1].lost.pages > 1000);
	for (uint64_t gpa = 0; gpa < 7 * MIB; gpa += PAGE_BYTES)
		assert_int_equal(*word(&pod, gpa / PAGE_BYTES % 2, gpa), 0);
	*word(&pod, 0, MIB) = 5;
	assert_int_equal(*word(&pod, 1, MIB), 5);
	pod_destroy(&pod);
}

static void fill(struct pod *pod, uint64_t value)
{
	for (uint64_t gpa = 0; gpa < 8 * MIB; gpa += PAGE_BYTES)
		*word(pod, 0, gpa) = value;
	let_holds_pass();
}

static void expect_filled(struct pod *pod, uint64_t value)
{
	for (uint64_t gpa = 0; gpa < 8 * MIB; gpa += PAGE_BYTES)
		assert_int_equal(*word(pod, 1, gpa), value);
}

/* A shard's word to itself that comes when all is over, and frees that are not allowed, take nothing. */
static void nothing_is_freed_late(void **state)
{
	struct pager_command late = { .kind = PAGER_FREE_ON };
	struct pod pod;

	pod_create(&pod, &two);
	fill(&pod, 7);
	free_one(&pod, 0, 8 * MIB);
	fill(&pod, 8);
	for (uint32_t i = 0; i < pod.node[0].pager->shard_count; i++)
		assert_int_equal(pager_queue_post(&pod.node[0].pager->shard[i].queue, &late), 0);
	let_holds_pass();
	expect_filled(&pod, 8);
	fill(&pod, 9);
	pager_free_allow(pod.node[0].pager, false);
	free_one(&pod, 0, 8 * MIB);
	expect_filled(&pod, 9);
	pager_free_allow(pod.node[0].pager, true);
	free_one(&pod, 0, 8 * MIB);
	assert_int_equal(*word(&pod, 0, MIB), 0);
	pod_destroy(&pod);
}

/* Whole pages of memory count, whatever is asked for. */
static void odd_ranges(void **state)
{
	struct pod pod;
	struct dma_span range[PAGER_FREE_RANGES + 1] = {
		{ 100, 3 * PAGE_BYTES, true },			     /* two pages */
		{ MIB, 100, true },				     /* none */
		{ 2 * MIB - PAGE_BYTES, 2 * PAGE_BYTES, true },	     /* of two chunks */
		{ MEMORY_BYTES - PAGE_BYTES, 2 * PAGE_BYTES, true }, /* no memory */
		{ UINT64_MAX - 5, 10, true },
		{ 0, 0, true },
		{ PAGE_BYTES, PAGE_BYTES, true }, /* once more */
		{ 0, 3 * PAGE_BYTES + 5, true },
	};

	pod_create(&pod, &two);
	for (uint64_t gpa = 0; gpa < MEMORY_BYTES; gpa += PAGE_BYTES)
		*word(&pod, 0, gpa) = 7;
	let_holds_pass();
	free_soon(&pod, range, 7);
	assert_int_equal(*word(&pod, 1, 0), 7);
	assert_int_equal(*word(&pod, 1, PAGE_BYTES), 0);
	assert_int_equal(*word(&pod, 1, 2 * PAGE_BYTES), 0);
	assert_int_equal(*word(&pod, 1, 3 * PAGE_BYTES), 7);
	assert_int_equal(*word(&pod, 1, MIB), 7);
	assert_int_equal(*word(&pod, 1, 2 * MIB - PAGE_BYTES), 0);
	assert_int_equal(*word(&pod, 1, 2 * MIB), 0);
	assert_int_equal(*word(&pod, 1, MEMORY_BYTES - PAGE_BYTES), 7);
	assert_int_equal(pager_free(pod.node[0].pager, range, 0), -EINVAL);
	assert_int_equal(pager_free(pod.node[0].pager, range, PAGER_FREE_RANGES + 1), -EINVAL);
	assert_int_equal(pager_free(pod.node[0].pager, range, 7), 0);
	assert_int_equal(pager_free(pod.node[0].pager, range, 7), -EBUSY);
	pod_destroy(&pod);
}

/* A device has it pinned: it stays, and what was written is there. */
static void pinned_pages_stay(void **state)
{
	struct pod pod;
	struct dma_span span = { .gpa = 5 * PAGE_BYTES, .length = PAGE_BYTES, .write = true };
	struct dma *dma;
	void *hva;

	pod_create(&pod, &two);
	dma = pager_window(pod.node[0].pager, 0);
	while (dma_pin(dma, &span, 1, &hva) != 0)
		while (pager_window_ready(pod.node[0].pager) != 0)
			usleep(20);
	*(volatile uint64_t *)hva = 9;
	let_holds_pass();
	free_one(&pod, 0, MIB);
	assert_int_equal(*(volatile uint64_t *)hva, 9);
	dma_unpin(dma, &span, 1);
	assert_int_equal(*word(&pod, 1, 5 * PAGE_BYTES), 9);
	let_holds_pass();
	free_one(&pod, 0, MIB);
	assert_int_equal(*word(&pod, 1, 5 * PAGE_BYTES), 0);
	pod_destroy(&pod);
}

/* The io thread is told so of the only window within that time. */
static bool is_ready(struct pager *pager, uint32_t ms)
{
	for (uint32_t i = 0; i < ms; i++) {
		if (pager_window_ready(pager) == 0)
			return true;
		usleep(1000);
	}
	return false;
}

/*
 * The only node has no slot left, and a device waits for one. It gets a freed page's in the turn that
 * frees it, at whose end the shard's thread has nothing else to wake up for.
 */
static void a_device_gets_a_freed_slot(void **state)
{
	struct pod pod;
	struct pod_options options = { .node_count = 1,
				       .shard_count = 1,
				       .memory_bytes = MEMORY_BYTES,
				       .capacity_bytes = MIB,
				       .window_count = 1,
				       .hold_ns = 20000 };
	struct dma_span span = { .gpa = 8 * MIB, .length = PAGE_BYTES, .write = true };
	struct pager *pager;
	struct dma *dma;
	void *hva;

	pod_create(&pod, &options);
	pager = pod.node[0].pager;
	dma = pager_window(pager, 0);
	for (uint64_t gpa = 0; gpa < 2 * COH_FREE_PAGES * PAGE_BYTES; gpa += PAGE_BYTES)
		*word(&pod, 0, gpa) = 7;
	for (;; span.gpa += PAGE_BYTES) {
		assert_true(span.gpa < 9 * MIB);
		while (dma_pin(dma, &span, 1, &hva) != 0)
			if (!is_ready(pager, 200))
				goto full;
		dma_unpin(dma, &span, 1);
	}
full:
	free_one(&pod, 0, COH_FREE_PAGES * PAGE_BYTES);
	assert_true(is_ready(pager, 5000));
	assert_int_equal(dma_pin(dma, &span, 1, &hva), 0);
	dma_unpin(dma, &span, 1);
	pod_destroy(&pod);
}

#define STORM_BYTES (4 * MIB)
#define STORM_MS    1500

struct toucher {
	struct pod *pod;
	uint16_t node;
	atomic_bool *end;
	pthread_t thread;
};

/* Touches the second word of any page: a guest that does not keep its promise. */
static void *touch(void *arg)
{
	struct toucher *t = arg;
	struct rng rng = { .state = t->node + 1 };

	while (!atomic_load(t->end)) {
		uint64_t page = rng_next(&rng) % (STORM_BYTES / PAGE_BYTES);
		volatile uint64_t *at = word(t->pod, t->node, page * PAGE_BYTES + 8);

		if (rng_next(&rng) % 2)
			*at = page;
		else
			(void)*at;
	}
	return NULL;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* What is written after the end of a free is there, whoever touches the page beside it. */
static void storm(void **state)
{
	static uint64_t written[STORM_BYTES / PAGE_BYTES];
	struct pod pod;
	atomic_bool end = false;
	struct toucher toucher[2] = { { .node = 0 }, { .node = 1 } };
	struct rng rng = { .state = 99 };
	uint64_t until = now_ms() + STORM_MS, freed = 0, kept = 0;

	pod_create(&pod, &two);
	for (int i = 0; i < 2; i++) {
		toucher[i].pod = &pod;
		toucher[i].end = &end;
		assert_int_equal(pthread_create(&toucher[i].thread, NULL, touch, &toucher[i]), 0);
	}
	for (uint64_t round = 1; now_ms() < until; round++) {
		uint64_t first = rng_next(&rng) % (STORM_BYTES / PAGE_BYTES - 200);
		uint64_t count = 1 + rng_next(&rng) % 200;

		for (uint64_t i = 0; i < count; i++) {
			volatile uint64_t *at =
				word(&pod, rng_next(&rng) % 2, (first + i) * PAGE_BYTES);

			assert_int_equal(*at, written[first + i]);
			*at = written[first + i] = round << 16 | i;
		}
		free_one(&pod, first * PAGE_BYTES, (uint32_t)(count * PAGE_BYTES));
		for (uint64_t i = 0; i < count; i++) {
			uint64_t seen = *word(&pod, rng_next(&rng) % 2, (first + i) * PAGE_BYTES);

			assert_true(seen == 0 || seen == written[first + i]);
			freed += seen == 0;
			kept += seen != 0;
			written[first + i] = seen;
		}
	}
	atomic_store(&end, true);
	for (int i = 0; i < 2; i++)
		pthread_join(toucher[i].thread, NULL);
	print_message("%llu pages were freed, %llu stayed\n", (unsigned long long)freed,
		      (unsigned long long)kept);
	assert_true(freed > 0);
	pod_destroy(&pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_given_back),
		cmocka_unit_test(nothing_is_freed_late),
		cmocka_unit_test(odd_ranges),
		cmocka_unit_test(pinned_pages_stay),
		cmocka_unit_test(a_device_gets_a_freed_slot),
		cmocka_unit_test(storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
