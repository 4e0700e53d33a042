/* SPDX-License-Identifier: Apache-2.0 */
/* Members that take others in, and what a member of a running pod judges of who asks: sponsor.c. */
#ifndef NODE_SPONSOR_H
#define NODE_SPONSOR_H

#include <stddef.h>

#include "wire/control_message.h"
#include "wire/token.h"

struct node;
struct control_channel;

/* Its thread. Before the mesh, if the pod may grow; else node->sponsor is NULL. */
int sponsor_create(struct node *node);
/* mesh_config.asked: takes the channel over. Never waits. */
void sponsor_asked(struct node *node, const struct token_name *token,
		   struct control_channel *channel);
/* mesh_config.date_s: by which tokens expire. */
uint64_t sponsor_date_s(void *ctx);
/* Whether it may join; any thread. 0, or -errno and why not, in one line. */
int sponsor_judge(const struct node *node, const struct control_join_ask *ask, char *why,
		  size_t why_size);
/* "" or "MINUTES": a token, or why there are none; the answer as moves_request(). */
char *sponsor_token_request(struct node *node, const char *words);

#endif
