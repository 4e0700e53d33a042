/* SPDX-License-Identifier: Apache-2.0 */
/* eagre move: has a vCPU of a running guest go on on another node. */
#include <getopt.h>
#include <stdio.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"

static void usage(FILE *to)
{
	fputs("usage: eagre move VCPU NODE [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Moves a vCPU of the running guest to another node, where it goes on. The guest does not\n"
	      "notice. VCPU is its number, NODE the node's name or number, as eagre status has them.\n"
	      "\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    say it to this node of the pod (any will do)\n"
	      "  --socket PATH  say it to the node behind this socket\n",
	      to);
}

static int move(const struct pod_search *search, const char *vcpu, const char *node)
{
	char request[200];
	snprintf(request, sizeof(request), "move %s %s", vcpu, node);
	return pod_tell(search->path, request);
}

int cmd_move(int argc, char **argv)
{
	static const struct option options[] = {
		POD_SEARCH_OPTIONS,
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct pod_search search = { 0 };
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'h':
			usage(stdout);
			return STATUS_OK;
		default:
			if (!pod_search_take(&search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (argc - optind != 2) {
		complain("move takes a vCPU's number and a node's name; see eagre move --help");
		return STATUS_USAGE;
	}
	if (!pod_word("vCPU", argv[optind]) || !pod_word("node", argv[optind + 1]) ||
	    !pod_find(&search))
		return STATUS_FAILED;
	return move(&search, argv[optind], argv[optind + 1]);
}
