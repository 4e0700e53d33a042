/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner: runs the one command that came with the initramfs and carries its streams and its status
 * to the host (channel.h): over the virtio port of that name, and where there is none, because the
 * kernel has no driver for it or the host no such port, over the guest's second serial port.
 *
 *      runner [LINE]     LINE: /dev/ttyS1 for example, whatever else there is
 *
 * The command is /eagre/command (archive.h): its arguments, each ended by a zero byte. The runner
 * returns when the host has been sent the exit status down to the last byte; init then powers off.
 *
 * Init confines the runner to the CPUs that are where the devices are. The command is free.
 *
 *      runner --size-of TTY
 *
 * Without a command the channel carries the size of the host's terminal alone: the runner greets,
 * gives TTY the size that each RESIZE says, and leaves its caller waiting for the first of them
 * only, and a second at most: another host than this one's may never answer.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "guest/archive.h"
#include "guest/channel.h"
#include "guest/session.h"

#define FIRST_SIZE_MS 1000
#define PORT_MS	      5000 /* from its device's driver to the port */
#define PORT_LOOK_MS  2
#define PORTS	      "/sys/class/virtio-ports"
#define PORT_DRIVER   "/sys/bus/virtio/drivers/virtio_console"

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

/* Whether the port, named as the kernel does, is the one for a command's streams. */
static int port_is_ours(const char *entry)
{
	static const char want[] = CHANNEL_GUEST_PORT "\n";
	char path[300], name[sizeof(want)];
	int fd, is = 0;

	snprintf(path, sizeof(path), PORTS "/%s/name", entry);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	is = read(fd, name, sizeof(name)) == (ssize_t)strlen(want) &&
	     memcmp(name, want, strlen(want)) == 0;
	close(fd);
	return is;
}

/* The open port; -ENOENT: there is none of that name. */
static int port_find(void)
{
	DIR *ports = opendir(PORTS);
	const struct dirent *entry;
	char path[300];
	int fd = -ENOENT;

	while (ports && fd == -ENOENT && (entry = readdir(ports))) {
		if (!port_is_ours(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	if (ports)
		closedir(ports);
	return fd;
}

/* Whether the driver has a device, which may still have to tell it of its port. */
static int port_expected(void)
{
	DIR *driver = opendir(PORT_DRIVER);
	const struct dirent *entry;
	int expected = 0;

	while (driver && !expected && (entry = readdir(driver)))
		expected = strncmp(entry->d_name, "virtio", strlen("virtio")) == 0;
	if (driver)
		closedir(driver);
	return expected;
}

static int port_open(void)
{
	int fd = port_find();

	for (int ms = 0; fd == -ENOENT && ms < PORT_MS && port_expected(); ms += PORT_LOOK_MS) {
		usleep(PORT_LOOK_MS * 1000);
		fd = port_find();
	}
	return fd;
}

/* Bytes of the line that are there now; RESIZE frames in them set the size. Negative errno. */
static int sizes_take(int line, int tty, struct channel_decoder *decoder, int *sized)
{
	uint8_t data[CHANNEL_FRAME_MAX];
	struct channel_frame frame;
	ssize_t size = read(line, data, sizeof(data)), n;
	int whole;

	if (size < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (size == 0)
		return -ECONNRESET;
	for (ssize_t at = 0; at < size; at += n) {
		n = channel_decode(decoder, data + at, (size_t)(size - at), &frame, &whole);
		if (n < 0)
			return (int)n;
		if (whole && frame.kind == CHANNEL_RESIZE) {
			struct channel_terminal terminal = channel_frame_terminal(&frame);
			struct winsize now = { .ws_row = terminal.rows,
					       .ws_col = terminal.columns };

			if (now.ws_row && now.ws_col)
				ioctl(tty, TIOCSWINSZ, &now);
			*sized = 1;
		}
	}
	return 0;
}

static int follow_size(const char *line_path, const char *tty_path)
{
	struct channel_decoder decoder;
	uint8_t hello[CHANNEL_FRAME_MAX];
	ssize_t size = channel_encode(CHANNEL_HELLO, CHANNEL_GREETING, strlen(CHANNEL_GREETING),
				      hello, sizeof(hello));
	int tty = open(tty_path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	int line = line_open(line_path);
	int sized = 0, error = 0;
	struct pollfd ready = { .fd = line, .events = POLLIN };

	if (tty < 0)
		return fail(tty_path, errno);
	if (line < 0)
		return fail(line_path, -line);
	channel_decoder_init(&decoder, CHANNEL_FROM_CLIENT);
	if (write(line, hello, (size_t)size) != size)
		return fail(line_path, EIO);
	/* An answer comes whole, or is taken up where the first look has left it. */
	while (!sized && !error && poll(&ready, 1, FIRST_SIZE_MS) > 0)
		error = sizes_take(line, tty, &decoder, &sized);
	if (error)
		return fail(line_path, -error);
	if (daemon(1, 1))
		return fail("daemon", errno);
	while (!error && (poll(&ready, 1, -1) >= 0 || errno == EINTR))
		error = sizes_take(line, tty, &decoder, &sized);
	return 1;
}

int main(int argc, char **argv)
{
	static char text[GUEST_COMMAND_BYTES_MAX];
	static char *command[GUEST_COMMAND_ARGS_MAX + 1];
	struct session_config config = { .argv = command, .command_on_all_cpus = 1 };
	const char *line = argc > 1 ? argv[1] : CHANNEL_GUEST_TTY;
	int fd = open("/" GUEST_COMMAND_PATH, O_RDONLY | O_CLOEXEC);
	ssize_t size;
	int ret;

	if (argc == 3 && strcmp(argv[1], "--size-of") == 0)
		return follow_size(CHANNEL_GUEST_TTY, argv[2]);
	if (fd < 0)
		return fail("/" GUEST_COMMAND_PATH, errno);
	size = read(fd, text, sizeof(text));
	close(fd);
	if (size < 0)
		return fail("/" GUEST_COMMAND_PATH, errno);
	if (!split(text, (size_t)size, command, GUEST_COMMAND_ARGS_MAX))
		return fail("/" GUEST_COMMAND_PATH, EINVAL);
	config.line = argc > 1 ? -ENOENT : port_open();
	config.await_bye = config.line >= 0;
	config.window = config.await_bye ? SESSION_WINDOW_VIRTIO : SESSION_WINDOW_SERIAL;
	if (config.line < 0)
		config.line = line_open(line);
	if (config.line < 0)
		return fail(line, -config.line);
	ret = session_serve(&config);
	if (ret)
		return fail(config.await_bye ? CHANNEL_GUEST_PORT : line, -ret);
	if (!config.await_bye)
		tcdrain(config.line);
	return 0;
}
