/* SPDX-License-Identifier: Apache-2.0 */
/* A process: what a node does around its list of members. */
#include <errno.h>

#include "tests/sim/members/world.h"

static struct message message_to(const struct process *process, uint32_t who, uint16_t to,
				 enum message_type type)
{
	return (struct message){ .type = type, .src = who, .dst = process->link[to] };
}

/* ---- things ---------------------------------------------------------------------------------- */

static bool may_begin(const struct world *world, const struct process *process, uint16_t node)
{
	const struct member_list *list = &process->list;
	enum member_state state = list->now.member[node].state;

	if (world->plan->edge_broken == EDGE_BROKEN_BEGINS_DRAINING && state == MEMBER_DRAINING &&
	    node != process->number)
		return process->link[node] != NOBODY;
	if (world->plan->edge_broken == EDGE_BROKEN_BEGINS_JOINING && state == MEMBER_JOINING &&
	    node != process->number)
		return process->link[node] != NOBODY;
	return member_list_may_begin(list, node);
}

/* NODE_NONE: nobody. */
static uint16_t choose_target(struct world *world, const struct process *process)
{
	uint16_t count = (uint16_t)world->plan->numbers;
	uint16_t first = (uint16_t)rng_below(&world->rng, count);

	for (uint16_t i = 0; i < count; i++) {
		uint16_t node = (uint16_t)((first + i) % count);

		if (may_begin(world, process, node))
			return node;
	}
	return NODE_NONE;
}

static void hand_on(struct world *world, uint32_t who, uint8_t index)
{
	struct process *process = world->process[who];
	struct sim_thing *thing = &process->thing[index];
	uint16_t to = choose_target(world, process);
	struct message message;

	if (!thing->here || thing->owed_by != NODE_NONE || to == NODE_NONE)
		return;
	if (process->link[to] == NOBODY) {
		world_fail(world, RULE_SURVIVES, "%u begins something at %u, whom it has lost",
			   process->number, to);
		return;
	}
	message = message_to(process, who, to, MESSAGE_MOVE);
	message.thing = index;
	message.epoch = ++thing->epoch;
	thing->here = false;
	thing->node = to;
	thing->who = process->link[to];
	thing->owed_by = to;
	world->moves++;
	message_send(world, &message);
}

/* An ASK of anybody's, `named`, goes on to where the thing is thought to be. */
static void send_ask(struct world *world, uint32_t who, uint8_t index, uint16_t named,
		     uint32_t named_who)
{
	struct process *process = world->process[who];
	struct message message = message_to(process, who, process->thing[index].node, MESSAGE_ASK);

	message.thing = index;
	message.named = named;
	message.named_who = named_who;
	message_send(world, &message);
}

static void ask(struct world *world, uint32_t who, uint8_t index)
{
	struct process *process = world->process[who];
	struct sim_thing *thing = &process->thing[index];

	if (thing->here || thing->asking)
		return;
	thing->asking = true;
	thing->asked_at_step = process->list.now.step;
	send_ask(world, who, index, process->number, who);
}

static void tell(struct world *world, uint32_t who, uint8_t index)
{
	struct process *process = world->process[who];
	const struct sim_thing *thing = &process->thing[index];
	uint16_t to = (uint16_t)rng_below_64(&world->rng, world->plan->numbers);
	uint16_t named = thing->here ? process->number : thing->node;
	struct message message;

	if (to == process->number || !member_list_counts(&process->list, to))
		return;
	message = message_to(process, who, to, MESSAGE_HINT);
	message.thing = index;
	message.named = named;
	message.named_who = thing->here ? who : thing->who;
	message.epoch = thing->epoch;
	message_send(world, &message);
}

