/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The complete architectural state of a vCPU, whatever engine runs it, local APIC included.
 *
 * This is what a move carries. It has no pointers and nothing of a host: wire/vcpu_image.h turns it
 * into its compact form and back. Owned by the thread that runs the vCPU, or by whoever stopped it.
 */
#ifndef VCPU_VCPU_STATE_H
#define VCPU_VCPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

/* Order of KVM's and the SDM's encoding: rax rcx rdx rbx rsp rbp rsi rdi r8..r15. */
enum vcpu_gpr {
	GPR_RAX,
	GPR_RCX,
	GPR_RDX,
	GPR_RBX,
	GPR_RSP,
	GPR_RBP,
	GPR_RSI,
	GPR_RDI,
	GPR_COUNT = 16
};

enum vcpu_segment { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

struct vcpu_segment_state {
	uint64_t base;
	uint32_t limit; /* in bytes, granularity applied */
	uint16_t selector;
	uint16_t attributes; /* type:4 s:1 dpl:2 p:1 0:4 avl:1 l:1 db:1 g:1 (SDM vol. 3, 24.4.1) */
	uint8_t unusable;
	uint8_t reserved[7];
};

struct vcpu_table_state {
	uint64_t base;
	uint16_t limit;
	uint16_t reserved[3];
};

/*
 * MSRs that are state of their own (not part of a segment or of the APIC). The list and its order
 * are the protocol's: add at the end, and raise VCPU_IMAGE_VERSION. vcpu_msr_index[] in
 * vcpu_state.c has their numbers.
 */
enum vcpu_msr {
	MSR_STAR,
	MSR_LSTAR,
	MSR_CSTAR,
	MSR_SFMASK,
	MSR_KERNEL_GS_BASE,
	MSR_SYSENTER_CS,
	MSR_SYSENTER_ESP,
	MSR_SYSENTER_EIP,
	MSR_PAT,
	MSR_TSC_AUX,
	MSR_MISC_ENABLE,
	MSR_SPEC_CTRL,
	MSR_MTRR_DEF_TYPE,
	MSR_XSS,
	MSR_TSC_ADJUST,
	MSR_DEBUGCTL,
	MSR_VIRT_SPEC_CTRL,
	MSR_MISC_FEATURES,
	MSR_HWCR,
	MSR_MTRR_FIXED,				 /* 11 of them: 64K, 16K x 2, 4K x 8 */
	MSR_MTRR_VARIABLE = MSR_MTRR_FIXED + 11, /* 8 pairs of base and mask */
	VCPU_MSR_COUNT = MSR_MTRR_VARIABLE + 16,
};

/* What the vCPU is doing (x86 MP initialisation, SDM vol. 3, 9.4). */
enum vcpu_run_state {
	VCPU_WAIT_FOR_SIPI, /* after INIT, or from the start on all but the first */
	VCPU_RUNNABLE,
	VCPU_HALTED, /* in HLT: runs again at an interrupt, NMI, INIT */
};

/* Local APIC, x2APIC mode registers only (SDM vol. 3, 11.12). Timer times are pod clock. */
struct lapic_state {
	uint32_t id; /* x2APIC id = vCPU number; LDR follows from it */
	uint32_t tpr, svr, esr, esr_pending;
	uint32_t lvt_timer, lvt_thermal, lvt_perf, lvt_lint0, lvt_lint1, lvt_error, lvt_cmci;
	uint32_t timer_initial, timer_divide;
	uint64_t timer_start_ns;    /* pod clock when timer_initial was written */
	uint64_t timer_deadline_ns; /* pod clock of the next expiry; UINT64_MAX: not armed */
	uint64_t tsc_deadline;	    /* MSR 0x6e0 as the guest wrote it */
	uint64_t icr;
	uint64_t irr[4], isr[4], tmr[4]; /* bit v of the 256: irr[v / 64] >> (v % 64) */
	uint64_t extint[4];		 /* vectors of the i8259's, which it has in service */
	uint8_t nmi_pending, init_pending, sipi_pending, sipi_vector;
	uint8_t enabled; /* APIC base MSR bit 11 */
	uint8_t x2apic;	 /* APIC base MSR bit 10 */
	uint8_t bsp;
	uint8_t reserved;
};

/*
 * Extended state: standard (not compacted) XSAVE format with each part at the place where Intel has
 * it, whatever the host's own layout is (AMD's differs), so that it means the same on every node.
 *
 *      0 x87, SSE (legacy area)        512 header: XSTATE_BV, zeroes
 *    576 AVX (high halves of YMM)     1088 AVX-512 opmask       1152 high halves of ZMM0..15
 *   1664 ZMM16..31                    2688 PKRU, 8 bytes
 *
 * Parts whose XSTATE_BV bit is clear are in their initial state, whatever their bytes are. MXCSR
 * (byte 24) always counts.
 */
#define VCPU_XSAVE_BYTES 2752u
#define VCPU_XSAVE_PARTS 10u /* bits of XSTATE_BV that can be set */

struct vcpu_xsave_part {
	uint16_t offset, size; /* 0, 0: not a part that a guest can have */
};

struct vcpu_state {
	uint64_t gpr[GPR_COUNT];
	uint64_t rip, rflags;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
	uint64_t dr[4], dr6, dr7;
	uint64_t pdptr[4]; /* loaded PAE page-directory pointers, if pdptr_valid */
	struct vcpu_segment_state segment[SEG_COUNT];
	struct vcpu_table_state gdt, idt;
	uint64_t msr[VCPU_MSR_COUNT];

