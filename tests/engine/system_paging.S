/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paging: rights, error codes, accessed and dirty bits, reserved bits, sizes, what the TLB may keep and what not (SDM
 * vol. 3, 4.5 to 4.10; APM vol. 2, 5). The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

#define P 1
#define W 2
#define U 4
#define A 0x20
#define D 0x40
#define PS 0x80
#define G 0x100

	.macro	MAP n, value:vararg
	movq	$\value, SYS_PT_WINDOW + 8 * \n
	.endm
	.macro	MAP_NX n, value:vararg
	mov	$0x8000000000000000+\value, %rax
	mov	%rax, SYS_PT_WINDOW + 8 * \n
	.endm
	.macro	REPORT_PTE n
	mov	SYS_PT_WINDOW + 8 * \n, %rax
	REPORT	%rax
	.endm
	.macro	SET_CR reg, set, clear=0
	mov	%\reg, %rax
	.if	\clear
	and	$~(\clear), %rax
	.endif
	or	$\set, %rax
	mov	%rax, %\reg
	.endm
	.macro	FLUSH
	mov	%cr3, %rax
	mov	%rax, %cr3
	.endm

#define PAGE(n) (SYS_WINDOW + 0x1000 * (n))
#define FRAME(n) (SYS_DATA + 0x1000 * (n))

	.macro	SEES value		/* in page 1 */
	mov	PAGE(1), %eax
	REPORT	%rax
	WANT	\value
	.endm

	IMAGE	paging
gate_target:
	DONE

/* Error codes: P, W, U, RSVD, I. */
	CASE	errors_kernel
	MAP	1, FRAME(1)+P
	MAP	2, FRAME(2)+P+W+U
	MAP_NX	3, FRAME(3)+P+W
	PAGE_FAULT 0, (PAGE(0)+5), mov PAGE(0)+5, %al
	PAGE_FAULT 2, (PAGE(0)+5), mov %al, PAGE(0)+5
	PAGE_FAULT 3, PAGE(1), mov %al, PAGE(1)
	mov	PAGE(1), %al
	mov	%al, PAGE(2)
	mov	$PAGE(0), %eax
	RESUME	1f
	jmp	*%rax
	EXPECT	14, error=0x10, rip=(image_start+PAGE(0)-LOAD), cr2=PAGE(0)
1:	mov	$PAGE(3), %eax
	movb	$0xc3, (%rax)
	RESUME	1f
	call	*%rax
	EXPECT	14, error=0x11, rip=(image_start+PAGE(3)-LOAD), cr2=PAGE(3)
1:	mov	$SYS_STACK, %esp
	DONE

	CASE	errors_user
	MAP	1, FRAME(1)+P+U
	MAP	2, FRAME(2)+P+W
	MAP_NX	3, FRAME(3)+P+W+U
	TO_USER
	PAGE_FAULT 4, PAGE(0), mov PAGE(0), %al
	PAGE_FAULT 6, PAGE(0), mov %al, PAGE(0)
	PAGE_FAULT 7, PAGE(1), mov %al, PAGE(1)
	mov	PAGE(1), %al
	PAGE_FAULT 5, PAGE(2), mov PAGE(2), %al
	PAGE_FAULT 7, PAGE(2), mov %al, PAGE(2)
	mov	$PAGE(0), %ebx
	RESUME	1f
	jmp	*%rbx
	EXPECT	14, error=0x14, rip=(image_start+PAGE(0)-LOAD-WORLD), cr2=PAGE(0)
1:	mov	$PAGE(2), %ebx
	RESUME	1f
	jmp	*%rbx
	EXPECT	14, error=0x15, rip=(image_start+PAGE(2)-LOAD-WORLD), cr2=PAGE(2)
1:	mov	$PAGE(3), %ebx
	mov	%al, (%rbx)
	RESUME	1f
	jmp	*%rbx
	EXPECT	14, error=0x15, rip=(image_start+PAGE(3)-LOAD-WORLD), cr2=PAGE(3)
1:	DONE

