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
 *   regions      one thread changes pages of that memory, region by region of 8 MiB: all pages of
 *                one four times at random, then another one at random      unit: a page
 *   random       one thread changes pages of that memory at random         unit: a page
 *   far          as scan, but only what the last vCPU's thread has written
 *   pair         two threads, on the first and the last vCPU, take turns to change a word of one
 *                table of 64 pages                                         unit: a change
 *   crossed      two such pairs: vCPUs 0 and 2, and 1 and 3, if there are 4 (of 2 N: I and I + N)
 *   independent  a thread on every vCPU changes memory of its own          unit: a page
 *   table        a thread on every vCPU reads lines of 64 MiB at random, and writes into one of a
 *                hundred thousand                                          unit: a line
 *   pipe         two threads on the first and last vCPU: one writes into a pipe, the other reads and
 *                sums up                                                   unit: 4 KiB
 *   none         sleeps
 *
 * --cpus N: waits until the guest has so many; in a pod they come one by one.
 * --busy N: independent and table have only so many threads, spread over the vCPUs.
 * --wait: for each line from stdin: writes the memory, says "ready", works when another line comes.
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
#define KINDS_MAX   64
#define OWN_PAGES   512u  /* of an independent thread */
#define LOOK_EVERY  16u	  /* pages between looks at the time */
#define SPINS	    2000u /* before sleeping until it is one's turn */

#define REGION_PAGES	    2048u
#define REGION_TIMES	    4u
#define READ_PAGES	    16384u /* of the table that all read */
#define LINE_WORDS	    8u
#define READS_FOR_ONE_WRITE 100000u
#define READS_AT_ONCE	    1000u /* between looks at the time */

static const struct timespec patience = { .tv_sec = 1 };

