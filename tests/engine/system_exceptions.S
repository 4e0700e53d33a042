/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every exception of 64-bit mode, from ring 0 and ring 3: vector, error code, pushed frame, and what
 * the state is behind it (SDM vol. 3, 6.15; APM vol. 2, 8.2). The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

	IMAGE	exceptions
gate_target:
	DONE

/* #DE, by 0 and by overflow, all sizes; registers are not changed. */
	CASE	de
	RESUME	2f
	mov	$7, %eax
	xor	%edx, %edx
	xor	%ecx, %ecx
1:	div	%ecx
	EXPECT	0, rip=1b, cs=SEL_CODE, ss=SEL_DATA, rsp=SYS_STACK, fset=0x10000, hclr=0x10300, hrsp=SYS_STACK
	DONE
2:	REPORT	%rax
	WANT	7
	RESUME	2f
	mov	$1, %edx
	mov	$1, %ecx
1:	div	%ecx
	EXPECT	0, rip=1b
2:	RESUME	2f
	mov	$0x8000000000000000, %rax
	cqo
	mov	$-1, %rcx
1:	idiv	%rcx
	EXPECT	0, rip=1b
2:	RESUME	2f
	mov	$0x8000, %eax
	mov	$1, %cl
1:	idiv	%cl
	EXPECT	0, rip=1b
2:	REPORT	%rax
	WANT	0x8000
	RESUME	2f
	movq	$0, SYS_DATA
1:	divw	SYS_DATA
	EXPECT	0, rip=1b
2:	DONE

	CASE	de_user
	TO_USER
	RESUME	2f
	xor	%ecx, %ecx
1:	div	%ecx
	EXPECT	0, rip=1b, cs=SEL_USER_CODE, ss=SEL_USER_DATA, rsp=SYS_STACK_USER+USER, hrsp=SYS_STACK_RSP0, fclr=0x200
2:	DONE

	CASE	bp_of
	int3
1:	EXPECT	3, error=0, rip=1b, fclr=0x10000
	int	$3
1:	EXPECT	3, rip=1b
	TO_USER
	int3
1:	EXPECT	3, rip=1b, cs=SEL_USER_CODE
	int	$4
1:	EXPECT	4, rip=1b
	DONE

/* ICEBP: a trap. QEMU takes it for an exit to its debugger. */
	CASE	int1, NOT_QEMU
	.byte	0xf1
1:	EXPECT	1, rip=1b
	DONE

	CASE	ud
	RESUME	2f
1:	ud2
	EXPECT	6, error=0, rip=1b, fset=0x10000
2:	RESUME	2f
1:	.byte	0x0f, 0xff, 0xc0	/* ud0 */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x06			/* push %es */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x27			/* daa */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xd6			/* salc */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x8e, 0xc8		/* mov %eax, %cs */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xf0, 0x01, 0xc0	/* lock add %eax, %eax */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xea, 0, 0, 0, 0, 0, 0	/* ljmp */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x9a, 0, 0, 0, 0, 0, 0	/* lcall */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xce			/* into */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xd4, 0x0a		/* aam */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x0f, 0x20, 0xc8	/* mov %cr1, %rax */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x82, 0xc0, 0x01	/* the old alias of add $1, %al */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xc5, 0xf8, 0x0b	/* no such VEX instruction */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x66, 0xc5, 0xf8, 0x28, 0xc0	/* 66 in front of VEX */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0x48, 0xc5, 0xf8, 0x28, 0xc0	/* REX in front of VEX */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xfe, 0xf8		/* no such group member */
	EXPECT	6, rip=1b
2:	TO_USER
	RESUME	2f
1:	ud2
	EXPECT	6, rip=1b, cs=SEL_USER_CODE
2:	DONE

/* LOCK where it is not allowed: QEMU lets it pass. */
	CASE	ud_lock, NOT_QEMU
	mov	$SYS_DATA, %eax
	RESUME	2f
1:	.byte	0xf0, 0x8b, 0x00	/* lock mov (%rax), %eax */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xf0, 0x90		/* lock nop */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xf0, 0x39, 0x00	/* lock cmp %eax, (%rax) */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xf0, 0x0f, 0xa3, 0x00	/* lock bt %eax, (%rax) */
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	.byte	0xf0, 0x03, 0x00	/* lock add (%rax), %eax */
	EXPECT	6, rip=1b
2:	TO_USER
	RESUME	2f			/* before privilege */
1:	.byte	0xf0, 0x0f, 0x01, 0x10	/* lock lgdt (%rax) */
	EXPECT	6, rip=1b
2:	DONE

/* Longer than 15 bytes: #GP(0), wherever the opcode is. */
	CASE	too_long
	RESUME	2f
1:	.fill	15, 1, 0x66
	nop
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f
1:	.fill	9, 1, 0x66
	.byte	0x48, 0xc7, 0x05, 0, 0, 0, 0, 0, 0, 0, 0
	EXPECT	13, error=0, rip=1b
2:	.fill	14, 1, 0x66	/* 15 are well */
	nop
	DONE

