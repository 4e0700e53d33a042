/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Are two outcomes of a sequence the same? What is not compared:
 *
 *   flags that may be undefined where the sequence ended (diff_flags.c), and RF
 *   at a fault, unless asked for, arithmetic flags: the engine may know that nobody reads them
 *   x87's last opcode and its instruction and data pointers, in images in memory neither
 *   the present bit of #PF's error code above user addresses: the host's kernel does not tell it
 *   which operand of movs and cmps faults first, where an image of state does (CPUs differ)
 *   where a branch to an address that is not canonical faults (the engine: behind it)
 *   on hosts with five levels of page tables: an address of 57 bits is #PF there, #GP in the guest
 *   CR2 within an operand that is accessed in parts (images of state, MASKMOVDQU)
 *   what of an x87 store of 10 bytes is written when its second page faults
 *   whether what VCVTPS2PH computes is refused (#XM) before the address that it goes to
 *   in 32-bit code, whether an operand that goes on at address 0 is within a segment of 4 GiB
 *   at CPL 0: selectors, IF and IOPL, the user bit of #PF's error code
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/soft/diff_decode.h"

#define ERROR_PRESENT 1u
#define ERROR_USER    4u
#define X87_BYTES     10u
#define WRAP_BYTES    32u  /* the widest operand, but images of state */
#define ENTER_BYTES   128u /* pointers to frames that it copies */
#define USER_TOP      ((1ull << 47) - DIFF_PAGE)

struct report {
	char *text;
	size_t room;
};

#define SAY(report, ...)                                                                           \
	do {                                                                                       \
		int said = snprintf((report)->text, (report)->room, __VA_ARGS__);                  \
		size_t moved = said < 0 ? 0 : (size_t)said;                                        \
		if (moved >= (report)->room)                                                       \
			moved = (report)->room ? (report)->room - 1 : 0;                           \
		(report)->text += moved;                                                           \
		(report)->room -= moved;                                                           \
	} while (0)

static const char *const gpr_name[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					  "r8",	 "r9",	"r10", "r11", "r12", "r13", "r14", "r15" };

uint32_t diff_ended_at(const struct diff_case *c, const struct diff_outcome *outcome)
{
	uint64_t offset = outcome->state.rip - c->code_va;

	if (outcome->vector == VECTOR_BP)
		offset--;
	for (uint32_t i = 0; i < c->insn_count; i++)
		if (c->offset[i] >= offset)
			return i;
	return c->insn_count;
}

static void compare_word(struct report *r, const char *what, uint64_t native, uint64_t guest)
{
	if (native != guest)
		SAY(r, "  %-6s native %016lx  engine %016lx\n", what, (unsigned long)native,
		    (unsigned long)guest);
}

/* How far the manual, and what all CPUs do alike, fix the fault of the instruction that ended it.
 */
enum looseness {
	LOOSE_NOT,
	LOOSE_WITHIN, /* accessed in parts, in any order: CR2 is anywhere in the operand */
	LOOSE_HALVES, /* the same of 16 bytes, whose halves have masks */
	LOOSE_STORE,  /* what it computes, or where that goes: either may fault first */
	LOOSE_BRANCH, /* to an address that is not canonical: the engine faults there, not here */
	LOOSE_MMX,    /* whether x87 registers have become MMX registers before the fault */
	LOOSE_PARTLY, /* some registers, or some of memory, may be done already */
	LOOSE_ORDER,  /* two memory operands, either may fault first */
	LOOSE_TAIL,   /* 10 bytes that go across a page: the first may be written already */
};

static bool is_address_fault(uint32_t vector)
{
	return vector == VECTOR_PF || vector == VECTOR_SS || vector == VECTOR_GP ||
	       vector == VECTOR_AC;
}

static enum looseness looseness(const struct diff_case *c, const struct diff_outcome *outcome)
{
	uint32_t insn = diff_ended_at(c, outcome);
	struct diff_insn i;

	if (insn >= c->insn_count ||
	    !diff_decode(c->mode, c->code + c->offset[insn], c->code_bytes - c->offset[insn], &i))
		return LOOSE_NOT;
	switch (i.insn.mnemonic) {
	case ZYDIS_MNEMONIC_CMPSB:
	case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSD:
	case ZYDIS_MNEMONIC_CMPSQ:
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
	case ZYDIS_MNEMONIC_BOUND:
		return LOOSE_ORDER;
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
		return LOOSE_PARTLY;
	case ZYDIS_MNEMONIC_MASKMOVQ:
		return LOOSE_MMX;
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		return LOOSE_WITHIN;
	case ZYDIS_MNEMONIC_FBSTP:
	case ZYDIS_MNEMONIC_FSTP:
		return i.operand[0].size == X87_BYTES * 8 && is_address_fault(outcome->vector)
			       ? LOOSE_TAIL
			       : LOOSE_NOT;
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		return LOOSE_HALVES;
	case ZYDIS_MNEMONIC_VCVTPS2PH:
		return i.operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? LOOSE_STORE : LOOSE_NOT;
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_RET:
		return outcome->vector == VECTOR_GP ? LOOSE_BRANCH : LOOSE_NOT;
	default:
		return LOOSE_NOT;
	}
}

static bool is_near(enum looseness loose, uint64_t a, uint64_t b)
{
	return loose == LOOSE_WITHIN || (loose == LOOSE_HALVES && a - b + 15 < 31);
}

static bool is_either_of_store(const struct diff_case *c, const struct diff_outcome *n,
			       const struct diff_outcome *g)
{
	return looseness(c, n) == LOOSE_STORE && n->state.rip == g->state.rip &&
	       ((n->vector == VECTOR_XM && is_address_fault(g->vector)) ||
		(g->vector == VECTOR_XM && is_address_fault(n->vector)));
}

static uint32_t register32(const struct diff_state *state, ZydisRegister reg)
{
	if (reg < ZYDIS_REGISTER_EAX || reg > ZYDIS_REGISTER_EDI)
		return 0;
	return (uint32_t)state->gpr[reg - ZYDIS_REGISTER_EAX];
}

static bool is_at_end(uint32_t address, uint32_t bytes)
{
	return address + bytes < 2 * bytes;
}

/* Has that instruction of 32-bit code an operand that may go from the end of 4 GiB to their beginning?
 */
static bool may_wrap(const struct diff_insn *i, const struct diff_state *state)
{
	for (int n = 0; n < i->insn.operand_count; n++) {
		const ZydisDecodedOperandMem *mem = &i->operand[n].mem;
		uint64_t base = mem->segment == ZYDIS_REGISTER_FS   ? state->fs_base
				: mem->segment == ZYDIS_REGISTER_GS ? state->gs_base
								    : 0;

		if (i->operand[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    is_at_end((uint32_t)base + register32(state, mem->base) +
				      register32(state, mem->index) * mem->scale +
				      (uint32_t)mem->disp.value,
			      WRAP_BYTES))
			return true;
	}
	return i->insn.mnemonic == ZYDIS_MNEMONIC_ENTER &&
	       is_at_end((uint32_t)state->gpr[5], ENTER_BYTES);
}

/* Whether that is beyond the segment's limit may vary even from one time to the next (SDM vol. 3, 5.3).
 */
static bool is_either_of_wrap(const struct diff_case *c, const struct diff_outcome *n,
			      const struct diff_outcome *g)
{
	uint32_t insn = diff_ended_at(c, n);
	bool limit_n = n->vector == VECTOR_GP || n->vector == VECTOR_SS;
	bool limit_g = g->vector == VECTOR_GP || g->vector == VECTOR_SS;
	struct diff_insn i;

	return c->mode == MODE_COMPAT && n->state.rip == g->state.rip && limit_n != limit_g &&
	       is_address_fault(n->vector) && is_address_fault(g->vector) && insn < c->insn_count &&
	       diff_decode(c->mode, c->code + c->offset[insn], c->code_bytes - c->offset[insn],
			   &i) &&
	       may_wrap(&i, &n->state);
}

/* CPUs with four levels never have such a CR2. */
static bool is_beyond_levels(const struct diff_outcome *n, const struct diff_outcome *g)
{
	return n->vector == VECTOR_PF && (uint64_t)((int64_t)(n->cr2 << 16) >> 16) != n->cr2 &&
	       (g->vector == VECTOR_GP || g->vector == VECTOR_SS) && g->error == 0;
}

static void compare_end(struct report *r, const struct diff_case *c, const struct diff_outcome *n,
			const struct diff_outcome *g)
{
	enum looseness loose = looseness(c, n);
	uint32_t ignored = 0;

	if ((loose == LOOSE_ORDER || loose == LOOSE_WITHIN) && is_address_fault(n->vector) &&
	    is_address_fault(g->vector))
		return;
	if (is_beyond_levels(n, g))
		return;
	compare_word(r, "vector", n->vector, g->vector);
	if (n->vector != g->vector)
		return;
	if (n->vector == VECTOR_PF && c->mode == MODE_SYSTEM)
		ignored |= ERROR_USER;
	if (n->vector == VECTOR_PF && n->cr2 >= USER_TOP)
		ignored |= ERROR_PRESENT;
	if (n->vector == VECTOR_PF && loose == LOOSE_HALVES && n->cr2 != g->cr2)
		ignored |= ERROR_PRESENT; /* the halves are in two pages */
	compare_word(r, "error", n->error & ~ignored, g->error & ~ignored);
	if (n->vector == VECTOR_PF)
		compare_word(r, "cr2", n->cr2, is_near(loose, n->cr2, g->cr2) ? n->cr2 : g->cr2);
}

/* Not at an instruction of the sequence: after a wild jump. */
static bool ended_elsewhere(const struct diff_case *c, const struct diff_outcome *outcome)
{
	uint64_t at = c->code_va + c->offset[diff_ended_at(c, outcome)];

	return outcome->state.rip - (outcome->vector == VECTOR_BP) != at;
}

static void compare_general(struct report *r, const struct diff_case *c,
			    const struct diff_outcome *n, const struct diff_outcome *g)
{
	const struct diff_state *a = &n->state, *b = &g->state;
	uint64_t ignored = c->undefined[diff_ended_at(c, n)] | FLAG_RF;
	bool partly = looseness(c, n) == LOOSE_PARTLY;

	if (ended_elsewhere(c, n))
		ignored |= FLAGS_ARITHMETIC;
	if (!c->exact && n->vector != VECTOR_BP && n->vector != VECTOR_DB)
		ignored |= FLAGS_ARITHMETIC;
	for (int i = 0; i < (c->mode == MODE_COMPAT ? 8 : 16) && !partly; i++)
		compare_word(r, gpr_name[i], a->gpr[i], b->gpr[i]);
	compare_word(r, "rip", a->rip, b->rip);
	if (c->mode == MODE_SYSTEM)
		ignored |= FLAG_IF | 0x3000;
	compare_word(r, "rflags", a->rflags & ~ignored, b->rflags & ~ignored);
	compare_word(r, "fsbase", a->fs_base, b->fs_base);
	compare_word(r, "gsbase", a->gs_base, b->gs_base);
	if (c->mode == MODE_SYSTEM)
		return;
	compare_word(r, "cs", a->cs, b->cs);
	compare_word(r, "ss", a->ss, b->ss);
	/* A null selector loses its RPL on the way through the host's kernel. */
	compare_word(r, "ds", a->ds > 3 ? a->ds : 0, b->ds > 3 ? b->ds : 0);
	compare_word(r, "es", a->es > 3 ? a->es : 0, b->es > 3 ? b->es : 0);
}

static void compare_bytes(struct report *r, const char *what, uint32_t number, const uint8_t *n,
			  const uint8_t *g, uint32_t bytes)
{
	if (!memcmp(n, g, bytes))
		return;
	SAY(r, "  %s%u native ", what, number);
	for (uint32_t i = bytes; i-- > 0;)
		SAY(r, "%02x", n[i]);
	SAY(r, "  engine ");
	for (uint32_t i = bytes; i-- > 0;)
		SAY(r, "%02x", g[i]);
	SAY(r, "\n");
}

/* Standard format of xsave (SDM vol. 1, 13.4). */
static void compare_extended(struct report *r, const struct diff_case *c,
			     const struct diff_outcome *native, const struct diff_outcome *guest)
{
	const uint8_t *n = native->state.xsave, *g = guest->state.xsave;

	compare_bytes(r, "fcw", 0, n, g, 2);
	compare_bytes(r, "fsw", 0, n + 2, g + 2, 2);
	compare_bytes(r, "ftw", 0, n + 4, g + 4, 1);
	/* What has been computed may have told so, even if the store faults. */
	if (looseness(c, native) != LOOSE_STORE || !is_address_fault(native->vector))
		compare_bytes(r, "mxcsr", 0, n + 24, g + 24, 4);
	for (uint32_t i = 0; i < 8; i++)
		compare_bytes(r, "st", i, n + 32 + 16 * i, g + 32 + 16 * i, 10);
	for (uint32_t i = 0; i < 16; i++) {
		if (c->mode == MODE_COMPAT && i >= 8)
			break; /* not there; what VZEROALL does with them is nobody's business */
		compare_bytes(r, "xmm", i, n + 160 + 16 * i, g + 160 + 16 * i, 16);
		compare_bytes(r, "ymmh", i, n + 576 + 16 * i, g + 576 + 16 * i, 16);
	}
}

/* In the image that instruction saves at an address of its own: x87's last opcode and pointers? */
static bool saves_pointers_at(const struct diff_insn *i, uint64_t va)
{
	const ZydisDecodedOperandMem *mem = &i->operand[0].mem;
	uint32_t from, to;

	switch (i->insn.mnemonic) {
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
		from = 12;
		to = 28;
		break;
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
		from = 6;
		to = 24;
		break;
	default:
		return false;
	}
	return mem->base == ZYDIS_REGISTER_NONE && mem->index == ZYDIS_REGISTER_NONE &&
	       va - ((uint64_t)mem->disp.value + from) < to - from;
}

/* Mostly cleared behind the instruction (diff_template.c), but a jump may lead around that. */
static bool is_x87_pointer(const struct diff_case *c, uint64_t va)
{
	struct diff_insn insn;

	for (uint32_t i = 0; i < c->insn_count; i++)
		if (diff_decode(c->mode, c->code + c->offset[i], c->code_bytes - c->offset[i],
				&insn) &&
		    saves_pointers_at(&insn, va))
			return true;
	return false;
}

/* Of a page, its first `end` bytes. */
static void compare_page(struct report *r, const struct diff_case *c, uint64_t va, const uint8_t *n,
			 const uint8_t *g, uint32_t end)
{
	uint32_t i = 0;

	if (!memcmp(n, g, end))
		return;
	while (i < end && (n[i] == g[i] || is_x87_pointer(c, va + i)))
		i++;
	if (i < end)
		SAY(r, "  [%lx] native %02x  engine %02x\n", (unsigned long)(va + i), n[i], g[i]);
}

static void compare_memory(struct report *r, const struct diff_case *c,
			   const struct diff_outcome *n, const struct diff_outcome *g)
{
	uint32_t end = DIFF_PAGE - (looseness(c, n) == LOOSE_TAIL ? X87_BYTES : 0);

	for (uint32_t page = 0; page < DIFF_DATA_PAGES; page++)
		compare_page(r, c, diff_pages[page].va, n->memory[page], g->memory[page], end);
	for (uint32_t at = 0; at < diff_window_bytes(c); at += DIFF_PAGE)
		compare_page(r, c, diff_window(c) + at, n->code + at, g->code + at, end);
}

/* Not offered: #UD at its first byte, and nothing has changed. */
static void compare_undefined(struct report *r, const struct diff_case *c,
			      const struct diff_outcome *g)
{
	compare_word(r, "vector", VECTOR_UD, g->vector);
	compare_word(r, "rip", c->start.rip, g->state.rip);
	for (int i = 0; i < 16; i++)
		compare_word(r, gpr_name[i], c->start.gpr[i], g->state.gpr[i]);
}

bool diff_equal(const struct diff_case *c, const struct diff_outcome *native,
		const struct diff_outcome *guest, char *why, size_t why_size)
{
	enum diff_judge judge = c->single ? diff_judge_of(c) : JUDGE_ALL;
	struct report r = { why, why_size };

	why[0] = '\0';
	/* What a kernel does may well end the sequence in another way. */
	if (judge >= JUDGE_UNDEFINED && guest->status &&
	    (c->mode != MODE_SYSTEM || guest->status == -ENOTSUP))
		SAY(&r, "  engine's status %d: %s\n", guest->status, guest->detail);
	else if (judge == JUDGE_UNDEFINED)
		compare_undefined(&r, c, guest);
	if (judge >= JUDGE_UNDEFINED)
		return why[0] == '\0';
	if (native->status || guest->status) {
		if (native->status != guest->status)
			SAY(&r, "  status native %d  engine %d: %s\n", native->status,
			    guest->status, guest->detail);
		return native->status == guest->status;
	}
	if (is_either_of_store(c, native, guest) || is_either_of_wrap(c, native, guest) ||
	    (is_beyond_levels(native, guest) && looseness(c, guest) == LOOSE_BRANCH))
		return true;
	compare_end(&r, c, native, guest);
	if (judge == JUDGE_FRAME)
		compare_word(&r, "rip", native->state.rip, guest->state.rip);
	if (judge == JUDGE_FRAME || looseness(c, native) == LOOSE_BRANCH)
		return why[0] == '\0';
	compare_general(&r, c, native, guest);
	if (looseness(c, native) != LOOSE_MMX)
		compare_extended(&r, c, native, guest);
	if (looseness(c, native) != LOOSE_PARTLY)
		compare_memory(&r, c, native, guest);
	return why[0] == '\0';
}
