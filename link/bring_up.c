// SPDX-License-Identifier: Apache-2.0
/*
 * Bringing up the mesh: one loop over non-blocking sockets, until every link has shaken hands.
 *
 * Node a dials all b < a: first the control channel, and when that stands the page channels. So
 * each pair has one dialler, and a listener knows a node by its control channel before it takes the
 * rest: links of one node must come from one process (`incarnation`). A link that ends while others
 * are still missing takes all links of its node with it, and that node starts anew: so a node may
 * die and come back while the pod waits for others: it has COME_BACK_NS.
 *
 * Nobody waits for a node that was here and is lost (judge_peers()). Linked nodes send heartbeats,
 * whose bytes are counted where they lie: the control thread reads them later, in order.
 *
 * Strangers cost little: a bounded pool of connections, 256 bytes and handshake_ms each, oldest out
 * first.
 *
 * Errors of the loop: < 0 ends bring-up with mesh->why set. Tested by tests/link/test_mesh.c.
 */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "link/mesh_state.h"
#include "link/tcp.h"
#include "wire/version.h"

#define MS		1000000ull
#define BACKOFF_NS_MIN	(20 * MS)
#define BACKOFF_NS_MAX	(250 * MS)
#define CONNECT_NS_MAX	(2000 * MS)
#define DRAIN_NS_MAX	(1000 * MS)
#define DRAIN_BYTES_MAX 4096u
#define WAITING_NS	(2000 * MS)
#define STRANGER_NS	(1000 * MS)
#define BEAT_NS		(500 * MS)
#define SILENCE_NS	(3000 * MS) /* of a linked node */
#define ANSWER_NS	(4000 * MS) /* of one that takes connections: it may be starting */
#define COME_BACK_NS	(3000 * MS)
#define LAST_WORD_NS	(400 * MS)
#define LATE_NS		(1000 * MS) /* a judge that did not run so long judges nobody by it */
#define SAID_MAX	4	    /* lines a second on one node's coming and going */
/*
 * Bytes that the peer's kernel does not acknowledge for so long have found a hole. Heartbeats judge
 * a peer sooner, but they go by the control link: a page link that alone leads nowhere would stall
 * vCPUs for as long as this.
 */
#define USER_TIMEOUT_MS 4000
#define RTO_MS_MAX	1000 /* between two tries, from Linux 6.15 on */
#define EVENTS_MAX	64
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif
#define KEY_LISTENER UINT32_MAX
#define KEY_CANCEL   (UINT32_MAX - 1)
#define BUILD_TEXT   "eagre"

/* ---- Small helpers ---- */

