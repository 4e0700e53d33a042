/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows: see window.h.
 *
 * The way of a pin that finds something missing, from the io thread's side to the right:
 *
 *	window_pin()  gates of all pages; one is shut
 *	  |           all gates are left again: who waits keeps nothing
 *	  |           an asker, one of a few actors, gets the list and goes round the shards:
 *	  |                page after page: coh_stall(), wait for its end, open the gate
 *	  |                meanwhile coh_fetch() of the others, so that they are on their way
 *	  '- -EAGAIN  when the last page has been here: DONE, and the io thread is told
 *	window_pin()  again; what the asker stalled for is held for it as for a vCPU
 *
 * So an asker is as an actor whose instruction needs many pages, and progress is the page protocol's
 * (docs/protocol.md): the oldest keeps what it gets. Beyond COH_HOLDS pages that is not so; but nobody
 * has to have more than one page at a time (core/dma.h).
 *
 * A page whose taking has been put off because it is pinned is not asked for before it is gone: else
 * who pins again and again would keep it for ever.
 *
 * Tested in tests/memory/test_window.c.
 */
#include "pager/window.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "pager/shard.h"

#define NOBODY UINT32_MAX

/* --- the io thread --- */

static struct shard *shard_of(struct pager *pager, uint64_t gpn)
{
	return &pager->shard[guest_memory_shard(pager->config.memory, gpn)];
}

static enum coh_access access_of(const struct dma_span *span)
{
	return span->write ? COH_WRITE : COH_READ;
}

static uint64_t first_page(const struct dma_span *span)
{
	return span->gpa >> PAGE_SHIFT;
}

static uint64_t page_count(const struct dma_span *span)
{
	return ((span->gpa + span->length - 1) >> PAGE_SHIFT) - (span->gpa >> PAGE_SHIFT) + 1;
}

/* The last user of a page that somebody waits for has left. */
static void tell_unpinned(struct pager *pager, uint64_t gpn)
{
	struct shard *shard = shard_of(pager, gpn);
	struct unpinned *ring = &pager->windows.unpinned[shard->index];
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	struct pager_command command = { .kind = PAGER_UNPINNED };

	if (tail - atomic_load_explicit(&ring->head, memory_order_acquire) < UNPINNED_MAX) {
		ring->gpn[tail % UNPINNED_MAX] = gpn;
		atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	}
	if (!atomic_exchange(&ring->posted, true))
		(void)pager_queue_post(&shard->queue, &command);
}

static void leave_pages(struct pager *pager, const struct dma_span *span, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t gpn = first_page(span) + i;

		if (gate_leave(&pager->windows.gates, gpn, access_of(span)))
			tell_unpinned(pager, gpn);
	}
}

/* How many of the span's pages were entered. */
static uint64_t enter_pages(struct pager *pager, const struct dma_span *span)
{
	uint64_t count = page_count(span);

	for (uint64_t i = 0; i < count; i++)
		if (!gate_enter(&pager->windows.gates, first_page(span) + i, access_of(span)))
			return i;
	return count;
}

static bool enter_spans(struct pager *pager, const struct dma_span *span, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t entered = enter_pages(pager, &span[i]);

		if (entered == page_count(&span[i]))
			continue;
		leave_pages(pager, &span[i], entered);
		while (i-- > 0)
			leave_pages(pager, &span[i], page_count(&span[i]));
		return false;
	}
	return true;
}

/* What is missing, as far as the list goes. */
static void list_missing(struct asker *asker, const struct gates *gates,
			 const struct dma_span *span, uint32_t count)
{
	asker->count = 0;
	for (uint32_t i = 0; i < count; i++) {
		for (uint64_t page = 0; page < page_count(&span[i]); page++) {
			uint64_t gpn = first_page(&span[i]) + page;

			if (gate_access(gates, gpn) >= access_of(&span[i]) &&
			    !gate_wanted(gates, gpn))
				continue;
			asker->page[asker->count++] = (struct ask_page){ gpn, access_of(&span[i]) };
			if (asker->count == ASK_PAGES_MAX)
				return;
		}
	}
}

