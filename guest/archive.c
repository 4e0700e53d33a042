/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive: writes the "newc" cpio format: a header of 110 characters (magic and thirteen numbers of
 * eight hexadecimal digits), the name, the data, each padded to 4 bytes (cpio(5); Linux,
 * Documentation/driver-api/early-userspace/buffer-format.rst).
 */
#include "guest/archive.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HEADER_SIZE 110
#define ALIGNMENT   4
#define BLOCK_SIZE  512
#define MODE_FOLDER 0040755
#define MODE_FILE   0100644
#define ARCHIVE_END "TRAILER!!!"
#define FOLDER	    "eagre"

struct writer {
	uint8_t *bytes;
	size_t size;
	size_t used;
};

struct entry {
	const char *name;
	unsigned int inode;
	unsigned int mode;
	size_t data_size;
};

static void pad(struct writer *w, size_t alignment)
{
	while (w->used % alignment && w->used < w->size)
		w->bytes[w->used++] = 0;
}

static int write_header(struct writer *w, const struct entry *e)
{
	size_t name_size = strlen(e->name) + 1;
	char header[HEADER_SIZE + 1];

	if (w->size - w->used < HEADER_SIZE + name_size + e->data_size + 2 * ALIGNMENT)
		return -ENOBUFS;
	/* ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor name check */
	snprintf(header, sizeof(header),
		 "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", e->inode, e->mode,
		 0u, 0u, 1u, 0u, (unsigned int)e->data_size, 0u, 0u, 0u, 0u,
		 (unsigned int)name_size, 0u);
	memcpy(w->bytes + w->used, header, HEADER_SIZE);
	w->used += HEADER_SIZE;
	memcpy(w->bytes + w->used, e->name, name_size);
	w->used += name_size;
	pad(w, ALIGNMENT);
	return 0;
}

size_t guest_archive_padding(size_t initramfs_size)
{
	return ALIGNMENT + (ALIGNMENT - initramfs_size % ALIGNMENT) % ALIGNMENT;
}

ssize_t guest_command_archive(size_t argc, char *const *argv, void *out, size_t out_size)
{
	struct writer w = { .bytes = out, .size = out_size };
	const struct entry folder = { .name = FOLDER, .inode = 1, .mode = MODE_FOLDER };
	const struct entry end = { .name = ARCHIVE_END };
	struct entry file = { .name = GUEST_COMMAND_PATH, .inode = 2, .mode = MODE_FILE };

	if (argc == 0)
		return -EINVAL;
	if (argc > GUEST_COMMAND_ARGS_MAX)
		return -E2BIG;
	for (size_t i = 0; i < argc; i++)
		file.data_size += strlen(argv[i]) + 1;
	if (file.data_size > GUEST_COMMAND_BYTES_MAX)
		return -E2BIG;
	if (write_header(&w, &folder) || write_header(&w, &file))
		return -ENOBUFS;
	for (size_t i = 0; i < argc; i++) {
		size_t size = strlen(argv[i]) + 1;

		memcpy(w.bytes + w.used, argv[i], size);
		w.used += size;
	}
	pad(&w, ALIGNMENT);
	if (write_header(&w, &end))
		return -ENOBUFS;
	pad(&w, BLOCK_SIZE);
	return w.used % BLOCK_SIZE ? -ENOBUFS : (ssize_t)w.used;
}
