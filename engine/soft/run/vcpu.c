/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a vCPU: one turn of the loop after the other, until the caller is asked for something.
 *
 *   turn:  told to stop?  ->  the open question's answer  ->  events to deliver  ->  a window to
 *          report?  ->  guest code, until it needs C
 *
 * Kicks. The kicker sets `kicked`, then `stop`, then signals the thread; the runner clears `stop`,
 * then takes `kicked`. Guest code looks at `stop` when it is entered; a signal that comes later
 * finds the pc inside (signal.c) and takes the state out there. C code looks at it every turn, and
 * a signal breaks off its waiting for a page. So no kick is lost, and some come twice.
 *
 * The guest's extended state stays in the host's registers until C that might use them is called
 * (soft_fpu_release()), or run returns.
 */
#include "engine/soft/soft.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kick.h"
#include "engine/soft/cache/block.h"
#include "engine/soft/cpu/host.h"
#include "engine/soft/step/step.h"

#define XSAVE_PARTS 7u

static _Thread_local struct engine_vcpu *volatile this_vcpu;

struct engine_vcpu *soft_vcpu_current(void)
{
	return this_vcpu;
}

/* ---- extended state -------------------------------------------------------------------------- */

static void fpu_acquire(struct engine_vcpu *vcpu)
{
	if (vcpu->fpu_live)
		return;
	vcpu->fpu_live = true;
	__asm__ volatile("xrstor64 %0" : : "m"(vcpu->xsave), "a"(XSAVE_PARTS), "d"(0) : "memory");
}

void soft_fpu_release(struct engine_vcpu *vcpu)
{
	if (!vcpu->fpu_live)
		return;
	__asm__ volatile("xsave64 %0" : "+m"(vcpu->xsave) : "a"(XSAVE_PARTS), "d"(0) : "memory");
	vcpu->fpu_live = false;
}

/* The C library expects its own control words. */
static void fpu_reset(void)
{
	static const uint32_t mxcsr = 0x1f80;

	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
}

uint64_t soft_enter(struct engine_vcpu *vcpu, const void *code)
{
	fpu_acquire(vcpu);
	soft_cache_enter(vcpu->engine)(code);
	if (SOFT_C_USES_VECTORS)
		soft_fpu_release(vcpu);
	return vcpu->reason;
}

/* ---- modes -------------------------------------------------------------------------------------
 */

/* Blocks are translated for these; the jump tables only know the view. */
static void set_vector_modes(struct engine_vcpu *vcpu)
{
	const struct vcpu_state *state = &vcpu->state;
	bool no_vector = (state->cr0 & (CR0_TS | CR0_EM)) || !(state->cr4 & CR4_OSFXSR);
	bool no_avx = !(state->cr4 & CR4_OSXSAVE) || (state->xcr0 & 6) != 6;

	if (no_vector == vcpu->no_vector && no_avx == vcpu->no_avx)
		return;
	vcpu->no_vector = no_vector;
	vcpu->no_avx = no_avx;
	for (int view = 0; view < VIEW_COUNT; view++)
		soft_jump_flush(vcpu, (enum soft_view)view);
}

void soft_update_mode(struct engine_vcpu *vcpu)
{
	const struct vcpu_state *state = &vcpu->state;

	if (soft_real_mode(vcpu))
		vcpu->cpl = 0;
	if (vcpu->cpl == 3)
		vcpu->view = VIEW_USER;
	else if ((state->cr4 & CR4_SMAP) && !(vcpu->system_flags & FLAG_AC))
		vcpu->view = VIEW_KERNEL;
	else
		vcpu->view = VIEW_KERNEL_USER;
	vcpu->jumps = offsetof(struct engine_vcpu, jump[vcpu->view]);
	set_vector_modes(vcpu);
	vcpu->slow = !soft_code64(vcpu) || (vcpu->system_flags & FLAG_TF) || (state->dr7 & 0xff) ||
		     vcpu->cpl == 1 || vcpu->cpl == 2 ||
		     (vcpu->cpl == 3 && soft_checks_alignment(vcpu));
}

