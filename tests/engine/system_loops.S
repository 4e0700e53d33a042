/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops and straight lines whose accesses are neighbours: over the edges of pages, into pages with other rights, onto
 * their own code, off bases that are no addresses. An engine may look pages up once for many accesses; none of this may
 * show it. And branches and strings whose prefixes vendors take differently. The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

#define P 1
#define W 2
#define A 0x20
#define D 0x40

	.macro	MAP n, value:vararg
	movq	$\value, SYS_PT_WINDOW + 8 * \n
	invlpg	SYS_WINDOW + 0x1000 * \n
	.endm
	.macro	REPORT_PTE n
	mov	SYS_PT_WINDOW + 8 * \n, %rax
	REPORT	%rax
	.endm

#define PAGE(n) (SYS_WINDOW + 0x1000 * (n))
#define FRAME(n) (SYS_DATA + 0x1000 * (n))

	IMAGE	loops
gate_target:
	DONE

/* A record of 24 bytes, read and written over five pages, whose frames are not neighbours. */
	CASE	records
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(4)+P+W
	MAP	3, FRAME(2)+P+W
	MAP	4, FRAME(8)+P+W
	MAP	5, FRAME(6)+P+W
	mov	$PAGE(1), %ebx
	xor	%ecx, %ecx
	add	$4, %ebx
1:	mov	%rcx, (%rbx)
	movq	$1, 8(%rbx)
	movl	$2, 16(%rbx)
	movl	$3, 20(%rbx)
	add	$24, %rbx
	inc	%ecx
	cmp	$850, %ecx
	jne	1b
	mov	$3, %ebp
2:	mov	$PAGE(1)+4, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
3:	mov	(%rbx), %rax
	add	8(%rbx), %rax
	add	%rax, 8(%rbx)
	mov	16(%rbx), %esi
	add	%esi, 20(%rbx)
	add	%rax, %rdx
	add	$24, %rbx
	inc	%ecx
	cmp	$850, %ecx
	jne	3b
	dec	%ebp
	jnz	2b
	REPORT	%rdx			/* 4n + 4, in the third round */
	WANT	4*850+4*850*849/2
	mov	PAGE(1)+4+24*170+8, %rax
	REPORT	%rax			/* 7n + 8: record 170 crosses from page 1 into page 2 */
	WANT	7*170+8
	mov	FRAME(4)+8, %eax	/* its last word */
	REPORT	%rax
	WANT	9
	REPORT_PTE 5
	WANT	FRAME(6)+P+W+A+D
	DONE

/* Only reads: no page gets dirty. Reads, and a write that does not come to pass: neither. */
	CASE	dirty
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(2)+P+W
	MAP	3, FRAME(3)+P+W
	mov	$PAGE(1)+8, %ebx
	mov	$300, %ecx
1:	mov	(%rbx), %rax
	add	8(%rbx), %rax
	add	$16, %rbx
	dec	%ecx
	jnz	1b
	REPORT_PTE 1
	WANT	FRAME(1)+P+W+A
	REPORT_PTE 2
	WANT	FRAME(2)+P+W+A
	mov	$PAGE(3), %ebx
	mov	(%rbx), %eax
	RESUME	2f
	div	%cl			/* by 0 */
	mov	%eax, 4(%rbx)
	EXPECT	0
2:	REPORT_PTE 3
	WANT	FRAME(3)+P+W+A
	mov	%eax, 4(%rbx)
	REPORT_PTE 3
	WANT	FRAME(3)+P+W+A+D
	DONE

/* The same of what a loop's first access looks up for the others. */
	CASE	dirty_others
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(2)+P+W
	MAP	3, FRAME(3)+P+W
	mov	$PAGE(1), %ebx
	mov	$PAGE(2), %esi
	mov	$50, %ecx
	jmp	1f			/* so that the loop's first round is the loop's */
