// SPDX-License-Identifier: Apache-2.0
/*
 * Io channels over TCP (io_channel.h).
 *
 * Out: a list of parcels, whose heads and data are gathered into one sendmsg() after the other until
 * the socket is full. What was taken of the first parcel is one number, `sent`.
 *
 * In: one recvmsg() reads what is missing of the data under way to where it belongs, and what comes
 * behind it into a buffer:
 *
 *	| rest of the data of message n -> its pieces | head n+1 | data n+1 | head n+2 ... -> in[] |
 *
 * So a burst of small messages costs one call and their copies from the buffer. Behind a large one
 * most likely comes another, and what the buffer has of it is copied: there no more is read than its
 * head, and large messages that follow each other cost a call each and no copy. Invariant: between two
 * reads, in[] has less than a head, or nothing while data is under way.
 *
 * Owned by one thread, nothing is locked. Tested by tests/link/test_tcp_io.c, fuzzed by
 * tests/fuzz/fuzz_io.c.
 */
#include "link/tcp.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define IN_BYTES	  TCP_IO_KEPT
#define LARGE_BYTES	  (16u << 10)
#define SEND_PIECES_MAX	  1024u /* the kernel's IOV_MAX */
#define RECEIVE_CALLS_MAX 16u	/* in one go, so that others have their turn */

struct tcp_io {
	struct io_channel channel;
	struct stream stream;
	struct {
		_Atomic uint64_t messages_out, messages_in, bytes_out, bytes_in, bytes_copied,
			sends, receives;
	} stats; /* written by the owner alone */

	struct io_parcel *first, **end; /* that have not wholly left */
	size_t sent;			/* bytes of the first */
	struct io_parcel *left, **left_end;
	uint32_t sequence_out;

	uint32_t sequence_in;
	uint8_t *in;
	size_t position, have; /* in[position .. position + have): read, and not looked at */
	struct io_message msg; /* the last that began; its data is under way, while data_left > 0 */
	size_t data_left;
	const struct iovec
		*iov; /* of its pieces, those that are not full; of the first, `filled` */
	uint32_t iov_count;
	size_t filled;

	struct iovec pieces[SEND_PIECES_MAX];
};

static_assert(IO_PIECES_MAX + 1u <= SEND_PIECES_MAX);
static_assert(IN_BYTES > IO_HEAD_BYTES);

static void raise_count(_Atomic uint64_t *count, uint64_t by)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + by,
			      memory_order_relaxed);
}

static struct tcp_io *from_channel(struct io_channel *channel)
{
	return (struct tcp_io *)channel;
}

/* ---- Out ---- */

static void tcp_io_send(struct io_channel *channel, struct io_parcel *parcel)
{
	struct tcp_io *tcp = from_channel(channel);
	int error = io_message_encode(&parcel->message, tcp->sequence_out++, parcel->head);

	assert(error == 0 && parcel->iov_count <= IO_PIECES_MAX);
	(void)error;
	parcel->next = NULL;
	*tcp->end = parcel;
	tcp->end = &parcel->next;
}

static size_t parcel_bytes(const struct io_parcel *parcel)
{
	return IO_HEAD_BYTES + (size_t)parcel->message.data_bytes;
}

/* The bytes [at, at + size), of which `skip` are to be left out; lowers `skip`. */
static uint32_t add_piece(struct tcp_io *tcp, uint32_t count, void *at, size_t size, size_t *skip)
{
	size_t out = *skip < size ? *skip : size;

	*skip -= out;
	if (out == size)
		return count;
	tcp->pieces[count] = (struct iovec){ (uint8_t *)at + out, size - out };
	return count + 1;
}

/* Of as many parcels as fit. */
static uint32_t gather(struct tcp_io *tcp)
{
	size_t skip = tcp->sent;
	uint32_t count = 0;

	for (struct io_parcel *parcel = tcp->first;
	     parcel && count + 1 + parcel->iov_count <= SEND_PIECES_MAX; parcel = parcel->next) {
		count = add_piece(tcp, count, parcel->head, IO_HEAD_BYTES, &skip);
		for (uint32_t i = 0; i < parcel->iov_count; i++)
			count = add_piece(tcp, count, parcel->iov[i].iov_base,
					  parcel->iov[i].iov_len, &skip);
	}
	return count;
}

