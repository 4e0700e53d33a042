/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct vcpu_state <-> a vCPU. Most of it is kept as it is; what guest code works on (registers,
 * flags, extended state) has its own place while the vCPU runs.
 *
 * The extended state that this engine offers (x87, SSE, AVX) lies in both layouts at the same
 * offsets.
 */
#include "engine/soft/vcpu.h"

#include <errno.h>
#include <string.h>

#include "engine/soft/cache/pause.h"
#include "engine/soft/cpu/extended.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/run/run.h"
#include "engine/soft/tlb/tlb.h"

#define XSAVE_HEADER   512
#define XSAVE_POINTERS 6 /* opcode, instruction, data: 2, 8, 8 bytes */
#define XSAVE_MXCSR    24
#define XSAVE_PARTS    7ull

static void load_extended(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	uint64_t used;

	memcpy(&used, state->xsave + XSAVE_HEADER, sizeof(used));
	memset(vcpu->xsave, 0, sizeof(vcpu->xsave));
	memcpy(vcpu->xsave, state->xsave, XSAVE_HEADER);
	memset(vcpu->xsave + 28, 0, 4); /* the mask of MXCSR is the CPU's to say */
	memcpy(vcpu->xsave + vcpu_xsave_parts[2].offset, state->xsave + vcpu_xsave_parts[2].offset,
	       vcpu_xsave_parts[2].size);
	memcpy(vcpu->xsave + XSAVE_HEADER, &used, sizeof(used));
	vcpu->fpu_live = false;
	soft_x87_forget(vcpu);
	if (!(used & 1))
		return;
	memcpy(&vcpu->x87.opcode, state->xsave + XSAVE_POINTERS, 2);
	memcpy(&vcpu->x87.rip, state->xsave + XSAVE_POINTERS + 2, 8);
	memcpy(&vcpu->x87.data, state->xsave + XSAVE_POINTERS + 10, 8);
	memset(vcpu->xsave + XSAVE_POINTERS, 0, 18);
	vcpu->x87.cs = state->x87_cs;
}

static void save_extended(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	uint64_t used;

	memcpy(&used, vcpu->xsave + XSAVE_HEADER, sizeof(used));
	used &= XSAVE_PARTS;
	memset(state->xsave, 0, sizeof(state->xsave));
	memcpy(state->xsave, vcpu->xsave, XSAVE_HEADER);
	memset(state->xsave + 28, 0, 4);
	if (used & 1) {
		uint64_t data = soft_x87_data(vcpu);

		memcpy(state->xsave + XSAVE_POINTERS, &vcpu->x87.opcode, 2);
		memcpy(state->xsave + XSAVE_POINTERS + 2, &vcpu->x87.rip, 8);
		memcpy(state->xsave + XSAVE_POINTERS + 10, &data, 8);
	}
	memset(state->xsave + 416, 0, 96);
	if (used & 4)
		memcpy(state->xsave + vcpu_xsave_parts[2].offset,
		       vcpu->xsave + vcpu_xsave_parts[2].offset, vcpu_xsave_parts[2].size);
	memcpy(state->xsave + XSAVE_HEADER, &used, sizeof(used));
	vcpu_state_trim_extended(state);
	state->x87_cs = state->xsave[XSAVE_HEADER] & 1 ? vcpu->x87.cs : 0;
}

/* The bits of MXCSR that this CPU has: one that it has not ends the process when it is loaded. */
static uint32_t host_mxcsr_mask(void)
{
	_Alignas(16) uint8_t image[512] = { 0 };
	uint32_t mask;

	__asm__ volatile("fxsave64 %0" : "=m"(image));
	memcpy(&mask, image + XSAVE_MXCSR + 4, sizeof(mask));
	return mask ? mask : 0xffbf; /* SDM vol. 1, 11.6.6 */
}

int soft_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	uint64_t used, offered = cpuid_xcr0(&vcpu->engine->cpuid) | 3;
	const char *why;
	uint32_t mxcsr;

	memcpy(&used, state->xsave + XSAVE_HEADER, sizeof(used));
	memcpy(&mxcsr, state->xsave + XSAVE_MXCSR, sizeof(mxcsr));
	if (vcpu_state_check(state, &why) || ((state->xcr0 | used) & ~(offered & XSAVE_PARTS)))
		return -EINVAL;
	if ((state->cr4 & ~vcpu->engine->offer->cr4) ||
	    (state->efer & ~(EFER_WRITABLE | EFER_LMA)) || (mxcsr & ~host_mxcsr_mask()))
		return -EINVAL;
	vcpu->state = *state;
	memcpy(vcpu->gpr, state->gpr, sizeof(vcpu->gpr));
	vcpu->rip = state->rip;
	vcpu->shadow = state->interrupt_shadow;
	vcpu->debug_hits = 0;
	vcpu->debug_held = state->debug_held;
	vcpu->io_answered = 0;
	vcpu->debug_pending = vcpu->kick_after = vcpu->iret_done = vcpu->answered = false;
	vcpu->open = OPEN_NONE;
	vcpu->exit = NULL;
	vcpu->has_stashed = false;
	vcpu->device_count = 0;
	vcpu->task.due = false;
	vcpu->fs_base = state->segment[SEG_FS].base;
	vcpu->gs_base = state->segment[SEG_GS].base;
	vcpu->cpl = state->cr0 & CR0_PE ? ATTRIBUTE_DPL(state->segment[SEG_SS].attributes) : 0;
	/* Outside long mode a stack is unusable only where a task has begun badly. */
	if (state->segment[SEG_SS].unusable && (state->efer & EFER_LMA))
		vcpu->cpl = state->segment[SEG_CS].selector & 3;
	load_extended(vcpu, state);
	/* Whoever has paused the other vCPUs may change their tables, too: not at the same time. */
	soft_run_begin(vcpu);
	soft_tlb_flush(vcpu, true);
	soft_set_rflags(vcpu, state->rflags);
	soft_run_end(vcpu);
	return 0;
}

int soft_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	struct lapic_state lapic = state->lapic;
	uint8_t run_state = state->run_state;
	int err = soft_vcpu_finish_exit(vcpu);

	if (err)
		return err;
	*state = vcpu->state;
	state->lapic = lapic;
	state->run_state = run_state;
	memcpy(state->gpr, vcpu->gpr, sizeof(vcpu->gpr));
	state->rip = vcpu->rip;
	state->rflags = soft_rflags(vcpu);
	state->interrupt_shadow = vcpu->shadow;
	state->debug_held = (uint16_t)vcpu->debug_held;
	/* Behind an exception that waits it would be lost; but rather it than that. */
	if (vcpu->debug_pending && !state->exception_pending) {
		state->exception_pending = 1;
		state->exception_vector = VECTOR_DB;
		state->exception_has_error_code = 0;
		state->exception_has_payload = 1;
		state->exception_payload = vcpu->debug_hits;
	}
	/* PAE's first entries are read at every walk: whoever keeps copies of them reads them anew.
	 */
	memset(state->pdptr, 0, sizeof(state->pdptr));
	state->pdptr_valid = 0;
	save_extended(vcpu, state);
	return 0;
}
