/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts, NMIs and pending exceptions: what the caller injects, and what is delivered next. */
#include "engine/soft/run/run.h"

#include <errno.h>

#include "engine/soft/cpu/exception.h"

bool soft_takes_interrupts(const struct engine_vcpu *vcpu)
{
	const struct vcpu_state *state = &vcpu->state;

	return vcpu->interrupts_on && !vcpu->shadow && !vcpu->task.due &&
	       !state->interrupt_injected && !state->exception_pending &&
	       !state->exception_injected && !state->nmi_injected && !vcpu->debug_pending &&
	       !(state->nmi_pending && !state->nmi_masked);
}

bool soft_vcpu_can_interrupt(struct engine_vcpu *vcpu)
{
	const struct engine_exit *exit = vcpu->exit;
	bool msr = vcpu->open == OPEN_MSR_READ || vcpu->open == OPEN_MSR_WRITE;
	/* What is under way ends with a trap, which comes first; its handler then has IF clear. */
	bool traps = vcpu->open != OPEN_NONE &&
		     ((vcpu->system_flags & FLAG_TF) || (vcpu->state.dr7 & 0xff));
	/* A kick may have come between the answer and what it is for. */
	bool faults = msr && (exit ? exit->msr.fault : vcpu->pending.msr.fault);

	return soft_takes_interrupts(vcpu) && !faults && !traps && !vcpu->has_stashed;
}

int soft_vcpu_interrupt(struct engine_vcpu *vcpu, uint8_t vector)
{
	if (!soft_vcpu_can_interrupt(vcpu))
		return -EBUSY;
	vcpu->state.interrupt_injected = 1;
	vcpu->state.interrupt_vector = vector;
	return 0;
}

int soft_vcpu_nmi(struct engine_vcpu *vcpu)
{
	/* One is kept while NMIs are masked; else one may come in the other's handler. */
	uint8_t most = vcpu->state.nmi_masked || vcpu->state.nmi_injected ? 1 : 2;

	if (vcpu->state.nmi_pending < most)
		vcpu->state.nmi_pending++;
	return 0;
}

void soft_vcpu_want_window(struct engine_vcpu *vcpu, bool want)
{
	vcpu->window_wanted = want;
}

static int deliver_exception(struct engine_vcpu *vcpu)
{
	struct vcpu_state *state = &vcpu->state;
	int err;

	vcpu->fault = (struct soft_fault){ .vector = state->exception_vector,
					   .has_error = state->exception_has_error_code,
					   .trap = state->exception_vector == VECTOR_DB,
					   .error = state->exception_error_code,
					   .cr2 = state->cr2 };
	if (state->exception_has_payload && state->exception_vector == VECTOR_PF)
		vcpu->fault.cr2 = state->exception_payload;
	if (state->exception_has_payload && state->exception_vector == VECTOR_DB)
		vcpu->fault.dr6 = state->exception_payload;
	err = soft_deliver_fault(vcpu);
	state->exception_pending = state->exception_injected = 0;
	state->exception_has_payload = 0;
	return err;
}

static int deliver_injected(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
			    uint8_t *flag)
{
	int err = soft_deliver(vcpu, vector, event, false, 0, vcpu->rip);

	if (err == SOFT_FAULT)
		err = soft_deliver_fault(vcpu);
	/* Not before: a signal may break its fault's delivery off, and then it begins anew. */
	*flag = 0;
	return err;
}

static int deliver_nmi(struct engine_vcpu *vcpu)
{
	vcpu->state.nmi_pending--;
	vcpu->state.nmi_masked = 1;
	vcpu->state.nmi_injected = 1;
	return SOFT_OK;
}

int soft_deliver_events(struct engine_vcpu *vcpu)
{
	struct vcpu_state *state = &vcpu->state;
	int err;

	if (state->exception_pending || state->exception_injected)
		return deliver_exception(vcpu);
	if (vcpu->debug_pending) {
		vcpu->fault = (struct soft_fault){ .vector = VECTOR_DB,
						   .trap = 1,
						   .dr6 = vcpu->debug_hits };
		err = soft_deliver_fault(vcpu);
		/* Not before: a signal may break the delivery off, and the trap is still due. */
		vcpu->debug_pending = false;
		return err;
	}
	/*
	 * One that has been injected waits, too: a load of SS from a device may have ended since. What
	 * that has held back must not be left behind by it.
	 */
	if (vcpu->shadow)
		return SOFT_OK;
	if (state->nmi_pending && !state->nmi_masked && !state->nmi_injected)
		deliver_nmi(vcpu);
	if (state->nmi_injected)
		return deliver_injected(vcpu, VECTOR_NMI, EVENT_INTERRUPT, &state->nmi_injected);
	if (state->interrupt_injected)
		return deliver_injected(vcpu, state->interrupt_vector, EVENT_INTERRUPT,
					&state->interrupt_injected);
	return SOFT_OK;
}
