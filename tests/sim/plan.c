/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeds to worlds: see plan.h. Most worlds are small, because most defects show with three nodes
 * and one page; few are large. The kinds of trouble (slow link, bursts, pressure, pins, leaving
 * nodes) are drawn independently of each other.
 */
#include "tests/sim/plan.h"

#include <errno.h>
#include <stddef.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/coherence.h"
#include "tests/rng.h"

#define US 1000ull
#define MS 1000000ull

static void plan_nodes(struct plan *plan, struct rng *rng)
{
	uint64_t dice = rng_below_64(rng, 1000);

	if (dice < 900)
		plan->nodes = rng_range(rng, 2, 5);
	else if (dice < 985)
		plan->nodes = rng_range(rng, 6, 12);
	else if (dice < 998)
		plan->nodes = rng_range(rng, 13, 64);
	else
		plan->nodes = rng_range(rng, 65, NODES_MAX);
	plan->vcpus = plan->nodes > 12 ? 1 : rng_range(rng, 1, 3);
	plan->devices = rng_chance_64(rng, 40);
	plan->shards = rng_chance_64(rng, 70) ? 1 : rng_range(rng, 2, 4);
}

static void plan_memory(struct plan *plan, struct rng *rng)
{
	uint64_t dice = rng_below_64(rng, 100);

	if (dice < 45)
		plan->pages = rng_range(rng, 4, 64);
	else if (dice < 75)
		plan->pages = rng_range(rng, 65, 600);
	else
		plan->pages = rng_range(rng, 601, 2600);
	if (plan->nodes > 12)
		plan->pages += plan->nodes * 30;
	plan->fill_percent =
		rng_chance_64(rng, 60) ? rng_range(rng, 80, 90) : rng_range(rng, 10, 80);
	plan->uneven = rng_chance_64(rng, 50);
	/* Every actor must be able to ask. */
	plan->window = plan->vcpus + plan->devices +
		       (rng_chance_64(rng, 20) ? rng_range(rng, 0, 2) : rng_range(rng, 4, 28));
	plan->readahead = rng_chance_64(rng, 50) ? 0 : rng_range(rng, 1, 8);
	plan->zero_batch = rng_chance_64(rng, 50) ? 1 : rng_range(rng, 2, 16);
}

static void plan_time(struct plan *plan, struct rng *rng)
{
	plan->delay_min_ns = rng_range(rng, 1, 10) * US;
	plan->delay_max_ns = plan->delay_min_ns + rng_range(rng, 0, 60) * US;
	if (rng_chance_64(rng, 30)) {
		plan->slow_from = rng_below_64(rng, plan->nodes);
		plan->slow_to = rng_below_64(rng, plan->nodes);
		plan->slow_ns = rng_range(rng, 1, 50) * plan->delay_max_ns;
	}
	if (rng_chance_64(rng, 30)) {
		plan->burst_percent = rng_range(rng, 1, 10);
		plan->burst_ns = rng_range(rng, 1, 20) * plan->delay_max_ns;
	}
	plan->wake_min_ns = rng_range(rng, 1, 3) * US;
	plan->wake_max_ns = plan->wake_min_ns + rng_range(rng, 0, 20) * US;
	plan->think_min_ns = rng_range(rng, 100, 1000);
	plan->think_max_ns = plan->think_min_ns + rng_below_64(rng, 30 * US);
	plan->tick_late_ns = rng_chance_64(rng, 50) ? 0 : rng_below_64(rng, 20 * US);
	plan->hold_ns = rng_range(rng, 1, 30) * US;
	/* An instruction's pages come one by one, each after a wake: the longest hold covers that
	 * twice. */
	plan->hold_ns_max = 2 * PLAN_INSTRUCTION_PAGES * (plan->wake_max_ns + plan->think_max_ns) +
			    rng_range(rng, 0, 200) * US;
	plan->pin_ns_max = rng_range(rng, 1, 40) * US;
}

