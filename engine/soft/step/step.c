/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: one instruction of any mode, by C.
 *
 * It is the engine's reference and its last resort. System instructions, odd ones, whole modes (16
 * and 32-bit code), accesses to devices and across pages come here; translated code does the rest.
 * Arithmetic is not written anew: the host's CPU executes the instruction with its operand
 * translated (step/exec.c).
 *
 * An instruction changes registers only when nothing can fault any more.
 */
#include "engine/soft/step/step.h"

#include <errno.h>
#include <string.h>

#include "engine/soft/cpu/extended.h"
#include "engine/soft/cpu/segment.h"

uint64_t soft_mask(uint32_t bytes)
{
	return bytes >= 8 ? UINT64_MAX : BIT64(8 * bytes) - 1;
}

static bool is_high_byte(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

static uint32_t register_bytes(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return 8;
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return 4;
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return 2;
	return 1;
}

uint64_t soft_get_register(const struct engine_vcpu *vcpu, ZydisRegister reg)
{
	int number = soft_register_number(reg);

	if (number < 0)
		return vcpu->state.segment[soft_segment_of(reg)].selector;
	if (is_high_byte(reg))
		return vcpu->gpr[number] >> 8 & 0xff;
	return vcpu->gpr[number] & soft_mask(register_bytes(reg));
}

void soft_set_gpr(struct engine_vcpu *vcpu, int number, uint32_t bytes, uint64_t value)
{
	uint64_t mask = soft_mask(bytes);

	if (bytes >= 4)
		vcpu->gpr[number] = value & mask;
	else
		vcpu->gpr[number] = (vcpu->gpr[number] & ~mask) | (value & mask);
}

void soft_set_register(struct engine_vcpu *vcpu, ZydisRegister reg, uint64_t value)
{
	int number = soft_register_number(reg);

	if (is_high_byte(reg))
		vcpu->gpr[number] = (vcpu->gpr[number] & ~0xff00ull) | (value & 0xff) << 8;
	else
		soft_set_gpr(vcpu, number, register_bytes(reg), value);
}

uint64_t soft_effective_address(const struct engine_vcpu *vcpu, const struct soft_step *step,
				const ZydisDecodedOperandMem *mem)
{
	uint64_t address = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;

	if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
		address += step->next;
	else if (mem->base != ZYDIS_REGISTER_NONE)
		address += soft_get_register(vcpu, mem->base);
	if (mem->index != ZYDIS_REGISTER_NONE)
		address += soft_get_register(vcpu, mem->index) * mem->scale;
	return address & soft_mask(step->insn->z.address_width / 8u);
}

static int segment_fault(struct engine_vcpu *vcpu, enum vcpu_segment segment)
{
	return soft_raise_error(vcpu, segment == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

/*
 * What EFLAGS.AC asks of an operand, measured, since manuals leave it to the CPU: images of the x87
 * are aligned as their words are. AMD's CPUs (Turin) want vectors, and halves of wider ones, in 16
 * bytes; Intel's (Sapphire Rapids) do not look at what is wider than 8.
 */
static uint32_t natural_alignment(const struct engine_vcpu *vcpu, uint32_t bytes)
{
	switch (bytes) {
	case 2:
	case 4:
	case 8:
		return bytes;
	case 10: /* x87's extended precision */
		return 8;
	case 14: /* FNSTENV and FNSAVE of 16 bits */
	case 94:
		return 2;
	case 28: /* and of 32 bits; FXSAVE */
	case 108:
	case 512:
		return 4;
	case 16:
	case 32:
		return vcpu->engine->offer->amd ? 16 : 1;
	default:
		return 1;
	}
}

/* What debug registers and alignment checks say to an access of the instruction itself. */
static int check_access(struct engine_vcpu *vcpu, uint64_t linear, uint32_t bytes, uint32_t align,
			bool write)
{
	if (vcpu->state.dr7 & 0xff)
		soft_watch_data(vcpu, linear, bytes, write);
	if (vcpu->cpl == 3 && soft_checks_alignment(vcpu) && (linear & (align - 1)))
		return soft_raise_error(vcpu, VECTOR_AC, 0);
	return SOFT_OK;
}

int soft_linear_aligned(struct engine_vcpu *vcpu, enum vcpu_segment segment, uint64_t offset,
			uint32_t bytes, uint32_t align, bool write, uint64_t *ret_linear)
{
	const struct vcpu_segment_state *state = &vcpu->state.segment[segment];
	uint64_t linear, last;

	if (soft_code64(vcpu)) {
		linear = offset + (segment == SEG_FS || segment == SEG_GS ? state->base : 0);
		last = linear + (bytes ? bytes - 1 : 0);
		if (!soft_is_canonical(linear) || !soft_is_canonical(last))
			return segment_fault(vcpu, segment);
		*ret_linear = linear;
		return check_access(vcpu, linear, bytes, align, write);
	}
	offset &= 0xffffffff;
	if (soft_real_mode(vcpu) ? offset + (bytes ? bytes - 1 : 0) > state->limit
				 : !soft_segment_allows(state, offset, bytes, write))
		return segment_fault(vcpu, segment);
	*ret_linear = (state->base + offset) & 0xffffffff;
	return check_access(vcpu, *ret_linear, bytes, align, write);
}

int soft_linear(struct engine_vcpu *vcpu, enum vcpu_segment segment, uint64_t offset,
		uint32_t bytes, bool write, uint64_t *ret_linear)
{
	return soft_linear_aligned(vcpu, segment, offset, bytes, natural_alignment(vcpu, bytes),
				   write, ret_linear);
}

int soft_operand_linear(struct engine_vcpu *vcpu, const struct soft_step *step,
			const ZydisDecodedOperand *op, bool write, uint64_t *ret_linear)
{
	return soft_linear(vcpu, soft_segment_of(op->mem.segment),
			   soft_effective_address(vcpu, step, &op->mem), op->size / 8u, write,
			   ret_linear);
}

int soft_get_operand(struct engine_vcpu *vcpu, const struct soft_step *step, int index,
		     uint64_t *ret_value)
{
	const ZydisDecodedOperand *op = &step->insn->op[index];
	uint64_t linear, value = 0;
	int err;

	switch (op->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		*ret_value = soft_get_register(vcpu, op->reg.value);
		return SOFT_OK;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		*ret_value = op->imm.value.u;
		return SOFT_OK;
	default:
		break;
	}
	err = soft_operand_linear(vcpu, step, op, false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &value, op->size / 8u);
	*ret_value = value;
	return err;
}

int soft_set_operand(struct engine_vcpu *vcpu, const struct soft_step *step, int index,
		     uint64_t value)
{
	const ZydisDecodedOperand *op = &step->insn->op[index];
	uint64_t linear;
	int err;

	if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		soft_set_register(vcpu, op->reg.value, value);
		return SOFT_OK;
	}
	err = soft_operand_linear(vcpu, step, op, true, &linear);
	return err ? err : soft_write(vcpu, vcpu->view, linear, &value, op->size / 8u);
}

uint32_t soft_stack_width(const struct engine_vcpu *vcpu)
{
	if (soft_code64(vcpu))
		return 8;
	return vcpu->state.segment[SEG_SS].attributes & ATTRIBUTE_BIG ? 4 : 2;
}

/* Linear address of `offset` bytes above the stack pointer. */
static int stack_linear(struct engine_vcpu *vcpu, int64_t offset, uint32_t bytes, bool write,
			uint64_t *ret_linear)
{
	uint64_t top = (vcpu->gpr[GPR_RSP] + (uint64_t)offset) & soft_mask(soft_stack_width(vcpu));

	return soft_linear(vcpu, SEG_SS, top, bytes, write, ret_linear);
}

int soft_stack_read(struct engine_vcpu *vcpu, uint32_t offset, uint32_t bytes, uint64_t *ret_value)
{
	uint64_t linear, value = 0;
	int err = stack_linear(vcpu, offset, bytes, false, &linear);

	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &value, bytes);
	*ret_value = value;
	return err;
}

void soft_stack_move(struct engine_vcpu *vcpu, int64_t bytes)
{
	soft_set_gpr(vcpu, GPR_RSP, soft_stack_width(vcpu), vcpu->gpr[GPR_RSP] + (uint64_t)bytes);
}

int soft_stack_push_low(struct engine_vcpu *vcpu, uint32_t bytes, uint32_t written, uint64_t value)
{
	uint64_t linear;
	int err = stack_linear(vcpu, -(int64_t)bytes, written, true, &linear);

	if (!err)
		err = soft_write(vcpu, vcpu->view, linear, &value, written);
	if (!err)
		soft_stack_move(vcpu, -(int64_t)bytes);
	return err;
}

int soft_stack_push(struct engine_vcpu *vcpu, uint32_t bytes, uint64_t value)
{
	return soft_stack_push_low(vcpu, bytes, bytes, value);
}

int soft_jump(struct engine_vcpu *vcpu, struct soft_step *step, uint64_t offset, uint32_t bytes)
{
	int err;

	offset &= soft_mask(bytes);
	err = soft_segment_reaches(vcpu, &vcpu->state.segment[SEG_CS], offset);
	if (err)
		return err;
	vcpu->rip = offset;
	step->jumped = true;
	return SOFT_OK;
}

/* A user may not end the guest, whatever it tries. */
static int fail_untranslated(struct engine_vcpu *vcpu, const uint8_t *bytes)
{
	uint64_t detail = 0;

	if (vcpu->cpl)
		return soft_raise(vcpu, VECTOR_UD);
	memcpy(&detail, bytes, 8);
	vcpu->pending.kind = EXIT_FAILED;
	vcpu->pending.fail.reason = "an instruction that is not implemented (detail: its bytes)";
	vcpu->pending.fail.detail = detail;
	return SOFT_EXIT;
}

/*
 * What was decoded here the last time, if its bytes are the same: decoding depends on nothing else,
 * and takes longer than most instructions; Zydis wants the guest's vectors saved, too.
 */
static struct soft_decoded *decoded_at(struct engine_vcpu *vcpu, uint64_t linear)
{
	return &vcpu->decoded[(linear ^ linear >> 6) & (DECODED_COUNT - 1)];
}

static bool is_decoded(const struct soft_decoded *decoded, enum soft_code_size code_size,
		       const uint8_t *bytes, uint32_t size)
{
	const struct soft_insn *insn = &decoded->insn;

	if (!decoded->valid || decoded->code_size != code_size || insn->length > size)
		return false;
	for (uint32_t i = 0; i < insn->length; i++)
		if (insn->bytes[i] != bytes[i])
			return false;
	return true;
}

/* Bytes of code from here to CS's limit, INSN_BYTES_MAX at most. */
static uint32_t room_of(const struct engine_vcpu *vcpu)
{
	uint64_t offset = vcpu->rip & 0xffffffff, limit = vcpu->state.segment[SEG_CS].limit;

	if (soft_code64(vcpu))
		return INSN_BYTES_MAX;
	if (offset > limit)
		return 0;
	return limit - offset < INSN_BYTES_MAX ? (uint32_t)(limit - offset) + 1 : INSN_BYTES_MAX;
}

static int fetch_and_decode(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t linear = vcpu->rip + (soft_code64(vcpu) ? 0 : vcpu->state.segment[SEG_CS].base);
	uint32_t room = room_of(vcpu), size = room, more;
	uint8_t bytes[16] = { 0 };
	struct soft_decoded *decoded;
	int err, result;

	if (!room)
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	if (!soft_code64(vcpu))
		linear &= 0xffffffff;
	err = soft_fetch(vcpu, linear, bytes, &size);
	if (err)
		return err;
	step->code_size = soft_code_size(vcpu);
	decoded = decoded_at(vcpu, linear);
	step->insn = &decoded->insn;
	if (is_decoded(decoded, step->code_size, bytes, size))
		return SOFT_OK;
	decoded->valid = false;
	soft_fpu_release(vcpu);
	result = soft_decode(vcpu->engine->offer, step->code_size, bytes, size, &decoded->insn);
	if (result == -ENODATA && size < room) {
		more = room - size;
		err = soft_fetch(vcpu, linear + size, bytes + size, &more);
		if (err)
			return err;
		result = soft_decode(vcpu->engine->offer, step->code_size, bytes, room,
				     &decoded->insn);
	}
	/* Longer than 15 bytes, or beyond the limit. */
	if (result == -ENODATA || result == -E2BIG)
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	if (result)
		return soft_raise(vcpu, VECTOR_UD);
	decoded->code_size = step->code_size;
	decoded->valid = true;
	return SOFT_OK;
}

/* CR0.TS and the like: #NM or #UD before a vector instruction (SDM vol. 3, 13.1). */
static int check_vector(struct engine_vcpu *vcpu, const struct soft_insn *insn)
{
	uint64_t cr0 = vcpu->state.cr0, cr4 = vcpu->state.cr4;
	bool x87 = insn->z.meta.category == ZYDIS_CATEGORY_X87_ALU ||
		   insn->z.meta.isa_set == ZYDIS_ISA_SET_X87 ||
		   insn->z.meta.isa_set == ZYDIS_ISA_SET_FCMOV ||
		   insn->z.meta.isa_set == ZYDIS_ISA_SET_SSE3X87;

	if (x87) {
		bool wait = insn->z.mnemonic == ZYDIS_MNEMONIC_FWAIT;

		if (wait ? (cr0 & CR0_TS) && (cr0 & CR0_MP) : (cr0 & (CR0_TS | CR0_EM)) != 0)
			return soft_raise(vcpu, VECTOR_NM);
		return SOFT_OK;
	}
	if (soft_insn_saves_vectors(insn))
		return cr0 & (CR0_TS | CR0_EM) ? soft_raise(vcpu, VECTOR_NM) : SOFT_OK;
	if (insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		if (!(cr4 & CR4_OSXSAVE) || (vcpu->state.xcr0 & 6) != 6)
			return soft_raise(vcpu, VECTOR_UD);
	} else if ((cr0 & CR0_EM) ||
		   (!(cr4 & CR4_OSFXSR) && insn->z.meta.isa_set != ZYDIS_ISA_SET_PENTIUMMMX)) {
		return soft_raise(vcpu, VECTOR_UD);
	}
	return cr0 & CR0_TS ? soft_raise(vcpu, VECTOR_NM) : SOFT_OK;
}

static int execute(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	soft_handler *handler = soft_control_handler(mnemonic);
	int err;

	if (soft_virtual_8086(vcpu) && step->insn->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return soft_raise(vcpu, VECTOR_UD);
	if (!handler)
		handler = soft_string_handler(mnemonic);
	/* MOVSD and CMPSD are names of vector instructions as well. */
	if (handler && soft_insn_is_vector(step->insn))
		handler = NULL;
	if (!handler)
		handler = soft_system_handler(mnemonic);
	/* PAUSE with REX.B is XCHG with r8. */
	if (mnemonic == ZYDIS_MNEMONIC_PAUSE && step->insn->z.raw.rex.B)
		handler = NULL;
	if (!handler && !soft_code64(vcpu))
		handler = soft_legacy_handler(mnemonic);
	if (handler)
		return handler(vcpu, step);
	if (step->insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return soft_raise(vcpu, VECTOR_UD);
	if (soft_insn_is_vector(step->insn)) {
		err = check_vector(vcpu, step->insn);
		if (err)
			return err;
	}
	if (step->insn->z.meta.category == ZYDIS_CATEGORY_AVX2GATHER)
		return soft_step_gather(vcpu, step);
	if (soft_insn_is_masked_store(step->insn))
		return soft_step_masked(vcpu, step);
	if (soft_insn_has_pointers(step->insn))
		return soft_step_pointers(vcpu, step);
	if (soft_insn_is_plain(step->insn))
		return soft_step_plain(vcpu, step);
	return fail_untranslated(vcpu, step->insn->bytes);
}

/* Comes before everything else that the instruction could do; RF lets it pass. */
static int check_breakpoint(struct engine_vcpu *vcpu)
{
	uint64_t base = soft_code64(vcpu) ? 0 : vcpu->state.segment[SEG_CS].base;
	uint32_t hits;

	if (!(vcpu->state.dr7 & 0xff) || (vcpu->system_flags & FLAG_RF))
		return SOFT_OK;
	hits = soft_break_code(vcpu, vcpu->rip + base);
	if (!hits)
		return SOFT_OK;
	vcpu->fault = (struct soft_fault){ .vector = VECTOR_DB, .dr6 = hits };
	return SOFT_FAULT;
}

/* A decoded instruction at vcpu->rip. */
static int step_decoded(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint8_t shadow = vcpu->shadow;
	int err;

	step->jumped = false;
	step->trap = vcpu->system_flags & FLAG_TF;
	step->next = vcpu->rip + step->insn->length;
	if (!soft_code64(vcpu))
		step->next &= step->code_size == CODE_16_REAL || step->code_size == CODE_16
				      ? 0xffff
				      : 0xffffffff;
	if (step->insn->z.attributes & ZYDIS_ATTRIB_HAS_LOCK && step->insn->memory < 0)
		return soft_raise(vcpu, VECTOR_UD);
	vcpu->shadow = 0;
	err = execute(vcpu, step);
	if (err) {
		/* It starts anew; so does a fault whose delivery is broken off by a kick. */
		if (err == SOFT_AGAIN || err == SOFT_FAULT ||
		    (err == SOFT_EXIT && vcpu->open == OPEN_MMIO))
			vcpu->shadow = shadow;
		/* With its answer, too. */
		if (err != SOFT_EXIT || vcpu->open != OPEN_NONE)
			vcpu->debug_held = vcpu->undo.debug_held;
		return err;
	}
	if (!step->jumped)
		vcpu->rip = step->next;
	vcpu->device_count = 0;
	if (!vcpu->iret_done)
		vcpu->system_flags &= (uint32_t)~FLAG_RF;
	vcpu->iret_done = false;
	if (step->trap)
		vcpu->debug_hits |= DR6_STEP;
	/* Nothing comes between a load of SS and the instruction behind it (SDM vol. 3, 6.8.3). */
	if (vcpu->shadow == SHADOW_MOV_SS)
		vcpu->debug_held = vcpu->debug_hits;
	else
		vcpu->debug_pending = vcpu->debug_hits != 0;
	return SOFT_OK;
}

void soft_step_commit(struct engine_vcpu *vcpu)
{
	memcpy(vcpu->undo.gpr, vcpu->gpr, sizeof(vcpu->undo.gpr));
	atomic_signal_fence(memory_order_seq_cst);
}

/* Remembers what soft_step_abandoned() puts back. */
static void begin_step(struct engine_vcpu *vcpu)
{
	vcpu->step_count++;
	vcpu->stepped = true;
	vcpu->device_seen = 0;
	vcpu->undo.debug_held = vcpu->debug_held;
	vcpu->debug_hits = vcpu->debug_held;
	vcpu->debug_held = 0;
	memcpy(vcpu->undo.gpr, vcpu->gpr, sizeof(vcpu->undo.gpr));
	vcpu->undo.rip = vcpu->rip;
	vcpu->undo.flags = vcpu->flags;
	vcpu->undo.shadow = vcpu->shadow;
	atomic_signal_fence(memory_order_seq_cst);
	vcpu->stepping = true;
}

int soft_step(struct engine_vcpu *vcpu)
{
	struct soft_step step = { 0 };
	int err;

	begin_step(vcpu);
	err = check_breakpoint(vcpu);
	if (!err)
		err = fetch_and_decode(vcpu, &step);
	if (!err)
		err = step_decoded(vcpu, &step);
	vcpu->stepping = false;
	return err;
}

int soft_step_known(struct engine_vcpu *vcpu, const struct soft_insn *insn)
{
	struct soft_step step = { .insn = insn, .code_size = CODE_64 };
	int err;

	begin_step(vcpu);
	err = step_decoded(vcpu, &step);
	vcpu->stepping = false;
	return err;
}

void soft_step_abandoned(struct engine_vcpu *vcpu)
{
	soft_x87_expect_load(vcpu, false);
	if (!vcpu->stepping)
		return;
	memcpy(vcpu->gpr, vcpu->undo.gpr, sizeof(vcpu->undo.gpr));
	vcpu->rip = vcpu->undo.rip;
	vcpu->flags = vcpu->undo.flags;
	vcpu->shadow = vcpu->undo.shadow;
	vcpu->debug_held = vcpu->undo.debug_held;
	vcpu->stepping = vcpu->committing = false;
}
