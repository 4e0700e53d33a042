/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The soft engine's insides: what its files share. docs/soft.md has the architecture.
 *
 *   vm.c             the engine: creating, memory, the ops table
 *   vcpu.c           running, exits, events
 *   state.c          struct vcpu_state <-> vCPU
 *   probe.c          can this host do it
 *   signal.c         what the host's CPU reports; kicks
 *   pause.c          holding other vCPUs for a moment
 *
 *   mmu.c            page walks, TLB
 *   mmu_legacy.c     page walks without long mode
 *   access.c         guest memory for C
 *   segment.c        segment registers and descriptors
 *   exception.c      faults, interrupts and their delivery
 *   exception_protected.c  the same in protected mode without long mode
 *   new_stack.c      the stack of the level that a gate leads to
 *   msr.c            the values of model-specific registers
 *   debug.c          breakpoints
 *
 *   decode.c         Zydis
 *   encode.c         instructions re-encoded for the host
 *   step.c           one instruction by C; its handlers are in
 *   step/control.c     near jumps, calls and returns; their table
 *   step/far.c         far ones
 *   step/stack.c       PUSH, POP and their kin
 *   step/interrupt.c   INT, IRET
 *   step/exec.c        what the host's CPU executes
 *   step/fault.c       which of its faults comes first
 *   step/string.c      MOVS and its kin, INS, OUTS
 *   step/legacy.c      what 64-bit mode has no more
 *   step/system.c      the table of system instructions; the small ones
 *   step/registers.c   control and debug registers
 *   step/descriptor.c  descriptor tables and selectors
 *   step/msr.c         RDMSR, WRMSR, CPUID, RDTSC
 *   step/syscall.c     SYSCALL, SYSENTER and back, SWAPGS, bases of FS and GS
 *   step/port.c        IN, OUT, HLT
 *   step/xsave.c       XSAVE and its family, XCR0
 *
 *   translate*.c     blocks of instructions into host code
 *   block.c          the code cache
 *   code_page.c      guest pages that hold translated code
 *   stubs.S          into host code and out of it
 *
 * Threads: a vCPU belongs to the thread that runs it. Others touch `stop`, `kicked` and what
 * `struct engine` guards by its lock. Nobody holds that lock while touching guest memory.
 *
 * Everything but the Zydis calls is compiled without vector instructions, so that the guest's
 * vector state may stay in the host's registers while C runs (soft_fpu_release()).
 */
#ifndef ENGINE_SOFT_SOFT_H
#define ENGINE_SOFT_SOFT_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "engine/engine.h"
#include "engine/soft/cache/layout.h"

#define BIT64(n) (1ull << (n))

#define CR0_PE BIT64(0)
#define CR0_MP BIT64(1)
#define CR0_EM BIT64(2)
#define CR0_TS BIT64(3)
#define CR0_ET BIT64(4)
#define CR0_NE BIT64(5)
#define CR0_WP BIT64(16)
#define CR0_AM BIT64(18)
#define CR0_NW BIT64(29)
#define CR0_CD BIT64(30)
#define CR0_PG BIT64(31)

#define CR4_TSD	       BIT64(2)
#define CR4_DE	       BIT64(3)
#define CR4_PSE	       BIT64(4)
#define CR4_PAE	       BIT64(5)
#define CR4_PGE	       BIT64(7)
#define CR4_OSFXSR     BIT64(9)
#define CR4_OSXMMEXCPT BIT64(10)
#define CR4_UMIP       BIT64(11)
#define CR4_FSGSBASE   BIT64(16)
#define CR4_PCIDE      BIT64(17)
#define CR4_OSXSAVE    BIT64(18)
#define CR4_SMEP       BIT64(20)
#define CR4_SMAP       BIT64(21)

#define EFER_SCE   BIT64(0)
#define EFER_LME   BIT64(8)
#define EFER_LMA   BIT64(10)
#define EFER_NXE   BIT64(11)
#define EFER_FFXSR BIT64(14)

