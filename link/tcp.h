/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels over TCP, and the send queue that pages and control have. Inside link/ only.
 *
 * A channel owns its stream, whose socket must be connected and non-blocking and have its handshake
 * behind it.
 */
#ifndef LINK_TCP_H
#define LINK_TCP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "link/channel.h"
#include "link/control.h"
#include "link/io_channel.h"
#include "link/stream.h"

/*
 * What a socket did not take at once: a ring of bytes.
 *
 *      base [ ....#########........ ] size (a power of two)
 *                 ^head    ^head + count
 *
 * The memory is reserved, and becomes real only when used; what a burst used is given back when the
 * queue is empty again.
 */
#define TCP_QUEUE_KEPT (256u << 10) /* bytes that an empty queue may keep resident */
struct tcp_queue {
	uint8_t *base;
	size_t size, head, count;
	size_t count_max; /* since the queue was last empty */
	uint64_t calls;	  /* of the kernel */
};

/* size is rounded up to a power of two. 0 or -ENOMEM. */
int tcp_queue_create(struct tcp_queue *queue, size_t size);
void tcp_queue_destroy(struct tcp_queue *queue); /* all zero is fine */

/*
 * Sends `count` pieces (whose `iov` it may change) after what is queued, and queues what the socket
 * does not take. 0, -ENOBUFS (nothing of it is queued, the stream is broken), or a link-down error.
 */
int tcp_queue_send(struct tcp_queue *queue, struct stream *stream, struct iovec *iov, size_t count);

/* 0: empty, and so is the stream; -EAGAIN: the socket is full; or a link-down error. */
int tcp_queue_flush(struct tcp_queue *queue, struct stream *stream);

/* Bytes that a channel may keep resident while it has nothing in hand. */
#define TCP_PAGE_KEPT	 (800u << 10)
#define TCP_CONTROL_KEPT (512u << 10)
#define TCP_IO_KEPT	 (64u << 10)

/* All take over the stream, at success only. queue_bytes 0: a default. 0 or -ENOMEM. */
int tcp_page_create(struct stream stream, uint16_t peer, size_t queue_bytes,
		    struct page_channel **ret_channel);
int tcp_control_create(struct stream stream, uint16_t peer, struct control_channel **ret_channel);
int tcp_io_create(struct stream stream, uint16_t peer, struct io_channel **ret_channel);

#endif
