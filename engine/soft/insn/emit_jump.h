/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jumps of host code, by name as in emit.h, and what makes their distances ones that can be changed
 * while others run them. SDM volume 2, JMP, Jcc and LOOP.
 */
#ifndef ENGINE_SOFT_EMIT_JUMP_H
#define ENGINE_SOFT_EMIT_JUMP_H

#include "engine/soft/insn/emit_bytes.h"

/* jmp target */
static inline void emit_jmp(struct emit *e, const uint8_t *target)
{
	emit8(e, 0xe9);
	emit32(e, emit_distance(e, target));
}

/* jcc target. Where its distance is. */
static inline uint8_t *emit_jcc(struct emit *e, enum host_condition condition,
				const uint8_t *target)
{
	emit8(e, 0x0f);
	emit8(e, 0x80u | condition);
	emit32(e, emit_distance(e, target));
	return e->at - 4;
}

/* The same to a place that is not known yet: emit_patch32() fills the distance in. */
static inline uint8_t *emit_jmp_open(struct emit *e)
{
	emit8(e, 0xe9);
	emit32(e, 0);
	return e->at - 4;
}

static inline uint8_t *emit_jcc_open(struct emit *e, enum host_condition condition)
{
	emit8(e, 0x0f);
	emit8(e, 0x80u | condition);
	emit32(e, 0);
	return e->at - 4;
}

static inline void emit_patch32(uint8_t *at, ptrdiff_t alias, const uint8_t *target)
{
	int32_t distance = (int32_t)(target - (at + 4));

	__atomic_store_n((int32_t *)(void *)(at + alias), distance, __ATOMIC_RELEASE);
}

/* jmp gs:[offset] */
static inline void emit_jmp_gs(struct emit *e, uint32_t offset)
{
	emit_gs(e, BITS_32, 0xff, 4, offset);
}

/* jmp gs:[base + offset]; base: not rsp or r12 */
static inline void emit_jmp_gs_base(struct emit *e, int base, uint32_t offset)
{
	emit_gs_base(e, BITS_32, 0xff, 4, base, offset);
}

/* Jumps forwards by a byte's distance; to where emit_land() is called for what they return. */
static inline uint8_t *emit_short(struct emit *e, uint32_t opcode)
{
	emit8(e, opcode);
	emit8(e, 0);
	return e->at;
}

static inline uint8_t *emit_jmp_short(struct emit *e)
{
	return emit_short(e, 0xeb);
}

static inline uint8_t *emit_jcc_short(struct emit *e, enum host_condition condition)
{
	return emit_short(e, 0x70u | condition);
}

/* LOOPNE, LOOPE, LOOP, JRCXZ: by the low bits of their opcodes. */
enum host_loop { LOOP_NE, LOOP_E, LOOP_ALWAYS, LOOP_RCXZ };

static inline uint8_t *emit_loop_short(struct emit *e, enum host_loop loop)
{
	return emit_short(e, 0xe0u | loop);
}

static inline void emit_land(struct emit *e, uint8_t *behind)
{
	if (!e->full)
		behind[e->alias - 1] = (uint8_t)(e->at - behind);
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

/* Of the instruction that comes: CS, which means nothing to it (SDM volume 1, 3.4.2.1). */
static inline void emit_prefix(struct emit *e)
{
	emit8(e, 0x2e);
}

/*
 * In front of a jump whose distance comes `ahead` from here: its 4 bytes will lie within 8, so that
 * they can be changed at once. The bytes between are prefixes of the jump: a NOP would part it from
 * the comparison that the CPU joins it with.
 */
static inline void emit_align_field(struct emit *e, uint32_t ahead)
{
	uint32_t at = (uint32_t)((uintptr_t)e->at + ahead) % 8;

	if (at > 4)
		for (; at < 8; at++)
			emit_prefix(e);
}

#endif