1:	mov	(%rbx), %rax
	add	(%rsi), %rax
	add	$8, %rbx
	add	$8, %rsi
	dec	%ecx
	jnz	1b
	REPORT_PTE 2
	WANT	FRAME(2)+P+W+A
	mov	$PAGE(3), %esi
	mov	$5, %edi
	RESUME	3f
	jmp	2f
2:	mov	(%rbx), %rax
	div	%rcx			/* by 0 */
	mov	%rax, (%rsi)
	add	$8, %rsi
	dec	%edi
	jnz	2b
	EXPECT	0
3:	mov	SYS_PT_WINDOW + 8 * 3, %rax
	and	$D, %eax
	REPORT	%rax
	WANT	0
	DONE

/* The loop comes to a page that is read-only, or to none. The registers are those of that round. */
	CASE	rights
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(2)+P
	MAP	3, 0
	mov	$PAGE(1)+0xf00, %ebx
	xor	%ecx, %ecx
	RESUME	3f
1:	mov	(%rbx), %rax
	inc	%ecx
2:	mov	%rax, 8(%rbx)
	add	$16, %rbx
	cmp	$0x1000, %ecx
	jne	1b
	EXPECT	14, error=3, rip=2b, cr2=(PAGE(2)+8)
3:	REPORT	%rcx
	WANT	17
	REPORT	%rbx
	WANT	PAGE(2)
	RESUME	6f
	mov	$PAGE(2)+0xe00, %ebx
	xor	%ecx, %ecx
4:	inc	%ecx
5:	mov	(%rbx), %rax
	add	8(%rbx), %rax
	add	$16, %rbx
	cmp	$0x1000, %ecx
	jne	4b
	EXPECT	14, error=0, rip=5b, cr2=PAGE(3)
6:	REPORT	%rcx
	WANT	33
	DONE

/* Data beside the loop's code; its own code; its own last jump. */
	CASE	own_code
	lea	9f(%rip), %rbx
	mov	$100, %ecx
	xor	%edx, %edx
1:	mov	(%rbx), %eax
	add	$1, %eax
	mov	%eax, (%rbx)
	add	%eax, %edx
	dec	%ecx
	jnz	1b
	REPORT	%rdx
	WANT	5050
	lea	2f+2(%rip), %rbx
	mov	$50, %ecx
	xor	%edx, %edx
2:	add	$0x100, %edx
	mov	%ecx, (%rbx)
	dec	%ecx
	jnz	2b
	REPORT	%rdx			/* 256 + 50 + 49 + ... + 2 */
	WANT	1530
	lea	4f(%rip), %rbx
	movzwl	(%rbx), %esi
	mov	$0x9090, %edi
	mov	$1000, %ecx
3:	dec	%ecx
	cmp	$990, %ecx
	cmove	%edi, %esi
	mov	%si, (%rbx)
	test	%ecx, %ecx
4:	jnz	3b
	REPORT	%rcx
	WANT	990
	DONE
	.balign	4
9:	.long	0

/* Bases that are no addresses. */
	CASE	not_canonical, NOT_QEMU	/* which raises #GP for the stack, too */
	mov	$0x4000000000000000, %rbx
	mov	$5, %ecx
	RESUME	2f
1:	mov	8(%rbx), %rax
	add	$8, %rbx
	dec	%ecx
	jnz	1b
	EXPECT	13, error=0, rip=1b
2:	mov	$0x4000000000000010, %rbp
	RESUME	4f
3:	mov	(%rbp), %rax
	sub	$8, %rbp
	dec	%ecx
	jnz	3b
	EXPECT	12, error=0, rip=3b
4:	REPORT	%rcx
	WANT	5
	DONE

/* A stack whose every word is on two pages, or on one or the other. */
	CASE	stack
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(4)+P+W
	mov	%rsp, %rbp
	mov	$PAGE(2)+12, %esp
	mov	$20, %ecx
	xor	%edx, %edx
1:	push	%rcx
	push	%rcx
	push	$7
	pop	%rax
	pop	%rsi
	add	%rax, %rdx
	add	%rsi, %rdx
	pop	%rdi
	add	%rdi, %rdx
	call	2f
	dec	%ecx
	jnz	1b
	mov	%rbp, %rsp
	REPORT	%rdx
	WANT	580
	DONE