/* x87, MMX and SSE with CR0.TS and CR0.EM; which comes first. */
	CASE	nm
	mov	%cr0, %rbx
	mov	%rbx, %rax
	or	$8, %eax
	mov	%rax, %cr0
	RESUME	2f
1:	fninit
	EXPECT	7, error=0, rip=1b
2:	RESUME	2f
1:	movaps	%xmm1, %xmm0
	EXPECT	7, rip=1b
2:	RESUME	2f
1:	paddb	%mm1, %mm0
	EXPECT	7, rip=1b
2:	RESUME	2f
1:	fwait			/* MP is set */
	EXPECT	7, rip=1b
2:	RESUME	2f
1:	fxsave	SYS_DATA
	EXPECT	7, rip=1b
2:	RESUME	2f
1:	ldmxcsr	SYS_DATA
	EXPECT	7, rip=1b
2:	mfence			/* no SSE state: not meant */
	prefetcht0 SYS_DATA
	movnti	%eax, SYS_DATA
	mov	%rbx, %rax	/* TS without MP: fwait goes through */
	and	$~2, %eax
	or	$8, %eax
	mov	%rax, %cr0
	fwait
	clts
	fninit
	mov	%cr0, %rax
	and	$0xe, %eax
	REPORT	%rax
	WANT	0
	DONE

/* For SSE and MMX EM's #UD comes before TS's #NM; QEMU has it the other way round. */
	CASE	em_before_ts, NOT_QEMU
	mov	%cr0, %rax
	or	$0xc, %eax
	mov	%rax, %cr0
	RESUME	2f
1:	movaps	%xmm1, %xmm0
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	fninit
	EXPECT	7, rip=1b
2:	RESUME	2f
1:	paddb	%mm1, %mm0
	EXPECT	6, rip=1b
2:	DONE

	CASE	nm_user
	mov	%cr0, %rax
	or	$8, %eax
	mov	%rax, %cr0
	TO_USER
	RESUME	2f
1:	addsd	%xmm1, %xmm0
	EXPECT	7, rip=1b, cs=SEL_USER_CODE
2:	RESUME	2f
1:	fld1
	EXPECT	7, rip=1b
2:	DONE

	CASE	nm_avx, NEED_AVX
	mov	%cr0, %rax
	or	$8, %eax
	mov	%rax, %cr0
	RESUME	2f
1:	vaddps	%ymm1, %ymm0, %ymm0
	EXPECT	7, rip=1b
2:	DONE

	CASE	nm_xsave, NEED_XSAVE | NOT_QEMU
	mov	%cr0, %rax
	or	$8, %eax
	mov	%rax, %cr0
	mov	$SYS_DATA, %ebx
	FAULT	7, 0, xsave (%rbx)
	FAULT	7, 0, xrstor (%rbx)
	DONE

/* Without CR4.OSFXSR there is no SSE; without OSXSAVE no AVX, and no xgetbv. */
	CASE	ud_by_cr4
	mov	%cr4, %rax
	and	$~0x40200, %eax
	mov	%rax, %cr4
	RESUME	2f
1:	movaps	%xmm1, %xmm0
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	ldmxcsr	SYS_DATA
	EXPECT	6, rip=1b
2:	RESUME	2f
	xor	%ecx, %ecx
1:	xgetbv
	EXPECT	6, rip=1b
2:	RESUME	2f
1:	vaddps	%xmm1, %xmm0, %xmm0
	EXPECT	6, rip=1b
2:	paddb	%mm1, %mm0
	emms
	DONE

/* #GP(0) of memory: addresses that are not canonical; by the stack they are #SS(0). */
	CASE	not_canonical
	movb	$1, SYS_IDT + 12 * 16 + 4
	movb	$1, SYS_IDT + 14 * 16 + 4
	mov	$0x800000000000, %rbx
	mov	%rsp, %rbp
	RESUME	2f
1:	mov	(%rbx), %al
	EXPECT	13, error=0, rip=1b, fset=0x10000
2:	RESUME	2f
1:	movb	$0, -1(%rbx)	/* canonical, nothing there */
	EXPECT	14, error=2, rip=1b, cr2=0x7fffffffffff
2:	RESUME	2f
	mov	%rbx, %rsp
1:	push	%rax
	EXPECT	14, error=2, rip=1b, cr2=0x7ffffffffff8
2:	mov	%rbp, %rsp
	RESUME	2f
1:	fxsave	(%rbx)
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f
	mov	%rbx, %rsi
	mov	$SYS_DATA, %edi
	mov	$8, %ecx
1:	rep movsb
	EXPECT	13, error=0, rip=1b
2:	REPORT	%rcx
	WANT	8
	DONE

