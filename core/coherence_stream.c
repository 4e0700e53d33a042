/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequential accesses: read-ahead, and zero pages in batches.
 *
 * Each actor has a few streams, each a next page expected; a stall on that page (or within what the
 * stream has asked for already) makes the stream longer, any other starts a new one in place of the
 * oldest. What a stream fetches doubles with its length up to the configured bound. Reads ask for
 * the following pages, one request each; a first touch takes following untouched pages of a chunk
 * that is homed here, without a message. Nothing ever reaches beyond the chunk: the next may be
 * another shard's.
 *
 * A long stream of reads goes on by itself as its pages come, up to a few times as far beyond the
 * last stall: otherwise the link would be idle from the last page of a batch to the stall after it.
 *
 * A page taken in a batch is owned and uses memory, so the first touch of a lone page takes one
 * page.
 *
 * Tested in tests/core/test_coherence.c.
 */
#include "core/coherence_state.h"

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The stream that this stall belongs to; the new one's run is 0. */
static struct coh_stream *stream_find(struct coh *coh, uint32_t actor, uint64_t gpn)
{
	struct coh_stream *streams = coh->stream + actor * COH_STREAMS;
	struct coh_stream found = { .next = gpn, .ahead = gpn + 1, .run = 0 };
	uint32_t at = COH_STREAMS - 1;

	for (uint32_t i = 0; i < COH_STREAMS; i++) {
		if (streams[i].next && gpn >= streams[i].next && gpn <= streams[i].ahead) {
			found = streams[i];
			found.run++;
			at = i;
			break;
		}
	}
	/* The latest is first: what falls out at the end was used longest ago. */
	for (uint32_t i = at; i > 0; i--)
		streams[i] = streams[i - 1];
	if (found.ahead <= gpn)
		found.ahead = gpn + 1;
	found.next = gpn + 1;
	streams[0] = found;
	return &streams[0];
}

static void take_zero_batch(struct coh *coh, struct coh_stream *s, uint64_t end,
			    struct coh_out *out)
{
	uint64_t gpn;

	for (gpn = s->ahead; gpn < end; gpn++) {
		struct coh_page *page = coh_page_of(coh, gpn);

		if (page->access != COH_NONE || page->pending)
			continue;
		if (coh->used + coh->config.actor_count >= coh->config.capacity ||
		    !coh_home_take_zero(coh, gpn))
			break;
		coh->used++;
		coh_page_set(coh, gpn, COH_WRITE, false);
		coh_act(out, COH_INSTALL_ZERO, gpn, COH_WRITE);
		coh_satisfy(coh, gpn, out); /* an actor may be parked for it */
	}
	s->ahead = gpn;
}

void coh_stream_follow(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		       struct coh_out *out)
{
	struct coh_stream *s = stream_find(coh, actor, gpn);
	uint64_t chunk_end = (gpn / CHUNK_PAGES + 1) * CHUNK_PAGES;
	struct coh_chunk *chunk = coh_chunk_of(coh, gpn);
	bool untouched;
	uint64_t end;
	uint32_t most;

	if (chunk_end > coh->config.gpn_limit)
		chunk_end = coh->config.gpn_limit;
	if (!s->run || s->ahead >= chunk_end || !chunk->version)
		return;
	untouched = chunk->dir && coh_entry_of(coh, s->ahead)->state == DIR_UNTOUCHED;
	if (untouched)
		most = min_u32(coh->config.zero_batch - 1, COH_BATCH_MAX);
	else
		most = want == COH_READ ? coh->config.readahead : 0;
	if (!most)
		return;
	end = gpn + 1 + min_u32(most, 1u << min_u32(s->run, 16));
	if (end > chunk_end)
		end = chunk_end;
	if (untouched) {
		take_zero_batch(coh, s, end, out);
		return;
	}
	while (s->ahead < end && coh_request_ahead(coh, s->ahead, out))
		s->ahead++;
	s->limit = s->ahead;
	if (s->run >= COH_LONG_RUN) {
		s->limit = gpn + 1 + (uint64_t)COH_LONG_AHEAD * most;
		if (s->limit > chunk_end)
			s->limit = chunk_end;
		coh->stream_actor = actor + 1;
	}
}

/* One unit of work: what the window and the slots allow, a few at a time. */
void coh_stream_pump(struct coh *coh, struct coh_out *out)
{
	struct coh_stream *s;

	if (!coh->stream_actor || coh->releasing)
		return;
	s = coh->stream + (coh->stream_actor - 1) * COH_STREAMS;
	for (uint32_t i = 0; i < 16 && s->ahead < s->limit; i++, s->ahead++)
		if (!coh_request_ahead(coh, s->ahead, out))
			return;
	if (s->ahead >= s->limit)
		coh->stream_actor = 0;
}
