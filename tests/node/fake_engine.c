/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_engine.h. */
#include "tests/node/fake_engine.h"

static int fake_bind(struct engine_vcpu *vcpu)
{
	return 0;
}

static int fake_set_tsc(struct engine_vcpu *vcpu, const struct tsc_line *line)
{
	return 0;
}

static uint64_t fake_tsc_ratio(const struct engine *engine, uint64_t wanted)
{
	return wanted;
}

static void fake_want_window(struct engine_vcpu *vcpu, bool want)
{
}

static uint8_t fake_tpr(struct engine_vcpu *vcpu)
{
	return 0;
}

static uint64_t fake_rip(struct engine_vcpu *vcpu)
{
	return 0;
}

const struct engine_ops fake_engine = { .name = "fake",
					.vcpu_create = fake_create,
					.vcpu_bind = fake_bind,
					.vcpu_load = fake_load,
					.vcpu_save = fake_save,
					.vcpu_set_tsc = fake_set_tsc,
					.tsc_ratio = fake_tsc_ratio,
					.vcpu_run = fake_run,
					.vcpu_kick = fake_kick,
					.vcpu_can_interrupt = fake_can_interrupt,
					.vcpu_interrupt = fake_interrupt,
					.vcpu_want_window = fake_want_window,
					.vcpu_tpr = fake_tpr,
					.vcpu_rip = fake_rip,
					.vcpu_cr3 = fake_rip };
