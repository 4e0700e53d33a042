/* SPDX-License-Identifier: Apache-2.0 */
/* eagre join: this host as a further node of a pod that runs. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/guest_options.h"
#include "cmd/message.h"
#include "node/join.h"

static void usage(FILE *to)
{
	fputs("usage: eagre join TOKEN --memory SIZE [--cores N] [--address HOST:PORT] [--name NAME]\n"
	      "                  [--engine NAME] [--quiet]\n"
	      "\n"
	      "Joins a pod while its guest runs, and runs this host's node of it until the pod ends. TOKEN is\n"
	      "what eagre token printed on one of its hosts; with - it is read from standard input, where\n"
	      "other users of this host do not see it. The guest gets no more memory or vCPUs by that: it has\n"
	      "more room for its memory, and cores to which its vCPUs may move.\n"
	      "\n"
	      "  --memory SIZE        promised: this node's pages of the guest never take more\n"
	      "  --cores N            that vCPUs may use here (those that this host has)\n"
	      "  --address HOST:PORT  where the pod's other nodes reach this one (the address by which it\n"
	      "                       reaches them, port 7700)\n"
	      "  --name NAME          this node's name in the pod (the host's)\n"
	      "  --engine NAME        what runs vCPUs here: kvm or soft (the best one)\n"
	      "  --quiet              no progress on stderr\n",
	      to);
}

static void print_nothing(void *context, const char *line)
{
}

struct join_command {
	struct join_config join;
	struct token token;
	const char *engine;
	bool quiet;
};

static int take_number(const char *text, uint32_t max, uint32_t *ret_number)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value > max)
		return -EINVAL;
	*ret_number = (uint32_t)value;
	return 0;
}

static int take_text(char *field, size_t size, const char *what, const char *value)
{
	if (value[0] && strlen(value) < size) {
		strcpy(field, value);
		return 0;
	}
	complain("%s: must be 1 to %zu characters", what, size - 1);
	return -EINVAL;
}

static int take_option(struct join_command *command, int option, const char *value)
{
	struct node_config *own = &command->join.own;
	switch (option) {
	case 'm':
		if (size_parse(value, &own->memory) == 0 && own->memory >= CHUNK_BYTES) {
			own->memory &= ~(uint64_t)(CHUNK_BYTES - 1);
			return 0;
		}
		complain("--memory %s: not a size of 2M or more; write for example 4G or 512M",
			 value);
		return -EINVAL;
	case 'c':
		if (take_number(value, CORES_MAX, &own->cores) == 0)
			return 0;
		complain("--cores %s: must be 0 to %d", value, CORES_MAX);
		return -EINVAL;
	case 'a':
		return take_text(own->address, sizeof(own->address), "--address", value);
	case 'n':
		return take_text(own->name, sizeof(own->name), "--name", value);
	case 'e':
		command->engine = value;
		return 0;
	default:
		command->quiet = true;
		return 0;
	}
}

/* Exit status to return, or -1: go on. */
static int take_token(struct join_command *command, const char *word)
{
	char text[2 * TOKEN_TEXT_MAX] = "";
	enum token_verdict verdict;
	if (strcmp(word, "-") == 0) {
		size_t size = fread(text, 1, sizeof(text) - 1, stdin);
		text[size] = '\0';
		word = text;
	}
	verdict = token_parse(word, &command->token);
	explicit_bzero(text, sizeof(text));
	if (verdict == TOKEN_OK)
		return -1;
	complain("%s", token_explain(verdict));
	return STATUS_FAILED;
}

static int parse(int argc, char **argv, struct join_command *command)
{
	static const struct option options[] = {
		{ "memory", required_argument, NULL, 'm' },
		{ "cores", required_argument, NULL, 'c' },
		{ "address", required_argument, NULL, 'a' },
		{ "name", required_argument, NULL, 'n' },
		{ "engine", required_argument, NULL, 'e' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct node_config *own = &command->join.own;
	int option;
	own->cores = CORES_OF_HOST;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		if (option == 'h') {
			usage(stdout);
			return STATUS_OK;
		}
		if (option == '?' || option == ':')
			return complain_option(argv, option);
		if (take_option(command, option, optarg) < 0)
			return STATUS_USAGE;
	}
	if (argc - optind != 1) {
		complain("join takes one token, of eagre token; see eagre join --help");
		return STATUS_USAGE;
	}
	if (!own->memory) {
		complain("give --memory SIZE: what this host promises; see eagre join --help");
		return STATUS_USAGE;
	}
	if (!own->name[0]) {
		char host[HOST_NAME_MAX + 1] = "";
		gethostname(host, sizeof(host) - 1);
		host[strcspn(host, ".")] = '\0';
		snprintf(own->name, sizeof(own->name), "%.*s", (int)sizeof(own->name) - 1, host);
	}
	int status = take_token(command, argv[optind]);
	/* Other users of this host see command lines. */
	explicit_bzero(argv[optind], strlen(argv[optind]));
	return status;
}

int cmd_join(int argc, char **argv)
{
	static struct join_command command;
	struct node_result result = { 0 };
	struct pod_config *config;
	struct node_joins *joins;
	char note[600], why[512];
	uint16_t number;
	int status = parse(argc, argv, &command), r;
	if (status >= 0)
		return status;
	command.join.token = &command.token;
	command.join.engine = engine_choose(command.engine, note, sizeof(note));
	if (!command.join.engine)
		return STATUS_FAILED;
	r = join_ask(&command.join, &config, &joins, &number, why, sizeof(why));
	explicit_bzero(&command.token, sizeof(command.token));
	if (r < 0) {
		complain("%s", why);
		return STATUS_FAILED;
	}
	struct node_options options = {
		.config = config,
		.self = number,
		.joins = joins,
		.engine = command.join.engine,
		.engine_note = note,
		.say = command.quiet ? print_nothing : print_progress,
		.warn = print_progress,
		.forbidden = message_print_forbidden,
		.power_off_s = POWER_OFF_SECONDS,
	};
	r = node_run(&options, &result);
	if (result.line[0])
		complain_briefly("%s", result.line);
	else if (result.restart)
		complain_briefly(
			"the guest reboots: a host that has joined does not come back with it yet");
	/* The node's threads live until the process ends. */
	fflush(NULL);
	_exit(r < 0 || result.restart ? STATUS_FAILED : result.status);
}
