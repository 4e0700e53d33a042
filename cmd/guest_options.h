/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options that say what guest a pod runs, the same in `eagre node` and `eagre run`.
 */
#ifndef CMD_GUEST_OPTIONS_H
#define CMD_GUEST_OPTIONS_H

#include <stdio.h>

#include "node/node.h"

/* Values of struct option.val, above those of the subcommands' own letters. */
enum guest_option {
	OPTION_KERNEL = 256,
	OPTION_INITRD,
	OPTION_APPEND,
	OPTION_LOG,
	OPTION_NO_CONSOLE,
	OPTION_ENGINE,
	OPTION_NO_REBOOT,
	OPTION_POWER_OFF,
};

#define GUEST_OPTIONS                                                                              \
	{ "kernel", required_argument, NULL, OPTION_KERNEL },                                      \
		{ "initrd", required_argument, NULL, OPTION_INITRD },                              \
		{ "append", required_argument, NULL, OPTION_APPEND },                              \
		{ "log", required_argument, NULL, OPTION_LOG },                                    \
		{ "no-console", no_argument, NULL, OPTION_NO_CONSOLE },                            \
		{ "no-reboot", no_argument, NULL, OPTION_NO_REBOOT },                              \
		{ "power-off-time", required_argument, NULL, OPTION_POWER_OFF },                   \
	{                                                                                          \
		"engine", required_argument, NULL, OPTION_ENGINE                                   \
	}

struct guest_options {
	const char *kernel, *initrd, *append, *log, *engine;
	bool no_console, no_reboot;
	bool again;	      /* the guest has been here before: its log goes on */
	bool run_disk;	      /* `eagre run` with a disk, which may have a kernel of its own */
	uint32_t power_off_s; /* POWER_OFF_SECONDS before */
	int command_count;    /* of what stands behind "--" */
	char **command;
};

void guest_options_usage(FILE *to);
#define POWER_OFF_SECONDS 60u
/* Takes one of the options above. -EINVAL after complaining of its value. */
int guest_options_take(struct guest_options *options, int option, const char *value);

/*
 * Opens and maps the files; builds the initrd with the command in it. Complains and returns
 * negative errno. What it maps lives as long as the process.
 */
int guest_options_open(const struct guest_options *options, struct node_guest *ret_guest);

/* All there are, the fastest first. */
#define ENGINE_COUNT 2
extern const struct engine_ops *const engines[ENGINE_COUNT];

/*
 * The engine of that name, or NULL after complaining. "auto" or NULL: kvm where this host has it
 * and it runs a guest, else soft; ret_note then is one line with which, and why, else it is empty.
 */
const struct engine_ops *engine_choose(const char *name, char *ret_note, size_t note_size);

#endif
