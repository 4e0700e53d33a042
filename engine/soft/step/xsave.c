/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: XSAVE and its family, XGETBV and XSETBV (SDM vol. 1, 13).
 */
#include "engine/soft/step/system.h"

#include "engine/soft/cpu/extended.h"

#define XCR0_SOFT 7ull

uint32_t soft_xsave_bytes(const struct engine_vcpu *vcpu, uint64_t parts, bool compacted)
{
	uint32_t bytes = 576;

	for (uint32_t i = 2; i < 32; i++) {
		const struct cpuid_leaf *leaf =
			parts >> i & 1 ? cpuid_find(&vcpu->cpuid, 0xd, i) : NULL;

		if (!leaf)
			continue;
		if (compacted)
			bytes += leaf->eax;
		else if (leaf->ebx + leaf->eax > bytes)
			bytes = leaf->ebx + leaf->eax;
	}
	return bytes;
}

int soft_step_xgetbv(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (!(vcpu->state.cr4 & CR4_OSXSAVE))
		return soft_raise(vcpu, VECTOR_UD);
	switch ((uint32_t)vcpu->gpr[GPR_RCX]) {
	case 0:
		soft_set_pair(vcpu, vcpu->state.xcr0);
		return SOFT_OK;
	case 1:
		soft_fpu_release(vcpu);
		soft_set_pair(vcpu, vcpu->xsave[512] & vcpu->state.xcr0);
		return SOFT_OK;
	default:
		return soft_not_privileged(vcpu);
	}
}

int soft_step_xsetbv(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t value = (uint32_t)vcpu->gpr[GPR_RAX] | vcpu->gpr[GPR_RDX] << 32;

	(void)step;
	if (!(vcpu->state.cr4 & CR4_OSXSAVE))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->cpl || (uint32_t)vcpu->gpr[GPR_RCX] || !(value & 1) ||
	    (value & ~(cpuid_xcr0(&vcpu->cpuid) & XCR0_SOFT)) || (value & 6) == 4)
		return soft_not_privileged(vcpu);
	vcpu->state.xcr0 = value;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

static bool is_restore(const struct soft_step *step)
{
	return step->insn->z.mnemonic == ZYDIS_MNEMONIC_XRSTOR ||
	       step->insn->z.mnemonic == ZYDIS_MNEMONIC_XRSTOR64;
}

static bool is_compacted(const struct soft_step *step)
{
	return step->insn->z.mnemonic == ZYDIS_MNEMONIC_XSAVEC ||
	       step->insn->z.mnemonic == ZYDIS_MNEMONIC_XSAVEC64;
}

/* Comes before all that the address could be wrong with. */
static bool is_misaligned(const struct engine_vcpu *vcpu, enum vcpu_segment segment,
			  uint64_t offset)
{
	if (!soft_code64(vcpu) || segment == SEG_FS || segment == SEG_GS)
		offset += vcpu->state.segment[segment].base;
	return offset & 63;
}

#define HEADER	     512u
#define LEGACY_BYTES 576u
#define AVX_BYTES    832u
#define XMM8	     288u
#define YMMH8	     704u
#define HIGH_BYTES   128u

/* The bytes that a part has, of which nothing else is written; in 32-bit code half the registers. */
static int write_parts(struct engine_vcpu *vcpu, uint64_t linear, uint64_t parts, bool compacted)
{
	bool code64 = soft_code64(vcpu);
	const struct {
		uint64_t parts;
		uint32_t from, to;
	} pieces[] = {
		{ 1, 0, 24 },
		{ 6, 24, 32 }, /* MXCSR */
		{ 1, 32, 160 },
		{ 2, 160, code64 ? 416 : XMM8 },
		{ UINT64_MAX, HEADER, HEADER + (compacted ? 16u : 8u) },
		{ 4, LEGACY_BYTES, code64 ? AVX_BYTES : YMMH8 },
	};
	int err = SOFT_OK;

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]) && !err; i++)
		if (pieces[i].parts == UINT64_MAX || (pieces[i].parts & parts))
			err = soft_write(vcpu, vcpu->view, linear + pieces[i].from,
					 vcpu->bounce + pieces[i].from,
					 pieces[i].to - pieces[i].from);
	return err;
}

/* With the operand in vcpu->bounce, on the parts alone. */
static int execute(struct engine_vcpu *vcpu, const struct soft_step *step, uint64_t parts)
{
	uint64_t rdx = vcpu->gpr[GPR_RDX], rax = vcpu->gpr[GPR_RAX];
	struct soft_insn insn = { 0 };
	int err;

	insn.z.machine_mode = ZYDIS_MACHINE_MODE_LONG_64;
	insn.z.encoding = ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	insn.z.attributes = ZYDIS_ATTRIB_HAS_MODRM | ZYDIS_ATTRIB_HAS_REX;
	insn.z.opcode_map = ZYDIS_OPCODE_MAP_0F;
	insn.z.opcode = is_compacted(step) ? 0xc7 : 0xae;
	insn.z.raw.modrm.reg = is_restore(step) ? 5 : 4;
	insn.z.raw.rex.W = step->insn->z.raw.rex.W;
	insn.operand_registers = 1u << GPR_RAX | 1u << GPR_RDX;
	vcpu->gpr[GPR_RAX] = (uint32_t)parts;
	vcpu->gpr[GPR_RDX] = parts >> 32;
	err = soft_execute_copy(vcpu, &insn);
	vcpu->gpr[GPR_RAX] = rax;
	vcpu->gpr[GPR_RDX] = rdx;
	return err;
}

