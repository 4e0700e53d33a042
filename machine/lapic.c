/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC (contract: lapic.h). SDM vol. 3, chapter 11 is meant by "SDM" below.
 *
 * Registers are checked wholly before anything changes, so that a #GP leaves no trace
 * (SDM 11.12.1.3). The timer has no thread and no callback: timer_deadline_ns says when it expires,
 * lapic_tick() makes it so. A count is computed from the time since timer_start_ns, never stored.
 *
 * Left out: xAPIC mode and its MMIO page, CMCI, directed EOI, focus checking, SMM. LINT0 is wired
 * to the i8259s (pic.h), on vCPU 0; LINT1 is a register only.
 *
 * Tested in tests/machine/test_lapic.c.
 */
#include "machine/lapic.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

/* Registers: MSR - 0x800 (SDM table 11-6). */
enum lapic_register {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_LDR = 0x0d,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR = 0x30,
	REG_LVT_TIMER = 0x32,
	REG_LVT_THERMAL = 0x33,
	REG_LVT_PERF = 0x34,
	REG_LVT_LINT0 = 0x35,
	REG_LVT_LINT1 = 0x36,
	REG_LVT_ERROR = 0x37,
	REG_TIMER_INITIAL = 0x38,
	REG_TIMER_CURRENT = 0x39,
	REG_TIMER_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f,
};

#define VERSION_VALUE 0x00050014u /* integrated, 6 LVT entries, no EOI-broadcast suppression */

#define SVR_ENABLE 0x100u
#define SVR_BITS   0x3ffu /* vector, enable, focus checking (kept, without effect) */

#define LVT_VECTOR    0x000000ffu
#define LVT_MODE      0x00000700u
#define LVT_STATUS    0x00001000u /* read-only */
#define LVT_POLARITY  0x00002000u
#define LVT_REMOTE    0x00004000u /* read-only */
#define LVT_TRIGGER   0x00008000u
#define LVT_MASKED    0x00010000u
#define LVT_TIMER_BIT 0x00060000u
#define LVT_READ_ONLY (LVT_STATUS | LVT_REMOTE)

#define TIMER_PERIODIC 0x00020000u
#define TIMER_DEADLINE 0x00040000u

#define ICR_BUSY     (1u << 12) /* some guests write back what xAPIC would have read */
#define ICR_RESERVED 0xfff32000u

#define ESR_SEND_ILLEGAL    0x20u
#define ESR_RECEIVE_ILLEGAL 0x40u

#define APIC_BASE_BSP	 0x100ull
#define APIC_BASE_X2APIC 0x400ull
#define APIC_BASE_ENABLE 0x800ull
#define APIC_BASE_GPA	 0xfee00000ull

#define EVENT_VECTOR 0x0ffu
#define EVENT_NMI    0x100u
#define EVENT_INIT   0x200u
#define EVENT_SIPI   0x400u

/* A periodic timer fires no more often than this, whatever the guest wants: else it would starve
 * itself. */
#define PERIOD_NS_MIN 20000ull

static bool bit_test(const uint64_t set[4], uint8_t vector)
{
	return set[vector / 64] >> (vector % 64) & 1;
}

static void bit_assign(uint64_t set[4], uint8_t vector, bool value)
{
	uint64_t bit = 1ull << (vector % 64);

	if (value)
		set[vector / 64] |= bit;
	else
		set[vector / 64] &= ~bit;
}

/* The highest vector in the set, or -1. */
static int bit_highest(const uint64_t set[4])
{
	for (int word = 3; word >= 0; word--) {
		if (set[word])
			return word * 64 + 63 - __builtin_clzll(set[word]);
	}
	return -1;
}

