/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC: registers and their faults, priorities, IPIs, timer, inbox; random writes. */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "machine/lapic.h"

#define X2(reg) (0x800u + (reg))

#define TPR	  X2(0x08)
#define PPR	  X2(0x0a)
#define EOI	  X2(0x0b)
#define LDR	  X2(0x0d)
#define SVR	  X2(0x0f)
#define ESR	  X2(0x28)
#define ICR	  X2(0x30)
#define LVTT	  X2(0x32)
#define LVT0	  X2(0x35)
#define LVT_LINT0 X2(0x35)
#define LVT_ERROR X2(0x37)
#define TMICT	  X2(0x38)
#define TMCCT	  X2(0x39)
#define TDCR	  X2(0x3e)
#define SELF_IPI  X2(0x3f)
#define DEADLINE  0x6e0u
#define BASE	  0x1bu

static const struct lapic_config config = { .tsc_khz = 2000000,
					    .tsc_deadline = true,
					    .tsc_epoch_ns = 1000 };

/* An enabled APIC with id 5. */
static struct lapic_state fresh(void)
{
	struct lapic_state lapic;
	struct lapic_effect effect;

	lapic_reset(&lapic, 5, false);
	assert_int_equal(lapic_write(&config, &lapic, SVR, 0x1ff, 0, &effect), 0);
	return lapic;
}

static int put(struct lapic_state *lapic, uint32_t msr, uint64_t value, uint64_t now)
{
	struct lapic_effect effect;

	return lapic_write(&config, lapic, msr, value, now, &effect);
}

static uint64_t get(const struct lapic_state *lapic, uint32_t msr, uint64_t now)
{
	uint64_t value = 0xdead;

	assert_int_equal(lapic_read(&config, lapic, msr, now, &value), 0);
	return value;
}

static int get_error(const struct lapic_state *lapic, uint32_t msr)
{
	uint64_t value = 0xdead;
	int error = lapic_read(&config, lapic, msr, 0, &value);

	if (error)
		assert_int_equal(value, 0xdead);
	return error;
}

static void test_reset_values(void **state)
{
	struct lapic_state lapic;

	(void)state;
	lapic_reset(&lapic, 0x123, true);
	assert_int_equal(get(&lapic, BASE, 0), 0xfee00d00);
	assert_int_equal(get(&lapic, X2(0x02), 0), 0x123);
	assert_int_equal(get(&lapic, X2(0x03), 0), 0x50014);
	assert_int_equal(get(&lapic, LDR, 0), 0x120008);
	assert_int_equal(get(&lapic, SVR, 0), 0xff);
	for (uint32_t lvt = 0x32; lvt <= 0x37; lvt++)
		assert_int_equal(get(&lapic, X2(lvt), 0), 0x10000);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	lapic_reset(&lapic, 1, false);
	assert_int_equal(get(&lapic, BASE, 0), 0xfee00c00);
}

/* SDM table 11-6: who may be read and written; reserved bits fault and change nothing. */
static void test_faults(void **state)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
	} faults[] = {
		{ X2(0x02), 0 },
		{ X2(0x03), 0 },
		{ PPR, 0 },
		{ LDR, 0 },
		{ X2(0x10), 0 },
		{ X2(0x18), 0 },
		{ X2(0x20), 0 },
		{ TMCCT, 0 },
		{ X2(0x0e), 0 },
		{ X2(0x31), 0 },
		{ X2(0x2f), 0 },
		{ X2(0x40), 0 },
		{ X2(0xff), 0 },
		{ X2(0x00), 0 },
		{ TPR, 0x100 },
		{ EOI, 1 },
		{ ESR, 1 },
		{ SVR, 0x400 },
		{ SVR, 0x11ff },
		{ LVTT, 0x60020 },
		{ LVTT, 0x100 },
		{ TDCR, 4 },
		{ TDCR, 0x10 },
		{ SELF_IPI, 0x100 },
		{ LVT_LINT0, 1 << 17 },
		{ LVT_ERROR, 0x100 },
		{ ICR, 1 << 13 },
		{ ICR, 1 << 16 },
		{ ICR, 1 << 20 },
		{ TPR, 1ull << 32 },
		{ BASE, 0 },
		{ BASE, 0xfee00800 },
		{ BASE, 0xfed00c00 },
		{ TMICT, 1ull << 32 },
		{ 0x1c, 0 },
		{ X2(0x07), 0 },
	};
	struct lapic_state lapic = fresh(), before = lapic;

	(void)state;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		assert_int_equal(put(&lapic, faults[i].msr, faults[i].value, 0), -EINVAL);
		assert_memory_equal(&lapic, &before, sizeof(lapic));
	}
	assert_int_equal(get_error(&lapic, EOI), -EINVAL);
	assert_int_equal(get_error(&lapic, SELF_IPI), -EINVAL);
	assert_int_equal(get_error(&lapic, X2(0x0e)), -EINVAL);
	assert_int_equal(get_error(&lapic, X2(0x31)), -EINVAL);
	assert_int_equal(get_error(&lapic, 0x10), -EINVAL);
	assert_int_equal(put(&lapic, BASE, 0xfee00c00, 0), 0);
}

