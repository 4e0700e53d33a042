/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk's front half: see blk.h.
 *
 * A request's way; what can wait for guest memory is marked with *, and goes on where it was:
 *
 *	FREE -> POP* -> HEADER* -> DATA* -> (SUBMIT: the disk is full) -> DISK -> BACK* -> STATUS* -> USED* -> FREE
 *
 *	DATA   pins all pages of the data for the disk to work on; where they cannot be had at once,
 *	       takes pieces of the bounce pool, and copies what is to be written into them
 *	DISK   the disk has it. A write without a write cache of the guest's is followed by a flush.
 *	BACK   what was read into pieces of the pool is copied to the guest
 *
 * A queue has one request at a time between POP and SUBMIT, so that what waits stays in the ring, and
 * any number behind the disk, which finish in whatever order their memory is there.
 *
 * When a generation ends, requests are let go of at once, but those that the disk has: they are
 * orphans, whose answers concern nobody. Their pages stay pinned until then, as the disk works on them.
 *
 * Left out: zoned devices, secure erase, resizing. Tested in tests/virtio/test_blk.c, fuzzed by
 * tests/fuzz/fuzz_virtio.c.
 */
#include "virtio/blk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/limits.h"
#include "virtio/queue.h"

/* Feature bits, and the device's configuration (virtio 1.2, 5.2.3 and 5.2.4). */
#define F_SIZE_MAX     (1ull << 1)
#define F_SEG_MAX      (1ull << 2)
#define F_RO	       (1ull << 5)
#define F_BLK_SIZE     (1ull << 6)
#define F_FLUSH	       (1ull << 9)
#define F_TOPOLOGY     (1ull << 10)
#define F_CONFIG_WCE   (1ull << 11)
#define F_MQ	       (1ull << 12)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

struct blk_registers {
	uint64_t capacity; /* in sectors, as everything else here */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
};

_Static_assert(offsetof(struct blk_registers, writeback) == 32, "virtio 1.2, 5.2.4");
_Static_assert(offsetof(struct blk_registers, write_zeroes_may_unmap) == 56, "virtio 1.2, 5.2.4");
_Static_assert(sizeof(struct blk_registers) <= VIRTIO_CONFIG_MAX, "it fits");

/* Requests (virtio 1.2, 5.2.6). */
#define SECTOR 512u

enum blk_type {
	TYPE_IN = 0,
	TYPE_OUT = 1,
	TYPE_FLUSH = 4,
	TYPE_GET_ID = 8,
	TYPE_DISCARD = 11,
	TYPE_WRITE_ZEROES = 13,
};

