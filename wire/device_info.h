/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What disks and network cards are, as the nodes that have them say it (FEATURES), and as all nodes
 * are told (START): so that every node knows every device.
 *
 *       0 device u8    1 kind u8      2 flags u16    4 block_bytes u32
 *       8 bytes u64   16 alignment u32              20 mtu u16      22 pairs u16
 *      24 serial[24]                                                              48
 *
 * What a kind does not have is zero.
 */
#ifndef WIRE_DEVICE_INFO_H
#define WIRE_DEVICE_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/disk.h"
#include "backend/net.h"
#include "virtio/published.h"

#define DEVICE_INFO_BYTES 48u

struct device_info {
	uint8_t device; /* its place in the pod's list */
	uint8_t kind;	/* VIRTIO_KIND_BLOCK or VIRTIO_KIND_NET */
	union {
		struct disk_info disk;
		struct net_info net;
	};
};

/* In the order of the pod's list. */
struct device_list {
	uint32_t count;
	struct device_info info[VIRTIO_DEVICES_MAX];
};

/* Can this be? Sizes are powers of two within their bounds, texts are text, the order is right. */
bool device_list_valid(const struct device_list *list);
/* The list has been found valid. Returns its bytes, count * DEVICE_INFO_BYTES. */
size_t device_list_encode(const struct device_list *list, uint8_t *out);
/* 0, or -EPROTO; ret_list is then undefined. */
int device_list_decode(const uint8_t *in, size_t size, uint32_t count,
		       struct device_list *ret_list);

#endif
