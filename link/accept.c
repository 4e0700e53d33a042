// SPDX-License-Identifier: Apache-2.0
/*
 * Accepting: the links that nodes of higher numbers dial, and whoever else connects. A pool of
 * connections, bounded; strangers cost 256 bytes and handshake_ms each, and the oldest goes first, but
 * last who has said a sealed hello.
 */
#include "link/bring_up.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/tcp.h"

#define DRAIN_NS_MAX	(1000 * MS)
#define DRAIN_BYTES_MAX 4096u

static const char *const stranger_texts[MESH_STRANGER_KINDS] = {
	[MESH_STRANGER_FOREIGN] = "it is no Eagre node",
	[MESH_STRANGER_GONE] = "it ended before its handshake did",
	[MESH_STRANGER_REPLAY] = "its hello was overheard from somebody else",
	[MESH_STRANGER_SLOW] = "it did not finish its handshake in time",
	[MESH_STRANGER_CROWD] = "too many handshakes at once, and this one was the oldest",
};

/* A scanner must not fill our log, either: one line a kind and second. */
void accept_stranger(struct mesh *mesh, struct mesh_connection *connection, enum mesh_stranger kind)
{
	char from[ADDRESS_TEXT_MAX], text[MESH_WHY_MAX], more[64] = "";
	uint64_t now_ns = mesh_now_ns();

	address_text(&connection->from, from);
	connection_drop(mesh, connection);
	if (now_ns < mesh->stranger[kind].quiet_ns) {
		mesh->stranger[kind].unsaid++;
		return;
	}
	if (mesh->stranger[kind].unsaid > 0)
		snprintf(more, sizeof(more), " (and %u more like it lately)",
			 mesh->stranger[kind].unsaid);
	mesh->stranger[kind].unsaid = 0;
	mesh->stranger[kind].quiet_ns = now_ns + QUIET_NS;
	snprintf(text, sizeof(text), "dropped a connection from %s: %s%s", from,
		 stranger_texts[kind], more);
	mesh_progress(mesh, MESH_DROPPED, NODE_NONE, text);
}

/* `a` gives way before `b`: who has been answered, and owes but its proof, does so last. */
static bool gives_way(const struct mesh_connection *a, const struct mesh_connection *b)
{
	bool a_answered = a->state == CONNECTION_READ_PROOF;
	bool b_answered = b->state == CONNECTION_READ_PROOF;

	return a_answered == b_answered ? a->deadline_ns < b->deadline_ns : b_answered;
}

/*
 * A free place in the pool; the oldest handshake gives way. NULL: all are links that stand. To a
 * dialler the link stands as soon as it has sent its proof, which may lie here unread: if it lost
 * the link then, it would lose the pod.
 */
static struct mesh_connection *find_place(struct mesh *mesh)
{
	struct mesh_connection *oldest = NULL;

	for (uint32_t i = mesh->dialled_count; i < mesh->connection_count; i++) {
		struct mesh_connection *connection = &mesh->connection[i];

		if (connection->state == CONNECTION_IDLE)
			return connection;
		if (connection->state != CONNECTION_UP &&
		    (!oldest || gives_way(connection, oldest)))
			oldest = connection;
	}
	if (oldest)
		accept_stranger(mesh, oldest, MESH_STRANGER_CROWD);
	return oldest;
}

void accept_all(struct mesh *mesh)
{
	for (unsigned i = 0; i < EVENTS_MAX; i++) {
		struct address from = { .size = sizeof(from.storage) };
		struct mesh_connection *connection;
		int fd = accept4(mesh->listener, (struct sockaddr *)&from.storage, &from.size,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE))
			poll(NULL, 0, 10); /* it stays readable: do not spin on it */
		if (fd < 0)
			return;
		connection = find_place(mesh);
		if (!connection) {
			close(fd);
			continue;
		}
		*connection = (struct mesh_connection){
			.state = CONNECTION_READ_HELLO,
			.fd = fd,
			.node = NODE_NONE,
			.deadline_ns = mesh_now_ns() + connection_handshake_ns(mesh),
			.from = from,
		};
		connection_tune(mesh, fd);
		if (connection_watch(mesh, connection, EPOLLIN) < 0)
			connection_drop(mesh, connection);
	}
}

/* Things that only the mesh knows. */
static enum handshake_verdict judge_here(struct mesh *mesh, const struct handshake *theirs)
{
	struct mesh_peer *peer = &mesh->peer[theirs->node];

	if (theirs->node < mesh->config.self)
		return HANDSHAKE_WRONG_NODE; /* we dial it; it does not dial us */
	if (mesh->complete)
		return atomic_load(&peer->down) ? HANDSHAKE_RUNNING : HANDSHAKE_DUPLICATE;
	if (peer->up_count > 0 && peer->incarnation != theirs->incarnation)
		return HANDSHAKE_DUPLICATE;
	return HANDSHAKE_OK;
}

