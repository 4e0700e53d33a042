/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's TSC on nodes whose oscillators are off by up to 200 ppm and wander: node_clock.c as it
 * ships, in a simulation where host_clock_tsc() is the TSC of whichever node the test is at.
 *
 * Each node has a filter, a line, and vCPUs that take a new line over late. For every seed and at
 * random times:
 *
 *   a TSC read on one vCPU is never above what another reads when word of it has arrived there;
 *   every vCPU's own TSC only grows;
 *   what each reads is off from the pod's by no more than the node reports.
 *
 * Once for an engine that can run at any slope, once for one that cannot scale. Usage:
 * test_node_clock [first seed [seeds [seconds]]].
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/host_clock.h"
#include "node/node_clock.h"
#include "tests/xorshift.h"

#define NODES	3
#define VCPUS	2 /* a node */
#define SLICES	800
#define NS	1000000000ull
#define MS	1000000ull
#define US	1000ull
#define HAND_NS 100 /* a cache line from one vCPU to another of the same node, at best */
#define EXIT_NS 300 /* leaving the guest and entering it again, at best */

static uint64_t first_seed = 1, seeds = 1000, seconds = 12;

/* ---- randomness, true time, TSCs ---- */

static int64_t random_between(int64_t low, int64_t high)
{
	return low + (int64_t)((random_next() >> 8) % (uint64_t)(high - low + 1));
}

/* Ticks since the start; its rate changes every second of true time. */
struct oscillator {
	uint32_t khz;
	int64_t rate_ppb[SLICES];
	uint64_t tick[SLICES];
};

static void oscillator_make(struct oscillator *o, uint32_t khz, int64_t off_ppb)
{
	int64_t wander = 0;

	o->khz = khz;
	o->tick[0] = (uint64_t)random_between(0, 1ll << 52);
	for (int i = 0; i < SLICES; i++) {
		wander += random_between(-100, 100);
		if (wander > 600 || wander < -600)
			wander = 0;
		o->rate_ppb[i] = off_ppb + wander;
		if (i + 1 < SLICES)
			o->tick[i + 1] =
				o->tick[i] + (uint64_t)((__int128)khz * 1000 *
							(1000000000 + o->rate_ppb[i]) / 1000000000);
	}
}

static uint64_t oscillator_read(const struct oscillator *o, uint64_t true_ns)
{
	uint64_t slice = true_ns / NS, rest = true_ns % NS;

	return o->tick[slice] +
	       (uint64_t)((__int128)rest * o->khz * (1000000000 + o->rate_ppb[slice]) / 1000000000 /
			  1000000);
}

/* ---- nodes ---- */

struct sim_vcpu {
	struct tsc_line line;
	bool pending;	     /* a new line is to be taken */
	uint64_t take_ns;    /* true time */
	uint64_t outside_ns; /* until then it reads nothing */
	uint64_t last_tsc;
};

struct sim_node {
	struct oscillator oscillator;
	struct node_clock *clock;
	struct sim_vcpu vcpu[VCPUS];
	bool ping_out;
	struct clock_sample ping;
	uint64_t arrives_ns, ping_ns, follow_ns; /* next; true time */
};

struct sim {
	struct sim_node node[NODES];
	int64_t shortest_ns[NODES][NODES];
	int64_t queue_ns;
	unsigned int loss_percent, outlier_percent, late_percent;
	uint64_t now_ns, epoch_ns;
	uint32_t guest_khz;
	bool scaling, running;
	unsigned int at; /* whose TSC host_clock_tsc() is */
};

static struct sim sim;

uint64_t host_clock_tsc(void)
{
	return oscillator_read(&sim.node[sim.at].oscillator, sim.now_ns);
}

uint64_t host_clock_raw_ns(void)
{
	const struct oscillator *o = &sim.node[sim.at].oscillator;

	return (uint64_t)((unsigned __int128)(host_clock_tsc() - o->tick[0]) * 1000000 / o->khz);
}

void host_clock_pause(uint64_t ns)
{
	fail();
}

bool host_clock_tsc_is_real(void)
{
	return false;
}

static uint64_t any_ratio(const struct engine *engine, uint64_t wanted)
{
	return wanted;
}

static uint64_t ratio_one(const struct engine *engine, uint64_t wanted)
{
	return TSC_RATIO_ONE;
}

