/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's memory is finite.
 *
 * A slot is counted for every page with a copy or a request outstanding, and for every page that a
 * peer was promised room for; the sum never exceeds the capacity. Room is made by dropping
 * read-only copies that this node does not keep, oldest first, without a word; then by pushing
 * owned and kept pages to a node with room:
 *
 *   evicting node             target               home
 *   ROOM_GET(count) --------> drops copies if need be
 *            <-------- ROOM_IS(count): slots reserved
 *   PUSH_REQ(page, target) ------------------------> idle, and the sender has it? a transaction
 *            <------------------------------------- PUSH_GO (else PUSH_NO)
 *   PUSH_DATA --------------> installs
 *                             DONE ---------------> the target is owner or keeper
 *   ROOM_PUT(count) --------> what was not used
 *
 * PUSH_NO comes at once when the page is busy: somebody wants it, and will take it or not. A node
 * asks another peer when one has no room, the last giver first, then at random: as guest memory is
 * less than the sum of the nodes', a bounded number of tries finds one on average, however many
 * nodes there are.
 *
 * Never dropped or pushed: a page with a request outstanding, a taking put off, a pin. Held pages
 * are spared unless a parked actor with an older episode needs the slot, or nothing else is left.
 *
 * Progress needs room: the sum of capacities should exceed guest memory by the windows and actors
 * of all nodes. When it does not, and no peer has room, holds of the parked actors fall
 * (coherence_actor.c).
 *
 * Tested in tests/core/test_coherence_capacity.c.
 */
#include <string.h>

#include "core/coherence_state.h"

#define LOW_WATER_MAX 512u

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void list_remove(struct coh *coh, struct coh_list *list, uint64_t gpn)
{
	struct coh_page *page = coh_page_of(coh, gpn);

	if (page->prev)
		coh->page[page->prev - 1].next = page->next;
	else
		list->head = page->next;
	if (page->next)
		coh->page[page->next - 1].prev = page->prev;
	else
		list->tail = page->prev;
	page->prev = page->next = 0;
	list->count--;
}

static void list_append(struct coh *coh, struct coh_list *list, uint64_t gpn)
{
	struct coh_page *page = coh_page_of(coh, gpn);

	page->next = 0;
	page->prev = list->tail;
	if (list->tail)
		coh->page[list->tail - 1].next = (uint32_t)gpn + 1;
	else
		list->head = (uint32_t)gpn + 1;
	list->tail = (uint32_t)gpn + 1;
	list->count++;
}

static struct coh_list *list_of(struct coh *coh, const struct coh_page *page)
{
	if (page->access == COH_NONE)
		return NULL;
	if (page->access == COH_WRITE || (page->flags & PAGE_KEEPER))
		return &coh->kept;
	return &coh->copies;
}

/* The one place where a page's state changes. The page goes to the young end of its list. */
void coh_page_set(struct coh *coh, uint64_t gpn, enum coh_access access, bool keeper)
{
	struct coh_page *page = coh_page_of(coh, gpn);
	struct coh_list *list = list_of(coh, page);
	bool had = page->access != COH_NONE;

	if (list)
		list_remove(coh, list, gpn);
	if (access > page->access && coh->config.allow)
		coh->config.allow(coh->config.close_arg, gpn, access);
	if (page->access == COH_WRITE)
		coh->stats.pages_owned--;
	page->access = (uint8_t)access;
	page->stamp = ++coh->stamp;
	page->flags &= (uint8_t)~PAGE_KEEPER;
	if (keeper)
		page->flags |= PAGE_KEEPER;
	if (access == COH_WRITE)
		coh->stats.pages_owned++;
	list = list_of(coh, page);
	if (list)
		list_append(coh, list, gpn);
	else if (had && !page->pending)
		coh_slot_free(coh);
}

void coh_slot_free(struct coh *coh)
{
	coh->used--;
	coh->parked_retry = true;
}

/*
 * Who needs a slot: the oldest episode, and its node. The actor's own holds count like those of
 * older ones: at its own node `node` is NODE_NONE. Age 0: whoever holds. COH_AGE_NEVER: nobody's
 * holds are passed over.
 */
