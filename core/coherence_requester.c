/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requester: from a stall to its grant.
 *
 * Invariants: a page has at most one request outstanding, and while it has one the page keeps its
 * slot and its copy is neither dropped nor pushed. The request ends with DONE to the home, sent
 * after the page is installed with the access granted, so the home never starts another transaction
 * on a page that is still on its way. Several actors may wait on one request: what it grants wakes
 * those it satisfies, and for the others (write wanted, read granted) the next request goes out at
 * once.
 *
 * An actor that finds no place in the window, or no slot for the page, is parked; the oldest goes
 * first.
 *
 * Tested in tests/core/test_coherence.c.
 */
#include <string.h>

#include "core/coherence_state.h"

static struct coh_pending *pending_at(struct coh *coh, uint64_t gpn)
{
	uint16_t index = coh->page[gpn].pending;

	return index ? &coh->pending[index - 1] : NULL;
}

static struct coh_pending *pending_new(struct coh *coh, uint64_t gpn)
{
	uint32_t index = coh->pending_free;
	struct coh_pending *p = &coh->pending[index - 1];

	coh->pending_free = p->next;
	memset(p, 0, sizeof(*p));
	p->gpn = gpn;
	p->phase = PENDING_HOME;
	coh->page[gpn].pending = (uint16_t)index;
	coh->pending_count++;
	return p;
}

static void pending_free(struct coh *coh, struct coh_pending *p)
{
	struct coh_page *page = coh_page_of(coh, p->gpn);

	page->pending = 0;
	if (page->access == COH_NONE)
		coh_slot_free(coh);
	p->phase = PENDING_FREE;
	p->next = (uint16_t)coh->pending_free;
	coh->pending_free = (uint32_t)(p - coh->pending) + 1;
	coh->pending_count--;
	coh->parked_retry = true;
}

static void pending_send(struct coh *coh, struct coh_pending *p, struct coh_out *out)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, p->gpn);
	struct coh_msg msg = {
		.type = p->want == COH_WRITE ? COH_WRITE_REQ : COH_READ_REQ,
		.requester = coh->config.self,
		.version = chunk->version,
		.gpn = p->gpn,
		.age = p->age,
		.seq = p->seq,
	};

	if (!coh_chunk_home_known(coh, p->gpn / CHUNK_PAGES)) {
		p->phase = PENDING_HOME;
		p->next = chunk->waiting;
		chunk->waiting = (uint16_t)(p - coh->pending + 1);
		coh_chunk_ask(coh, p->gpn / CHUNK_PAGES, out);
		return;
	}
	if (p->want == COH_WRITE && coh->page[p->gpn].access != COH_NONE)
		msg.flags |= COH_MSG_COPY;
	if (p->ahead)
		msg.flags |= COH_MSG_AHEAD;
	if (p->own && p->want == COH_READ)
		msg.flags |= COH_MSG_KEEPER;
	p->phase = PENDING_SENT;
	p->home = chunk->home;
	p->version = chunk->version;
	p->sent_ns = coh->now_ns;
	coh_send(coh, out, chunk->home, &msg);
}

/* A new question about the page: the old one is answered. */
static void pending_start(struct coh *coh, struct coh_pending *p, enum coh_access want,
			  uint64_t age, struct coh_out *out)
{
	p->seq = ++coh->seq;
	p->want = (uint8_t)want;
	p->age = age;
	p->granted = p->data = p->remote = p->upgrade = false;
	p->waited_ns = 0;
	p->acks_needed = p->acks_got = p->sharers = 0;
	memset(p->ack_from, 0, sizeof(p->ack_from));
	pending_send(coh, p, out);
}

void coh_requests_of_chunk(struct coh *coh, uint64_t chunk, struct coh_out *out)
{
	uint16_t index = coh->chunk[chunk].waiting;

	coh->chunk[chunk].waiting = 0;
	while (index) {
		struct coh_pending *p = &coh->pending[index - 1];

		index = p->next;
		pending_send(coh, p, out);
	}
}

