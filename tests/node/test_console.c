/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console between pipes, terminals and devices that are full, and a guest that is this test:
 * put() is what it writes, as a driver that waits for room, `guest` has what it was given.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "guest/channel.h"
#include "node/console.h"
#include "node/deadline.h"
#include "tests/test.h"

#define PATIENCE_MS 10000 /* for what comes at once, on a machine that has other things to do */

/* What the console has told the node, and the guest. A BREAK is kept as '^'. */
struct guest {
	pthread_mutex_t lock;
	sem_t *asked, *go_on; /* if they are there: input() waits, its caller with it */
	uint8_t input[CONSOLE_PORTS][65536];
	size_t size[CONSOLE_PORTS];
	size_t take_max; /* bytes that a call of input() takes */
	unsigned int ends, warnings, rooms;
	char end[256], warning[256];
};

static struct guest guest;
static int in[2], out[2], err[2], log_file[2];

static size_t on_input(void *context, unsigned int port, const uint8_t *data, size_t size)
{
	if (guest.asked && port == 0) {
		sem_post(guest.asked);
		sem_wait(guest.go_on);
	}
	pthread_mutex_lock(&guest.lock);
	if (size > guest.take_max)
		size = guest.take_max;
	memcpy(guest.input[port] + guest.size[port], data, size);
	guest.size[port] += size;
	pthread_mutex_unlock(&guest.lock);
	return size;
}

static size_t on_break(void *context, unsigned int port)
{
	return on_input(context, port, (const uint8_t *)"^", 1);
}

static void on_room(void *context, unsigned int port)
{
	pthread_mutex_lock(&guest.lock);
	guest.rooms++;
	pthread_mutex_unlock(&guest.lock);
}

static void on_warn(void *context, const char *line)
{
	pthread_mutex_lock(&guest.lock);
	guest.warnings++;
	snprintf(guest.warning, sizeof(guest.warning), "%s", line);
	pthread_mutex_unlock(&guest.lock);
}

static void on_end(void *context, const char *why)
{
	pthread_mutex_lock(&guest.lock);
	guest.ends++;
	snprintf(guest.end, sizeof(guest.end), "%s", why ? why : "by the user");
	pthread_mutex_unlock(&guest.lock);
}

static int setup(void **state)
{
	memset(&guest, 0, sizeof(guest));
	pthread_mutex_init(&guest.lock, NULL);
	guest.take_max = SIZE_MAX;
	return pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) ||
	       pipe2(log_file, O_CLOEXEC);
}

static int teardown(void **state)
{
	for (int i = 0; i < 2; i++) {
		close(in[i]);
		close(out[i]);
		close(err[i]);
		close(log_file[i]);
	}
	return 0;
}

static struct console_config config_of(enum console_mode mode)
{
	return (struct console_config){ .mode = mode,
					.in_fd = in[0],
					.out_fd = out[1],
					.err_fd = err[1],
					.log_fd = log_file[1],
					.input = on_input,
					.send_break = on_break,
					.room = on_room,
					.warn = on_warn,
					.end = on_end };
}

/* A console's memory outlives it, by its contract: to the leak sanitizer it is in use. */
static struct console *kept[64];
static size_t kept_count;

static struct console *open_with(const struct console_config *config)
{
	struct console *c = NULL;
	assert_int_equal(console_open(config, &c), 0);
	assert_true(kept_count < sizeof(kept) / sizeof(kept[0]));
	kept[kept_count++] = c;
	return c;
}

static unsigned int now(const unsigned int *count)
{
	pthread_mutex_lock(&guest.lock);
	unsigned int value = *count;
	pthread_mutex_unlock(&guest.lock);
	return value;
}

/* Bytes that a port has been given so far. */
static size_t given(unsigned int port)
{
	pthread_mutex_lock(&guest.lock);
	size_t size = guest.size[port];
	pthread_mutex_unlock(&guest.lock);
	return size;
}

