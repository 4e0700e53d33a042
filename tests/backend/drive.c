/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driving a disk (drive.h).
 */
#include "tests/backend/drive.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PATIENCE_MS 60000
#define BLOCK	    4096
#define DEPTH	    48
#define PIECES	    5
#define SPAN	    (96u << 10) /* of one request, at most; each has a part of the disk for itself */

static void take_line(void *ctx, const char *line)
{
	struct drive_lines *lines = ctx;
	lines->count++;
	snprintf(lines->last, sizeof(lines->last), "%s", line);
}

struct backend_user drive_user(struct drive_lines *lines)
{
	return (struct backend_user){ .name = "disk test", .say = take_line, .ctx = lines };
}

struct disk_request *drive_next(struct disk *disk, int patience_ms)
{
	struct disk_request *request;
	disk_settle(disk);
	while (!(request = disk_done(disk))) {
		struct pollfd fd = { .fd = disk_fd(disk), .events = POLLIN };
		if (poll(&fd, 1, patience_ms) <= 0)
			return NULL;
		disk_work(disk);
		disk_settle(disk);
	}
	return request;
}

int drive_one(struct disk *disk, struct disk_request *request)
{
	int r = disk_submit(disk, request);
	if (r < 0)
		return r;
	assert_ptr_equal(drive_next(disk, PATIENCE_MS), request);
	return request->result;
}

int drive_data(struct disk *disk, enum disk_op op, uint64_t offset, void *data, size_t bytes)
{
	struct iovec iov = { data, bytes };
	struct disk_request request = {
		.op = op, .offset = offset, .length = bytes, .iov = &iov, .iov_count = 1
	};
	return drive_one(disk, &request);
}

int drive_range(struct disk *disk, enum disk_op op, uint64_t offset, uint64_t bytes, bool unmap)
{
	struct disk_request request = {
		.op = op, .offset = offset, .length = bytes, .unmap = unmap
	};
	return drive_one(disk, &request);
}

struct flight {
	struct disk_request request;
	struct iovec iov[PIECES];
	uint8_t *memory;
	bool busy;
};

struct storm {
	struct disk *disk;
	uint64_t random;
	uint8_t *model;
	uint64_t lane_bytes;
	struct flight flight[DEPTH];
};

static uint32_t rnd(struct storm *s, uint32_t below)
{
	s->random = s->random * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((s->random >> 33) % below);
}

/* Cuts the request into pieces of memory, in blocks, or anywhere. */
static void cut(struct storm *s, struct flight *f, uint32_t block)
{
	bool aligned = rnd(s, 2);
	uint8_t *at = f->memory + (aligned ? 0 : 1 + rnd(s, 700));
	uint64_t left = f->request.length;
	uint32_t n = 0;
	while (left) {
		uint64_t part = left;
		if (n + 1 < PIECES && left > block)
			part = aligned ? block * (1 + rnd(s, (uint32_t)(left / block)))
				       : 1 + rnd(s, (uint32_t)left);
		f->iov[n++] = (struct iovec){ at, part };
		at += part + (aligned ? block : rnd(s, 50));
		left -= part;
	}
	f->request.iov = f->iov;
	f->request.iov_count = n;
}

static void land(struct storm *s);

static void launch(struct storm *s, uint32_t lane)
{
	static const enum disk_op ops[] = { DISK_READ,	DISK_READ,  DISK_READ,
					    DISK_WRITE, DISK_WRITE, DISK_WRITE,
					    DISK_FLUSH, DISK_ZERO,  DISK_DISCARD };
	struct flight *f = &s->flight[lane];
	uint32_t block = s->disk->info.block_bytes;
	uint32_t blocks = (uint32_t)((s->lane_bytes < SPAN ? s->lane_bytes : SPAN) / block);
	enum disk_op op = ops[rnd(s, sizeof(ops) / sizeof(ops[0]))];
	f->request = (struct disk_request){ .op = op, .unmap = rnd(s, 2), .owner = f };
	if (op != DISK_FLUSH) {
		uint32_t first = rnd(s, blocks), count = 1 + rnd(s, blocks - first);
		f->request.offset = lane * s->lane_bytes + (uint64_t)first * block;
		f->request.length = (uint64_t)count * block;
	}
	if (op == DISK_READ || op == DISK_WRITE)
		cut(s, f, block);
	uint8_t *model = s->model + f->request.offset;
	for (uint32_t i = 0; op == DISK_WRITE && i < f->request.iov_count; i++) {
		uint8_t *byte = f->iov[i].iov_base;
		for (size_t b = 0; b < f->iov[i].iov_len; b++)
			*model++ = byte[b] = (uint8_t)rnd(s, 256);
	}
	if (op == DISK_ZERO)
		memset(model, 0, f->request.length);
	int r;
	while ((r = disk_submit(s->disk, &f->request)) == -EAGAIN)
		land(s);
	assert_int_equal(r, 0);
	f->busy = true;
}

static void land(struct storm *s)
{
	struct disk_request *request = drive_next(s->disk, PATIENCE_MS);
	assert_non_null(request);
	assert_int_equal(request->result, 0);
	struct flight *f = request->owner;
	uint8_t *model = s->model + request->offset;
	f->busy = false;
	for (uint32_t i = 0; request->op == DISK_READ && i < request->iov_count; i++) {
		assert_memory_equal(f->iov[i].iov_base, model, f->iov[i].iov_len);
		model += f->iov[i].iov_len;
	}
	/* What is discarded may be anything: it is made something again. */
	if (request->op == DISK_DISCARD) {
		f->request.op = DISK_ZERO;
		memset(model, 0, request->length);
		f->busy = true;
		assert_int_equal(disk_submit(s->disk, request), 0);
	}
}

void drive_storm(struct disk *disk, uint32_t seed, uint32_t requests)
{
	struct storm *s = calloc(1, sizeof(*s));
	uint64_t bytes = disk->info.bytes;
	s->disk = disk;
	s->random = seed;
	s->lane_bytes = bytes / DEPTH / BLOCK * BLOCK;
	s->model = calloc(1, bytes);
	assert_int_equal(drive_range(disk, DISK_ZERO, 0, bytes, false), 0);
	for (uint32_t i = 0; i < DEPTH; i++)
		assert_int_equal(
			posix_memalign((void **)&s->flight[i].memory, 4096, 2 * SPAN + 65536), 0);
	uint32_t begun = 0, busy;
	do {
		busy = 0;
		for (uint32_t i = 0; i < DEPTH; i++) {
			if (!s->flight[i].busy && begun < requests) {
				launch(s, i);
				begun++;
			}
			busy += s->flight[i].busy;
		}
		if (busy)
			land(s);
	} while (busy);
	for (uint64_t at = 0; at < bytes; at += SPAN) {
		size_t part = bytes - at < SPAN ? bytes - at : SPAN;
		assert_int_equal(drive_data(disk, DISK_READ, at, s->flight[0].memory, part), 0);
		assert_memory_equal(s->flight[0].memory, s->model + at, part);
	}
	for (uint32_t i = 0; i < DEPTH; i++)
		free(s->flight[i].memory);
	free(s->model);
	free(s);
}