/* An older actor depends on the request: its age counts from here on. */
static void pending_hurry(struct coh *coh, struct coh_pending *p, uint64_t age, struct coh_out *out)
{
	struct coh_msg msg = {
		.type = COH_HURRY,
		.requester = coh->config.self,
		.version = coh->chunk[p->gpn / CHUNK_PAGES].version,
		.gpn = p->gpn,
		.age = age,
		.seq = p->seq,
	};

	if (age >= p->age)
		return;
	p->age = age;
	/* A read-ahead request never waits for anybody, so there is nobody to hurry. */
	if (p->phase == PENDING_SENT && !p->ahead)
		coh_send(coh, out, p->home, &msg);
}

static void wait_join(struct coh *coh, struct coh_pending *p, uint32_t actor, struct coh_out *out)
{
	struct coh_wait *wait = &coh->wait[actor];

	wait->state = WAIT_PENDING;
	wait->next = p->waiters;
	p->waiters = actor + 1;
	pending_hurry(coh, p, coh_actor_age(coh, actor), out);
}

static void wait_leave(struct coh *coh, uint32_t actor)
{
	struct coh_wait *wait = &coh->wait[actor];
	uint32_t *link;

	if (wait->state == WAIT_PARKED)
		coh->parked_count--;
	if (wait->state == WAIT_PENDING) {
		link = &pending_at(coh, wait->gpn)->waiters;
		while (*link != actor + 1)
			link = &coh->wait[*link - 1].next;
		*link = wait->next;
	}
	wait->state = WAIT_NONE;
}

/* The actor's stall is over. Returns whether it needs a COH_WAKE; a pin says so itself. */
static bool wait_over(struct coh *coh, uint32_t actor, uint64_t waited_ns, struct coh_out *out)
{
	struct coh_wait *wait = &coh->wait[actor];
	struct coh_action *action;

	wait->state = WAIT_NONE;
	coh_actor_run(coh, actor, wait->gpn, wait->want, waited_ns);
	if (!wait->pin)
		return true;
	action = &out->action[out->count++];
	memset(action, 0, sizeof(*action));
	action->kind = COH_PINNED;
	action->actor = actor;
	action->gpn = wait->gpn;
	action->access = wait->want;
	return false;
}

static enum coh_stall_kind stall_kind(const struct coh_pending *p)
{
	if (p->upgrade)
		return COH_STALL_UPGRADE;
	if (!p->data)
		return COH_STALL_ZERO;
	return p->want == COH_WRITE ? COH_STALL_WRITE : COH_STALL_READ;
}

/* Parked actors whose page came in another way: pushed, or asked for by another actor. */
static bool satisfy_parked(struct coh *coh, uint64_t gpn, enum coh_access access,
			   struct coh_out *out)
{
	bool wake = false;

	for (uint32_t i = 0; coh->parked_count && i < coh->config.actor_count; i++) {
		const struct coh_wait *wait = &coh->wait[i];

		if (wait->state != WAIT_PARKED || wait->gpn != gpn || wait->want > access)
			continue;
		coh->parked_count--;
		wake |= wait_over(coh, i, 0, out);
	}
	return wake;
}

void coh_satisfy(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	struct coh_pending *p = pending_at(coh, gpn);
	enum coh_access access = coh->page[gpn].access;
	bool wake = satisfy_parked(coh, gpn, access, out);
	uint32_t none = 0, index, *link;

	link = p ? &p->waiters : &none;
	while ((index = *link)) {
		struct coh_wait *wait = &coh->wait[index - 1];

		if (wait->want > access) {
			link = &wait->next;
			continue;
		}
		*link = wait->next;
		coh->stats.stall_count[stall_kind(p)]++;
		wake |= wait_over(coh, index - 1, p->waited_ns, out);
	}
	if (!wake)
		return;
	coh_act(out, COH_WAKE, gpn, access);
	out->action[out->count - 1].msg.acks = p ? p->sharers : 0;
}

/* Ask for what the remaining waiters want, or let the request go. The old one was answered. */
static void pending_again(struct coh *coh, struct coh_pending *p, struct coh_out *out)
{
	enum coh_access want = COH_NONE;
	uint64_t age = COH_AGE_NEVER;

	for (uint32_t i = p->waiters; i; i = coh->wait[i - 1].next) {
		if (coh->wait[i - 1].want > want)
			want = coh->wait[i - 1].want;
		if (coh_actor_age(coh, i - 1) < age)
			age = coh_actor_age(coh, i - 1);
	}
	p->ahead = p->own = false;
	p->back_for = 0;
	if (want != COH_NONE)
		pending_start(coh, p, want, age, out);
	else
		pending_free(coh, p);
}

