/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing host code: the few instructions that the engine puts between the guest's own. A buffer
 * that is full stops taking bytes, and says so at the end.
 */
#ifndef ENGINE_SOFT_EMIT_H
#define ENGINE_SOFT_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum host_register { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

struct emit {
	uint8_t *at, *end;
	bool full;
};

static inline void emit8(struct emit *e, uint32_t byte)
{
	if (e->at == e->end) {
		e->full = true;
		return;
	}
	*e->at++ = (uint8_t)byte;
}

static inline void emit32(struct emit *e, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		emit8(e, value >> (8 * i) & 0xff);
}

static inline void emit64(struct emit *e, uint64_t value)
{
	emit32(e, (uint32_t)value);
	emit32(e, (uint32_t)(value >> 32));
}

static inline void emit_bytes(struct emit *e, const uint8_t *bytes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		emit8(e, bytes[i]);
}

/* opcode with ModRM of `reg` and gs:[offset] */
static inline void emit_gs(struct emit *e, bool wide, uint8_t opcode, int reg, uint32_t offset)
{
	uint32_t rex = (wide ? 8u : 0) | (reg >= 8 ? 4u : 0);

	emit8(e, 0x65);
	if (rex)
		emit8(e, 0x40 | rex);
	emit8(e, opcode);
	emit8(e, 0x04 | ((uint32_t)reg & 7) << 3);
	emit8(e, 0x25);
	emit32(e, offset);
}

static inline void emit_load(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, true, 0x8b, reg, offset);
}

static inline void emit_store(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, true, 0x89, reg, offset);
}

/* mov qword gs:[offset], simm32 */
static inline void emit_store_constant(struct emit *e, uint32_t value, uint32_t offset)
{
	emit_gs(e, true, 0xc7, 0, offset);
	emit32(e, value);
}

static inline void emit_store8_constant(struct emit *e, uint8_t value, uint32_t offset)
{
	emit_gs(e, false, 0xc6, 0, offset);
	emit8(e, value);
}

/* mov to, from (64 bits) */
static inline void emit_move(struct emit *e, int to, int from)
{
	emit8(e, 0x48u | (from >= 8 ? 4u : 0) | (to >= 8 ? 1u : 0));
	emit8(e, 0x89);
	emit8(e, 0xc0u | ((uint32_t)from & 7) << 3 | ((uint32_t)to & 7));
}

/* neg reg, r8 to r15 */
static inline void emit_negate(struct emit *e, int reg)
{
	emit8(e, 0x49);
	emit8(e, 0xf7);
	emit8(e, 0xd8u | ((uint32_t)reg & 7));
}

/* add to, other, or sub; r8 to r15 */
static inline void emit_add(struct emit *e, int to, int other, bool subtract)
{
	emit8(e, 0x4d);
	emit8(e, subtract ? 0x29 : 0x01);
	emit8(e, 0xc0u | ((uint32_t)other & 7) << 3 | ((uint32_t)to & 7));
}

/* to := the smaller of the two, unsigned; r8 to r15 */
static inline void emit_smaller(struct emit *e, int to, int other)
{
	emit8(e, 0x4d); /* cmp to, other */
	emit8(e, 0x39);
	emit8(e, 0xc0u | ((uint32_t)other & 7) << 3 | ((uint32_t)to & 7));
	emit8(e, 0x4d); /* cmova to, other */
	emit8(e, 0x0f);
	emit8(e, 0x47);
	emit8(e, 0xc0u | ((uint32_t)to & 7) << 3 | ((uint32_t)other & 7));
}

