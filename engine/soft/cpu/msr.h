/* SPDX-License-Identifier: Apache-2.0 */
/* The values of model-specific registers. */
#ifndef ENGINE_SOFT_MSR_H
#define ENGINE_SOFT_MSR_H

#include "engine/soft/vcpu.h"

int soft_msr_read(struct engine_vcpu *vcpu, uint32_t index, uint64_t *ret_value);
int soft_msr_write(struct engine_vcpu *vcpu, uint32_t index, uint64_t value);
uint64_t soft_tsc(const struct engine_vcpu *vcpu);

#endif
