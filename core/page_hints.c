/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that a vCPU takes along: see page_hints.h. */
#include "core/page_hints.h"

#include <errno.h>
#include <string.h>

#include "core/limits.h"

/* On the wire, little-endian: write 0, doubt 1, level 4:2, turns 10:5, idle 15:11, gpn 63:16. */
#define WRITE_BIT   1u
#define DOUBT_BIT   2u
#define LEVEL_SHIFT 2
#define LEVEL_MASK  7u
#define TURNS_SHIFT 5
#define TURNS_MASK  63u
#define IDLE_SHIFT  11
#define IDLE_MASK   31u
#define GPN_SHIFT   16

#define IDLE_SOON 8u  /* wanted again after fewer moves: worth asking for more often */
#define IDLE_LATE 16u /* after so many: hardly worth it */

static const uint8_t turns_of[PAGE_HINT_LEVELS + 1] = { 0, 3, 7, 15, 31, 63 };

static uint32_t find(const struct page_hints *hints, uint64_t gpn)
{
	uint32_t i = 0;

	while (i < hints->count && hints->hint[i].gpn != gpn)
		i++;
	return i;
}

/* A place for a new one: the oldest that is not proven gives way, or else the oldest. */
static uint32_t make_room(struct page_hints *hints)
{
	uint32_t at = PAGE_HINTS_MAX;

	if (hints->count < PAGE_HINTS_MAX)
		return hints->count++;
	while (at > 0 && hints->hint[at - 1].turns)
		at--;
	return (at ? at : PAGE_HINTS_MAX) - 1;
}

static uint8_t turns_for(const struct page_hint *hint)
{
	uint8_t most = turns_of[hint->level];

	return (uint8_t)(most - hint->gpn % (most / 2 + 1));
}

static void prove(struct page_hint *hint, enum coh_stall_kind kind)
{
	if (kind == COH_STALL_READ && hint->write) {
		hint->write = !hint->turns && !hint->doubt;
		hint->doubt = hint->write;
	}
	if (!hint->turns && hint->level && hint->idle >= IDLE_LATE)
		hint->level = 1;
	else if (!hint->turns && hint->idle < IDLE_SOON && hint->level < PAGE_HINT_LEVELS)
		hint->level++;
	hint->level += !hint->level;
	hint->turns = turns_for(hint);
	hint->idle = 0;
}

void page_hints_stalled(struct page_hints *hints, uint64_t gpn, enum coh_stall_kind kind)
{
	uint32_t at = find(hints, gpn);
	struct page_hint hint = { .gpn = gpn };

	if (kind == COH_STALL_ZERO || kind >= COH_STALL_KINDS)
		return;
	/* An upgrade: it was there, and not lost. That tells nothing of whether it comes back. */
	if (at < hints->count) {
		hint = hints->hint[at];
		if (kind != COH_STALL_UPGRADE)
			prove(&hint, kind);
	} else {
		at = make_room(hints);
	}
	if (kind != COH_STALL_READ) {
		hint.write = true;
		hint.doubt = false;
	}
	memmove(&hints->hint[1], &hints->hint[0], at * sizeof(hint));
	hints->hint[0] = hint;
}

uint32_t page_hints_write(const struct page_hints *hints, uint8_t bytes[PAGE_HINTS_BYTES_MAX])
{
	for (uint32_t i = 0; i < hints->count; i++) {
		const struct page_hint *hint = &hints->hint[i];
		uint64_t word = hint->gpn << GPN_SHIFT | (uint64_t)hint->idle << IDLE_SHIFT |
				(uint64_t)hint->turns << TURNS_SHIFT |
				(uint64_t)hint->level << LEVEL_SHIFT |
				(hint->doubt ? DOUBT_BIT : 0) | (hint->write ? WRITE_BIT : 0);

		for (uint32_t b = 0; b < PAGE_HINT_BYTES; b++)
			bytes[i * PAGE_HINT_BYTES + b] = (uint8_t)(word >> 8 * b);
	}
	return hints->count * PAGE_HINT_BYTES;
}

static bool read_one(const uint8_t *bytes, struct page_hint *ret_hint)
{
	uint64_t word = 0;

	for (uint32_t b = 0; b < PAGE_HINT_BYTES; b++)
		word |= (uint64_t)bytes[b] << 8 * b;
	*ret_hint = (struct page_hint){ .gpn = word >> GPN_SHIFT,
					.turns = word >> TURNS_SHIFT & TURNS_MASK,
					.idle = word >> IDLE_SHIFT & IDLE_MASK,
					.level = word >> LEVEL_SHIFT & LEVEL_MASK,
					.doubt = word & DOUBT_BIT,
					.write = word & WRITE_BIT };
	return ret_hint->gpn < GPN_LIMIT && ret_hint->level <= PAGE_HINT_LEVELS &&
	       ret_hint->turns <= turns_of[ret_hint->level];
}

int page_hints_read(const uint8_t *bytes, uint32_t size, struct page_hints *ret_hints)
{
	struct page_hints hints = { .count = size / PAGE_HINT_BYTES };

	if (size % PAGE_HINT_BYTES || size > PAGE_HINTS_BYTES_MAX)
		return -EBADMSG;
	for (uint32_t i = 0; i < hints.count; i++)
		if (!read_one(bytes + i * PAGE_HINT_BYTES, &hints.hint[i]))
			return -EBADMSG;
	*ret_hints = hints;
	return 0;
}

uint32_t page_hints_ask(struct page_hints *hints)
{
	uint32_t asked = 0;

	for (uint32_t i = 0; i < hints->count; i++) {
		struct page_hint *hint = &hints->hint[i];

		hint->ask = hint->turns > 0;
		hint->turns -= hint->ask;
		hint->idle += !hint->ask && hint->idle < IDLE_MASK;
		asked += hint->ask;
	}
	return asked;
}
