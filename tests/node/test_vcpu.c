/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU thread on an engine that is made up: its guests are lists of exits. What is judged is
 * that no wake-up is lost, that timers get a running guest out, and the life of a secondary (INIT,
 * SIPI).
 */
#include "tests/test.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/placement.h"
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
	_Atomic uint32_t cr3_asked;
};

struct fixture {
	struct engine_vcpu engine_vcpu[VCPUS];
	struct vcpu *vcpu[VCPUS];
	uint32_t vcpu_count;
	struct vcpu_end end[VCPUS];
	sem_t ended;
	_Atomic uint32_t io_count, eoi_count;
	_Atomic int lose_kicks; /* so many */
	_Atomic bool idle_spin; /* SPIN sleeps, as a vCPU does that waits for a page */
	_Atomic int post_in;	/* calls of ops or engine until vCPU 0 gets an interrupt there */
};

static struct fixture fixture;
static _Atomic bool io_waits;		 /* devices do not answer */
static int post_in_next;		 /* post_in of the next start() */
static uint64_t pod_clock_percent = 100; /* of the host's clock */

static uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* ---- the engine ------------------------------------------------------------------------------ */

/* An interrupt that comes just when the vCPU's thread is here. */
static void maybe_post(void)
{
	if (fixture.post_in && --fixture.post_in == 0)
		vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x40, false);
}

static int fake_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu)
{
	(void)engine;
	*ret_vcpu = &fixture.engine_vcpu[number];
	return 0;
}

static void fake_destroy(struct engine_vcpu *vcpu)
{
	(void)vcpu;
}

static int fake_bind(struct engine_vcpu *vcpu)
{
	(void)vcpu;
	return 0;
}

static int fake_load(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	if (vcpu->load_fails > 0) {
		vcpu->load_fails--;
		return -EINVAL;
	}
	vcpu->loaded = *state;
	vcpu->loads++;
	return 0;
}

static int fake_save(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	struct lapic_state lapic = state->lapic;

	if (vcpu->save_again > 0) {
		vcpu->save_again--;
		return -EAGAIN;
	}
	uint8_t run_state = state->run_state;

	*state = vcpu->loaded;
	state->lapic = lapic;
	state->run_state = run_state;
	vcpu->saves++;
	return 0;
}

static int fake_set_tsc(struct engine_vcpu *vcpu, const struct tsc_line *tsc)
{
	assert(tsc->guest_tsc == 77);
	vcpu->tsc_sets++;
	return 0;
}

/* Any thread, or the timer's signal handler. */
static void fake_kick(struct engine_vcpu *vcpu)
{
	if (atomic_load(&fixture.lose_kicks) > 0 && atomic_fetch_sub(&fixture.lose_kicks, 1) > 0)
		return;
	atomic_store(&vcpu->kick, true);
}

static bool take_kick(struct engine_vcpu *vcpu)
{
	return atomic_exchange(&vcpu->kick, false);
}

static bool exit_msr(struct engine_exit *exit, bool write, uint32_t index, uint64_t value)
{
	exit->kind = write ? EXIT_MSR_WRITE : EXIT_MSR_READ;
	exit->msr.index = index;
	exit->msr.value = value;
	exit->msr.fault = 0;
	return true;
}

/* One step of the guest. True: it is an exit. */
static bool run_step(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	const struct step *step = &vcpu->program[vcpu->at];

	if (step->kind != SPIN)
		vcpu->at++;
	switch (step->kind) {
	case HALT:
		vcpu->halted = true;
		exit->kind = EXIT_HLT;
		return true;
	case WRITE_MSR:
		return exit_msr(exit, true, step->index, step->value);
	case READ_MSR:
		return exit_msr(exit, false, step->index, 0);
	case OUT:
		exit->kind = EXIT_IO;
		exit->io.port = (uint16_t)step->index;
		exit->io.size = 1;
		exit->io.write = 1;
		exit->io.count = 1;
		exit->io.data = vcpu->data;
		return true;
	case CLI:
		vcpu->interrupts_on = false;
		return false;
	case STI:
		vcpu->interrupts_on = true;
		return false;
	case TRIPLE_FAULT:
		exit->kind = EXIT_SHUTDOWN;
		return true;
	case BREAK:
		exit->kind = EXIT_FAILED;
		exit->fail.reason = "made up";
		exit->fail.detail = 42;
		return true;
	case SEND_NEXT:
		return exit_msr(exit, true, X2(0x30),
				(uint64_t)((vcpu->number + 1) % fixture.vcpu_count) << 32 | 0x4040);
	case REPEAT:
		vcpu->at = (uint32_t)step->value;
		return false;
	case SPIN:
		return false;
	}
	return false;
}

/* Guests take interrupts only where they wait for them, as with STI; HLT. */
static bool fake_can_interrupt(struct engine_vcpu *vcpu)
{
	return vcpu->interrupts_on && vcpu->injected < 0 &&
	       (vcpu->halted || vcpu->program[vcpu->at].kind == SPIN);
}

