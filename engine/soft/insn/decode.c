/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding: what Zydis says, brought down to what the engine asks. Compiled like all of the engine
 * without vector instructions; the library is not, so callers release the vector state before.
 */
#include "engine/soft/insn/decode.h"

#include <errno.h>

uint32_t soft_host_length(const struct soft_offer *offer, const uint8_t *bytes)
{
	ZydisDecodedInstruction z;

	if (ZYAN_FAILED(ZydisDecoderDecodeInstruction(&offer->decoder[CODE_64], NULL, bytes,
						      INSN_BYTES_MAX, &z)) ||
	    z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		return 0;
	return z.length;
}

int soft_register_number(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return (int)(reg - ZYDIS_REGISTER_RAX);
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return (int)(reg - ZYDIS_REGISTER_EAX);
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return (int)(reg - ZYDIS_REGISTER_AX);
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
		return (int)(reg - ZYDIS_REGISTER_AL);
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
		return (int)(reg - ZYDIS_REGISTER_AH);
	if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
		return (int)(reg - ZYDIS_REGISTER_SPL) + 4;
	return -1;
}

enum vcpu_segment soft_segment_of(ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES:
		return SEG_ES;
	case ZYDIS_REGISTER_CS:
		return SEG_CS;
	case ZYDIS_REGISTER_SS:
		return SEG_SS;
	case ZYDIS_REGISTER_FS:
		return SEG_FS;
	case ZYDIS_REGISTER_GS:
		return SEG_GS;
	default:
		return SEG_DS;
	}
}

static void add_register(struct soft_insn *insn, ZydisRegister reg, uint8_t actions, bool address)
{
	int number = soft_register_number(reg);

	if (number < 0)
		return;
	insn->registers |= (uint16_t)(1u << number);
	if (address)
		return;
	insn->operand_registers |= (uint16_t)(1u << number);
	if (actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		insn->registers_write |= (uint16_t)(1u << number);
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
		insn->high_byte = true;
}

static void add_memory(struct soft_insn *insn, int i)
{
	const ZydisDecodedOperand *op = &insn->op[i];

	add_register(insn, op->mem.base, 0, true);
	add_register(insn, op->mem.index, 0, true);
	if (op->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT ||
	    op->mem.type == ZYDIS_MEMOP_TYPE_AGEN || insn->memory >= 0)
		return;
	insn->memory = (int8_t)i;
	insn->memory_bytes = op->size / 8;
	insn->memory_read = (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
	insn->memory_write = (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

/* Of a string instruction: what it goes on with must be known, whatever the decoder's tables hide. */
static void add_string(struct soft_insn *insn)
{
	add_register(insn, ZYDIS_REGISTER_RCX, ZYDIS_OPERAND_ACTION_WRITE, false);
	add_register(insn, ZYDIS_REGISTER_RSI, ZYDIS_OPERAND_ACTION_WRITE, false);
	add_register(insn, ZYDIS_REGISTER_RDI, ZYDIS_OPERAND_ACTION_WRITE, false);
}

static bool is_shift(const struct soft_insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return true;
	default:
		return false;
	}
}

/* By a constant that is not zero, so that the flags change for certain? */
static bool shifts_by_constant(const struct soft_insn *insn)
{
	const ZydisDecodedOperand *count = &insn->op[1];

	/* RCL and RCR of 8 and 16 bits turn by their width and the carry: they may be round. */
	if ((insn->z.mnemonic == ZYDIS_MNEMONIC_RCL || insn->z.mnemonic == ZYDIS_MNEMONIC_RCR) &&
	    insn->op[0].size < 32)
		return false;
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_SHLD || insn->z.mnemonic == ZYDIS_MNEMONIC_SHRD)
		count = &insn->op[2];
	return count->type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	       (count->imm.value.u & (insn->op[0].size == 64 ? 63 : 31));
}

/*
 * By a count that may be zero they leave all flags alone then. Else rotates write CF and OF, and
 * shifts all; what is undefined of them (AF, and OF where the count is not 1) counts as written:
 * nobody may rely on it.
 */
static void add_shift_flags(struct soft_insn *insn)
{
	if (!shifts_by_constant(insn)) {
		insn->flags_write = 0;
		insn->flags_read |= FLAGS_ARITHMETIC;
		return;
	}
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
		insn->flags_write = FLAG_CF | FLAG_OF;
		break;
	default:
		insn->flags_write = FLAGS_ARITHMETIC;
		break;
	}
}

static void add_flags(struct soft_insn *insn)
{
	const ZydisAccessedFlags *flags = insn->z.cpu_flags;

	if (!flags)
		return;
	insn->flags_read = flags->tested & FLAGS_ARITHMETIC;
	insn->flags_write = (flags->modified | flags->set_0 | flags->set_1 | flags->undefined) &
			    FLAGS_ARITHMETIC;
	insn->flags_change = insn->flags_write != 0;
	if (is_shift(insn))
		add_shift_flags(insn);
}

bool soft_insn_is_bit_string(const struct soft_insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return insn->memory >= 0 && insn->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
	default:
		return false;
	}
}

