/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protected mode without long mode: exceptions and interrupts through 32-bit and 16-bit gates, stacks from the TSS,
 * IRET, call gates, SYSENTER (SDM vol. 3, 5.8 and 6.11 to 6.13; vol. 2 at each instruction). The language:
 * system_protected.inc.
 */
#include "tests/engine/system_protected.inc"

#define ASK 0x11

	PROTECTED_IMAGE protected
gate_target:
	DONE

	.code32
/* Where call gates lead: reports cs, esp, the caller's cs, two parameters. */
gate_32:
	mov	%cs, %eax
	REPORT_32 %eax
	mov	%esp, %eax
	REPORT_32 %eax
	mov	4(%esp), %eax
	REPORT_32 %eax
	mov	8(%esp), %eax
	REPORT_32 %eax
	mov	12(%esp), %eax
	REPORT_32 %eax
	lret	$8
gate_16:
	mov	%esp, %eax
	REPORT_32 %eax
	mov	(%esp), %eax		/* ip and cs */
	REPORT_32 %eax
	lretw
	.code64

/* Vector, error code, frame, flags; the stack stays. */
	CASE	exceptions
	TO_PROTECTED
	xor	%ecx, %ecx
	RESUME_32 2f
1:	div	%ecx
	EXPECT	0, rip=1b, cs=SEL_CODE_32, ss=SEL_DATA, rsp=SYS_STACK, fset=0x10000, hclr=0x10300, hrsp=SYS_STACK
2:	nop
	int3
1:	EXPECT	3, rip=1b, fclr=0x10000
	mov	$0x7fffffff, %eax
	inc	%eax
	into
1:	EXPECT	4, rip=1b
	FAULT_32 6, 0, ud2
	FAULT_32 5, 0, bound %eax, SYS_TSS_16 + 0x20
	mov	$SEL_END_32, %eax
	FAULT_32 13, SEL_END_32, mov %eax, %fs
	mov	$SEL_CODE_32, %eax
	FAULT_32 13, SEL_CODE_32, mov %eax, %ss
	mov	$SEL_ABSENT, %eax
	FAULT_32 11, SEL_ABSENT, mov %eax, %es
	FAULT_32 12, SEL_ABSENT, mov %eax, %ss
	xor	%eax, %eax
	FAULT_32 13, 0, mov %eax, %ss
	mov	%eax, %fs
	DONE_32

/* Flags behind gates: IF by their kind, TF and NT always; and IRET puts them back. */
	CASE	flags
	TO_PROTECTED
	push	$0x4600
	popf
	int	$0x80
1:	EXPECT	0x80, rip=1b, fset=0x4600, hclr=0x4300, hset=0x400
	pushf
	pop	%eax
	and	$0x4600, %eax
	REPORT_32 %eax
	WANT	0x4600
	movb	$0x8f, SYS_IDT_32 + 0x84 * 8 + 5	/* a trap gate */
	int	$0x84
1:	EXPECT	0x84, rip=1b, hset=0x200, hclr=0x4100
	push	$2
	popf
	DONE_32

	CASE	ring_3, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_RING_3 0x202
	int	$0x80
1:	EXPECT	0x80, rip=1b, cs=SEL_USER_32, ss=SEL_USER_DATA, rsp=SYS_STACK_USER, hrsp=SYS_STACK_RSP0, fset=0x200, hclr=0x200
	FAULT_32 13, 0x50*8+2, int $0x50
	FAULT_32 13, 0, cli
	FAULT_32 13, 0, hlt
	FAULT_32 13, 0, in $0x60, %al
	xor	%ecx, %ecx
	push	%ecx
	RESUME_32 2f
1:	div	%ecx
	EXPECT	0, rip=1b, cs=SEL_USER_32, ss=SEL_USER_DATA, rsp=(SYS_STACK_USER-4), hrsp=SYS_STACK_RSP0, fset=0x10200
2:	mov	$SEL_DATA, %eax
	FAULT_32 13, SEL_DATA, mov %eax, %ds
	DONE_RING_3

