/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One running node of a pod, from the first probe to the pod's end.
 *
 *   check this host -> link up with the others -> agree on CPUID and time -> memory, vCPUs
 *      -> (node 0: load the guest) -> run -> the first reason to end, from wherever, ends all nodes
 *
 * A process runs one node; node_run() returns when the pod has ended, and the process should end
 * then too: threads that guest memory stalls cannot be joined.
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "node/console.h"
#include "node/pod_config.h"

/* What node 0 runs. Files are mapped by the caller and outlive the node. */
struct node_file {
	const char *name;
	const void *data;
	size_t size;
};

struct node_guest {
	struct node_file kernel;
	struct node_file initrd;
	const char *append; /* more of the kernel's command line, or NULL */
	bool quiet;	    /* only the command's output matters */
	enum console_mode console;
	int log_fd; /* of the kernel's console where it is not the user's; -1: none */
};

struct node_options {
	const struct pod_config *config;
	uint16_t self;
	bool all_here; /* all nodes of the pod run on this host, and share its memory */
	const struct engine_ops *engine;
	const char *engine_note; /* why this engine: said when the host has been checked; or "" */
	const struct node_guest *guest;		      /* node 0; NULL on the others */
	void (*say)(void *context, const char *line); /* progress, one line without newline */
	/* The same for what the user should know even without progress; node 0. */
	void (*warn)(void *context, const char *line);
	void *context;
};

/* How the pod ended. */
struct node_result {
	int status;	/* exit status for the process: 0, the command's, or 1 */
	char line[768]; /* one line for the user; empty when all went well */
};

/*
 * What can be known before any other node is: whether the kernel is one (node 0), and whether this
 * host can run a node. 0, or negative errno with one line in `why`. node_run() does it too.
 */
int node_check(const struct node_options *options, char *why, size_t why_size);

/*
 * Runs the node. 0 once the pod has run and ended (ret_result says how), or negative errno with
 * ret_result->line when it could not start. Ends at SIGINT and SIGTERM too.
 */
int node_run(const struct node_options *options, struct node_result *ret_result);

#endif
