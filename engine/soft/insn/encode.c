/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host form of an instruction: its own bytes, with another memory operand, and with the
 * prefixes that give it in 64-bit code the operand size that it had in the guest's.
 *
 * No general encoder: prefixes, ModRM, REX and VEX are put together anew from what the decoder
 * found, opcode and immediate are copied. Tested by tests/soft/test_encode.c.
 */
#include "engine/soft/insn/decode.h"

#include <string.h>

#define RAX_NUMBER 0u
#define REX_W	   8u
#define REX_R	   4u
#define REX_X	   2u
#define REX_B	   1u

struct writer {
	uint8_t *out;
	uint32_t count;
};

static void put(struct writer *w, uint32_t byte)
{
	w->out[w->count++] = (uint8_t)byte;
}

static void put_prefixes(struct writer *w, const struct soft_insn *insn)
{
	const ZydisDecodedInstruction *z = &insn->z;
	bool code64 = z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64, size_prefix = false;

	for (uint32_t i = 0; i < z->raw.prefix_count; i++) {
		uint8_t value = z->raw.prefixes[i].value;

		if (value == 0xf0 || value == 0xf2 || value == 0xf3)
			put(w, value);
		if (value == 0x66 &&
		    (code64 || z->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY))
			size_prefix = true;
	}
	if (!code64 && z->operand_width == 16 &&
	    ((z->opcode_map != ZYDIS_OPCODE_MAP_0F38 && z->opcode_map != ZYDIS_OPCODE_MAP_0F3A) ||
	     z->mnemonic == ZYDIS_MNEMONIC_MOVBE || z->mnemonic == ZYDIS_MNEMONIC_CRC32))
		size_prefix = true;
	if (size_prefix)
		put(w, 0x66);
}

static void put_opcode(struct writer *w, const struct soft_insn *insn)
{
	switch (insn->z.opcode_map) {
	case ZYDIS_OPCODE_MAP_0F:
		put(w, 0x0f);
		break;
	case ZYDIS_OPCODE_MAP_0F38:
		put(w, 0x0f);
		put(w, 0x38);
		break;
	case ZYDIS_OPCODE_MAP_0F3A:
		put(w, 0x0f);
		put(w, 0x3a);
		break;
	case ZYDIS_OPCODE_MAP_0F0F:
		put(w, 0x0f);
		put(w, 0x0f);
		break;
	default:
		break;
	}
	/* 82 is 80 once more, and gone in 64-bit code. */
	if (insn->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && insn->z.opcode == 0x82)
		put(w, 0x80);
	else if (insn->z.opcode_map != ZYDIS_OPCODE_MAP_0F0F)
		put(w, insn->z.opcode);
}

/* Where the immediate begins: behind ModRM, SIB and displacement, or as the decoder says. */
static uint32_t tail_offset(const struct soft_insn *insn)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;

	if (raw->disp.size)
		return raw->disp.offset + raw->disp.size / 8u;
	if (raw->sib.offset)
		return raw->sib.offset + 1u;
	if (insn->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
		return raw->modrm.offset ? raw->modrm.offset + 1u : insn->length;
	return raw->imm[0].size ? raw->imm[0].offset : insn->length;
}

/* A register in the immediate, of which 32-bit code has eight (VBLENDVPS and its like). */
static bool names_register(const struct soft_insn *insn)
{
	return insn->z.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
	       insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
	       insn->z.opcode_map == ZYDIS_OPCODE_MAP_0F3A && insn->z.opcode >= 0x4a &&
	       insn->z.opcode <= 0x4c;
}

/* ModRM, SIB and displacement. Bases 4 and 12 need a SIB byte, 5 and 13 a displacement. */
static void put_operand(struct writer *w, uint32_t reg, struct host_operand at)
{
	bool sib = at.index >= 0 || (at.base & 7) == 4;
	bool none = at.displacement == 0 && (at.base & 7) != 5;
	bool small = at.displacement == (int8_t)at.displacement;
	uint32_t mod = none ? 0 : small ? 1 : 2;

	put(w, mod << 6 | (reg & 7) << 3 | (sib ? 4 : (uint32_t)at.base & 7));
	if (sib)
		put(w, at.scale << 6 | (at.index >= 0 ? (uint32_t)at.index & 7 : 4u) << 3 |
			       ((uint32_t)at.base & 7));
	for (uint32_t i = 0; i < (none ? 0 : small ? 1u : 4u); i++)
		put(w, (uint32_t)at.displacement >> (8 * i) & 0xff);
}

static uint32_t rex_of(struct host_operand at)
{
	return (at.base >= 8 ? REX_B : 0) | (at.index >= 8 ? REX_X : 0);
}

static void put_tail(struct writer *w, const struct soft_insn *insn, struct host_operand at)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	bool has_modrm = insn->z.attributes & ZYDIS_ATTRIB_HAS_MODRM;

	if (has_modrm && insn->memory >= 0)
		put_operand(w, raw->modrm.reg, at);
	else if (has_modrm)
		put(w, (uint32_t)raw->modrm.mod << 6 | (uint32_t)(raw->modrm.reg & 7) << 3 |
			       (raw->modrm.rm & 7));
	for (uint32_t i = tail_offset(insn); i < insn->length; i++)
		put(w, insn->bytes[i]);
	if (names_register(insn))
		w->out[w->count - 1] &= 0x7f;
}

