/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What CPUID offers works, and the instructions around time, identity, extended state and atomicity do as the manuals
 * say. The language: system_guest.inc.
 */
#include "tests/engine/system_guest.inc"

	IMAGE	features
gate_target:
	DONE

/* RDTSC and RDTSCP never go back. */
	CASE	tsc
	mov	$2000, %ecx
	rdtsc
	shl	$32, %rdx
	or	%rax, %rdx
	mov	%rdx, %rbx
1:	rdtsc
	shl	$32, %rdx
	or	%rax, %rdx
	cmp	%rbx, %rdx
	jb	2f
	mov	%rdx, %rbx
	loop	1b
2:	REPORT	%rcx
	WANT	0
	mov	%cr4, %rax	/* TSD: ring 0 alone */
	or	$4, %rax
	mov	%rax, %cr4
	rdtsc
	TO_USER
	FAULT	13, 0, rdtsc
	HOOK	3f
	ud2
	EXPECT	6
	.set	WORLD, 0
3:	mov	%cr4, %rax	/* in the same code, later */
	and	$~4, %rax
	mov	%rax, %cr4
	TO_USER
1:	rdtsc
	HOOK	5f
	ud2
	EXPECT	6
	.set	WORLD, 0
5:	mov	%cr4, %rax
	or	$4, %rax
	mov	%rax, %cr4
	mov	$SYS_STACK, %esp
	pushq	$SEL_USER_DATA
	pushq	$SYS_STACK_USER + USER
	pushq	$2
	pushq	$SEL_USER_CODE
	pushq	$ADDR(1b) + USER
	movq	$ADDR(6f) + USER, SYS_RESUME
	iretq
	EXPECT	13, error=0, rip=(1b+USER), cs=SEL_USER_CODE
	.set	WORLD, USER
6:	DONE

/*
 * What RDTSC says lies between what two RDMSRs say, and the other way round; upper halves are cleared; flags stay. rbx:
 * the last one; rbp: how often something was wrong.
 */
	.macro	LATER
	mov	%rax, %r8
	or	%rdx, %r8
	shr	$32, %r8
	neg	%r8
	adc	$0, %rbp
	shl	$32, %rdx
	or	%rax, %rdx
	cmp	%rbx, %rdx
	adc	$0, %rbp
	mov	%rdx, %rbx
	.endm
	.macro	TSC_KEEPS flags, insn
	push	$\flags
	popfq
	mov	$-1, %rax
	mov	$-1, %rdx
	\insn
	pushfq
	pop	%r9
	cld
	xor	$\flags, %r9
	neg	%r9
	adc	$0, %rbp
	LATER
	.endm
	.macro	TSC_AND_MSR name, needs, insn
	CASE	\name, \needs
	xor	%ebp, %ebp
	xor	%ebx, %ebx
	mov	$300, %r12d
1:	TSC_KEEPS 2, \insn
	mov	$0x10, %ecx
	rdmsr
	LATER
	TSC_KEEPS 0xcd7, \insn
	mov	$0x7fffffff, %r9d
	mov	$-1, %rax
	mov	$-1, %rdx
	add	$1, %r9d	/* PF, AF, SF, OF */
	\insn
	pushfq
	pop	%r9
	xor	$0x896, %r9
	neg	%r9
	adc	$0, %rbp
	LATER
	mov	$-1, %rax
	mov	$-1, %rdx
	\insn			/* flags are not read */
	LATER
	mov	$0x10, %ecx
	rdmsr
	LATER
	dec	%r12d
	jnz	1b
	REPORT	%rbp
	WANT	0
	TO_USER
	xor	%ebx, %ebx
	mov	$300, %r12d
1:	TSC_KEEPS 2, \insn
	TSC_KEEPS 0xcd7, \insn
	dec	%r12d
	jnz	1b
	REPORT	%rbp
	WANT	0
	DONE
	.endm
	TSC_AND_MSR tsc_and_msr, 0, rdtsc
	TSC_AND_MSR tscp_and_msr, NEED_RDTSCP, rdtscp

