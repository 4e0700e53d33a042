/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading segment registers: real mode, descriptors, and what long mode has left of them.
 *
 * Left out: setting the accessed bit where the descriptor table is read-only to the guest.
 */
#include "engine/soft/cpu/segment.h"

#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/mode.h"

#define SELECTOR_LDT	    4u
#define SELECTOR_INDEX	    0xfff8u
#define TYPE_CODE	    8u
#define TYPE_CONFORM	    4u
#define TYPE_WRITABLE	    2u
#define TYPE_ACCESSED	    1u
#define TYPE_EXPAND_DOWN    4u
#define TYPE_LDT	    2u
#define TYPE_TSS_16	    1u /* not in long mode */
#define TYPE_TSS	    9u
#define ATTRIBUTES_8086	    0xf3u /* data for all levels, present */
#define DESCRIPTOR_ACCESSED BIT64(40)
#define DESCRIPTOR_BUSY	    BIT64(41)

void soft_segment_decode(uint16_t selector, uint64_t descriptor,
			 struct vcpu_segment_state *ret_segment)
{
	uint32_t limit = (uint32_t)((descriptor & 0xffff) | (descriptor >> 32 & 0xf0000));
	uint16_t attributes = (uint16_t)(descriptor >> 40 & 0xf0ff);

	if (attributes & ATTRIBUTE_GRAN)
		limit = limit << 12 | 0xfff;
	*ret_segment = (struct vcpu_segment_state){
		.base = (descriptor >> 16 & 0xffffff) | (descriptor >> 56 << 24),
		.limit = limit,
		.selector = selector,
		.attributes = attributes,
	};
}

void soft_segment_null(struct vcpu_segment_state *segment, uint16_t selector)
{
	uint64_t base = segment->base;

	*segment = (struct vcpu_segment_state){
		.base = base,
		.selector = selector,
		.attributes = (uint16_t)((selector & 3) << 5),
		.unusable = 1,
	};
}

bool soft_segment_allows(const struct vcpu_segment_state *segment, uint64_t offset, uint32_t bytes,
			 bool write)
{
	uint64_t last = offset + (bytes ? bytes - 1 : 0);
	bool code = segment->attributes & TYPE_CODE, second = segment->attributes & TYPE_WRITABLE;

	if (segment->unusable || (write && (code || !second)) || (!write && code && !second))
		return false;
	if (!code && (segment->attributes & TYPE_EXPAND_DOWN))
		return offset > segment->limit &&
		       last <= (segment->attributes & ATTRIBUTE_BIG ? 0xffffffff : 0xffff);
	return last <= segment->limit;
}

int soft_segment_reaches(struct engine_vcpu *vcpu, const struct vcpu_segment_state *code,
			 uint64_t offset)
{
	bool wide = soft_long_mode(vcpu) && (code->attributes & ATTRIBUTE_LONG);

	if (wide ? soft_is_canonical(offset) : offset <= code->limit)
		return SOFT_OK;
	return soft_raise_error(vcpu, VECTOR_GP, 0);
}

static uint64_t table_address(const struct engine_vcpu *vcpu, uint16_t selector, uint32_t bytes)
{
	const struct vcpu_segment_state *ldt = &vcpu->state.segment[SEG_LDTR];
	uint32_t offset = selector & SELECTOR_INDEX;

	if (selector & SELECTOR_LDT)
		return ldt->unusable || offset + bytes - 1 > ldt->limit ? UINT64_MAX
									: ldt->base + offset;
	return offset + bytes - 1 > vcpu->state.gdt.limit ? UINT64_MAX
							  : vcpu->state.gdt.base + offset;
}

int soft_segment_descriptor(struct engine_vcpu *vcpu, uint16_t selector, uint64_t *ret_descriptor,
			    bool *ret_found)
{
	uint64_t address = table_address(vcpu, selector, 8);

	*ret_found = address != UINT64_MAX && (selector & ~3u);
	if (!*ret_found)
		return SOFT_OK;
	return soft_read(vcpu, VIEW_KERNEL, address, ret_descriptor, 8);
}

int soft_segment_descriptor_high(struct engine_vcpu *vcpu, uint16_t selector, uint64_t *ret_high)
{
	uint64_t address = table_address(vcpu, selector, 16);

	if (address == UINT64_MAX)
		return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	return soft_read(vcpu, VIEW_KERNEL, address + 8, ret_high, 8);
}

