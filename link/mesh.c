// SPDX-License-Identifier: Apache-2.0
/*
 * The mesh before and after its bring-up (link/bring_up.c): config, listening, channels, the end.
 *
 * Owned by the thread that created it; mesh_down(), mesh_describe() and the channel getters only
 * read what is constant after bring-up, and the `down` flags are atomic, so any thread may call
 * them. Tested by tests/link/test_mesh.c, test_mesh_strangers.c.
 */
#include "link/mesh.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "link/bring_up.h"
#include "link/tcp.h"
#include "link/tls.h"
#include "wire/text.h"

#define TIMEOUT_MS	  60000u
#define HANDSHAKE_MS	  10000u
#define DESCRIPTORS_SPARE 512u /* for everything else in the process */
#define CLOSE_NS_MAX	  200000000ull

uint64_t mesh_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint32_t mesh_purposes(const struct mesh *mesh)
{
	return 1u + mesh->config.shard_count + mesh->config.io;
}

uint16_t mesh_purpose(const struct mesh *mesh, uint32_t i)
{
	return (uint16_t)(i <= mesh->config.shard_count ? i : HANDSHAKE_IO);
}

void mesh_progress(struct mesh *mesh, enum mesh_event event, uint16_t node, const char *text)
{
	if (mesh->config.progress)
		mesh->config.progress(mesh->config.ctx, event, node, text);
}

const char *mesh_describe(const struct mesh *mesh, uint16_t node, char *buf, size_t size)
{
	char address[ADDRESS_TEXT_MAX];

	if (node >= mesh->config.node_count)
		snprintf(buf, size, "node %u (unknown)", node);
	else
		snprintf(buf, size, "node %u (%s, %s)", node, mesh->peer[node].name,
			 address_text(&mesh->peer[node].address, address));
	return buf;
}

/* For TLS: the key of whatever token is named. Whether it is good is judged later, inside. */
static int find_token(void *ctx, const struct token_name *token, uint8_t ret_key[TOKEN_KEY_BYTES])
{
	const struct mesh *mesh = ctx;
	const struct token_pod pod = { mesh->secret, mesh->config.secret_size, mesh->pod_name };

	return mesh->complete ? token_key(&pod, token, ret_key) : -EAGAIN;
}

void mesh_token_used(struct mesh *mesh, const struct token_name *token)
{
	(void)token_use(&mesh->tokens, token, mesh->config.date_s(mesh->config.ctx));
}

static int check_config(const struct mesh_config *config, char *why, size_t why_size)
{
	if (config->node_count == 0 || config->node_count > NODES_MAX) {
		snprintf(why, why_size, "%u nodes: a pod has 1 to %u", config->node_count,
			 NODES_MAX);
		return -EINVAL;
	}
	if (config->self >= config->node_count) {
		snprintf(why, why_size, "node %u is not one of the pod's %u nodes", config->self,
			 config->node_count);
		return -EINVAL;
	}
	if (!config->node[config->self].name) {
		snprintf(why, why_size, "node %u has no name", config->self);
		return -EINVAL;
	}
	if (config->shard_count == 0 || config->shard_count > SHARDS_MAX) {
		snprintf(why, why_size, "%u shards: a node has 1 to %u", config->shard_count,
			 SHARDS_MAX);
		return -EINVAL;
	}
	if (strlen(config->pod_name) >= POD_NAME_MAX ||
	    !wire_text_span_valid(config->pod_name, strlen(config->pod_name), false)) {
		snprintf(why, why_size, "the pod's name must be text shorter than %u bytes",
			 POD_NAME_MAX);
		return -EINVAL;
	}
	if (config->secret_size > MESH_SECRET_MAX) {
		snprintf(why, why_size, "the pod's secret must be %u bytes or fewer",
			 MESH_SECRET_MAX);
		return -EINVAL;
	}
	if (config->encrypt && config->secret_size == 0) {
		snprintf(why, why_size, "links can be encrypted only with a secret of the pod");
		return -EINVAL;
	}
	return 0;
}

