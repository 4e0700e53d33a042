/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breakpoints in DR0 to DR3 (SDM vol. 3, 17.2.4 and 17.2.5). While one is enabled the vCPU only
 * steps, so every access of an instruction comes by here.
 *
 * Left out: breakpoints on ports (CR4.DE), and on what the CPU reads on its own account, such as
 * descriptors and page tables.
 */
#include "engine/soft/vcpu.h"

#include "engine/soft/cpu/debug.h"

#define ON_EXECUTION 0u
#define ON_WRITE     1u
#define ON_ACCESS    3u

static bool is_enabled(const struct engine_vcpu *vcpu, int i)
{
	return vcpu->state.dr7 >> (2 * i) & 3;
}

static uint32_t condition_of(const struct engine_vcpu *vcpu, int i)
{
	return vcpu->state.dr7 >> (16 + 4 * i) & 3;
}

static uint32_t bytes_of(const struct engine_vcpu *vcpu, int i)
{
	static const uint8_t bytes[] = { 1, 2, 8, 4 };

	return bytes[vcpu->state.dr7 >> (18 + 4 * i) & 3];
}

void soft_watch_data(struct engine_vcpu *vcpu, uint64_t linear, uint32_t bytes, bool write)
{
	for (int i = 0; i < 4; i++) {
		uint32_t condition = condition_of(vcpu, i), size = bytes_of(vcpu, i);
		uint64_t start = vcpu->state.dr[i] & ~(uint64_t)(size - 1);

		if (!is_enabled(vcpu, i) ||
		    !(condition == ON_ACCESS || (condition == ON_WRITE && write)))
			continue;
		if (linear < start + size && start < linear + bytes)
			vcpu->debug_hits |= 1u << i;
	}
}

uint32_t soft_break_code(const struct engine_vcpu *vcpu, uint64_t linear)
{
	uint32_t hits = 0;

	for (int i = 0; i < 4; i++)
		if (is_enabled(vcpu, i) && condition_of(vcpu, i) == ON_EXECUTION &&
		    vcpu->state.dr[i] == linear)
			hits |= 1u << i;
	return hits;
}
