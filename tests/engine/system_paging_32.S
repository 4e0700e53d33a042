/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paging without long mode: 32-bit tables, with and without pages of 4 MiB, and PAE's (SDM vol. 3, 4.3, 4.4, 4.7;
 * APM vol. 2, 5.2). The language: system_protected.inc.
 */
#include "tests/engine/system_protected.inc"

#define P 1
#define W 2
#define U 4
#define A 0x20
#define D 0x40
#define PS 0x80

#define TABLES	(SYS_FREE_TABLES)	   /* page directory, or PAE's 4 entries */
#define TABLE_1 (SYS_FREE_TABLES + 0x1000) /* of the memory; PAE: page directory */
#define TABLE_2 (SYS_FREE_TABLES + 0x2000) /* of the window; PAE: of the memory */
#define WINDOW	0x400000
#define PAGE(n) (WINDOW + 0x1000 * (n))
#define FRAME(n) (SYS_DATA + 0x1000 * (n))
#define LARGE	0x800000

	.macro	SET_CR_32 reg, set, clear=0
	mov	%\reg, %eax
	and	$~(\clear), %eax
	or	$(\set), %eax
	mov	%eax, %\reg
	.endm

/* The first 4 MiB as they are; the next by TABLE_2; CR4.PSE as given. */
	.macro	PAGES_32 pse=0
	mov	$TABLE_1, %edi
	mov	$P+W+U, %eax
	mov	$1024, %ecx
1:	stosl
	add	$0x1000, %eax
	loop	1b
	movl	$TABLE_1+P+W+U, TABLES
	movl	$TABLE_2+P+W+U, TABLES + 4
	mov	$TABLES, %eax
	mov	%eax, %cr3
	SET_CR_32 cr4, \pse, 0xa0
	SET_CR_32 cr0, 0x80000000
	.endm

	.macro	PAGE_FAULT_32 error, cr2, code:vararg
	RESUME_32 76f
75:	\code
	EXPECT	14, error=\error, cr2=\cr2, rip=75b
76:
	.endm

	PROTECTED_IMAGE paging_32
gate_target:
gate_32:
gate_16:
	DONE

	CASE	errors, NOT_QEMU_MOVED
	TO_PROTECTED
	PAGES_32
	movl	$FRAME(1)+P, TABLE_2 + 4
	movl	$FRAME(2)+P+W, TABLE_2 + 8
	movl	$FRAME(3)+P+U, TABLE_2 + 12
	movl	$FRAME(4)+P+W+U, TABLE_2 + 16
	PAGE_FAULT_32 0, (PAGE(0)+5), mov PAGE(0)+5, %al
	PAGE_FAULT_32 2, (PAGE(0)+4), mov %al, PAGE(0)+4
	PAGE_FAULT_32 3, PAGE(1), mov %al, PAGE(1)
	PAGE_FAULT_32 0, 0xfffffff0, mov 0xfffffff0, %al
	movl	$0x12345678, FRAME(2)
	mov	PAGE(2), %eax
	REPORT_32 %eax
	WANT	0x12345678
	RESUME_32 1f
	mov	$PAGE(0), %eax
	jmp	*%eax
	EXPECT	14, error=0, rip=(image_start+PAGE(0)-LOAD), cr2=PAGE(0)
1:	TO_RING_3
	mov	PAGE(3), %al
	mov	%al, PAGE(4)
	PAGE_FAULT_32 4, PAGE(0), mov PAGE(0), %al
	PAGE_FAULT_32 6, PAGE(0), mov %al, PAGE(0)
	PAGE_FAULT_32 5, PAGE(2), mov PAGE(2), %al
	PAGE_FAULT_32 7, PAGE(2), mov %al, PAGE(2)
	PAGE_FAULT_32 7, PAGE(3), mov %al, PAGE(3)
	DONE_RING_3

