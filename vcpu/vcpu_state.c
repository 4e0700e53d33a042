/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's state at power-on, after INIT and at SIPI, and the check of a state that a peer sent.
 *
 * Values are those of SDM vol. 3, table 9-1; where firmware would have chosen before an operating
 * system starts, the choice is made here: x2APIC mode on, MTRRs on with write-back as the default
 * type, fast strings on. The local APIC's registers are the machine's; only id and base are set
 * here. Tested by tests/engine/test_vcpu_state.c.
 */
#include "vcpu/vcpu_state.h"

#include <errno.h>
#include <string.h>

#define CR0_PE		  (1ull << 0)
#define CR0_ET		  (1ull << 4)
#define CR0_NW		  (1ull << 29)
#define CR0_CD		  (1ull << 30)
#define CR0_PG		  (1ull << 31)
#define CR4_PAE		  (1ull << 5)
#define EFER_LME	  (1ull << 8)
#define EFER_LMA	  (1ull << 10)
#define RFLAGS_FIXED	  (1ull << 1)
#define RFLAGS_VM	  (1ull << 17)
#define RFLAGS_VALID	  0x3f7fd7ull
#define DR6_RESET	  0xffff0ff0ull
#define DR6_TRAPS	  0x400fu /* single step, breakpoints */
#define SHADOW_MOV_SS	  2u
#define DR7_RESET	  0x400ull
#define PAT_RESET	  0x0007040600070406ull
#define MTRR_WRITE_BACK	  0x806ull
#define MISC_ENABLE_RESET 0x1801ull /* fast strings; no branch trace store, no PEBS */
#define MXCSR_RESET	  0x1f80u
#define MXCSR_VALID	  0x2ffffu /* AMD has bit 17: misaligned operands do not fault (APM vol. 1) */
#define XCR0_X87	  0x1ull
#define XCR0_SSE	  0x2ull
#define XCR0_AVX	  0x4ull
#define XCR0_AVX512	  0xe0ull
#define XCR0_VALID	  0x2e7ull
#define XSAVE_MXCSR	  24
#define XSAVE_HEADER	  512
#define XSAVE_HEADER_END  576
#define HWCR_RESET	  (1ull << 24) /* AMD: the TSC counts with the P0 frequency */
#define RDX_RESET	  0x600	       /* family 6: nobody reads it since CPUID exists */

const struct vcpu_xsave_part vcpu_xsave_parts[VCPU_XSAVE_PARTS] = {
	[0] = { 0, 160 },    [1] = { 160, 256 },   [2] = { 576, 256 }, [5] = { 1088, 64 },
	[6] = { 1152, 512 }, [7] = { 1664, 1024 }, [9] = { 2688, 8 },
};