struct need {
	uint64_t age;
	uint16_t node;
};

static const struct need need_spare = { .age = COH_AGE_NEVER, .node = NODE_NONE };
static const struct need need_any = { .age = 0, .node = NODE_NONE };

static bool holds_allow(struct coh *coh, uint64_t gpn, struct need need)
{
	uint64_t deadline;

	return !need.age || !coh_held(coh, gpn, COH_NONE, need.age, need.node, &deadline);
}

static bool can_leave(struct coh *coh, uint64_t gpn, struct need need)
{
	const struct coh_page *page = coh_page_of(coh, gpn);

	if (coh_broken(coh, COH_BROKEN_DROP_REQUESTED) && page->pending && !page->taking &&
	    page->access == COH_READ && !(page->flags & PAGE_KEEPER))
		return true;
	if (page->pending || page->taking || (page->flags & PAGE_PUSHING) || coh_pinned(coh, gpn) ||
	    coh_home_asked_self(coh, gpn))
		return false;
	/* A push goes by the home; the registrar has been asked. */
	if (list_of(coh, coh_page_of(coh, gpn)) == &coh->kept &&
	    !coh_chunk_home_known(coh, gpn / CHUNK_PAGES))
		return false;
	return holds_allow(coh, gpn, need) && coh_close(coh, gpn, COH_NONE, false);
}

/*
 * A victim, looking at the oldest pages of the list: one that nobody holds, or else one that only
 * actors younger than `age` hold (0: any). Those passed over in the first round go to the young
 * end, so that a few held pages do not hide the rest. UINT64_MAX: none.
 */
static uint64_t victim_find(struct coh *coh, struct coh_list *list, struct need need)
{
	uint32_t scan = list->count < COH_SCAN ? list->count : COH_SCAN;
	uint32_t index;

	for (uint32_t i = 0; i < scan; i++) {
		uint64_t gpn = list->head - 1;

		if (can_leave(coh, gpn, need_spare))
			return gpn;
		list_remove(coh, list, gpn);
		list_append(coh, list, gpn);
	}
	if (need.age == COH_AGE_NEVER)
		return UINT64_MAX;
	index = list->head;
	for (uint32_t i = 0; i < scan; i++, index = coh->page[index - 1].next)
		if (can_leave(coh, index - 1, need))
			return index - 1;
	return UINT64_MAX;
}

/* How many pages leave together: few where there are few. */
static uint32_t run_most(const struct coh *coh)
{
	uint32_t run = coh->config.run ? coh->config.run : COH_RUN;
	uint32_t most = min_u32(run, coh->config.capacity / (coh->config.run ? 4 : 32));

	return most ? most : 1;
}

/*
 * Whether a neighbour of a victim may leave with it: nobody holds it, and it did not come lately.
 * The list's order is that of the last change, so pages that came together are old together.
 */
static bool leaves_along(struct coh *coh, const struct coh_list *list, uint64_t gpn)
{
	const struct coh_page *page = coh_page_of(coh, gpn);

	return list_of(coh, page) == list && coh->stamp - page->stamp >= list->count / 2 &&
	       (can_leave(coh, gpn, need_spare) ||
		(coh_broken(coh, COH_BROKEN_RUN_BLIND) && !(page->flags & PAGE_PUSHING)));
}

/* The run of pages that leave with the victim: its first page, and *ret_count of at most `most`. */
static uint64_t run_around(struct coh *coh, const struct coh_list *list, uint64_t victim,
			   uint32_t most, uint32_t *ret_count)
{
	uint64_t begin = victim / CHUNK_PAGES * CHUNK_PAGES, end = begin + CHUNK_PAGES;
	uint64_t first = victim, last = victim;

	while (last + 1 < end && last + 1 < coh->config.gpn_limit && last - first + 1 < most &&
	       leaves_along(coh, list, last + 1))
		last++;
	while (first > begin && last - first + 1 < most && leaves_along(coh, list, first - 1))
		first--;
	*ret_count = (uint32_t)(last - first + 1);
	return first;
}

