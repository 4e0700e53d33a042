/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serial ports to standard streams (console.h).
 *
 * One thread waits for stdin and for output queued by console_output(), a bounded ring a port under
 * one lock. Output is written outside the lock. Input that the serial port does not take at once is
 * offered again every INPUT_RETRY_MS: a 16550 cannot say when it has room.
 *
 * The two streams fail apart: a log that takes no more costs a warning, a stdout that does ends the
 * pod. The channel's frames are decoded whatever becomes of their bytes, for the status is in them.
 *
 * Tested by tests/node/test_console.c, whole by tests/pod/guests and tests/pod/terminal.py.
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
#include "node/deadline.h"

#define RING_BYTES     (1u << 18)
#define INPUT_BYTES    4096
#define INPUT_RETRY_MS 5
#define END_KEY	       0x1d /* Ctrl-] */
#define BREAK_KEY      0x1e /* Ctrl-^ */
#define CLOSE_MS       1000
#define NS_PER_MS      1000000ull

struct ring {
	size_t start, size;
	uint8_t byte[RING_BYTES];
};

struct console {
	struct console_config config;
	pthread_t thread;
	int wake_fd;
	struct termios saved;
	bool raw;
	atomic_int exit_status;
	atomic_bool resized, out_failed;
	char failure[96]; /* written before out_failed is */

	pthread_mutex_t lock; /* guards ring, writing, stop */
	pthread_cond_t drained;
	struct ring ring[CONSOLE_PORTS];
	bool writing; /* what was in a ring */
	bool stop;

	/* The console thread's own. */
	struct channel_decoder decoder;
	uint32_t window; /* stdin bytes that the guest still takes */
	uint8_t input[INPUT_BYTES + CHANNEL_HEADER_SIZE];
	size_t input_start, input_size;
	unsigned int input_port;
	bool input_ended, greeted, channel_failed, hello_missed;
	bool log_failed;
	uint64_t start_ns;
	uint8_t piece[RING_BYTES]; /* what drain() has in hand */
};

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Everything, waiting as long as it takes; negative errno when the stream takes no more. */
static int write_all(int fd, const uint8_t *data, size_t size)
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
			return n < 0 ? -errno : -EIO;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

static void emit(struct console *c, int fd, const uint8_t *data, size_t size)
{
	int r = c->out_failed ? 0 : write_all(fd, data, size);
	if (!r)
		return;
	if (r == -EPIPE)
		snprintf(c->failure, sizeof(c->failure), "nobody reads the output any more");
	else
		snprintf(c->failure, sizeof(c->failure), "the output cannot be written: %s",
			 strerror(-r));
	atomic_store(&c->out_failed, true);
	c->config.end(c->config.context, c->failure);
}

static void emit_log(struct console *c, const uint8_t *data, size_t size)
{
	char line[96];
	int r = c->log_failed || c->config.log_fd < 0 ? 0 : write_all(c->config.log_fd, data, size);
	if (!r)
		return;
	c->log_failed = true;
	snprintf(line, sizeof(line), "the log ends here, it cannot be written: %s", strerror(-r));
	c->config.warn(c->config.context, line);
}