static void hear_move(struct world *world, uint32_t who, const struct message *message)
{
	struct process *process = world->process[who];
	uint16_t src = world->process[message->src]->number;
	struct sim_thing *thing = &process->thing[message->thing];
	struct message taken = message_to(process, who, src, MESSAGE_TAKEN);

	if (!member_list_may_be_begun(&process->list, src)) {
		world_fail(world, RULE_LIE, "%u begins something at %u, which takes it for a lie",
			   src, process->number);
		return;
	}
	thing->here = true;
	thing->epoch = message->epoch;
	taken.thing = message->thing;
	message_send(world, &taken);
}

static void hear_ask(struct world *world, uint32_t who, const struct message *message)
{
	struct process *process = world->process[who];
	struct sim_thing *thing = &process->thing[message->thing];
	struct message reply;

	judge_named(world, who, message->named, message->named_who);
	if (message->named == process->number && thing->here) {
		thing->asking = false; /* it has come meanwhile */
	} else if (thing->here) {
		reply = message_to(process, who, message->named, MESSAGE_REPLY);
		reply.thing = message->thing;
		reply.epoch = thing->epoch;
		message_send(world, &reply);
	} else {
		send_ask(world, who, message->thing, message->named, message->named_who);
	}
}

static void believe(struct world *world, uint32_t who, const struct message *message, uint16_t node,
		    uint32_t node_who)
{
	struct process *process = world->process[who];
	struct sim_thing *thing = &process->thing[message->thing];

	(void)world;
	if (thing->here || thing->owed_by != NODE_NONE || message->epoch <= thing->epoch ||
	    node == process->number || !member_list_counts(&process->list, node))
		return;
	thing->node = node;
	thing->who = node_who;
	thing->epoch = message->epoch;
}

/* ---- what a step asks ------------------------------------------------------------------------ */

static void flush_to(struct world *world, uint32_t who, uint16_t to)
{
	struct process *process = world->process[who];
	struct message message = message_to(process, who, to, MESSAGE_FLUSH);

	message.epoch = process->list.now.step;
	message_send(world, &message);
}

static bool all_have_flushed(const struct process *process)
{
	for (uint16_t node = 0; node < process->list.now.number_count; node++)
		if (node != process->number && member_list_counts(&process->list, node) &&
		    process->flushed[node] < process->list.now.step)
			return false;
	return true;
}

/* Nothing here names `node`, and nothing that was asked before may go by it. */
static bool nothing_names(const struct world *world, const struct process *process, uint16_t node)
{
	for (uint32_t t = 0; t < world->plan->things; t++) {
		const struct sim_thing *thing = &process->thing[t];

		if ((!thing->here && thing->node == node) || thing->owed_by == node ||
		    (thing->asking && thing->asked_at_step < process->list.now.step))
			return false;
	}
	return true;
}

static bool nothing_is_owed_by(const struct world *world, const struct process *process,
			       uint16_t node)
{
	for (uint32_t t = 0; t < world->plan->things; t++)
		if (process->thing[t].owed_by == node)
			return false;
	return true;
}

static bool step_is_done(const struct world *world, const struct process *process)
{
	const struct member_word *step = &process->list.last;
	uint8_t broken = world->plan->edge_broken;

	switch (step->kind) {
	case KIND_DRAIN:
		return broken == EDGE_BROKEN_DRAIN_AT_ONCE ||
		       nothing_is_owed_by(world, process, step->node);
	case KIND_GONE:
		return broken == EDGE_BROKEN_GONE_AT_ONCE || step->why != 0 ||
		       nothing_names(world, process, step->node);
	case KIND_FREE:
		return (broken == EDGE_BROKEN_UNFLUSHED || all_have_flushed(process)) &&
		       (broken == EDGE_BROKEN_FREE_LINKED || process->link[step->node] == NOBODY);
	default:
		return true;
	}
}

