/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings: SYSCALL and SYSRET, IRET, SWAPGS and the bases, segment loads, system registers, far transfers (SDM vol. 2 at
 * each instruction, vol. 3, 5; APM vol. 2, 4 and 6). The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

	IMAGE	privilege

/* Where SEL_GATE leads: reports who called, on which stack, and goes back. */
gate_target:
	mov	%cs, %eax
	REPORT	%rax
	mov	%rsp, %rax
	REPORT	%rax
	mov	8(%rsp), %rax	/* the caller's cs */
	REPORT	%rax
	lretq

/* SYSCALL: rcx, r11, flags through SFMASK, selectors from STAR, rsp untouched; and SYSRET back. */
	CASE	syscall
	SET_MSR	0xc0000082, ADDR(10f), 0
	SET_MSR	0xc0000084, 0x44700
	TO_USER	0x240602
	syscall
11:	jmp	12f
	.set	WORLD, 0
10:	mov	%rsp, %rbp
	mov	%cs, %edi
	mov	%ss, %esi
	mov	$SYS_STACK, %esp
	pushfq
	pop	%rbx
	REPORT	%rcx
	WANT	ADDR(11b) + USER
	REPORT	%r11
	WANT	0x240602
	and	$~0x8d5, %ebx
	REPORT	%rbx
	WANT	0x200002
	REPORT	%rbp
	WANT	SYS_STACK_USER + USER
	REPORT	%rdi
	WANT	SEL_CODE
	REPORT	%rsi
	WANT	SEL_DATA
	SET_MSR	0xc0000082, ADDR(to_kernel), 0
	mov	$ADDR(11b) + USER, %ecx
	mov	%rbp, %rsp
	sysretq
12:	.set	WORLD, USER
	mov	%rsp, %rbp
	pushfq
	pop	%rbx
	cld
	REPORT	%rbx
	WANT	0x240602
	REPORT	%rbp
	WANT	SYS_STACK_USER + USER
	mov	%cs, %eax
	REPORT	%rax
	WANT	SEL_USER_CODE
	mov	%ss, %eax
	REPORT	%rax
	WANT	SEL_USER_DATA
	DONE

/* The arithmetic flags stay, but for QEMU, which loses them. */
	CASE	syscall_flags, NOT_QEMU
	SET_MSR	0xc0000082, ADDR(10f), 0
	SET_MSR	0xc0000084, 0x44741
	TO_USER	0x240ed7
	syscall
	.set	WORLD, 0
10:	pushfq
	pop	%rbx
	cld
	REPORT	%r11
	WANT	0x240ed7
	REPORT	%rbx
	WANT	0x200896
	DONE

/* SYSRET takes flags from r11, without RF and VM (QEMU enters VM86); bits that do not exist stay clear. */
	.macro	SYSRET_FLAGS from
	mov	$ADDR(1f) + USER, %ecx
	mov	$\from, %r11
	mov	$SYS_STACK_USER + USER, %esp
	sysretq
1:	.set	WORLD, USER
	pushfq
	pop	%rbx
	cld
	REPORT	%rbx
	WANT	0x430d7
	DONE
	.endm
	CASE	sysret_flags
	SYSRET_FLAGS 0xffffffffffc4b0ff	/* without ID, VIP, VIF, VM, RF, NT, OF, DF, IF, TF */
	CASE	sysret_flags_vm, NOT_QEMU
	SYSRET_FLAGS 0xffffffffffc7b0ff

/*
 * As kernels have it: SMAP, and SFMASK that clears AC and DF. All flags that a program may set, in and out again, and
 * CS and SS on both sides. r12: which flags; r13: how often something was wrong.
 */
	.macro	SPREAD bit, shift
	mov	%r12d, %edx
	and	$1 << \bit, %edx
	shl	$\shift, %edx
	or	%edx, %ebx
	.endm
	.macro	EQUAL a, b
	mov	\b, %rdx
	cmp	\a, %rdx
	setne	%dl
	movzbl	%dl, %edx
	add	%rdx, %r13
	.endm
	.macro	SELECTORS code, data
	mov	%cs, %eax
	EQUAL	%rax, $\code
	mov	%ss, %eax
	EQUAL	%rax, $\data
	.endm
	.macro	SYSCALLS name, mask, unless=0
	CASE	\name, NEED_SMAP | \unless
	mov	%cr4, %rax
	or	$0x200000, %eax
	mov	%rax, %cr4
	SET_MSR	0xc0000082, ADDR(10f), 0
	SET_MSR	0xc0000084, \mask
	xor	%r13d, %r13d
	mov	$511, %r12d
	TO_USER
1:	mov	$2, %ebx
	SPREAD	0, 0		/* CF */
	SPREAD	1, 1		/* PF */
	SPREAD	2, 2		/* AF */
	SPREAD	3, 3		/* ZF */
	SPREAD	4, 3		/* SF */
	SPREAD	5, 5		/* DF */
	SPREAD	6, 5		/* OF */
	SPREAD	7, 14		/* ID */
	SPREAD	8, 10		/* AC */
	push	%rbx
	popfq
	syscall
11:	pushfq
	pop	%rbx
	cld
	EQUAL	%rbp, %rbx
	EQUAL	%r11, %rbx
	EQUAL	%rsp, $(SYS_STACK_USER + USER)
	SELECTORS SEL_USER_CODE, SEL_USER_DATA
	dec	%r12d
	jns	1b
	syscall
	.set	WORLD, 0
10:	mov	%rsp, %r15
	mov	$SYS_STACK, %esp
	pushfq
	pop	%rsi
	cld
	test	%r12d, %r12d
	js	19f
	EQUAL	%r11, %rbx
	and	$~\mask, %ebx
	EQUAL	%rsi, %rbx
	EQUAL	%rcx, $(ADDR(11b) + USER)
	SELECTORS SEL_CODE, SEL_DATA
	mov	%r11, %rbp
	xor	$0x2008d5, %rbp
	mov	%rbp, %r11
	mov	%r15, %rsp
	sysretq
