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

/* The same for pages that are given up, as many as are taken in one go. */
#define PLAN_LAST_PAGES_MAX PLAN_TAKES_MAX

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

static int take_run(struct plan *plan, const struct plan_run *run)
{
	const void *data;
	int error = guest_memory_take(plan->memory, run->gpn, run->count, &data);

	if (error < 0)
		return error;
	for (uint32_t i = 0; i < run->count; i++)
		run->slot[i].frame->page[run->slot[i].index] =
			(const uint8_t *)data + (size_t)i * PAGE_BYTES;
	return 0;
}

static bool frees(const struct plan_run *run)
{
	return run->op == PLAN_DROP || run->op == PLAN_TAKE;
}

static bool shuts(const struct plan_run *run)
{
	return frees(run) || run->op == PLAN_LOWER;
}

/* The core has closed the gates of what it gives away: what a device uses is never taken. */
static void check_shut(const struct plan *plan, const struct plan_run *run)
{
	for (uint32_t i = 0; i < run->count; i++)
		assert(gate_access(plan->gates, run->gpn + i) <=
		       (frees(run) ? COH_NONE : COH_READ));
}

static void open_gates(const struct plan *plan, const struct plan_run *run)
{
	enum coh_access access = run->op == PLAN_INSTALL_READ ? COH_READ : COH_WRITE;

	for (uint32_t i = 0; i < run->count; i++)
		gate_open(plan->gates, run->gpn + i, access);
}

static int carry_out_run(struct plan *plan, const struct plan_run *run)
{
	int error = -EINVAL;

	if (plan->gates && shuts(run))
		check_shut(plan, run);
	switch (run->op) {
	case PLAN_LOWER:
	case PLAN_RAISE:
		error = guest_memory_protect(plan->memory, run->gpn, run->count,
					     run->op == PLAN_LOWER ? COH_READ : COH_WRITE,
					     run->wake);
		break;
	case PLAN_DROP:
		error = guest_memory_drop(plan->memory, run->gpn, run->count);
		break;
	case PLAN_TAKE:
		error = take_run(plan, run);
		break;
	case PLAN_INSTALL_READ:
	case PLAN_INSTALL_WRITE:
		error = guest_memory_install(plan->memory, run->gpn, run->count, run->data,
					     run->op == PLAN_INSTALL_READ ? COH_READ : COH_WRITE,
					     run->wake);
		break;
	}
	if (error == 0 && plan->lost && frees(run))
		plan->lost(plan->lost_arg, run->gpn << PAGE_SHIFT,
			   (uint64_t)run->count << PAGE_SHIFT);
	if (error == 0 && plan->gates && !shuts(run))
		open_gates(plan, run);
	return error;
}

int plan_settle(struct plan *plan)
{
	int error = 0;

	/* First what frees memory, so that the node never has more than it promised. */
	for (uint32_t i = 0; error == 0 && i < plan->run_count; i++)
		if (frees(&plan->run[i]))
			error = carry_out_run(plan, &plan->run[i]);
	for (uint32_t i = 0; error == 0 && i < plan->run_count; i++)
		if (!frees(&plan->run[i]))
			error = carry_out_run(plan, &plan->run[i]);
	plan->run_count = 0;
	plan->takes = 0;
	if (error < 0)
		plan->failed_node = NODE_NONE;
	return error;
}

static int send_frame(struct plan *plan, uint16_t to)
{
	struct plan_peer *peer = &plan->peer[to];
	int error = 0;

	if (peer->error == 0) {
		error = peer->channel->ops->send(peer->channel, &peer->frame);
		plan->pages_sent += peer->frame.page_count;
	}
	if (peer->error == 0 && !peer->sent) {
		peer->sent = true;
		plan->sent[plan->sent_count++] = to;
	}
	if (error < 0 && peer->loose) {
		peer->error = error;
		plan->ended = true;
		error = 0;
	}
	peer->frame.message_count = 0;
	peer->frame.page_count = 0;
	peer->eager = false;
	if (error < 0)
		plan->failed_node = to;
	return error;
}

uint16_t plan_sent(struct plan *plan)
{
	uint16_t to;

	if (plan->sent_count == 0)
		return NODE_NONE;
	to = plan->sent[--plan->sent_count];
	plan->peer[to].sent = false;
	return to;
}

static void leave_out(uint16_t *list, uint32_t *count, uint16_t node)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < *count; i++)
		if (list[i] != node)
			list[left++] = list[i];
	*count = left;
}

