/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's guest memory: one sparse anonymous mapping, and the only place that changes its
 * protection.
 *
 *      base                                                                  base + top
 *       |  RAM range 0: 0 .. 3 GiB           |   hole    |  RAM range 1: 4 GiB ..   |
 *       |  s0  |  s1  |  s0  |  s1  |  s0  ..|  (no      |  s1  |  s0  |  s1  | ..  |
 *       |                                    |   access) |                          |
 *
 * hva = base + gpa inside RAM. The mapping costs nothing until pages are installed. Chunks are
 * dealt out to `shard_count` shards in stripes, and each shard has a userfaultfd of its own: two
 * shards share no lock and no queue of ours. Which chunk is whose depends only on the ranges and
 * the number of shards, so all nodes of a pod agree.
 *
 * A page is absent (a touch is a MISSING fault), present and write-protected (a write is a WP
 * fault), or present. install, protect, drop and wake are called for a page by its shard's thread
 * only; hva and the lookups by any thread. `count` pages must lie in one stripe: guest_memory_run()
 * says how many do.
 */
#ifndef MEMORY_GUEST_MEMORY_H
#define MEMORY_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/coherence.h"
#include "core/limits.h"

#define GUEST_MEMORY_RANGES_MAX 8

struct guest_memory_range {
	uint64_t gpa, size; /* multiples of CHUNK_BYTES; ascending, disjoint */
};

struct guest_memory_config {
	struct guest_memory_range range[GUEST_MEMORY_RANGES_MAX];
	uint32_t range_count;
	uint32_t shard_count; /* 1..SHARDS_MAX */
};

struct guest_memory;

/* A thread touched a page that is not there (wp false) or is write-protected (wp true). */
struct guest_fault {
	uint64_t gpn;
	pid_t tid;
	bool write, wp;
	uint16_t offset; /* in the page; 0 where only the page is known (KVM; Linux before 5.18) */
};

/* 0; -EINVAL; -ENOMEM; or as uffd_open() fails. */
int guest_memory_create(const struct guest_memory_config *config, struct guest_memory **ret_memory);
/* Wakes whoever still waits on a fault: they then see zero pages, so stop them first. */
void guest_memory_destroy(struct guest_memory *memory);

/* Address of gpa 0 in this process; of a gpa in RAM, or NULL; the end of the highest range. */
void *guest_memory_base(const struct guest_memory *memory);
void *guest_memory_hva(const struct guest_memory *memory, uint64_t gpa);
uint64_t guest_memory_top(const struct guest_memory *memory);
bool guest_memory_is_ram(const struct guest_memory *memory, uint64_t gpa, uint64_t size);
uint32_t guest_memory_range_count(const struct guest_memory *memory);
struct guest_memory_range guest_memory_range(const struct guest_memory *memory, uint32_t index);

/* Shard of a page; pages from gpn on (at most count) that lie in the same stripe and range. */
uint32_t guest_memory_shard(const struct guest_memory *memory, uint64_t gpn);
uint32_t guest_memory_run(const struct guest_memory *memory, uint64_t gpn, uint32_t count);
/* Pages of RAM that a shard has: not the same for all. */
uint64_t guest_memory_shard_pages(const struct guest_memory *memory, uint32_t shard);
uint32_t guest_memory_shard_count(const struct guest_memory *memory);

/* The shard's userfaultfd, for epoll. */
int guest_memory_fd(const struct guest_memory *memory, uint32_t shard);

/* Up to `max` faults into `ret_fault`: their number, 0: none now, or -errno. */
int guest_memory_faults(struct guest_memory *memory, uint32_t shard, struct guest_fault *ret_fault,
			uint32_t max);

/*
 * Maps `count` absent pages with the content of `data` (page-aligned, count pages), or zeros for
 * NULL, readable (COH_READ) or writable (COH_WRITE), and wakes who waits on them if `wake`. 0;
 * -EEXIST: a page was there; -ENOMEM.
 */
int guest_memory_install(struct guest_memory *memory, uint64_t gpn, uint32_t count,
			 const void *data, enum coh_access access, bool wake);

/* Present pages become read-only (COH_READ) or writable (COH_WRITE). 0 or -errno. */
int guest_memory_protect(struct guest_memory *memory, uint64_t gpn, uint32_t count,
			 enum coh_access access, bool wake);

/* Gives the pages back to the host; their content is gone. Absent pages are fine. 0 or -errno. */
int guest_memory_drop(struct guest_memory *memory, uint64_t gpn, uint32_t count);

/*
 * Takes present pages out, whatever threads do to them: *ret_data is their last content,
 * contiguous, and they are absent (as after a drop). The data stays until guest_memory_recycle() of
 * the shard. -ENOSPC: `count` more than guest_memory_takeable() are out; recycle first. One
 * shootdown for all, or two where the kernel cannot move many pages in one.
 */
int guest_memory_take(struct guest_memory *memory, uint64_t gpn, uint32_t count,
		      const void **ret_data);
/*
 * At most so many pages are out or wait to be given back: they take memory although they are
 * absent. Returns the limit, 1 to 512 (that without this call). Before the first is taken.
 */
uint32_t guest_memory_limit_taken(struct guest_memory *memory, uint32_t shard, uint32_t pages);
uint32_t guest_memory_takeable(const struct guest_memory *memory, uint32_t shard);
/* What was taken before is needed no more. The host gets the memory back when there is much of it:
 * that is a shootdown, too. */
int guest_memory_recycle(struct guest_memory *memory, uint32_t shard);

/* Wakes who waits on the pages; they try again. */
int guest_memory_wake(struct guest_memory *memory, uint64_t gpn, uint32_t count);

/*
 * What the shard's memory has cost so far. A *shootdown* changes pages that are present: every CPU
 * on which a thread of this process runs (and KVM) must drop its translation before the call
 * returns, by an interprocessor interrupt that costs ten times the call, however many pages it is
 * for. Making an absent page present is none. Any thread.
 */
struct guest_memory_counts {
	uint64_t calls;		  /* of the kernel, reads of faults included */
	uint64_t shootdowns;	  /* of those */
	uint64_t shootdown_pages; /* that they changed */
	/* Times that the kernel has moved pages and said that it has not, and the errno with which
	 * it last said so; 0: none, it named fewer pages than it had moved. */
	uint64_t moves_denied;
	int move_error;
};
void guest_memory_counts(const struct guest_memory *memory, uint32_t shard,
			 struct guest_memory_counts *ret_counts);

/* Pages present, by mincore(2), for tests while no page moves: it looks at one after another. Any
 * thread. */
int guest_memory_resident(const struct guest_memory *memory, uint64_t *ret_pages);

#endif
