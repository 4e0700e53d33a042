/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What generated code, stubs.S and C agree on: offsets of struct engine_vcpu (vcpu.h asserts them),
 * and why translated code was left. Included by the assembler too.
 *
 * While guest code runs, the host's GS base is the vCPU, rax..r15 (rsp included) hold the guest's
 * registers, but r10 and r11 are scratch (the guest's are in memory), and the host's arithmetic flags
 * and DF are the guest's, or else its flags wait in the slot.
 */
#ifndef ENGINE_SOFT_LAYOUT_H
#define ENGINE_SOFT_LAYOUT_H

#define VCPU_GPR	  0 /* 16 of 8 bytes */
#define VCPU_RIP	  128
#define VCPU_FLAGS	  136 /* arithmetic flags and DF */
#define VCPU_HOST_RSP	  144
#define VCPU_TARGET	  152 /* host code that is entered, or to be tried again */
#define VCPU_REASON	  160 /* enum soft_reason */
#define VCPU_ARGUMENT	  168
#define VCPU_STOP	  176 /* u32: leave guest code: a kick, or someone waits for us */
#define VCPU_SLOT	  184 /* flags as LAHF and SETO leave them in ah and al */
#define VCPU_EXEC_ADDRESS 192 /* operand of the instruction that the stepper executes */
#define VCPU_EXEC_SAVED	  200
#define VCPU_SCRATCH	  208 /* 4 of 8 bytes */
#define VCPU_NEAREST	  232 /* the last one; across a miss as well */
#define VCPU_SHARED	  240 /* 24 of 16 bytes, addend and a loop's limit: translate/share.c */
#define VCPU_REACH	  624 /* u64: SOFT_REACH of the miss, if it is a shared one */
#define VCPU_JUMPS	  632 /* u64: from the vCPU to its view's table of jumps */
#define VCPU_STACK_END	  768 /* a small stack below, for PUSHF in generated code */

/*
 * Where a jump's target is in that table: entries of 16 bytes by bits 3 to 19 of rip (functions
 * begin at multiples of 16, calls return to anywhere); or, if another has taken that place since,
 * across the table.
 */
#define JUMP_INDEX_MASK	  0x1ffff0
#define JUMP_INDEX_SECOND 0x100000

#define SOFT_REASON_STOP       0 /* told to; nothing was saved, all was saved before */
#define SOFT_REASON_STEP       1 /* rip set: C has to execute this instruction */
#define SOFT_REASON_LOOKUP     2 /* rip set: continue there; flags in the slot */
#define SOFT_REASON_LINK       3 /* rip set; argument: the jump to patch */
#define SOFT_REASON_READ       4 /* TLB miss: argument gva, target where to try again */
#define SOFT_REASON_WRITE      5
#define SOFT_REASON_EXEC       6 /* the stepper's instruction is done */
#define SOFT_REASON_FAULT      7 /* the host's CPU raised an exception: argument its vector */
#define SOFT_REASON_LEFT       8 /* a signal took the state out of translated code */
#define SOFT_REASON_STEP_SLOT  9 /* as STEP, flags in the slot */
#define SOFT_REASON_LINK_SLOT  10
#define SOFT_REASON_STALE      11 /* rip set; argument: the head of this block, no longer valid */
#define SOFT_REASON_STALE_SLOT 12
#define SOFT_REASON_READ_ODD   13 /* the same; more than a page fault may come of it */
#define SOFT_REASON_WRITE_ODD  14
#define SOFT_REASON_DOOR       15 /* rip set; argument: the door to be opened */
#define SOFT_REASON_DOOR_SLOT  16

#define SOFT_REASON_SPLIT                                                                          \
	17 /* rip set; argument: the jump to patch, to a block that shares nothing */
#define SOFT_REASON_SPLIT_SLOT 18

/* With a reason above: the look was for others as well. */
#define SOFT_REASON_SHARED 32
/* Then, too: flags in the slot; and from where to try again to the jump for SPLIT, or 0. */
#define SOFT_REASON_IN_SLOT	    64
#define SOFT_REASON_JUMP(distance)  ((uint32_t)(distance) << 16)
#define SOFT_REASON_JUMP_OF(reason) ((reason) >> 16)
#define SOFT_REASON_KIND(reason)    ((reason)&31)
/*
 * With READ and READ_ODD: so many bytes may be taken from anywhere, by the jump's code: where they
 * are is in SCRATCH, less the address that they have, if ADDEND.
 */
#define SOFT_REASON_BYTES(bytes)     ((uint32_t)(bytes) << 8)
#define SOFT_REASON_BYTES_OF(reason) ((reason) >> 8 & 0x7f)
#define SOFT_REASON_ADDEND	     0x8000u
/* How far: bytes below the access's address, and above it. */
#define SOFT_REACH(below, above) ((below) | (above) << 10)
#define SOFT_REACH_BELOW(reach)	 ((reach)&0x3ff)
#define SOFT_REACH_ABOVE(reach)	 ((reach) >> 10 & 0x3ff)
#define SOFT_REACH_WRITE	 (1u << 20) /* some of them write */
#define SOFT_REACH_OTHER	 (1u << 21) /* it is another access that will come, or not */
/* And who looked: where in the block's guest code it is, and how narrow its group is (cache.h). */
#define SOFT_REACH_LEADER(offset, narrow) ((uint32_t)(offset) << 22 | (uint32_t)(narrow) << 30)
#define SOFT_REACH_OFFSET(reach)	  ((reach) >> 22 & 0xff)
#define SOFT_REACH_NARROW(reach)	  ((reach) >> 30)

#endif
