/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network of the process's own (user_net.h).
 *
 * libslirp is a TCP/IP stack that is called: with packets of the guest, and with what has become of
 * its sockets, which it names anew before each wait. Here its sockets are kept in an epoll instance
 * of their own, which is what the caller waits for, and only what has changed is told to the kernel.
 *
 * What it has for the guest is kept in a ring, that of the pair which sent last on the packet's flow
 * (flows.h), until the guest has room. A connection has no more under way than its own buffer
 * (128 KiB), so the rings hold what tens of connections can bring forth at once; what comes on top is
 * dropped, and TCP sends it again.
 *
 * Each of the guest's flows costs this process a descriptor and up to 256 KiB of memory, and more than
 * FLOWS_OPEN_MAX would take those of others: packets that may open one more are dropped then, and
 * nobody is let in by a forward until some have ended. Nor is he when there are no descriptors; he is
 * looked at again later, as the forward's socket stays readable.
 *
 * The guest may leave checksums to us and send TCP segments larger than its network's packets: the
 * stack, which is in the same process, takes them whole.
 *
 * Tested by tests/backend/test_user_net.c.
 */
#include "backend/user_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "backend/flows.h"
#include "backend/net_header.h"
#include "backend/packet_ring.h"

#define MTU	       1500u
#define RING_BYTES     (8u << 20)
#define RING_BYTES_MIN (1u << 20)
#define EVENTS_MAX     64
#define WATCHES_MAX    16384 /* sockets of more than that number are not waited for */
#define ETHER_HEADER   14u
#define NO_TIMER       INT64_MAX
/* Of UDP's known ones twice as many; FLOWS_SLACK more before it is seen. */
#define FLOWS_OPEN_MAX	1024u
#define FLOWS_SLACK	32u
#define DESCRIPTORS_MAX (4 * FLOWS_OPEN_MAX) /* of the process, where its limit allows */
#define CLOSED_NS	100000000ll	     /* forwards, then */
#define ETHER_IPV4	0x0800u
#define IP_ICMP		1u
#define IP_TCP		6u
#define IP_UDP		17u

/* A socket, by its number. */
struct watch {
	uint32_t events; /* EPOLL*: as the kernel was told; 0: it is not watched */
	uint32_t round;	 /* in which libslirp last asked for it */
	uint32_t found;	 /* EPOLL*: what there is, in the round `found_round` */
	uint32_t found_round;
	bool open;    /* since it was registered, or asked for, until it was unregistered */
	bool listens; /* a forward's */
};

struct timer {
	SlirpTimerCb call;
	void *ctx;
	int64_t at_ms; /* NO_TIMER: not set */
	struct timer *next;
};

struct user_net {
	struct net net;
	struct backend_user user;
	Slirp *slirp;
	int timer_fd;
	bool changed;	/* what libslirp waits for may be something else */
	uint32_t fresh; /* pairs with packets that the guest's side has not been told of */
	bool checksum_good;
	uint32_t round;
	int *asked; /* descriptors, in the order in which libslirp named them */
	uint32_t asked_count, asked_room;
	int *before; /* those of the round before */
	uint32_t before_count;
	struct watch *watch;
	uint32_t open_count, open_max;
	uint32_t opening; /* packets since it was counted that may have opened something */
	int64_t closed_until_ns;
	bool closed;		 /* in this round */
	uint8_t udp_known[8192]; /* a bit for each of the guest's ports that has sent */
	struct timer *timers;

	/* Packets for the guest, of each pair. */
	struct packet_ring ring[NET_PAIRS_MAX];
	uint16_t pairs; /* in use */
	struct flows flows;
	uint64_t dropped;
	uint8_t packet[NET_PACKET_MAX];
};

static struct user_net *user_of(struct net *net)
{
	return (struct user_net *)net;
}

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static ssize_t on_packet(const void *packet, size_t bytes, void *ctx)
{
	struct user_net *u = ctx;
	uint16_t pair = flows_pair(&u->flows, u->pairs, packet, bytes);
	struct packet_ring *ring = &u->ring[pair];
	struct net_header header = { .flags = u->checksum_good ? NET_CHECKSUM_GOOD : 0 };
	uint32_t whole = NET_HEADER_BYTES + (uint32_t)bytes;
	uint8_t *room = NULL;
	if (bytes <= NET_PACKET_MAX - NET_HEADER_BYTES)
		room = packet_ring_reserve(ring, whole);
	if (room) {
		memcpy(room, &header, NET_HEADER_BYTES);
		memcpy(room + NET_HEADER_BYTES, packet, bytes);
		packet_ring_commit(ring, whole);
		u->fresh |= 1u << pair;
	} else {
		u->dropped++;
	}
	return (ssize_t)bytes;
}

