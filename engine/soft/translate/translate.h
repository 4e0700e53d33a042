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

#include "engine/soft/translate/translator.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/insn/emit.h"
#include "engine/soft/insn/emit_jump.h"

#define COLD_MAX   256u
#define GROUPS_MAX 24u /* VCPU_SHARED has a slot for each */
#define GROUP_NONE 0xffu
#define GROUP_OWN  0xfeu /* r10 or r11 holds the guest's register of that name, as memory has it */
#define STRIDE_MAX 256	 /* bytes that a round of a loop may go on by */
/* Of the bridges in front of a block, jumps to its ways out. */
#define BRIDGES_OFFSET 1
#define BRIDGE_BYTES   5

/* One access of an instruction that may share its look into the TLB (translate/share.c). */
#define BASE_CONSTANT GPR_COUNT
struct tr_access {
	int8_t base;  /* register, or BASE_CONSTANT */
	int8_t index; /* register, times 1 << scale; or -1 */
	uint8_t scale;
	uint8_t group; /* or GROUP_NONE */
	bool leader, write;
	uint32_t bytes;
	int64_t disp;  /* address - the registers' value, or the address */
	int64_t shift; /* the registers' value - what it was for low and high below */
};

struct tr_group {
	int8_t base, index;
	uint8_t scale;
	bool write; /* some of them */
	uint8_t members;
	uint8_t side_exits; /* before its first member */
	uint8_t first;	    /* the instruction of the first of them, the leader */
	uint8_t offset;	    /* where that is, from the block's start */
	uint8_t narrow;	    /* how near they have to be */
	int64_t lead_shift; /* the leader's */
	uint32_t version;   /* of the register, or the index */
	int64_t low, high;

	bool loops;    /* what one round of a loop has found is kept for the next */
	int32_t step;  /* then: what a round adds to the address */
	int64_t shift; /* the registers' value at its set's check - at the loop's head */
	uint8_t set;   /* the group at whose first access it is checked */
	uint8_t clock; /* of a set: the group whose register is compared */
};

/* Is the register in the set (a bit each)? */
static inline bool tr_names(uint16_t registers, int number)
{
	return registers >> number & 1;
}

/* The guest's r10 and r11 are in memory: a group off one of these has base and addend in one. */
static inline bool tr_is_high(int base)
{
	return base == R10 || base == R11;
}

/* What moves an address: the index, or the base. */
static inline int tr_moving(const struct tr_group *group)
{
	return group->index >= 0 ? group->index : group->base;
}

enum flags_place { FLAGS_IN_HOST, FLAGS_IN_SLOT };

/* A way out that is emitted behind the block's code. */
struct cold {
	uint8_t *site;		      /* rel32 to be pointed at it; or what a near jump is behind */
	uint8_t *retry;		      /* TLB miss: where to try again */
	const struct soft_insn *insn; /* whose address is computed anew; NULL: the stack */
	const struct tr_access *access; /* if it looked for others, too */
	uint8_t *resume;		/* of a loop's look, or the stack's: where to go on */
	bool stack;			/* it is the stack's */
	uint8_t group;			/* whose */
	uint8_t held[2];		/* the groups in r10 and r11 there */
	uint8_t *behind;		/* of an operand that is only read: behind its look */
	uint8_t bytes;			/* then: of the operand */
	bool addend;			/* the look finds r11, not r10 */
	uint8_t own; /* which of the guest's r10 and r11 have to be there where it is tried again */
	int stack_base;
	int32_t stack_offset;
	uint64_t rip;
	uint32_t door;
	uint8_t reason;
	uint8_t computed; /* of a failed lookup's record */
	bool slot;	  /* flags are in the slot there */
	bool shadow;	  /* no interrupt may come before the instruction there */
	bool can_be_near; /* its jump is nobody's to change */
	bool near;	  /* and has a distance of one byte */
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
	/*
	 * Misses that are near jumps: so many of the first, to bridges in front of the block, and
	 * all from this one on, to bridges behind it. As many could be; one was not, after all.
	 */
	uint32_t front, near_from, front_next, near_next;
	uint32_t misses; /* so far */
	bool near_failed;
	uint32_t head_prefixes; /* of the first instruction */
	bool head_nop;		/* one comes before it */
	uint32_t index;		/* of the present instruction */
	/* By instruction; one more for what a computed call, which is the last, pushes. */
	struct tr_access access[BLOCK_INSNS_MAX + 1];
	struct tr_group group[GROUPS_MAX];
	uint32_t group_count;
	uint8_t held[2]; /* the groups whose addend is in r10 and r11; GROUP_OWN */
	/* Of groups, a bit each: whose slot is to be stored by who leads, was stored, was loaded. */
	uint32_t slots_wanted, slots_stored, slots_loaded;
	uint8_t side_exits; /* so far, while groups are planned */
	bool loops;	    /* some groups do; then the block jumps back to its head */
	uint8_t pinned[2];  /* what r10 and r11 hold there */
	bool known_offered; /* the way out to C is for the block's last instruction */
	int32_t lag; /* the guest's rsp - the host's: pushes and pops that rsp has not seen */
	uint64_t shadow_rip; /* no interrupt comes before this instruction (STI); or 0 */
	bool failed;
};

