/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the user is told about a disk or a network while the pod runs: lines that begin with what
 * the user calls it, and not more than one a second, however often something fails. The lines in
 * between are counted.
 */
#ifndef BACKEND_USER_H
#define BACKEND_USER_H

#include <stddef.h>
#include <stdint.h>

#define BACKEND_NAME_MAX 48

struct backend_user {
	char name[BACKEND_NAME_MAX]; /* "disk root" */
	void (*say)(void *ctx, const char *line);
	void *ctx;

	uint64_t said_ns;    /* the clock's time of the last line; 0: none yet */
	uint32_t kept_quiet; /* lines since */
};

__attribute__((format(printf, 2, 3))) void backend_say(struct backend_user *user,
						       const char *format, ...);

#endif
