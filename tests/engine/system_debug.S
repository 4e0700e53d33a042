/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debugging: single steps, breakpoints in DR0 to DR3, DR6 and DR7, and what shadows them (SDM vol. 3, 17.2 and 17.3;
 * APM vol. 2, 13.1). The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

#define STEP 0xffff4ff0	/* DR6: BS */

	.macro	SET_TF
	pushfq
	orl	$0x100, (%rsp)
	popfq
	.endm
	.macro	CLEAR_TF
	pushfq
	andl	$~0x100, (%rsp)
	popfq
	.endm
	.macro	STEPPED label
	EXPECT	1, rip=\label, dr6=STEP, fset=0x100, hclr=0x100
	.endm
/* The three steps of CLEAR_TF; the last one's TF is clear already. */
	.macro	CLEAR_TF_STEPPED
	pushfq
1:	STEPPED	1b
	andl	$~0x100, (%rsp)
1:	STEPPED	1b
	popfq
1:	EXPECT	1, rip=1b, dr6=STEP, fclr=0x100
	.endm

	IMAGE	debug
gate_target:
	DONE

/* Under Bochs a page that KVM has yet to map makes a second step of one; that touches most of these. */
	CASE	step, NOT_BOCHS
	SET_TF
	nop
1:	STEPPED	1b
	mov	$5, %ecx
1:	STEPPED	1b
	jmp	1f
	nop
1:	STEPPED	1b
	call	1f
1:	STEPPED	1b
	pop	%rax
1:	STEPPED	1b
	mov	SYS_DATA, %rbx
1:	STEPPED	1b
	cpuid
1:	STEPPED	1b
	cld
1:	STEPPED	1b
	CLEAR_TF_STEPPED
	nop
	DONE

	CASE	step_user, NOT_BOCHS
	TO_USER	0x102
	nop
1:	EXPECT	1, rip=1b, dr6=STEP, fset=0x100, cs=SEL_USER_CODE, hrsp=SYS_STACK_RSP0
	nop
1:	STEPPED	1b
	CLEAR_TF_STEPPED
	DONE

/* A repeated string instruction is stepped by item, as long as it goes on. */
	CASE	step_rep, NOT_BOCHS
	mov	$3, %ecx
	mov	$SYS_DATA, %esi
	mov	$SYS_DATA + 64, %edi
	SET_TF
1:	rep movsb
2:	STEPPED	1b
	STEPPED	1b
	STEPPED	2b
	CLEAR_TF_STEPPED
	REPORT	%rcx
	WANT	0
	DONE

/* Faults win over the step that their instruction does not end; gates clear TF, IRET sets it again. */
	CASE	step_fault, NOT_BOCHS
	RESUME	3f
	SET_TF
1:	ud2
	EXPECT	6, rip=1b, fset=0x100, hclr=0x100
3:	nop
1:	STEPPED	1b
	int	$0x41
1:	EXPECT	0x41, rip=1b, fset=0x100, hclr=0x100
	nop
1:	STEPPED	1b
	int3
1:	EXPECT	3, rip=1b, fset=0x100, hclr=0x100
	nop
1:	STEPPED	1b
	CLEAR_TF_STEPPED
	DONE

/* SYSCALL whose SFMASK clears TF is not stepped; SYSRET with it is, as if SYSCALL had been. */
	CASE	step_syscall, NOT_BOCHS
	SET_MSR	0xc0000082, ADDR(10f), 0
	SET_MSR	0xc0000084, 0x700
	TO_USER	0x102
	nop
1:	STEPPED	1b
	syscall
11:	STEPPED	11b
	CLEAR_TF_STEPPED
	movq	$ADDR(12f) - USER, SYS_HOOK + USER
	ud2
	EXPECT	6
	.set	WORLD, 0
10:	nop
	nop
	sysretq
12:	DONE

/* MOV SS and POP SS hold the step back by one instruction; QEMU does not. */
	CASE	step_ss, NOT_QEMU | NOT_BOCHS
	mov	%ss, %eax
	push	%rax
	SET_TF
	mov	%eax, %ss
	nop