const uint32_t vcpu_msr_index[VCPU_MSR_COUNT] = {
	[MSR_STAR] = 0xc0000081,
	[MSR_LSTAR] = 0xc0000082,
	[MSR_CSTAR] = 0xc0000083,
	[MSR_SFMASK] = 0xc0000084,
	[MSR_KERNEL_GS_BASE] = 0xc0000102,
	[MSR_SYSENTER_CS] = 0x174,
	[MSR_SYSENTER_ESP] = 0x175,
	[MSR_SYSENTER_EIP] = 0x176,
	[MSR_PAT] = 0x277,
	[MSR_TSC_AUX] = 0xc0000103,
	[MSR_MISC_ENABLE] = 0x1a0,
	[MSR_SPEC_CTRL] = 0x48,
	[MSR_MTRR_DEF_TYPE] = 0x2ff,
	[MSR_XSS] = 0xda0,
	[MSR_TSC_ADJUST] = 0x3b,
	[MSR_DEBUGCTL] = 0x1d9,
	[MSR_VIRT_SPEC_CTRL] = 0xc001011f,
	[MSR_MISC_FEATURES] = 0x140,
	[MSR_HWCR] = 0xc0010015,
	[MSR_MTRR_FIXED] = 0x250,
	[MSR_MTRR_FIXED + 1] = 0x258,
	[MSR_MTRR_FIXED + 2] = 0x259,
	[MSR_MTRR_FIXED + 3] = 0x268,
	[MSR_MTRR_FIXED + 4] = 0x269,
	[MSR_MTRR_FIXED + 5] = 0x26a,
	[MSR_MTRR_FIXED + 6] = 0x26b,
	[MSR_MTRR_FIXED + 7] = 0x26c,
	[MSR_MTRR_FIXED + 8] = 0x26d,
	[MSR_MTRR_FIXED + 9] = 0x26e,
	[MSR_MTRR_FIXED + 10] = 0x26f,
	[MSR_MTRR_VARIABLE] = 0x200,
	[MSR_MTRR_VARIABLE + 1] = 0x201,
	[MSR_MTRR_VARIABLE + 2] = 0x202,
	[MSR_MTRR_VARIABLE + 3] = 0x203,
	[MSR_MTRR_VARIABLE + 4] = 0x204,
	[MSR_MTRR_VARIABLE + 5] = 0x205,
	[MSR_MTRR_VARIABLE + 6] = 0x206,
	[MSR_MTRR_VARIABLE + 7] = 0x207,
	[MSR_MTRR_VARIABLE + 8] = 0x208,
	[MSR_MTRR_VARIABLE + 9] = 0x209,
	[MSR_MTRR_VARIABLE + 10] = 0x20a,
	[MSR_MTRR_VARIABLE + 11] = 0x20b,
	[MSR_MTRR_VARIABLE + 12] = 0x20c,
	[MSR_MTRR_VARIABLE + 13] = 0x20d,
	[MSR_MTRR_VARIABLE + 14] = 0x20e,
	[MSR_MTRR_VARIABLE + 15] = 0x20f,
};

