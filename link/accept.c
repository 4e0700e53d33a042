// SPDX-License-Identifier: Apache-2.0
/*
 * Accepting: the links that nodes of higher numbers dial, or who joins, and whoever else connects. A
 * pool of connections, bounded; strangers cost 256 bytes, or where links are encrypted what TLS
 * keeps (STREAM_TLS_KEPT), and handshake_ms each; the oldest goes first, but last who has shown that
 * it knows the secret.
 */
#include "link/bring_up.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/tcp.h"
#include "wire/version.h"

#define DRAIN_NS_MAX	(1000 * MS)
#define DRAIN_BYTES_MAX 4096u

static const char *const stranger_texts[MESH_STRANGER_KINDS] = {
	[MESH_STRANGER_FOREIGN] = "it is no Eagre node",
	[MESH_STRANGER_OLD_TLS] = "it asks for less than TLS 1.3",
	[MESH_STRANGER_GONE] = "it ended before its handshake did",
	[MESH_STRANGER_REPLAY] = "its hello was overheard from somebody else",
	[MESH_STRANGER_SLOW] = "it did not finish its handshake in time",
	[MESH_STRANGER_CROWD] = "too many handshakes at once, and this one was the oldest",
};

/* A scanner must not fill our log, either. */
void accept_stranger(struct mesh *mesh, struct mesh_connection *connection, enum mesh_stranger kind)
{
	char from[ADDRESS_TEXT_MAX], text[MESH_WHY_MAX], more[64] = "";
	uint64_t now_ns = mesh_now_ns();

	address_text(&connection->from, from);
	connection_drop(mesh, connection);
	if (!quiet_is_over(&mesh->stranger[kind], now_ns))
		return;
	if (mesh->stranger[kind].unsaid > 0)
		snprintf(more, sizeof(more), " (and %u more like it lately)",
			 mesh->stranger[kind].unsaid);
	mesh->stranger[kind].unsaid = 0;
	snprintf(text, sizeof(text), "dropped a connection from %s: %s%s", from,
		 stranger_texts[kind], more);
	mesh_progress(mesh, MESH_DROPPED, NODE_NONE, text);
}

/* Who has been answered, and owes but its proof, gives way last; before it who TLS knows. */
static int standing(const struct mesh_connection *connection)
{
	return connection->state == CONNECTION_READ_PROOF ? 2 : connection->secured;
}

/* `a` gives way before `b`. */
static bool gives_way(const struct mesh_connection *a, const struct mesh_connection *b)
{
	return standing(a) == standing(b) ? a->deadline_ns < b->deadline_ns
					  : standing(a) < standing(b);
}

/*
 * A free place in the pool; the oldest handshake gives way. NULL: all are links that stand. To a
 * dialler the link stands as soon as it has sent its proof, which may lie here unread: if it lost
 * the link then, it would lose the pod.
 */
static struct mesh_connection *find_place(struct mesh *mesh)
{
	uint32_t end = mesh->complete ? mesh->dialled_count + SPARE_PLACES : mesh->connection_count;
	struct mesh_connection *oldest = NULL;

