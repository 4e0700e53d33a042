/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stepper: which function executes which system instruction, and those that fit nowhere else:
 * the interrupt flag, forgetting translations, hints, and what does not exist.
 *
 * Privilege first, then operands, then the effect.
 *
 * What CPUID does not offer does not come here: offer.c.
 */
#include "engine/soft/step/system.h"

#include <sched.h>

#include "engine/soft/cpu/mmu.h"
#include "engine/soft/tlb/tlb.h"

#define SPINS_UNTIL_YIELD 16u

static int step_undefined(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	return soft_raise(vcpu, VECTOR_UD);
}

/*
 * A loop that waits for another vCPU. Where there are fewer cores than vCPUs, that one may wait for
 * the core of this one: 64 vCPUs on two cores are up in 3 s, and without this not in 200.
 */
static int step_pause(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (++vcpu->spins % SPINS_UNTIL_YIELD == 0)
		sched_yield();
	return SOFT_OK;
}

static int step_nothing(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)vcpu;
	(void)step;
	return SOFT_OK;
}

/* There are no counters, and #GP is what a number without a counter gives. */
static int step_rdpmc(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	return soft_not_privileged(vcpu);
}

/* Nothing is cached that a flush would matter to, but the address has to be there. */
static int step_flush_line(struct engine_vcpu *vcpu, struct soft_step *step)
{
	struct soft_page page;
	uint64_t linear;
	int err = soft_operand_linear(vcpu, step, &step->insn->op[0], false, &linear);

	return err ? err : soft_translate(vcpu, vcpu->view, linear, ACCESS_READ, &page);
}

static int step_privileged_nothing(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	return vcpu->cpl ? soft_not_privileged(vcpu) : SOFT_OK;
}

static int step_lea(struct engine_vcpu *vcpu, struct soft_step *step)
{
	soft_set_register(vcpu, step->insn->op[0].reg.value,
			  soft_effective_address(vcpu, step, &step->insn->op[1].mem));
	return SOFT_OK;
}

