/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving: a node gives away everything it holds while the guest goes on.
 *
 * Copies are dropped, owned and kept pages pushed (coherence_capacity.c takes every kept page for
 * wanted away), homes handed on one chunk at a time to the next node that is not known to leave.
 * Requests that are under way end first. The node goes on to answer as registrar and with NOT_HOME
 * for as long as its struct coh is fed messages; what it still holds at the end is nothing.
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
		    coh_pinned(coh, gpn) || coh_home_asked_self(coh, gpn))
			continue;
		coh_give_up(coh, gpn, out);
		coh->stats.evict_drop_count++;
	}
}

static void release_homes(struct coh *coh)
{
	uint32_t nodes = coh->config.node_count;

	if (coh->move.phase)
		return;
	for (uint32_t i = 0; i < COH_SCAN && coh->release_cursor < coh->chunk_count; i++) {
		uint64_t chunk = coh->release_cursor;

		if (!coh->chunk[chunk].dir || coh->chunk[chunk].stale) {
			coh->release_cursor++;
			continue;
		}
		for (uint32_t k = 1; k < nodes; k++) {
			uint16_t to = (uint16_t)((coh->config.self + k) % nodes);

			if (coh_bit(coh->leaving_nodes, to))
				continue;
			coh_chunk_move(coh, chunk, to);
			return;
		}
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
	return coh_tick(coh, now_ns, out);
}

bool coh_released(const struct coh *coh)
{
	return coh->releasing && !coh->used && !coh->stats.chunks_homed && !coh->pending_count &&
	       !coh->asked_count && !coh->move.phase && !coh->push_count && !coh->room_asked &&
	       !coh->room_count && coh->release_cursor >= coh->chunk_count;
}
