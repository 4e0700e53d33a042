/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct vcpu_state into and out of KVM.
 *
 * Loading has an order: extended state, MSRs and debug registers, then what decides how the vCPU
 * goes on: general registers (which drop a pending exception), special ones, and events last. The
 * TSC comes after all of it, by the node. Saving first lets KVM finish the instruction of the last
 * exit, since that lives in KVM and nowhere else (KVM API 5, "pending operations").
 *
 * The entry that does that brings registers and events out, and one that does nothing else takes
 * them in: a save is 5 calls into the kernel so, a load 4 to 5; docs/moves.md counts them.
 *
 * KVM's XSAVE area has the host's layout; parts are carried over one by one (vcpu/vcpu_state.h).
 * Tested by tests/engine/cases_*.c.
 */
#include "engine/kvm/kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define APIC_BASE_GPA	 0xfee00000ull
#define APIC_BASE_BSP	 (1ull << 8)
#define APIC_BASE_X2APIC (1ull << 10)
#define APIC_BASE_ENABLE (1ull << 11)
#define RFLAGS_IF	 (1ull << 9)
#define CR0_PG		 (1ull << 31)
#define CR4_PAE		 (1ull << 5)
#define EFER_LMA	 (1ull << 10)
#define XSAVE_HEADER	 512u
#define XSAVE_MXCSR	 24u
#define XSAVE_MXCSR_MASK 28u
#define LEGACY_BYTES	 416u
#define KVM_XSAVE_BYTES	 sizeof(((struct kvm_xsave *)0)->region)

static const uint8_t mxcsr_reset[4] = { 0x80, 0x1f };

void kvm_xsave_layout(uint16_t ret_offset[VCPU_XSAVE_PARTS])
{
	ret_offset[0] = 0;
	ret_offset[1] = vcpu_xsave_parts[1].offset;
	for (uint32_t i = 2; i < VCPU_XSAVE_PARTS; i++) {
		uint32_t eax, ebx, ecx, edx;
		uint32_t size = vcpu_xsave_parts[i].size;

		ret_offset[i] = 0;
		if (size && __get_cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx) && eax == size &&
		    ebx >= 576 && ebx + eax <= KVM_XSAVE_BYTES)
			ret_offset[i] = (uint16_t)ebx;
	}
}

static void segment_to_kvm(const struct vcpu_segment_state *from, struct kvm_segment *to)
{
	uint16_t a = from->attributes;

	*to = (struct kvm_segment){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.type = a & 0xf,
		.s = a >> 4 & 1,
		.dpl = a >> 5 & 3,
		.present = a >> 7 & 1,
		.avl = a >> 12 & 1,
		.l = a >> 13 & 1,
		.db = a >> 14 & 1,
		.g = a >> 15 & 1,
		.unusable = from->unusable,
	};
}

static void segment_from_kvm(const struct kvm_segment *from, struct vcpu_segment_state *to)
{
	*to = (struct vcpu_segment_state){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.attributes = (uint16_t)((from->type & 0xf) | (from->s & 1) << 4 |
					 (from->dpl & 3) << 5 | (from->present & 1) << 7 |
					 (from->avl & 1) << 12 | (from->l & 1) << 13 |
					 (from->db & 1) << 14 | (from->g & 1) << 15),
		.unusable = from->unusable != 0,
	};
}

/* Where struct kvm_sregs2 has segment i. */
static struct kvm_segment *sregs_segment(struct kvm_sregs2 *sregs, int i)
{
	struct kvm_segment *const order[SEG_COUNT] = {
		[SEG_ES] = &sregs->es,	  [SEG_CS] = &sregs->cs, [SEG_SS] = &sregs->ss,
		[SEG_DS] = &sregs->ds,	  [SEG_FS] = &sregs->fs, [SEG_GS] = &sregs->gs,
		[SEG_LDTR] = &sregs->ldt, [SEG_TR] = &sregs->tr,
	};

	return order[i];
}

/* What it has in common with struct kvm_sregs, which an entry brings, comes first in both. */
#define SREGS_BYTES offsetof(struct kvm_sregs2, flags)
_Static_assert(SREGS_BYTES == offsetof(struct kvm_sregs, interrupt_bitmap), "kvm_sregs");

