/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels over TCP, and the send queue that both kinds have. Inside link/ only.
 *
 * A channel owns its socket, which must be connected and non-blocking and have its handshake behind
 * it.
 */
#ifndef LINK_TCP_H
#define LINK_TCP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "link/channel.h"
#include "link/control.h"

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
int tcp_queue_send(struct tcp_queue *queue, int fd, struct iovec *iov, size_t count);

/* 0: empty; -EAGAIN: the socket is full; or a link-down error. */
int tcp_queue_flush(struct tcp_queue *queue, int fd);

/* recv() without signals and EINTR: bytes > 0; -EAGAIN; -EPIPE at the end of the stream; link-down
 * errors. */
ssize_t tcp_receive(int fd, void *buffer, size_t size);

/* Bytes that a channel may keep resident while it has nothing in hand. */
#define TCP_PAGE_KEPT	 (800u << 10)
#define TCP_CONTROL_KEPT (512u << 10)

/* Both take over fd, at success only. queue_bytes 0: a default. 0 or -ENOMEM. */
int tcp_page_create(int fd, uint16_t peer, size_t queue_bytes, struct page_channel **ret_channel);
int tcp_control_create(int fd, uint16_t peer, struct control_channel **ret_channel);

#endif
