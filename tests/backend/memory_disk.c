/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is an array (memory_disk.h).
 */
#include "tests/backend/memory_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct memory_disk *memory_of(struct disk *disk)
{
	return (struct memory_disk *)disk;
}

static int memory_submit(struct disk *disk, struct disk_request *request)
{
	struct memory_disk *m = memory_of(disk);
	int r = disk_request_check(&disk->info, request);
	if (r < 0)
		return r;
	if (m->count == m->limit)
		return -EAGAIN;
	m->under_way[m->count++] = request;
	if (m->count > m->count_max)
		m->count_max = m->count;
	return 0;
}

static void memory_settle(struct disk *disk)
{
}

static void act(struct memory_disk *m, struct disk_request *request)
{
	uint8_t *at = m->bytes + request->offset;
	request->result = m->fail;
	if (m->fail)
		return;
	for (uint32_t i = 0; i < request->iov_count; i++) {
		if (request->op == DISK_WRITE)
			memcpy(at, request->iov[i].iov_base, request->iov[i].iov_len);
		else if (request->op == DISK_READ)
			memcpy(request->iov[i].iov_base, at, request->iov[i].iov_len);
		at += request->iov[i].iov_len;
	}
	if (request->op == DISK_ZERO)
		memset(at, 0, request->length);
	if (request->op == DISK_DISCARD)
		memset(at, 0xdc, request->length);
}

static void memory_work(struct disk *disk)
{
	struct memory_disk *m = memory_of(disk);
	uint32_t begun = m->count;
	for (uint32_t i = 0; !m->hold && i < begun; i++) {
		m->random = m->random * 6364136223846793005ull + 1442695040888963407ull;
		uint32_t which = (uint32_t)(m->random >> 33) % m->count;
		struct disk_request *request = m->under_way[which];
		if (m->random >> 62 == 0)
			continue;
		m->under_way[which] = m->under_way[--m->count];
		act(m, request);
		request->next = NULL;
		*m->done_end = request;
		m->done_end = &request->next;
	}
}

static struct disk_request *memory_done(struct disk *disk)
{
	struct memory_disk *m = memory_of(disk);
	struct disk_request *request = m->done;
	if (!request)
		return NULL;
	m->done = request->next;
	if (!m->done)
		m->done_end = &m->done;
	return request;
}

static void memory_destroy(struct disk *disk)
{
}

static const struct disk_ops memory_ops = { .submit = memory_submit,
					    .settle = memory_settle,
					    .work = memory_work,
					    .done = memory_done,
					    .destroy = memory_destroy };

void memory_disk_make(struct memory_disk *m, uint64_t bytes, uint64_t seed)
{
	*m = (struct memory_disk){ .limit = DISK_REQUESTS_MAX, .random = seed };
	m->disk = (struct disk){ .ops = &memory_ops,
				 .info = { .bytes = bytes,
					   .block_bytes = 512,
					   .alignment = 1,
					   .discard = true,
					   .zero = true,
					   .write_back = true },
				 .fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK) };
	m->bytes = calloc(1, bytes);
	m->done_end = &m->done;
	if (m->disk.fd < 0 || !m->bytes)
		abort();
}

void memory_disk_free(struct memory_disk *m)
{
	close(m->disk.fd);
	free(m->bytes);
}