static void test_priority(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x35, false);
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x81, false);
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0xff, false);
	assert_int_equal(get(&lapic, X2(0x27), 0), 0x80000000);
	assert_int_equal(lapic_next(&lapic, 0), 0xff);
	assert_int_equal(lapic_next(&lapic, 0xf), -1);
	lapic_accept(&lapic, 0xff);
	assert_int_equal(get(&lapic, PPR, 0), 0xf0);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	assert_int_equal(put(&lapic, EOI, 0, 0), 0);
	assert_int_equal(lapic_next(&lapic, 0), 0x81);
	assert_int_equal(lapic_next(&lapic, 7), 0x81);
	assert_int_equal(lapic_next(&lapic, 8), -1);
	lapic_accept(&lapic, 0x81);
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x8f, false); /* the same class must wait */
	assert_int_equal(lapic_next(&lapic, 0), -1);
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x90, false); /* a higher one nests */
	assert_int_equal(lapic_next(&lapic, 0), 0x90);
	lapic_accept(&lapic, 0x90);
	assert_int_equal(put(&lapic, EOI, 0, 0), 0);
	assert_int_equal(get(&lapic, PPR, 0), 0x80);
	assert_int_equal(put(&lapic, EOI, 0, 0), 0);
	assert_int_equal(lapic_next(&lapic, 0), 0x8f);
	assert_int_equal(put(&lapic, EOI, 0, 0), 0); /* nothing in service: fine */
	assert_int_equal(put(&lapic, TPR, 0x25, 0), 0);
	assert_int_equal(get(&lapic, PPR, 0), 0x25);
}

static void test_vector_limits(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	lapic_deliver(&lapic, INTERRUPT_FIXED, 15, false);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	assert_int_equal(get(&lapic, ESR, 0), 0);
	assert_int_equal(put(&lapic, ESR, 0, 0), 0);
	assert_int_equal(get(&lapic, ESR, 0), 0x40);
	assert_int_equal(put(&lapic, ESR, 0, 0), 0);
	assert_int_equal(get(&lapic, ESR, 0), 0);
	lapic_deliver(&lapic, INTERRUPT_FIXED, 16, false);
	assert_int_equal(lapic_next(&lapic, 0), 16);
}

static void test_error_interrupt(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	assert_int_equal(put(&lapic, LVT_ERROR, 0xfe, 0), 0);
	assert_int_equal(put(&lapic, SELF_IPI, 3, 0), 0);
	assert_int_equal(lapic_next(&lapic, 0), 0xfe);
	assert_int_equal(put(&lapic, ESR, 0, 0), 0);
	assert_int_equal(get(&lapic, ESR, 0), 0x20);
}

static void test_level_eoi(void **state)
{
	struct lapic_state lapic = fresh();
	struct lapic_effect effect;

	(void)state;
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x55, true);
	assert_int_equal(get(&lapic, X2(0x1a), 0), 1u << 21);
	lapic_accept(&lapic, 0x55);
	assert_int_equal(lapic_write(&config, &lapic, EOI, 0, 0, &effect), 0);
	assert_true(effect.eoi);
	assert_int_equal(effect.eoi_vector, 0x55);
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x55, false);
	lapic_accept(&lapic, 0x55);
	assert_int_equal(lapic_write(&config, &lapic, EOI, 0, 0, &effect), 0);
	assert_false(effect.eoi);
}

