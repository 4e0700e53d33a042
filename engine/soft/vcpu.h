/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The soft engine's data: a vCPU and the engine. What is done with it has rooms, each of which
 * knows only those above it in this list (docs/soft.md draws them; tools/layers checks it):
 *
 *   insn/       guest instructions as decoded, and host instructions
 *   tlb/        guest memory, the TLB, the table of jumps: as data
 *   cache/      translated code: blocks, pages that hold it, stubs, holding other vCPUs
 *   cpu/        the CPU's rules: page walks, accesses, segments, exceptions, MSRs, modes
 *   step/       one instruction by C
 *   translate/  blocks of instructions into host code
 *   run/        the loop: signals, events, from an address to a block, state in and out
 *
 * Threads: a vCPU belongs to the thread that runs it. Others touch `stop`, `kicked` and what
 * `struct engine` guards by its lock. Nobody holds that lock while touching guest memory.
 *
 * Everything but the Zydis calls is compiled without vector instructions, so that the guest's
 * vector state may stay in the host's registers while C runs (soft_fpu_release()).
 */
#ifndef ENGINE_SOFT_VCPU_H
#define ENGINE_SOFT_VCPU_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "engine/engine.h"
#include "engine/soft/cache/layout.h"
#include "engine/soft/x86.h"

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
 * The pages of a view: entries by the address's bits 12 to 31, which a shift of its lower half
 * gives; what an entry has is spread over one table each. Tags are the page's address, or (if that
 * access has to ask C first) an address that belongs to another entry. host: where the page is in
 * our address space. 120 MiB of addresses, of which little is ever touched.
 */
#define TLB_ENTRIES (1u << 20)
#define TLB_GROUP   8u /* entries, one line of the host's caches in each table */
struct soft_tlb {
	_Alignas(64) uint64_t tag_read[TLB_ENTRIES];
	uint64_t tag_write[TLB_ENTRIES], host[TLB_ENTRIES];
	uint64_t addend[TLB_ENTRIES];	 /* host = page's address + addend */
	uint64_t tag_fetch[TLB_ENTRIES]; /* by C alone */
};
/*
 * Which groups are not empty, a bit each, and which of those words are not zero. Or have not been since
 * the table was last given back: a word's entries are a page of memory in each of its five tables.
 */
#define TLB_USED_WORDS (TLB_ENTRIES / TLB_GROUP / 64)
struct soft_tlb_used {
	uint64_t word[TLB_USED_WORDS], summary[TLB_USED_WORDS / 64];
	uint64_t resident[TLB_USED_WORDS / 64];
	uint32_t resident_count;
};
#define TLB_WORD_BYTES (sizeof(struct soft_tlb) / TLB_USED_WORDS)

/*
 * Where the stack was lately, as a program's code sees it that is near by: a look off rsp asks here
 * first (translate/share.c). Nowhere is an address that no access may have, and its host address one
 * that no process has: signal.c.
 */
#define STACK_PAGES	 32u
#define STACK_PAGE_SHIFT 9 /* so many bytes of code are near by */
#define STACK_NOWHERE	 (1ull << 63)
struct soft_stack_page {
	uint64_t page, addend;
};

/* Where indirect jumps go: guest rip -> host code of the same view, for flags in the slot. */
struct soft_jump_entry {
	uint64_t rip, code;
};
#define JUMP_ENTRIES 131072u
#define JUMP_WORDS   (JUMP_ENTRIES / 64)
/*
 * Which entries may be awake, or asleep (tlb/jumps.c), a bit each; and which of those words may not
 * be zero.
 */
struct soft_jump_used {
	uint64_t awake[JUMP_WORDS], asleep[JUMP_WORDS];
	uint64_t summary[JUMP_WORDS / 64], summary_asleep[JUMP_WORDS / 64];
};
/*
 * What page of host memory a page of code was, when an instruction was last fetched from it. Enough
 * of them that the pages of a kernel's code have places of their own.
 */
#define JUMP_PAGES 8192u
struct soft_jump_page {
	uint64_t page, host;
};

/*
 * Doors (tlb/doors.h): each direct jump to another page has one, a number from 1. Where those lead
 * that are in a list, by the target's page.
 */
#define DOORS_MAX  131072u
#define DOOR_LISTS 512u
struct soft_door {
	uint64_t rip, code;
	uint32_t next; /* in the list; or 0 */
};
struct soft_door_list {
	uint32_t awake, asleep; /* the first, or 0 */
};

