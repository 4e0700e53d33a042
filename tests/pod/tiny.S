/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest kernel: a bzImage of 2 KiB that does one thing, named by the last character of its
 * command line (--append), so that a pod can be tested without waiting for a Linux to boot; it runs even
 * where KVM emulates every instruction.
 *
 *   p   says "tiny: up" on the console and powers off       r   resets cold, as a reboot does
 *   t   triple fault on vCPU 0                              k   panics: says so, resets warm
 *   w   resets warm
 *   T   starts vCPU 1, which makes a triple fault           h   halts for ever, interrupts off
 *   s   starts vCPU 1, and both write one page for ever     b   is busy for ever on vCPU 0
 *   c   says "tiny: up", and waits for a character on the console: r resets cold, t and T make a triple
 *       fault as above, i sends vCPU 0 an INIT, another powers off
 *   B   powers off when the power button is pressed         I   wants to know of it, and does nothing
 *   m   counts in registers and memory for 2^36 ticks of the TSC, and powers off as p does; or panics
 *       where they differ or the TSC has gone back
 *
 * Entered by the 64-bit boot protocol: rsi is boot_params, memory is mapped one to one, x2APIC is on.
 */
#define CONSOLE		0x3f8
#define PM_STATUS	0x600
#define PM_ENABLE	0x602
#define PM_CONTROL	0x604
#define POWER_BUTTON	0x100
#define SLEEP_S5	((5 << 10) | (1 << 13))
#define RESET_PORT	0xcf9
#define X2APIC_ICR	0x830
#define ICR_INIT	0x4500
#define ICR_START	0x4600
#define LINE_STATUS	0x3fd
#define KERNEL_GS_BASE	0xc0000102
#define AP_PAGE		0x7
#define AP_BYTES	128
#define SHARED_GPA	0x3000
#define LOAD_GPA	0x1000000

	.code16
	.globl _start
_start:
	.org 0x1f1
	.byte 1			/* setup sectors after the first */
	.word 0
	.long (end - payload) / 16
	.word 0, 0, 0
	.word 0xaa55
	.byte 0xeb, 0x66	/* a jump that says where the header ends */
	.ascii "HdrS"
	.word 0x020f		/* boot protocol 2.15 */
	.org 0x211
	.byte 1			/* loaded high */
	.org 0x22c
	.long 0x7fffffff	/* initrd at most here */
	.long 0x200000		/* alignment */
	.byte 1, 21
	.word 1			/* has a 64-bit entry */
	.long 2047		/* command line */
	.org 0x258
	.quad LOAD_GPA
	.long 0x100000		/* room it needs */
	.org 0x400
payload:
	.code64
	.org 0x600
entry:
	mov $0x6000, %esp
	mov 0x228(%rsi), %ebx
1:	mov %al, %cl		/* the last character, when al becomes 0 */
	mov (%rbx), %al
	inc %rbx
	test %al, %al
	jnz 1b
	cmp $'p', %cl
	je power_off
	cmp $'r', %cl
	je reset_cold
	cmp $'k', %cl
	je panic
	cmp $'w', %cl
	je reset_warm
	cmp $'t', %cl
	je triple_fault
	cmp $'T', %cl
	je other_triple_fault
	cmp $'s', %cl
	je stall
	cmp $'b', %cl
	je busy
	cmp $'m', %cl
	je count
	cmp $'c', %cl
	je character
	cmp $'B', %cl
	je button
	cmp $'I', %cl
	je ignore
halt:
	cli
	hlt
	jmp halt

ignore:
	mov $PM_ENABLE, %edx
	mov $POWER_BUTTON, %eax
	out %ax, %dx
	jmp halt
button:
	mov $PM_ENABLE, %edx
	mov $POWER_BUTTON, %eax
	out %ax, %dx
	mov $PM_STATUS, %edx
1:	pause
	in %dx, %ax
	test $POWER_BUTTON, %eax
	jz 1b
	jmp power_off

character:
	call say
	mov $LINE_STATUS, %edx
1:	pause
	in %dx, %al
	test $1, %al
	jz 1b
	mov $CONSOLE, %edx
	in %dx, %al
	cmp $'r', %al
	je reset_cold
	cmp $'t', %al
	je triple_fault
	cmp $'T', %al
	je other_triple_fault
	cmp $'i', %al
	je init
	jmp off

