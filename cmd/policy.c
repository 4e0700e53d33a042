/* SPDX-License-Identifier: Apache-2.0 */
/* eagre policy: shows or sets the policy by which the vCPUs of a running guest move. */
#include <getopt.h>
#include <stdio.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"

static void usage(FILE *to)
{
	fputs("usage: eagre policy [NAME | --shadow NAME] [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Shows who decides where the vCPUs of a running guest are, or sets it for the whole pod:\n"
	      "\n"
	      "  pages    nobody: vCPUs stay, and pages come to them\n"
	      "  vcpus    a vCPU goes to whatever page it stalls on\n"
	      "  base     a vCPU goes where its stalls have cost more than its moves would\n"
	      "  learned  the same, with a threshold that is learned\n"
	      "  pinned   only eagre move moves vCPUs\n"
	      "\n"
	      "  --shadow NAME  let this policy ride along: it hears the same, and what it would do is only\n"
	      "                 counted and explained (eagre status, eagre explain --shadow); none ends that\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    say it to this node of the pod (any will do)\n"
	      "  --socket PATH  say it to the node behind this socket\n",
	      to);
}

int cmd_policy(int argc, char **argv)
{
	static const struct option options[] = {
		POD_SEARCH_OPTIONS,
		{ "shadow", required_argument, NULL, 'S' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct pod_search search = { 0 };
	const char *shadow = NULL, *name;
	char request[200];
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'h':
			usage(stdout);
			return STATUS_OK;
		case 'S':
			shadow = optarg;
			break;
		default:
			if (!pod_search_take(&search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (argc - optind > 1 || (shadow && optind < argc)) {
		complain("policy takes one name; see eagre policy --help");
		return STATUS_USAGE;
	}
	name = shadow ? shadow : argv[optind]; /* NULL: which is it? */
	if ((name && !pod_word("policy", name)) || !pod_find(&search))
		return STATUS_FAILED;
	snprintf(request, sizeof(request), "%s %s", shadow ? "shadow" : "policy", name ? name : "");
	return pod_tell(search.path, request);
}
