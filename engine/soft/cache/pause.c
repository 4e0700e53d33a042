/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping the other vCPUs of this node for a moment, at a point where they hold no translated
 * address: for taking write access away from a page that becomes code, and for emptying the cache.
 *
 *   pauser                              another vCPU
 *   pause := 1, stop := 1, signal       in_run := 1, then looks at stop before guest code
 *   waits for in_run = 0 or parked      at its safe point: parked := 1, sleeps while pause = 1
 *
 * One pauser at a time, in the order in which they came. Who waits for its turn is at a safe point
 * itself. A vCPU that is made meanwhile begins paused (vm.c). A vCPU that waits
 * for a page, in guest code or in C, is taken out of it by the signal. models/pause.pml explores
 * it.
 */
#include "engine/soft/cache/cache.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/kick.h"
#include "engine/soft/cache/pause.h"

#define ASK_AGAIN_NS 10000000u
#define PAUSE_GAP_NS 10000u /* between two pauses */

/*
 * Who has been let go looks again before it goes: the next one to pause may have asked already, and
 * have seen that it is parked, between its last look and its taking that back.
 */
void soft_safe_point(struct engine_vcpu *vcpu)
{
	while (atomic_load(&vcpu->pause)) {
		atomic_store(&vcpu->parked, 1);
		while (atomic_load(&vcpu->pause))
			syscall(SYS_futex, &vcpu->pause, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
		atomic_store(&vcpu->parked, 0);
	}
}

void soft_stop(struct engine_vcpu *vcpu)
{
	atomic_store(&vcpu->stop, 1);
	/* Outside run it looks at that before it does anything for the guest. */
	if (atomic_load(&vcpu->in_run))
		engine_kick_send(atomic_load(&vcpu->thread));
}

static void ask(struct engine_vcpu *other)
{
	atomic_store(&other->pause, 1);
	soft_stop(other);
}

static bool stands_still(struct engine_vcpu *other)
{
	return !atomic_load(&other->in_run) || atomic_load(&other->parked);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * One signal does (vcpu.c). But everybody waits for this, and asking again costs little: whatever
 * may be wrong with a single vCPU, it is not to stop them all.
 */
static void wait_until_still(struct engine_vcpu *other)
{
	uint64_t asked_ns = now_ns();

	while (!stands_still(other)) {
		sched_yield();
		if (now_ns() - asked_ns < ASK_AGAIN_NS)
			continue;
		ask(other);
		asked_ns = now_ns();
	}
}

/*
 * Nobody pauses now, so whoever still stands where the last one held it is about to wake up. Each
 * gets on for a while before the next pause: a loop of locked instructions across pages (or of what
 * fills the cache) would else keep the others from running at all.
 */
static void let_others_run(struct engine_vcpu *vcpu)
{
	const struct engine *engine = vcpu->engine;
	uint64_t since_ns = engine->resumed_ns;

	for (uint32_t i = 0; i < VCPUS_MAX; i++) {
		const struct engine_vcpu *other = engine->vcpu[i];

		if (!other || !atomic_load(&other->parked))
			continue;
		while (atomic_load(&other->parked))
			sched_yield();
		since_ns = now_ns();
	}
	while (now_ns() - since_ns < PAUSE_GAP_NS)
		sched_yield();
}

/*
 * Nobody has anything to ask of this vCPU any more but to leave, for a kick. If `stop` stayed set,
 * what it does in its turn would be broken off, and the pauses of two that take turns would keep
 * both from ever getting on. A kick sets `kicked` before `stop`, so none is lost here.
 */
static void forget_pauses(struct engine_vcpu *vcpu)
{
	atomic_store(&vcpu->stop, 0);
	if (atomic_load(&vcpu->kicked))
		atomic_store(&vcpu->stop, 1);
}

void soft_pause_others(struct engine_vcpu *vcpu, uint64_t mask)
{
	struct engine *engine = vcpu->engine;
	uint32_t ticket = atomic_fetch_add(&engine->pause_tickets, 1);

	while (atomic_load(&engine->pause_turn) != ticket) {
		soft_safe_point(vcpu);
		sched_yield();
	}
	let_others_run(vcpu);
	forget_pauses(vcpu);
	atomic_store(&engine->pauser, vcpu);
	pthread_mutex_lock(&engine->lock);
	for (uint32_t i = 0; i < VCPUS_MAX; i++)
		if (engine->vcpu[i] && engine->vcpu[i] != vcpu && (mask >> i % 64 & 1))
			ask(engine->vcpu[i]);
	pthread_mutex_unlock(&engine->lock);
	for (uint32_t i = 0; i < VCPUS_MAX; i++) {
		struct engine_vcpu *other = engine->vcpu[i];

		if (!other || other == vcpu || !(mask >> i % 64 & 1))
			continue;
		wait_until_still(other);
	}
}

void soft_pause_abandoned(struct engine_vcpu *vcpu)
{
	if (atomic_load(&vcpu->engine->pauser) == vcpu)
		soft_resume_others(vcpu);
}

void soft_resume_others(struct engine_vcpu *vcpu)
{
	struct engine *engine = vcpu->engine;

	pthread_mutex_lock(&engine->lock);
	for (uint32_t i = 0; i < VCPUS_MAX; i++) {
		struct engine_vcpu *other = engine->vcpu[i];

		if (!other || !atomic_exchange(&other->pause, 0))
			continue;
		/* Who parks later sees that nobody wants it to. */
		if (atomic_load(&other->parked))
			syscall(SYS_futex, &other->pause, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	atomic_store(&engine->pauser, NULL);
	pthread_mutex_unlock(&engine->lock);
	engine->resumed_ns = now_ns();
	atomic_fetch_add(&engine->pause_turn, 1);
}
