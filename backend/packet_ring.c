/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that wait (packet_ring.h). Each lies behind its size; none wraps.
 *
 * Tested by tests/backend/test_packet_ring.c.
 */
#include "backend/packet_ring.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "sizes lie as they travel");

int packet_ring_create(struct packet_ring *ring, uint32_t size)
{
	*ring = (struct packet_ring){ .memory = malloc(size),
				      .size = size,
				      .at = PACKET_RING_NOWHERE };
	return ring->memory ? 0 : -ENOMEM;
}

void packet_ring_destroy(struct packet_ring *ring)
{
	free(ring->memory);
	*ring = (struct packet_ring){ 0 };
}

void packet_ring_clear(struct packet_ring *ring)
{
	uint32_t bytes;

	while (packet_ring_peek(ring, &bytes))
		packet_ring_drop(ring);
}

/* Where what takes `takes` would begin. An end that reached `first` would look like an empty ring. */
static uint32_t place_for(const struct packet_ring *ring, uint64_t takes)
{
	if (ring->end < ring->first)
		return takes < ring->first - ring->end ? ring->end : PACKET_RING_NOWHERE;
	if (takes <= ring->size - ring->end)
		return ring->end;
	return takes < ring->first ? 0 : PACKET_RING_NOWHERE;
}

static uint8_t *reserve(struct packet_ring *ring, uint64_t takes)
{
	ring->at = place_for(ring, takes);
	return ring->at == PACKET_RING_NOWHERE ? NULL : ring->memory + ring->at;
}

void *packet_ring_reserve(struct packet_ring *ring, uint32_t bytes)
{
	uint8_t *at = reserve(ring, PACKET_RING_TAKES(bytes));

	return at ? at + sizeof(bytes) : NULL;
}

void *packet_ring_reserve_run(struct packet_ring *ring, uint32_t bytes)
{
	return reserve(ring, bytes);
}

void packet_ring_commit_run(struct packet_ring *ring, uint32_t bytes)
{
	if (ring->at != ring->end)
		ring->wrap = ring->end;
	ring->end = ring->at + bytes;
	ring->at = PACKET_RING_NOWHERE;
}

void packet_ring_commit(struct packet_ring *ring, uint32_t bytes)
{
	memcpy(ring->memory + ring->at, &bytes, sizeof(bytes));
	packet_ring_commit_run(ring, (uint32_t)PACKET_RING_TAKES(bytes));
}

const uint8_t *packet_ring_peek(struct packet_ring *ring, uint32_t *ret_bytes)
{
	if (ring->end < ring->first && ring->first == ring->wrap)
		ring->first = 0;
	if (ring->first == ring->end)
		return NULL;
	memcpy(ret_bytes, ring->memory + ring->first, sizeof(*ret_bytes));
	return ring->memory + ring->first + sizeof(*ret_bytes);
}

void packet_ring_drop(struct packet_ring *ring)
{
	uint32_t bytes;

	if (!packet_ring_peek(ring, &bytes))
		return;
	ring->first += (uint32_t)PACKET_RING_TAKES(bytes);
	/* From the start again, but not from under what is being filled. */
	if (ring->first == ring->end && ring->at == PACKET_RING_NOWHERE)
		ring->first = ring->end = 0;
}

int packet_run_check(const uint8_t *run, size_t bytes, uint32_t min, uint32_t max)
{
	int count = 0;

	while (bytes > 0) {
		uint32_t packet;

		if (bytes < sizeof(packet))
			return -EPROTO;
		memcpy(&packet, run, sizeof(packet));
		if (packet < min || packet > max || PACKET_RING_TAKES(packet) > bytes)
			return -EPROTO;
		run += PACKET_RING_TAKES(packet);
		bytes -= PACKET_RING_TAKES(packet);
		count++;
	}
	return count;
}

size_t packet_gather(const struct iovec *iov, uint32_t count, uint8_t *to, size_t room)
{
	size_t bytes = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (iov[i].iov_len > room - bytes)
			return 0;
		memcpy(to + bytes, iov[i].iov_base, iov[i].iov_len);
		bytes += iov[i].iov_len;
	}
	return bytes;
}