/* Rights of the upper levels are taken together with the page's. */
	CASE	upper_levels
	MAP	1, FRAME(1)+P+W+U
	movq	$SYS_PT_WINDOW+P+U, SYS_WINDOW_PDE
	PAGE_FAULT 3, PAGE(1), mov %al, PAGE(1)
	TO_USER
	PAGE_FAULT 7, PAGE(1), mov %al, PAGE(1)
	mov	PAGE(1), %al
	TO_KERNEL
	movq	$SYS_PT_WINDOW+P+W, SYS_WINDOW_PDE
	FLUSH
	mov	%al, PAGE(1)
	TO_USER
	PAGE_FAULT 5, PAGE(1), mov PAGE(1), %al
	TO_KERNEL
	mov	$0x8000000000000000+SYS_PT_WINDOW+P+W+U, %rax
	mov	%rax, SYS_WINDOW_PDE
	FLUSH
	mov	$PAGE(1), %eax
	movb	$0xc3, (%rax)
	RESUME	1f
	call	*%rax
	EXPECT	14, error=0x11, cr2=PAGE(1)
1:	mov	$SYS_STACK, %esp
	movq	$0, SYS_WINDOW_PDE
	FLUSH
	PAGE_FAULT 0, PAGE(1), mov PAGE(1), %al
	DONE

/* CR0.WP off: the kernel writes to read-only pages, and that sets D. */
	CASE	write_protect
	MAP	1, FRAME(1)+P+U
	PAGE_FAULT 3, PAGE(1), mov %al, PAGE(1)
	SET_CR	cr0, 0, 0x10000
	movb	$0x12, PAGE(1)
	REPORT_PTE 1
	WANT	FRAME(1)+P+U+A+D
	SET_CR	cr0, 0x10000
	PAGE_FAULT 3, PAGE(1), mov %al, PAGE(1)
	SET_CR	cr0, 0, 0x10000
	TO_USER
	PAGE_FAULT 7, PAGE(1), mov %al, PAGE(1)
	DONE

	CASE	smep, NEED_SMEP
	MAP	1, FRAME(1)+P+W+U
	movb	$0xc3, PAGE(1)
	mov	$PAGE(1), %ebx
	call	*%rbx
	SET_CR	cr4, 0x100000
	RESUME	1f
	call	*%rbx
	EXPECT	14, error=0x11, cr2=PAGE(1), rip=(image_start+PAGE(1)-LOAD)
1:	mov	$SYS_STACK, %esp
	mov	PAGE(1), %al
	TO_USER
	call	*%rbx
	TO_KERNEL
	SET_CR	cr4, 0, 0x100000
	call	*%rbx
	DONE

	CASE	smap, NEED_SMAP
	MAP	1, FRAME(1)+P+W+U
	MAP	2, FRAME(2)+P+U
	mov	PAGE(1), %al
	SET_CR	cr4, 0x200000
	PAGE_FAULT 1, PAGE(1), mov PAGE(1), %al
	PAGE_FAULT 3, PAGE(1), mov %al, PAGE(1)
	stac
	mov	PAGE(1), %al
	mov	%al, PAGE(1)
	PAGE_FAULT 3, PAGE(2), mov %al, PAGE(2)
	int	$0x41			/* AC stays as it is in handlers */
	EXPECT	0x41, fset=0x40000, hset=0x40000
	clac
	PAGE_FAULT 1, PAGE(1), mov PAGE(1), %al
	stc				/* flags stay as they are */
	stac
	setc	%al
	clac
	setc	%ah
	movzwl	%ax, %eax
	REPORT	%rax
	WANT	0x101
	mov	$30000, %ecx		/* to and fro, until somebody would be late */
1:	stac
	add	%ecx, PAGE(1)
	clac
	pushfq
	testl	$0x40000, (%rsp)
	lea	8(%rsp), %rsp
	jnz	2f
	dec	%ecx
	jnz	1b
2:	REPORT	%rcx
	WANT	0
	PAGE_FAULT 3, PAGE(1), mov %al, PAGE(1)
	pushfq
	orl	$0x40000, (%rsp)
	popfq
	mov	PAGE(1), %al
	pushfq
	andl	$~0x40000, (%rsp)
	popfq
	mov	$PAGE(1), %edi
	mov	$4, %ecx
	PAGE_FAULT 3, PAGE(1), rep stosb
	SET_CR	cr4, 0, 0x200000
	mov	PAGE(1), %al
	DONE