2:	incl	%edx
	ret

/* What changes a base between two accesses: the second one is on another page. */
	.set	ONE, PAGE(1)
	.set	TWO, PAGE(2)
	.macro	CHANGE base, code
	mov	$PAGE(1), %rbx
	mov	%rbx, \base
	mov	(\base), %rsi
	\code
	add	(\base), %rsi
	REPORT	%rsi
	WANT	3
	.endm

	CASE	bases, NEED_CX16
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(4)+P+W
	movq	$1, PAGE(1)
	movq	$2, PAGE(2)
	CHANGE	%rdi, "add $0x1000, %rdi"
	CHANGE	%rdi, "sub $-0x1000, %rdi"
	CHANGE	%rdi, "lea 0x1000(%rdi), %rdi"
	CHANGE	%rdi, "lea 0x1000(%edi), %edi"
	CHANGE	%rdi, "add $0x1000, %di"
	CHANGE	%rdi, "add $0x1000, %edi"
	CHANGE	%rbx, "mov $0x20, %bh"
	CHANGE	%rbx, "xor $0x30, %bh"
	CHANGE	%rcx, "mov $TWO, %r8d; xchg %r8, %rcx"
	CHANGE	%rcx, "movq $TWO, ONE+8; mov 8(%rcx), %rcx"
	CHANGE	%rcx, "movq $0x1000, ONE+8; xadd %rcx, ONE+8; mov ONE+8, %rcx"
	CHANGE	%rcx, "movq $TWO, ONE+8; xchg %rcx, 8(%rcx)"
	CHANGE	%rax, "movq $TWO, ONE+8; cmpxchg %rcx, 8(%rbx)"
	CHANGE	%rdx, "movq $TWO, ONE+24; cmpxchg16b 16(%rbx)"
	CHANGE	%rax, "mov $TWO, %ecx; cmp %rax, %rax; cmove %rcx, %rax"
	CHANGE	%rax, "imul $1, %rax, %rax; mov $TWO/16, %ecx; mov $16, %eax; mul %ecx"
	CHANGE	%rdx, "mov $TWO, %eax; shl $32, %rax; mul %rdx; mov %eax, %edx; mov $TWO, %edx"
	CHANGE	%rbp, "push $TWO; pop %rbp"
	CHANGE	%rbp, "movq $TWO, ONE+0x80; mov %rsp, %rax; sub $-0x80, %rbp; leave; mov %rax, %rsp"
	CHANGE	%r13, "bts $13, %r13; btr $12, %r13"
	DONE

/*
 * Neighbours over an edge, again and again, of a straight line and of a loop; flags that are older are read behind them,
 * and the page behind the edge changes its place in between.
 */
	CASE	edge_flags
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(4)+P+W
	mov	$PAGE(2)-8, %ebx
	movq	$5, (%rbx)
	movq	$7, 8(%rbx)
	MAP	2, FRAME(6)+P+W
	movq	$9, 8(%rbx)
	xor	%edx, %edx
	mov	$4, %ebp
1:	MAP	2, FRAME(4)+P+W
	test	$1, %ebp
	jz	2f
	MAP	2, FRAME(6)+P+W
2:	mov	$500, %ecx
3:	call	6f
	dec	%ecx
	jnz	3b
	mov	$500, %ecx
4:	bt	$0, %ecx
	mov	(%rbx), %rsi
	mov	8(%rbx), %rdi
	adc	%rsi, %rdx
	lea	(%rdx,%rdi), %rdx
	dec	%ecx
	jnz	4b
	dec	%ebp
	jnz	1b
	REPORT	%rdx
	WANT	54000
	DONE
6:	bt	$0, %ecx
	mov	(%rbx), %rsi
	mov	8(%rbx), %rdi
	adc	%rsi, %rdx
	lea	(%rdx,%rdi), %rdx
	ret