/* Addresses by what RDTSC has changed, and across it. */
	CASE	tsc_addresses, NEED_RDTSCP
	SET_MSR	0xc0000103, SYS_DATA
	movl	$0x11, SYS_DATA + 0x10
	movl	$0x22, SYS_DATA + 0x20
	mov	$20, %ebp
	xor	%ebx, %ebx
	mov	$SYS_DATA, %r10d
	mov	%r10, %rsi
	mov	%r10, %rdi
	mov	$SYS_DATA + 0x1000, %r11d
	mov	$SYS_WINDOW, %ecx	/* nothing is there */
1:	add	0x10(%r10), %ebx
	rdtscp
	add	0x20(%r10), %ebx
	add	0x10(%rsi), %ebx
	add	0x10(%rdi), %ebx
	rdtscp
	add	0x20(%rsi), %ebx
	add	0x20(%rdi), %ebx
	add	0x20(%rcx), %ebx
	and	$0x10, %eax
	sub	$0x1000 - 0x10, %r11
	mov	%r11, %rdx
	add	(%rdx), %ebx
	add	$0x1000 - 0x10, %r11
	rdtsc
	mov	$SYS_DATA, %edx
	add	0x20(%rdx), %ebx
	dec	%ebp
	jnz	1b
	REPORT	%rbx
	WANT	20 * (4 * 0x11 + 5 * 0x22)
	DONE

	CASE	tscp, NEED_RDTSCP
	SET_MSR	0xc0000103, 0x12345
	rdtscp
	REPORT	%rcx
	WANT	0x12345
	TO_USER
	rdtscp
	REPORT	%rcx
	WANT	0x12345
	DONE

	CASE	rdpid, NEED_RDPID
	SET_MSR	0xc0000103, 0x54321
	TO_USER
	rdpid	%rax
	REPORT	%rax
	WANT	0x54321
	DONE

	CASE	cx16, NEED_CX16
	TO_USER
	mov	$SYS_DATA + USER + 0x10, %edi
	mov	$1, %eax
	mov	$2, %edx
	mov	$3, %ebx
	mov	$4, %ecx
	lock cmpxchg16b (%rdi)		/* 0, 0: fails and loads */
	setz	%sil
	movzbl	%sil, %esi
	REPORT	%rsi
	WANT	0
	REPORT	%rax
	WANT	0
	REPORT	%rdx
	WANT	0
	lock cmpxchg16b (%rdi)
	setz	%sil
	movzbl	%sil, %esi
	REPORT	%rsi
	WANT	1
	mov	(%rdi), %rax
	REPORT	%rax
	WANT	3
	mov	8(%rdi), %rax
	REPORT	%rax
	WANT	4
	FAULT	13, 0, lock cmpxchg16b 8(%rdi)
	DONE

/* KVM's own registers: of features that the pod's CPUID does not offer, so nobody's. */
	CASE	pv_msrs
	xor	%eax, %eax
	xor	%edx, %edx
	.irp	msr, 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04
	mov	$\msr, %ecx
	FAULT	13, 0, wrmsr
	FAULT	13, 0, rdmsr
	.endr
	DONE

	CASE	cx8
	mov	$SYS_DATA + 0x10, %edi
	xor	%eax, %eax
	xor	%edx, %edx
	mov	$3, %ebx
	mov	$4, %ecx
	lock cmpxchg8b (%rdi)
	setz	%sil
	movzbl	%sil, %esi
	REPORT	%rsi
	WANT	1
	mov	(%rdi), %rax
	REPORT	%rax
	WANT	0x400000003
	DONE

