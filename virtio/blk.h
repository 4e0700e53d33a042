/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk's front half (virtio 1.2, 5.2): multiqueue, flush, discard, write zeroes, serial
 * number, write cache by the driver's choice.
 *
 * A request's data is used in place where all its pages are here and can be pinned at once, and
 * the disk is one of this node; else it goes through a buffer of a bounded pool, page by page. What
 * finds neither waits in its ring.
 */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/disk.h"
#include "virtio/front.h"

#define VIRTIO_BLK_QUEUE_SIZE	512u	   /* a chain is not longer (virtio 1.2, 2.7.5.3.1) */
#define VIRTIO_BLK_SEGMENTS_MAX 256u	   /* of a request: 1 MiB of single pages is one */
#define VIRTIO_BLK_BYTES_MAX	(4u << 20) /* of a request's data */

/* What the driver finds: by what the disk is. `queue_count` 1..64. */
void virtio_blk_offer(const struct disk_info *info, uint16_t queue_count,
		      struct virtio_offer *ret_offer);

struct virtio_blk_config {
	struct disk *disk; /* borrowed; outlives it */
	uint16_t queue_count;
	bool in_place;	       /* the disk works on guest memory itself */
	uint32_t bounce_bytes; /* of the pool; 0: a default */
};

/* 0; -EINVAL; -ENOMEM. */
int virtio_blk_create(const struct virtio_blk_config *config, const struct virtio_host *host,
		      struct virtio_front **ret_front);

/* The disk gave this request back (disk_done()): its owner is the front half. */
void virtio_blk_done(struct virtio_front *front, struct disk_request *request);

#endif
