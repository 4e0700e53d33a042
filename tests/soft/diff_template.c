/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: short patterns around instructions that random operands would seldom make sense of.
 * Control flow within the sequence, flags and MXCSR loaded with chosen values, images of extended
 * state written and read back, gathers, segment registers, self-modifying code, single step.
 */
#include <string.h>

#include "tests/soft/diff_gen.h"

uint32_t diff_image_target(struct diff_gen *g, uint32_t bytes, uint32_t align)
{
	static const uint8_t writable[] = { 0, 1, 3, 5 };
	uint64_t page = diff_pages[writable[rng_below(&g->rng, sizeof(writable))]].va;

	return (uint32_t)(page + (rng_below(&g->rng, DIFF_PAGE - bytes) & ~(align - 1)));
}

static uint32_t low_register(struct diff_gen *g)
{
	uint32_t reg;

	do {
		reg = rng_below(&g->rng, 8);
	} while (reg == R_RSP || reg == R_RBP || (g->pinned >> reg & 1));
	return reg;
}

/* mov dword [at], value */
static void store(struct diff_gen *g, uint32_t at, uint32_t value)
{
	EMIT(g, 0xc7, 0x04, 0x25, B4(at), B4(value));
}

static void some(struct diff_gen *g, uint32_t most)
{
	for (uint32_t n = rng_below(&g->rng, most + 1); n; n--)
		diff_emit_random(g);
}

/* ---- what forms find in fixed registers */

static void prepare_address(struct diff_gen *g, uint32_t gpr, uint32_t span, bool write)
{
	struct diff_wish wish = { .bytes = span ? span : 1, .write = write, .bad_percent = 7 };

	if (rng_chance(&g->rng, 80))
		diff_emit_load(g, gpr, diff_target(&g->rng, &wish));
}

static void prepare_string(struct diff_gen *g, const struct diff_form *f)
{
	uint32_t count = 1;
	bool store_only =
		f->mnemonic >= ZYDIS_MNEMONIC_STOSB && f->mnemonic <= ZYDIS_MNEMONIC_STOSW;
	bool load_only = f->mnemonic >= ZYDIS_MNEMONIC_LODSB && f->mnemonic <= ZYDIS_MNEMONIC_LODSW;
	bool move = f->mnemonic >= ZYDIS_MNEMONIC_MOVSB && f->mnemonic <= ZYDIS_MNEMONIC_MOVSW;

	if (f->pp) {
		uint64_t above = 0; /* not of the count, with 67h; of a count of 0 vendors differ */

		count = rng_chance(&g->rng, 80) ? rng_below(&g->rng, 40) : rng_below(&g->rng, 2000);
		g->addr32_string = g->c->mode != MODE_COMPAT && count && rng_chance(&g->rng, 4);
		if (g->addr32_string)
			above = rng_next(&g->rng) << 32;
		diff_emit_load(g, R_RCX, above | count);
	}
	if (!load_only)
		prepare_address(g, R_RDI, count * f->mem_bytes, store_only || move);
	if (!store_only)
		prepare_address(g, R_RSI, count * f->mem_bytes, false);
	if (rng_chance(&g->rng, 20))
		rng_chance(&g->rng, 50) ? EMIT(g, 0xfd) : EMIT(g, 0xfc);
}

static void prepare_stack(struct diff_gen *g, const struct diff_form *f)
{
	struct diff_wish wish = { .bytes = 256, .write = true, .align = 16 };
	uint32_t gpr = f->mnemonic == ZYDIS_MNEMONIC_LEAVE ? R_RBP : R_RSP;

	if (!(g->known >> gpr & 1) && rng_chance(&g->rng, 85))
		diff_emit_load(g, gpr, diff_target(&g->rng, &wish) + 128);
}

