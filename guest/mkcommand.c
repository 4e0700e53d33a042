/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkcommand: appends a command to an initramfs, as `eagre run -- COMMAND` does, for scripts.
 *
 *      mkcommand INITRAMFS COMMAND [ARGUMENT...] > INITRD
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/archive.h"

static int copy_out(const char *path, size_t *ret_size)
{
	static char data[65536];
	size_t total = 0;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while ((n = read(fd, data, sizeof(data))) > 0) {
		if (fwrite(data, 1, (size_t)n, stdout) != (size_t)n) {
			n = -1;
			break;
		}
		total += (size_t)n;
	}
	close(fd);
	*ret_size = total;
	return n < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	static const char zeros[GUEST_ARCHIVE_PADDING_MAX];
	static char archive[GUEST_ARCHIVE_SIZE_MAX];
	size_t size = 0;
	ssize_t n;
	int ret;

	if (argc < 3) {
		fprintf(stderr, "usage: mkcommand INITRAMFS COMMAND [ARGUMENT...] > INITRD\n");
		return 2;
	}
	n = guest_command_archive((size_t)argc - 2, argv + 2, archive, sizeof(archive));
	if (n < 0) {
		fprintf(stderr, "mkcommand: the command: %s\n", strerror((int)-n));
		return 1;
	}
	ret = copy_out(argv[1], &size);
	if (ret) {
		fprintf(stderr, "mkcommand: %s: %s\n", argv[1], strerror(-ret));
		return 1;
	}
	fwrite(zeros, 1, guest_archive_padding(size), stdout);
	fwrite(archive, 1, (size_t)n, stdout);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "mkcommand: writing the initrd: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}
