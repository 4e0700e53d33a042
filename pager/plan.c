/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: see plan.h. Tested through the pager (tests/memory/test_pager.c, tests/podmem).
 */
#include "pager/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/*
 * Pages in a frame before it is sent: more in one would have the peer wait for the last of them
 * before it installs the first, and the two sides would work in turn instead of side by side
 * (8 to 256 were measured: 32 is the best of them).
 */
#define PLAN_PAGES_MAX 32u

/* Messages that nobody waits for are few, or the home's pages stay busy too long. */
#define PLAN_LAZY_MAX 128u

int plan_init(struct plan *plan, struct guest_memory *memory, uint32_t shard, uint16_t node_count)
{
	*plan = (struct plan){
		.memory = memory, .shard = shard, .peer_count = node_count, .failed_node = NODE_NONE
	};
	plan->peer = calloc(node_count, sizeof(*plan->peer));
	return plan->peer ? 0 : -ENOMEM;
}

void plan_fini(struct plan *plan)
{
	free(plan->peer);
	plan->peer = NULL;
}

static int take_run(struct plan *plan)
{
	const void *data;
	int error = guest_memory_take(plan->memory, plan->gpn, plan->count, &data);

	if (error < 0)
		return error;
	for (uint32_t i = 0; i < plan->count; i++)
		plan->slot[i].frame->page[plan->slot[i].index] =
			(const uint8_t *)data + (size_t)i * PAGE_BYTES;
	return 0;
}

int plan_settle(struct plan *plan)
{
	enum plan_op op = plan->op;
	int error = 0;

	plan->op = PLAN_IDLE;
	switch (op) {
	case PLAN_IDLE:
		return 0;
	case PLAN_LOWER:
	case PLAN_RAISE:
		error = guest_memory_protect(plan->memory, plan->gpn, plan->count,
					     op == PLAN_LOWER ? COH_READ : COH_WRITE, plan->wake);
		break;
	case PLAN_DROP:
		error = guest_memory_drop(plan->memory, plan->gpn, plan->count);
		break;
	case PLAN_TAKE:
		error = take_run(plan);
		break;
	case PLAN_INSTALL_READ:
	case PLAN_INSTALL_WRITE:
		error = guest_memory_install(plan->memory, plan->gpn, plan->count, plan->data,
					     op == PLAN_INSTALL_READ ? COH_READ : COH_WRITE,
					     plan->wake);
		break;
	}
	if (error < 0)
		plan->failed_node = NODE_NONE;
	else if (plan->lost && (op == PLAN_DROP || op == PLAN_TAKE))
		plan->lost(plan->lost_arg, plan->gpn << PAGE_SHIFT,
			   (uint64_t)plan->count << PAGE_SHIFT);
	return error;
}

static int send_frame(struct plan *plan, uint16_t to)
{
	struct plan_peer *peer = &plan->peer[to];
	int error = peer->channel->ops->send(peer->channel, &peer->frame);

	plan->pages_sent += peer->frame.page_count;
	peer->frame.message_count = 0;
	peer->frame.page_count = 0;
	peer->eager = false;
	if (error < 0)
		plan->failed_node = to;
	return error;
}

bool plan_has_lazy(const struct plan *plan)
{
	return plan->dirty_count > 0;
}

int plan_flush(struct plan *plan, bool idle)
{
	uint32_t left = 0;
	int error = plan_settle(plan);

	for (uint32_t i = 0; error == 0 && i < plan->dirty_count; i++) {
		uint16_t to = plan->dirty[i];

		if (idle || plan->peer[to].eager)
			error = send_frame(plan, to);
		else
			plan->dirty[left++] = to;
	}
	if (error < 0)
		return error;
	plan->dirty_count = left;
	plan->staged_count = 0;
	error = guest_memory_recycle(plan->memory, plan->shard);
	if (error < 0)
		plan->failed_node = NODE_NONE;
	return error;
}

