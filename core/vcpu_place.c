/* SPDX-License-Identifier: Apache-2.0 */
/* Where the vCPUs live: see vcpu_place.h for states, threads and why it holds. */
#include "core/vcpu_place.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#define STATE_BITS  3
#define NODE_BITS   16
#define EPOCH_SHIFT (STATE_BITS + NODE_BITS)

static uint64_t pack(enum place_state state, uint16_t node, uint64_t epoch)
{
	return epoch << EPOCH_SHIFT | (uint64_t)node << STATE_BITS | state;
}

static void write_word(struct vcpu_places *places, uint32_t vcpu, enum place_state state,
		       uint16_t node, uint64_t epoch)
{
	atomic_store(&places->word[vcpu], pack(state, node, epoch));
}

static void begin(struct vcpu_places *places, uint16_t self, uint16_t node_count,
		  uint32_t vcpu_count)
{
	const struct member_set all = member_set_below(node_count);

	assert(vcpu_count <= VCPUS_MAX && node_count <= NODES_MAX && self < node_count);
	places->vcpu_count = vcpu_count;
	places->node_count = node_count;
	places->self = self;
	places->broken = PLACE_BROKEN_NONE;
	vcpu_places_members(places, &all);
}

void vcpu_places_init(struct vcpu_places *places, uint16_t self, uint16_t node_count,
		      uint32_t vcpu_count, const uint16_t *first)
{
	begin(places, self, node_count, vcpu_count);
	for (uint32_t vcpu = 0; vcpu < vcpu_count; vcpu++) {
		assert(first[vcpu] < node_count);
		atomic_init(&places->word[vcpu],
			    pack(first[vcpu] == self ? PLACE_HERE : PLACE_AWAY, first[vcpu], 0));
	}
}

void vcpu_places_init_joiner(struct vcpu_places *places, uint16_t self, uint16_t node_count,
			     uint32_t vcpu_count)
{
	begin(places, self, node_count, vcpu_count);
	for (uint32_t vcpu = 0; vcpu < vcpu_count; vcpu++)
		atomic_init(&places->word[vcpu], pack(PLACE_UNKNOWN, NODE_NONE, 0));
}

void vcpu_places_members(struct vcpu_places *places, const struct member_set *members)
{
	for (uint32_t w = 0; w < NODES_MAX / 64; w++)
		atomic_store(&places->members[w], members->word[w]);
}

static bool is_member(struct vcpu_places *places, uint16_t node)
{
	return atomic_load(&places->members[node / 64]) >> (node % 64) & 1;
}

struct vcpu_place vcpu_place_read(const struct vcpu_places *places, uint32_t vcpu)
{
	uint64_t word = atomic_load(&places->word[vcpu]);

	return (struct vcpu_place){
		.epoch = word >> EPOCH_SHIFT,
		.state = (enum place_state)(word & ((1u << STATE_BITS) - 1)),
		.node = (uint16_t)(word >> STATE_BITS),
	};
}

enum place_naming vcpu_places_name(const struct vcpu_places *places, uint16_t node)
{
	enum place_naming found = PLACES_NAME_NONE;

	for (uint32_t vcpu = 0; vcpu < places->vcpu_count; vcpu++) {
		struct vcpu_place place = vcpu_place_read(places, vcpu);

		if (place.node != node)
			continue;
		if (place.state == PLACE_LEAVING || place.state == PLACE_SENT)
			return PLACES_GO_THERE;
		found = PLACES_NAME;
	}
	return found;
}

uint32_t vcpu_places_unknown(const struct vcpu_places *places)
{
	uint32_t count = 0;

	for (uint32_t vcpu = 0; vcpu < places->vcpu_count; vcpu++)
		count += vcpu_place_read(places, vcpu).state == PLACE_UNKNOWN;
	return count;
}

enum place_route vcpu_place_route(const struct vcpu_places *places, uint32_t vcpu,
				  uint16_t *ret_node)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	switch (place.state) {
	case PLACE_HERE:
		return PLACE_WAKE;
	case PLACE_LEAVING:
		if (places->broken != PLACE_BROKEN_LEAVING_AWAY)
			return PLACE_LEAVE_IT;
		break;
	case PLACE_ARRIVING:
		if (places->broken != PLACE_BROKEN_ARRIVING_AWAY || place.node == places->self)
			return PLACE_LEAVE_IT;
		break;
	case PLACE_UNKNOWN:
		return PLACE_LEAVE_IT; /* until PLACE comes, and the inbox is forwarded */
	default:
		break;
	}
	*ret_node = place.node;
	return PLACE_FORWARD;
}

/* ---- the seat's thread ----------------------------------------------------------------------- */

