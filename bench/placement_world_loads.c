// SPDX-License-Identifier: Apache-2.0
/* What the threads of the simulated pod do, and where they and their pages are at first. */
#include "bench/placement_world_state.h"

#define TABLE_PAGES	   1024u
#define PAIR_PAGES	   64u
#define RING_PAGES	   16u
#define APART_PAGES	   512u
#define KERNEL_PAGES	   8u
#define RELAY_KERNEL_PAGES 48u
#define GUEST_TICK_NS	   4000000u
#define SPINS		   50u /* looks, before who waits for his turn goes to sleep */
#define BURST_EVERY_NS	   600000000u
#define BURST_BEGINS_NS	   350000000u
#define BURST_PAGES	   8u
#define BURST_NS	   90000000u  /* too short to be worth much */
#define BURST_LONG_NS	   250000000u /* each fourth */
#define KERNEL_EVERY	   1100u /* touches of one's own pages, as bench/placement's pods show it */

static const char *const load_name[WORLD_LOADS] = {
	[LOAD_SCAN] = "scan",	  [LOAD_REGIONS] = "regions", [LOAD_RANDOM] = "random",
	[LOAD_PAIR] = "pair",	  [LOAD_CROSSED] = "crossed", [LOAD_INDEPENDENT] = "independent",
	[LOAD_APART] = "apart",	  [LOAD_TABLE] = "table",     [LOAD_PIPE] = "pipe",
	[LOAD_RELAY] = "relay",	  [LOAD_QUARTET] = "quartet", [LOAD_TURNS] = "turns",
	[LOAD_BURSTS] = "bursts",
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
} /* Each returns false if the vCPU has to sleep. */

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
	world_message(w, by->node, v->node);
	world_awake(v, by->at_ns + (v->node == by->node ? w->config.costs.wake_ns
							: w->config.costs.ipi_ns));
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

/* What the kernel does on a CPU now and then, and when somebody sleeps or is woken. */
static void kernel_page(struct vcpu *v, struct touch *touch)
{
	touch->page = v->group->kernel_page + rng_below(&v->rng, RELAY_KERNEL_PAGES);
	touch->write = true;
}

/* The guest's timer is due: some touches of the kernel's. */
static bool guest_ticks(struct vcpu *v, struct touch *touch)
{
	if (v->at_ns < v->tick_ns)
		return false;
	if (v->left == 0)
		v->left = 4;
	if (--v->left == 0)
		v->tick_ns = v->at_ns + GUEST_TICK_NS;
	kernel_page(v, touch);
	return true;
}

/* Prints a line now and then: 50 us of work each 50 ms, and 10 ms each second. */
static bool helper(struct vcpu *v, struct touch *touch)
{
	if (v->step == 0) {
		if (v->at_ns < v->tick_ns) {
			v->wakes_ns = v->tick_ns;
			return false;
		}
		v->tick_ns = v->at_ns + 50000000;
		v->step = v->next++ % 20 == 0 ? 10000 : 50;
	}
	v->step--;
	if (v->step % 25 == 0)
		kernel_page(v, touch);
	else
		touch->page = v->own_first + v->step % 8;
	return true;
}

struct burst world_burst(const struct world *w, uint64_t at_ns)
{
	uint32_t number = (uint32_t)(at_ns / BURST_EVERY_NS), cores = w->config.core_count;
	struct rng rng = { w->config.seed * 1000003 + number };
	struct burst burst = { .number = number };

	burst.begin_ns = (uint64_t)number * BURST_EVERY_NS + BURST_BEGINS_NS;
	burst.end_ns = burst.begin_ns + (number % 4 == 3 ? BURST_LONG_NS : BURST_NS);
	burst.first = rng_below(&rng, w->vcpu_count);
	burst.count = cores + 1 + rng_below(&rng, w->vcpu_count - cores);
	return burst;
}

bool world_has_work(const struct world *w, const struct vcpu *v, uint64_t at_ns)
{
	struct burst burst = world_burst(w, at_ns);

	return at_ns >= burst.begin_ns && at_ns < burst.end_ns &&
	       (v->index + w->vcpu_count - burst.first) % w->vcpu_count < burst.count;
}

/* The kernel's 50 us each 50 ms, or until the burst begins. */
static bool burst_sleeps(const struct world *w, struct vcpu *v, struct touch *touch)
{
	struct burst burst = world_burst(w, v->at_ns);

	if (v->step == 0) {
		v->wakes_ns = v->tick_ns;
		if (v->at_ns < burst.begin_ns && burst.begin_ns < v->wakes_ns)
			v->wakes_ns = burst.begin_ns;
		if (v->at_ns < v->wakes_ns)
			return false;
		v->wakes_ns = 0;
		v->tick_ns = v->at_ns + 50000000;
		v->step = 50;
	}
	v->step--;
	touch->page = v->group->kernel_page + rng_below(&v->rng, KERNEL_PAGES);
	touch->write = v->step % 25 == 0;
	return true;
}

