/* SPDX-License-Identifier: Apache-2.0 */
/* eagre secret: a new secret for a pod, random, in a file for its owner's eyes only. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cmd/cmd.h"

#define SECRET_BYTES 32u
#define TEXT_BYTES   (4 * ((SECRET_BYTES + 2) / 3)) /* in base64 */

static void usage(FILE *to)
{
	fputs("usage: eagre secret [FILE]\n"
	      "\n"
	      "Makes a new secret for a pod: 32 random bytes, in base64. With FILE, which must not exist yet,\n"
	      "it goes there, and nobody but its owner may read it; else it is printed. All nodes of a pod have\n"
	      "the same: copy the file to all hosts (by ssh), and give secret_file = FILE in [pod] of the\n"
	      "configuration. Who knows the secret can join the pod.\n",
	      to);
}

/* With a line's end. 0 or -errno. */
static int write_new(const char *name, const char *line)
{
	size_t size = strlen(line);
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	ssize_t written = write(fd, line, size);
	int r = written < 0 ? -errno : (size_t)written != size ? -ENOSPC : 0;
	if (!r && fsync(fd) < 0)
		r = -errno;
	close(fd);
	if (r < 0)
		unlink(name);
	return r;
}

int cmd_secret(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint8_t secret[SECRET_BYTES];
	char line[TEXT_BYTES + 2];
	int option, r = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		if (option != 'h')
			return complain_option(argv, option);
		usage(stdout);
		return STATUS_OK;
	}
	if (argc - optind > 1) {
		complain("secret takes one file at most; see eagre secret --help");
		return STATUS_USAGE;
	}
	if (getrandom(secret, sizeof(secret), 0) != sizeof(secret)) {
		complain("no random numbers: %s", strerror(errno));
		return STATUS_FAILED;
	}
	EVP_EncodeBlock((uint8_t *)line, secret, sizeof(secret));
	strcat(line, "\n");
	if (optind < argc)
		r = write_new(argv[optind], line);
	else if (fputs(line, stdout) == EOF || fflush(stdout) == EOF)
		r = -errno;
	if (r == -EEXIST)
		complain("%s: is there already: move it away, or take another name", argv[optind]);
	else if (r < 0)
		complain("%s: %s", optind < argc ? argv[optind] : "standard output", strerror(-r));
	OPENSSL_cleanse(secret, sizeof(secret));
	OPENSSL_cleanse(line, sizeof(line));
	return r < 0 ? STATUS_FAILED : STATUS_OK;
}
