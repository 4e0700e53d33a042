/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder: what a node does when the home wants a page or its copy back (a *taking*).
 *
 * A taking is served at once unless a hold of a local actor stands against it (coherence_actor.c);
 * then it is put off, and looked at again when the hold may have ended, when NUDGE brings an older
 * age, at an unpin, and when the actor stalls on that very page. So is one of a page that a device has
 * pinned without a word (coh_config.close), until that ends. As the home runs one transaction
 * per page there is at most one taking per page. A hold for reading does not stand against
 * FWD_READ.
 *
 * Takings that were put off are in a heap by the time they are due, then by page number, so that
 * equal times come in one order everywhere.
 *
 * Tested in tests/core/test_coherence_hold.c.
 */
#include "core/coherence_state.h"

static bool due_before(const struct coh *coh, uint32_t a, uint32_t b)
{
	const struct coh_taking *x = &coh->taking[a - 1], *y = &coh->taking[b - 1];

	return x->deadline != y->deadline ? x->deadline < y->deadline : x->msg.gpn < y->msg.gpn;
}

static void heap_put(struct coh *coh, uint32_t at, uint32_t index)
{
	coh->heap[at] = index;
	coh->taking[index - 1].heap = at + 1;
}

static void heap_settle(struct coh *coh, uint32_t at)
{
	uint32_t index = coh->heap[at];

	for (; at && due_before(coh, index, coh->heap[(at - 1) / 2]); at = (at - 1) / 2)
		heap_put(coh, at, coh->heap[(at - 1) / 2]);
	for (uint32_t child; (child = 2 * at + 1) < coh->heap_count; at = child) {
		if (child + 1 < coh->heap_count &&
		    due_before(coh, coh->heap[child + 1], coh->heap[child]))
			child++;
		if (!due_before(coh, coh->heap[child], index))
			break;
		heap_put(coh, at, coh->heap[child]);
	}
	heap_put(coh, at, index);
}

static void heap_remove(struct coh *coh, struct coh_taking *t)
{
	uint32_t at = t->heap - 1;
	uint32_t last = coh->heap[--coh->heap_count];

	t->heap = 0;
	if (at == coh->heap_count)
		return;
	heap_put(coh, at, last);
	heap_settle(coh, at);
}

static enum coh_access access_after(const struct coh_msg *msg)
{
	return msg->type == COH_FWD_READ ? COH_READ : COH_NONE;
}

void coh_give_up(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	coh_holds_lose(coh, gpn, COH_NONE);
	if (coh->page[gpn].access == COH_NONE)
		return;
	if (!coh_broken(coh, COH_BROKEN_OWNER_KEEPS_READ))
		coh_act(out, COH_PROTECT, gpn, COH_NONE);
	coh_page_set(coh, gpn, COH_NONE, false);
}

static void serve_forward(struct coh *coh, const struct coh_msg *msg, uint64_t waited_ns,
			  struct coh_out *out)
{
	struct coh_page *page = coh_page_of(coh, msg->gpn);
	bool write = msg->type == COH_FWD_WRITE;
	struct coh_msg grant = {
		.type = write ? COH_GRANT_WRITE : COH_GRANT_READ,
		.flags = COH_MSG_DATA,
		.requester = msg->requester,
		.acks = msg->acks,
		.version = msg->version,
		.gpn = msg->gpn,
		.seq = msg->seq,
		.waited_ns = waited_ns,
	};

	if (page->access == COH_WRITE) {
		if (write || !coh_broken(coh, COH_BROKEN_OWNER_KEEPS_WRITE))
			coh_act(out, COH_PROTECT, msg->gpn, COH_READ);
		coh_holds_lose(coh, msg->gpn, COH_READ);
		coh_page_set(coh, msg->gpn, COH_READ, true);
	}
	coh_send_page(coh, out, msg->requester, &grant);
	if (write)
		coh_give_up(coh, msg->gpn, out);
}

static void serve(struct coh *coh, const struct coh_msg *msg, uint64_t deferred_ns,
		  struct coh_out *out)
{
	uint64_t waited_ns = msg->waited_ns + deferred_ns;

	if (msg->type == COH_INVALIDATE) {
		struct coh_msg ack = {
			.type = COH_INVALIDATE_ACK,
			.requester = msg->requester,
			.version = msg->version,
			.gpn = msg->gpn,
			.seq = msg->seq,
			.waited_ns = waited_ns,
		};

		coh_give_up(coh, msg->gpn, out);
		coh_send(coh, out, msg->requester, &ack);
		return;
	}
	serve_forward(coh, msg, waited_ns, out);
}

static void taking_end(struct coh *coh, struct coh_taking *t)
{
	heap_remove(coh, t);
	coh->takings_remote -= t->msg.src != coh->config.self;
	coh->page[t->msg.gpn].taking = 0;
	t->next = coh->taking_free;
	coh->taking_free = (uint32_t)(t - coh->taking) + 1;
}

