/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread: runs the guest through the engine, carries its local APIC and its timer, sleeps
 * in HLT. It knows nothing of nodes: what it cannot do itself goes through struct vcpu_ops.
 *
 *   lapic_inbox_post(), then                     +--> ops->io, mmio (may wait for another node)
 *   vcpu_wake() (any thread)                     |
 *       |                                        |
 *     inbox --> drain --> timer --> inject --> run --> exit --> APIC register
 *                 ^                              |                   |
 *                 +--- sleep (HLT, no SIPI yet) <+                   +--> ops->send_interrupt, eoi
 *
 * The thread is a seat: the vCPU may be on another node, and the thread is parked then, asleep, with
 * all that it needs to run the vCPU at once when it comes (back). A vCPU leaves between two
 * instructions, with no access open and nothing in its inbox:
 *
 *   vcpu_leave() --> saved --> ops->leave --> inbox drained --> ops->left --> parked
 *   vcpu_expect() --> ops->look
 *   vcpu_arrive(), vcpu_take_back() --> its time has come --> loaded --> ops->arrived --> it runs
 *
 * Invariant: the thread drains its inbox after it has announced that it enters the guest or sleeps,
 * and whoever posts looks at that announcement after posting; so no interrupt waits for an exit
 * that does not come.
 */
#ifndef NODE_VCPU_H
#define NODE_VCPU_H

#include <stdbool.h>
#include <stdint.h>

#include "core/interrupt_route.h"
#include "core/limits.h"
#include "engine/engine.h"
#include "machine/lapic.h"
#include "machine/pc.h"

enum vcpu_end_kind {
	VCPU_END_STOPPED,  /* vcpu_stop() */
	VCPU_END_SHUTDOWN, /* triple fault */
	VCPU_END_FAILED,   /* the engine gave up: reason, detail */
	VCPU_END_INIT,	   /* vCPU 0 got an INIT: the guest resets itself so */
};

struct vcpu_end {
	enum vcpu_end_kind kind;
	uint64_t rip;
	const char *reason; /* static string, or NULL */
	uint64_t detail;
};

/* A vCPU between two instructions: what moves from node to node. */
struct vcpu_moment {
	const struct vcpu_state *state;
	uint64_t clock_ns;   /* pod clock, and ... */
	uint64_t guest_tsc;  /* its TSC: no node that takes it lets either be less */
	uint64_t decided_ns; /* pod clock at vcpu_leave() */
};

/* Called by the vCPU's thread, outside the guest. The callee may block in io and mmio. */
struct vcpu_ops {
	/* The first call, before the thread touches guest memory: 0, or negative: it ends. May be
	 * NULL. */
	int (*started)(void *ctx, uint32_t vcpu);
	/* It goes to sleep, or is back. NULL: nobody wants to know. */
	void (*idle)(void *ctx, uint32_t vcpu, bool idle);
	/* Its timer has expired, and it was awake. NULL: likewise. */
	void (*ticks)(void *ctx, uint32_t vcpu);
	uint64_t (*now_ns)(void *ctx); /* pod clock; never goes backwards */
	/* Does anybody want vcpu_program()? To know it may take a call. NULL: nobody. */
	bool (*wants_program)(void *ctx);
	/* How long its thread has waited for pages, in all. NULL: never. */
	uint64_t (*stalled_ns)(void *ctx, uint32_t vcpu);
	/* The pair of host and guest TSC to go by from now on: at the start and after
	 * vcpu_resync_tsc(). */
	void (*tsc)(void *ctx, struct tsc_line *ret_tsc);
	/* A port or MMIO access that nobody else has answered. 0, or negative: the pod ends, stop
	 * running. */
	int (*io)(void *ctx, uint32_t vcpu, const struct pc_access *access);
	int (*mmio)(void *ctx, uint32_t vcpu, const struct pc_access *access);
	/* An IPI: route it (interrupt_route()); the sender may be among those it reaches, and gets
	 * it in its inbox, too. */
	void (*send_interrupt)(void *ctx, const struct interrupt *interrupt);
	/* A level-triggered interrupt has ended: pc_eoi() where the PC is. */
	void (*eoi)(void *ctx, uint32_t vcpu, uint8_t vector);
	/*
	 * It is to leave for node `to`, and is saved; or cannot be, because of `error`, and stays
	 * whatever the answer is. 0, or negative: it stays. Then `left` with its state: 0: it is
	 * away, or negative: it stays. What was in its inbox at `leave` is in that state. NULL:
	 * nobody calls vcpu_leave().
	 */
	int (*leave)(void *ctx, uint32_t vcpu, uint16_t to, int error);
	int (*left)(void *ctx, uint32_t vcpu, const struct vcpu_moment *moment);
	/* Behind vcpu_expect(): looks for a while whether it comes. NULL: nobody calls that. */
	void (*look)(void *ctx, uint32_t vcpu);
	/* It has arrived and is about to run; or cannot be loaded, and the thread parks again. */
	void (*arrived)(void *ctx, uint32_t vcpu);
	void (*refused)(void *ctx, uint32_t vcpu);
	/* The last call: the thread ends after it. Not called by vcpu_destroy() of a vCPU never
	 * started. */
	void (*ended)(void *ctx, uint32_t vcpu, const struct vcpu_end *end);
};

struct vcpu_config {
	const struct engine_ops *engine_ops;
	struct engine *engine;
	uint32_t number;
	struct lapic_config lapic;
	const struct vcpu_ops *ops;
	void *ctx;
	bool away; /* the vCPU begins elsewhere: the seat is parked */
};

