/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands on a connection to an NBD server (nbd_commands.h), by libnbd's asynchronous calls.
 */
#include "backend/nbd_commands.h"

#include <errno.h>
#include <time.h>

uint64_t nbd_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static int on_answer(void *ctx, int *error)
{
	struct nbd_group *group = ctx;
	struct nbd_connection *c = group->connection;
	c->since_ns = nbd_now_ns();
	if (*error == ESHUTDOWN)
		c->shuts_down = true;
	if (*error == ENOTCONN || *error == ESHUTDOWN)
		return 1; /* it is lost */
	group->answered++;
	if (*error)
		group->error = *error;
	return 1;
}

/* libnbd is done with a command, answered or not. */
static void on_end(void *ctx)
{
	nbd_all_sent(ctx);
}

void nbd_begin(struct nbd_group *group)
{
	struct nbd_connection *c = group->connection;
	if (!c->busy)
		c->since_ns = nbd_now_ns();
	c->busy++;
	group->error = 0;
	group->sent = group->answered = 0;
	group->under_way = 1; /* ours, until all are sent */
}

void nbd_all_sent(struct nbd_group *group)
{
	if (--group->under_way)
		return;
	group->connection->busy--;
	group->ended(group);
}

static nbd_completion_callback command_of(struct nbd_group *group)
{
	group->under_way++;
	group->sent++;
	return (nbd_completion_callback){ .callback = on_answer,
					  .free = on_end,
					  .user_data = group };
}

bool nbd_is_lost(const struct nbd_connection *c)
{
	return c->shuts_down || nbd_aio_is_dead(c->handle) == 1 ||
	       nbd_aio_is_closed(c->handle) == 1;
}

/* What could not be sent though there is a connection has its answer; else it is lost. */
static void sent(struct nbd_group *group, int64_t cookie)
{
	if (cookie >= 0 || nbd_is_lost(group->connection))
		return;
	group->answered++;
	group->error = nbd_get_errno() ? nbd_get_errno() : EIO;
}

void nbd_send_data(struct nbd_group *group, enum disk_op op, const struct iovec *piece,
		   uint64_t offset)
{
	struct nbd_handle *handle = group->connection->handle;
	nbd_completion_callback done = command_of(group);
	sent(group,
	     op == DISK_READ
		     ? nbd_aio_pread(handle, piece->iov_base, piece->iov_len, offset, done, 0)
		     : nbd_aio_pwrite(handle, piece->iov_base, piece->iov_len, offset, done, 0));
}

uint64_t nbd_send_range(struct nbd_group *group, enum disk_op op, bool unmap, uint64_t offset,
			uint64_t bytes)
{
	struct nbd_handle *handle = group->connection->handle;
	nbd_completion_callback done = command_of(group);
	if (bytes > NBD_RANGE_BYTES)
		bytes = NBD_RANGE_BYTES;
	sent(group, op == DISK_DISCARD ? nbd_aio_trim(handle, bytes, offset, done, 0)
				       : nbd_aio_zero(handle, bytes, offset, done,
						      unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
	return bytes;
}

void nbd_send_flush(struct nbd_group *group)
{
	nbd_completion_callback done = command_of(group);
	sent(group, nbd_aio_flush(group->connection->handle, done, 0));
}
