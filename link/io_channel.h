/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io channel between two nodes: requests to disks, packets and their data
 * (wire/io_message.h), reliable, in order.
 *
 *	io_send() ... io_send()    parcels, which the channel keeps until they have left
 *	io_flush()                 all of them in few calls of the kernel; before the thread waits
 *	io_left() ... NULL         parcels whose last byte is gone: they, and their data, are free
 *
 *	io_receive(receiver)       place():   a message begins; where does its data go?
 *	                           arrived(): it is all there
 *
 * One thread owns a channel and makes all calls; none of them waits. Nothing is copied on the way
 * out: a parcel's data stays where it is, guest memory or a buffer, until the socket has taken it.
 * On the way in data goes straight to where place() says, but for what one read of many messages
 * has brought along, which is a buffer's at most, and next to nothing where large ones follow each other.
 *
 * A channel has no queue of its own that could grow: what waits are the parcels of who sends, and
 * each kind of sender has a bounded number of them. Nor does a receiver ever stop reading: whoever
 * sends data keeps to what the other side has reserved for it. So two nodes that have much to say to
 * each other cannot wait for each other.
 */
#ifndef LINK_IO_CHANNEL_H
#define LINK_IO_CHANNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire/io_message.h"

#define IO_PIECES_MAX DISK_IOV_MAX /* of a message's data */

/* A message on its way out. The sender's to make; the channel's from io_send() until io_left(). */
struct io_parcel {
	struct io_message message;
	const struct iovec *iov; /* data_bytes in all; pieces and data stay until it has left */
	uint32_t iov_count;	 /* to IO_PIECES_MAX */
	void *owner;		 /* the sender's */
	struct io_parcel *next;	 /* in the channel's list; else the sender's */
	uint8_t head[IO_HEAD_BYTES];
};

struct io_receiver {
	/*
	 * A message with data has begun: *ret_iov gets the pieces that its data goes to, data_bytes
	 * in all, in IO_PIECES_MAX pieces at most, which stay until it has arrived. 0; -EPROTO: there
	 * is no such place, and the channel is of no more use.
	 */
	int (*place)(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		     uint32_t *ret_count);
	/* The message is here, with its data. 0 or -EPROTO. */
	int (*arrived)(void *ctx, const struct io_message *msg);
	void *ctx;
};

/* Since the beginning. */
struct io_channel_stats {
	uint64_t messages_out, messages_in, bytes_out, bytes_in;
	uint64_t bytes_copied;	  /* of bytes_in: by way of a buffer */
	uint64_t sends, receives; /* calls of the kernel */
};

struct io_channel;

struct io_channel_ops {
	void (*send)(struct io_channel *channel, struct io_parcel *parcel);
	int (*flush)(struct io_channel *channel);
	struct io_parcel *(*left)(struct io_channel *channel);
	int (*receive)(struct io_channel *channel, const struct io_receiver *receiver);
	int (*fd)(const struct io_channel *channel);
	void (*stats)(const struct io_channel *channel, struct io_channel_stats *ret_stats);
	void (*destroy)(struct io_channel *channel);
};

/* Every implementation begins with this. */
struct io_channel {
	const struct io_channel_ops *ops;
	uint16_t peer;
};

/* The message must keep its rules (io_message_encode()). Nothing leaves before io_flush(). */
static inline void io_send(struct io_channel *channel, struct io_parcel *parcel)
{
	channel->ops->send(channel, parcel);
}

/* 0: all has left; -EAGAIN: call it again when the fd is writable; -EPIPE, -ECONNRESET,
 * -ETIMEDOUT: link down. */
static inline int io_flush(struct io_channel *channel)
{
	return channel->ops->flush(channel);
}

/* A parcel that has left, in their order, once; NULL: no other has. */
static inline struct io_parcel *io_left(struct io_channel *channel)
{
	return channel->ops->left(channel);
}

/*
 * Takes what there is, up to a bound: 0, and the fd is still readable if more is there. -EPROTO:
 * malformed, or the receiver says so; -EPIPE, -ECONNRESET, -ETIMEDOUT: link down.
 */
static inline int io_receive(struct io_channel *channel, const struct io_receiver *receiver)
{
	return channel->ops->receive(channel, receiver);
}

/* For epoll, level-triggered: readable when io_receive() has something to do. */
static inline int io_fd(const struct io_channel *channel)
{
	return channel->ops->fd(channel);
}

/* Any thread. */
static inline void io_stats(const struct io_channel *channel, struct io_channel_stats *ret_stats)
{
	channel->ops->stats(channel, ret_stats);
}

/* Parcels that have not left are the sender's again. NULL is fine. */
static inline void io_destroy(struct io_channel *channel)
{
	if (channel)
		channel->ops->destroy(channel);
}

#endif
