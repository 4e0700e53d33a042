/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands and encoding of one instruction: registers, memory operands in every addressing mode
 * (base, index, both, RIP-relative, absolute, fs, gs, 32-bit addresses), immediates, and prefixes
 * that change nothing. See diff_gen.h for how memory operands find their target.
 */
#include <string.h>

#include "tests/soft/diff_gen.h"

#define NONE 16

struct memory {
	uint64_t target;
	uint32_t base, index, scale; /* NONE */
	int32_t disp;
	uint32_t disp_bytes;
	bool rip, addr32;
	uint8_t segment; /* prefix, or 0 */
};

struct encoding {
	uint8_t bytes[16];
	uint32_t count;
	uint32_t reg, rm, vvvv;
	struct memory m;
};

/* r14 and r15 are what a translator treats differently: they come more often. */
uint32_t diff_any_register(struct diff_gen *g)
{
	for (uint32_t tries = 0; tries < 8; tries++) {
		uint32_t reg = rng_chance(&g->rng, 20) ? 14 + rng_below(&g->rng, 2)
						       : rng_below(&g->rng, 16);

		if (g->c->mode == MODE_COMPAT)
			reg &= 7;
		if (g->pinned >> reg & 1)
			continue;
		if ((g->favored >> reg & 1) && rng_chance(&g->rng, 85))
			continue;
		return reg;
	}
	return g->c->mode == MODE_COMPAT ? 6 : 14;
}

/* A register with a known value that may be an index (not rsp) or a base; NONE. */
static uint32_t known_register(struct diff_gen *g, bool index)
{
	for (uint32_t tries = 0; tries < 12; tries++) {
		uint32_t reg = rng_below(&g->rng, 16);

		if ((g->known >> reg & 1) && !(index && reg == R_RSP))
			return reg;
	}
	return NONE;
}

static int64_t bit_offset(const struct diff_form *f, uint64_t value)
{
	if (f->w)
		return (int64_t)value >> 6 << 3;
	if (f->prefix_66)
		return (int16_t)value >> 4 << 1;
	return (int32_t)value >> 5 << 2;
}

static uint64_t segment_base(const struct diff_gen *g, uint8_t prefix)
{
	if (prefix == 0x64)
		return g->c->start.fs_base;
	return prefix == 0x65 ? g->c->start.gs_base : 0;
}

/* Chooses registers and the displacement that leads to the target; false: does not fit. */
static bool choose_mode(struct diff_gen *g, struct memory *m)
{
	uint32_t kind = rng_below(&g->rng, 100);
	int64_t disp;

	m->base = kind < 80 ? known_register(g, false) : NONE;
	m->index = kind >= 50 && kind < 90 ? known_register(g, true) : NONE;
	m->scale = rng_below(&g->rng, 4);
	m->segment = g->segments_known && rng_chance(&g->rng, 12)
			     ? (rng_chance(&g->rng, 50) ? 0x64 : 0x65)
			     : 0;
	m->addr32 = g->c->mode != MODE_COMPAT && rng_chance(&g->rng, 7);
	m->rip = g->c->mode != MODE_COMPAT && m->base == NONE && m->index == NONE &&
		 rng_chance(&g->rng, 70);
	disp = (int64_t)(m->target - segment_base(g, m->segment));
	if (m->base != NONE)
		disp -= (int64_t)g->value[m->base];
	if (m->index != NONE)
		disp -= (int64_t)(g->value[m->index] << m->scale);
	if (m->addr32 || g->c->mode == MODE_COMPAT)
		disp = (int32_t)disp;
	if (m->rip) /* about: the end of the instruction is not known yet */
		disp -= (int64_t)(g->c->code_va + g->at);
	if (disp > INT32_MAX - 64 || disp < INT32_MIN + 64)
		return false;
	m->disp = (int32_t)disp;
	m->disp_bytes = 4;
	if (m->base != NONE && disp == (int8_t)disp && rng_chance(&g->rng, 85))
		m->disp_bytes = disp == 0 && (m->base & 7) != 5 && rng_chance(&g->rng, 85) ? 0 : 1;
	return true;
}