19:	REPORT	%r13
	WANT	0
	DONE
	.endm
	SYSCALLS syscall_all_flags, 0x257fd5
	/* QEMU loses the arithmetic flags and DF, as above. */
	SYSCALLS syscall_some_flags, 0x44741, NOT_QEMU
	SYSCALLS syscall_keeps_direction, 0x40300, NOT_QEMU
	SYSCALLS syscall_keeps_ac, 0x4700, NOT_QEMU

/* Where SYSCALL and SYSRET lead nothing need be: they are through when that shows. */
	CASE	syscall_nowhere, NEED_SMAP
	mov	%cr4, %rax
	or	$0x200000, %eax
	mov	%rax, %cr4
	SET_MSR	0xc0000082, SYS_WINDOW + 0x5123, 0
	SET_MSR	0xc0000084, 0x257fd5
	movb	$1, SYS_IDT + 14 * 16 + 4	/* rsp is the program's */
	TO_USER	0x8d7
	HOOK	1f
	syscall
2:	.set	WORLD, 0
	EXPECT	14, cr2=(SYS_WINDOW+0x5123), rip=(image_start+SYS_WINDOW+0x5123-LOAD), cs=SEL_CODE, ss=SEL_DATA, rsp=(SYS_STACK_USER+USER), fset=2, fclr=0x8d5
1:	REPORT	%r11
	WANT	0x8d7
	HOOK	3f
	mov	$SYS_WINDOW + 0x6123, %ecx
	mov	$0x8d7, %r11d
	sysretq
	EXPECT	14, cr2=(SYS_WINDOW+0x6123), rip=(image_start+SYS_WINDOW+0x6123-LOAD), cs=SEL_USER_CODE, ss=SEL_USER_DATA, fset=0x8d7
3:	DONE

/*
 * Which jumps are known goes with the level: where the kernel calls to, the program may not go. The one place's other
 * names are 1 MiB apart, so that each is pushed out of its own place (cache/layout.h).
 */
	CASE	sysret_jumps, NEED_SMAP
	mov	%cr4, %rax
	or	$0x200000, %eax
	mov	%rax, %cr4
	mov	$3, %ebp
1:	mov	$ADDR(8f) + KERNEL_HIGH, %rbx
	call	*%rbx
	mov	$ADDR(8f), %ebx
	call	*%rbx
	dec	%ebp
	jnz	1b
	mov	$ADDR(2f) + USER, %ecx
	mov	$2, %r11d
	mov	$SYS_STACK_USER + USER, %esp
	sysretq
2:	.set	WORLD, USER
	mov	$ADDR(8f) - USER + KERNEL_HIGH, %rbx
	HOOK	3f
	jmp	*%rbx
	EXPECT	14, error=0x15, cs=SEL_USER_CODE, cr2=(8f-image_start+LOAD+KERNEL_HIGH)
	.set	WORLD, 0
3:	DONE
	.balign	16
8:	ret

/* LSTAR, SFMASK and EFER.SCE may change from one to the next, in the same code. */
	CASE	syscall_changes, NEED_SMAP | NOT_QEMU
	mov	%cr4, %rax
	or	$0x200000, %eax
	mov	%rax, %cr4
	xor	%r13d, %r13d
	mov	$40, %r12d
	SET_MSR	0xc0000082, ADDR(10f), 0
	SET_MSR	0xc0000084, 0x257fd5
	TO_USER
1:	push	$0x42			/* ZF */
	popfq
	syscall
	dec	%r12d
	jnz	1b
	EXPECT	6, cs=SEL_CODE		/* SYSRET, below */
	RESUME	4f
3:	syscall
	EXPECT	6, rip=3b, cs=SEL_USER_CODE
4:	HOOK	5f
	ud2
	EXPECT	6
	.set	WORLD, 0
5:	REPORT	%r13
	WANT	0x28000014
	DONE
10:	mov	$1, %ebx
	mov	$ADDR(11f), %eax
	mov	$0x44700, %ebp
	jmp	12f
11:	mov	$0x2000001, %ebx
	mov	$ADDR(10b), %eax
	mov	$0x257fd5, %ebp
12:	setnz	%dl			/* SFMASK had it cleared */
	movzbl	%dl, %edx
	sub	%rdx, %rbx
	add	%rbx, %r13
	mov	%rcx, %r14
	mov	$0xc0000082, %ecx
	xor	%edx, %edx
	wrmsr
	mov	%ebp, %eax
	mov	$0xc0000084, %ecx
	wrmsr
	cmp	$1, %r12d
	jne	13f
	SET_MSR	0xc0000080, 0xd00
	mov	$SYS_STACK, %esp
	RESUME	14f
	sysretq
14:	pushq	$SEL_USER_DATA
	pushq	$SYS_STACK_USER + USER
	pushq	$2
	pushq	$SEL_USER_CODE
	push	%r14
	iretq
13:	mov	%r14, %rcx
	sysretq

/* Without EFER.SCE neither exists. */
	CASE	syscall_disabled
	SET_MSR	0xc0000080, 0xd00
	FAULT	6, 0, syscall
	FAULT	6, 0, sysretq
	TO_USER
	RESUME	2f
1:	syscall
	EXPECT	6, rip=1b, cs=SEL_USER_CODE
2:	HOOK	3f
	ud2
	EXPECT	6
	.set	WORLD, 0
3:	DONE

/* AMD has no SYSENTER in long mode; KVM intercepts the #UD and then does not know what to do. */
	CASE	sysenter_amd, NEED_AMD | NOT_KVM
	SET_MSR	0x174, SEL_CODE
	FAULT	6, 0, sysenter
	TO_USER
	FAULT	6, 0, sysenter
	DONE

	CASE	sysenter_intel, NEED_INTEL
	SET_MSR	0x174, SEL_CODE
	SET_MSR	0x175, SYS_STACK
	SET_MSR	0x176, ADDR(1f)
	TO_USER
	sysenter
	.set	WORLD, 0