static const struct engine_ops scaling_engine = { .tsc_ratio = any_ratio };
static const struct engine_ops plain_engine = { .tsc_ratio = ratio_one };

static struct node_clock *at(unsigned int n)
{
	sim.at = n;
	return sim.node[n].clock;
}

static int64_t delay(unsigned int from, unsigned int to)
{
	int64_t ns = sim.shortest_ns[from][to];

	for (int i = 0; i < 3; i++)
		ns += random_between(0, sim.queue_ns * 2 / 3);
	if (random_next() % 100 < sim.outlier_percent)
		ns += random_between(0, 20 * (int64_t)MS);
	return ns;
}

static void sim_make(uint64_t seed, bool scaling)
{
	memset(&sim, 0, sizeof(sim));
	random_begin(seed);
	int64_t base = random_between(20, 300) * (int64_t)US;

	sim.scaling = scaling;
	sim.queue_ns = random_between(0, base);
	sim.loss_percent = (unsigned int)random_between(0, 30);
	sim.outlier_percent = (unsigned int)random_between(0, 30);
	sim.late_percent = (unsigned int)random_between(0, scaling ? 10 : 3);
	for (unsigned int a = 0; a < NODES; a++) {
		uint32_t khz = scaling ? (uint32_t)random_between(1000000, 5000000) : 2500000;
		struct node_clock_config config = { .reference = a == 0, .exact_rate = !scaling };

		for (unsigned int b = 0; b < NODES; b++)
			sim.shortest_ns[a][b] = base * random_between(95, 105) / 100;
		oscillator_make(&sim.node[a].oscillator, khz,
				scaling ? random_between(-200000, 200000)
					: random_between(-7500, 7500));
		/* Measured with an error of 2 ppm. */
		config.host_khz = khz + (uint32_t)random_between(0, khz / 250000) - khz / 500000;
		sim.at = a;
		assert_int_equal(node_clock_create(&config, &sim.node[a].clock), 0);
		sim.node[a].ping_ns = (uint64_t)random_between(0, MS);
	}
}

static uint64_t pod_now(unsigned int n)
{
	return node_clock_now(at(n));
}

static void send_ping(unsigned int n)
{
	struct sim_node *node = &sim.node[n];
	uint64_t now = sim.now_ns, there, back;

	node->ping_ns = now + (node_clock_settled(node->clock) ? 100 : 2) * MS;
	if (n == 0 || node->ping_out || random_next() % 100 < sim.loss_percent)
		return;
	there = now + (uint64_t)delay(n, 0);
	back = there + (uint64_t)random_between(200, 30000);
	node->arrives_ns = back + (uint64_t)delay(0, n);
	node->ping.sent_ns = node_clock_local_ns(at(n));
	sim.now_ns = there;
	node->ping.pod_received_ns = pod_now(0);
	sim.now_ns = back;
	node->ping.pod_sent_ns = pod_now(0);
	sim.now_ns = now;
	node->ping_out = true;
}

/* A vCPU is kicked at once, now and then late: its thread, or the one that kicks, had to wait. */
static void move_vcpus(struct sim_node *node)
{
	for (unsigned int v = 0; v < VCPUS; v++) {
		bool late = random_next() % 100 < sim.late_percent;

		node->vcpu[v].pending = true;
		node->vcpu[v].take_ns =
			sim.now_ns + (uint64_t)(late ? random_between(0, 10 * (int64_t)MS)
						     : random_between(0, 20 * (int64_t)US));
	}
}

static void follow(unsigned int n, uint64_t seed)
{
	struct sim_node *node = &sim.node[n];
	struct node_clock_follow follow;

	for (unsigned int v = 0; v < VCPUS; v++)
		if (node->vcpu[v].pending) {
			node->follow_ns = sim.now_ns + MS; /* as control.c does */
			return;
		}
	node_clock_update(at(n));
	node_clock_tsc_follow(node->clock, &follow);
	if (follow.lost_ns)
		fail_msg("seed %llu, node %u: lost by %llu ns", (unsigned long long)seed, n,
			 (unsigned long long)follow.lost_ns);
	node->follow_ns = sim.now_ns + follow.again_ns + (uint64_t)random_between(0, MS / 5);
	if (sim.scaling && random_next() % 100 < sim.late_percent)
		node->follow_ns += (uint64_t)random_between(0, 400 * (int64_t)MS);
	if (follow.moved)
		move_vcpus(node);
}

