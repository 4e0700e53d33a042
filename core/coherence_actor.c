/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Actors, episodes and holds: why nobody waits for ever.
 *
 * An actor (vCPU or device access) either runs or is stalled. Its *running time* is what holds are
 * measured in. Its *episode* starts with a stall, and the start time is the actor's age; the
 * episode is over when the actor has run a full hold since it last stalled on a page that it had
 * lost in it. Pages granted in the episode are held until it is over, all of them, and a fresh
 * grant for a full hold of running time in any case. A hold does not stand against an older age.
 *
 * So the oldest actor of the pod waits for no hold, and keeps every page that it gets until it has
 * run a full hold with all of them. It stalls on a lost page at most once for each page that it
 * lost before it was the oldest; so its episode ends, and another actor is the oldest. That the
 * pages of an episode fall together matters: if each fell a hold after its own grant, an actor that
 * needs several could stall again and again, getting on, and stay the oldest for ever.
 *
 * How long is a hold? At least coh_config.hold_ns, and at least what a stall costs on this node (an
 * average of request to grant, without the time that queues and holds of others made it take), so
 * that a page is seldom gone before it was any use. When an actor wants pages back that it has just
 * lost, its own hold grows to HOLD_COSTS times what fetching them back costs in an episode, and
 * sinks by an eighth with each episode that ends: so who fights for one page, or for the dozens
 * that a nested page-table walk needs, works most of the time that is its own. A longer hold would
 * waste less of it, and make those wait longer who only pass data on; the simulator's `--report
 * holds` has the figures.
 *
 * A vCPU that halts has finished its instruction: while it sleeps, nothing it was granted is held.
 * Without this an idle vCPU's timer tick would keep what it touched for a whole hold.
 *
 * How long a woken vCPU takes to run is not known here. If it takes longer than the hold, pages are
 * gone before they were used, over and over. So of the turns in a row that want lost pages back
 * every 16th is 4 times as long, and every 256th 64 times: rare enough to cost others little, and
 * sure to come.
 *
 * What shards of a node share (struct coh_actors) is written by the shard that serves the actor's
 * stall only; the fault and the wake order the writers, so the atomics carry values, not order.
 *
 * Tested in tests/core/test_coherence_hold.c and by the simulator's starvation check.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "core/coherence_state.h"

/*
 * A page that an actor stalled on after it had lost it is fetched back so many times, when it is
 * lost again, together with the stall on another one: then only a stall tells that it is still
 * wanted.
 */
#define BACK_TURNS 7

/*
 * An actor that first read a page and then stalled on it once more to write it asks for write
 * access at once, the next so many times that it has lost the page: by turns, pages are read,
 * changed and lost. Whether it writes then is not seen, so only a stall renews it.
 */
#define RAISE_TURNS 3

/*
 * An actor that has written to so many pages in a row after it had read them is believed to go on so: where
 * it reads it asks to be owner, if nobody shares the page, and one stall does for two. Whether it writes
 * then is not seen either, so one of so many reads asks for no more than a copy.
 */
#define WRITES_SURE  4
#define WRITES_PROBE 8

/* An actor's hold grows to this many times what it pays for one. */
#define HOLD_COSTS 3

struct coh_actor {
	_Atomic uint64_t age;	    /* start of the episode; 0: none yet */
	_Atomic uint64_t run_ns;    /* running time until the present stall, or until run_since */
	_Atomic uint64_t run_since; /* running since; 0: stalled */
	_Atomic uint64_t begin_ns;  /* running time when the episode began */
	_Atomic uint64_t mark_ns;   /* running time at the last stall on a lost page */
	_Atomic uint64_t cost_ns;   /* what lost pages cost in this episode */
	_Atomic uint64_t extra_ns;  /* hold beyond the node's */
	_Atomic bool idle;	    /* asleep: holds nothing */
	_Atomic uint64_t again;	    /* episodes in a row that wanted lost pages back */
};

struct coh_actors {
	uint32_t count;
	uint64_t hold_ns, hold_ns_max;
	_Atomic uint64_t latency_ns; /* average stall */
	struct coh_actor actor[];
};

#define LOAD(field)	    atomic_load_explicit(&(field), memory_order_relaxed)
#define STORE(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)

int coh_actors_create(uint32_t actor_count, uint64_t hold_ns, uint64_t hold_ns_max,
		      struct coh_actors **ret_actors)
{
	struct coh_actors *actors;

	if (actor_count > COH_ACTORS_MAX)
		return -EINVAL;
	actors = calloc(1, sizeof(*actors) + actor_count * sizeof(actors->actor[0]));
	if (!actors)
		return -ENOMEM;
	actors->count = actor_count;
	actors->hold_ns = hold_ns;
	actors->hold_ns_max = hold_ns_max > hold_ns ? hold_ns_max : hold_ns;
	for (uint32_t i = 0; i < actor_count; i++)
		STORE(actors->actor[i].run_since, 1);
	*ret_actors = actors;
	return 0;
}

void coh_actors_idle(struct coh_actors *actors, uint32_t actor, bool idle)
{
	STORE(actors->actor[actor].idle, idle);
}

void coh_actors_destroy(struct coh_actors *actors)
{
	free(actors);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The node's hold: what any actor gets with a fresh grant. */
static uint64_t hold_base(const struct coh_actors *actors)
{
	return min_u64(max_u64(actors->hold_ns, LOAD(actors->latency_ns)), actors->hold_ns_max);
}

static uint64_t hold_usual(const struct coh_actors *actors, uint32_t actor)
{
	return max_u64(hold_base(actors), LOAD(actors->actor[actor].extra_ns));
}

/* Every 16th turn in a row is 4 times as long, every 256th 64 times. */
static uint64_t hold_of(const struct coh_actors *actors, uint32_t actor)
{
	uint64_t again = LOAD(actors->actor[actor].again);
	uint64_t hold = hold_usual(actors, actor);

	if (again && again % 16 == 0)
		hold *= again % 256 ? 4 : 64;
	return min_u64(hold, actors->hold_ns_max);
}

uint64_t coh_hold_longest(const struct coh *coh)
{
	uint64_t longest = hold_base(coh->actors);

	for (uint32_t i = 0; i < coh->config.actor_count; i++)
		longest = max_u64(longest, hold_usual(coh->actors, i));
	return longest;
}

void coh_latency_sample(struct coh *coh, uint64_t latency_ns)
{
	uint64_t old = LOAD(coh->actors->latency_ns);

	if (latency_ns > coh->actors->hold_ns_max)
		latency_ns = coh->actors->hold_ns_max;
	STORE(coh->actors->latency_ns, old ? old - old / 8 + latency_ns / 8 : latency_ns);
}

uint64_t coh_actor_age(const struct coh *coh, uint32_t actor)
{
	return LOAD(coh->actors->actor[actor].age);
}

static uint64_t running_time(const struct coh *coh, uint32_t actor)
{
	const struct coh_actor *a = &coh->actors->actor[actor];
	uint64_t since = LOAD(a->run_since);
	uint64_t run = LOAD(a->run_ns);

	return since && coh->now_ns > since ? run + (coh->now_ns - since) : run;
}

static void hold_unlink(struct coh *coh, struct coh_hold *hold)
{
	struct coh_page *page = coh_page_of(coh, hold->gpn);

	if (hold->prev)
		coh->hold[hold->prev - 1].next = hold->next;
	else
		page->holds = hold->next;
	if (hold->next)
		coh->hold[hold->next - 1].prev = hold->prev;
	hold->prev = hold->next = 0;
	hold->state = HOLD_FREE;
}

static void hold_link(struct coh *coh, struct coh_hold *hold)
{
	struct coh_page *page = coh_page_of(coh, hold->gpn);
	uint32_t index = (uint32_t)(hold - coh->hold) + 1;

	hold->prev = 0;
	hold->next = page->holds;
	if (hold->next)
		coh->hold[hold->next - 1].prev = index;
	page->holds = index;
	hold->state = HOLD_LINKED;
}

static struct coh_hold *hold_find(struct coh *coh, uint32_t actor, uint64_t gpn)
{
	struct coh_hold *ring = coh->hold + actor * COH_HOLDS;

	for (uint32_t i = 0; i < COH_HOLDS; i++)
		if (ring[i].state != HOLD_FREE && ring[i].gpn == gpn)
			return &ring[i];
	return NULL;
}

/* An entry for (actor, gpn), linked to its page: the one it has or had, or the oldest of the ring.
 */
static struct coh_hold *hold_get(struct coh *coh, uint32_t actor, uint64_t gpn)
{
	struct coh_wait *wait = &coh->wait[actor];
	struct coh_hold *hold = NULL;

	for (uint32_t i = 0; i < COH_HOLDS && !hold; i++)
		if (coh->hold[actor * COH_HOLDS + i].gpn == gpn)
			hold = &coh->hold[actor * COH_HOLDS + i];
	if (!hold) {
		if (coh->hold[actor * COH_HOLDS + wait->hold_next].pinned)
			wait->hold_next = (wait->hold_next + 1) % COH_HOLDS;
		hold = &coh->hold[actor * COH_HOLDS + wait->hold_next];
		wait->hold_next = (wait->hold_next + 1) % COH_HOLDS;
	}
	if (hold->state == HOLD_LINKED)
		hold_unlink(coh, hold);
	if (hold->state == HOLD_FREE)
		hold->again = hold->want = 0;
	if (hold->gpn != gpn)
		hold->again = hold->raise = hold->want = 0;
	hold->gpn = gpn;
	hold_link(coh, hold);
	return hold;
}

void coh_actor_stall(struct coh *coh, uint32_t actor, uint64_t gpn)
{
	struct coh_actor *a = &coh->actors->actor[actor];
	struct coh_wait *wait = &coh->wait[actor];
	struct coh_hold *hold = hold_find(coh, actor, gpn);
	uint64_t run = running_time(coh, actor);

	STORE(a->run_ns, run);
	STORE(a->run_since, 0);
	wait->since_ns = coh->now_ns;
	if (LOAD(a->age) && run - LOAD(a->mark_ns) >= hold_of(coh->actors, actor)) {
		STORE(a->age, 0);
		STORE(a->again, LOAD(a->cost_ns) ? LOAD(a->again) + 1 : 0);
		STORE(a->cost_ns, 0);
		STORE(a->extra_ns, LOAD(a->extra_ns) - LOAD(a->extra_ns) / 8);
	}
	if (!LOAD(a->age)) {
		STORE(a->age, max_u64(coh->now_ns, 1));
		STORE(a->begin_ns, run);
		STORE(a->mark_ns, run);
	} else if (hold && hold->state == HOLD_LOST && hold->lost_ns >= LOAD(a->age)) {
		STORE(a->mark_ns, run);
	}
	/* Taken before the actor was done with it, it seems: that costs, and makes the hold longer.
	 */
	if (hold && hold->state == HOLD_LOST)
		hold->again = BACK_TURNS;
	wait->lost = hold && hold->state == HOLD_LOST &&
		     run - hold->run_ns < hold_of(coh->actors, actor);
	if (hold && hold->state == HOLD_LINKED && coh_access(coh, gpn) == COH_READ)
		hold->raise = RAISE_TURNS;
	/* Who waits for more of a page than it holds must not keep it from those who are before it.
	 */
	if (hold && hold->state == HOLD_LINKED && !hold->pinned)
		hold_unlink(coh, hold);
}

void coh_actor_run(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want,
		   uint64_t waited_ns)
{
	struct coh_actors *actors = coh->actors;
	struct coh_actor *a = &actors->actor[actor];
	struct coh_wait *wait = &coh->wait[actor];
	struct coh_hold *hold;

	if (wait->lost) {
		uint64_t took = coh->now_ns - wait->since_ns;
		uint64_t net = took > waited_ns ? took - waited_ns : 0;
		uint64_t cost = LOAD(a->cost_ns) + max_u64(net, hold_base(actors) / 4 + 1);

		STORE(a->cost_ns, cost);
		STORE(a->extra_ns,
		      max_u64(LOAD(a->extra_ns), min_u64(HOLD_COSTS * cost, actors->hold_ns_max)));
		wait->lost = false;
	}
	hold = hold_get(coh, actor, gpn);
	if (!coh->config.refetch || hold->want < want || coh->page[gpn].access < hold->want)
		hold->want = (uint8_t)want;
	hold->run_ns = LOAD(a->run_ns);
	hold->pinned = wait->pin;
	if (wait->pin)
		wait->pinned = (uint32_t)(hold - coh->hold) + 1;
	STORE(a->run_since, max_u64(coh->now_ns, 1));
}

enum coh_access coh_want_back(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want)
{
	struct coh_hold *hold = hold_find(coh, actor, gpn);

	if (!hold || hold->state != HOLD_LOST || want == COH_WRITE)
		return want;
	if (coh->config.refetch)
		return hold->want > want ? hold->want : want;
	if (!hold->raise)
		return want;
	hold->raise--;
	return COH_WRITE;
}

bool coh_writes(const struct coh *coh, uint32_t actor)
{
	return coh->wait[actor].writes == WRITES_SURE;
}

bool coh_will_write(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access want)
{
	struct coh_wait *wait = &coh->wait[actor];
	bool same = wait->gpn == gpn;

	if (want == COH_WRITE) {
		if (same && wait->want == COH_WRITE)
			return false; /* it was kicked out of its stall, as below */
		/* Read-ahead has read for it; another page's upgrade tells nothing of one that it has read. */
		if (coh->page[gpn].access != COH_READ || (wait->read && !same))
			return false;
		wait->read = false;
		wait->writes += !coh_writes(coh, actor);
		return false;
	}
	if (same && wait->want == COH_READ)
		return wait->own;
	if (wait->read)
		wait->writes = 0;
	wait->read = !coh_writes(coh, actor) || ++wait->turns % WRITES_PROBE == 0;
	return !wait->read;
}

void coh_actor_refetched(struct coh *coh, uint32_t actor, uint64_t gpn, enum coh_access access)
{
	struct coh_hold *hold = hold_get(coh, actor, gpn);

	hold->want = (uint8_t)access;
	hold->run_ns = running_time(coh, actor);
	hold->pinned = false;
}

void coh_refetch(struct coh *coh, uint32_t actor, struct coh_out *out)
{
	struct coh_hold *ring = coh->hold + actor * COH_HOLDS;
	uint32_t count = 0;

	for (uint32_t i = 0; i < COH_HOLDS && count < coh->config.refetch; i++) {
		if (ring[i].state != HOLD_LOST || !ring[i].again ||
		    coh->page[ring[i].gpn].pending || coh->page[ring[i].gpn].access >= ring[i].want)
			continue;
		if (!coh_request_back(coh, actor, ring[i].gpn, ring[i].want, out))
			return;
		ring[i].again--;
		count++;
	}
}

void coh_hold_unpin(struct coh *coh, uint32_t actor)
{
	struct coh_hold *hold = &coh->hold[coh->wait[actor].pinned - 1];

	hold->pinned = false;
	coh->wait[actor].pinned = 0;
	hold_unlink(coh, hold);
}

void coh_holds_forget(struct coh *coh, uint64_t gpn)
{
	while (coh->page[gpn].holds)
		hold_unlink(coh, &coh->hold[coh->page[gpn].holds - 1]);
}

void coh_holds_lose(struct coh *coh, uint64_t gpn, enum coh_access after)
{
	uint32_t next;

	for (uint32_t i = coh->page[gpn].holds; i; i = next) {
		struct coh_hold *hold = &coh->hold[i - 1];

		next = hold->next;
		if (hold->want <= after)
			continue;
		hold_unlink(coh, hold);
		hold->state = HOLD_LOST;
		hold->lost_ns = coh->now_ns;
		hold->run_ns = running_time(coh, (i - 1) / COH_HOLDS);
	}
}

bool coh_pinned(const struct coh *coh, uint64_t gpn)
{
	for (uint32_t i = coh->page[gpn].holds; i; i = coh->hold[i - 1].next)
		if (coh->hold[i - 1].pinned)
			return true;
	return false;
}

/* How long one hold still stands against (age, node): 0 not at all, UINT64_MAX until the unpin. */
static uint64_t hold_stands(const struct coh *coh, uint32_t index, uint64_t age, uint16_t node)
{
	const struct coh_hold *hold = &coh->hold[index];
	uint32_t actor = index / COH_HOLDS;
	const struct coh_actor *a = &coh->actors->actor[actor];
	uint64_t full, from, ran;

	if (hold->pinned)
		return UINT64_MAX;
	if (coh_broken(coh, COH_BROKEN_HOLD_IGNORED))
		return 0;
	if (!coh_older(LOAD(a->age), coh->config.self, age, node) &&
	    !coh_broken(coh, COH_BROKEN_AGE_IGNORED))
		return 0;
	if (LOAD(a->idle))
		return 0;
	full = hold_of(coh->actors, actor);
	from = hold->run_ns;
	if (from >= LOAD(a->begin_ns))
		from = max_u64(from, LOAD(a->mark_ns));
	ran = running_time(coh, actor);
	ran = ran > from ? ran - from : 0;
	if (ran >= full)
		return 0;
	if (!LOAD(a->run_since))
		return max_u64(full - ran, COH_POLL_NS);
	/* It may fall asleep before, and nobody tells: look again now and then. */
	return min_u64(full - ran, max_u64(full / 8, COH_POLL_NS));
}

bool coh_held(struct coh *coh, uint64_t gpn, enum coh_access after, uint64_t age, uint16_t node,
	      uint64_t *ret_deadline)
{
	uint64_t longest = 0;

	for (uint32_t i = coh->page[gpn].holds; i; i = coh->hold[i - 1].next) {
		if (coh->hold[i - 1].want <= after)
			continue;
		longest = max_u64(longest, hold_stands(coh, i - 1, age, node));
	}
	if (!longest)
		return false;
	*ret_deadline = longest == UINT64_MAX ? UINT64_MAX : coh->now_ns + longest;
	return true;
}