/* Jumps and calls to what is in memory: next to other accesses, over an edge, where the call itself writes. */
	CASE	targets
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(4)+P+W
	mov	$PAGE(2)-8, %ebx
	lea	7f(%rip), %rax
	mov	%rax, (%rbx)
	mov	%rax, 8(%rbx)
	mov	%rax, PAGE(1)+16
	lea	8f(%rip), %rdi
	mov	%rdi, PAGE(1)+24
	mov	$200, %ecx
	xor	%edx, %edx
1:	mov	(%rbx), %rsi
	call	*(%rbx)
	mov	(%rbx), %rsi
	call	*8(%rbx)
	call	*PAGE(1)+16
	mov	(%rbx), %rdi
	push	%rcx
	call	*(%rbx)
	pop	%rcx
	lea	3f(%rip), %rsi
	mov	(%rbx), %rdi
	push	%rcx
	push	%rsi
	jmp	*(%rbx)			/* which returns behind it */
3:	pop	%rcx
	mov	%rax, -8(%rsp)
	call	*-8(%rsp)
	mov	%rbx, %r10
	call	*(%r10)
	MAP	1, FRAME(1)+P+W
	mov	%rbx, %r11		/* and a miss off a register that the translator wants itself */
	mov	(%r11), %rax
	call	*%rax
	MAP	1, FRAME(1)+P+W
	mov	$1, %esi
	mov	%rbx, %r10
	mov	-8(%r10,%rsi,8), %rax
	call	*%rax
	dec	%ecx
	jnz	1b
	jmp	*PAGE(1)+24
7:	inc	%edx
	ret
8:	REPORT	%rdx
	WANT	1800
	DONE

/* Displacements at the end of what 32 bits hold, one neighbour beyond it. */
	CASE	displacements
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(4)+P+W
	movq	$1, PAGE(1)
	movq	$2, PAGE(1)+8
	movq	$4, PAGE(1)+16
	mov	$PAGE(1)+0x80000010, %ebx
	mov	-0x80000000(%rbx), %rax
	sub	$8, %rbx
	add	-0x80000000(%rbx), %rax
	sub	$8, %rbx
	add	-0x80000000(%rbx), %rax
	REPORT	%rax
	WANT	7
	mov	$PAGE(1)-0x7fffffff, %rbx
	mov	0x7fffffff(%rbx), %rax
	add	$8, %rbx
	add	0x7fffffff(%rbx), %rax
	add	$8, %rbx
	add	0x7fffffff(%rbx), %rax
	REPORT	%rax
	WANT	7
	mov	$PAGE(1)-0x3fffffff, %rbx
	mov	0x3fffffff(%rbx), %rax
	add	$0x3fffffff, %rbx
	add	$0x3fffffff, %rbx
	add	16-0x3fffffff(%rbx), %rax
	REPORT	%rax
	WANT	5
	DONE

/* A register that is far away where others of the loop are looked up; there is another page, 4 GiB further. */
	CASE	far
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(2)+P+W
	movq	$5, PAGE(1)
	mov	SYS_PDPT + 8, %rax
	mov	%rax, SYS_PDPT + 8 * 5
	mov	$PAGE(1), %ebx
	mov	$PAGE(2), %esi
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$3, %edi
	jmp	1f
1:	add	$0x20000000, %rcx
	add	(%rsi), %rdx
	sub	$0x20000000, %rcx
	add	(%rbx, %rcx, 8), %rdx
	dec	%edi
	jnz	1b
	REPORT	%rdx
	WANT	15
	mov	$PAGE(1)+0x100000000-0x7ffff000, %rbx
	mov	$3, %edi
	jmp	1f
1:	sub	$0x2000, %rbx
	add	(%rsi), %rdx
	add	$0x2000, %rbx
	add	0x7ffff000(%rbx), %rdx
	dec	%edi
	jnz	1b
	REPORT	%rdx
	WANT	30
	DONE

