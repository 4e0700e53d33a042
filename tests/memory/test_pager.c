/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager, in a pod inside one process: pages move between nodes as threads touch them, ports
 * work and end, memory stays within its capacity, a peer that dies or talks nonsense is named, and
 * the numbers add up.
 */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "node/deadline.h"
#include "pager/shard.h"
#include "tests/memory/pod.h"
#include "wire/page_frame.h"

#define MIB (1ull << 20)

static const struct pod_options two = {
	.node_count = 2, .shard_count = 2, .memory_bytes = 16 * MIB, .capacity_bytes = 16 * MIB
};

static void writes_are_seen_everywhere(void **state)
{
	struct pod pod;
	struct pager_stats stats;

	pod_create(&pod, &two);
	for (uint64_t gpa = 0; gpa < 16 * MIB; gpa += MIB) {
		volatile uint64_t *a = pod_at(&pod, 0, gpa), *b = pod_at(&pod, 1, gpa);

		assert_int_equal(*a, 0);
		*a = gpa + 1;
		assert_int_equal(*b, gpa + 1);
		*b = gpa + 2;
		assert_int_equal(*a, gpa + 2);
		*a = gpa + 3;
		assert_int_equal(*b, gpa + 3);
	}
	for (uint16_t i = 0; i < 2; i++)
		pager_stop(pod.node[i].pager);
	pager_stats_get(pod.node[0].pager, &stats);
	assert_true(stats.stall_count[COH_STALL_ZERO] >= 1);
	assert_true(stats.stall_count[COH_STALL_READ] >= 16);
	assert_true(stats.stall_count[COH_STALL_UPGRADE] >= 16);
	assert_true(stats.message_count > 0 && stats.bytes_out > 0 && stats.bytes_in > 0);
	assert_true(pager_stats_quantile_ns(&stats, COH_STALL_READ, 0.5) > 1000);
	pager_stats_get(pod.node[1].pager, &stats);
	assert_true(stats.stall_count[COH_STALL_READ] + stats.stall_count[COH_STALL_WRITE] >= 16);
	assert_int_equal(pod.node[0].failure.count + pod.node[1].failure.count, 0);
	pod_destroy(&pod);
}

/* As a vCPU's stall; waits until its end has been told. */
static void *stall_as_vcpu(void *arg)
{
	struct pod *pod = arg;
	volatile uint8_t *at = pod_at(pod, 1, 5 * PAGE_BYTES);

	assert_int_equal(pager_bind_actor(pod->node[1].pager, 2, (pid_t)syscall(SYS_gettid)), 0);
	(void)*at;
	*at = 1;
	*(volatile uint8_t *)pod_at(pod, 2, 5 * PAGE_BYTES) = 2;
	*at = 3;
	*(volatile uint8_t *)pod_at(pod, 1, 8 * MIB) = 4;
	assert_int_equal(pager_bind_actor(pod->node[1].pager, 2, 0), 0);
	(void)*(volatile uint8_t *)pod_at(pod, 1, 6 * PAGE_BYTES);
	return NULL;
}

static void expect_told(const struct pod_stalled *told, enum coh_stall_kind kind, uint16_t from)
{
	assert_int_equal(told->count[kind], 1);
	assert_int_equal(told->last[kind].actor, 2);
	assert_int_equal(told->last[kind].from, from);
	if (kind != COH_STALL_ZERO)
		assert_int_equal(told->last[kind].gpn, 5);
	assert_true(told->last[kind].took_ns > 0);
}

