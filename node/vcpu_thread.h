/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a vCPU's thread share (contract for others: vcpu.h; the idea: vcpu.c).
 *
 *	vcpu.c		the thread's life and its loop: events in, the guest entered
 *	vcpu_exit.c	what the guest has done: accesses, its APIC, INIT and start-up
 *	vcpu_wait.c	sleep in HLT, and the timer that gets a running guest out
 *	vcpu_move.c	leaving, parking, coming
 *	vcpu_post.c	what other threads do and ask
 *	vcpu_watch.c	the second line of defence
 *
 * Everything in struct vcpu is the thread's own but the inbox, the atomics, and what vcpu_create()
 * set for good.
 */
#ifndef NODE_VCPU_THREAD_H
#define NODE_VCPU_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "core/timer_pace.h"
#include "node/vcpu.h"
#include "pager/stall_time.h"

#define NS_PER_S 1000000000ull

#define TIMER_SIGNAL (SIGRTMIN + 3)

enum arrival { ARRIVAL_NONE, ARRIVAL_NEW, ARRIVAL_BACK };

struct vcpu {
	struct vcpu_config config;
	struct engine_vcpu *engine_vcpu;
	struct vcpu_state
		state; /* all but the LAPIC and run_state are the engine's while it runs */
	struct engine_exit exit;

	timer_t timer;
	bool timer_exists;
	_Atomic bool timer_fired;	 /* set by its handler, taken by vcpu_timer_arm() */
	_Atomic uint64_t timer_armed_ns; /* pod clock; UINT64_MAX: not armed */
	uint64_t timer_late_ns; /* pod clock: an expired timer is looked at again then; 0: none */
	struct timer_pace pace;
	bool slept_long; /* at the last time */

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
	_Atomic bool was_here;	  /* the vCPU, at some time */
	_Atomic int schedstat_fd; /* of the thread; -1: nobody has asked yet */

	/* written by the thread only */
	_Atomic uint32_t run_state_seen;
	_Atomic uint64_t exit_count[EXIT_FAILED + 1];
	_Atomic uint64_t interrupt_count, ipi_count, entry_count, move_ns;
	_Atomic uint64_t move_part_ns[VCPU_MOVE_PARTS];
	struct stall_time here, asleep; /* pod clock */

	struct {
		uint64_t entry, thread_ns; /* at the last look: entry_count, CPU time */
		uint64_t work;		   /* and the engine's vcpu_work() */
		uint64_t ran_ns;	   /* since there is something to take */
	} watched;			   /* the watcher's alone */
	_Atomic uint64_t rekick_count;
};

static inline void count(_Atomic uint64_t *counter, uint64_t add)
{
	uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, value + add, memory_order_relaxed);
}

static inline uint64_t now_of(const struct vcpu *vcpu)
{
	return vcpu->config.ops->now_ns(vcpu->config.ctx);
}

static inline struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S),
				  .tv_nsec = (long)(ns % NS_PER_S) };
}

static inline uint64_t stalled_of(const struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;

	return config->ops->stalled_ns ? config->ops->stalled_ns(config->ctx, config->number) : 0;
}

static inline uint64_t since(uint64_t then_ns, uint64_t now_ns)
{
	return now_ns > then_ns ? now_ns - then_ns : 0;
}

/* ---- vcpu.c ---------------------------------------------------------------------------------- */

/* The thread ends, and says why. False. */
bool vcpu_fail(struct vcpu_end *ret_end, const char *reason, int error);
/* CR8 and TPR are one register; the guest may have written either. Returns CR8. */
uint8_t vcpu_sync_tpr(struct vcpu *vcpu);
/* For who decides where the vCPU should be, at its stalls. */
void vcpu_note_program(struct vcpu *vcpu, uint64_t cr3, uint64_t rip, uint64_t now_ns);

/* ---- vcpu_exit.c ----------------------------------------------------------------------------- */

/* False: the thread ends, and *ret_end says why. */
bool vcpu_handle_exit(struct vcpu *vcpu, struct vcpu_end *ret_end);
int vcpu_handle_init(struct vcpu *vcpu);
int vcpu_handle_sipi(struct vcpu *vcpu);
/* The state into the engine, with the TSC's line, or that alone if it has been moved. */
int vcpu_load_state(struct vcpu *vcpu);
int vcpu_take_line(struct vcpu *vcpu);
/* -EAGAIN: the engine is in the middle of an instruction; run on, and come again: by the kick, soon. */
int vcpu_save_state(struct vcpu *vcpu);

/* ---- vcpu_wait.c ----------------------------------------------------------------------------- */

/* Announces; false: there is something to do first. */
bool vcpu_announce(struct vcpu *vcpu, enum vcpu_activity activity);
/* Until then, or until something is posted. Any return is fine: look at everything again. */
void vcpu_sleep_until(struct vcpu *vcpu, uint64_t deadline_ns);
/* The calling thread runs this vCPU from now on, and until destroy. 0, or negative. */
int vcpu_timer_create(struct vcpu *vcpu);
void vcpu_timer_destroy(struct vcpu *vcpu);
/* Makes sure that a kick comes at the APIC timer's deadline or before. */
int vcpu_timer_arm(struct vcpu *vcpu, uint64_t now_ns);
void vcpu_timer_disarm(struct vcpu *vcpu);
/* By the vCPU's own thread: core/timer_pace.h. */
void vcpu_pace_restart(struct vcpu *vcpu, uint64_t now_ns);
uint64_t vcpu_pace_wait(const struct vcpu *vcpu, uint64_t deadline_ns, uint64_t now_ns);

/* ---- vcpu_move.c ----------------------------------------------------------------------------- */

/* Fulfils a wish to leave, if there is one. */
void vcpu_leave_if_wished(struct vcpu *vcpu);
/* While it is elsewhere: sleeps until it comes, and takes it in. False: the thread ends. */
bool vcpu_wait_elsewhere(struct vcpu *vcpu, struct vcpu_end *ret_end);
/* It runs here for the first time. */
void vcpu_note_move(struct vcpu *vcpu);

#endif