#define FLAG_CF		 BIT64(0)
#define FLAG_PF		 BIT64(2)
#define FLAG_AF		 BIT64(4)
#define FLAG_ZF		 BIT64(6)
#define FLAG_SF		 BIT64(7)
#define DR6_STEP	 (1u << 14)
#define FLAG_TF		 BIT64(8)
#define FLAG_IF		 BIT64(9)
#define FLAG_DF		 BIT64(10)
#define FLAG_OF		 BIT64(11)
#define FLAG_IOPL	 (3ull << 12)
#define FLAG_NT		 BIT64(14)
#define FLAG_RF		 BIT64(16)
#define FLAG_VM		 BIT64(17)
#define FLAG_AC		 BIT64(18)
#define FLAG_VIF	 BIT64(19)
#define FLAG_VIP	 BIT64(20)
#define FLAG_ID		 BIT64(21)
#define FLAGS_ARITHMETIC (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
/* Those that live in the host's register while guest code runs. */
#define FLAGS_HOST   (FLAGS_ARITHMETIC | FLAG_DF)
#define FLAGS_SYSTEM (FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_ID)

#define ATTRIBUTE_TYPE	  0xfu
#define ATTRIBUTE_S	  0x10u
#define ATTRIBUTE_DPL(a)  ((a) >> 5 & 3u)
#define ATTRIBUTE_PRESENT 0x80u
#define ATTRIBUTE_LONG	  0x2000u
#define ATTRIBUTE_BIG	  0x4000u
#define ATTRIBUTE_GRAN	  0x8000u

/* Of error codes that name a selector. */
#define ERROR_IDT 2u

enum soft_vector {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_NMI = 2,
	VECTOR_BP = 3,
	VECTOR_OF = 4,
	VECTOR_BR = 5,
	VECTOR_UD = 6,
	VECTOR_NM = 7,
	VECTOR_DF = 8,
	VECTOR_TS = 10,
	VECTOR_NP = 11,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_MF = 16,
	VECTOR_AC = 17,
	VECTOR_XM = 19,
};

/*
 * How C code of the engine ends what it does for the guest. Negative errno never appears here.
 *
 * SOFT_FAULT: vcpu->fault is to be delivered. SOFT_EXIT: vcpu->pending is for the caller of run.
 * SOFT_AGAIN: a signal broke off an access; nothing of the instruction has happened that cannot
 * happen again.
 */
enum { SOFT_OK, SOFT_FAULT, SOFT_EXIT, SOFT_AGAIN };

/* Who accesses memory: chooses the TLB. */
enum soft_view {
	VIEW_USER,
	VIEW_KERNEL,	  /* user pages are out of bounds (SMAP), or there are no such rules */
	VIEW_KERNEL_USER, /* SMAP lifted by RFLAGS.AC, or off */
	VIEW_COUNT
};

enum soft_access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

/*
 * A page of a view. Tags are the page's address, or (if that access has to ask C first) an address
 * that belongs to another entry. host: where the page is in our address space.
 */
struct soft_tlb_entry {
	uint64_t tag_read, tag_write, host, addend; /* host = page's address + addend */
};
#define TLB_ENTRIES 4096u
#define TLB_GROUP   64u /* entries; a bit each in tlb_used says which are not empty */

/* Where indirect jumps go: guest rip -> host code of the same view, for flags in the slot. */
struct soft_jump_entry {
	uint64_t rip, code;
};
#define JUMP_ENTRIES 16384u
/* So many entries in use are listed; if there are more, all are emptied. */
#define JUMP_LIST 1024u
static inline uint32_t soft_jump_index(uint64_t rip)
{
	return ((uint32_t)rip << 1 & JUMP_INDEX_MASK) / 16;
}

_Static_assert(TLB_ENTRIES == 64 * TLB_GROUP, "a word");
#define FETCHED_BITS 16384u

struct soft_fault {
	uint8_t vector, has_error;
	uint8_t trap; /* the instruction is through: its frame has no RF */
	uint32_t error;
	uint64_t cr2; /* of page faults */
	uint64_t dr6; /* of debug exceptions */
};

