/* SPDX-License-Identifier: Apache-2.0 */
/* The code cache: stubs, the stepper's buffers, blocks of translated code. See block.c. */
#ifndef ENGINE_SOFT_BLOCK_H
#define ENGINE_SOFT_BLOCK_H

#include "engine/soft/soft.h"

#define SOFT_EXEC_BYTES 256u

/* Where generated code jumps to leave, its reason being stored. */
const uint8_t *soft_cache_exit(const struct engine *engine);
/* The stepper's buffer of a vCPU. */
uint8_t *soft_cache_exec(const struct engine *engine, uint32_t slot);
typedef uint64_t soft_enter_fn(const void *code);
soft_enter_fn *soft_cache_enter(const struct engine *engine);

/* Where a pc is. */
enum soft_place {
	PLACE_OUTSIDE,
	PLACE_STUB,	/* on the way in or out: registers are half saved */
	PLACE_ENTERING, /* all of the guest's state is in the vCPU */
	PLACE_EXEC,	/* in a stepper's buffer */
	PLACE_BLOCK,
};
enum soft_place soft_cache_place(const struct engine *engine, uint64_t pc);
/* Leaves guest code, everything being saved. */
const uint8_t *soft_cache_left(const struct engine *engine);

#endif