static void node_step(unsigned int n, uint64_t seed)
{
	struct sim_node *node = &sim.node[n];

	if (node->ping_out && node->arrives_ns <= sim.now_ns) {
		node->ping_out = false;
		node->ping.received_ns = node_clock_local_ns(at(n));
		assert_int_equal(node_clock_pong(node->clock, &node->ping), 0);
		if (!node_clock_ready(node->clock))
			node->ping_ns = sim.now_ns; /* as control.c does */
	}
	if (node->ping_ns <= sim.now_ns)
		send_ping(n);
	if (!sim.running)
		return;
	if (node->follow_ns <= sim.now_ns)
		follow(n, seed);
	for (unsigned int v = 0; v < VCPUS; v++) {
		struct sim_vcpu *vcpu = &node->vcpu[v];

		if (!vcpu->pending || vcpu->take_ns > sim.now_ns)
			continue;
		vcpu->pending = false;
		node_clock_tsc(at(n), &vcpu->line);
		vcpu->outside_ns = sim.now_ns + EXIT_NS;
	}
}

static void sooner(uint64_t *next, uint64_t when_ns)
{
	if (when_ns < *next)
		*next = when_ns;
}

static void run_until(uint64_t true_ns, uint64_t seed)
{
	while (sim.now_ns < true_ns) {
		uint64_t next = true_ns;

		for (unsigned int n = 0; n < NODES; n++) {
			const struct sim_node *node = &sim.node[n];

			if (node->ping_out)
				sooner(&next, node->arrives_ns);
			sooner(&next, node->ping_ns);
			if (!sim.running)
				continue;
			sooner(&next, node->follow_ns);
			for (unsigned int v = 0; v < VCPUS; v++)
				if (node->vcpu[v].pending)
					sooner(&next, node->vcpu[v].take_ns);
		}
		if (next > sim.now_ns)
			sim.now_ns = next;
		for (unsigned int n = 0; n < NODES; n++)
			node_step(n, seed);
	}
}

/* ---- what is judged ---- */

struct figures {
	uint64_t error_max, bound_max;
};

static uint64_t read_tsc(unsigned int n, unsigned int v)
{
	sim.at = n;
	return tsc_line_at(&sim.node[n].vcpu[v].line, host_clock_tsc());
}

static uint64_t ns_of(int64_t ticks)
{
	return (uint64_t)(ticks < 0 ? -ticks : ticks) * 1000000 / sim.guest_khz;
}

static uint64_t check_vcpu(unsigned int n, unsigned int v, uint64_t seed, struct figures *figures)
{
	struct sim_vcpu *vcpu = &sim.node[n].vcpu[v];
	uint64_t tsc, truth, off, bound;

	if (vcpu->outside_ns > sim.now_ns)
		run_until(vcpu->outside_ns, seed);
	tsc = read_tsc(n, v);
	if ((int64_t)(tsc - vcpu->last_tsc) < 0)
		fail_msg("seed %llu, node %u, vCPU %u, at %llu ns: went back by %llu ns",
			 (unsigned long long)seed, n, v, (unsigned long long)sim.now_ns,
			 (unsigned long long)ns_of((int64_t)(vcpu->last_tsc - tsc)));
	vcpu->last_tsc = tsc;
	truth = (uint64_t)((unsigned __int128)(pod_now(0) - sim.epoch_ns) * sim.guest_khz /
			   1000000);
	off = ns_of((int64_t)(tsc - truth));
	bound = node_clock_tsc_bound_ns(at(n));
	/* One that has not yet taken over a line is off by no more than a hand-over hides. */
	if (off > bound + HAND_NS)
		fail_msg("seed %llu, node %u, vCPU %u, at %llu ns: off by %llu ns, bound %llu",
			 (unsigned long long)seed, n, v, (unsigned long long)sim.now_ns,
			 (unsigned long long)off, (unsigned long long)bound);
	if (off > figures->error_max)
		figures->error_max = off;
	if (bound > figures->bound_max)
		figures->bound_max = bound;
	return tsc;
}

