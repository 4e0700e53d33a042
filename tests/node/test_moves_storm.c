/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs that move all the time between three nodes, which are all real but for their engine, memory
 * and devices: control threads, links, seats, and interrupts from everywhere at once. The engine is
 * made up: its guest counts its steps in its own state, sends interrupts, halts, and is refused now and
 * then by the node that it comes to.
 *
 * Judged: a vCPU runs at one place at a time, with the state that it left with; each interrupt comes
 * once; and vCPU 3, which vCPU 0 starts again and again by INIT and SIPI, starts each time, from where
 * it was told. A source sends a vector to a vCPU again when the last has come: so none may be merged.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/interrupt_route.h"
#include "node/node_state.h"
#include "node/say.h"
#include "tests/link/support.h"
#include "tests/node/fake_engine.h"
#include "tests/rng.h"
#include "tests/test.h"

#define NODES	 3
#define VCPUS	 4
#define WORKERS	 3 /* vCPUs 0 .. 2; the last is started by vCPU 0 */
#define STARTED	 3
#define SOURCES	 (WORKERS + NODES) /* these, and a device on each node */
#define VECTORS	 8		   /* of each source */
#define FIRST	 0x30u
#define ROUNDS	 25
#define STORM_MS 80
#define WAIT_MS	 40000 /* for the last to come, on a machine that has other things to do */

#define MSR_EOI 0x80bu
#define MSR_ICR 0x830u

/* ---- what is judged -------------------------------------------------------------------------- */

static _Atomic uint32_t sent[WORKERS][SOURCES * VECTORS], got[WORKERS][SOURCES * VECTORS];
static _Atomic uint64_t steps[VCPUS];
static _Atomic bool runs[VCPUS];
static _Atomic uint32_t started_at; /* page where vCPU 3 ran last, */
static _Atomic uint32_t start_at;   /* and where it is to start; 0: it has only had an INIT */
static _Atomic uint32_t starts, refusals;
static _Atomic bool calm = true; /* nobody sends any more */
static _Atomic bool held = true; /* no state can be saved */
static _Atomic uint32_t hold_count;
static uint64_t seed; /* of the round */
static _Atomic(const char *) wrong;

static void check(bool fine, const char *what)
{
	const char *nothing = NULL;

	if (!fine)
		atomic_compare_exchange_strong(&wrong, &nothing, what);
}

static uint32_t vector_of(uint32_t source, uint32_t k)
{
	return source * VECTORS + k;
}

/* One that this source may send to all of `targets` now; negative: none. */
static int next_vector(struct rng *rng, uint32_t source, uint32_t targets)
{
	uint32_t vector = vector_of(source, rng_below(rng, VECTORS));

	for (uint32_t v = 0; v < WORKERS; v++)
		if ((targets >> v & 1) && got[v][vector] != sent[v][vector])
			return -1;
	for (uint32_t v = 0; v < WORKERS; v++)
		if (targets >> v & 1)
			sent[v][vector]++;
	return (int)(FIRST + vector);
}

/* ---- the engine ------------------------------------------------------------------------------ */

struct engine {
	struct node *node;
};

struct engine_vcpu {
	struct node *node;
	uint32_t number;
	struct rng rng;
	_Atomic bool kick;
	struct vcpu_state state; /* gpr[0]: steps; gpr[1]: an EOI is due */
};

int fake_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu)
{
	struct engine_vcpu *vcpu = calloc(1, sizeof(*vcpu));

	if (!vcpu)
		return -ENOMEM;
	vcpu->node = engine->node;
	vcpu->number = number;
	vcpu->rng.state = number * 16 + engine->node->self;
	*ret_vcpu = vcpu;
	return 0;
}

/* What has come from elsewhere may be refused; what is here may not. */
int fake_load(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	struct vcpu_place place = vcpu_place_read(&vcpu->node->places, vcpu->number);

	if (place.state == PLACE_ARRIVING && place.node != vcpu->node->self &&
	    rng_chance(&vcpu->rng, 10)) {
		refusals++;
		return -EINVAL;
	}
	vcpu->state = *state;
	return 0;
}

