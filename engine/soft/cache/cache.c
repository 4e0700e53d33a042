/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: one region of host code per engine, shared by its vCPUs, with a second one that
 * holds what is known about each block.
 *
 *   stubs (stubs.S) | the stepper's buffers, one per vCPU | blocks, in the order they were made
 *
 * Blocks are found by a hash of (gpa, rip, mode), by C; translated code goes from one to the next
 * by linked jumps within a page, and by the vCPU's jump table else. An invalid block stays where it
 * is: its first instruction becomes a jump to its way out, so that nothing that leads to it has to
 * be found. Space is reclaimed all at once, with all vCPUs paused.
 */
#include "engine/soft/cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/cache/code_page.h"
#include "engine/soft/cache/huge.h"
#include "engine/soft/insn/emit_jump.h"
#include "engine/soft/tlb/jumps.h"

extern const uint8_t soft_stubs_begin[], soft_stub_enter[], soft_stub_enter_check[],
	soft_stub_enter_end[], soft_stub_exit[], soft_stub_lookup[], soft_stub_left[],
	soft_stubs_end[];

#define CACHE_BYTES    (128u << 20)
#define NOTES_BYTES    (128u << 20)
#define ORDER_BYTES    (16u << 20)
#define DOORS_BYTES    (DOORS_MAX * sizeof(uint64_t))
#define GRANULE	       1024u /* of code; where one begins, it is known which block that is in */
#define STUBS_BYTES    1024u
#define BLOCKS_OFFSET  (STUBS_BYTES + VCPUS_MAX * SOFT_EXEC_PLACES * SOFT_EXEC_BYTES)
#define BLOCK_CODE_MAX 32768u
#define BUCKETS	       65536u
#define FORGET_BATCH   256u /* blocks */

#define NARROW_SLOTS 65536u

/* Newer than the C library's headers. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

struct soft_cache {
	uint8_t *base, *next, *end; /* blocks: next is where the next one goes */
	uint8_t *written;	    /* base, where it is written */
	uint8_t *huge_end; /* pieces before it are wanted in huge pages: one more than are in use */
	struct soft_huge *huge;
	uint8_t *notes, *notes_next, *notes_end; /* decoded instructions grow down from the end */
	struct soft_block **order;		 /* every block, by address */
	_Atomic uint32_t count;
	uint32_t at_granule[CACHE_BYTES / GRANULE]; /* index into order */
	uint64_t generation;			    /* counts emptyings */
	struct soft_block *bucket[BUCKETS];
	bool small;		      /* for a test */
	uint8_t narrow[NARROW_SLOTS]; /* by a hash of the leader's gpa */
};

static const uint8_t *stub(const struct engine *engine, const uint8_t *in_blob)
{
	return engine->cache->base + (in_blob - soft_stubs_begin);
}

const uint8_t *soft_cache_exit(const struct engine *engine)
{
	return stub(engine, soft_stub_exit);
}

const uint8_t *soft_cache_lookup(const struct engine *engine)
{
	return stub(engine, soft_stub_lookup);
}

const uint8_t *soft_cache_left(const struct engine *engine)
{
	return stub(engine, soft_stub_left);
}

soft_enter_fn *soft_cache_enter(const struct engine *engine)
{
	return (soft_enter_fn *)(uintptr_t)stub(engine, soft_stub_enter);
}

uint8_t *soft_cache_exec(const struct engine *engine, uint32_t slot)
{
	return engine->cache->base + STUBS_BYTES +
	       (size_t)slot * SOFT_EXEC_PLACES * SOFT_EXEC_BYTES;
}

uint64_t soft_cache_generation(const struct engine *engine)
{
	return engine->cache->generation;
}

uint64_t soft_cache_widen(const struct engine *engine, uint32_t low)
{
	uint64_t base = (uintptr_t)engine->cache->base;
	uint32_t offset = low - (uint32_t)base;

	return offset < CACHE_BYTES ? base + offset : 0;
}

enum soft_place soft_cache_place(const struct engine *engine, uint64_t pc)
{
	uint64_t offset = pc - (uintptr_t)engine->cache->base;

	if (offset >= CACHE_BYTES)
		return PLACE_OUTSIDE;
	if (offset >= BLOCKS_OFFSET)
		return PLACE_BLOCK;
	if (offset >= STUBS_BYTES)
		return PLACE_EXEC;
	if (pc >= (uintptr_t)stub(engine, soft_stub_enter_check) &&
	    pc < (uintptr_t)stub(engine, soft_stub_enter_end))
		return PLACE_ENTERING;
	if (pc >= (uintptr_t)stub(engine, soft_stub_lookup) &&
	    pc < (uintptr_t)stub(engine, soft_stub_exit))
		return PLACE_LOOKUP;
	if (pc >= (uintptr_t)stub(engine, soft_stub_exit) &&
	    pc < (uintptr_t)stub(engine, soft_stub_left))
		return PLACE_LEAVING;
	return PLACE_STUB;
}