static void copy_drop_page(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	coh_holds_forget(coh, gpn);
	coh_give_up(coh, gpn, out);
	coh->stats.evict_drop_count++;
}

/* Drops a copy, and its neighbours: the next who needs a slot finds one. */
static bool copy_drop(struct coh *coh, struct need need, struct coh_out *out)
{
	uint64_t gpn = victim_find(coh, &coh->copies, need);
	uint32_t count;

	if (gpn == UINT64_MAX)
		return false;
	gpn = run_around(coh, &coh->copies, gpn, run_most(coh), &count);
	for (uint32_t i = 0; i < count; i++)
		copy_drop_page(coh, gpn + i, out);
	return true;
}

static uint64_t oldest_parked_age(const struct coh *coh)
{
	uint64_t age = COH_AGE_NEVER;

	if (!coh->parked_count)
		return age;
	for (uint32_t i = 0; i < coh->config.actor_count; i++)
		if (coh->wait[i].state == WAIT_PARKED && coh_actor_age(coh, i) < age)
			age = coh_actor_age(coh, i);
	return age;
}

/* A slot for an actor: free, or by dropping a copy; else a push is on its way and the actor parks.
 */
bool coh_slot_take(struct coh *coh, uint64_t age, struct coh_out *out)
{
	struct need need = { .age = age, .node = NODE_NONE };

	if (coh_broken(coh, COH_BROKEN_KEEPER_DROPS) && coh->used >= coh->config.capacity) {
		uint64_t gpn = victim_find(coh, &coh->kept, need_spare);

		if (gpn != UINT64_MAX)
			coh_give_up(coh, gpn, out);
	}
	if (coh->used >= coh->config.capacity && !copy_drop(coh, need, out))
		return false;
	coh->used++;
	return true;
}

/* A slot for read-ahead: leaves one for every actor. */
bool coh_slot_spare(struct coh *coh, struct coh_out *out)
{
	uint32_t keep = coh->config.actor_count;

	if (coh->used + keep >= coh->config.capacity) {
		if (coh->copies.count <= keep || !copy_drop(coh, need_spare, out))
			return false;
	}
	coh->used++;
	return true;
}

/* Somebody waits for the page, and only holds keep it. */
static bool can_be_taken(struct coh *coh, uint64_t gpn, struct need need)
{
	const struct coh_page *page = coh_page_of(coh, gpn);

	return page->taking && !page->pending && !coh_pinned(coh, gpn) &&
	       holds_allow(coh, gpn, need) && coh_close(coh, gpn, COH_NONE, false);
}

/*
 * An actor is parked for a slot and no page can be pushed: what others wait for goes to them, hold
 * or not, the oldest page first. Else the parked actor's holds and the others' requests could wait
 * for each other for ever.
 */
static bool taking_yield(struct coh *coh, struct coh_list *list, struct need need,
			 struct coh_out *out)
{
	uint32_t scan = list->count < COH_SCAN ? list->count : COH_SCAN;
	uint32_t index = list->head;

	for (uint32_t i = 0; i < scan; i++, index = coh->page[index - 1].next) {
		if (!can_be_taken(coh, index - 1, need))
			continue;
		coh_taking_serve(coh, index - 1, out);
		return true;
	}
	return false;
}

/*
 * How many slots should be there for the taking, so that a stall seldom waits for a push: what is
 * touched while a run of pages goes.
 */
static uint32_t low_water(const struct coh *coh)
{
	uint32_t low = coh->config.capacity / 64;

	return low < LOW_WATER_MAX ? low : LOW_WATER_MAX;
}

/* Slots that are free or could be at once. */
static uint32_t slots_ready(const struct coh *coh)
{
	return coh->config.capacity - coh->used + coh->copies.count;
}

/* None, or at least a run: slots that are used up one by one do not make pages leave one by one. */
static uint32_t pushes_wanted(const struct coh *coh)
{
	uint32_t want, low = low_water(coh), ready = slots_ready(coh);

	if (coh->releasing)
		return coh->kept.count > coh->push_count ? coh->kept.count - coh->push_count : 0;
	want = coh->used >= coh->config.capacity ? coh->parked_count : 0;
	if (ready < low)
		want += low - ready;
	if (want <= coh->push_count)
		return 0;
	want -= coh->push_count;
	return want > run_most(coh) ? want : run_most(coh);
}

