/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest pages that hold translated code, and writes to them.
 *
 *   plain -> marking -> code -> plain
 *
 * No vCPU has a writable TLB entry for a page that is `marking` or `code`: a write goes to C, which
 * does it and then says so here. Marking takes entries away that are already there. `writers` says
 * which vCPUs may have one; filler and marker agree by order:
 *
 *   filler: writers |= me, then looks at state      marker: state := marking, then looks at writers
 *
 * Every write raises the page's version, and so does marking, for those that went unseen. A
 * translation begins with noting the version, then copies the bytes, and is dropped if the version
 * has changed when it is to be made known. So there is no moment at which old bytes can become a
 * lasting translation.
 *
 * A page that is written again and again (data beside code, a page put to another use) becomes
 * plain: its blocks go, and it is fast to write until code is translated from it again.
 *
 * An instruction across pages is a block of its own, known to both.
 */
#include "engine/soft/cache/cache.h"

#include <errno.h>
#include <sys/mman.h>

#include "engine/soft/cache/code_page.h"
#include "engine/soft/cache/pause.h"
#include "engine/soft/tlb/tlb.h"

enum state { PAGE_PLAIN, PAGE_MARKING, PAGE_CODE };

#define WRITES_MAX 32u

struct soft_code_page {
	struct soft_block *blocks;
	struct soft_block *behind; /* of the page before, with an instruction that reaches here */
	_Atomic uint64_t writers;
	_Atomic uint32_t version;
	_Atomic uint8_t state;
	uint8_t writes; /* since the last translation */
};

int soft_code_add_memory(struct engine *engine, uint32_t range)
{
	struct soft_memory *memory = &engine->memory[range];
	size_t bytes = memory->bytes / PAGE_BYTES * sizeof(struct soft_code_page);
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (pages == MAP_FAILED)
		return -errno;
	memory->pages = pages;
	return 0;
}

uint64_t soft_code_kept_bytes(uint64_t guest_bytes)
{
	return guest_bytes / PAGE_BYTES * sizeof(struct soft_code_page);
}

void soft_code_remove_memory(struct engine *engine)
{
	for (uint32_t i = 0; i < engine->memory_count; i++)
		if (engine->memory[i].pages)
			munmap(engine->memory[i].pages, engine->memory[i].bytes / PAGE_BYTES *
								sizeof(struct soft_code_page));
}

static struct soft_code_page *page_of(const struct engine *engine, uint64_t gpa)
{
	for (uint32_t i = 0; i < engine->memory_count; i++) {
		const struct soft_memory *memory = &engine->memory[i];

		if (gpa - memory->gpa < memory->bytes)
			return &memory->pages[(gpa - memory->gpa) / PAGE_BYTES];
	}
	return NULL;
}

bool soft_code_allow_write(struct engine_vcpu *vcpu, uint64_t gpa)
{
	struct soft_code_page *page = page_of(vcpu->engine, gpa);
	uint64_t bit = BIT64(vcpu->number % 64);

	if (!(atomic_load(&page->writers) & bit))
		atomic_fetch_or(&page->writers, bit);
	return atomic_load(&page->state) == PAGE_PLAIN;
}

/* Takes away every writable entry for the page. */
static void take_write_access(struct engine_vcpu *vcpu, struct soft_code_page *page, uint64_t gpa)
{
	struct engine *engine = vcpu->engine;
	uint64_t writers = atomic_exchange(&page->writers, 0), me = BIT64(vcpu->number % 64);
	const uint8_t *host = soft_memory_host(engine, gpa);

	if (writers & me)
		soft_tlb_forget_write(vcpu, host);
	/* Numbers modulo 64 may be shared, so others of the same bit count too. */
	if (!(writers & ~me) && engine->vcpu_max <= 64)
		return;
	soft_pause_others(vcpu, writers);
	for (uint32_t i = 0; i < VCPUS_MAX; i++)
		if (engine->vcpu[i] && engine->vcpu[i] != vcpu && (writers >> i % 64 & 1))
			soft_tlb_forget_write(engine->vcpu[i], host);
	soft_resume_others(vcpu);
}

