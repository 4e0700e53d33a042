/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page protocol under random loads, small and quick: a first net before the simulator's
 * (tests/sim).
 *
 * Actors run "instructions" that need one to four pages at once; links have random delays. Every
 * read must see the last write, and every instruction must end within a bound of virtual time. A
 * seed that failed stays in `regressions`. Run one seed alone: test_coherence_random SEED.
 */
#include "tests/core/pod.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES_AT_ONCE 4
#define BOUND_NS      400000000ull
#define PLAIN_SEEDS   60 /* those above also ask for pages that somebody may want (coh_fetch()) */
#define SEEDS	      90

struct vcpu {
	uint64_t next_ns;
	uint64_t gpn[PAGES_AT_ONCE];
	uint8_t want[PAGES_AT_ONCE];
	uint32_t count;
	uint64_t since_ns;
	uint32_t done;
	bool idle; /* its node leaves */
};

struct run {
	struct pod *pod;
	uint64_t seed, random;
	uint64_t latest[POD_PAGES];
	struct vcpu vcpu[POD_NODES][POD_ACTORS];
	uint32_t pages, at_once, actors;
	uint64_t delay_ns, think_ns, slowest_ns, done;
	uint32_t pattern;
	bool failed;
};

static uint64_t rnd(struct run *r, uint64_t below)
{
	uint64_t z = r->random += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return below ? z % below : 0;
}

static uint64_t pick_page(struct run *r, uint32_t n, const struct vcpu *v)
{
	switch (r->pattern) {
	case 0:
		return rnd(r, r->pages);
	case 1: /* hot */
		return rnd(r, 4) ? rnd(r, 4) : rnd(r, r->pages);
	case 2: /* striding */
		return (v->done * 3 + n * 7) % r->pages;
	default: /* mostly own */
		return rnd(r, 8) ? (n * r->pages / 8 + rnd(r, r->pages / 8 + 1)) % r->pages
				 : rnd(r, r->pages);
	}
}

static void new_instruction(struct run *r, uint32_t n, struct vcpu *v)
{
	v->count = 1 + (uint32_t)rnd(r, r->at_once);
	for (uint32_t i = 0; i < v->count; i++) {
		v->gpn[i] = pick_page(r, n, v);
		v->want[i] = rnd(r, 3) ? COH_READ : COH_WRITE;
	}
	v->since_ns = r->pod->now_ns;
	if (r->seed <= PLAIN_SEEDS || rnd(r, 4))
		return;
	for (uint64_t count = rnd(r, 12); count > 0; count--)
		pod_fetch(r->pod, n, pick_page(r, n, v), rnd(r, 2) ? COH_READ : COH_WRITE);
}

/* Whether all pages are there; else the stall on the first that is not. */
static bool attempt(struct run *r, uint32_t n, uint32_t actor, struct vcpu *v)
{
	struct pod_node *node = &r->pod->node[n];

	for (uint32_t i = 0; i < v->count; i++) {
		if (node->access[v->gpn[i]] >= v->want[i])
			continue;
		pod_stall(r->pod, n, actor, v->gpn[i], v->want[i]);
		return false;
	}
	for (uint32_t i = 0; i < v->count; i++) {
		uint64_t gpn = v->gpn[i];

		if (node->content[gpn] != r->latest[gpn]) {
			print_error("seed %lu: node %u page %lu: %lu, not %lu\n", r->seed, n, gpn,
				    node->content[gpn], r->latest[gpn]);
			r->failed = true;
		}
		if (v->want[i] == COH_WRITE)
			node->content[gpn] = ++r->latest[gpn];
	}
	return true;
}

static void step_vcpu(struct run *r, uint32_t n, uint32_t actor)
{
	struct vcpu *v = &r->vcpu[n][actor];
	struct pod_node *node = &r->pod->node[n];

	if (node->waiting[actor] || (v->idle && !v->count)) {
		v->next_ns = UINT64_MAX; /* the wake sets it */
		return;
	}
	if (!v->count)
		new_instruction(r, n, v);
	if (attempt(r, n, actor, v)) {
		uint64_t took = r->pod->now_ns - v->since_ns;

		if (took > r->slowest_ns)
			r->slowest_ns = took;
		v->count = 0;
		v->done++;
		r->done++;
		v->next_ns = r->pod->now_ns + 1 + rnd(r, r->think_ns);
		if (v->idle)
			v->next_ns = UINT64_MAX;
		return;
	}
	v->next_ns = node->waiting[actor] ? UINT64_MAX : r->pod->now_ns + 100 + rnd(r, 500);
}