/* Quotients that fit, mostly. */
static void prepare_dividend(struct diff_gen *g)
{
	if (rng_chance(&g->rng, 20))
		return;
	diff_emit_load(g, R_RDX, rng_chance(&g->rng, 80) ? 0 : rng_below(&g->rng, 16));
	diff_emit_load(g, R_RAX,
		       rng_chance(&g->rng, 50) ? rng_below(&g->rng, 128)
					       : diff_number(&g->rng) >> 1);
}

void diff_prepare(struct diff_gen *g, const struct diff_form *f)
{
	if (f->string) {
		prepare_string(g, f);
		return;
	}
	if (f->class == CLASS_STACK) {
		prepare_stack(g, f);
		return;
	}
	switch (f->mnemonic) {
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		prepare_dividend(g);
		break;
	case ZYDIS_MNEMONIC_XLAT:
		prepare_address(g, R_RBX, 256, false);
		break;
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		prepare_address(g, R_RDI, 16, true);
		break;
	default:
		break;
	}
}

/* ---- control flow */

static bool jump_if(struct diff_gen *g)
{
	uint8_t condition = (uint8_t)rng_below(&g->rng, 16);
	struct diff_label label;
	bool is_short = rng_chance(&g->rng, 60);

	if (is_short ? !EMIT_TO(g, 1, &label, 0x70 | condition, 0)
		     : !EMIT_TO(g, 4, &label, 0x0f, 0x80 | condition, B4(0)))
		return false;
	some(g, is_short ? 1 : 3);
	diff_bind(g, &label, 0);
	return true;
}

static bool jump(struct diff_gen *g)
{
	struct diff_label label;

	if (rng_chance(&g->rng, 50) ? !EMIT_TO(g, 1, &label, 0xeb, 0)
				    : !EMIT_TO(g, 4, &label, 0xe9, B4(0)))
		return false;
	some(g, 1);
	diff_bind(g, &label, 0);
	return true;
}

/* jrcxz, jecxz, and the loop family forwards. */
static bool jump_if_rcx(struct diff_gen *g)
{
	static const uint8_t opcode[] = { 0xe3, 0xe3, 0xe2, 0xe1, 0xe0 };
	uint8_t op = opcode[rng_below(&g->rng, sizeof(opcode))];
	struct diff_label label;

	if (rng_chance(&g->rng, 50))
		diff_emit_load(g, R_RCX,
			       rng_chance(&g->rng, 50) ? rng_below(&g->rng, 2) : 1ull << 32);
	if (rng_chance(&g->rng, 30) ? !EMIT_TO(g, 1, &label, 0x67, op, 0)
				    : !EMIT_TO(g, 1, &label, op, 0))
		return false;
	some(g, 1);
	diff_bind(g, &label, 0);
	return true;
}

/* dec counter; jnz, or loop, loope, loopne; around a body that leaves the counter alone. */
static bool loop(struct diff_gen *g)
{
	uint32_t counter = rng_chance(&g->rng, 50) ? R_RCX : diff_any_register(g);
	uint32_t head, back;
	uint8_t rex = (uint8_t)(0x48 | counter >> 3);
	struct diff_label label;

	if (counter == R_RSP || (g->pinned >> counter & 1))
		return false;
	diff_emit_load(g, counter, 1 + rng_below(&g->rng, 6));
	g->pinned |= (uint16_t)(1u << counter);
	head = g->at;
	g->undefined = FLAGS_ARITHMETIC;
	g->known &= (uint16_t)(g->favored | 1u << counter);
	some(g, 4);
	g->pinned &= (uint16_t) ~(1u << counter);
	if (counter == R_RCX && rng_chance(&g->rng, 70)) {
		uint8_t op =
			g->undefined & FLAG_ZF ? 0xe2 : (uint8_t)(0xe0 + rng_below(&g->rng, 3));

		back = EMIT_TO(g, 1, &label, op, 0);
	} else {
		if (g->c->mode == MODE_COMPAT)
			EMIT(g, 0xff, (uint8_t)(0xc8 | counter));
		else
			EMIT(g, rex, 0xff, (uint8_t)(0xc8 | (counter & 7)));
		back = EMIT_TO(g, 1, &label, 0x75, 0);
	}
	if (!back || label.end - head > 128) {
		g->failed = true;
		return false;
	}
	g->c->code[label.field] = (uint8_t)(head - label.end);
	g->known &= (uint16_t) ~(1u << counter);
	return true;
}

