/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs that leave a node and come to it, by its messages: one node with seats and an engine that is
 * made up, whose peer is the test (half.h). vCPU 0 begins on node 0, which is the node here, 1 and 2
 * on the peer.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/interrupt_route.h"
#include "node/cores.h"
#include "node/placer.h"
#include "tests/link/support.h"
#include "tests/node/fake_engine.h"
#include "tests/node/half.h"
#include "tests/test.h"
#include "wire/vcpu_image.h"

/* ---- an engine that waits for kicks ---------------------------------------------------------- */

struct engine_vcpu {
	_Atomic bool kick;
	_Atomic uint32_t runs, interrupts;
	_Atomic int last_vector;
	struct vcpu_state loaded;
};

static struct engine_vcpu engine_vcpu[3];
static _Atomic int load_fails;
static atomic_bool held; /* kicks do not come through */

int fake_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu)
{
	*ret_vcpu = &engine_vcpu[number];
	return 0;
}

int fake_load(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	if (load_fails > 0) {
		load_fails--;
		return -EINVAL;
	}
	vcpu->loaded = *state;
	return 0;
}

int fake_save(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	struct lapic_state lapic = state->lapic;
	uint8_t run_state = state->run_state;

	*state = vcpu->loaded;
	state->lapic = lapic;
	state->run_state = run_state;
	return 0;
}

void fake_kick(struct engine_vcpu *vcpu)
{
	vcpu->kick = true;
}

int fake_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	vcpu->runs++;
	while (atomic_load(&held) || !atomic_exchange(&vcpu->kick, false))
		usleep(100);
	exit->kind = EXIT_KICKED;
	return 0;
}

bool fake_can_interrupt(struct engine_vcpu *vcpu)
{
	return true;
}

int fake_interrupt(struct engine_vcpu *vcpu, uint8_t vector)
{
	vcpu->last_vector = vector;
	vcpu->interrupts++;
	return 0;
}

/* ---- the node -------------------------------------------------------------------------------- */

static struct control_message msg;
static struct half half;
static struct vcpu_ops ops;
static atomic_uint stays; /* times that a vCPU was to leave, and did not */

static int leave(void *ctx, uint32_t vcpu, uint16_t to, int error)
{
	int r = moves_leave(ctx, vcpu, to, error);

	atomic_fetch_add(&stays, r != 0);
	return r;
}

static void make_state(uint32_t number, struct vcpu_state *state)
{
	vcpu_state_reset(state, number);
	lapic_reset(&state->lapic, number, number == 0);
	state->lapic.svr = 0x1ff;
	state->run_state = VCPU_RUNNABLE;
}

static void begin(void)
{
	struct vcpu_state state;
	struct node *node;

	memset(engine_vcpu, 0, sizeof(engine_vcpu));
	load_fails = 0;
	atomic_store(&held, false);
	half_create(&half, 0);
	node = half.node;
	node->start.tsc_khz = 2000000;
	node->start.epoch_ns = 0;
	struct node_clock_tsc tsc = { .guest_khz = 2000000, .engine_ops = &fake_engine };
	node_clock_tsc_start(node->clock, &tsc);
	assert_int_equal(guest_io_create(node), 0);
	ops = guest_io_ops;
	ops.started = NULL;
	ops.idle = NULL;
	ops.leave = leave;
	atomic_store(&stays, 0);
	ops.stalled_ns = NULL;
	for (uint32_t v = 0; v < 3; v++) {
		struct vcpu_config config = { .engine_ops = &fake_engine,
					      .number = v,
					      .lapic = { .tsc_khz = 2000000 },
					      .ops = &ops,
					      .ctx = node,
					      .away = v != 0 };
		make_state(v, &state);
		assert_int_equal(vcpu_create(&config, &state, &node->vcpu[v]), 0);
		assert_int_equal(vcpu_start(node->vcpu[v]), 0);
	}
	atomic_store(&node->phase, NODE_RUNNING);
	assert_int_equal(control_start(node), 0);
	half_peer_beats(&half);
	/* What a test makes fail from now on is not vCPU 0's beginning. */
	while (!engine_vcpu[0].runs && !node_has_ended(node))
		test_sleep_ms(1);
}

/* The threads live on with the node, which nothing of is ever freed. */
static void end(void)
{
	for (uint32_t v = 0; v < 3; v++) {
		vcpu_stop(half.node->vcpu[v]);
		vcpu_join(half.node->vcpu[v]);
	}
}