/* All of it. */
static void put(struct console *c, unsigned int port, const uint8_t *data, size_t size)
{
	for (;;) {
		unsigned int rooms = now(&guest.rooms);
		size_t taken = console_offer(c, port, data, size);
		data += taken;
		size -= taken;
		if (!size)
			return;
		for (int i = 0; i < PATIENCE_MS && now(&guest.rooms) == rooms; i++)
			usleep(1000);
		assert_true(now(&guest.rooms) > rooms);
	}
}

static void say(struct console *c, unsigned int port, const char *text)
{
	put(c, port, (const uint8_t *)text, strlen(text));
}

/* A frame from a port. */
static void send_frame_by(struct console *c, unsigned int port, enum channel_kind kind,
			  const void *data, size_t size)
{
	uint8_t frame[CHANNEL_FRAME_MAX];
	ssize_t n = channel_encode(kind, data, size, frame, sizeof(frame));
	assert_true(n > 0);
	assert_int_equal(console_offer(c, port, frame, (size_t)n), n);
}

static void send_frame(struct console *c, enum channel_kind kind, const void *data, size_t size)
{
	send_frame_by(c, 1, kind, data, size);
}

static void send_u32(struct console *c, enum channel_kind kind, uint32_t value)
{
	uint8_t data[4] = { (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16) };
	send_frame(c, kind, data, sizeof(data));
}

static void greet(struct console *c)
{
	send_frame(c, CHANNEL_HELLO, CHANNEL_GREETING, strlen(CHANNEL_GREETING));
}

/* Exactly this comes out of a stream. */
static void reads(int fd, const char *text)
{
	char got[256];
	size_t size = strlen(text), have = 0;
	while (have < size) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
		ssize_t n = read(fd, got + have, size - have);
		assert_true(n > 0);
		have += (size_t)n;
	}
	assert_memory_equal(got, text, size);
}

/* Waits until *count is `want`. */
static void wait_count(const unsigned int *count, unsigned int want)
{
	for (int i = 0; i < PATIENCE_MS; i++) {
		if (now(count) == want)
			return;
		usleep(1000);
	}
	fail_msg("%u, not %u", now(count), want);
}

/* Exactly this comes to a port of the guest, from the beginning. */
static void guest_reads(unsigned int port, const void *data, size_t size)
{
	size_t have = 0;
	for (int i = 0; i < PATIENCE_MS && have < size; i++) {
		have = given(port);
		usleep(1000);
	}
	assert_int_equal(have, size);
	assert_memory_equal(guest.input[port], data, size);
}

static void wait_status(struct console *c, int status)
{
	for (int i = 0; i < PATIENCE_MS && console_exit_status(c) == -ENODATA; i++)
		usleep(1000);
	assert_int_equal(console_exit_status(c), status);
}

static void test_a_command_has_its_streams_and_its_status(void **state)
{
	struct console_config config = config_of(CONSOLE_COMMAND);
	struct console *c = open_with(&config);
	greet(c);
	send_frame(c, CHANNEL_STDOUT, "to stdout", 9);
	send_frame(c, CHANNEL_STDERR, "to stderr", 9);
	say(c, 0, "the kernel's");
	reads(out[0], "to stdout");
	reads(err[0], "to stderr");
	reads(log_file[0], "the kernel's");
	assert_int_equal(console_exit_status(c), -ENODATA);
	send_u32(c, CHANNEL_EXIT, 7);
	wait_status(c, 7);
	assert_int_equal(now(&guest.ends) + now(&guest.warnings), 0);
	console_close(c);
}

