/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kvm engine's insides: what its files share. See vm.c for the idea.
 *
 *   vm.c     the VM, its memory, creating vCPUs, the ops table
 *   run.c    running, kicks, interrupts, exits
 *   state.c  struct vcpu_state <-> KVM
 *   msr.c    which MSRs exit, and what becomes of those nobody knows
 *   probe.c  can this host do it
 */
#ifndef ENGINE_KVM_KVM_H
#define ENGINE_KVM_KVM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/kvm.h>

#include "core/limits.h"
#include "engine/engine.h"

/* Newer than the headers of Debian 12. */
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif

#define KVM_TSC_TOLERANCE_PPM 250 /* KVM's own: up to that, it does not scale */
#define KVM_TSC_ROOM_PPM      100 /* for what the host's oscillator wanders */

struct engine {
	int kvm_fd, vm_fd;
	uint32_t tsc_khz; /* the guest's */
	uint32_t kvm_khz; /* what KVM takes the host's for */
	bool tsc_scales;
	uint32_t syncs; /* KVM_SYNC_X86_ of what an entry brings in and out: all three, or 0 */
	uint32_t slot_count;
	uint32_t run_bytes; /* mapping of struct kvm_run */
	struct cpuid_set cpuid;
	uint16_t xsave_offset[VCPU_XSAVE_PARTS]; /* in this host's layout; 0: the host has no such
						    part */
	/* KVM keeps a vCPU as long as its VM, so a destroyed one waits here for its return. */
	struct engine_vcpu *parked[VCPUS_MAX];
};

struct engine_vcpu {
	struct engine *engine;
	uint32_t number;
	int fd;
	struct kvm_run *run;
	uint64_t msr_known;	      /* bit n: this host has enum vcpu_msr n */
	uint64_t msr[VCPU_MSR_COUNT]; /* as KVM has them; the hot ones (msr.c) only if: */
	bool msr_hot_known;	      /* it has not run since they were read or written */
	uint32_t khz;		      /* of its TSC, as KVM was told last */
	struct engine_exit *exit;     /* whose question is open: NULL, or as passed to run */
	struct engine_exit stashed;
	bool has_stashed;   /* an exit that came up while saving */
	bool ready;	    /* for KVM_INTERRUPT */
	_Atomic int kicked; /* set by kick, cleared by run; goes with run->immediate_exit (run.c) */
	_Atomic pid_t thread; /* who runs it; 0: nobody */
};

/* run.c */
int kvm_kick_signal_install(void);
int kvm_vcpu_bind(struct engine_vcpu *vcpu);
int kvm_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *exit);
/* Ends the instruction of the last exit without running on. -EAGAIN: it has another question. */
int kvm_vcpu_finish_exit(struct engine_vcpu *vcpu);
/* As if the last exit had never been: its instruction must not end in what is loaded next. */
int kvm_vcpu_drop_exit(struct engine_vcpu *vcpu);
/*
 * An entry that takes in what is in run->s.regs (bits KVM_SYNC_X86_) and runs nothing; it ends the
 * instruction of the last exit, if there is one. -EAGAIN: that has another question.
 */
int kvm_vcpu_enter_with(struct engine_vcpu *vcpu, uint32_t dirty);
void kvm_vcpu_kick(struct engine_vcpu *vcpu);
bool kvm_vcpu_can_interrupt(struct engine_vcpu *vcpu);
int kvm_vcpu_interrupt(struct engine_vcpu *vcpu, uint8_t vector);
int kvm_vcpu_nmi(struct engine_vcpu *vcpu);
void kvm_vcpu_want_window(struct engine_vcpu *vcpu, bool want);

/* state.c */
int kvm_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *state);
int kvm_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *state);
uint64_t kvm_vcpu_rip(struct engine_vcpu *vcpu);
uint64_t kvm_vcpu_cr3(struct engine_vcpu *vcpu);
void kvm_xsave_layout(uint16_t ret_offset[VCPU_XSAVE_PARTS]);

/* msr.c */
int kvm_msr_exits_enable(int vm_fd);
/* Finds out which of enum vcpu_msr this host has, and what is in them. */
void kvm_msr_find(struct engine_vcpu *vcpu);
int kvm_msr_save(struct engine_vcpu *vcpu, struct vcpu_state *state);
int kvm_msr_load(struct engine_vcpu *vcpu, const struct vcpu_state *state);
int kvm_msr_tsc_adjust(struct engine_vcpu *vcpu, uint64_t *ret_adjust);
/* Does a read or write that has left the guest and is not the caller's; true: it faults. */
bool kvm_msr_faults(struct engine_vcpu *vcpu, uint32_t index, bool write, uint64_t *value);

/* vm.c */
int kvm_engine_create(const struct engine_config *config, struct engine **ret_engine, char *why,
		      size_t why_size);
void kvm_engine_destroy(struct engine *engine);
int kvm_engine_add_memory(struct engine *engine, uint64_t gpa, void *hva, uint64_t bytes);
int kvm_vcpu_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu);
void kvm_vcpu_destroy(struct engine_vcpu *vcpu);
/* The kHz to tell KVM for a ratio of tsc_ratio(), and that function's pure part. */
uint32_t kvm_tsc_khz_for(uint64_t ratio, uint32_t kvm_khz);
uint64_t kvm_tsc_nearest(uint64_t wanted, uint32_t kvm_khz, bool scales, uint32_t ratio_bits);

/* probe.c */
enum kvm_vendor { KVM_VENDOR_NONE, KVM_VENDOR_AMD, KVM_VENDOR_INTEL };
/* By the CPU's own flags: svm, vmx, or neither. */
enum kvm_vendor kvm_host_vendor(void);
int kvm_probe(struct engine_features *ret_features, char *why, size_t why_size);
/* Opens /dev/kvm and checks everything but a real guest. The fd, or negative errno with `why`. */
int kvm_open_checked(char *why, size_t why_size);
/* What KVM takes the host's TSC for, in kHz, or negative errno. */
int kvm_read_tsc_khz(int fd);

#endif
