/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may say what to whom: the table of wire/control_message.h as a check. Decoding has looked at
 * a message by itself; this looks at it as a word of one node of this pod to another.
 *
 * Pure. Tested in tests/node/test_control_rules.c.
 */
#ifndef NODE_CONTROL_RULES_H
#define NODE_CONTROL_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "node/pod_config.h"
#include "wire/control_message.h"

/* Whether node `self` may get this from node msg->src: a correct node sends nothing else. */
bool control_rules_allow(const struct pod_config *config, uint16_t self,
			 const struct control_message *msg);

/*
 * Clock pings that are out. A pong counts only if it answers one of the last, with the time that
 * was in it, and once.
 */
#define CONTROL_PINGS 64u
struct control_pings {
	uint64_t next_id;
	uint64_t sent_ns[CONTROL_PINGS]; /* by id; 0: answered */
};

struct control_clock_ping control_pings_new(struct control_pings *pings, uint64_t now_ns);
bool control_pings_answer(struct control_pings *pings, const struct control_clock_pong *pong);

#endif
