/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the user says about the guest's disks and network cards, in the pod's configuration
 * (pod_config.h has the whole of it) and on the command line:
 *
 *	[disk root]                       ; of a guest, in the order of the file
 *	node = beta                       ; where it is; without it, on the first node
 *	file = /srv/root.img              ; a file or block device there, or
 *	nbd = nbd://10.0.0.9/root         ; ... what an NBD server serves
 *	read_only = no
 *	serial = root                     ; the guest sees it; without it the disk's name
 *	block_size = 512                  ; without it the device's own, of a file 512
 *	cache = none                      ; none | writeback | writethrough: of the host
 *	timeout = 60                      ; nbd: s without the server, until the guest gets errors
 *
 *	[net lan]
 *	node = alpha
 *	tap = tap0                        ; a tap device there, or
 *	bridge = br0                      ; ... one that the node makes, and puts on that bridge, or
 *	user = yes                        ; ... a network of the process's own, behind its addresses
 *	forward = 2222:22 127.0.0.1:8080:80 udp:53:53      ; user: ports of that host to the guest's
 *	mac = 52:54:00:12:34:56
 *
 *	--disk FILE,ro,serial=root        --net user,forward=2222:22      --net tap=tap0,bridge=br0
 */
#ifndef NODE_DEVICE_CONFIG_H
#define NODE_DEVICE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/disk.h"
#include "backend/file.h"
#include "core/limits.h"

#define DISKS_MAX	 16
#define NETS_MAX	 8
#define DEVICE_NAME_MAX	 32
#define DEVICE_PATH_MAX	 256
#define TAP_NAME_MAX	 16 /* IFNAMSIZ */
#define FORWARDS_MAX	 16
#define FORWARD_HOST_MAX 16 /* an IPv4 address */

struct disk_config {
	char name[DEVICE_NAME_MAX];
	char node_name[NODE_NAME_MAX];			  /* as said; "": the first */
	uint16_t node;					  /* pod_config.c makes it of that */
	char file[DEVICE_PATH_MAX], nbd[DEVICE_PATH_MAX]; /* one of them is "" */
	bool read_only;
	char serial[DISK_SERIAL_MAX + 1];
	uint32_t block_bytes; /* 0: not said */
	enum disk_cache cache;
	uint32_t timeout_s;
	uint32_t said; /* keys, a bit each */
};

struct net_forward {
	bool udp;
	char host[FORWARD_HOST_MAX]; /* of the node's host */
	uint16_t host_port, guest_port;
};

struct net_config {
	char name[DEVICE_NAME_MAX];
	char node_name[NODE_NAME_MAX];
	uint16_t node;
	bool user;
	char tap[TAP_NAME_MAX];	   /* "": user */
	char bridge[TAP_NAME_MAX]; /* "": the tap is there */
	uint32_t forward_count;
	struct net_forward forward[FORWARDS_MAX];
	uint8_t mac[6]; /* not said: made of the pod's name and its own */
	uint32_t said;
};

/* With all that is not said at its default. */
void disk_config_begin(struct disk_config *disk, const char *name);
void net_config_begin(struct net_config *net, const char *name);

/* A key of its section. 0; -ENOENT: there is none of that name; -EINVAL with `why`: what is wrong
 * with it, to follow "KEY = VALUE: ". */
int disk_config_set(struct disk_config *disk, const char *key, const char *value, char *why,
		    size_t why_size);
int net_config_set(struct net_config *net, const char *key, const char *value, char *why,
		   size_t why_size);
/* The keys that there are, as "node, file and nbd". */
extern const char disk_config_keys[], net_config_keys[];

/* All has been said: is it enough, and does it go together? 0, or -EINVAL with `why`. */
int disk_config_finish(struct disk_config *disk, char *why, size_t why_size);
int net_config_finish(struct net_config *net, char *why, size_t why_size);

/* The words behind --disk and --net. -EINVAL with `why`. "none" gives -ENODEV: no card. */
int disk_config_parse(const char *words, const char *name, struct disk_config *ret_disk, char *why,
		      size_t why_size);
int net_config_parse(const char *words, const char *name, struct net_config *ret_net, char *why,
		     size_t why_size);

#endif
