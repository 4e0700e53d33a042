/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of this host, asynchronously: a file, a block device, or what an NBD server serves.
 *
 *	disk_submit() ... disk_submit()     requests, which the backend keeps until they are done
 *	disk_settle()                       they leave; before the thread waits
 *	(disk_fd() is readable)
 *	disk_work()                         looks what has happened
 *	disk_done() ... NULL                finished requests, in any order
 *
 * One thread owns a disk and makes all calls; none of them waits for the disk, a network or memory.
 * Requests of one disk are not ordered among each other: who needs order waits for the first. Offset
 * and length are multiples of disk_info.block_bytes, or the request is refused; memory may lie
 * anywhere. A piece's memory must be there, and stay, until the request is done.
 *
 * A disk knows nothing of virtio, of nodes or of guest memory.
 */
#ifndef BACKEND_DISK_H
#define BACKEND_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define DISK_SERIAL_MAX	  20u	      /* bytes, as virtio's */
#define DISK_REQUESTS_MAX 128u	      /* under way on one disk; more: -EAGAIN */
#define DISK_IOV_MAX	  256u	      /* pieces of one request; more: -EINVAL */
#define DISK_BYTES_MAX	  (16u << 20) /* of one request that moves data; more: -EINVAL */

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_ZERO };

struct disk_request {
	enum disk_op op;
	uint64_t offset, length; /* bytes; FLUSH: 0. All of it lies on the disk, or -EINVAL */
	struct iovec *iov;	 /* READ, WRITE: `length` bytes in all; stays until it is done */
	uint32_t iov_count;
	bool unmap;  /* ZERO: the room may be given back */
	int result;  /* set when done: 0, or -errno: -EIO whatever the host's reason was, which the
			disk has told its user in a line */
	void *owner; /* the caller's */
	struct disk_request *next; /* the backend's, until it is done */
};

struct disk_info {
	uint64_t bytes;
	uint32_t block_bytes; /* logical block: what the guest shall address by, 512 or 4096 */
	uint32_t alignment;   /* of memory that needs no copy; 1: any */
	bool read_only, discard, zero;
	bool write_back; /* what is written is safe only after a FLUSH */
	bool direct;	 /* past the host's cache */
	char serial[DISK_SERIAL_MAX + 1];
};

struct disk;

struct disk_ops {
	int (*submit)(struct disk *disk, struct disk_request *request);
	void (*settle)(struct disk *disk);
	void (*work)(struct disk *disk);
	struct disk_request *(*done)(struct disk *disk);
	void (*destroy)(struct disk *disk);
};

/* The beginning of every kind of disk. `info` and `fd` never change. */
struct disk {
	const struct disk_ops *ops;
	struct disk_info info;
	int fd;
};

/* For backends: 0, or -EINVAL, -EROFS, -EOPNOTSUPP: the disk has no such request. */
int disk_request_check(const struct disk_info *info, const struct disk_request *request);

/*
 * 0: taken. -EAGAIN: as many are under way as there may be; ask again when one is done. -EINVAL,
 * -EROFS, -EOPNOTSUPP: this request cannot be, and is not taken.
 */
static inline int disk_submit(struct disk *disk, struct disk_request *request)
{
	return disk->ops->submit(disk, request);
}

static inline void disk_settle(struct disk *disk)
{
	disk->ops->settle(disk);
}

static inline void disk_work(struct disk *disk)
{
	disk->ops->work(disk);
}

static inline struct disk_request *disk_done(struct disk *disk)
{
	return disk->ops->done(disk);
}

/* Readable (level) when there may be something for disk_work(). */
static inline int disk_fd(const struct disk *disk)
{
	return disk->fd;
}

/* Waits for what is under way where it must; the requests are not given back. NULL is fine. */
static inline void disk_destroy(struct disk *disk)
{
	if (disk)
		disk->ops->destroy(disk);
}

#endif
