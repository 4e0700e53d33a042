/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of instruction forms: opcode templates, by class and mnemonic.
 *
 * It is not typed in but asked for: every opcode of every map, with every mandatory prefix, REX.W,
 * VEX.W, VEX.L and ModRM.reg is given to Zydis, once with a register and once with a memory
 * operand, and what decodes and is allowed becomes a form. So no form is forgotten. Zydis only
 * says what exists and which flags are undefined; what an instruction does is for the CPU to say.
 *
 * Not allowed: what differs between any two runs (time, random numbers, CPUID), what asks for
 * another privilege or the operating system, what the engine does not offer, and what templates
 * (diff_template.c) make: control flow, changes of segment registers and flags, xsave.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/soft/diff_decode.h"

#define FORMS_MAX  16384u
#define GROUPS_MAX 2048u

const char *const diff_class_name[CLASS_COUNT] = {
	[CLASS_ALU] = "alu",	   [CLASS_SHIFT] = "shift",   [CLASS_BIT] = "bit",
	[CLASS_MULDIV] = "muldiv", [CLASS_MOV] = "mov",	      [CLASS_STACK] = "stack",
	[CLASS_STRING] = "string", [CLASS_FLAGS] = "flags",   [CLASS_ATOMIC] = "atomic",
	[CLASS_BMI] = "bmi",	   [CLASS_SSE] = "sse",	      [CLASS_AVX] = "avx",
	[CLASS_CRYPTO] = "crypto", [CLASS_X87] = "x87",	      [CLASS_MMX] = "mmx",
	[CLASS_STATE] = "state",   [CLASS_MISC] = "misc",     [CLASS_SYSTEM] = "system",
	[CLASS_WALK] = "walk",	   [CLASS_BRANCH] = "branch", [CLASS_SMC] = "smc",
	[CLASS_STEP] = "step",
};

/* Forms of one mnemonic in one class, side by side after sorting. */
struct group {
	uint32_t first, count;
};

struct diff_forms {
	ZydisDecoder decoder;
	bool compat;
	uint32_t count, group_count;
	uint32_t class_first[CLASS_COUNT], class_count[CLASS_COUNT]; /* in groups */
	struct group group[GROUPS_MAX];
	struct diff_form form[FORMS_MAX];
};

static const uint16_t denied[] = {
	/* other runs, other values */
	ZYDIS_MNEMONIC_RDTSC,
	ZYDIS_MNEMONIC_RDPMC,
	ZYDIS_MNEMONIC_CPUID,
	ZYDIS_MNEMONIC_XGETBV,
	/* user-mode instruction prevention: the host's kernel emulates these */
	ZYDIS_MNEMONIC_SGDT,
	ZYDIS_MNEMONIC_SIDT,
	ZYDIS_MNEMONIC_SLDT,
	ZYDIS_MNEMONIC_STR,
	ZYDIS_MNEMONIC_SMSW,
	/* the host's tables */
	ZYDIS_MNEMONIC_LAR,
	ZYDIS_MNEMONIC_LSL,
	ZYDIS_MNEMONIC_VERR,
	ZYDIS_MNEMONIC_VERW,
	ZYDIS_MNEMONIC_LSS,
	ZYDIS_MNEMONIC_LFS,
	ZYDIS_MNEMONIC_LGS,
	ZYDIS_MNEMONIC_LLDT,
	ZYDIS_MNEMONIC_LTR,
	/* templates */
	ZYDIS_MNEMONIC_POPF,
	ZYDIS_MNEMONIC_POPFQ,
	ZYDIS_MNEMONIC_POPFD,
	ZYDIS_MNEMONIC_LDMXCSR,
	ZYDIS_MNEMONIC_VLDMXCSR,
	ZYDIS_MNEMONIC_FXSAVE,
	ZYDIS_MNEMONIC_FXSAVE64,
	ZYDIS_MNEMONIC_XSAVE,
	ZYDIS_MNEMONIC_XSAVE64,
	ZYDIS_MNEMONIC_XSAVEC,
	ZYDIS_MNEMONIC_XSAVEC64,
	ZYDIS_MNEMONIC_XSAVEOPT,
	ZYDIS_MNEMONIC_XSAVEOPT64,
	ZYDIS_MNEMONIC_XRSTOR,
	ZYDIS_MNEMONIC_XRSTOR64,
	ZYDIS_MNEMONIC_FNSTENV,
	ZYDIS_MNEMONIC_FNSAVE,
	/* the rest: nothing to be learnt, or not the same on every CPU */
	ZYDIS_MNEMONIC_WBINVD,
	ZYDIS_MNEMONIC_INVD,
	ZYDIS_MNEMONIC_RSM,
	ZYDIS_MNEMONIC_SYSEXIT,
	ZYDIS_MNEMONIC_UD0,
	ZYDIS_MNEMONIC_UD1,
	ZYDIS_MNEMONIC_GETSEC,
	ZYDIS_MNEMONIC_SALC,
	ZYDIS_MNEMONIC_FEMMS,
	ZYDIS_MNEMONIC_INCSSPD,
	ZYDIS_MNEMONIC_INCSSPQ,
	ZYDIS_MNEMONIC_FSTPNCE,
	ZYDIS_MNEMONIC_FDISI8087_NOP,
	ZYDIS_MNEMONIC_FENI8087_NOP,
	ZYDIS_MNEMONIC_FSETPM287_NOP,
	ZYDIS_MNEMONIC_PREFETCHWT1,
	ZYDIS_MNEMONIC_RSTORSSP,
	ZYDIS_MNEMONIC_SAVEPREVSSP,
	ZYDIS_MNEMONIC_SETSSBSY,
	ZYDIS_MNEMONIC_CLRSSBSY,
	ZYDIS_MNEMONIC_WRSSD,
	ZYDIS_MNEMONIC_WRSSQ,
	ZYDIS_MNEMONIC_WRUSSD,
	ZYDIS_MNEMONIC_WRUSSQ,
};

