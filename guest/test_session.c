/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of session.c and client.c against each other, over a socket pair: a server process runs the
 * command, the test is the client.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest/channel.h"
#include "guest/client.h"
#include "guest/session.h"

#define BIG_SIZE 300000

/* A command that is this program, and what it does. It tells of itself by a descriptor. */
#define TELL_FD	    99
#define TALKS	    "--talks"
#define LEAVES	    "--leaves"
#define BATCH_SIZE  (3u * CHANNEL_PAYLOAD_MAX)
#define FIRST_SIZE  20000u
#define SMALL_LINE  4096
#define WINDOW_SIZE 1000u
#define LEFT_SIZE   200000u

struct pair {
	int line;
	pid_t server;
};

/* buffer: bytes that the line holds each way, about; 0: as it is. */
static struct pair server_on(char **argv, uint32_t window, int buffer)
{
	struct pair pair;
	int lines[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lines), 0);
	for (int i = 0; i < 2 && buffer; i++)
		assert_int_equal(
			setsockopt(lines[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)), 0);
	pair.server = fork();
	assert_true(pair.server >= 0);
	if (pair.server == 0) {
		struct session_config config = { .argv = argv, .window = window };

		close(lines[0]);
		fcntl(lines[1], F_SETFL, O_NONBLOCK);
		config.line = lines[1];
		_exit(-session_serve(&config));
	}
	close(lines[1]);
	pair.line = lines[0];
	return pair;
}

static struct pair server_start(char **argv, uint32_t window)
{
	return server_on(argv, window, 0);
}

