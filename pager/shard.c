/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard's thread: faults, commands, frames and time in; actions out.
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
#include "pager/shard.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define TID_CACHE	 256u
#define TAKEN_PART	 32u	   /* of the capacity is for pages that were moved out */
#define PUBLISH_NS	 20000000u /* counters of the protocol are copied out this often when busy */
#define LOOKS_AT_OTHER	 4u
#define LOOKS_PER_EPOLL	 8u    /* of a spinning thread at what is likely, before it looks at all */
#define LINGER_NS	 8000u /* that a spinning thread keeps such a frame */
#define LAZY_PASSES	 3u    /* that a frame nobody waits for may stay, however busy */
#define FRAMES_PER_EVENT 16u   /* from one peer in a row, then others get their turn */

/* epoll's data: peers by number, then these. */
#define EVENT_FAULT   0x10000u
#define EVENT_COMMAND 0x10001u

#define EVENT_SEEN 0x10002u /* taken already */

#define NAMELESS UINT32_MAX /* no actor */

static uint64_t pod_now_ns(const struct shard *shard)
{
	return shard->pager->config.now_ns(shard->pager->config.arg);
}

static uint64_t local_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

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

static void plan_failed(struct shard *shard, int error)
{
	char cause[160];
	uint16_t node = shard->plan.failed_node;

	if (node != NODE_NONE && error == -ENOBUFS)
		snprintf(cause, sizeof(cause),
			 "page channel, shard %u: the peer takes nothing and the queue is full",
			 shard->index);
	else if (node != NODE_NONE)
		snprintf(cause, sizeof(cause), "page channel, shard %u: %s", shard->index,
			 strerror(-error));
	else
		snprintf(cause, sizeof(cause), "guest memory, shard %u: %s", shard->index,
			 strerror(-error));
	shard_fail(shard, node, error, cause);
}

/* --- stalls and their times --- */

static void wait_begin(struct shard *shard, uint32_t actor, const struct guest_fault *fault,
		       enum coh_access want)
{
	uint64_t now_ns = local_now_ns();

	if (actor < shard->pager->actors.vcpu_count)
		stall_time_begin(&shard->pager->actors.stalled[actor], now_ns);
	shard->wait[actor] = (struct shard_wait){ .waiting = true,
						  .wp = fault->wp,
						  .want = want,
						  .gpn = fault->gpn,
						  .offset = fault->offset,
						  .since_ns = now_ns };
}

/* What ended the stalls on a page, seen from the actions of the same call. */
static enum coh_stall_kind kind_of(const struct coh_action *action, uint32_t count, uint64_t gpn,
				   const struct shard_wait *wait)
{
	for (uint32_t i = 0; i < count; i++) {
		if (action[i].gpn != gpn)
			continue;
		if (action[i].kind == COH_INSTALL_ZERO)
			return COH_STALL_ZERO;
		if (action[i].kind == COH_INSTALL_DATA)
			return wait->want == COH_WRITE ? COH_STALL_WRITE : COH_STALL_READ;
		if (action[i].kind == COH_PROTECT && action[i].access == COH_WRITE)
			return wait->wp ? COH_STALL_UPGRADE : COH_STALL_WRITE;
	}
	return COH_STALL_KINDS;
}

/* A shard's thread waits for nobody: who has the lock may have lost its core. */
static void note_hint(struct pager *pager, const struct shard_woken *woken)
{
	struct pager_hints *hints = &pager->actors.hints[woken->actor];

	if (pthread_mutex_trylock(&hints->lock) != 0)
		return;
	page_hints_stalled(&hints->list, woken->gpn, woken->kind);
	pager_hints_unlock(pager, woken->actor);
}

/* For who decides where vCPUs should be, and for the hints. */
static void tell_stall(const struct shard *shard, const struct shard_woken *woken, uint64_t now_ns)
{
	struct pager *pager = shard->pager;
	struct pager_stall stall = { .actor = woken->actor,
				     .kind = woken->kind,
				     .from = woken->kind == COH_STALL_ZERO ? NODE_NONE
									   : woken->from,
				     .gpn = woken->gpn,
				     .took_ns = now_ns - woken->since_ns };

	if (woken->kind == COH_STALL_KINDS || woken->actor >= pager->actors.vcpu_count)
		return;
	note_hint(pager, woken);
	if (pager->config.stalled)
		pager->config.stalled(pager->config.arg, &stall);
}

