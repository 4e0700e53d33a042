/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mesh's state, for mesh.c and the files of its bring-up (bring_up.h). Inside link/ only.
 *
 * A connection is either dialled by us (to a lower number; by who joins, to all) or accepted (from a
 * higher number, from who joins, or from anybody):
 *
 *   dialled:   IDLE -> CONNECTING -> (SECURE) -> READ_REPLY -> UP
 *               ^----------------(retry)--------------|--------|
 *   accepted:  FREE -> (SECURE) -> READ_HELLO -> READ_PROOF -> UP
 *               ^          `-----------`----> DRAIN   refused: what it sends is thrown away, so
 *               ^                               |     that our answer arrives
 *               ^-------------------------------'
 *
 * SECURE is where links are encrypted: the handshake of TLS, before anything else is said.
 *
 * An UP connection is watched for its end only; not a byte of what follows the handshake is read
 * here, but for a last END. A control connection is a control channel as soon as it is UP, and the
 * heartbeats on it are counted, unread. The dialled ones have fixed places, one for each node and
 * purpose; the others are a bounded pool.
 */
#ifndef LINK_MESH_STATE_H
#define LINK_MESH_STATE_H

#include <assert.h>
#include <stdatomic.h>

#include "link/address.h"
#include "link/mesh.h"
#include "link/stream.h"
#include "wire/handshake.h"
#include "wire/token.h"

/*
 * In the pool of accepted connections, for strangers; all that there are once the mesh is complete,
 * also for the links of who joins, until all of its stand: strangers give way to it.
 */
#define SPARE_PLACES 64u
static_assert(SPARE_PLACES > 2 * HANDSHAKE_PURPOSE_MAX);

enum mesh_connection_state {
	CONNECTION_IDLE = 0, /* or FREE */
	CONNECTION_CONNECTING,
	CONNECTION_SECURE,
	CONNECTION_READ_REPLY,
	CONNECTION_READ_HELLO,
	CONNECTION_READ_PROOF,
	CONNECTION_DRAIN,
	CONNECTION_UP,
};

struct mesh_connection {
	enum mesh_connection_state state;
	struct stream stream;
	bool secured;  /* TLS has proven that both know the secret, or a token's key */
	bool by_token; /* accepted: it is the token's, and good to ask to join alone */
	struct token_name token;
	uint16_t node;	      /* accepted: NODE_NONE until its hello is accepted */
	uint16_t purpose;     /* HANDSHAKE_CONTROL, HANDSHAKE_SHARD(k), HANDSHAKE_IO */
	uint16_t got;	      /* bytes in buffer, or in proof */
	uint64_t deadline_ns; /* IDLE: dial then; else give up then */
	uint64_t backoff_ns;
	struct address from;		 /* accepted: of the other side */
	uint8_t buffer[HANDSHAKE_BYTES]; /* their hello; thrown away in DRAIN */
	uint8_t sent[HANDSHAKE_BYTES];	 /* our hello */
	uint8_t proof[HANDSHAKE_PROOF_BYTES];
};

/* Lines about the same: the longer they go on, the rarer (bring_up.h). */
struct mesh_quiet {
	uint64_t until_ns; /* nothing is said before */
	uint64_t for_ns;   /* how long it was before that */
	uint32_t unsaid;
};

struct mesh_peer {
	char name[NODE_NAME_MAX];
	struct address address;
	bool known;	      /* else the number is free */
	bool dialled;	      /* by us; else it dials us */
	uint64_t join;	      /* not 0: it came, or is to come, when the pod ran, and says this */
	atomic_bool linked;   /* its channels are there for all threads */
	uint64_t incarnation; /* of the process that our links go to; 0: none stands */
	uint32_t up_count;    /* links that stand */
	struct mesh_quiet refused;
	uint64_t said_ns; /* since then said_count lines on its coming and going */
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
	struct io_channel *io;
	atomic_bool down; /* set once, by mesh_down() */
};

/* Connections that are none of ours, by what they did; said once in a while only. */
enum mesh_stranger {
	MESH_STRANGER_FOREIGN,
	MESH_STRANGER_OLD_TLS,
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
	struct tls_keys *keys; /* NULL: links are not encrypted */
	uint64_t incarnation;
	int listener, epoll;
	bool complete; /* bring-up is over */

	struct mesh_connection *connection;
	uint32_t dialled_count, connection_count;
	uint32_t up_count, up_wanted; /* links of all peers */
	struct token_book tokens;     /* that were used */
	struct mesh_quiet stranger[MESH_STRANGER_KINDS];
	/* Of who may be anybody. By verdict: who has one to show keeps none of the others from our log. */
	struct mesh_quiet refused[HANDSHAKE_VERDICT_LIMIT];
	uint64_t waiting_ns; /* when to say next who is waited for */
	uint64_t beat_ns;    /* when the next heartbeats of the bring-up are due */
	uint64_t looked_ns;  /* when peers were last judged */
	char *why;	     /* of the call under way */
	size_t why_size;

	struct mesh_peer peer[]; /* config.node_count */
};

uint64_t mesh_now_ns(void);
/* How many links a peer has, and what the i-th is for; the first is control. */
uint32_t mesh_purposes(const struct mesh *mesh);
uint16_t mesh_purpose(const struct mesh *mesh, uint32_t i);
/* They are its own: nobody else uses them. */
void mesh_close_channels(struct mesh_peer *peer);
void mesh_progress(struct mesh *mesh, enum mesh_event event, uint16_t node, const char *text);

#endif
