/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic flags to the slot and back: LAHF has all but OF, SETO has that. al is 1 or 0, and
 * adding 127 to it overflows or does not.
 */
#include "engine/soft/translate/translate.h"

void tr_save_flags(struct tr *tr)
{
	static const uint8_t lahf_seto[] = { 0x9f, 0x0f, 0x90, 0xc0 };
	int kept = tr_scratch(tr);

	tr_record(tr, tr->rip);
	emit_move(&tr->e, kept, RAX);
	emit_bytes(&tr->e, lahf_seto, sizeof(lahf_seto));
	emit_gs(&tr->e, false, 0x89, RAX, VCPU_SLOT);
	emit_move(&tr->e, RAX, kept);
	tr->flags = FLAGS_IN_SLOT;
	tr_record(tr, tr->rip);
}

void tr_restore_flags(struct tr *tr, int scratch)
{
	static const uint8_t add_sahf[] = { 0x04, 0x7f, 0x9e };

	emit_move(&tr->e, scratch, RAX);
	emit_gs(&tr->e, false, 0x8b, RAX, VCPU_SLOT);
	emit_bytes(&tr->e, add_sahf, sizeof(add_sahf));
	emit_move(&tr->e, RAX, scratch);
}
