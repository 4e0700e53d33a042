/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile peers: see hostile.h. Most messages are answers to what the core sent, with a field or
 * two changed: plain noise would seldom get behind the first check. What must hold:
 *
 *   - coh_message() returns 0 or -EPROTO, then without any action, and nothing is asserted in the
 *     core. No lie that was believed comes to light later, in the node's own work;
 *   - actions can be carried out: no content is installed that did not come, none sent that is not
 * there or may still be written, no access given to nothing, nothing sent to itself or to nobody;
 *   - no more actions than fit, never more pages than promised;
 *   - a pinned page stays.
 */
#include "tests/sim/hostile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/coherence.h"

#define NODES	 4
#define ACTORS	 3
#define CAPACITY 6
#define PAGES	 (2 * CHUNK_PAGES)
#define SENT	 32

struct node {
	enum member_state state[NODES]; /* of others, as steps say */
	struct coh *coh;
	uint16_t self;
	uint64_t now_ns;
	uint8_t access[PAGES];
	uint32_t resident;
	struct coh_msg sent[SENT]; /* the last ones, and to whom */
	uint16_t sent_to[SENT];
	uint32_t sent_count;
	bool pinning[ACTORS], pinned[ACTORS], releasing;
	uint64_t freeing[2]; /* of the first group of each chunk */
	uint64_t pin_page[ACTORS];
	uint8_t pin_want[ACTORS];
	struct coh_action action[COH_ACTIONS_MIN];
};

struct input {
	const uint8_t *data;
	size_t left;
};

static void require(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "hostile: %s\n", what);
	abort();
}

static uint8_t take(struct input *input)
{
	if (!input->left)
		return 0;
	input->left--;
	return *input->data++;
}

/* Few pages of two chunks, so that messages meet. */
static uint64_t take_page(struct input *input)
{
	uint8_t byte = take(input);

	return byte % 10 + (byte & 0x80 ? CHUNK_PAGES : 0);
}

static void set_access(struct node *node, uint64_t gpn, uint8_t access)
{
	node->resident += (access != COH_NONE) - (node->access[gpn] != COH_NONE);
	node->access[gpn] = access;
	require(node->resident <= CAPACITY, "more pages than promised");
	for (uint32_t i = 0; i < ACTORS; i++)
		require(!node->pinned[i] || node->pin_page[i] != gpn || access >= node->pin_want[i],
			"a pinned page is taken");
}

static void keep_sent(struct node *node, const struct coh_action *action)
{
	require(action->to < NODES && action->to != node->self, "a message to itself or to nobody");
	node->sent[node->sent_count % SENT] = action->msg;
	node->sent_to[node->sent_count % SENT] = action->to;
	node->sent_count++;
}

static void carry_out(struct node *node, const struct coh_action *action, const struct coh_msg *msg)
{
	uint64_t gpn = action->gpn;

	switch (action->kind) {
	case COH_SEND_PAGE:
		require(action->msg.gpn < PAGES && node->access[action->msg.gpn] == COH_READ,
			"a page is sent that is not there, or that may be written");
		keep_sent(node, action);
		return;
	case COH_SEND:
		keep_sent(node, action);
		return;
	}
	require(gpn < PAGES, "a page that is none");
	switch (action->kind) {
	case COH_PROTECT:
		require(node->access[gpn] != COH_NONE || action->access == COH_NONE,
			"access to no content");
		set_access(node, gpn, action->access);
		return;
	case COH_INSTALL_DATA:
		require(msg && (msg->flags & COH_MSG_DATA) && msg->gpn == gpn,
			"content from nowhere");
		/* fall through */
	case COH_INSTALL_ZERO:
		require(node->access[gpn] == COH_NONE && action->access != COH_NONE,
			"an install over a page");
		set_access(node, gpn, action->access);
		return;
	case COH_PINNED:
		require(action->actor < ACTORS && node->pinning[action->actor] &&
				node->pin_page[action->actor] == gpn,
			"a pin for nobody");
		node->pinning[action->actor] = false;
		node->pinned[action->actor] = true;
		require(node->access[gpn] >= node->pin_want[action->actor], "a pin of nothing");
		return;
	case COH_FREED_PAGES:
		require(gpn % CHUNK_PAGES == 0 && node->freeing[gpn / CHUNK_PAGES] &&
				!(action->msg.age & ~node->freeing[gpn / CHUNK_PAGES]),
			"pages are free that were not said to be");
		node->freeing[gpn / CHUNK_PAGES] = 0;
		return;
	default:
		require(action->kind == COH_WAKE, "an action of no kind");
	}
}

