/* SPDX-License-Identifier: Apache-2.0 */
/* eagre token: what another host needs to join a running pod. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"

static void usage(FILE *to)
{
	fputs("usage: eagre token [--for MINUTES] [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Prints a token by which one other host may join a running pod: give it to eagre join there. It\n"
	      "is good once, and for an hour unless --for says otherwise. Whoever has it can join, and is\n"
	      "given the pod's secret: guard it as the secret itself. The pod needs a secret, encrypted links\n"
	      "and nodes_max in its configuration.\n"
	      "\n"
	      "  --for MINUTES  how long it is good, 1 to 10080 (60)\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    ask this node of the pod (any of those that it began with will do)\n"
	      "  --socket PATH  ask the node behind this socket\n",
	      to);
}

int cmd_token(int argc, char **argv)
{
	static const struct option options[] = {
		POD_SEARCH_OPTIONS,
		{ "for", required_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct pod_search search = { 0 };
	const char *minutes = "";
	char request[POD_WORD_MAX + 16];
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'h':
			usage(stdout);
			return STATUS_OK;
		case 'f':
			minutes = optarg;
			if (!pod_word("number of minutes", minutes))
				return STATUS_USAGE;
			break;
		default:
			if (!pod_search_take(&search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (optind < argc) {
		complain("token takes no argument '%s'; see eagre token --help", argv[optind]);
		return STATUS_USAGE;
	}
	if (!pod_find(&search))
		return STATUS_FAILED;
	snprintf(request, sizeof(request), "token %s", minutes);
	return pod_tell(search.path, request);
}
