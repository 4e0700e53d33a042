/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REP MOVS and REP STOS in line, where all of it lies in one page on each side, upwards:
 *
 *      DF? ; rcx = 0, or too many?                     then C steps it
 *      a look for rdi, and for rsi; the same page at the end?
 *      add rdi, r10 ; add rsi, r11                     the addends
 *      rep movs                                        by the host's addresses
 *      sub rsi, r11 ; sub rdi, r10
 *
 * At the host's instruction the guest's pointers are the host's less the addends, however far it has
 * come: who is stopped there has done a part, as on a CPU (SDM vol. 2, REP), and goes on from there.
 */
#include "engine/soft/translate/translate.h"

static uint32_t scale_of(const struct soft_insn *insn)
{
	if (!(insn->z.opcode & 1))
		return 0;
	return insn->z.operand_width == 64 ? 3 : insn->z.operand_width == 32 ? 2 : 1;
}

static bool moves(const struct soft_insn *insn)
{
	return insn->z.opcode < 0xa6;
}

bool tr_is_string(const struct soft_insn *insn)
{
	const uint64_t unknown = ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_SEGMENT_FS |
				 ZYDIS_ATTRIB_HAS_SEGMENT_GS | ZYDIS_ATTRIB_HAS_LOCK;

	if (insn->z.meta.category != ZYDIS_CATEGORY_STRINGOP || insn->z.address_width != 64 ||
	    insn->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
	    insn->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
	    !(insn->z.attributes & ZYDIS_ATTRIB_HAS_REP) || (insn->z.attributes & unknown))
		return false;
	return insn->z.opcode == 0xa4 || insn->z.opcode == 0xa5 || insn->z.opcode == 0xaa ||
	       insn->z.opcode == 0xab;
}

static void step_if_down(struct tr *tr)
{
	struct emit *e = &tr->e;

	tr_clean(tr);
	tr_direction(tr);
	tr_record(tr, tr->rip);
	emit_and32_imm(e, R11, (uint32_t)FLAG_DF);
	tr_step_if(tr, CC_NE);
}

/* r11 := the addend of the page that the pointer is on, if rcx items from there on are. */
static void look(struct tr *tr, int pointer, bool write, uint32_t scale)
{
	struct emit *e = &tr->e;

	emit_mov(e, R10, pointer);
	tr_entry(tr, write);
	emit_cmp_imm(e, R10, PAGE_BYTES - (1u << scale));
	tr_step_if(tr, CC_A);
	emit_lea_index(e, R10, R10, RCX, scale, 0);
	emit_cmp_imm(e, R10, PAGE_BYTES);
	tr_step_if(tr, CC_A);
	tr_addend(tr);
}

void tr_string(struct tr *tr, const struct soft_insn *insn)
{
	uint32_t scale = scale_of(insn);
	struct emit *e = &tr->e;
	bool both = moves(insn);

	if (tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_forget(tr, R10);
	tr_forget(tr, R11);
	tr_record(tr, tr->rip);
	step_if_down(tr);
	emit_lea(e, R11, RCX, -1);
	emit_cmp_imm(e, R11, (PAGE_BYTES >> scale) - 1);
	tr_step_if(tr, CC_A); /* none, too */
	look(tr, RDI, true, scale);
	if (both) {
		emit_store(e, R11, VCPU_SCRATCH);
		look(tr, RSI, false, scale);
		emit_load(e, R10, VCPU_SCRATCH);
	} else {
		emit_mov(e, R10, R11);
	}
	tr_clean(tr);
	emit_add(e, RDI, R10);
	if (both)
		emit_add(e, RSI, R11);
	tr_record(tr, tr->rip)->string = both ? STRING_MOVES : STRING_STORES;
	if (both) {
		emit_rep_movs(e, scale);
		emit_sub(e, RSI, R11);
	} else {
		emit_rep_stos(e, scale);
	}
	emit_sub(e, RDI, R10);
	tr_record(tr, tr->next);
}
