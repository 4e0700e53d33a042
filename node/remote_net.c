/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network cards of another node (remote_net.h).
 *
 * Room is one number a pair, the bytes of runs that may have been sent since the beginning:
 *
 *	promised = taken + NET_ROOM_BYTES	told again when a quarter of it has been taken since
 *
 * The ring is larger than that by a run: wherever in it the gap is that no run fits into, there is
 * room for what was promised.
 *
 * What the driver has set, and each pair's room, is one parcel: while that is on its way, the next waits
 * as a bit.
 *
 * Tested by tests/node/test_remote_net.c.
 */
#include "node/remote_net.h"

#include <errno.h>
#include <stdlib.h>

#include "node/net_runs.h"
#include "virtio/published.h"

#define RING_BYTES (NET_ROOM_BYTES + IO_RUN_MAX + 64u)

/* Something of which the newest alone counts. What is on its way is as it was when it was sent. */
struct word {
	struct io_parcel parcel;
	bool sending, again;
};

struct pair {
	struct packet_ring ring;
	uint64_t arrived; /* bytes of runs, since the beginning, as are these: */
	uint64_t taken, promised;
	struct word room;
};

struct remote_net {
	struct net net; /* first */
	struct io_channel *channel;
	struct iovec iov; /* of the run that is on its way in */
	uint16_t pairs;	  /* in use */
	struct net_runs out;
	struct word driver;
	struct pair pair[];
};

static struct remote_net *remote_of(struct net *net)
{
	return (struct remote_net *)net;
}

static void say(struct remote_net *remote, struct word *word)
{
	word->again = word->sending;
	if (word->sending)
		return;
	word->sending = true;
	io_send(remote->channel, &word->parcel);
}

static void promise(struct remote_net *remote, uint16_t number)
{
	struct pair *pair = &remote->pair[number];

	if (pair->room.sending) {
		pair->room.again = true;
		return;
	}
	pair->promised = pair->taken + NET_ROOM_BYTES;
	pair->room.parcel.message.net_room = (struct io_net_room){ number, pair->promised };
	say(remote, &pair->room);
}

