// SPDX-License-Identifier: Apache-2.0
/* The learner: it learns, it explains itself, nothing makes its numbers bad, and its state is read
 * back as it was or refused. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/placement_learner.h"
#include "tests/rng.h"

static struct placement_learner learner, other;

static void draw(struct rng *rng, int8_t feature[PLACEMENT_FEATURES])
{
	for (int i = 0; i < PLACEMENT_FEATURES; i++)
		feature[i] = (int8_t)rng_below(rng, 65);
	feature[PLACEMENT_ALWAYS] = PLACEMENT_FEATURE_ONE;
}

/* A loss that is a sum of features, with noise. */
static double loss_of(struct rng *rng, enum placement_arm arm, const int8_t *feature)
{
	double near = feature[PLACEMENT_NEAR] / 64.0, gap = feature[PLACEMENT_GAP] / 64.0;
	double noise = ((double)rng_below(rng, 1000) / 1000 - 0.5) / 10;

	return (arm == PLACEMENT_ARM_EAGER ? 0.3 + near : 1.0 - 0.5 * gap) + noise;
}

static void learns(void **state)
{
	struct rng rng = { 1 };
	int8_t feature[PLACEMENT_FEATURES];
	uint32_t right = 0;

	placement_learner_init(&learner);
	assert_false(placement_learner_ready(&learner));
	for (int i = 0; i < 2000; i++) {
		enum placement_arm arm = (enum placement_arm)rng_below(&rng, PLACEMENT_ARMS);

		draw(&rng, feature);
		placement_learner_learn(&learner, arm, feature, loss_of(&rng, arm, feature));
	}
	assert_true(placement_learner_ready(&learner));
	for (int i = 0; i < 1000; i++) {
		double base, eager;

		draw(&rng, feature);
		base = placement_learner_loss(&learner, PLACEMENT_ARM_BASE, feature);
		eager = placement_learner_loss(&learner, PLACEMENT_ARM_EAGER, feature);
		right += (eager < base) == (0.3 + feature[PLACEMENT_NEAR] / 64.0 <
					    1 - feature[PLACEMENT_GAP] / 128.0);
	}
	assert_true(right > 930);
}

/* Not a number, infinities, the largest features, the same for ever: predictions stay finite. */
static void survives(void **state)
{
	static const double bad[] = { 0.0 / 0.0 * 1.0, 1e308, -1e308, 1e308 * 1e308, -0.0, 4, 0 };
	struct rng rng = { 2 };
	int8_t feature[PLACEMENT_FEATURES];

	placement_learner_init(&learner);
	for (int i = 0; i < 200000; i++) {
		enum placement_arm arm = (enum placement_arm)rng_below(&rng, PLACEMENT_ARMS);
		double loss;

		/* For long stretches the same vector, so that forgetting blows the matrix up. */
		if (i % 20000 == 0 || (i / 50000) % 2 == 0) {
			for (int k = 0; k < PLACEMENT_FEATURES; k++)
				feature[k] = (int8_t)(rng_next(&rng) >> 40);
		}
		placement_learner_learn(&learner, arm, feature, bad[rng_below(&rng, 7)]);
		loss = placement_learner_loss(&learner, arm, feature);
		assert_true(loss >= 0 && loss <= PLACEMENT_LOSS_MAX);
	}
	for (int arm = 0; arm < PLACEMENT_ARMS; arm++) {
		for (int i = 0; i < PLACEMENT_FEATURES; i++) {
			assert_true(learner.model[arm].weight[i] >= -64 &&
				    learner.model[arm].weight[i] <= 64);
			for (int k = 0; k < PLACEMENT_FEATURES; k++) {
				double s = learner.model[arm].spread[i][k];

				assert_true(s > -1e4 && s < 1e4);
				assert_true(s == learner.model[arm].spread[k][i]);
			}
		}
	}
	/* It did have to start anew, or this test shows nothing. */
	assert_true(learner.reset_count > 0);
	/* And what is no number is not learned. */
	other = learner;
	placement_learner_learn(&learner, PLACEMENT_ARM_BASE, feature, bad[0]);
	assert_memory_equal(&learner, &other, sizeof(other));
}

static void saved(void **state)
{
	static char text[PLACEMENT_STATE_BYTES], again[PLACEMENT_STATE_BYTES];
	const char *reason;
	struct rng rng = { 3 };
	int8_t feature[PLACEMENT_FEATURES];
	int length;

	placement_learner_init(&learner);
	for (int i = 0; i < 500; i++) {
		enum placement_arm arm = (enum placement_arm)rng_below(&rng, PLACEMENT_ARMS);

		draw(&rng, feature);
		placement_learner_learn(&learner, arm, feature, loss_of(&rng, arm, feature));
	}
	length = placement_learner_save(&learner, text, sizeof(text));
	assert_int_equal(length, strlen(text));
	for (int size = 0; size <= length; size++)
		assert_int_equal(placement_learner_save(&learner, again, (size_t)size), -ENOSPC);
	assert_int_equal(placement_learner_load(&other, text, (size_t)length, &reason), 0);
	assert_null(reason);
	assert_int_equal(placement_learner_save(&other, again, sizeof(again)), length);
	assert_string_equal(text, again);
	for (int i = 0; i < 100; i++) {
		double a, b;

		draw(&rng, feature);
		a = placement_learner_loss(&learner, PLACEMENT_ARM_EAGER, feature);
		b = placement_learner_loss(&other, PLACEMENT_ARM_EAGER, feature);
		assert_true(a - b < 1e-4 && b - a < 1e-4);
	}
}

static void refused(void **state)
{
	static char text[PLACEMENT_STATE_BYTES];
	static const char *const nonsense[] = { "", "eagre placement state 2\n",
						"eagre placement trace 1\n",
						"eagre placement state 1\nend\n",
						"eagre placement state 1\nbase 1 always=nan\n" };
	const char *reason;
	struct rng rng = { 4 };
	int length, loaded = 0;

	placement_learner_init(&learner);
	placement_learner_init(&other);
	length = placement_learner_save(&learner, text, sizeof(text));
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		reason = NULL;
		assert_int_equal(
			placement_learner_load(&other, nonsense[i], strlen(nonsense[i]), &reason),
			-EINVAL);
		assert_non_null(reason);
	}
	/* Every cut. */
	for (int i = 0; i < length; i++)
		assert_int_equal(placement_learner_load(&other, text, (size_t)i, &reason), -EINVAL);
	/* A byte changed: refused, or another number that is within bounds. */
	for (int i = 0; i < 20000; i++) {
		static char spoilt[PLACEMENT_STATE_BYTES];

		memcpy(spoilt, text, sizeof(text));
		spoilt[rng_below(&rng, (uint32_t)length)] = (char)rng_next(&rng);
		placement_learner_init(&other);
		if (placement_learner_load(&other, spoilt, (size_t)length, &reason) != 0) {
			assert_memory_equal(&other, &learner, sizeof(other));
			continue;
		}
		loaded++;
		for (int arm = 0; arm < PLACEMENT_ARMS; arm++) {
			for (int k = 0; k < PLACEMENT_FEATURES; k++)
				assert_true(other.model[arm].weight[k] >= -64 &&
					    other.model[arm].weight[k] <= 64);
		}
	}
	assert_true(loaded < 20000 / 10);
	/* Numbers beyond the bounds. */
	length = snprintf(text, sizeof(text), "eagre placement state 1\nbase 0 always=64000001");
	assert_int_equal(placement_learner_load(&other, text, (size_t)length, &reason), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(learns),
		cmocka_unit_test(survives),
		cmocka_unit_test(saved),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
