/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that has a join token asks to join: it dials the members that the token names, one after
 * the other, shows by TLS that it has the token's key, and has a control channel with the first that
 * answers. What is said on it is not this file's.
 */
#ifndef LINK_ASK_H
#define LINK_ASK_H

#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "wire/token.h"

struct ask;
struct control_channel;

/*
 * Blocks, timeout_ms for each address at most. 0; or < 0 with `why`, of the last one that was tried:
 * -ECONNREFUSED: it was refused, which others would do, too; -EHOSTUNREACH: none was reached that
 * takes tokens; -ENOMEM.
 */
int ask_create(const struct token *token, uint32_t capabilities, uint32_t timeout_ms,
	       struct ask **ret_ask, char *why, size_t why_size);
/* The ask's. Its messages come from NODE_NONE. */
struct control_channel *ask_channel(struct ask *ask);
/* Of the pod that has answered. */
const char *ask_pod_name(const struct ask *ask);
void ask_destroy(struct ask *ask); /* NULL is fine */

#endif