int soft_code_begin(struct engine_vcpu *vcpu, uint64_t gpa, uint32_t *ret_version)
{
	struct soft_code_page *page = page_of(vcpu->engine, gpa);
	uint8_t state = PAGE_PLAIN;

	if (!page)
		return -EFAULT;
	if (atomic_compare_exchange_strong(&page->state, &state, PAGE_MARKING)) {
		take_write_access(vcpu, page, gpa);
		/* It was written without telling us: who noted the version before is late. */
		atomic_fetch_add(&page->version, 1);
		atomic_store(&page->state, PAGE_CODE);
	} else if (state == PAGE_MARKING) {
		return -EBUSY;
	}
	*ret_version = atomic_load(&page->version);
	return 0;
}

static bool is_current(struct soft_code_page *page, uint32_t version)
{
	return page && atomic_load(&page->version) == version &&
	       atomic_load(&page->state) == PAGE_CODE;
}

bool soft_code_insert(struct engine *engine, struct soft_block *block, const uint32_t version[2])
{
	struct soft_code_page *page = page_of(engine, block->gpa), *behind = NULL;

	if (!is_current(page, version[0]))
		return false;
	if (block->gpa_behind) {
		behind = page_of(engine, block->gpa_behind);
		if (!is_current(behind, version[1]))
			return false;
		block->behind_next = behind->behind;
		behind->behind = block;
		behind->writes = 0;
	}
	block->page_next = page->blocks;
	page->blocks = block;
	page->writes = 0;
	return true;
}

static bool overlaps(const struct soft_block *block, uint64_t first, uint64_t bytes)
{
	uint64_t page = block->gpa & ~(uint64_t)(PAGE_BYTES - 1);

	for (uint32_t i = 0; i < SOFT_PARTS_MAX; i++)
		if (page + block->part[i].first < first + bytes &&
		    first < page + block->part[i].end)
			return true;
	return false;
}

/* Lock held. Blocks that overlap [offset, offset + bytes) go. */
static void drop_blocks(struct engine *engine, struct soft_code_page *page, uint64_t first,
			uint64_t bytes)
{
	struct soft_block **link = &page->blocks, *block;

	while ((block = *link)) {
		if (overlaps(block, first, bytes)) {
			*link = block->page_next;
			soft_block_invalidate(engine, block);
		} else {
			link = &block->page_next;
		}
	}
	/* These stay in the list of their first page, invalid. */
	for (block = page->behind; block; block = block->behind_next)
		soft_block_invalidate(engine, block);
	page->behind = NULL;
}

static void make_plain(struct engine *engine, struct soft_code_page *page, uint64_t gpa)
{
	drop_blocks(engine, page, gpa & ~(uint64_t)(PAGE_BYTES - 1), PAGE_BYTES);
	if (atomic_load(&page->state) == PAGE_CODE)
		atomic_store(&page->state, PAGE_PLAIN);
}

void soft_code_written(struct engine_vcpu *vcpu, uint64_t gpa, uint64_t bytes)
{
	struct engine *engine = vcpu->engine;
	struct soft_code_page *page = page_of(engine, gpa);

	pthread_mutex_lock(&engine->lock);
	atomic_fetch_add(&page->version, 1);
	if (bytes >= PAGE_BYTES / 2 || ++page->writes > WRITES_MAX)
		make_plain(engine, page, gpa);
	else
		drop_blocks(engine, page, gpa, bytes);
	pthread_mutex_unlock(&engine->lock);
}

void soft_code_note_write(struct engine_vcpu *vcpu, uint64_t gpa, uint64_t bytes)
{
	if (atomic_load(&page_of(vcpu->engine, gpa)->state) != PAGE_PLAIN)
		soft_code_written(vcpu, gpa, bytes);
}

void soft_page_lost(struct engine *engine, uint64_t gpa, uint64_t bytes)
{
	for (uint64_t at = gpa & ~(uint64_t)(PAGE_BYTES - 1); at < gpa + bytes; at += PAGE_BYTES) {
		struct soft_code_page *page = page_of(engine, at);

		if (!page)
			continue;
		if (atomic_load(&page->state) == PAGE_PLAIN) {
			atomic_fetch_add(&page->version, 1);
			if (atomic_load(&page->state) == PAGE_PLAIN)
				continue;
		}
		pthread_mutex_lock(&engine->lock);
		atomic_fetch_add(&page->version, 1);
		make_plain(engine, page, at);
		pthread_mutex_unlock(&engine->lock);
	}
}

void soft_code_forget(struct engine *engine, const struct soft_block *block)
{
	page_of(engine, block->gpa)->blocks = NULL;
	if (block->gpa_behind)
		page_of(engine, block->gpa_behind)->behind = NULL;
}
