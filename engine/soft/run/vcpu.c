/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a vCPU: one turn of the loop after the other, until the caller is asked for something.
 *
 *   turn:  told to stop?  ->  the open question's answer  ->  a new task's segments  ->  events to
 *          deliver  ->  a window to report?  ->  guest code, until it needs C
 *
 * Kicks (engine/kick.h). The kicker sets `kicked`, then `stop`, then signals the thread; the
 * runner clears `stop`, then takes `kicked`. The signal goes unused only where `stop` is certain to
 * be looked at before the thread can be inside the guest, or can wait for it:
 *
 *   the guest's code   is entered by a stub that looks at `stop`. From that look on, until the
 *                      registers are saved again, the handler finds the pc inside and takes the
 *                      state out there, or lets the host step on to where it can (signal.c)
 *   C's accesses       look at `stop` themselves. From that look on until the access is through,
 *                      the handler finds the pc inside and breaks it off (access.c)
 *   the rest of C      is on its way to one of these, or to the next turn, which looks. Its loops
 *                      have bounds; the longest one counts its pieces (soft_cache_empty())
 *
 * So no kick is lost, and some come twice. A pause request (pause.c) is `stop` and signal alone.
 *
 * The guest's extended state stays in the host's registers until C that might use them is called
 * (soft_fpu_release()), or run returns.
 */
#include "engine/soft/run/run.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "engine/kick.h"
#include "engine/soft/cache/pause.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/exception.h"
#include "engine/soft/cpu/extended.h"
#include "engine/soft/cpu/host.h"
#include "engine/soft/cpu/task_switch.h"
#include "engine/soft/step/stepper.h"
#include "engine/soft/tlb/doors.h"
#include "engine/soft/translate/translator.h"

/* ---- the loop -------------------------------------------------------------------------------- */

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

/*
 * A signal may break the delivery off. The instruction is not to begin anew then: it may have changed
 * what it read (ENTER, where the frames overlap), or have had a device's answer. But what a
 * breakpoint stops has done nothing, and is stopped again.
 */
static int deliver_step_fault(struct engine_vcpu *vcpu)
{
	vcpu->device_count = 0;
	if (vcpu->fault.vector == VECTOR_DB)
		return soft_deliver_fault(vcpu);
	soft_keep_fault(vcpu, false);
	return soft_deliver_events(vcpu);
}

static int after_step(struct engine_vcpu *vcpu, int err)
{
	if (err == SOFT_FAULT)
		err = deliver_step_fault(vcpu);
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
	if (err == SOFT_EXIT && vcpu->open == OPEN_MMIO)
		return err;
	if (err != SOFT_AGAIN)
		vcpu->open = OPEN_NONE;
	return after_step(vcpu, err);
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

static int run_guest(struct engine_vcpu *vcpu)
{
	const uint8_t *code;
	int err = SOFT_OK;

	if (vcpu->slow || vcpu->shadow || (vcpu->system_flags & FLAG_RF))
		return soft_step(vcpu);
	while (!err && goes_on(vcpu)) {
		code = NULL;
		vcpu->stepped = false;
		err = soft_find_code(vcpu, &code);
		while (!err && code)
			err = soft_serve(vcpu, soft_enter(vcpu, code), &code);
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
	if (atomic_load(&vcpu->stop) && !vcpu->debug_held) {
		err = obey_stop(vcpu);
		if (err)
			return err;
	}
	if (vcpu->open != OPEN_NONE)
		return SOFT_AGAIN;
	err = vcpu->task.due ? soft_task_settle(vcpu) : SOFT_OK;
	if (!err)
		err = soft_deliver_events(vcpu);
	if (err)
		return err;
	if (vcpu->task.due)
		return SOFT_AGAIN;
	if (vcpu->window_wanted && soft_takes_interrupts(vcpu)) {
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
	soft_this_vcpu = vcpu;
	soft_signals_thread(vcpu);
	soft_host_set_gs(vcpu);
	vcpu->running = true;
	soft_run_begin(vcpu);
	if (!vcpu->has_doors)
		soft_door_create(vcpu);
}

static void end(struct engine_vcpu *vcpu)
{
	soft_fpu_release(vcpu);
	soft_fpu_reset();
	vcpu->running = false;
	soft_run_end(vcpu);
	soft_this_vcpu = NULL;
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

/*
 * An access that is broken off comes back here. What broke it off comes first: an open question,
 * with which a turn begins, would meet it again and again.
 */
static void loop(struct engine_vcpu *vcpu)
{
	if (setjmp(vcpu->abandon)) {
		vcpu->answered = false;
		settle_abandoned(vcpu);
		if (atomic_load(&vcpu->stop) && obey_stop(vcpu) == SOFT_EXIT)
			return;
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

/*
 * The open instruction, and the segments of a task that it has led to, or an event. They are not
 * left to the run that follows: if that is kicked, so that the vCPU can be saved, it never comes to
 * them.
 */
static int finish(struct engine_vcpu *vcpu)
{
	int err = vcpu->open != OPEN_NONE ? finish_open(vcpu) : SOFT_OK;

	return !err && vcpu->task.due ? soft_task_settle(vcpu) : err;
}

/* Only that. SOFT_AGAIN: a kick came in between. */
static int finish_loop(struct engine_vcpu *vcpu)
{
	if (setjmp(vcpu->abandon)) {
		vcpu->answered = false;
		settle_abandoned(vcpu);
		return SOFT_AGAIN;
	}
	return finish(vcpu);
}

int soft_vcpu_finish_exit(struct engine_vcpu *vcpu)
{
	int err;

	if (vcpu->has_stashed)
		return -EAGAIN;
	take_answer(vcpu);
	if (vcpu->open == OPEN_NONE && !vcpu->task.due)
		return 0;
	begin(vcpu);
	/* A kick that has come before must not break this off: it is for the run that follows. */
	atomic_store(&vcpu->stop, 0);
	soft_safe_point(vcpu);
	err = finish_loop(vcpu);
	end(vcpu);
	if (atomic_load(&vcpu->kicked))
		atomic_store(&vcpu->stop, 1);
	if (err != SOFT_EXIT)
		return err == SOFT_AGAIN ? -EAGAIN : 0;
	vcpu->stashed = vcpu->pending;
	vcpu->has_stashed = true;
	return -EAGAIN;
}

/* ---- kicks ------------------------------------------------------------------------------------ */

int soft_vcpu_bind(struct engine_vcpu *vcpu)
{
	pid_t thread;
	int err = engine_kick_accept(&thread);

	if (err == 0)
		atomic_store(&vcpu->thread, thread);
	return err;
}

void soft_vcpu_kick(struct engine_vcpu *vcpu)
{
	atomic_store(&vcpu->kicked, 1);
	soft_stop(vcpu);
}

uint64_t soft_vcpu_work(const struct engine_vcpu *vcpu)
{
	return atomic_load_explicit(&vcpu->work_count, memory_order_relaxed);
}
