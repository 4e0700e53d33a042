/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and block devices as disks (file.h).
 *
 * A request becomes *steps*, one at a time, each a system call that somebody else waits for
 * (file_way.h): most have one, but a call may do less than it was asked for, and zeros that the file
 * system cannot make are written in pieces.
 *
 * Without the host's cache (O_DIRECT) memory has to be aligned, and offset and length to the host's
 * blocks. A guest's memory mostly is; what is not goes through a *bounce* buffer, piece by piece, and
 * of those there are few: who finds none waits for one. Offsets are multiples of what the guest was
 * told is a block; where the host's blocks are larger than that, the file is used through the cache:
 * writing a part of a block past it, while other parts are written, would lose some.
 *
 * A guest's memory lies in the host's page by page, so a large request past the cache is hundreds of
 * pieces to the device, and a virtual one takes longer for each than a copy does: such a request goes
 * through a *wide* bounce, a huge page. Where none is free, it goes as it is.
 *
 * Any failure is -EIO for the guest, and one line for the user that says which it was.
 *
 * Tested by tests/backend/test_file.c.
 */
#include "backend/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backend/file_way.h"

#define BOUNCES	      16u
#define BOUNCE_BYTES  (256u << 10)
#define WIDES	      4u
#define WIDE_BYTES    (2u << 20)   /* a huge page; Linux has requests of up to 1.25 MiB */
#define SCATTERED_MIN (128u << 10) /* bytes; what is less goes as it is */
#define PIECE_MAX     (64u << 10)  /* on average; larger pieces go as they are */
#define ZERO_BYTES    (64u << 10) /* of the buffer of zeros, of which a step writes up to so many: */
#define ZERO_PIECES   16u
#define SECTOR	      512u
#define BLOCK_MAX     4096u
#define LOCK_TRIES    50
#define LOCK_APART_MS 40

struct slot {
	struct file_step step; /* the first, so that a step is its slot */
	struct slot *next;     /* free, or waiting for a bounce */
	struct disk_request *request;
	uint64_t progress; /* bytes of the request that are done */
	uint8_t *bounce;
	bool wide;			/* the bounce is */
	bool by_writing;		/* ZERO: the file system cannot */
	struct iovec iov[DISK_IOV_MAX]; /* from step.iov on, what is left of the request's */
};

struct file_disk {
	struct disk disk;
	struct backend_user user;
	int fd;
	struct file_way *way;
	bool uring;
	bool no_zero, no_hole; /* learnt: the file system has no such thing */
	struct slot *free;
	struct slot *waiting, **waiting_end; /* for a bounce */
	struct disk_request *done, **done_end;
	uint32_t bounce_count; /* of those that are free */
	uint8_t *bounce[BOUNCES];
	uint32_t wide_count;
	uint8_t *wide[WIDES];
	uint8_t *memory, *wide_memory, *zeros;
	struct slot slot[DISK_REQUESTS_MAX];
};

static struct file_disk *file_of(struct disk *disk)
{
	return (struct file_disk *)disk;
}

static const char *op_name(enum disk_op op)
{
	static const char *const names[] = { [DISK_READ] = "reading",
					     [DISK_WRITE] = "writing",
					     [DISK_FLUSH] = "flushing",
					     [DISK_DISCARD] = "discarding",
					     [DISK_ZERO] = "zeroing" };
	return names[op];
}

static bool moves_data(enum disk_op op)
{
	return op == DISK_READ || op == DISK_WRITE;
}

/* Can the kernel take these pieces as they are? */
static bool is_aligned(const struct file_disk *f, const struct disk_request *request)
{
	uintptr_t bits = 0;
	for (uint32_t i = 0; i < request->iov_count; i++)
		bits |= (uintptr_t)request->iov[i].iov_base | request->iov[i].iov_len;
	return (bits & (f->disk.info.alignment - 1)) == 0;
}

static bool is_scattered(const struct file_disk *f, const struct disk_request *request)
{
	return moves_data(request->op) && f->disk.info.direct && request->length >= SCATTERED_MIN &&
	       request->length <= (uint64_t)request->iov_count * PIECE_MAX;
}