static void push_end(struct coh *coh, struct coh_push *push)
{
	push->active = false;
	coh->push_count--;
	coh->page[push->gpn].flags &= (uint8_t)~PAGE_PUSHING;
}

/* The page goes, and is ours no more. */
static void push_data_send(struct coh *coh, struct coh_push *push, const struct coh_msg *msg,
			   struct coh_out *out)
{
	struct coh_msg data = *msg;

	data.type = COH_PUSH_DATA;
	data.flags |= COH_MSG_DATA;
	data.node = push->home;
	if (coh->page[msg->gpn].access == COH_WRITE)
		coh_act(out, COH_PROTECT, msg->gpn, COH_READ);
	coh_send_page(coh, out, push->target, &data);
	coh_holds_forget(coh, msg->gpn);
	coh_give_up(coh, msg->gpn, out);
	push_end(coh, push);
	coh->push_failures = 0;
	coh->stats.evict_push_count++;
}

static void push_start(struct coh *coh, uint64_t gpn, struct coh_out *out)
{
	struct coh_page *page = coh_page_of(coh, gpn);
	struct coh_chunk *chunk = coh_chunk_of(coh, gpn);
	struct coh_push *push = coh->push;
	struct coh_msg msg = {
		.type = COH_PUSH_REQ,
		.flags = page->access == COH_READ ? COH_MSG_KEEPER : 0,
		.requester = coh->config.self,
		.node = coh->room_node,
		.version = chunk->version,
		.gpn = gpn,
		.seq = ++coh->seq,
	};

	while (push->active)
		push++;
	*push = (struct coh_push){
		.gpn = gpn, .seq = msg.seq, .target = msg.node, .home = chunk->home, .active = true
	};
	coh->push_count++;
	coh->room_count--;
	page->flags |= PAGE_PUSHING;
	coh_send(coh, out, chunk->home, &msg);
	if (coh_broken(coh, COH_BROKEN_PUSH_UNASKED))
		push_data_send(coh, push, &msg, out);
}

static void room_give_back(struct coh *coh, uint16_t to, uint32_t count, struct coh_out *out)
{
	struct coh_msg msg = { .type = COH_ROOM_PUT, .requester = coh->config.self, .acks = count };

	coh_send(coh, out, to, &msg);
}

/* Older as a page of this node: the state changed longer ago. */
static bool page_older(const struct coh *coh, uint64_t a, uint64_t b)
{
	return (int32_t)(coh->page[a].stamp - coh->page[b].stamp) < 0;
}

/*
 * An actor is parked, and holds keep everything that could make room. Then what others wait for,
 * and only younger actors hold, goes to them; else the page that came longest ago is dropped or
 * pushed, whoever holds it: an instruction's pages are the last that came. At last even a page that
 * an older actor holds goes to who waits for it. Returns whether there was something to do.
 */
static bool relieve_parked(struct coh *coh, struct coh_out *out)
{
	struct need need = { .age = oldest_parked_age(coh), .node = NODE_NONE };
	uint64_t copy, kept = UINT64_MAX;

	if (!coh->parked_count || coh->used < coh->config.capacity)
		return false;
	if (taking_yield(coh, &coh->copies, need, out) || taking_yield(coh, &coh->kept, need, out))
		return true;
	copy = victim_find(coh, &coh->copies, need_any);
	if (coh->room_count && coh->push_count < COH_PUSHES)
		kept = victim_find(coh, &coh->kept, need_any);
	if (kept != UINT64_MAX && (copy == UINT64_MAX || page_older(coh, kept, copy))) {
		push_start(coh, kept, out);
		return true;
	}
	if (copy != UINT64_MAX) {
		copy_drop_page(coh, copy, out);
		return true;
	}
	return taking_yield(coh, &coh->copies, need_any, out) ||
	       taking_yield(coh, &coh->kept, need_any, out);
}

