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

/* Comes before all that the address could be wrong with. */
static bool is_misaligned(const struct engine_vcpu *vcpu, enum vcpu_segment segment,
			  uint64_t offset)
{
	if (!soft_code64(vcpu) || segment == SEG_FS || segment == SEG_GS)
		offset += vcpu->state.segment[segment].base;
	return offset & 63;
}

/*
 * Executed on a copy, so that pages may be crossed. XSAVEOPT and XSAVES become XSAVEC and XSAVE,
 * which write the same or more: what the host remembers of its last XRSTOR is not about the guest.
 */
int soft_step_xsave(struct engine_vcpu *vcpu, struct soft_step *step)
{
	ZydisMnemonic mnemonic = step->insn->z.mnemonic;
	bool restore = mnemonic == ZYDIS_MNEMONIC_XRSTOR || mnemonic == ZYDIS_MNEMONIC_XRSTOR64;
	bool compacted = mnemonic == ZYDIS_MNEMONIC_XSAVEC || mnemonic == ZYDIS_MNEMONIC_XSAVEC64;
	bool wide = step->insn->z.raw.rex.W;
	uint64_t rdx = vcpu->gpr[GPR_RDX], rax = vcpu->gpr[GPR_RAX], linear;
	uint64_t parts = ((uint32_t)rax | rdx << 32) & vcpu->state.xcr0;
	uint32_t bytes = soft_xsave_bytes(vcpu, vcpu->state.xcr0, false);
	struct soft_insn insn = { 0 };
	enum vcpu_segment segment;
	uint64_t offset;
	int err;

	if (!(vcpu->state.cr4 & CR4_OSXSAVE))
		return soft_raise(vcpu, VECTOR_UD);
	if (vcpu->state.cr0 & CR0_TS)
		return soft_raise(vcpu, VECTOR_NM);
	segment = soft_segment_of(step->insn->op[0].mem.segment);
	offset = soft_effective_address(vcpu, step, &step->insn->op[0].mem);
	if (is_misaligned(vcpu, segment, offset))
		return soft_not_privileged(vcpu);
	err = soft_linear(vcpu, segment, offset, bytes, !restore, &linear);
	if (!err && !restore)
		err = soft_probe_write(vcpu, vcpu->view, linear, bytes);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, vcpu->bounce, bytes);
	if (err)
		return err;
	insn.z.machine_mode = ZYDIS_MACHINE_MODE_LONG_64;
	insn.z.encoding = ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	insn.z.attributes = ZYDIS_ATTRIB_HAS_MODRM | ZYDIS_ATTRIB_HAS_REX;
	insn.z.opcode_map = ZYDIS_OPCODE_MAP_0F;
	insn.z.opcode = compacted ? 0xc7 : 0xae;
	insn.z.raw.modrm.reg = restore ? 5 : 4;
	insn.z.raw.rex.W = wide;
	insn.operand_registers = 1u << GPR_RAX | 1u << GPR_RDX;
	vcpu->gpr[GPR_RAX] = (uint32_t)parts;
	vcpu->gpr[GPR_RDX] = parts >> 32;
	err = soft_execute_copy(vcpu, &insn);
	vcpu->gpr[GPR_RAX] = rax;
	vcpu->gpr[GPR_RDX] = rdx;
	if (!err && !restore)
		err = soft_write(vcpu, vcpu->view, linear, vcpu->bounce, bytes);
	return err;
}
