// SPDX-License-Identifier: Apache-2.0
/*
 * The pod in virtual time. The idea is in the header.
 *
 * One vCPU at a time goes on, the one whose time is earliest: it makes touches until one stalls or
 * its turn is over (QUANTUM_NS). A stall changes the page's place at once and holds it until the
 * grant has come and the hold is over, so that others wait. A node's memory is bounded; a page too
 * many, any one of it, is dropped if it is a copy, and else pushed to the node with most room.
 */
#include "bench/placement_world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/placement_trace.h"

#define QUANTUM_NS   20000u
#define REGION_PAGES 2048u
#define TABLE_PAGES  1024u
#define PAIR_PAGES   64u
#define RING_PAGES   16u
#define APART_PAGES  512u
#define KERNEL_PAGES 8u
#define KERNEL_EVERY 1100u /* touches of one's own pages, as bench/placement's pods show it */
#define OWN_MAX	     16u
#define NEVER	     UINT64_MAX
#define SAMPLES	     65536u
#define COME_NS	     2000000u

/* bench/stalls, sleeping: p50 in docs/benchmarks.md. A move: twice a stall, what it may cost at most. */
const struct world_costs world_costs_default = {
	.stall_ns = 82000,
	.upgrade_ns = 84000,
	.sharer_ns = 12000,
	.ahead_ns = 1800,
	.zero_ns = 39000,
	.lag_ns = 30000,
	.hold_ns = 40000,
	.move_ns = 164000,
	.ipi_ns = 60000,
	.wake_ns = 20000,
	.own_pages = 8,
};

static const char *const load_name[WORLD_LOADS] = {
	[LOAD_SCAN] = "scan",	[LOAD_REGIONS] = "regions", [LOAD_RANDOM] = "random",
	[LOAD_PAIR] = "pair",	[LOAD_CROSSED] = "crossed", [LOAD_INDEPENDENT] = "independent",
	[LOAD_APART] = "apart", [LOAD_TABLE] = "table",	    [LOAD_PIPE] = "pipe",
	[LOAD_TURNS] = "turns",
};

const char *world_load_name(enum world_load load)
{
	return (unsigned int)load < WORLD_LOADS ? load_name[load] : "?";
}

static const char *const told_name[WORLD_TOLD] = {
	[TOLD_PROGRAM] = "program",
	[TOLD_WAITED] = "waited",
	[TOLD_OUTCOMES] = "outcomes",
};

const char *world_told_name(enum world_told told)
{
	return (unsigned int)told < WORLD_TOLD ? told_name[told] : "?";
}

struct page {
	uint64_t sharers; /* nodes with a read-only copy, the owner not among them */
	uint64_t held_until_ns;
	uint64_t
		written_ns; /* when a node last took it to write; and how often soon after another */
	uint32_t fought;
	uint32_t index; /* in its owner's list */
	uint16_t owner; /* NODE_NONE: untouched */
	uint16_t home;	/* who knows where it is: its first owner */
};

/* Pages of a node: those that it owns, or copies, with some that have gone. */
struct residents {
	uint32_t *page;
	uint32_t count, capacity;
};

enum vcpu_state {
	RUNS,
	STALLED,
	MOVES,
	HALTED,
};

/* What a group's threads share. */
struct group {
	uint32_t first_page, pages; /* its data */
	uint64_t produced, consumed;
	uint32_t asleep; /* vCPU + 1, of the one that waits for the other */
};

struct vcpu {
	uint32_t index, role; /* role: which thread of its group */
	struct group *group;
	enum vcpu_state state;
	uint64_t at_ns;
	uint16_t node, target;
	uint32_t own_first, own_left; /* pages of its own; how many it still touches after a move */
	struct placement_stall stall;
	uint64_t stopped_ns;
	uint8_t carry[PLACEMENT_CARRY_BYTES];
	uint64_t halted_since_ns, halted_ns, waited_ns;
	struct rng rng;
	enum world_load load; /* now */
	uint32_t next, left, region, step;
	uint32_t ahead_page, ahead_count; /* read-ahead's stream */
};

struct touch {
	uint32_t page;
	bool write;
	uint64_t work_ns;
};