static bool uses_pae(const struct kvm_sregs2 *sregs)
{
	return (sregs->cr0 & CR0_PG) && (sregs->cr4 & CR4_PAE) && !(sregs->efer & EFER_LMA);
}

static void sregs_from_state(struct kvm_sregs2 *sregs, const struct vcpu_state *state)
{
	*sregs = (struct kvm_sregs2){
		.gdt = { .base = state->gdt.base, .limit = state->gdt.limit },
		.idt = { .base = state->idt.base, .limit = state->idt.limit },
		.cr0 = state->cr0,
		.cr2 = state->cr2,
		.cr3 = state->cr3,
		.cr4 = state->cr4,
		.cr8 = state->cr8,
		.efer = state->efer,
		.apic_base = APIC_BASE_GPA | (state->lapic.bsp ? APIC_BASE_BSP : 0) |
			     (state->lapic.x2apic ? APIC_BASE_X2APIC : 0) |
			     (state->lapic.enabled ? APIC_BASE_ENABLE : 0),
	};
	for (int i = 0; i < SEG_COUNT; i++)
		segment_to_kvm(&state->segment[i], sregs_segment(sregs, i));
	if (state->pdptr_valid) {
		sregs->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(sregs->pdptrs, state->pdptr, sizeof(sregs->pdptrs));
	}
}

static void state_from_sregs(struct vcpu_state *state, struct kvm_sregs2 *sregs)
{
	state->gdt =
		(struct vcpu_table_state){ .base = sregs->gdt.base, .limit = sregs->gdt.limit };
	state->idt =
		(struct vcpu_table_state){ .base = sregs->idt.base, .limit = sregs->idt.limit };
	state->cr0 = sregs->cr0;
	state->cr2 = sregs->cr2;
	state->cr3 = sregs->cr3;
	state->cr4 = sregs->cr4;
	state->efer = sregs->efer;
	for (int i = 0; i < SEG_COUNT; i++)
		segment_from_kvm(sregs_segment(sregs, i), &state->segment[i]);
	state->pdptr_valid = (sregs->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
	memset(state->pdptr, 0, sizeof(state->pdptr));
	if (state->pdptr_valid)
		memcpy(state->pdptr, sregs->pdptrs, sizeof(state->pdptr));
}

/* KVM's order of the general registers, which is not the encoding's. */
static unsigned long long *regs_slot(struct kvm_regs *regs, int gpr)
{
	unsigned long long *const order[GPR_COUNT] = {
		&regs->rax, &regs->rcx, &regs->rdx, &regs->rbx, &regs->rsp, &regs->rbp,
		&regs->rsi, &regs->rdi, &regs->r8,  &regs->r9,	&regs->r10, &regs->r11,
		&regs->r12, &regs->r13, &regs->r14, &regs->r15,
	};

	return order[gpr];
}

static void regs_from_state(struct kvm_regs *regs, const struct vcpu_state *state)
{
	for (int i = 0; i < GPR_COUNT; i++)
		*regs_slot(regs, i) = state->gpr[i];
	regs->rip = state->rip;
	regs->rflags = state->rflags;
}

static void state_from_regs(struct vcpu_state *state, struct kvm_regs *regs)
{
	for (int i = 0; i < GPR_COUNT; i++)
		state->gpr[i] = *regs_slot(regs, i);
	state->rip = regs->rip;
	state->rflags = regs->rflags;
}

uint64_t kvm_vcpu_rip(struct engine_vcpu *vcpu)
{
	struct kvm_regs regs;

	return ioctl(vcpu->fd, KVM_GET_REGS, &regs) ? 0 : regs.rip;
}

uint64_t kvm_vcpu_cr3(struct engine_vcpu *vcpu)
{
	struct kvm_sregs sregs;

	return ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) ? 0 : sregs.cr3;
}