static void applied(struct world *world, uint32_t who, const struct member_word *step)
{
	struct process *process = world->process[who];

	TRACE(world, "%u: step %llu, kind %d, node %u, why %d", process->number,
	      (unsigned long long)step->number, (int)step->kind, step->node, step->why);
	judge_applied(world, who, step);
	if (step->node == process->number)
		process->said_drained = false;
	process->owes_done = !process->list.done;
	process->dawdles = rng_chance(&world->rng, 20);
	if (process->dawdles)
		later(world, &(struct event){ .kind = EVENT_WAKE, .who = who },
		      rng_below_64(&world->rng, world->plan->tick_ns));
	for (uint16_t to = 0; step->kind == KIND_FREE && to < world->plan->numbers; to++)
		if (to != process->number && member_list_counts(&process->list, to))
			flush_to(world, who, to);
	if (step->kind == KIND_GONE && step->why != 0 && process->link[step->node] != NOBODY) {
		struct message end = message_to(process, who, step->node, MESSAGE_LOST);

		message_send(world, &end);
		process->link[step->node] = NOBODY;
	}
	if (step->kind == KIND_JOIN && process->refuses) {
		process->refuses = false;
		member_list_fail_joiner(&process->list, -ENOMEM);
	}
}

static void say_done(struct world *world, uint32_t who)
{
	struct process *process = world->process[who];
	const struct member_word *step = &process->list.last;

	process->owes_done = false;
	if (step->kind == KIND_GONE && step->why == 0 && process->link[step->node] != NOBODY) {
		flush_to(world, who, step->node);
		if (world->plan->edge_broken == EDGE_BROKEN_ENDS_EARLY)
			process->link[step->node] = NOBODY;
	}
	member_list_done(&process->list);
}

/* ---- joining and leaving --------------------------------------------------------------------- */

/* What the sponsor has told it: list, and where things are. */
static void begin_joiner(struct world *world, uint32_t sponsor, const struct member_word *step)
{
	struct process *process = world->process[sponsor], *joiner;
	uint32_t who = who_is(&step->about);

	joiner = world->process[who];
	if (joiner->fate != FATE_WAITS)
		return; /* it has died before it began: the deadline finds that out */
	joiner->fate = FATE_LIVES;
	joiner->number = step->node;
	world->holder[step->node] = who;
	if (member_list_init_joiner(&joiner->list, step->node, &process->list.now)) {
		world_fail(world, RULE_LIE, "%u does not take the list that it is given",
			   step->node);
		return;
	}
	joiner->list.broken = world->plan->core_broken;
	for (uint32_t t = 0; t < world->plan->things; t++) {
		const struct sim_thing *thing = &process->thing[t];

		joiner->thing[t] = (struct sim_thing){
			.node = thing->here ? process->number : thing->node,
			.who = thing->here ? sponsor : thing->who,
			.epoch = thing->epoch,
			.owed_by = NODE_NONE,
		};
	}
	for (uint16_t node = 0; node < world->plan->numbers; node++)
		if (member_list_counts(&joiner->list, node))
			message_send(world, &(struct message){ .type = MESSAGE_LINK,
							       .src = who,
							       .dst = world->holder[node],
							       .epoch = step->number });
	later(world, &(struct event){ .kind = EVENT_TICK, .who = who }, world->plan->tick_ns);
}

static void hear_link(struct world *world, uint32_t who, const struct message *message)
{
	struct process *process = world->process[who];
	uint16_t src = world->process[message->src]->number;
	/* One who has failed may come late, when his number is another joiner's. */
	bool welcome = process->list.now.member[src].state == MEMBER_JOINING &&
		       process->list.now.member[src].since == message->epoch;
	struct message answer = { .src = who, .dst = message->src };

	if (welcome)
		process->link[src] = message->src;
	answer.type = welcome ? MESSAGE_LINKED : MESSAGE_LOST;
	message_send(world, &answer);
}

static bool all_links_stand(const struct process *process)
{
	for (uint16_t node = 0; node < process->list.now.number_count; node++)
		if (node != process->number && member_list_counts(&process->list, node) &&
		    process->link[node] == NOBODY)
			return false;
	return true;
}

