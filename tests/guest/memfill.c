/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memfill: fills memory that no node holds alone, and checks that all of it is what was written.
 *
 * Threads on all vCPUs fill the memory block by block, in turns, every word with a value made from
 * its own position. Then each thread checks the blocks that it wrote (they may have been pushed to
 * another node since), and last those that its neighbour wrote, so that the pages must travel. That
 * last part visits pages in an order that spreads over the whole memory and may be given a time;
 * how many pages it saw is printed.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/guest/cpus.h"

#define BLOCK_PAGES 256u
#define PAGE_WORDS  (GUEST_PAGE / sizeof(uint64_t))
#define STRIDE	    97u /* prime to BLOCK_PAGES and so to any power of two of blocks */

struct fill {
	uint64_t *word;
	uint64_t pages;
	unsigned int threads;
	uint64_t cross_deadline; /* in TSC ticks; 0: none */
	void (*work)(struct fill *, unsigned int thread);
	uint64_t checked[GUEST_THREADS]; /* pages; written at a thread's end */
	uint64_t wrong[GUEST_THREADS];	 /* words */
	uint64_t first_wrong[GUEST_THREADS];
};

static uint64_t pattern(uint64_t index)
{
	uint64_t value = (index + 1) * 0x9e3779b97f4a7c15ull;
	return value ^ value >> 29;
}

static unsigned int writer_of(const struct fill *fill, uint64_t page)
{
	return (unsigned int)(page / BLOCK_PAGES % fill->threads);
}

static void write_pages(struct fill *fill, unsigned int thread)
{
	for (uint64_t page = 0; page < fill->pages; page++) {
		if (writer_of(fill, page) != thread)
			continue;
		for (uint64_t i = page * PAGE_WORDS; i < (page + 1) * PAGE_WORDS; i++)
			fill->word[i] = pattern(i);
	}
}

static void check_page(struct fill *fill, unsigned int thread, uint64_t page)
{
	for (uint64_t i = page * PAGE_WORDS; i < (page + 1) * PAGE_WORDS; i++)
		if (fill->word[i] != pattern(i) && fill->wrong[thread]++ == 0)
			fill->first_wrong[thread] = i;
	fill->checked[thread]++;
}

static void check_own(struct fill *fill, unsigned int thread)
{
	for (uint64_t page = 0; page < fill->pages; page++)
		if (writer_of(fill, page) == thread)
			check_page(fill, thread, page);
}

/* In steps of STRIDE pages, STRIDE times round: every page once. */
static void check_cross(struct fill *fill, unsigned int thread)
{
	for (uint64_t start = 0; start < STRIDE; start++)
		for (uint64_t page = start; page < fill->pages; page += STRIDE) {
			if (writer_of(fill, page) != (thread + 1) % fill->threads)
				continue;
			if (fill->cross_deadline && tsc_read() >= fill->cross_deadline)
				return;
			check_page(fill, thread, page);
		}
}

static void run_work(void *context, unsigned int thread)
{
	struct fill *fill = context;
	/* Counted in a struct of its own: the others' counts are in the same page. */
	struct fill *own = malloc(sizeof(*own));
	if (!own)
		exit(3);
	*own = *fill;
	own->checked[thread] = own->wrong[thread] = 0;
	fill->work(own, thread);
	fill->checked[thread] = own->checked[thread];
	fill->wrong[thread] = own->wrong[thread];
	fill->first_wrong[thread] = own->first_wrong[thread];
	free(own);
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* One pass over the memory by all threads; returns the number of wrong words. */
static uint64_t pass(struct fill *fill, const char *what, void (*work)(struct fill *, unsigned int))
{
	uint64_t start = now_ms(), checked = 0, wrong = 0;
	fill->work = work;
	cpus_run(fill->threads, 0, run_work, fill);
	for (unsigned int t = 0; t < fill->threads; t++) {
		checked += fill->checked[t];
		wrong += fill->wrong[t];
		if (fill->wrong[t]) {
			uint64_t i = fill->first_wrong[t];
			printf("WRONG: page %llu, word %llu: %016llx, not %016llx\n",
			       (unsigned long long)(i / PAGE_WORDS),
			       (unsigned long long)(i % PAGE_WORDS),
			       (unsigned long long)fill->word[i], (unsigned long long)pattern(i));
		}
	}
	uint64_t took = now_ms() - start;
	printf("%s: %llu of %llu pages, %llu.%03llu s\n", what,
	       (unsigned long long)(work == write_pages ? fill->pages : checked),
	       (unsigned long long)fill->pages, (unsigned long long)(took / 1000),
	       (unsigned long long)(took % 1000));
	fflush(stdout);
	return wrong;
}

static void usage(FILE *to)
{
	fputs("usage: memfill [--threads N] [--cross-seconds N] [--spoil] MIB\n"
	      "\n"
	      "Fills MIB of memory from all vCPUs and checks it, from the writer and from others; exits\n"
	      "with 1 when a word is not what was written.\n"
	      "\n"
	      "  --threads N        (a thread a vCPU, at least 2)\n"
	      "  --cross-seconds N  at most so long for checking what others wrote\n"
	      "  --spoil            flip one bit before checking: must fail\n",
	      to);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "threads", required_argument, NULL, 't' },
		{ "cross-seconds", required_argument, NULL, 'c' },
		{ "spoil", no_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static struct fill fill;
	uint64_t cross_seconds = 0;
	bool spoil = false;
	int option;
	fill.threads = cpus_count() > 1 ? cpus_count() : 2;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		if (option == 't')
			fill.threads =
				(unsigned int)number_argument("--threads", optarg, GUEST_THREADS);
		else if (option == 'c')
			cross_seconds = number_argument("--cross-seconds", optarg, 1000000);
		else if (option == 's')
			spoil = true;
		else {
			usage(option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : 2;
		}
	}
	if (optind + 1 != argc) {
		usage(stderr);
		return 2;
	}
	uint64_t mib = number_argument("MIB", argv[optind], 1u << 24), wrong;
	uint64_t hz = tsc_measure_hz();
	fill.pages = mib * 256;
	fill.word = pages_new(fill.pages);
	pass(&fill, "written", write_pages);
	if (spoil)
		fill.word[fill.pages * PAGE_WORDS / 2 + 3] ^= 1ull << 40;
	wrong = pass(&fill, "checked by their writers", check_own);
	if (cross_seconds)
		fill.cross_deadline = tsc_read() + hz * cross_seconds;
	wrong += pass(&fill, "checked by others", check_cross);
	printf("memfill: %llu MiB from %u threads on %u vCPUs: %s\n", (unsigned long long)mib,
	       fill.threads, cpus_count(), wrong ? "FAILED" : "all as written");
	return wrong ? 1 : 0;
}
