/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small guests of cases_*.c, each loaded at 0x1000. They talk by ports: what they write to OUT is recorded,
 * the others ask the test for something.
 */
#include "tests/engine/guest.inc"

#define OUT	0x10	/* record this */
#define ASK	0x11	/* "now", whatever the test means by it */
#define IN	0x20

	.macro	SAY value	/* clobbers al */
	mov	$\value, %al
	out	%al, $OUT
	.endm

	.section .rodata

/* Real mode: port input and output of all sizes, HLT and on. */
	.code16
	GUEST	real
	mov	$0x1234, %ax
	add	$0x1111, %ax
	out	%ax, $OUT
	in	$IN, %al
	inc	%al
	out	%al, $OUT
	in	$IN, %eax
	not	%eax
	out	%eax, $OUT
	hlt
	SAY	0x77
	hlt
	END	real

/* 32-bit code with PAE's paging, entered as the test has it: what is at 2 GiB, which the third entry leads to. */
	.code32
	GUEST	pae
1:	mov	0x80005000, %eax
	out	%eax, $OUT
	out	%al, $ASK
	jmp	1b
	END	pae
	.code16

/* String I/O. */
	GUEST	strings
	cld
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	$AT(1f), %si
	mov	$5, %cx
	mov	$OUT, %dx
	rep outsb
	mov	$0x6000, %di
	mov	$3, %cx
	mov	$IN, %dx
	rep insw
	mov	$0x6000, %si
	mov	$3, %cx
	mov	$OUT, %dx
	rep outsw
	hlt
1:	.ascii	"eagre"
	END	strings

/* In bytes, since clang's assembler does not know these forms by name in 16-bit code. */
	.macro	FNSTENV16 at
	.byte	0xd9, 0x36
	.word	\at
	.endm
	.macro	FLDENV16 at
	.byte	0xd9, 0x26
	.word	\at
	.endm
	.macro	FNSTENV32 at
	.byte	0x66
	FNSTENV16 \at
	.endm
	.macro	FLDENV32 at
	.byte	0x66
	FLDENV16 \at
	.endm

/* Real mode: x87's pointers there and back, in environments of both widths. Says the words that have them. */
	GUEST	x87_real
	xor	%ax, %ax
	mov	%ax, %ds
	fninit
	FNSTENV16 0x6000
	movw	$0x1234, 0x6006		/* instruction 0x91234, opcode 0x567, operand 0xa4321 */
	movw	$0x9567, 0x6008
	movw	$0x4321, 0x600a
	movw	$0xa000, 0x600c
	FLDENV16 0x6000
	FNSTENV32 0x6040
	FNSTENV16 0x6080
	.irp	at, 0x604c, 0x6054, 0x6086, 0x6088, 0x608a, 0x608c
	mov	\at, %ax
	out	%ax, $OUT
	.endr
	.irp	at, 0x6050, 0x6058
	mov	\at, %eax
	out	%eax, $OUT
	.endr
	movl	$0x10123, 0x6050	/* above 1 MiB */
	FLDENV32 0x6040
	FNSTENV32 0x6080
	mov	0x6090, %eax
	out	%eax, $OUT
	hlt
	END	x87_real

/* From real mode to protected mode. */
	.code16
	GUEST	protected
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	AT(9f)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$8, $AT(1f)
	.code32
1:	mov	$16, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x80000, %esp
	call	2f
	mov	%esp, %eax
	out	%eax, $OUT
	hlt
2:	push	$0x12345678
	pop	%eax
	out	%eax, $OUT
	ret
	.balign	8
8:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
9:	.word	23
	.long	AT(8b)
	END	protected

/* From real mode to long mode; the test has built page tables at 0x10000. */
	.code16
	GUEST	long
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	AT(9f)
	mov	$0x20, %eax
	mov	%eax, %cr4
	mov	$0x10000, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	$0x80000011, %eax
	mov	%eax, %cr0
	ljmpl	$8, $AT(1f)
	.code64
1:	mov	$16, %eax
	mov	%eax, %ss
	mov	$0x80000, %esp
	movabs	$0x123456789abcdef0, %rax
	push	%rax
	pop	%rbx
	mov	%rbx, %rax
	out	%eax, $OUT
	shr	$32, %rax
	out	%eax, $OUT
	hlt
	.balign	8
