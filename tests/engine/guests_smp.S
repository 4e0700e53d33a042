/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two vCPUs of cases_smp.c that run the same guest: the first one's stack is at RIG_STACK. They share the words below,
 * a cache line each, and end with HLT. Who has to be told something looks at memory: no interrupt is ever sent, but they
 * are on, since a guest that spins with them off keeps Bochs from its host's own.
 */
#include "tests/engine/guest.inc"

#define STACK	0x80000
#define WORD(n)	(0x30000 + 64 * (n))
#define ROUNDS	WORD(0)		/* given by the test */
#define FAILED	WORD(1)		/* what went wrong, or 0 */
#define SITE	WORD(2)		/* given: the function that is patched */
#define SEQ	WORD(3)
#define ACK	WORD(4)
#define GEN	WORD(5)
#define CHANGING WORD(6)
#define DONE	WORD(7)
#define TRAPS	WORD(8)		/* breakpoints hit */
#define CALLS	WORD(9)
#define A	WORD(10)
#define B	WORD(11)
#define LINES	(0x3203d)	/* over the edge of two cache lines */
#define SPLIT	(0x31ffd)	/* over the edge of two pages */
#define TRAPPED	0x79b9b9b9

	.macro	IF_SECOND label
	cmp	$STACK, %rsp
	jne	\label
	.endm

	.section .rodata

/*
 * Patching as kernels do it: a breakpoint over the first byte, the tail, the first byte; after each step the other vCPU
 * has executed a serialising instruction. The other one calls the function all the time: it sees the old value, the
 * new one or the breakpoint, and once the patch is through only the new one.
 */
	GUEST	poke
	jmp	1f
	.org	guest_poke + 0x10	/* handler of #BP: as if the function had returned TRAPPED */
	addq	$4, (%rsp)
	mov	$TRAPPED, %eax
	lock incq TRAPS
	iretq
	.macro	SYNC
	lock incq SEQ
	mov	SEQ, %rax
79:	pause
	cmp	%rax, ACK
	jne	79b
	.endm
1:	sti
	IF_SECOND 5f
	mov	ROUNDS, %r12
	mov	SITE, %rbx
	xor	%r13d, %r13d
2:	inc	%r13
	movq	$1, CHANGING
	movb	$0xcc, (%rbx)
	SYNC
	mov	%r13d, 1(%rbx)
	SYNC
	movb	$0xb8, (%rbx)
	SYNC
	mov	%r13, GEN
	movq	$0, CHANGING
	cmpq	$0, FAILED
	jne	3f
	dec	%r12
	jnz	2b
3:	movq	$1, DONE
	hlt
5:	mov	SEQ, %r14
	xor	%eax, %eax
	cpuid
	mov	%r14, ACK
	mov	GEN, %r12
	mov	CHANGING, %r13
	mov	SITE, %rbx
	call	*%rbx
	mov	CHANGING, %r8
	mov	GEN, %r9
	incq	CALLS
	or	%r13, %r8
	jnz	6f
	cmp	%r12, %r9
	jne	6f
	cmp	%r12d, %eax		/* stable: nothing but the new one */
	je	7f
	movq	$1, FAILED
	mov	%rax, A
	mov	%r12, B
	jmp	7f
6:	cmp	%r12d, %eax
	je	7f
	cmp	$TRAPPED, %eax
	je	7f
	inc	%r12d
	cmp	%r12d, %eax
	je	7f
	movq	$2, FAILED
	mov	%rax, A
	mov	%r12, B
7:	cmpq	$0, DONE
	je	5b
	hlt
	.balign	16
	.globl	guest_poke_near, guest_poke_far
guest_poke_near:			/* in the page of both loops */
	mov	$0, %eax
	ret
	.org	guest_poke + 0x1000
guest_poke_far:				/* in a page of its own */
	mov	$0, %eax
	ret
	END	poke

