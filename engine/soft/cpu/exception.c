/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and interrupts: raising them, and their delivery through the IDT (SDM vol. 3, 6).
 *
 * Delivery reads and checks everything first, writes the frame, and changes registers last: an
 * access that waits for a page may break it off anywhere, and it starts anew.
 *
 * Protected mode without long mode is in exception_protected.c.
 */
#include "engine/soft/cpu/new_stack.h"

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mode.h"
#include "engine/soft/cpu/segment.h"

#define GATE_PRESENT   0x80u
#define GATE_INTERRUPT 14u
#define GATE_TRAP      15u
#define ERROR_EXTERNAL 1u
#define FRAMES_MAX     3 /* a fault, a double fault, shutdown */

int soft_raise(struct engine_vcpu *vcpu, uint8_t vector)
{
	vcpu->fault = (struct soft_fault){ .vector = vector };
	return SOFT_FAULT;
}

int soft_raise_error(struct engine_vcpu *vcpu, uint8_t vector, uint32_t error)
{
	vcpu->fault = (struct soft_fault){ .vector = vector, .has_error = 1, .error = error };
	return SOFT_FAULT;
}

int soft_raise_page_fault(struct engine_vcpu *vcpu, uint64_t linear, uint32_t error)
{
	vcpu->fault = (struct soft_fault){
		.vector = VECTOR_PF, .has_error = 1, .error = error, .cr2 = linear
	};
	return SOFT_FAULT;
}

struct gate {
	uint64_t offset;
	uint16_t selector;
	uint8_t ist, type, dpl;
};

static int read_gate(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
		     struct gate *ret_gate)
{
	uint32_t error = vector * 8u + ERROR_IDT;
	const struct vcpu_table_state *idt = &vcpu->state.idt;
	uint64_t low = 0, high = 0;
	int err;