static void put_u32(uint8_t *to, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *from)
{
	return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static uint64_t get_u64(const uint8_t *from)
{
	return get_u32(from) | (uint64_t)get_u32(from + 4) << 32;
}

static void set_segment(struct vcpu_segment_state *segment, uint16_t selector, uint64_t base,
			uint16_t attributes)
{
	*segment = (struct vcpu_segment_state){
		.base = base, .limit = 0xffff, .selector = selector, .attributes = attributes
	};
}

/* What power-on and INIT have in common. */
static void set_real_mode(struct vcpu_state *state)
{
	memset(state->gpr, 0, sizeof(state->gpr));
	state->gpr[GPR_RDX] = RDX_RESET;
	state->rip = 0xfff0;
	state->rflags = RFLAGS_FIXED;
	state->cr2 = state->cr3 = state->cr4 = state->cr8 = state->efer = 0;
	memset(state->dr, 0, sizeof(state->dr));
	state->dr6 = DR6_RESET;
	state->dr7 = DR7_RESET;
	memset(state->pdptr, 0, sizeof(state->pdptr));
	state->pdptr_valid = 0;
	for (int i = SEG_ES; i <= SEG_GS; i++)
		set_segment(&state->segment[i], 0, 0, 0x93);
	set_segment(&state->segment[SEG_CS], 0xf000, 0xffff0000, 0x9b);
	set_segment(&state->segment[SEG_LDTR], 0, 0, 0x82);
	set_segment(&state->segment[SEG_TR], 0, 0, 0x8b);
	state->gdt = (struct vcpu_table_state){ .limit = 0xffff };
	state->idt = (struct vcpu_table_state){ .limit = 0xffff };
	state->msr[MSR_DEBUGCTL] = 0;
	state->exception_pending = state->exception_injected = state->exception_vector = 0;
	state->exception_has_error_code = state->exception_has_payload = 0;
	state->exception_error_code = 0;
	state->exception_payload = 0;
	state->interrupt_injected = state->interrupt_vector = 0;
	state->interrupt_shadow = 0;
	state->debug_held = 0;
	state->nmi_injected = state->nmi_masked = state->nmi_pending = 0;
	state->run_state = state->lapic.bsp ? VCPU_RUNNABLE : VCPU_WAIT_FOR_SIPI;
}

void vcpu_msr_reset(uint64_t ret_msr[VCPU_MSR_COUNT])
{
	memset(ret_msr, 0, VCPU_MSR_COUNT * sizeof(ret_msr[0]));
	ret_msr[MSR_PAT] = PAT_RESET;
	ret_msr[MSR_MISC_ENABLE] = MISC_ENABLE_RESET;
	ret_msr[MSR_MTRR_DEF_TYPE] = MTRR_WRITE_BACK;
	ret_msr[MSR_HWCR] = HWCR_RESET;
}

void vcpu_state_reset(struct vcpu_state *state, uint32_t number)
{
	memset(state, 0, sizeof(*state));
	state->lapic.id = number;
	state->lapic.bsp = number == 0;
	state->lapic.enabled = 1;
	state->lapic.x2apic = 1;
	state->lapic.timer_deadline_ns = UINT64_MAX;
	set_real_mode(state);
	state->cr0 = CR0_ET | CR0_NW | CR0_CD;
	state->xcr0 = XCR0_X87;
	vcpu_msr_reset(state->msr);
	state->xsave[0] = 0x7f; /* x87 control word as FNINIT leaves it */
	state->xsave[1] = 0x03;
	put_u32(state->xsave + XSAVE_MXCSR, MXCSR_RESET);
}

void vcpu_state_init(struct vcpu_state *state)
{
	uint64_t caching = state->cr0 & (CR0_NW | CR0_CD);

	set_real_mode(state);
	state->cr0 = CR0_ET | caching;
}

bool vcpu_state_sipi(struct vcpu_state *state, uint8_t vector)
{
	if (state->run_state != VCPU_WAIT_FOR_SIPI)
		return false;
	set_segment(&state->segment[SEG_CS], (uint16_t)(vector << 8), (uint64_t)vector << 12, 0x9b);
	state->rip = 0;
	state->run_state = VCPU_RUNNABLE;
	return true;
}

/* The x87 after FNINIT: control word 0x37f, all else zero. MXCSR and its mask lie in between. */
static bool x87_is_initial(const uint8_t *xsave)
{
	if (xsave[0] != 0x7f || xsave[1] != 0x03)
		return false;
	for (uint32_t i = 2; i < vcpu_xsave_parts[0].size; i++)
		if (xsave[i] && (i < XSAVE_MXCSR || i >= XSAVE_MXCSR + 8))
			return false;
	return true;
}

static bool part_is_zero(const uint8_t *xsave, const struct vcpu_xsave_part *part)
{
	for (uint32_t i = 0; i < part->size; i++)
		if (xsave[part->offset + i])
			return false;
	return true;
}

void vcpu_state_trim_extended(struct vcpu_state *state)
{
	uint8_t *used = state->xsave + XSAVE_HEADER;

	if ((used[0] & 1) && x87_is_initial(state->xsave))
		used[0] &= 0xfe;
	if (!(used[0] & 1)) {
		memset(state->xsave, 0, XSAVE_MXCSR);
		memset(state->xsave + XSAVE_MXCSR + 4, 0,
		       vcpu_xsave_parts[0].size - XSAVE_MXCSR - 4);
		state->xsave[0] = 0x7f;
		state->xsave[1] = 0x03;
	}
	for (uint32_t i = 1; i < VCPU_XSAVE_PARTS; i++) {
		const struct vcpu_xsave_part *part = &vcpu_xsave_parts[i];

		if (part_is_zero(state->xsave, part))
			used[i / 8] &= (uint8_t) ~(1u << i % 8);
		if (!(used[i / 8] >> i % 8 & 1))
			memset(state->xsave + part->offset, 0, part->size);
	}
}

static const char *check_control(const struct vcpu_state *state)
{
	bool paging = state->cr0 & CR0_PG, long_mode = state->efer & EFER_LME;

	if (!(state->rflags & RFLAGS_FIXED) || (state->rflags & ~RFLAGS_VALID))
		return "reserved bits of RFLAGS";
	if ((state->rflags & RFLAGS_VM) && (!(state->cr0 & CR0_PE) || (state->efer & EFER_LMA)))
		return "virtual-8086 mode outside protected mode";
	if ((state->cr0 >> 32) || (paging && !(state->cr0 & CR0_PE)))
		return "CR0 is impossible";
	if ((state->cr0 & CR0_NW) && !(state->cr0 & CR0_CD))
		return "CR0.NW without CR0.CD";
	if (!!(state->efer & EFER_LMA) != (paging && long_mode))
		return "EFER.LMA does not follow from EFER.LME and CR0.PG";
	if ((state->efer & EFER_LMA) && !(state->cr4 & CR4_PAE))
		return "long mode without CR4.PAE";
	if (state->cr8 > 15)
		return "CR8 above 15";
	if ((state->dr6 >> 32) || (state->dr7 >> 32))
		return "reserved bits of DR6 or DR7";
	return NULL;
}

static const char *check_extended(const struct vcpu_state *state)
{
	uint64_t used = get_u64(state->xsave + XSAVE_HEADER);
	uint64_t xcr0 = state->xcr0;

	if (!(xcr0 & XCR0_X87) || (xcr0 & ~XCR0_VALID))
		return "XCR0 has no x87, or what no guest is offered";
	if ((xcr0 & XCR0_AVX) && !(xcr0 & XCR0_SSE))
		return "XCR0 has AVX without SSE";
	if ((xcr0 & XCR0_AVX512) && (xcr0 & (XCR0_AVX512 | XCR0_AVX)) != (XCR0_AVX512 | XCR0_AVX))
		return "XCR0 has parts of AVX-512";
	if (used & ~XCR0_VALID)
		return "XSTATE_BV has what no guest is offered";
	for (int i = XSAVE_HEADER + 8; i < XSAVE_HEADER_END; i++)
		if (state->xsave[i])
			return "reserved bytes of the XSAVE header";
	if (get_u32(state->xsave + XSAVE_MXCSR) & ~MXCSR_VALID)
		return "reserved bits of MXCSR";
	return NULL;
}

static const char *check_events(const struct vcpu_state *state)
{
	const uint8_t flag[] = {
		state->exception_pending,
		state->exception_injected,
		state->exception_has_error_code,
		state->exception_has_payload,
		state->interrupt_injected,
		state->nmi_injected,
		state->nmi_masked,
		state->pdptr_valid,
		state->lapic.enabled,
		state->lapic.x2apic,
		state->lapic.bsp,
	};

	for (size_t i = 0; i < sizeof(flag); i++)
		if (flag[i] > 1)
			return "a flag is neither 0 nor 1";
	if (state->exception_pending && state->exception_injected)
		return "an exception is both pending and injected";
	if (state->exception_vector > 31)
		return "exception vector above 31";
	if (state->interrupt_shadow > 3 || state->nmi_pending > 2)
		return "interrupt shadow or pending NMIs out of range";
	if (state->debug_held &&
	    (!(state->interrupt_shadow & SHADOW_MOV_SS) || (state->debug_held & ~DR6_TRAPS)))
		return "a debug exception held back by nothing";
	if (state->run_state > VCPU_HALTED)
		return "unknown run state";
	if (state->lapic.x2apic && !state->lapic.enabled)
		return "x2APIC mode of a disabled APIC";
	return NULL;
}

int vcpu_state_check(const struct vcpu_state *state, const char **ret_why)
{
	const char *why = check_control(state);

	if (!why)
		why = check_extended(state);
	if (!why)
		why = check_events(state);
	for (int i = 0; !why && i < SEG_COUNT; i++)
		if (state->segment[i].unusable > 1 || (state->segment[i].attributes & 0x0f00))
			why = "segment attributes";
	if (!why)
		return 0;
	*ret_why = why;
	return -EINVAL;
}