static int add_peer(struct mesh *mesh, uint16_t number, const struct mesh_node *node, bool late,
		    char *why, size_t why_size)
{
	struct mesh_peer *peer = &mesh->peer[number];
	char detail[MESH_WHY_MAX / 2], text[ADDRESS_TEXT_MAX];
	int error;

	if (strlen(node->name) >= NODE_NAME_MAX ||
	    !wire_text_span_valid(node->name, strlen(node->name), false)) {
		snprintf(why, why_size, "node %u: its name must be text shorter than %u bytes",
			 number, NODE_NAME_MAX);
		return -EINVAL;
	}
	wire_text_put(peer->name, sizeof(peer->name), node->name);
	error = (late ? address_parse_numeric : address_parse)(node->address, &peer->address,
							       detail, sizeof(detail));
	if (error < 0) {
		snprintf(why, why_size, "node %u (%s): %s", number, node->name, detail);
		return error;
	}
	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		if (i == number || !mesh->peer[i].known ||
		    !address_equal(&mesh->peer[i].address, &peer->address))
			continue;
		snprintf(why, why_size,
			 "nodes %u (%s) and %u (%s) have the same address %s: give each its own", i,
			 mesh->peer[i].name, number, node->name,
			 address_text(&peer->address, text));
		return -EINVAL;
	}
	peer->known = true;
	peer->dialled = !late && number != mesh->config.self &&
			(mesh->config.join || number < mesh->config.self);
	return 0;
}

static int listen_error(const struct mesh *mesh, int error, char *why, size_t why_size)
{
	char self[MESH_WHY_MAX / 2];
	const char *remedy = "";

	switch (error) {
	case EADDRINUSE:
		remedy = ": end the program that uses this port, or give the node another one";
		break;
	case EADDRNOTAVAIL:
		remedy = ": start this node on the host that has the address, or correct it";
		break;
	case EACCES:
		remedy = ": give the node a port above 1023";
		break;
	}
	snprintf(why, why_size, "%s cannot listen on its address: %s%s",
		 mesh_describe(mesh, mesh->config.self, self, sizeof(self)), strerror(error),
		 remedy);
	return -error;
}

static int start_listening(struct mesh *mesh, char *why, size_t why_size)
{
	const struct address *address = &mesh->peer[mesh->config.self].address;
	const int on = 1;

	mesh->listener =
		socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (mesh->listener < 0)
		return listen_error(mesh, errno, why, why_size);
	/* A port whose old connections are still fading out is free. */
	setsockopt(mesh->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(mesh->listener, (const struct sockaddr *)&address->storage, address->size) < 0 ||
	    listen(mesh->listener, SOMAXCONN) < 0)
		return listen_error(mesh, errno, why, why_size);
	return 0;
}

/* Places: one for each link that we dial, and a pool for what others dial. */
static int make_connections(struct mesh *mesh)
{
	uint32_t purposes = mesh_purposes(mesh), dialled = 0, others = 0, at = 0;

	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		others += mesh->peer[i].known && i != mesh->config.self;
		dialled += mesh->peer[i].dialled;
	}
	mesh->dialled_count = dialled * purposes;
	mesh->connection_count = others * purposes + SPARE_PLACES;
	mesh->up_wanted = others * purposes;
	mesh->connection = calloc(mesh->connection_count, sizeof(*mesh->connection));
	if (!mesh->connection)
		return -ENOMEM;
	for (uint32_t i = 0; i < mesh->connection_count; i++) {
		struct mesh_connection *connection = &mesh->connection[i];

		connection->stream = stream_plain(-1);
		connection->node = NODE_NONE;
		connection->backoff_ns = 20000000;
	}
	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		for (uint32_t k = 0; mesh->peer[i].dialled && k < purposes; k++) {
			mesh->connection[at].node = i;
			mesh->connection[at++].purpose = mesh_purpose(mesh, k);
		}
	}
	return 0;
}