static void set_sockopt(int fd, int level, int option, int value)
{
	/* Each is an improvement only: a kernel that refuses one still gives a working link. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

static void tune_socket(const struct mesh *mesh, int fd)
{
	set_sockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_sockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
	if (mesh->config.socket_buffer > 0) {
		set_sockopt(fd, SOL_SOCKET, SO_SNDBUF, (int)mesh->config.socket_buffer);
		set_sockopt(fd, SOL_SOCKET, SO_RCVBUF, (int)mesh->config.socket_buffer);
	}
}

static struct handshake my_hello(const struct mesh *mesh, uint16_t peer, uint16_t purpose)
{
	struct handshake hello = {
		.version = WIRE_VERSION,
		.node = mesh->config.self,
		.peer = peer,
		.purpose = purpose,
		.shard_count = mesh->config.shard_count,
		.node_count = mesh->config.node_count,
		.capabilities = mesh->config.capabilities,
		.config_digest = mesh->config.config_digest,
		.incarnation = mesh->incarnation,
		.limits_digest = handshake_limits_digest(),
		.build = BUILD_TEXT,
	};

	memcpy(hello.pod_name, mesh->pod_name, sizeof(hello.pod_name));
	memcpy(hello.node_name, mesh->peer[mesh->config.self].name, sizeof(hello.node_name));
	return hello;
}

static uint64_t handshake_ns(const struct mesh *mesh)
{
	return mesh->config.handshake_ms * MS;
}

static int watch(struct mesh *mesh, const struct mesh_connection *connection, uint32_t events)
{
	struct epoll_event event = {
		.events = events,
		.data.u32 = (uint32_t)(connection - mesh->connection),
	};

	if (epoll_ctl(mesh->epoll, EPOLL_CTL_MOD, connection->fd, &event) == 0)
		return 0;
	if (epoll_ctl(mesh->epoll, EPOLL_CTL_ADD, connection->fd, &event) == 0)
		return 0;
	return -errno;
}

static bool is_dialled(const struct mesh *mesh, const struct mesh_connection *connection)
{
	return (uint32_t)(connection - mesh->connection) < mesh->dialled_count;
}

/* Closes it. A dialled connection will be dialled again after its backoff. */
static void drop(struct mesh *mesh, struct mesh_connection *connection)
{
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
	connection->state = CONNECTION_IDLE;
	connection->got = 0;
	if (!is_dialled(mesh, connection)) {
		connection->node = NODE_NONE;
		return;
	}
	connection->deadline_ns = mesh_now_ns() + connection->backoff_ns;
	connection->backoff_ns *= 2;
	if (connection->backoff_ns > BACKOFF_NS_MAX)
		connection->backoff_ns = BACKOFF_NS_MAX;
}

/* Lines on a node that comes and goes must not fill the log. */
static void say_of_peer(struct mesh *mesh, enum mesh_event event, uint16_t node, const char *text)
{
	struct mesh_peer *peer = &mesh->peer[node];
	uint64_t now_ns = mesh_now_ns();

	if (now_ns - peer->said_ns >= STRANGER_NS) {
		peer->said_ns = now_ns;
		peer->said_count = 0;
	}
	if (peer->said_count++ < SAID_MAX)
		mesh_progress(mesh, event, node, text);
}

/* All links to a node, at the first sign that one of them is over. */
static void drop_peer(struct mesh *mesh, uint16_t node, const char *trouble)
{
	struct mesh_peer *peer = &mesh->peer[node];

	snprintf(peer->trouble, sizeof(peer->trouble), "%s", trouble);
	if (peer->control) {
		peer->control->ops->destroy(peer->control);
		peer->control = NULL;
		peer->gone_ns = mesh_now_ns() + COME_BACK_NS;
	}
	peer->ending_ns = 0;
	for (uint32_t i = 0; i < HANDSHAKE_PURPOSE_MAX; i++) {
		if (!peer->up[i])
			continue;
		drop(mesh, peer->up[i]);
		peer->up[i] = NULL;
		mesh->up_count--;
	}
	peer->up_count = 0;
	peer->incarnation = 0;
}

static void beat(struct mesh_peer *peer)
{
	static const struct control_message msg = { .type = CONTROL_HEARTBEAT };

	(void)control_send(peer->control, &msg); /* its end shows by itself */
}

/* From now on the channel owns the socket. */
static int make_control(struct mesh *mesh, struct mesh_connection *connection)
{
	struct mesh_peer *peer = &mesh->peer[connection->node];
	int error = tcp_control_create(connection->fd, connection->node, &peer->control);

	if (error < 0)
		return error;
	connection->fd = -1;
	peer->heard_ns = mesh_now_ns();
	peer->unread = 0;
	peer->gone_ns = 0;
	beat(peer);
	return 0;
}

static int link_stands(struct mesh *mesh, struct mesh_connection *connection, uint16_t node,
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
	if (watch(mesh, connection, EPOLLRDHUP) < 0)
		return -ENOMEM;
	if (purpose == HANDSHAKE_CONTROL) {
		/* A cut shall not last longer for us than for the wire: resend at a steady pace. */
		set_sockopt(connection->fd, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1);
		set_sockopt(connection->fd, IPPROTO_TCP, TCP_RTO_MAX_MS, RTO_MS_MAX);
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

		say_of_peer(mesh, MESH_CONNECTED, node,
			    mesh_describe(mesh, node, text, sizeof(text)));
	}
	return 0;
}

/* ---- Dialling ---- */

static void trouble(struct mesh *mesh, struct mesh_connection *connection, const char *text)
{
	struct mesh_peer *peer = &mesh->peer[connection->node];

	snprintf(peer->trouble, sizeof(peer->trouble), "%s", text);
	drop(mesh, connection);
}

static int send_hello(const struct mesh *mesh, struct mesh_connection *connection,
		      const struct handshake *hello)
{
	uint8_t bytes[HANDSHAKE_BYTES];
	ssize_t sent;

	handshake_encode(hello, bytes);
	if (hello->node_count > 0) /* else a refusal, which proves nothing */
		handshake_seal(bytes, mesh->secret, mesh->config.secret_size);
	sent = send(connection->fd, bytes, sizeof(bytes), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent == (ssize_t)sizeof(bytes))
		return 0;
	return sent < 0 ? -errno : -EAGAIN; /* 256 bytes do not fit an empty socket: broken */
}

static void dial(struct mesh *mesh, struct mesh_connection *connection, uint64_t now_ns)
{
	const struct mesh_peer *peer = &mesh->peer[connection->node];
	int fd = socket(peer->address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			0);

	if (fd < 0) {
		trouble(mesh, connection, strerror(errno));
		return;
	}
	connection->fd = fd;
	connection->got = 0;
	tune_socket(mesh, fd);
	if (connect(fd, (const struct sockaddr *)&peer->address.storage, peer->address.size) < 0 &&
	    errno != EINPROGRESS) {
		trouble(mesh, connection, strerror(errno));
		return;
	}
	connection->state = CONNECTION_CONNECTING;
	connection->deadline_ns = now_ns + CONNECT_NS_MAX;
	if (watch(mesh, connection, EPOLLOUT) < 0)
		trouble(mesh, connection, strerror(errno));
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

static void dial_connected(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake hello = my_hello(mesh, connection->node, connection->purpose);
	socklen_t size = sizeof(int);
	int error = 0;

	if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error == 0 && connected_to_itself(connection->fd))
		error = ECONNREFUSED;
	if (error == 0)
		error = -send_hello(mesh, connection, &hello);
	if (error != 0) {
		trouble(mesh, connection, strerror(error));
		return;
	}
	connection->state = CONNECTION_READ_REPLY;
	connection->deadline_ns = mesh_now_ns() + handshake_ns(mesh);
	if (mesh->peer[connection->node].silent_ns == 0)
		mesh->peer[connection->node].silent_ns = mesh_now_ns();
	if (watch(mesh, connection, EPOLLIN) < 0)
		trouble(mesh, connection, strerror(errno));
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

/* Reads what there is of a hello. 1: whole; 0: not yet; < 0: over. *ret_hello is set from 16 bytes
 * on. */
static int read_hello(struct mesh_connection *connection, struct handshake *ret_hello)
{
	uint16_t length;
	ssize_t got = tcp_receive(connection->fd, connection->buffer + connection->got,
				  HANDSHAKE_BYTES - connection->got);

	if (got == -EAGAIN)
		return 0;
	if (got < 0)
		return (int)got;
	connection->got = (uint16_t)(connection->got + got);
	if (connection->got < HANDSHAKE_FIXED_BYTES)
		return 0;
	if (handshake_decode_fixed(connection->buffer, ret_hello, &length) < 0)
		return -EPROTO;
	if (ret_hello->version != WIRE_VERSION)
		return 1;
	if (connection->got < HANDSHAKE_BYTES)
		return 0;
	return handshake_decode(connection->buffer, ret_hello) < 0 ? -EPROTO : 1;
}

static bool is_sealed(const struct mesh *mesh, const struct mesh_connection *connection)
{
	return handshake_is_sealed(connection->buffer, mesh->secret, mesh->config.secret_size);
}

static int dial_reply(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine = my_hello(mesh, connection->node, connection->purpose);
	struct mesh_peer *peer = &mesh->peer[connection->node];
	enum handshake_verdict verdict;
	struct handshake theirs;
	int result = read_hello(connection, &theirs);

	if (result == 0)
		return 0;
	peer->silent_ns = 0;
	if (result == -EPROTO) {
		trouble(mesh, connection, "what listens there is no Eagre node: check the address");
		return 0;
	}
	if (result < 0) {
		trouble(mesh, connection, "it closed the connection during the handshake");
		return 0;
	}
	/* The listener has judged; where it saw nothing wrong we may (its answer may be for
	 * another). */
	verdict = theirs.version != mine.version ? HANDSHAKE_VERSION : theirs.verdict;
	if (theirs.version == mine.version && !is_sealed(mesh, connection))
		verdict = HANDSHAKE_SECRET;
	if (verdict == HANDSHAKE_OK)
		verdict = handshake_judge(&mine, &theirs);
	if (verdict == HANDSHAKE_OK && theirs.node != connection->node)
		verdict = HANDSHAKE_WRONG_NODE;
	if (verdict != HANDSHAKE_OK)
		return refused(mesh, connection, verdict, &mine, &theirs);
	if (theirs.purpose != connection->purpose ||
	    (peer->up_count > 0 && peer->incarnation != theirs.incarnation)) {
		trouble(mesh, connection, "it was restarted during the handshake");
		return 0;
	}
	return link_stands(mesh, connection, connection->node, connection->purpose,
			   theirs.incarnation);
}

/* ---- Accepting ---- */

static const char *const stranger_texts[MESH_STRANGER_KINDS] = {
	[MESH_STRANGER_FOREIGN] = "it is no Eagre node",
	[MESH_STRANGER_GONE] = "it ended before its handshake did",
	[MESH_STRANGER_SLOW] = "it did not finish its handshake in time",
	[MESH_STRANGER_CROWD] = "too many handshakes at once, and this one was the oldest",
};

/* A scanner must not fill our log, either: one line a kind and second. */
static void stranger(struct mesh *mesh, struct mesh_connection *connection, enum mesh_stranger kind)
{
	char from[ADDRESS_TEXT_MAX], text[MESH_WHY_MAX], more[64] = "";
	uint64_t now_ns = mesh_now_ns();

	address_text(&connection->from, from);
	drop(mesh, connection);
	if (now_ns < mesh->stranger[kind].quiet_ns) {
		mesh->stranger[kind].unsaid++;
		return;
	}
	if (mesh->stranger[kind].unsaid > 0)
		snprintf(more, sizeof(more), " (and %u more like it lately)",
			 mesh->stranger[kind].unsaid);
	mesh->stranger[kind].unsaid = 0;
	mesh->stranger[kind].quiet_ns = now_ns + STRANGER_NS;
	snprintf(text, sizeof(text), "dropped a connection from %s: %s%s", from,
		 stranger_texts[kind], more);
	mesh_progress(mesh, MESH_DROPPED, NODE_NONE, text);
}

/* A free place in the pool; the oldest handshake gives way. NULL: all are links that stand. */
static struct mesh_connection *find_place(struct mesh *mesh)
{
	struct mesh_connection *oldest = NULL;

	for (uint32_t i = mesh->dialled_count; i < mesh->connection_count; i++) {
		struct mesh_connection *connection = &mesh->connection[i];

		if (connection->state == CONNECTION_IDLE)
			return connection;
		if (connection->state != CONNECTION_UP &&
		    (!oldest || connection->deadline_ns < oldest->deadline_ns))
			oldest = connection;
	}
	if (oldest)
		stranger(mesh, oldest, MESH_STRANGER_CROWD);
	return oldest;
}

static void accept_all(struct mesh *mesh)
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
			.deadline_ns = mesh_now_ns() + handshake_ns(mesh),
			.from = from,
		};
		tune_socket(mesh, fd);
		if (watch(mesh, connection, EPOLLIN) < 0)
			drop(mesh, connection);
	}
}