1:	mov	%rsp, %rbp
	REPORT	%rbp
	WANT	SYS_STACK
	mov	%cs, %eax
	REPORT	%rax
	WANT	SEL_CODE
	DONE

	CASE	swapgs
	SET_MSR	0xc0000101, 0x11223344, 0x00005566
	SET_MSR	0xc0000102, SYS_DATA
	movq	$0x1234567, SYS_DATA + 8
	swapgs
	mov	%gs:8, %rax
	REPORT	%rax
	WANT	0x1234567
	mov	$0xc0000102, %ecx
	rdmsr
	shl	$32, %rdx
	or	%rdx, %rax
	REPORT	%rax
	WANT	0x556611223344
	swapgs
	mov	$0xc0000101, %ecx
	rdmsr
	shl	$32, %rdx
	or	%rdx, %rax
	REPORT	%rax
	WANT	0x556611223344
	SET_MSR	0xc0000100, SYS_DATA, 0
	mov	%fs:8, %rax
	REPORT	%rax
	WANT	0x1234567
	DONE

/* A base must be canonical; QEMU's may be anything. */
	CASE	base_msrs, NOT_QEMU
	mov	$0xc0000100, %ecx
	xor	%eax, %eax
	mov	$0x8000, %edx
	FAULT	13, 0, wrmsr
	inc	%ecx
	FAULT	13, 0, wrmsr
	inc	%ecx
	FAULT	13, 0, wrmsr
	mov	$0xc0000082, %ecx
	FAULT	13, 0, wrmsr
	mov	$0xffff8000, %edx
	wrmsr
	rdmsr
	REPORT	%rdx
	WANT	0xffff8000
	DONE

	CASE	fsgsbase, NEED_FSGSBASE
	mov	%cr4, %rax
	and	$~0x10000, %rax
	mov	%rax, %cr4
	FAULT	6, 0, rdfsbase %rax
	mov	%cr4, %rax
	or	$0x10000, %rax
	mov	%rax, %cr4
	TO_USER
	mov	$SYS_DATA + USER, %eax
	movq	$0x5577, 16(%rax)
	wrfsbase %rax
	wrgsbase %rax
	mov	%fs:16, %rbx
	REPORT	%rbx
	WANT	0x5577
	mov	%gs:16, %rbx
	REPORT	%rbx
	WANT	0x5577
	mov	$0x7fff11112222, %rax
	wrfsbase %rax
	rdfsbase %rbx
	REPORT	%rbx
	WANT	0x7fff11112222
	rdfsbase %ebx
	REPORT	%rbx
	WANT	0x11112222
	mov	$-1, %rax
	wrgsbase %eax
	rdgsbase %rbx
	REPORT	%rbx
	WANT	0xffffffff
	TO_KERNEL
	mov	$0xc0000100, %ecx
	rdmsr
	REPORT	%rax
	WANT	0x11112222
	DONE

/* Among other instructions: flags stay, r10 and r11 too, and whoever looks at memory on both sides finds it. */
	.macro	SEGMENT_VALUES
	xor	%ebx, %ebx
	mov	$3, %r12d
	mov	$0x1234567890, %r14
1:	add	(%rsi), %rbx
	add	(%rdi), %rbx
	mov	%ss, %r10
	mov	%ss, %r11
	add	8(%rsi), %rbx
	add	8(%rdi), %rbx
	jmp	2f
2:	nop
	add	(%rsi), %rbx
	add	(%rdi), %rbx
	rdgsbase %r10
	rdgsbase %r11
	add	8(%rsi), %rbx
	add	8(%rdi), %rbx
	jmp	2f
2:	nop
	add	(%rsi), %rbx
	add	(%rdi), %rbx
	mov	$-1, %rax
	mov	%cs, %eax
	add	8(%rsi), %rbx
	add	8(%rdi), %rbx
	add	%rax, %rbx
	mov	$-1, %r10
	mov	%ss, %r10
	mov	$-1, %r11
	mov	%cs, %r11d
	add	%r10, %rbx
	add	%r11, %rbx
	add	(%rsi), %rbx
	add	(%rdi), %rbx
	mov	%r14, %r10
	wrfsbase %r10
	add	8(%rsi), %rbx
	add	8(%rdi), %rbx
	add	%r10, %rbx
	rdfsbase %r11
	add	%r11, %rbx
	wrgsbase %r11d
	add	%r10, %rbx
	rdgsbase %r10
	add	%r10, %rbx
	rdfsbase %r10d
	add	%r10, %rbx
	mov	$0x7fffffff, %ecx
	add	$1, %ecx	/* PF, AF, SF, OF */
	wrfsbase %r14
	pushfq
	pop	%rcx
	and	$~0x200, %ecx
	add	%rcx, %rbx
	mov	$0x7fffffff, %ecx
	add	$1, %ecx
	rdgsbase %rax
	mov	%ss, %edx
	pushfq
	pop	%rcx
	and	$~0x200, %ecx
	add	%rcx, %rbx
	dec	%r12d
	jnz	1b
	REPORT	%rbx
	.endm
#define SEGMENT_SUM(code, data)	\
	(3 * (8 * 0x1100 + 8 * 0x22 + 2 * (code) + (data) + 3 * 0x1234567890 + 2 * 0x34567890 + 2 * 0x896))
	CASE	segment_values, NEED_FSGSBASE
	mov	%cr4, %rax
	or	$0x10000, %rax
	mov	%rax, %cr4
	mov	$SYS_DATA, %esi
	mov	%rsi, %rdi
	movq	$0x1100, (%rsi)
	movq	$0x22, 8(%rsi)
	SEGMENT_VALUES
	WANT	SEGMENT_SUM(SEL_CODE, SEL_DATA)
	TO_USER
	mov	$SYS_DATA + USER, %esi
	mov	%rsi, %rdi
	SEGMENT_VALUES
	WANT	SEGMENT_SUM(SEL_USER_CODE, SEL_USER_DATA)
	DONE

	CASE	fsgsbase_not_canonical, NEED_FSGSBASE | NOT_QEMU
	mov	%cr4, %rax
	or	$0x10000, %rax
	mov	%rax, %cr4
	TO_USER
	mov	$0x7fff11112222, %rax
	wrfsbase %rax
	mov	$0x800000000000, %rax
	FAULT	13, 0, wrfsbase %rax
	FAULT	13, 0, wrgsbase %rax
	rdfsbase %rbx
	REPORT	%rbx
	WANT	0x7fff11112222
	DONE