static void test_software_disable(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	assert_int_equal(put(&lapic, LVTT, 0x20, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 1000, 0), 0);
	assert_int_not_equal(lapic_deadline(&lapic), UINT64_MAX);
	assert_int_equal(put(&lapic, SVR, 0xff, 0), 0);
	assert_int_equal(get(&lapic, LVTT, 0), 0x10020);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	assert_int_equal(put(&lapic, LVTT, 0x20, 0), 0); /* stays masked */
	assert_int_equal(get(&lapic, LVTT, 0), 0x10020);
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x40, false);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	lapic_deliver(&lapic, INTERRUPT_NMI, 0, false);
	assert_int_equal(lapic.nmi_pending, 1);
}

static void test_ipis(void **state)
{
	struct lapic_state lapic = fresh();
	struct lapic_effect effect;

	(void)state;
	assert_int_equal(lapic_write(&config, &lapic, ICR, 7ull << 32 | 0x4041, 0, &effect), 0);
	assert_true(effect.send);
	assert_int_equal(effect.interrupt.dest, 7);
	assert_int_equal(effect.interrupt.source, 5);
	assert_int_equal(effect.interrupt.vector, 0x41);
	assert_int_equal(effect.interrupt.mode, INTERRUPT_FIXED);
	assert_int_equal(get(&lapic, ICR, 0), 7ull << 32 | 0x4041);
	/* logical, lowest priority, all but self */
	assert_int_equal(lapic_write(&config, &lapic, ICR, 0x10003ull << 32 | 0x4942, 0, &effect),
			 0);
	assert_true(effect.send && effect.interrupt.logical);
	assert_int_equal(effect.interrupt.mode, INTERRUPT_LOWEST);
	assert_int_equal(effect.interrupt.dest, 0x10003);
	assert_int_equal(lapic_write(&config, &lapic, ICR, 0xc44a1, 0, &effect), 0);
	assert_true(effect.send);
	assert_int_equal(effect.interrupt.shorthand, INTERRUPT_TO_OTHERS);
	assert_int_equal(effect.interrupt.mode, INTERRUPT_NMI);
	/* INIT, its de-assert (ignored), SIPI */
	assert_int_equal(lapic_write(&config, &lapic, ICR, 1ull << 32 | 0xc500, 0, &effect), 0);
	assert_true(effect.send && effect.interrupt.mode == INTERRUPT_INIT);
	assert_int_equal(lapic_write(&config, &lapic, ICR, 1ull << 32 | 0x8500, 0, &effect), 0);
	assert_false(effect.send);
	assert_int_equal(lapic_write(&config, &lapic, ICR, 1ull << 32 | 0x4608, 0, &effect), 0);
	assert_true(effect.send && effect.interrupt.mode == INTERRUPT_SIPI);
	assert_int_equal(effect.interrupt.vector, 8);
	/* SMI, ExtINT, and NMI to oneself by shorthand go nowhere */
	assert_int_equal(lapic_write(&config, &lapic, ICR, 1ull << 32 | 0x4200, 0, &effect), 0);
	assert_false(effect.send);
	assert_int_equal(lapic_write(&config, &lapic, ICR, 1ull << 32 | 0x4700, 0, &effect), 0);
	assert_false(effect.send);
	assert_int_equal(lapic_write(&config, &lapic, ICR, 0x44400, 0, &effect), 0);
	assert_false(effect.send);
	assert_int_equal(lapic.nmi_pending, 0);
	/* an illegal vector is the sender's error */
	assert_int_equal(lapic_write(&config, &lapic, ICR, 1ull << 32 | 0x400f, 0, &effect), 0);
	assert_false(effect.send);
	assert_int_equal(put(&lapic, ESR, 0, 0), 0);
	assert_int_equal(get(&lapic, ESR, 0), 0x20);
	/* the busy bit of xAPIC is dropped */
	assert_int_equal(lapic_write(&config, &lapic, ICR, 1ull << 32 | 0x5041, 0, &effect), 0);
	assert_int_equal(get(&lapic, ICR, 0), 1ull << 32 | 0x4041);
}

