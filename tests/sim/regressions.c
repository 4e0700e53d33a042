/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeds that failed once, from a file. A line: the seed, then name=value settings of its plan, then
 * "#" and what it was. What is a line of its own behind "#", and empty lines, are skipped.
 */
#include "tests/sim/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parse_line(char *line, struct options *options)
{
	char *save, *word;

	line[strcspn(line, "#\n")] = 0;
	word = strtok_r(line, " \t", &save);
	if (!word)
		return false;
	options->first = options->last = strtoull(word, NULL, 0);
	options->setting_count = 0;
	while ((word = strtok_r(NULL, " \t", &save)) && options->setting_count < SETTINGS_MAX)
		options->setting[options->setting_count++] = word;
	return true;
}

static bool settings_known(const struct options *options)
{
	struct plan plan = { 0 };

	for (uint32_t i = 0; i < options->setting_count; i++) {
		if (!plan_set(&plan, options->setting[i]))
			continue;
		printf("FAILED seed %" PRIu64 ": no setting is \"%s\"\n", options->first,
		       options->setting[i]);
		return false;
	}
	return true;
}

uint64_t regressions_run(const struct options *options, const char *path)
{
	struct options one = *options;
	uint64_t failed = 0;
	char line[512];
	FILE *file = fopen(path, "r");

	if (!file) {
		printf("FAILED: %s cannot be read\n", path);
		return 1;
	}
	one.jobs = 1;
	while (fgets(line, sizeof(line), file)) {
		if (!parse_line(line, &one))
			continue;
		if (!settings_known(&one))
			failed++;
		else
			failed += seeds_run(&one);
	}
	fclose(file);
	return failed;
}
