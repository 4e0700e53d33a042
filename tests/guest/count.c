/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count [avx2] WINDOWS: how fast a loop counts that needs no memory, in millions a second, for each tenth
 * of a second. For bench/moves, which moves the vCPU meanwhile. It says "start", and when all is over a
 * line for each tenth: when that ended, in seconds from then on, and its rate. To print meanwhile would
 * take the kernel's pages to and fro. With avx2 all vector registers hold something, besides.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WINDOW_NS   100000000ull
#define ROUND	    20000ull
#define WINDOWS_MAX 10000u

struct window {
	uint64_t end_ns, rounds, ns;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/*
 * Each multiplication waits for the one before, so that where the loop's code lies, and where in it a
 * vCPU goes on, makes no difference.
 */
static uint64_t count_round(uint64_t x)
{
	for (uint64_t i = 0; i < ROUND; i++)
		__asm__ volatile(".rept 16\n\timul %0, %0\n\t.endr" : "+r"(x) : : "cc");
	return x;
}

/* Each register's bytes are its number and others, so that none is zero and no two are alike. */
__attribute__((target("avx2"))) static void count_round_avx2(void)
{
	static _Alignas(32) uint8_t bytes[16][32];
	uint64_t rounds = ROUND;

	for (int r = 0; r < 16; r++)
		for (int i = 0; i < 32; i++)
			bytes[r][i] = (uint8_t)(1 + r * 8 + i * 3);
#define LOAD(n) "vmovdqa " #n "*32(%1), %%ymm" #n "\n\t"
	__asm__ volatile(LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) LOAD(6) LOAD(7) LOAD(8)
				 LOAD(9) LOAD(10) LOAD(11) LOAD(12) LOAD(13) LOAD(14)
					 LOAD(15) "1: vpaddd %%ymm0, %%ymm1, %%ymm1\n\t"
						  "dec %0\n\t"
						  "jnz 1b\n\t"
						  "vzeroupper"
			 : "+r"(rounds)
			 : "r"(bytes)
			 : "memory", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7",
			   "ymm8", "ymm9", "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15");
}

static void count(struct window *window, bool avx2)
{
	static uint64_t x = 3;
	uint64_t begin_ns = now_ns();

	do {
		if (avx2)
			count_round_avx2();
		else
			x = count_round(x);
		window->rounds++;
		window->end_ns = now_ns();
		window->ns = window->end_ns - begin_ns;
	} while (window->ns < WINDOW_NS);
}

int main(int argc, char **argv)
{
	static struct window window[WINDOWS_MAX];
	bool avx2 = argc > 2 && strcmp(argv[1], "avx2") == 0;
	unsigned long windows = argc > 1 ? strtoul(argv[argc - 1], NULL, 10) : 0;
	uint64_t start_ns;

	if (!windows || windows > WINDOWS_MAX || argc > 3 || (argc == 3 && !avx2)) {
		fprintf(stderr, "usage: count [avx2] WINDOWS\n");
		return 2;
	}
	memset(window, 1, windows * sizeof(*window)); /* the pages are there */
	memset(window, 0, windows * sizeof(*window));
	puts("start");
	fflush(stdout);
	start_ns = now_ns();
	for (unsigned long w = 0; w < windows; w++)
		count(&window[w], avx2);
	for (unsigned long w = 0; w < windows; w++)
		printf("%.4f %.1f\n", (double)(window[w].end_ns - start_ns) / 1e9,
		       (double)(window[w].rounds * ROUND) * 1e3 / (double)window[w].ns);
	return 0;
}
