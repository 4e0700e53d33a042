/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving vCPUs between nodes: the messages and the threads around core/vcpu_place.h, which has the
 * states and the argument. docs/moves.md has the picture.
 *
 *      seat's thread     leave, left, arrived, refused (struct vcpu_ops), by its own place in vcpu.c
 *      control thread    MOVE, PLACE, REFUSED of other nodes; MOVE_ASK, MOVE_TOLD
 *      any thread        moves_ask(); guest_io.c reads the table
 *
 * A vCPU's lock is held to send and to change its word, never while anything is waited for.
 *
 * Who has asked for a move gets one answer: from the node that has the vCPU, if it comes to nothing
 * there, else from the one that it left, when the target has answered.
 *
 * Where a pod has more vCPUs than a node's pager serves, nodes have seats for their own only, and
 * nothing moves.
 *
 * Tested in tests/node/test_moves.c, tests/pod/moves.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/deadline.h"
#include "node/node_state.h"
#include "node/placer.h"
#include "wire/vcpu_image.h"

/* Clocks of two nodes never differ by so much (start.c): who says more lies. */
#define AHEAD_NS_MAX 1000000000ull

#define ASK_SECONDS 4
#define ASK_TURN_MS 50 /* the pod's end does not signal who waits */

struct asked {
	bool open;
	uint16_t to, asker;
	uint64_t id;
};

/* What a vCPU that comes has brought for the policy. */
struct came {
	uint64_t stopped_ns;
	bool carries;
	uint8_t carry[PLACEMENT_CARRY_BYTES];
};

struct moves {
	struct node *node;
	pthread_mutex_t lock[VCPUS_MAX]; /* by vCPU; guards asked, and see vcpu_place.h */
	struct asked asked[VCPUS_MAX];
	_Atomic uint32_t image_bytes[VCPUS_MAX]; /* of the last that came here */
	atomic_bool owes[VCPUS_MAX];		 /* PLACE; taken back under the lock */
	_Atomic uint32_t owed_count;
	struct came came[VCPUS_MAX]; /* from MOVE to moves_arrived() */
	struct vcpu_state state;     /* of a MOVE; whoever reads channels has it */
	uint32_t sendings;	     /* turns of moves_send_away() */

	pthread_mutex_t ask_lock; /* one question of this node's own at a time */
	pthread_mutex_t told_lock;
	pthread_cond_t told;
	uint64_t id; /* of the question; guarded by told_lock, as what follows */
	bool answered;
	uint8_t result;
};

int moves_create(struct node *node)
{
	const struct pod_config *config = node->config;
	struct moves *m = calloc(1, sizeof(*m));
	struct member_set set;
	if (!m)
		return -ENOMEM;
	m->node = node;
	for (uint32_t v = 0; v < VCPUS_MAX; v++)
		pthread_mutex_init(&m->lock[v], NULL);
	pthread_mutex_init(&m->ask_lock, NULL);
	pthread_mutex_init(&m->told_lock, NULL);
	pthread_cond_init(&m->told, NULL);
	if (atomic_load(&node->members->joins))
		vcpu_places_init_joiner(&node->places, node->self, node->members->number_count,
					config->vcpu_count);
	else
		vcpu_places_init(&node->places, node->self, node->members->number_count,
				 config->vcpu_count, config->vcpu_node);
	members_active(node->members, &set);
	vcpu_places_members(&node->places, &set);
	node->moves = m;
	return coming_create(node);
}

void moves_lock(struct node *node, uint32_t vcpu)
{
	pthread_mutex_lock(&node->moves->lock[vcpu]);
}

void moves_unlock(struct node *node, uint32_t vcpu)
{
	pthread_mutex_unlock(&node->moves->lock[vcpu]);
}

