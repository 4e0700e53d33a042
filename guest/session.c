/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session: one command at the server's end of a channel.
 *
 * One thread, one poll loop, nothing ever blocks: output is read from the command only while the
 * buffer towards the line is empty, input is taken from the line only as far as WINDOW allowed, so
 * both directions are bounded and neither can stop the other.
 *
 * The command has ended when its first process has: what it had written by then is sent, what a
 * background process of its own may write later is not waited for.
 *
 * Tested through guest/test-boot and rack/test-exec, where both ends are real.
 */
#include "guest/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/channel.h"

/*
 * Much of a stream is taken at once, and pipes hold more: command and session may run on CPUs that
 * share memory at the price of a network (a pod's nodes), and each time one of them sleeps for the
 * other costs as much as sending kilobytes.
 */
#define PIPE_BYTES  262144
#define BATCH_BYTES 65536

#define LINE_READS_MAX 16 /* in a row, before the command has its turn */

/*
 * What a terminal holds at most of what was written to it and not read yet: a tty buffer and a line
 * discipline's (Linux, drivers/tty: 64 KiB and 4 KiB, rounded up). Pipes say how much they hold.
 */
#define TERMINAL_UNREAD_MAX (2u << 16)

#define END_PATIENCE_MS 2000
#define BYE_PATIENCE_MS 5000

struct session {
	const struct session_config *config;
	struct channel_decoder decoder;

	/* The command as the client tells it. */
	char *args[SESSION_ARGS_MAX + 1];
	size_t arg_count;
	size_t arg_bytes;
	struct channel_terminal terminal;

	/* The running command; descriptors are -1 when closed. With a terminal in_fd == out_fd. */
	pid_t pid;
	int pid_fd;
	int in_fd;
	int out_fd;
	int err_fd;

	/* Bytes towards the line: output[sent..filled). */
	uint8_t output[6 * CHANNEL_FRAME_MAX]; /* three frames are a batch, for each stream */
	size_t output_filled;
	size_t output_sent;

	/*
	 * Bytes towards the command: input[given..filled), of twice the window, so that they are
	 * seldom moved; owed: credit to hand out again.
	 */
	uint8_t *input;
	size_t input_filled;
	size_t input_given;
	uint32_t input_credit;
	uint32_t input_owed;
	int input_ended;
	int client_left; /* it has said BYE */
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int has_terminal(const struct session *s)
{
	return s->terminal.wanted;
}

/* ---- the command ---- */

static void child_exec(const struct session *s, char **argv)
{
	cpu_set_t all;
	sigset_t none;
	int error;

	if (s->config->command_on_all_cpus) {
		memset(&all, 0xff, sizeof(all));
		sched_setaffinity(0, sizeof(all), &all);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	error = errno;
	fprintf(stderr, "%s: %s\n", argv[0], error == ENOENT ? "not found" : strerror(error));
	_exit(error == ENOENT ? 127 : 126);
}

static int start_on_terminal(struct session *s, char **argv)
{
	struct winsize size = { .ws_row = s->terminal.rows, .ws_col = s->terminal.columns };
	int master;

	s->pid = forkpty(&master, NULL, NULL, &size);
	if (s->pid < 0)
		return -errno;
	if (s->pid == 0)
		child_exec(s, argv);
	s->in_fd = master;
	s->out_fd = master;
	return 0;
}

static int start_on_pipes(struct session *s, char **argv)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 };
	int ret = 0;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) {
		ret = -errno;
		goto out;
	}
	s->pid = fork();
	if (s->pid < 0) {
		ret = -errno;
		goto out;
	}
	if (s->pid == 0) {
		setsid();
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		child_exec(s, argv);
	}
	s->in_fd = in[1];
	s->out_fd = out[0];
	s->err_fd = err[0];
	in[1] = out[0] = err[0] = -1;
out:
	close_fd(&in[0]);
	close_fd(&in[1]);
	close_fd(&out[0]);
	close_fd(&out[1]);
	close_fd(&err[0]);
	close_fd(&err[1]);
	return ret;
}

