/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows: which queue pair a packet for the guest belongs to, for networks that have no pairs of their
 * own. A flow's packets go to the pair that sent last on it, so they meet the vCPU that works on them.
 *
 *	guest sends on pair 2:  (a:p -> b:q) --flows_sent()--> entry[hash{a:p, b:q}] = 2
 *	for the guest:          (b:q -> a:p) --flows_pair()--> 2
 *
 * The key is the same both ways. A table of fixed size, in which a newer flow takes the place of an
 * older one: who is forgotten is spread over the pairs by its hash until it sends again. Pure; packets
 * are of a guest and of its network, and may be anything.
 */
#ifndef BACKEND_FLOWS_H
#define BACKEND_FLOWS_H

#include <stddef.h>
#include <stdint.h>

#define FLOWS_MAX 4096u /* a power of 2 */

struct flow {
	uint32_t tag; /* what of the hash its place does not say; 0: nothing is here */
	uint16_t pair;
};

struct flows {
	struct flow flow[FLOWS_MAX];
};

/* A packet from its Ethernet header on has been sent on `pair`. */
void flows_sent(struct flows *flows, uint16_t pair, const uint8_t *packet, size_t bytes);
/* Of `pairs` that are in use, the one for a packet. What is no flow of IP goes to the first. */
uint16_t flows_pair(const struct flows *flows, uint16_t pairs, const uint8_t *packet, size_t bytes);

#endif