/* Start the parked or new stall of an actor, if there is room for it. */
static bool stall_start(struct coh *coh, uint32_t actor, struct coh_out *out)
{
	struct coh_wait *wait = &coh->wait[actor];
	struct coh_page *page = coh_page_of(coh, wait->gpn);
	struct coh_pending *p;

	if (page->access >= wait->want) {
		if (wait_over(coh, actor, 0, out))
			coh_act(out, COH_WAKE, wait->gpn, page->access);
		return true;
	}
	if (page->pending) {
		wait_join(coh, pending_at(coh, wait->gpn), actor, out);
		return true;
	}
	if (!coh->pending_free ||
	    (page->access == COH_NONE && !coh_slot_take(coh, coh_actor_age(coh, actor), out)))
		return false;
	p = pending_new(coh, wait->gpn);
	p->age = coh_actor_age(coh, actor);
	p->own = wait->own;
	wait_join(coh, p, actor, out);
	pending_start(coh, p, coh_want_back(coh, actor, wait->gpn, wait->want), p->age, out);
	return true;
}

int coh_request(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want, bool pin,
		struct coh_out *out)
{
	struct coh_wait *wait = &coh->wait[actor];

	wait_leave(coh, actor);
	coh_actor_stall(coh, actor, gpn);
	wait->own = coh_will_write(coh, actor, gpn, want);
	wait->gpn = gpn;
	wait->want = (uint8_t)want;
	wait->pin = pin;
	if (!stall_start(coh, actor, out)) {
		wait->state = WAIT_PARKED;
		coh->parked_count++;
	}
	/* The actor's own hold on the page is over if it waits for more of it. */
	if (coh->page[gpn].taking)
		coh_taking_again(coh, gpn, out);
	return 0;
}

/* Read-ahead takes what is to spare, and nothing else. */
bool coh_request_ahead(struct coh *coh, uint64_t gpn, bool own, struct coh_out *out)
{
	struct coh_page *page = coh_page_of(coh, gpn);
	struct coh_pending *p;

	if (page->access != COH_NONE || page->pending)
		return true;
	if (coh->pending_count + coh->config.actor_count >= coh->config.window)
		return false;
	if (!coh_slot_spare(coh, out))
		return false;
	p = pending_new(coh, gpn);
	p->ahead = true;
	p->own = own;
	pending_start(coh, p, COH_READ, COH_AGE_NEVER, out);
	return true;
}

/* A proper request, but with what is to spare only. False: there is no more. */
static bool request_spare(struct coh *coh, uint64_t gpn, enum coh_access want, uint32_t back_for,
			  uint64_t age, struct coh_out *out)
{
	struct coh_page *page = coh_page_of(coh, gpn);
	struct coh_pending *p;

	if (page->access >= want || page->pending)
		return true;
	if (coh->pending_count + coh->config.actor_count >= coh->config.window)
		return false;
	if (page->access == COH_NONE && !coh_slot_spare(coh, out))
		return false;
	p = pending_new(coh, gpn);
	p->back_for = back_for;
	coh->stats.fetch_count += !back_for;
	pending_start(coh, p, want, age, out);
	return true;
}

bool coh_request_back(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		      struct coh_out *out)
{
	return request_spare(coh, gpn, want, actor + 1, coh_actor_age(coh, actor), out);
}

bool coh_request_fetch(struct coh *coh, uint64_t gpn, enum coh_access want, struct coh_out *out)
{
	return request_spare(coh, gpn, want, 0, coh->now_ns, out);
}

static uint32_t oldest_parked(const struct coh *coh)
{
	uint32_t best = 0;

	for (uint32_t i = 0; i < coh->config.actor_count; i++) {
		if (coh->wait[i].state != WAIT_PARKED)
			continue;
		if (!best || coh_actor_age(coh, i) < coh_actor_age(coh, best - 1))
			best = i + 1;
	}
	return best;
}