/* What the CPU itself reads, descriptors, is the kernel's whatever AC says. QEMU listens to AC. */
	CASE	smap_implicit, NEED_SMAP | NOT_QEMU
	MAP	1, SYS_LDT+P+W+U
	movw	$PAGE(1) & 0xffff, SYS_GDT + SEL_LDT + 2	/* its base is a user page */
	movb	$PAGE(1) >> 24, SYS_GDT + SEL_LDT + 7
	movb	$0, SYS_GDT + SEL_LDT + 4
	mov	$SEL_LDT, %eax
	lldt	%ax
	mov	$0xf, %eax
	mov	%eax, %es
	SET_CR	cr4, 0x200000
	stac
	mov	$0xf, %eax
	PAGE_FAULT 1, (PAGE(1)+8), mov %eax, %es
	DONE

/* INVLPG has segments like any operand. */
	CASE	invlpg_gs
	movb	$1, FRAME(1)
	movb	$2, FRAME(2)
	MAP	1, FRAME(1)+P+W
	mov	PAGE(1), %al
	MAP	1, FRAME(2)+P+W
	SET_MSR	0xc0000101, PAGE(1)
	invlpg	%gs:0
	movzbl	PAGE(1), %eax
	REPORT	%rax
	WANT	2
	DONE

	CASE	smap_instructions, NEED_SMAP
	TO_USER
	FAULT	6, 0, stac
	FAULT	6, 0, clac
	DONE

/* A when used, D when written, in the entry that maps; only A above; neither if it faults. */
	CASE	accessed_dirty
	movq	$SYS_PT_WINDOW+P+W+U, SYS_WINDOW_PDE
	MAP	1, FRAME(1)+P+W+U
	MAP	2, FRAME(2)+P+W+U
	MAP	3, FRAME(3)+P+U
	MAP	4, FRAME(4)+P+W+U
	MAP	5, FRAME(5)+P+W+U
	mov	SYS_WINDOW_PDE, %rax
	REPORT	%rax
	WANT	SYS_PT_WINDOW+P+W+U
	mov	PAGE(1), %al
	REPORT_PTE 1
	WANT	FRAME(1)+P+W+U+A
	mov	SYS_WINDOW_PDE, %rax
	REPORT	%rax
	WANT	SYS_PT_WINDOW+P+W+U+A
	mov	%al, PAGE(1)
	REPORT_PTE 1
	WANT	FRAME(1)+P+W+U+A+D
	mov	%al, PAGE(2)
	REPORT_PTE 2
	WANT	FRAME(2)+P+W+U+A+D
	mov	SYS_WINDOW_PDE, %rax
	REPORT	%rax
	WANT	SYS_PT_WINDOW+P+W+U+A
	PAGE_FAULT 3, PAGE(3), mov %al, PAGE(3)
	mov	SYS_PT_WINDOW + 24, %rax
	and	$~A, %eax		/* A may be set for a refused write */
	REPORT	%rax
	WANT	FRAME(3)+P+U
	REPORT_PTE 4
	WANT	FRAME(4)+P+W+U
	mov	$1, %eax
	mov	$2, %ecx
	lock cmpxchg %ecx, PAGE(4)	/* fails, and writes all the same */
	REPORT_PTE 4
	WANT	FRAME(4)+P+W+U+A+D
	xor	%ecx, %ecx
	mov	$PAGE(5), %edi
	rep stosb			/* none */
	REPORT_PTE 5
	WANT	FRAME(5)+P+W+U
	mov	$PAGE(5), %esi
	mov	$SYS_DATA, %edi
	movsb
	REPORT_PTE 5
	WANT	FRAME(5)+P+W+U+A
	andq	$~(A+D), SYS_PT_WINDOW + 8	/* cleared, flushed: set again */
	invlpg	PAGE(1)
	mov	PAGE(1), %al
	REPORT_PTE 1
	WANT	FRAME(1)+P+W+U+A
	movb	$0xc3, PAGE(2)
	MAP	6, FRAME(2)+P+U
	mov	$PAGE(6), %eax
	call	*%rax
	REPORT_PTE 6
	WANT	FRAME(2)+P+U+A
	DONE

