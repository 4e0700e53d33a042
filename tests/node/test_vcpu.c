/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU thread on an engine that is made up (vcpu_guest.h). What is judged is that no wake-up is
 * lost, that timers get a running guest out, and the life of a secondary (INIT, SIPI).
 */
#include "tests/test.h"

#include <string.h>

#include "tests/node/post.h"
#include "tests/node/vcpu_guest.h"

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
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	EVENTUALLY(v->interrupts == 1);
	assert_int_equal(v->last_vector, 0x41);
	EVENTUALLY(is_in(0, VCPU_IN_GUEST));
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x50, true); /* a kick, and a level's EOI */
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
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x40, false);
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

/*
 * A vCPU that was stalled for as long as it is to run has its timer late if it has no core, as on a
 * busy host behind every stall. One that was not has it in time.
 */
static void test_no_core_for_the_timer(void **state)
{
	static const struct step program[] = { { .kind = HALT },
					       { WRITE_MSR, X2(0x3e), 0xb },
					       { WRITE_MSR, X2(0x32), 0x61 },
					       { WRITE_MSR, X2(0x38), 100000000 },
					       { .kind = SPIN },
					       { .kind = SPIN } };
	const struct step *programs[] = { program };
	struct engine_vcpu *v = &fixture.engine_vcpu[0];

	uint64_t took_ns = 0;

	(void)state;
	/* The first time stalled; then not, and a busy machine may make that one late, too, but not always. */
	for (int try = 0; try <= 10; try++) {
		start(1, 1, programs);
		EVENTUALLY(is_in(0, VCPU_SLEEPING));
		fixture.idle_spin = true;
		fixture.stalled_ns = try == 0 ? 40000000 : 0;
		post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x62, false);
		EVENTUALLY(v->interrupts == 2);
		assert_int_equal(v->last_vector, 0x61);
		took_ns = v->interrupted_ns - v->wrote_ns;
		finish();
		assert_true(took_ns >= (try == 0 ? 200000000u : 100000000u));
		if (try > 0 && took_ns < 200000000u)
			return;
	}
	fail_msg("late by %lu ms each time", (unsigned long)(took_ns / 1000000));
}

/*
 * A guest that puts its timer off and halts, as Linux does with its tick: from the second time on it
 * sleeps through until then, and is not woken by the timer that it had before.
 */
