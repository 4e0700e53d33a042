/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that the guest needs no more become untouched again: nobody has them, they are zero.
 *
 *   who was told            home                                 holders
 *   FREE(64 pages) -------> those that are idle: frozen
 *                           DROP --------------------------------> sharers: drop, or refuse
 *                           <----------------------------- DROPPED(which)
 *                           DROP(KEEPER) ------------------------> owners and keepers
 *                           <----------------------------- DROPPED(which)
 *                           UNTOUCHED; who has queued goes on
 *        <------ FREED(which)
 *
 * One message is about a group of COH_FREE_PAGES pages, a bit each. Nothing here waits for anybody:
 * the home leaves out what is busy or wanted, a holder refuses what is held, pinned or asked for, and
 * a page that is refused stays as it is. So a group's way is four messages long, six where pages are
 * shared, and a hold is never broken.
 *
 * The keeper of a shared page is asked when all other sharers have dropped theirs: else one that
 * refuses would be left with a copy that nobody answers for.
 *
 * While it lasts the pages are busy at their home like by any transaction, all by one struct
 * coh_free. Until FREED has come the contents are what they were or zero, at any moment; from then
 * on a page that it names is zero or what was written since. Whoever tells the guest waits for it.
 *
 * Who knows no home asks the chunk's registrar: a chunk that nobody has touched gets no home by it.
 *
 * Tested in tests/core/test_coherence_free.c and by the simulator with --set frees=1.
 */
#include <string.h>

#include "core/coherence_state.h"

enum free_phase {
	FREE_NONE = 0,
	FREE_SHARERS, /* those who are not keepers were asked */
	FREE_KEEPERS, /* owners and keepers were */
	FREE_ENDING,  /* the pages go on, as actions allow */
};

/* Pages of the group by bit, from the lowest. */
#define FOR_PAGES(bit, mask)                                                                       \
	for (uint64_t m_ = (mask); m_ && ((bit) = (uint32_t)__builtin_ctzll(m_), 1); m_ &= m_ - 1)

/* A whole group, some pages of it, and all of them are pages. */
static bool group_valid(const struct coh *coh, uint64_t first, uint64_t mask)
{
	return first % COH_FREE_PAGES == 0 && mask && first < coh->config.gpn_limit &&
	       first + 63 - (uint64_t)__builtin_clzll(mask) < coh->config.gpn_limit;
}

/* --- who was told by the guest --- */

static void freed_tell(struct coh_out *out, uint64_t first, uint64_t mask)
{
	struct coh_action *action = &out->action[out->count];

	coh_act(out, COH_FREED_PAGES, first, COH_NONE);
	action->msg.age = mask;
}

static void ask_home(struct coh *coh, struct coh_freeing *freeing, struct coh_out *out)
{
	uint64_t chunk = freeing->first / CHUNK_PAGES;
	struct coh_msg msg = {
		.type = COH_FREE,
		.requester = coh->config.self,
		.version = coh->chunk[chunk].version,
		.gpn = freeing->first,
		.age = freeing->mask,
		.seq = freeing->seq,
	};

	freeing->version = msg.version;
	freeing->asked = coh_chunk_home_known(coh, chunk) ? coh->chunk[chunk].home
							  : coh_registrar_of(coh, chunk);
	coh_send(coh, out, freeing->asked, &msg);
}

int coh_free_begin(struct coh *coh, uint64_t first, uint64_t mask, struct coh_out *out)
{
	struct coh_freeing *found = NULL;

	if (!group_valid(coh, first, mask))
		return -EINVAL;
	if (coh->releasing) {
		freed_tell(out, first, 0);
		return 0;
	}
	for (uint32_t i = 0; i < COH_FREES; i++) {
		struct coh_freeing *freeing = &coh->freeing[i];

		if (!freeing->mask)
			found = freeing;
		else if (freeing->first == first)
			return -EBUSY;
	}
	if (!found)
		return -EBUSY;
	*found = (struct coh_freeing){ .first = first, .mask = mask, .seq = ++coh->seq };
	coh->freeing_count++;
	ask_home(coh, found, out);
	return 0;
}

static bool freed_valid(const struct coh *coh, const struct coh_freeing *freeing,
			const struct coh_msg *msg)
{
	if (msg->src != freeing->asked || msg->requester != coh->config.self)
		return false;
	if (!(msg->flags & COH_MSG_MORE))
		return !(msg->age & ~freeing->mask);
	return msg->version > freeing->version && !msg->age && msg->node != msg->src &&
	       coh_chunk_learnable(coh, msg->gpn / CHUNK_PAGES, msg->node, msg->version);
}