/* A return to ring 3 takes the segments away that it could not have loaded. */
	CASE	return_clears, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	$SEL_USER_DATA, %eax
	mov	%eax, %fs
	mov	$SEL_DATA, %eax
	mov	%eax, %gs
	TO_RING_3
	mov	%fs, %eax
	REPORT_32 %eax
	WANT	SEL_USER_DATA
	mov	%gs, %eax
	REPORT_32 %eax
	WANT	0
	DONE_RING_3

/* Gates that are absent, of a wrong kind, behind the limit; EXT if it was no INT. */
	CASE	bad_gates
	TO_PROTECTED
	andb	$0x7f, SYS_IDT_32 + 0x45 * 8 + 5
	FAULT_32 11, 0x45*8+2, int $0x45
	movb	$0x8c, SYS_IDT_32 + 0x46 * 8 + 5
	FAULT_32 13, 0x46*8+2, int $0x46
	movw	$SEL_DATA, SYS_IDT_32 + 0x47 * 8 + 2
	FAULT_32 13, SEL_DATA, int $0x47
	movw	$0, SYS_IDT_32 + 0x48 * 8 + 2
	FAULT_32 13, 0, int $0x48
	movw	$SEL_USER_32, SYS_IDT_32 + 0x49 * 8 + 2
	FAULT_32 13, (SEL_USER_32-3), int $0x49
	movw	$SEL_ABSENT_CODE, SYS_IDT_32 + 0x4a * 8 + 2
	FAULT_32 11, SEL_ABSENT_CODE, int $0x4a
	movw	$0x50 * 8 - 1, SYS_DATA
	movl	$SYS_IDT_32, SYS_DATA + 2
	lidt	SYS_DATA
	FAULT_32 13, 0x50*8+2, int $0x50
	int	$0x4f
	EXPECT	0x4f
	andb	$0x7f, SYS_IDT_32 + 6 * 8 + 5
	FAULT_32 11, 6*8+3, ud2
	DONE_32

	CASE	double_fault
	TO_PROTECTED
	andb	$0x7f, SYS_IDT_32 + 13 * 8 + 5
	mov	$SEL_END_32, %eax
	FAULT_32 8, 0, mov %eax, %fs
	andb	$0x7f, SYS_IDT_32 + 8 * 8 + 5
	mov	%eax, %fs
	EXPECT_SHUTDOWN
	DONE_32

/* Stacks of inner levels that the TSS has wrong, met on the way from ring 3 to ring 1; #TS goes to ring 0. */
	CASE	bad_stacks, NOT_QEMU_MOVED
	TO_PROTECTED
	movw	$SEL_CODE_1, SYS_IDT_32 + 0x83 * 8 + 2
	TO_RING_3
	movw	$0, SYS_TSS_32 + 16
	FAULT_32 10, 0, int $0x83
	movw	$SEL_DATA, SYS_TSS_32 + 16
	FAULT_32 10, SEL_DATA, int $0x83
	movw	$SEL_CODE_1, SYS_TSS_32 + 16
	FAULT_32 10, (SEL_CODE_1-1), int $0x83
	movw	$SEL_END_32 + 1, SYS_TSS_32 + 16
	FAULT_32 10, SEL_END_32, int $0x83
	movw	$SEL_USER_DATA - 2, SYS_TSS_32 + 16	/* RPL 1, DPL 3 */
	FAULT_32 10, (SEL_USER_DATA-3), int $0x83
	DONE_RING_3

/* One that is absent is #SS; QEMU has #TS. */
	CASE	absent_stack, NOT_QEMU
	TO_PROTECTED
	movw	$SEL_CODE_1, SYS_IDT_32 + 0x83 * 8 + 2
	andb	$0x7f, SYS_GDT + SEL_DATA_1 - 1 + 5
	TO_RING_3
	FAULT_32 12, (SEL_DATA_1-1), int $0x83
	DONE_RING_3