static int fake_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	if (exit->kind == EXIT_MSR_READ && vcpu->runs) {
		vcpu->msr_read = exit->msr.value;
		vcpu->msr_fault = exit->msr.fault;
	}
	vcpu->runs++;
	vcpu->halted = false;
	for (;;) {
		if (take_kick(vcpu)) {
			exit->kind = EXIT_KICKED;
			return 0;
		}
		/* The handler of an interrupt is one EOI; it may end a SPIN. */
		if (vcpu->injected >= 0) {
			vcpu->last_vector = vcpu->injected;
			vcpu->injected = -1;
			vcpu->interrupts++;
			if (vcpu->program[vcpu->at].kind == SPIN)
				vcpu->at++;
			exit_msr(exit, true, X2(0x0b), 0);
			return 0;
		}
		if (vcpu->window && fake_can_interrupt(vcpu)) {
			exit->kind = EXIT_WINDOW;
			return 0;
		}
		if (run_step(vcpu, exit))
			return 0;
		if (vcpu->program[vcpu->at].kind == SPIN && fixture.idle_spin)
			usleep(1000);
		else if (vcpu->program[vcpu->at].kind == SPIN)
			sched_yield();
	}
}

static int fake_interrupt(struct engine_vcpu *vcpu, uint8_t vector)
{
	assert(fake_can_interrupt(vcpu));
	vcpu->injected = vector;
	return 0;
}

static int fake_nmi(struct engine_vcpu *vcpu)
{
	vcpu->nmis++;
	return 0;
}

static void fake_want_window(struct engine_vcpu *vcpu, bool want)
{
	vcpu->window = want;
	maybe_post();
}

static uint8_t fake_tpr(struct engine_vcpu *vcpu)
{
	return vcpu->cr8;
}

static void fake_set_tpr(struct engine_vcpu *vcpu, uint8_t cr8)
{
	vcpu->cr8 = cr8;
}

static uint64_t fake_rip(struct engine_vcpu *vcpu)
{
	return 0x1000 + vcpu->number;
}

static uint64_t fake_cr3(struct engine_vcpu *vcpu)
{
	atomic_fetch_add(&vcpu->cr3_asked, 1);
	return 0x2000000;
}

static const struct engine_ops fake = {
	.name = "fake",
	.vcpu_create = fake_create,
	.vcpu_destroy = fake_destroy,
	.vcpu_bind = fake_bind,
	.vcpu_load = fake_load,
	.vcpu_save = fake_save,
	.vcpu_set_tsc = fake_set_tsc,
	.vcpu_run = fake_run,
	.vcpu_kick = fake_kick,
	.vcpu_can_interrupt = fake_can_interrupt,
	.vcpu_interrupt = fake_interrupt,
	.vcpu_nmi = fake_nmi,
	.vcpu_want_window = fake_want_window,
	.vcpu_tpr = fake_tpr,
	.vcpu_set_tpr = fake_set_tpr,
	.vcpu_rip = fake_rip,
	.vcpu_cr3 = fake_cr3,
};

/* ---- the world around ------------------------------------------------------------------------ */

static uint64_t on_now(void *ctx)
{
	(void)ctx;
	maybe_post();
	return clock_ns() / 100 * pod_clock_percent;
}

static void on_tsc(void *ctx, struct tsc_line *ret_tsc)
{
	(void)ctx;
	*ret_tsc = (struct tsc_line){ .guest_tsc = 77 };
}

static int on_io(void *ctx, uint32_t vcpu, const struct pc_access *access)
{
	(void)ctx;
	(void)vcpu;
	fixture.io_count++;
	while (io_waits)
		usleep(1000);
	return access->address == 0x2f8 ? -ECANCELED : 0;
}

static void on_interrupt(void *ctx, const struct interrupt *interrupt)
{
	struct vcpu_set set;

	(void)ctx;
	assert(interrupt_route(interrupt, fixture.vcpu_count, &set) == 0);
	for (uint32_t v = vcpu_set_next(&set, 0); v < VCPUS_MAX; v = vcpu_set_next(&set, v + 1))
		vcpu_post(fixture.vcpu[v], interrupt->mode, interrupt->vector, interrupt->level);
}

static void on_eoi(void *ctx, uint32_t vcpu, uint8_t vector)
{
	(void)ctx;
	(void)vcpu;
	assert(vector == 0x50);
	fixture.eoi_count++;
}

static struct {
	_Atomic uint32_t wishes, left, arrived, refused;
	_Atomic int post_at_leave, error, wish_error;
	_Atomic bool keep; /* `left` says no */
	struct vcpu_state state;
	struct vcpu_moment moment;
	_Atomic uint64_t arrived_ns;
} moved;

