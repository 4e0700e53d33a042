/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre probe: can this host be a node, and what is missing?
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "engine/engine.h"
#include "memory/uffd_probe.h"

static void usage(FILE *to)
{
	fputs("usage: eagre probe [--quiet]\n"
	      "\n"
	      "Tells whether this host can be a node of a pod, one line a requirement, with the remedy where\n"
	      "something is missing. Exits with 0 only when nothing is. --quiet: nothing but the status.\n",
	      to);
}

int cmd_probe(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option, status = STATUS_OK;
	FILE *to = stdout;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		if (option == 'h') {
			usage(stdout);
			return STATUS_OK;
		}
		if (option != 'q')
			return complain_option(argv, option);
		to = NULL;
	}
	if (optind < argc) {
		complain("probe takes no argument '%s'; see eagre probe --help", argv[optind]);
		return STATUS_USAGE;
	}
	char why[512];
	struct uffd_probe uffd;
	static struct engine_features features;
	if (uffd_probe(&uffd, why, sizeof(why)) < 0) {
		status = STATUS_FAILED;
		if (to)
			fprintf(to, "memory:  no: %s\n", why);
	} else if (to) {
		fprintf(to, "memory:  yes: userfaultfd with everything needed%s\n",
			uffd.interruptible ? ""
					   : "; but stalls cannot be interrupted before Linux 6.2");
	}
	if (engine_kvm.probe(&features, why, sizeof(why)) < 0) {
		status = STATUS_FAILED;
		if (to)
			fprintf(to, "engine:  no: %s\n", why);
	} else if (to) {
		fprintf(to, "engine:  yes: kvm; TSC %u kHz%s; TSC deadline timer %s\n",
			features.tsc_khz, features.tsc_scaling ? ", scalable" : "",
			features.tsc_deadline ? "yes" : "no");
		if (features.advice)
			fprintf(to, "advice:  %s\n", features.advice);
	}
	return status;
}
