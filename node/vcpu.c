/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread (contract: vcpu.h).
 *
 * `activity` is what the thread announces to others, and the futex that it sleeps on. The order
 * that no wake-up can get lost in:
 *
 *      the thread                              who posts
 *      activity := IN_GUEST or SLEEPING        inbox, stop or resync := something
 *      anything posted? then do not go         activity IN_GUEST: kick; SLEEPING: wake
 *
 * All of these are sequentially consistent, so at least one of the two sees the other. A kick that
 * comes late only makes a run end early. That no kick gets lost is the engine's part
 * (engine/kick.h).
 *
 * Everything else is in the files that vcpu_thread.h lists.
 */
#include "node/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/placement.h"
#include "node/vcpu_thread.h"

/* The kernel may be this late with a sleep's end; its default of 50 us would be seen in every guest
 * timer. */
#define TIMER_SLACK_NS 1000ul

/* What runs is looked at no more often: an engine may have to ask the kernel. */
#define PROGRAM_NS 2000000u

/* ---- running --------------------------------------------------------------------------------- */

/* CR8 and TPR are one register; the guest may have written either. */
uint8_t vcpu_sync_tpr(struct vcpu *vcpu)
{
	uint8_t cr8 = vcpu->config.engine_ops->vcpu_tpr(vcpu->engine_vcpu) & 0xf;

	if (vcpu->state.lapic.tpr >> 4 != cr8)
		vcpu->state.lapic.tpr = (uint32_t)cr8 << 4;
	return cr8;
}

/* Hands the engine what is due, and asks for a window when it cannot take it yet. */
static int inject(struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->config.engine_ops;
	uint8_t cr8 = vcpu_sync_tpr(vcpu);
	int vector, error = 0;

	if (vcpu->state.lapic.nmi_pending) {
		vcpu->state.lapic.nmi_pending = 0;
		error = engine->vcpu_nmi(vcpu->engine_vcpu);
		if (error)
			return error;
	}
	vector = lapic_next(&vcpu->state.lapic, cr8);
	if (vector < 0) {
		engine->vcpu_want_window(vcpu->engine_vcpu, false);
	} else if (engine->vcpu_can_interrupt(vcpu->engine_vcpu)) {
		engine->vcpu_want_window(vcpu->engine_vcpu, false);
		error = engine->vcpu_interrupt(vcpu->engine_vcpu, (uint8_t)vector);
		if (!error)
			lapic_accept(&vcpu->state.lapic, (uint8_t)vector);
		count(&vcpu->interrupt_count, 1);
	} else {
		engine->vcpu_want_window(vcpu->engine_vcpu, true);
	}
	return error;
}

/* An interrupt ends HLT only if the guest takes it: with IF clear it waits for an NMI or INIT. */
static bool ends_halt(struct vcpu *vcpu)
{
	if (vcpu->state.lapic.nmi_pending)
		return true;
	return lapic_next(&vcpu->state.lapic, vcpu_sync_tpr(vcpu)) >= 0 &&
	       vcpu->config.engine_ops->vcpu_can_interrupt(vcpu->engine_vcpu);
}

bool vcpu_fail(struct vcpu_end *ret_end, const char *reason, int error)
{
	*ret_end = (struct vcpu_end){ .kind = VCPU_END_FAILED,
				      .reason = reason,
				      .detail = (uint64_t)-error };
	return false;
}

/* For who decides where the vCPU should be, at its stalls. */
void vcpu_note_program(struct vcpu *vcpu, uint64_t cr3, uint64_t rip, uint64_t now_ns)
{
	vcpu->program_ns = now_ns;
	atomic_store_explicit(&vcpu->program, placement_program(cr3, rip), memory_order_relaxed);
}

/* A kick has found it somewhere. */
static void note_where(struct vcpu *vcpu, uint64_t now_ns)
{
	const struct engine_ops *engine = vcpu->config.engine_ops;
	uint64_t rip = engine->vcpu_rip(vcpu->engine_vcpu);

	atomic_store(&vcpu->rip, rip);
	if (since(vcpu->program_ns, now_ns) >= PROGRAM_NS && vcpu->config.ops->wants_program &&
	    vcpu->config.ops->wants_program(vcpu->config.ctx))
		vcpu_note_program(vcpu, engine->vcpu_cr3(vcpu->engine_vcpu), rip, now_ns);
}