void coh_parked_hurry(struct coh *coh, struct coh_out *out)
{
	uint64_t age;

	if (!coh->parked_count)
		return;
	age = coh_actor_age(coh, oldest_parked(coh) - 1);
	for (uint32_t i = 0; i < coh->config.window; i++) {
		struct coh_pending *p = &coh->pending[i];

		if (p->phase != PENDING_FREE && !p->waiters)
			pending_hurry(coh, p, age, out);
	}
}

void coh_parked_pump(struct coh *coh, struct coh_out *out)
{
	uint32_t actor;

	if (!coh->parked_retry)
		return;
	coh->parked_retry = false;
	if (!coh->parked_count)
		return;
	actor = oldest_parked(coh) - 1;
	coh->wait[actor].state = WAIT_NONE;
	if (stall_start(coh, actor, out)) {
		coh->parked_count--;
		coh->parked_retry = true;
	} else {
		coh->wait[actor].state = WAIT_PARKED;
	}
}

static void request_done(struct coh *coh, const struct coh_pending *p, uint8_t flags,
			 struct coh_out *out)
{
	struct coh_msg msg = {
		.type = COH_DONE,
		.flags = flags,
		.requester = coh->config.self,
		.version = coh->chunk[p->gpn / CHUNK_PAGES].version,
		.gpn = p->gpn,
		.seq = p->seq,
	};

	coh_send(coh, out, p->home, &msg);
}

static void request_complete(struct coh *coh, struct coh_pending *p, struct coh_out *out)
{
	uint64_t took = coh->now_ns - p->sent_ns;

	if (p->remote && p->waiters && !p->ahead)
		coh_latency_sample(coh, took > p->waited_ns ? took - p->waited_ns : 0);
	if (p->ahead)
		coh->stats.readahead_count++;
	if (p->back_for && !p->waiters) {
		coh_actor_refetched(coh, p->back_for - 1, p->gpn, p->want);
		coh->stats.refetch_count++;
	}
	coh_satisfy(coh, p->gpn, out);
	if (!(coh_broken(coh, COH_BROKEN_DONE_EARLY) && p->granted))
		request_done(coh, p, 0, out);
	pending_again(coh, p, out);
}

/* All acks are here: the right to write begins now. */
static void write_begins(struct coh *coh, struct coh_pending *p, struct coh_out *out)
{
	coh_act(out, COH_PROTECT, p->gpn, COH_WRITE);
	coh_page_set(coh, p->gpn, COH_WRITE, false);
	request_complete(coh, p, out);
}

/* Who may read waits for none: there the number says how many have the page. */
static uint32_t acks_of(const struct coh_msg *grant)
{
	return grant->type == COH_GRANT_READ ? 0 : grant->acks;
}

/* With the page comes one that was not told to drop it: who sends it. */
static uint32_t sharers_of(const struct coh_msg *grant)
{
	return grant->acks + (grant->type == COH_GRANT_WRITE && (grant->flags & COH_MSG_DATA));
}

static bool grant_valid(const struct coh *coh, const struct coh_pending *p,
			const struct coh_msg *msg)
{
	enum coh_access access = coh->page[msg->gpn].access;
	bool write = msg->type == COH_GRANT_WRITE;

	if (!p || p->phase != PENDING_SENT || p->seq != msg->seq || p->granted ||
	    msg->requester != coh->config.self)
		return false;
	/* No transaction was begun: only who was asked says so, be it home still or not. */
	if (msg->type == COH_GRANT_NONE && !(msg->flags & COH_MSG_REFUSED))
		return p->ahead && !msg->acks && msg->src == p->home;
	if (!coh_home_grants(coh, msg))
		return false;
	if (msg->acks >= coh->config.node_count || (acks_of(msg) && p->want != COH_WRITE) ||
	    (!coh->config.broken && p->acks_got > acks_of(msg)))
		return false;
	if (msg->type == COH_GRANT_NONE)
		return p->ahead && !msg->acks;
	switch (msg->flags) {
	case COH_MSG_ZERO:
		return write && access == COH_NONE && !msg->acks;
	case COH_MSG_COPY:
		return access >= p->want || (write && access == COH_READ) ||
		       coh_broken(coh, COH_BROKEN_UPGRADE_BLIND);
	case COH_MSG_DATA:
		return (write ? p->want == COH_WRITE || p->own : p->want == COH_READ) &&
		       access == COH_NONE && msg->src != coh->config.self;
	default:
		return false;
	}
}

