/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serial ports to standard streams (console.h).
 *
 * One thread waits for stdin and for output queued by console_output(), a bounded ring a port under
 * one lock. Output is written outside the lock. Input that the serial port does not take at once is
 * offered again every INPUT_RETRY_MS: a 16550 cannot say when it has room.
 */
#include "node/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "guest/channel.h"

#define RING_BYTES     (1u << 18)
#define INPUT_BYTES    4096
#define INPUT_RETRY_MS 5
#define ESCAPE_KEY     0x1d /* Ctrl-] */
#define CLOSE_MS       1000

struct ring {
	size_t start, size;
	uint8_t byte[RING_BYTES];
};

struct console {
	struct console_config config;
	pthread_t thread;
	int wake_fd;
	struct termios saved;
	bool raw, no_output;
	atomic_int exit_status;

	pthread_mutex_t lock; /* guards ring, stop */
	pthread_cond_t drained;
	struct ring ring[CONSOLE_PORTS];
	bool stop;

	/* The console thread's own. */
	struct channel_decoder decoder;
	uint32_t window; /* stdin bytes that the guest still takes */
	uint8_t input[INPUT_BYTES + CHANNEL_HEADER_SIZE];
	size_t input_start, input_size;
	bool input_ended, greeted;
};

static unsigned int input_port(const struct console *c)
{
	return c->config.mode == CONSOLE_COMMAND ? 1 : 0;
}

/* Everything, waiting as long as it takes; false when the stream is gone. */
static bool write_all(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);
		if (n < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, 1000);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		size -= (size_t)n;
	}
	return true;
}

static void emit(struct console *c, int fd, const uint8_t *data, size_t size)
{
	if (fd < 0 || c->no_output)
		return;
	if (write_all(fd, data, size))
		return;
	c->no_output = true;
	if (fd != c->config.log_fd)
		c->config.end(c->config.context, "nobody reads the output any more");
}

static void channel_frame_handle(struct console *c, const struct channel_frame *frame)
{
	switch (frame->kind) {
	case CHANNEL_HELLO:
		c->greeted = true;
		break;
	case CHANNEL_WINDOW:
		c->window += channel_frame_u32(frame);
		break;
	case CHANNEL_STDOUT:
		emit(c, STDOUT_FILENO, frame->payload, frame->size);
		break;
	case CHANNEL_STDERR:
		emit(c, STDERR_FILENO, frame->payload, frame->size);
		break;
	case CHANNEL_EXIT:
		atomic_store(&c->exit_status, (int)channel_frame_u32(frame));
		break;
	default:
		break;
	}
}

static void channel_output(struct console *c, const uint8_t *data, size_t size)
{
	while (size) {
		struct channel_frame frame;
		int whole = 0;
		ssize_t n = channel_decode(&c->decoder, data, size, &frame, &whole);
		if (n < 0) {
			c->config.end(c->config.context,
				      "the guest's command channel speaks nonsense; is the "
				      "initramfs of another version?");
			c->no_output = true;
			return;
		}
		data += n;
		size -= (size_t)n;
		if (whole)
			channel_frame_handle(c, &frame);
	}
}

static void port_output(struct console *c, unsigned int port, const uint8_t *data, size_t size)
{
	if (port == 1 && c->config.mode == CONSOLE_COMMAND)
		channel_output(c, data, size);
	else if (port == 0 && c->config.mode == CONSOLE_TERMINAL)
		emit(c, STDOUT_FILENO, data, size);
	else if (port == 0)
		emit(c, c->config.log_fd, data, size);
}

/* Takes what is queued out of the rings and writes it. */
static void drain(struct console *c)
{
	static _Thread_local uint8_t piece[RING_BYTES];
	for (unsigned int port = 0; port < CONSOLE_PORTS; port++) {
		struct ring *r = &c->ring[port];
		pthread_mutex_lock(&c->lock);
		size_t size = r->size, first = RING_BYTES - r->start;
		if (first > size)
			first = size;
		memcpy(piece, r->byte + r->start, first);
		memcpy(piece + first, r->byte, size - first);
		r->start = (r->start + size) % RING_BYTES;
		r->size = 0;
		pthread_cond_broadcast(&c->drained);
		pthread_mutex_unlock(&c->lock);
		if (size && !c->no_output)
			port_output(c, port, piece, size);
	}
}