	for (uint32_t i = mesh->dialled_count; i < end; i++) {
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
	for (unsigned i = 0; i < (mesh->complete ? 1 : EVENTS_MAX); i++) {
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
			.state = mesh->keys ? CONNECTION_SECURE : CONNECTION_READ_HELLO,
			.stream = stream_plain(fd),
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

	if (peer->dialled)
		return HANDSHAKE_WRONG_NODE; /* we dial it; it does not dial us */
	if (theirs->purpose == HANDSHAKE_IO && !mesh->config.io)
		return HANDSHAKE_CONFIG;
	if (!peer->known && theirs->join == 0)
		return HANDSHAKE_UNKNOWN_NODE;
	if (!peer->known || theirs->join != peer->join)
		return HANDSHAKE_UNEXPECTED;
	if (mesh->complete && (peer->join == 0 || atomic_load(&peer->linked)))
		return atomic_load(&peer->down) ? HANDSHAKE_RUNNING : HANDSHAKE_DUPLICATE;
	if (peer->up_count > 0 && peer->incarnation != theirs->incarnation)
		return HANDSHAKE_DUPLICATE;
	return HANDSHAKE_OK;
}

static void refuse(struct mesh *mesh, struct mesh_connection *connection,
		   const struct handshake *mine, const struct handshake *theirs)
{
	bool sealed = mine->verdict != HANDSHAKE_VERSION && mine->verdict != HANDSHAKE_SECRET;
	char peer[MESH_WHY_MAX / 2], text[MESH_WHY_MAX], from[ADDRESS_TEXT_MAX];
	struct mesh_quiet *quiet = &mesh->refused[mine->verdict];
	uint64_t now_ns = mesh_now_ns();

	address_text(&connection->from, from);
	snprintf(peer, sizeof(peer), "%s at %s",
		 mine->verdict == HANDSHAKE_SECRET ? "somebody" : "a node", from);
	if (mine->verdict != HANDSHAKE_SECRET && theirs->node < mesh->config.node_count &&
	    theirs->node != mesh->config.self) {
		if (mesh->peer[theirs->node].known)
			snprintf(peer, sizeof(peer), "node %u (%s, from %s)", theirs->node,
				 mesh->peer[theirs->node].name, from);
		/* Whoever it is may say that it is any node. */
		if (sealed || connection->secured)
			quiet = &mesh->peer[theirs->node].refused;
	}
	handshake_explain(mine->verdict, HANDSHAKE_LISTENER, mine, theirs, peer, text,
			  sizeof(text));
	/* A verdict about this very node explains why it is still waited for. */
	if ((!mesh->keys || connection->secured) && theirs->node < mesh->config.node_count &&
	    theirs->node != mesh->config.self && mesh->peer[theirs->node].up_count == 0)
		snprintf(mesh->peer[theirs->node].trouble, sizeof(mesh->peer[0].trouble), "%s",
			 text);

	stream_drop_tls(&connection->stream);
	shutdown(connection->stream.fd, SHUT_WR);
	connection->state = CONNECTION_DRAIN;
	connection->got = 0;
	connection->deadline_ns = now_ns + DRAIN_NS_MAX;
	if (connection_watch(mesh, connection, EPOLLIN) < 0)
		connection_drop(mesh, connection);
	if (!quiet_is_over(quiet, now_ns))
		return;
	quiet->unsaid = 0;
	mesh_progress(mesh, MESH_REFUSED, theirs->node, text);
}

static enum handshake_verdict judge_token(enum token_verdict verdict)
{
	switch (verdict) {
	case TOKEN_OK:
		return HANDSHAKE_OK;
	case TOKEN_USED:
		return HANDSHAKE_TOKEN_USED;
	case TOKEN_BOOK_FULL:
		return HANDSHAKE_TOKEN_FULL;
	default:
		return HANDSHAKE_TOKEN_EXPIRED;
	}
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
	if ((mesh->keys && !connection->secured) || !hello_is_sealed(mesh, connection))
		return HANDSHAKE_SECRET;
	/* A token is no secret, and good for nothing else. */
	if (connection->by_token != (theirs->purpose == HANDSHAKE_JOIN))
		return HANDSHAKE_SECRET;
	verdict = handshake_judge(mine, theirs);
	if (connection->by_token && verdict == HANDSHAKE_OK)
		return judge_token(token_look_up(&mesh->tokens, &connection->token,
						 mesh->config.date_s(mesh->config.ctx)));
	return verdict == HANDSHAKE_OK ? judge_here(mesh, theirs) : verdict;
}

/* Whoever it is does not know the secret. */
static void refuse_unknown(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine = hello_of(mesh, NODE_NONE, HANDSHAKE_CONTROL);
	struct handshake theirs = { .version = WIRE_VERSION, .node = NODE_NONE };

	mine.verdict = HANDSHAKE_SECRET;
	refuse(mesh, connection, &mine, &theirs);
}

/* Its first bytes: a hello is answered in the open, with no more than a verdict. */
static int look_first(struct mesh *mesh, struct mesh_connection *connection)
{
	int first = hello_look(connection);

	switch (first) {
	case 0:
		return 0;
	case 1:
		connection->got = 1;
		return stream_secure(&connection->stream, mesh->keys, false) < 0 ? -ENOMEM : 1;
	case -EPROTO:
		connection->state = CONNECTION_READ_HELLO;
		return accept_hello(mesh, connection);
	default:
		accept_stranger(mesh, connection,
				first == -ENOTSUP ? MESH_STRANGER_FOREIGN : MESH_STRANGER_GONE);
		return 0;
	}
}

int accept_secure(struct mesh *mesh, struct mesh_connection *connection)
{
	int error = connection->got ? 1 : look_first(mesh, connection);

	if (error <= 0) {
		if (error == -ENOMEM)
			connection_drop(mesh, connection);
		return 0;
	}
	error = stream_shake_hands(&connection->stream);
	switch (error) {
	case 0:
		connection->secured = true;
		connection->by_token = stream_by_token(&connection->stream, &connection->token);
		connection->state = CONNECTION_READ_HELLO;
		connection->got = 0;
		break;
	case -EAGAIN:
		break;
	case -EKEYREJECTED:
		refuse_unknown(mesh, connection);
		break;
	case -EPROTONOSUPPORT:
		accept_stranger(mesh, connection, MESH_STRANGER_OLD_TLS);
		break;
	default:
		accept_stranger(mesh, connection,
				error == -EPROTO ? MESH_STRANGER_FOREIGN : MESH_STRANGER_GONE);
	}
	return 0;
}

/* Who begins with TLS here where there is none may be of this pod: it hears a verdict. */
static void answer_tls(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine = hello_of(mesh, NODE_NONE, HANDSHAKE_CONTROL);
	struct handshake answer = handshake_refusal(&mine, HANDSHAKE_SECRET);

	if (hello_send(mesh, connection, &answer) < 0)
		accept_stranger(mesh, connection, MESH_STRANGER_GONE);
	else
		refuse_unknown(mesh, connection);
}

int accept_hello(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine, theirs, answer;
	int result = hello_read(connection, &theirs);

	if (result == 0)
		return 0;
	if (result == -EPROTO && !mesh->keys && connection->buffer[0] == TLS_FIRST_BYTE) {
		answer_tls(mesh, connection);
		return 0;
	}
	if (result < 0) {
		accept_stranger(mesh, connection,
				result == -EPROTO ? MESH_STRANGER_FOREIGN : MESH_STRANGER_GONE);
		return 0;
	}
	mine = hello_of(mesh, theirs.node, theirs.purpose);
	mine.verdict = (uint8_t)judge_hello(mesh, connection, &mine, &theirs);
	answer = mine;
	if (mine.verdict == HANDSHAKE_VERSION ||
	    handshake_is_bare((enum handshake_verdict)mine.verdict))
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

/* Whose token is good is somebody else's from now on. */
static int hand_over_joiner(struct mesh *mesh, struct mesh_connection *connection)
{
	struct token_name token = connection->token;
	struct control_channel *channel;

	epoll_ctl(mesh->epoll, EPOLL_CTL_DEL, connection->stream.fd, NULL);
	/* Another may have come by it first, since it was looked at. */
	if (token_look_up(&mesh->tokens, &token, mesh->config.date_s(mesh->config.ctx)) !=
		    TOKEN_OK ||
	    tcp_control_create(connection->stream, NODE_NONE, &channel) < 0) {
		connection_drop(mesh, connection);
		return 0;
	}
	mesh_token_used(mesh, &token);
	connection->stream = stream_plain(-1);
	connection_drop(mesh, connection);
	mesh->config.asked(mesh->config.ctx, &token, channel);
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
	if (connection->by_token)
		return hand_over_joiner(mesh, connection);
	/* Another may have come first since its hello was taken: it dials again, and hears so. */
	if (handshake_decode(connection->buffer, &theirs) < 0 ||
	    judge_here(mesh, &theirs) != HANDSHAKE_OK) {
		connection_drop(mesh, connection);
		return 0;
	}
	if (mesh->peer[theirs.node].up[theirs.purpose])
		peer_drop(mesh, theirs.node, "it connected again");
	result = connection_stands(mesh, connection, theirs.node, theirs.purpose,
				   theirs.incarnation);
	if (result == 0 || !mesh->complete)
		return result;
	peer_drop(mesh, theirs.node, "this host is out of memory for its links");
	return 0;
}

void accept_drain(struct mesh *mesh, struct mesh_connection *connection)
{
	ssize_t got =
		stream_receive(&connection->stream, connection->buffer, sizeof(connection->buffer));

	if (got == -EAGAIN)
		return;
	if (got > 0) {
		connection->got = (uint16_t)(connection->got + got);
		if (connection->got < DRAIN_BYTES_MAX)
			return;
	}
	connection_drop(mesh, connection);
}