/* Enters the guest once. False: the thread ends. */
static bool run_once(struct vcpu *vcpu, uint64_t now_ns, struct vcpu_end *ret_end)
{
	int error = inject(vcpu);

	if (error)
		return vcpu_fail(ret_end, "cannot inject an interrupt", error);
	error = vcpu_timer_arm(vcpu, now_ns);
	if (error)
		return vcpu_fail(ret_end, "cannot arm the timer", error);
	count(&vcpu->entry_count, 1);
	if (!vcpu_announce(vcpu, VCPU_IN_GUEST))
		return true;
	if (vcpu->decided_ns)
		vcpu_note_move(vcpu);
	error = vcpu->config.engine_ops->vcpu_run(vcpu->engine_vcpu, &vcpu->exit);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	if (error)
		return vcpu_fail(ret_end, "cannot run the vCPU", error);
	if (vcpu->exit.kind == EXIT_KICKED)
		note_where(vcpu, now_ns);
	return vcpu_handle_exit(vcpu, ret_end);
}

/* The timer's interrupt, unless the vCPU was stalled so much that it is to run first. */
static void tick(struct vcpu *vcpu, uint64_t now_ns)
{
	struct lapic_state *lapic = &vcpu->state.lapic;
	uint64_t deadline_ns = lapic_deadline(lapic), wait_ns = 0;

	vcpu->timer_late_ns = 0;
	if (deadline_ns > now_ns)
		return;
	if (vcpu->state.run_state == VCPU_RUNNABLE && vcpu->config.ops->ticks)
		vcpu->config.ops->ticks(vcpu->config.ctx, vcpu->config.number);
	if (vcpu->state.run_state == VCPU_RUNNABLE)
		wait_ns = vcpu_pace_wait(vcpu, deadline_ns, now_ns);
	if (wait_ns) {
		vcpu->timer_late_ns = now_ns + wait_ns;
		return;
	}
	vcpu_pace_restart(vcpu, now_ns);
	lapic_tick(&vcpu->config.lapic, lapic, now_ns);
}

/* Takes in what has come from outside since. False: the thread ends. */
static bool take_events(struct vcpu *vcpu, uint64_t now_ns, struct vcpu_end *ret_end)
{
	struct lapic_state *lapic = &vcpu->state.lapic;
	int error;

	lapic_inbox_drain(&vcpu->inbox, lapic);
	tick(vcpu, now_ns);
	error = vcpu_take_line(vcpu);
	if (error)
		return vcpu_fail(ret_end, "cannot set the TSC", error);
	if (lapic->init_pending) {
		if (lapic->bsp) {
			*ret_end = (struct vcpu_end){ .kind = VCPU_END_INIT };
			return false;
		}
		error = vcpu_handle_init(vcpu);
		if (error == -EAGAIN)
			return true;
		if (error)
			return vcpu_fail(ret_end, "cannot carry out an INIT", error);
	}
	if (lapic->sipi_pending) {
		error = vcpu_handle_sipi(vcpu);
		if (error)
			return vcpu_fail(ret_end, "cannot carry out a start-up IPI", error);
	}
	return true;
}

static bool run_step(struct vcpu *vcpu, struct vcpu_end *ret_end)
{
	uint64_t now_ns = now_of(vcpu);
	bool init_waits;

	if (!take_events(vcpu, now_ns, ret_end))
		return false;
	atomic_store_explicit(&vcpu->run_state_seen, vcpu->state.run_state, memory_order_relaxed);
	init_waits = vcpu->state.lapic.init_pending;
	switch (vcpu->state.run_state) {
	case VCPU_WAIT_FOR_SIPI:
		vcpu_sleep_until(vcpu, UINT64_MAX);
		return true;
	case VCPU_HALTED:
		if (init_waits || ends_halt(vcpu))
			vcpu->state.run_state = VCPU_RUNNABLE;
		else
			vcpu_sleep_until(vcpu, lapic_deadline(&vcpu->state.lapic));
		return true;
	default:
		return run_once(vcpu, now_ns, ret_end);
	}
}