static bool is_denied(const ZydisDecodedInstruction *insn)
{
	for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++)
		if (denied[i] == insn->mnemonic)
			return true;
	/* 0F 0D with a register: a nop on Intel, #UD on AMD */
	if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F && insn->opcode == 0x0d &&
	    insn->raw.modrm.mod == 3)
		return true;
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SEGOP:
		return true;
	default:
		return false;
	}
}

static bool is_extension_allowed(ZydisISAExt extension, bool avx)
{
	switch (extension) {
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_F16C:
	case ZYDIS_ISA_EXT_FMA:
		return avx;
	case ZYDIS_ISA_EXT_ADOX_ADCX:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_AMD3DNOW_PREFETCH:
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_BMI2:
	case ZYDIS_ISA_EXT_CET:
	case ZYDIS_ISA_EXT_CLFSH:
	case ZYDIS_ISA_EXT_LONGMODE:
	case ZYDIS_ISA_EXT_LZCNT:
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_MOVBE:
	case ZYDIS_ISA_EXT_PAUSE:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_RDWRFSGS:
	case ZYDIS_ISA_EXT_SHA:
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_X87:
		return true;
	default:
		return false;
	}
}

static enum diff_class class_of_base(const ZydisDecodedInstruction *insn)
{
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		return CLASS_MULDIV;
	case ZYDIS_MNEMONIC_XCHG:
	case ZYDIS_MNEMONIC_XADD:
		return CLASS_ATOMIC;
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_LEAVE:
		return CLASS_STACK;
	case ZYDIS_MNEMONIC_POPCNT:
	case ZYDIS_MNEMONIC_CRC32:
		return CLASS_BMI;
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_CLTS:
	case ZYDIS_MNEMONIC_SWAPGS:
		return CLASS_SYSTEM;
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_XLAT:
		return CLASS_MOV;
	default:
		break;
	}
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_ROTATE:
		return CLASS_SHIFT;
	case ZYDIS_CATEGORY_BITBYTE:
		return CLASS_BIT;
	case ZYDIS_CATEGORY_CMOV:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_SETCC:
		return CLASS_MOV;
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
		return CLASS_STACK;
	case ZYDIS_CATEGORY_STRINGOP:
		return CLASS_STRING;
	case ZYDIS_CATEGORY_FLAGOP:
		return CLASS_FLAGS;
	case ZYDIS_CATEGORY_SEMAPHORE:
		return CLASS_ATOMIC;
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
		return CLASS_SYSTEM;
	case ZYDIS_CATEGORY_MISC:
	case ZYDIS_CATEGORY_NOP:
	case ZYDIS_CATEGORY_WIDENOP:
	case ZYDIS_CATEGORY_PREFETCH:
		return CLASS_MISC;
	default:
		return CLASS_ALU;
	}
}