static void count_woken(struct shard *shard)
{
	uint64_t now_ns;

	if (shard->woken_count == 0)
		return;
	now_ns = local_now_ns();
	for (uint32_t i = 0; i < shard->woken_count; i++) {
		const struct shard_woken *woken = &shard->woken[i];

		if (woken->actor < shard->pager->actors.vcpu_count)
			stall_time_end(&shard->pager->actors.stalled[woken->actor], woken->since_ns,
				       now_ns);

		if (woken->kind == COH_STALL_KINDS)
			stat_add(&shard->stats.spurious_count, 1);
		else
			shard_stats_stall(&shard->stats, woken->kind, now_ns - woken->since_ns);
		/* First touches are as many as there are pages; each is no more than that. */
		if (woken->kind != COH_STALL_KINDS && woken->kind != COH_STALL_ZERO)
			shard_stats_hot(&shard->stats, woken->gpn, woken->offset);
		tell_stall(shard, woken, now_ns);
	}
	shard->woken_count = 0;
}

/* COH_WAKE: whoever waited on the page is done, as soon as the run is carried out. */
static void wait_end(struct shard *shard, const struct coh_action *wake,
		     const struct coh_action *action, uint32_t count)
{
	const struct pager_actors *actors = &shard->pager->actors;
	uint32_t actor_count = actors->vcpu_count + actors->port_count + NAMELESS_ACTORS;

	for (uint32_t i = 0; i < actor_count; i++) {
		struct shard_wait *wait = &shard->wait[i];

		if (!wait->waiting || wait->gpn != wake->gpn || wait->want > wake->access)
			continue;
		wait->waiting = false;
		/* Any number may end in a pass: faults queue up for the few nameless actors. */
		if (shard->woken_count == SHARD_WOKEN)
			count_woken(shard);
		shard->woken[shard->woken_count++] =
			(struct shard_woken){ .kind = kind_of(action, count, wake->gpn, wait),
					      .actor = i,
					      .gpn = wait->gpn,
					      .offset = wait->offset,
					      .from = shard->from,
					      .since_ns = wait->since_ns };
	}
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
	}
	assert(!"an action of no known kind");
	return -EINVAL;
}

static int carry_out(struct shard *shard, const struct coh_out *out, const void *received)
{
	for (uint32_t i = 0, taken; i < out->count; i += taken) {
		const struct coh_action *action = &out->action[i];
		int error = act(shard, action, out->count - i, received, &taken);

		if (error < 0) {
			plan_failed(shard, error);
			return error;
		}
		if (action->kind == COH_WAKE)
			wait_end(shard, action, out->action, out->count);
		else if (action->kind == COH_PINNED)
			pager_port_complete(shard->pager, action->actor, 0);
	}
	return 0;
}

static struct coh_out out_of(struct shard *shard)
{
	return (struct coh_out){ .action = shard->action, .capacity = COH_ACTIONS_MIN };
}

/* The protocol refused something that is not a peer's fault. */
static void core_failed(struct shard *shard, int error, const char *what)
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
	uint32_t first = shard->pager->actors.vcpu_count + shard->pager->actors.port_count;
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
		core_failed(shard, -ENOBUFS,
			    "too many threads without an actor touch guest memory");
		return;
	}
	shard->queued[(shard->queued_first + shard->queued_count) % NAMELESS_QUEUE] = *fault;
	shard->queued_count++;
}

static void take_fault(struct shard *shard, const struct guest_fault *fault)
{
	enum coh_access want = fault->write ? COH_WRITE : COH_READ;
	uint32_t actor = actor_of(shard, fault->tid);
	struct coh_out out = out_of(shard);
	int error;

	if (actor == NAMELESS)
		actor = nameless_actor(shard, fault->gpn, want);
	if (actor == NAMELESS) {
		queue_fault(shard, fault);
		return;
	}
	if (actor < shard->pager->actors.vcpu_count)
		atomic_fetch_add_explicit(&shard->pager->actors.stalls[actor], 1,
					  memory_order_relaxed);
	wait_begin(shard, actor, fault, want);
	error = coh_stall(shard->coh, actor, fault->gpn, want, pod_now_ns(shard), &out);
	if (error < 0)
		core_failed(shard, error, "a stall was refused");
	else
		carry_out(shard, &out, NULL);
}

