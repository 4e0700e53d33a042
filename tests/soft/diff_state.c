/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sequence starts from: registers, memory and addresses, biased towards what is interesting
 * (edges of pages and of number ranges, floating-point oddities, pointers into the data pages).
 * All a function of the seed. See diff.h for the layout.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/soft/diff.h"

#define ARENA(page) (DIFF_ARENA_VA + (page)*DIFF_PAGE)
#define FAR(page)   (DIFF_FAR_VA + (page)*DIFF_PAGE)
#define ARENA_PAGES 9u /* holes included */

const char diff_mode_letter[MODE_COUNT] = { 'u', 's', 'c' };

const struct diff_page diff_pages[DIFF_DATA_PAGES] = {
	{ ARENA(1), true },  { ARENA(2), true }, { ARENA(3), false }, { ARENA(5), true },
	{ ARENA(6), false }, { ARENA(7), true }, { FAR(1), true },    { FAR(2), true },
};

void *diff_allocate(size_t bytes)
{
	size_t rounded = (bytes + 63) / 64 * 64;
	void *memory = aligned_alloc(64, rounded);

	return memory ? memset(memory, 0, rounded) : NULL;
}

uint32_t diff_code_room(uint64_t code_va)
{
	uint64_t page = (code_va - DIFF_CODE_VA) / DIFF_PAGE, edge;

	while (!DIFF_CODE_HOLE(page))
		page++;
	edge = DIFF_CODE_VA + page * DIFF_PAGE;
	return edge > code_va ? (uint32_t)(edge - code_va) : 0;
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

uint64_t diff_window(const struct diff_case *c)
{
	return c->code_va & ~(uint64_t)(DIFF_PAGE - 1);
}

uint32_t diff_window_bytes(const struct diff_case *c)
{
	return lesser(diff_code_room(diff_window(c)), DIFF_WINDOW);
}

uint32_t diff_window_at(const struct diff_case *c)
{
	return (uint32_t)(c->code_va - diff_window(c));
}

uint32_t diff_code_seen(const struct diff_case *c)
{
	return lesser(c->code_bytes, diff_code_room(c->code_va));
}

uint32_t diff_window_fill(const struct diff_case *c, uint8_t ret_window[DIFF_WINDOW])
{
	memset(ret_window, 0xcc, DIFF_WINDOW);
	memcpy(ret_window + diff_window_at(c), c->code, diff_code_seen(c));
	return diff_window_bytes(c);
}

uint64_t diff_number(struct rng *rng)
{
	static const uint64_t edge[] = {
		0,
		1,
		2,
		3,
		7,
		8,
		0x7f,
		0x80,
		0xff,
		0x100,
		0x7fff,
		0x8000,
		0xffff,
		0x10000,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0x7fffffffffffffff,
		0x8000000000000000,
		0xffffffffffffffff,
		0xfffffffffffffffe,
		0xffffffff80000000,
		0xffffffffffffff80,
		0x0123456789abcdef,
		0x5555555555555555,
		0xaaaaaaaaaaaaaaaa,
	};

	switch (rng_below(rng, 5)) {
	case 0:
		return edge[rng_below(rng, sizeof(edge) / sizeof(edge[0]))];
	case 1:
		return rng_below(rng, 64);
	case 2:
		return rng_next(rng) >> rng_below(rng, 64);
	case 3:
		return 1ull << rng_below(rng, 64);
	default:
		return rng_next(rng);
	}
}

static uint64_t bad_target(struct rng *rng, const struct diff_wish *wish)
{
	uint32_t page = rng_below(rng, ARENA_PAGES);
	uint64_t edge = ARENA(page) + DIFF_PAGE;

	switch (rng_below(rng, 8)) {
	case 0: /* a hole, or the wrong kind of page */
		return ARENA(page) + rng_below(rng, DIFF_PAGE);
	case 1:
		return ARENA(4) + rng_below(rng, DIFF_PAGE);
	case 2:
		return ARENA(rng_chance(rng, 50) ? 3 : 6) + rng_below(rng, DIFF_PAGE);
	case 3: /* not canonical */
		return 0x800000000000ull + (rng_next(rng) >> 17);
	case 4: /* misaligned */
		return ARENA(1) + rng_below(rng, DIFF_PAGE - 64);
	default: /* across the end of a page */
		return edge - (wish->bytes > 1 ? 1 + rng_below(rng, wish->bytes - 1) : 0);
	}
}

uint64_t diff_target(struct rng *rng, const struct diff_wish *wish)
{
	uint64_t at;
	const struct diff_page *page;
	uint32_t room = DIFF_PAGE - (wish->bytes < DIFF_PAGE ? wish->bytes : 0);

	if (rng_chance(rng, wish->bad_percent))
		return bad_target(rng, wish);
	do {
		page = &diff_pages[rng_below(rng, DIFF_DATA_PAGES)];
	} while ((wish->write && !page->writable) || (wish->low && page->va >= DIFF_FAR_VA));
	at = rng_below(rng, room + 1);
	/* Half of all accesses are aligned, and those that must be. */
	if (wish->align > 1)
		at &= ~(uint64_t)(wish->align - 1);
	else if (rng_chance(rng, 50))
		at &= ~7ull;
	return page->va + at;
}

/* Eight bytes as data: integers, singles, doubles, pointers. */
static uint64_t random_word(struct rng *rng)
{
	static const uint64_t floats[] = {
		0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
		0x7ff8000000000000, 0x7ff0000000000001, 0x0000000000000001, 0x800fffffffffffff,
		0x0010000000000000, 0x7fefffffffffffff, 0x4330000000000000, 0x41dfffffffc00000,
		0x43e0000000000000, 0x3f8000003f800000, 0x7f800000ff800000, 0x7fc000007f800001,
		0x0000000180000001, 0x007fffff00800000, 0x4f0000004effffff, 0x7bff7c0000010400,
	};

	switch (rng_below(rng, 6)) {
	case 0:
		return floats[rng_below(rng, sizeof(floats) / sizeof(floats[0]))];
	case 1: /* doubles of moderate size */
		return (rng_next(rng) & 0x800fffffffffffff) |
		       (uint64_t)(1023 - 40 + rng_below(rng, 80)) << 52;
	case 2: /* two singles */
		return (rng_next(rng) & 0x807fffff807fffff) |
		       (uint64_t)(127 - 20 + rng_below(rng, 40)) << 23 |
		       (uint64_t)(127 - 20 + rng_below(rng, 40)) << 55;
	case 3:
		return diff_pages[rng_below(rng, DIFF_DATA_PAGES)].va + rng_below(rng, DIFF_PAGE);
	default:
		return diff_number(rng);
	}
}

static uint8_t (*make_images(void))[DIFF_PAGE]
{
	size_t bytes = (size_t)DIFF_IMAGES * DIFF_DATA_PAGES * DIFF_PAGE;
	uint8_t(*images)[DIFF_PAGE] = malloc(bytes);
	struct rng rng = { .state = 0x696d61676573 };

	if (!images)
		abort();
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t word = random_word(&rng);

		memcpy((uint8_t *)images + i, &word, sizeof(word));
	}
	for (uint32_t i = DIFF_DATA_PAGES; i < DIFF_IMAGES * DIFF_DATA_PAGES; i++)
		if (!diff_pages[i % DIFF_DATA_PAGES].writable)
			memcpy(images[i], images[i % DIFF_DATA_PAGES], DIFF_PAGE);
	return images;
}