void lapic_init(struct lapic_state *lapic)
{
	*lapic = (struct lapic_state){
		.id = lapic->id,
		.bsp = lapic->bsp,
		.enabled = lapic->enabled,
		.x2apic = lapic->x2apic,
		.sipi_pending = lapic->sipi_pending,
		.sipi_vector = lapic->sipi_vector,
		.svr = 0xff,
		.lvt_timer = LVT_MASKED,
		.lvt_thermal = LVT_MASKED,
		.lvt_perf = LVT_MASKED,
		.lvt_lint0 = LVT_MASKED,
		.lvt_lint1 = LVT_MASKED,
		.lvt_error = LVT_MASKED,
		.lvt_cmci = LVT_MASKED,
		.timer_deadline_ns = UINT64_MAX,
	};
}

void lapic_reset(struct lapic_state *lapic, uint32_t id, bool bsp)
{
	*lapic = (struct lapic_state){ .id = id, .bsp = bsp, .enabled = 1, .x2apic = 1 };
	lapic_init(lapic);
}

/* ---- errors and deliveries ------------------------------------------------------------------- */

static void raise_error(struct lapic_state *lapic, uint32_t bit)
{
	uint32_t vector = lapic->lvt_error & LVT_VECTOR;

	lapic->esr_pending |= bit;
	/* An illegal error vector would be an error again: it ends here. */
	if (!(lapic->lvt_error & LVT_MASKED) && vector >= 16 && (lapic->svr & SVR_ENABLE)) {
		bit_assign(lapic->irr, (uint8_t)vector, true);
		bit_assign(lapic->tmr, (uint8_t)vector, false);
	}
}

static void deliver_fixed(struct lapic_state *lapic, uint8_t vector, bool level)
{
	if (!(lapic->svr & SVR_ENABLE))
		return;
	if (vector < 16) {
		raise_error(lapic, ESR_RECEIVE_ILLEGAL);
		return;
	}
	bit_assign(lapic->irr, vector, true);
	bit_assign(lapic->tmr, vector, level);
}

void lapic_deliver(struct lapic_state *lapic, uint8_t mode, uint8_t vector, bool level)
{
	switch (mode) {
	case INTERRUPT_FIXED:
	case INTERRUPT_LOWEST:
		deliver_fixed(lapic, vector, level);
		break;
	case INTERRUPT_NMI:
		lapic->nmi_pending = 1;
		break;
	case INTERRUPT_INIT:
		lapic->init_pending = 1;
		lapic->sipi_pending = 0;
		break;
	case INTERRUPT_SIPI:
		lapic->sipi_pending = 1;
		lapic->sipi_vector = vector;
		break;
	case INTERRUPT_EXTINT: /* those of exceptions are not taken, whatever the i8259s send */
		if (vector >= 16)
			bit_assign(lapic->extint, vector, true);
		break;
	default: /* SMI: there is no SMM. */
		break;
	}
}

/* Processor priority: the higher class of TPR and the vector in service (SDM 11.8.3.1). */
static uint32_t priority(const struct lapic_state *lapic, uint32_t tpr)
{
	int in_service = bit_highest(lapic->isr);
	uint32_t service = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;

	return (tpr & 0xf0) >= service ? tpr : service;
}

/* The i8259s' most urgent, if they are let through (SDM 11.5.1). */
static int external(const struct lapic_state *lapic)
{
	if ((lapic->lvt_lint0 & (LVT_MASKED | LVT_MODE)) != (uint32_t)INTERRUPT_EXTINT << 8)
		return -1;
	for (int word = 0; word < 4; word++) {
		if (lapic->extint[word])
			return word * 64 + __builtin_ctzll(lapic->extint[word]);
	}
	return -1;
}

int lapic_next(const struct lapic_state *lapic, uint8_t cr8)
{
	uint32_t tpr = (uint32_t)(cr8 & 0xf) << 4;
	int vector = external(lapic);

	if (vector >= 0)
		return vector;
	vector = bit_highest(lapic->irr);
	if (vector < 0 || ((uint32_t)vector & 0xf0) <= (priority(lapic, tpr) & 0xf0))
		return -1;
	return vector;
}