struct world {
	struct world_config config;
	struct world_result *result;
	struct rng rng;
	struct page *page;
	uint32_t page_count;
	struct residents owned[WORLD_NODES_MAX], copies[WORLD_NODES_MAX];
	uint32_t here[WORLD_NODES_MAX]; /* pages that a node holds */
	struct placement *placement[WORLD_NODES_MAX];
	struct vcpu vcpu[WORLD_VCPUS_MAX];
	uint32_t vcpu_count;
	struct group group[WORLD_VCPUS_MAX];
	uint32_t group_count;
	uint64_t now_ns, tick_ns;
	uint32_t phase, phases;
	uint32_t *sample;
	uint32_t sample_count;
	struct placement_trace_writer trace;
};

static bool is_told(const struct world *w, enum world_told told)
{
	return !(w->config.without >> told & 1);
}

/* Memory. */

static bool has(const struct page *page, uint16_t node)
{
	return page->owner == node || page->sharers >> node & 1;
}

/* The page changes its owner, or gets its first. */
static void own(struct world *w, uint16_t node, uint32_t number)
{
	struct page *page = &w->page[number];
	struct residents *r;

	if (page->owner != NODE_NONE) {
		r = &w->owned[page->owner];
		r->page[page->index] = r->page[--r->count];
		w->page[r->page[page->index]].index = page->index;
	} else {
		page->home = node;
	}
	r = &w->owned[node];
	page->owner = node;
	page->index = r->count;
	r->page[r->count++] = number;
}

static void copy_in(struct world *w, uint16_t node, uint32_t number)
{
	struct residents *r = &w->copies[node];

	w->page[number].sharers |= 1ull << node;
	w->here[node]++;
	if (r->count == r->capacity) {
		/* Copies that came twice stay twice; the list has room for many. */
		uint32_t kept = 0;

		for (uint32_t i = 0; i < r->count; i++) {
			if (w->page[r->page[i]].sharers >> node & 1)
				r->page[kept++] = r->page[i];
		}
		r->count = kept;
	}
	if (r->count < r->capacity)
		r->page[r->count++] = number;
}

static uint16_t roomiest(const struct world *w, uint16_t not )
{
	uint16_t best = not == 0 ? 1 : 0;

	for (uint16_t i = 0; i < w->config.node_count; i++) {
		if (i != not &&w->here[i] < w->here[best])
			best = i;
	}
	return best;
}

/* A copy less, if the one that is drawn is still here. False: it was `keep`, which stays, and is
 * no longer in the list. */
static bool drop_copy(struct world *w, uint16_t node, uint32_t keep)
{
	struct residents *copies = &w->copies[node];
	uint32_t at = rng_below(&w->rng, copies->count), number = copies->page[at];

	copies->page[at] = copies->page[--copies->count];
	if (number == keep)
		return false;
	if (w->page[number].sharers >> node & 1) {
		w->page[number].sharers &= ~(1ull << node);
		w->here[node]--;
	}
	return true;
}

/* Messages: those of docs/protocol.md, as far as they go from one node to another. */

static void message(struct world *w, uint16_t from, uint16_t to)
{
	w->result->message_count += from != to;
}

/* Request, FWD, grant and DONE. */
static void count_grant(struct world *w, const struct page *page, uint16_t from, uint16_t to)
{
	message(w, to, page->home);
	message(w, page->home, from);
	message(w, from, to);
	message(w, to, page->home);
}

/* INVALIDATE and its ack, of every copy but those of two nodes. */
static void count_invalidates(struct world *w, const struct page *page, uint16_t to, uint16_t but)
{
	uint64_t sharers = page->sharers | 1ull << page->owner;

	for (uint64_t left = sharers & ~(1ull << to) & ~(1ull << but); left; left &= left - 1) {
		uint16_t node = (uint16_t)__builtin_ctzll(left);

		message(w, page->home, node);
		message(w, node, to);
	}
}

/* PUSH_REQ, PUSH_GO, PUSH_DATA, DONE. */
static void count_push(struct world *w, const struct page *page, uint16_t from, uint16_t to)
{
	message(w, from, page->home);
	message(w, page->home, from);
	message(w, from, to);
	message(w, to, page->home);
}

static void push_owned(struct world *w, uint16_t node, uint32_t keep)
{
	struct residents *owned = &w->owned[node];
	uint32_t number = owned->page[rng_below(&w->rng, owned->count)];
	uint64_t sharers = w->page[number].sharers;
	uint16_t to = sharers ? (uint16_t)__builtin_ctzll(sharers) : roomiest(w, node);

	if (number == keep)
		return;
	count_push(w, &w->page[number], node, to);
	w->here[node]--;
	w->here[to] += sharers == 0;
	w->page[number].sharers &= ~(1ull << to);
	own(w, to, number);
}

