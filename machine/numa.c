/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of memory for nodes (contract: numa.h).
 */
#include "machine/numa.h"

#include <errno.h>
#include <string.h>

/* The part of `bytes` that belongs to the first nodes, with `part` of the weights' `sum`. */
static uint64_t share(uint64_t bytes, uint64_t part, uint64_t sum)
{
	uint64_t chunks = bytes / CHUNK_BYTES;

	return (uint64_t)((unsigned __int128)chunks * part / sum) * CHUNK_BYTES;
}

/* Bytes `from` to `to` of RAM, holes not counted, belong to the node. */
static void add(struct numa_view *view, const struct memory_map *map, uint64_t from, uint64_t to,
		uint32_t node)
{
	uint64_t begin = 0; /* of the map's range */

	for (uint32_t i = 0; i < map->count; i++) {
		uint64_t end = begin + map->range[i].bytes;
		uint64_t first = from > begin ? from : begin, last = to < end ? to : end;

		if (first < last)
			view->range[view->range_count++] = (struct numa_range){
				.gpa = map->range[i].gpa + (first - begin),
				.bytes = last - first,
				.node = node,
			};
		begin = end;
	}
}

int numa_view_build(const struct memory_map *map, const uint64_t *weight, uint32_t node_count,
		    struct numa_view *ret_view)
{
	uint64_t bytes = 0, sum = 0, part = 0;

	if (!node_count || node_count > NODES_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < node_count; i++) {
		if (!weight[i] || weight[i] > UINT64_MAX - sum)
			return -EINVAL;
		sum += weight[i];
	}
	for (uint32_t i = 0; i < map->count; i++)
		bytes += map->range[i].bytes;
	memset(ret_view, 0, sizeof(*ret_view));
	ret_view->node_count = node_count;
	for (uint32_t i = 0; i < node_count; i++) {
		uint64_t from = share(bytes, part, sum);

		part += weight[i];
		add(ret_view, map, from, share(bytes, part, sum), i);
	}
	return 0;
}
