/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads on vCPUs (cpus.h).
 */
#include "tests/guest/cpus.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static void fail(const char *what, int error)
{
	fprintf(stderr, "%s: %s\n", what, strerror(error));
	exit(3);
}

static cpu_set_t cpus_allowed(void)
{
	/* Asked once, by the main thread before it makes others: later it would be pinned itself.
	 */
	static cpu_set_t set;
	static bool known;
	if (!known && sched_getaffinity(0, sizeof(set), &set) < 0)
		fail("sched_getaffinity", errno);
	known = true;
	return set;
}

unsigned int cpus_count(void)
{
	cpu_set_t set = cpus_allowed();
	return (unsigned int)CPU_COUNT(&set);
}

void cpus_pin(unsigned int index)
{
	cpu_set_t allowed = cpus_allowed(), one;
	unsigned int left = index % (unsigned int)CPU_COUNT(&allowed);
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && left-- == 0) {
			CPU_SET(cpu, &one);
			break;
		}
	if (sched_setaffinity(0, sizeof(one), &one) < 0)
		fail("sched_setaffinity", errno);
}

static uint64_t clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Both clocks at one moment: of some readings the one in which the least time passed. */
static void read_both(uint64_t *ret_tsc, uint64_t *ret_ns)
{
	uint64_t least = UINT64_MAX;
	for (int i = 0; i < 20; i++) {
		uint64_t before = tsc_read(), ns = clock_ns(), took = tsc_read() - before;
		if (took >= least)
			continue;
		least = took;
		*ret_tsc = before + took / 2;
		*ret_ns = ns;
	}
}

uint64_t tsc_measure_hz(void)
{
	uint64_t start_ns = 0, start = 0, now_ns = 0, now = 0;
	read_both(&start, &start_ns);
	do
		now_ns = clock_ns();
	while (now_ns - start_ns < 30000000);
	read_both(&now, &now_ns);
	return (uint64_t)((__uint128_t)(now - start) * 1000000000u / (now_ns - start_ns));
}

void cpus_relax(unsigned int *spins)
{
	if (++*spins % 64 == 0)
		sched_yield();
	else
		__builtin_ia32_pause();
}

void *pages_new(size_t count)
{
	void *pages = mmap(NULL, count * GUEST_PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		fail("memory", errno);
	/* 2 MiB pages would be fine too, but the programs mean 4 KiB when they say page. */
	madvise(pages, count * GUEST_PAGE, MADV_NOHUGEPAGE);
	return pages;
}

struct worker {
	pthread_t thread;
	unsigned int number, cpu;
	void (*work)(void *, unsigned int);
	void *context;
	unsigned int *waiting; /* threads that have not been started yet; a page of its own */
};

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	unsigned int spins = 0;
	cpus_pin(worker->cpu);
	__atomic_fetch_sub(worker->waiting, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(worker->waiting, __ATOMIC_ACQUIRE))
		cpus_relax(&spins);
	worker->work(worker->context, worker->number);
	return NULL;
}

void cpus_run(unsigned int threads, unsigned int rotation, void (*work)(void *, unsigned int),
	      void *context)
{
	static struct worker workers[GUEST_THREADS];
	unsigned int *waiting = pages_new(1);
	*waiting = threads;
	cpus_count();
	for (unsigned int i = 0; i < threads; i++) {
		workers[i] = (struct worker){ .number = i,
					      .cpu = i + rotation,
					      .work = work,
					      .context = context,
					      .waiting = waiting };
		int error = pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
		if (error)
			fail("pthread_create", error);
	}
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	munmap(waiting, GUEST_PAGE);
}

uint64_t number_argument(const char *name, const char *text, uint64_t max)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || end == text || *end || value < 1 || value > max) {
		fprintf(stderr, "%s %s: must be a number from 1 to %llu\n", name, text,
			(unsigned long long)max);
		exit(2);
	}
	return value;
}
