/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every opcode, one at a time: what a user can try.
 *
 * The forms of diff_forms.c are what the guest is offered. Here is the rest too: every opcode of
 * every map under every set of prefixes, VEX with fields of all kinds, EVEX, XOP, 3DNow!, and bytes
 * at random. One instruction is executed on both sides, now and then with EFLAGS.AC or TF, and its
 * fault's frame (vector, error code, rip, CR2) must be the CPU's.
 *
 *   JUDGE_ALL         the state must be the same as well
 *   JUDGE_FRAME       it has other values on every CPU (time, CPUID, ...)
 *   JUDGE_UNDEFINED   not offered to any guest of this engine, whatever the CPU has: #UD
 *   JUDGE_ENGINE      natively it would be the host's kernel that answers, or its descriptors (system
 *                     calls, far transfers, UMIP), and at CPL 0: the engine must not give up, no
 *                     more
 */
#include <cpuid.h>
#include <string.h>

#include "tests/soft/diff_decode.h"

#define REG_OR_MEMORY	2u
#define LEGACY_MAPS	5u /* one byte, 0F, 0F38, 0F3A, 0F0F */
#define ANY_COUNT	40000u
#define INSN_BYTES	15u
#define HOST_PARTS_LOW	0xfffffff8u /* of XCR0: what some host may have, and no guest */
#define HOST_PARTS_HIGH 0x40000000u

static const struct {
	uint8_t count, byte[3];
} prefixes[] = {
	{ 0, { 0 } },	       { 1, { 0x66 } },	      { 1, { 0xf3 } },	     { 1, { 0xf2 } },
	{ 2, { 0x66, 0xf3 } }, { 2, { 0x66, 0xf2 } }, { 2, { 0xf2, 0xf3 } }, { 1, { 0xf0 } },
	{ 2, { 0xf0, 0x66 } }, { 2, { 0xf0, 0xf2 } }, { 2, { 0xf0, 0xf3 } }, { 1, { 0x67 } },
	{ 1, { 0x64 } },       { 1, { 0x48 } },	      { 2, { 0x66, 0x48 } }, { 2, { 0xf3, 0x48 } },
	{ 2, { 0xf2, 0x48 } }, { 2, { 0xf0, 0x48 } }, { 1, { 0x4f } },
};
#define PREFIX_COUNT (sizeof(prefixes) / sizeof(prefixes[0]))
#define LEGACY_COUNT ((uint32_t)PREFIX_COUNT * LEGACY_MAPS * 256 * 8 * REG_OR_MEMORY)
/* maps 0 to 7, pp, W, L, opcode, vvvv used or not, a register or memory, four values of reg */
#define VEX_COUNT (8u * 4 * 2 * 2 * 256 * 2 * REG_OR_MEMORY)

uint32_t diff_opcodes_count(void)
{
	return LEGACY_COUNT + VEX_COUNT + ANY_COUNT;
}

struct bytes {
	uint8_t at[32];
	uint32_t count;
};

static void put(struct bytes *b, uint32_t byte)
{
	b->at[b->count++] = (uint8_t)byte;
}

/* ModRM with a register, or with a base and a small displacement; what may be an immediate. */
static void put_operands(struct bytes *b, uint32_t reg, bool memory, struct rng *rng)
{
	uint32_t rm = rng_below(rng, 8);

	if (memory && rm == 4)
		rm = 6;
	put(b, (memory ? 0x80u : 0xc0u) | (reg & 7) << 3 | rm);
	if (memory) {
		put(b, rng_below(rng, 4) ? rng_below(rng, 16) * 8 : rng_below(rng, 128));
		for (int i = 0; i < 3; i++)
			put(b, 0);
	}
	for (int i = 0; i < 8; i++)
		put(b, (uint32_t)rng_next(rng));
}

static void put_legacy(struct bytes *b, uint32_t index, struct rng *rng)
{
	uint32_t reg = index & 7, memory = index >> 3 & 1, opcode = index >> 4 & 0xff;
	uint32_t map = (index >> 12) % LEGACY_MAPS, prefix = (index >> 12) / LEGACY_MAPS;

	for (uint32_t i = 0; i < prefixes[prefix].count; i++)
		put(b, prefixes[prefix].byte[i]);
	if (map)
		put(b, 0x0f);
	if (map == 2)
		put(b, 0x38);
	if (map == 3)
		put(b, 0x3a);
	if (map == 4) { /* the opcode is behind the operands */
		put(b, 0x0f);
		put_operands(b, reg, memory, rng);
		b->at[b->count - 8] = (uint8_t)opcode;
		return;
	}
	put(b, opcode);
	put_operands(b, reg, memory, rng);
}