/* call f; ...; jmp over; f: ...; ret; over: */
static bool call_and_return(struct diff_gen *g)
{
	struct diff_wish wish = { .bytes = 256, .write = true, .align = 8 };
	struct diff_label f, over;
	uint64_t rsp;

	if (!(g->known >> R_RSP & 1) || rng_chance(&g->rng, 30))
		diff_emit_load(g, R_RSP, diff_target(&g->rng, &wish) + 128);
	rsp = g->value[R_RSP];
	if (!EMIT_TO(g, 4, &f, 0xe8, B4(0)))
		return false;
	some(g, 1);
	if (!EMIT_TO(g, 4, &over, 0xe9, B4(0)))
		return false;
	f.known &= (uint16_t) ~(1u << R_RSP);
	diff_bind(g, &f, 0);
	g->pinned |= 1u << R_RSP;
	some(g, 2);
	g->pinned &= (uint16_t) ~(1u << R_RSP);
	if (rng_chance(&g->rng, 75))
		EMIT(g, 0xc3);
	else
		EMIT(g, 0xc2, (uint8_t)(8 * rng_below(&g->rng, 4)), 0);
	diff_bind(g, &over, 0);
	g->value[R_RSP] = rsp;
	return true;
}

/* lea r, [rip + label]; a jump through it, a call, a push and a return, or through memory. */
static bool jump_indirect(struct diff_gen *g)
{
	uint32_t r = diff_any_register(g), at = diff_image_target(g, 8, 1);
	uint8_t b = (uint8_t)(r >> 3), low = (uint8_t)(r & 7);
	uint8_t op = rng_chance(&g->rng, 60) ? 4 : 2; /* jmp, call */
	struct diff_label label;

	if (r == R_RSP ||
	    !EMIT_TO(g, 4, &label, (uint8_t)(0x48 | b << 2), 0x8d, (uint8_t)(low << 3 | 5), B4(0)))
		return false;
	g->pinned |= (uint16_t)(1u << r);
	some(g, 1);
	g->pinned &= (uint16_t) ~(1u << r);
	switch (rng_below(&g->rng, 3)) {
	case 0:
		EMIT(g, (uint8_t)(0x40 | b), 0xff, (uint8_t)(0xc0 | op << 3 | low));
		break;
	case 1:
		EMIT(g, (uint8_t)(0x40 | b), (uint8_t)(0x50 | low));
		EMIT(g, 0xc3);
		break;
	default:
		EMIT(g, (uint8_t)(0x48 | b << 2), 0x89, (uint8_t)(low << 3 | 4), 0x25, B4(at));
		EMIT(g, 0xff, (uint8_t)(op << 3 | 4), 0x25, B4(at));
	}
	some(g, 1);
	diff_bind(g, &label, 0);
	g->known &= (uint16_t) ~(1u << R_RSP);
	return true;
}

/* To where no code is: a hole, a data page (not executable), an address that is not canonical. */
static bool jump_away(struct diff_gen *g)
{
	const uint64_t away[] = {
		DIFF_ARENA_VA, diff_pages[0].va + 5, DIFF_CODE_VA + 15 * DIFF_PAGE,
		DIFF_FAR_VA,   diff_pages[2].va,
	};
	uint32_t r = low_register(g);

	diff_emit_load(g, r, away[rng_below(&g->rng, sizeof(away) / sizeof(away[0]))]);
	if (rng_chance(&g->rng, 50))
		return EMIT(g, 0xff, (uint8_t)(0xe0 | r));
	if (rng_chance(&g->rng, 50))
		return EMIT(g, 0xff, (uint8_t)(0xd0 | r));
	EMIT(g, (uint8_t)(0x50 | r));
	return EMIT(g, 0xc3);
}

