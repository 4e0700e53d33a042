/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard's thread: it waits for what is ready, and passes it on (shard.c).
 *
 * Problem: to sleep and be woken costs more than many a stall. Idea: it looks straight at what is
 * likely next for a while (spin.h), gives a frame that nobody waits for a moment for company, and
 * only then sleeps, until the protocol's next deadline at most.
 * Tested in tests/memory/test_pager.c, tests/memory/test_pager_spin.c, tests/podmem.
 */
#include "pager/shard_inside.h"

#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PUBLISH_NS	20000000u /* counters of the protocol are copied out this often when busy */
#define LOOKS_AT_OTHER	4u
#define LOOKS_PER_EPOLL 8u    /* of a spinning thread at what is likely, before it looks at all */
#define LINGER_NS	8000u /* that a spinning thread keeps a frame that nobody waits for */

static void publish(struct shard *shard, uint64_t now_ns)
{
	struct shard_stats *stats = &shard->stats;
	struct coh_stats core;
	struct guest_memory_counts memory;
	const struct page_channel_stats *past = &shard->members.past;
	uint64_t messages = past->messages_out, out = past->bytes_out, in = past->bytes_in;
	uint64_t calls = past->calls + shard->calls;

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
	stat_set(&stats->moves_denied_count, memory.moves_denied);
	stat_set(&stats->move_error, (uint64_t)memory.move_error);
	stat_set(&stats->message_count, messages);
	stat_set(&stats->bytes_out, out);
	stat_set(&stats->bytes_in, in);
	stat_set(&stats->page_count, shard->plan.pages_sent);
	stat_set(&stats->readahead_count, core.readahead_count);
	stat_set(&stats->fetch_count, core.fetch_count);
	stat_set(&stats->freed_count, core.freed_count);
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
		return shard_take_faults(shard);
	return shard_take_frames(shard, shard->hot_node);
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

/*
 * Nothing known is left: a pass has sent what is eager, linger() the rest, what the protocol can go
 * on with makes its deadline 0, and what waits for an end has looked behind the last (shard_pass()).
 * All others tell by a descriptor that stays ready.
 */
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
		shard_send_all(shard, true);
	return count;
}

/* A channel that does not end is cut then: members.c. */
static uint64_t until_cut_ns(const struct shard *shard, uint64_t now_ns, uint64_t wait_ns)
{
	uint64_t cut_ns = shard->members.cut_ns;
	uint64_t until_ns = cut_ns > now_ns ? cut_ns - now_ns : 0;

	return until_ns < wait_ns ? until_ns : wait_ns;
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

	if (shard->members.cut_ns != UINT64_MAX && !shard->failed)
		wait_ns = until_cut_ns(shard, start_ns, wait_ns);
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

	shard_members_begin(shard);
	while (!atomic_load_explicit(&shard->pager->stopping, memory_order_acquire)) {
		int count = wait_ready(shard, event);

		if (count < 0 && errno != EINTR) {
			shard_core_failed(shard, -errno, "epoll");
			count = 0;
		}
		if (!shard->failed)
			shard_pass(shard, event, count);
		else
			usleep(1000);
	}
	if (!shard->failed)
		publish(shard, local_now_ns());
	return NULL;
}