void soft_set_rflags(struct engine_vcpu *vcpu, uint64_t rflags)
{
	vcpu->flags = rflags & FLAGS_HOST;
	vcpu->system_flags = (uint32_t)(rflags & FLAGS_SYSTEM);
	vcpu->interrupts_on = (uint32_t)(rflags & FLAG_IF);
	soft_update_mode(vcpu);
}

/* ---- events -------------------------------------------------------------------------------------
 */

static bool takes_interrupts(const struct engine_vcpu *vcpu)
{
	const struct vcpu_state *state = &vcpu->state;

	return vcpu->interrupts_on && !vcpu->shadow && !state->interrupt_injected &&
	       !state->exception_pending && !state->exception_injected && !state->nmi_injected &&
	       !vcpu->debug_pending;
}

bool soft_vcpu_can_interrupt(struct engine_vcpu *vcpu)
{
	const struct engine_exit *exit = vcpu->exit;
	bool faults = exit && (vcpu->open == OPEN_MSR_READ || vcpu->open == OPEN_MSR_WRITE) &&
		      exit->msr.fault;

	return takes_interrupts(vcpu) && !faults && !vcpu->has_stashed;
}

int soft_vcpu_interrupt(struct engine_vcpu *vcpu, uint8_t vector)
{
	if (!soft_vcpu_can_interrupt(vcpu))
		return -EBUSY;
	vcpu->state.interrupt_injected = 1;
	vcpu->state.interrupt_vector = vector;
	vcpu->state.interrupt_soft = 0;
	return 0;
}

int soft_vcpu_nmi(struct engine_vcpu *vcpu)
{
	if (vcpu->state.nmi_pending < 2)
		vcpu->state.nmi_pending++;
	return 0;
}

void soft_vcpu_want_window(struct engine_vcpu *vcpu, bool want)
{
	vcpu->window_wanted = want;
}

static int deliver_exception(struct engine_vcpu *vcpu)
{
	struct vcpu_state *state = &vcpu->state;
	int err;

	vcpu->fault = (struct soft_fault){ .vector = state->exception_vector,
					   .has_error = state->exception_has_error_code,
					   .trap = state->exception_vector == VECTOR_DB,
					   .error = state->exception_error_code,
					   .cr2 = state->cr2 };
	if (state->exception_has_payload && state->exception_vector == VECTOR_PF)
		vcpu->fault.cr2 = state->exception_payload;
	if (state->exception_has_payload && state->exception_vector == VECTOR_DB)
		vcpu->fault.dr6 = state->exception_payload;
	err = soft_deliver_fault(vcpu);
	state->exception_pending = state->exception_injected = 0;
	state->exception_has_payload = 0;
	return err;
}

static int deliver_injected(struct engine_vcpu *vcpu, uint8_t vector, enum soft_event event,
			    uint8_t *flag)
{
	int err = soft_deliver(vcpu, vector, event, false, 0, vcpu->rip);

	*flag = 0;
	return err == SOFT_FAULT ? soft_deliver_fault(vcpu) : err;
}

static int deliver_nmi(struct engine_vcpu *vcpu)
{
	vcpu->state.nmi_pending--;
	vcpu->state.nmi_masked = 1;
	vcpu->state.nmi_injected = 1;
	return SOFT_OK;
}

static int deliver_events(struct engine_vcpu *vcpu)
{
	struct vcpu_state *state = &vcpu->state;
	int err;

	if (state->exception_pending || state->exception_injected)
		return deliver_exception(vcpu);
	if (vcpu->debug_pending) {
		vcpu->fault = (struct soft_fault){ .vector = VECTOR_DB,
						   .trap = 1,
						   .dr6 = vcpu->debug_hits };
		err = soft_deliver_fault(vcpu);
		/* Not before: a signal may break the delivery off, and the trap is still due. */
		vcpu->debug_pending = false;
		return err;
	}
	if (state->nmi_pending && !state->nmi_masked && !state->nmi_injected && !vcpu->shadow)
		deliver_nmi(vcpu);
	if (state->nmi_injected)
		return deliver_injected(vcpu, VECTOR_NMI, EVENT_INTERRUPT, &state->nmi_injected);
	if (state->interrupt_injected)
		return deliver_injected(vcpu, state->interrupt_vector,
					state->interrupt_soft ? EVENT_SOFT : EVENT_INTERRUPT,
					&state->interrupt_injected);
	return SOFT_OK;
}

