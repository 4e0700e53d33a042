/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shard's thread does in a pass: faults, commands, frames and time in; actions out. When
 * there is a pass: shard_loop.c.
 *
 * Problem: a stall's time is system calls and wake-ups, so both must be few; and this thread must
 * never wait for a page. Idea: one pass takes what is ready (epoll), feeds it to the page protocol,
 * and hands every action to the plan, which merges and sends at the end of the pass. The thread
 * reads only pages that this node holds, and writes guest memory only by installing. Invariant:
 * messages leave after the memory operations before them (plan.h); a received page is
 * installed or dropped before the channel receives again.
 * Failure: the first error ends the shard's work, is reported once, and the thread waits to be
 * stopped. Tested in tests/memory/test_pager.c, tests/podmem.
 */
#include "pager/shard_inside.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LAZY_PASSES	 3u  /* that a frame nobody waits for may stay, however busy */
#define FETCH_BATCH	 4u  /* hinted pages that are asked for at a time */
#define FRAMES_PER_EVENT 16u /* from one peer in a row, then others get their turn */

#define NAMELESS UINT32_MAX /* no actor */

/* Reports once a pager; this shard does no more. */
static void shard_fail(struct shard *shard, uint16_t node, int error, const char *cause)
{
	struct pager *pager = shard->pager;

	shard->failed = true;
	if (atomic_flag_test_and_set(&pager->failure_reported))
		return;
	if (pager->config.failed)
		pager->config.failed(pager->config.arg, node, error, cause);
	pager_close_ports(pager, -ESHUTDOWN);
}

void shard_plan_failed(struct shard *shard, int error)
{
	char cause[160];
	uint16_t node = shard->plan.failed_node;

	if (node != NODE_NONE && error == -ENOBUFS)
		snprintf(cause, sizeof(cause),
			 "page channel, shard %u: the peer takes nothing and the queue is full",
			 shard->index);
	else if (error == -ENOTCONN)
		snprintf(
			cause, sizeof(cause),
			"page channel, shard %u: a message that is answered to node %u, which is not "
			"linked",
			shard->index, node);
	else if (node != NODE_NONE)
		snprintf(cause, sizeof(cause), "page channel, shard %u: %s", shard->index,
			 strerror(-error));
	else
		snprintf(cause, sizeof(cause), "guest memory, shard %u: %s", shard->index,
			 strerror(-error));
	/* Only a lie has the protocol send to who is no member. */
	if (error == -ENOTCONN) {
		node = shard->from;
		error = -EPROTO;
	}
	shard_fail(shard, node, error, cause);
}

/* --- actions --- */

/* A page that is sent and given up next (perhaps write-protected before) is taken out in one. */
static bool is_last_send(const struct coh_action *action, uint32_t count)
{
	return count >= 2 && action[0].kind == COH_SEND_PAGE && action[1].kind == COH_PROTECT &&
	       action[1].access == COH_NONE && action[1].gpn == action[0].msg.gpn;
}

/* Hands on the first of `count` actions, and how many it took with it. */
static int act(struct shard *shard, const struct coh_action *action, uint32_t count,
	       const void *received, uint32_t *ret_taken)
{
	struct plan *plan = &shard->plan;

	*ret_taken = 1;
	switch ((enum coh_action_kind)action->kind) {
	case COH_SEND:
		return plan_send(plan, action->to, &action->msg);
	case COH_SEND_PAGE:
		if (is_last_send(action, count)) {
			*ret_taken = 2;
			return plan_send_last(plan, action->to, &action->msg);
		}
		return plan_send_page(plan, action->to, &action->msg);
	case COH_PROTECT:
		if (action->access == COH_READ && is_last_send(action + 1, count - 1) &&
		    action[1].msg.gpn == action->gpn) {
			*ret_taken = 3;
			return plan_send_last(plan, action[1].to, &action[1].msg);
		}
		return plan_protect(plan, action->gpn, action->access);
	case COH_INSTALL_DATA:
		assert(received);
		return plan_install(plan, action->gpn, received, action->access);
	case COH_INSTALL_ZERO:
		return plan_install(plan, action->gpn, NULL, action->access);
	case COH_WAKE:
		return plan_wake(plan, action->gpn);
	case COH_PINNED:
		return plan_settle(plan);
	case COH_FREED_PAGES:
		return 0;
	}
	assert(!"an action of no known kind");
	return -EINVAL;
}

