/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre probe: can this host be a node, and what is missing?
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/guest_options.h"
#include "engine/engine.h"
#include "memory/uffd_probe.h"

static void usage(FILE *to)
{
	fputs("usage: eagre probe [--quiet]\n"
	      "\n"
	      "Tells whether this host can be a node of a pod, one line a requirement, with the remedy where\n"
	      "something is missing. One engine is enough. Exits with 0 when this host can be a node.\n"
	      "--quiet: nothing but the status.\n",
	      to);
}

static bool probe_memory(FILE *to)
{
	char why[512];
	struct uffd_probe uffd;
	if (uffd_probe(&uffd, why, sizeof(why)) < 0) {
		if (to)
			fprintf(to, "memory:      no: %s\n", why);
		return false;
	}
	if (to)
		fprintf(to, "memory:      yes: userfaultfd with everything needed%s\n",
			uffd.interruptible ? ""
					   : "; but stalls cannot be interrupted before Linux 6.2");
	return true;
}

/* So that the answers stand below each other. */
static int pad(const struct engine_ops *engine)
{
	return 4 - (int)strlen(engine->name);
}

static bool probe_engine(FILE *to, const struct engine_ops *engine)
{
	static struct engine_features features;
	char why[512];
	if (engine->probe(&features, why, sizeof(why)) < 0) {
		if (to)
			fprintf(to, "engine %s:%*s no: %s\n", engine->name, pad(engine), "", why);
		return false;
	}
	if (!to)
		return true;
	fprintf(to, "engine %s:%*s yes: TSC %u kHz (%s)%s; TSC deadline timer %s\n", engine->name,
		pad(engine), "", features.tsc_khz, features.tsc_source,
		features.tsc_scaling ? ", scalable" : "", features.tsc_deadline ? "yes" : "no");
	if (features.advice)
		fprintf(to, "advice:      %s\n", features.advice);
	return true;
}

int cmd_probe(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;
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
	bool memory = probe_memory(to), any = false;
	for (size_t i = 0; i < ENGINE_COUNT; i++)
		any |= probe_engine(to, engines[i]);
	return memory && any ? STATUS_OK : STATUS_FAILED;
}