static bool step(struct vcpu *vcpu, struct vcpu_end *ret_end)
{
	if (atomic_load(&vcpu->stop)) {
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_STOPPED };
		return false;
	}
	if (vcpu->away)
		return vcpu_wait_elsewhere(vcpu, ret_end);
	vcpu_leave_if_wished(vcpu);
	return vcpu->away || run_step(vcpu, ret_end);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Signals of the process are not for vCPU threads; kicks and what a bug raises are. */
static void set_signals(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, ENGINE_KICK_SIGNAL);
	sigdelset(&set, TIMER_SIGNAL);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGILL);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGABRT);
	sigdelset(&set, SIGTRAP);
	sigdelset(&set, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

static int prepare(struct vcpu *vcpu)
{
	char name[16];
	int error;

	snprintf(name, sizeof(name), "vcpu %u", vcpu->config.number);
	pthread_setname_np(pthread_self(), name);
	set_signals();
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
	error = vcpu->config.engine_ops->vcpu_bind(vcpu->engine_vcpu);
	if (error)
		return error;
	error = vcpu_timer_create(vcpu);
	if (error)
		return error;
	atomic_store(&vcpu->thread_id, gettid());
	if (vcpu->config.ops->started)
		error = vcpu->config.ops->started(vcpu->config.ctx, vcpu->config.number);
	if (error || vcpu->away)
		return error;
	atomic_store(&vcpu->was_here, true);
	stall_time_begin(&vcpu->here, now_of(vcpu));
	return vcpu_load_state(vcpu);
}

static void *run_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vcpu_end end = { .kind = VCPU_END_STOPPED };
	int error = prepare(vcpu);

	if (error)
		vcpu_fail(&end, "cannot prepare the vCPU", error);
	while (!error && step(vcpu, &end))
		;
	atomic_store(&vcpu->activity, VCPU_ENDED);
	vcpu_timer_destroy(vcpu);
	end.rip = vcpu->config.engine_ops->vcpu_rip(vcpu->engine_vcpu);
	vcpu->config.ops->ended(vcpu->config.ctx, vcpu->config.number, &end);
	return NULL;
}

int vcpu_create(const struct vcpu_config *config, const struct vcpu_state *state,
		struct vcpu **ret_vcpu)
{
	struct vcpu *vcpu = aligned_alloc(64, (sizeof(*vcpu) + 63) / 64 * 64);
	int error;

	if (!vcpu)
		return -ENOMEM;
	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->config = *config;
	vcpu->state = *state;
	vcpu->away = config->away;
	vcpu->leaving_to = NODE_NONE;
	atomic_store(&vcpu->leave_to, NODE_NONE);
	atomic_store(&vcpu->schedstat_fd, -1);
	atomic_store(&vcpu->timer_armed_ns, UINT64_MAX);
	lapic_inbox_clear(&vcpu->inbox);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	atomic_store(&vcpu->run_state_seen, state->run_state);
	error = config->engine_ops->vcpu_create(config->engine, config->number, &vcpu->engine_vcpu);
	if (error) {
		free(vcpu);
		return error;
	}
	*ret_vcpu = vcpu;
	return 0;
}

void vcpu_set_state(struct vcpu *vcpu, const struct vcpu_state *state)
{
	vcpu->state = *state;
	atomic_store(&vcpu->run_state_seen, state->run_state);
}

int vcpu_start(struct vcpu *vcpu)
{
	int error = pthread_create(&vcpu->thread, NULL, run_thread, vcpu);

	if (error)
		return -error;
	vcpu->started = true;
	return 0;
}

void vcpu_join(struct vcpu *vcpu)
{
	if (!vcpu->started)
		return;
	pthread_join(vcpu->thread, NULL);
	vcpu->started = false;
}

void vcpu_destroy(struct vcpu *vcpu)
{
	if (!vcpu)
		return;
	vcpu_stop(vcpu);
	vcpu_join(vcpu);
	vcpu->config.engine_ops->vcpu_destroy(vcpu->engine_vcpu);
	if (vcpu->schedstat_fd >= 0)
		close(vcpu->schedstat_fd);
	free(vcpu);
}
