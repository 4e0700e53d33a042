/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What executes vCPUs: `kvm` or `soft` behind one small interface. An engine knows nothing of nodes,
 * devices or the APIC: it runs a vCPU until something outside it is needed, and says what.
 *
 *   create VM -> add memory -> create vCPUs -> load state -> { run -> exit -> answer }* -> save state
 *
 * engine_vcpu_run() is called by the thread that owns the vCPU; engine_vcpu_kick() by any thread or a
 * signal handler. Everything else before the vCPU runs or while it is stopped.
 * Errors: 0 or negative errno; `why` (where given) is one line for the user, naming the remedy.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/vcpu_state.h"

enum engine_exit_kind {
	EXIT_IO,	/* port access: io; for reads the caller fills io.data before the next run */
	EXIT_MMIO,	/* physical address outside guest memory: mmio, likewise */
	EXIT_MSR_READ,	/* msr: set msr.value, or msr.fault to inject #GP, before the next run */
	EXIT_MSR_WRITE, /* msr: set msr.fault, or leave it 0 */
	EXIT_HLT,
	EXIT_WINDOW,	/* the vCPU can take an interrupt now (engine_vcpu_want_window()) */
	EXIT_KICKED,	/* engine_vcpu_kick(), or a signal */
	EXIT_SHUTDOWN,	/* triple fault */
	EXIT_FAILED,	/* the engine cannot go on: fail.reason, a static string; fail.detail */
};

struct engine_exit {
	enum engine_exit_kind kind;
	union {
		struct {
			uint16_t port;
			uint8_t size; /* 1, 2, 4 */
			uint8_t write;
			uint32_t count; /* string I/O: this many items in data, size bytes each */
			uint8_t *data;
		} io;
		struct {
			uint64_t gpa;
			uint8_t size; /* 1..8 */
			uint8_t write;
			uint8_t *data;
		} mmio;
		struct {
			uint32_t index;
			uint8_t fault;
			uint64_t value;
		} msr;
		struct {
			const char *reason;
			uint64_t detail;
		} fail;
	};
};

/* One CPUID leaf as the guest shall see it. */
struct cpuid_leaf {
	uint32_t function, index;
	uint8_t index_matters;
	uint8_t reserved[3];
	uint32_t eax, ebx, ecx, edx;
};
#define CPUID_LEAVES_MAX 128

struct engine_features {
	bool tsc_deadline;   /* writes of MSR 0x6e0 have been seen to exit */
	bool tsc_scaling;    /* engine_config.tsc_khz may differ from the host's */
	bool walks_write;    /* guest page-table walks count as writes (AMD, or Intel with eptad=1) */
	uint32_t tsc_khz;    /* of the host */
	uint64_t xcr0;	     /* extended state that can be offered */
	uint32_t leaf_count; /* CPUID this host can offer */
	struct cpuid_leaf leaf[CPUID_LEAVES_MAX];
};

struct engine_config {
	uint32_t vcpu_max;   /* vCPUs created on this node at most */
	uint32_t tsc_khz;    /* frequency of the guest's TSC */
	uint32_t leaf_count; /* CPUID of the pod: the least common of all nodes; APIC ids are patched in per vCPU */
	const struct cpuid_leaf *leaf;
};

struct engine;	    /* one VM */
struct engine_vcpu; /* one vCPU of it */

struct engine_ops {
	const char *name; /* "kvm", "soft" */
	/* Can this host run it, and with what? -ENODEV, -EACCES, -ENOTSUP with `why`. Creates nothing lasting. */
	int (*probe)(struct engine_features *ret_features, char *why, size_t why_size);
	int (*create)(const struct engine_config *config, struct engine **ret_engine, char *why, size_t why_size);
	void (*destroy)(struct engine *engine);
	/* Guest memory at gpa is host memory at hva. Ranges never overlap; stay until destroy. */
	int (*add_memory)(struct engine *engine, uint64_t gpa, void *hva, uint64_t bytes);

	int (*vcpu_create)(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu);
	void (*vcpu_destroy)(struct engine_vcpu *vcpu);
	/* Before the first run, by the thread that will run it. Arranges for kicks to that thread. */
	int (*vcpu_bind)(struct engine_vcpu *vcpu);
	int (*vcpu_load)(struct engine_vcpu *vcpu, const struct vcpu_state *state);
	int (*vcpu_save)(struct engine_vcpu *vcpu, struct vcpu_state *state); /* leaves state->lapic alone */
	/* Guest TSC := tsc now (the pod clock in TSC ticks). */
	int (*vcpu_set_tsc)(struct engine_vcpu *vcpu, uint64_t tsc);
	int (*vcpu_run)(struct engine_vcpu *vcpu, struct engine_exit *ret_exit);
	void (*vcpu_kick)(struct engine_vcpu *vcpu); /* any thread; the present or next run ends soon with EXIT_KICKED */
	/* Between runs, owner thread: */
	bool (*vcpu_can_interrupt)(struct engine_vcpu *vcpu); /* IF set, no shadow, nothing in injection */
	int (*vcpu_interrupt)(struct engine_vcpu *vcpu, uint8_t vector); /* only after vcpu_can_interrupt() */
	int (*vcpu_nmi)(struct engine_vcpu *vcpu);
	void (*vcpu_want_window)(struct engine_vcpu *vcpu, bool want);
	uint8_t (*vcpu_tpr)(struct engine_vcpu *vcpu); /* CR8 as the guest has it */
	void (*vcpu_set_tpr)(struct engine_vcpu *vcpu, uint8_t cr8);
	uint64_t (*vcpu_rip)(struct engine_vcpu *vcpu); /* for reports */
};

extern const struct engine_ops engine_kvm;

#endif
