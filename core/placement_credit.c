// SPDX-License-Identifier: Apache-2.0
/*
 * Stalls become credit, and credit becomes advice.
 *
 * The base rule is the counter algorithm of Black and Sleator for the migration of a page on a
 * uniform network, with the roles exchanged: here the vCPU is what migrates, and a stall is a
 * request of the node that owns the page. Shares of one whole instead of counters let the threshold
 * change at any time. docs/placement.md has the proof; it holds whichever rivals the credit is
 * taken from, so the first ones found give theirs.
 *
 * Guards may keep a vCPU that has all its credit elsewhere; then every further stall asks again.
 */
#include <errno.h>
#include <string.h>

#include "core/placement_state.h"

/*
 * Two who stall on each other's nodes: one of them needs twice as much, so the other goes first, and
 * its arrival takes the credit away (placement_arrived()). Who has more company stays, since who share
 * pages would come after one by one. So does who would leave company for pages that nobody uses.
 */
static bool yields(const struct placement *p, uint16_t here, uint16_t to)
{
	if (p->config.broken == PLACEMENT_BROKEN_YIELD)
		return false;
	if (p->load[to].awake == 0)
		return p->load[here].awake > 1;
	if (p->load[to].awake != p->load[here].awake)
		return p->load[to].awake < p->load[here].awake;
	return to > here;
}

_Static_assert(PLACEMENT_FACTOR_BASE / 4 == PLACEMENT_FACTOR_MIN, "eager, and nothing wasted");
_Static_assert(PLACEMENT_FACTOR_BASE * 2 << WASTED_MAX == PLACEMENT_FACTOR_MAX,
	       "as many wasted as count, and it yields");

struct threshold {
	uint32_t factor;
	enum placement_why why; /* if it is reached */
	uint64_t ns;
};

/*
 * Nobody is eager to leave company: an outcome is what one vCPU loses, and what those lose with whom it
 * shares pages is in no feature.
 */
static struct threshold threshold_of(const struct placement *p, const struct placement_vcpu *v,
				     uint16_t to)
{
	uint32_t factor = PLACEMENT_FACTOR_BASE, eager;
	struct threshold t = { .why = PLACEMENT_WHY_PAID };

	if (v->choice.open && v->choice.holds && v->choice.target == to &&
	    v->choice.arm == PLACEMENT_ARM_EAGER && p->load[p->config.self].awake <= 1) {
		factor /= 4;
		t.why = PLACEMENT_WHY_EAGER;
	}
	eager = factor;
	if (p->config.broken != PLACEMENT_BROKEN_WASTED)
		factor <<= v->wasted;
	if (yields(p, p->config.self, to))
		factor *= 2;
	t.factor = factor;
	/* What it leaves behind is known of this vCPU: it is not doubled by what was wasted. */
	t.ns = p->wire_ns[to] * t.factor / PLACEMENT_FACTOR_ONE +
	       (placement_cost(p, v, to) - p->wire_ns[to]) * eager / PLACEMENT_FACTOR_ONE;
	return t;
}

/* `ns` of stall for node `to`: its part of the whole, from the other nodes, in the end from here. */
static void give_credit(struct placement *p, struct placement_vcpu *v, uint16_t to, uint64_t ns,
			uint64_t threshold_ns)
{
	struct placement_share *share = v->share;
	uint64_t part = PLACEMENT_WHOLE;
	uint32_t need;

	if (ns < threshold_ns)
		part = (ns * PLACEMENT_WHOLE + threshold_ns - 1) / threshold_ns;
	need = PLACEMENT_WHOLE - share[to].credit;
	if (part < need)
		need = (uint32_t)part;
	share[to].credit += need;
	if (p->config.broken != PLACEMENT_BROKEN_RIVALS) {
		for (uint16_t i = 0; need > 0 && i < p->config.node_count; i++) {
			if (i == to || i == p->config.self || share[i].credit == 0)
				continue;
			uint32_t taken = share[i].credit < need ? share[i].credit : need;

			share[i].credit -= taken;
			need -= taken;
		}
	}
	share[p->config.self].credit -=
		share[p->config.self].credit < need ? share[p->config.self].credit : need;
}