/* To ring 1 and back, and from there to ring 0. */
	CASE	ring_1, NOT_QEMU_MOVED
	TO_PROTECTED
	movw	$SEL_CODE_1, SYS_IDT_32 + 0x83 * 8 + 2
	mov	$ADDR(2f), %eax
	mov	%ax, SYS_IDT_32 + 0x83 * 8
	TO_RING_3
	int	$0x83
	WANT	SEL_CODE_1
	WANT	SEL_DATA_1
	WANT	SYS_STACK_IST1 - 20
	EXPECT	0x80, cs=SEL_CODE_1, ss=SEL_DATA_1, rsp=(SYS_STACK_IST1-20), hrsp=SYS_STACK_RSP0
	mov	%esp, %eax
	REPORT_32 %eax
	WANT	SYS_STACK_USER
	DONE_RING_3
2:	mov	%cs, %eax
	REPORT_32 %eax
	mov	%ss, %eax
	REPORT_32 %eax
	mov	%esp, %eax
	REPORT_32 %eax
	int	$0x80
	iret

/* Through gates to conforming code the level stays, and the stack. QEMU mixes the levels up. */
	CASE	conforming, NOT_QEMU
	TO_PROTECTED
	movw	$SEL_CONFORM_32, SYS_IDT_32 + 0x82 * 8 + 2
	mov	$ADDR(2f), %eax
	mov	%ax, SYS_IDT_32 + 0x82 * 8
	movw	$SEL_CONFORM_32, SYS_GDT + SEL_GATE_32 - 3 + 2
	TO_RING_3
	int	$0x82
	WANT	SEL_CONFORM_32 + 3
	WANT	SYS_STACK_USER - 12
	push	$0x22
	push	$0x11
	lcall	$SEL_GATE_32, $0
	WANT	SEL_CONFORM_32 + 3
	WANT	SYS_STACK_USER - 16
	WANT	SEL_USER_32
	WANT	0x11
	WANT	0x22
	push	$0x22
	push	$0x11
	push	$SEL_USER_32
	push	$ADDR(1f)
	ljmp	$SEL_GATE_32, $0
1:	WANT	SEL_CONFORM_32 + 3
	WANT	SYS_STACK_USER - 16
	WANT	SEL_USER_32
	WANT	0x11
	WANT	0x22
	DONE_RING_3
2:	mov	%cs, %eax
	REPORT_32 %eax
	mov	%esp, %eax
	REPORT_32 %eax
	iret

/* Stacks of 16 bits. */
	CASE	small_stack
	TO_PROTECTED
	mov	$SEL_STACK_16, %eax
	mov	%eax, %ss
	mov	$0xff00, %esp
	int	$0x80
1:	EXPECT	0x80, rip=1b, ss=SEL_STACK_16, hrsp=0xff00
	DONE_32

/* A TSS of 16 bits. */
	CASE	small_tss, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	$SEL_TSS_16, %eax
	ltr	%ax
	TO_RING_3
	int	$0x80
1:	EXPECT	0x80, rip=1b, ss=SEL_USER_DATA, rsp=SYS_STACK_USER, hrsp=0xfff0
	DONE_RING_3

/* A return to a 16-bit stack sets SP, and leaves the rest of ESP as the kernel had it. */
	CASE	small_outer_stack, NOT_QEMU_MOVED
	TO_PROTECTED
	push	$SEL_USER_16
	push	$0x1234ff00
	push	$2
	push	$SEL_USER_32
	push	$ADDR(1f)
	iret
1:	mov	%esp, %ebx
	mov	$SEL_USER_DATA, %eax
	mov	%eax, %ss
	mov	$SYS_STACK_USER, %esp
	mov	%eax, %ds
	REPORT_32 %ebx
	WANT	((SYS_STACK-20)&0xffff0000)+0xff00
	DONE_RING_3

/* Gates of 16 bits: frames of words. */
	CASE	small_gates
	TO_PROTECTED
	movw	$SEL_IMAGE, SYS_IDT_32 + 0x85 * 8 + 2
	movb	$0x86, SYS_IDT_32 + 0x85 * 8 + 5
	movw	$2f - image_start, SYS_IDT_32 + 0x85 * 8
	movw	$0, SYS_IDT_32 + 0x85 * 8 + 6	/* QEMU takes it for a part of the offset */
	ljmp	$SEL_IMAGE, $1f - image_start
