/* SPDX-License-Identifier: Apache-2.0 */
/* Bits and numbers of the architecture (SDM vol. 3, 2 and 6; APM vol. 2). */
#ifndef ENGINE_SOFT_X86_H
#define ENGINE_SOFT_X86_H

#include <stdint.h>

#define BIT64(n) (1ull << (n))

#define INSN_BYTES_MAX 15u
#define LINE_BYTES     64u /* of a cache */

#define CR0_PE BIT64(0)
#define CR0_MP BIT64(1)
#define CR0_EM BIT64(2)
#define CR0_TS BIT64(3)
#define CR0_ET BIT64(4)
#define CR0_WP BIT64(16)
#define CR0_AM BIT64(18)
#define CR0_NW BIT64(29)
#define CR0_CD BIT64(30)
#define CR0_PG BIT64(31)

#define CR4_TSD	       BIT64(2)
#define CR4_DE	       BIT64(3)
#define CR4_PSE	       BIT64(4)
#define CR4_PAE	       BIT64(5)
#define CR4_PGE	       BIT64(7)
#define CR4_OSFXSR     BIT64(9)
#define CR4_OSXMMEXCPT BIT64(10)
#define CR4_UMIP       BIT64(11)
#define CR4_FSGSBASE   BIT64(16)
#define CR4_PCIDE      BIT64(17)
#define CR4_OSXSAVE    BIT64(18)
#define CR4_SMEP       BIT64(20)
#define CR4_SMAP       BIT64(21)

#define EFER_SCE BIT64(0)
#define EFER_LME BIT64(8)
#define EFER_LMA BIT64(10)
#define EFER_NXE BIT64(11)
/* As struct vcpu_state has them. */
#define SHADOW_STI    1u
#define SHADOW_MOV_SS 2u

/* FFXSR is not offered. */
#define EFER_WRITABLE (EFER_SCE | EFER_LME | EFER_NXE)

#define FLAG_CF		 BIT64(0)
#define FLAG_PF		 BIT64(2)
#define FLAG_AF		 BIT64(4)
#define FLAG_ZF		 BIT64(6)
#define FLAG_SF		 BIT64(7)
#define DR6_STEP	 (1u << 14)
#define FLAG_TF		 BIT64(8)
#define FLAG_IF		 BIT64(9)
#define FLAG_DF		 BIT64(10)
#define FLAG_OF		 BIT64(11)
#define FLAG_IOPL	 (3ull << 12)
#define FLAG_NT		 BIT64(14)
#define FLAG_RF		 BIT64(16)
#define FLAG_VM		 BIT64(17)
#define FLAG_AC		 BIT64(18)
#define FLAG_ID		 BIT64(21)
#define FLAGS_ARITHMETIC (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
/* Those that live in the host's register while guest code runs. */
#define FLAGS_HOST   (FLAGS_ARITHMETIC | FLAG_DF)
#define FLAGS_SYSTEM (FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_ID)

#define ATTRIBUTE_TYPE	  0xfu
#define ATTRIBUTE_S	  0x10u
#define ATTRIBUTE_DPL(a)  ((a) >> 5 & 3u)
#define ATTRIBUTE_PRESENT 0x80u
#define ATTRIBUTE_LONG	  0x2000u
#define ATTRIBUTE_BIG	  0x4000u
#define ATTRIBUTE_GRAN	  0x8000u

/* Of error codes that name a selector. */
#define ERROR_IDT 2u

enum soft_vector {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_NMI = 2,
	VECTOR_BP = 3,
	VECTOR_OF = 4,
	VECTOR_BR = 5,
	VECTOR_UD = 6,
	VECTOR_NM = 7,
	VECTOR_DF = 8,
	VECTOR_TS = 10,
	VECTOR_NP = 11,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_MF = 16,
	VECTOR_AC = 17,
	VECTOR_XM = 19,
};

#endif
