/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon's front half: see balloon.h.
 *
 * Two queues are of the balloon proper: page numbers that the driver gives (inflate) and takes back
 * (deflate, at any time: whatever it takes is zero or as it was). A page given is as good as one that is
 * reported. The reporting queue's chains are the free memory itself: long blocks, which the driver keeps
 * from everybody until the chain is used. So a chain is used when its pages are gone, not before.
 *
 * The reporting queue's number is 4 in the standard, after those of statistics and hints. Linux numbers
 * only queues whose features are offered; and Linux 6.12 runs into a NULL pointer when it lets go of a
 * device that has left some out. So those two are offered, and nothing is ever asked by them.
 *
 * What waits for free() waits in its ring: one queue at a time has a turn. Tested in
 * tests/virtio/test_balloon.c.
 */
#include "virtio/balloon.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/queue.h"

#define QUEUE_SIZE  64u
#define PAGE_NUMBER 12 /* the balloon's pages are of 4 KiB everywhere (5.5.6) */

/* Features (5.5.3) and configuration (5.5.4). */
#define BALLOON_STATS_VQ       (1ull << 1)
#define BALLOON_DEFLATE_ON_OOM (1ull << 2)
#define BALLOON_FREE_PAGE_HINT (1ull << 3)
#define BALLOON_PAGE_REPORTING (1ull << 5)
#define CONFIG_BYTES	       12u /* hints are not asked for: command 0 is "stop" */
#define CONFIG_ACTUAL	       4u

enum { INFLATE = 0, DEFLATE = 1, STATS = 2, HINTS = 3, REPORTING = 4, QUEUES = 5 };

enum step {
	STEP_POP,
	STEP_READ, /* page numbers of an inflate */
	STEP_FREE, /* as soon as nobody else is at it */
	STEP_FREEING,
	STEP_USED,
};

struct balloon_queue {
	struct virtio_queue ring;
	enum step step;
	bool inflate;
	struct virtio_chain chain;
	uint64_t offset; /* of the page numbers that are next */
	size_t done;
	uint32_t number[VIRTIO_BALLOON_SPANS];
	uint32_t span_count;
	struct dma_span span[VIRTIO_BALLOON_SPANS];
};

struct virtio_balloon {
	struct virtio_front front; /* first */
	struct virtio_balloon_config config;
	bool freeing, resetting;
	struct balloon_queue queue[QUEUES];
};

void virtio_balloon_offer(struct virtio_offer *ret_offer)
{
	*ret_offer =
		(struct virtio_offer){ .kind = VIRTIO_KIND_BALLOON,
				       .queue_count = QUEUES,
				       .queue_size = QUEUE_SIZE,
				       .config_bytes = CONFIG_BYTES,
				       .features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
						   VIRTIO_F_EVENT_IDX | BALLOON_STATS_VQ |
						   BALLOON_DEFLATE_ON_OOM | BALLOON_FREE_PAGE_HINT |
						   BALLOON_PAGE_REPORTING };
	/* How much it has given, for who cares. */
	memset(ret_offer->config_writable + CONFIG_ACTUAL, 0xff, 4);
}

static bool balloon_reset(struct virtio_front *front)
{
	struct virtio_balloon *balloon = (struct virtio_balloon *)front;

	for (uint32_t i = 0; i < QUEUES; i++) {
		balloon->queue[i].ring = (struct virtio_queue){ 0 };
		balloon->queue[i].step = STEP_POP;
	}
	balloon->resetting = balloon->freeing;
	return !balloon->freeing;
}

static int balloon_start(struct virtio_front *front, const struct virtio_published *published)
{
	struct virtio_balloon *balloon = (struct virtio_balloon *)front;

	for (uint16_t i = 0; i < QUEUES; i++) {
		int error;

		if (!published->queue[i].enabled)
			continue;
		error = virtio_queue_start(&balloon->queue[i].ring, virtio_front_dma(front, i),
					   &published->queue[i], front->features,
					   VIRTIO_BALLOON_SPANS);
		if (error < 0)
			return error;
	}
	return 0;
}

/* Neighbours that come one after the other, up or down, are one span. */
static void add_page(struct balloon_queue *q, uint32_t number)
{
	uint64_t gpa = (uint64_t)number << PAGE_NUMBER;
	struct dma_span *last = q->span_count ? &q->span[q->span_count - 1] : NULL;

	if (last && gpa == last->gpa + last->length) {
		last->length += 1u << PAGE_NUMBER;
	} else if (last && gpa + (1u << PAGE_NUMBER) == last->gpa) {
		last->gpa = gpa;
		last->length += 1u << PAGE_NUMBER;
	} else {
		q->span[q->span_count++] =
			(struct dma_span){ .gpa = gpa, .length = 1u << PAGE_NUMBER };
	}
}