/* Where what ended a stall came from; and only vCPUs' stalls are told. */
static void a_stalls_end_is_told(void **state)
{
	struct pod_options options = two;
	struct pod pod;
	pthread_t thread;

	options.node_count = 3;
	options.shard_count = 1;
	pod_create(&pod, &options);
	*(volatile uint8_t *)pod_at(&pod, 0, 5 * PAGE_BYTES) = 9;
	*(volatile uint8_t *)pod_at(&pod, 0, 6 * PAGE_BYTES) = 9;
	assert_int_equal(pthread_create(&thread, NULL, stall_as_vcpu, &pod), 0);
	pthread_join(thread, NULL);
	for (uint16_t i = 0; i < 3; i++)
		pager_stop(pod.node[i].pager);
	expect_told(&pod.node[1].stalled, COH_STALL_READ, 0);
	expect_told(&pod.node[1].stalled, COH_STALL_UPGRADE, 0);
	expect_told(&pod.node[1].stalled, COH_STALL_WRITE, 2);
	expect_told(&pod.node[1].stalled, COH_STALL_ZERO, NODE_NONE);
	for (int kind = 0; kind < COH_STALL_KINDS; kind++)
		assert_int_equal(pod.node[0].stalled.count[kind] + pod.node[2].stalled.count[kind],
				 0);
	pod_destroy(&pod);
}

#define HINTED 8u

/* As vCPU 2 of node 1: wants pages, loses them to node 0, and wants them again; half are written. */
static void *want_again(void *arg)
{
	struct pod *pod = arg;

	assert_int_equal(pager_bind_actor(pod->node[1].pager, 2, (pid_t)syscall(SYS_gettid)), 0);
	for (int round = 0; round < 2; round++)
		for (uint64_t page = 0; page < HINTED; page++) {
			volatile uint8_t *here = pod_at(pod, 1, page * MIB);

			*(volatile uint8_t *)pod_at(pod, 0, page * MIB) = (uint8_t)(page + 1);
			if (page % 2)
				*here = (uint8_t)(page + 2);
			else
				(void)*here;
		}
	assert_int_equal(pager_bind_actor(pod->node[1].pager, 2, 0), 0);
	return NULL;
}

static uint64_t fetched_by_first(struct pod *pod, uint64_t count)
{
	struct pager_stats stats = { 0 };

	for (int ms = 0; ms < 5000 && (!ms || stats.fetch_count < count); ms++) {
		usleep(1000);
		pager_stats_get(pod->node[0].pager, &stats);
	}
	return stats.fetch_count;
}

static bool all_proven(const struct page_hints *hints)
{
	uint32_t proven = 0;

	for (uint32_t i = 0; i < hints->count; i++)
		proven += hints->hint[i].turns > 0;
	return proven == HINTED;
}

/* What a vCPU wanted again is where it has come to, as it wants it; but not what is no memory. */
static void hints_bring_pages(void **state)
{
	struct page_hints hints;
	struct pod pod;
	pthread_t thread;
	bool proven = false;
	int tries = 0;

	pod_create(&pod, &two);
	/*
	 * A stall's end is told a moment after it, and is not noted while somebody has the list, as we
	 * have it here: then once more.
	 */
	do {
		assert_int_equal(pthread_create(&thread, NULL, want_again, &pod), 0);
		pthread_join(thread, NULL);
		for (int ms = 0; ms < 1000 && !proven; ms++, usleep(1000)) {
			pager_hints_leave(pod.node[1].pager, 2, &hints);
			proven = all_proven(&hints);
		}
	} while (!proven && ++tries < 5);
	assert_true(proven);
	assert_int_equal(hints.count, HINTED);
	hints.hint[hints.count++] =
		(struct page_hint){ .gpn = GPN_LIMIT - 1, .turns = 1, .level = 1 };
	pager_hints_arrive(pod.node[0].pager, 2, &hints, false);
	assert_int_equal(fetched_by_first(&pod, 0), 0);
	/* Again and again: no queue is too short for that. The written half is not here. */
	for (int i = 0; i < 1000; i++)
		pager_hints_arrive(pod.node[0].pager, 2, &hints, true);
	assert_int_equal(fetched_by_first(&pod, HINTED / 2), HINTED / 2);
	pager_hints_leave(pod.node[0].pager, 2, &hints);
	assert_int_equal(hints.count, HINTED);
	for (uint64_t page = 1; page < HINTED; page += 2)
		assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 0, page * MIB), page + 2);
	for (uint16_t i = 0; i < 2; i++)
		pager_stop(pod.node[i].pager);
	assert_int_equal(pod.node[0].failure.count + pod.node[1].failure.count, 0);
	pod_destroy(&pod);
}