void lapic_accept(struct lapic_state *lapic, uint8_t vector)
{
	if (external(lapic) == vector) {
		bit_assign(lapic->extint, vector, false);
		return;
	}
	bit_assign(lapic->irr, vector, false);
	bit_assign(lapic->isr, vector, true);
}

/* ---- timer ----------------------------------------------------------------------------------- */

static uint32_t timer_mode(const struct lapic_state *lapic)
{
	return lapic->lvt_timer & LVT_TIMER_BIT;
}

/* ns per count: 1, 2, 4 .. 128 (SDM figure 11-10: 0 is 2, 7 is 1). */
static uint64_t timer_divisor(uint32_t divide)
{
	uint32_t code = (divide & 3) | (divide >> 1 & 4);

	return 1ull << ((code + 1) & 7);
}

static uint64_t timer_period_ns(const struct lapic_state *lapic)
{
	return lapic->timer_initial * timer_divisor(lapic->timer_divide);
}

/* Since it was armed. A vCPU that has come from another node may find the pod clock a little behind. */
static uint64_t timer_elapsed_ns(const struct lapic_state *lapic, uint64_t now_ns)
{
	uint64_t elapsed = now_ns - lapic->timer_start_ns;

	return (int64_t)elapsed > 0 ? elapsed : 0;
}

static uint32_t timer_current(const struct lapic_state *lapic, uint64_t now_ns)
{
	uint64_t counts;

	if (lapic->timer_deadline_ns == UINT64_MAX || timer_mode(lapic) == TIMER_DEADLINE ||
	    lapic->timer_initial == 0)
		return 0;
	counts = timer_elapsed_ns(lapic, now_ns) / timer_divisor(lapic->timer_divide);
	if (timer_mode(lapic) == TIMER_PERIODIC)
		counts %= lapic->timer_initial;
	return counts < lapic->timer_initial ? (uint32_t)(lapic->timer_initial - counts) : 0;
}

static void timer_arm_count(struct lapic_state *lapic, uint32_t initial, uint64_t now_ns)
{
	lapic->timer_initial = initial;
	lapic->timer_start_ns = now_ns;
	lapic->timer_deadline_ns = initial ? now_ns + timer_period_ns(lapic) : UINT64_MAX;
}

static void timer_arm_deadline(const struct lapic_config *config, struct lapic_state *lapic,
			       uint64_t tsc)
{
	__int128 line = (__int128)tsc - (int64_t)config->tsc_adjust;
	unsigned __int128 ns = line > 0 ? (unsigned __int128)line * 1000000u : 0;

	lapic->tsc_deadline = tsc;
	ns = (ns + config->tsc_khz - 1) / config->tsc_khz + config->tsc_epoch_ns;
	if (tsc == 0)
		lapic->timer_deadline_ns = UINT64_MAX;
	else
		lapic->timer_deadline_ns = ns < UINT64_MAX ? (uint64_t)ns : UINT64_MAX - 1;
}

/* The count goes on from here. */
static void timer_go_on(struct lapic_state *lapic, uint32_t current, uint64_t now_ns)
{
	uint64_t divisor = timer_divisor(lapic->timer_divide);

	lapic->timer_start_ns = now_ns - (lapic->timer_initial - current) * divisor;
	lapic->timer_deadline_ns = now_ns + current * divisor;
}

static void timer_set_divide(struct lapic_state *lapic, uint32_t divide, uint64_t now_ns)
{
	uint32_t current = timer_current(lapic, now_ns);

	lapic->timer_divide = divide;
	if (current)
		timer_go_on(lapic, current, now_ns);
}

static void timer_set_lvt(struct lapic_state *lapic, uint32_t value, uint64_t now_ns)
{
	uint32_t before = timer_mode(lapic), current = timer_current(lapic, now_ns);

	lapic->lvt_timer = value;
	/* Into or out of TSC-deadline mode disarms (SDM 11.5.4.1). */
	if (before != timer_mode(lapic) &&
	    (before == TIMER_DEADLINE || timer_mode(lapic) == TIMER_DEADLINE)) {
		lapic->timer_deadline_ns = UINT64_MAX;
		lapic->timer_initial = 0;
		lapic->tsc_deadline = 0;
	} else if (before != timer_mode(lapic) && current) {
		/* Once or again and again: the count that is under way goes on to its end. */
		timer_go_on(lapic, current, now_ns);
	}
}