/* Things that only the mesh knows. May drop an older link of the same process. */
static enum handshake_verdict judge_here(struct mesh *mesh, const struct handshake *theirs)
{
	struct mesh_peer *peer = &mesh->peer[theirs->node];

	if (theirs->node < mesh->config.self)
		return HANDSHAKE_WRONG_NODE; /* we dial it; it does not dial us */
	if (mesh->complete)
		return atomic_load(&peer->down) ? HANDSHAKE_RUNNING : HANDSHAKE_DUPLICATE;
	if (peer->up_count > 0 && peer->incarnation != theirs->incarnation)
		return HANDSHAKE_DUPLICATE;
	if (peer->up[theirs->purpose])
		drop_peer(mesh, theirs->node, "it connected again");
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
	if (watch(mesh, connection, EPOLLIN) < 0)
		drop(mesh, connection);
	if (now_ns < *quiet_ns)
		return;
	*quiet_ns = now_ns + STRANGER_NS;
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
	if (!is_sealed(mesh, connection))
		return HANDSHAKE_SECRET;
	verdict = handshake_judge(mine, theirs);
	return verdict == HANDSHAKE_OK ? judge_here(mesh, theirs) : verdict;
}

static int accept_hello(struct mesh *mesh, struct mesh_connection *connection)
{
	struct handshake mine, theirs, answer;
	int result = read_hello(connection, &theirs);

	if (result == 0)
		return 0;
	if (result < 0) {
		stranger(mesh, connection,
			 result == -EPROTO ? MESH_STRANGER_FOREIGN : MESH_STRANGER_GONE);
		return 0;
	}
	mine = my_hello(mesh, theirs.node, theirs.purpose);
	mine.verdict = (uint8_t)judge_hello(mesh, connection, &mine, &theirs);
	answer = mine;
	if (mine.verdict == HANDSHAKE_VERSION || mine.verdict == HANDSHAKE_SECRET)
		answer = handshake_refusal(&mine, (enum handshake_verdict)mine.verdict);
	if (send_hello(mesh, connection, &answer) < 0) {
		stranger(mesh, connection, MESH_STRANGER_GONE);
		return 0;
	}
	if (mine.verdict != HANDSHAKE_OK) {
		refuse(mesh, connection, &mine, &theirs);
		return 0;
	}
	return link_stands(mesh, connection, theirs.node, theirs.purpose, theirs.incarnation);
}