/* What the vCPU would lose by waiting for cores at a node with so many awake: of 1024. */
static uint32_t crowd(const struct placement_load *load, uint32_t awake)
{
	return awake <= load->cores ? 0 : 1024 - 1024u * load->cores / awake;
}

static bool too_crowded(const struct placement *p, const struct placement_vcpu *v, uint16_t to)
{
	const struct placement_load *here = &p->load[p->config.self], *there = &p->load[to];
	uint32_t loses = crowd(there, there->awake + 1u);
	uint32_t keeps = crowd(here, here->awake);
	/* What is only read is copied, and then it is here: that is no reason to wait for a core. */
	uint64_t saved = (uint64_t)v->share[to].lately_ns * v->writes / LATELY_NS;

	if (p->config.broken == PLACEMENT_BROKEN_CROWD || loses <= keeps)
		return false;
	/* A tenth in favour of staying. */
	return saved < loses - keeps + 102;
}

enum placement_why placement_guard(const struct placement *p, uint32_t vcpu, uint16_t to,
				   uint64_t now_ns)
{
	const struct placement_vcpu *v = &p->vcpu[vcpu];

	if (v->pinned)
		return PLACEMENT_WHY_PIN;
	if (p->load[to].cores == 0 || (to == v->refused_node && now_ns < v->refused_until_ns))
		return PLACEMENT_WHY_REFUSED;
	if (p->config.broken != PLACEMENT_BROKEN_DWELL &&
	    placement_since(v->arrived_ns, now_ns) < p->wire_ns[to])
		return PLACEMENT_WHY_DWELL;
	/* Each move takes 1/rate of a bucket that holds a burst. */
	if (p->config.broken != PLACEMENT_BROKEN_RATE && v->token_ns > now_ns &&
	    v->token_ns - now_ns >
		    (uint64_t)(PLACEMENT_MOVES_BURST - 1) * (1000000000u / PLACEMENT_MOVES_SECOND))
		return PLACEMENT_WHY_RATE;
	return PLACEMENT_WHY_CREDIT;
}

void placement_advise(struct placement *p, uint32_t vcpu, uint16_t to, enum placement_why why,
		      uint16_t factor, uint64_t now_ns, struct placement_advice *ret_advice)
{
	struct placement_vcpu *v = &p->vcpu[vcpu];
	struct placement_record record = { .at_ns = now_ns,
					   .vcpu = vcpu,
					   .move = true,
					   .here = p->config.self,
					   .target = to,
					   .move_ns = placement_cost(p, v, to),
					   .factor = factor,
					   .arm = v->choice.open ? v->choice.arm : 0,
					   .why = (uint8_t)why,
					   .credit = v->share[to].credit,
					   .lost_ns = -1 };

	placement_record_add(p, &record);
	v->advised = true;
	v->advised_spread = false;
	v->advised_node = to;
	p->stats.move_count++;
	p->stats.why_count[why]++;
	*ret_advice = (struct placement_advice){ .vcpu = vcpu, .to = to, .why = why };
}

static uint16_t average(uint16_t average, bool hit)
{
	return (uint16_t)(average + ((hit ? 1024 : 0) - average) / 4);
}

static uint32_t add_bounded(uint32_t sum, uint64_t ns)
{
	return UINT32_MAX - sum < ns ? UINT32_MAX : sum + (uint32_t)ns;
}

/* What features are made of later. */
static void remember(struct placement *p, struct placement_vcpu *v,
		     const struct placement_stall *stall, uint64_t ns, uint64_t gap_ns)
{
	uint64_t from = stall->gpn < v->last_gpn ? stall->gpn : v->last_gpn;
	uint64_t to = stall->gpn < v->last_gpn ? v->last_gpn : stall->gpn;

	v->near = average(v->near, to - from <= 256);
	v->left = average(v->left, stall->owner == v->left_node);
	v->writes = average(v->writes, stall->kind != COH_STALL_READ);
	v->shared = average(v->shared, stall->sharers > 1 || stall->kind == COH_STALL_UPGRADE);
	v->last_gpn = stall->gpn;
	v->gap_ns = (3 * v->gap_ns + gap_ns) / 4;
	v->program = stall->program;
	v->share[stall->owner].now_ns = add_bounded(v->share[stall->owner].now_ns, ns);
	v->share[stall->owner].lately_ns = add_bounded(v->share[stall->owner].lately_ns, ns);
	v->now_ns = add_bounded(v->now_ns, ns);
	v->lately_ns = add_bounded(v->lately_ns, ns);
}

