/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks for the guest's addresses: found or made, linked, replaced. */
#ifndef ENGINE_SOFT_RUN_BLOCK_H
#define ENGINE_SOFT_RUN_BLOCK_H

#include "engine/soft/cache/cache.h"

/* The mode that the vCPU needs now, without MODE_SLOT. */
uint8_t soft_mode(const struct engine_vcpu *vcpu);

/*
 * Accesses of the block of this host address could not share, SOFT_REACH says which; if often, it
 * is made anew. counted: translated code has done that (tr_split()).
 */
void soft_block_split(struct engine_vcpu *vcpu, uint64_t host, uint32_t reach, bool counted);

/*
 * The block for vcpu->rip, translated if need be; mode: MODE_SLOT, MODE_ALONE, besides what the
 * vCPU's state asks for. SOFT_FAULT: fetching faults. SOFT_AGAIN: this
 * instruction has to be stepped.
 */
int soft_block_get(struct engine_vcpu *vcpu, uint8_t mode, struct soft_block **ret_block);
/* A jump that left by SOFT_REASON_LINK goes straight to the block from now on. */
void soft_block_link(struct engine_vcpu *vcpu, uint8_t *site, const struct soft_block *block,
		     uint64_t generation);
/*
 * Who jumps to the invalid block with this head goes on to the one that replaces it. Only if that
 * was for the sake of sharing: where code is written again and again, chains of jumps would grow.
 */
void soft_block_forward(struct engine_vcpu *vcpu, uint8_t *head, const struct soft_block *block,
			uint64_t generation);
#endif
