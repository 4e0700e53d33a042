/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels between two nodes, whatever carries them (TCP now, RDMA later).
 *
 * Two kinds, both reliable and in order:
 *   page channel     one a shard and peer, owned by that shard's thread: frames of page messages
 *                    and pages
 *   control channel  one a peer: small control messages, sent by any thread (locked inside),
 *                    received by the control thread (link/control.h)
 *
 * A page frame is what one pass of a shard's loop has for one peer:
 *   header (16 bytes) | message_count messages of 48 bytes | page_count pages of 4096 bytes
 * The pages belong, in order, to the messages flagged COH_MSG_DATA.
 *
 * Sending never blocks. What the transport cannot take at once is copied into a queue inside the
 * channel (so the caller may protect or drop its pages right after the call); the queue is bounded
 * by the protocol's own bounds, and -ENOBUFS means that a bound was broken (end the pod).
 */
#ifndef LINK_CHANNEL_H
#define LINK_CHANNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/coherence.h"
#include "wire/page_frame.h" /* FRAME_MESSAGES_MAX */

/* A frame being built or received. page[i] points into guest memory when sending, into the
 * channel's receive buffer when receiving; received pages are contiguous, page-aligned, valid until
 * the next receive. */
struct page_frame {
	uint32_t message_count, page_count;
	struct coh_msg message[FRAME_MESSAGES_MAX];
	const void *page[FRAME_MESSAGES_MAX];
};

/* Since the beginning. */
struct page_channel_stats {
	uint64_t messages_out, bytes_out, bytes_in;
	uint64_t calls; /* of the kernel, to send and to receive */
};

struct page_channel;

struct page_channel_ops {
	/* 0, -ENOBUFS, -EPIPE/-ECONNRESET (the link is down). */
	int (*send)(struct page_channel *channel, const struct page_frame *frame);
	/* Goes on sending what is queued. 0: queue empty; -EAGAIN: call when the fd is writable. */
	int (*flush)(struct page_channel *channel);
	/*
	 * Call until -EAGAIN: frames may be waiting in the channel's buffer, which epoll does not
	 * see.
	 * 0 and a validated frame; -EAGAIN none yet; -EPROTO malformed;
	 * -EPIPE/-ECONNRESET/-ETIMEDOUT link down.
	 */
	int (*receive)(struct page_channel *channel, struct page_frame *ret_frame);
	/* For epoll: readable when receive() may have something. */
	int (*fd)(const struct page_channel *channel);
	void (*stats)(const struct page_channel *channel, struct page_channel_stats *ret_stats);
	/*
	 * Ends the link, from this side: receive() gives what has come already, and then that it is
	 * down, whatever the peer does or does not.
	 */
	void (*cut)(struct page_channel *channel);
	void (*destroy)(struct page_channel *channel);
};

/* Every implementation begins with this. */
struct page_channel {
	const struct page_channel_ops *ops;
	uint16_t peer;
};

#endif
