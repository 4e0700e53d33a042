/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that walk through memory, off pointers and indexes that go on by constants, over the edges
 * of pages: where a translator may look only now and then.
 */
#include <string.h>

#include "tests/soft/diff_gen.h"

#define NO_INDEX 16u
#define WALK_MAX 5

struct walk {
	uint32_t pointer[WALK_MAX], count;
	uint32_t index[WALK_MAX], scale[WALK_MAX]; /* off the pointer, which then stays; NO_INDEX */
	int32_t distance[WALK_MAX];		   /* from the pointer to what it is for */
	int32_t stride;				   /* of most of them */
	bool stack;				   /* rsp is one of its own */
};

/* op reg, [pointer + displacement], or [pointer + displacement], reg; no other register changes. */
static bool walk_access(struct diff_gen *g, const struct walk *walk, uint32_t i)
{
	static const uint8_t opcode[][3] = {
		{ 0, 0x8b },	   { 0, 0x89 },	      { 0, 0x03 },	 { 0, 0x01 },
		{ 0, 0x39 },	   { 0, 0x88 },	      { 0, 0x8a },	 { 0, 0x0f, 0xb6 },
		{ 0, 0x0f, 0x10 }, { 0, 0x0f, 0x11 }, { 0, 0x0f, 0x58 }, { 0xf2, 0x0f, 0x10 },
		{ 0, 0x0f, 0x28 },
	};
	const uint8_t *op = opcode[rng_below(&g->rng, sizeof(opcode) / sizeof(opcode[0]))];
	uint32_t reg =
		op[1] == 0x0f && op[2] != 0xb6 ? rng_below(&g->rng, 16) : diff_any_register(g);
	uint32_t width = op[1] == 0x0f || rng_chance(&g->rng, 40) ? 0 : 8;
	int32_t disp = walk->distance[i] +
		       (int32_t)rng_below(&g->rng, rng_chance(&g->rng, 70) ? 32 : 300) - 16;
	uint32_t pointer = walk->pointer[i], index = walk->index[i];
	uint32_t scale = rng_chance(&g->rng, 10) ? rng_below(&g->rng, 4) : walk->scale[i];
	uint8_t bytes[12];
	uint32_t n = 0;

	if (op[0])
		bytes[n++] = op[0];
	bytes[n++] = (uint8_t)(0x40 | width | (reg >> 3) << 2 |
			       (index == NO_INDEX ? 0 : index >> 3) << 1 | pointer >> 3);
	bytes[n++] = op[1];
	if (op[1] == 0x0f)
		bytes[n++] = op[2];
	if (index == NO_INDEX && (pointer & 7) != R_RSP) {
		bytes[n++] = (uint8_t)(0x80 | (reg & 7) << 3 | (pointer & 7));
	} else {
		bytes[n++] = (uint8_t)(0x84 | (reg & 7) << 3);
		bytes[n++] = (uint8_t)(scale << 6 | (index == NO_INDEX ? 4 : index & 7) << 3 |
				       (pointer & 7));
	}
	memcpy(bytes + n, &disp, 4);
	return diff_emit(g, bytes, n + 4);
}

static void walk_step(struct diff_gen *g, const struct walk *walk, uint32_t pointer)
{
	static const int16_t strides[] = { 1, 4, 8, 16, 24, 64, 256, 257, -1, -8, -16, -64, -256 };
	uint8_t b = (uint8_t)(pointer >> 3), low = (uint8_t)(pointer & 7);
	int32_t by = walk->stride;

	if (rng_chance(&g->rng, 25))
		by = strides[rng_below(&g->rng, sizeof(strides) / sizeof(strides[0]))];
	switch (rng_below(&g->rng, 4)) {
	case 0: /* inc, dec */
		EMIT(g, 0x48 | b, 0xff, (uint8_t)((by > 0 ? 0xc0 : 0xc8) | low));
		break;
	case 1: /* add */
		EMIT(g, 0x48 | b, 0x81, 0xc0 | low, B4(by));
		break;
	case 2: /* sub */
		EMIT(g, 0x48 | b, 0x81, 0xe8 | low, B4(-by));
		break;
	default: /* lea */
		if (low == R_RSP)
			EMIT(g, 0x48 | b | b << 2, 0x8d, 0x84 | low << 3, 0x24, B4(by));
		else
			EMIT(g, 0x48 | b | b << 2, 0x8d, 0x80 | low << 3 | low, B4(by));
	}
}

