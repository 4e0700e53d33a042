/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session: the server side of a channel (channel.h) on real descriptors: runs one command, carries
 * its streams, ends it when the line goes away.
 *
 * Linked statically into the guest's runner and the rack's agent; no part of eagre itself.
 */
#ifndef EAGRE_GUEST_SESSION_H
#define EAGRE_GUEST_SESSION_H

#include <stdint.h>

/*
 * The most stdin that may be on its way. The session reads the line whatever the command does;
 * Linux's serial driver queues at least 64 KiB in front of a tty that is not read yet. A virtio port
 * loses nothing.
 */
#define SESSION_WINDOW_SERIAL 16384
#define SESSION_WINDOW_VIRTIO 262144
#define SESSION_WINDOW_MAX    SESSION_WINDOW_VIRTIO

/* The most arguments a client may send, and their bytes together. */
#define SESSION_ARGS_MAX      256
#define SESSION_ARG_BYTES_MAX 65536

struct session_config {
	int line;	 /* both directions, raw, O_NONBLOCK; stays open */
	char **argv;	 /* the command, or NULL: the client sends it by ARG and START */
	uint32_t window; /* stdin bytes that the line can hold, at most SESSION_WINDOW_MAX */
	/* The command may use every CPU, whichever the caller is confined to. */
	int command_on_all_cpus;
	int await_bye; /* the client says it, once all has arrived: as long as that takes */
};

/*
 * Greets, runs the command and returns once EXIT is written, the client has said BYE or is gone.
 * 0: the client has the status. -ECONNRESET: the line hung up; the command was ended (SIGHUP, two
 * seconds later SIGKILL, for its whole session). -EPROTO: the client broke the protocol; same end.
 * Other negative errno: the line or the memory failed.
 */
int session_serve(const struct session_config *config);

#endif
