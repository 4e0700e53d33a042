/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets on their way (net_runs.h). Parcels leave in their order, so the ring gives back its oldest
 * packets when one has left.
 *
 * Tested by tests/node/test_remote_net.c.
 */
#include "node/net_runs.h"

#include <errno.h>
#include <string.h>

_Static_assert(NET_RUN_PIECES <= IO_PIECES_MAX, "a packet is a parcel");

int net_runs_create(struct net_runs *runs, struct io_channel *channel, uint8_t type, uint8_t device)
{
	*runs = (struct net_runs){ .channel = channel };
	for (uint32_t i = 0; i < NET_RUNS_MAX; i++) {
		struct net_run *run = &runs->run[i];

		run->parcel = (struct io_parcel){ .message = { .type = type, .device = device },
						  .iov = &run->iov,
						  .iov_count = 1 };
		run->next = runs->free;
		runs->free = run;
	}
	return packet_ring_create(&runs->ring, NET_RUNS_BYTES);
}

void net_runs_destroy(struct net_runs *runs)
{
	packet_ring_destroy(&runs->ring);
}

void net_runs_close(struct net_runs *runs)
{
	struct net_run *run = runs->open;

	if (!run)
		return;
	runs->open = NULL;
	run->parcel.message.data_bytes = (uint32_t)run->iov.iov_len;
	io_send(runs->channel, &run->parcel);
}

/* The run that a record at `at` belongs to: the open one, or a new one. NULL: there is none. */
static struct net_run *run_for(struct net_runs *runs, uint16_t pair, uint8_t *at, uint64_t takes)
{
	struct net_run *run = runs->open;

	if (run && run->parcel.message.net_run.pair == pair &&
	    (uint8_t *)run->iov.iov_base + run->iov.iov_len == at &&
	    run->iov.iov_len + takes <= IO_RUN_MAX)
		return run;
	net_runs_close(runs);
	run = runs->free;
	if (!run)
		return NULL;
	runs->free = run->next;
	run->parcel.message.net_run.pair = pair;
	run->iov = (struct iovec){ at, 0 };
	run->packets = 0;
	runs->open = run;
	return run;
}

/* Room for a packet, which the caller fills at once; to NET_PACKET_MAX. NULL: there is none. */
static void *add(struct net_runs *runs, uint16_t pair, uint32_t bytes)
{
	uint64_t takes = PACKET_RING_TAKES(bytes);
	uint8_t *room = packet_ring_reserve(&runs->ring, bytes);
	struct net_run *run = room ? run_for(runs, pair, room - sizeof(bytes), takes) : NULL;

	if (!run)
		return NULL;
	packet_ring_commit(&runs->ring, bytes);
	run->iov.iov_len += takes;
	run->packets++;
	return room;
}

/* The record's size and what fills it up are in the ring, the packet itself is not. */
static uint32_t gather(struct net_runs *runs, const struct iovec *iov, uint32_t count,
		       uint32_t bytes, uint8_t *room)
{
	size_t end = PACKET_RING_TAKES(bytes) - sizeof(bytes) - bytes;

	runs->piece[0] = (struct iovec){ room - sizeof(bytes), sizeof(bytes) };
	memcpy(&runs->piece[1], iov, count * sizeof(*iov));
	if (end > 0)
		runs->piece[count + 1] = (struct iovec){ room + bytes, end };
	return count + 1 + (end > 0);
}

static int send_at_once(struct net_runs *runs, uint16_t pair, const struct iovec *iov,
			uint32_t count, uint32_t bytes)
{
	struct net_run *run;
	uint8_t *room;

	net_runs_close(runs);
	room = add(runs, pair, bytes);
	if (!room)
		return -EAGAIN;
	run = runs->open;
	run->parcel.iov = runs->piece;
	run->parcel.iov_count = gather(runs, iov, count, bytes, room);
	net_runs_close(runs);
	/* What has not left leaves from the ring, of which some may have left as it was. */
	if (io_flush(runs->channel) < 0)
		packet_gather(iov, count, room, bytes);
	run->parcel.iov = &run->iov;
	run->parcel.iov_count = 1;
	return 0;
}

int net_runs_send(struct net_runs *runs, uint16_t pair, const struct iovec *iov, uint32_t count,
		  uint32_t bytes)
{
	void *room;

	if (bytes >= NET_RUNS_LARGE)
		return send_at_once(runs, pair, iov, count, bytes);
	room = add(runs, pair, bytes);
	if (!room)
		return -EAGAIN;
	packet_gather(iov, count, room, bytes);
	return 0;
}

void net_runs_left(struct net_runs *runs, struct io_parcel *parcel)
{
	struct net_run *run = (struct net_run *)parcel; /* it is its first */

	while (run->packets > 0) {
		packet_ring_drop(&runs->ring);
		run->packets--;
	}
	run->next = runs->free;
	runs->free = run;
}

uint32_t net_runs_count(const struct net_runs *runs)
{
	uint32_t count = NET_RUNS_MAX;

	for (const struct net_run *run = runs->free; run; run = run->next)
		count--;
	return count;
}
