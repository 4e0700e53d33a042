/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this CPU does where manuals leave it open.
 *
 * The engine does there what CPUs of the guest's vendor were seen to do. Others of that vendor, older
 * or younger, and hypervisors below may do otherwise: so each such habit is tried first, natively and
 * three times. One that is not the vendor's, or not the same each time, is said, and instructions
 * that it concerns are counted and not compared. All others are: what is probed is the CPU, never the
 * engine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/soft/cpu/host.h"
#include "tests/soft/diff_decode.h"

#define PROBE_VA DIFF_CODE_VA
#define HERE	 (DIFF_ARENA_VA + DIFF_PAGE) /* its first page that is there */
#define HOLE	 DIFF_ARENA_VA
#define NOT_VA	 0x8000000000000000ull
#define WIDE_VA	 0x0000800000000000ull /* with five levels of page tables it is an address */
#define UPPER	 0xabcd123400000000ull
#define SIGN	 0x80000001u
#define ROUNDS	 3

enum habit {
	HABIT_WIDE,
	HABIT_SHA,
	HABIT_LOOP,
	HABIT_MOVSXD,
	HABIT_PUSH,
	HABIT_REP,
	HABIT_REP_FLAGS,
	HABIT_GATHER,
	HABIT_BRANCH,
	HABIT_PREFETCH,
	HABIT_TRAP,
	HABIT_LEVELS,
	HABIT_SYSEXIT,
	HABIT_32_BITS,
	HABIT_BASES,
	HABIT_STACK,
	HABIT_COUNT
};

static const char *const habit_name[HABIT_COUNT] = {
	[HABIT_WIDE] = "vectors under EFLAGS.AC",
	[HABIT_SHA] = "alignment of SHA's operands",
	[HABIT_LOOP] = "LOOPE and LOOPNE with F2 and F3",
	[HABIT_MOVSXD] = "MOVSXD to 16 bits",
	[HABIT_PUSH] = "PUSH of a selector in 32 bits",
	[HABIT_REP] = "REP with 32-bit addresses",
	[HABIT_REP_FLAGS] = "flags in the middle of CMPS and SCAS",
	[HABIT_GATHER] = "gathers that fault",
	[HABIT_BRANCH] = "near branches with 66",
	[HABIT_PREFETCH] = "PREFETCH of a register",
	[HABIT_TRAP] = "EFLAGS.TF over what hypervisors intercept",
	[HABIT_LEVELS] = "addresses of 57 bits, under EFLAGS.AC and as bases of FS and GS",
	[HABIT_SYSEXIT] = "SYSEXIT, where no hypervisor executes it",
	[HABIT_32_BITS] = "32-bit code, of which it runs none",
	[HABIT_BASES] = "WRFSBASE and WRGSBASE, which its kernel knows nothing of",
	[HABIT_STACK] = "#GP with a stack pointer that it cannot return to",
};

enum seen { SEEN_INTEL, SEEN_AMD, SEEN_NEITHER, SEEN_NOTHING /* the CPU has it not */ };

typedef enum seen see(const struct diff_case *c, const struct diff_outcome *o);

/* Either vector, Intel's first; #BP is the sequence's end. */
static enum seen see_vector(const struct diff_outcome *o, uint32_t intel, uint32_t amd)
{
	if (o->vector == VECTOR_UD && amd != VECTOR_UD)
		return SEEN_NOTHING;
	return o->vector == intel ? SEEN_INTEL : o->vector == amd ? SEEN_AMD : SEEN_NEITHER;
}

static enum seen see_wide(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return see_vector(o, VECTOR_BP, VECTOR_AC);
}

static enum seen see_sha(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return see_vector(o, VECTOR_GP, VECTOR_BP);
}

/* Taken, it goes past one int3. */
static enum seen see_loop(const struct diff_case *c, const struct diff_outcome *o)
{
	uint64_t offset = o->state.rip - c->code_va;

	return offset == c->code_bytes + 1 ? SEEN_INTEL
	       : offset == c->code_bytes   ? SEEN_AMD
					   : SEEN_NEITHER;
}

static enum seen see_push(const struct diff_case *c, const struct diff_outcome *o)
{
	const uint8_t *before = diff_image(c->image)[0], *after = o->memory[0];
	uint64_t at = (c->start.gpr[4] - 2) % DIFF_PAGE;

	if (o->vector == VECTOR_GP) /* a kernel without modify_ldt() */
		return SEEN_NOTHING;
	if (!memcmp(after + at, before + at, 2))
		return SEEN_INTEL;
	return after[at] || after[at + 1] ? SEEN_NEITHER : SEEN_AMD;
}