static void set_nonblocking(int fd)
{
	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static int command_start(struct session *s, char **argv)
{
	int ret = has_terminal(s) ? start_on_terminal(s, argv) : start_on_pipes(s, argv);

	if (ret)
		return ret;
	s->pid_fd = pidfd_open(s->pid, 0);
	if (s->pid_fd < 0)
		return -errno;
	/* It may be more than this user is allowed, and a terminal is no pipe: then it stays as it is. */
	(void)fcntl(s->in_fd, F_SETPIPE_SZ, PIPE_BYTES);
	(void)fcntl(s->out_fd, F_SETPIPE_SZ, PIPE_BYTES);
	set_nonblocking(s->in_fd);
	set_nonblocking(s->out_fd);
	set_nonblocking(s->err_fd);
	return 0;
}

/* To its whole session; one that has just been forked may have none yet. */
static void command_signal(const struct session *s, int number)
{
	if (kill(-s->pid, number))
		kill(s->pid, number);
}

/* Ends the command and everything in its session, politely first. */
static void command_end(struct session *s)
{
	struct pollfd ended = { .fd = s->pid_fd, .events = POLLIN };

	if (s->pid <= 0)
		return;
	command_signal(s, SIGHUP);
	command_signal(s, SIGCONT);
	poll(&ended, 1, END_PATIENCE_MS);
	command_signal(s, SIGKILL);
	waitpid(s->pid, NULL, 0);
	s->pid = 0;
}

/* ---- towards the line ---- */

static size_t output_room(const struct session *s)
{
	return sizeof(s->output) - s->output_filled;
}

static int output_is_empty(const struct session *s)
{
	return s->output_sent == s->output_filled;
}

static int output_u32(struct session *s, enum channel_kind kind, uint32_t value)
{
	ssize_t n = channel_encode_u32(kind, value, s->output + s->output_filled, output_room(s));

	if (n < 0)
		return (int)n;
	s->output_filled += (size_t)n;
	return 0;
}

static int output_flush(struct session *s)
{
	while (!output_is_empty(s)) {
		ssize_t n = write(s->config->line, s->output + s->output_sent,
				  s->output_filled - s->output_sent);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -ECONNRESET;
		s->output_sent += (size_t)n;
	}
	s->output_filled = 0;
	s->output_sent = 0;
	return 0;
}

/*
 * A frame of what the command has written, up to `max`; closes the stream at its end. Returns the
 * bytes read; 0 when there is nothing now.
 */
static size_t output_frame(struct session *s, int *fd, enum channel_kind kind, size_t max)
{
	uint8_t *frame = s->output + s->output_filled;
	ssize_t n;

	if (*fd < 0 || output_room(s) < CHANNEL_FRAME_MAX || max == 0)
		return 0;
	n = read(*fd, frame + CHANNEL_HEADER_SIZE,
		 max < CHANNEL_PAYLOAD_MAX ? max : CHANNEL_PAYLOAD_MAX);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		if (*fd == s->in_fd)
			s->in_fd = -1;
		close_fd(fd);
		return 0;
	}
	s->output_filled += (size_t)(channel_encode_header(kind, (size_t)n, frame) + n);
	return (size_t)n;
}

/* A batch of frames. */
static size_t output_collect(struct session *s, int *fd, enum channel_kind kind, size_t max)
{
	size_t size = 0, part;

	do {
		part = output_frame(s, fd, kind, max - size);
		size += part;
	} while (part == CHANNEL_PAYLOAD_MAX && size < BATCH_BYTES);
	return size;
}

/* ---- towards the command ---- */

static void input_drop(struct session *s)
{
	s->input_owed += (uint32_t)(s->input_filled - s->input_given);
	s->input_filled = 0;
	s->input_given = 0;
}

/* A terminal's end of input is a character: one that is full has to take that, too, before it is done. */
static void input_close(struct session *s)
{
	if (s->in_fd < 0)
		return;
	if (!has_terminal(s))
		close(s->in_fd);
	else if (write(s->in_fd, "\004", 1) < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	s->in_fd = -1;
}

/* in_fd is open, and there is something for it. */
static int input_waits(const struct session *s)
{
	return s->in_fd >= 0 && (s->input_filled > s->input_given || s->input_ended);
}

static void input_flush(struct session *s)
{
	while (s->in_fd >= 0 && s->input_given < s->input_filled) {
		ssize_t n = write(s->in_fd, s->input + s->input_given,
				  s->input_filled - s->input_given);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			input_close(s);
			break;
		}
		s->input_given += (size_t)n;
		s->input_owed += (uint32_t)n;
	}
	input_drop(s);
	if (s->input_ended)
		input_close(s);
}

/* Credit is handed out again in useful portions, so that small input does not double the traffic. */
static int input_is_owed(const struct session *s)
{
	return s->input_owed && !s->input_ended &&
	       (s->input_owed >= s->config->window / 4 || !s->input_filled);
}

static void input_repay(struct session *s)
{
	if (!input_is_owed(s) || output_u32(s, CHANNEL_WINDOW, s->input_owed))
		return;
	s->input_credit += s->input_owed;
	s->input_owed = 0;
}

/*
 * What there is to say, as far as the line takes it. Credit that finds no room behind the output is
 * said once that has left: later nobody would wake the session for it.
 */
