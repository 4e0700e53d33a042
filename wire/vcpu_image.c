/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding and decoding of a vCPU's image (vcpu_image.h has the layout).
 *
 * One table names every scalar of struct vcpu_state; both directions walk it, so they cannot
 * disagree. What the table leaves out is the xsave area, which has a table of blocks, and reserved
 * fields, which must be zero. Tested by tests/engine/test_vcpu_image.c (which also finds fields
 * that the table forgot) and tests/fuzz/fuzz_vcpu_image.c.
 */
#include "wire/vcpu_image.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define XSAVE_MXCSR   24u
#define XSAVE_HEADER  512u
#define HEADER_BYTES  4u
#define MXCSR_FOLLOWS 0x8000u

/* `count` scalars of `size` bytes, `stride` apart. */
struct field {
	uint16_t offset, size, count, stride;
};

#define ONE(member)                                                                                \
	{                                                                                          \
		offsetof(struct vcpu_state, member), sizeof(((struct vcpu_state *)0)->member), 1,  \
			0                                                                          \
	}
#define MANY(member)                                                                               \
	{                                                                                          \
		offsetof(struct vcpu_state, member), sizeof(((struct vcpu_state *)0)->member[0]),  \
			sizeof(((struct vcpu_state *)0)->member) /                                 \
				sizeof(((struct vcpu_state *)0)->member[0]),                       \
			sizeof(((struct vcpu_state *)0)->member[0])                                \
	}
#define SEGMENTS(member)                                                                           \
	{                                                                                          \
		offsetof(struct vcpu_state, segment[0].member),                                    \
			sizeof(((struct vcpu_state *)0)->segment[0].member), SEG_COUNT,            \
			sizeof(struct vcpu_segment_state)                                          \
	}

/* The order is the protocol's. */
static const struct field fields[] = {
	MANY(gpr),
	ONE(rip),
	ONE(rflags),
	ONE(cr0),
	ONE(cr2),
	ONE(cr3),
	ONE(cr4),
	ONE(cr8),
	ONE(efer),
	ONE(xcr0),
	MANY(dr),
	ONE(dr6),
	ONE(dr7),
	MANY(pdptr),
	SEGMENTS(base),
	SEGMENTS(limit),
	SEGMENTS(selector),
	SEGMENTS(attributes),
	SEGMENTS(unusable),
	ONE(gdt.base),
	ONE(gdt.limit),
	ONE(idt.base),
	ONE(idt.limit),
	MANY(msr),
	ONE(exception_pending),
	ONE(exception_injected),
	ONE(exception_vector),
	ONE(exception_has_error_code),
	ONE(exception_error_code),
	ONE(exception_payload),
	ONE(exception_has_payload),
	ONE(interrupt_injected),
	ONE(interrupt_vector),
	ONE(debug_held),
	ONE(interrupt_shadow),
	ONE(nmi_injected),
	ONE(nmi_masked),
	ONE(nmi_pending),
	ONE(pdptr_valid),
	ONE(run_state),
	ONE(lapic.id),
	ONE(lapic.tpr),
	ONE(lapic.svr),
	ONE(lapic.esr),
	ONE(lapic.esr_pending),
	ONE(lapic.lvt_timer),
	ONE(lapic.lvt_thermal),
	ONE(lapic.lvt_perf),
	ONE(lapic.lvt_lint0),
	ONE(lapic.lvt_lint1),
	ONE(lapic.lvt_error),
	ONE(lapic.lvt_cmci),
	ONE(lapic.timer_initial),
	ONE(lapic.timer_divide),
	ONE(lapic.timer_start_ns),
	ONE(lapic.timer_deadline_ns),
	ONE(lapic.tsc_deadline),
	ONE(lapic.icr),
	MANY(lapic.irr),
	MANY(lapic.isr),
	MANY(lapic.tmr),
	MANY(lapic.extint),
	ONE(lapic.nmi_pending),
	ONE(lapic.init_pending),
	ONE(lapic.sipi_pending),
	ONE(lapic.sipi_vector),
	ONE(lapic.enabled),
	ONE(lapic.x2apic),
	ONE(lapic.bsp),
	ONE(x87_cs),
};
#define FIELD_COUNT	(sizeof(fields) / sizeof(fields[0]))
#define SCALARS_MAX	256u
#define BITMAP_BYTES(n) (((n) + 7u) / 8u)

