/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compatibility mode: 32-bit programs in ring 3 under a 64-bit kernel (SDM vol. 3, 5.2.1; vol. 2 at each instruction).
 * The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

	.macro	CHECK_USER_32
	mov	%cs, %eax
	REPORT32
	WANT	SEL_USER_32
	mov	%ss, %eax
	REPORT32
	WANT	SEL_USER_DATA
	.endm

	.macro	FAULT32 vector, error, code:vararg
	movl	$ADDR(76f), SYS_RESUME + USER
75:	\code
	EXPECT	\vector, error=\error, rip=75b, cs=SEL_USER_32
76:
	.endm

	IMAGE	compat
gate_target:
	mov	%rsp, %rax
	REPORT	%rax
	mov	(%rsp), %rax
	REPORT	%rax
	mov	8(%rsp), %rax
	REPORT	%rax
	mov	16(%rsp), %rax
	REPORT	%rax
	lretq

	CASE	system_calls
	mov	$0x1122334455667788, %rbx
	TO_COMPAT
	inc	%ebx
	int	$0x80
1:	EXPECT	0x80, rip=1b, cs=SEL_USER_32, ss=SEL_USER_DATA, rsp=SYS_STACK_USER+USER, hrsp=SYS_STACK_RSP0
	mov	%ebx, %eax
	REPORT32
	WANT	0x55667789
	FAULT32	13, 0x41*8+2, int $0x41
	int3
1:	EXPECT	3, rip=1b, cs=SEL_USER_32
	DONE32
	EXPECT_DONE

/* AMD: SYSCALL goes to CSTAR and SYSENTER does not exist; Intel the other way round. */
	CASE	syscall_amd, NEED_AMD
	SET_MSR	0xc0000083, ADDR(1f)
	SET_MSR	0xc0000084, 0x700
	TO_COMPAT 0x602
	syscall
2:	DONE32
	.set	WORLD, 0
	.code64
1:	pushfq
	pop	%rbx
	REPORT	%rcx
	WANT	ADDR(2b) + USER
	REPORT	%r11
	WANT	0x602
	REPORT	%rbx
	WANT	2
	mov	%cs, %eax
	REPORT	%rax
	WANT	SEL_CODE
	mov	$SYS_STACK_USER + USER, %esp
	mov	$ADDR(1f) + USER, %ecx
	sysretl
1:	.set	WORLD, USER
	.code32
	pushf
	pop	%eax
	cld
	REPORT32
	WANT	0x602
	CHECK_USER_32
	DONE32
	EXPECT_DONE

/* SYSRET to 32-bit code, by flags that a kernel of 64 bits gives it, too. */
	CASE	sysret_32
	mov	$SYS_STACK_USER + USER, %esp
	mov	$SEL_USER_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	$ADDR(1f) + USER, %ecx
	mov	$0x8d7, %r11d
	sysretl
1:	.set	WORLD, USER
	.code32
	pushf
	pop	%eax
	REPORT32
	WANT	0x8d7
	CHECK_USER_32
	DONE32
	EXPECT_DONE

	CASE	sysenter_amd, NEED_AMD | NOT_QEMU
	SET_MSR	0x174, SEL_CODE
	SET_MSR	0x175, SYS_STACK
	SET_MSR	0x176, ADDR(1f)
	TO_COMPAT
	FAULT32	6, 0, sysenter
	DONE32
	EXPECT_DONE
	.set	WORLD, 0
1:	DONE

	CASE	syscall_intel, NEED_INTEL
	SET_MSR	0x174, SEL_CODE
	SET_MSR	0x175, SYS_STACK
	SET_MSR	0x176, ADDR(1f)
	TO_COMPAT
	FAULT32	6, 0, syscall
	sysenter
	.set	WORLD, 0
	.code64