const uint8_t (*diff_image(uint32_t number))[DIFF_PAGE]
{
	static uint8_t(*images)[DIFF_PAGE];

	if (!images)
		images = make_images();
	return (const uint8_t(*)[DIFF_PAGE])(images + (size_t)number * DIFF_DATA_PAGES);
}

static uint64_t random_register(struct rng *rng)
{
	static const struct diff_wish wish = { .bytes = 64, .write = true, .bad_percent = 5 };
	uint64_t pointer = diff_target(rng, &wish), number;

	switch (rng_below(rng, 10)) {
	case 0 ... 4:
		return pointer;
	case 5: /* good with a 32-bit address size only */
		return pointer | rng_next(rng) << 32;
	case 6:
		return rng_below(rng, 256);
	default:
		number = diff_number(rng);
		/* Nobody is to point at code by chance. */
		return number - DIFF_CODE_VA < DIFF_CODE_PAGES * DIFF_PAGE ? ~number : number;
	}
}

static uint64_t random_stack(struct rng *rng)
{
	static const struct diff_wish wish = { .bytes = 512, .write = true, .align = 16 };
	static const struct diff_wish any = { .bytes = 8, .write = true, .bad_percent = 30 };

	if (rng_chance(rng, 75))
		return diff_target(rng, &wish) + 256;
	return rng_chance(rng, 50) ? diff_target(rng, &any) & ~7ull : diff_target(rng, &any);
}

