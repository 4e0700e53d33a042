/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console's front half (virtio 1.2, 5.3), one port: bytes both ways, bounded both ways.
 *
 *	queue 0  what the guest reads        queue 2  control: what the device says
 *	queue 1  what it writes              queue 3           what the driver says
 *
 * A driver that agrees on MULTIPORT, as Linux does, finds a port that is no console but a file of
 * bytes (/dev/vport0p0), which can be waited for; it goes by the name below. To one that does not,
 * the port is a console, and queues 2 and 3 are not there.
 */
#ifndef VIRTIO_CONSOLE_H
#define VIRTIO_CONSOLE_H

#include <stddef.h>

#include "virtio/front.h"

#define VIRTIO_CONSOLE_INPUT_MAX 65536u /* bytes that wait for the guest's buffers */
#define VIRTIO_CONSOLE_NAME_MAX	 64u

enum {
	VIRTIO_CONSOLE_QUEUE_INPUT,
	VIRTIO_CONSOLE_QUEUE_OUTPUT,
	VIRTIO_CONSOLE_QUEUE_TELL,
	VIRTIO_CONSOLE_QUEUE_HEAR,
	VIRTIO_CONSOLE_QUEUES,
};

struct virtio_console_config {
	const char *name; /* the port's, fewer than VIRTIO_CONSOLE_NAME_MAX bytes */
	/*
	 * What the guest wrote: how many of the bytes were taken. They lie in guest memory, which the
	 * guest may be writing to. After fewer than all, the rest comes with virtio_console_ready(),
	 * or by itself when the guest writes more.
	 */
	size_t (*output)(void *ctx, const void *bytes, size_t count);
	/* There is room for input again, after it was refused. May be NULL. */
	void (*room)(void *ctx);
	void *ctx;
};

void virtio_console_offer(struct virtio_offer *ret_offer);

/* 0 or -ENOMEM. */
int virtio_console_create(const struct virtio_console_config *config,
			  const struct virtio_host *host, struct virtio_front **ret_front);

/* For the guest to read: how many were taken. */
size_t virtio_console_input(struct virtio_front *front, const void *bytes, size_t count);

/* Output is taken again. */
void virtio_console_ready(struct virtio_front *front);

#endif
