/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other threads do with a vCPU, and ask of it (vcpu.h): each posts something and then looks at
 * what the vCPU's thread announces (vcpu.c has the order).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "node/vcpu_thread.h"

void vcpu_wake(struct vcpu *vcpu)
{
	uint32_t activity = atomic_load(&vcpu->activity);

	if (activity == VCPU_IN_GUEST) {
		vcpu->config.engine_ops->vcpu_kick(vcpu->engine_vcpu);
	} else if (activity == VCPU_SLEEPING) {
		if (atomic_compare_exchange_strong(&vcpu->activity, &activity, VCPU_OUTSIDE))
			syscall(SYS_futex, &vcpu->activity, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
}

static void unpark(struct vcpu *vcpu)
{
	uint32_t activity = VCPU_PARKED;

	if (atomic_compare_exchange_strong(&vcpu->activity, &activity, VCPU_OUTSIDE))
		syscall(SYS_futex, &vcpu->activity, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void vcpu_sample(struct vcpu *vcpu)
{
	vcpu->config.engine_ops->vcpu_kick(vcpu->engine_vcpu);
}

void vcpu_resync_tsc(struct vcpu *vcpu)
{
	atomic_store(&vcpu->resync, true);
	vcpu_wake(vcpu);
}

bool vcpu_resync_pending(const struct vcpu *vcpu)
{
	return atomic_load(&vcpu->resync) && atomic_load(&vcpu->activity) == VCPU_IN_GUEST;
}

void vcpu_stop(struct vcpu *vcpu)
{
	atomic_store(&vcpu->stop, true);
	vcpu_wake(vcpu);
	unpark(vcpu);
}

struct lapic_inbox *vcpu_inbox(struct vcpu *vcpu)
{
	return &vcpu->inbox;
}

void vcpu_leave(struct vcpu *vcpu, uint16_t to)
{
	atomic_store(&vcpu->leave_ns, now_of(vcpu));
	atomic_store(&vcpu->leave_to, to);
	vcpu_wake(vcpu);
}

void vcpu_arrive(struct vcpu *vcpu, const struct vcpu_moment *moment)
{
	vcpu->arrived = *moment->state;
	vcpu->stopped_ns = moment->clock_ns;
	vcpu->stopped_tsc = moment->guest_tsc;
	vcpu->decided_ns = moment->decided_ns;
	vcpu->came_ns = now_of(vcpu);
	atomic_store(&vcpu->arrival, ARRIVAL_NEW);
	unpark(vcpu);
}

void vcpu_take_back(struct vcpu *vcpu)
{
	atomic_store(&vcpu->arrival, ARRIVAL_BACK);
	unpark(vcpu);
}

void vcpu_expect(struct vcpu *vcpu)
{
	atomic_store(&vcpu->expected, true);
	unpark(vcpu);
}

bool vcpu_is_busy(const struct vcpu *vcpu)
{
	uint32_t activity = atomic_load(&vcpu->activity);

	return activity == VCPU_IN_GUEST || activity == VCPU_OUTSIDE;
}

int vcpu_thread_id(const struct vcpu *vcpu)
{
	return atomic_load(&vcpu->thread_id);
}

uint32_t vcpu_program(const struct vcpu *vcpu)
{
	return atomic_load_explicit(&vcpu->program, memory_order_relaxed);
}

/* The thread itself may open nothing (confine.h). A seat whose vCPU never came needs none. */
static int schedstat_of(struct vcpu *vcpu)
{
	int fd = atomic_load(&vcpu->schedstat_fd), none = -1;
	char path[64];

	if (fd >= 0 || !atomic_load(&vcpu->was_here))
		return fd;
	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", atomic_load(&vcpu->thread_id));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || atomic_compare_exchange_strong(&vcpu->schedstat_fd, &none, fd))
		return fd;
	close(fd); /* somebody else was faster */
	return none;
}

bool vcpu_core_times(struct vcpu *vcpu, uint64_t *ret_cpu_ns, uint64_t *ret_wait_ns)
{
	int fd = schedstat_of(vcpu);
	char text[96];
	ssize_t size = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);

	if (size <= 0)
		return false;
	text[size] = '\0';
	return sscanf(text, "%" SCNu64 " %" SCNu64, ret_cpu_ns, ret_wait_ns) == 2;
}

void vcpu_stats(const struct vcpu *vcpu, struct vcpu_stats *ret_stats)
{
	ret_stats->activity = (enum vcpu_activity)atomic_load(&vcpu->activity);
	ret_stats->run_state = (enum vcpu_run_state)atomic_load(&vcpu->run_state_seen);
	for (int kind = 0; kind <= EXIT_FAILED; kind++)
		ret_stats->exit_count[kind] =
			atomic_load_explicit(&vcpu->exit_count[kind], memory_order_relaxed);
	ret_stats->interrupt_count =
		atomic_load_explicit(&vcpu->interrupt_count, memory_order_relaxed);
	ret_stats->ipi_count = atomic_load_explicit(&vcpu->ipi_count, memory_order_relaxed);
	ret_stats->here_ns = stall_time_ns(&vcpu->here, now_of(vcpu));
	ret_stats->sleep_ns = stall_time_ns(&vcpu->asleep, now_of(vcpu));
	ret_stats->rekick_count = atomic_load_explicit(&vcpu->rekick_count, memory_order_relaxed);
	ret_stats->rip = atomic_load(&vcpu->rip);
	ret_stats->move_ns = atomic_load(&vcpu->move_ns);
	for (int part = 0; part < VCPU_MOVE_PARTS; part++)
		ret_stats->move_part_ns[part] = atomic_load(&vcpu->move_part_ns[part]);
}

bool vcpu_rests(const struct vcpu *vcpu)
{
	uint32_t activity = atomic_load(&vcpu->activity);

	return activity == VCPU_SLEEPING || activity == VCPU_PARKED || activity == VCPU_ENDED;
}
