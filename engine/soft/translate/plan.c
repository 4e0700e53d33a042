/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which accesses of a block will share a look into the TLB: found before it is translated, by
 * following each register through the constants that are added to it. translate/share.c says what
 * groups and sets are, and makes the code.
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/cache/cache.h"
#include "engine/soft/translate/translator.h"

/*
 * How far constants may take a register, and how far a loop's group may be from it, so that one
 * minus the other (of an index 8 times) fits a displacement.
 */
#define DISTANCE_MAX (1 << 26)
#define LOW_MAX	     (1 << 30)

/* Where a register is, as far as known: a value that nobody knows (its version), plus delta. */
struct origin {
	uint32_t version;
	int64_t delta;
};

static bool is_stack(enum tr_kind kind, const struct soft_insn *insn)
{
	switch (kind) {
	case KIND_PUSH:
		return insn->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY;
	case KIND_POP:
	case KIND_LEAVE:
		return true;
	case KIND_JUMP:
		return insn->z.meta.category == ZYDIS_CATEGORY_RET ||
		       (insn->z.meta.category == ZYDIS_CATEGORY_CALL &&
			insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE);
	default:
		return false;
	}
}

/* JMP and CALL to what is in memory. */
static bool loads_target(enum tr_kind kind, const struct soft_insn *insn)
{
	return kind == KIND_JUMP && insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
	       insn->z.meta.category != ZYDIS_CATEGORY_RET;
}

static bool is_computed_call(enum tr_kind kind, const struct soft_insn *insn)
{
	return kind == KIND_JUMP && insn->z.meta.category == ZYDIS_CATEGORY_CALL &&
	       insn->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static bool pushes(enum tr_kind kind, const struct soft_insn *insn)
{
	return kind == KIND_PUSH ||
	       (kind == KIND_JUMP && insn->z.meta.category == ZYDIS_CATEGORY_CALL);
}

/* Base and index, in a loop that does not change the base (written: what is changed). */
static bool index_access(const ZydisDecodedOperandMem *mem, uint16_t written,
			 struct tr_access *access)
{
	int base = soft_register_number(mem->base), index = soft_register_number(mem->index);

	access->base = (int8_t)base;
	access->index = (int8_t)index;
	access->scale = (uint8_t)__builtin_ctz(mem->scale);
	return base >= 0 && !tr_is_high(base) && base != RSP && !tr_names(written, base) &&
	       index >= 0 && !tr_is_high(index) && index != base &&
	       access->disp >= INT32_MIN + SOFT_SPAN_MAX;
}

/*
 * Is the operand one that this file knows? Then where. written: the registers that the block
 * changes, if it is a loop; else all.
 */
static bool operand_access(const struct soft_insn *insn, uint64_t next, uint16_t written,
			   struct tr_access *access)
{
	const ZydisDecodedOperandMem *mem;
	int base;

	if (insn->memory < 0 || insn->high_byte || soft_insn_is_bit_string(insn) ||
	    insn->z.address_width != 64)
		return false;
	mem = &insn->op[insn->memory].mem;
	if (mem->segment == ZYDIS_REGISTER_FS || mem->segment == ZYDIS_REGISTER_GS)
		return false;
	access->bytes = insn->memory_bytes;
	access->write = insn->memory_write;
	access->disp = mem->disp.has_displacement ? mem->disp.value : 0;
	if (mem->index != ZYDIS_REGISTER_NONE)
		return index_access(mem, written, access);
	if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_NONE) {
		access->base = BASE_CONSTANT;
		if (mem->base == ZYDIS_REGISTER_RIP)
			access->disp += (int64_t)next;
		return ((uint64_t)access->disp & (PAGE_BYTES - 1)) + access->bytes <= PAGE_BYTES;
	}
	base = soft_register_number(mem->base);
	access->base = (int8_t)base;
	/* A neighbour below it has to fit the leader's displacement, too. */
	if (tr_is_high(base))
		return access->disp > -LOW_MAX && access->disp < LOW_MAX;
	return base >= 0 && access->disp >= INT32_MIN + SOFT_SPAN_MAX;
}

static bool stack_access(const struct soft_insn *insn, enum tr_kind kind, struct tr_access *access)
{
	bool push = pushes(kind, insn);

	if (!is_stack(kind, insn) && !is_computed_call(kind, insn))
		return false;
	*access = (struct tr_access){ .base = kind == KIND_LEAVE ? RBP : RSP,
				      .index = -1,
				      .disp = push ? -8 : 0,
				      .bytes = 8,
				      .write = push };
	return true;
}