uint64_t lapic_deadline(const struct lapic_state *lapic)
{
	return lapic->lvt_timer & LVT_MASKED ? UINT64_MAX : lapic->timer_deadline_ns;
}

/* The next expiry of a periodic timer after now: on the grid that began at timer_start_ns. */
static uint64_t timer_next_period(const struct lapic_state *lapic, uint64_t now_ns)
{
	uint64_t period = timer_period_ns(lapic);
	uint64_t next = now_ns - timer_elapsed_ns(lapic, now_ns) % period + period;

	return next - now_ns < PERIOD_NS_MIN && period < PERIOD_NS_MIN ? now_ns + PERIOD_NS_MIN
								       : next;
}

void lapic_tick(const struct lapic_config *config, struct lapic_state *lapic, uint64_t now_ns)
{
	(void)config;
	if (now_ns < lapic->timer_deadline_ns)
		return;
	if (timer_mode(lapic) == TIMER_PERIODIC && lapic->timer_initial) {
		lapic->timer_deadline_ns = timer_next_period(lapic, now_ns);
	} else {
		lapic->timer_deadline_ns = UINT64_MAX;
		lapic->tsc_deadline = 0;
	}
	if (!(lapic->lvt_timer & LVT_MASKED))
		deliver_fixed(lapic, (uint8_t)(lapic->lvt_timer & LVT_VECTOR), false);
}

/* ---- registers ------------------------------------------------------------------------------- */

/* The LVT entry of a register and the bits that it has; NULL: not an LVT register. */
static uint32_t *lvt_find(const struct lapic_config *config, struct lapic_state *lapic,
			  uint32_t reg, uint32_t *ret_bits)
{
	uint32_t base = LVT_VECTOR | LVT_MASKED;

	switch (reg) {
	case REG_LVT_TIMER:
		*ret_bits = base | TIMER_PERIODIC | (config->tsc_deadline ? TIMER_DEADLINE : 0);
		return &lapic->lvt_timer;
	case REG_LVT_THERMAL:
		*ret_bits = base | LVT_MODE;
		return &lapic->lvt_thermal;
	case REG_LVT_PERF:
		*ret_bits = base | LVT_MODE;
		return &lapic->lvt_perf;
	case REG_LVT_LINT0:
		*ret_bits = base | LVT_MODE | LVT_POLARITY | LVT_TRIGGER;
		return &lapic->lvt_lint0;
	case REG_LVT_LINT1:
		*ret_bits = base | LVT_MODE | LVT_POLARITY | LVT_TRIGGER;
		return &lapic->lvt_lint1;
	case REG_LVT_ERROR:
		*ret_bits = base;
		return &lapic->lvt_error;
	default:
		return NULL;
	}
}

static int write_lvt(const struct lapic_config *config, struct lapic_state *lapic, uint32_t reg,
		     uint32_t value, uint64_t now_ns, struct lapic_effect *effect)
{
	uint32_t bits;
	uint32_t *lvt = lvt_find(config, lapic, reg, &bits);

	if (!lvt)
		return -EINVAL;
	if (value & ~(bits | LVT_READ_ONLY))
		return -EINVAL;
	value &= bits;
	if (reg == REG_LVT_TIMER && (value & LVT_TIMER_BIT) == LVT_TIMER_BIT)
		return -EINVAL;
	if (!(lapic->svr & SVR_ENABLE))
		value |= LVT_MASKED;
	if (reg == REG_LVT_TIMER) {
		timer_set_lvt(lapic, value, now_ns);
		effect->timer = true;
	} else {
		*lvt = value;
	}
	return 0;
}