static int on_leave(void *ctx, uint32_t vcpu, uint16_t to, int error)
{
	(void)ctx;
	assert(to == 7);
	moved.wish_error = error;
	if (moved.post_at_leave)
		lapic_inbox_post(vcpu_inbox(fixture.vcpu[vcpu]), INTERRUPT_FIXED,
				 (uint8_t)moved.post_at_leave, false);
	moved.wishes++;
	return error;
}

static int on_left(void *ctx, uint32_t vcpu, const struct vcpu_moment *moment)
{
	(void)ctx;
	(void)vcpu;
	if (moved.keep)
		return -EIO;
	moved.state = *moment->state;
	moved.moment = *moment;
	moved.moment.state = &moved.state;
	moved.left++;
	return 0;
}

static void on_arrived(void *ctx, uint32_t vcpu)
{
	(void)ctx;
	(void)vcpu;
	moved.arrived_ns = clock_ns();
	moved.arrived++;
}

static void on_refused(void *ctx, uint32_t vcpu)
{
	(void)ctx;
	(void)vcpu;
	moved.refused++;
}

static void on_ended(void *ctx, uint32_t vcpu, const struct vcpu_end *end)
{
	(void)ctx;
	fixture.end[vcpu] = *end;
	sem_post(&fixture.ended);
}

static const struct vcpu_ops ops = { .now_ns = on_now,
				     .tsc = on_tsc,
				     .io = on_io,
				     .mmio = on_io,
				     .send_interrupt = on_interrupt,
				     .eoi = on_eoi,
				     .leave = on_leave,
				     .left = on_left,
				     .arrived = on_arrived,
				     .refused = on_refused,
				     .ended = on_ended };

/* vCPUs 0..count-1 with these programs; all but the first `runnable` wait for a SIPI. */
static void start(uint32_t count, uint32_t runnable, const struct step *const *programs)
{
	static struct vcpu_state state;

	memset(&fixture, 0, sizeof(fixture));
	sem_init(&fixture.ended, 0, 0);
	fixture.post_in = post_in_next;
	fixture.vcpu_count = count;
	for (uint32_t v = 0; v < count; v++) {
		struct engine_vcpu *engine_vcpu = &fixture.engine_vcpu[v];
		struct vcpu_config config = {
			.engine_ops = &fake,
			.number = v,
			.lapic = { .tsc_khz = 1000000, .tsc_deadline = true },
			.ops = &ops,
		};

		engine_vcpu->number = v;
		engine_vcpu->program = programs[v];
		engine_vcpu->injected = -1;
		engine_vcpu->interrupts_on = true;
		vcpu_state_reset(&state, v);
		lapic_reset(&state.lapic, v, v == 0);
		state.lapic.svr = 0x1ff;
		if (v < runnable)
			state.run_state = VCPU_RUNNABLE;
		assert_int_equal(vcpu_create(&config, &state, &fixture.vcpu[v]), 0);
	}
	for (uint32_t v = 0; v < count; v++)
		assert_int_equal(vcpu_start(fixture.vcpu[v]), 0);
}

static void finish(void)
{
	for (uint32_t v = 0; v < fixture.vcpu_count; v++)
		vcpu_stop(fixture.vcpu[v]);
	for (uint32_t v = 0; v < fixture.vcpu_count; v++)
		vcpu_join(fixture.vcpu[v]);
	for (uint32_t v = 0; v < fixture.vcpu_count; v++)
		vcpu_destroy(fixture.vcpu[v]);
	sem_destroy(&fixture.ended);
}

/* Waits up to 10 s for a condition. */
#define EVENTUALLY(condition)                                                                      \
	do {                                                                                       \
		uint64_t until = clock_ns() + 5000000000ull;                                       \
		while (!(condition) && clock_ns() < until)                                         \
			usleep(200);                                                               \
		assert_true(condition);                                                            \
	} while (0)

static bool is_in(uint32_t vcpu, enum vcpu_activity activity)
{
	struct vcpu_stats stats;

	vcpu_stats(fixture.vcpu[vcpu], &stats);
	return stats.activity == activity;
}

static struct vcpu_stats stats_of(uint32_t vcpu)
{
	struct vcpu_stats stats;

	vcpu_stats(fixture.vcpu[vcpu], &stats);
	return stats;
}

static void test_halt_and_post(void **state)
{
	static const struct step program[] = {
		{ .kind = HALT }, { .kind = SPIN }, { .kind = SPIN }, { .kind = SPIN }
	};
	const struct step *programs[] = { program };
	struct engine_vcpu *v = &fixture.engine_vcpu[0];

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(is_in(0, VCPU_SLEEPING));
	/* A sleep counts while it lasts. */
	EVENTUALLY(stats_of(0).sleep_ns > 2000000);
	assert_true(stats_of(0).here_ns >= stats_of(0).sleep_ns);
	assert_int_equal(v->interrupts, 0);
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	EVENTUALLY(v->interrupts == 1);
	assert_int_equal(v->last_vector, 0x41);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST));
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x50, true); /* a kick, and a level's EOI */
	EVENTUALLY(v->interrupts == 2 && fixture.eoi_count == 1);
	assert_true(vcpu_thread_id(fixture.vcpu[0]) > 0);
	finish();
	assert_int_equal(fixture.end[0].kind, VCPU_END_STOPPED);
	assert_int_equal(fixture.end[0].rip, 0x1000);
}

