/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a virtio device's front half, which is the same for all kinds: see front.h.
 *
 *	a new generation:  reset() --(nothing is under way)--> stopped() is told
 *	it runs:           start() once, then configure() and run() of every queue
 *	it breaks:         reset(), needs_reset() is told; nothing more until a new generation
 *	not running:       a pause; nothing is touched, and everything stays where it is
 *
 * Tested with each kind in tests/virtio.
 */
#include "virtio/front.h"

#include <errno.h>

#include "virtio/queue.h"

#define SHARE 512u

void virtio_front_stopped(struct virtio_front *front)
{
	/* What a broken device had under way is over: nobody waits for that, but for its reset. */
	if (!front->broken)
		front->host.stopped(front->host.ctx, front->generation);
}

static void begin_generation(struct virtio_front *front, uint64_t generation)
{
	front->known = true;
	front->generation = generation;
	front->running = front->started = front->broken = false;
	if (front->ops->reset(front))
		virtio_front_stopped(front);
}

/* What start() has begun is elsewhere. */
static void put_away(struct virtio_front *front)
{
	struct virtio_queue_state state;

	for (uint16_t i = 0; front->ops->ring && i < front->queue_count; i++)
		virtio_queue_give(front->ops->ring(front, i), &state);
}

void virtio_front_publish(struct virtio_front *front, const struct virtio_published *published)
{
	if (!front->known || published->generation != front->generation)
		begin_generation(front, published->generation);
	front->running = published->running;
	if (!front->running || front->broken)
		return;
	if (!front->started) {
		front->started = true;
		front->features = published->features;
		if (front->ops->start(front, published) < 0) {
			virtio_front_broken(front);
			return;
		}
		if (front->host.queues_elsewhere)
			put_away(front);
	}
	if (front->ops->configure)
		front->ops->configure(front, published);
	for (uint16_t i = 0; i < front->queue_count; i++)
		virtio_front_work(front, i);
}

void virtio_front_work(struct virtio_front *front, uint16_t queue)
{
	if (virtio_front_runs(front) && queue < front->queue_count)
		front->ops->run(front, queue);
}

/* The ring of a queue that may move and is here, of a device that runs; NULL: it is not so. */
static struct virtio_queue *seated(struct virtio_front *front, uint16_t queue)
{
	struct virtio_queue *ring;

	if (!virtio_front_runs(front) || queue >= front->queue_count || !front->ops->ring)
		return NULL;
	ring = front->ops->ring(front, queue);
	return ring->ready && !ring->broken ? ring : NULL;
}

int virtio_front_leave(struct virtio_front *front, uint16_t queue)
{
	struct virtio_queue *ring = seated(front, queue);

	if (!ring)
		return front->ops->ring ? -EBUSY : -EOPNOTSUPP;
	if (front->ops->quiet(front, queue) == -EOPNOTSUPP)
		return -EOPNOTSUPP;
	virtio_queue_leave(ring);
	virtio_front_work(front, queue);
	return 0;
}

void virtio_front_stay(struct virtio_front *front, uint16_t queue)
{
	struct virtio_queue *ring = seated(front, queue);

	if (!ring)
		return;
	ring->leaving = false;
	virtio_front_work(front, queue);
}

int virtio_front_give(struct virtio_front *front, uint16_t queue,
		      struct virtio_queue_state *ret_state)
{
	struct virtio_queue *ring = seated(front, queue);

	if (!ring || !ring->leaving || front->ops->quiet(front, queue) < 0)
		return -EBUSY;
	virtio_queue_give(ring, ret_state);
	return 0;
}

int virtio_front_take(struct virtio_front *front, uint16_t queue,
		      const struct virtio_queue_state *state)
{
	int error;

	if (queue >= front->queue_count || !front->ops->ring)
		return -EPROTO;
	if (!front->started)
		return -EAGAIN;
	/* A broken device touches nothing more: the queue is lost with it, until its reset. */
	if (front->broken)
		return 0;
	error = virtio_queue_take(front->ops->ring(front, queue), state);
	if (error == 0)
		virtio_front_work(front, queue);
	return error;
}

int virtio_front_broken(struct virtio_front *front)
{
	if (!front->broken) {
		front->broken = true;
		(void)front->ops->reset(front);
		front->host.needs_reset(front->host.ctx);
	}
	return -EPROTO;
}

int virtio_front_judged(struct virtio_front *front, int error)
{
	return error == 0 || error == -EAGAIN || error == -ENOENT ? error
								  : virtio_front_broken(front);
}

void virtio_front_tell(struct virtio_front *front, uint16_t index, struct virtio_queue *queue)
{
	bool wanted = false;

	if (virtio_front_runs(front) &&
	    virtio_front_judged(front, virtio_queue_interrupt(queue, &wanted)) == 0 && wanted)
		front->host.interrupt(front->host.ctx, index);
}

bool virtio_front_share(struct virtio_front *front, uint16_t queue, uint32_t done)
{
	if (done < SHARE || !front->host.again)
		return false;
	front->host.again(front->host.ctx, queue);
	return true;
}