static bool has_register_class(const ZydisDecodedInstruction *insn,
			       const ZydisDecodedOperand *operands, ZydisRegisterClass class)
{
	for (int i = 0; i < insn->operand_count_visible; i++)
		if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(operands[i].reg.value) == class)
			return true;
	return false;
}

static enum diff_class class_of(const ZydisDecodedInstruction *insn,
				const ZydisDecodedOperand *operands)
{
	if (has_register_class(insn, operands, ZYDIS_REGCLASS_MMX) ||
	    insn->mnemonic == ZYDIS_MNEMONIC_EMMS)
		return CLASS_MMX;
	if (has_register_class(insn, operands, ZYDIS_REGCLASS_CONTROL) ||
	    has_register_class(insn, operands, ZYDIS_REGCLASS_DEBUG))
		return CLASS_SYSTEM;
	switch (insn->meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LONGMODE:
		return class_of_base(insn);
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
		if (insn->mnemonic == ZYDIS_MNEMONIC_POPCNT ||
		    insn->mnemonic == ZYDIS_MNEMONIC_CRC32)
			return CLASS_BMI;
		return CLASS_SSE;
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_FMA:
		return CLASS_AVX;
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_SHA:
	case ZYDIS_ISA_EXT_F16C:
		return CLASS_CRYPTO;
	case ZYDIS_ISA_EXT_X87:
		return CLASS_X87;
	case ZYDIS_ISA_EXT_MMX:
		return CLASS_MMX;
	case ZYDIS_ISA_EXT_ADOX_ADCX:
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_BMI2:
	case ZYDIS_ISA_EXT_LZCNT:
	case ZYDIS_ISA_EXT_MOVBE:
		return CLASS_BMI;
	case ZYDIS_ISA_EXT_RDWRFSGS:
		return CLASS_STATE;
	default:
		return CLASS_MISC;
	}
}

/* Writes of segment registers are not for random operands. */
static bool writes_segment(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands)
{
	for (int i = 0; i < insn->operand_count_visible; i++)
		if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(operands[i].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
		    (operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return true;
	return false;
}

/* The bytes of form f, with registers 0 and zero displacement and immediate. */
static void probe_bytes(const struct diff_form *f, uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH])
{
	static const uint8_t vex_pp[4] = { 0, 0x66, 0xf3, 0xf2 };
	uint32_t at = 0;

	memset(bytes, 0, ZYDIS_MAX_INSTRUCTION_LENGTH);
	if (f->vex) {
		uint8_t pp = 0;

		while (vex_pp[pp] != f->pp)
			pp++;
		bytes[at++] = 0xc4;
		bytes[at++] = (uint8_t)(0xe0 | f->map);
		bytes[at++] =
			(uint8_t)(f->w << 7 | (f->vvvv_used ? 15 - 1 : 15) << 3 | f->l << 2 | pp);
	} else {
		if (f->prefix_66)
			bytes[at++] = 0x66;
		if (f->pp)
			bytes[at++] = f->pp;
		if (f->w)
			bytes[at++] = 0x48;
		if (f->map)
			bytes[at++] = 0x0f;
		if (f->map == 2)
			bytes[at++] = 0x38;
		if (f->map == 3)
			bytes[at++] = 0x3a;
	}
	bytes[at++] = f->opcode;
	bytes[at] = (uint8_t)((f->memory ? 0x80 : 0xc0) | (f->reg & 7) << 3 | (f->rm & 7));
}

struct probe {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};

static bool decode(const struct diff_forms *forms, const struct diff_form *f, struct probe *p)
{
	uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];

	probe_bytes(f, bytes);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&forms->decoder, bytes, sizeof(bytes), &p->insn,
						   p->operand));
}

/* VEX.vvvv is an operand, or must be 1111. */
static bool decode_some_way(const struct diff_forms *forms, struct diff_form *f, struct probe *p)
{
	f->vvvv_used = f->vex;
	if (decode(forms, f, p))
		return true;
	f->vvvv_used = false;
	return f->vex && decode(forms, f, p);
}

static bool same_instruction(const struct probe *a, const struct probe *b)
{
	if (a->insn.mnemonic != b->insn.mnemonic ||
	    a->insn.operand_width != b->insn.operand_width ||
	    a->insn.operand_count != b->insn.operand_count)
		return false;
	for (int i = 0; i < a->insn.operand_count; i++)
		if (a->operand[i].size != b->operand[i].size ||
		    a->operand[i].type != b->operand[i].type)
			return false;
	return true;
}