int vcpu_place_leave(struct vcpu_places *places, uint32_t vcpu, uint16_t to)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	assert(place.state == PLACE_HERE);
	if (to >= places->node_count || to == places->self || !is_member(places, to))
		return -EINVAL;
	/* The move takes one, its refusal another. */
	if (place.epoch > PLACE_EPOCH_MAX - 2)
		return -EOVERFLOW;
	write_word(places, vcpu, PLACE_LEAVING, to, place.epoch);
	if (is_member(places, to))
		return 0;
	write_word(places, vcpu, PLACE_HERE, places->self, place.epoch);
	return -EINVAL;
}

void vcpu_place_stay(struct vcpu_places *places, uint32_t vcpu)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	assert(place.state == PLACE_LEAVING);
	write_word(places, vcpu, PLACE_HERE, places->self, place.epoch);
}

void vcpu_place_sent(struct vcpu_places *places, uint32_t vcpu)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	assert(place.state == PLACE_LEAVING);
	write_word(places, vcpu, PLACE_SENT, place.node, place.epoch + 1);
}

uint64_t vcpu_place_here(struct vcpu_places *places, uint32_t vcpu)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	assert(place.state == PLACE_ARRIVING);
	write_word(places, vcpu, PLACE_HERE, places->self, place.epoch);
	return place.epoch;
}

void vcpu_place_refuse(struct vcpu_places *places, uint32_t vcpu)
{
	struct vcpu_place place = vcpu_place_read(places, vcpu);

	assert(place.state == PLACE_ARRIVING && place.node != places->self);
	write_word(places, vcpu, PLACE_AWAY, place.node, place.epoch + 1);
}

/* ---- the control thread ---------------------------------------------------------------------- */

static bool in_range(const struct vcpu_places *places, uint32_t vcpu, uint16_t src, uint64_t epoch)
{
	return vcpu < places->vcpu_count && src < places->node_count && src != places->self &&
	       epoch <= PLACE_EPOCH_MAX;
}

enum place_verdict vcpu_place_on_move(struct vcpu_places *places, uint32_t vcpu, uint16_t src,
				      uint64_t epoch)
{
	struct vcpu_place place;

	/* Its refusal would take one epoch more. */
	if (!in_range(places, vcpu, src, epoch) || epoch == PLACE_EPOCH_MAX)
		return PLACE_LIE;
	place = vcpu_place_read(places, vcpu);
	if (place.state != PLACE_AWAY || place.node != src || epoch != place.epoch + 1)
		return PLACE_LIE;
	write_word(places, vcpu, PLACE_ARRIVING, src, epoch);
	return PLACE_NEWS;
}

enum place_verdict vcpu_place_on_place(struct vcpu_places *places, uint32_t vcpu, uint16_t src,
				       uint64_t epoch)
{
	struct vcpu_place place;
	bool was_sent;

	if (!in_range(places, vcpu, src, epoch))
		return PLACE_LIE;
	place = vcpu_place_read(places, vcpu);
	if (place.state == PLACE_UNKNOWN) {
		write_word(places, vcpu, PLACE_AWAY, src, epoch);
		return PLACE_NEWS;
	}
	was_sent = place.state == PLACE_SENT;
	if (epoch > place.epoch && epoch - place.epoch > PLACE_STEP_MAX)
		return PLACE_LIE;
	if (epoch < place.epoch &&
	    (places->broken != PLACE_BROKEN_OLD_BELIEVED || place.state != PLACE_AWAY))
		return PLACE_OLD;
	if (epoch > place.epoch && was_sent && places->broken == PLACE_BROKEN_NEWS_IGNORED)
		return PLACE_OLD;
	if (place.state != PLACE_AWAY && !was_sent)
		return PLACE_LIE; /* it is here, in this epoch */
	if (epoch == place.epoch && src != place.node)
		return PLACE_LIE;
	if (epoch == place.epoch && !was_sent)
		return PLACE_OLD;
	write_word(places, vcpu, PLACE_AWAY, src, epoch);
	return was_sent ? PLACE_TAKEN : PLACE_NEWS;
}

enum place_verdict vcpu_place_on_refused(struct vcpu_places *places, uint32_t vcpu, uint16_t src,
					 uint64_t epoch)
{
	struct vcpu_place place;

	if (!in_range(places, vcpu, src, epoch))
		return PLACE_LIE;
	place = vcpu_place_read(places, vcpu);
	if (place.state != PLACE_SENT || place.node != src || epoch != place.epoch + 1)
		return PLACE_LIE;
	write_word(places, vcpu, PLACE_ARRIVING, places->self, epoch);
	return PLACE_NEWS;
}
