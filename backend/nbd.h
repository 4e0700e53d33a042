/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk (disk.h) that an NBD server serves: qcow2 and others by qemu-nbd, Ceph, iSCSI and what else
 * nbdkit knows.
 */
#ifndef BACKEND_NBD_H
#define BACKEND_NBD_H

#include "backend/disk.h"
#include "backend/user.h"

struct disk_nbd_options {
	const char *uri;
	const char *serial; /* or NULL: none */
	bool read_only;
	uint32_t block_bytes; /* as of a file (file.h) */
	/* So long requests wait for a server that is gone, or does not answer; then they, and new
	 * ones, get -EIO until it is there again. 0: they do not wait. */
	uint32_t timeout_s;
	uint32_t connect_s; /* at the start; 0: 5 */
	uint32_t
		silent_s; /* so long a server that is there may take; 0: the timeout, 10 at least */
	struct backend_user user;
};

/* What an open one keeps resident at most: what its server was not told to flush. */
size_t disk_nbd_kept_bytes(bool read_only);

/* Connects, which may take connect_s. 0, or -errno with one line in `why`. */
int disk_nbd_open(const struct disk_nbd_options *options, struct disk **ret_disk, char *why,
		  size_t why_size);

#endif