int shard_carry_out(struct shard *shard, const struct coh_out *out, const void *received)
{
	for (uint32_t i = 0, taken; i < out->count; i += taken) {
		const struct coh_action *action = &out->action[i];
		int error = act(shard, action, out->count - i, received, &taken);

		if (error < 0) {
			shard_plan_failed(shard, error);
			return error;
		}
		if (action->kind == COH_WAKE)
			shard_wait_end(shard, action, out->action, out->count);
		else if (action->kind == COH_PINNED)
			pager_port_complete(shard->pager, action->actor, 0);
		else if (action->kind == COH_FREED_PAGES)
			shard_free_over(shard);
	}
	return 0;
}

struct coh_out shard_out(struct shard *shard)
{
	return (struct coh_out){ .action = shard->action, .capacity = COH_ACTIONS_MIN };
}

/* The protocol refused something that is not a peer's fault. */
void shard_core_failed(struct shard *shard, int error, const char *what)
{
	char cause[160];

	snprintf(cause, sizeof(cause), "page protocol, shard %u: %s: %s", shard->index, what,
		 strerror(-error));
	shard_fail(shard, NODE_NONE, error, cause);
}

/* --- inputs --- */

static uint32_t actor_of(struct shard *shard, pid_t tid)
{
	struct pager_actors *actors = &shard->pager->actors;
	uint32_t slot = (uint32_t)tid % TID_CACHE;
	uint32_t actor = shard->cached_actor[slot];

	if (shard->cached_tid[slot] == tid &&
	    atomic_load_explicit(&actors->tid[actor], memory_order_relaxed) == tid)
		return actor;
	for (actor = 0; actor < actors->vcpu_count; actor++) {
		if (atomic_load_explicit(&actors->tid[actor], memory_order_relaxed) == tid) {
			shard->cached_tid[slot] = tid;
			shard->cached_actor[slot] = actor;
			return actor;
		}
	}
	return NAMELESS;
}

/*
 * An actor waits for one page at a time: a new stall takes the place of the old one, since its
 * thread was interrupted and went on. Nameless threads are told apart by giving each stall an actor
 * of its own.
 */
static uint32_t nameless_actor(const struct shard *shard, uint64_t gpn, enum coh_access want)
{
	uint32_t first = shard->pager->actors.vcpu_count + shard->pager->actors.port_count +
			 shard->pager->actors.asker_count;
	uint32_t found = NAMELESS;

	for (uint32_t actor = first; actor < first + NAMELESS_ACTORS; actor++) {
		const struct shard_wait *wait = &shard->wait[actor];

		if (!wait->waiting)
			found = actor;
		else if (wait->gpn == gpn && wait->want == want)
			return actor;
	}
	return found;
}

/* A fault for which there is no actor waits for one. */
static void queue_fault(struct shard *shard, const struct guest_fault *fault)
{
	if (shard->queued_count == NAMELESS_QUEUE) {
		shard_core_failed(shard, -ENOBUFS,
				  "too many threads without an actor touch guest memory");
		return;
	}
	shard->queued[(shard->queued_first + shard->queued_count) % NAMELESS_QUEUE] = *fault;
	shard->queued_count++;
}

static void stall(struct shard *shard, uint32_t actor, const struct guest_fault *fault,
		  enum coh_access want)
{
	struct coh_out out = shard_out(shard);
	int error;

	shard_wait_begin(shard, actor, fault, want);
	error = coh_stall(shard->coh, actor, fault->gpn, want, pod_now_ns(shard), &out);
	if (error < 0)
		shard_core_failed(shard, error, "a stall was refused");
	else
		shard_carry_out(shard, &out, NULL);
}