/* A write that crosses into a page where it may not: nothing is written, first page not dirty. */
	CASE	crossing
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(8)+P+W		/* the neighbour in memory is another one */
	MAP	3, FRAME(3)+P
	mov	$PAGE(1)+0xffc, %ebx
	mov	$0x1122334455667788, %rax
	mov	%rax, (%rbx)
	mov	(%rbx), %rcx
	REPORT	%rcx
	WANT	0x1122334455667788
	mov	FRAME(1)+0xffc, %ecx
	REPORT	%rcx
	WANT	0x55667788
	mov	FRAME(8), %ecx
	REPORT	%rcx
	WANT	0x11223344
	lock incq 0(%rbx)
	lock xadd %rax, (%rbx)
	mov	(%rbx), %rcx
	REPORT	%rcx
	WANT	0x22446688AACCEF11
	movups	(%rbx), %xmm0
	movups	%xmm0, -2(%rbx)
	movq	%xmm0, %rcx
	REPORT	%rcx
	WANT	0x22446688AACCEF11
	mov	-2(%rbx), %rcx
	REPORT	%rcx
	WANT	0x22446688AACCEF11
	mov	%rsp, %rbp
	lea	4(%rbx), %rsp
	lea	4(%rsp), %rsp
	push	%rcx
	incq	(%rsp)
	pop	%rcx
	mov	%rbp, %rsp
	REPORT	%rcx
	WANT	0x22446688AACCEF12
	mov	$PAGE(2)+0xffd, %ebx
	movl	$0, -1(%rbx)
	mov	$-1, %rax
	PAGE_FAULT 3, PAGE(3), mov %rax, (%rbx)
	mov	-1(%rbx), %ecx
	REPORT	%rcx
	WANT	0
	pcmpeqd	%xmm0, %xmm0
	PAGE_FAULT 3, PAGE(3), movups %xmm0, (%rbx)
	mov	-1(%rbx), %ecx
	REPORT	%rcx
	WANT	0
	mov	$PAGE(3)+0xffe, %ebx
	PAGE_FAULT 0, PAGE(4), mov (%rbx), %eax
	PAGE_FAULT 0, PAGE(4), movups (%rbx), %xmm1
	DONE

/* x87 and SSE of odd sizes over the edge. */
	CASE	crossing_fpu
	MAP	1, FRAME(1)+P+W
	MAP	2, FRAME(8)+P+W
	fninit
	fldpi
	fstpt	PAGE(1)+0xffa
	fldt	PAGE(1)+0xffa
	fstpl	SYS_DATA
	mov	SYS_DATA, %rax
	REPORT	%rax
	WANT	0x400921fb54442d18
	fld1
	fstl	PAGE(1)+0xffd
	faddl	PAGE(1)+0xffd
	fistpl	PAGE(1)+0xffe
	mov	PAGE(1)+0xffe, %eax
	REPORT	%rax
	WANT	2
	fxsave	PAGE(1)+0xf00
	fxrstor	PAGE(1)+0xf00
	mov	$7, %eax
	cvtsi2sd %eax, %xmm1
	movsd	%xmm1, PAGE(1)+0xffc
	addsd	PAGE(1)+0xffc, %xmm1
	cvttsd2si %xmm1, %eax
	REPORT	%rax
	WANT	14
	fldz
	PAGE_FAULT 2, PAGE(3), fstpt PAGE(2)+0xffc
	FPU_TOP	0x3800			/* it has not moved */
	DONE

/* Fetches over the edge: the fault is at the second page, the rip the instruction's. */
	CASE	crossing_fetch
	MAP	1, FRAME(1)+P+W
	movq	$0x000000b8, FRAME(1)+0xffe	/* mov $imm32, %eax; ret */
	movb	$0xc3, FRAME(2)+3
	mov	$PAGE(1)+0xffe, %ebx
	RESUME	1f
	call	*%rbx
	EXPECT	14, error=0x10, cr2=PAGE(2), rip=(image_start+PAGE(1)+0xffe - LOAD)
1:	mov	$SYS_STACK, %esp
	MAP	2, FRAME(8)+P+W
	movl	$0xc3123456, FRAME(8)
	movb	$0x78, FRAME(1)+0xfff
	call	*%rbx
	REPORT	%rax
	WANT	0x12345678
	DONE

