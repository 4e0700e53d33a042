/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator's command. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/options.h"

static const char help[] =
	"The deterministic simulator of the page protocol.\n"
	"\n"
	"  simulator --count N [--from A]    seeds A.. (1..), N of them\n"
	"  simulator --seeds A..B            these seeds\n"
	"  simulator --seed S [--trace]      one seed, with every step on stdout\n"
	"  simulator --regressions FILE      the seeds that failed once\n"
	"  simulator --broken                every broken variant of the core must be caught\n"
	"  simulator --report messages       messages per stall at 4, 16, 64, 256 nodes\n"
	"  simulator --report holds          useful work on slow links, by the length of holds\n"
	"  simulator --report members        messages per stall after --count changes of members (1000)\n"
	"\n"
	"  --set NAME=VALUE  a value of the plan (--verbose shows them); may be given again\n"
	"                    (hold_ns=default: as nodes have it)\n"
	"  --jobs N          processes (2)\n"
	"  --failures N      stop after N failures (10)\n"
	"  --verbose         a line for every seed\n"
	"\n"
	"Exit status: 0 when nothing failed, 1 when something did, 2 for a wrong command line.\n";

void options_plan(const struct options *options, uint64_t seed, struct plan *ret_plan)
{
	plan_make(ret_plan, seed);
	for (uint32_t i = 0; i < options->setting_count; i++)
		(void)plan_set(ret_plan, options->setting[i]);
	if (ret_plan->leaves >= ret_plan->nodes)
		ret_plan->leaves = ret_plan->nodes - 1; /* somebody must stay */
}

static int wrong(const char *what)
{
	fprintf(stderr, "simulator: %s; see simulator --help\n", what);
	return 2;
}

static int add_setting(struct options *options, const char *setting)
{
	struct plan scratch = { 0 };

	if (options->setting_count == SETTINGS_MAX || plan_set(&scratch, setting))
		return -EINVAL;
	options->setting[options->setting_count++] = setting;
	return 0;
}

static int parse_seeds(struct options *options, const char *text)
{
	char *end;

	options->first = strtoull(text, &end, 0);
	if (end == text || strncmp(end, "..", 2))
		return -EINVAL;
	options->last = strtoull(end + 2, &end, 0);
	return *end || options->last < options->first ? -EINVAL : 0;
}

struct command {
	struct options options;
	const char *regressions, *report;
	uint64_t count;
	bool broken;
};

/* One option with its value. Returns 0 or -EINVAL. */
static int parse_option(struct command *command, const char *name, const char *value)
{
	struct options *options = &command->options;

	if (!strcmp(name, "--seeds"))
		return parse_seeds(options, value);
	if (!strcmp(name, "--set"))
		return add_setting(options, value);
	if (!strcmp(name, "--seed"))
		options->first = options->last = strtoull(value, NULL, 0);
	else if (!strcmp(name, "--count"))
		command->count = strtoull(value, NULL, 0);
	else if (!strcmp(name, "--from"))
		options->first = strtoull(value, NULL, 0);
	else if (!strcmp(name, "--jobs"))
		options->jobs = (uint32_t)strtoul(value, NULL, 0);
	else if (!strcmp(name, "--failures"))
		options->failures_max = (uint32_t)strtoul(value, NULL, 0);
	else if (!strcmp(name, "--regressions"))
		command->regressions = value;
	else if (!strcmp(name, "--report"))
		command->report = value;
	else
		return -EINVAL;
	return 0;
}

static int run_command(struct command *command)
{
	struct options *options = &command->options;
	uint64_t failed = 0;

	if (command->count)
		options->last = options->first + command->count - 1;
	if (options->trace && options->first != options->last)
		return wrong("--trace wants one --seed");
	if (command->report && !strcmp(command->report, "messages"))
		failed = report_messages();
	else if (command->report && !strcmp(command->report, "holds"))
		failed = report_holds();
	else if (command->report && !strcmp(command->report, "members"))
		failed = report_members(command->count ? command->count : 1000);
	else if (command->report)
		return wrong("reports are: messages, holds, members");
	else if (command->broken)
		failed = broken_run(options);
	else {
		if (command->regressions)
			failed += regressions_run(options, command->regressions);
		if (options->last)
			failed += seeds_run(options);
	}
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct command command = { .options = { .first = 1, .jobs = 2, .failures_max = 10 } };

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			fputs(help, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--trace"))
			command.options.trace = true;
		else if (!strcmp(argv[i], "--verbose"))
			command.options.verbose = true;
		else if (!strcmp(argv[i], "--broken"))
			command.broken = true;
		else if (i + 1 == argc || parse_option(&command, argv[i], argv[i + 1]))
			return wrong(argv[i]);
		else
			i++;
	}
	if (command.options.jobs < 1 || command.options.jobs > 64)
		return wrong("--jobs wants 1 to 64");
	return run_command(&command);
}