static void test_put_off(void **state)
{
	static const struct step program[] = { { WRITE_MSR, X2(0x3e), 0xb },
					       { WRITE_MSR, X2(0x32), 0x61 },
					       { WRITE_MSR, X2(0x38), 40000000 },
					       { READ_MSR, X2(0x38), 0 },
					       { WRITE_MSR, X2(0x38), 100000000 },
					       { .kind = HALT },
					       { REPEAT, 0, 2 } };
	const struct step *programs[] = { program };

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(fixture.engine_vcpu[0].interrupts >= 5);
	assert_in_range(fixture.engine_vcpu[0].kicks, 0, 2);
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

/* An engine that loses a kick: it is kicked again, which is counted. */
static void test_lost_kick(void **state)
{
	static const struct step program[] = { { .kind = SPIN }, { .kind = SPIN } };
	const struct step *programs[] = { program };

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(is_in_engine(0));
	watch_for(0, 300000000); /* nothing to take */
	assert_int_equal(rekicks(0), 0);
	fixture.lose_kicks = 1;
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	assert_int_equal(fixture.lose_kicks, 0);
	watch_for(0, REKICK_PATIENCE_NS);
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
	EVENTUALLY(is_in_engine(0));
	fixture.idle_spin = true;
	fixture.lose_kicks = 1;
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	watch_for(0, 500000000);
	assert_int_equal(rekicks(0), 0);
	assert_int_equal(fixture.engine_vcpu[0].interrupts, 0);
	vcpu_sample(fixture.vcpu[0]);
	EVENTUALLY(fixture.engine_vcpu[0].interrupts == 1);
	finish();
}

/* An engine that is at long work of its own has lost nothing: it will see the kick behind that. */
static void test_long_work(void **state)
{
	static const struct step program[] = { { .kind = SPIN }, { .kind = SPIN } };
	const struct step *programs[] = { program };
	uint64_t until_ns;

	(void)state;
	start(1, 1, programs);
	EVENTUALLY(is_in_engine(0));
	fixture.work_spin = true;
	EVENTUALLY(fixture.engine_vcpu[0].work > 0);
	fixture.lose_kicks = 1;
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	until_ns = fixture.engine_vcpu[0].work + 200000000;
	while (fixture.engine_vcpu[0].work < until_ns)
		watch_for(0, VCPU_WATCH_NS);
	assert_int_equal(rekicks(0), 0);
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
	post_to(fixture.vcpu[1], INTERRUPT_FIXED, 0x40, false); /* not yet */
	usleep(20000);
	assert_int_equal(v->runs, 0);
	post_to(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
	EVENTUALLY(v->loads == 2);
	post_to(fixture.vcpu[1], INTERRUPT_SIPI, 0x9a, false);
	EVENTUALLY(v->runs > 0);
	assert_int_equal(v->loads, 3);
	assert_int_equal(v->tsc_sets, 3);
	assert_int_equal(v->loaded.segment[SEG_CS].base, 0x9a000);
	EVENTUALLY(is_in(1, VCPU_IN_GUEST));
	assert_int_equal(v->interrupts, 0);		       /* the INIT took it away */
	post_to(fixture.vcpu[1], INTERRUPT_SIPI, 0x11, false); /* it runs: ignored */
	post_to(fixture.vcpu[1], INTERRUPT_NMI, 0, false);
	EVENTUALLY(v->nmis == 1);
	assert_int_equal(v->loads, 3);
	/* INIT stops it; INIT and SIPI in one go start it anew */
	post_to(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
	EVENTUALLY(is_in(1, VCPU_SLEEPING));
	vcpu_stats(fixture.vcpu[1], &stats);
	assert_int_equal(stats.run_state, VCPU_WAIT_FOR_SIPI);
	post_to(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
	post_to(fixture.vcpu[1], INTERRUPT_SIPI, 0x22, false);
	EVENTUALLY(is_in(1, VCPU_IN_GUEST));
	assert_int_equal(v->loaded.segment[SEG_CS].base, 0x22000);
	/* in the middle of an instruction whose end brings no exit: soon all the same */
	v->save_again = 1;
	post_to(fixture.vcpu[1], INTERRUPT_INIT, 0, false);
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
	post_to(fixture.vcpu[0], INTERRUPT_INIT, 0, false);
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
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
	usleep(20000);
	EVENTUALLY(is_in(0, VCPU_SLEEPING)); /* it was woken, and may be about to sleep again */
	post_to(fixture.vcpu[0], INTERRUPT_NMI, 0, false);
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
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x40, false); /* to the dead: no harm */
	finish();
}

static void test_never_started(void **state)
{
	static const struct step program[] = { { .kind = SPIN } };
	struct vcpu_config config = { .engine_ops = &guest_engine, .number = 0, .ops = &guest_ops };
	struct vcpu_state vcpu_state;

	(void)state;
	memset(&fixture, 0, sizeof(fixture));
	fixture.engine_vcpu[0].program = program;
	vcpu_state_reset(&vcpu_state, 0);
	assert_int_equal(vcpu_create(&config, &vcpu_state, &fixture.vcpu[0]), 0);
	assert_int_equal(vcpu_thread_id(fixture.vcpu[0]), 0);
	vcpu_destroy(fixture.vcpu[0]);
	vcpu_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_halt_and_post),
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_post_into_halt),
		cmocka_unit_test(test_post_into_guest),
		cmocka_unit_test(test_timer),
		cmocka_unit_test(test_short_timers),
		cmocka_unit_test(test_no_core_for_the_timer),
		cmocka_unit_test(test_put_off),
		cmocka_unit_test(test_other_clock),
		cmocka_unit_test(test_lost_kick),
		cmocka_unit_test(test_not_lost),
		cmocka_unit_test(test_long_work),
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
