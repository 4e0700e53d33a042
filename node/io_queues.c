/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the io thread wants a device's queues to be, and how they get there (core/queue_place.h).
 *
 * A queue belongs where its vCPU is: the one that its vector points to, as drivers with a queue a vCPU
 * set it. There a doorbell and an interrupt are no messages, and rings and buffers are pages that the
 * node has. So when a queue that is here works, and its vCPU has been on another node for a while, the
 * queue goes after it: it begins nothing new, what is under way ends, and what is known of it is sent.
 *
 *	it works, its vCPU is elsewhere ... for AWAY_NS --> leaving --(nothing is under way)--> given
 *	QUEUE --> in the mail --(the generation has started)--> taken: one look at the ring
 *
 * A queue that has come stays for STAY_NS at least: what is under way has to end before it can leave,
 * and a vCPU that goes to and fro would have its queue do nothing else.
 *
 * Queues that nobody uses stay where they are: nothing is looked at but what works.
 *
 * In the nodes' environment EAGRE_QUEUES=stay leaves all of them where they begin. With
 * EAGRE_QUEUES=torture a queue that works goes to some other node at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/interrupt_route.h"
#include "machine/msix.h"
#include "node/io.h"
#include "node/io_state.h"
#include "node/node_state.h"
#include "virtio/front.h"

#define AWAY_NS 2000000ull
#define STAY_NS 20000000ull

void io_queues_configure(struct io *io)
{
	const char *text = getenv("EAGRE_QUEUES");
	io->torture = text && !strcmp(text, "torture") ? io->node->self + 1u : 0;
	io->still = text && !strcmp(text, "stay");
}

/* ---- which vCPU's --------------------------------------------------------------------------------- */

/* The only one that a vector reaches, or IO_NO_VCPU. */
static uint32_t vcpu_of(const struct io_device *device, uint16_t vector)
{
	const struct virtio_published *now = &device->now;
	struct interrupt interrupt;
	struct vcpu_set set;
	if (vector >= now->vector_count || vector >= VIRTIO_VECTORS_MAX || !now->msix ||
	    now->vector[vector].masked ||
	    !msi_interrupt(now->vector[vector].address, now->vector[vector].data, &interrupt) ||
	    interrupt_route(&interrupt, device->io->node->config->vcpu_count, &set) < 0)
		return IO_NO_VCPU;
	uint32_t first = vcpu_set_next(&set, 0);
	if (first >= VCPUS_MAX || vcpu_set_next(&set, first + 1) < VCPUS_MAX)
		return IO_NO_VCPU;
	return first;
}

void io_queues_published(struct io_device *device, bool new_generation)
{
	const struct virtio_published *now = &device->now;
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		struct io_queue *queue = &device->queue[q];
		if (new_generation)
			*queue = (struct io_queue){ 0 };
		queue->vcpu =
			q < now->queue_count ? vcpu_of(device, now->queue[q].vector) : IO_NO_VCPU;
	}
}

/* ---- away ----------------------------------------------------------------------------------------- */

/* Whether it is settled where the vCPU is, which is not here: *ret_node. */
static bool is_elsewhere(const struct node *node, uint32_t vcpu, uint16_t *ret_node)
{
	struct vcpu_place place;
	if (vcpu == IO_NO_VCPU)
		return false;
	place = vcpu_place_read(&node->places, vcpu);
	*ret_node = place.node;
	return place.state == PLACE_AWAY && place.node != node->self;
}

/* For tests: another node than this, or NODE_NONE. */
static uint16_t random_node(struct io *io)
{
	io->torture = io->torture * 6364136223846793005ull + 1442695040888963407ull;
	return members_pick(io->node->members, (uint32_t)(io->torture >> 33));
}

