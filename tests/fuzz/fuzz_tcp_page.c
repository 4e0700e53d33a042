// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the receiving side of a page channel as a stream: the input is a list of frames' shapes
 * and of the pieces in which their bytes arrive, and may at last break one byte. Unbroken streams
 * must come out as they went in, whatever the pieces; a broken one must end in an error or in
 * frames, and never in anything else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/tcp.h"
#include "wire/version.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FRAMES_MAX   10
#define MESSAGES_MAX 12
#define STREAM_MAX   (FRAMES_MAX * (16 + MESSAGES_MAX * (48 + 4096)))

struct input {
	const uint8_t *data;
	size_t size, at;
};

static uint8_t take(struct input *input)
{
	return input->at < input->size ? input->data[input->at++] : 0;
}

/* One frame of `messages` messages, the first `pages` with a page of bytes that only it has. */
static size_t put_frame(uint8_t *out, uint32_t sequence, uint16_t messages, uint16_t pages)
{
	struct page_frame_header header = { messages, pages, sequence };
	struct coh_msg message[MESSAGES_MAX];
	size_t head;

	for (uint16_t i = 0; i < messages; i++)
		message[i] = (struct coh_msg){
			.type = i < pages ? COH_GRANT_READ : COH_DONE,
			.flags = i < pages ? COH_MSG_DATA : 0,
			.gpn = sequence * 1000u + i,
		};
	head = page_frame_encode_head(&header, message, out);
	for (uint16_t i = 0; i < pages; i++)
		memset(out + head + i * PAGE_BYTES, (int)(sequence * 7u + i) & 0xff, PAGE_BYTES);
	return page_frame_bytes(&header);
}

static void check_frame(const struct page_frame *frame, uint32_t sequence)
{
	for (uint32_t i = 0; i < frame->message_count; i++) {
		if (frame->message[i].gpn != sequence * 1000u + i || frame->message[i].src != 5)
			abort();
	}
	for (uint32_t i = 0; i < frame->page_count; i++) {
		const uint8_t *page = frame->page[i];

		if ((uintptr_t)page % PAGE_BYTES != 0 || page[0] != ((sequence * 7u + i) & 0xff) ||
		    page[PAGE_BYTES - 1] != page[0])
			abort();
		if (i > 0 && page != (const uint8_t *)frame->page[i - 1] + PAGE_BYTES)
			abort();
	}
}

static size_t put_frames(struct input *input, uint8_t *stream, uint32_t *ret_count)
{
	uint32_t count = 1 + take(input) % FRAMES_MAX;
	size_t size = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint16_t messages = (uint16_t)(1 + take(input) % MESSAGES_MAX);
		uint16_t pages = (uint16_t)(take(input) % (messages + 1u));

		size += put_frame(stream + size, i, messages, pages);
	}
	*ret_count = count;
	return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t stream[STREAM_MAX];
	static struct page_frame frame;
	struct input input = { data, size, 0 };
	struct page_channel *channel;
	uint32_t count, got_count = 0;
	int fd[2], error = -EAGAIN;
	bool broken;
	size_t total, sent = 0;

	if (size < 4)
		return 0;
	broken = take(&input) % 4 == 0;
	total = put_frames(&input, stream, &count);
	if (broken) {
		size_t at = (size_t)take(&input) << 16 | (size_t)take(&input) << 8 | take(&input);

		stream[at % total] ^= (uint8_t)(1 + take(&input) % 255);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0 ||
	    tcp_page_create(stream_plain(fd[1]), 5, 4096, &channel) < 0)
		abort();
	while (sent < total && (error == -EAGAIN || error == 0)) {
		size_t piece = input.at < size ? (size_t)1 << take(&input) % 18 : total;
		ssize_t done;

		piece += take(&input);
		piece = piece < total - sent ? piece : total - sent;
		done = send(fd[0], stream + sent, piece, MSG_NOSIGNAL);
		if (done > 0)
			sent += (size_t)done;
		/* Twice: -EAGAIN may only mean that the socket was emptied just now. */
		for (int i = 0; i < 2; i++) {
			while ((error = channel->ops->receive(channel, &frame)) == 0) {
				if (!broken)
					check_frame(&frame, got_count);
				got_count++;
			}
		}
	}
	if (error != -EAGAIN && error != -EPROTO)
		abort();
	if (!broken && (error != -EAGAIN || got_count != count))
		abort();
	close(fd[0]);
	channel->ops->destroy(channel);
	return 0;
}
