/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of one card on their way to another node: copied into a ring, gathered into runs, and sent
 * as parcels of the io channel (link/io_channel.h).
 *
 *	net_runs_send() ... net_runs_send()    packets; those of one pair that follow each other are a run
 *	net_runs_close()                       the last run goes, too; before the thread waits
 *	net_runs_left()                        a parcel has left: there is room again
 *
 * A large packet leaves at once, from where it lies, and is copied only where the socket is full: its copy
 * costs more than the call of the kernel that small packets share.
 *
 * The io thread makes all calls.
 */
#ifndef NODE_NET_RUNS_H
#define NODE_NET_RUNS_H

#include <stdint.h>
#include <sys/uio.h>

#include "backend/net.h"
#include "backend/packet_ring.h"
#include "link/io_channel.h"

#define NET_RUNS_MAX   64u	  /* that have not left */
#define NET_RUNS_BYTES (1u << 20) /* of packets that have not left */
#define NET_RUNS_LARGE (32u << 10)
#define NET_RUN_PIECES (NET_IOV_MAX + 2u)

struct net_run {
	struct io_parcel parcel; /* first */
	struct iovec iov;
	uint32_t packets;
	struct net_run *next; /* free */
};

struct net_runs {
	struct io_channel *channel;
	struct packet_ring ring;
	struct net_run *open; /* may grow; NULL: none is */
	struct net_run *free;
	struct iovec piece[NET_RUN_PIECES]; /* of a packet that leaves from where it lies */
	struct net_run run[NET_RUNS_MAX];
};

/* Messages of that type, for that device. 0 or -ENOMEM. */
int net_runs_create(struct net_runs *runs, struct io_channel *channel, uint8_t type,
		    uint8_t device);
/* Once the channel is no more, or has nothing of it. All zeros is fine. */
void net_runs_destroy(struct net_runs *runs);

/*
 * A packet of `bytes` in all, to NET_PACKET_MAX in up to NET_IOV_MAX pieces, which are the caller's again.
 * 0; -EAGAIN: there is no room, before some have left. It may call io_flush().
 */
int net_runs_send(struct net_runs *runs, uint16_t pair, const struct iovec *iov, uint32_t count,
		  uint32_t bytes);
void net_runs_close(struct net_runs *runs);
/* Those that have not left, and the open one. */
uint32_t net_runs_count(const struct net_runs *runs);
/* io_left() gave this one, which is of these. */
void net_runs_left(struct net_runs *runs, struct io_parcel *parcel);

#endif
