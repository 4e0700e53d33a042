/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locked instructions whose operand lies across two pages. x86 makes them atomic like any other
 * (SDM vol. 3, 8.1.2.2), and two pages may be on two nodes.
 *
 * Threads on all vCPUs work on one operand, each turn by one instruction of one shape and size, at
 * every place where the edge can be. A lost or a torn update shows in what the instruction returns,
 * or in the operand when all have ended:
 *
 *   sums       ADD, SUB, ADC, SBB, INC, DEC, XADD, CMPXCHG, CMPXCHG8B: the sum of what was added
 *   tokens     XCHG: each thread has one; afterwards they are all there, once
 *   own bits   BTS, BTR, BTC, OR, AND, XOR: a bit for each thread, which nobody else changes
 *   parity     NOT, NEG: two of them are none
 *
 * Sizes are 2, 4 and 8 bytes: a byte has no two pages, and 16 bytes have to be aligned.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/guest/cpus.h"

/* Each byte of a sum moves, and carries go over the edge. */
#define STEP	    0x6789abcdef012345ull
#define NEG_START   0x0123456789abcdefull
#define THREADS_MAX 14u /* bits of the smallest operand, two left over */

struct run;

struct shape {
	const char *name;
	uint64_t start;
	/* One turn, the n'th of thread t: whether something is wrong. */
	bool (*turn)(struct run *run, unsigned int t, uint64_t n);
	/* What the operand must be after so many turns of all threads; NULL: judge_tokens(). */
	uint64_t (*end)(const struct run *run);
};

struct run {
	const struct shape *shape;
	unsigned int size, threads;
	uint8_t *at; /* the operand: `first` of its bytes are before the edge */
	unsigned int first;
	uint64_t turns;
	uint64_t wanted;  /* turns, if there is time */
	uint64_t end_ns;  /* of all shapes; 0: whenever */
	uint64_t each_ns; /* lately, a turn of all threads */
	bool spoil;	  /* without LOCK: shows that this program can fail */
	uint64_t token[GUEST_THREADS];
	uint64_t wrong[GUEST_THREADS];
};

static uint64_t mask_of(const struct run *run)
{
	return run->size == 8 ? UINT64_MAX : (1ull << 8 * run->size) - 1;
}

static uint64_t look(const struct run *run)
{
	uint64_t value = 0;
	memcpy(&value, run->at, run->size);
	return value;
}

static uint64_t all_turns(const struct run *run)
{
	return run->turns * run->threads;
}

/*
 * The instruction on run->at in each size, with `value` in a register (and the CF that goes in and
 * out, and what is in rax). SPOILT: the same without LOCK.
 */
struct values {
	uint64_t value, accumulator;
	bool carry;
};

#define FORM(prefix, insn, suffix, operands, type)                                                 \
	__asm__ volatile("bt $0, %k[in]\n\t" prefix insn suffix " " operands                       \
			 : [memory] "+m"(*(type *)(void *)run->at), [value] "+r"(value),           \
			   "+a"(accumulator), "=@ccc"(carry)                                       \
			 : [in] "r"((uint32_t)values->carry)                                       \
			 : "memory")

#define SIZES(prefix, insn, two, four, eight)                                                      \
	do {                                                                                       \
		if (run->size == 2)                                                                \
			FORM(prefix, insn, "w", two, uint16_t);                                    \
		else if (run->size == 4)                                                           \
			FORM(prefix, insn, "l", four, uint32_t);                                   \
		else                                                                               \
			FORM(prefix, insn, "q", eight, uint64_t);                                  \
	} while (0)

#define OPERATION(name, insn, two, four, eight)                                                    \
	static void name(struct run *run, struct values *values)                                   \
	{                                                                                          \
		uint64_t value = values->value, accumulator = values->accumulator;                 \
		bool carry;                                                                        \
		if (run->spoil)                                                                    \
			SIZES("", insn, two, four, eight);                                         \
		else                                                                               \
			SIZES("lock ", insn, two, four, eight);                                    \
		*values = (struct values){ value, accumulator, carry };                            \
	}

#define WITH_REGISTER(name)                                                                        \
	OPERATION(do_##name, #name, "%w[value], %[memory]", "%k[value], %[memory]",                \
		  "%q[value], %[memory]")
#define ALONE(name) OPERATION(do_##name, #name, "%[memory]", "%[memory]", "%[memory]")

