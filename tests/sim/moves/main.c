/* SPDX-License-Identifier: Apache-2.0 */
/* The command of the simulator of moving vCPUs, and the test of its judge. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/moves/world.h"

static const char help[] =
	"The deterministic simulator of vCPUs that move.\n"
	"\n"
	"  sim-moves --count N [--from A]    seeds A.. (1..), N of them\n"
	"  sim-moves --seed S [--trace]      one seed, with every step on stdout\n"
	"  sim-moves --regressions FILE      the seeds that failed once\n"
	"  sim-moves --broken                every broken variant must be caught\n"
	"\n"
	"  --set NAME=VALUE  a value of the plan (--verbose shows them); may be given again\n"
	"  --verbose         a line for every seed\n"
	"\n"
	"Exit status: 0 when nothing failed, 1 when something did, 2 for a wrong command line.\n";

#define SETTINGS_MAX 24
#define FAILURES_MAX 10
#define BROKEN_SEEDS 2000

struct options {
	uint64_t first, count;
	bool trace, verbose, broken;
	const char *regressions;
	const char *setting[SETTINGS_MAX];
	uint32_t setting_count;
};

static void make_plan(const struct options *options, uint64_t seed, struct plan *ret_plan)
{
	plan_make(ret_plan, seed);
	for (uint32_t i = 0; i < options->setting_count; i++)
		(void)plan_set(ret_plan, options->setting[i]);
}

/* ---- seeds ----------------------------------------------------------------------------------- */

static uint64_t running; /* for who looks at a crash */

static void on_death(int number)
{
	char text[64];
	int bytes = snprintf(text, sizeof(text), "FAILED seed %" PRIu64 ": signal %d\n", running,
			     number);

	if (write(1, text, (size_t)bytes) < 0)
		_exit(1);
	_exit(1);
}

static uint64_t run_seeds(const struct options *options)
{
	struct world_result sum = { 0 };
	uint64_t failed = 0, seed = options->first, bounded = 0;

	for (; seed < options->first + options->count && failed < FAILURES_MAX; seed++) {
		struct world_result result;
		struct plan plan;

		running = seed;
		make_plan(options, seed, &plan);
		if (options->trace)
			plan_print(&plan, stdout);
		if (world_run(&plan, options->trace, &result))
			abort();
		if (result.rule) {
			failed++;
			printf("FAILED seed %" PRIu64 ": %s at %" PRIu64 " ns: %s\n", seed,
			       rule_name(result.rule), result.at_ns, result.text);
		}
		if (options->verbose) {
			printf("seed %" PRIu64 ": %s, %" PRIu64 " events, %" PRIu64
			       " moves, %" PRIu64 " interrupts: ",
			       seed, rule_name(result.rule), result.events, result.moves,
			       result.interrupts);
			plan_print(&plan, stdout);
		}
		sum.events += result.events;
		sum.messages += result.messages;
		sum.moves += result.moves;
		sum.refused += result.refused;
		sum.interrupts += result.interrupts;
		bounded += result.bound_permille > 0;
		if (result.bound_permille > sum.bound_permille)
			sum.bound_permille = result.bound_permille;
		if (result.bound_permille && result.forwards > sum.forwards)
			sum.forwards = result.forwards;
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " failed: %" PRIu64 " moves, %" PRIu64
	       " refused, %" PRIu64 " interrupts, %" PRIu64 " messages, %" PRIu64 " events\n",
	       seed - options->first, failed, sum.moves, sum.refused, sum.interrupts, sum.messages,
	       sum.events);
	if (options->count > 1)
		printf("%" PRIu64
		       " with a bound: at most %u permille of it, and %u times on the way\n",
		       bounded, sum.bound_permille, sum.forwards);
	return failed;
}

/* ---- regressions ----------------------------------------------------------------------------- */

/* A line: the seed, name=value ..., "#" and what it was. */
static uint64_t run_regressions(const struct options *options)
{
	FILE *file = fopen(options->regressions, "r");
	uint64_t failed = 0;
	char line[512];

	if (!file) {
		printf("FAILED: %s cannot be read\n", options->regressions);
		return 1;
	}
	while (fgets(line, sizeof(line), file)) {
		struct options one = { .count = 1 };
		struct plan plan;
		char *save, *word;

		line[strcspn(line, "#\n")] = 0;
		word = strtok_r(line, " \t", &save);
		if (!word)
			continue;
		one.first = strtoull(word, NULL, 0);
		while ((word = strtok_r(NULL, " \t", &save)) && one.setting_count < SETTINGS_MAX) {
			if (plan_set(&plan, word)) {
				printf("FAILED seed %" PRIu64 ": no setting is \"%s\"\n", one.first,
				       word);
				failed++;
			}
			one.setting[one.setting_count++] = word;
		}
		failed += run_seeds(&one);
	}
	fclose(file);
	return failed;
}

/* ---- the test of the judge --------------------------------------------------------------------- */