static void test_ipi_to_self(void **state)
{
	struct lapic_state lapic = fresh();
	struct lapic_effect effect;

	(void)state;
	assert_int_equal(lapic_write(&config, &lapic, ICR, 0x44031, 0, &effect), 0);
	assert_false(effect.send);
	assert_int_equal(lapic_next(&lapic, 0), 0x31);
	assert_int_equal(lapic_write(&config, &lapic, ICR, 5ull << 32 | 0x4042, 0, &effect), 0);
	assert_false(effect.send);
	assert_int_equal(lapic_next(&lapic, 0), 0x42);
	assert_int_equal(lapic_write(&config, &lapic, SELF_IPI, 0x53, 0, &effect), 0);
	assert_int_equal(lapic_next(&lapic, 0), 0x53);
	/* all including self: the router brings it back */
	assert_int_equal(lapic_write(&config, &lapic, ICR, 0x84064, 0, &effect), 0);
	assert_true(effect.send);
	assert_int_equal(lapic_next(&lapic, 0), 0x53);
}

static void test_timer_one_shot(void **state)
{
	struct lapic_state lapic = fresh();
	uint64_t t = 1000000;

	(void)state;
	assert_int_equal(put(&lapic, TDCR, 3, t), 0); /* divide by 16 */
	assert_int_equal(put(&lapic, LVTT, 0xec, t), 0);
	assert_int_equal(put(&lapic, TMICT, 1000, t), 0);
	assert_int_equal(lapic_deadline(&lapic), t + 16000);
	assert_int_equal(get(&lapic, TMCCT, t + 8000), 500);
	lapic_tick(&config, &lapic, t + 15999);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	lapic_tick(&config, &lapic, t + 16000);
	assert_int_equal(lapic_next(&lapic, 0), 0xec);
	assert_int_equal(get(&lapic, TMCCT, t + 16001), 0);
	assert_int_equal(get(&lapic, TMICT, t + 16001), 1000);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	lapic_accept(&lapic, 0xec);
	lapic_tick(&config, &lapic, t + 99000);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	assert_int_equal(put(&lapic, TMICT, 1000, t), 0); /* and stopped by 0 */
	assert_int_equal(put(&lapic, TMICT, 0, t), 0);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
}

/* The guest's own TSC is what it has made of it by TSC_ADJUST. */
static void test_deadline_adjusted(void **state)
{
	struct lapic_config adjusted = config; /* 2 ticks a ns, from 1000 ns on */
	struct lapic_state lapic = fresh();
	struct lapic_effect effect;

	(void)state;
	assert_int_equal(put(&lapic, LVTT, 0x400ec, 0), 0);
	adjusted.tsc_adjust = 5000;
	assert_int_equal(lapic_write(&adjusted, &lapic, DEADLINE, 9000, 1000, &effect), 0);
	assert_true(effect.timer);
	assert_int_equal(lapic_deadline(&lapic), 1000 + 2000);
	adjusted.tsc_adjust = -5000ull;
	assert_int_equal(lapic_write(&adjusted, &lapic, DEADLINE, 9000, 1000, &effect), 0);
	assert_int_equal(lapic_deadline(&lapic), 1000 + 7000);
	adjusted.tsc_adjust = 10000; /* long past */
	assert_int_equal(lapic_write(&adjusted, &lapic, DEADLINE, 9000, 1000, &effect), 0);
	assert_int_equal(lapic_deadline(&lapic), 1000);
	assert_int_equal(get(&lapic, DEADLINE, 0), 9000);
}

static void test_timer_divide(void **state)
{
	static const struct {
		uint32_t code, divisor;
	} codes[] = { { 0, 2 },	 { 1, 4 },  { 2, 8 },	 { 3, 16 },
		      { 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 } };
	struct lapic_state lapic = fresh();

	(void)state;
	assert_int_equal(put(&lapic, LVTT, 0xec, 0), 0);
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(put(&lapic, TDCR, codes[i].code, 0), 0);
		assert_int_equal(put(&lapic, TMICT, UINT32_MAX, 5), 0);
		assert_int_equal(lapic_deadline(&lapic),
				 5 + (uint64_t)UINT32_MAX * codes[i].divisor);
	}
	/* a change on the way: what is left goes on at the new pace */
	assert_int_equal(put(&lapic, TDCR, 11, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 1000, 100), 0);
	assert_int_equal(put(&lapic, TDCR, 0, 700), 0);
	assert_int_equal(get(&lapic, TMCCT, 700), 400);
	assert_int_equal(lapic_deadline(&lapic), 700 + 800);
	assert_int_equal(get(&lapic, TMCCT, 1100), 200);
}

