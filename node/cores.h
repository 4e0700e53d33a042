/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's CPUs that a node's vCPUs run on: `cores =` in the configuration.
 *
 * A vCPU is a thread, and Linux shares CPUs fairly among threads: one that is stalled or halted
 * sleeps, and gives its CPU to the others. What is missing is a limit where a node is to run on
 * fewer CPUs than its host has. So each vCPU's thread binds itself to as many of the CPUs that the
 * process may use. Other threads of the node, which answer for its pages, are not bound.
 *
 * Tested in tests/node/test_cores.c; with whole pods in tests/pod/ways.
 */
#ifndef NODE_CORES_H
#define NODE_CORES_H

#include <sched.h>
#include <stdint.h>

/* CPUs that this process may use, at least 1. */
uint32_t cores_of_host(void);
/*
 * `cores` of those in `allowed`, or all of them if there are no more. Which ones: those of node 0
 * first, then those of node 1 and so on round and round, so that nodes on one host do not take the
 * same ones while others are free.
 */
void cores_choose(const cpu_set_t *allowed, uint32_t cores, uint16_t node, cpu_set_t *ret_cpus);
/* Binds the calling thread to them. 0 or -errno. CORES_OF_HOST, or none: it is not bound. */
int cores_bind(uint32_t cores, uint16_t node);

#endif
