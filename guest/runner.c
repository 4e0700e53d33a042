/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner: runs the one command that came with the initramfs and carries its streams and its status
 * to the host over the guest's second serial port (channel.h).
 *
 * The command is /eagre/command (archive.h): its arguments, each ended by a zero byte. The runner
 * returns when the host has been sent the exit status down to the last byte; init then powers off.
 *
 * Init confines the runner to the CPUs that are where the serial port is. The command is free.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "guest/archive.h"
#include "guest/channel.h"
#include "guest/session.h"

static int fail(const char *what, int error)
{
	fprintf(stderr, "runner: %s: %s\n", what, strerror(error));
	return 1;
}

/* Splits the file's text in place. Returns the count, or 0 for a malformed file. */
static size_t split(char *text, size_t size, char **argv, size_t max)
{
	size_t count = 0;

	if (size == 0 || text[size - 1] != '\0')
		return 0;
	for (size_t at = 0; at < size; at += strlen(text + at) + 1) {
		if (count == max)
			return 0;
		argv[count++] = text + at;
	}
	argv[count] = NULL;
	return count;
}

static int line_open(const char *path)
{
	struct termios raw;
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (tcgetattr(fd, &raw)) {
		close(fd);
		return -EIO; /* the driver has found no chip behind the port */
	}
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL | CREAD;
	raw.c_cflag &= ~(tcflag_t)CRTSCTS;
	cfsetspeed(&raw, B115200);
	if (tcsetattr(fd, TCSANOW, &raw)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

int main(int argc, char **argv)
{
	static char text[GUEST_COMMAND_BYTES_MAX];
	static char *command[GUEST_COMMAND_ARGS_MAX + 1];
	struct session_config config = { .argv = command,
					 .window = SESSION_WINDOW_SERIAL,
					 .command_on_all_cpus = 1 };
	const char *line = argc > 1 ? argv[1] : CHANNEL_GUEST_TTY;
	int fd = open("/" GUEST_COMMAND_PATH, O_RDONLY | O_CLOEXEC);
	ssize_t size;
	int ret;

	if (fd < 0)
		return fail("/" GUEST_COMMAND_PATH, errno);
	size = read(fd, text, sizeof(text));
	close(fd);
	if (size < 0)
		return fail("/" GUEST_COMMAND_PATH, errno);
	if (!split(text, (size_t)size, command, GUEST_COMMAND_ARGS_MAX))
		return fail("/" GUEST_COMMAND_PATH, EINVAL);
	config.line = line_open(line);
	if (config.line < 0)
		return fail(line, -config.line);
	ret = session_serve(&config);
	if (ret)
		return fail(line, -ret);
	tcdrain(config.line);
	return 0;
}
