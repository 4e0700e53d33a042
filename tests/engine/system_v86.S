/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual-8086 mode: in by IRET, out by exceptions, interrupts and SYSENTER; what IOPL forbids, ports by the bitmap
 * alone, instructions that the 8086 had not, segments (SDM vol. 3, 20; APM vol. 2, 4.11, 12.4). The language:
 * system_protected.inc, and what is below.
 *
 * The image is at 1 MiB, so its first 64 KiB are what CS = ffffh reaches, from offset 10h on. FS leads to the log.
 */
#include "tests/engine/system_protected.inc"

#define ASK 0x11

#define V86_CS	  0xffff
#define V86_WORLD (-0xffff0)
#define V86_SS	  0x4f00
#define V86_SP	  0x1000
#define V86_DS	  0x5400
#define V86_ES	  0x5500
#define V86_FS	  0x3000
#define V86_GS	  0x1234
#define SYS_DATA_86 0x54000 /* V86_DS */
#define VM	  0x20000

/* Goes on in virtual-8086 mode. */
	.macro	TO_V86 flags=2
	push	$V86_GS
	push	$V86_FS
	push	$V86_DS
	push	$V86_ES
	push	$V86_SS
	push	$0x10000 + V86_SP
	push	$VM + \flags
	push	$V86_CS
	push	$0x50000 + ADDR(74f) + V86_WORLD	/* the upper half is ignored */
	iret
	.set	WORLD, V86_WORLD
	.code16
74:
	.endm

	.macro	RESUME_86 label
	movl	$ADDR(\label), %fs:SYS_RESUME - (V86_FS << 4)
	.endm

	.macro	HOOK_86 label
	movl	$ADDR(\label) - WORLD, %fs:SYS_HOOK - (V86_FS << 4)
	.endm

	.macro	FAULT_86 vector, error, code:vararg
	RESUME_86 76f
75:	\code
	EXPECT	\vector, error=\error, rip=75b, cs=V86_CS, fset=VM
76:
	.endm

/* Clobbers di. */
	.macro	REPORT_86 reg
	mov	%fs:SYS_LOG_NEXT - (V86_FS << 4), %di
	movl	$LOG_VALUE, %fs:SYS_LOG - (V86_FS << 4)(%di)
	movl	\reg, %fs:SYS_LOG + 8 - (V86_FS << 4)(%di)
	addl	$16, %fs:SYS_LOG_NEXT - (V86_FS << 4)
	.endm

	.macro	DONE_86
	HOOK_86	77f
	ud2
	EXPECT	6, cs=V86_CS
	.set	WORLD, 0
	.code32
77:	out	%al, $PORT_DONE
	.endm

/* A TSS that opens ports 11h, 20h, and 2ch to 2fh. */
	.macro	BITMAP
	movl	$SYS_STACK_RSP0, SYS_TSS_B + 4
	movw	$SEL_DATA, SYS_TSS_B + 8
	movw	$0x80, SYS_TSS_B + 102
	mov	$SYS_TSS_B + 0x80, %edi
	mov	$0xff, %al
	mov	$0x180, %ecx
	rep stosb
	movb	$0xfd, SYS_TSS_B + 0x80 + 2
	movb	$0xfe, SYS_TSS_B + 0x80 + 4
	movb	$0x0f, SYS_TSS_B + 0x80 + 5
	mov	$SEL_TSS_B, %eax
	ltr	%ax
	.endm

	PROTECTED_IMAGE v86
gate_target:
gate_32:
gate_16:
	DONE

/* The whole frame, both ways. */
	CASE	frame, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	%esp, SYS_DATA
	HOOK_32	2f
	TO_V86
