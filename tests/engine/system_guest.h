/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of system_*.S (see system.h), and the small kernel that is in each of their images.
 *
 *	CASE	name [, NEED_...]	a case begins, in kernel mode, IF clear
 *	... instructions, with what they must lead to behind them:
 *	EXPECT	vector [, error=] [, rip=label] [, cs=] [, ss=] [, rsp=] [, cr2=] [, dr6=] [, fset=] [, fclr=]
 *		[, hrsp=] [, hset=] [, hclr=]	an exception; h...: as its handler finds rsp (frame's top) and rflags
 *	REPORT	register / WANT value	a value in the log
 *	EXPECT_SHUTDOWN
 *	DONE				ends, from ring 0 or (TO_KERNEL) ring 3
 *
 *	RESUME	label	where the next exception's handler returns to; without it, to the frame's rip
 *	HOOK	label	called by the next handler with its frame (vector, error, rip, ...) at 40(%rsp)
 *	TO_USER		goes on in ring 3, in the user's mapping; TO_KERNEL back (SYSCALL: clobbers rcx, r11).
 *
 * An address of a label, in the mapping that the code at this place runs in: ADDR(label).
 */
#include "tests/engine/system.h"

#define LOAD	SYS_IMAGE
#define ADDR(x)	((x) - image_start + LOAD + WORLD)

	.macro	CASE name, needs=0
	.set	WORLD, 0
	.code64
	.pushsection .rodata.names, "a"
71:	.asciz	"\name"
	.popsection
	.balign	16
72:
	.pushsection .rodata.expect, "a"
73:
	.popsection
	.pushsection .data.rel.ro.cases, "aw"
	.quad	71b, ADDR(72b), \needs, 73b
	.popsection
	.endm

	.macro	FIELD bit, value
	.ifnb	\value
	.set	GIVEN, GIVEN | (1 << \bit)
	.endif
	.endm

	.macro	NUMBER value
	.ifnb	\value
	.quad	\value
	.else
	.quad	0
	.endif
	.endm

	.macro	EXPECT vector, error, rip, cs, fset, fclr, rsp, ss, cr2, dr6, hrsp, hset, hclr
	.set	GIVEN, 1
	FIELD	1, \error
	FIELD	2, \rip
	FIELD	3, \cs
	FIELD	4, \fset
	FIELD	5, \fclr
	FIELD	6, \rsp
	FIELD	7, \ss
	FIELD	8, \cr2
	FIELD	9, \dr6
	FIELD	10, \hrsp
	FIELD	11, \hset
	FIELD	12, \hclr
	.pushsection .rodata.expect, "a"
	.long	LOG_EVENT, GIVEN
	.quad	\vector
	NUMBER	\error
	.ifnb	\rip
	.quad	ADDR(\rip)
	.else
	.quad	0
	.endif
	NUMBER	\cs
	NUMBER	\fset
	NUMBER	\fclr
	NUMBER	\rsp
	NUMBER	\ss
	NUMBER	\cr2
	NUMBER	\dr6
	NUMBER	\hrsp
	NUMBER	\hset
	NUMBER	\hclr
	.popsection
	.endm

/* One instruction that must fault, and no more: FAULT #GP's and the like, PAGE_FAULT with its address. */
	.macro	FAULT vector, error, code:vararg
	RESUME	76f
75:	\code
	EXPECT	\vector, error=\error, rip=75b
76:
	.endm

	.macro	PAGE_FAULT error, cr2, code:vararg
	RESUME	76f
75:	\code
	EXPECT	14, error=\error, cr2=\cr2, rip=75b
76:
	.endm

	.macro	WANT value
	.pushsection .rodata.expect, "a"
	.long	LOG_VALUE, 1
	.quad	\value
	.zero	8 * (EXPECT_FIELDS - 1)
	.popsection
	.endm

	.macro	EXPECT_SHUTDOWN
	.pushsection .rodata.expect, "a"
	.long	LOG_SHUTDOWN, 0
	.zero	8 * EXPECT_FIELDS
	.popsection
	.endm

	.macro	REPORT reg
	push	%rdi
	push	%rsi
	mov	\reg, %rsi
	mov	SYS_LOG_NEXT + WORLD, %edi
	movq	$LOG_VALUE, SYS_LOG + WORLD(%rdi)
	mov	%rsi, SYS_LOG + 8 + WORLD(%rdi)
	lea	16(%rdi), %edi
	mov	%edi, SYS_LOG_NEXT + WORLD
	pop	%rsi
	pop	%rdi
	.endm

/* In compatibility mode: eax, and edi is clobbered. */
	.macro	REPORT32
	mov	SYS_LOG_NEXT + USER, %edi
	movl	$LOG_VALUE, SYS_LOG + USER(%edi)
	movl	$0, SYS_LOG + 4 + USER(%edi)
	movl	%eax, SYS_LOG + 8 + USER(%edi)
	movl	$0, SYS_LOG + 12 + USER(%edi)
	lea	16(%edi), %edi
	mov	%edi, SYS_LOG_NEXT + USER
	.endm

	.macro	DONE
	.if	WORLD
	TO_KERNEL
	.endif
	out	%al, $PORT_DONE
	.endm

	.macro	RESUME label
	movq	$ADDR(\label), SYS_RESUME + WORLD
	.endm

	.macro	HOOK label
	movq	$ADDR(\label) - WORLD, SYS_HOOK + WORLD
	.endm

	.macro	TO_USER flags=2
	pushq	$SEL_USER_DATA
	pushq	$SYS_STACK_USER + USER
	pushq	$\flags
	pushq	$SEL_USER_CODE
	pushq	$ADDR(74f) + USER
	iretq
74:	.set	WORLD, USER
	.endm

	.macro	TO_KERNEL
	syscall
	.set	WORLD, 0
	.endm

	.macro	SET_MSR index, low, high=0
	mov	$\index, %ecx
	mov	$\low, %eax
	mov	$\high, %edx
	wrmsr
	.endm

	.macro	IMAGE name
	.set	WORLD, 0
	.pushsection .data.rel.ro.cases, "aw"
cases_start:
	.popsection
	.section .rodata.image, "a"
	.balign	4096
	.code64
image_start:
stubs:
	.set	VECTOR, 0
	.rept	256
	.balign	16
	.if	!(VECTOR == 8 || (VECTOR >= 10 && VECTOR <= 14) || VECTOR == 17)
	pushq	$0
	.endif
	.byte	0x68	/* push imm32, whatever the vector */
	.long	VECTOR
	jmp	stub_common
	.set	VECTOR, VECTOR + 1
	.endr
stub_done:
	cli
	hlt
	jmp	stub_done
to_kernel:
	and	$0xffffff, %ecx
	mov	$SYS_STACK, %esp
	jmp	*%rcx
/* vector at 32(%rsp), error 40, rip 48, cs 56, rflags 64, rsp 72, ss 80. */
stub_common:
	pushfq
	push	%rax
	push	%rdi
	push	%rcx
	cld
	mov	SYS_LOG_NEXT, %edi
	cmp	$SYS_LOG_MAX, %edi
	ja	stub_done
	movq	$LOG_EVENT, SYS_LOG(%rdi)
	.irp	i, 0, 1, 2, 3, 4, 5, 6
	mov	32 + 8 * \i(%rsp), %rax
	mov	%rax, SYS_LOG + 8 + 8 * \i(%rdi)
	.endr
	mov	%cr2, %rax
	mov	%rax, SYS_LOG + 64(%rdi)
	mov	%db6, %rax
	mov	%rax, SYS_LOG + 72(%rdi)
	lea	88(%rsp), %rax
	mov	%rax, SYS_LOG + 80(%rdi)
	mov	24(%rsp), %rax
	mov	%rax, SYS_LOG + 88(%rdi)
	add	$96, %edi
	mov	%edi, SYS_LOG_NEXT
	cmpq	$1, 32(%rsp)
	jne	1f
	mov	$0xffff0ff0, %eax
	mov	%rax, %db6
1:	xor	%eax, %eax
	xchg	%rax, SYS_HOOK
	test	%rax, %rax
	jz	1f
	call	*%rax
1:	xor	%eax, %eax
	xchg	%rax, SYS_RESUME
	test	%rax, %rax
	jz	1f
	mov	%rax, 48(%rsp)
1:	pop	%rcx
	pop	%rdi
	pop	%rax
	add	$24, %rsp	/* rflags, vector, error */
	iretq
	.endm

/* Once per image, wherever calls through SEL_GATE and SYSCALL shall go. */
	.macro	END_IMAGE name
	.set	WORLD, 0
	.balign	16
image_end:
	.pushsection .rodata.expect, "a"
expect_end:
	.popsection
	.pushsection .data.rel.ro.cases, "aw"
cases_end:
	.globl	system_\name
system_\name:
	.quad	image_start, image_end, cases_start, cases_end, expect_end, ADDR(stubs), ADDR(to_kernel), ADDR(gate_target)
	.popsection
	.section .note.GNU-stack, "", @progbits
	.endm
