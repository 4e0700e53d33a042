/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NUMA view: each node of the pod as a NUMA node of the guest, with a part of its memory and the
 * vCPUs that begin there. Pure.
 *
 * Where a page is, is decided by who touches it, whatever the view says; but a guest that knows
 * nodes gives memory of a node's part to who runs there, and so the first touch is there, too.
 */
#ifndef MACHINE_NUMA_H
#define MACHINE_NUMA_H

#include <stdint.h>

#include "core/limits.h"
#include "machine/memory_map.h"

struct numa_range {
	uint64_t gpa, bytes;
	uint32_t node;
};

struct numa_view {
	uint32_t node_count;
	uint32_t range_count;
	struct numa_range range[NODES_MAX + MEMORY_RANGES_MAX - 1]; /* ascending, without holes */
	uint32_t vcpu_count;
	uint16_t vcpu_node[VCPUS_MAX];
};

/*
 * Gives each node a part of the map's RAM, in the order of the nodes, as large as its share of the
 * sum of `weight`, to a chunk; none may be 0. -EINVAL: no nodes, or too many.
 */
int numa_view_build(const struct memory_map *map, const uint64_t *weight, uint32_t node_count,
		    struct numa_view *ret_view);

#endif
