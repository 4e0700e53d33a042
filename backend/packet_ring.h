/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that wait, in memory of a fixed size: the first in, the first out, each whole and in one
 * piece.
 *
 *	first < end:  ....[first ... end)....
 *	end < first:  [0 ... end)....[first ... wrap)	wrap: where the older part ends
 *
 * A *run* is some of them as they lie there, one behind the other, which is how they travel between
 * nodes (wire/io_message.h):
 *
 *	| bytes, 4, little-endian | packet | up to 3 of no meaning | bytes | packet ...
 */
#ifndef BACKEND_PACKET_RING_H
#define BACKEND_PACKET_RING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What a packet takes in a ring. */
#define PACKET_RING_TAKES(bytes) (sizeof(uint32_t) + (((uint64_t)(bytes) + 3u) & ~3ull))

struct packet_ring {
	uint8_t *memory;
	uint32_t size;
	uint32_t first, end, wrap;
	uint32_t at; /* what is reserved; PACKET_RING_NOWHERE: nothing */
};

#define PACKET_RING_NOWHERE UINT32_MAX

/* 0 or -ENOMEM; memory that was never used costs nothing. */
int packet_ring_create(struct packet_ring *ring, uint32_t size);
/* Fine for one that is all zeros. */
void packet_ring_destroy(struct packet_ring *ring);
void packet_ring_clear(struct packet_ring *ring);
/*
 * Room for a packet, which packet_ring_commit() makes the last one; NULL: it is full. Others may be
 * taken out meanwhile.
 */
void *packet_ring_reserve(struct packet_ring *ring, uint32_t bytes);
void packet_ring_commit(struct packet_ring *ring, uint32_t bytes);
/* The same for a run of so many bytes, which has been checked before it is committed. */
void *packet_ring_reserve_run(struct packet_ring *ring, uint32_t bytes);
void packet_ring_commit_run(struct packet_ring *ring, uint32_t bytes);
/* The first one; NULL: there is none. */
const uint8_t *packet_ring_peek(struct packet_ring *ring, uint32_t *ret_bytes);
/* The first one, if there is one, is gone. */
void packet_ring_drop(struct packet_ring *ring);

/* A run's packets, each of min to max bytes: their number, or -EPROTO: that is no run. */
int packet_run_check(const uint8_t *run, size_t bytes, uint32_t min, uint32_t max);

/* Copies what lies in pieces together: its bytes; 0: they are more than `room`. */
size_t packet_gather(const struct iovec *iov, uint32_t count, uint8_t *to, size_t room);

#endif