/* Waits until vCPU `v` has had `count` interrupts; 5 s without any is too long. */
static void progress_to(uint32_t v, uint32_t count)
{
	uint32_t before = 0;
	uint64_t since = clock_ns();

	while (fixture.engine_vcpu[v].interrupts < count) {
		usleep(500);
		if (fixture.engine_vcpu[v].interrupts != before) {
			before = fixture.engine_vcpu[v].interrupts;
			since = clock_ns();
		}
		if (clock_ns() - since > 5000000000ull)
			fail_msg("an interrupt was lost after %u", before);
	}
}

#define ROUNDS 3000u

/* Interrupts go round a ring of vCPUs that halt, spin, or do either, whatever comes: none may be
 * lost. */
static void test_ring(void **state)
{
	static const struct step halting[] = { { .kind = HALT },
					       { .kind = SEND_NEXT },
					       { REPEAT, 0, 0 } };
	static const struct step spinning[] = { { .kind = SPIN },
						{ .kind = SEND_NEXT },
						{ REPEAT, 0, 0 } };
	static const struct step mixed[] = { { .kind = HALT },
					     { .kind = SEND_NEXT },
					     { .kind = SPIN },
					     { .kind = SEND_NEXT },
					     { REPEAT, 0, 0 } };
	const struct step *programs[] = { halting, mixed, spinning, halting };
	(void)state;
	start(4, 4, programs);
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x40, false);
	progress_to(0, ROUNDS);
	finish();
}

/*
 * On its way into HLT or into the guest the thread makes `calls` calls; an interrupt that comes in
 * any of them arrives.
 */
static void post_in_each(const struct step *program, int calls)
{
	const struct step *programs[] = { program };

	for (int call = 1; call <= calls; call++) {
		post_in_next = call;
		start(1, 1, programs);
		EVENTUALLY(fixture.engine_vcpu[0].interrupts == 1);
		assert_int_equal(fixture.post_in, 0);
		finish();
	}
	post_in_next = 0;
}

static void test_post_into_halt(void **state)
{
	static const struct step program[] = { { .kind = HALT }, { REPEAT, 0, 0 } };

	(void)state;
	post_in_each(program, 4);
}

static void test_post_into_guest(void **state)
{
	static const struct step program[] = { { .kind = SPIN }, { REPEAT, 0, 0 } };

	(void)state;
	post_in_each(program, 2);
}

static void test_timer(void **state)
{
	static const struct step spins[] = { { WRITE_MSR, X2(0x3e), 0xb },
					     { WRITE_MSR, X2(0x32), 0x61 },
					     { WRITE_MSR, X2(0x38), 5000000 },
					     { .kind = SPIN },
					     { .kind = SPIN } };
	static const struct step halts[] = { { WRITE_MSR, X2(0x3e), 0xb },
					     { WRITE_MSR, X2(0x32), 0x20061 },
					     { WRITE_MSR, X2(0x38), 2000000 },
					     { .kind = HALT },
					     { REPEAT, 0, 3 } };
	const struct step *programs[] = { spins, halts };

	(void)state;
	start(2, 2, programs);
	EVENTUALLY(fixture.engine_vcpu[0].interrupts == 1);
	assert_int_equal(fixture.engine_vcpu[0].last_vector, 0x61);
	EVENTUALLY(fixture.engine_vcpu[1].interrupts >= 50);
	assert_int_equal(fixture.engine_vcpu[0].interrupts, 1);
	finish();
}

/* Timers so short that they expire around the entry to the guest: none may be lost there. */
static void test_short_timers(void **state)
{
	static const struct step program[] = { { WRITE_MSR, X2(0x3e), 0xb },
					       { WRITE_MSR, X2(0x32), 0x61 },
					       { WRITE_MSR, X2(0x38), 300 },
					       { .kind = SPIN },
					       { WRITE_MSR, X2(0x38), 3000 },
					       { .kind = SPIN },
					       { WRITE_MSR, X2(0x38), 10000 },
					       { .kind = SPIN },
					       { REPEAT, 0, 2 } };
	const struct step *programs[] = { program };

	(void)state;
	start(1, 1, programs);
	progress_to(0, ROUNDS);
	finish();
}

/* The host's timers are early by a pod clock that is slower, or late by one that is faster. */
static void test_other_clock(void **state)
{
	static const struct step program[] = { { WRITE_MSR, X2(0x3e), 0xb },
					       { WRITE_MSR, X2(0x32), 0x20061 },
					       { WRITE_MSR, X2(0x38), 1000000 },
					       { .kind = SPIN },
					       { REPEAT, 0, 3 } };
	const struct step *programs[] = { program };

	(void)state;
	for (pod_clock_percent = 90; pod_clock_percent <= 110; pod_clock_percent += 20) {
		start(1, 1, programs);
		progress_to(0, 100);
		finish();
	}
	pod_clock_percent = 100;
}