/* Copies go first. */
static void evict(struct world *w, uint16_t node, uint32_t keep)
{
	struct residents *copies = &w->copies[node];
	bool kept = false;

	while (w->here[node] > w->config.node_pages) {
		if (copies->count > 0)
			kept |= !drop_copy(w, node, keep);
		else if (w->owned[node].count > 1)
			push_owned(w, node, keep);
		else
			break;
	}
	if (kept)
		copies->page[copies->count++] = keep;
}

static void drop_sharers(struct world *w, struct page *page, uint16_t but)
{
	for (uint64_t left = page->sharers; left; left &= left - 1) {
		uint16_t node = (uint16_t)__builtin_ctzll(left);

		if (node != but)
			w->here[node]--;
	}
	page->sharers = 0;
}

/* Read-ahead: the pages behind this one, if they lie at the same owner, twice as many each time. */
static uint64_t read_ahead(struct world *w, struct vcpu *v, uint32_t number, uint16_t owner)
{
	uint64_t ns = 0;

	v->ahead_count = number == v->ahead_page ? 2 * v->ahead_count + 1 : 0;
	if (v->ahead_count > 128)
		v->ahead_count = 128;
	v->ahead_page = number + 1;
	for (uint32_t i = 0; i < v->ahead_count; i++) {
		struct page *page = &w->page[v->ahead_page];

		if (v->ahead_page >= w->page_count || page->owner != owner || has(page, v->node))
			break;
		count_grant(w, page, owner, v->node);
		copy_in(w, v->node, v->ahead_page++);
		ns += w->config.costs.ahead_ns;
	}
	return ns;
}

/*
 * "Come": the owner says with the page that it has only just taken it from another node itself, to
 * write, and not for the first time. The stall is told as one so many times as long.
 */
static void come(struct world *w, struct vcpu *v, const struct touch *touch, uint64_t ns)
{
	struct page *page = &w->page[touch->page];
	bool soon = v->at_ns - page->written_ns < COME_NS;
	uint64_t more_ns = (uint64_t)(w->config.come - 1) * ns;

	if (touch->write && page->owner != v->node) {
		page->fought = soon ? page->fought + 1 : 0;
		page->written_ns = v->at_ns;
	}
	if (soon && page->fought >= 2)
		v->stall.begin_ns -= more_ns < v->stall.begin_ns ? more_ns : v->stall.begin_ns;
}

/* The touch stalls: the page changes its place. Returns how long that takes. */
static uint64_t fetch(struct world *w, struct vcpu *v, const struct touch *touch)
{
	const struct world_costs *costs = &w->config.costs;
	struct page *page = &w->page[touch->page];
	bool copy = has(page, v->node);
	uint64_t ns = copy ? costs->upgrade_ns : costs->stall_ns;
	uint32_t others = (uint32_t)__builtin_popcountll(page->sharers & ~(1ull << v->node));

	v->stall =
		(struct placement_stall){ .vcpu = v->index,
					  .gpn = touch->page,
					  .owner = page->owner,
					  .sharers = (uint16_t)others,
					  .begin_ns = v->at_ns,
					  .program = is_told(w, TOLD_PROGRAM) ? 1u + v->load : 0 };
	if (page->owner == NODE_NONE) {
		v->stall.kind = COH_STALL_ZERO;
		own(w, v->node, touch->page);
		w->here[v->node]++;
		evict(w, v->node, touch->page);
		return costs->zero_ns;
	}
	ns += (rng_next(&v->rng) & 0xffff) * ns >> 19; /* up to an eighth more */
	if (page->held_until_ns > v->at_ns)
		ns += page->held_until_ns - v->at_ns;
	if (w->config.come)
		come(w, v, touch, ns);
	if (!touch->write) {
		v->stall.kind = COH_STALL_READ;
		count_grant(w, page, page->owner, v->node);
		copy_in(w, v->node, touch->page);
		ns += read_ahead(w, v, touch->page, page->owner);
	} else {
		v->stall.kind = copy ? COH_STALL_UPGRADE : COH_STALL_WRITE;
		if (page->owner == v->node)
			v->stall.owner = (uint16_t)__builtin_ctzll(page->sharers);
		else
			w->here[page->owner]--;
		/* With a copy all it needs is the home's word. */
		count_grant(w, page, copy ? page->home : page->owner, v->node);
		count_invalidates(w, page, v->node, copy ? v->node : page->owner);
		if (others > 1)
			ns += (others - 1) * costs->sharer_ns;
		drop_sharers(w, page, v->node);
		if (page->owner != v->node)
			own(w, v->node, touch->page);
		w->here[v->node] += !copy;
	}
	page->held_until_ns = v->at_ns + ns + costs->hold_ns;
	evict(w, v->node, touch->page);
	return ns;
}