#define FETCHED_BITS 16384u
#define SPLIT_PLACES 1024u

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
#define LARGE_HASH	    8192u /* bits */

/* What an exit waits for before the vCPU can go on. */
enum soft_open { OPEN_NONE, OPEN_IO, OPEN_MMIO, OPEN_MSR_READ, OPEN_MSR_WRITE };

struct soft_cache;
struct soft_block;

struct soft_insn;
struct soft_decoded;

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
	uint64_t shared[24][2], reach, jumps;
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
	/*
	 * It was created and not destroyed since. Guarded by the engine's lock. A destroyed one
	 * keeps its place and its memory until the engine goes, for a vCPU of that number that
	 * comes (back) later: others look at it without a lock (to pause it, to take its TLB's
	 * entries away).
	 */
	bool seated;
	_Atomic int thread; /* who runs it; 0: nobody */
	_Atomic uint32_t kicked;
	bool running;		/* inside run: fpu and gs are the vCPU's */
	bool fpu_live;		/* the guest's extended state is in the host's registers */
	uint64_t tsc_ratio;	/* TSC_RATIO_BITS behind the point */
	uint64_t physical_mask; /* bits that a physical address may have */

	/* Control registers, segments, MSRs, events. gpr, rip, rflags, xsave: only while stopped.
	 */
	struct vcpu_state state;
	struct cpuid_set cpuid;

	struct soft_fault fault;
	uint64_t resume_flag; /* RF in the frame of the exception being delivered */
	uint8_t shadow;	      /* no interrupt before the next instruction is through: SHADOW_ */
	bool debug_pending;   /* #DB when the instruction is through, with debug_hits */
	uint32_t debug_hits;  /* bits of DR6: single step, data breakpoints */
	uint32_t debug_held;  /* those of a load of SS, which are due behind the next instruction */
	bool iret_done;	      /* RF is as IRET left it, for one instruction */
	/* A task switch has come so far that only segments are to be loaded: task_switch.c. */
	struct {
		bool due, external, trap;
		uint8_t error_bytes; /* of the error code that goes onto the stack; 0: none */
		uint32_t error;
	} task;
	bool kick_after; /* the instruction wants EXIT_KICKED when it is through */
	uint32_t spins;	 /* PAUSEs, of which some give the core away */

	enum soft_open open;
	struct engine_exit *exit; /* of the open question, or NULL */
	struct engine_exit pending, stashed;
	bool has_stashed;
	struct soft_device_access device[DEVICE_ACCESSES_MAX];
	uint32_t device_count, device_seen;
	/*
	 * x87's last instruction and its operand, by guest addresses: the host's registers have its
	 * own (cpu/extended.c). data_host: data is the low half of a host address, not yet looked
	 * up.
	 */
	struct {
		uint64_t rip, data;
		uint16_t opcode, cs;
		bool data_host;
		bool loading; /* what is found in the host's registers does not count */
		uint8_t view; /* of who accessed the operand: whose TLB may have it */
		uint64_t stepped_rip, stepped_data; /* of the stepper's last */
		uint32_t stepped_host;		    /* where that operand was */
	} x87;
	uint32_t io_answered; /* items of INS that wait for the device that they go to; or 0 */
	bool answered; /* the instruction of the open question starts anew, with its answer */
	_Alignas(16) uint8_t io_data[IO_BYTES];

	_Atomic uint32_t in_run, pause, parked, queued; /* pause.c */
	uint64_t
		unsettled; /* host address that rip and flags follow from, if C is left now; or 0 */
	bool slot_pending; /* the guest's flags are in the slot, if C is left now */
	uint64_t split_page; /* the last one whose accesses could not share */
	/* By a hash of the leader: how often it may split until C looks; when C did (run/block.c). */
	uint32_t split_left[SPLIT_PLACES];
	uint64_t split_at[SPLIT_PLACES]; /* TSC */
	bool alone;   /* the next block is one that shares no looks into the TLB */
	bool stepped; /* an instruction was stepped since translated code was left */
	bool tracing; /* the host steps to the next place where the guest's state is known */
	bool holds_rsp; /* the host has STAND_IN_RSP for the guest's, which was held_rsp (run/signal.c) */
	uint64_t held_rsp;
	uint64_t told_pc, told_tsc;   /* where and when the host said #UD or #GP that may be none */
	bool no_vector, no_avx;	      /* such instructions have to ask C first */
	struct soft_insn *insns;      /* for the translator */
	struct soft_decoded *decoded; /* for the stepper */
	struct soft_stack_page stack_page[2][STACK_PAGES]; /* of VIEW_USER; [1]: to be written */
	struct soft_tlb_used tlb_used[VIEW_COUNT];
	struct soft_jump_used jump_used[VIEW_COUNT];
	struct soft_door_list door_list[VIEW_COUNT][DOOR_LISTS];
	uint64_t door_used[VIEW_COUNT][DOOR_LISTS / 64]; /* which may have some that are awake */
	bool has_doors;					 /* it has run; the lock */
	uint64_t fetched[FETCHED_BITS / 64]; /* pages code was fetched from, by a hash */
	bool kernel_not_global; /* VIEW_KERNEL has entries that a write of CR3 clears */
	bool huge_seen;		/* the TLB may have pieces of a 1 GiB page */
	uint64_t large_seen[LARGE_HASH / 64]; /* or of a 2 MiB page, by its address's hash */
	uint64_t step_count, fill_count, walk_count, translate_count;
	_Atomic uint64_t work_count; /* soft_vcpu_work() */
	uint64_t code_writes_seen;   /* of the engine's, when it last entered translated code */

	/*
	 * While the stepper is at an instruction: what to go back to if a signal breaks it off. And
	 * from executing an instruction on a copy to writing that back it must not be broken off.
	 */
	bool stepping, committing;
	struct {
		uint64_t gpr[GPR_COUNT], rip, flags;
		uint8_t shadow;
		uint32_t debug_held;
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
	/* From here on what survives whoever had the seat before, emptied. */
	_Alignas(64) struct soft_jump_entry jump[VIEW_COUNT][JUMP_ENTRIES];
	struct soft_jump_page jump_page[VIEW_COUNT][JUMP_PAGES];
	uint64_t door[DOORS_MAX]; /* host code */
	struct soft_door door_to[DOORS_MAX];
	_Alignas(PAGE_BYTES) struct soft_tlb
		tlb[VIEW_COUNT]; /* whole pages: they can be given back */
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

struct soft_offer;
struct engine {
	struct cpuid_set cpuid;
	struct soft_offer *offer; /* insn/offer.c */
	uint32_t tsc_khz;
	struct soft_memory memory[MEMORY_RANGES_MAX];
	uint32_t memory_count;
	uint32_t vcpu_max;
	struct engine_pages pages;
	/*
	 * The host forbids locked accesses across two cache lines, or makes them dear (split.h): C
	 * does them. Set when it has said so; translated code looks where it was known before.
	 */
	_Atomic bool split_locks_trap;
	bool split_locks_looked_for;
	bool host_is_tcg; /* QEMU emulates the host's CPU: soft_enter() */
	bool exact_flags; /* for tests: flags are right at every fault, whatever it costs */

	pthread_mutex_t lock;		     /* vcpu[], and what cache.c and code_page.c say */
	struct engine_vcpu *vcpu[VCPUS_MAX]; /* once there, they stay: see `seated` */
	struct soft_cache *cache;
	_Atomic uint64_t code_writes; /* soft_cache_written() */
	_Atomic uint32_t tlb_words;   /* of all vCPUs' TLBs, that have memory: tlb/tlb.h */
	uint32_t tlb_words_max;
	uint64_t *door_way_out; /* by number, what a door leads to that is shut */
	uint32_t door_count;	/* with number 0, which is nobody's */
	/* pause.c: whose turn it is, and which number comes next; NULL if nobody pauses. */
	_Atomic uint32_t pause_turn, pause_tickets;
	_Atomic uint32_t pause_queue;	/* who may sleep until pause_turn changes */
	_Atomic uint32_t pause_sleeper; /* 1: whose turn it is may sleep on this */
	struct engine_vcpu *_Atomic pauser;
	uint64_t resumed_ns; /* the last pause's end; whose turn it is has it */
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

static inline bool soft_virtual_8086(const struct engine_vcpu *vcpu)
{
	return vcpu->system_flags & FLAG_VM;
}

/* Real mode or virtual-8086 mode: a selector is a sixteenth of the segment's base. */
static inline bool soft_8086(const struct engine_vcpu *vcpu)
{
	return soft_real_mode(vcpu) || soft_virtual_8086(vcpu);
}

static inline uint64_t soft_rflags(const struct engine_vcpu *vcpu)
{
	return (vcpu->flags & FLAGS_HOST) | vcpu->system_flags | 2 | vcpu->interrupts_on;
}

/* A fault of the host's that no guest instruction explains: not a vector. */
#define FAULT_OF_ENGINE 255u

#endif
