// SPDX-License-Identifier: Apache-2.0
/*
 * Hellos on a connection: ours, sealed with the pod's secret, and theirs (wire/handshake.h).
 */
#include "link/bring_up.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "link/tcp.h"
#include "wire/version.h"

#define BUILD_TEXT "eagre"

struct handshake hello_of(const struct mesh *mesh, uint16_t peer, uint16_t purpose)
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
		.join = mesh->complete
				? 0
				: mesh->config.join, /* it dials until then, and is a member */
		.build = BUILD_TEXT,
	};

	memcpy(hello.pod_name, mesh->pod_name, sizeof(hello.pod_name));
	memcpy(hello.node_name, mesh->peer[mesh->config.self].name, sizeof(hello.node_name));
	return hello;
}

/* The dialler's hello that ours answers; NULL: ours is the dialler's. */
static const uint8_t *answered(const struct mesh *mesh, const struct mesh_connection *connection)
{
	return connection_is_dialled(mesh, connection) ? NULL : connection->buffer;
}

/* MACs of who has a token say nothing that TLS has not. */
static size_t secret_size(const struct mesh *mesh, const struct mesh_connection *connection)
{
	return connection->by_token ? 0 : mesh->config.secret_size;
}

static int send_whole(struct mesh_connection *connection, const uint8_t *bytes, size_t size)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = size };
	ssize_t sent = stream_send(&connection->stream, &iov, 1);

	if (sent == (ssize_t)size)
		return stream_flush(&connection->stream);
	return sent < 0 ? (int)sent : -EAGAIN; /* it does not fit an empty socket: broken */
}

int hello_send(const struct mesh *mesh, struct mesh_connection *connection,
	       const struct handshake *hello)
{
	struct handshake fresh = *hello;

	if (hello->node_count > 0 && getrandom(fresh.nonce, sizeof(fresh.nonce), 0) < 0)
		return -errno;
	handshake_encode(&fresh, connection->sent);
	if (hello->node_count > 0) /* else a refusal, which proves nothing */
		handshake_seal(connection->sent, answered(mesh, connection), mesh->secret,
			       secret_size(mesh, connection));
	return send_whole(connection, connection->sent, sizeof(connection->sent));
}

int hello_prove(const struct mesh *mesh, struct mesh_connection *connection)
{
	handshake_prove(connection->sent, connection->buffer, mesh->secret,
			mesh->config.secret_size, connection->proof);
	return send_whole(connection, connection->proof, sizeof(connection->proof));
}

int hello_read_proof(const struct mesh *mesh, struct mesh_connection *connection)
{
	ssize_t got = stream_receive(&connection->stream, connection->proof + connection->got,
				     HANDSHAKE_PROOF_BYTES - connection->got);

	if (got < 0)
		return got == -EAGAIN ? 0 : (int)got;
	connection->got = (uint16_t)(connection->got + got);
	if (connection->got < HANDSHAKE_PROOF_BYTES)
		return 0;
	return handshake_is_proven(connection->buffer, connection->sent, mesh->secret,
				   secret_size(mesh, connection), connection->proof)
		       ? 1
		       : -EPROTO;
}

/* Reads what there is of a hello. 1: whole; 0: not yet; < 0: over. *ret_hello is set from 16 bytes
 * on. */
int hello_read(struct mesh_connection *connection, struct handshake *ret_hello)
{
	uint16_t length;
	ssize_t got = stream_receive(&connection->stream, connection->buffer + connection->got,
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

int hello_look(const struct mesh_connection *connection)
{
	uint8_t first;
	ssize_t got = recv(connection->stream.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (got == 0)
		return -EPIPE;
	if (first == TLS_FIRST_BYTE || first == TLS_ALERT_BYTE)
		return 1;
	return first == (WIRE_MAGIC_HELLO & 0xff) ? -EPROTO : -ENOTSUP;
}

bool hello_is_sealed(const struct mesh *mesh, const struct mesh_connection *connection)
{
	const uint8_t *asked = connection_is_dialled(mesh, connection) ? connection->sent : NULL;

	return handshake_is_sealed(connection->buffer, asked, mesh->secret,
				   secret_size(mesh, connection));
}
