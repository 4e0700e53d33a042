/* SPDX-License-Identifier: Apache-2.0 */
/* Places of queues: every transition, what each message means in each state, and what is a lie. */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "core/queue_place.h"
#include "tests/rng.h"

#define NODES  3
#define QUEUES 4

static void expect(const struct queue_places *places, uint16_t queue, enum queue_state state,
		   uint16_t node, uint64_t epoch)
{
	struct queue_place place = queue_place_read(places, queue);

	assert_int_equal(place.state, state);
	assert_int_equal(place.node, node);
	assert_int_equal(place.epoch, epoch);
}

static void create(struct queue_places *places, uint16_t self)
{
	queue_places_init(places, self, NODES, QUEUES);
}

/* Node 0 in generation 1, of which everybody knows. */
static void create_first(struct queue_places *places)
{
	create(places, 0);
	assert_int_equal(queue_places_begin(places, 1), QUEUE_NEWS);
	for (uint16_t n = 0; n < NODES; n++)
		assert_int_equal(queue_places_on_stopped(places, n, 1),
				 n + 1 < NODES ? QUEUE_OLD : QUEUE_NEWS);
}

static void hand_over(struct queue_places *places, uint16_t queue, uint16_t to)
{
	uint64_t generation = places->generation, epoch;

	assert_int_equal(queue_place_leave(places, queue, generation, to), 0);
	assert_int_equal(queue_place_giving(places, queue, generation, &epoch), 0);
	assert_int_equal(epoch, queue_place_read(places, queue).epoch + 1);
	queue_place_gave(places, queue);
	expect(places, queue, QUEUE_AWAY, to, epoch);
}

static void where_queues_begin(void **state)
{
	struct queue_places places;
	uint16_t to = NODE_NONE;

	create(&places, 0);
	expect(&places, 3, QUEUE_HERE, 0, 0);
	assert_int_equal(queue_place_route(&places, 3, &to), QUEUE_LEAVE_IT);
	assert_int_equal(to, NODE_NONE);
	create(&places, 2);
	expect(&places, 3, QUEUE_AWAY, 0, 0);
	assert_int_equal(queue_place_route(&places, 3, &to), QUEUE_FORWARD);
	assert_int_equal(to, 0);
}

static void a_queue_leaves_and_comes_back(void **state)
{
	struct queue_places places;
	uint16_t to = NODE_NONE;

	create_first(&places);
	assert_int_equal(queue_place_leave(&places, 1, 1, 2), 0);
	expect(&places, 1, QUEUE_LEAVING, 2, 0);
	assert_int_equal(queue_place_route(&places, 1, &to), QUEUE_LEAVE_IT);
	assert_int_equal(queue_place_stay(&places, 1, 1), 0);
	expect(&places, 1, QUEUE_HERE, 0, 0);
	hand_over(&places, 1, 2);
	assert_int_equal(queue_place_route(&places, 1, &to), QUEUE_FORWARD);
	assert_int_equal(to, 2);
	assert_int_equal(queue_place_on_place(&places, 1, 2, 1, 1), QUEUE_OLD);
	assert_int_equal(queue_place_on_place(&places, 1, 1, 1, 2), QUEUE_NEWS);
	expect(&places, 1, QUEUE_AWAY, 1, 2);
	assert_int_equal(queue_place_on_queue(&places, 1, 1, 1, 3), QUEUE_NEWS);
	expect(&places, 1, QUEUE_ARRIVING, 0, 3);
	assert_int_equal(queue_place_route(&places, 1, &to), QUEUE_LEAVE_IT);
	assert_int_equal(queue_place_leave(&places, 1, 1, 2), -EBUSY);
	assert_int_equal(queue_place_taken(&places, 1, 1), 0);
	expect(&places, 1, QUEUE_HERE, 0, 3);
	expect(&places, 0, QUEUE_HERE, 0, 0);
}