	/*
	 * Events in delivery (KVM API 4.31; SDM vol. 3, 24.8.3). INT n, INT3 and INTO are not among
	 * them: while they are delivered rip is still theirs, so they are begun anew.
	 */
	uint8_t exception_pending, exception_injected, exception_vector, exception_has_error_code;
	uint32_t exception_error_code;
	uint64_t exception_payload;
	uint8_t exception_has_payload;
	uint8_t interrupt_injected, interrupt_vector;
	uint8_t interrupt_shadow; /* bit 0: by STI, bit 1: by MOV SS */
	uint8_t nmi_injected, nmi_masked;
	uint8_t nmi_pending; /* NMIs that wait inside the engine, 0..2 */
	uint8_t pdptr_valid;
	uint8_t run_state; /* enum vcpu_run_state */
	uint8_t reserved;
	/*
	 * Bits of DR6 that a load of SS has led to, which holds them back until the instruction
	 * behind it is through: only with its shadow (SDM vol. 3, 6.8.3).
	 */
	uint16_t debug_held;
	/*
	 * CS of x87's last instruction, which its 64-bit format in `xsave` has no place for. Hosts'
	 * kernels keep that format, so kvm's guests lose it at any time, and those of soft there.
	 */
	uint16_t x87_cs;

	struct lapic_state lapic;
	_Alignas(64) uint8_t xsave[VCPU_XSAVE_BYTES];
};

extern const struct vcpu_xsave_part vcpu_xsave_parts[VCPU_XSAVE_PARTS];
extern const uint32_t vcpu_msr_index[VCPU_MSR_COUNT]; /* enum vcpu_msr -> MSR number */

/*
 * Power-on state of vCPU `number`, as firmware would hand it over where the architecture leaves no
 * choice to a system without firmware: x2APIC on, MTRRs on with write-back as default. Number 0 is
 * the boot processor and runnable; the others wait for SIPI.
 */
void vcpu_state_reset(struct vcpu_state *state, uint32_t number);

/* The MSRs of that state alone. */
void vcpu_msr_reset(uint64_t ret_msr[VCPU_MSR_COUNT]);

/*
 * INIT (SDM vol. 3, table 9-1): what survives it (MSRs, extended state, APIC base and id, TSC)
 * stays. The vCPU then waits for SIPI, or, as boot processor, starts at the reset vector.
 */
void vcpu_state_init(struct vcpu_state *state);

/* Start at vector << 12 in real mode. Ignored (false) unless the vCPU waits for SIPI. */
bool vcpu_state_sipi(struct vcpu_state *state, uint8_t vector);

/*
 * Clears XSTATE_BV's bit, and the bytes, of every part that is in its initial state: CPUs may say
 * that a part is in use when it is not. MXCSR counts for itself and stays.
 */
void vcpu_state_trim_extended(struct vcpu_state *state);

/*
 * Is this a state that some x86-64 CPU could be in? Checked before an image of a peer is loaded.
 * -EINVAL with *ret_why (static) otherwise.
 */
int vcpu_state_check(const struct vcpu_state *state, const char **ret_why);

#endif
