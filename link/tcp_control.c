// SPDX-License-Identifier: Apache-2.0
/*
 * Control channels over TCP: any thread sends, one thread receives.
 *
 * `lock` guards what sending uses (queue, sequence, out, closing) and is held over one non-blocking
 * send only, so no sender ever waits for the network. Receiving uses fields of its own and needs no
 * lock.
 *
 *      in:  [ ...delivered... | have bytes, beginning with a frame | room ]
 *                             ^position
 *
 * A reader that dozes is woken by more bytes than a heartbeat has (SO_RCVLOWAT). While it waits for
 * the rest of a frame, which may be as short, any byte wakes it.
 *
 * Tested by tests/link/test_tcp.c.
 */
#include "link/tcp.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* Some 20 us, all of them. */
#define LOCK_LOOKS  100u
#define LOCK_PAUSES 8u

#define IN_BYTES (2u * 65536u + 4096u)
static_assert(IN_BYTES >= CONTROL_FRAME_MAX + 4096u);
static_assert(IN_BYTES + CONTROL_FRAME_MAX + TCP_QUEUE_KEPT <= TCP_CONTROL_KEPT);

struct tcp_control {
	struct control_channel channel;
	struct stream stream;

	pthread_mutex_t lock; /* guards the fields down to the blank line */
	struct tcp_queue queue;
	uint32_t sequence_out;
	bool closing; /* shut down when the queue is empty */
	bool closed;
	uint8_t out[CONTROL_FRAME_MAX];

	/* The receiver's. */
	uint8_t *in;
	size_t position, have;
	uint32_t sequence_in;
	int failed;	   /* receiving, for good */
	bool dozes, waits; /* for more than a heartbeat; for the rest of a frame */

	/* Written as above, read by anybody: relaxed. */
	_Atomic uint64_t messages_out, bytes_out, bytes_in;
};

static struct tcp_control *from_channel(struct control_channel *channel)
{
	return (struct tcp_control *)channel;
}

/* With the lock held. */
static int send_locked(struct tcp_control *tcp, const struct control_message *msg)
{
	struct iovec iov = { .iov_base = tcp->out };
	int size = control_message_encode(msg, tcp->sequence_out, tcp->out, sizeof(tcp->out));
	int error;

	if (size < 0)
		return -EINVAL;
	if (tcp->closing)
		return -EPIPE;
	iov.iov_len = (size_t)size;
	error = tcp_queue_send(&tcp->queue, &tcp->stream, &iov, 1);
	if (error < 0)
		return error;
	tcp->sequence_out++;
	atomic_fetch_add_explicit(&tcp->messages_out, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&tcp->bytes_out, (uint64_t)size, memory_order_relaxed);
	return 0;
}

/* Who has the lock is in a send of some 10 us: to sleep and be woken would take longer. */
static void lock_to_send(struct tcp_control *tcp)
{
	for (uint32_t i = 0; i < LOCK_LOOKS; i++) {
		if (pthread_mutex_trylock(&tcp->lock) == 0)
			return;
		for (uint32_t pause = 0; pause < LOCK_PAUSES; pause++)
			__builtin_ia32_pause();
	}
	pthread_mutex_lock(&tcp->lock);
}

static int control_tcp_send(struct control_channel *channel, const struct control_message *msg)
{
	struct tcp_control *tcp = from_channel(channel);
	int error;

	lock_to_send(tcp);
	error = send_locked(tcp, msg);
	pthread_mutex_unlock(&tcp->lock);
	return error;
}

static int control_tcp_try_send(struct control_channel *channel, const struct control_message *msg)
{
	struct tcp_control *tcp = from_channel(channel);
	int error;

	if (pthread_mutex_trylock(&tcp->lock) != 0)
		return -EAGAIN;
	error = tcp->queue.count || stream_backlog(&tcp->stream) ? -EAGAIN : send_locked(tcp, msg);
	pthread_mutex_unlock(&tcp->lock);
	return error;
}