static void on_guest_error(const char *message, void *ctx)
{
}

static int64_t on_clock(void *ctx)
{
	return now_ns();
}

static void *on_timer_new(SlirpTimerCb call, void *call_ctx, void *ctx)
{
	struct user_net *u = ctx;
	struct timer *timer = calloc(1, sizeof(*timer));
	if (timer) {
		*timer = (struct timer){
			.call = call, .ctx = call_ctx, .at_ms = NO_TIMER, .next = u->timers
		};
		u->timers = timer;
	}
	return timer;
}

static void on_timer_free(void *which, void *ctx)
{
	struct user_net *u = ctx;
	struct timer **at = &u->timers;
	while (*at && *at != which)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	free(which);
}

static void on_timer_mod(void *which, int64_t at_ms, void *ctx)
{
	struct user_net *u = ctx;
	struct timer *timer = which;
	if (timer)
		timer->at_ms = at_ms;
	u->changed = true;
}

static void unwatch(struct user_net *u, int fd)
{
	if (fd < 0 || fd >= WATCHES_MAX || !u->watch[fd].events)
		return;
	epoll_ctl(u->net.fd, EPOLL_CTL_DEL, fd, NULL);
	u->watch[fd] = (struct watch){ .open = u->watch[fd].open };
}

static void set_open(struct user_net *u, int fd, bool open)
{
	if (fd < 0 || fd >= WATCHES_MAX || u->watch[fd].open == open)
		return;
	u->watch[fd].open = open;
	u->open_count += open ? 1u : -1u;
}

static void on_register(int fd, void *ctx)
{
	set_open(ctx, fd, true);
}

/* Before the socket is closed: its number may be another's next. */
static void on_unregister(int fd, void *ctx)
{
	unwatch(ctx, fd);
	set_open(ctx, fd, false);
}

static void on_notify(void *ctx)
{
	struct user_net *u = ctx;
	u->changed = true;
}

static const SlirpCb callbacks = {
	.send_packet = on_packet,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_new = on_timer_new,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_register,
	.unregister_poll_fd = on_unregister,
	.notify = on_notify,
};

static uint32_t epoll_events(int events)
{
	return (events & SLIRP_POLL_IN ? EPOLLIN : 0u) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0u) |
	       (events & SLIRP_POLL_PRI ? EPOLLPRI : 0u);
}

