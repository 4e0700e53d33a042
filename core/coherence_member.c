/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members that come and go while the guest runs, as one shard of one node takes part in it.
 *
 * The list of members and its steps are core/member_list.h's. What a shard believes of the list comes
 * from a step that it was told of, or from the page channels themselves (REG_IS, FLUSH): steps come by
 * another channel, and there is no order between the two. So a step here asks for little at once, and
 * then waits until it sees that what it is about is over (coh_member_done()):
 *
 *   JOINING x   x may be named; it says nothing, and what it has said by then is for after ACTIVE
 *   ACTIVE x    it may be begun at
 *   DRAINING x  nothing is begun at x; over when what was begun there is answered: room that was asked
 *               for or given, pushes, a home or a slot that is handed to it
 *   GONE x      nothing goes to x: chunks that were known there have no known home, and the version
 *               stays. Over when nothing of x is under way here: no slot is x's, its rooms are used
 *               up or given back, no request waits for its answer, and all transactions of this home
 *               that had begun before are over, as x may have been asked in them. Then FLUSH to x
 *   FREE x      FLUSH to all, and over when it has come from all, and x's channel has ended: no word
 *               that is under way names x. The number may be another's
 *
 * Bits of sharers are cleared at GONE, though a copy may be dropped without a word: the number's next
 * owner would be told to drop it, while it joins and perhaps never answers.
 *
 * The version of a chunk stays because its number does not begin anew: with version 0 a late request
 * of version 1 would make a home of who has been it (coh_chunk_adopt()).
 *
 * Registrars. A slot's place is a node and an epoch, how often it was handed over. Who leaves gives its
 * slots away one by one:
 *
 *   leaver                           heir                             all
 *   REG_MOVE (an entry each, again if it changes) ->
 *   REG_MOVE (end) ----------------> it answers from now on
 *            <---------------------- REG_IS ------------------------->
 *
 * What comes to the leaver after the end it sends on behind it, so the heir never lacks what the
 * leaver knew. Each sending on is to a higher epoch, so it ends. Once a slot has moved any member is
 * believed to have had it: who asks may be answered by the one before, and asked by the one before.
 * FREE, which may be refused, is not sent on.
 *
 * A newcomer knows no slot's place. Each member tells it what it has when the channel stands
 * (coh_linked()), and from then on it is among all: whoever has a slot then says so, and whoever gets
 * one later does. The last word is that these were all, from who has none, too; the newcomer waits for
 * that from all (coh_member_ready()), so nobody hears of its ACTIVE, or of what it does then, who has
 * not linked with it.
 *
 * Tested in tests/core/test_coherence_member.c, and by the simulator with --set changes=N.
 */
#include "core/coherence_state.h"

#define SCAN_CHUNKS 4096u

uint16_t coh_registrar_of(const struct coh *coh, uint64_t chunk)
{
	return coh->slot[chunk % COH_SLOTS].node;
}

bool coh_registrar_here(const struct coh *coh, uint64_t chunk)
{
	return coh_registrar_of(coh, chunk) == coh->config.self;
}

bool coh_slot_moved(const struct coh *coh, uint64_t chunk)
{
	return coh->slot[chunk % COH_SLOTS].epoch;
}

bool coh_slot_was_first(const struct coh *coh, uint64_t chunk)
{
	return coh->slot[chunk % COH_SLOTS].first;
}

void coh_members_init(struct coh *coh)
{
	uint32_t count;

	coh->members = member_set_or_all(&coh->config.members, coh->config.node_count);
	coh->stay = coh->share = coh->linked = coh->heard = coh->members;
	member_set_remove(&coh->linked, coh->config.self);
	coh->channels = coh->linked;
	coh->step_node = coh->tell_node = coh->flush_node = NODE_NONE;
	coh->changed = coh->config.joins;
	if (coh->config.joins) {
		coh->awaited = coh->linked;
		coh->linked = coh->channels = (struct member_set){ 0 };
		member_set_remove(&coh->heard, coh->config.self);
	}
	count = member_set_count(&coh->members);
	for (uint32_t i = 0; i < COH_SLOTS; i++) {
		struct coh_slot *slot = &coh->slot[i];

		slot->node =
			coh->config.joins ? NODE_NONE : member_set_nth(&coh->members, i % count);
		slot->had = slot->first = slot->node == coh->config.self;
	}
}

/* ---- registrars -------------------------------------------------------------------------------- */

static void reg_is_send(struct coh *coh, uint32_t slot, uint16_t to, struct coh_out *out)
{
	struct coh_msg msg = {
		.type = COH_REG_IS,
		.requester = coh->config.self,
		.node = coh->config.self,
		.acks = slot,
		.version = slot < COH_SLOTS ? coh->slot[slot].epoch : 0,
	};

	coh_send(coh, out, to, &msg);
}

