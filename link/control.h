/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control channel between two nodes: small messages (wire/control_message.h), reliable, in
 * order.
 *
 *      any thread  --control_send()--> [lock: socket, queue] -->  peer
 *      control thread <--control_receive()-- [receive buffer] <--  peer
 *
 * Sending never blocks: what the socket does not take is queued, up to CONTROL_QUEUE_BYTES; more
 * than that means that the peer has not read for long, and it will be declared dead by its
 * heartbeats anyway.
 *
 * Threads: control_send() and control_flush() by any thread. control_receive() by one thread, the
 * control thread. destroy when nobody else can call. The control thread must never wait for
 * anything but its epoll: heartbeats are judged by what it receives.
 *
 * A failed send says nothing about why: the peer may have said END and closed. So report a link
 * down when control_receive() says so, which it does after everything that came before. And so that
 * this is always the true reason, a node sends END to all others before it closes, also when it
 * ends because of an END: else its own end may be seen first, on another link, and taken for the
 * cause.
 *
 * Use with epoll: register fd with EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET; at any event call
 * control_flush(), then control_receive() until it says something else than 0.
 */
#ifndef LINK_CONTROL_H
#define LINK_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/control_message.h"

#define CONTROL_QUEUE_BYTES (8u << 20)

struct control_channel;

struct control_channel_ops {
	/* 0; -EINVAL (message breaks its rules); -ENOBUFS (queue full);
	 * -EPIPE/-ECONNRESET/-ETIMEDOUT (link down). */
	int (*send)(struct control_channel *channel, const struct control_message *msg);
	/*
	 * The same for a word that nobody is lost without, by who waits for nobody: -EAGAIN, and it is
	 * not sent, if somebody else sends now or anything is queued.
	 */
	int (*try_send)(struct control_channel *channel, const struct control_message *msg);
	/* 0: nothing queued; -EAGAIN: call again when writable; link-down errors as above. */
	int (*flush)(struct control_channel *channel);
	/*
	 * 0 and a validated message with src set; valid until the next call (text points into the
	 * channel). -EAGAIN: none yet; -EPROTO: malformed; -EPIPE: the peer closed;
	 * -ECONNRESET, -ETIMEDOUT: link down.
	 */
	int (*receive)(struct control_channel *channel, struct control_message *ret_msg);
	/*
	 * The type of what receive() would give; 0: nothing yet, or an error, which is for receive() to
	 * tell. *ret_behind: something else has been taken from the socket, of which epoll may not
	 * tell again. By the thread that calls receive(), or in its turn.
	 */
	uint16_t (*peek)(struct control_channel *channel, bool *ret_behind);
	int (*fd)(const struct control_channel *channel);
	/*
	 * From now on the fd says nothing of a lone heartbeat: whoever waits for it reads the channel
	 * from time to time all the same. By the thread that calls receive().
	 */
	void (*doze)(struct control_channel *channel);
	void (*stats)(struct control_channel *channel, uint64_t *ret_messages,
		      uint64_t *ret_bytes_out, uint64_t *ret_bytes_in);
	/* Bytes that are queued, as the socket does not take them. Any thread. */
	size_t (*backlog)(struct control_channel *channel);
	/* No more sending: the peer reads what was sent, then the end (-EPIPE). Any thread. */
	void (*shutdown)(struct control_channel *channel);
	void (*destroy)(struct control_channel *channel); /* NULL is fine */
};

/* Every implementation begins with this. */
struct control_channel {
	const struct control_channel_ops *ops;
	uint16_t peer;
};

static inline int control_send(struct control_channel *channel, const struct control_message *msg)
{
	return channel->ops->send(channel, msg);
}

static inline int control_try_send(struct control_channel *channel,
				   const struct control_message *msg)
{
	return channel->ops->try_send(channel, msg);
}

static inline uint16_t control_peek(struct control_channel *channel, bool *ret_behind)
{
	return channel->ops->peek(channel, ret_behind);
}

static inline void control_doze(struct control_channel *channel)
{
	channel->ops->doze(channel);
}

static inline int control_flush(struct control_channel *channel)
{
	return channel->ops->flush(channel);
}

static inline int control_receive(struct control_channel *channel, struct control_message *ret_msg)
{
	return channel->ops->receive(channel, ret_msg);
}

static inline size_t control_backlog(struct control_channel *channel)
{
	return channel->ops->backlog(channel);
}

static inline int control_fd(const struct control_channel *channel)
{
	return channel->ops->fd(channel);
}

#endif