static enum seen see_rep(const struct diff_case *c, const struct diff_outcome *o)
{
	if (o->state.gpr[1] == c->start.gpr[1] && o->state.gpr[7] == c->start.gpr[7])
		return SEEN_AMD;
	return o->state.gpr[1] == (uint32_t)c->start.gpr[1] &&
			       o->state.gpr[7] == (uint32_t)c->start.gpr[7]
		       ? SEEN_INTEL
		       : SEEN_NEITHER;
}

/* Begun with CF, and the items are equal. */
static enum seen see_rep_flags(const struct diff_case *c, const struct diff_outcome *o)
{
	uint64_t flags = o->state.rflags & (FLAG_CF | FLAG_ZF);

	(void)c;
	if (o->vector != VECTOR_DB)
		return SEEN_NEITHER;
	return flags == FLAG_CF ? SEEN_INTEL : flags == FLAG_ZF ? SEEN_AMD : SEEN_NEITHER;
}

static enum seen see_gather(const struct diff_case *c, const struct diff_outcome *o)
{
	uint32_t mask;

	(void)c;
	memcpy(&mask, o->state.xsave + 160 + 2 * 16, sizeof(mask));
	if (o->vector == VECTOR_UD)
		return SEEN_NOTHING;
	return mask == UINT32_MAX ? SEEN_INTEL : mask == SIGN ? SEEN_AMD : SEEN_NEITHER;
}

static enum seen see_branch(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return see_vector(o, VECTOR_BP, VECTOR_PF);
}

static enum seen see_prefetch(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return see_vector(o, VECTOR_BP, VECTOR_UD);
}

static enum seen see_trap(const struct diff_case *c, const struct diff_outcome *o)
{
	return o->vector == VECTOR_DB && o->state.rip == c->code_va + c->code_bytes ? SEEN_NOTHING
										    : SEEN_NEITHER;
}

static enum seen see_levels(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return o->vector == VECTOR_GP ? SEEN_NOTHING : SEEN_NEITHER;
}

/* #UD on AMD itself (APM vol. 3); KVM has Intel's #GP for all its guests. */
static enum seen see_sysexit(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return o->vector == VECTOR_GP ? SEEN_NOTHING : SEEN_NEITHER;
}

/* Paravirtual machines may have no segment for it. */
static enum seen see_32_bits(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return o->vector == VECTOR_BP ? SEEN_NOTHING : SEEN_NEITHER;
}

/* For so long that the host's timer comes: paravirtual machines may have a fault for that (diff_native.c). */
static enum seen see_stack(const struct diff_case *c, const struct diff_outcome *o)
{
	(void)c;
	return o->vector == VECTOR_GP ? SEEN_NEITHER : SEEN_NOTHING;
}

static const struct probe {
	enum habit habit;
	see *see;
	enum diff_mode mode;
	uint64_t flags, rcx, rdi;
	uint8_t bytes, code[8];
} probes[] = {
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 8, 3, "\x0f\x10\x07" },	  /* movups */
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 8, 3, "\x0f\x11\x07" },	  /* to memory */
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 1, 4, "\xf3\x0f\x6f\x07" }, /* movdqu */
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 8, 4, "\xc5\xf8\x58\x07" }, /* vaddps */
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 8, 4, "\xc5\xfc\x58\x07" }, /* ymm */
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 8, 4, "\xc5\xfc\x11\x07" }, /* vmovups */
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 4, 5,
	  "\xc4\xe2\x79\x13\x07" }, /* vcvtph2ps */
	{ HABIT_WIDE, see_wide, 0, FLAG_AC, 0, HERE + 8, 6,
	  "\x66\x0f\x3a\x63\x07" },					  /* pcmpistri */
	{ HABIT_SHA, see_sha, 0, 0, 0, HERE + 8, 4, "\x0f\x38\xc8\x07" }, /* sha1nexte */
	{ HABIT_SHA, see_sha, 0, 0, 0, HERE + 8, 4, "\x0f\x38\xcc\x07" }, /* sha256msg1 */
	{ HABIT_LOOP, see_loop, 0, 0, 5, 0, 4, "\xf3\xe0\x01\xcc" },
	{ HABIT_LOOP, see_loop, 0, FLAG_ZF, 5, 0, 4, "\xf2\xe1\x01\xcc" },
	{ HABIT_MOVSXD, see_wide, 0, FLAG_AC, 0, HERE + 2, 3, "\x66\x63\x07" },
	{ HABIT_PUSH, see_push, MODE_COMPAT, 0, 0, 0, 1, "\x1e" },
	{ HABIT_REP, see_rep, 0, 0, UPPER, UPPER | HERE, 3, "\x67\xf3\xaa" }, /* stosb */
	{ HABIT_REP, see_rep, 0, 0, UPPER | 3, UPPER | HOLE, 3, "\x67\xf3\xaa" },
	{ HABIT_REP_FLAGS, see_rep_flags, 0, FLAG_TF | FLAG_CF, 9, HERE, 2, "\xf3\xa6" },
	{ HABIT_GATHER, see_gather, 0, 0, 0, NOT_VA, 6, "\xc4\xe2\x69\x93\x04\x0f" },
	{ HABIT_BRANCH, see_branch, 0, 0, 0, 0, 3, "\x66\xeb" },
	{ HABIT_PREFETCH, see_prefetch, 0, 0, 0, 0, 3, "\x0f\x0d\xc0" },
	{ HABIT_TRAP, see_trap, 0, FLAG_TF, 0, 0, 2, "\x0f\xa2" }, /* cpuid */
	{ HABIT_TRAP, see_trap, 0, FLAG_TF, 0, 0, 2, "\x0f\x31" }, /* rdtsc */
	{ HABIT_LEVELS, see_levels, 0, 0, 0, WIDE_VA, 2, "\x8b\x07" },
	{ HABIT_SYSEXIT, see_sysexit, 0, 0, 0, 0, 2, "\x0f\x35" },
	{ HABIT_STACK, see_stack, 0, 0, 20000000, 0, 4, "\xff\xc9\x75\xfc" }, /* dec, jnz */
	{ HABIT_32_BITS, see_32_bits, MODE_COMPAT, 0, 0, 0, 1, "\x90" },
};