/* ---- the loop -----------------------------------------------------------------------------------
 */

/* Asked to leave: for the caller, or for another vCPU's sake. */
static int obey_stop(struct engine_vcpu *vcpu)
{
	atomic_store(&vcpu->stop, 0);
	soft_safe_point(vcpu);
	if (!atomic_exchange(&vcpu->kicked, 0))
		return SOFT_OK;
	vcpu->pending.kind = EXIT_KICKED;
	return SOFT_EXIT;
}

static int after_step(struct engine_vcpu *vcpu, int err)
{
	if (err == SOFT_FAULT) {
		vcpu->device_count = 0;
		err = soft_deliver_fault(vcpu);
	}
	if (err == SOFT_OK && vcpu->kick_after) {
		vcpu->kick_after = false;
		vcpu->pending.kind = EXIT_KICKED;
		return SOFT_EXIT;
	}
	return err;
}

/* The instruction of the last exit starts anew, with its answer. */
static int finish_open(struct engine_vcpu *vcpu)
{
	enum soft_open open = vcpu->open;
	int err;

	if (open != OPEN_MMIO)
		vcpu->answered = true;
	err = soft_step(vcpu);
	vcpu->answered = false;
	if (err == SOFT_EXIT && vcpu->open == OPEN_MMIO && open == OPEN_MMIO)
		return err;
	if (err != SOFT_AGAIN)
		vcpu->open = OPEN_NONE;
	return after_step(vcpu, err);
}

/* A TLB miss. SOFT_OK: try again at vcpu->target. */
static int fill(struct engine_vcpu *vcpu, enum soft_access access, bool odd)
{
	int err;

	vcpu->unsettled = vcpu->target;
	err = soft_tlb_fill(vcpu, vcpu->argument, access);
	if (err)
		soft_settle(vcpu, vcpu->target);
	vcpu->unsettled = 0;
	/* Faults that the stepper judges: odd operands, #SS or #GP. */
	if (err == SOFT_FAULT && (odd || vcpu->fault.vector != VECTOR_PF))
		err = SOFT_AGAIN;
	return err == SOFT_AGAIN ? soft_step(vcpu) : err;
}

/* What a loop's look found missing for a later access: that one's faults are not due yet. */
static int fill_other(struct engine_vcpu *vcpu)
{
	int err;

	if (soft_tlb_has(vcpu, vcpu->argument, ACCESS_READ))
		return SOFT_OK;
	vcpu->unsettled = vcpu->target;
	err = soft_tlb_fill(vcpu, vcpu->argument, ACCESS_READ);
	vcpu->unsettled = 0;
	if (err == SOFT_FAULT || err == SOFT_AGAIN)
		return SOFT_OK;
	if (err)
		soft_settle(vcpu, vcpu->target);
	return err;
}

/*
 * The same for one that looked for others, too (translate/share.c). If they cannot be served
 * together the guest goes on in a block where each looks for itself.
 */
