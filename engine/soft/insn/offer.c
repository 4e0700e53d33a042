/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instructions there are: those that the guest's CPUID offers.
 *
 * Zydis knows every instruction that was ever published, the host's CPU executes many that no
 * guest is told of, and the guest's users try all of them. So what is decoded passes one gate: an
 * instruction of a set that CPUID does not offer becomes UD2 here, and is #UD for the stepper and
 * the translator alike. Encodings that were NOPs before a set made use of them (MPX, CET, CLDEMOTE)
 * are NOPs again.
 *
 * Two sets are executed whatever CPUID says, since their encodings are older than they are and mean
 * something without them: LZCNT and TZCNT, which programs use as BSR and BSF that are faster.
 */
#include <stdlib.h>

#include "engine/soft/insn/decode.h"

#define AMD_EBX	  0x68747541u
#define HYGON_EBX 0x6f677948u

enum output { OUT_EAX, OUT_EBX, OUT_ECX, OUT_EDX };

struct rule {
	ZydisISASet set;
	uint32_t function, index;
	enum output output;
	uint32_t bit;
};

/* Every x86-64 CPU has these, and so has every host on which this engine runs. */
static const ZydisISASet always[] = {
	ZYDIS_ISA_SET_I86,	ZYDIS_ISA_SET_I186,	    ZYDIS_ISA_SET_I286PROTECTED,
	ZYDIS_ISA_SET_I286REAL, ZYDIS_ISA_SET_I386,	    ZYDIS_ISA_SET_I486,
	ZYDIS_ISA_SET_I486REAL, ZYDIS_ISA_SET_PENTIUMREAL,  ZYDIS_ISA_SET_PENTIUMMMX,
	ZYDIS_ISA_SET_PPRO,	ZYDIS_ISA_SET_CMOV,	    ZYDIS_ISA_SET_FCMOV,
	ZYDIS_ISA_SET_X87,	ZYDIS_ISA_SET_FXSAVE,	    ZYDIS_ISA_SET_FXSAVE64,
	ZYDIS_ISA_SET_SSE,	ZYDIS_ISA_SET_SSE2,	    ZYDIS_ISA_SET_SSE2MMX,
	ZYDIS_ISA_SET_SSEMXCSR, ZYDIS_ISA_SET_SSE_PREFETCH, ZYDIS_ISA_SET_PREFETCH_NOP,
	ZYDIS_ISA_SET_CLFSH,	ZYDIS_ISA_SET_LONGMODE,	    ZYDIS_ISA_SET_AMD,
	ZYDIS_ISA_SET_LAHF,	ZYDIS_ISA_SET_PAUSE,	    ZYDIS_ISA_SET_FAT_NOP,
	ZYDIS_ISA_SET_RDPMC,	ZYDIS_ISA_SET_LZCNT,	    ZYDIS_ISA_SET_CLDEMOTE,
	ZYDIS_ISA_SET_MPX,	ZYDIS_ISA_SET_PREFETCHWT1,
};

static const struct rule rules[] = {
	{ ZYDIS_ISA_SET_SSE3, 1, 0, OUT_ECX, 0 },
	{ ZYDIS_ISA_SET_SSE3X87, 1, 0, OUT_ECX, 0 },
	{ ZYDIS_ISA_SET_PCLMULQDQ, 1, 0, OUT_ECX, 1 },
	{ ZYDIS_ISA_SET_SSSE3, 1, 0, OUT_ECX, 9 },
	{ ZYDIS_ISA_SET_SSSE3MMX, 1, 0, OUT_ECX, 9 },
	{ ZYDIS_ISA_SET_FMA, 1, 0, OUT_ECX, 12 },
	{ ZYDIS_ISA_SET_CMPXCHG16B, 1, 0, OUT_ECX, 13 },
	{ ZYDIS_ISA_SET_SSE4, 1, 0, OUT_ECX, 19 },
	{ ZYDIS_ISA_SET_SSE42, 1, 0, OUT_ECX, 20 },
	{ ZYDIS_ISA_SET_MOVBE, 1, 0, OUT_ECX, 22 },
	{ ZYDIS_ISA_SET_POPCNT, 1, 0, OUT_ECX, 23 },
	{ ZYDIS_ISA_SET_AES, 1, 0, OUT_ECX, 25 },
	{ ZYDIS_ISA_SET_AVXAES, 1, 0, OUT_ECX, 25 },
	{ ZYDIS_ISA_SET_XSAVE, 1, 0, OUT_ECX, 26 },
	{ ZYDIS_ISA_SET_AVX, 1, 0, OUT_ECX, 28 },
	{ ZYDIS_ISA_SET_F16C, 1, 0, OUT_ECX, 29 },
	{ ZYDIS_ISA_SET_RDRAND, 1, 0, OUT_ECX, 30 },
	{ ZYDIS_ISA_SET_RDWRFSGS, 7, 0, OUT_EBX, 0 },
	{ ZYDIS_ISA_SET_BMI1, 7, 0, OUT_EBX, 3 },
	{ ZYDIS_ISA_SET_AVX2, 7, 0, OUT_EBX, 5 },
	{ ZYDIS_ISA_SET_AVX2GATHER, 7, 0, OUT_EBX, 5 },
	{ ZYDIS_ISA_SET_BMI2, 7, 0, OUT_EBX, 8 },
	{ ZYDIS_ISA_SET_INVPCID, 7, 0, OUT_EBX, 10 },
	{ ZYDIS_ISA_SET_RDSEED, 7, 0, OUT_EBX, 18 },
	{ ZYDIS_ISA_SET_ADOX_ADCX, 7, 0, OUT_EBX, 19 },
	{ ZYDIS_ISA_SET_SMAP, 7, 0, OUT_EBX, 20 },
	{ ZYDIS_ISA_SET_CLFLUSHOPT, 7, 0, OUT_EBX, 23 },
	{ ZYDIS_ISA_SET_CLWB, 7, 0, OUT_EBX, 24 },
	{ ZYDIS_ISA_SET_SHA, 7, 0, OUT_EBX, 29 },
	{ ZYDIS_ISA_SET_GFNI, 7, 0, OUT_ECX, 8 },
	{ ZYDIS_ISA_SET_AVX_GFNI, 7, 0, OUT_ECX, 8 },
	{ ZYDIS_ISA_SET_VAES, 7, 0, OUT_ECX, 9 },
	{ ZYDIS_ISA_SET_VPCLMULQDQ, 7, 0, OUT_ECX, 10 },
	{ ZYDIS_ISA_SET_RDPID, 7, 0, OUT_ECX, 22 },
	{ ZYDIS_ISA_SET_AVX_VNNI, 7, 1, OUT_EAX, 4 },
	{ ZYDIS_ISA_SET_XSAVEOPT, 0xd, 1, OUT_EAX, 0 },
	{ ZYDIS_ISA_SET_XSAVEC, 0xd, 1, OUT_EAX, 1 },
	{ ZYDIS_ISA_SET_SSE4A, 0x80000001, 0, OUT_ECX, 6 },
	{ ZYDIS_ISA_SET_RDTSCP, 0x80000001, 0, OUT_EDX, 27 },
};