static void *touch_second(void *arg)
{
	(void)*(volatile uint8_t *)pod_at(arg, 0, 15 * MIB);
	return NULL;
}

/* A shard's thread goes on while somebody has the hints, and asks for them when he gives them back. */
static void hints_hold_up_nobody(void **state)
{
	struct page_hints hints = { .count = 2 };
	struct pod_options options = two;
	struct pager_hints *own;
	struct timespec until;
	struct pod pod;
	pthread_t thread;

	options.shard_count = 1;
	pod_create(&pod, &options);
	for (uint64_t page = 0; page < 2; page++) {
		*(volatile uint8_t *)pod_at(&pod, 1, page * MIB) = 1;
		hints.hint[page] = (struct page_hint){ .gpn = page * MIB / PAGE_BYTES };
	}
	*(volatile uint8_t *)pod_at(&pod, 1, 15 * MIB) = 1;
	pager_hints_arrive(pod.node[0].pager, 2, &hints, false);
	own = &pod.node[0].pager->actors.hints[2];
	pthread_mutex_lock(&own->lock);
	for (uint32_t i = 0; i < own->list.count; i++)
		own->list.hint[i].ask = true;
	atomic_store(&pod.node[0].pager->shard[0].fetch_posted[2], true);
	assert_int_equal(
		pager_queue_post(&pod.node[0].pager->shard[0].queue,
				 &(struct pager_command){ .kind = PAGER_FETCH, .actor = 2 }),
		0);
	assert_int_equal(pthread_create(&thread, NULL, touch_second, &pod), 0);
	until = deadline_after_ms(10000);
	assert_int_equal(deadline_join(thread, &until), 0);
	assert_true(atomic_load(&own->missed));
	assert_int_equal(fetched_by_first(&pod, 0), 0);
	pager_hints_unlock(pod.node[0].pager, 2);
	assert_int_equal(fetched_by_first(&pod, 2), 2);
	for (uint16_t i = 0; i < 2; i++)
		pager_stop(pod.node[i].pager);
	pod_destroy(&pod);
}

#define COUNTERS 4
#define COUNTS	 3000

struct worker {
	struct pod *pod;
	uint16_t node;
	uint32_t vcpu;
	pthread_t thread;
};

/* Some of the counters share a page, and pages lie in different shards. */
static uint64_t counter_gpa(uint32_t i)
{
	return (i / 2) * 6 * MIB + (i % 2) * 64;
}

static void *count(void *arg)
{
	struct worker *worker = arg;
	struct pager *pager = worker->pod->node[worker->node].pager;

	assert_int_equal(pager_bind_actor(pager, worker->vcpu, (pid_t)syscall(SYS_gettid)), 0);
	for (uint32_t i = 0; i < COUNTS; i++) {
		_Atomic uint64_t *counter = pod_at(worker->pod, worker->node,
						   counter_gpa((i + worker->vcpu) % COUNTERS));

		atomic_fetch_add(counter, 1);
	}
	return NULL;
}