/* For tests: who still uses what is no more is to be seen (INT3; instructions that are none). */
static void spoil(struct soft_cache *cache)
{
	uint8_t *notes_end = cache->notes + NOTES_BYTES;

	memset(cache->written + BLOCKS_OFFSET, 0xcc,
	       (size_t)(cache->next - cache->base) - BLOCKS_OFFSET);
	memset(cache->notes, 0xcc, (size_t)(cache->notes_next - cache->notes));
	memset(cache->notes_end, 0xcc, (size_t)(notes_end - cache->notes_end));
}

static void reset(struct engine *engine)
{
	struct soft_cache *cache = engine->cache;

	memset(cache->bucket, 0, sizeof(cache->bucket));
	memset(cache->narrow, 0, sizeof(cache->narrow));
	cache->next = cache->base + BLOCKS_OFFSET;
	cache->notes_next = cache->notes;
	cache->notes_end = cache->notes + NOTES_BYTES;
	atomic_store(&cache->count, 0);
	cache->generation++;
	engine->door_count = 1;
}

/* Where a huge page may lie. */
static uint8_t *map_file(int fd, int protection)
{
	size_t before;
	uint8_t *all = mmap(NULL, CACHE_BYTES + HUGE_BYTES, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (all == MAP_FAILED)
		return NULL;
	before = HUGE_BYTES - (uintptr_t)all % HUGE_BYTES;
	munmap(all, before);
	if (before < HUGE_BYTES)
		munmap(all + before + CACHE_BYTES, HUGE_BYTES - before);
	if (mmap(all + before, CACHE_BYTES, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
		 0) == MAP_FAILED) {
		munmap(all + before, CACHE_BYTES);
		return NULL;
	}
	(void)madvise(all + before, CACHE_BYTES, MADV_HUGEPAGE); /* without them it is slower */
	return all + before;
}

/* Twice: to be executed, and to be written. */
static int map_code(struct soft_cache *cache)
{
	int fd = memfd_create("eagre-code", MFD_CLOEXEC | MFD_NOEXEC_SEAL), error = 0;

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("eagre-code", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, CACHE_BYTES) < 0)
		error = -errno;
	if (!error && !(cache->base = map_file(fd, PROT_READ | PROT_EXEC)))
		error = -errno;
	if (!error && !(cache->written = map_file(fd, PROT_READ | PROT_WRITE)))
		error = -errno;
	if (!error) /* a core has it once */
		(void)madvise(cache->written, CACHE_BYTES, MADV_DONTDUMP);
	close(fd);
	return error;
}

ptrdiff_t soft_cache_alias(const struct engine *engine)
{
	const struct soft_cache *cache = engine->cache;

	return (ptrdiff_t)((uintptr_t)cache->written - (uintptr_t)cache->base);
}

void soft_cache_patch(struct engine *engine, uint8_t *at, const uint8_t *target)
{
	emit_patch32(at, soft_cache_alias(engine), target);
	soft_cache_written(engine);
}

static void *map(size_t bytes, int protection)
{
	void *base =
		mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return base == MAP_FAILED ? NULL : base;
}

/* Less for tests, which want it to be full again and again. */
static size_t bytes_of_blocks(void)
{
	const char *text = getenv("EAGRE_SOFT_CACHE_BYTES");
	size_t bytes = text ? strtoul(text, NULL, 0) : 0;

	if (!bytes || bytes > CACHE_BYTES - BLOCKS_OFFSET)
		return CACHE_BYTES - BLOCKS_OFFSET;
	return bytes < 2 * BLOCK_CODE_MAX ? 2 * BLOCK_CODE_MAX : bytes;
}

uint64_t soft_cache_kept_bytes(void)
{
	return (uint64_t)CACHE_BYTES + NOTES_BYTES + ORDER_BYTES + DOORS_BYTES +
	       sizeof(struct soft_cache);
}