static void took(struct tcp_io *tcp, size_t bytes)
{
	raise_count(&tcp->stats.bytes_out, bytes);
	tcp->sent += bytes;
	while (tcp->first && tcp->sent >= parcel_bytes(tcp->first)) {
		struct io_parcel *parcel = tcp->first;

		tcp->sent -= parcel_bytes(parcel);
		tcp->first = parcel->next;
		if (!tcp->first)
			tcp->end = &tcp->first;
		parcel->next = NULL;
		*tcp->left_end = parcel;
		tcp->left_end = &parcel->next;
		raise_count(&tcp->stats.messages_out, 1);
	}
}

static int tcp_io_flush(struct io_channel *channel)
{
	struct tcp_io *tcp = from_channel(channel);

	while (tcp->first) {
		ssize_t sent = stream_send(&tcp->stream, tcp->pieces, gather(tcp));

		raise_count(&tcp->stats.sends, 1);
		if (sent < 0)
			return (int)sent;
		took(tcp, (size_t)sent);
	}
	return stream_flush(&tcp->stream);
}

static struct io_parcel *tcp_io_left(struct io_channel *channel)
{
	struct tcp_io *tcp = from_channel(channel);
	struct io_parcel *parcel = tcp->left;

	if (!parcel)
		return NULL;
	tcp->left = parcel->next;
	if (!tcp->left)
		tcp->left_end = &tcp->left;
	parcel->next = NULL;
	return parcel;
}

/* ---- In ---- */

/* Data that is in its pieces, by the kernel or by us. */
static void advance(struct tcp_io *tcp, size_t bytes)
{
	tcp->data_left -= bytes;
	tcp->filled += bytes;
	while (tcp->iov_count > 0 && tcp->filled >= tcp->iov->iov_len) {
		tcp->filled -= tcp->iov->iov_len;
		tcp->iov++;
		tcp->iov_count--;
	}
}

static void copy_data(struct tcp_io *tcp)
{
	while (tcp->have > 0 && tcp->data_left > 0) {
		size_t part = tcp->iov->iov_len - tcp->filled;

		if (part > tcp->have)
			part = tcp->have;
		memcpy((uint8_t *)tcp->iov->iov_base + tcp->filled, tcp->in + tcp->position, part);
		raise_count(&tcp->stats.bytes_copied, part);
		tcp->position += part;
		tcp->have -= part;
		advance(tcp, part);
	}
}

static int begin_message(struct tcp_io *tcp, const struct io_receiver *receiver)
{
	int error = io_message_decode(tcp->in + tcp->position, tcp->sequence_in, &tcp->msg);

	if (error < 0)
		return error;
	tcp->sequence_in++;
	tcp->position += IO_HEAD_BYTES;
	tcp->have -= IO_HEAD_BYTES;
	tcp->data_left = 0;
	if (tcp->msg.data_bytes == 0)
		return 0;
	error = receiver->place(receiver->ctx, &tcp->msg, &tcp->iov, &tcp->iov_count);
	if (error < 0)
		return error;
	assert(tcp->iov_count <= IO_PIECES_MAX);
	tcp->filled = 0;
	tcp->data_left = tcp->msg.data_bytes;
	advance(tcp, 0); /* past pieces of no bytes */
	return 0;
}

/* Everything that is in the buffer, but a head that is not whole. */
static int look(struct tcp_io *tcp, const struct io_receiver *receiver)
{
	for (;;) {
		int error;

		if (tcp->data_left == 0) {
			if (tcp->have < IO_HEAD_BYTES)
				return 0;
			error = begin_message(tcp, receiver);
			if (error < 0)
				return error;
		}
		copy_data(tcp);
		if (tcp->data_left > 0)
			return 0;
		raise_count(&tcp->stats.messages_in, 1);
		error = receiver->arrived(receiver->ctx, &tcp->msg);
		if (error < 0)
			return error;
	}
}

