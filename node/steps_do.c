/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a step of the list of members asks of a node: all of it on the control thread, which waits for
 * nothing; so a step is begun, and then looked at again and again until it is done.
 *
 *	JOIN x    its links are expected. When they stand: its channels are the pager's and are read, it is
 *	          told of the vCPUs that are here, policy and pins (control_linked()), and hears from now
 *	          on what is said to all. It says nothing but what a joiner may (control_rules.c)
 *	ACTIVE x  when that is over, not before, vCPUs may go there: then all take it for a member. x itself
 *	          begins nothing until then either (members->joins)
 *	DRAIN x   no vCPU leaves for x any more; done when those that are on their way have been answered.
 *	          x sends its own away, pinned ones too; when DRAIN is over and none is there, it gives its
 *	          pages away, and when it has none it says so
 *	GONE x    done when no vCPU's word names x, and no thread that has read one is still sending. x sends
 *	          on what comes until then. When it is over nobody says anything to x: each ends its side of
 *	          the control channel, behind all it has said. x ends when it has read all these ends, so
 *	          nothing is lost, and when the pager's channels have been flushed. Of a joiner that failed the
 *	          links are closed at once
 *	FREE x    done when x has ended its links, too, and they are closed here
 *
 * Touching the guest's memory while a node gives it away would end the pod. So nothing does: no vCPU is
 * there, none may come before a cancelled drain is over, and a pod with devices does not drain.
 *
 * Tested in tests/node/test_steps.c, tests/pod/drain.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node/steps_state.h"
#include "pager/members.h"
#include "wire/token.h"

#define SEND_AWAY_NS 20000000ull

static struct member_list *list_of(struct node *node)
{
	return &node->members->list;
}

static enum member_state state_of(struct node *node, uint16_t number)
{
	return list_of(node)->now.member[number].state;
}

static const char *name_of(struct node *node, uint16_t number)
{
	return members_name(node->members, number);
}

/* ---- the pager, where the node has one ------------------------------------------------------- */

static void members_changed(void *arg)
{
	control_wake(arg);
}

/* Of who joins: its own last words may be on their way. Of who has gone: that is as it should be. */
static void link_ended(void *arg, uint16_t peer, int error, const char *cause)
{
	struct node *node = arg;

	if (members_state(node->members, peer) == MEMBER_JOINING)
		control_link_failed(node, peer, cause);
}

void steps_configure_pager(struct node *node, struct pager_config *pager)
{
	pager->members_changed = members_changed;
	pager->link_ended = link_ended;
	pager->joins = atomic_load(&node->members->joins);
	members_for_each(node->members, n) {
		member_set_add(&pager->members, n);
		if (members_state(node->members, n) == MEMBER_DRAINING)
			member_set_add(&pager->draining, n);
		if (members_state(node->members, n) == MEMBER_GONE)
			member_set_add(&pager->gone, n);
	}
}

/* A pager that has failed, or stops, says so itself. */
static void judge(struct node *node, int error, const char *what)
{
	if (error < 0 && error != -ESHUTDOWN)
		node_end_with(node, CONTROL_END_NODE_ERROR, 1,
			      "node %u (%s): memory refuses %s: %s", node->self,
			      name_of(node, node->self), what, strerror(-error));
}

static void tell_pager(struct node *node, const struct member_word *step)
{
	if (step->kind == KIND_SEAT || !node->pager)
		return;
	/* It has said that all its links stand: it is believed that, and is lost as a member. */
	if (step->kind == KIND_ACTIVE && step->node != node->self &&
	    !mesh_control(node->mesh, step->node)) {
		node_end_with(node, CONTROL_END_NODE_LOST, 1,
			      "node %u (%s) has joined, but not linked with node %u", step->node,
			      name_of(node, step->node), node->self);
		return;
	}
	judge(node, pager_member(node->pager, step->node, state_of(node, step->node)), "a step");
	if (step->kind == KIND_ACTIVE && step->node == node->self)
		judge(node, pager_release_cancel(node->pager), "to keep what it has");
}

static void unlink_pages(struct node *node, uint16_t number)
{
	if (node->pager)
		judge(node, pager_unlink(node->pager, number), "a link's end");
}

static bool has_pages_of(struct node *node, uint16_t number)
{
	return node->pager && pager_linked(node->pager, number);
}

/* ---- to whom vCPUs go ------------------------------------------------------------------------ */

/* Who is ACTIVE; but not a moment too early. */
static struct member_set takes_vcpus(struct node *node)
{
	const struct member_list *list = list_of(node);
	struct member_set set = { 0 };

	for (uint16_t n = 0; n < node->members->number_count; n++)
		if (state_of(node, n) == MEMBER_ACTIVE &&
		    (list->over || list->last.kind != KIND_ACTIVE || list->last.node != n))
			member_set_add(&set, n);
	return set;
}

static void place_vcpus(struct node *node)
{
	struct member_set set = takes_vcpus(node);

	vcpu_places_members(&node->places, &set);
	member_set_add(&set, node->self);
	policy_members(node, &set,
		       node->steps->step.kind == KIND_ACTIVE &&
			       node->steps->step.node == node->self);
}