/*
 * A push came to nothing: its slot at the target is for the next one, or goes back. Others are
 * tried before this page is again; after a few failures only time helps.
 */
static void push_failed(struct coh *coh, struct coh_push *push, struct coh_out *out)
{
	struct coh_page *page = coh_page_of(coh, push->gpn);

	push_end(coh, push);
	if (list_of(coh, page) == &coh->kept) {
		list_remove(coh, &coh->kept, push->gpn);
		list_append(coh, &coh->kept, push->gpn);
	}
	if (++coh->push_failures >= COH_PUSHES) {
		coh->push_failures = 0;
		coh->push_retry = coh->now_ns + COH_RETRY_NS;
		relieve_parked(coh, out);
	}
	if (push->target == coh->room_node)
		coh->room_count++;
	else
		room_give_back(coh, push->target, 1, out);
}

static struct coh_push *push_find(struct coh *coh, const struct coh_msg *msg)
{
	for (uint32_t i = 0; i < COH_PUSHES; i++)
		if (coh->push[i].active && coh->push[i].gpn == msg->gpn &&
		    coh->push[i].seq == msg->seq && msg->requester == coh->config.self)
			return &coh->push[i];
	return NULL;
}

static uint16_t next_number(const struct coh *coh, uint16_t node)
{
	return (uint16_t)((node + 1) % coh->config.node_count);
}

/* Another node to ask for room: at random, not one that is leaving. */
static bool room_choose(struct coh *coh)
{
	uint32_t members = member_set_count(&coh->stay);
	uint16_t node;

	if (!members)
		return false;
	node = member_set_nth(&coh->stay, (uint32_t)(coh_random(coh) % members));

	for (uint32_t i = 0; i < coh->config.node_count; i++, node = next_number(coh, node)) {
		if (!member_set_has(&coh->stay, node) || node == coh->config.self ||
		    coh_bit(coh->leaving_nodes, node))
			continue;
		coh->room_node = node;
		return true;
	}
	return false;
}

static void room_back_off(struct coh *coh, struct coh_out *out)
{
	coh->room_tried = 0;
	coh->room_backoff = coh->room_backoff ? 2 * coh->room_backoff : COH_RETRY_NS;
	if (coh->room_backoff > COH_RETRY_NS_MAX)
		coh->room_backoff = COH_RETRY_NS_MAX;
	coh->room_retry = coh->now_ns + coh->room_backoff;
	relieve_parked(coh, out);
}

static void room_ask(struct coh *coh, uint32_t count, struct coh_out *out)
{
	struct coh_msg msg = { .type = COH_ROOM_GET,
			       .requester = coh->config.self,
			       .age = oldest_parked_age(coh),
			       .acks = count < COH_ROOM_BATCH ? count : COH_ROOM_BATCH };

	if (coh->room_asked || coh->now_ns < coh->room_retry)
		return;
	if (coh->room_node == coh->config.self && !room_choose(coh)) {
		room_back_off(coh, out);
		return;
	}
	coh->room_asked = true;
	coh_send(coh, out, coh->room_node, &msg);
}

void coh_room_leave(struct coh *coh, struct coh_out *out)
{
	if (coh->room_asked || coh->room_node == coh->config.self ||
	    member_set_has(&coh->stay, coh->room_node))
		return;
	if (coh->room_count)
		room_give_back(coh, coh->room_node, coh->room_count, out);
	coh->room_count = 0;
	coh->room_node = coh->config.self;
}

/* A victim and its neighbours, `most` at most: how many. */
static uint32_t push_run(struct coh *coh, uint32_t most, struct coh_out *out)
{
	struct need need = { .age = coh->releasing ? 0 : oldest_parked_age(coh),
			     .node = NODE_NONE };
	uint64_t gpn = victim_find(coh, &coh->kept, need);
	uint32_t count;

	if (gpn == UINT64_MAX)
		return 0;
	gpn = run_around(coh, &coh->kept, gpn, most < COH_RUN ? most : COH_RUN, &count);
	for (uint32_t i = 0; i < count; i++)
		push_start(coh, gpn + i, out);
	return count;
}

