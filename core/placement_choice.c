// SPDX-License-Identifier: Apache-2.0
/*
 * Which threshold a vCPU has, what was expected of it, and what came of it.
 *
 * A choice is made when another node's credit begins to grow, holds until the next move, and travels
 * with the vCPU until its horizon is over. What is lost within the horizon (stalls, moves, waiting for
 * a core) is its outcome and teaches the learner, in the policy `base`, too.
 *
 * The learner has a control: of the choices in the policy `learned` one in CONTROL_SHARE, drawn by
 * the seed, is the base rule's. What is lost after either kind is added up, and when the learner
 * has lost more than its control for several verdicts in a row it is switched off. One in TRY_SHARE
 * is drawn: else only one of the models would learn.
 */
#include <errno.h>
#include <string.h>

#include "core/placement_state.h"

/* 8 * log2(value), value > 0: to an eighth, by the leading bits. */
static uint32_t log2_eighths(uint64_t value)
{
	uint32_t whole = 63u - (uint32_t)__builtin_clzll(value);
	uint64_t rest = whole >= 3 ? value >> (whole - 3) : value << (3 - whole);

	return 8 * whole + (uint32_t)(rest & 7);
}

static int8_t feature_bounded(int64_t value)
{
	if (value < -128)
		return -128;
	return (int8_t)(value < 127 ? value : 127);
}

static int8_t share_of(uint64_t part, uint64_t whole)
{
	return whole == 0 ? 0 : feature_bounded((int64_t)(part * PLACEMENT_FEATURE_ONE / whole));
}

static int8_t load_feature(const struct placement_load *load)
{
	if (load->cores == 0)
		return 127;
	return feature_bounded((int64_t)load->awake * (PLACEMENT_FEATURE_ONE / 2) / load->cores);
}

void placement_features(const struct placement *p, uint32_t vcpu, uint16_t to, uint64_t now_ns,
			int8_t feature[PLACEMENT_FEATURES])
{
	const struct placement_vcpu *v = &p->vcpu[vcpu];
	const struct placement_share *share = &v->share[to];
	const int16_t *loss = p->program[v->program % PROGRAM_COUNT].loss;
	uint64_t stay = placement_since(v->arrived_ns, now_ns) / p->wire_ns[to] + 1;

	feature[PLACEMENT_ALWAYS] = PLACEMENT_FEATURE_ONE;
	feature[PLACEMENT_OWNER_NOW] = share_of(share->now_ns, v->now_ns);
	feature[PLACEMENT_OWNER_LATELY] = share_of(share->lately_ns, v->lately_ns);
	feature[PLACEMENT_STALLED_NOW] = share_of(v->now_ns, NOW_NS);
	feature[PLACEMENT_STALLED_LATELY] = share_of(v->lately_ns, LATELY_NS);
	feature[PLACEMENT_NEAR] = (int8_t)(v->near / 16);
	feature[PLACEMENT_LEFT] = (int8_t)(v->left / 16);
	feature[PLACEMENT_WRITES] = (int8_t)(v->writes / 16);
	feature[PLACEMENT_SHARED] = (int8_t)(v->shared / 16);
	feature[PLACEMENT_STAY] = feature_bounded(log2_eighths(stay));
	feature[PLACEMENT_STAYS] = (int8_t)(v->stays / 16);
	feature[PLACEMENT_MOVES] = feature_bounded(v->moves / 8);
	feature[PLACEMENT_LOAD_HERE] = load_feature(&p->load[p->config.self]);
	feature[PLACEMENT_LOAD_THERE] = load_feature(&p->load[to]);
	feature[PLACEMENT_PROGRAM] =
		feature_bounded((loss[PLACEMENT_ARM_BASE] - loss[PLACEMENT_ARM_EAGER]) / 16);
	feature[PLACEMENT_GAP] = feature_bounded(log2_eighths(v->gap_ns / 256 + 1));
}

void placement_lost(struct placement_vcpu *v, uint64_t ns)
{
	if (v->choice.open)
		v->choice.lost_ns += ns;
}

uint64_t placement_record_add(struct placement *p, const struct placement_record *record)
{
	struct placement_record *to = &p->record[p->record_newest % PLACEMENT_RECORDS];

	*to = *record;
	to->sequence = ++p->record_newest;
	return to->sequence;
}

/* What each threshold is expected to lose, of the horizon. */
static void predict(const struct placement *p, const int8_t feature[PLACEMENT_FEATURES],
		    double loss[PLACEMENT_ARMS])
{
	for (int arm = 0; arm < PLACEMENT_ARMS; arm++)
		loss[arm] = placement_learner_loss(&p->learner, (enum placement_arm)arm, feature);
}

/* Eager only if it is better by more than chance. */
enum placement_arm placement_arm_of(const double loss[PLACEMENT_ARMS])
{
	return loss[PLACEMENT_ARM_EAGER] < loss[PLACEMENT_ARM_BASE] * 0.85 - 0.005
		       ? PLACEMENT_ARM_EAGER
		       : PLACEMENT_ARM_BASE;
}