static void entry_send(struct coh *coh, uint64_t chunk, struct coh_out *out)
{
	struct coh_msg msg = {
		.type = COH_REG_MOVE,
		.flags = COH_MSG_MORE,
		.requester = coh->config.self,
		.node = coh->registered[chunk].node,
		.acks = (uint32_t)(chunk % COH_SLOTS),
		.version = coh->registered[chunk].version,
		.gpn = chunk * CHUNK_PAGES,
	};

	coh->slot_move.sent++;
	coh_send(coh, out, coh->slot_move.to, &msg);
}

void coh_entry_changed(struct coh *coh, uint64_t chunk, struct coh_out *out)
{
	const struct coh_slot_move *move = &coh->slot_move;

	if (move->phase == SLOT_SEND && chunk % COH_SLOTS == move->slot && chunk < move->cursor)
		entry_send(coh, chunk, out);
}

int coh_send_on(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	const struct coh_slot *slot = &coh->slot[msg->gpn / CHUNK_PAGES % COH_SLOTS];
	struct coh_msg on = *msg;

	if (!slot->had || slot->node == NODE_NONE)
		return -EPROTO;
	if (on.type == COH_HOME_SET)
		on.flags |= COH_MSG_MORE;
	coh_send(coh, out, slot->node, &on);
	return 0;
}

static void slot_send_end(struct coh *coh, struct coh_out *out)
{
	struct coh_slot_move *move = &coh->slot_move;
	struct coh_slot *slot = &coh->slot[move->slot];
	struct coh_msg msg = {
		.type = COH_REG_MOVE,
		.requester = coh->config.self,
		.acks = move->slot,
		.version = slot->epoch + 1,
		.age = move->sent,
	};

	coh_send(coh, out, move->to, &msg);
	slot->node = move->to;
	slot->epoch++;
	move->phase = SLOT_WAIT;
}

/* Whoever stays; slots are dealt to them in turn, as at the beginning. */
static uint16_t heir_of(const struct coh *coh, uint32_t slot)
{
	struct member_set heirs = coh->stay;

	member_set_remove(&heirs, coh->config.self);
	return member_set_count(&heirs) ? member_set_nth(&heirs, slot % member_set_count(&heirs))
					: NODE_NONE;
}

static bool slot_move_begin(struct coh *coh)
{
	for (uint32_t i = 0; i < COH_SLOTS; i++) {
		uint16_t to;

		if (coh->slot[i].node != coh->config.self)
			continue;
		to = heir_of(coh, i);
		if (to == NODE_NONE)
			return false;
		coh->slot_move = (struct coh_slot_move){
			.phase = SLOT_SEND, .slot = i, .to = to, .cursor = i
		};
		return true;
	}
	return false;
}

static bool gives_slots(const struct coh *coh)
{
	return coh->releasing && member_set_has(&coh->leavers, coh->config.self);
}

static void slots_pump(struct coh *coh, struct coh_out *out)
{
	struct coh_slot_move *move = &coh->slot_move;

	if (move->phase == SLOT_NONE && (!gives_slots(coh) || !slot_move_begin(coh)))
		return;
	while (move->phase == SLOT_SEND && coh_room(coh, out)) {
		if (move->cursor >= coh->chunk_count) {
			slot_send_end(coh, out);
			return;
		}
		if (coh->registered[move->cursor].version)
			entry_send(coh, move->cursor, out);
		move->cursor += COH_SLOTS;
	}
}

static bool has_slot(const struct coh *coh, uint16_t node)
{
	for (uint32_t i = 0; i < COH_SLOTS; i++)
		if (coh->slot[i].node == node)
			return true;
	return false;
}

static bool entry_valid(const struct coh *coh, const struct coh_msg *msg)
{
	uint64_t chunk = msg->gpn / CHUNK_PAGES;
	const struct coh_chunk *c = &coh->chunk[chunk];

	if (msg->gpn % CHUNK_PAGES || chunk % COH_SLOTS != msg->acks || !msg->version ||
	    msg->version < coh->registered[chunk].version || msg->age)
		return false;
	return msg->node != coh->config.self || (c->dir && c->version == msg->version);
}