static void asker_free(struct pager *pager, struct asker *asker)
{
	coh_actors_idle(pager->coh_actors, asker->actor, true);
	asker->window->asker = NULL;
	asker->window = NULL;
	atomic_store_explicit(&asker->state, ASKER_FREE, memory_order_relaxed);
}

/* One that is free, or whose window was told and did not come back. */
static struct asker *asker_find(struct pager *pager)
{
	struct asker *told = NULL;

	for (uint32_t i = 0; i < pager->actors.asker_count; i++) {
		struct asker *asker = &pager->windows.asker[i];
		unsigned int state = atomic_load_explicit(&asker->state, memory_order_acquire);

		if (state == ASKER_FREE)
			return asker;
		if (state == ASKER_TOLD)
			told = asker;
	}
	if (told)
		asker_free(pager, told);
	return told;
}

static void queue_for_asker(struct pager *pager, struct pager_window *window)
{
	struct pager_windows *windows = &pager->windows;
	uint32_t index = (uint32_t)(window - windows->window);

	if (window->queued)
		return;
	window->queued = true;
	window->next = NOBODY;
	if (windows->first == NOBODY)
		windows->first = index;
	else
		windows->window[windows->last].next = index;
	windows->last = index;
}

/* Which shards have pages of it gets to know, and the first page's has the turn. */
static void asker_go(struct pager *pager, struct asker *asker)
{
	uint32_t index = (uint32_t)(asker - pager->windows.asker);
	bool concerned[SHARDS_MAX] = { false };
	struct pager_command command = { .kind = PAGER_ASK, .actor = index };
	uint32_t first = guest_memory_shard(pager->config.memory, asker->page[0].gpn);
	uint32_t parts = 1;

	for (uint32_t i = 1; i < asker->count; i++)
		concerned[guest_memory_shard(pager->config.memory, asker->page[i].gpn)] = true;
	for (uint32_t i = 0; i < pager->shard_count; i++)
		parts += concerned[i];
	asker->at = 0;
	asker->stalled = false;
	atomic_store_explicit(&asker->left, parts, memory_order_relaxed);
	atomic_store_explicit(&asker->state, ASKER_ASKS, memory_order_relaxed);
	coh_actors_idle(pager->coh_actors, asker->actor, false);
	/* A pager that stopped answers nothing: then it waits for ever, as everybody does. */
	(void)pager_queue_post(&pager->shard[first].queue, &command);
	command.kind = PAGER_ASK_AHEAD;
	for (uint32_t i = 0; i < pager->shard_count; i++)
		if (concerned[i])
			(void)pager_queue_post(&pager->shard[i].queue, &command);
}

static void ask(struct pager_window *window, const struct dma_span *span, uint32_t count)
{
	struct pager *pager = window->pager;
	struct asker *asker = window->asker;

	if (asker && atomic_load_explicit(&asker->state, memory_order_acquire) != ASKER_TOLD)
		return;
	if (!asker)
		asker = asker_find(pager);
	if (!asker) {
		queue_for_asker(pager, window);
		return;
	}
	asker->window = window;
	window->asker = asker;
	list_missing(asker, &pager->windows.gates, span, count);
	/* All came while we looked: another try is worth it at once. */
	if (asker->count == 0)
		asker->page[asker->count++] =
			(struct ask_page){ first_page(&span[0]), access_of(&span[0]) };
	asker_go(pager, asker);
}

static int judge(const struct pager *pager, const struct dma_span *span, uint32_t count,
		 uint64_t *ret_pages)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (span[i].length == 0 ||
		    !guest_memory_is_ram(pager->config.memory, span[i].gpa, span[i].length))
			return -EFAULT;
		pages += page_count(&span[i]);
	}
	*ret_pages = pages;
	/* Single pages may be more than that already. */
	return pages > 1 && pages + pager->windows.pages > pager->windows.pages_max ? -ENOBUFS : 0;
}

