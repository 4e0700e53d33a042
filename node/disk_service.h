/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of this node, for one other node: the other side of remote_disk.h.
 *
 *	DISK_REQUEST --> a place in the pool for its data --> a port of the disk (backend/share.h)
 *	DISK_REPLY   <-- from the pool ----------------------'
 *
 * What the peer may have under way is reserved for it (DISK_REQUESTS_MAX, DISK_PIECES_MAX), so
 * whatever it says can be taken at once and nothing makes the node stop reading. A peer that has more
 * under way, or asks for what the disk has not, is lying: -EPROTO, and the link ends.
 *
 * All calls are the io thread's.
 */
#ifndef NODE_DISK_SERVICE_H
#define NODE_DISK_SERVICE_H

#include "node/disk_counts.h"
#include "node/remote_disk.h"

/* What stays resident of a pool when nothing is under way. */
#define DISK_POOL_KEPT (32u * DISK_PIECE_BYTES)

struct disk_service;

/* Channel and port are borrowed, and outlive it; the port is its own, and takes DISK_REQUESTS_MAX
 * requests. 0 or -ENOMEM. */
int disk_service_create(struct io_channel *channel, uint8_t device, struct disk *port,
			struct disk_service **ret_service);
/* Once nothing is under way at its disk and in its channel. NULL is fine. */
void disk_service_destroy(struct disk_service *service);

/* struct io_receiver's calls, for DISK_REQUEST of this device. */
int disk_service_place(struct disk_service *service, const struct io_message *msg,
		       const struct iovec **ret_iov, uint32_t *ret_count);
int disk_service_arrived(struct disk_service *service, const struct io_message *msg);
/* After disk_work(): what the disk has done is answered. */
void disk_service_work(struct disk_service *service);
/* A DISK_REPLY has left (io_left()). */
void disk_service_left(struct disk_service *service, struct io_parcel *parcel);

const struct disk_counts *disk_service_counts(const struct disk_service *service);

#endif
