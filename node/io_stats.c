/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node's io thread has done (io_stats.h).
 */
#include "node/io_stats.h"

#include "node/disk_service.h"
#include "node/io_state.h"
#include "node/node_state.h"

static void add_channel(struct io_channel_stats *sum, struct io_channel *channel)
{
	struct io_channel_stats one;
	/* A pod with nothing but a balloon has none. */
	if (!channel)
		return;
	io_stats(channel, &one);
	sum->messages_out += one.messages_out;
	sum->messages_in += one.messages_in;
	sum->bytes_out += one.bytes_out;
	sum->bytes_in += one.bytes_in;
	sum->bytes_copied += one.bytes_copied;
	sum->sends += one.sends;
	sum->receives += one.receives;
}

static void get_disk(const struct io_device *device, struct io_disk_stats *ret)
{
	const struct disk_counts *own = &device->disk_counts;
	*ret = (struct io_disk_stats){ .name = device->io->node->config->disk[device->number].name,
				       .node = device->node,
				       .own = { .requests = own->requests,
						.errors = own->errors,
						.read_bytes = own->read_bytes,
						.write_bytes = own->write_bytes } };
	members_for_each_other(device->io->node->members, n) {
		const struct disk_service *service = device->service[n];
		if (!service)
			continue;
		const struct disk_counts *one = disk_service_counts(service);
		ret->served.requests += one->requests;
		ret->served.errors += one->errors;
		ret->served.read_bytes += one->read_bytes;
		ret->served.write_bytes += one->write_bytes;
	}
}

void io_stats_get(const struct node *node, struct io_thread_stats *ret_stats)
{
	struct io *io = node->virtio;
	*ret_stats = (struct io_thread_stats){ 0 };
	if (!io)
		return;
	ret_stats->turns = io->turns;
	io_look_get(io, ret_stats->look);
	members_for_each_other(node->members, n)
		add_channel(&ret_stats->channels, mesh_io(node->mesh, n));
	/* Disks are the first in the pod's list. */
	ret_stats->disk_count = node->config->disk_count;
	for (uint32_t i = 0; i < node->config->disk_count; i++)
		get_disk(&io->device[i], &ret_stats->disk[i]);
}
