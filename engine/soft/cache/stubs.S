/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way into guest code and out of it. Position-independent: cache.c copies all of it to the
 * head of the code cache, so that generated code reaches it by near jumps and one range of
 * addresses is "inside".
 *
 * enter(code): C's callee-saved registers go to C's stack, the guest's registers come in. Between
 * enter_check and enter_end everything of the guest is still saved, so a signal handler that finds
 * the pc there sends it to `left` and nothing is lost: this is what makes a stop that comes just
 * before the entry take effect.
 *
 * exit: the guest's registers are saved (r10 and r11 live in memory anyway), C's come back, and
 * enter() returns. The reason has been stored by who jumped here. lookup: on to rip, which is in
 * r10, if its second place in the table of jumps has it; else exit. Nothing there looks at `stop`:
 * a signal handler that finds the pc on the way does what is left to do in C.
 */
#include "engine/soft/cache/layout.h"

#define GPR(n) %gs:(VCPU_GPR + 8 * (n))

	.section .rodata
	.balign	16
	.globl	soft_stubs_begin, soft_stub_enter, soft_stub_enter_check, soft_stub_enter_end
	.globl	soft_stub_exit, soft_stub_lookup, soft_stub_left, soft_stubs_end
soft_stubs_begin:

soft_stub_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %gs:VCPU_HOST_RSP
	mov	%rdi, %gs:VCPU_TARGET
soft_stub_enter_check:
	cmpl	$0, %gs:VCPU_STOP
	jne	soft_stub_left_stop
	pushq	%gs:VCPU_FLAGS
	popfq
	mov	GPR(0), %rax
	mov	GPR(1), %rcx
	mov	GPR(2), %rdx
	mov	GPR(3), %rbx
	mov	GPR(5), %rbp
	mov	GPR(6), %rsi
	mov	GPR(7), %rdi
	mov	GPR(8), %r8
	mov	GPR(9), %r9
	mov	GPR(12), %r12
	mov	GPR(13), %r13
	mov	GPR(14), %r14
	mov	GPR(15), %r15
	mov	GPR(4), %rsp
	jmp	*%gs:VCPU_TARGET
soft_stub_enter_end:

	.balign	16
soft_stub_lookup:
	lea	(, %r10, 2), %r11d
	and	$JUMP_INDEX_MASK, %r11d
	xor	$JUMP_INDEX_SECOND, %r11d
	add	%gs:VCPU_JUMPS, %r11
	cmp	%gs:(%r11), %r10
	jne	1f
	jmp	*%gs:8(%r11)
1:
	mov	%r10, %gs:VCPU_RIP
	movq	$SOFT_REASON_LOOKUP, %gs:VCPU_REASON
soft_stub_exit:
	mov	%rax, GPR(0)
	mov	%rcx, GPR(1)
	mov	%rdx, GPR(2)
	mov	%rbx, GPR(3)
	mov	%rsp, GPR(4)
	mov	%rbp, GPR(5)
	mov	%rsi, GPR(6)
	mov	%rdi, GPR(7)
	mov	%r8, GPR(8)
	mov	%r9, GPR(9)
	mov	%r12, GPR(12)
	mov	%r13, GPR(13)
	mov	%r14, GPR(14)
	mov	%r15, GPR(15)
	mov	%gs:VCPU_HOST_RSP, %rsp
	pushfq
	popq	%gs:VCPU_FLAGS
	jmp	soft_stub_left

soft_stub_left_stop:
	movq	$SOFT_REASON_STOP, %gs:VCPU_REASON
soft_stub_left:
	mov	%gs:VCPU_HOST_RSP, %rsp
	cld
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
soft_stubs_end:

	.section .note.GNU-stack, "", @progbits
