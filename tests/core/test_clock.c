// SPDX-License-Identifier: Apache-2.0
/*
 * The pod clock in a simulation: three nodes whose oscillators drift and wander, links with random
 * and unequal delays, lost pings and outliers. For every seed and at random times:
 *
 *   the truth is within the error that the clock itself reports, and so is all that is proven, now
 *   and as long as the map may be used;
 *   no node's clock ever goes back;
 *   a time read at A, sent to B, is never above the time that B reads on arrival, if the journey
 *   takes at least the link's shortest time (but see `lopsided`, and the header of core/clock.h).
 *
 * Usage: test_clock [first seed [seeds]].
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/clock.h"
#include "tests/xorshift.h"

#define NODES	3
#define SECONDS 12
#define SLICES	(SECONDS + 2) /* the rate of an oscillator changes every second */
#define NS	1000000000ull
#define US	1000ull
#define MS	1000000ull
#define BURST	200 /* pings 10 ms apart; then one every 100 ms */
#define STARTED (BURST * 10 * MS)

static uint64_t first_seed = 1, seeds = 5000;

/* ---- Randomness and true time ---- */

static int64_t random_between(int64_t low, int64_t high)
{
	return low + (int64_t)(random_next() % (uint64_t)(high - low + 1));
}

/* A local clock as a function of true time, which is node 0's clock. */
struct oscillator {
	int64_t rate_ppb[SLICES];
	uint64_t reading[SLICES]; /* at the beginning of each slice */
};

static void oscillator_make(struct oscillator *o, bool reference)
{
	int64_t base = reference ? 0 : random_between(-400000, 400000);
	int64_t wander = 0;

	o->reading[0] = reference ? 5 * NS : (uint64_t)random_between(0, 1000000) * NS;
	for (int i = 0; i < SLICES; i++) {
		wander += random_between(-100, 100);
		if (wander > 600 || wander < -600)
			wander = 0;
		o->rate_ppb[i] = reference ? 0 : base + wander;
		if (i + 1 < SLICES)
			o->reading[i + 1] = o->reading[i] + NS + (uint64_t)o->rate_ppb[i];
	}
}

static uint64_t oscillator_read(const struct oscillator *o, uint64_t true_ns)
{
	uint64_t slice = true_ns / NS, rest = true_ns % NS;

	return o->reading[slice] + rest +
	       (uint64_t)(o->rate_ppb[slice] * (int64_t)rest / (int64_t)NS);
}

/* ---- Nodes and links ---- */

struct pending_ping {
	uint64_t arrives_ns; /* true time */
	struct clock_sample sample;
};

struct sim_node {
	struct oscillator oscillator;
	struct pod_clock clock;
	struct clock_map map;
	struct pending_ping ping;
	bool ping_out;
	uint64_t ping_ns, update_ns; /* next, true time */
	unsigned ping_count;
	uint64_t last_read_ns;
};

struct sim {
	struct sim_node node[NODES];
	int64_t shortest_ns[NODES][NODES];
	int64_t queue_ns; /* mean of the random part of delays */
	unsigned loss_percent, outlier_percent;
	bool lopsided; /* one direction takes no time: the truth lies at the edge of what is proven
			*/
};

static int64_t delay(const struct sim *sim, int from, int to)
{
	int64_t ns = sim->shortest_ns[from][to];

	/* A sum of uniform parts, now and then a long wait. */
	for (int i = 0; i < 3; i++)
		ns += random_between(0, sim->queue_ns * 2 / 3);
	if (random_next() % 100 < sim->outlier_percent)
		ns += random_between(0, 20 * (int64_t)MS);
	return ns;
}

