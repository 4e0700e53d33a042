/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that changes: by any instruction, at any distance, through any mapping (SDM vol. 3, 8.1.3 and 11.6). CPUs see a
 * store to their own next instruction at once; through another linear address after a serialising instruction.
 * The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

	.macro	CHECK_EAX value
	REPORT	%rax
	WANT	\value
	.endm

	.macro	CHANGE_NEXT times
	mov	$\times, %ecx
2:	mov	%ecx, 1f + 1(%rip)
1:	mov	$0, %eax
	cmp	%ecx, %eax
	jne	3f
	loop	2b
3:	REPORT	%rcx
	WANT	0
	.endm

#define P 1
#define W 2
#define U 4

	IMAGE	code
gate_target:
	DONE

/* The next instruction, in one straight line. QEMU 7.2 goes on with the old one. */
	CASE	next, NOT_QEMU
	xor	%eax, %eax
	movl	$0x1234, 1f + 1(%rip)
1:	mov	$0x5555, %eax
	CHECK_EAX 0x1234
	CHANGE_NEXT 20
	movb	$0x90, 1f(%rip)
1:	hlt
	DONE

	CASE	next_user, NOT_QEMU
	TO_USER
	CHANGE_NEXT 100
	DONE

/* An earlier block, a called function, a loop's own head and its branch, where a jump leads. */
	CASE	earlier
	mov	$50, %ecx
	xor	%edx, %edx
1:	mov	$1, %eax
	add	%eax, %edx
	incl	1b + 1(%rip)
	loop	1b
	REPORT	%rdx
	WANT	1275
	mov	$30, %ecx
	xor	%edx, %edx
2:	call	9f
	add	%eax, %edx
	addl	$3, 9f + 1(%rip)
	loop	2b
	REPORT	%rdx
	WANT	1335
	mov	$5, %ecx
3:	dec	%ecx
	cmp	$2, %ecx
	jne	4f
	movb	$0x74, 5f(%rip)		/* jnz becomes jz: ends */
4:	test	%ecx, %ecx
5:	jnz	3b
	REPORT	%rcx
	WANT	2
	mov	$20, %ecx
	xor	%edx, %edx
6:	jmp	8f			/* there and back again, in one block of a translator's */
7:	add	%eax, %edx
	incl	8f + 1(%rip)
	loop	6b
	REPORT	%rdx
	WANT	210
	DONE
8:	mov	$1, %eax
	jmp	7b
9:	mov	$1, %eax
	ret

/* Stores of every kind. */
	CASE	stores
	call	9f
	CHECK_EAX 1
	mov	$2, %eax
	lock xchg %eax, 9f + 1(%rip)
	call	9f
	CHECK_EAX 2
	mov	$2, %eax
	mov	$3, %ecx
	lock cmpxchg %ecx, 9f + 1(%rip)
	call	9f
	CHECK_EAX 3
	lock incl 9f + 1(%rip)
	call	9f
	CHECK_EAX 4
	mov	$1, %eax
	lock xadd %eax, 9f + 1(%rip)
	call	9f
	CHECK_EAX 5
	lea	9f + 1(%rip), %rdi
	mov	$6, %eax
	stosl
	call	9f
	CHECK_EAX 6
	lea	9f + 1(%rip), %rdi
	mov	$4, %ecx
	mov	$7, %al
	rep stosb
	call	9f
	CHECK_EAX 0x07070707
	movl	$8, SYS_DATA
	mov	$SYS_DATA, %esi
	lea	9f + 1(%rip), %rdi
	mov	$4, %ecx
	rep movsb
	call	9f
	CHECK_EAX 8
	movl	$9, SYS_DATA
	movd	SYS_DATA, %xmm0
	movd	%xmm0, 9f + 1(%rip)
	call	9f
	CHECK_EAX 9
	movups	9f(%rip), %xmm0
	movups	%xmm0, SYS_DATA
	movb	$10, SYS_DATA + 1
	movups	SYS_DATA, %xmm0
	movups	%xmm0, 9f(%rip)
	call	9f
	CHECK_EAX 10
	mov	%rsp, %rbp
	lea	9f + 8(%rip), %rsp
	mov	(%rsp), %rcx
	mov	-8(%rsp), %rax
	mov	$11, %ah
	push	%rax
	mov	%rbp, %rsp
	call	9f
	CHECK_EAX 11
	movl	$12, SYS_DATA + 0x20
	fildl	SYS_DATA + 0x20
	fistpl	9f + 1(%rip)
	call	9f
	CHECK_EAX 12
	mov	$13, %eax
	movnti	%eax, 9f + 1(%rip)
	call	9f
	CHECK_EAX 13
	btsl	$1, 9f + 1(%rip)
	call	9f
	CHECK_EAX 15
	movb	$16, 9f + 1(%rip)
	call	9f
	CHECK_EAX 16
	mov	$0x0011, %eax
	mov	%ax, 9f + 1(%rip)
	call	9f
	CHECK_EAX 17
	movq	$18, SYS_DATA		/* by pop */
	movb	$0xc3, SYS_DATA + 4
	pushq	SYS_DATA
	popq	9f + 1(%rip)
	call	9f
	CHECK_EAX 18
	DONE
	.balign	16
