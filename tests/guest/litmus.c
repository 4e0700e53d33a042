/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Litmus tests of the guest's memory across vCPUs: what x86-TSO forbids must never be seen.
 *
 * Two kinds. In a *round* test (SB, MP, LB, IRIW, ...) threads meet at a barrier, wait a random
 * while, do one or two accesses each, and the outcome is judged; values are round numbers, so
 * nothing is ever reset and "old" means a smaller number. In a *long* test (counters, locks, slots)
 * threads work against each other until the time is up, and a sum or an invariant is judged.
 *
 * Each runs with its variables in one page (so that nodes fight for one page) and in several (so
 * that pages move on their own), and the threads' vCPUs rotate from test to test. Rounds are as
 * many as the time allows: a pod in the rack makes hundreds, two native cores a million. Allowed
 * outcomes are counted too: a weak outcome that is seen shows that the test could have seen a
 * forbidden one.
 *
 * What the roles do is in tests/litmus_programs.h, which other tests share.
 */
#include <cpuid.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/guest/cpus.h"
#include "tests/litmus_programs.h"

#define BATCH	      256u /* rounds between two judgements: results cost pages, too */
#define ROUND_THREADS 4u
#define OUTCOMES      16u
#define WORDS	      8u

/* ---- single instructions ---- */

static inline uint64_t add(uint64_t *p, uint64_t value)
{
	__asm__ volatile("lock xaddq %0, %1" : "+r"(value), "+m"(*p) : : "cc", "memory");
	return value;
}

static inline bool compare_swap(uint64_t *p, uint64_t old, uint64_t new)
{
	bool done;
	__asm__ volatile("lock cmpxchgq %3, %1"
			 : "=@ccz"(done), "+m"(*p), "+a"(old)
			 : "r"(new)
			 : "memory");
	return done;
}

/* On failure *low and *high are what is there. */
static inline bool compare_swap_pair(uint64_t *p, uint64_t *low, uint64_t *high, uint64_t new_low,
				     uint64_t new_high)
{
	bool done;
	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(done), "+m"(*(__uint128_t *)p), "+a"(*low), "+d"(*high)
			 : "b"(new_low), "c"(new_high)
			 : "memory");
	return done;
}

/* ---- what a run consists of ---- */

struct round_test {
	const char *name;
	unsigned int threads;
	litmus_act *act;
	unsigned int values; /* stored in round r: r; or with two writers 2r and 2r + 1 */
	/* The outcome's number, from all threads' out[]. */
	unsigned int (*judge)(uint64_t out[ROUND_THREADS][2], uint64_t r);
	const char
		*outcome[OUTCOMES]; /* names, up to NULL; a '!' in front: forbidden, a '~': weak */
};

struct options {
	uint64_t seconds, rounds, threads;
	bool as_sc; /* weak outcomes count as forbidden: shows that this program can fail */
	uint64_t hz;
};

/* One page each, written by one side at a time: the barrier, and each thread's results. */
struct round_run {
	const struct round_test *test;
	const struct options *options;
	uint64_t *x, *y;
	uint64_t ticks;	   /* to run for */
	uint64_t *arrived; /* a page: threads that came, over all rounds */
	uint64_t *last;	   /* in the barrier's page: the round after which to end; 0: not known */
	uint64_t (*result[ROUND_THREADS])[2]; /* [2 * BATCH]: judged and being written */
	uint64_t count[OUTCOMES];
	uint64_t rounds;
};

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- the round tests ---- */

/* Round r - 1 is over for everybody when round r begins, so nothing older may be read. */
static bool is_stale(uint64_t value, uint64_t r)
{
	return value != r && value != r - 1;
}

/* 4: a thread did not see its own store, or something from an earlier round. */
static unsigned int sb_judge(uint64_t out[ROUND_THREADS][2], uint64_t r)
{
	if (out[0][1] != r || out[1][1] != r || is_stale(out[0][0], r) || is_stale(out[1][0], r))
		return 4;
	return (out[0][0] < r) + 2 * (out[1][0] < r);
}

static unsigned int mp_judge(uint64_t out[ROUND_THREADS][2], uint64_t r)
{
	bool flag = out[1][0] == r, data = out[1][1] == r;
	if (is_stale(out[1][0], r) || is_stale(out[1][1], r))
		return 4;
	return flag + 2u * data;
}

