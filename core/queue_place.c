/* SPDX-License-Identifier: Apache-2.0 */
/* Where a device's queues are: see queue_place.h for states, threads and why it holds. */
#include "core/queue_place.h"

#include <assert.h>
#include <errno.h>

#define STATE_BITS 3

static uint32_t pack(enum queue_state state, uint16_t node)
{
	return (uint32_t)node << STATE_BITS | state;
}

static void write_place(struct queue_places *places, uint16_t queue, enum queue_state state,
			uint16_t node, uint64_t epoch)
{
	places->epoch[queue] = epoch;
	atomic_store(&places->word[queue], pack(state, node));
}

/* Where queues are in a generation's beginning. */
static void begin(struct queue_places *places, uint16_t queue)
{
	write_place(places, queue, places->self == 0 ? QUEUE_HERE : QUEUE_AWAY, 0, 0);
}

void queue_places_init(struct queue_places *places, uint16_t self, uint16_t node_count,
		       uint16_t queue_count)
{
	assert(queue_count <= QUEUE_PLACES_MAX && node_count <= NODES_MAX && self < node_count);
	*places = (struct queue_places){ .self = self,
					 .node_count = node_count,
					 .queue_count = queue_count,
					 .members = member_set_below(node_count) };
	for (uint16_t queue = 0; queue < queue_count; queue++)
		begin(places, queue);
}

static bool is_member(const struct queue_places *places, uint16_t node)
{
	return node < places->node_count && member_set_has(&places->members, node);
}

static bool all_stopped(const struct queue_places *places)
{
	return member_set_covers(&places->stopped, &places->members);
}

bool queue_places_members(struct queue_places *places, const struct member_set *members)
{
	bool had = all_stopped(places);

	places->members = *members;
	for (uint32_t w = 0; w < NODES_MAX / 64; w++)
		places->stopped.word[w] &= members->word[w];
	return !had && all_stopped(places);
}

struct queue_place queue_place_read(const struct queue_places *places, uint16_t queue)
{
	uint32_t word = atomic_load(&places->word[queue]);

	return (struct queue_place){
		.epoch = places->epoch[queue],
		.state = (enum queue_state)(word & ((1u << STATE_BITS) - 1)),
		.node = (uint16_t)(word >> STATE_BITS),
	};
}

enum queue_route queue_place_route(const struct queue_places *places, uint16_t queue,
				   uint16_t *ret_node)
{
	uint32_t word = atomic_load(&places->word[queue]);
	enum queue_state state = (enum queue_state)(word & ((1u << STATE_BITS) - 1));

	if (state != QUEUE_AWAY &&
	    (state != QUEUE_LEAVING || places->broken != QUEUE_BROKEN_LEAVING_AWAY))
		return QUEUE_LEAVE_IT;
	*ret_node = (uint16_t)(word >> STATE_BITS);
	return QUEUE_FORWARD;
}

/* ---- generations ------------------------------------------------------------------------------- */

enum queue_verdict queue_places_begin(struct queue_places *places, uint64_t generation)
{
	if (generation < places->generation)
		return QUEUE_LIE;
	if (generation == places->generation)
		return QUEUE_OLD;
	places->generation = generation;
	places->stopped = (struct member_set){ 0 };
	for (uint16_t queue = 0; queue < places->queue_count; queue++)
		if (places->broken != QUEUE_BROKEN_STAYS)
			begin(places, queue);
	return QUEUE_NEWS;
}

enum queue_verdict queue_places_on_stopped(struct queue_places *places, uint16_t src,
					   uint64_t generation)
{
	if (!is_member(places, src) || places->self != 0 || generation > places->generation)
		return QUEUE_LIE;
	if (generation < places->generation || member_set_has(&places->stopped, src))
		return QUEUE_OLD;
	member_set_add(&places->stopped, src);
	return all_stopped(places) ? QUEUE_NEWS : QUEUE_OLD;
}

/* ---- the io thread ------------------------------------------------------------------------------ */