/* The next page numbers of a chain. */
static int read_numbers(struct virtio_balloon *balloon, struct balloon_queue *q, uint16_t index)
{
	uint64_t left = q->chain.read_bytes - q->offset;
	size_t bytes = left < sizeof(q->number) ? (size_t)left : sizeof(q->number);
	int error = virtio_front_judged(&balloon->front,
					virtio_chain_read(virtio_front_dma(&balloon->front, index),
							  &q->chain, q->offset, q->number, bytes,
							  &q->done));

	if (error < 0)
		return error;
	q->offset += bytes;
	q->done = 0;
	q->span_count = 0;
	for (uint32_t i = 0; i < bytes / sizeof(q->number[0]); i++)
		add_page(q, le32toh(q->number[i]));
	return 0;
}

/* Those pages are done: an inflate may have more. Of other chains nothing is ever read. */
static enum step after_free(const struct balloon_queue *q)
{
	return q->inflate && q->offset < q->chain.read_bytes ? STEP_READ : STEP_USED;
}

static int pop(struct virtio_balloon *balloon, struct balloon_queue *q, uint16_t index)
{
	int error = virtio_front_judged(&balloon->front, virtio_queue_pop(&q->ring, &q->chain));

	if (error < 0)
		return error;
	q->offset = q->done = 0;
	q->span_count = 0;
	q->step = after_free(q);
	if (!q->inflate && index != DEFLATE) {
		q->span_count = (uint32_t)(q->chain.count - q->chain.readable);
		memcpy(q->span, q->chain.span + q->chain.readable,
		       q->span_count * sizeof(q->span[0]));
		q->step = STEP_FREE;
	}
	return 0;
}

static int begin_free(struct virtio_balloon *balloon, struct balloon_queue *q)
{
	if (balloon->freeing)
		return -EAGAIN;
	q->step = after_free(q);
	if (!q->span_count || balloon->config.free(balloon->config.ctx, q->span, q->span_count) < 0)
		return 0;
	balloon->freeing = true;
	q->step = STEP_FREEING;
	return 0;
}

static int push(struct virtio_balloon *balloon, struct balloon_queue *q)
{
	int error =
		virtio_front_judged(&balloon->front, virtio_queue_push(&q->ring, q->chain.head, 0));

	if (error == 0)
		q->step = STEP_POP;
	return error;
}

/* A chain on, as far as it goes. */
static int serve(struct virtio_balloon *balloon, struct balloon_queue *q, uint16_t index)
{
	int error = 0;

	switch (q->step) {
	case STEP_POP:
		return pop(balloon, q, index);
	case STEP_READ:
		error = read_numbers(balloon, q, index);
		if (error == 0)
			q->step = STEP_FREE;
		return error;
	case STEP_FREE:
		return begin_free(balloon, q);
	case STEP_FREEING:
		return -EAGAIN;
	case STEP_USED:
		return push(balloon, q);
	}
	return error;
}

static void balloon_run(struct virtio_front *front, uint16_t queue)
{
	struct virtio_balloon *balloon = (struct virtio_balloon *)front;
	struct balloon_queue *q = &balloon->queue[queue];
	int error = 0;

	/* What the driver has put there it has back at a reset. */
	if (!q->ring.ready || queue == STATS || queue == HINTS)
		return;
	for (uint32_t i = 0; error == 0 && !virtio_front_share(front, queue, i); i++)
		error = serve(balloon, q, queue);
	virtio_front_tell(front, queue, &q->ring);
}

void virtio_balloon_freed(struct virtio_front *front)
{
	struct virtio_balloon *balloon = (struct virtio_balloon *)front;

	balloon->freeing = false;
	if (balloon->resetting) {
		balloon->resetting = false;
		virtio_front_stopped(front);
	}
	for (uint16_t i = 0; i < QUEUES; i++) {
		struct balloon_queue *q = &balloon->queue[i];

		if (q->step == STEP_FREEING)
			q->step = after_free(q);
	}
	for (uint16_t i = 0; i < QUEUES; i++)
		virtio_front_work(front, i);
}

static void balloon_destroy(struct virtio_front *front)
{
	free(front);
}

static const struct virtio_front_ops balloon_ops = { .reset = balloon_reset,
						     .start = balloon_start,
						     .run = balloon_run,
						     .destroy = balloon_destroy };

int virtio_balloon_create(const struct virtio_balloon_config *config,
			  const struct virtio_host *host, struct virtio_front **ret_front)
{
	struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));

	if (!balloon)
		return -ENOMEM;
	balloon->front =
		(struct virtio_front){ .ops = &balloon_ops, .host = *host, .queue_count = QUEUES };
	balloon->config = *config;
	balloon->queue[INFLATE].inflate = true;
	*ret_front = &balloon->front;
	return 0;
}