static void hand_over(uint64_t seed, struct figures *figures)
{
	unsigned int a = (unsigned int)(random_next() % NODES), b = random_next() % NODES;
	unsigned int va = random_next() % VCPUS, vb = random_next() % VCPUS;
	uint64_t sent, arrived;

	if (a == b && va == vb)
		vb = (va + 1) % VCPUS;
	sent = check_vcpu(a, va, seed, figures);
	run_until(sim.now_ns + (a == b ? HAND_NS : (uint64_t)sim.shortest_ns[a][b]) +
			  (uint64_t)(random_next() % 2 ? 0 : random_between(0, 100)),
		  seed);
	arrived = check_vcpu(b, vb, seed, figures);
	if ((int64_t)(arrived - sent) < 0)
		fail_msg("seed %llu at %llu ns: node %u vCPU %u to node %u vCPU %u: arrives "
			 "%llu ns before it was sent",
			 (unsigned long long)seed, (unsigned long long)sim.now_ns, a, va, b, vb,
			 (unsigned long long)ns_of((int64_t)(sent - arrived)));
}

/* What node/start.c does. */
static uint32_t choose_khz(void)
{
	uint64_t khz = node_clock_pod_khz(at(0));

	for (unsigned int n = 1; n < NODES && !sim.scaling; n++)
		if (node_clock_pod_khz(at(n)) > khz)
			khz = node_clock_pod_khz(at(n));
	return (uint32_t)(sim.scaling ? khz : khz + (khz * 5 + 999999) / 1000000);
}

static bool all_ready(void)
{
	for (unsigned int n = 0; n < NODES; n++)
		if (!node_clock_ready(sim.node[n].clock))
			return false;
	return true;
}

static void begin(uint64_t seed)
{
	struct node_clock_tsc tsc = { .engine_ops = sim.scaling ? &scaling_engine : &plain_engine };

	for (int i = 0; i < 210 && !all_ready(); i++)
		run_until(sim.now_ns + NS / 10, seed);
	assert_true(all_ready());
	tsc.guest_khz = sim.guest_khz = choose_khz();
	tsc.epoch_ns = sim.epoch_ns = pod_now(0);
	/* The guest is loaded. */
	run_until(sim.now_ns + (uint64_t)random_between(20, 200) * MS, seed);
	for (unsigned int n = 0; n < NODES; n++) {
		/* Started one after the other. */
		run_until(sim.now_ns + (uint64_t)random_between(0, 50 * (int64_t)MS), seed);
		node_clock_tsc_start(at(n), &tsc);
		for (unsigned int v = 0; v < VCPUS; v++) {
			node_clock_tsc(at(n), &sim.node[n].vcpu[v].line);
			sim.node[n].vcpu[v].last_tsc = read_tsc(n, v);
		}
	}
	sim.running = true;
}

static void run_seed(uint64_t seed, bool scaling, struct figures *figures)
{
	uint64_t end_ns;

	sim_make(seed, scaling);
	begin(seed);
	run_until(sim.now_ns + 150 * MS, seed); /* until there is more than one vCPU */
	end_ns = sim.now_ns + seconds * NS;
	while (sim.now_ns < end_ns) {
		run_until(sim.now_ns + (uint64_t)random_between(1, 30 * (int64_t)MS), seed);
		hand_over(seed, figures);
	}
	for (unsigned int n = 0; n < NODES; n++)
		node_clock_destroy(sim.node[n].clock);
}

static void run_seeds(uint64_t count, bool scaling)
{
	struct figures figures = { 0 };

	for (uint64_t seed = first_seed; seed < first_seed + count; seed++)
		run_seed(seed, scaling, &figures);
	fprintf(stderr, "%llu seeds, %s: off by %.1f us at most, reported bound %.1f us at most\n",
		(unsigned long long)count, scaling ? "scaling" : "no scaling",
		(double)figures.error_max / 1e3, (double)figures.bound_max / 1e3);
}

static void test_scaling(void **state)
{
	run_seeds(seeds, true);
}

static void test_no_scaling(void **state)
{
	run_seeds(seeds / 4 + 1, false);
}

/* ---- single cases, with two nodes that answer at once ---- */

