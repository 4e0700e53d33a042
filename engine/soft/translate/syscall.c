/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL and SYSRET in line: what step/syscall.c does, for the case that a kernel of 64 bits meets
 * all the time. Anything else is C's: it is found before anything has changed, and C begins anew.
 *
 *   SYSCALL   from a program, with EFER.SCE and CR4.SMAP set, and SFMASK clearing AC and DF
 *   SYSRET    to 64-bit code at a canonical address, by flags without TF, AC and DF, while nobody
 *             waits for interrupts to be let in
 *
 * So the view that comes is known, and the vCPU does not become slow. From the first change on the
 * guest is in the middle of the instruction: a kick lets the host step on to the way out, behind it.
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/tlb/jumps.h"

#define CODE_OF_USER   0xa0fbu
#define DATA_OF_USER   0xc0f3u
#define CODE_OF_KERNEL 0xa09bu
#define DATA_OF_KERNEL 0xc093u

static uint32_t msr_at(enum vcpu_msr msr)
{
	return (uint32_t)(offsetof(struct engine_vcpu, state.msr) + (size_t)msr * 8);
}

static void step_unless_offered(struct tr *tr)
{
	emit_test8_gs_imm(&tr->e, offsetof(struct engine_vcpu, state.efer), EFER_SCE);
	tr_step_if(tr, CC_E);
}

/* A flat segment, whose selector is the low half of r10; r10 keeps that half alone. */
static void emit_flat(struct emit *e, enum vcpu_segment which, uint32_t attributes)
{
	const uint32_t at = (uint32_t)(offsetof(struct engine_vcpu, state.segment) +
				       (size_t)which * sizeof(struct vcpu_segment_state));

	_Static_assert(offsetof(struct vcpu_segment_state, attributes) ==
				       offsetof(struct vcpu_segment_state, selector) + 2 &&
			       offsetof(struct vcpu_segment_state, unusable) == 16 &&
			       sizeof(struct vcpu_segment_state) == 24,
		       "what is stored at once");
	emit_and32_imm(e, R10, UINT16_MAX);
	emit_or32_imm(e, R10, attributes << 16);
	emit_store_imm(e, 0, at + offsetof(struct vcpu_segment_state, base));
	emit_store32_imm(e, UINT32_MAX, at + offsetof(struct vcpu_segment_state, limit));
	emit_store32(e, R10, at + offsetof(struct vcpu_segment_state, selector));
	emit_store_imm(e, 0, at + offsetof(struct vcpu_segment_state, unusable));
	emit_and32_imm(e, R10, UINT16_MAX);
}

/* RFLAGS := r11, without TF, AC, DF, RF and VM; the arithmetic flags go to the slot. */
static void emit_set_rflags(struct emit *e)
{
	emit_mov32(e, R10, R11);
	emit_and32_imm(e, R10, (uint32_t)(FLAG_IOPL | FLAG_NT | FLAG_ID));
	emit_store32(e, R10, offsetof(struct engine_vcpu, system_flags));
	emit_mov32(e, R10, R11);
	emit_and32_imm(e, R10, (uint32_t)FLAG_IF);
	emit_store32(e, R10, offsetof(struct engine_vcpu, interrupts_on));
	emit_mov32(e, R10, R11);
	emit_and32_imm(e, R10, FLAGS_ARITHMETIC & 0xff);
	emit_shl32_imm(e, R10, 8);
	emit_shr32_imm(e, R11, 11);
	emit_and32_imm(e, R11, 1); /* OF */
	emit_add(e, R10, R11);
	emit_store32(e, R10, VCPU_SLOT);
	emit_cld(e);
}

static void emit_level(struct emit *e, uint8_t cpl, enum soft_view view)
{
	emit_store8_imm(e, cpl, offsetof(struct engine_vcpu, cpl));
	emit_store8_imm(e, (uint8_t)view, offsetof(struct engine_vcpu, view));
	emit_store_imm(e, tr_jump_table(view), VCPU_JUMPS);
}

