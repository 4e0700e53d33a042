/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager's ports, by which devices get at guest memory: they reach all of it, what they have stays
 * with them, and whoever made something of a page hears that it goes.
 */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "pager/pager.h"
#include "tests/memory/pod.h"

#define MIB (1ull << 20)

static const struct pod_options two = {
	.node_count = 2, .shard_count = 2, .memory_bytes = 16 * MIB, .capacity_bytes = 16 * MIB
};

static void ports_reach_all_memory(void **state)
{
	static uint8_t data[5 * PAGE_BYTES], back[5 * PAGE_BYTES];
	struct memory_port *a, *b, *c;
	struct pod pod;

	pod_create(&pod, &two);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i / 3);
	assert_int_equal(pager_open_port(pod.node[0].pager, &a), 0);
	assert_int_equal(pager_open_port(pod.node[0].pager, &c), 0);
	assert_int_equal(pager_open_port(pod.node[0].pager, &b), -EMFILE);
	pager_close_port(pod.node[0].pager, c);
	assert_int_equal(pager_open_port(pod.node[1].pager, &b), 0);
	/* Across a stripe's end, so both shards. */
	assert_int_equal(memory_write(a, 2 * MIB - 7000, data, sizeof(data)), 0);
	assert_int_equal(memory_read(b, 2 * MIB - 7000, back, sizeof(back)), 0);
	assert_memory_equal(data, back, sizeof(data));
	memset(back, 0, 10000);
	assert_int_equal(memory_write(b, 2 * MIB - 7000, back, 10000), 0);
	assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 0, 2 * MIB), 0);
	assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 0, 2 * MIB + 3000), data[10000]);
	pod_destroy(&pod);
}

/* Calls of node 0's hook since the last look, each of one page; none came after the page was
 * elsewhere. */
static uint32_t lost_since(struct pod *pod, uint64_t gpa)
{
	struct pod_lost *lost = &pod->node[0].lost;
	uint32_t count;

	pthread_mutex_lock(&lost->lock);
	count = lost->count;
	assert_false(lost->late);
	assert_int_equal(lost->pages, count);
	if (count)
		assert_int_equal(lost->gpa, gpa);
	lost->count = 0;
	lost->pages = 0;
	pthread_mutex_unlock(&lost->lock);
	atomic_store(&lost->told, false);
	return count;
}

/* Whoever made something of a page's content hears that it is gone, before another can change it.
 */
static void a_lost_page_is_told_first(void **state)
{
	const uint64_t gpa[] = { 5 * PAGE_BYTES, 3 * MIB }; /* one of each shard */
	struct pod_options options = two;
	struct pod pod;

	options.watch_lost = true;
	pod_create(&pod, &options);
	for (int i = 0; i < 2; i++) {
		volatile uint64_t *a = pod_at(&pod, 0, gpa[i]), *b = pod_at(&pod, 1, gpa[i]);
		atomic_bool *told = &pod.node[0].lost.told;

		/* Shared for reading: what was made of it stays true. */
		*a = 1;
		assert_int_equal(*b, 1);
		assert_int_equal(lost_since(&pod, gpa[i]), 0);
		/* Its read-only copy is dropped. */
		*b = 2;
		atomic_store(told, true);
		assert_int_equal(lost_since(&pod, gpa[i]), 1);
		/* It owns the page, and that is taken. */
		*a = 3;
		assert_int_equal(lost_since(&pod, gpa[i]), 0);
		*b = 4;
		atomic_store(told, true);
		assert_int_equal(lost_since(&pod, gpa[i]), 1);
		assert_int_equal(*a, 4);
	}
	pod_destroy(&pod);
}

/* A page that makes room for others is lost, too. */
static void a_page_pushed_out_is_told(void **state)
{
	struct pod_options options = two;
	struct pager_stats stats;
	struct pod pod;

	options.shard_count = 1;
	options.memory_bytes = 2 * MIB;
	options.capacity_bytes = 3 * MIB / 2;
	options.watch_lost = true;
	pod_create(&pod, &options);
	for (uint64_t gpa = 0; gpa < 2 * MIB; gpa += PAGE_BYTES)
		*(volatile uint8_t *)pod_at(&pod, 0, gpa) = 1;
	for (uint16_t i = 0; i < 2; i++)
		pager_stop(pod.node[i].pager);
	pager_stats_get(pod.node[0].pager, &stats);
	assert_true(stats.evict_push_count >= 128);
	assert_int_equal(pod.node[0].lost.pages, stats.evict_push_count);
	pod_destroy(&pod);
}

static void *write_late(void *arg)
{
	*(volatile uint8_t *)arg = 2;
	return NULL;
}

/* What a port has, nobody takes; after its release they get it. */
static void a_pinned_page_stays(void **state)
{
	struct memory_port *port;
	struct pod pod;
	size_t length = 8;
	pthread_t thread;
	void *hva;

	pod_create(&pod, &two);
	assert_int_equal(pager_open_port(pod.node[0].pager, &port), 0);
	assert_int_equal(memory_acquire(port, 64, COH_WRITE, &hva, &length), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_late, pod_at(&pod, 1, 64)), 0);
	for (int i = 0; i < 50; i++) {
		*(volatile uint8_t *)hva = 1;
		usleep(1000);
		assert_int_equal(*(volatile uint8_t *)hva, 1);
	}
	memory_release(port);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(*(volatile uint8_t *)hva, 2);
	pod_destroy(&pod);
}

struct pinner {
	struct memory_port *port;
	int result;
};

static void *pin_held_page(void *arg)
{
	struct pinner *pinner = arg;
	size_t length = 1;
	void *hva;

	pinner->result = memory_acquire(pinner->port, 0, COH_WRITE, &hva, &length);
	return NULL;
}

static void stopping_ends_waiting_pins(void **state)
{
	struct memory_port *port;
	struct pinner pinner;
	struct pod pod;
	size_t length = 8;
	pthread_t thread;
	void *hva;

	pod_create(&pod, &two);
	assert_int_equal(pager_open_port(pod.node[0].pager, &port), 0);
	assert_int_equal(pager_open_port(pod.node[1].pager, &pinner.port), 0);
	assert_int_equal(memory_acquire(port, 0, COH_WRITE, &hva, &length), 0);
	assert_int_equal(pthread_create(&thread, NULL, pin_held_page, &pinner), 0);
	usleep(20000);
	pager_stop(pod.node[1].pager);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(pinner.result, -ESHUTDOWN);
	assert_int_equal(memory_acquire(pinner.port, 0, COH_READ, &hva, &length), -ESHUTDOWN);
	pod_destroy(&pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_reach_all_memory),
		cmocka_unit_test(a_lost_page_is_told_first),
		cmocka_unit_test(a_page_pushed_out_is_told),
		cmocka_unit_test(a_pinned_page_stays),
		cmocka_unit_test(stopping_ends_waiting_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