static void run_counters(enum pager_spin spin)
{
	struct pod_options options = two;
	struct worker worker[6];
	struct pod pod;
	uint64_t sum = 0;

	options.node_count = 3;
	options.spin = spin;
	pod_create(&pod, &options);
	for (uint32_t i = 0; i < 6; i++) {
		worker[i] =
			(struct worker){ .pod = &pod, .node = (uint16_t)(i % 3), .vcpu = i / 3 };
		assert_int_equal(pthread_create(&worker[i].thread, NULL, count, &worker[i]), 0);
	}
	for (uint32_t i = 0; i < 6; i++)
		pthread_join(worker[i].thread, NULL);
	for (uint32_t i = 0; i < COUNTERS; i++)
		sum += *(volatile uint64_t *)pod_at(&pod, 1, counter_gpa(i));
	assert_int_equal(sum, 6 * COUNTS);
	assert_true(pager_vcpu_stalls(pod.node[1].pager, 0) +
			    pager_vcpu_stalls(pod.node[1].pager, 1) >
		    0);
	assert_int_equal(pager_vcpu_stalls(pod.node[1].pager, 3), 0);
	assert_true(pager_vcpu_stalled_ns(pod.node[1].pager, 0) +
			    pager_vcpu_stalled_ns(pod.node[1].pager, 1) >
		    0);
	assert_int_equal(pager_vcpu_stalled_ns(pod.node[1].pager, 3), 0);
	pod_destroy(&pod);
}

static void no_count_is_lost_sleeping(void **state)
{
	run_counters(PAGER_SPIN_OFF);
}

static void no_count_is_lost_adapting(void **state)
{
	run_counters(PAGER_SPIN_AUTO);
}

static void *touch_one(void *arg)
{
	return (void *)(uintptr_t) * (volatile uint8_t *)arg;
}

/* More threads than nameless actors, each on a page of its own, while the other node holds them
 * all. */
static void many_nameless_threads(void **state)
{
	struct pod pod;
	pthread_t thread[40];

	pod_create(&pod, &two);
	for (uint64_t i = 0; i < 40; i++)
		*(volatile uint8_t *)pod_at(&pod, 0, i * 300 * 1024) = (uint8_t)(i + 1);
	for (uint64_t i = 0; i < 40; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, touch_one,
						pod_at(&pod, 1, i * 300 * 1024)),
				 0);
	for (uint64_t i = 0; i < 40; i++) {
		void *seen;

		assert_int_equal(pthread_join(thread[i], &seen), 0);
		assert_int_equal((uintptr_t)seen, i + 1);
	}
	pod_destroy(&pod);
}

#define CROWD 200

/* All actors for nameless threads wait for pages that are pinned; a crowd behind them waits for an
 * actor, and is served in one pass. */
static void a_crowd_waits_for_nameless_actors(void **state)
{
	struct pod_options options = two;
	struct memory_port *port[8];
	pthread_t held[8], crowd[CROWD];
	struct pager_stats stats;
	struct pod pod;

	options.shard_count = 1;
	options.port_count = 8;
	pod_create(&pod, &options);
	*(volatile uint8_t *)pod_at(&pod, 0, 4 * MIB) = 1; /* that chunk's home is here */
	for (uint64_t i = 0; i < 8; i++) {
		void *hva;
		size_t length = 8;

		assert_int_equal(pager_open_port(pod.node[1].pager, &port[i]), 0);
		assert_int_equal(memory_acquire(port[i], i * PAGE_BYTES, COH_WRITE, &hva, &length),
				 0);
		assert_int_equal(
			pthread_create(&held[i], NULL, touch_one, pod_at(&pod, 0, i * PAGE_BYTES)),
			0);
	}
	usleep(100000);
	/* Every other page, so that none comes with another. */
	for (uint64_t i = 0; i < CROWD; i++)
		assert_int_equal(
			pthread_create(&crowd[i], NULL, touch_one,
				       pod_at(&pod, 0, 4 * MIB + (2 * i + 2) * PAGE_BYTES)),
			0);
	usleep(200000);
	for (uint64_t i = 0; i < 8; i++)
		pager_close_port(pod.node[1].pager, port[i]);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(pthread_join(held[i], NULL), 0);
	for (uint64_t i = 0; i < CROWD; i++)
		assert_int_equal(pthread_join(crowd[i], NULL), 0);
	for (uint16_t i = 0; i < 2; i++)
		pager_stop(pod.node[i].pager);
	pager_stats_get(pod.node[0].pager, &stats);
	assert_int_equal(stats.stall_count[COH_STALL_ZERO], CROWD + 1);
	pod_destroy(&pod);
}