/* A prefix that changes nothing makes no form of its own. */
static bool is_redundant(const struct diff_forms *forms, const struct diff_form *f,
			 const struct probe *p)
{
	struct diff_form plain = *f;
	struct probe q;

	if (f->vex)
		return false;
	if (f->pp && p->insn.meta.category != ZYDIS_CATEGORY_STRINGOP) {
		plain.pp = 0;
		if (decode(forms, &plain, &q) && q.insn.mnemonic == p->insn.mnemonic)
			return true;
		plain = *f;
	}
	if (f->prefix_66) {
		plain.prefix_66 = false;
		if (decode(forms, &plain, &q) && same_instruction(&q, p))
			return true;
		plain = *f;
	}
	if (!f->w)
		return false;
	plain.w = 0;
	return decode(forms, &plain, &q) && same_instruction(&q, p);
}

static void describe(struct diff_form *f, const struct probe *p)
{
	const ZydisDecodedInstruction *insn = &p->insn;

	f->mnemonic = (uint16_t)insn->mnemonic;
	f->class = (uint8_t)class_of(insn, p->operand);
	f->modrm = (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
	f->imm_bytes = (uint8_t)((insn->raw.imm[0].size + insn->raw.imm[1].size) / 8);
	f->moffs = !f->modrm && insn->raw.disp.size != 0;
	f->lockable = f->memory && (insn->attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK);
	f->bit_offset = f->map == 1 && (f->opcode & 0xe7) == 0xa3 && !f->vex;
	f->string = insn->meta.category == ZYDIS_CATEGORY_STRINGOP;
	f->align = 1;
	for (int i = 0; i < insn->operand_count; i++) {
		const ZydisDecodedOperand *o = &p->operand[i];

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			f->mem_agen = true;
		f->mem_bytes = (uint16_t)(o->size / 8);
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			f->mem_write = true;
	}
	if (!f->vex && f->mem_bytes == 16)
		f->align = 16; /* wrong for movups and the like, which does no harm */
	if (f->vex && f->mem_bytes >= 16)
		f->align = (uint8_t)f->mem_bytes;
}

/* Only these have opcodes in ModRM.rm. */
static bool has_rm_opcodes(const struct diff_form *f)
{
	return !f->vex &&
	       ((f->map == 0 && f->opcode >= 0xd8 && f->opcode <= 0xdf) ||
		(f->map == 1 && (f->opcode == 0x01 || f->opcode == 0xae || f->opcode == 0x1e)));
}

/* Fills in *f. */
static bool is_form(const struct diff_forms *forms, struct diff_form *f, bool avx)
{
	struct probe p;

	if (!decode_some_way(forms, f, &p) || is_denied(&p.insn) ||
	    !is_extension_allowed(p.insn.meta.isa_ext, avx) || writes_segment(&p.insn, p.operand) ||
	    is_redundant(forms, f, &p))
		return false;
	/* In 32-bit code VEX.W is #UD there for AMD's, ignored by Intel's. */
	if (forms->compat && f->w &&
	    (p.insn.mnemonic == ZYDIS_MNEMONIC_VPINSRD ||
	     p.insn.mnemonic == ZYDIS_MNEMONIC_VPEXTRD))
		return false;
	describe(f, &p);
	return f->modrm || (!f->memory && !f->reg && !f->rm);
}

static void add_form(struct diff_forms *forms, const struct diff_form *f)
{
	if (forms->count == FORMS_MAX)
		abort();
	forms->form[forms->count++] = *f;
}

/* All values of ModRM.reg; where they all do the same they are operands, and make one form. */
static void add_opcode(struct diff_forms *forms, const struct diff_form *base, bool avx)
{
	struct diff_form got[8];
	uint32_t count = 0;
	bool same = true;

	for (uint8_t reg = 0; reg < 8; reg++) {
		got[count] = *base;
		got[count].reg = reg;
		if (!is_form(forms, &got[count], avx))
			continue;
		same = same && got[count].mnemonic == got[0].mnemonic;
		count++;
	}
	if (count == 8 && same) {
		got[0].reg = FORM_ANY;
		count = 1;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (got[i].modrm && !got[i].memory && !has_rm_opcodes(&got[i]))
			got[i].rm = FORM_ANY;
		add_form(forms, &got[i]);
	}
}

static void add_modes(struct diff_forms *forms, struct diff_form f, bool avx)
{
	f.memory = true;
	add_opcode(forms, &f, avx);
	f.memory = false;
	for (f.rm = 0; f.rm < (has_rm_opcodes(&f) ? 8 : 1); f.rm++)
		add_opcode(forms, &f, avx);
}

static bool is_prefix(uint8_t opcode, bool compat)
{
	return (!compat && (opcode & 0xf0) == 0x40) || (opcode >= 0x64 && opcode <= 0x67) ||
	       opcode == 0xf0 || opcode == 0xf2 || opcode == 0xf3 || (opcode & 0xe7) == 0x26 ||
	       opcode == 0x0f || opcode == 0xc4 || opcode == 0xc5 || (!compat && opcode == 0x62);
}

static void add_legacy(struct diff_forms *forms)
{
	static const uint8_t repeat[3] = { 0, 0xf3, 0xf2 };

	for (uint32_t i = 0; i < 4 * 3 * 2 * 2 * 256; i++) {
		struct diff_form f = {
			.opcode = (uint8_t)i,
			.w = i >> 8 & 1,
			.prefix_66 = i >> 9 & 1,
			.map = i >> 10 & 3,
			.pp = repeat[i >> 12],
		};

		if (forms->compat && f.w)
			continue; /* REX does not exist */
		if ((f.map == 0 && is_prefix(f.opcode, forms->compat)) ||
		    (f.map == 1 && (f.opcode == 0x38 || f.opcode == 0x3a || f.opcode == 0x0f)))
			continue;
		add_modes(forms, f, false);
	}
}

static void add_vex(struct diff_forms *forms, bool avx)
{
	static const uint8_t pp[4] = { 0, 0x66, 0xf3, 0xf2 };

	for (uint32_t i = 0; i < 3 * 4 * 2 * 2 * 256; i++) {
		struct diff_form f = {
			.vex = 1,
			.opcode = (uint8_t)i,
			.w = i >> 8 & 1,
			.l = i >> 9 & 1,
			.pp = pp[i >> 10 & 3],
			.map = (uint8_t)(1 + (i >> 12)),
		};

		add_modes(forms, f, avx);
	}
}

static int by_class(const void *a, const void *b)
{
	const struct diff_form *f = a, *g = b;

	if (f->class != g->class)
		return f->class - g->class;
	if (f->mnemonic != g->mnemonic)
		return f->mnemonic - g->mnemonic;
	return memcmp(f, g, sizeof(*f));
}

/* After sorting: runs of one mnemonic, and where each class has its runs. */
static void make_groups(struct diff_forms *forms)
{
	for (uint32_t i = 0; i < forms->count; i++) {
		const struct diff_form *f = &forms->form[i];
		bool begins = i == 0 || f[-1].mnemonic != f->mnemonic || f[-1].class != f->class;

		if (begins) {
			if (forms->group_count == GROUPS_MAX)
				abort();
			if (forms->class_count[f->class]++ == 0)
				forms->class_first[f->class] = forms->group_count;
			forms->group[forms->group_count++] = (struct group){ .first = i };
		}
		forms->group[forms->group_count - 1].count++;
	}
}

struct diff_forms *diff_forms_create(bool avx, bool compat)
{
	struct diff_forms *forms = calloc(1, sizeof(*forms));

	if (!forms)
		return NULL;
	forms->compat = compat;
	diff_decoder_init(&forms->decoder, compat);
	add_legacy(forms);
	add_vex(forms, avx);
	qsort(forms->form, forms->count, sizeof(forms->form[0]), by_class);
	make_groups(forms);
	return forms;
}

void diff_forms_destroy(struct diff_forms *forms)
{
	free(forms);
}

const struct diff_form *diff_forms_pick(const struct diff_forms *forms, enum diff_class class,
					struct rng *rng)
{
	const struct group *group;

	if (!forms->class_count[class])
		return NULL;
	group = &forms->group[forms->class_first[class] +
			      rng_below(rng, forms->class_count[class])];
	return &forms->form[group->first + rng_below(rng, group->count)];
}

void diff_forms_list(const struct diff_forms *forms)
{
	for (uint32_t i = 0; i < forms->group_count; i++) {
		const struct diff_form *f = &forms->form[forms->group[i].first];

		printf("%-8s %-16s %u forms\n", diff_class_name[f->class],
		       ZydisMnemonicGetString((ZydisMnemonic)f->mnemonic), forms->group[i].count);
	}
	printf("%u forms, %u mnemonics\n", forms->count, forms->group_count);
}
