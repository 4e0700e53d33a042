/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What disks and cards must be to each other (pod_devices.h).
 */
#include "node/pod_devices.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node/digest.h"

/* The node that a disk or card names; the first, if it names none. */
static int find_node(const struct pod_config *c, const char *name, uint16_t *ret_node)
{
	*ret_node = name[0] ? pod_config_find(c, name) : 0;
	return *ret_node == NODE_NONE ? -EINVAL : 0;
}

/* One place for writing twice is refused; the file's lock sees what has two names. */
static int check_disk(struct pod_config *c, uint32_t index, char *why, size_t why_size)
{
	struct disk_config *disk = &c->disk[index];
	char detail[256];
	if (disk_config_finish(disk, detail, sizeof(detail)) < 0) {
		snprintf(why, why_size, "[disk %s] %s", disk->name, detail);
		return -EINVAL;
	}
	if (find_node(c, disk->node_name, &disk->node) < 0) {
		snprintf(why, why_size,
			 "[disk %s] node = %s: the pod has no such node; its first is %s",
			 disk->name, disk->node_name, c->node[FIRST_NODE].name);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < index; i++) {
		const struct disk_config *other = &c->disk[i];
		bool same = disk->nbd[0] ? strcmp(other->nbd, disk->nbd) == 0
					 : other->node == disk->node &&
						   strcmp(other->file, disk->file) == 0;
		if (!same || (disk->read_only && other->read_only))
			continue;
		snprintf(why, why_size,
			 "disks %s and %s are both %s: each needs its own, or both are read-only",
			 other->name, disk->name, disk->nbd[0] ? disk->nbd : disk->file);
		return -EINVAL;
	}
	return 0;
}

/* The same at every start of the pod, and another in another pod. */
static void make_mac(const struct pod_config *c, struct net_config *net)
{
	static const uint8_t none[6], ours[] = { 0x52, 0x54, 0x00 };
	if (memcmp(net->mac, none, sizeof(none)) != 0)
		return;
	uint64_t digest = digest_add(DIGEST_BEGIN, c->name, strlen(c->name) + 1);
	digest = digest_add(digest, net->name, strlen(net->name) + 1);
	digest ^= digest >> 32;
	memcpy(net->mac, ours, sizeof(ours));
	memcpy(net->mac + 3, &digest, 3);
}

static int check_net(struct pod_config *c, uint32_t index, char *why, size_t why_size)
{
	struct net_config *net = &c->net[index];
	char detail[256];
	if (net_config_finish(net, detail, sizeof(detail)) < 0) {
		snprintf(why, why_size, "[net %s] %s", net->name, detail);
		return -EINVAL;
	}
	if (find_node(c, net->node_name, &net->node) < 0) {
		snprintf(why, why_size,
			 "[net %s] node = %s: the pod has no such node; its first is %s", net->name,
			 net->node_name, c->node[FIRST_NODE].name);
		return -EINVAL;
	}
	make_mac(c, net);
	for (uint32_t i = 0; i < index; i++) {
		const struct net_config *other = &c->net[i];
		const char *what = NULL;
		if (memcmp(other->mac, net->mac, sizeof(net->mac)) == 0)
			what = "mac";
		else if (net->tap[0] && other->node == net->node &&
			 strcmp(other->tap, net->tap) == 0)
			what = "tap";
		for (uint32_t f = 0; f < net->forward_count && other->node == net->node; f++)
			for (uint32_t g = 0; g < other->forward_count; g++)
				if (net->forward[f].host_port == other->forward[g].host_port &&
				    net->forward[f].udp == other->forward[g].udp &&
				    strcmp(net->forward[f].host, other->forward[g].host) == 0)
					what = "forwarded port";
		if (!what)
			continue;
		snprintf(why, why_size, "cards %s and %s have the same %s: each needs its own",
			 other->name, net->name, what);
		return -EINVAL;
	}
	return 0;
}

int pod_config_add_disk(struct pod_config *config, const struct disk_config *disk, char *why,
			size_t why_size)
{
	if (config->disk_count == DISKS_MAX) {
		snprintf(why, why_size, "a pod has at most %d disks", DISKS_MAX);
		return -EINVAL;
	}
	config->disk[config->disk_count] = *disk;
	int r = check_disk(config, config->disk_count, why, why_size);
	if (!r)
		config->disk_count++;
	return r;
}

int pod_config_add_net(struct pod_config *config, const struct net_config *net, char *why,
		       size_t why_size)
{
	if (config->net_count == NETS_MAX) {
		snprintf(why, why_size, "a pod has at most %d network cards", NETS_MAX);
		return -EINVAL;
	}
	config->net[config->net_count] = *net;
	int r = check_net(config, config->net_count, why, why_size);
	if (!r)
		config->net_count++;
	return r;
}

int pod_devices_check(struct pod_config *config, char *why, size_t why_size)
{
	int r = 0;
	for (uint32_t i = 0; !r && i < config->disk_count; i++)
		r = check_disk(config, i, why, why_size);
	for (uint32_t i = 0; !r && i < config->net_count; i++)
		r = check_net(config, i, why, why_size);
	return r;
}

uint64_t pod_devices_digest(const struct pod_config *config, uint64_t digest)
{
	for (uint32_t i = 0; i < config->disk_count; i++) {
		const struct disk_config *disk = &config->disk[i];
		uint64_t own[] = { disk->node, disk->nbd[0] != 0, disk->read_only,
				   disk->block_bytes };
		digest = digest_add(digest, disk->name, strlen(disk->name) + 1);
		digest = digest_add(digest, disk->serial, strlen(disk->serial) + 1);
		digest = digest_add(digest, own, sizeof(own));
	}
	for (uint32_t i = 0; i < config->net_count; i++) {
		const struct net_config *net = &config->net[i];
		uint64_t own[] = { net->node, net->user };
		digest = digest_add(digest, net->name, strlen(net->name) + 1);
		digest = digest_add(digest, net->mac, sizeof(net->mac));
		digest = digest_add(digest, own, sizeof(own));
	}
	return digest;
}
