/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio driver and what it needs, of plain arrays: guest memory that fails with -EAGAIN when it is
 * told to, the driver's side of a split ring, and a disk.
 */
#ifndef TESTS_VIRTIO_MODEL_H
#define TESTS_VIRTIO_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/disk.h"
#include "core/dma.h"
#include "virtio/front.h"

#define MODEL_BASE 0x10000u /* memory begins here: what is below is no RAM */

struct model_memory {
	struct dma dma; /* first */
	uint8_t *ram;
	uint64_t bytes;
	uint64_t pins;		   /* pages that are pinned, each as often as it is */
	uint64_t calls;		   /* of pin() */
	uint64_t fail_at;	   /* the call that fails once; 0: none */
	uint32_t fail_every;	   /* one in so many calls fails; 0: none */
	uint64_t pages_max;	   /* at once; 0: any number */
	void (*before)(void *arg); /* each pin; NULL: nothing */
	void *before_arg;
	bool asked; /* a call has failed: another try is worth it */
};

void model_memory_create(struct model_memory *memory, uint64_t bytes);
void model_memory_destroy(struct model_memory *memory);
/* Of a gpa in it. */
void *model_at(struct model_memory *memory, uint64_t gpa);

struct model_ring {
	struct model_memory *memory;
	uint64_t desc, avail, used;
	uint16_t size;
	uint16_t avail_index, used_index;
	uint16_t next_desc; /* free ones are taken in turn: tests have few under way */
};

struct model_buffer {
	uint64_t gpa;
	uint32_t length;
	bool write;
};

/* At gpa, which has room for MODEL_RING_BYTES. */
#define MODEL_RING_BYTES 0x8000u
void model_ring_init(struct model_ring *ring, struct model_memory *memory, uint64_t gpa,
		     uint16_t size);
struct virtio_published_queue model_ring_published(const struct model_ring *ring);
/* Writes a descriptor; makes one available. */
void model_ring_desc(struct model_ring *ring, uint16_t index, uint64_t gpa, uint32_t length,
		     uint16_t flags, uint16_t next);
void model_ring_avail(struct model_ring *ring, uint16_t head);
/* A chain of buffers, direct or (table != 0) in a table there. Its head. */
uint16_t model_ring_add(struct model_ring *ring, const struct model_buffer *buffer, uint16_t count,
			uint64_t table);
/* The next that was used: false: none. */
bool model_ring_used(struct model_ring *ring, uint32_t *ret_head, uint32_t *ret_written);
uint16_t model_ring_avail_event(const struct model_ring *ring);
void model_ring_set_used_event(struct model_ring *ring, uint16_t index);

/* A disk that does what it is told to when model_disk_done() is called. */
struct model_disk {
	struct disk disk; /* first */
	uint8_t *data;
	struct disk_request *request[DISK_REQUESTS_MAX];
	uint32_t count, max;
	uint32_t flushes, submitted;
	int fail;   /* what the next requests end with */
	int refuse; /* or that they are not even taken for */
	uint32_t refused;
	bool last_first;
};

void model_disk_create(struct model_disk *disk, uint64_t bytes);
void model_disk_destroy(struct model_disk *disk);

/* Those around a front half: what it told them. */
struct model_host {
	struct model_memory *memory;
	uint32_t interrupts[VIRTIO_QUEUES_MAX];
	uint32_t resets, stops, agains;
	bool again[VIRTIO_QUEUES_MAX]; /* of which queues */
	uint64_t stopped;
};

struct virtio_host model_host_of(struct model_host *host);

#endif