static void pings(unsigned int count, uint64_t apart_ns, int expected)
{
	for (unsigned int i = 0; i < count; i++) {
		struct clock_sample sample;

		sim.now_ns += apart_ns;
		sample.sent_ns = node_clock_local_ns(at(1));
		sim.now_ns += 10 * US;
		sample.pod_received_ns = sample.pod_sent_ns = pod_now(0);
		sim.now_ns += 10 * US;
		sample.received_ns = node_clock_local_ns(at(1));
		if (node_clock_pong(at(1), &sample) != 0) {
			assert_int_equal(expected, -ERANGE);
			return;
		}
	}
	assert_int_equal(expected, 0);
}

static void two_nodes(int64_t off_ppb, uint32_t khz_taken_for)
{
	struct node_clock_config config = { .reference = true, .host_khz = 2000000 };

	memset(&sim, 0, sizeof(sim));
	random_state = 5;
	sim.now_ns = NS;
	oscillator_make(&sim.node[0].oscillator, 2000000, 0);
	oscillator_make(&sim.node[1].oscillator, 2000000, off_ppb);
	assert_int_equal(node_clock_create(&config, &sim.node[0].clock), 0);
	sim.at = 1;
	config = (struct node_clock_config){ .host_khz = khz_taken_for };
	assert_int_equal(node_clock_create(&config, &sim.node[1].clock), 0);
}

static void end_two_nodes(void)
{
	node_clock_destroy(sim.node[0].clock);
	node_clock_destroy(sim.node[1].clock);
}

/* A TSC rate that was measured wrongly does not get past the other node's clock. */
static void test_wrong_rate(void **state)
{
	two_nodes(0, 2000000 / 100 * 99);
	pings(300, 2 * MS, -ERANGE);
	assert_false(node_clock_ready(sim.node[1].clock));
	end_two_nodes();
	two_nodes(0, 120000);
	pings(300, 2 * MS, -ERANGE);
	end_two_nodes();
	two_nodes(450000, 2000000);
	pings(3000, 2 * MS, 0);
	assert_true(node_clock_ready(sim.node[1].clock));
	assert_in_range(node_clock_pod_khz(at(1)), 2000000 + 880, 2000000 + 920);
	end_two_nodes();
}

/* The host's TSC stops for a while: the line cannot come after, and says by how much. */
static void test_lost(void **state)
{
	struct node_clock_tsc tsc = { .engine_ops = &scaling_engine, .guest_khz = 2000000 };
	struct node_clock_follow follow;

	two_nodes(100000, 2000000);
	pings(300, 2 * MS, 0);
	tsc.epoch_ns = pod_now(0);
	node_clock_tsc_start(at(1), &tsc);
	for (int i = 0; i < 100; i++) {
		pings(1, 100 * MS, 0);
		node_clock_tsc_follow(at(1), &follow);
		assert_int_equal(follow.lost_ns, 0);
		assert_in_range(node_clock_tsc_bound_ns(at(1)), 0, 30000);
	}
	for (int i = 0; i < SLICES; i++)
		sim.node[1].oscillator.tick[i] -= 2000000ull * 100; /* 100 ms */
	pings(1, 100 * MS, -ERANGE);
	node_clock_tsc_follow(at(1), &follow);
	assert_in_range(follow.lost_ns, 98 * MS, 101 * MS);
	end_two_nodes();
}

/* It jumps ahead: whoever reads the time follows slowly, and by more than the guest's TSC can. */
static void test_lost_ahead(void **state)
{
	struct node_clock_tsc tsc = { .engine_ops = &scaling_engine, .guest_khz = 2000000 };
	struct node_clock_follow follow = { 0 };
	uint32_t turns = 0;

	two_nodes(100000, 2000000);
	pings(300, 2 * MS, 0);
	tsc.epoch_ns = pod_now(0);
	node_clock_tsc_start(at(1), &tsc);
	for (int i = 0; i < 100; i++) {
		pings(1, 100 * MS, 0);
		node_clock_tsc_follow(at(1), &follow);
		assert_int_equal(follow.lost_ns, 0);
	}
	for (int i = 0; i < SLICES; i++)
		sim.node[1].oscillator.tick[i] += 2000000ull * 100; /* 100 ms */
	pings(1, 100 * MS, -ERANGE);
	for (; turns < 300 && !follow.lost_ns; turns++) {
		pings(1, 1000 * MS, 0);
		node_clock_tsc_follow(at(1), &follow);
	}
	assert_in_range(turns, 0, 200);
	end_two_nodes();
}