/* Runs of equal units inside the xsave area. Legacy area: SDM vol. 1, table 13-1; MXCSR goes by
 * itself. */
static const struct block {
	uint16_t part, offset, unit, count;
} blocks[] = {
	{ 0, 0, 8, 3 },	     /* control, status, tag, instruction and data pointers */
	{ 0, 32, 16, 8 },    /* ST or MM */
	{ 1, 160, 16, 16 },  /* XMM */
	{ 2, 576, 16, 16 },  /* high halves of YMM */
	{ 5, 1088, 8, 8 },   /* opmasks */
	{ 6, 1152, 32, 16 }, /* high halves of ZMM0..15 */
	{ 7, 1664, 64, 16 }, /* ZMM16..31 */
	{ 9, 2688, 8, 1 },   /* PKRU */
};
#define BLOCK_COUNT (sizeof(blocks) / sizeof(blocks[0]))

static const uint8_t zeroes[64];

/* The image while it is written: `at` runs on past `room`, so that one check at the end is enough.
 */
struct writer {
	uint8_t *image;
	size_t room, at;
};

static void put(struct writer *w, const void *bytes, size_t size)
{
	if (w->at <= w->room && size <= w->room - w->at)
		memcpy(w->image + w->at, bytes, size);
	w->at += size;
}

