/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect: a channel's client for scripts: joins its stdin, stdout, stderr and exit status to the
 * server behind a unix socket.
 *
 *      connect [--tty] [--no-stdin] [--timeout SECONDS] [--ports N] SOCKET [COMMAND [ARGUMENT...]]
 *      connect --listen [--timeout SECONDS] FIFO
 *
 * Without a COMMAND the server has its own (the guest's runner). With --tty the command gets a
 * terminal, of our terminal's size now and later, and ours is raw meanwhile. --timeout bounds the
 * wait for the greeting. With --ports there are N servers, at SOCKET1 to SOCKETN, and a free one is
 * taken: SOCKETi.lock is locked while port i is in use, and a port that a client has left without
 * its EXIT rests a few seconds, until its server has surely noticed. Status 255: the line failed;
 * the reason is on stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "guest/client.h"

#define STATUS_FAILED 255
#define REST_SECONDS  5

struct options {
	int tty;
	int no_stdin;
	int listen;
	int timeout_ms;
	int ports;
	const char *socket;
	char **command;
};

static struct termios terminal_before;
static int terminal_is_raw;

static void terminal_restore(void)
{
	if (terminal_is_raw)
		tcsetattr(0, TCSANOW, &terminal_before);
}

static void on_signal(int number)
{
	terminal_restore();
	_exit(128 + number);
}

static int usage(void)
{
	fprintf(stderr, "usage: connect [--tty] [--no-stdin] [--timeout SECONDS] [--ports N] "
			"SOCKET [COMMAND [ARGUMENT...]]\n");
	return 2;
}

static int parse(int argc, char **argv, struct options *o)
{
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--tty"))
			o->tty = 1;
		else if (!strcmp(argv[i], "--no-stdin"))
			o->no_stdin = 1;
		else if (!strcmp(argv[i], "--listen"))
			o->listen = 1;
		else if (!strcmp(argv[i], "--timeout") && i + 1 < argc)
			o->timeout_ms = atoi(argv[++i]) * 1000;
		else if (!strcmp(argv[i], "--ports") && i + 1 < argc)
			o->ports = atoi(argv[++i]);
		else
			return -EINVAL;
	}
	if (i == argc)
		return -EINVAL;
	o->socket = argv[i++];
	o->command = i < argc ? argv + i : NULL;
	return o->listen && o->command ? -EINVAL : 0;
}

static int line_open(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

/* The lock file is empty while nobody uses the port; its time tells when a use began or died. */
static int lock_take(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) || fstat(fd, &st))
		goto busy;
	if (st.st_size && time(NULL) < st.st_mtime + REST_SECONDS)
		goto busy;
	if (ftruncate(fd, 0) || write(fd, "used\n", 5) != 5)
		goto busy;
	return fd;
busy:
	close(fd);
	return -EBUSY;
}

/* Takes the first free port: its line is returned, its lock in *ret_lock. */
static int port_open(const struct options *o, int *ret_lock)
{
	char path[256];

	if (o->listen) {
		int fifo = open(o->socket, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		return fifo < 0 ? -errno : fifo;
	}
	if (!o->ports)
		return line_open(o->socket);
	for (int i = 1; i <= o->ports; i++) {
		int line, lock;

		snprintf(path, sizeof(path), "%s%d.lock", o->socket, i);
		lock = lock_take(path);
		if (lock == -EBUSY)
			continue;
		if (lock < 0)
			return lock;
		snprintf(path, sizeof(path), "%s%d", o->socket, i);
		line = line_open(path);
		if (line < 0)
			close(lock);
		else
			*ret_lock = lock;
		return line;
	}
	return -EBUSY;
}

static int terminal_size(int resized, unsigned short *ret_rows, unsigned short *ret_columns)
{
	struct signalfd_siginfo seen;
	struct winsize size;

	/* Several changes at once are one: the size is what it is now. */
	while (resized >= 0 && read(resized, &seen, sizeof(seen)) == (ssize_t)sizeof(seen))
		;
	if (ioctl(0, TIOCGWINSZ, &size))
		return -errno;
	*ret_rows = size.ws_row;
	*ret_columns = size.ws_col;
	return 0;
}

static void terminal_raw(struct client_config *config)
{
	struct termios raw;
	sigset_t changes;

	/* Watched before it is looked at for the first time, so that no change is missed. */
	sigemptyset(&changes);
	sigaddset(&changes, SIGWINCH);
	sigprocmask(SIG_BLOCK, &changes, NULL);
	config->resized = signalfd(-1, &changes, SFD_NONBLOCK | SFD_CLOEXEC);
	if (config->resized >= 0)
		config->size = terminal_size;
	config->terminal = 1;
	(void)terminal_size(-1, &config->rows, &config->columns);
	if (tcgetattr(0, &terminal_before))
		return;
	raw = terminal_before;
	cfmakeraw(&raw);
	terminal_is_raw = tcsetattr(0, TCSANOW, &raw) == 0;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
}

int main(int argc, char **argv)
{
	struct options o = { .timeout_ms = -1 };
	struct client_config config = { .in = 0, .out = 1, .err = 2 };
	int lock = -1;
	int ret;

	if (parse(argc, argv, &o))
		return usage();
	config.line = port_open(&o, &lock);
	if (config.line < 0) {
		fprintf(stderr, "connect: %s: %s\n", o.socket,
			config.line == -EBUSY ? "every port is in use" : strerror(-config.line));
		return STATUS_FAILED;
	}
	config.argv = o.command;
	config.greeting_timeout_ms = o.timeout_ms;
	config.listen_only = o.listen;
	if (o.no_stdin)
		config.in = -1;
	if (o.tty)
		terminal_raw(&config);
	signal(SIGPIPE, SIG_IGN);
	ret = client_run(&config);
	terminal_restore();
	if (ret < 0 && o.listen)
		return STATUS_FAILED;
	if (ret < 0) {
		fprintf(stderr, "connect: %s: %s\n", o.socket,
			ret == -ETIMEDOUT    ? "no answer in time"
			: ret == -ECONNRESET ? "the other end went away"
					     : strerror(-ret));
		return STATUS_FAILED;
	}
	if (lock >= 0)
		(void)!ftruncate(lock, 0);
	return ret;
}