static int window_pin(struct dma *dma, const struct dma_span *span, uint32_t count, void **ret_hva)
{
	struct pager_window *window = (struct pager_window *)dma;
	struct pager *pager = window->pager;
	uint8_t *base = guest_memory_base(pager->config.memory);
	uint64_t pages;
	int error = judge(pager, span, count, &pages);

	if (error < 0)
		return error;
	if (!enter_spans(pager, span, count)) {
		ask(window, span, count);
		return -EAGAIN;
	}
	if (window->asker &&
	    atomic_load_explicit(&window->asker->state, memory_order_relaxed) == ASKER_TOLD)
		asker_free(pager, window->asker);
	pager->windows.pages += (uint32_t)pages;
	for (uint32_t i = 0; i < count; i++)
		ret_hva[i] = base + span[i].gpa;
	return 0;
}

/* What was made of the contents that the device has changed is void before anybody hears of it. */
static void window_unpin(struct dma *dma, const struct dma_span *span, uint32_t count)
{
	struct pager *pager = ((struct pager_window *)dma)->pager;

	for (uint32_t i = 0; i < count; i++) {
		if (span[i].write && pager->config.lost)
			pager->config.lost(pager->config.arg, span[i].gpa, span[i].length);
		leave_pages(pager, &span[i], page_count(&span[i]));
		pager->windows.pages -= (uint32_t)page_count(&span[i]);
	}
}

static const struct dma_ops window_ops = { .pin = window_pin, .unpin = window_unpin };

struct dma *pager_window(struct pager *pager, uint32_t index)
{
	return index < pager->windows.window_count ? &pager->windows.window[index].dma : NULL;
}

uint32_t pager_window_ready(struct pager *pager)
{
	struct pager_windows *windows = &pager->windows;

	for (uint32_t i = 0; i < pager->actors.asker_count; i++) {
		struct asker *asker = &windows->asker[i];

		if (atomic_load_explicit(&asker->state, memory_order_acquire) != ASKER_DONE)
			continue;
		atomic_store_explicit(&asker->state, ASKER_TOLD, memory_order_relaxed);
		return (uint32_t)(asker->window - windows->window);
	}
	if (windows->first != NOBODY && asker_find(pager)) {
		uint32_t index = windows->first;

		windows->first = windows->window[index].next;
		windows->window[index].queued = false;
		return index;
	}
	return NOBODY;
}

/* --- the shards' threads --- */

static void part_done(struct pager *pager, struct asker *asker)
{
	if (atomic_fetch_sub_explicit(&asker->left, 1, memory_order_acq_rel) != 1)
		return;
	atomic_store_explicit(&asker->state, ASKER_DONE, memory_order_release);
	if (pager->config.window_ready)
		pager->config.window_ready(pager->config.arg);
}

/* Nobody opens the gate of a page that was here all the time and closed in vain. */
static int reopen(struct shard *shard, uint64_t gpn)
{
	struct gates *gates = &shard->pager->windows.gates;
	enum coh_access access = coh_access(shard->coh, gpn);
	int error = plan_settle(&shard->plan);

	if (error == 0 && access != COH_NONE && !gate_wanted(gates, gpn)) {
		gate_allow(gates, gpn, access);
		gate_open(gates, gpn, access);
	}
	return error;
}

/* One page after the other, from where it is, as far as it goes without waiting. */
static void advance(struct shard *shard, struct asker *asker)
{
	struct pager *pager = shard->pager;
	uint32_t index = (uint32_t)(asker - pager->windows.asker);

	while (!shard->failed && asker->at < asker->count) {
		const struct ask_page *page = &asker->page[asker->at];
		struct shard *other = shard_of(pager, page->gpn);
		int error;

		if (other != shard) {
			struct pager_command command = { .kind = PAGER_ASK, .actor = index };

			(void)pager_queue_post(&other->queue, &command);
			return;
		}
		if (!asker->stalled) {
			if (gate_wanted(&pager->windows.gates, page->gpn)) {
				shard->ask_blocked[index] = shard->asks_due = true;
				return;
			}
			asker->stalled = true;
			if (coh_access(shard->coh, page->gpn) < page->want)
				shard_stall(shard, asker->actor, page->gpn, page->want);
		}
		if (shard->failed || shard->wait[asker->actor].waiting)
			return;
		shard->ask_woken[index] = false;
		error = reopen(shard, page->gpn);
		if (error < 0) {
			shard_plan_failed(shard, error);
			return;
		}
		asker->stalled = false;
		asker->at++;
	}
	if (!shard->failed)
		part_done(pager, asker);
}