uint32_t moves_image_bytes(const struct node *node, uint32_t vcpu)
{
	return atomic_load(&node->moves->image_bytes[vcpu]);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void take_told(struct node *node, uint64_t id, uint8_t result)
{
	struct moves *m = node->moves;
	pthread_mutex_lock(&m->told_lock);
	if (id == m->id && !m->answered) {
		m->answered = true;
		m->result = result;
		pthread_cond_signal(&m->told);
	}
	pthread_mutex_unlock(&m->told_lock);
}

static void tell(struct node *node, uint16_t asker, uint64_t id, uint32_t vcpu,
		 enum control_move_result result)
{
	struct control_message msg; /* large, and little of it is sent */
	if (asker == node->self) {
		take_told(node, id, (uint8_t)result);
		return;
	}
	msg.type = CONTROL_MOVE_TOLD;
	msg.move_told = (struct control_move_told){ .id = id,
						    .vcpu = (uint16_t)vcpu,
						    .result = (uint8_t)result };
	node_send(node, asker, &msg);
}

/*
 * To who has asked for a move, if anybody has. It went to `to`, which need not be what was asked
 * for: the last wish counts. The vCPU's lock.
 */
static void tell_asker(struct node *node, uint32_t vcpu, uint16_t to,
		       enum control_move_result result)
{
	struct asked *asked = &node->moves->asked[vcpu];
	if (asked->open)
		tell(node, asked->asker, asked->id, vcpu,
		     to == asked->to ? result : CONTROL_MOVE_BUSY);
	asked->open = false;
}

/* ---- the seat's thread ----------------------------------------------------------------------- */

/* The policy is told, so that it does not wish the same again at once. */
static int stay(struct node *node, uint32_t vcpu, uint16_t to, int error)
{
	placer_refused(node->placer, vcpu, to);
	moves_lock(node, vcpu);
	startup_settle(node, vcpu);
	tell_asker(node, vcpu, to, CONTROL_MOVE_NO);
	moves_unlock(node, vcpu);
	return error;
}

/*
 * Whose wish this is: the policy's, which came before the pin was heard of, or a user's. Nobody is held
 * at a node that is to leave.
 */
static bool is_held(struct node *node, uint32_t vcpu, uint16_t to)
{
	const struct asked *asked = &node->moves->asked[vcpu];
	moves_lock(node, vcpu);
	bool wanted = asked->open && asked->to == to;
	moves_unlock(node, vcpu);
	return placer_pinned(node->placer, vcpu) && !wanted &&
	       members_state(node->members, node->self) != MEMBER_DRAINING;
}

int moves_leave(void *ctx, uint32_t vcpu, uint16_t to, int error)
{
	struct node *node = ctx;
	if (!error && is_held(node, vcpu, to))
		error = -EPERM;
	if (!error)
		error = vcpu_place_leave(&node->places, vcpu, to);
	if (!error)
		return 0;
	return stay(node, vcpu, to, error);
}

static uint16_t write_hints(struct node *node, uint32_t vcpu, uint8_t bytes[PAGE_HINTS_BYTES_MAX])
{
	struct page_hints hints;
	if (!node->pager)
		return 0;
	pager_hints_leave(node->pager, node_actor(node, vcpu), &hints);
	return (uint16_t)page_hints_write(&hints, bytes);
}

/* The vCPU's lock. */
static void say_place(struct node *node, uint32_t vcpu)
{
	struct control_message msg; /* large, and little of it is sent */
	if (!atomic_exchange(&node->moves->owes[vcpu], false))
		return;
	atomic_fetch_sub(&node->moves->owed_count, 1);
	msg.type = CONTROL_PLACE;
	msg.place = (struct control_place){ .vcpu = (uint16_t)vcpu,
					    .epoch = vcpu_place_read(&node->places, vcpu).epoch };
	node_broadcast(node, &msg);
}

void moves_settle(struct node *node)
{
	struct moves *m = node->moves;
	for (uint32_t v = 0; atomic_load(&m->owed_count) && v < node->config->vcpu_count; v++) {
		if (!atomic_load(&m->owes[v]))
			continue;
		moves_lock(node, v);
		say_place(node, v);
		/* If it leaves already, an INIT may be in the inbox that its next node has to take. */
		if (vcpu_place_read(&node->places, v).state == PLACE_HERE)
			startup_settle(node, v);
		moves_unlock(node, v);
	}
}

/* Those that are on their way here or there are told of where they arrive. */
void moves_introduce(struct node *node, uint16_t to)
{
	struct control_message msg; /* large, and little of it is sent */
	for (uint32_t v = 0; v < node->config->vcpu_count; v++) {
		moves_lock(node, v);
		struct vcpu_place place = vcpu_place_read(&node->places, v);
		if (place.state == PLACE_HERE || place.state == PLACE_LEAVING) {
			msg.type = CONTROL_PLACE;
			msg.place =
				(struct control_place){ .vcpu = (uint16_t)v, .epoch = place.epoch };
			node_send(node, to, &msg);
		}
		moves_unlock(node, v);
	}
}

int moves_left(void *ctx, uint32_t vcpu, const struct vcpu_moment *moment)
{
	struct node *node = ctx;
	struct vcpu_place place = vcpu_place_read(&node->places, vcpu);
	struct control_message msg; /* large, and little of it is sent */
	uint8_t image[VCPU_IMAGE_BYTES_MAX], carry[PLACEMENT_CARRY_BYTES];
	uint8_t hints[PAGE_HINTS_BYTES_MAX];
	size_t size;
	int error = vcpu_image_encode(moment->state, image, sizeof(image), &size);
	if (error) {
		vcpu_place_stay(&node->places, vcpu);
		return stay(node, vcpu, place.node, error);
	}
	msg.type = CONTROL_MOVE;
	msg.move = (struct control_move){ .vcpu = (uint16_t)vcpu,
					  .image_size = (uint16_t)size,
					  .epoch = place.epoch + 1,
					  .clock_ns = moment->clock_ns,
					  .guest_tsc = moment->guest_tsc,
					  .decided_ns = moment->decided_ns,
					  .image = image };
	msg.move.hints = hints;
	msg.move.hints_size = write_hints(node, vcpu, hints);
	if (placer_left(node->placer, vcpu, place.node, carry))
		msg.move.carry = carry;
	moves_lock(node, vcpu);
	say_place(node, vcpu);
	node_send(node, place.node, &msg);
	vcpu_place_sent(&node->places, vcpu);
	guest_io_forward(node, vcpu);
	moves_unlock(node, vcpu);
	return 0;
}

void moves_arrived(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	struct vcpu_place place = vcpu_place_read(&node->places, vcpu);
	const struct came *came = &node->moves->came[vcpu];
	vcpu_place_here(&node->places, vcpu);
	atomic_fetch_add(&node->moves->owed_count, 1);
	atomic_store(&node->moves->owes[vcpu], true);
	control_wake(node);
	if (place.node != node->self)
		placer_arrived(node->placer, vcpu, place.node, came->stopped_ns,
			       came->carries ? came->carry : NULL);
}

void moves_refused(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	struct vcpu_place place = vcpu_place_read(&node->places, vcpu);
	struct control_message msg; /* large, and little of it is sent */
	msg.type = CONTROL_REFUSED;
	msg.refused = (struct control_refused){ .vcpu = (uint16_t)vcpu, .epoch = place.epoch + 1 };
	moves_lock(node, vcpu);
	node_send(node, place.node, &msg);
	vcpu_place_refuse(&node->places, vcpu);
	guest_io_forward(node, vcpu);
	moves_unlock(node, vcpu);
}

/* ---- the control thread ---------------------------------------------------------------------- */

#define NOT_A_STATE "with what is no state of that vCPU"
#define NOT_A_CARRY "with what is no account of a vCPU's stays"
#define NOT_HINTS   "with what are no pages"
#define NOT_SO	    "about a vCPU that cannot be there"

/* The guest's TSC by the pod clock, roughly. */
static bool is_far_ahead(struct node *node, const struct control_move *move)
{
	uint64_t far_ns = node_now_ns(node) + AHEAD_NS_MAX;
	uint64_t since_ns = far_ns - node->start.epoch_ns;
	return move->clock_ns > far_ns ||
	       (far_ns > node->start.epoch_ns &&
		move->guest_tsc >
			(uint64_t)((unsigned __int128)since_ns * node->start.tsc_khz / 1000000));
}

static void keep_came(struct came *came, const struct control_move *move)
{
	came->stopped_ns = move->clock_ns;
	came->carries = move->carry != NULL;
	if (move->carry)
		memcpy(came->carry, move->carry, sizeof(came->carry));
}

/* Behind the vCPU, which they must not hold up. */
static void take_hints(struct node *node, uint32_t vcpu, const struct page_hints *hints)
{
	if (node->pager && hints->count)
		pager_hints_arrive(node->pager, node_actor(node, vcpu), hints,
				   !atomic_load(&node->no_hints));
}

static const char *take_move(struct node *node, uint16_t src, const struct control_move *move)
{
	struct vcpu_state *state = &node->moves->state;
	struct vcpu_moment moment = { state, move->clock_ns, move->guest_tsc, move->decided_ns };
	struct vcpu *vcpu = node_vcpu(node, move->vcpu);
	struct page_hints hints;
	enum place_verdict verdict;
	if (!vcpu || !node_moves(node))
		return NOT_SO;
	if (page_hints_read(move->hints, move->hints_size, &hints) < 0)
		return NOT_HINTS;
	if (move->carry && placement_carry_check(move->carry) < 0)
		return NOT_A_CARRY;
	if (vcpu_image_decode(move->image, move->image_size, state) < 0 ||
	    state->lapic.id != move->vcpu || state->lapic.bsp != (move->vcpu == 0) ||
	    is_far_ahead(node, move))
		return NOT_A_STATE;
	moves_lock(node, move->vcpu);
	verdict = vcpu_place_on_move(&node->places, move->vcpu, src, move->epoch);
	if (verdict == PLACE_NEWS) {
		atomic_store(&node->moves->image_bytes[move->vcpu], move->image_size);
		keep_came(&node->moves->came[move->vcpu], move);
		vcpu_arrive(vcpu, &moment);
	}
	moves_unlock(node, move->vcpu);
	if (verdict == PLACE_LIE)
		return NOT_SO;
	/* The seat's thread may have been woken on this one's core: it goes first. */
	if (gettid() != vcpu_thread_id(vcpu))
		sched_yield();
	take_hints(node, move->vcpu, &hints);
	return NULL;
}

static const char *take_place(struct node *node, uint16_t src, const struct control_place *place)
{
	enum place_verdict verdict;
	uint16_t to;
	if (place->vcpu >= node->config->vcpu_count || !node_moves(node))
		return NOT_SO;
	moves_lock(node, place->vcpu);
	to = vcpu_place_read(&node->places, place->vcpu).node;
	verdict = vcpu_place_on_place(&node->places, place->vcpu, src, place->epoch);
	if (verdict == PLACE_TAKEN)
		tell_asker(node, place->vcpu, to, CONTROL_MOVE_DONE);
	if (verdict == PLACE_NEWS || verdict == PLACE_TAKEN) {
		guest_io_forward(node, place->vcpu);
		placer_placed(node->placer, place->vcpu, src);
	}
	moves_unlock(node, place->vcpu);
	return verdict == PLACE_LIE ? NOT_SO : NULL;
}

static const char *take_refused(struct node *node, uint16_t src,
				const struct control_refused *refused)
{
	struct vcpu *vcpu = node_vcpu(node, refused->vcpu);
	enum place_verdict verdict;
	if (!vcpu)
		return NOT_SO;
	moves_lock(node, refused->vcpu);
	verdict = vcpu_place_on_refused(&node->places, refused->vcpu, src, refused->epoch);
	if (verdict == PLACE_NEWS) {
		tell_asker(node, refused->vcpu, src, CONTROL_MOVE_REFUSED);
		placer_refused(node->placer, refused->vcpu, src);
		vcpu_take_back(vcpu);
	}
	moves_unlock(node, refused->vcpu);
	return verdict == PLACE_LIE ? NOT_SO : NULL;
}

static const char *take_coming(struct node *node, uint16_t src, const struct control_coming *coming)
{
	if (coming->vcpu >= node->config->vcpu_count || !node_moves(node))
		return NOT_SO;
	coming_heard(node, src, coming);
	return NULL;
}

/* The wish, and the word ahead. */
static bool wish(struct node *node, uint32_t vcpu, uint16_t to)
{
	struct vcpu_place place = vcpu_place_read(&node->places, vcpu);
	if (place.state != PLACE_HERE)
		return false;
	vcpu_leave(node_vcpu(node, vcpu), to);
	if (members_may_begin(node->members, to))
		coming_say(node, vcpu, to, place.epoch + 1);
	return true;
}

bool moves_send_away(struct node *node, const struct member_set *to)
{
	uint32_t count = member_set_count(to), away = 0;
	for (uint32_t v = 0; v < node->config->vcpu_count; v++) {
		struct vcpu_place place = vcpu_place_read(&node->places, v);
		if (place.state == PLACE_AWAY)
			away++;
		else if (place.state == PLACE_HERE && count)
			wish(node, v, member_set_nth(to, (v + node->moves->sendings) % count));
	}
	node->moves->sendings++; /* who was refused is sent elsewhere */
	return away < node->config->vcpu_count;
}

/* Any thread. Goes the way that interrupts go. */
static void take_ask(struct node *node, const struct control_move_ask *ask)
{
	struct asked *asked = &node->moves->asked[ask->vcpu];
	struct control_message msg; /* large, and little of it is sent */
	uint16_t at;
	moves_lock(node, ask->vcpu);
	switch (vcpu_place_route(&node->places, ask->vcpu, &at)) {
	case PLACE_FORWARD:
		msg.type = CONTROL_MOVE_ASK;
		msg.move_ask = *ask;
		node_send(node, at, &msg);
		break;
	case PLACE_LEAVE_IT:
		tell(node, ask->asker, ask->id, ask->vcpu, CONTROL_MOVE_BUSY);
		break;
	case PLACE_WAKE:
		if (ask->to == node->self) {
			tell(node, ask->asker, ask->id, ask->vcpu, CONTROL_MOVE_THERE);
		} else if (asked->open) {
			tell(node, ask->asker, ask->id, ask->vcpu, CONTROL_MOVE_BUSY);
		} else {
			*asked = (struct asked){ true, ask->to, ask->asker, ask->id };
			wish(node, ask->vcpu, ask->to);
		}
		break;
	}
	moves_unlock(node, ask->vcpu);
}

static const char *take_asked(struct node *node, const struct control_move_ask *ask)
{
	uint16_t count = node->members->number_count;
	if (ask->vcpu >= node->config->vcpu_count || ask->to >= count || ask->asker >= count ||
	    !node_moves(node))
		return NOT_SO;
	/* Who has asked may have left while the question was sent on; who was to get it, too. */
	if (members_may_be_named(node->members, ask->asker))
		take_ask(node, ask);
	return NULL;
}

const char *moves_message(struct node *node, const struct control_message *msg)
{
	switch (msg->type) {
	case CONTROL_MOVE:
		return take_move(node, msg->src, &msg->move);
	case CONTROL_PLACE:
		return take_place(node, msg->src, &msg->place);
	case CONTROL_REFUSED:
		return take_refused(node, msg->src, &msg->refused);
	case CONTROL_COMING:
		return take_coming(node, msg->src, &msg->coming);
	case CONTROL_MOVE_ASK:
		return take_asked(node, &msg->move_ask);
	default:
		take_told(node, msg->move_told.id, msg->move_told.result);
		return NULL;
	}
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* What became of the question that is out; negative: nothing yet, or nothing any more. */
static int wait_for_told(struct moves *m)
{
	int result = -ETIMEDOUT;
	pthread_mutex_lock(&m->told_lock);
	for (uint32_t ms = 0; !m->answered && ms < ASK_SECONDS * 1000; ms += ASK_TURN_MS) {
		struct timespec until = deadline_after_ms(ASK_TURN_MS);
		while (!m->answered && deadline_wait(&m->told, &m->told_lock, &until) != ETIMEDOUT)
			;
		if (node_has_ended(m->node)) {
			result = -ESHUTDOWN;
			break;
		}
	}
	if (m->answered)
		result = m->result;
	m->answered = true; /* what comes later is not for us */
	pthread_mutex_unlock(&m->told_lock);
	return result;
}

int moves_ask(struct node *node, uint32_t vcpu, uint16_t to)
{
	struct moves *m = node->moves;
	struct control_move_ask ask = { .vcpu = (uint16_t)vcpu, .to = to, .asker = node->self };
	pthread_mutex_lock(&m->ask_lock);
	pthread_mutex_lock(&m->told_lock);
	ask.id = ++m->id;
	m->answered = false;
	pthread_mutex_unlock(&m->told_lock);
	take_ask(node, &ask);
	int result = wait_for_told(m);
	pthread_mutex_unlock(&m->ask_lock);
	return result;
}

bool moves_wish(struct node *node, uint32_t vcpu, uint16_t to)
{
	return node_moves(node) && wish(node, vcpu, to);
}

char *node_answer(bool done, const char *line)
{
	json_t *o = json_object();
	json_object_set_new(o, done ? "done" : "error", json_string(line));
	char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(o);
	return text;
}

/* NULL: it is a member, and stays. */
static char *no_member(const struct members *members, uint16_t to)
{
	enum member_state state = members_state(members, to);
	char line[256];
	if (state == MEMBER_ACTIVE)
		return NULL;
	snprintf(line, sizeof(line), "node %s is %s the pod: no vCPU goes there %s",
		 members_name(members, to), state == MEMBER_JOINING ? "joining" : "leaving",
		 state == MEMBER_JOINING ? "yet" : "any more");
	return node_answer(false, line);
}

static char *answer_result(struct node *node, uint32_t vcpu, uint16_t to, int result)
{
	const char *name = members_name(node->members, to);
	char line[256];
	switch (result) {
	case CONTROL_MOVE_DONE:
		snprintf(line, sizeof(line), "vCPU %u is on node %s now", vcpu, name);
		break;
	case CONTROL_MOVE_THERE:
		snprintf(line, sizeof(line), "vCPU %u is on node %s already", vcpu, name);
		break;
	case CONTROL_MOVE_BUSY:
		snprintf(line, sizeof(line), "vCPU %u is moving already: try again", vcpu);
		break;
	case CONTROL_MOVE_NO:
		snprintf(line, sizeof(line), "vCPU %u cannot leave where it is now: try again",
			 vcpu);
		break;
	case CONTROL_MOVE_REFUSED:
		snprintf(line, sizeof(line),
			 "node %s cannot take vCPU %u's state: it stays where it was", name, vcpu);
		break;
	case -ESHUTDOWN:
		snprintf(line, sizeof(line), "the pod has ended");
		break;
	default:
		snprintf(line, sizeof(line),
			 "vCPU %u has not moved within %d s: it may wait for a device, and moves "
			 "later",
			 vcpu, ASK_SECONDS);
		break;
	}
	return node_answer(result == CONTROL_MOVE_DONE || result == CONTROL_MOVE_THERE, line);
}

bool node_parse_number(const char *word, uint32_t *ret_number)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(word, &end, 10);
	*ret_number = (uint32_t)value;
	return word[0] >= '0' && word[0] <= '9' && !*end && !errno && value <= UINT32_MAX;
}

bool node_parse_vcpu(struct node *node, const char *word, uint32_t *ret_vcpu, char **ret_answer)
{
	uint32_t count = node->config->vcpu_count;
	char line[256];
	if (node_parse_number(word, ret_vcpu) && *ret_vcpu < count)
		return true;
	snprintf(line, sizeof(line), "no vCPU %s in this pod: they are 0 to %u", word, count - 1);
	*ret_answer = node_answer(false, line);
	return false;
}

char *moves_request(struct node *node, const char *words)
{
	const struct members *members = node->members;
	char vcpu_word[32], node_word[NODE_NAME_MAX], line[256], *no = NULL;
	uint32_t vcpu, number;
	uint16_t to;
	if (sscanf(words, "%31s %63s", vcpu_word, node_word) != 2)
		return node_answer(false, "a vCPU's number and a node's name or number are wanted");
	if (!node_parse_vcpu(node, vcpu_word, &vcpu, &no))
		return no;
	to = members_find(members, node_word);
	if (to == NODE_NONE && node_parse_number(node_word, &number) &&
	    members_may_be_named(members, number))
		to = (uint16_t)number;
	if (to == NODE_NONE) {
		snprintf(line, sizeof(line), "no node '%s' in this pod: see eagre status",
			 node_word);
		return node_answer(false, line);
	}
	if (!node_moves(node)) {
		snprintf(line, sizeof(line), "vCPUs of a pod that has more than %u do not move",
			 NODE_VCPUS_MAX);
		return node_answer(false, line);
	}
	if (!members_about(members, to)->cores) {
		snprintf(line, sizeof(line), "node %s has no core for a vCPU: cores = 0",
			 members_name(members, to));
		return node_answer(false, line);
	}
	if (!atomic_load(&node->run_ns))
		return node_answer(false, "the guest does not run yet");
	no = no_member(members, to);
	return no ? no : answer_result(node, vcpu, to, moves_ask(node, vcpu, to));
}