int plan_unlink(struct plan *plan, uint16_t node)
{
	struct plan_peer *peer = &plan->peer[node];
	/* Pages that are taken are filled in in a frame. */
	int error = plan_settle(plan);

	leave_out(plan->dirty, &plan->dirty_count, node);
	leave_out(plan->sent, &plan->sent_count, node);
	peer->frame.message_count = peer->frame.page_count = 0;
	peer->channel = NULL;
	peer->eager = peer->sent = peer->loose = false;
	peer->error = 0;
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

static struct plan_run *run_with(struct plan *plan, uint64_t gpn)
{
	for (uint32_t i = 0; i < plan->run_count; i++) {
		struct plan_run *run = &plan->run[i];

		if (gpn >= run->gpn && gpn - run->gpn < run->count)
			return run;
	}
	return NULL;
}

/* Whether the page behind the run's last one may be done with it. */
static bool goes_on(const struct plan *plan, const struct plan_run *run, enum plan_op op,
		    uint64_t gpn, const uint8_t *data)
{
	uint32_t most = op == PLAN_TAKE ? PLAN_TAKES_MAX : FRAME_MESSAGES_MAX;

	if (run->op != op || gpn != run->gpn + run->count || run->count >= most ||
	    guest_memory_run(plan->memory, run->gpn, run->count + 1) <= run->count)
		return false;
	if (op != PLAN_INSTALL_READ && op != PLAN_INSTALL_WRITE)
		return true;
	return run->data ? data == run->data + (size_t)run->count * PAGE_BYTES : !data;
}

/* Makes gpn's operation the end of a run, or begins another. */
static int extend(struct plan *plan, enum plan_op op, uint64_t gpn, const uint8_t *data,
		  struct plan_run **ret_run)
{
	if (run_with(plan, gpn)) {
		int error = plan_settle(plan);

		if (error < 0)
			return error;
	}
	for (uint32_t i = plan->run_count; i > 0; i--) {
		struct plan_run *run = &plan->run[i - 1];

		if (!goes_on(plan, run, op, gpn, data))
			continue;
		run->count++;
		*ret_run = run;
		return 0;
	}
	if (plan->run_count == PLAN_RUNS) {
		int error = plan_settle(plan);

		if (error < 0)
			return error;
	}
	*ret_run = &plan->run[plan->run_count++];
	(*ret_run)->op = op;
	(*ret_run)->gpn = gpn;
	(*ret_run)->count = 1;
	(*ret_run)->data = data;
	(*ret_run)->wake = false;
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

	assert(to < plan->peer_count);
	if (!plan->peer[to].channel) {
		plan->failed_node = to;
		return -ENOTCONN;
	}
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

int plan_send_last(struct plan *plan, uint16_t to, const struct coh_msg *msg)
{
	struct page_frame *frame = &plan->peer[to].frame;
	struct plan_run *run;
	int error = unstage(plan, msg->gpn);

	if (error == 0 && (guest_memory_takeable(plan->memory, plan->shard) <= plan->takes ||
			   frame->message_count == FRAME_MESSAGES_MAX))
		error = plan_flush(plan, true);
	if (error == 0)
		error = plan_send(plan, to, msg);
	if (error == 0)
		error = extend(plan, PLAN_TAKE, msg->gpn, NULL, &run);
	if (error < 0)
		return error;
	plan->takes++;
	run->slot[run->count - 1] = (struct plan_slot){ frame, frame->page_count };
	frame->page[frame->page_count++] = NULL;
	return frame->page_count < PLAN_LAST_PAGES_MAX ? 0 : plan_flush(plan, false);
}

int plan_protect(struct plan *plan, uint64_t gpn, enum coh_access access)
{
	static const enum plan_op op[] = {
		[COH_NONE] = PLAN_DROP, [COH_READ] = PLAN_LOWER, [COH_WRITE] = PLAN_RAISE
	};
	struct plan_run *run;
	int error = access == COH_READ ? 0 : unstage(plan, gpn);

	if (error == 0)
		error = extend(plan, op[access], gpn, NULL, &run);
	return error;
}

int plan_install(struct plan *plan, uint64_t gpn, const void *data, enum coh_access access)
{
	struct plan_run *run;

	return extend(plan, access == COH_READ ? PLAN_INSTALL_READ : PLAN_INSTALL_WRITE, gpn, data,
		      &run);
}

int plan_wake(struct plan *plan, uint64_t gpn)
{
	struct plan_run *run = run_with(plan, gpn);
	int error = 0;

	if (run && run->op != PLAN_DROP && run->op != PLAN_TAKE) {
		run->wake = true;
		return 0;
	}
	if (run)
		error = plan_settle(plan);
	if (error == 0)
		error = guest_memory_wake(plan->memory, gpn, 1);
	if (error < 0)
		plan->failed_node = NODE_NONE;
	return error;
}
