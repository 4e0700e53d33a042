// SPDX-License-Identifier: Apache-2.0
/*
 * Where the simulated pod's pages are.
 *
 * A stall changes the page's place at once and holds it until the grant has come and the hold is
 * over, so that others wait. A node's memory is bounded; a page too many, any one of it, is dropped
 * if it is a copy, and else pushed to the node with most room.
 */
#include "bench/placement_world_state.h"

#define COME_NS 2000000u

static bool has(const struct page *page, uint16_t node)
{
	return page->owner == node || page->sharers >> node & 1;
}

/* The page changes its owner, or gets its first. */
static void own(struct world *w, uint16_t node, uint32_t number)
{
	struct page *page = &w->page[number];
	struct residents *r;

	if (page->owner != NODE_NONE) {
		r = &w->owned[page->owner];
		r->page[page->index] = r->page[--r->count];
		w->page[r->page[page->index]].index = page->index;
	} else {
		page->home = node;
	}
	r = &w->owned[node];
	page->owner = node;
	page->index = r->count;
	r->page[r->count++] = number;
}

static void copy_in(struct world *w, uint16_t node, uint32_t number)
{
	struct residents *r = &w->copies[node];

	w->page[number].sharers |= 1ull << node;
	w->here[node]++;
	if (r->count == r->capacity) {
		/* Copies that came twice stay twice; the list has room for many. */
		uint32_t kept = 0;

		for (uint32_t i = 0; i < r->count; i++) {
			if (w->page[r->page[i]].sharers >> node & 1)
				r->page[kept++] = r->page[i];
		}
		r->count = kept;
	}
	if (r->count < r->capacity)
		r->page[r->count++] = number;
}

static uint16_t roomiest(const struct world *w, uint16_t not )
{
	uint16_t best = not == 0 ? 1 : 0;

	for (uint16_t i = 0; i < w->config.node_count; i++) {
		if (i != not &&w->here[i] < w->here[best])
			best = i;
	}
	return best;
}

/* A copy less, if the one that is drawn is still here. False: it was `keep`, which stays, and is
 * no longer in the list. */
static bool drop_copy(struct world *w, uint16_t node, uint32_t keep)
{
	struct residents *copies = &w->copies[node];
	uint32_t at = rng_below(&w->rng, copies->count), number = copies->page[at];

	copies->page[at] = copies->page[--copies->count];
	if (number == keep)
		return false;
	if (w->page[number].sharers >> node & 1) {
		w->page[number].sharers &= ~(1ull << node);
		w->here[node]--;
	}
	return true;
}

/* Messages: those of docs/protocol.md, as far as they go from one node to another. */

void world_message(struct world *w, uint16_t from, uint16_t to)
{
	w->result->message_count += from != to;
}

/* Request, FWD, grant and DONE. */
static void count_grant(struct world *w, const struct page *page, uint16_t from, uint16_t to)
{
	world_message(w, to, page->home);
	world_message(w, page->home, from);
	world_message(w, from, to);
	world_message(w, to, page->home);
}

/* INVALIDATE and its ack, of every copy but those of two nodes. */
static void count_invalidates(struct world *w, const struct page *page, uint16_t to, uint16_t but)
{
	uint64_t sharers = page->sharers | 1ull << page->owner;

	for (uint64_t left = sharers & ~(1ull << to) & ~(1ull << but); left; left &= left - 1) {
		uint16_t node = (uint16_t)__builtin_ctzll(left);

		world_message(w, page->home, node);
		world_message(w, node, to);
	}
}

/* PUSH_REQ, PUSH_GO, PUSH_DATA, DONE. */
static void count_push(struct world *w, const struct page *page, uint16_t from, uint16_t to)
{
	world_message(w, from, page->home);
	world_message(w, page->home, from);
	world_message(w, from, to);
	world_message(w, to, page->home);
}

