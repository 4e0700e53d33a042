/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre node: this host's part of a pod.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/guest_options.h"
#include "cmd/message.h"
#include "node/node.h"

static void usage(FILE *to)
{
	fputs("usage: eagre node --config FILE --name NAME [GUEST OPTIONS] [-- COMMAND...]\n"
	      "\n"
	      "Runs the node NAME of the pod that FILE describes, until the pod ends. Give every host the same\n"
	      "FILE. The first node of the file loads the guest and has its console: give the guest's\n"
	      "options there, and only there.\n"
	      "\n"
	      "  --config FILE    [pod] name = demo          [node alpha] address = 10.0.0.1:7700\n"
	      "                   memory = 14G (optional)                 memory = 8G\n"
	      "                                                           vcpus = 4\n"
	      "  --name NAME      which node this host is\n"
	      "  --quiet          no progress on stderr\n"
	      "\n",
	      to);
	guest_options_usage(to);
}

void print_progress(void *context, const char *line)
{
	message_print(line);
}

static void print_nothing(void *context, const char *line)
{
}

struct node_command {
	const char *config_path, *name;
	bool quiet;
	struct guest_options guest;
};

/* Exit status to return, or -1: go on. */
static int parse(int argc, char **argv, struct node_command *ret_command)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "name", required_argument, NULL, 'n' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		GUEST_OPTIONS,
		{ 0 },
	};
	struct node_command command = { 0 };
	int option;
	while ((option = getopt_long(argc, argv, "+:h", options, NULL)) >= 0) {
		switch (option) {
		case 'c':
			command.config_path = optarg;
			break;
		case 'n':
			command.name = optarg;
			break;
		case 'q':
			command.quiet = true;
			break;
		case 'h':
			usage(stdout);
			return STATUS_OK;
		case '?':
		case ':':
			return complain_option(argv, option);
		default:
			guest_options_take(&command.guest, option, optarg);
		}
	}
	if (optind < argc && strcmp(argv[optind - 1], "--") != 0) {
		complain("node takes no argument '%s'; a command for the guest stands behind --",
			 argv[optind]);
		return STATUS_USAGE;
	}
	command.guest.command_count = argc - optind;
	command.guest.command = argv + optind;
	if (!command.config_path || !command.name) {
		complain("give --config FILE and --name NAME; see eagre node --help");
		return STATUS_USAGE;
	}
	*ret_command = command;
	return -1;
}

int cmd_node(int argc, char **argv)
{
	struct node_command command;
	int status = parse(argc, argv, &command);
	if (status >= 0)
		return status;

	struct pod_config *config;
	char why[512];
	if (pod_config_read(command.config_path, &config, why, sizeof(why)) < 0) {
		complain("%s", why);
		return STATUS_FAILED;
	}
	struct node_guest guest;
	struct node_options options = {
		.config = config,
		.self = pod_config_find(config, command.name),
		.say = command.quiet ? print_nothing : print_progress,
		.warn = print_progress,
	};
	char note[600];
	options.engine = engine_choose(command.guest.engine, note, sizeof(note));
	options.engine_note = note;
	status = STATUS_FAILED;
	if (!options.engine)
		goto out;
	if (options.self == NODE_NONE) {
		complain("%s has no node '%s'; its first is '%s'", command.config_path,
			 command.name, config->node[0].name);
		goto out;
	}
	if (options.self == 0) {
		if (guest_options_open(&command.guest, &guest) < 0)
			goto out;
		options.guest = &guest;
	} else if (command.guest.kernel || command.guest.command_count) {
		complain("node '%s' is not the first of the pod: give the guest's options to '%s'",
			 command.name, config->node[0].name);
		goto out;
	}
	struct node_result result = { 0 };
	int r = node_run(&options, &result);
	if (result.line[0])
		complain_briefly("%s", result.line);
	/* The node's threads live until the process ends, and the configuration with them. */
	fflush(NULL);
	_exit(r < 0 ? STATUS_FAILED : result.status);
out:
	free(config);
	return status;
}
