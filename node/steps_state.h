/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of steps.c (the list, and who wishes) and steps_do.c (what a step asks of a node). */
#ifndef NODE_STEPS_STATE_H
#define NODE_STEPS_STATE_H

#include "node/node_state.h"

/* How far a link is on its way to its end, when its node has gone. */
enum link_end {
	LINK_STANDS,
	LINK_CUT,  /* nobody says anything to it any more, once who does so now has said it */
	LINK_SHUT, /* so the peer reads all of that, and then the end */
	LINK_CLOSED,
};

struct steps {
	/* The control thread's. */
	uint32_t id;		 /* of the wish that is out */
	bool under_way;		 /* something is to be looked at again and again */
	struct member_word step; /* the last that has been applied */
	bool owes_done;		 /* ... and is not done here */
	bool unnamed;		 /* GONE: no word names it; who held the list then: `quiet` */
	uint64_t quiet;
	_Atomic uint32_t abandoned;	  /* a joiner + 1 that is not waited for; anybody's */
	bool said_ready;		  /* this node joins */
	bool drain_over, empty, released; /* it drains */
	atomic_bool drained;
	bool left; /* ... and is GONE, which is over */
	uint64_t send_away_ns;
	enum link_end link[NODES_MAX];
	uint64_t cut[NODES_MAX];     /* LINK_CUT: members_quiet_begin() */
	bool ended[NODES_MAX];	     /* the list has been told that its links have ended */
	atomic_bool down[NODES_MAX]; /* they have, says whoever saw it */
	char cause[NODES_MAX][160];  /* of that; its writer's before `down` is set */

	pthread_mutex_t asking; /* one wish of this node's users at a time */
	pthread_mutex_t lock;	/* guards what follows */
	pthread_cond_t told;
	struct member_word wish;
	bool answered;
	int result;
	/* `wish` has not been taken; written under the lock, and read first without */
	atomic_bool waits;
};

/* steps_do.c, the control thread. The list has changed by this step, and is published. */
void steps_begin(struct node *node, const struct member_word *step);
/* What the last step asks has been done here. Asked again and again. */
bool steps_is_done(struct node *node);
/* All have done it. */
void steps_are_over(struct node *node, const struct member_word *step);
/* What is to be done whatever the last step is. True: the list has been told something. */
bool steps_look(struct node *node);

#endif
