/* SPDX-License-Identifier: Apache-2.0 */
/* What the other rooms ask of the translator. */
#ifndef ENGINE_SOFT_TRANSLATOR_H
#define ENGINE_SOFT_TRANSLATOR_H

#include "engine/soft/cache/cache.h"
#include "engine/soft/insn/decode.h"

#define SOFT_BLOCK_DOORS_MAX 5u
struct soft_translation {
	struct engine_vcpu *vcpu;
	const struct soft_insn *insn;
	const int16_t *offset; /* of each instruction, from rip */
	uint32_t count;
	uint64_t rip, gpa;
	uint8_t mode;
	uint8_t *at, *end;
	ptrdiff_t alias; /* as in struct emit */
	struct soft_record *record;
	uint32_t record_max;
	uint32_t first_door;	       /* those from here on are nobody's yet */
	const struct soft_insn *known; /* a lasting copy of the last instruction, or NULL */
	bool crossing_next; /* the instruction behind the block reaches into the next page */
	/* results */
	uint32_t code_bytes, record_count;
	uint32_t door_count; /* from first_door, and where their ways out are */
	uint8_t *door_way_out[SOFT_BLOCK_DOORS_MAX];
	uint8_t *entry, *head, *stale;
};
/* Lock held. Writes code and records at `at`; false: too large for the room there. */
bool soft_translate_block(struct soft_translation *translation);
/* Is it left to C? */
bool soft_insn_is_stepped(const struct soft_insn *insn, uint8_t mode);
/* Must the instruction be the block's last? */
bool soft_insn_ends_block(const struct soft_insn *insn, uint8_t mode);
/* A JMP or CALL to a constant address: there the block may go on, if that is in its page. */
bool soft_insn_may_be_followed(const struct soft_insn *insn);
#define SOFT_FOLLOWED_MAX 2u
/*
 * A conditional jump forwards within the page, whose end is `behind` bytes from the block's rip:
 * the block may go on with who does not take it (a side exit). So many times: what lies behind is likely to be
 * jumped to as well, and then is translated twice.
 */
bool soft_insn_may_be_passed(const struct soft_insn *insn, uint64_t rip, int32_t behind);
#define SOFT_SIDE_EXITS_MAX 3u

/* From a host address in a block to the guest's state (state.c). */

/* A signal's context, with the pc in a block: the vCPU leaves it; the host's CPU raised vector. */
void soft_translated_stop(struct engine_vcpu *vcpu, void *context);
void soft_translated_fault(struct engine_vcpu *vcpu, void *context, uint8_t vector);
/* The instruction there is for the stepper, this once. False: the pc is behind what it does already. */
bool soft_translated_step(struct engine_vcpu *vcpu, void *context);
/* With the pc elsewhere in the cache: leaves guest code, everything being saved; */
void soft_leave(struct engine_vcpu *vcpu, void *context);
/* between two blocks (PLACE_LOOKUP), as if the next one had not been found; */
void soft_leave_lookup(struct engine_vcpu *vcpu, void *context);
/* on the way out (PLACE_LEAVING), the reason being stored. */
void soft_leave_half(struct engine_vcpu *vcpu, void *context);
/* Takes rip and flags from a host address where code was to be tried again. */
void soft_settle(struct engine_vcpu *vcpu, uint64_t host);
/* Back to before a jump to vcpu->rip, if that is not canonical; host: a place in the jump's code.
 */
bool soft_undo_jump(struct engine_vcpu *vcpu, uint64_t host);
void soft_flags_from_slot(struct engine_vcpu *vcpu);
void soft_flags_to_slot(struct engine_vcpu *vcpu);

#endif
