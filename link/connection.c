// SPDX-License-Identifier: Apache-2.0
/*
 * A connection of the mesh while it comes up, whoever dialled it: its socket, its place in the loop
 * of bring_up.c, and what becomes of the peer when a link to it stands or ends.
 */
#include "link/bring_up.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "link/tcp.h"

#define BACKOFF_NS_MIN (20 * MS)
#define BACKOFF_NS_MAX (250 * MS)
#define COME_BACK_NS   (3000 * MS)
#define SAID_MAX       4 /* lines a second on one node's coming and going */
/*
 * Bytes that the peer's kernel does not acknowledge for so long have found a hole. Heartbeats judge
 * a peer sooner, but they go by the control link: a page link that alone leads nowhere would stall
 * vCPUs for as long as this.
 */
#define USER_TIMEOUT_MS 4000
#define RTO_MS_MAX	1000 /* between two tries, from Linux 6.15 on */
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif

static void set_sockopt(int fd, int level, int option, int value)
{
	/* Each is an improvement only: a kernel that refuses one still gives a working link. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

void connection_tune(const struct mesh *mesh, int fd)
{
	set_sockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_sockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
	if (mesh->config.socket_buffer > 0) {
		set_sockopt(fd, SOL_SOCKET, SO_SNDBUF, (int)mesh->config.socket_buffer);
		set_sockopt(fd, SOL_SOCKET, SO_RCVBUF, (int)mesh->config.socket_buffer);
	}
}

uint64_t connection_handshake_ns(const struct mesh *mesh)
{
	return mesh->config.handshake_ms * MS;
}

int connection_watch(struct mesh *mesh, const struct mesh_connection *connection, uint32_t events)
{
	struct epoll_event event = {
		.events = events,
		.data.u32 = (uint32_t)(connection - mesh->connection),
	};

	if (epoll_ctl(mesh->epoll, EPOLL_CTL_MOD, connection->stream.fd, &event) == 0)
		return 0;
	if (epoll_ctl(mesh->epoll, EPOLL_CTL_ADD, connection->stream.fd, &event) == 0)
		return 0;
	return -errno;
}

bool connection_is_dialled(const struct mesh *mesh, const struct mesh_connection *connection)
{
	return (uint32_t)(connection - mesh->connection) < mesh->dialled_count;
}

/* Closes it. A dialled connection will be dialled again after its backoff. */
void connection_drop(struct mesh *mesh, struct mesh_connection *connection)
{
	stream_close(&connection->stream);
	connection->state = CONNECTION_IDLE;
	connection->got = 0;
	if (!connection_is_dialled(mesh, connection)) {
		connection->node = NODE_NONE;
		return;
	}
	connection->deadline_ns = mesh_now_ns() + connection->backoff_ns;
	connection->backoff_ns *= 2;
	if (connection->backoff_ns > BACKOFF_NS_MAX)
		connection->backoff_ns = BACKOFF_NS_MAX;
}

/* Each line is followed by twice the silence, until nobody has asked for as long. */
bool quiet_is_over(struct mesh_quiet *quiet, uint64_t now_ns)
{
	if (now_ns < quiet->until_ns) {
		quiet->unsaid++;
		return false;
	}
	if (quiet->for_ns == 0 || now_ns - quiet->until_ns >= quiet->for_ns)
		quiet->for_ns = QUIET_NS;
	else if (quiet->for_ns < QUIET_NS_MAX)
		quiet->for_ns *= 2;
	quiet->until_ns = now_ns + quiet->for_ns;
	return true;
}

/* Lines on a node that comes and goes must not fill the log. */
void peer_say(struct mesh *mesh, enum mesh_event event, uint16_t node, const char *text)
{
	struct mesh_peer *peer = &mesh->peer[node];
	uint64_t now_ns = mesh_now_ns();

	if (now_ns - peer->said_ns >= QUIET_NS) {
		peer->said_ns = now_ns;
		peer->said_count = 0;
	}
	if (peer->said_count++ < SAID_MAX)
		mesh_progress(mesh, event, node, text);
}

/* All links to a node, at the first sign that one of them is over. */
void peer_drop(struct mesh *mesh, uint16_t node, const char *trouble)
{
	struct mesh_peer *peer = &mesh->peer[node];

	snprintf(peer->trouble, sizeof(peer->trouble), "%s", trouble);
	if (peer->control)
		peer->gone_ns = mesh_now_ns() + COME_BACK_NS;
	mesh_close_channels(peer);
	peer->ending_ns = 0;
	for (uint32_t i = 0; i < HANDSHAKE_PURPOSE_MAX; i++) {
		if (!peer->up[i])
			continue;
		connection_drop(mesh, peer->up[i]);
		peer->up[i] = NULL;
		mesh->up_count--;
	}
	peer->up_count = 0;
	peer->incarnation = 0;
}

void peer_beat(struct mesh_peer *peer)
{
	static const struct control_message msg = { .type = CONTROL_HEARTBEAT };

	(void)control_send(peer->control, &msg); /* its end shows by itself */
}

/* From now on the channel owns the socket. */
static int make_control(struct mesh *mesh, struct mesh_connection *connection)
{
	struct mesh_peer *peer = &mesh->peer[connection->node];
	int error = tcp_control_create(connection->stream, connection->node, &peer->control);

	if (error < 0)
		return error;
	connection->stream = stream_plain(-1);
	peer->heard_ns = mesh_now_ns();
	peer->unread = 0;
	peer->gone_ns = 0;
	peer_beat(peer);
	return 0;
}

int connection_stands(struct mesh *mesh, struct mesh_connection *connection, uint16_t node,
		      uint16_t purpose, uint64_t incarnation)
{
	struct mesh_peer *peer = &mesh->peer[node];

	assert(!peer->up[purpose]);
	connection->state = CONNECTION_UP;
	connection->node = node;
	connection->purpose = purpose;
	connection->backoff_ns = BACKOFF_NS_MIN;
	peer->up[purpose] = connection;
	peer->up_count++;
	peer->incarnation = incarnation;
	mesh->up_count++;
	if (connection_watch(mesh, connection, EPOLLRDHUP) < 0)
		return -ENOMEM;
	if (purpose == HANDSHAKE_CONTROL) {
		/* A cut shall not last longer for us than for the wire: resend at a steady pace. */
		set_sockopt(connection->stream.fd, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1);
		set_sockopt(connection->stream.fd, IPPROTO_TCP, TCP_RTO_MAX_MS, RTO_MS_MAX);
		/* Its page channels, if they are ours to dial, need wait no longer. */
		for (uint32_t i = 0; i < mesh->dialled_count; i++) {
			if (mesh->connection[i].node == node &&
			    mesh->connection[i].state == CONNECTION_IDLE)
				mesh->connection[i].deadline_ns = 0;
		}
		if (make_control(mesh, connection) < 0)
			return -ENOMEM;
	}
	if (peer->up_count == mesh_purposes(mesh)) {
		char text[MESH_WHY_MAX];

		peer_say(mesh, MESH_CONNECTED, node, mesh_describe(mesh, node, text, sizeof(text)));
		if (mesh->complete)
			return peer_make_channels(mesh, node);
	}
	return 0;
}