/* Between the bounce and the request's memory, `count` bytes from request offset `at` on. */
static void copy(const struct slot *slot, uint64_t at, size_t count, bool to_bounce)
{
	const struct disk_request *request = slot->request;
	uint8_t *bounce = slot->bounce;
	for (uint32_t i = 0; i < request->iov_count && count; i++) {
		const struct iovec *piece = &request->iov[i];
		if (at >= piece->iov_len) {
			at -= piece->iov_len;
			continue;
		}
		size_t part = piece->iov_len - at < count ? piece->iov_len - at : count;
		uint8_t *memory = (uint8_t *)piece->iov_base + at;
		memcpy(to_bounce ? bounce : memory, to_bounce ? memory : bounce, part);
		bounce += part;
		count -= part;
		at = 0;
	}
}

static void step_by_bounce(struct slot *slot)
{
	struct file_step *step = &slot->step;
	uint64_t room = slot->wide ? WIDE_BYTES : BOUNCE_BYTES;
	if (step->length > room)
		step->length = room;
	slot->iov[0] = (struct iovec){ slot->bounce, step->length };
	step->iov = slot->iov;
	step->iov_count = 1;
	if (step->call == FILE_WRITE)
		copy(slot, slot->progress, step->length, true);
}

static void step_of_zeros(const struct file_disk *f, struct slot *slot)
{
	struct file_step *step = &slot->step;
	uint64_t left = step->length;
	step->call = FILE_WRITE;
	step->iov = slot->iov;
	for (step->iov_count = 0; step->iov_count < ZERO_PIECES && left; step->iov_count++) {
		size_t part = left < ZERO_BYTES ? left : ZERO_BYTES;
		slot->iov[step->iov_count] = (struct iovec){ f->zeros, part };
		left -= part;
	}
	step->length -= left;
}

static void start_step(struct file_disk *f, struct slot *slot)
{
	const struct disk_request *request = slot->request;
	struct file_step *step = &slot->step;
	step->offset = request->offset + slot->progress;
	step->length = request->length - slot->progress;
	switch (request->op) {
	case DISK_READ:
	case DISK_WRITE:
		step->call = request->op == DISK_READ ? FILE_READ : FILE_WRITE;
		if (slot->bounce)
			step_by_bounce(slot);
		break;
	case DISK_FLUSH:
		step->call = FILE_SYNC;
		break;
	case DISK_DISCARD:
		step->call = FILE_ALLOCATE;
		step->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		break;
	case DISK_ZERO:
		step->call = FILE_ALLOCATE;
		step->mode = FALLOC_FL_KEEP_SIZE |
			     (request->unmap && !f->no_hole ? FALLOC_FL_PUNCH_HOLE
							    : FALLOC_FL_ZERO_RANGE);
		if (slot->by_writing || (f->no_zero && (!request->unmap || f->no_hole)))
			step_of_zeros(f, slot);
		break;
	}
	f->way->ops->start(f->way, step);
}

/* Of the pieces in slot->iov, `count` bytes are done. */
static void advance(struct file_step *step, size_t count)
{
	while (count && count >= step->iov->iov_len) {
		count -= step->iov->iov_len;
		step->iov++;
		step->iov_count--;
	}
	if (count) {
		step->iov->iov_base = (uint8_t *)step->iov->iov_base + count;
		step->iov->iov_len -= count;
	}
}

static void begin_waiting(struct file_disk *f)
{
	while (f->waiting && f->bounce_count) {
		struct slot *slot = f->waiting;
		f->waiting = slot->next;
		if (!f->waiting)
			f->waiting_end = &f->waiting;
		slot->bounce = f->bounce[--f->bounce_count];
		start_step(f, slot);
	}
}

static void finish(struct file_disk *f, struct slot *slot, int result)
{
	struct disk_request *request = slot->request;
	if (slot->wide)
		f->wide[f->wide_count++] = slot->bounce;
	else if (slot->bounce)
		f->bounce[f->bounce_count++] = slot->bounce;
	slot->bounce = NULL;
	slot->wide = false;
	slot->request = NULL;
	slot->next = f->free;
	f->free = slot;
	request->result = result;
	request->next = NULL;
	*f->done_end = request;
	f->done_end = &request->next;
	begin_waiting(f);
}