static int write_svr(struct lapic_state *lapic, uint32_t value, struct lapic_effect *effect)
{
	if (value & ~SVR_BITS)
		return -EINVAL;
	lapic->svr = value;
	if (value & SVR_ENABLE)
		return 0;
	/* Software disabled: all LVT entries are masked (SDM 11.4.7.2). */
	lapic->lvt_timer |= LVT_MASKED;
	lapic->lvt_thermal |= LVT_MASKED;
	lapic->lvt_perf |= LVT_MASKED;
	lapic->lvt_lint0 |= LVT_MASKED;
	lapic->lvt_lint1 |= LVT_MASKED;
	lapic->lvt_error |= LVT_MASKED;
	effect->timer = true;
	return 0;
}

static void end_of_interrupt(struct lapic_state *lapic, struct lapic_effect *effect)
{
	int vector = bit_highest(lapic->isr);

	if (vector < 0)
		return;
	bit_assign(lapic->isr, (uint8_t)vector, false);
	if (bit_test(lapic->tmr, (uint8_t)vector)) {
		effect->eoi = true;
		effect->eoi_vector = (uint8_t)vector;
	}
}

/* Combinations that are sent at all (SDM table 11-3); the rest is ignored, as real ones do. */
static bool ipi_is_sent(const struct interrupt *ipi)
{
	switch (ipi->mode) {
	case INTERRUPT_FIXED:
		return true;
	case INTERRUPT_LOWEST:
	case INTERRUPT_NMI:
	case INTERRUPT_INIT:
	case INTERRUPT_SIPI:
		return ipi->shorthand == INTERRUPT_TO_DEST || ipi->shorthand == INTERRUPT_TO_OTHERS;
	default:
		return false;
	}
}

static int write_icr(struct lapic_state *lapic, uint64_t value, struct lapic_effect *effect)
{
	uint32_t low = (uint32_t)value & ~ICR_BUSY;
	bool assert = low >> 14 & 1;
	struct interrupt ipi = {
		.dest = (uint32_t)(value >> 32),
		.source = lapic->id,
		.vector = (uint8_t)low,
		.mode = (uint8_t)(low >> 8 & 7),
		.logical = (uint8_t)(low >> 11 & 1),
		.shorthand = (uint8_t)(low >> 18 & 3),
		/* IPIs are edge-triggered but for the INIT de-assert, which nobody needs since P4.
		 */
	};

	if (low & ICR_RESERVED)
		return -EINVAL;
	lapic->icr = (value & ~0xffffffffull) | low;
	if (ipi.mode == INTERRUPT_INIT && !assert)
		return 0;
	if (!ipi_is_sent(&ipi))
		return 0;
	if ((ipi.mode == INTERRUPT_FIXED || ipi.mode == INTERRUPT_LOWEST) && ipi.vector < 16) {
		raise_error(lapic, ESR_SEND_ILLEGAL);
		return 0;
	}
	if (ipi.shorthand == INTERRUPT_TO_SELF ||
	    (ipi.shorthand == INTERRUPT_TO_DEST && !ipi.logical && ipi.dest == lapic->id)) {
		lapic_deliver(lapic, ipi.mode, ipi.vector, false);
		return 0;
	}
	effect->interrupt = ipi;
	effect->send = true;
	return 0;
}

static int write_self_ipi(struct lapic_state *lapic, uint32_t value)
{
	if (value & ~0xffu)
		return -EINVAL;
	if (value < 16)
		raise_error(lapic, ESR_SEND_ILLEGAL);
	else
		deliver_fixed(lapic, (uint8_t)value, false);
	return 0;
}

static int write_timer_initial(struct lapic_state *lapic, uint32_t value, uint64_t now_ns,
			       struct lapic_effect *effect)
{
	if (timer_mode(lapic) == TIMER_DEADLINE)
		return 0;
	timer_arm_count(lapic, value, now_ns);
	effect->timer = true;
	return 0;
}