/*
 * Each vCPU has a function of its own in one page and writes new values into it, calls it, and wants the value that it
 * wrote: stores into code from two sides at once.
 */
	GUEST	neighbours
	sti
	mov	$guest_neighbours_first - guest_neighbours + LOAD, %ebx
	IF_SECOND 1f
	jmp	2f
1:	add	$16, %rbx
2:	mov	ROUNDS, %r12
3:	mov	%r12d, 1(%rbx)
	call	*%rbx
	cmp	%r12d, %eax
	jne	4f
	dec	%r12
	jnz	3b
	hlt
4:	movq	$3, FAILED
	mov	%rax, A
	mov	%r12, B
	hlt
	.balign	16
guest_neighbours_first:
	mov	$0, %eax
	ret
	.balign	16
	mov	$0, %eax
	ret
	END	neighbours

/*
 * The second vCPU writes a function's value without end, in a loop that has nothing else to do; the first one calls it,
 * and never sees a value older than the last one that it knows to be written.
 */
	GUEST	written
	sti
	mov	$guest_written_function - guest_written + LOAD, %ebx
	IF_SECOND 4f
	mov	ROUNDS, %r12
0:	pause
	cmpq	$0, A
	je	0b
1:	mov	A, %r13
	xor	%eax, %eax
	mov	%rbx, %rsi
	cpuid				/* what it fetches from now on is what it has seen written, or newer */
	mov	%rsi, %rbx
	call	*%rbx
	mov	%eax, %ecx
	sub	%r13d, %ecx		/* the numbers wrap after some seconds */
	js	3f
	dec	%r12
	jnz	1b
2:	movq	$1, DONE
	hlt
3:	mov	%rax, B
	mov	%r13, A
	movq	$6, FAILED
	jmp	2b
4:	xor	%eax, %eax
5:	inc	%eax
	mov	%eax, 1(%rbx)
	mov	%rax, A
	cmpq	$0, DONE
	je	5b
	hlt
	.org	guest_written + 0x1003
guest_written_function:
	mov	$0, %eax
	ret
	END	written

/* The second vCPU loops for ever, until the first one takes away the jump that does it; it puts that back. */
	GUEST	released
	sti
	mov	$guest_released_jump - guest_released + LOAD, %ebx
	IF_SECOND 3f
	mov	ROUNDS, %r12
0:	pause
	cmpq	$0, SEQ
	je	0b
1:	mov	SEQ, %rax
	movw	$0x9090, (%rbx)
2:	pause
	cmp	%rax, SEQ
	je	2b
	dec	%r12
	jnz	1b
	movq	$1, DONE
	movw	$0x9090, (%rbx)
	hlt
3:	movzwl	(%rbx), %ebp
	movq	$1, SEQ
	mov	$A, %ecx
	xor	%esi, %esi
4:	add	(%rcx), %rax
	test	%esi, %esi
	.balign	2, 0x90
guest_released_jump:
	jz	4b
	mov	%bp, (%rbx)
	lock incq SEQ
	cmpq	$0, DONE
	je	4b
	hlt
	END	released

/* Locked instructions of both add up, in a line, over lines and over pages; so does what a lock guards. */
	GUEST	locked
	sti
	mov	ROUNDS, %r12
1:	lock incq A
	lock addl $1, B
	mov	$1, %eax
	lock xadd %rax, B + 8
2:	mov	B + 16, %rax
	lea	3(%rax), %rcx
	lock cmpxchg %rcx, B + 16
	jne	2b
3:	mov	$1, %eax
	xchg	%eax, GEN
	test	%eax, %eax
	jz	4f
	pause
	jmp	3b
4:	incq	CALLS			/* guarded */
	addq	$2, SPLIT
	movl	$0, GEN
	dec	%r12
	jnz	1b
	hlt
	END	locked

/* The same over the edge of two pages, at once. */
	GUEST	locked_split
	sti
	mov	ROUNDS, %r12