static void nobody_leaves_before_all_have_stopped(void **state)
{
	struct queue_places places;

	create(&places, 0);
	assert_int_equal(queue_place_leave(&places, 0, 0, 1), -EAGAIN);
	assert_int_equal(queue_places_begin(&places, 7), QUEUE_NEWS);
	assert_int_equal(queue_places_on_stopped(&places, 0, 7), QUEUE_OLD);
	assert_int_equal(queue_places_on_stopped(&places, 2, 7), QUEUE_OLD);
	assert_int_equal(queue_places_on_stopped(&places, 2, 7), QUEUE_OLD);
	assert_int_equal(queue_places_on_stopped(&places, 1, 6), QUEUE_OLD);
	assert_int_equal(queue_places_on_stopped(&places, 1, 8), QUEUE_LIE);
	assert_int_equal(queue_places_on_stopped(&places, NODES, 7), QUEUE_LIE);
	assert_int_equal(queue_place_leave(&places, 0, 7, 1), -EAGAIN);
	assert_int_equal(queue_places_on_stopped(&places, 1, 7), QUEUE_NEWS);
	assert_int_equal(queue_place_leave(&places, 0, 7, 1), 0);
}

/* What one node has in a generation's beginning, whatever was. */
static void a_generation_ends_everything(void **state)
{
	struct queue_places places;
	uint64_t epoch;

	create_first(&places);
	hand_over(&places, 0, 1);
	assert_int_equal(queue_place_leave(&places, 1, 1, 2), 0);
	assert_int_equal(queue_places_begin(&places, 1), QUEUE_OLD);
	assert_int_equal(queue_places_begin(&places, 0), QUEUE_LIE);
	assert_int_equal(queue_places_begin(&places, 4), QUEUE_NEWS);
	for (uint16_t q = 0; q < QUEUES; q++)
		expect(&places, q, QUEUE_HERE, 0, 0);
	assert_int_equal(queue_place_giving(&places, 1, 1, &epoch), -ESTALE);
	assert_int_equal(queue_place_stay(&places, 1, 1), -ESTALE);
	assert_int_equal(queue_place_taken(&places, 1, 1), -ESTALE);
	assert_int_equal(queue_place_leave(&places, 1, 1, 2), -ESTALE);
	assert_int_equal(queue_place_on_queue(&places, 0, 1, 1, 2), QUEUE_OLD);
	assert_int_equal(queue_place_on_place(&places, 0, 1, 1, 1), QUEUE_OLD);

	create(&places, 1);
	assert_int_equal(queue_places_begin(&places, 1), QUEUE_NEWS);
	assert_int_equal(queue_place_on_queue(&places, 0, 0, 1, 1), QUEUE_NEWS);
	assert_int_equal(queue_places_begin(&places, 2), QUEUE_NEWS);
	expect(&places, 0, QUEUE_AWAY, 0, 0);
	assert_int_equal(queue_place_taken(&places, 0, 1), -ESTALE);
}

static void lies(void **state)
{
	struct queue_places places;

	create(&places, 1);
	assert_int_equal(queue_places_begin(&places, 3), QUEUE_NEWS);
	/* Of whom, about what, in which life. */
	assert_int_equal(queue_place_on_queue(&places, QUEUES, 0, 3, 1), QUEUE_LIE);
	assert_int_equal(queue_place_on_queue(&places, 0, NODES, 3, 1), QUEUE_LIE);
	assert_int_equal(queue_place_on_queue(&places, 0, 1, 3, 1), QUEUE_LIE);
	assert_int_equal(queue_place_on_queue(&places, 0, 0, 4, 1), QUEUE_LIE);
	assert_int_equal(queue_place_on_place(&places, 0, 2, 4, 1), QUEUE_LIE);
	assert_int_equal(queue_place_on_place(&places, 0, 2, 3, QUEUE_EPOCH_MAX + 1), QUEUE_LIE);
	assert_int_equal(queue_place_on_place(&places, 0, 2, 3, QUEUE_STEP_MAX + 1), QUEUE_LIE);
	/* Only who has it gives it, by the next epoch; nobody has it in the epoch of another. */
	assert_int_equal(queue_place_on_queue(&places, 0, 2, 3, 1), QUEUE_LIE);
	assert_int_equal(queue_place_on_queue(&places, 0, 0, 3, 2), QUEUE_LIE);
	assert_int_equal(queue_place_on_place(&places, 0, 2, 3, 0), QUEUE_LIE);
	/* While it is here. */
	assert_int_equal(queue_place_on_queue(&places, 0, 0, 3, 1), QUEUE_NEWS);
	assert_int_equal(queue_place_on_queue(&places, 0, 0, 3, 2), QUEUE_LIE);
	assert_int_equal(queue_place_on_place(&places, 0, 2, 3, 2), QUEUE_LIE);
	assert_int_equal(queue_place_taken(&places, 0, 3), 0);
	assert_int_equal(queue_place_on_place(&places, 0, 2, 3, 2), QUEUE_LIE);
	assert_int_equal(queue_place_on_place(&places, 0, 2, 3, 0), QUEUE_OLD);
	assert_int_equal(queue_places_on_stopped(&places, 0, 3), QUEUE_LIE);
	expect(&places, 0, QUEUE_HERE, 1, 1);
	assert_int_equal(queue_place_leave(&places, 0, 3, 1), -EINVAL);
	assert_int_equal(queue_place_leave(&places, 0, 3, NODES), -EINVAL);
}