/* Reserved bits. */
	CASE	reserved
	mov	$0x8000000000000+FRAME(1)+P+W+U, %rax
	mov	%rax, SYS_PT_WINDOW + 8
	PAGE_FAULT 9, PAGE(1), mov PAGE(1), %al
	PAGE_FAULT 11, PAGE(1), mov %al, PAGE(1)
	movq	$0x202000+PS+P+W+U, SYS_WINDOW_PDE + 8	/* bit 13 of a 2 MiB page */
	PAGE_FAULT 9, (SYS_WINDOW+0x200000), mov SYS_WINDOW+0x200000, %al
	mov	$0x8000000000000+SYS_PT_WINDOW+P+W+U, %rax
	mov	%rax, SYS_WINDOW_PDE
	FLUSH
	PAGE_FAULT 9, PAGE(1), mov PAGE(1), %al
	orq	$PS, SYS_PML4 + 8		/* absent: no matter */
	mov	$0x8000000000, %rax
	PAGE_FAULT 0, 0x8000000000, movb (%rax), %al
	mov	$0x8000000000, %rax
	movq	$SYS_FREE_TABLES+P+W+PS, SYS_PML4 + 8
	PAGE_FAULT 9, 0x8000000000, movb (%rax), %al
	TO_USER
	PAGE_FAULT 13, PAGE(1), mov PAGE(1), %al
	DONE

/* Without EFER.NXE, bit 63 is reserved, and error codes have no I. */
	CASE	no_nx
	mov	$0x8000000000000000+FRAME(1)+P+W, %rax
	mov	%rax, SYS_PT_WINDOW + 8
	mov	PAGE(1), %al
	SET_MSR	0xc0000080, 0x501
	FLUSH
	PAGE_FAULT 9, PAGE(1), mov PAGE(1), %al
	MAP	2, FRAME(1)+P+W
	movb	$0xc3, PAGE(2)
	mov	$PAGE(2), %eax
	call	*%rax
	mov	$PAGE(0), %ebx
	RESUME	1f
	jmp	*%rbx
	EXPECT	14, error=0, cr2=PAGE(0)
1:	SET_MSR	0xc0000080, 0xd01
	FLUSH
	mov	PAGE(1), %al
	DONE

/* 2 MiB pages: A and D in the PDE, INVLPG of any address in it. */
	CASE	pages_2m
	movq	$0x200000+PS+P+W+U, SYS_WINDOW_PDE + 8
	mov	$SYS_WINDOW+0x200000, %ebx
	movl	$0x1234, 0x123456(%rbx)
	mov	SYS_WINDOW_PDE + 8, %rax
	REPORT	%rax
	WANT	0x200000+PS+P+W+U+A+D
	mov	0x323456, %eax
	REPORT	%rax
	WANT	0x1234
	movl	$0x5678, 0x1fffff-3(%rbx)
	movq	$PS+P+W+U, SYS_WINDOW_PDE + 8	/* now the first 2 MiB */
	invlpg	0x1000(%rbx)
	mov	0x123456(%rbx), %eax
	mov	0x123456, %ecx
	sub	%ecx, %eax
	REPORT	%rax
	WANT	0
	mov	SYS_WINDOW_PDE + 8, %rax
	REPORT	%rax
	WANT	PS+P+W+U+A
	movq	$0, SYS_WINDOW_PDE + 8
	invlpg	0x1ff000(%rbx)
	PAGE_FAULT 0, (SYS_WINDOW+0x200000), mov (%rbx), %al
	PAGE_FAULT 0, (SYS_WINDOW+0x323456), mov 0x123456(%rbx), %al
	movq	$SYS_PT_WINDOW+P+W+U, SYS_WINDOW_PDE + 8	/* split */
	MAP	5, FRAME(5)+P+W
	movl	$0x99, 0x5004(%rbx)
	mov	FRAME(5)+4, %eax
	REPORT	%rax
	WANT	0x99
	DONE

	CASE	pages_1g, NEED_1G
	movq	$PS+P+W+U, SYS_PDPT + 5 * 8
	mov	$0x140000000, %rbx
	movl	$0x4321, SYS_DATA(%rbx)
	mov	SYS_DATA, %eax
	REPORT	%rax
	WANT	0x4321
	mov	SYS_PDPT + 5 * 8, %rax
	REPORT	%rax
	WANT	PS+P+W+U+A+D
	TO_USER
	mov	SYS_DATA(%rbx), %eax
	REPORT	%rax
	WANT	0x4321
	TO_KERNEL
	movq	$0, SYS_PDPT + 5 * 8
	lea	0x3fff0000(%rbx), %rcx
	invlpg	(%rcx)
	PAGE_FAULT 0, 0x140000000, movb (%rbx), %al
	movq	$0x2000+PS+P+W+U, SYS_PDPT + 5 * 8
	PAGE_FAULT 9, 0x140000000, movb (%rbx), %al
	DONE

