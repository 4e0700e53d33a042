/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows, in a pod inside one process: what is here is pinned at once, what is not comes by itself,
 * what is pinned stays, many pages at once cannot stand in each other's way, and nothing that is
 * written is lost however fast pages are taken.
 */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pager/shard.h"
#include "pager/window.h"
#include "tests/memory/pod.h"
#include "tests/rng.h"

#define MIB	  (1ull << 20)
#define SPANS_MAX 64u

static const struct pod_options two = { .node_count = 2,
					.shard_count = 2,
					.memory_bytes = 16 * MIB,
					.capacity_bytes = 16 * MIB,
					.window_count = 4 };

static struct dma_span page_span(uint64_t gpa, bool write)
{
	return (struct dma_span){ .gpa = gpa, .length = PAGE_BYTES, .write = write };
}

/* As the io thread does: tries, and again when told. The number of tries. */
static uint32_t pin_soon(struct pod_node *node, uint32_t index, const struct dma_span *span,
			 uint32_t count, void **ret_hva)
{
	struct dma *dma = pager_window(node->pager, index);

	for (uint32_t tries = 1;; tries++) {
		int error = dma_pin(dma, span, count, ret_hva);

		if (error == 0)
			return tries;
		assert_int_equal(error, -EAGAIN);
		while (pager_window_ready(node->pager) != index)
			usleep(20);
	}
}

/* Written here; and the shard's thread, which woke this one first, has opened the gate, too. */
static void write_here(struct pod *pod, uint64_t gpa, uint64_t value)
{
	*(volatile uint64_t *)pod_at(pod, 0, gpa) = value;
	while (gate_access(&pod->node[0].pager->windows.gates, gpa >> PAGE_SHIFT) < COH_WRITE)
		usleep(20);
}

static void what_is_here_is_pinned_at_once(void **state)
{
	struct pod pod;
	struct dma_span span[2] = { page_span(5 * MIB, true), page_span(9 * MIB, true) };
	struct dma *dma;
	void *hva[2];

	pod_create(&pod, &two);
	write_here(&pod, 5 * MIB, 1);
	write_here(&pod, 9 * MIB, 2);
	dma = pager_window(pod.node[0].pager, 0);
	assert_int_equal(dma_pin(dma, span, 2, hva), 0);
	assert_ptr_equal(hva[0], pod_at(&pod, 0, 5 * MIB));
	assert_int_equal(*(uint64_t *)hva[1], 2);
	*(uint64_t *)hva[1] = 3;
	dma_unpin(dma, span, 2);
	assert_int_equal(*(volatile uint64_t *)pod_at(&pod, 1, 9 * MIB), 3);
	/* It is shared now: there to be read, and to be written only when asked for. */
	span[1].write = false;
	assert_int_equal(dma_pin(dma, span, 2, hva), 0);
	dma_unpin(dma, span, 2);
	span[1].write = true;
	assert_int_equal(dma_pin(dma, span, 2, hva), -EAGAIN);
	assert_int_equal(atomic_load(&pod.node[1].ready), 0);
	assert_null(pager_window(pod.node[0].pager, 4));
	pod_destroy(&pod);
}

/* Pages of both shards, of another node, of nobody, in one go; not aligned. */
static void what_is_missing_comes(void **state)
{
	struct pod pod;
	struct dma_span span[3] = { { 3 * MIB - 100, 3 * PAGE_BYTES, true },
				    { 11 * MIB + 8, 8, false },
				    { 8 * MIB - PAGE_BYTES, 2 * PAGE_BYTES, true } };
	void *hva[3];

	pod_create(&pod, &two);
	for (uint64_t gpa = 0; gpa < 16 * MIB; gpa += PAGE_BYTES)
		if (gpa / PAGE_BYTES % 3)
			*(volatile uint64_t *)pod_at(&pod, 1, gpa + 8) = gpa;
	pin_soon(&pod.node[0], 1, span, 3, hva);
	assert_int_equal(*(uint64_t *)hva[1], 11 * MIB / PAGE_BYTES % 3 ? 11 * MIB : 0);
	memset(hva[0], 0x5a, span[0].length);
	memset(hva[2], 0xa5, span[2].length);
	dma_unpin(pager_window(pod.node[0].pager, 1), span, 3);
	for (uint32_t i = 0; i < span[0].length; i++)
		assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 1, span[0].gpa + i), 0x5a);
	for (uint32_t i = 0; i < span[2].length; i++)
		assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 1, span[2].gpa + i), 0xa5);
	pod_destroy(&pod);
}