/* What the i8259s send comes first, if LINT0 lets it through, and leaves nothing behind. */
static void test_external(void **state)
{
	struct lapic_state lapic = fresh();
	struct lapic_inbox inbox;

	(void)state;
	lapic_inbox_clear(&inbox);
	assert_true(lapic_inbox_post(&inbox, INTERRUPT_EXTINT, 0x34, false));
	lapic_inbox_post(&inbox, INTERRUPT_EXTINT, 0x30, false);
	lapic_inbox_post(&inbox, INTERRUPT_FIXED, 0xf0, false);
	assert_true(lapic_inbox_drain(&inbox, &lapic));
	assert_int_equal(lapic_next(&lapic, 0), 0xf0); /* LINT0 is masked */
	assert_int_equal(put(&lapic, LVT0, 0x700, 0), 0);
	assert_int_equal(lapic_next(&lapic, 15), 0x30); /* whatever the priority */
	lapic_accept(&lapic, 0x30);
	assert_int_equal(lapic_next(&lapic, 0), 0x34);
	lapic_accept(&lapic, 0x34);
	assert_int_equal(lapic_next(&lapic, 0), 0xf0);
	lapic_accept(&lapic, 0xf0);
	assert_int_equal(put(&lapic, EOI, 0, 0), 0); /* of f0, the only one in service */
	assert_int_equal(lapic.isr[0] | lapic.isr[1] | lapic.isr[2] | lapic.isr[3], 0);
	/* not as ExtINT: a fixed LINT0 is not wired */
	lapic_deliver(&lapic, INTERRUPT_EXTINT, 0x31, false);
	assert_int_equal(put(&lapic, LVT0, 0x31, 0), 0);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	lapic_init(&lapic);
	assert_int_equal(put(&lapic, LVT0, 0x10700, 0), 0);
	assert_int_equal(lapic_next(&lapic, 0), -1);
}

static void test_timer_periodic(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	assert_int_equal(put(&lapic, TDCR, 11, 0), 0);
	assert_int_equal(put(&lapic, LVTT, 0x200ec, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 1000000, 7), 0);
	for (uint64_t period = 1; period < 5; period++) {
		uint64_t due = 7 + period * 1000000;

		assert_int_equal(lapic_deadline(&lapic), due);
		lapic_tick(&config, &lapic, due + 10);
		assert_int_equal(lapic_next(&lapic, 0), 0xec);
		lapic_accept(&lapic, 0xec);
		assert_int_equal(put(&lapic, EOI, 0, due + 10), 0);
		assert_int_equal(get(&lapic, TMCCT, due + 10), 1000000 - 10);
	}
	/* far behind: one interrupt, and back on the grid */
	lapic_tick(&config, &lapic, 7 + 1000 * 1000000ull + 5);
	assert_int_equal(lapic_next(&lapic, 0), 0xec);
	assert_int_equal(lapic_deadline(&lapic), 7 + 1001 * 1000000ull);
	/* once from now on: the count under way goes on to its end, and that is all */
	assert_int_equal(put(&lapic, TMICT, 1000000, 0), 0);
	lapic_tick(&config, &lapic, 3000000);
	assert_int_equal(put(&lapic, LVTT, 0xec, 3400000), 0);
	assert_int_equal(get(&lapic, TMCCT, 3400000), 600000);
	assert_int_equal(lapic_deadline(&lapic), 4000000);
	lapic_tick(&config, &lapic, 4000000);
	assert_int_equal(get(&lapic, TMCCT, 4000000), 0);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	assert_int_equal(put(&lapic, LVTT, 0x200ec, 5000000), 0);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	/* too fast: still leaves time to run */
	assert_int_equal(put(&lapic, TMICT, 1, 0), 0);
	lapic_tick(&config, &lapic, 100);
	assert_true(lapic_deadline(&lapic) >= 100 + 10000);
}