static unsigned int lb_judge(uint64_t out[ROUND_THREADS][2], uint64_t r)
{
	if (is_stale(out[0][0], r) || is_stale(out[1][0], r))
		return 4;
	return (out[0][0] == r) + 2 * (out[1][0] == r);
}

/* Who has seen the store to x before that to y, and who the reverse: never both. */
static unsigned int iriw_judge(uint64_t out[ROUND_THREADS][2], uint64_t r)
{
	for (unsigned int t = 2; t < 4; t++)
		if (is_stale(out[t][0], r) || is_stale(out[t][1], r))
			return 4;
	bool x_first = out[2][0] == r && out[2][1] != r;
	bool y_first = out[3][0] == r && out[3][1] != r;
	return x_first + 2u * y_first;
}

/* One location: its readings never go back. */
static unsigned int corr_judge(uint64_t out[ROUND_THREADS][2], uint64_t r)
{
	if (is_stale(out[1][0], r) || is_stale(out[1][1], r))
		return 4;
	return (out[1][0] == r) + 2 * (out[1][1] == r);
}

/* One location, two writers: both readers see the stores in one order. */
static unsigned int co_judge(uint64_t out[ROUND_THREADS][2], uint64_t r)
{
	unsigned int order[2] = { 0, 0 };
	for (unsigned int i = 0; i < 2; i++) {
		uint64_t first = out[2 + i][0], second = out[2 + i][1];
		if (is_stale(first / 2, r) || is_stale(second / 2, r) ||
		    (first >= 2 * r && second < 2 * r))
			return 4;
		if (first >= 2 * r && second >= 2 * r && first != second)
			order[i] = first < second ? 1 : 2;
	}
	if (order[0] && order[1])
		return order[0] == order[1] ? 1 : 3;
	return order[0] || order[1] ? 2 : 0;
}

/* y may be from any round before: role 1 does not store in all. */
static unsigned int wrc_judge(uint64_t out[ROUND_THREADS][2], uint64_t r)
{
	bool flag = out[2][0] == r, data = out[2][1] == r;
	if (is_stale(out[1][0], r) || out[2][0] > r || is_stale(out[2][1], r))
		return 4;
	return flag + 2u * data;
}

#define ROUND(name, threads, act, values, judge, ...)                                              \
	{                                                                                          \
		name, threads, act, values, judge,                                                 \
		{                                                                                  \
			__VA_ARGS__                                                                \
		}                                                                                  \
	}

static const struct round_test round_tests[] = {
	ROUND("SB", 2, litmus_sb, 1, sb_judge, "both new", "1st old", "2nd old", "~both old",
	      "!lost"),
	ROUND("SB+mfence", 2, litmus_sb_fence, 1, sb_judge, "both new", "1st old", "2nd old",
	      "!both old", "!lost"),
	ROUND("SB+xchg", 2, litmus_sb_swap, 1, sb_judge, "both new", "1st old", "2nd old",
	      "!both old", "!lost"),
	ROUND("MP", 2, litmus_mp, 1, mp_judge, "both old", "!flag only", "data only", "both new",
	      "!stale"),
	ROUND("LB", 2, litmus_lb, 1, lb_judge, "both old", "1st new", "2nd new", "!both new",
	      "!stale"),
	ROUND("WRC", 3, litmus_wrc, 1, wrc_judge, "both old", "!flag only", "data only", "both new",
	      "!stale"),
	ROUND("IRIW", 4, litmus_iriw, 1, iriw_judge, "no order", "x first", "y first",
	      "!they differ", "!stale"),
	ROUND("CoRR", 2, litmus_corr, 1, corr_judge, "both old", "!went back", "turned", "both new",
	      "!stale"),
	ROUND("CoWW", 4, litmus_coww, 2, co_judge, "none turned", "same turn", "one turned",
	      "!they differ", "!went back"),
};

#undef ROUND

#define ROUND_TESTS (sizeof(round_tests) / sizeof(round_tests[0]))

/* Everybody is here for round r when this returns. */
static void meet(struct round_run *run, uint64_t r)
{
	unsigned int spins = 0;
	add(run->arrived, 1);
	while (litmus_get(run->arrived) < r * run->test->threads)
		cpus_relax(&spins);
}