/* Through rsp and rbp it is #SS(0), a DS prefix or none; QEMU has #GP. */
	CASE	stack_not_canonical, NOT_QEMU
	movb	$1, SYS_IDT + 12 * 16 + 4
	mov	$0x800000000000, %rbx
	lea	8(%rbx), %rsp
	FAULT	12, 0, push %rax
	mov	%rbx, %rsp
	FAULT	12, 0, pop %rax
	mov	$SYS_STACK, %esp
	mov	%rbx, %rbp
	FAULT	12, 0, movb (%rbp), %al
	FAULT	12, 0, movb 1(%rbp), %al
	FAULT	13, 0, movb %fs:(%rbp), %al
	FAULT	13, 0, movb (, %rbp), %al
	DONE

/* For long enough that the host interrupts it, in loops, on ways out and between blocks. */
	CASE	stack_not_canonical_long
	mov	$0x800000000008, %rsp
	mov	$20000, %r12d
1:	xor	%eax, %eax
	cpuid
	mov	$SYS_DATA, %edi
	mov	$64, %ecx
	rep stosb
	mov	$500, %ecx
2:	dec	%ecx
	jnz	2b
	lea	3f(%rip), %rax
	jmp	*%rax
3:	dec	%r12d
	jnz	1b
	mov	$SYS_STACK, %esp
	REPORT	%r12
	WANT	0
	DONE

/* A program's stack at the address that soft takes for no page at all (STACK_NOWHERE). */
	CASE	user_stack_nowhere, NOT_QEMU
	TO_USER
	mov	$1, %ebx
	shl	$63, %rbx
	lea	0x20(%rbx), %rsp
	FAULT	12, 0, push %rax
	lea	0x20(%rbx), %rsp
	FAULT	12, 0, pop %rax
	lea	0x20(%rbx), %rsp
	FAULT	12, 0, mov 8(%rsp), %rcx
	lea	0x20(%rbx), %rsp
	FAULT	12, 0, addl $1, (%rsp)
	lea	0x20(%rbx), %rsp
	FAULT	12, 0, ret
	lea	0xff8(%rbx), %rsp
	RESUME	2f
	mov	-8(%rsp), %ecx
1:	pop	%rcx
	EXPECT	12, error=0
2:	mov	$SYS_STACK_USER + USER, %esp
	DONE

/* A jump to where nothing can be is the jump's own fault; QEMU goes there first. */
	CASE	jump_not_canonical, NOT_QEMU
	mov	$0x800000000000, %rbx
	FAULT	13, 0, jmp *%rbx
	RESUME	2f
1:	call	*%rbx
	EXPECT	13, error=0, rip=1b, rsp=SYS_STACK
2:	push	%rbx
	RESUME	2f
1:	ret
	EXPECT	13, error=0, rip=1b, rsp=(SYS_STACK-8)
2:	push	%rbx
	RESUME	2f
	pop	%rcx
	push	%rcx
	pop	%rcx
1:	ret
	EXPECT	13, error=0, rip=1b, rsp=(SYS_STACK-8)
2:	DONE

/* A fault in a row of pushes and pops: rsp is that of the instruction that faults. */
	CASE	stack_rows
	xor	%ecx, %ecx
	RESUME	2f
	push	%rax
	push	%rbx
1:	div	%ecx
	EXPECT	0, rip=1b, rsp=(SYS_STACK-16)
2:	RESUME	2f
	push	%rax
	push	%rcx
	pop	%rcx
	pop	%rax
	pop	%rax
1:	div	%ecx
	EXPECT	0, rip=1b, rsp=(SYS_STACK-8)
2:	RESUME	2f
	push	%rax
	push	$0x123
	mov	8(%rsp), %rdx
	push	%rsp
	pop	%rbx
	push	(%rsp)
1:	div	%ecx
	EXPECT	0, rip=1b, rsp=(SYS_STACK-32)
2:	REPORT	%rbx
	WANT	SYS_STACK-24
	pop	%rbx
	REPORT	%rbx
	WANT	0x123
	pop	%rsp		/* what it pops is rsp */
	mov	%rsp, %rdx
	mov	$SYS_STACK, %esp
	REPORT	%rdx
	WANT	0x123
	DONE

/* The end of the lower half: who goes on behind it is there when it faults, who jumps there is not. */
	.set	EDGE, 0x7ffffffffff0
	.set	EDGE_CODE, SYS_DATA + 0xff0
	.macro	AT_EDGE address, stack:vararg
	EXPECT	13, error=0, rip=(image_start-LOAD+\address), rsp=(\stack)
	.endm
	CASE	canonical_edge, NOT_QEMU | NOT_BOCHS
	movq	$SYS_FREE_TABLES + 3, SYS_PML4 + 8 * 255
	movq	$SYS_FREE_TABLES + 0x1003, SYS_FREE_TABLES + 8 * 511
	movq	$SYS_FREE_TABLES + 0x2003, SYS_FREE_TABLES + 0x1000 + 8 * 511
	movq	$SYS_DATA + 3, SYS_FREE_TABLES + 0x2000 + 8 * 511
	mov	$EDGE, %rbx
	xor	%ecx, %ecx
	mov	$0x909090909090c1ff, %rax	/* inc %ecx; nop... */
	mov	%rax, EDGE_CODE
	mov	$0x9090909090909090, %rax
	mov	%rax, EDGE_CODE + 8
	RESUME	2f
	call	*%rbx
	AT_EDGE	EDGE+16, SYS_STACK-8
