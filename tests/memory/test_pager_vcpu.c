/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager and a vCPU's stalls: who hears of their ends, the hints that come of them and go with the
 * vCPU, and a stall that the vCPU leaves.
 */
#include "tests/test.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "node/deadline.h"
#include "pager/shard.h"
#include "tests/memory/pod.h"

#define MIB (1ull << 20)

static const struct pod_options two = {
	.node_count = 2, .shard_count = 2, .memory_bytes = 16 * MIB, .capacity_bytes = 16 * MIB
};

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
	assert_int_equal(told->last[kind].sharers, kind != COH_STALL_ZERO);
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

/* Every way to a page that others have; the second round without a copy of its own. */
static void *stall_on_shared(void *arg)
{
	struct pod *pod = arg;
	volatile uint8_t *at = pod_at(pod, 1, 5 * PAGE_BYTES);
	volatile uint8_t *first = pod_at(pod, 0, 5 * PAGE_BYTES);
	volatile uint8_t *last = pod_at(pod, 2, 5 * PAGE_BYTES);

	*first = 9;
	(void)*last;
	assert_int_equal(pager_bind_actor(pod->node[1].pager, 2, (pid_t)syscall(SYS_gettid)), 0);
	(void)*at;
	*at = 1;
	*last = 2;
	(void)*first;
	*at = 3;
	assert_int_equal(pager_bind_actor(pod->node[1].pager, 2, 0), 0);
	return NULL;
}

/* How many had the page is told with each kind of stall. */
static void sharers_are_told(void **state)
{
	static const enum coh_stall_kind kinds[] = { COH_STALL_READ, COH_STALL_UPGRADE,
						     COH_STALL_WRITE };
	struct pod_options options = two;
	struct pod pod;
	pthread_t thread;

	options.node_count = 3;
	options.shard_count = 1;
	pod_create(&pod, &options);
	assert_int_equal(pthread_create(&thread, NULL, stall_on_shared, &pod), 0);
	pthread_join(thread, NULL);
	for (uint16_t i = 0; i < 3; i++)
		pager_stop(pod.node[i].pager);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(pod.node[1].stalled.count[kinds[i]], 1);
		assert_int_equal(pod.node[1].stalled.last[kinds[i]].sharers, 2);
	}
	pod_destroy(&pod);
}

/* More than are asked for at a time, also of one shard. */
#define HINTED 32u
#define APART  (MIB / 4)

/* As vCPU 2 of node 1: wants pages, loses them to node 0, and wants them again; half are written. */
static void *want_again(void *arg)
{
	struct pod *pod = arg;

	assert_int_equal(pager_bind_actor(pod->node[1].pager, 2, (pid_t)syscall(SYS_gettid)), 0);
	for (int round = 0; round < 2; round++)
		for (uint64_t page = 0; page < HINTED; page++) {
			volatile uint8_t *here = pod_at(pod, 1, page * APART);

			*(volatile uint8_t *)pod_at(pod, 0, page * APART) = (uint8_t)(page + 1);
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
	/* The written half is not here. Again and again: no queue is too short for that. */
	pager_hints_arrive(pod.node[0].pager, 2, &hints, true);
	assert_int_equal(fetched_by_first(&pod, HINTED / 2), HINTED / 2);
	for (int i = 0; i < 1000; i++)
		pager_hints_arrive(pod.node[0].pager, 2, &hints, true);
	assert_int_equal(fetched_by_first(&pod, HINTED / 2), HINTED / 2);
	pager_hints_leave(pod.node[0].pager, 2, &hints);
	assert_int_equal(hints.count, HINTED);
	for (uint64_t page = 1; page < HINTED; page += 2)
		assert_int_equal(*(volatile uint8_t *)pod_at(&pod, 0, page * APART), page + 2);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stalls_end_is_told), cmocka_unit_test(sharers_are_told),
		cmocka_unit_test(hints_bring_pages),	cmocka_unit_test(hints_hold_up_nobody),
		cmocka_unit_test(a_stall_is_withdrawn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
