/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is an array, for tests: requests are done in any order, when disk_work() is called; or
 * fail, or are held back, as the test says.
 */
#ifndef TESTS_BACKEND_MEMORY_DISK_H
#define TESTS_BACKEND_MEMORY_DISK_H

#include "backend/disk.h"

struct memory_disk {
	struct disk disk; /* first */
	uint8_t *bytes;
	uint64_t random;
	uint32_t limit; /* requests under way; at most DISK_REQUESTS_MAX */
	bool hold;	/* nothing is done */
	int fail;	/* what is done from now on has this result */
	uint32_t count, count_max;
	struct disk_request *under_way[DISK_REQUESTS_MAX];
	struct disk_request *done, **done_end;
};

/* Its descriptor is always readable. */
void memory_disk_make(struct memory_disk *disk, uint64_t bytes, uint64_t seed);
void memory_disk_free(struct memory_disk *disk);

#endif