int fake_save(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	struct lapic_state lapic = state->lapic;
	uint8_t run_state = state->run_state;

	hold_count++;
	if (held || (run_state == VCPU_RUNNABLE && rng_chance(&vcpu->rng, 10)))
		return -EAGAIN;
	*state = vcpu->state;
	state->lapic = lapic;
	state->run_state = run_state;
	return 0;
}

void fake_kick(struct engine_vcpu *vcpu)
{
	vcpu->kick = true;
}

static void write_msr(struct engine_exit *exit, uint32_t index, uint64_t value)
{
	exit->kind = EXIT_MSR_WRITE;
	exit->msr.index = index;
	exit->msr.fault = 0;
	exit->msr.value = value;
}

/* INIT, SIPI to another page, and again when it runs there. */
static bool start_other(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	uint64_t stage = vcpu->state.gpr[2]++;

	switch (stage % 3) {
	case 0:
		start_at = 0;
		write_msr(exit, MSR_ICR, (uint64_t)STARTED << 32 | 1u << 14 | INTERRUPT_INIT << 8);
		return true;
	case 1:
		start_at = 1 + stage / 3 % 200;
		write_msr(exit, MSR_ICR,
			  (uint64_t)STARTED << 32 | 1u << 14 | INTERRUPT_SIPI << 8 | start_at);
		return true;
	default:
		if (started_at == start_at)
			starts++;
		else
			vcpu->state.gpr[2]--; /* not yet */
		return false;
	}
}

static bool send_something(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	uint32_t targets = rng_chance(&vcpu->rng, 20) ? 1 + rng_below(&vcpu->rng, 7)
						      : 1u << rng_below(&vcpu->rng, WORKERS);
	int vector;

	if (calm)
		return false;
	if (vcpu->number == 0 && rng_chance(&vcpu->rng, 20))
		return start_other(vcpu, exit);
	vector = next_vector(&vcpu->rng, vcpu->number, targets);
	if (vector < 0)
		return false;
	/* logical, of the first cluster */
	write_msr(exit, MSR_ICR, (uint64_t)targets << 32 | 1u << 14 | 1u << 11 | (uint32_t)vector);
	return true;
}

static void run_worker(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	check(vcpu->state.gpr[0] == steps[vcpu->number], "a vCPU runs with an old state");
	vcpu->state.gpr[0] = ++steps[vcpu->number];
	if (vcpu->state.gpr[1]) {
		vcpu->state.gpr[1] = 0;
		write_msr(exit, MSR_EOI, 0);
		return;
	}
	if (rng_chance(&vcpu->rng, 30) && send_something(vcpu, exit))
		return;
	if (!held && (calm || rng_chance(&vcpu->rng, 30))) {
		exit->kind = EXIT_HLT;
		return;
	}
	/* Vectors may be free and nobody kicks: it goes on by itself now and then. */
	for (int i = 0; i < 20 && !atomic_exchange(&vcpu->kick, false); i++)
		usleep(50);
}

int fake_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	check(!atomic_exchange(&runs[vcpu->number], true), "a vCPU runs at two places");
	exit->kind = EXIT_KICKED;
	if (vcpu->number < WORKERS) {
		run_worker(vcpu, exit);
	} else {
		started_at = (uint32_t)(vcpu->state.segment[SEG_CS].base >> 12);
		while (!atomic_exchange(&vcpu->kick, false))
			usleep(50);
	}
	atomic_store(&runs[vcpu->number], false);
	return 0;
}

bool fake_can_interrupt(struct engine_vcpu *vcpu)
{
	return !vcpu->state.gpr[1];
}

