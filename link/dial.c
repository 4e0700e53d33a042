// SPDX-License-Identifier: Apache-2.0
/*
 * Dialling: the links to nodes of lower numbers, and to all for who joins, each in a place of its own,
 * again and again until it stands. The control link comes first; when that stands, the page links follow.
 */
#include "link/bring_up.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "wire/version.h"

#define CONNECT_NS_MAX (2000 * MS)

void dial_trouble(struct mesh *mesh, struct mesh_connection *connection, const char *text)
{
	struct mesh_peer *peer = &mesh->peer[connection->node];

	snprintf(peer->trouble, sizeof(peer->trouble), "%s", text);
	connection_drop(mesh, connection);
}

void dial_begin(struct mesh *mesh, struct mesh_connection *connection, uint64_t now_ns)
{
	const struct mesh_peer *peer = &mesh->peer[connection->node];
	int fd = socket(peer->address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			0);

	if (fd < 0) {
		dial_trouble(mesh, connection, strerror(errno));
		return;
	}
	connection->stream = stream_plain(fd);
	connection->secured = false;
	connection->got = 0;
	connection_tune(mesh, fd);
	if (connect(fd, (const struct sockaddr *)&peer->address.storage, peer->address.size) < 0 &&
	    errno != EINPROGRESS) {
		dial_trouble(mesh, connection, strerror(errno));
		return;
	}
	connection->state = CONNECTION_CONNECTING;
	connection->deadline_ns = now_ns + CONNECT_NS_MAX;
	if (connection_watch(mesh, connection, EPOLLOUT) < 0)
		dial_trouble(mesh, connection, strerror(errno));
}

/* On loopback, dialling a port that nobody has can connect a socket to itself. */
static bool connected_to_itself(int fd)
{
	struct address mine = { .size = sizeof(mine.storage) };
	struct address theirs = { .size = sizeof(theirs.storage) };

	if (getsockname(fd, (struct sockaddr *)&mine.storage, &mine.size) < 0 ||
	    getpeername(fd, (struct sockaddr *)&theirs.storage, &theirs.size) < 0)
		return false;
	return address_equal(&mine, &theirs);
}

/* The first word: ours, or that of TLS. */
static int say_first(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake hello = hello_of(mesh, connection->node, connection->purpose);
	int error;

	if (!mesh->keys || connection->secured) {
		connection->state = CONNECTION_READ_REPLY;
		connection->got = 0;
		return hello_send(mesh, connection, &hello);
	}
	connection->state = CONNECTION_SECURE;
	error = stream_secure(&connection->stream, mesh->keys, true);
	if (error == 0)
		error = stream_shake_hands(&connection->stream);
	return error == -EAGAIN ? 0 : error;
}