static void drain(struct mesh *mesh, struct mesh_connection *connection)
{
	ssize_t got = tcp_receive(connection->fd, connection->buffer, sizeof(connection->buffer));

	if (got == -EAGAIN)
		return;
	if (got > 0) {
		connection->got = (uint16_t)(connection->got + got);
		if (connection->got < DRAIN_BYTES_MAX)
			return;
	}
	drop(mesh, connection);
}

/* ---- Nodes that are lost while others are still missing ---- */

/* Its END, if it said one: the bring-up's end, too. What else it said goes with its links. */
static int take_last_words(struct mesh *mesh, uint16_t node)
{
	struct mesh_peer *peer = &mesh->peer[node];
	struct control_message *msg = malloc(sizeof(*msg));
	int error = msg && peer->control ? 0 : -ENOMEM;

	while (error == 0 && (error = control_receive(peer->control, msg)) == 0) {
		if (msg->type != CONTROL_END)
			continue;
		snprintf(mesh->why, mesh->why_size, "the pod ended: %s", msg->end.text);
		if (mesh->config.ended)
			mesh->config.ended(mesh->config.ctx, &msg->end);
		error = -ECONNABORTED;
	}
	free(msg);
	return error == -ECONNABORTED ? error : 0;
}

static int peer_lost(struct mesh *mesh, uint16_t node)
{
	char text[MESH_WHY_MAX], peer[MESH_WHY_MAX / 2];
	int error = take_last_words(mesh, node);

	if (error < 0)
		return error;
	snprintf(text, sizeof(text), "lost %s while waiting for other nodes",
		 mesh_describe(mesh, node, peer, sizeof(peer)));
	say_of_peer(mesh, MESH_DROPPED, node, text);
	drop_peer(mesh, node, "it ended its links during bring-up");
	return 0;
}