static int output_all(struct session *s)
{
	int ret;

	do {
		input_repay(s);
		ret = output_flush(s);
	} while (ret == 0 && output_is_empty(s) && input_is_owed(s));
	return ret;
}

static int input_take(struct session *s, const struct channel_frame *frame)
{
	if (s->input_ended || frame->size > s->input_credit)
		return -EPROTO;
	if (s->pid == 0 && s->pid_fd >= 0)
		return 0; /* it ended meanwhile */
	if (s->input_filled + frame->size > 2 * s->config->window) {
		memmove(s->input, s->input + s->input_given, s->input_filled - s->input_given);
		s->input_filled -= s->input_given;
		s->input_given = 0;
	}
	memcpy(s->input + s->input_filled, frame->payload, frame->size);
	s->input_filled += frame->size;
	s->input_credit -= (uint32_t)frame->size;
	return 0;
}

/* ---- frames of the client ---- */

static int take_arg(struct session *s, const struct channel_frame *frame)
{
	char *arg;

	if (s->config->argv || s->pid || s->arg_count == SESSION_ARGS_MAX ||
	    s->arg_bytes + frame->size > SESSION_ARG_BYTES_MAX)
		return -EPROTO;
	arg = malloc(frame->size + 1);
	if (!arg)
		return -ENOMEM;
	memcpy(arg, frame->payload, frame->size);
	arg[frame->size] = '\0';
	s->args[s->arg_count++] = arg;
	s->arg_bytes += frame->size;
	return 0;
}

static int take_start(struct session *s, const struct channel_frame *frame)
{
	if (s->config->argv || s->pid || s->arg_count == 0)
		return -EPROTO;
	s->terminal = channel_frame_terminal(frame);
	return command_start(s, s->args);
}

static int take_resize(struct session *s, const struct channel_frame *frame)
{
	struct channel_terminal terminal = channel_frame_terminal(frame);
	struct winsize size = { .ws_row = terminal.rows, .ws_col = terminal.columns };

	if (has_terminal(s) && s->out_fd >= 0)
		ioctl(s->out_fd, TIOCSWINSZ, &size);
	return 0;
}

static int take_frame(struct session *s, const struct channel_frame *frame)
{
	switch (frame->kind) {
	case CHANNEL_ARG:
		return take_arg(s, frame);
	case CHANNEL_START:
		return take_start(s, frame);
	case CHANNEL_STDIN:
		return input_take(s, frame);
	case CHANNEL_STDIN_END:
		s->input_ended = 1;
		return 0;
	case CHANNEL_RESIZE:
		return take_resize(s, frame);
	case CHANNEL_BYE:
		s->client_left = 1;
		return 0;
	default:
		return -EPROTO;
	}
}

static int line_take(struct session *s, const uint8_t *data, size_t size)
{
	struct channel_frame frame;
	int whole;

	for (size_t at = 0; at < size;) {
		ssize_t n = channel_decode(&s->decoder, data + at, size - at, &frame, &whole);
		int ret = n < 0 ? (int)n : whole ? take_frame(s, &frame) : 0;

		if (ret)
			return ret;
		at += (size_t)n;
	}
	return 0;
}