/* Others with a core. */
static struct member_set targets(struct node *node)
{
	struct member_set set = takes_vcpus(node);

	for (uint16_t n = 0; n < node->members->number_count; n++)
		if (n == node->self || !members_about(node->members, n)->cores)
			member_set_remove(&set, n);
	return set;
}

/* ---- links ----------------------------------------------------------------------------------- */

static void expect(struct node *node, const struct member_word *step)
{
	struct mesh_node joiner = { .name = step->about.name, .address = step->about.address };
	char why[MESH_WHY_MAX] = "";
	struct steps *s = node->steps;
	int error;

	s->link[step->node] = LINK_STANDS;
	s->ended[step->node] = false;
	atomic_store(&s->down[step->node], false);
	atomic_store(&node->members->ears[step->node], EARS_NAMED);
	mesh_token_used(node->mesh,
			&(struct token_name){ step->about.token_id, step->about.token_expiry_s });
	error = mesh_expect(node->mesh, step->node, &joiner, step->number, why, sizeof(why));
	if (!error)
		return;
	node_say(node, "node %u (%s) cannot join: %s", step->node, step->about.name, why);
	member_list_fail_joiner(list_of(node), error);
}

/* Nobody says anything to it from now on, but who does so at this moment. */
static void cut(struct node *node, uint16_t number)
{
	struct steps *s = node->steps;

	atomic_store(&node->members->ears[number], EARS_NONE);
	s->link[number] = LINK_CUT;
	s->cut[number] = members_quiet_begin(node->members);
}

/* False: not yet. */
static bool close_links(struct node *node, uint16_t number)
{
	struct steps *s = node->steps;

	if ((s->link[number] != LINK_CUT && s->link[number] != LINK_SHUT) ||
	    !members_is_quiet(node->members, s->cut[number]) || has_pages_of(node, number))
		return false;
	control_forget(node, number);
	mesh_forget(node->mesh, number);
	s->link[number] = LINK_CLOSED;
	return true;
}

void steps_link_down(struct node *node, uint16_t peer, const char *cause)
{
	enum member_state state = members_state(node->members, peer);
	enum member_state own = members_state(node->members, node->self);
	struct steps *s = node->steps;
	/* Others may have learned sooner that this node is GONE, and ended their side. */
	bool gone =
		own == MEMBER_GONE || (own == MEMBER_DRAINING && s && atomic_load(&s->drained) &&
				       peer != members_seat(node->members, SEAT_STEWARD));

	if (!s || (!gone && (state == MEMBER_ACTIVE || state == MEMBER_DRAINING))) {
		struct control_end end = {
			.kind = CONTROL_END_NODE_LOST, .status = 1, .node = peer, .vcpu = NODE_NONE
		};
		snprintf(end.text, sizeof(end.text), "%s", cause);
		node_end(node, &end, true);
		return;
	}
	snprintf(s->cause[peer], sizeof(s->cause[peer]), "%s", cause);
	atomic_store(&s->down[peer], true);
	control_wake(node);
}

/* Links that have ended, though this node has not ended them; once for each life. */
static bool hear_of_end(struct node *node, uint16_t number)
{
	struct steps *s = node->steps;
	enum member_state state = state_of(node, number);

	if (!atomic_load(&s->down[number]) || s->ended[number])
		return false;
	/* As it should be, or a loss: that is known when this node is GONE, or stays. */
	if (state_of(node, node->self) == MEMBER_DRAINING && state != MEMBER_GONE &&
	    state != MEMBER_FREE && state != MEMBER_JOINING)
		return false;
	s->ended[number] = true;
	if (state == MEMBER_GONE || state == MEMBER_FREE)
		unlink_pages(node, number);
	else if (state_of(node, node->self) != MEMBER_GONE)
		node_say(node, "%s", s->cause[number]);
	member_list_lost(list_of(node), number);
	return true;
}