/* A large pod has more links than the usual soft limit of descriptors; and it may grow. */
static int raise_descriptor_limit(const struct mesh *mesh, char *why, size_t why_size)
{
	rlim_t wanted = (mesh->config.node_count - 1u) * mesh_purposes(mesh) + SPARE_PLACES +
			DESCRIPTORS_SPARE;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return 0;
	if (limit.rlim_max < wanted) {
		snprintf(why, why_size,
			 "%u nodes with %u shards need %llu open files, this process may have "
			 "%llu: raise the limit (ulimit -Hn), or use fewer shards",
			 mesh->config.node_count, mesh->config.shard_count,
			 (unsigned long long)wanted, (unsigned long long)limit.rlim_max);
		return -EMFILE;
	}
	limit.rlim_cur = wanted;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

int mesh_create(const struct mesh_config *config, struct mesh **ret_mesh, char *why,
		size_t why_size)
{
	struct mesh *mesh = NULL;
	int error = check_config(config, why, why_size);

	if (error < 0)
		return error;
	mesh = calloc(1, sizeof(*mesh) + config->node_count * sizeof(mesh->peer[0]));
	if (!mesh)
		goto out_of_memory;
	mesh->config = *config;
	mesh->config.node = NULL;
	mesh->config.pod_name = NULL;
	mesh->config.secret = NULL;
	if (config->secret_size > 0)
		memcpy(mesh->secret, config->secret, config->secret_size);
	if (mesh->config.timeout_ms == 0)
		mesh->config.timeout_ms = TIMEOUT_MS;
	if (mesh->config.handshake_ms == 0)
		mesh->config.handshake_ms = HANDSHAKE_MS;
	wire_text_put(mesh->pod_name, sizeof(mesh->pod_name), config->pod_name);
	mesh->listener = -1;
	mesh->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (mesh->epoll < 0)
		goto out_of_memory;
	if (config->encrypt)
		error = tls_keys_create(mesh->secret, config->secret_size, config->kernel_tls,
					&mesh->keys);
	if (error < 0)
		snprintf(why, why_size,
			 "cannot prepare encrypted links: OpenSSL is out of memory, or does not do "
			 "TLS 1.3 as this host has set it up (/etc/ssl/openssl.cnf)");
	else if (mesh->keys && config->asked)
		tls_keys_take_tokens(mesh->keys, find_token, mesh);
	if (getrandom(&mesh->incarnation, sizeof(mesh->incarnation), 0) < 0 ||
	    mesh->incarnation == 0)
		mesh->incarnation = mesh_now_ns() ^ (uint64_t)getpid() << 40;

	for (uint16_t i = 0; i < config->node_count && error == 0; i++)
		if (config->node[i].name)
			error = add_peer(mesh, i, &config->node[i], false, why, why_size);
	if (error == 0 && make_connections(mesh) < 0)
		goto out_of_memory;
	if (error == 0)
		error = raise_descriptor_limit(mesh, why, why_size);
	if (error == 0)
		error = start_listening(mesh, why, why_size);
	if (error < 0) {
		mesh_destroy(mesh);
		return error;
	}
	*ret_mesh = mesh;
	return 0;

out_of_memory:
	snprintf(why, why_size, "cannot prepare links: %s", strerror(errno));
	mesh_destroy(mesh);
	return -ENOMEM;
}

struct control_channel *mesh_control(struct mesh *mesh, uint16_t node)
{
	assert(mesh->complete && node < mesh->config.node_count);
	return atomic_load(&mesh->peer[node].linked) ? mesh->peer[node].control : NULL;
}

struct page_channel *mesh_pages(struct mesh *mesh, uint16_t node, uint16_t shard)
{
	assert(mesh->complete && node < mesh->config.node_count &&
	       shard < mesh->config.shard_count);
	return mesh->peer[node].pages[shard];
}

struct io_channel *mesh_io(struct mesh *mesh, uint16_t node)
{
	assert(mesh->complete && node < mesh->config.node_count);
	return mesh->peer[node].io;
}

static const char *error_text(int error)
{
	switch (error) {
	case -EPIPE:
		return "it closed its link";
	case -ECONNRESET:
		return "its link was reset";
	case -ETIMEDOUT:
		return "its host does not answer";
	case -EBADMSG:
		return "what came on its link is not what it sent: somebody changed it on its way";
	case -EPROTO:
		return "it sent what no node of this version sends";
	case -ENOBUFS:
		return "it has not read from its link for too long";
	default:
		return strerror(-error);
	}
}

bool mesh_down(struct mesh *mesh, uint16_t node, int error, const char *text)
{
	char line[MESH_WHY_MAX], peer[MESH_WHY_MAX / 2];

	assert(node < mesh->config.node_count);
	if (atomic_exchange(&mesh->peer[node].down, true))
		return false;
	snprintf(line, sizeof(line), "%s is gone: %s",
		 mesh_describe(mesh, node, peer, sizeof(peer)), text ? text : error_text(error));
	if (mesh->config.down)
		mesh->config.down(mesh->config.ctx, node, line);
	return true;
}

/* Of who is not linked yet nobody else knows, and it may be closed meanwhile. */
static bool may_tell(const struct mesh *mesh, uint16_t node)
{
	return (!mesh->complete || atomic_load(&mesh->peer[node].linked)) &&
	       mesh->peer[node].control;
}

static void tell(struct mesh *mesh, uint16_t node, const struct control_message *msg)
{
	if (may_tell(mesh, node))
		(void)control_send(mesh->peer[node].control, msg);
}

void mesh_tell(struct mesh *mesh, const struct control_message *msg, uint16_t last)
{
	for (uint16_t i = 0; i < mesh->config.node_count; i++)
		if (i != last)
			tell(mesh, i, msg);
	if (last < mesh->config.node_count)
		tell(mesh, last, msg);
}

void mesh_shutdown(struct mesh *mesh)
{
	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		struct control_channel *control = mesh->peer[i].control;

		if (may_tell(mesh, i))
			control->ops->shutdown(control);
	}
}