/* Write protection can be off; accessed and dirty bits; an entry next to another in 8 bytes. */
	CASE	bits
	TO_PROTECTED
	PAGES_32
	movl	$FRAME(1)+P, TABLE_2 + 4
	movl	$FRAME(2)+P+W, TABLE_2 + 8
	movl	$FRAME(3)+P+W+U, TABLE_2 + 12
	mov	PAGE(1), %eax
	mov	TABLE_2 + 4, %eax
	REPORT_32 %eax
	WANT	FRAME(1)+P+A
	mov	TABLES + 4, %eax
	REPORT_32 %eax
	WANT	TABLE_2+P+W+U+A
	mov	PAGE(3), %eax
	mov	TABLE_2 + 12, %eax
	REPORT_32 %eax
	WANT	FRAME(3)+P+W+U+A
	mov	%eax, PAGE(2)
	mov	TABLE_2 + 8, %eax
	REPORT_32 %eax
	WANT	FRAME(2)+P+W+A+D
	mov	%eax, PAGE(3)
	mov	TABLE_2 + 12, %eax
	REPORT_32 %eax
	WANT	FRAME(3)+P+W+U+A+D
	SET_CR_32 cr0, 0, 0x10000
	mov	%eax, PAGE(1)
	mov	TABLE_2 + 4, %eax
	REPORT_32 %eax
	WANT	FRAME(1)+P+A+D
	DONE_32

/* INVLPG and writes of CR3; an access across two pages. */
	CASE	changes
	TO_PROTECTED
	PAGES_32
	movl	$FRAME(1)+P+W, TABLE_2
	movl	$0x11111111, FRAME(1)
	movl	$0x22222222, FRAME(2)
	movl	$0x44332211, FRAME(1) + 0xffc
	mov	PAGE(0), %eax
	movl	$FRAME(2)+P+W, TABLE_2
	invlpg	PAGE(0)
	mov	PAGE(0), %eax
	REPORT_32 %eax
	WANT	0x22222222
	movl	$FRAME(1)+P+W, TABLE_2
	mov	%cr3, %eax
	mov	%eax, %cr3
	mov	PAGE(0), %eax
	REPORT_32 %eax
	WANT	0x11111111
	movl	$FRAME(2)+P+W, TABLE_2 + 4
	mov	PAGE(0) + 0xffe, %eax
	REPORT_32 %eax
	WANT	0x22224433
	PAGE_FAULT_32 0, PAGE(2), mov PAGE(1)+0xffe, %eax
	DONE_32

/* Without PAE, EFER.NXE is nothing: no I in error codes. */
	CASE	no_nx
	TO_PROTECTED
	mov	$0xc0000080, %ecx
	mov	$0x800, %eax
	xor	%edx, %edx
	wrmsr
	PAGES_32
	RESUME_32 1f
	mov	$PAGE(0), %eax
	jmp	*%eax
	EXPECT	14, error=0, rip=(image_start+PAGE(0)-LOAD), cr2=PAGE(0)
1:	DONE_32

/* Bit 7 says nothing while CR4.PSE is clear. */
	CASE	no_pse
	TO_PROTECTED
	PAGES_32
	movl	$TABLE_2+P+W+U+PS, TABLES + 4
	movl	$FRAME(1)+P+W, TABLE_2
	mov	%cr3, %eax
	mov	%eax, %cr3
	movl	$0x12345678, FRAME(1)
	mov	PAGE(0), %eax
	REPORT_32 %eax
	WANT	0x12345678
	DONE_32

/* Pages of 4 MiB: bits, rights, a reserved bit, INVLPG of all of it. */
	CASE	large, NOT_QEMU_MOVED
	TO_PROTECTED
	PAGES_32 0x10
	movl	$P+W+PS, TABLES + 8
	movl	$P+PS+U, TABLES + 12
	movl	$0x200000+P+PS+W, TABLES + 16
	movl	$0x12345678, SYS_DATA
	mov	LARGE + SYS_DATA, %eax
	REPORT_32 %eax
	WANT	0x12345678
	mov	TABLES + 8, %eax
	REPORT_32 %eax
	WANT	P+W+PS+A
	mov	%eax, LARGE + 0x3ffffc
	mov	TABLES + 8, %eax
	REPORT_32 %eax
	WANT	P+W+PS+A+D
	mov	0x3ffffc, %eax
	REPORT_32 %eax
	WANT	P+W+PS+A
	PAGE_FAULT_32 3, 0xc00000, mov %al, 0xc00000
	PAGE_FAULT_32 9, 0x1000000, mov 0x1000000, %al
	movl	$0, TABLES + 8
	invlpg	LARGE
	PAGE_FAULT_32 0, (LARGE+0x3ffffc), mov LARGE+0x3ffffc, %eax
	PAGE_FAULT_32 2, (LARGE+SYS_DATA), mov %eax, LARGE+SYS_DATA
	movl	$P+W+PS, TABLES + 8
	TO_RING_3
	mov	0xc00000 + SYS_DATA, %eax
	PAGE_FAULT_32 7, (0xc00000), mov %al, 0xc00000
	PAGE_FAULT_32 5, (LARGE+8), mov LARGE+8, %al
	DONE_RING_3