static bool holds_nothing(const struct world *world, const struct process *process)
{
	for (uint32_t t = 0; t < world->plan->things; t++)
		if (process->thing[t].here || process->thing[t].asking ||
		    process->thing[t].owed_by != NODE_NONE)
			return false;
	return true;
}

/* The drain's step is over: later ones are, or that one. */
static bool drain_is_over(const struct world *world, const struct process *process)
{
	uint64_t since = process->list.now.member[process->number].since;

	return process->list.over || process->list.now.step > since ||
	       world->plan->edge_broken == EDGE_BROKEN_DRAINED_EARLY;
}

/* Whether the list has something to say now. */
static bool settle_own_state(struct world *world, uint32_t who)
{
	struct process *process = world->process[who];
	struct member_list *list = &process->list;

	switch (list->now.member[process->number].state) {
	case MEMBER_JOINING:
		if (!process->said_ready && !process->hangs &&
		    (all_links_stand(process) ||
		     (world->plan->edge_broken == EDGE_BROKEN_READY_EARLY &&
		      process->link[list->now.seat[SEAT_STEWARD]] != NOBODY))) {
			process->said_ready = true;
			member_list_ready(list);
			return true;
		}
		return false;
	case MEMBER_DRAINING:
		for (uint8_t t = 0; t < world->plan->things; t++)
			hand_on(world, who, t);
		if (!process->said_drained && drain_is_over(world, process) &&
		    holds_nothing(world, process)) {
			process->said_drained = true;
			member_list_drained(list);
			return true;
		}
		return false;
	default:
		return false;
	}
}

static bool may_leave(const struct world *world, const struct process *process)
{
	if (process->list.now.member[process->number].state != MEMBER_GONE || !process->list.over)
		return false;
	/* Of whom the link has ended, nothing more comes. */
	for (uint16_t node = 0; node < world->plan->numbers; node++)
		if (process->link[node] != NOBODY && member_list_counts(&process->list, node) &&
		    process->flushed[node] < process->list.now.step &&
		    world->plan->edge_broken != EDGE_BROKEN_LEAVES_EARLY)
			return false;
	return true;
}

/* ---- all together ---------------------------------------------------------------------------- */

static void send_word(struct world *world, uint32_t who, const struct member_out *out)
{
	struct process *process = world->process[who];

	for (uint16_t to = 0; to < world->plan->numbers; to++) {
		struct message message;

		if (!member_set_has(&out->to, to))
			continue;
		message = message_to(process, who, to, MESSAGE_LIST);
		message.word = out->word;
		message_send(world, &message);
	}
}

static void pod_ends(struct world *world, uint32_t who)
{
	struct process *process = world->process[who];
	bool member = member_list_counts(&process->list, process->number);

	TRACE(world, "%u ends", process->number);
	if (member) {
		judge_end(world, who);
		world->ends++;
	}
	process_dies(world, who, FATE_ENDED);
}

static void act_on(struct world *world, uint32_t who, const struct member_out *out)
{
	struct process *process = world->process[who];

	switch (out->type) {
	case MEMBER_SEND:
		send_word(world, who, out);
		return;
	case MEMBER_APPLIED:
		applied(world, who, &out->word);
		return;
	case MEMBER_IS_OVER:
		if (out->word.kind == KIND_JOIN && out->word.by == process->number)
			begin_joiner(world, who, &out->word);
		return;
	case MEMBER_UNWANTED:
		world->refused++;
		return;
	case MEMBER_END:
		pod_ends(world, who);
		return;
	}
}

static void set_deadline(struct world *world, uint32_t who)
{
	struct process *process = world->process[who];
	uint64_t deadline_ns = member_list_deadline(&process->list);

	if (deadline_ns == UINT64_MAX || deadline_ns == process->deadline_ns)
		return;
	process->deadline_ns = deadline_ns;
	later(world, &(struct event){ .kind = EVENT_WAKE, .who = who },
	      deadline_ns > world->now_ns ? deadline_ns - world->now_ns : 0);
}

