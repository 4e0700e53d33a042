/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freeing: see free.h.
 *
 * Every shard goes through all ranges, takes the pages of its own in groups as the page protocol
 * wants them, and has a few groups under way at a time. Where a chunk's home is this node that needs
 * no message, so a pass does a few groups and then lets others have their turn. The last shard tells
 * the io thread, when the memory is given back.
 *
 * Tested in tests/memory/test_free.c.
 */
#include "pager/free.h"

#include <assert.h>
#include <errno.h>

#include "pager/shard.h"

/* Groups that a pass begins with at most. */
#define GROUPS_PER_PASS 4u

/* --- the io thread --- */

/* Whole pages of it; false: there are none, or it is not all memory. */
static bool range_of(const struct pager *pager, const struct dma_span *span,
		     struct frees_range *ret_range)
{
	uint64_t first = (span->gpa + PAGE_BYTES - 1) >> PAGE_SHIFT;

	if (span->length < PAGE_BYTES ||
	    !guest_memory_is_ram(pager->config.memory, span->gpa, span->length))
		return false;
	*ret_range = (struct frees_range){ first, (span->gpa + span->length) >> PAGE_SHIFT };
	return ret_range->first < ret_range->end;
}

int pager_free(struct pager *pager, const struct dma_span *span, uint32_t count)
{
	struct pager_frees *frees = &pager->frees;
	struct pager_command command = { .kind = PAGER_FREE };

	if (count == 0 || count > PAGER_FREE_RANGES)
		return -EINVAL;
	if (atomic_load_explicit(&frees->state, memory_order_relaxed) != FREES_IDLE)
		return -EBUSY;
	frees->count = 0;
	for (uint32_t i = 0; i < count; i++)
		frees->count += range_of(pager, &span[i], &frees->range[frees->count]);
	atomic_store_explicit(&frees->left, pager->shard_count, memory_order_relaxed);
	atomic_store_explicit(&frees->state, FREES_BUSY, memory_order_relaxed);
	/* A pager that stopped frees nothing: then it is never over, as everything else. */
	for (uint32_t i = 0; i < pager->shard_count; i++)
		(void)pager_queue_post(&pager->shard[i].queue, &command);
	return 0;
}

bool pager_freed(struct pager *pager)
{
	struct pager_frees *frees = &pager->frees;

	if (atomic_load_explicit(&frees->state, memory_order_acquire) != FREES_OVER)
		return false;
	atomic_store_explicit(&frees->state, FREES_IDLE, memory_order_relaxed);
	return true;
}

void pager_free_allow(struct pager *pager, bool allowed)
{
	atomic_store(&pager->frees.stopped, !allowed);
}

/* --- the shards' threads --- */

void shard_free_begin(struct shard *shard)
{
	struct shard_free *f = &shard->free;

	assert(!f->active);
	*f = (struct shard_free){ .active = true, .due = true, .posted = f->posted };
}

/* Where all is over meanwhile it says nothing: the pages are the guest's again. */
void shard_free_on(struct shard *shard)
{
	shard->free.posted = false;
	shard->free.due = shard->free.active;
}

void shard_free_over(struct shard *shard)
{
	shard->free.under_way--;
	shard->free.due = true;
	shard->ended = true;
}

/* The next group of this shard's, and which of its pages. False: there are no more. */
static bool next_group(struct shard *shard, uint64_t *ret_first, uint64_t *ret_mask)
{
	const struct pager_frees *frees = &shard->pager->frees;
	struct shard_free *f = &shard->free;

	if (atomic_load(&frees->stopped))
		f->range = frees->count;
	for (; f->range < frees->count; f->range++, f->gpn = 0) {
		const struct frees_range *range = &frees->range[f->range];

		if (f->gpn < range->first)
			f->gpn = range->first;
		while (f->gpn < range->end &&
		       guest_memory_shard(shard->plan.memory, f->gpn) != shard->index)
			f->gpn = (f->gpn / CHUNK_PAGES + 1) * CHUNK_PAGES;
		if (f->gpn < range->end) {
			uint64_t first = f->gpn / COH_FREE_PAGES * COH_FREE_PAGES;
			uint64_t end = first + COH_FREE_PAGES;

			if (end > range->end)
				end = range->end;
			*ret_first = first;
			*ret_mask = (UINT64_MAX << (f->gpn - first)) &
				    (UINT64_MAX >> (COH_FREE_PAGES - (end - first)));
			f->gpn = end;
			return true;
		}
	}
	return false;
}

/* All that this shard has of it is over, and the memory given back. */
static void part_over(struct shard *shard)
{
	struct pager *pager = shard->pager;
	int error = plan_settle(&shard->plan);

	if (error < 0) {
		shard_plan_failed(shard, error);
		return;
	}
	shard->free.active = false;
	if (atomic_fetch_sub_explicit(&pager->frees.left, 1, memory_order_acq_rel) != 1)
		return;
	atomic_store_explicit(&pager->frees.state, FREES_OVER, memory_order_release);
	if (pager->config.window_ready)
		pager->config.window_ready(pager->config.arg);
}

void shard_free_step(struct shard *shard)
{
	struct shard_free *f = &shard->free;
	struct pager_command again = { .kind = PAGER_FREE_ON };
	uint64_t first, mask;

	f->due = false;
	if (!f->active)
		return;
	for (uint32_t i = 0; i < GROUPS_PER_PASS; i++) {
		if (f->under_way == COH_FREES)
			return;
		if (!next_group(shard, &first, &mask)) {
			if (f->under_way == 0)
				part_over(shard);
			return;
		}
		f->under_way++;
		shard_free(shard, first, mask);
		if (shard->failed)
			return;
	}
	/* Those that were over at once have set `due`, but then the thread would not look elsewhere. */
	f->due = false;
	if (!f->posted)
		(void)pager_queue_post(&shard->queue, &again);
	f->posted = true;
}