int fake_interrupt(struct engine_vcpu *vcpu, uint8_t vector)
{
	uint32_t index = vector - FIRST;

	check(vcpu->number < WORKERS && vector >= FIRST && index < SOURCES * VECTORS,
	      "an interrupt that nobody sent");
	if (wrong)
		return 0;
	check(++got[vcpu->number][index] <= sent[vcpu->number][index], "an interrupt comes twice");
	vcpu->state.gpr[1] = 1;
	return 0;
}

/* ---- the pod: nothing of it is ever freed, as its threads live on ------------------------------ */

static struct node *node[NODES];
static struct engine engine[NODES];
static struct vcpu_ops ops;

static void say(void *context, const char *line)
{
}

static void on_down(void *ctx, uint16_t peer, const char *cause)
{
	struct control_end end = {
		.kind = CONTROL_END_NODE_LOST, .status = 1, .node = peer, .vcpu = NODE_NONE
	};

	snprintf(end.text, sizeof(end.text), "%s", cause);
	node_end(ctx, &end, true);
}

static struct node *make_node(const struct pod_config *config, uint16_t self)
{
	struct node_options *options = calloc(1, sizeof(*options));
	struct node_clock_config clock = { .reference = self == 0, .host_khz = 2000000 };
	struct node_clock_tsc tsc = { .guest_khz = 2000000, .engine_ops = &fake_engine };
	struct node *n = calloc(1, sizeof(*n));
	struct mesh_node nodes[NODES];
	struct mesh_config mesh = { .pod_name = config->name,
				    .self = self,
				    .node_count = NODES,
				    .node = nodes,
				    .shard_count = 1,
				    .down = on_down,
				    .ctx = n };
	char why[MESH_WHY_MAX];