/*
 * Extended state: XGETBV, XSETBV and what they refuse. Under QEMU a guest without AVX in XCR0 now and then costs its
 * host AVX for good, and the host's programs die of it.
 */
	CASE	xsetbv, NEED_XSAVE | NOT_QEMU
	xor	%ecx, %ecx
	xgetbv
	and	$3, %eax
	REPORT	%rax
	WANT	3
	xor	%edx, %edx
	mov	$3, %eax
	xsetbv
	xgetbv
	REPORT	%rax
	WANT	3
	mov	$2, %eax
	FAULT	13, 0, xsetbv
	mov	$0x13, %eax
	FAULT	13, 0, xsetbv
	xor	%eax, %eax
	FAULT	13, 0, xsetbv
	mov	$3, %eax
	mov	$0x40000000, %edx
	FAULT	13, 0, xsetbv
	mov	$5, %ecx
	xor	%edx, %edx
	FAULT	13, 0, xsetbv
	FAULT	13, 0, xgetbv
	xor	%ecx, %ecx
	TO_USER
	FAULT	13, 0, xsetbv
	xgetbv
	REPORT	%rax
	WANT	3
	TO_KERNEL
	mov	$1, %eax		/* OSXSAVE in CPUID follows CR4 */
	cpuid
	shr	$27, %ecx
	and	$1, %ecx
	REPORT	%rcx
	WANT	1
	mov	%cr4, %rax
	and	$~0x40000, %eax
	mov	%rax, %cr4
	mov	$1, %eax
	cpuid
	shr	$27, %ecx
	and	$1, %ecx
	REPORT	%rcx
	WANT	0
	DONE

	CASE	avx_off, NEED_AVX | NOT_QEMU
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$3, %eax
	xsetbv
	FAULT	6, 0, vaddps %xmm1, %xmm0, %xmm0
	mov	$7, %eax
	xsetbv
	vaddps	%xmm1, %xmm0, %xmm0
	mov	$5, %eax
	FAULT	13, 0, xsetbv
	DONE

	CASE	xsave, NEED_XSAVE
	mov	$SYS_DATA, %ebx
	mov	$0x1122334455667788, %rax
	movq	%rax, %xmm3
	fninit
	fldpi
	mov	$3, %eax
	xor	%edx, %edx
	xsave	(%rbx)
	mov	160 + 3 * 16(%rbx), %rax
	REPORT	%rax
	WANT	0x1122334455667788
	mov	512(%rbx), %rax
	REPORT	%rax
	WANT	3
	pxor	%xmm3, %xmm3
	fninit
	mov	$2, %eax		/* SSE alone */
	xrstor	(%rbx)
	movq	%xmm3, %rax
	REPORT	%rax
	WANT	0x1122334455667788
	FPU_TOP	0
	mov	$1, %eax
	xrstor	(%rbx)
	FPU_TOP	0x3800
	andq	$~2, 512(%rbx)		/* XSTATE_BV clear: the initial state */
	mov	$3, %eax
	xrstor	(%rbx)
	movq	%xmm3, %rax
	REPORT	%rax
	WANT	0
	DONE

/* Nothing behind the parts that are asked for is touched: the next page is not there. */
	CASE	xsave_parts, NEED_XSAVE | NEED_AVX | NOT_QEMU
	mov	%cr4, %rax
	or	$0x40000, %eax
	mov	%rax, %cr4
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$7, %eax
	xsetbv
	movq	$(SYS_DATA | 3), SYS_PT_WINDOW
	mov	$SYS_WINDOW + 4096 - 576, %edi
	movq	$0x5a5a5a5a, 464(%rdi)	/* software's own */
	vpcmpeqd %ymm2, %ymm2, %ymm2
	mov	$3, %eax
	xsave64	(%rdi)
	xrstor64 (%rdi)
	mov	$1, %eax
	xsave	(%rdi)
	xrstor	(%rdi)
	mov	$7, %eax
	PAGE_FAULT 2, SYS_WINDOW+4096, xsave64 (%rdi)
	mov	464(%rdi), %rax
	REPORT	%rax
	WANT	0x5a5a5a5a
	vzeroupper
	DONE

/* What XRSTOR and FXRSTOR refuse. QEMU does not look at MXCSR nor at alignment. */
	CASE	xrstor_faults, NEED_XSAVE | NOT_QEMU
	mov	$SYS_DATA, %ebx
	mov	$3, %eax
	xor	%edx, %edx
	movq	$0x4000000, 512(%rbx)	/* parts that XCR0 has not */
	FAULT	13, 0, xrstor (%rbx)
	movq	$0, 512(%rbx)
	movq	$1, 528(%rbx)		/* reserved in the header */
	FAULT	13, 0, xrstor (%rbx)
	movq	$0, 528(%rbx)
	movl	$0x10000, 24(%rbx)	/* MXCSR */
	mov	$2, %eax
	FAULT	13, 0, xrstor (%rbx)
	movl	$0x1f80, 24(%rbx)
	mov	$8, %ecx
	FAULT	13, 0, xrstor (%rbx, %rcx)
	FAULT	13, 0, xsave (%rbx, %rcx)
	movl	$0x10000, 24(%rbx)
	FAULT	13, 0, fxrstor (%rbx)
	DONE

