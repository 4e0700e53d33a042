/* SPDX-License-Identifier: Apache-2.0 */
/* The pod's members: see member_list.h for the steps, who says what when, and why it holds. */
#include "core/member_list.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static bool set_is_empty(const struct member_set *set)
{
	for (uint16_t i = 0; i < NODES_MAX / 64; i++)
		if (set->word[i])
			return false;
	return true;
}

static enum member_state state_of(const struct member_list *list, uint16_t node)
{
	return list->now.member[node].state;
}

static uint16_t steward(const struct member_list *list)
{
	return list->now.seat[SEAT_STEWARD];
}

/* The steward's seat is on its way: nobody sends it anything until the new one has said OVER. */
static bool seat_moves(const struct member_list *list)
{
	return !list->over && list->last.kind == KIND_SEAT && list->last.seat == SEAT_STEWARD;
}

bool member_list_counts(const struct member_list *list, uint16_t node)
{
	return node < list->now.number_count &&
	       (state_of(list, node) == MEMBER_ACTIVE || state_of(list, node) == MEMBER_DRAINING);
}

uint16_t member_list_joiner(const struct member_list *list)
{
	for (uint16_t node = 0; node < list->now.number_count; node++)
		if (state_of(list, node) == MEMBER_JOINING)
			return node;
	return NODE_NONE;
}

bool member_list_has_seat(const struct member_list *list, uint16_t node)
{
	for (int seat = 0; seat < SEAT_COUNT; seat++)
		if (list->now.seat[seat] == node)
			return true;
	return false;
}

/* ---- what messages are judged by ------------------------------------------------------------- */

/* FREE x is under way: there may be words yet of him, and that name him. */
static bool is_being_freed(const struct member_list *list, uint16_t node)
{
	return list->last.kind == KIND_FREE && list->last.node == node && !list->done;
}

bool member_list_hears(const struct member_list *list, uint16_t node)
{
	return node < list->now.number_count && node != list->self &&
	       (state_of(list, node) != MEMBER_FREE || is_being_freed(list, node));
}

bool member_list_may_begin(const struct member_list *list, uint16_t node)
{
	return member_list_counts(list, list->self) && node < list->now.number_count &&
	       node != list->self && state_of(list, node) == MEMBER_ACTIVE;
}

static bool has_gone(const struct member_list *list, uint16_t node)
{
	return state_of(list, node) == MEMBER_GONE || state_of(list, node) == MEMBER_FREE;
}

/*
 * JOINING: the other, or this node, may know of ACTIVE already. Who is GONE has begun nothing since
 * before DRAINED, and nobody anything at him since before DRAIN's DONE, and all that was answered.
 */
bool member_list_may_be_begun(const struct member_list *list, uint16_t node)
{
	return member_list_hears(list, node) && !has_gone(list, node) &&
	       state_of(list, list->self) != MEMBER_GONE;
}

bool member_list_may_be_named(const struct member_list *list, uint16_t node)
{
	return node < list->now.number_count &&
	       (state_of(list, node) != MEMBER_FREE || is_being_freed(list, node));
}

/* ---- beginnings ------------------------------------------------------------------------------ */

static void begin(struct member_list *list, uint16_t self)
{
	memset(list, 0, sizeof(*list));
	list->self = self;
	list->orderer = NODE_NONE;
	list->last.node = NODE_NONE;
	list->last.by = NODE_NONE;
	list->done = list->over = true;
}

void member_list_init(struct member_list *list, uint16_t self, uint16_t number_count,
		      uint16_t member_count, const struct member_about *about)
{
	assert(number_count <= NODES_MAX && member_count <= number_count && self < member_count);
	begin(list, self);
	list->now.number_count = number_count;
	for (uint16_t node = 0; node < member_count; node++)
		list->now.member[node] =
			(struct member){ .state = MEMBER_ACTIVE, .about = about[node] };
	list->leading = self == 0;
}

void member_list_needs(struct member_list *list, uint64_t bytes)
{
	list->needs_bytes = bytes;
}

