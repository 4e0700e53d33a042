/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is home of a chunk.
 *
 * The registrar of a chunk (there are COH_SLOTS of them at most, dealt to the members in order) gives
 * it to the first node that asks, as version 1, and remembers. Everyone caches the answer with its
 * version; a higher version wins.
 *
 * The word may reach the new home after the first request of another node that asked; so a node
 * that has asked, and does not know, believes a request of version 1.
 *
 * Handing a home on, one chunk at a time:
 *
 *   old home                          new home                 registrar
 *   YIELD  nothing new starts; NUDGE with age 0 ends what runs
 *   SEND   HOME_MOVE (a page each, and its sharers) ->
 *          HOME_MOVE (end) ------------> it serves from now on
 *   WAIT                                 HOME_SET ------------> the new version counts
 *          <--------------------------------------------------- HOME_SET
 *   TURN   NOT_HOME to all who queued; later requests too
 *
 * Nobody is sent to the new home before it serves, so no request ever finds nobody at home. While a
 * transaction runs its page's home stays, so messages of transactions never meet a change of home.
 *
 * The registrar's own duty is handed on by steps of the membership (coherence_member.c). Without them
 * a node that leaves stays reachable as registrar and as the one who says NOT_HOME. Who says that and
 * knows of the next home only that it has left the pod too names itself: ask the registrar.
 *
 * Tested in tests/core/test_coherence_homes.c.
 */
#include <stdlib.h>
#include <string.h>

#include "core/coherence_state.h"

/* What this node knows as the chunk's registrar; NULL: another is. */
static const struct coh_registered *registered_here(const struct coh *coh, uint64_t chunk)
{
	return coh_registrar_here(coh, chunk) ? &coh->registered[chunk] : NULL;
}

bool coh_chunk_home_known(const struct coh *coh, uint64_t chunk)
{
	const struct coh_chunk *c = &coh->chunk[chunk];

	return c->version && c->home != NODE_NONE && member_set_has(&coh->share, c->home);
}

void coh_chunk_known(const struct coh *coh, uint64_t chunk, uint16_t *ret_node,
		     uint32_t *ret_version)
{
	const struct coh_registered *reg = registered_here(coh, chunk);
	const struct coh_chunk *c = &coh->chunk[chunk];

	*ret_node = c->home;
	*ret_version = c->version;
	if (reg && reg->version > c->version) {
		*ret_node = reg->node;
		*ret_version = reg->version;
	}
}

struct coh_directory *coh_directory_new(const struct coh *coh)
{
	return calloc(1, sizeof(struct coh_directory) +
				 CHUNK_PAGES * coh->sharer_words * sizeof(uint64_t));
}

void coh_chunk_ask(struct coh *coh, uint64_t chunk, struct coh_out *out)
{
	struct coh_msg msg = { .type = COH_HOME_GET,
			       .requester = coh->config.self,
			       .gpn = chunk * CHUNK_PAGES };

	if (coh->chunk[chunk].asked)
		return;
	coh->chunk[chunk].asked = true;
	coh->asked_count++;
	coh_send(coh, out, coh_registrar_of(coh, chunk), &msg);
}

bool coh_chunk_learnable(const struct coh *coh, uint64_t chunk, uint16_t node, uint32_t version)
{
	const struct coh_chunk *c = &coh->chunk[chunk];

	return node != coh->config.self || c->dir || version <= c->version;
}

void coh_chunk_learn(struct coh *coh, uint64_t chunk, uint16_t node, uint32_t version)
{
	struct coh_chunk *c = &coh->chunk[chunk];

	/* Who hands the chunk on learns from the registrar that it is done (HOME_SET). */
	if (version <= c->version || c->dir)
		return;
	c->home = node != NODE_NONE && member_set_has(&coh->share, node) ? node : NODE_NONE;
	c->version = version;
}

void coh_chunk_learn_from(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	bool knows = !coh->changed || msg->node != msg->src || msg->src == coh->config.self;

	coh_chunk_learn(coh, chunk, knows ? msg->node : NODE_NONE, msg->version);
	if (coh->changed && !coh_chunk_home_known(coh, chunk))
		coh_chunk_ask(coh, chunk, out);
}

