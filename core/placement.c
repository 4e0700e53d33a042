// SPDX-License-Identifier: Apache-2.0
/*
 * Placement: its life, and what moves do to it. The idea is in the header; docs/placement.md.
 *
 * All times are integers in ns; times that go back count as no time. Tables are by vCPU and node
 * and are allocated once.
 */
#include "core/placement.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/placement_state.h"

#define CARRY_VERSION	  3
#define STAYS_MAX	  (16u * 127)
#define MOVES_MAX	  (64u * 1024)
#define SPREAD_FAILED_MAX 6u
#define REFUSED_NS	  20000000u
/* Where he was he would have had half a core: so many times the cost of a move pays for two. */
#define SPREAD_USEFUL 4u
#define BUCKET_NS     ((uint64_t)PLACEMENT_MOVES_BURST * (1000000000u / PLACEMENT_MOVES_SECOND))

static const char *const policy_name[PLACEMENT_POLICIES] = {
	[PLACEMENT_PAGES] = "pages",	 [PLACEMENT_VCPUS] = "vcpus",	[PLACEMENT_BASE] = "base",
	[PLACEMENT_LEARNED] = "learned", [PLACEMENT_PINNED] = "pinned",
};

static const char *const why_text[PLACEMENT_WHYS] = {
	[PLACEMENT_WHY_CREDIT] = "its stalls have not yet cost what a move costs",
	[PLACEMENT_WHY_POLICY] = "the policy moves nothing",
	[PLACEMENT_WHY_PIN] = "it is pinned",
	[PLACEMENT_WHY_DWELL] = "it has only just come",
	[PLACEMENT_WHY_RATE] = "it has moved too often of late",
	[PLACEMENT_WHY_CROWDED] = "it would wait for a core there",
	[PLACEMENT_WHY_REFUSED] = "that node does not take it",
	[PLACEMENT_WHY_PAID] = "its stalls have cost as much as the base rule allows",
	[PLACEMENT_WHY_EAGER] = "a move is expected to pay, so early",
	[PLACEMENT_WHY_ALWAYS] = "the policy goes to every page",
	[PLACEMENT_WHY_GATHER] = "it is idle, and joins the others",
	[PLACEMENT_WHY_SPREAD] = "there is a free core there and none here",
};

const char *placement_policy_name(enum placement_policy policy)
{
	return (unsigned int)policy < PLACEMENT_POLICIES ? policy_name[policy] : "?";
}

bool placement_policy_gathers(enum placement_policy policy)
{
	return policy == PLACEMENT_BASE || policy == PLACEMENT_LEARNED;
}