init:
	mov $X2APIC_ICR, %ecx
	xor %edx, %edx
	mov $ICR_INIT, %eax
	wrmsr
	jmp halt

say:
	lea text(%rip), %rsi
	mov $(text_end - text), %ecx
	mov $CONSOLE, %edx
1:	lodsb
	out %al, %dx
	dec %ecx
	jnz 1b
	ret

power_off:
	call say
off:	mov $PM_CONTROL, %edx
	mov $SLEEP_S5, %eax
	out %ax, %dx
	jmp halt

panic:
	lea panic_text(%rip), %rsi
	mov $(panic_text_end - panic_text), %ecx
	mov $CONSOLE, %edx
1:	lodsb
	out %al, %dx
	dec %ecx
	jnz 1b
	jmp reset_warm
reset_cold:
	mov $0x0e, %al
	jmp 1f
reset_warm:
	mov $0x06, %al
1:	mov $RESET_PORT, %edx
	out %al, %dx
	jmp halt

triple_fault:
	lidt no_table(%rip)
	ud2

other_triple_fault:
	lea ap_fault(%rip), %rsi
	mov %cr3, %rax
	mov %eax, (ap_cr3 - ap_fault)(%rsi)
	sgdt (ap_gdt - ap_fault)(%rsi)
	call start_other
	jmp halt

stall:
	lea ap_write(%rip), %rsi
	call start_other
1:	incl SHARED_GPA
	pause
	jmp 1b

busy:
	pause
	jmp busy

count:
	mov %cr4, %rax
	or $0x600, %eax
	mov %rax, %cr4
	mov %cr0, %rax
	and $~4, %eax
	mov %rax, %cr0
	mov $KERNEL_GS_BASE, %ecx
	mov $0x12345678, %eax
	mov $0x1234, %edx
	wrmsr
	mov $1, %eax
	movq %rax, %xmm4
	xor %r12d, %r12d
	movq %r12, %xmm3
	mov %r12, SHARED_GPA
	xor %ebx, %ebx
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, %r14
	mov $1, %edx
	shl $36, %rdx
	add %rdx, %r14
1:	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	cmp %rbx, %rax
	jbe panic
	mov %rax, %rbx
	inc %r12
	paddq %xmm4, %xmm3
	movq %xmm3, %rax
	cmp %r12, %rax
	jne panic
	incq SHARED_GPA
	cmp %r12, SHARED_GPA
	jne panic
	test $0xffff, %r12d
	jnz 1b
	mov $LINE_STATUS, %edx
	in (%dx), %al
	mov $KERNEL_GS_BASE, %ecx
	rdmsr
	cmp $0x12345678, %eax
	jne panic
	cmp $0x1234, %edx
	jne panic
	cmp %r14, %rbx
	jb 1b
	jmp power_off

/* Copies AP_BYTES of real-mode code from rsi to AP_PAGE and sends INIT and SIPI to vCPU 1. */
start_other:
	mov $(AP_PAGE << 12), %edi
	mov $(AP_BYTES / 4), %ecx
1:	mov (%rsi), %eax
	mov %eax, (%rdi)
	add $4, %rsi
	add $4, %rdi
	dec %ecx
	jnz 1b
	mov $X2APIC_ICR, %ecx
	mov $1, %edx
	mov $ICR_INIT, %eax
	wrmsr
	mov $(ICR_START | AP_PAGE), %eax
	wrmsr
	ret

/* At offset 0 of its segment, AP_PAGE << 8: to 64-bit mode with vCPU 0's tables, and there the fault. */
	.code16
	.balign 4
ap_fault:
	lgdtl %cs:(ap_gdt - ap_fault)
	mov $0x20, %eax
	mov %eax, %cr4
	mov %cs:(ap_cr3 - ap_fault), %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000001, %eax
	mov %eax, %cr0
	ljmpl $0x10, $(LOAD_GPA + triple_fault - payload)
	.balign 4
ap_cr3:	.long 0
ap_gdt:	.word 0
	.quad 0
	.balign 4
ap_write:
	xor %ax, %ax
	mov %ax, %ds
1:	incl SHARED_GPA
	pause
	jmp 1b
	.skip AP_BYTES

	.code64
no_table:
	.word 0
	.quad 0
text:
	.ascii "tiny: up\n"
text_end:
panic_text:
	.ascii "Kernel panic - tiny\n"
panic_text_end:
	.balign 512
end:
