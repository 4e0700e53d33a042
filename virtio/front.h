/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front half of a virtio device: what is common to all kinds, as the io thread sees them.
 *
 *	registers --- virtio_front_publish() --->  front half  ---- interrupt(), needs_reset() --->
 *	doorbells --- virtio_front_work() ------>   (rings)    ---- stopped() ------------------->
 *	memory is there: virtio_front_work()            |
 *	                                     the kind's own back half
 *
 * One thread makes all calls, and is called back in them. A front half never waits: what guest
 * memory or a back half cannot do now stays where it is, in the guest's ring or in a table of bounded
 * size, until virtio_front_work() of that queue, or the back half's answer, brings it on.
 *
 * The guest is hostile. What it writes into rings is copied once and then judged. What no correct
 * driver does breaks the device: needs_reset() is called once, and nothing more of its memory is
 * touched until a new generation is published.
 *
 * A device may have a front half on each of several nodes. Then each queue is at one of them:
 *
 *	(begins there, or take()) ---> it is here -- leave() --> nothing new is begun -- give() --> elsewhere
 *
 * Who says which, and hands over what give() has for take(), is around them (core/queue_place.h).
 */
#ifndef VIRTIO_FRONT_H
#define VIRTIO_FRONT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dma.h"
#include "virtio/published.h"

/* Those around it. */
struct virtio_host {
	void *ctx;
	/* A queue's way to guest memory: the same one for the device's life. After -EAGAIN from it,
	 * virtio_front_work() of this queue is called when another try is worth it. */
	struct dma *(*dma)(void *ctx, uint16_t queue);
	/* The queue has used buffers that the driver wants to hear of. */
	void (*interrupt)(void *ctx, uint16_t queue);
	void (*needs_reset)(void *ctx);
	/*
	 * The queue has more than is its share of the thread's time: virtio_front_work() of it is to be
	 * called again, after the others had their turn. NULL: it goes on without end.
	 */
	void (*again)(void *ctx, uint16_t queue);
	/* Nothing of generations before this one is under way any more. */
	void (*stopped)(void *ctx, uint64_t generation);
	/* A generation's queues begin at another front half. */
	bool queues_elsewhere;
};

struct virtio_front;
struct virtio_queue;
struct virtio_queue_state;

/* What a kind of device does; front.c does what all do. */
struct virtio_front_ops {
	/*
	 * A generation ends: everything is let go of. False: something is under way all the same, and
	 * virtio_front_stopped() is called when it is not any more. Also when the device has broken.
	 */
	bool (*reset)(struct virtio_front *front);
	/* A generation begins: queues are started. 0, or -EPROTO: no correct driver asks for that. */
	int (*start)(struct virtio_front *front, const struct virtio_published *published);
	/* While it runs, after each publication; before the queues run. May be NULL. */
	void (*configure)(struct virtio_front *front, const struct virtio_published *published);
	/* What there is to do for a queue; the device runs, and the queue's number is in range. */
	void (*run)(struct virtio_front *front, uint16_t queue);
	/* The queue's ring. NULL: queues of this kind do not move. */
	struct virtio_queue *(*ring)(struct virtio_front *front, uint16_t queue);
	/*
	 * Of a queue that is leaving: 0: nothing is under way; -EBUSY; -EOPNOTSUPP: this one does not
	 * move. What need not be finished is let go of.
	 */
	int (*quiet)(struct virtio_front *front, uint16_t queue);
	void (*destroy)(struct virtio_front *front);
};

/* The beginning of every kind. */
struct virtio_front {
	const struct virtio_front_ops *ops;
	struct virtio_host host;
	uint16_t queue_count;
	uint64_t generation;
	uint64_t features; /* agreed on */
	bool known;	   /* a generation has been published */
	bool running, started, broken;
};

/* The device's registers have changed: virtio/published.h says what that means. */
void virtio_front_publish(struct virtio_front *front, const struct virtio_published *published);

/* A doorbell rang, or memory is there. Any queue number is fine, also one too often. */
void virtio_front_work(struct virtio_front *front, uint16_t queue);

/*
 * A queue that is here. leave(): 0: nothing new is begun of it from now on. -EBUSY: it is not here,
 * or the device does not run. -EOPNOTSUPP: it does not move. stay(): it may be worked on again.
 */
int virtio_front_leave(struct virtio_front *front, uint16_t queue);
void virtio_front_stay(struct virtio_front *front, uint16_t queue);
/* Of a queue that is leaving: 0: *ret_state, and it is elsewhere; -EBUSY: not yet, to be asked again
 * when something of it has ended. A new generation forgets that it was leaving. */
int virtio_front_give(struct virtio_front *front, uint16_t queue,
		      struct virtio_queue_state *ret_state);
/* It is here, and is worked on. 0; -EAGAIN: once the generation has started; -EPROTO: there is no such
 * queue, or it is here. */
int virtio_front_take(struct virtio_front *front, uint16_t queue,
		      const struct virtio_queue_state *state);

/* Its back half has given back all that it had. NULL is fine. */
static inline void virtio_front_destroy(struct virtio_front *front)
{
	if (front)
		front->ops->destroy(front);
}

/* For the kinds. */

static inline bool virtio_front_runs(const struct virtio_front *front)
{
	return front->running && front->started && !front->broken;
}

static inline struct dma *virtio_front_dma(const struct virtio_front *front, uint16_t queue)
{
	return front->host.dma(front->host.ctx, queue);
}

/* The driver has broken the device: -EPROTO. */
int virtio_front_broken(struct virtio_front *front);

/* An error of guest memory or of a ring: what is the driver's fault breaks the device. 0, -EAGAIN and
 * -ENOENT are handed on. */
int virtio_front_judged(struct virtio_front *front, int error);

/* What reset() could not let go of is over. */
void virtio_front_stopped(struct virtio_front *front);

/* The driver hears of what was pushed, if it wants to. */
void virtio_front_tell(struct virtio_front *front, uint16_t index, struct virtio_queue *queue);

/* Whether `done` chains in a row are a queue's share: then it comes again after the others. */
bool virtio_front_share(struct virtio_front *front, uint16_t queue, uint32_t done);

#endif
