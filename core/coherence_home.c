/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The home: a directory entry per page, one transaction per page at a time.
 *
 *                     first touch                    read
 *      UNTOUCHED ----------------> OWNED(owner) ------------> SHARED(keeper, sharers)
 *                                    ^      write                |
 *                                    +---------------------------+
 *
 * A transaction starts by asking whoever has the page (FWD_*, INVALIDATE) or by granting at once,
 * and is over when the requester (or the target of a push) sends DONE; only then the entry changes
 * and the next request starts, oldest episode first. So no two transactions on one page ever
 * overlap anywhere, and every race between nodes is one between messages of the same transaction.
 *
 * When an older request comes to wait behind a transaction, NUDGE carries its age to those who were
 * asked and may be holding; HURRY does the same for a request whose own age went up.
 *
 * `sharers` may name nodes that dropped their copy, never miss one that has it. The keeper has it.
 *
 * The pool of requests is node_count * (window + COH_PUSHES). A peer with more than a window of
 * requests here breaks the protocol; a push beyond COH_PUSHES is refused, as its sender does not
 * see the end of it.
 *
 * Tested in tests/core/test_coherence.c.
 */
#include <string.h>

#include "core/coherence_state.h"

static struct coh_request *request_at(struct coh *coh, uint32_t index)
{
	return index ? &coh->request[index - 1] : NULL;
}

/* Its index; 0: the page is idle, or becomes untouched. */
static uint32_t running_index(const struct coh_dir_entry *entry)
{
	return entry->busy & COH_BUSY_FREE ? 0 : entry->busy;
}

static struct coh_request *running_at(struct coh *coh, const struct coh_dir_entry *entry)
{
	return request_at(coh, running_index(entry));
}

/* Requests and pushes of a node that are here. */
static uint16_t *request_count(struct coh *coh, uint16_t node, uint8_t type)
{
	return &coh->request_count[2 * node + (type == COH_PUSH_REQ)];
}

static struct coh_request *request_new(struct coh *coh, const struct coh_msg *msg)
{
	struct coh_request *r;

	if (!coh->request_free)
		coh->request_free = ++coh->request_used;
	r = request_at(coh, coh->request_free);
	coh->request_free = r->next;
	++*request_count(coh, msg->src, msg->type);
	coh->request_total++;
	*r = (struct coh_request){
		.gpn = msg->gpn,
		.age = msg->age,
		.seq = msg->seq,
		.since_ns = coh->now_ns,
		.prio_age = msg->age,
		.prio_node = msg->src,
		.requester = msg->src,
		.node = msg->node,
		.type = msg->type,
		.flags = msg->flags,
	};
	return r;
}

static void request_release(struct coh *coh, struct coh_request *r)
{
	--*request_count(coh, r->requester, r->type);
	coh->request_total--;
	r->next = coh->request_free;
	coh->request_free = (uint32_t)(r - coh->request) + 1;
}

static void queue_insert(struct coh *coh, struct coh_dir_entry *entry, struct coh_request *r)
{
	uint32_t *link = &entry->queue;
	struct coh_request *other;

	while ((other = request_at(coh, *link)) &&
	       !coh_older(r->age, r->requester, other->age, other->requester))
		link = &other->next;
	r->next = *link;
	*link = (uint32_t)(r - coh->request) + 1;
}

static struct coh_msg answer_to(struct coh *coh, const struct coh_request *r, uint8_t type)
{
	return (struct coh_msg){
		.type = type,
		.requester = r->requester,
		.version = coh->chunk[r->gpn / CHUNK_PAGES].version,
		.gpn = r->gpn,
		.age = r->prio_age,
		.seq = r->seq,
		.waited_ns = coh->now_ns - r->since_ns,
	};
}

