/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread: reads every control channel, judges heartbeats, keeps the clock, hands
 * messages on.
 *
 * It never waits for anything but its epoll (and for its turn, below): whatever might wait (a
 * device, a full console) is done by another thread; and where that is allowed it gets a core before
 * the host's other programs do.
 * So a node whose control thread is silent is a node that does not run.
 *
 * Channels come and go with members (steps_do.c): control_linked(), control_forget().
 *
 * What a peer says is judged twice, by its form (wire/) and by who says it (control_rules.h); a lie
 * ends the link. A peer that never stops talking gets its turn like all others.
 *
 * What is to be done every half second or less often is done with a heartbeat, early or late by half
 * an interval, and not at a wake-up of its own (struct duty): an idle node's thread wakes up to send
 * its heartbeat, and hardly else. Others' heartbeats do not wake it (control_doze()): it reads all
 * channels before it sends its own, and judges. It also looks after the vCPUs of this node
 * (vcpu_watch()), while there is one awake.
 *
 * All that it does but to wait, it does in its turn, which is a lock: a vCPU's thread that waits for
 * MOVE takes turns to look whether it is there (control_look()). That thread does not wait for its
 * turn, takes nothing but MOVE, and leaves all else, errors too, to the control thread. If it loses
 * its core meanwhile, this thread waits for it: of the two the one that is late is the heartbeat, by
 * as long as the host keeps a thread of an ordinary priority waiting.
 *
 * A failed page channel is not believed at once: a node that ends because of a third one closes all
 * its links, and its own last word (END, on the control channel) tells the real reason. It gets
 * LAST_WORDS_NS, and what had come by then is read before it is judged, however late this thread is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/heartbeat.h"
#include "node/control_rules.h"
#include "node/deadline.h"
#include "node/io.h"
#include "node/node_state.h"
#include "pager/members.h"

#define LAST_WORDS_NS	 400000000ull
#define PING_START_NS	 2000000ull   /* until the clock is settled, */
#define PING_INTERVAL_NS 100000000ull /* ... and from then on, */
#define PING_OFTEN_NS	 10000000ull  /* ... or as long as it is off by more than ... */
#define PING_ERROR_NS	 20000u
#define PING_CROWD	 16
/*
 * Where no vCPU is nobody reads the clock but who traces; its bound widens by some us until the next
 * ping, and when a vCPU comes it is asked at once, and often.
 */
#define PING_QUIET_NS 2000000000ull
/* Likewise the guest's TSC, if it is off by less, and the engine runs at the slope it was asked for. */
#define QUIET_TSC_NS	 5000
#define QUIET_LINE_NS	 20000000ull
#define RESYNC_QUIET_NS	 500000000ull
#define RESYNC_NS	 1000000000ull	/* the clock is read anew at least so often */
#define RESYNC_AGAIN_NS	 1000000ull	/* vCPUs that have not taken the TSC over are looked at */
#define RESYNC_WAIT_NS	 50000000ull	/* ... and waited for until then */
#define CONTRADICTION_NS 10000000000ull /* of quiet, before it is said again */
#define RATE_NS		 5000000000ull	/* and the TSC held against the kernel's clock */
#define MESH_POLL_NS	 1000000000ull	/* strangers that fell silent are dropped by then */
#define LOAD_STALL_NS	 10000000000ull
#define EVENTS_MAX	 64
#define HOLD_MS		 1000
#define MESSAGES_MAX	 64 /* of one peer in a row: nobody can keep this thread from the others */

struct duty {
	uint64_t due_ns; /* UINT64_MAX: not until somebody says so */
	bool slow;	 /* with a heartbeat */
};

struct control_thread {
	struct node *node;
	pthread_t thread;
	int epoll_fd, wake_fd;
	atomic_bool asleep, woken;  /* each writes its own and then reads the other's */
	pthread_mutex_t turn;	    /* guards what follows */
	struct control_message msg; /* that is being received */
	struct heartbeat heartbeat;
	struct duty ping, resync, rate, mesh, watch;
	uint64_t moved_ns, contradiction_ns;
	uint64_t read_ns; /* peers have had their turn for what had come by then */
	bool beats;	  /* this turn has a heartbeat */
	bool quiet;	  /* no vCPU was here at the last ping */
	struct control_pings pings;
	struct control_rules rules;
	struct control_loading load;
	bool unread[NODES_MAX]; /* a peer's channel has more than was read */