WITH_REGISTER(add)
WITH_REGISTER(sub)
WITH_REGISTER(adc)
WITH_REGISTER(sbb)
WITH_REGISTER(and)
WITH_REGISTER(or)
WITH_REGISTER(xor)
WITH_REGISTER(xadd)
WITH_REGISTER(cmpxchg)
WITH_REGISTER(bts)
WITH_REGISTER(btr)
WITH_REGISTER(btc)
ALONE(inc)
ALONE(dec)
ALONE(not )
ALONE(neg)
OPERATION(do_add_immediate, "add", "$0x2345, %[memory]", "$0x6f012345, %[memory]",
	  "$0x6f012345, %[memory]")

/* It locks without the prefix; spoilt, it is a load and a store. */
static void do_xchg(struct run *run, struct values *values)
{
	uint64_t value = values->value;
	if (run->spoil) {
		values->value = look(run);
		memcpy(run->at, &value, run->size);
		return;
	}
	if (run->size == 2)
		__asm__ volatile("xchgw %w0, %1"
				 : "+r"(value), "+m"(*(uint16_t *)(void *)run->at)
				 :
				 : "memory");
	else if (run->size == 4)
		__asm__ volatile("xchgl %k0, %1"
				 : "+r"(value), "+m"(*(uint32_t *)(void *)run->at)
				 :
				 : "memory");
	else
		__asm__ volatile("xchgq %q0, %1"
				 : "+r"(value), "+m"(*(uint64_t *)(void *)run->at)
				 :
				 : "memory");
	values->value = value & mask_of(run);
}

/* ---- sums ---- */

static uint64_t sum_end(const struct run *run)
{
	return (run->shape->start + all_turns(run) * STEP) & mask_of(run);
}

static uint64_t difference_end(const struct run *run)
{
	return (run->shape->start - all_turns(run) * STEP) & mask_of(run);
}

#define SUM_TURN(name, operation, ...)                                                             \
	static bool name(struct run *run, unsigned int t, uint64_t n)                              \
	{                                                                                          \
		struct values values = { __VA_ARGS__ };                                            \
		operation(run, &values);                                                           \
		return false;                                                                      \
	}

SUM_TURN(add_turn, do_add, .value = STEP)
SUM_TURN(sub_turn, do_sub, .value = STEP)
SUM_TURN(adc_turn, do_adc, .value = STEP - 1, .carry = true)
SUM_TURN(sbb_turn, do_sbb, .value = STEP - 1, .carry = true)
SUM_TURN(inc_turn, do_inc, 0)
SUM_TURN(dec_turn, do_dec, 0)
SUM_TURN(not_turn, do_not, 0)
SUM_TURN(neg_turn, do_neg, 0)
SUM_TURN(immediate_turn, do_add_immediate, 0)

static uint64_t immediate_end(const struct run *run)
{
	return (run->shape->start + all_turns(run) * (run->size == 2 ? 0x2345 : 0x6f012345)) &
	       mask_of(run);
}

static uint64_t inc_end(const struct run *run)
{
	return (run->shape->start + all_turns(run)) & mask_of(run);
}

static uint64_t dec_end(const struct run *run)
{
	return (run->shape->start - all_turns(run)) & mask_of(run);
}

static uint64_t not_end(const struct run *run)
{
	return (all_turns(run) % 2 ? ~run->shape->start : run->shape->start) & mask_of(run);
}

static uint64_t neg_end(const struct run *run)
{
	return (all_turns(run) % 2 ? -run->shape->start : run->shape->start) & mask_of(run);
}

/* What was there is a sum of whole steps: by the step's inverse, how many. */
static bool is_whole(const struct run *run, uint64_t value)
{
	uint64_t inverse = STEP;
	for (int i = 0; i < 6; i++)
		inverse *= 2 - STEP * inverse;
	return (((value - run->shape->start) * inverse) & mask_of(run)) <= all_turns(run);
}

static bool xadd_turn(struct run *run, unsigned int t, uint64_t n)
{
	struct values values = { .value = STEP };
	do_xadd(run, &values);
	return !is_whole(run, values.value & mask_of(run));
}

static bool cmpxchg_turn(struct run *run, unsigned int t, uint64_t n)
{
	uint64_t old = look(run);
	for (;;) {
		struct values values = { .value = old + STEP, .accumulator = old };
		do_cmpxchg(run, &values);
		values.accumulator &= mask_of(run);
		if (values.accumulator == old)
			return false;
		if (!is_whole(run, values.accumulator))
			return true;
		old = values.accumulator;
	}
}

