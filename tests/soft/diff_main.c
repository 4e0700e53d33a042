/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soft-diff: random instruction sequences on this CPU and on an engine must end alike. See diff.h.
 *
 *   soft-diff --count 1000000                     so many instructions, of all classes
 *   soft-diff --class string,x87 --seed 7         others
 *   soft-diff --regressions tests/soft/regressions
 *   soft-diff --case 'LINE' --trace               one line of that file, or of a report
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/engine.h"
#include "tests/soft/diff_decode.h"

#define CODE_END       (DIFF_CODE_VA + (DIFF_CODE_PAGES - 2) * (uint64_t)DIFF_PAGE)
#define PAST_MAX       512u /* sequences that are remembered, to say which one is to blame */
#define BLAME_MAX      256u
#define LINE_MAX_BYTES 4096u

struct options {
	const struct engine_ops *engine;
	uint64_t seed, count, seconds, repeat, insn_max, shown_max, every, batch;
	uint32_t classes; /* a bit each */
	enum diff_mode mode;
	bool trace, list, statistics, tolerant, twice, kicks, exact, verbose, opcodes;
	const char *regressions, *line, *bytes;
};

struct blame {
	const char *mnemonic;
	uint32_t count;
};

struct soft_diff {
	struct options options;
	struct diff_plan plan;
	struct diff_forms *forms;
	struct diff_sides sides;
	struct diff_case cases[DIFF_BATCH];
	struct diff_outcome by_native[DIFF_BATCH];
	struct diff_case past[PAST_MAX]; /* what the engine has run, a ring */
	uint64_t past_count;
	bool again; /* all run twice there */
	struct rng rng;
	uint64_t code_at; /* behind the last sequence */
	uint64_t opcode;  /* the next of diff_opcodes_count() */
	uint32_t unusual; /* diff_host_probe() */
	uint64_t instructions, sequences, differences, unsupported, endless, set_aside, unsteady;
	uint64_t vectors[32];
	struct blame blame[BLAME_MAX];
	uint64_t mnemonic_count[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

#define ASKED_AGAIN	3
#define UNSTEADY_MAX	2
#define UNSTEADY_ONE_IN 20000
#define EXIT_SKIPPED	77 /* as meson has it */

static const struct option long_options[] = {
	{ "engine", required_argument, NULL, 'e' },
	{ "seed", required_argument, NULL, 's' },
	{ "count", required_argument, NULL, 'n' },
	{ "seconds", required_argument, NULL, 't' },
	{ "class", required_argument, NULL, 'c' },
	{ "length", required_argument, NULL, 'l' },
	{ "show", required_argument, NULL, 'S' },
	{ "system", no_argument, NULL, 'k' },
	{ "compat", no_argument, NULL, '3' },
	{ "kicks", no_argument, NULL, 'K' },
	{ "opcodes", no_argument, NULL, 'O' },
	{ "every", required_argument, NULL, 'E' },
	{ "batch", required_argument, NULL, 'b' },
	{ "exact-flags", no_argument, NULL, 'x' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "repeat", required_argument, NULL, 'R' },
	{ "twice", no_argument, NULL, 'w' },
	{ "trace", no_argument, NULL, 'T' },
	{ "list", no_argument, NULL, 'L' },
	{ "statistics", no_argument, NULL, 'z' },
	{ "tolerate-unsupported", no_argument, NULL, 'u' },
	{ "regressions", required_argument, NULL, 'r' },
	{ "bytes", required_argument, NULL, 'B' },
	{ "case", required_argument, NULL, 'C' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static const char usage[] =
	"soft-diff [OPTION...]: random instructions on this CPU and on an engine must do the same\n"
	"  --engine kvm|soft       the engine (soft)\n"
	"  --count N               so many instructions, about (100000)\n"
	"  --seconds N             stop after so long, whatever the count\n"
	"  --seed N                other sequences (1)\n"
	"  --class NAME,...        only these classes, and some alu; --list names them\n"
	"  --length N              instructions of a sequence, at most, about (20)\n"
	"  --system                the guest runs them at CPL 0\n"
	"  --exact-flags           flags that nobody reads must be right at faults\n"
	"  --twice                 on the CPU both times: the test of the test itself\n"
	"  --kicks                 kicks the vCPU all the time, and reloads its state\n"
	"  --compat                32-bit code\n"
	"  --opcodes               every opcode there may be, one by one\n"
	"  --every N               of those only every Nth (1)\n"
	"  --batch N               so many run natively before the engine has its turn (64)\n"
	"  --regressions FILE      runs the sequences of that file, and nothing else\n"
	"  --bytes FILE            runs each instruction of that file, and nothing else\n"
	"  --case 'LINE'           runs one sequence, as reported\n"
	"  --repeat N              so often, with --case (1)\n"
	"  --trace                 shows every sequence and how it ended\n"
	"  --show N                differences that are shrunk and shown (10)\n"
	"  --verbose               shows them as they were before, too\n"
	"  --tolerate-unsupported  what the engine says it cannot do is no failure\n"
	"  --statistics            how often each mnemonic was run\n"
	"  --list                  the classes and mnemonics there are\n";

/* How often each class comes when all are wanted. */
static const uint32_t weights[CLASS_COUNT] = {
	[CLASS_ALU] = 24,   [CLASS_SHIFT] = 8,	[CLASS_BIT] = 5,    [CLASS_MULDIV] = 4,
	[CLASS_MOV] = 16,   [CLASS_STACK] = 7,	[CLASS_STRING] = 4, [CLASS_FLAGS] = 3,
	[CLASS_ATOMIC] = 4, [CLASS_BMI] = 5,	[CLASS_SSE] = 12,   [CLASS_AVX] = 14,
	[CLASS_CRYPTO] = 3, [CLASS_X87] = 7,	[CLASS_MMX] = 5,    [CLASS_STATE] = 2,
	[CLASS_MISC] = 2,   [CLASS_SYSTEM] = 1, [CLASS_WALK] = 2,   [CLASS_BRANCH] = 9,
	[CLASS_SMC] = 1,    [CLASS_STEP] = 1,
};

static int read_classes(const char *text, uint32_t *ret_classes)
{
	char *copy = strdup(text), *rest = copy, *name;

	*ret_classes = 0;
	while (copy && (name = strsep(&rest, ","))) {
		uint32_t i = 0;

		while (i < CLASS_COUNT && strcmp(diff_class_name[i], name) != 0)
			i++;
		if (i == CLASS_COUNT) {
			fprintf(stderr, "soft-diff: there is no class '%s'; --list names them\n",
				name);
			free(copy);
			return -EINVAL;
		}
		*ret_classes |= 1u << i;
	}
	free(copy);
	return 0;
}

static int read_engine(const char *name, const struct engine_ops **ret_engine)
{
	static const struct engine_ops *const engines[] = { &engine_soft, &engine_kvm };

	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++)
		if (!strcmp(engines[i]->name, name)) {
			*ret_engine = engines[i];
			return 0;
		}
	fprintf(stderr, "soft-diff: there is no engine '%s'\n", name);
	return -EINVAL;
}

/* Options without a value, and those with a number. */
static const struct {
	int letter;
	size_t at;
} switches[] = {
	{ 'K', offsetof(struct options, kicks) },    { 'x', offsetof(struct options, exact) },
	{ 'v', offsetof(struct options, verbose) },  { 'w', offsetof(struct options, twice) },
	{ 'T', offsetof(struct options, trace) },    { 'L', offsetof(struct options, list) },
	{ 'z', offsetof(struct options, statistics) }, { 'u', offsetof(struct options, tolerant) },
	{ 'O', offsetof(struct options, opcodes) },
}, numbers[] = {
	{ 's', offsetof(struct options, seed) },     { 'n', offsetof(struct options, count) },
	{ 't', offsetof(struct options, seconds) },  { 'l', offsetof(struct options, insn_max) },
	{ 'S', offsetof(struct options, shown_max) }, { 'R', offsetof(struct options, repeat) },
	{ 'E', offsetof(struct options, every) },    { 'b', offsetof(struct options, batch) },
};

/* True: it was one of those. */
static bool read_plain_option(struct options *o, int c)
{
	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
		if (switches[i].letter == c)
			return *(bool *)((char *)o + switches[i].at) = true;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (numbers[i].letter != c)
			continue;
		*(uint64_t *)((char *)o + numbers[i].at) = strtoull(optarg, NULL, 0);
		return true;
	}
	return false;
}

/* 0; 1: asked for help; -EINVAL. */
static int read_option(struct options *o, int c)
{
	switch (c) {
	case 'e':
		return read_engine(optarg, &o->engine);
	case 'c':
		return read_classes(optarg, &o->classes);
	case 'k':
		o->mode = MODE_SYSTEM;
		return 0;
	case '3':
		o->mode = MODE_COMPAT;
		return 0;
	case 'r':
		o->regressions = optarg;
		return 0;
	case 'B':
		o->bytes = optarg;
		return 0;
	case 'C':
		o->line = optarg;
		return 0;
	case 'h':
		fputs(usage, stdout);
		return 1;
	default:
		fputs(usage, stderr);
		return -EINVAL;
	}
}

static int read_options(int argc, char **argv, struct options *o)
{
	int c, err = 0;

	while (!err && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (!read_plain_option(o, c))
			err = read_option(o, c);
	}
	if (o->every < 1)
		o->every = 1;
	if (o->batch < 1 || o->batch > DIFF_BATCH)
		o->batch = DIFF_BATCH;
	if (o->insn_max < 1 || o->insn_max > 60)
		o->insn_max = 20;
	return err;
}

static void make_plan(struct soft_diff *d)
{
	d->plan = (struct diff_plan){ .forms = d->forms,
				      .insn_max = d->options.insn_max,
				      .avx = diff_guest_has_avx(d->sides.guest) };
	for (uint32_t i = 0; i < CLASS_COUNT; i++) {
		if (d->options.classes >> i & 1)
			d->plan.weight[i] = weights[i];
		if (d->options.classes >> i & 1 && d->options.classes != UINT32_MAX)
			d->plan.weight[i] = 20;
	}
	if (d->options.mode == MODE_SYSTEM)
		d->plan.weight[CLASS_SYSTEM] = 0;
	if (d->options.mode == MODE_COMPAT)
		d->plan.weight[CLASS_SMC] = d->plan.weight[CLASS_STATE] = 0;
	if (!diff_guest_has_fsgsbase(d->sides.guest))
		d->plan.weight[CLASS_STATE] = 0;
	if (d->options.classes != UINT32_MAX)
		d->plan.weight[CLASS_ALU] += 3;
}

static int forget(struct soft_diff *d)
{
	d->past_count = 0;
	return diff_guest_forget(d->sides.guest);
}

static void remember(struct soft_diff *d, const struct diff_case *c)
{
	d->past[d->past_count++ % PAST_MAX] = *c;
}

/* Sequences lie behind each other, now and then across the end of a page or into a hole. */
static int place(struct soft_diff *d, struct diff_case *c)
{
	uint64_t at = d->code_at + rng_below(&d->rng, 16), page_end;

	if (diff_code_room(at) == 0)
		at = (at | (DIFF_PAGE - 1)) + 1;
	page_end = (at | (DIFF_PAGE - 1)) + 1;
	if (rng_chance(&d->rng, 8) && page_end - at > 200)
		at = page_end - 1 - rng_below(&d->rng, 120);
	if (diff_code_room(at) < 400 && !(diff_code_room(at) > 16 && rng_chance(&d->rng, 20)))
		at += diff_code_room(at) + DIFF_PAGE + rng_below(&d->rng, 64);
	if (at >= CODE_END) {
		int err = forget(d);

		if (err)
			return err;
		at = DIFF_CODE_VA + rng_below(&d->rng, DIFF_PAGE);
	}
	c->code_va = at;
	return 0;
}

static void add_blame(struct soft_diff *d, const char *mnemonic)
{
	for (uint32_t i = 0; i < BLAME_MAX; i++) {
		if (d->blame[i].mnemonic && strcmp(d->blame[i].mnemonic, mnemonic) != 0)
			continue;
		d->blame[i].mnemonic = mnemonic;
		d->blame[i].count++;
		return;
	}
}

static void show_end(const char *side, const struct diff_case *c, const struct diff_outcome *o)
{
	if (o->status)
		printf("    %s: status %d %s\n", side, o->status, o->detail);
	else
		printf("    %s: vector %u error %x cr2 %lx at instruction %u of %u\n", side,
		       o->vector, o->error, (unsigned long)o->cr2, diff_ended_at(c, o),
		       c->insn_count);
}

/* It does not differ by itself: why then? */
static void explain(struct soft_diff *d, const struct diff_case *c,
		    const struct diff_outcome *native)
{
	const struct diff_case *past[PAST_MAX];
	uint32_t count = d->past_count < PAST_MAX ? (uint32_t)d->past_count : PAST_MAX;

	printf("  only after what ran before it, not alone:\n");
	for (uint32_t i = 0; i < count; i++)
		past[i] = &d->past[(d->past_count - 1 - i) % PAST_MAX];
	if (diff_explain(&d->sides, c, native, past, count) < 0)
		exit(2);
}

/* A difference: shrunk, shown and counted. The engine forgets all code on the way. */
static void report(struct soft_diff *d, const struct diff_case *c,
		   const struct diff_outcome *native, const char *why)
{
	struct diff_case *small = diff_allocate(sizeof(*small));
	char first[sizeof(d->sides.why)];

	d->differences++;
	if (!small || d->differences > d->options.shown_max) {
		free(small);
		return;
	}
	*small = *c;
	snprintf(first, sizeof(first), "%s", why);
	printf("difference %" PRIu64 ":\n%s", d->differences, d->options.verbose ? why : "");
	if (diff_shrink(&d->sides, small) == 1) {
		snprintf(first, sizeof(first), "%s", d->sides.why);
	} else {
		*small = *c;
		explain(d, c, native);
	}
	add_blame(d, diff_mnemonic(small, small->insn_count ? small->insn_count - 1 : 0));
	printf("  ");
	diff_print_line(small);
	diff_print_code(small);
	fputs(first, stdout);
	fflush(stdout);
	if (forget(d))
		exit(2);
	free(small);
}

static void count(struct soft_diff *d, const struct diff_case *c, const struct diff_outcome *o)
{
	uint32_t ended = diff_ended_at(c, o);

	d->sequences++;
	d->instructions += ended + (o->vector != VECTOR_BP);
	d->vectors[o->vector % 32]++;
	if (!d->options.statistics)
		return;
	for (uint32_t i = 0; i < ended; i++) {
		struct diff_insn insn;

		if (diff_decode(c->mode, c->code + c->offset[i], 15, &insn))
			d->mnemonic_count[insn.insn.mnemonic]++;
	}
}

/*
 * On paravirtual hosts a sequence, once in some hundred thousand, ends natively as it does never
 * again: a base of GS that got lost, an int3 that is #UD. Where the engine does what the CPU does each
 * time it is asked again, the first time is not the engine's. 1: so it is; 0; -errno.
 */
static int is_unsteady(struct soft_diff *d, const struct diff_case *c,
		       const struct diff_outcome *native, const struct diff_outcome *guest)
{
	struct diff_outcome *again = &d->sides.by_native;
	uint32_t at;

	if (!diff_host_is_unsteady(d->unusual))
		return 0;
	for (uint32_t i = 0; i < ASKED_AGAIN; i++) {
		int err = diff_native_run(d->sides.native, c, 1, again, &at);

		if (err)
			return err;
		if (again->status ||
		    diff_equal(c, native, again, d->sides.why, sizeof(d->sides.why)) ||
		    !diff_equal(c, again, guest, d->sides.why, sizeof(d->sides.why)))
			return 0;
	}
	return 1;
}

/* Once, and perhaps once more: translated already. */
static int judge(struct soft_diff *d, const struct diff_case *c, const struct diff_outcome *native)
{
	struct diff_outcome *guest = &d->sides.by_guest;
	uint32_t runs = d->again || (c->seed >> 1 & 3) == 0 ? 2 : 1, at;
	int unsteady;
	bool ignored = c->strings &&
		       memcmp(native->code + diff_window_at(c), c->code, diff_code_seen(c)) != 0;

	/* Of these the engine alone is asked. */
	if (d->options.twice && c->single && diff_judge_of(c) >= JUDGE_UNDEFINED)
		return 0;
	for (uint32_t run = 0; run < runs; run++) {
		int err = d->options.twice ? diff_native_run(d->sides.native, c, 1, guest, &at)
					   : diff_guest_run(d->sides.guest, c, guest);

		if (err)
			return err;
		if (d->options.trace)
			show_end("engine", c, guest);
		if (guest->status == -ENOTSUP && d->options.tolerant) {
			d->unsupported++;
			continue;
		}
		/* What natively is #GP may do something at CPL 0, after a wild jump. */
		if (d->options.mode == MODE_SYSTEM && guest->status == -EPROTO)
			ignored = true;
		if (!ignored && !diff_equal(c, native, guest, d->sides.why, sizeof(d->sides.why))) {
			unsteady = is_unsteady(d, c, native, guest);
			if (unsteady < 0)
				return unsteady;
			d->unsteady += (uint32_t)unsteady;
			if (unsteady)
				break;
			/* is_unsteady() has other words */
			(void)diff_equal(c, native, guest, d->sides.why, sizeof(d->sides.why));
			report(d, c, native, d->sides.why);
			return 0;
		}
	}
	remember(d, c);
	return 0;
}

static int run_cases(struct soft_diff *d, uint32_t number)
{
	uint32_t at = 0;
	int err = diff_native_run(d->sides.native, d->cases, number, d->by_native, &at);

	if (err == -EIO) {
		printf("the native side ended in this sequence:\n  ");
		diff_print_line(&d->cases[at]);
		diff_print_code(&d->cases[at]);
	}
	if (err)
		return err;
	for (uint32_t i = 0; i < number; i++) {
		const struct diff_case *c = &d->cases[i];

		if (d->options.trace) {
			diff_print_line(c);
			diff_print_code(c);
			show_end("native", c, &d->by_native[i]);
		}
		if (d->by_native[i].status) {
			d->endless++;
			continue;
		}
		count(d, c, &d->by_native[i]);
		if (diff_host_concerns(d->unusual, c) ||
		    diff_host_refused(d->unusual, &d->by_native[i])) {
			d->set_aside++;
			continue;
		}
		err = judge(d, c, &d->by_native[i]);
		if (err)
			return err;
	}
	return 0;
}

static uint64_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

typedef void make_case(struct soft_diff *d, struct diff_case *c);

/* 0; 1: enough that differ; or an error. */
static int run_batch(struct soft_diff *d, make_case *make)
{
	uint32_t batch = d->options.trace ? 1 : (uint32_t)d->options.batch;
	int err;

	for (uint32_t i = 0; i < batch; i++) {
		struct diff_case *c = &d->cases[i];

		c->seed = rng_next(&d->rng);
		c->mode = d->options.mode;
		c->exact = d->options.exact && !d->options.opcodes;
		err = place(d, c);
		if (err)
			return err;
		make(d, c);
		d->code_at = c->code_va + c->code_bytes;
	}
	err = run_cases(d, batch);
	if (err)
		return err;
	return d->differences > 50 && d->differences > d->options.shown_max;
}

static void make_random(struct soft_diff *d, struct diff_case *c)
{
	diff_generate(&d->plan, c);
}

static int run_random(struct soft_diff *d)
{
	uint64_t end = seconds_now() + d->options.seconds;
	int err = 0;

	d->code_at = DIFF_CODE_VA;
	while (!err && d->instructions < d->options.count &&
	       (!d->options.seconds || seconds_now() < end))
		err = run_batch(d, make_random);
	return err < 0 ? err : 0;
}

static void make_opcode(struct soft_diff *d, struct diff_case *c)
{
	uint32_t total = diff_opcodes_count();

	diff_opcode(d->opcode < total ? (uint32_t)d->opcode : total - 1, c);
	d->opcode += d->options.every;
}

static int run_opcodes(struct soft_diff *d)
{
	int err = 0;

	d->code_at = DIFF_CODE_VA;
	d->opcode = d->options.seed % d->options.every;
	while (!err && d->opcode < diff_opcodes_count())
		err = run_batch(d, make_opcode);
	return err < 0 ? err : 0;
}

/* What each line of a file says. */
static int run_lines(struct soft_diff *d, const char *path,
		     int (*read)(const char *line, struct diff_case *c), bool exact)
{
	FILE *file = fopen(path, "re");
	char line[LINE_MAX_BYTES];
	int err = file ? 0 : -errno;

	while (!err && fgets(line, sizeof(line), file)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		err = read(line, &d->cases[0]);
		d->cases[0].exact = exact;
		if (!err)
			err = forget(d);
		if (!err)
			err = run_cases(d, 1);
	}
	if (file)
		fclose(file);
	return err;
}

/* "64-bit NAME: 0f 01 c4": as an ordinary user. */
static int read_bytes(const char *line, struct diff_case *c)
{
	const char *hex = strchr(line, ':');
	unsigned int byte;
	int at;

	memset(c, 0, sizeof(*c));
	c->seed = 1;
	c->single = true;
	c->mode = line[0] == '3' ? MODE_COMPAT : MODE_USER;
	c->code_va = DIFF_CODE_VA;
	if (!hex)
		return -EINVAL;
	for (hex++; c->code_bytes < 15 && sscanf(hex, "%2x%n", &byte, &at) == 1; hex += at)
		c->code[c->code_bytes++] = (uint8_t)byte;
	diff_state_random(c);
	diff_analyse(c);
	diff_opcode_settle(c);
	return c->code_bytes ? 0 : -EINVAL;
}

static int run_line(struct soft_diff *d)
{
	int err = diff_read_line(d->options.line, &d->cases[0]);

	d->cases[0].exact = d->options.exact;
	for (uint64_t i = 0; i < d->options.repeat && !err && !d->differences; i++)
		err = run_cases(d, 1);
	return err;
}

static void summary(const struct soft_diff *d)
{
	printf("%" PRIu64 " instructions in %" PRIu64 " sequences, %" PRIu64 " differences",
	       d->instructions, d->sequences, d->differences);
	printf(" (seed %" PRIu64 "; %" PRIu64 " without end, %" PRIu64 " unsupported)\n",
	       d->options.seed, d->endless, d->unsupported);
	if (d->unusual)
		printf("%" PRIu64 " sequences were not compared\n", d->set_aside);
	if (d->unsteady)
		printf("%" PRIu64 " ended natively as they did never again\n", d->unsteady);
	if (d->options.kicks)
		printf("%" PRIu64 " kicks in the middle of a sequence\n",
		       diff_guest_reloads(d->sides.guest));
	printf("ended by:");
	for (uint32_t i = 0; i < 32; i++)
		if (d->vectors[i])
			printf(" #%u %" PRIu64, i, d->vectors[i]);
	printf("\n");
	for (uint32_t i = 0; i < BLAME_MAX && d->blame[i].mnemonic; i++)
		printf("differs: %-12s %u\n", d->blame[i].mnemonic, d->blame[i].count);
	for (uint32_t i = 0; d->options.statistics && i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
		if (d->mnemonic_count[i])
			printf("%-16s %" PRIu64 "\n", ZydisMnemonicGetString((ZydisMnemonic)i),
			       d->mnemonic_count[i]);
}

static int run(struct soft_diff *d)
{
	char why[256] = "";
	int err = diff_native_create(&d->sides.native);

	if (!err)
		err = diff_host_probe(d->sides.native, &d->unusual);
	if (!err && !diff_host_runs(d->unusual, d->options.mode))
		err = -ENOTSUP;
	if (err)
		return err;
	err = diff_guest_create(d->options.engine, d->options.kicks, &d->sides.guest, why,
				sizeof(why));
	if (err) {
		fprintf(stderr, "soft-diff: %s\n", why);
		return err;
	}
	d->forms = diff_forms_create(diff_guest_has_avx(d->sides.guest),
				     d->options.mode == MODE_COMPAT);
	if (!d->forms)
		return -ENOMEM;
	make_plan(d);
	if (d->options.list) {
		diff_forms_list(d->forms);
		return 0;
	}
	d->rng.state = d->options.seed;
	d->again = d->options.regressions || d->options.bytes || d->options.line;
	if (d->options.regressions)
		err = run_lines(d, d->options.regressions, diff_read_line, d->options.exact);
	else if (d->options.bytes)
		err = run_lines(d, d->options.bytes, read_bytes, false);
	else if (d->options.line)
		err = run_line(d);
	else if (d->options.opcodes)
		err = run_opcodes(d);
	else
		err = run_random(d);
	summary(d);
	return err;
}

int main(int argc, char **argv)
{
	struct soft_diff *d = diff_allocate(sizeof(*d));
	int err;

	if (!d)
		return 2;
	d->options = (struct options){ .engine = &engine_soft,
				       .seed = 1,
				       .count = 100000,
				       .repeat = 1,
				       .classes = UINT32_MAX,
				       .insn_max = 20,
				       .shown_max = 10 };
	err = read_options(argc, argv, &d->options);
	if (err) {
		free(d);
		return err < 0 ? 2 : 0;
	}
	if (d->options.exact)
		setenv("EAGRE_SOFT_EXACT_FLAGS", "1", 1);
	signal(SIGPIPE, SIG_IGN); /* the native side may end */
	err = run(d);
	if (err)
		fprintf(stderr, "soft-diff: %s\n", strerrordesc_np(-err));
	if (d->unsteady > UNSTEADY_MAX + d->sequences / UNSTEADY_ONE_IN)
		err = -EIO; /* too many for a host's mistakes */
	err = err == -ENOTSUP ? EXIT_SKIPPED : err || d->differences ? 1 : 0;
	diff_guest_destroy(d->sides.guest);
	diff_native_destroy(d->sides.native);
	diff_forms_destroy(d->forms);
	free(d);
	return err;
}