/* Of a chunk that is homed here its registrar knows that, or what was before: HOME_SET comes then. */
static bool entry_fits(const struct coh *coh, uint64_t chunk)
{
	const struct coh_registered *reg = &coh->registered[chunk];
	const struct coh_chunk *c = &coh->chunk[chunk];

	if (!c->dir || c->home != coh->config.self)
		return true;
	if (reg->version == c->version)
		return reg->node == coh->config.self;
	if (reg->version > c->version)
		return coh->move.phase && coh->move.chunk == chunk &&
		       (reg->version > c->version + 1 || reg->node == coh->move.to);
	return reg->version;
}

static bool entries_fit(const struct coh *coh, uint32_t slot)
{
	for (uint64_t chunk = slot; chunk < coh->chunk_count; chunk += COH_SLOTS)
		if (!entry_fits(coh, chunk))
			return false;
	return true;
}

static void slot_take_over(struct coh *coh, struct coh_slot *slot, uint32_t index,
			   struct coh_out *out)
{
	slot->node = coh->config.self;
	slot->epoch++;
	slot->coming = 0;
	slot->had = true;
	for (uint16_t to = 0; to < coh->config.node_count; to++)
		if (member_set_has(&coh->linked, to))
			reg_is_send(coh, index, to, out);
}

int coh_reg_move(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	bool more = msg->flags & COH_MSG_MORE;
	struct coh_slot *slot;

	if (!member_set_has(&coh->leavers, msg->src) || msg->requester != msg->src ||
	    msg->acks >= COH_SLOTS)
		return -EPROTO;
	slot = &coh->slot[msg->acks];
	if (coh_broken(coh, COH_BROKEN_SLOT_EARLY) && slot->node == coh->config.self)
		return 0;
	if (slot->node != msg->src)
		return -EPROTO;
	if (more) {
		if (!entry_valid(coh, msg))
			return -EPROTO;
		slot->coming++;
		if (coh_broken(coh, COH_BROKEN_SLOT_EARLY)) {
			slot_take_over(coh, slot, msg->acks, out);
			return 0;
		}
		coh->registered[msg->gpn / CHUNK_PAGES] =
			(struct coh_registered){ .node = msg->node, .version = msg->version };
		return 0;
	}
	if (msg->version != slot->epoch + 1 || msg->age != slot->coming || msg->gpn ||
	    !entries_fit(coh, msg->acks))
		return -EPROTO;
	slot_take_over(coh, slot, msg->acks, out);
	return 0;
}

/* This node joins, and knows now that `src` has its link, and which slots. */
static int all_told(struct coh *coh, const struct coh_msg *msg)
{
	if (msg->version || !member_set_has(&coh->awaited, msg->src))
		return -EPROTO;
	member_set_remove(&coh->awaited, msg->src);
	return 0;
}

int coh_reg_is(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	struct coh_slot_move *move = &coh->slot_move;
	struct coh_slot *slot;

	(void)out;
	if (!coh->changed || msg->acks > COH_SLOTS || msg->node != msg->src ||
	    msg->requester != msg->src)
		return -EPROTO;
	if (msg->acks == COH_SLOTS)
		return all_told(coh, msg);
	slot = &coh->slot[msg->acks];
	if (slot->node != NODE_NONE && msg->version < slot->epoch)
		return 0;
	if (slot->node != NODE_NONE && slot->node != msg->src &&
	    (msg->version == slot->epoch || slot->node == coh->config.self))
		return -EPROTO;
	slot->node = msg->src;
	slot->epoch = msg->version;
	if (move->phase == SLOT_WAIT && move->slot == msg->acks)
		move->phase = SLOT_NONE;
	return 0;
}

static void tell_pump(struct coh *coh, struct coh_out *out)
{
	for (; coh->tell_node != NODE_NONE && coh_room(coh, out); coh->tell_cursor++) {
		bool all = coh->tell_cursor == COH_SLOTS;

		if (all || coh->slot[coh->tell_cursor].node == coh->config.self)
			reg_is_send(coh, coh->tell_cursor, coh->tell_node, out);
		if (all)
			coh->tell_node = NODE_NONE;
	}
}

/* ---- steps -------------------------------------------------------------------------------------- */

static bool begun_at(const struct coh *coh, uint16_t node)
{
	for (uint32_t i = 0; i < COH_PUSHES; i++)
		if (coh->push[i].active && coh->push[i].target == node)
			return true;
	return (coh->room_node == node && (coh->room_asked || coh->room_count)) ||
	       (coh->move.phase && coh->move.to == node) ||
	       (coh->slot_move.phase && coh->slot_move.to == node);
}

