/* SPDX-License-Identifier: Apache-2.0 */
/* A node's threads: control, which judges messages, and io, which has the front half. */
#include <stdlib.h>

#include "tests/sim/queues/world.h"

static void refused(struct world *world, const struct message *message)
{
	static const char *const names[] = { "PUBLISHED", "STOPPED", "QUEUE", "PLACE", "DOORBELL" };

	world_fail(world, RULE_LIE, "%s %llu,%llu of %u is a lie to %u", names[message->type],
		   (unsigned long long)message->generation, (unsigned long long)message->epoch,
		   message->src, message->dst);
}

/* ---- control ----------------------------------------------------------------------------------- */

static void control_later(struct world *world, uint16_t node)
{
	world->node[node].control_busy = true;
	later(world, &(struct event){ .kind = EVENT_CONTROL, .node = node }, step_ns(world));
}

void control_arrival(struct world *world, struct message *message)
{
	struct sim_node *node = &world->node[message->dst];

	if (node->last)
		node->last->next = message;
	else
		node->first = message;
	node->last = message;
	if (!node->control_busy)
		control_later(world, message->dst);
}

/* In a step of its own. */
static void for_mail(struct sim_node *node, const struct message *message)
{
	node->control_message = message_new(message->type, message->src, message->dst);
	*node->control_message = *message;
}

static void on_published(struct world *world, struct sim_node *node, const struct message *message)
{
	if (queue_places_begin(&node->places, message->generation) == QUEUE_LIE)
		refused(world, message);
	for_mail(node, message);
}

static void say_place(struct world *world, const struct message *message)
{
	for (uint16_t to = 0; to < world->plan->nodes; to++) {
		struct message *place;

		if (to == message->dst)
			continue;
		place = message_new(MESSAGE_PLACE, message->dst, to);
		place->queue = message->queue;
		place->generation = message->generation;
		place->epoch = message->epoch;
		message_send(world, place);
	}
}

static void on_queue(struct world *world, struct sim_node *node, struct message *message)
{
	switch (queue_place_on_queue(&node->places, message->queue, message->src,
				     message->generation, message->epoch)) {
	case QUEUE_LIE:
		refused(world, message);
		break;
	case QUEUE_OLD:
		break;
	case QUEUE_NEWS:
		say_place(world, message);
		for_mail(node, message);
		break;
	}
}

static void on_stopped(struct world *world, struct sim_node *node, const struct message *message)
{
	switch (queue_places_on_stopped(&node->places, message->src, message->generation)) {
	case QUEUE_LIE:
		refused(world, message);
		break;
	case QUEUE_OLD:
		break;
	case QUEUE_NEWS:
		guest_stopped(world, message->generation);
		break;
	}
}

static void control_message(struct world *world, struct sim_node *node, struct message *message)
{
	switch (message->type) {
	case MESSAGE_PUBLISHED:
		on_published(world, node, message);
		break;
	case MESSAGE_STOPPED:
		on_stopped(world, node, message);
		break;
	case MESSAGE_QUEUE:
		on_queue(world, node, message);
		break;
	case MESSAGE_PLACE:
		if (queue_place_on_place(&node->places, message->queue, message->src,
					 message->generation, message->epoch) == QUEUE_LIE)
			refused(world, message);
		break;
	case MESSAGE_BELL:
		bell_begin(world, &node->control_bell, message->queue, true, message->generation,
			   message->epoch);
		break;
	}
}

static void into_mail(struct world *world, uint16_t number, struct message *message)
{
	struct sim_node *node = &world->node[number];
	struct sim_front_queue *queue = &node->queue[message->queue];

	if (message->type == MESSAGE_PUBLISHED) {
		node->posted = true;
		node->post_generation = message->generation;
		node->post_running = message->running;
		free(message);
		io_wake(world, number);
		return;
	}
	if (queue->mail && queue->image.generation == message->generation)
		refused(world, message);
	queue->mail = true;
	queue->image = message->image;
	free(message);
	io_wake(world, number);
}

void control_step(struct world *world, uint16_t number)
{
	struct sim_node *node = &world->node[number];
	struct message *message = node->first;

	node->control_busy = false;
	if (node->control_bell.active) {
		bell_step(world, number, &node->control_bell);
	} else if (node->control_message) {
		into_mail(world, number, node->control_message);
		node->control_message = NULL;
	} else if (message && (message->type == MESSAGE_BELL || !node->giving)) {
		node->first = message->next;
		if (!node->first)
			node->last = NULL;
		control_message(world, node, message);
		free(message);
	}
	if (node->control_bell.active || node->control_message || node->first)
		control_later(world, number);
}

/* ---- io: the front half ------------------------------------------------------------------------- */

void io_wake(struct world *world, uint16_t node)
{
	if (world->node[node].io_busy)
		return;
	world->node[node].io_busy = true;
	later(world, &(struct event){ .kind = EVENT_IO, .node = node }, step_ns(world));
}