static void sim_make(struct sim *sim, uint64_t seed)
{
	memset(sim, 0, sizeof(*sim));
	random_begin(seed);
	int64_t base = random_between(20, 300) * (int64_t)US;

	sim->queue_ns = random_between(0, base);
	sim->loss_percent = (unsigned)random_between(0, 30);
	sim->outlier_percent = (unsigned)random_between(0, 30);
	for (int a = 0; a < NODES; a++) {
		for (int b = 0; b < NODES; b++)
			/* Directions of one link differ by up to 20 %, links by as much. */
			sim->shortest_ns[a][b] = base * random_between(90, 110) / 100;
		oscillator_make(&sim->node[a].oscillator, a == 0);
		assert_int_equal(pod_clock_init(&sim->node[a].clock,
						&(struct clock_config){ .reference = a == 0 }),
				 0);
		sim->node[a].ping_ns = (uint64_t)random_between(0, 10 * MS);
	}
	sim->lopsided = seed % 4 == 0;
	if (sim->lopsided) {
		sim->shortest_ns[1][0] = sim->shortest_ns[0][2] = 0;
		sim->queue_ns = seed % 8 ? 0 : sim->queue_ns;
		sim->loss_percent = (unsigned)random_between(0, 95);
	}
}

static void node_read_map(struct sim *sim, int n, uint64_t true_ns)
{
	struct sim_node *node = &sim->node[n];

	pod_clock_update(&node->clock, oscillator_read(&node->oscillator, true_ns), &node->map);
}

static void node_step(struct sim *sim, int n, uint64_t true_ns)
{
	struct sim_node *node = &sim->node[n];
	const struct oscillator *pod = &sim->node[0].oscillator;

	if (node->ping_out && node->ping.arrives_ns <= true_ns) {
		node->ping_out = false;
		assert_int_equal(pod_clock_sample(&node->clock, &node->ping.sample), 0);
		node_read_map(sim, n, true_ns);
	}
	if (node->ping_ns > true_ns)
		return;
	node->ping_ns = true_ns + (++node->ping_count < BURST ? 10 : 100) * MS;
	if (n == 0 || node->ping_out || random_next() % 100 < sim->loss_percent)
		return;
	uint64_t there = true_ns + (uint64_t)delay(sim, n, 0);
	uint64_t back = there + (uint64_t)random_between(200, 30000);

	node->ping = (struct pending_ping){
		.arrives_ns = back + (uint64_t)delay(sim, 0, n),
		.sample = { .sent_ns = oscillator_read(&node->oscillator, true_ns),
			    .pod_received_ns = oscillator_read(pod, there),
			    .pod_sent_ns = oscillator_read(pod, back) },
	};
	node->ping.sample.received_ns = oscillator_read(&node->oscillator, node->ping.arrives_ns);
	/* It is handled at the exact time of its arrival only if the simulation steps
	 * there. */
	node->ping_out = true;
}

static uint64_t read_clock(struct sim *sim, int n, uint64_t true_ns)
{
	struct sim_node *node = &sim->node[n];

	return clock_map_pod_ns(&node->map, oscillator_read(&node->oscillator, true_ns));
}

static void check_truth(struct sim *sim, int n, uint64_t true_ns, uint64_t seed)
{
	struct sim_node *node = &sim->node[n];
	uint64_t local = oscillator_read(&node->oscillator, true_ns);
	uint64_t pod = clock_map_pod_ns(&node->map, local);
	uint64_t truth = oscillator_read(&sim->node[0].oscillator, true_ns);
	uint64_t off = pod > truth ? pod - truth : truth - pod;

	if (off > clock_map_error_ns(&node->map, local))
		fail_msg("seed %llu, node %d, at %llu ns: off by %llu ns, reported bound "
			 "%llu ns",
			 (unsigned long long)seed, n, (unsigned long long)true_ns,
			 (unsigned long long)off,
			 (unsigned long long)clock_map_error_ns(&node->map, local));
	if (pod < node->last_read_ns)
		fail_msg("seed %llu, node %d, at %llu ns: went back by %llu ns",
			 (unsigned long long)seed, n, (unsigned long long)true_ns,
			 (unsigned long long)(node->last_read_ns - pod));
	node->last_read_ns = pod;
}

/*
 * The truth may be anywhere in what is proven, so the bound must reach to both of its ends: now, and
 * when the map is used for long, since the thread that makes a new one is late on a busy host.
 */
