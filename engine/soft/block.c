/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: one region of host code per engine.
 *
 *   stubs (stubs.S) | the stepper's buffers, one per vCPU | blocks
 */
#include "engine/soft/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

extern const uint8_t soft_stubs_begin[], soft_stub_enter[], soft_stub_enter_check[],
	soft_stub_enter_end[], soft_stub_exit[], soft_stub_left[], soft_stubs_end[];

#define CACHE_BYTES (128u << 20)
#define STUBS_BYTES 1024u

struct soft_cache {
	uint8_t *base;
};

static const uint8_t *stub(const struct engine *engine, const uint8_t *in_blob)
{
	return engine->cache->base + (in_blob - soft_stubs_begin);
}

const uint8_t *soft_cache_exit(const struct engine *engine)
{
	return stub(engine, soft_stub_exit);
}

soft_enter_fn *soft_cache_enter(const struct engine *engine)
{
	return (soft_enter_fn *)(uintptr_t)stub(engine, soft_stub_enter);
}

uint8_t *soft_cache_exec(const struct engine *engine, uint32_t slot)
{
	return engine->cache->base + STUBS_BYTES + slot * SOFT_EXEC_BYTES;
}

enum soft_place soft_cache_place(const struct engine *engine, uint64_t pc)
{
	uint64_t offset = pc - (uintptr_t)engine->cache->base;

	if (offset >= CACHE_BYTES)
		return PLACE_OUTSIDE;
	if (offset >= STUBS_BYTES + VCPUS_MAX * SOFT_EXEC_BYTES)
		return PLACE_BLOCK;
	if (offset >= STUBS_BYTES)
		return PLACE_EXEC;
	if (pc >= (uintptr_t)stub(engine, soft_stub_enter_check) &&
	    pc < (uintptr_t)stub(engine, soft_stub_enter_end))
		return PLACE_ENTERING;
	return PLACE_STUB;
}

const uint8_t *soft_cache_left(const struct engine *engine)
{
	return stub(engine, soft_stub_left);
}

int soft_cache_create(struct engine *engine)
{
	struct soft_cache *cache = calloc(1, sizeof(*cache));
	void *base;

	if (!cache)
		return -ENOMEM;
	base = mmap(NULL, CACHE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED) {
		free(cache);
		return -errno;
	}
	cache->base = base;
	memcpy(base, soft_stubs_begin, (size_t)(soft_stubs_end - soft_stubs_begin));
	engine->cache = cache;
	return 0;
}

void soft_cache_destroy(struct engine *engine)
{
	if (!engine->cache)
		return;
	munmap(engine->cache->base, CACHE_BYTES);
	free(engine->cache);
}
