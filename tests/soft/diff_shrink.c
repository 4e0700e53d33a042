/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a sequence that fails to the smallest one that does, and how sequences are written down.
 * Instructions are replaced by nops rather than removed: what is relative to RIP stays right. And what
 * differs only after others: of these the fewest, for all that they leave behind is in the engine.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/soft/diff_decode.h"

/* Runs c on an engine of its own, after the first `count` of those in past, and once more. As diff_try(). */
static int try_after(struct diff_sides *sides, const struct diff_case *c,
		     const struct diff_outcome *native, const struct diff_case *const past[],
		     uint32_t count)
{
	int err = diff_guest_forget(sides->guest);
	bool equal = true;

	while (!err && count--)
		err = diff_guest_run(sides->guest, past[count], &sides->by_guest);
	for (uint32_t run = 0; run < 2 && !err && equal; run++) {
		err = diff_guest_run(sides->guest, c, &sides->by_guest);
		equal = err ||
			diff_equal(c, native, &sides->by_guest, sides->why, sizeof(sides->why));
	}
	return err ? err : !equal;
}

int diff_try(struct diff_sides *sides, const struct diff_case *c)
{
	uint32_t at;
	int err = diff_native_run(sides->native, c, 1, &sides->by_native, &at);

	if (err)
		return err;
	return sides->by_native.status ? 0 : try_after(sides, c, &sides->by_native, NULL, 0);
}

static bool fails(struct diff_sides *sides, struct diff_case *c)
{
	diff_analyse(c);
	return !c->tainted && diff_try(sides, c) == 1;
}

static bool shorten(struct diff_sides *sides, struct diff_case *c)
{
	struct diff_case *shorter = diff_allocate(sizeof(*shorter));
	bool found = false;

	for (uint32_t n = 0; shorter && n <= c->insn_count && !found; n++) {
		*shorter = *c;
		shorter->code_bytes = c->offset[n];
		found = fails(sides, shorter);
	}
	if (found)
		*c = *shorter;
	free(shorter);
	return found;
}

/* A nop of any length: operand-size prefixes and 0x90. */
static bool is_nop(const struct diff_case *c, uint32_t insn)
{
	uint32_t at = c->offset[insn], last = c->offset[insn + 1] - 1u;

	while (at < last && c->code[at] == 0x66)
		at++;
	return at == last && c->code[at] == 0x90;
}

static void blank(struct diff_sides *sides, struct diff_case *c)
{
	struct diff_case *blanked = diff_allocate(sizeof(*blanked));

	for (uint32_t n = c->insn_count; blanked && n-- > 0;) {
		uint32_t bytes = (uint32_t)(c->offset[n + 1] - c->offset[n]);

		*blanked = *c;
		memset(blanked->code + c->offset[n], 0x66, bytes);
		blanked->code[c->offset[n + 1] - 1] = 0x90;
		if (!is_nop(c, n) && fails(sides, blanked))
			*c = *blanked;
	}
	free(blanked);
}

/* Nops in front go: the sequence begins later. */
static void strip(struct diff_sides *sides, struct diff_case *c)
{
	struct diff_case *stripped = diff_allocate(sizeof(*stripped));
	uint32_t n = 0;

	while (n < c->insn_count && is_nop(c, n))
		n++;
	if (stripped && n) {
		*stripped = *c;
		stripped->code_va += c->offset[n];
		stripped->code_bytes -= c->offset[n];
		memmove(stripped->code, c->code + c->offset[n], stripped->code_bytes);
		stripped->start.rip = stripped->code_va;
		if (fails(sides, stripped))
			*c = *stripped;
	}
	free(stripped);
}

int diff_shrink(struct diff_sides *sides, struct diff_case *c)
{
	if (c->single)
		return diff_try(sides, c);
	if (!shorten(sides, c))
		return 0;
	blank(sides, c);
	strip(sides, c);
	diff_analyse(c);
	return diff_try(sides, c);
}

/* Does c end natively as it did before? */
static int explain_native(struct diff_sides *sides, const struct diff_case *c,
			  const struct diff_outcome *native)
{
	uint32_t at;
	int err = diff_native_run(sides->native, c, 1, &sides->by_native, &at);

	if (!err && !diff_equal(c, native, &sides->by_native, sides->why, sizeof(sides->why)))
		printf("  natively it ended otherwise the next time, which is called engine here:\n%s",
		       sides->why);
	return err;
}

