/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node's io thread has done, and the pod's disks as it knows them: for `eagre status`.
 */
#ifndef NODE_IO_STATS_H
#define NODE_IO_STATS_H

#include <stdint.h>

#include "link/io_channel.h"
#include "node/device_config.h"

struct node;

struct io_disk_stats {
	const char *name;
	uint32_t node; /* that has it */
	/* By this node's front half; and by other nodes, of a disk that is here. */
	struct {
		uint64_t requests, errors, read_bytes, write_bytes;
	} own, served;
};

#define IO_LOOK_BYTES 3000u

struct io_thread_stats {
	uint64_t turns;			  /* of its loop */
	struct io_channel_stats channels; /* of all together */
	char look[IO_LOOK_BYTES];	  /* lines, of when they were asked for last (io_look.c) */
	uint32_t disk_count;
	struct io_disk_stats disk[DISKS_MAX];
};

/* Any thread, once the pod runs; all zero where there are no devices. */
void io_stats_get(const struct node *node, struct io_thread_stats *ret_stats);

#endif
