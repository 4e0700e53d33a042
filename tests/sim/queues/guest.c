/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver: users on all nodes add chains to the queues and ring as a driver with event index does;
 * now and then the driver resets the device, or takes bus mastering away for a while. And the registers
 * on node 0, which publish that, step by step.
 */
#include "tests/sim/queues/world.h"

static void user_later(struct world *world, uint32_t index, uint64_t after_ns)
{
	later(world, &(struct event){ .kind = EVENT_USER, .index = index }, after_ns);
}

static void driver_later(struct world *world, uint64_t after_ns)
{
	later(world, &(struct event){ .kind = EVENT_DRIVER }, after_ns);
}

static uint64_t think_ns(struct world *world)
{
	return rng_below_64(&world->rng, world->plan->think_ns) + 1;
}

/* ---- doorbells --------------------------------------------------------------------------------- */

void bell_begin(struct world *world, struct bell *bell, uint16_t queue, bool received,
		uint64_t came_generation, uint64_t came_epoch)
{
	(void)world;
	*bell = (struct bell){ .active = true,
			       .queue = queue,
			       .received = received,
			       .to = NODE_NONE,
			       .came_generation = came_generation,
			       .came_epoch = came_epoch };
}

void bell_forward(struct world *world, uint16_t node, const struct bell *bell)
{
	struct message *message;
	bool newer = bell->generation > bell->came_generation ||
		     (bell->generation == bell->came_generation && bell->epoch > bell->came_epoch);

	if (bell->received && world->plan->edge_broken == EDGE_BROKEN_DROP)
		return;
	if (bell->received && !newer)
		world_fail(world, RULE_ROUND,
			   "a doorbell is sent on by %u in epoch %llu, after %llu", node,
			   (unsigned long long)bell->epoch, (unsigned long long)bell->came_epoch);
	message = message_new(MESSAGE_BELL, node, bell->to);
	message->queue = bell->queue;
	message->generation = bell->generation;
	message->epoch = bell->epoch;
	world->forwards += bell->received;
	message_send(world, message);
}

static void leave_bell(struct left *left, const struct bell *bell)
{
	if (bell->received &&
	    (!left->received || bell->came_generation > left->generation ||
	     (bell->came_generation == left->generation && bell->came_epoch > left->epoch))) {
		left->received = true;
		left->generation = bell->came_generation;
		left->epoch = bell->came_epoch;
	}
	left->rung = true;
}

bool bell_step(struct world *world, uint16_t node, struct bell *bell)
{
	struct sim_node *at = &world->node[node];

	if (bell->to == NODE_NONE) {
		/* What is read besides the word is for the judge only. */
		bell->forward =
			queue_place_route(&at->places, bell->queue, &bell->to) == QUEUE_FORWARD;
		bell->generation = at->places.generation;
		bell->epoch = at->places.epoch[bell->queue];
		if (!bell->forward)
			bell->to = node;
		return false;
	}
	if (bell->forward) {
		bell_forward(world, node, bell);
	} else {
		leave_bell(&at->left[bell->queue], bell);
		io_wake(world, node);
	}
	bell->active = false;
	return true;
}

/* ---- users ------------------------------------------------------------------------------------- */

static void user_adds(struct world *world, struct user *user)
{
	struct guest *guest = &world->guest;
	struct sim_ring *ring;

	user->node = (uint16_t)rng_below_64(&world->rng, world->plan->nodes);
	user->queue = (uint16_t)rng_below_64(&world->rng, world->plan->queues);
	ring = &world->ring[user->queue];
	if (ring->avail == SIM_CHAINS || guest->chains_left == 0)
		return;
	guest->chains_left--;
	user->generation = guest->generation;
	user->old = ring->avail;
	ring->added_ns[ring->avail] = world->now_ns;
	ring->handed_at[ring->avail] = ring->handed;
	ring->avail++;
	user->stage = USER_KICK;
	TRACE(world, "user on %u adds %u to queue %u", user->node, user->old, user->queue);
}

void guest_user_step(struct world *world, uint32_t index)
{
	struct guest *guest = &world->guest;
	struct user *user = &guest->user[index];
	bool wanted;

	switch (user->stage) {
	case USER_THINK:
		if (guest->stage == DRIVER_RUNS)
			user_adds(world, user);
		if (guest->chains_left > 0 || user->stage == USER_KICK)
			user_later(world, index,
				   user->stage == USER_KICK ? step_ns(world) : think_ns(world));
		return;
	case USER_KICK:
		wanted = user->generation == guest->generation &&
			 (!world->plan->event_index || world->ring[user->queue].event == user->old);
		user->stage = wanted ? USER_READ : USER_THINK;
		if (wanted)
			bell_begin(world, &user->bell, user->queue, false, 0, 0);
		world->bells += wanted;
		user_later(world, index, step_ns(world));
		return;
	case USER_READ:
	case USER_ACT:
		user->stage = bell_step(world, user->node, &user->bell) ? USER_THINK : USER_ACT;
		user_later(world, index, step_ns(world));
		return;
	}
}

