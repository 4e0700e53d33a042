/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few host instructions that the engine puts between the guest's own, by name; jumps are in
 * emit_jump.h. Operands come as in Intel's syntax, destination first; but what is stored comes
 * before where it goes. They are of 64 bits where the name does not say 32 or 8. _imm: the source
 * is a constant; _gs: the memory operand is gs:[offset], in the vCPU; _table: gs:[index * 8 +
 * offset]. LOAD and STORE are MOV with memory.
 *
 * Opcodes and flags: SDM volume 2, chapters 3 to 5, under the instruction's name. Where the CPU
 * has several forms there is mostly one here, and not always the shortest. tests/soft/test_emit.c
 * decodes what every function writes.
 */
#ifndef ENGINE_SOFT_EMIT_H
#define ENGINE_SOFT_EMIT_H

#include "engine/soft/insn/emit_bytes.h"

/* MOV: between registers and the vCPU */

/* mov reg, gs:[offset] */
static inline void emit_load(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_64, 0x8b, reg, offset);
}

static inline void emit_load32(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_32, 0x8b, reg, offset);
}

/* movzx reg32, word gs:[offset] */
static inline void emit_load16(struct emit *e, int reg, uint32_t offset)
{
	emit_gs_0f(e, BITS_32, 0xb7, reg, offset);
}

/* mov gs:[offset], reg */
static inline void emit_store(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_64, 0x89, reg, offset);
}

static inline void emit_store32(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_32, 0x89, reg, offset);
}

/* mov qword gs:[offset], value, whose sign is extended */
static inline void emit_store_imm(struct emit *e, uint32_t value, uint32_t offset)
{
	emit_gs(e, BITS_64, 0xc7, 0, offset);
	emit32(e, value);
}

static inline void emit_store32_imm(struct emit *e, uint32_t value, uint32_t offset)
{
	emit_gs(e, BITS_32, 0xc7, 0, offset);
	emit32(e, value);
}

static inline void emit_store8_imm(struct emit *e, uint8_t value, uint32_t offset)
{
	emit_gs(e, BITS_32, 0xc6, 0, offset);
	emit8(e, value);
}

/* mov reg, gs:[index * 8 + table] */
static inline void emit_load_table(struct emit *e, int reg, int index, uint32_t table)
{
	emit_gs_table(e, BITS_64, 0x8b, reg, index, table);
}

/* MOV, MOVSX, CMOVcc, SETcc, LEA: registers alone; no flags change */

static inline void emit_mov(struct emit *e, int to, int from)
{
	emit_registers(e, BITS_64, 0x89, from, to);
}

static inline void emit_mov32(struct emit *e, int to, int from)
{
	emit_registers(e, BITS_32, 0x89, from, to);
}

/* mov reg, value, as short as it goes */
static inline void emit_mov_imm(struct emit *e, int reg, uint64_t value)
{
	if (value == (uint32_t)value) { /* mov reg32, imm32 */
		emit_rex(e, BITS_32, 0, 0, reg);
		emit8(e, 0xb8u | ((uint32_t)reg & 7));
		emit32(e, (uint32_t)value);
	} else if ((uint64_t)(int64_t)(int32_t)value == value) { /* mov reg, simm32 */
		emit_registers(e, BITS_64, 0xc7, 0, reg);
		emit32(e, (uint32_t)value);
	} else {
		emit_rex(e, BITS_64, 0, 0, reg);
		emit8(e, 0xb8u | ((uint32_t)reg & 7));
		emit64(e, value);
	}
}

/* movsxd to, from32 */
static inline void emit_movsx32(struct emit *e, int to, int from)
{
	emit_registers(e, BITS_64, 0x63, to, from);
}

/* movsx to, from16 */
static inline void emit_movsx16(struct emit *e, int to, int from)
{
	emit_registers_0f(e, BITS_64, 0xbf, to, from);
}

static inline void emit_cmov(struct emit *e, enum host_condition condition, int to, int from)
{
	emit_registers_0f(e, BITS_64, (uint8_t)(0x40 | condition), to, from);
}

/* setcc reg8; al, cl, dl or bl */
static inline void emit_set8(struct emit *e, enum host_condition condition, int reg)
{
	emit_registers_0f(e, BITS_32, (uint8_t)(0x90 | condition), 0, reg);
}

/* lea to, [base + displacement], or MOV, which is shorter, if that is 0 */
static inline void emit_lea(struct emit *e, int to, int base, int32_t displacement)
{
	bool small = displacement == (int8_t)displacement;

	if (displacement == 0) {
		emit_mov(e, to, base);
		return;
	}
	emit_rex(e, BITS_64, to, 0, base);
	emit8(e, 0x8d);
	emit_modrm(e, small ? MOD_8 : MOD_32, to, base);
	if ((base & 7) == RM_SIB)
		emit_sib(e, 0, SIB_NO_INDEX, base);
	if (small)
		emit8(e, (uint32_t)displacement & 0xff);
	else
		emit32(e, (uint32_t)displacement);
}