/* The segment, or `bad` with the selector if there is none. */
static int need_segment(struct engine_vcpu *vcpu, uint16_t selector, enum soft_vector bad,
			uint64_t *ret_descriptor, struct vcpu_segment_state *ret_segment)
{
	bool found;
	int err = soft_segment_descriptor(vcpu, selector, ret_descriptor, &found);

	if (err)
		return err;
	if (!found)
		return soft_raise_error(vcpu, bad, selector & 0xfffcu);
	soft_segment_decode(selector, *ret_descriptor, ret_segment);
	return SOFT_OK;
}

static int mark(struct engine_vcpu *vcpu, uint16_t selector, uint64_t descriptor, uint64_t bit)
{
	uint64_t changed = descriptor | bit;

	if (changed == descriptor)
		return SOFT_OK;
	return soft_write(vcpu, VIEW_KERNEL, table_address(vcpu, selector, 8), &changed, 8);
}

static void settle(struct engine_vcpu *vcpu, enum vcpu_segment which,
		   const struct vcpu_segment_state *segment)
{
	vcpu->state.segment[which] = *segment;
	if (which == SEG_FS)
		vcpu->fs_base = segment->base;
	if (which == SEG_GS)
		vcpu->gs_base = segment->base;
	soft_update_mode(vcpu);
}

void soft_segment_set_base(struct engine_vcpu *vcpu, enum vcpu_segment which, uint64_t base)
{
	vcpu->state.segment[which].base = base;
	if (which == SEG_FS)
		vcpu->fs_base = base;
	if (which == SEG_GS)
		vcpu->gs_base = base;
}

void soft_segment_8086(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector)
{
	const struct vcpu_segment_state segment = {
		.selector = selector,
		.base = (uint64_t)selector << 4,
		.limit = 0xffff,
		.attributes = ATTRIBUTES_8086,
	};

	settle(vcpu, which, &segment);
}

/* Limit and attributes stay; in virtual-8086 mode they are always the same. */
static int load_8086(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector)
{
	struct vcpu_segment_state segment = vcpu->state.segment[which];

	segment.selector = selector;
	segment.base = (uint64_t)selector << 4;
	settle(vcpu, which, &segment);
	return SOFT_OK;
}

static int stack_segment(struct engine_vcpu *vcpu, uint16_t selector, uint8_t cpl,
			 enum soft_vector bad, struct vcpu_segment_state *ret_segment)
{
	uint64_t descriptor = 0;
	uint16_t attributes;
	int err = need_segment(vcpu, selector, bad, &descriptor, ret_segment);

	if (err)
		return err;
	attributes = ret_segment->attributes;
	if ((selector & 3) != cpl || ATTRIBUTE_DPL(attributes) != cpl ||
	    !(attributes & ATTRIBUTE_S) || (attributes & TYPE_CODE) ||
	    !(attributes & TYPE_WRITABLE))
		return soft_raise_error(vcpu, bad, selector & 0xfffcu);
	if (!(attributes & ATTRIBUTE_PRESENT))
		return soft_raise_error(vcpu, VECTOR_SS, selector & 0xfffcu);
	ret_segment->attributes |= TYPE_ACCESSED;
	return mark(vcpu, selector, descriptor, DESCRIPTOR_ACCESSED);
}

int soft_segment_stack(struct engine_vcpu *vcpu, uint16_t selector, uint8_t cpl,
		       struct vcpu_segment_state *ret_segment)
{
	return stack_segment(vcpu, selector, cpl, VECTOR_GP, ret_segment);
}

int soft_segment_inner_stack(struct engine_vcpu *vcpu, uint16_t selector, uint8_t cpl,
			     struct vcpu_segment_state *ret_segment)
{
	return stack_segment(vcpu, selector, cpl, VECTOR_TS, ret_segment);
}

static int load_data(struct engine_vcpu *vcpu, uint16_t selector, enum soft_vector bad,
		     struct vcpu_segment_state *ret_segment)
{
	uint64_t descriptor = 0;
	uint16_t attributes;
	int err = need_segment(vcpu, selector, bad, &descriptor, ret_segment);

