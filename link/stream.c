// SPDX-License-Identifier: Apache-2.0
/*
 * Streams (stream.h): the system calls, and which way the bytes go.
 *
 * Kernel memory pressure (ENOBUFS, ENOMEM of a send) counts as a full socket. Where the kernel makes
 * the records, a recv() ends with a record though more may lie there: then it is asked again, so
 * that a short count means the same everywhere.
 *
 * Tested by tests/link/test_tcp.c and test_stream.c.
 */
#include "link/stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/tls.h"

#define PIECES_MAX 1024u /* the kernel's IOV_MAX */

static int send_error(int error)
{
	switch (error) {
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
		return -EAGAIN;
	default:
		return -error;
	}
}

static ssize_t socket_send(int fd, const struct iovec *iov, size_t count)
{
	/* sendmsg() only reads; the cast is msghdr's fault. */
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = count };
	ssize_t sent;

	do
		sent = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? send_error(errno) : sent;
}

static ssize_t socket_receive(int fd, struct iovec *iov, size_t count)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t got;

	do
		got = recvmsg(fd, &msg, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -EPIPE;
	return got < 0 ? -errno : got;
}

ssize_t stream_socket_send(int fd, const void *data, size_t size)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };

	return socket_send(fd, &iov, 1);
}

ssize_t stream_socket_receive(int fd, void *buffer, size_t size)
{
	ssize_t got;

	do
		got = recv(fd, buffer, size, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -EPIPE;
	return got < 0 ? -errno : got;
}

/* Record by record, to the last that is there. */
static ssize_t receive_records(int fd, const struct iovec *iov, size_t count)
{
	struct iovec rest[PIECES_MAX];
	ssize_t all = 0;
	size_t at = 0;

	if (count > PIECES_MAX)
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		rest[i] = iov[i];
	while (at < count) {
		ssize_t got = socket_receive(fd, rest + at, count - at);

		if ((got == -EAGAIN || got == -EPIPE) && all > 0)
			break; /* an end is told again */
		if (got < 0)
			return got == -EIO || got == -EINVAL || got == -EMSGSIZE ? -EBADMSG : got;
		all += got;
		while (at < count && (size_t)got >= rest[at].iov_len)
			got -= (ssize_t)rest[at++].iov_len;
		if (at < count) {
			rest[at].iov_base = (uint8_t *)rest[at].iov_base + got;
			rest[at].iov_len -= (size_t)got;
		}
	}
	return all;
}

int stream_secure(struct stream *stream, struct tls_keys *keys, bool dialler)
{
	return tls_create(keys, stream->fd, dialler, &stream->tls);
}

int stream_shake_hands(struct stream *stream)
{
	int error = tls_shake_hands(stream->tls);

	if (error == 0)
		error = tls_to_kernel(stream->tls);
	if (error <= 0)
		return error;
	tls_destroy(stream->tls);
	stream->tls = NULL;
	stream->kernel_tls = true;
	return 0;
}

bool stream_by_token(const struct stream *stream, struct token_name *ret_name)
{
	return stream->tls && tls_by_token(stream->tls, ret_name);
}

void stream_drop_tls(struct stream *stream)
{
	tls_destroy(stream->tls);
	stream->tls = NULL;
}

void stream_close(struct stream *stream)
{
	tls_destroy(stream->tls);
	if (stream->fd >= 0)
		close(stream->fd);
	*stream = stream_plain(-1);
}

ssize_t stream_send(struct stream *stream, const struct iovec *iov, size_t count)
{
	return stream->tls ? tls_send(stream->tls, iov, count)
			   : socket_send(stream->fd, iov, count);
}

int stream_flush(struct stream *stream)
{
	return stream->tls ? tls_flush(stream->tls) : 0;
}

size_t stream_backlog(struct stream *stream)
{
	return stream->tls ? tls_backlog(stream->tls) : 0;
}

ssize_t stream_receive(struct stream *stream, void *buffer, size_t size)
{
	struct iovec iov = { .iov_base = buffer, .iov_len = size };

	if (!stream->tls && !stream->kernel_tls)
		return stream_socket_receive(stream->fd, buffer, size);
	return stream_receive_pieces(stream, &iov, 1);
}

ssize_t stream_receive_pieces(struct stream *stream, const struct iovec *iov, size_t count)
{
	if (stream->tls)
		return tls_receive(stream->tls, iov, count, true);
	if (stream->kernel_tls)
		return receive_records(stream->fd, iov, count);
	return socket_receive(stream->fd, (struct iovec *)(uintptr_t)iov, count);
}

ssize_t stream_take_held(struct stream *stream, const struct iovec *iov, size_t count)
{
	return stream->tls ? tls_receive(stream->tls, iov, count, false) : -EAGAIN;
}

bool stream_holds(struct stream *stream)
{
	return stream->tls && tls_holds(stream->tls);
}

void stream_read_ahead(struct stream *stream)
{
	if (stream->tls)
		tls_read_ahead(stream->tls);
}

size_t stream_wire_bytes(const struct stream *stream, size_t size)
{
	return stream->tls || stream->kernel_tls ? size + TLS_RECORD_MORE : size;
}