static void finish(struct node *node, const struct coh_out *out, const struct coh_msg *msg)
{
	require(out->count <= COH_ACTIONS_MIN, "more actions than fit");
	for (uint32_t i = 0; i < out->count; i++)
		carry_out(node, &out->action[i], msg);
	for (uint32_t i = 0; i < out->count; i++)
		require(out->action[i].kind == COH_SEND || out->action[i].kind == COH_SEND_PAGE ||
				coh_access(node->coh, out->action[i].gpn) ==
					node->access[out->action[i].gpn],
			"coh_access() is not what the memory has");
}

/* What a peer may answer to a message; 0 ends the list. */
static const struct answer {
	uint8_t type[6];
} answers[COH_MSG_TYPES] = {
	[COH_HOME_GET] = { { COH_HOME_IS } },
	[COH_READ_REQ] = { { COH_GRANT_READ, COH_GRANT_WRITE, COH_NOT_HOME, COH_GRANT_NONE } },
	[COH_WRITE_REQ] = { { COH_GRANT_WRITE, COH_INVALIDATE_ACK, COH_NOT_HOME, COH_INVALIDATE } },
	[COH_FWD_READ] = { { COH_DONE, COH_HURRY, COH_GRANT_READ } },
	[COH_FWD_WRITE] = { { COH_DONE, COH_HURRY, COH_GRANT_WRITE } },
	[COH_INVALIDATE] = { { COH_INVALIDATE_ACK, COH_DONE } },
	[COH_GRANT_READ] = { { COH_DONE, COH_READ_REQ } },
	[COH_GRANT_WRITE] = { { COH_DONE, COH_WRITE_REQ } },
	[COH_GRANT_NONE] = { { COH_DONE, COH_DROP } },
	[COH_DONE] = { { COH_FWD_READ, COH_FWD_WRITE, COH_INVALIDATE, COH_NUDGE } },
	[COH_PUSH_REQ] = { { COH_PUSH_GO, COH_PUSH_NO, COH_FWD_WRITE } },
	[COH_PUSH_GO] = { { COH_DONE, COH_PUSH_REQ } },
	[COH_PUSH_DATA] = { { COH_FWD_WRITE } },
	[COH_ROOM_GET] = { { COH_ROOM_IS } },
	[COH_ROOM_IS] = { { COH_PUSH_DATA, COH_ROOM_PUT } },
	[COH_HOME_MOVE] = { { COH_HOME_SET } },
	[COH_HOME_SET] = { { COH_FWD_READ, COH_DROP } },
	[COH_FREE] = { { COH_FREED, COH_DROP } },
	[COH_DROP] = { { COH_DROPPED } },
	[COH_DROPPED] = { { COH_FREED, COH_DROP, COH_WRITE_REQ } },
	[COH_FREED] = { { COH_FREE, COH_WRITE_REQ } },
};

/* What comes unasked. */
static const uint8_t unasked[] = { COH_READ_REQ, COH_WRITE_REQ, COH_HOME_GET, COH_ROOM_GET,
				   COH_PUSH_REQ, COH_HOME_MOVE, COH_HOME_SET, COH_FWD_READ,
				   COH_FREE,	 COH_DROP };

