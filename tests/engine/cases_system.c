/* SPDX-License-Identifier: Apache-2.0 */
/* The system guests, an image a concept: see system.h. */
#include "tests/engine/cases.h"
#include "tests/engine/system.h"

#define SYSTEM_CASE(name)                                                                          \
	extern const struct system_image system_##name;                                            \
	static int test_##name(struct rig *rig)                                                    \
	{                                                                                          \
		return system_run(rig, &system_##name);                                            \
	}

SYSTEM_CASE(exceptions)

#define FEW "its emulator knows only part of 64-bit mode"

const struct test_case cases_system[] = {
	{ "exceptions", test_exceptions, FEW },
	{ 0 },
};
