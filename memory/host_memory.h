/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory this host can give a node: what it has, what this process's cgroups let it use,
 * and, where the kernel promises no more than it has (vm.overcommit_memory = 2), what it may still
 * map.
 */
#ifndef MEMORY_HOST_MEMORY_H
#define MEMORY_HOST_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Bytes; UINT64_MAX: no limit. */
struct host_memory {
	uint64_t total;	 /* memory and swap */
	uint64_t cgroup; /* the least memory.max (or v1's memory.limit_in_bytes) up to the root */
	uint64_t commit; /* that may be mapped yet */
};

/* `root` is put before /proc and /sys: "" but in tests. What cannot be read is no limit. */
void host_memory_probe(const char *root, struct host_memory *ret_memory);

/* Bytes, of all nodes here together. */
struct host_memory_need {
	uint64_t promised; /* of guest pages */
	uint64_t kept;	   /* that links need besides, always */
	uint64_t may;	   /* that seats, the engine and devices need at most; usually far less */
	uint64_t mapped;
};

/*
 * Whether nodes here can keep what they promise. 0, or -ENOMEM with one line in `why` that names the
 * limit and the remedy. With 0 there is a line, too, where it would not do for all that they may
 * need; else `why` is "".
 */
int host_memory_check(const struct host_memory *memory, const struct host_memory_need *need,
		      char *why, size_t why_size);

#endif
