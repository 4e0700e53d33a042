// SPDX-License-Identifier: Apache-2.0
/*
 * Page channels over TCP.
 *
 * Out: header and messages are encoded into the channel, the pages are sent from guest memory where
 * they lie, all in one sendmsg(). In: pages must end up page-aligned and in one piece, but how many
 * messages precede them is known only after reading them. So the channel guesses that the next
 * frame has the shape of the last one with pages, and reads such that pages of that shape fall on
 * page boundaries:
 *
 *                          HEAD_ROOM
 *      in:  [ ......... header messages | page | page | ... ]
 *                       ^position       ^aligned
 *
 * A good guess costs one recv() a frame and no copy. A wrong guess costs the copy of what was read
 * too far, which GUESS_PAGES_MAX bounds; a frame that has not arrived wholly is then read to its
 * end in place.
 *
 * A large frame needs a megabyte in each buffer, and a node has a channel for every peer and shard:
 * what is beyond the size of usual frames goes back to the host when all is delivered.
 *
 * Invariant: in[position .. position + have) are bytes received and not yet delivered, beginning
 * with a frame. Owned by one thread, nothing is locked. Tested by tests/link/test_tcp.c.
 */
#include "link/tcp.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define HEAD_ROOM	(4u * PAGE_BYTES)
#define IN_BYTES	(HEAD_ROOM + (FRAME_MESSAGES_MAX + 1u) * PAGE_BYTES)
#define BOUNCE_BYTES	(FRAME_MESSAGES_MAX * PAGE_BYTES)
#define GUESS_PAGES_MAX 32u
/* What may stay resident of `in`, and of the bounce buffer, while nothing is in hand. */
#define IN_KEPT	    (HEAD_ROOM + 96u * PAGE_BYTES)
#define BOUNCE_KEPT (32u * PAGE_BYTES)
/* Read beyond a frame: less than asked for means that the socket is empty, without asking again. */
#define BEYOND_BYTES 64u
#define QUEUE_BYTES  (64u << 20)

static_assert(PAGE_FRAME_HEAD_MAX <= HEAD_ROOM);
static_assert(IN_KEPT + BOUNCE_KEPT + TCP_QUEUE_KEPT <= TCP_PAGE_KEPT);
static_assert(BEYOND_BYTES <= PAGE_BYTES); /* the page that IN_BYTES has more */

struct tcp_page {
	struct page_channel channel;
	struct stream stream;
	struct tcp_queue queue;
	uint32_t sequence_out, sequence_in;

	uint8_t *in;	 /* IN_BYTES, then the bounce buffer, for pages that fell on no boundary */
	size_t position; /* in `in` */
	size_t have;
	size_t touched;	       /* in `in`, since it was last given back: up to here */
	size_t bounce_touched; /* in the bounce buffer */
	struct page_frame_header guess;
	bool drained; /* the last recv() took all there was */

	struct page_channel_stats stats; /* without the queue's calls */
	uint8_t head[PAGE_FRAME_HEAD_MAX];
	struct iovec iov[1 + FRAME_MESSAGES_MAX];
};

static struct tcp_page *from_channel(struct page_channel *channel)
{
	return (struct tcp_page *)channel;
}

static int page_send(struct page_channel *channel, const struct page_frame *frame)
{
	struct tcp_page *tcp = from_channel(channel);
	struct page_frame_header header = {
		.message_count = (uint16_t)frame->message_count,
		.page_count = (uint16_t)frame->page_count,
		.sequence = tcp->sequence_out,
	};
	size_t count = 0;
	int error;

	assert(frame->message_count > 0 && frame->message_count <= FRAME_MESSAGES_MAX);
	assert(frame->page_count <= frame->message_count);

	tcp->iov[count].iov_base = tcp->head;
	tcp->iov[count++].iov_len = page_frame_encode_head(&header, frame->message, tcp->head);
	for (uint32_t i = 0; i < frame->page_count; i++) {
		struct iovec *last = &tcp->iov[count - 1];

		if (i > 0 && (const uint8_t *)last->iov_base + last->iov_len == frame->page[i]) {
			last->iov_len += PAGE_BYTES;
			continue;
		}
		/* sendmsg() only reads; the cast is iovec's fault. */
		tcp->iov[count].iov_base = (void *)(uintptr_t)frame->page[i];
		tcp->iov[count++].iov_len = PAGE_BYTES;
	}
	error = tcp_queue_send(&tcp->queue, &tcp->stream, tcp->iov, count);
	if (error < 0)
		return error;
	tcp->sequence_out++;
	tcp->stats.messages_out += frame->message_count;
	tcp->stats.bytes_out += page_frame_bytes(&header);
	return 0;
}

static int page_flush(struct page_channel *channel)
{
	struct tcp_page *tcp = from_channel(channel);

	return tcp_queue_flush(&tcp->queue, &tcp->stream);
}

/*
 * Places what is there of a frame so that its pages, `header` being its shape or the guess, begin
 * at HEAD_ROOM. Returns how many more bytes to read for all of it.
 */
static size_t make_room(struct tcp_page *tcp, const struct page_frame_header *header)
{
	size_t position = HEAD_ROOM - page_frame_head_bytes(header);

	if (tcp->have > 0 && tcp->position != position)
		memmove(tcp->in + position, tcp->in + tcp->position, tcp->have);
	tcp->position = position;
	return page_frame_bytes(header) - tcp->have + BEYOND_BYTES;
}

