/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Huge pages for code. What is hot is all over the cache, in more 4 KiB pages than a CPU's TLB for code
 * has entries. Code is a file's memory, as it is mapped twice, and of that Linux makes huge pages only
 * when it is told to for each (MADV_COLLAPSE, 6.1; or shmem_enabled), and hardly of one that somebody
 * is writing to. That may take it milliseconds, as it waits for all CPUs. So a thread does it, and each
 * piece before the first code comes there. Without them code is slower, and no more.
 *
 * Tested in tests/soft/test_cache.c.
 */
#ifndef ENGINE_SOFT_HUGE_H
#define ENGINE_SOFT_HUGE_H

#include <stddef.h>
#include <stdint.h>

#define HUGE_BYTES (2u << 20)

struct soft_huge;

/*
 * Of `bytes` from `base` on, where it is executed, at a multiple of HUGE_BYTES; it is written so far
 * from there. NULL: there will be none.
 */
struct soft_huge *soft_huge_create(uint8_t *base, size_t bytes, ptrdiff_t alias);
/* All pieces before `end` will be in use soon. Does not wait; any thread. NULL is fine. */
void soft_huge_want(struct soft_huge *huge, const uint8_t *end);
/* Before the memory goes. NULL is fine. */
void soft_huge_destroy(struct soft_huge *huge);

#endif