/* Tell every sharer but the requester and `except` to drop its copy. Returns how many acks come. */
static uint32_t invalidate_all(struct coh *coh, const struct coh_request *r, uint16_t except,
			       struct coh_out *out)
{
	const uint64_t *sharers = coh_sharers_of(coh, r->gpn);
	struct coh_msg msg = answer_to(coh, r, COH_INVALIDATE);
	bool skip = coh_broken(coh, COH_BROKEN_INVALIDATE_SKIPPED);
	uint32_t count = 0;

	for (uint32_t w = 0; w < coh->sharer_words; w++) {
		for (uint64_t bits = coh_sharers_word(coh, sharers, w); bits; bits &= bits - 1) {
			uint16_t node = (uint16_t)(w * 64 + (uint32_t)__builtin_ctzll(bits));

			if (node == r->requester || node == except)
				continue;
			if (skip) {
				skip = false;
				continue;
			}
			coh_send(coh, out, node, &msg);
			count++;
		}
	}
	return count;
}

static void grant_from_home(struct coh *coh, struct coh_request *r, uint8_t type, uint8_t flags,
			    uint32_t acks, struct coh_out *out)
{
	struct coh_msg msg = answer_to(coh, r, type);

	msg.flags = flags;
	msg.acks = acks;
	r->node = coh->config.self;
	r->acks = acks;
	coh_send(coh, out, r->requester, &msg);
}

static void forward(struct coh *coh, struct coh_request *r, uint8_t type, uint16_t to,
		    uint32_t acks, struct coh_out *out)
{
	struct coh_msg msg = answer_to(coh, r, type);

	msg.flags = r->flags & COH_MSG_AHEAD;
	msg.acks = acks;
	r->node = to;
	r->acks = acks;
	coh_send(coh, out, to, &msg);
}

/* How many nodes but the requester have the page, or had: a copy is dropped without a word. */
static uint32_t others_with(struct coh *coh, const struct coh_request *r)
{
	const uint64_t *sharers = coh_sharers_of(coh, r->gpn);
	uint32_t count = 0;

	if (coh_entry_of(coh, r->gpn)->state == DIR_OWNED)
		return 1;
	for (uint32_t w = 0; w < coh->sharer_words; w++)
		count += (uint32_t)__builtin_popcountll(coh_sharers_word(coh, sharers, w));
	return count - coh_bit(sharers, r->requester);
}

static void start_read(struct coh *coh, struct coh_request *r, struct coh_out *out)
{
	struct coh_dir_entry *entry = coh_entry_of(coh, r->gpn);
	uint16_t self = coh->config.self;
	uint16_t from = entry->node;

	if (entry->node == r->requester) {
		r->outcome = OUTCOME_NONE;
		grant_from_home(coh, r, COH_GRANT_READ, COH_MSG_COPY, 0, out);
		return;
	}
	r->outcome = OUTCOME_SHARE;
	/* A copy of our own is as good as the keeper's, and nearer. */
	if (entry->state == DIR_SHARED && self != r->requester &&
	    coh->page[r->gpn].access == COH_READ && coh_bit(coh_sharers_of(coh, r->gpn), self))
		from = self;
	forward(coh, r, COH_FWD_READ, from, others_with(coh, r), out);
}

static void start_write(struct coh *coh, struct coh_request *r, struct coh_out *out)
{
	struct coh_dir_entry *entry = coh_entry_of(coh, r->gpn);
	const uint64_t *sharers = coh_sharers_of(coh, r->gpn);
	bool has_copy = entry->node == r->requester ||
			((r->flags & COH_MSG_COPY) && coh_bit(sharers, r->requester));

	r->outcome = OUTCOME_OWN;
	if (entry->state == DIR_OWNED && entry->node == r->requester) {
		r->outcome = OUTCOME_NONE;
		grant_from_home(coh, r, COH_GRANT_WRITE, COH_MSG_COPY, 0, out);
		return;
	}
	if (entry->state == DIR_OWNED) {
		forward(coh, r, COH_FWD_WRITE, entry->node, 0, out);
		return;
	}
	if (coh_broken(coh, COH_BROKEN_UPGRADE_BLIND) && (r->flags & COH_MSG_COPY))
		has_copy = true;
	if (has_copy)
		grant_from_home(coh, r, COH_GRANT_WRITE, COH_MSG_COPY,
				invalidate_all(coh, r, r->requester, out), out);
	else
		forward(coh, r, COH_FWD_WRITE, entry->node,
			invalidate_all(coh, r, entry->node, out), out);
}

