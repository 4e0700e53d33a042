/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest pages that hold translated code.
 */
#include "engine/soft/soft.h"

int soft_code_add_memory(struct engine *engine, uint64_t gpa, uint64_t bytes)
{
	(void)engine;
	(void)gpa;
	(void)bytes;
	return 0;
}

bool soft_code_allow_write(struct engine *engine, uint64_t gpa)
{
	(void)engine;
	(void)gpa;
	return true;
}

void soft_code_written(struct engine_vcpu *vcpu, uint64_t gpa, uint64_t bytes)
{
	(void)vcpu;
	(void)gpa;
	(void)bytes;
}