uint64_t mesh_kept_bytes(uint32_t node_count, uint32_t shard_count, bool io, bool encrypt)
{
	uint64_t more = encrypt ? STREAM_TLS_KEPT : 0;

	return (uint64_t)(node_count - 1) *
		       (TCP_CONTROL_KEPT + more + shard_count * (TCP_PAGE_KEPT + more) +
			(io ? TCP_IO_KEPT + more : 0)) +
	       SPARE_PLACES * more;
}

int mesh_fd(const struct mesh *mesh)
{
	return mesh->epoll;
}

/*
 * Ends the control channels so that what was sent arrives: a socket closed with unread bytes in it
 * resets the connection, and that may overtake our last words. So: no more sending, then read until
 * the peer has closed, too, or the time is over.
 */
static void close_gently(struct mesh *mesh)
{
	uint64_t end_ns = mesh_now_ns() + CLOSE_NS_MAX;
	struct pollfd fds[NODES_MAX];
	uint16_t open_count = 0;

	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		struct control_channel *control = mesh->peer[i].control;

		fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN | POLLOUT };
		if (!control)
			continue;
		control->ops->shutdown(control);
		fds[i].fd = control_fd(control);
		open_count++;
	}
	while (open_count > 0) {
		uint64_t now_ns = mesh_now_ns();

		if (now_ns >= end_ns ||
		    poll(fds, mesh->config.node_count, (int)((end_ns - now_ns) / 1000000) + 1) < 0)
			return;
		for (uint16_t i = 0; i < mesh->config.node_count; i++) {
			uint8_t scrap[4096];
			ssize_t got;

			if (fds[i].fd < 0 || fds[i].revents == 0)
				continue;
			if (control_flush(mesh->peer[i].control) != -EAGAIN)
				fds[i].events = POLLIN;
			got = recv(fds[i].fd, scrap, sizeof(scrap), MSG_DONTWAIT);
			if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
				fds[i].fd = -1;
				open_count--;
			}
		}
	}
}

void mesh_close_channels(struct mesh_peer *peer)
{
	if (peer->control)
		peer->control->ops->destroy(peer->control);
	peer->control = NULL;
	for (uint16_t shard = 0; shard < SHARDS_MAX; shard++) {
		if (peer->pages[shard])
			peer->pages[shard]->ops->destroy(peer->pages[shard]);
		peer->pages[shard] = NULL;
	}
	io_destroy(peer->io);
	peer->io = NULL;
}

int mesh_expect(struct mesh *mesh, uint16_t number, const struct mesh_node *node, uint64_t join,
		char *why, size_t why_size)
{
	struct mesh_peer *peer;
	int error;

	assert(mesh->complete);
	if (number >= mesh->config.node_count || join == 0) {
		snprintf(why, why_size, "node %u cannot join a pod of at most %u", number,
			 mesh->config.node_count);
		return -EINVAL;
	}
	peer = &mesh->peer[number];
	if (peer->known) {
		snprintf(why, why_size, "number %u is not free", number);
		return -EEXIST;
	}
	error = add_peer(mesh, number, node, true, why, why_size);
	if (error < 0) {
		memset(peer, 0, sizeof(*peer));
		return error == -ENOENT ? -EINVAL : error;
	}
	peer->join = join;
	return 0;
}

void mesh_forget(struct mesh *mesh, uint16_t number)
{
	struct mesh_peer *peer = &mesh->peer[number];

	assert(mesh->complete && number < mesh->config.node_count && number != mesh->config.self);
	peer_drop(mesh, number, "");
	memset(peer, 0, sizeof(*peer));
}

void mesh_destroy(struct mesh *mesh)
{
	if (!mesh)
		return;
	if (mesh->complete)
		close_gently(mesh);
	for (uint16_t i = 0; i < mesh->config.node_count; i++)
		mesh_close_channels(&mesh->peer[i]);
	for (uint32_t i = 0; mesh->connection && i < mesh->connection_count; i++)
		stream_close(&mesh->connection[i].stream);
	tls_keys_destroy(mesh->keys);
	free(mesh->connection);
	if (mesh->listener >= 0)
		close(mesh->listener);
	if (mesh->epoll >= 0)
		close(mesh->epoll);
	OPENSSL_cleanse(mesh->secret, sizeof(mesh->secret));
	free(mesh);
}