void dial_connected(struct mesh *mesh, struct mesh_connection *connection)
{
	socklen_t size = sizeof(int);
	int error = 0;

	if (getsockopt(connection->stream.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error == 0 && connected_to_itself(connection->stream.fd))
		error = ECONNREFUSED;
	if (error == 0)
		error = -say_first(mesh, connection);
	if (error != 0) {
		dial_trouble(mesh, connection, strerror(error));
		return;
	}
	connection->deadline_ns = mesh_now_ns() + connection_handshake_ns(mesh);
	if (mesh->peer[connection->node].silent_ns == 0)
		mesh->peer[connection->node].silent_ns = mesh_now_ns();
	if (connection_watch(mesh, connection, EPOLLIN) < 0)
		dial_trouble(mesh, connection, strerror(errno));
}

/* The dialler is refused, or refuses: it cannot become part of this pod. */
static int refused(struct mesh *mesh, const struct mesh_connection *connection,
		   enum handshake_verdict verdict, const struct handshake *mine,
		   const struct handshake *theirs)
{
	char peer[MESH_WHY_MAX / 2];

	mesh_describe(mesh, connection->node, peer, sizeof(peer));
	handshake_explain(verdict, HANDSHAKE_DIALLER, mine, theirs, peer, mesh->why,
			  mesh->why_size);
	return -ECONNREFUSED;
}

/*
 * The listener answers with no TLS. A hello may be of another version, which all versions can tell;
 * else it has no secret, or does not encrypt.
 */
static int answered_openly(struct mesh *mesh, struct mesh_connection *connection)
{
	stream_drop_tls(&connection->stream);
	connection->state = CONNECTION_READ_REPLY;
	connection->got = 0;
	return dial_reply(mesh, connection);
}

int dial_secure(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine = hello_of(mesh, connection->node, connection->purpose);
	int error = connection->got ? 1 : hello_look(connection);

	if (error == 0)
		return 0;
	mesh->peer[connection->node].silent_ns = 0;
	if (error == -EPROTO)
		return answered_openly(mesh, connection);
	if (error == 1) {
		connection->got = 1;
		error = stream_shake_hands(&connection->stream);
	}
	switch (error) {
	case -EAGAIN:
		return 0;
	case 0:
		connection->secured = true;
		error = say_first(mesh, connection);
		if (error < 0)
			dial_trouble(mesh, connection, strerror(-error));
		return 0;
	case -EKEYREJECTED:
	case -EPROTONOSUPPORT:
		return refused(mesh, connection, HANDSHAKE_SECRET, &mine, &mine);
	case -EPROTO:
	case -ENOTSUP:
		dial_trouble(mesh, connection,
			     "what listens there is no Eagre node: check the address");
		return 0;
	default:
		dial_trouble(mesh, connection, "it closed the connection during the handshake");
		return 0;
	}
}

static int refuse_open_answer(struct mesh *mesh, const struct mesh_connection *connection)
{
	char peer[MESH_WHY_MAX / 2];

	snprintf(mesh->why, mesh->why_size,
		 "%s does not know this pod's secret, or does not encrypt its links as this node "
		 "does: give all nodes of a pod the same secret, and the same encrypt",
		 mesh_describe(mesh, connection->node, peer, sizeof(peer)));
	return -ECONNREFUSED;
}

int dial_reply(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine = hello_of(mesh, connection->node, connection->purpose);
	struct mesh_peer *peer = &mesh->peer[connection->node];
	enum handshake_verdict verdict;
	struct handshake theirs;
	int result = hello_read(connection, &theirs);

	if (result == 0)
		return 0;
	peer->silent_ns = 0;
	if (result == -EPROTO) {
		dial_trouble(mesh, connection,
			     "what listens there is no Eagre node: check the address");
		return 0;
	}
	if (result < 0) {
		dial_trouble(mesh, connection, "it closed the connection during the handshake");
		return 0;
	}
	/* The listener has judged; where it saw nothing wrong we may (its answer may be for
	 * another). */
	if (mesh->keys && !connection->secured && theirs.version == mine.version)
		return refuse_open_answer(mesh, connection);
	verdict = theirs.version != mine.version ? HANDSHAKE_VERSION : theirs.verdict;
	if (theirs.version == mine.version && !hello_is_sealed(mesh, connection))
		verdict = HANDSHAKE_SECRET;
	if (verdict == HANDSHAKE_OK)
		verdict = handshake_judge(&mine, &theirs);
	if (verdict == HANDSHAKE_OK && theirs.node != connection->node)
		verdict = HANDSHAKE_WRONG_NODE;
	if (mesh->config.again &&
	    (verdict == HANDSHAKE_RUNNING || verdict == HANDSHAKE_DUPLICATE)) {
		dial_trouble(mesh, connection, "it has not begun anew yet");
		return 0;
	}
	if (verdict != HANDSHAKE_OK)
		return refused(mesh, connection, verdict, &mine, &theirs);
	if (theirs.purpose != connection->purpose ||
	    (peer->up_count > 0 && peer->incarnation != theirs.incarnation)) {
		dial_trouble(mesh, connection, "it was restarted during the handshake");
		return 0;
	}
	if (hello_prove(mesh, connection) < 0) {
		dial_trouble(mesh, connection, "it closed the connection during the handshake");
		return 0;
	}
	return connection_stands(mesh, connection, connection->node, connection->purpose,
				 theirs.incarnation);
}