8:	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff
9:	.word	23
	.long	AT(8b)
	END	long

/* From here on guests start in long mode, with IDT, GDT and a stack. */
	.code64

	GUEST	mmio
	mov	$0xfed00000, %ebx
	movl	$0x11223344, (%rbx)
	mov	8(%rbx), %rax
	out	%eax, $OUT
	shr	$32, %rax
	out	%eax, $OUT
	movb	$0x55, 3(%rbx)
	movzwl	6(%rbx), %eax
	out	%eax, $OUT
	movabs	$0x0102030405060708, %rax
	mov	%rax, 16(%rbx)
	hlt
	END	mmio

/* A load from a device under TF, with IF: says 1 and 2 in the trap's handler at 0x20, 40h at 0x50, and 3 behind. */
	GUEST	trap_mmio
	jmp	1f
	.org	guest_trap_mmio + 0x20
	SAY	1
	andq	$~0x100, 16(%rsp)
	SAY	2
	iretq
	.org	guest_trap_mmio + 0x50
	SAY	0x40
	iretq
	.org	guest_trap_mmio + 0x80
1:	mov	$0xfed00000, %ebx
	sti
	pushfq
	orq	$0x100, (%rsp)
	popfq
	mov	(%rbx), %ecx
	SAY	3
	hlt
	END	trap_mmio

/* The #GP handler (installed by the test) says 0xbad and skips two bytes: the length of RDMSR and WRMSR. */
	GUEST	msr
	jmp	1f
	.org	guest_msr + 0x10
	push	%rax
	mov	$0xbad, %eax
	out	%eax, $OUT
	pop	%rax
	add	$8, %rsp
	addq	$2, (%rsp)
	iretq
1:	mov	$0x802, %ecx
	rdmsr
	out	%eax, $OUT
	mov	%edx, %eax
	out	%eax, $OUT
	mov	$0x830, %ecx
	mov	$0x000c4500, %eax
	mov	$7, %edx
	wrmsr
	mov	$0x1b, %ecx
	rdmsr
	out	%eax, $OUT
	mov	$0x1b, %ecx
	wrmsr
	mov	$0xdead, %ecx
	rdmsr
	mov	$0x8fe, %ecx
	wrmsr
	mov	$0x8ff, %ecx
	rdmsr
	mov	$0x6e0, %ecx
	mov	$0x1234, %eax
	mov	$1, %edx
	wrmsr
	hlt
	END	msr

/*
 * Interrupts: handler of vector 0x40 at +0x10, of 0x41 at +0x20. Asks for 0x40 with IF clear, so it may come only
 * after the instruction behind STI.
 */
	GUEST	irq
	jmp	1f
	.org	guest_irq + 0x10
	push	%rax
	SAY	0x40
	pop	%rax
	iretq
	.org	guest_irq + 0x20
	push	%rax
	SAY	0x41
	pop	%rax
	iretq
1:	mov	$100, %ecx
2:	cli
	out	%al, $ASK
	SAY	1
	sti
	nop
	SAY	2
	dec	%ecx
	jnz	2b
	sti
	hlt
	SAY	3
	cli
	hlt
	END	irq

/* NMI handler at +0x10: the first one asks for another, which has to wait for IRET. */
	GUEST	nmi
	jmp	1f
	.org	guest_nmi + 0x10
	push	%rax
	SAY	0xe
	test	%ebx, %ebx
	jnz	2f
	inc	%ebx
	out	%al, $ASK
	nop
	nop
2:	SAY	0xf
	pop	%rax
	iretq
1:	xor	%ebx, %ebx
	out	%al, $ASK
	nop
	nop
	nop
	nop
	SAY	1
	hlt
	END	nmi

/* Started by SIPI at any page. */
	.code16
	GUEST	sipi
	mov	%cs, %ax
	out	%ax, $OUT
	hlt
	END	sipi
	.code64

	GUEST	triple
	lidt	AT(1f)
	ud2
1:	.word	0
	.quad	0
	END	triple

