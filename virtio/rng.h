/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng's front half (virtio 1.2, 5.4): random bytes for the guest. */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include <stddef.h>

#include "virtio/front.h"

struct virtio_rng_config {
	/* `bytes` random bytes; never waits. */
	void (*random)(void *ctx, void *to, size_t bytes);
	void *ctx;
};

void virtio_rng_offer(struct virtio_offer *ret_offer);

/* 0 or -ENOMEM. */
int virtio_rng_create(const struct virtio_rng_config *config, const struct virtio_host *host,
		      struct virtio_front **ret_front);

#endif
