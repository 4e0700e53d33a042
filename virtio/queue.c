/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A split virtqueue, the device's side: see queue.h.
 *
 * Problem: the rings are in memory that others change at any moment, that may be elsewhere in the pod,
 * and whose contents a hostile guest makes up. Idea: every access pins, copies or stores a few
 * aligned bytes, and unpins; what was read is judged as a copy; and between any two accesses the
 * queue's own fields say exactly what has been done, so a call that got -EAGAIN can be made again.
 * Storing the same used element twice does no harm before the index that publishes it.
 *
 * A chain cannot loop: it ends with an error beyond the descriptors that the device takes.
 *
 * Left out: packed rings, VIRTIO_F_IN_ORDER. Tested in tests/virtio/test_queue.c, fuzzed by
 * tests/fuzz/fuzz_virtio.c.
 */
#include "virtio/queue.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define DESC_BYTES    16u
#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u

#define AVAIL_NO_INTERRUPT 1u

/* Where things are in the rings (virtio 1.2, 2.7.6 and 2.7.8). */
#define RING_INDEX	  2u
#define RING_ENTRY	  4u
#define AVAIL_ENTRY_BYTES 2u
#define USED_ENTRY_BYTES  8u

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

static int broken(struct virtio_queue *queue)
{
	queue->broken = true;
	return -EPROTO;
}

/* Rings that are not in memory are the driver's fault. */
static int judged(struct virtio_queue *queue, int error)
{
	return error == 0 || error == -EAGAIN ? error : broken(queue);
}

static int load16(struct virtio_queue *queue, uint64_t gpa, uint16_t *ret_value)
{
	struct dma_span span = { .gpa = gpa, .length = sizeof(*ret_value) };
	void *hva;
	int error = judged(queue, dma_pin(queue->dma, &span, 1, &hva));

	if (error < 0)
		return error;
	*ret_value = __atomic_load_n((uint16_t *)hva, __ATOMIC_ACQUIRE);
	dma_unpin(queue->dma, &span, 1);
	return 0;
}

static int store16(struct virtio_queue *queue, uint64_t gpa, uint16_t value)
{
	struct dma_span span = { .gpa = gpa, .length = sizeof(value), .write = true };
	void *hva;
	int error = judged(queue, dma_pin(queue->dma, &span, 1, &hva));

	if (error < 0)
		return error;
	__atomic_store_n((uint16_t *)hva, value, __ATOMIC_RELEASE);
	dma_unpin(queue->dma, &span, 1);
	return 0;
}

static int store32(struct virtio_queue *queue, uint64_t gpa, uint32_t value)
{
	struct dma_span span = { .gpa = gpa, .length = sizeof(value), .write = true };
	void *hva;
	int error = judged(queue, dma_pin(queue->dma, &span, 1, &hva));

	if (error < 0)
		return error;
	__atomic_store_n((uint32_t *)hva, value, __ATOMIC_RELAXED);
	dma_unpin(queue->dma, &span, 1);
	return 0;
}

static uint64_t avail_index_at(const struct virtio_queue *queue)
{
	return queue->avail + RING_INDEX;
}

static uint64_t avail_entry_at(const struct virtio_queue *queue, uint16_t index)
{
	return queue->avail + RING_ENTRY + AVAIL_ENTRY_BYTES * (uint64_t)(index % queue->size);
}

static uint64_t used_event_at(const struct virtio_queue *queue)
{
	return queue->avail + RING_ENTRY + AVAIL_ENTRY_BYTES * (uint64_t)queue->size;
}

static uint64_t used_entry_at(const struct virtio_queue *queue, uint16_t index)
{
	return queue->used + RING_ENTRY + USED_ENTRY_BYTES * (uint64_t)(index % queue->size);
}

static uint64_t avail_event_at(const struct virtio_queue *queue)
{
	return queue->used + RING_ENTRY + USED_ENTRY_BYTES * (uint64_t)queue->size;
}