/* IRETQ in one ring: all five words are popped; flags as pushed, but for what ring 0 may not set. */
	CASE	iret_same
	pushq	$SEL_DATA
	pushq	$SYS_STACK - 0x100
	pushq	$0x240ed7
	pushq	$SEL_CODE
	pushq	$ADDR(1f)
	iretq
1:	pushfq
	cld
	mov	(%rsp), %rbx
	REPORT	%rbx
	WANT	0x240ed7
	mov	%rsp, %rbx
	REPORT	%rbx
	WANT	SYS_STACK - 0x108
	pushq	$0		/* null SS is well in ring 0 of 64-bit mode */
	pushq	$SYS_STACK
	pushq	$2
	pushq	$SEL_CODE
	pushq	$ADDR(1f)
	iretq
1:	mov	%ss, %eax
	REPORT	%rax
	WANT	0
	int	$0x41		/* and stays so in frames */
1:	EXPECT	0x41, rip=1b, ss=0, rsp=SYS_STACK
	mov	$SEL_DATA, %eax
	mov	%eax, %ss
	DONE

/* IRET with 32-bit operands, in 64-bit mode too pops five (Bochs: three). */
	CASE	iretl, NOT_BOCHS
	sub	$20, %rsp
	movl	$ADDR(1f), (%rsp)
	movl	$SEL_CODE, 4(%rsp)
	movl	$0x12, 8(%rsp)
	movl	$SYS_STACK - 0x200, 12(%rsp)
	movl	$SEL_DATA, 16(%rsp)
	iretl
1:	mov	%rsp, %rbx
	REPORT	%rbx
	WANT	SYS_STACK - 0x200
	DONE

	.macro	IRET_FRAME cs, ss, rip=0x100000, rsp=SYS_STACK_USER, flags=2
	mov	$SYS_STACK, %esp
	pushq	$\ss
	pushq	$\rsp
	pushq	$\flags
	pushq	$\cs
	mov	$\rip, %rax
	push	%rax
	.endm
	.macro	BAD_IRET vector, error, frame:vararg
	IRET_FRAME \frame
	RESUME	2f
1:	iretq
	EXPECT	\vector, error=\error, rip=1b, cs=SEL_CODE, rsp=(SYS_STACK-40)
2:
	.endm
	CASE	iret_faults
	BAD_IRET 13, 0, 0, SEL_DATA
	BAD_IRET 13, SEL_DATA, SEL_DATA, SEL_DATA
	BAD_IRET 13, 0xf8, 0xf8, SEL_DATA
	BAD_IRET 11, SEL_ABSENT_CODE, SEL_ABSENT_CODE, SEL_DATA
	BAD_IRET 13, 0, SEL_USER_CODE, 0
	BAD_IRET 13, SEL_DATA, SEL_USER_CODE, SEL_DATA
	BAD_IRET 13, 0x60, SEL_USER_CODE, (SEL_EXEC_ONLY+3)
	BAD_IRET 13, 0x68, SEL_USER_CODE, (SEL_READ_ONLY+3)
	BAD_IRET 13, 0x28, (SEL_USER_CODE-3), SEL_DATA	/* DPL 3 as ring 0's */
	mov	$SYS_STACK, %esp
	pushfq
	orl	$0x4000, (%rsp)
	popfq
	IRET_FRAME SEL_USER_CODE, SEL_USER_DATA	/* NT: no tasks in long mode */
	RESUME	2f
1:	iretq
	EXPECT	13, error=0, rip=1b, fset=0x4000
2:	pushfq
	andl	$~0x4000, (%rsp)
	popfq
	DONE

/* To an address that is not canonical: #GP in the old ring (QEMU: at the new rip). */
	CASE	iret_not_canonical, NOT_QEMU
	BAD_IRET 13, 0, SEL_USER_CODE, SEL_USER_DATA, 0x800000000000
	DONE

/* In ring 3 IRET and POPF change neither IOPL nor, without it, IF. */
	CASE	flags_user
	TO_USER	0x202
	pushq	$0x3002
	popfq
	pushfq
	pop	%rbx
	REPORT	%rbx
	WANT	0x202
	pushq	$SEL_USER_DATA
	pushq	$SYS_STACK_USER + USER
	pushq	$0x203cd7
	pushq	$SEL_USER_CODE
	pushq	$ADDR(1f)
	iretq
1:	pushfq
	pop	%rbx
	cld
	REPORT	%rbx
	WANT	0x200ed7
	pushq	$0x2
	popfq
	pushw	$0x3cd7		/* 16 bits */
	popfw
	pushfq
	pop	%rbx
	cld
	REPORT	%rbx
	WANT	0xed7
	DONE

/* IRETQ in ring 3, to ring 3. To ring 0 it cannot. */
	CASE	iret_user
	TO_USER
	mov	$SYS_STACK_USER + USER, %esp
	pushq	$SEL_DATA
	pushq	$SYS_STACK
	pushq	$2
	pushq	$SEL_CODE
	pushq	$0x100000
	RESUME	2f
1:	iretq
	EXPECT	13, error=SEL_CODE, rip=1b, cs=SEL_USER_CODE
2:	DONE

