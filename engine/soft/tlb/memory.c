/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: which host address a guest-physical one has, and back. */
#include "engine/soft/tlb/tlb.h"

uint8_t *soft_memory_host(const struct engine *engine, uint64_t gpa)
{
	for (uint32_t i = 0; i < engine->memory_count; i++) {
		const struct soft_memory *memory = &engine->memory[i];

		if (gpa - memory->gpa < memory->bytes)
			return memory->host + (gpa - memory->gpa);
	}
	return NULL;
}

uint64_t soft_memory_gpa(const struct engine *engine, const uint8_t *host)
{
	for (uint32_t i = 0; i < engine->memory_count; i++) {
		const struct soft_memory *memory = &engine->memory[i];
		uint64_t offset = (uintptr_t)host - (uintptr_t)memory->host;

		if (offset < memory->bytes)
			return memory->gpa + offset;
	}
	return UINT64_MAX;
}