static void what_is_no_memory_or_too_much(void **state)
{
	struct pod pod;
	struct dma_span span[SPANS_MAX];
	void *hva[SPANS_MAX];
	struct dma *dma;

	pod_create(&pod, &two);
	dma = pager_window(pod.node[0].pager, 0);
	span[0] = (struct dma_span){ 16 * MIB - 8, 16, false };
	assert_int_equal(dma_pin(dma, span, 1, hva), -EFAULT);
	span[0] = (struct dma_span){ UINT64_MAX - 8, 16, false };
	assert_int_equal(dma_pin(dma, span, 1, hva), -EFAULT);
	span[0] = (struct dma_span){ 4096, 0, false };
	assert_int_equal(dma_pin(dma, span, 1, hva), -EFAULT);
	/* Two good ones before it are not kept. */
	write_here(&pod, 0, 1);
	span[0] = span[1] = page_span(0, true);
	span[2] = page_span(16 * MIB, true);
	assert_int_equal(dma_pin(dma, span, 3, hva), -EFAULT);
	assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 1, 0), 1);
	/* An eighth of the capacity at most, but one page always. */
	span[0] = (struct dma_span){ 0, 2 * MIB, false };
	pin_soon(&pod.node[0], 0, span, 1, hva);
	span[1] = (struct dma_span){ 0, PAGE_BYTES + 1, false };
	assert_int_equal(dma_pin(dma, &span[1], 1, hva), -ENOBUFS);
	span[1].length = PAGE_BYTES;
	assert_int_equal(dma_pin(dma, &span[1], 1, hva), 0);
	/* Nor is there more room when that has gone beyond it. */
	span[2] = (struct dma_span){ 0, 2 * PAGE_BYTES, false };
	assert_int_equal(dma_pin(dma, &span[2], 1, hva), -ENOBUFS);
	dma_unpin(dma, &span[1], 1);
	dma_unpin(dma, span, 1);
	span[1].length = PAGE_BYTES + 1;
	assert_int_equal(dma_pin(dma, &span[1], 1, hva), 0);
	dma_unpin(dma, &span[1], 1);
	pod_destroy(&pod);
}

struct toucher {
	struct pod *pod;
	uint64_t gpa;
	bool write;
	atomic_bool done;
};

static void *touch(void *arg)
{
	struct toucher *toucher = arg;
	volatile uint64_t *at = pod_at(toucher->pod, 1, toucher->gpa);

	if (toucher->write)
		*at = 7;
	else
		(void)*at;
	atomic_store(&toucher->done, true);
	return NULL;
}