static int fill_shared(struct engine_vcpu *vcpu, enum soft_access access, bool odd)
{
	uint32_t reach = (uint32_t)vcpu->reach;
	uint64_t low = vcpu->argument - SOFT_REACH_BELOW(reach);
	uint64_t high = vcpu->argument + SOFT_REACH_ABOVE(reach) - 1;
	int err = SOFT_OK;

	if (reach & SOFT_REACH_OTHER)
		err = fill_other(vcpu);
	else if (!soft_tlb_has(vcpu, vcpu->argument, access))
		err = fill(vcpu, access, odd);
	if (err || vcpu->stepped)
		return err;
	if ((low ^ high) < PAGE_BYTES &&
	    soft_tlb_has(vcpu, low, reach & SOFT_REACH_WRITE ? ACCESS_WRITE : access))
		return SOFT_OK;
	soft_settle(vcpu, vcpu->target);
	/* A page's first write is no reason to give up. */
	if ((low ^ high) >= PAGE_BYTES || vcpu->split_page == low / PAGE_BYTES)
		soft_block_split(vcpu->engine, vcpu->target);
	vcpu->split_page = low / PAGE_BYTES;
	vcpu->alone = true;
	return SOFT_OK;
}

static int serve_miss(struct engine_vcpu *vcpu, uint64_t reason, const uint8_t **ret_code)
{
	uint64_t kind = reason & ~(uint64_t)SOFT_REASON_SHARED;
	bool odd = kind == SOFT_REASON_READ_ODD || kind == SOFT_REASON_WRITE_ODD;
	enum soft_access access = kind == SOFT_REASON_WRITE || kind == SOFT_REASON_WRITE_ODD
					  ? ACCESS_WRITE
					  : ACCESS_READ;
	int err = reason & SOFT_REASON_SHARED ? fill_shared(vcpu, access, odd)
					      : fill(vcpu, access, odd);

	if (!err && !vcpu->stepped && !vcpu->alone)
		*ret_code = (const uint8_t *)(uintptr_t)vcpu->target;
	return err;
}

/*
 * Where to go on after code was left for another block. *ret_code stays NULL if there is nothing to
 * enter: then the result says what is next.
 */
static int next_block(struct engine_vcpu *vcpu, uint64_t reason, const uint8_t **ret_code)
{
	bool stale = reason == SOFT_REASON_STALE || reason == SOFT_REASON_STALE_SLOT;
	bool link = reason == SOFT_REASON_LINK || reason == SOFT_REASON_LINK_SLOT;
	bool slot = reason == SOFT_REASON_LOOKUP || reason == SOFT_REASON_LINK_SLOT ||
		    reason == SOFT_REASON_STALE_SLOT;
	uint8_t *site = (uint8_t *)(uintptr_t)vcpu->argument;
	uint64_t generation = soft_cache_generation(vcpu->engine);
	struct soft_block *block;
	bool alone;
	int err;

	if (reason == SOFT_REASON_LOOKUP && soft_undo_jump(vcpu, vcpu->argument)) {
		soft_flags_from_slot(vcpu);
		return soft_step(vcpu);
	}
	alone = vcpu->alone;
	vcpu->alone = false;
	vcpu->slot_pending = slot;
	err = soft_block_get(vcpu, (uint8_t)((slot ? MODE_SLOT : 0) | (alone ? MODE_ALONE : 0)),
			     &block);
	if (err && slot)
		soft_flags_from_slot(vcpu);
	vcpu->slot_pending = false;
	if (err)
		return err == SOFT_AGAIN ? soft_step(vcpu) : err;
	if (alone)
		; /* for this once */
	else if (link && !block->gpa_behind)
		soft_block_link(vcpu, site, block, generation);
	else if (slot && !link)
		soft_jump_remember(vcpu, block->rip, block->code);
	if (stale)
		soft_block_forward(vcpu, site, block, generation);
	*ret_code = block->code;
	return SOFT_OK;
}

/* The instruction at a block's end, which has been decoded if there was room to keep that. */
static int step_known(struct engine_vcpu *vcpu)
{
	const struct soft_insn *insn = (const struct soft_insn *)(uintptr_t)vcpu->argument;

	return insn ? soft_step_known(vcpu, insn) : soft_step(vcpu);
}

