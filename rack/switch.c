/* SPDX-License-Identifier: Apache-2.0 */
/*
 * switch: the rack's Ethernet. Each host's QEMU connects its card (-netdev stream) to a unix
 * socket; the switch learns which address is behind which socket and passes frames on.
 *
 * Latency first: a frame is written to its port in the same turn in which it was read, without a
 * copy; only what the port's socket does not take is queued, up to a bound, and dropped beyond it,
 * as a real switch does. A port can be cut: it then loses every frame, like a pulled cable whose
 * link light stays on, which is the harder case for those who must notice.
 *
 *      switch DIR PORTS                      serves DIR/net.1 to DIR/net.PORTS
 *      switch DIR cut PORT | mend PORT | show   speaks to it
 *
 * A frame on the wire: its length, four bytes, big endian; its bytes (QEMU, net/stream.c).
 * Single-threaded. Tested by rack/test-rack.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define PORTS_MAX     64
#define ADDRESSES_MAX 256
#define HEADER_SIZE   4
#define ETHER_MIN     14
#define FRAME_MAX     (65536 + 4096)
#define READ_SIZE     (2 * (HEADER_SIZE + FRAME_MAX))
#define QUEUE_SIZE    (4u << 20)
#define COMMAND_MAX   64
#define REPLY_MAX     8192

enum tag { TAG_LISTEN, TAG_CARD, TAG_CONTROL };

struct port {
	int listener;
	int card; /* -1: no host there */
	int is_cut;
	uint8_t *in; /* what was read and is no whole frame yet */
	size_t in_size;
	uint8_t *queue; /* what the card did not take: queue[sent..size) */
	size_t queue_size;
	size_t queue_sent;
	uint64_t frames_in, frames_out, frames_lost;
};

struct address {
	uint8_t mac[6];
	uint8_t known;
	size_t port;
};

struct hub {
	int epoll;
	int control;
	size_t port_count;
	struct port ports[PORTS_MAX];
	struct address addresses[ADDRESSES_MAX];
};

static int unix_address(struct sockaddr_un *address, const char *dir, const char *name)
{
	int n;

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	n = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s", dir, name);
	return n < 0 || (size_t)n >= sizeof(address->sun_path) ? -ENAMETOOLONG : 0;
}

static int watch(struct hub *hub, int op, int fd, enum tag tag, size_t port, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u64 = (uint64_t)tag << 32 | port };

	return epoll_ctl(hub->epoll, op, fd, &event) ? -errno : 0;
}

/* ---- frames out ---- */

static void port_hang_up(struct port *port)
{
	if (port->card >= 0)
		close(port->card);
	port->card = -1;
	port->in_size = 0;
	port->queue_size = 0;
	port->queue_sent = 0;
}

static void queue_append(struct hub *hub, size_t index, const struct iovec *parts, size_t skip)
{
	struct port *port = &hub->ports[index];
	size_t total = parts[0].iov_len + parts[1].iov_len - skip;

	if (port->queue_sent) {
		memmove(port->queue, port->queue + port->queue_sent,
			port->queue_size - port->queue_sent);
		port->queue_size -= port->queue_sent;
		port->queue_sent = 0;
	}
	/* The rest of a frame that has begun must go out whole: room for one is kept for it. */
	if (port->queue_size + total > QUEUE_SIZE - (skip ? 0 : HEADER_SIZE + FRAME_MAX)) {
		port->frames_lost++;
		return;
	}
	for (int i = 0; i < 2; i++) {
		size_t gone = skip < parts[i].iov_len ? skip : parts[i].iov_len;

		memcpy(port->queue + port->queue_size, (uint8_t *)parts[i].iov_base + gone,
		       parts[i].iov_len - gone);
		port->queue_size += parts[i].iov_len - gone;
		skip -= gone;
	}
	port->frames_out++;
	watch(hub, EPOLL_CTL_MOD, port->card, TAG_CARD, index, EPOLLIN | EPOLLOUT);
}