/* As much as the guest has said that it takes, and the end only once. */
static void test_input_waits_for_the_window(void **state)
{
	static const uint8_t first[] = { CHANNEL_STDIN, 0, 3, 0, 'a', 'b', 'c' };
	static const uint8_t all[] = {
		CHANNEL_STDIN,	   0, 3, 0, 'a', 'b', 'c', CHANNEL_STDIN, 0, 2, 0, 'd', 'e',
		CHANNEL_STDIN_END, 0, 0, 0
	};
	struct console_config config = config_of(CONSOLE_COMMAND);
	struct console *c = open_with(&config);
	guest.take_max = 2; /* the rest is offered again */
	assert_int_equal(write(in[1], "abcde", 5), 5);
	close(in[1]);
	in[1] = -1;
	usleep(20000);
	assert_int_equal(given(1), 0);
	greet(c);
	send_u32(c, CHANNEL_WINDOW, 3);
	guest_reads(1, first, sizeof(first));
	usleep(20000);
	assert_int_equal(given(1), sizeof(first));
	send_u32(c, CHANNEL_WINDOW, 100);
	guest_reads(1, all, sizeof(all));
	usleep(20000);
	assert_int_equal(given(1), sizeof(all));
	assert_int_equal(given(0), 0);
	console_close(c);
}

static void test_a_full_log_costs_a_warning(void **state)
{
	struct console_config config = config_of(CONSOLE_COMMAND);
	config.log_fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct console *c = open_with(&config);
	say(c, 0, "the kernel's");
	wait_count(&guest.warnings, 1);
	assert_non_null(strstr(guest.warning, "No space left"));
	greet(c);
	send_frame(c, CHANNEL_STDOUT, "hello", 5);
	say(c, 0, "more of it");
	reads(out[0], "hello");
	send_u32(c, CHANNEL_EXIT, 7);
	wait_status(c, 7);
	assert_int_equal(now(&guest.warnings), 1);
	assert_int_equal(now(&guest.ends), 0);
	console_close(c);
	assert_null(console_failure(c));
	close(config.log_fd);
}

static void test_an_output_that_fails_ends_the_pod(void **state)
{
	for (int full = 0; full < 2; full++) {
		struct console_config config = config_of(CONSOLE_COMMAND);
		if (full) {
			config.out_fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
		} else {
			close(out[0]);
			out[0] = -1;
		}
		guest.ends = 0;
		struct console *c = open_with(&config);
		greet(c);
		send_frame(c, CHANNEL_STDOUT, "hello", 5);
		wait_count(&guest.ends, 1);
		assert_non_null(strstr(guest.end, full ? "No space left" : "nobody reads"));
		/* The status is told all the same, and the reason is told once. */
		send_frame(c, CHANNEL_STDOUT, "more", 4);
		send_u32(c, CHANNEL_EXIT, 9);
		wait_status(c, 9);
		assert_int_equal(now(&guest.ends), 1);
		console_close(c);
		assert_string_equal(console_failure(c), guest.end);
		if (full)
			close(config.out_fd);
	}
}

/*
 * The console's clock, as it is played. Whoever asks for the `wait_at`-th time from now on waits until
 * it is told to go on, and it is later then.
 */
static struct {
	_Atomic uint64_t now_ns, later_ns;
	atomic_uint wait_at; /* 0: nobody waits */
	sem_t asked, go_on;
} played;

static uint64_t played_now(void *context)
{
	unsigned int at = atomic_load(&played.wait_at);
	if (at && atomic_compare_exchange_strong(&played.wait_at, &at, at - 1) && at == 1) {
		sem_post(&played.asked);
		sem_wait(&played.go_on);
		atomic_store(&played.now_ns, atomic_load(&played.later_ns));
	}
	return atomic_load(&played.now_ns);
}

