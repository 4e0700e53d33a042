/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng's front half: see rng.h. A buffer gets a piece's bytes at most, which is what the standard
 * lets a device do (virtio 1.2, 5.4.6). Tested in tests/virtio/test_small.c.
 */
#include "virtio/rng.h"

#include <errno.h>
#include <stdlib.h>

#include "virtio/queue.h"

#define QUEUE_SIZE 64u
#define CHAIN_MAX  16u
#define PIECE	   256u

struct virtio_rng {
	struct virtio_front front; /* first */
	struct virtio_rng_config config;
	struct virtio_queue ring;
	enum { RNG_POP, RNG_WRITE, RNG_USED } state;
	struct virtio_chain chain;
	size_t bytes, done;
	uint8_t piece[PIECE];
};

void virtio_rng_offer(struct virtio_offer *ret_offer)
{
	*ret_offer =
		(struct virtio_offer){ .kind = VIRTIO_KIND_RNG,
				       .queue_count = 1,
				       .queue_size = QUEUE_SIZE,
				       .features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
						   VIRTIO_F_EVENT_IDX };
}

static bool rng_reset(struct virtio_front *front)
{
	struct virtio_rng *rng = (struct virtio_rng *)front;

	rng->ring = (struct virtio_queue){ 0 };
	rng->state = RNG_POP;
	return true;
}

static int rng_start(struct virtio_front *front, const struct virtio_published *published)
{
	struct virtio_rng *rng = (struct virtio_rng *)front;

	if (!published->queue[0].enabled)
		return 0;
	return virtio_queue_start(&rng->ring, virtio_front_dma(front, 0), &published->queue[0],
				  front->features, CHAIN_MAX);
}

/* A chain on, as far as it goes. */
static int serve(struct virtio_rng *rng)
{
	struct virtio_front *front = &rng->front;
	int error;

	if (rng->state == RNG_POP) {
		error = virtio_front_judged(front, virtio_queue_pop(&rng->ring, &rng->chain));
		if (error < 0)
			return error;
		rng->bytes =
			rng->chain.write_bytes < PIECE ? (size_t)rng->chain.write_bytes : PIECE;
		rng->done = 0;
		rng->config.random(rng->config.ctx, rng->piece, rng->bytes);
		rng->state = RNG_WRITE;
	}
	if (rng->state == RNG_WRITE) {
		error = virtio_front_judged(front, virtio_chain_write(virtio_front_dma(front, 0),
								      &rng->chain, 0, rng->piece,
								      rng->bytes, &rng->done));
		if (error < 0)
			return error;
		rng->state = RNG_USED;
	}
	error = virtio_front_judged(
		front, virtio_queue_push(&rng->ring, rng->chain.head, (uint32_t)rng->bytes));
	if (error == 0)
		rng->state = RNG_POP;
	return error;
}

static void rng_run(struct virtio_front *front, uint16_t queue)
{
	struct virtio_rng *rng = (struct virtio_rng *)front;
	int error = 0;

	if (!rng->ring.ready)
		return;
	for (uint32_t i = 0; error == 0 && !virtio_front_share(front, queue, i); i++)
		error = serve(rng);
	virtio_front_tell(front, queue, &rng->ring);
}

static struct virtio_queue *rng_ring(struct virtio_front *front, uint16_t queue)
{
	(void)queue;
	return &((struct virtio_rng *)front)->ring;
}

static int rng_quiet(struct virtio_front *front, uint16_t queue)
{
	(void)queue;
	return ((struct virtio_rng *)front)->state == RNG_POP ? 0 : -EBUSY;
}

static void rng_destroy(struct virtio_front *front)
{
	free(front);
}

static const struct virtio_front_ops rng_ops = { .reset = rng_reset,
						 .start = rng_start,
						 .run = rng_run,
						 .ring = rng_ring,
						 .quiet = rng_quiet,
						 .destroy = rng_destroy };

int virtio_rng_create(const struct virtio_rng_config *config, const struct virtio_host *host,
		      struct virtio_front **ret_front)
{
	struct virtio_rng *rng = calloc(1, sizeof(*rng));

	if (!rng)
		return -ENOMEM;
	rng->front = (struct virtio_front){ .ops = &rng_ops, .host = *host, .queue_count = 1 };
	rng->config = *config;
	*ret_front = &rng->front;
	return 0;
}