	pthread_mutex_t lock;	       /* guards the rest */
	uint64_t failed_ns[NODES_MAX]; /* when a page channel failed; 0: not */
	char failed_cause[NODES_MAX][128];
};

static uint64_t local_ns(const struct node *node)
{
	return node_clock_local_ns(node->clock);
}

static bool is_due(const struct control_thread *c, const struct duty *duty, uint64_t now)
{
	if (duty->slow)
		return c->beats && now + HEARTBEAT_INTERVAL_NS / 2 >= duty->due_ns;
	return now >= duty->due_ns;
}

static void again(struct duty *duty, uint64_t now, uint64_t in_ns)
{
	duty->due_ns = in_ns == UINT64_MAX ? UINT64_MAX : now + in_ns;
	duty->slow = in_ns >= HEARTBEAT_INTERVAL_NS && in_ns != UINT64_MAX;
}

/* When the thread has to wake up for it. */
static uint64_t wakes_ns(const struct duty *duty)
{
	return duty->slow ? UINT64_MAX : duty->due_ns;
}

static void handle_ping(struct node *node, const struct control_message *msg)
{
	struct control_message pong = { .type = CONTROL_CLOCK_PONG };
	uint64_t now = node_now_ns(node);
	pong.clock_pong = (struct control_clock_pong){
		.id = msg->clock_ping.id,
		.sent_ns = msg->clock_ping.sent_ns,
		.peer_received_ns = now,
		.peer_sent_ns = now,
	};
	node_send(node, msg->src, &pong);
}

/*
 * Later, a guest's time that is off by much ends the pod (resync_vcpus()): until then the clock may
 * find back.
 */
static void clock_contradicts(struct node *node, bool started)
{
	static const char what[] = "runs apart from the first node's by more than %u ppm, or has "
				   "jumped: has it been suspended, is its TSC constant?";
	char text[160];
	snprintf(text, sizeof(text), what, CLOCK_DRIFT_PPB_MAX / 1000);
	if (started) {
		uint64_t now = local_ns(node);
		if (now >= node->control->contradiction_ns)
			node_say(node, "this host's clock %s", text);
		node->control->contradiction_ns = now + CONTRADICTION_NS;
	} else {
		node_end_with(node, CONTROL_END_NODE_ERROR, 1, "node %u (%s): its clock %s",
			      node->self, members_name(node->members, node->self), text);
	}
}

/* Whose clock is the pod's has to answer all nodes' pings. */
static uint64_t ping_crowd(const struct node *node)
{
	return 1 + members_count(node->members) / PING_CROWD;
}

static void handle_pong(struct node *node, const struct control_clock_pong *pong)
{
	if (!control_pings_answer(&node->control->pings, pong))
		return;
	struct clock_sample sample = { .sent_ns = pong->sent_ns,
				       .received_ns = local_ns(node),
				       .pod_received_ns = pong->peer_received_ns,
				       .pod_sent_ns = pong->peer_sent_ns };
	bool ready = node_clock_ready(node->clock);
	/* From the first on they come quickly, and while the start waits for them each asks for the next. */
	if (node_clock_error_ns(node->clock) == UINT64_MAX || (!ready && ping_crowd(node) == 1))
		again(&node->control->ping, 0, 0);
	if (node_clock_pong(node->clock, &sample) < 0)
		clock_contradicts(node, ready);
	if (ready || !node_clock_ready(node->clock))
		return;
	pthread_mutex_lock(&node->lock);
	pthread_cond_broadcast(&node->changed); /* start.c waits for it */
	pthread_mutex_unlock(&node->lock);
}

/* What resets the guest on another node is the loader's to judge. Who joins ends alone. */
static void take_end(struct node *node, uint16_t src, const struct control_end *end)
{
	char cause[sizeof(end->text) + 32];
	enum member_state state = members_state(node->members, src);
	if (state == MEMBER_JOINING || state == MEMBER_GONE) {
		snprintf(cause, sizeof(cause), "it ended: %s", end->text);
		mesh_down(node->mesh, src, -EPIPE, cause);
		return;
	}
	if (members_seat_is_here(node->members, SEAT_LOADER) &&
	    (end->kind == CONTROL_END_RESET || end->kind == CONTROL_END_TRIPLE_FAULT))
		node_guest_reset(node, end);
	else
		node_told_end(node, end);
}

