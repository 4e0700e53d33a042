/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a file's requests (file.c) and the kernel: one *step* of a request at a time, which is one
 * system call. There are two ways: io_uring, and a few threads where the host does not permit that
 * (old kernels, containers' system call filters, kernel.io_uring_disabled).
 */
#ifndef BACKEND_FILE_WAY_H
#define BACKEND_FILE_WAY_H

#include "backend/disk.h"

enum file_call { FILE_READ, FILE_WRITE, FILE_SYNC, FILE_ALLOCATE };

struct file_step {
	enum file_call call;
	int mode;		 /* ALLOCATE: as fallocate(2) */
	uint64_t offset, length; /* READ, WRITE: length is what iov has */
	struct iovec *iov;
	uint32_t iov_count;
	int result; /* bytes, 0, or -errno */
	struct file_step *next;
};

struct file_way;

struct file_way_ops {
	/* Takes up to DISK_REQUESTS_MAX steps; they begin at settle() at the latest. */
	void (*start)(struct file_way *way, struct file_step *step);
	void (*settle)(struct file_way *way);
	/* A step that has ended, or NULL. After the last, `fd` is not readable until there is more. */
	struct file_step *(*ended)(struct file_way *way);
	/* Waits for the steps under way. */
	void (*destroy)(struct file_way *way);
};

struct file_way {
	const struct file_way_ops *ops;
	int fd; /* readable when a step has ended */
};

/* For the file `file_fd`, which stays the caller's. 0 or -errno: not here. */
int file_uring_create(int file_fd, struct file_way **ret_way);
int file_threads_create(int file_fd, struct file_way **ret_way);

#endif