int queue_place_leave(struct queue_places *places, uint16_t queue, uint64_t generation, uint16_t to)
{
	struct queue_place place = queue_place_read(places, queue);

	if (!is_member(places, to) || to == places->self)
		return -EINVAL;
	if (generation != places->generation)
		return -ESTALE;
	if (place.state != QUEUE_HERE)
		return -EBUSY;
	if (places->self == 0 && !all_stopped(places) && places->broken != QUEUE_BROKEN_EARLY)
		return -EAGAIN;
	if (place.epoch == QUEUE_EPOCH_MAX)
		return -EOVERFLOW;
	write_place(places, queue, QUEUE_LEAVING, to, place.epoch);
	return 0;
}

int queue_place_stay(struct queue_places *places, uint16_t queue, uint64_t generation)
{
	struct queue_place place = queue_place_read(places, queue);

	if (generation != places->generation)
		return -ESTALE;
	assert(place.state == QUEUE_LEAVING);
	write_place(places, queue, QUEUE_HERE, places->self, place.epoch);
	return 0;
}

int queue_place_giving(const struct queue_places *places, uint16_t queue, uint64_t generation,
		       uint64_t *ret_epoch)
{
	struct queue_place place = queue_place_read(places, queue);

	if (generation != places->generation && places->broken != QUEUE_BROKEN_OLD_GAVE)
		return -ESTALE;
	assert(place.state == QUEUE_LEAVING || places->broken);
	*ret_epoch = place.epoch + 1;
	return 0;
}

void queue_place_gave(struct queue_places *places, uint16_t queue)
{
	struct queue_place place = queue_place_read(places, queue);

	assert(place.state == QUEUE_LEAVING || places->broken);
	write_place(places, queue, QUEUE_AWAY, place.node, place.epoch + 1);
}

int queue_place_taken(struct queue_places *places, uint16_t queue, uint64_t generation)
{
	struct queue_place place = queue_place_read(places, queue);

	if (generation != places->generation)
		return -ESTALE;
	assert(place.state == QUEUE_ARRIVING || places->broken);
	write_place(places, queue, QUEUE_HERE, places->self, place.epoch);
	return 0;
}

/* ---- the control thread ------------------------------------------------------------------------- */

static bool in_range(const struct queue_places *places, uint16_t queue, uint16_t src,
		     uint64_t epoch)
{
	return queue < places->queue_count && src < places->node_count && src != places->self &&
	       epoch <= QUEUE_EPOCH_MAX;
}

enum queue_verdict queue_place_on_queue(struct queue_places *places, uint16_t queue, uint16_t src,
					uint64_t generation, uint64_t epoch)
{
	struct queue_place place;

	if (!in_range(places, queue, src, epoch) || generation > places->generation)
		return QUEUE_LIE;
	place = queue_place_read(places, queue);
	if (generation < places->generation && places->broken != QUEUE_BROKEN_OLD_QUEUE)
		return QUEUE_OLD;
	if (generation == places->generation &&
	    (place.state != QUEUE_AWAY || place.node != src || epoch != place.epoch + 1))
		return QUEUE_LIE;
	write_place(places, queue, QUEUE_ARRIVING, places->self, epoch);
	return QUEUE_NEWS;
}

enum queue_verdict queue_place_on_place(struct queue_places *places, uint16_t queue, uint16_t src,
					uint64_t generation, uint64_t epoch)
{
	struct queue_place place;

	if (!in_range(places, queue, src, epoch) || generation > places->generation)
		return QUEUE_LIE;
	place = queue_place_read(places, queue);
	if (generation < places->generation)
		return QUEUE_OLD;
	if (epoch > place.epoch && epoch - place.epoch > QUEUE_STEP_MAX)
		return QUEUE_LIE;
	if (epoch < place.epoch &&
	    (places->broken != QUEUE_BROKEN_OLD_PLACE || place.state != QUEUE_AWAY))
		return QUEUE_OLD;
	if (place.state != QUEUE_AWAY || (epoch == place.epoch && src != place.node))
		return QUEUE_LIE; /* it is here, or another's, in this epoch */
	if (epoch == place.epoch)
		return QUEUE_OLD;
	write_place(places, queue, QUEUE_AWAY, src, epoch);
	return QUEUE_NEWS;
}
