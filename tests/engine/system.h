/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System guests: many small cases, each a few instructions in 64-bit kernel mode and what the
 * manuals say must come of them, written next to each other in system_*.S. This header is shared by
 * the assembler and by system.c, which builds the machine, runs the case and compares.
 *
 * A case leaves a log in its memory: the exceptions and interrupts it took, with their whole frame,
 * and values that it reports. The expectations are a list of the same, in order; an expectation
 * names only the fields that the architecture fixes.
 *
 * Physical memory, mapped one to one for the kernel, and once more at USER (user pages):
 *
 *   0x010000 page tables     0x020000 IDT  0x021000 GDT  0x022000 TSS  0x025000 LDT
 *   0x030000 log             0x050000 user stack's top   0x060000 RSP0's top
 *   0x070000 top of IST 1    0x078000 of IST 2           0x080000 kernel stack's top
 *   0x100000 the image       0x180000 free pages (SYS_DATA), 0x200000..0x3fffff too
 *
 * The kernel's half at KERNEL_HIGH maps the same memory again, as supervisor pages.
 * At SYS_WINDOW are 2 MiB of virtual memory with an empty table for the cases to fill.
 */
#ifndef TESTS_ENGINE_SYSTEM_H
#define TESTS_ENGINE_SYSTEM_H

#define SYS_PML4    0x10000
#define SYS_PDPT    0x11000 /* of the lower half; entries 0 memory, 1 USER and window, 3 MMIO */
#define SYS_PD	    0x12000
#define SYS_PT	    0x13000
#define SYS_PD_USER 0x14000
#define SYS_PT_USER 0x15000
#define SYS_WINDOW_PDE                                                                             \
	(SYS_PD_USER +                                                                             \
	 8 * 256) /* leads to SYS_PT_WINDOW; the next ones are free                  \
				 */
#define SYS_PT_WINDOW	0x17000
#define SYS_PD_MMIO	0x18000
#define SYS_PDPT_HIGH	0x19000
#define SYS_FREE_TABLES 0x1a000 /* three pages for cases */
#define SYS_IDT		0x20000
#define SYS_GDT		0x21000
#define SYS_TSS		0x22000 /* three pages: the I/O bitmap is in it */
#define SYS_LDT		0x25000
#define SYS_LOG_NEXT	0x30000 /* bytes of log in use */
#define SYS_RESUME	0x30008 /* the next exception returns here instead, once, if not 0 */
#define SYS_HOOK	0x30010 /* called by the next exception's handler, once, if not 0 */
#define SYS_LOG		0x30100
#define SYS_LOG_MAX	0x4000 /* a guest that logs more halts */
#define SYS_STACK_USER	0x50000
#define SYS_STACK_RSP0	0x60000
#define SYS_STACK_IST1	0x70000
#define SYS_STACK_IST2	0x78000
#define SYS_STACK	0x80000
#define SYS_IMAGE	0x100000
#define SYS_DATA	0x180000

#define USER	    0x40000000
#define SYS_WINDOW  0x60000000
#define SYS_MMIO    0xfed00000
#define KERNEL_HIGH 0xffffffff80000000

/* Selectors. SYSCALL and SYSRET order. */
#define SEL_CODE	0x08
#define SEL_DATA	0x10
#define SEL_USER_32	0x1b
#define SEL_USER_DATA	0x23
#define SEL_USER_CODE	0x2b
#define SEL_CODE_32	0x30
#define SEL_TSS		0x38
#define SEL_LDT		0x48
#define SEL_ABSENT	0x58 /* data, not present */
#define SEL_EXEC_ONLY	0x60 /* code that cannot be read */
#define SEL_READ_ONLY	0x68 /* data that cannot be written */
#define SEL_CONFORMING	0x70
#define SEL_GATE	0x78 /* call gate to gate_target, DPL 3 */
#define SEL_CODE_16	0x88
#define SEL_DATA_16	0x90
#define SEL_ABSENT_CODE 0x98
#define SEL_BASED_32	0xa3 /* user data with base USER + SYS_DATA, limit 0xfff */
#define SEL_END		0xa8 /* the first behind the limit */

