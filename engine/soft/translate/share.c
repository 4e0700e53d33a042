/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look into the TLB for many accesses: those of a block that go to one page as far as can be
 * seen when it is translated.
 *
 * Two accesses are neighbours if their addresses are a register that is not changed in between
 * (but by constants: push, pop, add, lea), plus constants within a span of some bytes; or
 * constants on one page. The first of such a group, the leader, looks for all of them: it
 * compares the lowest address's page, so that the highest one's end is still inside, and it asks
 * for write access if any of them writes. What is found, the page's addend (host address - guest
 * address), stays in r11 or r10 while nothing else needs the register, and in a slot of the vCPU:
 *
 *      leader   lea r10,[rbx+lo]; mov r11d,r10d; shr; sub r10,gs:[r11*8+tag];
 *               cmp r10,4096-span; ja miss; mov r11,gs:[r11*8+addend]; mov gs:[slot],r11
 *      access   op [rbx+disp+r11]
 *      others   (mov r11,gs:[slot];) op [rbx+disp+r11]
 *
 * A block that jumps back to its own start keeps what it has found: a group whose register stays as
 * it is, or goes on by constants, is on its page until the register reaches a limit. Groups whose
 * registers go on by the same, or stay, are a set: they have one limit, the nearest, and the first
 * access of the set compares with that for all of them; when it is reached, they are all looked up.
 * The first two groups of a loop have r10 and r11 from round to round:
 *
 *      first    cmp rbx,gs:[limit]; jae look; op [rbx+disp+r10]
 *      others   op [rsi+disp+r11]
 *
 * In such a loop the register may as well be an index, off a base that stays; then the base is in
 * r10 or r11, or the slot, with the addend:
 *
 *      first    cmp rcx,gs:[limit]; jae look; op [r10+rcx*8+disp]
 *
 * A group off r10 or r11, which are in memory, has that register and the addend in one:
 *
 *      leader   mov r10,gs:[guest's r10]; lea r10,[r10+lo]; ... mov r11,gs:[r11*8+addend];
 *               add r11,gs:[guest's r10]; mov gs:[slot],r11
 *      others   (mov r11,gs:[slot];) op [r11+disp]
 *
 * A program's leader off rsp asks the stack page of the code nearby, which needs neither an index nor
 * the table; if the stack is on another page now, that becomes the stack page, off the path:
 *
 *      leader   lea r10,[rsp+lo]; sub r10,gs:[page]; cmp r10,4096-span; ja other;
 *               mov r11,gs:[addend]; ...
 *
 * If a leader fails although its own access is fine (the group crosses into the next page, or one
 * that reads cannot write yet), the guest goes on in a block that shares nothing (MODE_ALONE), for
 * this once; a block to which that happens often is translated anew, for a smaller span.
 *
 * An addend stays true to the block's end: what takes entries out of this vCPU's TLB for the sake
 * of others pauses it first (pause.c), which takes it out of the block.
 */
#include "engine/soft/translate/translate.h"

#include "engine/soft/cache/cache.h"

void tr_forget(struct tr *tr, int reg)
{
	tr->held[reg - R10] = GROUP_NONE;
}

int tr_scratch(struct tr *tr)
{
	static const uint8_t order[] = { GROUP_NONE, GROUP_OWN };
	int found = R11;

	for (int i = 1; i >= 0; i--)
		for (int reg = R10; reg <= R11; reg++)
			if (tr->held[reg - R10] == order[i])
				found = reg;
	tr_forget(tr, found);
	return found;
}

int tr_scratch_besides(struct tr *tr, struct host_operand at)
{
	int reg = at.base == R11 || at.index == R11 ? R10 : R11;

	tr_forget(tr, reg);
	return reg;
}

/* The instruction itself wants this one, or -1. */
static int wanted_register(const struct soft_insn *insn)
{
	if (insn && tr_names(insn->operand_registers, R10))
		return R10;
	return insn && tr_names(insn->operand_registers, R11) ? R11 : -1;
}

static uint32_t slot_offset(uint32_t group)
{
	return VCPU_SHARED + 16 * group;
}

#define LAG_MAX (8 * (int32_t)BLOCK_INSNS_MAX)

_Static_assert(GROUPS_MAX <= 32, "a bit for each slot");

static uint32_t stack_page(const struct tr *tr, bool write)
{
	uint32_t near_by = tr->t->rip >> STACK_PAGE_SHIFT & (STACK_PAGES - 1);

	return (uint32_t)offsetof(struct engine_vcpu, stack_page) +
	       (write * STACK_PAGES + near_by) * (uint32_t)sizeof(struct soft_stack_page);
}

#define STACK_ADDEND ((uint32_t)offsetof(struct soft_stack_page, addend))

/* A program's leader off rsp asks a stack page. */
static bool asks_stack_page(const struct tr *tr, const struct tr_group *group)
{
	return group->base == RSP && group->index < 0 && !group->loops &&
	       (tr->t->mode & MODE_VIEW) == VIEW_USER;
}

/*
 * The stack page goes on having the addend: no other group of the block changes it. (C may have let
 * go of it; then it leads nowhere.)
 */
static bool is_in_stack_page(const struct tr *tr, uint32_t group)
{
	uint32_t count = 0;

	for (uint32_t g = 0; g < tr->group_count; g++)
		count += tr->group[g].base == RSP;
	return count == 1 && asks_stack_page(tr, &tr->group[group]);
}

/* reg := the group's addend */
static void load_slot(struct tr *tr, int reg, uint32_t group)
{
	if (is_in_stack_page(tr, group)) {
		emit_load(&tr->e, reg, stack_page(tr, tr->group[group].write) + STACK_ADDEND);
		return;
	}
	tr->slots_loaded |= 1u << group;
	emit_load(&tr->e, reg, slot_offset(group));
}

/* Of a group that does not loop, if anybody will load it. */
static void store_slot(struct tr *tr, int reg, uint32_t group)
{
	tr->slots_stored |= 1u << group;
	if (tr->slots_wanted >> group & 1)
		emit_store(&tr->e, reg, slot_offset(group));
}

/* A set's is in the slot of its first group. */
static uint32_t limit_offset(uint32_t set)
{
	return slot_offset(set) + 8;
}

static int32_t clock_step(const struct tr *tr, uint32_t set)
{
	return tr->group[tr->group[set].clock].step;
}

/* Every register has reached it. */
static void clear_limit(struct tr *tr, uint32_t set)
{
	emit_store_imm(&tr->e, clock_step(tr, set) < 0 ? UINT32_MAX : 0, limit_offset(set));
}

void tr_share_begin(struct tr *tr)
{
	for (uint32_t g = 0; g < tr->group_count; g++)
		if (tr->group[g].loops && tr->group[g].set == g)
			clear_limit(tr, g);
	tr->held[0] = tr->pinned[0];
	tr->held[1] = tr->pinned[1];
}

void tr_share_again(struct tr *tr)
{
	tr_record(tr, tr->rip);
	for (int i = 0; i < 2; i++)
		if (tr->pinned[i] != GROUP_NONE && tr->held[i] != tr->pinned[i])
			load_slot(tr, R10 + i, tr->pinned[i]);
}

/* Who looks for itself alone may cross an edge: that is stepped, and no reason to split. */
static void fill_in(struct tr *tr, struct cold *cold, const struct soft_insn *insn, uint8_t *retry)
{
	const struct tr_access *access = &tr->access[tr->index];
	const struct tr_group *group = &tr->group[access->group];

	tr_miss(cold, insn, access->write, retry);
	cold->access = group->members > 1 || group->loops ? access : NULL;
	cold->stack_base = access->base;
	cold->stack_offset = (int32_t)access->disp;
}

static void hold_found(struct tr *tr, uint8_t group)
{
	tr->held[0] = GROUP_NONE;
	tr->held[1] = group;
	if (tr->group[group].members > 1 && !is_in_stack_page(tr, group))
		store_slot(tr, R11, group);
}

/* The leader of the stack's group, of a program: r11 := the addend. */
static void lead_stack(struct tr *tr, const struct soft_insn *insn, const struct tr_access *access)
{
	const struct tr_group *group = &tr->group[access->group];
	uint32_t at = stack_page(tr, group->write);
	uint8_t *retry = tr->e.at;
	struct cold *cold;

	emit_lea(&tr->e, R10, RSP, (int32_t)(group->low - access->shift));
	emit_sub_gs(&tr->e, R10, at);
	emit_cmp_imm(&tr->e, R10, PAGE_BYTES - (uint32_t)(group->high - group->low));
	cold = tr_miss_jump(tr, CC_A);
	emit_load(&tr->e, R11, at + STACK_ADDEND);
	fill_in(tr, cold, insn, retry);
	cold->stack = true;
	cold->group = access->group;
	cold->resume = tr->e.at;
	hold_found(tr, access->group);
}

struct soft_record *tr_stack_look(struct tr *tr, struct cold *cold)
{
	const struct tr_group *group = &tr->group[cold->group];
	uint32_t at = stack_page(tr, group->write);
	int32_t low = (int32_t)(group->low - group->lead_shift);
	uint8_t *site;

	emit_lea(&tr->e, R10, RSP, low);
	site = tr_look(tr, (uint32_t)(group->high - group->low), group->write)->site;
	tr->cold_count--;
	tr_addend(tr);
	emit_neg(&tr->e, R10);
	emit_lea_index(&tr->e, R10, RSP, R10, 0, low);
	/* A page never comes without its addend: no kick in between. */
	tr_clean(tr);
	emit_store(&tr->e, R10, at);
	emit_store(&tr->e, R11, at + STACK_ADDEND);
	emit_jmp(&tr->e, cold->resume);
	emit_patch32(site, tr->e.alias, tr->e.at);
	return tr_record(tr, cold->rip);
}

/* The leader of a register's group: r11 := the addend; plus the register, if that is r10 or r11. */
static void lead(struct tr *tr, const struct soft_insn *insn, const struct tr_access *access)
{
	const struct tr_group *group = &tr->group[access->group];
	int64_t low = group->low - access->shift;
	uint8_t *retry = tr->e.at;
	struct cold *cold;

	if (tr_is_high(access->base)) {
		emit_load(&tr->e, R10, VCPU_GPR + 8 * (uint32_t)access->base);
		emit_lea(&tr->e, R10, R10, (int32_t)low);
	} else {
		emit_lea(&tr->e, R10, access->base, (int32_t)low);
	}
	cold = tr_look(tr, (uint32_t)(group->high - group->low), group->write);
	tr_addend(tr);
	if (tr_is_high(access->base))
		emit_add_gs(&tr->e, R11, VCPU_GPR + 8 * (uint32_t)access->base);
	fill_in(tr, cold, insn, retry);
	if (group->members == 1 && !tr_is_high(access->base)) {
		tr_behind(tr, cold, insn);
		cold->addend = true;
	}
	hold_found(tr, access->group);
}

/* The same in a loop, for the whole set. */
static void lead_loop(struct tr *tr, const struct soft_insn *insn, const struct tr_access *access)
{
	const struct tr_group *set = &tr->group[access->group];
	struct cold *cold;

	emit_cmp_gs(&tr->e, tr_moving(&tr->group[set->clock]), limit_offset(access->group));
	cold = tr_miss_jump(tr, clock_step(tr, access->group) < 0 ? CC_BE : CC_AE);
	fill_in(tr, cold, insn, NULL);
	cold->resume = tr->e.at;
	cold->held[0] = tr->held[0];
	cold->held[1] = tr->held[1];
}

/*
 * r10: the group's offset in its page -> how far its register may go until it is on another one,
 * plus STRIDE_MAX. The set's nearest is kept.
 */
static void find_nearest(struct tr *tr, const struct tr_group *group, bool is_first)
{
	int32_t last = (int32_t)(PAGE_BYTES - (group->high - group->low));

	if (group->step > 0) {
		emit_neg(&tr->e, R10);
		emit_lea(&tr->e, R10, R10, last + 1 + STRIDE_MAX);
	} else {
		emit_lea(&tr->e, R10, R10, 1 + STRIDE_MAX);
	}
	if (!is_first) {
		emit_load(&tr->e, R11, VCPU_NEAREST);
		emit_cmp(&tr->e, R10, R11);
		emit_cmov(&tr->e, CC_A, R10, R11);
	}
	emit_store(&tr->e, R10, VCPU_NEAREST);
}

/*
 * The limit of the register that the set's clock moves by. One that is beyond the end of all
 * numbers would be passed by who comes round: it is as near to that end as a round goes, and there
 * is none for who is nearer than that already, so that every round looks.
 */
static void set_limit(struct tr *tr, uint32_t set)
{
	const struct tr_group *clock = &tr->group[tr->group[set].clock];
	bool down = clock->step < 0;
	int32_t margin = down ? STRIDE_MAX >> clock->scale : -(STRIDE_MAX >> clock->scale);
	struct emit *e = &tr->e;
	uint8_t *fits, *done, *store;

	if (!clock->step) {
		emit_store_imm(e, UINT32_MAX, limit_offset(set));
		return;
	}
	emit_load(e, R11, VCPU_NEAREST);
	emit_shr_imm(e, R11, clock->scale);
	emit_mov(e, R10, tr_moving(clock));
	if (down)
		emit_sub(e, R10, R11);
	else
		emit_add(e, R10, R11);
	fits = emit_jcc_short(e, CC_AE);
	emit_cmp_imm(e, tr_moving(clock), (uint32_t)margin);
	done = emit_jcc_short(e, down ? CC_BE : CC_AE);
	emit_mov_imm(e, R10, (uint64_t)(int64_t)margin);
	store = emit_jmp_short(e);
	emit_land(e, fits);
	emit_lea(e, R10, R10, margin);
	emit_land(e, store);
	emit_store(e, R10, limit_offset(set));
	emit_land(e, done);
}

/* The address of all of a group, at its set's check. */
static void group_address(struct tr *tr, const struct tr_group *group)
{
	int32_t low = (int32_t)(group->low - group->shift);

	if (group->index >= 0)
		emit_lea_index(&tr->e, R10, group->base, group->index, group->scale, low);
	else
		emit_lea(&tr->e, R10, group->base, low);
}

/* Looks one group up; a miss goes to what is emitted at the end. */
static uint8_t *look_group(struct tr *tr, uint32_t g, bool is_first)
{
	const struct tr_group *group = &tr->group[g];
	uint8_t *site;

	group_address(tr, group);
	site = tr_look(tr, (uint32_t)(group->high - group->low), group->write)->site;
	tr->cold_count--;
	tr_addend(tr);
	if (group->index >= 0)
		emit_lea_index(&tr->e, R11, R11, group->base, 0, 0);
	emit_store(&tr->e, R11, slot_offset(g));
	if (group->step)
		find_nearest(tr, group, is_first);
	return site;
}

_Static_assert(SOFT_SPAN_MAX + 512 <= 0x3ff && NARROWEST <= 3, "SOFT_REACH has room");

static uint32_t reach_of(const struct tr_group *group)
{
	return (group->write ? SOFT_REACH_WRITE : 0) |
	       SOFT_REACH_LEADER(group->offset, group->narrow);
}

/*
 * r10: a look's difference of address and tag. If it is the page, but for its edge, the guest goes on
 * in a block that shares nothing, to which the jump here will lead; unless that was so often enough
 * for C to look at it. Of the miss's reason, what is known here.
 */
uint32_t tr_split(struct tr *tr, const struct cold *cold, const struct tr_group *group,
		  const uint8_t *retry)
{
	uint32_t place = soft_split_place(tr->t->gpa + group->offset);
	uint8_t *elsewhere, *often, *site;
	struct emit *e = &tr->e;

	if (group->base == BASE_CONSTANT || cold->shadow)
		return SOFT_REASON_SHARED;
	emit_cmp_imm(e, R10, PAGE_BYTES);
	elsewhere = emit_jcc_short(e, CC_AE);
	emit_sub32_gs_imm8(e,
			   (uint32_t)(offsetof(struct engine_vcpu, split_left) +
				      place * sizeof(((struct engine_vcpu *)0)->split_left[0])),
			   1);
	often = emit_jcc_short(e, CC_B);
	emit_align_field(e, 1);
	site = emit_jmp_open(e);
	emit_land(e, elsewhere);
	emit_land(e, often);
	return SOFT_REASON_SHARED | SOFT_REASON_JUMP(site - retry) |
	       (cold->slot ? SOFT_REASON_IN_SLOT : 0u);
}

static void miss_other(struct tr *tr, const struct cold *cold, uint32_t g, uint8_t *site,
		       uint8_t *retry)
{
	const struct tr_group *group = &tr->group[g];
	struct emit *e = &tr->e;
	uint32_t shared;

	emit_patch32(site, e->alias, e->at);
	shared = tr_split(tr, cold, group, retry);
	group_address(tr, group);
	emit_store(e, R10, VCPU_ARGUMENT);
	emit_lea_rip(e, R10, retry);
	emit_store(e, R10, VCPU_TARGET);
	emit_store_imm(e,
		       SOFT_REACH(0, (uint32_t)(group->high - group->low)) | SOFT_REACH_OTHER |
			       reach_of(group),
		       VCPU_REACH);
	emit_store_imm(e, SOFT_REASON_READ | shared, VCPU_REASON);
	emit_jmp(e, soft_cache_exit(tr->t->vcpu->engine));
}

void tr_share_look(struct tr *tr, struct cold *cold)
{
	uint8_t *site[GROUPS_MAX], *retry[GROUPS_MAX];
	uint32_t set = cold->access->group;
	bool is_first = true;

	cold->retry = tr->e.at;
	clear_limit(tr, set);
	for (uint32_t g = set; g < tr->group_count; g++) {
		if (!tr->group[g].loops || tr->group[g].set != set)
			continue;
		retry[g] = tr->e.at;
		site[g] = look_group(tr, g, is_first);
		is_first = is_first && !tr->group[g].step;
	}
	set_limit(tr, set);
	for (int reg = R10; reg <= R11; reg++)
		if (cold->held[reg - R10] == GROUP_OWN)
			emit_load(&tr->e, reg, VCPU_GPR + 8 * (uint32_t)reg);
		else if (cold->held[reg - R10] != GROUP_NONE)
			load_slot(tr, reg, cold->held[reg - R10]);
	emit_jmp(&tr->e, cold->resume);
	for (uint32_t g = set + 1; g < tr->group_count; g++)
		if (tr->group[g].loops && tr->group[g].set == set)
			miss_other(tr, cold, g, site[g], retry[g]);
	emit_patch32(site[set], tr->e.alias,
		     tr->e.at); /* the first one's miss is emitted behind this */
}

/* Of a constant page: r10 := its host address. */
static void lead_constant(struct tr *tr, const struct soft_insn *insn,
			  const struct tr_access *access)
{
	const struct tr_group *group = &tr->group[access->group];
	uint64_t page = (uint64_t)access->disp & ~(uint64_t)(PAGE_BYTES - 1);
	uint8_t *retry = tr->e.at;
	struct cold *cold;

	cold = tr_look_constant(tr, page, group->write);
	fill_in(tr, cold, insn, retry);
	tr->held[0] = access->group;
	if (group->members > 1)
		store_slot(tr, R10, access->group);
}

/* The instruction will have its operand in `wanted`: what the group holds goes to the other. */
static void move_out(struct tr *tr, uint8_t group, int wanted)
{
	int other = R10 + R11 - wanted;

	if (tr->held[wanted - R10] == GROUP_OWN)
		return;
	if (tr->held[wanted - R10] == group && tr->held[other - R10] != group) {
		emit_mov(&tr->e, other, wanted);
		tr->held[other - R10] = group;
	}
	tr_forget(tr, wanted);
}

bool tr_shared(struct tr *tr, const struct soft_insn *insn, struct host_operand *ret_at)
{
	const struct tr_access *access = &tr->access[tr->index];
	bool leads = access->leader, constant = access->base == BASE_CONSTANT;
	int reg, wanted;

	if (access->group == GROUP_NONE)
		return false;
	/* A look may miss, and C wants rsp; and the displacement has to fit. */
	if (leads || access->disp < INT32_MIN + LAG_MAX || access->disp > INT32_MAX - LAG_MAX)
		tr_settle_stack(tr, tr->rip);
	if (leads && tr->flags == FLAGS_IN_HOST && tr->live_before)
		tr_save_flags(tr);
	tr_record(tr, tr->rip);
	if (leads && constant)
		lead_constant(tr, insn, access);
	else if (leads && tr->group[access->group].loops)
		lead_loop(tr, insn, access);
	else if (leads && asks_stack_page(tr, &tr->group[access->group]))
		lead_stack(tr, insn, access);
	else if (leads)
		lead(tr, insn, access);
	wanted = wanted_register(insn);
	if (wanted >= 0)
		move_out(tr, access->group, wanted);
	if (tr->held[0] != access->group && tr->held[1] != access->group) {
		reg = wanted >= 0 ? R10 + R11 - wanted : tr_scratch(tr);
		load_slot(tr, reg, access->group);
		tr->held[reg - R10] = access->group;
	}
	reg = tr->held[0] == access->group ? R10 : R11;
	if (constant)
		*ret_at = (struct host_operand){ reg, -1,
						 (int32_t)(access->disp & (PAGE_BYTES - 1)), 0 };
	else if (tr_is_high(access->base))
		*ret_at = (struct host_operand){ reg, -1,
						 (int32_t)(access->disp + access->shift -
							   tr->group[access->group].lead_shift),
						 0 };
	else if (access->index >= 0)
		*ret_at = (struct host_operand){ reg, access->index, (int32_t)access->disp,
						 access->scale };
	else
		*ret_at = (struct host_operand){ access->base, reg,
						 (int32_t)access->disp +
							 (access->base == RSP ? tr->lag : 0),
						 0 };
	return true;
}

uint32_t tr_reach(const struct tr *tr, const struct tr_access *access)
{
	const struct tr_group *group = &tr->group[access->group];
	int64_t here = access->shift + access->disp;

	if (access->base == BASE_CONSTANT)
		return reach_of(group) | SOFT_REACH(0, access->bytes);
	return reach_of(group) |
	       SOFT_REACH((uint32_t)(here - group->low), (uint32_t)(group->high - here));
}