static void port_send(struct hub *hub, size_t index, uint8_t *frame, size_t size)
{
	struct port *port = &hub->ports[index];
	uint32_t header = htonl((uint32_t)size);
	struct iovec parts[2] = { { &header, HEADER_SIZE }, { frame, size } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t n;

	if (port->card < 0)
		return;
	if (port->is_cut) {
		port->frames_lost++;
		return;
	}
	if (port->queue_sent < port->queue_size) {
		queue_append(hub, index, parts, 0);
		return;
	}
	n = sendmsg(port->card, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		port_hang_up(port);
		return;
	}
	if (n == (ssize_t)(HEADER_SIZE + size))
		port->frames_out++;
	else
		queue_append(hub, index, parts, n < 0 ? 0 : (size_t)n);
}

static void port_flush(struct hub *hub, size_t index)
{
	struct port *port = &hub->ports[index];

	while (port->queue_sent < port->queue_size) {
		ssize_t n = send(port->card, port->queue + port->queue_sent,
				 port->queue_size - port->queue_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			port_hang_up(port);
			return;
		}
		port->queue_sent += (size_t)n;
	}
	port->queue_size = 0;
	port->queue_sent = 0;
	watch(hub, EPOLL_CTL_MOD, port->card, TAG_CARD, index, EPOLLIN);
}

/* ---- frames in ---- */

static struct address *address_find(struct hub *hub, const uint8_t *mac)
{
	size_t at = (mac[5] ^ (size_t)mac[4] << 3) % ADDRESSES_MAX;

	for (size_t i = 0; i < ADDRESSES_MAX; i++, at = (at + 1) % ADDRESSES_MAX) {
		struct address *a = &hub->addresses[at];

		if (!a->known || memcmp(a->mac, mac, sizeof(a->mac)) == 0)
			return a;
	}
	return NULL;
}

static void forward(struct hub *hub, size_t from, uint8_t *frame, size_t size)
{
	struct address *source = address_find(hub, frame + 6);
	struct address *target = address_find(hub, frame);

	hub->ports[from].frames_in++;
	if (hub->ports[from].is_cut) {
		hub->ports[from].frames_lost++;
		return;
	}
	if (source && !(frame[6] & 1)) {
		memcpy(source->mac, frame + 6, sizeof(source->mac));
		source->known = 1;
		source->port = from;
	}
	if (target && target->known && !(frame[0] & 1)) {
		if (target->port != from)
			port_send(hub, target->port, frame, size);
		return;
	}
	for (size_t i = 0; i < hub->port_count; i++) {
		if (i != from)
			port_send(hub, i, frame, size);
	}
}

static void port_read(struct hub *hub, size_t index)
{
	struct port *port = &hub->ports[index];
	ssize_t n =
		recv(port->card, port->in + port->in_size, READ_SIZE - port->in_size, MSG_DONTWAIT);
	size_t at = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		port_hang_up(port);
		return;
	}
	port->in_size += (size_t)n;
	while (port->in_size - at >= HEADER_SIZE) {
		uint32_t size;

		memcpy(&size, port->in + at, HEADER_SIZE);
		size = ntohl(size);
		if (size < ETHER_MIN || size > FRAME_MAX) {
			port_hang_up(port);
			return;
		}
		if (port->in_size - at < HEADER_SIZE + size)
			break;
		forward(hub, index, port->in + at + HEADER_SIZE, size);
		at += HEADER_SIZE + size;
	}
	port->in_size -= at;
	memmove(port->in, port->in + at, port->in_size);
}

static void port_accept(struct hub *hub, size_t index)
{
	struct port *port = &hub->ports[index];
	int card = accept4(port->listener, NULL, NULL, SOCK_CLOEXEC);

	if (card < 0)
		return;
	port_hang_up(port);
	port->card = card;
	watch(hub, EPOLL_CTL_ADD, card, TAG_CARD, index, EPOLLIN);
}

/* ---- control ---- */

static size_t show(const struct hub *hub, char *reply, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < hub->port_count && used < size; i++) {
		const struct port *p = &hub->ports[i];
		int n = snprintf(
			reply + used, size - used, "%zu %s in %llu out %llu lost %llu\n", i + 1,
			p->is_cut     ? "cut"
			: p->card < 0 ? "empty"
				      : "joined",
			(unsigned long long)p->frames_in, (unsigned long long)p->frames_out,
			(unsigned long long)p->frames_lost);

		used += n > 0 ? (size_t)n : 0;
	}
	return used < size ? used : size - 1;
}

static size_t command_do(struct hub *hub, const char *command, char *reply, size_t size)
{
	char verb[8];
	size_t port;

	if (!strcmp(command, "show"))
		return show(hub, reply, size);
	if (sscanf(command, "%7s %zu", verb, &port) != 2 || port < 1 || port > hub->port_count)
		return (size_t)snprintf(reply, size, "error no such port\n");
	hub->ports[port - 1].is_cut = !strcmp(verb, "cut");
	return (size_t)snprintf(reply, size, "ok\n");
}

