/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client: the asking side of a channel (channel.h) on real descriptors: sends a command, or none to
 * a server that has its own, then joins the caller's stdin, stdout and stderr to it.
 */
#ifndef EAGRE_GUEST_CLIENT_H
#define EAGRE_GUEST_CLIENT_H

struct client_config {
	int line;	   /* a connected stream socket or a tty in raw mode */
	char *const *argv; /* ended by NULL; NULL: the server knows its command */
	int in;		   /* -1: the command gets an empty stdin */
	int out;
	int err;
	int terminal; /* ask for a terminal of this size */
	unsigned short rows;
	unsigned short columns;
	/*
	 * When `resized` becomes readable, `size` takes what it has and tells the terminal's size
	 * now; negative errno: unknown. NULL: the size stays as it is.
	 */
	int (*size)(int resized, unsigned short *ret_rows, unsigned short *ret_columns);
	int resized;
	int listen_only;	 /* the line goes one way: nothing is ever sent, argv is NULL */
	int greeting_timeout_ms; /* -1: wait for the server's greeting as long as it takes */
};

/*
 * Returns when the server has told the exit status: 0..255. Negative errno: -ETIMEDOUT no greeting
 * in time; -ECONNRESET the line ended first; -EPROTO the server sent what is no channel;
 * -E2BIG an argument is too long; others from writing the output.
 */
int client_run(const struct client_config *config);

#endif