static bool stalls(const struct world *w, const struct vcpu *v, const struct touch *touch)
{
	const struct page *page = &w->page[touch->page];

	if (touch->write)
		return page->owner != v->node || page->sharers != 0;
	return !has(page, v->node);
}

/* What the threads do. Each returns false if the vCPU has to sleep. */

static bool scan(struct vcpu *v, struct touch *touch)
{
	touch->page = v->group->first_page + v->next;
	v->next = (v->next + 1) % v->group->pages;
	return true;
}

static bool regions(struct vcpu *v, struct touch *touch)
{
	if (v->left == 0) {
		v->region = rng_below(&v->rng, v->group->pages / REGION_PAGES);
		v->left = 4 * REGION_PAGES;
		v->step = rng_below(&v->rng, REGION_PAGES) | 1;
		v->next = rng_below(&v->rng, REGION_PAGES);
	}
	/* All pages in an order that does not look like one, four times. */
	v->next = (v->next + v->step) % REGION_PAGES;
	v->left--;
	touch->page = v->group->first_page + v->region * REGION_PAGES + v->next;
	touch->write = true;
	return true;
}

static bool at_random(struct vcpu *v, struct touch *touch)
{
	touch->page = v->group->first_page + rng_below(&v->rng, v->group->pages);
	touch->write = true;
	return true;
}

static bool structure(struct vcpu *v, struct touch *touch)
{
	touch->page = v->group->first_page + rng_below(&v->rng, PAIR_PAGES);
	touch->write = rng_chance(&v->rng, 50);
	touch->work_ns = 2000;
	return true;
}

/* What a program does that needs nobody, on a kernel that keeps books for all CPUs. */
static bool apart(struct vcpu *v, struct touch *touch)
{
	touch->write = true;
	if (++v->step % KERNEL_EVERY == 0)
		touch->page = v->group->first_page + rng_below(&v->rng, KERNEL_PAGES);
	else
		touch->page = v->group->first_page + KERNEL_PAGES + v->role * APART_PAGES +
			      v->next++ % APART_PAGES;
	return true;
}

static bool table(struct vcpu *v, struct touch *touch)
{
	touch->page = v->group->first_page + rng_below(&v->rng, TABLE_PAGES);
	touch->write = rng_below(&v->rng, 100000) == 0;
	return true;
}

static void wake(struct world *w, uint32_t index, const struct vcpu *by)
{
	struct vcpu *v = &w->vcpu[index];

	if (v->state != HALTED)
		return;
	v->state = RUNS;
	message(w, by->node, v->node);
	v->at_ns = by->at_ns +
		   (v->node == by->node ? w->config.costs.wake_ns : w->config.costs.ipi_ns);
	v->halted_ns += v->at_ns - v->halted_since_ns;
}

/* Three touches an item: the ring's page, what is in it, and whether the other waits. */
static bool pipe_end(struct world *w, struct vcpu *v, struct touch *touch)
{
	struct group *group = v->group;
	uint64_t count = v->role == 0 ? group->produced : group->consumed;

	if (v->step == 0) {
		bool blocked = v->role == 0 ? group->produced - group->consumed >= RING_PAGES
					    : group->produced == group->consumed;

		if (blocked) {
			group->asleep = v->index + 1;
			return false;
		}
		touch->page = group->first_page;
		touch->write = false;
	} else if (v->step == 1) {
		touch->page = group->first_page + 1 + (uint32_t)(count % RING_PAGES);
		touch->write = v->role == 0;
		touch->work_ns = 8000;
	} else {
		touch->page = group->first_page;
		touch->write = true;
		if (v->role == 0)
			group->produced++;
		else
			group->consumed++;
		if (group->asleep && group->asleep != v->index + 1) {
			uint32_t sleeper = group->asleep - 1;

			group->asleep = 0;
			wake(w, sleeper, v);
		}
	}
	v->step = (v->step + 1) % 3;
	return true;
}

static const enum world_load turn[] = { LOAD_SCAN, LOAD_REGIONS, LOAD_RANDOM, LOAD_PAIR,
					LOAD_PIPE };