/*
 * What the vCPU fetched before it went is where it was, and will be fetched back: that is no reason
 * to go back. Nor is it new that the move costs that. Returns what is left of the stall.
 */
static uint64_t pay_debt(struct placement *p, struct placement_vcpu *v, uint64_t ns)
{
	uint64_t paid = ns < v->debt_ns ? ns : v->debt_ns;

	if (v->burst)
		v->burst_ns += ns;
	if (p->config.broken == PLACEMENT_BROKEN_DEBT)
		return ns;
	v->debt_ns -= paid;
	return ns - paid;
}

/* Likewise what somebody else has left when he came here: the pages that both use. */
static uint64_t pay_met(struct placement_vcpu *v, uint64_t ns)
{
	uint64_t paid = ns < v->met_ns ? ns : v->met_ns;

	v->met_ns -= paid;
	return ns - paid;
}

static int check(const struct placement *p, const struct placement_stall *stall)
{
	if (stall->vcpu >= p->config.vcpu_count || !p->vcpu[stall->vcpu].here)
		return -EINVAL;
	if ((unsigned int)stall->kind >= COH_STALL_KINDS || stall->end_ns < stall->begin_ns)
		return -EINVAL;
	if (stall->owner != NODE_NONE && stall->owner >= p->config.node_count)
		return -EINVAL;
	return 0;
}

/* By credit: the base rule and the learned threshold. */
static void judge(struct placement *p, const struct placement_stall *stall, uint64_t ns,
		  struct placement_advice *advice)
{
	struct placement_vcpu *v = &p->vcpu[stall->vcpu];
	uint16_t to = stall->owner;
	uint64_t now_ns = stall->end_ns;
	struct threshold t;

	t = threshold_of(p, v, to);
	if (ns > t.ns / STALLS_MIN)
		ns = t.ns / STALLS_MIN;
	if (to == v->left_node)
		ns = pay_debt(p, v, ns);
	if (to == v->met_node)
		ns = pay_met(v, ns);
	if (ns == 0)
		return;
	give_credit(p, v, to, ns, t.ns);
	/* Soon enough to be early, late enough to know something. */
	if (v->share[to].credit >= PLACEMENT_WHOLE / 8)
		placement_choose(p, stall->vcpu, to, now_ns);
	if (v->share[to].credit < PLACEMENT_WHOLE)
		return;
	advice->why = placement_guard(p, stall->vcpu, to, now_ns);
	if (advice->why == PLACEMENT_WHY_CREDIT && too_crowded(p, v, to))
		advice->why = PLACEMENT_WHY_CROWDED;
	if (advice->why == PLACEMENT_WHY_CREDIT) {
		placement_advise(p, stall->vcpu, to, t.why, (uint16_t)t.factor, now_ns, advice);
	} else {
		p->stats.why_count[advice->why]++;
	}
}

/* What is proven (docs/placement.md): stalls become credit, and who has all of it is gone to. */
static void judge_alone(struct placement *p, const struct placement_stall *stall,
			struct placement_advice *advice)
{
	struct placement_vcpu *v = &p->vcpu[stall->vcpu];
	uint16_t to = stall->owner;

	give_credit(p, v, to, stall->end_ns - stall->begin_ns,
		    p->wire_ns[to] * PLACEMENT_FACTOR_BASE / PLACEMENT_FACTOR_ONE);
	if (v->share[to].credit == PLACEMENT_WHOLE)
		placement_advise(p, stall->vcpu, to, PLACEMENT_WHY_PAID, PLACEMENT_FACTOR_BASE,
				 stall->end_ns, advice);
}

/*
 * Of the time between two stalls, that in which the vCPU ran: not asleep, with a core, and without
 * what passes until it goes on after a grant, which is no more than the shortest of such times. A
 * stall after the other would look like work else, and on hosts with slow wake-ups that is half of
 * the time.
 */