int soft_cache_create(struct engine *engine)
{
	struct soft_cache *cache = calloc(1, sizeof(*cache));
	int error;

	if (!cache)
		return -ENOMEM;
	engine->cache = cache;
	error = map_code(cache);
	if (error)
		return error;
	cache->notes = map(NOTES_BYTES, PROT_READ | PROT_WRITE);
	cache->order = map(ORDER_BYTES, PROT_READ | PROT_WRITE);
	engine->door_way_out = map(DOORS_BYTES, PROT_READ | PROT_WRITE);
	if (!cache->notes || !cache->order || !engine->door_way_out)
		return -ENOMEM;
	cache->huge = soft_huge_create(cache->base, CACHE_BYTES, soft_cache_alias(engine));
	cache->huge_end = cache->base + HUGE_BYTES;
	soft_huge_want(cache->huge, cache->huge_end);
	memcpy(cache->written, soft_stubs_begin, (size_t)(soft_stubs_end - soft_stubs_begin));
	cache->end = cache->base + BLOCKS_OFFSET + bytes_of_blocks();
	cache->small = cache->end != cache->base + CACHE_BYTES;
	reset(engine);
	return 0;
}

void soft_cache_destroy(struct engine *engine)
{
	struct soft_cache *cache = engine->cache;

	if (!cache)
		return;
	soft_huge_destroy(cache->huge);
	if (cache->base)
		munmap(cache->base, CACHE_BYTES);
	if (cache->written)
		munmap(cache->written, CACHE_BYTES);
	if (cache->notes)
		munmap(cache->notes, NOTES_BYTES);
	if (cache->order)
		munmap(cache->order, ORDER_BYTES);
	if (engine->door_way_out)
		munmap(engine->door_way_out, DOORS_BYTES);
	free(cache);
	engine->cache = NULL;
}

/* ---- finding -------------------------------------------------------------------------------- */

static struct soft_block **bucket_of(struct soft_cache *cache, uint64_t gpa, uint64_t rip,
				     uint8_t mode)
{
	uint64_t hash =
		(gpa ^ (rip >> 12) * 0x9e3779b1u ^ (uint64_t)mode << 9) * 0x9e3779b97f4a7c15ull;

	return &cache->bucket[hash >> 48 & (BUCKETS - 1)];
}

struct soft_block *soft_cache_find(const struct engine *engine, uint64_t gpa, uint64_t rip,
				   uint8_t mode)
{
	struct soft_block *block =
		__atomic_load_n(bucket_of(engine->cache, gpa, rip, mode), __ATOMIC_ACQUIRE);

	while (block &&
	       (block->rip != rip || block->gpa != gpa || block->mode != mode || !block->valid))
		block = __atomic_load_n(&block->hash_next, __ATOMIC_ACQUIRE);
	return block;
}

const struct soft_record *soft_record_find(const struct engine *engine, uint64_t pc,
					   const struct soft_block **ret_block)
{
	const struct soft_cache *cache = engine->cache;
	uint32_t low = 0, high = atomic_load(&cache->count);
	const struct soft_block *block;
	uint64_t offset = pc - (uintptr_t)cache->base;

	if (offset < BLOCKS_OFFSET || offset >= CACHE_BYTES)
		return NULL;
	low = cache->at_granule[offset / GRANULE];
	while (low + 1 < high && (uintptr_t)cache->order[low + 1]->code <= pc)
		low++;
	if (low >= high)
		return NULL;
	block = cache->order[low];
	offset = pc - (uintptr_t)block->code;
	*ret_block = block;
	if (offset >= block->code_bytes)
		return NULL;
	low = 0;
	high = block->record_count;
	while (high - low > 1) {
		uint32_t middle = (low + high) / 2;

		if (block->record[middle].start <= offset)
			low = middle;
		else
			high = middle;
	}
	return &block->record[low];
}

/* ---- making ---------------------------------------------------------------------------------- */

bool soft_cache_is_full(const struct engine *engine)
{
	const struct soft_cache *cache = engine->cache;
	size_t notes = sizeof(struct soft_block) + SOFT_RECORDS_MAX * sizeof(struct soft_record);

	return (size_t)(cache->end - cache->next) < BLOCK_CODE_MAX + 64 ||
	       (size_t)(cache->notes_end - cache->notes_next) < notes + SOFT_KEPT_MAX + 64 ||
	       atomic_load(&cache->count) >= ORDER_BYTES / sizeof(struct soft_block *);
}

