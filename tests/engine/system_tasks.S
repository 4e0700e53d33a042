/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Task switches by hardware, without long mode: by JMP, CALL, IRET, and gates of the IDT; 32 and 16 bits; what they leave
 * in both TSSs and both descriptors; faults before the switch, which are the old task's, and behind it, which are the new
 * one's (SDM vol. 3, 7; APM vol. 2, 12). The language: system_protected.inc.
 *
 * Task A is the one that a case begins in, task B that of SYS_TSS_B.
 *
 * KVM switches by its emulator, where the host lets it (QEMU's AMD-V switches itself). That emulator raises nothing for
 * what it finds wrong in the new task, nor for pages that are absent; it knows no T bit; and it saves the old task as if
 * its TSS had as many bits as the new one's. Such cases are NOT_KVM.
 */
#include "tests/engine/system_protected.inc"

#define ASK 0x11

/* In a TSS of 32 bits, and of 16. */
#define T_LINK	 0x00
#define T_CR3	 0x1c
#define T_EIP	 0x20
#define T_EFLAGS 0x24
#define T_EAX	 0x28
#define T_ECX	 0x2c
#define T_ESP	 0x38
#define T_EDI	 0x44
#define T_ES	 0x48
#define T_CS	 0x4c
#define T_SS	 0x50
#define T_DS	 0x54
#define T_FS	 0x58
#define T_GS	 0x5c
#define T_LDT	 0x60
#define T_TRAP	 0x64
#define T16_IP	 0x0e
#define T16_FLAG 0x10
#define T16_AX	 0x12
#define T16_SP	 0x1a
#define T16_ES	 0x22

/* Where a descriptor has its type. */
#define TYPE_A (SYS_GDT + SEL_TSS_32 + 5)
#define TYPE_B (SYS_GDT + SEL_TSS_B + 5)

#define STACK_B SYS_STACK_IST2

#define TABLES	(SYS_FREE_TABLES)
#define TABLE_1 (SYS_FREE_TABLES + 0x1000) /* of the memory */
#define TABLE_2 (SYS_FREE_TABLES + 0x2000) /* of the window */
#define TABLES_B (SYS_DATA + 0x8000)	   /* task B's, and its window's */
#define TABLE_B	 (SYS_DATA + 0x9000)
#define WINDOW	 0x400000
#define FRAME	 (SYS_DATA + 0x4000) /* of A's window, and B's */
#define FRAME_B	 (SYS_DATA + 0x5000)
#define PTE(at)	 (TABLE_1 + 4 * ((at) >> 12))

/* The first 4 MiB as they are, and a window that is another page for each task. */
	.macro	PAGES
	mov	$TABLE_1, %edi
	mov	$7, %eax
	mov	$1024, %ecx
1:	stosl
	add	$0x1000, %eax
	loop	1b
	mov	$TABLES_B, %edi
	xor	%eax, %eax
	mov	$2048, %ecx
	rep stosl
	movl	$TABLE_1 + 7, TABLES
	movl	$TABLE_1 + 7, TABLES_B
	movl	$TABLE_2 + 7, TABLES + 4
	movl	$TABLE_B + 7, TABLES_B + 4
	movl	$FRAME + 7, TABLE_2
	movl	$FRAME_B + 7, TABLE_B
	movl	$0xaaaaaaaa, FRAME
	movl	$0xbbbbbbbb, FRAME_B
	movl	$TABLES, SYS_TSS_32 + T_CR3
	movl	$TABLES_B, SYS_TSS_B + T_CR3
	mov	$TABLES, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	and	$~0xa0, %eax		/* PAE, PGE */
	mov	%eax, %cr4
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	.endm

/* Task B begins at the label, in ring 0. Clobbers eax, ecx, edi. */
	.macro	TASK_B label, flags=2
	mov	$SYS_TSS_B, %edi
	xor	%eax, %eax
	mov	$26, %ecx
	rep stosl
	movl	$SYS_STACK_RSP0, SYS_TSS_B + 4
	movw	$SEL_DATA, SYS_TSS_B + 8
	movl	$ADDR(\label), SYS_TSS_B + T_EIP
	movl	$\flags, SYS_TSS_B + T_EFLAGS
	movl	$0xb0b0b0b0, SYS_TSS_B + T_EAX
	movl	$0xb1b1b1b1, SYS_TSS_B + T_ECX
	movl	$STACK_B, SYS_TSS_B + T_ESP
	movl	$0xb7b7b7b7, SYS_TSS_B + T_EDI
	movw	$SEL_DATA, SYS_TSS_B + T_ES
	movw	$SEL_CODE_32, SYS_TSS_B + T_CS
	movw	$SEL_DATA, SYS_TSS_B + T_SS
	movw	$SEL_DATA, SYS_TSS_B + T_DS
	movw	$0x68, SYS_TSS_B + 102
	.endm

/* A gate of the IDT becomes a task gate. */
	.macro	TASK_GATE vector, type=0x85, selector=SEL_TSS_B
	movl	$(\selector) << 16, SYS_IDT_32 + \vector * 8
	movl	$\type << 8, SYS_IDT_32 + \vector * 8 + 4
	.endm

/* A value in memory, eax being clobbered. */
	.macro	REPORT_AT address, want:vararg
	mov	\address, %eax
	REPORT_32 %eax
	WANT	\want
	.endm

	.macro	REPORT_WORD address, want:vararg
	movzwl	\address, %eax
	REPORT_32 %eax
	WANT	\want
	.endm

	.macro	REPORT_BYTE address, want:vararg
	movzbl	\address, %eax
	REPORT_32 %eax
	WANT	\want
	.endm

	.macro	REPORT_TR want:vararg
	str	%eax
	REPORT_32 %eax
	WANT	\want
	.endm

/* Types of the descriptors: 89h is a task that is not busy, 8bh one that is. */
	.macro	REPORT_TYPES a, b
	REPORT_BYTE TYPE_A, \a
	REPORT_BYTE TYPE_B, \b
	.endm

/*
 * A switch to a task B with this field wrong: an exception in task B, before its first instruction; on the stack that is
 * in its TSS, if its own has not been loaded yet.
 */
	.macro	TASK_FAULT vector, error, at, value, hrsp=0x5fff8	/* SYS_STACK_RSP0 - 8 */
	TASK_B	76f
	movw	$\value, SYS_TSS_B + \at
	HOOK_32	77f
	ljmp	$SEL_TSS_B, $0
	jmp	78f
76:	EXPECT	\vector, error=\error, rip=76b, hrsp=(\hrsp)
	ud2
77:	ljmp	$SEL_TSS_32, $0
78:
	.endm

	PROTECTED_IMAGE tasks
gate_target:
gate_32:
gate_16:
	DONE

	.code32
/* What a switch has made of a task's registers. */
report_registers:
	pushf
	pusha
	mov	%esp, %ebp
	.irp	at, 28, 24, 20, 16, 8, 4, 0	/* eax, ecx, edx, ebx, ebp, esi, edi */
	mov	\at(%ebp), %eax
	REPORT_32 %eax
	.endr
	lea	40(%ebp), %eax
	REPORT_32 %eax
	.irp	reg, es, cs, ss, ds, fs, gs
	mov	%\reg, %eax
	REPORT_32 %eax
	.endr
	mov	32(%ebp), %eax
	REPORT_32 %eax
	popa
	popf
	ret
	.code64

/* Registers of both tasks, all that a switch changes. */
	CASE	jump, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f, 0x8d7
	movl	$0xb2b2b2b2, SYS_TSS_B + T_ECX + 4
	movl	$0xb3b3b3b3, SYS_TSS_B + T_ECX + 8
	movl	$0xb5b5b5b5, SYS_TSS_B + T_ESP + 4
	movl	$0xb6b6b6b6, SYS_TSS_B + T_ESP + 8
	movw	$SEL_USER_DATA, SYS_TSS_B + T_FS
	movw	$SEL_READ_ONLY, SYS_TSS_B + T_GS
	mov	$0xa1a1a1a1, %ecx
	mov	$0xa2a2a2a2, %edx
	mov	$0xa3a3a3a3, %ebx
	mov	$0xa5a5a5a5, %ebp
	mov	$0xa6a6a6a6, %esi
	mov	$0xa7a7a7a7, %edi
	mov	$SEL_USER_DATA, %eax
	mov	%eax, %gs
	xor	%eax, %eax
	mov	%eax, %fs
	clts
	push	$0x4403
	popf
	mov	$0xa0a0a0a0, %eax
	ljmp	$SEL_TSS_B, $0
5:	jmp	1f
2:	call	report_registers
	WANT	0xb0b0b0b0
	WANT	0xb1b1b1b1
	WANT	0xb2b2b2b2
	WANT	0xb3b3b3b3
	WANT	0xb5b5b5b5
	WANT	0xb6b6b6b6
	WANT	0xb7b7b7b7
	WANT	STACK_B
	WANT	SEL_DATA
	WANT	SEL_CODE_32
	WANT	SEL_DATA
	WANT	SEL_DATA
	WANT	SEL_USER_DATA
	WANT	SEL_READ_ONLY
	WANT	0x8d7
	REPORT_TR SEL_TSS_B
	mov	%cr0, %eax
	and	$8, %eax
	REPORT_32 %eax
	WANT	8
	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	REPORT_AT SYS_TSS_32 + T_EFLAGS, 0x4403
	REPORT_AT SYS_TSS_32 + T_EAX, 0xa0a0a0a0
	REPORT_AT SYS_TSS_32 + T_ECX, 0xa1a1a1a1
	REPORT_AT SYS_TSS_32 + T_ECX + 4, 0xa2a2a2a2
	REPORT_AT SYS_TSS_32 + T_ECX + 8, 0xa3a3a3a3
	REPORT_AT SYS_TSS_32 + T_ESP, SYS_STACK
	REPORT_AT SYS_TSS_32 + T_ESP + 4, 0xa5a5a5a5
	REPORT_AT SYS_TSS_32 + T_ESP + 8, 0xa6a6a6a6
	REPORT_AT SYS_TSS_32 + T_EDI, 0xa7a7a7a7
	REPORT_WORD SYS_TSS_32 + T_ES, SEL_DATA
	REPORT_WORD SYS_TSS_32 + T_CS, SEL_CODE_32
	REPORT_WORD SYS_TSS_32 + T_SS, SEL_DATA
	REPORT_WORD SYS_TSS_32 + T_DS, SEL_DATA
	REPORT_WORD SYS_TSS_32 + T_FS, 0
	REPORT_WORD SYS_TSS_32 + T_GS, SEL_USER_DATA
	REPORT_TYPES 0x89, 0x8b
	REPORT_WORD SYS_TSS_B + T_LINK, 0
	push	$2		/* QEMU leaves A flags of B's last arithmetic */
	popf
	ljmp	$SEL_TSS_32, $0
1:	call	report_registers
	WANT	0xa0a0a0a0
	WANT	0xa1a1a1a1
	WANT	0xa2a2a2a2
	WANT	0xa3a3a3a3
	WANT	0xa5a5a5a5
	WANT	0xa6a6a6a6
	WANT	0xa7a7a7a7
	WANT	SYS_STACK
	WANT	SEL_DATA
	WANT	SEL_CODE_32
	WANT	SEL_DATA
	WANT	SEL_DATA
	WANT	0
	WANT	SEL_USER_DATA
	WANT	0x4403
	REPORT_TR SEL_TSS_32
	REPORT_TYPES 0x8b, 0x89
	DONE_32

/* There and back, twice: the second time it goes on behind its IRET. */
	CASE	call, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	lcall	$SEL_TSS_B, $0
5:	jmp	1f
2:	pushf
	pop	%eax
	REPORT_32 %eax
	WANT	0x4002
	REPORT_WORD SYS_TSS_B + T_LINK, SEL_TSS_32
	REPORT_TYPES 0x8b, 0x8b
	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	iret
3:	jmp	2f
1:	pushf
	pop	%eax
	and	$0x4000, %eax
	REPORT_32 %eax
	WANT	0
	REPORT_TR SEL_TSS_32
	REPORT_TYPES 0x8b, 0x89
	REPORT_AT SYS_TSS_B + T_EIP, ADDR(3b)
	mov	SYS_TSS_B + T_EFLAGS, %eax
	and	$0x4000, %eax
	REPORT_32 %eax
	WANT	0
	REPORT_WORD SYS_TSS_B + T_LINK, SEL_TSS_32
	lcall	*ADDR(6f)
	jmp	1f
2:	REPORT_TR SEL_TSS_B
	iret
	.balign	4
6:	.long	0
	.word	SEL_TSS_B
1:	REPORT_TR SEL_TSS_32
	DONE_32

/* A task that is called calls another, of 16 bits; each goes back to its caller. */
	CASE	nested, NOT_KVM
	TO_PROTECTED
	TASK_B	2f
	movw	$3f - image_start, SYS_TSS_16 + T16_IP
	movw	$2, SYS_TSS_16 + T16_FLAG
	movw	$0xc0c0, SYS_TSS_16 + T16_AX
	movw	$0x8000, SYS_TSS_16 + T16_SP
	movw	$SEL_DATA, SYS_TSS_16 + T16_ES
	movw	$SEL_IMAGE, SYS_TSS_16 + T16_ES + 2
	movw	$SEL_STACK_16, SYS_TSS_16 + T16_ES + 4
	movw	$SEL_DATA, SYS_TSS_16 + T16_ES + 6
	movw	$0, SYS_TSS_16 + 0x2a
	lcall	$SEL_TSS_B, $0
5:	jmp	1f
2:	lcall	$SEL_TSS_16, $0
6:	jmp	2f
3:	movzwl	%ax, %eax
	REPORT_32 %eax
	WANT	0xc0c0
	pushf
	pop	%eax
	REPORT_32 %eax
	WANT	0x4002
	movzwl	%sp, %eax
	REPORT_32 %eax
	WANT	0x8000
	mov	%cs, %eax
	REPORT_32 %eax
	WANT	SEL_IMAGE
	REPORT_TR SEL_TSS_16
	REPORT_WORD SYS_TSS_16, SEL_TSS_B
	REPORT_BYTE SYS_GDT + SEL_TSS_16 + 5, 0x83
	REPORT_TYPES 0x8b, 0x8b
	REPORT_AT SYS_TSS_B + T_EIP, ADDR(6b)
	mov	$0xc1c1c1c1, %eax
	mov	$0xd1d1d1d1, %ecx
	iret
4:	ud2
2:	REPORT_TR SEL_TSS_B
	REPORT_BYTE SYS_GDT + SEL_TSS_16 + 5, 0x81
	REPORT_AT SYS_TSS_16 + T16_AX, 0xd1d1c1c1
	REPORT_WORD SYS_TSS_16 + T16_IP, 4b - image_start
	movzwl	SYS_TSS_16 + T16_FLAG, %eax
	and	$0x4202, %eax
	REPORT_32 %eax
	WANT	2
	REPORT_AT SYS_TSS_16 + T16_ES, SEL_IMAGE << 16 | SEL_DATA
	iret
1:	REPORT_TR SEL_TSS_32
	REPORT_TYPES 0x8b, 0x89
	DONE_32

/* A TSS of 16 bits has no FS and GS: they are null in its task. KVM leaves them as they are. */
	CASE	no_fs, NOT_KVM
	TO_PROTECTED
	movw	$2f - image_start, SYS_TSS_16 + T16_IP
	movw	$2, SYS_TSS_16 + T16_FLAG
	movw	$0x8000, SYS_TSS_16 + T16_SP
	movw	$SEL_DATA, SYS_TSS_16 + T16_ES
	movw	$SEL_IMAGE, SYS_TSS_16 + T16_ES + 2
	movw	$SEL_STACK_16, SYS_TSS_16 + T16_ES + 4
	movw	$SEL_DATA, SYS_TSS_16 + T16_ES + 6
	movw	$0, SYS_TSS_16 + 0x2a
	mov	$SEL_USER_DATA, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lcall	$SEL_TSS_16, $0
	jmp	1f
2:	mov	%fs, %eax
	REPORT_32 %eax
	WANT	0
	mov	%gs, %eax
	REPORT_32 %eax
	WANT	0
	iret
1:	mov	%fs, %eax
	REPORT_32 %eax
	WANT	SEL_USER_DATA
	DONE_32

/* Again and again: moved and kicked at any place, none is done twice or not at all. */
	CASE	often, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	TASK_GATE 0x85
	movl	$0, SYS_DATA
	movl	$0, SYS_TSS_B + T_ECX
	mov	$500, %ecx
5:	lcall	$SEL_TSS_B, $0
	int	$0x85
	ljmp	$SEL_TSS_B, $0
	dec	%ecx
	jnz	5b
	jmp	1f
2:	mov	$0x5a5a5a5a, %edx
	incl	SYS_DATA
	inc	%ecx
	iret
	incl	SYS_DATA
	inc	%ecx
	iret
	incl	SYS_DATA
	inc	%ecx
	ljmp	$SEL_TSS_32, $0
	jmp	2b
1:	REPORT_AT SYS_DATA, 1500
	REPORT_AT SYS_TSS_B + T_ECX, 1500
	REPORT_TYPES 0x8b, 0x89
	DONE_32

/* Task gates of the GDT and of the IDT, from ring 3 too. */
	CASE	gates, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	TASK_GATE 0x84
	TASK_GATE 0x85, 0xe5
	lcall	$SEL_TASK_0, $0x1234
5:	jmp	1f
2:	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	REPORT_WORD SYS_TSS_B + T_LINK, SEL_TSS_32
	iret
	jmp	2f
1:	int	$0x84
5:	jmp	1f
2:	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	REPORT_32 %esp
	WANT	STACK_B
	iret
	jmp	2f
1:	TO_RING_3 0x202
	lcall	$SEL_TASK, $0
5:	jmp	1f
2:	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	REPORT_WORD SYS_TSS_32 + T_CS, SEL_USER_32
	REPORT_WORD SYS_TSS_32 + T_SS, SEL_USER_DATA
	REPORT_AT SYS_TSS_32 + T_EFLAGS, 0x202
	mov	%cs, %eax
	REPORT_32 %eax
	WANT	SEL_CODE_32
	iret
	jmp	2f
1:	int	$0x85
5:	jmp	1f
2:	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	iret
1:	mov	%cs, %eax
	REPORT_32 %eax
	WANT	SEL_USER_32
	FAULT_32 13, SEL_TSS_B, lcall $SEL_TSS_B, $0
	FAULT_32 13, SEL_TASK_0, ljmp $SEL_TASK_0, $0
	FAULT_32 13, (0x84*8+2), int $0x84
	DONE_RING_3

/* Through the IDT: a fault, with and without an error code, the old task as it can go on. */
	CASE	exceptions, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	TASK_GATE 6
	TASK_GATE 13
	mov	$SEL_END_32, %eax
5:	mov	%eax, %fs
	jmp	1f
2:	REPORT_32 %esp
	WANT	STACK_B - 4
	pop	%eax
	REPORT_32 %eax
	WANT	SEL_END_32
	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	REPORT_TR SEL_TSS_B
	REPORT_WORD SYS_TSS_B + T_LINK, SEL_TSS_32
	movl	$SEL_USER_DATA, SYS_TSS_32 + T_EAX
	iret
	jmp	2f
1:	mov	%fs, %eax
	REPORT_32 %eax
	WANT	SEL_USER_DATA
	TO_RING_3
5:	ud2
6:	jmp	1f
2:	REPORT_32 %esp
	WANT	STACK_B
	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	REPORT_WORD SYS_TSS_32 + T_CS, SEL_USER_32
	movl	$ADDR(6b), SYS_TSS_32 + T_EIP
	iret
	jmp	2f
1:	cli
	jmp	1f
2:	pop	%eax
	REPORT_32 %eax
	WANT	0
	DONE_32
1:	ud2

/* RF of the old task is set by a fault, so that it is not met by the same breakpoint again. */
	CASE	resume_flag, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	TASK_GATE 6
	ud2
2:	mov	SYS_TSS_32 + T_EFLAGS, %eax
	and	$0x10000, %eax
	REPORT_32 %eax
	WANT	0x10000
	DONE_32

/* As Linux has it for the double fault. */
	CASE	double_fault, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	TASK_GATE 8
	andb	$0x7f, SYS_IDT_32 + 13 * 8 + 5
	mov	$SEL_END_32, %eax
5:	mov	%eax, %fs
	ud2
2:	pop	%eax
	REPORT_32 %eax
	WANT	0
	REPORT_32 %esp
	WANT	STACK_B
	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	DONE_32

	CASE	interrupts, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	TASK_GATE 0x50
	TASK_GATE 2
	mov	$0x50, %al
	out	%al, $ASK
	sti
	nop
5:	cli
	jmp	1f
2:	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	mov	SYS_TSS_32 + T_EFLAGS, %eax
	and	$0x10200, %eax
	REPORT_32 %eax
	WANT	0x200
	iret
	jmp	2f
1:	mov	$2, %al
	out	%al, $ASK
5:	jmp	1f
2:	REPORT_AT SYS_TSS_32 + T_EIP, ADDR(5b)
	iret
1:	REPORT_TR SEL_TSS_32
	DONE_32

/* A second NMI waits for the first one's IRET, which is a task switch. KVM on AMD's steps to it, and then traps. */
	CASE	nmi_masked, NOT_QEMU
	TO_PROTECTED
	TASK_B	2f
	TASK_GATE 2
	mov	$2, %al
	out	%al, $ASK
	jmp	1f
2:	mov	$2, %al
	out	%al, $ASK
	REPORT_TR SEL_TSS_B
	iret
	REPORT_WORD SYS_TSS_B + T_LINK, SEL_TSS_32
	iret
1:	REPORT_TR SEL_TSS_32
	DONE_32

/* Before the switch: nothing has happened. QEMU has #TS for a TSS in the LDT. */
	CASE	refused, NOT_QEMU
	TO_PROTECTED
	TASK_B	2f
	movw	$SEL_LDT, SYS_DATA
	movb	$0x82, SYS_GDT + SEL_LDT + 5
	lldt	SYS_DATA
	mov	SYS_GDT + SEL_TSS_B, %eax
	mov	%eax, SYS_LDT + 8
	mov	SYS_GDT + SEL_TSS_B + 4, %eax
	mov	%eax, SYS_LDT + 12
	FAULT_32 13, SEL_TSS_32, ljmp $SEL_TSS_32, $0
	FAULT_32 13, SEL_TSS_32, lcall $SEL_TSS_32, $0
	FAULT_32 13, SEL_TSS_B, lcall $SEL_TSS_B + 1, $0
	FAULT_32 13, 12, lcall $12, $0
	movw	$12, SYS_GDT + SEL_TASK_0 + 2
	FAULT_32 13, 12, lcall $SEL_TASK_0, $0
	movw	$0, SYS_GDT + SEL_TASK_0 + 2
	FAULT_32 13, 0, lcall $SEL_TASK_0, $0
	movw	$SEL_DATA, SYS_GDT + SEL_TASK_0 + 2
	FAULT_32 13, SEL_DATA, ljmp $SEL_TASK_0, $0
	movw	$SEL_END_32, SYS_GDT + SEL_TASK_0 + 2
	FAULT_32 13, SEL_END_32, ljmp $SEL_TASK_0, $0
	movw	$SEL_TSS_32, SYS_GDT + SEL_TASK_0 + 2
	FAULT_32 13, SEL_TSS_32, ljmp $SEL_TASK_0, $0
	andb	$0x7f, SYS_GDT + SEL_TASK_0 + 5
	FAULT_32 11, SEL_TASK_0, lcall $SEL_TASK_0, $0
	andb	$0x7f, TYPE_B
	FAULT_32 11, SEL_TSS_B, lcall $SEL_TSS_B, $0
	orb	$0x80, TYPE_B
	movw	$0x66, SYS_GDT + SEL_TSS_B
	FAULT_32 10, SEL_TSS_B, ljmp $SEL_TSS_B, $0
	movw	$0x67, SYS_GDT + SEL_TSS_B
	movw	$0x2a, SYS_GDT + SEL_TSS_16
	FAULT_32 10, SEL_TSS_16, ljmp $SEL_TSS_16, $0
	TASK_GATE 0x84, 0x85, SEL_TSS_32
	FAULT_32 13, SEL_TSS_32, int $0x84
	TASK_GATE 6, 0x85, SEL_TSS_32
	FAULT_32 13, (SEL_TSS_32+1), ud2
	TASK_GATE 0x84, 0x05, SEL_TSS_B
	FAULT_32 11, (0x84*8+2), int $0x84
	REPORT_TR SEL_TSS_32
	REPORT_TYPES 0x8b, 0x89
	lcall	$SEL_TSS_B, $0
	jmp	1f
2:	REPORT_TR SEL_TSS_B
	iret
1:	DONE_32

/* IRET with a link that leads nowhere. */
	CASE	bad_links, NOT_QEMU_MOVED
	TO_PROTECTED
	push	$0x4002
	popf
	movw	$0, SYS_TSS_32 + T_LINK
	FAULT_32 10, 0, iret
	movw	$SEL_TSS_B, SYS_TSS_32 + T_LINK
	FAULT_32 10, SEL_TSS_B, iret
	movw	$SEL_DATA, SYS_TSS_32 + T_LINK
	FAULT_32 10, SEL_DATA, iret
	movw	$SEL_END_32, SYS_TSS_32 + T_LINK
	FAULT_32 10, SEL_END_32, iret
	movw	$12, SYS_TSS_32 + T_LINK
	FAULT_32 10, 12, iret
	movw	$SEL_TSS_B, SYS_TSS_32 + T_LINK
	movb	$0x0b, TYPE_B
	FAULT_32 11, SEL_TSS_B, iret
	push	$2
	popf
	movw	$0, SYS_TSS_32 + T_LINK
	TO_RING_3 0x4002
	FAULT_32 10, 0, iret
	DONE_RING_3

/* Behind the switch: the exception is task B's. */
	CASE	bad_tasks, NOT_KVM
	TO_PROTECTED
	TASK_FAULT 10, SEL_DATA, T_LDT, SEL_DATA
	REPORT_TR SEL_TSS_32
	REPORT_TYPES 0x8b, 0x89
	TASK_FAULT 10, 4, T_LDT, 4
	TASK_FAULT 10, SEL_END_32, T_LDT, SEL_END_32
	TASK_FAULT 10, 0, T_CS, 0
	TASK_FAULT 10, SEL_DATA, T_CS, SEL_DATA
	TASK_FAULT 10, SEL_CODE_32, T_CS, (SEL_CODE_32+3), SYS_STACK_RSP0
	TASK_FAULT 11, SEL_ABSENT_CODE, T_CS, SEL_ABSENT_CODE
	TASK_FAULT 10, 0, T_SS, 0
	TASK_FAULT 10, SEL_CODE_32, T_SS, SEL_CODE_32
	TASK_FAULT 10, SEL_READ_ONLY, T_SS, SEL_READ_ONLY
	TASK_FAULT 10, (SEL_USER_DATA-3), T_SS, SEL_USER_DATA
	TASK_FAULT 12, SEL_ABSENT, T_SS, SEL_ABSENT
	TASK_FAULT 11, SEL_ABSENT, T_DS, SEL_ABSENT, STACK_B
	TASK_FAULT 10, SEL_EXEC_ONLY, T_ES, SEL_EXEC_ONLY, STACK_B
	TASK_FAULT 10, SEL_END_32, T_FS, SEL_END_32, STACK_B
	TASK_FAULT 10, SEL_DATA, T_GS, (SEL_DATA+3), STACK_B
	REPORT_TR SEL_TSS_32
	REPORT_TYPES 0x8b, 0x89
/* By an exception: EXT. */
	TASK_B	2f
	movw	$SEL_END_32, SYS_TSS_B + T_DS
	TASK_GATE 6
	HOOK_32	3f
	ud2
	ud2
2:	EXPECT	10, error=(SEL_END_32+1), rip=2b
3:	REPORT_TR SEL_TSS_B
	REPORT_WORD SYS_TSS_B + T_LINK, SEL_TSS_32
	DONE_32

/* The eip of the new task is behind its code's limit: to QEMU that is the old task's fault. */
	CASE	eip_limit, NOT_QEMU
	TO_PROTECTED
	TASK_B	2f
	movw	$SEL_SHORT_CODE, SYS_TSS_B + T_CS
	HOOK_32	3f
	ljmp	$SEL_TSS_B, $0
2:	EXPECT	13, error=0, rip=2b, cs=SEL_SHORT_CODE
3:	REPORT_TR SEL_TSS_B
	DONE_32

/* Ring 3 as a task, with an LDT; out of it through the stack in its TSS, and by a call gate's kin, a task gate. */
	CASE	ring_3, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f, 0x202
	movb	$0x82, SYS_GDT + SEL_LDT + 5
	movl	$0xffff, SYS_LDT + 0x20
	movl	$0xcff200, SYS_LDT + 0x24		/* not accessed yet */
	movw	$SEL_LDT, SYS_TSS_B + T_LDT
	movl	$SYS_STACK_IST1, SYS_TSS_B + 4
	movl	$SYS_STACK_USER, SYS_TSS_B + T_ESP
	movw	$SEL_USER_32, SYS_TSS_B + T_CS
	movw	$SEL_USER_DATA, SYS_TSS_B + T_SS
	movw	$0x27, SYS_TSS_B + T_DS			/* of the LDT */
	movw	$SEL_USER_DATA, SYS_TSS_B + T_ES
	movw	$SEL_USER_32, SYS_TSS_B + T_GS
	TASK_GATE 0x85, 0xe5, SEL_TSS_32
	ljmp	$SEL_TSS_B, $0
5:	jmp	1f
2:	int	$0x80
3:	EXPECT	0x80, rip=3b, cs=SEL_USER_32, ss=SEL_USER_DATA, rsp=SYS_STACK_USER, fset=0x202, hrsp=SYS_STACK_IST1
	mov	%ds, %eax
	mov	%gs, %ecx
	int	$0x85
4:	jmp	2f
1:	REPORT_BYTE SYS_LDT + 0x25, 0xf3
	REPORT_AT SYS_TSS_B + T_EAX, 0x27
	REPORT_AT SYS_TSS_B + T_ECX, SEL_USER_32
	REPORT_WORD SYS_TSS_B + T_CS, SEL_USER_32
	REPORT_WORD SYS_TSS_B + T_DS, 0x27
	REPORT_WORD SYS_TSS_B + T_LDT, SEL_LDT
	sldt	%eax
	REPORT_32 %eax
	WANT	0
	REPORT_WORD SYS_TSS_32 + T_LINK, SEL_TSS_B
	iret
2:	sldt	%eax
	REPORT_32 %eax
	WANT	SEL_LDT
	DONE_RING_3

/* IRET to the task itself: it reads what it has just written, in QEMU what was there before. */
	CASE	itself, NOT_QEMU
	TO_PROTECTED
	movw	$SEL_TSS_32, SYS_TSS_32 + T_LINK
	mov	$0x12345678, %ebx
	push	$0x4002
	popf
	iret
	REPORT_32 %ebx
	WANT	0x12345678
	REPORT_TR SEL_TSS_32
	pushf
	pop	%eax
	REPORT_32 %eax
	WANT	2
	REPORT_BYTE TYPE_A, 0x89
	DONE_32

/* CR3 goes with the task. */
	CASE	cr3, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f
	PAGES
	REPORT_AT WINDOW, 0xaaaaaaaa
	lcall	$SEL_TSS_B, $0
	jmp	1f
2:	REPORT_AT WINDOW, 0xbbbbbbbb
	mov	%cr3, %eax
	REPORT_32 %eax
	WANT	TABLES_B
	iret
1:	REPORT_AT WINDOW, 0xaaaaaaaa
	mov	%cr3, %eax
	REPORT_32 %eax
	WANT	TABLES
	DONE_32

/* Pages of the TSSs that are not there, or not writable: nothing has happened, and then it works. */
	CASE	absent_pages, NOT_KVM
	TO_PROTECTED
	TASK_B	2f
	movw	$0xfe8, SYS_GDT + SEL_TSS_B + 2		/* B's TSS is where two pages of the window meet */
	movb	$WINDOW >> 16, SYS_GDT + SEL_TSS_B + 4
	PAGES
	movl	$0, TABLE_2
	mov	$SYS_TSS_B, %esi
	mov	$FRAME + 0xfe8, %edi
	mov	$26, %ecx
	rep movsl
	RESUME_32 3f
1:	ljmp	$SEL_TSS_B, $0
	EXPECT	14, error=0, cr2=(WINDOW+0xfe8), rip=1b
3:	movl	$FRAME + 7, TABLE_2
	invlpg	WINDOW
	RESUME_32 3f
1:	lcall	$SEL_TSS_B, $0
	EXPECT	14, error=0, cr2=(WINDOW+0x104f), rip=1b
3:	movl	$FRAME + 0x1005, TABLE_2 + 4
	movl	$FRAME + 5, TABLE_2
	invlpg	WINDOW
	RESUME_32 3f
1:	lcall	$SEL_TSS_B, $0
	EXPECT	14, error=3, cr2=(WINDOW+0xfe8), rip=1b
3:	movl	$FRAME + 7, TABLE_2
	invlpg	WINDOW
	andb	$0xfd, PTE(SYS_TSS_32)
	invlpg	SYS_TSS_32
	RESUME_32 3f
1:	lcall	$SEL_TSS_B, $0
	EXPECT	14, error=3, cr2=(SYS_TSS_32+T_EIP), rip=1b
3:	orb	$2, PTE(SYS_TSS_32)
	invlpg	SYS_TSS_32
	andb	$0xfd, PTE(SYS_GDT)
	invlpg	SYS_GDT
	RESUME_32 3f
1:	lcall	$SEL_TSS_B, $0
	EXPECT	14, error=3, cr2=(SYS_GDT+SEL_TSS_B), rip=1b
3:	orb	$2, PTE(SYS_GDT)
	invlpg	SYS_GDT
	REPORT_TR SEL_TSS_32
	REPORT_TYPES 0x8b, 0x89
	movl	$TABLES, FRAME + 0xfe8 + T_CR3
	movl	$FRAME + 0x1007, TABLE_2 + 4
	invlpg	WINDOW + 0x1000
	lcall	$SEL_TSS_B, $0
	jmp	1f
2:	REPORT_TR SEL_TSS_B
	iret
1:	REPORT_TR SEL_TSS_32
	DONE_32

/* An error code for a stack that is not there: a page fault of task B. */
	CASE	absent_stack, NOT_KVM
	TO_PROTECTED
	TASK_B	2f
	PAGES
	TASK_GATE 13
	movl	$WINDOW + 0x2000, SYS_TSS_B + T_ESP
	mov	$SEL_END_32, %eax
	HOOK_32	3f
	movw	$SEL_USER_32, SYS_TSS_B + T_CS
	movw	$SEL_USER_DATA, SYS_TSS_B + T_SS
	movw	$SEL_USER_DATA, SYS_TSS_B + T_DS
	movw	$SEL_USER_DATA, SYS_TSS_B + T_ES
	mov	%eax, %fs
	ud2
2:	EXPECT	14, error=6, cr2=(WINDOW+0x1ffc), rip=2b, cs=SEL_USER_32, rsp=(WINDOW+0x2000)
3:	REPORT_TR SEL_TSS_B
	DONE_32

/* The T bit, and what becomes of local breakpoints. */
	CASE	debug, NOT_KVM
	TO_PROTECTED
	TASK_B	2f
	movw	$1, SYS_TSS_B + T_TRAP
	mov	$0x7ff, %eax
	mov	%eax, %db7
	push	$0x102
	popf
	ljmp	$SEL_TSS_B, $0
	ud2
2:	EXPECT	1, rip=2b, fclr=0x10100, dr6=0xffff8ff0
	mov	%db7, %eax
	REPORT_32 %eax
	WANT	0x6aa
	DONE_32

/*
 * RF as the TSS has it: a breakpoint at task B's first instruction is passed, or met. QEMU pushes no RF, and meets it again
 * and again; so does Bochs under KVM.
 */
	CASE	breakpoint, NOT_QEMU | NOT_BOCHS
	TO_PROTECTED
	TASK_B	2f, 0x10002
	mov	$ADDR(2f), %eax
	mov	%eax, %db0
	mov	$0x402, %eax
	mov	%eax, %db7
	ljmp	$SEL_TSS_B, $0
	jmp	1f
2:	nop
	REPORT_TR SEL_TSS_B
	xor	%eax, %eax
	mov	%eax, %db7
	ljmp	$SEL_TSS_32, $0
1:	movl	$ADDR(2b), SYS_TSS_B + T_EIP
	movl	$2, SYS_TSS_B + T_EFLAGS
	mov	$0x402, %eax
	mov	%eax, %db7
	ljmp	$SEL_TSS_B, $0
	jmp	1f
	EXPECT	1, rip=2b, dr6=0xffff0ff1
	WANT	SEL_TSS_B
1:	DONE_32

/* A task in virtual-8086 mode, and out of it through a task gate; back into it by IRET. */
	CASE	v86, NOT_QEMU_MOVED
	TO_PROTECTED
	TASK_B	2f, 0x23002
	movl	$2f - image_start + 0x10, SYS_TSS_B + T_EIP
	movl	$0x1000, SYS_TSS_B + T_ESP
	movw	$0xffff, SYS_TSS_B + T_CS
	movw	$0x4f00, SYS_TSS_B + T_SS
	movw	$0x1234, SYS_TSS_B + T_DS
	TASK_GATE 0x85, 0xe5, SEL_TSS_32
	ljmp	$SEL_TSS_B, $0
	jmp	1f
	.set	WORLD, -0xffff0
	.code16
2:	mov	%ds, %cx
	int3
4:	EXPECT	3, rip=4b, cs=0xffff, ss=0x4f00, rsp=0x1000, fset=0x23000, hrsp=(SYS_STACK_RSP0-16)
	mov	$0x5678, %ax
	mov	%ax, %ds
	int	$0x85
3:	ud2
	EXPECT	6, rip=3b, cs=0xffff, fset=0x23000
	.set	WORLD, 0
	.code32
1:	HOOK_32	1f
	iret
1:	REPORT_TR SEL_TSS_B
	REPORT_WORD SYS_TSS_B + T_DS, 0x5678
	REPORT_WORD SYS_TSS_B + T_CS, 0xffff
	REPORT_WORD SYS_TSS_B + T_ECX, 0x1234
	REPORT_WORD SYS_TSS_32 + T_LINK, SEL_TSS_B
	REPORT_TYPES 0x89, 0x8b
	DONE_32

	END_IMAGE tasks