/* The learner's words about a choice. */
static void explain(const struct placement *p, struct placement_record *record,
		    const double loss[PLACEMENT_ARMS])
{
	enum placement_arm arm = (enum placement_arm)record->arm;
	enum placement_arm other =
		arm == PLACEMENT_ARM_BASE ? PLACEMENT_ARM_EAGER : PLACEMENT_ARM_BASE;
	double unit = (double)PLACEMENT_HORIZON_NS / PLACEMENT_FEATURE_ONE;

	record->predicted = placement_learner_ready(&p->learner);
	for (int i = 0; i < PLACEMENT_ARMS; i++)
		record->arm_ns[i] = (int64_t)(loss[i] * PLACEMENT_HORIZON_NS);
	for (int i = 0; i < PLACEMENT_FEATURES; i++) {
		double part =
			(p->learner.model[other].weight[i] - p->learner.model[arm].weight[i]) *
			record->feature[i] * unit;

		/* Weights are within 64 and features within 2, so it is finite. */
		record->part_ns[i] = part > INT32_MAX	? INT32_MAX
				     : part < INT32_MIN ? INT32_MIN
							: (int32_t)part;
	}
}

/* Has the learner lost more than its control of late? */
static void verdict(struct placement *p, uint64_t now_ns)
{
	uint64_t control, learned;

	if (p->control.count < VERDICT_COUNT || p->learned.count < VERDICT_COUNT)
		return;
	/* In 4096ths of the time; a twentieth and 1 % of the time are within chance. */
	control = p->control.lost_ns / (p->control.time_ns / 4096 + 1);
	learned = p->learned.lost_ns / (p->learned.time_ns / 4096 + 1);
	if (learned > control + control / 20 + 41)
		p->verdicts_lost++;
	else
		p->verdicts_lost = 0;
	if (p->verdicts_lost >= VERDICTS_LOST && p->config.broken != PLACEMENT_BROKEN_CONTROL) {
		p->learner_off = true;
		p->stats.learner_off_count++;
		p->stats.learner_off_ns = now_ns;
	}
	p->control.count = p->learned.count = 0;
	p->control.lost_ns /= 2;
	p->control.time_ns /= 2;
	p->learned.lost_ns /= 2;
	p->learned.time_ns /= 2;
}

static void count_outcome(struct placement *p, const struct placement_choice *choice,
			  uint64_t now_ns)
{
	struct placement_tally *tally = &p->learned;

	if (choice->how == PLACEMENT_HOW_BASE || p->learner_off ||
	    p->config.policy != PLACEMENT_LEARNED)
		return;
	if (choice->how == PLACEMENT_HOW_CONTROL)
		tally = &p->control;
	tally->lost_ns +=
		choice->lost_ns < PLACEMENT_HORIZON_NS ? choice->lost_ns : PLACEMENT_HORIZON_NS;
	tally->time_ns += PLACEMENT_HORIZON_NS;
	tally->count++;
	verdict(p, now_ns);
}

static void learn(struct placement *p, const struct placement_outcome *outcome)
{
	int16_t *program = &p->program[outcome->program % PROGRAM_COUNT].loss[outcome->arm];
	double loss = (double)outcome->lost_us / (PLACEMENT_HORIZON_NS / 1000);

	placement_learner_learn(&p->learner, (enum placement_arm)outcome->arm, outcome->feature,
				loss);
	if (loss > 1.9)
		loss = 1.9;
	*program = (int16_t)(*program + ((int32_t)(loss * 1024) - *program) / 8);
}

int placement_outcome_take(struct placement *p, struct placement_outcome *ret_outcome)
{
	if (p->outcome_newest - p->outcome_taken > PLACEMENT_OUTCOMES)
		p->outcome_taken = p->outcome_newest - PLACEMENT_OUTCOMES;
	if (p->outcome_taken == p->outcome_newest)
		return -ENOENT;
	*ret_outcome = p->outcome[p->outcome_taken++ % PLACEMENT_OUTCOMES];
	return 0;
}

bool placement_outcome_valid(const struct placement_outcome *outcome)
{
	return outcome->arm < PLACEMENT_ARMS && outcome->lost_us <= PLACEMENT_LOST_US_MAX;
}

int placement_outcome_learn(struct placement *p, const struct placement_outcome *outcome)
{
	if (!placement_outcome_valid(outcome))
		return -EPROTO;
	learn(p, outcome);
	return 0;
}