static uint64_t ran(struct placement *p, struct placement_vcpu *v, uint64_t gap_ns,
		    uint64_t slept_ns)
{
	uint64_t bounded_ns = gap_ns < LAG_NS_MAX ? gap_ns : LAG_NS_MAX;
	uint64_t waited_ns;

	if (bounded_ns < p->lag_ns)
		p->lag_ns -= (p->lag_ns - bounded_ns) / 8;
	else
		p->lag_ns += (bounded_ns - p->lag_ns) / 64;
	gap_ns = placement_since(p->lag_ns + slept_ns, gap_ns);
	waited_ns = v->waited_ns < gap_ns ? v->waited_ns : gap_ns;
	v->waited_ns -= waited_ns;
	/* What is told of a tick may be of before this stall; more was part of a sleep. */
	if (v->waited_ns > PLACEMENT_TICK_NS)
		v->waited_ns = PLACEMENT_TICK_NS;
	return gap_ns - waited_ns;
}

/*
 * Credit fades until the stall's end, but for what the stall is too long to count for. On a busy host
 * each takes as long as it takes credit to fade: if it did meanwhile, no number of them would add up to
 * a move.
 */
static void fade_credit(struct placement *p, const struct placement_stall *stall)
{
	struct placement_vcpu *v = &p->vcpu[stall->vcpu];
	uint16_t to = stall->owner;

	if (to != NODE_NONE && to != p->config.self && p->config.broken != PLACEMENT_BROKEN_LONG)
		v->faded_ns += placement_since(
			stall->begin_ns + threshold_of(p, v, to).ns / STALLS_MIN, stall->end_ns);
	placement_fade_credit(p, v, stall->end_ns);
}

int placement_stall(struct placement *p, const struct placement_stall *stall,
		    struct placement_advice *ret_advice)
{
	struct placement_advice advice = { .vcpu = stall->vcpu,
					   .to = NODE_NONE,
					   .why = PLACEMENT_WHY_CREDIT };
	struct placement_vcpu *v;
	uint64_t ns, gap_ns;
	int error = check(p, stall);

	if (error)
		return error;
	v = &p->vcpu[stall->vcpu];
	v->advised = false;
	ns = stall->end_ns - stall->begin_ns;
	if (ns > STALL_NS_MAX)
		ns = STALL_NS_MAX;
	p->stats.stall_count++;
	placement_age(p, v, stall->end_ns);
	fade_credit(p, stall);
	gap_ns = ran(p, v, placement_since(v->heard_ns, stall->begin_ns), stall->slept_ns);
	ns += p->lag_ns < ns ? p->lag_ns : ns;
	v->ran_ns += gap_ns;
	if (v->share[p->config.self].credit >= PLACEMENT_WHOLE / 8 * 7)
		v->useful_ns += gap_ns;
	if (stall->end_ns > v->heard_ns)
		v->heard_ns = stall->end_ns;
	placement_choice_due(p, stall->vcpu, stall->end_ns);
	placement_burst(p, v, stall->end_ns);
	placement_lost(v, ns);
	if (stall->owner != NODE_NONE && stall->owner != p->config.self && ns > 0) {
		remember(p, v, stall, ns, gap_ns < STALL_NS_MAX ? gap_ns : STALL_NS_MAX);
		switch (p->config.policy) {
		case PLACEMENT_BASE:
		case PLACEMENT_LEARNED:
			if (p->config.broken == PLACEMENT_RULE_ALONE)
				judge_alone(p, stall, &advice);
			else
				judge(p, stall, ns, &advice);
			break;
		case PLACEMENT_VCPUS:
			advice.why = placement_guard(p, stall->vcpu, stall->owner, stall->end_ns);
			if (advice.why == PLACEMENT_WHY_CREDIT || advice.why == PLACEMENT_WHY_DWELL)
				placement_advise(p, stall->vcpu, stall->owner, PLACEMENT_WHY_ALWAYS,
						 0, stall->end_ns, &advice);
			break;
		default:
			advice.why = PLACEMENT_WHY_POLICY;
			break;
		}
	}
	*ret_advice = advice;
	return 0;
}
