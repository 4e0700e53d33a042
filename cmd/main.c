/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: a table of subcommands, and the surroundings that all of them may rely on,
 * whatever the caller's are: three standard streams, and threads' stacks of a known size.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/message.h"
#include "config.h"

static const struct subcommand {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} subcommands[] = {
	{ "run", cmd_run, "start a pod of several nodes on this machine and give its console" },
	{ "node", cmd_node, "run this host's node of a pod" },
	{ "token", cmd_token, "make a token by which another host may join a running pod" },
	{ "join", cmd_join, "run this host as a further node of a running pod" },
	{ "drain", cmd_drain, "have a node of a running pod give away what it has, and leave" },
	{ "status", cmd_status, "show what a running pod does" },
	{ "top", cmd_top, "show what a running pod does, again and again" },
	{ "move", cmd_move, "move a vCPU of a running guest to another node" },
	{ "policy", cmd_policy, "show or set who decides where the vCPUs of a running guest are" },
	{ "pin", cmd_pin, "have a vCPU of a running guest stay where it is" },
	{ "explain", cmd_explain, "say why a vCPU of a running guest has moved" },
	{ "replay", cmd_replay, "try a policy of placement on a recorded trace" },
	{ "trace", cmd_trace, "record the stalls and moves of a running guest for replay" },
	{ "secret", cmd_secret, "make a new secret by which the nodes of a pod know each other" },
	{ "probe", cmd_probe, "tell whether this host can be a node, and what is missing" },
};

#define MAIN_STACK_BYTES   (64u << 10)
#define THREAD_STACK_BYTES (1u << 20)

#define SUBCOMMAND_COUNT (sizeof(subcommands) / sizeof(subcommands[0]))

__attribute__((format(printf, 2, 0))) static void complain_by(void (*print)(const char *line),
							      const char *format, va_list args)
{
	char line[1024];
	vsnprintf(line, sizeof(line), format, args);
	print(line);
}

void complain(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	complain_by(message_print, format, args);
	va_end(args);
}

void complain_briefly(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	complain_by(message_print_briefly, format, args);
	va_end(args);
}

int complain_option(char **argv, int option)
{
	const char *word = argv[optind - 1];
	if (option == ':')
		complain("%s needs a value; see eagre %s --help", word, argv[0]);
	else if (optopt && strncmp(word, "--", 2) == 0)
		complain("%s: the option takes no value; see eagre %s --help", word, argv[0]);
	else if (optopt)
		complain("%s has no option '-%c'; see eagre %s --help", argv[0], optopt, argv[0]);
	else
		complain("%s has no option '%s'; see eagre %s --help", argv[0], word, argv[0]);
	return STATUS_USAGE;
}

static void usage(FILE *to)
{
	fputs("Eagre joins several hosts into one machine on which one operating system runs.\n"
	      "\n"
	      "usage: eagre SUBCOMMAND [OPTIONS]\n"
	      "\n",
	      to);
	for (size_t i = 0; i < SUBCOMMAND_COUNT; i++)
		fprintf(to, "  %-8s %s\n", subcommands[i].name, subcommands[i].help);
	fputs("\n"
	      "eagre SUBCOMMAND --help tells more, eagre --version which version this is.\n",
	      to);
}

/*
 * A closed standard stream is /dev/null: its number would otherwise be that of the next file or
 * socket, which whoever writes to the stream would then write to.
 */
static void streams_open(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* glibc takes the limit of the main thread's stack for the others, too, however small it is. */
static int stacks_set(void)
{
	struct rlimit limit;
	pthread_attr_t attr;
	if (getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur < MAIN_STACK_BYTES) {
		complain("the stack's limit is %llu KiB, and %u are needed: raise it (ulimit -s)",
			 (unsigned long long)limit.rlim_cur >> 10, MAIN_STACK_BYTES >> 10);
		return -ENOMEM;
	}
	if (pthread_attr_init(&attr) != 0)
		return -ENOMEM;
	if (pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES) == 0)
		pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
	return 0;
}

int main(int argc, char **argv)
{
	streams_open();
	if (stacks_set() < 0)
		return STATUS_FAILED;
	const char *name = argc > 1 ? argv[1] : NULL;
	if (name &&
	    (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)) {
		usage(stdout);
		return STATUS_OK;
	}
	if (name && (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0)) {
		printf("eagre %s\n", EAGRE_VERSION);
		return STATUS_OK;
	}
	for (size_t i = 0; name && i < SUBCOMMAND_COUNT; i++)
		if (strcmp(name, subcommands[i].name) == 0)
			return subcommands[i].run(argc - 1, argv + 1);
	if (name)
		complain("there is no subcommand '%s'; see eagre --help", name);
	else
		usage(stderr);
	return STATUS_USAGE;
}
