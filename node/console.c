/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's ports to standard streams (console.h).
 *
 * One thread waits for stdin and for output queued by console_offer(), a bounded ring a port under one
 * lock. Output is written outside the lock. Input that a port does not take at
 * once is offered again every INPUT_RETRY_MS: a 16550 cannot say when it has room.
 *
 * A command's channel is at the port from which the runner greeted first; what comes from the other
 * then is the guest's own affair. What is on its way in the virtio port is not seen by
 * console_flush(): there the runner waits for BYE, which says that all before EXIT was written out.
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

#define RING_BYTES (1u << 18)
/* Of a serial port in one turn: its driver waits for room for 10 ms, and then for nobody. */
#define SERIAL_BYTES   1024u
#define INPUT_BYTES    CHANNEL_PAYLOAD_MAX
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

	pthread_mutex_t lock; /* guards ring, writing, refused, stop */
	pthread_cond_t drained;
	struct ring ring[CONSOLE_PORTS];
	bool writing;		     /* what was in a ring */
	bool refused[CONSOLE_PORTS]; /* something that was offered */
	bool more;		     /* a ring is not empty at the turn's end */
	bool stop;

	/* The console thread's own. */
	struct channel_decoder decoder[CONSOLE_PORTS];
	bool channel_failed[CONSOLE_PORTS];
	unsigned int channel; /* the port that has greeted; 0: none has */
	uint32_t window;      /* stdin bytes that the guest still takes */
	uint8_t input[INPUT_BYTES + CHANNEL_HEADER_SIZE];
	size_t input_start, input_size;
	unsigned int input_port;
	bool input_ended, hello_missed, bye_owed;
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

static uint64_t host_now_ns(void *context)
{
	return now_ns();
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
	c->input_port = c->channel;
}

static void channel_frame_handle(struct console *c, unsigned int port,
				 const struct channel_frame *frame)
{
	switch (frame->kind) {
	case CHANNEL_HELLO:
		c->channel = port;
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
		c->bye_owed = port == CONSOLE_VIRTIO;
		break;
	default:
		break;
	}
}

