/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of this node, for one other node (disk_service.h).
 *
 * A *job* is a request of the peer's, from its head to when the last byte of its reply has left. Its
 * data is in pieces of the pool, each of 64 KiB at a boundary that suits every disk; they are taken
 * from a stack, so that few requests use the same memory again and again.
 *
 * The pool is given back to the host, but for its beginning, whenever nothing is under way.
 *
 * Tested by tests/node/test_remote_disk.c, fuzzed by tests/fuzz/fuzz_io.c.
 */
#include "node/disk_service.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define POOL_BYTES ((size_t)DISK_PIECES_MAX * DISK_PIECE_BYTES)

#define JOB_PIECES_MAX (IO_DATA_MAX / DISK_PIECE_BYTES)

static_assert(JOB_PIECES_MAX <= IO_PIECES_MAX && JOB_PIECES_MAX <= DISK_IOV_MAX);
static_assert(DISK_POOL_KEPT < POOL_BYTES);

struct job {
	struct io_parcel parcel;     /* its owner is this */
	struct disk_request request; /* likewise */
	uint32_t id;
	struct job *next; /* free */
	uint32_t piece_count;
	struct iovec iov[JOB_PIECES_MAX];
};

struct disk_service {
	struct io_channel *channel;
	struct disk *disk;
	uint8_t device;
	struct job *begun; /* its data is under way */
	uint8_t *pool;
	uint32_t used_max;    /* pieces of it that were in use since it was last given back */
	uint32_t piece_count; /* that are free */
	uint16_t piece[DISK_PIECES_MAX];
	uint32_t under_way;
	struct disk_counts counts;
	struct job *free;    /* that have been used before */
	uint32_t fresh_from; /* jobs that have not: a peer that asks for little costs little */
	struct job job[DISK_REQUESTS_MAX];
};

static void get_pieces(struct disk_service *service, struct job *job, uint64_t length)
{
	for (job->piece_count = 0; length > 0; job->piece_count++) {
		uint32_t piece = service->piece[--service->piece_count];
		size_t part = length < DISK_PIECE_BYTES ? length : DISK_PIECE_BYTES;

		job->iov[job->piece_count] =
			(struct iovec){ service->pool + (size_t)piece * DISK_PIECE_BYTES, part };
		length -= part;
		if (service->used_max <= piece)
			service->used_max = piece + 1;
	}
}

static void put_pieces(struct disk_service *service, struct job *job)
{
	while (job->piece_count > 0) {
		const uint8_t *at = job->iov[--job->piece_count].iov_base;

		service->piece[service->piece_count++] =
			(uint16_t)((size_t)(at - service->pool) / DISK_PIECE_BYTES);
	}
}

/* In order again, so that the first are used first. */
static void give_back(struct disk_service *service)
{
	if (service->used_max * DISK_PIECE_BYTES <= DISK_POOL_KEPT)
		return;
	madvise(service->pool + DISK_POOL_KEPT,
		service->used_max * DISK_PIECE_BYTES - DISK_POOL_KEPT, MADV_DONTNEED);
	for (uint32_t i = 0; i < DISK_PIECES_MAX; i++)
		service->piece[i] = (uint16_t)(DISK_PIECES_MAX - 1 - i);
	service->used_max = 0;
}

static void end_job(struct disk_service *service, struct job *job)
{
	put_pieces(service, job);
	job->next = service->free;
	service->free = job;
	if (--service->under_way == 0)
		give_back(service);
}

static struct job *free_job(struct disk_service *service)
{
	if (service->free)
		return service->free;
	return service->fresh_from < DISK_REQUESTS_MAX ? &service->job[service->fresh_from] : NULL;
}

static void take_job(struct disk_service *service, struct job *job)
{
	if (job == service->free)
		service->free = job->next;
	else
		service->fresh_from++;
	service->under_way++;
}

/* A request that is right, as far as its head says, becomes a job; NULL: it is not. */
static struct job *begin_job(struct disk_service *service, const struct io_message *msg)
{
	const struct io_disk_request *ask = &msg->disk_request;
	uint32_t pieces = disk_pieces((enum disk_op)ask->op, ask->length);
	struct job *job = free_job(service);

	if (!job || pieces > service->piece_count)
		return NULL;
	get_pieces(service, job, pieces > 0 ? ask->length : 0);
	job->request = (struct disk_request){ .op = (enum disk_op)ask->op,
					      .offset = ask->offset,
					      .length = ask->length,
					      .iov = job->iov,
					      .iov_count = job->piece_count,
					      .unmap = ask->unmap,
					      .owner = job };
	if (disk_request_check(&service->disk->info, &job->request) < 0) {
		put_pieces(service, job);
		return NULL;
	}
	take_job(service, job);
	job->id = ask->id;
	return job;
}

int disk_service_place(struct disk_service *service, const struct io_message *msg,
		       const struct iovec **ret_iov, uint32_t *ret_count)
{
	struct job *job = begin_job(service, msg);

	if (!job)
		return -EPROTO;
	service->begun = job;
	*ret_iov = job->iov;
	*ret_count = job->piece_count;
	return 0;
}

static uint8_t result_of(int result)
{
	return result == 0	       ? IO_RESULT_OK
	       : result == -EOPNOTSUPP ? IO_RESULT_UNSUPPORTED
				       : IO_RESULT_FAILED;
}

static void answer(struct disk_service *service, struct job *job)
{
	const struct disk_request *request = &job->request;
	bool data = request->result == 0 && request->op == DISK_READ;

	disk_counts_add(&service->counts, request);
	job->parcel = (struct io_parcel){
		.message = { .type = IO_DISK_REPLY,
			     .device = service->device,
			     .data_bytes = data ? (uint32_t)request->length : 0,
			     .disk_reply = { .id = job->id,
					     .result = result_of(request->result) } },
		.iov = data ? job->iov : NULL,
		.iov_count = data ? job->piece_count : 0,
		.owner = job,
	};
	io_send(service->channel, &job->parcel);
}

int disk_service_arrived(struct disk_service *service, const struct io_message *msg)
{
	struct job *job = service->begun;
	int error;

	service->begun = NULL;
	if (!job)
		job = begin_job(service, msg); /* it has no data */
	if (!job)
		return -EPROTO;
	error = disk_submit(service->disk, &job->request);
	if (error < 0) {
		job->request.result = error;
		answer(service, job);
	}
	return 0;
}

void disk_service_work(struct disk_service *service)
{
	struct disk_request *request;

	while ((request = disk_done(service->disk)))
		answer(service, request->owner);
}

void disk_service_left(struct disk_service *service, struct io_parcel *parcel)
{
	end_job(service, parcel->owner);
}

int disk_service_create(struct io_channel *channel, uint8_t device, struct disk *port,
			struct disk_service **ret_service)
{
	struct disk_service *service = calloc(1, sizeof(*service));
	void *pool;

	if (!service)
		return -ENOMEM;
	service->channel = channel;
	service->device = device;
	service->disk = port;
	pool = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pool == MAP_FAILED) {
		free(service);
		return -ENOMEM;
	}
	service->pool = pool;
	for (uint32_t i = DISK_PIECES_MAX; i-- > 0;)
		service->piece[service->piece_count++] = (uint16_t)i;
	*ret_service = service;
	return 0;
}

void disk_service_destroy(struct disk_service *service)
{
	if (!service)
		return;
	munmap(service->pool, POOL_BYTES);
	free(service);
}

const struct disk_counts *disk_service_counts(const struct disk_service *service)
{
	return &service->counts;
}