1:	int3
3:	EXPECT	3, rip=3b, cs=V86_CS, ss=V86_SS, rsp=(0x10000+V86_SP), fset=VM, fclr=0x10200, hrsp=(SYS_STACK_RSP0-16), hclr=(VM+0x200)
	WANT	V86_ES
	WANT	V86_DS
	WANT	V86_FS
	WANT	V86_GS
	WANT	0
	WANT	0
	WANT	0
	WANT	0
	WANT	SEL_CODE_32
	WANT	SEL_DATA
	mov	%es, %eax
	REPORT_86 %eax
	WANT	V86_ES
	mov	%ds, %eax
	REPORT_86 %eax
	WANT	V86_DS
	mov	%gs, %eax
	REPORT_86 %eax
	WANT	V86_GS
	mov	%cs, %eax
	REPORT_86 %eax
	WANT	V86_CS
	REPORT_86 %esp
	WANT	0x10000+V86_SP
	DONE_86
/* In the handler: es, ds, fs, gs of the frame; ds, es, fs, gs, cs, ss as they are. */
2:	.irp	at, 52, 56, 60, 64
	movzwl	\at(%esp), %eax
	REPORT_32 %eax
	.endr
	movzwl	16(%esp), %eax
	REPORT_32 %eax
	.irp	reg, es, fs, gs, cs, ss
	mov	%\reg, %eax
	REPORT_32 %eax
	.endr
	ret

/* A gate of 16 bits has no room for VM: what it pushes cannot go back. */
	CASE	gate_of_16_bits, NOT_QEMU_MOVED
	TO_PROTECTED
	movb	$0xe6, SYS_IDT_32 + 0x83 * 8 + 5
	movw	$SEL_IMAGE, SYS_IDT_32 + 0x83 * 8 + 2
	movw	$2f - image_start, SYS_IDT_32 + 0x83 * 8
	movw	$0, SYS_IDT_32 + 0x83 * 8 + 6
	TO_V86	0x3000
	int	$0x83
1:	WANT	SYS_STACK_RSP0 - 18
	WANT	V86_CS << 16 | (1b - image_start + 0x10)
	WANT	V86_SP << 16 | 0x3002
	WANT	V86_ES << 16 | V86_SS
	WANT	V86_FS << 16 | V86_DS
	WANT	V86_GS
	.set	WORLD, 0
	.code32
2:	mov	$SEL_DATA, %eax
	mov	%eax, %ds
	REPORT_32 %esp
	.irp	at, 0, 4, 8, 12
	mov	\at(%esp), %eax
	REPORT_32 %eax
	.endr
	movzwl	16(%esp), %eax
	REPORT_32 %eax
	DONE_32

	CASE	iopl_0, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_V86
	FAULT_86 13, 0, cli
	FAULT_86 13, 0, sti
	FAULT_86 13, 0, pushf
	FAULT_86 13, 0, popf
	FAULT_86 13, 0, pushfl
	FAULT_86 13, 0, popfl
	FAULT_86 13, 0, int $0x80
	FAULT_86 13, 0, .byte 0xcd, 3	/* not int3 */
	FAULT_86 13, 0, iret
	FAULT_86 13, 0, iretl
	REPORT_86 %esp
	WANT	0x10000+V86_SP
	mov	$0x7f, %al
	inc	%al
	into
1:	EXPECT	4, rip=1b, cs=V86_CS, fset=(VM+0x800)
	int3
1:	EXPECT	3, rip=1b, cs=V86_CS
	xor	%cx, %cx
	FAULT_86 0, 0, div %cx
	DONE_86

/* IOPL and VM stay what they are; VM and RF are not shown. */
	CASE	iopl_3, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_V86	0x3002
	sti
	pushfl
	popl	%eax
	REPORT_86 %eax
	WANT	0x3202
	cli
	pushf
	pop	%ax
	movzwl	%ax, %eax
	REPORT_86 %eax
	WANT	0x3002
	pushl	$0x4ed5
	popfl
	pushfl
	popl	%eax
	pushl	$2
	popfl
	REPORT_86 %eax
	WANT	0x7ed7 & ~0x200 | 0x200
	push	$0x0200
	push	$V86_CS
	push	$ADDR(1f)
	iret
	ud2
