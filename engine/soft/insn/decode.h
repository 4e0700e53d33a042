/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest instruction as decoded (Zydis), and its host form (encode.c).
 *
 * The host form is the instruction itself with its memory operand, if it has one, replaced by one
 * whose address has been translated before.
 */
#ifndef ENGINE_SOFT_DECODE_H
#define ENGINE_SOFT_DECODE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/soft/x86.h"
#include "vcpu/cpuid.h"
#include "vcpu/vcpu_state.h"

#include <Zydis/Zydis.h>

#define HOST_INSN_MAX	24u
#define INSN_OPERANDS	10
#define BLOCK_INSNS_MAX 48u

struct soft_insn {
	ZydisDecodedInstruction z;
	uint8_t bytes[16];
	uint8_t length;
	int8_t memory; /* index of the one explicit memory operand, or -1 */
	bool memory_write, memory_read;
	bool high_byte; /* names ah, ch, dh, bh: no REX prefix can be added */
	uint32_t memory_bytes;
	uint16_t registers; /* general registers it reads or writes, addresses included */
	uint16_t registers_write;
	uint16_t operand_registers;	       /* without those of the memory operand's address */
	uint32_t flags_read, flags_write;      /* FLAGS_HOST; write: those that it always sets */
	uint32_t alignment;		       /* of the memory operand, else #GP; or 1 */
	bool flags_change;		       /* changes some flag, perhaps */
	ZydisDecodedOperand op[INSN_OPERANDS]; /* the last: copies keep only those there are */
};

enum soft_code_size { CODE_16_REAL, CODE_16, CODE_32, CODE_32_COMPAT, CODE_64, CODE_SIZES };

/* One that the stepper has decoded: it keeps some, by their address (step/step.c). */
struct soft_decoded {
	struct soft_insn insn;
	enum soft_code_size code_size;
	bool valid;
};
#define DECODED_COUNT 64u

/* offer.c: what the guest's CPU is. The same for all vCPUs; made once, then only read. */
struct soft_offer {
	bool amd, cr8_by_lock;
	bool spec_ctrl, pred_cmd, virt_spec_ctrl; /* MSRs */
	uint64_t cr4;				  /* bits that can be set */
	bool set[ZYDIS_ISA_SET_MAX_VALUE + 1];
	ZydisDecoder decoder[CODE_SIZES];
};
/* cpuid NULL: of every instruction there is a rule for. The result is NULL if there is no memory.
 */
struct soft_offer *soft_offer_create(const struct cpuid_set *cpuid);
void soft_offer_destroy(struct soft_offer *offer);
bool soft_is_offered(const struct soft_offer *offer, const ZydisDecodedInstruction *z);

/*
 * 0; -EINVAL: no instruction; -ENODATA: it needs more than `size` bytes. What is not offered comes
 * as UD2, of the length that it has.
 */
int soft_decode(const struct soft_offer *offer, enum soft_code_size code_size, const uint8_t *bytes,
		uint32_t size, struct soft_insn *ret_insn);

/* Of an instruction of the host: its bytes; 0: it jumps. */
uint32_t soft_host_length(const struct soft_offer *offer, const uint8_t *bytes);

/* Number of a general register 0..15, or -1. */
int soft_register_number(ZydisRegister reg);
/* Of a segment register; of none: DS. */
enum vcpu_segment soft_segment_of(ZydisRegister reg);

/*
 * Can the host execute it for the guest, given its memory operand: no system instruction, no
 * jump, no memory operands that are not written in it?
 */
bool soft_insn_is_plain(const struct soft_insn *insn);
/* FNSTENV, FXSAVE and their kin, FNINIT: x87's pointers are shown, loaded or cleared. */
bool soft_insn_has_pointers(const struct soft_insn *insn);
bool soft_insn_saves_vectors(const struct soft_insn *insn); /* FXSAVE, FXRSTOR */
/* x87, MMX, SSE, AVX: what CR0.TS and the like forbid. */
bool soft_insn_is_vector(const struct soft_insn *insn);

/* Is what it does with an operand in memory one step to everybody else? */
static inline bool soft_insn_is_locked(const struct soft_insn *insn)
{
	return (insn->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_XCHG;
}

/* Does its operand's address depend on a bit number in a register (BT and the like)? */
bool soft_insn_is_bit_string(const struct soft_insn *insn);

/* An operand in host memory: [base + (index << scale) + displacement]; index: not rsp; -1: none. */
struct host_operand {
	int base, index;
	int32_t displacement;
	uint32_t scale;
};
/* Writes the host form; `at` is where the memory operand is, if there is one. The length. */
uint32_t soft_encode(const struct soft_insn *insn, struct host_operand at, uint8_t *out);
/* mov reg, operand and mov operand, reg (64 bits) */
uint32_t soft_encode_load(int reg, struct host_operand at, uint8_t *out);
uint32_t soft_encode_store(int reg, struct host_operand at, uint8_t *out);
/* mov qword operand, value */
uint32_t soft_encode_store_imm(int32_t value, struct host_operand at, uint8_t *out);
/* lea to, [the instruction's memory operand], as wide as its addresses; it has a base or an index. */
uint32_t soft_encode_lea(const struct soft_insn *insn, int to, uint8_t *out);

#endif
