/* SPDX-License-Identifier: Apache-2.0 */
/* The system guests, an image a concept: see system.h. Each as it is, and shaken. */
#include "tests/engine/cases.h"
#include "tests/engine/system.h"

#define SYSTEM_CASE(name)                                                                          \
	extern const struct system_image system_##name;                                            \
	static int test_##name(struct rig *rig)                                                    \
	{                                                                                          \
		return system_run(rig, &system_##name, false);                                     \
	}                                                                                          \
	static int shaken_##name(struct rig *rig)                                                  \
	{                                                                                          \
		return system_run(rig, &system_##name, true);                                      \
	}

SYSTEM_CASE(exceptions)
SYSTEM_CASE(privilege)
SYSTEM_CASE(compat)
SYSTEM_CASE(debug)
SYSTEM_CASE(interrupts)
SYSTEM_CASE(paging)
SYSTEM_CASE(code)
SYSTEM_CASE(features)
SYSTEM_CASE(protected)
SYSTEM_CASE(paging_32)
SYSTEM_CASE(v86)
SYSTEM_CASE(tasks)
SYSTEM_CASE(loops)
SYSTEM_CASE(stress)
SYSTEM_CASE(state)

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
	{ "system-protected", test_protected, FEW },
	{ "system-paging-32", test_paging_32, FEW },
	{ "system-v86", test_v86, FEW },
	{ "system-tasks", test_tasks, FEW },
	{ "system-loops", test_loops, FEW },
	{ "system-stress", test_stress, FEW },
	{ "system-state", test_state, FEW },
	{ "shaken-exceptions", shaken_exceptions, FEW },
	{ "shaken-privilege", shaken_privilege, FEW },
	{ "shaken-compat", shaken_compat, FEW },
	{ "shaken-debug", shaken_debug, FEW },
	{ "shaken-interrupts", shaken_interrupts, FEW },
	{ "shaken-paging", shaken_paging, FEW },
	{ "shaken-code", shaken_code, FEW },
	{ "shaken-features", shaken_features, FEW },
	{ "shaken-protected", shaken_protected, FEW },
	{ "shaken-paging-32", shaken_paging_32, FEW },
	{ "shaken-v86", shaken_v86, FEW },
	{ "shaken-tasks", shaken_tasks, FEW },
	{ "shaken-loops", shaken_loops, FEW },
	{ "shaken-stress", shaken_stress, FEW },
	{ "shaken-state", shaken_state, FEW },
	{ 0 },
};