/* A stall is counted when whom it held up has gone on: the last one may be late. */
static uint32_t hot_pages(const struct pod *pod, uint16_t node, uint64_t count,
			  struct pager_hot_page *ret_hot, uint32_t max)
{
	uint32_t found = pager_hot_pages(pod->node[node].pager, ret_hot, max);

	for (int i = 0; i < 5000 && (!found || ret_hot[0].count < count); i++) {
		usleep(1000);
		found = pager_hot_pages(pod->node[node].pager, ret_hot, max);
	}
	return found;
}

static void hot_pages_are_known(void **state)
{
	struct pager_hot_page hot[3];
	struct pod pod;

	pod_create(&pod, &two);
	for (uint32_t i = 0; i < 50; i++) {
		*(volatile uint32_t *)pod_at(&pod, 0, 3 * MIB + 0x124) = i;
		*(volatile uint32_t *)pod_at(&pod, 1, 3 * MIB + (i < 10 ? 0 : 0xab8)) = i;
		*(volatile uint32_t *)pod_at(&pod, 1, i * PAGE_BYTES * 10) = i;
	}
	assert_int_equal(hot_pages(&pod, 0, 49, hot, 3), 1);
	assert_int_equal(hot[0].gpn, 3 * MIB >> PAGE_SHIFT);
	assert_int_equal(hot[0].count, 49); /* the first was nobody's */
	assert_int_equal(hot_pages(&pod, 1, 50, hot, 3), 1);
	assert_int_equal(hot[0].gpn, 3 * MIB >> PAGE_SHIFT);
	assert_int_equal(hot[0].count, 50);
	assert_int_equal(hot[0].offset_count, 2);
	assert_int_equal(hot[0].offset[0].offset, 0xab8);
	assert_int_equal(hot[0].offset[0].count, 40);
	assert_int_equal(hot[0].offset[1].offset, 0);
	pod_destroy(&pod);
}

/* Counted again until no page has moved since the last time. */
static uint64_t resident_at_rest(const struct guest_memory *memory)
{
	uint64_t pages = 0, before = UINT64_MAX;

	for (int i = 0; i < 500 && pages != before; i++) {
		before = pages;
		usleep(10000);
		assert_int_equal(guest_memory_resident(memory, &pages), 0);
	}
	assert_int_equal(pages, before);
	return pages;
}

static void memory_stays_within_capacity(void **state)
{
	struct pod_options options = { .node_count = 2,
				       .shard_count = 1,
				       .memory_bytes = 14 * MIB,
				       .capacity_bytes = 8 * MIB };
	struct pod pod;

	pod_create(&pod, &options);
	for (uint64_t round = 0; round < 3; round++) {
		for (uint64_t gpn = 0; gpn < 14 * MIB >> PAGE_SHIFT; gpn++) {
			volatile uint64_t *at =
				pod_at(&pod, (uint16_t)(round & 1), gpn << PAGE_SHIFT);

			assert_int_equal(*at, round == 0 ? 0 : gpn * 16 + round);
			*at = gpn * 16 + round + 1;
		}
		for (uint16_t i = 0; i < 2; i++)
			assert_in_range(resident_at_rest(pod.node[i].memory), 1,
					8 * MIB >> PAGE_SHIFT);
	}
	pod_destroy(&pod);
}

static uint64_t shootdowns(const struct pod *pod, uint16_t node)
{
	struct guest_memory_counts counts;

	guest_memory_counts(pod->node[node].memory, 0, &counts);
	return counts.shootdowns;
}

