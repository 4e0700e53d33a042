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
SYSTEM_CASE(privilege)
SYSTEM_CASE(compat)
SYSTEM_CASE(debug)
SYSTEM_CASE(interrupts)
SYSTEM_CASE(paging)
SYSTEM_CASE(code)
SYSTEM_CASE(features)

#define FEW "its emulator knows only part of 64-bit mode"

const struct test_case cases_system[] = {
	{ "system-exceptions", test_exceptions, FEW },
	{ "system-privilege", test_privilege, FEW },
	{ "system-compat", test_compat, FEW },
	{ "system-debug", test_debug, FEW },
	{ "system-interrupts", test_interrupts, FEW },
	{ "system-paging", test_paging, FEW },
	{ "system-code", test_code, FEW },
	{ "system-features", test_features, FEW },
	{ 0 },
};