/* lea to, [base + (index << scale) + displacement]; index: not rsp */
static inline void emit_lea_index(struct emit *e, int to, int base, int index, uint32_t scale,
				  int32_t displacement)
{
	emit_rex(e, BITS_64, to, index, base);
	emit8(e, 0x8d);
	emit_modrm(e, MOD_32, to, RM_SIB);
	emit_sib(e, scale, index, base);
	emit32(e, (uint32_t)displacement);
}

/* lea to32, [reg + reg]; reg: not rsp */
static inline void emit_lea32_twice(struct emit *e, int to, int reg)
{
	emit_rex(e, BITS_32, to, reg, reg);
	emit8(e, 0x8d);
	emit_modrm(e, (reg & 7) == 5 ? MOD_8 : MOD_NONE, to, RM_SIB);
	emit_sib(e, 0, reg, reg);
	if ((reg & 7) == 5) /* rbp and r13 as a base have a displacement */
		emit8(e, 0);
}

/* lea reg, [rip + so that it is host] */
static inline void emit_lea_rip(struct emit *e, int reg, const uint8_t *host)
{
	emit_rex(e, BITS_64, reg, 0, 0);
	emit8(e, 0x8d);
	emit_modrm(e, MOD_NONE, reg, RM_RIP);
	emit32(e, emit_distance(e, host));
}

/* Arithmetic: registers */

static inline void emit_add(struct emit *e, int to, int other)
{
	emit_registers(e, BITS_64, OP_TO_MEMORY(OP_ADD), other, to);
}

static inline void emit_sub(struct emit *e, int to, int other)
{
	emit_registers(e, BITS_64, OP_TO_MEMORY(OP_SUB), other, to);
}

static inline void emit_cmp(struct emit *e, int reg, int other)
{
	emit_registers(e, BITS_64, OP_TO_MEMORY(OP_CMP), other, reg);
}

/* cmp reg, value, whose sign is extended */
static inline void emit_cmp_imm(struct emit *e, int reg, uint32_t value)
{
	emit_registers(e, BITS_64, 0x81, OP_CMP, reg);
	emit32(e, value);
}

static inline void emit_and32_imm(struct emit *e, int reg, uint32_t value)
{
	emit_registers(e, BITS_32, 0x81, OP_AND, reg);
	emit32(e, value);
}

static inline void emit_or32_imm(struct emit *e, int reg, uint32_t value)
{
	emit_registers(e, BITS_32, 0x81, OP_OR, reg);
	emit32(e, value);
}

/* or reg32, value, whose sign is extended */
static inline void emit_or32_imm8(struct emit *e, int reg, uint8_t value)
{
	emit_registers(e, BITS_32, 0x83, OP_OR, reg);
	emit8(e, value);
}

/* add al, value */
static inline void emit_add_al_imm(struct emit *e, uint8_t value)
{
	emit8(e, 0x04);
	emit8(e, value);
}

static inline void emit_neg(struct emit *e, int reg)
{
	emit_registers(e, BITS_64, 0xf7, 3, reg);
}

/* mul reg: rdx:rax := rax * reg */
static inline void emit_mul(struct emit *e, int reg)
{
	emit_registers(e, BITS_64, 0xf7, 4, reg);
}

/* shrd to, from, count */
static inline void emit_shrd_imm(struct emit *e, int to, int from, uint32_t count)
{
	emit_registers_0f(e, BITS_64, 0xac, from, to);
	emit8(e, count);
}

static inline void emit_shift_imm(struct emit *e, enum host_width width, enum host_shift op,
				  int reg, uint32_t count)
{
	emit_registers(e, width, 0xc1, (int)op, reg);
	emit8(e, count);
}

static inline void emit_shl_imm(struct emit *e, int reg, uint32_t count)
{
	emit_shift_imm(e, BITS_64, OP_SHL, reg, count);
}

static inline void emit_shl32_imm(struct emit *e, int reg, uint32_t count)
{
	emit_shift_imm(e, BITS_32, OP_SHL, reg, count);
}

static inline void emit_shr_imm(struct emit *e, int reg, uint32_t count)
{
	emit_shift_imm(e, BITS_64, OP_SHR, reg, count);
}

static inline void emit_shr32_imm(struct emit *e, int reg, uint32_t count)
{
	emit_shift_imm(e, BITS_32, OP_SHR, reg, count);
}

static inline void emit_sar_imm(struct emit *e, int reg, uint32_t count)
{
	emit_shift_imm(e, BITS_64, OP_SAR, reg, count);
}

