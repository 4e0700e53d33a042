/* SPDX-License-Identifier: Apache-2.0 */
/* Made-up guests: vcpu_guest.h. */
#include "tests/node/vcpu_guest.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "tests/node/post.h"
#include "tests/test.h"

struct fixture fixture;
_Atomic bool program_unwanted;
_Atomic bool io_waits;		  /* devices do not answer */
int post_in_next;		  /* post_in of the next start() */
uint64_t pod_clock_percent = 100; /* of the host's clock */

static uint64_t ns_of(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t clock_ns(void)
{
	return ns_of(CLOCK_MONOTONIC);
}

/* ---- the engine ------------------------------------------------------------------------------ */

/* An interrupt that comes just when the vCPU's thread is here. */
static void maybe_post(void)
{
	if (fixture.post_in && --fixture.post_in == 0)
		post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x40, false);
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
void fake_kick(struct engine_vcpu *vcpu)
{
	if (atomic_load(&fixture.lose_kicks) > 0 && atomic_fetch_sub(&fixture.lose_kicks, 1) > 0)
		return;
	atomic_fetch_add(&vcpu->kicks, 1);
	atomic_store(&vcpu->kick, true);
}

static uint64_t fake_work(const struct engine_vcpu *vcpu)
{
	return atomic_load(&vcpu->work);
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
		vcpu->wrote_ns = clock_ns();
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

static int run_until_exit(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	if (exit->kind == EXIT_MSR_READ && vcpu->runs) {
		vcpu->msr_read = exit->msr.value;
		vcpu->msr_fault = exit->msr.fault;
	}
	vcpu->runs++;
	vcpu->halted = false;
	for (;;) {
		atomic_store(&vcpu->inside, false);
		if (take_kick(vcpu)) {
			exit->kind = EXIT_KICKED;
			return 0;
		}
		atomic_store(&vcpu->inside, true);
		/* The handler of an interrupt is one EOI; it may end a SPIN. */
		if (vcpu->injected >= 0) {
			vcpu->last_vector = vcpu->injected;
			vcpu->injected = -1;
			vcpu->interrupted_ns = clock_ns();
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
		if (fixture.work_spin)
			atomic_store(&vcpu->work, ns_of(CLOCK_THREAD_CPUTIME_ID));
		else if (vcpu->program[vcpu->at].kind == SPIN && fixture.idle_spin)
			usleep(2000);
		else if (vcpu->program[vcpu->at].kind == SPIN)
			sched_yield();
	}
}

static int fake_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	int r = run_until_exit(vcpu, exit);

	atomic_store(&vcpu->inside, false);
	return r;
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

const struct engine_ops guest_engine = {
	.name = "fake",
	.vcpu_create = fake_create,
	.vcpu_destroy = fake_destroy,
	.vcpu_bind = fake_bind,
	.vcpu_load = fake_load,
	.vcpu_save = fake_save,
	.vcpu_set_tsc = fake_set_tsc,
	.vcpu_run = fake_run,
	.vcpu_kick = fake_kick,
	.vcpu_work = fake_work,
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
		post_to(fixture.vcpu[v], interrupt->mode, interrupt->vector, interrupt->level);
}

static void on_eoi(void *ctx, uint32_t vcpu, uint8_t vector)
{
	(void)ctx;
	(void)vcpu;
	assert(vector == 0x50);
	fixture.eoi_count++;
}

struct moved moved;

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

static uint64_t on_stalled_ns(void *ctx, uint32_t vcpu)
{
	(void)ctx;
	return fixture.engine_vcpu[vcpu].interrupts ? fixture.stalled_ns : 0;
}

static bool on_wants_program(void *ctx)
{
	(void)ctx;
	return !program_unwanted;
}

const struct vcpu_ops guest_ops = { .now_ns = on_now,
				    .wants_program = on_wants_program,
				    .stalled_ns = on_stalled_ns,
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
void start(uint32_t count, uint32_t runnable, const struct step *const *programs)
{
	static struct vcpu_state state;

	memset(&fixture, 0, sizeof(fixture));
	sem_init(&fixture.ended, 0, 0);
	fixture.post_in = post_in_next;
	fixture.vcpu_count = count;
	for (uint32_t v = 0; v < count; v++) {
		struct engine_vcpu *engine_vcpu = &fixture.engine_vcpu[v];
		struct vcpu_config config = {
			.engine_ops = &guest_engine,
			.number = v,
			.lapic = { .tsc_khz = 1000000, .tsc_deadline = true },
			.ops = &guest_ops,
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

void finish(void)
{
	for (uint32_t v = 0; v < fixture.vcpu_count; v++)
		vcpu_stop(fixture.vcpu[v]);
	for (uint32_t v = 0; v < fixture.vcpu_count; v++)
		vcpu_join(fixture.vcpu[v]);
	for (uint32_t v = 0; v < fixture.vcpu_count; v++)
		vcpu_destroy(fixture.vcpu[v]);
	sem_destroy(&fixture.ended);
}

bool is_in(uint32_t vcpu, enum vcpu_activity activity)
{
	struct vcpu_stats stats;

	vcpu_stats(fixture.vcpu[vcpu], &stats);
	return stats.activity == activity;
}

bool is_in_engine(uint32_t v)
{
	struct engine_vcpu *vcpu = &fixture.engine_vcpu[v];

	return is_in(v, VCPU_IN_GUEST) && atomic_load(&vcpu->inside) && !atomic_load(&vcpu->kick);
}

struct vcpu_stats stats_of(uint32_t vcpu)
{
	struct vcpu_stats stats;

	vcpu_stats(fixture.vcpu[vcpu], &stats);
	return stats;
}

uint64_t rekicks(uint32_t v)
{
	struct vcpu_stats stats;

	vcpu_stats(fixture.vcpu[v], &stats);
	return stats.rekick_count;
}

/* As the node's main thread does it. */
void watch_for(uint32_t v, uint64_t ns)
{
	uint64_t until = clock_ns() + ns;

	while (clock_ns() < until && vcpu_watch(fixture.vcpu[v]) != VCPU_WATCHED_REKICKED)
		usleep(VCPU_WATCH_NS / 1000);
}
