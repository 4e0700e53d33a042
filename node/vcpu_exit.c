/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU's guest has done that needs the world around: accesses to devices and to its local APIC,
 * INIT and start-up; and its state into the engine and out.
 */
#include <errno.h>

#include "node/vcpu_thread.h"

static int handle_io(struct vcpu *vcpu)
{
	struct pc_access access = {
		.address = vcpu->exit.io.port,
		.count = vcpu->exit.io.count,
		.size = vcpu->exit.io.size,
		.write = vcpu->exit.io.write,
		.data = vcpu->exit.io.data,
	};
	int error;

	if (pc_io_local(&access, now_of(vcpu)))
		return 0;
	atomic_store(&vcpu->activity, VCPU_IN_IO);
	error = vcpu->config.ops->io(vcpu->config.ctx, vcpu->config.number, &access);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	return error;
}

static int handle_mmio(struct vcpu *vcpu)
{
	struct pc_access access = {
		.address = vcpu->exit.mmio.gpa,
		.count = 1,
		.size = vcpu->exit.mmio.size,
		.write = vcpu->exit.mmio.write,
		.data = vcpu->exit.mmio.data,
	};
	int error;

	if (pc_mmio_local(&access))
		return 0;
	atomic_store(&vcpu->activity, VCPU_IN_IO);
	error = vcpu->config.ops->mmio(vcpu->config.ctx, vcpu->config.number, &access);
	atomic_store(&vcpu->activity, VCPU_OUTSIDE);
	return error;
}

static void handle_msr_read(struct vcpu *vcpu)
{
	uint64_t value = 0;
	int error = lapic_read(&vcpu->config.lapic, &vcpu->state.lapic, vcpu->exit.msr.index,
			       now_of(vcpu), &value);

	vcpu->exit.msr.fault = error != 0;
	vcpu->exit.msr.value = value;
}

static void handle_msr_write(struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;
	struct lapic_effect effect;
	int error;

	vcpu->config.lapic.tsc_adjust = vcpu->exit.msr.tsc_adjust;
	error = lapic_write(&config->lapic, &vcpu->state.lapic, vcpu->exit.msr.index,
			    vcpu->exit.msr.value, now_of(vcpu), &effect);
	vcpu->exit.msr.fault = error != 0;
	if (error)
		return;
	if (effect.tpr)
		config->engine_ops->vcpu_set_tpr(vcpu->engine_vcpu,
						 (uint8_t)(vcpu->state.lapic.tpr >> 4));
	if (effect.eoi)
		config->ops->eoi(config->ctx, config->number, effect.eoi_vector);
	if (effect.send) {
		count(&vcpu->ipi_count, 1);
		config->ops->send_interrupt(config->ctx, &effect.interrupt);
	}
}

/* False: the thread ends, and *ret_end says why. */
bool vcpu_handle_exit(struct vcpu *vcpu, struct vcpu_end *ret_end)
{
	int error = 0;

	count(&vcpu->exit_count[vcpu->exit.kind], 1);
	switch (vcpu->exit.kind) {
	case EXIT_IO:
		error = handle_io(vcpu);
		break;
	case EXIT_MMIO:
		error = handle_mmio(vcpu);
		break;
	case EXIT_MSR_READ:
		handle_msr_read(vcpu);
		break;
	case EXIT_MSR_WRITE:
		handle_msr_write(vcpu);
		break;
	case EXIT_HLT:
		vcpu->state.run_state = VCPU_HALTED;
		break;
	case EXIT_WINDOW:
	case EXIT_KICKED:
		break;
	case EXIT_SHUTDOWN:
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_SHUTDOWN };
		return false;
	case EXIT_FAILED:
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_FAILED,
					      .reason = vcpu->exit.fail.reason,
					      .detail = vcpu->exit.fail.detail };
		return false;
	}
	if (error)
		*ret_end = (struct vcpu_end){ .kind = VCPU_END_STOPPED };
	return error == 0;
}

static int take_tsc(struct vcpu *vcpu)
{
	vcpu->config.ops->tsc(vcpu->config.ctx, &vcpu->tsc);
	return vcpu->config.engine_ops->vcpu_set_tsc(vcpu->engine_vcpu, &vcpu->tsc);
}

int vcpu_load_state(struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;
	int error = config->engine_ops->vcpu_load(vcpu->engine_vcpu, &vcpu->state);

	return error ? error : take_tsc(vcpu);
}

int vcpu_take_line(struct vcpu *vcpu)
{
	return atomic_exchange(&vcpu->resync, false) ? take_tsc(vcpu) : 0;
}

/* -EAGAIN: the engine is in the middle of an instruction; run on, and come again: by the kick, soon. */
int vcpu_save_state(struct vcpu *vcpu)
{
	const struct vcpu_config *config = &vcpu->config;
	int error = config->engine_ops->vcpu_save(vcpu->engine_vcpu, &vcpu->state);

	if (error == -EAGAIN)
		config->engine_ops->vcpu_kick(vcpu->engine_vcpu);
	return error;
}

int vcpu_handle_init(struct vcpu *vcpu)
{
	int error = vcpu_save_state(vcpu);

	if (error)
		return error;
	vcpu_state_init(&vcpu->state);
	lapic_init(&vcpu->state.lapic);
	return vcpu_load_state(vcpu);
}

int vcpu_handle_sipi(struct vcpu *vcpu)
{
	vcpu->state.lapic.sipi_pending = 0;
	if (!vcpu_state_sipi(&vcpu->state, vcpu->state.lapic.sipi_vector))
		return 0;
	return vcpu_load_state(vcpu);
}