/* Something that it has to answer, or this home has asked it and waits for. */
static bool waits_for(const struct coh *coh, uint16_t node)
{
	for (uint32_t i = 0; i < coh->config.window; i++)
		if (coh->pending[i].phase == PENDING_SENT && coh->pending[i].home == node)
			return true;
	for (uint32_t i = 0; i < COH_PUSHES; i++)
		if (coh->push[i].active && coh->push[i].home == node)
			return true;
	for (uint32_t i = 0; i < COH_FREES; i++)
		if (coh->freeing[i].mask && coh->freeing[i].asked == node)
			return true;
	for (uint32_t i = 0; i < COH_FREES_HOME; i++)
		if (coh->free[i].phase && coh_bit(coh->free[i].asked, node))
			return true;
	return false;
}

static void flush_send(struct coh *coh, uint16_t to, uint16_t about, struct coh_out *out)
{
	struct coh_msg msg = { .type = COH_FLUSH, .requester = coh->config.self, .node = about };

	coh_send(coh, out, to, &msg);
}

/* Chunks that were known at who has gone: some of them. */
static void forget_pump(struct coh *coh, struct coh_out *out)
{
	for (uint32_t i = 0; i < SCAN_CHUNKS && coh->forget_cursor < coh->chunk_count; i++) {
		struct coh_chunk *c = &coh->chunk[coh->forget_cursor];

		if (!coh_room(coh, out))
			return;
		if (c->version && c->home == coh->step_node) {
			c->home = NODE_NONE;
			if (coh_broken(coh, COH_BROKEN_VERSION_FORGOTTEN))
				c->version = 0;
			coh_chunk_ask(coh, coh->forget_cursor, out);
		}
		coh->forget_cursor++;
	}
}

static uint32_t sharers_forget(const struct coh *coh, struct coh_directory *dir)
{
	if (!dir || coh_broken(coh, COH_BROKEN_SHARERS_UNMASKED))
		return 0;
	for (uint32_t i = 0; i < CHUNK_PAGES; i++)
		coh_bit_clear(dir->sharers + i * coh->sharer_words, coh->step_node);
	return SCAN_CHUNKS / 64;
}

/* Its copies, when nobody answers for them any more: in some of the directories. */
static void sharers_pump(struct coh *coh)
{
	for (uint32_t i = 0; i < SCAN_CHUNKS && coh->sharers_cursor < coh->chunk_count; i++) {
		const struct coh_chunk *c = &coh->chunk[coh->sharers_cursor++];

		i += sharers_forget(coh, c->dir) + sharers_forget(coh, c->incoming);
	}
}

static bool gone_is_done(const struct coh *coh, uint16_t node)
{
	return coh->forget_cursor >= coh->chunk_count && !has_slot(coh, node) &&
	       !coh->credit[node] && !coh->running[!coh->life] && !begun_at(coh, node) &&
	       !waits_for(coh, node);
}

static void gone_pump(struct coh *coh, struct coh_out *out)
{
	uint16_t node = coh->step_node;

	forget_pump(coh, out);
	if (!gone_is_done(coh, node))
		return;
	sharers_pump(coh);
	if (coh->sharers_cursor < coh->chunk_count || !coh_room(coh, out))
		return;
	if (member_set_has(&coh->linked, node)) {
		flush_send(coh, node, node, out);
		member_set_remove(&coh->linked, node);
	}
	coh->step_open = false;
}

/* Nothing under way names the number any more: it may be another's. */
static void free_pump(struct coh *coh)
{
	uint16_t node = coh->step_node;

	if (!coh_broken(coh, COH_BROKEN_FLUSH_LEFT_OUT) &&
	    (!member_set_covers(&coh->flushed, &coh->linked) ||
	     member_set_has(&coh->channels, node)))
		return;
	member_set_remove(&coh->members, node);
	member_set_remove(&coh->channels, node);
	member_set_remove(&coh->heard, node);
	member_set_remove(&coh->leavers, node);
	coh->flushed = (struct member_set){ 0 };
	coh->flush_node = NODE_NONE;
	coh->step_open = false;
}

void coh_member_pump(struct coh *coh, struct coh_out *out)
{
	if (!coh->changed)
		return;
	tell_pump(coh, out);
	slots_pump(coh, out);
	if (!coh->step_open)
		return;
	switch (coh->step) {
	case MEMBER_DRAINING:
		coh->step_open = begun_at(coh, coh->step_node);
		break;
	case MEMBER_GONE:
		gone_pump(coh, out);
		break;
	case MEMBER_FREE:
		free_pump(coh);
		break;
	default:
		coh->step_open = false;
		break;
	}
}

bool coh_member_due(const struct coh *coh)
{
	if (!coh->changed)
		return false;
	return coh->tell_node != NODE_NONE || coh->slot_move.phase == SLOT_SEND ||
	       (coh->step_open && coh->step == MEMBER_GONE &&
		(coh->forget_cursor < coh->chunk_count || gone_is_done(coh, coh->step_node)));
}

