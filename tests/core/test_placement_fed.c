/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated pod of bench/ tells the policy of a stall what a real one would: the same touches of
 * the same pages, by nodes of the page protocol and by the simulator, are stalls of the same kinds, on
 * pages that as many others have.
 */
#include "tests/core/pod.h"

#include <stdlib.h>

#include "bench/placement_world_state.h"
#include "tests/rng.h"

#define NODES	4u
#define PAGES	12u
#define APART	3u /* so that none is read ahead */
#define TOUCHES 2000u

static struct world *world_new(struct world_result *result)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->result = result;
	w->config.node_count = NODES;
	w->config.node_pages = PAGES * APART;
	w->page_count = PAGES * APART;
	w->page = calloc(w->page_count, sizeof(*w->page));
	for (uint32_t i = 0; i < w->page_count; i++)
		w->page[i] = (struct page){ .owner = NODE_NONE, .comes_to = NODE_NONE };
	for (uint16_t n = 0; n < NODES; n++) {
		w->owned[n].page = calloc(w->page_count, sizeof(uint32_t));
		w->copies[n].capacity = TOUCHES;
		w->copies[n].page = calloc(TOUCHES, sizeof(uint32_t));
		w->vcpu[n] = (struct vcpu){ .index = n, .node = n };
	}
	return w;
}

static void world_free(struct world *w)
{
	for (uint16_t n = 0; n < NODES; n++) {
		free(w->owned[n].page);
		free(w->copies[n].page);
	}
	free(w->page);
	free(w);
}

/* Which kind of stall the touch is to the protocol, COH_STALL_KINDS: none. */
static enum coh_stall_kind touch_real(struct pod *pod, uint32_t node, uint64_t gpn, bool write)
{
	struct coh_stats before, after;
	enum coh_stall_kind kind = COH_STALL_KINDS;

	coh_stats_get(pod->node[node].coh, &before);
	if (write)
		pod_write(pod, node, 0, gpn, 1);
	else
		pod_read(pod, node, 0, gpn);
	coh_stats_get(pod->node[node].coh, &after);
	for (int k = 0; k < COH_STALL_KINDS; k++)
		if (after.stall_count[k] != before.stall_count[k])
			kind = (enum coh_stall_kind)k;
	pod_run(pod, 10000000);
	return kind;
}

static enum coh_stall_kind touch_simulated(struct world *w, uint32_t node, uint64_t gpn, bool write)
{
	struct touch touch = { .page = (uint32_t)gpn, .write = write };
	struct vcpu *v = &w->vcpu[node];

	v->at_ns += 10000000;
	if (!world_stalls(w, v, &touch))
		return COH_STALL_KINDS;
	world_fetch(w, v, &touch);
	return v->stall.kind;
}

static void the_same_is_told(void **state)
{
	uint32_t seen[COH_STALL_KINDS + 1][NODES] = { 0 };
	struct coh_config config = pod_config();

	config.readahead = 0;
	for (uint64_t seed = 1; seed <= 5; seed++) {
		struct world_result result = { 0 };
		struct world *w = world_new(&result);
		struct pod *pod = pod_new(NODES, &config);
		struct rng rng = { seed };

		for (uint32_t i = 0; i < TOUCHES; i++) {
			uint32_t node = rng_below(&rng, NODES);
			uint64_t gpn = (uint64_t)rng_below(&rng, PAGES) * APART;
			bool write = rng_chance(&rng, 30);
			enum coh_stall_kind real = touch_real(pod, node, gpn, write);
			/* The protocol asks for more where a page was read and then written before. */
			write |= real == COH_STALL_WRITE;
			enum coh_stall_kind simulated = touch_simulated(w, node, gpn, write);

			if (real != simulated)
				fail_msg("seed %u, touch %u: kind %u, simulated %u", (unsigned)seed,
					 i, real, simulated);
			if (real == COH_STALL_KINDS)
				continue;
			if (pod->node[node].sharers != w->vcpu[node].stall.sharers)
				fail_msg("seed %u, touch %u, kind %u: %u had it, simulated %u",
					 (unsigned)seed, i, real, pod->node[node].sharers,
					 w->vcpu[node].stall.sharers);
			seen[real][pod->node[node].sharers]++;
		}
		pod_free(pod);
		world_free(w);
	}
	for (uint32_t n = 1; n < NODES; n++) {
		assert_true(seen[COH_STALL_READ][n] > 10);
		assert_true(seen[COH_STALL_UPGRADE][n] > 10);
	}
	/* Who has no copy, of one that has it or of several. */
	assert_true(seen[COH_STALL_WRITE][1] > 10 && seen[COH_STALL_WRITE][2] > 10);
	assert_true(seen[COH_STALL_ZERO][0] > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
