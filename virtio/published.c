/* SPDX-License-Identifier: Apache-2.0 */
/* Contract: published.h. Tested in tests/machine/test_virtio_pci.c. */
#include "virtio/published.h"

#include <errno.h>

int virtio_offer_check(const struct virtio_offer *offer)
{
	if (offer->kind < VIRTIO_KIND_NET || offer->kind > VIRTIO_KIND_BALLOON ||
	    offer->queue_count < 1 || offer->queue_count > VIRTIO_QUEUES_MAX ||
	    offer->queue_size < 2 || offer->queue_size > VIRTIO_QUEUE_SIZE_MAX ||
	    (offer->queue_size & (offer->queue_size - 1)) ||
	    offer->config_bytes > VIRTIO_CONFIG_MAX)
		return -EINVAL;
	return 0;
}
