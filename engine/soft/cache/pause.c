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
 *
 * Who waits here waits for a thread, which on a busy host may wait for a core, for as long as that
 * likes. So it yields a few times, and sleeps then: else it would burn the very CPU time that the other wants, and
 * its own kicks, which have to wait as well, would look lost (node/vcpu_watch.c). Whose turn it is
 * sleeps on `pause_sleeper`, until any vCPU stands still or goes on; the rest on `pause_turn`.
 */
#include "engine/soft/cache/cache.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/kick.h"
#include "engine/soft/cache/pause.h"

#define ASK_AGAIN_NS 10000000u
#define PAUSE_GAP_NS 10000u /* between two pauses */
#define YIELDS_MAX   200u   /* before it sleeps: a wait is short where cores are free */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_on(_Atomic uint32_t *word, uint32_t seen, uint64_t at_most_ns)
{
	struct timespec at_most = { .tv_nsec = (long)at_most_ns };

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, at_most_ns ? &at_most : NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word, int sleepers)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, sleepers, NULL, NULL, 0);
}

/* After any change of in_run, parked or queued. Who sleeps has set this before its last look. */
static void tell_sleeper(struct engine *engine)
{
	if (!atomic_load(&engine->pause_sleeper))
		return;
	atomic_store(&engine->pause_sleeper, 0);
	wake(&engine->pause_sleeper, 1);
}

/*
 * Who has been let go looks again before it goes: the next one to pause may have asked already, and
 * have seen that it is parked, between its last look and its taking that back.
 */
void soft_safe_point(struct engine_vcpu *vcpu)
{
	while (atomic_load(&vcpu->pause)) {
		atomic_store(&vcpu->parked, 1);
		tell_sleeper(vcpu->engine);
		while (atomic_load(&vcpu->pause))
			sleep_on(&vcpu->pause, 1, 0);
		atomic_store(&vcpu->parked, 0);
		tell_sleeper(vcpu->engine);
	}
}

void soft_run_begin(struct engine_vcpu *vcpu)
{
	atomic_store(&vcpu->in_run, 1);
	soft_safe_point(vcpu);
}

void soft_run_end(struct engine_vcpu *vcpu)
{
	atomic_store(&vcpu->in_run, 0);
	tell_sleeper(vcpu->engine);
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

static bool stands_still(const struct engine_vcpu *other)
{
	return !atomic_load(&other->in_run) || atomic_load(&other->parked) ||
	       atomic_load(&other->queued);
}

static bool has_gone_on(const struct engine_vcpu *other)
{
	return !atomic_load(&other->parked);
}

/* For whose turn it is. False: not yet, and some time has passed. */
static bool wait_until(struct engine_vcpu *other, bool (*is_so)(const struct engine_vcpu *))
{
	_Atomic uint32_t *sleeper = &other->engine->pause_sleeper;
	uint64_t since_ns = now_ns();

	for (uint32_t yields = 0; !is_so(other); yields++) {
		if (yields < YIELDS_MAX) {
			sched_yield();
			continue;
		}
		if (now_ns() - since_ns >= ASK_AGAIN_NS)
			return false;
		atomic_store(sleeper, 1);
		if (!is_so(other))
			sleep_on(sleeper, 1, ASK_AGAIN_NS);
		atomic_store(sleeper, 0);
	}
	return true;
}

/*
 * One signal does (vcpu.c). But everybody waits for this, and asking again costs little: whatever
 * may be wrong with a single vCPU, it is not to stop them all.
 */
static void wait_until_still(struct engine_vcpu *other)
{
	while (!wait_until(other, stands_still))
		ask(other);
}

/*
 * Nobody pauses now, so whoever still stands where the last one held it is about to wake up. Each
 * gets on for a while before the next pause: a loop of locked instructions across pages (or of what
 * fills the cache) would else keep the others from running at all.
 */
static void let_others_run(struct engine_vcpu *vcpu)
{
	struct engine *engine = vcpu->engine;
	uint64_t since_ns = engine->resumed_ns;
	bool alone = true;

	for (uint32_t i = 0; i < VCPUS_MAX; i++) {
		struct engine_vcpu *other = engine->vcpu[i];

		alone = alone && (!other || other == vcpu);
		if (!other || has_gone_on(other))
			continue;
		while (!wait_until(other, has_gone_on))
			;
		since_ns = now_ns();
	}
	while (!alone && now_ns() - since_ns < PAUSE_GAP_NS)
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

/* Standing still. When the turn has come nobody else pauses any more. */
static void wait_for_turn(struct engine_vcpu *vcpu, uint32_t ticket)
{
	struct engine *engine = vcpu->engine;
	uint32_t turn = atomic_load(&engine->pause_turn);

	if (turn == ticket)
		return;
	atomic_store(&vcpu->queued, 1);
	tell_sleeper(engine);
	for (uint32_t yields = 0; turn != ticket; turn = atomic_load(&engine->pause_turn)) {
		if (yields++ < YIELDS_MAX) {
			sched_yield();
			continue;
		}
		atomic_fetch_add(&engine->pause_queue, 1);
		sleep_on(&engine->pause_turn, turn, 0);
		atomic_fetch_sub(&engine->pause_queue, 1);
	}
	atomic_store(&vcpu->queued, 0);
}

static void end_turn(struct engine *engine)
{
	atomic_fetch_add(&engine->pause_turn, 1);
	if (atomic_load(&engine->pause_queue))
		wake(&engine->pause_turn, INT_MAX);
}

void soft_pause_others(struct engine_vcpu *vcpu, uint64_t mask)
{
	struct engine *engine = vcpu->engine;

	wait_for_turn(vcpu, atomic_fetch_add(&engine->pause_tickets, 1));
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
			wake(&other->pause, 1);
	}
	atomic_store(&engine->pauser, NULL);
	pthread_mutex_unlock(&engine->lock);
	engine->resumed_ns = now_ns();
	end_turn(engine);
}