static void start(struct coh *coh, struct coh_request *r, struct coh_out *out)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, r->gpn);
	struct coh_dir_entry *entry = coh_entry_of(coh, r->gpn);

	entry->busy = (uint32_t)(r - coh->request) + 1;
	chunk->dir->busy_count++;
	r->life = coh->life;
	coh->running[r->life]++;
	if ((r->flags & COH_MSG_KEEPER) && entry->state == DIR_OWNED)
		r->type = COH_WRITE_REQ;
	if (entry->state == DIR_UNTOUCHED) {
		r->outcome = OUTCOME_OWN;
		grant_from_home(coh, r, COH_GRANT_WRITE, COH_MSG_ZERO, 0, out);
	} else if (r->type == COH_READ_REQ) {
		start_read(coh, r, out);
	} else {
		start_write(coh, r, out);
	}
}

/* Everyone who was asked in the running transaction learns how old the oldest behind it is. */
static void nudge(struct coh *coh, struct coh_request *running, uint64_t age, uint16_t node,
		  struct coh_out *out)
{
	const uint64_t *sharers = coh_sharers_of(coh, running->gpn);
	const struct coh_dir_entry *entry = coh_entry_of(coh, running->gpn);
	struct coh_msg msg = answer_to(coh, running, COH_NUDGE);

	if (running->type == COH_PUSH_REQ ||
	    !coh_older(age, node, running->prio_age, running->prio_node))
		return;
	running->prio_age = age;
	running->prio_node = node;
	if (coh_broken(coh, COH_BROKEN_NUDGE_LOST))
		return;
	msg.age = age;
	msg.node = node;
	msg.waited_ns = 0;
	/* To who was not asked, or has answered, it says nothing: no need to remember who that is.
	 */
	if (running->node != running->requester)
		coh_send(coh, out, running->node, &msg);
	if (entry->state != DIR_SHARED || running->type != COH_WRITE_REQ)
		return;
	for (uint32_t w = 0; w < coh->sharer_words; w++) {
		for (uint64_t bits = coh_sharers_word(coh, sharers, w); bits; bits &= bits - 1) {
			uint16_t to = (uint16_t)(w * 64 + (uint32_t)__builtin_ctzll(bits));

			if (to != running->requester && to != running->node)
				coh_send(coh, out, to, &msg);
		}
	}
}

static void turn_away(struct coh *coh, const struct coh_msg *request, struct coh_out *out)
{
	const struct coh_chunk *chunk = coh_chunk_of(coh, request->gpn);
	struct coh_msg msg = {
		.type = COH_NOT_HOME,
		.flags = request->type == COH_PUSH_REQ ? COH_MSG_KEEPER : 0,
		.requester = request->requester,
		.node = coh_chunk_home_known(coh, request->gpn / CHUNK_PAGES) ? chunk->home
									      : coh->config.self,
		.version = chunk->version,
		.gpn = request->gpn,
		.seq = request->seq,
	};

	coh_send(coh, out, request->requester, &msg);
}

static bool is_home(const struct coh *coh, const struct coh_chunk *chunk)
{
	return chunk->dir && chunk->home == coh->config.self;
}

/* Not ours: 0 when the requester was told where it went, -EPROTO when it cannot have thought so. */
static int not_ours(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	if (coh_chunk_of(coh, msg->gpn)->version <= msg->version)
		return -EPROTO;
	turn_away(coh, msg, out);
	return 0;
}

bool coh_home_here(const struct coh *coh, uint64_t gpn)
{
	return is_home(coh, &coh->chunk[gpn / CHUNK_PAGES]);
}