static int load_extended(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	struct kvm_xsave xsave = { 0 };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = state->xcr0 } } };
	uint8_t *to = (uint8_t *)xsave.region;
	uint64_t used;

	memcpy(&used, state->xsave + XSAVE_HEADER, sizeof(used));
	/* The kernel takes MXCSR only along with SSE. */
	if (memcmp(state->xsave + XSAVE_MXCSR, mxcsr_reset, sizeof(mxcsr_reset)))
		used |= 2;
	memcpy(to, state->xsave, LEGACY_BYTES);
	memset(to + XSAVE_MXCSR_MASK, 0, 4);
	memcpy(to + XSAVE_HEADER, &used, sizeof(used));
	for (uint32_t i = 2; i < VCPU_XSAVE_PARTS; i++) {
		if (!(used >> i & 1))
			continue;
		if (!vcpu->engine->xsave_offset[i])
			return -EINVAL;
		memcpy(to + vcpu->engine->xsave_offset[i],
		       state->xsave + vcpu_xsave_parts[i].offset, vcpu_xsave_parts[i].size);
	}
	if (ioctl(vcpu->fd, KVM_SET_XSAVE, &xsave))
		return -errno;
	if (!cpuid_find(&vcpu->engine->cpuid, 0xd, 0)->eax)
		return 0;
	return ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) ? -errno : 0;
}

static int save_extended(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs = { 0 };
	const uint8_t *from = (const uint8_t *)xsave.region;
	uint64_t used, kept;

	if (ioctl(vcpu->fd, KVM_GET_XSAVE, &xsave))
		return -errno;
	state->xcr0 = 1;
	if (cpuid_find(&vcpu->engine->cpuid, 0xd, 0)->eax) {
		if (ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs))
			return -errno;
		for (uint32_t i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
			if (xcrs.xcrs[i].xcr == 0)
				state->xcr0 = xcrs.xcrs[i].value;
	}
	memset(state->xsave, 0, sizeof(state->xsave));
	memcpy(&used, from + XSAVE_HEADER, sizeof(used));
	memcpy(state->xsave, from, LEGACY_BYTES);
	memset(state->xsave + XSAVE_MXCSR_MASK, 0, 4);
	kept = used & 3;
	for (uint32_t i = 2; i < VCPU_XSAVE_PARTS; i++) {
		uint16_t offset = vcpu->engine->xsave_offset[i];

		if (!(used >> i & 1) || !offset)
			continue;
		memcpy(state->xsave + vcpu_xsave_parts[i].offset, from + offset,
		       vcpu_xsave_parts[i].size);
		kept |= 1ull << i;
	}
	memcpy(state->xsave + XSAVE_HEADER, &kept, sizeof(kept));
	vcpu_state_trim_extended(state);
	return kept == used ? 0 : -ENOTSUP;
}

/* State has STI in bit 0 and MOV SS in bit 1; KVM has them the other way round. */
static uint8_t swap_shadow(uint8_t shadow)
{
	return (uint8_t)((shadow & 1) << 1 | (shadow >> 1 & 1));
}

static void events_from_state(struct kvm_vcpu_events *events, const struct vcpu_state *state)
{
	*events = (struct kvm_vcpu_events){
		.exception = { .injected = state->exception_injected,
			       .pending = state->exception_pending,
			       .nr = state->exception_vector,
			       .has_error_code = state->exception_has_error_code,
			       .error_code = state->exception_error_code },
		.exception_has_payload = state->exception_has_payload,
		.exception_payload = state->exception_payload,
		.interrupt = { .injected = state->interrupt_injected,
			       .nr = state->interrupt_vector,
			       .shadow = swap_shadow(state->interrupt_shadow) },
		.nmi = { .injected = state->nmi_injected,
			 .pending = state->nmi_pending,
			 .masked = state->nmi_masked },
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
			 KVM_VCPUEVENT_VALID_PAYLOAD,
	};
}

static void state_from_events(struct vcpu_state *state, const struct kvm_vcpu_events *events)
{
	state->exception_injected = events->exception.injected;
	state->exception_pending = events->exception.pending;
	state->exception_vector = events->exception.nr;
	state->exception_has_error_code = events->exception.has_error_code;
	state->exception_error_code = events->exception.error_code;
	state->exception_payload = events->exception_payload;
	state->exception_has_payload = events->exception_has_payload;
	state->interrupt_injected = events->interrupt.injected;
	state->interrupt_vector = events->interrupt.nr;
	state->interrupt_shadow = swap_shadow(events->interrupt.shadow);
	state->nmi_injected = events->nmi.injected;
	state->nmi_pending = events->nmi.pending > 2 ? 2 : events->nmi.pending;
	state->nmi_masked = events->nmi.masked;
}