1:	lock incl SPLIT
	lock addq $1, SPLIT + 0x1000 - 2
	dec	%r12
	jnz	1b
	hlt
	END	locked_split

/*
 * The first vCPU toggles a bit of a word in two pages, by an instruction that is always stepped. The second one makes
 * blocks, as many as it can, each with an instruction that is stepped as well: they fill the code cache. With SITE set
 * the first one only counts itself.
 */
	GUEST	emptied
	sti
	IF_SECOND 5f
	cmpq	$0, SITE
	jne	4f
	mov	ROUNDS, %r12
	mov	$SPLIT, %eax
	mov	$9, %r14d
	xor	%r13d, %r13d
1:	addr32 lock btcl %r14d, (%eax)
	setc	%cl
	cmp	%cl, %r13b
	jne	2f
	xor	$1, %r13d
	testl	$0xfffffdff, SPLIT
	jnz	2f
	incq	A
	cmp	%r12, CALLS
	jb	1b
	jmp	3f
2:	movq	$1, FAILED
3:	movq	$1, DONE
	hlt
4:	lock incl SPLIT
	incq	A
	hlt
5:	.rept	1000
	sldt	%ecx
	jmp	. + 2
	.endr
	incq	CALLS
	cmpq	$0, DONE
	je	5b
	hlt
	END	emptied

/* The second vCPU does nothing but locked instructions across pages; the first one has work to do. */
	GUEST	lock_hog
	sti
	IF_SECOND 5f
1:	cmpl	$100, SPLIT		/* the other one is at it */
	jb	1b
	mov	ROUNDS, %r12
2:	incq	A
	dec	%r12
	jnz	2b
	movq	$1, DONE
	hlt
5:	lock incl SPLIT
	cmpq	$0, DONE
	je	5b
	hlt
	END	lock_hog

/* Locked instructions across two cache lines of a page; each adds 1 to what lies there. Until DONE at most. */
	GUEST	locked_lines
	sti
	mov	ROUNDS, %r12
	mov	$LINES, %ebx
1:	lock incq (%rbx)
	lock addq $1, (%rbx)
	mov	$1, %eax
	lock xadd %rax, (%rbx)
	mov	(%rbx), %rax
	lea	1(%rax), %rcx
	lock cmpxchg %rcx, (%rbx)
	mov	$1, %r14d
	mov	$1, %r15d
	lock xadd %r14, (%rbx)
	addr32 lock add %r15, (%ebx)
	incq	CALLS
	cmpq	$0, DONE
	jne	3f
	dec	%r12
	jnz	1b
3:	hlt
	END	locked_lines

/* The same by both at once. */
	GUEST	line_pair
	sti
	mov	ROUNDS, %r12
1:	lock incq LINES
	mov	$1, %r10d
	lock xadd %r10, LINES
2:	mov	LINES, %rax
	lea	1(%rax), %rcx
	lock cmpxchg %rcx, LINES
	jne	2b
	dec	%r12
	jnz	1b
	hlt
	END	line_pair

/*
 * Locked instructions of each size at each place of a line: PLACES_SPLIT of them go on in the next one. Each byte of
 * the line is 7 in the end, and what comes then 0.
 */
	GUEST	line_places
	mov	$LINES & ~0xfff, %ebx
	mov	$64, %ebp
1:	lock incw (%rbx)
	lock addl $1, (%rbx)
	lock incq (%rbx)
	mov	%rbx, %r11
	mov	$1, %r10d
	lock xadd %r10, (%r11)
	stc
	lock incl (%rbx)		/* CF stays */
	lock adcl $0, (%rbx)
	mov	(%rbx), %r10
	add	$1, %r10
	xchg	%r10, (%r11)
	xchg	%ah, (%rbx)
	xchg	%ah, (%rbx)
	mov	$64, %ecx
	lock btcq %rcx, -8(%rbx)	/* the bit's word is at rbx */
	lock btcq %rcx, -8(%rbx)
	inc	%rbx
	dec	%ebp
	jnz	1b
	hlt
	END	line_places