/* Data segments: null, absent, wrong, beyond the table. */
	CASE	load_data
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%eax, %ss
	mov	SYS_DATA, %rbx		/* null is well in 64-bit mode */
	push	%rbx
	pop	%rbx
	mov	$3, %eax
	mov	%eax, %ds
	mov	%ds, %ecx
	REPORT	%rcx
	WANT	3
	mov	$SEL_DATA, %eax
	mov	%eax, %ss
	mov	$SEL_ABSENT, %eax
	FAULT	11, SEL_ABSENT, mov %eax, %ds
	FAULT	12, SEL_ABSENT, mov %eax, %ss
	mov	$SEL_EXEC_ONLY, %eax
	FAULT	13, SEL_EXEC_ONLY, mov %eax, %es
	FAULT	13, SEL_EXEC_ONLY, mov %eax, %ss
	mov	$SEL_READ_ONLY, %eax
	mov	%eax, %es
	FAULT	13, SEL_READ_ONLY, mov %eax, %ss
	mov	$SEL_CODE, %eax		/* readable code */
	mov	%eax, %ds
	FAULT	13, SEL_CODE, mov %eax, %ss
	mov	$SEL_TSS, %eax
	FAULT	13, SEL_TSS, mov %eax, %fs
	mov	$SEL_END, %eax
	FAULT	13, SEL_END, mov %eax, %gs
	mov	$SEL_END + 3, %eax	/* RPL is not in the error code */
	FAULT	13, SEL_END, mov %eax, %gs
	mov	$SEL_USER_DATA, %eax	/* RPL and DPL 3 in ring 0: for data yes, for SS no */
	mov	%eax, %ds
	FAULT	13, (SEL_USER_DATA-3), mov %eax, %ss
	mov	$SEL_DATA, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	DONE

/* A null SS must have the ring's RPL; LTR takes no null. Not so QEMU. */
	CASE	load_null, NOT_QEMU
	mov	$3, %eax
	FAULT	13, 0, mov %eax, %ss
	xor	%eax, %eax
	FAULT	13, 0, ltr %ax
	DONE

	CASE	load_data_user
	TO_USER
	mov	$SEL_DATA, %eax
	FAULT	13, SEL_DATA, mov %eax, %ds
	mov	$SEL_DATA + 3, %eax
	FAULT	13, SEL_DATA, mov %eax, %es
	FAULT	13, SEL_DATA, mov %eax, %ss
	mov	$SEL_USER_DATA - 3, %eax	/* RPL 0: weaker than ring 3 is */
	mov	%eax, %ds
	FAULT	13, (SEL_USER_DATA-3), mov %eax, %ss
	xor	%eax, %eax
	FAULT	13, 0, mov %eax, %ss
	mov	$SEL_CONFORMING + 3, %eax
	mov	%eax, %es
	mov	%es, %ecx
	REPORT	%rcx
	WANT	SEL_CONFORMING + 3
	mov	$SEL_BASED_32, %eax	/* FS and GS have bases */
	mov	$0x4321, %ebx
	mov	%rbx, SYS_DATA + USER + 0x20
	mov	%eax, %fs
	mov	%fs:0x20, %rcx
	REPORT	%rcx
	WANT	0x4321
	DONE

/* Loading sets the descriptor's accessed bit. */
	CASE	accessed_bit
	andb	$~1, SYS_GDT + SEL_READ_ONLY + 5
	mov	$SEL_READ_ONLY, %eax
	mov	%eax, %es
	movzbl	SYS_GDT + SEL_READ_ONLY + 5, %eax
	REPORT	%rax
	WANT	0xf1
	DONE

	CASE	ldt
	mov	$0xf, %eax
	FAULT	13, 0xc, mov %eax, %es	/* no LDT */
	mov	$SEL_LDT, %eax
	lldt	%ax
	sldt	%ecx
	REPORT	%rcx
	WANT	SEL_LDT
	mov	$0xf, %eax
	mov	%eax, %es
	mov	$0x1c, %eax
	mov	%eax, %ss
	mov	$0x34, %eax
	FAULT	13, 0x34, mov %eax, %es	/* beyond its limit */
	mov	$SEL_DATA, %eax
	FAULT	13, SEL_DATA, lldt %ax
	mov	$SEL_TSS, %eax
	FAULT	13, SEL_TSS, lldt %ax
	mov	$0xc, %eax
	FAULT	13, 0xc, lldt %ax
	andb	$0x7f, SYS_GDT + SEL_LDT + 5
	mov	$SEL_LDT, %eax
	FAULT	11, SEL_LDT, lldt %ax
	mov	$SEL_DATA, %ecx
	mov	%ecx, %ss
	pushq	$0xf		/* a user with code and data of the LDT */
	pushq	$SYS_STACK_USER + USER
	pushq	$2
	pushq	$0x17
	pushq	$ADDR(1f) + USER
	iretq
1:	.set	WORLD, USER
	RESUME	2f
1:	ud2
	EXPECT	6, rip=1b, cs=0x17, ss=0xf
2:	TO_KERNEL
	xor	%eax, %eax
	lldt	%ax
	mov	$0xf, %eax
	FAULT	13, 0xc, mov %eax, %es
	DONE

	CASE	ltr
	mov	$SEL_TSS, %eax
	FAULT	13, SEL_TSS, ltr %ax	/* it is busy */
	mov	$SEL_LDT, %eax
	FAULT	13, SEL_LDT, ltr %ax
	andb	$~2, SYS_GDT + SEL_TSS + 5
	mov	$SEL_TSS, %eax
	ltr	%ax
	movzbl	SYS_GDT + SEL_TSS + 5, %eax
	REPORT	%rax
	WANT	0x8b
	str	%ecx
	REPORT	%rcx
	WANT	SEL_TSS
	TO_USER
	FAULT	6, 0, ud2
	DONE

	CASE	descriptor_tables
	sgdt	SYS_DATA
	mov	SYS_DATA + 2, %rax
	REPORT	%rax
	WANT	SYS_GDT
	movzwl	SYS_DATA, %eax
	REPORT	%rax
	WANT	SEL_END - 1
	sidt	SYS_DATA
	mov	SYS_DATA + 2, %rax
	REPORT	%rax
	WANT	SYS_IDT
	mov	$SYS_GDT, %esi		/* a copy, in the kernel's half */
	mov	$SYS_DATA + 0x100, %edi
	mov	$SEL_END, %ecx
	rep movsb
	movw	$SEL_END - 1, SYS_DATA
	mov	$KERNEL_HIGH + SYS_DATA + 0x100, %rax
	mov	%rax, SYS_DATA + 2
	lgdt	SYS_DATA
	mov	$SEL_ABSENT, %eax
	FAULT	11, SEL_ABSENT, mov %eax, %es
	orb	$0x80, SYS_DATA + 0x100 + SEL_ABSENT + 5
	mov	%eax, %es
	sgdt	SYS_DATA + 0x20
	mov	SYS_DATA + 0x22, %rax
	REPORT	%rax
	WANT	KERNEL_HIGH + SYS_DATA + 0x100
	DONE

	CASE	tables_not_canonical, NOT_QEMU
	mov	$0x800000000000, %rax
	mov	%rax, SYS_DATA + 2
	FAULT	13, 0, lgdt SYS_DATA
	FAULT	13, 0, lidt SYS_DATA
	DONE