static int slirp_events(uint32_t found)
{
	return (found & EPOLLIN ? SLIRP_POLL_IN : 0) | (found & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
	       (found & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (found & EPOLLERR ? SLIRP_POLL_ERR : 0) |
	       (found & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static bool does_listen(int fd)
{
	int yes = 0;
	socklen_t size = sizeof(yes);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &size) == 0 && yes;
}

static void say_crowded(struct user_net *u)
{
	backend_say(
		&u->user,
		"the guest has %u connections by this network: there can be no more until some end",
		u->open_count);
}

/* Libslirp would try, fail, and be woken up by who waits again. */
static bool may_accept(struct user_net *u)
{
	int spare = u->open_count < u->open_max ? fcntl(u->timer_fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (spare >= 0)
		close(spare);
	else
		u->closed_until_ns = now_ns() + CLOSED_NS;
	if (u->open_count >= u->open_max)
		say_crowded(u);
	return spare >= 0;
}

/* Its index, by which on_revents() is asked. */
static int on_add(int fd, int events, void *ctx)
{
	struct user_net *u = ctx;
	if (u->asked_count == u->asked_room || fd < 0 || fd >= WATCHES_MAX)
		return -1;
	struct watch *watch = &u->watch[fd];
	set_open(u, fd, true);
	if (!watch->events)
		watch->listens = does_listen(fd);
	/* Without events, errors are still of interest. */
	uint32_t wanted = epoll_events(events);
	if (!wanted || (watch->listens && u->closed))
		wanted = EPOLLERR;
	if (watch->events != wanted) {
		struct epoll_event event = { .events = wanted, .data.fd = fd };
		int op = watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
		if (epoll_ctl(u->net.fd, op, fd, &event) < 0)
			return -1;
		watch->events = wanted;
	}
	watch->round = u->round;
	u->asked[u->asked_count] = fd;
	return (int)u->asked_count++;
}

static int on_revents(int index, void *ctx)
{
	struct user_net *u = ctx;
	if (index < 0 || (uint32_t)index >= u->asked_count)
		return 0;
	const struct watch *watch = &u->watch[u->asked[index]];
	if (watch->found_round != u->round || (watch->listens && !may_accept(u)))
		return 0;
	return slirp_events(watch->found);
}

/* Of the timer, at the earliest of libslirp's own and what it waits for. */
static void set_timer(struct user_net *u, uint32_t timeout_ms)
{
	int64_t now = now_ns(), at = timeout_ms == UINT32_MAX ? 0 : now + timeout_ms * 1000000ll;
	for (const struct timer *t = u->timers; t; t = t->next)
		if (t->at_ms != NO_TIMER && (!at || t->at_ms * 1000000 < at))
			at = t->at_ms * 1000000 > now ? t->at_ms * 1000000 : now + 1;
	if (u->closed && (!at || u->closed_until_ns < at))
		at = u->closed_until_ns;
	/* An answer to what the guest has just sent is no event of a socket. */
	if (u->fresh)
		at = 1;
	struct itimerspec when = { .it_value = { at / 1000000000, at % 1000000000 } };
	timerfd_settime(u->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void user_settle(struct net *net)
{
	struct user_net *u = user_of(net);
	uint32_t timeout_ms = UINT32_MAX;
	if (!u->changed)
		return;
	u->changed = false;
	int *swap = u->before;
	u->before = u->asked;
	u->before_count = u->asked_count;
	u->asked = swap;
	u->asked_count = 0;
	u->round++;
	u->opening = 0;
	u->closed = now_ns() < u->closed_until_ns;
	slirp_pollfds_fill(u->slirp, &timeout_ms, on_add, u);
	for (uint32_t i = 0; i < u->before_count; i++)
		if (u->watch[u->before[i]].round != u->round)
			unwatch(u, u->before[i]);
	set_timer(u, timeout_ms);
}

static void run_timers(struct user_net *u)
{
	int64_t now_ms = now_ns() / 1000000;
	for (struct timer *t = u->timers, *next; t; t = next) {
		next = t->next;
		if (t->at_ms > now_ms)
			continue;
		t->at_ms = NO_TIMER;
		t->call(t->ctx);
	}
}

static void user_work(struct net *net)
{
	struct user_net *u = user_of(net);
	struct epoll_event event[EVENTS_MAX];
	uint64_t ticks;
	user_settle(net); /* the indices are of now */
	int n = epoll_wait(u->net.fd, event, EVENTS_MAX, 0);
	for (int i = 0; i < n; i++) {
		int fd = event[i].data.fd;
		if (fd == u->timer_fd) {
			(void)!read(fd, &ticks, sizeof(ticks));
			continue;
		}
		u->watch[fd].found = event[i].events;
		u->watch[fd].found_round = u->round;
	}
	run_timers(u);
	slirp_pollfds_poll(u->slirp, n < 0, on_revents, u);
	u->changed = true;
	u->fresh = 0; /* the caller looks */
}

/* May there be one more flow by it? ret_udp: the guest's port, where it is UDP, or 0. */
static bool may_open(const uint8_t *packet, size_t bytes, uint16_t *ret_udp)
{
	const uint8_t *ip = packet + ETHER_HEADER;
	*ret_udp = 0;
	if (bytes < ETHER_HEADER + 20 || (packet[12] << 8 | packet[13]) != ETHER_IPV4)
		return false;
	size_t header = (size_t)(ip[0] & 15) * 4;
	if ((ip[6] & 0x3f) | ip[7]) /* a fragment's ports and flags may be anywhere */
		return true;
	if (header < 20 || bytes < ETHER_HEADER + header + (ip[9] == IP_TCP ? 20 : 8))
		return false; /* nor does libslirp take it */
	if (ip[9] == IP_TCP)
		return (ip[header + 13] & 0x12) == 2; /* SYN, and no ACK */
	if (ip[9] == IP_UDP)
		*ret_udp = (uint16_t)(ip[header] << 8 | ip[header + 1]);
	return ip[9] == IP_UDP || ip[9] == IP_ICMP;
}

static bool is_crowded(struct user_net *u, const uint8_t *packet, size_t bytes)
{
	uint16_t udp;
	if (!may_open(packet, bytes, &udp))
		return false;
	if (u->opening >= FLOWS_SLACK && u->open_count + u->opening >= u->open_max) {
		u->changed = true;
		user_settle(&u->net);
	}
	uint8_t *known = &u->udp_known[udp / 8], bit = (uint8_t)(1u << udp % 8);
	if (u->open_count >= (udp && (*known & bit) ? 2 : 1) * u->open_max) {
		say_crowded(u);
		return true;
	}
	u->opening++;
	*known |= udp ? bit : 0;
	return false;
}

static int user_send(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	struct user_net *u = user_of(net);
	struct net_header header;
	size_t bytes = packet_gather(iov, count, u->packet, sizeof(u->packet));
	if (bytes < NET_HEADER_BYTES + ETHER_HEADER)
		return 0;
	memcpy(&header, u->packet, sizeof(header));
	uint8_t *packet = u->packet + NET_HEADER_BYTES;
	bytes -= NET_HEADER_BYTES;
	if ((header.flags & NET_NEEDS_CHECKSUM) && net_header_checksum(&header, packet, bytes) < 0)
		return 0;
	if (is_crowded(u, packet, bytes))
		return 0;
	flows_sent(&u->flows, pair, packet, bytes);
	slirp_input(u->slirp, packet, (int)bytes);
	u->changed = true;
	return 0;
}

static const uint8_t *user_peek(struct net *net, uint16_t pair, uint32_t *ret_bytes)
{
	struct user_net *u = user_of(net);
	const uint8_t *packet = packet_ring_peek(&u->ring[pair], ret_bytes);
	if (!packet)
		u->fresh &= ~(1u << pair);
	return packet;
}

static void user_drop(struct net *net, uint16_t pair)
{
	packet_ring_drop(&user_of(net)->ring[pair]);
}

static int user_offload(struct net *net, const struct net_offloads *offloads)
{
	user_of(net)->checksum_good = offloads->checksum;
	return 0;
}

static int user_set_pairs(struct net *net, uint16_t pairs)
{
	struct user_net *u = user_of(net);
	if (pairs < 1 || pairs > net->info.pairs)
		return -EINVAL;
	for (uint16_t pair = pairs; pair < u->pairs; pair++)
		packet_ring_clear(&u->ring[pair]);
	u->pairs = pairs;
	return 0;
}

static void user_destroy(struct net *net)
{
	struct user_net *u = user_of(net);
	if (u->slirp)
		slirp_cleanup(u->slirp);
	while (u->timers)
		on_timer_free(u->timers, u);
	if (u->timer_fd >= 0)
		close(u->timer_fd);
	if (u->net.fd >= 0)
		close(u->net.fd);
	for (uint16_t pair = 0; pair < NET_PAIRS_MAX; pair++)
		packet_ring_destroy(&u->ring[pair]);
	free(u->watch);
	free(u->asked);
	free(u->before);
	free(u);
}

static const struct net_ops user_ops = {
	.send = user_send,
	.peek = user_peek,
	.drop = user_drop,
	.offload = user_offload,
	.set_pairs = user_set_pairs,
	.settle = user_settle,
	.work = user_work,
	.destroy = user_destroy,
};

static int forward_ports(struct user_net *u, const struct user_net_options *options, char *why,
			 size_t why_size)
{
	struct in_addr guest;
	inet_pton(AF_INET, "10.0.2.15", &guest);
	for (uint32_t i = 0; i < options->forward_count; i++) {
		const struct user_net_forward *f = &options->forward[i];
		struct in_addr host;
		errno = 0;
		if (inet_pton(AF_INET, f->host, &host) == 1 &&
		    slirp_add_hostfwd(u->slirp, f->udp, host, f->host_port, guest, f->guest_port) ==
			    0)
			continue;
		int error = errno ? errno : EINVAL;
		snprintf(why, why_size, "%s: %s port %u of %s cannot be forwarded: %s%s",
			 options->user.name, f->udp ? "UDP" : "TCP", f->host_port, f->host,
			 strerror(error),
			 error == EADDRINUSE	  ? "; end who has it, or take another port"
			 : error == EACCES	  ? "; take one of 1024 or more"
			 : error == EADDRNOTAVAIL ? "; it is no address of this host"
						  : "");
		return -error;
	}
	return 0;
}

static Slirp *make_slirp(struct user_net *u)
{
	SlirpConfig config = {
		.version = 1,
		.in_enabled = true,
		.vhostname = "eagre",
		.if_mtu = MTU,
		.if_mru = 65521, /* IF_MRU_MAX: segments of TCP come whole */
	};
	inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &config.vhost);
	inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
	inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
	return slirp_new(&config, &callbacks, u);
}

/* One card's rings hold 8 MiB together, and each has room for what a few connections bring forth. */
static uint32_t ring_bytes(uint16_t pairs)
{
	return RING_BYTES / pairs > RING_BYTES_MIN ? RING_BYTES / pairs : RING_BYTES_MIN;
}

static int make_parts(struct user_net *u)
{
	u->watch = calloc(WATCHES_MAX, sizeof(*u->watch));
	u->asked_room = WATCHES_MAX;
	u->asked = calloc(u->asked_room, sizeof(*u->asked));
	u->before = calloc(u->asked_room, sizeof(*u->before));
	u->net.fd = epoll_create1(EPOLL_CLOEXEC);
	u->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = u->timer_fd };
	if (!u->watch || !u->asked || !u->before)
		return -ENOMEM;
	if (u->net.fd < 0 || u->timer_fd < 0 ||
	    epoll_ctl(u->net.fd, EPOLL_CTL_ADD, u->timer_fd, &event) < 0)
		return -errno;
	for (uint16_t pair = 0; pair < u->net.info.pairs; pair++)
		if (packet_ring_create(&u->ring[pair], ring_bytes(u->net.info.pairs)) < 0)
			return -ENOMEM;
	u->slirp = make_slirp(u);
	return u->slirp ? 0 : -ENOMEM;
}

/* As many as the process can have descriptors for, beside its own. */
static uint32_t flows_max(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return FLOWS_OPEN_MAX / 4;
	if (limit.rlim_cur < DESCRIPTORS_MAX) {
		rlim_t before = limit.rlim_cur;
		limit.rlim_cur =
			limit.rlim_max < DESCRIPTORS_MAX ? limit.rlim_max : DESCRIPTORS_MAX;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			limit.rlim_cur = before;
	}
	return limit.rlim_cur < DESCRIPTORS_MAX ? (uint32_t)limit.rlim_cur / 4 : FLOWS_OPEN_MAX;
}

int user_net_open(const struct user_net_options *options, struct net **ret_net, char *why,
		  size_t why_size)
{
	bool good = options->pairs >= 1 && options->pairs <= NET_PAIRS_MAX;
	struct user_net *u = good ? calloc(1, sizeof(*u)) : NULL;
	if (!u) {
		snprintf(why, why_size, "%s: cannot be made: %s", options->user.name,
			 good ? "no memory" : "it cannot have so many pairs of queues");
		return good ? -ENOMEM : -EINVAL;
	}
	u->user = options->user;
	u->pairs = 1;
	u->changed = true;
	u->timer_fd = -1;
	u->open_max = flows_max();
	u->net = (struct net){
		.ops = &user_ops,
		.fd = -1,
		.info = { .mtu = MTU, .pairs = options->pairs, .checksum = true, .segments = true },
	};
	int r = make_parts(u);
	if (r < 0)
		snprintf(why, why_size, "%s: cannot be made: %s", options->user.name, strerror(-r));
	if (!r)
		r = forward_ports(u, options, why, why_size);
	if (r < 0) {
		user_destroy(&u->net);
		return r;
	}
	*ret_net = &u->net;
	return 0;
}