1:	STEPPED	1b
	CLEAR_TF_STEPPED
	DONE

	CASE	step_io, NOT_BOCHS
	mov	$0x20, %edx
	SET_TF
	in	(%dx), %al
1:	STEPPED	1b
	rdtsc
1:	STEPPED	1b
	CLEAR_TF_STEPPED
	DONE

/* KVM forgets the step of a write to a device. */
	CASE	step_mmio, NOT_KVM
	mov	$0x20, %edx
	SET_TF
	in	(%dx), %al
1:	STEPPED	1b
	mov	SYS_MMIO, %eax
1:	STEPPED	1b
	mov	%eax, SYS_MMIO
1:	STEPPED	1b
	rdtsc
1:	STEPPED	1b
	CLEAR_TF_STEPPED
	DONE

/*
 * Breakpoints. Each entry of KVM's clears DR7, and QEMU's VMRUN brings the guest's back without arming any: only a MOV
 * to DR7 does. So they are lost wherever the host's timer, say, ends the guest's run between that and the access.
 *
 * The handler that sets RF goes past a breakpoint.
 */
	CASE	break_code, NOT_QEMU
	mov	$ADDR(1f), %eax
	mov	%rax, %db0
	mov	$0x402, %eax	/* G0 */
	mov	%rax, %db7
	xor	%ebx, %ebx
	HOOK	9f
1:	inc	%ebx
	EXPECT	1, rip=1b, dr6=0xffff0ff1
	cmp	$2, %ebx
	je	2f
	xor	%eax, %eax
	mov	%rax, %db7
	jmp	1b		/* off again */
2:	REPORT	%rbx
	WANT	2
	DONE
9:	orl	$0x10000, 64 + 8(%rsp)
	ret

	CASE	break_code_user, NOT_QEMU
	mov	$ADDR(1f) + USER, %eax
	mov	%rax, %db1
	mov	$0x404, %eax	/* L1 */
	mov	%rax, %db7
	HOOK	9f
	TO_USER
	xor	%ebx, %ebx
1:	inc	%ebx
	EXPECT	1, rip=1b, dr6=0xffff0ff2, cs=SEL_USER_CODE
	REPORT	%rbx
	WANT	1
	DONE
	.set	WORLD, 0
9:	orl	$0x10000, 64 + 8(%rsp)
	ret

/* Data: traps behind the instruction; any overlap counts, reads only where asked for. */
	CASE	break_data, NOT_QEMU
	mov	$SYS_DATA + 4, %eax
	mov	%rax, %db0
	mov	$SYS_DATA + 0x10, %eax
	mov	%rax, %db2
	mov	$0x070d0422, %eax	/* 0: write, 4 bytes; 2: read or write, 2 bytes */
	mov	%rax, %db7
	movl	$1, SYS_DATA + 4
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	mov	SYS_DATA + 4, %eax
	movl	$1, SYS_DATA
	movl	$1, SYS_DATA + 8
	movq	$1, SYS_DATA
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	movb	$1, SYS_DATA + 7
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	mov	SYS_DATA + 0x11, %al
1:	EXPECT	1, rip=1b, dr6=0xffff0ff4
	mov	SYS_DATA + 0x12, %al
	mov	$SYS_DATA + 8, %esp
	push	%rax
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	xor	%eax, %eax
	mov	%rax, %db7
	movl	$1, SYS_DATA + 4
	mov	$SYS_STACK, %esp
	DONE

/* Locked ones too, but for QEMU. */
	CASE	break_locked, NOT_QEMU
	mov	$SYS_DATA + 4, %eax
	mov	%rax, %db0
	mov	$0x000d0402, %eax
	mov	%rax, %db7
	lock incl SYS_DATA + 4
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	lock cmpxchg %ecx, SYS_DATA + 4	/* fails, and writes */
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	DONE