static int save(struct engine_vcpu *vcpu, const struct soft_step *step, uint64_t linear,
		uint64_t parts)
{
	bool used_only = step->insn->z.mnemonic != ZYDIS_MNEMONIC_XSAVE &&
			 step->insn->z.mnemonic != ZYDIS_MNEMONIC_XSAVE64;
	/*
	 * XSAVEC and XSAVEOPT do not touch a part that is in its initial state. But they are asked
	 * for it: the header says that it is.
	 */
	bool unused = used_only && !(vcpu->xsave[HEADER] & 4);
	uint64_t written = unused ? parts & ~4ull : parts;
	uint32_t bytes = written & 4 ? AVX_BYTES : LEGACY_BYTES;
	int err = soft_probe_write(vcpu, vcpu->view, linear, bytes);

	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, vcpu->bounce, bytes);
	if (!err)
		err = execute(vcpu, step, parts);
	if (err)
		return err;
	/* The host's CPU may take for used what is as at first. */
	vcpu->bounce[HEADER] &= (uint8_t) ~(parts & ~written);
	if (parts & vcpu->bounce[HEADER] & 1)
		soft_x87_show(vcpu, vcpu->bounce, step->insn->z.raw.rex.W);
	return write_parts(vcpu, linear, written, is_compacted(step));
}

/* Not to be broken off once it is executed: it would find its own work where the old state was. */
static int execute_restore(struct engine_vcpu *vcpu, const struct soft_step *step, uint64_t parts)
{
	uint8_t high[2 * HIGH_BYTES];
	int err;

	soft_copy(high, vcpu->xsave + XMM8, HIGH_BYTES);
	soft_copy(high + HIGH_BYTES, vcpu->xsave + YMMH8, HIGH_BYTES);
	soft_x87_expect_load(vcpu, parts & 1);
	err = execute(vcpu, step, parts);
	soft_x87_expect_load(vcpu, false);
	if (err)
		return err;
	if (parts & 1)
		soft_x87_load(vcpu, vcpu->bounce[HEADER] & 1 ? vcpu->bounce : NULL,
			      step->insn->z.raw.rex.W);
	if (soft_code64(vcpu))
		return SOFT_OK;
	/* 32-bit code has no registers from 8 on: they stay. */
	soft_fpu_release(vcpu);
	soft_copy(vcpu->xsave + XMM8, high, HIGH_BYTES);
	soft_copy(vcpu->xsave + YMMH8, high + HIGH_BYTES, HIGH_BYTES);
	vcpu->xsave[HEADER] |= vcpu->state.xcr0 & 6;
	return SOFT_OK;
}

/* XSTATE_BV or XCOMP_BV of the operand has a part that the guest's XCR0 has not; the host's may. */
static bool has_others(const struct engine_vcpu *vcpu)
{
	uint64_t used, compacted;

	soft_copy(&used, vcpu->bounce + HEADER, sizeof(used));
	soft_copy(&compacted, vcpu->bounce + HEADER + 8, sizeof(compacted));
	return (used | (compacted & ~BIT64(63))) & ~vcpu->state.xcr0;
}

static int restore(struct engine_vcpu *vcpu, const struct soft_step *step, uint64_t linear,
		   uint64_t parts)
{
	int err = soft_read(vcpu, vcpu->view, linear, vcpu->bounce, LEGACY_BYTES);

	if (!err && has_others(vcpu))
		return soft_not_privileged(vcpu);
	if (!err && (parts & vcpu->bounce[HEADER] & 4))
		err = soft_read(vcpu, vcpu->view, linear + LEGACY_BYTES,
				vcpu->bounce + LEGACY_BYTES, AVX_BYTES - LEGACY_BYTES);
	if (err)
		return err;
	vcpu->committing = true;
	err = execute_restore(vcpu, step, parts);
	vcpu->committing = false;
	return err;
}

/*
 * Executed on a copy, so that pages may be crossed. XSAVEOPT becomes XSAVE, which writes the same
 * or more: what the host remembers of its last XRSTOR is not about the guest.
 */
int soft_step_xsave(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t asked = (uint32_t)vcpu->gpr[GPR_RAX] | vcpu->gpr[GPR_RDX] << 32;
	uint64_t parts = asked & vcpu->state.xcr0, linear, offset;
	enum vcpu_segment segment;
	int err;

	if (!(vcpu->state.cr4 & CR4_OSXSAVE))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->state.cr0 & CR0_TS)
		return soft_raise(vcpu, VECTOR_NM);
	segment = soft_segment_of(step->insn->op[0].mem.segment);
	offset = soft_effective_address(vcpu, step, &step->insn->op[0].mem);
	if (is_misaligned(vcpu, segment, offset))
		return soft_not_privileged(vcpu);
	err = soft_linear(vcpu, segment, offset, LEGACY_BYTES, !is_restore(step), &linear);
	if (err)
		return err;
	soft_fpu_release(vcpu);
	return is_restore(step) ? restore(vcpu, step, linear, parts)
				: save(vcpu, step, linear, parts);
}
