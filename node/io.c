/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io thread (io.h): what it does while the pod runs. What it has is opened in io_open.c.
 *
 * What others want of it is in two places: bits, set without a lock, for doorbells and memory that
 * has come, and a mailbox a device, behind a lock, for what its registers say. A thread that leaves
 * something wakes it only if it sleeps, so a busy guest's doorbells cost an atomic operation each:
 *
 *	io thread: sleeping = true; anything there? -> do that, else wait for wake_fd and all others
 *	others:    leave something; if sleeping was true, it no longer is, and wake_fd is written to
 *
 * Interrupts go out by the vectors that the guest has set; one for a vector that is masked waits
 * until a later publication has it unmasked.
 */
#include "node/io.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "machine/msix.h"
#include "node/disk_service.h"
#include "node/io_state.h"
#include "node/net_service.h"
#include "node/node_state.h"
#include "node/say.h"
#include "pager/free.h"
#include "pager/window.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/net.h"
#include "virtio/rng.h"

#define EVENTS_MAX 32
#define TICK_MS	   1000 /* of whatever waits for no event */

/* After something was left for the thread. Pairs with may_sleep(). */
static void wake(struct io *io)
{
	if (atomic_load(&io->sleeping) && atomic_exchange(&io->sleeping, false))
		eventfd_write(io->wake_fd, 1);
}

void io_doorbell(struct node *node, uint8_t device, uint16_t queue)
{
	struct io *io = node->virtio;
	if (!io || device >= io->count || !io->device[device].front ||
	    queue >= io->device[device].offer.queue_count)
		return;
	atomic_fetch_or(&io->device[device].rung[queue / 64], 1ull << (queue % 64));
	atomic_fetch_or(&io->rung, 1u << device);
	wake(io);
}

void io_look_wanted(struct io *io)
{
	atomic_store(&io->look, true);
	wake(io);
}

void io_mail_there(struct io *io, uint8_t device)
{
	atomic_fetch_or(&io->posted, 1u << device);
	wake(io);
}

bool io_publish(struct node *node, const struct virtio_published *published)
{
	struct io *io = node->virtio;
	if (!io || published->device >= io->count)
		return false;
	struct io_device *device = &io->device[published->device];
	/* At once: what frees pages must not go on when the driver's kernel has given way to another. */
	if (device->front && device->balloon)
		pager_free_allow(node->pager, published->running);
	pthread_mutex_lock(&io->lock);
	device->post = *published;
	device->posted = true;
	pthread_mutex_unlock(&io->lock);
	io_mail_there(io, published->device);
	return true;
}

void io_memory_ready(void *ctx)
{
	struct node *node = ctx;
	atomic_store(&node->virtio->memory, true);
	wake(node->virtio);
}

static void send_vector(struct io_device *device, uint16_t vector)
{
	const struct virtio_published *now = &device->now;
	struct interrupt interrupt;
	if (vector >= now->vector_count || vector >= VIRTIO_VECTORS_MAX)
		return;
	if (now->vector[vector].masked)
		device->pending[vector / 64] |= 1ull << (vector % 64);
	else if (msi_interrupt(now->vector[vector].address, now->vector[vector].data, &interrupt))
		guest_io_interrupt(device->io->node, &interrupt);
}

static bool same_vector(const struct virtio_published_vector *a,
			const struct virtio_published_vector *b)
{
	return a->address == b->address && a->data == b->data && a->masked == b->masked;
}

/*
 * Interrupts that were sent by an old word may have gone to a vector that the driver has given up
 * meanwhile, as the new word was still on its way: they are sent again, at each change, as what was
 * sent at the last may have gone the same way. One too many does no harm.
 */
static void send_again(struct io_device *device, const struct virtio_published *before)
{
	const struct virtio_published *now = &device->now;
	for (uint16_t q = 0; q < now->queue_count; q++) {
		uint16_t vector = now->queue[q].vector;
		if (!device->queue[q].told || vector >= now->vector_count ||
		    (before->queue[q].vector == vector &&
		     same_vector(&before->vector[vector], &now->vector[vector])))
			continue;
		send_vector(device, vector);
	}
}

static void send_pending(struct io_device *device)
{
	for (uint16_t word = 0; word < VECTOR_WORDS; word++) {
		uint64_t pending = device->pending[word];
		device->pending[word] = 0; /* what is masked is noted again */
		while (pending) {
			uint16_t bit = (uint16_t)__builtin_ctzll(pending);
			pending &= pending - 1;
			send_vector(device, (uint16_t)(word * 64 + bit));
		}
	}
}

static struct dma *host_dma(void *ctx, uint16_t queue)
{
	struct io_device *device = ctx;
	return pager_window(device->io->node->pager, device->window_first + queue);
}