static void taking_now(struct coh *coh, struct coh_taking *t, struct coh_out *out)
{
	struct coh_msg msg = t->msg;
	uint64_t since_ns = t->since_ns;

	taking_end(coh, t);
	serve(coh, &msg, coh->now_ns - since_ns, out);
}

/* Whether the page must stay for now; *ret_deadline: when to look again. Else nobody pins it now. */
static bool stays(struct coh *coh, const struct coh_msg *msg, uint64_t age, uint16_t node,
		  uint64_t *ret_deadline)
{
	if (coh_held(coh, msg->gpn, access_after(msg), age, node, ret_deadline))
		return true;
	*ret_deadline = coh->now_ns + COH_PINNED_NS;
	return !coh_close(coh, msg->gpn, access_after(msg), !(msg->flags & COH_MSG_AHEAD));
}

/* Look at a taking that was put off again: serve it, or move its time. */
static void taking_judge(struct coh *coh, struct coh_taking *t, struct coh_out *out)
{
	if (stays(coh, &t->msg, t->prio_age, t->prio_node, &t->deadline))
		heap_settle(coh, t->heap - 1);
	else
		taking_now(coh, t, out);
}

static void taking_put_off(struct coh *coh, const struct coh_msg *msg, uint64_t deadline)
{
	struct coh_taking *t;
	uint32_t index;

	if (!coh->taking_free)
		coh->taking_free = ++coh->taking_used;
	index = coh->taking_free;
	t = &coh->taking[index - 1];
	coh->taking_free = t->next;
	*t = (struct coh_taking){
		.msg = *msg,
		.prio_age = msg->age,
		.prio_node = msg->requester,
		.since_ns = coh->now_ns,
		.deadline = deadline,
	};
	coh->takings_remote += msg->src != coh->config.self;
	coh->page[msg->gpn].taking = index;
	coh->stats.deferred_count++;
	coh->heap[coh->heap_count] = index;
	t->heap = ++coh->heap_count;
	heap_settle(coh, t->heap - 1);
}

static bool take_valid(const struct coh *coh, const struct coh_msg *msg)
{
	const struct coh_page *page = &coh->page[msg->gpn];
	bool keeps = page->access == COH_WRITE || (page->flags & PAGE_KEEPER);
	bool local = msg->src == coh->config.self;

	if (msg->requester == coh->config.self)
		return false;
	if (page->taking ||
	    (!local && coh->takings_remote >= coh->config.node_count * coh->config.window) ||
	    !coh_chunk_believable(coh, msg->gpn / CHUNK_PAGES, msg->src, msg->version))
		return false;
	if (msg->acks >= coh->config.node_count || (msg->acks && msg->type == COH_INVALIDATE))
		return false;
	switch (msg->type) {
	case COH_FWD_READ:
		return keeps || (local && page->access == COH_READ);
	case COH_FWD_WRITE:
		return keeps;
	default:
		return page->access != COH_WRITE;
	}
}

int coh_take(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	uint64_t deadline;

	if (!take_valid(coh, msg))
		return -EPROTO;
	coh_chunk_learn(coh, msg->gpn / CHUNK_PAGES, msg->src, msg->version);
	if (!stays(coh, msg, msg->age, msg->requester, &deadline)) {
		serve(coh, msg, 0, out);
		return 0;
	}
	if (msg->flags & COH_MSG_AHEAD) {
		struct coh_msg none = {
			.type = COH_GRANT_NONE,
			.flags = COH_MSG_REFUSED,
			.requester = msg->requester,
			.version = msg->version,
			.gpn = msg->gpn,
			.seq = msg->seq,
		};

		if (msg->src == coh->config.self)
			coh_home_refused_self(coh, msg->gpn);
		coh_send(coh, out, msg->requester, &none);
		return 0;
	}
	taking_put_off(coh, msg, deadline);
	return 0;
}

int coh_nudge(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	uint32_t index = coh->page[msg->gpn].taking;
	struct coh_taking *t;

	if (!index)
		return 0;
	t = &coh->taking[index - 1];
	if (t->msg.src != msg->src || t->msg.requester != msg->requester ||
	    t->msg.seq != msg->seq || !coh_older(msg->age, msg->node, t->prio_age, t->prio_node))
		return 0;
	t->prio_age = msg->age;
	t->prio_node = msg->node;
	taking_judge(coh, t, out);
	return 0;
}

void coh_taking_again(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	if (coh->page[gpn].taking)
		taking_judge(coh, &coh->taking[coh->page[gpn].taking - 1], out);
}

void coh_taking_serve(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	taking_now(coh, &coh->taking[coh->page[gpn].taking - 1], out);
}

void coh_takings_due(struct coh *coh, struct coh_out *out)
{
	while (coh->heap_count && coh_room(coh, out)) {
		struct coh_taking *t = &coh->taking[coh->heap[0] - 1];

		if (t->deadline > coh->now_ns)
			return;
		taking_judge(coh, t, out);
	}
}