void shard_stall(struct shard *shard, uint32_t actor, uint64_t gpn, enum coh_access want)
{
	struct guest_fault fault = { .gpn = gpn };

	stall(shard, actor, &fault, want);
}

static void take_fault(struct shard *shard, const struct guest_fault *fault)
{
	enum coh_access want = fault->write ? COH_WRITE : COH_READ;
	uint32_t actor = actor_of(shard, fault->tid);

	if (actor == NAMELESS)
		actor = nameless_actor(shard, fault->gpn, want);
	if (actor == NAMELESS) {
		queue_fault(shard, fault);
		return;
	}
	if (actor < shard->pager->actors.vcpu_count)
		atomic_fetch_add_explicit(&shard->pager->actors.stalls[actor], 1,
					  memory_order_relaxed);
	stall(shard, actor, fault, want);
}

/* Whether there were any. */
bool shard_take_faults(struct shard *shard)
{
	struct guest_fault fault[SHARD_FAULTS];
	int count = guest_memory_faults(shard->plan.memory, shard->index, fault, SHARD_FAULTS);

	if (count < 0) {
		shard->plan.failed_node = NODE_NONE;
		shard_plan_failed(shard, count);
		return true;
	}
	for (int i = 0; i < count && !shard->failed; i++)
		take_fault(shard, &fault[i]);
	if (count > 0)
		shard->fault_is_next = false;
	return count > 0;
}

/* Queued faults, once each, as nameless actors may be free again. */
static void take_queued(struct shard *shard)
{
	for (uint32_t count = shard->queued_count; count > 0 && !shard->failed; count--) {
		struct guest_fault fault = shard->queued[shard->queued_first];

		shard->queued_first = (shard->queued_first + 1) % NAMELESS_QUEUE;
		shard->queued_count--;
		take_fault(shard, &fault);
	}
}

void shard_fetch(struct shard *shard, uint64_t gpn, enum coh_access want)
{
	struct coh_out out = shard_out(shard);
	int error = coh_fetch(shard->coh, gpn, want, pod_now_ns(shard), &out);

	if (error < 0)
		shard_core_failed(shard, error, "a fetch was refused");
	else
		shard_carry_out(shard, &out, NULL);
}

void shard_unpinned(struct shard *shard, uint64_t gpn)
{
	struct coh_out out = shard_out(shard);
	int error = coh_unpinned(shard->coh, gpn, pod_now_ns(shard), &out);

	if (error < 0)
		shard_core_failed(shard, error, "an unpin was refused");
	else
		shard_carry_out(shard, &out, NULL);
}

/* Ranges that overlap name a group twice: once is enough. */
void shard_free(struct shard *shard, uint64_t first, uint64_t mask)
{
	struct coh_out out = shard_out(shard);
	int error = coh_free(shard->coh, first, mask, pod_now_ns(shard), &out);

	if (error < 0 && error != -EBUSY)
		shard_core_failed(shard, error, "pages cannot be freed");
	else if (shard_carry_out(shard, &out, NULL) == 0 && error == -EBUSY)
		shard_free_over(shard);
}

/*
 * The next ones of this shard that the vCPU's hints ask for, each once, but no more than it takes at a
 * time: as many pages as are asked for at once come at once, and the vCPU is waiting for the first.
 */
static uint32_t take_asked(struct shard *shard, uint32_t vcpu,
			   struct page_hint ret_hint[FETCH_BATCH])
{
	struct pager_hints *hints = &shard->pager->actors.hints[vcpu];
	uint32_t count = 0;

	if (!pager_hints_trylock(shard->pager, vcpu))
		return 0;
	for (uint32_t i = 0; i < hints->list.count && count < FETCH_BATCH; i++) {
		struct page_hint *hint = &hints->list.hint[i];

		if (!hint->ask || guest_memory_shard(shard->plan.memory, hint->gpn) != shard->index)
			continue;
		hint->ask = false;
		ret_hint[count++] = *hint;
	}
	pager_hints_unlock(shard->pager, vcpu);
	return count;
}