/* Rounds first..last, all threads having left the last. */
static void judge_rounds(struct round_run *run, uint64_t first, uint64_t last)
{
	for (uint64_t r = first; r <= last; r++) {
		uint64_t out[ROUND_THREADS][2] = { 0 };
		for (unsigned int t = 0; t < run->test->threads; t++)
			memcpy(out[t], run->result[t][r % (2 * BATCH)], sizeof(out[t]));
		run->count[run->test->judge(out, r)]++;
	}
	run->rounds = last;
}

static bool has_weak(const struct round_run *run)
{
	for (unsigned int i = 0; i < OUTCOMES && run->test->outcome[i]; i++)
		if (run->test->outcome[i][0] == '~' && run->count[i])
			return true;
	return false;
}

/* A delay between nothing and half of what a round takes, which may be 100 ns or 10 ms. */
static void wait_a_little(uint64_t *seed, uint64_t round_ticks)
{
	uint64_t choice = random_next(seed), most = round_ticks / 2;
	if (choice % 4 == 0)
		return;
	if (choice % 4 == 1 && most > 256)
		most = 256;
	if (!most)
		return;
	uint64_t until = tsc_read() + (choice >> 8) % most;
	while (tsc_read() < until)
		;
}

static void round_work(void *context, unsigned int t)
{
	struct round_run *run = context;
	struct litmus_cell cell = { .x = run->x, .y = run->y };
	uint64_t seed = 0x9e3779b97f4a7c15ull * (t + 1), then = tsc_read(), ticks = 1000;
	uint64_t deadline = then + run->ticks;
	for (uint64_t r = 1;; r++) {
		if (t == 0 && (r >= run->options->rounds || tsc_read() >= deadline))
			litmus_put(run->last, r);
		meet(run, r);
		if (t == 0 && r > 1 && (r - 1) % BATCH == 0) {
			judge_rounds(run, r - BATCH, r - 1);
			if (run->options->as_sc && has_weak(run))
				deadline = 0;
		}
		wait_a_little(&seed, ticks);
		cell.one = run->test->values * r;
		cell.two = cell.one + 1;
		run->test->act(&cell, t, run->result[t][r % (2 * BATCH)]);
		uint64_t now = tsc_read();
		/* A quick round's time: slow ones were somebody else's use of the CPU. */
		ticks = now - then < ticks ? now - then : ticks + ticks / 64 + 1;
		then = now;
		if (litmus_get(run->last) == r)
			return;
	}
}

static bool print_outcomes(const struct round_run *run, const char *where, bool as_sc)
{
	uint64_t forbidden = 0;
	printf("%-10s %-9s %9llu rounds:", run->test->name, where, (unsigned long long)run->rounds);
	for (unsigned int i = 0; i < OUTCOMES && run->test->outcome[i]; i++) {
		const char *name = run->test->outcome[i];
		printf(" %s %llu%s", name, (unsigned long long)run->count[i],
		       i + 1 < OUTCOMES && run->test->outcome[i + 1] ? "," : "");
		if (name[0] == '!' || (as_sc && name[0] == '~'))
			forbidden += run->count[i];
	}
	printf(forbidden ? " FORBIDDEN %llu\n" : "\n", (unsigned long long)forbidden);
	fflush(stdout);
	return forbidden == 0;
}

static bool round_test_run(const struct round_test *test, const struct options *options, bool apart,
			   unsigned int rotation, uint64_t ticks)
{
	struct round_run run = { .test = test, .options = options };
	uint8_t *pages = pages_new(3 + ROUND_THREADS * 2);
	run.arrived = (uint64_t *)pages;
	run.last = run.arrived + 8;
	run.x = (uint64_t *)(pages + GUEST_PAGE);
	run.y = (uint64_t *)(pages + (apart ? 2 * GUEST_PAGE : GUEST_PAGE + 64));
	_Static_assert(sizeof(uint64_t[2 * BATCH][2]) == 2 * GUEST_PAGE,
		       "results fill their pages");
	for (unsigned int t = 0; t < ROUND_THREADS; t++)
		run.result[t] = (void *)(pages + (3 + 2 * t) * GUEST_PAGE);
	run.ticks = ticks;
	cpus_run(test->threads, rotation, round_work, &run);
	uint64_t last = litmus_get(run.last);
	judge_rounds(&run, (last - 1) / BATCH * BATCH + 1, last);
	return print_outcomes(&run, apart ? "two pages" : "one page", options->as_sc);
}

/* ---- the long tests ---- */

/*
 * Slot of a thread in `shared`, in the last page of its own in `own`. A thread counts what it did;
 * the sums are compared when all have ended.
 */
