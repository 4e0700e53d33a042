/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Below emit.h and emit_jump.h: where host code is written to, and the parts that an instruction is
 * put together from. A buffer that is full stops taking bytes, and says so at the end.
 */
#ifndef ENGINE_SOFT_EMIT_BYTES_H
#define ENGINE_SOFT_EMIT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbered as ModRM, SIB and REX have them (SDM volume 2, 2.1.5 and 2.2.1.2). */
enum host_register { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Conditions: the low 4 bits of Jcc, SETcc and CMOVcc (SDM volume 2, B.1.4.7, tttn). */
enum host_condition {
	CC_O,
	CC_NO,
	CC_B, /* unsigned: below; or the carry is set */
	CC_AE,
	CC_E,
	CC_NE,
	CC_BE,
	CC_A,
	CC_S,
	CC_NS,
	CC_P,
	CC_NP,
	CC_L, /* signed: less */
	CC_GE,
	CC_LE,
	CC_G,
};

/*
 * Arithmetic of two operands (SDM volume 2, A.4.2, group 1, and the opcode map's first rows): `op
 * memory, reg` is 8 * n + 1, `op reg, memory` is 8 * n + 3, and with a constant n is the extension
 * of 80, 81 and 83.
 */
enum host_arithmetic { OP_ADD = 0, OP_OR = 1, OP_AND = 4, OP_SUB = 5, OP_CMP = 7 };
#define OP_TO_MEMORY(op)   ((uint8_t)((op)*8 + 1))
#define OP_FROM_MEMORY(op) ((uint8_t)((op)*8 + 3))
/* Shifts by a constant: the extension of C1 (group 2). */
enum host_shift { OP_SHL = 4, OP_SHR = 5, OP_SAR = 7 };

/*
 * Code that is executed is never written where it is: `alias` is how far from there it is written, by
 * another mapping of the same memory (cache/cache.c). 0: it is not executed there.
 */
struct emit {
	uint8_t *at, *end; /* where it will be executed */
	ptrdiff_t alias;
	bool full;
};

static inline void emit8(struct emit *e, uint32_t byte)
{
	if (e->at == e->end) {
		e->full = true;
		return;
	}
	e->at[e->alias] = (uint8_t)byte;
	e->at++;
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

/* How far it is from behind the 4 bytes that come here. */
static inline uint32_t emit_distance(const struct emit *e, const uint8_t *target)
{
	return (uint32_t)(int32_t)(target - (e->at + 4));
}

/* How wide the operands are. */
enum host_width { BITS_32, BITS_64 };

/* REX (SDM volume 2, 2.2.1.2), if it says anything. Who has no index or base says 0. */
static inline void emit_rex(struct emit *e, enum host_width width, int reg, int index, int base)
{
	uint32_t rex = (width == BITS_64 ? 8u : 0) | (reg >= 8 ? 4u : 0) | (index >= 8 ? 2u : 0) |
		       (base >= 8 ? 1u : 0);

	if (rex)
		emit8(e, 0x40 | rex);
}

/* Addressing forms with ModRM (SDM volume 2, 2.1.5): the field mod, and what rm then may be. */
#define MOD_NONE     0u /* memory without displacement */
#define MOD_8	     1u /* memory with one of 8 bits */
#define MOD_32	     2u
#define MOD_REGISTER 3u
#define RM_SIB	     4 /* a SIB byte follows */
#define SIB_NO_INDEX 4
#define SIB_NO_BASE  5 /* with MOD_NONE: a displacement of 32 bits instead */
#define RM_RIP	     5 /* with MOD_NONE: off RIP (2.2.1.6) */

static inline void emit_modrm(struct emit *e, uint32_t mod, int reg, int rm)
{
	emit8(e, mod << 6 | ((uint32_t)reg & 7) << 3 | ((uint32_t)rm & 7));
}

static inline void emit_sib(struct emit *e, uint32_t scale, int index, int base)
{
	emit8(e, scale << 6 | ((uint32_t)index & 7) << 3 | ((uint32_t)base & 7));
}

/* An opcode with two registers; `reg` may be an extension of the opcode (SDM volume 2, A.4). */
static inline void emit_registers(struct emit *e, enum host_width width, uint8_t opcode, int reg,
				  int rm)
{
	emit_rex(e, width, reg, 0, rm);
	emit8(e, opcode);
	emit_modrm(e, MOD_REGISTER, reg, rm);
}

/* The same of the map 0F. */
static inline void emit_registers_0f(struct emit *e, enum host_width width, uint8_t opcode, int reg,
				     int rm)
{
	emit_rex(e, width, reg, 0, rm);
	emit8(e, 0x0f);
	emit8(e, opcode);
	emit_modrm(e, MOD_REGISTER, reg, rm);
}

#define PREFIX_GS 0x65u

static inline void emit_offset(struct emit *e, int reg, uint32_t offset)
{
	emit_modrm(e, MOD_NONE, reg, RM_SIB);
	emit_sib(e, 0, SIB_NO_INDEX, SIB_NO_BASE);
	emit32(e, offset);
}

/* An opcode with a register, or an extension, and gs:[offset]. */
static inline void emit_gs(struct emit *e, enum host_width width, uint8_t opcode, int reg,
			   uint32_t offset)
{
	emit8(e, PREFIX_GS);
	emit_rex(e, width, reg, 0, 0);
	emit8(e, opcode);
	emit_offset(e, reg, offset);
}

/* The same of the map 0F. */
static inline void emit_gs_0f(struct emit *e, enum host_width width, uint8_t opcode, int reg,
			      uint32_t offset)
{
	emit8(e, PREFIX_GS);
	emit_rex(e, width, reg, 0, 0);
	emit8(e, 0x0f);
	emit8(e, opcode);
	emit_offset(e, reg, offset);
}

/* The same and gs:[base + offset]; base: not rsp or r12, which need a SIB byte. */
static inline void emit_gs_base(struct emit *e, enum host_width width, uint8_t opcode, int reg,
				int base, uint32_t offset)
{
	emit8(e, PREFIX_GS);
	emit_rex(e, width, reg, 0, base);
	emit8(e, opcode);
	emit_modrm(e, MOD_32, reg, base);
	emit32(e, offset);
}

/* The same and gs:[index * 8 + offset]; index: not rsp. */
static inline void emit_gs_table(struct emit *e, enum host_width width, uint8_t opcode, int reg,
				 int index, uint32_t offset)
{
	emit8(e, PREFIX_GS);
	emit_rex(e, width, reg, index, 0);
	emit8(e, opcode);
	emit_modrm(e, MOD_NONE, reg, RM_SIB);
	emit_sib(e, 3, index, SIB_NO_BASE);
	emit32(e, offset);
}

#endif
