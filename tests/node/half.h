/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Half a pod: one struct node with a real link to a peer that is the test itself. For tests of the
 * files of node/ between a node's threads and its peers, without an engine, memory or a guest.
 */
#ifndef TESTS_NODE_HALF_H
#define TESTS_NODE_HALF_H

#include "node/node_state.h"

/* vCPU 0 on node 0, vCPUs 1 and 2 on node 1. */
struct half {
	struct node *node;
	struct mesh *peer; /* the other node's side of the links */
	uint16_t peer_number;
};

void half_create(struct half *half, uint16_t self);
/* The links end with the peer; the node's threads, if it has any, live on. */
void half_peer_send(struct half *half, const struct control_message *msg);
/* The host holds little of what is on its way, however much memory it has: a flood is soon one. */
void half_little_room(struct half *half);
/* From now on the peer sends heartbeats, however long the test takes to say anything else. */
void half_peer_beats(struct half *half);
/* For what comes at once, on a machine that has other things to do. */
#define HALF_PATIENCE_MS 20000
/* The next message of this type, others thrown away. False: none came within that time. */
bool half_peer_hear(struct half *half, uint8_t type, struct control_message *ret_msg,
		    unsigned int ms);
/* Waits for the node's end, which may come from a lost link. Its text; NULL: none within that time. */
const char *half_end(struct half *half, unsigned int ms);

#endif
