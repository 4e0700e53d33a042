// SPDX-License-Identifier: Apache-2.0
/*
 * Recursive least squares for two choices. The idea is in the header.
 *
 * An outcome (x, loss) changes weights w and the matrix P of its choice:
 *
 *     g = P x / (f + x'P x)        how much this outcome counts
 *     w = w + g (loss - w'x)
 *     P = (P - g x'P) / f          f: forgetting, slightly below 1
 *
 * Forgetting lets P grow where nothing new is seen (a feature that never changes), for ever if it
 * is let: so a P whose diagonal has grown too large, or that is not finite, starts anew, and the
 * weights stay. Only the upper half is computed and mirrored, so P cannot lose its symmetry.
 */
#include "core/placement_learner.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FORGET	     0.998
#define SPREAD_START 1.0
#define SPREAD_MAX   1e4
#define WEIGHT_MAX   64.0
#define COUNT_READY  8u
#define COUNT_MAX    1000000u
#define MILLION	     1000000

static const char *const feature_name[PLACEMENT_FEATURES] = {
	[PLACEMENT_ALWAYS] = "always",
	[PLACEMENT_OWNER_NOW] = "owner-now",
	[PLACEMENT_OWNER_LATELY] = "owner-lately",
	[PLACEMENT_STALLED_NOW] = "stalled-now",
	[PLACEMENT_STALLED_LATELY] = "stalled-lately",
	[PLACEMENT_NEAR] = "near",
	[PLACEMENT_LEFT] = "left",
	[PLACEMENT_WRITES] = "writes",
	[PLACEMENT_SHARED] = "shared",
	[PLACEMENT_STAY] = "stay",
	[PLACEMENT_STAYS] = "stays",
	[PLACEMENT_MOVES] = "moves",
	[PLACEMENT_LOAD_HERE] = "load-here",
	[PLACEMENT_LOAD_THERE] = "load-there",
	[PLACEMENT_PROGRAM] = "program",
	[PLACEMENT_GAP] = "gap",
};
static const char *const arm_name[PLACEMENT_ARMS] = {
	[PLACEMENT_ARM_BASE] = "base",
	[PLACEMENT_ARM_EAGER] = "eager",
};

const char *placement_feature_name(enum placement_feature feature)
{
	return (unsigned int)feature < PLACEMENT_FEATURES ? feature_name[feature] : "?";
}

const char *placement_arm_name(enum placement_arm arm)
{
	return (unsigned int)arm < PLACEMENT_ARMS ? arm_name[arm] : "?";
}

/* Also what is not a number becomes `low`. */
static double clamp(double value, double low, double high)
{
	if (!(value > low))
		return low;
	return value < high ? value : high;
}

static void spread_reset(struct placement_model *model)
{
	memset(model->spread, 0, sizeof(model->spread));
	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		model->spread[i][i] = SPREAD_START;
}

void placement_learner_init(struct placement_learner *learner)
{
	memset(learner, 0, sizeof(*learner));
	for (int arm = 0; arm < PLACEMENT_ARMS; arm++)
		spread_reset(&learner->model[arm]);
}

static double dot(const double *a, const double *b)
{
	double sum = 0;

	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		sum += a[i] * b[i];
	return sum;
}

static void features_of(const int8_t feature[PLACEMENT_FEATURES], double x[PLACEMENT_FEATURES])
{
	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		x[i] = feature[i] * (1.0 / PLACEMENT_FEATURE_ONE);
}

double placement_learner_loss(const struct placement_learner *learner, enum placement_arm arm,
			      const int8_t feature[PLACEMENT_FEATURES])
{
	double x[PLACEMENT_FEATURES];

	features_of(feature, x);
	return clamp(dot(learner->model[arm].weight, x), 0, PLACEMENT_LOSS_MAX);
}

bool placement_learner_ready(const struct placement_learner *learner)
{
	for (int arm = 0; arm < PLACEMENT_ARMS; arm++) {
		if (learner->model[arm].count < COUNT_READY)
			return false;
	}
	return true;
}

