/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of a simulator that runs seeds and broken variants; and how its steps are printed. */
#ifndef TESTS_SIM_COMMAND_H
#define TESTS_SIM_COMMAND_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sim_command {
	uint64_t first, count; /* seeds */
	bool trace, broken;
};

/* -1: go on; else it is over, with this status. */
static inline int sim_command_parse(int argc, char **argv, const char *name, const char *help,
				    struct sim_command *ret_command)
{
	struct sim_command command = { .first = 1 };

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(argv[i], "--help")) {
			fputs(help, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--trace")) {
			command.trace = true;
		} else if (!strcmp(argv[i], "--broken")) {
			command.broken = true;
		} else if (!strcmp(argv[i], "--seed") && value) {
			command.first = strtoull(value, NULL, 0);
			command.count = 1;
			i++;
		} else if (!strcmp(argv[i], "--from") && value) {
			command.first = strtoull(value, NULL, 0);
			i++;
		} else if (!strcmp(argv[i], "--count") && value) {
			command.count = strtoull(value, NULL, 0);
			i++;
		} else {
			fprintf(stderr, "%s: %s; see %s --help\n", name, argv[i], name);
			return 2;
		}
	}
	*ret_command = command;
	return -1;
}

/* Of a world with `trace` and `now_ns`. */
#define TRACE(world, ...)                                                                          \
	do {                                                                                       \
		if ((world)->trace) {                                                              \
			printf("%12llu ", (unsigned long long)(world)->now_ns);                    \
			printf(__VA_ARGS__);                                                       \
			putchar('\n');                                                             \
		}                                                                                  \
	} while (0)

#endif