static bool next_touch(struct world *w, struct vcpu *v, struct touch *touch)
{
	*touch = (struct touch){ .work_ns = 1000 };
	switch (v->load) {
	case LOAD_SCAN:
		return v->role == 0 && scan(v, touch);
	case LOAD_REGIONS:
		return v->role == 0 && regions(v, touch);
	case LOAD_RANDOM:
		return v->role == 0 && at_random(v, touch);
	case LOAD_PAIR:
	case LOAD_CROSSED:
		return structure(v, touch);
	case LOAD_INDEPENDENT:
		return at_random(v, touch);
	case LOAD_APART:
		return apart(v, touch);
	case LOAD_TABLE:
		return table(v, touch);
	case LOAD_PIPE:
		return pipe_end(w, v, touch);
	default:
		return false;
	}
}

/* Setting up. */

static void lay(struct world *w, uint32_t first, uint32_t count, uint16_t node)
{
	for (uint32_t i = 0; i < count; i++) {
		own(w, node, first + i);
		w->here[node]++;
	}
}

/* `pages` of data from node `node` on, as many on each as it holds. */
static struct group *group_add(struct world *w, uint32_t pages, uint32_t node, bool spread)
{
	struct group *group = &w->group[w->group_count++];
	uint32_t room = w->config.node_pages - 64;

	*group = (struct group){ .first_page = w->page_count, .pages = pages };
	for (uint32_t done = 0, here; done < pages; done += here, node++) {
		here = spread && pages - done > room ? room : pages - done;
		lay(w, group->first_page + done, here, (uint16_t)(node % w->config.node_count));
	}
	w->page_count += pages;
	return group;
}

static void vcpu_add(struct world *w, struct group *group, uint32_t role, uint32_t node,
		     enum world_load load)
{
	struct vcpu *v = &w->vcpu[w->vcpu_count];

	*v = (struct vcpu){ .index = w->vcpu_count,
			    .role = role,
			    .group = group,
			    .node = (uint16_t)(node % w->config.node_count),
			    .load = load,
			    .own_first = w->page_count,
			    .ahead_page = UINT32_MAX };
	v->rng.state = w->config.seed * 1000003 + w->vcpu_count;
	lay(w, v->own_first, w->config.costs.own_pages, v->node);
	w->page_count += w->config.costs.own_pages;
	w->vcpu_count++;
}

static void lay_out(struct world *w)
{
	uint32_t n = w->config.node_count, groups = n < 8 ? 1 : n / 4;
	uint32_t data = w->config.node_pages / 2 * 5 / REGION_PAGES * REGION_PAGES;
	enum world_load load = w->config.load;

	switch (load) {
	case LOAD_PAIR:
	case LOAD_PIPE:
		for (uint32_t i = 0; i + 1 < n; i += 2) {
			struct group *group = group_add(w, PAIR_PAGES, i, false);

			vcpu_add(w, group, 0, i, load);
			vcpu_add(w, group, 1, i + 1, load);
		}
		break;
	case LOAD_CROSSED:
		for (uint32_t i = 0; i + 1 < n; i += 2) {
			for (uint32_t k = 0; k < 2; k++) {
				struct group *group = group_add(w, PAIR_PAGES, i + k, false);

				vcpu_add(w, group, 0, i, load);
				vcpu_add(w, group, 1, i + 1, load);
			}
		}
		break;
	case LOAD_INDEPENDENT:
		for (uint32_t i = 0; i < n * w->config.core_count && i < WORLD_VCPUS_MAX; i++)
			vcpu_add(w, group_add(w, 256, i, false), 0, i, load);
		break;
	case LOAD_APART: {
		struct group *group = group_add(w, KERNEL_PAGES, 0, false);

		for (uint32_t i = 0; i < n; i++) {
			lay(w, w->page_count, APART_PAGES, (uint16_t)i);
			w->page_count += APART_PAGES;
		}
		for (uint32_t i = 0; i < n; i++)
			vcpu_add(w, group, i, i, load);
		break;
	}
	case LOAD_TABLE: {
		struct group *group = group_add(w, TABLE_PAGES, 0, false);

		for (uint32_t i = 0; i < n; i++)
			vcpu_add(w, group, i, i, load);
		break;
	}
	default:
		for (uint32_t i = 0; i < groups; i++) {
			struct group *group = group_add(w, data, i * (n / groups), true);

			vcpu_add(w, group, 0, i * (n / groups), load);
			if (load == LOAD_TURNS)
				vcpu_add(w, group, 1, i * (n / groups) + 1, load);
		}
		break;
	}
	w->result->vcpu_count = w->vcpu_count;
}

