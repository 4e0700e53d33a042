/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving: a node gives away everything it holds while the guest goes on.
 *
 * Copies are dropped, owned and kept pages pushed (coherence_capacity.c takes every kept page for
 * wanted away), homes handed on one chunk at a time to whoever has most of its pages and stays, then
 * the registrar's slots (coherence_member.c). Requests that are under way end first. The node goes on
 * to answer with NOT_HOME for as long as its struct coh is fed messages; what it still holds at the
 * end is nothing.
 *
 * Tested in tests/core/test_coherence_homes.c.
 */
#include "core/coherence_state.h"

/* Copies that nothing binds go at once. */
static void release_copies(struct coh *coh, struct coh_out *out)
{
	uint32_t index = coh->copies.head;

	for (uint32_t i = 0; index && i < COH_SCAN && coh_room(coh, out); i++) {
		uint64_t gpn = index - 1;
		const struct coh_page *page = coh_page_of(coh, gpn);

		index = page->next;
		if (page->pending || page->taking || (page->flags & PAGE_PUSHING) ||
		    coh_pinned(coh, gpn) || coh_home_asked_self(coh, gpn) ||
		    !coh_close(coh, gpn, COH_NONE, true))
			continue;
		coh_give_up(coh, gpn, out);
		coh->stats.evict_drop_count++;
	}
}

static bool may_have_homes(const struct coh *coh, uint16_t node)
{
	return node != coh->config.self && member_set_has(&coh->stay, node) &&
	       !coh_bit(coh->leaving_nodes, node);
}

/* Whoever has most of the chunk's pages, and stays: it will ask most. Nobody has: the next number. */
static uint16_t heir_of(const struct coh *coh, uint64_t chunk)
{
	const struct coh_directory *dir = coh->chunk[chunk].dir;
	uint32_t pages[NODES_MAX] = { 0 }, most = 0;
	uint16_t heir = NODE_NONE;

	for (uint32_t i = 0; i < CHUNK_PAGES; i++)
		if (dir->entry[i].state != DIR_UNTOUCHED)
			pages[dir->entry[i].node]++;
	for (uint32_t k = 1; k < coh->config.node_count; k++) {
		uint16_t node = (uint16_t)((coh->config.self + k) % coh->config.node_count);

		if (!may_have_homes(coh, node) || (heir != NODE_NONE && pages[node] <= most))
			continue;
		heir = node;
		most = pages[node];
	}
	return heir;
}

static void release_homes(struct coh *coh)
{
	if (coh->move.phase)
		return;
	for (uint32_t i = 0; i < COH_SCAN && coh->release_cursor < coh->chunk_count; i++) {
		uint64_t chunk = coh->release_cursor;
		uint16_t heir;

		if (!coh->chunk[chunk].dir || coh->chunk[chunk].stale) {
			coh->release_cursor++;
			continue;
		}
		heir = heir_of(coh, chunk);
		if (heir != NODE_NONE)
			coh_chunk_move(coh, chunk, heir);
		return;
	}
}

void coh_release_pump(struct coh *coh, struct coh_out *out)
{
	if (!coh->releasing)
		return;
	release_copies(coh, out);
	release_homes(coh);
}

int coh_release_all(struct coh *coh, uint64_t now_ns, struct coh_out *out)
{
	coh->releasing = true;
	coh->release_cursor = 0;
	return coh_tick(coh, now_ns, out);
}

int coh_release_cancel(struct coh *coh, uint64_t now_ns, struct coh_out *out)
{
	if (!coh_broken(coh, COH_BROKEN_CANCEL_HALF))
		coh->releasing = false;
	return coh_tick(coh, now_ns, out);
}

bool coh_released(const struct coh *coh)
{
	return coh->releasing && !coh->used && !coh->stats.chunks_homed && !coh->pending_count &&
	       !coh->asked_count && !coh->move.phase && !coh->push_count && !coh->room_asked &&
	       !coh->room_count && !coh->freeing_count && coh->release_cursor >= coh->chunk_count &&
	       coh_member_released(coh);
}