9:	mov	$1, %eax
	ret
	.balign	64

/* The store's own linear address is another one. CPUID serialises. */
	CASE	alias
	mov	$40, %ebp
1:	mov	%ebp, 9f + 1 - image_start + LOAD + USER
	xor	%eax, %eax
	cpuid
	call	9f
	cmp	%ebp, %eax
	jne	2f
	neg	%eax
	mov	%eax, KERNEL_HIGH + LOAD + 9f + 1 - image_start
	xor	%eax, %eax
	cpuid
	call	9f
	neg	%eax
	cmp	%ebp, %eax
	jne	2f
	dec	%ebp
	jnz	1b
2:	REPORT	%rbp
	WANT	0
	DONE
9:	mov	$1, %eax
	ret

/* The kernel changes what the user runs, in its mapping. */
	CASE	kernel_for_user
	mov	$20, %ebp
1:	mov	%ebp, 9f + 1(%rip)
	mov	$ADDR(9f) + USER, %ecx
	mov	$2, %r11d
	mov	$SYS_STACK_USER + USER, %esp
	sysretq
8:	cmp	%ebp, %eax
	jne	2f
	dec	%ebp
	jnz	1b
2:	mov	$SYS_STACK, %esp
	REPORT	%rbp
	WANT	0
	DONE
	.balign	64
9:	mov	$1, %eax
	syscall				/* to_kernel: comes back behind it, in the kernel's mapping */
	jmp	8b

/* An instruction over the edge of two pages; each half is changed. */
	CASE	page_edge
	movq	$SYS_DATA + 0x1000 + P + W, SYS_PT_WINDOW + 8
	movq	$SYS_DATA + 0x8000 + P + W, SYS_PT_WINDOW + 16
	mov	$SYS_WINDOW + 0x1ffd, %ebx	/* mov $imm32, %eax: two bytes of it in the first page */
	movl	$0x000000b8, (%rbx)
	movl	$0x0000c300, 3(%rbx)
	movb	$0x00, 4(%rbx)
	movb	$0xc3, 5(%rbx)
	movl	$0x11223344, 1(%rbx)
	call	*%rbx
	CHECK_EAX 0x11223344
	movb	$0x55, 1(%rbx)
	call	*%rbx
	CHECK_EAX 0x11223355
	movb	$0x66, 4(%rbx)
	call	*%rbx
	CHECK_EAX 0x66223355
	movb	$0x77, SYS_DATA + 0x8000	/* by the second frame's other name */
	xor	%eax, %eax
	mov	%rbx, %rbp
	cpuid
	call	*%rbp
	CHECK_EAX 0x66773355
	mov	%rbp, %rbx
	movw	$0xabcd, 2(%rbx)		/* one store in both */
	call	*%rbx
	CHECK_EAX 0x66abcd55
	DONE

