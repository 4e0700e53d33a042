// SPDX-License-Identifier: Apache-2.0
/*
 * Every few milliseconds: idle vCPUs gather, and those that want more cores than there are spread.
 *
 * Gathering costs nothing: who is idle has nothing to lose but its first pages, and finds those of
 * the kernel where the others use them, too. Where somebody works they are in use already, and who is
 * idle stays with him: else the two would fight over them. Spreading needs a free core elsewhere, and
 * more vCPUs that last than cores: for one that wakes up for a moment no others are torn apart. The
 * vCPU that stalls on pages of that node for most of its stay goes first, then the one that came last. Who comes
 * back soon (the base rule brings it: it has its pages here) is spread later and later.
 *
 * Each crowded node decides for itself, by loads that may be milliseconds old. So that not all send
 * to the same node, each begins to look at another one, and sends no more than fit there.
 */
#include "core/placement_state.h"

#define CROWDED_TICKS 2u /* in a row, before anybody is sent away */
#define SPREAD_NS     50000000u
#define ADVICE_NS     10000000u /* an advice that nobody has followed by then is forgotten */

/* How many here do more than to wake up now and then. */
static uint32_t lasting(const struct placement *p)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < p->config.vcpu_count; i++)
		count += p->vcpu[i].here && p->vcpu[i].halted_ns < LATELY_NS / 2;
	return count;
}

static void gather(struct placement *p, uint64_t now_ns, struct placement_advice *advice,
		   uint32_t max, uint32_t *count)
{
	uint16_t to = p->config.gather_node;

	if (to == p->config.self || lasting(p) > 0)
		return;
	for (uint32_t i = 0; i < p->config.vcpu_count && *count < max; i++) {
		struct placement_vcpu *v = &p->vcpu[i];

		if (!v->here || v->pinned || v->halted_ns < LATELY_NS / 8 * 7 ||
		    placement_since(v->arrived_ns, now_ns) < LATELY_NS ||
		    placement_guard(p, i, to, now_ns) != PLACEMENT_WHY_CREDIT)
			continue;
		placement_advise(p, i, to, PLACEMENT_WHY_GATHER, 0, now_ns, &advice[(*count)++]);
	}
}

static uint16_t free_node(const struct placement *p, uint32_t *ret_free)
{
	uint16_t best = NODE_NONE;
	uint32_t best_free = 0;

	for (uint16_t k = 1; k < p->config.node_count; k++) {
		uint16_t node = (uint16_t)((p->config.self + k) % p->config.node_count);
		const struct placement_load *load = &p->load[node];

		if (load->cores > load->awake &&
		    (uint32_t)(load->cores - load->awake) > best_free) {
			best = node;
			best_free = load->cores - load->awake;
		}
	}
	*ret_free = best_free;
	return best;
}

/*
 * How much of its time a vCPU stalls on the node's pages. Not how long it did: who has only just come
 * may have all that he shares there, and who is at home here has had the time to stall on the kernel's.
 */
static uint64_t wants(const struct placement_vcpu *v, uint16_t to, uint64_t now_ns)
{
	uint64_t span_ns = placement_since(v->arrived_ns, now_ns);

	if (span_ns > LATELY_NS)
		span_ns = LATELY_NS;
	if (span_ns < PLACEMENT_TICK_NS)
		span_ns = PLACEMENT_TICK_NS;
	return (uint64_t)v->share[to].lately_ns * 1024 / span_ns;
}

/* Who goes: not who is idle, nor who has just been brought back. */
static uint32_t candidate(const struct placement *p, uint16_t to, uint64_t now_ns)
{
	uint32_t best = p->config.vcpu_count;
	uint64_t most = 0;

	for (uint32_t i = 0; i < p->config.vcpu_count; i++) {
		const struct placement_vcpu *v = &p->vcpu[i];
		uint64_t want;

		if (!v->here || v->pinned || v->advised || now_ns < v->spread_after_ns ||
		    v->halted_ns >= LATELY_NS / 2 ||
		    placement_guard(p, i, to, now_ns) != PLACEMENT_WHY_CREDIT)
			continue;
		want = wants(v, to, now_ns);
		if (best == p->config.vcpu_count || want > most ||
		    (want == most && v->arrived_ns >= p->vcpu[best].arrived_ns)) {
			most = want;
			best = i;
		}
	}
	return best;
}

static void spread(struct placement *p, uint64_t now_ns, struct placement_advice *advice,
		   uint32_t max, uint32_t *count)
{
	struct placement_load *here = &p->load[p->config.self];
	uint32_t first = *count;

	if (here->awake <= here->cores || lasting(p) <= here->cores) {
		p->crowded_ticks = 0;
		return;
	}
	if (++p->crowded_ticks < CROWDED_TICKS)
		return;
	while (*count < max && here->awake > here->cores) {
		uint32_t room, vcpu;
		uint16_t to = free_node(p, &room);

		if (to == NODE_NONE)
			break;
		vcpu = candidate(p, to, now_ns);
		if (vcpu == p->config.vcpu_count)
			break;
		p->vcpu[vcpu].spread_after_ns =
			now_ns + ((uint64_t)SPREAD_NS << p->vcpu[vcpu].spread_failed);
		placement_advise(p, vcpu, to, PLACEMENT_WHY_SPREAD, 0, now_ns, &advice[(*count)++]);
		p->vcpu[vcpu].advised_spread = true;
		/* For the choice of the next one as if it were there already. */
		p->load[to].awake++;
		here->awake--;
	}
	/* It leaves when it leaves. */
	for (uint32_t i = first; i < *count; i++) {
		p->load[advice[i].to].awake--;
		here->awake++;
	}
}

uint32_t placement_tick(struct placement *p, uint64_t now_ns, struct placement_advice *ret_advice,
			uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < p->config.vcpu_count; i++) {
		if (!p->vcpu[i].here)
			continue;
		placement_age(p, &p->vcpu[i], now_ns);
		placement_burst(p, &p->vcpu[i], now_ns);
		placement_choice_due(p, i, now_ns);
		if (placement_since(p->vcpu[i].heard_ns, now_ns) > ADVICE_NS)
			p->vcpu[i].advised = false;
	}
	if (!placement_policy_gathers(p->config.policy))
		return 0;
	gather(p, now_ns, ret_advice, max, &count);
	spread(p, now_ns, ret_advice, max, &count);
	return count;
}