struct long_run {
	const struct long_test *test;
	const struct options *options;
	unsigned int threads;
	bool apart;
	uint64_t ticks;		       /* to run for */
	uint8_t *shared;	       /* LONG_PAGES */
	uint64_t done[GUEST_THREADS];  /* written once, at a thread's end */
	uint64_t wrong[GUEST_THREADS]; /* the same */
};

struct long_test {
	const char *name;
	unsigned int threads_max;
	/* One turn of thread t, the n'th: what is wrong, as a count. */
	uint64_t (*turn)(struct long_run *run, unsigned int t, uint64_t n);
	/* After the end, with the sum of all turns: what is wrong. NULL: nothing to judge. */
	uint64_t (*judge)(const struct long_run *run, uint64_t sum);
};

#define LONG_PAGES (GUEST_THREADS + 2)

/* The index'th variable of a run: lines of one page, or pages. */
static uint64_t *variable(const struct long_run *run, unsigned int index)
{
	return (uint64_t *)(run->shared + index * (run->apart ? GUEST_PAGE : 64u));
}

static uint64_t xadd_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	return add(variable(run, 0), 1) < n; /* each of our own turns has made it larger */
}

static uint64_t inc_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	uint64_t *counter = variable(run, 0);
	__asm__ volatile("lock incq %0" : "+m"(*counter) : : "cc", "memory");
	return litmus_get(counter) < n + 1;
}

static uint64_t cmpxchg_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	uint64_t *counter = variable(run, 0), old;
	do
		old = litmus_get(counter);
	while (!compare_swap(counter, old, old + 1));
	return old < n;
}

static uint64_t counter_judge(const struct long_run *run, uint64_t sum)
{
	return litmus_get(variable(run, 0)) != sum;
}

/* The second half is the first times a constant, always: half an update would be seen. */
#define PAIR_FACTOR 0x9e3779b97f4a7c15ull

static uint64_t cmpxchg16b_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	uint64_t *pair = variable(run, 0), low = litmus_get(pair), high = low * PAIR_FACTOR;
	while (!compare_swap_pair(pair, &low, &high, low + 1, (low + 1) * PAIR_FACTOR))
		if (high != low * PAIR_FACTOR)
			return 1;
	return low < n;
}

static uint64_t cmpxchg16b_judge(const struct long_run *run, uint64_t sum)
{
	uint64_t *pair = variable(run, 0);
	return pair[0] != sum || pair[1] != sum * PAIR_FACTOR;
}

/* In a lock: two counters elsewhere, always equal, by plain instructions. */
static uint64_t locked_turn(struct long_run *run)
{
	uint64_t *first = variable(run, 2), *second = variable(run, 3);
	uint64_t a = litmus_get(first), b = litmus_get(second);
	litmus_put(first, a + 1);
	litmus_put(second, b + 1);
	return a != b;
}

static uint64_t locked_judge(const struct long_run *run, uint64_t sum)
{
	return litmus_get(variable(run, 2)) != sum || litmus_get(variable(run, 3)) != sum;
}

static uint64_t spinlock_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	unsigned int spins = 0;
	uint64_t *lock = variable(run, 0);
	while (litmus_swap(lock, 1))
		while (litmus_get(lock))
			cpus_relax(&spins);
	uint64_t wrong = locked_turn(run);
	litmus_put(lock, 0);
	return wrong;
}

static uint64_t ticket_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	unsigned int spins = 0;
	uint64_t *next = variable(run, 0), *serving = variable(run, 1), ticket = add(next, 1);
	while (litmus_get(serving) != ticket)
		cpus_relax(&spins);
	uint64_t wrong = locked_turn(run);
	litmus_put(serving, ticket + 1);
	return wrong;
}

/* Dekker's idea in Peterson's words: a lock of plain stores and loads, and one fence for TSO. */
static uint64_t peterson_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	unsigned int spins = 0;
	uint64_t *mine = variable(run, 4 + t), *other = variable(run, 5 - t);
	uint64_t *turn = variable(run, 0);
	litmus_put(mine, 1);
	litmus_put(turn, 1 - t);
	litmus_fence();
	while (litmus_get(other) && litmus_get(turn) == 1 - t)
		cpus_relax(&spins);
	uint64_t wrong = locked_turn(run);
	litmus_put(mine, 0);
	return wrong;
}