static void put_vex(struct bytes *b, uint32_t index, struct rng *rng)
{
	uint32_t map = index >> 14 & 7;

	if (rng_chance(rng, 2)) /* none of these may be there */
		put(b, prefixes[1 + rng_below(rng, 13)].byte[0]);
	put(b, 0xc4);
	put(b, 0xe0 | map);
	put(b, (index & 3) | (index >> 2 & 1) << 2 | (index >> 3 & 1 ? 0x78u : 0x60u) |
		       (index >> 4 & 1) << 7);
	put(b, index >> 6 & 0xff);
	put_operands(b, rng_below(rng, 8), index >> 5 & 1, rng);
}

static void put_any(struct bytes *b, struct rng *rng)
{
	static const uint8_t first[] = { 0x62, 0x8f, 0x0f, 0xc5, 0xd8, 0xdd, 0xff };

	for (uint32_t i = rng_below(rng, 3); i > 0; i--)
		put(b, prefixes[1 + rng_below(rng, 13)].byte[0]);
	if (rng_chance(rng, 60))
		put(b, first[rng_below(rng, sizeof(first))]);
	while (b->count < 20)
		put(b, (uint32_t)rng_next(rng));
}

/* ---- how it is judged ---- */

/* Not offered to guests of the engine, and no NOP either: all but these, so what is new is absent. */
enum { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };
#define BIT_RDTSCP (1u << 27)

static uint32_t cpuid_word(uint32_t leaf, uint32_t word)
{
	uint32_t words[4] = { 0 };

	__get_cpuid_count(leaf, 0, &words[0], &words[1], &words[2], &words[3]);
	return words[word];
}

static bool is_absent(const ZydisDecodedInstruction *insn)
{
	switch (insn->meta.isa_ext) {
	case ZYDIS_ISA_EXT_ADOX_ADCX:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_AMD3DNOW_PREFETCH:
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVX2GATHER:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_AVX_VNNI:
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_BMI2:
	case ZYDIS_ISA_EXT_CLDEMOTE:
	case ZYDIS_ISA_EXT_CLFLUSHOPT:
	case ZYDIS_ISA_EXT_CLFSH:
	case ZYDIS_ISA_EXT_CLWB:
	case ZYDIS_ISA_EXT_F16C:
	case ZYDIS_ISA_EXT_FMA:
	case ZYDIS_ISA_EXT_GFNI:
	case ZYDIS_ISA_EXT_INVPCID:
	case ZYDIS_ISA_EXT_LONGMODE:
	case ZYDIS_ISA_EXT_LZCNT:
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_MOVBE:
	case ZYDIS_ISA_EXT_MPX:
	case ZYDIS_ISA_EXT_PAUSE:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_PREFETCHWT1:
	case ZYDIS_ISA_EXT_RDPID:
	case ZYDIS_ISA_EXT_RDRAND:
	case ZYDIS_ISA_EXT_RDSEED:
	case ZYDIS_ISA_EXT_RDTSCP:
	case ZYDIS_ISA_EXT_RDWRFSGS:
	case ZYDIS_ISA_EXT_SHA:
	case ZYDIS_ISA_EXT_SMAP:
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_SSE4A:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_VAES:
	case ZYDIS_ISA_EXT_VPCLMULQDQ:
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_XSAVE:
	case ZYDIS_ISA_EXT_XSAVEC:
	case ZYDIS_ISA_EXT_XSAVEOPT:
		return false;
	case ZYDIS_ISA_EXT_CET:
		return insn->mnemonic != ZYDIS_MNEMONIC_ENDBR32 &&
		       insn->mnemonic != ZYDIS_MNEMONIC_ENDBR64 &&
		       insn->mnemonic != ZYDIS_MNEMONIC_RDSSPD &&
		       insn->mnemonic != ZYDIS_MNEMONIC_RDSSPQ;
	default:
		return true;
	}
}