/* A link ended. If it is a page link, the control link may have the node's last word. */
static int link_ended(struct mesh *mesh, struct mesh_connection *connection)
{
	struct mesh_peer *peer = &mesh->peer[connection->node];

	if (connection->purpose == HANDSHAKE_CONTROL)
		return peer_lost(mesh, connection->node);
	epoll_ctl(mesh->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
	if (peer->ending_ns == 0)
		peer->ending_ns = mesh_now_ns() + LAST_WORD_NS;
	return 0;
}

static int peer_gone(struct mesh *mesh, uint16_t node, const char *cause)
{
	char line[MESH_WHY_MAX], peer[MESH_WHY_MAX / 2];

	snprintf(line, sizeof(line), "%s is gone: %s",
		 mesh_describe(mesh, node, peer, sizeof(peer)), cause);
	snprintf(mesh->why, mesh->why_size, "%s", line);
	atomic_store(&mesh->peer[node].down, true);
	if (mesh->config.down)
		mesh->config.down(mesh->config.ctx, node, line);
	return -ECONNABORTED;
}

/* Bytes that arrive are signs of life, read or not. */
static void hear(struct mesh_peer *peer, uint64_t now_ns)
{
	int unread = 0;

	if (ioctl(control_fd(peer->control), FIONREAD, &unread) < 0 || unread <= peer->unread)
		return;
	peer->unread = unread;
	peer->heard_ns = now_ns;
}

static int judge_peer(struct mesh *mesh, uint16_t node, uint64_t now_ns)
{
	struct mesh_peer *peer = &mesh->peer[node];

	if (peer->control)
		hear(peer, now_ns);
	if (peer->ending_ns && now_ns >= peer->ending_ns)
		return peer_lost(mesh, node);
	if (peer->control && now_ns - peer->heard_ns >= SILENCE_NS)
		return peer_gone(mesh, node,
				 "nothing heard from it for 3 s: it hangs, or its network is cut");
	if (peer->gone_ns && now_ns >= peer->gone_ns)
		return peer_gone(mesh, node,
				 "it was linked, ended its links, and did not come back");
	if (peer->silent_ns && now_ns - peer->silent_ns >= ANSWER_NS)
		return peer_gone(mesh, node,
				 "it takes connections and does not answer: it hangs, or its "
				 "address is another program's");
	return 0;
}

/* Who did not get to run could not hear anybody. */
static void forgive(struct mesh *mesh, uint64_t late_ns)
{
	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		struct mesh_peer *peer = &mesh->peer[i];

		peer->heard_ns += late_ns;
		peer->gone_ns += peer->gone_ns ? late_ns : 0;
		peer->silent_ns += peer->silent_ns ? late_ns : 0;
	}
}

