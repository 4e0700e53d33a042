/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header in front of every packet (virtio 1.2, 5.1.6), and the checksum that it leaves to others.
 */
#ifndef BACKEND_NET_HEADER_H
#define BACKEND_NET_HEADER_H

#include <stddef.h>
#include <stdint.h>

#define NET_NEEDS_CHECKSUM 1u /* flags */
#define NET_CHECKSUM_GOOD  2u

#define NET_GSO_NONE  0u
#define NET_GSO_TCPV4 1u
#define NET_GSO_UDP   3u
#define NET_GSO_TCPV6 4u
#define NET_GSO_ECN   0x80u

struct net_header {
	uint8_t flags, gso_type;
	uint16_t header_bytes, gso_bytes;
	uint16_t checksum_start, checksum_offset; /* behind the header */
	uint16_t buffers;			  /* the front half's */
};

/* Writes the checksum that the header asks for into the packet behind it. 0, or -EINVAL: it lies
 * outside. */
int net_header_checksum(const struct net_header *header, uint8_t *packet, size_t bytes);

#endif