enum blk_status { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

/* The data of DISCARD and WRITE_ZEROES. */
struct blk_range {
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags;
};

#define RANGE_UNMAP	  1u
#define RANGE_SECTORS_MAX (1u << 22) /* 2 GiB */

/* A segment's: so that a request of most segments has VIRTIO_BLK_BYTES_MAX at most. */
#define SIZE_MAX_BYTES (VIRTIO_BLK_BYTES_MAX / 256u)

#define PIECE_BYTES   65536u
#define PIECES_MAX    (VIRTIO_BLK_BYTES_MAX / PIECE_BYTES)
#define BOUNCE_BYTES  (2u * VIRTIO_BLK_BYTES_MAX)
#define REQUESTS      DISK_REQUESTS_MAX
#define NO_QUEUE      UINT16_MAX
#define PIN_TRIES_MAX 4u /* to have all pages at once, before they are copied one by one */

enum blk_state {
	REQUEST_FREE,
	REQUEST_POP,
	REQUEST_HEADER,
	REQUEST_DATA,
	REQUEST_SUBMIT,
	REQUEST_DISK,
	REQUEST_BACK,
	REQUEST_STATUS,
	REQUEST_USED,
};

struct blk_request {
	struct disk_request disk; /* its owner is this */
	struct blk_request *next; /* in a list of its queue's, or the free ones */
	enum blk_state state;
	uint16_t queue;
	bool orphan;
	bool pinned; /* its data is */
	uint8_t pin_tries;
	uint8_t status;
	struct blk_header header;
	struct blk_range range;
	char id[DISK_SERIAL_MAX];
	size_t done;	  /* bytes of what is being copied now */
	uint64_t length;  /* of the data */
	uint32_t written; /* into the guest's buffers */
	uint32_t piece_count;
	uint16_t piece[PIECES_MAX]; /* of the pool, by number */
	uint16_t span_count;	    /* of the data */
	struct dma_span span[VIRTIO_CHAIN_MAX];
	struct iovec iov[DISK_IOV_MAX];
	struct virtio_chain chain;
};

_Static_assert(VIRTIO_BLK_SEGMENTS_MAX <= DISK_IOV_MAX, "a disk takes a request in one");

struct blk_queue {
	struct virtio_queue ring;
	struct blk_request *current;	  /* not yet at the disk */
	struct blk_request *first, *last; /* back from it */
	uint32_t under_way;		  /* requests, orphans not counted */
	bool starved; /* no request was free, or the disk or the pool was full: to be tried again */
};

struct virtio_blk {
	struct virtio_front front; /* first */
	struct virtio_blk_config config;
	bool write_through;
	uint32_t at_disk, orphans;
	struct blk_queue *queue;
	struct blk_request *request, *free;
	uint8_t *pool;
	size_t pool_bytes;
	uint16_t *piece_free; /* a stack */
	uint32_t piece_free_count;
	uint16_t
		pool_turn; /* the queue that waits for pieces: nobody else gets any; NO_QUEUE: none */
	uint32_t turn;	   /* the queue that is first to be tried again */
};

/* --- what the driver finds --- */

static uint8_t exponent(uint32_t block_bytes)
{
	return block_bytes >= 4096 ? 0 : 3;
}

void virtio_blk_offer(const struct disk_info *info, uint16_t queue_count,
		      struct virtio_offer *ret_offer)
{
	struct blk_registers registers = {
		.capacity = info->bytes / SECTOR,
		.size_max = SIZE_MAX_BYTES,
		.seg_max = VIRTIO_BLK_SEGMENTS_MAX,
		.blk_size = info->block_bytes,
		.physical_block_exp = exponent(info->block_bytes),
		.min_io_size = (uint16_t)(info->block_bytes >= 4096 ? 1 : 8),
		.opt_io_size = 0,
		.writeback = info->write_back,
		.num_queues = queue_count,
		.max_discard_sectors = info->discard ? RANGE_SECTORS_MAX : 0,
		.max_discard_seg = info->discard ? 1 : 0,
		.discard_sector_alignment = info->block_bytes / SECTOR,
		.max_write_zeroes_sectors = info->zero ? RANGE_SECTORS_MAX : 0,
		.max_write_zeroes_seg = info->zero ? 1 : 0,
		.write_zeroes_may_unmap = info->zero && info->discard,
	};
	uint64_t features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX |
			    F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_TOPOLOGY | F_MQ;

	if (info->read_only)
		features |= F_RO;
	if (info->write_back)
		features |= F_FLUSH | F_CONFIG_WCE;
	if (info->discard && !info->read_only)
		features |= F_DISCARD;
	if (info->zero && !info->read_only)
		features |= F_WRITE_ZEROES;
	*ret_offer = (struct virtio_offer){ .kind = VIRTIO_KIND_BLOCK,
					    .queue_count = queue_count,
					    .queue_size = VIRTIO_BLK_QUEUE_SIZE,
					    .config_bytes = sizeof(registers),
					    .features = features };
	memcpy(ret_offer->config, &registers, sizeof(registers));
	if (info->write_back)
		ret_offer->config_writable[offsetof(struct blk_registers, writeback)] = 1;
}

/* --- requests and the pool --- */

static struct dma *dma_of(struct virtio_blk *blk, uint16_t queue)
{
	return virtio_front_dma(&blk->front, queue);
}

static void pieces_put(struct virtio_blk *blk, struct blk_request *request)
{
	while (request->piece_count > 0)
		blk->piece_free[blk->piece_free_count++] = request->piece[--request->piece_count];
}

static void unpin_data(struct virtio_blk *blk, struct blk_request *request)
{
	if (request->pinned)
		dma_unpin(dma_of(blk, request->queue), request->span, request->span_count);
	request->pinned = false;
}

static void request_release(struct virtio_blk *blk, struct blk_request *request)
{
	unpin_data(blk, request);
	pieces_put(blk, request);
	blk->queue[request->queue].under_way -= !request->orphan;
	request->orphan = false;
	request->state = REQUEST_FREE;
	request->next = blk->free;
	blk->free = request;
}

static struct blk_request *request_get(struct virtio_blk *blk, uint16_t queue)
{
	struct blk_request *request = blk->free;

