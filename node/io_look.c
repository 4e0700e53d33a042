/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node's io thread has in hand, as lines for who looks for a fault: of each queue how far its ring
 * has been worked on, of each card how much was promised, sent and taken (io_state.h).
 *
 * Only the io thread may read all that, and nobody is to wait for it. So who asks gets the lines of when
 * they were asked for last, and has new ones made: who wants to know of now asks twice. The thread makes
 * them when it is woken, before it does anything: they tell what it slept upon.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "node/io_state.h"
#include "node/net_service.h"
#include "node/node_state.h"
#include "node/remote_net.h"
#include "virtio/front.h"
#include "virtio/net.h"

struct lines {
	char *text;
	size_t size, length;
};

/* One more, if all of it has room. */
__attribute__((format(printf, 2, 3))) static void line(struct lines *lines, const char *format, ...)
{
	size_t room = lines->size - lines->length;
	va_list args;
	va_start(args, format);
	int n = vsnprintf(lines->text + lines->length, room, format, args);
	va_end(args);
	if (n >= 0 && (size_t)n < room)
		lines->length += (size_t)n;
	else
		lines->text[lines->length] = '\0';
}

static void look_at_queue(struct lines *lines, struct io_device *device, uint16_t q)
{
	const struct virtio_queue *ring = device->front->ops->ring(device->front, q);
	char more[VIRTIO_NET_SAY_BYTES] = "";
	if (!ring->ready || (!ring->avail_index && !ring->armed))
		return;
	if (device->net)
		virtio_net_say(device->front, q, more);
	line(lines, "device %u queue %u: next %u of %u, used %u, told %u%s%s%s\n", device->number,
	     q, ring->avail_index, ring->avail_seen, ring->used_index, ring->told_index,
	     ring->armed ? ", armed" : "", ring->walk.under_way ? ", in a chain" : "", more);
}

static void look_at_card(struct lines *lines, struct io_device *device)
{
	for (uint16_t pair = 0; pair < device->info.net.pairs; pair++) {
		struct remote_net_look far;
		struct net_service_look here;
		if (device->remote_net) {
			remote_net_look(device->remote_net, pair, &far);
			line(lines,
			     "device %u pair %u: arrived %" PRIu64 ", taken %" PRIu64
			     ", promised %" PRIu64 "%s, runs on their way %u\n",
			     device->number, pair, far.arrived, far.taken, far.promised,
			     far.room_waits ? ", a promise waits" : "", far.runs);
		}
		if (device->net_service) {
			net_service_look(device->net_service, pair, &here);
			line(lines,
			     "device %u pair %u: sent %" PRIu64 " of %" PRIu64
			     ", runs on their way %u\n",
			     device->number, pair, here.sent, here.limit, here.runs);
		}
	}
}

static void look(struct io *io, struct lines *lines)
{
	line(lines, "rung %x, mail %x, memory %u\n", (unsigned int)atomic_load(&io->rung),
	     (unsigned int)atomic_load(&io->posted), atomic_load(&io->memory));
	members_for_each_other(io->node->members, n)
		if (io->peer[n].full)
			line(lines, "the socket to node %u is full\n", n);
	for (uint32_t i = 0; i < io->count; i++) {
		struct io_device *device = &io->device[i];
		for (uint16_t q = 0;
		     device->front && device->front->ops->ring && q < device->offer.queue_count;
		     q++)
			look_at_queue(lines, device, q);
		if (device->info.kind == VIRTIO_KIND_NET)
			look_at_card(lines, device);
	}
}

void io_look(struct io *io)
{
	struct lines lines = { io->looked, sizeof(io->looked), 0 };
	pthread_mutex_lock(&io->lock);
	io->looked[0] = '\0';
	look(io, &lines);
	pthread_mutex_unlock(&io->lock);
}

void io_look_get(struct io *io, char *to)
{
	pthread_mutex_lock(&io->lock);
	memcpy(to, io->looked, sizeof(io->looked));
	pthread_mutex_unlock(&io->lock);
	io_look_wanted(io);
}