void placement_learner_learn(struct placement_learner *learner, enum placement_arm arm,
			     const int8_t feature[PLACEMENT_FEATURES], double loss)
{
	struct placement_model *model = &learner->model[arm];
	double x[PLACEMENT_FEATURES], px[PLACEMENT_FEATURES];

	if (loss != loss)
		return;
	loss = clamp(loss, 0, PLACEMENT_LOSS_MAX);
	features_of(feature, x);
	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		px[i] = dot(model->spread[i], x);
	double scale = 1.0 / (FORGET + clamp(dot(px, x), 0, 1e9));
	double error = loss - dot(model->weight, x);
	bool bad = false;

	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		model->weight[i] =
			clamp(model->weight[i] + px[i] * scale * error, -WEIGHT_MAX, WEIGHT_MAX);
	for (int i = 0; i < PLACEMENT_FEATURES; i++) {
		for (int j = i; j < PLACEMENT_FEATURES; j++) {
			double value =
				(model->spread[i][j] - px[i] * scale * px[j]) * (1.0 / FORGET);

			/* Written so that what is not a number is bad, too. */
			bad |= !(value > -SPREAD_MAX && value < SPREAD_MAX);
			model->spread[i][j] = value;
			model->spread[j][i] = value;
		}
		bad |= !(model->spread[i][i] > 0);
	}
	if (bad) {
		spread_reset(model);
		learner->reset_count++;
	}
	if (model->count < COUNT_MAX)
		model->count++;
}

/* To the nearest, so that a text that was read is written as it was. */
static int millionths(double weight)
{
	return (int)(weight * MILLION + (weight < 0 ? -0.5 : 0.5));
}

int placement_learner_save(const struct placement_learner *learner, char *text, size_t size)
{
	size_t at = 0;

#define PUT(...)                                                                                   \
	do {                                                                                       \
		int put = snprintf(text + at, size - at, __VA_ARGS__);                             \
		if (put < 0 || (size_t)put >= size - at)                                           \
			return -ENOSPC;                                                            \
		at += (size_t)put;                                                                 \
	} while (0)
	PUT("eagre placement state 1\n");
	for (int arm = 0; arm < PLACEMENT_ARMS; arm++) {
		PUT("%s %u", arm_name[arm], learner->model[arm].count);
		for (int i = 0; i < PLACEMENT_FEATURES; i++)
			PUT(" %s=%d", feature_name[i], millionths(learner->model[arm].weight[i]));
		PUT("\n");
	}
	PUT("end\n");
#undef PUT
	return (int)at;
}

struct reader {
	const char *at, *end;
};

/* The text goes on with `word`: passes it. */
static bool pass(struct reader *reader, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
		return false;
	reader->at += length;
	return true;
}

/* A decimal number of at most `limit` either way, in its one form. */
static bool pass_number(struct reader *reader, int64_t limit, int64_t *ret_value)
{
	bool negative = pass(reader, "-");
	const char *first = reader->at;
	int64_t value = 0;

	while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') {
		value = value * 10 + (*reader->at++ - '0');
		if (value > limit)
			return false;
	}
	if (reader->at == first || (*first == '0' && (reader->at - first > 1 || negative)))
		return false;
	*ret_value = negative ? -value : value;
	return true;
}

int placement_learner_load(struct placement_learner *learner, const char *text, size_t length,
			   const char **ret_reason)
{
	struct reader reader = { text, text + length };
	struct placement_learner loaded;
	int64_t value;

	placement_learner_init(&loaded);
	*ret_reason = "this is not the state of a placement";
	if (!pass(&reader, "eagre placement state "))
		return -EINVAL;
	*ret_reason = "the placement's state is of another version";
	if (!pass(&reader, "1\n"))
		return -EINVAL;
	*ret_reason = "the placement's state has nonsense in it, or is cut off";
	for (int arm = 0; arm < PLACEMENT_ARMS; arm++) {
		struct placement_model *model = &loaded.model[arm];

		if (!pass(&reader, arm_name[arm]) || !pass(&reader, " ") ||
		    !pass_number(&reader, COUNT_MAX, &value) || value < 0)
			return -EINVAL;
		model->count = (uint32_t)value;
		for (int i = 0; i < PLACEMENT_FEATURES; i++) {
			if (!pass(&reader, " ") || !pass(&reader, feature_name[i]) ||
			    !pass(&reader, "=") ||
			    !pass_number(&reader, (int64_t)(WEIGHT_MAX * MILLION), &value))
				return -EINVAL;
			model->weight[i] = (double)value / MILLION;
		}
		if (!pass(&reader, "\n"))
			return -EINVAL;
	}
	if (!pass(&reader, "end\n") || reader.at != reader.end)
		return -EINVAL;
	*learner = loaded;
	*ret_reason = NULL;
	return 0;
}
