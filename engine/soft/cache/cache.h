/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: stubs, the stepper's buffers, blocks of translated code. See cache.c.
 *
 * A block is a run of guest instructions at one virtual and physical address, translated for a
 * mode:
 *
 *   code:  bridges, by which near jumps reach what is cold
 *   entry: what precedes a loop
 *   head:  host code of the instructions, and of the ways out; the first one has 5 bytes at least,
 *          where an invalid block gets its jump away
 *          cold: TLB misses, unlinked jumps, the way out of an invalid block
 *
 * Its records say what the guest's state is at a host address: see struct soft_record.
 */
#ifndef ENGINE_SOFT_CACHE_H
#define ENGINE_SOFT_CACHE_H

#include "engine/soft/vcpu.h"

#define SOFT_EXEC_BYTES	 128u /* for one instruction; two lines of the host's caches */
#define SOFT_EXEC_PLACES 16u
#define SOFT_RECORDS_MAX 200u  /* of a block */
#define SOFT_KEPT_MAX	 4096u /* bytes, of what soft_cache_keep() keeps */
#define SOFT_SPAN_MAX	 256   /* bytes; accesses within it may share a look (translate/share.c) */

/* What a block is translated for, besides its address. The view is in the low two bits. */
#define MODE_VIEW      3u
#define MODE_SLOT      4u /* is entered with its flags in the slot */
#define MODE_NO_VECTOR 8u /* vector instructions have to ask C first (CR0.TS, ...) */
#define MODE_NO_AVX    16u
#define MODE_ALONE     32u /* every access looks for itself (translate/share.c) */

/*
 * Host addresses from `start` to `clean` (both included): if the guest is stopped there, it is at
 * the start of the instruction at rip. Behind `clean`, up to the next record, it is in the middle:
 * the host's CPU has to go on to the next record first.
 */
struct soft_record {
	uint64_t rip;
	uint16_t start, clean; /* offsets into the block's code */
	uint8_t slot : 1;      /* flags are in the slot, else in the host's register */
	/*
	 * Where a computed jump goes is in r10, and rip is the jump's own: if it turns out that it
	 * cannot go there (not canonical), what it did to the stack is undone. But SYSCALL and
	 * SYSRET are through then, and the fault is that address's.
	 */
	uint8_t computed : 3; /* enum soft_computed */
	/* rdi (and rsi) are the guest's and what is in r10 (and r11). */
	uint8_t string : 2; /* enum soft_string */
	int8_t lag;	    /* the guest's rsp - the host's, in 8 bytes */
	uint8_t swapped;    /* that register's value is in r11; NOT_SWAPPED */
	uint8_t shadow;	    /* no interrupt may come before this instruction */
};
enum soft_computed { NOT_COMPUTED, COMPUTED_JUMP, COMPUTED_CALL, COMPUTED_RETURN, COMPUTED_ENTRY };
enum soft_string { NO_STRING, STRING_STORES, STRING_MOVES };
#define NOT_SWAPPED 0xffu

/* Offsets in the page. */
struct soft_part {
	uint16_t first, end;
};
#define SOFT_PARTS_MAX 3u
struct soft_block {
	uint64_t rip, gpa;
	uint8_t *code, *entry, *head, *stale;
	struct soft_block *hash_next, *page_next;
	/* Its one instruction reaches into this page (then another list knows it, too); or 0. */
	uint64_t gpa_behind;
	struct soft_block *behind_next;
	uint32_t code_bytes;
	/* The guest's code that it was made from, which follows jumps. */
	struct soft_part part[SOFT_PARTS_MAX];
	uint16_t record_count;
	uint8_t mode;
	bool valid;
	bool narrowed; /* it was made anew, since its accesses could not share: its bytes are the same */
	struct soft_record record[];
};

/* Where generated code jumps to leave, its reason being stored. */
const uint8_t *soft_cache_exit(const struct engine *engine);
/* Goes on at rip, which is in r10, if it is found after all; else leaves. Flags in the slot. */
const uint8_t *soft_cache_lookup(const struct engine *engine);
/* Leaves guest code, everything being saved. */
const uint8_t *soft_cache_left(const struct engine *engine);
/* The stepper's buffer of a vCPU. */
uint8_t *soft_cache_exec(const struct engine *engine, uint32_t slot);
typedef uint64_t soft_enter_fn(const void *code);
soft_enter_fn *soft_cache_enter(const struct engine *engine);