/* A vCPU comes from a node whose clock is a little ahead: no time has passed, for a while. */
static void test_timer_of_the_future(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	assert_int_equal(put(&lapic, TDCR, 11, 0), 0);
	assert_int_equal(put(&lapic, LVTT, 0x200ec, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 1000000, 5000000), 0);
	assert_int_equal(get(&lapic, TMCCT, 4999000), 1000000);
	assert_int_equal(get(&lapic, TMCCT, 5001000), 999000);
	lapic.timer_deadline_ns = 4000000;
	lapic_tick(&config, &lapic, 4999000);
	assert_int_equal(lapic_next(&lapic, 0), 0xec);
	assert_in_range(lapic_deadline(&lapic), 4999001, 5999000);
	/* Soon after the host's start the clock is less than what has passed. */
	assert_int_equal(put(&lapic, LVTT, 0xec, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 1000000, 0), 0);
	assert_int_equal(put(&lapic, TDCR, 0, 100), 0);
	assert_int_equal(get(&lapic, TMCCT, 100), 999900);
}

static void test_timer_masked(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	assert_int_equal(put(&lapic, TDCR, 11, 0), 0);
	assert_int_equal(put(&lapic, LVTT, 0x100ec, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 1000, 0), 0);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	assert_int_equal(get(&lapic, TMCCT, 400), 600);
	/* expired while masked: lost, even when it is unmasked before anybody ticks */
	assert_int_equal(put(&lapic, LVTT, 0xec, 2000), 0);
	lapic_tick(&config, &lapic, 3000);
	assert_int_equal(lapic_next(&lapic, 0), -1);
}

static void test_tsc_deadline(void **state)
{
	struct lapic_state lapic = fresh();
	struct lapic_config without = config;
	struct lapic_effect effect;
	uint64_t value;

	(void)state;
	assert_int_equal(put(&lapic, DEADLINE, 5000, 0), 0); /* another mode: ignored */
	assert_int_equal(get(&lapic, DEADLINE, 0), 0);
	assert_int_equal(put(&lapic, LVTT, 0x400ec, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 1000, 0), 0); /* ignored now */
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	assert_int_equal(put(&lapic, DEADLINE, 20001, 2000), 0); /* 2 ticks a ns, from 1000 ns */
	assert_int_equal(lapic_deadline(&lapic), 1000 + 10001);
	assert_int_equal(get(&lapic, DEADLINE, 2000), 20001);
	lapic_tick(&config, &lapic, 11000);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	assert_int_equal(get(&lapic, DEADLINE, 11001), 0);
	lapic_tick(&config, &lapic, 11001);
	assert_int_equal(lapic_next(&lapic, 0), 0xec);
	assert_int_equal(get(&lapic, DEADLINE, 11002), 0);
	/* in the past: at once */
	lapic_accept(&lapic, 0xec);
	assert_int_equal(put(&lapic, EOI, 0, 50000), 0);
	assert_int_equal(put(&lapic, DEADLINE, 1, 50000), 0);
	assert_true(lapic_deadline(&lapic) <= 50000);
	lapic_tick(&config, &lapic, 50000);
	assert_int_equal(lapic_next(&lapic, 0), 0xec);
	/* the largest there is, and 0 disarms */
	assert_int_equal(put(&lapic, DEADLINE, UINT64_MAX, 50000), 0);
	assert_true(lapic_deadline(&lapic) < UINT64_MAX);
	assert_true(lapic_deadline(&lapic) > UINT64_MAX / 4);
	assert_int_equal(put(&lapic, DEADLINE, 0, 50000), 0);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	/* leaving the mode disarms */
	assert_int_equal(put(&lapic, DEADLINE, 1u << 30, 50000), 0);
	assert_int_equal(put(&lapic, LVTT, 0xec, 50000), 0);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	without.tsc_deadline = false;
	assert_int_equal(lapic_write(&without, &lapic, DEADLINE, 1, 0, &effect), -EINVAL);
	assert_int_equal(lapic_read(&without, &lapic, DEADLINE, 0, &value), -EINVAL);
	assert_int_equal(lapic_write(&without, &lapic, LVTT, 0x400ec, 0, &effect), -EINVAL);
}

