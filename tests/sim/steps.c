/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members that come and go: one who sees everything orders the steps, as core/member_list.h has them,
 * and delivers each to each node at another time.
 *
 *   a step is ordered        when the one before is over
 *   a node hears of it       any time later, but after it has heard that the one before is over
 *   a node has done it       when all its shards say so
 *   the step is over         when all have done it; each hears that any time later
 *
 * Between these and the page channels there is no order, which is what they are delayed for. Who does
 * what at which step is the caller's part in core/coherence.h.
 */
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

#include "core/coherence_broken.h"

/* A joiner in so many fails before it is a member. */
#define FAILS_PERCENT  15
#define CANCEL_PERCENT 30

static bool changing(const struct world *world)
{
	return world->plan.changes;
}

/* Links come up in no order with words. */
static uint64_t any_time(struct world *world)
{
	return world->now_ns + 1 + rng_below_64(&world->steps.rng, world->steps.delay_ns + 1);
}

static uint64_t later(struct world *world, uint32_t node)
{
	struct steps *s = &world->steps;
	uint64_t at = any_time(world);

	if (at <= s->last_ns[node])
		at = s->last_ns[node] + 1;
	s->last_ns[node] = at;
	return at;
}

static bool takes_part(const struct world *world, uint32_t node)
{
	enum member_state state = world->steps.state[node];

	return state == MEMBER_ACTIVE || state == MEMBER_DRAINING;
}

static uint32_t count_of(const struct world *world, enum member_state state)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < world->node_count; i++)
		count += world->steps.state[i] == state;
	return count;
}

/* One of those in this state, at random; world->node_count: there is none. */
static uint32_t any_of(struct world *world, enum member_state state, bool drained)
{
	uint32_t found = world->node_count, seen = 0;

	for (uint32_t i = 0; i < world->node_count; i++)
		if (world->steps.state[i] == state && (!drained || world->node[i].released) &&
		    rng_below_64(&world->steps.rng, ++seen) == 0)
			found = i;
	return found;
}

static void schedule(struct world *world, uint64_t at_ns, uint32_t node, enum control_kind kind)
{
	const struct steps *s = &world->steps;
	struct control word = { .kind = kind,
				.node = s->node,
				.state = s->kind,
				.number = s->number,
				.owes = s->owes[node] };

	world_schedule_control(world, at_ns, node, &word);
}

static void order(struct world *world, uint32_t node, enum member_state state)
{
	static const char *const name[] = { "FREE", "JOINING", "ACTIVE", "DRAINING", "GONE" };
	struct steps *s = &world->steps;

	world_trace(world, node, "STEP %u: %s", s->number + 1, name[state]);
	s->number++;
	s->node = node;
	s->kind = state;
	s->open = true;
	s->awaited = 0;
	s->delay_ns = rng_below_64(&s->rng, 30 * world->plan.delay_max_ns);
	for (uint32_t i = 0; i < world->node_count; i++) {
		bool owes = takes_part(world, i) && !(state == MEMBER_GONE && i == node);
		bool hears = owes || (i == node && state == MEMBER_ACTIVE) ||
			     (i == node && state == MEMBER_GONE && takes_part(world, i));

		s->owes[i] = owes;
		s->awaited += owes;
		if (hears)
			schedule(world, later(world, i), i, CONTROL_STEP);
	}
	s->state[node] = state;
}

static void end_node(struct world *world, uint32_t node);

/* A joiner is lost: its links end at once, whatever is in them. */
static void fail_joiner(struct world *world, uint32_t node)
{
	world_trace(world, node, "FAILS");
	world->steps.joiner = NODE_NONE;
	world->node[node].failed_life[world->node[node].life % FAILED_LIVES] = true;
	world->node[node].failed = true;
	if (world->node[node].coh[0])
		end_node(world, node);
	order(world, node, MEMBER_GONE);
}

static bool joiner_ready(const struct world *world, uint32_t node)
{
	const struct sim_node *n = &world->node[node];

	if (!n->coh[0] || world->plan.broken == COH_BROKEN_ACTIVE_EARLY)
		return n->coh[0];
	for (uint32_t shard = 0; shard < world->shard_count; shard++)
		if (!coh_member_ready(n->coh[shard]))
			return false;
	return true;
}