void coh_capacity_pump(struct coh *coh, struct coh_out *out)
{
	uint32_t want = pushes_wanted(coh);

	if (!want && coh->room_count && !coh->push_count) {
		room_give_back(coh, coh->room_node, coh->room_count, out);
		coh->room_count = 0;
	}
	if (coh->now_ns < coh->push_retry)
		return;
	while (want && coh->room_count && coh->push_count < COH_PUSHES && coh_room(coh, out)) {
		uint32_t most =
			min_u32(want, min_u32(coh->room_count, COH_PUSHES - coh->push_count));
		uint32_t count = push_run(coh, most, out);

		if (!count) {
			/* Nothing can leave now: look again soon. */
			if (!relieve_parked(coh, out))
				coh->push_retry = coh->now_ns + COH_RETRY_NS;
			break;
		}
		want -= count;
	}
	if (!want || coh->room_count || coh->push_count == COH_PUSHES)
		return;
	/* That nobody has room is known: who is parked need not wait for the next round. */
	if (coh->now_ns < coh->room_retry && relieve_parked(coh, out))
		return;
	/* One run ahead, or every run would wait for an answer first. */
	if (run_most(coh) > 1 && !coh->parked_count)
		want += run_most(coh);
	room_ask(coh, want, out);
}

uint64_t coh_work_deadline(const struct coh *coh, uint64_t deadline)
{
	uint64_t retry = coh->room_retry > coh->push_retry ? coh->room_retry : coh->push_retry;

	if (coh->push_count < COH_PUSHES && !coh->room_asked && pushes_wanted(coh)) {
		if (coh->room_count)
			retry = coh->push_retry;
		if (retry < deadline)
			deadline = retry;
	}
	/* Steps that only the size of the action array puts off, and a scan in parts. */
	if (coh->releasing && !coh->move.phase && coh->release_cursor < coh->chunk_count)
		deadline = 0;
	if (coh->move.phase == MOVE_SEND || coh->move.phase == MOVE_TURN ||
	    (coh->move.phase == MOVE_YIELD && coh->move.cursor < CHUNK_PAGES))
		deadline = 0;
	return deadline;
}

int coh_push_go(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_push *push = push_find(coh, msg);
	struct coh_page *page = coh_page_of(coh, msg->gpn);
	struct coh_msg done = *msg;

	if (!push || msg->src != push->home || msg->node != push->target ||
	    (msg->src != coh->config.self && coh_home_here(coh, msg->gpn)))
		return coh_broken(coh, COH_BROKEN_PUSH_UNASKED) ? 0 : -EPROTO;
	if (list_of(coh, page) != &coh->kept || page->taking ||
	    (page->access == COH_READ) != !!(msg->flags & COH_MSG_KEEPER))
		return -EPROTO;
	if (page->pending || coh_pinned(coh, msg->gpn) ||
	    !coh_close(coh, msg->gpn, COH_NONE, false)) {
		done.type = COH_DONE;
		done.flags = COH_MSG_REFUSED;
		coh_send(coh, out, push->home, &done);
		push_failed(coh, push, out);
		return 0;
	}
	push_data_send(coh, push, msg, out);
	return 0;
}

int coh_push_no(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_push *push = push_find(coh, msg);

	if (!push || msg->src != push->home ||
	    !coh_chunk_learnable(coh, msg->gpn / CHUNK_PAGES, msg->node, msg->version))
		return coh_broken(coh, COH_BROKEN_PUSH_UNASKED) ? 0 : -EPROTO;
	if (msg->type == COH_NOT_HOME)
		coh_chunk_learn_from(coh, msg, out);
	push_failed(coh, push, out);
	return 0;
}