2:	REPORT	%rcx
	WANT	1
	mov	$SYS_STACK, %esp
	movl	$0x000100e9, EDGE_CODE		/* jmp to 0x100 behind the next one */
	movb	$0, EDGE_CODE + 4
	RESUME	2f
	jmp	*%rbx
	AT_EDGE	EDGE, SYS_STACK
2:	movb	$0xe8, EDGE_CODE		/* call */
	RESUME	2f
	jmp	*%rbx
	AT_EDGE	EDGE, SYS_STACK
2:	movl	$0x00e85050, EDGE_CODE		/* push; push; call */
	movl	$0x00000001, EDGE_CODE + 4
	RESUME	2f
	jmp	*%rbx
	AT_EDGE	EDGE+2, SYS_STACK-16
2:	mov	$SYS_STACK, %esp
	movl	$0x90909090, EDGE_CODE + 8
	movl	$0x840fc1ff, EDGE_CODE		/* inc %ecx; jz, which is not taken */
	movl	$0x00000100, EDGE_CODE + 4
	xor	%ecx, %ecx
	RESUME	2f
	jmp	*%rbx
	AT_EDGE	EDGE+16, SYS_STACK
2:	REPORT	%rcx
	WANT	1
	movb	$0x85, EDGE_CODE + 3		/* jnz */
	RESUME	2f
	jmp	*%rbx
	AT_EDGE	EDGE+2, SYS_STACK
2:	REPORT	%rcx
	WANT	2
	DONE

/* Instructions for ring 0 only. */
	.macro	PRIVILEGED code:vararg
	RESUME	2f
1:	\code
	EXPECT	13, error=0, rip=1b, cs=SEL_USER_CODE
2:
	.endm
	CASE	privileged
	TO_USER
	PRIVILEGED hlt
	PRIVILEGED cli
	PRIVILEGED sti
	PRIVILEGED in $0x60, %al
	PRIVILEGED out %al, $0x60
	PRIVILEGED in (%dx), %al
	PRIVILEGED rep insb (%dx), (%rdi)
	PRIVILEGED mov %rax, %cr0
	PRIVILEGED mov %cr0, %rax
	PRIVILEGED mov %cr3, %rax
	PRIVILEGED mov %cr8, %rax
	PRIVILEGED mov %rax, %cr8
	PRIVILEGED mov %db7, %rax
	PRIVILEGED mov %rax, %db0
	PRIVILEGED clts
	PRIVILEGED lmsw %ax
	PRIVILEGED lgdt (%rsp)
	PRIVILEGED lidt (%rsp)
	PRIVILEGED lldt %ax
	PRIVILEGED ltr %ax
	PRIVILEGED invlpg (%rsp)
	PRIVILEGED invd
	PRIVILEGED wbinvd
	PRIVILEGED rdmsr
	PRIVILEGED wrmsr
	PRIVILEGED swapgs
	PRIVILEGED sysretq
	PRIVILEGED sysexit
	DONE

/* int n: DPL of the gate, the error code is the vector's (bit 1: IDT). */
	CASE	int_n
	int	$0x41
1:	EXPECT	0x41, rip=1b, cs=SEL_CODE, hclr=0x200
	TO_USER
	int	$0x80
1:	EXPECT	0x80, rip=1b, cs=SEL_USER_CODE, hrsp=SYS_STACK_RSP0
	RESUME	2f
1:	int	$0x41
	EXPECT	13, error=0x41*8+2, rip=1b
2:	RESUME	2f
1:	int	$13
	EXPECT	13, error=13*8+2, rip=1b
2:	RESUME	2f
1:	int	$1
	EXPECT	13, error=1*8+2, rip=1b
2:	DONE

/* Gates that are absent, of no gate's type, outside the limit, to no code. */
	CASE	bad_gates
	push	%rax	/* KVM starts an INT anew as if it came from behind it, if its delivery is the first to touch a page */
	pop	%rax
	RESUME	2f
	andb	$0x7f, SYS_IDT + 0x42 * 16 + 5
1:	int	$0x42
	EXPECT	11, error=0x42*8+2, rip=1b
2:	RESUME	2f
	movb	$0x85, SYS_IDT + 0x43 * 16 + 5	/* a task gate */
1:	int	$0x43
	EXPECT	13, error=0x43*8+2, rip=1b
2:	RESUME	2f
	movw	$0, SYS_IDT + 0x44 * 16 + 2
1:	int	$0x44
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f
	movw	$SEL_DATA, SYS_IDT + 0x45 * 16 + 2
1:	int	$0x45
	EXPECT	13, error=SEL_DATA, rip=1b
2:	RESUME	2f
	movw	$SEL_CODE_32, SYS_IDT + 0x46 * 16 + 2
1:	int	$0x46
	EXPECT	13, error=SEL_CODE_32, rip=1b
