/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of a disk that are done: counted by one thread, read by any.
 */
#ifndef NODE_DISK_COUNTS_H
#define NODE_DISK_COUNTS_H

#include <stdatomic.h>
#include <stdint.h>

#include "backend/disk.h"

struct disk_counts {
	_Atomic uint64_t requests, errors, read_bytes, write_bytes;
};

static inline void disk_counts_raise(_Atomic uint64_t *count, uint64_t by)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + by,
			      memory_order_relaxed);
}

static inline void disk_counts_add(struct disk_counts *counts, const struct disk_request *request)
{
	disk_counts_raise(&counts->requests, 1);
	if (request->result < 0)
		disk_counts_raise(&counts->errors, 1);
	else if (request->op == DISK_READ)
		disk_counts_raise(&counts->read_bytes, request->length);
	else if (request->op == DISK_WRITE)
		disk_counts_raise(&counts->write_bytes, request->length);
}

#endif