static const uint8_t good_flags[][4] = {
	[COH_READ_REQ] = { 0, COH_MSG_KEEPER, COH_MSG_AHEAD | COH_MSG_KEEPER, COH_MSG_AHEAD },
	[COH_WRITE_REQ] = { 0, COH_MSG_COPY, 0, COH_MSG_COPY },
	[COH_FWD_READ] = { 0, 0, 0, COH_MSG_AHEAD },
	[COH_FWD_WRITE] = { 0, 0, 0, COH_MSG_AHEAD },
	[COH_GRANT_READ] = { COH_MSG_DATA, COH_MSG_DATA, COH_MSG_DATA, COH_MSG_COPY },
	[COH_GRANT_WRITE] = { COH_MSG_DATA, COH_MSG_ZERO, COH_MSG_COPY, COH_MSG_DATA },
	[COH_GRANT_NONE] = { 0, COH_MSG_REFUSED, 0, COH_MSG_REFUSED },
	[COH_DONE] = { 0, 0, 0, COH_MSG_REFUSED },
	[COH_PUSH_REQ] = { 0, COH_MSG_KEEPER, 0, COH_MSG_KEEPER },
	[COH_PUSH_DATA] = { COH_MSG_DATA, COH_MSG_DATA | COH_MSG_KEEPER, COH_MSG_DATA,
			    COH_MSG_DATA },
	[COH_HOME_MOVE] = { 0, COH_MSG_MORE, COH_MSG_MORE, COH_MSG_MORE | COH_MSG_KEEPER },
	[COH_DROP] = { 0, COH_MSG_KEEPER, 0, COH_MSG_KEEPER },
	[COH_FREED] = { 0, 0, 0, COH_MSG_MORE },
	[COH_MSG_TYPES] = { 0 },
};

/* A likely answer to one of the last messages. */
static void make_answer(const struct node *node, struct input *input, struct coh_msg *msg)
{
	uint32_t newest = node->sent_count < SENT ? node->sent_count : SENT;
	uint32_t index = (node->sent_count - 1 - take(input) % newest) % SENT;
	const struct answer *answer = &answers[node->sent[index].type];
	uint32_t kinds = 0;

	while (answer->type[kinds])
		kinds++;
	*msg = node->sent[index];
	msg->src = node->sent_to[index];
	if (kinds)
		msg->type = answer->type[take(input) % kinds];
	msg->flags = good_flags[msg->type][take(input) % 4];
	if (msg->type == COH_HOME_IS) {
		msg->node = take(input) % NODES;
		msg->version = 1 + take(input) % 2;
	}
}

static void make_unasked(const struct node *node, struct input *input, struct coh_msg *msg)
{
	*msg = (struct coh_msg){
		.type = unasked[take(input) % sizeof(unasked)],
		.src = (uint16_t)((node->self + 1 + take(input) % (NODES - 1)) % NODES),
		.gpn = take_page(input),
		.version = 1,
		.seq = 1 + take(input) % 8,
		.age = take(input),
	};
	msg->requester = msg->src;
	msg->flags = good_flags[msg->type][take(input) % 4];
	if (msg->type == COH_HOME_GET || msg->type == COH_FREE || msg->type == COH_DROP)
		msg->gpn -= msg->gpn % CHUNK_PAGES;
	if (msg->type == COH_ROOM_GET)
		msg->acks = 1 + take(input) % 4;
	if (msg->type == COH_PUSH_REQ || msg->type == COH_HOME_MOVE)
		msg->node = take(input) % NODES;
}

/* Lies: a bit each. */
static void spoil(struct input *input, struct coh_msg *msg)
{
	uint8_t how = take(input);

	if (how & 32 && how & 64)
		msg->age = take(input);
	if (how & 1)
		msg->type = (uint8_t)(take(input) % (COH_MSG_TYPES + 1));
	if (how & 2)
		msg->flags = take(input);
	if (how & 4)
		msg->src = take(input) % NODES;
	if (how & 8)
		msg->requester = take(input) % (NODES + 1);
	if (how & 16)
		msg->node = take(input) % (NODES + 1);
	if (how & 32)
		msg->acks = take(input) % 8;
	if (how & 64)
		msg->version = take(input) % 5;
	if (how & 128) {
		msg->gpn = take_page(input);
		msg->seq = take(input) % 16;
	}
}