static int step_xlat(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint32_t width = step->insn->z.address_width / 8u;
	enum vcpu_segment segment = SEG_DS;
	uint64_t linear, value = 0;
	int err;

	for (int i = 0; i < step->insn->z.operand_count && i < INSN_OPERANDS; i++)
		if (step->insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			segment = soft_segment_of(step->insn->op[i].mem.segment);
	err = soft_linear(vcpu, segment,
			  (vcpu->gpr[GPR_RBX] + (vcpu->gpr[GPR_RAX] & 0xff)) & soft_mask(width), 1,
			  false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, &value, 1);
	if (!err)
		soft_set_gpr(vcpu, GPR_RAX, 1, value);
	return err;
}

/* ---- flags ---- */

static bool may_change_if(const struct engine_vcpu *vcpu)
{
	return vcpu->cpl <= (vcpu->system_flags & FLAG_IOPL) >> 12;
}

static int step_cli(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (!may_change_if(vcpu))
		return soft_not_privileged(vcpu);
	vcpu->interrupts_on = 0;
	return SOFT_OK;
}

static int step_sti(struct engine_vcpu *vcpu, struct soft_step *step)
{
	(void)step;
	if (!may_change_if(vcpu))
		return soft_not_privileged(vcpu);
	if (!vcpu->interrupts_on)
		vcpu->shadow = SHADOW_STI;
	vcpu->interrupts_on = (uint32_t)FLAG_IF;
	return SOFT_OK;
}

static int step_ac(struct engine_vcpu *vcpu, struct soft_step *step)
{
	if (vcpu->cpl)
		return soft_raise(vcpu, VECTOR_UD);
	if (step->insn->z.mnemonic == ZYDIS_MNEMONIC_STAC)
		vcpu->system_flags |= FLAG_AC;
	else
		vcpu->system_flags &= (uint32_t)~FLAG_AC;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

/* ---- forgetting translations ---- */

static int step_invlpg(struct engine_vcpu *vcpu, struct soft_step *step)
{
	const ZydisDecodedOperandMem *mem = &step->insn->op[0].mem;
	enum vcpu_segment segment = soft_segment_of(mem->segment);
	uint64_t linear = soft_effective_address(vcpu, step, mem);

	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	if (!soft_code64(vcpu) || segment == SEG_FS || segment == SEG_GS)
		linear += vcpu->state.segment[segment].base;
	soft_tlb_flush_page(vcpu, soft_code64(vcpu) ? linear : linear & 0xffffffff);
	return SOFT_OK;
}

static int step_invpcid(struct engine_vcpu *vcpu, struct soft_step *step)
{
	uint64_t descriptor[2] = { 0 }, linear, type, pcids;
	int err;

	if (vcpu->cpl)
		return soft_not_privileged(vcpu);
	type = soft_get_register(vcpu, step->insn->op[0].reg.value);
	err = soft_operand_linear(vcpu, step, &step->insn->op[1], false, &linear);
	if (!err)
		err = soft_read(vcpu, vcpu->view, linear, descriptor, 16);
	if (err)
		return err;
	pcids = vcpu->state.cr4 & CR4_PCIDE ? BIT64(12) : 1;
	if (type > 3 || (type < 2 && descriptor[0] >= pcids) ||
	    (type == 0 && !soft_is_canonical(descriptor[1])))
		return soft_not_privileged(vcpu);
	if (type == 0)
		soft_tlb_flush_page(vcpu, descriptor[1]);
	else
		soft_tlb_flush(vcpu, type == 2);
	return SOFT_OK;
}

/* ---- the table ---- */

static soft_handler *const handlers[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
	[ZYDIS_MNEMONIC_MOV] = soft_step_mov,
	[ZYDIS_MNEMONIC_LEA] = step_lea,
	[ZYDIS_MNEMONIC_XLAT] = step_xlat,
	[ZYDIS_MNEMONIC_CLI] = step_cli,
	[ZYDIS_MNEMONIC_STI] = step_sti,
	[ZYDIS_MNEMONIC_STAC] = step_ac,
	[ZYDIS_MNEMONIC_CLAC] = step_ac,
	[ZYDIS_MNEMONIC_CLTS] = soft_step_clts,
	[ZYDIS_MNEMONIC_SMSW] = soft_step_smsw,
	[ZYDIS_MNEMONIC_LMSW] = soft_step_lmsw,
	[ZYDIS_MNEMONIC_LGDT] = soft_step_load_table,
	[ZYDIS_MNEMONIC_LIDT] = soft_step_load_table,
	[ZYDIS_MNEMONIC_SGDT] = soft_step_store_table,
	[ZYDIS_MNEMONIC_SIDT] = soft_step_store_table,
	[ZYDIS_MNEMONIC_LLDT] = soft_step_load_selector,
	[ZYDIS_MNEMONIC_LTR] = soft_step_load_selector,
	[ZYDIS_MNEMONIC_SLDT] = soft_step_store_selector,
	[ZYDIS_MNEMONIC_STR] = soft_step_store_selector,
	[ZYDIS_MNEMONIC_LDS] = soft_step_load_far,
	[ZYDIS_MNEMONIC_LES] = soft_step_load_far,
	[ZYDIS_MNEMONIC_LFS] = soft_step_load_far,
	[ZYDIS_MNEMONIC_LGS] = soft_step_load_far,
	[ZYDIS_MNEMONIC_LSS] = soft_step_load_far,
	[ZYDIS_MNEMONIC_LAR] = soft_step_look_at_selector,
	[ZYDIS_MNEMONIC_LSL] = soft_step_look_at_selector,
	[ZYDIS_MNEMONIC_VERR] = soft_step_look_at_selector,
	[ZYDIS_MNEMONIC_VERW] = soft_step_look_at_selector,
	[ZYDIS_MNEMONIC_INVLPG] = step_invlpg,
	[ZYDIS_MNEMONIC_INVPCID] = step_invpcid,
	[ZYDIS_MNEMONIC_RDMSR] = soft_step_rdmsr,
	[ZYDIS_MNEMONIC_WRMSR] = soft_step_wrmsr,
	[ZYDIS_MNEMONIC_CPUID] = soft_step_cpuid,
	[ZYDIS_MNEMONIC_RDTSC] = soft_step_rdtsc,
	[ZYDIS_MNEMONIC_RDTSCP] = soft_step_rdtsc,
	[ZYDIS_MNEMONIC_RDPID] = soft_step_rdpid,
	[ZYDIS_MNEMONIC_XGETBV] = soft_step_xgetbv,
	[ZYDIS_MNEMONIC_XSETBV] = soft_step_xsetbv,
	[ZYDIS_MNEMONIC_SWAPGS] = soft_step_swapgs,
	[ZYDIS_MNEMONIC_RDFSBASE] = soft_step_base,
	[ZYDIS_MNEMONIC_RDGSBASE] = soft_step_base,
	[ZYDIS_MNEMONIC_WRFSBASE] = soft_step_base,
	[ZYDIS_MNEMONIC_WRGSBASE] = soft_step_base,
	[ZYDIS_MNEMONIC_SYSCALL] = soft_step_syscall,
	[ZYDIS_MNEMONIC_SYSRET] = soft_step_sysret,
	[ZYDIS_MNEMONIC_IN] = soft_step_port,
	[ZYDIS_MNEMONIC_OUT] = soft_step_port,
	[ZYDIS_MNEMONIC_HLT] = soft_step_hlt,
	[ZYDIS_MNEMONIC_XSAVE] = soft_step_xsave,
	[ZYDIS_MNEMONIC_XSAVE64] = soft_step_xsave,
	[ZYDIS_MNEMONIC_XSAVEOPT] = soft_step_xsave,
	[ZYDIS_MNEMONIC_XSAVEOPT64] = soft_step_xsave,
	[ZYDIS_MNEMONIC_XSAVEC] = soft_step_xsave,
	[ZYDIS_MNEMONIC_XSAVEC64] = soft_step_xsave,
	[ZYDIS_MNEMONIC_XRSTOR] = soft_step_xsave,
	[ZYDIS_MNEMONIC_XRSTOR64] = soft_step_xsave,
	[ZYDIS_MNEMONIC_WBINVD] = step_privileged_nothing,
	[ZYDIS_MNEMONIC_INVD] = step_privileged_nothing,
	[ZYDIS_MNEMONIC_CLFLUSH] = step_flush_line,
	[ZYDIS_MNEMONIC_CLFLUSHOPT] = step_flush_line,
	[ZYDIS_MNEMONIC_CLWB] = step_flush_line,
	[ZYDIS_MNEMONIC_NOP] = step_nothing,
	[ZYDIS_MNEMONIC_PAUSE] = step_pause,
	[ZYDIS_MNEMONIC_PREFETCH] = step_nothing,
	[ZYDIS_MNEMONIC_PREFETCHNTA] = step_nothing,
	[ZYDIS_MNEMONIC_PREFETCHT0] = step_nothing,
	[ZYDIS_MNEMONIC_PREFETCHT1] = step_nothing,
	[ZYDIS_MNEMONIC_PREFETCHT2] = step_nothing,
	[ZYDIS_MNEMONIC_PREFETCHW] = step_nothing,
	[ZYDIS_MNEMONIC_PREFETCHWT1] = step_nothing,
	[ZYDIS_MNEMONIC_UD0] = step_undefined,
	[ZYDIS_MNEMONIC_UD1] = step_undefined,
	[ZYDIS_MNEMONIC_UD2] = step_undefined,
	[ZYDIS_MNEMONIC_SYSENTER] = soft_step_sysenter,
	[ZYDIS_MNEMONIC_SYSEXIT] = soft_step_sysexit,
	[ZYDIS_MNEMONIC_RSM] = step_undefined,
	[ZYDIS_MNEMONIC_RDPMC] = step_rdpmc,
};

soft_handler *soft_system_handler(ZydisMnemonic mnemonic)
{
	return handlers[mnemonic];
}