static void choose_memory(struct diff_gen *g, const struct diff_form *f, struct encoding *e)
{
	struct diff_wish wish = { .bytes = f->mem_bytes ? f->mem_bytes : 64,
				  .align = f->align,
				  .write = f->mem_write,
				  .low = g->c->mode == MODE_COMPAT,
				  .bad_percent = 7 };
	struct memory *m = &e->m;

	for (uint32_t tries = 0; tries < 16; tries++) {
		m->target = diff_target(&g->rng, &wish);
		if (f->bit_offset && tries < 12) {
			uint32_t reg = known_register(g, false);

			if (reg != NONE)
				e->reg = reg;
			if (g->known >> e->reg & 1)
				m->target -= (uint64_t)bit_offset(f, g->value[e->reg]);
		}
		if (choose_mode(g, m))
			return;
	}
	*m = (struct memory){ .target = diff_pages[1].va + 64,
			      .base = NONE,
			      .index = NONE,
			      .disp = (int32_t)diff_pages[1].va + 64,
			      .disp_bytes = 4 };
}

static void put(struct encoding *e, uint32_t byte)
{
	e->bytes[e->count++] = (uint8_t)byte;
}

/* Prefixes that most instructions ignore; rarely. */
static void put_idle_prefix(struct diff_gen *g, const struct diff_form *f, struct encoding *e)
{
	static const uint8_t idle[] = { 0x26, 0x2e, 0x36, 0x3e };

	/* In 32-bit code segments are writable or not, and all may be. */
	if (f->memory && !e->m.segment && g->c->mode != MODE_COMPAT && rng_chance(&g->rng, 2))
		put(e, idle[rng_below(&g->rng, sizeof(idle))]);
}

static void put_prefixes(struct diff_gen *g, const struct diff_form *f, struct encoding *e)
{
	put_idle_prefix(g, f, e);
	if (f->memory && e->m.segment)
		put(e, e->m.segment);
	if (f->memory && e->m.addr32)
		put(e, 0x67);
	if (f->string && g->addr32_string)
		put(e, 0x67);
	else if (g->c->mode != MODE_COMPAT && (f->string || f->moffs) && rng_chance(&g->rng, 4))
		put(e, 0x67);
	g->addr32_string = false;
	if (f->lockable && rng_chance(&g->rng, 30))
		put(e, 0xf0);
	if (f->vex)
		return;
	if (f->prefix_66)
		put(e, 0x66);
	if (f->pp)
		put(e, f->pp);
}

static void put_rex(struct diff_gen *g, const struct diff_form *f, struct encoding *e, uint32_t x,
		    uint32_t b)
{
	uint32_t rex = (uint32_t)f->w << 3 | (e->reg >> 3) << 2 | x << 1 | b;

	if (rex || (g->c->mode != MODE_COMPAT && rng_chance(&g->rng, 12)))
		put(e, 0x40 | rex);
	if (f->map)
		put(e, 0x0f);
	if (f->map == 2)
		put(e, 0x38);
	if (f->map == 3)
		put(e, 0x3a);
}

static void put_vex(struct diff_gen *g, const struct diff_form *f, struct encoding *e, uint32_t x,
		    uint32_t b)
{
	uint32_t pp = f->pp == 0x66 ? 1 : f->pp == 0xf3 ? 2 : f->pp == 0xf2 ? 3 : 0;
	uint32_t vvvv = f->vvvv_used ? ~e->vvvv & 15 : 15;
	uint32_t low = vvvv << 3 | (uint32_t)f->l << 2 | pp;
	uint32_t r = !(e->reg >> 3);

	if (!x && !b && f->map == 1 && !f->w && rng_chance(&g->rng, 75)) {
		put(e, 0xc5);
		put(e, r << 7 | low);
		return;
	}
	put(e, 0xc4);
	put(e, r << 7 | (uint32_t)!x << 6 | (uint32_t)!b << 5 | f->map);
	put(e, (uint32_t)f->w << 7 | low);
}