static int prepare(struct world *w)
{
	const struct world_config *config = &w->config;
	uint64_t most = (uint64_t)config->node_count * config->node_pages * 2 + 65536;

	if (config->node_count < 3 || config->node_count > WORLD_NODES_MAX ||
	    config->core_count == 0 || config->node_pages < REGION_PAGES || most > UINT32_MAX ||
	    (unsigned int)config->load >= WORLD_LOADS || config->costs.own_pages > OWN_MAX)
		return -EINVAL;
	w->page = malloc(most * sizeof(*w->page));
	w->sample = calloc(SAMPLES, sizeof(*w->sample));
	if (!w->page || !w->sample)
		return -ENOMEM;
	for (uint64_t i = 0; i < most; i++)
		w->page[i] = (struct page){ .owner = NODE_NONE };
	for (uint32_t i = 0; i < config->node_count; i++) {
		/* A node has at most a page more than it holds. */
		w->copies[i].capacity = 4 * config->node_pages + 4096;
		w->owned[i].page = malloc((config->node_pages + 4096) * sizeof(uint32_t));
		w->copies[i].page = malloc(w->copies[i].capacity * sizeof(uint32_t));
		if (!w->owned[i].page || !w->copies[i].page)
			return -ENOMEM;
	}
	lay_out(w);
	for (uint32_t i = 0; i < config->node_count; i++) {
		struct placement_config placement = { .self = (uint16_t)i,
						      .node_count = (uint16_t)config->node_count,
						      .vcpu_count = w->vcpu_count,
						      .policy = config->policy,
						      .move_ns = config->costs.move_ns,
						      .refault_ns = 2 * config->costs.move_ns,
						      .seed = config->seed,
						      .broken = config->broken };
		const char *reason;
		int error = placement_create(&placement, &w->placement[i]);

		if (error)
			return error;
		if (config->state) {
			error = placement_load_state(w->placement[i], config->state,
						     strlen(config->state), &reason);
			if (error)
				return error;
		}
		for (uint32_t k = 0; k < w->vcpu_count; k++)
			placement_placed(w->placement[i], k, w->vcpu[k].node, 0);
	}
	if (config->trace)
		placement_trace_begin(&w->trace, config->node_count, w->vcpu_count,
				      config->costs.move_ns);
	return 0;
}

static void clean(struct world *w)
{
	for (uint32_t i = 0; i < WORLD_NODES_MAX; i++) {
		placement_destroy(w->placement[i]);
		free(w->owned[i].page);
		free(w->copies[i].page);
	}
	free(w->page);
	free(w->sample);
}

/* Running. */

static void trace(struct world *w, const struct placement_trace_event *event)
{
	char line[PLACEMENT_TRACE_LINE];

	if (w->config.trace && placement_trace_put(&w->trace, event, line, sizeof(line)) > 0)
		fputs(line, w->config.trace);
}

static void begin_move(struct world *w, struct vcpu *v, uint16_t to)
{
	if (placement_left(w->placement[v->node], v->index, to, v->at_ns, v->carry) != 0)
		abort();
	v->state = MOVES;
	v->target = to;
	v->stopped_ns = v->at_ns;
	v->at_ns += w->config.costs.move_ns;
	w->result->move_count++;
	/* MOVE, and PLACE to all. */
	w->result->message_count += w->config.node_count;
	w->result->move_ns += w->config.costs.move_ns;
}

static void end_move(struct world *w, struct vcpu *v)
{
	uint16_t from = v->node;

	v->node = v->target;
	if (placement_arrived(w->placement[v->node], v->index, from, v->stopped_ns, v->at_ns,
			      v->carry) != 0)
		abort();
	for (uint32_t i = 0; i < w->config.node_count; i++) {
		if (i != v->node)
			placement_placed(w->placement[i], v->index, v->node, v->at_ns);
	}
	trace(w, &(struct placement_trace_event){ .at_ns = v->at_ns,
						  .vcpu = v->index,
						  .node = v->node,
						  .move = true,
						  .took_ns = v->at_ns - v->stopped_ns });
	v->own_left = w->config.costs.own_pages;
	/* If it was asleep it finds that there is nothing to do. */
	v->state = RUNS;
}