static int remote_send(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	size_t bytes = 0;

	for (uint32_t i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	if (bytes < NET_PACKET_BYTES || bytes > NET_PACKET_MAX)
		return 0;
	return net_runs_send(&remote_of(net)->out, pair, iov, count, (uint32_t)bytes);
}

static const uint8_t *remote_peek(struct net *net, uint16_t pair, uint32_t *ret_bytes)
{
	return packet_ring_peek(&remote_of(net)->pair[pair].ring, ret_bytes);
}

static void remote_drop(struct net *net, uint16_t number)
{
	struct remote_net *remote = remote_of(net);
	struct pair *pair = &remote->pair[number];
	uint32_t bytes;

	if (!packet_ring_peek(&pair->ring, &bytes))
		return;
	packet_ring_drop(&pair->ring);
	pair->taken += PACKET_RING_TAKES(bytes);
	if (pair->promised - pair->taken <= NET_ROOM_BYTES / 4 * 3)
		promise(remote, number);
}

static void drop_all(struct remote_net *remote, uint16_t pair)
{
	uint32_t bytes;

	while (remote_peek(&remote->net, pair, &bytes))
		remote_drop(&remote->net, pair);
}

static int remote_offload(struct net *net, const struct net_offloads *offloads)
{
	struct remote_net *remote = remote_of(net);
	const struct net_info *info = &net->info;
	bool segments = offloads->tso4 || offloads->tso6 || offloads->ecn;

	if ((offloads->checksum && !info->checksum) || (segments && !info->segments))
		return -EOPNOTSUPP;
	remote->driver.parcel.message.net_driver.offloads = *offloads;
	say(remote, &remote->driver);
	return 0;
}

static int remote_set_pairs(struct net *net, uint16_t pairs)
{
	struct remote_net *remote = remote_of(net);

	if (pairs < 1 || pairs > net->info.pairs)
		return -EINVAL;
	for (uint16_t pair = pairs; pair < remote->pairs; pair++)
		drop_all(remote, pair);
	remote->pairs = pairs;
	remote->driver.parcel.message.net_driver.pairs = pairs;
	say(remote, &remote->driver);
	return 0;
}

static void remote_settle(struct net *net)
{
	net_runs_close(&remote_of(net)->out);
}

static void remote_work(struct net *net)
{
}

/* That is remote_net_destroy(). */
static void remote_destroy(struct net *net)
{
}

static const struct net_ops remote_ops = { .send = remote_send,
					   .peek = remote_peek,
					   .drop = remote_drop,
					   .offload = remote_offload,
					   .set_pairs = remote_set_pairs,
					   .settle = remote_settle,
					   .work = remote_work,
					   .destroy = remote_destroy };

/* The pair that a run is for; NULL: it cannot be. */
static struct pair *pair_of(struct remote_net *remote, const struct io_message *msg)
{
	struct pair *pair;

	if (msg->net_run.pair >= remote->net.info.pairs)
		return NULL;
	pair = &remote->pair[msg->net_run.pair];
	return msg->data_bytes <= pair->promised - pair->arrived ? pair : NULL;
}

int remote_net_place(struct remote_net *remote, const struct io_message *msg,
		     const struct iovec **ret_iov, uint32_t *ret_count)
{
	struct pair *pair = pair_of(remote, msg);
	void *room = pair ? packet_ring_reserve_run(&pair->ring, msg->data_bytes) : NULL;

	if (!room)
		return -EPROTO;
	remote->iov = (struct iovec){ room, msg->data_bytes };
	*ret_iov = &remote->iov;
	*ret_count = 1;
	return 0;
}

int remote_net_arrived(struct remote_net *remote, const struct io_message *msg)
{
	struct pair *pair = &remote->pair[msg->net_run.pair];

	if (packet_run_check(remote->iov.iov_base, remote->iov.iov_len, NET_PACKET_BYTES,
			     NET_PACKET_MAX) < 0)
		return -EPROTO;
	pair->arrived += msg->data_bytes;
	packet_ring_commit_run(&pair->ring, msg->data_bytes);
	if (msg->net_run.pair >= remote->pairs)
		drop_all(remote, msg->net_run.pair);
	return 0;
}

void remote_net_left(struct remote_net *remote, struct io_parcel *parcel)
{
	const struct io_message *msg = &parcel->message;
	struct word *word = &remote->driver;

	if (msg->type == IO_NET_OUT) {
		net_runs_left(&remote->out, parcel);
		return;
	}
	if (msg->type == IO_NET_ROOM)
		word = &remote->pair[msg->net_room.pair].room;
	word->sending = false;
	if (!word->again)
		return;
	word->again = false;
	if (msg->type == IO_NET_ROOM)
		promise(remote, msg->net_room.pair);
	else
		say(remote, &remote->driver);
}

int remote_net_create(struct io_channel *channel, uint8_t device, const struct net_info *info,
		      struct remote_net **ret_remote)
{
	struct remote_net *remote;
	int r;

	if (device >= VIRTIO_DEVICES_MAX || info->pairs < 1 || info->pairs > NET_PAIRS_MAX)
		return -EINVAL;
	remote = calloc(1, sizeof(*remote) + info->pairs * sizeof(remote->pair[0]));
	if (!remote)
		return -ENOMEM;
	remote->net = (struct net){ .ops = &remote_ops, .info = *info, .fd = -1 };
	remote->channel = channel;
	remote->pairs = 1;
	remote->driver.parcel.message = (struct io_message){ .type = IO_NET_DRIVER,
							     .device = device,
							     .net_driver = { .pairs = 1 } };
	r = net_runs_create(&remote->out, channel, IO_NET_OUT, device);
	for (uint16_t i = 0; i < info->pairs && !r; i++) {
		remote->pair[i].room.parcel.message =
			(struct io_message){ .type = IO_NET_ROOM, .device = device };
		r = packet_ring_create(&remote->pair[i].ring, RING_BYTES);
	}
	if (r < 0) {
		remote_net_destroy(remote);
		return r;
	}
	for (uint16_t i = 0; i < info->pairs; i++)
		promise(remote, i);
	*ret_remote = remote;
	return 0;
}

void remote_net_destroy(struct remote_net *remote)
{
	if (!remote)
		return;
	for (uint16_t pair = 0; pair < remote->net.info.pairs; pair++)
		packet_ring_destroy(&remote->pair[pair].ring);
	net_runs_destroy(&remote->out);
	free(remote);
}

struct net *remote_net_net(struct remote_net *remote)
{
	return &remote->net;
}

void remote_net_look(const struct remote_net *remote, uint16_t pair,
		     struct remote_net_look *ret_look)
{
	const struct pair *of = &remote->pair[pair];

	*ret_look = (struct remote_net_look){ .arrived = of->arrived,
					      .taken = of->taken,
					      .promised = of->promised,
					      .room_waits = of->room.again,
					      .runs = net_runs_count(&remote->out) };
}