struct soft_code_page;
struct soft_memory {
	uint64_t gpa, bytes;
	uint8_t *host;
	struct soft_code_page *pages; /* code_page.c: one per page */
};
#define MEMORY_RANGES_MAX 8u

/* Accesses to devices that the present instruction has done: it starts anew after each (access.c).
 */
struct soft_device_access {
	uint64_t gpa;
	uint8_t size, write;
	uint8_t data[8];
};
#define DEVICE_ACCESSES_MAX 16u
#define IO_BYTES	    4096u
#define LARGE_HASH	    4096u /* bits */

/* What an exit waits for before the vCPU can go on. */
enum soft_open { OPEN_NONE, OPEN_IO, OPEN_MMIO, OPEN_MSR_READ, OPEN_MSR_WRITE };

struct soft_cache;
struct soft_block;

struct soft_insn;

struct engine_vcpu {
	/* layout.h has these offsets. */
	uint64_t gpr[GPR_COUNT];
	uint64_t rip;
	uint64_t flags; /* FLAGS_HOST of the guest; other bits mean nothing */
	uint64_t host_rsp;
	uint64_t target;
	uint64_t reason, argument;
	_Atomic uint32_t stop;
	uint32_t reserved;
	uint64_t slot;
	uint64_t exec_address, exec_saved;
	uint64_t scratch[4];
	uint64_t shared[8][2], reach, jumps;
	uint64_t small_stack[16];

	/* What generated code reads and writes besides. */
	uint32_t interrupts_on; /* RFLAGS.IF: FLAG_IF or 0 */
	uint64_t small_stack_top;
	uint8_t window_wanted; /* and something has to happen when it is set */
	uint8_t cpl;
	uint8_t view;
	uint8_t slow; /* nothing may be translated now: single step, breakpoints, old modes */
	uint32_t system_flags;	   /* FLAGS_SYSTEM */
	uint64_t fs_base, gs_base; /* copies of those in state.segment */
	uint64_t tsc_offset;	   /* guest TSC = host's (scaled) + this */

	struct engine *engine;
	uint32_t number;
	_Atomic int thread; /* who runs it; 0: nobody */
	_Atomic uint32_t kicked;
	bool running;		/* inside run: fpu and gs are the vCPU's */
	bool fpu_live;		/* the guest's extended state is in the host's registers */
	uint64_t tsc_ratio;	/* 32 fraction bits; 0: the host's rate */
	uint64_t physical_mask; /* bits that a physical address may have */

	/* Control registers, segments, MSRs, events. gpr, rip, rflags, xsave: only while stopped.
	 */
	struct vcpu_state state;
	struct cpuid_set cpuid;

	struct soft_fault fault;
	uint64_t resume_flag; /* RF in the frame of the exception being delivered */
	bool shadow;	     /* no interrupt before the next instruction is through (STI, MOV SS) */
	bool debug_pending;  /* #DB when the instruction is through, with debug_hits */
	uint32_t debug_hits; /* bits of DR6: single step, data breakpoints */
	bool iret_done;	     /* RF is as IRET left it, for one instruction */
	bool kick_after;     /* the instruction wants EXIT_KICKED when it is through */

	enum soft_open open;
	struct engine_exit *exit; /* of the open question, or NULL */
	struct engine_exit pending, stashed;
	bool has_stashed;
	struct soft_device_access device[DEVICE_ACCESSES_MAX];
	uint32_t device_count, device_seen;
	bool answered; /* the instruction of the open question starts anew, with its answer */
	_Alignas(16) uint8_t io_data[IO_BYTES];

