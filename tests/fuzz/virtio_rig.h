/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzers of virtio's front halves have in common: input, and a driver that does what it says.
 *
 *	rig_begin()          everything is new: what an input finds does not depend on those before it
 *	rig_reset()          the driver resets the device
 *	rig_set_up()         ... and sets it up, to run once `published` is published with `running`
 *	rig_end()
 *
 * A front half is made between rig_begin() and the first rig_reset().
 */
#ifndef TESTS_FUZZ_VIRTIO_RIG_H
#define TESTS_FUZZ_VIRTIO_RIG_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/virtio/model.h"

#define RIG_QUEUES_MAX 8u
#define RIG_STEPS_MAX  400u
#define RING_AT(q)     (MODEL_BASE + (q)*MODEL_RING_BYTES)

struct input {
	const uint8_t *at;
	size_t left;
};

static inline uint32_t take(struct input *input, uint32_t bytes)
{
	uint32_t value = 0;

	for (uint32_t i = 0; i < bytes && input->left > 0; i++, input->left--)
		value |= (uint32_t)*input->at++ << (8 * i);
	return value;
}

struct virtio_rig {
	struct model_memory memory;
	struct model_host host;
	uint16_t queues;
	uint16_t size[RIG_QUEUES_MAX]; /* of each */
	struct model_ring ring[RIG_QUEUES_MAX];
	struct virtio_front *front;
	struct virtio_offer offer;
	struct virtio_published published;
};

static inline void rig_begin(struct virtio_rig *rig, uint64_t memory_bytes, uint16_t queues)
{
	*rig = (struct virtio_rig){ .queues = queues };
	model_memory_create(&rig->memory, memory_bytes);
	rig->host.memory = &rig->memory;
	for (uint32_t q = 0; q < queues; q++)
		rig->size[q] = 64;
}

static inline void rig_end(struct virtio_rig *rig)
{
	if (rig->memory.pins != 0)
		abort();
	virtio_front_destroy(rig->front);
	model_memory_destroy(&rig->memory);
}

static inline void rig_reset(struct virtio_rig *rig)
{
	rig->published.generation++;
	rig->published.running = false;
	virtio_front_publish(rig->front, &rig->published);
}

static inline void rig_set_up(struct virtio_rig *rig)
{
	rig->published.features = rig->offer.features;
	memcpy(rig->published.config, rig->offer.config, sizeof(rig->published.config));
	for (uint32_t q = 0; q < rig->queues; q++) {
		memset(model_at(&rig->memory, RING_AT(q)), 0, MODEL_RING_BYTES);
		model_ring_init(&rig->ring[q], &rig->memory, RING_AT(q), rig->size[q]);
		rig->published.queue[q] = model_ring_published(&rig->ring[q]);
	}
	rig->published.queue_count = rig->queues;
}

static inline void rig_run(struct virtio_rig *rig)
{
	rig->published.running = true;
	virtio_front_publish(rig->front, &rig->published);
}

/* The driver has heard of the end of its last reset. */
static inline bool rig_has_stopped(const struct virtio_rig *rig)
{
	return rig->host.stopped == rig->published.generation;
}

static inline void rig_scribble(struct virtio_rig *rig, struct input *input)
{
	uint32_t at = take(input, 3) % (uint32_t)(rig->memory.bytes - 8);
	uint32_t length = 1 + take(input, 1) % 8;

	for (uint32_t i = 0; i < length; i++)
		rig->memory.ram[at + i] = (uint8_t)take(input, 1);
}

/* A chain in queue q, or in a table at `table` (not 0). What a driver has moved its ring away from it lets be. */
static inline void rig_chain(struct virtio_rig *rig, uint32_t q, const struct model_buffer *buffer,
			     uint32_t count, uint64_t table)
{
	if (rig->ring[q].desc == RING_AT(q))
		model_ring_add(&rig->ring[q], buffer, (uint16_t)count, table);
}

/* What the driver can change of one queue, or of all; not its reset. */
enum rig_change { RIG_RUN, RIG_DESC, RIG_USED, RIG_AVAIL, RIG_ENABLED, RIG_FEATURES };

static inline void rig_change(struct virtio_rig *rig, enum rig_change what, uint32_t q,
			      uint32_t value)
{
	struct virtio_published_queue *queue = &rig->published.queue[q % rig->queues];

	switch (what) {
	case RIG_RUN:
		rig->published.running = !rig->published.running;
		break;
	case RIG_DESC:
		queue->desc += value << 4;
		break;
	case RIG_USED:
		queue->used += value;
		break;
	case RIG_AVAIL:
		queue->avail += value;
		break;
	case RIG_ENABLED:
		queue->enabled = !queue->enabled;
		break;
	case RIG_FEATURES:
		rig->published.features ^= 1ull << value % 40;
		break;
	}
	virtio_front_publish(rig->front, &rig->published);
}

/* One access in so many fails, and few pages can be had at once, as the byte says. */
static inline void rig_memory_fails(struct virtio_rig *rig, uint32_t what)
{
	rig->memory.fail_every = what / 8 % 4 * 2;
	rig->memory.pages_max = what & 0x80 ? 3 : 0;
}

#endif