static bool about_is_sound(const struct member_about *about)
{
	return about->name[0] && memchr(about->name, 0, sizeof(about->name)) &&
	       memchr(about->address, 0, sizeof(about->address));
}

int member_list_init_joiner(struct member_list *list, uint16_t self,
			    const struct member_snapshot *snapshot)
{
	if (snapshot->number_count > NODES_MAX || self >= snapshot->number_count)
		return -EINVAL;
	for (uint16_t node = 0; node < NODES_MAX; node++) {
		const struct member *member = &snapshot->member[node];

		if (node >= snapshot->number_count || member->state == MEMBER_FREE) {
			if (member->state != MEMBER_FREE)
				return -EINVAL;
			continue;
		}
		if (member->state > MEMBER_GONE || member->since > snapshot->step ||
		    !about_is_sound(&member->about) ||
		    (member->state == MEMBER_JOINING) != (node == self))
			return -EINVAL;
	}
	/* Nothing comes between a JOIN and what ends it. */
	if (snapshot->member[self].since != snapshot->step)
		return -EINVAL;
	for (int seat = 0; seat < SEAT_COUNT; seat++)
		if (snapshot->seat[seat] >= snapshot->number_count ||
		    snapshot->member[snapshot->seat[seat]].state != MEMBER_ACTIVE)
			return -EINVAL;
	begin(list, self);
	list->now = *snapshot;
	return 0;
}

/* ---- outputs --------------------------------------------------------------------------------- */

static struct member_out *put(struct member_list *list, enum member_out_type type,
			      const struct member_word *word)
{
	struct member_out *out;

	assert(list->out_count < MEMBER_OUTS);
	out = &list->out[(list->out_first + list->out_count++) % MEMBER_OUTS];
	*out = (struct member_out){ .type = type, .word = *word };
	return out;
}

static void send(struct member_list *list, uint16_t to, const struct member_word *word)
{
	member_set_add(&put(list, MEMBER_SEND, word)->to, to);
}