	assert_true(options && n);
	*options = (struct node_options){
		.config = config, .self = self, .engine = &fake_engine, .say = say
	};
	n->options = options;
	n->config = config;
	n->self = self;
	assert_int_equal(members_create(config, self, &n->members), 0);
	n->start.tsc_khz = n->features.tsc_khz = 2000000;
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->changed, NULL);
	n->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(say_create(say, NULL, &n->say), 0);
	assert_int_equal(node_clock_create(&clock, &n->clock), 0);
	node_clock_tsc_start(n->clock, &tsc);
	assert_int_equal(moves_create(n), 0);
	assert_int_equal(guest_io_create(n), 0);
	for (int i = 0; i < NODES; i++)
		nodes[i] = (struct mesh_node){ config->node[i].name, config->node[i].address };
	if (mesh_create(&mesh, &n->mesh, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	return n;
}

static void *bring_up(void *arg)
{
	struct node *n = arg;
	static _Thread_local char why[MESH_WHY_MAX];

	check(mesh_bring_up(n->mesh, -1, why, sizeof(why)) == 0, "no links");
	return NULL;
}

static void make_seats(struct node *n)
{
	struct vcpu_state state;

	engine[n->self].node = n;
	for (uint32_t v = 0; v < VCPUS; v++) {
		struct vcpu_config config = { .engine_ops = &fake_engine,
					      .engine = &engine[n->self],
					      .number = v,
					      .lapic = { .tsc_khz = 2000000 },
					      .ops = &ops,
					      .ctx = n,
					      .away = !node_has_vcpu(n, v) };

		vcpu_state_reset(&state, v);
		lapic_reset(&state.lapic, v, v == 0);
		if (v < WORKERS) {
			state.lapic.svr = 0x1ff;
			state.run_state = VCPU_RUNNABLE;
		}
		assert_int_equal(vcpu_create(&config, &state, &n->vcpu[v]), 0);
	}
}

/* False: a node has ended, or something has been seen to be wrong. */
static bool is_well(void)
{
	for (int i = 0; i < NODES; i++)
		check(!node_has_ended(node[i]), "a node has ended");
	return !wrong;
}

static int begin(void **state)
{
	struct pod_config *config;
	pthread_t thread[NODES];
	char text[512], why[512];

	snprintf(text, sizeof(text),
		 "[node a]\naddress=%s\nmemory=128M\nvcpus=2\n"
		 "[node b]\naddress=%s\nmemory=128M\nvcpus=1\n"
		 "[node c]\naddress=%s\nmemory=128M\nvcpus=1\n",
		 test_address(0, 300), test_address(1, 300), test_address(2, 300));
	if (pod_config_parse(text, "storm", &config, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	ops = guest_io_ops;
	ops.started = NULL;
	ops.idle = NULL;
	ops.stalled_ns = NULL;
	for (uint16_t i = 0; i < NODES; i++)
		node[i] = make_node(config, i);
	for (int i = 0; i < NODES; i++)
		pthread_create(&thread[i], NULL, bring_up, node[i]);
	for (int i = 0; i < NODES; i++)
		pthread_join(thread[i], NULL);
	assert_null(wrong);
	for (int i = 0; i < NODES; i++) {
		make_seats(node[i]);
		atomic_store(&node[i]->phase, NODE_RUNNING);
		assert_int_equal(control_start(node[i]), 0);
	}
	for (int i = 0; i < NODES; i++)
		while (!node_clock_ready(node[i]->clock) && is_well())
			test_sleep_ms(1);
	for (int i = 0; i < NODES; i++)
		for (uint32_t v = 0; v < VCPUS; v++)
			assert_int_equal(vcpu_start(node[i]->vcpu[v]), 0);
	return 0;
}

/* ---- the storm ------------------------------------------------------------------------------- */

static void *device_main(void *arg)
{
	struct node *n = arg;
	struct rng rng = { seed + 1000u + n->self };

	while (!calm && is_well()) {
		uint32_t vcpu = rng_below(&rng, WORKERS);
		int vector = next_vector(&rng, WORKERS + n->self, 1u << vcpu);
		struct interrupt interrupt = { .dest = vcpu,
					       .source = INTERRUPT_SOURCE_DEVICE,
					       .mode = INTERRUPT_FIXED,
					       .vector = (uint8_t)vector };

		if (vector >= 0)
			guest_io_interrupt(n, &interrupt);
		if (rng_chance(&rng, 30))
			usleep(rng_below(&rng, 300));
	}
	return NULL;
}

static void *mover_main(void *arg)
{
	struct rng rng = { seed + 2000 };

	while (!calm && is_well()) {
		uint32_t vcpu = rng_below(&rng, VCPUS);
		uint16_t to = (uint16_t)rng_below(&rng, NODES);

		for (int i = 0; i < NODES; i++)
			if (i != to)
				moves_wish(node[i], vcpu, to);
		usleep(rng_below(&rng, 1000));
	}
	return NULL;
}

/* By question, as eagre move does: always an answer. */
static void *asker_main(void *arg)
{
	struct rng rng = { seed + 3000 };

	while (!calm && is_well()) {
		int result = moves_ask(node[rng_below(&rng, NODES)], rng_below(&rng, VCPUS),
				       (uint16_t)rng_below(&rng, NODES));

		check(result >= 0 || calm, "a question that nobody answers");
		usleep(rng_below(&rng, 5000));
	}
	return NULL;
}

static bool all_have_come(void)
{
	if (start_at && started_at != start_at)
		return false;
	for (uint32_t v = 0; v < WORKERS; v++)
		for (uint32_t i = 0; i < SOURCES * VECTORS; i++)
			if (got[v][i] != sent[v][i])
				return false;
	for (uint32_t v = 0; v < VCPUS; v++) {
		uint32_t here = 0;

		for (int i = 0; i < NODES; i++) {
			enum place_state state = vcpu_place_read(&node[i]->places, v).state;

			here += state == PLACE_HERE;
			if (state != PLACE_HERE && state != PLACE_AWAY)
				return false;
		}
		if (here != 1)
			return false;
	}
	return true;
}

static const char *end_text(void)
{
	for (int i = 0; i < NODES; i++)
		if (node_has_ended(node[i]))
			return node[i]->end.text;
	return "";
}

static void *ask_main(void *arg)
{
	int *result = arg;

	*result = moves_ask(node[0], 0, 2);
	return NULL;
}

/* Two wishes at once: the last counts, and who had the other is not told that it was fulfilled. */
static void test_the_last_wish_counts(void **state)
{
	uint32_t count;
	pthread_t thread;
	int result = -1;

	pthread_create(&thread, NULL, ask_main, &result);
	while (!hold_count && is_well())
		test_sleep_ms(1);
	assert_true(moves_wish(node[0], 0, 1));
	count = hold_count;
	while (hold_count < count + 3 && is_well())
		test_sleep_ms(1);
	held = false;
	pthread_join(thread, NULL);
	assert_int_equal(result, CONTROL_MOVE_BUSY);
	while (!all_have_come() && is_well())
		test_sleep_ms(1);
	assert_int_equal(vcpu_place_read(&node[0]->places, 0).node, 1);
	assert_true(is_well());
}

/* All at once, then nobody, until everything has come. */
static bool storm(void)
{
	void *(*const main_of[])(void *) = { device_main, device_main, device_main, mover_main,
					     asker_main };
	pthread_t thread[5];
	uint64_t end_ns;

	calm = false;
	for (int i = 0; i < 5; i++)
		pthread_create(&thread[i], NULL, main_of[i], i < NODES ? node[i] : NULL);
	for (int i = 0; i < STORM_MS / 5 && is_well(); i++)
		test_sleep_ms(5);
	calm = true;
	for (int i = 0; i < 5; i++)
		pthread_join(thread[i], NULL);
	end_ns = test_now_ns() + WAIT_MS * 1000000ull;
	while (is_well() && !all_have_come() && test_now_ns() < end_ns)
		test_sleep_ms(1);
	return is_well() && all_have_come();
}

/* What is missing, in words. */
static void report(void)
{
	for (uint32_t v = 0; v < WORKERS; v++)
		for (uint32_t i = 0; i < SOURCES * VECTORS; i++)
			if (got[v][i] != sent[v][i])
				print_message("vCPU %u: %u of vector 0x%x sent, %u have come\n", v,
					      sent[v][i], FIRST + i, got[v][i]);
	if (start_at && started_at != start_at)
		print_message("vCPU 3 does not start at 0x%x\n", start_at);
	for (uint32_t v = 0; v < VCPUS; v++)
		for (int i = 0; i < NODES; i++) {
			struct vcpu_place place = vcpu_place_read(&node[i]->places, v);

			print_message("vCPU %u, as node %d knows: state %d, node %u, epoch %llu\n",
				      v, i, place.state, place.node,
				      (unsigned long long)place.epoch);
		}
}

static void test_storm(void **state)
{
	uint64_t interrupts = 0, moves = 0;
	bool well = true;

	for (int i = 0; i < ROUNDS && well; i++) {
		seed = (uint64_t)i << 32;
		well = storm();
	}
	for (uint32_t v = 0; v < WORKERS; v++)
		for (uint32_t i = 0; i < SOURCES * VECTORS; i++)
			interrupts += got[v][i];
	for (uint32_t v = 0; v < VCPUS; v++)
		moves += vcpu_place_read(&node[0]->places, v).epoch;
	print_message("%llu moves, %u refused, %llu interrupts, %u starts\n",
		      (unsigned long long)moves, refusals, (unsigned long long)interrupts, starts);
	if (!well)
		report();
	if (wrong)
		fail_msg("%s %s", wrong, end_text());
	assert_true(well);
	assert_true(starts && moves > 20 && interrupts > 100);
	for (int i = 0; i < NODES; i++)
		for (uint32_t v = 0; v < VCPUS; v++)
			vcpu_stop(node[i]->vcpu[v]);
	for (int i = 0; i < NODES; i++)
		for (uint32_t v = 0; v < VCPUS; v++)
			vcpu_join(node[i]->vcpu[v]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_last_wish_counts),
		cmocka_unit_test(test_storm),
	};

	return cmocka_run_group_tests(tests, begin, NULL);
}