static void host_interrupt(void *ctx, uint16_t queue)
{
	struct io_device *device = ctx;
	io_queue_works(device, queue);
	device->queue[queue].told = true;
	if (queue < device->now.queue_count)
		send_vector(device, device->now.queue[queue].vector);
}

static void host_needs_reset(void *ctx)
{
	struct io_device *device = ctx;
	/* Once: what a driver can do it can do again and again. */
	if (!device->broke)
		node_say(device->io->node,
			 "the guest's driver of PCI device 00:%02x.0 did what no driver may; the "
			 "device stands still until it is reset",
			 device->number + 1u);
	device->broke = true;
	queues_needs_reset(device->io->node, device->number, device->now.generation);
}

static void host_again(void *ctx, uint16_t queue)
{
	struct io_device *device = ctx;
	io_doorbell(device->io->node, device->number, queue);
}

static void host_random(void *ctx, void *to, size_t bytes)
{
	uint8_t *at = to;
	while (bytes) {
		ssize_t got = getrandom(at, bytes, GRND_NONBLOCK);
		if (got <= 0)
			continue;
		at += got;
		bytes -= (size_t)got;
	}
}

static int host_free(void *ctx, const struct dma_span *span, uint32_t count)
{
	struct io_device *device = ctx;
	return pager_free(device->io->node->pager, span, count);
}

static void host_stopped(void *ctx, uint64_t generation)
{
	struct io_device *device = ctx;
	queues_stopped(device->io->node, device->number, generation);
}

static void take_publication(struct io_device *device, const struct virtio_published *post)
{
	bool first = !device->known || post->generation != device->now.generation;
	struct virtio_published before = device->now;
	device->known = true;
	device->now = *post;
	if (first) {
		memset(device->pending, 0, sizeof(device->pending));
		device->leaving = 0;
	}
	io_queues_published(device, first);
	if (!first)
		send_again(device, &before);
	if (device->front)
		virtio_front_publish(device->front, &device->now);
	else if (first)
		queues_stopped(device->io->node, device->number, device->now.generation);
	send_pending(device);
}

static void take_mail(struct io *io)
{
	struct virtio_published post;
	uint32_t devices = atomic_load(&io->posted) ? atomic_exchange(&io->posted, 0) : 0;
	while (devices) {
		struct io_device *device = &io->device[__builtin_ctz(devices)];
		devices &= devices - 1;
		pthread_mutex_lock(&io->lock);
		bool posted = device->posted;
		device->posted = false;
		if (posted)
			post = device->post;
		pthread_mutex_unlock(&io->lock);
		if (posted)
			take_publication(device, &post);
		io_queues_arrive(device);
	}
}

static void take_doorbells(struct io *io)
{
	uint32_t devices = atomic_load(&io->rung) ? atomic_exchange(&io->rung, 0) : 0;
	while (devices) {
		struct io_device *device = &io->device[__builtin_ctz(devices)];
		devices &= devices - 1;
		for (uint16_t word = 0; word < QUEUE_WORDS; word++) {
			uint64_t queues = atomic_exchange(&device->rung[word], 0);
			while (queues) {
				uint16_t queue =
					(uint16_t)(word * 64 + (uint16_t)__builtin_ctzll(queues));
				queues &= queues - 1;
				if (queues_send_on(io->node, device->number, queue))
					continue;
				io_queue_works(device, queue);
				if (device->front)
					virtio_front_work(device->front, queue);
			}
		}
		/* What was sent may have been answered at once. */
		if (device->net)
			virtio_net_ready(device->front);
		if (device->streams)
			io_streams_work(device->streams);
	}
}

static struct io_device *device_of_window(struct io *io, uint32_t window)
{
	uint32_t i = 0;
	while (i + 1 < io->count && window >= io->device[i + 1].window_first)
		i++;
	return &io->device[i];
}

static void take_freed(struct io *io)
{
	if (!pager_freed(io->node->pager))
		return;
	for (uint32_t i = 0; i < io->count; i++)
		if (io->device[i].balloon)
			virtio_balloon_freed(io->device[i].front);
}

static void take_memory(struct io *io)
{
	uint32_t window;
	if (!atomic_load(&io->memory))
		return;
	atomic_store(&io->memory, false);
	take_freed(io);
	while ((window = pager_window_ready(io->node->pager)) != UINT32_MAX) {
		struct io_device *device = device_of_window(io, window);
		virtio_front_work(device->front, (uint16_t)(window - device->window_first));
	}
}

void io_disk_done(struct io_device *device)
{
	struct disk_request *request;
	members_for_each_other(device->io->node->members, n)
		if (device->service[n])
			disk_service_work(device->service[n]);
	while (device->front && (request = disk_done(device->disk))) {
		disk_counts_add(&device->disk_counts, request);
		virtio_blk_done(device->front, request);
	}
}

