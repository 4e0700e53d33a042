// SPDX-License-Identifier: Apache-2.0
/*
 * Every few milliseconds: idle vCPUs gather, and those that want more cores than there are spread.
 *
 * Gathering costs nothing: who is idle has nothing to lose but its first pages, and finds those of
 * the kernel where the others use them, too. Spreading needs a free core elsewhere, and the vCPU
 * that has stalled most on pages of that node goes first, then the one that came last. Who comes
 * back soon (the base rule brings it: it has its pages here) is spread later and later.
 *
 * Each crowded node decides for itself, by loads that may be milliseconds old. So that not all send
 * to the same node, each begins to look at another one, and sends no more than fit there.
 */
#include "core/placement_state.h"

#define CROWDED_TICKS 2u /* in a row, before anybody is sent away */
#define SPREAD_NS     50000000u
#define ADVICE_NS     10000000u /* an advice that nobody has followed by then is forgotten */

static void gather(struct placement *p, uint64_t now_ns, struct placement_advice *advice,
		   uint32_t max, uint32_t *count)
{
	uint16_t to = p->config.gather_node;

	if (to == p->config.self)
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

/* Who goes: not who is idle, nor who has just been brought back. */
static uint32_t candidate(const struct placement *p, uint16_t to, uint64_t now_ns)
{
	uint32_t best = p->config.vcpu_count;

	for (uint32_t i = 0; i < p->config.vcpu_count; i++) {
		const struct placement_vcpu *v = &p->vcpu[i], *b;

		if (!v->here || v->pinned || v->advised || now_ns < v->spread_after_ns ||
		    v->halted_ns >= LATELY_NS / 2 ||
		    placement_guard(p, i, to, now_ns) != PLACEMENT_WHY_CREDIT)
			continue;
		b = best < p->config.vcpu_count ? &p->vcpu[best] : NULL;
		if (!b || v->share[to].lately_ns > b->share[to].lately_ns ||
		    (v->share[to].lately_ns == b->share[to].lately_ns &&
		     v->arrived_ns >= b->arrived_ns))
			best = i;
	}
	return best;
}

static void spread(struct placement *p, uint64_t now_ns, struct placement_advice *advice,
		   uint32_t max, uint32_t *count)
{
	struct placement_load *here = &p->load[p->config.self];
	uint32_t first = *count;

	if (here->awake <= here->cores) {
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
	if (p->config.policy != PLACEMENT_BASE && p->config.policy != PLACEMENT_LEARNED)
		return 0;
	gather(p, now_ns, ret_advice, max, &count);
	spread(p, now_ns, ret_advice, max, &count);
	return count;
}