/* The errno with which session_serve() returned; 0 for success. */
static int server_end(struct pair *pair)
{
	int status;

	close(pair->line);
	assert_int_equal(waitpid(pair->server, &status, 0), pair->server);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static FILE *file_with(const void *data, size_t size)
{
	FILE *file = tmpfile();

	assert_non_null(file);
	if (size)
		assert_int_equal(fwrite(data, 1, size, file), size);
	assert_int_equal(fflush(file), 0);
	rewind(file);
	return file;
}

static void file_is(FILE *file, const void *data, size_t size)
{
	char *got = malloc(size + 1);

	rewind(file);
	assert_int_equal(fread(got, 1, size + 1, file), size);
	assert_memory_equal(got, data, size);
	free(got);
	fclose(file);
}

/* Runs argv with this stdin; returns client_run()'s result. */
static int run(char **argv, int by_client, uint32_t window, FILE *in, FILE *out, FILE *err)
{
	struct pair pair = server_start(by_client ? NULL : argv, window);
	struct client_config config = { .line = pair.line,
					.argv = by_client ? argv : NULL,
					.in = in ? fileno(in) : -1,
					.out = fileno(out),
					.err = fileno(err),
					.greeting_timeout_ms = 20000 };
	int status = client_run(&config);

	assert_int_equal(server_end(&pair), 0);
	return status;
}

static void streams_and_status_are_exact(void **state)
{
	char *argv[] = { "sh", "-c", "cat; echo apart >&2; exit 7", NULL };
	uint8_t *big = malloc(BIG_SIZE);

	(void)state;
	for (size_t i = 0; i < BIG_SIZE; i++)
		big[i] = (uint8_t)(i * 2654435761u >> 13);
	for (int by_client = 0; by_client < 2; by_client++) {
		uint32_t window = by_client ? SESSION_WINDOW_MAX : SESSION_WINDOW_SERIAL;
		FILE *in = file_with(big, BIG_SIZE), *out = file_with("", 0);
		FILE *err = file_with("", 0);

		assert_int_equal(run(argv, by_client, window, in, out, err), 7);
		file_is(out, big, BIG_SIZE);
		file_is(err, "apart\n", 6);
		fclose(in);
	}
	free(big);
}

static void ends_are_told_as_a_shell_does(void **state)
{
	static const struct {
		char *argv[4];
		int status;
		const char *complaint;
	} cases[] = {
		{ { "true" }, 0, "" },
		{ { "sh", "-c", "kill -9 $$" }, 137, "" },
		{ { "no-such-program" }, 127, "no-such-program: not found\n" },
		{ { "/dev/null" }, 126, "/dev/null: Permission denied\n" },
		{ { "sh", "-c", "sleep 100 & echo on >&2; exit 3" }, 3, "on\n" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *argv[5] = { 0 };
		FILE *out = file_with("", 0), *err = file_with("", 0);

		memcpy(argv, cases[i].argv, sizeof(cases[i].argv));
		assert_int_equal(run(argv, 1, SESSION_WINDOW_MAX, NULL, out, err), cases[i].status);
		file_is(out, "", 0);
		file_is(err, cases[i].complaint, strlen(cases[i].complaint));
	}
}

/* Reads frames, 4 KiB each millisecond, until EXIT; its status, or -1 after ten seconds. */
static int read_slowly(int line, size_t *ret_out_size)
{
	struct channel_decoder decoder;
	struct channel_frame frame;
	uint8_t data[4096];
	int whole;

	*ret_out_size = 0;
	channel_decoder_init(&decoder, CHANNEL_FROM_SERVER);
	for (int i = 0; i < 10000; i++) {
		ssize_t size = read(line, data, sizeof(data));

		assert_true(size > 0);
		for (ssize_t at = 0, n; at < size; at += n) {
			n = channel_decode(&decoder, data + at, (size_t)(size - at), &frame,
					   &whole);
			assert_true(n > 0);
			if (whole && frame.kind == CHANNEL_EXIT)
				return (int)channel_frame_u32(&frame);
			if (whole && frame.kind == CHANNEL_STDOUT)
				*ret_out_size += frame.size;
		}
		usleep(1000);
	}
	return -1;
}

/*
 * A process that the command leaves behind writes for ever, faster than the line takes it. The
 * status comes all the same, behind all that the command itself had written.
 */
static void who_goes_on_writing_does_not_matter(void **state)
{
	char *argv[] = { "sh", "-c", "head -c 300000 /dev/zero; yes & yes >&2 & sleep 0.2; exit 3",
			 NULL };
	struct pair pair = server_start(argv, SESSION_WINDOW_SERIAL);
	size_t out_size;

	(void)state;
	assert_int_equal(read_slowly(pair.line, &out_size), 3);
	assert_true(out_size >= BIG_SIZE);
	assert_int_equal(server_end(&pair), 0);
}

static void write_zeros(int fd, size_t size)
{
	static const uint8_t zeros[BATCH_SIZE];

	while (size) {
		ssize_t n = write(fd, zeros, size < sizeof(zeros) ? size : sizeof(zeros));

		if (n <= 0)
			_exit(1);
		size -= (size_t)n;
	}
}

static void tell(int word)
{
	if (write(TELL_FD, &word, sizeof(word)) != sizeof(word))
		_exit(1);
}

/*
 * TALKS: when the session has taken FIRST_SIZE bytes it writes all that one takes in a turn, then it
 * reads a byte more than the window has; LEAVES: it writes and ends.
 */
static int be_command(const char *what)
{
	int left;

	if (strcmp(what, LEAVES) == 0) {
		write_zeros(1, LEFT_SIZE);
		tell(getpid());
		return 7;
	}
	if (fcntl(2, F_SETPIPE_SZ, 262144) < 0)
		return 1;
	write_zeros(1, FIRST_SIZE);
	while (ioctl(1, FIONREAD, &left) == 0 && left)
		usleep(1000);
	write_zeros(1, BATCH_SIZE);
	write_zeros(2, BATCH_SIZE);
	tell(0);
	for (uint32_t i = 0; i <= WINDOW_SIZE; i++) {
		char byte;

		if (i == WINDOW_SIZE)
			tell(1);
		if (read(0, &byte, 1) != 1)
			return 1;
	}
	return 7;
}

static struct pair command_start(const char *what, uint32_t window, int tells[2])
{
	char *argv[] = { "/proc/self/exe", (char *)(uintptr_t)what, NULL };
	struct pair pair;

	assert_int_equal(pipe2(tells, O_CLOEXEC), 0);
	assert_int_equal(dup2(tells[1], TELL_FD), TELL_FD);
	pair = server_on(argv, window, SMALL_LINE);
	close(TELL_FD);
	close(tells[1]);
	return pair;
}

static int told(int tells)
{
	struct pollfd ready = { .fd = tells, .events = POLLIN };
	int word;

	assert_int_equal(poll(&ready, 1, 20000), 1);
	assert_int_equal(read(tells, &word, sizeof(word)), sizeof(word));
	return word;
}

/* What has come of the line so far. */
struct heard {
	struct channel_decoder decoder;
	size_t output;
	uint32_t window;
	int status; /* -1: none yet */
};

/* Reads from the line, little by little, until so much output, window, and a status have come. */
static void hear(int line, struct heard *heard, size_t output, uint32_t window, int end)
{
	struct channel_frame frame;
	uint8_t data[512];
	int whole;

	while (heard->output < output || heard->window < window || (end && heard->status < 0)) {
		struct pollfd ready = { .fd = line, .events = POLLIN };
		ssize_t size;

		assert_int_equal(poll(&ready, 1, 20000), 1);
		size = read(line, data, sizeof(data));
		assert_true(size > 0);
		for (ssize_t at = 0, n; at < size; at += n) {
			n = channel_decode(&heard->decoder, data + at, (size_t)(size - at), &frame,
					   &whole);
			assert_true(n > 0);
			if (whole && frame.kind == CHANNEL_WINDOW)
				heard->window += channel_frame_u32(&frame);
			else if (whole && frame.kind == CHANNEL_EXIT)
				heard->status = (int)channel_frame_u32(&frame);
			else if (whole && frame.kind != CHANNEL_HELLO)
				heard->output += frame.size;
		}
	}
}

/* As one does that does nothing else meanwhile: what the line does not take within 5 s fails. */
static void send_input(int line, size_t size)
{
	static const uint8_t zeros[CHANNEL_PAYLOAD_MAX];
	struct timeval patience = { .tv_sec = 5 };
	uint8_t frame[CHANNEL_FRAME_MAX];

	setsockopt(line, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	while (size) {
		size_t part = size < sizeof(zeros) ? size : sizeof(zeros);
		ssize_t n = channel_encode(CHANNEL_STDIN, zeros, part, frame, sizeof(frame));

		assert_int_equal(write(line, frame, (size_t)n), n);
		size -= part;
	}
}

/* Not one byte more of output fits when input has been taken: it is said when there is room again. */
static void a_window_behind_much_output_is_told(void **state)
{
	struct heard heard = { .status = -1 };
	struct pair pair;
	int tells[2];

	(void)state;
	channel_decoder_init(&heard.decoder, CHANNEL_FROM_SERVER);
	pair = command_start(TALKS, WINDOW_SIZE, tells);
	assert_int_equal(told(tells[0]), 0);
	hear(pair.line, &heard, FIRST_SIZE, WINDOW_SIZE, 0);
	send_input(pair.line, WINDOW_SIZE);
	assert_int_equal(told(tells[0]), 1);
	hear(pair.line, &heard, FIRST_SIZE + 2 * BATCH_SIZE, 2 * WINDOW_SIZE, 0);
	send_input(pair.line, 1);
	hear(pair.line, &heard, 0, 0, 1);
	assert_int_equal(heard.status, 7);
	close(tells[0]);
	assert_int_equal(server_end(&pair), 0);
}

static int is_zombie(int pid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (file && fscanf(file, "%*d %*s %c", &state) != 1)
		state = 0;
	if (file)
		fclose(file);
	return state == 'Z';
}

/* The command has ended, and its output waits for a client that sends what the window allows first. */
static void input_at_the_end_holds_nothing_up(void **state)
{
	struct heard heard = { .status = -1 };
	struct pair pair;
	int tells[2], pid;

	(void)state;
	channel_decoder_init(&heard.decoder, CHANNEL_FROM_SERVER);
	pair = command_start(LEAVES, SESSION_WINDOW_MAX, tells);
	pid = told(tells[0]);
	while (!is_zombie(pid))
		usleep(1000);
	usleep(50000);
	send_input(pair.line, SESSION_WINDOW_MAX);
	hear(pair.line, &heard, LEFT_SIZE, SESSION_WINDOW_MAX, 1);
	assert_int_equal(heard.status, 7);
	close(tells[0]);
	assert_int_equal(server_end(&pair), 0);
}

static void unread_stdin_does_not_matter(void **state)
{
	char *argv[] = { "sh", "-c", "exec <&-; sleep 0.2; echo done", NULL };
	uint8_t *big = calloc(1, BIG_SIZE);
	FILE *in = file_with(big, BIG_SIZE), *out = file_with("", 0), *err = file_with("", 0);

	(void)state;
	assert_int_equal(run(argv, 1, SESSION_WINDOW_SERIAL, in, out, err), 0);
	file_is(out, "done\n", 5);
	fclose(in);
	fclose(err);
	free(big);
}

/* Reads from the line until the text has come by; fails after five seconds. */
static void await_text(int line, const char *text)
{
	char seen[4096];
	size_t size = 0;

	for (;;) {
		struct pollfd ready = { .fd = line, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&ready, 1, 20000), 1);
		n = read(line, seen + size, sizeof(seen) - size);
		assert_true(n > 0);
		size += (size_t)n;
		if (memmem(seen, size, text, strlen(text)))
			return;
	}
}

/* Both streams at once, each many batches long: nothing is lost, and stdout does not starve stderr.
 */
static void two_long_streams_are_exact(void **state)
{
	char *argv[] = { "sh", "-c",
			 "head -c 300000 /dev/zero | tr '\\0' o & "
			 "head -c 300000 /dev/zero | tr '\\0' e >&2; wait",
			 NULL };
	FILE *out = file_with("", 0), *err = file_with("", 0);
	char *want = malloc(BIG_SIZE);

	(void)state;
	assert_int_equal(run(argv, 0, SESSION_WINDOW_SERIAL, NULL, out, err), 0);
	file_is(out, memset(want, 'o', BIG_SIZE), BIG_SIZE);
	file_is(err, memset(want, 'e', BIG_SIZE), BIG_SIZE);
	free(want);
}

/* How many CPUs a command may use whose session is confined to one; 0: a command that told nothing.
 */
static int cpus_of_command(int on_all_cpus)
{
	char *argv[] = { "nproc", NULL };
	struct session_config server = { .argv = argv,
					 .window = 1000,
					 .command_on_all_cpus = on_all_cpus };
	struct client_config config = { .in = -1, .err = 2, .greeting_timeout_ms = 20000 };
	FILE *out = file_with("", 0);
	int lines[2], status, cpus = 0;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lines), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		cpu_set_t one;

		CPU_ZERO(&one);
		CPU_SET(sched_getcpu(), &one);
		sched_setaffinity(0, sizeof(one), &one);
		fcntl(lines[1], F_SETFL, O_NONBLOCK);
		server.line = lines[1];
		_exit(-session_serve(&server));
	}
	close(lines[1]);
	config.line = lines[0];
	config.out = fileno(out);
	assert_int_equal(client_run(&config), 0);
	close(lines[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	rewind(out);
	if (fscanf(out, "%d", &cpus) != 1)
		cpus = 0;
	fclose(out);
	return cpus;
}

static void a_command_may_leave_its_sessions_cpus(void **state)
{
	(void)state;
	assert_int_equal(cpus_of_command(0), 1);
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		skip();
	assert_true(cpus_of_command(1) > 1);
}

/* The client comes late: the session has said all, and is gone. */
static void what_an_ended_session_said_is_read(void **state)
{
	char *argv[] = { "sh", "-c", "echo told; exit 7", NULL };
	struct session_config server = { .argv = argv, .window = 1000 };
	struct client_config config = { .in = -1, .err = 2, .greeting_timeout_ms = 20000 };
	FILE *out = file_with("", 0);
	int lines[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lines), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		fcntl(lines[1], F_SETFL, O_NONBLOCK);
		server.line = lines[1];
		_exit(-session_serve(&server));
	}
	close(lines[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	config.line = lines[0];
	config.out = fileno(out);
	assert_int_equal(client_run(&config), 7);
	close(lines[0]);
	file_is(out, "told\n", 5);
}

static void a_command_dies_with_its_client(void **state)
{
	/* It ignores the polite signal. */
	char *argv[] = { "sh", "-c", "trap '' HUP; echo begun; sleep 100", NULL };
	struct pair pair = server_start(argv, SESSION_WINDOW_MAX);

	(void)state;
	await_text(pair.line, "begun");
	/* session_serve() returns when the command has been waited for. */
	assert_int_equal(server_end(&pair), ECONNRESET);
}

static void a_stranger_is_refused(void **state)
{
	char *argv[] = { "sleep", "100", NULL };
	struct pair pair = server_start(argv, SESSION_WINDOW_MAX);

	(void)state;
	assert_int_equal(write(pair.line, "GET / HTTP/1.0\r\n", 16), 16);
	await_text(pair.line, CHANNEL_GREETING);
	usleep(100000);
	assert_int_equal(server_end(&pair), EPROTO);
}

static void more_stdin_than_the_window_is_refused(void **state)
{
	char *argv[] = { "sleep", "100", NULL };
	struct pair pair = server_start(argv, 1000);
	static const uint8_t data[1001];
	uint8_t frame[CHANNEL_FRAME_MAX];
	ssize_t n = channel_encode(CHANNEL_STDIN, data, sizeof(data), frame, sizeof(frame));

	(void)state;
	assert_int_equal(write(pair.line, frame, (size_t)n), n);
	await_text(pair.line, CHANNEL_GREETING);
	usleep(100000);
	assert_int_equal(server_end(&pair), EPROTO);
}

static void a_silent_server_is_given_up(void **state)
{
	struct client_config config = { .in = -1, .out = 1, .err = 2, .greeting_timeout_ms = 50 };
	int lines[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, lines), 0);
	config.line = lines[0];
	assert_int_equal(client_run(&config), -ETIMEDOUT);
	close(lines[1]);
	assert_int_equal(client_run(&config), -ECONNRESET);
	close(lines[0]);
}

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);

static const char end_of_input = 4;
static int is_full; /* so often: a terminal that has no room for its end of input */

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
	if (is_full && size == 1 && *(const char *)data == end_of_input) {
		is_full--;
		errno = EAGAIN;
		return -1;
	}
	return __real_write(fd, data, size);
}

