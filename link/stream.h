/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of bytes to another node: a TCP socket, and TLS on it where the pod's links are encrypted
 * (link/tls.h). The one place where the bytes of a link enter and leave the kernel. Inside link/ only,
 * but for tests, which make plain streams.
 *
 *	stream_send(), stream_receive()
 *	  plain               -> the socket, at no cost
 *	  TLS                 -> records in buffers of this process -> the socket
 *	  TLS of the kernel   -> the socket, and the kernel makes records (kTLS)
 *
 * Never blocks. With TLS a stream holds bytes of its own, of which epoll knows nothing: of those
 * that were sent stream_backlog() tells, and stream_flush() sends them; of those that came
 * stream_holds().
 *
 * Threads: one may send while another receives.
 */
#ifndef LINK_STREAM_H
#define LINK_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls;
struct tls_keys;

struct stream {
	int fd;		 /* -1: none */
	bool kernel_tls; /* the socket is encrypted below us */
	struct tls *tls; /* NULL: plain, or encrypted by the kernel */
};

static inline struct stream stream_plain(int fd)
{
	return (struct stream){ .fd = fd };
}

/* Of a socket that has just been connected: TLS begins on it. 0 or -ENOMEM. */
int stream_secure(struct stream *stream, struct tls_keys *keys, bool dialler);
/*
 * Goes on with the handshake of TLS. 0: done; -EAGAIN: when the socket is readable; -EKEYREJECTED:
 * the other side has another secret, or none; -EPROTONOSUPPORT: it wants an older TLS; -EPROTO: it
 * does not speak TLS; -ENOBUFS: the kernel has no room for what is to be said; others: link down.
 */
int stream_shake_hands(struct stream *stream);
/* Whether the other side of a listener has shown a join token in place of the secret, and which. */
struct token_name;
bool stream_by_token(const struct stream *stream, struct token_name *ret_name);
/* TLS is given up, for a last word of another kind. */
void stream_drop_tls(struct stream *stream);
/* Closes the socket too. */
void stream_close(struct stream *stream);

/* What a stream may keep resident, beyond the kernel's. */
#define STREAM_TLS_KEPT (192u << 10)

/* Sends from pieces: bytes > 0 that may be fewer; -EAGAIN; or a link-down error. */
ssize_t stream_send(struct stream *stream, const struct iovec *iov, size_t count);
/* 0: the stream holds nothing that was sent; -EAGAIN: call it when the socket is writable. */
int stream_flush(struct stream *stream);
size_t stream_backlog(struct stream *stream);

/*
 * Receives: bytes > 0, and if they are fewer than there is room for, no more had come; -EAGAIN;
 * -EPIPE at the end; -EBADMSG: they were not sent so by the other side; link-down errors.
 */
ssize_t stream_receive(struct stream *stream, void *buffer, size_t size);
ssize_t stream_receive_pieces(struct stream *stream, const struct iovec *iov, size_t count);
/* What the stream holds already, with nothing from the socket; -EAGAIN: no whole record. */
ssize_t stream_take_held(struct stream *stream, const struct iovec *iov, size_t count);
/* Received bytes are in the stream, or a part of a record is. */
bool stream_holds(struct stream *stream);

/* From now on more may be read from the socket than is asked for. */
void stream_read_ahead(struct stream *stream);
/* How many bytes on the wire `size` bytes are that are sent in one go. */
size_t stream_wire_bytes(const struct stream *stream, size_t size);

#endif