static uint64_t rekicks(uint32_t v)
{
	struct vcpu_stats stats;

	vcpu_stats(fixture.vcpu[v], &stats);
	return stats.rekick_count;
}

/* As the node's main thread does it. */
static void watch_for(uint32_t v, uint64_t ns)
{
	uint64_t until = clock_ns() + ns;

	while (clock_ns() < until && vcpu_watch(fixture.vcpu[v]) != VCPU_WATCHED_REKICKED)
		usleep(VCPU_WATCH_NS / 1000);
}

/* An engine that loses a kick: it is kicked again, which is counted. */
static void test_lost_kick(void **state)
{
	static const struct step program[] = { { .kind = SPIN }, { .kind = SPIN } };
	const struct step *programs[] = { program };

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST));
	watch_for(0, 300000000); /* nothing to take */
	assert_int_equal(rekicks(0), 0);
	fixture.lose_kicks = 1;
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	assert_int_equal(fixture.lose_kicks, 0);
	watch_for(0, 20000000000ull);
	assert_int_equal(rekicks(0), 1);
	EVENTUALLY(fixture.engine_vcpu[0].interrupts == 1);
	finish();
}

/* A thread that has not run cannot have taken anything: no kick needs to have been lost. */
static void test_not_lost(void **state)
{
	static const struct step program[] = { { .kind = SPIN }, { .kind = SPIN } };
	const struct step *programs[] = { program };

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST));
	fixture.idle_spin = true;
	fixture.lose_kicks = 1;
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	watch_for(0, 500000000);
	assert_int_equal(rekicks(0), 0);
	assert_int_equal(fixture.engine_vcpu[0].interrupts, 0);
	vcpu_sample(fixture.vcpu[0]);
	EVENTUALLY(fixture.engine_vcpu[0].interrupts == 1);
	finish();
}