static int judge_peers(struct mesh *mesh, uint64_t now_ns)
{
	int error = 0;

	if (now_ns - mesh->looked_ns > LATE_NS)
		forgive(mesh, now_ns - mesh->looked_ns);
	mesh->looked_ns = now_ns;
	for (uint16_t i = 0; i < mesh->config.node_count && error == 0; i++)
		error = judge_peer(mesh, i, now_ns);
	if (error < 0 || now_ns < mesh->beat_ns)
		return error;
	mesh->beat_ns = now_ns + BEAT_NS;
	for (uint16_t i = 0; i < mesh->config.node_count; i++)
		if (mesh->peer[i].control)
			beat(&mesh->peer[i]);
	return 0;
}

/* ---- The loop ---- */

static int connection_event(struct mesh *mesh, struct mesh_connection *connection)
{
	switch (connection->state) {
	case CONNECTION_CONNECTING:
		dial_connected(mesh, connection);
		return 0;
	case CONNECTION_READ_REPLY:
		return dial_reply(mesh, connection);
	case CONNECTION_READ_HELLO:
		return accept_hello(mesh, connection);
	case CONNECTION_DRAIN:
		drain(mesh, connection);
		return 0;
	case CONNECTION_UP:
		return link_ended(mesh, connection);
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
			dial(mesh, connection, now_ns);
		break;
	case CONNECTION_CONNECTING:
		trouble(mesh, connection, strerror(ETIMEDOUT));
		break;
	case CONNECTION_READ_REPLY:
		trouble(mesh, connection, "it does not answer the handshake");
		break;
	case CONNECTION_READ_HELLO:
		stranger(mesh, connection, MESH_STRANGER_SLOW);
		break;
	case CONNECTION_DRAIN:
		drop(mesh, connection);
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
		    (idle && (!is_dialled(mesh, connection) || mesh->complete)))
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
		char text[MESH_WHY_MAX], address[ADDRESS_TEXT_MAX];

		if (i == mesh->config.self || peer->up_count == mesh_purposes(mesh))
			continue;
		snprintf(text, sizeof(text), "waiting for node %u (%s) at %s%s%s%s", i, peer->name,
			 address_text(&peer->address, address), peer->trouble[0] ? " (" : "",
			 peer->trouble, peer->trouble[0] ? ")" : "");
		mesh_progress(mesh, MESH_WAITING, i, text);
	}
}

