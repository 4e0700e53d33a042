/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file's steps by io_uring (file_way.h): one ring a disk, read through its own file descriptor.
 *
 * The ring has room for all steps that there can be, so neither queue ever overflows.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "backend/file_way.h"

struct uring {
	struct file_way way;
	struct io_uring ring;
	int file_fd;
	uint32_t under_way;
};

static struct uring *uring_of(struct file_way *way)
{
	return (struct uring *)way;
}

static void uring_settle(struct file_way *way)
{
	/* What the kernel has no memory for now (-EAGAIN, -EBUSY) stays in the queue for the next call. */
	while (io_uring_sq_ready(&uring_of(way)->ring) > 0) {
		int r = io_uring_submit(&uring_of(way)->ring);
		if (r <= 0 && r != -EINTR)
			break;
	}
}

static void uring_start(struct file_way *way, struct file_step *step)
{
	struct uring *u = uring_of(way);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	if (!sqe)
		abort(); /* more steps than there can be */
	switch (step->call) {
	case FILE_READ:
		io_uring_prep_readv(sqe, u->file_fd, step->iov, step->iov_count, step->offset);
		break;
	case FILE_WRITE:
		io_uring_prep_writev(sqe, u->file_fd, step->iov, step->iov_count, step->offset);
		break;
	case FILE_SYNC:
		io_uring_prep_fsync(sqe, u->file_fd, IORING_FSYNC_DATASYNC);
		break;
	case FILE_ALLOCATE:
		io_uring_prep_fallocate(sqe, u->file_fd, step->mode, (off_t)step->offset,
					(off_t)step->length);
		break;
	}
	io_uring_sqe_set_data(sqe, step);
	u->under_way++;
}

static struct file_step *uring_ended(struct file_way *way)
{
	struct uring *u = uring_of(way);
	struct io_uring_cqe *cqe;
	if (io_uring_peek_cqe(&u->ring, &cqe) < 0)
		return NULL;
	struct file_step *step = io_uring_cqe_get_data(cqe);
	step->result = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	u->under_way--;
	return step;
}

static void uring_destroy(struct file_way *way)
{
	struct uring *u = uring_of(way);
	struct io_uring_cqe *cqe;
	uring_settle(way);
	while (u->under_way) {
		int r = io_uring_wait_cqe(&u->ring, &cqe);
		if (r == 0)
			uring_ended(way);
		else if (r != -EINTR)
			break;
	}
	io_uring_queue_exit(&u->ring);
	free(u);
}

/* Linux 5.6 and later. */
static bool has_calls(struct io_uring *ring)
{
	static const int needed[] = { IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
				      IORING_OP_FALLOCATE };
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool all = probe;
	for (size_t i = 0; all && i < sizeof(needed) / sizeof(needed[0]); i++)
		all = io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	return all;
}

int file_uring_create(int file_fd, struct file_way **ret_way)
{
	static const struct file_way_ops ops = {
		.start = uring_start,
		.settle = uring_settle,
		.ended = uring_ended,
		.destroy = uring_destroy,
	};
	struct uring *u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	int r = io_uring_queue_init(DISK_REQUESTS_MAX, &u->ring, 0);
	if (r < 0) {
		free(u);
		return r;
	}
	if (!has_calls(&u->ring)) {
		io_uring_queue_exit(&u->ring);
		free(u);
		return -ENOSYS;
	}
	u->file_fd = file_fd;
	u->way = (struct file_way){ .ops = &ops, .fd = u->ring.ring_fd };
	*ret_way = &u->way;
	return 0;
}