/* The same address, another frame: after INVLPG, and back. */
	CASE	remapped
	movl	$0x0000aab8, SYS_DATA + 0x1000
	movw	$0xc300, SYS_DATA + 0x1004
	movl	$0x0000bbb8, SYS_DATA + 0x2000
	movw	$0xc300, SYS_DATA + 0x2004
	mov	$SYS_WINDOW + 0x1000, %ebx
	mov	$20, %ebp
	xor	%esi, %esi
1:	movq	$SYS_DATA + 0x1000 + P + W, SYS_PT_WINDOW + 8
	invlpg	(%rbx)
	call	*%rbx
	add	%eax, %esi
	movq	$SYS_DATA + 0x2000 + P + W, SYS_PT_WINDOW + 8
	invlpg	(%rbx)
	call	*%rbx
	shl	$16, %rax
	add	%rax, %rsi
	dec	%ebp
	jnz	1b
	REPORT	%rsi
	WANT	0xe9c0d48
	movq	$0, SYS_PT_WINDOW + 8
	invlpg	(%rbx)
	RESUME	2f
	call	*%rbx
	EXPECT	14, error=0x10, cr2=SYS_WINDOW+0x1000
2:	mov	$SYS_STACK, %esp
	DONE

/* The same with addresses that a table of jumps has one place for, and another for those that had to leave it. */
	.macro	CALL_PLACE n, value
	mov	$SYS_WINDOW + 0x1000 * \n, %ebx
	call	*%rbx
	CHECK_EAX \value
	.endm
	.macro	MAP_PLACE n, frame
	movq	$SYS_DATA + 0x1000 * \frame + P + W, SYS_PT_WINDOW + 8 * \n
	.endm
	CASE	remapped_places
	.irp	n, 1, 2, 3
	movl	$0xa0b8 + 0x100 * \n, SYS_DATA + 0x1000 * \n	/* mov $0xa\n, %eax; ret */
	movw	$0xc300, SYS_DATA + 0x1000 * \n + 4
	.endr
	MAP_PLACE 0x01, 1
	MAP_PLACE 0x21, 2
	mov	%cr3, %rax
	mov	%rax, %cr3
	CALL_PLACE 0x01, 0xa1
	CALL_PLACE 0x21, 0xa2
	MAP_PLACE 0x01, 3
	invlpg	SYS_WINDOW + 0x1000
	CALL_PLACE 0x01, 0xa3
	CALL_PLACE 0x21, 0xa2
	CALL_PLACE 0x01, 0xa3
	MAP_PLACE 0x21, 1
	mov	%cr3, %rax
	mov	%rax, %cr3
	CALL_PLACE 0x21, 0xa1
	CALL_PLACE 0x01, 0xa3
	DONE