1:	pushfl
	popl	%eax
	REPORT_86 %eax
	WANT	0x3202
	pushl	$0x40002		/* AC */
	pushl	$V86_CS
	pushl	$ADDR(1f)
	iretl
	ud2
1:	pushfl
	popl	%eax
	REPORT_86 %eax
	WANT	0x43002
	REPORT_86 %esp
	WANT	0x10000+V86_SP
	pushl	$2
	popfl
	int	$0x80
1:	EXPECT	0x80, rip=1b, cs=V86_CS, fset=(VM+0x3000), hset=0x3000
	FAULT_86 13, (0x50*8+2), int $0x50
	DONE_86

	CASE	not_in_8086, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_V86	0x3002
	FAULT_86 6, 0, lar %cx, %ax
	FAULT_86 6, 0, lsl %cx, %ax
	FAULT_86 6, 0, verr %cx
	FAULT_86 6, 0, verw %cx
	FAULT_86 6, 0, sldt %ax
	FAULT_86 6, 0, str %ax
	FAULT_86 6, 0, lldt %ax
	FAULT_86 6, 0, ltr %ax
	FAULT_86 6, 0, arpl %ax, %cx
	FAULT_86 6, 0, .byte 0xc5, 0xf8, 0x77	/* vzeroupper: its prefix is LDS with a register */
	smsw	%ax
	sidt	%ds:0
	xor	%eax, %eax
	cpuid
	rdtsc
	DONE_86

/* ANDN, by the same prefix; Bochs executes it. */
	CASE	no_vex, NOT_QEMU_MOVED | NOT_BOCHS
	TO_PROTECTED
	TO_V86	0x3002
	FAULT_86 6, 0, .byte 0xc4, 0xe2, 0x78, 0xf2, 0xc0
	DONE_86

	CASE	privileged, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_V86	0x3002
	FAULT_86 13, 0, hlt
	FAULT_86 13, 0, mov %cr0, %eax
	FAULT_86 13, 0, mov %eax, %cr0
	FAULT_86 13, 0, mov %cr4, %eax
	FAULT_86 13, 0, mov %db7, %eax
	FAULT_86 13, 0, mov %eax, %db7
	FAULT_86 13, 0, clts
	FAULT_86 13, 0, lmsw %ax
	FAULT_86 13, 0, lgdt %ds:0
	FAULT_86 13, 0, lidt %ds:0
	FAULT_86 13, 0, invlpg %ds:0
	FAULT_86 13, 0, wbinvd
	FAULT_86 13, 0, rdmsr
	FAULT_86 13, 0, wrmsr
	FAULT_86 13, 0, sysexit
	DONE_86

/* Ports: by the bitmap of the TSS, whatever IOPL says. */
	CASE	ports, NOT_QEMU_MOVED
	TO_PROTECTED
	BITMAP
	TO_V86	0x3002
	xor	%eax, %eax
	in	$0x20, %al
	REPORT_86 %eax
	WANT	0x5a
	in	$0x2c, %eax
	REPORT_86 %eax
	WANT	0x5a5a5a5a
	FAULT_86 13, 0, in $0x21, %al
	FAULT_86 13, 0, out %al, $0x2b
	FAULT_86 13, 0, in $0x2d, %eax
	FAULT_86 13, 0, in $0x20, %ax
	mov	$0xc00, %dx			/* behind the limit */
	FAULT_86 13, 0, in (%dx), %al
	mov	$0x21, %dx
	mov	$0, %di
	FAULT_86 13, 0, insb
	DONE_86

	CASE	no_ports, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_V86	0x3002
	FAULT_86 13, 0, in $0x20, %al
	FAULT_86 13, 0, outsb
	DONE_86

