/* SPDX-License-Identifier: Apache-2.0 */
/* A model of a virtio driver: see model.h. No test framework here: the fuzzer uses it, too. */
#include "tests/virtio/model.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"

static uint64_t page_count(const struct dma_span *span)
{
	return (span->gpa + span->length - 1) / PAGE_BYTES - span->gpa / PAGE_BYTES + 1;
}

static bool is_ram(const struct model_memory *memory, const struct dma_span *span)
{
	return span->length > 0 && span->gpa >= MODEL_BASE &&
	       span->gpa - MODEL_BASE < memory->bytes &&
	       span->length <= memory->bytes - (span->gpa - MODEL_BASE);
}

/* Not in step with anything: what is tried again and again is not refused each time. */
static uint32_t scattered(uint64_t n)
{
	return (uint32_t)(n * 0x9e3779b97f4a7c15u >> 40);
}

static int pin(struct dma *dma, const struct dma_span *span, uint32_t count, void **ret_hva)
{
	struct model_memory *memory = (struct model_memory *)dma;
	uint64_t pages = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (!is_ram(memory, &span[i]))
			return -EFAULT;
		pages += page_count(&span[i]);
	}
	if (memory->pages_max && pages > 1 && memory->pins + pages > memory->pages_max)
		return -ENOBUFS;
	if (memory->before)
		memory->before(memory->before_arg);
	memory->calls++;
	if (memory->calls == memory->fail_at ||
	    (memory->fail_every && scattered(memory->calls) % memory->fail_every == 0)) {
		memory->asked = true;
		return -EAGAIN;
	}
	memory->pins += pages;
	for (uint32_t i = 0; i < count; i++)
		ret_hva[i] = memory->ram + (span[i].gpa - MODEL_BASE);
	return 0;
}

static void unpin(struct dma *dma, const struct dma_span *span, uint32_t count)
{
	struct model_memory *memory = (struct model_memory *)dma;

	for (uint32_t i = 0; i < count; i++) {
		assert(memory->pins >= page_count(&span[i]));
		memory->pins -= page_count(&span[i]);
	}
}

static const struct dma_ops ops = { .pin = pin, .unpin = unpin };

void model_memory_create(struct model_memory *memory, uint64_t bytes)
{
	*memory = (struct model_memory){ .dma.ops = &ops, .bytes = bytes };
	memory->ram = aligned_alloc(PAGE_BYTES, bytes);
	if (!memory->ram)
		abort();
	memset(memory->ram, 0, bytes);
}

void model_memory_destroy(struct model_memory *memory)
{
	free(memory->ram);
}

void *model_at(struct model_memory *memory, uint64_t gpa)
{
	assert(gpa >= MODEL_BASE && gpa - MODEL_BASE < memory->bytes);
	return memory->ram + (gpa - MODEL_BASE);
}

/* --- the driver's side of a ring --- */

void model_ring_init(struct model_ring *ring, struct model_memory *memory, uint64_t gpa,
		     uint16_t size)
{
	*ring = (struct model_ring){ .memory = memory,
				     .size = size,
				     .desc = gpa,
				     .avail = gpa + 16u * size,
				     .used = gpa + MODEL_RING_BYTES / 2 };
}

struct virtio_published_queue model_ring_published(const struct model_ring *ring)
{
	return (struct virtio_published_queue){ .enabled = true,
						.size = ring->size,
						.desc = ring->desc,
						.avail = ring->avail,
						.used = ring->used };
}

static void put16(struct model_ring *ring, uint64_t gpa, uint16_t value)
{
	memcpy(model_at(ring->memory, gpa), &value, sizeof(value));
}

static uint16_t get16(const struct model_ring *ring, uint64_t gpa)
{
	uint16_t value;

	memcpy(&value, model_at(ring->memory, gpa), sizeof(value));
	return value;
}

static void put_desc(struct model_memory *memory, uint64_t at, const struct model_buffer *buffer,
		     uint16_t flags, uint16_t next)
{
	uint8_t *desc = model_at(memory, at);

	memcpy(desc, &buffer->gpa, 8);
	memcpy(desc + 8, &buffer->length, 4);
	memcpy(desc + 12, &flags, 2);
	memcpy(desc + 14, &next, 2);
}

void model_ring_desc(struct model_ring *ring, uint16_t index, uint64_t gpa, uint32_t length,
		     uint16_t flags, uint16_t next)
{
	struct model_buffer buffer = { .gpa = gpa, .length = length };

	put_desc(ring->memory, ring->desc + 16u * index, &buffer, flags, next);
}

void model_ring_avail(struct model_ring *ring, uint16_t head)
{
	put16(ring, ring->avail + 4 + 2u * (ring->avail_index % ring->size), head);
	put16(ring, ring->avail + 2, ++ring->avail_index);
}

uint16_t model_ring_add(struct model_ring *ring, const struct model_buffer *buffer, uint16_t count,
			uint64_t table)
{
	uint16_t head = ring->next_desc;

	for (uint16_t i = 0; i < count; i++) {
		bool more = i + 1 < count;
		uint16_t flags = (uint16_t)((more ? 1 : 0) | (buffer[i].write ? 2 : 0));
		uint16_t here = (uint16_t)((head + i) % ring->size);
		uint16_t next = table ? (uint16_t)(i + 1) : (uint16_t)((here + 1) % ring->size);

		put_desc(ring->memory, table ? table + 16u * i : ring->desc + 16u * here,
			 &buffer[i], flags, more ? next : 0);
	}
	if (table)
		model_ring_desc(ring, head, table, 16u * count, 4, 0);
	ring->next_desc = (uint16_t)((head + (table ? 1 : count)) % ring->size);
	model_ring_avail(ring, head);
	return head;
}