/*
 * Work to be moved about in the middle of: registers, flags, stack, memory, FS, then SSE or AVX. Every OUT depends
 * on all that came before.
 */
	.macro	MIX
	imul	%r13, %r12
	add	%r14, %r12
	adc	%rbx, %rbx
	rol	$13, %r12
	xor	%fs:0x100, %r12
	mov	%r12, %fs:0x100
	push	%r12
	xor	%rbx, %r12
	pop	%rsi
	lea	(%rsi, %r12), %r14
	.endm

	.macro	MIX_BEGIN
	movabs	$0x5851f42d4c957f2d, %r13
	mov	$1, %r12d
	mov	$7, %r14d
	mov	$40, %r15d
	.endm

	GUEST	work
	MIX_BEGIN
1:	mov	$20, %ecx
2:	MIX
	dec	%ecx
	jnz	2b
	mov	%r12, %rax
	out	%eax, $OUT
	dec	%r15d
	jnz	1b
	hlt
	END	work

	GUEST	work_sse
	MIX_BEGIN
	fldpi
	fld1
1:	mov	$20, %ecx
2:	MIX
	movq	%r12, %xmm0
	paddq	%xmm0, %xmm7
	pxor	%xmm7, %xmm15
	pshufd	$0x1b, %xmm15, %xmm3
	paddd	%xmm3, %xmm7
	fadd	%st(1), %st
	dec	%ecx
	jnz	2b
	fld	%st
	fstpl	0x7000
	movq	%xmm7, %rax
	add	0x7000, %rax
	out	%eax, $OUT
	shr	$32, %rax
	out	%eax, $OUT
	dec	%r15d
	jnz	1b
	hlt
	END	work_sse

	GUEST	work_avx
	MIX_BEGIN
1:	mov	$20, %ecx
2:	MIX
	vmovq	%r12, %xmm0
	vpermq	$0, %ymm0, %ymm1
	vpaddq	%ymm1, %ymm7, %ymm7
	vpxor	%ymm7, %ymm15, %ymm15
	vpermq	$0x1b, %ymm15, %ymm3
	vpaddd	%ymm3, %ymm7, %ymm7
	dec	%ecx
	jnz	2b
	vextracti128 $1, %ymm7, %xmm2
	vmovq	%xmm2, %rax
	out	%eax, $OUT
	dec	%r15d
	jnz	1b
	hlt
	END	work_avx

/* Two that never exit by themselves: with interrupts on, and off. */
	GUEST	spin
	sti
1:	jmp	1b
	END	spin

	GUEST	spin_masked
1:	jmp	1b
	END	spin_masked

/* With interrupts on: jumps for ever between two addresses that a table of jumps may well have only one place for. */
	GUEST	spin_jumps
	sti
	mov	$0x100000, %ebx
	mov	$0x120000, %ecx
	mov	AT(2f), %rax
	mov	%rax, (%rbx)
	mov	%rax, (%rcx)
	jmp	*%rbx
	.balign	8
2:	xchg	%rcx, %rbx
	jmp	*%rbx
	.balign	8
	END	spin_jumps

/* With interrupts on, for Bochs (tests/engine/test-on-rack): rows of pushes and pops, a byte each. */
	GUEST	spin_rows
	sti
1:	.rept	16
	push	%rax
	.endr
	.rept	16
	pop	%rcx
	.endr
	jmp	1b
	END	spin_rows

/*
 * Need the page at 2 MiB, each in its own way, at guest_touch_NAME_at. Then they say something that depends on it, and
 * would not if the instruction had been done by half, or twice.
 */
	.macro	NEEDS name
	.globl	guest_touch_\name\()_at
guest_touch_\name\()_at:
	.endm

	GUEST	touch_read
	NEEDS	read
	mov	0x200000, %eax
	out	%eax, $OUT
	hlt
	END	touch_read

	GUEST	touch_locked
	mov	$1, %eax
	NEEDS	locked
	lock xadd %eax, 0x200000
	add	0x200000, %eax
	out	%eax, $OUT
	hlt
	END	touch_locked

	GUEST	touch_edge		/* its second half */
	movw	$0xffff, 0x1ffffe
	NEEDS	edge
	incl	0x1ffffe
	mov	0x200000, %eax
	out	%eax, $OUT
	hlt
	END	touch_edge

	GUEST	touch_push
	mov	$0x200008, %esp
	mov	$0x77, %ecx
	NEEDS	push
	push	%rcx
	mov	%esp, %eax
	add	0x200000, %eax
	out	%eax, $OUT
	hlt
	END	touch_push

	GUEST	touch_call
	mov	$0x200008, %esp
	NEEDS	call
	call	1f
