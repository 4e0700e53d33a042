/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine that is made up: the table, and what does nothing in it. How its guests run is the test's,
 * which has struct engine_vcpu and these functions (contracts: engine/engine.h).
 */
#ifndef TESTS_NODE_FAKE_ENGINE_H
#define TESTS_NODE_FAKE_ENGINE_H

#include "engine/engine.h"

extern const struct engine_ops fake_engine;

int fake_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu);
int fake_load(struct engine_vcpu *vcpu, const struct vcpu_state *state);
int fake_save(struct engine_vcpu *vcpu, struct vcpu_state *state);
int fake_run(struct engine_vcpu *vcpu, struct engine_exit *exit);
void fake_kick(struct engine_vcpu *vcpu);
bool fake_can_interrupt(struct engine_vcpu *vcpu);
int fake_interrupt(struct engine_vcpu *vcpu, uint8_t vector);

#endif