void node_act(struct world *world, uint32_t who)
{
	struct process *process = world->process[who];
	struct member_out out;
	bool more = true;

	while (more && lives(world, who) && !world->rule) {
		more = false;
		while (lives(world, who) && !world->rule &&
		       member_list_next(&process->list, world->now_ns, &out)) {
			act_on(world, who, &out);
			more = true;
		}
		if (!lives(world, who))
			return;
		/* Who is refreshed by x is refreshed while x is there. */
		if (process->owes_done && process->list.last.kind == KIND_GONE &&
		    process->list.last.why == 0)
			for (uint8_t t = 0; t < world->plan->things; t++)
				if (process->thing[t].node == process->list.last.node)
					ask(world, who, t);
		if (process->owes_done && !process->dawdles && !process->list.done &&
		    step_is_done(world, process)) {
			say_done(world, who);
			more = true;
		}
		more |= settle_own_state(world, who);
	}
	set_deadline(world, who);
	if (may_leave(world, process))
		process_dies(world, who, FATE_LEFT);
}

void node_tick(struct world *world, uint32_t who)
{
	struct process *process = world->process[who];
	uint8_t index = (uint8_t)rng_below_64(&world->rng, world->plan->things);
	enum member_state state;
	bool works;

	state = process->list.now.member[process->number].state;
	works = state == MEMBER_ACTIVE || (state == MEMBER_DRAINING && !process->said_drained) ||
		(state == MEMBER_JOINING && world->plan->edge_broken == EDGE_BROKEN_BEGINS_JOINING);
	if (works && world->wishes_left > 0)
		switch (rng_below(&world->rng, 3)) {
		case 0:
			hand_on(world, who, index);
			break;
		case 1:
			ask(world, who, index);
			break;
		default:
			tell(world, who, index);
			break;
		}
	node_act(world, who);
	if (lives(world, who) && world->wishes_left > 0)
		later(world, &(struct event){ .kind = EVENT_TICK, .who = who },
		      1 + rng_below_64(&world->rng, world->plan->tick_ns));
}

static void hear_list(struct world *world, uint32_t who, const struct message *message)
{
	struct process *process = world->process[who];
	uint16_t src = world->process[message->src]->number;

	if (member_list_hear(&process->list, src, &message->word, world->now_ns))
		world_fail(world, RULE_LIE, "%u takes type %d of step %llu by %u for a lie",
			   process->number, (int)message->word.type,
			   (unsigned long long)message->word.number, src);
}

void node_arrival(struct world *world, const struct message *message)
{
	uint32_t who = message->dst;
	struct process *process = world->process[who];
	uint16_t src = world->process[message->src]->number;
	struct sim_thing *thing = &process->thing[message->thing];

	switch (message->type) {
	case MESSAGE_LIST:
		hear_list(world, who, message);
		break;
	case MESSAGE_LINK:
		hear_link(world, who, message);
		break;
	case MESSAGE_LINKED:
		process->link[src] = message->src;
		break;
	case MESSAGE_LOST:
		process->link[src] = NOBODY;
		member_list_lost(&process->list, src);
		break;
	case MESSAGE_MOVE:
		hear_move(world, who, message);
		break;
	case MESSAGE_TAKEN:
		thing->owed_by = NODE_NONE;
		break;
	case MESSAGE_ASK:
		hear_ask(world, who, message);
		break;
	case MESSAGE_REPLY:
		thing->asking = false;
		believe(world, who, message, src, message->src);
		break;
	case MESSAGE_HINT:
		judge_named(world, who, message->named, message->named_who);
		believe(world, who, message, message->named, message->named_who);
		break;
	case MESSAGE_FLUSH:
		if (message->epoch > process->flushed[src])
			process->flushed[src] = message->epoch;
		break;
	}
	if (lives(world, who))
		node_act(world, who);
}
