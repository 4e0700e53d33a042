/* SPDX-License-Identifier: Apache-2.0 */
/* A seed's world of moving vCPUs, and the deliberate defects of what is around the core. */
#ifndef TESTS_SIM_MOVES_PLAN_H
#define TESTS_SIM_MOVES_PLAN_H

#include <stdint.h>
#include <stdio.h>

/* What the node's threads may get wrong, besides core/vcpu_place.h's own defects. */
enum edge_broken {
	EDGE_BROKEN_NONE = 0,
	EDGE_BROKEN_LOOK_FIRST,	   /* the place is read, then the interrupt is posted */
	EDGE_BROKEN_FORWARD_EARLY, /* SENT, and what waits goes on, and only then MOVE */
	EDGE_BROKEN_NO_LOCK,	   /* MOVE, and some time later SENT */
	EDGE_BROKEN_REFUSAL_DROPS, /* a refusal forgets what was gathered */
	EDGE_BROKEN_GATHERED,	   /* what was gathered goes into a state that may be refused */
	EDGE_BROKEN_FORGET,	   /* who has changed the place does not look into the inbox */
	EDGE_BROKEN_DRAIN_FIRST,   /* the inbox is drained, then LEAVING is written */
	EDGE_BROKEN_STEAL,	   /* forwards by a place read before the lock */
	EDGE_BROKEN_STRAIGHT,	   /* INIT and SIPI go straight to the vCPU */
	EDGE_BROKEN_TAKEN_EARLY,   /* TAKEN while the vCPU comes or goes */
	EDGE_BROKEN_LEAVES_ASKING, /* a vCPU leaves before its INIT or SIPI is answered */
	EDGE_BROKEN_OWED,	   /* a vCPU leaves before PLACE of its stay is said */
	EDGE_BROKEN_SETTLE,	   /* TAKEN behind PLACE, though the vCPU leaves */
	EDGE_BROKEN_COUNT,
};

struct plan {
	uint64_t seed;
	uint64_t nodes, vcpus;
	uint64_t moves;	     /* of each vCPU, refused ones included */
	uint64_t interrupts; /* of each vCPU, and of each device */
	uint64_t devices;    /* nodes with a source besides the vCPUs */
	uint64_t delay_ns, jitter_ns;
	uint64_t slow_percent;		  /* of the pairs of nodes have 20 times that */
	uint64_t step_ns;		  /* a thread's step takes up to so long, */
	uint64_t pause_percent, pause_ns; /* and now and then it stands still */
	uint64_t dwell_ns, stay_ns;	  /* it leaves after dwell and up to stay more */
	uint64_t think_ns;		  /* between a source's interrupts: up to */
	uint64_t refuse_percent, unsaved_percent;
	uint64_t startup_percent;	/* of the vCPUs' interrupts are INIT and SIPI */
	uint64_t many_percent;		/* are for several vCPUs */
	uint64_t full_percent, full_ns; /* a channel does not take interrupts for a while */
	uint64_t core_broken, edge_broken;
};

void plan_make(struct plan *plan, uint64_t seed);
/* name=value. 0, or -EINVAL. */
int plan_set(struct plan *plan, const char *setting);
void plan_print(const struct plan *plan, FILE *file);

#endif
