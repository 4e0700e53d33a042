// SPDX-License-Identifier: Apache-2.0
/*
 * Asking to join (ask.h). Nothing else goes on in this process yet, so it waits where it stands.
 *
 * Tested by tests/link/test_mesh_ask.c.
 */
#include "link/ask.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "link/address.h"
#include "link/mesh_state.h"
#include "link/tcp.h"
#include "link/tls.h"
#include "wire/handshake.h"
#include "wire/version.h"

struct ask {
	struct tls_keys *keys;
	struct stream stream; /* until it is the channel's */
	struct control_channel *channel;
	uint64_t end_ns; /* of the try */
	uint8_t sent[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES];
	char pod_name[POD_NAME_MAX];
};

static int wait_for(const struct ask *ask, short events)
{
	struct pollfd fds = { .fd = ask->stream.fd, .events = events };
	int ready;

	do {
		uint64_t now_ns = mesh_now_ns();

		if (now_ns >= ask->end_ns)
			return -ETIMEDOUT;
		ready = poll(&fds, 1, (int)((ask->end_ns - now_ns) / 1000000) + 1);
	} while (ready == 0 || (ready < 0 && errno == EINTR));
	return ready < 0 ? -errno : 0;
}

static int dial(struct ask *ask, const struct address *address)
{
	socklen_t size = sizeof(int);
	int error = 0;

	ask->stream = stream_plain(
		socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	if (ask->stream.fd < 0)
		return -errno;
	if (connect(ask->stream.fd, (const struct sockaddr *)&address->storage, address->size) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	error = wait_for(ask, POLLOUT);
	if (error < 0)
		return error;
	if (getsockopt(ask->stream.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		return -errno;
	return -error;
}

static int secure(struct ask *ask)
{
	int error = stream_secure(&ask->stream, ask->keys, true);

	while (error == 0 && (error = stream_shake_hands(&ask->stream)) == -EAGAIN)
		error = wait_for(ask, POLLIN);
	return error;
}

static int send_whole(struct ask *ask, const uint8_t *bytes, size_t size)
{
	struct iovec iov = { (void *)(uintptr_t)bytes, size };
	ssize_t sent = stream_send(&ask->stream, &iov, 1);

	if (sent == (ssize_t)size)
		return stream_flush(&ask->stream);
	return sent < 0 ? (int)sent : -EPIPE; /* it does not fit an empty socket */
}

static int receive_answer(struct ask *ask)
{
	size_t got = 0;

	while (got < HANDSHAKE_BYTES) {
		ssize_t more =
			stream_receive(&ask->stream, ask->answer + got, HANDSHAKE_BYTES - got);

		if (more == -EAGAIN)
			more = wait_for(ask, POLLIN);
		if (more < 0)
			return (int)more;
		got += (size_t)more;
	}
	return 0;
}

/* Says hello, and proves it. 0: linked; a verdict > 0; < 0. */
static int shake_hands(struct ask *ask, struct handshake *mine, struct handshake *theirs)
{
	uint8_t proof[HANDSHAKE_PROOF_BYTES];
	enum handshake_verdict verdict;
	int error;

	if (getrandom(mine->nonce, sizeof(mine->nonce), 0) < 0)
		return -errno;
	handshake_encode(mine, ask->sent);
	handshake_seal(ask->sent, NULL, NULL, 0);
	error = send_whole(ask, ask->sent, sizeof(ask->sent));
	if (error == 0)
		error = receive_answer(ask);
	if (error < 0)
		return error;
	if (handshake_decode(ask->answer, theirs) < 0)
		return -EPROTO;
	verdict = theirs->version != mine->version ? HANDSHAKE_VERSION : theirs->verdict;
	if (verdict == HANDSHAKE_OK)
		verdict = handshake_judge(mine, theirs);
	if (verdict == HANDSHAKE_OK && (theirs->purpose != HANDSHAKE_JOIN ||
					!handshake_is_sealed(ask->answer, ask->sent, NULL, 0)))
		return -EPROTO;
	if (verdict != HANDSHAKE_OK)
		return (int)verdict;
	handshake_prove(ask->sent, ask->answer, NULL, 0, proof);
	return send_whole(ask, proof, sizeof(proof));
}

static const char *error_text(int error)
{
	switch (error) {
	case -EPROTO:
		return "what listens there is no Eagre node, or takes no tokens";
	case -EPIPE:
		return "it closed the connection";
	case -ENOBUFS:
		return "this host has no memory for a connection";
	default:
		return strerror(-error);
	}
}

/* One member. 0, -ECONNREFUSED, or another negative errno: perhaps the next one. */
static int try_address(struct ask *ask, const char *text, uint32_t capabilities, char *why,
		       size_t why_size)
{
	struct handshake theirs, mine = {
		.version = WIRE_VERSION,
		.node = NODE_NONE,
		.peer = NODE_NONE,
		.purpose = HANDSHAKE_JOIN,
		.capabilities = capabilities,
		.limits_digest = handshake_limits_digest(),
		.build = "eagre",
	};
	struct address address;
	char peer[MESH_ADDRESS_MAX + 32];
	int result = address_parse(text, &address, why, why_size);

	if (result < 0)
		return result;
	snprintf(peer, sizeof(peer), "the node at %s", text);
	result = dial(ask, &address);
	if (result == 0)
		result = secure(ask);
	if (result == -EKEYREJECTED) {
		snprintf(why, why_size,
			 "%s does not take this token: it is of another pod, or its pod has a new "
			 "secret, or is not complete yet",
			 peer);
		return -ECONNREFUSED;
	}
	if (result == 0)
		result = shake_hands(ask, &mine, &theirs);
	if (result > 0) {
		handshake_explain((enum handshake_verdict)result, HANDSHAKE_DIALLER, &mine, &theirs,
				  peer, why, why_size);
		return -ECONNREFUSED;
	}
	if (result == 0)
		result = tcp_control_create(ask->stream, NODE_NONE, &ask->channel);
	if (result < 0) {
		snprintf(why, why_size, "cannot ask %s: %s", peer, error_text(result));
		return result == -ECONNREFUSED ? -EHOSTUNREACH : result; /* nobody listens */
	}
	ask->stream = stream_plain(-1);
	memcpy(ask->pod_name, theirs.pod_name, sizeof(ask->pod_name));
	return 0;
}

int ask_create(const struct token *token, uint32_t capabilities, uint32_t timeout_ms,
	       struct ask **ret_ask, char *why, size_t why_size)
{
	struct ask *ask = calloc(1, sizeof(*ask));
	int error = -EHOSTUNREACH;

	snprintf(why, why_size, "out of memory");
	if (!ask)
		return -ENOMEM;
	ask->stream = stream_plain(-1);
	if (tls_keys_create_by_token(token, &ask->keys) < 0) {
		ask_destroy(ask);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < token->address_count; i++) {
		ask->end_ns = mesh_now_ns() + timeout_ms * 1000000ull;
		error = try_address(ask, token->address[i], capabilities, why, why_size);
		if (error == 0) {
			*ret_ask = ask;
			return 0;
		}
		stream_close(&ask->stream);
		if (error == -ECONNREFUSED || error == -ENOMEM)
			break;
	}
	ask_destroy(ask);
	return error == -ECONNREFUSED || error == -ENOMEM ? error : -EHOSTUNREACH;
}

struct control_channel *ask_channel(struct ask *ask)
{
	return ask->channel;
}

const char *ask_pod_name(const struct ask *ask)
{
	return ask->pod_name;
}

void ask_destroy(struct ask *ask)
{
	if (!ask)
		return;
	if (ask->channel)
		ask->channel->ops->destroy(ask->channel);
	stream_close(&ask->stream);
	tls_keys_destroy(ask->keys);
	free(ask);
}