static void fail(struct file_disk *f, struct slot *slot, int error)
{
	const struct disk_request *request = slot->request;
	const char *remedy = error == -ENOSPC || error == -EDQUOT ? ": make room on the host" : "";
	if (request->op == DISK_FLUSH)
		backend_say(&f->user, "flushing failed: %s; the guest gets an I/O error%s",
			    strerror(-error), remedy);
	else if (!error)
		backend_say(&f->user,
			    "%s %llu bytes at %llu failed: the file ends before: it has become "
			    "smaller; the guest gets an I/O error",
			    op_name(request->op), (unsigned long long)request->length,
			    (unsigned long long)request->offset);
	else
		backend_say(&f->user,
			    "%s %llu bytes at %llu failed: %s; the guest gets an I/O error%s",
			    op_name(request->op), (unsigned long long)request->length,
			    (unsigned long long)request->offset, strerror(-error), remedy);
	finish(f, slot, -EIO);
}

/* The file system, or the device, has no such call. */
static bool is_missing(int error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENOTTY || error == -EINVAL;
}

static void allocate_ended(struct file_disk *f, struct slot *slot)
{
	int result = slot->step.result;
	bool hole = slot->step.mode & FALLOC_FL_PUNCH_HOLE;
	if (result == -EINTR || result == -EAGAIN) {
		start_step(f, slot);
	} else if (result >= 0) {
		finish(f, slot, 0);
	} else if (!is_missing(result)) {
		fail(f, slot, result);
	} else if (slot->request->op == DISK_DISCARD) {
		finish(f, slot, 0); /* a hint; the data stays */
	} else {
		if (hole)
			f->no_hole = true;
		else
			f->no_zero = true;
		slot->by_writing = !hole || f->no_zero;
		start_step(f, slot);
	}
}

static void data_ended(struct file_disk *f, struct slot *slot)
{
	struct file_step *step = &slot->step;
	if (step->result == -EINTR || step->result == -EAGAIN) {
		start_step(f, slot);
		return;
	}
	if (step->result <= 0) {
		fail(f, slot, step->result);
		return;
	}
	size_t count = (size_t)step->result;
	if (slot->bounce && step->call == FILE_READ)
		copy(slot, slot->progress, count, false);
	else if (!slot->bounce && !slot->by_writing)
		advance(step, count);
	slot->progress += count;
	if (slot->progress < slot->request->length)
		start_step(f, slot);
	else
		finish(f, slot, 0);
}

static void file_work(struct disk *disk)
{
	struct file_disk *f = file_of(disk);
	struct file_step *step;
	while ((step = f->way->ops->ended(f->way))) {
		struct slot *slot = (struct slot *)step;
		if (step->call == FILE_ALLOCATE)
			allocate_ended(f, slot);
		else if (step->call != FILE_SYNC)
			data_ended(f, slot);
		else if (step->result == -EINTR || step->result == -EAGAIN)
			start_step(f, slot);
		else if (step->result < 0)
			fail(f, slot, step->result);
		else
			finish(f, slot, 0);
	}
}

static int file_submit(struct disk *disk, struct disk_request *request)
{
	struct file_disk *f = file_of(disk);
	int r = disk_request_check(&disk->info, request);
	if (r < 0)
		return r;
	struct slot *slot = f->free;
	if (!slot)
		return -EAGAIN;
	f->free = slot->next;
	slot->request = request;
	slot->progress = 0;
	slot->by_writing = false;
	slot->bounce = NULL;
	if (moves_data(request->op) && !is_aligned(f, request)) {
		slot->next = NULL;
		*f->waiting_end = slot;
		f->waiting_end = &slot->next;
		begin_waiting(f);
		return 0;
	}
	if (is_scattered(f, request) && f->wide_count > 0) {
		slot->bounce = f->wide[--f->wide_count];
		slot->wide = true;
	} else if (moves_data(request->op)) {
		memcpy(slot->iov, request->iov, request->iov_count * sizeof(slot->iov[0]));
		slot->step.iov = slot->iov;
		slot->step.iov_count = request->iov_count;
	}
	start_step(f, slot);
	return 0;
}

static void file_settle(struct disk *disk)
{
	struct file_disk *f = file_of(disk);
	f->way->ops->settle(f->way);
}

