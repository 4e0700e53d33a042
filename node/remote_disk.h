/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of another node, as a disk of this one: requests go there by the io channel, in place from
 * and to the memory that they name, and come back as replies.
 *
 *	front half -- disk_submit() --> remote disk -- DISK_REQUEST --> disk_service.h
 *	           <-- disk_done() --               <-- DISK_REPLY ---
 *
 * It keeps to what the disk's node has reserved for it (DISK_REQUESTS_MAX, DISK_PIECES_MAX): what is
 * more waits here. So nothing that it sends is ever in the way of the other node's work, nor is a
 * disk that is slow, or gone, in the way of others.
 *
 * What a peer says is not believed: a reply to what was not asked, or not sent yet, or of another
 * length is -EPROTO, and the link ends. All calls are the io thread's.
 */
#ifndef NODE_REMOTE_DISK_H
#define NODE_REMOTE_DISK_H

#include <stdint.h>

#include "backend/disk.h"
#include "link/io_channel.h"

/* What a disk's node has reserved for each other node: memory for the data, of which every request
 * begins a new piece. */
#define DISK_PIECE_BYTES (64u << 10)
#define DISK_PIECES_MAX	 128u

static inline uint32_t disk_pieces(enum disk_op op, uint64_t length)
{
	return op == DISK_READ || op == DISK_WRITE
		       ? (uint32_t)((length + DISK_PIECE_BYTES - 1) / DISK_PIECE_BYTES)
		       : 0;
}

struct remote_disk;

/* The channel is borrowed, and outlives it. 0 or -ENOMEM. */
int remote_disk_create(struct io_channel *channel, uint8_t device, const struct disk_info *info,
		       struct remote_disk **ret_remote);
void remote_disk_destroy(struct remote_disk *remote); /* NULL is fine */
/*
 * It takes requests of IO_DATA_MAX at most, has no descriptor (-1) and nothing for disk_work() and
 * disk_settle(): whoever reads the channel looks for what is done when something has arrived, and
 * flushes it.
 */
struct disk *remote_disk_disk(struct remote_disk *remote);

/* struct io_receiver's calls, for DISK_REPLY of this device. */
int remote_disk_place(struct remote_disk *remote, const struct io_message *msg,
		      const struct iovec **ret_iov, uint32_t *ret_count);
int remote_disk_arrived(struct remote_disk *remote, const struct io_message *msg);
/* A DISK_REQUEST has left (io_left()); before the channel is read again. */
void remote_disk_left(struct remote_disk *remote, struct io_parcel *parcel);

#endif
