/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon's front half (virtio 1.2, 5.5): the guest says which pages it does not use. Nobody asks
 * it to give any (num_pages is 0): what counts is free page reporting, which Linux does by itself.
 */
#ifndef VIRTIO_BALLOON_H
#define VIRTIO_BALLOON_H

#include "virtio/front.h"

/* Spans of a free() at most. */
#define VIRTIO_BALLOON_SPANS 64u

struct virtio_balloon_config {
	/*
	 * The guest needs the contents of these no more, and does not touch them until
	 * virtio_balloon_freed(), which is called later and once for each that returns 0. Any spans
	 * are fine. An error: nothing comes of it, which the guest does not mind. One at a time.
	 */
	int (*free)(void *ctx, const struct dma_span *span, uint32_t count);
	void *ctx;
};

void virtio_balloon_offer(struct virtio_offer *ret_offer);

/* 0 or -ENOMEM. */
int virtio_balloon_create(const struct virtio_balloon_config *config,
			  const struct virtio_host *host, struct virtio_front **ret_front);

/* What free() was told is done. */
void virtio_balloon_freed(struct virtio_front *front);

#endif
