/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that joins a pod which runs, until it is a node of it: it asks a member by a token, and is
 * told what the others know (node/sponsor.c). What it does then is node_run()'s, with
 * node_options.joins.
 */
#ifndef NODE_JOIN_H
#define NODE_JOIN_H

#include <stddef.h>

#include "node/node.h"
#include "wire/token.h"

struct join_config {
	const struct token *token;
	const struct engine_ops *engine;
	/* name, memory, cores; address: "": the one by which this host reaches the pod, port
	 * JOIN_PORT. It becomes one of numbers. No vCPUs begin here. */
	struct node_config own;
};

#define JOIN_PORT 7700

/*
 * Looks at this host and asks. 0: this host is expected. Or < 0 with one line: the token is used by then,
 * unless it was this host that could not, or no member was reached. Both results are for node_run(); free with
 * free().
 */
int join_ask(const struct join_config *config, struct pod_config **ret_config,
	     struct node_joins **ret_joins, uint16_t *ret_number, char *why, size_t why_size);

/* Whether a host with these features can run the guest, which runs: the same on both sides. */
int join_check_start(const struct control_start *start, const struct control_features *features,
		     char *why, size_t why_size);

#endif
