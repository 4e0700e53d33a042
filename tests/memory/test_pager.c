/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager, in a pod inside one process: pages move between nodes as threads touch them, memory
 * stays within its capacity, a peer that dies or talks nonsense is named, and the numbers add up.
 * vCPUs' stalls: test_pager_vcpu.c; ports: test_pager_ports.c.
 */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

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
	/* Node 0 writes whatever it has read: that is soon expected, and saves most of 16. */
	assert_in_range(stats.stall_count[COH_STALL_UPGRADE], 4, 12);
	assert_true(stats.message_count > 0 && stats.bytes_out > 0 && stats.bytes_in > 0);
	assert_true(pager_stats_quantile_ns(&stats, COH_STALL_READ, 0.5) > 1000);
	pager_stats_get(pod.node[1].pager, &stats);
	assert_true(stats.stall_count[COH_STALL_READ] + stats.stall_count[COH_STALL_WRITE] >= 16);
	assert_int_equal(pod.node[0].failure.count + pod.node[1].failure.count, 0);
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

static void wait_for_failure(struct pod_node *node)
{
	struct memory_port *port;
	uint8_t byte;

	/* A pager that failed answers no port. */
	assert_int_equal(pager_open_port(node->pager, &port), 0);
	for (int i = 0; i < 20000; i++) {
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
		cmocka_unit_test(no_count_is_lost_sleeping),
		cmocka_unit_test(no_count_is_lost_adapting),
		cmocka_unit_test(many_nameless_threads),
		cmocka_unit_test(a_crowd_waits_for_nameless_actors),
		cmocka_unit_test(hot_pages_are_known),
		cmocka_unit_test(memory_stays_within_capacity),
		cmocka_unit_test(a_scan_costs_few_shootdowns),
		cmocka_unit_test(an_eviction_costs_few_shootdowns),
		cmocka_unit_test(a_dead_link_is_named),
		cmocka_unit_test(nonsense_is_named),
		cmocka_unit_test(frames_beyond_a_turn_are_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
