/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page protocol's entry points: what comes in is checked and dispatched, what a node says to
 * itself is handled in the same call.
 *
 * A node is often its own home, so many messages go from a node to itself. They take the same path
 * as others, through a ring, and are handled before the call returns, so that no role needs a
 * second way to do its work. Every piece of work makes at most `unit_actions` actions; a call
 * starts another piece only if that many fit. What is left over makes coh_deadline() 0 and goes on
 * at the next call.
 *
 * A message is judged in three steps, and nothing changes before all have passed: its own form
 * (here: type, flags, ranges), the role's state (the handlers' *_valid), and then it is acted on.
 *
 * Tested in tests/core/, by the simulator, and by the fuzzers.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/coherence_state.h"

_Static_assert(sizeof(struct coh_msg) == 48, "struct coh_msg is the wire layout");

typedef int handler(struct coh *coh, const struct coh_msg *msg, struct coh_out *out);

static int handle_not_home(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	if (msg->flags & COH_MSG_KEEPER)
		return coh_push_no(coh, msg, out);
	return coh_not_home(coh, msg, out);
}

/* What every type may carry, and who handles it. */
static const struct {
	handler *handle;
	uint8_t flags;
} message_kind[COH_MSG_TYPES] = {
	[COH_HOME_GET] = { coh_chunk_home_get, 0 },
	[COH_HOME_IS] = { coh_chunk_home_is, 0 },
	[COH_NOT_HOME] = { handle_not_home, COH_MSG_KEEPER },
	[COH_READ_REQ] = { coh_home_request, COH_MSG_AHEAD | COH_MSG_KEEPER },
	[COH_WRITE_REQ] = { coh_home_request, COH_MSG_COPY },
	[COH_FWD_READ] = { coh_take, COH_MSG_AHEAD },
	[COH_FWD_WRITE] = { coh_take, COH_MSG_AHEAD },
	[COH_INVALIDATE] = { coh_take, 0 },
	[COH_INVALIDATE_ACK] = { coh_ack, 0 },
	[COH_GRANT_READ] = { coh_grant, COH_MSG_DATA | COH_MSG_COPY },
	[COH_GRANT_WRITE] = { coh_grant, COH_MSG_DATA | COH_MSG_ZERO | COH_MSG_COPY },
	[COH_GRANT_NONE] = { coh_grant, COH_MSG_REFUSED },
	[COH_DONE] = { coh_home_done, COH_MSG_REFUSED },
	[COH_NUDGE] = { coh_nudge, 0 },
	[COH_HURRY] = { coh_home_hurry, 0 },
	[COH_PUSH_REQ] = { coh_home_push, COH_MSG_KEEPER },
	[COH_PUSH_GO] = { coh_push_go, COH_MSG_KEEPER },
	[COH_PUSH_NO] = { coh_push_no, COH_MSG_KEEPER },
	[COH_PUSH_DATA] = { coh_push_data, COH_MSG_DATA | COH_MSG_KEEPER },
	[COH_ROOM_GET] = { coh_room_get, 0 },
	[COH_ROOM_IS] = { coh_room_is, COH_MSG_LEAVING },
	[COH_ROOM_PUT] = { coh_room_put, 0 },
	[COH_HOME_MOVE] = { coh_chunk_home_move, COH_MSG_MORE | COH_MSG_KEEPER },
	[COH_HOME_SET] = { coh_chunk_home_set, COH_MSG_MORE | COH_MSG_KEEPER },
	[COH_FREE] = { coh_home_free, 0 },
	[COH_DROP] = { coh_drop, COH_MSG_KEEPER },
	[COH_DROPPED] = { coh_home_dropped, 0 },
	[COH_FREED] = { coh_freed, COH_MSG_MORE },
	[COH_REG_MOVE] = { coh_reg_move, COH_MSG_MORE },
	[COH_REG_IS] = { coh_reg_is, 0 },
	[COH_FLUSH] = { coh_flush, 0 },
};

static bool is_member(const struct coh *coh, uint16_t node)
{
	return node < coh->config.node_count && member_set_has(&coh->members, node);
}

/* Of who joins nothing is taken before it is a member. */
static bool is_heard(const struct coh *coh, uint16_t node)
{
	return node < coh->config.node_count && member_set_has(&coh->heard, node);
}

/* Where a message names no node the field is zero, whoever that is. */
static bool names_member(const struct coh *coh, const struct coh_msg *msg)
{
	return is_member(coh, msg->node) || msg->node == 0;
}