static void test_init(void **state)
{
	struct lapic_state lapic = fresh();

	(void)state;
	lapic_deliver(&lapic, INTERRUPT_FIXED, 0x40, false);
	assert_int_equal(put(&lapic, LVTT, 0xec, 0), 0);
	assert_int_equal(put(&lapic, TMICT, 5, 0), 0);
	lapic_deliver(&lapic, INTERRUPT_SIPI, 9, false);
	lapic_deliver(&lapic, INTERRUPT_INIT, 0, false);
	assert_int_equal(lapic.init_pending, 1);
	assert_int_equal(lapic.sipi_pending, 0); /* came before the INIT */
	lapic_deliver(&lapic, INTERRUPT_SIPI, 8, false);
	lapic_init(&lapic);
	assert_int_equal(lapic.init_pending, 0);
	assert_int_equal(lapic.sipi_pending, 1);
	assert_int_equal(lapic.sipi_vector, 8);
	assert_int_equal(get(&lapic, X2(0x02), 0), 5);
	assert_int_equal(get(&lapic, BASE, 0), 0xfee00c00);
	assert_int_equal(lapic_next(&lapic, 0), -1);
	assert_int_equal(lapic_deadline(&lapic), UINT64_MAX);
	assert_int_equal(get(&lapic, SVR, 0), 0xff);
}

static void test_inbox(void **state)
{
	struct lapic_state lapic = fresh();
	struct lapic_inbox inbox;

	(void)state;
	lapic_inbox_clear(&inbox);
	assert_false(lapic_inbox_pending(&inbox));
	assert_false(lapic_inbox_drain(&inbox, &lapic));
	assert_true(lapic_inbox_post(&inbox, INTERRUPT_FIXED, 0x40, true));
	assert_false(lapic_inbox_post(&inbox, INTERRUPT_LOWEST, 0xef, false));
	assert_false(lapic_inbox_post(&inbox, INTERRUPT_NMI, 0, false));
	assert_false(lapic_inbox_post(&inbox, INTERRUPT_SIPI, 7, false));
	assert_false(lapic_inbox_post(&inbox, INTERRUPT_INIT, 0, false));
	assert_false(lapic_inbox_post(&inbox, INTERRUPT_SMI, 0, false));
	assert_true(lapic_inbox_pending(&inbox));
	assert_true(lapic_inbox_drain(&inbox, &lapic));
	assert_false(lapic_inbox_pending(&inbox));
	assert_int_equal(lapic_next(&lapic, 0), 0xef);
	assert_int_equal(get(&lapic, X2(0x22), 0), 1);
	assert_int_equal(get(&lapic, X2(0x1a), 0), 1);
	assert_int_equal(lapic.nmi_pending, 1);
	assert_int_equal(lapic.init_pending, 1);
	assert_int_equal(lapic.sipi_pending, 0); /* taken back by the INIT */
	assert_true(lapic_inbox_post(&inbox, INTERRUPT_SIPI, 0xff, false));
	assert_true(lapic_inbox_drain(&inbox, &lapic));
	assert_int_equal(lapic.sipi_vector, 0xff);
}

#define POSTS 500u

struct poster {
	struct lapic_inbox *inbox;
	uint8_t vector;
	_Atomic uint32_t *acked;
};

/* Posts the next one only when the last has been seen: so none may be lost. */
static void *post_all(void *arg)
{
	struct poster *poster = arg;

	for (uint32_t i = 0; i < POSTS; i++) {
		lapic_inbox_post(poster->inbox, INTERRUPT_FIXED, poster->vector, false);
		while (atomic_load(poster->acked) <= i)
			sched_yield();
	}
	return NULL;
}

static void post_on(void *ctx, uint8_t mode, uint8_t vector, bool level)
{
	lapic_inbox_post(ctx, mode, vector, level);
}

