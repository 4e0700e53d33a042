/* SPDX-License-Identifier: Apache-2.0 */
/* An interrupt for a vCPU that never moves: a node's post() (node/guest_io.c) without the places. */
#ifndef TESTS_NODE_POST_H
#define TESTS_NODE_POST_H

#include "node/vcpu.h"

static inline void post_to(struct vcpu *vcpu, uint8_t mode, uint8_t vector, bool level)
{
	if (lapic_inbox_post(vcpu_inbox(vcpu), mode, vector, level))
		vcpu_wake(vcpu);
}

#endif
