/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUs for vCPUs (contract: cores.h).
 */
#include "node/cores.h"

#include <errno.h>

#include "node/pod_config.h"

uint32_t cores_of_host(void)
{
	cpu_set_t allowed;
	return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? (uint32_t)CPU_COUNT(&allowed)
								    : 1;
}

void cores_choose(const cpu_set_t *allowed, uint32_t cores, uint16_t node, cpu_set_t *ret_cpus)
{
	uint32_t count = (uint32_t)CPU_COUNT(allowed), number = 0;
	uint32_t first = count ? (uint32_t)((uint64_t)cores * node % count) : 0;
	CPU_ZERO(ret_cpus);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, allowed))
			continue;
		if ((number + count - first) % count < cores)
			CPU_SET(cpu, ret_cpus);
		number++;
	}
}

int cores_bind(uint32_t cores, uint16_t node)
{
	cpu_set_t allowed, chosen;
	if (cores == 0 || cores == CORES_OF_HOST)
		return 0;
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return -errno;
	cores_choose(&allowed, cores, node, &chosen);
	return sched_setaffinity(0, sizeof(chosen), &chosen) < 0 ? -errno : 0;
}