void soft_cache_publish(struct engine *engine, struct soft_block *block)
{
	struct soft_cache *cache = engine->cache;
	struct soft_block **bucket = bucket_of(cache, block->gpa, block->rip, block->mode);
	uint32_t count = atomic_load(&cache->count);
	size_t notes = sizeof(*block) + block->record_count * sizeof(block->record[0]);
	size_t granule = ((size_t)(cache->next - cache->base) + GRANULE - 1) / GRANULE;

	cache->next += (block->code_bytes + 15) & ~15u;
	for (; granule * GRANULE < (size_t)(cache->next - cache->base); granule++)
		cache->at_granule[granule] = count;
	cache->notes_next += (notes + 15) & ~(size_t)15;
	cache->order[count] = block;
	atomic_store(&cache->count, count + 1);
	block->hash_next = *bucket;
	soft_cache_written(engine);
	__atomic_store_n(bucket, block, __ATOMIC_RELEASE);
	if (cache->next > cache->huge_end - HUGE_BYTES) {
		cache->huge_end += HUGE_BYTES;
		soft_huge_want(cache->huge, cache->huge_end);
	}
}

static void count_work(struct engine_vcpu *vcpu)
{
	atomic_fetch_add_explicit(&vcpu->work_count, 1, memory_order_relaxed);
}

/* The lock is taken for a few blocks at a time: shards want it to say that a page is lost. */
static void forget_blocks(struct engine_vcpu *vcpu)
{
	struct engine *engine = vcpu->engine;
	struct soft_cache *cache = engine->cache;
	uint32_t count = atomic_load(&cache->count);

	for (uint32_t i = 0; i < count;) {
		pthread_mutex_lock(&engine->lock);
		for (uint32_t end = i + FORGET_BATCH; i < end && i < count; i++)
			soft_code_forget(engine, cache->order[i]);
		pthread_mutex_unlock(&engine->lock);
		count_work(vcpu);
	}
}

static void flush_jumps(struct engine_vcpu *vcpu, struct engine_vcpu *of)
{
	for (int view = 0; view < VIEW_COUNT; view++) {
		soft_jump_flush(of, (enum soft_view)view);
		count_work(vcpu);
	}
}

void soft_cache_empty(struct engine_vcpu *vcpu)
{
	struct engine *engine = vcpu->engine;

	forget_blocks(vcpu);
	for (uint32_t i = 0; i < VCPUS_MAX; i++)
		if (engine->vcpu[i])
			flush_jumps(vcpu, engine->vcpu[i]);
	/* No page knows a block any more, so nobody else looks at any. */
	if (engine->cache->small)
		spoil(engine->cache);
	reset(engine);
}

struct soft_room soft_cache_room(const struct engine *engine)
{
	const struct soft_cache *cache = engine->cache;

	return (struct soft_room){ .block = (struct soft_block *)(void *)cache->notes_next,
				   .at = cache->next,
				   .end = cache->next + BLOCK_CODE_MAX,
				   .record_max = SOFT_RECORDS_MAX };
}

void *soft_cache_keep(struct engine *engine, const void *data, size_t bytes)
{
	struct soft_cache *cache = engine->cache;

	assert(bytes <= SOFT_KEPT_MAX);
	cache->notes_end -= (bytes + 15) & ~(size_t)15;
	memcpy(cache->notes_end, data, bytes);
	return cache->notes_end;
}

/* Some others have the same hash: they are right, too. */
static uint8_t *narrow_of(struct soft_cache *cache, uint64_t gpa)
{
	return &cache->narrow[gpa * 0x9e3779b97f4a7c15ull >> 48 & (NARROW_SLOTS - 1)];
}

uint8_t soft_cache_narrow(const struct engine *engine, uint64_t gpa)
{
	return *narrow_of(engine->cache, gpa);
}

uint32_t soft_cache_span(uint8_t narrow)
{
	static const uint32_t spans[NARROWEST + 1] = { SOFT_SPAN_MAX, 64, 16, 0 };

	return spans[narrow];
}

void soft_cache_narrow_more(struct engine *engine, uint64_t gpa, uint8_t than)
{
	uint8_t *narrow = narrow_of(engine->cache, gpa);

	if (*narrow == than && than < NARROWEST)
		*narrow = than + 1;
}

void soft_block_invalidate(struct engine *engine, struct soft_block *block)
{
	struct soft_block **link = bucket_of(engine->cache, block->gpa, block->rip, block->mode);
	uint64_t first;
	int32_t distance = (int32_t)(block->stale - (block->head + 5));

	if (!block->valid)
		return;
	block->valid = false;
	while (*link && *link != block)
		link = &(*link)->hash_next;
	if (*link)
		__atomic_store_n(link, block->hash_next, __ATOMIC_RELEASE);
	memcpy(&first, block->head, sizeof(first));
	first = (first & ~0xffffffffffull) | 0xe9 | (uint64_t)(uint32_t)distance << 8;
	__atomic_store_n((uint64_t *)(void *)(block->head + soft_cache_alias(engine)), first,
			 __ATOMIC_SEQ_CST);
	soft_cache_written(engine);
}