static void say_stopped(struct world *world, uint16_t number)
{
	struct sim_node *node = &world->node[number];

	node->owes_stopped = false;
	if (number != 0) {
		struct message *message = message_new(MESSAGE_STOPPED, number, 0);

		message->generation = node->generation;
		message_send(world, message);
	} else if (queue_places_on_stopped(&node->places, 0, node->generation) == QUEUE_NEWS ||
		   world->plan->edge_broken == EDGE_BROKEN_ONE_STOPPED) {
		guest_stopped(world, node->generation);
	}
}

static void new_generation(struct world *world, uint16_t number)
{
	struct sim_node *node = &world->node[number];

	node->generation = node->post_generation;
	node->started = false;
	for (uint32_t q = 0; q < world->plan->queues; q++) {
		struct sim_front_queue *queue = &node->queue[q];

		node->orphans += queue->at_disk;
		queue->at_disk = 0;
		queue->has = queue->leaving = queue->look = false;
	}
	node->owes_stopped = true;
	if (node->orphans == 0 || world->plan->edge_broken == EDGE_BROKEN_STOPPED_EARLY)
		say_stopped(world, number);
}

static void queue_begins(struct world *world, uint16_t number, uint16_t q, uint32_t popped,
			 uint32_t used)
{
	struct sim_front_queue *queue = &world->node[number].queue[q];

	queue->has = true;
	queue->popped = queue->seen = popped;
	queue->used = used;
	queue->armed = queue->leaving = false;
	queue->look = world->plan->edge_broken != EDGE_BROKEN_NO_LOOK || number == 0;
	queue->stay_until_ns = world->now_ns + rng_below_64(&world->rng, world->plan->stay_ns);
	judge_taken(world, number, q);
	TRACE(world, "io %u has queue %u at %u", number, q, popped);
}

static void take_publication(struct world *world, uint16_t number)
{
	struct sim_node *node = &world->node[number];

	node->posted = false;
	if (node->post_generation != node->generation)
		new_generation(world, number);
	node->running = node->post_running;
	if (!node->running)
		return;
	if (!node->started) {
		node->started = true;
		for (uint16_t q = 0; q < world->plan->queues; q++) {
			node->queue[q].has &= world->plan->edge_broken != EDGE_BROKEN_UNSTARTED;
			if (number == 0)
				queue_begins(world, 0, q, 0, 0);
		}
	}
	for (uint32_t q = 0; q < world->plan->queues; q++)
		node->queue[q].look |= node->queue[q].has;
}

static bool take_queue(struct world *world, uint16_t number, uint16_t q)
{
	struct sim_node *node = &world->node[number];
	struct sim_front_queue *queue = &node->queue[q];
	bool ready = (node->started && node->generation >= queue->image.generation) ||
		     world->plan->edge_broken == EDGE_BROKEN_UNSTARTED ||
		     world->plan->core_broken == QUEUE_BROKEN_OLD_QUEUE;

	if (!queue->mail || !ready)
		return false;
	queue->mail = false;
	if (queue_place_taken(&node->places, q,
			      world->plan->core_broken == QUEUE_BROKEN_OLD_QUEUE
				      ? node->places.generation
				      : queue->image.generation) == 0)
		queue_begins(world, number, q, queue->image.popped, queue->image.used);
	return true;
}

static void send_queue(struct world *world, uint16_t number, uint16_t q, uint64_t epoch)
{
	struct sim_node *node = &world->node[number];
	struct sim_front_queue *queue = &node->queue[q];
	struct queue_place place = queue_place_read(&node->places, q);
	struct message *message = message_new(MESSAGE_QUEUE, number, place.node);

	message->queue = q;
	message->generation = node->places.generation;
	message->epoch = epoch;
	message->image =
		(struct queue_image){ q, message->generation, epoch, queue->popped, queue->used };
	TRACE(world, "io %u gives queue %u at %u to %u, epoch %llu", number, q, queue->popped,
	      place.node, (unsigned long long)epoch);
	if (world->plan->edge_broken == EDGE_BROKEN_WORD_FIRST)
		node->unsent = message;
	else
		message_send(world, message);
}

static void gave_queue(struct sim_node *node)
{
	queue_place_gave(&node->places, node->given);
	node->giving = false;
}

static bool give_queue(struct world *world, uint16_t number, uint16_t q)
{
	struct sim_node *node = &world->node[number];
	struct sim_front_queue *queue = &node->queue[q];
	uint64_t epoch;

	if (!queue->has || !queue->leaving || !node->running ||
	    (queue->at_disk > 0 && world->plan->edge_broken != EDGE_BROKEN_UNDER_WAY))
		return false;
	queue->leaving = false;
	if (queue_place_giving(&node->places, q, node->generation, &epoch) < 0)
		return true; /* a later generation is in the mail */
	judge_given(world, number, q);
	send_queue(world, number, q, epoch);
	queue->has = false;
	/* Who takes it may do so, and look, before the word says that it has gone. */
	node->giving = true;
	node->given = q;
	if (world->plan->edge_broken == EDGE_BROKEN_WORD_FIRST)
		gave_queue(node);
	return true;
}