/* A virtio port gives a page at a time. */
static int line_read(struct session *s)
{
	uint8_t data[CHANNEL_FRAME_MAX];
	ssize_t size = 1;
	int ret = 0;

	for (int i = 0; ret == 0 && !s->client_left && i < LINE_READS_MAX; i++) {
		size = read(s->config->line, data, sizeof(data));
		if (size < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		ret = size <= 0 ? -ECONNRESET : line_take(s, data, (size_t)size);
	}
	return ret;
}

/* ---- the loop ---- */

static int command_is_over(const struct session *s)
{
	struct pollfd ended = { .fd = s->pid_fd, .events = POLLIN };

	return s->pid > 0 && poll(&ended, 1, 0) == 1;
}

/* Until the client has said BYE what it sent belongs to this session, and is to be read away. */
static void await_bye(struct session *s, int patience_ms)
{
	while (!s->client_left) {
		struct pollfd line = { .fd = s->config->line, .events = POLLIN };
		int n = poll(&line, 1, patience_ms);

		if (n == 0 || (n < 0 && errno != EINTR) || (n > 0 && line_read(s)))
			return;
	}
}

/* How much of what was written to this stream so far can still be unread. */
static size_t unread_max(const struct session *s, int fd)
{
	int size;

	if (fd < 0)
		return 0;
	if (has_terminal(s))
		return TERMINAL_UNREAD_MAX;
	return ioctl(fd, FIONREAD, &size) || size < 0 ? 0 : (size_t)size;
}

/*
 * Waits until all output is on the line. The client may send what its window allows before it reads
 * on: that is taken, and no more comes.
 */
static int output_drain(struct session *s)
{
	while (!output_is_empty(s)) {
		struct pollfd line = { .fd = s->config->line,
				       .events = (short)(POLLOUT | (s->client_left ? 0 : POLLIN)) };

		poll(&line, 1, -1);
		if ((line.revents & POLLIN && line_read(s)) ||
		    (line.revents & (POLLHUP | POLLERR) && !(line.revents & POLLIN)) ||
		    output_flush(s))
			return -ECONNRESET;
	}
	return output_flush(s);
}

/*
 * Nothing of what the command wrote may be lost: what is in the pipes when it has ended goes out
 * before EXIT. No more than that: a process that it left behind may write for ever.
 */
static int finish(struct session *s)
{
	size_t out_left = unread_max(s, s->out_fd);
	size_t err_left = unread_max(s, s->err_fd);
	size_t out, err;
	int status;

	do {
		if (output_drain(s))
			return -ECONNRESET;
		out = output_collect(s, &s->out_fd, CHANNEL_STDOUT, out_left);
		err = output_collect(s, &s->err_fd, CHANNEL_STDERR, err_left);
		out_left -= out;
		err_left -= err;
	} while (out || err);
	if (waitpid(s->pid, &status, 0) != s->pid)
		return -errno;
	s->pid = 0;
	output_u32(s, CHANNEL_EXIT,
		   WIFSIGNALED(status) ? 128u + (uint32_t)WTERMSIG(status)
				       : (uint32_t)WEXITSTATUS(status));
	return output_drain(s);
}

static int serve(struct session *s)
{
	for (;;) {
		int empty = output_is_empty(s);
		struct pollfd fds[] = {
			{ .fd = s->config->line,
			  .events = (short)(POLLIN | (empty ? 0 : POLLOUT)) },
			{ .fd = s->pid > 0 ? s->pid_fd : -1, .events = POLLIN },
			{ .fd = empty ? s->out_fd : -1, .events = POLLIN },
			{ .fd = empty ? s->err_fd : -1, .events = POLLIN },
			{ .fd = input_waits(s) ? s->in_fd : -1, .events = POLLOUT },
		};
		int ret = 0;

		if (poll(fds, sizeof(fds) / sizeof(fds[0]), -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[0].revents & POLLIN)
			ret = line_read(s);
		else if (fds[0].revents & (POLLHUP | POLLERR))
			ret = -ECONNRESET;
		if (ret)
			return ret;
		if (s->pid > 0)
			input_flush(s);
		if (fds[2].revents)
			output_collect(s, &s->out_fd, CHANNEL_STDOUT, SIZE_MAX);
		if (fds[3].revents)
			output_collect(s, &s->err_fd, CHANNEL_STDERR, SIZE_MAX);
		ret = output_all(s);
		if (ret)
			return ret;
		if (command_is_over(s)) {
			ret = finish(s);
			if (ret == 0 && s->config->await_bye)
				await_bye(s, -1);
			else if (ret == 0 && !s->config->argv)
				await_bye(s, BYE_PATIENCE_MS);
			return ret;
		}
	}
}

static int greet(struct session *s)
{
	ssize_t n = channel_encode(CHANNEL_HELLO, CHANNEL_GREETING, strlen(CHANNEL_GREETING),
				   s->output, sizeof(s->output));

	if (n < 0)
		return (int)n;
	s->output_filled = (size_t)n;
	s->input_owed = s->config->window;
	return output_all(s);
}

int session_serve(const struct session_config *config)
{
	struct session *s;
	int ret = -ENOMEM;

	if (config->window == 0 || config->window > SESSION_WINDOW_MAX)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->config = config;
	s->pid_fd = s->in_fd = s->out_fd = s->err_fd = -1;
	s->input = malloc(2 * (size_t)config->window);
	if (!s->input)
		goto out;
	channel_decoder_init(&s->decoder, CHANNEL_FROM_CLIENT);
	signal(SIGPIPE, SIG_IGN);
	ret = greet(s);
	if (ret == 0 && config->argv)
		ret = command_start(s, config->argv);
	if (ret == 0)
		ret = serve(s);
out:
	command_end(s);
	if (s->in_fd == s->out_fd)
		s->in_fd = -1;
	close_fd(&s->pid_fd);
	close_fd(&s->in_fd);
	close_fd(&s->out_fd);
	close_fd(&s->err_fd);
	for (size_t i = 0; i < s->arg_count; i++)
		free(s->args[i]);
	free(s->input);
	free(s);
	return ret;
}