static int write_timer_divide(struct lapic_state *lapic, uint32_t value, uint64_t now_ns,
			      struct lapic_effect *effect)
{
	if (value & ~0xbu)
		return -EINVAL;
	timer_set_divide(lapic, value, now_ns);
	effect->timer = true;
	return 0;
}

static int write_register(const struct lapic_config *config, struct lapic_state *lapic,
			  uint32_t reg, uint32_t value, uint64_t now_ns,
			  struct lapic_effect *effect)
{
	switch (reg) {
	case REG_TPR:
		if (value & ~0xffu)
			return -EINVAL;
		lapic->tpr = value;
		effect->tpr = true;
		return 0;
	case REG_EOI:
		if (value)
			return -EINVAL;
		end_of_interrupt(lapic, effect);
		return 0;
	case REG_SVR:
		return write_svr(lapic, value, effect);
	case REG_ESR:
		if (value)
			return -EINVAL;
		lapic->esr = lapic->esr_pending;
		lapic->esr_pending = 0;
		return 0;
	case REG_TIMER_INITIAL:
		return write_timer_initial(lapic, value, now_ns, effect);
	case REG_TIMER_DIVIDE:
		return write_timer_divide(lapic, value, now_ns, effect);
	case REG_SELF_IPI:
		return write_self_ipi(lapic, value);
	default: /* the LVT; the rest is read-only or not there */
		return write_lvt(config, lapic, reg, value, now_ns, effect);
	}
}

static uint64_t apic_base(const struct lapic_state *lapic)
{
	return APIC_BASE_GPA | (lapic->enabled ? APIC_BASE_ENABLE : 0) |
	       (lapic->x2apic ? APIC_BASE_X2APIC : 0) | (lapic->bsp ? APIC_BASE_BSP : 0);
}

static int write_deadline(const struct lapic_config *config, struct lapic_state *lapic,
			  uint64_t value, struct lapic_effect *effect)
{
	if (!config->tsc_deadline)
		return -EINVAL;
	if (timer_mode(lapic) != TIMER_DEADLINE)
		return 0;
	timer_arm_deadline(config, lapic, value);
	effect->timer = true;
	return 0;
}

bool lapic_owns_msr(uint32_t msr)
{
	return msr == MSR_INDEX_APIC_BASE || msr == MSR_INDEX_TSC_DEADLINE ||
	       (msr >= MSR_INDEX_X2APIC_FIRST && msr <= MSR_INDEX_X2APIC_LAST);
}

int lapic_write(const struct lapic_config *config, struct lapic_state *lapic, uint32_t msr,
		uint64_t value, uint64_t now_ns, struct lapic_effect *ret_effect)
{
	*ret_effect = (struct lapic_effect){ 0 };
	if (!lapic_owns_msr(msr))
		return -EINVAL;
	/* Whatever has expired has done so under the old settings. */
	lapic_tick(config, lapic, now_ns);
	if (msr == MSR_INDEX_APIC_BASE)
		return value == apic_base(lapic) ? 0 : -EINVAL;
	if (msr == MSR_INDEX_TSC_DEADLINE)
		return write_deadline(config, lapic, value, ret_effect);
	if (msr == MSR_INDEX_X2APIC_FIRST + REG_ICR)
		return write_icr(lapic, value, ret_effect);
	if (value >> 32)
		return -EINVAL;
	return write_register(config, lapic, msr - MSR_INDEX_X2APIC_FIRST, (uint32_t)value, now_ns,
			      ret_effect);
}

static uint32_t bits_word(const uint64_t set[4], uint32_t index)
{
	return (uint32_t)(set[index / 2] >> (index % 2 * 32));
}