/* Who wants a pinned page waits; who pins it again meanwhile waits behind him. */
static void what_is_pinned_stays(void **state)
{
	struct pod pod;
	struct toucher reader = { .pod = &pod, .gpa = 5 * MIB };
	struct toucher writer = { .pod = &pod, .gpa = 5 * MIB, .write = true };
	struct dma_span span = page_span(5 * MIB, true), read = page_span(5 * MIB, false);
	struct dma *dma, *other;
	pthread_t thread[2];
	void *hva;

	pod_create(&pod, &two);
	write_here(&pod, 5 * MIB, 1);
	dma = pager_window(pod.node[0].pager, 0);
	other = pager_window(pod.node[0].pager, 1);
	assert_int_equal(dma_pin(dma, &span, 1, &hva), 0);
	assert_int_equal(pthread_create(&thread[0], NULL, touch, &reader), 0);
	while (!gate_wanted(&pod.node[0].pager->windows.gates, 5 * MIB / PAGE_BYTES))
		usleep(100);
	usleep(20000);
	assert_false(atomic_load(&reader.done));
	*(uint64_t *)hva = 2;
	assert_int_equal(dma_pin(other, &read, 1, &hva), -EAGAIN);
	dma_unpin(dma, &span, 1);
	pthread_join(thread[0], NULL);
	/* Another node's reader does not mind one who reads here; a writer does. */
	pin_soon(&pod.node[0], 1, &read, 1, &hva);
	assert_int_equal(*(uint64_t *)hva, 2);
	assert_int_equal(pthread_create(&thread[1], NULL, touch, &writer), 0);
	while (!gate_wanted(&pod.node[0].pager->windows.gates, 5 * MIB / PAGE_BYTES))
		usleep(100);
	usleep(20000);
	assert_int_equal(*(uint64_t *)hva, 2);
	assert_false(atomic_load(&writer.done));
	dma_unpin(other, &read, 1);
	pthread_join(thread[1], NULL);
	pin_soon(&pod.node[0], 1, &read, 1, &hva);
	assert_int_equal(*(uint64_t *)hva, 7);
	pod_destroy(&pod);
}

/* More that wait than there are askers. */
static void windows_take_turns(void **state)
{
	struct pod_options options = two;
	struct pod pod;
	uint32_t count = 3 * ASKERS_MAX;
	bool done[3 * ASKERS_MAX] = { false };

	options.window_count = count;
	pod_create(&pod, &options);
	for (uint32_t i = 0; i < count; i++)
		*(volatile uint64_t *)pod_at(&pod, 1, i * MIB / 2) = i;
	for (uint32_t i = 0; i < count; i++) {
		struct dma_span span = page_span(i * MIB / 2, true);
		void *hva;

		assert_int_equal(dma_pin(pager_window(pod.node[0].pager, i), &span, 1, &hva),
				 -EAGAIN);
	}
	for (uint32_t left = count; left > 0;) {
		uint32_t i = pager_window_ready(pod.node[0].pager);
		struct dma_span span = page_span(i * MIB / 2, true);
		void *hva;

		if (i == UINT32_MAX) {
			usleep(100);
			continue;
		}
		/* Every third is told and does not come: its asker is for others. */
		if (i % 3 == 0 && !done[i]) {
			done[i] = true;
			left--;
			continue;
		}
		if (dma_pin(pager_window(pod.node[0].pager, i), &span, 1, &hva) < 0)
			continue;
		assert_int_equal(*(uint64_t *)hva, i);
		dma_unpin(pager_window(pod.node[0].pager, i), &span, 1);
		assert_false(done[i]);
		done[i] = true;
		left--;
	}
	pod_destroy(&pod);
}

static void what_is_written_voids_code(void **state)
{
	struct pod_options options = two;
	struct pod pod;
	struct dma_span span[2] = { page_span(5 * MIB, true), page_span(6 * MIB, false) };
	uint32_t before;
	void *hva[2];

	options.watch_lost = true;
	pod_create(&pod, &options);
	pin_soon(&pod.node[0], 0, span, 2, hva);
	before = pod.node[0].lost.count;
	dma_unpin(pager_window(pod.node[0].pager, 0), span, 2);
	assert_int_equal(pod.node[0].lost.count, before + 1);
	assert_int_equal(pod.node[0].lost.gpa, 5 * MIB);
	pod_destroy(&pod);
}

/* --- under load --- */

#define STORM_PAGES 24u
#define STORM_STEP  (16 * MIB / STORM_PAGES / PAGE_BYTES * PAGE_BYTES)
#define STORM_MS    1500u

struct storm {
	struct pod *pod;
	uint16_t node;
	uint32_t seed;
	atomic_bool *stop;
	uint64_t added[STORM_PAGES];
	uint64_t rounds;
};

/* A vCPU: adds to two counters of a page, one of which only vCPUs write. */
static void *storm_cpu(void *arg)
{
	struct storm *storm = arg;
	struct rng rng = { .state = storm->seed };

	while (!atomic_load(storm->stop)) {
		uint32_t page = rng_below(&rng, STORM_PAGES);
		_Atomic uint64_t *at = pod_at(storm->pod, storm->node, page * STORM_STEP);

		atomic_fetch_add(at, 1);
		storm->added[page]++;
		storm->rounds++;
	}
	return NULL;
}

