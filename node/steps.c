/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of the pod's list of members (core/member_list.h), between the wire, the list and this node's
 * users. What a step asks of a node is in steps_do.c.
 *
 *	socket's thread                   control thread, in its turn
 *	steps_wish(): a wish waits    --> steps_settle(): member_list_wish()
 *	                                  steps_message(): member_list_hear()
 *	                                      what the list has to be done then: words are sent, and
 *	                                      what a step asks is begun and published, until it is done
 *	waits for its answer          <-- ... its step is over, or it was refused
 *
 * The list is the control thread's alone. Everybody else sees what members_publish() says.
 *
 * Who is to leave may have no seat (the list refuses that) nor disks, and a pod with disks or cards keeps
 * its nodes: queues and their io channels stay where they are. Nor do vCPUs of a large pod move.
 *
 * Tested in tests/node/test_steps.c, tests/pod/steps and tests/pod/drain.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/deadline.h"
#include "node/steps_state.h"

#define ASK_SECONDS 5
#define ASK_TURN_MS 100
#define NO_FIT	    "which does not fit the pod's list of members"
/* While something is to be done that nobody says the end of. */
#define TURN_NS 5000000ull

int steps_create(struct node *node)
{
	struct steps *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->asking, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->told, NULL);
	s->answered = true;
	s->under_way = atomic_load(&node->members->joins);
	s->step.node = NODE_NONE;
	member_list_needs(&node->members->list, node->config->memory);
	/* Who had gone before this node joined has no links with it. */
	members_for_each_other(node->members, n)
		if (members_state(node->members, n) == MEMBER_GONE && !mesh_control(node->mesh, n))
			s->link[n] = LINK_CLOSED;
	node->steps = s;
	return 0;
}

/* ---- the control thread ---------------------------------------------------------------------- */

/* False: nobody waits for it any more. */
static bool answer(struct steps *s, int result)
{
	pthread_mutex_lock(&s->lock);
	/* While a wish waits, what is answered is an earlier one, for which nobody waits. */
	bool waits = !s->answered && !atomic_load(&s->waits);
	if (waits) {
		s->answered = true;
		s->result = result;
		pthread_cond_signal(&s->told);
	}
	pthread_mutex_unlock(&s->lock);
	return waits;
}

static void send_word(struct node *node, const struct member_out *out)
{
	struct control_message msg = { .type = control_member_type(out->word.type),
				       .member = out->word };

	for (uint16_t n = 0; n < node->members->number_count; n++)
		if (member_set_has(&out->to, n))
			node_send(node, n, &msg);
}

static void publish(struct node *node)
{
	if (members_publish(node->members) < 0)
		node_end_with(node, CONTROL_END_NODE_ERROR, 1,
			      "node %u has no memory to know the pod's members", node->self);
}

static void act(struct node *node, const struct member_out *out)
{
	const struct member_word *word = &out->word;

	switch (out->type) {
	case MEMBER_SEND:
		send_word(node, out);
		break;
	case MEMBER_APPLIED:
		publish(node);
		steps_begin(node, word);
		break;
	case MEMBER_IS_OVER:
		steps_are_over(node, word);
		if (word->by == node->self && word->kind == KIND_JOIN)
			sponsor_joined(node, word);
		if (word->by == node->self && word->id == node->steps->id &&
		    !answer(node->steps, 0) && word->kind == KIND_JOIN)
			member_list_fail_joiner(&node->members->list, -ECANCELED);
		break;
	case MEMBER_UNWANTED:
		if (word->id == node->steps->id)
			answer(node->steps, word->why);
		break;
	case MEMBER_END:
		node_end_with(node, CONTROL_END_NODE_LOST, 1, "node %u (%s) is gone", word->node,
			      members_name(node->members, word->node));
		break;
	}
}

static bool say_done(struct node *node)
{
	struct steps *s = node->steps;

	if (!s->owes_done || !steps_is_done(node))
		return false;
	s->owes_done = false;
	member_list_done(&node->members->list);
	publish(node);
	return true;
}

/* Somebody comes or goes, or the last step is not over. */
static bool is_under_way(const struct member_list *list)
{
	if (!list->over || !list->done)
		return true;
	for (uint16_t n = 0; n < list->now.number_count; n++)
		if (list->now.member[n].state != MEMBER_FREE &&
		    list->now.member[n].state != MEMBER_ACTIVE)
			return true;
	return false;
}

/* Until nothing more can be done by now. */
static void act_all(struct node *node)
{
	struct member_list *list = &node->members->list;
	struct member_out out;
	bool more = true;

	while (more) {
		while (member_list_next(list, node_clock_local_ns(node->clock), &out))
			act(node, &out);
		more = !list->ended && (say_done(node) || steps_look(node));
	}
	node->steps->under_way = is_under_way(list);
}

const char *steps_message(struct node *node, const struct control_message *msg)
{
	if (member_list_hear(&node->members->list, msg->src, &msg->member,
			     node_clock_local_ns(node->clock)) < 0)
		return NO_FIT;
	act_all(node);
	return NULL;
}

void steps_settle(struct node *node)
{
	struct steps *s = node->steps;
	uint32_t abandoned = atomic_exchange(&s->abandoned, 0);
	struct member_word wish;
	int r;

	if (abandoned && member_list_joiner(&node->members->list) == abandoned - 1) {
		member_list_fail_joiner(&node->members->list, -ECANCELED);
		act_all(node);
	}
	if (s->under_way)
		act_all(node);
	if (!atomic_load(&s->waits))
		return;
	pthread_mutex_lock(&s->lock);
	wish = s->wish;
	bool waits = atomic_exchange(&s->waits, false);
	pthread_mutex_unlock(&s->lock);
	if (!waits)
		return;
	r = member_list_wish(&node->members->list, &wish, &s->id);
	if (r < 0)
		answer(s, r);
	act_all(node);
}