int coh_freed(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_freeing *freeing = coh->freeing;

	while (freeing < coh->freeing + COH_FREES &&
	       (!freeing->mask || freeing->first != msg->gpn || freeing->seq != msg->seq))
		freeing++;
	if (freeing == coh->freeing + COH_FREES || !freed_valid(coh, freeing, msg))
		return -EPROTO;
	if (msg->flags & COH_MSG_MORE) {
		coh_chunk_learn_from(coh, msg, out);
		ask_home(coh, freeing, out);
		return 0;
	}
	freeing->mask = 0;
	coh->freeing_count--;
	freed_tell(out, msg->gpn, msg->age);
	return 0;
}

/* --- the home --- */

static struct coh_dir_entry *entry_of(struct coh *coh, const struct coh_free *f, uint32_t bit)
{
	return coh_entry_of(coh, f->first + bit);
}

static void freed_send(struct coh *coh, uint16_t to, uint64_t first, uint64_t seq, uint64_t mask,
		       struct coh_out *out)
{
	struct coh_msg msg = {
		.type = COH_FREED,
		.requester = to,
		.version = coh->chunk[first / CHUNK_PAGES].version,
		.gpn = first,
		.age = mask,
		.seq = seq,
	};

	coh_send(coh, out, to, &msg);
}

/* Somebody else is home, or nobody. */
static void free_turn_away(struct coh *coh, const struct coh_msg *request, struct coh_out *out)
{
	uint64_t chunk = request->gpn / CHUNK_PAGES;
	struct coh_msg msg = { .type = COH_FREED,
			       .flags = COH_MSG_MORE,
			       .requester = request->src,
			       .gpn = request->gpn,
			       .seq = request->seq };

	coh_chunk_known(coh, chunk, &msg.node, &msg.version);
	/* It is on its way here, or where the word came from: not now. */
	if (msg.version <= request->version || msg.node == coh->config.self ||
	    msg.node == NODE_NONE)
		freed_send(coh, request->src, request->gpn, request->seq, 0, out);
	else
		coh_send(coh, out, request->src, &msg);
}

static struct coh_free *free_new(struct coh *coh)
{
	for (uint32_t i = 0; i < COH_FREES_HOME; i++)
		if (coh->free[i].phase == FREE_NONE)
			return &coh->free[i];
	return NULL;
}

/* Whether a correct node can ask for one more: each of its groups once, and not too many. */
static bool may_ask(const struct coh *coh, uint16_t node, uint64_t first)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < COH_FREES_HOME; i++) {
		const struct coh_free *f = &coh->free[i];

		if (f->phase == FREE_NONE || f->requester != node)
			continue;
		if (f->first == first)
			return false;
		count++;
	}
	return count < COH_FREES;
}

/* The pages that are asked of `node` in this phase. */
static uint64_t asked_of(struct coh *coh, const struct coh_free *f, uint16_t node)
{
	uint64_t mask = 0;
	uint32_t bit;

	FOR_PAGES(bit, f->left)
	{
		const struct coh_dir_entry *entry = entry_of(coh, f, bit);
		bool keeper = entry->node == node;

		if (f->phase == FREE_KEEPERS
			    ? keeper
			    : !keeper && entry->state == DIR_SHARED &&
				      coh_bit(coh_sharers_of(coh, f->first + bit), node))
			mask |= 1ull << bit;
	}
	return mask;
}

static bool others_share(struct coh *coh, const struct coh_dir_entry *entry, uint64_t gpn)
{
	const uint64_t *sharers = coh_sharers_of(coh, gpn);

	if (entry->state != DIR_SHARED)
		return false;
	for (uint32_t w = 0; w < coh->sharer_words; w++) {
		uint64_t keeper = entry->node / 64 == w ? 1ull << (entry->node % 64) : 0;

		if (coh_sharers_word(coh, sharers, w) & ~keeper)
			return true;
	}
	return false;
}

/* Who has pages that are still to go. */
static void nodes_asked(struct coh *coh, const struct coh_free *f, uint64_t set[NODES_MAX / 64])
{
	uint32_t bit;

	memset(set, 0, NODES_MAX / 8);
	FOR_PAGES(bit, f->left)
	{
		const struct coh_dir_entry *entry = entry_of(coh, f, bit);

		if (f->phase == FREE_KEEPERS)
			coh_bit_set(set, entry->node);
		else if (entry->state == DIR_SHARED)
			for (uint32_t w = 0; w < coh->sharer_words; w++)
				set[w] |= coh_sharers_word(coh, coh_sharers_of(coh, f->first + bit),
							   w);
	}
}