/* In 32-bit code VEX.W makes no general register wide. */
static bool ignores_w(const struct soft_insn *insn)
{
	if (insn->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
		return false;
	return insn->operand_registers || insn->z.meta.category == ZYDIS_CATEGORY_CONVERT ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_VMOVD ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_VPINSRD ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_VPEXTRD;
}

static uint32_t encode_vex(const struct soft_insn *insn, struct host_operand at, struct writer *w)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	uint32_t r = raw->vex.R, x = raw->vex.X, b = raw->vex.B;

	/* R, X, B and vvvv are inverted, in the prefix and as the decoder has them. */
	if (insn->memory >= 0) {
		x = !(rex_of(at) & REX_X);
		b = !(rex_of(at) & REX_B);
	}
	put(w, 0xc4);
	put(w, r << 7 | x << 6 | b << 5 | raw->vex.m_mmmm);
	put(w, (uint32_t)(raw->vex.W && !ignores_w(insn)) << 7 |
		       (uint32_t)(raw->vex.vvvv & 15) << 3 | (uint32_t)raw->vex.L << 2 |
		       raw->vex.pp);
	put(w, insn->z.opcode);
	put_tail(w, insn, at);
	return w->count;
}

/* Instructions whose short forms are gone in 64-bit code, or whose form has the address in it. */
static bool encode_special(const struct soft_insn *insn, struct host_operand at, struct writer *w)
{
	uint8_t opcode = insn->z.opcode;
	bool code64 = insn->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;

	if (insn->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		return false;
	if (!code64 && opcode >= 0x40 && opcode <= 0x4f) {
		put_prefixes(w, insn);
		put(w, 0xff);
		put(w, (opcode & 8 ? 0xc8u : 0xc0u) | (opcode & 7));
		return true;
	}
	if (opcode >= 0xa0 && opcode <= 0xa3) { /* al, eax, rax <-> moffs */
		uint32_t rex = (insn->z.raw.rex.W ? REX_W : 0) | rex_of(at);

		put_prefixes(w, insn);
		if (rex)
			put(w, 0x40 | rex);
		put(w, (opcode & 2 ? 0x88u : 0x8au) | (opcode & 1));
		put_operand(w, RAX_NUMBER, at);
		return true;
	}
	return false;
}

uint32_t soft_encode(const struct soft_insn *insn, struct host_operand at, uint8_t *out)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	struct writer w = { .out = out };
	uint32_t rex = 0;

	if (insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return encode_vex(insn, at, &w);
	if (encode_special(insn, at, &w))
		return w.count;
	put_prefixes(&w, insn);
	if (insn->z.attributes & ZYDIS_ATTRIB_HAS_REX)
		rex = 0x40u | (raw->rex.W ? REX_W : 0) | (raw->rex.R ? REX_R : 0) |
		      (raw->rex.X ? REX_X : 0) | (raw->rex.B ? REX_B : 0);
	if (insn->memory >= 0) {
		rex &= ~(REX_X | REX_B);
		if (rex_of(at))
			rex |= 0x40 | rex_of(at);
	}
	if (rex)
		put(&w, rex);
	put_opcode(&w, insn);
	put_tail(&w, insn, at);
	return w.count;
}

static uint32_t encode_move(uint8_t opcode, int reg, struct host_operand at, uint8_t *out)
{
	struct writer w = { .out = out };

	put(&w, 0x40 | REX_W | (reg >= 8 ? REX_R : 0) | rex_of(at));
	put(&w, opcode);
	put_operand(&w, (uint32_t)reg, at);
	return w.count;
}

uint32_t soft_encode_load(int reg, struct host_operand at, uint8_t *out)
{
	return encode_move(0x8b, reg, at, out);
}

uint32_t soft_encode_store(int reg, struct host_operand at, uint8_t *out)
{
	return encode_move(0x89, reg, at, out);
}

uint32_t soft_encode_store_imm(int32_t value, struct host_operand at, uint8_t *out)
{
	uint32_t count = encode_move(0xc7, 0, at, out);

	memcpy(out + count, &value, sizeof(value));
	return count + (uint32_t)sizeof(value);
}

uint32_t soft_encode_lea(const struct soft_insn *insn, int to, uint8_t *out)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	bool vex = insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX, x, b;
	struct writer w = { .out = out };

	x = vex ? !raw->vex.X : raw->rex.X;
	b = vex ? !raw->vex.B : raw->rex.B;
	put(&w, 0x40 | (insn->z.address_width == 64 ? REX_W : 0) | (to >= 8 ? REX_R : 0) |
			(x ? REX_X : 0) | (b ? REX_B : 0));
	put(&w, 0x8d);
	put(&w, (uint32_t)raw->modrm.mod << 6 | ((uint32_t)to & 7) << 3 | (raw->modrm.rm & 7));
	if (raw->modrm.mod != 3 && (raw->modrm.rm & 7) == 4)
		put(&w, insn->bytes[raw->sib.offset]);
	for (uint32_t i = 0; i < raw->disp.size / 8u; i++)
		put(&w, insn->bytes[raw->disp.offset + i]);
	return w.count;
}
