/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card of this node's, for one other node: the other side of remote_net.h.
 *
 *	NET_OUT, NET_DRIVER --> network (backend/net.h)
 *	NET_IN              <-- a ring <-- packets of the network, as far as there is room
 *	NET_ROOM            --> how much that is
 *
 * Nothing that the peer sends waits here: a packet that the network does not take now is dropped, as
 * networks do. What the peer has no room for stays with the network, which drops it when it must. A
 * peer that says what cannot be is lying: -EPROTO, and the link ends.
 *
 * All calls are the io thread's.
 */
#ifndef NODE_NET_SERVICE_H
#define NODE_NET_SERVICE_H

#include <stdint.h>

#include "backend/net.h"
#include "link/io_channel.h"

struct net_service;

/* Channel and network are borrowed, and outlive it; nobody else sends to the network. 0, -EINVAL, -ENOMEM. */
int net_service_create(struct io_channel *channel, uint8_t device, struct net *net,
		       struct net_service **ret_service);
/* Once the channel has nothing of it. NULL is fine. */
void net_service_destroy(struct net_service *service);

/* struct io_receiver's calls, for NET_OUT of its device; arrived() for NET_ROOM and NET_DRIVER, too. */
int net_service_place(struct net_service *service, const struct io_message *msg,
		      const struct iovec **ret_iov, uint32_t *ret_count);
int net_service_arrived(struct net_service *service, const struct io_message *msg);
/* Packets of the network, if it has some: after net_work(), when something for the card has arrived, and
 * when a run of it has left. */
void net_service_work(struct net_service *service);
/* A NET_IN has left (io_left()). */
void net_service_left(struct net_service *service, struct io_parcel *parcel);

struct net_service_stats {
	uint64_t packets_out, bytes_out, packets_in, bytes_in; /* as the guest sees it */
	uint64_t dropped; /* packets of the guest that the network did not take */
	uint64_t waited;  /* packets for the guest that found no room at the peer */
};
/* Of a pair, for who looks for a fault: bytes since the beginning; and of the card. */
struct net_service_look {
	uint64_t sent, limit;
	uint32_t runs; /* of packets for the guest that have not left */
};
void net_service_look(const struct net_service *service, uint16_t pair,
		      struct net_service_look *ret_look);
void net_service_stats(const struct net_service *service, struct net_service_stats *ret_stats);

#endif