/* What is wrong with it after all, or NULL. */
static const char *handle_message(struct node *node, const struct control_message *msg)
{
	switch (msg->type) {
	case CONTROL_HEARTBEAT:
		break;
	case CONTROL_CLOCK_PING:
		handle_ping(node, msg);
		break;
	case CONTROL_CLOCK_PONG:
		handle_pong(node, &msg->clock_pong);
		break;
	/* The rules let these come only once vCPUs and devices are all there. */
	case CONTROL_INTERRUPT:
		guest_io_deliver(node, msg);
		break;
	case CONTROL_EOI:
		devices_eoi_later(node->devices, msg->eoi.vector);
		break;
	case CONTROL_IO_REQUEST:
		if (msg->io_request.kind == CONTROL_IO_STARTUP)
			return startup_request(node, msg);
		devices_request(node->devices, msg);
		break;
	case CONTROL_PUBLISHED:
	case CONTROL_STOPPED:
	case CONTROL_NEEDS_RESET:
	case CONTROL_QUEUE:
	case CONTROL_QUEUE_PLACE:
	case CONTROL_DOORBELL:
		return queues_message(node, msg);
	case CONTROL_BUTTON:
		if (members_state(node->members, msg->src) != MEMBER_GONE)
			devices_press_later(node->devices, msg->src);
		break;
	case CONTROL_TAKEN:
		startup_taken(node, &msg->taken);
		break;
	case CONTROL_IO_REPLY:
		guest_io_reply(node, msg);
		break;
	case CONTROL_FEATURES:
	case CONTROL_START:
	case CONTROL_READY:
	case CONTROL_RUN:
		start_message(node, msg);
		break;
	case CONTROL_STATS_REQUEST:
	case CONTROL_STATS_REPLY:
		stats_reply(node, msg);
		break;
	case CONTROL_MOVE:
	case CONTROL_PLACE:
	case CONTROL_REFUSED:
	case CONTROL_COMING:
	case CONTROL_MOVE_ASK:
	case CONTROL_MOVE_TOLD:
		return moves_message(node, msg);
	case CONTROL_LOAD:
	case CONTROL_OUTCOMES:
	case CONTROL_POLICY:
	case CONTROL_PIN:
		return policy_message(node, msg);
	case CONTROL_STEP:
	case CONTROL_STEP_DONE:
	case CONTROL_STEP_OVER:
	case CONTROL_WISH:
	case CONTROL_WISH_REFUSED:
	case CONTROL_JOIN_READY:
	case CONTROL_JOIN_FAILED:
	case CONTROL_DRAINED:
		return steps_message(node, msg);
	case CONTROL_END:
		take_end(node, msg->src, &msg->end);
		break;
	}
	return NULL;
}

/* False: no correct node says this now. */
static bool take_message(struct control_thread *c, const struct control_message *msg)
{
	enum node_phase phase = (enum node_phase)atomic_load(&c->node->phase);
	const char *lie = control_rules_lie(&c->rules, phase, msg);
	char cause[96];

	if (!lie)
		lie = handle_message(c->node, msg);
	if (!lie)
		return true;
	snprintf(cause, sizeof(cause), "it sent %s %s", control_type_name(msg->type), lie);
	mesh_down(c->node->mesh, msg->src, -EPROTO, cause);
	return false;
}

/*
 * Edge-triggered: until the channel has no more, or the peer has had its turn; then it is
 * remembered as unread. A full socket tells when it has room, also to who has sent meanwhile and
 * emptied the queue. One that had no memory tells nothing: it is tried again with the heartbeats.
 */