/* What runs at this home for this node's own request or push. */
static const struct coh_request *running_for(const struct coh *coh, const struct coh_msg *msg,
					     uint16_t requester)
{
	const struct coh_dir_entry *entry =
		&coh->chunk[msg->gpn / CHUNK_PAGES].dir->entry[msg->gpn % CHUNK_PAGES];
	const struct coh_request *r =
		running_index(entry) ? &coh->request[running_index(entry) - 1] : NULL;

	return r && r->requester == requester && r->seq == msg->seq ? r : NULL;
}

bool coh_home_grants(const struct coh *coh, const struct coh_msg *msg)
{
	const struct coh_request *r;

	if (msg->src == coh->config.self || !coh_home_here(coh, msg->gpn))
		return true;
	r = running_for(coh, msg, coh->config.self);
	if (!r || r->node != msg->src || r->type == COH_PUSH_REQ)
		return false;
	if (msg->type == COH_GRANT_NONE)
		return r->flags & COH_MSG_AHEAD;
	return msg->flags == COH_MSG_DATA && msg->acks == r->acks &&
	       (msg->type == COH_GRANT_WRITE) == (r->type == COH_WRITE_REQ);
}

bool coh_home_acks(const struct coh *coh, const struct coh_msg *msg)
{
	const struct coh_chunk *chunk = &coh->chunk[msg->gpn / CHUNK_PAGES];
	uint32_t index = msg->gpn % CHUNK_PAGES;
	const struct coh_request *r;

	if (msg->src == coh->config.self || !coh_home_here(coh, msg->gpn))
		return true;
	r = running_for(coh, msg, coh->config.self);
	return r && r->type == COH_WRITE_REQ && r->acks && r->node != msg->src &&
	       coh_bit(chunk->dir->sharers + index * coh->sharer_words, msg->src);
}

bool coh_home_pushes(const struct coh *coh, const struct coh_msg *msg)
{
	const struct coh_request *r;

	if (msg->node != coh->config.self)
		return true;
	r = coh_home_here(coh, msg->gpn) ? running_for(coh, msg, msg->src) : NULL;
	return r && r->type == COH_PUSH_REQ && r->node == coh->config.self &&
	       (r->flags & COH_MSG_KEEPER) == (msg->flags & COH_MSG_KEEPER);
}

bool coh_home_asked_self(const struct coh *coh, uint64_t gpn)
{
	const struct coh_chunk *chunk = &coh->chunk[gpn / CHUNK_PAGES];
	uint32_t busy;

	if (!chunk->dir)
		return false;
	busy = running_index(&chunk->dir->entry[gpn % CHUNK_PAGES]);
	return busy && coh->request[busy - 1].node == coh->config.self;
}

void coh_home_refused_self(struct coh *coh, uint64_t gpn)
{
	running_at(coh, coh_entry_of(coh, gpn))->flags |= COH_MSG_REFUSED;
}

static bool already_here(struct coh *coh, const struct coh_dir_entry *entry, uint16_t node)
{
	const struct coh_request *r = running_at(coh, entry);

	if (r && r->requester == node && r->type != COH_PUSH_REQ)
		return true;
	for (r = request_at(coh, entry->queue); r; r = request_at(coh, r->next))
		if (r->requester == node)
			return true;
	return false;
}

/* Read-ahead waits for nobody and makes nobody wait. Who does not write takes no memory by it. */
static bool refuses_ahead(const struct coh_chunk *chunk, const struct coh_dir_entry *entry,
			  const struct coh_msg *msg)
{
	return (msg->flags & COH_MSG_AHEAD) &&
	       (entry->busy || chunk->dir->moving ||
		(entry->state == DIR_UNTOUCHED && !(msg->flags & COH_MSG_KEEPER)));
}

