/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What placement learns: how much time a vCPU loses over the next horizon if the base rule's
 * threshold is as it is, or low. Pure.
 *
 * Two linear models of the same 16 features, one for each choice, fitted by recursive least
 * squares with forgetting; each outcome teaches the model of the choice that was made. Both choices
 * are tried at the same kind of moment, now and then at random, or the models could not be
 * compared. A sum of products explains itself: each feature's part of the difference between the two
 * choices is a number, and those numbers are the explanation.
 *
 * Doubles, but none that surprises: features are 8-bit numbers of 64ths, outcomes and weights are
 * clamped, a matrix that is no longer finite or too large starts anew, and nothing but + - * / is
 * done to them, so the same inputs give the same bits on every x86-64.
 *
 * One thread per struct. Tested in tests/core/test_placement_learner.c; docs/placement.md.
 */
#ifndef CORE_PLACEMENT_LEARNER_H
#define CORE_PLACEMENT_LEARNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a decision can know, all in 64ths, of -2 to just below 2. Order is part of the state file. */
enum placement_feature {
	PLACEMENT_ALWAYS,	/* 1 */
	PLACEMENT_OWNER_NOW,	/* the target's share of the stall time of the last 2 ms */
	PLACEMENT_OWNER_LATELY, /* the same of the last 50 ms */
	PLACEMENT_STALLED_NOW,	/* share of the last 2 ms that the vCPU was stalled */
	PLACEMENT_STALLED_LATELY,
	PLACEMENT_NEAR,	     /* share of recent stalls that came close to the one before */
	PLACEMENT_LEFT,	     /* share of recent stalls on pages of the node that it came from */
	PLACEMENT_WRITES,    /* share of recent stalls that wanted to write */
	PLACEMENT_SHARED,    /* share of recent stalls on pages that others have, too */
	PLACEMENT_STAY,	     /* age of the present stay: doublings of a move's cost */
	PLACEMENT_STAYS,     /* the same of the stays before, averaged */
	PLACEMENT_MOVES,     /* moves of lately, an eighth each */
	PLACEMENT_LOAD_HERE, /* vCPUs that are awake, for a core */
	PLACEMENT_LOAD_THERE,
	PLACEMENT_PROGRAM, /* what a low threshold has saved for the code that runs now */
	PLACEMENT_GAP,	   /* doublings of how long it runs from stall to stall, averaged */
	PLACEMENT_FEATURES,
};

#define PLACEMENT_FEATURE_ONE 64

/* One word each, for state files and explanations. */
const char *placement_feature_name(enum placement_feature feature);

enum placement_arm {
	PLACEMENT_ARM_BASE,  /* the base rule's threshold */
	PLACEMENT_ARM_EAGER, /* a quarter of it */
	PLACEMENT_ARMS,
};
const char *placement_arm_name(enum placement_arm arm);

/* Outcomes are shares of the horizon that were lost; more than this counts as this. */
#define PLACEMENT_LOSS_MAX 4.0

struct placement_model {
	double weight[PLACEMENT_FEATURES];
	double spread[PLACEMENT_FEATURES][PLACEMENT_FEATURES]; /* the inverse correlation matrix */
	uint32_t count;					       /* outcomes seen, saturating */
};

struct placement_learner {
	struct placement_model model[PLACEMENT_ARMS];
	uint32_t reset_count; /* how often a matrix had to start anew */
};

void placement_learner_init(struct placement_learner *learner);

/* What is lost with this choice, as a share of the horizon: 0..PLACEMENT_LOSS_MAX. */
double placement_learner_loss(const struct placement_learner *learner, enum placement_arm arm,
			      const int8_t feature[PLACEMENT_FEATURES]);

/* Both models have seen enough to be asked. */
bool placement_learner_ready(const struct placement_learner *learner);

/* The loss that followed. What is not a number is not learned. */
void placement_learner_learn(struct placement_learner *learner, enum placement_arm arm,
			     const int8_t feature[PLACEMENT_FEATURES], double loss);

/*
 * What was learned as text, for a file that the next start loads:
 *
 *     eagre placement state 1
 *     base COUNT always=N owner-now=N ...            weights in millionths
 *     eager COUNT always=N owner-now=N ...
 *     end
 *
 * Returns the length without the terminating zero; -ENOSPC if `size` is too small
 * (PLACEMENT_STATE_BYTES is enough).
 */
#define PLACEMENT_STATE_BYTES 2048u
int placement_learner_save(const struct placement_learner *learner, char *text, size_t size);

/*
 * Judged wholly before anything changes. -EINVAL: not such a text, or of another version, or it has
 * nonsense in it; *ret_reason is then one line for the user (a constant).
 */
int placement_learner_load(struct placement_learner *learner, const char *text, size_t length,
			   const char **ret_reason);

#endif
