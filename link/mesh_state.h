/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mesh's state, for mesh.c and the files of its bring-up (bring_up.h). Inside link/ only.
 *
 * A connection is either dialled by us (to a lower number) or accepted (from a higher number, or
 * from anybody):
 *
 *   dialled:   IDLE -> CONNECTING -> READ_REPLY -> UP
 *               ^---------(retry)--------|---------|
 *   accepted:  FREE -> READ_HELLO -> READ_PROOF -> UP
 *               ^            `----> DRAIN   refused: what it sends is thrown away, so that our
 *               ^                     |     answer arrives
 *               ^---------------------'
 *
 * An UP connection is watched for its end only; not a byte of what follows the handshake is read
 * here, but for a last END. A control connection is a control channel as soon as it is UP, and the
 * heartbeats on it are counted, unread. The dialled ones have fixed places, one for each lower node
 * and purpose; the others are a bounded pool.
 */
#ifndef LINK_MESH_STATE_H
#define LINK_MESH_STATE_H

#include <stdatomic.h>

#include "link/address.h"
#include "link/mesh.h"
#include "wire/handshake.h"

enum mesh_connection_state {
	CONNECTION_IDLE = 0, /* or FREE */
	CONNECTION_CONNECTING,
	CONNECTION_READ_REPLY,
	CONNECTION_READ_HELLO,
	CONNECTION_READ_PROOF,
	CONNECTION_DRAIN,
	CONNECTION_UP,
};

struct mesh_connection {
	enum mesh_connection_state state;
	int fd;		      /* -1: none */
	uint16_t node;	      /* accepted: NODE_NONE until its hello is accepted */
	uint16_t purpose;     /* HANDSHAKE_CONTROL, HANDSHAKE_SHARD(k) */
	uint16_t got;	      /* bytes in buffer, or in proof */
	uint64_t deadline_ns; /* IDLE: dial then; else give up then */
	uint64_t backoff_ns;
	struct address from;		 /* accepted: of the other side */
	uint8_t buffer[HANDSHAKE_BYTES]; /* their hello; thrown away in DRAIN */
	uint8_t sent[HANDSHAKE_BYTES];	 /* our hello */
	uint8_t proof[HANDSHAKE_PROOF_BYTES];
};

struct mesh_peer {
	char name[NODE_NAME_MAX];
	struct address address;
	uint64_t incarnation;	   /* of the process that our links go to; 0: none stands */
	uint32_t up_count;	   /* links that stand */
	uint64_t refused_quiet_ns; /* no line on a refusal before */
	uint64_t said_ns;	   /* since then said_count lines on its coming and going */
	uint32_t said_count;
	/* While the mesh comes up; 0: not. */
	uint64_t heard_ns;  /* linked: when more of its words had come */
	int unread;	    /* bytes of them */
	uint64_t silent_ns; /* it took a connection then, and has said nothing since */
	uint64_t ending_ns; /* a link of it has ended; its last word is waited for till then */
	uint64_t gone_ns;   /* it was linked and is not; it may come back till then */
	struct mesh_connection *up[HANDSHAKE_PURPOSE_MAX];
	char trouble[MESH_WHY_MAX]; /* the last thing that went wrong with it */

	struct control_channel *control;
	struct page_channel *pages[SHARDS_MAX];
	atomic_bool down; /* set once, by mesh_down() */
};

/* Connections that are none of ours, by what they did; said once in a while only. */
enum mesh_stranger {
	MESH_STRANGER_FOREIGN,
	MESH_STRANGER_GONE,
	MESH_STRANGER_REPLAY,
	MESH_STRANGER_SLOW,
	MESH_STRANGER_CROWD,
	MESH_STRANGER_KINDS,
};

struct mesh {
	struct mesh_config config; /* pointers in it: not used after create, but for callbacks */
	char pod_name[POD_NAME_MAX];
	uint8_t secret[MESH_SECRET_MAX];
	uint64_t incarnation;
	int listener, epoll;
	bool complete; /* bring-up is over */

	struct mesh_connection *connection;
	uint32_t dialled_count, connection_count;
	uint32_t up_count, up_wanted; /* links of all peers */
	struct {
		uint64_t quiet_ns; /* nothing is said before */
		uint32_t unsaid;
	} stranger[MESH_STRANGER_KINDS];
	uint64_t refused_quiet_ns; /* the same for numbers that are not in the pod */
	uint64_t waiting_ns;	   /* when to say next who is waited for */
	uint64_t beat_ns;	   /* when the next heartbeats of the bring-up are due */
	uint64_t looked_ns;	   /* when peers were last judged */
	char *why;		   /* of the call under way */
	size_t why_size;

	struct mesh_peer peer[]; /* config.node_count */
};

uint64_t mesh_now_ns(void);
uint32_t mesh_purposes(const struct mesh *mesh);
void mesh_progress(struct mesh *mesh, enum mesh_event event, uint16_t node, const char *text);

#endif