static bool cmpxchg8b_turn(struct run *run, unsigned int t, uint64_t n)
{
	uint64_t old = look(run), new;
	uint32_t low = (uint32_t)old, high = (uint32_t)(old >> 32);
	for (bool done = false; !done;) {
		new = ((uint64_t)high << 32 | low) + STEP;
		if (run->spoil)
			__asm__ volatile("cmpxchg8b %1"
					 : "=@ccz"(done), "+m"(*(uint64_t *)(void *)run->at),
					   "+a"(low), "+d"(high)
					 : "b"((uint32_t) new), "c"((uint32_t)(new >> 32))
					 : "memory");
		else
			__asm__ volatile("lock cmpxchg8b %1"
					 : "=@ccz"(done), "+m"(*(uint64_t *)(void *)run->at),
					   "+a"(low), "+d"(high)
					 : "b"((uint32_t) new), "c"((uint32_t)(new >> 32))
					 : "memory");
		if (!is_whole(run, (uint64_t)high << 32 | low))
			return true;
	}
	return false;
}

/* ---- tokens ---- */

/* Bytes that are all the same, so that halves of two are none. */
static uint64_t token_of(const struct run *run, unsigned int number)
{
	return (number + 1) * 0x0101010101010101ull & mask_of(run);
}

static bool xchg_turn(struct run *run, unsigned int t, uint64_t n)
{
	struct values values = { .value = n == 0 ? token_of(run, t) : run->token[t] };
	do_xchg(run, &values);
	run->token[t] = values.value;
	for (unsigned int i = 0; i <= run->threads; i++)
		if (values.value == (i == run->threads ? 0 : token_of(run, i)))
			return false;
	return true;
}

static bool judge_tokens(const struct run *run)
{
	unsigned int found = 0;
	for (unsigned int i = 0; i <= run->threads; i++) {
		uint64_t token = i == run->threads ? 0 : token_of(run, i), count = 0;
		for (unsigned int t = 0; t < run->threads; t++)
			count += run->token[t] == token;
		count += look(run) == token;
		found += count == 1;
	}
	return found == run->threads + 1;
}

/* ---- a bit for each thread ---- */

/* Spread over the operand, so that some are on either side of the edge. */
static unsigned int bit_of(const struct run *run, unsigned int t)
{
	return t * 8 * run->size / THREADS_MAX;
}

static bool has_bit(const struct run *run, unsigned int t)
{
	return look(run) >> bit_of(run, t) & 1;
}

/* Set and cleared by turns. */
static bool bts_btr_turn(struct run *run, unsigned int t, uint64_t n)
{
	struct values values = { .value = bit_of(run, t) };
	bool was = n % 2;
	(was ? do_btr : do_bts)(run, &values);
	return values.carry != was || has_bit(run, t) == was;
}

static bool btc_turn(struct run *run, unsigned int t, uint64_t n)
{
	struct values values = { .value = bit_of(run, t) };
	do_btc(run, &values);
	return values.carry != n % 2 || has_bit(run, t) == n % 2;
}

static bool or_and_turn(struct run *run, unsigned int t, uint64_t n)
{
	struct values values = { .value = 1ull << bit_of(run, t) };
	if (n % 2)
		values.value = ~values.value;
	(n % 2 ? do_and : do_or)(run, &values);
	return has_bit(run, t) == n % 2;
}

static bool xor_turn(struct run *run, unsigned int t, uint64_t n)
{
	struct values values = { .value = 1ull << bit_of(run, t) };
	do_xor(run, &values);
	return has_bit(run, t) == n % 2;
}

static uint64_t bits_end(const struct run *run)
{
	uint64_t value = 0;
	for (unsigned int t = 0; t < run->threads && run->turns % 2; t++)
		value |= 1ull << bit_of(run, t);
	return value;
}

static const struct shape shapes[] = {
	{ "add", 0, add_turn, sum_end },
	{ "add $", 0, immediate_turn, immediate_end },
	{ "sub", 7, sub_turn, difference_end },
	{ "adc", 0, adc_turn, sum_end },
	{ "sbb", 0, sbb_turn, difference_end },
	{ "inc", 0xf0fffffff0fff0f0, inc_turn, inc_end },
	{ "dec", 0x0f0000000f000f0f, dec_turn, dec_end },
	{ "xadd", 0, xadd_turn, sum_end },
	{ "cmpxchg", 0, cmpxchg_turn, sum_end },
	{ "cmpxchg8b", 0, cmpxchg8b_turn, sum_end },
	{ "xchg", 0, xchg_turn, NULL },
	{ "bts, btr", 0, bts_btr_turn, bits_end },
	{ "btc", 0, btc_turn, bits_end },
	{ "or, and", 0, or_and_turn, bits_end },
	{ "xor", 0, xor_turn, bits_end },
	{ "not", 0x5555aaaa5a5a3c3c, not_turn, not_end },
	{ "neg", NEG_START, neg_turn, neg_end },
};

