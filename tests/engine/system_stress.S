/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that are not done in one go, often: over the edge of two pages, onto their own source, on devices. Run
 * shaken, each is broken off somewhere, and must not be done twice or by half. The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

#define EDGE (SYS_DATA + 0x8ffd)

	IMAGE	stress
gate_target:
	DONE

/* 17 * 256 bytes, rotated by a byte 600 times; what moves them down stands between the two. */
	.macro	ROTATE
	mov	$4352, %ecx
	xor	%eax, %eax
1:	mov	%al, SYS_DATA(%rax)
	inc	%eax
	loop	1b
	mov	$600, %ebp
2:	mov	SYS_DATA, %bl
	mov	$SYS_DATA, %edi
	mov	$SYS_DATA + 1, %esi
	.endm
	.macro	ROTATED
	mov	%bl, (%rdi)
	dec	%ebp
	jnz	2b
	xor	%eax, %eax
	mov	$4352, %ecx
3:	lea	600(%rax), %edx		/* byte i is i + 600 now */
	cmp	%dl, SYS_DATA(%rax)
	jne	4f
	inc	%eax
	loop	3b
4:	REPORT	%rcx
	WANT	0
	.endm

/* A buffer rotated by a byte, by REP MOVSB down onto itself, many times. */
	CASE	rotate
	ROTATE
	mov	$4351, %ecx
	rep movsb
	ROTATED
	DONE

/* The same by quadwords, whose source they overwrite in part. */
	CASE	rotate_wide
	ROTATE
	mov	$543, %ecx
	rep movsq
	mov	$7, %ecx
	rep movsb
	ROTATED
	DONE

	CASE	edges
	mov	$20000, %r12d
	mov	$EDGE, %ebx
	movq	$0, (%rbx)
	movq	$0, 0x1000(%rbx)
	movq	$0, 0x2000(%rbx)
	xor	%r13d, %r13d
	xor	%r14d, %r14d
1:	incq	(%rbx)
	lock addq $3, 0x1000(%rbx)
	mov	$5, %eax
	lock xadd %rax, 0x2000(%rbx)
	add	%rax, %r13
	stc
	adcq	$0, (%rbx)
	mov	%r12, %rax
	xchg	%rax, 0x3000(%rbx)
	add	%rax, %r14
	dec	%r12
	jnz	1b
	mov	(%rbx), %rax
	REPORT	%rax
	WANT	40000
	mov	0x1000(%rbx), %rax
	REPORT	%rax
	WANT	60000
	mov	0x2000(%rbx), %rax
	REPORT	%rax
	WANT	100000
	REPORT	%r13
	WANT	5 * 20000 / 2 * 19999
	REPORT	%r14
	WANT	20000 / 2 * 20001 - 1
	DONE

/* A TSS that LTR has found is busy, and not to be found again. */
	CASE	ltr
	mov	$1000000, %r12d
	mov	$SEL_TSS, %ebx
1:	andb	$~2, SYS_GDT + SEL_TSS + 5
	ltr	%bx
	dec	%r12d
	jnz	1b
	REPORT	%r12
	WANT	0
	DONE

/* The stack over an edge: what moves rsp must not move it twice. */
	CASE	stack_edges
	mov	$20000, %r12d
	mov	$EDGE + 8, %esp
	xor	%r13d, %r13d
1:	push	%r12
	popq	EDGE + 0x1000
	pushq	EDGE + 0x1000
	call	2f
	add	(%rsp), %r13
	pop	%rax
	enter	$24, $0
	leave
	push	%rsp
	pop	%rsp
	dec	%r12
	jnz	1b
	mov	%rsp, %rbx
	mov	$SYS_STACK, %esp
	REPORT	%rbx
	WANT	EDGE + 8
	REPORT	%r13
	WANT	20000 / 2 * 20001
	DONE
2:	pushfq
	popfq
	ret	$0

/* x87 and vectors: loaded and stored over an edge; the stack of x87 is as deep as before. */
	CASE	fpu_edges
	mov	$10000, %r12d
	fninit
	fldz
1:	fld1
	faddp
	fstpt	EDGE - 4
	fldt	EDGE - 4
	movq	%r12, %xmm1
	movups	%xmm1, EDGE + 0x1000 - 8
	paddq	%xmm1, %xmm2
	movups	EDGE + 0x1000 - 8, %xmm3
	paddq	%xmm3, %xmm4
	dec	%r12
	jnz	1b
	fistpl	SYS_DATA
	mov	SYS_DATA, %eax
	REPORT	%rax
	WANT	10000
	FPU_TOP	0
	movq	%xmm2, %rax
	REPORT	%rax
	WANT	10000 / 2 * 10001
	movq	%xmm4, %rax
	REPORT	%rax
	WANT	10000 / 2 * 10001
	DONE