static void hear(uint8_t type)
{
	if (!half_peer_hear(&half, type, &msg, HALF_PATIENCE_MS))
		fail_msg("no %s; the node: %s", control_type_name(type), half_end(&half, 0));
}

static bool eventually(bool (*done)(void))
{
	uint64_t end_ns = test_now_ns() + HALF_PATIENCE_MS * 1000000ull;

	while (!done() && test_now_ns() < end_ns)
		test_sleep_ms(1);
	return done();
}

static void send_interrupt(uint8_t vector, uint32_t to)
{
	struct interrupt i = { .dest = to,
			       .source = INTERRUPT_SOURCE_DEVICE,
			       .mode = INTERRUPT_FIXED,
			       .vector = vector };
	guest_io_interrupt(half.node, &i);
}

static void expect_place(uint32_t vcpu, enum place_state state, uint16_t node, uint64_t epoch)
{
	struct vcpu_place place = vcpu_place_read(&half.node->places, vcpu);

	assert_int_equal(place.state, state);
	assert_int_equal(place.node, node);
	assert_int_equal(place.epoch, epoch);
}

static void send_place(uint8_t type, uint16_t vcpu, uint64_t epoch)
{
	msg.type = type;
	if (type == CONTROL_PLACE)
		msg.place = (struct control_place){ vcpu, epoch };
	else
		msg.refused = (struct control_refused){ vcpu, epoch };
	half_peer_send(&half, &msg);
}

static uint16_t hints_size; /* of what a MOVE says; the bytes are any */

static void send_move(const struct vcpu_state *state, uint16_t vcpu, uint64_t epoch,
		      uint64_t ahead_ns)
{
	uint8_t image[VCPU_IMAGE_BYTES_MAX];
	size_t size;

	assert_int_equal(vcpu_image_encode(state, image, sizeof(image), &size), 0);
	msg.type = CONTROL_MOVE;
	msg.move = (struct control_move){ .vcpu = vcpu,
					  .image_size = (uint16_t)size,
					  .epoch = epoch,
					  .clock_ns = node_now_ns(half.node) + ahead_ns,
					  .guest_tsc = 1,
					  .image = image,
					  .hints = image,
					  .hints_size = hints_size };
	half_peer_send(&half, &msg);
}

struct asking {
	uint32_t vcpu;
	uint16_t to;
	int result;
	pthread_t thread;
};

static void *ask_main(void *arg)
{
	struct asking *a = arg;

	a->result = moves_ask(half.node, a->vcpu, a->to);
	return NULL;
}

static void ask(struct asking *a)
{
	pthread_create(&a->thread, NULL, ask_main, a);
}