/* One writes words in order, the others read them in reverse order: never rising. */
static uint64_t stream_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	uint64_t wrong = 0, last = 0;
	if (t == 0) {
		for (unsigned int i = 0; i < WORDS; i++)
			litmus_put(variable(run, i), n + 1);
		return 0;
	}
	for (unsigned int i = WORDS; i-- > 0;) {
		uint64_t value = litmus_get(variable(run, i));
		wrong += value < last;
		last = value;
	}
	return wrong;
}

/*
 * False sharing: thread t alone counts in a byte, a 16-bit and a 64-bit word of its own, by plain
 * instructions; others count right beside. Apart, the 64-bit word lies across pages t and t + 1.
 */
struct slots {
	uint8_t *byte;
	uint16_t *half;
	uint64_t *word;
};

static struct slots slots_of(const struct long_run *run, unsigned int t)
{
	uint8_t *base = run->shared;
	struct slots slots = { .byte = base + t,
			       .half = (uint16_t *)(base + GUEST_THREADS + 2 * t),
			       .word = (uint64_t *)(base + 1024 + 8 * t) };
	if (run->apart)
		slots.word = (uint64_t *)(base + (t + 1) * GUEST_PAGE - 3);
	return slots;
}

static uint64_t slots_turn(struct long_run *run, unsigned int t, uint64_t n)
{
	struct slots slots = slots_of(run, t);
	__asm__ volatile("incb %0\n\tincw %1\n\tincq %2"
			 : "+m"(*slots.byte), "+m"(*slots.half), "+m"(*slots.word)
			 :
			 : "cc", "memory");
	uint64_t word;
	memcpy(&word, slots.word, sizeof(word));
	return word != n + 1;
}

static uint64_t slots_judge(const struct long_run *run, uint64_t sum)
{
	uint64_t wrong = 0;
	for (unsigned int t = 0; t < run->threads; t++) {
		struct slots slots = slots_of(run, t);
		uint64_t word;
		memcpy(&word, slots.word, sizeof(word));
		wrong += word != run->done[t] || *slots.half != (uint16_t)run->done[t] ||
			 *slots.byte != (uint8_t)run->done[t];
	}
	return wrong;
}

static const struct long_test long_tests[] = {
	{ "xadd", GUEST_THREADS, xadd_turn, counter_judge },
	{ "inc", GUEST_THREADS, inc_turn, counter_judge },
	{ "cmpxchg", GUEST_THREADS, cmpxchg_turn, counter_judge },
	{ "cmpxchg16b", GUEST_THREADS, cmpxchg16b_turn, cmpxchg16b_judge },
	{ "spinlock", GUEST_THREADS, spinlock_turn, locked_judge },
	{ "ticket", GUEST_THREADS, ticket_turn, locked_judge },
	{ "peterson", 2, peterson_turn, locked_judge },
	{ "stream", GUEST_THREADS, stream_turn, NULL },
	{ "slots", GUEST_THREADS, slots_turn, slots_judge },
};

#define LONG_TESTS (sizeof(long_tests) / sizeof(long_tests[0]))

static void long_work(void *context, unsigned int t)
{
	struct long_run *run = context;
	uint64_t n = 0, wrong = 0, deadline = tsc_read() + run->ticks;
	do
		wrong += run->test->turn(run, t, n++);
	while (n < run->options->rounds && tsc_read() < deadline);
	run->done[t] = n;
	run->wrong[t] = wrong;
}

static bool long_test_run(const struct long_test *test, const struct options *options, bool apart,
			  unsigned int rotation, uint64_t ticks)
{
	static struct long_run run;
	memset(&run, 0, sizeof(run));
	run.test = test;
	run.options = options;
	run.apart = apart;
	run.threads = (unsigned int)options->threads;
	if (run.threads > test->threads_max)
		run.threads = test->threads_max;
	run.shared = pages_new(LONG_PAGES);
	run.ticks = ticks;
	cpus_run(run.threads, rotation, long_work, &run);
	uint64_t sum = 0, wrong = 0;
	for (unsigned int t = 0; t < run.threads; t++) {
		sum += run.done[t];
		wrong += run.wrong[t];
	}
	if (test->judge)
		wrong += test->judge(&run, sum);
	printf("%-10s %-9s %9llu turns of %u threads", test->name, apart ? "two pages" : "one page",
	       (unsigned long long)sum, run.threads);
	printf(wrong ? ", FORBIDDEN %llu\n" : "\n", (unsigned long long)wrong);
	fflush(stdout);
	return wrong == 0;
}

