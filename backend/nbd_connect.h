/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting to an NBD server, by a thread: it looks up names, and tries again and again. The disk
 * (nbd.c) takes the connection when there is one, and asks for another when that is lost.
 */
#ifndef BACKEND_NBD_CONNECT_H
#define BACKEND_NBD_CONNECT_H

#include <libnbd.h>
#include <stddef.h>
#include <stdint.h>

struct nbd_connect;

/* The thread begins to connect. `fd` of it is readable when a connection is there. 0 or -errno. */
int nbd_connect_create(const char *uri, struct nbd_connect **ret_connect);
int nbd_connect_fd(const struct nbd_connect *connect);
/* The connection, which is the caller's now, or NULL: there is none yet. */
struct nbd_handle *nbd_connect_take(struct nbd_connect *connect);
/* Another one. */
void nbd_connect_again(struct nbd_connect *connect);
/* Why the last try failed, one line; "" before. */
void nbd_connect_error(struct nbd_connect *connect, char *text, size_t size);
/* Ends the thread; may wait for a name that is being looked up. NULL is fine. */
void nbd_connect_destroy(struct nbd_connect *connect);

#endif
