/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node may do on its host, and gives up in the course of its start (docs/security.md).
 */
#ifndef NODE_PRIVILEGES_H
#define NODE_PRIVILEGES_H

struct node;

/* Nothing that this process executes gets more rights than it has. Before there are other threads. */
void privileges_begin(void);

/*
 * Its memory holds a secret: no core dumps, and no other process of its user can look into it
 * (PR_SET_DUMPABLE). EAGRE_DUMPABLE=1 in the environment leaves it open, for debuggers.
 */
void privileges_hide(void);

/*
 * When all is open that needs privileges: gives up the capabilities of this thread, and so of those
 * that it makes from now on, but for what the node will need once more. Says what that is, and why.
 */
void privileges_drop(struct node *node);

#endif