static void read_channel(struct control_thread *c, uint16_t peer)
{
	struct control_channel *channel = mesh_control(c->node->mesh, peer);
	c->unread[peer] = false;
	if (!channel) /* it joins, or has been closed since */
		return;
	int sent = control_flush(channel), r = 0;
	if (sent == 0 && atomic_load(&c->node->phase) >= NODE_READY) {
		guest_io_flush(c->node, peer);
		queues_flush(c->node, peer);
	}
	for (uint32_t i = 0; r == 0; i++) {
		if (i == MESSAGES_MAX) {
			c->unread[peer] = true;
			return;
		}
		r = control_receive(channel, &c->msg);
		if (r < 0)
			break;
		heartbeat_heard(&c->heartbeat, peer, local_ns(c->node));
		if (!take_message(c, &c->msg))
			r = -EPROTO;
		/* What it said may have been the last that its links were kept for. */
		if (mesh_control(c->node->mesh, peer) != channel)
			return;
	}
	/* What sending says comes second: the peer's last words may be there to be read. */
	if (r == -EAGAIN && sent < 0)
		r = sent;
	if (r != -EAGAIN) {
		heartbeat_forget(&c->heartbeat, peer);
		mesh_down(c->node->mesh, peer, r, NULL);
	}
}

/* What was taken from the socket and is not MOVE is for the control thread: epoll says nothing of it. */
static void leave_unread(struct control_thread *c, uint16_t peer)
{
	if (c->unread[peer])
		return;
	c->unread[peer] = true;
	eventfd_write(c->wake_fd, 1);
}

void control_wake(struct node *node)
{
	struct control_thread *c = node->control;
	if (!c)
		return;
	atomic_store(&c->woken, true);
	if (atomic_load(&c->asleep))
		eventfd_write(c->wake_fd, 1);
}

bool control_hold(struct node *node)
{
	struct timespec until = deadline_after_ms(HOLD_MS);
	return node->control && deadline_lock(&node->control->turn, &until) == 0;
}

void control_let_go(struct node *node)
{
	pthread_mutex_unlock(&node->control->turn);
}

void control_look(struct node *node, uint16_t peer)
{
	struct control_thread *c = node->control;
	bool behind;
	if (pthread_mutex_trylock(&c->turn) != 0)
		return;
	struct control_channel *channel = mesh_control(node->mesh, peer);
	if (!channel) {
		pthread_mutex_unlock(&c->turn);
		return;
	}
	uint16_t type = control_peek(channel, &behind);
	bool taken = type == CONTROL_MOVE && control_receive(channel, &c->msg) == 0 &&
		     take_message(c, &c->msg);
	if (behind || (type && !taken))
		leave_unread(c, peer);
	pthread_mutex_unlock(&c->turn);
}

void control_link_failed(struct node *node, uint16_t peer, const char *cause)
{
	struct control_thread *c = node->control;
	pthread_mutex_lock(&c->lock);
	if (!c->failed_ns[peer]) {
		c->failed_ns[peer] = local_ns(node);
		snprintf(c->failed_cause[peer], sizeof(c->failed_cause[peer]), "%s", cause);
	}
	pthread_mutex_unlock(&c->lock);
	eventfd_write(c->wake_fd, 1);
}

/* Page channels whose node has had its time for last words. Returns when the next one will have. */
static uint64_t judge_failed(struct control_thread *c)
{
	uint64_t next = UINT64_MAX;
	char cause[sizeof(c->failed_cause[0])];
	members_for_each_other(c->node->members, n) {
		pthread_mutex_lock(&c->lock);
		uint64_t due = c->failed_ns[n] ? c->failed_ns[n] + LAST_WORDS_NS : UINT64_MAX;
		memcpy(cause, c->failed_cause[n], sizeof(cause));
		pthread_mutex_unlock(&c->lock);
		if (due <= c->read_ns)
			mesh_down(c->node->mesh, n, -EPIPE, cause);
		else if (due < next)
			next = due;
	}
	return next;
}

static void beat(struct control_thread *c, uint64_t now)
{
	static const struct control_message beat = { .type = CONTROL_HEARTBEAT };
	uint16_t dead[NODES_MAX];
	bool send;
	uint32_t count = heartbeat_tick(&c->heartbeat, now, &send, dead);
	c->beats = send;
	if (send)
		node_broadcast(c->node, &beat);
	for (uint32_t i = 0; i < count; i++) {
		char cause[96];
		snprintf(cause, sizeof(cause),
			 "nothing heard from it for %.1f s: it hangs, or its network is cut",
			 (double)heartbeat_silence_ns(&c->heartbeat, dead[i], now) / 1e9);
		mesh_down(c->node->mesh, dead[i], -ETIMEDOUT, cause);
	}
}

