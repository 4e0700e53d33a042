/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPUID that the guest sees, from what the pod's hosts have in common. Pure.
 *
 * cpuid_common() folds the nodes' leaves (engine_features) into the least common; cpuid_for_guest()
 * then makes it the CPUID of this machine: x2APIC, hypervisor signature, topology, and nothing that
 * a pod does not have (PMU, kvmclock, PV IPIs, MONITOR, VMX/SVM, ...).
 */
#ifndef MACHINE_CPUID_H
#define MACHINE_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

struct cpuid_config {
	uint32_t vcpu_count;
	uint32_t tsc_khz;
	uint64_t xcr0;	   /* common to all nodes */
	bool tsc_deadline; /* all nodes have seen it exit */
};

/* Keeps in `leaf` what `other` has too. Returns the new count. */
uint32_t cpuid_common(struct cpuid_leaf *leaf, uint32_t count, const struct cpuid_leaf *other,
		      uint32_t other_count);

/* In place; returns the new count, at most CPUID_LEAVES_MAX, the size of `leaf`. */
uint32_t cpuid_for_guest(const struct cpuid_config *config, struct cpuid_leaf *leaf,
			 uint32_t count);

#endif