1:	mov	%rsp, %rbp
	REPORT	%rbp
	WANT	SYS_STACK
	mov	%cs, %eax
	REPORT	%rax
	WANT	SEL_CODE
	mov	%ss, %eax
	REPORT	%rax
	WANT	SEL_DATA
	mov	$ADDR(1f) + USER, %edx
	mov	$SYS_STACK_USER + USER - 16, %ecx
	sysexit
	.set	WORLD, USER
	.code32
1:	mov	%esp, %eax
	REPORT32
	WANT	SYS_STACK_USER + USER - 16
	CHECK_USER_32
	DONE32
	EXPECT_DONE

/* A call gate leads from 32-bit code in ring 3 to 64-bit code in ring 0, and LRETQ back. */
	CASE	call_gate
	TO_COMPAT
	mov	$-1, %ebx
	lcall	$SEL_GATE + 3, $0
1:	WANT	SYS_STACK_RSP0 - 32
	WANT	ADDR(1b)
	WANT	SEL_USER_32
	WANT	SYS_STACK_USER + USER
	mov	%esp, %eax
	REPORT32
	WANT	SYS_STACK_USER + USER
	DONE32
	EXPECT_DONE

/* What 64-bit mode has no more. */
	CASE	old_instructions
	TO_COMPAT
	mov	$0x29, %eax
	add	$0x18, %al
	daa
	REPORT32
	WANT	0x47
	mov	$0x47, %eax
	sub	$0x28, %al
	das
	REPORT32
	WANT	0x19
	mov	$0x0a, %eax
	aaa
	REPORT32
	WANT	0x100
	mov	$99, %eax
	aam
	REPORT32
	WANT	0x909
	aad
	REPORT32
	WANT	99
	mov	$1, %eax
	mov	$2, %ecx
	mov	$3, %edx
	pusha
	popl	%eax		/* edi */
	mov	20(%esp), %eax	/* ecx */
	push	%eax
	popa
	mov	%edx, %eax
	REPORT32
	WANT	3
	stc
	.byte	0xd6		/* salc */
	movzbl	%al, %eax
	REPORT32
	WANT	0xff
	push	%es
	pop	%eax
	REPORT32
	WANT	SEL_USER_DATA
	push	$SEL_USER_DATA
	pop	%ds
	push	%cs
	pop	%eax
	REPORT32
	WANT	SEL_USER_32
	mov	$0x20, %eax	/* arpl */
	mov	$3, %ecx
	arpl	%cx, %ax
	REPORT32
	WANT	0x23
	xor	%eax, %eax
	inc	%eax
	.byte	0x40, 0x40	/* inc %eax twice: REX in 64-bit mode */
	.byte	0x48		/* dec */
	REPORT32
	WANT	2
	movl	$0x99, SYS_DATA + USER
	movw	$SEL_USER_DATA, SYS_DATA + USER + 4
	les	SYS_DATA + USER, %eax
	REPORT32
	WANT	0x99
	mov	$7, %ecx	/* loops by ecx, jecxz, 16-bit addresses */
	xor	%eax, %eax
1:	inc	%eax
	loop	1b
	jcxz	1f
	inc	%eax
1:	REPORT32
	WANT	7
	DONE32
	EXPECT_DONE

	CASE	into_bound
	TO_COMPAT
	xor	%eax, %eax
	into
	mov	$0x7fffffff, %eax
	inc	%eax
	into
1:	EXPECT	4, rip=1b, cs=SEL_USER_32
	movl	$5, SYS_DATA + USER
	movl	$9, SYS_DATA + USER + 4
	mov	$5, %eax
	bound	%eax, SYS_DATA + USER
	mov	$9, %eax
	bound	%eax, SYS_DATA + USER
	mov	$10, %eax
	FAULT32	5, 0, bound %eax, SYS_DATA + USER
	mov	$-1, %eax
	FAULT32	5, 0, bound %eax, SYS_DATA + USER
	DONE32
	EXPECT_DONE

