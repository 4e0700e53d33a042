/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a disk as the io thread does, for tests: submits, settles, waits for its descriptor.
 */
#ifndef TESTS_BACKEND_DRIVE_H
#define TESTS_BACKEND_DRIVE_H

#include "backend/disk.h"
#include "backend/user.h"

/* Lines that a disk has said. */
struct drive_lines {
	uint32_t count;
	char last[512];
};

struct backend_user drive_user(struct drive_lines *lines);

/* One request, until it is done: its result. */
int drive_one(struct disk *disk, struct disk_request *request);
/* The same of one piece of memory. */
int drive_data(struct disk *disk, enum disk_op op, uint64_t offset, void *data, size_t bytes);
/* FLUSH, DISCARD, ZERO. */
int drive_range(struct disk *disk, enum disk_op op, uint64_t offset, uint64_t bytes, bool unmap);
/* The next that is done, or NULL: nothing for so long. */
struct disk_request *drive_next(struct disk *disk, int patience_ms);

/*
 * Random reads, writes, flushes, discards and zeros, many at once, of pieces that are aligned or
 * not, against an array in memory. Fails the test where they differ.
 */
void drive_storm(struct disk *disk, uint32_t seed, uint32_t requests);

#endif