/* LAR, LSL, VERR, VERW: what ring 3 may know. */
	CASE	verify
	TO_USER
	mov	$SEL_USER_DATA, %eax
	xor	%ecx, %ecx
	lar	%eax, %ecx
	and	$0xf0ff00, %ecx		/* the rest is undefined */
	REPORT	%rcx
	WANT	0xc0f300
	lsl	%eax, %ecx
	REPORT	%rcx
	WANT	0xffffffff
	verw	%ax
	setz	%cl
	movzbl	%cl, %ecx
	REPORT	%rcx
	WANT	1
	mov	$SEL_READ_ONLY + 3, %eax
	verw	%ax
	setz	%cl
	verr	%ax
	setz	%ch
	movzwl	%cx, %ecx
	REPORT	%rcx
	WANT	0x100
	mov	$SEL_DATA, %eax
	mov	$7, %ecx
	lar	%eax, %ecx		/* DPL 0: unknown, and ecx stays */
	setz	%bl
	movzbl	%bl, %ebx
	REPORT	%rbx
	WANT	0
	REPORT	%rcx
	WANT	7
	TO_KERNEL
	mov	$SEL_TSS, %eax
	lsl	%eax, %ecx
	REPORT	%rcx
	WANT	0x2fff
	lar	%eax, %ecx
	and	$0xf0ff00, %ecx
	REPORT	%rcx
	WANT	0x8b00
	mov	$SEL_GATE, %eax
	lar	%eax, %ecx
	and	$0xff00, %ecx
	REPORT	%rcx
	WANT	0xec00
	mov	$5, %ecx
	lsl	%eax, %ecx
	REPORT	%rcx
	WANT	5
	DONE

	CASE	umip, NEED_UMIP
	mov	%cr4, %rax
	or	$0x800, %eax
	mov	%rax, %cr4
	sgdt	SYS_DATA
	TO_USER
	mov	$SYS_DATA + USER, %eax
	FAULT	13, 0, sgdt (%rax)
	FAULT	13, 0, sidt (%rax)
	FAULT	13, 0, sldt %ecx
	FAULT	13, 0, str %ecx
	DONE

	CASE	umip_smsw, NEED_UMIP | NOT_BOCHS
	mov	%cr4, %rax
	or	$0x800, %eax
	mov	%rax, %cr4
	TO_USER
	FAULT	13, 0, smsw %ecx
	DONE

/* Through a call gate, from ring 3 (stack of RSP0) and from ring 0. */
	CASE	call_gate
	movw	$SEL_GATE, SYS_DATA + 4
	lcall	*SYS_DATA
	WANT	SEL_CODE
	WANT	SYS_STACK - 16
	WANT	SEL_CODE
	movl	$ADDR(1f) + USER, SYS_DATA + 8
	TO_USER
	movw	$SEL_GATE + 3, SYS_DATA + USER + 4
	mov	$SYS_STACK_USER + USER - 64, %esp
	lcall	*SYS_DATA + USER
1:	WANT	SEL_CODE
	WANT	SYS_STACK_RSP0 - 32
	WANT	SEL_USER_CODE
	mov	%rsp, %rbx
	REPORT	%rbx
	WANT	SYS_STACK_USER + USER - 64
	mov	%cs, %eax
	REPORT	%rax
	WANT	SEL_USER_CODE
	DONE

/* SS is null in the gate's ring, whatever it was; and a jump through a gate leaves the stack alone. */
	CASE	call_gate_stack
	movl	$ADDR(2f), %eax
	mov	%ax, SYS_GDT + SEL_GATE
	shr	$16, %eax
	mov	%ax, SYS_GDT + SEL_GATE + 6
	movw	$SEL_GATE, SYS_DATA + 4
	movw	$SEL_GATE + 3, SYS_DATA + 12
	xor	%ebx, %ebx
	ljmpl	*SYS_DATA
2:	mov	%ss, %eax
	mov	%rsp, %rcx
	test	%ebx, %ebx
	jnz	3f
	REPORT	%rax
	WANT	SEL_DATA
	REPORT	%rcx
	WANT	SYS_STACK
	TO_USER
	mov	$1, %ebx
	lcall	*SYS_DATA + USER + 8
	.set	WORLD, 0
3:	REPORT	%rax
	WANT	0
	REPORT	%rcx
	WANT	SYS_STACK_RSP0 - 32
	mov	24(%rsp), %rax
	REPORT	%rax
	WANT	SEL_USER_DATA
	mov	16(%rsp), %rax
	REPORT	%rax
	WANT	SYS_STACK_USER + USER
	DONE