/* An index for one of the pointers: one that others have, or a new one, near 0 or far away. */
static void walk_index(struct diff_gen *g, struct walk *walk, uint32_t i)
{
	uint32_t reg = i && rng_chance(&g->rng, 50) ? walk->index[0] : diff_any_register(g);
	uint64_t value;

	walk->index[i] = NO_INDEX;
	walk->scale[i] = rng_below(&g->rng, 4);
	if (rng_chance(&g->rng, 50) || reg == R_RSP || reg == walk->pointer[i])
		return;
	if (i && reg == walk->index[0]) {
		walk->index[i] = reg;
		g->pinned &= (uint16_t) ~(1u << walk->pointer[i]);
		diff_emit_load(g, walk->pointer[i],
			       g->value[walk->pointer[i]] - (g->value[reg] << walk->scale[i]));
		g->pinned |= (uint16_t)(1u << walk->pointer[i]);
		return;
	}
	if (reg == NO_INDEX || (g->pinned >> reg & 1))
		return;
	value = rng_chance(&g->rng, 70) ? rng_below(&g->rng, 64) - 16ull
					: rng_below(&g->rng, 1u << 20) * 4099ull;
	g->pinned &= (uint16_t) ~(1u << walk->pointer[i]);
	diff_emit_load(g, walk->pointer[i], g->value[walk->pointer[i]] - (value << walk->scale[i]));
	diff_emit_load(g, reg, value);
	g->pinned |= (uint16_t)(1u << walk->pointer[i] | 1u << reg);
	walk->index[i] = reg;
}

/* What is between them: other users of flags and r14 and r15, other kinds of operands. */
static void walk_other(struct diff_gen *g, const struct walk *walk, uint32_t i)
{
	static const uint8_t opcode[] = { 0x11, 0x13, 0x19, 0x1b, 0x31, 0x39, 0x85, 0x89 };
	uint32_t a = diff_any_register(g), b = diff_any_register(g);
	uint32_t constant = diff_image_target(g, 64, 1), pointer = walk->pointer[i];
	uint8_t rex = (uint8_t)(0x48 | (a >> 3) << 2 | b >> 3), modrm = (a & 7) << 3;
	bool calls;

	switch (rng_below(&g->rng, 6)) {
	case 0: /* op b, a; adc and sbb among them */
		EMIT(g, rex, opcode[rng_below(&g->rng, sizeof(opcode))], 0xc0 | modrm | (b & 7));
		break;
	case 1: /* cmovcc a, b */
		EMIT(g, rex, 0x0f, 0x40 | rng_below(&g->rng, 16), 0xc0 | modrm | (b & 7));
		break;
	case 2: /* setcc b */
		EMIT(g, rex, 0x0f, 0x90 | rng_below(&g->rng, 16), 0xc0 | (b & 7));
		break;
	case 3: /* to or from a constant address */
		EMIT(g, 0x48 | (a >> 3) << 2, rng_chance(&g->rng, 50) ? 0x8b : 0x01, 0x04 | modrm,
		     0x25, B4(constant));
		break;
	case 4: /* by way of a register that has just been loaded */
		if ((pointer & 7) == R_RSP || (a & 7) == R_RSP || (a & 7) == R_RBP || a == b)
			return;
		EMIT(g, 0x48 | (a >> 3) << 2 | pointer >> 3, 0x8d, 0x80 | modrm | (pointer & 7),
		     B4(walk->distance[i]));
		EMIT(g, 0x48 | (b >> 3) << 2 | a >> 3, 0x8b, (b & 7) << 3 | (a & 7));
		break;
	default:
		if (!walk->stack)
			return;
		g->pinned &= (uint16_t) ~(1u << R_RSP);
		calls = rng_chance(&g->rng, 40);
		if (calls) /* of what is next */
			EMIT(g, 0xe8, B4(0));
		EMIT(g, 0x40 | a >> 3, 0x50 | (a & 7));
		if (rng_chance(&g->rng, 50))
			walk_access(g, walk, i);
		EMIT(g, 0x40 | b >> 3, 0x58 | (b & 7));
		if (calls)
			EMIT(g, 0x40 | b >> 3, 0x58 | (b & 7));
	}
}