/*
 * How far from where code is executed it is written: no memory is writable and executable by one
 * address. What is said about code, here and elsewhere, is where it is executed.
 */
ptrdiff_t soft_cache_alias(const struct engine *engine);
/* A jump's distance, which others may execute meanwhile. */
void soft_cache_patch(struct engine *engine, uint8_t *at, const uint8_t *target);
/*
 * A CPU may have read code ahead that has been written since by another address than it executes (SDM
 * volume 3, 9.1.3): whoever enters translated code next serializes first (soft_enter()).
 */
static inline void soft_cache_written(struct engine *engine)
{
	atomic_fetch_add_explicit(&engine->code_writes, 1, memory_order_release);
}

/* Where a pc is. */
enum soft_place {
	PLACE_OUTSIDE,
	PLACE_STUB,	/* on the way in, or all but out */
	PLACE_ENTERING, /* all of the guest's state is in the vCPU */
	PLACE_LOOKUP,	/* between two blocks */
	PLACE_LEAVING,	/* on the way out: registers are half saved */
	PLACE_EXEC,	/* in a stepper's buffer */
	PLACE_BLOCK,
};
/* The pc in the cache that has these low bits; 0: none has. */
uint64_t soft_cache_widen(const struct engine *engine, uint32_t low);
enum soft_place soft_cache_place(const struct engine *engine, uint64_t pc);

int soft_cache_create(struct engine *engine);
/* Of the host's memory, at most. */
uint64_t soft_cache_kept_bytes(void);
void soft_cache_destroy(struct engine *engine);
/* Counts emptyings: what was found before the last is no more. */
uint64_t soft_cache_generation(const struct engine *engine);
/* Is there no room for another block? */
bool soft_cache_is_full(const struct engine *engine);
/*
 * All other vCPUs paused, lock not held: forgets every block, and who jumps to them. What it takes
 * is in proportion to the blocks, not to guest memory. With hundreds of thousands of them it is what
 * may be longest of all that a kick waits for: its pieces are counted in vcpu->work_count.
 */
void soft_cache_empty(struct engine_vcpu *vcpu);
/* A valid block, or NULL. */
struct soft_block *soft_cache_find(const struct engine *engine, uint64_t gpa, uint64_t rip,
				   uint8_t mode);
/* Where the next block goes: its notes and records, and its code. Lock held. */
struct soft_room {
	struct soft_block *block;
	uint8_t *at, *end;
	uint32_t record_max;
};
struct soft_room soft_cache_room(const struct engine *engine);
/* A copy that lasts until the cache is emptied. Lock held. */
void *soft_cache_keep(struct engine *engine, const void *data, size_t bytes);
/* The block in the room is found from now on. Lock held. */
void soft_cache_publish(struct engine *engine, struct soft_block *block);
/*
 * How near to each other accesses have to be to share the look of the instruction at this gpa: a
 * number from 0 to NARROWEST, and the bytes that it stands for (0: it looks for itself alone).
 */
#define NARROWEST 3u
uint8_t soft_cache_narrow(const struct engine *engine, uint64_t gpa);
uint32_t soft_cache_span(uint8_t narrow);
/* Nearer than that from now on. Lock held. */
void soft_cache_narrow_more(struct engine *engine, uint64_t gpa, uint8_t than);
/* The leader's at this gpa in split_left and split_at of each vCPU. */
static inline uint32_t soft_split_place(uint64_t gpa)
{
	return (uint32_t)(gpa * 0x9e3779b97f4a7c15ull >> 40) % SPLIT_PLACES;
}
/* Lock held. No vCPU enters it any more. */
void soft_block_invalidate(struct engine *engine, struct soft_block *block);
/* The record for a host address inside a block, or NULL; *ret_block its block. */
const struct soft_record *soft_record_find(const struct engine *engine, uint64_t pc,
					   const struct soft_block **ret_block);

#endif