/* So many bytes that do nothing, in as few instructions as it goes. */
static inline void emit_nops(struct emit *e, uint32_t bytes)
{
	/* SDM volume 2, NOP: the recommended ones, of 1 to 9 bytes */
	static const uint8_t nop[9][9] = {
		{ 0x90 },
		{ 0x66, 0x90 },
		{ 0x0f, 0x1f, 0x00 },
		{ 0x0f, 0x1f, 0x40, 0x00 },
		{ 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
		{ 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
	};

	while (bytes) {
		uint32_t now = bytes < 9 ? bytes : 9;

		emit_bytes(e, nop[now - 1], now);
		bytes -= now;
	}
}

/* The 4 bytes that come `ahead` from here will lie within 8: they can be changed at once. */
static inline void emit_align_field(struct emit *e, uint32_t ahead)
{
	uint32_t at = (uint32_t)((uintptr_t)e->at + ahead) % 8;

	if (at > 4)
		emit_nops(e, 8 - at);
}

/* lea to, [base + displacement] (64 bits), or what is shorter and the same */
static inline void emit_lea_base(struct emit *e, int to, int base, int32_t displacement)
{
	bool small = displacement == (int8_t)displacement;

	if (displacement == 0) {
		emit_move(e, to, base);
		return;
	}
	emit8(e, 0x48u | (to >= 8 ? 4u : 0) | (base >= 8 ? 1u : 0));
	emit8(e, 0x8d);
	emit8(e, (small ? 0x40u : 0x80u) | ((uint32_t)to & 7) << 3 | ((uint32_t)base & 7));
	if ((base & 7) == RSP)
		emit8(e, 0x24);
	if (small)
		emit8(e, (uint32_t)displacement & 0xff);
	else
		emit32(e, (uint32_t)displacement);
}

/* lea to, [base + (index << scale) + displacement] (64 bits); index: not rsp */
static inline void emit_lea_index(struct emit *e, int to, int base, int index, uint32_t scale,
				  int32_t displacement)
{
	emit8(e, 0x48u | (to >= 8 ? 4u : 0) | (index >= 8 ? 2u : 0) | (base >= 8 ? 1u : 0));
	emit8(e, 0x8d);
	emit8(e, 0x84u | ((uint32_t)to & 7) << 3);
	emit8(e, scale << 6 | ((uint32_t)index & 7) << 3 | ((uint32_t)base & 7));
	emit32(e, (uint32_t)displacement);
}

/* shr reg, count (64 bits); r8 to r15 */
static inline void emit_shift_right(struct emit *e, int reg, uint32_t count)
{
	emit8(e, 0x49);
	emit8(e, 0xc1);
	emit8(e, 0xe8u | ((uint32_t)reg & 7));
	emit8(e, count);
}

/* lea reg, [rip + so that it is host], r8 to r15 */
static inline void emit_rip_relative(struct emit *e, int reg, const uint8_t *host)
{
	emit8(e, 0x4c);
	emit8(e, 0x8d);
	emit8(e, 0x05u | ((uint32_t)reg & 7) << 3);
	emit32(e, (uint32_t)(int32_t)(host - (e->at + 4)));
}

/* cmp reg, constant (64 bits) */
static inline void emit_compare(struct emit *e, int reg, uint32_t constant)
{
	emit8(e, 0x48u | (reg >= 8 ? 1u : 0));
	emit8(e, 0x81);
	emit8(e, 0xf8u | ((uint32_t)reg & 7));
	emit32(e, constant);
}

/* mov reg, constant, as short as it goes; no flags */
static inline void emit_constant(struct emit *e, int reg, uint64_t value)
{
	uint32_t b = reg >= 8 ? 1 : 0;

	if (value == (uint32_t)value) {
		if (b)
			emit8(e, 0x41);
		emit8(e, 0xb8u | ((uint32_t)reg & 7));
		emit32(e, (uint32_t)value);
	} else if ((uint64_t)(int64_t)(int32_t)value == value) {
		emit8(e, 0x48 | b);
		emit8(e, 0xc7);
		emit8(e, 0xc0u | ((uint32_t)reg & 7));
		emit32(e, (uint32_t)value);
	} else {
		emit8(e, 0x48 | b);
		emit8(e, 0xb8u | ((uint32_t)reg & 7));
		emit64(e, value);
	}
}

static inline void emit_patch32(uint8_t *at, const uint8_t *target)
{
	int32_t distance = (int32_t)(target - (at + 4));

	__atomic_store_n((int32_t *)(void *)at, distance, __ATOMIC_RELEASE);
}

/* A jump forwards by a byte's distance; to where emit_land() is called for it. */
static inline uint8_t *emit_short(struct emit *e, uint8_t opcode)
{
	emit8(e, opcode);
	emit8(e, 0);
	return e->at;
}

static inline void emit_land(struct emit *e, uint8_t *behind)
{
	if (!e->full)
		behind[-1] = (uint8_t)(e->at - behind);
}

/* jmp target */
static inline void emit_jump(struct emit *e, const uint8_t *target)
{
	emit8(e, 0xe9);
	emit32(e, (uint32_t)(int32_t)(target - (e->at + 4)));
}

#endif