static void test_a_guest_without_a_runner_is_told_of(void **state)
{
	struct console_config config = config_of(CONSOLE_COMMAND);
	config.hello_ms = 100;
	config.now_ns = played_now;
	struct console *c = open_with(&config);
	/* Not before its time: what it says meanwhile has been seen. */
	atomic_fetch_add(&played.now_ns, 99 * 1000000ull);
	say(c, 0, "the kernel's");
	reads(log_file[0], "the kernel's");
	assert_int_equal(now(&guest.warnings), 0);
	atomic_fetch_add(&played.now_ns, 1000000);
	wait_count(&guest.warnings, 1);
	assert_non_null(strstr(guest.warning, "guest/mkinitramfs"));
	/* And once: it was only slow. */
	atomic_fetch_add(&played.now_ns, 1000 * 1000000ull);
	greet(c);
	send_u32(c, CHANNEL_EXIT, 0);
	wait_status(c, 0);
	assert_int_equal(now(&guest.warnings), 1);
	console_close(c);

	/* One that greets in time. */
	guest.warnings = 0;
	c = open_with(&config);
	greet(c);
	send_frame(c, CHANNEL_STDOUT, "begun", 5);
	reads(out[0], "begun");
	atomic_fetch_add(&played.now_ns, 1000 * 1000000ull);
	send_u32(c, CHANNEL_EXIT, 0);
	wait_status(c, 0);
	assert_int_equal(now(&guest.warnings) + now(&guest.ends), 0);
	console_close(c);
}

/*
 * A runner that greeted in time is not late because the console's thread is: here it greets while that
 * thread looks at the clock, wherever it does, and then it is long too late.
 */
static void test_a_late_console_accuses_nobody(void **state)
{
	struct console_config config = config_of(CONSOLE_COMMAND);
	config.hello_ms = 3;
	config.now_ns = played_now;
	assert_int_equal(sem_init(&played.asked, 0, 0) | sem_init(&played.go_on, 0, 0), 0);
	for (unsigned int i = 0; i < 12; i++) {
		guest.warnings = 0;
		struct console *c = open_with(&config);
		atomic_store(&played.later_ns, atomic_load(&played.now_ns) + 10 * 1000000ull);
		atomic_store(&played.wait_at, 1 + i % 3);
		while (sem_wait(&played.asked) < 0)
			;
		greet(c);
		sem_post(&played.go_on);
		send_u32(c, CHANNEL_EXIT, 0);
		wait_status(c, 0);
		assert_int_equal(now(&guest.warnings), 0);
		console_close(c);
	}
}

static void test_nonsense_ends_a_command_and_nothing_else(void **state)
{
	struct console_config config = config_of(CONSOLE_COMMAND);
	struct console *c = open_with(&config);
	say(c, 1, "login: ");
	wait_count(&guest.ends, 1);
	assert_non_null(strstr(guest.end, "nonsense"));
	say(c, 1, "login: ");
	say(c, 0, "goes on");
	reads(log_file[0], "goes on");
	assert_int_equal(now(&guest.ends), 1);
	console_close(c);

	guest.ends = 0;
	config.mode = CONSOLE_TERMINAL;
	c = open_with(&config);
	say(c, 1, "login: ");
	say(c, 0, "goes on");
	reads(out[0], "goes on");
	assert_int_equal(now(&guest.ends), 0);
	console_close(c);
}

static void test_a_pipe_instead_of_a_terminal(void **state)
{
	struct console_config config = config_of(CONSOLE_TERMINAL);
	struct console *c = open_with(&config);
	/* No key has a meaning. */
	assert_int_equal(write(in[1], "a\x1d\x1e", 3), 3);
	guest_reads(0, "a\x1d\x1e", 3);
	say(c, 0, "a\nb\n");
	reads(out[0], "a\nb\n");
	/* The runner waits for an answer, though there is no size to tell. */
	static const uint8_t unknown[] = { CHANNEL_RESIZE, 0, 6, 0, 1, 0, 0, 0, 0, 0 };
	greet(c);
	guest_reads(1, unknown, sizeof(unknown));
	assert_int_equal(now(&guest.ends), 0);
	console_close(c);
}