/* The next wish. False: there is nothing to do just now. */
static bool choose(struct world *world)
{
	struct steps *s = &world->steps;
	uint32_t gone = any_of(world, MEMBER_GONE, false);
	uint32_t drained = any_of(world, MEMBER_DRAINING, true);
	uint32_t draining = any_of(world, MEMBER_DRAINING, false);
	uint32_t free = any_of(world, MEMBER_FREE, false);
	uint64_t dice = rng_below_64(&s->rng, 100);

	if (drained < world->node_count && dice < 60) {
		order(world, drained, MEMBER_GONE);
		return true;
	}
	if (s->changes < world->plan.changes) {
		if (draining < world->node_count && rng_chance_64(&s->rng, CANCEL_PERCENT)) {
			s->changes++;
			order(world, draining, MEMBER_ACTIVE);
			return true;
		}
		if (dice % 2 && count_of(world, MEMBER_ACTIVE) > plan_members_min(&world->plan)) {
			s->changes++;
			order(world, any_of(world, MEMBER_ACTIVE, false), MEMBER_DRAINING);
			return true;
		}
		if (free < world->node_count && dice % 3) {
			s->changes++;
			s->joiner = free;
			order(world, free, MEMBER_JOINING);
			return true;
		}
	}
	if (gone < world->node_count && (free == world->node_count || dice % 4 == 0)) {
		order(world, gone, MEMBER_FREE);
		return true;
	}
	return false;
}

static bool at_rest(const struct world *world)
{
	const struct steps *s = &world->steps;

	return s->changes >= world->plan.changes && !s->open && s->joiner == NODE_NONE &&
	       !count_of(world, MEMBER_DRAINING);
}

static void next_look(struct world *world)
{
	uint64_t gap = 10 * world->plan.delay_max_ns;

	schedule(world, world->now_ns + 1 + rng_below_64(&world->steps.rng, gap), 0, CONTROL_LOOK);
}

static void look(struct world *world)
{
	struct steps *s = &world->steps;

	if (s->finished || s->open) {
		if (!s->finished)
			next_look(world);
		return;
	}
	if (at_rest(world)) {
		s->finished = true;
		return;
	}
	if (s->joiner == NODE_NONE)
		choose(world);
	else if (rng_chance_64(&s->rng, s->fails ? 30 : 0))
		fail_joiner(world, s->joiner);
	else if (joiner_ready(world, s->joiner))
		order(world, s->joiner, MEMBER_ACTIVE);
	next_look(world);
}

/* ---- nodes -------------------------------------------------------------------------------------- */

static void link_up(struct world *world, uint32_t node)
{
	uint32_t joiner = world->steps.joiner;

	if (joiner == NODE_NONE || !world->node[joiner].coh[0] || !world->node[node].coh[0] ||
	    world->node[node].view[joiner] != MEMBER_JOINING || world->node[joiner].has_link[node])
		return;
	world_trace(world, node, "LINK with n%u", joiner);
	world->node[joiner].has_link[node] = world->node[node].has_link[joiner] = true;
	edge_linked(world, joiner, node);
	edge_linked(world, node, joiner);
}

static void begin_joiner(struct world *world)
{
	struct steps *s = &world->steps;
	struct sim_node *n = &world->node[s->joiner];
	struct member_set named = { 0 };

	world_trace(world, s->joiner, "BEGINS");
	n->released = n->releasing = n->leaving = n->drain_over = n->gone_over = n->failed = false;
	n->life++;
	n->asks = 0;
	n->stopped = world->actors_per_node;
	memset(n->has_link, 0, sizeof(n->has_link));
	memcpy(n->view, s->state, sizeof(n->view));
	for (uint32_t i = 0; i < world->node_count; i++)
		if (s->state[i] != MEMBER_FREE)
			member_set_add(&named, (uint16_t)i);
	world_make_node(world, s->joiner, &named, true);
	for (uint32_t i = 0; i < world->node_count; i++) {
		if (s->state[i] == MEMBER_DRAINING || s->state[i] == MEMBER_GONE)
			edge_member(world, s->joiner, i, s->state[i]);
		if (takes_part(world, i) && world->node[i].view[s->joiner] == MEMBER_JOINING)
			schedule(world, any_time(world), i, CONTROL_LINK);
	}
	s->fails = rng_chance_64(&s->rng, FAILS_PERCENT);
}

static void start_actors(struct world *world, uint32_t node, bool anew)
{
	for (uint32_t i = 0; i < world->actors_per_node; i++) {
		uint32_t actor = node * world->actors_per_node + i;

		if (world->actor[actor].state == ACTOR_STOPPED)
			actor_restart(world, actor, anew);
	}
}

/*
 * Who has become ACTIVE may hear of it first: what it says then is kept until the others have. Before,
 * it says nothing.
 */