/* GRANT_WRITE whose acks are still out: readers may go on with the copy. */
static void grant_early(struct coh *coh, struct coh_pending *p, const struct coh_msg *msg,
			struct coh_out *out)
{
	p->granted = true;
	if (msg->flags & COH_MSG_DATA) {
		coh_act(out, COH_INSTALL_DATA, p->gpn, COH_READ);
		coh_page_set(coh, p->gpn, COH_READ, false);
		coh_satisfy(coh, p->gpn, out);
	}
	if (coh_broken(coh, COH_BROKEN_DONE_EARLY))
		request_done(coh, p, 0, out);
}

static void grant_install(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	enum coh_access access = msg->type == COH_GRANT_WRITE ? COH_WRITE : COH_READ;

	if (msg->flags & COH_MSG_COPY) {
		if (coh->page[msg->gpn].access >= access)
			return;
		coh_act(out, COH_PROTECT, msg->gpn, access);
	} else {
		coh_act(out, msg->flags & COH_MSG_DATA ? COH_INSTALL_DATA : COH_INSTALL_ZERO,
			msg->gpn, access);
	}
	coh_page_set(coh, msg->gpn, access, false);
}

int coh_grant(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_pending *p = pending_at(coh, msg->gpn);

	if (!grant_valid(coh, p, msg))
		return -EPROTO;
	if (msg->src != coh->config.self)
		p->remote = true;
	if (msg->type == COH_GRANT_NONE) {
		if (msg->flags & COH_MSG_REFUSED)
			request_done(coh, p, COH_MSG_REFUSED, out);
		pending_again(coh, p, out);
		return 0;
	}
	if (msg->waited_ns > p->waited_ns)
		p->waited_ns = msg->waited_ns;
	p->data = msg->flags & COH_MSG_DATA;
	p->upgrade = msg->flags & COH_MSG_COPY;
	p->acks_needed = acks_of(msg);
	p->sharers = sharers_of(msg);
	if (p->acks_got < p->acks_needed && !coh_broken(coh, COH_BROKEN_ACK_FORGOTTEN)) {
		grant_early(coh, p, msg, out);
		return 0;
	}
	grant_install(coh, msg, out);
	request_complete(coh, p, out);
	return 0;
}

int coh_ack(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_pending *p = pending_at(coh, msg->gpn);

	if (!p || p->phase != PENDING_SENT || p->seq != msg->seq || p->want != COH_WRITE ||
	    msg->requester != coh->config.self || coh_bit(p->ack_from, msg->src) ||
	    (p->granted && p->acks_got >= p->acks_needed) || !coh_home_acks(coh, msg))
		return coh_broken(coh, COH_BROKEN_ACK_FORGOTTEN) ? 0 : -EPROTO;
	coh_bit_set(p->ack_from, msg->src);
	p->acks_got++;
	if (msg->src != coh->config.self)
		p->remote = true;
	if (msg->waited_ns > p->waited_ns)
		p->waited_ns = msg->waited_ns;
	if (p->granted && p->acks_got == p->acks_needed)
		write_begins(coh, p, out);
	return 0;
}

int coh_not_home(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	struct coh_pending *p = pending_at(coh, msg->gpn);
	bool news = msg->version > coh->chunk[chunk].version && !coh->chunk[chunk].dir;
	uint16_t home = news ? msg->node : coh->chunk[chunk].home;

	if (!p || p->phase != PENDING_SENT || p->seq != msg->seq || p->granted || p->acks_got ||
	    p->home != msg->src || !coh_chunk_learnable(coh, chunk, msg->node, msg->version))
		return -EPROTO;
	/* It sends us back to itself. Unless it means the registrar, or the chunk came back to it since we
	 * asked, a correct node never does. */
	if (home == msg->src && msg->src != coh->config.self &&
	    !(coh->changed && msg->version > p->version))
		return -EPROTO;
	coh_chunk_learn_from(coh, msg, out);
	pending_send(coh, p, out);
	return 0;
}