static const struct variant {
	uint8_t core, edge;
	const char *name;
	const char *setting; /* what the defect is about, so that more seeds are about it */
} variants[] = {
	{ PLACE_BROKEN_OLD_BELIEVED, 0, "old news believed", NULL },
	{ PLACE_BROKEN_NEWS_IGNORED, 0, "overtaken answer", NULL },
	{ PLACE_BROKEN_LEAVING_AWAY, 0, "leaving is away", NULL },
	{ PLACE_BROKEN_ARRIVING_AWAY, 0, "arriving is away", NULL },
	{ 0, EDGE_BROKEN_LOOK_FIRST, "look, then post", NULL },
	{ 0, EDGE_BROKEN_FORWARD_EARLY, "forwarded before MOVE", NULL },
	{ 0, EDGE_BROKEN_NO_LOCK, "MOVE without the lock", NULL },
	{ 0, EDGE_BROKEN_REFUSAL_DROPS, "refusal drops", "refuse_percent=50" },
	{ 0, EDGE_BROKEN_GATHERED, "gathered, then refused", "refuse_percent=50" },
	{ 0, EDGE_BROKEN_FORGET, "mover does not look", NULL },
	{ 0, EDGE_BROKEN_DRAIN_FIRST, "drained, then LEAVING", "startup_percent=50" },
	{ 0, EDGE_BROKEN_STEAL, "forward by an old look", "startup_percent=50" },
	{ 0, EDGE_BROKEN_STRAIGHT, "INIT and SIPI straight", "startup_percent=50" },
	{ 0, EDGE_BROKEN_TAKEN_EARLY, "TAKEN early", "startup_percent=50" },
	{ 0, EDGE_BROKEN_LEAVES_ASKING, "leaves while it asks", "startup_percent=50" },
	{ 0, EDGE_BROKEN_SETTLE, "TAKEN behind PLACE", "startup_percent=50" },
	{ 0, EDGE_BROKEN_OWED, "leaves before PLACE", "dwell_ns=0" },
};
#define VARIANT_COUNT (sizeof(variants) / sizeof(variants[0]))

static bool try_broken(const struct options *options, const struct variant *variant, uint64_t seed,
		       struct world_result *ret_result)
{
	struct plan plan;

	make_plan(options, seed, &plan);
	if (plan.nodes > 6)
		plan.nodes = 6;
	if (variant->setting)
		(void)plan_set(&plan, variant->setting);
	plan.core_broken = variant->core;
	plan.edge_broken = variant->edge;
	if (world_run(&plan, false, ret_result))
		abort();
	return ret_result->rule != RULE_NONE;
}

static uint64_t run_broken(const struct options *options)
{
	uint64_t missed = VARIANT_COUNT != PLACE_BROKEN_COUNT + EDGE_BROKEN_COUNT - 2;

	if (missed)
		printf("FAILED: not every defect is tried\n");
	for (size_t i = 0; i < VARIANT_COUNT; i++) {
		struct world_result result = { 0 };
		uint64_t seed = options->first;
		bool caught = false;

		for (; seed < options->first + BROKEN_SEEDS && !caught; seed++)
			caught = try_broken(options, &variants[i], seed, &result);
		missed += !caught;
		printf("%s  %-24s by %-9s at seed %4" PRIu64 "  %s\n", caught ? "caught" : "FAILED",
		       variants[i].name, rule_name(result.rule), seed - 1, result.text);
	}
	return missed;
}

/* ---- the command line ------------------------------------------------------------------------ */

static int wrong(const char *what)
{
	fprintf(stderr, "sim-moves: %s; see sim-moves --help\n", what);
	return 2;
}

static int parse_option(struct options *options, const char *name, const char *value)
{
	struct plan scratch;

	if (!strcmp(name, "--seed")) {
		options->first = strtoull(value, NULL, 0);
		options->count = 1;
	} else if (!strcmp(name, "--count")) {
		options->count = strtoull(value, NULL, 0);
	} else if (!strcmp(name, "--from")) {
		options->first = strtoull(value, NULL, 0);
	} else if (!strcmp(name, "--regressions")) {
		options->regressions = value;
	} else if (!strcmp(name, "--set") && options->setting_count < SETTINGS_MAX &&
		   !plan_set(&scratch, value)) {
		options->setting[options->setting_count++] = value;
	} else {
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct options options = { .first = 1 };
	uint64_t failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGABRT, on_death);
	signal(SIGSEGV, on_death);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			fputs(help, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--trace"))
			options.trace = true;
		else if (!strcmp(argv[i], "--verbose"))
			options.verbose = true;
		else if (!strcmp(argv[i], "--broken"))
			options.broken = true;
		else if (i + 1 == argc || parse_option(&options, argv[i], argv[i + 1]))
			return wrong(argv[i]);
		else
			i++;
	}
	if (options.broken)
		failed += run_broken(&options);
	if (options.regressions)
		failed += run_regressions(&options);
	if (options.count)
		failed += run_seeds(&options);
	return failed ? 1 : 0;
}