static int answer(struct asking *a)
{
	pthread_join(a->thread, NULL);
	return a->result;
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* MOVE, what comes for it meanwhile behind it, and PLACE. */
static void test_leaves(void **state)
{
	struct asking asking = { .vcpu = 0, .to = 1 };
	struct vcpu_state there;

	begin();
	ask(&asking);
	hear(CONTROL_MOVE);
	assert_int_equal(msg.move.vcpu, 0);
	assert_int_equal(msg.move.epoch, 1);
	assert_int_equal(vcpu_image_decode(msg.move.image, msg.move.image_size, &there), 0);
	assert_int_equal(there.lapic.id, 0);
	assert_int_equal(there.run_state, VCPU_RUNNABLE);
	send_interrupt(0x41, 0);
	hear(CONTROL_INTERRUPT);
	assert_int_equal(msg.interrupt.vector, 0x41);
	expect_place(0, PLACE_SENT, 1, 1);
	send_place(CONTROL_PLACE, 0, 1);
	assert_int_equal(answer(&asking), CONTROL_MOVE_DONE);
	expect_place(0, PLACE_AWAY, 1, 1);
	/* A message for it that comes late goes on. */
	msg = (struct control_message){ .type = CONTROL_INTERRUPT };
	msg.interrupt = (struct control_interrupt){ .vector = 0x52, .vcpu_count = 1 };
	half_peer_send(&half, &msg);
	hear(CONTROL_INTERRUPT);
	assert_int_equal(msg.interrupt.vector, 0x52);
	assert_null(half_end(&half, 0));
	end();
}

static bool runs_again(void)
{
	return vcpu_place_read(&half.node->places, 0).state == PLACE_HERE;
}

static bool took_interrupt(void)
{
	return engine_vcpu[0].last_vector == 0x43;
}

static bool asked_to_stay(void)
{
	return atomic_load(&stays) > 0;
}

/* A wish of the policy's that is out when the vCPU is pinned comes to nothing; a user's does not. */
static void test_pinned(void **state)
{
	struct asking asking = { .vcpu = 0, .to = 1 };

	begin();
	assert_int_equal(policy_create(half.node, NULL, 0), 0);
	placer_pin(half.node->placer, 0, true);
	assert_true(moves_wish(half.node, 0, 1));
	assert_true(eventually(asked_to_stay));
	assert_true(eventually(runs_again));
	expect_place(0, PLACE_HERE, 0, 0);
	ask(&asking);
	hear(CONTROL_MOVE);
	assert_int_equal(msg.move.epoch, 1);
	send_place(CONTROL_PLACE, 0, 1);
	assert_int_equal(answer(&asking), CONTROL_MOVE_DONE);
	end();
}

/* The target says no: it goes on, with what came in between. */
static void test_refused(void **state)
{
	struct asking asking = { .vcpu = 0, .to = 1 };

	begin();
	ask(&asking);
	hear(CONTROL_MOVE);
	send_place(CONTROL_REFUSED, 0, 2);
	assert_int_equal(answer(&asking), CONTROL_MOVE_REFUSED);
	hear(CONTROL_PLACE);
	assert_int_equal(msg.place.epoch, 2);
	assert_true(eventually(runs_again));
	send_interrupt(0x43, 0);
	assert_true(eventually(took_interrupt));
	end();
}

static bool second_was_interrupted(void)
{
	return engine_vcpu[1].interrupts > 0;
}

static bool has(const struct lapic_state *lapic, uint32_t vector)
{
	return ((lapic->irr[vector / 64] | lapic->isr[vector / 64]) >> vector % 64) & 1;
}

/* It comes with an interrupt, one comes behind it, and all hear where it is; and it leaves again. */
static void test_arrives(void **state)
{
	struct vcpu_state coming;
	struct asking asking = { .vcpu = 1, .to = 1 };
	uint64_t cpu_ns, wait_ns;

	begin();
	/* A seat whose vCPU has not come yet keeps no descriptor of its thread. */
	assert_false(vcpu_core_times(node_vcpu(half.node, 1), &cpu_ns, &wait_ns));
	make_state(1, &coming);
	coming.rip = 0x123456;
	lapic_deliver(&coming.lapic, INTERRUPT_FIXED, 0x91, false);
	send_move(&coming, 1, 1, 1000000);
	msg = (struct control_message){ .type = CONTROL_INTERRUPT };
	msg.interrupt =
		(struct control_interrupt){ .vector = 0xa1, .vcpu_count = 1, .vcpu = { 1 } };
	half_peer_send(&half, &msg);
	hear(CONTROL_PLACE);
	assert_int_equal(msg.place.vcpu, 1);
	assert_int_equal(msg.place.epoch, 1);
	assert_true(eventually(second_was_interrupted));
	assert_int_equal(engine_vcpu[1].loaded.rip, 0x123456);
	expect_place(1, PLACE_HERE, 0, 1);
	assert_true(vcpu_core_times(node_vcpu(half.node, 1), &cpu_ns, &wait_ns));
	assert_int_equal(moves_ask(half.node, 1, 0), CONTROL_MOVE_THERE);
	ask(&asking);
	hear(CONTROL_MOVE);
	assert_int_equal(msg.move.epoch, 2);
	assert_int_equal(vcpu_image_decode(msg.move.image, msg.move.image_size, &coming), 0);
	assert_true(has(&coming.lapic, 0x91) && has(&coming.lapic, 0xa1));
	send_place(CONTROL_PLACE, 1, 2);
	assert_int_equal(answer(&asking), CONTROL_MOVE_DONE);
	end();
}

/* It cannot be loaded: REFUSED, what has come for it, and no more of it. */
static void test_refuses(void **state)
{
	struct vcpu_state coming;

	begin();
	make_state(2, &coming);
	load_fails = 1;
	send_move(&coming, 2, 1, 0);
	hear(CONTROL_REFUSED);
	assert_int_equal(msg.refused.vcpu, 2);
	assert_int_equal(msg.refused.epoch, 2);
	send_interrupt(0x44, 2);
	hear(CONTROL_INTERRUPT);
	expect_place(2, PLACE_AWAY, 1, 2);
	send_move(&coming, 2, 3, 0);
	hear(CONTROL_PLACE);
	assert_int_equal(engine_vcpu[2].loaded.lapic.id, 2);
	end();
}

/* Who asks and is not the vCPU's node asks that, and hears from it. */
static void test_asked_elsewhere(void **state)
{
	struct asking asking = { .vcpu = 2, .to = 0 };

	begin();
	ask(&asking);
	hear(CONTROL_MOVE_ASK);
	assert_int_equal(msg.move_ask.vcpu, 2);
	assert_int_equal(msg.move_ask.to, 0);
	assert_int_equal(msg.move_ask.asker, 0);
	uint64_t id = msg.move_ask.id;
	msg = (struct control_message){ .type = CONTROL_MOVE_TOLD };
	msg.move_told = (struct control_move_told){ id + 1, 2, CONTROL_MOVE_REFUSED };
	half_peer_send(&half, &msg); /* to another question */
	msg.move_told = (struct control_move_told){ id, 2, CONTROL_MOVE_BUSY };
	half_peer_send(&half, &msg);
	assert_int_equal(answer(&asking), CONTROL_MOVE_BUSY);
	/* And the other way round: the peer asks, and is told. */
	msg = (struct control_message){ .type = CONTROL_MOVE_ASK };
	msg.move_ask = (struct control_move_ask){ .id = 99, .vcpu = 0, .to = 1, .asker = 1 };
	half_peer_send(&half, &msg);
	hear(CONTROL_MOVE);
	msg = (struct control_message){ .type = CONTROL_MOVE_ASK };
	msg.move_ask = (struct control_move_ask){ .id = 100, .vcpu = 0, .to = 1, .asker = 1 };
	half_peer_send(&half, &msg);
	hear(CONTROL_MOVE_ASK); /* it goes after the vCPU */
	send_place(CONTROL_PLACE, 0, 1);
	hear(CONTROL_MOVE_TOLD);
	assert_int_equal(msg.move_told.id, 99);
	assert_int_equal(msg.move_told.result, CONTROL_MOVE_DONE);
	end();
}

/* What `eagre move` would print. */
static void expect_line(const char *words, const char *line)
{
	char *text = moves_request(half.node, words);

	assert_string_equal(text, line);
	free(text);
}

/* Who asks while it is on its way, or while somebody else's wish is out, is told so: it will not go where
 * he wants. */
static void test_busy(void **state)
{
	struct asking asking = { .vcpu = 0, .to = 1 };

	half_create(&half, 0);
	assert_int_equal(guest_io_create(half.node), 0);
	atomic_store(&half.node->run_ns, 1);
	assert_int_equal(moves_leave(half.node, 0, 1, 0), 0);
	expect_place(0, PLACE_LEAVING, 1, 0);
	expect_line("0 1", "{\"error\":\"vCPU 0 is moving already: try again\"}");
	begin();
	atomic_store(&held, true);
	ask(&asking);
	hear(CONTROL_COMING); /* the wish is out */
	msg = (struct control_message){ .type = CONTROL_MOVE_ASK };
	msg.move_ask = (struct control_move_ask){ .id = 98, .vcpu = 0, .to = 1, .asker = 1 };
	half_peer_send(&half, &msg);
	hear(CONTROL_MOVE_TOLD);
	assert_int_equal(msg.move_told.id, 98);
	assert_int_equal(msg.move_told.result, CONTROL_MOVE_BUSY);
	atomic_store(&held, false);
	hear(CONTROL_MOVE);
	send_place(CONTROL_PLACE, 0, 1);
	assert_int_equal(answer(&asking), CONTROL_MOVE_DONE); /* the first is not forgotten */
	end();
}

/* Nothing goes to who leaves the pod, or is not a member yet, and the line says why: trying again is of
 * no use. */
static void test_to_no_member(void **state)
{
	struct member_set others = member_set_below(1);

	begin();
	atomic_store(&half.node->run_ns, 1);
	vcpu_places_members(&half.node->places, &others);
	assert_int_equal(moves_ask(half.node, 0, 1), CONTROL_MOVE_NO);
	expect_line("0 1", "{\"error\":\"vCPU 0 cannot leave where it is now: try again\"}");
	atomic_store(&half.node->members->state[1], MEMBER_DRAINING);
	expect_line("0 1",
		    "{\"error\":\"node b is leaving the pod: no vCPU goes there any more\"}");
	atomic_store(&half.node->members->state[1], MEMBER_GONE);
	expect_line("0 1",
		    "{\"error\":\"node b is leaving the pod: no vCPU goes there any more\"}");
	atomic_store(&half.node->members->state[1], MEMBER_JOINING);
	expect_line("0 1", "{\"error\":\"node b is joining the pod: no vCPU goes there yet\"}");
	expect_place(0, PLACE_HERE, 0, 0);
	end();
}

/* The answer will never come; the node's end waits for who still waits for it. */
static void test_end_while_asking(void **state)
{
	struct asking asking = { .vcpu = 2, .to = 0 };

	begin();
	ask(&asking);
	hear(CONTROL_MOVE_ASK);
	node_end_with(half.node, CONTROL_END_USER, 0, "ended by the test");
	assert_int_equal(answer(&asking), -ESHUTDOWN); /* and not -ETIMEDOUT */
	end();
}

/* What comes while a vCPU leaves, or is refused, goes behind it; nothing else would send it on. */
static void test_posted_meanwhile(void **state)
{
	struct vcpu_state leaving;
	struct vcpu_moment moment = { .state = &leaving };

	half_create(&half, 0);
	assert_int_equal(guest_io_create(half.node), 0);
	make_state(0, &leaving);
	assert_int_equal(moves_leave(half.node, 0, 1, 0), 0);
	send_interrupt(0x47, 0);
	assert_false(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, 20));
	assert_int_equal(moves_left(half.node, 0, &moment), 0);
	hear(CONTROL_MOVE);
	hear(CONTROL_INTERRUPT);
	assert_int_equal(msg.interrupt.vector, 0x47);
	moves_lock(half.node, 2);
	assert_int_equal(vcpu_place_on_move(&half.node->places, 2, 1, 1), PLACE_NEWS);
	moves_unlock(half.node, 2);
	send_interrupt(0x48, 2);
	assert_false(half_peer_hear(&half, CONTROL_INTERRUPT, &msg, 20));
	moves_refused(half.node, 2);
	hear(CONTROL_REFUSED);
	hear(CONTROL_INTERRUPT);
	assert_int_equal(msg.interrupt.vector, 0x48);
}