enum vcpu_activity {
	VCPU_IN_GUEST,
	VCPU_OUTSIDE,
	VCPU_IN_IO,
	VCPU_SLEEPING,
	VCPU_PARKED,
	VCPU_ENDED
};

/*
 * Where the time of a move goes: until the vCPU had stopped; until its state was at the target, decoded;
 * until the seat's thread ran; until the first instruction.
 */
enum vcpu_move_part {
	VCPU_MOVE_STOP,
	VCPU_MOVE_WAY,
	VCPU_MOVE_WAKE,
	VCPU_MOVE_LOAD,
	VCPU_MOVE_PARTS
};

struct vcpu_stats {
	enum vcpu_activity activity;
	enum vcpu_run_state run_state;
	uint64_t exit_count[EXIT_FAILED + 1]; /* by enum engine_exit_kind */
	uint64_t interrupt_count;	      /* injected */
	uint64_t ipi_count;		      /* sent */
	uint64_t here_ns;      /* since it came, and its earlier stays at this seat */
	uint64_t sleep_ns;     /* of them; as here_ns, what goes on now included */
	uint64_t rekick_count; /* vcpu_watch(): kicks that had been lost */
	uint64_t rip;	       /* where the last kick found it: vcpu_sample() */
	uint64_t move_ns; /* of the last move to here: from vcpu_leave() to the first instruction */
	uint64_t move_part_ns[VCPU_MOVE_PARTS]; /* of which */
};

struct vcpu;

/* Creates the engine's vCPU; `state` is copied. -ENOMEM or the engine's error. */
int vcpu_create(const struct vcpu_config *config, const struct vcpu_state *state,
		struct vcpu **ret_vcpu);
/* Another state than at vcpu_create(); copied. Before vcpu_start(). */
void vcpu_set_state(struct vcpu *vcpu, const struct vcpu_state *state);
/* Starts the thread. Once. */
int vcpu_start(struct vcpu *vcpu);
/*
 * Any thread, any time between create and destroy. An interrupt for this vCPU goes into its inbox
 * first; vcpu_wake() then, if lapic_inbox_post() says that it is the first there. In between who
 * posts looks where the vCPU is (core/vcpu_place.h): post() in node/guest_io.c.
 */
struct lapic_inbox *vcpu_inbox(struct vcpu *vcpu);
void vcpu_wake(struct vcpu *vcpu);
/*
 * Any thread: it shall leave for node `to` as soon as it can; a wish, which the next one replaces.
 * The vCPU is here, or was a moment ago: a seat that is parked forgets it.
 */
void vcpu_leave(struct vcpu *vcpu, uint16_t to);
/*
 * One thread at a time, the seat being parked or about to be: the vCPU comes, or comes back with the
 * state that it left with. *moment is copied. Never waits.
 */
void vcpu_arrive(struct vcpu *vcpu, const struct vcpu_moment *moment);
void vcpu_take_back(struct vcpu *vcpu);
/* Any thread: it may come in a moment. A hint: the parked thread is awake then. */
void vcpu_expect(struct vcpu *vcpu);
/* It is here and runs, or would if it had a core. */
bool vcpu_is_busy(const struct vcpu *vcpu);
/* Any thread: set the guest's TSC to the pod clock again, soon (the clock filter has moved). */
void vcpu_resync_tsc(struct vcpu *vcpu);
/* It has not yet done so, and may be in the guest: elsewhere it does so before it enters it. */
bool vcpu_resync_pending(const struct vcpu *vcpu);
/* Any thread: kick it, so that the rip in a later vcpu_stats() is fresh. */
void vcpu_sample(struct vcpu *vcpu);
/*
 * One thread, again and again: a vCPU whose thread has run in the guest for 100 ms and more, having
 * had something to take, is kicked again. That is a defect of ours, and is counted. Call it
 * VCPU_WATCH_NS later again after VCPU_WATCHED_SOON, and four times that after the others.
 */
#define VCPU_WATCH_NS 25000000u
enum vcpu_watched { VCPU_WATCHED_WELL, VCPU_WATCHED_SOON, VCPU_WATCHED_REKICKED };
enum vcpu_watched vcpu_watch(struct vcpu *vcpu);
/* It sleeps, or is elsewhere: there is nothing to watch. Any thread. */
bool vcpu_rests(const struct vcpu *vcpu);
/* Any thread: end the thread as soon as it leaves the guest or ops->io. Does not wait. */
void vcpu_stop(struct vcpu *vcpu);
/*
 * Waits for the thread's end. vCPUs post to each other: stop all, join all, and only then destroy
 * any. Not by the vCPU's own thread.
 */
void vcpu_join(struct vcpu *vcpu);
/* Stops, joins, frees. NULL is fine. Not by the vCPU's own thread. */
void vcpu_destroy(struct vcpu *vcpu);

/* Any thread; counters are a recent view. */
void vcpu_stats(const struct vcpu *vcpu, struct vcpu_stats *ret_stats);
/* Any thread: what runs, as it was seen last (placement_program()); 0: nothing has been seen. */
uint32_t vcpu_program(const struct vcpu *vcpu);
/* Any thread: what the kernel counts of the vCPU's thread, in ns on a core, and ready to be. False: it
 * cannot be read. */
bool vcpu_core_times(struct vcpu *vcpu, uint64_t *ret_cpu_ns, uint64_t *ret_wait_ns);
/* The thread's Linux id once it runs, 0 before: UFFD_FEATURE_THREAD_ID names faults by it. */
int vcpu_thread_id(const struct vcpu *vcpu);

#endif
