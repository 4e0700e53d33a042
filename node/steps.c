/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of the pod's list of members (core/member_list.h), between the wire, the list and this node's
 * users.
 *
 *	socket's thread                   control thread, in its turn
 *	steps_request(): a wish waits --> steps_settle(): member_list_wish()
 *	                                  steps_message(): member_list_hear()
 *	                                      what the list has to be done then: words are sent, and
 *	                                      what a step asks is done, published, and said to be done
 *	waits for its answer          <-- ... its step is over, or it was refused
 *
 * The list is the control thread's alone. Everybody else sees what members_publish() says.
 *
 * What is wished for today is one step, which asks nothing of a node: the steward's seat moves. Any
 * other is a lie until nodes know what to do about it (control_rules.c).
 *
 * Tested in tests/node/test_steps.c and tests/pod/steps.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/deadline.h"
#include "node/node_state.h"

#define ASK_SECONDS 5
#define ASK_TURN_MS 100
#define NO_FIT	    "which does not fit the pod's list of members"

struct steps {
	uint32_t id; /* of the wish that is out; the control thread's */

	pthread_mutex_t asking; /* one wish of this node's users at a time */
	pthread_mutex_t lock;	/* guards what follows */
	pthread_cond_t told;
	struct member_word wish;
	bool answered;
	int result;
	atomic_bool
		waits; /* `wish` has not been taken; written under the lock, and read first without */
};

int steps_create(struct node *node)
{
	struct steps *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->asking, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->told, NULL);
	s->answered = true;
	node->steps = s;
	return 0;
}

/* ---- the control thread ---------------------------------------------------------------------- */

static void answer(struct steps *s, int result)
{
	pthread_mutex_lock(&s->lock);
	/* While a wish waits, what is answered is an earlier one, for which nobody waits. */
	if (!s->answered && !atomic_load(&s->waits)) {
		s->answered = true;
		s->result = result;
		pthread_cond_signal(&s->told);
	}
	pthread_mutex_unlock(&s->lock);
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
	case MEMBER_APPLIED: /* SEAT: nothing more is to be done about the steward's */
		publish(node);
		member_list_done(&node->members->list);
		publish(node);
		break;
	case MEMBER_IS_OVER:
		if (word->by == node->self && word->id == node->steps->id)
			answer(node->steps, 0);
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

static void act_all(struct node *node)
{
	struct member_out out;

	while (member_list_next(&node->members->list, node_clock_local_ns(node->clock), &out))
		act(node, &out);
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
	struct member_word wish;
	int r;

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

static int ask(struct node *node, const struct member_word *wish)
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

char *steps_request(struct node *node, const char *words)
{
	struct member_word wish = { .kind = KIND_SEAT, .seat = SEAT_STEWARD };
	char line[256];
	int result;

	wish.node = members_find(node->members, words);
	if (wish.node == NODE_NONE)
		return node_answer(false, "no such node in this pod: see eagre status");
	if (!atomic_load(&node->run_ns))
		return node_answer(false, "the guest does not run yet");
	result = ask(node, &wish);
	switch (result) {
	case 0:
		snprintf(line, sizeof(line), "node %s is the pod's steward now", words);
		break;
	case -EALREADY:
		snprintf(line, sizeof(line), "node %s is the pod's steward already", words);
		break;
	case -EBUSY:
		snprintf(line, sizeof(line), "another wish is not answered yet: try again");
		break;
	case -ESHUTDOWN:
		snprintf(line, sizeof(line), "the pod has ended");
		break;
	case -ETIMEDOUT:
		snprintf(line, sizeof(line),
			 "not all nodes have answered within %d s: perhaps it is done later",
			 ASK_SECONDS);
		break;
	default:
		snprintf(line, sizeof(line), "it cannot be: %s", strerror(-result));
	}
	return node_answer(result == 0 || result == -EALREADY, line);
}