static void test_a_terminal(void **state)
{
	static const uint8_t sizes[] = { CHANNEL_RESIZE, 0, 6, 0, 1, 0, 24, 0, 80,  0,
					 CHANNEL_RESIZE, 0, 6, 0, 1, 0, 50, 0, 132, 0 };
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	struct termios before, after;
	int user, terminal;
	assert_int_equal(openpty(&user, &terminal, NULL, NULL, &size), 0);
	assert_int_equal(tcgetattr(terminal, &before), 0);
	struct console_config config = config_of(CONSOLE_TERMINAL);
	config.in_fd = config.out_fd = config.err_fd = terminal;
	struct console *c = open_with(&config);
	assert_int_equal(tcgetattr(terminal, &after), 0);
	assert_false(after.c_lflag & (ICANON | ECHO | ISIG));
	/* What the guest's terminal has made of its lines is not made once more. */
	say(c, 0, "a\nb\r\n\tc");
	reads(user, "a\nb\r\n\tc");

	usleep(20000);
	assert_int_equal(given(1), 0); /* the guest may have no runner */
	greet(c);
	guest_reads(1, sizes, sizeof(sizes) / 2);
	size = (struct winsize){ .ws_row = 50, .ws_col = 132 };
	assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
	console_resized(c);
	guest_reads(1, sizes, sizeof(sizes));

	/* Ctrl-C and all others are the guest's; a BREAK has its place among them. */
	assert_int_equal(write(user,
			       "ab\x03\x1e\x1e"
			       "cd\r",
			       8),
			 8);
	guest_reads(0, "ab\x03^^cd\r", 8);
	assert_int_equal(now(&guest.ends), 0);
	assert_int_equal(write(user, "x\x1d", 2), 2);
	wait_count(&guest.ends, 1);
	assert_string_equal(guest.end, "by the user");
	console_close(c);
	assert_int_equal(tcgetattr(terminal, &after), 0);
	assert_int_equal(after.c_iflag, before.c_iflag);
	assert_int_equal(after.c_oflag, before.c_oflag);
	assert_int_equal(after.c_lflag, before.c_lflag);
	close(user);
	close(terminal);
}

#define MUCH (3u << 20)

static void *read_slowly(void *arg)
{
	uint8_t *data = arg;
	for (size_t have = 0; have < MUCH;) {
		ssize_t n = read(out[0], data + have, 30000);
		if (n <= 0)
			break;
		have += (size_t)n;
		usleep(1000);
	}
	return NULL;
}

/* More than the ring holds: it goes on when there is room, and nothing is lost. */
static void test_much_output_waits_for_its_reader(void **state)
{
	struct console_config config = config_of(CONSOLE_TERMINAL);
	uint8_t *sent = malloc(MUCH), *got = calloc(1, MUCH);
	pthread_t reader;
	for (size_t i = 0; i < MUCH; i++)
		sent[i] = (uint8_t)(i * 2654435761u >> 13);
	assert_int_equal(pthread_create(&reader, NULL, read_slowly, got), 0);
	struct console *c = open_with(&config);
	for (size_t i = 0, part = 1; i < MUCH; i += part) {
		part = i % 5000 + 1 < MUCH - i ? i % 5000 + 1 : MUCH - i;
		put(c, 0, sent + i, part);
	}
	pthread_join(reader, NULL);
	assert_memory_equal(sent, got, MUCH);
	console_close(c);
	free(sent);
	free(got);
}

/* The runner's port is the one from which it greets, and it is told when it may leave. */
static void test_the_virtio_port(void **state)
{
	static const uint8_t all[] = {
		CHANNEL_STDIN, 0, 3, 0, 'a', 'b', 'c', CHANNEL_BYE, 0, 0, 0
	};
	static const uint8_t window[4] = { 3 }, seven[4] = { 7 };
	struct console_config config = config_of(CONSOLE_COMMAND);
	struct console *c = open_with(&config);
	assert_int_equal(write(in[1], "abcde", 5), 5);
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_HELLO, CHANNEL_GREETING, strlen(CHANNEL_GREETING));
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_WINDOW, window, sizeof(window));
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_STDOUT, "hello", 5);
	reads(out[0], "hello");
	guest_reads(CONSOLE_VIRTIO, all, 7);
	/* The other is the guest's to use. */
	say(c, 1, "login: ");
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_EXIT, seven, sizeof(seven));
	wait_status(c, 7);
	guest_reads(CONSOLE_VIRTIO, all, sizeof(all));
	usleep(20000);
	assert_int_equal(given(CONSOLE_VIRTIO), sizeof(all));
	assert_int_equal(given(0) + given(1), 0);
	assert_int_equal(now(&guest.ends) + now(&guest.warnings), 0);
	console_close(c);
}

