/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt messages, and which vCPUs one reaches. Pure.
 *
 * A struct interrupt is what leaves a local APIC (IPI) or a device (I/O APIC, MSI) before anyone
 * has decided who gets it. Every node routes it to the same vCPUs, since a vCPU's x2APIC id is its
 * number and its logical id follows from that (SDM vol. 3, 11.12.10.2).
 */
#ifndef CORE_INTERRUPT_ROUTE_H
#define CORE_INTERRUPT_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"

/* Delivery modes as the ICR, MSIs and redirection entries encode them (SDM vol. 3, 11.6.1). */
enum interrupt_mode {
	INTERRUPT_FIXED = 0,
	INTERRUPT_LOWEST = 1,
	INTERRUPT_SMI = 2,
	INTERRUPT_NMI = 4,
	INTERRUPT_INIT = 5,
	INTERRUPT_SIPI = 6,
	INTERRUPT_EXTINT = 7,
};

enum interrupt_shorthand {
	INTERRUPT_TO_DEST = 0,
	INTERRUPT_TO_SELF = 1,
	INTERRUPT_TO_ALL = 2,
	INTERRUPT_TO_OTHERS = 3,
};

#define INTERRUPT_SOURCE_DEVICE 0xffffffffu
#define INTERRUPT_BROADCAST	0xffffffffu

struct interrupt {
	uint32_t dest;	   /* x2APIC id; logical: cluster << 16 | members; INTERRUPT_BROADCAST */
	uint32_t source;   /* vCPU that sends, or INTERRUPT_SOURCE_DEVICE */
	uint8_t vector;	   /* fixed, lowest: 16..255; SIPI: page number of the start address */
	uint8_t mode;	   /* enum interrupt_mode */
	uint8_t shorthand; /* enum interrupt_shorthand; devices: INTERRUPT_TO_DEST */
	uint8_t logical;   /* 1: dest is logical */
	uint8_t level;	   /* 1: level-triggered, the EOI goes back to the I/O APIC */
	uint8_t reserved[3];
};

/* A set of vCPUs: vCPU v is bit v % 64 of word[v / 64]. */
#define VCPU_SET_WORDS (VCPUS_MAX / 64)
struct vcpu_set {
	uint64_t word[VCPU_SET_WORDS];
};

static inline bool vcpu_set_has(const struct vcpu_set *set, uint32_t vcpu)
{
	return vcpu < VCPUS_MAX && (set->word[vcpu / 64] >> (vcpu % 64) & 1);
}

/* The smallest member >= from, or VCPUS_MAX. for (v = next(s, 0); v < VCPUS_MAX; v = next(s, v +
 * 1)) */
uint32_t vcpu_set_next(const struct vcpu_set *set, uint32_t from);
uint32_t vcpu_set_count(const struct vcpu_set *set);

/*
 * The vCPUs of 0..vcpu_count-1 that `interrupt` reaches; the set may be empty (nobody there).
 * Lowest priority reaches one of those addressed, the same on every node: the one that the vector's
 * number hashes to. 0, or -EINVAL: a field is out of its range, or the combination is one that no
 * APIC sends (the bytes came from a peer: end the pod; from a guest: ignore). A fixed vector below
 * 16 is well-formed: the receiver ignores it.
 */
int interrupt_route(const struct interrupt *interrupt, uint32_t vcpu_count,
		    struct vcpu_set *ret_set);

#endif