/* Aligned as virtio 1.2, 2.7 has it, and no end behind the last address. */
static bool place_valid(uint64_t gpa, uint64_t align, uint64_t bytes)
{
	return gpa % align == 0 && gpa <= UINT64_MAX - bytes;
}

int virtio_queue_start(struct virtio_queue *queue, struct dma *dma,
		       const struct virtio_published_queue *published, uint64_t features,
		       uint16_t chain_max)
{
	uint64_t size = published->size;

	*queue = (struct virtio_queue){
		.dma = dma,
		.desc = published->desc,
		.avail = published->avail,
		.used = published->used,
		.size = published->size,
		.chain_max = chain_max < VIRTIO_CHAIN_MAX ? chain_max : VIRTIO_CHAIN_MAX,
		.event_index = features & VIRTIO_F_EVENT_IDX,
		.indirect = features & VIRTIO_F_INDIRECT_DESC,
	};
	if (size == 0 || size > VIRTIO_QUEUE_SIZE_MAX || (size & (size - 1)) ||
	    !place_valid(queue->desc, DESC_BYTES, DESC_BYTES * size) ||
	    !place_valid(queue->avail, 2, RING_ENTRY + AVAIL_ENTRY_BYTES * size + 2) ||
	    !place_valid(queue->used, 4, RING_ENTRY + USED_ENTRY_BYTES * size + 2))
		return broken(queue);
	queue->ready = true;
	return 0;
}

/* --- from one place to another --- */

void virtio_queue_leave(struct virtio_queue *queue)
{
	queue->leaving = true;
	/* A chain that has been read in part is the next one's, from its beginning. */
	queue->walk.under_way = false;
}

void virtio_queue_give(struct virtio_queue *queue, struct virtio_queue_state *ret_state)
{
	*ret_state = (struct virtio_queue_state){ .avail_index = queue->avail_index,
						  .used_index = queue->used_index,
						  .told_index = queue->told_index };
	queue->ready = queue->leaving = false;
}

int virtio_queue_take(struct virtio_queue *queue, const struct virtio_queue_state *state)
{
	if (queue->size == 0 || queue->ready || queue->broken)
		return -EPROTO;
	queue->avail_index = queue->avail_seen = state->avail_index;
	queue->used_index = state->used_index;
	queue->told_index = state->told_index;
	/* What the driver was promised elsewhere does not count: it is told anew when there is none. */
	queue->armed = queue->leaving = false;
	queue->ready = true;
	return 0;
}

/* --- popping --- */

/* The driver rings the doorbell for whatever comes behind avail_index. */
static int arm(struct virtio_queue *queue)
{
	int error = store16(queue, avail_event_at(queue), queue->avail_index);

	if (error < 0)
		return error;
	/* What the driver made available before it could see that is seen by the look that follows. */
	atomic_thread_fence(memory_order_seq_cst);
	queue->armed = true;
	return 0;
}

static int look(struct virtio_queue *queue)
{
	uint16_t index;
	int error = load16(queue, avail_index_at(queue), &index);

	if (error < 0)
		return error;
	if ((uint16_t)(index - queue->avail_index) > queue->size)
		return broken(queue);
	queue->avail_seen = index;
	return 0;
}

/* 0: there is one at avail_index; -ENOENT: none, and the driver rings for the next. */
static int await_chain(struct virtio_queue *queue)
{
	int error = 0;

	if (queue->avail_index == queue->avail_seen)
		error = look(queue);
	if (error < 0 || queue->avail_index != queue->avail_seen)
		return error;
	if (!queue->event_index || queue->armed)
		return -ENOENT;
	error = arm(queue);
	if (error == 0)
		error = look(queue);
	if (error < 0)
		return error;
	return queue->avail_index == queue->avail_seen ? -ENOENT : 0;
}