static void walk_stack(struct diff_gen *g, struct walk *walk)
{
	struct diff_wish wish = { .bytes = 64, .write = true, .bad_percent = 4 };
	uint64_t at;

	walk->stack = !(g->pinned >> R_RSP & 1) && rng_chance(&g->rng, 30);
	if (!walk->stack)
		return;
	at = diff_target(&g->rng, &wish);
	if (rng_chance(&g->rng, 50)) /* what is pushed crosses into the page below */
		at = (at & ~(uint64_t)(DIFF_PAGE - 1)) + 4 * rng_below(&g->rng, 9);
	else
		at += rng_below(&g->rng, 64);
	diff_emit_load(g, R_RSP, at);
	g->pinned |= 1u << R_RSP;
}

static bool walk_begin(struct diff_gen *g, struct walk *walk)
{
	static const int16_t strides[] = { 1, 2, 4, 8, 8, 8, 16, 16, 32, 64, -4, -8, -16 };

	walk->count = 1 + rng_below(&g->rng, rng_chance(&g->rng, 80) ? 3 : WALK_MAX);
	walk->stride = strides[rng_below(&g->rng, sizeof(strides) / sizeof(strides[0]))];
	for (uint32_t i = 0; i < walk->count; i++) {
		struct diff_wish wish = { .bytes = 8, .write = true, .bad_percent = 4 };
		uint64_t at = diff_target(&g->rng, &wish);
		uint32_t reg = rng_chance(&g->rng, 10) ? R_RSP : diff_any_register(g);

		if (g->pinned >> reg & 1)
			return false;
		if (rng_chance(&g->rng, 40)) /* near a page's end, or its start */
			at = ((at | (DIFF_PAGE - 1)) + 1) + rng_below(&g->rng, 400) - 200;
		/* The pointer itself comes round, or nearly. */
		walk->distance[i] = at <= INT32_MAX - 2048 && rng_chance(&g->rng, 15)
					    ? (int32_t)at + (int32_t)rng_below(&g->rng, 1600) - 800
					    : 0;
		diff_emit_load(g, reg, at - (uint64_t)walk->distance[i]);
		walk->pointer[i] = reg;
		g->pinned |= (uint16_t)(1u << reg);
		walk_index(g, walk, i);
	}
	return true;
}

bool diff_walk(struct diff_gen *g)
{
	uint16_t pinned = g->pinned, ours;
	uint32_t counter, head;
	struct diff_label label;
	struct walk walk;
	bool fits = walk_begin(g, &walk);

	walk_stack(g, &walk);
	counter = diff_any_register(g);
	if (!fits || (g->pinned >> counter & 1)) {
		g->pinned = pinned;
		return false;
	}
	diff_emit_load(g, counter, 1 + rng_below(&g->rng, rng_chance(&g->rng, 30) ? 300 : 20));
	g->pinned |= (uint16_t)(1u << counter);
	ours = g->pinned;
	head = g->at;
	g->known = 0; /* and none of what follows leaves a flag undefined that is read */
	for (uint32_t n = 2 + rng_below(&g->rng, rng_chance(&g->rng, 80) ? 5 : 16); n; n--) {
		uint32_t i = rng_below(&g->rng, walk.count), kind = rng_below(&g->rng, 100);

		g->pinned = ours;
		if (kind < 55) {
			walk_access(g, &walk, i);
		} else if (kind < 75) {
			walk_other(g, &walk, i);
		} else {
			g->pinned = pinned;
			walk_step(g, &walk,
				  walk.index[i] == NO_INDEX || rng_chance(&g->rng, 5)
					  ? walk.pointer[i]
					  : walk.index[i]);
		}
	}
	g->pinned = pinned;
	g->known = 0;
	EMIT(g, (uint8_t)(0x48 | counter >> 3), 0xff, (uint8_t)(0xc8 | (counter & 7)));
	if (!EMIT_TO(g, 4, &label, 0x0f, 0x85, B4(0)))
		return false;
	head -= label.end;
	memcpy(g->c->code + label.field, &head, 4);
	return true;
}
