/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Made-up guests, lists of exits, on an engine that is made up, too, and the world around their vCPUs'
 * threads: what tests of node/vcpu*.c share. The threads of one test at a time; all is global.
 */
#ifndef TESTS_NODE_VCPU_GUEST_H
#define TESTS_NODE_VCPU_GUEST_H

#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "node/vcpu.h"

#define VCPUS	  4u
#define STEPS_MAX 32u
#define X2(reg)	  (0x800u + (reg))

/* What a made-up guest does, one step a run. */
enum step_kind {
	SPIN, /* until an interrupt, NMI or kick */
	HALT,
	WRITE_MSR,
	READ_MSR,
	OUT,
	CLI, /* IF off: no injection */
	STI,
	TRIPLE_FAULT,
	BREAK,
	SEND_NEXT, /* an IPI to the next vCPU, vector 0x40 */
	REPEAT,	   /* from the step `value` on */
};

struct step {
	enum step_kind kind;
	uint32_t index;
	uint64_t value;
};

struct engine_vcpu {
	uint32_t number;
	_Atomic bool kick, window;
	_Atomic bool inside; /* it has looked for a kick, and there was none */
	const struct step *program;
	_Atomic uint32_t at;
	bool interrupts_on, halted;
	int injected;
	_Atomic uint8_t cr8;
	uint8_t data[8];
	struct vcpu_state loaded;
	_Atomic int load_fails, save_again; /* so many times */

	/* what tests look at */
	_Atomic uint32_t interrupts, nmis, loads, saves, tsc_sets, runs;
	_Atomic int last_vector;
	_Atomic uint64_t msr_read;
	_Atomic bool msr_fault;
	_Atomic uint32_t cr3_asked, kicks;
	_Atomic uint64_t work;			   /* with work_spin: the CPU time of its thread */
	_Atomic uint64_t wrote_ns, interrupted_ns; /* the last MSR; the last interrupt */
};

struct fixture {
	struct engine_vcpu engine_vcpu[VCPUS];
	struct vcpu *vcpu[VCPUS];
	uint32_t vcpu_count;
	struct vcpu_end end[VCPUS];
	sem_t ended;
	_Atomic uint32_t io_count, eoi_count;
	_Atomic int lose_kicks;	     /* so many */
	_Atomic bool idle_spin;	     /* SPIN sleeps, as a vCPU does that waits for a page */
	_Atomic bool work_spin;	     /* SPIN is long work of the engine's own */
	_Atomic uint64_t stalled_ns; /* what a vCPU has been stalled, once it was interrupted */
	_Atomic int post_in; /* calls of ops or engine until vCPU 0 gets an interrupt there */
};

/* What the world saw of moves. */
struct moved {
	_Atomic uint32_t wishes, left, arrived, refused;
	_Atomic int post_at_leave, error, wish_error;
	_Atomic bool keep; /* `left` says no */
	struct vcpu_state state;
	struct vcpu_moment moment;
	_Atomic uint64_t arrived_ns;
};

extern const struct engine_ops guest_engine;
extern const struct vcpu_ops guest_ops;
extern struct fixture fixture;
extern struct moved moved;
extern _Atomic bool program_unwanted;
extern _Atomic bool io_waits;	   /* devices do not answer */
extern int post_in_next;	   /* post_in of the next start() */
extern uint64_t pod_clock_percent; /* of the host's clock */

uint64_t clock_ns(void);
/* vCPUs 0..count-1 with these programs; all but the first `runnable` wait for a SIPI. */
void start(uint32_t count, uint32_t runnable, const struct step *const *programs);
void finish(void);
/* Any thread, or the timer's signal handler. */
void fake_kick(struct engine_vcpu *vcpu);
bool is_in(uint32_t vcpu, enum vcpu_activity activity);
/* In the engine, where a kick alone is seen: who is about to go in looks once more for what has come. */
bool is_in_engine(uint32_t vcpu);
struct vcpu_stats stats_of(uint32_t vcpu);
uint64_t rekicks(uint32_t v);
/* As the node's main thread does it. It waits until the vCPU's thread has had some time of a core, which takes long where
 * many others want that. */
#define REKICK_PATIENCE_NS 100000000000ull
void watch_for(uint32_t v, uint64_t ns);

/* Waits for a condition; a machine that has other things to do takes its time. */
#define EVENTUALLY(condition)                                                                      \
	do {                                                                                       \
		uint64_t until = clock_ns() + 20000000000ull;                                      \
		while (!(condition) && clock_ns() < until)                                         \
			usleep(200);                                                               \
		assert_true(condition);                                                            \
	} while (0)

#endif
