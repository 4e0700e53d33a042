/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One running node of a pod, from the first probe to the pod's end.
 *
 *   check this host -> link up with the others -> agree on CPUID and time -> memory, vCPUs
 *      -> (the loader: load the guest) -> run -> the first reason to end, from wherever, ends all nodes
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
#include "wire/control_message.h"

/* What the loader runs. Files are mapped by the caller and outlive the node. */
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
	bool restarts;	    /* when it asks for a reset; else that ends the pod */
	enum console_mode console;
	int log_fd;	 /* of the kernel's console where it is not the user's; -1: none */
	const char *log; /* its name, or NULL */
};

/* What a node that joins a pod has been told (JOIN_TOLD), and what it is. */
struct node_joins {
	struct node_config own;
	struct member_snapshot list;
	struct control_start start;
	struct control_run run;
};

struct node_options {
	const struct pod_config *config;
	uint16_t self;
	const struct node_joins *joins; /* NULL: it is a node of the configuration */
	bool all_here; /* all nodes of the pod run on this host, and share its memory */
	const struct engine_ops *engine;
	const char *engine_note; /* why this engine: said when the host has been checked; or "" */
	const struct node_guest *guest; /* the loader's; NULL on the others */
	uint32_t power_off_s;		/* so long may the guest take after SIGTERM */
	/* What this process reads again when the guest reboots; NULL: another one starts the node then. */
	const char *config_path;
	bool again; /* this node ran a moment ago: others may not know yet that it ended */
	void (*say)(void *context, const char *line); /* progress, one line without newline */
	/* The same for what the user should know even without progress; the loader. */
	void (*warn)(void *context, const char *line);
	void *context;
	/* A vCPU's thread has made a system call that it may not make (confine.h); in a signal handler. */
	void (*forbidden)(const char *call);
};

/* How the pod ended. */
struct node_result {
	int status;	/* exit status for the process: 0, the command's, or 1 */
	char line[768]; /* one line for the user; empty when all went well */
	bool restart;	/* the guest reboots: run the node again, in a process of its own */
};

/*
 * What can be known before any other node is: whether the kernel is one (the loader), and whether this
 * host can run a node. 0, or negative errno with one line in `why`. node_run() does it too.
 */
int node_check(const struct node_options *options, char *why, size_t why_size);

/*
 * Runs the node. 0 once the pod has run and ended (ret_result says how), or negative errno with
 * ret_result->line when it could not start. Ends at SIGINT too, and at SIGTERM: that presses the guest's
 * power button first, if the guest listens to it.
 */
int node_run(const struct node_options *options, struct node_result *ret_result);

#endif