static void push_owned(struct world *w, uint16_t node, uint32_t keep)
{
	struct residents *owned = &w->owned[node];
	uint32_t number = owned->page[rng_below(&w->rng, owned->count)];
	uint64_t sharers = w->page[number].sharers;
	uint16_t to = sharers ? (uint16_t)__builtin_ctzll(sharers) : roomiest(w, node);

	if (number == keep)
		return;
	count_push(w, &w->page[number], node, to);
	w->here[node]--;
	w->here[to] += sharers == 0;
	w->page[number].sharers &= ~(1ull << to);
	own(w, to, number);
}

/* Copies go first. */
static void evict(struct world *w, uint16_t node, uint32_t keep)
{
	struct residents *copies = &w->copies[node];
	bool kept = false;

	while (w->here[node] > w->config.node_pages) {
		if (copies->count > 0)
			kept |= !drop_copy(w, node, keep);
		else if (w->owned[node].count > 1)
			push_owned(w, node, keep);
		else
			break;
	}
	if (kept)
		copies->page[copies->count++] = keep;
}

static void drop_sharers(struct world *w, struct page *page, uint16_t but)
{
	for (uint64_t left = page->sharers; left; left &= left - 1) {
		uint16_t node = (uint16_t)__builtin_ctzll(left);

		if (node != but)
			w->here[node]--;
	}
	page->sharers = 0;
}

/* Read-ahead: the pages behind this one, if they lie at the same owner, twice as many each time. */
static uint64_t read_ahead(struct world *w, struct vcpu *v, uint32_t number, uint16_t owner)
{
	uint64_t ns = 0;

	v->ahead_count = number == v->ahead_page ? 2 * v->ahead_count + 1 : 0;
	if (v->ahead_count > 128)
		v->ahead_count = 128;
	v->ahead_page = number + 1;
	for (uint32_t i = 0; i < v->ahead_count; i++) {
		struct page *page = &w->page[v->ahead_page];

		if (v->ahead_page >= w->page_count || page->owner != owner || has(page, v->node))
			break;
		count_grant(w, page, owner, v->node);
		copy_in(w, v->node, v->ahead_page++);
		ns += w->config.costs.ahead_ns;
	}
	return ns;
}

/* A copy, or the page itself to be written, and what that takes. Somebody has it. */
static uint64_t take(struct world *w, uint16_t node, uint32_t number, bool write)
{
	const struct world_costs *costs = &w->config.costs;
	struct page *page = &w->page[number];
	bool copy = has(page, node);
	uint64_t ns = copy ? costs->upgrade_ns : costs->stall_ns;
	uint32_t others = (uint32_t)__builtin_popcountll(page->sharers & ~(1ull << node));

	if (!write) {
		count_grant(w, page, page->owner, node);
		copy_in(w, node, number);
		return ns;
	}
	w->here[page->owner] -= page->owner != node;
	/* With a copy all it needs is the home's word. */
	count_grant(w, page, copy ? page->home : page->owner, node);
	count_invalidates(w, page, node, copy ? node : page->owner);
	if (others > 1)
		ns += (others - 1) * costs->sharer_ns;
	drop_sharers(w, page, node);
	if (page->owner != node)
		own(w, node, number);
	w->here[node] += !copy;
	return ns;
}

static bool lacks(const struct page *page, uint16_t node, bool write)
{
	return write ? page->owner != node || page->sharers != 0 : !has(page, node);
}

/* How many nodes but this one have the page. */
static uint16_t others_with(const struct page *page, uint16_t node)
{
	uint64_t nodes = page->sharers;

	if (page->owner != NODE_NONE)
		nodes |= 1ull << page->owner;
	return (uint16_t)__builtin_popcountll(nodes & ~(1ull << node));
}

/* It was asked for when the vCPU came, and is not there yet. */
static bool comes(const struct page *page, uint16_t node, uint64_t now_ns)
{
	return page->comes_to == node && page->comes_ns > now_ns;
}

/*
 * "Come": the owner says with the page that it has only just taken it from another node itself, to
 * write, and not for the first time. The stall is told as one so many times as long.
 */
