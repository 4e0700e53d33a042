/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU that is kicked again and again at random, and then moved into a new one by way of its
 * image: whatever it was doing must go on as if nothing had been. One at a time.
 *
 * With rig_with it goes to another engine, and back with the next move. To each of the two the
 * other is a node that may write all of the memory while the vCPU is there.
 */
#ifndef TESTS_ENGINE_SHAKE_H
#define TESTS_ENGINE_SHAKE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/engine/rig.h"

/*
 * An item of the state that every move then loses, to see that the guests notice. The names: NULL
 * at their end. False: there is no such item.
 */
extern const char *const shake_items[];
bool shake_lose(const char *item);
/* As on a host on which a vCPU needs so long, once moved, until its guest goes on. */
void shake_come_late(uint32_t us);

struct shake {
	pthread_t thread;
	pthread_mutex_t lock;
	/* Under lock. */
	struct engine_vcpu *vcpu; /* NULL while it is moved */
	uint32_t kicks;
	unsigned int late_seed;
	_Atomic int stop;
	uint32_t moves;
};

/* Begins to kick rig->vcpu[0]. */
int shake_begin(struct shake *shake, struct rig *rig);
/* The vCPU is then destroyed if it is not on the rig's own engine. */
void shake_end(struct shake *shake, struct rig *rig);
/*
 * After an exit that is answered: moves it, unless its instruction has yet another question; then
 * *ret_loaded stays as it was. It is what has been loaded there.
 */
int shake_move(struct shake *shake, struct rig *rig, struct vcpu_state *ret_loaded);
/* The guest's TSC is the host's, and what the guest has added. */
int shake_set_tsc(struct rig *rig);

#endif
