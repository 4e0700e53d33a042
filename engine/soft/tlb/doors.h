/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doors: where a block's direct jumps to other pages go, for each vCPU. Threads: as the TLB (tlb.h).
 *
 *      jmp gs:[door]   shut: to the jump's own way out, by which C opens the door
 *                      open: to the block at the target
 *
 * The jump compares nothing, and so leaves the flags where they are. It need not: while a door is
 * open, its view's addresses of the target's page lead to the page that the block was made from, as
 * for the jumps in the table (jumps.h); together with those it falls asleep and wakes.
 */
#ifndef ENGINE_SOFT_DOORS_H
#define ENGINE_SOFT_DOORS_H

#include "engine/soft/vcpu.h"

/* A jump may have one if no instruction at its target can reach into the next page. */
static inline bool soft_door_can_lead_to(uint64_t rip)
{
	return (rip & (PAGE_BYTES - 1)) <= PAGE_BYTES - INSN_BYTES_MAX;
}

static inline uint32_t soft_door_offset(uint32_t door)
{
	return (uint32_t)(offsetof(struct engine_vcpu, door) + sizeof(uint64_t) * door);
}

/* Engine's lock held. The next door that there is, shut for every vCPU: it leads to its way out. */
void soft_door_make(struct engine *engine, const uint8_t *way_out);
/* A vCPU runs for the first time: it gets all doors that there are, shut. Takes the lock. */
void soft_door_create(struct engine_vcpu *vcpu);
/* This one leads to the code at rip, in the vCPU's view, where an instruction was just fetched. */
void soft_door_open(struct engine_vcpu *vcpu, uint32_t door, uint64_t rip, const uint8_t *code);
/* Those of the view that lead to rip are shut: the block there is no longer valid. */
void soft_door_shut(struct engine_vcpu *vcpu, uint64_t rip);

/* As soft_jump_flush(), soft_jump_sleep() and so on, which call these. */
void soft_door_flush(struct engine_vcpu *vcpu, enum soft_view view);
void soft_door_sleep(struct engine_vcpu *vcpu, enum soft_view view);
void soft_door_sleep_some(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
			  uint64_t bytes);
/* same: it is the page that it was. */
void soft_door_fetched(struct engine_vcpu *vcpu, enum soft_view view, uint64_t page, bool same);

#endif
