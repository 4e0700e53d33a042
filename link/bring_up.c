// SPDX-License-Identifier: Apache-2.0
/*
 * Bringing up the mesh: one loop over non-blocking sockets, until every link has shaken hands.
 *
 * Node a dials all b < a, and who joins a pod that runs dials all that are there (dial.c): first
 * the control channel, and when that stands the page channels. So each pair has one dialler, and a
 * listener (accept.c) knows a node by its control channel before it takes the rest: links of one
 * node must come from one process (`incarnation`). A link that ends while others are still missing
 * takes all links of its node with it, and that node starts anew (peers.c): so a node may die and
 * come back while the pod waits for others.
 *
 * Errors of the loop: < 0 ends bring-up with mesh->why set. Tested by tests/link/test_mesh.c.
 */
#include "link/bring_up.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "link/tcp.h"

#define WAITING_NS   (2000 * MS)
#define KEY_LISTENER UINT32_MAX
#define KEY_CANCEL   (UINT32_MAX - 1)

static int connection_event(struct mesh *mesh, struct mesh_connection *connection)
{
	switch (connection->state) {
	case CONNECTION_CONNECTING:
		dial_connected(mesh, connection);
		return 0;
	case CONNECTION_SECURE:
		return connection_is_dialled(mesh, connection) ? dial_secure(mesh, connection)
							       : accept_secure(mesh, connection);
	case CONNECTION_READ_REPLY:
		return dial_reply(mesh, connection);
	case CONNECTION_READ_HELLO:
		return accept_hello(mesh, connection);
	case CONNECTION_READ_PROOF:
		return accept_proof(mesh, connection);
	case CONNECTION_DRAIN:
		accept_drain(mesh, connection);
		return 0;
	case CONNECTION_UP:
		return peer_link_ended(mesh, connection);
	case CONNECTION_IDLE:
		return 0; /* dropped by an earlier event of the same round */
	}
	return 0;
}

static void connection_expired(struct mesh *mesh, struct mesh_connection *connection,
			       uint64_t now_ns)
{
	switch (connection->state) {
	case CONNECTION_IDLE:
		if (connection->purpose == HANDSHAKE_CONTROL ||
		    mesh->peer[connection->node].up[HANDSHAKE_CONTROL])
			dial_begin(mesh, connection, now_ns);
		break;
	case CONNECTION_CONNECTING:
		dial_trouble(mesh, connection, strerror(ETIMEDOUT));
		break;
	case CONNECTION_SECURE:
		if (!connection_is_dialled(mesh, connection)) {
			accept_stranger(mesh, connection, MESH_STRANGER_SLOW);
			break;
		}
		/* fall through */
	case CONNECTION_READ_REPLY:
		dial_trouble(mesh, connection, "it does not answer the handshake");
		break;
	case CONNECTION_READ_HELLO:
	case CONNECTION_READ_PROOF:
		accept_stranger(mesh, connection, MESH_STRANGER_SLOW);
		break;
	case CONNECTION_DRAIN:
		connection_drop(mesh, connection);
		break;
	case CONNECTION_UP:
		break;
	}
}

/* Acts on what is due, and returns when the next thing is (UINT64_MAX: nothing waits for time). */
static uint64_t expire(struct mesh *mesh, uint64_t now_ns)
{
	uint64_t next_ns = UINT64_MAX;

	for (uint32_t i = 0; i < mesh->connection_count; i++) {
		struct mesh_connection *connection = &mesh->connection[i];
		bool idle = connection->state == CONNECTION_IDLE;

		if (connection->state == CONNECTION_UP ||
		    (idle && (!connection_is_dialled(mesh, connection) || mesh->complete)))
			continue;
		if (connection->deadline_ns <= now_ns)
			connection_expired(mesh, connection, now_ns);
		/* What waits for its control link has a time in the past, and no need to be woken.
		 */
		if (connection->state != CONNECTION_UP && connection->deadline_ns > now_ns &&
		    connection->deadline_ns < next_ns)
			next_ns = connection->deadline_ns;
	}
	return next_ns;
}

static void say_waiting(struct mesh *mesh, uint64_t now_ns)
{
	if (now_ns < mesh->waiting_ns)
		return;
	mesh->waiting_ns = now_ns + WAITING_NS;
	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		const struct mesh_peer *peer = &mesh->peer[i];
		char text[2 * MESH_WHY_MAX], address[ADDRESS_TEXT_MAX];

		if (i == mesh->config.self || !peer->known || peer->up_count == mesh_purposes(mesh))
			continue;
		snprintf(text, sizeof(text), "waiting for node %u (%s) at %s%s%s%s", i, peer->name,
			 address_text(&peer->address, address), peer->trouble[0] ? " (" : "",
			 peer->trouble, peer->trouble[0] ? ")" : "");
		mesh_progress(mesh, MESH_WAITING, i, text);
	}
}

/* One round, of so many events: waits until wake_ns at most. 1: cancelled; 0; < 0: it has failed. */
static int round_of_events(struct mesh *mesh, uint64_t wake_ns, int limit)
{
	struct epoll_event event[EVENTS_MAX];
	uint64_t now_ns = mesh_now_ns();
	int timeout_ms = wake_ns <= now_ns ? 0 : (int)((wake_ns - now_ns) / MS) + 1;
	int count = epoll_wait(mesh->epoll, event, limit, timeout_ms);

	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < count; i++) {
		uint32_t key = event[i].data.u32;
		int error;

		if (key == KEY_CANCEL)
			return 1;
		if (key == KEY_LISTENER) {
			accept_all(mesh);
			continue;
		}
		error = connection_event(mesh, &mesh->connection[key]);
		if (error < 0)
			return error;
	}
	return 0;
}

