/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of a simulator in the order of their times, and of equal ones as they were made. An event is any
 * structure that begins with a struct event_time; the heap keeps copies.
 */
#ifndef TESTS_SIM_EVENT_HEAP_H
#define TESTS_SIM_EVENT_HEAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EVENT_BYTES_MAX 128u

struct event_time {
	uint64_t at_ns, order;
};

/* Zeros but for `bytes`, an event's; event_heap_end() at the end. */
struct event_heap {
	uint8_t *events;
	uint32_t bytes, count, size;
	uint64_t order;
};

static inline void *event_heap_at(const struct event_heap *heap, uint32_t at)
{
	return heap->events + (size_t)at * heap->bytes;
}

static inline bool event_heap_before(const struct event_heap *heap, uint32_t a, uint32_t b)
{
	const struct event_time *x = event_heap_at(heap, a), *y = event_heap_at(heap, b);

	return x->at_ns != y->at_ns ? x->at_ns < y->at_ns : x->order < y->order;
}

static inline void event_heap_swap(struct event_heap *heap, uint32_t a, uint32_t b)
{
	uint8_t swap[EVENT_BYTES_MAX];

	memcpy(swap, event_heap_at(heap, a), heap->bytes);
	memcpy(event_heap_at(heap, a), event_heap_at(heap, b), heap->bytes);
	memcpy(event_heap_at(heap, b), swap, heap->bytes);
}

/* The event's own time is not looked at. */
static inline void event_heap_put(struct event_heap *heap, const void *event, uint64_t at_ns)
{
	uint32_t at = heap->count++;

	if (heap->count > heap->size) {
		heap->size = heap->size ? heap->size * 2 : 256;
		heap->events = realloc(heap->events, (size_t)heap->size * heap->bytes);
		if (!heap->events || heap->bytes > EVENT_BYTES_MAX)
			abort();
	}
	memcpy(event_heap_at(heap, at), event, heap->bytes);
	*(struct event_time *)event_heap_at(heap, at) =
		(struct event_time){ .at_ns = at_ns, .order = heap->order++ };
	for (; at > 0 && event_heap_before(heap, at, (at - 1) / 2); at = (at - 1) / 2)
		event_heap_swap(heap, at, (at - 1) / 2);
}

/* The first: there is one. */
static inline void event_heap_take(struct event_heap *heap, void *ret_event)
{
	uint32_t at = 0, child;

	memcpy(ret_event, event_heap_at(heap, 0), heap->bytes);
	event_heap_swap(heap, 0, --heap->count);
	while ((child = 2 * at + 1) < heap->count) {
		if (child + 1 < heap->count && event_heap_before(heap, child + 1, child))
			child++;
		if (!event_heap_before(heap, child, at))
			break;
		event_heap_swap(heap, child, at);
		at = child;
	}
}

static inline void event_heap_end(struct event_heap *heap)
{
	free(heap->events);
	*heap = (struct event_heap){ .bytes = heap->bytes };
}

#endif