/* Registers: writes of 32 bits, addresses that wrap at 4 GiB, stack pushes of 4 and 2 bytes. */
	CASE	widths
	TO_COMPAT
	mov	%esp, %ebx
	push	$-1
	pushw	$-2
	mov	%ebx, %eax
	sub	%esp, %eax
	REPORT32
	WANT	6
	mov	(%esp), %eax
	REPORT32
	WANT	0xfffffffe
	mov	%ebx, %esp
	mov	$0xffffffff, %ecx
	movl	$0x1357, SYS_DATA + USER + 3
	mov	SYS_DATA + USER + 4(%ecx), %eax
	REPORT32
	WANT	0x1357
	mov	$0xc0000000, %ecx
	mov	SYS_DATA + USER + USER + 3(%ecx), %eax
	REPORT32
	WANT	0x1357
	call	1f
1:	pop	%eax
	sub	$ADDR(1b), %eax
	REPORT32
	WANT	0
	mov	$ADDR(1f), %eax
	push	%eax
	ret
	ud2
1:	push	$2
	.byte	0x66, 0x9d	/* popfw */
	add	$2, %esp
	mov	$SYS_DATA + USER + 0x10, %edi
	mov	$SYS_DATA + USER, %esi
	mov	$3, %ecx
	rep movsl
	mov	%edi, %eax
	REPORT32
	WANT	SYS_DATA + USER + 0x1c
	enter	$16, $0
	leave
	mov	%ebx, %eax
	sub	%esp, %eax
	REPORT32
	WANT	0
	DONE32
	EXPECT_DONE

/* Segments have bases and can be used for what they are. */
	CASE	bases
	mov	$0x4433221100, %rax
	mov	%rax, SYS_DATA + 0xff8
	TO_COMPAT
	mov	$SEL_BASED_32, %eax
	mov	%eax, %es
	mov	%eax, %fs
	mov	%es:0xff8, %eax
	REPORT32
	WANT	0x33221100
	mov	%fs:0xffc, %eax
	REPORT32
	WANT	0x44
	mov	$SEL_READ_ONLY + 3, %eax
	mov	%eax, %es
	mov	%es:SYS_DATA + USER, %al
	mov	%cs:SYS_DATA + USER, %al
	xor	%eax, %eax
	mov	%eax, %es
	FAULT32	13, 0, mov %eax, %ss
	mov	$SEL_BASED_32, %eax
	mov	%esp, %ebx
	mov	%eax, %ss
	mov	$0x800, %esp
	push	$0x2468
	mov	%ss:0x7fc, %eax
	mov	$SEL_USER_DATA, %ecx
	mov	%ecx, %ss
	mov	%ebx, %esp
	REPORT32
	WANT	0x2468
	mov	$SEL_BASED_32, %eax
	mov	%eax, %ds
	mov	%eax, %es
	movl	$0x13572468, 0x10
	mov	$0x10, %esi
	mov	$0x20, %edi
	movsl
	mov	0x20, %eax
	mov	%ecx, %ds
	mov	%ecx, %es
	REPORT32
	WANT	0x13572468
	DONE32
	EXPECT_DONE

/* ... and limits and types, which QEMU does not check. */
	CASE	limits, NOT_QEMU
	TO_COMPAT
	mov	$SEL_BASED_32, %eax
	mov	%eax, %es
	mov	%es:0xffc, %eax
	FAULT32	13, 0, mov %es:0xffd, %eax	/* its last byte lies behind the limit */
	FAULT32	13, 0, movb $1, %es:0x1000
	mov	$0xffffffff, %ecx
	FAULT32	13, 0, mov %es:(%ecx), %al
	mov	$SEL_READ_ONLY + 3, %eax
	mov	%eax, %es
	FAULT32	13, 0, mov %al, %es:SYS_DATA + USER
	FAULT32	13, 0, mov %al, %cs:SYS_DATA + USER
	xor	%eax, %eax
	mov	%eax, %es
	FAULT32	13, 0, mov %es:SYS_DATA + USER, %al
	mov	$SYS_DATA + USER, %edi
	FAULT32	13, 0, stosb
	mov	$SEL_BASED_32, %eax
	mov	%esp, %ebx
	mov	%eax, %ss
	mov	$0x1002, %esp
	FAULT32	12, 0, push %eax
	mov	$0xffe, %esp
	FAULT32	12, 0, pop %eax
	mov	$0x1000, %ebp
	FAULT32	12, 0, mov (%ebp), %al
	mov	$SEL_USER_DATA, %ecx
	mov	%ecx, %ss
	mov	%ebx, %esp
	DONE32
	EXPECT_DONE