/* Peers that say anything: nothing of it makes this node give away or take what it must not. */
static void anything(void **state)
{
	struct rng rng = { 11 };
	struct queue_places places;

	create(&places, 1);
	for (uint32_t i = 0; i < 200000; i++) {
		uint16_t queue = (uint16_t)rng_below(&rng, QUEUES + 1);
		uint16_t src = (uint16_t)rng_below(&rng, NODES + 1);
		uint64_t generation = places.generation + rng_below(&rng, 4) - 1;
		uint64_t epoch = rng_below(&rng, 8), giving;
		struct queue_place was = { 0 };

		if (queue < QUEUES)
			was = queue_place_read(&places, queue);
		switch (rng_below(&rng, 6)) {
		case 0:
			if (rng_below(&rng, 20) == 0)
				(void)queue_places_begin(&places, generation);
			break;
		case 1:
			if (queue_place_on_queue(&places, queue, src, generation, epoch) ==
			    QUEUE_NEWS)
				assert_true(was.state == QUEUE_AWAY && was.node == src);
			break;
		case 2:
			if (queue_place_on_place(&places, queue, src, generation, epoch) ==
			    QUEUE_NEWS)
				assert_true(was.state == QUEUE_AWAY && was.epoch < epoch);
			break;
		case 3:
			if (queue < QUEUES && was.state == QUEUE_ARRIVING)
				(void)queue_place_taken(&places, queue, generation);
			break;
		case 4:
			if (queue < QUEUES)
				(void)queue_place_leave(&places, queue, generation, src);
			break;
		default:
			if (queue < QUEUES && was.state == QUEUE_LEAVING &&
			    queue_place_giving(&places, queue, generation, &giving) == 0)
				queue_place_gave(&places, queue);
		}
	}
}

/* Who joins has to say STOPPED, too; who has gone need not, and gets nothing. */
static void members_come_and_go(void **state)
{
	struct member_set members = { 0 };
	struct queue_places places;

	create(&places, 0);
	member_set_add(&members, 0);
	queue_places_members(&places, &members);
	assert_int_equal(queue_places_begin(&places, 1), QUEUE_NEWS);
	assert_int_equal(queue_places_on_stopped(&places, 2, 1), QUEUE_LIE);
	assert_int_equal(queue_places_on_stopped(&places, 0, 1), QUEUE_NEWS);
	assert_int_equal(queue_place_leave(&places, 0, 1, 2), -EINVAL);
	member_set_add(&members, 2);
	queue_places_members(&places, &members);
	assert_int_equal(queue_place_leave(&places, 0, 1, 2), -EAGAIN);
	assert_int_equal(queue_places_on_stopped(&places, 2, 1), QUEUE_NEWS);
	hand_over(&places, 0, 2);
	member_set_remove(&members, 2);
	queue_places_members(&places, &members);
	assert_int_equal(queue_place_leave(&places, 1, 1, 2), -EINVAL);
	member_set_add(&members, 2); /* the number again: another one, who has said nothing */
	assert_false(queue_places_members(&places, &members));
	assert_int_equal(queue_place_leave(&places, 1, 1, 2), -EAGAIN);
	/* It goes again without a word: by that all have said it. */
	member_set_remove(&members, 2);
	assert_true(queue_places_members(&places, &members));
	assert_false(queue_places_members(&places, &members));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_queues_begin),
		cmocka_unit_test(a_queue_leaves_and_comes_back),
		cmocka_unit_test(nobody_leaves_before_all_have_stopped),
		cmocka_unit_test(a_generation_ends_everything),
		cmocka_unit_test(members_come_and_go),
		cmocka_unit_test(lies),
		cmocka_unit_test(anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
