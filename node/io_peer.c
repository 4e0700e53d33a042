/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the io thread says with other nodes, about disks and cards (link/io_channel.h).
 *
 * A message is for a device, and on this node for one of two: who uses a disk or card of the peer's
 * (remote_disk.h, remote_net.h), or a disk or card of this node's for that peer (disk_service.h,
 * net_service.h). Whatever else comes ends the link, and so the pod, with a line that says who it was.
 *
 * What leaves does so once a turn of the loop, all in few calls: io_peers_flush(). A socket that is
 * full is watched until it no longer is.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "backend/share.h"
#include "link/io_channel.h"
#include "node/disk_service.h"
#include "node/io.h"
#include "node/io_state.h"
#include "node/net_service.h"
#include "node/node_state.h"
#include "node/remote_disk.h"
#include "node/remote_net.h"

#define FLUSHES_MAX 4u

static void failed(struct io_peer *peer, int error)
{
	struct io *io = peer->io;
	char cause[128];
	snprintf(cause, sizeof(cause), "%s",
		 error == -EPROTO
			 ? "it sent about disks or cards what no node of this version sends"
			 : "its link for disks and cards has failed");
	epoll_ctl(io->epoll_fd, EPOLL_CTL_DEL, io_fd(peer->channel), NULL);
	peer->channel = NULL;
	control_link_failed(io->node, peer->node, cause);
}

static struct remote_disk *asker_of(struct io_peer *peer, const struct io_message *msg)
{
	struct io *io = peer->io;
	if (msg->device >= io->count || io->device[msg->device].node != peer->node)
		return NULL;
	return io->device[msg->device].remote;
}

static struct disk_service *service_of(struct io_peer *peer, const struct io_message *msg)
{
	struct io *io = peer->io;
	return msg->device < io->count ? io->device[msg->device].service[peer->node] : NULL;
}

/* Cards have their front halves where the PC is. */
static struct net_service *net_service_of(struct io_peer *peer, const struct io_message *msg)
{
	struct io *io = peer->io;
	return peer->node == members_seat(io->node->members, SEAT_PC) && msg->device < io->count
		       ? io->device[msg->device].net_service
		       : NULL;
}

static struct remote_net *remote_net_of(struct io_peer *peer, const struct io_message *msg)
{
	struct io *io = peer->io;
	if (msg->device >= io->count || io->device[msg->device].node != peer->node)
		return NULL;
	return io->device[msg->device].remote_net;
}

static int on_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		    uint32_t *ret_count)
{
	struct remote_disk *remote = asker_of(ctx, msg);
	struct disk_service *service = service_of(ctx, msg);
	if (msg->type == IO_DISK_REQUEST && service)
		return disk_service_place(service, msg, ret_iov, ret_count);
	if (msg->type == IO_DISK_REPLY && remote)
		return remote_disk_place(remote, msg, ret_iov, ret_count);
	if (msg->type == IO_NET_OUT && net_service_of(ctx, msg))
		return net_service_place(net_service_of(ctx, msg), msg, ret_iov, ret_count);
	if (msg->type == IO_NET_IN && remote_net_of(ctx, msg))
		return remote_net_place(remote_net_of(ctx, msg), msg, ret_iov, ret_count);
	return -EPROTO;
}

static int on_arrived(void *ctx, const struct io_message *msg)
{
	struct remote_disk *remote = asker_of(ctx, msg);
	struct disk_service *service = service_of(ctx, msg);
	if (msg->type == IO_DISK_REQUEST && service)
		return disk_service_arrived(service, msg);
	if (msg->type == IO_DISK_REPLY && remote)
		return remote_disk_arrived(remote, msg);
	if (msg->type == IO_NET_IN && remote_net_of(ctx, msg))
		return remote_net_arrived(remote_net_of(ctx, msg), msg);
	if (net_service_of(ctx, msg))
		return net_service_arrived(net_service_of(ctx, msg), msg);
	return -EPROTO;
}

/* True: the device may have more to say. */
static bool has_left(struct io_peer *peer, struct io_parcel *parcel)
{
	struct io_device *device = &peer->io->device[parcel->message.device];
	switch (parcel->message.type) {
	case IO_DISK_REQUEST:
		remote_disk_left(device->remote, parcel);
		return false;
	case IO_DISK_REPLY:
		disk_service_left(device->service[peer->node], parcel);
		return false;
	case IO_NET_IN:
		net_service_left(device->net_service, parcel);
		return true;
	default:
		remote_net_left(device->remote_net, parcel);
		return true;
	}
}