/* Can `node` be home with this version, as far as we know? */
bool coh_chunk_believable(const struct coh *coh, uint64_t chunk, uint16_t node, uint32_t version)
{
	const struct coh_chunk *c = &coh->chunk[chunk];
	const struct coh_registered *reg;

	if (!version)
		return false;
	if (coh_broken(coh, COH_BROKEN_STALE_HOME_SERVES))
		return true;
	reg = registered_here(coh, chunk);
	if (reg && (!reg->version || (version == reg->version && node != reg->node)))
		return false;
	if (version == c->version)
		return node == c->home;
	/* The new home may already serve while we wait for the registrar's word of it. */
	return version > c->version && node != coh->config.self &&
	       (!(c->dir && c->home == coh->config.self) ||
		(coh->move.phase == MOVE_WAIT && coh->move.chunk == chunk));
}

int coh_chunk_home_get(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	struct coh_registered *reg;
	struct coh_msg reply = *msg;

	if ((msg->requester != msg->src && !coh_slot_moved(coh, chunk)) ||
	    !member_set_has(&coh->share, msg->requester) || msg->gpn % CHUNK_PAGES)
		return -EPROTO;
	if (!coh_registrar_here(coh, chunk))
		return coh_send_on(coh, msg, out);
	reg = &coh->registered[chunk];
	if (!reg->version) {
		reg->node = msg->requester;
		reg->version = 1;
		coh_entry_changed(coh, chunk, out);
	}
	reply.type = COH_HOME_IS;
	reply.node = reg->node;
	reply.version = reg->version;
	coh_send(coh, out, msg->requester, &reply);
	return 0;
}

/* One more chunk is at home here; a leaving node hands on what it gets late, too. */
static void chunk_homed(struct coh *coh, uint64_t chunk)
{
	coh->stats.chunks_homed++;
	if (coh->release_cursor > chunk)
		coh->release_cursor = chunk;
}

static int chunk_begin(struct coh *coh, uint64_t chunk)
{
	struct coh_chunk *c = &coh->chunk[chunk];

	c->dir = coh_directory_new(coh);
	if (!c->dir)
		return -ENOMEM;
	c->home = coh->config.self;
	c->version = 1;
	chunk_homed(coh, chunk);
	return 0;
}

/*
 * A request of version 1 came before the registrar's own word that the chunk is ours: we asked, and
 * the requester was told. HOME_IS is still on its way and must say the same.
 */
int coh_chunk_adopt(struct coh *coh, uint64_t chunk, const struct coh_msg *msg, struct coh_out *out)
{
	const struct coh_registered *reg = registered_here(coh, chunk);
	struct coh_chunk *c = &coh->chunk[chunk];
	int ret;

	if (c->version || !c->asked || msg->version != 1 || c->incoming ||
	    (reg && (reg->version != 1 || reg->node != coh->config.self)))
		return 0;
	ret = chunk_begin(coh, chunk);
	if (!ret)
		coh_requests_of_chunk(coh, chunk, out);
	return ret;
}

/* An answer of who was registrar before this node: it was told all that he knew. */
static bool answer_fits(const struct coh *coh, const struct coh_msg *msg)
{
	const struct coh_registered *reg = registered_here(coh, msg->gpn / CHUNK_PAGES);

	return !reg || msg->src == coh->config.self || reg->version > msg->version ||
	       (reg->version == msg->version && reg->node == msg->node);
}

int coh_chunk_home_is(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	struct coh_chunk *c = &coh->chunk[chunk];
	bool helps, again;

	/* A liar has answered in this registrar's place. */
	if (!c->asked && msg->src == coh->config.self && coh->changed)
		return 0;
	if (msg->gpn % CHUNK_PAGES || !c->asked || !answer_fits(coh, msg) ||
	    (msg->src != coh_registrar_of(coh, chunk) && !coh_slot_moved(coh, chunk)) ||
	    msg->requester != coh->config.self || !msg->version)
		return -EPROTO;
	if (msg->version == c->version && c->home != NODE_NONE && msg->node != c->home)
		return -EPROTO;
	/* An answer that names who has gone may be from before; not a second one. */
	helps = msg->version > c->version ? member_set_has(&coh->share, msg->node)
					  : coh_chunk_home_known(coh, chunk);
	again = !helps && c->useless == msg->version;
	if (again && msg->src != coh->config.self)
		return -EPROTO;
	if (msg->node == coh->config.self && msg->version > c->version) {
		if (c->dir || c->incoming || msg->version != 1)
			return -EPROTO;
		if (chunk_begin(coh, chunk))
			return -ENOMEM;
	}
	c->asked = false;
	coh->asked_count--;
	coh_chunk_learn(coh, chunk, msg->node, msg->version);
	/* What a liar has told this registrar itself: nobody is asked again and again. */
	if (again)
		return 0;
	c->useless = helps ? 0 : msg->version;
	coh_requests_of_chunk(coh, chunk, out);
	return 0;
}