/* PLACE is said by the control thread; or by the seat's, if the vCPU leaves before. */
static void test_place_before_move(void **state)
{
	struct vcpu_state leaving;
	struct vcpu_moment moment = { .state = &leaving };

	half_create(&half, 0);
	assert_int_equal(guest_io_create(half.node), 0);
	make_state(2, &leaving);
	moves_lock(half.node, 2);
	assert_int_equal(vcpu_place_on_move(&half.node->places, 2, 1, 1), PLACE_NEWS);
	moves_unlock(half.node, 2);
	moves_arrived(half.node, 2);
	assert_int_equal(moves_leave(half.node, 2, 1, 0), 0);
	assert_false(half_peer_hear(&half, CONTROL_PLACE, &msg, 20));
	assert_int_equal(moves_left(half.node, 2, &moment), 0);
	hear(CONTROL_PLACE);
	assert_int_equal(msg.place.epoch, 1);
	hear(CONTROL_MOVE);
	assert_int_equal(msg.move.epoch, 2);
	moves_settle(half.node);
	assert_false(half_peer_hear(&half, CONTROL_PLACE, &msg, 20));
}

static void expect_lie(const char *says)
{
	const char *text = half_end(&half, HALF_PATIENCE_MS);

	if (!text || !strstr(text, says))
		fail_msg("it ends with \"%s\", not \"%s\"", text ? text : "", says);
	end();
}