static void fetch_hinted(struct shard *shard, uint32_t vcpu)
{
	struct page_hint hint[FETCH_BATCH];
	uint32_t count;

	atomic_store(&shard->fetch_posted[vcpu], false);
	count = take_asked(shard, vcpu, hint);
	for (uint32_t i = 0; i < count && !shard->failed; i++)
		shard_fetch(shard, hint[i].gpn, hint[i].write ? COH_WRITE : COH_READ);
	if (count == FETCH_BATCH)
		shard_post_fetch(shard, vcpu);
}

static void take_pin(struct shard *shard, const struct pager_command *c)
{
	struct coh_out out = shard_out(shard);
	uint64_t now_ns = pod_now_ns(shard);
	int error;

	if (c->kind == PAGER_PIN)
		error = coh_pin(shard->coh, c->actor, c->gpn, c->want, now_ns, &out);
	else if (c->kind == PAGER_PIN_HERE)
		error = coh_pin_here(shard->coh, c->actor, c->gpn, c->want, now_ns, &out);
	else
		error = coh_unpin(shard->coh, c->actor, now_ns, &out);
	if (error < 0 && (error != -EAGAIN || c->kind != PAGER_PIN_HERE)) {
		shard_core_failed(shard, error, "a pin was refused");
		return;
	}
	/* Also when the pin was refused: what was left over from before is there. */
	if (shard_carry_out(shard, &out, NULL) == 0 && error == -EAGAIN)
		pager_port_complete(shard->pager, c->actor, error);
}

static void take_command(struct shard *shard, const struct pager_command *c)
{
	switch (c->kind) {
	case PAGER_PIN:
	case PAGER_PIN_HERE:
	case PAGER_UNPIN:
		take_pin(shard, c);
		break;
	case PAGER_FETCH:
		fetch_hinted(shard, c->actor);
		break;
	case PAGER_FREE:
		shard_free_begin(shard);
		break;
	case PAGER_FREE_ON:
		shard_free_on(shard);
		break;
	case PAGER_MEMBER:
	case PAGER_LINK:
	case PAGER_UNLINK:
	case PAGER_RELEASE:
	case PAGER_CANCEL:
		shard_member_command(shard, c);
		break;
	case PAGER_ASK:
	case PAGER_ASK_AHEAD:
	case PAGER_UNPINNED:
		shard_window_command(shard, c);
		break;
	}
}

static void take_commands(struct shard *shard)
{
	struct pager_command command[SHARD_COMMANDS];
	uint32_t count = pager_queue_take(&shard->queue, command, SHARD_COMMANDS);

	for (uint32_t i = 0; i < count && !shard->failed; i++)
		take_command(shard, &command[i]);
}

void shard_peer_failed(struct shard *shard, uint16_t node, int error, const char *what)
{
	char cause[160];

	snprintf(cause, sizeof(cause), "page channel, shard %u: %s: %s", shard->index, what,
		 strerror(-error));
	if (!shard_link_ended(shard, node, error, cause))
		shard_fail(shard, node, error, cause);
}

/* Another shard's page, or none at all: the core would be asked about memory it has not. */
static bool is_ours(const struct shard *shard, const struct coh_msg *msg)
{
	if (msg->type == COH_ROOM_GET || msg->type == COH_ROOM_IS || msg->type == COH_ROOM_PUT ||
	    msg->type == COH_REG_IS || msg->type == COH_FLUSH ||
	    (msg->type == COH_REG_MOVE && !(msg->flags & COH_MSG_MORE)))
		return msg->gpn == 0; /* about no page */
	return guest_memory_is_ram(shard->plan.memory, msg->gpn << PAGE_SHIFT, PAGE_BYTES) &&
	       guest_memory_shard(shard->plan.memory, msg->gpn) == shard->index;
}