/* Page faults, #UD and privilege from here. */
	CASE	faults
	TO_COMPAT
	movl	$ADDR(2f), SYS_RESUME + USER
1:	mov	SYS_WINDOW + 0x10, %eax
	EXPECT	14, error=4, rip=1b, cr2=SYS_WINDOW+0x10, cs=SEL_USER_32
2:	movl	$ADDR(2f), SYS_RESUME + USER
	mov	$0xfffffff0, %ecx
1:	movb	$1, 0(%ecx)
	EXPECT	14, error=6, rip=1b, cr2=0xfffffff0
2:	FAULT32	13, 0, cli
	FAULT32	13, 0, mov %eax, %cr3
	FAULT32	13, 0, in $0x60, %al
	xor	%ecx, %ecx
	FAULT32	0, 0, div %ecx
	movl	$ADDR(2f), SYS_RESUME + USER
	mov	$SYS_WINDOW, %eax
	jmp	*%eax
	EXPECT	14, error=0x14, cr2=SYS_WINDOW
2:	DONE32
	EXPECT_DONE

/* SSE and x87 with 32-bit addresses; and far calls between 32 and 64 bits in ring 3. */
	CASE	heavens_gate
	TO_COMPAT
	movl	$3, SYS_DATA + USER
	cvtsi2sdl SYS_DATA + USER, %xmm0
	addsd	%xmm0, %xmm0
	cvtsd2si %xmm0, %eax
	REPORT32
	WANT	6
	fildl	SYS_DATA + USER
	fistpl	SYS_DATA + USER + 8
	mov	SYS_DATA + USER + 8, %eax
	REPORT32
	WANT	3
	mov	%esp, %ebx
	ljmp	$SEL_USER_CODE, $ADDR(1f)
	.code64
1:	mov	$0x1234567890, %rdx
	shr	$8, %rdx
	movl	$ADDR(1f), SYS_DATA + USER
	movl	$SEL_USER_32, SYS_DATA + USER + 4
	ljmpl	*SYS_DATA + USER
	.code32
1:	mov	%edx, %eax
	REPORT32
	WANT	0x12345678
	lcall	$SEL_USER_CODE, $ADDR(1f)
	mov	%cs, %eax
	REPORT32
	WANT	SEL_USER_32
	DONE32
	.code64
	.set	WORLD, USER
1:	lretl
	EXPECT_DONE

/* An instruction that reaches over its segment's limit. */
	CASE	code_limit, NOT_QEMU
	movabs	$0x4040fb1800000011, %rax	/* base USER + SYS_DATA, limit 0x11 */
	mov	%rax, SYS_GDT + (SEL_USER_32 & ~7)
	movl	$0x000002b8, SYS_DATA + 0x10	/* mov $2, %eax */
	movb	$0, SYS_DATA + 0x14
	HOOK	2f
	pushq	$SEL_USER_DATA
	pushq	$SYS_STACK_USER + USER
	pushq	$2
	pushq	$SEL_USER_32
	pushq	$0x10
	iretq
	EXPECT	13, error=0, cs=SEL_USER_32
2:	movq	$ADDR(3f), 48 + 8(%rsp)
	movq	$SEL_CODE, 56 + 8(%rsp)
	movq	$SYS_STACK, 72 + 8(%rsp)
	movq	$SEL_DATA, 80 + 8(%rsp)
	ret
3:	DONE

	END_IMAGE compat