bool model_ring_used(struct model_ring *ring, uint32_t *ret_head, uint32_t *ret_written)
{
	const uint8_t *entry;

	if (get16(ring, ring->used + 2) == ring->used_index)
		return false;
	entry = model_at(ring->memory, ring->used + 4 + 8u * (ring->used_index % ring->size));
	memcpy(ret_head, entry, 4);
	memcpy(ret_written, entry + 4, 4);
	ring->used_index++;
	return true;
}

uint16_t model_ring_avail_event(const struct model_ring *ring)
{
	return get16(ring, ring->used + 4 + 8u * ring->size);
}

void model_ring_set_used_event(struct model_ring *ring, uint16_t index)
{
	put16(ring, ring->avail + 4 + 2u * ring->size, index);
}

/* --- a disk --- */

static int disk_model_submit(struct disk *base, struct disk_request *request)
{
	struct model_disk *disk = (struct model_disk *)base;
	uint64_t bytes = 0;

	if (disk->count == disk->max)
		return -EAGAIN;
	if (disk->refuse) {
		disk->refused++;
		return disk->refuse;
	}
	if (request->op == DISK_READ || request->op == DISK_WRITE)
		for (uint32_t i = 0; i < request->iov_count; i++)
			bytes += request->iov[i].iov_len;
	/* The front half has checked all this: a real disk refuses it. */
	assert(request->offset <= disk->disk.info.bytes &&
	       request->length <= disk->disk.info.bytes - request->offset);
	assert(request->iov_count <= DISK_IOV_MAX && request->length <= DISK_BYTES_MAX * 128ull);
	assert((request->op != DISK_READ && request->op != DISK_WRITE) || bytes == request->length);
	disk->request[disk->count++] = request;
	disk->submitted++;
	return 0;
}

static void carry_out(struct model_disk *disk, struct disk_request *request)
{
	uint8_t *at = disk->data + request->offset;

	request->result = disk->fail;
	if (disk->fail)
		return;
	for (uint32_t i = 0; i < request->iov_count; i++) {
		struct iovec *iov = &request->iov[i];

		if (request->op == DISK_READ)
			memcpy(iov->iov_base, at, iov->iov_len);
		else if (request->op == DISK_WRITE)
			memcpy(at, iov->iov_base, iov->iov_len);
		at += iov->iov_len;
	}
	if (request->op == DISK_ZERO)
		memset(at, 0, request->length);
	if (request->op == DISK_DISCARD)
		memset(at, 0xdd, request->length);
	disk->flushes += request->op == DISK_FLUSH;
}

static struct disk_request *disk_model_done(struct disk *base)
{
	struct model_disk *disk = (struct model_disk *)base;
	struct disk_request *request;

	if (disk->count == 0)
		return NULL;
	request = disk->request[disk->last_first ? disk->count - 1 : 0];
	disk->count--;
	if (!disk->last_first)
		memmove(disk->request, disk->request + 1, disk->count * sizeof(disk->request[0]));
	carry_out(disk, request);
	return request;
}

static const struct disk_ops disk_model_ops = { .submit = disk_model_submit,
						.done = disk_model_done };

void model_disk_create(struct model_disk *disk, uint64_t bytes)
{
	*disk = (struct model_disk){ .disk = { .ops = &disk_model_ops,
					       .info = { .bytes = bytes,
							 .block_bytes = 512,
							 .alignment = 1,
							 .discard = true,
							 .zero = true,
							 .write_back = true,
							 .serial = "serial-0123456789abc" },
					       .fd = -1 },
				     .max = DISK_REQUESTS_MAX };
	disk->data = malloc(bytes);
	if (!disk->data)
		abort();
	for (uint64_t i = 0; i < bytes; i++)
		disk->data[i] = (uint8_t)(i / 512 * 7 + i);
}

void model_disk_destroy(struct model_disk *disk)
{
	free(disk->data);
}

/* --- the host --- */

static struct dma *host_dma(void *ctx, uint16_t queue)
{
	return &((struct model_host *)ctx)->memory->dma;
}

static void host_interrupt(void *ctx, uint16_t queue)
{
	((struct model_host *)ctx)->interrupts[queue]++;
}

static void host_needs_reset(void *ctx)
{
	((struct model_host *)ctx)->resets++;
}

static void host_again(void *ctx, uint16_t queue)
{
	((struct model_host *)ctx)->agains++;
	((struct model_host *)ctx)->again[queue] = true;
}

static void host_stopped(void *ctx, uint64_t generation)
{
	struct model_host *host = ctx;

	host->stops++;
	host->stopped = generation;
}

struct virtio_host model_host_of(struct model_host *host)
{
	return (struct virtio_host){ .ctx = host,
				     .dma = host_dma,
				     .interrupt = host_interrupt,
				     .needs_reset = host_needs_reset,
				     .again = host_again,
				     .stopped = host_stopped };
}