static void consider(struct io_device *device, uint16_t q, uint64_t now_ns)
{
	struct node *node = device->io->node;
	struct io_queue *queue = &device->queue[q];
	uint64_t generation = device->now.generation;
	uint16_t to;
	if (queue->leaving || device->io->still)
		return;
	if (device->io->torture) {
		to = random_node(device->io);
	} else if (!is_elsewhere(node, queue->vcpu, &to)) {
		queue->away_ns = 0;
		return;
	}
	if (!queue->away_ns || queue->to != to) {
		queue->away_ns = now_ns;
		queue->to = to;
	}
	if (!device->io->torture &&
	    (now_ns - queue->away_ns < AWAY_NS || now_ns - queue->came_ns < STAY_NS))
		return;
	if (virtio_front_leave(device->front, q) < 0)
		return;
	if (queues_leave(node, device->number, q, generation, to) < 0) {
		virtio_front_stay(device->front, q);
		return;
	}
	queue->leaving = true;
	device->leaving++;
}

static void give(struct io_device *device, uint16_t q)
{
	struct io_queue *queue = &device->queue[q];
	struct virtio_queue_state state;
	if (!queue->leaving || virtio_front_give(device->front, q, &state) < 0)
		return;
	/* Where a later generation is in the mail, all of this is forgotten with it. */
	(void)queues_give(device->io->node, device->number, q, device->now.generation, &state);
	queue->leaving = false;
	device->leaving--;
}

void io_queue_works(struct io_device *device, uint16_t queue)
{
	if (device->io->still)
		return;
	device->works[queue / 64] |= 1ull << (queue % 64);
	device->io->works |= 1u << device->number;
}

static void device_turn(struct io_device *device, uint64_t now_ns)
{
	for (uint16_t word = 0; word < QUEUE_WORDS; word++) {
		uint64_t works = device->works[word];
		device->works[word] = 0;
		for (; works && device->moves; works &= works - 1)
			consider(device, (uint16_t)(word * 64 + (uint16_t)__builtin_ctzll(works)),
				 now_ns);
	}
	for (uint16_t q = 0; device->leaving && q < device->now.queue_count; q++)
		give(device, q);
}

void io_queues_turn(struct io *io)
{
	uint64_t now_ns;
	if (!io->works)
		return;
	now_ns = node_now_ns(io->node);
	for (uint32_t i = 0; i < io->count; i++) {
		if (io->works & 1u << i)
			device_turn(&io->device[i], now_ns);
		if (!io->device[i].leaving)
			io->works &= ~(1u << i);
	}
}

/* ---- here ----------------------------------------------------------------------------------------- */

bool io_arrives(struct node *node, const struct control_queue *msg)
{
	struct io *io = node->virtio;
	if (!io || msg->device >= io->count || !io->device[msg->device].moves)
		return false;
	struct io_device *device = &io->device[msg->device];
	pthread_mutex_lock(&io->lock);
	device->arrival[msg->queue] = (struct io_arrival){
		.there = true,
		.generation = msg->generation,
		.state = { .avail_index = msg->avail_index,
			   .used_index = msg->used_index,
			   .told_index = msg->told_index },
	};
	pthread_mutex_unlock(&io->lock);
	io_mail_there(io, msg->device);
	return true;
}

/* False: it has to wait for its generation's start. */
static bool take(struct io_device *device, uint16_t q, const struct io_arrival *arrival)
{
	struct node *node = device->io->node;
	uint64_t generation = device->now.generation;
	if (arrival->generation != generation)
		return arrival->generation < generation;
	int r = virtio_front_take(device->front, q, &arrival->state);
	if (r == -EAGAIN)
		return false;
	device->queue[q].came_ns = node_now_ns(node);
	if (queues_taken(node, device->number, q, generation) == 0 && r < 0)
		queues_needs_reset(node, device->number, generation);
	return true;
}

void io_queues_arrive(struct io_device *device)
{
	for (uint16_t q = 0; device->moves && q < VIRTIO_QUEUES_MAX; q++) {
		pthread_mutex_lock(&device->io->lock);
		struct io_arrival arrival = device->arrival[q];
		pthread_mutex_unlock(&device->io->lock);
		if (!arrival.there || !take(device, q, &arrival))
			continue;
		pthread_mutex_lock(&device->io->lock);
		/* Of a later generation there may be another one by now. */
		if (device->arrival[q].generation == arrival.generation)
			device->arrival[q].there = false;
		pthread_mutex_unlock(&device->io->lock);
	}
}