2:	RESUME	2f
	movw	$SEL_END, SYS_IDT + 0x47 * 16 + 2
1:	int	$0x47
	EXPECT	13, error=SEL_END, rip=1b
2:	RESUME	2f
	movw	$SEL_ABSENT_CODE, SYS_IDT + 0x48 * 16 + 2
1:	int	$0x48
	EXPECT	11, error=SEL_ABSENT_CODE, rip=1b
2:	movw	$0x4ff, SYS_DATA
	movq	$SYS_IDT, SYS_DATA + 2
	lidt	SYS_DATA
	RESUME	2f
1:	int	$0x50
	EXPECT	13, error=0x50*8+2, rip=1b
2:	int	$0x4f
	EXPECT	0x4f
	movw	$0xfff, SYS_DATA
	lidt	SYS_DATA
	DONE

/* A target that is not canonical; QEMU goes there and faults. */
	CASE	bad_gate_target, NOT_QEMU
	movl	$0x8000, SYS_IDT + 0x49 * 16 + 8
	FAULT	13, 0, int $0x49
	DONE

/* EXT (bit 0) when the delivery of an exception, not an INT, meets a bad gate. */
	CASE	double_fault
	andb	$0x7f, SYS_IDT + 6 * 16 + 5	/* #NP in the delivery of #UD: no double fault */
	RESUME	2f
1:	ud2
	EXPECT	11, error=6*8+2+1, rip=1b
2:	andb	$0x7f, SYS_IDT + 13 * 16 + 5	/* #NP in the delivery of #GP: contributory twice */
	RESUME	2f
	mov	$0x800000000000, %rbx
1:	mov	(%rbx), %al
	EXPECT	8, error=0, rip=1b
2:	andb	$0x7f, SYS_IDT + 14 * 16 + 5	/* #NP in the delivery of #PF */
	RESUME	2f
1:	mov	SYS_WINDOW, %al
	EXPECT	8, error=0, rip=1b, cr2=SYS_WINDOW
2:	DONE

/* A page fault while a page fault is pushed. */
	CASE	double_fault_pf
	movb	$1, SYS_IDT + 8 * 16 + 4	/* #DF has a stack of its own */
	mov	%rsp, %rbp
	mov	$SYS_WINDOW + 0x1000, %esp
	RESUME	2f
1:	mov	SYS_WINDOW, %al
	EXPECT	8, error=0, rip=1b, hrsp=SYS_STACK_IST1, rsp=SYS_WINDOW+0x1000, cr2=SYS_WINDOW+0xff8
2:	mov	%rbp, %rsp
	DONE

/* #DE, then #PF of its stack: not a double fault; the page fault is taken, on its own stack. */
	CASE	pf_after_de
	movb	$1, SYS_IDT + 14 * 16 + 4
	mov	%rsp, %rbp
	mov	$SYS_WINDOW + 0x1000, %esp
	xor	%ecx, %ecx
	RESUME	2f
1:	div	%ecx
	EXPECT	14, error=2, rip=1b, cr2=SYS_WINDOW+0xff8, hrsp=SYS_STACK_IST1
2:	mov	%rbp, %rsp
	DONE

	CASE	triple_fault
	andb	$0x7f, SYS_IDT + 8 * 16 + 5
	andb	$0x7f, SYS_IDT + 14 * 16 + 5
	mov	SYS_WINDOW, %al
	EXPECT_SHUTDOWN
	DONE

/* The new stack from the TSS is not canonical: #SS, by some error code. */
	CASE	bad_rsp0
	movb	$1, SYS_IDT + 12 * 16 + 4
	movl	$0x8000, SYS_TSS + 8
	TO_USER
	RESUME	2f
1:	int	$0x80
	EXPECT	12, rip=1b, cs=SEL_USER_CODE, hrsp=SYS_STACK_IST1
2:	DONE

	CASE	bad_rsp0_exception
	movb	$1, SYS_IDT + 12 * 16 + 4
	movl	$0x8000, SYS_TSS + 8
	TO_USER
	RESUME	2f
1:	ud2
	EXPECT	12, rip=1b, cs=SEL_USER_CODE
2:	DONE

/* #MF: unmasked x87 exceptions come at the next waiting instruction. */
	CASE	mf
	fninit
	movw	$0x037b, SYS_DATA	/* divide by zero unmasked */
	fldcw	SYS_DATA
	fld1
	fldz
	fdivrp
	fnstsw	%ax
	and	$0x8084, %eax
	REPORT	%rax
	WANT	0x8084
	RESUME	2f
1:	fwait
	EXPECT	16, error=0, rip=1b
2:	fnclex
	fwait
	TO_USER
	fninit
	fldcw	SYS_DATA + USER
	fld1
	fldz
	fdivrp
	RESUME	2f
1:	fwait
	EXPECT	16, rip=1b, cs=SEL_USER_CODE
2:	fninit
	fwait
	DONE

