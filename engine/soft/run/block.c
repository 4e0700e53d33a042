/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting from a guest address to a block: found in the cache, or decoded and translated now; and
 * blocks that are linked to each other or made anew.
 */
#include "engine/soft/run/block.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "engine/soft/cache/code_page.h"
#include "engine/soft/cache/pause.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/extended.h"
#include "engine/soft/cpu/mmu.h"
#include "engine/soft/insn/decode.h"
#include "engine/soft/insn/emit_jump.h"
#include "engine/soft/tlb/doors.h"
#include "engine/soft/tlb/tlb.h"
#include "engine/soft/translate/translator.h"

#define FETCH_BYTES 240u

/*
 * A leader that fails so many times, at an edge of two pages, with no more ticks of the TSC from one
 * to the next on average, is made anew for neighbours that are nearer to each other.
 */
#define SPLITS_MAX   20u
#define SPLITS_TICKS 10000u

uint8_t soft_mode(const struct engine_vcpu *vcpu)
{
	return (uint8_t)(vcpu->view | (vcpu->no_vector ? MODE_NO_VECTOR : 0) |
			 (vcpu->no_avx ? MODE_NO_AVX : 0));
}

static void make_room(struct engine_vcpu *vcpu)
{
	struct engine *engine = vcpu->engine;

	if (!soft_cache_is_full(engine))
		return;
	soft_pause_others(vcpu, UINT64_MAX);
	if (soft_cache_is_full(engine))
		soft_cache_empty(vcpu);
	soft_resume_others(vcpu);
}

_Static_assert(4 * BLOCK_INSNS_MAX + 8 <= SOFT_RECORDS_MAX, "instructions with a few records each");
_Static_assert(SOFT_PARTS_MAX == SOFT_FOLLOWED_MAX + 1, "one more than jumps between them");
_Static_assert(sizeof(struct soft_insn) <= SOFT_KEPT_MAX, "what keep() keeps");

/* What is about to become a block. */
struct source {
	uint64_t gpa, gpa_behind;
	uint32_t version[2], count, bytes, side_exits, parts;
	struct soft_part part[SOFT_PARTS_MAX];
	int16_t offset[BLOCK_INSNS_MAX]; /* from rip */
	uint8_t mode;
	bool crossing_next;
};

static uint32_t in_page(uint64_t linear)
{
	return (uint32_t)(linear & (PAGE_BYTES - 1));
}

/* Is that place of the page in what has been decoded, but for the part that grows? */
static bool is_decoded(const struct source *source, uint32_t at, uint32_t parts)
{
	for (uint32_t i = 0; i < parts; i++)
		if (at >= source->part[i].first && at < source->part[i].end)
			return true;
	return false;
}

/* Does the block go on where the jump that ends at `end` of the page leads? Not round in circles.
 */
static bool follow(struct source *source, const struct soft_insn *insn, uint32_t end)
{
	uint64_t target = end + insn->op[0].imm.value.u;

	if (!soft_insn_may_be_followed(insn) || source->parts == SOFT_FOLLOWED_MAX + 1 ||
	    target >= PAGE_BYTES || is_decoded(source, (uint32_t)target, source->parts))
		return false;
	source->part[source->parts].first = source->part[source->parts].end = (uint16_t)target;
	source->parts++;
	return true;
}

/* How the block goes on behind an instruction that may end it. */
static bool ends(struct engine_vcpu *vcpu, struct source *source, const struct soft_insn *insn,
		 uint32_t end)
{
	if (!soft_insn_ends_block(insn, source->mode) || follow(source, insn, end))
		return false;
	return !soft_insn_may_be_passed(insn, vcpu->rip, (int32_t)(end - in_page(vcpu->rip))) ||
	       ++source->side_exits > SOFT_SIDE_EXITS_MAX;
}

/* One part, up to a jump that leads to another, or to the block's end (true). */
static bool decode_part(struct engine_vcpu *vcpu, const uint8_t *bytes, uint32_t size,
			struct source *source)
{
	uint32_t last = source->parts - 1, offset = 0;

	while (source->count < BLOCK_INSNS_MAX && offset < size && source->parts == last + 1) {
		struct soft_insn *insn = &vcpu->insns[source->count];
		uint32_t at = source->part[last].first + offset;
		int err;

		if (is_decoded(source, at, last))
			return true;
		err = soft_decode(vcpu->engine->offer, CODE_64, bytes + offset, size - offset,
				  insn);
		source->crossing_next =
			err == -ENODATA && source->part[last].first + size == PAGE_BYTES;
		if (err)
			return true;
		source->offset[source->count++] = (int16_t)(at - in_page(vcpu->rip));
		offset += insn->length;
		source->part[last].end = (uint16_t)(at + insn->length);
		source->bytes += insn->length;
		if (ends(vcpu, source, insn, at + insn->length))
			return true;
	}
	return source->parts == last + 1;
}

/*
 * Decodes up to the block's end, or the page's. 0 instructions: the first reaches into the next;
 * then what there is of it is in bytes.
 */
static void decode_block(struct engine_vcpu *vcpu, const uint8_t *page, uint8_t *bytes,
			 struct source *source)
{
	uint32_t size;
	bool end = false;