static void check_bound(struct sim *sim, int n, uint64_t true_ns, uint64_t seed)
{
	static const uint64_t later_ns[] = { 0, MS, 100 * MS, 500 * MS, 2 * NS };
	const struct sim_node *node = &sim->node[n];
	const struct pod_clock *clock = &node->clock;
	uint64_t now = oscillator_read(&node->oscillator, true_ns);

	for (size_t i = 0; n != 0 && i < sizeof(later_ns) / sizeof(later_ns[0]); i++) {
		uint64_t local = now + later_ns[i], span = local - clock->local_ns;
		int64_t offset = (int64_t)(clock_map_pod_ns(&node->map, local) - local);
		int64_t low = clock->proven.low + (int64_t)span * clock->rate_low / (int64_t)NS;
		int64_t high = clock->proven.high + (int64_t)span * clock->rate_high / (int64_t)NS;
		int64_t bound = (int64_t)clock_map_error_ns(&node->map, local);

		if (offset - low > bound || high - offset > bound)
			fail_msg(
				"seed %llu, node %d, at %llu ns, %llu ns later: bound %lld ns, but "
				"proven is %lld to %lld ns",
				(unsigned long long)seed, n, (unsigned long long)true_ns,
				(unsigned long long)later_ns[i], (long long)bound,
				(long long)(low - offset), (long long)(high - offset));
	}
}

/* Steps all nodes in order of time up to true_ns. */
static void run_until(struct sim *sim, uint64_t *now_ns, uint64_t true_ns)
{
	while (*now_ns < true_ns) {
		uint64_t next = true_ns;

		for (int n = 0; n < NODES; n++) {
			struct sim_node *node = &sim->node[n];

			if (node->ping_out && node->ping.arrives_ns < next)
				next = node->ping.arrives_ns;
			if (node->ping_ns < next)
				next = node->ping_ns;
		}
		*now_ns = next > *now_ns ? next : *now_ns;
		for (int n = 0; n < NODES; n++)
			node_step(sim, n, *now_ns);
	}
}

struct figures {
	uint64_t error_max, bound_max, bound_sum, bound_count;
};

static void run_seed(uint64_t seed, struct figures *figures)
{
	static struct sim sim;
	uint64_t now = 0;

	sim_make(&sim, seed);
	node_read_map(&sim, 0, 0);
	run_until(&sim, &now, STARTED);
	for (int n = 0; n < NODES; n++) {
		assert_true(n == 0 || sim.node[n].clock.known);
		pod_clock_start(&sim.node[n].clock);
	}
	while (now < (SECONDS - 1) * NS) {
		int a = (int)(random_next() % NODES);
		int b = (a + 1 + (int)(random_next() % (NODES - 1))) % NODES;
		uint64_t sent, arrived;

		run_until(&sim, &now, now + (uint64_t)random_between(1, 60 * (int64_t)MS));
		sent = read_clock(&sim, a, now);
		check_truth(&sim, a, now, seed);
		check_bound(&sim, a, now, seed);
		uint64_t bound = clock_map_error_ns(&sim.node[a].map,
						    oscillator_read(&sim.node[a].oscillator, now));
		if (a != 0) {
			figures->bound_max =
				bound > figures->bound_max ? bound : figures->bound_max;
			figures->bound_sum += bound;
			figures->bound_count++;
		}
		run_until(&sim, &now,
			  now + (uint64_t)sim.shortest_ns[a][b] +
				  (uint64_t)(random_next() % 2 ? 0 : random_between(0, 1000)));
		arrived = read_clock(&sim, b, now);
		check_truth(&sim, b, now, seed);
		if (arrived < sent && !sim.lopsided)
			fail_msg(
				"seed %llu at %llu ns: %d -> %d arrives %llu ns before it was sent",
				(unsigned long long)seed, (unsigned long long)now, a, b,
				(unsigned long long)(sent - arrived));
	}
	for (int n = 1; n < NODES; n++)
		assert_int_equal(sim.node[n].clock.reset_count, 0);
}

static void test_simulated(void **state)
{
	struct figures figures = { 0 };

	for (uint64_t seed = first_seed; seed < first_seed + seeds; seed++)
		run_seed(seed, &figures);
	fprintf(stderr, "%llu seeds; reported bound: mean %.1f us, max %.1f us\n",
		(unsigned long long)seeds,
		(double)figures.bound_sum / (double)(figures.bound_count + 1) / 1e3,
		(double)figures.bound_max / 1e3);
}

/* ---- Single cases ---- */