static void end(struct member_list *list, uint16_t node)
{
	put(list, MEMBER_END, &(struct member_word){ .node = node });
	list->ended = true;
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* Whether it can follow this list. Any numbers. */
static bool step_is_sound(const struct member_list *list, const struct member_word *step)
{
	uint16_t node = step->node;
	enum member_state state;

	if (node >= list->now.number_count)
		return false;
	state = state_of(list, node);
	switch (step->kind) {
	case KIND_JOIN:
		return about_is_sound(&step->about) && node != list->self &&
		       (member_list_joiner(list) == NODE_NONE ||
			list->broken == MEMBER_BROKEN_BESIDE_JOIN) &&
		       state == MEMBER_FREE;
	case KIND_ACTIVE:
		return state == MEMBER_JOINING || state == MEMBER_DRAINING;
	case KIND_DRAIN:
		return state == MEMBER_ACTIVE && (!member_list_has_seat(list, node) ||
						  list->broken == MEMBER_BROKEN_SEAT_LEAVES);
	case KIND_GONE:
		return state == MEMBER_DRAINING || (state == MEMBER_JOINING && node != list->self);
	case KIND_FREE:
		return state == MEMBER_GONE;
	case KIND_SEAT:
		return step->seat < SEAT_COUNT && state == MEMBER_ACTIVE &&
		       list->now.seat[step->seat] != node;
	default:
		return false;
	}
}

static void queue_wish(struct member_list *list, const struct member_word *wish)
{
	list->queue[(list->queue_first + list->queue_count++) % NODES_MAX] = *wish;
}

static struct member_word take_wish(struct member_list *list)
{
	struct member_word wish = list->queue[list->queue_first];

	list->queue_first = (uint16_t)((list->queue_first + 1) % NODES_MAX);
	list->queue_count--;
	return wish;
}

/* Its number will be another's. */
static void forget_wishes(struct member_list *list, uint16_t node)
{
	for (uint16_t i = list->queue_count; i > 0; i--) {
		struct member_word wish = take_wish(list);

		if (wish.by != node)
			queue_wish(list, &wish);
	}
}

static void change(struct member_list *list, const struct member_word *step)
{
	static const enum member_state states[] = {
		[KIND_JOIN] = MEMBER_JOINING,	[KIND_ACTIVE] = MEMBER_ACTIVE,
		[KIND_DRAIN] = MEMBER_DRAINING, [KIND_GONE] = MEMBER_GONE,
		[KIND_FREE] = MEMBER_FREE,
	};
	struct member *member = &list->now.member[step->node];

	if (step->kind == KIND_SEAT) {
		list->now.seat[step->seat] = step->node;
		return;
	}
	if (step->kind == KIND_JOIN)
		member->about = step->about;
	member->state = states[step->kind];
	member->since = step->number;
	member_set_remove(&list->drained, step->node);
	if (step->kind == KIND_GONE)
		forget_wishes(list, step->node);
}

/* The list is another from here on. */
static void apply(struct member_list *list, const struct member_word *step, uint16_t orderer)
{
	bool lost = list->lost[step->node];

	list->now.step = step->number;
	list->last = *step;
	list->orderer = orderer;
	list->over = false;
	change(list, step);
	/* Who goes owes nothing: it has said that it holds nothing. */
	list->done = step->kind == KIND_GONE && step->node == list->self;
	if (step->kind == KIND_SEAT && step->seat == SEAT_STEWARD)
		list->leading =
			list->broken == MEMBER_BROKEN_TWO_STEWARDS && step->node == list->self;
	list->lost[step->node] = lost && step->kind == KIND_ACTIVE;
	put(list, MEMBER_APPLIED, step);
	if (list->lost[step->node] && list->broken != MEMBER_BROKEN_LOST_ACTIVE)
		end(list, step->node);
}

static void is_over(struct member_list *list)
{
	list->over = true;
	if (list->last.by == list->self)
		list->wishing = false;
	put(list, MEMBER_IS_OVER, &list->last);
}

static struct member_set members(const struct member_list *list)
{
	struct member_set set = { { 0 } };

	for (uint16_t node = 0; node < list->now.number_count; node++)
		if (member_list_counts(list, node))
			member_set_add(&set, node);
	return set;
}

/* Those who hear of the last step, and of its end. A joiner that failed does not. */
static struct member_set told(const struct member_list *list)
{
	struct member_set set = members(list);

	if (list->last.kind == KIND_GONE && list->last.why == 0)
		member_set_add(&set, list->last.node);
	member_set_remove(&set, list->self);
	return set;
}

/* ---- the steward ----------------------------------------------------------------------------- */

static void order(struct member_list *list, struct member_word *step, uint64_t now_ns)
{
	step->type = MEMBER_STEP;
	step->number = list->now.step + 1;
	assert(step_is_sound(list, step));
	if (step->kind == KIND_JOIN) {
		list->ready = false;
		list->failed = 0;
		list->join_by_ns = now_ns + MEMBER_JOIN_NS;
	}
	apply(list, step, list->self);
	list->awaited = members(list);
	list->open = true;
	put(list, MEMBER_SEND, step)->to = told(list);
}

static void tell_over(struct member_list *list)
{
	struct member_word word = { .type = MEMBER_OVER, .number = list->now.step };

	put(list, MEMBER_SEND, &word)->to = told(list);
	is_over(list);
}

/* `node` has said DONE. */
static void answered(struct member_list *list, uint16_t node)
{
	member_set_remove(&list->awaited, node);
	if (list->broken == MEMBER_BROKEN_ONE_DONE) {
		struct member_set rest = list->awaited;

		for (int i = 0; i < NODES_MAX / 64 && !set_is_empty(&rest); i++)
			if (rest.word[i]) {
				rest.word[i] &= rest.word[i] - 1;
				break;
			}
		if (!set_is_empty(&rest) || !list->open || !list->done)
			return;
	} else if (!set_is_empty(&list->awaited)) {
		return;
	}
	list->open = false;
	if (steward(list) == list->self)
		tell_over(list);
	else /* it begins, and tells all */
		send(list, steward(list),
		     &(struct member_word){ .type = MEMBER_OVER, .number = list->now.step });
}

static uint16_t find_number(const struct member_list *list, enum member_state state)
{
	for (uint16_t node = 0; node < list->now.number_count; node++)
		if (state_of(list, node) == state)
			return node;
	return NODE_NONE;
}

static bool name_is_taken(const struct member_list *list, const char *name)
{
	for (uint16_t node = 0; node < list->now.number_count; node++)
		if (member_list_counts(list, node) &&
		    !strcmp(list->now.member[node].about.name, name))
			return true;
	return false;
}

/* Two members may have been shown one at the same time. */
static bool token_is_taken(const struct member_list *list, const struct member_about *about)
{
	for (uint16_t node = 0; about->token_expiry_s && node < list->now.number_count; node++) {
		const struct member_about *other = &list->now.member[node].about;

		if (state_of(list, node) != MEMBER_FREE && other->token_id == about->token_id &&
		    other->token_expiry_s == about->token_expiry_s)
			return true;
	}
	return false;
}

static bool fits_without(const struct member_list *list, uint16_t node)
{
	uint64_t bytes = 0;
	uint32_t cores = 0;

	for (uint16_t other = 0; other < list->now.number_count; other++) {
		const struct member *member = &list->now.member[other];

		if (other == node || member->state != MEMBER_ACTIVE)
			continue;
		if (member->about.promise_bytes > UINT64_MAX - bytes)
			return true;
		bytes += member->about.promise_bytes;
		cores += member->about.cores;
	}
	return !list->needs_bytes || (bytes >= list->needs_bytes && cores > 0);
}

/* 0: it may be ordered. Its turn has come: the list is what it will be. */
static int judge_wish(const struct member_list *list, const struct member_word *wish)
{
	enum member_state state =
		wish->kind == KIND_JOIN ? MEMBER_FREE : state_of(list, wish->node);

	switch (wish->kind) {
	case KIND_JOIN:
		if (name_is_taken(list, wish->about.name))
			return -EEXIST;
		if (token_is_taken(list, &wish->about))
			return -EKEYREJECTED;
		return find_number(list, MEMBER_FREE) == NODE_NONE ? -ENOSPC : 0;
	case KIND_ACTIVE:
		return state == MEMBER_DRAINING ? 0 : -ENOENT;
	case KIND_DRAIN:
		if (state != MEMBER_ACTIVE)
			return state == MEMBER_DRAINING ? -EALREADY : -ENOENT;
		if (member_list_has_seat(list, wish->node) &&
		    list->broken != MEMBER_BROKEN_SEAT_LEAVES)
			return -EBUSY;
		return fits_without(list, wish->node) ? 0 : -ENOSPC;
	default:
		if (state != MEMBER_ACTIVE)
			return -ENOENT;
		return list->now.seat[wish->seat] == wish->node ? -EALREADY : 0;
	}
}

static void refuse(struct member_list *list, const struct member_word *wish, int why)
{
	struct member_word word = { .type = MEMBER_REFUSED, .id = wish->id, .why = why };

	if (wish->by != list->self) {
		send(list, wish->by, &word);
		return;
	}
	list->wishing = false;
	put(list, MEMBER_UNWANTED, &word);
}

static void lead_wish(struct member_list *list, uint64_t now_ns)
{
	struct member_word wish = take_wish(list);
	int why;

	why = judge_wish(list, &wish);
	if (why) {
		refuse(list, &wish, why);
		return;
	}
	if (wish.kind == KIND_JOIN)
		wish.node = find_number(list, MEMBER_FREE);
	order(list, &wish, now_ns);
}

static void order_own(struct member_list *list, enum member_kind kind, uint16_t node, int why,
		      uint64_t now_ns)
{
	order(list,
	      &(struct member_word){ .kind = kind, .node = node, .why = why, .by = NODE_NONE },
	      now_ns);
}

/* Somebody joins. False: nothing is to be done about him. */
static bool lead_joiner(struct member_list *list, uint16_t joiner, uint64_t now_ns)
{
	bool late = now_ns >= list->join_by_ns && list->broken != MEMBER_BROKEN_NO_DEADLINE;

	if (list->failed)
		order_own(list, KIND_GONE, joiner, list->failed, now_ns);
	else if (list->ready)
		order_own(list, KIND_ACTIVE, joiner, 0, now_ns);
	else if (late)
		order_own(list, KIND_GONE, joiner, -ETIMEDOUT, now_ns);
	else
		return false;
	return true;
}

static uint16_t find_drained(const struct member_list *list)
{
	for (uint16_t i = 0; i < NODES_MAX / 64; i++)
		if (list->drained.word[i])
			return (uint16_t)(i * 64 + __builtin_ctzll(list->drained.word[i]));
	return NODE_NONE;
}

/* A number whose GONE is over may be freed: at leisure, or as a joiner wants one. */
static bool wants_free(const struct member_list *list)
{
	if (find_number(list, MEMBER_GONE) == NODE_NONE)
		return false;
	return list->queue_count == 0 || (list->queue[list->queue_first].kind == KIND_JOIN &&
					  find_number(list, MEMBER_FREE) == NODE_NONE);
}

/* One thing to do. False: there is none. */
static bool lead(struct member_list *list, uint64_t now_ns)
{
	uint16_t joiner = member_list_joiner(list), drained = find_drained(list);

	if (joiner != NODE_NONE) {
		if (lead_joiner(list, joiner, now_ns))
			return true;
		if (list->broken != MEMBER_BROKEN_BESIDE_JOIN)
			return false;
	}
	if (drained != NODE_NONE) {
		order_own(list, KIND_GONE, drained, 0, now_ns);
	} else if (wants_free(list)) {
		order_own(list, KIND_FREE, find_number(list, MEMBER_GONE), 0, now_ns);
	} else if (list->queue_count > 0) {
		lead_wish(list, now_ns);
	} else {
		return false;
	}
	return true;
}

/* ---- words that come ------------------------------------------------------------------------- */

static bool wish_is_sound(const struct member_list *list, const struct member_word *wish)
{
	switch (wish->kind) {
	case KIND_JOIN:
		return about_is_sound(&wish->about);
	case KIND_SEAT:
		return wish->seat < SEAT_COUNT && wish->node < list->now.number_count;
	case KIND_ACTIVE:
	case KIND_DRAIN:
		return wish->node < list->now.number_count;
	default:
		return false;
	}
}

/*
 * Whether this node may be told something as the steward: it is that, or has been until now, or
 * will be, and the old one sends on what has come late. `by`: who says it.
 */
static bool may_tell(const struct member_list *list, uint16_t src, uint16_t by)
{
	if (list->broken == MEMBER_BROKEN_TWO_STEWARDS)
		return by < list->now.number_count;
	if (list->leading || (list->open && list->orderer == list->self))
		return by == src;
	return steward(list) == list->self && seat_moves(list) && src == list->orderer &&
	       by < list->now.number_count;
}

static int hear_wish(struct member_list *list, uint16_t src, const struct member_word *word)
{
	if (!wish_is_sound(list, word) || !may_tell(list, src, word->by) ||
	    !(member_list_counts(list, word->by) || has_gone(list, word->by)))
		return -EPROTO;
	for (uint16_t i = 0; i < list->queue_count; i++)
		if (list->queue[(list->queue_first + i) % NODES_MAX].by == word->by)
			return -EPROTO;
	if (!has_gone(list, word->by)) /* or it was sent on, and who wished has left since */
		queue_wish(list, word);
	return 0;
}

static int hear_report(struct member_list *list, uint16_t src, const struct member_word *word)
{
	bool own = word->type != MEMBER_FAILED;
	enum member_state fits = word->type == MEMBER_DRAINED ? MEMBER_DRAINING : MEMBER_JOINING;

	if (word->node >= list->now.number_count || !may_tell(list, src, word->by) ||
	    own != (word->node == word->by) || (own ? word->why != 0 : word->why >= 0))
		return -EPROTO;
	if (state_of(list, word->node) != fits)
		return 0; /* it was, when that was said */
	if (word->type == MEMBER_READY)
		list->ready = true;
	else if (word->type == MEMBER_FAILED)
		list->failed = list->failed ? list->failed : word->why;
	else if (steward(list) == list->self)
		member_set_add(&list->drained, word->node);
	else
		send(list, steward(list), word);
	return 0;
}

static int hear_step(struct member_list *list, uint16_t src, const struct member_word *word)
{
	bool in_turn = (list->done && list->over) || list->broken == MEMBER_BROKEN_NOT_OVER ||
		       list->broken == MEMBER_BROKEN_TWO_STEWARDS ||
		       list->broken == MEMBER_BROKEN_ONE_DONE;

	if (src != steward(list) || !in_turn || word->number != list->now.step + 1 ||
	    (word->why < 0) != (word->kind == KIND_GONE && word->node < list->now.number_count &&
				state_of(list, word->node) == MEMBER_JOINING) ||
	    (word->by != NODE_NONE && word->by >= list->now.number_count) || word->why > 0 ||
	    (word->by == list->self && (!list->wishing || word->id != list->wish_id)))
		return -EPROTO;
	/* Who is no member hears of no step but the one that makes it one. */
	if (!member_list_counts(list, list->self) &&
	    !(state_of(list, list->self) == MEMBER_JOINING && word->kind == KIND_ACTIVE &&
	      word->node == list->self) &&
	    list->broken == MEMBER_BROKEN_NONE)
		return -EPROTO;
	if (!step_is_sound(list, word))
		return -EPROTO;
	apply(list, word, src);
	return 0;
}

static int hear_done(struct member_list *list, uint16_t src, const struct member_word *word)
{
	if (list->orderer != list->self || !list->open || word->number != list->now.step ||
	    !member_set_has(&list->awaited, src))
		return list->broken ? 0 : -EPROTO;
	answered(list, src);
	return 0;
}

static int hear_over(struct member_list *list, uint16_t src, const struct member_word *word)
{
	bool seated = seat_moves(list) && steward(list) == list->self;

	if (word->number != list->now.step || list->over || !list->done ||
	    src != (seated ? list->orderer : steward(list)))
		return list->broken ? 0 : -EPROTO;
	if (seated) {
		list->leading = true;
		tell_over(list);
	} else {
		is_over(list);
	}
	return 0;
}

static int hear_refused(struct member_list *list, uint16_t src, const struct member_word *word)
{
	if (src != steward(list) || !list->wishing || list->wish_waits || word->why >= 0 ||
	    word->id != list->wish_id)
		return -EPROTO;
	list->wishing = false;
	put(list, MEMBER_UNWANTED, word);
	return 0;
}

int member_list_hear(struct member_list *list, uint16_t src, const struct member_word *word,
		     uint64_t now_ns)
{
	(void)now_ns;
	if (list->ended)
		return 0;
	if (!member_list_hears(list, src))
		return -EPROTO;
	switch (word->type) {
	case MEMBER_STEP:
		return hear_step(list, src, word);
	case MEMBER_DONE:
		return hear_done(list, src, word);
	case MEMBER_OVER:
		return hear_over(list, src, word);
	case MEMBER_WISH:
		return hear_wish(list, src, word);
	case MEMBER_REFUSED:
		return hear_refused(list, src, word);
	case MEMBER_READY:
	case MEMBER_FAILED:
	case MEMBER_DRAINED:
		return hear_report(list, src, word);
	default:
		return -EPROTO;
	}
}

/* ---- what happens here ----------------------------------------------------------------------- */

/* To the steward, who may be this node. */
static void report(struct member_list *list, enum member_word_type type, uint16_t node, int why)
{
	struct member_word word = { .type = type, .node = node, .by = list->self, .why = why };

	if (steward(list) != list->self)
		send(list, steward(list), &word);
	else
		(void)hear_report(list, list->self, &word);
}

void member_list_fail_joiner(struct member_list *list, int why)
{
	uint16_t joiner = member_list_joiner(list);

	assert(why < 0);
	if (joiner != NODE_NONE && joiner != list->self && !list->ended)
		report(list, MEMBER_FAILED, joiner, why);
}

/* Whether the pod ends for this node when `node` is lost. */
static bool ends_for(const struct member_list *list, uint16_t node)
{
	bool needed = list->last.kind == KIND_GONE && list->last.node == node && !list->done;

	if (state_of(list, list->self) == MEMBER_GONE)
		return node == steward(list) && !list->over;
	if (state_of(list, node) == MEMBER_GONE)
		return needed && list->last.why == 0 && list->broken != MEMBER_BROKEN_GONE_EARLY;
	return state_of(list, node) != MEMBER_FREE;
}

void member_list_lost(struct member_list *list, uint16_t node)
{
	if (list->ended || node >= list->now.number_count || node == list->self)
		return;
	if (state_of(list, node) == MEMBER_JOINING && list->broken != MEMBER_BROKEN_JOINER_ENDS) {
		if (!list->lost[node])
			report(list, MEMBER_FAILED, node, -ECONNRESET);
		list->lost[node] = true;
	} else if (ends_for(list, node)) {
		end(list, node);
	}
}

void member_list_done(struct member_list *list)
{
	if (list->ended)
		return;
	assert(!list->done && member_list_counts(list, list->self));
	list->done = true;
	if (list->orderer != list->self)
		send(list, list->orderer,
		     &(struct member_word){ .type = MEMBER_DONE, .number = list->now.step });
	else if (list->open)
		answered(list, list->self);
}

int member_list_wish(struct member_list *list, const struct member_word *wish, uint32_t *ret_id)
{
	if (!wish_is_sound(list, wish))
		return -EINVAL;
	if (!member_list_counts(list, list->self))
		return -EPERM;
	if (list->wishing)
		return -EBUSY;
	list->wish = (struct member_word){ .type = MEMBER_WISH,
					   .kind = wish->kind,
					   .seat = wish->seat,
					   .node = wish->node,
					   .by = list->self,
					   .id = ++list->wish_id,
					   .about = wish->about };
	list->wishing = list->wish_waits = true;
	*ret_id = list->wish_id;
	return 0;
}

void member_list_ready(struct member_list *list)
{
	if (!list->ended && state_of(list, list->self) == MEMBER_JOINING)
		report(list, MEMBER_READY, list->self, 0);
}

void member_list_drained(struct member_list *list)
{
	if (state_of(list, list->self) == MEMBER_DRAINING)
		list->drained_waits = true;
}

/* ---- what is to be done ---------------------------------------------------------------------- */

static void send_what_waits(struct member_list *list)
{
	if (list->drained_waits) {
		list->drained_waits = false;
		report(list, MEMBER_DRAINED, list->self, 0);
	}
	if (list->wish_waits) {
		list->wish_waits = false;
		if (steward(list) == list->self)
			queue_wish(list, &list->wish);
		else
			send(list, steward(list), &list->wish);
	}
}

/* Behind STEP, which the new steward has by then. */
static void send_on(struct member_list *list)
{
	struct member_word wish = take_wish(list);

	if (list->broken == MEMBER_BROKEN_WISHES_DROPPED)
		return;
	if (wish.by != list->self) {
		send(list, steward(list), &wish);
		return;
	}
	list->wish_waits = true;
}

static bool may_lead(const struct member_list *list)
{
	return list->over || (list->done && (list->broken == MEMBER_BROKEN_NOT_OVER ||
					     list->broken == MEMBER_BROKEN_TWO_STEWARDS));
}

bool member_list_next(struct member_list *list, uint64_t now_ns, struct member_out *ret)
{
	if (list->out_count == 0 && !list->ended) {
		if (!seat_moves(list) || list->broken == MEMBER_BROKEN_EAGER)
			send_what_waits(list);
		while (list->out_count == 0 && list->queue_count > 0 && steward(list) != list->self)
			send_on(list);
		while (list->leading && list->out_count == 0 && may_lead(list) &&
		       lead(list, now_ns)) {
		}
	}
	if (list->out_count == 0)
		return false;
	*ret = list->out[list->out_first];
	list->out_first = (list->out_first + 1) % MEMBER_OUTS;
	list->out_count--;
	return true;
}

uint64_t member_list_deadline(const struct member_list *list)
{
	bool waits = list->leading && list->over && !list->ended &&
		     member_list_joiner(list) != NODE_NONE;

	return waits ? list->join_by_ns : UINT64_MAX;
}