static void plan_work(struct plan *plan, struct rng *rng)
{
	uint64_t actors;

	plan->pattern = rng_below_64(rng, PATTERN_COUNT + 3);
	if (plan->pattern > PATTERN_MIXED)
		plan->pattern = PATTERN_MIXED;
	plan->hot_pages = rng_chance_64(rng, 30) ? rng_range(rng, 1, 3) : rng_range(rng, 2, 24);
	plan->write_percent = rng_chance_64(rng, 30) ? 100 : rng_range(rng, 5, 80);
	plan->multi_pages = rng_range(rng, 1, PLAN_INSTRUCTION_PAGES);
	actors = plan->nodes * (plan->vcpus + plan->devices);
	plan->quota = rng_range(rng, 20, 60) + 2000 / actors;
	if (plan->pattern == PATTERN_FILL)
		plan->quota += 2 * plan->pages / actors;
	plan->keep_busy = rng_chance_64(rng, 50);
	if (plan->nodes > 2 && rng_chance_64(rng, 25)) {
		plan->leaves = rng_range(rng, 1, PLAN_LEAVES_MAX);
		if (plan->leaves > plan->nodes - 2)
			plan->leaves = plan->nodes - 2;
		plan->leave_percent = rng_range(rng, 10, 80);
	}
	plan->events_max = 3000000;
}

void plan_make(struct plan *plan, uint64_t seed)
{
	struct rng rng = { .state = seed * 0x2545f4914f6cdd1du };

	*plan = (struct plan){ .seed = seed };
	plan_nodes(plan, &rng);
	plan_memory(plan, &rng);
	plan_time(plan, &rng);
	plan_work(plan, &rng);
	plan->refetch = rng_chance_64(&rng, 60) ? 0 : rng_range(&rng, 1, 40);
	plan->run = rng_chance_64(&rng, 50) ? 0 : rng_range(&rng, 1, 64);
}

static const struct field {
	const char *name;
	size_t offset;
} fields[] = {
#define FIELD(name)                                                                                \
	{                                                                                          \
#name, offsetof(struct plan, name)                                                 \
	}
	FIELD(seed),	      FIELD(nodes),	    FIELD(shards),	 FIELD(vcpus),
	FIELD(devices),	      FIELD(pages),	    FIELD(fill_percent), FIELD(uneven),
	FIELD(window),	      FIELD(readahead),	    FIELD(zero_batch),	 FIELD(refetch),
	FIELD(run),	      FIELD(hold_ns),	    FIELD(hold_ns_max),	 FIELD(delay_min_ns),
	FIELD(delay_max_ns),  FIELD(slow_from),	    FIELD(slow_to),	 FIELD(slow_ns),
	FIELD(burst_percent), FIELD(burst_ns),	    FIELD(wake_min_ns),	 FIELD(wake_max_ns),
	FIELD(think_min_ns),  FIELD(think_max_ns),  FIELD(tick_late_ns), FIELD(pattern),
	FIELD(hot_pages),     FIELD(write_percent), FIELD(multi_pages),	 FIELD(quota),
	FIELD(keep_busy),     FIELD(pin_ns_max),    FIELD(leaves),	 FIELD(leave_percent),
	FIELD(events_max),    FIELD(run_ns),	    FIELD(broken),	 FIELD(quick_end),
	FIELD(windows),	      FIELD(frees),	    FIELD(changes),	 FIELD(numbers),
	FIELD(after_ns),
#undef FIELD
};

int plan_set(struct plan *plan, const char *setting)
{
	const char *equals = strchr(setting, '=');
	char *end;
	uint64_t value;

	if (!equals)
		return -EINVAL;
	value = strtoull(equals + 1, &end, 0);
	if (strcmp(setting, "hold_ns=default") == 0)
		value = COH_HOLD_NS_DEFAULT;
	else if (end == equals + 1 || *end)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strlen(fields[i].name) != (size_t)(equals - setting) ||
		    strncmp(fields[i].name, setting, (size_t)(equals - setting)))
			continue;
		*(uint64_t *)((char *)plan + fields[i].offset) = value;
		return 0;
	}
	return -EINVAL;
}

