/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine in another process, behind the engine's own interface: what a second node would be. The
 * other process is forked before anything else is done, has the guest's memory in common with this
 * one, and makes engines and vCPUs of its own. A state goes there, and comes back, as an image
 * through a socket.
 *
 *	this process                                  the other one
 *	vcpu_load(state): encoded ----- image ------> decoded, loaded
 *	vcpu_run() ------------------------------->   runs
 *	vcpu_kick(), any thread ---- a byte ------->   a thread that kicks
 *	exit, its data <-----------------------------
 *	vcpu_save() ------- answers -------------->   saved, encoded
 *	decoded <--------------------- image --------
 *
 * For shaken guests (shake.h): one engine at a time, and one vCPU of it, number 0.
 */
#ifndef TESTS_ENGINE_APART_H
#define TESTS_ENGINE_APART_H

#include "engine/engine.h"

/*
 * Forks; nobody else may have a thread yet. `memory` is what both have, of so many bytes. Whoever
 * cannot go on ends this process with a line.
 */
const struct engine_ops *apart_begin(const struct engine_ops *of, void *memory, uint64_t bytes);
/* How many images have gone there and come back, and how often a vCPU ran there. */
void apart_counts(uint64_t *ret_images, uint64_t *ret_runs);

#endif