/* ---- a word ahead ------------------------------------------------------------------------------ */

static void say_coming(uint16_t vcpu, uint64_t epoch)
{
	msg.type = CONTROL_COMING;
	msg.coming = (struct control_coming){ vcpu, epoch };
	half_peer_send(&half, &msg);
}

/* Until the control thread has taken all that was said before. */
static void settle(void)
{
	msg = (struct control_message){ .type = CONTROL_CLOCK_PING };
	half_peer_send(&half, &msg);
	hear(CONTROL_CLOCK_PONG);
}

/*
 * Who wants a vCPU to move says so to where it would go; a wish that cannot be is not told. The word is
 * left out where somebody else says something just then.
 */
static void test_coming_said(void **state)
{
	bool heard = false;

	for (int tries = 0; tries < 5 && !heard; tries++) {
		begin();
		assert_false(moves_wish(half.node, 1, 1));
		assert_true(moves_wish(half.node, 0, 1));
		heard = half_peer_hear(&half, CONTROL_COMING, &msg, HALF_PATIENCE_MS / 5);
		assert_null(half_end(&half, 0));
		end();
	}
	assert_true(heard);
	assert_int_equal(msg.coming.vcpu, 0);
	assert_int_equal(msg.coming.epoch, 1);
}

static struct coming_stats looks(void)
{
	struct coming_stats stats;

