/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU takes along, item by item: a case puts something into it, leaves three times (LEAVE: shaken, it is moved
 * each time), and looks. What is left in GDT, IDT and memory by then must not matter. The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

	IMAGE	state
gate_target:
	DONE

	.macro	LEAVE
	push	%rax
	push	%rdx
	mov	$0x20, %edx
	in	(%dx), %al
	in	(%dx), %al
	in	(%dx), %al
	pop	%rdx
	pop	%rax
	.endm

	.macro	REPORT_MSR index
	mov	$\index, %ecx
	rdmsr
	shl	$32, %rdx
	or	%rdx, %rax
	REPORT	%rax
	.endm
	.macro	MSR_KEPT index, low, high=0
	SET_MSR	\index, \low, \high
	LEAVE
	REPORT_MSR \index
	WANT	(\high << 32) | \low
	.endm

	CASE	gprs
	mov	$0x1122334455667788, %rax
	.irp	reg, rbx, rcx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
	add	%rax, %rax
	mov	%rax, %\reg
	.endr
	mov	$0x20, %edx
	pushq	$0x240ed7	/* ID, AC; NT not, or IRET would see it; all arithmetic flags, DF, no IF */
	andq	$~0x200, (%rsp)
	popfq
	in	(%dx), %al
	in	(%dx), %al
	in	(%dx), %al
	pushfq
	cld
	.irp	reg, rbx, rcx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
	push	%\reg
	.endr
	mov	$0x1122334455667788, %rax
	xor	%ecx, %ecx
	.irp	at, 96, 88, 80, 72, 64, 56, 48, 40, 32, 24, 16, 8, 0
	add	%rax, %rax
	mov	\at(%rsp), %rdx
	xor	%rax, %rdx
	or	%rdx, %rcx
	.endr
	REPORT	%rcx
	WANT	0
	mov	104(%rsp), %rcx
	REPORT	%rcx
	WANT	0x240cd7
	mov	$SYS_STACK, %esp
	DONE

	CASE	msrs
	MSR_KEPT 0xc0000081, 0x1234, 0x00230010		/* STAR */
	MSR_KEPT 0xc0000082, 0x12345678, 0xffffffff	/* LSTAR */
	MSR_KEPT 0xc0000083, 0x23456789, 0xffffffff	/* CSTAR */
	MSR_KEPT 0xc0000084, 0x47700			/* SFMASK */
	MSR_KEPT 0xc0000100, 0x5678, 0x1234		/* FS base */
	MSR_KEPT 0xc0000101, 0x6789, 0x2345		/* GS base */
	MSR_KEPT 0xc0000102, 0x789a, 0x3456		/* KERNEL_GS_BASE */
	MSR_KEPT 0x174, 0x48
	MSR_KEPT 0x175, 0x76543210
	MSR_KEPT 0x176, 0x65432100
	MSR_KEPT 0x277, 0x00070106, 0x04070506		/* PAT */
	DONE

	CASE	tsc_aux, NEED_RDTSCP
	SET_MSR	0xc0000103, 0x4321
	LEAVE
	rdtscp
	REPORT	%rcx
	WANT	0x4321
	DONE

	CASE	mtrrs
	MSR_KEPT 0x2ff, 0xc06
	MSR_KEPT 0x250, 0x06060606, 0x04040404
	MSR_KEPT 0x258, 0x00060606, 0x06060606
	MSR_KEPT 0x26f, 0x05050505, 0x06060606
	MSR_KEPT 0x200, 0x40000006
	MSR_KEPT 0x201, 0xc0000800, 0xf
	MSR_KEPT 0x20f, 0xff000800, 0xf
	DONE

/* What the guest has added to its TSC stays added, and the TSC goes on. */
	CASE	tsc
	.macro	TSC to
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	mov	%rax, \to
	.endm
	TSC	%rbx
	SET_MSR	0x3b, 0, 0x100
	mov	$20, %ebp
	xor	%r8d, %r8d
1:	LEAVE
	TSC	%rsi
	mov	%rsi, %rax
	sub	%rbx, %rax
	shr	$40, %rax		/* it has been 0x100 << 32, and little more */
	cmp	$1, %eax
	je	2f
	inc	%r8d
2:	mov	$0x3b, %ecx
	rdmsr
	cmp	$0x100, %edx
	je	2f
	inc	%r8d
2:	dec	%ebp
	jnz	1b
	REPORT	%r8
	WANT	0
	DONE

	CASE	tsc_goes_on
	mov	$100, %ebp
	xor	%r8d, %r8d
	TSC	%rbx
1:	mov	$0x20, %edx
	in	(%dx), %al
	TSC	%rsi
	cmp	%rbx, %rsi
	ja	2f
	inc	%r8d