/* Whether there were any. */
static bool take_faults(struct shard *shard)
{
	struct guest_fault fault[SHARD_FAULTS];
	int count = guest_memory_faults(shard->plan.memory, shard->index, fault, SHARD_FAULTS);

	if (count < 0) {
		shard->plan.failed_node = NODE_NONE;
		plan_failed(shard, count);
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

/* Those of this shard that the vCPU's hints ask for, each once. */
static uint32_t take_asked(struct shard *shard, uint32_t vcpu,
			   struct page_hint ret_hint[PAGE_HINTS_MAX])
{
	struct pager_hints *hints = &shard->pager->actors.hints[vcpu];
	uint32_t count = 0;

	if (!pager_hints_trylock(shard->pager, vcpu))
		return 0;
	for (uint32_t i = 0; i < hints->list.count; i++) {
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
	struct page_hint hint[PAGE_HINTS_MAX];
	uint32_t count;

	atomic_store(&shard->fetch_posted[vcpu], false);
	count = take_asked(shard, vcpu, hint);
	for (uint32_t i = 0; i < count && !shard->failed; i++) {
		struct coh_out out = out_of(shard);
		int error = coh_fetch(shard->coh, hint[i].gpn, hint[i].write ? COH_WRITE : COH_READ,
				      pod_now_ns(shard), &out);

		if (error < 0)
			core_failed(shard, error, "a hint was refused");
		else
			carry_out(shard, &out, NULL);
	}
}

static void take_commands(struct shard *shard)
{
	struct pager_command command[SHARD_COMMANDS];
	uint32_t count = pager_queue_take(&shard->queue, command, SHARD_COMMANDS);

	for (uint32_t i = 0; i < count && !shard->failed; i++) {
		const struct pager_command *c = &command[i];
		struct coh_out out = out_of(shard);
		uint64_t now_ns = pod_now_ns(shard);
		int error;

		if (c->kind == PAGER_FETCH) {
			fetch_hinted(shard, c->actor);
			continue;
		}
		if (c->kind == PAGER_PIN)
			error = coh_pin(shard->coh, c->actor, c->gpn, c->want, now_ns, &out);
		else if (c->kind == PAGER_PIN_HERE)
			error = coh_pin_here(shard->coh, c->actor, c->gpn, c->want, now_ns, &out);
		else
			error = coh_unpin(shard->coh, c->actor, now_ns, &out);
		if (error < 0 && (error != -EAGAIN || c->kind != PAGER_PIN_HERE)) {
			core_failed(shard, error, "a pin was refused");
			return;
		}
		/* Also when the pin was refused: what was left over from before is there. */
		if (carry_out(shard, &out, NULL) == 0 && error == -EAGAIN)
			pager_port_complete(shard->pager, c->actor, error);
	}
}

static void peer_failed(struct shard *shard, uint16_t node, int error, const char *what)
{
	char cause[160];

	snprintf(cause, sizeof(cause), "page channel, shard %u: %s: %s", shard->index, what,
		 strerror(-error));
	shard_fail(shard, node, error, cause);
}

/* Another shard's page, or none at all: the core would be asked about memory it has not. */
static bool is_ours(const struct shard *shard, const struct coh_msg *msg)
{
	if (msg->type == COH_ROOM_GET || msg->type == COH_ROOM_IS || msg->type == COH_ROOM_PUT)
		return msg->gpn == 0; /* about no page */
	return guest_memory_is_ram(shard->plan.memory, msg->gpn << PAGE_SHIFT, PAGE_BYTES) &&
	       guest_memory_shard(shard->plan.memory, msg->gpn) == shard->index;
}

static void take_frame(struct shard *shard, uint16_t node)
{
	const struct page_frame *frame = &shard->frame;
	uint64_t now_ns = pod_now_ns(shard);
	uint32_t page = 0;

	for (uint32_t i = 0; i < frame->message_count && !shard->failed; i++) {
		struct coh_msg msg = frame->message[i];
		const void *data = NULL;
		struct coh_out out = out_of(shard);
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
			peer_failed(shard, node, error, "a message that no correct node sends");
		else if (error < 0)
			core_failed(shard, error, "a message was refused");
		else
			carry_out(shard, &out, data);
		shard->from = NODE_NONE;
	}
	if (!shard->failed) {
		int error = plan_settle(&shard->plan);

		if (error < 0)
			plan_failed(shard, error);
	}
	shard->fault_is_next = shard->woken_count > 0;
	count_woken(shard);
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
static bool take_frames(struct shard *shard, uint16_t node)
{
	struct page_channel *channel = shard->plan.peer[node].channel;

	set_unread(shard, node, false);
	for (uint32_t i = 0; i < FRAMES_PER_EVENT && !shard->failed; i++) {
		int error = channel->ops->receive(channel, &shard->frame);

		if (error == -EAGAIN)
			return i > 0;
		if (error < 0) {
			peer_failed(shard, node, error, "receiving");
			return true;
		}
		shard->hot_node = node;
		take_frame(shard, node);
	}
	set_unread(shard, node, true);
	return true;
}

static void take_unread(struct shard *shard)
{
	for (uint32_t node = 0; node < shard->plan.peer_count && !shard->failed; node++)
		if (shard->unread[node])
			take_frames(shard, (uint16_t)node);
}

static void take_time(struct shard *shard)
{
	uint64_t now_ns = pod_now_ns(shard);

	/* The bound is the protocol's: each call does work that did not fit before. */
	while (!shard->failed && coh_deadline(shard->coh) <= now_ns) {
		struct coh_out out = out_of(shard);
		int error = coh_tick(shard->coh, now_ns, &out);

		if (error < 0)
			core_failed(shard, error, "a tick was refused");
		else
			carry_out(shard, &out, NULL);
		if (out.count == 0)
			break;
	}
}

/* --- the loop --- */

/* Asks epoll to tell when a peer whose queue is not empty takes more, or no longer to. */
static void watch_writable(struct shard *shard, uint16_t node, bool want)
{
	struct page_channel *channel = shard->plan.peer[node].channel;
	struct epoll_event event = { .events = EPOLLIN | (want ? (uint32_t)EPOLLOUT : 0),
				     .data.u32 = node };

	if (shard->want_writable[node] == want)
		return;
	shard->want_writable[node] = want;
	if (epoll_ctl(shard->epoll_fd, EPOLL_CTL_MOD, channel->ops->fd(channel), &event) < 0)
		peer_failed(shard, node, -errno, "epoll");
}

static void go_on_sending(struct shard *shard, uint16_t node)
{
	struct page_channel *channel = shard->plan.peer[node].channel;
	int error = channel->ops->flush(channel);

	if (error < 0 && error != -EAGAIN)
		peer_failed(shard, node, error, "sending");
	else
		watch_writable(shard, node, error == -EAGAIN);
}

/* Frames to the peers; those that nobody waits for only when `idle`. */
static void send_all(struct shard *shard, bool idle)
{
	int error = plan_flush(&shard->plan, idle);
	uint16_t node;

	if (error < 0) {
		plan_failed(shard, error);
		return;
	}
	count_woken(shard);
	/* Those whose frames left in the middle of the pass, too: a full socket has to be watched. */
	while (!shard->failed && (node = plan_sent(&shard->plan)) != NODE_NONE)
		go_on_sending(shard, node);
}

static void dispatch(struct shard *shard, const struct epoll_event *event)
{
	if (event->data.u32 == EVENT_FAULT) {
		take_faults(shard);
	} else if (event->data.u32 == EVENT_COMMAND) {
		take_commands(shard);
	} else if (event->data.u32 != EVENT_SEEN) {
		uint16_t node = (uint16_t)event->data.u32;

		if (event->events & EPOLLOUT)
			go_on_sending(shard, node);
		if (!shard->failed && (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
			take_frames(shard, node);
	}
}

static void pass(struct shard *shard, const struct epoll_event *event, int count)
{
	if (shard->unread_count > 0)
		take_unread(shard);
	for (int i = 0; i < count && !shard->failed; i++)
		dispatch(shard, &event[i]);
	if (!shard->failed)
		take_time(shard);
	take_queued(shard);
	if (!shard->failed)
		send_all(shard, shard->lazy_passes >= LAZY_PASSES);
	shard->lazy_passes = plan_has_lazy(&shard->plan) ? shard->lazy_passes + 1 : 0;
}

static void publish(struct shard *shard, uint64_t now_ns)
{
	struct shard_stats *stats = &shard->stats;
	struct coh_stats core;
	struct guest_memory_counts memory;
	uint64_t messages = 0, out = 0, in = 0, calls = shard->calls;

	shard->published_ns = now_ns;
	coh_stats_get(shard->coh, &core);
	for (uint32_t node = 0; node < shard->plan.peer_count; node++) {
		struct page_channel *channel = shard->plan.peer[node].channel;
		struct page_channel_stats one;

		if (!channel)
			continue;
		channel->ops->stats(channel, &one);
		messages += one.messages_out;
		out += one.bytes_out;
		in += one.bytes_in;
		calls += one.calls;
	}
	guest_memory_counts(shard->plan.memory, shard->index, &memory);
	stat_set(&stats->call_count, calls + memory.calls);
	stat_set(&stats->shootdown_count, memory.shootdowns);
	stat_set(&stats->shootdown_page_count, memory.shootdown_pages);
	stat_set(&stats->message_count, messages);
	stat_set(&stats->bytes_out, out);
	stat_set(&stats->bytes_in, in);
	stat_set(&stats->page_count, shard->plan.pages_sent);
	stat_set(&stats->readahead_count, core.readahead_count);
	stat_set(&stats->fetch_count, core.fetch_count);
	stat_set(&stats->deferred_count, core.deferred_count);
	stat_set(&stats->evict_push_count, core.evict_push_count);
	stat_set(&stats->evict_drop_count, core.evict_drop_count);
	stat_set(&stats->pages_owned, core.pages_owned);
	stat_set(&stats->pages_shared, core.pages_shared);
	stat_set(&stats->pages_reserved, core.pages_reserved);
	stat_set(&stats->capacity_pages, core.capacity);
	stat_set(&stats->chunks_homed, core.chunks_homed);
	stat_set(&stats->hold_ns, core.hold_ns);
}

/*
 * Looks straight at what is likely next: a fault if the last frame woke somebody, else a frame from
 * whom the last one came; and at the other of them now and then. That saves the system call that
 * epoll takes to say so.
 */
static bool look(struct shard *shard, uint32_t turn)
{
	bool fault = shard->fault_is_next != (turn % LOOKS_AT_OTHER == LOOKS_AT_OTHER - 2);

	if (fault || shard->hot_node == NODE_NONE)
		return take_faults(shard);
	return take_frames(shard, shard->hot_node);
}

static int poll_ready(struct shard *shard, struct epoll_event *event)
{
	shard->calls++;
	return epoll_wait(shard->epoll_fd, event, SHARD_EVENTS, 0);
}

/* One turn of a spin: how many events are ready, EVENT_SEEN for what look() took. */
static int spin_turn(struct shard *shard, struct epoll_event *event, uint32_t turn)
{
	if (turn % LOOKS_PER_EPOLL == LOOKS_PER_EPOLL - 1)
		return poll_ready(shard, event);
	if (!look(shard, turn))
		return 0;
	event[0] = (struct epoll_event){ .data.u32 = EVENT_SEEN };
	return 1;
}

/* Looks again and again until something is ready, the budget or the protocol's patience is over. */
static int spin(struct shard *shard, struct epoll_event *event, uint64_t start_ns, uint64_t wait_ns)
{
	uint64_t budget_ns = spinner_budget_ns(&shard->spinner);
	uint64_t before_ns = start_ns;

	if (budget_ns > wait_ns)
		budget_ns = wait_ns;
	for (uint32_t turn = 0; budget_ns > 0; turn++) {
		int count = spin_turn(shard, event, turn);
		uint64_t now_ns = local_now_ns();

		if (count != 0) {
			stat_add(&shard->stats.spin_hit_count, 1);
			return count;
		}
		if (now_ns - start_ns >= budget_ns)
			return 0;
		if (spinner_jump(&shard->spinner, now_ns - before_ns))
			break;
		before_ns = now_ns;
		if (now_ns - shard->published_ns > PUBLISH_NS)
			publish(shard, now_ns);
	}
	if (budget_ns > 0)
		stat_add(&shard->stats.spin_miss_count, 1);
	return 0;
}

static int sleep_until_ready(struct shard *shard, struct epoll_event *event, uint64_t wait_ns)
{
	struct timespec timeout = { .tv_sec = (time_t)(wait_ns / 1000000000u),
				    .tv_nsec = (long)(wait_ns % 1000000000u) };

	stat_add(&shard->stats.sleep_count, 1);
	shard->calls++;
	return epoll_pwait2(shard->epoll_fd, event, SHARD_EVENTS,
			    wait_ns == UINT64_MAX ? NULL : &timeout, NULL);
}

/* A frame that nobody waits for is left: gives it a moment more for company, and then sends it. */
static int linger(struct shard *shard, struct epoll_event *event, uint64_t start_ns)
{
	int count = 0;

	if (spinner_budget_ns(&shard->spinner) == 0)
		count = poll_ready(shard, event);
	else
		for (uint32_t turn = 0; count == 0 && local_now_ns() - start_ns < LINGER_NS; turn++)
			count = spin_turn(shard, event, turn);
	if (count == 0)
		send_all(shard, true);
	return count;
}

/* What is ready, after waiting for it: a count, 0 when it is time for a tick. */
static int wait_ready(struct shard *shard, struct epoll_event *event)
{
	uint64_t deadline_ns = shard->failed ? UINT64_MAX : coh_deadline(shard->coh);
	uint64_t now_ns = deadline_ns == UINT64_MAX ? 0 : pod_now_ns(shard);
	uint64_t wait_ns = deadline_ns == UINT64_MAX ? UINT64_MAX
			   : deadline_ns > now_ns    ? deadline_ns - now_ns
						     : 0;
	uint64_t start_ns = local_now_ns();
	bool slept = false;
	int count;

	if (wait_ns == 0 || (shard->unread_count > 0 && !shard->failed))
		return poll_ready(shard, event);
	if (!shard->failed && plan_has_lazy(&shard->plan)) {
		count = linger(shard, event, start_ns);
		if (count != 0 || shard->failed)
			return count;
	}
	count = shard->failed ? 0 : spin(shard, event, start_ns, wait_ns);
	if (count == 0) {
		uint64_t spun_ns = local_now_ns() - start_ns;

		if (wait_ns != UINT64_MAX && spun_ns >= wait_ns)
			return 0;
		if (!shard->failed)
			publish(shard, start_ns + spun_ns);
		slept = true;
		count = sleep_until_ready(shard, event,
					  wait_ns == UINT64_MAX ? UINT64_MAX : wait_ns - spun_ns);
	}
	spinner_gap(&shard->spinner, local_now_ns() - start_ns, slept);
	return count;
}

void *shard_run(void *arg)
{
	struct shard *shard = arg;
	struct epoll_event event[SHARD_EVENTS];
	char name[16];

	snprintf(name, sizeof(name), "shard-%u", shard->index);
	prctl(PR_SET_NAME, name);
	/* Deadlines are tens of microseconds; the default slack is fifty. */
	prctl(PR_SET_TIMERSLACK, 1000ul);

	while (!atomic_load_explicit(&shard->pager->stopping, memory_order_acquire)) {
		int count = wait_ready(shard, event);

		if (count < 0 && errno != EINTR) {
			core_failed(shard, -errno, "epoll");
			count = 0;
		}
		if (!shard->failed)
			pass(shard, event, count);
		else
			usleep(1000);
	}
	if (!shard->failed)
		publish(shard, local_now_ns());
	return NULL;
}

/* --- setting up --- */

static int watch(struct shard *shard, int fd, uint32_t data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = data };

	return epoll_ctl(shard->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/*
 * The shard's part of the node's capacity: in proportion to the RAM it has, so that where guest
 * memory is nearly the sum of all capacities, that is so in every shard and not more in one.
 */
static uint32_t capacity_of(const struct shard *shard)
{
	const struct guest_memory *memory = shard->pager->config.memory;
	uint64_t total = 0, own = guest_memory_shard_pages(memory, shard->index);
	uint64_t pages;

	for (uint32_t i = 0; i < shard->pager->shard_count; i++)
		total += guest_memory_shard_pages(memory, i);
	pages = (uint64_t)((unsigned __int128)(shard->pager->config.capacity_bytes / PAGE_BYTES) *
			   own / total);
	return pages < PAGER_SHARD_PAGES_MIN ? PAGER_SHARD_PAGES_MIN : (uint32_t)pages;
}

/*
 * What was moved out takes memory until it is given back, and the promise counts it. A little is
 * enough: a 32nd is the longest run where the capacity is small.
 */
static uint32_t capacity_left(const struct shard *shard, uint32_t pages)
{
	uint32_t taken = guest_memory_limit_taken(shard->pager->config.memory, shard->index,
						  pages / TAKEN_PART);

	return pages - taken;
}

static int create_core(struct shard *shard, uint32_t actor_count)
{
	const struct pager_config *config = &shard->pager->config;
	uint32_t ranges = guest_memory_range_count(config->memory);
	struct guest_memory_range low = guest_memory_range(config->memory, 0);
	struct coh_config core = {
		.self = config->self,
		.node_count = config->node_count,
		.actor_count = actor_count,
		.gpn_limit = guest_memory_top(config->memory) >> PAGE_SHIFT,
		.capacity = capacity_left(shard, capacity_of(shard)),
		.window = config->window,
		.readahead = config->readahead,
		.zero_batch = config->zero_batch,
		.neighbours = shard->pager->shard_count == 1 && ranges <= 2,
		.gap_gpn = ranges == 2 ? (low.gpa + low.size) >> PAGE_SHIFT : 0,
		.refetch = config->refetch,
		.hold_ns = config->hold_ns,
		.hold_ns_max = config->hold_ns_max,
		.broken = config->broken,
		.actors = shard->pager->coh_actors,
	};

	return coh_create(&core, &shard->coh);
}

int shard_init(struct shard *shard, struct pager *pager, uint32_t index)
{
	uint32_t actors = pager->actors.vcpu_count + pager->actors.port_count + NAMELESS_ACTORS;
	cpu_set_t cores;
	int error;

	shard->pager = pager;
	shard->index = index;
	shard->from = NODE_NONE;
	shard->hot_node = NODE_NONE;
	shard->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (shard->epoll_fd < 0)
		return -errno;
	shard_stats_init(&shard->stats);
	CPU_ZERO(&cores);
	(void)sched_getaffinity(0, sizeof(cores), &cores);
	spinner_init(&shard->spinner, pager->config.spin, pager->config.spin_ns_max,
		     (uint32_t)CPU_COUNT(&cores));
	shard->want_writable = calloc(pager->config.node_count, sizeof(*shard->want_writable));
	shard->unread = calloc(pager->config.node_count, sizeof(*shard->unread));
	shard->wait = calloc(actors, sizeof(*shard->wait));
	shard->cached_tid = calloc(TID_CACHE, sizeof(*shard->cached_tid));
	shard->cached_actor = calloc(TID_CACHE, sizeof(*shard->cached_actor));
	shard->fetch_posted = calloc(pager->actors.vcpu_count + 1, sizeof(*shard->fetch_posted));
	if (!shard->want_writable || !shard->unread || !shard->wait || !shard->cached_tid ||
	    !shard->cached_actor || !shard->fetch_posted)
		return -ENOMEM;
	error = plan_init(&shard->plan, pager->config.memory, index, pager->config.node_count);
	shard->plan.lost = pager->config.lost;
	shard->plan.lost_arg = pager->config.arg;
	if (error == 0)
		error = pager_queue_init(&shard->queue, pager->actors.port_count,
					 pager->actors.vcpu_count);
	if (error == 0)
		error = watch(shard, shard->queue.event_fd, EVENT_COMMAND);
	if (error == 0)
		error = watch(shard, guest_memory_fd(pager->config.memory, index), EVENT_FAULT);
	if (error == 0)
		error = create_core(shard, actors);
	return error;
}

int shard_add_channel(struct shard *shard, struct page_channel *channel)
{
	struct plan_peer *peer = &shard->plan.peer[channel->peer];
	int error;

	if (peer->channel)
		return -EEXIST;
	error = watch(shard, channel->ops->fd(channel), channel->peer);
	if (error == 0)
		peer->channel = channel;
	return error;
}

void shard_fini(struct shard *shard)
{
	plan_fini(&shard->plan);
	coh_destroy(shard->coh);
	pager_queue_destroy(&shard->queue);
	free(shard->want_writable);
	free(shard->unread);
	free(shard->wait);
	free(shard->cached_tid);
	free(shard->cached_actor);
	free(shard->fetch_posted);
	if (shard->epoll_fd >= 0)
		close(shard->epoll_fd);
}
