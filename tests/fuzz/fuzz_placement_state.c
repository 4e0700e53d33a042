// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the text of what a placement has learned (--policy-state). What is believed is written again
 * as it was read, and the learner goes on with it: a file may come from anybody.
 */
#include <stdlib.h>
#include <string.h>

#include "core/placement_learner.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct placement_learner learner, before;
	static const int8_t feature[PLACEMENT_FEATURES] = { 64, -128, 127, 1 };
	char text[PLACEMENT_STATE_BYTES];
	const char *reason;
	int length;

	placement_learner_init(&learner);
	before = learner;
	if (placement_learner_load(&learner, (const char *)data, size, &reason) < 0) {
		if (!reason || memcmp(&learner, &before, sizeof(learner)) != 0)
			abort();
		return 0;
	}
	length = placement_learner_save(&learner, text, sizeof(text));
	if (length < 0 || (size_t)length != size || memcmp(text, data, size) != 0)
		abort();
	for (int arm = 0; arm < PLACEMENT_ARMS; arm++) {
		double loss = placement_learner_loss(&learner, (enum placement_arm)arm, feature);

		if (!(loss >= 0 && loss <= PLACEMENT_LOSS_MAX))
			abort();
		placement_learner_learn(&learner, (enum placement_arm)arm, feature, 1.0);
	}
	return 0;
}