/* Of a part that XCR0 has not, even if the CPU has it. */
	CASE	xrstor_parts, NEED_AVX | NOT_QEMU
	mov	$SYS_DATA, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$3, %eax
	xsetbv
	movl	$0x1f80, 24(%rbx)
	movq	$4, 512(%rbx)
	FAULT	13, 0, xrstor (%rbx)
	movq	$0, 512(%rbx)
	xrstor	(%rbx)
	mov	$7, %eax
	xsetbv
	DONE

/*
 * A part in its initial state is not written, but the header tells of it: it is not what lay there before, and a
 * debugger may fill it in. QEMU takes all parts for used.
 */
	CASE	xsave_unused, NEED_AVX | NEED_XSAVEOPT | NEED_XSAVEC | NOT_QEMU
	mov	$SYS_DATA, %ebx
	mov	$7, %eax
	xor	%edx, %edx
	movl	$0x1f80, 24(%rbx)
	xrstor	(%rbx)
	movq	$7, 512(%rbx)
	movq	$0x1234, 576(%rbx)
	xsaveopt (%rbx)
	mov	512(%rbx), %rcx
	and	$4, %ecx
	REPORT	%rcx
	WANT	0
	mov	576(%rbx), %rcx
	REPORT	%rcx
	WANT	0x1234
	xsavec	(%rbx)
	mov	512(%rbx), %rcx
	and	$4, %ecx
	REPORT	%rcx
	WANT	0
	mov	520(%rbx), %rcx
	REPORT	%rcx
	WANT	0x8000000000000007
	mov	576(%rbx), %rcx
	REPORT	%rcx
	WANT	0x1234
	orq	$4, 512(%rbx)
	xrstor	(%rbx)
	vmovq	%xmm0, %rcx
	REPORT	%rcx
	WANT	0
	vextractf128 $1, %ymm0, %xmm1
	vmovq	%xmm1, %rcx
	REPORT	%rcx
	WANT	0x1234
	DONE

	CASE	ymm_state, NEED_AVX
	mov	$SYS_DATA, %ebx
	movl	$0x1234, 0x800(%rbx)
	vbroadcastss 0x800(%rbx), %ymm5
	mov	$7, %eax
	xor	%edx, %edx
	xsave	(%rbx)
	vzeroall
	mov	$4, %eax
	xrstor	(%rbx)
	vextractf128 $1, %ymm5, %xmm6
	vmovd	%xmm6, %eax
	vmovd	%xmm5, %ecx
	REPORT	%rax
	WANT	0x1234
	REPORT	%rcx
	WANT	0
	mov	$7, %eax
	xrstor	(%rbx)
	vmovd	%xmm5, %ecx
	REPORT	%rcx
	WANT	0x1234
	paddd	%xmm5, %xmm5		/* legacy SSE keeps the upper half, VEX clears it */
	vextractf128 $1, %ymm5, %xmm6
	vmovd	%xmm6, %eax
	REPORT	%rax
	WANT	0x1234
	vpaddd	%xmm5, %xmm5, %xmm5
	vextractf128 $1, %ymm5, %xmm6
	vmovd	%xmm6, %eax
	REPORT	%rax
	WANT	0
	DONE

/* A bit of CPUID, and its instruction with a known result. ebp collects what fails. */
	.macro	IF_OFFERED leaf, reg, bit
	mov	$\leaf, %eax
	xor	%ecx, %ecx
	cpuid
	bt	$\bit, %\reg
	jnc	73f
	.endm
	.macro	MUST_BE number, reg, value
	cmp	$\value, %\reg
	je	73f
	bts	$\number, %rbp
