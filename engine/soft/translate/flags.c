/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic flags to the slot and back: LAHF has all but OF, SETO has that. al is 1 or 0, and
 * adding 127 to it overflows or does not.
 */
#include "engine/soft/translate/translate.h"

void tr_save_flags(struct tr *tr)
{
	struct emit *e = &tr->e;
	int kept = tr_scratch(tr);

	tr_record(tr, tr->rip);
	emit_mov(e, kept, RAX);
	emit_lahf(e);
	emit_set8(e, CC_O, RAX);
	emit_store32(e, RAX, VCPU_SLOT);
	emit_mov(e, RAX, kept);
	tr->flags = FLAGS_IN_SLOT;
	tr_record(tr, tr->rip);
}

void tr_restore_flags(struct tr *tr, int scratch)
{
	struct emit *e = &tr->e;

	emit_mov(e, scratch, RAX);
	emit_load32(e, RAX, VCPU_SLOT);
	emit_add_al_imm(e, 127);
	emit_sahf(e);
	emit_mov(e, RAX, scratch);
}