/* A page comes that we promised room for. */
int coh_push_data(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_page *page = coh_page_of(coh, msg->gpn);
	bool kept = msg->flags & COH_MSG_KEEPER;
	bool had_slot = page->access != COH_NONE || page->pending;
	struct coh_msg done = *msg;

	if (msg->requester != msg->src || !coh->credit[msg->src] || page->taking ||
	    list_of(coh, page) == &coh->kept || (!kept && page->access != COH_NONE) ||
	    !coh_home_pushes(coh, msg) ||
	    !coh_chunk_believable(coh, msg->gpn / CHUNK_PAGES, msg->node, msg->version))
		return -EPROTO;
	coh_chunk_learn(coh, msg->gpn / CHUNK_PAGES, msg->node, msg->version);
	coh->credit[msg->src]--;
	coh->credit_total--;
	if (page->access == COH_NONE)
		coh_act(out, COH_INSTALL_DATA, msg->gpn, kept ? COH_READ : COH_WRITE);
	coh_page_set(coh, msg->gpn, kept ? COH_READ : COH_WRITE, kept);
	if (had_slot)
		coh_slot_free(coh);
	coh_satisfy(coh, msg->gpn, out);
	done.type = COH_DONE;
	done.flags = 0;
	coh_send(coh, out, msg->node, &done);
	return 0;
}

/*
 * To who asks with free slots in mind, what is to spare; to an actor that is parked, also the
 * copies that only younger actors hold here, unless an older one is parked here itself.
 */
static bool room_to_give(const struct coh *coh, struct need need)
{
	if (coh->releasing)
		return false;
	if (need.age == COH_AGE_NEVER)
		return !coh->parked_count && slots_ready(coh) > low_water(coh);
	return slots_ready(coh) && (!coh->parked_count || need.age < oldest_parked_age(coh));
}

/*
 * Half of what is to spare: who gives all would soon push as many pages itself, perhaps back to
 * where they came from. So a node that pushes a run has used as many slots since its last one.
 */
static uint32_t room_most(const struct coh *coh, const struct coh_msg *msg)
{
	uint32_t ready = slots_ready(coh), low = low_water(coh);

	if (msg->age != COH_AGE_NEVER || ready <= low)
		return msg->acks;
	return min_u32(msg->acks, (ready - low + 1) / 2);
}

int coh_room_get(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_msg reply = { .type = COH_ROOM_IS, .requester = msg->src };
	struct need need = { .age = msg->age, .node = msg->src };
	uint32_t most;

	if (msg->requester != msg->src || !msg->acks || msg->acks > COH_ROOM_BATCH || !msg->age ||
	    coh->credit[msg->src] > 2 * COH_ROOM_BATCH)
		return -EPROTO;
	if (coh->releasing)
		reply.flags = COH_MSG_LEAVING;
	most = room_most(coh, msg);
	while (reply.acks < most && room_to_give(coh, need)) {
		if (coh->used >= coh->config.capacity && !copy_drop(coh, need, out))
			break;
		coh->used++;
		coh->credit[msg->src]++;
		coh->credit_total++;
		reply.acks++;
	}
	coh_send(coh, out, msg->src, &reply);
	return 0;
}

int coh_room_is(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	if (!coh->room_asked || msg->src != coh->room_node || msg->requester != coh->config.self ||
	    msg->acks > COH_ROOM_BATCH)
		return -EPROTO;
	coh->room_asked = false;
	/* Where there is a list it says who leaves: this may come when he stays after all. */
	if ((msg->flags & COH_MSG_LEAVING) && !coh->changed)
		coh_bit_set(coh->leaving_nodes, msg->src);
	if (msg->acks) {
		coh->room_count += msg->acks;
		coh->room_tried = 0;
		coh->room_backoff = 0;
		coh_room_leave(coh, out);
		return 0;
	}
	/* Slots that failed pushes gave back are there. */
	if (coh->room_count) {
		coh_room_leave(coh, out);
		return 0;
	}
	if (!room_choose(coh) || ++coh->room_tried >= member_set_count(&coh->stay))
		room_back_off(coh, out);
	return 0;
}

int coh_room_put(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	if (msg->requester != msg->src || !msg->acks || msg->acks > coh->credit[msg->src])
		return -EPROTO;
	coh->credit[msg->src] -= msg->acks;
	coh->credit_total -= msg->acks;
	coh->used -= msg->acks;
	coh->parked_retry = true;
	return 0;
}
