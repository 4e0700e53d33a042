/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's extended state (x87, SSE, AVX) is in the host's registers from entering guest code
 * until C that might use them is called, or the vCPU stops running.
 */
#include "engine/soft/cpu/extended.h"

#include "engine/soft/cache/cache.h"
#include "engine/soft/cpu/host.h"

#define XSAVE_PARTS 7u

static void fpu_acquire(struct engine_vcpu *vcpu)
{
	if (vcpu->fpu_live)
		return;
	vcpu->fpu_live = true;
	__asm__ volatile("xrstor64 %0" : : "m"(vcpu->xsave), "a"(XSAVE_PARTS), "d"(0) : "memory");
}

void soft_fpu_release(struct engine_vcpu *vcpu)
{
	if (!vcpu->fpu_live)
		return;
	__asm__ volatile("xsave64 %0" : "+m"(vcpu->xsave) : "a"(XSAVE_PARTS), "d"(0) : "memory");
	vcpu->fpu_live = false;
}

/* The upper halves are left as if never used: else every SSE instruction of the library pays. */
void soft_fpu_reset(void)
{
	static const uint32_t mxcsr = 0x1f80;

	if (soft_host_has_avx())
		__asm__ volatile("vzeroupper");
	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
}

uint64_t soft_enter(struct engine_vcpu *vcpu, const void *code)
{
	fpu_acquire(vcpu);
	soft_cache_enter(vcpu->engine)(code);
	if (SOFT_C_USES_VECTORS)
		soft_fpu_release(vcpu);
	return vcpu->reason;
}
