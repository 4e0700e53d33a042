/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's sleep in HLT and its timer.
 *
 * The APIC timer must get a running guest out: a POSIX timer signals this thread, whose handler
 * kicks the vCPU (so that a signal just before the guest is entered is not lost). It is only armed
 * when the guest is entered with a deadline earlier than what it is armed for: guests put their
 * timer off far more often than it expires. Who sleeps as long as that would be woken for nothing, so
 * it is disarmed before a sleep, if the last one was long. That it has gone off is known from its
 * handler: by the pod clock it may be early, since the host's timers go by another clock.
 *
 * Left out: polling before sleeping in HLT.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "node/vcpu_thread.h"

/* A sleep is never longer than this: then the deadline is computed anew from the pod clock. */
#define SLEEP_NS_MAX (10 * NS_PER_S)

/* A vCPU that last slept for so long will again; a shorter sleep is not worth the calls. */
#define LONG_SLEEP_NS 1000000ull

/* The vCPU that the calling thread runs, for the timer's signal handler. */
static _Thread_local struct vcpu *_Atomic this_vcpu;

static void on_timer(int signal_number)
{
	struct vcpu *vcpu = atomic_load(&this_vcpu);

	(void)signal_number;
	if (!vcpu)
		return;
	atomic_store(&vcpu->timer_fired, true);
	vcpu->config.engine_ops->vcpu_kick(vcpu->engine_vcpu);
}

/* Announces; false: there is something to do first. */
bool vcpu_announce(struct vcpu *vcpu, enum vcpu_activity activity)
{
	atomic_store(&vcpu->activity, (uint32_t)activity);
	if (!lapic_inbox_pending(&vcpu->inbox) && !atomic_load(&vcpu->stop) &&
	    !atomic_load(&vcpu->resync) && atomic_load(&vcpu->leave_to) == NODE_NONE)
		return true;
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	return false;
}

static struct timer_pace_times pace_times(const struct vcpu *vcpu, uint64_t now_ns)
{
	/* Not known: it had a core all the time. */
	struct timer_pace_times times = { .now_ns = now_ns,
					  .stalled_ns = stalled_of(vcpu),
					  .core_ns = now_ns };
	struct timespec ts;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) == 0)
		times.core_ns = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
	return times;
}

void vcpu_pace_restart(struct vcpu *vcpu, uint64_t now_ns)
{
	struct timer_pace_times times = pace_times(vcpu, now_ns);

	timer_pace_restart(&vcpu->pace, &times);
}

uint64_t vcpu_pace_wait(const struct vcpu *vcpu, uint64_t deadline_ns, uint64_t now_ns)
{
	struct timer_pace_times times = pace_times(vcpu, now_ns);

	return timer_pace_wait(&vcpu->pace, deadline_ns, &times);
}

void vcpu_timer_disarm(struct vcpu *vcpu)
{
	static const struct itimerspec never;

	if (atomic_load(&vcpu->timer_armed_ns) != UINT64_MAX)
		timer_settime(vcpu->timer, 0, &never, NULL);
	atomic_store(&vcpu->timer_armed_ns, UINT64_MAX);
	atomic_store(&vcpu->timer_fired, false);
	vcpu->timer_late_ns = 0;
}

void vcpu_sleep_until(struct vcpu *vcpu, uint64_t deadline_ns)
{
	uint64_t now_ns = now_of(vcpu), ns = SLEEP_NS_MAX, woken_ns;
	struct timespec timeout;

	if (deadline_ns <= now_ns)
		return;
	if (deadline_ns - now_ns < ns)
		ns = deadline_ns - now_ns;
	timeout = to_timespec(ns);
	if (vcpu->slept_long && atomic_load(&vcpu->timer_armed_ns) < now_ns + ns)
		vcpu_timer_disarm(vcpu);
	if (!vcpu_announce(vcpu, VCPU_SLEEPING))
		return;
	if (vcpu->config.ops->idle)
		vcpu->config.ops->idle(vcpu->config.ctx, vcpu->config.number, true);
	stall_time_begin(&vcpu->asleep, now_ns);
	/* Any return is fine: the caller looks at everything again. */
	syscall(SYS_futex, &vcpu->activity, FUTEX_WAIT_PRIVATE, VCPU_SLEEPING, &timeout, NULL, 0);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	woken_ns = now_of(vcpu);
	vcpu->slept_long = woken_ns - now_ns >= LONG_SLEEP_NS;
	stall_time_end(&vcpu->asleep, now_ns, woken_ns);
	vcpu_pace_restart(vcpu, woken_ns);
	if (vcpu->config.ops->idle)
		vcpu->config.ops->idle(vcpu->config.ctx, vcpu->config.number, false);
}

/* Makes sure that a kick comes at the APIC timer's deadline or before. */
int vcpu_timer_arm(struct vcpu *vcpu, uint64_t now_ns)
{
	uint64_t deadline_ns = lapic_deadline(&vcpu->state.lapic);
	struct itimerspec spec = { 0 };

	if (deadline_ns < vcpu->timer_late_ns)
		deadline_ns = vcpu->timer_late_ns;
	if (atomic_exchange(&vcpu->timer_fired, false) ||
	    atomic_load(&vcpu->timer_armed_ns) <= now_ns)
		atomic_store(&vcpu->timer_armed_ns, UINT64_MAX);
	if (deadline_ns >= atomic_load(&vcpu->timer_armed_ns))
		return 0;
	spec.it_value = to_timespec(deadline_ns > now_ns ? deadline_ns - now_ns : 1);
	if (timer_settime(vcpu->timer, 0, &spec, NULL) < 0)
		return -errno;
	atomic_store(&vcpu->timer_armed_ns, deadline_ns);
	return 0;
}

static int install_timer_handler(void)
{
	/* The soft engine runs guest code with the guest's stack pointer. */
	struct sigaction action = { .sa_handler = on_timer, .sa_flags = SA_RESTART | SA_ONSTACK };

	/* No kick inside it: see ENGINE_KICK_SIGNAL. The one that it sends itself comes behind it.
	 */
	sigfillset(&action.sa_mask);
	return sigaction(TIMER_SIGNAL, &action, NULL) < 0 ? -errno : 0;
}

int vcpu_timer_create(struct vcpu *vcpu)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TIMER_SIGNAL };
	int error;

	atomic_store(&this_vcpu, vcpu);
	error = install_timer_handler();
	if (error)
		return error;
	event._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &event, &vcpu->timer) < 0)
		return -errno;
	vcpu->timer_exists = true;
	return 0;
}

void vcpu_timer_destroy(struct vcpu *vcpu)
{
	if (vcpu->timer_exists)
		timer_delete(vcpu->timer);
	atomic_store(&this_vcpu, NULL);
}