static bool form_valid(const struct coh *coh, const struct coh_msg *msg)
{
	const struct coh_config *c = &coh->config;

	return msg->type < COH_MSG_TYPES && message_kind[msg->type].handle &&
	       !(msg->flags & ~message_kind[msg->type].flags) && is_heard(coh, msg->src) &&
	       is_member(coh, msg->requester) && names_member(coh, msg) &&
	       msg->gpn < c->gpn_limit &&
	       !(msg->type == COH_PUSH_DATA && !(msg->flags & COH_MSG_DATA));
}

bool coh_room(const struct coh *coh, const struct coh_out *out)
{
	return out->capacity - out->count >= coh->unit_actions;
}

void coh_act(struct coh_out *out, enum coh_action_kind kind, uint64_t gpn, enum coh_access access)
{
	struct coh_action *action = &out->action[out->count++];

	assert(out->count <= out->capacity);
	memset(action, 0, sizeof(*action));
	action->kind = (uint8_t)kind;
	action->access = (uint8_t)access;
	action->gpn = gpn;
}

static void send_action(struct coh *coh, struct coh_out *out, uint16_t to,
			enum coh_action_kind kind, const struct coh_msg *msg)
{
	struct coh_action *action = &out->action[out->count];

	coh_act(out, kind, msg->gpn, COH_NONE);
	action->to = to;
	action->msg = *msg;
	action->msg.src = coh->config.self;
	coh->stats.message_count++;
}

void coh_send(struct coh *coh, struct coh_out *out, uint16_t to, const struct coh_msg *msg)
{
	struct coh_msg *slot;

	if (to != coh->config.self) {
		send_action(coh, out, to, COH_SEND, msg);
		return;
	}
	assert(coh->local_count < coh->local_size);
	slot = &coh->local[(coh->local_head + coh->local_count++) % coh->local_size];
	*slot = *msg;
	slot->src = to;
}

void coh_send_page(struct coh *coh, struct coh_out *out, uint16_t to, const struct coh_msg *msg)
{
	assert(to != coh->config.self);
	send_action(coh, out, to, COH_SEND_PAGE, msg);
	coh->stats.page_count++;
}

bool coh_local_waits(const struct coh *coh, uint64_t gpn, uint32_t types)
{
	for (uint32_t i = 0; i < coh->local_count; i++) {
		const struct coh_msg *msg = &coh->local[(coh->local_head + i) % coh->local_size];

		if (msg->gpn == gpn && (types >> msg->type & 1))
			return true;
	}
	return false;
}

