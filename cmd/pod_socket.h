/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the socket of a node on this machine, and asking it (node/status_socket.h). */
#ifndef CMD_POD_SOCKET_H
#define CMD_POD_SOCKET_H

#include <jansson.h>
#include <stdbool.h>

struct pod_search {
	const char *pod, *node; /* NULL: any */
	const char *avoid;	/* a node that is asked only if no other is here; or NULL */
	char path[512];		/* the socket's; empty: to be found */
	int found;
};

/* For getopt_long(), and whether `option` is one of them. */
/* clang-format off */
#define POD_SEARCH_OPTIONS \
	{ "pod", required_argument, NULL, 'p' }, \
	{ "node", required_argument, NULL, 'n' }, \
	{ "socket", required_argument, NULL, 's' }
/* clang-format on */
bool pod_search_take(struct pod_search *search, int option, const char *value);

/*
 * 0, and *ret_answer is the caller's; or negative, with a line in ret_error. -EAGAIN: connected or
 * about to be, and no answer; -ECONNRESET: broken off, as by a node that ends; -ENOENT, -ECONNREFUSED:
 * there is no node any more.
 */
int pod_try(const char *path, const char *request, json_t **ret_answer, char *ret_error,
	    size_t error_size);

/*
 * Asks a node to say how it ends, when it does: a descriptor that can be read then, or -errno. What it
 * has said: of one that left its pod "left", its name; else "error", a line. NULL: it is gone without a
 * word.
 */
int pod_end_open(const char *path);
json_t *pod_end_take(int fd);

/* Both complain themselves, and return false or NULL then. */
bool pod_find(struct pod_search *search);
json_t *pod_ask(const char *path, const char *request);
/*
 * Whether it can be part of a request, which is a line of words. It complains itself of what cannot
 * be any `what`: nothing, what has spaces or control characters in it, or more than a name can have.
 */
#define POD_WORD_MAX 64
bool pod_word(const char *what, const char *word);
/* A request that is answered with a line, which is printed, or with an error. An exit status. */
int pod_tell(const char *path, const char *request);

#endif