2:	mov	%rsi, %rbx
	dec	%ebp
	jnz	1b
	REPORT	%r8
	WANT	0
	DONE

	CASE	control
	mov	$0x123456789abc, %rax
	mov	%rax, %cr2
	mov	$9, %eax
	mov	%rax, %cr8
	LEAVE
	mov	%cr2, %rax
	REPORT	%rax
	WANT	0x123456789abc
	mov	%cr8, %rax
	REPORT	%rax
	WANT	9
	mov	%cr0, %rax
	xor	$0x10004, %rax		/* WP off, EM on */
	mov	%rax, %cr0
	mov	%rax, %rbx
	mov	%cr4, %rax
	or	$0xc, %rax		/* TSD, DE */
	mov	%rax, %cr4
	mov	%rax, %rsi
	LEAVE
	mov	%cr0, %rax
	sub	%rbx, %rax
	REPORT	%rax
	WANT	0
	mov	%cr4, %rax
	sub	%rsi, %rax
	REPORT	%rax
	WANT	0
	DONE

	CASE	debug_registers
	mov	$0x1111, %eax
	.irp	reg, db0, db1, db2, db3
	add	%rax, %rax
	mov	%rax, %\reg
	.endr
	mov	$0xffff4ff5, %eax
	mov	%rax, %db6
	mov	$0x700, %eax
	mov	%rax, %db7
	LEAVE
	mov	%db0, %rax
	mov	%db1, %rbx
	add	%rbx, %rax
	mov	%db2, %rbx
	add	%rbx, %rax
	mov	%db3, %rbx
	add	%rbx, %rax
	REPORT	%rax
	WANT	0x1111 * 30
	mov	%db6, %rax
	REPORT	%rax
	WANT	0xffff4ff5
	mov	%db7, %rax
	REPORT	%rax
	WANT	0x700
	DONE

/* A segment is what its descriptor was when it was loaded. */
	CASE	segments
	movl	$0x5e6e7e8e, SYS_DATA
	mov	$SEL_BASED_32, %eax
	mov	%eax, %fs
	mov	$SEL_LDT, %eax
	lldt	%ax
	movq	$0, SYS_GDT + (SEL_BASED_32 & ~7)
	movq	$0, SYS_GDT + SEL_LDT
	movq	$0, SYS_GDT + SEL_TSS
	movq	$0, SYS_GDT + SEL_DATA
	LEAVE
	mov	%fs:-USER, %eax
	REPORT	%rax
	WANT	0x5e6e7e8e
	mov	%fs, %eax
	REPORT	%rax
	WANT	SEL_BASED_32
	sldt	%eax
	REPORT	%rax
	WANT	SEL_LDT
	str	%eax
	REPORT	%rax
	WANT	SEL_TSS
	mov	$0x0c, %eax		/* of the LDT, user data */
	mov	%eax, %es
	mov	%es, %eax
	REPORT	%rax
	WANT	0x0c
	movabs	$0x00cf93000000ffff, %rax
	mov	%rax, SYS_GDT + SEL_DATA
	DONE

	CASE	task
	movq	$0, SYS_GDT + SEL_TSS
	LEAVE
	TO_USER
	RESUME	2f
1:	ud2
	EXPECT	6, rip=1b, hrsp=SYS_STACK_RSP0
2:	DONE

/* Its bitmap of ports. QEMU does not look into one that is busy, as KVM has it. */
	CASE	task_ports, NOT_QEMU
	movq	$0, SYS_GDT + SEL_TSS
	LEAVE
	TO_USER
	mov	$0x20, %edx
	in	(%dx), %al
	in	(%dx), %al
	DONE

	CASE	tables
	sub	$32, %rsp
	movw	$SEL_END + 7, (%rsp)
	movq	$SYS_GDT, 2(%rsp)
	lgdt	(%rsp)
	movw	$0xabf, (%rsp)
	movq	$SYS_IDT, 2(%rsp)
	lidt	(%rsp)
	LEAVE
	movq	$0, (%rsp)
	sgdt	(%rsp)
	mov	(%rsp), %rax
	REPORT	%rax
	WANT	(SYS_GDT << 16) | (SEL_END + 7)
	movq	$0, (%rsp)
	sidt	(%rsp)
	mov	(%rsp), %rax
	REPORT	%rax
	WANT	(SYS_IDT << 16) | 0xabf
	DONE