static void make_case(const struct probe *probe, struct diff_case *c)
{
	static const uint32_t mask[4] = { SIGN, SIGN };

	memset(c, 0, sizeof(*c));
	c->code_va = PROBE_VA;
	c->mode = probe->mode;
	c->code_bytes = probe->bytes;
	memcpy(c->code, probe->code, probe->bytes);
	diff_state_random(c);
	c->start.rflags = 2 | FLAG_IF | probe->flags;
	c->start.gpr[0] = c->start.gpr[2] = 0;
	c->start.gpr[1] = probe->rcx;
	c->start.gpr[4] = probe->habit == HABIT_STACK ? NOT_VA + 8 : HERE + DIFF_PAGE / 2;
	c->start.gpr[6] = c->start.gpr[7] = probe->rdi;
	memset(c->start.xsave + 160, 0, 256);
	memcpy(c->start.xsave + 160 + 2 * 16, mask, sizeof(mask));
	memcpy(c->start.xsave + 24, "\x80\x1f\0", 4);
}

int diff_host_probe(struct diff_native *native, uint32_t *ret_unusual)
{
	struct diff_case *c = diff_allocate(sizeof(*c));
	struct diff_outcome *o = diff_allocate(sizeof(*o));
	enum seen usual = diff_is_amd() ? SEEN_AMD : SEEN_INTEL;
	uint32_t unusual = 0, at;
	int err = c && o ? 0 : -ENOMEM;

	for (size_t i = 0; i < ROUNDS * sizeof(probes) / sizeof(probes[0]) && !err; i++) {
		const struct probe *probe = &probes[i / ROUNDS];
		enum seen seen;

		make_case(probe, c);
		o->vector = 0;
		err = diff_native_run(native, c, 1, o, &at);
		seen = o->status && probe->habit != HABIT_STACK ? SEEN_NEITHER : probe->see(c, o);
		if (seen != SEEN_NOTHING && seen != usual)
			unusual |= 1u << probe->habit;
	}
	/* What they write is lost now and then, so it is not to be tried. */
	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT))
		unusual |= 1u << HABIT_BASES;
	for (uint32_t i = 0; i < HABIT_COUNT && !err; i++)
		if (unusual >> i & 1)
			printf("not compared, this CPU has its own way: %s\n", habit_name[i]);
	free(c);
	free(o);
	if (!err)
		*ret_unusual = unusual;
	return err;
}

static bool has_prefix(const struct diff_insn *i, uint8_t prefix)
{
	for (uint32_t n = 0; n < i->insn.raw.prefix_count; n++)
		if (i->insn.raw.prefixes[n].value == prefix)
			return true;
	return false;
}

static bool is_wide(const struct diff_insn *i)
{
	for (int n = 0; n < i->insn.operand_count; n++)
		if (i->operand[n].type == ZYDIS_OPERAND_TYPE_MEMORY && i->operand[n].size > 64)
			return true;
	return i->insn.meta.isa_ext == ZYDIS_ISA_EXT_F16C ||
	       i->insn.meta.isa_ext == ZYDIS_ISA_EXT_AVX2GATHER;
}

