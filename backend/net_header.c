/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums of packets (net_header.h; RFC 1071). The driver has put the pseudo header's sum where the
 * checksum goes, so all there is to do is to add up what follows.
 */
#include "backend/net_header.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct net_header) == 12, "as virtio has it");

int net_header_checksum(const struct net_header *header, uint8_t *packet, size_t bytes)
{
	size_t start = header->checksum_start, at = start + header->checksum_offset;
	uint64_t sum = 0;
	if (start >= bytes || at + 2 > bytes)
		return -EINVAL;
	size_t left = bytes - start;
	const uint8_t *byte = packet + start;
	for (; left >= 4; left -= 4, byte += 4) {
		uint32_t word;
		memcpy(&word, byte, sizeof(word));
		sum += word;
	}
	if (left) {
		uint32_t word = 0;
		memcpy(&word, byte, left);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	uint16_t checksum = (uint16_t)~sum;
	if (!checksum) /* UDP has another meaning for it (RFC 768); to TCP they are the same */
		checksum = 0xffff;
	memcpy(packet + at, &checksum, sizeof(checksum));
	return 0;
}
