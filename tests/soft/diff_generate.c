/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences: class by class, form by form, until the wanted length. See diff_gen.h.
 *
 * An instruction that would read a flag that may be undefined, or write a loop counter, is not
 * taken; the final judge of that is diff_analyse().
 */
#include <string.h>

#include "tests/soft/diff_gen.h"

#define SEEDS_STEP 0x9e3779b97f4a7c15ull

/* The 64-bit register that contains r, or 16. In 64-bit terms whatever the mode is. */
static uint32_t enclosing(ZydisRegister r)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return whole >= ZYDIS_REGISTER_RAX && whole <= ZYDIS_REGISTER_R15
		       ? (uint32_t)(whole - ZYDIS_REGISTER_RAX)
		       : 16;
}

static uint32_t written_registers(const struct diff_insn *i)
{
	uint32_t mask = 0;

	for (int n = 0; n < i->insn.operand_count; n++)
		if (i->operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (i->operand[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			mask |= 1u << enclosing(i->operand[n].reg.value);
	return mask & 0xffff;
}

/* Pushes and pops leave rsp known. */
static void follow_stack(struct diff_gen *g, const struct diff_insn *i, uint32_t *written)
{
	uint64_t bytes = i->insn.operand_width / 8;

	switch (i->insn.meta.category) {
	case ZYDIS_CATEGORY_PUSH:
		g->value[R_RSP] -= bytes;
		break;
	case ZYDIS_CATEGORY_POP:
		if (i->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    enclosing(i->operand[0].reg.value) == R_RSP)
			return;
		g->value[R_RSP] += bytes;
		break;
	default:
		return;
	}
	*written &= ~(1u << R_RSP);
}

/* Selectors are not the same at CPL 0. */
static bool reads_selector(const struct diff_insn *i)
{
	for (int n = 0; n < i->insn.operand_count_visible; n++)
		if (i->operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (i->operand[n].reg.value == ZYDIS_REGISTER_CS ||
		     i->operand[n].reg.value == ZYDIS_REGISTER_SS))
			return true;
	return false;
}

bool diff_emit(struct diff_gen *g, const uint8_t *bytes, uint32_t count)
{
	struct diff_insn i;
	uint32_t written;

	if (g->failed || !diff_decode(g->c->mode, bytes, count, &i) || i.insn.length != count)
		return false;
	written = written_registers(&i);
	if ((written & g->pinned) || (diff_insn_reads(&i) & g->undefined))
		return false;
	if (g->c->mode == MODE_SYSTEM && reads_selector(&i))
		return false;
	if (g->at + count > DIFF_CODE_MAX - 32 || g->insns + 4 > DIFF_INSN_MAX) {
		g->failed = true;
		return false;
	}
	memcpy(g->c->code + g->at, bytes, count);
	g->at += count;
	g->insns++;
	follow_stack(g, &i, &written);
	g->known &= (uint16_t)~written;
	if (i.insn.mnemonic == ZYDIS_MNEMONIC_WRFSBASE ||
	    i.insn.mnemonic == ZYDIS_MNEMONIC_WRGSBASE)
		g->segments_known = false;
	g->undefined = diff_insn_undefined(&i, g->undefined);
	g->ever_undefined |= g->undefined;
	return true;
}

void diff_emit_load(struct diff_gen *g, uint32_t gpr, uint64_t value)
{
	uint8_t bytes[10] = { (uint8_t)(0x48 | gpr >> 3), (uint8_t)(0xb8 | (gpr & 7)) };
	bool done;

	if (g->c->mode == MODE_COMPAT) {
		if (value >= DIFF_FAR_VA && value < DIFF_FAR_VA + 4 * DIFF_PAGE)
			value = diff_pages[1].va + value % DIFF_PAGE;
		value = (uint32_t)value;
	}
	if (value == (uint32_t)value && (g->c->mode == MODE_COMPAT || rng_chance(&g->rng, 80))) {
		bytes[0] = (uint8_t)(0x40 | gpr >> 3);
		memcpy(bytes + 2, &value, 4);
		done = gpr < 8 ? diff_emit(g, bytes + 1, 5) : diff_emit(g, bytes, 6);
	} else {
		memcpy(bytes + 2, &value, 8);
		done = diff_emit(g, bytes, 10);
	}
	if (!done)
		return;
	g->known |= (uint16_t)(1u << gpr);
	g->value[gpr] = value;
}

bool diff_emit_to(struct diff_gen *g, const uint8_t *bytes, uint32_t count, uint32_t field_bytes,
		  struct diff_label *ret_label)
{
	struct diff_label label = { .known = g->known, .bytes = (uint8_t)field_bytes };

	memcpy(label.value, g->value, sizeof(label.value));
	if (!diff_emit(g, bytes, count))
		return false;
	label.end = (uint16_t)g->at;
	label.field = (uint16_t)(g->at - field_bytes);
	*ret_label = label;
	return true;
}

void diff_bind(struct diff_gen *g, const struct diff_label *label, uint32_t beyond)
{
	int32_t distance = (int32_t)(g->at + beyond) - label->end;

	if (label->bytes == 1 && distance > INT8_MAX)
		g->failed = true;
	memcpy(g->c->code + label->field, &distance, label->bytes);
	/* Both ways of coming here must agree on what is known. */
	g->known &= label->known;
	for (uint32_t i = 0; i < 16; i++)
		if (g->value[i] != label->value[i])
			g->known &= (uint16_t) ~(1u << i);
	g->undefined |= g->ever_undefined;
}

void diff_emit_class(struct diff_gen *g, enum diff_class class)
{
	const struct diff_form *f;
	uint8_t bytes[16];
	uint32_t count;

	for (uint32_t tries = 0; tries < 8 && !g->failed; tries++) {
		f = diff_forms_pick(g->plan->forms, class, &g->rng);
		if (!f)
			return;
		diff_prepare(g, f);
		count = diff_encode(g, f, bytes);
		if (count && diff_emit(g, bytes, count))
			return;
	}
}

static enum diff_class pick_class(struct diff_gen *g)
{
	uint32_t sum = 0, at;

	for (uint32_t i = 0; i < CLASS_COUNT; i++)
		sum += g->plan->weight[i];
	at = rng_below(&g->rng, sum);
	for (uint32_t i = 0; i < CLASS_COUNT; i++) {
		if (at < g->plan->weight[i])
			return i;
		at -= g->plan->weight[i];
	}
	return CLASS_ALU;
}

static bool is_template_only(enum diff_class class)
{
	return class == CLASS_WALK || class == CLASS_BRANCH || class == CLASS_SMC ||
	       class == CLASS_STEP;
}

void diff_emit_random(struct diff_gen *g)
{
	enum diff_class class = pick_class(g);

	if (is_template_only(class) || (class == CLASS_SYSTEM && rng_chance(&g->rng, 90)))
		class = CLASS_ALU;
	diff_emit_class(g, class);
}

/* Registers are bases of memory operands mostly while they keep their first values. */
static void begin(struct diff_gen *g, const struct diff_plan *plan, struct diff_case *c,
		  uint64_t salt)
{
	memset(g, 0, sizeof(*g));
	g->plan = plan;
	g->c = c;
	g->rng.state = c->seed * SEEDS_STEP + salt;
	g->known = c->mode == MODE_COMPAT ? 0xff : 0xffff;
	memcpy(g->value, c->start.gpr, sizeof(g->value));
	g->favored = 1u << R_RSP;
	for (int i = 0; i < 4; i++)
		g->favored |= (uint16_t)(1u << rng_below(&g->rng, 16));
	g->segments_known = c->mode != MODE_COMPAT;
}

static void fill(struct diff_gen *g)
{
	uint32_t wanted = 1 + rng_below(&g->rng, g->plan->insn_max);

	if (rng_chance(&g->rng, 30))
		wanted = 1 + rng_below(&g->rng, 4);
	while (g->insns < wanted && !g->failed) {
		enum diff_class class = pick_class(g);
		uint32_t before = g->insns;

		if (class == CLASS_SYSTEM && wanted > 6 && rng_chance(&g->rng, 80))
			continue;
		if (!diff_template(g, class))
			diff_emit_class(g, is_template_only(class) ? CLASS_ALU : class);
		if (g->insns == before && rng_chance(&g->rng, 10))
			diff_emit_class(g, CLASS_ALU);
	}
}

void diff_generate(const struct diff_plan *plan, struct diff_case *c)
{
	struct diff_gen g;

	diff_state_random(c);
	for (uint64_t salt = 0; salt < 16; salt++) {
		begin(&g, plan, c, salt);
		fill(&g);
		if (g.failed)
			continue;
		c->code_bytes = g.at;
		diff_analyse(c);
		if (!c->tainted)
			return;
	}
	c->code_bytes = 1; /* never seen; a sequence of a nop */
	c->code[0] = 0x90;
	diff_analyse(c);
}
