/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network (net.h) of the process's own, which needs no privileges: libslirp. The guest is
 * 10.0.2.15 (DHCP), the host is 10.0.2.2, names are asked at 10.0.2.3; connections of the guest are
 * made by this process, and ports of the host lead to the guest where that was asked for.
 */
#ifndef BACKEND_USER_NET_H
#define BACKEND_USER_NET_H

#include "backend/net.h"
#include "backend/user.h"

struct user_net_forward {
	bool udp;
	const char *host; /* an IPv4 address of the host */
	uint16_t host_port, guest_port;
};

struct user_net_options {
	uint16_t pairs; /* of queues, 1 to NET_PAIRS_MAX */
	const struct user_net_forward *forward;
	uint32_t forward_count;
	struct backend_user user;
};

/* 0, or -errno with one line in `why`: a port is taken. */
int user_net_open(const struct user_net_options *options, struct net **ret_net, char *why,
		  size_t why_size);

#endif
