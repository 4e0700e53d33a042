/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: stubs, the stepper's buffers, blocks of translated code. See block.c.
 *
 * A block is a run of guest instructions at one virtual and physical address, translated for a
 * mode:
 *
 *   code:  what precedes a loop
 *   head:  nop (5 bytes, where an invalid block gets its jump away)
 *          host code of the instructions, and of the ways out
 *          cold: TLB misses, unlinked jumps, the way out of an invalid block
 *
 * Its records say what the guest's state is at a host address: see struct soft_record.
 */
#ifndef ENGINE_SOFT_BLOCK_H
#define ENGINE_SOFT_BLOCK_H

#include "engine/soft/soft.h"

#define SOFT_EXEC_BYTES 256u
#define SOFT_SPAN_MAX	256 /* bytes; accesses within it may share a look (translate/share.c) */

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
	uint8_t slot;	       /* flags are in the slot, else in the host's register */
	/*
	 * Where a computed jump goes is in r14, and rip is the jump's own: if it turns out that it
	 * cannot go there (not canonical), what it did to the stack is undone.
	 */
	uint8_t computed; /* enum soft_computed */
	uint8_t swapped;  /* that register's value is in r15; NOT_SWAPPED */
	uint8_t shadow;	  /* no interrupt may come before this instruction */
};
enum soft_computed { NOT_COMPUTED, COMPUTED_JUMP, COMPUTED_CALL, COMPUTED_RETURN };
#define NOT_SWAPPED 0xffu

struct soft_block {
	uint64_t rip, gpa;
	uint8_t *code, *head, *stale;
	struct soft_block *hash_next, *page_next;
	/* Its one instruction reaches into this page (then another list knows it, too); or 0. */
	uint64_t gpa_behind;
	struct soft_block *behind_next;
	uint32_t code_bytes;
	uint16_t guest_bytes, record_count;
	uint8_t mode;
	bool valid;
	uint32_t splits;   /* how often in a row its accesses could not share */
	bool narrowed;	   /* and therefore it was made anew: its bytes are the same */
	uint64_t split_at; /* the last time, TSC */
	struct soft_record record[];
};

/* Where generated code jumps to leave, its reason being stored. */
const uint8_t *soft_cache_exit(const struct engine *engine);
/* Goes on at rip, which is in r14, if it is found after all; else leaves. Flags in the slot. */
const uint8_t *soft_cache_lookup(const struct engine *engine);
/* The same, from anywhere on the way through that (PLACE_LOOKUP): it is not to go on. */
const uint8_t *soft_cache_unknown(const struct engine *engine);
/* Leaves guest code, everything being saved. */
const uint8_t *soft_cache_left(const struct engine *engine);
/* The stepper's buffer of a vCPU. */
uint8_t *soft_cache_exec(const struct engine *engine, uint32_t slot);
typedef uint64_t soft_enter_fn(const void *code);
soft_enter_fn *soft_cache_enter(const struct engine *engine);

/* Where a pc is. */
enum soft_place {
	PLACE_OUTSIDE,
	PLACE_STUB,	/* on the way in or out: registers are half saved */
	PLACE_ENTERING, /* all of the guest's state is in the vCPU */
	PLACE_LOOKUP,	/* between two blocks */
	PLACE_EXEC,	/* in a stepper's buffer */
	PLACE_BLOCK,
};
enum soft_place soft_cache_place(const struct engine *engine, uint64_t pc);

/* The mode that the vCPU needs now, without MODE_SLOT. */
uint8_t soft_mode(const struct engine_vcpu *vcpu);

/* Accesses of the block of this host address could not share; if often, it is made anew. */
void soft_block_split(struct engine *engine, uint64_t host);

/*
 * The block for vcpu->rip, translated if need be; mode: MODE_SLOT, MODE_ALONE, besides what the
 * vCPU's state asks for. SOFT_FAULT: fetching faults. SOFT_AGAIN: this
 * instruction has to be stepped.
 */
int soft_block_get(struct engine_vcpu *vcpu, uint8_t mode, struct soft_block **ret_block);
/* A jump that left by SOFT_REASON_LINK goes straight to the block from now on. */
void soft_block_link(struct engine_vcpu *vcpu, uint8_t *site, const struct soft_block *block,
		     uint64_t generation);
/*
 * Who jumps to the invalid block with this head goes on to the one that replaces it. Only if that
 * was for the sake of sharing: where code is written again and again, chains of jumps would grow.
 */
void soft_block_forward(struct engine_vcpu *vcpu, uint8_t *head, const struct soft_block *block,
			uint64_t generation);
uint64_t soft_cache_generation(const struct engine *engine);
/* Lock held. No vCPU enters it any more. */
void soft_block_invalidate(struct engine *engine, struct soft_block *block);
/* The record for a host address inside a block, or NULL; *ret_block its block. */
const struct soft_record *soft_record_find(const struct engine *engine, uint64_t pc,
					   const struct soft_block **ret_block);

/* code_page.c */
/* From now on no vCPU writes the page without asking; its version, to be given to insert. */
int soft_code_begin(struct engine_vcpu *vcpu, uint64_t gpa, uint32_t *ret_version);
/* Lock held. Makes it known; false: the page has been written since. */
bool soft_code_insert(struct engine *engine, struct soft_block *block, const uint32_t version[2]);
/* Every block is gone (the cache was emptied). All other vCPUs are paused. */
void soft_code_forget_all(struct engine *engine);

/* pause.c: all other vCPUs (or those of the mask, by number modulo 64) wait at a safe point. */
void soft_pause_others(struct engine_vcpu *vcpu, uint64_t mask);
void soft_resume_others(struct engine_vcpu *vcpu);
/* A signal has broken off what the vCPU did: the others go on if it had paused them. */
void soft_pause_abandoned(struct engine_vcpu *vcpu);
/* Waits here while someone wants it. Holding no lock and no host address of guest memory. */
void soft_safe_point(struct engine_vcpu *vcpu);

/* translate.c: lock held. Writes code and records at `at`; false: too large for the room there. */
struct soft_insn;
struct soft_translation {
	struct engine_vcpu *vcpu;
	const struct soft_insn *insn;
	uint32_t count;
	uint64_t rip;
	uint8_t mode;
	uint8_t *at, *end;
	struct soft_record *record;
	uint32_t record_max;
	const struct soft_insn *known; /* a lasting copy of the last instruction, or NULL */
	uint32_t span;		       /* accesses within so many bytes share; 0: none do */
	bool crossing_next; /* the instruction behind the block reaches into the next page */
	/* results */
	uint32_t code_bytes, record_count;
	uint8_t *head, *stale;
};
bool soft_translate_block(struct soft_translation *translation);
/* Is it left to C? */
bool soft_insn_is_stepped(const struct soft_insn *insn, uint8_t mode);
/* Must the instruction be the block's last? */
bool soft_insn_ends_block(const struct soft_insn *insn, uint8_t mode);

/* translate/state.c: takes rip and flags from a host address where code was to be tried again. */
void soft_settle(struct engine_vcpu *vcpu, uint64_t host);
/* Back to before a jump to vcpu->rip, if that is not canonical; host: a place in the jump's code.
 */
bool soft_undo_jump(struct engine_vcpu *vcpu, uint64_t host);
void soft_flags_from_slot(struct engine_vcpu *vcpu);
void soft_flags_to_slot(struct engine_vcpu *vcpu);

#endif
