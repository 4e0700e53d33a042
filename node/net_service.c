/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card of this node's, for one other node (net_service.h).
 *
 * Tested by tests/node/test_remote_net.c.
 */
#include "node/net_service.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node/net_runs.h"
#include "node/remote_net.h"
#include "virtio/published.h"

#define SHARE 1024u /* packets of a card in one go, so that others have their turn */

struct net_service {
	struct net *net;
	uint16_t pairs; /* in use */
	uint16_t turn;	/* the pair that comes first: each in its turn */
	struct net_runs in;
	/* Of each pair, bytes of runs since the beginning. */
	uint64_t sent[NET_PAIRS_MAX], limit[NET_PAIRS_MAX];
	struct net_service_stats stats;
	struct iovec iov; /* of the run that is on its way here */
	uint8_t run[IO_RUN_MAX];
};

/* One packet for the guest on its way: false: none is there, or there is no room. */
static bool take_packet(struct net_service *service, uint16_t pair)
{
	uint32_t bytes;
	const uint8_t *packet = net_peek(service->net, pair, &bytes);
	uint64_t takes = packet ? PACKET_RING_TAKES(bytes) : 0;

	if (!packet)
		return false;
	if (takes > service->limit[pair] - service->sent[pair]) {
		service->stats.waited++;
		return false;
	}
	/* What is no packet the peer would throw us out for. */
	if (bytes >= NET_PACKET_BYTES && bytes <= NET_PACKET_MAX) {
		/* Nothing of it is written. */
		const struct iovec iov = { (void *)(uintptr_t)packet, bytes };

		if (net_runs_send(&service->in, pair, &iov, 1, bytes) < 0)
			return false;
		service->sent[pair] += takes;
		service->stats.packets_in++;
		service->stats.bytes_in += bytes;
	}
	net_drop(service->net, pair);
	return true;
}

void net_service_work(struct net_service *service)
{
	uint32_t left = SHARE;

	for (uint16_t i = 0; i < service->pairs; i++) {
		uint16_t pair = (uint16_t)((service->turn + i) % service->pairs);

		while (left > 0 && take_packet(service, pair))
			left--;
	}
	service->turn = (uint16_t)((service->turn + 1) % service->pairs);
	net_runs_close(&service->in);
}

int net_service_place(struct net_service *service, const struct io_message *msg,
		      const struct iovec **ret_iov, uint32_t *ret_count)
{
	if (msg->net_run.pair >= service->net->info.pairs)
		return -EPROTO;
	service->iov = (struct iovec){ service->run, msg->data_bytes };
	*ret_iov = &service->iov;
	*ret_count = 1;
	return 0;
}

static int send_run(struct net_service *service, const struct io_message *msg)
{
	uint8_t *at = service->run, *end = at + msg->data_bytes;

	if (packet_run_check(at, msg->data_bytes, NET_PACKET_BYTES, NET_PACKET_MAX) < 0)
		return -EPROTO;
	while (at < end) {
		struct iovec iov;
		uint32_t bytes;

		memcpy(&bytes, at, sizeof(bytes));
		iov = (struct iovec){ at + sizeof(bytes), bytes };
		service->stats.packets_out++;
		service->stats.bytes_out += bytes;
		if (net_send(service->net, msg->net_run.pair, &iov, 1) < 0)
			service->stats.dropped++;
		at += PACKET_RING_TAKES(bytes);
	}
	return 0;
}

static int set_driver(struct net_service *service, const struct io_net_driver *driver)
{
	if (driver->pairs > service->net->info.pairs)
		return -EPROTO;
	/* What the network cannot do now shows in nothing worse than packets that are dropped. */
	(void)net_offload(service->net, &driver->offloads);
	if (driver->pairs != service->pairs && net_set_pairs(service->net, driver->pairs) == 0)
		service->pairs = driver->pairs;
	return 0;
}

static int set_room(struct net_service *service, const struct io_net_room *room)
{
	if (room->pair >= service->net->info.pairs || room->limit < service->limit[room->pair])
		return -EPROTO;
	service->limit[room->pair] = room->limit;
	return 0;
}

int net_service_arrived(struct net_service *service, const struct io_message *msg)
{
	int r = -EPROTO;

	switch (msg->type) {
	case IO_NET_OUT:
		r = send_run(service, msg);
		break;
	case IO_NET_ROOM:
		r = set_room(service, &msg->net_room);
		break;
	case IO_NET_DRIVER:
		r = set_driver(service, &msg->net_driver);
		break;
	}
	return r;
}

void net_service_left(struct net_service *service, struct io_parcel *parcel)
{
	net_runs_left(&service->in, parcel);
}

int net_service_create(struct io_channel *channel, uint8_t device, struct net *net,
		       struct net_service **ret_service)
{
	struct net_service *service;
	int r;

	if (device >= VIRTIO_DEVICES_MAX || net->info.pairs < 1 || net->info.pairs > NET_PAIRS_MAX)
		return -EINVAL;
	service = calloc(1, sizeof(*service));
	if (!service)
		return -ENOMEM;
	service->net = net;
	service->pairs = 1;
	r = net_runs_create(&service->in, channel, IO_NET_IN, device);
	if (r < 0) {
		free(service);
		return r;
	}
	*ret_service = service;
	return 0;
}

void net_service_destroy(struct net_service *service)
{
	if (!service)
		return;
	net_runs_destroy(&service->in);
	free(service);
}

void net_service_stats(const struct net_service *service, struct net_service_stats *ret_stats)
{
	*ret_stats = service->stats;
}

void net_service_look(const struct net_service *service, uint16_t pair,
		      struct net_service_look *ret_look)
{
	*ret_look = (struct net_service_look){ .sent = service->sent[pair],
					       .limit = service->limit[pair],
					       .runs = net_runs_count(&service->in) };
}
