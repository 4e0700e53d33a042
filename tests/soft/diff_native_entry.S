/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Into a random state and back: see diff_native.c, which owns the variables named here.
 * struct diff_native_frame: ds, bases of fs and gs, r15..rax without rsp (15 words), and what iretq takes:
 * rip, cs, rflags, rsp, ss.
 */
#include <asm/prctl.h>
#include <sys/syscall.h>

	.text

/* void diff_native_enter(struct diff_native_frame *frame, const void *xsave, uint64_t mask) */
	.globl diff_native_enter
	.type diff_native_enter, @function
diff_native_enter:
	push %rbp
	push %rbx
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, diff_native_host_rsp(%rip)
	mov %edx, %eax
	xor %edx, %edx
	xrstor64 (%rsi)
	mov (%rdi), %rax
	mov %eax, %ds
	mov %eax, %es
	xor %eax, %eax	/* a sequence before may have loaded selectors */
	mov %eax, %fs
	mov %eax, %gs
	mov %rdi, %r12
	mov 8(%r12), %rsi
	call set_fs_base
	mov 16(%r12), %rsi
	call set_gs_base
	lea 24(%r12), %rdi
	mov %rdi, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	iretq
	.size diff_native_enter, . - diff_native_enter

/* Where a signal handler that has seen the end of a sequence returns to, on the host's stack. */
	.globl diff_native_leave
	.type diff_native_leave, @function
diff_native_leave:
	push $2		/* sigreturn leaves NT as it is, and with it no iretq works */
	popfq
	fninit
	ldmxcsr default_mxcsr(%rip)
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbx
	pop %rbp
	ret
	.size diff_native_leave, . - diff_native_leave

/*
 * Every signal's handler. FS is the guest's until it is restored here, so nothing that uses
 * thread-local storage may run before. AC must not be set in C, either.
 */
	.globl diff_native_signal
	.type diff_native_signal, @function
diff_native_signal:
	pushfq
	andq $~0x40000, (%rsp)
	popfq
	push %rdi
	push %rsi
	push %rdx
	call get_bases
	mov diff_native_host_fs_base(%rip), %rsi
	call set_fs_base
	pop %rdx
	pop %rsi
	pop %rdi
	sub $8, %rsp
	call diff_native_on_signal
	add $8, %rsp
	mov diff_native_fs_base(%rip), %rsi
	call set_fs_base
	mov diff_native_gs_base(%rip), %rsi
	jmp set_gs_base
	.size diff_native_signal, . - diff_native_signal

/*
 * The kernel keeps what WRFSBASE has written only if it says that it knows of it (AT_HWCAP2); else it
 * has to be asked. Hosts that are paravirtual machines execute WRFSBASE and do not keep it. Base in
 * rsi; rax, rcx, rdi and r11 are gone.
 */
set_fs_base:
	cmpb $0, diff_native_keeps_bases(%rip)
	je 1f
	wrfsbase %rsi
	ret
1:	mov $ARCH_SET_FS, %edi
	jmp arch_prctl
set_gs_base:
	cmpb $0, diff_native_keeps_bases(%rip)
	je 1f
	wrgsbase %rsi
	ret
1:	mov $ARCH_SET_GS, %edi
	jmp arch_prctl
/* Into diff_native_fs_base and diff_native_gs_base. */
get_bases:
	cmpb $0, diff_native_keeps_bases(%rip)
	je 1f
	rdfsbase %rax
	mov %rax, diff_native_fs_base(%rip)
	rdgsbase %rax
	mov %rax, diff_native_gs_base(%rip)
	ret
1:	lea diff_native_fs_base(%rip), %rsi
	mov $ARCH_GET_FS, %edi
	call arch_prctl
	lea diff_native_gs_base(%rip), %rsi
	mov $ARCH_GET_GS, %edi
arch_prctl:
	mov $SYS_arch_prctl, %eax
	syscall
	ret

	.section .rodata
	.balign 4
default_mxcsr:
	.long 0x1f80

	.section .note.GNU-stack, "", @progbits