/* Registers: fixed bits, reserved ones, DR4 and DR5, GD. */
	CASE	registers
	xor	%eax, %eax
	mov	%rax, %db6
	mov	%db6, %rcx
	REPORT	%rcx
	WANT	0xffff0ff0
	xor	%eax, %eax
	mov	%rax, %db7
	mov	%db7, %rcx
	REPORT	%rcx
	WANT	0x400
	mov	$0x1234567887654321, %rax
	mov	%rax, %db3
	mov	%db3, %rcx
	REPORT	%rcx
	WANT	0x1234567887654321
	mov	$0x100000000, %rax
	FAULT	13, 0, mov %rax, %db7
	FAULT	13, 0, mov %rax, %db6
	.byte	0x0f, 0x21, 0xe0	/* mov %db4, %rax: DR6 */
	REPORT	%rax
	WANT	0xffff0ff0
	mov	%cr4, %rax
	or	$8, %eax
	mov	%rax, %cr4
	FAULT	6, 0, .byte 0x0f, 0x21, 0xe0
	DONE

/* BS, BD and their like stay until they are cleared; of B0 to B3 those of this trap are set. */
	CASE	status_kept, NOT_QEMU
	mov	$SYS_DATA + 4, %eax
	mov	%rax, %db0
	mov	$0xffff6ff6, %eax
	mov	%rax, %db6
	mov	$0x000d0402, %eax
	mov	%rax, %db7
	movl	$1, SYS_DATA + 4
1:	EXPECT	1, rip=1b, dr6=0xffff6ff1
	DONE

/* ICEBP has no bit of its own. QEMU takes it for an invalid opcode. */
	CASE	status_icebp, NOT_QEMU
	mov	$0xffff4ff0, %eax
	mov	%rax, %db6
	.byte	0xf1
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0
	DONE

/* GD guards the debug registers; not QEMU's. */
	CASE	general_detect, NOT_QEMU
	mov	$0x2400, %eax
	mov	%rax, %db7
1:	mov	%rax, %db0
	EXPECT	1, rip=1b, dr6=0xffff2ff0
	mov	%db7, %rcx
	REPORT	%rcx
	WANT	0x400
	DONE

/*
 * A watched load of SS: nothing comes before the instruction behind it is through, and ICEBP's trap is the same one.
 * QEMU's process ends by SIGSEGV. Bochs has the trap before the load. On a real CPU under KVM it is not tried.
 */
	CASE	movss_watched, NOT_QEMU | NOT_BOCHS | NOT_KVM
	movw	$SEL_DATA, SYS_DATA
	mov	$SYS_DATA, %eax
	mov	%rax, %db0
	mov	$0x00070402, %eax
	mov	%rax, %db7
	mov	SYS_DATA, %ss
	nop
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	mov	SYS_DATA, %ss
	.byte	0xf1
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	nop
	xor	%eax, %eax
	mov	%rax, %db7
	DONE

/* The instruction behind it may have to ask the outside, and goes on when it has an answer. */
	CASE	movss_watched_asks, NOT_QEMU | NOT_BOCHS | NOT_KVM
	movw	$SEL_DATA, SYS_DATA
	mov	$SYS_DATA, %eax
	mov	%rax, %db0
	mov	$0x00070402, %eax
	mov	%rax, %db7
	mov	$0x20, %edx
	mov	$0x1b, %ecx
	mov	SYS_DATA, %ss
	in	(%dx), %al
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	mov	SYS_DATA, %ss
	mov	SYS_MMIO, %eax
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	mov	SYS_DATA, %ss
	rdmsr
1:	EXPECT	1, rip=1b, dr6=0xffff0ff1
	nop
	xor	%eax, %eax
	mov	%rax, %db7
	DONE

/* The trap behind HLT ends it. KVM goes to sleep with the trap pending. */
	CASE	hlt_step, NOT_KVM
	SET_TF
	hlt
1:	STEPPED	1b
	CLEAR_TF_STEPPED
	DONE

	END_IMAGE debug