/* Natively the host's kernel answers, or its descriptor tables do. */
static bool is_kernels(const struct diff_insn *i)
{
	switch (i->insn.mnemonic) {
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1: /* hypervisors of AMD hosts report it at its own address */
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_LSS:
		return true;
	default:
		break;
	}
	if (i->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return true;
	/* Loads of segment registers. */
	for (int n = 0; n < i->insn.operand_count_visible; n++)
		if (i->operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(i->operand[n].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
		    (i->operand[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return true;
	return false;
}

/* What hypervisors hide, and a CPU executes all the same, as it has no way to refuse. */
static bool is_hidden(const ZydisDecodedInstruction *insn)
{
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_RDSEED:
		return !(cpuid_word(7, CPUID_EBX) & bit_RDSEED);
	case ZYDIS_MNEMONIC_RDPID:
		return !(cpuid_word(7, CPUID_ECX) & bit_RDPID);
	case ZYDIS_MNEMONIC_RDTSCP:
		return !(cpuid_word(0x80000001, CPUID_EDX) & BIT_RDTSCP);
	default:
		return false;
	}
}

static bool has_other_values(const ZydisDecodedInstruction *insn)
{
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
		return true;
	default:
		return insn->meta.isa_ext == ZYDIS_ISA_EXT_XSAVE ||
		       insn->meta.isa_ext == ZYDIS_ISA_EXT_XSAVEC ||
		       insn->meta.isa_ext == ZYDIS_ISA_EXT_XSAVEOPT;
	}
}

static bool is_one_of(uint8_t byte, const uint8_t *list, size_t count)
{
	return memchr(list, byte, count) != NULL;
}

static const uint8_t *behind_prefixes(const struct diff_case *c)
{
	static const uint8_t legacy[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
					  0x66, 0x67, 0xf0, 0xf2, 0xf3 };
	const uint8_t *at = c->code;

	while (at < c->code + INSN_BYTES && (is_one_of(*at, legacy, sizeof(legacy)) ||
					     (c->mode != MODE_COMPAT && (*at & 0xf0) == 0x40)))
		at++;
	return at;
}

/* Natively the host's own hypervisor answers VMCALL and VMMCALL, with any prefix. */
static bool is_hypercall(const uint8_t *at)
{
	return at[0] == 0x0f && at[1] == 0x01 && (at[2] == 0xc1 || at[2] == 0xd9);
}

/*
 * XOP's map 10 has immediates of 32 bits: there a CPU without XOP may find an instruction too long
 * (#GP), that one which knows nothing of it finds undefined. And AMD's do not look at VEX.W of VPERMQ and
 * VPERMPD.
 */
static bool is_unsettled(const uint8_t *at)
{
	return (at[0] == 0x8f && (at[1] & 0x1f) >= 8) ||
	       (at[0] == 0xc4 && (at[1] & 0x1f) == 3 && at[3] <= 1);
}

/*
 * VERW of memory with LOCK: undefined by the manuals, but AMD's microcode that has VERW empty buffers takes
 * no notice of the LOCK.
 */
static bool is_locked_verw(const struct diff_case *c, const uint8_t *at)
{
	bool locked = false;

	for (const uint8_t *prefix = c->code; prefix < at; prefix++)
		locked |= *prefix == 0xf0;
	return locked && at[0] == 0x0f && at[1] == 0x00 && (at[2] & 0x38) == 0x28 && at[2] < 0xc0;
}

/*
 * VEX opcodes that only sets use which no guest is offered: a CPU that has the set executes encodings
 * that Zydis refuses. AVX-512 CPUs of AMD's do not look at VEX.R and vvvv where KMOV and its like have
 * no use for them; other sets are younger than Zydis is (AMX's later ones, AVX-IFMA, SHA512, SM3,
 * SM4, CMPccXADD, AVX-VNNI-INT8, USER_MSR).
 */
static bool is_absent_vex(uint32_t map, uint8_t opcode)
{
	static const uint8_t map1[] = { 0x41, 0x42, 0x44, 0x45, 0x46, 0x47, 0x4a,
					0x4b, 0x90, 0x91, 0x92, 0x93, 0x98, 0x99 };
	static const uint8_t map2[] = { 0x48, 0x49, 0x4a, 0x4b, 0x50, 0x51, 0x5c, 0x5e,
					0x5f, 0x6b, 0x6c, 0x6e, 0x6f, 0x72, 0xb0, 0xb1,
					0xb4, 0xb5, 0xcb, 0xcc, 0xcd, 0xd2, 0xd3, 0xda };
	static const uint8_t map3[] = { 0x07, 0x30, 0x31, 0x32, 0x33, 0x77, 0xde };

	switch (map) {
	case 1:
		return is_one_of(opcode, map1, sizeof(map1));
	case 2:
		return is_one_of(opcode, map2, sizeof(map2)) || (opcode & 0xf0) == 0xe0;
	case 3:
		return is_one_of(opcode, map3, sizeof(map3));
	default:
		return map >= 5;
	}
}

/* The same without VEX: RAO-INT, MOVRS, USER_MSR; LKGS; MSRLIST, PBNDKB, FRED, AMD's RMPREAD. */
static bool is_absent_legacy(const uint8_t *at)
{
	static const uint8_t map2[] = { 0x8a, 0x8b, 0xf8, 0xfc };
	static const uint8_t group7[] = { 0xc6, 0xc7, 0xca, 0xfd };

	if (at[0] != 0x0f)
		return false;
	return (at[1] == 0x38 && is_one_of(at[2], map2, sizeof(map2))) ||
	       (at[1] == 0x01 && is_one_of(at[2], group7, sizeof(group7))) ||
	       (at[1] == 0x00 && (at[2] & 0x38) == 0x30);
}

/* Of what does not decode: no guest of this engine is offered it, whatever the CPU does with it. */
static bool is_unknown_absent(const struct diff_case *c, const uint8_t *at)
{
	bool vex = c->mode != MODE_COMPAT || at[1] >= 0xc0; /* else LES, LDS, BOUND, AAD */

	if (at[0] == 0xc5)
		return vex && is_absent_vex(1, at[2]);
	if (at[0] == 0xc4)
		return vex && is_absent_vex(at[1] & 0x1f, at[3]);
	if (at[0] == 0x62) /* EVEX, APX's too */
		return vex;
	if (at[0] == 0xd5) /* REX2 */
		return c->mode != MODE_COMPAT;
	return is_absent_legacy(at);
}

enum diff_judge diff_judge_of(const struct diff_case *c)
{
	const uint8_t *at = behind_prefixes(c);
	struct diff_insn i;

	if (c->mode == MODE_SYSTEM)
		return JUDGE_ENGINE;
	if (is_hypercall(at))
		return JUDGE_UNDEFINED;
	if (!diff_decode(c->mode, c->code, c->code_bytes, &i))
		return is_unsettled(at) || is_locked_verw(c, at) ? JUDGE_ENGINE
		       : is_unknown_absent(c, at)		 ? JUDGE_UNDEFINED
								 : JUDGE_ALL;
	if (is_kernels(&i) || is_hidden(&i.insn))
		return JUDGE_ENGINE;
	if (is_absent(&i.insn))
		return JUDGE_UNDEFINED;
	return has_other_values(&i.insn) ? JUDGE_FRAME : JUDGE_ALL;
}

void diff_opcode_settle(struct diff_case *c)
{
	struct diff_insn i;

	if (!c->single || !diff_decode(c->mode, c->code, c->code_bytes, &i) ||
	    (i.insn.meta.isa_ext != ZYDIS_ISA_EXT_XSAVE &&
	     i.insn.meta.isa_ext != ZYDIS_ISA_EXT_XSAVEC &&
	     i.insn.meta.isa_ext != ZYDIS_ISA_EXT_XSAVEOPT))
		return;
	c->start.gpr[0] &= ~(uint64_t)HOST_PARTS_LOW;
	c->start.gpr[2] &= ~(uint64_t)HOST_PARTS_HIGH;
}

void diff_opcode(uint32_t index, struct diff_case *c)
{
	struct rng rng = { .state = c->seed ^ 0x6f70636f6465 };
	struct bytes b = { .count = 0 };
	struct diff_insn i;

	if (index < LEGACY_COUNT)
		put_legacy(&b, index, &rng);
	else if (index < LEGACY_COUNT + VEX_COUNT)
		put_vex(&b, index - LEGACY_COUNT, &rng);
	else
		put_any(&b, &rng);
	c->single = true;
	diff_state_random(c);
	memcpy(c->code, b.at, b.count);
	/* What follows is int3, if anybody knows where it ends. */
	c->code_bytes = diff_decode(c->mode, c->code, b.count, &i) ? i.insn.length : INSN_BYTES;
	diff_analyse(c);
	diff_opcode_settle(c);
}