static bool branch(struct diff_gen *g)
{
	switch (rng_below(&g->rng, g->c->mode == MODE_COMPAT ? 13 : 16)) {
	case 0 ... 5:
		return jump_if(g);
	case 6 ... 7:
		return jump(g);
	case 8:
		return jump_if_rcx(g);
	case 9 ... 10:
		return loop(g);
	case 11 ... 12:
		return call_and_return(g);
	case 13 ... 14:
		return jump_indirect(g);
	default:
		return rng_chance(&g->rng, 15) ? jump_away(g) : jump_if(g);
	}
}

/* ---- state */

static bool load_flags(struct diff_gen *g)
{
	uint32_t flags = (uint32_t)rng_next(&g->rng) &
			 (FLAGS_ARITHMETIC | FLAG_DF | FLAG_ID | FLAG_IF | 0x3002);

	if (rng_chance(&g->rng, 50))
		flags &= ~FLAG_DF;
	if (g->c->mode == MODE_SYSTEM) /* where these count */
		flags = (flags & ~0x3000u) | FLAG_IF;
	if (!(g->known >> R_RSP & 1))
		return false;
	if (!EMIT(g, 0x68, B4(flags)))
		return false;
	if (rng_chance(&g->rng, 80))
		EMIT(g, 0x9d);
	else
		EMIT(g, 0x66, 0x9d);
	g->undefined = 0;
	return true;
}

/* Sometimes with reserved bits, which fault. */
static bool load_mxcsr(struct diff_gen *g)
{
	uint32_t at = diff_image_target(g, 4, 1), value = (uint32_t)rng_next(&g->rng) & 0xffff;

	if (rng_chance(&g->rng, 60))
		value |= 0x1f80;
	if (rng_chance(&g->rng, 3))
		value |= 0x10000;
	store(g, at, value);
	if (g->plan->avx && rng_chance(&g->rng, 30))
		return EMIT(g, 0xc5, 0xf8, 0xae, 0x14, 0x25, B4(at));
	return EMIT(g, 0x0f, 0xae, 0x14, 0x25, B4(at));
}

/* x87's instruction and data pointers are not compared: cleared in images. */
static void clear_pointers(struct diff_gen *g, uint32_t at, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i += 4)
		store(g, at + i, 0);
}

static bool x87_image(struct diff_gen *g)
{
	uint32_t at = diff_image_target(g, 108, 1);
	bool all = rng_chance(&g->rng, 50);
	uint8_t op = all ? 0xdd : 0xd9;

	if (!EMIT(g, op, 0x34, 0x25, B4(at))) /* fnsave, fnstenv */
		return false;
	clear_pointers(g, at, 12, 28);
	some(g, 2);
	if (rng_chance(&g->rng, 70))
		EMIT(g, op, 0x24, 0x25, B4(at)); /* frstor, fldenv */
	return true;
}

static bool fx_image(struct diff_gen *g)
{
	uint32_t at = diff_image_target(g, 512, 16);
	uint8_t rex = rng_chance(&g->rng, 50) ? 0x48 : 0x40;

	if (rng_chance(&g->rng, 4))
		at += 4;
	if (!EMIT(g, rex, 0x0f, 0xae, 0x04, 0x25, B4(at)))
		return false;
	clear_pointers(g, at, 8, 24);
	EMIT(g, 0x66, 0xc7, 0x04, 0x25, B4(at + 6), 0, 0); /* the opcode */
	some(g, 2);
	if (rng_chance(&g->rng, 70))
		EMIT(g, rex, 0x0f, 0xae, 0x0c, 0x25, B4(at));
	return true;
}