static void random_x87(struct rng *rng, uint8_t *xsave)
{
	uint16_t fcw = 0x37f, fsw = 0;
	uint8_t full = 0;

	if (rng_chance(rng, 20))
		fcw = (uint16_t)((rng_next(rng) & 0xf3f) | 0x40);
	if (rng_chance(rng, 40)) {
		fsw = (uint16_t)(rng_next(rng) & 0x7f00); /* top and condition codes */
		full = (uint8_t)rng_next(rng);
	}
	memcpy(xsave, &fcw, 2);
	memcpy(xsave + 2, &fsw, 2);
	xsave[4] = full;
	for (int i = 0; i < 8; i++) {
		uint64_t mantissa = random_word(rng);
		uint16_t exponent = (uint16_t)(0x3fff - 40 + rng_below(rng, 80));

		if (rng_chance(rng, 80))
			mantissa |= 1ull << 63;
		if (rng_chance(rng, 30))
			exponent = (uint16_t)diff_number(rng);
		memcpy(xsave + 32 + 16 * i, &mantissa, 8);
		memcpy(xsave + 40 + 16 * i, &exponent, 2);
	}
}

static void random_vectors(struct rng *rng, uint8_t *xsave)
{
	static const uint64_t parts = 7;
	uint32_t mxcsr = 0x1f80;

	if (rng_chance(rng, 25))
		mxcsr = (uint32_t)rng_next(rng) & 0xffff;
	if (rng_chance(rng, 50))
		mxcsr |= 0x1f80;
	memcpy(xsave + 24, &mxcsr, 4);
	memcpy(xsave + 512, &parts, 8);
	for (uint32_t i = 0; i < 256; i += 8) {
		uint64_t low = random_word(rng), high = random_word(rng);

		memcpy(xsave + 160 + i, &low, 8);
		memcpy(xsave + 576 + i, &high, 8);
	}
}

/* 32 bits; addresses beyond them go elsewhere. */
static void narrow(struct diff_state *start, struct rng *rng)
{
	static const struct diff_wish wish = {
		.bytes = 512, .write = true, .align = 4, .low = true
	};

	for (int i = 0; i < 16; i++) {
		if (start->gpr[i] >= DIFF_FAR_VA && start->gpr[i] < DIFF_FAR_VA + 4 * DIFF_PAGE)
			start->gpr[i] = diff_target(rng, &wish) + 256;
		start->gpr[i] = i < 8 ? (uint32_t)start->gpr[i] : 0;
	}
}

void diff_state_random(struct diff_case *c)
{
	struct rng rng = { .state = c->seed ^ 0x7374617465 };
	struct diff_state *start = &c->start;

	memset(start, 0, sizeof(*start));
	c->image = rng_below(&rng, DIFF_IMAGES);
	for (int i = 0; i < 16; i++)
		start->gpr[i] = random_register(&rng);
	start->gpr[4] = random_stack(&rng);
	if (c->mode == MODE_COMPAT)
		narrow(start, &rng);
	start->rflags = 2 | FLAG_IF | (rng_next(&rng) & FLAGS_ARITHMETIC);
	if (rng_chance(&rng, 10))
		start->rflags |= FLAG_DF;
	start->fs_base =
		rng_chance(&rng, 50) ? ARENA(1) + rng_below(&rng, DIFF_PAGE) : rng_next(&rng) >> 20;
	start->gs_base = rng_chance(&rng, 50) ? ARENA(2) : rng_next(&rng) >> 18;
	start->rip = c->code_va;
	start->cs = c->mode == MODE_COMPAT ? DIFF_CS32 : DIFF_CS;
	start->ss = DIFF_SS;
	start->ds = start->es = c->mode == MODE_COMPAT ? DIFF_SS : 0;
	random_x87(&rng, start->xsave);
	random_vectors(&rng, start->xsave);
	if (c->single && rng_chance(&rng, 15))
		start->rflags |= FLAG_AC;
	if (c->single && rng_chance(&rng, 3))
		start->rflags |= FLAG_TF;
}
