/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test cases of engine-test, a file and a table for each concept. A case gets an open rig of
 * its own and returns 0, -1 (after a message), or skip().
 */
#ifndef TESTS_ENGINE_CASES_H
#define TESTS_ENGINE_CASES_H

#include "tests/engine/rig.h"

#define SKIPPED 1

struct test_case {
	const char *name; /* NULL ends a table */
	int (*run)(struct rig *rig);
	/* What an emulating /dev/kvm cannot do that this needs, or NULL: such run in the rack. */
	const char *emulated;
};

extern const struct test_case cases_machine[]; /* modes, I/O, MSR exits, CPUID */
extern const struct test_case cases_event[];   /* interrupts, NMI, SIPI, shutdown */
extern const struct test_case cases_state[];   /* load, save, move */
extern const struct test_case cases_msr[];     /* which MSRs there are */
extern const struct test_case cases_kick[];
extern const struct test_case cases_tsc[];
extern const struct test_case cases_smp[];    /* two vCPUs */
extern const struct test_case cases_system[]; /* exceptions, paging, privilege, ...: system.h */

/* `reason` is static. */
static inline int skip(struct rig *rig, const char *reason)
{
	rig->skip_reason = reason;
	return SKIPPED;
}

#endif
