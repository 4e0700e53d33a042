/* SPDX-License-Identifier: Apache-2.0 */
/* See new_stack.h. The TSS: SDM vol. 3, 7.2.1 and 7.7; APM vol. 2, 12.2.5 and 12.3.2. */
#include "engine/soft/cpu/new_stack.h"

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/segment.h"

#define TSS_32_BIT 8u /* of the type: else it is a 16-bit TSS */

int soft_tss_rsp(struct engine_vcpu *vcpu, uint8_t ist, uint8_t cpl, uint64_t *ret_rsp)
{
	const struct vcpu_segment_state *tr = &vcpu->state.segment[SEG_TR];
	uint32_t offset = ist ? 28 + 8u * ist : 4 + 8u * cpl;

	if (offset + 7 > tr->limit)
		return soft_raise_error(vcpu, VECTOR_TS, tr->selector & 0xfffcu);
	return soft_read(vcpu, VIEW_KERNEL, tr->base + offset, ret_rsp, 8);
}

/* SS:ESP or SS:SP of the TSS of protected mode. */
static int tss_pointer(struct engine_vcpu *vcpu, uint8_t cpl, uint64_t *ret_esp, uint64_t *ret_ss)
{
	const struct vcpu_segment_state *tr = &vcpu->state.segment[SEG_TR];
	uint32_t bytes = tr->attributes & TSS_32_BIT ? 4 : 2;
	uint32_t offset = bytes + 2 * bytes * cpl;
	int err;

	if (offset + bytes + 1 > tr->limit)
		return soft_raise_error(vcpu, VECTOR_TS, tr->selector & 0xfffcu);
	err = soft_read(vcpu, VIEW_KERNEL, tr->base + offset, ret_esp, bytes);
	if (!err)
		err = soft_read(vcpu, VIEW_KERNEL, tr->base + offset + bytes, ret_ss, 2);
	return err;
}

void soft_new_stack_present(const struct engine_vcpu *vcpu, struct soft_new_stack *ret_stack)
{
	*ret_stack = (struct soft_new_stack){
		.segment = vcpu->state.segment[SEG_SS],
		.top = vcpu->gpr[GPR_RSP],
		.cpl = vcpu->cpl,
	};
}

int soft_new_stack_inner(struct engine_vcpu *vcpu, uint8_t cpl, struct soft_new_stack *ret_stack)
{
	struct soft_new_stack stack = { .cpl = cpl };
	uint64_t ss = 0;
	int err;

	if (soft_long_mode(vcpu)) {
		err = soft_tss_rsp(vcpu, 0, cpl, &stack.top);
		soft_segment_null(&stack.segment, cpl);
	} else {
		err = tss_pointer(vcpu, cpl, &stack.top, &ss);
		if (!err)
			err = soft_segment_inner_stack(vcpu, (uint16_t)ss, cpl, &stack.segment);
	}
	if (!err)
		*ret_stack = stack;
	return err;
}

/* Where a push of so many bytes goes, and what RSP is then. */
static int next_word(struct engine_vcpu *vcpu, const struct soft_new_stack *stack, uint32_t bytes,
		     uint64_t *ret_top, uint64_t *ret_linear)
{
	bool inner = stack->cpl != vcpu->cpl;
	uint64_t mask = stack->segment.attributes & ATTRIBUTE_BIG ? 0xffffffff : 0xffff;
	uint64_t offset = (stack->top - bytes) & mask;

	if (soft_long_mode(vcpu)) {
		*ret_top = *ret_linear = stack->top - bytes;
		return soft_is_canonical(*ret_top) ? SOFT_OK : soft_raise_error(vcpu, VECTOR_SS, 0);
	}
	if (!soft_segment_allows(&stack->segment, offset, bytes, true))
		return soft_raise_error(vcpu, VECTOR_SS,
					inner ? stack->segment.selector & 0xfffcu : 0);
	*ret_top = (stack->top & ~mask & 0xffffffff) | offset;
	*ret_linear = (stack->segment.base + offset) & 0xffffffff;
	return SOFT_OK;
}

int soft_new_stack_push(struct engine_vcpu *vcpu, struct soft_new_stack *stack,
			const uint64_t *words, uint32_t count, uint32_t bytes)
{
	enum soft_view view = stack->cpl == vcpu->cpl ? (enum soft_view)vcpu->view : VIEW_KERNEL;
	uint64_t linear = 0;
	int err = SOFT_OK;

	for (uint32_t i = 0; i < count && !err; i++) {
		err = next_word(vcpu, stack, bytes, &stack->top, &linear);
		if (!err)
			err = soft_write(vcpu, view, linear, &words[i], bytes);
	}
	return err;
}

void soft_new_stack_enter(struct engine_vcpu *vcpu, const struct soft_new_stack *stack)
{
	vcpu->state.segment[SEG_SS] = stack->segment;
	vcpu->gpr[GPR_RSP] = stack->top;
	vcpu->cpl = stack->cpl;
}