73:
	.endm
	CASE	offered
	xor	%ebp, %ebp
	mov	$0xf0, %edi
	IF_OFFERED 1, ecx, 23		/* POPCNT */
	popcnt	%edi, %eax
	MUST_BE	0, eax, 4
	IF_OFFERED 0x80000001, ecx, 5	/* LZCNT */
	lzcnt	%edi, %eax
	MUST_BE	1, eax, 24
	IF_OFFERED 7, ebx, 3		/* BMI1 */
	tzcnt	%edi, %eax
	blsr	%edi, %ecx
	add	%ecx, %eax
	andn	%edi, %edi, %ecx
	add	%ecx, %eax
	MUST_BE	2, eax, 0xe4
	IF_OFFERED 7, ebx, 8		/* BMI2 */
	mov	$0x3, %edx
	pdep	%edi, %edi, %eax
	mulx	%edi, %ecx, %edx
	shlx	%edi, %edi, %edx
	rorx	$4, %edi, %edx
	add	%edx, %eax
	add	%ecx, %eax
	MUST_BE	3, eax, 0x2df
	IF_OFFERED 1, ecx, 22		/* MOVBE */
	movl	$0x11223344, SYS_DATA
	movbe	SYS_DATA, %eax
	MUST_BE	4, eax, 0x44332211
	IF_OFFERED 1, ecx, 25		/* AES */
	pxor	%xmm0, %xmm0
	pxor	%xmm1, %xmm1
	aesenc	%xmm1, %xmm0
	movd	%xmm0, %eax
	MUST_BE	5, eax, 0x63636363
	IF_OFFERED 1, ecx, 1		/* PCLMULQDQ */
	movd	%edi, %xmm0
	pclmulqdq $0, %xmm0, %xmm0
	movd	%xmm0, %eax
	MUST_BE	6, eax, 0x5500
	IF_OFFERED 7, ebx, 29		/* SHA */
	pxor	%xmm0, %xmm0
	movd	%edi, %xmm1
	sha1msg1 %xmm1, %xmm0
	sha1nexte %xmm1, %xmm0
	pextrd	$0, %xmm0, %eax
	MUST_BE	7, eax, 0xf0
	IF_OFFERED 1, ecx, 12		/* FMA */
	mov	$3, %eax
	vcvtsi2sd %eax, %xmm0, %xmm0
	vmovapd	%xmm0, %xmm1
	vfmadd231sd %xmm0, %xmm0, %xmm1
	vcvttsd2si %xmm1, %eax
	MUST_BE	8, eax, 12
	IF_OFFERED 1, ecx, 29		/* F16C */
	mov	$0x3c00, %eax
	vmovd	%eax, %xmm0
	vcvtph2ps %xmm0, %xmm0
	vmovd	%xmm0, %eax
	MUST_BE	9, eax, 0x3f800000
	IF_OFFERED 7, ebx, 5		/* AVX2 */
	vmovd	%edi, %xmm0
	vpbroadcastd %xmm0, %ymm0
	vpaddd	%ymm0, %ymm0, %ymm0
	vextracti128 $1, %ymm0, %xmm0
	vpextrd	$3, %xmm0, %eax
	MUST_BE	10, eax, 0x1e0
	IF_OFFERED 7, ebx, 19		/* ADX */
	xor	%eax, %eax
	stc
	adcx	%edi, %eax
	adox	%edi, %eax
	MUST_BE	11, eax, 0x1e1
	IF_OFFERED 1, ecx, 20		/* SSE4.2 */
	xor	%eax, %eax
	crc32l	%edi, %eax
	MUST_BE	12, eax, 0xc747336e
	IF_OFFERED 1, ecx, 30		/* RDRAND: it succeeds soon */
	mov	$100, %ecx
1:	rdrand	%rax
	jc	1f
	loop	1b
1:	setc	%al
	movzbl	%al, %eax
	MUST_BE	13, eax, 1
	IF_OFFERED 7, ebx, 18		/* RDSEED */
	mov	$10000, %ecx
1:	rdseed	%rax
	jc	1f
	loop	1b