/* As in real mode. */
	CASE	segments, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_V86
	movl	$0x11223344, %ds:0x1000		/* the same as %es:0 */
	mov	%es:1, %eax
	and	$0xffffff, %eax
	REPORT_86 %eax
	WANT	0x112233
	mov	$V86_DS + 0x100, %ax
	mov	%ax, %ds
	mov	%ds:0, %eax
	REPORT_86 %eax
	WANT	0x11223344
	movl	$V86_DS << 16 | 0x1000, %es:0x10
	les	%es:0x10, %bx
	mov	%es:(%bx), %ax
	movw	%bx, %cx
	shll	$16, %ecx
	mov	%es, %cx
	REPORT_86 %ecx
	WANT	0x10000000 | V86_DS
	/* code is readable and writable, too */
	mov	%cs:ADDR(6f), %ax
	mov	%ax, %cs:ADDR(6f)
	movzwl	%ax, %eax
	REPORT_86 %eax
	WANT	0xabcd
	lcall	$V86_CS - 1, $ADDR(5f) + 0x10
	WANT	V86_CS - 1
	WANT	V86_CS << 16 | (4f - image_start + 0x10)
4:	REPORT_86 %esp
	WANT	0x10000+V86_SP
	DONE_86
	.code16
5:	mov	%cs, %eax
	REPORT_86 %eax
	mov	%sp, %bp
	mov	(%bp), %eax
	REPORT_86 %eax
	lret
6:	.word	0xabcd

/* QEMU does not check them. */
	CASE	limits, NOT_QEMU
	TO_PROTECTED
	TO_V86
	FAULT_86 13, 0, .byte 0x67, 0xa1, 0xff, 0xff, 0, 0 /* addr32 mov 0xffff, %ax: not clang's */
	FAULT_86 13, 0, mov %ds:0xfffd, %eax
	mov	$0x12345, %ebx
	FAULT_86 13, 0, mov %al, (%ebx)
	FAULT_86 13, 0, mov %cs:0xffff, %ax
	mov	$1, %sp
	FAULT_86 12, 0, push %ax
	mov	$0xffff, %bp
	FAULT_86 12, 0, mov (%bp), %ax
	mov	$V86_SP, %sp
	FAULT_86 13, 0, ljmpl $V86_CS, $0x10000
	DONE_86

	CASE	interrupts, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	$0x50, %al
	out	%al, $ASK
	TO_V86	0x202
1:	EXPECT	0x50, rip=1b, cs=V86_CS, fset=(VM+0x200), fclr=0x10000, hclr=(VM+0x200)
	DONE_86

	CASE	nmi, NOT_QEMU_MOVED
	TO_PROTECTED
	BITMAP
	TO_V86
	mov	$2, %al
	out	%al, $ASK
1:	EXPECT	2, rip=1b, cs=V86_CS, fset=VM, fclr=0x10000, hclr=VM
	out	%al, $ASK
1:	EXPECT	2, rip=1b
	DONE_86

/* Only level 0 has handlers for it; QEMU takes any. */
	CASE	levels, NOT_QEMU
	TO_PROTECTED
	movw	$SEL_CODE_1, SYS_IDT_32 + 0x82 * 8 + 2
	movw	$SEL_CONFORM_32, SYS_IDT_32 + 0x83 * 8 + 2
	movw	$SEL_CODE_1, SYS_IDT_32 + 6 * 8 + 2
	TO_V86	0x3002
	FAULT_86 13, (SEL_CODE_1-1), int $0x82
	FAULT_86 13, SEL_CONFORM_32, int $0x83
	RESUME_86 1f
	ud2
	EXPECT	13, error=SEL_CODE_1, cs=V86_CS, fset=VM	/* EXT */
1:	HOOK_86	77f
	cli
	sti
	int	$0x80
	EXPECT	0x80
	.set	WORLD, 0
	.code32
77:	out	%al, $PORT_DONE

	CASE	step, NOT_QEMU_MOVED
	TO_PROTECTED
	TO_V86	0x102
1:	nop
2:	EXPECT	1, rip=2b, cs=V86_CS, fset=(VM+0x100), dr6=0xffff4ff0, hclr=(VM+0x100)
	HOOK_86	3f