static void work_disk(struct io_device *device)
{
	disk_work(device->disk);
	io_disk_done(device);
}

void io_net_ready(struct io_device *device)
{
	if (device->front)
		virtio_net_ready(device->front);
	if (device->net_service)
		net_service_work(device->net_service);
}

static void work_net(struct io_device *device)
{
	net_work(device->net);
	io_net_ready(device);
}

static void settle(struct io *io)
{
	for (uint32_t i = 0; i < io->count; i++) {
		if (io->device[i].disk)
			disk_settle(io->device[i].disk);
		if (io->device[i].net)
			net_settle(io->device[i].net);
	}
	io_peers_flush(io);
}

/* Nothing was left until now, and who leaves something from now on wakes the thread. */
static bool may_sleep(struct io *io)
{
	atomic_store(&io->sleeping, true);
	if (!atomic_load(&io->rung) && !atomic_load(&io->posted) && !atomic_load(&io->memory) &&
	    !atomic_load(&io->look))
		return true;
	atomic_store(&io->sleeping, false);
	return false;
}

static void take_event(struct io *io, uint32_t which)
{
	eventfd_t count;
	if (which == WAKE_EVENT)
		(void)!eventfd_read(io->wake_fd, &count);
	else if (which >= PEER_EVENT)
		io_peer_event(io, (uint16_t)(which - PEER_EVENT));
	else if (io->device[which].disk)
		work_disk(&io->device[which]);
	else if (io->device[which].net)
		work_net(&io->device[which]);
}

static bool has_backs(const struct io *io)
{
	for (uint32_t i = 0; i < io->count; i++)
		if (io->device[i].info.kind && io->device[i].node == io->node->self)
			return true;
	return false;
}

static void *io_thread(void *arg)
{
	struct io *io = arg;
	struct epoll_event events[EVENTS_MAX];
	int tick_ms = has_backs(io) ? TICK_MS : -1;
	pthread_setname_np(pthread_self(), "io");
	while (!node_has_ended(io->node)) {
		if (atomic_load(&io->look) && atomic_exchange(&io->look, false))
			io_look(io);
		take_mail(io);
		take_memory(io);
		take_doorbells(io);
		io_queues_turn(io);
		settle(io);
		disk_counts_raise(&io->turns, 1);
		int n = epoll_wait(io->epoll_fd, events, EVENTS_MAX, may_sleep(io) ? tick_ms : 0);
		atomic_store(&io->sleeping, false);
		for (int i = 0; i < n; i++)
			take_event(io, events[i].data.u32);
	}
	return NULL;
}

/* Whatever needs no more of a node than what all have. */
static bool io_moves(const struct io_device *device)
{
	return device->offer.kind == VIRTIO_KIND_BLOCK || device->offer.kind == VIRTIO_KIND_RNG;
}

bool io_has_front(const struct io_device *device)
{
	return io_moves(device) || members_seat_is_here(device->io->node->members, SEAT_PC);
}

static int start_device(struct io_device *device)
{
	struct virtio_host host = { .ctx = device,
				    .dma = host_dma,
				    .interrupt = host_interrupt,
				    .needs_reset = host_needs_reset,
				    .again = host_again,
				    .stopped = host_stopped,
				    .queues_elsewhere = !members_seat_is_here(
					    device->io->node->members, SEAT_PC) };
	struct virtio_blk_config disk = { .disk = device->disk,
					  .queue_count = device->offer.queue_count,
					  .in_place = device->in_place };
	struct virtio_net_config net = { .net = device->net };
	struct virtio_rng_config rng = { .random = host_random };
	struct virtio_balloon_config balloon = { .free = host_free, .ctx = device };
	memcpy(net.mac, device->mac, sizeof(net.mac));
	if (!io_has_front(device))
		return 0;
	device->moves = io_moves(device);
	if (device->disk)
		return virtio_blk_create(&disk, &host, &device->front);
	if (device->net) {
		net.pairs = device->net->info.pairs;
		return virtio_net_create(&net, &host, &device->front);
	}
	if (device->streams)
		return io_streams_start(device->streams, &host);
	if (device->balloon)
		return virtio_balloon_create(&balloon, &host, &device->front);
	return virtio_rng_create(&rng, &host, &device->front);
}

int io_start(struct node *node)
{
	struct io *io = node->virtio;
	int r = 0;
	if (!io)
		return 0;
	r = io_peers_start(io);
	for (uint32_t i = 0; !r && i < io->count; i++)
		r = start_device(&io->device[i]);
	if (!r)
		r = -pthread_create(&io->thread, NULL, io_thread, io);
	if (!r)
		pthread_detach(io->thread);
	return r;
}

void io_end(struct node *node)
{
	if (node->virtio)
		say_close(node->virtio->say, SAY_FLUSH_MS);
}
