/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a host address in a block to the guest's exact state: at a fault, a kick, or when C will not
 * let the code be tried again. See struct soft_record.
 */
#include "engine/soft/vcpu.h"

#include <signal.h>
#include <ucontext.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/translate/translator.h"

void soft_flags_from_slot(struct engine_vcpu *vcpu)
{
	uint64_t flags =
		(vcpu->slot >> 8 & (FLAGS_ARITHMETIC & 0xff)) | (vcpu->slot & 1 ? FLAG_OF : 0);

	vcpu->flags = (vcpu->flags & ~FLAGS_ARITHMETIC) | flags;
}

void soft_flags_to_slot(struct engine_vcpu *vcpu)
{
	vcpu->slot = (vcpu->flags & FLAGS_ARITHMETIC & 0xff) << 8 | (vcpu->flags & FLAG_OF ? 1 : 0);
}

static void undo_jump(struct engine_vcpu *vcpu, const struct soft_record *record)
{
	vcpu->rip = record->rip;
	if (record->computed == COMPUTED_CALL)
		vcpu->gpr[GPR_RSP] += 8;
	if (record->computed == COMPUTED_RETURN)
		vcpu->gpr[GPR_RSP] -= 8;
}

bool soft_undo_jump(struct engine_vcpu *vcpu, uint64_t host)
{
	const struct soft_block *block;
	const struct soft_record *record;

	if (soft_is_canonical(vcpu->rip))
		return false;
	record = soft_record_find(vcpu->engine, host, &block);
	if (!record || !record->computed || record->computed == COMPUTED_ENTRY)
		return false;
	undo_jump(vcpu, record);
	return true;
}

void soft_settle(struct engine_vcpu *vcpu, uint64_t host)
{
	const struct soft_block *block;
	const struct soft_record *record = soft_record_find(vcpu->engine, host, &block);

	if (!record)
		return;
	vcpu->rip = record->rip;
	vcpu->shadow = record->shadow;
	if (record->slot)
		soft_flags_from_slot(vcpu);
}

/* As soft_stub_exit has it, r10 and r11 being in memory. */
static void take_all(struct engine_vcpu *vcpu, const greg_t *regs)
{
	static const uint8_t order[GPR_COUNT] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX,
						  REG_RSP, REG_RBP, REG_RSI, REG_RDI,
						  REG_R8,  REG_R9,  REG_R10, REG_R11,
						  REG_R12, REG_R13, REG_R14, REG_R15 };

	for (int i = 0; i < GPR_COUNT; i++)
		if (order[i] != REG_R10 && order[i] != REG_R11)
			vcpu->gpr[i] = (uint64_t)regs[order[i]];
	vcpu->flags = (uint64_t)regs[REG_EFL] & FLAGS_HOST;
}

static void take_registers(struct engine_vcpu *vcpu, const greg_t *regs,
			   const struct soft_record *record)
{
	take_all(vcpu, regs);
	vcpu->gpr[GPR_RSP] += (uint64_t)(int64_t)record->lag * 8;
	if (record->swapped != NOT_SWAPPED)
		vcpu->gpr[record->swapped] = (uint64_t)regs[REG_R11];
	if (record->string)
		vcpu->gpr[GPR_RDI] -= (uint64_t)regs[REG_R10];
	if (record->string == STRING_MOVES)
		vcpu->gpr[GPR_RSI] -= (uint64_t)regs[REG_R11];
	vcpu->shadow = record->shadow;
	vcpu->rip = record->computed ? (uint64_t)regs[REG_R10] : record->rip;
	if (record->slot)
		soft_flags_from_slot(vcpu);
	if (record->computed && record->computed != COMPUTED_ENTRY && !soft_is_canonical(vcpu->rip))
		undo_jump(vcpu, record);
}

void soft_leave(struct engine_vcpu *vcpu, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	regs[REG_RIP] = (greg_t)(uintptr_t)soft_cache_left(vcpu->engine);
	/* The guest's may be one that the host cannot return to. */
	regs[REG_RSP] = (greg_t)vcpu->host_rsp;
	regs[REG_EFL] &= ~(greg_t)(FLAG_DF | FLAG_TF);
}

void soft_leave_lookup(struct engine_vcpu *vcpu, void *context)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	take_all(vcpu, regs);
	vcpu->rip = (uint64_t)regs[REG_R10];
	vcpu->reason = SOFT_REASON_LOOKUP;
	soft_leave(vcpu, context);
}

void soft_leave_half(struct engine_vcpu *vcpu, void *context)
{
	take_all(vcpu, ((ucontext_t *)context)->uc_mcontext.gregs);
	soft_leave(vcpu, context);
}

/* True: the state has been taken, and the thread will leave guest code. */
static bool take_out(struct engine_vcpu *vcpu, void *context, uint64_t reason, uint64_t argument)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t pc = (uint64_t)regs[REG_RIP];
	const struct soft_block *block;
	const struct soft_record *record = soft_record_find(vcpu->engine, pc, &block);

	if (!record || pc - (uintptr_t)block->code > record->clean)
		return false;
	take_registers(vcpu, regs, record);
	vcpu->reason = reason;
	vcpu->argument = argument;
	soft_leave(vcpu, context);
	return true;
}

void soft_translated_stop(struct engine_vcpu *vcpu, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	vcpu->tracing = false;
	regs[REG_EFL] &= ~(greg_t)FLAG_TF;
	if (!atomic_load(&vcpu->stop) || take_out(vcpu, context, SOFT_REASON_LEFT, 0))
		return;
	/* In the middle of an instruction: one host instruction further. */
	vcpu->tracing = true;
	regs[REG_EFL] |= FLAG_TF;
}

void soft_translated_fault(struct engine_vcpu *vcpu, void *context, uint8_t vector)
{
	if (take_out(vcpu, context, SOFT_REASON_FAULT, vector))
		return;
	vcpu->reason = SOFT_REASON_FAULT;
	vcpu->argument = FAULT_OF_ENGINE;
	soft_leave(vcpu, context);
}

bool soft_translated_step(struct engine_vcpu *vcpu, void *context)
{
	return take_out(vcpu, context, SOFT_REASON_STEP, 0);
}