/*
 * A device: several pages at once, reads all, takes its time, writes all, as a disk does that writes
 * whole pages. The word is its own; that nobody has the page meanwhile is the pin's promise, so a
 * page that went and came in between would lose what it writes.
 */
static void *storm_device(void *arg)
{
	struct storm *storm = arg;
	struct pod_node *node = &storm->pod->node[storm->node];
	struct rng rng = { .state = storm->seed };

	while (!atomic_load(storm->stop)) {
		uint32_t index = rng_below(&rng, 4);
		uint32_t count = 1 + rng_below(&rng, 8);
		uint32_t first = rng_below(&rng, STORM_PAGES);
		struct dma_span span[8];
		uint64_t old[8];
		void *hva[8];
		bool pinned = false;

		for (uint32_t i = 0; i < count; i++)
			span[i] = (struct dma_span){ (first + i) % STORM_PAGES * STORM_STEP + 8, 8,
						     true };
		while (!pinned && !atomic_load(storm->stop)) {
			int error = dma_pin(pager_window(node->pager, index), span, count, hva);

			assert_true(error == 0 || error == -EAGAIN);
			pinned = error == 0;
			if (error != 0)
				for (uint32_t i = 0;
				     i < 50 && pager_window_ready(node->pager) != index; i++)
					usleep(20);
		}
		if (!pinned)
			break;
		for (uint32_t i = 0; i < count; i++)
			old[i] = *(volatile uint64_t *)hva[i];
		if (rng_below(&rng, 16) == 0)
			usleep(50);
		for (uint32_t i = 0; i < count; i++) {
			*(volatile uint64_t *)hva[i] = old[i] + 1;
			storm->added[(first + i) % STORM_PAGES]++;
		}
		dma_unpin(pager_window(node->pager, index), span, count);
		storm->rounds++;
	}
	return NULL;
}

/* One device on each node, both adding to the same words; and vCPUs that take the pages. */
static void nothing_is_lost(void **state)
{
	struct pod_options options = two;
	struct pod pod;
	struct storm storm[4];
	pthread_t thread[4];
	atomic_bool stop = false;

	options.hold_ns = 20000;
	pod_create(&pod, &options);
	for (uint16_t i = 0; i < 4; i++) {
		storm[i] =
			(struct storm){ .pod = &pod, .node = i % 2, .seed = 77 + i, .stop = &stop };
		assert_int_equal(pthread_create(&thread[i], NULL, i < 2 ? storm_device : storm_cpu,
						&storm[i]),
				 0);
	}
	usleep(STORM_MS * 1000);
	atomic_store(&stop, true);
	for (uint32_t i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	for (uint32_t page = 0; page < STORM_PAGES; page++) {
		volatile uint64_t *at = pod_at(&pod, 0, page * STORM_STEP);

		assert_int_equal(at[0], storm[2].added[page] + storm[3].added[page]);
		assert_int_equal(at[1], storm[0].added[page] + storm[1].added[page]);
	}
	for (uint32_t i = 0; i < 4; i++)
		assert_true(storm[i].rounds > 10);
	print_message("devices: %lu %lu rounds, vCPUs: %lu %lu\n", (unsigned long)storm[0].rounds,
		      (unsigned long)storm[1].rounds, (unsigned long)storm[2].rounds,
		      (unsigned long)storm[3].rounds);
	assert_int_equal(pod.node[0].failure.count + pod.node[1].failure.count, 0);
	pod_destroy(&pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_here_is_pinned_at_once),
		cmocka_unit_test(what_is_missing_comes),
		cmocka_unit_test(what_is_no_memory_or_too_much),
		cmocka_unit_test(what_is_pinned_stays),
		cmocka_unit_test(windows_take_turns),
		cmocka_unit_test(what_is_written_voids_code),
		cmocka_unit_test(nothing_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