void coh_chunk_move(struct coh *coh, uint64_t chunk, uint16_t to)
{
	coh->chunk[chunk].dir->moving = true;
	coh->move = (struct coh_move){ .chunk = chunk, .to = to, .phase = MOVE_YIELD };
}

static struct coh_msg move_msg(const struct coh *coh, uint64_t gpn)
{
	return (struct coh_msg){
		.type = COH_HOME_MOVE,
		.requester = coh->config.self,
		.version = coh->chunk[gpn / CHUNK_PAGES].version + 1,
		.gpn = gpn,
	};
}

/* One HOME_MOVE: the entry of the page at the cursor, then its sharers, 128 nodes a message. */
static void move_send_one(struct coh *coh, struct coh_out *out)
{
	struct coh_move *move = &coh->move;
	uint64_t gpn = move->chunk * CHUNK_PAGES + move->cursor;
	const struct coh_dir_entry *entry = coh_entry_of(coh, gpn);
	const uint64_t *sharers = coh_sharers_of(coh, gpn);
	struct coh_msg msg = move_msg(coh, gpn);

	msg.flags = COH_MSG_MORE;
	msg.node = entry->node;
	if (entry->state == DIR_SHARED) {
		uint32_t word = move->word;

		msg.flags |= COH_MSG_KEEPER;
		msg.acks = word;
		msg.age = coh_sharers_word(coh, sharers, word);
		msg.seq =
			word + 1 < coh->sharer_words ? coh_sharers_word(coh, sharers, word + 1) : 0;
		move->word += 2;
	}
	if (entry->state != DIR_UNTOUCHED) {
		coh_send(coh, out, move->to, &msg);
		move->sent++;
	}
	if (entry->state != DIR_SHARED || move->word >= coh->sharer_words) {
		move->cursor++;
		move->word = 0;
	}
}

static void move_send_end(struct coh *coh, struct coh_out *out)
{
	struct coh_msg msg = move_msg(coh, coh->move.chunk * CHUNK_PAGES);

	msg.acks = coh->move.sent;
	coh_send(coh, out, coh->move.to, &msg);
	coh->move.phase = MOVE_WAIT;
}

/* The last part came, and who had it before is not this node itself any more: this node is home. */
static void move_take_over(struct coh *coh, uint64_t chunk, struct coh_out *out)
{
	struct coh_chunk *c = &coh->chunk[chunk];
	struct coh_msg set = {
		.type = COH_HOME_SET,
		.flags = coh_slot_moved(coh, chunk) ? COH_MSG_MORE : 0,
		.requester = c->incoming_from,
		.node = coh->config.self,
		.version = c->incoming_version,
		.gpn = chunk * CHUNK_PAGES,
	};

	c->dir = c->incoming;
	c->incoming = NULL;
	c->home = coh->config.self;
	c->version = c->incoming_version;
	c->incoming_version = 0;
	chunk_homed(coh, chunk);
	coh_send(coh, out, coh_registrar_of(coh, chunk), &set);
	/* Requests that wait for HOME_IS can go now; the answer will be older than what we know. */
	coh_requests_of_chunk(coh, chunk, out);
}

static void move_end(struct coh *coh, struct coh_out *out)
{
	struct coh_chunk *c = &coh->chunk[coh->move.chunk];

	coh->move.phase = MOVE_NONE;
	coh->stats.chunks_homed--;
	free(c->dir);
	c->dir = NULL;
	if (c->incoming_version)
		move_take_over(coh, coh->move.chunk, out);
}

/* One step of the move under way, if it can go on. */
static bool move_step(struct coh *coh, struct coh_out *out)
{
	struct coh_move *move = &coh->move;
	uint64_t gpn = move->chunk * CHUNK_PAGES + move->cursor;
	struct coh_directory *dir = coh->chunk[move->chunk].dir;

	switch (move->phase) {
	case MOVE_YIELD:
		if (move->cursor < CHUNK_PAGES) {
			coh_home_yield(coh, gpn, out);
			move->cursor++;
			return true;
		}
		if (dir->busy_count)
			return false;
		move->phase = MOVE_SEND;
		move->cursor = 0;
		return true;
	case MOVE_SEND:
		if (move->cursor < CHUNK_PAGES)
			move_send_one(coh, out);
		else
			move_send_end(coh, out);
		return true;
	case MOVE_TURN:
		if (move->cursor == CHUNK_PAGES)
			move_end(coh, out);
		else if (!coh_home_turn_away(coh, gpn, out))
			move->cursor++;
		return move->phase != MOVE_NONE;
	default:
		return false;
	}
}

