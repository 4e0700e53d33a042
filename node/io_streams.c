/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command's streams between the console's thread (console.h) and the virtio port (virtio/console.h)
 * on the io thread. Neither waits for the other:
 *
 *	console's thread                                              io thread
 *	io_streams_input() --> a ring here, then the queue's bit ---> virtio_console_input()
 *	       ^-- console_input_room() <------------------------------- once half of it is free
 *	console_offer()'s ring <------------------------------------- output()
 *	io_streams_room(): the queue's bit -------------------------> the guest's rings go on
 *
 * Output that finds no room stays in the guest's rings. The device is the last of the pod's, and
 * where the PC is, as the standard streams are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/channel.h"
#include "node/io.h"
#include "node/io_state.h"
#include "node/node_state.h"
#include "virtio/console.h"

int io_streams_open(struct io *io, struct io_device *device)
{
	struct io_streams *streams = calloc(1, sizeof(*streams));
	if (!streams)
		return -ENOMEM;
	pthread_mutex_init(&streams->lock, NULL);
	streams->device = device;
	device->streams = io->streams = streams;
	return 0;
}

static size_t on_output(void *ctx, const void *bytes, size_t count)
{
	struct io_streams *streams = ctx;
	return console_offer(streams->device->io->node->console, CONSOLE_VIRTIO, bytes, count);
}

static void on_room(void *ctx)
{
	io_streams_work(ctx);
}

int io_streams_start(struct io_streams *streams, const struct virtio_host *host)
{
	struct virtio_console_config config = {
		.name = CHANNEL_GUEST_PORT, .output = on_output, .room = on_room, .ctx = streams
	};
	return virtio_console_create(&config, host, &streams->device->front);
}

static void ring(const struct io_streams *streams, uint16_t queue)
{
	io_doorbell(streams->device->io->node, streams->device->number, queue);
}

size_t io_streams_input(struct node *node, const uint8_t *data, size_t size)
{
	struct io_streams *streams = node->virtio->streams;
	size_t taken = 0;
	pthread_mutex_lock(&streams->lock);
	while (taken < size && streams->size < IO_STREAMS_BYTES) {
		size_t end = (streams->start + streams->size) % IO_STREAMS_BYTES;
		size_t part = end < streams->start ? streams->start - end : IO_STREAMS_BYTES - end;
		if (part > size - taken)
			part = size - taken;
		memcpy(streams->input + end, data + taken, part);
		streams->size += part;
		taken += part;
	}
	streams->refused = taken < size;
	pthread_mutex_unlock(&streams->lock);
	if (taken)
		ring(streams, VIRTIO_CONSOLE_QUEUE_INPUT);
	return taken;
}

void io_streams_room(struct node *node)
{
	ring(node->virtio->streams, VIRTIO_CONSOLE_QUEUE_OUTPUT);
}

/* What there is goes on as far as the port takes it. */
void io_streams_work(struct io_streams *streams)
{
	size_t part, taken;
	bool room;
	pthread_mutex_lock(&streams->lock);
	do {
		part = IO_STREAMS_BYTES - streams->start;
		if (part > streams->size)
			part = streams->size;
		taken = part ? virtio_console_input(streams->device->front,
						    streams->input + streams->start, part)
			     : 0;
		streams->start = (streams->start + taken) % IO_STREAMS_BYTES;
		streams->size -= taken;
	} while (part && taken == part);
	room = streams->refused && streams->size < IO_STREAMS_BYTES / 2;
	streams->refused &= !room;
	pthread_mutex_unlock(&streams->lock);
	if (room)
		console_input_room(streams->device->io->node->console);
}