/* One round: waits until wake_ns at most. 1: cancelled; 0; < 0: bring-up has failed. */
static int round_of_events(struct mesh *mesh, uint64_t wake_ns)
{
	struct epoll_event event[EVENTS_MAX];
	uint64_t now_ns = mesh_now_ns();
	int timeout_ms = wake_ns <= now_ns ? 0 : (int)((wake_ns - now_ns) / MS) + 1;
	int count = epoll_wait(mesh->epoll, event, EVENTS_MAX, timeout_ms);

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
		if (i == mesh->config.self || mesh->peer[i].up_count == mesh_purposes(mesh))
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

static int make_channels(struct mesh *mesh)
{
	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		struct mesh_peer *peer = &mesh->peer[i];

		for (uint16_t purpose = 0; purpose < mesh_purposes(mesh); purpose++) {
			struct mesh_connection *connection = peer->up[purpose];
			int error;

			if (i == mesh->config.self)
				continue;
			epoll_ctl(mesh->epoll, EPOLL_CTL_DEL,
				  connection->fd < 0 ? control_fd(peer->control) : connection->fd,
				  NULL);
			error = purpose == HANDSHAKE_CONTROL
					? 0
					: tcp_page_create(connection->fd, i,
							  mesh->config.page_queue_bytes,
							  &peer->pages[purpose - 1]);
			if (error < 0) {
				snprintf(mesh->why, mesh->why_size,
					 "out of memory for links: give this host more memory");
				return error;
			}
			connection->fd = -1; /* the channel's now */
			connection->state = CONNECTION_IDLE;
			if (!is_dialled(mesh, connection))
				connection->node = NODE_NONE;
		}
	}
	mesh->complete = true;
	return 0;
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
		error = judge_peers(mesh, now_ns);
		if (error < 0)
			break;
		if (mesh->waiting_ns < wake_ns)
			wake_ns = mesh->waiting_ns;
		if (mesh->beat_ns < wake_ns)
			wake_ns = mesh->beat_ns;
		error = round_of_events(mesh, wake_ns < end_ns ? wake_ns : end_ns);
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
	if (!mesh->complete)
		return;
	expire(mesh, mesh_now_ns());
	round_of_events(mesh, 0);
}