static void test_start_up(void **state)
{
	static const struct step first[] = { { .kind = SPIN }, { .kind = SPIN } };
	static const struct step second[] = { { .kind = SPIN }, { .kind = SPIN } };
	const struct step *programs[] = { first, second };
	struct engine_vcpu *v = &fixture.engine_vcpu[1];
	struct vcpu_stats stats;

	(void)state;
	start(2, 1, programs);
	EVENTUALLY(is_in(1, VCPU_SLEEPING));
	vcpu_post(fixture.vcpu[1], INTERRUPT_FIXED, 0x40, false); /* not yet */
	usleep(20000);
	assert_int_equal(v->runs, 0);
	vcpu_post(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
	EVENTUALLY(v->loads == 2);
	vcpu_post(fixture.vcpu[1], INTERRUPT_SIPI, 0x9a, false);
	EVENTUALLY(v->runs > 0);
	assert_int_equal(v->loads, 3);
	assert_int_equal(v->tsc_sets, 3);
	assert_int_equal(v->loaded.segment[SEG_CS].base, 0x9a000);
	EVENTUALLY(is_in(1, VCPU_IN_GUEST));
	assert_int_equal(v->interrupts, 0);			 /* the INIT took it away */
	vcpu_post(fixture.vcpu[1], INTERRUPT_SIPI, 0x11, false); /* it runs: ignored */
	vcpu_post(fixture.vcpu[1], INTERRUPT_NMI, 0, false);
	EVENTUALLY(v->nmis == 1);
	assert_int_equal(v->loads, 3);
	/* INIT stops it; INIT and SIPI in one go start it anew */
	vcpu_post(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
	EVENTUALLY(is_in(1, VCPU_SLEEPING));
	vcpu_stats(fixture.vcpu[1], &stats);
	assert_int_equal(stats.run_state, VCPU_WAIT_FOR_SIPI);
	vcpu_post(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
	vcpu_post(fixture.vcpu[1], INTERRUPT_SIPI, 0x22, false);
	EVENTUALLY(is_in(1, VCPU_IN_GUEST));
	assert_int_equal(v->loaded.segment[SEG_CS].base, 0x22000);
	/* in the middle of an instruction whose end brings no exit: soon all the same */
	v->save_again = 1;
	vcpu_post(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
	EVENTUALLY(is_in(1, VCPU_SLEEPING));
	assert_int_equal(v->save_again, 0);
	finish();
}

static void test_bsp_init(void **state)
{
	static const struct step program[] = { { .kind = SPIN }, { .kind = SPIN } };
	const struct step *programs[] = { program };

	(void)state;
	start(1, 1, programs);
	vcpu_post(fixture.vcpu[0], INTERRUPT_INIT, 0, false);
	sem_wait(&fixture.ended);
	assert_int_equal(fixture.end[0].kind, VCPU_END_INIT);
	finish();
}

static void test_halt_without_interrupts(void **state)
{
	static const struct step program[] = {
		{ .kind = CLI }, { .kind = HALT }, { .kind = SPIN }, { .kind = SPIN }
	};
	const struct step *programs[] = { program };
	struct engine_vcpu *v = &fixture.engine_vcpu[0];

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(is_in(0, VCPU_SLEEPING));
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	usleep(20000);
	assert_true(is_in(0, VCPU_SLEEPING));
	vcpu_post(fixture.vcpu[0], INTERRUPT_NMI, 0, false);
	EVENTUALLY(v->nmis == 1);
	assert_int_equal(v->interrupts, 0);
	assert_true(v->window);
	finish();
}

static void test_window(void **state)
{
	static const struct step program[] = {
		{ .kind = CLI },   { WRITE_MSR, X2(0x3f), 0x77 }, /* to itself */
		{ OUT, 0x3f8, 0 }, { .kind = STI },
		{ .kind = SPIN },  { .kind = SPIN }
	};
	const struct step *programs[] = { program };
	struct vcpu_stats stats;

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(fixture.engine_vcpu[0].interrupts == 1);
	assert_int_equal(fixture.engine_vcpu[0].last_vector, 0x77);
	vcpu_stats(fixture.vcpu[0], &stats);
	assert_int_equal(stats.exit_count[EXIT_WINDOW], 1);
	assert_int_equal(fixture.io_count, 1);
	finish();
}

static void test_registers(void **state)
{
	static const struct step program[] = { { OUT, 0x80, 0 }, /* answered on the spot */
					       { WRITE_MSR, X2(0x08), 0x60 },
					       { READ_MSR, X2(0x08), 0 },
					       { READ_MSR, X2(0x0b), 0 },     /* write-only: #GP */
					       { WRITE_MSR, X2(0x3f), 0x65 }, /* below TPR */
					       { .kind = SPIN },
					       { .kind = SPIN } };
	const struct step *programs[] = { program };
	struct engine_vcpu *v = &fixture.engine_vcpu[0];

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(v->msr_fault);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST) && v->at == 5);
	assert_int_equal(v->cr8, 6);
	assert_int_equal(v->interrupts, 0);
	assert_int_equal(fixture.io_count, 0);
	v->cr8 = 5; /* the guest lowers it by CR8 */
	fake_kick(v);
	EVENTUALLY(v->interrupts == 1);
	assert_int_equal(v->last_vector, 0x65);
	vcpu_resync_tsc(fixture.vcpu[0]);
	EVENTUALLY(v->tsc_sets == 2);
	finish();
}

/* A vCPU that waits for a device, perhaps for a user who has stopped the output, holds up no move of
 * the TSC: it takes the line before it runs the guest again. */
static void test_resync_outside(void **state)
{
	static const struct step program[] = { { OUT, 0x3f8, 0 }, { .kind = SPIN } };
	const struct step *programs[] = { program };
	struct engine_vcpu *v = &fixture.engine_vcpu[0];

	(void)state;
	io_waits = true;
	start(1, 1, programs);
	EVENTUALLY(is_in(0, VCPU_IN_IO));
	vcpu_resync_tsc(fixture.vcpu[0]);
	assert_false(vcpu_resync_pending(fixture.vcpu[0]));
	assert_int_equal(v->tsc_sets, 1);
	io_waits = false;
	EVENTUALLY(v->tsc_sets == 2 && is_in(0, VCPU_IN_GUEST));
	finish();
}

static void test_ends(void **state)
{
	static const struct step faults[] = { { .kind = TRIPLE_FAULT } };
	static const struct step breaks[] = { { .kind = BREAK } };
	static const struct step cancelled[] = { { OUT, 0x2f8, 0 } };
	const struct step *programs[] = { faults, breaks, cancelled };

	(void)state;
	start(3, 3, programs);
	for (int i = 0; i < 3; i++)
		sem_wait(&fixture.ended);
	assert_int_equal(fixture.end[0].kind, VCPU_END_SHUTDOWN);
	assert_int_equal(fixture.end[1].kind, VCPU_END_FAILED);
	assert_string_equal(fixture.end[1].reason, "made up");
	assert_int_equal(fixture.end[1].detail, 42);
	assert_int_equal(fixture.end[1].rip, 0x1001);
	assert_int_equal(fixture.end[2].kind, VCPU_END_STOPPED);
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x40, false); /* to the dead: no harm */
	finish();
}

static void test_never_started(void **state)
{
	static const struct step program[] = { { .kind = SPIN } };
	struct vcpu_config config = { .engine_ops = &fake, .number = 0, .ops = &ops };
	struct vcpu_state vcpu_state;

	(void)state;
	memset(&fixture, 0, sizeof(fixture));
	fixture.engine_vcpu[0].program = program;
	vcpu_state_reset(&vcpu_state, 0);
	assert_int_equal(vcpu_create(&config, &vcpu_state, &fixture.vcpu[0]), 0);
	assert_int_equal(vcpu_number(fixture.vcpu[0]), 0);
	assert_int_equal(vcpu_thread_id(fixture.vcpu[0]), 0);
	vcpu_destroy(fixture.vcpu[0]);
	vcpu_destroy(NULL);
}

/* ---- moving ---------------------------------------------------------------------------------- */

static const struct step spin[] = { { .kind = SPIN }, { .kind = REPEAT } };

static void start_to_move(const struct step *program)
{
	const struct step *programs[] = { program };

	memset(&moved, 0, sizeof(moved));
	start(1, 1, programs);
}

static void leave_and_wait(uint32_t left)
{
	vcpu_leave(fixture.vcpu[0], 7);
	EVENTUALLY(moved.left == left && is_in(0, VCPU_PARKED));
}

/* Out of the guest, with what came in the meantime; parked it is left alone; and back. */
static void test_leave_and_arrive(void **state)
{
	struct engine_vcpu *v = &fixture.engine_vcpu[0];
	uint32_t runs;
	uint64_t here_ns;

	start_to_move(spin);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST));
	moved.post_at_leave = 0x61;
	leave_and_wait(1);
	assert_int_equal(v->saves, 1);
	assert_int_equal(v->interrupts, 0);
	assert_true(moved.state.lapic.irr[1] >> 33 & 1);
	assert_true(moved.moment.clock_ns <= clock_ns());
	runs = v->runs;
	here_ns = stats_of(0).here_ns;
	assert_true(here_ns > 0);
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x71, false);
	vcpu_resync_tsc(fixture.vcpu[0]);
	vcpu_leave(fixture.vcpu[0], 7); /* too late, and forgotten */
	assert_int_equal(vcpu_watch(fixture.vcpu[0]), VCPU_WATCHED_WELL);
	usleep(20000);
	assert_true(is_in(0, VCPU_PARKED));
	assert_int_equal(v->runs, runs);
	assert_true(stats_of(0).here_ns == here_ns);
	moved.post_at_leave = 0;
	moved.state.rip = 0x4711;
	vcpu_arrive(fixture.vcpu[0], &moved.moment);
	EVENTUALLY(v->interrupts == 2); /* what it brought, and what was in the inbox */
	assert_int_equal(moved.arrived, 1);
	assert_int_equal(v->loaded.rip, 0x4711);
	assert_int_equal(moved.wishes, 1);
	EVENTUALLY(stats_of(0).here_ns > here_ns);
	finish();
}