/* The pages behind the first are on their way while that is waited for. */
static void fetch_ahead(struct shard *shard, struct asker *asker)
{
	for (uint32_t i = 1; i < asker->count && !shard->failed; i++) {
		const struct ask_page *page = &asker->page[i];

		if (shard_of(shard->pager, page->gpn) == shard)
			shard_fetch(shard, page->gpn, page->want);
	}
	if (!shard->failed)
		part_done(shard->pager, asker);
}

static void take_unpinned(struct shard *shard)
{
	struct unpinned *ring = &shard->pager->windows.unpinned[shard->index];
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	atomic_store(&ring->posted, false);
	while (head != atomic_load_explicit(&ring->tail, memory_order_acquire) && !shard->failed) {
		uint64_t gpn = ring->gpn[head % UNPINNED_MAX];

		atomic_store_explicit(&ring->head, ++head, memory_order_release);
		shard_unpinned(shard, gpn);
	}
}

void shard_window_command(struct shard *shard, const struct pager_command *command)
{
	struct asker *asker = &shard->pager->windows.asker[command->actor];

	if (command->kind == PAGER_UNPINNED)
		take_unpinned(shard);
	else if (command->kind == PAGER_ASK)
		advance(shard, asker);
	else
		fetch_ahead(shard, asker);
}

static uint32_t first_asker(const struct pager *pager)
{
	return pager->actors.vcpu_count + pager->actors.port_count;
}

void shard_window_woken(struct shard *shard, uint32_t actor)
{
	uint32_t first = first_asker(shard->pager);

	if (actor >= first && actor - first < shard->pager->actors.asker_count) {
		shard->ask_woken[actor - first] = true;
		shard->asks_due = true;
	}
}

/* After everything else of a pass: whose page came, and whose page is not wanted by others now. */
void shard_windows_step(struct shard *shard)
{
	struct pager *pager = shard->pager;

	for (uint32_t i = 0; i < pager->actors.asker_count && !shard->failed; i++) {
		struct asker *asker = &pager->windows.asker[i];

		if (shard->ask_woken[i] || shard->ask_blocked[i]) {
			shard->ask_woken[i] = shard->ask_blocked[i] = false;
			advance(shard, asker);
		}
	}
	shard->asks_due = false;
	for (uint32_t i = 0; i < pager->actors.asker_count; i++)
		shard->asks_due |= shard->ask_woken[i] || shard->ask_blocked[i];
}

/* --- life --- */

int pager_windows_init(struct pager *pager)
{
	struct pager_windows *windows = &pager->windows;
	const struct pager_config *config = &pager->config;
	uint64_t pages = config->capacity_bytes / PAGE_BYTES / 8;

	windows->first = NOBODY;
	if (config->window_count == 0)
		return 0;
	windows->window_count = config->window_count;
	windows->pages_max = pages < WINDOW_PAGES_MAX ? (uint32_t)pages : WINDOW_PAGES_MAX;
	windows->window = calloc(config->window_count, sizeof(*windows->window));
	windows->asker = calloc(pager->actors.asker_count, sizeof(*windows->asker));
	windows->unpinned = calloc(pager->shard_count, sizeof(*windows->unpinned));
	if (!windows->window || !windows->asker || !windows->unpinned)
		return -ENOMEM;
	for (uint32_t i = 0; i < config->window_count; i++)
		windows->window[i] =
			(struct pager_window){ .dma.ops = &window_ops, .pager = pager };
	for (uint32_t i = 0; i < pager->actors.asker_count; i++)
		windows->asker[i].actor = first_asker(pager) + i;
	return gates_create(&windows->gates, guest_memory_top(config->memory) >> PAGE_SHIFT);
}

void pager_windows_fini(struct pager *pager)
{
	gates_destroy(&pager->windows.gates);
	free(pager->windows.window);
	free(pager->windows.asker);
	free(pager->windows.unpinned);
}
