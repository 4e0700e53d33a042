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
#include "engine/soft/cache/block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/soft/insn/decode.h"
#include "engine/soft/insn/emit.h"

extern const uint8_t soft_stubs_begin[], soft_stub_enter[], soft_stub_enter_check[],
	soft_stub_enter_end[], soft_stub_exit[], soft_stub_lookup[], soft_stub_unknown[],
	soft_stub_left[], soft_stubs_end[];

#define CACHE_BYTES    (128u << 20)
#define NOTES_BYTES    (128u << 20)
#define ORDER_BYTES    (16u << 20)
#define GRANULE	       1024u /* of code; where one begins, it is known which block that is in */
#define STUBS_BYTES    1024u
#define BLOCKS_OFFSET  (STUBS_BYTES + VCPUS_MAX * SOFT_EXEC_BYTES)
#define BLOCK_CODE_MAX 32768u
#define BLOCK_RECORDS  (4u * BLOCK_INSNS_MAX + 8u)
#define BUCKETS	       65536u
#define FETCH_BYTES    240u

/*
 * A block whose accesses could not share this often in a row, each time within so many ticks of the
 * TSC, is translated anew for neighbours that are nearer to each other.
 */
#define SPLITS_MAX   100u
#define SPLITS_TICKS 10000u
#define NARROW_SLOTS 4096u
static const uint32_t spans[] = { SOFT_SPAN_MAX, 64, 16, 0 };
#define NARROWEST (sizeof(spans) / sizeof(spans[0]) - 1)

struct soft_cache {
	uint8_t *base, *next;			 /* next: where the next block goes */
	uint8_t *notes, *notes_next, *notes_end; /* decoded instructions grow down from the end */
	struct soft_block **order;		 /* every block, by address */
	_Atomic uint32_t count;
	uint32_t at_granule[CACHE_BYTES / GRANULE]; /* index into order */
	uint64_t generation;			    /* counts emptyings */
	struct soft_block *bucket[BUCKETS];
	uint8_t narrow[NARROW_SLOTS]; /* index into spans, by a hash of the block's gpa */
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

const uint8_t *soft_cache_unknown(const struct engine *engine)
{
	return stub(engine, soft_stub_unknown);
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
	return engine->cache->base + STUBS_BYTES + slot * SOFT_EXEC_BYTES;
}

uint64_t soft_cache_generation(const struct engine *engine)
{
	return engine->cache->generation;
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
	    pc < (uintptr_t)stub(engine, soft_stub_unknown))
		return PLACE_LOOKUP;
	return PLACE_STUB;
}

static void empty(struct soft_cache *cache)
{
	memset(cache->bucket, 0, sizeof(cache->bucket));
	memset(cache->narrow, 0, sizeof(cache->narrow));
	cache->next = cache->base + BLOCKS_OFFSET;
	cache->notes_next = cache->notes;
	cache->notes_end = cache->notes + NOTES_BYTES;
	atomic_store(&cache->count, 0);
	cache->generation++;
}

static void *map(size_t bytes, int protection)
{
	void *base =
		mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return base == MAP_FAILED ? NULL : base;
}