static void wake_vcpus(struct run *r, uint32_t n)
{
	for (uint32_t a = 0; a < r->actors; a++) {
		struct vcpu *v = &r->vcpu[n][a];

		if (v->next_ns == UINT64_MAX && v->count && !r->pod->node[n].waiting[a])
			v->next_ns = r->pod->now_ns + 100 + rnd(r, 500);
	}
}

/* Packets that were sent since the last look get their arrival time; links keep order. */
static void stamp_packets(struct run *r)
{
	for (uint32_t i = 0; i < r->pod->node_count; i++) {
		for (uint32_t k = 0; k < r->pod->node_count; k++) {
			struct pod_link *link = &r->pod->link[i][k];
			uint64_t last = r->pod->now_ns;

			for (uint32_t p = 0; p < link->count; p++) {
				struct pod_packet *packet =
					&link->packet[(link->head + p) % POD_LINK];

				if (!packet->at_ns) {
					packet->at_ns = r->pod->now_ns + 1 + rnd(r, r->delay_ns);
					if (packet->at_ns < last)
						packet->at_ns = last;
				}
				last = packet->at_ns;
			}
		}
	}
}

static uint64_t next_event(const struct run *r)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t i = 0; i < r->pod->node_count; i++) {
		uint64_t deadline = coh_deadline(r->pod->node[i].coh);

		if (deadline < next)
			next = deadline;
		for (uint32_t a = 0; a < r->actors; a++)
			if (r->vcpu[i][a].next_ns < next)
				next = r->vcpu[i][a].next_ns;
		for (uint32_t k = 0; k < r->pod->node_count; k++) {
			const struct pod_link *link = &r->pod->link[i][k];

			if (link->count && link->packet[link->head].at_ns < next)
				next = link->packet[link->head].at_ns;
		}
	}
	return next;
}

static void step_node(struct run *r, uint32_t i)
{
	for (uint32_t a = 0; a < r->actors; a++)
		if (r->vcpu[i][a].next_ns <= r->pod->now_ns)
			step_vcpu(r, i, a);
	stamp_packets(r);
	for (uint32_t k = 0; k < r->pod->node_count; k++) {
		struct pod_link *link = &r->pod->link[k][i];

		if (link->count && link->packet[link->head].at_ns <= r->pod->now_ns) {
			pod_deliver(r->pod, k, i);
			stamp_packets(r);
		}
	}
	if (coh_deadline(r->pod->node[i].coh) <= r->pod->now_ns)
		pod_tick(r->pod, i);
	stamp_packets(r);
	wake_vcpus(r, i);
}

static bool overdue(struct run *r)
{
	for (uint32_t i = 0; i < r->pod->node_count; i++)
		for (uint32_t a = 0; a < r->actors; a++) {
			const struct vcpu *v = &r->vcpu[i][a];

			if (v->count && r->pod->now_ns - v->since_ns > BOUND_NS) {
				print_error("seed %lu: node %u actor %u waits for page %lu (%u)\n",
					    r->seed, i, a, r->pod->node[i].wait_gpn[a],
					    r->pod->node[i].wait_want[a]);
				return true;
			}
		}
	return false;
}