/* As pings(), of a host that is so busy that the way there takes 10 ms longer than the way back. */
static void slow_pings(unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		struct clock_sample sample = { .sent_ns = node_clock_local_ns(at(1)) };

		sim.now_ns += 10 * MS;
		sample.pod_received_ns = sample.pod_sent_ns = pod_now(0);
		sim.now_ns += 10 * US;
		sample.received_ns = node_clock_local_ns(at(1));
		assert_int_equal(node_clock_pong(at(1), &sample), 0);
	}
}

/* A pod that began on a busy host, whose clock was known badly, and later is known well: its guest's
 * TSC goes there slowly, and is not lost. */
static void test_known_better_later(void **state)
{
	struct node_clock_tsc tsc = { .engine_ops = &scaling_engine, .guest_khz = 2000000 };
	struct node_clock_follow follow;

	two_nodes(0, 2000000);
	slow_pings(3000);
	assert_true(node_clock_ready(at(1)));
	tsc.epoch_ns = pod_now(0);
	node_clock_tsc_start(at(1), &tsc);
	assert_in_range(node_clock_error_ns(at(1)), 4 * MS, 6 * MS);
	for (int i = 0; i < 1500; i++) {
		pings(1, 100 * MS, 0);
		node_clock_tsc_follow(at(1), &follow);
		assert_int_equal(follow.lost_ns, 0);
	}
	assert_in_range(node_clock_tsc_bound_ns(at(1)), 0, 100000);
	end_two_nodes();
}

/*
 * One whose host is busy for some minutes: meanwhile the clock is known badly, and the guest's TSC goes after it. When
 * it is known well again, the TSC goes back slowly, and is not lost.
 */
static void test_known_worse_meanwhile(void **state)
{
	struct node_clock_tsc tsc = { .engine_ops = &scaling_engine, .guest_khz = 2000000 };
	struct node_clock_follow follow;
	uint64_t worst_ns = 0;

	two_nodes(0, 2000000);
	pings(200, 2 * MS, 0);
	tsc.epoch_ns = pod_now(0);
	node_clock_tsc_start(at(1), &tsc);
	assert_in_range(node_clock_error_ns(at(1)), 0, 50 * US);
	for (int i = 0; i < 3000; i++) {
		slow_pings(10);
		node_clock_tsc_follow(at(1), &follow);
		assert_int_equal(follow.lost_ns, 0);
		if (node_clock_error_ns(at(1)) > worst_ns)
			worst_ns = node_clock_error_ns(at(1));
	}
	assert_in_range(worst_ns, 2 * MS, 12 * MS);
	for (int i = 0; i < 1500; i++) {
		pings(1, 100 * MS, 0);
		node_clock_tsc_follow(at(1), &follow);
		assert_int_equal(follow.lost_ns, 0);
	}
	assert_in_range(node_clock_tsc_bound_ns(at(1)), 0, 100000);
	end_two_nodes();
}

/* A TSC that runs otherwise than before, by the kernel's clock. */
static void test_rate_changed(void **state)
{
	struct oscillator *o;
	uint32_t khz;

	two_nodes(0, 2000000);
	sim.now_ns += NS / 2;
	assert_false(node_clock_rate_changed(at(1), &khz)); /* too soon to say */
	sim.now_ns += 10 * NS;
	assert_false(node_clock_rate_changed(at(1), &khz));
	end_two_nodes();
	two_nodes(0, 2000000);
	o = &sim.node[1].oscillator;
	o->khz = 2002000; /* what host_clock_raw_ns() takes it for */
	sim.now_ns += 10 * NS;
	assert_true(node_clock_rate_changed(at(1), &khz));
	end_two_nodes();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong_rate),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_lost_ahead),
		cmocka_unit_test(test_known_better_later),
		cmocka_unit_test(test_known_worse_meanwhile),
		cmocka_unit_test(test_rate_changed),
		cmocka_unit_test(test_scaling),
		cmocka_unit_test(test_no_scaling),
	};

	if (argc > 1)
		first_seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		seeds = strtoull(argv[2], NULL, 0);
	if (argc > 3)
		seconds = strtoull(argv[3], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