/*
 * Total store order: the second vCPU never sees B's round without A's. And of two that each write and, behind MFENCE
 * or a locked instruction, read the other's, one sees what the other wrote.
 */
	GUEST	order
	sti
	IF_SECOND 2f
	xor	%eax, %eax
	mov	ROUNDS, %r12
1:	inc	%rax
	mov	%rax, A
	mov	%rax, B
	dec	%r12
	jnz	1b
	movq	$1, DONE
	hlt
2:	mov	B, %rax
	mov	A, %rcx
	cmp	%rax, %rcx
	jb	3f
	cmpq	$0, DONE
	je	2b
	hlt
3:	movq	$4, FAILED
	hlt
	END	order

	.macro	STORE_BUFFER mine, other, seen
	mov	ROUNDS, %r12
1:	lock incq SEQ			/* both begin a round together */
	mov	ROUNDS, %rax
	sub	%r12, %rax
	lea	2(, %rax, 2), %rax
2:	cmp	%rax, SEQ
	jb	2b
	movq	$1, \mine
	mfence
	mov	\other, %rcx
	mov	%rcx, \seen
	lock incq ACK			/* and end it together */
3:	cmp	%rax, ACK
	jb	3b
	.endm
	GUEST	store_buffer
	sti
	IF_SECOND 5f
	STORE_BUFFER A, B, GEN
	mov	GEN, %rcx
	or	CHANGING, %rcx
	jz	9f
	movq	$0, A
	movq	$0, B
	lock incq CALLS			/* cleared: the next round may begin */
	dec	%r12
	jnz	1b
	hlt
5:	STORE_BUFFER B, A, CHANGING
	mov	ROUNDS, %rax
	sub	%r12, %rax
6:	cmp	%rax, CALLS
	jbe	6b
	dec	%r12
	jnz	1b
	hlt
9:	movq	$5, FAILED
	lock addq $0x10000000, CALLS
	hlt
	END	store_buffer

/* Calls two functions for ever, one in its own page, and says what they return. The test changes them meanwhile. */
	GUEST	outside
1:	call	guest_outside_near
	out	%eax, $0x10
	call	guest_outside_far
	out	%eax, $0x10
	jmp	1b
	.balign	16
	.globl	guest_outside_near, guest_outside_far
guest_outside_near:
	mov	$0, %eax
	ret
	.org	guest_outside + 0x1000
guest_outside_far:
	mov	$0, %eax
	ret
	END	outside

/*
 * An operand of ten bytes whose page comes and goes: the second one writes the entry of its page table all the time, the
 * first one loads from it, and its handler lets it try again.
 */
#define COMES_AND_GOES	0x200000
#define ITS_DIRECTORY	0x12000
#define ITS_TABLE	0x60000
	GUEST	operand_comes_and_goes
	jmp	1f
	.org	guest_operand_comes_and_goes + 0x10	/* handler of #PF */
	add	$8, %rsp
	incq	TRAPS
	iretq
1:	sti
	IF_SECOND 3f
	mov	ROUNDS, %r12
	movq	$ITS_TABLE + 3, ITS_DIRECTORY + 8
2:	invlpg	COMES_AND_GOES
	fldt	COMES_AND_GOES + 8
	fstp	%st(0)
	dec	%r12
	jns	2b
	cmpq	$100, TRAPS		/* the other one may begin later */
	jb	2b
	movq	$1, DONE
	hlt
3:	movq	$0x40000 + 3, ITS_TABLE
	mov	$8, %ecx
4:	dec	%ecx
	jnz	4b
	movq	$0, ITS_TABLE
	cmpq	$0, DONE
	je	3b
	hlt
	END	operand_comes_and_goes

	.section .note.GNU-stack, "", @progbits
