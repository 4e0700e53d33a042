/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network cards of another node, as networks of this one (backend/net.h).
 *
 *	front half -- net_send() --> remote net --- NET_OUT, NET_DRIVER ---> net_service.h
 *	           <-- net_peek() --     ring   <-- NET_IN -----------------
 *	                                        --- NET_ROOM -------------->
 *
 * A small packet out is copied once, into a ring from which it leaves, as is a large one that the socket
 * does not take at once; where the ring is full, the guest waits.
 * Packets in wait in a ring a pair, which NET_ROOM promises to the other node: what the guest does not
 * take stays with its network there, which drops it.
 *
 * What the other node says is not believed: packets beyond what was promised, or that are none, are
 * -EPROTO, and the link ends. All calls are the io thread's.
 */
#ifndef NODE_REMOTE_NET_H
#define NODE_REMOTE_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/net.h"
#include "link/io_channel.h"

#define NET_ROOM_BYTES (512u << 10) /* that a pair's packets may take here */
/* What a card on another node may keep resident: here with the rings of that many pairs, there with
 * none. */
#define NET_KEPT_BYTES(pairs)                                                                      \
	((1u << 20) + IO_RUN_MAX + (uint64_t)(pairs) * (NET_ROOM_BYTES + IO_RUN_MAX))
#define NET_PACKET_BYTES (NET_HEADER_BYTES + 14u) /* the least that is a packet */

struct remote_net;

/* The channel is borrowed, and outlives it. 0, -EINVAL, -ENOMEM. */
int remote_net_create(struct io_channel *channel, uint8_t device, const struct net_info *info,
		      struct remote_net **ret_remote);
/* Once the channel has nothing of it. NULL is fine. */
void remote_net_destroy(struct remote_net *remote);

/*
 * What the front half has. It has no descriptor (-1) and nothing for net_work(): whoever reads the
 * channel looks for packets when something has arrived or left. It ends with remote_net_destroy().
 */
struct net *remote_net_net(struct remote_net *remote);

/* Of a pair, for who looks for a fault: bytes since the beginning; and of the card. */
struct remote_net_look {
	uint64_t arrived, taken, promised;
	bool room_waits; /* a newer promise, for the one before to leave */
	uint32_t runs;	 /* of packets out that have not left */
};
void remote_net_look(const struct remote_net *remote, uint16_t pair,
		     struct remote_net_look *ret_look);

/* struct io_receiver's calls, for NET_IN of its device. */
int remote_net_place(struct remote_net *remote, const struct io_message *msg,
		     const struct iovec **ret_iov, uint32_t *ret_count);
int remote_net_arrived(struct remote_net *remote, const struct io_message *msg);
/* A NET_OUT, NET_ROOM or NET_DRIVER has left (io_left()): the front half may send again. */
void remote_net_left(struct remote_net *remote, struct io_parcel *parcel);

#endif