static int begin_chain(struct virtio_queue *queue, struct virtio_chain *chain)
{
	uint16_t head;
	int error = load16(queue, avail_entry_at(queue, queue->avail_index), &head);

	if (error < 0)
		return error;
	if (head >= queue->size)
		return broken(queue);
	chain->head = head;
	chain->count = chain->readable = 0;
	chain->read_bytes = chain->write_bytes = 0;
	queue->walk = (struct virtio_queue_walk){ .under_way = true, .index = head };
	return 0;
}

/* Copies the descriptor that is next. */
static int fetch(struct virtio_queue *queue)
{
	struct virtio_queue_walk *walk = &queue->walk;
	uint64_t table = walk->in_table ? walk->table : queue->desc;

	return judged(queue, dma_read(queue->dma, table + (uint64_t)DESC_BYTES * walk->index,
				      &walk->desc, sizeof(walk->desc), &walk->fetched));
}

static int enter_table(struct virtio_queue *queue)
{
	struct virtio_queue_walk *walk = &queue->walk;
	const struct virtio_desc *desc = &walk->desc;

	if (!queue->indirect || walk->in_table || (desc->flags & DESC_NEXT) || desc->length == 0 ||
	    desc->length % DESC_BYTES != 0 || desc->gpa > UINT64_MAX - desc->length)
		return broken(queue);
	walk->in_table = true;
	walk->table = desc->gpa;
	walk->table_count = desc->length / DESC_BYTES;
	walk->index = 0;
	return 0;
}

static bool desc_valid(const struct virtio_queue *queue, const struct virtio_chain *chain,
		       const struct virtio_desc *desc)
{
	return chain->count < queue->chain_max && desc->length > 0 &&
	       desc->gpa <= UINT64_MAX - desc->length &&
	       ((desc->flags & DESC_WRITE) || chain->readable == chain->count);
}

/* Takes the descriptor that was copied into the chain; *ret_last: it was the chain's last. */
static int take(struct virtio_queue *queue, struct virtio_chain *chain, bool *ret_last)
{
	struct virtio_queue_walk *walk = &queue->walk;
	const struct virtio_desc *desc = &walk->desc;
	bool write = desc->flags & DESC_WRITE;

	*ret_last = false;
	walk->fetched = 0;
	if (desc->flags & DESC_INDIRECT)
		return enter_table(queue);
	if (!desc_valid(queue, chain, desc))
		return broken(queue);
	chain->span[chain->count++] =
		(struct dma_span){ .gpa = desc->gpa, .length = desc->length, .write = write };
	if (write)
		chain->write_bytes += desc->length;
	else
		chain->read_bytes += desc->length;
	chain->readable += !write;
	*ret_last = !(desc->flags & DESC_NEXT);
	if (!*ret_last && desc->next >= (walk->in_table ? walk->table_count : queue->size))
		return broken(queue);
	walk->index = desc->next;
	return 0;
}

int virtio_queue_pop(struct virtio_queue *queue, struct virtio_chain *chain)
{
	bool last = false;
	int error = 0;

	if (queue->broken || !queue->ready)
		return -EPROTO;
	if (queue->leaving)
		return -ENOENT;
	if (!queue->walk.under_way) {
		error = await_chain(queue);
		if (error == 0)
			error = begin_chain(queue, chain);
	}
	while (error == 0 && !last) {
		error = fetch(queue);
		if (error == 0)
			error = take(queue, chain, &last);
	}
	if (error < 0)
		return error;
	queue->walk.under_way = false;
	queue->avail_index++;
	queue->armed = false;
	return 0;
}

void virtio_queue_unpop(struct virtio_queue *queue, uint16_t count)
{
	queue->avail_index = (uint16_t)(queue->avail_index - count);
	queue->walk.under_way = false;
	queue->armed = false;
}

/* --- pushing --- */