/*
 * On a busy host most pings say little, and the few that nobody held up count: so more of them are
 * sent as long as the error is large.
 */
static uint64_t ping_interval_ns(const struct node *node, bool quiet)
{
	uint64_t crowd = ping_crowd(node);
	/* Who answers may still wait for others: then nobody reads what piles up there. */
	if (node_clock_error_ns(node->clock) == UINT64_MAX)
		return PING_INTERVAL_NS;
	if (!node_clock_settled(node->clock))
		return PING_START_NS * crowd;
	if (quiet)
		return PING_QUIET_NS;
	if (node_clock_error_ns(node->clock) > PING_ERROR_NS)
		return PING_OFTEN_NS * crowd;
	return PING_INTERVAL_NS;
}

static bool has_vcpus(const struct node *node)
{
	for (uint32_t v = 0; v < node->config->vcpu_count; v++)
		if (node_has_vcpu(node, v))
			return true;
	return false;
}

static void keep_clock(struct control_thread *c, uint64_t now)
{
	struct node *node = c->node;
	if (members_seat_is_here(node->members, SEAT_CLOCK)) {
		again(&c->ping, now, UINT64_MAX);
		return;
	}
	/* Whoever has come reads it, and the guest's TSC. */
	if (c->quiet && has_vcpus(node)) {
		again(&c->ping, now, 0);
		again(&c->resync, now, 0);
	}
	if (!is_due(c, &c->ping, now))
		return;
	struct control_message ping = { .type = CONTROL_CLOCK_PING };
	ping.clock_ping = control_pings_new(&c->pings, local_ns(node));
	node_send_seat(node, SEAT_CLOCK, &ping);
	c->quiet = atomic_load(&node->run_ns) && !has_vcpus(node);
	again(&c->ping, now, ping_interval_ns(node, c->quiet));
}

/* A line that nobody reads and that is nearly right is looked after with the heartbeats. */
static uint64_t resync_in_ns(const struct control_thread *c, const struct node_clock_follow *follow)
{
	int64_t off_ns = c->quiet ? node_clock_tsc_error_ns(c->node->clock) : 0;
	if (c->quiet && follow->again_ns >= QUIET_LINE_NS && follow->again_ns < RESYNC_QUIET_NS &&
	    off_ns < QUIET_TSC_NS && off_ns > -QUIET_TSC_NS)
		return RESYNC_QUIET_NS;
	return follow->again_ns;
}

/* The guest's TSC here goes after the pod clock; all vCPUs take it over when it has been moved. */
static void resync_vcpus(struct control_thread *c, uint64_t now)
{
	struct node *node = c->node;
	struct node_clock_follow follow;
	if (!is_due(c, &c->resync, now))
		return;
	again(&c->resync, now, RESYNC_NS);
	node_clock_update(node->clock);
	if (!atomic_load(&node->vcpus_exist))
		return;
	/*
	 * Two vCPUs are never two moves apart. One that does not get to run, or waits for a page,
	 * takes over what it has missed before it runs the guest again; it is not waited for long.
	 */
	for (uint32_t v = 0; v < node->config->vcpu_count; v++)
		if (node->vcpu[v] && vcpu_resync_pending(node->vcpu[v]) &&
		    now < c->moved_ns + RESYNC_WAIT_NS) {
			again(&c->resync, now, RESYNC_AGAIN_NS);
			return;
		}
	node_clock_tsc_follow(node->clock, &follow);
	again(&c->resync, now, resync_in_ns(c, &follow));
	if (follow.moved)
		c->moved_ns = now;
	for (uint32_t v = 0; follow.moved && v < node->config->vcpu_count; v++)
		if (node->vcpu[v])
			vcpu_resync_tsc(node->vcpu[v]);
	if (follow.lost_ns)
		node_end_with(node, CONTROL_END_NODE_ERROR, 1,
			      "node %u (%s): the guest's TSC here is off by %.1f ms and does not "
			      "find back: its host's clock has jumped, or runs unsteadily",
			      node->self, members_name(node->members, node->self),
			      (double)follow.lost_ns / 1e6);
}