bool steps_early(struct world *world, const struct event *event)
{
	struct sim_node *n = &world->node[event->target];

	if (!changing(world) || n->view[event->msg.src] != MEMBER_JOINING)
		return false;
	if (world->steps.state[event->msg.src] == MEMBER_JOINING)
		world_fail(world, RULE_STRANGER, event->target, (uint32_t)event->msg.gpn,
			   "a message of who is no member yet");
	if (n->early_count == n->early_size) {
		n->early_size = n->early_size ? 2 * n->early_size : 16;
		n->early = realloc(n->early, n->early_size * sizeof(*n->early));
		if (!n->early)
			abort();
	}
	n->early[n->early_count++] = *event;
	return true;
}

static void take_early(struct world *world, uint32_t node)
{
	struct sim_node *n = &world->node[node];

	for (uint32_t i = 0; i < n->early_count; i++)
		edge_message(world, &n->early[i]);
	n->early_count = 0;
}

static void hear(struct world *world, uint32_t node, const struct control *word)
{
	struct steps *s = &world->steps;
	struct sim_node *n = &world->node[node];
	bool about_me = word->node == node;

	if (!n->coh[0])
		return;
	if (word->state != MEMBER_FREE) /* then words about it may come until that is done */
		n->view[word->node] = (uint8_t)word->state;
	n->step_open = word->owes;
	n->step_number = word->number;
	n->step_about = word->state == MEMBER_FREE ? word->node : NODE_NONE;
	edge_member(world, node, word->node, word->state);
	if (word->state == MEMBER_ACTIVE && !about_me && !n->has_link[word->node])
		world_fail(world, RULE_STRANGER, node, 0, "ACTIVE comes before the link");
	if (word->state == MEMBER_ACTIVE)
		take_early(world, node);
	if (about_me && word->state == MEMBER_DRAINING)
		n->leaving = true;
	if (about_me && word->state == MEMBER_ACTIVE) {
		bool anew = !n->leaving;

		n->leaving = n->releasing = n->released = n->drain_over = false;
		if (!anew)
			edge_release_cancel(world, node);
		start_actors(world, node, anew);
	}
	if (word->state == MEMBER_JOINING && s->joiner != NODE_NONE)
		schedule(world, any_time(world), node, CONTROL_LINK);
	if (word->state == MEMBER_GONE && world->node[word->node].failed)
		edge_unlinked(world, node, word->node);
}

static void step_over(struct world *world)
{
	struct steps *s = &world->steps;

	world_trace(world, s->node, "OVER %u", s->number);
	s->open = false;
	if (s->kind == MEMBER_JOINING)
		begin_joiner(world);
	if (s->kind == MEMBER_ACTIVE && s->joiner == s->node)
		s->joiner = NODE_NONE;
	if (s->kind == MEMBER_DRAINING || s->kind == MEMBER_GONE)
		schedule(world, later(world, s->node), s->node,
			 s->kind == MEMBER_GONE ? CONTROL_GONE_OVER : CONTROL_DRAIN_OVER);
}

static bool all_say(const struct world *world, const struct sim_node *n,
		    bool (*says)(const struct coh *))
{
	for (uint32_t shard = 0; shard < world->shard_count; shard++)
		if (!says(n->coh[shard]))
			return false;
	return true;
}

static void end_node(struct world *world, uint32_t node)
{
	struct sim_node *n = &world->node[node];

	world_trace(world, node, "ENDS");
	for (uint32_t i = 0; i < world->node_count; i++)
		for (uint32_t shard = 0; shard < world->shard_count; shard++)
			if (i != node && n->has_link[i] && world->node[i].coh[0])
				world_send_end(world, node, i, shard);
	for (uint32_t i = 0; i < world->node_count; i++)
		n->has_link[i] = world->node[i].has_link[node] = false;
	world_end_node(world, node);
}

void steps_follow(struct world *world, uint32_t node)
{
	struct steps *s = &world->steps;
	struct sim_node *n = &world->node[node];

	if (!changing(world) || !n->coh[0] || checker_verdict(world->checker)->rule)
		return;
	if (n->step_open && all_say(world, n, coh_member_done)) {
		n->step_open = false;
		if (n->step_about != NODE_NONE)
			n->view[n->step_about] = MEMBER_FREE;
		if (n->step_number != s->number)
			return;
		s->awaited--;
		if (!s->awaited || (world->plan.broken == COH_BROKEN_ACTIVE_EARLY &&
				    s->kind == MEMBER_JOINING && s->open))
			schedule(world, world->now_ns, node, CONTROL_STEP_OVER);
	}
	if (n->drain_over && n->leaving && !n->releasing && n->stopped == world->actors_per_node) {
		n->releasing = true;
		n->release_ns = world->now_ns;
		edge_release(world, node);
	}
	if (n->releasing && !n->released && all_say(world, n, coh_released)) {
		world_trace(world, node, "DRAINED");
		n->released = true;
		for (uint32_t shard = 0; shard < world->shard_count; shard++)
			if (checker_resident(world->checker, node, shard))
				world_fail(world, RULE_RELEASE, node, 0,
					   "drained, and yet it holds pages");
	}
	if (n->gone_over && all_say(world, n, coh_flushed))
		end_node(world, node);
}