/* Opens a record here: stopped from here on, the guest is at rip. */
struct soft_record *tr_record(struct tr *tr, uint64_t rip);
/* The present record is clean up to here. */
void tr_clean(struct tr *tr);
/* Makes the host's rsp the guest's, in front of the instruction at rip. */
void tr_settle_stack(struct tr *tr, uint64_t rip);
/* A jump's rel32 that ends at `at` leads to a cold way out. */
struct cold *tr_cold(struct tr *tr, uint8_t *site, uint8_t reason);

/* translate/flags.c */
void tr_save_flags(struct tr *tr);		   /* to the slot */
void tr_restore_flags(struct tr *tr, int scratch); /* from the slot; r10 or r11 is used */

/* translate/plan.c: groups, and who is in them */
void tr_share_plan(struct tr *tr);

/* translate/share.c */
/*
 * If the present instruction's access is one that shares: opens its record, and makes *ret_at the
 * place in host memory. A leader destroys the flags.
 */
bool tr_shared(struct tr *tr, const struct soft_insn *insn, struct host_operand *ret_at);
/* Before a loop's head: nothing has been found yet. */
void tr_share_begin(struct tr *tr);
/* Before the jump to the head: what r10 and r11 hold there. */
void tr_share_again(struct tr *tr);
/* Off the path: some group of a loop may be on another page than in the last round. */
void tr_share_look(struct tr *tr, struct cold *cold);
/* Off the path: the stack is on another page than lately. Its miss's record. */
struct soft_record *tr_stack_look(struct tr *tr, struct cold *cold);
/* Off the path, at a look that has failed: to who shares nothing, if it is for a page's edge. */
uint32_t tr_split(struct tr *tr, const struct cold *cold, const struct tr_group *group,
		  const uint8_t *retry);
/* SOFT_REACH of the leader's group. */
uint32_t tr_reach(const struct tr *tr, const struct tr_access *access);
/* r10 or r11 for other things: one that holds nothing, if there is one. */
int tr_scratch(struct tr *tr);
/* The same, but not one that the address needs. */
int tr_scratch_besides(struct tr *tr, struct host_operand at);
void tr_forget(struct tr *tr, int reg);

/* translate/memory.c */
/* r10 := the operand's linear address; flags and r11 are used. */
void tr_address(struct tr *tr, const struct soft_insn *insn);
/* The same without flags, for LEA and the like: 64 bits, no segment. */
void tr_effective(struct tr *tr, const struct soft_insn *insn, int to);
/* r10: linear -> host address of an access; flags and r11 are used. */
struct cold *tr_check(struct tr *tr, uint32_t bytes, bool write, const struct soft_insn *insn,
		      uint8_t *retry);