/* What was not present is never kept: no INVLPG is needed after a fault. */
	CASE	becomes_present
	mov	$300, %ecx
1:	MAP	1, 0
	invlpg	PAGE(1)
	RESUME	2f
	mov	PAGE(1), %eax
2:	movl	$0, SYS_LOG_NEXT
	MAP	1, FRAME(1)+P+W
	mov	%ecx, PAGE(1)
	mov	FRAME(1), %eax
	cmp	%ecx, %eax
	jne	3f
	loop	1b
	REPORT	%rcx
	WANT	0
3:	DONE

/* Another frame after INVLPG, after CR3, after CR4.PGE for global pages; frames that look alike are told apart. */
	CASE	remap
	mov	$FRAME(1), %edi
	mov	$8, %ecx
1:	mov	%ecx, (%rdi)		/* 8 in FRAME(1) ... 1 in FRAME(8) */
	add	$0x1000, %edi
	loop	1b
	MAP	1, FRAME(1)+P+W
	SEES	8
	MAP	1, FRAME(2)+P+W
	invlpg	PAGE(1)+0x123
	SEES	7
	MAP	1, FRAME(3)+P+W
	FLUSH
	SEES	6
	MAP	1, FRAME(4)+P+W+G
	invlpg	PAGE(1)
	SEES	5
	MAP	1, FRAME(5)+P+W+G
	invlpg	PAGE(1)
	SEES	4
	MAP	1, FRAME(6)+P+W+G
	SET_CR	cr4, 0, 0x80
	SEES	3
	SET_CR	cr4, 0x80
	MAP	1, FRAME(7)+P+W
	SET_CR	cr0, 0, 0x10000	/* CR0.WP need not flush; CR3 does */
	SET_CR	cr0, 0x10000
	FLUSH
	SEES	2
	DONE

/* Address spaces: the window's GiB by two PML4s, switched by CR3. */
	.macro	SECOND_SPACE
	mov	$SYS_PML4, %esi		/* PML4, PDPT, PD_USER copied; its window is SYS_PT_WINDOW + half */
	mov	$FRAME(16), %edi
	mov	$0x200, %ecx
	rep movsq
	mov	$SYS_PDPT, %esi
	mov	$0x200, %ecx
	rep movsq
	mov	$SYS_PD_USER, %esi
	mov	$0x200, %ecx
	rep movsq
	movq	$FRAME(17)+P+W+U, FRAME(16)
	movq	$FRAME(18)+P+W+U, FRAME(17)+8
	movq	$FRAME(19)+P+W+U, FRAME(18)+8*256
	MAP	1, FRAME(1)+P+W+U
	movq	$FRAME(2)+P+W+U, FRAME(19)+8
	movl	$0x111, FRAME(1)
	movl	$0x222, FRAME(2)
	.endm
	CASE	spaces
	SECOND_SPACE
	mov	$SYS_PML4, %ebx
	mov	$FRAME(16), %ebp
	xor	%edx, %edx
	mov	$100, %ecx