static void close_choice(struct placement *p, uint32_t vcpu, uint64_t now_ns)
{
	struct placement_vcpu *v = &p->vcpu[vcpu];
	struct placement_choice *choice = &v->choice;
	enum placement_arm arm = (enum placement_arm)choice->arm;
	struct placement_record *record = &p->record[(choice->sequence - 1) % PLACEMENT_RECORDS];
	struct placement_outcome outcome = { .arm = choice->arm, .program = choice->program };
	double losses[PLACEMENT_ARMS];

	choice->open = false;
	p->closed[p->closed_newest++ % PLACEMENT_RECORDS] =
		(struct placement_closed){ .at_ns = now_ns,
					   .begin_ns = choice->begin_ns,
					   .lost_ns = choice->lost_ns,
					   .vcpu = vcpu };
	p->stats.learned_count++;
	predict(p, choice->feature, losses);
	memcpy(outcome.feature, choice->feature, sizeof(outcome.feature));
	outcome.lost_us =
		(uint32_t)(choice->lost_ns / 1000 < PLACEMENT_LOST_US_MAX ? choice->lost_ns / 1000
									  : PLACEMENT_LOST_US_MAX);
	if (p->config.shadow) /* it was another's choice */
		return;
	learn(p, &outcome);
	p->outcome[p->outcome_newest++ % PLACEMENT_OUTCOMES] = outcome;
	count_outcome(p, choice, now_ns);
	if (choice->sequence && record->sequence == choice->sequence) {
		record->lost_ns = (int64_t)choice->lost_ns;
		return;
	}
	/* It was made elsewhere: its record here is made of what came along. */
	struct placement_record late = { .late = true,
					 .at_ns = choice->begin_ns,
					 .vcpu = vcpu,
					 .here = v->left_node,
					 .target = p->config.self,
					 .arm = choice->arm,
					 .how = choice->how,
					 .move_ns = placement_move_ns(p, p->config.self),
					 .drawn = choice->how == PLACEMENT_HOW_CONTROL ||
						  choice->how == PLACEMENT_HOW_TRY };

	memcpy(late.feature, choice->feature, sizeof(late.feature));
	explain(p, &late, losses);
	late.arm_ns[arm] = (int64_t)choice->expected_ns;
	late.lost_ns = (int64_t)choice->lost_ns;
	placement_record_add(p, &late);
}

void placement_choice_due(struct placement *p, uint32_t vcpu, uint64_t now_ns)
{
	struct placement_vcpu *v = &p->vcpu[vcpu];

	if (v->choice.open && placement_since(v->choice.begin_ns, now_ns) >= PLACEMENT_HORIZON_NS)
		close_choice(p, vcpu, now_ns);
}

/*
 * Nobody goes early to pages that are far from each other. Those that he fetched before lie apart from
 * their neighbours then, bring him to the wrong node the next time, and are fetched once more; and all of
 * that comes long after the horizon, so no outcome shows it.
 */
static bool scatters(const struct placement *p, const struct placement_vcpu *v)
{
	return v->near < NEAR_MIN && p->config.broken != PLACEMENT_BROKEN_NEAR;
}

static enum placement_how how_now(const struct placement *p, const struct placement_vcpu *v,
				  uint64_t drawn)
{
	if (p->config.policy != PLACEMENT_LEARNED || p->learner_off || scatters(p, v))
		return PLACEMENT_HOW_BASE;
	if (drawn % CONTROL_SHARE == 0)
		return PLACEMENT_HOW_CONTROL;
	if (!placement_learner_ready(&p->learner) || drawn / CONTROL_SHARE % TRY_SHARE == 0)
		return PLACEMENT_HOW_TRY;
	return PLACEMENT_HOW_LEARNED;
}

void placement_choose(struct placement *p, uint32_t vcpu, uint16_t to, uint64_t now_ns)
{
	struct placement_vcpu *v = &p->vcpu[vcpu];
	struct placement_choice *choice = &v->choice;
	struct placement_record record = { .at_ns = now_ns,
					   .vcpu = vcpu,
					   .here = p->config.self,
					   .target = to,
					   .move_ns = placement_cost(p, v, to),
					   .lost_ns = -1 };
	double loss[PLACEMENT_ARMS];
	uint64_t drawn;

	if (choice->open)
		return;
	drawn = placement_mix(p->config.seed ^ ((uint64_t)vcpu << 48) ^ now_ns);
	placement_features(p, vcpu, to, now_ns, record.feature);
	predict(p, record.feature, loss);
	*choice = (struct placement_choice){ .open = true,
					     .holds = true,
					     .target = to,
					     .how = (uint8_t)how_now(p, v, drawn),
					     .begin_ns = now_ns,
					     .program = v->program };
	if (choice->how == PLACEMENT_HOW_TRY)
		choice->arm = (uint8_t)((drawn >> 32) % PLACEMENT_ARMS);
	else if (choice->how == PLACEMENT_HOW_LEARNED)
		choice->arm = (uint8_t)placement_arm_of(loss);
	memcpy(choice->feature, record.feature, sizeof(choice->feature));
	choice->expected_ns = (uint64_t)(loss[choice->arm] * PLACEMENT_HORIZON_NS);
	record.arm = choice->arm;
	record.how = choice->how;
	record.drawn = choice->how == PLACEMENT_HOW_CONTROL || choice->how == PLACEMENT_HOW_TRY;
	explain(p, &record, loss);
	p->stats.arm_count[choice->arm]++;
	choice->sequence = placement_record_add(p, &record);
}