/* What is wrong with a gate, with its selector; and what with its target, with that. */
	CASE	call_gate_faults
	movw	$SEL_GATE + 3, SYS_DATA + 4
	andb	$0x9f, SYS_GDT + SEL_GATE + 5	/* DPL 0 */
	FAULT	13, SEL_GATE, lcall *SYS_DATA
	FAULT	13, SEL_GATE, ljmpl *SYS_DATA
	orb	$0x60, SYS_GDT + SEL_GATE + 5
	andb	$0x7f, SYS_GDT + SEL_GATE + 5
	FAULT	11, SEL_GATE, lcall *SYS_DATA
	orb	$0x80, SYS_GDT + SEL_GATE + 5
	movw	$0, SYS_GDT + SEL_GATE + 2
	FAULT	13, 0, lcall *SYS_DATA
	movw	$SEL_DATA, SYS_GDT + SEL_GATE + 2
	FAULT	13, SEL_DATA, lcall *SYS_DATA
	movw	$SEL_CODE_32, SYS_GDT + SEL_GATE + 2
	FAULT	13, SEL_CODE_32, lcall *SYS_DATA
	movw	$SEL_ABSENT_CODE, SYS_GDT + SEL_GATE + 2
	FAULT	11, SEL_ABSENT_CODE, lcall *SYS_DATA
	movw	$SEL_USER_CODE, SYS_GDT + SEL_GATE + 2
	FAULT	13, (SEL_USER_CODE-3), lcall *SYS_DATA
	movw	$SEL_TSS, SYS_DATA + 4
	FAULT	13, SEL_TSS, lcall *SYS_DATA
	movw	$SEL_LDT, SYS_DATA + 4
	FAULT	13, SEL_LDT, ljmpl *SYS_DATA
	movw	$SEL_CODE, SYS_GDT + SEL_GATE + 2
	movw	$SEL_GATE + 3, SYS_DATA + 4
	TO_USER
	FAULT	13, SEL_CODE, ljmpl *SYS_DATA + USER
	DONE

/* ... that QEMU does not look for: the type in the upper half, a target that is not canonical. */
	CASE	call_gate_odd, NOT_QEMU
	movw	$SEL_GATE, SYS_DATA + 4
	movb	$1, SYS_GDT + SEL_GATE + 13
	FAULT	13, SEL_GATE, lcall *SYS_DATA
	movb	$0, SYS_GDT + SEL_GATE + 13
	movw	$0x8000, SYS_GDT + SEL_GATE + 8
	FAULT	13, 0, lcall *SYS_DATA
	DONE

/* The stack of the inner ring is not there, or cannot be. */
	CASE	call_gate_stack_faults
	movw	$SEL_GATE + 3, SYS_DATA + 4
	movb	$1, SYS_IDT + 12 * 16 + 4
	movb	$1, SYS_IDT + 14 * 16 + 4
	movq	$SYS_WINDOW + 0x1000, SYS_TSS + 4
	TO_USER
	PAGE_FAULT 2, (SYS_WINDOW+0xff8), lcall *SYS_DATA + USER
	DONE

	CASE	call_gate_stack_not_canonical, NOT_QEMU
	movw	$SEL_GATE + 3, SYS_DATA + 4
	movb	$1, SYS_IDT + 12 * 16 + 4
	movw	$0x8000, SYS_TSS + 10
	TO_USER
	RESUME	2f
1:	lcall	*SYS_DATA + USER
	EXPECT	12, rip=1b, cs=SEL_USER_CODE, rsp=(SYS_STACK_USER+USER)
2:	DONE

/* SYSRET to what is not canonical: Intel's faults itself; AMD's goes there, and ring 3 faults. */
	CASE	sysret_not_canonical_amd, NEED_AMD
	movb	$1, SYS_IDT + 13 * 16 + 4
	mov	$0x800000000000, %rcx
	mov	$2, %r11d
	mov	$SYS_STACK_USER + USER, %esp
	HOOK	1f
	sysretq
	EXPECT	13, error=0, cs=SEL_USER_CODE, rip=(image_start+0x800000000000-LOAD), hrsp=SYS_STACK_IST1
1:	DONE

	CASE	sysret_not_canonical_intel, NEED_INTEL
	mov	$0x800000000000, %rcx
	mov	$2, %r11d
	FAULT	13, 0, sysretq
	DONE

/* SYSEXIT, to 64-bit and to 32-bit code; and where it and SYSENTER have no selector. */
	CASE	sysexit_intel, NEED_INTEL
	SET_MSR	0x174, 0
	FAULT	13, 0, sysenter
	FAULT	13, 0, sysexitq
	SET_MSR	0x174, SEL_CODE		/* 32-bit: SEL_USER_32 and SEL_USER_DATA; 64-bit: SEL_USER_CODE */
	mov	$SYS_STACK_USER + USER, %ecx
	mov	$0x800000000000, %rdx
	FAULT	13, 0, sysexitq
	xchg	%rcx, %rdx
	FAULT	13, 0, sysexitq
	mov	$SYS_STACK_USER + USER, %ecx
	mov	$ADDR(1f) + USER, %edx
	sysexitq
1:	.set	WORLD, USER
	mov	%rsp, %rbx
	REPORT	%rbx
	WANT	SYS_STACK_USER + USER
	mov	%cs, %eax
	REPORT	%rax
	WANT	SEL_USER_CODE
	mov	%ss, %eax
	REPORT	%rax
	WANT	SEL_USER_CODE + 8
	DONE

/* Far jumps: to compatibility mode and back, and what they refuse. */
	CASE	far_jump
	movl	$ADDR(1f), SYS_DATA
	movw	$SEL_CODE_32, SYS_DATA + 4
	ljmpl	*SYS_DATA
	.code32
1:	mov	$0x12345678, %ebx
	.byte	0x48		/* dec %eax here, REX there */
	inc	%ebx
	mov	%cs, %ecx
	ljmp	$SEL_CODE, $ADDR(1f)
	.code64
1:	REPORT	%rbx
	WANT	0x12345679
	REPORT	%rcx
	WANT	SEL_CODE_32
	movw	$0, SYS_DATA + 4
	FAULT	13, 0, ljmpl *SYS_DATA
	movw	$SEL_DATA, SYS_DATA + 4
	FAULT	13, SEL_DATA, ljmpl *SYS_DATA
	movw	$SEL_ABSENT_CODE, SYS_DATA + 4
	FAULT	11, SEL_ABSENT_CODE, ljmpl *SYS_DATA
	movw	$SEL_USER_CODE, SYS_DATA + 4
	FAULT	13, (SEL_USER_CODE-3), ljmpl *SYS_DATA
	movw	$SEL_END, SYS_DATA + 4
	FAULT	13, SEL_END, ljmpl *SYS_DATA
	movl	$ADDR(1f), SYS_DATA
	movw	$SEL_CODE, SYS_DATA + 4
	lcall	*SYS_DATA
	DONE
