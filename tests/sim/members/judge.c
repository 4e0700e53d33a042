/* SPDX-License-Identifier: Apache-2.0 */
/* The judge: it sees all lists at once, and believes none. */
#include <string.h>

#include "tests/sim/members/world.h"

const char *rule_name(enum rule rule)
{
	static const char *const names[RULE_COUNT] = {
		"none", "lie",	    "apart", "agree",	 "two",	  "stranger",
		"ends", "survives", "lost",  "leftover", "stuck", "endless",
	};

	return names[rule];
}

static bool same_step(const struct member_word *a, const struct member_word *b)
{
	return a->kind == b->kind && a->node == b->node && a->seat == b->seat && a->by == b->by &&
	       a->id == b->id && a->why == b->why && !strcmp(a->about.name, b->about.name);
}

/* Whom the list of `who` counts among the members: each must be done with the step before. */
static void judge_barrier(struct world *world, uint32_t who, uint64_t number)
{
	const struct process *process = world->process[who];

	for (uint16_t node = 0; node < world->plan->numbers; node++) {
		const struct process *other;

		if (!member_list_counts(&process->list, node) || !lives(world, world->holder[node]))
			continue;
		other = world->process[world->holder[node]];
		if (other->list.now.step + 1 < number ||
		    (other->list.now.step + 1 == number && !other->list.done))
			world_fail(world, RULE_APART,
				   "%u takes step %llu, %u is not done with %llu", process->number,
				   (unsigned long long)number, node,
				   (unsigned long long)number - 1);
	}
}

void judge_applied(struct world *world, uint32_t who, const struct member_word *step)
{
	struct judged_step *judged = &world->step[step->number];
	uint32_t leading = 0;

	if (!judged->taken) {
		judged->taken = true;
		judged->word = *step;
		world->steps++;
		world->joins += step->kind == KIND_JOIN;
		world->leaves += step->kind == KIND_GONE && step->why == 0;
		world->failed_joins += step->kind == KIND_GONE && step->why != 0;
		world->seats += step->kind == KIND_SEAT;
	} else if (!same_step(&judged->word, step)) {
		world_fail(world, RULE_AGREE, "step %llu is two steps",
			   (unsigned long long)step->number);
	}
	judge_barrier(world, who, step->number);
	for (uint32_t i = 0; i < world->process_count; i++)
		leading += lives(world, i) && world->process[i]->list.leading;
	if (leading > 1)
		world_fail(world, RULE_TWO, "%u lead at step %llu", leading,
			   (unsigned long long)step->number);
}

void judge_death(struct world *world, uint32_t who)
{
	const struct process *process = world->process[who];
	uint16_t node = process->number;
	uint32_t others = 0, count_it = 0, need_it = 0;

	for (uint32_t i = 0; i < world->process_count; i++) {
		const struct member_list *list = &world->process[i]->list;

		if (i == who || !lives(world, i) || !member_list_counts(list, list->self))
			continue;
		others++;
		count_it += member_list_counts(list, node) && world->holder[node] == who;
		need_it += list->now.member[node].state == MEMBER_GONE && !list->done &&
			   list->last.node == node;
	}
	if (others == 0 && !member_list_counts(&process->list, node))
		return;
	if (count_it + need_it > 0 || others == 0)
		world->may_end = true;
	/* Who has said DRAINED may be GONE before it is missed. */
	if (count_it == others && !process->said_drained)
		world->must_end = true;
}

/* ACTIVE was ordered before the steward heard of his end: he dies as a member. */
static bool died_at_active(const struct world *world, const struct member_list *list)
{
	bool knew = list->orderer == list->self && list->lost[list->last.node];

	return list->last.kind == KIND_ACTIVE && !knew &&
	       !lives(world, world->holder[list->last.node]);
}

void judge_end(struct world *world, uint32_t who)
{
	if (died_at_active(world, &world->process[who]->list))
		world->may_end = true;
	if (!world->may_end)
		world_fail(world, RULE_ENDS, "%u ends the pod, and no member has died",
			   world->process[who]->number);
}

void judge_named(struct world *world, uint32_t who, uint16_t number, uint32_t named_who)
{
	const struct process *process = world->process[who];
	uint32_t known = number == process->number ? who : process->link[number];

	if (!member_list_may_be_named(&process->list, number))
		world_fail(world, RULE_LIE, "%u is named to %u, who knows no such", number,
			   process->number);
	else if (process->list.now.member[number].state != MEMBER_FREE &&
		 process->list.now.member[number].state != MEMBER_GONE && known != NOBODY &&
		 known != named_who)
		world_fail(world, RULE_STRANGER, "%u is told of %u, who was another",
			   process->number, number);
}

/* ---- nothing moves any more ------------------------------------------------------------------ */

static void judge_things(struct world *world)
{
	for (uint32_t t = 0; t < world->plan->things; t++) {
		uint32_t here = 0;

		for (uint32_t i = 0; i < world->process_count; i++) {
			const struct sim_thing *thing = &world->process[i]->thing[t];

			if (!lives(world, i))
				continue;
			here += thing->here;
			if (thing->asking || thing->owed_by != NODE_NONE)
				world_fail(world, RULE_LOST, "%u waits for thing %u",
					   world->process[i]->number, t);
		}
		if (here != 1)
			world_fail(world, RULE_LOST, "thing %u is at %u places", t, here);
	}
}

static void judge_list(struct world *world, const struct process *process)
{
	const struct member_list *list = &process->list;

	if (list->now.step != world->steps || !list->over || !list->done)
		world_fail(world, RULE_STUCK, "%u is at step %llu of %llu", process->number,
			   (unsigned long long)list->now.step, (unsigned long long)world->steps);
	if (list->wishing)
		world_fail(world, RULE_LOST, "a wish of %u is not answered", process->number);
	for (uint16_t node = 0; node < world->plan->numbers; node++) {
		enum member_state state = list->now.member[node].state;
		uint32_t holder = world->holder[node];

		if (state == MEMBER_FREE) {
			if (process->link[node] != NOBODY)
				world_fail(world, RULE_LEFTOVER, "%u has a link to %u, who is free",
					   process->number, node);
		} else if (state != MEMBER_ACTIVE) {
			world_fail(world, RULE_STUCK, "%u is in state %d", node, (int)state);
		} else if (!lives(world, holder) ||
			   strcmp(list->now.member[node].about.name, about_of(holder).name) != 0) {
			world_fail(world, RULE_LEFTOVER, "%u is a member, and is not there", node);
		}
	}
}

void judge_world(struct world *world)
{
	for (uint32_t i = 0; i < world->process_count && world->must_end; i++)
		if (lives(world, i))
			world_fail(world, RULE_SURVIVES, "%u goes on without a member",
				   world->process[i]->number);
	if (world->may_end && (world->ends > 0 || world->must_end))
		return;
	for (uint32_t i = 0; i < world->process_count; i++)
		if (lives(world, i))
			judge_list(world, world->process[i]);
	judge_things(world);
}