int diff_explain(struct diff_sides *sides, const struct diff_case *c,
		 const struct diff_outcome *native, const struct diff_case *const past[],
		 uint32_t count)
{
	uint32_t least = 0; /* so few are too few */
	int err = explain_native(sides, c, native);

	if (!err)
		err = try_after(sides, c, native, past, count);
	if (err != 1) {
		printf("  nor does it after the %u before it, when they run once more\n", count);
		return err;
	}
	while (err >= 0 && least + 1 < count) {
		uint32_t middle = least + (count - least) / 2;

		err = try_after(sides, c, native, past, middle);
		if (err == 1)
			count = middle;
		else
			least = middle;
	}
	if (err >= 0)
		err = try_after(sides, c, native, &past[count - 1], 1);
	if (err < 0)
		return err;
	printf("  it takes %s, %u before it:\n    ", err ? "this one" : "those from this one on",
	       count);
	diff_print_line(past[count - 1]);
	diff_print_code(past[count - 1]);
	return 0;
}

void diff_print_code(const struct diff_case *c)
{
	ZydisFormatter formatter;
	struct diff_insn i;
	char text[128];

	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	for (uint32_t n = 0; n < c->insn_count; n++) {
		uint32_t at = c->offset[n];

		if (is_nop(c, n))
			continue;
		if (!diff_decode(c->mode, c->code + at, c->code_bytes - at, &i)) {
			printf("    %" PRIx64 "  (does not decode)\n", c->code_va + at);
			return;
		}
		ZydisFormatterFormatInstruction(&formatter, &i.insn, i.operand,
						i.insn.operand_count_visible, text, sizeof(text),
						c->code_va + at, NULL);
		printf("    %" PRIx64 "  %s\n", c->code_va + at, text);
	}
}

const char *diff_mnemonic(const struct diff_case *c, uint32_t insn)
{
	struct diff_insn i;

	if (insn >= c->insn_count ||
	    !diff_decode(c->mode, c->code + c->offset[insn], c->code_bytes - c->offset[insn], &i))
		return "(none)";
	return ZydisMnemonicGetString(i.insn.mnemonic);
}

void diff_print_line(const struct diff_case *c)
{
	char letter = diff_mode_letter[c->mode];

	printf("%" PRIx64 " %" PRIx64 " %c ", c->seed, c->code_va,
	       c->single ? toupper(letter) : letter);
	for (uint32_t i = 0; i < c->code_bytes; i++)
		printf("%02x", c->code[i]);
	printf("\n");
}

static int read_code(const char *hex, struct diff_case *c)
{
	unsigned byte;

	for (c->code_bytes = 0; sscanf(hex, "%2x", &byte) == 1 && hex[0] > ' ' && hex[1] > ' ';
	     hex += 2) {
		if (c->code_bytes == DIFF_CODE_MAX - 1)
			return -EINVAL;
		c->code[c->code_bytes++] = (uint8_t)byte;
	}
	return c->code_bytes ? 0 : -EINVAL;
}

int diff_read_line(const char *line, struct diff_case *c)
{
	char level;
	int at;

	memset(c, 0, sizeof(*c));
	if (sscanf(line, "%" SCNx64 " %" SCNx64 " %c %n", &c->seed, &c->code_va, &level, &at) < 3)
		return -EINVAL;
	if (c->code_va < DIFF_CODE_VA ||
	    c->code_va >= DIFF_CODE_VA + (DIFF_CODE_PAGES - 2) * DIFF_PAGE ||
	    diff_code_room(c->code_va) == 0)
		return -EINVAL;
	c->single = isupper((unsigned char)level);
	while (c->mode < MODE_COUNT && diff_mode_letter[c->mode] != tolower((unsigned char)level))
		c->mode++;
	if (c->mode == MODE_COUNT || read_code(line + at, c))
		return -EINVAL;
	diff_state_random(c);
	diff_analyse(c);
	diff_opcode_settle(c);
	return 0;
}