int coh_home_request(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, msg->gpn);
	struct coh_dir_entry *entry;
	struct coh_request *r, *running;
	int ret;

	if (msg->requester != msg->src ||
	    *request_count(coh, msg->src, msg->type) >= coh->config.window)
		return -EPROTO;
	ret = coh_chunk_adopt(coh, msg->gpn / CHUNK_PAGES, msg, out);
	if (ret)
		return ret;
	if (!is_home(coh, chunk))
		return not_ours(coh, msg, out);
	entry = coh_entry_of(coh, msg->gpn);
	if (msg->version > chunk->version || already_here(coh, entry, msg->src))
		return -EPROTO;
	if (refuses_ahead(chunk, entry, msg)) {
		struct coh_msg none = { .type = COH_GRANT_NONE,
					.requester = msg->src,
					.version = chunk->version,
					.gpn = msg->gpn,
					.seq = msg->seq };

		coh_send(coh, out, msg->src, &none);
		return 0;
	}
	r = request_new(coh, msg);
	if (!entry->busy && !chunk->dir->moving) {
		start(coh, r, out);
		return 0;
	}
	queue_insert(coh, entry, r);
	running = running_at(coh, entry);
	if (running)
		nudge(coh, running, r->age, r->requester, out);
	return 0;
}

int coh_home_hurry(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, msg->gpn);
	struct coh_dir_entry *entry;
	struct coh_request *r, *running;
	uint32_t *link;

	if (msg->requester != msg->src)
		return -EPROTO;
	if (!is_home(coh, chunk))
		return 0;
	entry = coh_entry_of(coh, msg->gpn);
	if (!entry->busy)
		return 0;
	running = running_at(coh, entry);
	for (link = &entry->queue; (r = request_at(coh, *link)); link = &r->next) {
		if (r->requester != msg->src || r->seq != msg->seq || msg->age >= r->age)
			continue;
		*link = r->next;
		r->age = r->prio_age = msg->age;
		queue_insert(coh, entry, r);
		if (running)
			nudge(coh, running, r->age, r->requester, out);
		return 0;
	}
	if (running && running->requester == msg->src && running->seq == msg->seq)
		nudge(coh, running, msg->age, msg->src, out);
	return 0;
}

int coh_home_push(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, msg->gpn);
	struct coh_dir_entry *entry;
	struct coh_msg reply = *msg;
	bool kept = msg->flags & COH_MSG_KEEPER;

	if (msg->requester != msg->src || msg->node == msg->src)
		return -EPROTO;
	if (!is_home(coh, chunk))
		return not_ours(coh, msg, out);
	entry = coh_entry_of(coh, msg->gpn);
	if (msg->version > chunk->version)
		return -EPROTO;
	reply.version = chunk->version;
	reply.type = COH_PUSH_NO;
	if (!entry->busy && !entry->queue && !chunk->dir->moving && entry->node == msg->src &&
	    entry->state == (kept ? DIR_SHARED : DIR_OWNED) &&
	    *request_count(coh, msg->src, msg->type) < COH_PUSHES) {
		struct coh_request *r = request_new(coh, msg);

		r->outcome = OUTCOME_PUSH;
		r->life = coh->life;
		coh->running[r->life]++;
		entry->busy = (uint32_t)(r - coh->request) + 1;
		chunk->dir->busy_count++;
		reply.type = COH_PUSH_GO;
	}
	coh_send(coh, out, msg->src, &reply);
	return 0;
}

static void apply_outcome(struct coh *coh, const struct coh_request *r, uint8_t outcome)
{
	struct coh_dir_entry *entry = coh_entry_of(coh, r->gpn);
	uint64_t *sharers = coh_sharers_of(coh, r->gpn);

	switch (outcome) {
	case OUTCOME_SHARE:
		entry->state = DIR_SHARED;
		coh_bit_set(sharers, entry->node);
		if (member_set_has(&coh->share, r->requester)) /* else its copy is gone, too */
			coh_bit_set(sharers, r->requester);
		break;
	case OUTCOME_OWN:
		entry->state = DIR_OWNED;
		entry->node = r->requester;
		memset(sharers, 0, coh->sharer_words * sizeof(*sharers));
		break;
	case OUTCOME_PUSH:
		if (entry->state == DIR_SHARED) {
			coh_bit_clear(sharers, r->requester);
			coh_bit_set(sharers, r->node);
		}
		entry->node = r->node;
		break;
	default:
		break;
	}
}