	_Atomic uint32_t in_run, pause, parked; /* pause.c */
	uint64_t
		unsettled; /* host address that rip and flags follow from, if C is left now; or 0 */
	bool slot_pending; /* the guest's flags are in the slot, if C is left now */
	uint64_t split_page; /* the last one whose accesses could not share */
	bool alone;	     /* the next block is one that shares no looks into the TLB */
	bool stepped;	     /* an instruction was stepped since translated code was left */
	bool tracing;	     /* the host steps to the next place where the guest's state is known */
	bool no_vector, no_avx;	 /* such instructions have to ask C first */
	struct soft_insn *insns; /* for the translator */
	uint64_t tlb_used[VIEW_COUNT];
	uint32_t jump_count[VIEW_COUNT]; /* of jump_list; JUMP_LIST: too many */
	uint16_t jump_list[VIEW_COUNT][JUMP_LIST];
	uint64_t fetched[FETCHED_BITS / 64]; /* pages code was fetched from, by a hash */
	bool kernel_not_global; /* VIEW_KERNEL has entries that a write of CR3 clears */
	bool huge_seen;		/* the TLB may have pieces of a 1 GiB page */
	uint64_t large_seen[LARGE_HASH / 64]; /* or of a 2 MiB page, by its address's hash */
	uint64_t step_count, fill_count, walk_count, translate_count;

	/*
	 * While the stepper is at an instruction: what to go back to if a signal breaks it off. And
	 * from executing an instruction on a copy to writing that back it must not be broken off.
	 */
	bool stepping, committing;
	struct {
		uint64_t gpr[GPR_COUNT], rip, flags;
		bool shadow;
	} undo;
	jmp_buf abandon; /* in soft_vcpu_run(): where an access broken off by a signal goes */
	void *signal_stack;
	const uint8_t *exec_insn; /* where in exec the guest's instruction is */
	uint8_t *exec;		  /* code buffer for the stepper */
	bool bounce_device;
	uint8_t *fault_pages; /* step/fault.c */
	uint64_t host_fault;  /* where the host's own page fault was, in the stepper's code */
	_Alignas(64) uint8_t bounce[2048];
	_Alignas(64) uint8_t xsave[4096]; /* the host's layout, standard format */
	_Alignas(64) struct soft_tlb_entry tlb[VIEW_COUNT][TLB_ENTRIES];
	uint64_t tlb_fetch[VIEW_COUNT][TLB_ENTRIES]; /* tags for fetching code, by C alone */
	struct soft_jump_entry jump[VIEW_COUNT][JUMP_ENTRIES];
};

_Static_assert(offsetof(struct engine_vcpu, gpr) == VCPU_GPR, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, rip) == VCPU_RIP, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, flags) == VCPU_FLAGS, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, host_rsp) == VCPU_HOST_RSP, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, target) == VCPU_TARGET, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, reason) == VCPU_REASON, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, argument) == VCPU_ARGUMENT, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, stop) == VCPU_STOP, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, slot) == VCPU_SLOT, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, exec_address) == VCPU_EXEC_ADDRESS, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, exec_saved) == VCPU_EXEC_SAVED, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, scratch) == VCPU_SCRATCH, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, shared) == VCPU_SHARED, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, reach) == VCPU_REACH, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, jumps) == VCPU_JUMPS, "layout.h");
_Static_assert(offsetof(struct engine_vcpu, interrupts_on) == VCPU_STACK_END, "layout.h");

struct engine {
	struct cpuid_set cpuid;
	uint32_t tsc_khz;
	uint64_t tsc_ratio;
	struct soft_memory memory[MEMORY_RANGES_MAX];
	uint32_t memory_count;
	uint32_t vcpu_max;
	bool exact_flags; /* for tests: flags are right at every fault, whatever it costs */

	pthread_mutex_t lock; /* vcpu[], and what block.c and code_page.c say */
	struct engine_vcpu *vcpu[VCPUS_MAX];
	struct soft_cache *cache;
	struct engine_vcpu *_Atomic pauser; /* pause.c */
};