/* Read-modify-writes and strings on a device's registers. */
	CASE	devices
	mov	$SYS_MMIO, %ebx
	mov	$300, %r12d
	movl	$0, (%rbx)
	movl	$0, 8(%rbx)
1:	incl	(%rbx)
	lock addl $3, 8(%rbx)
	mov	%r12d, 16(%rbx)
	push	16(%rbx)
	pop	24(%rbx)
	mov	$SYS_MMIO + 24, %esi
	mov	$SYS_DATA, %edi
	movsl
	mov	SYS_DATA, %eax
	cmp	%eax, %r12d
	jne	2f
	dec	%r12
	jnz	1b
2:	REPORT	%r12
	WANT	0
	mov	(%rbx), %eax
	REPORT	%rax
	WANT	300
	mov	8(%rbx), %eax
	REPORT	%rax
	WANT	900
	DONE

/* System calls: to ring 0 and back, 2000 times. */
	CASE	system_calls
	mov	$2000, %r12d
	SET_MSR	0xc0000082, ADDR(10f), 0
	xor	%r13d, %r13d
	TO_USER
1:	syscall
	dec	%r12
	jnz	1b
	syscall
	.set	WORLD, 0
10:	inc	%r13
	test	%r12, %r12
	jz	11f
	sysretq
11:	mov	$SYS_STACK, %esp
	REPORT	%r13
	WANT	2001
	DONE

/* The same as kernels have it: with SMAP, and SFMASK that clears AC and DF. */
	CASE	system_calls_smap, NEED_SMAP
	mov	%cr4, %rax
	or	$0x200000, %eax
	mov	%rax, %cr4
	mov	$600000, %r12d
	mov	$0x4a5b, %r15d
	SET_MSR	0xc0000082, ADDR(10f), 0
	SET_MSR	0xc0000084, 0x257fd5
	xor	%r13d, %r13d
	xor	%r14d, %r14d
	mov	$ADDR(11f) + USER, %ebx
	TO_USER
1:	xor	%edx, %edx	/* ZF and PF */
	syscall
11:	dec	%r12
	jnz	1b
	syscall
	.set	WORLD, 0
10:	inc	%r13
	test	%r12, %r12
	jz	12f
	mov	%rcx, %rdx
	sub	%rbx, %rdx
	or	%rdx, %r14
	mov	%r11, %rdx
	xor	$0x46, %edx
	or	%rdx, %r14
	sysretq
12:	mov	$SYS_STACK, %esp
	REPORT	%r13
	WANT	600001
	REPORT	%r14
	WANT	0
	REPORT	%r15
	WANT	0x4a5b
	DONE

/* Repeated string instructions in one page, which are stopped in the middle; r13: how often something was wrong. */
	.macro	SAME a, b
	mov	\a, %rdx
	sub	\b, %rdx
	neg	%rdx
	adc	$0, %r13
	.endm
	CASE	rep_in_page
	mov	$1500, %r12d
	xor	%r13d, %r13d
1:	mov	$SYS_DATA, %esi
	mov	%r12b, (%rsi)
	lea	1(%rsi), %rdi
	mov	$4095, %ecx
	stc
	rep movsb		/* it reads what it has written */
	sbb	%rax, %rax
	SAME	%rax, $-1
	SAME	%rcx, $0
	SAME	%rsi, $(SYS_DATA + 4095)
	SAME	%rdi, $(SYS_DATA + 4096)
	mov	%r12b, %al
	mov	$SYS_DATA, %edi
	mov	$4096, %ecx
	repe scasb
	SAME	%rcx, $0
	mov	%r12, %rax
	mov	$SYS_DATA + 0x2000, %edi
	mov	$512, %ecx
	rep stosq
	SAME	%rcx, $0
	SAME	%rdi, $(SYS_DATA + 0x3000)
	mov	$SYS_DATA + 0x2000, %esi
	mov	$SYS_DATA + 0x4000, %edi
	mov	$512, %ecx
	rep movsq
	SAME	%rcx, $0
	SAME	%rsi, $(SYS_DATA + 0x3000)
	SAME	%rdi, $(SYS_DATA + 0x5000)
	SAME	%r12, SYS_DATA + 0x2ff8
	SAME	%r12, SYS_DATA + 0x4000
	SAME	%r12, SYS_DATA + 0x4ff8
	dec	%r12
	jnz	1b
	REPORT	%r13
	WANT	0
	DONE

/* Short ones, one behind the other. */
	CASE	rep_short
	mov	$100000, %r12d
	xor	%r13d, %r13d
	mov	$SYS_DATA + 0x100, %ebx
	movq	$0x123456, (%rbx)
	lea	0x500(%rbx), %rbp