1:	mov	%esp, %eax
	pop	%rcx
	lea	1b(%rip), %rdx
	sub	%ecx, %edx
	add	%edx, %eax
	out	%eax, $OUT
	hlt
	END	touch_call

	GUEST	touch_pop_memory
	push	$0x55
	NEEDS	pop_memory
	pop	0x200010
	mov	%esp, %eax
	add	0x200010, %eax
	out	%eax, $OUT
	hlt
	END	touch_pop_memory

	GUEST	touch_strings		/* four bytes before the page, four in it */
	movl	$0x04030201, 0x1ffffc
	mov	$0x1ffffc, %esi
	mov	$0x60000, %edi
	mov	$8, %ecx
	NEEDS	strings
	rep movsb
	mov	0x60004, %eax
	add	%edi, %eax
	add	%ecx, %eax
	out	%eax, $OUT
	hlt
	END	touch_strings

	GUEST	touch_shadow		/* likewise, behind an STI: no interrupt may come before it */
	movl	$0x04030201, 0x1ffffc
	mov	$0x1ffffc, %esi
	mov	$0x60000, %edi
	mov	$8, %ecx
	sti
	NEEDS	shadow
	rep movsb
	mov	0x60004, %eax
	add	%edi, %eax
	add	%ecx, %eax
	out	%eax, $OUT
	cli
	hlt
	END	touch_shadow

	GUEST	touch_x87
	fninit
	fldpi
	fld1
	NEEDS	x87
	faddl	0x200008
	fnstsw	%ax
	and	$0x3800, %eax
	out	%eax, $OUT
	hlt
	END	touch_x87

	GUEST	touch_table		/* the page is a page directory: 1 GiB leads there */
	movq	$0x200003, 0x11008
	NEEDS	table
	mov	0x40001000, %eax
	cmp	%eax, 0x1000
	setz	%al
	movzbl	%al, %eax
	out	%eax, $OUT
	hlt
	END	touch_table

	GUEST	touch_table_locked
	movq	$0x200003, 0x11008
	movl	$5, 0x60000
	mov	$7, %ecx
	NEEDS	table_locked
	lock xadd %ecx, 0x40060000
	mov	0x60000, %eax
	out	%eax, $OUT
	hlt
	END	touch_table_locked

	GUEST	touch_descriptor	/* the page is the GDT */
	lgdt	1f(%rip)
	mov	$16, %eax
	NEEDS	descriptor
	mov	%eax, %es
	mov	%es, %eax
	out	%eax, $OUT
	hlt
1:	.word	23
	.quad	0x200000
	END	touch_descriptor

	GUEST	touch_ltr		/* the page begins with the second half of the TSS's descriptor */
	movabs	$0x0000890220000067, %rax
	mov	%rax, 0x1ffff8
	lgdt	1f(%rip)
	mov	$16, %eax
	NEEDS	ltr
	ltr	%ax
	str	%eax
	movzbl	0x1ffffd, %ecx		/* its type: busy */
	shl	$8, %ecx
	or	%ecx, %eax
	out	%eax, $OUT
	hlt
1:	.word	31
	.quad	0x1fffe8
	END	touch_ltr

/* The page is the stack of a fault: what that leaves in CR2, DR6 and DR7 must not be there if it is broken off. */
	GUEST	touch_fault
	mov	$0x200800, %esp
	mov	$0x40000000, %ebx
	NEEDS	fault
	mov	(%rbx), %eax
	hlt
	.org	guest_touch_fault + 0x100
	mov	%cr2, %rax
	out	%eax, $OUT
	hlt
	END	touch_fault

/* The page is the stack of INT n: that is done once, and comes back behind it. */
	GUEST	touch_int
	mov	$0x200800, %esp
	xor	%ebx, %ebx
	NEEDS	int
	int	$0x40
	lea	0x100(%rbx), %eax
	out	%eax, $OUT
	hlt
	.org	guest_touch_int + 0x100
	lea	guest_touch_int_at(%rip), %rcx
	mov	(%rsp), %eax
	sub	%ecx, %eax
	shl	$16, %eax
	lea	1(%rbx, %rax), %ebx
	iretq
	END	touch_int

