/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre node: this host's part of a pod.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
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
	fputs("usage: eagre node --config FILE [--name NAME] [GUEST OPTIONS] [-- COMMAND...]\n"
	      "\n"
	      "Runs this host's node of the pod that FILE describes, until the pod ends. Give every host the same\n"
	      "FILE. The first node of the file loads the guest and has its console: give the guest's\n"
	      "options there, and only there.\n"
	      "\n"
	      "  --config FILE    the pod's configuration: [pod], and for each node a section [node NAME] with\n"
	      "                   address, memory and vcpus; eagre.conf(5) has all keys\n"
	      "  --name NAME      which node this host is (the one that is named as the host is)\n"
	      "  --insecure       links to other hosts need not be encrypted (insecure = yes in [pod])\n"
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
	bool quiet, insecure;
	struct guest_options guest;
};

/* Exit status to return, or -1: go on. */
static int parse(int argc, char **argv, struct node_command *ret_command)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "name", required_argument, NULL, 'n' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "insecure", no_argument, NULL, 'i' },
		{ "help", no_argument, NULL, 'h' },
		GUEST_OPTIONS,
		{ 0 },
	};
	struct node_command command = { .guest.power_off_s = POWER_OFF_SECONDS };
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
		case 'i':
			command.insecure = true;
			break;
		case 'h':
			usage(stdout);
			return STATUS_OK;
		case '?':
		case ':':
			return complain_option(argv, option);
		default:
			if (guest_options_take(&command.guest, option, optarg) < 0)
				return STATUS_USAGE;
		}
	}
	if (optind < argc && strcmp(argv[optind - 1], "--") != 0) {
		complain("node takes no argument '%s'; a command for the guest stands behind --",
			 argv[optind]);
		return STATUS_USAGE;
	}
	command.guest.command_count = argc - optind;
	command.guest.command = argv + optind;
	if (!command.config_path) {
		complain("give --config FILE; see eagre node --help");
		return STATUS_USAGE;
	}
	*ret_command = command;
	return -1;
}

/*
 * The number of the node that this host is: the one named so, or else as the host is, with or without
 * its domain. NODE_NONE after complaining.
 */
static uint16_t find_self(const struct pod_config *config, const struct node_command *command)
{
	char host[HOST_NAME_MAX + 1] = "";
	uint16_t self;
	if (command->name) {
		self = pod_config_find(config, command->name);
		if (self == NODE_NONE)
			complain("%s has no node '%s'; its first is '%s'", command->config_path,
				 command->name, config->node[FIRST_NODE].name);
		return self;
	}
	gethostname(host, sizeof(host) - 1);
	self = pod_config_find(config, host);
	host[strcspn(host, ".")] = '\0';
	if (self == NODE_NONE)
		self = pod_config_find(config, host);
	if (self == NODE_NONE)
		complain("%s has no node '%s', which is this host's name: say with --name which it "
			 "is; the first is '%s'",
			 command->config_path, host, config->node[FIRST_NODE].name);
	return self;
}

#define AGAIN	    "EAGRE_AGAIN" /* in the environment of a node whose guest reboots */
#define AGAIN_BYTES (1u << 20)
#define AGAIN_WORDS 4096u

/*
 * The guest reboots: this process becomes a new node, by the command line that it was started with. It
 * keeps its number, so whoever looks after it sees nothing. Returns only if that cannot be.
 */
static void begin_again(void)
{
	static char line[AGAIN_BYTES];
	static char *words[AGAIN_WORDS + 1];
	size_t used = 0, count = 0;
	sigset_t set;
	FILE *file = fopen("/proc/self/cmdline", "re");
	if (file) {
		used = fread(line, 1, sizeof(line) - 1, file);
		fclose(file);
	}
	for (size_t at = 0; at < used && count < AGAIN_WORDS; at += strlen(line + at) + 1)
		words[count++] = line + at;
	/* The mask of the node's signals would be the new one's, and what is ignored as well. */
	signal(SIGPIPE, SIG_DFL);
	sigfillset(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	/* Whatever a library has opened: who is connected to the guest of before must see it end. */
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	setenv(AGAIN, "1", 1);
	execv("/proc/self/exe", words);
	complain("the guest reboots, and the node cannot begin anew: %s", strerror(errno));
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
	config->insecure |= command.insecure;
	struct node_guest guest;
	command.guest.again = getenv(AGAIN) != NULL;
	unsetenv(AGAIN);
	if (config->secret_exposed && !command.guest.again)
		complain("%s: holds the pod's secret, and others may read or change it: give "
			 "secret_file instead, or make this file yours and chmod 600 it",
			 command.config_path);
	struct node_options options = {
		.config = config,
		.config_path = command.config_path,
		.say = command.quiet ? print_nothing : print_progress,
		.warn = print_progress,
		.forbidden = message_print_forbidden,
		.power_off_s = command.guest.power_off_s,
		.again = command.guest.again,
	};
	char note[600];
	options.engine = engine_choose(command.guest.engine, note, sizeof(note));
	options.engine_note = note;
	status = STATUS_FAILED;
	if (!options.engine)
		goto out;
	options.self = find_self(config, &command);
	if (options.self == NODE_NONE)
		goto out;
	if (options.self == FIRST_NODE) {
		if (guest_options_open(&command.guest, &guest) < 0)
			goto out;
		options.guest = &guest;
	} else if (command.guest.kernel || command.guest.command_count) {
		complain("node '%s' is not the first of the pod: give the guest's options to '%s'",
			 config->node[options.self].name, config->node[FIRST_NODE].name);
		goto out;
	}
	struct node_result result = { 0 };
	int r = node_run(&options, &result);
	if (result.line[0])
		complain_briefly("%s", result.line);
	/* The node's threads live until the process ends, and the configuration with them. */
	fflush(NULL);
	if (result.restart)
		begin_again();
	_exit(r < 0 || result.restart ? STATUS_FAILED : result.status);
out:
	free(config);
	return status;
}