static struct disk_request *file_done(struct disk *disk)
{
	struct file_disk *f = file_of(disk);
	struct disk_request *request = f->done;
	if (request) {
		f->done = request->next;
		if (!f->done)
			f->done_end = &f->done;
	}
	return request;
}

static void file_destroy(struct disk *disk)
{
	struct file_disk *f = file_of(disk);
	if (f->way)
		f->way->ops->destroy(f->way);
	if (f->fd >= 0)
		close(f->fd);
	free(f->memory);
	free(f->wide_memory);
	free(f);
}

static const struct disk_ops file_ops = {
	.submit = file_submit,
	.settle = file_settle,
	.work = file_work,
	.done = file_done,
	.destroy = file_destroy,
};

bool disk_file_uses_uring(const struct disk *disk)
{
	return ((const struct file_disk *)disk)->uring;
}

/* Opening: what is found out on the way, and where to say what is wrong. */
struct opening {
	const struct disk_file_options *options;
	struct file_disk *f;
	struct stat st;
	uint32_t host_block; /* offsets and lengths past the cache are multiples of it */
	char *why;
	size_t why_size;
};

__attribute__((format(printf, 3, 4))) static int refuse(const struct opening *o, int error,
							const char *format, ...)
{
	int used =
		snprintf(o->why, o->why_size, "%s: %s ", o->options->user.name, o->options->path);
	if (used > 0 && (size_t)used < o->why_size) {
		va_list args;
		va_start(args, format);
		vsnprintf(o->why + used, o->why_size - (size_t)used, format, args);
		va_end(args);
	}
	return error;
}

static int open_failed(const struct opening *o, int error)
{
	switch (error) {
	case -ENOENT:
		return refuse(o, error, "is not there; 'truncate -s 10G FILE' makes an empty disk");
	case -EISDIR:
		return refuse(o, error, "is a directory; name a disk image or a block device");
	case -EACCES:
	case -EPERM:
	case -EROFS:
		return refuse(o, error, "cannot be opened for %s: %s%s",
			      o->options->read_only ? "reading" : "writing", strerror(-error),
			      o->options->read_only ? "; let this user read it"
						    : "; or take it read-only");
	case -EBUSY:
		return refuse(o, error,
			      "is in use by this host, mounted perhaps: unmount it, or take it "
			      "read-only");
	default:
		return refuse(o, error, "cannot be opened: %s", strerror(-error));
	}
}

static int open_file(struct opening *o)
{
	const struct disk_file_options *options = o->options;
	int flags = O_CLOEXEC | O_NONBLOCK | (options->read_only ? O_RDONLY : O_RDWR);
	if (stat(options->path, &o->st) < 0)
		return open_failed(o, -errno);
	if (S_ISDIR(o->st.st_mode))
		return open_failed(o, -EISDIR);
	if (!S_ISREG(o->st.st_mode) && !S_ISBLK(o->st.st_mode))
		return refuse(o, -EINVAL, "is neither a file nor a block device");
	if (options->cache == DISK_CACHE_WRITETHROUGH)
		flags |= O_DSYNC;
	/* Of a device: nobody has it mounted (open(2)). */
	if (S_ISBLK(o->st.st_mode) && !options->read_only)
		flags |= O_EXCL;
	int fd = -1;
	if (options->cache == DISK_CACHE_NONE)
		fd = open(options->path, flags | O_DIRECT);
	o->f->disk.info.direct = fd >= 0;
	if (fd < 0)
		fd = open(options->path, flags);
	if (fd < 0)
		return open_failed(o, -errno);
	o->f->fd = fd;
	/* That was for what is no file after all; requests shall be done, not tried. */
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 || fstat(fd, &o->st) < 0)
		return open_failed(o, -errno);
	return 0;
}

/*
 * A whole lock of the open file, which ends with it: the pod's other disks and other processes count
 * alike. QEMU's locks are of the same kind. The kernel lets go of the lock of a process that was
 * killed, or that began anew as its guest rebooted, when its last request is done: hence two seconds.
 */