/* With the lock held. */
static int flush_locked(struct tcp_control *tcp)
{
	int error = tcp_queue_flush(&tcp->queue, &tcp->stream);

	if (error == 0 && tcp->closing && !tcp->closed) {
		shutdown(tcp->stream.fd, SHUT_WR);
		tcp->closed = true;
	}
	return error;
}

static int control_tcp_flush(struct control_channel *channel)
{
	struct tcp_control *tcp = from_channel(channel);
	int error;

	pthread_mutex_lock(&tcp->lock);
	error = flush_locked(tcp);
	pthread_mutex_unlock(&tcp->lock);
	return error;
}

static size_t control_tcp_backlog(struct control_channel *channel)
{
	struct tcp_control *tcp = from_channel(channel);
	size_t bytes;

	pthread_mutex_lock(&tcp->lock);
	bytes = tcp->queue.count + stream_backlog(&tcp->stream);
	pthread_mutex_unlock(&tcp->lock);
	return bytes;
}

static void control_tcp_shutdown(struct control_channel *channel)
{
	struct tcp_control *tcp = from_channel(channel);

	pthread_mutex_lock(&tcp->lock);
	tcp->closing = true;
	flush_locked(tcp);
	pthread_mutex_unlock(&tcp->lock);
}

/* 0: a whole frame lies at position; *ret_header is set. -EAGAIN: not yet. */
static int frame_ready(const struct tcp_control *tcp, struct control_header *ret_header)
{
	if (tcp->have < CONTROL_HEADER_BYTES)
		return -EAGAIN;
	if (control_header_decode(tcp->in + tcp->position, ret_header) < 0 ||
	    ret_header->sequence != tcp->sequence_in)
		return -EPROTO;
	return tcp->have < CONTROL_HEADER_BYTES + ret_header->payload_size ? -EAGAIN : 0;
}

/* What is there already and is enough is told anew. */
static void set_wake_bytes(const struct tcp_control *tcp, int bytes)
{
	setsockopt(tcp->stream.fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes));
}

static int doze_bytes(const struct tcp_control *tcp)
{
	return (int)stream_wire_bytes(&tcp->stream, CONTROL_HEARTBEAT_BYTES) + 1;
}

static void wait_for_rest(struct tcp_control *tcp, bool waits)
{
	if (!tcp->dozes || tcp->waits == waits)
		return;
	tcp->waits = waits;
	set_wake_bytes(tcp, waits ? 1 : doze_bytes(tcp));
}

/* More bytes from the socket. 0, or negative. */
static int fill(struct tcp_control *tcp)
{
	ssize_t got;

	if (tcp->failed)
		return tcp->failed;
	if (tcp->have == 0)
		tcp->position = 0;
	if (tcp->position > 0 && IN_BYTES - tcp->position - tcp->have < CONTROL_FRAME_MAX) {
		memmove(tcp->in, tcp->in + tcp->position, tcp->have);
		tcp->position = 0;
	}
	/* To the end, and past what is there: the peer's end may lie behind it, told by no event. */
	got = stream_receive(&tcp->stream, tcp->in + tcp->position + tcp->have,
			     IN_BYTES - tcp->position - tcp->have);
	if (got < 0) {
		/* A socket tells a reset once. */
		tcp->failed = got == -EAGAIN ? 0 : (int)got;
		wait_for_rest(tcp, tcp->have > 0 || stream_holds(&tcp->stream));
		return (int)got;
	}
	tcp->have += (size_t)got;
	return 0;
}

static int next_frame(struct tcp_control *tcp, struct control_header *ret_header)
{
	int error;

	while ((error = frame_ready(tcp, ret_header)) == -EAGAIN) {
		error = fill(tcp);
		if (error < 0)
			break;
	}
	return error;
}