/* A TSC that does not run as it did, by the kernel's clock, is somebody's to know. */
static void watch_rate(struct control_thread *c, uint64_t now)
{
	uint32_t khz, was = c->node->features.tsc_khz;
	if (!is_due(c, &c->rate, now))
		return;
	again(&c->rate, now, RATE_NS);
	if (node_clock_rate_changed(c->node->clock, &khz))
		node_say(c->node,
			 "this host's TSC runs at %u kHz, not at %u as before: the guest's time "
			 "is wrong by as much",
			 khz, was);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The loader waits for another node's pages only here; who beats and does not answer ends the pod.
 */
static void judge_load(struct control_thread *c, uint64_t now)
{
	struct node *node = c->node;
	uint64_t at_ns = atomic_load(&node->loading_ns);
	if (control_loading_stalled_ns(&c->load, at_ns, now) > LOAD_STALL_NS)
		node_end_with(
			node, CONTROL_END_NODE_ERROR, 1,
			"node %u (%s) cannot load the guest: another node has not answered for "
			"a page for %llu s",
			node->self, members_name(node->members, node->self),
			LOAD_STALL_NS / 1000000000);
}

/* What vcpu_watch() finds is a defect of ours: it is said, and tests want it to end the pod. */
static enum vcpu_watched watch_vcpu(struct node *node, uint32_t v)
{
	enum vcpu_watched found = vcpu_watch(node->vcpu[v]);
	if (found != VCPU_WATCHED_REKICKED)
		return found;
	node_say(node, "vCPU %u had lost a kick and was kicked again: please report it", v);
	if (getenv("EAGRE_REKICK_ENDS"))
		node_end_with(node, CONTROL_END_NODE_ERROR, 1,
			      "vCPU %u on node %u (%s) had lost a kick", v, node->self,
			      members_name(node->members, node->self));
	return found;
}

/* Who is asleep is not watched; who has woken up since is at the thread's next turn. */
static void watch_vcpus(struct control_thread *c, uint64_t now)
{
	struct node *node = c->node;
	uint64_t in_ns = UINT64_MAX;
	if (!is_due(c, &c->watch, now) && c->watch.due_ns != UINT64_MAX)
		return;
	bool runs = atomic_load(&node->run_ns) && !node_has_ended(node);
	for (uint32_t v = 0; runs && v < node->config->vcpu_count; v++) {
		if (!node->vcpu[v] || vcpu_rests(node->vcpu[v]))
			continue;
		in_ns = least(in_ns, watch_vcpu(node, v) == VCPU_WATCHED_SOON ? VCPU_WATCH_NS
									      : 4 * VCPU_WATCH_NS);
	}
	again(&c->watch, now, in_ns);
}

/* What must happen at its time comes first, however much a peer has to say. */
static int wait_ms(struct control_thread *c)
{
	struct node *node = c->node;
	uint64_t now = local_ns(node);
	uint64_t next = judge_failed(c);
	beat(c, now);
	keep_clock(c, now);
	judge_load(c, now);
	resync_vcpus(c, now);
	watch_rate(c, now);
	watch_vcpus(c, now);
	if (is_due(c, &c->mesh, now)) {
		again(&c->mesh, now, MESH_POLL_NS);
		mesh_poll(c->node->mesh);
	}
	next = least(least(next, heartbeat_deadline(&c->heartbeat)), wakes_ns(&c->resync));
	next = least(least(next, wakes_ns(&c->ping)), wakes_ns(&c->watch));
	next = least(next, steps_deadline(node));
	members_for_each_other(node->members, n)
		if (c->unread[n])
			return 0;
	now = local_ns(node);
	if (next <= now)
		return 0;
	uint64_t ms = (next - now + 999999) / 1000000;
	return ms < 1000 ? (int)ms : 1000;
}

static void *control_main(void *arg)
{
	struct control_thread *c = arg;
	struct epoll_event events[EVENTS_MAX];
	pthread_setname_np(pthread_self(), "control");
	/* Only the privileged may; the others do without. */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), CONTROL_NICE);
	pthread_mutex_lock(&c->turn);
	for (;;) {
		int ms = wait_ms(c);
		uint64_t begin = local_ns(c->node);
		pthread_mutex_unlock(&c->turn);
		atomic_store(&c->asleep, true);
		if (atomic_load(&c->woken))
			ms = 0;
		int count = epoll_wait(c->epoll_fd, events, EVENTS_MAX, ms);
		atomic_store(&c->asleep, false);
		atomic_store(&c->woken, false);
		pthread_mutex_lock(&c->turn);
		bool beats = local_ns(c->node) >= heartbeat_deadline(&c->heartbeat);
		members_for_each_other(c->node->members, n)
			if (c->unread[n] || beats)
				read_channel(c, n);
		for (int i = 0; i < count; i++) {
			uint32_t what = events[i].data.u32;
			eventfd_t value;
			if (what < NODES_MAX)
				read_channel(c, (uint16_t)what);
			else if (what == NODES_MAX)
				mesh_poll(c->node->mesh);
			else
				eventfd_read(c->wake_fd, &value);
		}
		c->read_ns = begin;
		if (atomic_load(&c->node->phase) >= NODE_READY)
			moves_settle(c->node);
		steps_settle(c->node);
	}
	return NULL;
}