	coming_stats(half.node, &stats);
	return stats;
}

/* The seat's own thread looks, if it has the time: nothing comes, and nobody else wants its core. */
static void test_coming_looks(void **state)
{
	uint64_t end_ns = test_now_ns() + HALF_PATIENCE_MS * 1000000ull;

	begin();
	if (cores_of_host() == 1) {
		end();
		return;
	}
	/* Not before the other seats sleep; one that has not begun to might take the core. */
	while (!looks().look_count && test_now_ns() < end_ns) {
		say_coming(1, 1);
		settle();
		test_sleep_ms(1);
	}
	assert_true(looks().look_count > 0);
	assert_int_equal(looks().came_count, 0);
	assert_null(half_end(&half, 0));
	end();
}

/*
 * Again and again it comes behind its word. On an idle machine its seat's own thread looks, and sees
 * it; on a busy one the control thread may be the first every time.
 */
static void test_coming(void **state)
{
	struct vcpu_state coming;
	uint64_t epoch = 0;

	begin();
	make_state(1, &coming);
	for (int round = 0; round < 300 && (round < 20 || !looks().came_count); round++) {
		say_coming(1, epoch + 1);
		send_move(&coming, 1, epoch + 1, 0);
		hear(CONTROL_PLACE);
		assert_int_equal(msg.place.epoch, epoch + 1);
		while (!moves_wish(half.node, 1, 1))
			test_sleep_ms(1);
		hear(CONTROL_MOVE);
		epoch += 2;
		assert_int_equal(msg.move.epoch, epoch);
		send_place(CONTROL_PLACE, 1, epoch);
		settle();
	}
	assert_null(half_end(&half, 0));
	end();
}

/* It does not come: whatever else is said meanwhile is heard, and little time is spent on looking. */
static void test_coming_in_vain(void **state)
{
	struct coming_stats stats;
	uint64_t begin_ns;

	begin();
	begin_ns = node_now_ns(half.node);
	for (int round = 0; round < 2000; round++) {
		say_coming(1 + round % 2, 1);
		if (round % 10 == 0)
			settle();
	}
	settle();
	stats = looks();
	assert_int_equal(stats.came_count, 0);
	assert_true(stats.vain_ns <= (node_now_ns(half.node) - begin_ns) / 32);
	assert_null(half_end(&half, 0));
	end();
}

/* Words that cannot be true any more, or never were, are nothing. */
static void test_coming_old(void **state)
{
	begin();
	say_coming(0, 1); /* it is here */
	say_coming(1, 2);
	say_coming(1, 0);
	say_coming(2, UINT64_MAX);
	settle();
	test_sleep_ms(10);
	assert_int_equal(looks().look_count, 0);
	assert_null(half_end(&half, 0));
	end();
	begin();
	say_coming(3, 1);
	expect_lie("it sent COMING about a vCPU that cannot be there");
}

/* ---- with a policy ------------------------------------------------------------------------------ */

static _Atomic uint32_t wishes;
static _Atomic uint64_t policy_ns;

static uint64_t policy_now(void *ctx)
{
	return policy_ns;
}

static bool policy_look(void *ctx, uint32_t vcpu, struct placer_vcpu *ret)
{
	return false;
}

static uint32_t policy_program(void *ctx, uint32_t vcpu)
{
	return 0;
}

static void policy_go(void *ctx, uint32_t vcpu, uint16_t to)
{
	wishes++;
}

static void policy_say(void *ctx, const struct placement_load *load)
{
}

static void policy_say_learner(void *ctx, const struct placement_stats *stats)
{
}