/* Not FWAIT alone waits for it, but for QEMU. */
	CASE	mf_others, NOT_QEMU
	fninit
	movw	$0x037b, SYS_DATA
	fldcw	SYS_DATA
	fld1
	fldz
	fdivrp
	RESUME	2f
1:	paddb	%mm1, %mm0
	EXPECT	16, rip=1b
2:	FAULT	16, 0, emms
	FAULT	16, 0, fld1
	FAULT	16, 0, fldcw SYS_DATA
	FAULT	16, 0, fcomi %st(1), %st
	fnstcw	SYS_DATA
	fnstsw	%ax
	DONE

/* #XM at the instruction itself; the destination keeps its value. QEMU has none. */
	CASE	xm, NOT_QEMU
	movl	$0x1d80, SYS_DATA	/* divide by zero unmasked */
	ldmxcsr	SYS_DATA
	mov	$1, %eax
	cvtsi2sd %eax, %xmm0
	xorps	%xmm1, %xmm1
	RESUME	2f
1:	divsd	%xmm1, %xmm0
	EXPECT	19, error=0, rip=1b
2:	movq	%xmm0, %rax
	REPORT	%rax
	WANT	0x3ff0000000000000
	stmxcsr	SYS_DATA
	mov	SYS_DATA, %eax
	REPORT	%rax
	WANT	0x1d84
	mov	%cr4, %rax	/* without OSXMMEXCPT it is #UD */
	and	$~0x400, %eax
	mov	%rax, %cr4
	RESUME	2f
1:	divsd	%xmm1, %xmm0
	EXPECT	6, rip=1b
2:	movl	$0x10000, SYS_DATA
	RESUME	2f
1:	ldmxcsr	SYS_DATA	/* reserved bits */
	EXPECT	13, error=0, rip=1b
2:	DONE

/* SSE's own alignment check is #GP(0). */
	CASE	sse_alignment
	mov	$SYS_DATA + 8, %ebx
	RESUME	2f
1:	movaps	(%rbx), %xmm0
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f
1:	movaps	%xmm0, (%rbx)
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f
1:	paddb	(%rbx), %xmm0
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f
1:	movntps	%xmm0, (%rbx)
	EXPECT	13, error=0, rip=1b
2:	movups	(%rbx), %xmm0
	TO_USER
	RESUME	2f
	add	$USER, %rbx
1:	movaps	(%rbx), %xmm0
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f
	add	$2, %rbx
1:	fxsave	(%rbx)
	EXPECT	13, error=0, rip=1b
2:	DONE

/* #AC: in ring 3, with AC and CR0.AM. QEMU has none. */
	CASE	ac, NOT_QEMU
	mov	$SYS_DATA + 1, %ebx
	pushfq
	orl	$0x40000, (%rsp)
	popfq
	mov	(%rbx), %eax	/* not in ring 0 */
	TO_USER	0x40002
	RESUME	2f
1:	mov	USER(%rbx), %eax
	EXPECT	17, error=0, rip=1b, cs=SEL_USER_CODE, fset=0x50000, hclr=0x10000
2:	RESUME	2f
1:	mov	%ax, USER(%rbx)
	EXPECT	17, error=0, rip=1b
2:	RESUME	2f
1:	lock addq $1, USER+3(%rbx)
	EXPECT	17, error=0, rip=1b
2:	mov	%al, USER(%rbx)
	mov	USER+3(%rbx), %eax
	RESUME	2f
1:	mov	USER+3(%rbx), %rax
	EXPECT	17, error=0, rip=1b
2:	pushfq
	andl	$~0x40000, (%rsp)
	popfq
	mov	USER(%rbx), %eax
	DONE

/* Vectors want 16 bytes there on AMD's CPUs; Intel's manual leaves it to the CPU, and Bochs takes any address. */
	CASE	ac_vectors, NEED_AMD | NOT_QEMU | NOT_BOCHS | NOT_KVM
	mov	$SYS_DATA + 4, %ebx
	TO_USER	0x40002
	FAULT	17, 0, movups USER(%rbx), %xmm0
	movups	USER+12(%rbx), %xmm0
	pushfq
	andl	$~0x40000, (%rsp)
	popfq
	DONE

/* What is wider than 8 bytes wants 8 of them; images of the x87 their words. */
	CASE	ac_wide, NOT_QEMU | NOT_BOCHS | NOT_KVM
	mov	$SYS_DATA + 4, %ebx
	TO_USER	0x40002
	FAULT	17, 0, fldt USER(%rbx)
	FAULT	17, 0, fnsave USER-2(%rbx)
	fninit
	fldt	USER+4(%rbx)
	fnsave	USER(%rbx)
	pushfq
	andl	$~0x40000, (%rsp)
	popfq
	DONE

/* IST stacks and RSP0; without a stack switch the frame is aligned to 16. */
	CASE	stacks
	movb	$1, SYS_IDT + 6 * 16 + 4
	movb	$2, SYS_IDT + 3 * 16 + 4
	lea	-24(%rsp), %rsp
	int	$0x41
