/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command ring: see queue.h. Tested through the pager (tests/memory/test_pager.c).
 */
#include "pager/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int pager_queue_init(struct pager_queue *queue, uint32_t size)
{
	*queue = (struct pager_queue){ .event_fd = -1, .size = size };
	queue->command = calloc(queue->size, sizeof(*queue->command));
	if (!queue->command)
		return -ENOMEM;
	queue->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->event_fd < 0) {
		free(queue->command);
		queue->command = NULL;
		return -errno;
	}
	pthread_mutex_init(&queue->mutex, NULL);
	return 0;
}

void pager_queue_destroy(struct pager_queue *queue)
{
	if (!queue->command)
		return;
	pthread_mutex_destroy(&queue->mutex);
	close(queue->event_fd);
	free(queue->command);
	queue->command = NULL;
}

/* An eventfd's counter cannot overflow here, so the write cannot fail. */
static void ring_bell(struct pager_queue *queue)
{
	uint64_t one = 1;
	ssize_t done = write(queue->event_fd, &one, sizeof(one));

	assert(done == (ssize_t)sizeof(one));
	(void)done;
}

int pager_queue_post(struct pager_queue *queue, const struct pager_command *command)
{
	bool closed;

	pthread_mutex_lock(&queue->mutex);
	closed = queue->closed;
	if (!closed) {
		assert(queue->count < queue->size);
		queue->command[(queue->first + queue->count) % queue->size] = *command;
		queue->count++;
	}
	pthread_mutex_unlock(&queue->mutex);
	if (closed)
		return -ESHUTDOWN;
	ring_bell(queue);
	return 0;
}

bool pager_queue_closed(struct pager_queue *queue)
{
	bool closed;

	pthread_mutex_lock(&queue->mutex);
	closed = queue->closed;
	pthread_mutex_unlock(&queue->mutex);
	return closed;
}

void pager_queue_close(struct pager_queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	queue->closed = true;
	queue->count = 0;
	pthread_mutex_unlock(&queue->mutex);
	ring_bell(queue);
}

uint32_t pager_queue_take(struct pager_queue *queue, struct pager_command *ret_command,
			  uint32_t max)
{
	uint64_t rings;
	uint32_t taken = 0;
	/* Quiet first: a command posted after the look below rings again. */
	ssize_t quiet = read(queue->event_fd, &rings, sizeof(rings));

	(void)quiet;
	pthread_mutex_lock(&queue->mutex);
	while (taken < max && queue->count > 0) {
		ret_command[taken++] = queue->command[queue->first];
		queue->first = (queue->first + 1) % queue->size;
		queue->count--;
	}
	if (queue->count > 0)
		ring_bell(queue);
	pthread_mutex_unlock(&queue->mutex);
	return taken;
}