1:	mov	4(%rsp), %ecx		/* the 32-bit form pushes 32-bit words */
	REPORT	%rcx
	WANT	SEL_CODE
	lretl
	DONE

/* LRETQ to ring 3 and its refusals. */
	CASE	far_return
	pushq	$SEL_USER_DATA
	pushq	$SYS_STACK_USER + USER - 8
	pushq	$SEL_USER_CODE
	pushq	$ADDR(1f) + USER
	lretq	$0
1:	.set	WORLD, USER
	mov	%rsp, %rbx
	REPORT	%rbx
	WANT	SYS_STACK_USER + USER - 8
	RESUME	2f
1:	ud2
	EXPECT	6, rip=1b, cs=SEL_USER_CODE, ss=SEL_USER_DATA
2:	TO_KERNEL
	pushq	$0
	pushq	$ADDR(1f)
	FAULT	13, 0, lretq
	movw	$SEL_DATA, 8(%rsp)
	FAULT	13, SEL_DATA, lretq
1:	movw	$SEL_CODE, 8(%rsp)
	movq	$ADDR(1f), (%rsp)
	lretq	$16
1:	mov	%rsp, %rbx
	REPORT	%rbx
	WANT	SYS_STACK + 16
	DONE

/* A return to ring 3 clears the segments that ring 3 could not have loaded. */
	CASE	return_clears
	mov	$SEL_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	$SEL_USER_DATA, %eax
	mov	%eax, %fs
	TO_USER
	mov	%ds, %eax
	REPORT	%rax
	WANT	0
	mov	%es, %eax
	REPORT	%rax
	WANT	0
	mov	%fs, %eax
	REPORT	%rax
	WANT	SEL_USER_DATA
	DONE

/* Control registers and EFER: reserved bits, and what long mode does not allow. */
	CASE	control_registers
	mov	%cr0, %rbx
	mov	%rbx, %rax
	btr	$31, %rax
	FAULT	13, 0, mov %rax, %cr0	/* PG off in 64-bit mode */
	lea	-1(%rbx), %rax
	FAULT	13, 0, mov %rax, %cr0	/* PE off with PG on */
	mov	%rbx, %rax
	bts	$29, %rax
	FAULT	13, 0, mov %rax, %cr0	/* NW without CD */
	mov	%cr4, %rbx
	mov	%rbx, %rax
	btr	$5, %rax
	FAULT	13, 0, mov %rax, %cr4	/* PAE off */
	mov	%rbx, %rax
	bts	$31, %rax
	FAULT	13, 0, mov %rax, %cr4
	mov	$16, %eax
	FAULT	13, 0, mov %rax, %cr8
	mov	$7, %eax
	mov	%rax, %cr8
	mov	%cr8, %rcx
	REPORT	%rcx
	WANT	7
	mov	$0x123456789abcdef0, %rax
	mov	%rax, %cr2
	mov	%cr2, %rcx
	REPORT	%rcx
	WANT	0x123456789abcdef0
	mov	$0xc0000080, %ecx
	rdmsr
	REPORT	%rax
	WANT	0xd01
	and	$~0x100, %eax
	FAULT	13, 0, wrmsr		/* LME with paging on */
	mov	$0xd03, %eax
	FAULT	13, 0, wrmsr
	xor	%eax, %eax
	smsw	%eax
	and	$0xf, %eax
	REPORT	%rax
	WANT	3
	mov	$0xfff0, %eax		/* LMSW cannot clear PE, sets TS, EM and MP only */
	lmsw	%ax
	mov	%cr0, %rax
	and	$0xf003f, %eax
	REPORT	%rax
	WANT	0x50031
	DONE

/*
 * AMD's CPUs take MOV CR0 with LOCK for CR8's; 32-bit code has no other way to it. On QEMU KVM has to emulate it, and
 * does not know it.
 */
	CASE	lock_cr8, NEED_CR8_LOCK | NOT_QEMU
	mov	$9, %eax
	.byte	0xf0, 0x0f, 0x22, 0xc0	/* lock mov %rax, %cr0 */
	mov	%cr8, %rcx
	REPORT	%rcx
	WANT	9
	mov	$6, %eax
	mov	%rax, %cr8
	.byte	0xf0, 0x0f, 0x20, 0xc3	/* lock mov %cr0, %rbx */
	REPORT	%rbx
	WANT	6
	xor	%ebx, %ebx
	.byte	0x41, 0xf0, 0xf0, 0x0f, 0x20, 0xc3	/* a REX counts right in front of the opcode only */
	REPORT	%rbx
	WANT	6
	mov	$16, %eax
	FAULT	13, 0, .byte 0xf0, 0x0f, 0x22, 0xc0
	FAULT	6, 0, .byte 0xf0, 0x0f, 0x22, 0xd8	/* CR3 has no such meaning */
	TO_USER
	FAULT	13, 0, .byte 0xf0, 0x0f, 0x20, 0xc3
	DONE

/* Bits above 31, which QEMU does not look at. */
	CASE	control_registers_high, NOT_QEMU
	mov	%cr0, %rax
	bts	$32, %rax
	FAULT	13, 0, mov %rax, %cr0
	mov	%cr4, %rax
	bts	$40, %rax
	FAULT	13, 0, mov %rax, %cr4
	DONE

	CASE	unknown_msrs
	mov	$0x12345, %ecx
	FAULT	13, 0, rdmsr
	FAULT	13, 0, wrmsr
	mov	$0xc0012345, %ecx
	FAULT	13, 0, rdmsr
	mov	$0x277, %ecx		/* PAT: types 2 and 3 do not exist */
	mov	$0x02020202, %eax
	xor	%edx, %edx
	FAULT	13, 0, wrmsr
	DONE

	END_IMAGE privilege
