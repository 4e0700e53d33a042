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
 * The APIC timer must get a running guest out: a POSIX timer signals this thread, whose handler
 * kicks the vCPU (so that a signal just before the guest is entered is not lost). It is only armed
 * when the guest is entered with a deadline earlier than what it is armed for: guests put their
 * timer off far more often than it expires. That it has gone off is known from its handler: by the
 * pod clock it may be early, since the host's timers go by another clock.
 *
 * vcpu_watch() is the second line of defence, and counts: 0 is right.
 *
 * Everything in struct vcpu is the thread's own but the inbox, the atomics, and what vcpu_create()
 * set for good.
 *
 * A wish to leave is something posted like any other, so it gets the thread out of the guest and out
 * of sleep. A parked thread sleeps on `activity` too; only vcpu_arrive(), vcpu_take_back(),
 * vcpu_stop() and vcpu_expect() wake it, and what has arrived is handed over by `arrival`.
 *
 * Left out: polling before sleeping in HLT.
 */
#include "node/vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/placement.h"
#include "core/timer_pace.h"
#include "engine/host_clock.h"
#include "pager/stall_time.h"

#define NS_PER_S 1000000000ull

#define TIMER_SIGNAL (SIGRTMIN + 3)

/* The kernel may be this late with a sleep's end; its default of 50 us would be seen in every guest
 * timer. */
#define TIMER_SLACK_NS 1000ul

/* A sleep is never longer than this: then the deadline is computed anew from the pod clock. */
#define SLEEP_NS_MAX (10 * NS_PER_S)

/* So long may the thread run in the guest with something to take: then a kick has been lost. */
#define OVERDUE_NS 100000000ull

/* What runs is looked at no more often: an engine may have to ask the kernel. */
#define PROGRAM_NS 2000000u

/* A vCPU that comes may be ahead of this node's clock by what the nodes' clocks differ. */
#define AHEAD_SLEEP_NS_MAX 1000000ull

enum arrival { ARRIVAL_NONE, ARRIVAL_NEW, ARRIVAL_BACK };

struct vcpu {
	struct vcpu_config config;
	struct engine_vcpu *engine_vcpu;
	struct vcpu_state
		state; /* all but the LAPIC and run_state are the engine's while it runs */
	struct engine_exit exit;

	timer_t timer;
	bool timer_exists;
	_Atomic bool timer_fired;	 /* set by its handler, taken by arm_timer() */
	_Atomic uint64_t timer_armed_ns; /* pod clock; UINT64_MAX: not armed */
	uint64_t timer_late_ns; /* pod clock: an expired timer is looked at again then; 0: none */
	struct timer_pace pace;

	pthread_t thread;
	bool started;

	struct lapic_inbox inbox;
	_Atomic uint32_t activity; /* enum vcpu_activity */
	_Atomic bool stop, resync;
	_Atomic uint32_t leave_to; /* NODE_NONE: nobody wants it to */
	_Atomic uint64_t leave_ns; /* pod clock at the wish */
	uint32_t leaving_to;	   /* the wish that was taken, until it is fulfilled */
	bool away;		   /* the vCPU is not here */
	struct tsc_line tsc;	   /* that the engine goes by */

	_Atomic bool expected; /* somebody says that it comes */

	/* From vcpu_arrive() to the thread, which has it once `arrival` is not NONE. */
	_Atomic uint32_t arrival; /* enum arrival */
	struct vcpu_state arrived;
	uint64_t stopped_ns, stopped_tsc; /* neither may be less when it goes on */
	uint64_t decided_ns;		  /* when it was to come; 0: it has run since */
	uint64_t came_ns, woken_ns;	  /* at vcpu_arrive(), and when the thread saw it */

	_Atomic uint64_t rip; /* where a kick last found it, for people who look for a hang */
	_Atomic int thread_id;
	_Atomic uint32_t program; /* vcpu_program() */
	uint64_t program_ns;	  /* pod clock, when that was seen */
	_Atomic int schedstat_fd; /* of the thread; -1: none */

	/* written by the thread only */
	_Atomic uint32_t run_state_seen;
	_Atomic uint64_t exit_count[EXIT_FAILED + 1];
	_Atomic uint64_t interrupt_count, ipi_count, entry_count, move_ns;
	_Atomic uint64_t move_part_ns[VCPU_MOVE_PARTS];
	struct stall_time here, asleep; /* pod clock */