static void channel_output(struct console *c, unsigned int port, const uint8_t *data, size_t size)
{
	if (c->channel && c->channel != port)
		return;
	while (size && !c->channel_failed[port]) {
		struct channel_frame frame;
		int whole = 0;
		ssize_t n = channel_decode(&c->decoder[port], data, size, &frame, &whole);
		if (n < 0) {
			c->channel_failed[port] = true;
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
			channel_frame_handle(c, port, &frame);
	}
}

static void port_output(struct console *c, unsigned int port, const uint8_t *data, size_t size)
{
	if (port && c->config.mode != CONSOLE_NONE)
		channel_output(c, port, data, size);
	else if (port == 0 && c->config.mode == CONSOLE_TERMINAL)
		emit(c, c->config.out_fd, data, size);
	else if (port == 0)
		emit_log(c, data, size);
}

/* Takes of what is queued in the rings, and writes it. */
static void drain(struct console *c)
{
	uint8_t *piece = c->piece;
	c->more = false;
	for (unsigned int port = 0; port < CONSOLE_PORTS; port++) {
		struct ring *r = &c->ring[port];
		pthread_mutex_lock(&c->lock);
		size_t size = r->size, first = RING_BYTES - r->start;
		if (port != CONSOLE_VIRTIO && size > SERIAL_BYTES)
			size = SERIAL_BYTES;
		if (first > size)
			first = size;
		memcpy(piece, r->byte + r->start, first);
		memcpy(piece + first, r->byte, size - first);
		r->start = (r->start + size) % RING_BYTES;
		r->size -= size;
		c->more |= r->size > 0;
		c->writing = size;
		bool refused = c->refused[port];
		c->refused[port] = false;
		pthread_cond_broadcast(&c->drained);
		pthread_mutex_unlock(&c->lock);
		if (refused)
			c->config.room(c->config.context, port);
		if (!size)
			continue;
		port_output(c, port, piece, size);
		pthread_mutex_lock(&c->lock);
		c->writing = false;
		pthread_cond_broadcast(&c->drained);
		pthread_mutex_unlock(&c->lock);
	}
}

/* As much as fits: how much that is. With the lock held. */
static size_t ring_add(struct ring *r, const uint8_t *data, size_t size)
{
	size_t room = RING_BYTES - r->size, end = (r->start + r->size) % RING_BYTES;
	size_t first = RING_BYTES - end;
	if (size > room)
		size = room;
	if (first > size)
		first = size;
	memcpy(r->byte + end, data, first);
	memcpy(r->byte, data + first, size - first);
	r->size += size;
	return size;
}

size_t console_offer(struct console *c, unsigned int port, const uint8_t *data, size_t size)
{
	pthread_mutex_lock(&c->lock);
	size_t taken = c->stop ? size : ring_add(&c->ring[port], data, size);
	c->refused[port] |= taken < size;
	pthread_mutex_unlock(&c->lock);
	if (taken)
		eventfd_write(c->wake_fd, 1);
	return taken;
}

void console_input_room(struct console *c)
{
	eventfd_write(c->wake_fd, 1);
}

static bool rings_empty(const struct console *c)
{
	bool empty = true;
	for (unsigned int port = 0; port < CONSOLE_PORTS; port++)
		empty &= c->ring[port].size == 0;
	return empty;
}

void console_flush(struct console *c)
{
	pthread_mutex_lock(&c->lock);
	while (!c->stop && (c->writing || !rings_empty(c)))
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
	size_t room = c->channel ? c->window : 0;
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
	if (c->config.mode != CONSOLE_TERMINAL || !c->channel || c->input_size ||
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

/* The runner leaves once it knows that all of its output has been written, which is now. */
static void offer_bye(struct console *c)
{
	if (!c->bye_owed || c->input_size)
		return;
	c->bye_owed = false;
	c->input_ended = true;
	send_frame(c, channel_encode(CHANNEL_BYE, NULL, 0, c->input, sizeof(c->input)));
}

static bool owes_a_frame(struct console *c)
{
	return c->bye_owed ||
	       (c->config.mode == CONSOLE_TERMINAL && c->channel && atomic_load(&c->resized));
}

/*
 * What is in hand, then what else is to be said. Nothing that could be said now may be left for the
 * next turn: there may be none, as nobody wakes the thread for what it knows already.
 */
static void offer_all(struct console *c)
{
	do {
		offer_size(c);
		offer_bye(c);
		offer_input(c);
	} while (!c->input_size && owes_a_frame(c));
}

static bool waits_for_hello(const struct console *c)
{
	return c->config.mode == CONSOLE_COMMAND && !c->channel && !c->hello_missed &&
	       c->config.hello_ms;
}

static uint64_t waited_ms(const struct console *c)
{
	return (c->config.now_ns(c->config.context) - c->start_ns) / NS_PER_MS;
}

/* How long the thread may sleep. */
static int patience_ms(const struct console *c)
{
	if (c->more)
		return 0;
	if (c->input_size)
		return INPUT_RETRY_MS;
	if (!waits_for_hello(c))
		return -1;
	uint64_t ms = waited_ms(c);
	return ms < c->config.hello_ms ? (int)(c->config.hello_ms - ms) : 0;
}

/*
 * Says so once when the guest's runner is late. What has been said by `ms` has been read: that this
 * thread was late itself is not the runner's fault.
 */
static void judge_hello(struct console *c, uint64_t ms)
{
	char line[192];
	if (!waits_for_hello(c) || ms < c->config.hello_ms)
		return;
	c->hello_missed = true;
	snprintf(line, sizeof(line),
		 "the guest has not begun the command after %u s: does its initrd have the runner "
		 "that guest/mkinitramfs puts in? --log FILE shows what its kernel says",
		 c->config.hello_ms / 1000);
	c->config.warn(c->config.context, line);
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
		uint64_t ms = waited_ms(c);
		drain(c);
		judge_hello(c, ms);
		if (fds[1].revents)
			read_input(c, room);
		offer_all(c);
	}
	do
		drain(c);
	while (c->more);
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
	if (!c->config.now_ns)
		c->config.now_ns = host_now_ns;
	c->start_ns = c->config.now_ns(c->config.context);
	atomic_init(&c->exit_status, -ENODATA);
	atomic_init(&c->resized, true);
	atomic_init(&c->out_failed, false);
	for (unsigned int port = 0; port < CONSOLE_PORTS; port++)
		channel_decoder_init(&c->decoder[port], CHANNEL_FROM_SERVER);
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