static int deliver(struct tcp_page *tcp, const struct page_frame_header *header,
		   struct page_frame *ret_frame)
{
	uint8_t *head = tcp->in + tcp->position;
	uint8_t *pages = head + page_frame_head_bytes(header);
	int error;

	error = page_frame_decode_messages(header, head, tcp->channel.peer, ret_frame->message);
	if (error < 0)
		return error;
	if (header->page_count > 0) {
		if ((uintptr_t)pages % PAGE_BYTES != 0) {
			memcpy(tcp->in + IN_BYTES, pages, header->page_count * PAGE_BYTES);
			pages = tcp->in + IN_BYTES;
			if (tcp->bounce_touched < header->page_count * PAGE_BYTES)
				tcp->bounce_touched = header->page_count * PAGE_BYTES;
		}
		tcp->guess = *header;
		if (header->page_count > GUESS_PAGES_MAX)
			tcp->guess.page_count = GUESS_PAGES_MAX;
	}
	for (uint32_t i = 0; i < header->page_count; i++)
		ret_frame->page[i] = pages + i * PAGE_BYTES;
	ret_frame->message_count = header->message_count;
	ret_frame->page_count = header->page_count;

	tcp->position += page_frame_bytes(header);
	tcp->have -= page_frame_bytes(header);
	tcp->sequence_in++;
	tcp->stats.bytes_in += page_frame_bytes(header);
	return 0;
}

/* The caller asks for the next frame, so it is done with the pages of the last. */
static void give_back(struct tcp_page *tcp)
{
	if (tcp->have > 0)
		return;
	if (tcp->touched > IN_KEPT) {
		madvise(tcp->in + IN_KEPT, IN_BYTES - IN_KEPT, MADV_DONTNEED);
		tcp->touched = IN_KEPT;
	}
	if (tcp->bounce_touched > BOUNCE_KEPT) {
		madvise(tcp->in + IN_BYTES + BOUNCE_KEPT, BOUNCE_BYTES - BOUNCE_KEPT,
			MADV_DONTNEED);
		tcp->bounce_touched = BOUNCE_KEPT;
	}
}

static int page_receive(struct page_channel *channel, struct page_frame *ret_frame)
{
	struct tcp_page *tcp = from_channel(channel);

	for (;;) {
		struct page_frame_header header = tcp->guess;
		size_t want;
		ssize_t got;

		if (tcp->have >= PAGE_FRAME_HEADER_BYTES) {
			if (page_frame_decode_header(tcp->in + tcp->position, &header) < 0 ||
			    header.sequence != tcp->sequence_in)
				return -EPROTO;
			if (tcp->have >= page_frame_bytes(&header))
				return deliver(tcp, &header, ret_frame);
		}
		if (tcp->drained) {
			tcp->drained = false;
			give_back(tcp);
			return -EAGAIN;
		}
		want = make_room(tcp, &header);
		tcp->stats.calls++;
		got = stream_receive(&tcp->stream, tcp->in + tcp->position + tcp->have, want);
		if (got < 0) {
			give_back(tcp);
			return (int)got;
		}
		tcp->have += (size_t)got;
		if (tcp->touched < tcp->position + tcp->have)
			tcp->touched = tcp->position + tcp->have;
		tcp->drained = (size_t)got < want;
	}
}

static int page_fd(const struct page_channel *channel)
{
	return ((const struct tcp_page *)channel)->stream.fd;
}

static void page_stats(const struct page_channel *channel, struct page_channel_stats *ret_stats)
{
	const struct tcp_page *tcp = (const struct tcp_page *)channel;

	*ret_stats = tcp->stats;
	ret_stats->calls += tcp->queue.calls;
}

static void page_cut(struct page_channel *channel)
{
	/* It may be down already. */
	(void)shutdown(from_channel(channel)->stream.fd, SHUT_RDWR);
}

static void page_destroy(struct page_channel *channel)
{
	struct tcp_page *tcp = from_channel(channel);

	if (!tcp)
		return;
	stream_close(&tcp->stream);
	if (tcp->in)
		munmap(tcp->in, IN_BYTES + BOUNCE_BYTES);
	tcp_queue_destroy(&tcp->queue);
	free(tcp);
}

static const struct page_channel_ops tcp_page_ops = {
	.send = page_send,
	.flush = page_flush,
	.receive = page_receive,
	.fd = page_fd,
	.stats = page_stats,
	.cut = page_cut,
	.destroy = page_destroy,
};

int tcp_page_create(struct stream stream, uint16_t peer, size_t queue_bytes,
		    struct page_channel **ret_channel)
{
	struct tcp_page *tcp = calloc(1, sizeof(*tcp));
	void *in;

	if (!tcp)
		return -ENOMEM;
	tcp->channel.ops = &tcp_page_ops;
	tcp->channel.peer = peer;
	tcp->stream = stream_plain(-1);
	tcp->guess = (struct page_frame_header){ .message_count = 1, .page_count = 1 };
	in = mmap(NULL, IN_BYTES + BOUNCE_BYTES, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (in == MAP_FAILED)
		goto fail;
	tcp->in = in;
	if (tcp_queue_create(&tcp->queue, queue_bytes ? queue_bytes : QUEUE_BYTES) < 0)
		goto fail;
	tcp->stream = stream;
	stream_read_ahead(&tcp->stream);
	*ret_channel = &tcp->channel;
	return 0;

fail:
	page_destroy(&tcp->channel);
	return -ENOMEM;
}
