/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's configuration: which nodes, where, how much memory and how many vCPUs each.
 *
 * Every node of a pod is given the same file; the handshake compares digests, so that nodes with
 * different ideas of the pod refuse each other. The format is INI:
 *
 *	[pod]
 *	name = demo          ; the pod's name, in messages and sockets
 *	memory = 14G         ; guest memory; without it MEMORY_SHARE of the sum that is promised
 *	shards = 1           ; instances of the page protocol a node, each with its own thread
 *	spin = auto          ; auto | off: whether protocol threads may spin
 *	numa = no            ; yes: nodes are NUMA nodes of the guest
 *	policy = pages       ; where vCPUs go: pages | vcpus | base | learned | pinned
 *	policy_state = PATH  ; a file on each host that keeps what was learned for the next start
 *	secret = WORDS       ; without it whoever reaches a node's port may take part
 *	secret_file = PATH   ; ... or a file on each host that holds it, for its owner's eyes only
 *	nodes_max = N        ; so many nodes there may be when others join; without it nobody joins
 *	encrypt = yes        ; links, where there is a secret; no: nodes only prove that they know it
 *
 *	[node alpha]         ; nodes in the order of the file; the first loads the guest
 *	address = 10.0.0.1:7700
 *	memory = 8G          ; promised: this node's pages of the guest never take more
 *	vcpus = 4            ; that begin there
 *	cores = 4            ; that its vCPUs use; without it those that the host lets it use
 *
 *	[disk root]          ; the guest's disks and network cards: device_config.h
 *	[net lan]
 */
#ifndef NODE_POD_CONFIG_H
#define NODE_POD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "core/placement.h"
#include "node/device_config.h"
#include "node/policy_state.h"

#define ADDRESS_MAX    128
#define POD_SECRET_MAX 128 /* bytes; at least POD_SECRET_MIN */
#define POD_SECRET_MIN 16

/* Guest memory is at most this share of the promised memory: the page protocol needs room to move.
 */
#define MEMORY_SHARE_PERCENT 90u
#define NODE_VCPUS_MAX	     240u /* what a node's pager serves (PAGER_ACTORS_MAX), less its ports */
#define CORES_OF_HOST	     UINT32_MAX
#define CORES_MAX	     4096

struct node_config {
	char name[NODE_NAME_MAX];
	char address[ADDRESS_MAX]; /* host:port, [v6]:port */
	uint64_t memory;	   /* bytes promised, a multiple of CHUNK_BYTES */
	uint32_t vcpu_count;
	uint32_t vcpu_first; /* number of its first vCPU, derived */
	uint32_t cores;	     /* CORES_OF_HOST: not said */
};

/* Of the file: it has all seats when the pod starts (members.h), so it is given the guest. */
#define FIRST_NODE 0

struct pod_config {
	char name[POD_NAME_MAX];
	uint64_t memory; /* of the guest, a multiple of CHUNK_BYTES */
	uint32_t shard_count;
	bool spin;
	bool numa;
	enum placement_policy policy;	      /* to begin with */
	char policy_state[POLICY_STATE_PATH]; /* "": none; each host's own, so not in the digest */
	bool encrypt;			      /* pod_config_encrypts() */
	bool must_encrypt;		      /* the file says so */
	bool insecure; /* it, or the user, asks for links that are not encrypted; each host's own */
	uint32_t secret_size;
	uint8_t secret[POD_SECRET_MAX];
	bool secret_exposed; /* it stands in a file that is not for its owner's eyes only */
	char secret_file[ADDRESS_MAX]; /* pod_config_read() has read it into secret */
	uint32_t node_count, vcpu_count;
	uint32_t number_count;	       /* nodes_max, or node_count: nodes' numbers are below it */
	uint16_t vcpu_node[VCPUS_MAX]; /* derived; NODE_NONE beyond vcpu_count */
	struct node_config node[NODES_MAX];
	uint32_t disk_count, net_count;
	struct disk_config disk[DISKS_MAX];
	struct net_config net[NETS_MAX];
};

/*
 * Reads and checks a file. 0, or -errno with one line in `why` that names the key and the remedy.
 * `ret_config` is untouched on failure; free with free().
 */
int pod_config_read(const char *path, struct pod_config **ret_config, char *why, size_t why_size);
/* The same from text; `source` names it in errors. */
int pod_config_parse(const char *text, const char *source, struct pod_config **ret_config,
		     char *why, size_t why_size);
/*
 * One more disk or card, as the command line has it. 0, or -EINVAL with one line in `why`: there are
 * too many, or it does not go together with the others.
 */
int pod_config_add_disk(struct pod_config *config, const struct disk_config *disk, char *why,
			size_t why_size);
int pod_config_add_net(struct pod_config *config, const struct net_config *net, char *why,
		       size_t why_size);
/* Digest of everything that nodes must agree on. */
uint64_t pod_config_digest(const struct pod_config *config);
/*
 * All that the digest is of, as a text that pod_config_parse() takes: who joins reads it. malloc'd; NULL:
 * no memory. The secret is not in it.
 */
char *pod_config_print(const struct pod_config *config);
/* Number of the node with this name, or NODE_NONE. */
uint16_t pod_config_find(const struct pod_config *config, const char *name);
/* The node on which vCPU `number` starts. */
uint16_t pod_config_vcpu_node(const struct pod_config *config, uint32_t number);
/* Are there disks or cards? Then all nodes have io channels, and io threads. */
static inline bool pod_config_has_io(const struct pod_config *config)
{
	return config->disk_count + config->net_count > 0;
}
/* Whether hosts may join while the guest runs. */
static inline bool pod_config_grows(const struct pod_config *config)
{
	return config->number_count > config->node_count;
}
/* The number space. */
static inline uint16_t pod_config_numbers(const struct pod_config *config)
{
	return (uint16_t)(pod_config_grows(config) ? config->number_count : config->node_count);
}
/* Whether nodes encrypt their links. */
static inline bool pod_config_encrypts(const struct pod_config *config)
{
	return config->encrypt && config->secret_size > 0;
}
/* All nodes are on this host: who can read or change what is sent can do it to the processes. */
bool pod_config_is_on_loopback(const struct pod_config *config);
/* Its links are not encrypted, and not only on this host: that must be asked for. */
static inline bool pod_config_is_insecure(const struct pod_config *config)
{
	return config->node_count > 1 && !pod_config_encrypts(config) &&
	       !pod_config_is_on_loopback(config);
}
/* The policies that there are, as words to choose from. */
void pod_config_policies(char *text, size_t size);
/* "512M", "4G", "1048576": bytes. -EINVAL, or -ERANGE beyond 64 TiB. */
int size_parse(const char *text, uint64_t *ret_bytes);

#endif