/* The rest of the data under way, then the buffer, or a head: how many bytes that is. */
static size_t wanted(struct tcp_io *tcp, uint32_t *ret_count)
{
	size_t bytes = tcp->data_left;
	size_t beyond = tcp->msg.data_bytes >= LARGE_BYTES ? IO_HEAD_BYTES : IN_BYTES;
	uint32_t count = 0;

	for (uint32_t i = 0; tcp->data_left > 0 && i < tcp->iov_count; i++) {
		size_t out = i == 0 ? tcp->filled : 0;

		tcp->pieces[count++] = (struct iovec){ (uint8_t *)tcp->iov[i].iov_base + out,
						       tcp->iov[i].iov_len - out };
	}
	memmove(tcp->in, tcp->in + tcp->position, tcp->have);
	tcp->position = 0;
	tcp->pieces[count++] = (struct iovec){ tcp->in + tcp->have, beyond - tcp->have };
	*ret_count = count;
	return bytes + beyond - tcp->have;
}

static int tcp_io_receive(struct io_channel *channel, const struct io_receiver *receiver)
{
	struct tcp_io *tcp = from_channel(channel);

	/* Beyond its turn: of what the stream has read, or epoll would not tell of it. */
	for (uint32_t i = 0; i < RECEIVE_CALLS_MAX || stream_holds(&tcp->stream); i++) {
		uint32_t count;
		size_t want = wanted(tcp, &count), data;
		ssize_t got = i < RECEIVE_CALLS_MAX
				      ? stream_receive_pieces(&tcp->stream, tcp->pieces, count)
				      : stream_take_held(&tcp->stream, tcp->pieces, count);
		int error;

		raise_count(&tcp->stats.receives, 1);
		if (got == -EAGAIN)
			return 0;
		if (got < 0)
			return (int)got;
		raise_count(&tcp->stats.bytes_in, (uint64_t)got);
		data = (size_t)got < tcp->data_left ? (size_t)got : tcp->data_left;
		if (data > 0)
			advance(tcp, data);
		tcp->have += (size_t)got - data;
		if (data > 0 && tcp->data_left == 0) {
			raise_count(&tcp->stats.messages_in, 1);
			error = receiver->arrived(receiver->ctx, &tcp->msg);
			if (error < 0)
				return error;
		}
		error = look(tcp, receiver);
		if (error < 0)
			return error;
		if ((size_t)got < want)
			return 0; /* that was all: no need to ask */
	}
	return 0;
}

/* ---- The rest ---- */

static int tcp_io_fd(const struct io_channel *channel)
{
	return ((const struct tcp_io *)channel)->stream.fd;
}

static void tcp_io_stats(const struct io_channel *channel, struct io_channel_stats *ret_stats)
{
	const struct tcp_io *tcp = (const struct tcp_io *)channel;

	*ret_stats = (struct io_channel_stats){
		.messages_out = tcp->stats.messages_out,
		.messages_in = tcp->stats.messages_in,
		.bytes_out = tcp->stats.bytes_out,
		.bytes_in = tcp->stats.bytes_in,
		.bytes_copied = tcp->stats.bytes_copied,
		.sends = tcp->stats.sends,
		.receives = tcp->stats.receives,
	};
}

static void tcp_io_destroy(struct io_channel *channel)
{
	struct tcp_io *tcp = from_channel(channel);

	stream_close(&tcp->stream);
	if (tcp->in)
		munmap(tcp->in, IN_BYTES);
	free(tcp);
}

static const struct io_channel_ops tcp_io_ops = {
	.send = tcp_io_send,
	.flush = tcp_io_flush,
	.left = tcp_io_left,
	.receive = tcp_io_receive,
	.fd = tcp_io_fd,
	.stats = tcp_io_stats,
	.destroy = tcp_io_destroy,
};

int tcp_io_create(struct stream stream, uint16_t peer, struct io_channel **ret_channel)
{
	struct tcp_io *tcp = calloc(1, sizeof(*tcp));
	void *in;

	if (!tcp)
		return -ENOMEM;
	tcp->channel.ops = &tcp_io_ops;
	tcp->channel.peer = peer;
	tcp->end = &tcp->first;
	tcp->left_end = &tcp->left;
	tcp->stream = stream_plain(-1);
	in = mmap(NULL, IN_BYTES, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (in == MAP_FAILED) {
		tcp_io_destroy(&tcp->channel);
		return -ENOMEM;
	}
	tcp->in = in;
	tcp->stream = stream;
	stream_read_ahead(&tcp->stream);
	*ret_channel = &tcp->channel;
	return 0;
}