void coh_move_pump(struct coh *coh, struct coh_out *out)
{
	while (coh->move.phase && coh_room(coh, out) && move_step(coh, out))
		;
}

static bool move_part_valid(const struct coh *coh, const struct coh_msg *msg)
{
	bool kept = msg->flags & COH_MSG_KEEPER;
	uint32_t nodes = coh->config.node_count;

	if (!kept)
		return !msg->acks && !msg->age && !msg->seq;
	if (msg->acks % 2 || msg->acks >= coh->sharer_words)
		return false;
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t base = (msg->acks + i) * 64;
		uint64_t bits = i ? msg->seq : msg->age;
		uint64_t allowed = base >= nodes	? 0
				   : nodes - base >= 64 ? UINT64_MAX
							: (1ull << (nodes - base)) - 1;

		if (bits & ~allowed)
			return false;
	}
	return true;
}

static void move_part_take(struct coh *coh, struct coh_chunk *c, const struct coh_msg *msg)
{
	uint32_t index = msg->gpn % CHUNK_PAGES;
	struct coh_dir_entry *entry = &c->incoming->entry[index];
	uint64_t *sharers = c->incoming->sharers + index * coh->sharer_words;

	entry->state = msg->flags & COH_MSG_KEEPER ? DIR_SHARED : DIR_OWNED;
	entry->node = msg->node;
	c->incoming_count++;
	if (entry->state != DIR_SHARED)
		return;
	sharers[msg->acks] = msg->age & coh->share.word[msg->acks];
	if (msg->acks + 1 < coh->sharer_words)
		sharers[msg->acks + 1] = msg->seq & coh->share.word[msg->acks + 1];
}

/*
 * One page of a directory that comes, as no transaction runs: it names this node as owner or keeper
 * exactly if it is, and as a sharer if it has a copy. entry NULL: nobody has the page.
 */
static bool incoming_page_valid(const struct coh *coh, uint64_t gpn,
				const struct coh_dir_entry *entry, const uint64_t *sharers)
{
	const struct coh_page *page = &coh->page[gpn];
	bool keeps = page->access == COH_WRITE || (page->flags & PAGE_KEEPER);
	bool shared = entry && entry->state == DIR_SHARED;
	bool named = entry && entry->state != DIR_UNTOUCHED && entry->node == coh->config.self;

	if (keeps != named || page->taking || (shared && !coh_bit(sharers, entry->node)))
		return false;
	return page->access == COH_NONE || keeps || (shared && coh_bit(sharers, coh->config.self));
}

static bool incoming_valid(const struct coh *coh, uint64_t chunk)
{
	const struct coh_directory *dir = coh->chunk[chunk].incoming;
	uint64_t first = chunk * CHUNK_PAGES;

	for (uint32_t i = 0; i < CHUNK_PAGES && first + i < coh->config.gpn_limit; i++)
		if (!incoming_page_valid(coh, first + i, dir ? &dir->entry[i] : NULL,
					 dir ? dir->sharers + i * coh->sharer_words : NULL))
			return false;
	return true;
}

/*
 * Whether the registrar, if that is this node, has given the chunk away and will let it come here.
 * What the registrar has told this node itself may still be in its own queue: then this node is home.
 */
static bool move_registrable(const struct coh *coh, const struct coh_msg *msg)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	const struct coh_registered *reg = registered_here(coh, chunk);

	if (!reg)
		return true;
	if (reg->node == coh->config.self && reg->version > coh->chunk[chunk].version)
		return false;
	return reg->version && msg->version > reg->version &&
	       (msg->version > reg->version + 1 || reg->node == msg->src);
}

static bool move_end_valid(const struct coh *coh, const struct coh_msg *msg)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	const struct coh_chunk *c = &coh->chunk[chunk];
	uint32_t count = c->incoming ? c->incoming_count : 0;

	return !msg->flags && !(msg->gpn % CHUNK_PAGES) && msg->acks == count &&
	       incoming_valid(coh, chunk);
}