static void watch_room(struct io_peer *peer, bool full)
{
	struct epoll_event event = { .events = EPOLLIN | (full ? EPOLLOUT : 0),
				     .data.u32 = PEER_EVENT + peer->node };
	if (peer->full != full)
		epoll_ctl(peer->io->epoll_fd, EPOLL_CTL_MOD, io_fd(peer->channel), &event);
	peer->full = full;
}

/* Cards that waited for room have it: what they say next. */
static void cards_go_on(struct io *io, uint32_t cards)
{
	for (; cards; cards &= cards - 1) {
		struct io_device *device = &io->device[__builtin_ctz(cards)];
		io_net_ready(device);
		net_settle(device->net);
	}
}

/* A link that takes whatever it is given does not keep the thread from others for ever. */
static void flush(struct io_peer *peer)
{
	uint32_t cards = 1, rounds = 0;
	int error = 0;
	while (cards && error == 0 && rounds++ < FLUSHES_MAX) {
		struct io_parcel *parcel;
		error = io_flush(peer->channel);
		cards = 0;
		while ((parcel = io_left(peer->channel))) {
			uint8_t device = parcel->message.device;
			if (has_left(peer, parcel))
				cards |= 1u << device;
		}
		cards_go_on(peer->io, cards);
	}
	if (cards && error == 0)
		eventfd_write(peer->io->wake_fd, 1);
	/* Any other error is for who reads to tell: the peer's last words come first. */
	if (error == 0 || error == -EAGAIN)
		watch_room(peer, error == -EAGAIN);
	else
		watch_room(peer, false);
}

void io_peers_flush(struct io *io)
{
	members_for_each_other(io->node->members, n)
		if (io->peer[n].channel)
			flush(&io->peer[n]);
}

void io_peer_event(struct io *io, uint16_t node)
{
	struct io_peer *peer = &io->peer[node];
	struct io_receiver receiver = { .place = on_place, .arrived = on_arrived, .ctx = peer };
	if (!peer->channel)
		return;
	int error = io_receive(peer->channel, &receiver);
	for (uint32_t i = 0; i < io->count; i++) {
		struct io_device *device = &io->device[i];
		if (device->remote && device->node == node)
			io_disk_done(device);
		if ((device->remote_net && device->node == node) ||
		    (device->net_service && node == members_seat(io->node->members, SEAT_PC)))
			io_net_ready(device);
	}
	if (error < 0)
		failed(peer, error);
}

static int serve(struct io_device *device)
{
	struct io *io = device->io;
	int r = 0;
	members_for_each_other(io->node->members, n)
		if (!r && io->peer[n].channel)
			r = disk_service_create(io->peer[n].channel, device->number,
						disk_share_port(device->share, n),
						&device->service[n]);
	return r;
}

static int ask_net(struct io_device *device)
{
	int r = remote_net_create(device->io->peer[device->node].channel, device->number,
				  &device->info.net, &device->remote_net);
	if (!r)
		device->net = remote_net_net(device->remote_net);
	return r;
}

static int ask(struct io_device *device)
{
	if (device->info.kind == VIRTIO_KIND_NET)
		return ask_net(device);
	int r = remote_disk_create(device->io->peer[device->node].channel, device->number,
				   &device->info.disk, &device->remote);
	if (!r)
		device->disk = remote_disk_disk(device->remote);
	return r;
}

int io_peers_start(struct io *io)
{
	struct node *node = io->node;
	int r = 0;
	members_for_each_other(node->members, n) {
		struct io_peer *peer = &io->peer[n];
		*peer = (struct io_peer){ .io = io, .node = n, .channel = mesh_io(node->mesh, n) };
		if (!r && peer->channel)
			r = io_watch(io, io_fd(peer->channel), PEER_EVENT + n);
	}
	for (uint32_t i = 0; !r && i < io->count; i++) {
		struct io_device *device = &io->device[i];
		bool here = device->node == node->self;
		if (device->share)
			r = serve(device);
		else if (device->info.kind == VIRTIO_KIND_NET && here && !io_has_front(device))
			r = net_service_create(
				io->peer[members_seat(node->members, SEAT_PC)].channel,
				device->number, device->net, &device->net_service);
		else if (device->info.kind && !here && io_has_front(device))
			r = ask(device);
	}
	return r;
}
