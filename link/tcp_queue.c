// SPDX-License-Identifier: Apache-2.0
/*
 * The send queue of a TCP channel.
 *
 * The common case is a queue that is empty and a socket that takes everything: one sendmsg()
 * straight from where the bytes lie. Only the rest is copied, so that the caller's pages are free
 * to change after the call.
 *
 * Tested by tests/link/test_tcp.c.
 */
#include "link/tcp.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

int tcp_queue_create(struct tcp_queue *queue, size_t size)
{
	size_t rounded = 4096;
	void *base;

	while (rounded < size)
		rounded *= 2;
	base = mmap(NULL, rounded, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return -ENOMEM;
	*queue = (struct tcp_queue){ .base = base, .size = rounded };
	return 0;
}

void tcp_queue_destroy(struct tcp_queue *queue)
{
	if (queue->base)
		munmap(queue->base, queue->size);
	*queue = (struct tcp_queue){ 0 };
}

static void queue_put(struct tcp_queue *queue, const void *data, size_t bytes)
{
	size_t at = (queue->head + queue->count) & (queue->size - 1);
	size_t first = queue->size - at < bytes ? queue->size - at : bytes;

	memcpy(queue->base + at, data, first);
	memcpy(queue->base, (const uint8_t *)data + first, bytes - first);
	queue->count += bytes;
	if (queue->count > queue->count_max)
		queue->count_max = queue->count;
}

static void queue_emptied(struct tcp_queue *queue)
{
	if (queue->count_max > TCP_QUEUE_KEPT)
		madvise(queue->base, queue->size, MADV_DONTNEED);
	queue->head = 0;
	queue->count_max = 0;
}

int tcp_queue_flush(struct tcp_queue *queue, struct stream *stream)
{
	while (queue->count > 0) {
		size_t first = queue->size - queue->head;
		struct iovec iov[2];
		ssize_t sent;

		if (first > queue->count)
			first = queue->count;
		iov[0] = (struct iovec){ queue->base + queue->head, first };
		iov[1] = (struct iovec){ queue->base, queue->count - first };
		queue->calls++;
		sent = stream_send(stream, iov, iov[1].iov_len > 0 ? 2 : 1);
		if (sent < 0)
			return (int)sent;
		queue->head = (queue->head + (size_t)sent) & (queue->size - 1);
		queue->count -= (size_t)sent;
		if (queue->count == 0)
			queue_emptied(queue);
	}
	return stream_flush(stream);
}

int tcp_queue_send(struct tcp_queue *queue, struct stream *stream, struct iovec *iov, size_t count)
{
	size_t left = 0;
	int error = tcp_queue_flush(queue, stream);

	if (error < 0 && error != -EAGAIN)
		return error;
	while (error == 0 && count > 0) {
		ssize_t sent = stream_send(stream, iov, count);

		queue->calls++;
		if (sent < 0) {
			error = (int)sent;
			break;
		}
		while (count > 0 && (size_t)sent >= iov->iov_len) {
			sent -= (ssize_t)iov->iov_len;
			iov++;
			count--;
		}
		if (count > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + sent;
			iov->iov_len -= (size_t)sent;
		}
	}
	if (error < 0 && error != -EAGAIN)
		return error;
	for (size_t i = 0; i < count; i++)
		left += iov[i].iov_len;
	if (left > queue->size - queue->count)
		return -ENOBUFS;
	for (size_t i = 0; i < count; i++)
		queue_put(queue, iov[i].iov_base, iov[i].iov_len);
	return 0;
}
