/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's CPUID says: the least common denominator of all nodes' CPUs. Pure.
 *
 *   each node:  cpuid_offer()     what this host can offer: the policy table applied to KVM's list
 *   the pod:    cpuid_common()    folded over the nodes, in any order
 *               cpuid_finish()    topology of the whole pod, xsave sizes, hypervisor leaves
 *   each vCPU:  cpuid_for_vcpu()  its APIC id where leaves carry one (the engine does it)
 *
 * A feature that is not in the policy table is never offered, however new the host is.
 * Lists are sorted by (function, index), at most CPUID_LEAVES_MAX long.
 */
#ifndef VCPU_CPUID_H
#define VCPU_CPUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPUID_LEAVES_MAX 128

/*
 * ARCH_CAPABILITIES and XAPIC_DISABLE_STATUS as all hosts show them: the local APIC cannot leave
 * x2APIC mode (SDM vol. 3, 11.12.5), and nothing else is promised, so that guests take every
 * precaution. Read-only.
 */
#define MSR_INDEX_ARCH_CAPABILITIES    0x10au
#define MSR_INDEX_XAPIC_DISABLE_STATUS 0xbdu
#define ARCH_CAPABILITIES_VALUE	       (1u << 21)
#define XAPIC_DISABLE_STATUS_VALUE     1u

/* One CPUID leaf as the guest shall see it. */
struct cpuid_leaf {
	uint32_t function, index;
	uint8_t index_matters; /* the leaf has sub-leaves chosen by ECX */
	uint8_t reserved[3];
	uint32_t eax, ebx, ecx, edx;
};

struct cpuid_set {
	uint32_t count;
	struct cpuid_leaf leaf[CPUID_LEAVES_MAX];
};

/* Extended state that can be offered at all: x87, SSE, AVX, AVX-512 (three parts), PKRU. */
#define CPUID_XCR0_OFFERED 0x2e7ull

/* The leaf, or NULL. `index` is ignored for leaves without sub-leaves. */
const struct cpuid_leaf *cpuid_find(const struct cpuid_set *set, uint32_t function, uint32_t index);

/*
 * Reduces a host's raw leaves to what the policy lets through. tsc_deadline: writes of that MSR
 * exit here. -EINVAL: a leaf without which no x86-64 guest runs is missing, or there are too many.
 */
int cpuid_offer(const struct cpuid_leaf *raw, size_t raw_count, bool tsc_deadline,
		struct cpuid_set *ret_offer);

/*
 * *common := what both *common and *other offer. Commutative and associative up to the brand
 * string. -EXDEV: different vendors (AMD and Intel in one pod); -ENOTSUP: nothing useful is left.
 * Checks `other` as input from a peer; `why` gets one line for the user.
 */
int cpuid_common(struct cpuid_set *common, const struct cpuid_set *other, char *why,
		 size_t why_size);

/*
 * From a common offer to the pod's CPUID: one package with vcpu_count single-thread cores, x2APIC
 * id = vCPU number; cache leaves; xsave leaf; the KVM signature with the features that work across
 * nodes. Run once, on node 0; the result goes to all nodes. -EINVAL: vcpu_count 0 or above
 * VCPUS_MAX.
 */
int cpuid_finish(const struct cpuid_set *common, uint32_t vcpu_count, struct cpuid_set *ret_pod);

/* Whether a pod's CPUID asks for nothing that is not in this node's offer. `pod` is checked as
 * input from a peer. */
bool cpuid_within(const struct cpuid_set *pod, const struct cpuid_set *offer);

/* Patches the APIC id of vCPU `number` into the leaves that carry it. */
void cpuid_for_vcpu(const struct cpuid_set *pod, uint32_t number, struct cpuid_set *ret_set);

/* XCR0 that the leaves offer, guest-physical address bits, and whether a feature bit is there. */
uint64_t cpuid_xcr0(const struct cpuid_set *set);
uint32_t cpuid_physical_bits(const struct cpuid_set *set);
/* The bits of IA32_SPEC_CTRL that may be set; 0: no such MSR. */
uint64_t cpuid_spec_ctrl(const struct cpuid_set *set);
bool cpuid_has_tsc_deadline(const struct cpuid_set *set);

#endif