/* Arithmetic: with the vCPU */

/* op reg, gs:[offset] */
static inline void emit_add_gs(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_64, OP_FROM_MEMORY(OP_ADD), reg, offset);
}

static inline void emit_sub_gs(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_64, OP_FROM_MEMORY(OP_SUB), reg, offset);
}

static inline void emit_cmp_gs(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_64, OP_FROM_MEMORY(OP_CMP), reg, offset);
}

static inline void emit_or_gs(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_64, OP_FROM_MEMORY(OP_OR), reg, offset);
}

static inline void emit_or32_gs(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_32, OP_FROM_MEMORY(OP_OR), reg, offset);
}

static inline void emit_and32_gs(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_32, OP_FROM_MEMORY(OP_AND), reg, offset);
}

/* or gs:[offset], reg32 */
static inline void emit_or32_to_gs(struct emit *e, int reg, uint32_t offset)
{
	emit_gs(e, BITS_32, OP_TO_MEMORY(OP_OR), reg, offset);
}

/* op dword gs:[offset], value */
static inline void emit_or32_gs_imm(struct emit *e, uint32_t offset, uint32_t value)
{
	emit_gs(e, BITS_32, 0x81, OP_OR, offset);
	emit32(e, value);
}

static inline void emit_and32_gs_imm(struct emit *e, uint32_t offset, uint32_t value)
{
	emit_gs(e, BITS_32, 0x81, OP_AND, offset);
	emit32(e, value);
}

/* sub dword gs:[offset], value, whose sign is extended */
static inline void emit_sub32_gs_imm8(struct emit *e, uint32_t offset, uint8_t value)
{
	emit_gs(e, BITS_32, 0x83, OP_SUB, offset);
	emit8(e, value);
}

/* cmp or test byte gs:[offset], value */
static inline void emit_cmp8_gs_imm(struct emit *e, uint32_t offset, uint8_t value)
{
	emit_gs(e, BITS_32, 0x80, OP_CMP, offset);
	emit8(e, value);
}

static inline void emit_test8_gs_imm(struct emit *e, uint32_t offset, uint8_t value)
{
	emit_gs(e, BITS_32, 0xf6, 0, offset);
	emit8(e, value);
}

/* cmp reg, gs:[base + offset]; base: not rsp or r12 */
static inline void emit_cmp_gs_base(struct emit *e, int reg, int base, uint32_t offset)
{
	emit_gs_base(e, BITS_64, OP_FROM_MEMORY(OP_CMP), reg, base, offset);
}

/* op reg, gs:[index * 8 + table] */
static inline void emit_add_table(struct emit *e, int reg, int index, uint32_t table)
{
	emit_gs_table(e, BITS_64, OP_FROM_MEMORY(OP_ADD), reg, index, table);
}

static inline void emit_sub_table(struct emit *e, int reg, int index, uint32_t table)
{
	emit_gs_table(e, BITS_64, OP_FROM_MEMORY(OP_SUB), reg, index, table);
}

/* Flags and the stack */

static inline void emit_cld(struct emit *e)
{
	emit8(e, 0xfc);
}

static inline void emit_lahf(struct emit *e)
{
	emit8(e, 0x9f);
}

static inline void emit_sahf(struct emit *e)
{
	emit8(e, 0x9e);
}

static inline void emit_pushfq(struct emit *e)
{
	emit8(e, 0x9c);
}

static inline void emit_pop(struct emit *e, int reg)
{
	emit_rex(e, BITS_32, 0, 0, reg);
	emit8(e, 0x58u | ((uint32_t)reg & 7));
}

/* Time, and the strings that `rep` goes through: rcx items of 2^scale bytes at rdi, from rsi or rax */

static inline void emit_rdtsc(struct emit *e)
{
	emit8(e, 0x0f);
	emit8(e, 0x31);
}

static inline void emit_rdtscp(struct emit *e)
{
	emit8(e, 0x0f);
	emit8(e, 0x01);
	emit8(e, 0xf9);
}

/* `opcode` is that of bytes; the next is for all that is wider. */
static inline void emit_rep(struct emit *e, uint8_t opcode, uint32_t scale)
{
	if (scale == 1)
		emit8(e, 0x66);
	emit8(e, 0xf3);
	emit_rex(e, scale == 3 ? BITS_64 : BITS_32, 0, 0, 0);
	emit8(e, opcode + (scale ? 1u : 0));
}

static inline void emit_rep_movs(struct emit *e, uint32_t scale)
{
	emit_rep(e, 0xa4, scale);
}

static inline void emit_rep_stos(struct emit *e, uint32_t scale)
{
	emit_rep(e, 0xaa, scale);
}

#endif