/* Its channel has not ended. */
static bool may_go_on(const struct shard *shard, uint16_t node)
{
	return !shard->failed && shard->plan.peer[node].error == 0;
}

static void take_frame(struct shard *shard, uint16_t node)
{
	const struct page_frame *frame = &shard->frame;
	uint64_t now_ns = pod_now_ns(shard);
	uint32_t page = 0;

	for (uint32_t i = 0; i < frame->message_count && may_go_on(shard, node); i++) {
		struct coh_msg msg = frame->message[i];
		const void *data = NULL;
		struct coh_out out = shard_out(shard);
		int error = 0;

		msg.src = node;
		if (msg.flags & COH_MSG_DATA) {
			if (page == frame->page_count)
				error = -EPROTO;
			else
				data = frame->page[page++];
		}
		if (!is_ours(shard, &msg))
			error = -EPROTO;
		if (error == 0)
			error = coh_message(shard->coh, &msg, now_ns, &out);
		shard->from = node;
		if (error == -EPROTO)
			shard_peer_failed(shard, node, error,
					  "a message that no correct node sends");
		else if (error < 0)
			shard_core_failed(shard, error, "a message was refused");
		else
			shard_carry_out(shard, &out, data);
		shard->from = NODE_NONE;
	}
	if (!shard->failed) {
		int error = plan_settle(&shard->plan);

		if (error < 0)
			shard_plan_failed(shard, error);
	}
	shard->fault_is_next = shard->woken_count > 0;
	shard_count_woken(shard);
}

static void set_unread(struct shard *shard, uint16_t node, bool unread)
{
	shard->unread_count += (uint32_t)unread - (uint32_t)shard->unread[node];
	shard->unread[node] = unread;
}

/*
 * Whether there were any. Frames beyond a peer's turn may have been received already, so that epoll
 * knows nothing of them: they are remembered.
 */
bool shard_take_frames(struct shard *shard, uint16_t node)
{
	struct page_channel *channel = shard->plan.peer[node].channel;

	set_unread(shard, node, false);
	for (uint32_t i = 0; i < FRAMES_PER_EVENT && may_go_on(shard, node); i++) {
		int error = channel->ops->receive(channel, &shard->frame);

		if (error == -EAGAIN)
			return i > 0;
		if (error < 0) {
			shard_peer_failed(shard, node, error, "receiving");
			return true;
		}
		shard->hot_node = node;
		take_frame(shard, node);
	}
	set_unread(shard, node, may_go_on(shard, node));
	return true;
}

static void take_unread(struct shard *shard)
{
	for (uint32_t node = 0; node < shard->plan.peer_count && !shard->failed; node++)
		if (shard->unread[node])
			shard_take_frames(shard, (uint16_t)node);
}

static void take_time(struct shard *shard)
{
	uint64_t now_ns = pod_now_ns(shard);

	/* The bound is the protocol's: each call does work that did not fit before. */
	while (!shard->failed && coh_deadline(shard->coh) <= now_ns) {
		struct coh_out out = shard_out(shard);
		int error = coh_tick(shard->coh, now_ns, &out);

		if (error < 0)
			shard_core_failed(shard, error, "a tick was refused");
		else
			shard_carry_out(shard, &out, NULL);
		if (out.count == 0)
			break;
	}
}

/* --- the pass --- */

/* Tells epoll anew what a peer is watched for. */
static void watch_again(struct shard *shard, uint16_t node)
{
	struct page_channel *channel = shard->plan.peer[node].channel;
	struct epoll_event event = { .events = shard_watches(shard, node), .data.u32 = node };

	if (epoll_ctl(shard->epoll_fd, EPOLL_CTL_MOD, channel->ops->fd(channel), &event) < 0)
		shard_peer_failed(shard, node, -errno, "epoll");
}