static int watch(struct control_thread *c, int fd, uint32_t events, uint32_t what)
{
	struct epoll_event event = { .events = events, .data.u32 = what };
	return epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* Who is GONE has no link with a node that joins. */
static int watch_channel(struct control_thread *c, uint16_t peer)
{
	struct control_channel *channel = mesh_control(c->node->mesh, peer);
	if (!channel)
		return 0;
	control_doze(channel);
	return watch(c, control_fd(channel), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, peer);
}

static int watch_all(struct control_thread *c)
{
	struct node *node = c->node;
	int r = watch(c, c->wake_fd, EPOLLIN, NODES_MAX + 1);
	if (!r)
		r = watch(c, mesh_fd(node->mesh), EPOLLIN, NODES_MAX);
	members_for_each_other(node->members, n)
		if (!r)
			r = watch_channel(c, n);
	return r;
}

/* It is heard from now on, and told what it must know before anything else that is said to all. */
void control_linked(struct node *node, uint16_t peer)
{
	struct page_channel *pages[SHARDS_MAX];
	if (members_state(node->members, peer) != MEMBER_JOINING)
		return;
	for (uint16_t shard = 0; shard < node->config->shard_count; shard++)
		pages[shard] = mesh_pages(node->mesh, peer, shard);
	int r = node->pager ? pager_link(node->pager, pages) : 0;
	if (!r)
		r = watch_channel(node->control, peer);
	if (r < 0) {
		mesh_down(node->mesh, peer, r, NULL);
		return;
	}
	atomic_store(&node->members->ears[peer], EARS_ALL);
	moves_introduce(node, peer);
	policy_introduce(node, peer);
	queues_introduce(node, peer);
}

void control_watch(struct node *node, uint16_t peer)
{
	heartbeat_watch(&node->control->heartbeat, peer, local_ns(node));
}

void control_forget(struct node *node, uint16_t peer)
{
	struct control_thread *c = node->control;
	heartbeat_forget(&c->heartbeat, peer);
	c->unread[peer] = false;
	c->rules.said[peer] = 0;
	pthread_mutex_lock(&c->lock);
	c->failed_ns[peer] = 0;
	pthread_mutex_unlock(&c->lock);
}

/* The thread lives until the process ends, and it alone closes channels before. */
int control_start(struct node *node)
{
	struct control_thread *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->node = node;
	c->rules = (struct control_rules){ .config = node->config, .members = node->members };
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->turn, NULL);
	/* All have been heard while the mesh came up: no first word is waited for. */
	struct heartbeat_config config = { .self = node->self,
					   .node_count = node->members->number_count,
					   .first_ns = HEARTBEAT_TIMEOUT_NS };
	members_for_each(node->members, n)
		if (members_state(node->members, n) != MEMBER_GONE)
			member_set_add(&config.members, n);
	int r = c->wake_fd < 0 || c->epoll_fd < 0 ? -EMFILE : steps_create(node);
	if (!r)
		r = heartbeat_init(&c->heartbeat, &config, local_ns(node));
	if (!r)
		r = watch_all(c);
	if (!r) {
		node->control = c;
		r = -pthread_create(&c->thread, NULL, control_main, c);
	}
	if (r) {
		node->control = NULL;
		if (c->wake_fd >= 0)
			close(c->wake_fd);
		if (c->epoll_fd >= 0)
			close(c->epoll_fd);
		free(c);
	}
	return r;
}