	if (err)
		return err;
	attributes = ret_segment->attributes;
	if (!(attributes & ATTRIBUTE_S) ||
	    ((attributes & TYPE_CODE) && !(attributes & TYPE_WRITABLE)))
		return soft_raise_error(vcpu, bad, selector & 0xfffcu);
	if (!((attributes & TYPE_CODE) && (attributes & TYPE_CONFORM)) &&
	    (ATTRIBUTE_DPL(attributes) < vcpu->cpl || ATTRIBUTE_DPL(attributes) < (selector & 3u)))
		return soft_raise_error(vcpu, bad, selector & 0xfffcu);
	if (!(attributes & ATTRIBUTE_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, selector & 0xfffcu);
	ret_segment->attributes |= TYPE_ACCESSED;
	return mark(vcpu, selector, descriptor, DESCRIPTOR_ACCESSED);
}

int soft_segment_load(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector)
{
	struct vcpu_segment_state segment = { 0 };
	bool amd_clears = which != SEG_SS;
	int err;

	if (soft_8086(vcpu))
		return load_8086(vcpu, which, selector);
	if (!(selector & ~3u)) {
		if (which == SEG_SS &&
		    (!soft_code64(vcpu) || vcpu->cpl == 3 || (selector & 3) != vcpu->cpl))
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		soft_segment_null(&segment, selector);
		if (amd_clears)
			segment.base = 0;
		settle(vcpu, which, &segment);
		return SOFT_OK;
	}
	if (which == SEG_SS)
		err = soft_segment_stack(vcpu, selector, vcpu->cpl, &segment);
	else
		err = load_data(vcpu, selector, VECTOR_GP, &segment);
	if (err)
		return err;
	settle(vcpu, which, &segment);
	return SOFT_OK;
}

void soft_segment_leave(struct engine_vcpu *vcpu, uint8_t cpl)
{
	static const enum vcpu_segment data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
		struct vcpu_segment_state *segment = &vcpu->state.segment[data[i]];
		bool conforming = (segment->attributes & (TYPE_CODE | TYPE_CONFORM)) ==
				  (TYPE_CODE | TYPE_CONFORM);

		if (!segment->unusable && !conforming && ATTRIBUTE_DPL(segment->attributes) < cpl)
			soft_segment_null(segment, 0);
	}
}

static uint8_t code_level(const struct engine_vcpu *vcpu, uint16_t selector, uint16_t attributes,
			  enum soft_segment_use use)
{
	uint8_t dpl = ATTRIBUTE_DPL(attributes);

	if (use == SEGMENT_BY_RETURN || use == SEGMENT_BY_TASK)
		return selector & 3;
	if (use == SEGMENT_BY_GATE)
		return attributes & TYPE_CONFORM ? vcpu->cpl : dpl;
	return vcpu->cpl;
}

static bool code_allowed(const struct engine_vcpu *vcpu, uint16_t selector, uint16_t attributes,
			 enum soft_segment_use use)
{
	uint8_t dpl = ATTRIBUTE_DPL(attributes), rpl = selector & 3;

	if (!(attributes & ATTRIBUTE_S) || !(attributes & TYPE_CODE))
		return false;
	switch (use) {
	case SEGMENT_BY_GATE_JUMP:
		return attributes & TYPE_CONFORM ? dpl <= vcpu->cpl : dpl == vcpu->cpl;
	case SEGMENT_BY_JUMP:
		return attributes & TYPE_CONFORM ? dpl <= vcpu->cpl
						 : dpl == vcpu->cpl && rpl <= vcpu->cpl;
	case SEGMENT_BY_TASK:
		return attributes & TYPE_CONFORM ? dpl <= rpl : dpl == rpl;
	case SEGMENT_BY_RETURN:
		return rpl >= vcpu->cpl && (attributes & TYPE_CONFORM ? dpl <= rpl : dpl == rpl);
	default:
		return dpl <= vcpu->cpl;
	}
}

int soft_segment_code(struct engine_vcpu *vcpu, uint16_t selector, enum soft_segment_use use,
		      struct vcpu_segment_state *ret_segment, uint8_t *ret_cpl)
{
	struct vcpu_segment_state segment;
	enum soft_vector bad = use == SEGMENT_BY_TASK ? VECTOR_TS : VECTOR_GP;
	uint64_t descriptor = 0;
	int err = need_segment(vcpu, selector, bad, &descriptor, &segment);