/* On to r10, in another view. No interrupt is held back any more. */
static void go_on(struct tr *tr, enum soft_view view)
{
	tr_record(tr, tr->rip)->computed = COMPUTED_ENTRY;
	tr_exit_computed(tr, view);
}

static void translate_syscall(struct tr *tr)
{
	const uint32_t cleared = (uint32_t)(FLAG_AC | FLAG_DF);
	struct emit *e = &tr->e;

	step_unless_offered(tr);
	emit_test8_gs_imm(e, offsetof(struct engine_vcpu, state.cr4) + 2, CR4_SMAP >> 16);
	tr_step_if(tr, CC_E);
	emit_load32(e, R10, msr_at(MSR_SFMASK));
	emit_and32_imm(e, R10, cleared);
	emit_cmp_imm(e, R10, cleared);
	tr_step_if(tr, CC_NE);
	tr_clean(tr);
	tr_rflags(tr);
	emit_store(e, R11, VCPU_GPR + 8 * R11);
	emit_mov32(e, R10, R11);
	emit_and32_gs(e, R10, msr_at(MSR_SFMASK));
	emit_sub(e, R11, R10);
	emit_set_rflags(e);
	emit_load(e, R10, msr_at(MSR_STAR));
	emit_shr_imm(e, R10, 32);
	emit_and32_imm(e, R10, 0xfffc);
	emit_flat(e, SEG_CS, CODE_OF_KERNEL);
	emit_lea(e, R10, R10, 8);
	emit_flat(e, SEG_SS, DATA_OF_KERNEL);
	emit_level(e, 0, VIEW_KERNEL);
	emit_mov_imm(e, RCX, tr->next);
	emit_load(e, R10, msr_at(MSR_LSTAR));
	go_on(tr, VIEW_KERNEL);
}

static void translate_sysret(struct tr *tr)
{
	struct emit *e = &tr->e;

	step_unless_offered(tr);
	emit_cmp8_gs_imm(e, offsetof(struct engine_vcpu, window_wanted), 0);
	tr_step_if(tr, CC_NE);
	emit_mov(e, R10, RCX);
	emit_shl_imm(e, R10, 16);
	emit_sar_imm(e, R10, 16);
	emit_cmp(e, R10, RCX);
	tr_step_if(tr, CC_NE);
	emit_load32(e, R11, VCPU_GPR + 8 * R11);
	emit_mov32(e, R10, R11);
	emit_and32_imm(e, R10, (uint32_t)(FLAG_TF | FLAG_AC | FLAG_DF));
	tr_step_if(tr, CC_NE);
	tr_clean(tr);
	emit_set_rflags(e);
	emit_load(e, R10, msr_at(MSR_STAR));
	emit_shr_imm(e, R10, 48);
	emit_or32_imm(e, R10, 3);
	emit_lea(e, R10, R10, 8);
	emit_flat(e, SEG_SS, DATA_OF_USER);
	emit_lea(e, R10, R10, 8);
	emit_flat(e, SEG_CS, CODE_OF_USER);
	emit_level(e, 3, VIEW_USER);
	emit_mov(e, R10, RCX);
	go_on(tr, VIEW_USER);
}

enum tr_kind tr_syscall_kind(const struct soft_insn *insn, uint8_t mode)
{
	bool user = (mode & MODE_VIEW) == VIEW_USER;

	if (insn->z.mnemonic == ZYDIS_MNEMONIC_SYSCALL)
		return user ? KIND_SYSCALL : KIND_STEP;
	return user || !insn->z.raw.rex.W ? KIND_STEP : KIND_SYSCALL;
}

void tr_syscall(struct tr *tr, const struct soft_insn *insn)
{
	/* Behind STI: C knows that no interrupt comes before it. */
	if (tr->rip == tr->shadow_rip) {
		tr_exit_step(tr, tr->rip);
		return;
	}
	if (tr->flags == FLAGS_IN_HOST)
		tr_save_flags(tr);
	tr_forget(tr, R10);
	tr_forget(tr, R11);
	tr_record(tr, tr->rip);
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_SYSCALL)
		translate_syscall(tr);
	else
		translate_sysret(tr);
}