1:	push	$0x46
	popf
	int	$0x85
1:	WANT	SYS_STACK - 6
	WANT	SEL_IMAGE << 16 | (1b - image_start)
	WANT	0x46
	WANT	2
	lcall	$SEL_GATE_16, $0x1234
1:	WANT	SYS_STACK - 4
	WANT	SEL_IMAGE << 16 | (1b - image_start)
	mov	%esp, %eax
	REPORT_32 %eax
	WANT	SYS_STACK
	DONE_32
2:	pushf
	pop	%ebx
	mov	%esp, %eax
	REPORT_32 %eax
	mov	(%esp), %eax
	REPORT_32 %eax
	movzwl	4(%esp), %eax
	REPORT_32 %eax
	and	$0x202, %ebx
	REPORT_32 %ebx
	iretw

	CASE	iret_faults, NOT_QEMU_MOVED
	TO_PROTECTED
	push	$2
	push	$0
	push	$ADDR(1f)
1:	FAULT_32 13, 0, iret
	movl	$SEL_DATA, 4(%esp)
	FAULT_32 13, SEL_DATA, iret
	movl	$SEL_ABSENT_CODE, 4(%esp)
	FAULT_32 11, SEL_ABSENT_CODE, iret
	movl	$SEL_END_32, 4(%esp)
	FAULT_32 13, SEL_END_32, iret
	add	$12, %esp
	push	$0
	push	$SYS_STACK_USER
	push	$2
	push	$SEL_USER_32
	push	$ADDR(1f)
1:	FAULT_32 13, 0, iret
	movl	$SEL_DATA, 16(%esp)
	FAULT_32 13, SEL_DATA, iret
	movl	$SEL_ABSENT + 3, 16(%esp)	/* DPL 0 comes first */
	FAULT_32 13, SEL_ABSENT, iret
	movl	$SEL_USER_32, 16(%esp)
	FAULT_32 13, (SEL_USER_32-3), iret
	add	$20, %esp
	TO_RING_3
	push	$2
	push	$SEL_CODE_32
	push	$ADDR(1f)
1:	FAULT_32 13, SEL_CODE_32, iret
	DONE_RING_3

/* Limits and types, which QEMU does not check: of code that is returned to, of data that expands down. */
	CASE	limits, NOT_QEMU
	TO_PROTECTED
	xor	%eax, %eax
	mov	%eax, %fs
	FAULT_32 13, 0, mov %fs:0, %al
	FAULT_32 13, 0, mov %al, %cs:0
	movw	$SEL_SHORT_CODE, SYS_IDT_32 + 0x4b * 8 + 2
	FAULT_32 13, 0, int $0x4b
	push	$2
	push	$SEL_SHORT_CODE
	push	$0x1000
	FAULT_32 13, 0, iret
	mov	$SEL_DOWN, %eax
	mov	%eax, %es
	mov	%es:0x1000, %eax
	FAULT_32 13, 0, mov %es:0xfff, %al
	FAULT_32 13, 0, mov %es:0xffe, %eax
	DONE_32

/* An inner stack without room for the frame. */
	CASE	short_stacks, NOT_QEMU
	TO_PROTECTED
	movw	$SEL_CODE_1, SYS_IDT_32 + 0x83 * 8 + 2
	movw	$0xfff, SYS_GDT + SEL_DATA_1 - 1
	movb	$0x40, SYS_GDT + SEL_DATA_1 - 1 + 6
	TO_RING_3
	FAULT_32 12, (SEL_DATA_1-1), int $0x83
	movl	$12, SYS_TSS_32 + 12
	FAULT_32 12, (SEL_DATA_1-1), int $0x83
	DONE_RING_3

	CASE	interrupts, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	$0x50, %al
	out	%al, $ASK
	sti
	nop
1:	EXPECT	0x50, rip=1b, cs=SEL_CODE_32, fset=0x200, fclr=0x10000, hclr=0x200
	cli
	mov	$2, %al
	out	%al, $ASK