/* The constant that an instruction adds to the one register that it changes. */
static bool adds_constant(const struct soft_insn *insn, int *ret_reg, int64_t *ret_constant)
{
	const ZydisDecodedOperand *op = insn->op;

	if (op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || insn->z.operand_width != 64)
		return false;
	*ret_reg = soft_register_number(op[0].reg.value);
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_INC:
	case ZYDIS_MNEMONIC_DEC:
		*ret_constant = insn->z.mnemonic == ZYDIS_MNEMONIC_INC ? 1 : -1;
		return true;
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
		*ret_constant = insn->z.mnemonic == ZYDIS_MNEMONIC_ADD ? op[1].imm.value.s
								       : -op[1].imm.value.s;
		return op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	case ZYDIS_MNEMONIC_LEA:
		*ret_constant = op[1].mem.disp.has_displacement ? op[1].mem.disp.value : 0;
		return op[1].mem.base == op[0].reg.value &&
		       op[1].mem.index == ZYDIS_REGISTER_NONE && insn->z.address_width == 64;
	default:
		return false;
	}
}

static void follow(struct origin *origin, const struct soft_insn *insn, enum tr_kind kind)
{
	int64_t constant = 0;
	int reg = -1;

	if (kind == KIND_PUSH || kind == KIND_POP || kind == KIND_PUSHF) {
		origin[RSP].delta += kind == KIND_POP ? 8 : -8;
		if (kind == KIND_POP)
			origin[soft_register_number(insn->op[0].reg.value)].version++;
		return;
	}
	if (kind == KIND_LEAVE) {
		origin[RSP].version++;
		origin[RBP].version++;
		return;
	}
	if (kind == KIND_JUMP && soft_insn_may_be_followed(insn)) {
		origin[RSP].delta -= pushes(kind, insn) ? 8 : 0;
		return;
	}
	if (adds_constant(insn, &reg, &constant) && constant < DISTANCE_MAX &&
	    constant > -DISTANCE_MAX && origin[reg].delta < DISTANCE_MAX &&
	    origin[reg].delta > -DISTANCE_MAX) {
		origin[reg].delta += constant;
		return;
	}
	for (int i = 0; i < GPR_COUNT; i++)
		if (tr_names(insn->registers_write, i))
			origin[i].version++;
}

/* Can the access join the group? Then the group reaches as far. */
static bool join(struct tr_group *group, const struct tr_access *access, uint32_t version,
		 int64_t low, uint8_t side_exits)
{
	int64_t span = soft_cache_span(group->narrow);
	int64_t high = low + access->bytes;

	if (!span || group->base != access->base || group->index != access->index ||
	    group->scale != access->scale || group->version != version)
		return false;
	/* Who leaves by a side exit before it writes must not need a page that can be written. */
	if (access->write && !group->write && group->side_exits != side_exits)
		return false;
	if (access->base == BASE_CONSTANT) {
		if ((uint64_t)(group->low ^ low) >= PAGE_BYTES)
			return false;
	} else {
		int64_t from = low < group->low ? low : group->low;
		int64_t to = high > group->high ? high : group->high;

		if (to - from > span)
			return false;
		group->low = from;
		group->high = to;
	}
	group->write = group->write || access->write;
	group->members++;
	return true;
}

/* offset: of the instruction, from the block's start */
static void add_access(struct tr *tr, struct tr_access *access, uint8_t insn, uint32_t offset,
		       const struct origin *origin)
{
	uint8_t narrow = soft_cache_narrow(tr->t->vcpu->engine, tr->t->gpa + offset);
	int moves = access->index >= 0 ? access->index : access->base;
	uint32_t version = origin[moves].version;
	int64_t low;

	access->shift = origin[moves].delta * (1 << access->scale);
	low = access->shift + access->disp;
	for (uint32_t g = tr->group_count; g-- > 0;) {
		if (join(&tr->group[g], access, version, low, tr->side_exits)) {
			access->group = (uint8_t)g;
			return;
		}
	}
	if (tr->group_count == GROUPS_MAX)
		return;
	access->leader = true;
	access->group = (uint8_t)tr->group_count;
	tr->group[tr->group_count++] = (struct tr_group){ .base = access->base,
							  .index = access->index,
							  .scale = access->scale,
							  .version = version,
							  .low = low,
							  .high = low + access->bytes,
							  .write = access->write,
							  .members = 1,
							  .side_exits = tr->side_exits,
							  .first = insn,
							  .offset = (uint8_t)offset,
							  .narrow = narrow,
							  .lead_shift = access->shift };
}

/* Does the block's last instruction jump to its first? */
static bool is_loop(const struct soft_translation *t)
{
	const struct soft_insn *last = &t->insn[t->count - 1];
	uint64_t next = t->rip + (uint64_t)t->offset[t->count - 1] + last->length;

	return last->z.meta.category == ZYDIS_CATEGORY_COND_BR && tr_is_jump(last) &&
	       tr_is_jcc(last) && next + last->op[0].imm.value.u == t->rip;
}

/* A group that loops goes to the first set that takes it, or begins one. */
static void find_set(struct tr *tr, uint8_t g)
{
	struct tr_group *group = &tr->group[g];

	group->set = group->clock = g;
	for (uint8_t s = 0; s < g; s++) {
		struct tr_group *set = &tr->group[s];
		int32_t step = tr->group[set->clock].step;

		if (!set->loops || set->set != s || (step && group->step && step != group->step))
			continue;
		group->set = s;
		if (!step)
			set->clock = g;
		tr->access[group->first].leader = false;
		return;
	}
}