	struct {
		uint64_t entry, thread_ns; /* at the last look: entry_count, CPU time */
		uint64_t ran_ns;	   /* since there is something to take */
	} watched;			   /* the watcher's alone */
	_Atomic uint64_t rekick_count;
};

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

static void count(_Atomic uint64_t *counter, uint64_t add)
{
	uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, value + add, memory_order_relaxed);
}

static uint64_t now_of(const struct vcpu *vcpu)
{
	return vcpu->config.ops->now_ns(vcpu->config.ctx);
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S),
				  .tv_nsec = (long)(ns % NS_PER_S) };
}

/* ---- what other threads do ------------------------------------------------------------------- */

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

void vcpu_post(struct vcpu *vcpu, uint8_t mode, uint8_t vector, bool level)
{
	if (lapic_inbox_post(&vcpu->inbox, mode, vector, level))
		vcpu_wake(vcpu);
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

uint32_t vcpu_number(const struct vcpu *vcpu)
{
	return vcpu->config.number;
}

int vcpu_thread_id(const struct vcpu *vcpu)
{
	return atomic_load(&vcpu->thread_id);
}

uint32_t vcpu_program(const struct vcpu *vcpu)
{
	return atomic_load_explicit(&vcpu->program, memory_order_relaxed);
}

bool vcpu_core_times(const struct vcpu *vcpu, uint64_t *ret_cpu_ns, uint64_t *ret_wait_ns)
{
	int fd = atomic_load(&vcpu->schedstat_fd);
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

/* ---- the second line of defence -----------------------------------------------------------------
 */

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

/*
 * Wall time would say nothing: on a busy host the thread may not have had a core yet. Its CPU time
 * goes on, too, while a virtual host's core is stopped from outside; so no more of it counts than
 * may have passed since the last look.
 */
enum vcpu_watched vcpu_watch(struct vcpu *vcpu)
{
	uint64_t entry = atomic_load(&vcpu->entry_count), ran_ns, now_ns;

	if (!is_overdue(vcpu)) {
		vcpu->watched.entry = 0;
		return VCPU_WATCHED_WELL;
	}
	now_ns = thread_ns(vcpu);
	ran_ns = now_ns - vcpu->watched.thread_ns;
	vcpu->watched.thread_ns = now_ns;
	if (entry != vcpu->watched.entry) {
		vcpu->watched.entry = entry;
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

bool vcpu_rests(const struct vcpu *vcpu)
{
	uint32_t activity = atomic_load(&vcpu->activity);

	return activity == VCPU_SLEEPING || activity == VCPU_PARKED || activity == VCPU_ENDED;
}

static uint64_t stalled_of(const struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;

	return config->ops->stalled_ns ? config->ops->stalled_ns(config->ctx, config->number) : 0;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Announces; false: there is something to do first. */
static bool announce(struct vcpu *vcpu, enum vcpu_activity activity)
{
	atomic_store(&vcpu->activity, (uint32_t)activity);
	if (!lapic_inbox_pending(&vcpu->inbox) && !atomic_load(&vcpu->stop) &&
	    !atomic_load(&vcpu->resync) && atomic_load(&vcpu->leave_to) == NODE_NONE)
		return true;
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	return false;
}

static void sleep_until(struct vcpu *vcpu, uint64_t deadline_ns)
{
	uint64_t now_ns = now_of(vcpu), ns = SLEEP_NS_MAX;
	struct timespec timeout;

	if (deadline_ns <= now_ns)
		return;
	if (deadline_ns - now_ns < ns)
		ns = deadline_ns - now_ns;
	timeout = to_timespec(ns);
	if (!announce(vcpu, VCPU_SLEEPING))
		return;
	if (vcpu->config.ops->idle)
		vcpu->config.ops->idle(vcpu->config.ctx, vcpu->config.number, true);
	stall_time_begin(&vcpu->asleep, now_ns);
	/* Any return is fine: the caller looks at everything again. */
	syscall(SYS_futex, &vcpu->activity, FUTEX_WAIT_PRIVATE, VCPU_SLEEPING, &timeout, NULL, 0);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	stall_time_end(&vcpu->asleep, now_ns, now_of(vcpu));
	timer_pace_restart(&vcpu->pace, now_of(vcpu), stalled_of(vcpu));
	if (vcpu->config.ops->idle)
		vcpu->config.ops->idle(vcpu->config.ctx, vcpu->config.number, false);
}

/* Makes sure that a kick comes at the APIC timer's deadline or before. */
static int arm_timer(struct vcpu *vcpu, uint64_t now_ns)
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

/* ---- exits ----------------------------------------------------------------------------------- */

static int handle_io(struct vcpu *vcpu)
{
	struct pc_access access = {
		.address = vcpu->exit.io.port,
		.count = vcpu->exit.io.count,
		.size = vcpu->exit.io.size,
		.write = vcpu->exit.io.write,
		.data = vcpu->exit.io.data,
	};
	int error;

	if (pc_io_local(&access, now_of(vcpu)))
		return 0;
	atomic_store(&vcpu->activity, VCPU_IN_IO);
	error = vcpu->config.ops->io(vcpu->config.ctx, vcpu->config.number, &access);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	return error;
}

static int handle_mmio(struct vcpu *vcpu)
{
	struct pc_access access = {
		.address = vcpu->exit.mmio.gpa,
		.count = 1,
		.size = vcpu->exit.mmio.size,
		.write = vcpu->exit.mmio.write,
		.data = vcpu->exit.mmio.data,
	};
	int error;

	if (pc_mmio_local(&access))
		return 0;
	atomic_store(&vcpu->activity, VCPU_IN_IO);
	error = vcpu->config.ops->mmio(vcpu->config.ctx, vcpu->config.number, &access);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	return error;
}

static void handle_msr_read(struct vcpu *vcpu)
{
	uint64_t value = 0;
	int error = lapic_read(&vcpu->config.lapic, &vcpu->state.lapic, vcpu->exit.msr.index,
			       now_of(vcpu), &value);

	vcpu->exit.msr.fault = error != 0;
	vcpu->exit.msr.value = value;
}

static void handle_msr_write(struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;
	struct lapic_effect effect;
	int error = lapic_write(&config->lapic, &vcpu->state.lapic, vcpu->exit.msr.index,
				vcpu->exit.msr.value, now_of(vcpu), &effect);

	vcpu->exit.msr.fault = error != 0;
	if (error)
		return;
	if (effect.tpr)
		config->engine_ops->vcpu_set_tpr(vcpu->engine_vcpu,
						 (uint8_t)(vcpu->state.lapic.tpr >> 4));
	if (effect.eoi)
		config->ops->eoi(config->ctx, config->number, effect.eoi_vector);
	if (effect.send) {
		count(&vcpu->ipi_count, 1);
		config->ops->send_interrupt(config->ctx, &effect.interrupt);
	}
}

/* False: the thread ends, and *ret_end says why. */
static bool handle_exit(struct vcpu *vcpu, struct vcpu_end *ret_end)
{
	int error = 0;

	count(&vcpu->exit_count[vcpu->exit.kind], 1);
	switch (vcpu->exit.kind) {
	case EXIT_IO:
		error = handle_io(vcpu);
		break;
	case EXIT_MMIO:
		error = handle_mmio(vcpu);
		break;
	case EXIT_MSR_READ:
		handle_msr_read(vcpu);
		break;
	case EXIT_MSR_WRITE:
		handle_msr_write(vcpu);
		break;
	case EXIT_HLT:
		vcpu->state.run_state = VCPU_HALTED;
		break;
	case EXIT_WINDOW:
	case EXIT_KICKED:
		break;
	case EXIT_SHUTDOWN:
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_SHUTDOWN };
		return false;
	case EXIT_FAILED:
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_FAILED,
					      .reason = vcpu->exit.fail.reason,
					      .detail = vcpu->exit.fail.detail };
		return false;
	}
	if (error)
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_STOPPED };
	return error == 0;
}

/* ---- INIT and start-up ----------------------------------------------------------------------- */

static int take_tsc(struct vcpu *vcpu)
{
	vcpu->config.ops->tsc(vcpu->config.ctx, &vcpu->tsc);
	return vcpu->config.engine_ops->vcpu_set_tsc(vcpu->engine_vcpu, &vcpu->tsc);
}

static int load_state(struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;
	int error = config->engine_ops->vcpu_load(vcpu->engine_vcpu, &vcpu->state);

	return error ? error : take_tsc(vcpu);
}

static int resync_tsc(struct vcpu *vcpu)
{
	return atomic_exchange(&vcpu->resync, false) ? take_tsc(vcpu) : 0;
}

/* -EAGAIN: the engine is in the middle of an instruction; run on, and come again: by the kick, soon. */
static int save_state(struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;
	int error = config->engine_ops->vcpu_save(vcpu->engine_vcpu, &vcpu->state);

	if (error == -EAGAIN)
		config->engine_ops->vcpu_kick(vcpu->engine_vcpu);
	return error;
}

static int handle_init(struct vcpu *vcpu)
{
	int error = save_state(vcpu);

	if (error)
		return error;
	vcpu_state_init(&vcpu->state);
	lapic_init(&vcpu->state.lapic);
	return load_state(vcpu);
}

static int handle_sipi(struct vcpu *vcpu)
{
	vcpu->state.lapic.sipi_pending = 0;
	if (!vcpu_state_sipi(&vcpu->state, vcpu->state.lapic.sipi_vector))
		return 0;
	return load_state(vcpu);
}

/* ---- running --------------------------------------------------------------------------------- */

/* CR8 and TPR are one register; the guest may have written either. */
static uint8_t sync_tpr(struct vcpu *vcpu)
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
	uint8_t cr8 = sync_tpr(vcpu);
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
	return lapic_next(&vcpu->state.lapic, sync_tpr(vcpu)) >= 0 &&
	       vcpu->config.engine_ops->vcpu_can_interrupt(vcpu->engine_vcpu);
}

static bool fail(struct vcpu_end *ret_end, const char *reason, int error)
{
	*ret_end = (struct vcpu_end){ .kind = VCPU_END_FAILED,
				      .reason = reason,
				      .detail = (uint64_t)-error };
	return false;
}

static uint64_t since(uint64_t then_ns, uint64_t now_ns)
{
	return now_ns > then_ns ? now_ns - then_ns : 0;
}

/* For who decides where the vCPU should be, at its stalls. */
static void note_program(struct vcpu *vcpu, uint64_t cr3, uint64_t rip, uint64_t now_ns)
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
	if (since(vcpu->program_ns, now_ns) >= PROGRAM_NS)
		note_program(vcpu, engine->vcpu_cr3(vcpu->engine_vcpu), rip, now_ns);
}