static int read_register(const struct lapic_state *lapic, uint32_t reg, uint64_t now_ns,
			 uint64_t *ret_value)
{
	switch (reg) {
	case REG_ID:
		*ret_value = lapic->id;
		break;
	case REG_VERSION:
		*ret_value = VERSION_VALUE;
		break;
	case REG_TPR:
		*ret_value = lapic->tpr;
		break;
	case REG_PPR:
		*ret_value = priority(lapic, lapic->tpr);
		break;
	case REG_LDR:
		*ret_value = (lapic->id >> 4) << 16 | 1u << (lapic->id & 0xf);
		break;
	case REG_SVR:
		*ret_value = lapic->svr;
		break;
	case REG_ISR ... REG_ISR + 7:
		*ret_value = bits_word(lapic->isr, reg - REG_ISR);
		break;
	case REG_TMR ... REG_TMR + 7:
		*ret_value = bits_word(lapic->tmr, reg - REG_TMR);
		break;
	case REG_IRR ... REG_IRR + 7:
		*ret_value = bits_word(lapic->irr, reg - REG_IRR);
		break;
	case REG_ESR:
		*ret_value = lapic->esr;
		break;
	case REG_ICR:
		*ret_value = lapic->icr;
		break;
	case REG_LVT_TIMER:
		*ret_value = lapic->lvt_timer;
		break;
	case REG_LVT_THERMAL:
		*ret_value = lapic->lvt_thermal;
		break;
	case REG_LVT_PERF:
		*ret_value = lapic->lvt_perf;
		break;
	case REG_LVT_LINT0:
		*ret_value = lapic->lvt_lint0;
		break;
	case REG_LVT_LINT1:
		*ret_value = lapic->lvt_lint1;
		break;
	case REG_LVT_ERROR:
		*ret_value = lapic->lvt_error;
		break;
	case REG_TIMER_INITIAL:
		*ret_value = lapic->timer_initial;
		break;
	case REG_TIMER_CURRENT:
		*ret_value = timer_current(lapic, now_ns);
		break;
	case REG_TIMER_DIVIDE:
		*ret_value = lapic->timer_divide;
		break;
	default: /* write-only or not there */
		return -EINVAL;
	}
	return 0;
}

int lapic_read(const struct lapic_config *config, const struct lapic_state *lapic, uint32_t msr,
	       uint64_t now_ns, uint64_t *ret_value)
{
	if (!lapic_owns_msr(msr))
		return -EINVAL;
	if (msr == MSR_INDEX_APIC_BASE) {
		*ret_value = apic_base(lapic);
		return 0;
	}
	if (msr == MSR_INDEX_TSC_DEADLINE) {
		if (!config->tsc_deadline)
			return -EINVAL;
		*ret_value = now_ns < lapic->timer_deadline_ns ? lapic->tsc_deadline : 0;
		return 0;
	}
	return read_register(lapic, msr - MSR_INDEX_X2APIC_FIRST, now_ns, ret_value);
}

/* ---- inbox ----------------------------------------------------------------------------------- */

void lapic_inbox_clear(struct lapic_inbox *inbox)
{
	for (int i = 0; i < 4; i++) {
		atomic_store(&inbox->irr[i], 0);
		atomic_store(&inbox->tmr[i], 0);
		atomic_store(&inbox->extint[i], 0);
	}
	atomic_store(&inbox->events, 0);
	atomic_store(&inbox->pending, 0);
}

static void post_fixed(struct lapic_inbox *inbox, uint8_t vector, bool level)
{
	uint64_t bit = 1ull << (vector % 64);

	if (level)
		atomic_fetch_or(&inbox->tmr[vector / 64], bit);
	else
		atomic_fetch_and(&inbox->tmr[vector / 64], ~bit);
	atomic_fetch_or(&inbox->irr[vector / 64], bit);
}

static void post_sipi(struct lapic_inbox *inbox, uint8_t vector)
{
	uint32_t before = atomic_load(&inbox->events);
	uint32_t after;

	do
		after = (before & ~EVENT_VECTOR) | EVENT_SIPI | vector;
	while (!atomic_compare_exchange_weak(&inbox->events, &before, after));
}

static void post_init(struct lapic_inbox *inbox)
{
	uint32_t before = atomic_load(&inbox->events);
	uint32_t after;

	do
		after = (before & ~(EVENT_VECTOR | EVENT_SIPI)) | EVENT_INIT;
	while (!atomic_compare_exchange_weak(&inbox->events, &before, after));
}