static inline bool soft_is_canonical(uint64_t linear)
{
	return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

static inline bool soft_long_mode(const struct engine_vcpu *vcpu)
{
	return (vcpu->state.efer & EFER_LMA) != 0;
}

/* In ring 3 (SDM vol. 3, 6.15, #AC). */
static inline bool soft_checks_alignment(const struct engine_vcpu *vcpu)
{
	return (vcpu->system_flags & FLAG_AC) && (vcpu->state.cr0 & CR0_AM);
}

/* 64-bit code; otherwise the mode is compatibility, protected or real. */
static inline bool soft_code64(const struct engine_vcpu *vcpu)
{
	return soft_long_mode(vcpu) && (vcpu->state.segment[SEG_CS].attributes & ATTRIBUTE_LONG);
}

static inline bool soft_real_mode(const struct engine_vcpu *vcpu)
{
	return !(vcpu->state.cr0 & CR0_PE);
}

static inline uint64_t soft_rflags(const struct engine_vcpu *vcpu)
{
	return (vcpu->flags & FLAGS_HOST) | vcpu->system_flags | 2 | vcpu->interrupts_on;
}

/* All of it; the modes that follow from it too. */
void soft_set_rflags(struct engine_vcpu *vcpu, uint64_t rflags);

/* vcpu.c */
int soft_vcpu_bind(struct engine_vcpu *vcpu);
int soft_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *exit);
int soft_vcpu_finish_exit(struct engine_vcpu *vcpu);
void soft_vcpu_kick(struct engine_vcpu *vcpu);
bool soft_vcpu_can_interrupt(struct engine_vcpu *vcpu);
int soft_vcpu_interrupt(struct engine_vcpu *vcpu, uint8_t vector);
int soft_vcpu_nmi(struct engine_vcpu *vcpu);
void soft_vcpu_want_window(struct engine_vcpu *vcpu, bool want);
/* The vCPU of the calling thread while it is inside run, or NULL: for signal handlers. */
struct engine_vcpu *soft_vcpu_current(void);
/* The extended state goes to memory (idempotent): before anything that may use vector registers. */
void soft_fpu_release(struct engine_vcpu *vcpu);
/* Enters host code; the reason of leaving it. */
uint64_t soft_enter(struct engine_vcpu *vcpu, const void *code);
/* What follows from control registers, CS, SS and RFLAGS. After every change of them. */
void soft_update_mode(struct engine_vcpu *vcpu);

/* state.c */
int soft_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *state);
int soft_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *state);

/* probe.c */
int soft_probe(struct engine_features *ret_features, char *why, size_t why_size);

/* mmu.c */
struct soft_page {
	uint8_t *host; /* NULL: not memory */
	uint64_t gpa;
	bool code; /* holds translated code: tell soft_code_written() */
};
/* Where is this byte? SOFT_FAULT: #PF or (not canonical) #GP / #SS is in vcpu->fault. */
int soft_translate(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		   enum soft_access access, struct soft_page *ret_page);
/* Is the page open to translated code for this access? */
bool soft_tlb_has(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access);
/* Makes the access possible in translated code. SOFT_AGAIN: this access has to be stepped. */
int soft_tlb_fill(struct engine_vcpu *vcpu, uint64_t linear, enum soft_access access);
void soft_tlb_create(struct engine_vcpu *vcpu);
void soft_tlb_flush(struct engine_vcpu *vcpu, bool global_too);
void soft_tlb_flush_page(struct engine_vcpu *vcpu, uint64_t linear);
/* Jumps to rip in the present view go to this code, which takes its flags from the slot. */
void soft_jump_remember(struct engine_vcpu *vcpu, uint64_t rip, const uint8_t *code);
/* Indirect jumps of this view forget where they went. */
void soft_jump_flush(struct engine_vcpu *vcpu, enum soft_view view);
/* This vCPU does not write that page any more without asking. */
void soft_tlb_forget_write(struct engine_vcpu *vcpu, const uint8_t *host);
uint8_t *soft_memory_host(const struct engine *engine, uint64_t gpa);
/* Of a host address inside guest memory; UINT64_MAX otherwise. */
uint64_t soft_memory_gpa(const struct engine *engine, const uint8_t *host);

/* access.c: all of them may be left by a signal, see SOFT_AGAIN. */
int soft_read(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, void *data,
	      uint32_t size);