/* Its look is through: an operand that is only read may as well be a copy. */
void tr_behind(struct tr *tr, struct cold *cold, const struct soft_insn *insn);
/* Its parts. r10: linear -> offset in its page; r11: the entry. The miss is to be filled in. */
struct cold *tr_look(struct tr *tr, uint32_t bytes, bool write);
/* A jcc to a way out, which is to be filled in. */
struct cold *tr_miss_jump(struct tr *tr, enum host_condition condition);
/* Fills it in: the access, NULL for the stack's, and where to try it again. */
void tr_miss(struct cold *cold, const struct soft_insn *insn, bool write, uint8_t *retry);
/* Without the comparison: r10 is above a page's bytes, if the page is not there. */
void tr_entry(struct tr *tr, bool write);
/* r11: the entry -> the page's addend */
void tr_addend(struct tr *tr);
/* r10 := the page's host address */
struct cold *tr_look_constant(struct tr *tr, uint64_t page, bool write);
/*
 * r10 := host address of the instruction's operand. Opens its record; flags that the operation
 * reads or keeps are in place.
 */
void tr_operand(struct tr *tr, const struct soft_insn *insn, bool write);
/* The same, if it is an operand that shares (translate/share.c). */
bool tr_shared_operand(struct tr *tr, const struct soft_insn *insn, struct host_operand *ret_at);
/*
 * Where 8 bytes at rsp or rbp + offset are in host memory (in r10, if the access does not share).
 * Opens the instruction's record.
 */
struct host_operand tr_stack(struct tr *tr, int base, int32_t offset, bool write);
/* mov reg, operand and mov operand, reg (64 bits) */
void tr_load_at(struct tr *tr, int reg, struct host_operand at);
void tr_store_at(struct tr *tr, int reg, struct host_operand at);
/* The instruction's last: mov operand, value (64 bits) */
void tr_store_value(struct tr *tr, uint64_t value, struct host_operand at);

/* translate/insn.c */
enum tr_kind {
	KIND_STEP,    /* C has to do it */
	KIND_AC,      /* STAC or CLAC that changes the view */
	KIND_SYSCALL, /* or SYSRET */
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
	KIND_TSC,
	KIND_SEGMENT,
	KIND_STRING,
	KIND_PLAIN,
};
enum tr_kind tr_kind(const struct soft_insn *insn, uint8_t mode);
void tr_insn(struct tr *tr, const struct soft_insn *insn, enum tr_kind kind);
/* r11 := the host's flags, of which DF is the guest's. rsp is not the guest's meanwhile, so a kick has to wait. */
void tr_direction(struct tr *tr);
/*
 * r11 := the guest's RFLAGS; r10 stays. The flags are in the slot. rsp is not the guest's meanwhile, so
 * a kick has to wait.
 */
void tr_rflags(struct tr *tr);
/* C does the instruction, if the condition holds: it begins anew. */
void tr_step_if(struct tr *tr, enum host_condition condition);

/* translate/segment.c: MOV from a selector, RDFSBASE and its kin */
bool tr_is_segment(const struct soft_insn *insn);
void tr_segment(struct tr *tr, const struct soft_insn *insn);

/* translate/string.c: REP MOVS and REP STOS */
bool tr_is_string(const struct soft_insn *insn);
void tr_string(struct tr *tr, const struct soft_insn *insn);

/* translate/syscall.c: SYSCALL and SYSRET, a block's last */
enum tr_kind tr_syscall_kind(const struct soft_insn *insn, uint8_t mode);
void tr_syscall(struct tr *tr, const struct soft_insn *insn);

/* translate/jump.c: the block's end */
bool tr_is_jump(const struct soft_insn *insn);
/* The block's instruction i leads to the next one here. */
bool tr_is_followed(const struct soft_translation *t, uint32_t i);
bool tr_is_jcc(const struct soft_insn *insn); /* of the conditional ones: no LOOP, no JRCXZ */
void tr_jump(struct tr *tr, const struct soft_insn *insn);
/* STAC and CLAC: goes on behind it, in the other view. */
void tr_switch_view(struct tr *tr, bool ac);
/* Goes on at another address. */
void tr_exit(struct tr *tr, uint64_t rip);
/* rip is in r10, computed by the instruction, so it may be anything. */
void tr_exit_computed(struct tr *tr, uint32_t view);
/* A view's table of jumps, from the vCPU. */
uint32_t tr_jump_table(uint32_t view);
/* Leaves to C, which steps the instruction there: the block's last (known_offered), or another. */
void tr_exit_step(struct tr *tr, uint64_t rip);
void tr_emit_cold(struct tr *tr);

#endif