static int lock_file(struct opening *o)
{
	struct flock lock = { .l_type = o->options->read_only ? F_RDLCK : F_WRLCK,
			      .l_whence = SEEK_SET };
	struct timespec apart = { .tv_nsec = LOCK_APART_MS * 1000000 };
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (fcntl(o->f->fd, F_OFD_SETLK, &lock) == 0)
			return 0;
		if (errno != EAGAIN && errno != EACCES)
			break;
		nanosleep(&apart, NULL);
		errno = EAGAIN;
	}
	if (errno == EAGAIN || errno == EACCES)
		return refuse(o, -EBUSY,
			      "is locked: another disk, pod or virtual machine uses it; end that, "
			      "or take another file");
	backend_say(&o->f->user,
		    "%s cannot be locked (%s): see to it yourself that nobody else writes to it",
		    o->options->path, strerror(errno));
	return 0;
}

static int find_size(struct opening *o)
{
	struct disk_info *info = &o->f->disk.info;
	unsigned int own_block = 0;
	info->bytes = (uint64_t)o->st.st_size;
	if (S_ISBLK(o->st.st_mode)) {
		unsigned long long bytes;
		int block;
		if (ioctl(o->f->fd, BLKGETSIZE64, &bytes) < 0 ||
		    ioctl(o->f->fd, BLKSSZGET, &block) < 0)
			return refuse(o, -errno, "does not say how large it is: %s",
				      strerror(errno));
		info->bytes = bytes;
		own_block = (unsigned int)block;
	}
	info->block_bytes = o->options->block_bytes ? o->options->block_bytes
			    : own_block		    ? own_block
						    : SECTOR;
	if (own_block > info->block_bytes)
		return refuse(o, -EINVAL, "has blocks of %u bytes; block_size must be that",
			      own_block);
	if (info->block_bytes > BLOCK_MAX)
		return refuse(o, -EINVAL, "has blocks of %u bytes, which is too large",
			      info->block_bytes);
	if (!info->bytes)
		return refuse(o, -EINVAL, "is empty; 'truncate -s 10G %s' makes a disk of it",
			      o->options->path);
	if (info->bytes % info->block_bytes)
		return refuse(o, -EINVAL,
			      "has %llu bytes, no multiple of %u: is it a whole, raw image? If so, "
			      "'truncate -s %%%u %s' rounds it up",
			      (unsigned long long)info->bytes, info->block_bytes, info->block_bytes,
			      o->options->path);
	return 0;
}

