/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs a device to pin pages that are here, and to let them go: windows (pager/window.h) of a
 * node alone.
 *
 *	build/bench/window_bench          ns for each number of pages, the least of some rounds
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "memory/guest_memory.h"
#include "pager/pager.h"
#include "pager/window.h"

#define MEMORY_BYTES (64u << 20)
#define PAGES_MAX    256u
#define ROUNDS	     20u
#define PINS	     2000u

static void die(const char *what)
{
	fprintf(stderr, "window_bench: %s\n", what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void pin_soon(struct pager *pager, struct dma *dma, const struct dma_span *span,
		     uint32_t count, void **hva)
{
	while (dma_pin(dma, span, count, hva) < 0)
		while (pager_window_ready(pager) == UINT32_MAX)
			usleep(100);
	dma_unpin(dma, span, count);
}

/* The least of some rounds: what the machine's other work adds is no part of it. */
static double measure(struct dma *dma, const struct dma_span *span, uint32_t count)
{
	void *hva[PAGES_MAX];
	uint64_t least = UINT64_MAX;

	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint64_t begin = now_ns(), took;

		for (uint32_t i = 0; i < PINS; i++) {
			if (dma_pin(dma, span, count, hva) < 0)
				die("a page has gone");
			dma_unpin(dma, span, count);
		}
		took = now_ns() - begin;
		least = took < least ? took : least;
	}
	return (double)least / PINS;
}

int main(void)
{
	static const uint32_t pages[] = { 1, 4, 16, 64, 256 };
	struct guest_memory_config memory = { .range = { { 0, MEMORY_BYTES } },
					      .range_count = 1,
					      .shard_count = 1 };
	struct pager_config config = { .node_count = 1,
				       .capacity_bytes = MEMORY_BYTES,
				       .window_count = 1 };
	struct dma_span span[PAGES_MAX];
	void *hva[PAGES_MAX];
	struct pager *pager = NULL;
	struct dma *dma;

	if (guest_memory_create(&memory, &config.memory) < 0 || pager_create(&config, &pager) < 0 ||
	    pager_start(pager) < 0)
		die("no memory, or no userfaultfd");
	dma = pager_window(pager, 0);
	for (uint32_t i = 0; i < PAGES_MAX; i++)
		span[i] = (struct dma_span){ .gpa = i * 3ull << 12, .length = 4096, .write = true };
	pin_soon(pager, dma, span, PAGES_MAX, hva);
	for (uint32_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		printf("%3u pages, each a span: %7.1f ns\n", pages[i],
		       measure(dma, span, pages[i]));
	span[0].length = 64u << 12;
	pin_soon(pager, dma, span, 1, hva);
	printf(" 64 pages, one span:    %7.1f ns\n", measure(dma, span, 1));
	pager_stop(pager);
	pager_destroy(pager);
	guest_memory_destroy(config.memory);
	return 0;
}