/* What runs is known by the kicks, and is not asked for at each; and of one that has come at once. */
static void test_what_runs(void **state)
{
	struct engine_vcpu *v = &fixture.engine_vcpu[0];
	uint64_t cpu_ns = 0, wait_ns, began_ns;

	start_to_move(spin);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST));
	assert_int_equal(vcpu_program(fixture.vcpu[0]), 0);
	EVENTUALLY((vcpu_sample(fixture.vcpu[0]), vcpu_program(fixture.vcpu[0]) != 0));
	assert_int_equal(vcpu_program(fixture.vcpu[0]), placement_program(0x2000000, 0x1000));
	began_ns = clock_ns();
	v->cr3_asked = 0;
	for (uint32_t i = 0; i < 200; i++) {
		vcpu_sample(fixture.vcpu[0]);
		usleep(100);
	}
	assert_in_range(v->cr3_asked, 1, (clock_ns() - began_ns) / 2000000 + 2);
	EVENTUALLY(vcpu_core_times(fixture.vcpu[0], &cpu_ns, &wait_ns) && cpu_ns > 0);
	leave_and_wait(1);
	moved.state.cr3 = 0x3000000;
	moved.state.rip = 0x4711;
	vcpu_arrive(fixture.vcpu[0], &moved.moment);
	EVENTUALLY(moved.arrived == 1);
	assert_int_equal(vcpu_program(fixture.vcpu[0]), placement_program(0x3000000, 0x4711));
	finish();
}

/* It does not go on before its time has come, and its timer goes on. */
static void test_arrive_early(void **state)
{
	static const struct step program[] = {
		{ WRITE_MSR, X2(0x32), 0x45 }, /* one-shot, 200 ms */
		{ WRITE_MSR, X2(0x3e), 0xb },
		{ WRITE_MSR, X2(0x38), 200000000 },
		{ .kind = HALT },
		{ .kind = SPIN }, /* which the interrupt ends */
		{ .kind = SPIN },
	};
	struct engine_vcpu *v = &fixture.engine_vcpu[0];
	uint64_t armed_ns, early_ns;

	start_to_move(program);
	EVENTUALLY(is_in(0, VCPU_SLEEPING));
	armed_ns = clock_ns();
	leave_and_wait(1);
	assert_int_equal(moved.state.run_state, VCPU_HALTED);
	early_ns = clock_ns() + 100000000;
	moved.moment.clock_ns = early_ns;
	moved.moment.decided_ns = early_ns + 60000000000; /* says a node that lies */
	vcpu_arrive(fixture.vcpu[0], &moved.moment);
	EVENTUALLY(moved.arrived == 1);
	assert_true(moved.arrived_ns >= early_ns);
	EVENTUALLY(v->interrupts == 1 && v->last_vector == 0x45);
	assert_true(clock_ns() - armed_ns >= 190000000);
	EVENTUALLY(stats_of(0).move_part_ns[VCPU_MOVE_PARTS - 1] > 0);
	assert_int_equal(stats_of(0).move_ns, 0);
	finish();
}