/*
 * The chunk may come back to this node before the registrar's word that it has left: who took it leaves
 * the pod as well and did not know that this node does. It is home again when that is done with.
 */
static bool move_comes_back(const struct coh *coh, const struct coh_msg *msg)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;

	/* What is handed on is this node's version, and the next one's once the registrar has spoken. */
	if (coh->move.chunk != chunk)
		return false;
	return (coh->move.phase == MOVE_WAIT && msg->version > coh->chunk[chunk].version + 1) ||
	       (coh->move.phase == MOVE_TURN && msg->version > coh->chunk[chunk].version);
}

int coh_chunk_home_move(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_chunk *c = coh_chunk_of(coh, msg->gpn);
	bool more = msg->flags & COH_MSG_MORE;

	if ((c->dir && !move_comes_back(coh, msg)) || c->incoming_version ||
	    msg->requester != msg->src || msg->src == coh->config.self || msg->version < 2 ||
	    msg->version <= c->version || (c->version == msg->version - 1 && c->home != msg->src) ||
	    (c->incoming && c->incoming_from != msg->src) || !move_registrable(coh, msg) ||
	    (more ? !move_part_valid(coh, msg) : !move_end_valid(coh, msg)))
		return -EPROTO;
	if (!c->incoming) {
		c->incoming = coh_directory_new(coh);
		if (!c->incoming)
			return -ENOMEM;
		c->incoming_from = msg->src;
		c->incoming_count = 0;
	}
	if (more) {
		move_part_take(coh, c, msg);
		return 0;
	}
	c->incoming_version = msg->version;
	if (!c->dir)
		move_take_over(coh, msg->gpn / CHUNK_PAGES, out);
	return 0;
}

/* What the registrar says to the old home of the chunk that it hands on. */
static bool moved_valid(const struct coh *coh, const struct coh_msg *msg)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;

	return coh->move.phase == MOVE_WAIT && coh->move.chunk == chunk &&
	       msg->node == coh->move.to && msg->version == coh->chunk[chunk].version + 1;
}

static void moved(struct coh *coh, const struct coh_msg *msg)
{
	struct coh_chunk *c = coh_chunk_of(coh, msg->gpn);

	coh->move.phase = MOVE_TURN;
	coh->move.cursor = 0;
	if (coh_broken(coh, COH_BROKEN_STALE_HOME_SERVES)) {
		c->dir->moving = false;
		c->stale = true;
		coh->move.phase = MOVE_NONE;
		coh->stats.chunks_homed--;
		return;
	}
	c->home = msg->node;
	c->version = msg->version;
}

/*
 * Whether it is the registrar's word to this node as the old home. While the registrar is the first
 * that there was, who says it tells; later the flags do, as any member may have been registrar.
 */
static bool set_by_registrar(const struct coh *coh, const struct coh_msg *msg)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;

	if (msg->flags || msg->requester != coh->config.self)
		return msg->flags == COH_MSG_KEEPER;
	if (coh_slot_was_first(coh, chunk))
		return msg->src == coh->config.self;
	return msg->src == coh_registrar_of(coh, chunk) || coh_slot_moved(coh, chunk);
}

/* To the registrar: a new home serves. From the registrar to the old home: everyone may know. */
int coh_chunk_home_set(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	bool to_me = msg->requester == coh->config.self;
	struct coh_registered *reg;
	struct coh_msg word = *msg;

	if (msg->gpn % CHUNK_PAGES || (msg->flags && !coh->changed))
		return -EPROTO;
	if (set_by_registrar(coh, msg)) {
		if (!to_me || !moved_valid(coh, msg))
			return -EPROTO;
		moved(coh, msg);
		return 0;
	}
	if (msg->node != msg->src && !coh_slot_moved(coh, chunk))
		return -EPROTO;
	if (!coh_registrar_here(coh, chunk))
		return coh_send_on(coh, msg, out);
	reg = &coh->registered[chunk];
	if (!reg->version || (reg->version + 1 == msg->version && reg->node != msg->requester) ||
	    (to_me && !moved_valid(coh, msg)))
		return -EPROTO;
	/* A home handed on at once may be known here before the one it came from. */
	if (msg->version > reg->version) {
		reg->node = msg->node;
		reg->version = msg->version;
		coh_entry_changed(coh, chunk, out);
	}
	word.flags = coh_slot_moved(coh, chunk) ? COH_MSG_KEEPER : 0;
	coh_send(coh, out, msg->requester, &word);
	return 0;
}