/* All that was said to who has gone is followed by the end of it. */
static void shut(struct node *node, uint16_t number)
{
	struct steps *s = node->steps;
	struct control_channel *channel;

	if (s->link[number] != LINK_CUT || !members_is_quiet(node->members, s->cut[number]))
		return;
	s->link[number] = LINK_SHUT;
	channel = mesh_control(node->mesh, number);
	if (channel && !s->ended[number])
		channel->ops->shutdown(channel);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void say(struct node *node, const struct member_word *step)
{
	const char *name = name_of(node, step->node);

	switch (step->kind) {
	case KIND_JOIN:
		node_say(node, "node %u (%s) joins, from %s", step->node, name,
			 step->about.address);
		break;
	case KIND_ACTIVE:
		node_say(node, "node %u (%s) is a member", step->node, name);
		break;
	case KIND_DRAIN:
		node_say(node, "node %u (%s) gives away what it has", step->node, name);
		break;
	case KIND_GONE:
		if (step->why < 0)
			node_say(node, "node %u (%s) has not joined: %s", step->node, name,
				 strerror(-step->why));
		else
			node_say(node, "node %u (%s) holds nothing any more", step->node, name);
		break;
	default:
		break;
	}
}

void steps_begin(struct node *node, const struct member_word *step)
{
	struct steps *s = node->steps;
	bool self = step->node == node->self;

	s->step = *step;
	s->unnamed = false;
	s->owes_done = step->kind != KIND_GONE || !self;
	say(node, step);
	tell_pager(node, step);
	switch (step->kind) {
	case KIND_JOIN:
		expect(node, step);
		break;
	case KIND_DRAIN:
		place_vcpus(node);
		break;
	case KIND_ACTIVE:
		if (!self)
			control_watch(node, step->node);
		if (!self)
			break;
		s->drain_over = s->empty = s->released = false;
		atomic_store(&s->drained, false);
		break;
	case KIND_GONE:
		queues_members(node);
		if (step->why == 0)
			break;
		unlink_pages(node, step->node);
		cut(node, step->node);
		break;
	default:
		break;
	}
}

/* No word leads to it, and nobody who has read one before is still at it. */
static bool names_nobody(struct node *node, uint16_t number)
{
	struct steps *s = node->steps;

	if (!s->unnamed) {
		if (vcpu_places_name(&node->places, number) != PLACES_NAME_NONE)
			return false;
		s->unnamed = true;
		s->quiet = members_quiet_begin(node->members);
	}
	return members_is_quiet(node->members, s->quiet);
}

bool steps_is_done(struct node *node)
{
	struct steps *s = node->steps;
	uint16_t number = s->step.node;

	if (s->step.kind != KIND_SEAT && node->pager && !pager_member_done(node->pager))
		return false;
	switch (s->step.kind) {
	case KIND_DRAIN:
		return vcpu_places_name(&node->places, number) != PLACES_GO_THERE;
	case KIND_GONE:
		return s->step.why < 0 ? close_links(node, number) : names_nobody(node, number);
	case KIND_FREE:
		if (s->link[number] == LINK_CLOSED)
			return true;
		return s->ended[number] && close_links(node, number);
	default:
		return true;
	}
}

void steps_are_over(struct node *node, const struct member_word *step)
{
	struct steps *s = node->steps;
	bool self = step->node == node->self;

	switch (step->kind) {
	case KIND_ACTIVE:
		if (self)
			atomic_store(&node->members->joins, false);
		place_vcpus(node);
		break;
	case KIND_DRAIN:
		if (self)
			s->drain_over = true;
		break;
	case KIND_GONE:
		if (self)
			s->left = true;
		else if (step->why == 0)
			cut(node, step->node);
		break;
	default:
		break;
	}
}

/* ---- this node itself ------------------------------------------------------------------------ */

static bool join(struct node *node)
{
	struct steps *s = node->steps;

	if (s->said_ready || !atomic_load(&node->joined) ||
	    vcpu_places_unknown(&node->places) > 0 ||
	    (node->pager && !pager_member_ready(node->pager)))
		return false;
	s->said_ready = true;
	member_list_ready(list_of(node));
	return true;
}

static bool drain(struct node *node)
{
	struct steps *s = node->steps;
	uint64_t now_ns = node_clock_local_ns(node->clock);
	struct member_set to = targets(node);

	if (s->released) {
		if (atomic_load(&s->drained) || (node->pager && !pager_released(node->pager)))
			return false;
		atomic_store(&s->drained, true);
		member_list_drained(list_of(node));
		return true;
	}
	/* Who comes yet has been sent before DRAIN was over. */
	if (now_ns >= s->send_away_ns) {
		s->send_away_ns = now_ns + SEND_AWAY_NS;
		s->empty = !moves_send_away(node, &to) && s->drain_over;
	}
	if (!s->empty)
		return false;
	s->released = true;
	if (node->pager)
		judge(node, pager_release(node->pager), "to give away what it has");
	return false;
}

/* All who were linked have ended their side, and all that they wanted sent on has left. */
static bool has_left(struct node *node)
{
	if (!node->steps->left || (node->pager && !pager_flushed(node->pager)))
		return false;
	members_for_each_other(node->members, n)
		if (mesh_control(node->mesh, n) &&
		    (!node->steps->ended[n] || node_backlog(node, n) > 0))
			return false;
	return true;
}

static void leave(struct node *node)
{
	struct control_end end = { .kind = CONTROL_END_USER,
				   .node = node->self,
				   .vcpu = NODE_NONE };

	snprintf(end.text, sizeof(end.text), "node %s holds nothing and can be switched off",
		 name_of(node, node->self));
	node_leave(node, &end);
	node->steps->left = false; /* once */
}

bool steps_look(struct node *node)
{
	bool told = false;

	for (uint16_t n = 0; n < node->members->number_count; n++) {
		told |= hear_of_end(node, n);
		shut(node, n);
	}
	switch (state_of(node, node->self)) {
	case MEMBER_JOINING:
		return join(node) || told;
	case MEMBER_DRAINING:
		return drain(node) || told;
	case MEMBER_GONE:
		if (has_left(node))
			leave(node);
		break;
	default:
		break;
	}
	return told;
}
