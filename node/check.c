/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a node can be on this host, and a pod be as it is configured: before anything is begun. */
#include <errno.h>
#include <stdio.h>

#include "machine/loader.h"
#include "memory/host_memory.h"
#include "memory/uffd_probe.h"
#include "node/io.h"
#include "node/node_state.h"
#include "node/policy_state.h"
#include "node/status_socket.h"

/* Besides the guest's pages and links: seats and the engine, devices. */
static uint64_t may_bytes(const struct node_options *options, uint32_t n)
{
	const struct pod_config *config = options->config;
	uint32_t seats = config->vcpu_count <= NODE_VCPUS_MAX ? config->vcpu_count
							      : config->node[n].vcpu_count;
	return options->engine->kept_bytes(seats, config->memory) +
	       seats * (uint64_t)NODE_SEAT_BYTES + io_kept_bytes(config, n);
}

static int check_memory(const struct node_options *options, bool once, char *why, size_t why_size)
{
	const struct pod_config *config = options->config;
	struct host_memory_need need = { 0 };
	struct host_memory memory;
	for (uint32_t n = 0; n < pod_config_numbers(config); n++) {
		if (n != options->self && (!options->all_here || n >= config->node_count))
			continue;
		need.promised +=
			options->joins ? options->joins->own.memory : config->node[n].memory;
		need.kept +=
			mesh_kept_bytes(pod_config_numbers(config), config->shard_count,
					pod_config_has_io(config), pod_config_encrypts(config));
		need.may += may_bytes(options, n);
		need.mapped += config->memory;
	}
	host_memory_probe("", &memory);
	int r = host_memory_check(&memory, &need, why, why_size);
	if (!r && why[0] && once)
		options->warn(options->context, why);
	if (!r)
		why[0] = '\0'; /* it is no reason for what may fail later */
	return r;
}

int check_host(const struct node_options *options, bool once, struct engine_features *ret_features,
	       struct memory_map *ret_map, char *why, size_t why_size)
{
	uint64_t memory = options->config->memory;
	struct uffd_probe uffd;
	int r = 0;
	if (options->guest) {
		const struct node_file *file = &options->guest->kernel;
		struct loader_file kernel = { file->name, file->data, file->size };
		r = loader_check(&kernel, why, why_size);
	}
	if (!r)
		r = uffd_probe(&uffd, why, why_size);
	if (!r)
		r = check_memory(options, once, why, why_size);
	if (!r && options->config->policy_state[0])
		r = policy_state_check(options->config->policy_state, why, why_size);
	if (!r)
		r = options->engine->probe(ret_features, why, why_size);
	if (r < 0)
		return r;
	r = memory_map_build(memory, ret_map);
	if (r < 0)
		snprintf(why, why_size, "%lluM of guest memory cannot be laid out",
			 (unsigned long long)(memory >> 20));
	return r;
}

int node_check(const struct node_options *options, char *why, size_t why_size)
{
	static struct engine_features features;
	struct memory_map map;
	int r = check_host(options, true, &features, &map, why, why_size);
	return r ? r : io_check(options, why, why_size);
}

/* Before anything else, because it shows only when all the work of the start is done. */
static int check_names(const struct node *node, char *why, size_t why_size)
{
	const char *pod = node->config->name, *name = members_name(node->members, node->self);
	size_t excess = status_socket_excess(pod, name);
	char dir[64];
	if (!excess)
		return 0;
	status_socket_dir(dir, sizeof(dir));
	snprintf(why, why_size,
		 "pod '%s' and node '%s': their names are %zu bytes too long for a socket in %s: "
		 "give one of them a shorter name",
		 pod, name, excess, dir);
	return -ENAMETOOLONG;
}

static int check_links(const struct node *node, char *why, size_t why_size)
{
	if (!pod_config_is_insecure(node->config) || node->config->insecure)
		return 0;
	snprintf(why, why_size,
		 "%s, so the links between this pod's hosts would not be encrypted: make a secret "
		 "by 'eagre secret FILE' and set secret_file in [pod]; or, where nobody else is on "
		 "that network, set insecure = yes or give --insecure",
		 node->config->secret_size ? "encrypt = no" : "the pod has no secret");
	return -EPERM;
}

int check_pod(const struct node *node, char *why, size_t why_size)
{
	int r = check_names(node, why, why_size);
	return r ? r : check_links(node, why, why_size);
}