struct work {
	uint64_t *word;
	uint64_t pages;
	unsigned int threads, seconds, busy;
	uint64_t end_tsc;
	struct turn *turn; /* one for each pair */
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

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Of all threads as many as are to be busy, spread evenly. */
static bool is_busy(const struct work *work, unsigned int thread)
{
	return thread * work->busy % work->threads < work->busy;
}

/* ---- scan, far, regions, random -------------------------------------------------------------- */

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

static uint64_t sum_of(const uint64_t *word, uint64_t count)
{
	uint64_t sum = 0;
	for (uint64_t i = 0; i < count; i++)
		sum += word[i];
	return sum;
}

static void scan(struct work *work, unsigned int thread)
{
	if (thread)
		return;
	for (uint64_t page = 0; page % LOOK_EVERY || !is_over(work); page++) {
		read_sum += sum_of(page_at(work, page % work->pages), PAGE_WORDS);
		did(work, 0, 1);
	}
}

static void change_page(struct work *work, uint64_t page)
{
	uint64_t *at = page_at(work, page);
	at[page % PAGE_WORDS] = sum_of(at, PAGE_WORDS);
	did(work, 0, 1);
}

static void change_regions(struct work *work, unsigned int thread)
{
	static uint16_t order[REGION_PAGES * REGION_TIMES];
	uint64_t random = 0x9e3779b97f4a7c15u;
	if (thread)
		return;
	for (uint32_t i = 0; i < REGION_PAGES * REGION_TIMES; i++)
		order[i] = i % REGION_PAGES;
	while (!is_over(work)) {
		uint64_t first = random_next(&random) % (work->pages / REGION_PAGES) * REGION_PAGES;
		for (uint32_t i = REGION_PAGES * REGION_TIMES; i-- && !is_over(work);) {
			/* Every page is drawn as often as it is in the list. */
			uint32_t k = (uint32_t)(random_next(&random) % (i + 1));
			uint16_t page = order[k];
			order[k] = order[i];
			order[i] = page;
			change_page(work, first + page);
		}
	}
}

static void change_at_random(struct work *work, unsigned int thread)
{
	uint64_t random = 0x9e3779b97f4a7c15u;
	while (thread == 0 && !is_over(work))
		change_page(work, random_next(&random) % work->pages);
}

/* ---- pair, crossed --------------------------------------------------------------------------- */

/* Whose turn it is, and who sleeps until it is his. A page of its own. */
struct turn {
	_Alignas(GUEST_PAGE) _Atomic uint32_t of;
	_Atomic uint32_t sleeps[2];
};

/* False: it is over. The other may have seen that first, and gives no more turns. */
static bool turn_wait(const struct work *work, struct turn *turn, uint32_t me)
{
	for (uint32_t spins = 0; atomic_load(&turn->of) != me; spins++) {
		if (is_over(work))
			return false;
		if (spins < SPINS) {
			__builtin_ia32_pause();
			continue;
		}
		atomic_store(&turn->sleeps[me], 1);
		syscall(SYS_futex, &turn->of, FUTEX_WAIT, !me, &patience, NULL, 0);
		atomic_store(&turn->sleeps[me], 0);
	}
	return true;
}

static void turn_give(struct turn *turn, uint32_t to)
{
	atomic_store(&turn->of, to);
	if (atomic_load(&turn->sleeps[to]))
		syscall(SYS_futex, &turn->of, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Each of a pair has its `me`; a pair of one has all turns. */
static void change_table(struct work *work, unsigned int thread, unsigned int pair, uint32_t me)
{
	uint64_t random = 0x9e3779b97f4a7c15u * (thread + 1);
	uint64_t *word = page_at(work, pair * TABLE_PAGES);
	struct turn *turn = &work->turn[pair];
	while (!is_over(work)) {
		uint64_t at = random_next(&random) % (TABLE_PAGES * PAGE_WORDS);
		if (work->threads > 1 && !turn_wait(work, turn, me))
			break;
		word[at] += word[(at + 7 * PAGE_WORDS) % (TABLE_PAGES * PAGE_WORDS)];
		did(work, thread, 1);
		turn_give(turn, !me);
	}
}

static void change_in_pair(struct work *work, unsigned int thread)
{
	if (thread == 0 || thread + 1 == work->threads)
		change_table(work, thread, 0, thread != 0);
}

static void change_crossed(struct work *work, unsigned int thread)
{
	unsigned int pairs = work->threads / 2;
	if (work->threads == 1)
		change_table(work, 0, 0, 0);
	else if (thread < 2 * pairs)
		change_table(work, thread, thread % pairs, thread >= pairs);
}

/* ---- independent, table ---------------------------------------------------------------------- */

static void change_own_page(struct work *work, unsigned int thread, uint64_t page)
{
	uint64_t *at = page_at(work, thread * OWN_PAGES + page % OWN_PAGES);
	for (uint64_t i = 0; i < PAGE_WORDS; i++)
		at[i] = at[i] * 5 + page;
}

static void fill_own(struct work *work, unsigned int thread)
{
	for (uint64_t page = 0; page < OWN_PAGES && is_busy(work, thread); page++)
		change_own_page(work, thread, page);
}

static void change_own(struct work *work, unsigned int thread)
{
	if (!is_busy(work, thread))
		return;
	for (uint64_t page = 0; page % LOOK_EVERY || !is_over(work); page++) {
		change_own_page(work, thread, page);
		did(work, thread, 1);
	}
}

static void read_table(struct work *work, unsigned int thread)
{
	uint64_t random = 0x9e3779b97f4a7c15u * (thread + 1);
	/* Not all write at once. */
	uint64_t reads = READS_FOR_ONE_WRITE / work->threads * thread;
	while (is_busy(work, thread) && !is_over(work)) {
		uint64_t sum = 0;
		for (uint32_t i = 0; i < READS_AT_ONCE; i++) {
			uint64_t line =
				random_next(&random) % (READ_PAGES * PAGE_WORDS / LINE_WORDS);
			uint64_t *word = work->word + line * LINE_WORDS;
			sum += sum_of(word, LINE_WORDS);
			if (++reads % READS_FOR_ONE_WRITE == 0)
				word[reads % LINE_WORDS]++;
		}
		read_sum += sum;
		did(work, thread, READS_AT_ONCE);
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
	work->pipe[1] = -1;
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
	{ "scan", fill_part, scan },
	{ "regions", fill_part, change_regions },
	{ "random", fill_part, change_at_random },
	{ "far", fill_far, scan },
	{ "pair", NULL, change_in_pair },
	{ "crossed", NULL, change_crossed },
	{ "independent", fill_own, change_own },
	{ "table", fill_part, read_table },
	{ "pipe", NULL, produce_and_consume },
	{ "none", NULL, sleep_on },
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

/* False: there are no more. */
static bool read_line(void)
{
	char c;
	while (read(STDIN_FILENO, &c, 1) == 1)
		if (c == '\n')
			return true;
	return false;
}

static bool say_ready(void)
{
	printf("ready\n");
	fflush(stdout);
	return read_line();
}

static void run(const struct kind *kind, struct work *work)
{
	struct report report = { work, kind->name, tsc_measure_hz() };
	pthread_t thread;
	work->run = kind->run;
	for (unsigned int t = 0; t < work->threads; t++)
		atomic_store(work->done[t], 0);
	uint64_t begin = tsc_read();
	work->end_tsc = begin + work->seconds * report.hz;
	pthread_create(&thread, NULL, report_main, &report);
	cpus_run(work->threads, 0, run_main, work);
	double seconds = (double)(tsc_read() - begin) / (double)report.hz;
	pthread_join(thread, NULL);
	printf("%s: %llu in %.2f s, %.1f a second\n", kind->name,
	       (unsigned long long)done_in_all(work), seconds, (double)done_in_all(work) / seconds);
	fflush(stdout);
}

/* Each node gets its part back, whatever the work before has moved. */
static void fill(struct work *work, const struct kind *const *kind, int count)
{
	for (int k = 0; k < count; k++) {
		int first = 0;
		while (kind[first]->fill != kind[k]->fill)
			first++;
		work->fill = kind[k]->fill;
		if (work->fill && first == k)
			cpus_run(work->threads, 0, fill_main, work);
	}
}

/* All work that is asked for, in turn. */
static int run_all(struct work *work, char **names, int count, bool wait)
{
	const struct kind *kind[KINDS_MAX];
	for (int k = 0; k < count; k++) {
		size_t i = 0;
		while (i < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[i].name, names[k]) != 0)
			i++;
		if (i == sizeof(kinds) / sizeof(kinds[0]) || k == KINDS_MAX) {
			fprintf(stderr, "work: there is no %s\n", names[k]);
			return 2;
		}
		kind[k] = &kinds[i];
	}
	while (!wait || read_line()) {
		fill(work, kind, count);
		if (wait && !say_ready())
			break;
		for (int k = 0; k < count; k++) {
			if (pipe(work->pipe) < 0)
				return 3;
			run(kind[k], work);
			close(work->pipe[0]);
			if (work->pipe[1] >= 0)
				close(work->pipe[1]);
		}
		if (!wait)
			break;
	}
	return 0;
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "mib", required_argument, NULL, 'm' },
						 { "seconds", required_argument, NULL, 's' },
						 { "cpus", required_argument, NULL, 'c' },
						 { "busy", required_argument, NULL, 'b' },
						 { "wait", no_argument, NULL, 'w' },
						 { 0 } };
	static struct work work = { .seconds = 5 };
	uint64_t mib = 8;
	unsigned int cpus = 1;
	bool wait = false;
	cpu_set_t all;
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'm')
			mib = number_argument("--mib", optarg, 1 << 20);
		else if (option == 's')
			work.seconds = (unsigned int)number_argument("--seconds", optarg, 3600);
		else if (option == 'c')
			cpus = (unsigned int)number_argument("--cpus", optarg, GUEST_THREADS);
		else if (option == 'b')
			work.busy = (unsigned int)number_argument("--busy", optarg, GUEST_THREADS);
		else if (option == 'w')
			wait = true;
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
	if (!work.busy || work.busy > work.threads)
		work.busy = work.threads;
	work.pages = max_of(mib * 256, max_of(READ_PAGES, work.threads * OWN_PAGES));
	work.word = pages_new(work.pages);
	work.turn = pages_new(work.threads);
	for (unsigned int i = 0; i < work.threads; i++)
		work.done[i] = pages_new(1);
	return run_all(&work, argv + optind, argc - optind, wait);
}