static void ask_holders(struct coh *coh, struct coh_free *f, struct coh_out *out)
{
	struct coh_msg msg = {
		.type = COH_DROP,
		.flags = f->phase == FREE_KEEPERS ? COH_MSG_KEEPER : 0,
		.requester = f->requester,
		.version = coh->chunk[f->first / CHUNK_PAGES].version,
		.gpn = f->first,
		.seq = f->seq,
	};
	uint64_t nodes[NODES_MAX / 64];

	nodes_asked(coh, f, nodes);
	for (uint32_t w = 0; w < coh->sharer_words; w++) {
		for (uint64_t bits = nodes[w]; bits; bits &= bits - 1) {
			uint16_t node = (uint16_t)(w * 64 + (uint32_t)__builtin_ctzll(bits));

			msg.age = asked_of(coh, f, node);
			if (!msg.age)
				continue;
			coh_bit_set(f->asked, node);
			f->asked_count++;
			coh_send(coh, out, node, &msg);
		}
	}
}

static void free_ending(struct coh *coh, struct coh_free *f)
{
	f->phase = FREE_ENDING;
	f->left = f->frozen;
	coh->frees_ending++;
}

/* All who were asked have answered: who is next. */
static void free_step(struct coh *coh, struct coh_free *f, struct coh_out *out)
{
	uint32_t bit;

	while (!f->asked_count && f->phase != FREE_ENDING) {
		if (f->phase == FREE_KEEPERS) {
			free_ending(coh, f);
			return;
		}
		f->phase++;
		if (f->phase == FREE_KEEPERS && !coh_broken(coh, COH_BROKEN_FREE_TOGETHER))
			FOR_PAGES(bit, f->left)
		if (others_share(coh, entry_of(coh, f, bit), f->first + bit))
			f->left &= ~(1ull << bit);
		ask_holders(coh, f, out);
	}
}

static void page_untouched(struct coh *coh, struct coh_free *f, uint32_t bit)
{
	struct coh_dir_entry *entry = entry_of(coh, f, bit);

	entry->state = DIR_UNTOUCHED;
	entry->node = 0;
	memset(coh_sharers_of(coh, f->first + bit), 0, coh->sharer_words * sizeof(uint64_t));
	f->left &= ~(1ull << bit);
	f->freed |= 1ull << bit;
	coh->stats.freed_count++;
}

static void free_start(struct coh *coh, struct coh_free *f, const struct coh_msg *msg,
		       uint64_t frozen, struct coh_out *out)
{
	uint32_t bit;

	*f = (struct coh_free){
		.first = msg->gpn,
		.frozen = frozen,
		.left = frozen,
		.seq = msg->seq,
		.requester = msg->src,
	};
	coh_chunk_of(coh, f->first)->dir->busy_count++;
	FOR_PAGES(bit, frozen)
	entry_of(coh, f, bit)->busy = COH_BUSY_FREE | (uint32_t)(f - coh->free);
	if (coh_broken(coh, COH_BROKEN_FREE_UNASKED))
		FOR_PAGES(bit, frozen)
	page_untouched(coh, f, bit);
	if (coh_broken(coh, COH_BROKEN_FREE_EARLY))
		freed_send(coh, f->requester, f->first, f->seq, frozen, out);
	free_step(coh, f, out);
}

int coh_home_free(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_chunk *chunk = coh_chunk_of(coh, msg->gpn);
	struct coh_free *f = free_new(coh);
	uint64_t frozen = 0;
	uint32_t bit;

	if (msg->requester != msg->src || !group_valid(coh, msg->gpn, msg->age) ||
	    (!may_ask(coh, msg->src, msg->gpn) && !coh->config.broken))
		return -EPROTO;
	if (!coh_home_here(coh, msg->gpn)) {
		free_turn_away(coh, msg, out);
		return 0;
	}
	if (msg->version > chunk->version)
		return -EPROTO;
	if (f && !chunk->dir->moving)
		FOR_PAGES(bit, msg->age)
		{
			const struct coh_dir_entry *entry = coh_entry_of(coh, msg->gpn + bit);

			if (entry->state != DIR_UNTOUCHED && !entry->busy && !entry->queue)
				frozen |= 1ull << bit;
		}
	if (frozen)
		free_start(coh, f, msg, frozen, out);
	else
		freed_send(coh, msg->src, msg->gpn, msg->seq, 0, out);
	return 0;
}