/* The first 2 MiB by TABLE_2, the next two large, the window by SYS_PT_WINDOW; NX on. */
	.macro	PAGES_PAE
	mov	$TABLE_2, %edi
	mov	$P+W+U, %eax
	mov	$512, %ecx
1:	mov	%eax, (%edi)
	add	$0x1000, %eax
	add	$8, %edi
	loop	1b
	movl	$TABLE_1+P, TABLES
	movl	$TABLE_2+P+W+U, TABLE_1
	movl	$0x200000+P+W+PS, TABLE_1 + 8
	movl	$SYS_PT_WINDOW+P+W+U, TABLE_1 + 16
	mov	$TABLES, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	xor	%edx, %edx
	mov	$0x800, %eax
	wrmsr
	SET_CR_32 cr4, 0x20, 0x80
	SET_CR_32 cr0, 0x80000000
	.endm

	CASE	pae, NOT_QEMU_MOVED
	TO_PROTECTED
	PAGES_PAE
	movl	$FRAME(1)+P, SYS_PT_WINDOW + 8
	movl	$FRAME(2)+P+W+U, SYS_PT_WINDOW + 16
	movl	$0x80000000, SYS_PT_WINDOW + 20
	movl	$FRAME(3)+P+W+U, SYS_PT_WINDOW + 24
	movl	$0x00100000, SYS_PT_WINDOW + 28
	movl	$0x12345678, FRAME(1)
	mov	PAGE(1), %eax
	REPORT_32 %eax
	WANT	0x12345678
	mov	SYS_PT_WINDOW + 8, %eax
	REPORT_32 %eax
	WANT	FRAME(1)+P+A
	mov	%eax, PAGE(2)
	mov	SYS_PT_WINDOW + 16, %eax
	REPORT_32 %eax
	WANT	FRAME(2)+P+W+U+A+D
	PAGE_FAULT_32 0, PAGE(0), mov PAGE(0), %al
	PAGE_FAULT_32 3, PAGE(1), mov %al, PAGE(1)
	PAGE_FAULT_32 9, PAGE(3), mov PAGE(3), %al
	PAGE_FAULT_32 0, 0x40000000, mov 0x40000000, %al
	PAGE_FAULT_32 2, 0xfffffffc, mov %eax, 0xfffffffc
	RESUME_32 1f
	mov	$PAGE(2), %eax
	jmp	*%eax
	EXPECT	14, error=0x11, rip=(image_start+PAGE(2)-LOAD), cr2=PAGE(2)
1:	RESUME_32 1f
	mov	$PAGE(0), %eax
	jmp	*%eax
	EXPECT	14, error=0x10, rip=(image_start+PAGE(0)-LOAD), cr2=PAGE(0)
1:	TO_RING_3
	mov	PAGE(2), %eax
	REPORT_32 %eax
	WANT	FRAME(1)+P+A
	PAGE_FAULT_32 5, PAGE(1), mov PAGE(1), %al
	PAGE_FAULT_32 5, 0x200000, mov 0x200000, %al
	RESUME_32 1f
	mov	$PAGE(2), %eax
	jmp	*%eax
	EXPECT	14, error=0x15, rip=(image_start+PAGE(2)-LOAD), cr2=PAGE(2)
