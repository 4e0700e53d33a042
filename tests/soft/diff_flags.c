/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which flags may be undefined where, so that only defined ones are compared.
 *
 * A pass over the code in its order. Where control may come from elsewhere (behind a transfer, at
 * the target of a jump or of a RIP-relative lea) every flag that any instruction of the sequence
 * leaves undefined may be undefined: too many, never too few. A sequence in which an instruction
 * reads such a flag has no defined outcome, and is called tainted.
 */
#include <string.h>

#include "tests/soft/diff_decode.h"

/* Does a count of zero leave all flags as they were, and may the count be zero? */
static bool keeps_flags(const struct diff_insn *i)
{
	bool repeated = i->insn.attributes &
			(ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
	bool shift = i->insn.meta.category == ZYDIS_CATEGORY_SHIFT ||
		     i->insn.meta.category == ZYDIS_CATEGORY_ROTATE;
	bool by_one = i->insn.opcode == 0xd0 || i->insn.opcode == 0xd1;

	if (i->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	return repeated || (shift && !by_one);
}

/* Zydis has the manual's table, which says "undefined" for some counts of a shift only. */
static uint32_t shift_undefined(const struct diff_insn *i)
{
	switch (i->insn.mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
		return FLAG_OF | FLAG_AF | (i->insn.operand_width < 32 ? FLAG_CF : 0);
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return i->insn.operand_width < 32 ? FLAGS_ARITHMETIC : FLAG_OF | FLAG_AF;
	default:
		return FLAG_OF;
	}
}

uint32_t diff_insn_undefined(const struct diff_insn *i, uint32_t before)
{
	const ZydisAccessedFlags *flags = i->insn.cpu_flags;
	uint32_t written, undefined;

	if (!flags)
		return before;
	written = flags->modified | flags->set_0 | flags->set_1;
	undefined = flags->undefined & FLAGS_ARITHMETIC;
	if (keeps_flags(i)) {
		written = 0;
		if (i->insn.meta.category != ZYDIS_CATEGORY_STRINGOP)
			undefined |= shift_undefined(i);
	}
	return (before & ~written) | undefined;
}

uint32_t diff_insn_reads(const struct diff_insn *i)
{
	return i->insn.cpu_flags ? i->insn.cpu_flags->tested & FLAGS_ARITHMETIC : 0;
}

static bool is_transfer(const struct diff_insn *i)
{
	switch (i->insn.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_RET:
		return true;
	default:
		return false;
	}
}

/* Where an instruction points to within the code: a relative jump or lea. False: nowhere. */
static bool points_to(const struct diff_case *c, uint32_t at, const struct diff_insn *i,
		      uint32_t *ret_to)
{
	int64_t to = (int64_t)at + i->insn.length;

	if (i->insn.raw.imm[0].is_relative)
		to += i->insn.raw.imm[0].value.s;
	else if (i->insn.mnemonic == ZYDIS_MNEMONIC_LEA &&
		 i->operand[1].mem.base == ZYDIS_REGISTER_RIP)
		to += i->insn.raw.disp.value;
	else
		return false;
	if (to < 0 || to > (int64_t)c->code_bytes)
		return false;
	*ret_to = (uint32_t)to;
	return true;
}

/* To where a register points that random code has set: into the code itself, too. */
static bool writes_anywhere(const struct diff_insn *i)
{
	return i->insn.meta.category == ZYDIS_CATEGORY_STRINGOP ||
	       i->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
	       i->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       i->insn.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

/* Instructions, places to which control may come, and the union of what may be undefined. */
static uint32_t find_labels(struct diff_case *c, bool label[DIFF_CODE_MAX + 1])
{
	uint32_t at = 0, all = 0, to;
	struct diff_insn i;

	c->insn_count = 0;
	c->strings = false;
	while (at < c->code_bytes && c->insn_count < DIFF_INSN_MAX) {
		c->offset[c->insn_count++] = (uint16_t)at;
		if (!diff_decode(c->mode, c->code + at, c->code_bytes - at, &i)) {
			at = c->code_bytes;
			break;
		}
		if (writes_anywhere(&i))
			c->strings = true;
		if (points_to(c, at, &i, &to))
			label[to] = true;
		at += i.insn.length;
		if (is_transfer(&i))
			label[at] = true;
		all |= diff_insn_undefined(&i, 0);
	}
	c->offset[c->insn_count] = (uint16_t)at;
	return all;
}

void diff_analyse(struct diff_case *c)
{
	bool label[DIFF_CODE_MAX + 1] = { false };
	uint32_t all = find_labels(c, label), now = 0;
	struct diff_insn i;

	c->tainted = false;
	for (uint32_t n = 0; n <= c->insn_count; n++) {
		uint32_t at = c->offset[n];

		if (label[at])
			now |= all;
		c->undefined[n] = (uint16_t)now;
		if (n == c->insn_count ||
		    !diff_decode(c->mode, c->code + at, c->code_bytes - at, &i))
			break;
		if (diff_insn_reads(&i) & now)
			c->tainted = true;
		now = diff_insn_undefined(&i, now);
	}
}
