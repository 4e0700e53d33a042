/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/soft/soft.h"

void soft_translated_stop(struct engine_vcpu *vcpu, void *context)
{
	(void)vcpu;
	(void)context;
}

void soft_translated_fault(struct engine_vcpu *vcpu, void *context, uint8_t vector)
{
	(void)vcpu;
	(void)context;
	(void)vector;
}