#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))
#define RUNS   (3 * (unsigned int)SHAPES - 2) /* sizes; CMPXCHG8B has one */

static void work(void *context, unsigned int t)
{
	struct run *run = context;
	for (uint64_t n = 0; n < run->turns; n++)
		run->wrong[t] += run->shape->turn(run, t, n);
}

static uint64_t run_one(struct run *run, unsigned int rotation)
{
	uint64_t wrong = 0, end;
	uint8_t *pages = pages_new(2);
	run->at = pages + GUEST_PAGE - run->first;
	memcpy(run->at, &run->shape->start, run->size);
	memset(run->wrong, 0, sizeof(run->wrong));
	cpus_run(run->threads, rotation, work, run);
	for (unsigned int t = 0; t < run->threads; t++)
		wrong += run->wrong[t];
	end = run->shape->end ? run->shape->end(run) : 0;
	if (run->shape->end ? look(run) != end : !judge_tokens(run))
		wrong++;
	return wrong;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Some hosts trap each such instruction, and take milliseconds for it: fewer turns then. */
static void fit_turns(struct run *run, unsigned int runs_left)
{
	uint64_t now = now_ns(), most;

	run->turns = run->wanted;
	if (!run->end_ns)
		return;
	most = now < run->end_ns ? (run->end_ns - now) / runs_left / (run->each_ns + 1) : 0;
	if (!most)
		most = 1;
	if (run->turns > most)
		run->turns = most;
}

static uint64_t run_timed(struct run *run, unsigned int rotation)
{
	uint64_t begin_ns = now_ns(), wrong = run_one(run, rotation);

	run->each_ns = (now_ns() - begin_ns) / run->turns;
	return wrong;
}

int main(int argc, char **argv)
{
	static const struct option known[] = { { "turns", required_argument, NULL, 'n' },
					       { "seconds", required_argument, NULL, 'e' },
					       { "threads", required_argument, NULL, 't' },
					       { "spoil", no_argument, NULL, 's' },
					       { 0 } };
	static struct run run = { .wanted = 100 };
	unsigned int rotation = 0, failures = 0, fewer = 0;
	int option;

	run.threads = cpus_count();
	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'n':
			run.wanted = number_argument("--turns", optarg, 1000000000);
			break;
		case 'e':
			run.end_ns = now_ns() +
				     number_argument("--seconds", optarg, 1000000) * 1000000000u;
			break;
		case 't':
			run.threads =
				(unsigned int)number_argument("--threads", optarg, THREADS_MAX);
			break;
		case 's':
			run.spoil = true;
			break;
		default:
			return 2;
		}
	}
	if (run.threads > THREADS_MAX)
		run.threads = THREADS_MAX;
	/* How long a turn takes, for the first one. */
	run.shape = shapes;
	run.size = run.turns = 2;
	run.first = 1;
	if (run.end_ns)
		failures += run_timed(&run, 0) != 0;
	for (size_t i = 0; i < SHAPES; i++) {
		run.shape = &shapes[i];
		for (run.size = 2; run.size <= 8; run.size *= 2) {
			uint64_t wrong;
			if (run.shape->turn == cmpxchg8b_turn && run.size != 8)
				continue;
			run.first = 1 + rotation % (run.size - 1);
			fit_turns(&run, RUNS - rotation);
			wrong = run_timed(&run, rotation++);
			fewer += run.turns < run.wanted;
			printf("%-9s of %u bytes, %u before the edge: %u threads, %llu turns each%s\n",
			       run.shape->name, run.size, run.first, run.threads,
			       (unsigned long long)run.turns, wrong ? ": WRONG" : "");
			if (wrong)
				printf("  %llu times\n", (unsigned long long)wrong);
			fflush(stdout);
			failures += wrong != 0;
		}
	}
	if (fewer)
		printf("for want of time, fewer than %llu turns of %u\n",
		       (unsigned long long)run.wanted, fewer);
	printf("%u of the shapes failed\n", failures);
	return failures != 0;
}