static void end_stall(struct world *w, struct vcpu *v)
{
	struct placement_advice advice;
	struct timespec before, after;
	bool timed = w->config.time_decisions && w->sample_count < SAMPLES;

	v->stall.end_ns = v->at_ns;
	w->result->stall_count++;
	w->result->stall_ns += v->at_ns - v->stall.begin_ns;
	if (timed)
		clock_gettime(CLOCK_MONOTONIC, &before);
	if (placement_stall(w->placement[v->node], &v->stall, &advice) != 0)
		abort();
	if (timed) {
		clock_gettime(CLOCK_MONOTONIC, &after);
		w->sample[w->sample_count++] =
			(uint32_t)((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec -
				   before.tv_nsec);
	}
	trace(w, &(struct placement_trace_event){ .at_ns = v->stall.end_ns,
						  .vcpu = v->index,
						  .node = v->stall.owner,
						  .took_ns = v->stall.end_ns - v->stall.begin_ns,
						  .kind = v->stall.kind,
						  .gpn = v->stall.gpn,
						  .program = v->stall.program });
	v->state = RUNS;
	if (advice.to != NODE_NONE)
		begin_move(w, v, advice.to);
	else
		v->at_ns += w->config.costs.lag_ns;
}

static uint32_t runs_at(const struct world *w, uint16_t node)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < w->vcpu_count; i++)
		count += w->vcpu[i].node == node && w->vcpu[i].state == RUNS;
	return count;
}

static void run(struct world *w, struct vcpu *v)
{
	uint64_t begin_ns = v->at_ns, ran_ns = 0;
	uint32_t others = runs_at(w, v->node);
	uint64_t scale =
		others > w->config.core_count ? others * 1024 / w->config.core_count : 1024;

	while (ran_ns < QUANTUM_NS) {
		struct touch touch = { .work_ns = 0, .write = true };

		if (v->own_left > 0)
			touch.page = v->own_first + --v->own_left;
		else if (!next_touch(w, v, &touch)) {
			v->state = HALTED;
			v->halted_since_ns = v->at_ns;
			v->at_ns = NEVER;
			return;
		}
		ran_ns += touch.work_ns;
		v->at_ns = begin_ns + ran_ns * scale / 1024;
		w->result->work_ns += touch.work_ns;
		w->result->phase_work_ns[w->phase] += touch.work_ns;
		w->result->touch_count++;
		if (stalls(w, v, &touch)) {
			v->at_ns += fetch(w, v, &touch) - w->config.costs.lag_ns;
			v->state = STALLED;
			break;
		}
	}
	v->waited_ns += ran_ns * scale / 1024 - ran_ns;
	w->result->wait_ns += ran_ns * scale / 1024 - ran_ns;
}

/* In turn: everybody does the next thing. */
static void change_phase(struct world *w)
{
	uint32_t phase = (uint32_t)(w->now_ns * w->phases / w->config.duration_ns);

	if (w->config.load != LOAD_TURNS || (phase == w->phase && w->now_ns > 0) ||
	    phase >= w->phases)
		return;
	w->phase = phase;
	for (uint32_t i = 0; i < w->vcpu_count; i++) {
		struct vcpu *v = &w->vcpu[i];

		v->load = turn[phase];
		v->left = v->step = v->next = 0;
		v->group->asleep = 0;
		v->group->produced = v->group->consumed = 0;
		if (v->state == HALTED) {
			v->state = RUNS;
			v->at_ns = w->now_ns;
			v->halted_ns += w->now_ns - v->halted_since_ns;
		}
	}
}

/* All nodes learn from what one has seen. */
static void tell(struct world *w)
{
	struct placement_outcome outcome;

	if (!is_told(w, TOLD_OUTCOMES))
		return;
	for (uint16_t i = 0; i < w->config.node_count; i++) {
		while (placement_outcome_take(w->placement[i], &outcome) == 0) {
			for (uint16_t k = 0; k < w->config.node_count; k++) {
				if (k != i)
					placement_outcome_learn(w->placement[k], &outcome);
			}
		}
	}
}