1:	DONE_RING_3

/* The first four entries have no accessed bit; QEMU sets one. */
	CASE	pae_top, NOT_QEMU
	TO_PROTECTED
	PAGES_PAE
	mov	TABLES, %eax
	REPORT_32 %eax
	WANT	TABLE_1+P
	DONE_32

	CASE	pae_large, NOT_QEMU_WITH	/* that sets bits in the first four entries */
	TO_PROTECTED
	PAGES_PAE
	movl	$0x12345678, 0x3ffffc
	mov	TABLE_1 + 8, %eax
	REPORT_32 %eax
	WANT	0x200000+P+W+PS+A+D
	movl	$0+P+W+PS, TABLE_1 + 8
	invlpg	0x200000
	movl	$0x87654321, SYS_DATA
	mov	0x200000 + SYS_DATA, %eax
	REPORT_32 %eax
	WANT	0x87654321
	movl	$0x2000+P+W+PS, TABLE_1 + 8
	invlpg	0x3ff000
	PAGE_FAULT_32 9, (0x200000+SYS_DATA), mov 0x200000+SYS_DATA, %eax
	DONE_32

/* Data and code across 4 GiB go on at 0. */
	CASE	wrap
	TO_PROTECTED
	PAGES_32
	movl	$TABLE_2+P+W+U, TABLES + 4 * 1023
	movl	$FRAME(1)+P+W+U, TABLE_2 + 4 * 1023
	mov	%cr3, %eax
	mov	%eax, %cr3
	movl	$0xf0001fff, SYS_GDT + SEL_DATA_16	/* base 0xfffff000 */
	movl	$0xff4093ff, SYS_GDT + SEL_DATA_16 + 4
	movl	$0xf0001fff, SYS_GDT + SEL_CODE_16
	movl	$0xff409bff, SYS_GDT + SEL_CODE_16 + 4
	mov	$SEL_DATA_16, %eax
	mov	%eax, %fs
	movl	$0x12345678, %fs:0xffe
	mov	FRAME(1) + 0xffc, %eax
	REPORT_32 %eax
	WANT	0x56780000
	mov	0, %eax
	REPORT_32 %eax
	WANT	0x1234
	mov	%fs:0xffd, %eax
	REPORT_32 %eax
	WANT	0x34567800
	movl	$0xabcd, FRAME(2)
	movl	$FRAME(2)+P+W+U, TABLE_1
	invlpg	0
	mov	%fs:0xffe, %eax
	REPORT_32 %eax
	WANT	0xabcd5678
	movl	$0x345678b8, FRAME(1) + 0xffc	/* mov $0x12345678, %eax; lret */
	movl	$0xcb12, 0
	lcall	$SEL_CODE_16, $0xffc
	REPORT_32 %eax
	WANT	0x12345678
	DONE_32

/* The way of a trampoline: out of long mode, 32-bit paging, no paging, and back. */
	CASE	back_to_long_mode
	TO_PROTECTED
	PAGES_32 0x10
	movl	$P+W+PS, TABLES + 8
	mov	LARGE + SYS_DATA, %eax
	SET_CR_32 cr0, 0, 0x80000000
	SET_CR_32 cr4, 0xa0
	mov	$0xc0000080, %ecx
	xor	%edx, %edx
	mov	$0x901, %eax
	wrmsr
	mov	$SYS_PML4, %eax
	mov	%eax, %cr3
	SET_CR_32 cr0, 0x80000000
	mov	%cs, %ebx
	ljmp	$SEL_CODE, $ADDR(1f)
	.code64
1:	movw	$0xfff, SYS_DATA
	movq	$SYS_IDT, SYS_DATA + 2
	lidt	SYS_DATA
	mov	$0xc0000080, %ecx
	rdmsr
	REPORT	%rax
	WANT	0xd01
	REPORT	%rbx
	WANT	SEL_CODE_32
	int	$0x80
1:	EXPECT	0x80, rip=1b, cs=SEL_CODE
	mov	$LARGE, %eax
	PAGE_FAULT 0, LARGE, mov (%rax), %al
	DONE

	END_IMAGE paging_32
