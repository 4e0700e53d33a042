/* SPDX-License-Identifier: Apache-2.0 */
/* eagre pin: a vCPU of a running guest stays where it is, whatever the policy. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"

static void usage(FILE *to)
{
	fputs("usage: eagre pin [--off] VCPU [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Has a vCPU of a running guest stay on its node, whatever the policy; eagre move still moves it.\n"
	      "\n"
	      "  --off          it may move again\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    say it to this node of the pod (any will do)\n"
	      "  --socket PATH  say it to the node behind this socket\n",
	      to);
}

int cmd_pin(int argc, char **argv)
{
	static const struct option options[] = {
		{ "off", no_argument, NULL, 'o' },
		POD_SEARCH_OPTIONS,
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct pod_search search = { 0 };
	char request[200];
	bool off = false;
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'o':
			off = true;
			break;
		case 'h':
			usage(stdout);
			return STATUS_OK;
		default:
			if (!pod_search_take(&search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (argc - optind != 1) {
		complain("pin takes a vCPU's number; see eagre pin --help");
		return STATUS_USAGE;
	}
	if (!pod_word("vCPU", argv[optind]) || !pod_find(&search))
		return STATUS_FAILED;
	snprintf(request, sizeof(request), "%s %s", off ? "unpin" : "pin", argv[optind]);
	return pod_tell(search.path, request);
}
