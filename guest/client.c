/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client: one thread, one poll loop. Output is written blocking: if the caller's stdout does not
 * move, the command is to wait, as it would in a pipe. stdin is read only while the server's WINDOW
 * has room, so nothing is ever held here but the frame in hand.
 *
 * Tested by guest/test_session.c against the server side.
 */
#include "guest/client.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/channel.h"

struct client {
	const struct client_config *config;
	struct channel_decoder decoder;
	int in;
	int greeted;
	uint32_t credit;
	int status; /* -1 until EXIT */
};

static int write_all(int fd, const void *data, size_t size)
{
	const char *bytes = data;

	while (size) {
		ssize_t n = write(fd, bytes, size);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd ready = { .fd = fd, .events = POLLOUT };

			poll(&ready, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		size -= (size_t)n;
	}
	return 0;
}

static int send_frame(struct client *c, enum channel_kind kind, const void *payload, size_t size)
{
	uint8_t frame[CHANNEL_FRAME_MAX];
	ssize_t n = channel_encode(kind, payload, size, frame, sizeof(frame));

	if (n < 0)
		return n == -EMSGSIZE ? -E2BIG : (int)n;
	return write_all(c->config->line, frame, (size_t)n);
}

/* kind: START or RESIZE. */
static int send_terminal(struct client *c, enum channel_kind kind, unsigned short rows,
			 unsigned short columns)
{
	struct channel_terminal terminal = { .wanted = c->config->terminal != 0,
					     .rows = rows,
					     .columns = columns };
	uint8_t frame[CHANNEL_FRAME_MAX];
	ssize_t n = channel_encode_terminal(kind, &terminal, frame, sizeof(frame));

	return n < 0 ? (int)n : write_all(c->config->line, frame, (size_t)n);
}

static int send_command(struct client *c)
{
	int ret;

	for (char *const *arg = c->config->argv; *arg; arg++) {
		ret = send_frame(c, CHANNEL_ARG, *arg, strlen(*arg));
		if (ret)
			return ret;
	}
	return send_terminal(c, CHANNEL_START, c->config->rows, c->config->columns);
}

/* A line that takes nothing more may still have output for us: not an error. */
static void resize(struct client *c)
{
	unsigned short rows, columns;

	if (!c->config->size(c->config->resized, &rows, &columns))
		(void)send_terminal(c, CHANNEL_RESIZE, rows, columns);
}

static int take_greeting(struct client *c)
{
	int ret = c->config->argv ? send_command(c) : 0;

	c->greeted = 1;
	/* A session that is over already does not take it; its output and EXIT are still to be read. */
	if (ret == 0 && c->in < 0 && !c->config->listen_only)
		(void)send_frame(c, CHANNEL_STDIN_END, NULL, 0);
	return ret;
}

static int take_frame(struct client *c, const struct channel_frame *frame)
{
	switch (frame->kind) {
	case CHANNEL_HELLO:
		return take_greeting(c);
	case CHANNEL_WINDOW:
		c->credit += channel_frame_u32(frame);
		return 0;
	case CHANNEL_STDOUT:
		return write_all(c->config->out, frame->payload, frame->size);
	case CHANNEL_STDERR:
		return write_all(c->config->err, frame->payload, frame->size);
	case CHANNEL_EXIT:
		c->status = (int)channel_frame_u32(frame);
		return 0;
	default:
		return -EPROTO;
	}
}

static int line_read(struct client *c)
{
	static const size_t size_max = 65536;
	uint8_t data[65536];
	ssize_t size = read(c->config->line, data, size_max);
	struct channel_frame frame;
	size_t at = 0;
	int whole;

	if (size < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (size <= 0)
		return -ECONNRESET;
	while (at < (size_t)size && c->status < 0) {
		ssize_t n =
			channel_decode(&c->decoder, data + at, (size_t)size - at, &frame, &whole);
		int ret = n < 0 ? (int)n : whole ? take_frame(c, &frame) : 0;

		if (ret)
			return ret;
		at += (size_t)n;
	}
	return 0;
}

static int input_read(struct client *c)
{
	uint8_t data[CHANNEL_PAYLOAD_MAX];
	size_t want = c->credit < sizeof(data) ? c->credit : sizeof(data);
	ssize_t n = read(c->in, data, want);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		c->in = -1;
		(void)send_frame(c, CHANNEL_STDIN_END, NULL, 0);
		return 0;
	}
	c->credit -= (uint32_t)n;
	/*
	 * A line that takes no more input may still hold the output and the EXIT that came before
	 * it closed: reading decides, not writing.
	 */
	if (send_frame(c, CHANNEL_STDIN, data, (size_t)n))
		c->in = -1;
	return 0;
}

int client_run(const struct client_config *config)
{
	struct client c = { .config = config,
			    .in = config->listen_only ? -1 : config->in,
			    .status = -1 };

	channel_decoder_init(&c.decoder, CHANNEL_FROM_SERVER);
	while (c.status < 0) {
		struct pollfd fds[] = {
			{ .fd = config->line, .events = POLLIN },
			{ .fd = c.greeted && c.credit ? c.in : -1, .events = POLLIN },
			{ .fd = c.greeted && config->size ? config->resized : -1,
			  .events = POLLIN },
		};
		int timeout = c.greeted ? -1 : config->greeting_timeout_ms;
		int n = poll(fds, 3, timeout);
		int ret = 0;

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ETIMEDOUT;
		if (n < 0)
			continue;
		if (fds[0].revents)
			ret = line_read(&c);
		/* What is typed after a change of size finds the new size. */
		if (ret == 0 && c.status < 0 && fds[2].revents)
			resize(&c);
		if (ret == 0 && c.status < 0 && fds[1].revents)
			ret = input_read(&c);
		if (ret && c.status < 0)
			return ret;
	}
	if (config->argv)
		(void)send_frame(&c, CHANNEL_BYE, NULL, 0);
	return c.status;
}