/* A frame to the guest. There is no other input in hand: the caller has looked. */
static void send_frame(struct console *c, ssize_t size)
{
	c->input_start = 0;
	c->input_size = size > 0 ? (size_t)size : 0;
	c->input_port = 1;
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
		emit(c, c->config.out_fd, frame->payload, frame->size);
		break;
	case CHANNEL_STDERR:
		emit(c, c->config.err_fd, frame->payload, frame->size);
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
	while (size && !c->channel_failed) {
		struct channel_frame frame;
		int whole = 0;
		ssize_t n = channel_decode(&c->decoder, data, size, &frame, &whole);
		if (n < 0) {
			c->channel_failed = true;
			/* Without a command the port is the guest's own to use. */
			if (c->config.mode == CONSOLE_COMMAND)
				c->config.end(c->config.context,
					      "the guest's command channel speaks nonsense; is the "
					      "initramfs of another version?");
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
	if (port == 1 && c->config.mode != CONSOLE_NONE)
		channel_output(c, data, size);
	else if (port == 0 && c->config.mode == CONSOLE_TERMINAL)
		emit(c, c->config.out_fd, data, size);
	else if (port == 0)
		emit_log(c, data, size);
}

/* Takes what is queued out of the rings and writes it. */
static void drain(struct console *c)
{
	uint8_t *piece = c->piece;
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
		c->writing = size;
		pthread_cond_broadcast(&c->drained);
		pthread_mutex_unlock(&c->lock);
		if (!size)
			continue;
		port_output(c, port, piece, size);
		pthread_mutex_lock(&c->lock);
		c->writing = false;
		pthread_cond_broadcast(&c->drained);
		pthread_mutex_unlock(&c->lock);
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

void console_flush(struct console *c)
{
	pthread_mutex_lock(&c->lock);
	while (!c->stop && (c->writing || c->ring[0].size || c->ring[1].size))
		pthread_cond_wait(&c->drained, &c->lock);
	pthread_mutex_unlock(&c->lock);
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
	ssize_t n = read(c->config.in_fd, data, room);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		c->input_ended = true;
		if (c->config.mode == CONSOLE_COMMAND)
			send_frame(c, channel_encode(CHANNEL_STDIN_END, NULL, 0, c->input,
						     sizeof(c->input)));
		return;
	}
	if (c->config.mode == CONSOLE_COMMAND) {
		c->window -= (uint32_t)n;
		send_frame(c, channel_encode(CHANNEL_STDIN, data, (size_t)n, c->input,
					     sizeof(c->input)));
		return;
	}
	if (c->raw && memchr(data, END_KEY, (size_t)n)) {
		c->config.end(c->config.context, NULL);
		return;
	}
	memcpy(c->input, data, (size_t)n);
	c->input_start = 0;
	c->input_size = (size_t)n;
	c->input_port = 0;
}

/* What is in hand, up to a key that means BREAK, which takes its place among the bytes. */
static void offer_input(struct console *c)
{
	while (c->input_size) {
		const uint8_t *data = c->input + c->input_start;
		const uint8_t *key = c->raw && c->input_port == 0
					     ? memchr(data, BREAK_KEY, c->input_size)
					     : NULL;
		size_t size = key ? (size_t)(key - data) : c->input_size, taken;
		if (key == data)
			taken = c->config.send_break(c->config.context, c->input_port);
		else
			taken = c->config.input(c->config.context, c->input_port, data, size);
		c->input_start += taken;
		c->input_size -= taken;
		if (taken < size || !taken)
			return;
	}
}

/* The terminal's size for the guest's, once it has asked for it by its HELLO, and when it changes.
 */
static void offer_size(struct console *c)
{
	struct winsize size = { 0 };
	if (c->config.mode != CONSOLE_TERMINAL || !c->greeted || c->input_size ||
	    !atomic_exchange(&c->resized, false))
		return;
	if (ioctl(c->config.in_fd, TIOCGWINSZ, &size) < 0)
		(void)ioctl(c->config.out_fd, TIOCGWINSZ, &size);
	struct channel_terminal terminal = { .wanted = 1,
					     .rows = size.ws_row,
					     .columns = size.ws_col };
	send_frame(c,
		   channel_encode_terminal(CHANNEL_RESIZE, &terminal, c->input, sizeof(c->input)));
}

/* How long the thread may sleep; says so once when the guest's runner is late. */
static int patience_ms(struct console *c)
{
	if (c->input_size)
		return INPUT_RETRY_MS;
	if (c->config.mode != CONSOLE_COMMAND || c->greeted || c->hello_missed ||
	    !c->config.hello_ms)
		return -1;
	uint64_t waited_ms = (now_ns() - c->start_ns) / NS_PER_MS;
	if (waited_ms < c->config.hello_ms)
		return (int)(c->config.hello_ms - waited_ms);
	char line[192];
	c->hello_missed = true;
	snprintf(line, sizeof(line),
		 "the guest has not begun the command after %u s: does its initrd have the runner "
		 "that guest/mkinitramfs puts in? --log FILE shows what its kernel says",
		 c->config.hello_ms / 1000);
	c->config.warn(c->config.context, line);
	return -1;
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
					{ .fd = room ? c->config.in_fd : -1, .events = POLLIN } };
		if (poll(fds, 2, patience_ms(c)) < 0 && errno != EINTR)
			break;
		eventfd_t count;
		if (fds[0].revents)
			eventfd_read(c->wake_fd, &count);
		drain(c);
		if (fds[1].revents)
			read_input(c, room);
		offer_size(c);
		offer_input(c);
	}
	drain(c);
	return NULL;
}

static void terminal_raw(struct console *c)
{
	if (c->config.mode != CONSOLE_TERMINAL || !isatty(c->config.in_fd))
		return;
	if (tcgetattr(c->config.in_fd, &c->saved) < 0)
		return;
	struct termios raw = c->saved;
	cfmakeraw(&raw);
	c->raw = tcsetattr(c->config.in_fd, TCSANOW, &raw) == 0;
}

/* A line that is stopped shows nothing more: what is on its way there is not waited for for ever. */
static void terminal_restore(struct console *c, bool stuck)
{
	uint64_t end_ns = now_ns() + CLOSE_MS * NS_PER_MS;
	int left;
	if (!c->raw)
		return;
	while (!stuck && ioctl(c->config.in_fd, TIOCOUTQ, &left) == 0 && left && now_ns() < end_ns)
		usleep(1000);
	tcsetattr(c->config.in_fd, TCSANOW, &c->saved);
}

int console_open(const struct console_config *config, struct console **ret_console)
{
	struct console *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->config = *config;
	c->start_ns = now_ns();
	atomic_init(&c->exit_status, -ENODATA);
	atomic_init(&c->resized, true);
	atomic_init(&c->out_failed, false);
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
			tcsetattr(c->config.in_fd, TCSANOW, &c->saved);
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

	struct timespec until = deadline_after_ms(CLOSE_MS);
	/* Or it is stuck in a stream that nobody reads: then waiting for a drain would be, too. */
	bool stuck = deadline_join(c->thread, &until) != 0;
	if (stuck)
		pthread_detach(c->thread);
	terminal_restore(c, stuck);
}

void console_resized(struct console *c)
{
	atomic_store(&c->resized, true);
	eventfd_write(c->wake_fd, 1);
}

const char *console_failure(const struct console *c)
{
	return atomic_load(&c->out_failed) ? c->failure : NULL;
}

int console_exit_status(const struct console *c)
{
	return atomic_load(&c->exit_status);
}