static void run_setup(struct run *r, uint64_t seed)
{
	struct coh_config config = pod_config();
	uint32_t nodes;

	memset(r, 0, sizeof(*r));
	r->seed = r->random = seed;
	nodes = 2 + (uint32_t)rnd(r, 5);
	r->actors = 1 + (uint32_t)rnd(r, 4);
	r->at_once = 1 + (uint32_t)rnd(r, PAGES_AT_ONCE);
	r->delay_ns = 1ull << rnd(r, 16);
	r->think_ns = 1 + (100ull << rnd(r, 8));
	r->pattern = (uint32_t)rnd(r, 4);
	r->pages = 8 + (uint32_t)rnd(r, 1u << (4 + rnd(r, 6)));
	config.actor_count = r->actors;
	config.gpn_limit = POD_PAGES;
	config.window = r->actors + (uint32_t)rnd(r, 20);
	config.readahead = rnd(r, 2) ? 1 + (uint32_t)rnd(r, 16) : 0;
	config.neighbours = rnd(r, 2);
	config.zero_batch = rnd(r, 2) ? 1 + (uint32_t)rnd(r, 32) : 1;
	config.hold_ns = 500ull << rnd(r, 6);
	config.hold_ns_max = config.hold_ns << rnd(r, 6);
	if (config.hold_ns_max < 20000)
		config.hold_ns_max = 20000;
	if (rnd(r,
		2)) /* pressure: guest memory is at most 0.9 of the sum, and slack for all actors */
		config.capacity = r->pages * 10 / (9 * nodes) + 4 + 2 * r->actors;
	if (getenv("BROKEN"))
		config.broken = (uint32_t)strtoul(getenv("BROKEN"), NULL, 0);
	r->pod = pod_new(nodes, &config);
	for (uint32_t i = 0; i < nodes; i++)
		for (uint32_t a = 0; a < r->actors; a++)
			r->vcpu[i][a].next_ns = 2000 + rnd(r, 1000);
}

/* A node leaves in the middle: its actors stop when their instruction is done. */
static bool all_idle(const struct run *r, uint32_t n)
{
	for (uint32_t a = 0; a < r->actors; a++)
		if (r->vcpu[n][a].count)
			return false;
	return true;
}

/* When all is quiet nothing is reserved any more, and who left has nothing. */
static void check_rest(struct run *r, uint32_t leaver)
{
	struct coh_stats stats;

	pod_run(r->pod, 1000000000);
	for (uint32_t i = 0; i < r->pod->node_count; i++) {
		coh_stats_get(r->pod->node[i].coh, &stats);
		if (stats.pages_reserved ||
		    stats.pages_owned + stats.pages_shared != r->pod->node[i].resident) {
			print_error("seed %lu: node %u has %u slots reserved\n", r->seed, i,
				    stats.pages_reserved);
			r->failed = true;
		}
	}
	if (leaver != UINT32_MAX && !coh_released(r->pod->node[leaver].coh))
		r->failed = true;
}

static bool run_seed(uint64_t seed, bool show)
{
	static struct run r;
	uint64_t events = 0, target;
	uint32_t leaver = UINT32_MAX;
	bool left = false, late = false;

	run_setup(&r, seed);
	target = 3000;
	if (seed % 4 == 3 && r.pod->config.capacity >= 1024)
		leaver = (uint32_t)rnd(&r, r.pod->node_count);
	while (r.done < target && !r.failed && !late && events < 3000000) {
		uint64_t next = next_event(&r);

		if (next == UINT64_MAX)
			break;
		if (next > r.pod->now_ns)
			r.pod->now_ns = next;
		for (uint32_t i = 0; i < r.pod->node_count; i++)
			step_node(&r, i);
		if (++events % 256 == 0)
			late = overdue(&r);
		if (leaver != UINT32_MAX && r.done > target / 2 && !left) {
			for (uint32_t a = 0; a < r.actors; a++)
				r.vcpu[leaver][a].idle = true;
			if (all_idle(&r, leaver)) {
				pod_release(r.pod, leaver);
				stamp_packets(&r);
				left = true;
			}
		}
	}
	if (!r.failed && !late)
		check_rest(&r, left ? leaver : UINT32_MAX);
	if (r.done < target || late)
		r.failed = true;
	if (!r.failed)
		pod_check(r.pod);
	if (show || r.failed)
		printf("seed %lu: nodes %u actors %u pages %u at once %u pattern %u capacity %u: %lu "
		       "done, slowest %lu us, %s\n",
		       seed, r.pod->node_count, r.actors, r.pages, r.at_once, r.pattern,
		       r.pod->config.capacity, r.done, r.slowest_ns / 1000,
		       r.failed ? "FAILED" : "ok");
	pod_free(r.pod);
	return !r.failed;
}

static uint64_t one_seed;

static void test_seeds(void **state)
{
	const char *count = getenv("SEEDS");

	if (one_seed) {
		assert_true(run_seed(one_seed, true));
		return;
	}
	for (uint64_t seed = 1; seed <= (count ? strtoull(count, NULL, 0) : SEEDS); seed++)
		assert_true(run_seed(seed, getenv("SHOW")));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_seeds) };

	if (argc == 2)
		one_seed = strtoull(argv[1], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
