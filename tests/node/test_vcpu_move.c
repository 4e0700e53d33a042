/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread that leaves and comes, on an engine that is made up (vcpu_guest.h): nothing is lost
 * on the way, and what cannot be stays as it was.
 */
#include "tests/test.h"

#include <string.h>

#include "core/placement.h"
#include "tests/node/post.h"
#include "tests/node/vcpu_guest.h"

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
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x71, false);
	vcpu_resync_tsc(fixture.vcpu[0]);
	vcpu_leave(fixture.vcpu[0], 7); /* too late, and forgotten */
	assert_int_equal(vcpu_watch(fixture.vcpu[0]), VCPU_WATCHED_WELL);
	usleep(20000);
	EVENTUALLY(is_in(0, VCPU_PARKED));
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
	/* For longer where its thread does not get to run. */
	for (uint32_t i = 0; i < 200 || (i < 100000 && !v->cr3_asked); i++) {
		vcpu_sample(fixture.vcpu[0]);
		usleep(100);
	}
	assert_in_range(v->cr3_asked, 1, (clock_ns() - began_ns) / 2000000 + 2);
	program_unwanted = true;
	usleep(10000);
	v->cr3_asked = 0;
	for (uint32_t i = 0; i < 50; i++) {
		vcpu_sample(fixture.vcpu[0]);
		usleep(100);
	}
	assert_int_equal(v->cr3_asked, 0);
	program_unwanted = false;
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
	/* One-shot, and so long that it leaves before on a machine that has other things to do. */
	static const struct step program[] = {
		{ WRITE_MSR, X2(0x32), 0x45 },
		{ WRITE_MSR, X2(0x3e), 0xb },
		{ WRITE_MSR, X2(0x38), 1000000000 },
		{ .kind = HALT },
		{ .kind = SPIN }, /* which the interrupt ends */
		{ .kind = SPIN },
	};
	struct engine_vcpu *v = &fixture.engine_vcpu[0];
	uint64_t early_ns;

	start_to_move(program);
	EVENTUALLY(is_in(0, VCPU_SLEEPING));
	leave_and_wait(1);
	assert_int_equal(moved.state.run_state, VCPU_HALTED);
	early_ns = clock_ns() + 100000000;
	moved.moment.clock_ns = early_ns;
	moved.moment.decided_ns = early_ns + 60000000000; /* says a node that lies */
	vcpu_arrive(fixture.vcpu[0], &moved.moment);
	EVENTUALLY(moved.arrived == 1);
	assert_true(moved.arrived_ns >= early_ns);
	EVENTUALLY(v->interrupts == 1 && v->last_vector == 0x45);
	assert_true(v->interrupted_ns - v->wrote_ns >= 1000000000);
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
	post_to(fixture.vcpu[0], INTERRUPT_FIXED, 0x41, false);
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
	EVENTUALLY(is_in_engine(0));
	fixture.lose_kicks = 1;
	vcpu_leave(fixture.vcpu[0], 7);
	watch_for(0, REKICK_PATIENCE_NS);
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
		post_to(fixture.vcpu[0], INTERRUPT_FIXED, (uint8_t)(0x40 + round % 64), false);
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
		cmocka_unit_test(test_leave_and_arrive),    cmocka_unit_test(test_arrive_early),
		cmocka_unit_test(test_what_runs),	    cmocka_unit_test(test_leave_in_vain),
		cmocka_unit_test(test_leave_in_the_middle), cmocka_unit_test(test_wish_watched),
		cmocka_unit_test(test_move_and_post),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