/* Whether stalls on the peer's pages make the policy wish that vCPU 0 goes there. */
static bool is_wished(void)
{
	wishes = 0;
	for (uint32_t i = 0; i < 100; i++)
		placer_stalled(half.node->placer, 0,
			       &(struct pager_stall){ .kind = COH_STALL_WRITE,
						      .from = 1,
						      .gpn = 1000 + i,
						      .took_ns = 10000000 });
	return wishes > 0;
}

/* One whose image cannot be made: who asked is told, it stays, and the policy does not wish on. */
static void test_no_image(void **state)
{
	static const struct placer_ops policy = { .now_ns = policy_now,
						  .look = policy_look,
						  .program = policy_program,
						  .go = policy_go,
						  .say_load = policy_say,
						  .say_learner = policy_say_learner };
	static const uint16_t first[3] = { 0, 1, 1 };
	struct placer_config config = { .placement = { .self = 0,
						       .node_count = 2,
						       .vcpu_count = 3,
						       .policy = PLACEMENT_VCPUS,
						       .move_ns = 300000 },
					.cores = 3,
					.ops = &policy };

	begin();
	policy_ns = 1000000000;
	assert_int_equal(placer_create(&config, first, &half.node->placer), 0);
	placer_load(half.node->placer, 0, &(struct placement_load){ 3, 1 });
	placer_load(half.node->placer, 1, &(struct placement_load){ 3, 0 });
	policy_ns += 1000000000; /* it has been here for a while */
	assert_true(is_wished());
	engine_vcpu[0].loaded.reserved = 1;
	assert_int_equal(moves_ask(half.node, 0, 1), CONTROL_MOVE_NO);
	expect_place(0, PLACE_HERE, 0, 0);
	assert_false(is_wished());
	policy_ns += 1000000000;
	assert_true(is_wished());
	assert_null(half_end(&half, 0));
	end();
}

static void test_lies(void **state)
{
	struct vcpu_state coming;

	begin();
	make_state(0, &coming);
	send_move(&coming, 0, 1, 0); /* it is here */
	expect_lie("it sent MOVE about a vCPU that cannot be there");
	begin();
	make_state(2, &coming);
	send_move(&coming, 1, 1, 0);
	expect_lie("it sent MOVE with what is no state of that vCPU");
	begin();
	make_state(1, &coming);
	send_move(&coming, 1, 1, 20000000000);
	expect_lie("it sent MOVE with what is no state of that vCPU");
	begin();
	send_move(&coming, 1, 2, 0);
	expect_lie("it sent MOVE about a vCPU that cannot be there");
	begin();
	make_state(1, &coming);
	hints_size = 7;
	send_move(&coming, 1, 1, 0);
	hints_size = 0;
	expect_lie("it sent MOVE with what are no pages");
	expect_place(1, PLACE_AWAY, 1, 0); /* judged before anything is done */
	begin();
	send_place(CONTROL_REFUSED, 0, 1);
	expect_lie("it sent REFUSED about a vCPU that cannot be there");
	begin();
	send_place(CONTROL_PLACE, 0, 7);
	expect_lie("it sent PLACE about a vCPU that cannot be there");
}

/* Where nothing moves, nobody has news of places: interrupts would go where he says. */
static void test_lies_in_large_pod(void **state)
{
	struct control_message place = { .type = CONTROL_PLACE, .src = 1, .place = { 1, 3 } };
	struct control_message refused = { .type = CONTROL_REFUSED, .src = 1, .refused = { 1, 3 } };
	static struct pod_config large;

	half_create(&half, 0);
	large = *half.node->config;
	large.vcpu_count = NODE_VCPUS_MAX + 1;
	half.node->config = &large;
	assert_non_null(moves_message(half.node, &place));
	assert_non_null(moves_message(half.node, &refused));
	expect_place(1, PLACE_AWAY, 1, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaves),
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_arrives),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_no_image),
		cmocka_unit_test(test_lies_in_large_pod),
		cmocka_unit_test(test_posted_meanwhile),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_asked_elsewhere),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_to_no_member),
		cmocka_unit_test(test_end_while_asking),
		cmocka_unit_test(test_place_before_move),
		cmocka_unit_test(test_coming_said),
		cmocka_unit_test(test_coming_looks),
		cmocka_unit_test(test_coming),
		cmocka_unit_test(test_coming_in_vain),
		cmocka_unit_test(test_coming_old),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