void plan_print(const struct plan *plan, FILE *file)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		fprintf(file, "%s=%" PRIu64 "%c", fields[i].name,
			*(const uint64_t *)((const char *)plan + fields[i].offset),
			i + 1 < sizeof(fields) / sizeof(fields[0]) ? ' ' : '\n');
}

/*
 * The bounds. Let D be the longest that a message can take (its link's delay, a burst, and what is
 * before it in the link), P the longest pin, L the longest lateness of a tick, W the longest time
 * from a wake to the next try, H the longest hold, N nodes, A actors, K pages of an instruction.
 *
 * For the oldest episode no hold counts, so one transaction of anybody, once its home runs it, ends
 * within T = 6D + P + L: the taking or the nudge that makes it urgent (D), a pin (P), data or ack
 * (D), the DONE (D), and a chunk's home that is asked for or has moved (3D). Before it in the
 * home's queue there is at most one request of each node, and a push of each: (2N + 1) T. Before it
 * in its own node there may be no free slot: room is asked for at a node after the other, and a
 * push is a transaction itself: 2D N + (2N + 1) T. So the oldest episode has a page within S = 2DN
 * + 2 (2N + 1) T, and all that its instruction needs within K (S + W), losing none; its episode
 * ends when it has run H more.
 *
 * An episode waits at worst for all that are older. What an actor does in an episode may be more
 * than one instruction, but a hold that ends without a loss ends it; EPISODES says how many
 * instructions are allowed to whoever is oldest before the next one must be.
 */
#define EPISODES 4

static uint64_t message_ns(const struct plan *plan)
{
	return plan->delay_max_ns + plan->slow_ns + plan->burst_ns;
}

static uint64_t page_ns(const struct plan *plan)
{
	/* Where members change, who is asked sends on, and a home that has gone is asked for anew. */
	uint64_t ways = plan->changes ? 12 : 6, nodes = plan_numbers(plan);
	uint64_t t = ways * message_ns(plan) + plan->pin_ns_max + plan->tick_late_ns;

	return 2 * message_ns(plan) * nodes + 2 * (2 * nodes + 1) * t;
}

static uint64_t episode_ns(const struct plan *plan)
{
	uint64_t pages = plan->multi_pages ? plan->multi_pages : 1;

	return EPISODES * (pages * (page_ns(plan) + plan->wake_max_ns) + plan->hold_ns_max +
			   plan->think_max_ns);
}

uint64_t plan_stall_bound_ns(const struct plan *plan)
{
	uint64_t actors = plan_numbers(plan) * (plan->vcpus + plan->devices);

	return actors * episode_ns(plan);
}

uint64_t plan_progress_bound_ns(const struct plan *plan)
{
	return 2 * plan_stall_bound_ns(plan);
}

/* Every page of the node is pushed, one after the other at worst. */
uint64_t plan_release_bound_ns(const struct plan *plan)
{
	return plan_stall_bound_ns(plan) + plan->pages * page_ns(plan);
}

uint32_t plan_numbers(const struct plan *plan)
{
	uint64_t least = plan->changes ? plan->nodes + 2 : plan->nodes;

	if (plan->changes && plan->numbers > least)
		least = plan->numbers;
	return (uint32_t)(least < NODES_MAX ? least : NODES_MAX);
}

uint32_t plan_members_min(const struct plan *plan)
{
	uint64_t min = plan->changes ? plan->nodes / 2 : plan->nodes - plan->leaves;

	return (uint32_t)(plan->changes && min < 2 ? 2 : min);
}

uint32_t plan_capacity_floor(const struct plan *plan)
{
	return (uint32_t)(PLAN_INSTRUCTION_PAGES * plan->vcpus + plan->devices + 4);
}
