/* SPDX-License-Identifier: Apache-2.0 */
/* Holding the other vCPUs of this node for a moment. See pause.c. */
#ifndef ENGINE_SOFT_PAUSE_H
#define ENGINE_SOFT_PAUSE_H

#include "engine/soft/vcpu.h"

/* Sets `stop`, and makes a vCPU that is inside run see it. Any thread, any signal handler. */
void soft_stop(struct engine_vcpu *vcpu);
/* All other vCPUs (or those of the mask, by number modulo 64) wait at a safe point. */
void soft_pause_others(struct engine_vcpu *vcpu, uint64_t mask);
void soft_resume_others(struct engine_vcpu *vcpu);
/* A signal has broken off what the vCPU did: the others go on if it had paused them. */
void soft_pause_abandoned(struct engine_vcpu *vcpu);
/* Around all that a vCPU does with what others change while it is paused. */
void soft_run_begin(struct engine_vcpu *vcpu);
void soft_run_end(struct engine_vcpu *vcpu);
/* Waits here while someone wants it. Holding no lock and no host address of guest memory. */
void soft_safe_point(struct engine_vcpu *vcpu);

#endif