#define PIPE_BYTES 4096

/* The console's thread waits in the middle of its turn for who reads its output. */
static void make_it_wait(struct console *c)
{
	uint8_t text[PIPE_BYTES + 1];
	int there = 0;
	memset(text, 'x', sizeof(text));
	assert_int_equal(fcntl(out[1], F_SETPIPE_SZ, PIPE_BYTES), PIPE_BYTES);
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_STDOUT, text, sizeof(text));
	for (int i = 0; i < PATIENCE_MS && there < PIPE_BYTES; i++) {
		assert_int_equal(ioctl(out[0], FIONREAD, &there), 0);
		usleep(1000);
	}
	assert_int_equal(there, PIPE_BYTES);
}

static void let_it_go_on(void)
{
	uint8_t text[PIPE_BYTES];
	assert_int_equal(read(out[0], text, sizeof(text)), sizeof(text));
}

/* The command's end and that of its input, found in one turn: the runner is told of both. */
static void test_the_end_of_input_at_the_end(void **state)
{
	static const uint8_t all[] = { CHANNEL_STDIN_END, 0, 0, 0, CHANNEL_BYE, 0, 0, 0 };
	static const uint8_t window[4] = { 3 }, seven[4] = { 7 };
	struct console_config config = config_of(CONSOLE_COMMAND);
	struct console *c = open_with(&config);
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_HELLO, CHANNEL_GREETING, strlen(CHANNEL_GREETING));
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_WINDOW, window, sizeof(window));
	make_it_wait(c);
	close(in[1]);
	in[1] = -1;
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_EXIT, seven, sizeof(seven));
	let_it_go_on();
	wait_status(c, 7);
	guest_reads(CONSOLE_VIRTIO, all, sizeof(all));
	console_close(c);
}

/* A change of the terminal's size and keys, found in one turn: neither waits for the next key. */
static void test_a_size_and_keys_at_once(void **state)
{
	static const uint8_t sizes[] = { CHANNEL_RESIZE, 0, 6, 0, 1, 0, 24, 0, 80,  0,
					 CHANNEL_RESIZE, 0, 6, 0, 1, 0, 50, 0, 132, 0 };
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	int user, terminal;
	assert_int_equal(openpty(&user, &terminal, NULL, NULL, &size), 0);
	struct console_config config = config_of(CONSOLE_TERMINAL);
	config.in_fd = terminal;
	sem_t asked, go_on;
	assert_int_equal(sem_init(&asked, 0, 0) | sem_init(&go_on, 0, 0), 0);
	guest.asked = &asked;
	guest.go_on = &go_on;
	struct console *c = open_with(&config);
	greet(c);
	guest_reads(1, sizes, sizeof(sizes) / 2);
	assert_int_equal(write(user, "a", 1), 1);
	sem_wait(&asked);
	size = (struct winsize){ .ws_row = 50, .ws_col = 132 };
	assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
	console_resized(c);
	assert_int_equal(write(user, "b", 1), 1);
	struct pollfd typed = { .fd = terminal, .events = POLLIN };
	assert_int_equal(poll(&typed, 1, PATIENCE_MS), 1);
	sem_post(&go_on);
	sem_post(&go_on);
	guest_reads(0, "ab", 2);
	guest_reads(1, sizes, sizeof(sizes));
	console_close(c);
	close(user);
	close(terminal);
}