/* Asks epoll to tell when a peer whose queue is not empty takes more, or no longer to. */
static void watch_writable(struct shard *shard, uint16_t node, bool want)
{
	if (shard->want_writable[node] == want)
		return;
	shard->want_writable[node] = want;
	shard->blocked_count += want ? 1 : UINT32_MAX;
	watch_again(shard, node);
}

void shard_hear(struct shard *shard, uint16_t node)
{
	watch_again(shard, node);
	set_unread(shard, node, may_go_on(shard, node));
}

void shard_watch_end(struct shard *shard, uint16_t node)
{
	struct page_channel *channel = shard->plan.peer[node].channel;

	watch_writable(shard, node, false);
	set_unread(shard, node, false);
	if (shard->hot_node == node)
		shard->hot_node = NODE_NONE;
	(void)epoll_ctl(shard->epoll_fd, EPOLL_CTL_DEL, channel->ops->fd(channel), NULL);
}

static void go_on_sending(struct shard *shard, uint16_t node)
{
	struct page_channel *channel = shard->plan.peer[node].channel;
	int error = channel->ops->flush(channel);

	if (error < 0 && error != -EAGAIN)
		shard_peer_failed(shard, node, error, "sending");
	else
		watch_writable(shard, node, error == -EAGAIN);
}

static void send_frames(struct shard *shard, bool idle)
{
	int error = plan_flush(&shard->plan, idle);
	uint16_t node;

	if (error < 0) {
		shard_plan_failed(shard, error);
		return;
	}
	shard_count_woken(shard);
	/* Those whose frames left in the middle of the pass, too: a full socket has to be watched. */
	while (!shard->failed && (node = plan_sent(&shard->plan)) != NODE_NONE)
		if (may_go_on(shard, node))
			go_on_sending(shard, node);
}

/* Frames to the peers; those that nobody waits for only when `idle`. */
void shard_send_all(struct shard *shard, bool idle)
{
	do {
		send_frames(shard, idle);
	} while (!shard->failed && shard_members_step(shard));
	if (!shard->failed)
		shard_members_say(shard);
}

/* Of who is not heard there is an end and nothing else. */
static void take_ready(struct shard *shard, uint16_t node)
{
	if (shard_hears(shard, node))
		shard_take_frames(shard, node);
	else
		shard_peer_failed(shard, node, -EPIPE, "it joins, and has ended");
}

static void dispatch(struct shard *shard, const struct epoll_event *event)
{
	if (event->data.u32 == EVENT_FAULT) {
		shard_take_faults(shard);
	} else if (event->data.u32 == EVENT_COMMAND) {
		take_commands(shard);
	} else if (event->data.u32 != EVENT_SEEN) {
		uint16_t node = (uint16_t)event->data.u32;

		/* What came before in this pass may have ended it. */
		if (!shard->plan.peer[node].channel || !may_go_on(shard, node))
			return;
		if (event->events & EPOLLOUT)
			go_on_sending(shard, node);
		if (may_go_on(shard, node) && (event->events & ~(uint32_t)EPOLLOUT))
			take_ready(shard, node);
	}
}

/*
 * What waits for the end of a stall or of a free, until no more of them end: one may be the end that
 * another waits for, and nobody wakes the thread for what it has found itself.
 */
static void go_on(struct shard *shard)
{
	do {
		shard->ended = false;
		take_queued(shard);
		if (!shard->failed && shard->asks_due)
			shard_windows_step(shard);
		if (!shard->failed && shard->free.due)
			shard_free_step(shard);
	} while (!shard->failed && shard->ended);
}

void shard_pass(struct shard *shard, const struct epoll_event *event, int count)
{
	if (shard->unread_count > 0)
		take_unread(shard);
	for (int i = 0; i < count && !shard->failed; i++)
		dispatch(shard, &event[i]);
	if (!shard->failed)
		take_time(shard);
	go_on(shard);
	if (!shard->failed)
		shard_send_all(shard, shard->lazy_passes >= LAZY_PASSES);
	shard->lazy_passes = plan_has_lazy(&shard->plan) ? shard->lazy_passes + 1 : 0;
}