static void refuse(struct mesh *mesh, struct mesh_connection *connection,
		   const struct handshake *mine, const struct handshake *theirs)
{
	char peer[MESH_WHY_MAX / 2], text[MESH_WHY_MAX], from[ADDRESS_TEXT_MAX];
	uint64_t *quiet_ns = &mesh->refused_quiet_ns;
	uint64_t now_ns = mesh_now_ns();

	address_text(&connection->from, from);
	snprintf(peer, sizeof(peer), "%s at %s",
		 mine->verdict == HANDSHAKE_SECRET ? "somebody" : "a node", from);
	if (mine->verdict != HANDSHAKE_SECRET && theirs->node < mesh->config.node_count &&
	    theirs->node != mesh->config.self) {
		snprintf(peer, sizeof(peer), "node %u (%s, from %s)", theirs->node,
			 mesh->peer[theirs->node].name, from);
		quiet_ns = &mesh->peer[theirs->node].refused_quiet_ns;
	}
	handshake_explain(mine->verdict, HANDSHAKE_LISTENER, mine, theirs, peer, text,
			  sizeof(text));
	/* A verdict about this very node explains why it is still waited for. */
	if (theirs->node < mesh->config.node_count && theirs->node != mesh->config.self &&
	    mesh->peer[theirs->node].up_count == 0)
		snprintf(mesh->peer[theirs->node].trouble, sizeof(mesh->peer[0].trouble), "%s",
			 text);

	shutdown(connection->fd, SHUT_WR);
	connection->state = CONNECTION_DRAIN;
	connection->got = 0;
	connection->deadline_ns = now_ns + DRAIN_NS_MAX;
	if (connection_watch(mesh, connection, EPOLLIN) < 0)
		connection_drop(mesh, connection);
	if (now_ns < *quiet_ns)
		return;
	*quiet_ns = now_ns + QUIET_NS;
	mesh_progress(mesh, MESH_REFUSED, theirs->node, text);
}

/* Who has not the secret learns nothing from the rest. */
static enum handshake_verdict judge_hello(struct mesh *mesh,
					  const struct mesh_connection *connection,
					  const struct handshake *mine,
					  const struct handshake *theirs)
{
	enum handshake_verdict verdict;

	if (theirs->version != mine->version)
		return HANDSHAKE_VERSION;
	if (!hello_is_sealed(mesh, connection))
		return HANDSHAKE_SECRET;
	verdict = handshake_judge(mine, theirs);
	return verdict == HANDSHAKE_OK ? judge_here(mesh, theirs) : verdict;
}

int accept_hello(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine, theirs, answer;
	int result = hello_read(connection, &theirs);

	if (result == 0)
		return 0;
	if (result < 0) {
		accept_stranger(mesh, connection,
				result == -EPROTO ? MESH_STRANGER_FOREIGN : MESH_STRANGER_GONE);
		return 0;
	}
	mine = hello_of(mesh, theirs.node, theirs.purpose);
	mine.verdict = (uint8_t)judge_hello(mesh, connection, &mine, &theirs);
	answer = mine;
	if (mine.verdict == HANDSHAKE_VERSION || mine.verdict == HANDSHAKE_SECRET)
		answer = handshake_refusal(&mine, (enum handshake_verdict)mine.verdict);
	if (hello_send(mesh, connection, &answer) < 0) {
		accept_stranger(mesh, connection, MESH_STRANGER_GONE);
		return 0;
	}
	if (mine.verdict != HANDSHAKE_OK) {
		refuse(mesh, connection, &mine, &theirs);
		return 0;
	}
	connection->state = CONNECTION_READ_PROOF;
	connection->got = 0;
	return 0;
}

int accept_proof(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake theirs;
	int result = hello_read_proof(mesh, connection);

	if (result == 0)
		return 0;
	if (result < 0) {
		accept_stranger(mesh, connection,
				result == -EPROTO ? MESH_STRANGER_REPLAY : MESH_STRANGER_GONE);
		return 0;
	}
	/* Another may have come first since its hello was taken: it dials again, and hears so. */
	if (handshake_decode(connection->buffer, &theirs) < 0 ||
	    judge_here(mesh, &theirs) != HANDSHAKE_OK) {
		connection_drop(mesh, connection);
		return 0;
	}
	if (mesh->peer[theirs.node].up[theirs.purpose])
		peer_drop(mesh, theirs.node, "it connected again");
	return connection_stands(mesh, connection, theirs.node, theirs.purpose, theirs.incarnation);
}

void accept_drain(struct mesh *mesh, struct mesh_connection *connection)
{
	ssize_t got = tcp_receive(connection->fd, connection->buffer, sizeof(connection->buffer));

	if (got == -EAGAIN)
		return;
	if (got > 0) {
		connection->got = (uint16_t)(connection->got + got);
		if (connection->got < DRAIN_BYTES_MAX)
			return;
	}
	connection_drop(mesh, connection);
}