/* Nobody can take it: it stays, is taken back, or waits for the next that can be loaded. */
static void test_leave_in_vain(void **state)
{
	struct engine_vcpu *v = &fixture.engine_vcpu[0];

	start_to_move(spin);
	moved.keep = true;
	vcpu_leave(fixture.vcpu[0], 7);
	EVENTUALLY(moved.wishes == 1 && is_in(0, VCPU_IN_GUEST));
	vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	EVENTUALLY(v->interrupts == 1);
	moved.keep = false;
	leave_and_wait(1);
	vcpu_take_back(fixture.vcpu[0]);
	EVENTUALLY(moved.arrived == 1 && is_in(0, VCPU_IN_GUEST));
	leave_and_wait(2);
	v->load_fails = 1;
	vcpu_arrive(fixture.vcpu[0], &moved.moment);
	EVENTUALLY(moved.refused == 1 && is_in(0, VCPU_PARKED));
	assert_int_equal(moved.arrived, 1);
	vcpu_arrive(fixture.vcpu[0], &moved.moment);
	EVENTUALLY(moved.arrived == 2 && is_in(0, VCPU_IN_GUEST));
	leave_and_wait(3);
	finish();
	assert_int_equal(fixture.end[0].kind, VCPU_END_STOPPED);
}

/* In the middle of an instruction, or of an access, it goes on to its end first. */
static void test_leave_in_the_middle(void **state)
{
	static const struct step program[] = { { OUT, 0x3f8, 0 }, { .kind = SPIN } };
	struct engine_vcpu *v = &fixture.engine_vcpu[0];

	io_waits = true;
	start_to_move(program);
	EVENTUALLY(is_in(0, VCPU_IN_IO));
	vcpu_leave(fixture.vcpu[0], 7);
	usleep(20000);
	assert_int_equal(moved.wishes, 0);
	v->save_again = 2;
	io_waits = false;
	EVENTUALLY(moved.left == 1);
	assert_int_equal(v->save_again, 0);
	assert_int_equal(v->at, 1);
	finish();
}

/* A wish whose kick is lost is seen by the watcher. */
static void test_wish_watched(void **state)
{
	start_to_move(spin);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST));
	fixture.lose_kicks = 1;
	vcpu_leave(fixture.vcpu[0], 7);
	watch_for(0, 20000000000ull);
	assert_int_equal(rekicks(0), 1);
	EVENTUALLY(moved.left == 1);
	finish();
}

/* There and back between two threads, with interrupts all along: none is lost, none comes twice. */
static void test_move_and_post(void **state)
{
	static const struct step program[] = { { .kind = HALT }, { .kind = REPEAT } };
	struct engine_vcpu *v = &fixture.engine_vcpu[0];
	uint32_t posted = 0;

	start_to_move(program);
	for (uint32_t round = 1; round <= 300; round++) {
		vcpu_leave(fixture.vcpu[0], 7);
		vcpu_post(fixture.vcpu[0], INTERRUPT_FIXED, (uint8_t)(0x40 + round % 64), false);
		posted++;
		EVENTUALLY(moved.left == round);
		vcpu_arrive(fixture.vcpu[0], &moved.moment);
		EVENTUALLY(v->interrupts == posted);
		EVENTUALLY(moved.arrived == round);
	}
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leave_and_arrive),
		cmocka_unit_test(test_arrive_early),
		cmocka_unit_test(test_what_runs),
		cmocka_unit_test(test_leave_in_vain),
		cmocka_unit_test(test_leave_in_the_middle),
		cmocka_unit_test(test_wish_watched),
		cmocka_unit_test(test_move_and_post),
		cmocka_unit_test(test_halt_and_post),
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_post_into_halt),
		cmocka_unit_test(test_post_into_guest),
		cmocka_unit_test(test_timer),
		cmocka_unit_test(test_short_timers),
		cmocka_unit_test(test_other_clock),
		cmocka_unit_test(test_lost_kick),
		cmocka_unit_test(test_not_lost),
		cmocka_unit_test(test_start_up),
		cmocka_unit_test(test_bsp_init),
		cmocka_unit_test(test_halt_without_interrupts),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_resync_outside),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_never_started),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
