/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second line of defence behind kicks (vcpu_watch(), vcpu.h): a vCPU that is in the guest with
 * something to take, and has run there for long, has lost one. It is kicked again, and that is counted:
 * 0 is right.
 */
#include <pthread.h>

#include "node/vcpu_thread.h"

/* So long may the thread run in the guest with something to take: then a kick has been lost. */
#define OVERDUE_NS 100000000ull

/* In the guest, with something to take: a kick is on its way, or should be. */
static bool is_overdue(struct vcpu *vcpu)
{
	return atomic_load(&vcpu->activity) == VCPU_IN_GUEST &&
	       (lapic_inbox_pending(&vcpu->inbox) || atomic_load(&vcpu->stop) ||
		atomic_load(&vcpu->resync) || atomic_load(&vcpu->leave_to) != NODE_NONE ||
		atomic_load(&vcpu->timer_fired) ||
		atomic_load(&vcpu->timer_armed_ns) <= now_of(vcpu));
}

static uint64_t thread_ns(const struct vcpu *vcpu)
{
	clockid_t clock;
	struct timespec ts;

	if (pthread_getcpuclockid(vcpu->thread, &clock) || clock_gettime(clock, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t work_of(const struct vcpu *vcpu)
{
	const struct engine_ops *engine = vcpu->config.engine_ops;

	return engine->vcpu_work ? engine->vcpu_work(vcpu->engine_vcpu) : 0;
}

/*
 * Wall time would say nothing: on a busy host the thread may not have had a core yet. Its CPU time
 * goes on, too, while a virtual host's core is stopped from outside; so no more of it counts than
 * may have passed since the last look. And an engine that is at something long, which a kick has to
 * wait for, has lost none: on a busy host, with caches full of what others do, that takes several
 * times what it does on a quiet one.
 */
enum vcpu_watched vcpu_watch(struct vcpu *vcpu)
{
	uint64_t entry = atomic_load(&vcpu->entry_count), work = work_of(vcpu), ran_ns, now_ns;

	if (!is_overdue(vcpu)) {
		vcpu->watched.entry = 0;
		return VCPU_WATCHED_WELL;
	}
	now_ns = thread_ns(vcpu);
	ran_ns = now_ns - vcpu->watched.thread_ns;
	vcpu->watched.thread_ns = now_ns;
	if (entry != vcpu->watched.entry || work != vcpu->watched.work) {
		vcpu->watched.entry = entry;
		vcpu->watched.work = work;
		vcpu->watched.ran_ns = 0;
		return VCPU_WATCHED_SOON;
	}
	vcpu->watched.ran_ns += ran_ns < VCPU_WATCH_NS ? ran_ns : VCPU_WATCH_NS;
	if (vcpu->watched.ran_ns < OVERDUE_NS)
		return VCPU_WATCHED_SOON;
	vcpu->watched.ran_ns = 0;
	count(&vcpu->rekick_count, 1);
	vcpu->config.engine_ops->vcpu_kick(vcpu->engine_vcpu);
	return VCPU_WATCHED_REKICKED;
}