void steps_control(struct world *world, uint32_t node, const struct control *word)
{
	struct steps *s = &world->steps;

	switch (word->kind) {
	case CONTROL_LOOK:
		look(world);
		break;
	case CONTROL_STEP:
		hear(world, node, word);
		break;
	case CONTROL_STEP_OVER:
		if (s->open && word->number == s->number)
			step_over(world);
		break;
	case CONTROL_DRAIN_OVER:
		world->node[node].drain_over = world->node[node].leaving;
		break;
	case CONTROL_GONE_OVER:
		world->node[node].gone_over = world->node[node].coh[0];
		break;
	case CONTROL_LINK:
		link_up(world, node);
		break;
	}
}

/* Is a message of the world as its receiver knows it? */
void steps_judge(struct world *world, const struct event *event)
{
	const struct sim_node *n = &world->node[event->target];
	const struct coh_msg *msg = &event->msg;

	/* Who is GONE hears of no step more; its channels end with those it had them with. */
	if (!changing(world) || world->steps.state[event->target] == MEMBER_GONE ||
	    world->steps.state[event->target] == MEMBER_FREE)
		return;
	if (n->view[msg->src] == MEMBER_FREE || n->view[msg->requester] == MEMBER_FREE ||
	    (msg->node && n->view[msg->node] == MEMBER_FREE) ||
	    world->node[msg->src].life != event->src_life)
		world_fail(world, RULE_STRANGER, event->target, (uint32_t)msg->gpn,
			   "a message of, or about, who is not in the pod");
	else if (world->node[msg->requester].life != event->requester_life ||
		 (msg->node && world->node[msg->node].life != event->node_life))
		world_fail(world, RULE_STRANGER, event->target, (uint32_t)msg->gpn,
			   "a message that names a number's owner before");
}

/* Is one sent to who is linked? A joiner that was lost is not, and who has not heard of that may send. */
void steps_judge_send(struct world *world, uint32_t node, uint32_t to, const struct coh_msg *msg)
{
	const struct sim_node *peer = &world->node[to];

	if (changing(world) && !world->node[node].has_link[to] && peer->coh[0] && !peer->failed)
		world_fail(world, RULE_STRANGER, node, (uint32_t)msg->gpn,
			   "a message to who is not linked");
}

/* What registrars say of a chunk can only go forward, and they are never of two minds. */
void steps_judge_answer(struct world *world, uint32_t node, const struct coh_msg *msg)
{
	struct told *told = &world->steps.told[msg->gpn / CHUNK_PAGES];

	if (!changing(world) || msg->type != COH_HOME_IS)
		return;
	if (msg->version < told->version ||
	    (msg->version == told->version && msg->node != told->node))
		world_fail(world, RULE_REGISTRAR, node, (uint32_t)msg->gpn,
			   "two registrars answer for a chunk");
	told->version = msg->version;
	told->node = msg->node;
}

void steps_judge_still(struct world *world)
{
	if (!changing(world))
		return;
	if (!world->steps.finished)
		world_fail(world, RULE_RELEASE, world->steps.node, 0,
			   "nothing happens any more, and a step is not over");
	for (uint32_t i = 0; i < world->node_count; i++)
		if (world->node[i].coh[0] && world->node[i].asks)
			world_fail(world, RULE_REGISTRAR, i, 0,
				   "a registrar was asked, and none has answered");
}

bool steps_finished(const struct world *world)
{
	return !changing(world) || world->steps.finished;
}

uint32_t steps_any_active(struct world *world)
{
	return any_of(world, MEMBER_ACTIVE, false);
}

int steps_begin(struct world *world)
{
	struct steps *s = &world->steps;

	s->joiner = NODE_NONE;
	if (!changing(world))
		return 0;
	s->rng.state = world->plan.seed ^ 0xbb67ae8584caa73bu;
	s->told = calloc(world->page_count / CHUNK_PAGES + 1, sizeof(*s->told));
	if (!s->told)
		return -1;
	for (uint32_t i = 0; i < world->plan.nodes; i++)
		s->state[i] = MEMBER_ACTIVE;
	for (uint32_t i = 0; i < world->plan.nodes; i++) {
		memcpy(world->node[i].view, s->state, sizeof(s->state));
		for (uint32_t k = 0; k < world->plan.nodes; k++)
			world->node[i].has_link[k] = i != k;
	}
	next_look(world);
	return 0;
}