1:	mov	PAGE(1), %eax
	add	%rax, %rdx
	mov	%rbp, %cr3
	mov	PAGE(1), %eax
	shl	$32, %rax
	add	%rax, %rdx
	mov	%rbx, %cr3
	loop	1b
	REPORT	%rdx
	WANT	0xd54800006aa4
	DONE

	CASE	pcid, NEED_PCID
	SECOND_SPACE
	mov	$SYS_PML4 + 5, %eax
	mov	%rax, %cr3
	mov	%cr4, %rbx
	bts	$17, %rbx
	FAULT	13, 0, mov %rbx, %cr4	/* CR3's low bits must be clear */
	mov	$SYS_PML4, %eax
	mov	%rax, %cr3
	bts	$63, %rax
	FAULT	13, 0, mov %rax, %cr3	/* not without PCIDE */
	mov	%rbx, %cr4
	mov	$SYS_PML4 + 1, %ebx
	mov	$FRAME(16) + 2, %ebp
	mov	%rbx, %cr3
	mov	PAGE(1), %eax
	mov	%rbp, %cr3
	mov	PAGE(1), %ecx
	REPORT	%rax
	WANT	0x111
	REPORT	%rcx
	WANT	0x222
	bts	$63, %rbx
	bts	$63, %rbp
	xor	%edx, %edx
	mov	$100, %ecx
1:	mov	%rbx, %cr3		/* neither is flushed */
	mov	PAGE(1), %eax
	add	%rax, %rdx
	mov	%rbp, %cr3
	mov	PAGE(1), %eax
	shl	$32, %rax
	add	%rax, %rdx
	loop	1b
	REPORT	%rdx
	WANT	0xd54800006aa4
	mov	%cr3, %rax		/* bit 63 is not kept */
	REPORT	%rax
	WANT	FRAME(16) + 2
	mov	%rbx, %cr3
	MAP	1, FRAME(2)+P+W+U
	btr	$63, %rbx
	mov	%rbx, %cr3		/* flushes its own PCID */
	SEES	0x222
	MAP	1, FRAME(1)+P+W+U
	invlpg	PAGE(1)
	SEES	0x111
	mov	%cr0, %rax
	btr	$31, %rax
	FAULT	13, 0, mov %rax, %cr0	/* PG off with PCIDE */
	DONE

	CASE	invpcid, NEED_PCID | NEED_INVPCID
	SECOND_SPACE
	mov	$SYS_PML4, %eax
	mov	%rax, %cr3
	movq	$1, SYS_DATA			/* without PCIDE there is PCID 0 alone */
	movq	$PAGE(1), SYS_DATA + 8
	xor	%eax, %eax
	FAULT	13, 0, invpcid SYS_DATA, %rax
	mov	$1, %eax
	FAULT	13, 0, invpcid SYS_DATA, %rax
	mov	$2, %eax			/* these do not look at it */
	invpcid	SYS_DATA, %rax
	mov	$3, %eax
	invpcid	SYS_DATA, %rax
	SET_CR	cr4, 0x20000
	mov	$SYS_PML4 + 1, %ebx
	mov	$FRAME(16) + 2, %ebp
	bts	$63, %rbx
	bts	$63, %rbp
	mov	%rbp, %cr3
	mov	PAGE(1), %eax
	mov	%rbx, %cr3
	mov	PAGE(1), %eax
	movq	$FRAME(1)+P+W+U, FRAME(19)+8	/* the other space's page changes */
	movq	$2, SYS_DATA
	movq	$PAGE(1), SYS_DATA + 8
	xor	%eax, %eax			/* 0: one address of one PCID */
	invpcid	SYS_DATA, %rax
	mov	%rbp, %cr3
	mov	PAGE(1), %ecx
	REPORT	%rcx
	WANT	0x111
	mov	%rbx, %cr3
	movq	$FRAME(2)+P+W+U, FRAME(19)+8
	mov	$1, %eax			/* 1: a PCID */
	invpcid	SYS_DATA, %rax
	mov	%rbp, %cr3
	mov	PAGE(1), %ecx
	REPORT	%rcx
	WANT	0x222
	mov	%rbx, %cr3
	movq	$FRAME(1)+P+W+U, FRAME(19)+8
	mov	$3, %eax			/* 3: all, but for global pages */
	invpcid	SYS_DATA, %rax
	mov	%rbp, %cr3
	mov	PAGE(1), %ecx
	REPORT	%rcx
	WANT	0x111
	movq	$FRAME(2)+P+W+U+G, FRAME(19)+8
	mov	$2, %eax			/* 2: all */
	invpcid	SYS_DATA, %rax
	mov	PAGE(1), %ecx
	REPORT	%rcx
	WANT	0x222
	mov	$4, %eax
	FAULT	13, 0, invpcid SYS_DATA, %rax
	movq	$0x1000, SYS_DATA
	mov	$1, %eax
	FAULT	13, 0, invpcid SYS_DATA, %rax
	movq	$1, SYS_DATA
	mov	$0x800000000000, %rcx
	mov	%rcx, SYS_DATA + 8
	xor	%eax, %eax
	FAULT	13, 0, invpcid SYS_DATA, %rax
	TO_USER
	FAULT	13, 0, invpcid SYS_DATA+USER, %rax
	DONE