/* Vector instructions without VEX want 16-byte operands aligned, but for these; SHA's on AMD's CPUs
 * only. */
static bool is_unaligned(const struct soft_offer *offer, ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return true;
	case ZYDIS_MNEMONIC_SHA1MSG1:
	case ZYDIS_MNEMONIC_SHA1MSG2:
	case ZYDIS_MNEMONIC_SHA1NEXTE:
	case ZYDIS_MNEMONIC_SHA1RNDS4:
	case ZYDIS_MNEMONIC_SHA256MSG1:
	case ZYDIS_MNEMONIC_SHA256MSG2:
	case ZYDIS_MNEMONIC_SHA256RNDS2:
		return offer->amd;
	default:
		return false;
	}
}

static uint32_t alignment_of(const struct soft_offer *offer, const struct soft_insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		return 16;
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
		return insn->memory_bytes;
	default:
		break;
	}
	if (insn->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || insn->memory_bytes != 16 ||
	    !soft_insn_is_vector(insn) || is_unaligned(offer, insn->z.mnemonic))
		return 1;
	return 16;
}

/*
 * AMD's way to CR8 for 32-bit code: MOV to or from CR0 with LOCK, which Zydis does not know. A prefix
 * that changes nothing stands in for each LOCK, so that a REX in front of one is void as it was.
 */
static ZyanStatus decode_cr8(const ZydisDecoder *decoder, const uint8_t *bytes, uint32_t size,
			     struct soft_insn *insn)
{
	uint8_t plain[INSN_BYTES_MAX];
	bool is_prefix = true;
	ZyanStatus status;
	int reg;

	if (size > INSN_BYTES_MAX)
		size = INSN_BYTES_MAX;
	for (uint32_t i = 0; i < size; i++) {
		is_prefix = is_prefix && bytes[i] != 0x0f;
		plain[i] = is_prefix && bytes[i] == 0xf0 ? 0x26 : bytes[i];
	}
	status = ZydisDecoderDecodeFull(decoder, plain, size, &insn->z, insn->op);
	if (ZYAN_FAILED(status))
		return status;
	reg = insn->op[0].reg.value == ZYDIS_REGISTER_CR0   ? 0
	      : insn->op[1].reg.value == ZYDIS_REGISTER_CR0 ? 1
							    : -1;
	if (insn->z.mnemonic != ZYDIS_MNEMONIC_MOV || reg < 0)
		return ZYDIS_STATUS_DECODING_ERROR;
	insn->op[reg].reg.value = ZYDIS_REGISTER_CR8;
	return ZYAN_STATUS_SUCCESS;
}

/* Nothing but its length is left of it. */
static void make_undefined(struct soft_insn *insn)
{
	insn->z.mnemonic = ZYDIS_MNEMONIC_UD2;
	insn->z.meta.category = ZYDIS_CATEGORY_MISC;
	insn->z.meta.isa_set = ZYDIS_ISA_SET_PPRO;
	insn->z.meta.branch_type = ZYDIS_BRANCH_TYPE_NONE;
	insn->z.encoding = ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	insn->z.attributes = 0;
	insn->z.operand_count = insn->z.operand_count_visible = 0;
	insn->z.cpu_flags = NULL;
}

/* 0F 0D with a register, which Intel's CPUs take for a NOP; VEX.W where 32-bit code has no use for
 * it. */
