/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network (net.h) by a tap device of this host: one that its user has made and put where it belongs,
 * or one that is made here, joins a bridge of the user's, and is gone when it is closed.
 */
#ifndef BACKEND_TAP_H
#define BACKEND_TAP_H

#include <stdbool.h>

#include "backend/net.h"
#include "backend/user.h"

struct tap_options {
	const char *name;
	const char *bridge; /* it is made, and joins that; "": it is there */
	/* Of queues, at most; 1 to NET_PAIRS_MAX. Only a tap that was made with multi_queue has several. */
	uint16_t pairs;
	struct backend_user user;
};

/* 0, or -errno with one line in `why`: there is none (or, to be made, is one), no permission, it is in use. */
int tap_open(const struct tap_options *options, struct net **ret_net, char *why, size_t why_size);

/* It is some user's or group's, and the calling thread is not of them: CAP_NET_ADMIN opens it. */
bool tap_is_others(const char *name);

#endif