1:	setc	%al
	movzbl	%al, %eax
	MUST_BE	14, eax, 1
	IF_OFFERED 7, ebx, 23		/* CLFLUSHOPT */
	clflushopt SYS_DATA
	xor	%eax, %eax
	MUST_BE	15, eax, 0
	IF_OFFERED 7, ebx, 24		/* CLWB */
	clwb	SYS_DATA
	xor	%eax, %eax
	MUST_BE	16, eax, 0
	IF_OFFERED 0x80000001, edx, 31	/* 3DNow!: never */
	xor	%eax, %eax
	MUST_BE	17, eax, 1
	IF_OFFERED 0x80000001, ecx, 8	/* PREFETCHW */
	prefetchw SYS_DATA
	xor	%eax, %eax
	MUST_BE	18, eax, 0
	IF_OFFERED 1, ecx, 9		/* SSSE3 */
	movd	%edi, %xmm0
	pabsb	%xmm0, %xmm0
	movd	%xmm0, %eax
	MUST_BE	19, eax, 0x10
	IF_OFFERED 1, ecx, 0		/* SSE3 */
	mov	$5, %eax
	cvtsi2sd %eax, %xmm0
	movddup	%xmm0, %xmm0
	haddpd	%xmm0, %xmm0
	cvttsd2si %xmm0, %eax
	MUST_BE	20, eax, 10
	IF_OFFERED 1, ecx, 19		/* SSE4.1 */
	mov	$7, %eax
	pxor	%xmm0, %xmm0
	pinsrd	$2, %eax, %xmm0
	pextrd	$2, %xmm0, %eax
	MUST_BE	21, eax, 7
	REPORT	%rbp
	WANT	0
	DONE

/* MONITOR, RDPMC's and others that CPUID does not offer. */
	CASE	hidden
	mov	$SYS_DATA, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$1, %eax
	cpuid
	shr	$3, %ecx
	and	$1, %ecx
	REPORT	%rcx
	WANT	0		/* MONITOR is hidden */
	mov	$SYS_DATA, %eax
	xor	%ecx, %ecx
	xor	%edx, %edx
	TO_USER
	FAULT	6, 0, .byte 0x0f, 0x01, 0xc8	/* monitor: not every assembler takes its operands */
	DONE

/* Locked instructions over cache lines and pages add up; XCHG needs no prefix. */
/* Without CR4.SMAP they are as good. */
	CASE	ac_without_smap, NEED_SMAP
	stac
	pushfq
	pop	%rax
	and	$0x40000, %eax
	REPORT	%rax
	WANT	0x40000
	clac
	pushfq
	pop	%rax
	and	$0x40000, %eax
	REPORT	%rax
	WANT	0
	DONE

/* MSRs of features that CPUID does not offer. */
	CASE	no_msrs
	mov	$0x48, %ecx
	FAULT	13, 0, rdmsr
	mov	$0x49, %ecx
	FAULT	13, 0, rdmsr
	xor	%edx, %edx
	mov	$1, %eax
	FAULT	13, 0, wrmsr
	DONE

/* Machine checks and counters, which KVM has whatever CPUID says. */
	CASE	no_machine_checks
	mov	$0x179, %ecx
	FAULT	13, 0, rdmsr
	mov	$0x186, %ecx
	FAULT	13, 0, rdmsr
	DONE

	CASE	no_counters, NOT_KVM
	xor	%ecx, %ecx
	FAULT	13, 0, rdpmc
	DONE

/* From a port to a device: every item is two exits. */
	CASE	ins_to_device
	mov	$SYS_MMIO + 0x20, %edi
	mov	$3, %ecx
	mov	$0x60, %edx
	cld
	rep insb
	REPORT	%rcx
	WANT	0
	mov	$SYS_MMIO + 0x20, %esi
	mov	(%rsi), %eax
	and	$0xffffff, %eax
	REPORT	%rax
	WANT	0x5a5a5a
	sub	%esi, %edi
	REPORT	%rdi
	WANT	3
	DONE