static bool has_memory(const struct diff_insn *i)
{
	for (int n = 0; n < i->insn.operand_count; n++)
		if (i->operand[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return true;
	return false;
}

static bool is_string(const struct diff_insn *i)
{
	return i->insn.attributes &
	       (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

static bool compares(const struct diff_insn *i)
{
	return (i->insn.opcode & 0xfe) == 0xa6 || (i->insn.opcode & 0xfe) == 0xae;
}

static bool concerns(enum habit habit, const struct diff_case *c, const struct diff_insn *i)
{
	const ZydisDecodedInstruction *z = &i->insn;

	switch (habit) {
	case HABIT_WIDE:
		return c->start.rflags & FLAG_AC && is_wide(i);
	case HABIT_SHA:
		return z->meta.isa_ext == ZYDIS_ISA_EXT_SHA;
	case HABIT_LOOP:
		return (z->mnemonic == ZYDIS_MNEMONIC_LOOPE ||
			z->mnemonic == ZYDIS_MNEMONIC_LOOPNE) &&
		       (has_prefix(i, 0xf2) || has_prefix(i, 0xf3));
	case HABIT_MOVSXD:
		return z->mnemonic == ZYDIS_MNEMONIC_MOVSXD && z->operand_width == 16;
	case HABIT_PUSH:
		return c->mode == MODE_COMPAT && z->mnemonic == ZYDIS_MNEMONIC_PUSH &&
		       ZydisRegisterGetClass(i->operand[0].reg.value) == ZYDIS_REGCLASS_SEGMENT;
	case HABIT_REP:
		return c->mode != MODE_COMPAT && is_string(i) && z->address_width == 32;
	case HABIT_REP_FLAGS:
		return is_string(i) && compares(i) && (c->exact || c->start.rflags & FLAG_TF);
	case HABIT_GATHER:
		return z->meta.isa_ext == ZYDIS_ISA_EXT_AVX2GATHER;
	case HABIT_BRANCH:
		return z->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && has_prefix(i, 0x66);
	case HABIT_PREFETCH:
		return z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d;
	case HABIT_TRAP:
		return c->start.rflags & FLAG_TF && (z->mnemonic == ZYDIS_MNEMONIC_CPUID ||
						     z->mnemonic == ZYDIS_MNEMONIC_RDTSC ||
						     z->mnemonic == ZYDIS_MNEMONIC_RDTSCP ||
						     z->mnemonic == ZYDIS_MNEMONIC_RDRAND ||
						     z->mnemonic == ZYDIS_MNEMONIC_RDSEED ||
						     z->mnemonic == ZYDIS_MNEMONIC_PAUSE);
	case HABIT_LEVELS: /* of the rest see diff_compare.c */
		return (c->start.rflags & FLAG_AC && has_memory(i)) ||
		       z->mnemonic == ZYDIS_MNEMONIC_WRFSBASE ||
		       z->mnemonic == ZYDIS_MNEMONIC_WRGSBASE;
	case HABIT_SYSEXIT:
		return z->mnemonic == ZYDIS_MNEMONIC_SYSEXIT;
	case HABIT_BASES:
		return z->meta.isa_ext == ZYDIS_ISA_EXT_RDWRFSGS;
	case HABIT_STACK:   /* its outcomes: diff_host_refused() */
	case HABIT_32_BITS: /* the whole of it: diff_host_runs() */
	case HABIT_COUNT:
		break;
	}
	return false;
}

bool diff_host_runs(uint32_t unusual, enum diff_mode mode)
{
	return mode != MODE_COMPAT || !(unusual >> HABIT_32_BITS & 1);
}

bool diff_host_is_unsteady(uint32_t unusual)
{
	return unusual & (1u << HABIT_STACK | 1u << HABIT_BASES);
}

bool diff_host_refused(uint32_t unusual, const struct diff_outcome *o)
{
	return unusual >> HABIT_STACK & 1 && o->vector == VECTOR_GP &&
	       (int64_t)(o->state.gpr[4] << 16) >> 16 != (int64_t)o->state.gpr[4];
}

bool diff_host_concerns(uint32_t unusual, const struct diff_case *c)
{
	struct diff_insn i;

	if (!diff_host_runs(unusual, c->mode))
		return true;
	for (uint32_t n = 0; unusual && n < c->insn_count; n++) {
		if (!diff_decode(c->mode, c->code + c->offset[n], c->code_bytes - c->offset[n], &i))
			break;
		for (enum habit habit = 0; habit < HABIT_COUNT; habit++)
			if (unusual >> habit & 1 && concerns(habit, c, &i))
				return true;
	}
	return false;
}