static void do_message(struct node *node, struct input *input, struct hostile_count *count)
{
	struct coh_out out = { .action = node->action, .capacity = COH_ACTIONS_MIN };
	uint8_t how = take(input);
	struct coh_msg msg;
	int ret;

	if ((how & 3) && node->sent_count)
		make_answer(node, input, &msg);
	else
		make_unasked(node, input, &msg);
	if ((how >> 2) % 4 == 0)
		spoil(input, &msg);
	ret = coh_message(node->coh, &msg, node->now_ns, &out);
	require(ret == 0 || ret == -EPROTO, "coh_message() returns neither 0 nor -EPROTO");
	count->messages++;
	count->accepted += !ret;
	require(!ret || !out.count, "a message is refused after it was acted on");
	finish(node, &out, &msg);
}

/* The node's own input: it is correct, whatever lies were believed before. */
static void local_done(struct node *node, int ret, const struct coh_out *out)
{
	require(!ret, "a correct input is refused");
	finish(node, out, NULL);
}

static void do_local(struct node *node, struct input *input)
{
	struct coh_out out = { .action = node->action, .capacity = COH_ACTIONS_MIN };
	uint8_t how = take(input);
	uint32_t actor = how % ACTORS;
	enum coh_access want = how & 0x10 ? COH_WRITE : COH_READ;
	uint64_t gpn;
	int ret;

	if (node->pinned[actor]) {
		node->pinned[actor] = false;
		ret = coh_unpin(node->coh, actor, node->now_ns, &out);
	} else if (node->pinning[actor] || node->releasing) {
		return;
	} else if ((how & 0xe0) == 0xe0) {
		uint64_t mask = 1 + take(input);
		uint32_t chunk = how >> 4 & 1;

		ret = coh_free(node->coh, chunk * CHUNK_PAGES, mask, node->now_ns, &out);
		require((ret == -EBUSY) == !!node->freeing[chunk], "frees are miscounted");
		if (ret == -EBUSY)
			return;
		node->freeing[chunk] = mask;
	} else if (how & 0x20) {
		gpn = take_page(input);
		node->pinning[actor] = true;
		node->pin_page[actor] = gpn;
		node->pin_want[actor] = (uint8_t)want;
		ret = coh_pin(node->coh, actor, gpn, want, node->now_ns, &out);
	} else {
		gpn = take_page(input);
		ret = coh_stall(node->coh, actor, gpn, want, node->now_ns, &out);
	}
	local_done(node, ret, &out);
}

static void do_tick(struct node *node, struct input *input)
{
	struct coh_out out = { .action = node->action, .capacity = COH_ACTIONS_MIN };
	uint64_t deadline = coh_deadline(node->coh);
	uint8_t how = take(input);

	if (how & 1)
		node->now_ns += how * 100;
	else if (deadline != UINT64_MAX && deadline > node->now_ns)
		node->now_ns = deadline;
	local_done(node, coh_tick(node->coh, node->now_ns, &out), &out);
}