/* What is held over an instruction that needs registers of its own. */
	CASE	held
	SET_MSR	0xc0000102, 0x7000
	mov	%rsp, %rbp
	mov	$1, %eax
	mov	$2, %ebx
	push	%rax
	swapgs
	push	%rbx
	swapgs
	push	%rax
	pop	%rcx
	pop	%rdx
	pop	%rsi
	lea	(%rsi, %rcx, 4), %rcx
	lea	(%rcx, %rdx, 8), %rcx
	REPORT	%rcx
	WANT	21
	mov	%rbx, -8(%rsp)
	cli
	add	%rbx, -8(%rsp)
	sti
	add	%rbx, -8(%rsp)
	cli
	pushfq
	pop	%rax
	sub	%rbx, -16(%rsp)
	mov	-8(%rsp), %rcx
	REPORT	%rbp
	WANT	SYS_STACK
	SET_MSR	0xc0000102, 0
	DONE

/* A jump to an instruction that becomes one across pages; then the page behind is another. */
	CASE	forward, NOT_BOCHS	/* which keeps the whole instruction with its first page */
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(2)+P+W
	movl	$0x000ff9e9, PAGE(1)		/* jmp to the last two bytes */
	movb	$0, PAGE(1)+4
	movb	$0xc3, PAGE(1)+0xffe		/* ret */
	movl	$0xc3000001, FRAME(2)
	movl	$0xc3000002, FRAME(3)
	mov	$PAGE(1), %ebx
	call	*%rbx
	call	*%rbx
	movw	$0x07b8, PAGE(1)+0xffe		/* mov to eax; ret */
	call	*%rbx
	REPORT	%rax
	WANT	0x107
	call	*%rbx
	REPORT	%rax
	WANT	0x107
	MAP	2, FRAME(3)+P+W
	call	*%rbx
	REPORT	%rax
	WANT	0x207
	MAP	2, 0
	RESUME	1f
	call	*%rbx
	EXPECT	14, error=0x10, cr2=PAGE(2)
1:	add	$8, %rsp
	DONE

/*
 * A 66h before a near branch: AMD's offsets have two bytes then, rip is cut to 16 bits, and so is what CALL pushes. At the
 * low end of memory, where that leads, is a way back.
 */
	CASE	near_66_amd, NEED_AMD | NOT_QEMU | NOT_KVM
	xor	%ebp, %ebp
	xor	%ecx, %ecx			/* ZF */
	.byte	0x66, 0x0f, 0x85, 0, 0		/* jnz, not taken; then mov $5, %cl */
	.byte	0xb1, 5
	REPORT	%rcx
	WANT	5
	movw	$0xe3ff, ADDR(2f)-LOAD		/* jmp *%rbx */
	movw	$0xe3ff, ADDR(4f)-LOAD
	movw	$0xe3ff, ADDR(6f)-LOAD
	mov	$ADDR(3f), %ebx
	.byte	0x66, 0xe9, 0, 0		/* jmp */
2:	inc	%ebp
3:	mov	$ADDR(5f), %ebx
	.byte	0x66, 0xeb, 0			/* jmp, short */
4:	inc	%ebp
5:	mov	$ADDR(7f), %ebx
	.byte	0x66, 0xe8, 0, 0		/* call */
6:	inc	%ebp
7:	REPORT	%rbp
	WANT	0
	movzwl	(%rsp), %eax
	mov	%rsp, %rcx
	mov	$SYS_STACK, %esp
	REPORT	%rcx
	WANT	SYS_STACK-2
	REPORT	%rax
	WANT	ADDR(6b)-LOAD
	DONE

/* Intel's do not look at it. */
	CASE	near_66_intel, NEED_INTEL | NOT_BOCHS | NOT_KVM
	xor	%ebp, %ebp
	xor	%ecx, %ecx			/* ZF */
	.byte	0x66, 0x0f, 0x85, 0, 0, 0xb1, 5	/* jnz, not taken */
	REPORT	%rcx
	WANT	0
	.byte	0x66, 0xe9, 1, 0, 0, 0		/* jmp, over the next byte */
	hlt
	inc	%ebp
	.byte	0x66, 0xe8, 1, 0, 0, 0		/* call, likewise */