1:	EXPECT	1, rip=1b
	nop
	DONE_86
3:	andl	$~0x100, 40(%esp)
	ret

/* Out by SYSENTER, which clears VM. */
	CASE	sysenter, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	$0x174, %ecx
	mov	$SEL_CODE, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x175, %ecx
	mov	$SYS_STACK, %eax
	wrmsr
	mov	$0x176, %ecx
	mov	$ADDR(1f), %eax
	wrmsr
	TO_V86	0x3202
	sysenter
	.set	WORLD, 0
	.code32
1:	pushf
	pop	%ebx
	mov	$SEL_DATA, %eax
	mov	%eax, %ds
	REPORT_32 %esp
	WANT	SYS_STACK
	mov	%cs, %eax
	REPORT_32 %eax
	WANT	SEL_CODE
	and	$VM + 0x3200, %ebx
	REPORT_32 %ebx
	WANT	0x3000
	DONE_32

/* Its pages are a user's. */
	CASE	paging, NOT_QEMU_MOVED
	TO_PROTECTED
	mov	$SYS_FREE_TABLES + 0x1000, %edi
	mov	$7, %eax
	mov	$1024, %ecx
1:	stosl
	add	$0x1000, %eax
	loop	1b
	movl	$SYS_FREE_TABLES + 0x1000 + 7, SYS_FREE_TABLES
	movl	$SYS_DATA_86 + 3, SYS_FREE_TABLES + 0x1000 + 4 * (SYS_DATA_86 >> 12)
	movl	$SYS_DATA_86 + 0x1000 + 5, SYS_FREE_TABLES + 0x1000 + 4 * ((SYS_DATA_86 >> 12) + 1)
	movl	$0, SYS_FREE_TABLES + 0x1000 + 4 * ((SYS_DATA_86 >> 12) + 2)
	mov	$SYS_FREE_TABLES, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	and	$~0xa0, %eax		/* PAE, PGE */
	mov	%eax, %cr4
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	TO_V86
	mov	%ds:0x1234, %al
	FAULT_86 14, 5, mov %ds:0x123, %al
	FAULT_86 14, 7, mov %al, %ds:0x123
	FAULT_86 14, 7, mov %al, %ds:0x1123
	FAULT_86 14, 4, mov %ds:0x2123, %al
	FAULT_86 14, 4, mov %ds:0x1fff, %ax
	DONE_86

/* FNSTENV of 16 bits with linear addresses, as in real mode. */
	CASE	x87, NOT_QEMU | NOT_BOCHS
	TO_PROTECTED
	TO_V86
	fninit
	movw	$0x37b, %ds:0x80	/* division by zero waits: else CPUs of AMD forget at each switch of the host's */
	fldcw	%ds:0x80
	fld1
1:	fdivl	%ds:0x100
	fnstenv	%ds:0x200
	fnclex
	movzwl	%ds:0x206, %eax
	REPORT_86 %eax
	WANT	(1b - image_start + SYS_IMAGE) & 0xffff
	movzwl	%ds:0x208, %eax
	and	$0xf000, %eax
	REPORT_86 %eax
	WANT	(SYS_IMAGE >> 16 << 12) & 0xf000
	movzwl	%ds:0x20a, %eax
	REPORT_86 %eax
	WANT	(SYS_DATA_86 + 0x100) & 0xffff
	DONE_86

/* Interrupt flags of its own are not offered. */
	CASE	no_vme, NOT_QEMU | NOT_BOCHS | NOT_KVM
	TO_PROTECTED
	mov	$1, %eax
	cpuid
	and	$2, %edx
	REPORT_32 %edx
	WANT	0
	mov	%cr4, %eax
	or	$1, %eax
	FAULT_32 13, 0, mov %eax, %cr4
	xor	$3, %eax
	FAULT_32 13, 0, mov %eax, %cr4
	DONE_32

	END_IMAGE v86