/*
 * Like touch_fault, and the instruction has changed its own source before it faults: 16-bit ENTER, at 1 GiB where the page is,
 * too, copies 2222h and then writes 1111h over it; and below its frame nothing is there.
 */
	GUEST	touch_enter
	movq	$0x14003, 0x11008
	movq	$0x200083, 0x14000
	movq	$0, 0x12ff8
	mov	$0x40001008, %esp
	lea	-4(%rsp), %rbp
	movl	$0x22221111, -8(%rsp)
	NEEDS	enter
	.byte	0x66
	enter	$0x1010, $3
	hlt
	.org	guest_touch_enter + 0x100
	movzwl	0x40001004, %eax
	out	%eax, $OUT
	hlt
	END	touch_enter

	GUEST	touch_debug
	mov	$0x200800, %esp
	mov	$0x2400, %eax		/* GD */
	mov	%rax, %db7
	NEEDS	debug
	mov	%rax, %db0
	hlt
	.org	guest_touch_debug + 0x100
	mov	%db6, %rax
	out	%eax, $OUT
	hlt
	END	touch_debug

/* Says its TSC for ever, high half first (recorded with the low half's write). */
	.macro	SAY_TSC
1:	rdtsc
	mov	%eax, %ebx
	mov	%edx, %eax
	out	%eax, $OUT
	mov	%ebx, %eax
	out	%eax, $OUT
	jmp	1b
	.endm
	GUEST	tsc
	SAY_TSC
	END	tsc

/* Adds 2^40 to its TSC, then as above. */
	GUEST	tsc_adjust
	mov	$0x3b, %ecx
	xor	%eax, %eax
	mov	$0x100, %edx
	wrmsr
	SAY_TSC
	END	tsc_adjust

/* Arms the TSC deadline behind an adjustment of -1. */
	GUEST	tsc_deadline
	mov	$0x3b, %ecx
	mov	$-1, %eax
	mov	$-1, %edx
	wrmsr
	mov	$0x6e0, %ecx
	mov	$5, %eax
	xor	%edx, %edx
	wrmsr
	hlt
	END	tsc_deadline

	GUEST	cr8
	mov	$5, %eax
	mov	%rax, %cr8
	out	%al, $ASK
	mov	%cr8, %rax
	out	%al, $OUT
	mov	$2, %eax
	mov	%rax, %cr8
	SAY	0x33
	hlt
	END	cr8

/* CPUID of the leaf and sub-leaf that two reads of IN give, for ever. */
	GUEST	cpuid
1:	in	$IN, %eax
	mov	%eax, %esi
	in	$IN, %eax
	mov	%eax, %ecx
	mov	%esi, %eax
	cpuid
	out	%eax, $OUT
	mov	%ebx, %eax
	out	%eax, $OUT
	mov	%ecx, %eax
	out	%eax, $OUT
	mov	%edx, %eax
	out	%eax, $OUT
	jmp	1b
	END	cpuid

	.code64
/* Each MSR from ecx on, ebx of them: index and value of those that can be read. */
	GUEST	rdmsrs
1:	xor	%ebp, %ebp
	rdmsr
	test	%ebp, %ebp
	jnz	2f
	mov	%eax, %esi
	mov	%ecx, %eax
	out	%eax, $OUT
	mov	%esi, %eax
	out	%eax, $OUT
	mov	%edx, %eax
	out	%eax, $OUT
2:	inc	%ecx
	dec	%ebx
	jnz	1b
	hlt
	.org	guest_rdmsrs + 0x100	/* #GP: behind the instruction */
	inc	%ebp
	add	$8, %rsp
	addq	$2, (%rsp)
	iretq
	END	rdmsrs

/* edi:esi into MSR ecx, and what is there then. */
	GUEST	wrmsr
	mov	%esi, %eax
	mov	%edi, %edx
	wrmsr
	rdmsr
	out	%eax, $OUT
	mov	%edx, %eax
	out	%eax, $OUT
	hlt
	.org	guest_wrmsr + 0x100
	add	$8, %rsp
	addq	$2, (%rsp)
	iretq
	END	wrmsr

	.section .note.GNU-stack, "", @progbits