/* Who offers never waits, hears when it is worth another try, and loses nothing. */
static void test_what_is_offered_and_finds_no_room(void **state)
{
	struct console_config config = config_of(CONSOLE_COMMAND);
	uint8_t *sent = calloc(1, MUCH), *got = calloc(1, MUCH);
	uint8_t frame[CHANNEL_FRAME_MAX];
	pthread_t reader;
	size_t taken = 0, size = 0, done = 0;
	unsigned int refusals = 0;
	for (size_t i = 0; i < MUCH; i++)
		sent[i] = (uint8_t)(i * 2654435761u >> 13);
	struct console *c = open_with(&config);
	send_frame_by(c, CONSOLE_VIRTIO, CHANNEL_HELLO, CHANNEL_GREETING, strlen(CHANNEL_GREETING));
	assert_int_equal(pthread_create(&reader, NULL, read_slowly, got), 0);
	while (done < MUCH || taken < size) {
		if (taken == size) {
			size_t part = done % 9000 + 1 < MUCH - done ? done % 9000 + 1 : MUCH - done;
			size = (size_t)channel_encode(CHANNEL_STDOUT, sent + done, part, frame,
						      sizeof(frame));
			done += part;
			taken = 0;
		}
		unsigned int rooms = now(&guest.rooms);
		taken += console_offer(c, CONSOLE_VIRTIO, frame + taken, size - taken);
		if (taken == size)
			continue;
		refusals++;
		for (int i = 0; i < PATIENCE_MS && now(&guest.rooms) == rooms; i++)
			usleep(1000);
		assert_true(now(&guest.rooms) > rooms);
	}
	pthread_join(reader, NULL);
	assert_true(refusals > 0);
	assert_memory_equal(sent, got, MUCH);
	console_close(c);
	free(sent);
	free(got);
}

/* For a serial port there is room soon, however much its driver has written before. */
static void test_a_full_serial_port(void **state)
{
	static const uint8_t much[65536];
	struct console_config config = config_of(CONSOLE_TERMINAL);
	uint8_t drop[4096];
	unsigned int rooms;
	struct console *c = open_with(&config);
	for (int calm = 0; calm < 5; calm++) { /* until all is full, for a while */
		if (console_offer(c, 0, much, sizeof(much)) > 0)
			calm = 0;
		usleep(10000);
	}
	rooms = now(&guest.rooms);
	for (int i = 0; i < 4; i++)
		assert_true(read(out[0], drop, sizeof(drop)) > 0);
	for (int i = 0; i < PATIENCE_MS && now(&guest.rooms) == rooms; i++)
		usleep(1000);
	assert_true(now(&guest.rooms) > rooms);
	assert_true(console_offer(c, 0, much, sizeof(much)) > 0);
	console_close(c);
	while (poll(&(struct pollfd){ .fd = out[0], .events = POLLIN }, 1, 200) > 0)
		assert_true(read(out[0], drop, sizeof(drop)) > 0);
}

static void *flush(void *arg)
{
	console_flush(arg);
	return arg;
}

/* A guest that has said its last word is not off before that is written. */
static void test_a_flush_waits_for_the_reader(void **state)
{
	static const uint8_t much[200000];
	struct console_config config = config_of(CONSOLE_TERMINAL);
	struct console *c = open_with(&config);
	struct timespec until;
	uint8_t drop[4096];
	pthread_t thread;
	size_t have = 0;
	console_flush(c);	       /* nothing yet */
	put(c, 0, much, sizeof(much)); /* the ring's and the pipe's */
	assert_int_equal(pthread_create(&thread, NULL, flush, c), 0);
	until = deadline_after_ms(1000);
	assert_int_equal(deadline_join(thread, &until), ETIMEDOUT);
	while (have < sizeof(much)) {
		ssize_t n = read(out[0], drop, sizeof(drop));
		assert_true(n > 0);
		have += (size_t)n;
	}
	assert_int_equal(pthread_join(thread, NULL), 0);

	/* Nor does it wait beyond the end. */
	put(c, 0, much, sizeof(much));
	assert_int_equal(pthread_create(&thread, NULL, flush, c), 0);
	console_close(c);
	assert_int_equal(pthread_join(thread, NULL), 0);
	while (poll(&(struct pollfd){ .fd = out[0], .events = POLLIN }, 1, 200) > 0)
		assert_true(read(out[0], drop, sizeof(drop)) > 0);
}