/* Linux 6.1 says; before, what a read of a sector says is taken, and the usual for memory. */
static int find_alignment(struct opening *o)
{
	struct disk_info *info = &o->f->disk.info;
	struct statx stx = { 0 };
	info->alignment = 1;
	if (!info->direct)
		return 0;
	uint32_t memory = SECTOR;
	o->host_block = BLOCK_MAX;
	if (statx(o->f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN)) {
		memory = stx.stx_dio_mem_align;
		o->host_block = stx.stx_dio_offset_align;
	} else if (pread(o->f->fd, o->f->zeros, SECTOR, 0) == SECTOR) {
		o->host_block = SECTOR;
	}
	memset(o->f->zeros, 0, SECTOR);
	/* A piece's length is a multiple of the host's block, too. */
	info->alignment = memory > o->host_block ? memory : o->host_block;
	if (o->host_block && info->alignment <= BLOCK_MAX && o->host_block <= info->block_bytes)
		return 0;
	info->alignment = 1;
	info->direct = false;
	int flags = fcntl(o->f->fd, F_GETFL);
	if (flags < 0 || fcntl(o->f->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return refuse(o, -errno, "cannot be used through the host's cache: %s",
			      strerror(errno));
	return 0;
}

/* Images that are no plain disks: the guest would find nothing on them. */
static void doubt_format(const struct opening *o)
{
	static const struct {
		const char *name, *magic;
		size_t size;
	} formats[] = {
		{ "qcow2", "QFI\xfb", 4 },
		{ "vmdk", "KDMV", 4 },
		{ "vhdx", "vhdxfile", 8 },
		{ "gzip", "\x1f\x8b", 2 },
		{ "xz",
		  "\xfd"
		  "7zXZ",
		  5 },
		{ "zstd", "\x28\xb5\x2f\xfd", 4 },
	};
	const uint8_t *begin = o->f->zeros;
	if (o->f->disk.info.bytes >= BLOCK_MAX && pread(o->f->fd, o->f->zeros, BLOCK_MAX, 0) > 0)
		for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
			if (memcmp(begin, formats[i].magic, formats[i].size) == 0)
				backend_say(&o->f->user,
					    "%s looks like a %s image, and is taken as it is: "
					    "'qemu-img convert -O raw' makes a raw disk of one, "
					    "qemu-nbd serves it (nbd = ...)",
					    o->options->path, formats[i].name);
	memset(o->f->zeros, 0, BLOCK_MAX);
}

static int find_way(const struct opening *o)
{
	struct file_disk *f = o->f;
	int r = -ENOSYS;
	if (o->options->way != DISK_WAY_THREADS)
		r = file_uring_create(f->fd, &f->way);
	f->uring = r == 0;
	if (r < 0 && o->options->way != DISK_WAY_URING) {
		if (o->options->way == DISK_WAY_ANY)
			backend_say(&f->user,
				    "this host does not permit io_uring (%s): threads wait for "
				    "the disk instead",
				    strerror(-r));
		r = file_threads_create(f->fd, &f->way);
	}
	return r < 0 ? refuse(o, r, "cannot be served: no io_uring and no threads here: %s",
			      strerror(-r))
		     : 0;
}

size_t disk_file_kept_bytes(void)
{
	return sizeof(struct file_disk) + BOUNCES * BOUNCE_BYTES + ZERO_BYTES +
	       (size_t)WIDES * WIDE_BYTES;
}

/* Aligned for every disk: bounces, then zeros. */
static int make_buffers(struct file_disk *f)
{
	if (posix_memalign((void **)&f->memory, BLOCK_MAX, BOUNCES * BOUNCE_BYTES + ZERO_BYTES))
		return -ENOMEM;
	for (uint32_t i = 0; i < BOUNCES; i++)
		f->bounce[i] = f->memory + i * BOUNCE_BYTES;
	f->bounce_count = BOUNCES;
	/* What is not used is not there. */
	if (posix_memalign((void **)&f->wide_memory, WIDE_BYTES, WIDES * WIDE_BYTES))
		return -ENOMEM;
	(void)madvise(f->wide_memory, WIDES * WIDE_BYTES, MADV_HUGEPAGE);
	for (uint32_t i = 0; i < WIDES; i++)
		f->wide[i] = f->wide_memory + i * WIDE_BYTES;
	f->wide_count = WIDES;
	f->zeros = f->memory + BOUNCES * BOUNCE_BYTES;
	memset(f->zeros, 0, ZERO_BYTES);
	f->waiting_end = &f->waiting;
	f->done_end = &f->done;
	for (uint32_t i = DISK_REQUESTS_MAX; i-- > 0;) {
		f->slot[i].next = f->free;
		f->free = &f->slot[i];
	}
	return 0;
}

int disk_file_open(const struct disk_file_options *options, struct disk **ret_disk, char *why,
		   size_t why_size)
{
	struct file_disk *f = calloc(1, sizeof(*f));
	struct opening o = { .options = options, .f = f, .why = why, .why_size = why_size };
	if (!f)
		return refuse(&o, -ENOMEM, "cannot be opened: no memory");
	f->fd = -1;
	f->user = options->user;
	f->disk.ops = &file_ops;
	struct disk_info *info = &f->disk.info;
	info->read_only = options->read_only;
	info->discard = info->zero = !options->read_only;
	info->write_back = options->cache != DISK_CACHE_WRITETHROUGH;
	snprintf(info->serial, sizeof(info->serial), "%s", options->serial ? options->serial : "");
	int r = make_buffers(f);
	if (r < 0)
		refuse(&o, r, "cannot be opened: no memory");
	if (!r)
		r = open_file(&o);
	if (!r)
		r = lock_file(&o);
	if (!r)
		r = find_size(&o);
	if (!r)
		r = find_alignment(&o);
	if (!r) {
		doubt_format(&o);
		r = find_way(&o);
	}
	if (r < 0) {
		file_destroy(&f->disk);
		return r;
	}
	f->disk.fd = f->way->fd;
	*ret_disk = &f->disk;
	return 0;
}