static struct coh_free *free_find(struct coh *coh, const struct coh_msg *msg)
{
	for (uint32_t i = 0; i < COH_FREES_HOME; i++) {
		struct coh_free *f = &coh->free[i];

		if (f->phase != FREE_NONE && f->first == msg->gpn && f->seq == msg->seq &&
		    f->requester == msg->requester)
			return f;
	}
	return NULL;
}

int coh_home_dropped(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_free *f = free_find(coh, msg);
	uint32_t bit;

	if (!f || !coh_bit(f->asked, msg->src) || (msg->age & ~asked_of(coh, f, msg->src)))
		return -EPROTO;
	coh_bit_clear(f->asked, msg->src);
	f->asked_count--;
	FOR_PAGES(bit, msg->age)
	{
		if (f->phase == FREE_KEEPERS)
			page_untouched(coh, f, bit);
		else
			coh_bit_clear(coh_sharers_of(coh, f->first + bit), msg->src);
	}
	free_step(coh, f, out);
	return 0;
}

/* The pages of a group that is over are for others again. False: no room for more actions. */
static bool free_end(struct coh *coh, struct coh_free *f, struct coh_out *out)
{
	while (f->left) {
		uint32_t bit = (uint32_t)__builtin_ctzll(f->left);

		if (!coh_room(coh, out))
			return false;
		f->left &= f->left - 1;
		entry_of(coh, f, bit)->busy = 0;
		coh_home_next(coh, f->first + bit, out);
	}
	if (!coh_room(coh, out))
		return false;
	coh_chunk_of(coh, f->first)->dir->busy_count--;
	f->phase = FREE_NONE;
	coh->frees_ending--;
	if (!coh_broken(coh, COH_BROKEN_FREE_EARLY))
		freed_send(coh, f->requester, f->first, f->seq, f->freed, out);
	return true;
}

void coh_free_pump(struct coh *coh, struct coh_out *out)
{
	for (uint32_t i = 0; coh->frees_ending && i < COH_FREES_HOME; i++)
		if (coh->free[i].phase == FREE_ENDING && !free_end(coh, &coh->free[i], out))
			return;
}

/* --- the holder --- */

static bool page_drop_valid(const struct coh_page *page, bool keeper)
{
	bool keeps = page->access == COH_WRITE || (page->flags & PAGE_KEEPER);

	return keeps == keeper && !page->taking;
}

static bool drop_valid(const struct coh *coh, const struct coh_msg *msg)
{
	uint32_t bit;

	if (!group_valid(coh, msg->gpn, msg->age) ||
	    !coh_chunk_believable(coh, msg->gpn / CHUNK_PAGES, msg->src, msg->version))
		return false;
	FOR_PAGES(bit, msg->age)
	if (!page_drop_valid(&coh->page[msg->gpn + bit], msg->flags & COH_MSG_KEEPER))
		return false;
	return true;
}

/* Whoever holds the page, has it pinned, or has asked for more of it, keeps it. */
static bool page_drops(struct coh *coh, uint64_t gpn)
{
	uint64_t deadline;

	if (coh->page[gpn].access == COH_NONE)
		return true;
	if (coh_broken(coh, COH_BROKEN_FREE_PINNED))
		return true;
	return !coh->page[gpn].pending &&
	       !coh_held(coh, gpn, COH_NONE, COH_AGE_NEVER, NODE_NONE, &deadline) &&
	       coh_close(coh, gpn, COH_NONE, false);
}

int coh_drop(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_msg reply = *msg;
	uint32_t bit;

	if (!drop_valid(coh, msg) && !coh->config.broken)
		return -EPROTO;
	coh_chunk_learn(coh, msg->gpn / CHUNK_PAGES, msg->src, msg->version);
	reply.type = COH_DROPPED;
	reply.flags = 0;
	reply.age = 0;
	FOR_PAGES(bit, msg->age)
	{
		if (!page_drops(coh, msg->gpn + bit))
			continue;
		coh_holds_forget(coh, msg->gpn + bit);
		coh_give_up(coh, msg->gpn + bit, out);
		reply.age |= 1ull << bit;
	}
	coh_send(coh, out, msg->src, &reply);
	return 0;
}
