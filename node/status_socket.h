/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local socket on which a node says what its pod does, and is told what to do. Only the user who
 * runs the node may connect.
 *
 * Path: DIR/POD.NODE.sock, DIR being /run/eagre for root, else $XDG_RUNTIME_DIR/eagre,
 * /run/user/UID/eagre, or /tmp/eagre-UID; it must belong to the user, and to him alone. A
 * connection gets one JSON object and is closed; before, it may send one line, a request, within a
 * second. One request waits for its answer until the node ends: STATUS_END. Names of pods and nodes may have dots in them, so the socket's name writes those as '%'.
 */
#ifndef NODE_STATUS_SOCKET_H
#define NODE_STATUS_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

void status_socket_dir(char *path, size_t size);
/* 0; -ENOENT; -EPERM: it is somebody else's, or others may write to it: what is in it proves
 * nothing. */
int status_socket_dir_check(void);
/* Splits a file name of that directory; false when it is none of ours. pod and node hold `size`
 * bytes each. */
bool status_socket_name_parse(const char *name, char *pod, char *node, size_t size);

/* Removes all that nodes of this user left which were killed. */
void status_socket_sweep(void);

/* How many bytes the path for these names is longer than a socket's can be; 0: it fits. */
size_t status_socket_excess(const char *pod, const char *node);

struct status_socket;

#define STATUS_REQUEST_MAX 256u
/* Answered when the socket is closed, and not before; or not at all, if too many wait for that. */
#define STATUS_END	"end"
#define STATUS_ENDS_MAX 8u

/*
 * Returns the answer to a request ("": nothing was said), malloc'd JSON text, or NULL. Called on the
 * socket's own thread; may block for some seconds.
 */
typedef char *status_answer_fn(void *context, const char *request);

/*
 * -EADDRINUSE: a living node of this name is here already. Removes what a dead one left.
 * -ENAMETOOLONG: status_socket_excess(). -EPERM: status_socket_dir_check().
 */
int status_socket_open(const char *pod, const char *node, status_answer_fn *answer, void *context,
		       struct status_socket **ret_socket);
/*
 * Stops the thread, removes the file. Waits for an answer that is being made, not for its reader.
 * NULL is fine.
 */
void status_socket_close(struct status_socket *socket);

#endif