static bool has(const struct cpuid_set *cpuid, uint32_t function, uint32_t index,
		enum output output, uint32_t bit)
{
	const struct cpuid_leaf *leaf = cpuid ? cpuid_find(cpuid, function, index) : NULL;
	uint32_t value[4] = { 0 };

	if (!cpuid)
		return true;
	if (leaf) {
		value[OUT_EAX] = leaf->eax;
		value[OUT_EBX] = leaf->ebx;
		value[OUT_ECX] = leaf->ecx;
		value[OUT_EDX] = leaf->edx;
	}
	return value[output] >> bit & 1;
}

/* Speculation control, which Intel's CPUs offer in one leaf and AMD's in another. */
static void find_msrs(const struct cpuid_set *cpuid, struct soft_offer *offer)
{
	offer->spec_ctrl = cpuid && cpuid_spec_ctrl(cpuid);
	offer->pred_cmd = has(cpuid, 7, 0, OUT_EDX, 26) || has(cpuid, 0x80000008, 0, OUT_EBX, 12);
	offer->virt_spec_ctrl = has(cpuid, 0x80000008, 0, OUT_EBX, 25);
}

static uint64_t known_cr4(const struct cpuid_set *cpuid)
{
	uint64_t known = 0x7fc; /* TSD to OSXMMEXCPT; VME and PVI are not there */

	known |= has(cpuid, 7, 0, OUT_ECX, 2) ? CR4_UMIP : 0;
	known |= has(cpuid, 7, 0, OUT_EBX, 0) ? CR4_FSGSBASE : 0;
	known |= has(cpuid, 1, 0, OUT_ECX, 17) ? CR4_PCIDE : 0;
	known |= has(cpuid, 1, 0, OUT_ECX, 26) ? CR4_OSXSAVE : 0;
	known |= has(cpuid, 7, 0, OUT_EBX, 7) ? CR4_SMEP : 0;
	known |= has(cpuid, 7, 0, OUT_EBX, 20) ? CR4_SMAP : 0;
	return known;
}

static void init_decoders(struct soft_offer *offer)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} modes[CODE_SIZES] = {
		[CODE_16_REAL] = { ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16 },
		[CODE_16] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
		[CODE_32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
		[CODE_32_COMPAT] = { ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32 },
		[CODE_64] = { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
	};

	for (uint32_t i = 0; i < CODE_SIZES; i++) {
		ZydisDecoder *decoder = &offer->decoder[i];

		ZydisDecoderInit(decoder, modes[i].mode, modes[i].stack);
		ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
		ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
		ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
		ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
		/* A 66h before a near branch in 64-bit code: AMD's mean it, Intel's do not look. */
		ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, offer->amd);
	}
}

struct soft_offer *soft_offer_create(const struct cpuid_set *cpuid)
{
	struct soft_offer *offer = calloc(1, sizeof(*offer));
	const struct cpuid_leaf *vendor = cpuid ? cpuid_find(cpuid, 0, 0) : NULL;

	if (!offer)
		return NULL;
	offer->amd = vendor && (vendor->ebx == AMD_EBX || vendor->ebx == HYGON_EBX);
	offer->cr8_by_lock = has(cpuid, 0x80000001, 0, OUT_ECX, 4);
	offer->cr4 = known_cr4(cpuid);
	find_msrs(cpuid, offer);
	for (size_t i = 0; i <= ZYDIS_ISA_SET_MAX_VALUE; i++)
		offer->set[i] = !cpuid;
	for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
		offer->set[always[i]] = true;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		offer->set[rules[i].set] = has(cpuid, rules[i].function, rules[i].index,
					       rules[i].output, rules[i].bit);
	init_decoders(offer);
	return offer;
}

void soft_offer_destroy(struct soft_offer *offer)
{
	free(offer);
}

bool soft_is_offered(const struct soft_offer *offer, const ZydisDecodedInstruction *z)
{
	/* TZCNT is BMI1's, and is BSF without it. */
	return offer->set[z->meta.isa_set] || z->mnemonic == ZYDIS_MNEMONIC_TZCNT;
}