static void come(struct world *w, struct vcpu *v, const struct touch *touch, uint16_t owner,
		 uint64_t ns)
{
	struct page *page = &w->page[touch->page];
	bool soon = v->at_ns - page->written_ns < COME_NS;
	uint64_t more_ns = (uint64_t)(w->config.come - 1) * ns;

	if (touch->write && owner != v->node) {
		page->fought = soon ? page->fought + 1 : 0;
		page->written_ns = v->at_ns;
	}
	if (soon && page->fought >= 2)
		v->stall.begin_ns -= more_ns < v->stall.begin_ns ? more_ns : v->stall.begin_ns;
}

uint64_t world_fetch(struct world *w, struct vcpu *v, const struct touch *touch)
{
	struct page *page = &w->page[touch->page];
	uint16_t owner = page->owner;
	bool copy = has(page, v->node);
	uint64_t ns;

	v->stall =
		(struct placement_stall){ .vcpu = v->index,
					  .kind = COH_STALL_ZERO,
					  .gpn = touch->page,
					  .owner = owner,
					  .sharers = others_with(page, v->node),
					  .begin_ns = v->at_ns,
					  .program = is_told(w, TOLD_PROGRAM) ? 1u + v->load : 0 };
	if (owner == NODE_NONE) {
		own(w, v->node, touch->page);
		w->here[v->node]++;
		evict(w, v->node, touch->page);
		return w->config.costs.zero_ns;
	}
	v->stall.kind = !touch->write ? COH_STALL_READ : copy ? COH_STALL_UPGRADE : COH_STALL_WRITE;
	if (!lacks(page, v->node, touch->write)) {
		v->stall.kind = touch->write ? COH_STALL_WRITE : COH_STALL_READ;
		v->stall.owner = page->came_from;
		v->stall.sharers = page->came_sharers;
		return page->comes_ns - v->at_ns + w->config.costs.lag_ns;
	}
	if (owner == v->node)
		v->stall.owner = (uint16_t)__builtin_ctzll(page->sharers);
	ns = take(w, v->node, touch->page, touch->write);
	ns += (rng_next(&v->rng) & 0xffff) * ns >> 19; /* up to an eighth more */
	if (page->held_until_ns > v->at_ns)
		ns += page->held_until_ns - v->at_ns;
	if (w->config.come)
		come(w, v, touch, owner, ns);
	if (!touch->write)
		ns += read_ahead(w, v, touch->page, owner);
	page->comes_to = NODE_NONE;
	page->held_until_ns = v->at_ns + ns + w->config.costs.hold_ns;
	evict(w, v->node, touch->page);
	return ns;
}

void world_ask_ahead(struct world *w, struct vcpu *v)
{
	uint64_t behind_ns = 0;

	if (page_hints_ask(&v->hints) == 0)
		return;
	for (uint32_t i = 0; i < v->hints.count; i++) {
		const struct page_hint *hint = &v->hints.hint[i];
		struct page *page = &w->page[hint->gpn];
		uint16_t owner = page->owner;

		if (!hint->ask || owner == NODE_NONE || !lacks(page, v->node, hint->write))
			continue;
		page->came_sharers = others_with(page, v->node);
		page->comes_ns = v->at_ns + take(w, v->node, (uint32_t)hint->gpn, hint->write) +
				 behind_ns - w->config.costs.lag_ns;
		if (page->held_until_ns > v->at_ns)
			page->comes_ns += page->held_until_ns - v->at_ns;
		page->comes_to = v->node;
		page->came_from = owner;
		/* No hold keeps it when it has come. */
		page->held_until_ns = page->comes_ns;
		behind_ns += w->config.costs.ahead_ns;
		evict(w, v->node, (uint32_t)hint->gpn);
	}
}

bool world_stalls(const struct world *w, const struct vcpu *v, const struct touch *touch)
{
	const struct page *page = &w->page[touch->page];

	return lacks(page, v->node, touch->write) || comes(page, v->node, v->at_ns);
}

void world_lay(struct world *w, uint32_t first, uint32_t count, uint16_t node)
{
	for (uint32_t i = 0; i < count; i++) {
		own(w, node, first + i);
		w->here[node]++;
	}
}