static void put_number(struct writer *w, uint64_t value, uint32_t size)
{
	uint8_t bytes[8];

	for (uint32_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	put(w, bytes, size);
}

/* The image while it is read; `bad` once it ended too early. */
struct reader {
	const uint8_t *image;
	size_t size, at;
	bool bad;
};

static const uint8_t *take(struct reader *r, size_t size)
{
	const uint8_t *from = r->image + r->at;

	if (r->bad || size > r->size - r->at) {
		r->bad = true;
		return zeroes;
	}
	r->at += size;
	return from;
}

static uint64_t take_number(struct reader *r, uint32_t size)
{
	const uint8_t *bytes = take(r, size);
	uint64_t value = 0;

	for (uint32_t i = 0; i < size; i++)
		value |= (uint64_t)bytes[i] << (8 * i);
	return value;
}

static uint64_t load_scalar(const struct vcpu_state *state, const struct field *field, uint32_t i)
{
	const uint8_t *from = (const uint8_t *)state + field->offset + (size_t)i * field->stride;
	uint64_t u64;
	uint32_t u32;
	uint16_t u16;

	switch (field->size) {
	case 1:
		return *from;
	case 2:
		memcpy(&u16, from, sizeof(u16));
		return u16;
	case 4:
		memcpy(&u32, from, sizeof(u32));
		return u32;
	default:
		memcpy(&u64, from, sizeof(u64));
		return u64;
	}
}

static void store_scalar(struct vcpu_state *state, const struct field *field, uint32_t i,
			 uint64_t value)
{
	uint8_t *to = (uint8_t *)state + field->offset + (size_t)i * field->stride;
	uint32_t u32 = (uint32_t)value;
	uint16_t u16 = (uint16_t)value;

	switch (field->size) {
	case 1:
		*to = (uint8_t)value;
		break;
	case 2:
		memcpy(to, &u16, sizeof(u16));
		break;
	case 4:
		memcpy(to, &u32, sizeof(u32));
		break;
	default:
		memcpy(to, &value, sizeof(value));
		break;
	}
}

/* The low `size` bytes of value. */
static uint64_t narrow(uint64_t value, uint32_t size)
{
	return size == 8 ? value : value & ((1ull << (8 * size)) - 1);
}

static uint64_t extend_sign(uint64_t value, uint32_t bytes)
{
	uint64_t sign = 1ull << (8 * bytes - 1);

	return (value ^ sign) - sign;
}

/* The one code for a value of a field of `size` bytes: fewest bytes, zero-extended if both do. */
static uint32_t choose_code(uint64_t value, uint32_t size)
{
	uint32_t bytes = 1;

	for (;; bytes++) {
		if (narrow(value, bytes) == value)
			return bytes;
		if (bytes < size && narrow(extend_sign(narrow(value, bytes), bytes), size) == value)
			return 8 + bytes;
	}
}

static uint32_t code_bytes(uint32_t code)
{
	return code > 8 ? code - 8 : code;
}

static bool reserved_are_zero(const struct vcpu_state *state)
{
	uint32_t sum = state->reserved | state->lapic.reserved;

	for (int i = 0; i < SEG_COUNT; i++)
		for (size_t k = 0; k < sizeof(state->segment[i].reserved); k++)
			sum |= state->segment[i].reserved[k];
	for (size_t k = 0; k < 3; k++)
		sum |= state->gdt.reserved[k] | (uint32_t)state->idt.reserved[k];
	return sum == 0;
}

/* Present scalars of a state, in order, with their codes. */
struct scalars {
	uint32_t count, present;
	uint8_t bitmap[BITMAP_BYTES(SCALARS_MAX)];
	uint8_t code[SCALARS_MAX];
	uint64_t value[SCALARS_MAX];
};

static uint32_t count_scalars(void)
{
	uint32_t count = 0;

	for (size_t f = 0; f < FIELD_COUNT; f++)
		count += fields[f].count;
	return count;
}

static void collect_scalars(const struct vcpu_state *state, const struct vcpu_state *reset,
			    struct scalars *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (size_t f = 0; f < FIELD_COUNT; f++)
		for (uint32_t i = 0; i < fields[f].count; i++, ret->count++) {
			uint64_t value = load_scalar(state, &fields[f], i);

			if (value == load_scalar(reset, &fields[f], i))
				continue;
			ret->bitmap[ret->count / 8] |= (uint8_t)(1u << ret->count % 8);
			ret->code[ret->present] = (uint8_t)choose_code(value, fields[f].size);
			ret->value[ret->present++] = value;
		}
}

static void put_scalars(struct writer *w, const struct scalars *scalars)
{
	put(w, scalars->bitmap, BITMAP_BYTES(scalars->count));
	for (uint32_t i = 0; i < scalars->present; i += 2)
		put_number(w, scalars->code[i] | (uint32_t)scalars->code[i + 1] << 4, 1);
	for (uint32_t i = 0; i < scalars->present; i++)
		put_number(w, scalars->value[i], code_bytes(scalars->code[i]));
}

static void put_block(struct writer *w, const struct block *block, const uint8_t *xsave)
{
	const uint8_t *units = xsave + block->offset;
	uint32_t bitmap = 0;

	for (uint32_t i = 0; i < block->count; i++)
		if (memcmp(units + i * block->unit, zeroes, block->unit))
			bitmap |= 1u << i;
	put_number(w, bitmap, BITMAP_BYTES(block->count));
	for (uint32_t i = 0; i < block->count; i++)
		if (bitmap >> i & 1)
			put(w, units + i * block->unit, block->unit);
}

static void put_extended(struct writer *w, const struct vcpu_state *state,
			 const struct vcpu_state *reset)
{
	const uint8_t *mxcsr = state->xsave + XSAVE_MXCSR;
	bool has_mxcsr = memcmp(mxcsr, reset->xsave + XSAVE_MXCSR, 4) != 0;
	uint32_t used = state->xsave[XSAVE_HEADER] | (uint32_t)state->xsave[XSAVE_HEADER + 1] << 8;

	put_number(w, used | (has_mxcsr ? MXCSR_FOLLOWS : 0), 2);
	if (has_mxcsr)
		put(w, mxcsr, 4);
	for (size_t i = 0; i < BLOCK_COUNT; i++)
		if (used >> blocks[i].part & 1)
			put_block(w, &blocks[i], state->xsave);
}

int vcpu_image_encode(const struct vcpu_state *state, uint8_t *image, size_t room, size_t *ret_size)
{
	struct writer w = { .image = image, .room = room, .at = HEADER_BYTES };
	struct writer header = { .image = image, .room = room };
	struct vcpu_state reset;
	struct scalars scalars;
	const char *why;

	if (vcpu_state_check(state, &why) || !reserved_are_zero(state))
		return -EINVAL;
	vcpu_state_reset(&reset, 0);
	collect_scalars(state, &reset, &scalars);
	put_scalars(&w, &scalars);
	put_extended(&w, state, &reset);
	if (w.at > room)
		return -ENOSPC;
	put_number(&header, VCPU_IMAGE_VERSION, 2);
	put_number(&header, w.at, 2);
	*ret_size = w.at;
	return 0;
}

/* Codes of the scalars that are present, or false. */
static bool take_codes(struct reader *r, struct scalars *ret)
{
	ret->count = count_scalars();
	memcpy(ret->bitmap, take(r, BITMAP_BYTES(ret->count)), BITMAP_BYTES(ret->count));
	for (uint32_t i = ret->count; i < 8 * BITMAP_BYTES(ret->count); i++)
		if (ret->bitmap[i / 8] >> i % 8 & 1)
			return false;
	for (uint32_t i = 0; i < ret->count; i++)
		ret->present += ret->bitmap[i / 8] >> i % 8 & 1;
	for (uint32_t i = 0; i < ret->present; i += 2) {
		uint8_t pair = (uint8_t)take_number(r, 1);

		ret->code[i] = pair & 0xf;
		if (i + 1 < ret->present)
			ret->code[i + 1] = pair >> 4;
		else if (pair >> 4)
			return false;
	}
	return !r->bad;
}

/* A value must fit its field, must have needed its code, and must not be the reset value. */
static bool take_scalar(struct reader *r, const struct field *field, uint32_t code, uint64_t reset,
			uint64_t *ret_value)
{
	uint64_t value;

	if (code == 0 || code_bytes(code) > field->size)
		return false;
	value = take_number(r, code_bytes(code));
	if (code > 8)
		value = narrow(extend_sign(value, code - 8), field->size);
	*ret_value = value;
	return !r->bad && value != reset && choose_code(value, field->size) == code;
}

static bool take_scalars(struct reader *r, struct vcpu_state *state)
{
	struct scalars scalars = { 0 };
	uint32_t at = 0, present = 0;
	uint64_t value;

	if (!take_codes(r, &scalars))
		return false;
	for (size_t f = 0; f < FIELD_COUNT; f++)
		for (uint32_t i = 0; i < fields[f].count; i++, at++) {
			if (!(scalars.bitmap[at / 8] >> at % 8 & 1))
				continue;
			if (!take_scalar(r, &fields[f], scalars.code[present++],
					 load_scalar(state, &fields[f], i), &value))
				return false;
			store_scalar(state, &fields[f], i, value);
		}
	return true;
}

static bool take_block(struct reader *r, const struct block *block, uint8_t *xsave)
{
	uint32_t bitmap = (uint32_t)take_number(r, BITMAP_BYTES(block->count));

	if (bitmap >> block->count)
		return false;
	for (uint32_t i = 0; i < block->count; i++) {
		uint8_t *to = xsave + block->offset + i * block->unit;

		memset(to, 0, block->unit);
		if (!(bitmap >> i & 1))
			continue;
		memcpy(to, take(r, block->unit), block->unit);
		if (!memcmp(to, zeroes, block->unit))
			return false;
	}
	return !r->bad;
}

static bool take_extended(struct reader *r, struct vcpu_state *state)
{
	uint32_t used = (uint32_t)take_number(r, 2);
	uint8_t *mxcsr = state->xsave + XSAVE_MXCSR, given[4];
	bool has_mxcsr = used & MXCSR_FOLLOWS;

	used &= ~MXCSR_FOLLOWS;
	if (has_mxcsr) {
		memcpy(given, take(r, sizeof(given)), sizeof(given));
		if (!memcmp(mxcsr, given, sizeof(given)))
			return false;
		memcpy(mxcsr, given, sizeof(given));
	}
	state->xsave[XSAVE_HEADER] = (uint8_t)used;
	state->xsave[XSAVE_HEADER + 1] = (uint8_t)(used >> 8);
	for (size_t i = 0; i < BLOCK_COUNT; i++)
		if ((used >> blocks[i].part & 1) && !take_block(r, &blocks[i], state->xsave))
			return false;
	return !r->bad;
}

int vcpu_image_decode(const uint8_t *image, size_t size, struct vcpu_state *ret_state)
{
	struct reader r = { .image = image, .size = size };
	struct vcpu_state state;
	const char *why;

	_Static_assert(sizeof(zeroes) >= 64 && BITMAP_BYTES(SCALARS_MAX) <= 64,
		       "take() hands out zeroes when the image has ended");
	if (size < HEADER_BYTES)
		return -EBADMSG;
	if (take_number(&r, 1) != VCPU_IMAGE_VERSION)
		return -EPROTONOSUPPORT;
	if (take_number(&r, 1) != 0 || take_number(&r, 2) != size)
		return -EBADMSG;
	vcpu_state_reset(&state, 0);
	if (!take_scalars(&r, &state) || !take_extended(&r, &state) || r.at != size)
		return -EBADMSG;
	if (vcpu_state_check(&state, &why))
		return -EBADMSG;
	*ret_state = state;
	return 0;
}