static void free_begin(struct coh *coh, uint16_t node, struct coh_out *out)
{
	coh->flush_node = node;
	for (uint16_t to = 0; to < coh->config.node_count; to++)
		if (member_set_has(&coh->linked, to))
			flush_send(coh, to, node, out);
}

static bool step_valid(const struct coh *coh, uint16_t node, enum member_state state)
{
	if (node >= coh->config.node_count || coh->step_open)
		return false;
	if (state == MEMBER_JOINING)
		return !member_set_has(&coh->members, node);
	return member_set_has(&coh->members, node) &&
	       !(state == MEMBER_FREE && node == coh->config.self);
}

int coh_member(struct coh *coh, uint16_t node, enum member_state state, uint64_t now_ns,
	       struct coh_out *out)
{
	int ret = coh_begin(coh, now_ns, out);

	if (ret)
		return ret;
	if (!step_valid(coh, node, state))
		return -EINVAL;
	coh->changed = true;
	coh->step_node = node;
	coh->step = state;
	coh->step_open = node != coh->config.self;
	switch (state) {
	case MEMBER_JOINING:
		member_set_add(&coh->members, node);
		member_set_add(&coh->share, node);
		break;
	case MEMBER_ACTIVE:
		member_set_add(&coh->stay, node);
		member_set_add(&coh->heard, node);
		break;
	case MEMBER_DRAINING:
		member_set_remove(&coh->stay, node);
		member_set_add(&coh->leavers, node);
		coh_room_leave(coh, out);
		break;
	case MEMBER_GONE:
		member_set_remove(&coh->stay, node);
		member_set_remove(&coh->awaited, node);
		if (node == coh->config.self)
			break;
		if (!coh_broken(coh, COH_BROKEN_SHARERS_UNMASKED))
			member_set_remove(&coh->share, node);
		coh->life = !coh->life;
		coh->forget_cursor = coh->sharers_cursor = 0;
		break;
	case MEMBER_FREE:
		free_begin(coh, node, out);
		break;
	}
	return coh_settle(coh, out);
}

bool coh_member_done(const struct coh *coh)
{
	return !coh->step_open;
}

int coh_linked(struct coh *coh, uint16_t node, uint64_t now_ns, struct coh_out *out)
{
	if (node >= coh->config.node_count || node == coh->config.self ||
	    !member_set_has(&coh->members, node))
		return -EINVAL;
	coh->changed = true;
	member_set_add(&coh->linked, node);
	member_set_add(&coh->channels, node);
	/* Who joins has no slots, and says nothing. */
	if (member_set_has(&coh->heard, coh->config.self)) {
		coh->tell_node = node;
		coh->tell_cursor = 0;
	}
	return coh_tick(coh, now_ns, out);
}

int coh_unlinked(struct coh *coh, uint16_t node, uint64_t now_ns, struct coh_out *out)
{
	if (node >= coh->config.node_count)
		return -EINVAL;
	member_set_remove(&coh->linked, node);
	member_set_remove(&coh->channels, node);
	if (coh->tell_node == node)
		coh->tell_node = NODE_NONE;
	return coh_tick(coh, now_ns, out);
}

bool coh_member_ready(const struct coh *coh)
{
	return !has_slot(coh, NODE_NONE) && !member_set_count(&coh->awaited);
}

int coh_flush(struct coh *coh, const struct coh_msg *msg, struct coh_out *out)
{
	(void)out;
	if (!coh->changed || msg->requester != msg->src ||
	    !member_set_has(&coh->members, msg->node) || msg->node == msg->src)
		return -EPROTO;
	/* About this node: its last word here. About another: perhaps this node has not heard yet. */
	if (coh->flush_node != NODE_NONE && coh->flush_node != msg->node)
		return -EPROTO;
	coh->flush_node = msg->node;
	member_set_add(&coh->flushed, msg->src);
	return 0;
}

bool coh_flushed(const struct coh *coh)
{
	return coh->flush_node == coh->config.self &&
	       member_set_covers(&coh->flushed, &coh->linked);
}

/* Who has gone may still send on what others ask, until its channel ends. */
static bool gone_lingers(const struct coh *coh)
{
	for (uint32_t w = 0; w < NODES_MAX / 64; w++)
		if (coh->channels.word[w] & ~coh->share.word[w])
			return true;
	return false;
}

bool coh_member_released(const struct coh *coh)
{
	if (!member_set_has(&coh->leavers, coh->config.self))
		return true;
	return !coh->slot_move.phase && !has_slot(coh, coh->config.self) && !gone_lingers(coh);
}
