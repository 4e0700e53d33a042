// SPDX-License-Identifier: Apache-2.0
/*
 * Dialling: the links to nodes of lower numbers, each in a place of its own, again and again until
 * it stands. The control link comes first; when that stands, the page links follow.
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
	connection->fd = fd;
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

void dial_connected(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake hello = hello_of(mesh, connection->node, connection->purpose);
	socklen_t size = sizeof(int);
	int error = 0;

	if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error == 0 && connected_to_itself(connection->fd))
		error = ECONNREFUSED;
	if (error == 0)
		error = -hello_send(mesh, connection, &hello);
	if (error != 0) {
		dial_trouble(mesh, connection, strerror(error));
		return;
	}
	connection->state = CONNECTION_READ_REPLY;
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
	verdict = theirs.version != mine.version ? HANDSHAKE_VERSION : theirs.verdict;
	if (theirs.version == mine.version && !hello_is_sealed(mesh, connection))
		verdict = HANDSHAKE_SECRET;
	if (verdict == HANDSHAKE_OK)
		verdict = handshake_judge(&mine, &theirs);
	if (verdict == HANDSHAKE_OK && theirs.node != connection->node)
		verdict = HANDSHAKE_WRONG_NODE;
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