/* A page that is read ahead costs its owner a tenth of a shootdown at most, its reader none. */
static void a_scan_costs_few_shootdowns(void **state)
{
	struct pod_options options = two;
	struct pager_stats stats;
	struct pod pod;
	uint64_t pages = 16 * MIB >> PAGE_SHIFT;

	options.shard_count = 1;
	options.capacity_bytes = 32 * MIB; /* so that nothing has to leave */
	pod_create(&pod, &options);
	for (uint64_t gpn = 0; gpn < pages; gpn++)
		*(volatile uint64_t *)pod_at(&pod, 1, gpn << PAGE_SHIFT) = gpn;
	assert_int_equal(shootdowns(&pod, 1), 0);
	for (uint64_t gpn = 0; gpn < pages; gpn++)
		assert_int_equal(*(volatile uint64_t *)pod_at(&pod, 0, gpn << PAGE_SHIFT), gpn);
	for (uint16_t i = 0; i < 2; i++)
		pager_stop(pod.node[i].pager);
	assert_in_range(shootdowns(&pod, 1), 1, pages / 10);
	assert_int_equal(shootdowns(&pod, 0), 0);
	pager_stats_get(pod.node[1].pager, &stats);
	assert_int_equal(stats.shootdown_count, shootdowns(&pod, 1));
	assert_true(stats.call_count > stats.shootdown_count);
	assert_in_range(stats.shootdown_page_count, pages - CHUNK_PAGES, pages);
	pod_destroy(&pod);
}

/* The same for a page that has to go for another. */
static void an_eviction_costs_few_shootdowns(void **state)
{
	struct pod_options options = { .node_count = 2,
				       .shard_count = 1,
				       .memory_bytes = 14 * MIB,
				       .capacity_bytes = 8 * MIB };
	uint64_t pages = 14 * MIB >> PAGE_SHIFT;
	struct pager_stats stats;
	struct pod pod;

	pod_create(&pod, &options);
	for (uint64_t gpn = 0; gpn < pages; gpn++)
		*(volatile uint64_t *)pod_at(&pod, 0, gpn << PAGE_SHIFT) = gpn;
	for (uint16_t i = 0; i < 2; i++)
		pager_stop(pod.node[i].pager);
	pager_stats_get(pod.node[0].pager, &stats);
	assert_true(stats.evict_push_count >= 6 * MIB >> PAGE_SHIFT);
	assert_in_range(shootdowns(&pod, 0), 1, stats.evict_push_count / 10);
	assert_int_equal(shootdowns(&pod, 1), 0);
	pod_destroy(&pod);
}

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
	assert_int_equal(memory_zero(b, 2 * MIB - 7000, 10000), 0);
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

/* ---- a vCPU that leaves in the middle of a stall ------------------------------------------------- */

#define LONG_HOLD_NS 20000000000ull

/* ThreadSanitizer keeps signals back until the next call: none gets a thread out of a stall. */
#ifdef __SANITIZE_THREAD__
#define SIGNALS_COME false
#else
#define SIGNALS_COME true
#endif

static _Thread_local sigjmp_buf out_of_stall;

struct leaver {
	struct pod *pod;
	atomic_bool left, back;
};

static void on_leave(int number)
{
	siglongjmp(out_of_stall, number);
}

/* vCPU 2 of node 1: stalls on page 5, is called away, sleeps, comes back and touches it again. */
static void *leave_stalled(void *arg)
{
	struct leaver *leaver = arg;
	struct pager *pager = leaver->pod->node[1].pager;
	volatile uint8_t *at = pod_at(leaver->pod, 1, 5 * PAGE_BYTES);

	assert_int_equal(pager_bind_actor(pager, 2, (pid_t)syscall(SYS_gettid)), 0);
	if (!sigsetjmp(out_of_stall, 1))
		*at = 1;
	pager_actor_idle(pager, 2, true);
	leaver->left = true;
	while (!leaver->back)
		usleep(1000);
	pager_actor_idle(pager, 2, false);
	*at += 1;
	assert_int_equal(pager_bind_actor(pager, 2, 0), 0);
	return NULL;
}