/* xsave into a cleared header, with any of the parts; and back, with any. */
static bool xsave_image(struct diff_gen *g)
{
	uint32_t at = diff_image_target(g, DIFF_XSAVE_BYTES, 64);
	uint8_t rex = rng_chance(&g->rng, 50) ? 0x48 : 0x40;
	uint32_t parts = rng_below(&g->rng, 8);

	if (!g->plan->avx || (g->pinned & 5))
		return false;
	for (uint32_t i = 0; i < 64; i += 8)
		EMIT(g, 0x48, 0xc7, 0x04, 0x25, B4(at + 512 + i), B4(0));
	diff_emit_load(g, R_RAX, parts);
	diff_emit_load(g, R_RDX, 0);
	EMIT(g, rex, 0x0f, 0xae, 0x24, 0x25, B4(at));
	store(g, at + 512, parts); /* which of them are "in use" depends on the CPU */
	clear_pointers(g, at, 8, 24);
	EMIT(g, 0x66, 0xc7, 0x04, 0x25, B4(at + 6), 0, 0);
	store(g, at + 28, 0xffff); /* MXCSR's mask */
	some(g, 2);
	diff_emit_load(g, R_RAX, rng_below(&g->rng, 8));
	diff_emit_load(g, R_RDX, 0);
	if (rng_chance(&g->rng, 5))
		store(g, at + 512 + 8 * rng_below(&g->rng, 8), 8); /* not valid */
	if (rng_chance(&g->rng, 70))
		EMIT(g, rex, 0x0f, 0xae, 0x2c, 0x25, B4(at));
	return true;
}

static bool load_segment(struct diff_gen *g)
{
	static const uint16_t selector[] = { 0,	   1,	 2,    3,    0x2b,   0x2b,
					     0x28, 0x33, 0x10, 0x18, 0x1000, 0xffff };
	static const uint8_t which[] = { 0, 3, 2 }; /* es, ds, ss */
	uint8_t reg = which[rng_below(&g->rng, 3)];
	uint16_t value = selector[rng_below(&g->rng, 12)];

	if (g->c->mode != MODE_USER || (g->pinned & 1))
		return false;
	if (reg == 2 && rng_chance(&g->rng, 80))
		value = DIFF_SS;
	diff_emit_load(g, R_RAX, value);
	return EMIT(g, 0x8e, (uint8_t)(0xc0 | reg << 3));
}

static bool state(struct diff_gen *g)
{
	switch (rng_below(&g->rng, 7)) {
	case 0:
		return load_flags(g);
	case 1:
		return load_mxcsr(g);
	case 2:
		return x87_image(g);
	case 3:
		return fx_image(g);
	case 4:
		return xsave_image(g);
	case 5:
		return load_segment(g);
	default:
		return false;
	}
}

/* ---- gathers: indices that are loaded first, and small */

static bool gather(struct diff_gen *g)
{
	uint32_t at = diff_image_target(g, 1024, 32) + 512, index_at = diff_image_target(g, 64, 32);
	uint8_t op = (uint8_t)(0x90 + rng_below(&g->rng, 4));
	uint8_t w = rng_chance(&g->rng, 50) ? 0x80 : 0, l = rng_chance(&g->rng, 50) ? 4 : 0;
	uint8_t dst = (uint8_t)rng_below(&g->rng, 5), index = (uint8_t)(5 + rng_below(&g->rng, 3));
	uint8_t mask = (uint8_t)(8 + rng_below(&g->rng, 8)), scale = (uint8_t)rng_below(&g->rng, 4);
	bool wide = op & 1;

	if (!g->plan->avx || g->c->mode == MODE_COMPAT)
		return false;
	for (uint32_t i = 0; i < 32; i += 4) {
		uint32_t value = rng_below(&g->rng, 48) - 24;

		if (wide && (i & 4))
			value = 0;
		if (wide)
			value &= 31;
		if (rng_chance(&g->rng, 2))
			value += 0x1000;
		store(g, index_at + i, value);
	}
	EMIT(g, 0xc5, 0xfe, 0x6f, (uint8_t)(0x04 | index << 3), 0x25, B4(index_at));
	return EMIT(g, 0xc4, 0xe2, (uint8_t)(w | (~mask & 15) << 3 | l | 1), op,
		    (uint8_t)(dst << 3 | 4), (uint8_t)(scale << 6 | index << 3 | 5), B4(at));
}