/* The vCPU runs here for the first time. */
static void note_move(struct vcpu *vcpu)
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

/* Enters the guest once. False: the thread ends. */
static bool run_once(struct vcpu *vcpu, uint64_t now_ns, struct vcpu_end *ret_end)
{
	int error = inject(vcpu);

	if (error)
		return fail(ret_end, "cannot inject an interrupt", error);
	error = arm_timer(vcpu, now_ns);
	if (error)
		return fail(ret_end, "cannot arm the timer", error);
	count(&vcpu->entry_count, 1);
	if (!announce(vcpu, VCPU_IN_GUEST))
		return true;
	if (vcpu->decided_ns)
		note_move(vcpu);
	error = vcpu->config.engine_ops->vcpu_run(vcpu->engine_vcpu, &vcpu->exit);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	if (error)
		return fail(ret_end, "cannot run the vCPU", error);
	if (vcpu->exit.kind == EXIT_KICKED)
		note_where(vcpu, now_ns);
	return handle_exit(vcpu, ret_end);
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
		wait_ns = timer_pace_wait(&vcpu->pace, deadline_ns, now_ns, stalled_of(vcpu));
	if (wait_ns) {
		vcpu->timer_late_ns = now_ns + wait_ns;
		return;
	}
	timer_pace_restart(&vcpu->pace, now_ns, stalled_of(vcpu));
	lapic_tick(&vcpu->config.lapic, lapic, now_ns);
}

