/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk (disk.h) that is a file or a block device of this host.
 */
#ifndef BACKEND_FILE_H
#define BACKEND_FILE_H

#include "backend/disk.h"
#include "backend/user.h"

enum disk_cache {
	DISK_CACHE_NONE, /* past the host's page cache where the file system lets it be (O_DIRECT) */
	DISK_CACHE_WRITEBACK,	 /* through it; safe after a FLUSH, as with NONE */
	DISK_CACHE_WRITETHROUGH, /* through it, and safe when a write is done */
};

/* How requests reach the kernel. */
enum disk_way {
	DISK_WAY_ANY, /* io_uring if this host permits it, else threads */
	DISK_WAY_URING,
	DISK_WAY_THREADS,
};

struct disk_file_options {
	const char *path;
	const char *serial; /* or NULL: none */
	bool read_only;
	uint32_t block_bytes; /* 512, 1024, 2048 or 4096; 0: the device's own, of a file 512 */
	enum disk_cache cache;
	enum disk_way way;
	struct backend_user user;
};

/* What an open one keeps resident at most: its buffers, and what is known of its requests. */
size_t disk_file_kept_bytes(void);

/*
 * Opens and locks it: nobody else who asks for the lock (pods, QEMU) writes to it meanwhile. 0, or
 * -errno with one line in `why` that names file and remedy.
 */
int disk_file_open(const struct disk_file_options *options, struct disk **ret_disk, char *why,
		   size_t why_size);

/* Whether its requests go by io_uring. */
bool disk_file_uses_uring(const struct disk *disk);

#endif