int soft_cache_create(struct engine *engine)
{
	struct soft_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	engine->cache = cache;
	cache->base = map(CACHE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
	cache->notes = map(NOTES_BYTES, PROT_READ | PROT_WRITE);
	cache->order = map(ORDER_BYTES, PROT_READ | PROT_WRITE);
	if (!cache->base || !cache->notes || !cache->order)
		return -ENOMEM;
	memcpy(cache->base, soft_stubs_begin, (size_t)(soft_stubs_end - soft_stubs_begin));
	empty(cache);
	return 0;
}

void soft_cache_destroy(struct engine *engine)
{
	struct soft_cache *cache = engine->cache;

	if (!cache)
		return;
	if (cache->base)
		munmap(cache->base, CACHE_BYTES);
	if (cache->notes)
		munmap(cache->notes, NOTES_BYTES);
	if (cache->order)
		munmap(cache->order, ORDER_BYTES);
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

static struct soft_block *find(struct soft_cache *cache, uint64_t gpa, uint64_t rip, uint8_t mode)
{
	struct soft_block *block =
		__atomic_load_n(bucket_of(cache, gpa, rip, mode), __ATOMIC_ACQUIRE);

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

/* ---- making -----------------------------------------------------------------------------------
 */

uint8_t soft_mode(const struct engine_vcpu *vcpu)
{
	return (uint8_t)(vcpu->view | (vcpu->no_vector ? MODE_NO_VECTOR : 0) |
			 (vcpu->no_avx ? MODE_NO_AVX : 0));
}

static bool is_full(const struct soft_cache *cache)
{
	size_t notes = sizeof(struct soft_block) + BLOCK_RECORDS * sizeof(struct soft_record);

	return (size_t)(cache->base + CACHE_BYTES - cache->next) < BLOCK_CODE_MAX + 64 ||
	       (size_t)(cache->notes_end - cache->notes_next) <
		       notes + sizeof(struct soft_insn) + 64 ||
	       atomic_load(&cache->count) >= ORDER_BYTES / sizeof(struct soft_block *);
}

static void make_room(struct engine_vcpu *vcpu)
{
	struct engine *engine = vcpu->engine;

	if (!is_full(engine->cache))
		return;
	soft_pause_others(vcpu, UINT64_MAX);
	pthread_mutex_lock(&engine->lock);
	if (is_full(engine->cache)) {
		empty(engine->cache);
		soft_code_forget_all(engine);
		for (uint32_t i = 0; i < VCPUS_MAX; i++)
			for (int view = 0; engine->vcpu[i] && view < VIEW_COUNT; view++)
				soft_jump_flush(engine->vcpu[i], (enum soft_view)view);
	}
	pthread_mutex_unlock(&engine->lock);
	soft_resume_others(vcpu);
}

/* What is about to become a block. */
struct source {
	uint64_t gpa, gpa_behind;
	uint32_t version[2], count;
	uint8_t mode;
	bool crossing_next;
};

/* Decodes up to the block's end, or the page's. 0 instructions: the first reaches into the next. */
static void decode_block(struct engine_vcpu *vcpu, const uint8_t *bytes, uint32_t size,
			 struct source *source)
{
	uint32_t offset = 0;

	while (source->count < BLOCK_INSNS_MAX && offset < size) {
		struct soft_insn *insn = &vcpu->insns[source->count];
		int err = soft_decode(CODE_64, bytes + offset, size - offset, insn);

		source->crossing_next =
			err == -ENODATA && ((vcpu->rip + size) & (PAGE_BYTES - 1)) == 0;
		if (err)
			break;
		source->count++;
		offset += insn->length;
		if (soft_insn_ends_block(insn, source->mode))
			break;
	}
}

/* An instruction across pages is a block of its own. False: step it. */
static bool decode_crossing(struct engine_vcpu *vcpu, uint8_t *bytes, uint32_t size,
			    struct source *source)
{
	struct soft_page behind;

	if (soft_translate(vcpu, vcpu->view, vcpu->rip + size, ACCESS_FETCH, &behind) ||
	    !behind.host)
		return false;
	source->gpa_behind = soft_memory_gpa(vcpu->engine, behind.host);
	if (soft_code_begin(vcpu, source->gpa_behind, &source->version[1]))
		return false;
	soft_copy(bytes + size, behind.host, INSN_BYTES_MAX - size);
	if (soft_decode(CODE_64, bytes, INSN_BYTES_MAX, vcpu->insns) || vcpu->insns->length <= size)
		return false;
	source->count = 1;
	source->crossing_next = false;
	return true;
}

/* What C has to step is kept decoded, with the operands that it has, at the end of the notes. */
static const struct soft_insn *keep(struct soft_cache *cache, const struct soft_insn *insn)
{
	uint32_t operands = insn->z.operand_count < 3 ? 3 : insn->z.operand_count;
	size_t bytes = offsetof(struct soft_insn, op) + operands * sizeof(insn->op[0]);

	if (operands > INSN_OPERANDS)
		return NULL;
	cache->notes_end -= (bytes + 15) & ~(size_t)15;
	memcpy(cache->notes_end, insn, bytes);
	return (const struct soft_insn *)(const void *)cache->notes_end;
}

/* How near a block's neighbours must be. Some others have the same hash: they are right, too. */
static uint8_t *narrow_of(struct soft_cache *cache, uint64_t gpa)
{
	return &cache->narrow[gpa * 0x9e3779b97f4a7c15ull >> 48 & (NARROW_SLOTS - 1)];
}

void soft_block_split(struct engine *engine, uint64_t host)
{
	struct soft_cache *cache = engine->cache;
	const struct soft_block *found;
	uint64_t now = __builtin_ia32_rdtsc();
	struct soft_block *block;

	if (!soft_record_find(engine, host, &found))
		return;
	pthread_mutex_lock(&engine->lock);
	block = (struct soft_block *)(uintptr_t)found;
	block->splits = now - block->split_at < SPLITS_TICKS ? block->splits + 1u : 0;
	block->split_at = now;
	if (block->splits == SPLITS_MAX) {
		uint8_t *narrow = narrow_of(cache, block->gpa);

		*narrow += *narrow < NARROWEST;
		block->narrowed = true;
		soft_block_invalidate(engine, block);
	}
	pthread_mutex_unlock(&engine->lock);
}

/* Lock held. */
static struct soft_block *translate(struct engine_vcpu *vcpu, struct source *source)
{
	struct soft_cache *cache = vcpu->engine->cache;
	struct soft_block *block = (struct soft_block *)(void *)cache->notes_next;
	struct soft_translation t = {
		.vcpu = vcpu,
		.insn = vcpu->insns,
		.count = source->count,
		.rip = vcpu->rip,
		.mode = source->mode,
		.span = spans[source->mode & MODE_ALONE ? NARROWEST
							: *narrow_of(cache, source->gpa)],
		.crossing_next = source->crossing_next,
		.at = cache->next,
		.end = cache->next + BLOCK_CODE_MAX,
		.record = block->record,
		.record_max = BLOCK_RECORDS
	};
	uint32_t guest_bytes = 0;

	if (soft_insn_is_stepped(&vcpu->insns[source->count - 1], source->mode))
		t.known = keep(cache, &vcpu->insns[source->count - 1]);
	/* It does not fit, or has more records than there may be: a shorter one. */
	while (!soft_translate_block(&t)) {
		if (source->count == 1)
			return NULL;
		source->crossing_next = t.crossing_next = false;
		t.count = source->count /= 2;
	}
	for (uint32_t i = 0; i < source->count; i++)
		guest_bytes += vcpu->insns[i].length;
	*block = (struct soft_block){ .rip = vcpu->rip,
				      .gpa = source->gpa,
				      .gpa_behind = source->gpa_behind,
				      .code = cache->next,
				      .head = t.head,
				      .stale = t.stale,
				      .code_bytes = t.code_bytes,
				      .guest_bytes = (uint16_t)guest_bytes,
				      .record_count = (uint16_t)t.record_count,
				      .mode = source->mode,
				      .valid = true };
	return block;
}

/* Lock held. */
static void publish(struct soft_cache *cache, struct soft_block *block)
{
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
	__atomic_store_n(bucket, block, __ATOMIC_RELEASE);
}

static int make(struct engine_vcpu *vcpu, const struct soft_page *page, uint8_t mode,
		struct soft_block **ret_block)
{
	struct engine *engine = vcpu->engine;
	struct source source = { .gpa = soft_memory_gpa(engine, page->host), .mode = mode };
	uint32_t room = PAGE_BYTES - (uint32_t)(vcpu->rip & (PAGE_BYTES - 1));
	uint32_t size = room < FETCH_BYTES ? room : FETCH_BYTES;
	uint8_t bytes[FETCH_BYTES];
	struct soft_block *block;
	bool known = false;

	soft_fpu_release(vcpu);
	make_room(vcpu);
	if (soft_code_begin(vcpu, source.gpa, &source.version[0]))
		return SOFT_AGAIN;
	soft_copy(bytes, page->host, size);
	decode_block(vcpu, bytes, size, &source);
	if (source.count == 0 &&
	    (!source.crossing_next || !decode_crossing(vcpu, bytes, size, &source)))
		return SOFT_AGAIN;
	pthread_mutex_lock(&engine->lock);
	block = is_full(engine->cache) ? NULL : translate(vcpu, &source);
	if (block)
		known = soft_code_insert(engine, block, source.version);
	if (known)
		publish(engine->cache, block);
	pthread_mutex_unlock(&engine->lock);
	*ret_block = block;
	vcpu->translate_count++;
	return known ? SOFT_OK : SOFT_AGAIN;
}

/* Is the page that it reaches into still the same? */
static bool is_behind(struct engine_vcpu *vcpu, const struct soft_block *block)
{
	uint64_t next = (vcpu->rip | (PAGE_BYTES - 1)) + 1;
	struct soft_page page;

	return !soft_translate(vcpu, vcpu->view, next, ACCESS_FETCH, &page) && page.host &&
	       soft_memory_gpa(vcpu->engine, page.host) == block->gpa_behind;
}

int soft_block_get(struct engine_vcpu *vcpu, uint8_t mode, struct soft_block **ret_block)
{
	struct soft_page page;
	struct soft_block *block;
	int err = soft_translate(vcpu, vcpu->view, vcpu->rip, ACCESS_FETCH, &page);

	if (err)
		return err;
	if (!page.host)
		return SOFT_AGAIN;
	mode |= soft_mode(vcpu);
	block = find(vcpu->engine->cache, soft_memory_gpa(vcpu->engine, page.host), vcpu->rip,
		     mode);
	if (block) {
		*ret_block = block;
		return !block->gpa_behind || is_behind(vcpu, block) ? SOFT_OK : SOFT_AGAIN;
	}
	return make(vcpu, &page, mode, ret_block);
}

void soft_block_link(struct engine_vcpu *vcpu, uint8_t *site, const struct soft_block *block,
		     uint64_t generation)
{
	struct engine *engine = vcpu->engine;

	/* Others execute it, and see the old distance or the new one (emit_align_field()). */
	assert(((uintptr_t)site + 1) % 8 <= 4);
	pthread_mutex_lock(&engine->lock);
	if (engine->cache->generation == generation)
		emit_patch32(site + 1, block->code);
	pthread_mutex_unlock(&engine->lock);
}

void soft_block_forward(struct engine_vcpu *vcpu, uint8_t *head, const struct soft_block *block,
			uint64_t generation)
{
	struct engine *engine = vcpu->engine;
	const struct soft_block *old;

	pthread_mutex_lock(&engine->lock);
	/*
	 * The page may be another one by now, and others still have this one at that address. Nor
	 * is it known what page they have behind it.
	 */
	if (!block->gpa_behind && engine->cache->generation == generation && block->valid &&
	    soft_record_find(engine, (uintptr_t)head, &old) && old->head == head && !old->valid &&
	    old->narrowed && old->gpa == block->gpa && old->mode == block->mode)
		emit_patch32(head + 1, block->code);
	pthread_mutex_unlock(&engine->lock);
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
	__atomic_store_n((uint64_t *)(void *)block->head, first, __ATOMIC_SEQ_CST);
}