/* Asleep; in a burst at work on its own pages. One in two sleeps a tenth of the time then. */
static bool bursts(struct world *w, struct vcpu *v, struct touch *touch)
{
	if (!world_has_work(w, v, v->at_ns))
		return burst_sleeps(w, v, touch);
	if (v->role % 2 && ++v->left % 900 == 0) {
		v->wakes_ns = v->at_ns + 100000;
		return false;
	}
	touch->page = v->group->first_page + v->next++ % v->group->pages;
	touch->write = true;
	return true;
}

/* It is the other's turn: looks again for a while, then goes to sleep. False: it does so now. */
static bool relay_wait(struct vcpu *v, struct touch *touch)
{
	if (v->next++ < SPINS) {
		touch->page = v->group->first_page;
		touch->waits = true;
		return true;
	}
	if (v->next > SPINS + 4) {
		v->group->asleep = v->index + 1;
		return false;
	}
	kernel_page(v, touch);
	return true;
}

/* Two touches of the table, then the turn is given. Roles 0 and 1 are neighbours. */
static bool relay(struct world *w, struct vcpu *v, struct touch *touch)
{
	struct group *group = v->group;
	uint32_t turn = group->first_page;
	uint32_t other = v->role == 0 ? v->index + 1 : v->index - 1;

	if (v->role == 2)
		return helper(v, touch);
	if (guest_ticks(v, touch))
		return true;
	if (v->step == 0 && group->turn != v->role)
		return relay_wait(v, touch);
	touch->page = v->step < 2 ? turn + 1 + rng_below(&v->rng, PAIR_PAGES) : turn;
	touch->write = v->step > 0;
	touch->work_ns = 200;
	if (v->step++ < 2)
		return true;
	v->step = v->next = 0;
	touch->waits = true;
	group->turn = !v->role;
	if (group->asleep == other + 1) {
		group->asleep = 0;
		wake(w, other, v);
	}
	return true;
}

const enum world_load world_turn[] = { LOAD_SCAN, LOAD_REGIONS, LOAD_RANDOM, LOAD_PAIR, LOAD_PIPE };
const uint32_t world_turns = sizeof(world_turn) / sizeof(world_turn[0]);

bool world_next_touch(struct world *w, struct vcpu *v, struct touch *touch)
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
	case LOAD_RELAY:
	case LOAD_QUARTET:
		return relay(w, v, touch);
	case LOAD_BURSTS:
		return bursts(w, v, touch);
	default:
		return false;
	}
}

/* Setting up. */

/* `pages` of data from node `node` on, as many on each as it holds. */
static struct group *group_add(struct world *w, uint32_t pages, uint32_t node, bool spread)
{
	struct group *group = &w->group[w->group_count++];
	uint32_t room = w->config.node_pages - 64;

	*group = (struct group){ .first_page = w->page_count, .pages = pages };
	for (uint32_t done = 0, here; done < pages; done += here, node++) {
		here = spread && pages - done > room ? room : pages - done;
		world_lay(w, group->first_page + done, here,
			  (uint16_t)(node % w->config.node_count));
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
	world_lay(w, v->own_first, w->config.costs.own_pages, v->node);
	w->page_count += w->config.costs.own_pages;
	w->vcpu_count++;
}

/* Two that take turns: a kernel's pages, or those of another group, the turn's, and a table. */
static struct group *relay_group(struct world *w, uint32_t node, const struct group *kernel)
{
	struct group *group =
		group_add(w, (kernel ? 0 : RELAY_KERNEL_PAGES) + 1 + PAIR_PAGES, node, false);

	group->kernel_page = kernel ? kernel->kernel_page : group->first_page;
	if (!kernel)
		group->first_page += RELAY_KERNEL_PAGES;
	return group;
}

void world_lay_out(struct world *w)
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
	case LOAD_RELAY:
		for (uint32_t i = 0; i + 2 < n; i += 3) {
			struct group *group = relay_group(w, i, NULL);

			vcpu_add(w, group, 0, i, load);
			vcpu_add(w, group, 1, i + 2, load);
			vcpu_add(w, group, 2, i + 1, load);
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
	case LOAD_QUARTET:
		for (uint32_t i = 0; i + 1 < n; i += 2) {
			struct group *first = relay_group(w, i, NULL);
			struct group *second = relay_group(w, i + 1, first);

			for (uint32_t k = 0; k < 4; k++)
				vcpu_add(w, k < 2 ? first : second, k % 2, i + k % 2, load);
		}
		break;
	case LOAD_INDEPENDENT:
		for (uint32_t i = 0; i < n * w->config.core_count && i < WORLD_VCPUS_MAX; i++)
			vcpu_add(w, group_add(w, 256, i, false), 0, i, load);
		break;
	case LOAD_BURSTS: {
		struct group *kernel = group_add(w, KERNEL_PAGES, 0, false);

		for (uint32_t i = 0; i < n * w->config.core_count && i < WORLD_VCPUS_MAX - 1; i++) {
			struct group *group =
				group_add(w, BURST_PAGES, i / w->config.core_count, false);

			group->kernel_page = kernel->first_page;
			vcpu_add(w, group, i, i / w->config.core_count, load);
		}
		break;
	}
	case LOAD_APART: {
		struct group *group = group_add(w, KERNEL_PAGES, 0, false);

		for (uint32_t i = 0; i < n; i++) {
			world_lay(w, w->page_count, APART_PAGES, (uint16_t)i);
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