1:	EXPECT	0x41, rip=1b, rsp=(SYS_STACK-24), hrsp=(SYS_STACK-32)
	sub	$1, %rsp
	int	$0x41
1:	EXPECT	0x41, rip=1b, rsp=(SYS_STACK-25), hrsp=(SYS_STACK-32)
	int3
1:	EXPECT	3, rip=1b, rsp=(SYS_STACK-25), hrsp=SYS_STACK_IST2
	RESUME	2f
1:	ud2
	EXPECT	6, rip=1b, rsp=(SYS_STACK-25), hrsp=SYS_STACK_IST1
2:	TO_USER
	RESUME	2f
1:	ud2
	EXPECT	6, rip=1b, hrsp=SYS_STACK_IST1, rsp=SYS_STACK_USER+USER
2:	int	$0x80
1:	EXPECT	0x80, hrsp=SYS_STACK_RSP0
	TO_KERNEL
	movl	$SYS_STACK_RSP0 - 4, SYS_TSS + 4	/* RSP0 is aligned as well */
	TO_USER
	int	$0x80
1:	EXPECT	0x80, hrsp=(SYS_STACK_RSP0-16)
	DONE

/* Interrupt gates clear IF, trap gates leave it; both clear TF, NT, RF. */
	CASE	gates
	movb	$0x8f, SYS_IDT + 0x42 * 16 + 5
	sti
	int	$0x41
	EXPECT	0x41, fset=0x200, hclr=0x200
	int	$0x42
	EXPECT	0x42, fset=0x200, hset=0x200
	pushfq
	orl	$0x4000, (%rsp)
	popfq
	int	$0x41
	EXPECT	0x41, fset=0x4200, hclr=0x4200
	pushfq
	andl	$~0x4000, (%rsp)
	popfq
	cli
	int	$0x42
	EXPECT	0x42, fclr=0x200, hclr=0x200
	std
	int	$0x42
	EXPECT	0x42, fset=0x400, hset=0x400
	DONE

/* What comes first when several are due (SDM vol. 3, table 6-2). */
	CASE	priorities
	TO_USER
	RESUME	2f		/* privilege before memory */
1:	lgdt	SYS_WINDOW
	EXPECT	13, error=0, rip=1b
2:	RESUME	2f		/* a read of a missing page before the division */
	xor	%edx, %edx
1:	divl	SYS_WINDOW
	EXPECT	14, error=4, rip=1b, cr2=SYS_WINDOW
2:	RESUME	2f		/* I/O permission before the page */
	mov	$0x60, %edx
	mov	$SYS_WINDOW, %edi
1:	insb	(%dx), (%rdi)
	EXPECT	13, error=0, rip=1b
2:	mov	$SYS_WINDOW, %esi
	RESUME	2f
1:	movsb
	EXPECT	14, error=4, rip=1b, cr2=SYS_WINDOW
2:	DONE

/* SSE's alignment before the page that is not there. */
	CASE	sse_alignment_first
	mov	$SYS_WINDOW + 8, %eax
	FAULT	13, 0, movaps (%rax), %xmm0
	DONE

/* ... and with permission the page before the port. A guest of QEMU's has no I/O bitmap (its TR is busy). */
	CASE	io_permission, NOT_QEMU
	TO_USER
	mov	$0x60, %edx
	mov	$SYS_WINDOW, %edi
	mov	$SYS_WINDOW, %esi
	FAULT	13, 0, insb (%dx), (%rdi)
	mov	$0x20, %edx
	PAGE_FAULT 6, SYS_WINDOW, insb (%dx), (%rdi)
	PAGE_FAULT 4, SYS_WINDOW, outsb (%rsi), (%dx)
	FAULT	13, 0, in $0x1f, %al
	FAULT	13, 0, in $0x27, %ax	/* two ports */
	FAULT	13, 0, in $0x25, %eax
	xor	%eax, %eax
	in	$0x27, %al
	REPORT	%rax
	WANT	0x5a
	in	$0x26, %ax
	REPORT	%rax
	WANT	0x5a5a
	in	$0x24, %eax
	REPORT	%rax
	WANT	0x5a5a5a5a
	TO_KERNEL
	movw	$0x2ffc, SYS_TSS + 102	/* the bitmap's end lies behind the limit: denied */
	TO_USER
	FAULT	13, 0, in $0x20, %al
	mov	$0x3ff, %edx
	FAULT	13, 0, in (%dx), %al
	TO_KERNEL
	movw	$0x80, SYS_TSS + 102
	TO_USER	0x3002		/* IOPL 3: no bitmap asked */
	in	$0x70, %al
	cli
	sti
	pushfq
	pop	%rbx
	and	$0x3200, %ebx
	REPORT	%rbx
	WANT	0x3200
	DONE

/* A fault leaves all as it was: pushes, read-modify-writes, string counts, two operands. */
	CASE	precise
	movq	$(SYS_DATA + 7), SYS_PT_WINDOW	/* one page, then nothing */
	TO_USER
	mov	$SYS_DATA + USER, %esi
	movb	$0x77, 0xfff(%rsi)
	mov	$SYS_WINDOW + 0xff8, %edi
	mov	$4, %ecx
	RESUME	2f
