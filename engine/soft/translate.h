/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's parts: what they share while one block is made. See translate.c.
 *
 * Where the guest's arithmetic flags are:
 *
 *   FLAGS_IN_HOST   in the host's register, or nobody will read them before they are set anew
 *   FLAGS_IN_SLOT   in the slot; the host's register means nothing
 */
#ifndef ENGINE_SOFT_TRANSLATE_H
#define ENGINE_SOFT_TRANSLATE_H

#include "engine/soft/block.h"
#include "engine/soft/decode.h"
#include "engine/soft/emit.h"

#define COLD_MAX 256u

enum flags_place { FLAGS_IN_HOST, FLAGS_IN_SLOT };

/* A way out that is emitted behind the block's code. */
struct cold {
	uint8_t *site;		      /* rel32 to be pointed at it */
	uint8_t *retry;		      /* TLB miss: where to try again */
	const struct soft_insn *insn; /* whose address is computed anew; NULL: the stack */
	int stack_base;
	int32_t stack_offset;
	uint64_t rip;
	uint8_t reason;
	uint8_t computed; /* of a failed lookup's record */
	bool slot;	  /* flags are in the slot there */
};

struct tr {
	struct soft_translation *t;
	struct emit e;
	uint8_t *start;			  /* of the block */
	uint64_t rip;			  /* of the present instruction */
	uint64_t next;			  /* behind it */
	uint32_t live_before, live_after; /* arithmetic flags that will be read, around it */
	enum flags_place flags;
	struct cold cold[COLD_MAX];
	uint32_t cold_count;
	bool known_offered;  /* the way out to C is for the block's last instruction */
	uint64_t shadow_rip; /* no interrupt comes before this instruction (STI); or 0 */
	bool failed;
};

/* Opens a record here: stopped from here on, the guest is at rip. */
struct soft_record *tr_record(struct tr *tr, uint64_t rip);
/* The present record is clean up to here. */
void tr_clean(struct tr *tr);
/* A jump's rel32 that ends at `at` leads to a cold way out. */
struct cold *tr_cold(struct tr *tr, uint8_t *site, uint8_t reason);

/* translate_flags.c */
void tr_save_flags(struct tr *tr);    /* to the slot; r15 is used */
void tr_restore_flags(struct tr *tr); /* from the slot; r15 is used */

/* translate_memory.c */
/* r14 := the operand's linear address; flags and r15 are used. */
void tr_address(struct tr *tr, const struct soft_insn *insn);
/* The same without flags, for LEA and the like: 64 bits, no segment. */
void tr_effective(struct tr *tr, const struct soft_insn *insn, int to);
/* r14: linear -> host address of an access; flags and r15 are used. */
void tr_check(struct tr *tr, uint32_t bytes, bool write, const struct soft_insn *insn,
	      uint8_t *retry);
/* r14 := host address of 8 bytes at rsp or rbp + offset, checked. Opens the instruction's record.
 */
void tr_stack(struct tr *tr, int base, int32_t offset, bool write);
/* The same for the instruction's operand. Flags that the operation reads or keeps are in place. */
void tr_operand(struct tr *tr, const struct soft_insn *insn, bool write);

/* translate_insn.c */
enum tr_kind {
	KIND_STEP, /* C has to do it */
	KIND_JUMP,
	KIND_NOTHING,
	KIND_LEA,
	KIND_PUSH,
	KIND_POP,
	KIND_LEAVE,
	KIND_CLI,
	KIND_STI,
	KIND_PUSHF,
	KIND_SWAPGS,
	KIND_PLAIN,
};
enum tr_kind tr_kind(const struct soft_insn *insn, uint8_t mode);
void tr_insn(struct tr *tr, const struct soft_insn *insn, enum tr_kind kind);

/* translate_jump.c: the block's end */
bool tr_is_jump(const struct soft_insn *insn);
void tr_jump(struct tr *tr, const struct soft_insn *insn);
/* Goes on at another address. */
void tr_exit(struct tr *tr, uint64_t rip);
/* rip is in r14; computed: by the instruction, so it may be anything. */
void tr_exit_indirect(struct tr *tr, bool computed);
/* Leaves to C, which steps the instruction there: the block's last (known_offered), or another. */
void tr_exit_step(struct tr *tr, uint64_t rip);
void tr_emit_cold(struct tr *tr);

#endif
