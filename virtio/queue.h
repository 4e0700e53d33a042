/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A split virtqueue, the device's side (virtio 1.2, 2.7), with indirect descriptors and event
 * index, over guest memory that never waits (core/dma.h).
 *
 *	avail ring --virtio_queue_pop()--> chain --(the device)--> virtio_queue_push() --> used ring
 *	                                                      virtio_queue_interrupt(): shall it hear?
 *
 * Every function may return -EAGAIN: memory has been asked for, the queue remembers where it was,
 * and the same call goes on there. -EPROTO: the driver did what no correct driver does; the queue
 * is broken, and every later call says so, too.
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dma.h"
#include "virtio/published.h"

/* Descriptors of a chain, those in an indirect table included; a device may want fewer. */
#define VIRTIO_CHAIN_MAX 258u

struct virtio_chain {
	uint16_t head;
	uint16_t count;	   /* spans */
	uint16_t readable; /* of them, the first ones: the rest the device writes */
	uint64_t read_bytes, write_bytes;
	struct dma_span span[VIRTIO_CHAIN_MAX];
};

/* How far a queue's rings have been worked on: all that is to be known of it and is not in them. */
struct virtio_queue_state {
	uint16_t avail_index, used_index, told_index;
};

struct virtio_queue {
	struct dma *dma;
	uint64_t desc, avail, used;
	uint16_t size;
	uint16_t chain_max;
	bool event_index, indirect;
	bool ready; /* it may be worked on: it has been started, and is not elsewhere */
	bool broken;
	bool leaving; /* for elsewhere: nothing is popped any more */

	uint16_t avail_index; /* the next that is to be popped */
	uint16_t avail_seen;  /* the driver's index as read last */
	uint16_t used_index;  /* the next that is to be pushed */
	uint16_t told_index;  /* used index when the driver was last told, or found not to care */
	bool armed;	      /* the driver rings for avail_index */

	/* A pop that has not ended. */
	struct virtio_queue_walk {
		bool under_way;
		bool in_table;
		uint16_t index; /* the descriptor that is next */
		uint64_t table;
		uint32_t table_count;
		size_t fetched; /* bytes of it that are in `desc` */
		struct virtio_desc {
			uint64_t gpa;
			uint32_t length;
			uint16_t flags, next;
		} desc;
	} walk;
};

/*
 * The queue begins, at its start. `size`, places and features as published; `chain_max` descriptors
 * at most are in a chain. 0; -EPROTO: sizes or places that no correct driver gives.
 */
int virtio_queue_start(struct virtio_queue *queue, struct dma *dma,
		       const struct virtio_published_queue *published, uint64_t features,
		       uint16_t chain_max);

/*
 * A queue that is worked on elsewhere as well, never at the same time. leave(): pops nothing from now
 * on. give(): what there is to know; it is elsewhere. take(): it is here, as far as it was there; -EPROTO:
 * there is no such queue. What comes behind take() is a look at the ring.
 */
void virtio_queue_leave(struct virtio_queue *queue);
void virtio_queue_give(struct virtio_queue *queue, struct virtio_queue_state *ret_state);
int virtio_queue_take(struct virtio_queue *queue, const struct virtio_queue_state *state);

/*
 * The next chain, into *chain, which a call that goes on needs as the one before left it. 0;
 * -ENOENT: there is none, and the driver rings when there is; -EAGAIN; -EPROTO. Zero-length
 * descriptors, those that are no RAM and writable ones before readable ones are refused.
 */
int virtio_queue_pop(struct virtio_queue *queue, struct virtio_chain *chain);

/*
 * The part of a chain that the device reads, or writes, as spans: [offset, offset + length) of it, as
 * far as it goes. Their number; ret_span has room for as many as the chain has.
 */
uint16_t virtio_chain_slice(const struct virtio_chain *chain, bool write, uint64_t offset,
			    uint64_t length, struct dma_span *ret_span);
/*
 * Copies of that part, as far as it goes, by dma_read() and dma_write(): *done says how far they came.
 */
int virtio_chain_read(struct dma *dma, const struct virtio_chain *chain, uint64_t offset, void *to,
		      size_t length, size_t *done);
int virtio_chain_write(struct dma *dma, const struct virtio_chain *chain, uint64_t offset,
		       const void *from, size_t length, size_t *done);

/* The last `count` chains that were popped are there again, as if they had not been; so is one that is
 * being popped. */
void virtio_queue_unpop(struct virtio_queue *queue, uint16_t count);

/* Chain `head` has been used, `written` bytes of it: 0; -EAGAIN; -EPROTO. */
int virtio_queue_push(struct virtio_queue *queue, uint16_t head, uint32_t written);
/*
 * Several at once, of which the driver learns together: elements first, then the index. `at` counts
 * from 0 up to what virtio_queue_publish() then publishes.
 */
int virtio_queue_fill(struct virtio_queue *queue, uint16_t at, uint16_t head, uint32_t written);
int virtio_queue_publish(struct virtio_queue *queue, uint16_t count);

/* Whether the driver wants an interrupt for what was pushed since it was last asked. 0; -EAGAIN;
 * -EPROTO. */
int virtio_queue_interrupt(struct virtio_queue *queue, bool *ret_wanted);

#endif
