/* SPDX-License-Identifier: Apache-2.0 */
/* The vCPU's mode, and what follows from it. */
#ifndef ENGINE_SOFT_MODE_H
#define ENGINE_SOFT_MODE_H

#include "engine/soft/insn/decode.h"
#include "engine/soft/vcpu.h"

enum soft_code_size soft_code_size(const struct engine_vcpu *vcpu);
/* After every change of control registers, CS, SS and RFLAGS. */
void soft_update_mode(struct engine_vcpu *vcpu);
/* All of it; the modes that follow from it too. */
void soft_set_rflags(struct engine_vcpu *vcpu, uint64_t rflags);

#endif