/*
 * x87's last instruction and operand are the guest's: translated, stepped, and once its state has moved. Not as a guest
 * of KVM on a CPU of AMD's (nor on QEMU's): there XSAVE forgets them when nothing waits, at every switch of the host's.
 */
	.macro	UNLESS_FORGOTTEN what	/* 0: the host was switched in between, and nothing waits */
	test	%eax, %eax
	jz	6f
	sub	\what, %eax
6:
	.endm
	CASE	x87_pointers, NOT_KVM_AMD
	mov	$SYS_DATA + 0x100, %ebx
	movq	$0, (%rbx)
	mov	$2, %edx
	fninit
3:	fldl	(%rbx)
	fnstenv	SYS_DATA
	fstp	%st(0)
	mov	SYS_DATA + 12, %eax
	UNLESS_FORGOTTEN $ADDR(3b)
	REPORT	%rax
	mov	SYS_DATA + 20, %eax
	UNLESS_FORGOTTEN %ebx
	REPORT	%rax
	fstp	%st(0)
	fninit
	fnstenv	SYS_DATA
	mov	SYS_DATA + 12, %eax
	REPORT	%rax
	dec	%edx
	jnz	3b
	.rept	2
	WANT	0
	WANT	0
	WANT	0
	.endr
	fldz
4:	fld1
	in	$0x60, %al	/* C in between */
	fnstenv	SYS_DATA
	mov	SYS_DATA + 12, %eax
	UNLESS_FORGOTTEN $ADDR(4b)
	REPORT	%rax
	WANT	0
	movw	$0x37b, SYS_DATA	/* division by zero, not masked: it waits */
	fninit
	fldcw	SYS_DATA
	fld1
5:	fdivl	(%rbx)
	fxsave64 SYS_DATA
	fnclex
	mov	SYS_DATA + 8, %rax
	sub	$ADDR(5b), %rax
	REPORT	%rax
	WANT	0
	mov	SYS_DATA + 16, %rax
	sub	%rbx, %rax
	REPORT	%rax
	WANT	0
	fninit
	DONE

/* Pointers that the guest loads are not taken for the engine's own, whatever they look like, nor lost in a move. */
	CASE	x87_loaded, NOT_KVM_AMD
	fninit
	fld1
	fnstenv	SYS_DATA
	mov	$0x100000, %ebx
	xor	%edx, %edx
1:	mov	%ebx, SYS_DATA + 12
	mov	%ebx, SYS_DATA + 20
	fldenv	SYS_DATA
	fnstenv	SYS_DATA + 64
	mov	SYS_DATA + 76, %eax
	mov	SYS_DATA + 84, %ecx
	cmp	%eax, %ecx
	jne	2f
	test	%eax, %eax
	jz	4f
	cmp	%eax, %ebx
	jne	2f
3:	add	$0x100000, %ebx
	jnz	1b
	mov	%edx, %ebx
2:	REPORT	%rbx
	WANT	0
	fninit
	DONE
4:	inc	%edx
	jmp	3b

/* The same in every image that has pointers. */
	CASE	x87_images, NEED_XSAVE | NOT_KVM_AMD
	.macro	POINTERS rip, data
	fnstenv	SYS_DATA + 0x800
	mov	SYS_DATA + 0x800 + 12, %eax
	REPORT	%rax
	WANT	\rip
	mov	SYS_DATA + 0x800 + 20, %eax
	REPORT	%rax
	WANT	\data
	.endm
	mov	$SYS_DATA, %ebx
	mov	$1, %eax
	xor	%edx, %edx
	fninit
	fld1
	xsave64	(%rbx)
	mov	$0x7f8011111111, %rcx
	mov	%rcx, 8(%rbx)
	mov	$0x7f8022222222, %rcx
	mov	%rcx, 16(%rbx)
	fxrstor64 (%rbx)
	POINTERS 0x11111111, 0x22222222
	movl	$0x33333333, 8(%rbx)
	movl	$0x44444444, 16(%rbx)
	fxrstor	(%rbx)
	POINTERS 0x33333333, 0x44444444
	movl	$0x55555555, 8(%rbx)
	mov	$1, %eax
	xrstor64 (%rbx)
	POINTERS 0x55555555, 0x44444444
	movq	$0, 512(%rbx)
	mov	$1, %eax
	xrstor64 (%rbx)
	POINTERS 0, 0
	fld1
	fnsave	(%rbx)
	POINTERS 0, 0
	movl	$0x66666666, 12(%rbx)
	movl	$0x77777777, 20(%rbx)
	frstor	(%rbx)
	POINTERS 0x66666666, 0x77777777
	data16 fnstenv (%rbx)
	movw	$0x8888, 6(%rbx)
	movw	$0x9999, 10(%rbx)
	data16 fldenv (%rbx)
	POINTERS 0x8888, 0x9999
	fninit
	POINTERS 0, 0
	DONE