int soft_write(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, const void *data,
	       uint32_t size);
/* Could soft_write() be done? Faults as it would. */
int soft_probe_write(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, uint32_t size);
/* Bytes of code at the linear address, as many as are there; at least one. */
int soft_fetch(struct engine_vcpu *vcpu, uint64_t linear, uint8_t *bytes, uint32_t *size);
/* Plain accesses to host memory that may wait for a page. */
uint64_t soft_load64(const void *host);
uint8_t soft_load8(const void *host);
bool soft_exchange64(void *host, uint64_t expected, uint64_t value);
void soft_copy(void *to, const void *from, size_t bytes);
void soft_fill(void *to, uint64_t value, size_t words);
bool soft_in_access(uint64_t pc); /* is this pc in one of the three? */

/* step/fault.c */
bool soft_in_fault_pages(const struct engine_vcpu *vcpu, const void *host);
void soft_fault_pages_free(struct engine_vcpu *vcpu);

/* exception.c */
int soft_raise(struct engine_vcpu *vcpu, uint8_t vector);
int soft_raise_error(struct engine_vcpu *vcpu, uint8_t vector, uint32_t error);
int soft_raise_page_fault(struct engine_vcpu *vcpu, uint64_t linear, uint32_t error);
enum soft_event { EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_SOFT };
/* Goes through the IDT. SOFT_FAULT: the delivery itself faulted. */
int soft_deliver(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event, bool has_error,
		 uint32_t error, uint64_t return_rip);
/* exception_protected.c: the same, without long mode. */
int soft_deliver_protected(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
			   bool has_error, uint32_t error, uint64_t return_rip);
/* A gate or selector asks for a task switch: SOFT_EXIT, failed. */
int soft_no_task_switch(struct engine_vcpu *vcpu, uint16_t selector);
/* Delivers vcpu->fault, and what comes of it. SOFT_EXIT: triple fault. */
int soft_deliver_fault(struct engine_vcpu *vcpu);

/* code_page.c */
/* This vCPU has written there: translated code of these bytes is gone. */
void soft_code_written(struct engine_vcpu *vcpu, uint64_t gpa, uint64_t bytes);
void soft_page_lost(struct engine *engine, uint64_t gpa, uint64_t bytes);
int soft_code_add_memory(struct engine *engine, uint32_t range);
void soft_code_remove_memory(struct engine *engine);
/* A vCPU is about to get a writable TLB entry: false if the page holds translated code. */
bool soft_code_allow_write(struct engine_vcpu *vcpu, uint64_t gpa);

/* signal.c */
int soft_signals_install(void);
void soft_signals_thread(struct engine_vcpu *vcpu); /* the calling thread uses its signal stack */

void soft_signals_forget(struct engine_vcpu *vcpu);
#define SIGNAL_STACK_BYTES 65536u

/* A fault of the host's that no guest instruction explains: not a vector. */
#define FAULT_OF_ENGINE 255u

/* translate/state.c: both are given the signal's context, with the pc in a block. */
void soft_translated_stop(struct engine_vcpu *vcpu, void *context);
void soft_translated_fault(struct engine_vcpu *vcpu, void *context, uint8_t vector);

/* block.c */
int soft_cache_create(struct engine *engine);
void soft_cache_destroy(struct engine *engine);

/* msr.c */
int soft_msr_read(struct engine_vcpu *vcpu, uint32_t index, uint64_t *ret_value);
int soft_msr_write(struct engine_vcpu *vcpu, uint32_t index, uint64_t value);
uint64_t soft_tsc(const struct engine_vcpu *vcpu);

/* step.c: one instruction at vcpu->rip */
int soft_step(struct engine_vcpu *vcpu);
/* The same, decoded before, in 64-bit code that is not slow (see `slow`). */
int soft_step_known(struct engine_vcpu *vcpu, const struct soft_insn *insn);
/* A signal has broken it off: registers as before, if it was at an instruction. */
void soft_step_abandoned(struct engine_vcpu *vcpu);

#endif
