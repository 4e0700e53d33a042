/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc_khz: prints the frequency of this machine's TSC, in kHz.
 *
 * An emulated host's TSC is this machine's, but its kernel can only guess the frequency, and
 * guesses badly when the machine is busy: by a factor of three was seen, and its clock then runs
 * three times too fast. So the rack measures it here (engine/tsc_rate.h) and tells the kernels
 * (tsc_early_khz).
 */
#include <stdio.h>

#include "engine/tsc_rate.h"

int main(void)
{
	struct tsc_rate rate;
	char why[256];

	if (tsc_rate_measure(0, &rate, why, sizeof(why)) < 0) {
		fprintf(stderr, "tsc_khz: %s\n", why);
		return 1;
	}
	printf("%u\n", rate.khz);
	return 0;
}
