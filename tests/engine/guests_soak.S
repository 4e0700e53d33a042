/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guests of kick_soak.c: loops without end, each of another kind of code, with interrupts on and a fast timer.
 * Two vCPUs run the same one. FS is a page of each vCPU's own: how often each vector came, and where its data is.
 */
#include "tests/engine/guest.inc"

#define FS_DATA	0x800
#define TIMER_VECTOR 0x4f
#define TIMER_NS 50000
#define X2APIC	0x800
#define SHARED_CODE 0x40000
#define WAITING	0x200000	/* pages there come late, and go again */
#define WAITING_BYTES 0x40000

	.section .rodata
	.code64

/* Stub n, at 64 * n, is for vector 0x40 + n. */
	GUEST	soak_handlers
	.set	vector, 0x40
	.rept	16
	.balign	64
	push	%rax
	push	%rcx
	push	%rdx
	incl	%fs:(4 * vector)
	mov	$X2APIC + 0xb, %ecx
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	pop	%rdx
	pop	%rcx
	pop	%rax
	iretq
	.set	vector, vector + 1
	.endr
	END	soak_handlers

	.macro	SOAK name
	GUEST	soak_\name
	cld
	xor	%edx, %edx
	mov	$X2APIC + 0x3e, %ecx
	mov	$0xb, %eax
	wrmsr
	mov	$X2APIC + 0x32, %ecx
	mov	$0x20000 | TIMER_VECTOR, %eax
	wrmsr
	mov	$X2APIC + 0x38, %ecx
	mov	$TIMER_NS, %eax
	wrmsr
	mov	%fs:FS_DATA, %rbx
	sti
	.endm

	SOAK	straight
1:	add	$1, %rax
	imul	$3, %rax, %rdx
	xor	%rdx, %rcx
	rol	$5, %rcx
	jmp	1b
	END	soak_straight

	SOAK	x87
	fninit
2:	mov	$32, %ecx
	mov	%rbx, %rsi
	fldz
1:	fldl	(%rsi)
	fmull	256(%rsi)
	faddp
	add	$8, %rsi
	dec	%ecx
	jnz	1b
	fstpl	1024(%rbx)
	jmp	2b
	END	soak_x87

	SOAK	strings
1:	mov	%rbx, %rsi
	lea	0x8000(%rbx), %rdi
	mov	$0x4000, %ecx
	rep movsb
	mov	%rbx, %rdi
	mov	$0x800, %ecx
	xor	%eax, %eax
	rep stosq
	mov	%rbx, %rdi
	mov	$0x1000, %ecx
	repe scasb
	jmp	1b
	END	soak_strings

/* A table of jumps, calls and returns. */
	SOAK	jumps
	lea	9f(%rip), %rsi
1:	inc	%edx
	mov	%edx, %eax
	and	$3, %eax
	movslq	(%rsi, %rax, 4), %rdi
	add	%rsi, %rdi
	call	*%rdi
	jmp	1b
2:	add	$1, %r8
	ret
3:	add	%r8, %r14
	ret
4:	xor	%r14, %r15
	ret
5:	push	%r15
	pop	%r9
	ret
9:	.long	2b - 9b, 3b - 9b, 4b - 9b, 5b - 9b
	END	soak_jumps

/* Between two addresses that have one place in a table of jumps (guests.S, spin_jumps). */
	SOAK	places
	lea	0x20000(%rbx), %rcx
	mov	2f(%rip), %rax
	mov	%rax, (%rbx)
	mov	%rax, (%rcx)
	jmp	*%rbx
	.balign	8
2:	xchg	%rcx, %rbx
	jmp	*%rbx
	.balign	8
	END	soak_places

/* Instructions that are not translated, and interrupts that are off for a moment. */
	SOAK	stepped
1:	mov	$16, %eax
	mov	%eax, %es
	smsw	%eax
	lsl	%ax, %edx
	cli
	mov	%cr0, %rax
	sti
	nop
	pushfq
	cli
	popfq
	jmp	1b
	END	soak_stepped

/* Page walks, accesses across pages, and one that the other vCPU has to stand still for. */
	SOAK	walks
1:	mov	%cr3, %rax
	mov	%rax, %cr3
	mov	0xffc(%rbx), %rax
	incl	0x1ffe(%rbx)
	movups	0x2ff8(%rbx), %xmm0
	movups	%xmm0, 0x3ff9(%rbx)
	lock incl 0x4ffe(%rbx)
	push	0x5ffc(%rbx)
	pop	0x6ffe(%rbx)
	jmp	1b
	END	soak_walks

/* Code that both vCPUs write and execute. */
	SOAK	patches
	mov	$SHARED_CODE, %esi
1:	incl	1(%rsi)
	call	*%rsi
	inc	%edx
	test	$63, %edx
	jnz	1b
	movb	$0xb8, (%rsi)
	jmp	1b
	END	soak_patches

/* Pages that are waited for: by translated code, by strings, at both ends of a copy. */
	SOAK	waits
2:	mov	$WAITING, %esi
1:	mov	(%rsi), %rax
	incl	8(%rsi)
	lea	0xff0(%rsi), %rdi
	mov	$0x20, %ecx
	rep stosb
	push	%rsi
	mov	%rbx, %rdi
	mov	$0x800, %ecx
	rep movsb
	pop	%rsi
	lea	0x4800(%rsi), %rdi
	lock incl 0x7fe(%rdi)
	add	$0x3000, %esi
	cmp	$WAITING + WAITING_BYTES - 0x6000, %esi
	jb	1b
	mov	%cr3, %rax
	mov	%rax, %cr3
	jmp	2b
	END	soak_waits

	.section .note.GNU-stack, "", @progbits