/* ---- self-modifying code */

/* mov byte [rip + d], value: into the immediate of an instruction a little later. */
static bool modify(struct diff_gen *g)
{
	uint32_t r = low_register(g);
	uint8_t value = (uint8_t)rng_next(&g->rng);
	bool store_first = rng_chance(&g->rng, 70);
	struct diff_label label;

	/* The relative field is followed by the immediate: bound as if it came one byte later. */
	if (!EMIT_TO(g, 4, &label, 0x48, 0x8d, (uint8_t)(r << 3 | 5), B4(0)))
		return false;
	g->pinned |= (uint16_t)(1u << r);
	if (store_first)
		EMIT(g, 0xc6, (uint8_t)r, value); /* mov byte [r], value */
	else
		EMIT(g, 0x80, (uint8_t)r, value); /* add byte [r], value */
	some(g, 2);
	g->pinned &= (uint16_t) ~(1u << r);
	diff_bind(g, &label, 2);
	if (!EMIT(g, 0x83, (uint8_t)(0xc0 | low_register(g)), 0x55)) /* add r32, imm8 */
		g->failed = true;
	return true;
}

/* The same in a loop: the instruction changes every time round. */
static bool modify_in_loop(struct diff_gen *g)
{
	uint32_t r = low_register(g), head;
	struct diff_label label, back;

	if (r == R_RCX || (g->pinned >> R_RCX & 1))
		return false;
	if (!EMIT_TO(g, 4, &label, 0x48, 0x8d, (uint8_t)(r << 3 | 5), B4(0)))
		return false;
	diff_emit_load(g, R_RCX, 1 + rng_below(&g->rng, 5));
	g->pinned |= (uint16_t)(1u << r | 1u << R_RCX);
	head = g->at;
	g->undefined = FLAGS_ARITHMETIC;
	g->known &= g->favored;
	if (rng_chance(&g->rng, 50))
		EMIT(g, 0xfe, (uint8_t)r); /* inc byte [r] */
	else
		EMIT(g, 0x83, (uint8_t)r, 0x07); /* add dword [r], 7: bytes beyond, too */
	some(g, 1);
	diff_bind(g, &label, 2);
	if (!EMIT(g, 0x81, (uint8_t)(0xc0 | low_register(g)), B4(0x11))) /* add r32, imm32 */
		g->failed = true;
	g->pinned &= (uint16_t) ~(1u << r | 1u << R_RCX);
	if (!EMIT_TO(g, 1, &back, 0xe2, 0) || back.end - head > 128) {
		g->failed = true;
		return false;
	}
	g->c->code[back.field] = (uint8_t)(head - back.end);
	return true;
}

/* ---- single step: #DB behind the instruction that follows popf */

static bool step(struct diff_gen *g)
{
	if (!(g->known >> R_RSP & 1))
		return false;
	EMIT(g, 0x68, B4(FLAG_TF | FLAG_IF | ((uint32_t)rng_next(&g->rng) & FLAGS_ARITHMETIC)));
	g->undefined = 0;
	if (!EMIT(g, 0x9d))
		return false;
	g->undefined = 0;
	if (rng_chance(&g->rng, 30))
		return branch(g);
	diff_emit_random(g);
	return EMIT(g, 0x90); /* so that the step is not into another template */
}

bool diff_template(struct diff_gen *g, enum diff_class class)
{
	switch (class) {
	case CLASS_BRANCH:
		return branch(g);
	case CLASS_STATE:
		return state(g);
	case CLASS_WALK:
		return g->c->mode != MODE_COMPAT && diff_walk(g);
	case CLASS_SMC:
		return rng_chance(&g->rng, 60) ? modify(g) : modify_in_loop(g);
	case CLASS_STEP:
		return step(g);
	case CLASS_AVX:
		return rng_chance(&g->rng, 3) && gather(g);
	default:
		return false;
	}
}