int placement_policy_parse(const char *name, enum placement_policy *ret_policy)
{
	for (int i = 0; i < PLACEMENT_POLICIES; i++) {
		if (strcmp(name, policy_name[i]) == 0) {
			*ret_policy = (enum placement_policy)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *placement_why_text(enum placement_why why)
{
	return (unsigned int)why < PLACEMENT_WHYS ? why_text[why] : "?";
}

uint32_t placement_program(uint64_t cr3, uint64_t rip)
{
	uint64_t table = cr3 << 1 >> 14, page = rip >> 12;
	uint32_t program = (uint32_t)placement_mix(placement_mix(table) ^ page);

	return program ? program : 1;
}

static uint64_t move_bounded(uint64_t ns)
{
	if (ns < PLACEMENT_MOVE_NS_MIN)
		return PLACEMENT_MOVE_NS_MIN;
	return ns < PLACEMENT_MOVE_NS_MAX ? ns : PLACEMENT_MOVE_NS_MAX;
}

int placement_create(const struct placement_config *config, struct placement **ret_placement)
{
	struct member_set members;
	struct placement *p;
	int ret;

	if (config->node_count == 0 || config->node_count > NODES_MAX ||
	    config->self >= config->node_count || config->gather_node >= config->node_count ||
	    config->vcpu_count == 0 || config->vcpu_count > VCPUS_MAX ||
	    (unsigned int)config->policy >= PLACEMENT_POLICIES)
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->config = *config;
	members = member_set_or_all(&config->members, config->node_count);
	p->load = calloc(config->node_count, sizeof(*p->load));
	p->wire_ns = calloc(config->node_count, sizeof(*p->wire_ns));
	p->vcpu = calloc(config->vcpu_count, sizeof(*p->vcpu));
	p->share = calloc((size_t)config->vcpu_count * config->node_count, sizeof(*p->share));
	if (!p->load || !p->wire_ns || !p->vcpu || !p->share) {
		placement_destroy(p);
		return -ENOMEM;
	}
	p->config.members = (struct member_set){ 0 };
	ret = placement_members(p, &members, config->gather_node);
	if (ret) {
		placement_destroy(p);
		return ret;
	}
	for (uint32_t i = 0; i < config->vcpu_count; i++) {
		p->vcpu[i].node = p->vcpu[i].left_node = p->vcpu[i].refused_node = NODE_NONE;
		p->vcpu[i].spread_from = p->vcpu[i].met_node = NODE_NONE;
		p->vcpu[i].share = &p->share[(size_t)i * config->node_count];
	}
	p->refault_ns = config->refault_ns < PLACEMENT_REFAULT_MOVES * p->wire_ns[0]
				? config->refault_ns
				: PLACEMENT_REFAULT_MOVES * p->wire_ns[0];
	placement_learner_init(&p->learner);
	*ret_placement = p;
	return 0;
}

int placement_members(struct placement *p, const struct member_set *members, uint16_t gather_node)
{
	const struct member_set space = member_set_below(p->config.node_count);

	if (!member_set_covers(&space, members) || gather_node >= NODES_MAX ||
	    !member_set_has(members, gather_node) || !member_set_has(members, p->config.self))
		return -EINVAL;
	for (uint16_t i = 0; i < p->config.node_count; i++) {
		if (!member_set_has(members, i)) {
			p->load[i] = (struct placement_load){ .cores = 0 };
		} else if (!member_set_has(&p->config.members, i)) {
			p->load[i] = (struct placement_load){ .cores = 1 }; /* until it says */
			p->wire_ns[i] = move_bounded(p->config.move_ns);
		}
	}
	p->config.members = *members;
	p->config.gather_node = gather_node;
	return 0;
}

void placement_destroy(struct placement *p)
{
	if (!p)
		return;
	free(p->share);
	free(p->vcpu);
	free(p->wire_ns);
	free(p->load);
	free(p);
}

int placement_set_policy(struct placement *p, enum placement_policy policy, uint64_t now_ns)
{
	if ((unsigned int)policy >= PLACEMENT_POLICIES)
		return -EINVAL;
	p->config.policy = policy;
	if (p->learner_off)
		p->stats.learner_back_ns = now_ns;
	p->learner_off = false;
	p->verdicts_lost = 0;
	memset(&p->control, 0, sizeof(p->control));
	memset(&p->learned, 0, sizeof(p->learned));
	return 0;
}

int placement_pin(struct placement *p, uint32_t vcpu, bool pinned)
{
	if (vcpu >= p->config.vcpu_count)
		return -EINVAL;
	p->vcpu[vcpu].pinned = pinned;
	return 0;
}

int placement_load(struct placement *p, uint16_t node, const struct placement_load *load)
{
	if (node >= p->config.node_count)
		return -EINVAL;
	if (member_set_has(&p->config.members, node))
		p->load[node] = *load;
	return 0;
}

int placement_time(struct placement *p, uint32_t vcpu, const struct placement_time *time)
{
	struct placement_vcpu *v;

	if (vcpu >= p->config.vcpu_count || !p->vcpu[vcpu].here)
		return -EINVAL;
	v = &p->vcpu[vcpu];
	if (time->now_ns)
		placement_age(p, v, time->now_ns);
	/* Or who slept would count as idle for long after he has woken up. */
	v->halted_ns += time->halted_ns < LATELY_NS ? time->halted_ns : LATELY_NS;
	if (v->halted_ns > LATELY_NS)
		v->halted_ns = LATELY_NS;
	/* Without a core nobody runs: the next stall has it. (And who sleeps says so there.) */
	if (p->config.broken != PLACEMENT_BROKEN_WAITED)
		v->waited_ns += time->waited_ns < LATELY_NS ? time->waited_ns : LATELY_NS;
	placement_lost(v, time->waited_ns < STALL_NS_MAX ? time->waited_ns : STALL_NS_MAX);
	return 0;
}

/* `value` after so many steps, in each of which a 2^-shift fades, to first order. */
static uint64_t fade(uint64_t value, uint64_t steps, uint32_t shift)
{
	return steps >> shift ? 0 : value - (value * steps >> shift);
}

void placement_age(struct placement *p, struct placement_vcpu *v, uint64_t now_ns)
{
	uint64_t steps = placement_since(v->aged_ns, now_ns) >> AGE_SHIFT;
	uint32_t shift = steps < 31 ? (uint32_t)steps : 31;

	if (steps == 0 || p->config.broken == PLACEMENT_RULE_ALONE)
		return;
	v->aged_ns += steps << AGE_SHIFT;
	for (uint16_t i = 0; i < p->config.node_count; i++) {
		struct placement_share *share = &v->share[i];

		/* Of most nodes a vCPU wants nothing. */
		if ((share->now_ns | share->lately_ns) == 0)
			continue;
		share->now_ns >>= shift;
		share->lately_ns = (uint32_t)fade(share->lately_ns, steps, LATELY_SHIFT);
	}
	v->now_ns >>= shift;
	v->lately_ns = (uint32_t)fade(v->lately_ns, steps, LATELY_SHIFT);
	v->debt_ns = fade(v->debt_ns, steps, LATELY_SHIFT);
	v->met_ns = fade(v->met_ns, steps, LATELY_SHIFT);
	v->leaves_ns = fade(v->leaves_ns, steps, LEAVES_SHIFT);
	v->halted_ns = fade(v->halted_ns, steps, LATELY_SHIFT);
	v->moves = (uint32_t)fade(v->moves, steps, LATELY_SHIFT);
}

void placement_fade_credit(struct placement *p, struct placement_vcpu *v, uint64_t now_ns)
{
	uint64_t steps = placement_since(v->faded_ns, now_ns) >> AGE_SHIFT;
	uint32_t rest = PLACEMENT_WHOLE;

	if (steps == 0 || p->config.broken == PLACEMENT_RULE_ALONE)
		return;
	v->faded_ns += steps << AGE_SHIFT;
	for (uint16_t i = 0; i < p->config.node_count; i++) {
		struct placement_share *share = &v->share[i];

		if (i == p->config.self || share->credit == 0)
			continue;
		if (steps >= CREDIT_STEPS_MAX)
			share->credit = 0;
		for (uint64_t left = steps, some; left > 0 && share->credit > 0; left -= some) {
			some = left < CREDIT_STEPS ? left : CREDIT_STEPS;
			share->credit = (uint32_t)fade(share->credit, some, CREDIT_SHIFT);
		}
		rest -= share->credit < rest ? share->credit : rest;
	}
	/* What has faded is this node's again. */
	v->share[p->config.self].credit = rest;
}

/* A vCPU begins here: nothing is known of what it does. */
static void begin_stay(struct placement *p, struct placement_vcpu *v, uint64_t now_ns)
{
	memset(v->share, 0, p->config.node_count * sizeof(*v->share));
	v->share[p->config.self].credit = PLACEMENT_WHOLE;
	v->here = true;
	v->node = p->config.self;
	v->arrived_ns = v->aged_ns = v->faded_ns = v->heard_ns = now_ns;
	v->useful_ns = v->ran_ns = v->waited_ns = v->burst_ns = v->debt_ns = v->debt_begin_ns = 0;
	v->burst = false;
	v->now_ns = v->lately_ns = 0;
	v->near = v->left = v->writes = v->shared = 0;
	v->gap_ns = 0;
	v->halted_ns = 0;
	v->advised = v->advised_spread = false;
}

/*
 * Somebody came here from `from`: credit of that node may have been about him, so the others begin
 * again. Two who stalled on each other do not cross. And what he left there may be what they share:
 * if that were a reason to go, one would go back for it, and he would follow, and so on.
 */
static void met(struct placement *p, uint16_t from, uint64_t brings_ns)
{
	for (uint32_t i = 0; i < p->config.vcpu_count; i++) {
		struct placement_vcpu *v = &p->vcpu[i];

		if (!v->here || p->config.broken == PLACEMENT_BROKEN_YIELD)
			continue;
		v->share[p->config.self].credit += v->share[from].credit;
		v->share[from].credit = 0;
		if (v->met_node != from)
			v->met_ns = 0;
		v->met_node = from;
		if (v->met_ns < brings_ns)
			v->met_ns = brings_ns;
	}
}

/* Until the loads are told again: the vCPU counts where it is now. (One that sleeps, too: few do
 * that when they move.) */
static void carry_load(struct placement *p, uint16_t from, uint16_t to)
{
	if (from == to)
		return;
	if (from != NODE_NONE && p->load[from].awake > 0)
		p->load[from].awake--;
	if (p->load[to].awake < UINT16_MAX)
		p->load[to].awake++;
}

int placement_placed(struct placement *p, uint32_t vcpu, uint16_t node, uint64_t now_ns)
{
	struct placement_vcpu *v;

	if (vcpu >= p->config.vcpu_count || node >= p->config.node_count)
		return -EINVAL;
	v = &p->vcpu[vcpu];
	if (v->node != NODE_NONE)
		carry_load(p, v->node, node);
	if (node == p->config.self && !v->here) {
		begin_stay(p, v, now_ns);
	} else if (node != p->config.self) {
		v->here = false;
		v->node = node;
	}
	return 0;
}

/* The stay is over: was it worth the move, and did it bring the vCPU back where it came from? */
static void judge_stay(struct placement *p, struct placement_vcpu *v, uint16_t to, uint64_t now_ns)
{
	if (v->left_node == NODE_NONE)
		return;
	if (v->share[p->config.self].credit >= PLACEMENT_WHOLE / 8 * 7)
		v->useful_ns += placement_since(v->heard_ns + v->waited_ns, now_ns);
	if (v->useful_ns < p->wire_ns[to] / 2) {
		p->stats.wasted_count++;
		v->wasted += v->wasted < WASTED_MAX;
	} else {
		v->wasted -= v->wasted > 0;
	}
	p->stats.return_count += to == v->left_node;
	/*
	 * Sent away for a core, and come back at once: it should not be sent so soon again. Whose work
	 * there was worth both moves was right to go: he may have done what there was to do.
	 */
	if (v->spread_from == to && placement_since(v->spread_ns, now_ns) < 200000000u &&
	    v->useful_ns < SPREAD_USEFUL * placement_cost(p, v, to))
		v->spread_failed += v->spread_failed < SPREAD_FAILED_MAX;
	else if (v->spread_from != NODE_NONE)
		v->spread_failed -= v->spread_failed > 0;
	v->spread_from = NODE_NONE;
}

static uint64_t left_behind(const struct placement *p, const struct placement_vcpu *v)
{
	if (p->config.broken == PLACEMENT_BROKEN_LEAVES)
		return p->refault_ns;
	return v->leaves_ns > p->refault_ns ? v->leaves_ns : p->refault_ns;
}

/*
 * What a vCPU leaves behind is learned when the stalls that its move brought are over, and counts at
 * once if it was more than thought. If it leaves before, nobody knows how long they would have gone
 * on, but it was longer.
 */
static void learn_leaves(struct placement *p, struct placement_vcpu *v, bool over)
{
	uint64_t before_ns = v->ran_ns;
	uint64_t seen = placement_since(v->debt_begin_ns + before_ns, v->burst_ns),
		 bound = PLACEMENT_REFAULT_MOVES * p->wire_ns[v->left_node];

	v->burst = false;
	if (!over && seen > 0) {
		seen = seen > v->leaves_ns ? seen : v->leaves_ns;
		seen *= 2;
	}
	p->refault_ns = (7 * p->refault_ns + (seen < bound ? seen : bound)) / 8;
	if (seen < v->leaves_ns)
		seen = (3 * v->leaves_ns + seen) / 4;
	v->leaves_ns = seen < LEAVES_NS_MAX ? seen : LEAVES_NS_MAX;
}

void placement_burst(struct placement *p, struct placement_vcpu *v, uint64_t now_ns)
{
	if (v->burst && placement_since(v->arrived_ns, now_ns) >= NOW_NS &&
	    v->share[v->left_node].now_ns < NOW_NS / BURST_SHARE)
		learn_leaves(p, v, true);
}

static void put(uint8_t *at, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, int bytes)
{
	uint64_t value = 0;

	for (int i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

/*
 *  0 version, wasted stays, failed spreads, choice is open    16 stays, moves    24 rate of moves
 *  4 program   8 debt us, leaves us   32 choice: arm, how, spread, halted   36 program   40 began
 * 48 lost us, expected us   56 features   72 0 (8)
 */
static uint64_t us_bounded(uint64_t ns)
{
	return ns / 1000 < UINT32_MAX ? ns / 1000 : UINT32_MAX;
}

static void carry_put(const struct placement_vcpu *v, uint64_t debt_ns, bool spread, uint8_t *carry)
{
	const struct placement_choice *choice = &v->choice;

	memset(carry, 0, PLACEMENT_CARRY_BYTES);
	carry[0] = CARRY_VERSION;
	carry[1] = v->wasted;
	carry[2] = v->spread_failed;
	put(carry + 4, v->program, 4);
	put(carry + 8, us_bounded(debt_ns), 4);
	put(carry + 12, us_bounded(v->leaves_ns), 4);
	put(carry + 16, v->stays, 4);
	put(carry + 20, v->moves, 4);
	put(carry + 24, v->token_ns, 8);
	carry[34] = spread;
	carry[35] = (uint8_t)(v->halted_ns < LATELY_NS ? v->halted_ns * 256 / LATELY_NS : 255);
	if (!choice->open)
		return;
	carry[3] = 1;
	carry[32] = choice->arm;
	carry[33] = choice->how;
	put(carry + 36, choice->program, 4);
	put(carry + 40, choice->begin_ns, 8);
	put(carry + 48, us_bounded(choice->lost_ns), 4);
	put(carry + 52, us_bounded(choice->expected_ns), 4);
	memcpy(carry + 56, choice->feature, PLACEMENT_FEATURES);
}

int placement_carry_check(const uint8_t carry[PLACEMENT_CARRY_BYTES])
{
	if (carry[0] != CARRY_VERSION || carry[1] > WASTED_MAX || carry[2] > SPREAD_FAILED_MAX ||
	    carry[3] > 1 || get(carry + 12, 4) > LEAVES_NS_MAX / 1000 ||
	    get(carry + 16, 4) > STAYS_MAX || get(carry + 20, 4) > MOVES_MAX ||
	    carry[32] >= PLACEMENT_ARMS || carry[33] >= PLACEMENT_HOWS || carry[34] > 1 ||
	    get(carry + 72, 8) != 0)
		return -EPROTO;
	return 0;
}

static void carry_get(struct placement_vcpu *v, const uint8_t *carry)
{
	v->wasted = carry[1];
	v->spread_failed = carry[2];
	v->program = (uint32_t)get(carry + 4, 4);
	v->debt_ns = v->debt_begin_ns = get(carry + 8, 4) * 1000;
	v->leaves_ns = get(carry + 12, 4) * 1000;
	v->stays = (uint32_t)get(carry + 16, 4);
	v->moves = (uint32_t)get(carry + 20, 4);
	v->token_ns = get(carry + 24, 8);
	v->halted_ns = carry[35] * (LATELY_NS / 256);
	v->choice = (struct placement_choice){ .open = carry[3],
					       .arm = carry[32],
					       .how = carry[33],
					       .program = (uint32_t)get(carry + 36, 4),
					       .begin_ns = get(carry + 40, 8),
					       .lost_ns = get(carry + 48, 4) * 1000,
					       .expected_ns = get(carry + 52, 4) * 1000 };
	memcpy(v->choice.feature, carry + 56, PLACEMENT_FEATURES);
}

/*
 * A bucket is full at most: neither moves that nobody was asked about nor what another node says
 * keep a vCPU where it is for longer.
 */
static void bound_bucket(struct placement_vcpu *v, uint64_t now_ns)
{
	if (v->token_ns > now_ns && v->token_ns - now_ns > BUCKET_NS)
		v->token_ns = now_ns + BUCKET_NS;
}

/* A bucket of moves: each one puts off the time at which it would be empty. */
static void count_move(struct placement_vcpu *v, uint64_t now_ns)
{
	if (v->token_ns < now_ns)
		v->token_ns = now_ns;
	v->token_ns += 1000000000u / PLACEMENT_MOVES_SECOND;
	bound_bucket(v, now_ns);
	if (v->moves < MOVES_MAX - 64)
		v->moves += 64;
}

int placement_left(struct placement *p, uint32_t vcpu, uint16_t to, uint64_t now_ns,
		   uint8_t carry[PLACEMENT_CARRY_BYTES])
{
	struct placement_vcpu *v;
	int8_t feature[PLACEMENT_FEATURES];
	uint64_t debt_ns, bound;

	if (vcpu >= p->config.vcpu_count || to >= p->config.node_count || to == p->config.self ||
	    !p->vcpu[vcpu].here)
		return -EINVAL;
	v = &p->vcpu[vcpu];
	placement_age(p, v, now_ns);
	placement_fade_credit(p, v, now_ns);
	placement_choice_due(p, vcpu, now_ns);
	judge_stay(p, v, to, now_ns);
	placement_burst(p, v, now_ns);
	if (v->burst)
		learn_leaves(p, v, false);
	placement_features(p, vcpu, to, now_ns, feature);
	v->stays = (uint32_t)((3 * (int32_t)v->stays + 16 * feature[PLACEMENT_STAY]) / 4);
	count_move(v, now_ns);
	v->choice.holds = false;
	/* What was fetched from there lies here now. */
	debt_ns = v->share[to].lately_ns;
	bound = PLACEMENT_FACTOR_MAX / PLACEMENT_FACTOR_ONE * placement_cost(p, v, to);
	carry_put(v, debt_ns < bound ? debt_ns : bound,
		  v->advised && v->advised_node == to && v->advised_spread, carry);
	carry_load(p, p->config.self, to);
	v->here = false;
	v->node = to;
	return 0;
}

/*
 * One that waited for a core of a busy host took a thousand times as long as others, and says nothing
 * of the next: it counts for no more than an eighth of what is believed. With their mean a few such
 * moves put an end to all moves, and so to what would have corrected it.
 */
static uint64_t wire_learned(uint64_t wire_ns, uint64_t took_ns)
{
	if (took_ns < wire_ns)
		return move_bounded(wire_ns - (wire_ns - took_ns) / 8);
	took_ns -= wire_ns;
	return move_bounded(wire_ns + (took_ns < wire_ns ? took_ns : wire_ns) / 8);
}

int placement_arrived(struct placement *p, uint32_t vcpu, uint16_t from, uint64_t stopped_ns,
		      uint64_t now_ns, const uint8_t carry[PLACEMENT_CARRY_BYTES])
{
	struct placement_vcpu *v;
	uint64_t took_ns = placement_since(stopped_ns, now_ns);

	if (vcpu >= p->config.vcpu_count || from >= p->config.node_count || from == p->config.self)
		return -EINVAL;
	if (carry && placement_carry_check(carry) != 0)
		return -EPROTO;
	v = &p->vcpu[vcpu];
	carry_load(p, v->node == NODE_NONE ? from : v->node, p->config.self);
	begin_stay(p, v, now_ns);
	v->left_node = from;
	if (carry)
		carry_get(v, carry);
	else
		v->choice.open = false;
	bound_bucket(v, now_ns);
	/* One that began later than now would be open for ever. */
	if (v->choice.begin_ns > now_ns)
		v->choice.begin_ns = now_ns;
	/* Its stack, its run queue, the code it runs, its data: what it is known to leave behind. */
	v->debt_ns += left_behind(p, v);
	met(p, from, left_behind(p, v));
	v->met_ns = 0;
	v->burst = true;
	if (carry && carry[34]) {
		v->spread_from = from;
		v->spread_ns = now_ns;
	}
	p->wire_ns[from] = wire_learned(p->wire_ns[from], move_bounded(took_ns));
	placement_lost(v, took_ns);
	return 0;
}

int placement_refused(struct placement *p, uint32_t vcpu, uint16_t node, uint64_t now_ns)
{
	struct placement_vcpu *v;

	if (vcpu >= p->config.vcpu_count || node >= p->config.node_count)
		return -EINVAL;
	v = &p->vcpu[vcpu];
	if (!v->here) {
		carry_load(p, v->node, p->config.self);
		begin_stay(p, v, now_ns);
	}
	v->refused_node = node;
	v->refused_until_ns = now_ns + REFUSED_NS;
	return 0;
}

uint64_t placement_move_ns(const struct placement *p, uint16_t node)
{
	if (node >= p->config.node_count)
		return 0;
	return move_bounded(p->wire_ns[node] + p->refault_ns);
}

uint64_t placement_cost(const struct placement *p, const struct placement_vcpu *v, uint16_t to)
{
	return move_bounded(p->wire_ns[to] + left_behind(p, v));
}

uint32_t placement_credit(const struct placement *p, uint32_t vcpu, uint16_t node)
{
	if (vcpu >= p->config.vcpu_count || node >= p->config.node_count || !p->vcpu[vcpu].here)
		return 0;
	return p->vcpu[vcpu].share[node].credit;
}

void placement_stats_get(const struct placement *p, struct placement_stats *ret_stats)
{
	*ret_stats = p->stats;
	ret_stats->control_loss =
		p->control.time_ns ? p->control.lost_ns / (p->control.time_ns / 1000000 + 1) : 0;
	ret_stats->learner_loss =
		p->learned.time_ns ? p->learned.lost_ns / (p->learned.time_ns / 1000000 + 1) : 0;
	ret_stats->learner_off = p->learner_off;
	ret_stats->refault_ns = p->refault_ns;
}

void placement_copy(const struct placement *from, struct placement *to, uint64_t now_ns)
{
	for (uint16_t i = 0; i < to->config.node_count; i++) {
		to->load[i] = from->load[i];
		to->wire_ns[i] = from->wire_ns[i];
	}
	to->refault_ns = from->refault_ns;
	to->learner = from->learner;
	for (uint32_t i = 0; i < to->config.vcpu_count; i++) {
		struct placement_vcpu *v = &to->vcpu[i];

		v->node = from->vcpu[i].node;
		v->pinned = from->vcpu[i].pinned;
		if (from->vcpu[i].here)
			begin_stay(to, v, now_ns);
		v->left_node = from->vcpu[i].left_node;
		v->leaves_ns = from->vcpu[i].leaves_ns;
	}
}

int placement_save(const struct placement *p, char *text, size_t size)
{
	return placement_learner_save(&p->learner, text, size);
}

void placement_learner_get(const struct placement *p, struct placement_learner *ret_learner)
{
	*ret_learner = p->learner;
}

int placement_load_state(struct placement *p, const char *text, size_t length,
			 const char **ret_reason)
{
	return placement_learner_load(&p->learner, text, length, ret_reason);
}

uint64_t placement_record_newest(const struct placement *p)
{
	return p->record_newest;
}

int placement_record_get(const struct placement *p, uint64_t sequence,
			 struct placement_record *ret_record)
{
	if (sequence == 0 || sequence > p->record_newest ||
	    p->record_newest - sequence >= PLACEMENT_RECORDS)
		return -ENOENT;
	*ret_record = p->record[(sequence - 1) % PLACEMENT_RECORDS];
	return 0;
}

uint64_t placement_closed_newest(const struct placement *p)
{
	return p->closed_newest;
}

int placement_closed_get(const struct placement *p, uint64_t sequence,
			 struct placement_closed *ret_closed)
{
	if (sequence == 0 || sequence > p->closed_newest ||
	    p->closed_newest - sequence >= PLACEMENT_RECORDS)
		return -ENOENT;
	*ret_closed = p->closed[(sequence - 1) % PLACEMENT_RECORDS];
	return 0;
}