static bool done_valid(const struct coh *coh, const struct coh_request *r,
		       const struct coh_msg *msg)
{
	bool refused = msg->flags & COH_MSG_REFUSED;

	if (!r || r->requester != msg->requester || r->seq != msg->seq)
		return false;
	if (r->type == COH_PUSH_REQ)
		return msg->src == (refused ? r->requester : r->node);
	/* Who asked itself knows what was answered. */
	if (r->node == coh->config.self && refused != !!(r->flags & COH_MSG_REFUSED))
		return false;
	return msg->src == r->requester && (!refused || (r->flags & COH_MSG_AHEAD));
}

/* What this node was asked in a transaction, and has not done. Then it cannot be over. */
static bool own_part_open(const struct coh *coh, const struct coh_msg *msg)
{
	static const uint32_t parts = 1u << COH_FWD_READ | 1u << COH_FWD_WRITE |
				      1u << COH_INVALIDATE | 1u << COH_PUSH_GO | 1u << COH_DONE |
				      1u << COH_GRANT_READ | 1u << COH_GRANT_WRITE;

	return msg->src != coh->config.self &&
	       (coh->page[msg->gpn].taking || coh_local_waits(coh, msg->gpn, parts));
}

void coh_home_next(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	struct coh_dir_entry *entry = coh_entry_of(coh, gpn);
	struct coh_request *next = request_at(coh, entry->queue);

	if (!next || coh_chunk_of(coh, gpn)->dir->moving)
		return;
	entry->queue = next->next;
	if (coh_broken(coh, COH_BROKEN_WAITER_LOST) && entry->queue) {
		request_release(coh, next);
		next = request_at(coh, entry->queue);
		entry->queue = next->next;
	}
	start(coh, next, out);
}

int coh_home_done(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, msg->gpn);
	struct coh_dir_entry *entry;
	struct coh_request *r;

	if (!is_home(coh, chunk))
		return -EPROTO;
	entry = coh_entry_of(coh, msg->gpn);
	r = running_at(coh, entry);
	if (!done_valid(coh, r, msg) || own_part_open(coh, msg))
		return -EPROTO;
	if (!(msg->flags & COH_MSG_REFUSED))
		apply_outcome(coh, r, r->outcome);
	coh->running[r->life]--;
	request_release(coh, r);
	entry->busy = 0;
	chunk->dir->busy_count--;
	coh_home_next(coh, msg->gpn, out);
	return 0;
}

bool coh_home_take_zero(struct coh *coh, uint64_t gpn)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, gpn);
	struct coh_dir_entry *entry;

	if (!is_home(coh, chunk) || chunk->dir->moving)
		return false;
	entry = coh_entry_of(coh, gpn);
	if (entry->state != DIR_UNTOUCHED || entry->busy)
		return false;
	entry->state = DIR_OWNED;
	entry->node = coh->config.self;
	return true;
}

/* The chunk moves: what runs must come to an end whoever holds. One page; false when nothing ran.
 */
bool coh_home_yield(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	struct coh_request *r = running_at(coh, coh_entry_of(coh, gpn));

	if (!r)
		return false;
	nudge(coh, r, 0, 0, out);
	return true;
}

/* The chunk has moved: one queued request of the page learns where to. False: none is left. */
bool coh_home_turn_away(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	struct coh_dir_entry *entry = coh_entry_of(coh, gpn);
	struct coh_request *r = request_at(coh, entry->queue);
	struct coh_msg msg;

	if (!r)
		return false;
	entry->queue = r->next;
	msg = (struct coh_msg){
		.type = r->type, .requester = r->requester, .gpn = r->gpn, .seq = r->seq
	};
	request_release(coh, r);
	turn_away(coh, &msg, out);
	return true;
}