static void put_disp(struct encoding *e, int32_t disp, uint32_t bytes)
{
	memcpy(e->bytes + e->count, &disp, bytes);
	e->count += bytes;
}

/* ModRM, SIB and displacement (SDM vol. 2, 2.1.5). */
static void put_memory(struct diff_gen *g, const struct diff_form *f, struct encoding *e)
{
	const struct memory *m = &e->m;
	uint32_t reg = (e->reg & 7) << 3;
	uint32_t mod = m->disp_bytes == 0 ? 0 : m->disp_bytes == 1 ? 0x40 : 0x80;
	uint32_t index = m->index == NONE ? 4 : m->index & 7;

	if (m->rip) {
		uint32_t rest = 5 + f->imm_bytes;

		put(e, reg | 5);
		put_disp(e, m->disp - (int32_t)(e->count - 1 + rest), 4);
	} else if (m->base == NONE) {
		put(e, reg | 4);
		put(e, m->scale << 6 | index << 3 | 5);
		put_disp(e, m->disp, 4);
	} else if (m->index == NONE && (m->base & 7) != 4 && rng_chance(&g->rng, 90)) {
		put(e, mod | reg | (m->base & 7));
		put_disp(e, m->disp, m->disp_bytes);
	} else {
		put(e, mod | reg | 4);
		put(e, m->scale << 6 | index << 3 | (m->base & 7));
		put_disp(e, m->disp, m->disp_bytes);
	}
}

uint32_t diff_immediate(struct diff_gen *g, uint32_t size, uint8_t *to)
{
	uint64_t value = diff_number(&g->rng);

	memcpy(to, &value, size);
	return size;
}

static void put_tail(struct diff_gen *g, const struct diff_form *f, struct encoding *e)
{
	if (f->moffs) {
		struct diff_wish wish = { .bytes = 8, .write = f->mem_write, .bad_percent = 10 };
		uint64_t target = diff_target(&g->rng, &wish);
		bool addr32 = g->c->mode == MODE_COMPAT || memchr(e->bytes, 0x67, 3) != NULL;

		memcpy(e->bytes + e->count, &target, addr32 ? 4 : 8);
		e->count += addr32 ? 4 : 8;
		return;
	}
	e->count += diff_immediate(g, f->imm_bytes, e->bytes + e->count);
}

static void choose_registers(struct diff_gen *g, const struct diff_form *f, struct encoding *e)
{
	e->reg = diff_any_register(g);
	e->rm = diff_any_register(g);
	e->vvvv = diff_any_register(g);
	if (f->reg != FORM_ANY)
		e->reg = f->reg;
	if (f->rm != FORM_ANY)
		e->rm = f->rm;
	if (!f->modrm) { /* REX.B may extend the register in the opcode */
		e->reg = 0;
		e->rm = g->c->mode != MODE_COMPAT && rng_chance(&g->rng, 40) ? 8 : 0;
	}
	e->m = (struct memory){ .base = NONE, .index = NONE };
	if (f->memory)
		choose_memory(g, f, e);
}

uint32_t diff_encode(struct diff_gen *g, const struct diff_form *f, uint8_t *bytes)
{
	struct encoding e = { .count = 0 };
	uint32_t x = 0, b;

	choose_registers(g, f, &e);
	b = e.rm >> 3;
	if (f->memory) {
		x = e.m.index != NONE ? e.m.index >> 3 : 0;
		b = e.m.base != NONE ? e.m.base >> 3 : 0;
	}
	put_prefixes(g, f, &e);
	if (f->vex)
		put_vex(g, f, &e, x, b);
	else
		put_rex(g, f, &e, x, b);
	put(&e, f->opcode);
	if (f->memory)
		put_memory(g, f, &e);
	else if (f->modrm)
		put(&e, 0xc0 | (e.reg & 7) << 3 | (e.rm & 7));
	if (e.count + (f->moffs ? 8u : f->imm_bytes) > 15)
		return 0;
	put_tail(g, f, &e);
	memcpy(bytes, e.bytes, e.count);
	return e.count;
}