	if (!request)
		return NULL;
	blk->free = request->next;
	request->next = NULL;
	request->queue = queue;
	blk->queue[queue].under_way++;
	request->state = REQUEST_POP;
	request->done = 0;
	request->written = 0;
	request->pin_tries = 0;
	request->length = 0;
	request->span_count = 0;
	return request;
}

/* The requests of all queues are let go of; the disk's become orphans. */
static bool blk_reset(struct virtio_front *front)
{
	struct virtio_blk *blk = (struct virtio_blk *)front;

	blk->pool_turn = NO_QUEUE;
	for (uint32_t i = 0; i < blk->config.queue_count; i++) {
		struct blk_queue *queue = &blk->queue[i];

		queue->current = queue->first = queue->last = NULL;
		queue->starved = false;
		queue->ring = (struct virtio_queue){ 0 };
	}
	for (uint32_t i = 0; i < REQUESTS; i++) {
		struct blk_request *request = &blk->request[i];

		if (request->state == REQUEST_DISK && !request->orphan) {
			request->orphan = true;
			blk->queue[request->queue].under_way--;
			blk->orphans++;
		} else if (request->state != REQUEST_FREE && request->state != REQUEST_DISK) {
			request_release(blk, request);
		}
	}
	return blk->orphans == 0;
}

static int judged(struct virtio_blk *blk, int error)
{
	return virtio_front_judged(&blk->front, error);
}

/* --- what a request wants --- */

/* It is answered without the disk. */
static int finish(struct blk_request *request, enum blk_status status)
{
	request->status = (uint8_t)status;
	request->done = 0;
	request->state = REQUEST_STATUS;
	return 0;
}

/* `length` bytes from `sector` on lie on the disk. */
static bool on_disk(const struct virtio_blk *blk, uint64_t sector, uint64_t length)
{
	uint64_t bytes = blk->config.disk->info.bytes / SECTOR * SECTOR;

	return length % SECTOR == 0 && sector <= bytes / SECTOR &&
	       length <= bytes - sector * SECTOR;
}

static int want_transfer(struct virtio_blk *blk, struct blk_request *request, bool write)
{
	const struct virtio_chain *chain = &request->chain;
	uint64_t length =
		write ? chain->read_bytes - sizeof(request->header) : chain->write_bytes - 1;

	if (length == 0 || length > VIRTIO_BLK_BYTES_MAX ||
	    !on_disk(blk, request->header.sector, length) ||
	    (write && blk->config.disk->info.read_only))
		return finish(request, STATUS_IOERR);
	request->length = length;
	request->span_count = virtio_chain_slice(chain, !write, write ? sizeof(request->header) : 0,
						 length, request->span);
	request->disk.op = write ? DISK_WRITE : DISK_READ;
	request->disk.offset = request->header.sector * SECTOR;
	request->disk.length = length;
	request->state = REQUEST_DATA;
	return 0;
}

static int want_range(struct virtio_blk *blk, struct blk_request *request, bool zero)
{
	uint64_t feature = zero ? F_WRITE_ZEROES : F_DISCARD;

	if (!(blk->front.features & feature))
		return finish(request, STATUS_UNSUPP);
	if (request->chain.read_bytes != sizeof(request->header) + sizeof(request->range))
		return finish(request, STATUS_UNSUPP);
	request->disk.op = zero ? DISK_ZERO : DISK_DISCARD;
	request->length = sizeof(request->range);
	request->state = REQUEST_DATA;
	return 0;
}

static int range_arrived(struct virtio_blk *blk, struct blk_request *request)
{
	const struct blk_range *range = &request->range;
	bool zero = request->disk.op == DISK_ZERO;
	uint64_t length = (uint64_t)range->sectors * SECTOR;

	if (range->flags & ~RANGE_UNMAP || (!zero && range->flags))
		return finish(request, STATUS_UNSUPP);
	if (range->sectors == 0 || range->sectors > RANGE_SECTORS_MAX ||
	    !on_disk(blk, range->sector, length))
		return finish(request, STATUS_IOERR);
	request->disk.offset = range->sector * SECTOR;
	request->disk.length = length;
	request->disk.unmap = range->flags & RANGE_UNMAP;
	request->state = REQUEST_SUBMIT;
	return 0;
}

static int want_id(struct virtio_blk *blk, struct blk_request *request)
{
	memset(request->id, 0, sizeof(request->id));
	memcpy(request->id, blk->config.disk->info.serial,
	       strnlen(blk->config.disk->info.serial, sizeof(request->id)));
	request->length = sizeof(request->id);
	if (request->length > request->chain.write_bytes - 1)
		request->length = request->chain.write_bytes - 1;
	request->status = STATUS_OK;
	request->state = REQUEST_BACK;
	return 0;
}

static int want(struct virtio_blk *blk, struct blk_request *request)
{
	request->done = 0;
	request->disk = (struct disk_request){ .owner = request };
	switch (request->header.type) {
	case TYPE_IN:
		return want_transfer(blk, request, false);
	case TYPE_OUT:
		return want_transfer(blk, request, true);
	case TYPE_FLUSH:
		request->disk.op = DISK_FLUSH;
		request->state = REQUEST_SUBMIT;
		return 0;
	case TYPE_GET_ID:
		return want_id(blk, request);
	case TYPE_DISCARD:
		return want_range(blk, request, false);
	case TYPE_WRITE_ZEROES:
		return want_range(blk, request, true);
	default:
		return finish(request, STATUS_UNSUPP);
	}
}

/* --- to the disk --- */

static bool pieces_get(struct virtio_blk *blk, struct blk_request *request)
{
	uint32_t count = (uint32_t)((request->length + PIECE_BYTES - 1) / PIECE_BYTES);
	uint64_t left = request->length;

	if (blk->pool_turn == NO_QUEUE)
		blk->pool_turn = request->queue;
	if (blk->pool_turn != request->queue || blk->piece_free_count < count)
		return false;
	blk->pool_turn = NO_QUEUE;
	for (uint32_t i = 0; i < count; i++) {
		uint16_t piece = blk->piece_free[--blk->piece_free_count];
		uint64_t length = left < PIECE_BYTES ? left : PIECE_BYTES;

		request->piece[i] = piece;
		request->iov[i] =
			(struct iovec){ blk->pool + (size_t)piece * PIECE_BYTES, (size_t)length };
		left -= length;
	}
	request->piece_count = count;
	request->disk.iov = request->iov;
	request->disk.iov_count = count;
	return true;
}

/* Between the pieces of the pool and the guest's buffers, at `offset` of the chain's part. */
static int copy_pieces(struct virtio_blk *blk, struct blk_request *request, bool to_guest,
		       uint64_t offset)
{
	struct dma *dma = dma_of(blk, request->queue);
	int error = 0;

	while (error == 0 && request->done < request->length) {
		const struct iovec *iov = &request->iov[request->done / PIECE_BYTES];
		size_t begin = request->done / PIECE_BYTES * PIECE_BYTES;
		size_t done = request->done - begin;

		error = to_guest ? virtio_chain_write(dma, &request->chain, offset + begin,
						      iov->iov_base, iov->iov_len, &done)
				 : virtio_chain_read(dma, &request->chain, offset + begin,
						     iov->iov_base, iov->iov_len, &done);
		request->done = begin + done;
	}
	return judged(blk, error);
}

/* All pages at once, for the disk to work on. 0, -EAGAIN, -ENOBUFS: not so, -EFAULT. */
static int pin_data(struct virtio_blk *blk, struct blk_request *request)
{
	void *hva[VIRTIO_CHAIN_MAX];
	int error;

	if (!blk->config.in_place || request->pin_tries >= PIN_TRIES_MAX ||
	    request->span_count > DISK_IOV_MAX)
		return -ENOBUFS;
	request->pin_tries++;
	error = dma_pin(dma_of(blk, request->queue), request->span, request->span_count, hva);
	if (error < 0)
		return error;
	request->pinned = true;
	/* It may have been its turn before; others would wait for that for ever. */
	if (blk->pool_turn == request->queue)
		blk->pool_turn = NO_QUEUE;
	for (uint32_t i = 0; i < request->span_count; i++)
		request->iov[i] = (struct iovec){ hva[i], request->span[i].length };
	request->disk.iov = request->iov;
	request->disk.iov_count = request->span_count;
	return 0;
}

static int run_data(struct virtio_blk *blk, struct blk_request *request)
{
	struct dma *dma = dma_of(blk, request->queue);
	bool write = request->disk.op == DISK_WRITE;
	int error;

	if (request->disk.op == DISK_ZERO || request->disk.op == DISK_DISCARD) {
		error = judged(blk, virtio_chain_read(dma, &request->chain, sizeof(request->header),
						      &request->range, sizeof(request->range),
						      &request->done));
		return error < 0 ? error : range_arrived(blk, request);
	}
	if (request->piece_count == 0) {
		error = pin_data(blk, request);
		if (error != 0 && error != -ENOBUFS)
			return judged(blk, error);
		if (error == -ENOBUFS && !pieces_get(blk, request)) {
			blk->queue[request->queue].starved = true;
			return -EBUSY;
		}
	}
	if (!request->pinned && write) {
		error = copy_pieces(blk, request, false, sizeof(request->header));
		if (error < 0)
			return error;
	}
	request->state = REQUEST_SUBMIT;
	return 0;
}

/*
 * What a request had is free without an answer of the disk's, at which those that want it would be
 * tried: they are once the others had their turn.
 */
static void starved_again(struct virtio_blk *blk)
{
	struct virtio_front *front = &blk->front;

	for (uint16_t i = 0; i < blk->config.queue_count; i++)
		if (blk->queue[i].starved && front->host.again)
			front->host.again(front->host.ctx, i);
}

static int run_submit(struct virtio_blk *blk, struct blk_request *request)
{
	int error = disk_submit(blk->config.disk, &request->disk);

	if (error == -EAGAIN) {
		blk->queue[request->queue].starved = true;
		return -EBUSY;
	}
	if (error < 0) {
		/* Its status waits for memory, and who waits for that keeps none. */
		unpin_data(blk, request);
		starved_again(blk);
		return finish(request, error == -EOPNOTSUPP ? STATUS_UNSUPP : STATUS_IOERR);
	}
	request->state = REQUEST_DISK;
	blk->at_disk++;
	return 0;
}

/* --- and back --- */

static int run_back(struct virtio_blk *blk, struct blk_request *request)
{
	int error;

	if (request->header.type == TYPE_GET_ID)
		error = judged(blk,
			       virtio_chain_write(dma_of(blk, request->queue), &request->chain, 0,
						  request->id, request->length, &request->done));
	else
		error = copy_pieces(blk, request, true, 0);
	if (error < 0)
		return error;
	request->written = (uint32_t)request->length;
	return finish(request, (enum blk_status)request->status);
}

static int run_status(struct virtio_blk *blk, struct blk_request *request)
{
	int error = judged(blk, virtio_chain_write(dma_of(blk, request->queue), &request->chain,
						   request->chain.write_bytes - 1, &request->status,
						   1, &request->done));

	if (error == 0)
		request->state = REQUEST_USED;
	return error;
}

static int run_used(struct virtio_blk *blk, struct blk_request *request)
{
	struct blk_queue *queue = &blk->queue[request->queue];
	int error = judged(
		blk, virtio_queue_push(&queue->ring, request->chain.head, request->written + 1));

	if (error == 0)
		request_release(blk, request);
	return error;
}

/* A chain that is no request: without a header, or without a place for the status. */
static int chain_popped(struct virtio_blk *blk, struct blk_request *request)
{
	if (request->chain.read_bytes < sizeof(request->header) || request->chain.write_bytes < 1 ||
	    request->chain.write_bytes > UINT32_MAX)
		return judged(blk, -EPROTO);
	request->state = REQUEST_HEADER;
	return 0;
}

static int run_header(struct virtio_blk *blk, struct blk_request *request)
{
	int error = judged(blk, virtio_chain_read(dma_of(blk, request->queue), &request->chain, 0,
						  &request->header, sizeof(request->header),
						  &request->done));

	return error < 0 ? error : want(blk, request);
}

/*
 * On, as far as it goes: 0: the disk has it, or it is done; -EAGAIN: memory is asked for; -EBUSY: the
 * disk or the pool is full; -ENOENT: there is none; -EPROTO: the device is broken, and there is no
 * request any more.
 */
static int run(struct virtio_blk *blk, struct blk_request *request)
{
	int error = 0;

	while (error == 0) {
		switch (request->state) {
		case REQUEST_POP:
			error = judged(blk, virtio_queue_pop(&blk->queue[request->queue].ring,
							     &request->chain));
			if (error == 0)
				error = chain_popped(blk, request);
			break;
		case REQUEST_HEADER:
			error = run_header(blk, request);
			break;
		case REQUEST_DATA:
			error = run_data(blk, request);
			break;
		case REQUEST_SUBMIT:
			error = run_submit(blk, request);
			break;
		case REQUEST_BACK:
			error = run_back(blk, request);
			break;
		case REQUEST_STATUS:
			error = run_status(blk, request);
			break;
		case REQUEST_USED:
			error = run_used(blk, request);
			break;
		case REQUEST_DISK:
		case REQUEST_FREE:
			return 0;
		}
	}
	return error;
}

/* --- queues --- */

/* Those that are back from the disk, each as far as it goes. */
static void run_returned(struct virtio_blk *blk, struct blk_queue *queue)
{
	struct blk_request *request = queue->first, *next;

	queue->first = queue->last = NULL;
	for (; request && !blk->front.broken; request = next) {
		int error;

		next = request->next;
		request->next = NULL;
		error = run(blk, request);
		if (error == -EPROTO)
			return;
		if (request->state == REQUEST_FREE || request->state == REQUEST_DISK)
			continue;
		if (queue->last)
			queue->last->next = request;
		else
			queue->first = request;
		queue->last = request;
	}
}

/* New ones, until the ring is empty, one has to wait, or others have their turn. */
static void run_new(struct virtio_blk *blk, struct blk_queue *queue, uint16_t index)
{
	int error = 0;

	for (uint32_t i = 0; error == 0; i++) {
		if (virtio_front_share(&blk->front, index, i))
			return;
		if (!queue->current)
			queue->current = request_get(blk, index);
		if (!queue->current) {
			queue->starved = true;
			return;
		}
		error = run(blk, queue->current);
		if (error == -ENOENT)
			request_release(blk, queue->current);
		if (error == 0 || error == -ENOENT)
			queue->current = NULL;
	}
}

static void run_queue(struct virtio_blk *blk, uint16_t index)
{
	struct blk_queue *queue = &blk->queue[index];

	if (!virtio_front_runs(&blk->front) || !queue->ring.ready)
		return;
	queue->starved = false;
	run_returned(blk, queue);
	if (!blk->front.broken)
		run_new(blk, queue, index);
	virtio_front_tell(&blk->front, index, &queue->ring);
}

/* Something became free: each queue that wanted it tries, by turns. */
static void run_starved(struct virtio_blk *blk)
{
	uint32_t first = blk->turn++;

	for (uint32_t i = 0; i < blk->config.queue_count; i++) {
		uint16_t index = (uint16_t)((first + i) % blk->config.queue_count);

		if (blk->queue[index].starved)
			run_queue(blk, index);
	}
}

static void blk_run(struct virtio_front *front, uint16_t queue)
{
	struct virtio_blk *blk = (struct virtio_blk *)front;

	run_queue(blk, queue);
	run_starved(blk);
}

static uint8_t status_of(int result)
{
	return result == 0 ? STATUS_OK : result == -EOPNOTSUPP ? STATUS_UNSUPP : STATUS_IOERR;
}

static void orphan_back(struct virtio_blk *blk, struct blk_request *request)
{
	request_release(blk, request);
	if (--blk->orphans == 0)
		virtio_front_stopped(&blk->front);
}

/* A write that the guest wants to be safe when it is told: false if the disk takes no flush now. */
static bool flush_after(struct virtio_blk *blk, struct blk_request *request)
{
	request->disk.op = DISK_FLUSH;
	request->disk.offset = request->disk.length = 0;
	request->disk.iov_count = 0;
	request->state = REQUEST_SUBMIT;
	return run_submit(blk, request) == 0;
}

void virtio_blk_done(struct virtio_front *front, struct disk_request *disk)
{
	struct virtio_blk *blk = (struct virtio_blk *)front;
	struct blk_request *request = disk->owner;
	struct blk_queue *queue = &blk->queue[request->queue];
	bool wrote = disk->op == DISK_WRITE || disk->op == DISK_ZERO;

	assert(request->state == REQUEST_DISK);
	blk->at_disk--;
	if (request->orphan) {
		orphan_back(blk, request);
		run_starved(blk);
		return;
	}
	request->status = status_of(disk->result);
	request->done = 0;
	if (disk->op == DISK_READ && request->piece_count > 0 && disk->result == 0)
		request->state = REQUEST_BACK;
	else
		request->state = REQUEST_STATUS;
	if (disk->op == DISK_READ && request->pinned && disk->result == 0)
		request->written = (uint32_t)request->length;
	unpin_data(blk, request);
	if (wrote && blk->write_through && disk->result == 0 && flush_after(blk, request) &&
	    request->state == REQUEST_DISK)
		return;
	if (queue->last)
		queue->last->next = request;
	else
		queue->first = request;
	queue->last = request;
	request->next = NULL;
	run_queue(blk, request->queue);
	run_starved(blk);
}

/* --- life --- */

static int blk_start(struct virtio_front *front, const struct virtio_published *published)
{
	struct virtio_blk *blk = (struct virtio_blk *)front;
	int error = 0;

	for (uint16_t i = 0; error == 0 && i < front->queue_count && i < published->queue_count;
	     i++)
		if (published->queue[i].enabled)
			error = virtio_queue_start(&blk->queue[i].ring, dma_of(blk, i),
						   &published->queue[i], front->features,
						   VIRTIO_BLK_SEGMENTS_MAX + 2);
	return error;
}

static void blk_configure(struct virtio_front *front, const struct virtio_published *published)
{
	struct virtio_blk *blk = (struct virtio_blk *)front;
	bool writeback = published->config[offsetof(struct blk_registers, writeback)];

	/* Without F_FLUSH the driver could not make anything safe (virtio 1.2, 5.2.6.2). */
	blk->write_through =
		blk->config.disk->info.write_back &&
		(!(front->features & F_FLUSH) || ((front->features & F_CONFIG_WCE) && !writeback));
}

static struct virtio_queue *blk_ring(struct virtio_front *front, uint16_t queue)
{
	return &((struct virtio_blk *)front)->queue[queue].ring;
}

static int blk_quiet(struct virtio_front *front, uint16_t queue)
{
	return ((struct virtio_blk *)front)->queue[queue].under_way > 0 ? -EBUSY : 0;
}

static void blk_destroy(struct virtio_front *front)
{
	struct virtio_blk *blk = (struct virtio_blk *)front;

	if (blk->pool)
		munmap(blk->pool, blk->pool_bytes);
	free(blk->piece_free);
	free(blk->queue);
	free(blk->request);
	free(blk);
}

static const struct virtio_front_ops blk_ops = { .reset = blk_reset,
						 .start = blk_start,
						 .configure = blk_configure,
						 .run = blk_run,
						 .ring = blk_ring,
						 .quiet = blk_quiet,
						 .destroy = blk_destroy };

static int create_pool(struct virtio_blk *blk)
{
	uint32_t count = (uint32_t)(blk->pool_bytes / PIECE_BYTES);
	void *at = mmap(NULL, blk->pool_bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	blk->pool = at;
	blk->piece_free = calloc(count, sizeof(*blk->piece_free));
	if (!blk->piece_free)
		return -ENOMEM;
	/* The first are taken first, again and again: memory that was never needed is never there. */
	for (uint32_t i = count; i > 0; i--)
		blk->piece_free[blk->piece_free_count++] = (uint16_t)(i - 1);
	return 0;
}

int virtio_blk_create(const struct virtio_blk_config *config, const struct virtio_host *host,
		      struct virtio_front **ret_front)
{
	struct virtio_blk *blk;

	if (config->queue_count == 0 || config->queue_count > VIRTIO_QUEUES_MAX ||
	    (config->bounce_bytes && config->bounce_bytes < VIRTIO_BLK_BYTES_MAX) ||
	    config->bounce_bytes / PIECE_BYTES > UINT16_MAX)
		return -EINVAL;
	blk = calloc(1, sizeof(*blk));
	if (!blk)
		return -ENOMEM;
	blk->front = (struct virtio_front){ .ops = &blk_ops,
					    .host = *host,
					    .queue_count = config->queue_count };
	blk->config = *config;
	blk->pool_turn = NO_QUEUE;
	blk->pool_bytes = config->bounce_bytes ? config->bounce_bytes / PIECE_BYTES * PIECE_BYTES
					       : BOUNCE_BYTES;
	blk->queue = calloc(config->queue_count, sizeof(*blk->queue));
	blk->request = calloc(REQUESTS, sizeof(*blk->request));
	if (!blk->queue || !blk->request || create_pool(blk) < 0) {
		blk_destroy(&blk->front);
		return -ENOMEM;
	}
	for (uint32_t i = REQUESTS; i > 0; i--) {
		blk->request[i - 1].next = blk->free;
		blk->free = &blk->request[i - 1];
	}
	*ret_front = &blk->front;
	return 0;
}