2:	hlt
	inc	%ebp
	mov	(%rsp), %rax
	mov	%rsp, %rcx
	mov	$SYS_STACK, %esp
	REPORT	%rcx
	WANT	SYS_STACK-8
	REPORT	%rax
	WANT	ADDR(2b)
	REPORT	%rbp
	WANT	2
	DONE

/* Strings with 67h and a count of 0 in ecx, whatever is above it: nothing is moved. */
	.macro	NO_ITEMS rcx, rsi, rdi, code:vararg
	movabs	$0xabcd00000000, %rcx
	movabs	$0x1234000ff000, %rsi
	movabs	$0x5678000fe000, %rdi
	.byte	\code
	REPORT	%rcx
	WANT	\rcx
	REPORT	%rsi
	WANT	\rsi
	REPORT	%rdi
	WANT	\rdi
	.endm

	CASE	no_items_amd, NEED_AMD | NOT_QEMU | NOT_KVM
	movl	$0x11223344, 0xff000
	movl	$0, 0xfe000
	NO_ITEMS 0xabcd00000000, 0x1234000ff000, 0x5678000fe000, 0x67, 0xf3, 0xa4	/* movsb */
	NO_ITEMS 0xabcd00000000, 0x1234000ff000, 0x5678000fe000, 0x67, 0xf3, 0xab	/* stosd */
	NO_ITEMS 0xabcd00000000, 0x1234000ff000, 0x5678000fe000, 0x67, 0xf3, 0xac	/* lodsb */
	mov	0xfe000, %eax
	REPORT	%rax
	WANT	0
	DONE

/* Intel's CPUs cut registers all the same. */
	CASE	no_items_intel, NEED_INTEL | NOT_BOCHS | NOT_KVM
	movl	$0x11223344, 0xff000
	movl	$0, 0xfe000
	NO_ITEMS 0, 0xff000, 0xfe000, 0x67, 0xf3, 0xa4			/* movsb */
	NO_ITEMS 0, 0xff000, 0xfe000, 0x67, 0xf2, 0x48, 0xa5		/* movsq */
	NO_ITEMS 0, 0x1234000ff000, 0xfe000, 0x67, 0xf3, 0xab		/* stosd */
	NO_ITEMS 0, 0x1234000ff000, 0x5678000fe000, 0x67, 0xf3, 0xac	/* lodsb */
	NO_ITEMS 0, 0x1234000ff000, 0x5678000fe000, 0x67, 0xf3, 0xa6	/* cmpsb */
	NO_ITEMS 0, 0x1234000ff000, 0x5678000fe000, 0x67, 0xf3, 0xae	/* scasb */
	mov	0xfe000, %eax
	REPORT	%rax
	WANT	0
	DONE

/* Nor does it matter that the first item faults. */
	CASE	no_page_intel, NEED_INTEL | NOT_BOCHS | NOT_KVM
	movabs	$0xabcd00000002, %rcx
	movabs	$0x1234000ff000, %rsi
	movabs	$0x5678000fe000 + SYS_WINDOW - 0xfe000, %rdi
	PAGE_FAULT 2, SYS_WINDOW, .byte 0x67, 0xf3, 0xa4
	REPORT	%rcx
	WANT	2
	REPORT	%rsi
	WANT	0xff000
	REPORT	%rdi
	WANT	SYS_WINDOW
	DONE

/* With a count that is not 0 the upper halves are gone with any CPU; one item, then none. */
	CASE	few_items
	movl	$0x11223344, 0xff000
	movl	$0, 0xfe000
	movabs	$0xabcd00000003, %rcx
	movabs	$0x1234000ff000, %rsi
	movabs	$0x5678000fe000, %rdi
	.byte	0x67, 0xf3, 0xa4
	REPORT	%rcx
	WANT	0
	REPORT	%rsi
	WANT	0xff003
	REPORT	%rdi
	WANT	0xfe003
	mov	0xfe000, %eax
	REPORT	%rax
	WANT	0x223344
	DONE

	END_IMAGE loops
