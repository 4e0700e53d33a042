/* SPDX-License-Identifier: Apache-2.0 */
/* The judge: who may touch a ring, and what has to have been served. It knows nothing of places. */
#include "tests/sim/queues/world.h"

const char *rule_name(enum rule rule)
{
	static const char *const names[] = { "none", "one-place", "reset", "twice",  "lost",
					     "lie",  "round",	  "bound", "endless" };

	return names[rule];
}

void judge_touch(struct world *world, uint16_t node, uint16_t queue, uint64_t generation)
{
	const struct sim_ring *ring = &world->ring[queue];

	if (generation < world->clean_generation)
		world_fail(world, RULE_RESET, "node %u touches queue %u of generation %llu", node,
			   queue, (unsigned long long)generation);
	else if (ring->holder != node)
		world_fail(world, RULE_ONE_PLACE, "node %u touches queue %u, which %u has", node,
			   queue, ring->holder);
}

void judge_begun(struct world *world, uint16_t queue, uint32_t chain)
{
	struct sim_ring *ring = &world->ring[queue];

	if (chain != ring->begun || chain >= ring->avail || ring->chain[chain] != CHAIN_NEW) {
		world_fail(world, RULE_TWICE, "chain %u of queue %u is begun, %u is next", chain,
			   queue, ring->begun);
		return;
	}
	ring->begun++;
	ring->chain[chain] = CHAIN_BEGUN;
}

/*
 * Generously: each hand-over while the chain waits may cost a look at each end, a wait for the disk
 * and the news' way; the doorbell is sent on as often, after it was left for an io thread that gives
 * the queue away; and all that the io thread has to do besides comes first.
 */
static void judge_time(struct world *world, const struct sim_ring *ring, uint32_t chain)
{
	uint64_t took = world->now_ns - ring->added_ns[chain];
	uint64_t handed = ring->handed - ring->handed_at[chain] + 2;
	uint64_t turn = (world->plan->queues * 6 + 20) * world->step_max_ns;
	uint64_t bound = handed * (8 * world->travel_ns + 8 * turn + 2 * world->disk_max_ns) +
			 (chain + 1) * world->plan->queues * 2 * world->step_max_ns;
	uint32_t permille = (uint32_t)(took * 1000 / bound);

	if (permille > world->bound_permille)
		world->bound_permille = permille;
	if (took > bound)
		world_fail(world, RULE_BOUND, "a chain took %llu ns, %llu is the bound",
			   (unsigned long long)took, (unsigned long long)bound);
}

void judge_used(struct world *world, uint16_t queue, uint32_t chain)
{
	struct sim_ring *ring = &world->ring[queue];

	if (ring->chain[chain] != CHAIN_BEGUN) {
		world_fail(world, RULE_TWICE, "chain %u of queue %u is used again", chain, queue);
		return;
	}
	ring->chain[chain] = CHAIN_USED;
	ring->used_count++;
	world->served++;
	if (world->guest.halts_left == 0)
		judge_time(world, ring, chain);
}

void judge_taken(struct world *world, uint16_t node, uint16_t queue)
{
	struct sim_ring *ring = &world->ring[queue];

	if (ring->holder != NODE_NONE)
		world_fail(world, RULE_ONE_PLACE, "node %u takes queue %u, which %u has", node,
			   queue, ring->holder);
	ring->holder = node;
}

void judge_given(struct world *world, uint16_t node, uint16_t queue)
{
	struct sim_ring *ring = &world->ring[queue];

	(void)node;
	ring->holder = NODE_NONE;
	ring->handed++;
	world->moves++;
}

/* The driver has seen the end of the reset: its rings are new memory. */
void judge_clean(struct world *world)
{
	world->clean_generation = world->guest.generation;
	for (uint32_t q = 0; q < SIM_QUEUES; q++)
		world->ring[q] = (struct sim_ring){ .holder = NODE_NONE };
}

void judge_end(struct world *world)
{
	for (uint16_t q = 0; q < world->plan->queues; q++) {
		const struct sim_ring *ring = &world->ring[q];

		if (ring->used_count != ring->avail)
			world_fail(world, RULE_LOST, "queue %u: %u chains were added, %u used", q,
				   ring->avail, ring->used_count);
	}
	if (world->guest.stage == DRIVER_RESETS)
		world_fail(world, RULE_LOST, "a reset has not ended");
}