/*
 * Direct jumps from one page to another, in which the carry goes along: taken again and again, after the target's page
 * was forgotten, is another one, has changed, or is gone.
 */
	.macro	TRY_FAR at, flag, value
	mov	$SYS_WINDOW + 0x1000 + \at, %ebx
	\flag
	call	*%rbx
	CHECK_EAX \value
	.endm
	.macro	TRY_ALL_FAR base
	.rept	3
	TRY_FAR	0x00, clc, \base
	TRY_FAR	0x00, stc, \base + 1
	TRY_FAR	0x20, stc, \base + 0x101
	TRY_FAR	0x20, clc, 0x77
	TRY_FAR	0x40, stc, \base + 1
	TRY_FAR	0x40, clc, \base
	TRY_FAR	0x60, stc, \base + 0x102
	TRY_FAR	0x60, clc, 0x79
	.endr
	.endm
	.macro	COPY_FAR from, frame
	mov	$ADDR(\from), %esi
	mov	$SYS_DATA + 0x1000 * \frame, %edi
	mov	$0x80, %ecx
	rep movsb
	.endm
	CASE	far_jumps
	COPY_FAR 8f, 1
	COPY_FAR 9f, 2
	COPY_FAR 9f, 3
	movl	$0x3000, SYS_DATA + 0x3011
	movl	$0x3000, SYS_DATA + 0x3031
	MAP_PLACE 1, 1
	MAP_PLACE 2, 2
	mov	%cr3, %rax
	mov	%rax, %cr3
	TRY_ALL_FAR 0x2000
	mov	%cr3, %rax
	mov	%rax, %cr3
	TRY_ALL_FAR 0x2000
	invlpg	SYS_WINDOW + 0x2000
	TRY_ALL_FAR 0x2000
	invlpg	SYS_WINDOW + 0x1000
	TRY_ALL_FAR 0x2000
	MAP_PLACE 2, 3
	invlpg	SYS_WINDOW + 0x2000
	TRY_ALL_FAR 0x3000
	MAP_PLACE 2, 2
	mov	%cr3, %rax
	mov	%rax, %cr3
	TRY_ALL_FAR 0x2000
	movl	$0x5000, SYS_DATA + 0x2011	/* the target's code, by its other name */
	movl	$0x5000, SYS_DATA + 0x2031
	cpuid
	TRY_ALL_FAR 0x5000
	movl	$0x6000, SYS_DATA + 0x2011
	movl	$0x6000, SYS_DATA + 0x2031
	mov	%cr3, %rax
	mov	%rax, %cr3
	TRY_ALL_FAR 0x6000
	movq	$0, SYS_PT_WINDOW + 16
	invlpg	SYS_WINDOW + 0x2000
	.irp	at, 0x00, 0x40
	RESUME	1f
	mov	$SYS_WINDOW + 0x1000 + \at, %ebx
	stc
	call	*%rbx
	EXPECT	14, error=0x10, cr2=SYS_WINDOW+0x2010, fset=1
1:	mov	$SYS_STACK, %esp
	.endr
	RESUME	1f
	mov	$SYS_WINDOW + 0x1020, %ebx
	stc
	call	*%rbx
	EXPECT	14, error=0x10, cr2=SYS_WINDOW+0x2030, fset=1
1:	mov	$SYS_STACK, %esp
	MAP_PLACE 2, 3
	TRY_ALL_FAR 0x3000
	DONE
	/* for SYS_WINDOW + 0x1000 */
8:	jmp	. + 0x1010
	.skip	0x20 - (. - 8b), 0xcc
	jc	. + 0x1010
	mov	$0x77, %eax
	ret
	.skip	0x40 - (. - 8b), 0xcc
	call	. + 0xfd0
	ret
	.skip	0x60 - (. - 8b), 0xcc
	mov	$2, %edx			/* as the one above, and the carry stays */
	jnc	1f
	call	2f
	lea	(%rax, %rdx), %eax
	dec	%eax
	ret
1:	mov	$0x79, %eax
	ret
2:	jmp	. + 0x2030 - 0x1000 - (2b - 8b)
	.skip	0x80 - (. - 8b), 0xcc
	/* for SYS_WINDOW + 0x2000 */
9:	.skip	0x10, 0xcc
	mov	$0x2000, %eax
	adc	$0, %eax
	ret
	.skip	0x30 - (. - 9b), 0xcc
	mov	$0x2000, %eax
	adc	$0x100, %eax
	ret
	.skip	0x80 - (. - 9b), 0xcc