static bool leave_queue(struct world *world, uint16_t number, uint16_t q)
{
	struct sim_node *node = &world->node[number];
	struct sim_front_queue *queue = &node->queue[q];
	uint16_t to = (uint16_t)rng_below_64(&world->rng, world->plan->nodes);

	if (!queue->has || queue->leaving || !node->running || world->moves_left == 0 ||
	    world->now_ns < queue->stay_until_ns ||
	    queue_place_leave(&node->places, q, node->generation, to) < 0)
		return false;
	world->moves_left--;
	queue->leaving = true;
	/* Now and then it stays, after all. */
	if (rng_chance(&world->rng, 5) && queue_place_stay(&node->places, q, node->generation) == 0)
		queue->leaving = false;
	return true;
}

/* A look at a ring, a chain that is begun, or the driver's word that it is to ring. */
static bool work_queue(struct world *world, uint16_t number, uint16_t q)
{
	struct sim_node *node = &world->node[number];
	struct sim_front_queue *queue = &node->queue[q];
	struct sim_ring *ring = &world->ring[q];

	if (!queue->has || queue->leaving || !node->running || !queue->look)
		return false;
	judge_touch(world, number, q, node->generation);
	if (queue->popped == queue->seen && ring->avail != queue->seen) {
		queue->seen = ring->avail;
	} else if (queue->popped != queue->seen) {
		judge_begun(world, q, queue->popped);
		queue->armed = false;
		queue->at_disk++;
		later(world,
		      &(struct event){ .kind = EVENT_DISK,
				       .node = number,
				       .queue = q,
				       .index = queue->popped,
				       .generation = node->generation },
		      rng_below_64(&world->rng, world->plan->disk_ns) + 1);
		queue->popped++;
	} else if (!queue->armed) {
		ring->event = queue->popped;
		queue->armed = true;
	} else {
		queue->look = false;
	}
	return true;
}

/* A doorbell that was left: for a queue that is here, or one that has been given since. */
static bool take_bell(struct world *world, uint16_t number, uint16_t q)
{
	struct sim_node *node = &world->node[number];
	struct left left = node->left[q];
	struct bell bell = { .active = true,
			     .received = left.received,
			     .queue = q,
			     .generation = node->places.generation,
			     .epoch = node->places.epoch[q],
			     .came_generation = left.generation,
			     .came_epoch = left.epoch };

	node->left[q] = (struct left){ 0 };
	if (!left.rung)
		return false;
	if (queue_place_route(&node->places, q, &bell.to) == QUEUE_LEAVE_IT ||
	    world->plan->edge_broken == EDGE_BROKEN_LEFT)
		node->queue[q].look = true;
	else
		bell_forward(world, number, &bell);
	return true;
}

static bool one_thing(struct world *world, uint16_t number)
{
	struct sim_node *node = &world->node[number];
	uint16_t first = (uint16_t)rng_below_64(&world->rng, world->plan->queues);

	if (node->unsent) {
		message_send(world, node->unsent);
		node->unsent = NULL;
		return true;
	}
	if (node->giving) {
		gave_queue(node);
		return true;
	}
	if (node->posted) {
		take_publication(world, number);
		return true;
	}
	for (uint16_t i = 0; i < world->plan->queues; i++) {
		uint16_t q = (uint16_t)((first + i) % world->plan->queues);

		if (take_bell(world, number, q) || take_queue(world, number, q) ||
		    give_queue(world, number, q) || leave_queue(world, number, q) ||
		    work_queue(world, number, q))
			return true;
	}
	return false;
}

void io_step(struct world *world, uint16_t number)
{
	world->node[number].io_busy = false;
	if (one_thing(world, number))
		io_wake(world, number);
}

void io_disk_done(struct world *world, const struct event *event)
{
	struct sim_node *node = &world->node[event->node];
	struct sim_front_queue *queue = &node->queue[event->queue];

	if (event->generation != node->generation) {
		node->orphans--;
		/* The disk has written to the driver's memory. */
		if (event->generation < world->clean_generation)
			world_fail(world, RULE_RESET, "the disk writes after the reset");
		if (node->orphans == 0 && node->owes_stopped)
			say_stopped(world, event->node);
		return;
	}
	queue->at_disk--;
	judge_touch(world, event->node, event->queue, event->generation);
	judge_used(world, event->queue, event->index);
	queue->used++;
	io_wake(world, event->node);
}