static void tick(struct world *w)
{
	uint32_t awake[WORLD_NODES_MAX] = { 0 };
	struct placement_advice advice[8];

	for (uint32_t i = 0; i < w->vcpu_count; i++) {
		struct vcpu *v = &w->vcpu[i];
		struct placement_time time = { .waited_ns =
						       is_told(w, TOLD_WAITED) ? v->waited_ns : 0 };

		awake[v->state == MOVES ? v->target : v->node] += v->state != HALTED;
		if (v->state == MOVES)
			continue;
		if (v->state == HALTED) {
			v->halted_ns += w->now_ns - v->halted_since_ns;
			v->halted_since_ns = w->now_ns;
		}
		time.halted_ns = v->halted_ns;
		v->halted_ns = v->waited_ns = 0;
		placement_time(w->placement[v->node], i, &time);
	}
	for (uint16_t i = 0; i < w->config.node_count; i++) {
		for (uint16_t k = 0; k < w->config.node_count; k++) {
			struct placement_load load = { .cores = (uint16_t)w->config.core_count,
						       .awake = (uint16_t)awake[k] };

			placement_load(w->placement[i], k, &load);
		}
	}
	tell(w);
	for (uint16_t i = 0; i < w->config.node_count; i++) {
		uint32_t count = placement_tick(w->placement[i], w->now_ns, advice, 8);

		for (uint32_t k = 0; k < count; k++) {
			struct vcpu *v = &w->vcpu[advice[k].vcpu];

			if (v->state != RUNS && v->state != HALTED)
				continue;
			if (v->state == HALTED)
				v->halted_ns += w->now_ns - v->halted_since_ns;
			v->at_ns = w->now_ns;
			begin_move(w, v, advice[k].to);
		}
	}
}

static struct vcpu *earliest(struct world *w)
{
	struct vcpu *best = &w->vcpu[0];

	for (uint32_t i = 1; i < w->vcpu_count; i++) {
		if (w->vcpu[i].at_ns < best->at_ns)
			best = &w->vcpu[i];
	}
	return best;
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void add_stats(struct placement_stats *sum, const struct placement_stats *one)
{
	sum->stall_count += one->stall_count;
	sum->move_count += one->move_count;
	for (int i = 0; i < PLACEMENT_WHYS; i++)
		sum->why_count[i] += one->why_count[i];
	for (int i = 0; i < PLACEMENT_ARMS; i++)
		sum->arm_count[i] += one->arm_count[i];
	sum->wasted_count += one->wasted_count;
	sum->return_count += one->return_count;
	sum->learned_count += one->learned_count;
	sum->learner_off_count += one->learner_off_count;
	sum->refault_ns = sum->refault_ns > one->refault_ns ? sum->refault_ns : one->refault_ns;
}

static void finish(struct world *w)
{
	for (uint32_t i = 0; i < w->config.node_count; i++) {
		struct placement_stats stats;

		placement_stats_get(w->placement[i], &stats);
		add_stats(&w->result->stats, &stats);
	}
	placement_save(w->placement[0], w->result->state, sizeof(w->result->state));
	if (w->sample_count > 0) {
		qsort(w->sample, w->sample_count, sizeof(*w->sample), compare);
		w->result->decision_ns_p50 = w->sample[w->sample_count / 2];
		w->result->decision_ns_p99 = w->sample[w->sample_count / 100 * 99];
	}
	if (w->config.trace) {
		char line[PLACEMENT_TRACE_LINE];

		placement_trace_end(&w->trace, line, sizeof(line));
		fputs(line, w->config.trace);
	}
}

int world_run(const struct world_config *config, struct world_result *ret_result)
{
	struct world *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		return -ENOMEM;
	memset(ret_result, 0, sizeof(*ret_result));
	w->config = *config;
	w->result = ret_result;
	w->rng.state = config->seed;
	w->phases = sizeof(turn) / sizeof(turn[0]);
	error = prepare(w);
	if (error)
		goto out;
	if (config->trace) {
		char line[PLACEMENT_TRACE_LINE];

		placement_trace_head(&w->trace, line, sizeof(line));
		fputs(line, config->trace);
		for (uint32_t i = 0; i < w->vcpu_count; i++)
			trace(w, &(struct placement_trace_event){
					 .vcpu = i, .node = w->vcpu[i].node, .move = true });
	}
	while (w->now_ns < config->duration_ns) {
		struct vcpu *v = earliest(w);

		w->result->event_count++;
		if (v->at_ns >= w->tick_ns) {
			w->now_ns = w->tick_ns;
			change_phase(w);
			tick(w);
			w->tick_ns += PLACEMENT_TICK_NS;
			continue;
		}
		w->now_ns = v->at_ns;
		if (v->state == STALLED)
			end_stall(w, v);
		else if (v->state == MOVES)
			end_move(w, v);
		else
			run(w, v);
	}
	finish(w);
out:
	clean(w);
	free(w);
	return error;
}