/* The same to an instruction that lies across two pages, of which the second is another one after INVLPG:
   Bochs keeps it, as in `forward` of system_loops.S. */
	CASE	far_jumps_across, NOT_BOCHS
	.irp	n, 3, 4
	movw	$0xc300 + \n, SYS_DATA + 0x1000 * \n	/* the end of mov, and ret */
	.endr
	movb	$0xe9, SYS_DATA + 0x1000
	movl	$0x1ffc - 5, SYS_DATA + 0x1001
	movl	$0x112233b8, SYS_DATA + 0x2ffc
	MAP_PLACE 1, 1
	MAP_PLACE 2, 2
	mov	$SYS_WINDOW + 0x1000, %ebx
	.rept	3
	.irp	n, 3, 4
	MAP_PLACE 3, \n
	invlpg	SYS_WINDOW + 0x3000
	call	*%rbx
	CHECK_EAX (0x112233 + 0x1000000 * \n)
	call	*%rbx
	CHECK_EAX (0x112233 + 0x1000000 * \n)
	.endr
	.endr
	DONE

/* Addresses that may be in such a table where it is empty. */
	CASE	low_addresses
	mov	%cr3, %rax
	.irp	at, 0, 8, 1
	movb	$0x90, \at
	movb	$0xc3, \at + 1
	mov	%rax, %cr3			/* and it is empty */
	mov	$\at, %ebx
	call	*%rbx
	.endr
	REPORT	%rbx
	WANT	1
	DONE

/* One page of code with its own data in it: the code stays right, and it ends. */
	CASE	code_and_data
	mov	$20000, %ecx
	xor	%eax, %eax
1:	incl	8f(%rip)
	add	8f(%rip), %eax
	loop	1b
	CHECK_EAX 0x0bebe910
	DONE
	.balign	8
8:	.long	0

/* Copied code, run, overwritten by other code of the same length, many times over. */
	CASE	jit
	mov	$2000, %ebp
	xor	%r8d, %r8d
1:	mov	$SYS_DATA, %edi
	mov	%ebp, %ecx
	and	$15, %ecx
	inc	%ecx
2:	movb	$0x05, (%rdi)		/* add $imm32, %eax */
	mov	%ebp, 1(%rdi)
	add	$5, %edi
	loop	2b
	movb	$0xc3, (%rdi)
	xor	%eax, %eax
	mov	$SYS_DATA, %edx
	call	*%rdx
	mov	%ebp, %ecx
	and	$15, %ecx
	inc	%ecx
	imul	%ebp, %ecx
	cmp	%ecx, %eax
	jne	3f
	dec	%ebp
	jnz	1b
3:	REPORT	%rbp
	WANT	0
	DONE

/* A breakpoint set and taken away in its own page, as a kernel's probes do it. */
	CASE	int3
	mov	$3, %ebx
1:	movb	$0xcc, 9f(%rip)
	HOOK	8f
	jmp	9f
9:	nop
	dec	%ebx
	jnz	1b
	.rept	3
	EXPECT	3, rip=9b+1
	.endr
	DONE
8:	movb	$0x90, 9b(%rip)
	decq	48 + 8(%rsp)
	ret

/* A store into code whose page the kernel has as read-only, with WP off, as some kernels patch. */
	CASE	write_protected
	movq	$SYS_DATA + 0x1000 + P, SYS_PT_WINDOW + 8
	movl	$0x000001b8, SYS_DATA + 0x1000
	movw	$0xc300, SYS_DATA + 0x1004
	mov	$SYS_WINDOW + 0x1000, %ebx
	call	*%rbx
	CHECK_EAX 1
	PAGE_FAULT 3, SYS_WINDOW+0x1001, movb $2, 1(%rbx)
	call	*%rbx
	CHECK_EAX 1
	mov	%cr0, %rax
	and	$~0x10000, %rax
	mov	%rax, %cr0
	movb	$2, 1(%rbx)
	call	*%rbx
	CHECK_EAX 2
	DONE

/* Code over the code of the present block's end: REP STOS over itself goes on as if prefetched or as changed; here it
   clears only what lies behind, which must be gone. */
	CASE	rep_over_next
	lea	1f(%rip), %rdi
	mov	$2, %ecx
	mov	$0x90, %al
	xor	%ebx, %ebx
	rep stosb
1:	inc	%ebx			/* ff c3: two bytes of nop */
	REPORT	%rbx
	WANT	0
	DONE

	END_IMAGE code