static void wait_for_page(struct pod *pod)
{
	struct pager_stats stats = { 0 };

	for (int ms = 0; ms < 10000 && !stats.pages_owned; ms++) {
		usleep(1000);
		pager_stats_get(pod->node[1].pager, &stats);
	}
	assert_int_equal(stats.pages_owned, 1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/*
 * Its stall is withdrawn at once, however long the page takes. The page comes all the same, and whoever
 * wants it next, as the node where the vCPU is now, does not wait for a hold of one that is gone.
 */
static void a_stall_is_withdrawn(void **state)
{
	struct pod_options options = two;
	struct sigaction leave = { .sa_handler = on_leave }, before;
	struct leaver leaver = { 0 };
	struct memory_port *port;
	struct pod pod;
	size_t length = 8;
	pthread_t thread;
	uint64_t since_ns;
	void *hva;

	if (!SIGNALS_COME)
		skip();
	options.hold_ns = LONG_HOLD_NS;
	pod_create(&pod, &options);
	leaver.pod = &pod;
	assert_int_equal(sigaction(SIGUSR1, &leave, &before), 0);
	assert_int_equal(pager_open_port(pod.node[0].pager, &port), 0);
	assert_int_equal(memory_acquire(port, 5 * PAGE_BYTES, COH_WRITE, &hva, &length), 0);
	assert_int_equal(pthread_create(&thread, NULL, leave_stalled, &leaver), 0);
	while (!pager_vcpu_stalls(pod.node[1].pager, 2))
		usleep(1000);
	pthread_kill(thread, SIGUSR1);
	for (int ms = 0; ms < 10000 && !leaver.left; ms++)
		usleep(1000);
	assert_true(leaver.left);
	memory_release(port);
	wait_for_page(&pod);
	since_ns = now_ns();
	*(volatile uint8_t *)pod_at(&pod, 0, 5 * PAGE_BYTES) = 7;
	assert_true(now_ns() - since_ns < LONG_HOLD_NS / 2);
	leaver.back = true;
	pthread_join(thread, NULL);
	assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 1, 5 * PAGE_BYTES), 8);
	sigaction(SIGUSR1, &before, NULL);
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

static void wait_for_failure(struct pod_node *node)
{
	struct memory_port *port;
	uint8_t byte;

	/* A pager that failed answers no port. */
	assert_int_equal(pager_open_port(node->pager, &port), 0);
	for (int i = 0; i < 2000; i++) {
		if (memory_read(port, 0, &byte, 1) == -ESHUTDOWN)
			break;
		usleep(1000);
	}
	pager_stop(node->pager);
	assert_int_equal(node->failure.count, 1);
}

static void a_dead_link_is_named(void **state)
{
	struct pod_options options = two;
	struct pod pod;

	options.node_count = 3;
	pod_create(&pod, &options);
	*(volatile uint8_t *)pod_at(&pod, 0, 0) = 1;
	shutdown(pod.node[0].channel[1][2]->ops->fd(pod.node[0].channel[1][2]), SHUT_RDWR);
	wait_for_failure(&pod.node[0]);
	assert_int_equal(pod.node[0].failure.node, 2);
	assert_true(pod.node[0].failure.error == -EPIPE ||
		    pod.node[0].failure.error == -ECONNRESET);
	assert_non_null(strstr(pod.node[0].failure.cause, "shard 1"));
	pod_destroy(&pod);
}

static void send_nonsense(uint32_t shard, uint64_t gpn)
{
	struct pod pod;
	struct page_channel *channel;
	static struct page_frame frame;

	pod_create(&pod, &two);
	pager_stop(pod.node[1].pager);
	channel = pod.node[1].channel[shard][0];
	frame.message_count = 1;
	frame.message[0] = (struct coh_msg){ .type = COH_HOME_GET, .requester = 1, .gpn = gpn };
	assert_int_equal(channel->ops->send(channel, &frame), 0);
	wait_for_failure(&pod.node[0]);
	assert_int_equal(pod.node[0].failure.node, 1);
	assert_int_equal(pod.node[0].failure.error, -EPROTO);
	pod_destroy(&pod);
}

static void nonsense_is_named(void **state)
{
	/* Pages of the other shard, and one that is no RAM. Node 0 is registrar of chunk 0. */
	send_nonsense(0, 2 * MIB >> PAGE_SHIFT);
	send_nonsense(1, 0);
	send_nonsense(0, 16 * MIB >> PAGE_SHIFT);
}

#define FRAMES 100

/* Many frames that come with one recv(): each is answered, though nothing follows that would wake
 * the shard again. */
static void frames_beyond_a_turn_are_taken(void **state)
{
	static uint8_t bytes[FRAMES * (PAGE_FRAME_HEADER_BYTES + PAGE_FRAME_MESSAGE_BYTES)];
	struct coh_msg msg = { .type = COH_HOME_GET, .requester = 1 };
	static struct page_frame frame;
	struct page_channel *channel;
	uint32_t answers = 0;
	size_t size = 0;
	struct pod pod;

	pod_create(&pod, &two);
	pager_stop(pod.node[1].pager);
	channel = pod.node[1].channel[0][0];
	for (uint32_t i = 0; i < FRAMES; i++) {
		struct page_frame_header header = { .message_count = 1, .sequence = i };

		size += page_frame_encode_head(&header, &msg, bytes + size);
	}
	assert_int_equal(size, sizeof(bytes));
	assert_int_equal(send(channel->ops->fd(channel), bytes, size, 0), size);
	for (int i = 0; i < 5000 && answers < FRAMES; i++) {
		int error = channel->ops->receive(channel, &frame);

		assert_true(error == 0 || error == -EAGAIN);
		if (error == 0)
			answers += frame.message_count;
		else
			usleep(1000);
	}
	assert_int_equal(answers, FRAMES);
	pager_stop(pod.node[0].pager);
	assert_int_equal(pod.node[0].failure.count, 0);
	pod_destroy(&pod);
}

static void bad_configs_are_refused(void **state)
{
	struct guest_memory_config memory = { { { 0, 4 * MIB } }, 1, 1 };
	struct pager_config good = { .node_count = 2, .capacity_bytes = MIB };
	struct pager *pager = NULL;
	struct pager_config bad;

	assert_int_equal(guest_memory_create(&memory, &good.memory), 0);
	bad = good;
	bad.self = 2;
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	bad = good;
	bad.capacity_bytes = 10 * PAGE_BYTES;
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	bad = good;
	bad.memory = NULL;
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	assert_int_equal(pager_create(&good, &pager), 0);
	assert_int_equal(pager_start(pager), -ENOTCONN);
	pager_destroy(pager);
	guest_memory_destroy(good.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_configs_are_refused),
		cmocka_unit_test(writes_are_seen_everywhere),
		cmocka_unit_test(a_stalls_end_is_told),
		cmocka_unit_test(hints_bring_pages),
		cmocka_unit_test(hints_hold_up_nobody),
		cmocka_unit_test(no_count_is_lost_sleeping),
		cmocka_unit_test(no_count_is_lost_adapting),
		cmocka_unit_test(many_nameless_threads),
		cmocka_unit_test(a_crowd_waits_for_nameless_actors),
		cmocka_unit_test(hot_pages_are_known),
		cmocka_unit_test(memory_stays_within_capacity),
		cmocka_unit_test(a_scan_costs_few_shootdowns),
		cmocka_unit_test(an_eviction_costs_few_shootdowns),
		cmocka_unit_test(ports_reach_all_memory),
		cmocka_unit_test(a_lost_page_is_told_first),
		cmocka_unit_test(a_page_pushed_out_is_told),
		cmocka_unit_test(a_pinned_page_stays),
		cmocka_unit_test(a_stall_is_withdrawn),
		cmocka_unit_test(stopping_ends_waiting_pins),
		cmocka_unit_test(a_dead_link_is_named),
		cmocka_unit_test(nonsense_is_named),
		cmocka_unit_test(frames_beyond_a_turn_are_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
