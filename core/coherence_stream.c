/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequential accesses: read-ahead, and zero pages in batches.
 *
 * Each actor has a few streams, each a next page expected; a stall on that page (or within what the
 * stream has asked for already) makes the stream longer, any other starts a new one in place of the
 * oldest. What a stream fetches doubles with its length up to the configured bound. It asks for the
 * following pages, one request each; a first touch takes following untouched pages of a chunk that
 * is homed here, without a message.
 *
 * A stream that writes asks to be owner of what nobody shares. Whoever has it then loses it, and two
 * pages that are written one after the other are often a coincidence; so that begins a few pages later.
 *
 * A long stream goes on by itself as its pages come, up to a few times as far beyond the
 * last stall: otherwise the link would be idle from the last page of a batch to the stall after it.
 * It goes on into the next chunk, too, if that is this shard's and is homed elsewhere; it asks who
 * is home there while it reads the chunk before. Else the link would be idle at every chunk's end
 * for three round trips: the home, the first page, and the second, which shows the stream again.
 * Where this chunk is homed here it does not ask: who asks first becomes home.
 *
 * A page taken in a batch is owned and uses memory, so the first touch of a lone page takes one
 * page.
 *
 * Tested in tests/core/test_coherence.c.
 */
#include "core/coherence_state.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

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

/* How far read-ahead may go. */
static uint64_t stream_end(struct coh *coh, const struct coh_stream *s, uint64_t gpn,
			   struct coh_out *out)
{
	uint64_t next = gpn / CHUNK_PAGES + 1;
	uint64_t end = next * CHUNK_PAGES;

	if (coh->config.neighbours && s->run >= COH_LONG_RUN && next < coh->chunk_count &&
	    !coh->chunk[next - 1].dir && end != coh->config.gap_gpn) {
		if (!coh->chunk[next].version)
			coh_chunk_ask(coh, next, out);
		else if (!coh->chunk[next].dir)
			end += CHUNK_PAGES;
	}
	return end < coh->config.gpn_limit ? end : coh->config.gpn_limit;
}

static void read_ahead(struct coh *coh, struct coh_stream *s, uint32_t actor, uint64_t gpn,
		       struct coh_out *out)
{
	uint32_t most = coh->config.readahead;
	uint64_t last = stream_end(coh, s, gpn, out);
	uint64_t end = min_u64(gpn + 1 + min_u32(most, 1u << min_u32(s->run, 16)), last);

	while (s->ahead < end && coh_request_ahead(coh, s->ahead, s->own, out))
		s->ahead++;
	s->limit = s->ahead;
	if (s->run >= COH_LONG_RUN) {
		s->limit = min_u64(gpn + 1 + (uint64_t)COH_LONG_AHEAD * most, last);
		coh->stream_actor = actor + 1;
	}
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
	uint64_t chunk_end = min_u64((gpn / CHUNK_PAGES + 1) * CHUNK_PAGES, coh->config.gpn_limit);
	struct coh_chunk *chunk = coh_chunk_of(coh, gpn);
	uint32_t most = min_u32(coh->config.zero_batch - 1, COH_BATCH_MAX);

	s->own = coh_writes(coh, actor) || (want == COH_WRITE && s->run >= COH_WRITES_RUN);
	if (!s->run || !chunk->version)
		return;
	if (chunk->dir && s->ahead < chunk_end &&
	    coh_entry_of(coh, s->ahead)->state == DIR_UNTOUCHED) {
		uint64_t end = gpn + 1 + min_u32(most, 1u << min_u32(s->run, 16));

		if (most)
			take_zero_batch(coh, s, min_u64(end, chunk_end), out);
		return;
	}
	if ((want == COH_READ || s->own) && coh->config.readahead)
		read_ahead(coh, s, actor, gpn, out);
}

/* One unit of work: what the window and the slots allow, a few at a time. */
void coh_stream_pump(struct coh *coh, struct coh_out *out)
{
	struct coh_stream *s;

	if (!coh->stream_actor || coh->releasing)
		return;
	s = coh->stream + (coh->stream_actor - 1) * COH_STREAMS;
	for (uint32_t i = 0; i < 16 && s->ahead < s->limit; i++, s->ahead++)
		if (!coh_request_ahead(coh, s->ahead, s->own, out))
			return;
	if (s->ahead >= s->limit)
		coh->stream_actor = 0;
}
