/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mesh: every node linked with every other, by a control channel, a page channel a shard and,
 * where the pod has disks or network cards, an io channel.
 *
 *      mesh_create()    check the config, listen on this node's own address
 *      mesh_bring_up()  blocks: the higher number dials, both sides shake hands (wire/handshake.h),
 *                       until all links stand, the deadline passes, cancel_fd is readable, or a
 *                       node that was there is lost
 *      channels         in use by shard threads and the control thread
 *      mesh_expect()    a number that was free is somebody's, who joins while the pod runs: it
 *                       dials all, and mesh_poll() makes its links (config.linked says when)
 *      mesh_forget()    its links end, and its number is free
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
 * Who joins says with each link what the pod has given it for that (config.join), so that one which
 * comes late is not taken for the next by its number. It brings up its mesh as others do, but dials
 * all members. Until all its links stand a member has no more of it than these, and what becomes of
 * them ends nothing: it may try again, until it is forgotten.
 *
 * A node proves itself by the pod's secret, when it connects. With config.encrypt it does so by TLS
 * 1.3 (link/tls.h), and all that is said on a link is sealed and secret; without, what follows the
 * handshake is neither.
 */
#ifndef LINK_MESH_H
#define LINK_MESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "link/channel.h"
#include "link/control.h"
#include "link/io_channel.h"

#define MESH_WHY_MAX	 512 /* one line for the user */
#define MESH_SECRET_MAX	 128
#define MESH_ADDRESS_MAX 64 /* "10.0.0.3:7000", "[fe80::1%eth0]:7000" */

struct mesh_node {
	const char *name;    /* shorter than NODE_NAME_MAX; NULL: this number is free */
	const char *address; /* IPv4 or [IPv6], and port; a host name is resolved once */
};

enum mesh_event {
	MESH_WAITING,	/* for `node`: not heard of yet */
	MESH_CONNECTED, /* all links to `node` stand */
	MESH_REFUSED,	/* somebody was refused: text is the line */
	MESH_DROPPED,	/* no Eagre node connected, or a link broke during bring-up: text */
};

struct token_name;

struct mesh_config {
	const char *pod_name;
	uint16_t self;
	uint16_t node_count;	      /* 1..NODES_MAX, with numbers that are free */
	const struct mesh_node *node; /* node_count of them */
	uint16_t shard_count;	      /* 1..SHARDS_MAX */
	bool io;		      /* there are io channels; all nodes say the same */
	const void *secret;	/* of the pod, copied; without it (size 0) hellos prove nothing */
	size_t secret_size;	/* to MESH_SECRET_MAX */
	bool encrypt;		/* links, by a key from the secret; all nodes say the same */
	bool kernel_tls;	/* by the kernel, where it can (kTLS) */
	uint64_t config_digest; /* of everything in the pod's config that nodes must agree on */
	uint32_t capabilities;	/* HANDSHAKE_CAP_*: what this build and run must have in common */
	uint64_t join;		/* not 0: this node joins a pod that runs, and was given this */
	bool again; /* this node was linked a moment ago: who takes it to be so still is asked again */
	uint32_t timeout_ms;	   /* of mesh_bring_up(); 0: 60 s */
	uint32_t handshake_ms;	   /* for one connection; 0: 10 s */
	uint32_t socket_buffer;	   /* SO_SNDBUF, SO_RCVBUF (tests); 0: the kernel's own sizing */
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
	/* During mesh_poll(): all links with a node that was expected stand. May be NULL. */
	void (*linked)(void *ctx, uint16_t node);
	/*
	 * During mesh_poll(), where links are encrypted: somebody has shown a token of this pod, and
	 * asks to join. The channel is the callee's, who destroys it before the mesh; its other side
	 * knows nothing yet. The token is used by that; NULL: no tokens are taken.
	 */
	void (*asked)(void *ctx, const struct token_name *token, struct control_channel *channel);
	/* The time of day, in seconds since 1970; with `asked`. */
	uint64_t (*date_s)(void *ctx);
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

/* After bring-up. The mesh owns them. NULL for self, and for who is not linked. */
struct control_channel *mesh_control(struct mesh *mesh, uint16_t node);
struct page_channel *mesh_pages(struct mesh *mesh, uint16_t node, uint16_t shard);
struct io_channel *mesh_io(struct mesh *mesh, uint16_t node); /* NULL also without config.io */

/*
 * Says this to all nodes that are linked, to `last` (or NODE_NONE) after all others; also when the
 * bring-up has failed. For last words: what cannot be sent is not.
 */
void mesh_tell(struct mesh *mesh, const struct control_message *msg, uint16_t last);
/* No more words to anybody: control channels are shut down in order. */
void mesh_shutdown(struct mesh *mesh);

/*
 * After bring-up, from mesh_poll()'s thread: `number`, which is free, is to be linked with by a node
 * of this name and address (numbers, no host name), which says `join` (not 0). 0; -EEXIST: it is not
 * free; -EINVAL, with `why`: anything else is wrong.
 */
int mesh_expect(struct mesh *mesh, uint16_t number, const struct mesh_node *node, uint64_t join,
		char *why, size_t why_size);
/* From the same thread: another member has taken in who has this token. */
void mesh_token_used(struct mesh *mesh, const struct token_name *token);
/*
 * From the same thread: closes all links with it, if there are any, and the number is free. Nobody
 * uses its channels any more, or names it to this mesh, nor is in mesh_tell() or mesh_shutdown().
 */
void mesh_forget(struct mesh *mesh, uint16_t number);

/*
 * A link to `node` is of no more use: error (negative errno) from a channel, or text (or NULL) if
 * there is more to say. Any thread. Calls config.down with one line, e.g. "node 2
 * (beta, 10.0.0.3:7000) is gone: it closed the link" at the first call for that node, and does
 * nothing at later ones. Returns whether it was the first.
 */
bool mesh_down(struct mesh *mesh, uint16_t node, int error, const char *text);

/*
 * Latecomers: readable when somebody connects after bring-up (who is expected, a second node of the
 * same number, a scanner). mesh_poll() answers, links or drops them without ever blocking; any one
 * thread, every second and at the fd. It does one thing a call, one step of one handshake say, and
 * the fd stays readable while there is more.
 */
int mesh_fd(const struct mesh *mesh);
void mesh_poll(struct mesh *mesh);

/* Bytes that the links of a node may keep resident, beyond what is under way on them. */
uint64_t mesh_kept_bytes(uint32_t node_count, uint32_t shard_count, bool io, bool encrypt);

/* "node 2 (beta, 10.0.0.3:7000)", in buf. */
const char *mesh_describe(const struct mesh *mesh, uint16_t node, char *buf, size_t size);

/* Closes everything. Control channels are first shut down in order and given up to 200 ms to drain,
 * so that an END sent just before arrives. NULL is fine. */
void mesh_destroy(struct mesh *mesh);

#endif