static struct clock_sample sample_at(uint64_t local, int64_t offset, uint64_t there, uint64_t back)
{
	return (struct clock_sample){
		.sent_ns = local,
		.pod_received_ns = local + (uint64_t)offset + there,
		.pod_sent_ns = local + (uint64_t)offset + there,
		.received_ns = local + there + back,
	};
}

static void test_reference(void **state)
{
	struct pod_clock clock;
	struct clock_map map;
	struct clock_sample sample = sample_at(1000, 5, 10, 10);

	assert_int_equal(pod_clock_init(&clock, &(struct clock_config){ .reference = true }), 0);
	assert_int_equal(pod_clock_sample(&clock, &sample), -EINVAL);
	pod_clock_start(&clock);
	pod_clock_update(&clock, 12345, &map);
	assert_int_equal(clock_map_pod_ns(&map, 20000), 20000);
	assert_int_equal(clock_map_error_ns(&map, 1ull << 60), 0);
}

static void test_bad_samples(void **state)
{
	struct pod_clock clock;
	struct clock_sample good = sample_at(10 * NS, -7 * (int64_t)NS, 50000, 60000), bad;

	assert_int_equal(
		pod_clock_init(&clock, &(struct clock_config){ .drift_ppb_max = 1u << 30 }),
		-EINVAL);
	assert_int_equal(pod_clock_init(&clock, &(struct clock_config){ 0 }), 0);
	assert_false(clock.known);
	bad = good;
	bad.received_ns = bad.sent_ns - 1;
	assert_int_equal(pod_clock_sample(&clock, &bad), -EINVAL);
	bad = good;
	bad.pod_sent_ns = bad.pod_received_ns - 1;
	assert_int_equal(pod_clock_sample(&clock, &bad), -EINVAL);
	bad = good;
	bad.pod_sent_ns += MS; /* the answer took longer than the whole journey */
	assert_int_equal(pod_clock_sample(&clock, &bad), -EINVAL);
	assert_false(clock.known);
	assert_int_equal(pod_clock_sample(&clock, &good), 0);
	assert_true(clock.known);
	bad = sample_at(9 * NS, -7 * (int64_t)NS, 50000, 60000); /* older than the last */
	assert_int_equal(pod_clock_sample(&clock, &bad), -EINVAL);
}

/* A host was suspended: its clock stood still. The filter notices, begins anew,
 * and the map goes forward only. */
static void test_broken_oscillator(void **state)
{
	struct pod_clock clock;
	struct clock_map map;
	struct clock_sample sample;
	uint64_t before, after;

	assert_int_equal(pod_clock_init(&clock, &(struct clock_config){ 0 }), 0);
	for (uint64_t i = 0; i < 50; i++) {
		sample = sample_at((10 + i) * NS, 5 * (int64_t)NS, 50000, 50000);
		assert_int_equal(pod_clock_sample(&clock, &sample), 0);
	}
	pod_clock_start(&clock);
	pod_clock_update(&clock, 60 * NS, &map);
	before = clock_map_pod_ns(&map, 61 * NS);
	sample = sample_at(61 * NS, 8 * (int64_t)NS, 50000, 50000);
	assert_int_equal(pod_clock_sample(&clock, &sample), 1);
	assert_int_equal(clock.reset_count, 1);
	pod_clock_update(&clock, 61 * NS + MS, &map);
	after = clock_map_pod_ns(&map, 61 * NS + MS);
	assert_true(after >= before + 3 * NS);
	assert_true(clock_map_error_ns(&map, 61 * NS + MS) < 60 * US);

	/* And the other way: the map may not step back, so it slows down, and says
	 * how wrong it is.
	 */
	sample = sample_at(62 * NS, 7 * (int64_t)NS, 50000, 50000);
	before = clock_map_pod_ns(&map, 62 * NS + MS);
	assert_int_equal(pod_clock_sample(&clock, &sample), 1);
	pod_clock_update(&clock, 62 * NS + MS, &map);
	assert_true(clock_map_pod_ns(&map, 62 * NS + MS) >= before);
	assert_true(map.slew_ppb < 0);
	assert_true(clock_map_error_ns(&map, 62 * NS + MS) >= NS - MS);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_bad_samples),
		cmocka_unit_test(test_broken_oscillator),
		cmocka_unit_test(test_simulated),
	};

	if (argc > 1)
		first_seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		seeds = strtoull(argv[2], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