void console_output(struct console *c, unsigned int port, const uint8_t *data, size_t size)
{
	if (port >= CONSOLE_PORTS)
		return;
	struct ring *r = &c->ring[port];
	pthread_mutex_lock(&c->lock);
	while (size && !c->stop) {
		if (r->size == RING_BYTES) {
			pthread_cond_wait(&c->drained, &c->lock);
			continue;
		}
		r->byte[(r->start + r->size++) % RING_BYTES] = *data++;
		size--;
	}
	pthread_mutex_unlock(&c->lock);
	eventfd_write(c->wake_fd, 1);
}

/* How many bytes of stdin may be read now. */
static size_t input_room(const struct console *c)
{
	if (c->input_ended || c->input_size || c->config.mode == CONSOLE_NONE)
		return 0;
	if (c->config.mode == CONSOLE_TERMINAL)
		return 64;
	size_t room = c->greeted ? c->window : 0;
	return room < INPUT_BYTES ? room : INPUT_BYTES;
}

static void read_input(struct console *c, size_t room)
{
	uint8_t data[INPUT_BYTES];
	ssize_t n = read(STDIN_FILENO, data, room);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	c->input_start = 0;
	if (n <= 0) {
		c->input_ended = true;
		if (c->config.mode == CONSOLE_COMMAND)
			c->input_size = (size_t)channel_encode(CHANNEL_STDIN_END, NULL, 0, c->input,
							       sizeof(c->input));
		return;
	}
	if (c->config.mode == CONSOLE_COMMAND) {
		c->window -= (uint32_t)n;
		c->input_size = (size_t)channel_encode(CHANNEL_STDIN, data, (size_t)n, c->input,
						       sizeof(c->input));
		return;
	}
	if (c->raw && memchr(data, ESCAPE_KEY, (size_t)n)) {
		c->config.end(c->config.context, NULL);
		return;
	}
	memcpy(c->input, data, (size_t)n);
	c->input_size = (size_t)n;
}

static void offer_input(struct console *c)
{
	if (!c->input_size)
		return;
	size_t taken = c->config.input(c->config.context, input_port(c), c->input + c->input_start,
				       c->input_size);
	c->input_start += taken;
	c->input_size -= taken;
}

static bool stopping(struct console *c)
{
	pthread_mutex_lock(&c->lock);
	bool stop = c->stop;
	pthread_mutex_unlock(&c->lock);
	return stop;
}

static void *console_thread(void *arg)
{
	struct console *c = arg;
	pthread_setname_np(pthread_self(), "console");
	while (!stopping(c)) {
		size_t room = input_room(c);
		struct pollfd fds[] = { { .fd = c->wake_fd, .events = POLLIN },
					{ .fd = room ? STDIN_FILENO : -1, .events = POLLIN } };
		if (poll(fds, 2, c->input_size ? INPUT_RETRY_MS : -1) < 0 && errno != EINTR)
			break;
		eventfd_t count;
		if (fds[0].revents)
			eventfd_read(c->wake_fd, &count);
		drain(c);
		if (fds[1].revents)
			read_input(c, room);
		offer_input(c);
	}
	drain(c);
	return NULL;
}

static void terminal_raw(struct console *c)
{
	if (c->config.mode != CONSOLE_TERMINAL || !isatty(STDIN_FILENO))
		return;
	if (tcgetattr(STDIN_FILENO, &c->saved) < 0)
		return;
	struct termios raw = c->saved;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST; /* our own lines on stderr stay readable */
	c->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

int console_open(const struct console_config *config, struct console **ret_console)
{
	struct console *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->config = *config;
	atomic_init(&c->exit_status, -ENODATA);
	channel_decoder_init(&c->decoder, CHANNEL_FROM_SERVER);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->drained, NULL);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = c->wake_fd < 0 ? -errno : 0;
	if (!r) {
		terminal_raw(c);
		r = -pthread_create(&c->thread, NULL, console_thread, c);
	}
	if (r) {
		if (c->raw)
			tcsetattr(STDIN_FILENO, TCSANOW, &c->saved);
		if (c->wake_fd >= 0)
			close(c->wake_fd);
		free(c);
		return r;
	}
	*ret_console = c;
	return 0;
}

void console_close(struct console *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_broadcast(&c->drained);
	pthread_mutex_unlock(&c->lock);
	eventfd_write(c->wake_fd, 1);

	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += CLOSE_MS / 1000;
	pthread_timedjoin_np(c->thread, NULL, &until); /* or it is stuck in a stream nobody reads */
	if (c->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &c->saved);
}

int console_exit_status(const struct console *c)
{
	return atomic_load(&c->exit_status);
}
