/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes coh_message(): one node's core among hostile peers; tests/sim/hostile.c has the rules. */
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/hostile.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hostile_count count = { 0 };

	hostile_run(data, size, &count);
	return 0;
}