static int64_t distance(const struct tr_group *group, const struct origin *origin)
{
	return origin[tr_moving(group)].delta * (1 << group->scale);
}

static void find_shifts(struct tr *tr)
{
	struct origin origin[GPR_COUNT + 1] = { 0 };
	const struct soft_translation *t = tr->t;

	for (uint32_t i = 0; i < t->count; i++) {
		for (uint32_t g = 0; g < tr->group_count; g++) {
			struct tr_group *group = &tr->group[g];

			if (group->loops && tr->group[group->set].first == i)
				group->shift = distance(group, origin);
		}
		follow(origin, &t->insn[i], tr_kind(&t->insn[i], t->mode));
	}
}

/* A group with an index that does not loop is none; nor is one of one off r10 or r11. */
static void dissolve(struct tr *tr, uint32_t g)
{
	for (uint32_t i = 0; i <= tr->t->count; i++)
		if (tr->access[i].group == g)
			tr->access[i] = (struct tr_access){ .index = -1, .group = GROUP_NONE };
}

/* origin: at the block's end */
static void find_loops(struct tr *tr, const struct origin *origin)
{
	uint32_t pins = 0;

	for (uint8_t g = 0; g < tr->group_count; g++) {
		struct tr_group *group = &tr->group[g];
		int64_t step = distance(group, origin);

		group->loops = group->base != BASE_CONSTANT && !tr_is_high(group->base) &&
			       origin[tr_moving(group)].version == 0 && group->low > -LOW_MAX &&
			       group->low < LOW_MAX && step <= STRIDE_MAX && step >= -STRIDE_MAX;
		if (!group->loops && group->index >= 0)
			dissolve(tr, g);
		if (!group->loops)
			continue;
		tr->loops = true;
		group->step = (int32_t)step;
		find_set(tr, g);
		if (pins < 2)
			tr->pinned[pins++] = g;
	}
	find_shifts(tr);
}

/* Does it jump to its own start? And the registers that it changes; all, if not. */
static bool find_written(const struct soft_translation *t, uint16_t *ret_written)
{
	*ret_written = 0;
	for (uint32_t i = 0; i < t->count; i++)
		*ret_written |= t->insn[i].registers_write;
	if (is_loop(t))
		return true;
	*ret_written = UINT16_MAX;
	return false;
}

/* The instruction's access, or what a computed call pushes (then i is one more). */
static void plan_access(struct tr *tr, uint32_t i, const struct soft_insn *insn, uint64_t next,
			uint16_t written, uint32_t offset, const struct origin *origin)
{
	enum tr_kind kind = tr_kind(insn, tr->t->mode);
	struct tr_access *access = &tr->access[i];
	bool operand = i < tr->t->count && (kind == KIND_PLAIN || loads_target(kind, insn));

	if (tr->t->mode & MODE_ALONE)
		return;
	/* It has to look for the edge of a line. */
	if (tr->t->vcpu->engine->split_locks_looked_for && soft_insn_is_locked(insn))
		return;
	if (operand ? operand_access(insn, next, written, access)
		    : stack_access(insn, kind, access)) {
		access->group = GROUP_NONE;
		add_access(tr, access, (uint8_t)i, offset, origin);
	}
}

void tr_share_plan(struct tr *tr)
{
	const struct soft_translation *t = tr->t;
	struct origin origin[GPR_COUNT + 1] = { 0 };
	uint32_t offset = 0; /* as if all of it were in a row: it has to fit SOFT_REACH */
	uint16_t written;
	bool loop = find_written(t, &written);

	tr->held[0] = tr->held[1] = GROUP_NONE;
	tr->pinned[0] = tr->pinned[1] = GROUP_NONE;
	for (uint32_t i = 0; i <= t->count; i++)
		tr->access[i] = (struct tr_access){ .index = -1, .group = GROUP_NONE };
	for (uint32_t i = 0; i < t->count; i++) {
		const struct soft_insn *insn = &t->insn[i];
		enum tr_kind kind = tr_kind(insn, t->mode);
		uint64_t next = t->rip + (uint64_t)t->offset[i] + insn->length;

		if (!is_computed_call(kind, insn) || loads_target(kind, insn))
			plan_access(tr, i, insn, next, written, offset, origin);
		if (is_computed_call(kind, insn))
			plan_access(tr, t->count, insn, next, written, offset, origin);
		follow(origin, insn, kind);
		tr->side_exits += kind == KIND_JUMP && !tr_is_followed(t, i);
		offset += insn->length;
	}
	if (loop)
		find_loops(tr, origin);
	for (uint32_t g = 0; g < tr->group_count; g++)
		if (tr->group[g].members == 1 && tr_is_high(tr->group[g].base))
			dissolve(tr, g);
}
