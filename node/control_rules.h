/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may say what to whom, and when: the table of wire/control_message.h as a check. Decoding has
 * looked at a message by itself; this looks at it as a word of one node of this pod to another.
 *
 *	phase      the loader got there by        another node by
 *	LINKED     links stand                    links stand
 *	OFFERED    waiting for FEATURES           sending FEATURES
 *	STARTED    sending START                  taking in START
 *	READY      having loaded the guest        sending READY
 *	RUNNING    sending RUN                    taking in RUN
 *
 * A node enters a phase before it sends what lets others go on, so no correct node's word comes too
 * early: what does is a lie, and the link ends.
 *
 * Who joins says nothing that changes anything until it is a member (joiner_lie()), and it is one for
 * all before it begins anything.
 *
 * Pure. Tested in tests/node/test_control_rules.c.
 */
#ifndef NODE_CONTROL_RULES_H
#define NODE_CONTROL_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "node/members.h"
#include "node/pod_config.h"
#include "wire/control_message.h"

enum node_phase {
	NODE_LINKED,
	NODE_OFFERED,
	NODE_STARTED,
	NODE_READY,
	NODE_RUNNING,
};

struct control_rules {
	const struct pod_config *config;
	const struct members *members;
	uint32_t said[NODES_MAX]; /* by each node: bits of the types that it may say once */
};

/*
 * NULL: this node, being in `phase`, may get this from node msg->src; it is remembered if it may
 * come once. Otherwise what is wrong with it, to follow "it sent X ": a correct node never does.
 */
const char *control_rules_lie(struct control_rules *rules, enum node_phase phase,
			      const struct control_message *msg);

/* Nodes may come and go: no io channels, and vCPUs that move. */
bool control_rules_may_change(const struct pod_config *config);

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

/* Whether the loader gets on, as its judge sees it turn by turn. */
#define CONTROL_LOAD_TURN_NS 500000000ull
struct control_loading {
	uint64_t at_ns, judged_ns, stalled_ns;
};

/*
 * For how long it has been waiting for one page, since at_ns (0: it loads nothing). Of a turn that
 * comes late only CONTROL_LOAD_TURN_NS counts: what kept the judge may have kept the loader, and the
 * node that it asks.
 */
uint64_t control_loading_stalled_ns(struct control_loading *load, uint64_t at_ns, uint64_t now_ns);

#endif