static bool is_undefined_on_amd(const ZydisDecodedInstruction *z, enum soft_code_size code_size)
{
	if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d && z->raw.modrm.mod == 3 &&
	    z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return true;
	return code_size != CODE_64 && z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
	       z->raw.vex.W &&
	       (z->mnemonic == ZYDIS_MNEMONIC_VPINSRD || z->mnemonic == ZYDIS_MNEMONIC_VPEXTRD);
}

/*
 * A near branch with 66h in 64-bit code, to AMD's CPUs: rip is cut to 16 bits. Zydis knows that of
 * those with wide offsets only, which it has to for their length.
 */
static bool is_narrow_branch(const ZydisDecodedInstruction *z)
{
	if (z->raw.rex.W || z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	if (z->meta.branch_type != ZYDIS_BRANCH_TYPE_SHORT &&
	    z->meta.branch_type != ZYDIS_BRANCH_TYPE_NEAR)
		return false;
	for (uint32_t i = 0; i < z->raw.prefix_count; i++)
		if (z->raw.prefixes[i].value == 0x66)
			return true;
	return false;
}

/* MOVSXD to 16 bits: AMD's CPUs read 32 for it, Intel's 16, and so does its manual. */
static bool is_narrow_movsxd(const struct soft_insn *insn)
{
	return insn->z.mnemonic == ZYDIS_MNEMONIC_MOVSXD && insn->z.operand_width == 16 &&
	       insn->op[1].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

/* LOOPNE with F3 is LOOPE, and LOOPE with F2 is LOOPNE: AMD's CPUs do it, no manual says it. */
static void turn_loop(ZydisDecodedInstruction *z)
{
	uint8_t last = 0;

	if (z->mnemonic != ZYDIS_MNEMONIC_LOOPE && z->mnemonic != ZYDIS_MNEMONIC_LOOPNE)
		return;
	for (uint32_t i = 0; i < z->raw.prefix_count; i++)
		if (z->raw.prefixes[i].value == 0xf2 || z->raw.prefixes[i].value == 0xf3)
			last = z->raw.prefixes[i].value;
	if (last) {
		z->mnemonic = last == 0xf3 ? ZYDIS_MNEMONIC_LOOPE : ZYDIS_MNEMONIC_LOOPNE;
		z->opcode = last == 0xf3 ? 0xe1 : 0xe0;
	}
}

int soft_decode(const struct soft_offer *offer, enum soft_code_size code_size, const uint8_t *bytes,
		uint32_t size, struct soft_insn *ret_insn)
{
	const ZydisDecoder *decoder = &offer->decoder[code_size];
	struct soft_insn *insn = ret_insn;
	ZyanStatus status = ZydisDecoderDecodeFull(decoder, bytes, size, &insn->z, insn->op);

	if (status == ZYDIS_STATUS_ILLEGAL_LOCK && offer->cr8_by_lock)
		status = decode_cr8(decoder, bytes, size, insn);
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return -ENODATA;
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return -E2BIG;
	if (ZYAN_FAILED(status))
		return -EINVAL;
	if (!soft_is_offered(offer, &insn->z) ||
	    (offer->amd && is_undefined_on_amd(&insn->z, code_size)))
		make_undefined(insn);
	else if (offer->amd && code_size == CODE_64 && is_narrow_branch(&insn->z))
		insn->z.operand_width = insn->op[0].size = 16;
	if (offer->amd)
		turn_loop(&insn->z);
	else if (is_narrow_movsxd(insn))
		insn->op[1].size = 16;
	insn->length = insn->z.length;
	for (uint32_t i = 0; i < insn->length; i++)
		insn->bytes[i] = bytes[i];
	insn->memory = -1;
	insn->memory_bytes = 0;
	insn->memory_read = insn->memory_write = insn->high_byte = false;
	insn->registers = insn->registers_write = insn->operand_registers = 0;
	insn->flags_read = insn->flags_write = 0;
	insn->flags_change = false;
	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++) {
		if (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			add_register(insn, insn->op[i].reg.value, insn->op[i].actions, false);
		else if (insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			add_memory(insn, i);
	}
	if (insn->z.meta.category == ZYDIS_CATEGORY_STRINGOP)
		add_string(insn);
	add_flags(insn);
	insn->alignment = insn->memory >= 0 ? alignment_of(offer, insn) : 1;
	return 0;
}

bool soft_insn_has_pointers(const struct soft_insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNINIT:
		return true;
	default:
		return soft_insn_saves_vectors(insn);
	}
}

bool soft_insn_saves_vectors(const struct soft_insn *insn)
{
	return insn->z.mnemonic == ZYDIS_MNEMONIC_FXSAVE ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_FXSAVE64 ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_FXRSTOR ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_FXRSTOR64;
}

bool soft_insn_is_vector(const struct soft_insn *insn)
{
	switch (insn->z.meta.isa_set) {
	case ZYDIS_ISA_SET_X87:
	case ZYDIS_ISA_SET_FCMOV:
	case ZYDIS_ISA_SET_SSE3X87:
	case ZYDIS_ISA_SET_PENTIUMMMX:
		return true;
	default:
		break;
	}
	if (soft_insn_saves_vectors(insn))
		return true;
	if (insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return insn->z.meta.category != ZYDIS_CATEGORY_BMI1 &&
		       insn->z.meta.category != ZYDIS_CATEGORY_BMI2;
	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++) {
		ZydisRegister reg = insn->op[i].reg.value;

		if (insn->op[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		if ((reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_ZMM31) ||
		    (reg >= ZYDIS_REGISTER_ST0 && reg <= ZYDIS_REGISTER_MM7) ||
		    reg == ZYDIS_REGISTER_MXCSR)
			return true;
	}
	return false;
}

static bool is_left_to_c(const struct soft_insn *insn)
{
	switch (insn->z.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT:
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_RDWRFSGS:
	case ZYDIS_CATEGORY_CET:
	case ZYDIS_CATEGORY_CLZERO:
	case ZYDIS_CATEGORY_CLDEMOTE:
	case ZYDIS_CATEGORY_ENQCMD:
	case ZYDIS_CATEGORY_HRESET:
	case ZYDIS_CATEGORY_KEYLOCKER:
	case ZYDIS_CATEGORY_KEYLOCKER_WIDE:
	case ZYDIS_CATEGORY_MOVDIR:
	case ZYDIS_CATEGORY_MPX:
	case ZYDIS_CATEGORY_PCONFIG:
	case ZYDIS_CATEGORY_PKU:
	case ZYDIS_CATEGORY_PT:
	case ZYDIS_CATEGORY_RDPID:
	case ZYDIS_CATEGORY_RDPRU:
	case ZYDIS_CATEGORY_SGX:
	case ZYDIS_CATEGORY_UINTR:
	case ZYDIS_CATEGORY_WAITPKG:
	case ZYDIS_CATEGORY_AVX2GATHER:
	case ZYDIS_CATEGORY_SCATTER:
	case ZYDIS_CATEGORY_SERIALIZE:
	case ZYDIS_CATEGORY_AMX_TILE:
	case ZYDIS_CATEGORY_PADLOCK:
	case ZYDIS_CATEGORY_INVALID:
		return true;
	default:
		return false;
	}
}

static bool is_odd(const struct soft_insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_XLAT:
	case ZYDIS_MNEMONIC_BOUND:
	case ZYDIS_MNEMONIC_ARPL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_AAA:
	case ZYDIS_MNEMONIC_AAS:
	case ZYDIS_MNEMONIC_AAD:
	case ZYDIS_MNEMONIC_AAM:
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
	case ZYDIS_MNEMONIC_SALC:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_MWAITX:
		return true;
	default:
		return false;
	}
}

bool soft_insn_is_plain(const struct soft_insn *insn)
{
	if (insn->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    insn->z.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	if ((insn->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) || is_left_to_c(insn) || is_odd(insn))
		return false;
	for (int i = 0; i < insn->z.operand_count && i < INSN_OPERANDS; i++) {
		const ZydisDecodedOperand *op = &insn->op[i];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && i != insn->memory)
			return op->mem.type == ZYDIS_MEMOP_TYPE_AGEN;
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (op->reg.value == ZYDIS_REGISTER_RIP || op->reg.value == ZYDIS_REGISTER_EIP ||
		     op->reg.value == ZYDIS_REGISTER_IP ||
		     (op->reg.value >= ZYDIS_REGISTER_ES && op->reg.value <= ZYDIS_REGISTER_GS)))
			return false;
	}
	if (insn->memory >= 0 && insn->op[insn->memory].mem.type != ZYDIS_MEMOP_TYPE_MEM)
		return false;
	return insn->memory < 0 || insn->memory_bytes;
}