1:	mov	%rbx, %rsi
	mov	%rbp, %rdi
	mov	$1, %ecx
	rep movsq
	sub	%rbx, %rsi
	sub	%rbp, %rdi
	sub	%rsi, %rdi
	or	%rdi, %r13
	sub	$8, %rsi
	or	%rsi, %r13
	dec	%r12
	jnz	1b
	REPORT	%r13
	WANT	0
	mov	(%rbp), %rax
	REPORT	%rax
	WANT	0x123456
	DONE

/*
 * More items than there are bytes: their size is no number any more, and the page's end is the end all the same. And a
 * source by FS.
 */
	CASE	rep_many
	movq	$SYS_DATA + 0x1000 + 3, SYS_PT_WINDOW + 8
	movq	$0x55, SYS_DATA + 0x2000
	mov	$0x2000000000000001, %rcx
	mov	$SYS_WINDOW + 0x1ff0, %edi
	mov	$0x77, %eax
	RESUME	2f
	movq	$0, (%rdi)
1:	rep stosq
	EXPECT	14, error=2, rip=1b, cr2=(SYS_WINDOW+0x2000)
2:	REPORT	%rdi
	WANT	SYS_WINDOW + 0x2000
	REPORT	%rcx
	WANT	0x1fffffffffffffff
	mov	SYS_DATA + 0x2000, %rax
	REPORT	%rax
	WANT	0x55
	mov	SYS_DATA + 0x1ff8, %rax
	REPORT	%rax
	WANT	0x77
	SET_MSR	0xc0000100, 0x100
	movq	$0x99, SYS_DATA + 0x100
	mov	$SYS_DATA, %esi
	mov	$SYS_DATA + 0x200, %edi
	mov	$1, %ecx
	rep movsq %fs:(%rsi), (%rdi)
	mov	SYS_DATA + 0x200, %rax
	REPORT	%rax
	WANT	0x99
	DONE

/*
 * Accesses off what a repeated string instruction goes on with, before it and behind it, where it ends on the next page,
 * which lies elsewhere: nothing may be known of it from before.
 */
	.macro	AROUND width, bytes
	mov	$SYS_WINDOW + 0x1ff0, %edi
	mov	$16 / \bytes, %ecx
	mov	(%rdi), %r8
	mov	SYS_DATA(%rcx), %r9
	rep stos\width
	mov	(%rdi), %r10
	mov	SYS_DATA(%rcx), %r11
	SAME	%r10, $0xbb
	SAME	%r11, $0x11
	mov	$SYS_WINDOW + 0x1ff0, %edi
	mov	$SYS_WINDOW + 0x3ff0, %esi
	mov	$16 / \bytes, %ecx
	mov	(%rdi), %r8
	mov	(%rsi), %r9
	rep movs\width
	mov	(%rdi), %r10
	mov	(%rsi), %r11
	SAME	%r10, $0xbb
	SAME	%r11, $0xbb
	.endm
	CASE	rep_around
	movq	$SYS_DATA + 0x3000 + 3, SYS_PT_WINDOW + 8
	movq	$SYS_DATA + 0x2000 + 3, SYS_PT_WINDOW + 16
	movq	$SYS_DATA + 3, SYS_PT_WINDOW + 24
	movq	$SYS_DATA + 0x2000 + 3, SYS_PT_WINDOW + 32
	movq	$0x11, SYS_DATA
	movq	$0xcc, SYS_DATA + 0x1000
	movq	$0xbb, SYS_DATA + 0x2000
	movq	$0xcc, SYS_DATA + 0x4000
	mov	$300, %r12d
	xor	%r13d, %r13d
	mov	$0x5a5a5a5a, %eax
1:	AROUND	b, 1
	AROUND	w, 2
	AROUND	l, 4
	AROUND	q, 8
	dec	%r12
	jnz	1b
	REPORT	%r13
	WANT	0
	mov	SYS_DATA + 0x3ff8, %rax
	sub	SYS_DATA + 0xff8, %rax
	REPORT	%rax
	WANT	0
	DONE

/* Page faults that a handler mends, in a loop. */
	CASE	faults
	mov	$400, %r12d
	xor	%r13d, %r13d
1:	movl	$0, SYS_LOG_NEXT
	HOOK	9f
	mov	SYS_WINDOW + 0x1008, %eax
	add	%rax, %r13
	movq	$0, SYS_PT_WINDOW + 8
	invlpg	SYS_WINDOW + 0x1000
	movl	$0, SYS_LOG_NEXT
	dec	%r12
	jnz	1b
	REPORT	%r13
	WANT	400 * 7
	DONE
9:	movq	$SYS_DATA + 3, SYS_PT_WINDOW + 8
	movl	$7, SYS_DATA + 8
	ret

	END_IMAGE stress
