/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU leaves its seat, and comes to another (docs/moves.md).
 *
 * A wish to leave is something posted like any other, so it gets the thread out of the guest and out
 * of sleep. A parked thread sleeps on `activity` too; only vcpu_arrive(), vcpu_take_back(),
 * vcpu_stop() and vcpu_expect() wake it, and what has arrived is handed over by `arrival`.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/host_clock.h"
#include "node/vcpu_thread.h"

/* A vCPU that comes may be ahead of this node's clock by what the nodes' clocks differ. */
#define AHEAD_SLEEP_NS_MAX 1000000ull

/* The vCPU runs here for the first time. */
void vcpu_note_move(struct vcpu *vcpu)
{
	uint64_t now_ns = now_of(vcpu);
	const uint64_t at_ns[VCPU_MOVE_PARTS + 1] = { vcpu->decided_ns, vcpu->stopped_ns,
						      vcpu->came_ns, vcpu->woken_ns, now_ns };

	/* The first two times are another node's: by how much the clocks differ they may be late. */
	for (int part = 0; part < VCPU_MOVE_PARTS; part++)
		atomic_store(&vcpu->move_part_ns[part], since(at_ns[part], at_ns[part + 1]));
	atomic_store(&vcpu->move_ns, since(vcpu->decided_ns, now_ns));
	vcpu->decided_ns = 0;
}

/*
 * To leave is a wish: where it cannot be, the vCPU runs on. While the engine is in the middle of an
 * instruction the wish waits for the next exit.
 */
static void leave(struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;
	struct vcpu_moment moment = { .state = &vcpu->state };
	uint16_t to = (uint16_t)vcpu->leaving_to;
	int error;

	vcpu_sync_tpr(vcpu);
	error = vcpu_save_state(vcpu);
	if (error == -EAGAIN)
		return;
	vcpu->leaving_to = NODE_NONE;
	if (config->ops->leave(config->ctx, config->number, to, error))
		return;
	lapic_inbox_drain(&vcpu->inbox, &vcpu->state.lapic);
	moment.guest_tsc = tsc_line_at(&vcpu->tsc, host_clock_tsc());
	moment.clock_ns = now_of(vcpu);
	moment.decided_ns = atomic_load(&vcpu->leave_ns);
	vcpu->stopped_ns = moment.clock_ns;
	vcpu->stopped_tsc = moment.guest_tsc;
	if (config->ops->left(config->ctx, config->number, &moment))
		return;
	vcpu->away = true;
	/* Where its next seat is on this host, too, and waits for this core, it goes first. */
	sched_yield();
	stall_time_end(&vcpu->here, vcpu->here.since_ns, moment.clock_ns);
	vcpu_timer_disarm(vcpu);
	if (config->engine_ops->vcpu_parked)
		config->engine_ops->vcpu_parked(vcpu->engine_vcpu);
	if (config->ops->idle)
		config->ops->idle(config->ctx, config->number, true);
}

/* Until the vCPU's clocks have come to where they were elsewhere. */
static void wait_for_clock(const struct vcpu *vcpu)
{
	for (;;) {
		uint64_t now_ns = now_of(vcpu), wait_ns;
		struct timespec ts;

		if (atomic_load(&vcpu->stop))
			return;
		if (now_ns < vcpu->stopped_ns)
			wait_ns = vcpu->stopped_ns - now_ns;
		else if ((int64_t)(tsc_line_at(&vcpu->tsc, host_clock_tsc()) - vcpu->stopped_tsc) <
			 0)
			wait_ns = 1000;
		else
			return;
		ts = to_timespec(wait_ns < AHEAD_SLEEP_NS_MAX ? wait_ns : AHEAD_SLEEP_NS_MAX);
		nanosleep(&ts, NULL);
	}
}

static bool take_in(struct vcpu *vcpu, struct vcpu_end *ret_end)
{
	const struct vcpu_config *config = &vcpu->config;
	bool is_new = atomic_exchange(&vcpu->arrival, ARRIVAL_NONE) == ARRIVAL_NEW;
	int error;

	atomic_store(&vcpu->expected, false);
	vcpu->woken_ns = now_of(vcpu);
	if (is_new)
		vcpu->state = vcpu->arrived;
	error = vcpu_load_state(vcpu);
	if (error && !is_new)
		return vcpu_fail(ret_end, "cannot take the vCPU back", error);
	if (error) {
		config->ops->refused(config->ctx, config->number);
		return true;
	}
	wait_for_clock(vcpu);
	/* What was wished while it was elsewhere was for another stay. */
	atomic_store(&vcpu->leave_to, NODE_NONE);
	vcpu->away = false;
	stall_time_begin(&vcpu->here, now_of(vcpu));
	vcpu_pace_restart(vcpu, now_of(vcpu));
	vcpu_note_program(vcpu, vcpu->state.cr3, vcpu->state.rip, now_of(vcpu));
	if (config->ops->idle)
		config->ops->idle(config->ctx, config->number, false);
	config->ops->arrived(config->ctx, config->number);
	atomic_store(&vcpu->was_here, true);
	return true;
}

/* Until the vCPU comes, or may come, or the thread is to end. */
static void park(struct vcpu *vcpu)
{
	if (atomic_exchange(&vcpu->expected, false)) {
		vcpu->config.ops->look(vcpu->config.ctx, vcpu->config.number);
		return;
	}
	atomic_store(&vcpu->activity, VCPU_PARKED);
	if (atomic_load(&vcpu->arrival) == ARRIVAL_NONE && !atomic_load(&vcpu->stop) &&
	    !atomic_load(&vcpu->expected))
		syscall(SYS_futex, &vcpu->activity, FUTEX_WAIT_PRIVATE, VCPU_PARKED, NULL, NULL, 0);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
}

void vcpu_leave_if_wished(struct vcpu *vcpu)
{
	if (atomic_load_explicit(&vcpu->leave_to, memory_order_relaxed) != NODE_NONE)
		vcpu->leaving_to = atomic_exchange(&vcpu->leave_to, NODE_NONE);
	if (vcpu->leaving_to != NODE_NONE)
		leave(vcpu);
}

bool vcpu_wait_elsewhere(struct vcpu *vcpu, struct vcpu_end *ret_end)
{
	if (atomic_load(&vcpu->arrival) != ARRIVAL_NONE)
		return take_in(vcpu, ret_end);
	park(vcpu);
	return true;
}