/*
 * The operand is where its own access had it, not where somebody else has the page: here, the kernel. It raises an
 * exception that waits: else some CPUs do not note it (CPUID.7.EBX[6], FDP_EXCPTN_ONLY).
 */
	CASE	x87_alias, NEED_SMAP | NOT_KVM_AMD
	movq	$(SYS_DATA + 0x1007), SYS_PT_WINDOW + 8
	mov	%cr4, %rax
	or	$0x200000, %eax
	mov	%rax, %cr4
	movabs	$0x7ff0000000000001, %rax	/* a signalling NaN */
	mov	%rax, SYS_DATA + 0x1100
	movw	$0x37e, SYS_DATA
	fninit
	fldcw	SYS_DATA
	mov	$SYS_WINDOW + 0x1100, %ebx
	stac
	fldl	(%rbx)
	clac
	mov	SYS_DATA + 0x1100, %al
	fnstenv	SYS_DATA
	fninit
	mov	SYS_DATA + 20, %eax
	sub	%ebx, %eax
	REPORT	%rax
	WANT	0
	DONE

	CASE	split_locks
	mov	$SYS_DATA + 0xffd, %ebx
	mov	$100, %ecx		/* some hosts take long for one */
1:	lock incl (%rbx)
	lock addq $3, 1(%rbx)
	mov	$1, %eax
	xchg	%eax, 0x3c(%rbx)
	lock xadd %eax, 0x40(%rbx)
	loop	1b
	mov	(%rbx), %rax
	REPORT	%rax
	WANT	0x12c64
	mov	0x3c(%rbx), %eax
	REPORT	%rax
	WANT	0x1
	DONE

/* LOOP, JRCXZ, string instructions with DF, MOVS that overlap. */
	CASE	strings
	mov	$SYS_DATA, %edi
	mov	$0x0807060504030201, %rax
	mov	%rax, (%rdi)
	movq	$0, 8(%rdi)
	lea	1(%rdi), %rdi
	mov	$SYS_DATA, %esi
	mov	$7, %ecx
	rep movsb			/* byte by byte: spreads the first */
	mov	SYS_DATA, %rax
	REPORT	%rax
	WANT	0x0101010101010101
	mov	$SYS_DATA + 7, %esi
	mov	$SYS_DATA + 15, %edi
	mov	$8, %ecx
	std
	rep movsb
	cld
	mov	SYS_DATA + 8, %rax
	REPORT	%rax
	WANT	0x0101010101010101
	REPORT	%rdi
	WANT	SYS_DATA + 7
	mov	$SYS_DATA, %edi
	mov	$3, %ecx
	mov	$0xffff1234, %eax
	rep stosw
	mov	SYS_DATA, %rax
	REPORT	%rax
	WANT	0x0101123412341234
	mov	$SYS_DATA, %edi
	mov	$0x100000002, %rcx	/* the address size counts for the counter */
	xor	%eax, %eax
	.byte	0x67
	rep stosb
	REPORT	%rcx
	WANT	0
	REPORT	%rdi
	WANT	SYS_DATA + 2
	mov	$SYS_DATA + 0x100, %edi
	mov	$SYS_DATA, %esi
	mov	$10000, %ecx		/* over several pages, and onto itself */
	rep movsb
	mov	$SYS_DATA, %esi
	mov	$SYS_DATA + 0x200, %edi
	mov	$0x100, %ecx
	repe cmpsb
	REPORT	%rcx
	WANT	0
	DONE

	END_IMAGE features
