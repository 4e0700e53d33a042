/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing up the mesh, between its files: connection.c, hello.c, dial.c, accept.c, peers.c, and the
 * loop in bring_up.c. Inside link/ only; one thread. Errors that are < 0 end the bring-up, with
 * mesh->why set.
 */
#ifndef LINK_BRING_UP_H
#define LINK_BRING_UP_H

#include "link/mesh_state.h"

#define MS	     1000000ull
#define QUIET_NS     (1000 * MS) /* between two lines about the same, to begin with */
#define QUIET_NS_MAX (64000 * MS)
#define EVENTS_MAX   64 /* in one round of the loop */

#define TLS_FIRST_BYTE 22 /* of a record that is a handshake's */
#define TLS_ALERT_BYTE 21

/* ---- connection.c ---- */

void connection_tune(const struct mesh *mesh, int fd);
/* The loop is told of these events of its socket. */
int connection_watch(struct mesh *mesh, const struct mesh_connection *connection, uint32_t events);
bool connection_is_dialled(const struct mesh *mesh, const struct mesh_connection *connection);
/* Closes it. A dialled connection will be dialled again after its backoff. */
void connection_drop(struct mesh *mesh, struct mesh_connection *connection);
/* The handshake is done: it is a link to that node from now on. */
int connection_stands(struct mesh *mesh, struct mesh_connection *connection, uint16_t node,
		      uint16_t purpose, uint64_t incarnation);
/* How long a handshake may take. */
uint64_t connection_handshake_ns(const struct mesh *mesh);

/* Whether a line may be said now; counts those that are not. */
bool quiet_is_over(struct mesh_quiet *quiet, uint64_t now_ns);
/* Lines on a node that comes and goes must not fill the log. */
void peer_say(struct mesh *mesh, enum mesh_event event, uint16_t node, const char *text);
/* All links to a node, at the first sign that one of them is over. */
void peer_drop(struct mesh *mesh, uint16_t node, const char *trouble);
void peer_beat(struct mesh_peer *peer);

/* ---- hello.c ---- */

struct handshake hello_of(const struct mesh *mesh, uint16_t peer, uint16_t purpose);
/* With a nonce of its own, sealed; what was sent stays in the connection. */
int hello_send(const struct mesh *mesh, struct mesh_connection *connection,
	       const struct handshake *hello);
/* The dialler's last word. */
int hello_prove(const struct mesh *mesh, struct mesh_connection *connection);
/* Reads what there is of it. 1: it is right; 0: not yet; -EPROTO: it is wrong; others: over. */
int hello_read_proof(const struct mesh *mesh, struct mesh_connection *connection);
/*
 * Reads what there is of a hello. 1: whole; 0: not yet; -EPROTO: it is none; others: over.
 * *ret_hello is set from 16 bytes on.
 */
int hello_read(struct mesh_connection *connection, struct handshake *ret_hello);
/*
 * What the other side's first byte is of, before any is read: 1: a record of TLS; 0: none has come;
 * -EPROTO: a hello; -ENOTSUP: neither; others: over.
 */
int hello_look(const struct mesh_connection *connection);
bool hello_is_sealed(const struct mesh *mesh, const struct mesh_connection *connection);

/* ---- dial.c ---- */

void dial_begin(struct mesh *mesh, struct mesh_connection *connection, uint64_t now_ns);
void dial_connected(struct mesh *mesh, struct mesh_connection *connection);
int dial_secure(struct mesh *mesh, struct mesh_connection *connection);
int dial_reply(struct mesh *mesh, struct mesh_connection *connection);
/* It came to nothing, for this reason. */
void dial_trouble(struct mesh *mesh, struct mesh_connection *connection, const char *text);

/* ---- accept.c ---- */

void accept_all(struct mesh *mesh);
int accept_secure(struct mesh *mesh, struct mesh_connection *connection);
int accept_hello(struct mesh *mesh, struct mesh_connection *connection);
int accept_proof(struct mesh *mesh, struct mesh_connection *connection);
/* Who was refused may still send. */
void accept_drain(struct mesh *mesh, struct mesh_connection *connection);
void accept_stranger(struct mesh *mesh, struct mesh_connection *connection,
		     enum mesh_stranger kind);

/* ---- bring_up.c ---- */

/* All its links stand: they are channels from now on. */
int peer_make_channels(struct mesh *mesh, uint16_t node);

/* ---- peers.c ---- */

/* A link ended. */
int peer_link_ended(struct mesh *mesh, struct mesh_connection *connection);
/* Heartbeats, and who is lost. Once a round. */
int peers_judge(struct mesh *mesh, uint64_t now_ns);
/* Heartbeats alone, to who joins and is not linked yet. */
void peers_beat_late(struct mesh *mesh, uint64_t now_ns);

#endif