static int timed_out(struct mesh *mesh)
{
	char text[MESH_WHY_MAX / 2];
	uint32_t missing_count = 0;
	uint16_t missing = 0;

	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		if (i == mesh->config.self || !mesh->peer[i].known ||
		    mesh->peer[i].up_count == mesh_purposes(mesh))
			continue;
		if (missing_count++ == 0)
			missing = i;
	}
	mesh_describe(mesh, missing, text, sizeof(text));
	if (missing_count > 1)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), " and %u more",
			 missing_count - 1);
	snprintf(mesh->why, mesh->why_size,
		 "waited %u s for %s: %s: start all nodes within this time, and check that they "
		 "can reach each other",
		 mesh->config.timeout_ms / 1000, text,
		 mesh->peer[missing].trouble[0] ? mesh->peer[missing].trouble
						: "never heard of it");
	return -ETIMEDOUT;
}

/* The connection's socket becomes the channel's; control has its channel already. */
static int make_channel(struct mesh *mesh, struct mesh_peer *peer, uint16_t node, uint16_t purpose)
{
	struct mesh_connection *connection = peer->up[purpose];
	int error = 0;

	epoll_ctl(mesh->epoll, EPOLL_CTL_DEL,
		  connection->stream.fd < 0 ? control_fd(peer->control) : connection->stream.fd,
		  NULL);
	if (purpose == HANDSHAKE_IO)
		error = tcp_io_create(connection->stream, node, &peer->io);
	else if (purpose != HANDSHAKE_CONTROL)
		error = tcp_page_create(connection->stream, node, mesh->config.page_queue_bytes,
					&peer->pages[purpose - HANDSHAKE_SHARD(0)]);
	if (error < 0) {
		snprintf(mesh->why, mesh->why_size,
			 "out of memory for links: give this host more memory");
		return error;
	}
	connection->stream = stream_plain(-1);
	connection->state = CONNECTION_IDLE;
	peer->up[purpose] = NULL; /* its place may be another's now */
	if (!connection_is_dialled(mesh, connection))
		connection->node = NODE_NONE;
	return 0;
}

int peer_make_channels(struct mesh *mesh, uint16_t node)
{
	struct mesh_peer *peer = &mesh->peer[node];

	for (uint32_t i = 0; i < mesh_purposes(mesh); i++) {
		int error = make_channel(mesh, peer, node, mesh_purpose(mesh, i));

		if (error < 0)
			return error;
	}
	atomic_store(&peer->linked, true);
	if (mesh->complete && mesh->config.linked)
		mesh->config.linked(mesh->config.ctx, node);
	return 0;
}

static int make_channels(struct mesh *mesh)
{
	int error = 0;

	for (uint16_t node = 0; node < mesh->config.node_count && error == 0; node++)
		if (node != mesh->config.self && mesh->peer[node].known)
			error = peer_make_channels(mesh, node);
	if (error == 0)
		mesh->complete = true;
	return error;
}

static int watch_fd(struct mesh *mesh, int fd, uint32_t key)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = key };

	return epoll_ctl(mesh->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int mesh_bring_up(struct mesh *mesh, int cancel_fd, char *why, size_t why_size)
{
	uint64_t start_ns = mesh_now_ns();
	uint64_t end_ns = start_ns + mesh->config.timeout_ms * MS;
	int error = 0;

	assert(!mesh->complete);
	mesh->why = why;
	mesh->why_size = why_size;
	why[0] = '\0';
	mesh->waiting_ns = start_ns;
	mesh->looked_ns = start_ns;
	if (watch_fd(mesh, mesh->listener, KEY_LISTENER) < 0 ||
	    (cancel_fd >= 0 && watch_fd(mesh, cancel_fd, KEY_CANCEL) < 0)) {
		error = -errno;
		snprintf(why, why_size, "cannot wait for links: %s", strerror(errno));
		return error;
	}
	while (mesh->up_count < mesh->up_wanted) {
		uint64_t now_ns = mesh_now_ns();
		uint64_t wake_ns = expire(mesh, now_ns);

		say_waiting(mesh, now_ns);
		if (now_ns >= end_ns) {
			error = timed_out(mesh);
			break;
		}
		error = peers_judge(mesh, now_ns);
		if (error < 0)
			break;
		if (mesh->waiting_ns < wake_ns)
			wake_ns = mesh->waiting_ns;
		if (mesh->beat_ns < wake_ns)
			wake_ns = mesh->beat_ns;
		error = round_of_events(mesh, wake_ns < end_ns ? wake_ns : end_ns, EVENTS_MAX);
		if (error > 0) {
			snprintf(why, why_size, "cancelled while waiting for other nodes");
			error = -ECANCELED;
		}
		if (error < 0)
			break;
	}
	if (cancel_fd >= 0)
		epoll_ctl(mesh->epoll, EPOLL_CTL_DEL, cancel_fd, NULL);
	if (error == 0)
		error = make_channels(mesh);
	if (error < 0 && why[0] == '\0')
		snprintf(why, why_size, "cannot link with other nodes: %s", strerror(-error));
	return error;
}

void mesh_poll(struct mesh *mesh)
{
	uint64_t now_ns = mesh_now_ns();
	char why[MESH_WHY_MAX]; /* nobody asks */

	if (!mesh->complete)
		return;
	mesh->why = why;
	mesh->why_size = sizeof(why);
	expire(mesh, now_ns);
	peers_beat_late(mesh, now_ns);
	/* The turn of who calls is to be short, and one step of a handshake takes some 1 ms. */
	round_of_events(mesh, 0, 1);
}
