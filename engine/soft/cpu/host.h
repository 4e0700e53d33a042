/* SPDX-License-Identifier: Apache-2.0 */
/* What depends on the host's CPU and on how this is compiled. */
#ifndef ENGINE_SOFT_HOST_H
#define ENGINE_SOFT_HOST_H

#include <asm/prctl.h>
#include <cpuid.h>
#include <stdbool.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HWCAP2_FSGSBASE_BIT 2u

/* Sanitizers call functions of theirs, which use vector registers, wherever they like. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SOFT_C_USES_VECTORS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SOFT_C_USES_VECTORS 1
#endif
#endif
#ifndef SOFT_C_USES_VECTORS
#define SOFT_C_USES_VECTORS 0
#endif

/* By the leaf that QEMU made for it. Without one the highest leaf's numbers come, which are no text. */
static inline bool soft_host_is_tcg(void)
{
	unsigned int eax, text[3];

	__cpuid(0x40000000, eax, text[0], text[1], text[2]);
	return text[0] == 0x54474354 && text[1] == 0x43544743 && text[2] == 0x47435447;
}

static inline bool soft_host_has_avx(void)
{
	return __builtin_cpu_supports("avx");
}

static inline void soft_host_set_gs(void *base)
{
	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT)
		__asm__ volatile("wrgsbase %0" : : "r"(base) : "memory");
	else
		syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

#endif