void steps_abandon(struct node *node, uint16_t joiner)
{
	atomic_store(&node->steps->abandoned, joiner + 1u);
	control_wake(node);
}

uint64_t steps_deadline(const struct node *node)
{
	uint64_t due_ns = member_list_deadline(&node->members->list);
	uint64_t turn_ns = node_clock_local_ns(node->clock) + TURN_NS;

	return node->steps->under_way && turn_ns < due_ns ? turn_ns : due_ns;
}

/* ---- who wishes ------------------------------------------------------------------------------ */

/* 0; why not; -ETIMEDOUT: nothing is known yet, and nobody waits for it any more; -ESHUTDOWN. */
static int wait_for_answer(struct node *node)
{
	struct steps *s = node->steps;
	int result = -ETIMEDOUT;

	pthread_mutex_lock(&s->lock);
	for (uint32_t ms = 0; !s->answered && ms < ASK_SECONDS * 1000; ms += ASK_TURN_MS) {
		struct timespec until = deadline_after_ms(ASK_TURN_MS);

		while (!s->answered && deadline_wait(&s->told, &s->lock, &until) != ETIMEDOUT)
			;
		if (node_has_ended(node)) {
			result = -ESHUTDOWN;
			break;
		}
	}
	if (s->answered)
		result = s->result;
	s->answered = true; /* what comes later is not for us */
	atomic_store(&s->waits, false);
	pthread_mutex_unlock(&s->lock);
	return result;
}

int steps_wish(struct node *node, const struct member_word *wish)
{
	struct steps *s = node->steps;
	int result;

	pthread_mutex_lock(&s->asking);
	pthread_mutex_lock(&s->lock);
	s->wish = *wish;
	s->answered = false;
	atomic_store(&s->waits, true);
	pthread_mutex_unlock(&s->lock);
	control_wake(node);
	result = wait_for_answer(node);
	pthread_mutex_unlock(&s->asking);
	return result;
}

/* What is said for all wishes. */
static char *answer_wish(int result, const char *done, const char *already)
{
	char line[256];

	switch (result) {
	case 0:
		return node_answer(true, done);
	case -EALREADY:
		return node_answer(true, already);
	case -EBUSY:
		return node_answer(false, "another wish is not answered yet: try again");
	case -ESHUTDOWN:
		return node_answer(false, "the pod has ended");
	case -ETIMEDOUT:
		snprintf(line, sizeof(line),
			 "not all nodes have answered within %d s: perhaps it is done later",
			 ASK_SECONDS);
		return node_answer(false, line);
	default:
		snprintf(line, sizeof(line), "it cannot be: %s", strerror(-result));
		return node_answer(false, line);
	}
}

/* The member that it is about, or NODE_NONE and an answer. */
static uint16_t find(struct node *node, const char *words, char **ret_answer)
{
	uint16_t found = members_find(node->members, words);

	if (found == NODE_NONE)
		*ret_answer = node_answer(false, "no such node in this pod: see eagre status");
	else if (!atomic_load(&node->run_ns))
		*ret_answer = node_answer(false, "the guest does not run yet");
	return found;
}

char *steps_steward_request(struct node *node, const char *words)
{
	struct member_word wish = { .kind = KIND_SEAT, .seat = SEAT_STEWARD };
	char done[128], already[128], *no = NULL;

	wish.node = find(node, words, &no);
	if (no)
		return no;
	snprintf(done, sizeof(done), "node %s is the pod's steward now", words);
	snprintf(already, sizeof(already), "node %s is the pod's steward already", words);
	return answer_wish(steps_wish(node, &wish), done, already);
}

/* NULL: the list judges on. */
static const char *cannot_drain(struct node *node, uint16_t number)
{
	if (!control_rules_may_change(node->config))
		return pod_config_has_io(node->config)
			       ? "a pod with disks or network cards keeps its nodes"
			       : "the vCPUs of so large a pod do not move, so its nodes stay";
	if (node->options->all_here)
		return "the nodes of 'eagre run' begin and end together: use 'eagre node' on each "
		       "host";
	for (int seat = 0; seat < SEAT_COUNT; seat++)
		if (members_seat(node->members, (enum member_seat)seat) == number)
			return "the pod needs this node for more than memory and cores: it is the "
			       "first, or the steward";
	return NULL;
}

char *steps_drain_request(struct node *node, const char *words, bool leaves)
{
	struct member_word wish = { .kind = leaves ? KIND_DRAIN : KIND_ACTIVE };
	char done[192], already[192], *no = NULL;
	const char *cannot;
	int result;

	wish.node = find(node, words, &no);
	if (no)
		return no;
	cannot = leaves ? cannot_drain(node, wish.node) : NULL;
	if (cannot)
		return node_answer(false, cannot);
	snprintf(done, sizeof(done),
		 leaves ? "node %s gives away what it has, and ends when it holds nothing"
			: "node %s stays",
		 words);
	snprintf(already, sizeof(already), "node %s does so already", words);
	result = steps_wish(node, &wish);
	if (result == -ENOSPC)
		return node_answer(false, "the others have no room for the guest without it, or no "
					  "core: let another node join first");
	if (result == -ENOENT)
		return node_answer(false, leaves ? "it is no member: it joins, or has left"
						 : "it does not leave");
	return answer_wish(result, done, already);
}
