/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes that are not flushed yet (unflushed.h): two rings, of records and of their data, both of
 * which are emptied from the first on. Data that reaches the ring's end goes on at its beginning.
 *
 * Tested by tests/backend/test_unflushed.c.
 */
#include "backend/unflushed.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct record {
	uint64_t offset, length;
	uint64_t at; /* WRITE: its data, counted from the beginning of all */
	uint8_t op;
	bool unmap;
};

struct unflushed {
	uint64_t first, end;
	uint32_t reserved;   /* records */
	uint64_t data_end;   /* as record.at */
	uint64_t used_bytes; /* of data */
	uint64_t reserved_bytes;
	uint8_t *data;
	struct record record[UNFLUSHED_RECORDS];
};

static uint64_t data_bytes(enum disk_op op, uint64_t length)
{
	return op == DISK_WRITE ? length : 0;
}

int unflushed_create(struct unflushed **ret_unflushed)
{
	struct unflushed *u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	void *data = mmap(NULL, UNFLUSHED_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (data == MAP_FAILED) {
		free(u);
		return -ENOMEM;
	}
	u->data = data;
	*ret_unflushed = u;
	return 0;
}

void unflushed_destroy(struct unflushed *u)
{
	if (!u)
		return;
	munmap(u->data, UNFLUSHED_BYTES);
	free(u);
}

size_t unflushed_kept_bytes(void)
{
	return sizeof(struct unflushed) + UNFLUSHED_BYTES;
}

bool unflushed_reserve(struct unflushed *u, const struct disk_request *request)
{
	uint64_t bytes = data_bytes(request->op, request->length);
	assert(bytes <= DISK_BYTES_MAX);
	if (u->end - u->first + u->reserved == UNFLUSHED_RECORDS ||
	    bytes > UNFLUSHED_BYTES - u->used_bytes - u->reserved_bytes)
		return false;
	u->reserved++;
	u->reserved_bytes += bytes;
	return true;
}

void unflushed_release(struct unflushed *u, const struct disk_request *request)
{
	u->reserved--;
	u->reserved_bytes -= data_bytes(request->op, request->length);
}

static void put_data(struct unflushed *u, const uint8_t *from, uint64_t bytes)
{
	uint64_t at = u->data_end % UNFLUSHED_BYTES, left = UNFLUSHED_BYTES - at;
	uint64_t part = bytes < left ? bytes : left;
	memcpy(u->data + at, from, part);
	memcpy(u->data, from + part, bytes - part);
	u->data_end += bytes;
}

void unflushed_add(struct unflushed *u, const struct disk_request *request)
{
	struct record *record = &u->record[u->end % UNFLUSHED_RECORDS];
	unflushed_release(u, request);
	*record = (struct record){ .op = (uint8_t)request->op,
				   .unmap = request->unmap,
				   .offset = request->offset,
				   .length = request->length,
				   .at = u->data_end };
	u->end++;
	u->used_bytes += data_bytes(request->op, request->length);
	for (uint32_t i = 0; request->op == DISK_WRITE && i < request->iov_count; i++)
		put_data(u, request->iov[i].iov_base, request->iov[i].iov_len);
}

uint64_t unflushed_first(const struct unflushed *u)
{
	return u->first;
}

uint64_t unflushed_end(const struct unflushed *u)
{
	return u->end;
}

void unflushed_flushed(struct unflushed *u, uint64_t mark)
{
	assert(mark <= u->end);
	for (; u->first < mark; u->first++) {
		const struct record *record = &u->record[u->first % UNFLUSHED_RECORDS];
		u->used_bytes -= data_bytes((enum disk_op)record->op, record->length);
	}
	if (u->first == u->end)
		u->data_end = 0; /* so that who flushes often uses little memory */
}

bool unflushed_wants_flush(const struct unflushed *u)
{
	return u->used_bytes > UNFLUSHED_BYTES / 2 || u->end - u->first > UNFLUSHED_RECORDS / 2;
}

static const struct record *record_of(const struct unflushed *u, uint64_t number)
{
	assert(number >= u->first && number < u->end);
	return &u->record[number % UNFLUSHED_RECORDS];
}

void unflushed_get(const struct unflushed *u, uint64_t number, struct unflushed_record *ret_record)
{
	const struct record *record = record_of(u, number);
	uint64_t at = record->at % UNFLUSHED_BYTES, left = UNFLUSHED_BYTES - at;
	uint64_t bytes = data_bytes((enum disk_op)record->op, record->length);
	uint64_t part = bytes < left ? bytes : left;
	*ret_record = (struct unflushed_record){
		.op = (enum disk_op)record->op,
		.unmap = record->unmap,
		.offset = record->offset,
		.length = record->length,
		.data = { { u->data + at, part }, { u->data, bytes - part } },
		.data_count = (part > 0) + (bytes > part),
	};
}

static bool overlap(const struct record *a, const struct record *b)
{
	return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

uint32_t unflushed_batch(const struct unflushed *u, uint64_t number)
{
	uint32_t count = 0;
	for (; count < UNFLUSHED_TOGETHER && number + count < u->end; count++) {
		const struct record *next = record_of(u, number + count);
		for (uint32_t i = 0; i < count; i++)
			if (overlap(record_of(u, number + i), next))
				return count;
	}
	return count;
}