bool lapic_inbox_post(struct lapic_inbox *inbox, uint8_t mode, uint8_t vector, bool level)
{
	switch (mode) {
	case INTERRUPT_FIXED:
	case INTERRUPT_LOWEST:
		post_fixed(inbox, vector, level);
		break;
	case INTERRUPT_NMI:
		atomic_fetch_or(&inbox->events, EVENT_NMI);
		break;
	case INTERRUPT_INIT:
		post_init(inbox);
		break;
	case INTERRUPT_SIPI:
		post_sipi(inbox, vector);
		break;
	case INTERRUPT_EXTINT:
		if (vector < 16)
			return false;
		atomic_fetch_or(&inbox->extint[vector / 64], 1ull << (vector % 64));
		break;
	default:
		return false;
	}
	return atomic_exchange(&inbox->pending, 1) == 0;
}

bool lapic_inbox_pending(const struct lapic_inbox *inbox)
{
	return atomic_load(&inbox->pending) != 0;
}

static void drain_fixed(struct lapic_inbox *inbox, struct lapic_state *lapic, uint32_t word)
{
	uint64_t irr = atomic_exchange(&inbox->irr[word], 0);
	uint64_t tmr = atomic_load(&inbox->tmr[word]);

	while (irr) {
		uint32_t bit = (uint32_t)__builtin_ctzll(irr);

		deliver_fixed(lapic, (uint8_t)(word * 64 + bit), tmr >> bit & 1);
		irr &= irr - 1;
	}
}

void lapic_inbox_forward(struct lapic_inbox *inbox,
			 void (*post)(void *ctx, uint8_t mode, uint8_t vector, bool level),
			 void *ctx)
{
	uint32_t events;

	if (!atomic_exchange(&inbox->pending, 0))
		return;
	events = atomic_exchange(&inbox->events, 0);
	for (uint32_t word = 0; word < 4; word++) {
		uint64_t irr = atomic_exchange(&inbox->irr[word], 0);
		uint64_t tmr = atomic_load(&inbox->tmr[word]);

		for (; irr; irr &= irr - 1) {
			uint32_t bit = (uint32_t)__builtin_ctzll(irr);

			post(ctx, INTERRUPT_FIXED, (uint8_t)(word * 64 + bit), tmr >> bit & 1);
		}
		for (uint64_t ext = atomic_exchange(&inbox->extint[word], 0); ext; ext &= ext - 1)
			post(ctx, INTERRUPT_EXTINT,
			     (uint8_t)(word * 64 + (uint32_t)__builtin_ctzll(ext)), false);
	}
	if (events & EVENT_NMI)
		post(ctx, INTERRUPT_NMI, 0, false);
	if (events & EVENT_INIT)
		post(ctx, INTERRUPT_INIT, 0, false);
	if (events & EVENT_SIPI)
		post(ctx, INTERRUPT_SIPI, (uint8_t)(events & EVENT_VECTOR), false);
}

bool lapic_inbox_drain(struct lapic_inbox *inbox, struct lapic_state *lapic)
{
	uint32_t events;

	if (!atomic_exchange(&inbox->pending, 0))
		return false;
	events = atomic_exchange(&inbox->events, 0);
	for (uint32_t word = 0; word < 4; word++) {
		drain_fixed(inbox, lapic, word);
		lapic->extint[word] |= atomic_exchange(&inbox->extint[word], 0);
	}
	if (events & EVENT_NMI)
		lapic_deliver(lapic, INTERRUPT_NMI, 0, false);
	if (events & EVENT_INIT)
		lapic_deliver(lapic, INTERRUPT_INIT, 0, false);
	if (events & EVENT_SIPI)
		lapic_deliver(lapic, INTERRUPT_SIPI, (uint8_t)(events & EVENT_VECTOR), false);
	return true;
}