static void control_accept(struct hub *hub)
{
	struct timeval patience = { .tv_sec = 1 };
	char command[COMMAND_MAX];
	char reply[REPLY_MAX];
	int fd = accept4(hub->control, NULL, NULL, SOCK_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	n = recv(fd, command, sizeof(command) - 1, 0);
	if (n > 0) {
		command[n] = '\0';
		send(fd, reply, command_do(hub, command, reply, sizeof(reply)),
		     MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	close(fd);
}

static int control_ask(const char *dir, const char *verb, const char *port)
{
	struct sockaddr_un address;
	char text[REPLY_MAX];
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ssize_t n;

	if (fd < 0 || unix_address(&address, dir, "switch") ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		fprintf(stderr, "switch: no switch is running in %s\n", dir);
		return 1;
	}
	snprintf(text, COMMAND_MAX, port ? "%s %s" : "%s", verb, port);
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		return 1;
	n = recv(fd, text, sizeof(text) - 1, 0);
	close(fd);
	if (n <= 0)
		return 1;
	text[n] = '\0';
	if (strcmp(text, "ok\n") != 0)
		fputs(text, stdout);
	return !strncmp(text, "error", 5);
}

/* ---- start ---- */

static int listen_at(const char *dir, const char *name, int type)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (unix_address(&address, dir, name) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 8)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

static int hub_start(struct hub *hub, const char *dir)
{
	char name[32];

	hub->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (hub->epoll < 0)
		return -errno;
	for (size_t i = 0; i < hub->port_count; i++) {
		struct port *port = &hub->ports[i];

		snprintf(name, sizeof(name), "net.%zu", i + 1);
		port->card = -1;
		port->in = malloc(READ_SIZE);
		port->queue = malloc(QUEUE_SIZE);
		if (!port->in || !port->queue)
			return -ENOMEM;
		port->listener = listen_at(dir, name, SOCK_STREAM);
		if (port->listener < 0)
			return port->listener;
		watch(hub, EPOLL_CTL_ADD, port->listener, TAG_LISTEN, i, EPOLLIN);
	}
	/* Last, so that whoever sees it knows that the ports are there. */
	hub->control = listen_at(dir, "switch", SOCK_SEQPACKET);
	if (hub->control < 0)
		return hub->control;
	return watch(hub, EPOLL_CTL_ADD, hub->control, TAG_CONTROL, 0, EPOLLIN);
}

static void hub_event(struct hub *hub, const struct epoll_event *event)
{
	size_t index = (uint32_t)event->data.u64;

	switch ((enum tag)(event->data.u64 >> 32)) {
	case TAG_LISTEN:
		port_accept(hub, index);
		return;
	case TAG_CONTROL:
		control_accept(hub);
		return;
	case TAG_CARD:
		if (hub->ports[index].card >= 0 && event->events & EPOLLOUT)
			port_flush(hub, index);
		if (hub->ports[index].card >= 0 && event->events & ~(uint32_t)EPOLLOUT)
			port_read(hub, index);
		return;
	}
}

int main(int argc, char **argv)
{
	static struct hub hub;
	int ret;

	if (argc < 3) {
		fprintf(stderr, "usage: switch DIR PORTS | cut PORT | mend PORT | show\n");
		return 2;
	}
	if (argv[2][0] < '0' || argv[2][0] > '9')
		return control_ask(argv[1], argv[2], argc > 3 ? argv[3] : NULL);
	hub.port_count = strtoul(argv[2], NULL, 10);
	if (hub.port_count < 1 || hub.port_count > PORTS_MAX) {
		fprintf(stderr, "switch: 1 to %d ports, not %s\n", PORTS_MAX, argv[2]);
		return 2;
	}
	ret = hub_start(&hub, argv[1]);
	if (ret) {
		fprintf(stderr, "switch: %s: %s\n", argv[1], strerror(-ret));
		return 1;
	}
	for (;;) {
		struct epoll_event events[PORTS_MAX];
		int n = epoll_wait(hub.epoll, events, PORTS_MAX, -1);

		for (int i = 0; i < n; i++)
			hub_event(&hub, &events[i]);
	}
}
