/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's front half (virtio 1.2, 5.1): mergeable receive buffers, offloads, a queue pair a
 * vCPU, the control queue.
 *
 * Queues: 2n receives, 2n + 1 sends, the control queue is the last.
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include <stdint.h>

#include "backend/net.h"
#include "virtio/front.h"

#define VIRTIO_NET_QUEUE_SIZE 256u
struct virtio_net_config {
	struct net *net; /* borrowed; outlives it */
	uint8_t mac[6];
	uint16_t pairs; /* 1..NET_PAIRS_MAX, no more than the network's */
};

/* What the driver finds. */
void virtio_net_offer(const struct net_info *info, const uint8_t mac[6], uint16_t pairs,
		      struct virtio_offer *ret_offer);

/* 0; -EINVAL; -ENOMEM. */
int virtio_net_create(const struct virtio_net_config *config, const struct virtio_host *host,
		      struct virtio_front **ret_front);

/* What is under way of a queue, in words, for who looks for a fault. */
#define VIRTIO_NET_SAY_BYTES 96u
void virtio_net_say(struct virtio_front *front, uint16_t queue, char *to);

/* After net_work(): packets may have come, and may be sent again. */
void virtio_net_ready(struct virtio_front *front);

#endif