/* ---- the registers ----------------------------------------------------------------------------- */

static void publish(struct world *world, bool running)
{
	struct guest *guest = &world->guest;

	guest->publishing = true;
	guest->publish_running = running;
	guest->began = guest->posted = false;
	guest->publish_to = 0;
	later(world, &(struct event){ .kind = EVENT_TELL }, 1);
}

static void post_on_first(struct world *world)
{
	struct sim_node *node = &world->node[0];

	node->posted = true;
	node->post_generation = world->guest.generation;
	node->post_running = world->guest.publish_running;
	io_wake(world, 0);
}

/* First for itself, then to the others one by one. */
void guest_tell_step(struct world *world)
{
	struct guest *guest = &world->guest;
	bool last = world->plan->edge_broken == EDGE_BROKEN_TOLD_FIRST;

	if (guest->publish_to + 1u < world->plan->nodes && (last || guest->began)) {
		struct message *message = message_new(MESSAGE_PUBLISHED, 0, ++guest->publish_to);

		message->generation = guest->generation;
		message->running = guest->publish_running;
		message_send(world, message);
	} else if (!guest->began && world->node[0].giving) {
		/* The io thread has the lock. */
	} else if (!guest->began) {
		guest->began = true;
		if (queue_places_begin(&world->node[0].places, guest->generation) == QUEUE_LIE)
			world_fail(world, RULE_LIE, "node 0 goes back");
	} else if (!guest->posted) {
		guest->posted = true;
		post_on_first(world);
	} else {
		guest->publishing = false;
		return;
	}
	later(world, &(struct event){ .kind = EVENT_TELL }, step_ns(world));
}

static void idle(struct world *world)
{
	struct guest *guest = &world->guest;

	judge_clean(world);
	guest->stage = DRIVER_IDLE;
	/* Resets of a device that does not run are heard of with what comes next. */
	if (rng_chance(&world->rng, (uint32_t)world->plan->skip_percent))
		guest->generation += 1 + rng_below(&world->rng, 3);
	TRACE(world, "the driver sees the end of the reset");
	driver_later(world, think_ns(world));
}

void guest_stopped(struct world *world, uint64_t generation)
{
	if (world->guest.stage == DRIVER_RESETS && generation == world->guest.generation)
		idle(world);
}

void guest_driver_step(struct world *world)
{
	struct guest *guest = &world->guest;

	/* An access of the driver's ends when the registers have said what there was to say. */
	if (guest->publishing) {
		driver_later(world, step_ns(world));
		return;
	}
	switch (guest->stage) {
	case DRIVER_IDLE:
		guest->stage = DRIVER_RUNS;
		publish(world, true);
		driver_later(world, think_ns(world) * 5);
		return;
	case DRIVER_HALTED:
		guest->stage = DRIVER_RUNS;
		guest->halts_left--;
		publish(world, true);
		driver_later(world, think_ns(world) * 5);
		return;
	case DRIVER_RESETS:
		return;
	case DRIVER_RUNS:
		if (guest->halts_left > 0) {
			guest->stage = DRIVER_HALTED;
			publish(world, false);
			driver_later(world, think_ns(world));
		} else if (guest->resets_left > 0 && guest->chains_left > 0) {
			guest->resets_left--;
			world->resets++;
			guest->stage = DRIVER_RESETS;
			guest->generation++;
			TRACE(world, "reset: generation %llu",
			      (unsigned long long)guest->generation);
			publish(world, false);
		}
		return;
	}
}

void guest_begin(struct world *world)
{
	struct guest *guest = &world->guest;

	guest->chains_left = (uint32_t)world->plan->chains;
	guest->resets_left = (uint32_t)world->plan->resets;
	guest->halts_left = rng_chance(&world->rng, (uint32_t)world->plan->halt_percent) ? 2 : 0;
	guest->stage = DRIVER_IDLE;
	guest->generation = rng_below(&world->rng, 2);
	judge_clean(world);
	driver_later(world, 1);
	for (uint32_t i = 0; i < world->plan->users; i++)
		user_later(world, i, think_ns(world));
}