	source->part[0].first = source->part[0].end = (uint16_t)in_page(vcpu->rip);
	source->parts = 1;
	while (!end) {
		uint32_t first = source->part[source->parts - 1].first;

		size = PAGE_BYTES - first;
		if (size > FETCH_BYTES - source->bytes)
			size = FETCH_BYTES - source->bytes;
		soft_copy(bytes, page + first, size);
		end = decode_part(vcpu, bytes, size, source);
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
	if (soft_decode(vcpu->engine->offer, CODE_64, bytes, INSN_BYTES_MAX, vcpu->insns) ||
	    vcpu->insns->length <= size)
		return false;
	source->count = 1;
	source->offset[0] = 0;
	source->part[0].end = PAGE_BYTES;
	source->crossing_next = false;
	return true;
}

/* What C has to step is kept decoded, with the operands that it has. Lock held. */
static const struct soft_insn *keep(struct engine *engine, const struct soft_insn *insn)
{
	uint32_t operands = insn->z.operand_count < 3 ? 3 : insn->z.operand_count;

	if (operands > INSN_OPERANDS)
		return NULL;
	return soft_cache_keep(engine, insn,
			       offsetof(struct soft_insn, op) + operands * sizeof(insn->op[0]));
}

void soft_block_split(struct engine_vcpu *vcpu, uint64_t host, uint32_t reach, bool counted)
{
	struct engine *engine = vcpu->engine;
	const struct soft_block *found;
	uint64_t now = __builtin_ia32_rdtsc(), before, leader;
	uint32_t place;

	if (!soft_record_find(engine, host, &found))
		return;
	leader = found->gpa + SOFT_REACH_OFFSET(reach);
	place = soft_split_place(leader);
	if (!counted)
		vcpu->split_left[place]--;
	if ((int32_t)vcpu->split_left[place] >= 0)
		return;
	before = vcpu->split_at[place];
	vcpu->split_left[place] = SPLITS_MAX;
	vcpu->split_at[place] = now;
	if (now - before >= SPLITS_MAX * SPLITS_TICKS)
		return;
	pthread_mutex_lock(&engine->lock);
	soft_cache_narrow_more(engine, leader, (uint8_t)SOFT_REACH_NARROW(reach));
	((struct soft_block *)(uintptr_t)found)->narrowed = true;
	soft_block_invalidate(engine, (struct soft_block *)(uintptr_t)found);
	pthread_mutex_unlock(&engine->lock);
}

/* Lock held. */
static struct soft_block *translate(struct engine_vcpu *vcpu, struct source *source,
				    struct soft_translation *ret_translation)
{
	struct engine *engine = vcpu->engine;
	struct soft_room room = soft_cache_room(engine);
	struct soft_block *block = room.block;
	struct soft_translation t = { .vcpu = vcpu,
				      .insn = vcpu->insns,
				      .offset = source->offset,
				      .count = source->count,
				      .rip = vcpu->rip,
				      .gpa = source->gpa,
				      .mode = source->mode,
				      .first_door = engine->door_count,
				      .crossing_next = source->crossing_next,
				      .at = room.at,
				      .end = room.end,
				      .alias = soft_cache_alias(engine),
				      .record = block->record,
				      .record_max = room.record_max };

	if (soft_insn_is_stepped(&vcpu->insns[source->count - 1], source->mode))
		t.known = keep(engine, &vcpu->insns[source->count - 1]);
	/* It does not fit, or has more records than there may be: a shorter one. */
	while (!soft_translate_block(&t)) {
		if (source->count == 1)
			return NULL;
		source->crossing_next = t.crossing_next = false;
		t.count = source->count /= 2;
	}
	/* Who is behind the head goes on there, so no instruction may begin in what is changed. */
	assert(soft_host_length(engine->offer, t.head) >= 5);
	*block = (struct soft_block){ .rip = vcpu->rip,
				      .gpa = source->gpa,
				      .gpa_behind = source->gpa_behind,
				      .code = room.at,
				      .entry = t.entry,
				      .head = t.head,
				      .stale = t.stale,
				      .code_bytes = t.code_bytes,
				      .record_count = (uint16_t)t.record_count,
				      .mode = source->mode,
				      .valid = true };
	memcpy(block->part, source->part, sizeof(block->part));
	*ret_translation = t;
	return block;
}

static int make(struct engine_vcpu *vcpu, const struct soft_page *page, uint8_t mode,
		struct soft_block **ret_block)
{
	struct engine *engine = vcpu->engine;
	struct source source = { .gpa = soft_memory_gpa(engine, page->host), .mode = mode };
	uint32_t size = PAGE_BYTES - in_page(vcpu->rip);
	uint8_t bytes[FETCH_BYTES];
	struct soft_translation translation;
	struct soft_block *block;
	bool known = false;

	soft_fpu_release(vcpu);
	make_room(vcpu);
	if (soft_code_begin(vcpu, source.gpa, &source.version[0]))
		return SOFT_AGAIN;
	decode_block(vcpu, page->host - in_page(vcpu->rip), bytes, &source);
	if (source.count == 0 &&
	    (!source.crossing_next || !decode_crossing(vcpu, bytes, size, &source)))
		return SOFT_AGAIN;
	pthread_mutex_lock(&engine->lock);
	block = soft_cache_is_full(engine) ? NULL : translate(vcpu, &source, &translation);
	if (block)
		known = soft_code_insert(engine, block, source.version);
	for (uint32_t i = 0; known && i < translation.door_count; i++)
		soft_door_make(engine, translation.door_way_out[i]);
	if (known)
		soft_cache_publish(engine, block);
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
	block = soft_cache_find(vcpu->engine, soft_memory_gpa(vcpu->engine, page.host), vcpu->rip,
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
	if (soft_cache_generation(engine) == generation)
		soft_cache_patch(engine, site + 1, block->entry);
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
	if (!block->gpa_behind && soft_cache_generation(engine) == generation && block->valid &&
	    soft_record_find(engine, (uintptr_t)head, &old) && old->head == head && !old->valid &&
	    old->narrowed && old->gpa == block->gpa && old->mode == block->mode)
		soft_cache_patch(engine, head + 1, block->entry);
	pthread_mutex_unlock(&engine->lock);
}
