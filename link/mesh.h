/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mesh: every node linked with every other, by a control channel and a page channel a shard.
 *
 *      mesh_create()    check the config, listen on this node's own address
 *      mesh_bring_up()  blocks: the higher number dials, both sides shake hands (wire/handshake.h),
 *                       until all links stand, the deadline passes, cancel_fd is readable, or a
 *                       node that was there is lost
 *      channels         in use by shard threads and the control thread
 *      mesh_down()      whoever sees a link fail says so; the first word on a node
 *                       is reported, once
 *      mesh_destroy()   closes all
 *
 * A peer that is refused for good (other version, pod, config, ...) makes the dialling side fail
 * with one line; the side that refused notes the same line through `progress` and waits on until
 * its deadline: a stray node must not end a pod that it does not belong to. What is no handshake
 * (scanners, garbage, silence) is dropped after `handshake_ms` at most, and noted.
 *
 * A node that has linked sends heartbeats, and is missed by the others when it falls silent, ends
 * and does not come back, or takes connections without a word: they do not wait for it until the
 * deadline. Its END, if it says one, is the reason.
 *
 * A node proves itself by the pod's secret, when it connects; what follows is neither sealed nor
 * secret: run a pod on a network where nobody else can listen or change what is sent.
 */
#ifndef LINK_MESH_H
#define LINK_MESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "link/channel.h"
#include "link/control.h"

#define MESH_WHY_MAX	 512 /* one line for the user */
#define MESH_SECRET_MAX	 128
#define MESH_ADDRESS_MAX 64 /* "10.0.0.3:7000", "[fe80::1%eth0]:7000" */

struct mesh_node {
	const char *name;    /* shorter than NODE_NAME_MAX */
	const char *address; /* IPv4 or [IPv6], and port; a host name is resolved once */
};

enum mesh_event {
	MESH_WAITING,	/* for `node`: not heard of yet */
	MESH_CONNECTED, /* all links to `node` stand */
	MESH_REFUSED,	/* somebody was refused: text is the line */
	MESH_DROPPED,	/* no Eagre node connected, or a link broke during bring-up: text */
};

struct mesh_config {
	const char *pod_name;
	uint16_t self;
	uint16_t node_count;	      /* 1..NODES_MAX */
	const struct mesh_node *node; /* node_count of them */
	uint16_t shard_count;	      /* 1..SHARDS_MAX */
	const void *secret;	/* of the pod, copied; without it (size 0) hellos prove nothing */
	size_t secret_size;	/* to MESH_SECRET_MAX */
	uint64_t config_digest; /* of everything in the pod's config that nodes must agree on */
	uint32_t capabilities;	/* HANDSHAKE_CAP_*: what this build and run must have in common */
	uint32_t timeout_ms;	/* of mesh_bring_up(); 0: 60 s */
	uint32_t handshake_ms;	/* for one connection; 0: 10 s */
	uint32_t socket_buffer; /* SO_SNDBUF, SO_RCVBUF (tests); 0: the kernel's own sizing */
	uint32_t page_queue_bytes; /* bound of a page channel's send queue; 0: 64 MiB, virtual */

	/* During mesh_bring_up() and mesh_poll(), from their thread: at changes, and MESH_WAITING
	 * again every 2 s. node may be NODE_NONE (a stranger). May be NULL. */
	void (*progress)(void *ctx, enum mesh_event event, uint16_t node, const char *text);
	/*
	 * After it, once a node, from the thread that called mesh_down(), which may be a shard's or
	 * the control thread: it must not wait for anything. cause: one line, valid during the
	 * call.
	 */
	void (*down)(void *ctx, uint16_t node, const char *cause);
	/* During mesh_bring_up(): a node said END, which ends the bring-up. May be NULL. */
	void (*ended)(void *ctx, const struct control_end *end);
	void *ctx;
};

struct mesh;

/*
 * Checks the config and listens. The config and what it points to are copied. On failure `why` says
 * what is wrong and what to do: -EINVAL config, -EADDRINUSE port in use, -EADDRNOTAVAIL address not
 * of this host, -EACCES, -ENOMEM, ...
 */
int mesh_create(const struct mesh_config *config, struct mesh **ret_mesh, char *why,
		size_t why_size);

/*
 * Brings up all links. 0, or with `why`: -ETIMEDOUT (names who is missing, and the last thing that
 * went wrong with it), -ECONNREFUSED (a peer refused us, or we it: versions, pod, config...),
 * -ECANCELED (cancel_fd, which may be -1, became readable), -ECONNABORTED (a node was lost, or said
 * END). Call once.
 */
int mesh_bring_up(struct mesh *mesh, int cancel_fd, char *why, size_t why_size);

/* After bring-up. The mesh owns them. NULL for self. */
struct control_channel *mesh_control(struct mesh *mesh, uint16_t node);
struct page_channel *mesh_pages(struct mesh *mesh, uint16_t node, uint16_t shard);

/*
 * Says this to all nodes that are linked, to `last` (or NODE_NONE) after all others; also when the
 * bring-up has failed. For last words: what cannot be sent is not.
 */
void mesh_tell(struct mesh *mesh, const struct control_message *msg, uint16_t last);
/* No more words to anybody: control channels are shut down in order. */
void mesh_shutdown(struct mesh *mesh);

/*
 * A link to `node` is of no more use: error (negative errno) from a channel, or text (or NULL) if
 * there is more to say. Any thread. Calls config.down with one line, e.g. "node 2
 * (beta, 10.0.0.3:7000) is gone: it closed the link" at the first call for that node, and does
 * nothing at later ones. Returns whether it was the first.
 */
bool mesh_down(struct mesh *mesh, uint16_t node, int error, const char *text);

/*
 * Latecomers: readable when somebody connects after bring-up (a second node of the same number, a
 * scanner). mesh_poll() answers or drops them without ever blocking; any one thread, say every
 * second or at the fd.
 */
int mesh_fd(const struct mesh *mesh);
void mesh_poll(struct mesh *mesh);

/* Bytes that the links of a node may keep resident, beyond what is under way on them. */
uint64_t mesh_kept_bytes(uint32_t node_count, uint32_t shard_count);

/* "node 2 (beta, 10.0.0.3:7000)", in buf. */
const char *mesh_describe(const struct mesh *mesh, uint16_t node, char *buf, size_t size);

/* Closes everything. Control channels are first shut down in order and given up to 200 ms to drain,
 * so that an END sent just before arrives. NULL is fine. */
void mesh_destroy(struct mesh *mesh);

#endif