/* What guest code was left for. *ret_code: where to enter it again, or NULL. */
static int serve(struct engine_vcpu *vcpu, uint64_t reason, const uint8_t **ret_code)
{
	*ret_code = NULL;
	if (reason & SOFT_REASON_SHARED)
		return serve_miss(vcpu, reason, ret_code);
	switch (reason) {
	case SOFT_REASON_READ:
	case SOFT_REASON_WRITE:
	case SOFT_REASON_READ_ODD:
	case SOFT_REASON_WRITE_ODD:
		return serve_miss(vcpu, reason, ret_code);
	case SOFT_REASON_LOOKUP:
	case SOFT_REASON_LINK:
	case SOFT_REASON_LINK_SLOT:
	case SOFT_REASON_STALE:
	case SOFT_REASON_STALE_SLOT:
		return next_block(vcpu, reason, ret_code);
	case SOFT_REASON_STEP_SLOT:
		soft_flags_from_slot(vcpu);
		return step_known(vcpu);
	case SOFT_REASON_STEP:
		return step_known(vcpu);
	case SOFT_REASON_STOP:
		soft_settle(vcpu, vcpu->target);
		return SOFT_OK;
	case SOFT_REASON_FAULT:
		return soft_fault_from_host(vcpu);
	default:
		return SOFT_OK;
	}
}

/* Nothing has come up that only a whole turn sees. */
static bool goes_on(const struct engine_vcpu *vcpu)
{
	return !atomic_load_explicit(&vcpu->stop, memory_order_relaxed) && !vcpu->slow &&
	       !vcpu->shadow && !vcpu->debug_pending && !vcpu->kick_after &&
	       !(vcpu->system_flags & FLAG_RF) &&
	       !(vcpu->state.nmi_pending && !vcpu->state.nmi_masked) &&
	       !(vcpu->window_wanted && vcpu->interrupts_on);
}

/* From C into translated code at vcpu->rip, with the flags in the slot. */
static int find_code(struct engine_vcpu *vcpu, const uint8_t **ret_code)
{
	const struct soft_jump_entry *table = vcpu->jump[vcpu->view];
	uint32_t index = soft_jump_index(vcpu->rip);
	const struct soft_jump_entry *entry = &table[index];

	if (entry->rip != vcpu->rip)
		entry = &table[index ^ JUMP_INDEX_SECOND / 16];
	vcpu->argument = 0;
	soft_flags_to_slot(vcpu);
	if (vcpu->alone || entry->rip != vcpu->rip)
		return next_block(vcpu, SOFT_REASON_LOOKUP, ret_code);
	*ret_code = (const uint8_t *)(uintptr_t)entry->code;
	return SOFT_OK;
}

static int run_guest(struct engine_vcpu *vcpu)
{
	const uint8_t *code;
	int err = SOFT_OK;

	if (vcpu->slow || vcpu->shadow || (vcpu->system_flags & FLAG_RF))
		return soft_step(vcpu);
	while (!err && goes_on(vcpu)) {
		code = NULL;
		vcpu->stepped = false;
		err = find_code(vcpu, &code);
		while (!err && code)
			err = serve(vcpu, soft_enter(vcpu, code), &code);
	}
	return err;
}

static int turn(struct engine_vcpu *vcpu)
{
	int err;

	if (vcpu->open != OPEN_NONE) {
		err = finish_open(vcpu);
		if (err == SOFT_EXIT)
			return err;
	}
	if (atomic_load(&vcpu->stop)) {
		err = obey_stop(vcpu);
		if (err)
			return err;
	}
	if (vcpu->open != OPEN_NONE)
		return SOFT_AGAIN;
	err = deliver_events(vcpu);
	if (err)
		return err;
	if (vcpu->window_wanted && takes_interrupts(vcpu)) {
		vcpu->pending.kind = EXIT_WINDOW;
		return SOFT_EXIT;
	}
	return after_step(vcpu, run_guest(vcpu));
}

static void take_answer(struct engine_vcpu *vcpu)
{
	const struct engine_exit *exit = vcpu->exit;

	vcpu->exit = NULL;
	if (!exit)
		return;
	if (vcpu->open == OPEN_MMIO)
		vcpu->device_count++;
	if (vcpu->open == OPEN_MSR_READ || vcpu->open == OPEN_MSR_WRITE) {
		vcpu->pending.msr.fault = exit->msr.fault;
		vcpu->pending.msr.value = exit->msr.value;
	}
}