static int load_debug(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	struct kvm_debugregs debug = { .dr6 = state->dr6, .dr7 = state->dr7 };

	for (int i = 0; i < 4; i++)
		debug.db[i] = state->dr[i];
	return ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) ? -errno : 0;
}

static int save_debug(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	struct kvm_debugregs debug = { 0 };

	if (ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug))
		return -errno;
	for (int i = 0; i < 4; i++)
		state->dr[i] = debug.db[i];
	state->dr6 = debug.dr6;
	state->dr7 = debug.dr7;
	return 0;
}

/*
 * What an entry brings along (KVM_CAP_SYNC_REGS): in the kernel's order, general registers before
 * the special ones, then events.
 */
static int load_registers(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	struct kvm_sync_regs *sync = &vcpu->run->s.regs;
	struct kvm_vcpu_events events;
	struct kvm_sregs2 sregs;
	struct kvm_regs regs = { 0 };

	vcpu->run->cr8 = state->cr8;
	regs_from_state(&regs, state);
	sregs_from_state(&sregs, state);
	events_from_state(&events, state);
	if (vcpu->engine->syncs && !state->pdptr_valid) {
		memset(sync, 0, sizeof(*sync));
		sync->regs = regs;
		memcpy(&sync->sregs, &sregs, SREGS_BYTES);
		sync->events = events;
		return kvm_vcpu_enter_with(vcpu, vcpu->engine->syncs);
	}
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) || ioctl(vcpu->fd, KVM_SET_SREGS2, &sregs) ||
	    ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events))
		return -errno;
	return 0;
}

/* The entry that ended the last exit has left them, but for the copies of PAE's first entries. */
static int save_registers(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	struct kvm_sync_regs *sync = &vcpu->run->s.regs;
	struct kvm_vcpu_events events = { 0 };
	struct kvm_sregs2 sregs = { 0 };
	struct kvm_regs regs;

	if (vcpu->engine->syncs) {
		regs = sync->regs;
		events = sync->events;
		memcpy(&sregs, &sync->sregs, SREGS_BYTES);
	} else if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) ||
		   ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events)) {
		return -errno;
	}
	if ((!vcpu->engine->syncs || uses_pae(&sregs)) && ioctl(vcpu->fd, KVM_GET_SREGS2, &sregs))
		return -errno;
	state_from_regs(state, &regs);
	state_from_sregs(state, &sregs);
	state_from_events(state, &events);
	state->cr8 = vcpu->run->cr8 & 0xf;
	return 0;
}

/* An NMI goes first; KVM would deliver an interrupt that it is given before one that waits. */
static bool takes_interrupts(const struct vcpu_state *state)
{
	return (state->rflags & RFLAGS_IF) && !state->interrupt_shadow &&
	       !state->interrupt_injected && !state->exception_pending &&
	       !state->exception_injected && !state->nmi_injected &&
	       !(state->nmi_pending && !state->nmi_masked);
}

int kvm_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	const char *why;
	uint64_t used, offered = cpuid_xcr0(&vcpu->engine->cpuid) | 3;
	int err = vcpu_state_check(state, &why);

	memcpy(&used, state->xsave + XSAVE_HEADER, sizeof(used));
	if (err || ((state->xcr0 | used) & ~offered))
		return -EINVAL;
	/* It is held by the CPU, behind a load of SS, and KVM has no way to put it there. */
	if (state->debug_held)
		return -ENOTSUP;
	err = kvm_vcpu_drop_exit(vcpu);
	if (!err)
		err = load_extended(vcpu, state);
	if (!err)
		err = kvm_msr_load(vcpu, state);
	if (!err)
		err = load_debug(vcpu, state);
	if (!err)
		err = load_registers(vcpu, state);
	vcpu->ready = !err && takes_interrupts(state);
	vcpu->msr_hot_known = !err; /* the entry has run nothing */
	return err;
}

int kvm_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	int err = kvm_vcpu_finish_exit(vcpu);

	state->debug_held = state->x87_cs = 0;
	if (!err)
		err = save_registers(vcpu, state);
	if (!err)
		err = save_extended(vcpu, state);
	if (!err)
		err = kvm_msr_save(vcpu, state);
	return err ? err : save_debug(vcpu, state);
}
