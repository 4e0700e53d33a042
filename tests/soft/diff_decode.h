/* SPDX-License-Identifier: Apache-2.0 */
/* One instruction as Zydis sees it, for the parts of soft-diff that look into sequences. */
#ifndef TESTS_SOFT_DIFF_DECODE_H
#define TESTS_SOFT_DIFF_DECODE_H

#include <Zydis/Zydis.h>
#include <cpuid.h>

#include "tests/soft/diff.h"

struct diff_insn {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};

/* Hygon's CPUs are AMD's. */
static inline bool diff_is_amd(void)
{
	uint32_t eax, ebx = 0, ecx, edx;

	__get_cpuid(0, &eax, &ebx, &ecx, &edx);
	return ebx == signature_AMD_ebx || ebx == 0x6f677948;
}

/* As the CPU that it runs on: branches with 66h are AMD's or Intel's, and MPX is nobody's any more.
 */
static inline void diff_decoder_init(ZydisDecoder *decoder, bool compat)
{
	bool amd = diff_is_amd();

	if (compat)
		ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, amd);
	ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

static inline bool diff_decode(enum diff_mode mode, const uint8_t *code, size_t bytes,
			       struct diff_insn *ret_insn)
{
	static ZydisDecoder decoders[2];
	ZydisDecoder *decoder = &decoders[mode == MODE_COMPAT];

	if (!decoder->stack_width)
		diff_decoder_init(decoder, mode == MODE_COMPAT);
	return ZYAN_SUCCESS(
		ZydisDecoderDecodeFull(decoder, code, bytes, &ret_insn->insn, ret_insn->operand));
}

/* diff_flags.c: flags that may be undefined behind it, and flags it reads. */
uint32_t diff_insn_undefined(const struct diff_insn *i, uint32_t before);
uint32_t diff_insn_reads(const struct diff_insn *i);

#endif
