/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints: the pages that a vCPU will want soon after it has moved. Pure.
 *
 * A vCPU takes along a short list of pages that it stalled on, the latest first. What it stalled on
 * again while the page was in the list is proven: the next node asks for such pages at once, in one
 * go, while the vCPU runs already. Nobody sees whether it touches them there; so a page is asked for
 * at 3 moves, and then only a new stall tells that it is still wanted. If that comes within 8 moves, the
 * page is asked for at 7, then 15, 31, 63: a stall costs as much as asking for some ten pages does. If
 * it comes only after 16, at 3 again. Pages differ, and some are for down to half as many: if all ended
 * at the same move it would bring as many stalls at once as one without hints, and they would look like
 * a reason to go back. A page that was wanted once, as in a scan, is remembered and not asked for, and
 * takes no proven one's place.
 *
 *      stall -> remembered -- stall --> proven: asked for, 3 moves -> remembered -- stall --> 7 moves ...
 *
 * It is asked for to be written if it was written. Most pages are read first and then written, two
 * stalls; so a new stall that only reads does not count against it at once, but the second does, and
 * any while it is still asked for: then somebody else wants the page, too.
 *
 * One caller at a time. Tested in tests/core/test_page_hints.c.
 */
#ifndef CORE_PAGE_HINTS_H
#define CORE_PAGE_HINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/coherence.h"

#define PAGE_HINTS_MAX	     64u
#define PAGE_HINT_BYTES	     8u
#define PAGE_HINTS_BYTES_MAX (PAGE_HINTS_MAX * PAGE_HINT_BYTES)
#define PAGE_HINT_LEVELS     5u

struct page_hint {
	uint64_t gpn;
	uint8_t turns; /* moves at which it will still be asked for */
	uint8_t level; /* for how many it is asked for when it is proven; to PAGE_HINT_LEVELS */
	uint8_t idle;  /* moves at which it was not asked for since, up to a bound */
	bool write, doubt;
	bool ask; /* page_hints_ask() */
};

/* All zero: none. */
struct page_hints {
	uint32_t count;
	struct page_hint hint[PAGE_HINTS_MAX]; /* the latest first */
};

/* The vCPU's stall on gpn is over. First touches are not counted: no other node has such a page. */
void page_hints_stalled(struct page_hints *hints, uint64_t gpn, enum coh_stall_kind kind);

/* What the vCPU takes along; how many bytes that are. */
uint32_t page_hints_write(const struct page_hints *hints, uint8_t bytes[PAGE_HINTS_BYTES_MAX]);
/*
 * What it has brought, which may be anything: the pages may be none of this guest's. 0; -EBADMSG: no
 * whole number of hints, more than PAGE_HINTS_MAX, or no page that any guest has; *ret_hints is then
 * untouched.
 */
int page_hints_read(const uint8_t *bytes, uint32_t size, struct page_hints *ret_hints);

/* Marks what is to be asked for after this move. How many that are. */
uint32_t page_hints_ask(struct page_hints *hints);

#endif