static void *write_for_ever(void *arg)
{
	static const uint8_t data[1u << 20];
	for (size_t done = 0; done < sizeof(data);)
		done += console_offer(arg, 0, data, sizeof(data) - done);
	return NULL;
}

/* At the end all is taken, and that does not wait for the reader. */
static void test_nobody_reads_at_the_end(void **state)
{
	struct console_config config = config_of(CONSOLE_TERMINAL);
	struct console *c = open_with(&config);
	struct timespec begun, ended;
	pthread_t writer;
	assert_int_equal(pthread_create(&writer, NULL, write_for_ever, c), 0);
	usleep(50000);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	console_close(c);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	pthread_join(writer, NULL);
	assert_true(ended.tv_sec - begun.tv_sec < 15); /* and not for ever */
	/* Its thread may still be in write(): let it go before the pipe's number is another's. */
	uint8_t drop[65536];
	struct pollfd ready = { .fd = out[0], .events = POLLIN };
	while (poll(&ready, 1, 200) > 0 && read(out[0], drop, sizeof(drop)) > 0)
		;
}

/* The same with a terminal, which is itself again all the same. */
static void test_nobody_reads_a_terminal_at_the_end(void **state)
{
	struct console_config config = config_of(CONSOLE_TERMINAL);
	struct termios before, after;
	struct timespec begun, ended;
	uint8_t drop[65536];
	pthread_t writer;
	int user, terminal;
	assert_int_equal(openpty(&user, &terminal, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(terminal, &before), 0);
	config.in_fd = config.out_fd = config.err_fd = terminal;
	struct console *c = open_with(&config);
	assert_int_equal(pthread_create(&writer, NULL, write_for_ever, c), 0);
	usleep(50000);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	alarm(30); /* where it fails, it waits for ever */
	console_close(c);
	alarm(0);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	pthread_join(writer, NULL);
	assert_true(ended.tv_sec - begun.tv_sec < 15); /* and not for ever */
	assert_int_equal(tcgetattr(terminal, &after), 0);
	assert_int_equal(after.c_lflag, before.c_lflag);
	struct pollfd ready = { .fd = user, .events = POLLIN };
	while (poll(&ready, 1, 200) > 0 && read(user, drop, sizeof(drop)) > 0)
		;
	/* The terminal stays open: nobody knows when that thread, which is detached, is through. */
	close(user);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_command_has_its_streams_and_its_status),
		TEST(test_input_waits_for_the_window),
		TEST(test_a_full_log_costs_a_warning),
		TEST(test_an_output_that_fails_ends_the_pod),
		TEST(test_a_guest_without_a_runner_is_told_of),
		TEST(test_a_late_console_accuses_nobody),
		TEST(test_nonsense_ends_a_command_and_nothing_else),
		TEST(test_a_pipe_instead_of_a_terminal),
		TEST(test_a_terminal),
		TEST(test_much_output_waits_for_its_reader),
		TEST(test_the_virtio_port),
		TEST(test_the_end_of_input_at_the_end),
		TEST(test_a_size_and_keys_at_once),
		TEST(test_what_is_offered_and_finds_no_room),
		TEST(test_a_full_serial_port),
		TEST(test_a_flush_waits_for_the_reader),
		TEST(test_nobody_reads_at_the_end),
		TEST(test_nobody_reads_a_terminal_at_the_end),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