/* Takes in what has come from outside since. False: the thread ends. */
static bool take_events(struct vcpu *vcpu, uint64_t now_ns, struct vcpu_end *ret_end)
{
	struct lapic_state *lapic = &vcpu->state.lapic;
	int error;

	lapic_inbox_drain(&vcpu->inbox, lapic);
	tick(vcpu, now_ns);
	error = resync_tsc(vcpu);
	if (error)
		return fail(ret_end, "cannot set the TSC", error);
	if (lapic->init_pending) {
		if (lapic->bsp) {
			*ret_end = (struct vcpu_end){ .kind = VCPU_END_INIT };
			return false;
		}
		error = handle_init(vcpu);
		if (error == -EAGAIN)
			return true;
		if (error)
			return fail(ret_end, "cannot carry out an INIT", error);
	}
	if (lapic->sipi_pending) {
		error = handle_sipi(vcpu);
		if (error)
			return fail(ret_end, "cannot carry out a start-up IPI", error);
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
		sleep_until(vcpu, UINT64_MAX);
		return true;
	case VCPU_HALTED:
		if (init_waits || ends_halt(vcpu))
			vcpu->state.run_state = VCPU_RUNNABLE;
		else
			sleep_until(vcpu, lapic_deadline(&vcpu->state.lapic));
		return true;
	default:
		return run_once(vcpu, now_ns, ret_end);
	}
}

