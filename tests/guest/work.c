/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work: kinds of work whose speed depends on where vCPUs and pages are, for bench/placement and
 * tests/pod/policy. Prints how much of it was done in the time, once a second and then in all:
 *
 *     KIND second N: UNITS
 *     KIND: UNITS in SECONDS s, RATE a second
 *
 *   scan         one thread reads, again and again, all of the memory that the threads of all vCPUs
 *                have written in parts of the same size (--mib)            unit: a page
 *   far          the same, but only what the last vCPU's thread has written
 *   pair         two threads, on the first and the last vCPU, take turns to change a word of one
 *                table of 64 pages                                         unit: a change
 *   independent  a thread on every vCPU changes memory of its own          unit: a page
 *   pipe         two threads on the first and last vCPU: one writes into a pipe, the other reads and
 *                sums up                                                   unit: 4 KiB
 *   none         sleeps
 *
 * --cpus N: waits until the guest has so many; in a pod they come one by one.
 */
#include <errno.h>
#include <getopt.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/guest/cpus.h"

#define PAGE_WORDS  (GUEST_PAGE / sizeof(uint64_t))
#define TABLE_PAGES 64u
#define OWN_PAGES   512u  /* of an independent thread */
#define LOOK_EVERY  16u	  /* pages between looks at the time */
#define SPINS	    2000u /* before sleeping until it is one's turn */

static const struct timespec patience = { .tv_sec = 1 };

struct work {
	uint64_t *word;
	uint64_t pages;
	unsigned int threads, seconds;
	uint64_t end_tsc;
	struct turn *turn;
	int pipe[2];
	void (*fill)(struct work *, unsigned int thread),
		(*run)(struct work *, unsigned int thread);
	/* A page each: nobody's count is on another's page. */
	_Atomic uint64_t *done[GUEST_THREADS];
};

static bool is_over(const struct work *work)
{
	return tsc_read() >= work->end_tsc;
}

static void did(struct work *work, unsigned int thread, uint64_t units)
{
	_Atomic uint64_t *done = work->done[thread];
	atomic_store_explicit(done, atomic_load_explicit(done, memory_order_relaxed) + units,
			      memory_order_relaxed);
}

/* ---- scan, far ------------------------------------------------------------------------------- */

static uint64_t *page_at(struct work *work, uint64_t page)
{
	return work->word + page * PAGE_WORDS;
}

static void fill_part(struct work *work, unsigned int thread)
{
	uint64_t first = work->pages * thread / work->threads;
	uint64_t end = work->pages * (thread + 1) / work->threads;
	for (uint64_t page = first; page < end; page++)
		for (uint64_t i = 0; i < PAGE_WORDS; i++)
			page_at(work, page)[i] = page + i;
}

static void fill_far(struct work *work, unsigned int thread)
{
	struct work all = *work;
	all.threads = 1;
	if (thread + 1 == work->threads)
		fill_part(&all, 0);
}

/* So that the compiler reads; each thread's own, as its page must not be shared. */
static _Thread_local volatile uint64_t read_sum;

static void scan(struct work *work, unsigned int thread)
{
	if (thread)
		return;
	for (uint64_t page = 0; page % LOOK_EVERY || !is_over(work); page++) {
		const uint64_t *at = page_at(work, page % work->pages);
		uint64_t part = 0;
		for (uint64_t i = 0; i < PAGE_WORDS; i++)
			part += at[i];
		read_sum += part;
		did(work, 0, 1);
	}
}

/* ---- pair ------------------------------------------------------------------------------------ */

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Whose turn it is, and who sleeps until it is his. A page of its own. */
struct turn {
	_Atomic uint32_t of;
	_Atomic uint32_t sleeps[2];
};

static void turn_wait(struct turn *turn, uint32_t me)
{
	for (uint32_t spins = 0; atomic_load(&turn->of) != me; spins++) {
		if (spins < SPINS) {
			__builtin_ia32_pause();
			continue;
		}
		atomic_store(&turn->sleeps[me], 1);
		syscall(SYS_futex, &turn->of, FUTEX_WAIT, !me, &patience, NULL, 0);
		atomic_store(&turn->sleeps[me], 0);
	}
}