/* A step of the list, which is true: it says of another node what may come next. */
static void do_step(struct node *node, struct input *input)
{
	struct coh_out out = { .action = node->action, .capacity = COH_ACTIONS_MIN };
	uint8_t how = take(input);
	uint16_t about = (uint16_t)((node->self + 1 + how % (NODES - 1)) % NODES);
	static const enum member_state next[][2] = {
		[MEMBER_FREE] = { MEMBER_JOINING, MEMBER_JOINING },
		[MEMBER_JOINING] = { MEMBER_ACTIVE, MEMBER_GONE },
		[MEMBER_ACTIVE] = { MEMBER_DRAINING, MEMBER_DRAINING },
		[MEMBER_DRAINING] = { MEMBER_GONE, MEMBER_ACTIVE },
		[MEMBER_GONE] = { MEMBER_FREE, MEMBER_FREE },
	};

	if (!coh_member_done(node->coh))
		return;
	node->state[about] = next[node->state[about]][how >> 7];
	if (node->state[about] == MEMBER_FREE)
		local_done(node, coh_unlinked(node->coh, about, node->now_ns, &out), &out);
	out.count = 0;
	local_done(node, coh_member(node->coh, about, node->state[about], node->now_ns, &out),
		   &out);
	out.count = 0;
	if (node->state[about] == MEMBER_JOINING)
		local_done(node, coh_linked(node->coh, about, node->now_ns, &out), &out);
}

/* What peers say about that, true or not. */
static void do_member_message(struct node *node, struct input *input, struct hostile_count *count)
{
	struct coh_out out = { .action = node->action, .capacity = COH_ACTIONS_MIN };
	struct coh_msg msg = {
		.type = (uint8_t)(COH_REG_MOVE + take(input) % 3),
		.src = (uint16_t)((node->self + 1 + take(input) % (NODES - 1)) % NODES),
		.version = take(input) % 3,
		.acks = take(input) % 4,
		.age = take(input) % 2,
	};
	int ret;

	msg.requester = msg.src;
	msg.node = msg.type == COH_FLUSH ? take(input) % NODES : msg.src;
	if (msg.type == COH_REG_MOVE && msg.age == 0 && take(input) % 2) {
		msg.flags = COH_MSG_MORE;
		msg.gpn = (uint64_t)msg.acks * CHUNK_PAGES;
		msg.node = take(input) % NODES;
	}
	ret = coh_message(node->coh, &msg, node->now_ns, &out);
	require(ret == 0 || ret == -EPROTO, "coh_message() returns neither 0 nor -EPROTO");
	count->messages++;
	count->accepted += !ret;
	count->members += !ret;
	require(!ret || !out.count, "a message is refused after it was acted on");
	finish(node, &out, &msg);
}

static void do_release(struct node *node, struct input *input, struct hostile_count *count)
{
	struct coh_out out = { .action = node->action, .capacity = COH_ACTIONS_MIN };
	uint8_t how = take(input);

	if (how >> 4 == 3)
		do_step(node, input);
	else if (how >> 4 == 4 || how >> 4 == 6)
		do_member_message(node, input, count);
	if (how != 0x5a || node->releasing)
		return;
	for (uint32_t i = 0; i < ACTORS; i++)
		if (node->pinning[i] || node->pinned[i])
			return;
	node->releasing = true;
	local_done(node, coh_release_all(node->coh, node->now_ns, &out), &out);
}

void hostile_run(const uint8_t *data, size_t size, struct hostile_count *count)
{
	struct input input = { .data = data, .left = size };
	struct node *node = calloc(1, sizeof(*node));
	struct coh_config config = {
		.node_count = NODES,
		.actor_count = ACTORS,
		.gpn_limit = PAGES,
		.capacity = CAPACITY,
		.window = 5,
		.readahead = 2,
		.neighbours = true,
		.zero_batch = 2,
		.hold_ns = 1000,
		.hold_ns_max = 50000,
	};

	if (!node)
		return;
	config.self = node->self = take(&input) % NODES;
	for (uint16_t i = 0; i < NODES; i++)
		node->state[i] = MEMBER_ACTIVE;
	if (!coh_create(&config, &node->coh)) {
		while (input.left) {
			uint8_t kind = take(&input) % 16;

			node->now_ns += 10;
			if (kind < 10)
				do_message(node, &input, count);
			else if (kind < 13)
				do_local(node, &input);
			else if (kind < 15)
				do_tick(node, &input);
			else
				do_release(node, &input, count);
		}
	}
	coh_destroy(node->coh);
	free(node);
}