/* What waits for a vCPU elsewhere means the same when it has come there. */
static void test_inbox_forward(void **state)
{
	struct lapic_state at_once = fresh(), later = fresh();
	struct lapic_inbox here, there;

	(void)state;
	lapic_inbox_clear(&here);
	lapic_inbox_clear(&there);
	lapic_inbox_post(&here, INTERRUPT_FIXED, 0x40, true);
	lapic_inbox_post(&here, INTERRUPT_FIXED, 0xf0, false);
	lapic_inbox_post(&here, INTERRUPT_EXTINT, 0x34, false);
	lapic_inbox_post(&here, INTERRUPT_NMI, 0, false);
	lapic_inbox_forward(&here, post_on, &there);
	assert_false(lapic_inbox_drain(&here, &at_once));
	assert_true(lapic_inbox_drain(&there, &later));
	lapic_deliver(&at_once, INTERRUPT_FIXED, 0x40, true);
	lapic_deliver(&at_once, INTERRUPT_FIXED, 0xf0, false);
	lapic_deliver(&at_once, INTERRUPT_EXTINT, 0x34, false);
	lapic_deliver(&at_once, INTERRUPT_NMI, 0, false);
	assert_memory_equal(&later, &at_once, sizeof(later));
}

static void test_inbox_threads(void **state)
{
	struct lapic_inbox inbox;
	struct lapic_state lapic = fresh();
	_Atomic uint32_t acked[3] = { 0 };
	struct poster poster[3];
	pthread_t thread[3];
	uint32_t done = 0;

	(void)state;
	lapic_inbox_clear(&inbox);
	for (uint32_t i = 0; i < 3; i++) {
		poster[i] = (struct poster){ &inbox, (uint8_t)(0x40 + i), &acked[i] };
		pthread_create(&thread[i], NULL, post_all, &poster[i]);
	}
	while (done < 3 * POSTS) {
		int vector;

		if (!lapic_inbox_drain(&inbox, &lapic))
			sched_yield();
		while ((vector = lapic_next(&lapic, 0)) >= 0) {
			lapic_accept(&lapic, (uint8_t)vector);
			put(&lapic, EOI, 0, 0);
			acked[vector - 0x40]++;
			done++;
		}
	}
	for (uint32_t i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
}

static uint64_t random_64(void)
{
	return (uint64_t)rand() << 42 ^ (uint64_t)rand() << 21 ^ (uint64_t)rand();
}

/* Any writes at any time: no fault of ours, and the invariants hold. */
static void test_fuzz(void **state)
{
	struct lapic_state lapic = fresh();
	uint64_t now = 0;

	(void)state;
	srand(7);
	for (int round = 0; round < 500000; round++) {
		struct lapic_effect effect;
		struct vcpu_set set;
		uint32_t msr = rand() % 20 ? X2((uint32_t)rand() % 0x48) : DEADLINE;
		uint64_t value = random_64() >> (rand() % 64), read;
		int vector;

		now += (uint64_t)rand() >> (rand() % 31);
		if (lapic_write(&config, &lapic, msr, value, now, &effect) == 0 && effect.send)
			assert_int_equal(interrupt_route(&effect.interrupt, 16, &set), 0);
		lapic_read(&config, &lapic, X2((uint32_t)rand() % 0x48), now, &read);
		lapic_deliver(&lapic, (uint8_t)rand(), (uint8_t)rand(), rand() & 1);
		lapic_tick(&config, &lapic, now);
		assert_true(lapic_deadline(&lapic) > now);
		vector = lapic_next(&lapic, (uint8_t)(lapic.tpr >> 4));
		assert_true(vector == -1 || vector >= 16);
		if (vector >= 0)
			lapic_accept(&lapic, (uint8_t)vector);
		assert_int_equal(lapic.id, 5);
		assert_true((lapic.irr[0] & 0xffff) == 0 && (lapic.isr[0] & 0xffff) == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset_values),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_priority),
		cmocka_unit_test(test_vector_limits),
		cmocka_unit_test(test_error_interrupt),
		cmocka_unit_test(test_level_eoi),
		cmocka_unit_test(test_software_disable),
		cmocka_unit_test(test_ipis),
		cmocka_unit_test(test_ipi_to_self),
		cmocka_unit_test(test_timer_one_shot),
		cmocka_unit_test(test_deadline_adjusted),
		cmocka_unit_test(test_timer_divide),
		cmocka_unit_test(test_timer_periodic),
		cmocka_unit_test(test_external),
		cmocka_unit_test(test_timer_masked),
		cmocka_unit_test(test_timer_of_the_future),
		cmocka_unit_test(test_tsc_deadline),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_inbox),
		cmocka_unit_test(test_inbox_forward),
		cmocka_unit_test(test_inbox_threads),
		cmocka_unit_test(test_fuzz),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