/* Makes gpn's operation the end of the run, or settles the run and begins another. */
static int extend(struct plan *plan, enum plan_op op, uint64_t gpn, const uint8_t *data)
{
	bool next = plan->op == op && gpn == plan->gpn + plan->count &&
		    plan->count < FRAME_MESSAGES_MAX &&
		    guest_memory_run(plan->memory, plan->gpn, plan->count + 1) > plan->count;
	int error;

	if (next && (op == PLAN_INSTALL_READ || op == PLAN_INSTALL_WRITE))
		next = plan->data ? data == plan->data + (size_t)plan->count * PAGE_BYTES : !data;
	if (next) {
		plan->count++;
		return 0;
	}
	error = plan_settle(plan);
	if (error < 0)
		return error;
	plan->op = op;
	plan->gpn = gpn;
	plan->count = 1;
	plan->data = data;
	plan->wake = false;
	return 0;
}

/* A frame points to gpn's content in guest memory: it must leave before that changes. */
static int unstage(struct plan *plan, uint64_t gpn)
{
	for (uint32_t i = 0; i < plan->staged_count; i++)
		if (plan->staged[i] == gpn)
			return plan_flush(plan, true);
	return 0;
}

int plan_send(struct plan *plan, uint16_t to, const struct coh_msg *msg)
{
	struct page_frame *frame;

	assert(to < plan->peer_count && plan->peer[to].channel);
	frame = &plan->peer[to].frame;
	if (frame->message_count == FRAME_MESSAGES_MAX) {
		int error = plan_flush(plan, true);

		if (error < 0)
			return error;
	}
	if (frame->message_count == 0)
		plan->dirty[plan->dirty_count++] = to;
	frame->message[frame->message_count++] = *msg;
	if (msg->type != COH_DONE || frame->message_count >= PLAN_LAZY_MAX)
		plan->peer[to].eager = true;
	return 0;
}

int plan_send_page(struct plan *plan, uint16_t to, const struct coh_msg *msg)
{
	struct page_frame *frame = &plan->peer[to].frame;
	int error = 0;

	if (plan->staged_count == FRAME_MESSAGES_MAX)
		error = plan_flush(plan, true);
	if (error == 0)
		error = plan_send(plan, to, msg);
	if (error < 0)
		return error;
	frame->page[frame->page_count++] = guest_memory_hva(plan->memory, msg->gpn << PAGE_SHIFT);
	plan->staged[plan->staged_count++] = msg->gpn;
	return frame->page_count < PLAN_PAGES_MAX ? 0 : plan_flush(plan, false);
}

/* Pages that a run is going to take are not yet out. */
static uint32_t takes_pending(const struct plan *plan)
{
	return plan->op == PLAN_TAKE ? plan->count : 0;
}

int plan_send_last(struct plan *plan, uint16_t to, const struct coh_msg *msg)
{
	struct page_frame *frame = &plan->peer[to].frame;
	int error = unstage(plan, msg->gpn);

	if (error == 0 &&
	    (guest_memory_takeable(plan->memory, plan->shard) <= takes_pending(plan) ||
	     frame->message_count == FRAME_MESSAGES_MAX))
		error = plan_flush(plan, true);
	if (error == 0)
		error = extend(plan, PLAN_TAKE, msg->gpn, NULL);
	if (error == 0)
		error = plan_send(plan, to, msg);
	if (error < 0)
		return error;
	plan->slot[plan->count - 1] = (struct plan_slot){ frame, frame->page_count };
	frame->page[frame->page_count++] = NULL;
	return 0;
}

int plan_protect(struct plan *plan, uint64_t gpn, enum coh_access access)
{
	static const enum plan_op op[] = {
		[COH_NONE] = PLAN_DROP, [COH_READ] = PLAN_LOWER, [COH_WRITE] = PLAN_RAISE
	};
	int error = access == COH_READ ? 0 : unstage(plan, gpn);

	return error < 0 ? error : extend(plan, op[access], gpn, NULL);
}

int plan_install(struct plan *plan, uint64_t gpn, const void *data, enum coh_access access)
{
	return extend(plan, access == COH_READ ? PLAN_INSTALL_READ : PLAN_INSTALL_WRITE, gpn, data);
}

int plan_wake(struct plan *plan, uint64_t gpn)
{
	int error;

	if (plan->op != PLAN_IDLE && gpn >= plan->gpn && gpn - plan->gpn < plan->count &&
	    plan->op != PLAN_DROP && plan->op != PLAN_TAKE) {
		plan->wake = true;
		return 0;
	}
	error = plan_settle(plan);
	if (error == 0)
		error = guest_memory_wake(plan->memory, gpn, 1);
	if (error < 0)
		plan->failed_node = NODE_NONE;
	return error;
}