/* ---- moving ---------------------------------------------------------------------------------- */

static void disarm_timer(struct vcpu *vcpu)
{
	static const struct itimerspec never;

	if (atomic_load(&vcpu->timer_armed_ns) != UINT64_MAX)
		timer_settime(vcpu->timer, 0, &never, NULL);
	atomic_store(&vcpu->timer_armed_ns, UINT64_MAX);
	atomic_store(&vcpu->timer_fired, false);
	vcpu->timer_late_ns = 0;
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

	sync_tpr(vcpu);
	error = save_state(vcpu);
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
	stall_time_end(&vcpu->here, vcpu->here.since_ns, moment.clock_ns);
	disarm_timer(vcpu);
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
	error = load_state(vcpu);
	if (error && !is_new)
		return fail(ret_end, "cannot take the vCPU back", error);
	if (error) {
		config->ops->refused(config->ctx, config->number);
		return true;
	}
	wait_for_clock(vcpu);
	/* What was wished while it was elsewhere was for another stay. */
	atomic_store(&vcpu->leave_to, NODE_NONE);
	vcpu->away = false;
	stall_time_begin(&vcpu->here, now_of(vcpu));
	timer_pace_restart(&vcpu->pace, now_of(vcpu), stalled_of(vcpu));
	note_program(vcpu, vcpu->state.cr3, vcpu->state.rip, now_of(vcpu));
	if (config->ops->idle)
		config->ops->idle(config->ctx, config->number, false);
	config->ops->arrived(config->ctx, config->number);
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

static bool step(struct vcpu *vcpu, struct vcpu_end *ret_end)
{
	uint32_t to;

	if (atomic_load(&vcpu->stop)) {
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_STOPPED };
		return false;
	}
	if (vcpu->away) {
		if (atomic_load(&vcpu->arrival) != ARRIVAL_NONE)
			return take_in(vcpu, ret_end);
		park(vcpu);
		return true;
	}
	if (atomic_load_explicit(&vcpu->leave_to, memory_order_relaxed) != NODE_NONE) {
		to = atomic_exchange(&vcpu->leave_to, NODE_NONE);
		vcpu->leaving_to = to;
	}
	if (vcpu->leaving_to != NODE_NONE)
		leave(vcpu);
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
	pthread_sigmask(SIG_SETMASK, &set, NULL);
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

static int prepare(struct vcpu *vcpu)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TIMER_SIGNAL };
	char name[16];
	int error;

	snprintf(name, sizeof(name), "vcpu %u", vcpu->config.number);
	pthread_setname_np(pthread_self(), name);
	atomic_store(&this_vcpu, vcpu);
	error = install_timer_handler();
	if (error)
		return error;
	set_signals();
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
	error = vcpu->config.engine_ops->vcpu_bind(vcpu->engine_vcpu);
	if (error)
		return error;
	event._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &event, &vcpu->timer) < 0)
		return -errno;
	vcpu->timer_exists = true;
	atomic_store(&vcpu->schedstat_fd,
		     open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC));
	atomic_store(&vcpu->thread_id, gettid());
	if (vcpu->config.ops->started)
		error = vcpu->config.ops->started(vcpu->config.ctx, vcpu->config.number);
	if (error || vcpu->away)
		return error;
	stall_time_begin(&vcpu->here, now_of(vcpu));
	return load_state(vcpu);
}

static void *run_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vcpu_end end = { .kind = VCPU_END_STOPPED };
	int error = prepare(vcpu);

	if (error)
		fail(&end, "cannot prepare the vCPU", error);
	while (!error && step(vcpu, &end))
		;
	atomic_store(&vcpu->activity, VCPU_ENDED);
	if (vcpu->timer_exists)
		timer_delete(vcpu->timer);
	atomic_store(&this_vcpu, NULL);
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