int virtio_queue_fill(struct virtio_queue *queue, uint16_t at, uint16_t head, uint32_t written)
{
	uint64_t gpa = used_entry_at(queue, (uint16_t)(queue->used_index + at));
	int error;

	if (queue->broken)
		return -EPROTO;
	error = store32(queue, gpa, head);
	return error < 0 ? error : store32(queue, gpa + 4, written);
}

int virtio_queue_publish(struct virtio_queue *queue, uint16_t count)
{
	uint16_t index = (uint16_t)(queue->used_index + count);
	int error;

	if (queue->broken)
		return -EPROTO;
	error = store16(queue, queue->used + RING_INDEX, index);
	if (error == 0)
		queue->used_index = index;
	return error;
}

int virtio_queue_push(struct virtio_queue *queue, uint16_t head, uint32_t written)
{
	int error = virtio_queue_fill(queue, 0, head, written);

	return error < 0 ? error : virtio_queue_publish(queue, 1);
}

int virtio_queue_interrupt(struct virtio_queue *queue, bool *ret_wanted)
{
	uint16_t pushed = (uint16_t)(queue->used_index - queue->told_index);
	uint16_t word;
	int error;

	*ret_wanted = false;
	if (queue->broken)
		return -EPROTO;
	if (pushed == 0)
		return 0;
	/* The driver looks at the used index after it has said that it wants to be told. */
	atomic_thread_fence(memory_order_seq_cst);
	error = load16(queue, queue->event_index ? used_event_at(queue) : queue->avail, &word);
	if (error < 0)
		return error;
	*ret_wanted = queue->event_index ? (uint16_t)(queue->used_index - word - 1) < pushed
					 : !(word & AVAIL_NO_INTERRUPT);
	queue->told_index = queue->used_index;
	return 0;
}

/* --- chains --- */

uint16_t virtio_chain_slice(const struct virtio_chain *chain, bool write, uint64_t offset,
			    uint64_t length, struct dma_span *ret_span)
{
	uint16_t from = write ? chain->readable : 0, to = write ? chain->count : chain->readable;
	uint16_t count = 0;

	for (uint16_t i = from; i < to && length > 0; i++) {
		struct dma_span span = chain->span[i];

		if (offset >= span.length) {
			offset -= span.length;
			continue;
		}
		span.gpa += offset;
		span.length -= (uint32_t)offset;
		offset = 0;
		if (span.length > length)
			span.length = (uint32_t)length;
		length -= span.length;
		ret_span[count++] = span;
	}
	return count;
}

/* Copies [*done, length) of what lies at `offset` in one part of the chain. */
static int copy(struct dma *dma, const struct virtio_chain *chain, uint64_t offset, void *to,
		const void *from, size_t length, size_t *done)
{
	uint16_t i = from ? chain->readable : 0, end = from ? chain->count : chain->readable;
	uint64_t at = 0; /* where span i begins in its part */

	for (; i < end && *done < length; at += chain->span[i].length, i++) {
		const struct dma_span *span = &chain->span[i];
		uint64_t begin = offset + *done;
		size_t part, copied = 0;
		int error;

		if (begin >= at + span->length)
			continue;
		part = (size_t)(at + span->length - begin);
		if (part > length - *done)
			part = length - *done;
		if (from)
			error = dma_write(dma, span->gpa + (begin - at),
					  (const uint8_t *)from + *done, part, &copied);
		else
			error = dma_read(dma, span->gpa + (begin - at), (uint8_t *)to + *done, part,
					 &copied);
		*done += copied;
		if (error < 0)
			return error;
	}
	return 0;
}

int virtio_chain_read(struct dma *dma, const struct virtio_chain *chain, uint64_t offset, void *to,
		      size_t length, size_t *done)
{
	return copy(dma, chain, offset, to, NULL, length, done);
}

int virtio_chain_write(struct dma *dma, const struct virtio_chain *chain, uint64_t offset,
		       const void *from, size_t length, size_t *done)
{
	return copy(dma, chain, offset, NULL, from, length, done);
}