1:	EXPECT	2, rip=1b, fclr=0x200
	out	%al, $ASK
1:	EXPECT	2, rip=1b
	mov	$0x51, %al
	out	%al, $ASK
	push	$SEL_USER_DATA
	push	$SYS_STACK_USER
	push	$0x202
	push	$SEL_USER_32
	push	$ADDR(1f)
	iret
1:	EXPECT	0x51, rip=1b, cs=SEL_USER_32, hrsp=SYS_STACK_RSP0
	DONE_RING_3

	CASE	step
	TO_PROTECTED
	push	$0x102
	popf
	nop
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0, fset=0x100, hclr=0x100
	push	$2
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0
	popf
1:	EXPECT	1, rip=1b, dr6=0xffff4ff0, fclr=0x100
	nop
	DONE_32

	CASE	call_gates, NOT_QEMU_MOVED
	TO_PROTECTED
	push	$0x22
	push	$0x11
	lcall	$SEL_GATE_32, $0x1234
	WANT	SEL_CODE_32
	WANT	SYS_STACK - 16
	WANT	SEL_CODE_32
	WANT	0x11
	WANT	0x22
	push	$0x22
	push	$0x11
	push	$SEL_CODE_32
	push	$ADDR(1f)
	ljmp	$SEL_GATE_32, $0
1:	WANT	SEL_CODE_32
	WANT	SYS_STACK - 16
	WANT	SEL_CODE_32
	WANT	0x11
	WANT	0x22
	mov	%esp, %eax
	REPORT_32 %eax
	WANT	SYS_STACK
	FAULT_32 13, SEL_GATE_0, lcall $SEL_GATE_0 + 3, $0
	FAULT_32 11, (SEL_GATE_GONE-3), lcall $SEL_GATE_GONE, $0
	FAULT_32 13, SEL_DATA, lcall $SEL_GATE_BAD, $0
	FAULT_32 13, 0, lcall $SEL_GATE_NULL, $0
	TO_RING_3
	push	$0x44
	push	$0x33
	lcall	$SEL_GATE_32, $0x1234
	WANT	SEL_CODE_32
	WANT	SYS_STACK_RSP0 - 24
	WANT	SEL_USER_32
	WANT	0x33
	WANT	0x44
	mov	%esp, %eax
	REPORT_32 %eax
	WANT	SYS_STACK_USER
	mov	%ss, %eax
	REPORT_32 %eax
	WANT	SEL_USER_DATA
	FAULT_32 13, SEL_GATE_0, lcall $SEL_GATE_0, $0
	FAULT_32 13, SEL_CODE_32, ljmp $SEL_GATE_32, $0
	FAULT_32 13, SEL_DATA, lcall $SEL_DATA, $0
	DONE_RING_3

	CASE	sysenter, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	$0x174, %ecx
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	FAULT_32 13, 0, sysenter
	FAULT_32 13, 0, sysexit
	mov	$SEL_CODE, %eax
	wrmsr
	mov	$0x175, %ecx
	mov	$SYS_STACK, %eax
	wrmsr
	mov	$0x176, %ecx
	mov	$ADDR(1f), %eax
	wrmsr
	TO_RING_3 0x202
	FAULT_32 13, 0, sysexit
	sysenter
1:	pushf
	pop	%ebx
	REPORT_32 %esp
	WANT	SYS_STACK
	mov	%cs, %eax
	REPORT_32 %eax
	WANT	SEL_CODE
	mov	%ss, %eax
	REPORT_32 %eax
	WANT	SEL_DATA
	REPORT_32 %ebx
	WANT	2
	mov	$SYS_STACK_USER - 8, %ecx
	mov	$ADDR(1f), %edx
	sysexit
1:	REPORT_32 %esp
	WANT	SYS_STACK_USER - 8
	mov	%cs, %eax
	REPORT_32 %eax
	WANT	SEL_USER_32
	mov	%ss, %eax
	REPORT_32 %eax
	WANT	SEL_USER_DATA
	DONE_RING_3

	END_IMAGE protected