/* ---- the program ---- */

static bool has_cmpxchg16b(void)
{
	unsigned int a, b, c, d;
	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_CMPXCHG16B);
}

static void usage(FILE *to)
{
	fputs("usage: litmus [--seconds N] [--rounds N] [--threads N] [--judge-as-sc] [TEST...]\n"
	      "\n"
	      "Runs memory litmus tests across vCPUs; exits with 1 if an outcome is seen that x86-TSO\n"
	      "forbids (marked '!'; '~' is weak but allowed). Without names, all tests:\n ",
	      to);
	for (size_t i = 0; i < ROUND_TESTS; i++)
		fprintf(to, " %s", round_tests[i].name);
	for (size_t i = 0; i < LONG_TESTS; i++)
		fprintf(to, " %s", long_tests[i].name);
	fputs("\n\n"
	      "  --seconds N     for all tests together (10)\n"
	      "  --rounds N      at most so many rounds, or turns of a thread, in each\n"
	      "  --threads N     in counters, locks and slots (a thread a vCPU, at least 2)\n"
	      "  --judge-as-sc   weak outcomes are forbidden too, and end a test: must fail on any x86\n",
	      to);
}

static bool is_wanted(const char *name, char **names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return count == 0;
}

static bool name_is_known(const char *name)
{
	for (size_t i = 0; i < ROUND_TESTS; i++)
		if (strcmp(round_tests[i].name, name) == 0)
			return true;
	for (size_t i = 0; i < LONG_TESTS; i++)
		if (strcmp(long_tests[i].name, name) == 0)
			return true;
	return false;
}

/* All wanted tests, each in both layouts. With `options` NULL only counts them. */
static unsigned int run_all(const struct options *options, char **names, int count,
			    unsigned int runs, unsigned int *ret_failed)
{
	unsigned int done = 0, failed = 0;
	uint64_t ticks = options ? options->hz * options->seconds / runs : 0;
	for (size_t i = 0; i < 2 * ROUND_TESTS; i++)
		if (is_wanted(round_tests[i / 2].name, names, count)) {
			done++;
			if (options)
				failed += !round_test_run(&round_tests[i / 2], options, i % 2, done,
							  ticks);
		}
	for (size_t i = 0; i < 2 * LONG_TESTS; i++) {
		const struct long_test *test = &long_tests[i / 2];
		if (!is_wanted(test->name, names, count))
			continue;
		if (test->turn == cmpxchg16b_turn && !has_cmpxchg16b()) {
			if (options && i % 2)
				printf("%-10s: this CPU has not got it\n", test->name);
			continue;
		}
		done++;
		if (options)
			failed += !long_test_run(test, options, i % 2, done, ticks);
	}
	if (ret_failed)
		*ret_failed = failed;
	return done;
}

int main(int argc, char **argv)
{
	static const struct option options_known[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "threads", required_argument, NULL, 't' },
		{ "judge-as-sc", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct options options = { .seconds = 10,
				   .rounds = UINT64_MAX / 4,
				   .threads = cpus_count() };
	int option;
	if (options.threads < 2)
		options.threads = 2;
	while ((option = getopt_long(argc, argv, "h", options_known, NULL)) >= 0) {
		if (option == 's')
			options.seconds = number_argument("--seconds", optarg, 1000000);
		else if (option == 'r')
			options.rounds = number_argument("--rounds", optarg, UINT64_MAX / 4);
		else if (option == 't')
			options.threads = number_argument("--threads", optarg, GUEST_THREADS);
		else if (option == 'j')
			options.as_sc = true;
		else {
			usage(option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : 2;
		}
	}
	char **names = argv + optind;
	int count = argc - optind;
	for (int i = 0; i < count; i++)
		if (!name_is_known(names[i])) {
			fprintf(stderr, "litmus: there is no test '%s'; see --help\n", names[i]);
			return 2;
		}
	options.hz = tsc_measure_hz();
	unsigned int failed, runs = run_all(NULL, names, count, 1, NULL);
	run_all(&options, names, count, runs, &failed);
	printf("litmus: %u runs on %u vCPUs, %u with forbidden outcomes\n", runs, cpus_count(),
	       failed);
	return failed ? 1 : 0;
}