1:	rep movsl
	EXPECT	14, error=6, rip=1b, cr2=SYS_WINDOW+0x1000
2:	REPORT	%rcx
	WANT	2
	REPORT	%rdi
	WANT	SYS_WINDOW + 0x1000
	REPORT	%rsi
	WANT	SYS_DATA + USER + 8
	RESUME	2f
	mov	$SYS_WINDOW + 0xff9, %edi
	mov	$0x12345678, %eax
	mov	$3, %ecx
1:	rep stosl
	EXPECT	14, error=6, rip=1b, cr2=SYS_WINDOW+0x1000
2:	REPORT	%rcx
	WANT	2
	REPORT	%rdi
	WANT	SYS_WINDOW + 0xffd
	mov	$SYS_WINDOW + 0xff0, %edi
	mov	$100, %ecx
	RESUME	2f
	xor	%eax, %eax
	movq	$0, (%rdi)
	movq	$0, 8(%rdi)
1:	repe scasb
	EXPECT	14, error=4, rip=1b, cr2=SYS_WINDOW+0x1000
2:	REPORT	%rcx
	WANT	84
	RESUME	2f
	mov	%rsp, %rbp
	mov	$SYS_WINDOW + 0x2000, %esp
1:	push	SYS_DATA + USER
	EXPECT	14, error=6, rip=1b, rsp=SYS_WINDOW+0x2000, cr2=SYS_WINDOW+0x1ff8
2:	RESUME	2f
1:	pop	SYS_WINDOW + 0x3000
	EXPECT	14, error=4, rip=1b, rsp=SYS_WINDOW+0x2000, cr2=SYS_WINDOW+0x2000
2:	mov	%rbp, %rsp
	RESUME	2f
	push	%rax
1:	pop	SYS_WINDOW + 0x3000
	EXPECT	14, error=6, rip=1b, rsp=(SYS_STACK_USER+USER-8), cr2=SYS_WINDOW+0x3000
2:	pop	%rax
	RESUME	2f
1:	call	*SYS_WINDOW + 0x3000
	EXPECT	14, error=4, rip=1b, rsp=SYS_STACK_USER+USER, cr2=SYS_WINDOW+0x3000
2:	RESUME	2f
	mov	$SYS_WINDOW + 0x2000, %esp
1:	call	2f
	EXPECT	14, error=6, rip=1b, rsp=SYS_WINDOW+0x2000, cr2=SYS_WINDOW+0x1ff8
2:	RESUME	2f
	mov	$SYS_WINDOW + 0x2008, %ebp
1:	leave
	EXPECT	14, error=4, rip=1b, rsp=SYS_WINDOW+0x2000, cr2=SYS_WINDOW+0x2008
2:	RESUME	2f
	mov	$SYS_WINDOW + 0x2000, %esp
1:	enter	$16, $0
	EXPECT	14, error=6, rip=1b, rsp=SYS_WINDOW+0x2000, cr2=SYS_WINDOW+0x1ff8
2:	DONE

/* A read-modify-write is a write to the page tables from its start; QEMU reads first. */
	CASE	precise_rmw, NOT_QEMU
	movq	$(SYS_DATA + 7), SYS_PT_WINDOW	/* one page, then nothing */
	movq	$(SYS_DATA + 0x1005), SYS_PT_WINDOW + 16	/* read-only */
	TO_USER
	mov	$SYS_WINDOW + 0xffe, %ebx
	mov	$0x11223344, %eax
	.macro	CROSSES code:vararg
	PAGE_FAULT 6, SYS_WINDOW+0x1000, \code
	REPORT	%rax
	WANT	0x11223344
	movzwl	(%rbx), %eax
	REPORT	%rax
	WANT	0
	mov	$0x11223344, %eax
	.endm
	CROSSES	xadd %eax, (%rbx)
	CROSSES	add %eax, (%rbx)
	CROSSES	xchg %eax, (%rbx)
	CROSSES	lock incl (%rbx)
	CROSSES	rorl $3, (%rbx)
	CROSSES	lock cmpxchg %ecx, (%rbx)
	CROSSES	negl (%rbx)
	CROSSES	btsl $3, (%rbx)
	CROSSES	shld $3, %ecx, (%rbx)
	mov	$SYS_WINDOW + 0x2000, %ebx
	.macro	READ_ONLY code:vararg
	PAGE_FAULT 7, SYS_WINDOW+0x2000, \code
	REPORT	%rax
	WANT	0x11223344
	.endm
	READ_ONLY xadd %eax, (%rbx)
	READ_ONLY add %eax, (%rbx)
	READ_ONLY xchg %eax, (%rbx)
	READ_ONLY lock incl (%rbx)
	READ_ONLY lock cmpxchg %ecx, (%rbx)
	READ_ONLY cmpxchg8b (%rbx)
	READ_ONLY sarb %cl, (%rbx)
	DONE

	END_IMAGE exceptions