static void a_full_terminal_gets_its_end_of_input(void **state)
{
	char *argv[] = { "timeout", "--foreground", "30", "cat", NULL };
	FILE *in = file_with("line\n", 5), *out = file_with("", 0);
	struct client_config config = { .argv = argv,
					.in = fileno(in),
					.out = fileno(out),
					.err = 2,
					.terminal = 1,
					.rows = 24,
					.columns = 80,
					.greeting_timeout_ms = 20000 };
	struct pair pair;

	(void)state;
	is_full = 3;
	pair = server_start(NULL, SESSION_WINDOW_MAX);
	is_full = 0;
	config.line = pair.line;
	assert_int_equal(client_run(&config), 0);
	assert_int_equal(server_end(&pair), 0);
	/* Its echo, and what cat makes of it. */
	file_is(out, "line\r\nline\r\n", 12);
	fclose(in);
}

static const char *connect_program;

/* A server at a unix socket that runs what its one client asks for. */
static pid_t server_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t pid;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct session_config config = { .window = SESSION_WINDOW_MAX };

		config.line = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		_exit(-session_serve(&config));
	}
	close(listener);
	return pid;
}

static void a_terminal_follows_its_size(void **state)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	char path[64];
	pid_t server, client;
	int status, terminal;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/test-session-%d.sock", getpid());
	server = server_at(path);
	client = forkpty(&terminal, NULL, NULL, &size);
	assert_true(client >= 0);
	if (client == 0) {
		execl(connect_program, connect_program, "--tty", path, "sh", "-c",
		      "stty size; read line; stty size", NULL);
		_exit(99);
	}
	await_text(terminal, "24 80");
	size.ws_row = 50;
	size.ws_col = 132;
	assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
	assert_int_equal(write(terminal, "\r", 1), 1);
	await_text(terminal, "50 132");
	assert_int_equal(waitpid(client, &status, 0), client);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(waitpid(server, &status, 0), server);
	close(terminal);
	unlink(path);
}

/* The argument: the program `connect`. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_and_status_are_exact),
		cmocka_unit_test(ends_are_told_as_a_shell_does),
		cmocka_unit_test(who_goes_on_writing_does_not_matter),
		cmocka_unit_test(a_window_behind_much_output_is_told),
		cmocka_unit_test(input_at_the_end_holds_nothing_up),
		cmocka_unit_test(unread_stdin_does_not_matter),
		cmocka_unit_test(two_long_streams_are_exact),
		cmocka_unit_test(a_command_may_leave_its_sessions_cpus),
		cmocka_unit_test(what_an_ended_session_said_is_read),
		cmocka_unit_test(a_command_dies_with_its_client),
		cmocka_unit_test(a_stranger_is_refused),
		cmocka_unit_test(more_stdin_than_the_window_is_refused),
		cmocka_unit_test(a_silent_server_is_given_up),
		cmocka_unit_test(a_terminal_follows_its_size),
		cmocka_unit_test(a_full_terminal_gets_its_end_of_input),
	};

	if (argc != 2)
		return 2;
	if (strcmp(argv[1], TALKS) == 0 || strcmp(argv[1], LEAVES) == 0)
		return be_command(argv[1]);
	connect_program = argv[1];
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