static void begin(struct engine_vcpu *vcpu)
{
	this_vcpu = vcpu;
	soft_signals_thread(vcpu);
	soft_host_set_gs(vcpu);
	vcpu->running = true;
	atomic_store(&vcpu->in_run, 1);
	soft_safe_point(vcpu);
}

static void end(struct engine_vcpu *vcpu)
{
	soft_fpu_release(vcpu);
	fpu_reset();
	vcpu->running = false;
	atomic_store(&vcpu->in_run, 0);
	this_vcpu = NULL;
}

/* C was left in the middle of something that translated code waits for. */
static void settle_abandoned(struct engine_vcpu *vcpu)
{
	soft_pause_abandoned(vcpu);
	soft_step_abandoned(vcpu);
	if (vcpu->unsettled)
		soft_settle(vcpu, vcpu->unsettled);
	vcpu->unsettled = 0;
	if (vcpu->slot_pending)
		soft_flags_from_slot(vcpu);
	vcpu->slot_pending = false;
}

/* An access that a signal breaks off comes back here. */
static void loop(struct engine_vcpu *vcpu)
{
	if (setjmp(vcpu->abandon)) {
		vcpu->answered = false;
		settle_abandoned(vcpu);
	}
	while (turn(vcpu) != SOFT_EXIT)
		;
}

int soft_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	if (vcpu->has_stashed) {
		vcpu->has_stashed = false;
		*exit = vcpu->stashed;
		vcpu->exit = exit;
		return 0;
	}
	take_answer(vcpu);
	begin(vcpu);
	loop(vcpu);
	end(vcpu);
	*exit = vcpu->pending;
	vcpu->exit = vcpu->open == OPEN_NONE || exit->kind == EXIT_KICKED ? NULL : exit;
	return 0;
}

/* Only the open instruction; false: a kick came in between. */
static int finish_loop(struct engine_vcpu *vcpu)
{
	if (setjmp(vcpu->abandon)) {
		vcpu->answered = false;
		settle_abandoned(vcpu);
		return SOFT_AGAIN;
	}
	return finish_open(vcpu);
}

int soft_vcpu_finish_exit(struct engine_vcpu *vcpu)
{
	int err;

	if (vcpu->has_stashed)
		return -EAGAIN;
	take_answer(vcpu);
	if (vcpu->open == OPEN_NONE)
		return 0;
	begin(vcpu);
	err = finish_loop(vcpu);
	end(vcpu);
	if (err != SOFT_EXIT)
		return err == SOFT_AGAIN ? -EAGAIN : 0;
	vcpu->stashed = vcpu->pending;
	vcpu->has_stashed = true;
	return -EAGAIN;
}

/* ---- kicks
 * ---------------------------------------------------------------------------------------- */

int soft_vcpu_bind(struct engine_vcpu *vcpu)
{
	pid_t thread;
	int err = engine_kick_accept(&thread);

	if (err == 0)
		atomic_store(&vcpu->thread, thread);
	return err;
}

/*
 * Called by a signal handler of the very thread (a timer's), our signal would come at once, find
 * the pc in that handler, and change nothing. Blocked, it comes when the handler returns, which
 * restores the mask.
 */
static void wait_for_handler(void)
{
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, ENGINE_KICK_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &kick, NULL);
}

void soft_vcpu_kick(struct engine_vcpu *vcpu)
{
	int thread;

	if (atomic_exchange(&vcpu->kicked, 1))
		return;
	atomic_store(&vcpu->stop, 1);
	thread = atomic_load(&vcpu->thread);
	if (this_vcpu == vcpu)
		wait_for_handler();
	if (thread)
		syscall(SYS_tgkill, getpid(), thread, ENGINE_KICK_SIGNAL);
}