static void turn_give(struct turn *turn, uint32_t to)
{
	atomic_store(&turn->of, to);
	if (atomic_load(&turn->sleeps[to]))
		syscall(SYS_futex, &turn->of, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void change_table(struct work *work, unsigned int thread)
{
	uint64_t random = 0x9e3779b97f4a7c15u * (thread + 1);
	uint32_t me = thread != 0;
	if (thread != 0 && thread + 1 != work->threads)
		return;
	while (!is_over(work)) {
		uint64_t at = random_next(&random) % (TABLE_PAGES * PAGE_WORDS);
		if (work->threads > 1)
			turn_wait(work->turn, me);
		work->word[at] += work->word[(at + 7 * PAGE_WORDS) % (TABLE_PAGES * PAGE_WORDS)];
		did(work, thread, 1);
		turn_give(work->turn, !me);
	}
}

/* ---- independent ----------------------------------------------------------------------------- */

static void change_own(struct work *work, unsigned int thread)
{
	for (uint64_t page = 0; page % LOOK_EVERY || !is_over(work); page++) {
		uint64_t *at = page_at(work, thread * OWN_PAGES + page % OWN_PAGES);
		for (uint64_t i = 0; i < PAGE_WORDS; i++)
			at[i] = at[i] * 5 + page;
		did(work, thread, 1);
	}
}

/* ---- pipe ------------------------------------------------------------------------------------ */

static void produce(struct work *work)
{
	static uint64_t data[PAGE_WORDS];
	while (!is_over(work)) {
		for (uint64_t i = 0; i < PAGE_WORDS; i++)
			data[i] += i;
		if (write(work->pipe[1], data, sizeof(data)) < 0)
			break;
	}
	close(work->pipe[1]);
}

static void consume(struct work *work, unsigned int thread)
{
	static uint64_t data[PAGE_WORDS];
	ssize_t got;
	while ((got = read(work->pipe[0], data, sizeof(data))) > 0) {
		for (size_t i = 0; i < (size_t)got / sizeof(data[0]); i++)
			read_sum += data[i];
		did(work, thread, (uint64_t)(got == sizeof(data)));
	}
}

static void produce_and_consume(struct work *work, unsigned int thread)
{
	if (thread == 0)
		produce(work);
	else if (thread + 1 == work->threads)
		consume(work, thread);
}

/* ---------------------------------------------------------------------------------------------- */

static void sleep_on(struct work *work, unsigned int thread)
{
	if (thread == 0)
		sleep(work->seconds);
}

static const struct kind {
	const char *name;
	void (*fill)(struct work *, unsigned int thread),
		(*run)(struct work *, unsigned int thread);
} kinds[] = {
	{ "scan", fill_part, scan },	       { "far", fill_far, scan },
	{ "pair", NULL, change_table },	       { "independent", NULL, change_own },
	{ "pipe", NULL, produce_and_consume }, { "none", NULL, sleep_on },
};

static void fill_main(void *context, unsigned int thread)
{
	struct work *work = context;
	work->fill(work, thread);
}

static void run_main(void *context, unsigned int thread)
{
	struct work *work = context;
	work->run(work, thread);
}

static uint64_t done_in_all(const struct work *work)
{
	uint64_t sum = 0;
	for (unsigned int i = 0; i < work->threads; i++)
		sum += atomic_load(work->done[i]);
	return sum;
}

struct report {
	const struct work *work;
	const char *name;
	uint64_t hz;
};

/* Looks at the counts once a second: little enough not to count as work. */
static void *report_main(void *arg)
{
	const struct report *r = arg;
	uint64_t before = 0;
	for (unsigned int second = 1; second <= r->work->seconds; second++) {
		uint64_t until = r->work->end_tsc - (r->work->seconds - second) * r->hz;
		while (tsc_read() < until)
			usleep(50000);
		uint64_t now = done_in_all(r->work);
		printf("%s second %u: %llu\n", r->name, second, (unsigned long long)(now - before));
		fflush(stdout);
		before = now;
	}
	return NULL;
}

static void run(const struct kind *kind, struct work *work)
{
	struct report report = { work, kind->name, tsc_measure_hz() };
	pthread_t thread;
	if (work->fill)
		cpus_run(work->threads, 0, fill_main, work);
	uint64_t begin = tsc_read();
	work->end_tsc = begin + work->seconds * report.hz;
	pthread_create(&thread, NULL, report_main, &report);
	cpus_run(work->threads, 0, run_main, work);
	double seconds = (double)(tsc_read() - begin) / (double)report.hz;
	pthread_join(thread, NULL);
	printf("%s: %llu in %.2f s, %.1f a second\n", kind->name,
	       (unsigned long long)done_in_all(work), seconds, (double)done_in_all(work) / seconds);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "mib", required_argument, NULL, 'm' },
						 { "seconds", required_argument, NULL, 's' },
						 { "cpus", required_argument, NULL, 'c' },
						 { 0 } };
	static struct work work = { .seconds = 5 };
	uint64_t mib = 8;
	unsigned int cpus = 1;
	cpu_set_t all;
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'm')
			mib = number_argument("--mib", optarg, 1 << 20);
		else if (option == 's')
			work.seconds = (unsigned int)number_argument("--seconds", optarg, 3600);
		else if (option == 'c')
			cpus = (unsigned int)number_argument("--cpus", optarg, GUEST_THREADS);
		else
			return 2;
	}
	/* The mask of a process that began before is not of those that come later. */
	while (sysconf(_SC_NPROCESSORS_ONLN) < (long)cpus)
		usleep(50000);
	sched_setaffinity(0, sizeof(all), memset(&all, 0xff, sizeof(all)));
	work.threads = cpus_count();
	if (work.threads > GUEST_THREADS)
		work.threads = GUEST_THREADS;
	work.pages = mib * 256;
	if (work.pages < work.threads * OWN_PAGES)
		work.pages = work.threads * OWN_PAGES;
	work.word = pages_new(work.pages);
	work.turn = pages_new(1);
	for (unsigned int i = 0; i < work.threads; i++)
		work.done[i] = pages_new(1);
	for (; optind < argc; optind++) {
		size_t i = 0;
		while (i < sizeof(kinds) / sizeof(kinds[0]) &&
		       strcmp(kinds[i].name, argv[optind]) != 0)
			i++;
		if (i == sizeof(kinds) / sizeof(kinds[0]) || pipe(work.pipe) < 0) {
			fprintf(stderr, "work: there is no %s\n", argv[optind]);
			return 2;
		}
		work.fill = kinds[i].fill;
		work.run = kinds[i].run;
		for (unsigned int t = 0; t < work.threads; t++)
			atomic_store(work.done[t], 0);
		run(&kinds[i], &work);
	}
	return 0;
}
