/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When interrupts and NMIs come, and what they interrupt (SDM vol. 3, 6.8 and 6.7.1; APM vol. 2, 8). ASK sends what al
 * says: an interrupt of that vector as soon as it can be taken, or an NMI (2). The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

#define ASK	0x11

	.macro	SEND vector
	mov	$\vector, %al
	out	%al, $ASK
	.endm

	IMAGE	interrupts
gate_target:
	DONE

	CASE	sti_shadow
	SEND	0x50
	sti
	nop
1:	EXPECT	0x50, rip=1b, fset=0x200, hclr=0x200, hrsp=SYS_STACK
	nop
	cli
	SEND	0x51
	sti			/* a shadow that CLI ends */
	cli
	nop
	sti			/* a second STI has none */
	sti
	EXPECT	0x51
	nop
	cli
	DONE

/* On QEMU this one needs qemu_lost_shadow() (system.c) most often; with soft nearly always. */
	CASE	sti_loop, NOT_QEMU_WITH
	mov	$20, %ebx
	.set	N, 0
2:	SEND	0x50
	sti
	mov	$7, %ecx
1:	cli
	dec	%ebx
	jnz	2b
	.rept	20
	EXPECT	0x50, rip=1b
	.endr
	REPORT	%rcx
	WANT	7
	DONE

/* POPF and IRET have no shadow. */
	CASE	popf
	SEND	0x50
	pushq	$0x202
	popfq
1:	nop
	EXPECT	0x50, rip=1b
	cli
	SEND	0x51
	pushq	$SEL_DATA
	pushq	$SYS_STACK
	pushq	$0x202
	pushq	$SEL_CODE
	pushq	$ADDR(1f)
	iretq
1:	nop
	EXPECT	0x51, rip=1b
	cli
	DONE

/* With IF set, right behind the OUT. */
	CASE	at_once
	mov	$0x50, %al
	sti
	nop
	out	%al, $ASK
1:	nop
	EXPECT	0x50, rip=1b
	mov	$0x51, %al
	out	%al, $ASK
1:	cli
	EXPECT	0x51, rip=1b
	DONE

	CASE	user
	SEND	0x50
	TO_USER	0x202
1:	nop
	EXPECT	0x50, rip=74b, cs=SEL_USER_CODE, hrsp=SYS_STACK_RSP0
	DONE

	CASE	sysret
	SEND	0x50
	mov	$ADDR(1f) + USER, %ecx
	mov	$0x202, %r11d
	sysretq
1:	.set	WORLD, USER
	nop
	EXPECT	0x50, rip=1b, cs=SEL_USER_CODE
	DONE

	CASE	own_stack
	movb	$2, SYS_IDT + 0x50 * 16 + 4
	SEND	0x50
	sti
	nop
1:	EXPECT	0x50, rip=1b, hrsp=SYS_STACK_IST2
	cli
	DONE

	CASE	wakes_hlt
	SEND	0x50
	sti
	hlt
1:	EXPECT	0x50, rip=1b, fset=0x200
	cli
	mov	$2, %al
	out	%al, $ASK
	nop
	EXPECT	2
	REPORT	%rax
	WANT	2
	DONE

/* NMI: whatever IF is; a second one waits for IRET, any IRET. */
	CASE	nmi
	SEND	2
	nop
	EXPECT	2, hclr=0x200, fclr=0x200
	DONE

	CASE	nmi_masked
	HOOK	3f
	SEND	2
	nop
	EXPECT	2
	WANT	1
	EXPECT	0x41, rip=4f
	EXPECT	2, rip=5f
	WANT	2
	REPORT	%rbx
	WANT	1
	DONE
3:	SEND	2		/* in the NMI's handler */
	nop
	nop
	mov	$1, %eax
	REPORT	%rax
	xor	%ebx, %ebx
	int	$0x41		/* whose IRET ends the masking */
4:
5:	inc	%ebx
	mov	$2, %eax
	REPORT	%rax
	ret

/* Two more in its handler are one. */
	CASE	nmi_one_kept
	HOOK	3f
	xor	%ebx, %ebx
	SEND	2
	nop
	EXPECT	2
	EXPECT	2
	nop
	REPORT	%rbx
	WANT	1
	DONE
3:	inc	%ebx
	SEND	2
	nop
	SEND	2
	nop
	ret

/* Both due behind the OUT: the NMI first, the interrupt behind its IRET and not within it. */
	CASE	nmi_first
	SEND	0x50
	mov	$2, %al
	sti
	out	%al, $ASK
1:	cli
	EXPECT	2, rip=1b, fset=0x200
	EXPECT	0x50, rip=1b, fset=0x200
	DONE

	CASE	nmi_stack
	movb	$1, SYS_IDT + 2 * 16 + 4
	movb	$2, %al
	TO_USER
	HOOK	1f
	ud2
	EXPECT	6
	EXPECT	2, hrsp=SYS_STACK_IST1, cs=SEL_CODE
	DONE
	.set	WORLD, 0
1:	SEND	2
	nop
	movq	$ADDR(1f) + USER, 48 + 8(%rsp)
	ret
1:	.set	WORLD, USER
	DONE

/* An interrupt that is pending over a fault comes in the handler only if that allows it. */
	CASE	fault_first
	movb	$0x8f, SYS_IDT + 6 * 16 + 5	/* #UD by a trap gate */
	SEND	0x50
	RESUME	2f
	sti
1:	ud2
	EXPECT	0x50, cs=SEL_CODE, rip=stubs+96, rsp=(SYS_STACK-40)	/* before the handler's first instruction */
2:	cli
	DONE

/* Interrupts whose gate is absent: each is a fault, and none of these is lost, however its delivery is broken off. */
	CASE	absent_gate
	andb	$0x7f, SYS_IDT + 16 * 0x51 + 5
	mov	$150, %ecx
1:	mov	$0x51, %al
	out	%al, $ASK
	sti
	nop
	cli
	dec	%ecx
	jnz	1b
	.rept	150
	EXPECT	11, error=0x51*8+3
	.endr
	DONE

	END_IMAGE interrupts