/* Page tables that map themselves are memory like any: written through the window they map. */
	CASE	tables_in_window
	MAP	7, SYS_PT_WINDOW+P+W
	mov	$200, %ecx
	xor	%edx, %edx
1:	mov	%ecx, %eax
	and	$3, %eax
	shl	$12, %eax
	lea	FRAME(1)+P+W(%rax), %rsi
	mov	%rsi, PAGE(7) + 8	/* PTE 1, through its own window */
	invlpg	PAGE(1)
	shr	$12, %eax
	mov	%eax, PAGE(1)
	mov	FRAME(1)(,%rax), %edi
	shl	$12, %eax
	mov	FRAME(1)(%rax), %edi
	shr	$12, %eax
	cmp	%eax, %edi
	jne	2f
	inc	%edx
	loop	1b
2:	REPORT	%rdx
	WANT	200
	DONE

/* The stack of an exception in a page that is read-only: #PF while #UD is pushed, on the fault's own stack. */
	CASE	stack_read_only
	MAP	1, FRAME(1)+P
	movb	$1, SYS_IDT + 14 * 16 + 4
	mov	$PAGE(2), %esp
	RESUME	2f
1:	ud2
	EXPECT	14, error=3, rip=1b, cr2=(PAGE(1)+0xff8), hrsp=SYS_STACK_IST1, rsp=PAGE(2)
2:	mov	$SYS_STACK, %esp
	movl	$PAGE(2), SYS_TSS + 4
	TO_USER
	RESUME	2f
1:	ud2				/* the kernel's access: U is clear */
	EXPECT	14, error=3, rip=1b, cr2=(PAGE(1)+0xff8), cs=SEL_USER_CODE
2:	DONE

/* Devices: every kind of access to memory that is none. */
	CASE	mmio
	mov	$SYS_MMIO, %ebx
	movl	$0x11223344, (%rbx)
	incl	(%rbx)
	lock addl $2, (%rbx)
	mov	(%rbx), %eax
	REPORT	%rax
	WANT	0x11223347
	mov	$0x55, %al
	xchg	%al, 1(%rbx)
	movzbl	%al, %eax
	REPORT	%rax
	WANT	0x33
	movq	$0x1020304, 8(%rbx)
	push	8(%rbx)
	pop	%rax
	REPORT	%rax
	WANT	0x1020304
	push	%rax
	pop	16(%rbx)
	mov	16(%rbx), %rax
	REPORT	%rax
	WANT	0x1020304
	cmpl	$0x1020304, 8(%rbx)
	setz	%al
	btsl	$3, 16(%rbx)
	setc	%ah
	movzwl	%ax, %eax
	REPORT	%rax
	WANT	1
	mov	$SYS_MMIO + 8, %esi
	mov	$SYS_DATA, %edi
	movsq
	mov	$SYS_DATA, %esi
	mov	$SYS_MMIO + 32, %edi
	movsl
	movsl
	mov	32(%rbx), %rax
	REPORT	%rax
	WANT	0x1020304
	mov	$0x77, %al
	mov	$SYS_MMIO + 64, %edi
	mov	$5, %ecx
	rep stosb
	mov	64(%rbx), %rax
	REPORT	%rax
	WANT	0x7777777777
	movzwl	65(%rbx), %eax
	movsbq	64(%rbx), %rcx
	add	%rcx, %rax
	REPORT	%rax
	WANT	0x77ee
	DONE

	END_IMAGE paging