	if (vector * 16u + 15 > idt->limit)
		return soft_raise_error(vcpu, VECTOR_GP, error);
	err = soft_read(vcpu, VIEW_KERNEL, idt->base + vector * 16u, &low, 8);
	if (!err)
		err = soft_read(vcpu, VIEW_KERNEL, idt->base + vector * 16u + 8, &high, 8);
	if (err)
		return err;
	*ret_gate = (struct gate){
		.offset = (low & 0xffff) | (low >> 48 << 16) | high << 32,
		.selector = (uint16_t)(low >> 16),
		.ist = low >> 32 & 7,
		.type = low >> 40 & 0x1f,
		.dpl = low >> 45 & 3,
	};
	if ((ret_gate->type != GATE_INTERRUPT && ret_gate->type != GATE_TRAP) ||
	    (event == EVENT_SOFT && ret_gate->dpl < vcpu->cpl))
		return soft_raise_error(vcpu, VECTOR_GP, error);
	if (!(low >> 40 & GATE_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, error);
	return SOFT_OK;
}

/* Pushes a frame, which is in memory's order. A fault is that of the first push: the highest. */
static int push_frame(struct engine_vcpu *vcpu, enum soft_view view, uint64_t rsp,
		      const uint64_t *frame, uint32_t count)
{
	int err = soft_write(vcpu, view, rsp, frame, 8 * count);

	for (uint32_t i = count; err == SOFT_FAULT && i > 0; i--)
		if (soft_probe_write(vcpu, view, rsp + 8 * (i - 1), 8) == SOFT_FAULT)
			return SOFT_FAULT;
	return err;
}

static int deliver_long(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
			bool has_error, uint32_t error, uint64_t return_rip)
{
	struct vcpu_segment_state *segment = vcpu->state.segment, code;
	uint64_t frame[6], rsp = vcpu->gpr[GPR_RSP], flags = soft_rflags(vcpu);
	uint32_t count = 0;
	struct gate gate = { 0 };
	uint8_t cpl;
	int err = read_gate(vcpu, vector, event, &gate);

	if (!err)
		err = soft_segment_code(vcpu, gate.selector, SEGMENT_BY_GATE, &code, &cpl);
	if (err)
		return err;
	if (gate.ist || cpl != vcpu->cpl)
		err = soft_tss_rsp(vcpu, gate.ist, cpl, &rsp);
	if (err)
		return err;
	rsp &= ~15ull;
	if (has_error)
		frame[count++] = error;
	frame[count++] = return_rip;
	frame[count++] = segment[SEG_CS].selector;
	frame[count++] = flags | (event == EVENT_EXCEPTION ? vcpu->resume_flag : 0);
	frame[count++] = vcpu->gpr[GPR_RSP];
	frame[count++] = segment[SEG_SS].selector;
	if (!soft_is_canonical(rsp - 8) || !soft_is_canonical(rsp - 8ull * count))
		return soft_raise_error(vcpu, VECTOR_SS, 0);
	if (!soft_is_canonical(gate.offset))
		return soft_raise_error(vcpu, VECTOR_GP, 0);
	rsp -= 8ull * count;
	err = push_frame(vcpu, cpl == 3 ? VIEW_USER : VIEW_KERNEL, rsp, frame, count);
	if (err)
		return err;
	if (cpl != vcpu->cpl)
		soft_segment_null(&segment[SEG_SS], cpl);
	segment[SEG_CS] = code;
	vcpu->gpr[GPR_RSP] = rsp;
	vcpu->rip = gate.offset;
	vcpu->cpl = cpl;
	flags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	if (gate.type == GATE_INTERRUPT)
		flags &= ~FLAG_IF;
	soft_set_rflags(vcpu, flags);
	return SOFT_OK;
}

static int deliver_real(struct engine_vcpu *vcpu, uint8_t vector, uint64_t return_rip)
{
	struct vcpu_segment_state *segment = vcpu->state.segment;
	const struct vcpu_table_state *idt = &vcpu->state.idt;
	uint16_t sp = (uint16_t)(vcpu->gpr[GPR_RSP] - 6);
	uint16_t frame[3] = { (uint16_t)return_rip, segment[SEG_CS].selector,
			      (uint16_t)soft_rflags(vcpu) };
	uint32_t entry = 0;
	int err;

	if (vector * 4u + 3 > idt->limit)
		return soft_raise_error(vcpu, VECTOR_GP, vector * 8u + ERROR_IDT);
	err = soft_read(vcpu, VIEW_KERNEL, idt->base + vector * 4u, &entry, 4);
	if (!err)
		err = soft_write(vcpu, VIEW_KERNEL, segment[SEG_SS].base + sp, frame, 6);
	if (err)
		return err;
	vcpu->gpr[GPR_RSP] = (vcpu->gpr[GPR_RSP] & ~0xffffull) | sp;
	segment[SEG_CS].selector = (uint16_t)(entry >> 16);
	segment[SEG_CS].base = (uint64_t)(entry >> 16) << 4;
	vcpu->rip = entry & 0xffff;
	soft_set_rflags(vcpu, soft_rflags(vcpu) & ~(FLAG_IF | FLAG_TF | FLAG_AC));
	return SOFT_OK;
}

/* Its error code is a selector, or an entry of the IDT, and EXT (SDM vol. 3, 6.13). */
static bool is_selectors(uint8_t vector)
{
	return vector >= VECTOR_TS && vector <= VECTOR_GP;
}

int soft_deliver(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event, bool has_error,
		 uint32_t error, uint64_t return_rip)
{
	int err;

	if (soft_long_mode(vcpu)) {
		err = deliver_long(vcpu, vector, event, has_error, error, return_rip);
	} else if (soft_real_mode(vcpu)) {
		err = deliver_real(vcpu, vector, return_rip);
	} else {
		err = soft_deliver_protected(vcpu, vector, event, has_error, error, return_rip);
	}
	if (err == SOFT_FAULT && event != EVENT_SOFT && is_selectors(vcpu->fault.vector))
		vcpu->fault.error |= ERROR_EXTERNAL;
	if (err)
		return err;
	vcpu->shadow = 0;
	if (event == EVENT_EXCEPTION)
		vcpu->debug_held = 0;
	soft_update_mode(vcpu);
	return SOFT_OK;
}

void soft_keep_fault(struct engine_vcpu *vcpu, bool external)
{
	const struct soft_fault *fault = &vcpu->fault;
	struct vcpu_state *state = &vcpu->state;

	state->exception_pending = 1;
	state->exception_vector = fault->vector;
	state->exception_has_error_code = fault->has_error;
	state->exception_error_code =
		fault->error | (external && is_selectors(fault->vector) ? ERROR_EXTERNAL : 0);
	state->exception_has_payload = fault->vector == VECTOR_PF;
	state->exception_payload = fault->cr2;
}

static bool is_contributory(uint8_t vector)
{
	return vector == VECTOR_DE || is_selectors(vector);
}

/* What faults leave in CR2 and the debug registers. */
struct payload {
	uint64_t cr2, dr6, dr7;
};

static void add_payload(struct payload *payload, const struct soft_fault *fault)
{
	if (fault->vector == VECTOR_PF)
		payload->cr2 = fault->cr2;
	if (fault->vector == VECTOR_DB) {
		payload->dr6 = (payload->dr6 & ~0xfull) | fault->dr6;
		payload->dr7 &= ~BIT64(13);
	}
}

/* The second fault while the first is delivered (SDM vol. 3, table 6-5). False: shutdown. */
static bool combine(struct engine_vcpu *vcpu, const struct soft_fault *first,
		    struct payload *payload)
{
	struct soft_fault *second = &vcpu->fault;
	bool doubled = (is_contributory(first->vector) && is_contributory(second->vector)) ||
		       (first->vector == VECTOR_PF &&
			(is_contributory(second->vector) || second->vector == VECTOR_PF));

	if (first->vector == VECTOR_DF)
		return false;
	if (second->vector == VECTOR_PF)
		payload->cr2 = second->cr2; /* even if it becomes a double fault */
	if (doubled)
		*second = (struct soft_fault){ .vector = VECTOR_DF, .has_error = 1 };
	return true;
}

/* Only once it is through: a signal may break it off, and what has faulted then begins anew. */
static void take_payload(struct engine_vcpu *vcpu, const struct payload *payload)
{
	struct vcpu_state *state = &vcpu->state;

	state->cr2 = payload->cr2;
	state->dr6 = payload->dr6;
	state->dr7 &= payload->dr7; /* a switch of tasks takes bits of its own */
}

int soft_deliver_fault(struct engine_vcpu *vcpu)
{
	struct payload payload = { vcpu->state.cr2, vcpu->state.dr6, vcpu->state.dr7 };
	struct soft_fault fault = vcpu->fault;

	for (int i = 0; i < FRAMES_MAX; i++) {
		int err;

		add_payload(&payload, &fault);
		vcpu->resume_flag = fault.trap ? 0 : FLAG_RF;
		err = soft_deliver(vcpu, fault.vector, EVENT_EXCEPTION, fault.has_error,
				   fault.error, vcpu->rip);
		if (err == SOFT_OK)
			take_payload(vcpu, &payload);
		if (err != SOFT_FAULT)
			return err;
		if (!combine(vcpu, &fault, &payload))
			break;
		fault = vcpu->fault;
	}
	take_payload(vcpu, &payload);
	vcpu->pending.kind = EXIT_SHUTDOWN;
	return SOFT_EXIT;
}