#define PORT_DONE 0x30 /* the case ends */

/* Log records; the first quadword is the kind. */
#define LOG_VALUE    1 /* value */
#define LOG_EVENT    2 /* vector error rip cs rflags rsp ss cr2 dr6 handler-rsp handler-rflags */
#define LOG_SHUTDOWN 3 /* bytes of log at the last load of state; written by the test */

/* What a case needs of the CPU, and whose behaviour it states where vendors differ. */
#define NEED_SMEP     0x0001
#define NEED_SMAP     0x0002
#define NEED_PCID     0x0004
#define NEED_INVPCID  0x0008
#define NEED_FSGSBASE 0x0010
#define NEED_XSAVE    0x0020
#define NEED_AVX      0x0040
#define NEED_RDTSCP   0x0080
#define NEED_RDPID    0x0100
#define NEED_UMIP     0x0200
#define NEED_1G	      0x0400
#define NEED_CX16     0x0800
#define NEED_AMD      0x1000
#define NEED_INTEL    0x2000
#define NEED_DE	      0x4000
#define NEED_CR8_LOCK 0x8000
/*
 * CPUs that are known to do otherwise, in the versions that the rack uses: QEMU 7.2's TCG, Bochs,
 * and the emulating /dev/kvm that some machines have. The comment at the case says what.
 */
#define NOT_QEMU  0x10000
#define NOT_BOCHS 0x20000
#define NOT_KVM	  0x40000 /* KVM's own emulator, whatever the CPU */
/*
 * Not shaken: QEMU itself aborts where it takes a stack from a TSS of protected mode that is marked
 * busy, as KVM has it once the vCPU's state has been loaded.
 */
#define NOT_QEMU_MOVED 0x80000
#define NOT_KVM_AMD    0x100000 /* KVM on CPUs of AMD's, emulated ones too */
/* Numbers that the above have left no room for. */
#define NEED_XSAVEOPT 0x200000
#define NEED_XSAVEC   0x400000
#define NOT_QEMU_WITH 0x800000 /* not shaken between it and soft */

#define EXPECT_FIELDS 13

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stdint.h>

/* One EXPECT, WANT or EXPECT_SHUTDOWN: the bits of `given` are the fields that count. */
enum expect_field {
	EXPECT_VECTOR, /* WANT: the value */
	EXPECT_ERROR,
	EXPECT_RIP,
	EXPECT_CS,
	EXPECT_FLAGS_SET,
	EXPECT_FLAGS_CLEAR,
	EXPECT_RSP,
	EXPECT_SS,
	EXPECT_CR2,
	EXPECT_DR6,
	EXPECT_HANDLER_RSP,
	EXPECT_HANDLER_FLAGS_SET,
	EXPECT_HANDLER_FLAGS_CLEAR,
};

struct expectation {
	uint32_t kind, given;
	uint64_t field[EXPECT_FIELDS];
};

struct system_case {
	const char *name;
	uint64_t entry, needs;
	const struct expectation *expect; /* up to the next case's */
};

/* The end of system_NAME.S makes one. */
struct system_image {
	const uint8_t *start, *end;
	const struct system_case *cases, *cases_end;
	const struct expectation *expect_end;
	uint64_t stubs;	      /* 256 of them, 16 bytes each */
	uint64_t to_kernel;   /* LSTAR at first */
	uint64_t gate_target; /* of SEL_GATE */
};

struct rig;
/*
 * Runs every case of the image, each in a machine of its own. 0, or -1 with messages. Shaken: the
 * vCPU is kicked all the time, and moved at every exit (shake.h).
 */
int system_run(struct rig *rig, const struct system_image *image, bool shaken);
#endif

#endif