static uint16_t control_tcp_peek(struct control_channel *channel, bool *ret_behind)
{
	struct tcp_control *tcp = from_channel(channel);
	struct control_header header;
	int error = next_frame(tcp, &header);

	*ret_behind = stream_holds(&tcp->stream) ||
		      (error < 0 ? tcp->have > 0 || tcp->failed
				 : tcp->have > CONTROL_HEADER_BYTES + header.payload_size);
	return error < 0 ? 0 : header.type;
}

static int control_tcp_receive(struct control_channel *channel, struct control_message *ret_msg)
{
	struct tcp_control *tcp = from_channel(channel);
	struct control_header header;
	int error = next_frame(tcp, &header);

	if (error < 0)
		return error;
	error = control_message_decode(header.type, tcp->in + tcp->position + CONTROL_HEADER_BYTES,
				       header.payload_size, ret_msg);
	if (error < 0)
		return error;
	ret_msg->src = channel->peer;
	tcp->position += CONTROL_HEADER_BYTES + header.payload_size;
	tcp->have -= CONTROL_HEADER_BYTES + header.payload_size;
	tcp->sequence_in++;
	atomic_fetch_add_explicit(&tcp->bytes_in, CONTROL_HEADER_BYTES + header.payload_size,
				  memory_order_relaxed);
	return 0;
}

static void control_tcp_doze(struct control_channel *channel)
{
	struct tcp_control *tcp = from_channel(channel);

	/* The kernel that makes records keeps parts of them where nobody sees them. */
	if (tcp->stream.kernel_tls)
		return;
	tcp->dozes = true;
	set_wake_bytes(tcp, doze_bytes(tcp));
}

static int control_tcp_fd(const struct control_channel *channel)
{
	return ((const struct tcp_control *)channel)->stream.fd;
}

static void control_tcp_stats(struct control_channel *channel, uint64_t *ret_messages,
			      uint64_t *ret_bytes_out, uint64_t *ret_bytes_in)
{
	struct tcp_control *tcp = from_channel(channel);

	*ret_messages = atomic_load_explicit(&tcp->messages_out, memory_order_relaxed);
	*ret_bytes_out = atomic_load_explicit(&tcp->bytes_out, memory_order_relaxed);
	*ret_bytes_in = atomic_load_explicit(&tcp->bytes_in, memory_order_relaxed);
}

static void control_tcp_destroy(struct control_channel *channel)
{
	struct tcp_control *tcp = from_channel(channel);

	if (!tcp)
		return;
	stream_close(&tcp->stream);
	if (tcp->in)
		munmap(tcp->in, IN_BYTES);
	tcp_queue_destroy(&tcp->queue);
	pthread_mutex_destroy(&tcp->lock);
	free(tcp);
}

static const struct control_channel_ops tcp_control_ops = {
	.send = control_tcp_send,
	.try_send = control_tcp_try_send,
	.peek = control_tcp_peek,
	.flush = control_tcp_flush,
	.receive = control_tcp_receive,
	.fd = control_tcp_fd,
	.doze = control_tcp_doze,
	.stats = control_tcp_stats,
	.backlog = control_tcp_backlog,
	.shutdown = control_tcp_shutdown,
	.destroy = control_tcp_destroy,
};

int tcp_control_create(struct stream stream, uint16_t peer, struct control_channel **ret_channel)
{
	struct tcp_control *tcp = calloc(1, sizeof(*tcp));
	void *in;

	if (!tcp)
		return -ENOMEM;
	tcp->channel.ops = &tcp_control_ops;
	tcp->channel.peer = peer;
	tcp->stream = stream_plain(-1);
	pthread_mutex_init(&tcp->lock, NULL);
	in = mmap(NULL, IN_BYTES, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (in == MAP_FAILED)
		goto fail;
	tcp->in = in;
	if (tcp_queue_create(&tcp->queue, CONTROL_QUEUE_BYTES) < 0)
		goto fail;
	tcp->stream = stream;
	stream_read_ahead(&tcp->stream);
	*ret_channel = &tcp->channel;
	return 0;

fail:
	control_tcp_destroy(&tcp->channel);
	return -ENOMEM;
}