	if (err)
		return err;
	if (!code_allowed(vcpu, selector, segment.attributes, use))
		return soft_raise_error(vcpu, bad, selector & 0xfffcu);
	if (!(segment.attributes & ATTRIBUTE_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, selector & 0xfffcu);
	if ((segment.attributes & ATTRIBUTE_LONG) && (segment.attributes & ATTRIBUTE_BIG) &&
	    soft_long_mode(vcpu))
		return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	if ((use == SEGMENT_BY_GATE || use == SEGMENT_BY_GATE_JUMP) && soft_long_mode(vcpu) &&
	    !(segment.attributes & ATTRIBUTE_LONG))
		return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	*ret_cpl = code_level(vcpu, selector, segment.attributes, use);
	segment.selector = (uint16_t)((selector & ~3u) | *ret_cpl);
	segment.attributes |= TYPE_ACCESSED;
	err = mark(vcpu, selector, descriptor, DESCRIPTOR_ACCESSED);
	if (!err)
		*ret_segment = segment;
	return err;
}

/* Unlike LLDT, one that is absent is #TS as well (SDM vol. 3, table 7-1). */
static int task_ldt(struct engine_vcpu *vcpu, uint16_t selector,
		    struct vcpu_segment_state *ret_segment)
{
	uint64_t descriptor = 0;
	int err;

	*ret_segment = (struct vcpu_segment_state){ .selector = selector, .unusable = 1 };
	if (!(selector & ~3u))
		return SOFT_OK;
	if (selector & SELECTOR_LDT)
		return soft_raise_error(vcpu, VECTOR_TS, selector & 0xfffcu);
	err = need_segment(vcpu, selector, VECTOR_TS, &descriptor, ret_segment);
	if (!err &&
	    (ret_segment->attributes & (ATTRIBUTE_TYPE | ATTRIBUTE_S | ATTRIBUTE_PRESENT)) !=
		    (TYPE_LDT | ATTRIBUTE_PRESENT))
		return soft_raise_error(vcpu, VECTOR_TS, selector & 0xfffcu);
	return err;
}

int soft_segment_of_task(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector)
{
	struct vcpu_segment_state segment = { 0 };
	uint8_t cpl;
	int err = SOFT_OK;

	switch (which) {
	case SEG_LDTR:
		err = task_ldt(vcpu, selector, &segment);
		break;
	case SEG_CS:
		err = soft_segment_code(vcpu, selector, SEGMENT_BY_TASK, &segment, &cpl);
		break;
	case SEG_SS:
		err = stack_segment(vcpu, selector, vcpu->state.segment[SEG_CS].selector & 3,
				    VECTOR_TS, &segment);
		break;
	default:
		if (selector & ~3u)
			err = load_data(vcpu, selector, VECTOR_TS, &segment);
		else
			soft_segment_null(&segment, selector);
		break;
	}
	if (!err)
		settle(vcpu, which, &segment);
	return err;
}

/* Not to be done twice: the second time it is busy. So a kick waits for it. */
static int mark_busy(struct engine_vcpu *vcpu, uint16_t selector, uint64_t descriptor)
{
	int err = soft_probe_write(vcpu, VIEW_KERNEL, table_address(vcpu, selector, 8), 8);

	if (err)
		return err;
	vcpu->committing = true;
	err = mark(vcpu, selector, descriptor, DESCRIPTOR_BUSY);
	vcpu->committing = false;
	return err;
}

int soft_segment_system(struct engine_vcpu *vcpu, enum vcpu_segment which, uint16_t selector)
{
	bool wide = soft_long_mode(vcpu);
	uint64_t address = table_address(vcpu, selector, wide ? 16 : 8), descriptor = 0, high = 0;
	struct vcpu_segment_state segment = { .selector = selector, .unusable = 1 };
	uint8_t type;
	int err;

	if (!(selector & ~3u)) {
		if (which == SEG_TR)
			return soft_raise_error(vcpu, VECTOR_GP, 0);
		settle(vcpu, which, &segment);
		return SOFT_OK;
	}
	if (address == UINT64_MAX || (selector & SELECTOR_LDT))
		return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	err = soft_read(vcpu, VIEW_KERNEL, address, &descriptor, 8);
	if (!err && wide)
		err = soft_read(vcpu, VIEW_KERNEL, address + 8, &high, 8);
	if (err)
		return err;
	soft_segment_decode(selector, descriptor, &segment);
	segment.base |= high << 32;
	type = segment.attributes & 0x1f;
	if (type != (which == SEG_TR ? TYPE_TSS : TYPE_LDT) &&
	    !(which == SEG_TR && type == TYPE_TSS_16 && !wide))
		return soft_raise_error(vcpu, VECTOR_GP, selector & 0xfffcu);
	if (!(segment.attributes & ATTRIBUTE_PRESENT))
		return soft_raise_error(vcpu, VECTOR_NP, selector & 0xfffcu);
	if (which == SEG_TR) {
		segment.attributes |= 2;
		err = mark_busy(vcpu, selector, descriptor);
	}
	if (!err)
		settle(vcpu, which, &segment);
	return err;
}