uint64_t coh_random(struct coh *coh)
{
	/* splitmix64: the same numbers on every node that has the same number and history. */
	uint64_t z = coh->random += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static int local_one(struct coh *coh, struct coh_out *out)
{
	struct coh_msg msg = coh->local[coh->local_head];

	coh->local_head = (coh->local_head + 1) % coh->local_size;
	coh->local_count--;
	return message_kind[msg.type].handle(coh, &msg, out);
}

/* Everything that can go on without further input. */
int coh_settle(struct coh *coh, struct coh_out *out)
{
	int ret = 0;

	while (!ret && coh_room(coh, out)) {
		if (coh->local_count) {
			ret = local_one(coh, out);
			continue;
		}
		if (coh->parked_retry) {
			coh_parked_pump(coh, out);
			continue;
		}
		coh_parked_hurry(coh, out);
		coh_free_pump(coh, out);
		if (coh_room(coh, out))
			coh_release_pump(coh, out);
		if (coh_room(coh, out))
			coh_member_pump(coh, out);
		if (coh_room(coh, out))
			coh_move_pump(coh, out);
		if (coh_room(coh, out))
			coh_capacity_pump(coh, out);
		if (coh_room(coh, out))
			coh_stream_pump(coh, out);
		if (!coh->local_count && !coh->parked_retry)
			break;
	}
	return ret;
}

/* Left over from an earlier call: at most half of the room, the other half is for the input. */
static int settle_backlog(struct coh *coh, struct coh_out *out)
{
	int ret = 0;

	while (!ret && coh->local_count && out->capacity - out->count >= 2 * coh->unit_actions)
		ret = local_one(coh, out);
	return ret;
}

int coh_begin(struct coh *coh, uint64_t now_ns, struct coh_out *out)
{
	if (out->capacity - out->count < COH_ACTIONS_MIN)
		return -EINVAL;
	if (now_ns > coh->now_ns)
		coh->now_ns = now_ns;
	return settle_backlog(coh, out);
}

static bool may_ask(const struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want)
{
	return actor < coh->config.actor_count && gpn < coh->config.gpn_limit && !coh->releasing &&
	       (want == COH_READ || want == COH_WRITE) && !coh->wait[actor].pinned;
}

static int stall_or_pin(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
			bool pin, struct coh_out *out)
{
	if (!may_ask(coh, actor, gpn, want))
		return -EINVAL;
	coh_request(coh, actor, gpn, want, pin, out);
	coh_refetch(coh, actor, out);
	coh_stream_follow(coh, actor, gpn, want, out);
	return coh_settle(coh, out);
}

int coh_stall(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want, uint64_t now_ns,
	      struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	return ret ? ret : stall_or_pin(coh, actor, gpn, want, false, out);
}

int coh_pin(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want, uint64_t now_ns,
	    struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	return ret ? ret : stall_or_pin(coh, actor, gpn, want, true, out);
}

int coh_pin_here(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		 uint64_t now_ns, struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	if (ret)
		return ret;
	if (!may_ask(coh, actor, gpn, want))
		return -EINVAL;
	if (coh_access(coh, gpn) < want)
		return -EAGAIN;
	coh_request(coh, actor, gpn, want, true, out);
	return coh_settle(coh, out);
}

int coh_fetch(struct coh *coh, uint64_t gpn, enum coh_access want, uint64_t now_ns,
	      struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	if (ret)
		return ret;
	if (gpn >= coh->config.gpn_limit || (want != COH_READ && want != COH_WRITE))
		return -EINVAL;
	if (!coh->releasing)
		coh_request_fetch(coh, gpn, want, out);
	return coh_settle(coh, out);
}

int coh_unpin(struct coh *coh, uint32_t actor, uint64_t now_ns, struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	if (ret)
		return ret;
	if (actor >= coh->config.actor_count || !coh->wait[actor].pinned)
		return -EINVAL;
	coh_hold_unpin(coh, actor);
	coh_taking_again(coh, coh->wait[actor].gpn, out);
	return coh_settle(coh, out);
}

int coh_unpinned(struct coh *coh, uint64_t gpn, uint64_t now_ns, struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	if (ret)
		return ret;
	if (gpn >= coh->config.gpn_limit)
		return -EINVAL;
	coh_taking_again(coh, gpn, out);
	return coh_settle(coh, out);
}

int coh_free(struct coh *coh, uint64_t first, uint64_t mask, uint64_t now_ns, struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	if (!ret)
		ret = coh_free_begin(coh, first, mask, out);
	return ret ? ret : coh_settle(coh, out);
}

int coh_message(struct coh *coh, const struct coh_msg *msg, uint64_t now_ns, struct coh_out *out)
{
	int ret;

	if (!form_valid(coh, msg) || msg->src == coh->config.self)
		return -EPROTO;
	ret = coh_begin(coh, now_ns, out);
	if (!ret)
		ret = message_kind[msg->type].handle(coh, msg, out);
	return ret ? ret : coh_settle(coh, out);
}

int coh_tick(struct coh *coh, uint64_t now_ns, struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	if (ret)
		return ret;
	coh_takings_due(coh, out);
	return coh_settle(coh, out);
}

uint64_t coh_deadline(const struct coh *coh)
{
	uint64_t deadline = UINT64_MAX;

	if (coh->local_count || coh->parked_retry || coh->frees_ending || coh_member_due(coh))
		return 0;
	if (coh->heap_count)
		deadline = coh->taking[coh->heap[0] - 1].deadline;
	return coh_work_deadline(coh, deadline);
}

enum coh_access coh_access(const struct coh *coh, uint64_t gpn)
{
	return gpn < coh->config.gpn_limit ? coh->page[gpn].access : COH_NONE;
}

void coh_stats_get(const struct coh *coh, struct coh_stats *ret_stats)
{
	*ret_stats = coh->stats;
	ret_stats->pages_shared = coh->copies.count + coh->kept.count - coh->stats.pages_owned;
	ret_stats->pages_reserved = coh->used - coh->copies.count - coh->kept.count;
	ret_stats->capacity = coh->config.capacity;
	ret_stats->hold_ns = coh_hold_longest(coh);
}

/* Memory that is zero and costs nothing until it is touched. */
static void *lazy_alloc(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static bool members_valid(const struct coh_config *c)
{
	const struct member_set space = member_set_below(c->node_count);

	return member_set_covers(&space, &c->members) &&
	       (!member_set_count(&c->members) || member_set_has(&c->members, c->self));
}

static bool config_valid(const struct coh_config *c)
{
	return c->node_count && c->node_count <= NODES_MAX && c->self < c->node_count &&
	       members_valid(c) && c->actor_count && c->actor_count <= COH_ACTORS_MAX &&
	       c->gpn_limit && c->gpn_limit <= GPN_LIMIT && c->capacity &&
	       c->window >= c->actor_count && c->window <= COH_WINDOW_MAX &&
	       c->broken < COH_BROKEN_COUNT;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static int alloc_tables(struct coh *coh)
{
	const struct coh_config *c = &coh->config;
	uint32_t requests = c->node_count * (c->window + COH_PUSHES);
	/* As many as all nodes can ask for, once for other homes and once for this one: so a home
	 * that asks for more than there can be takes nothing from this one. */
	uint32_t takings = 2 * c->node_count * c->window;

	coh->page_bytes = c->gpn_limit * sizeof(*coh->page);
	coh->page = lazy_alloc(coh->page_bytes);
	coh->chunk_count = (c->gpn_limit + CHUNK_PAGES - 1) / CHUNK_PAGES;
	coh->chunk_bytes = coh->chunk_count * sizeof(*coh->chunk);
	coh->chunk = lazy_alloc(coh->chunk_bytes);
	coh->registered_bytes = coh->chunk_count * sizeof(*coh->registered);
	coh->registered = lazy_alloc(coh->registered_bytes);
	coh->wait = calloc(c->actor_count, sizeof(*coh->wait));
	coh->hold = calloc((size_t)c->actor_count * COH_HOLDS, sizeof(*coh->hold));
	coh->stream = calloc((size_t)c->actor_count * COH_STREAMS, sizeof(*coh->stream));
	coh->pending = calloc(c->window, sizeof(*coh->pending));
	coh->request_bytes = requests * sizeof(*coh->request);
	coh->request = lazy_alloc(coh->request_bytes);
	coh->request_count = calloc(2 * c->node_count, sizeof(*coh->request_count));
	coh->taking_bytes = takings * sizeof(*coh->taking);
	coh->taking = lazy_alloc(coh->taking_bytes);
	coh->heap_bytes = takings * sizeof(*coh->heap);
	coh->heap = lazy_alloc(coh->heap_bytes);
	coh->credit = calloc(c->node_count, sizeof(*coh->credit));
	coh->local_size = 8 * c->window + 1024 + 4 * COH_FREES_HOME;
	coh->local = calloc(coh->local_size, sizeof(*coh->local));
	if (!coh->page || !coh->chunk || !coh->registered || !coh->wait || !coh->hold ||
	    !coh->stream || !coh->pending || !coh->request || !coh->request_count || !coh->taking ||
	    !coh->heap || !coh->credit || !coh->local)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->window; i++)
		coh->pending[i].next = (uint16_t)(i + 1 < c->window ? i + 2 : 0);
	coh->pending_free = 1;
	return 0;
}

int coh_create(const struct coh_config *config, struct coh **ret_coh)
{
	struct coh *coh;
	int ret;

	if (!config_valid(config))
		return -EINVAL;
	coh = calloc(1, sizeof(*coh));
	if (!coh)
		return -ENOMEM;
	coh->config = *config;
	if (!coh->config.zero_batch)
		coh->config.zero_batch = 1;
	if (coh->config.run > COH_RUN)
		coh->config.run = COH_RUN;
	if (coh->config.readahead > COH_AHEAD_MAX)
		coh->config.readahead = COH_AHEAD_MAX;
	coh_members_init(coh);
	coh->sharer_words = (config->node_count + 63) / 64;
	coh->unit_actions =
		max_u32(config->node_count, max_u32(config->window, config->actor_count)) +
		COH_RUN + 64;
	coh->room_node = config->self;
	coh->random = config->self;
	coh->actors = config->actors;
	ret = alloc_tables(coh);
	if (!ret && !coh->actors) {
		ret = coh_actors_create(config->actor_count, config->hold_ns, config->hold_ns_max,
					&coh->actors_own);
		coh->actors = coh->actors_own;
	}
	if (ret) {
		coh_destroy(coh);
		return ret;
	}
	*ret_coh = coh;
	return 0;
}

static void lazy_free(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

void coh_destroy(struct coh *coh)
{
	if (!coh)
		return;
	for (uint64_t i = 0; coh->chunk && i < coh->chunk_count; i++) {
		free(coh->chunk[i].dir);
		free(coh->chunk[i].incoming);
	}
	lazy_free(coh->page, coh->page_bytes);
	lazy_free(coh->chunk, coh->chunk_bytes);
	lazy_free(coh->registered, coh->registered_bytes);
	lazy_free(coh->request, coh->request_bytes);
	lazy_free(coh->taking, coh->taking_bytes);
	lazy_free(coh->heap, coh->heap_bytes);
	coh_actors_destroy(coh->actors_own);
	free(coh->wait);
	free(coh->hold);
	free(coh->stream);
	free(coh->pending);
	free(coh->request_count);
	free(coh->credit);
	free(coh->local);
	free(coh);
}
