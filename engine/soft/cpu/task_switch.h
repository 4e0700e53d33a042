/* SPDX-License-Identifier: Apache-2.0 */
/* Task switches by hardware, outside long mode. See task_switch.c. */
#ifndef ENGINE_SOFT_TASK_SWITCH_H
#define ENGINE_SOFT_TASK_SWITCH_H

#include "engine/soft/vcpu.h"

/* How a task comes to run decides about busy bits, the back link and NT. */
enum soft_task_way {
	TASK_BY_JUMP,
	TASK_BY_CALL, /* or through a gate of the IDT: it comes back by IRET */
	TASK_BY_RETURN,
};

struct soft_task_switch {
	enum soft_task_way way;
	uint16_t selector;	    /* of the TSS */
	uint64_t return_rip, flags; /* what the task that is left goes on with */
	bool external;		    /* not asked for by an instruction: EXT in error codes */
	bool has_error;		    /* `error` goes onto the new task's stack */
	uint32_t error;
};

/*
 * SOFT_OK: the vCPU is in the new task, with vcpu->task.due: its segments are to be loaded before
 * anything else is done. SOFT_FAULT: it is still in the old one.
 */
int soft_task_switch(struct engine_vcpu *vcpu, const struct soft_task_switch *how);
/* IRET with NT: back to the task in the present one's link. */
int soft_task_return(struct engine_vcpu *vcpu, uint64_t return_rip);
/* Loads what is due. What is wrong with it is an exception that waits, in the new task. */
int soft_task_settle(struct engine_vcpu *vcpu);

#endif