/* x87 with its control, status and tags, and SSE, by an image before and after. */
	CASE	vectors
	fninit
	movw	$0x27f, SYS_DATA
	fldcw	SYS_DATA
	fld1
	fldpi
	fldl2e
	fldlg2
	ffree	%st(2)
	fcompp				/* condition bits */
	movl	$0x5f80, SYS_DATA	/* MXCSR: towards minus infinity */
	ldmxcsr	SYS_DATA
	mov	$0x0102030405060708, %rax
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	imul	$31, %rax
	movq	%rax, %xmm\n
	pshufd	$0x1b, %xmm\n, %xmm\n
	.endr
	fxsave64 SYS_DATA + 0x200
	LEAVE
	fxsave64 SYS_DATA + 0x400
	movq	$0, SYS_DATA + 0x208	/* x87's pointers have cases of their own */
	movq	$0, SYS_DATA + 0x210
	movq	$0, SYS_DATA + 0x408
	movq	$0, SYS_DATA + 0x410
	movw	$0, SYS_DATA + 0x206
	movw	$0, SYS_DATA + 0x406
	mov	$SYS_DATA + 0x200, %esi
	mov	$SYS_DATA + 0x400, %edi
	mov	$416, %ecx
	repe cmpsb
	REPORT	%rcx
	WANT	0
	DONE

/* The upper halves, which FXSAVE does not know. */
	CASE	avx, NEED_AVX
	mov	$0x0102030405060708, %rax
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	imul	$31, %rax
	vmovq	%rax, %xmm\n
	vinsertf128 $1, %xmm\n, %ymm\n, %ymm\n
	vextractf128 $1, %ymm\n, SYS_DATA + 0x200 + 16 * \n
	.endr
	LEAVE
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vextractf128 $1, %ymm\n, SYS_DATA + 0x400 + 16 * \n
	.endr
	mov	$SYS_DATA + 0x200, %esi
	mov	$SYS_DATA + 0x400, %edi
	mov	$256, %ecx
	repe cmpsb
	REPORT	%rcx
	WANT	0
	DONE

	CASE	xcr0, NEED_XSAVE | NOT_QEMU
	xor	%ecx, %ecx
	mov	$3, %eax
	xor	%edx, %edx
	xsetbv
	LEAVE
	xor	%ecx, %ecx
	xgetbv
	REPORT	%rax
	WANT	3
	DONE

/*
 * CS of the last x87 instruction, in compatibility mode too. Hosts' kernels lose it under KVM. An exception waits, since
 * CPUs of AMD's forget all of it, at every switch of the host's, if none does.
 */
	CASE	x87_cs, NOT_KVM
	fninit
	movw	$0x37e, SYS_DATA
	fldcw	SYS_DATA
	fldz
	TO_COMPAT
	mov	$0x20, %edx
2:	fdivs	SYS_DATA + USER + 16	/* 0 / 0 */
	in	(%dx), %al
	in	(%dx), %al
	in	(%dx), %al
	fnstenv	SYS_DATA + USER
	movzwl	SYS_DATA + USER + 16, %eax
	REPORT32
	WANT	SEL_USER_32
	mov	SYS_DATA + USER + 12, %eax
	REPORT32
	WANT	ADDR(2b)
	DONE32
	EXPECT_DONE

/* The exit ends the instruction, whose trap is then due. */
	CASE	trap_pending, NOT_BOCHS
	mov	$0x20, %edx
	pushfq
	orl	$0x100, (%rsp)
	popfq
	in	(%dx), %al
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0, fset=0x100
	in	(%dx), %al
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0, fset=0x100
	pushfq
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0, fset=0x100
	andl	$~0x100, (%rsp)
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0, fset=0x100
	popfq
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0
	DONE

/* While NMIs are masked one waits, and comes behind IRET. */
	CASE	nmi_waits
	mov	$2, %al
	HOOK	9f
	out	%al, $0x11
	nop
	EXPECT	2
	WANT	0x77
	EXPECT	2
	DONE
9:	mov	$2, %al
	out	%al, $0x11
	LEAVE
	mov	$0x77, %eax
	REPORT	%rax
	ret

/* FXSAVE's pointers, kept by what is no KVM on a CPU of AMD's. */
	CASE	x87_pointers, NOT_KVM_AMD
	fninit
	movw	$0x37e, SYS_DATA	/* invalid operations fault: so that one waits, which AMD's need */
	fldcw	SYS_DATA
	fldz
1:	fdivs	SYS_DATA + 16		/* 0 / 0 */
	LEAVE
	fxsave64 SYS_DATA + 0x200
	mov	SYS_DATA + 0x208, %rax
	REPORT	%rax
	WANT	ADDR(1b)
	mov	SYS_DATA + 0x210, %rax
	REPORT	%rax
	WANT	SYS_DATA + 16
	fninit
	DONE

	END_IMAGE state
