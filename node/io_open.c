/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node's io thread has: disks and networks opened as the pod's configuration says, before the
 * guest starts, and what the guest finds of them. Each node opens those that are its own, and says at
 * the start what they are, so that all know every device. Nothing is closed: what is open ends with
 * the process.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "backend/file.h"
#include "backend/nbd.h"
#include "backend/share.h"
#include "backend/tap.h"
#include "backend/user_net.h"
#include "node/disk_service.h"
#include "node/io.h"
#include "node/io_state.h"
#include "node/node_state.h"
#include "node/remote_net.h"
#include "node/say.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"

#define DISK_QUEUES_MAX 16u

_Static_assert(NODES_MAX <= DISK_PORTS_MAX, "each node can have a port of a disk");

static void on_say(void *ctx, const char *line)
{
	struct io *io = ctx;
	say_line(io->say, line);
}

static struct backend_user user_of(struct io *io, const char *kind, const char *name)
{
	struct backend_user user = { .say = on_say, .ctx = io };
	snprintf(user.name, sizeof(user.name), "%s %s", kind, name);
	return user;
}

int io_watch(struct io *io, int fd, uint32_t which)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = which };
	return epoll_ctl(io->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int open_file(const struct disk_config *config, const struct backend_user *user,
		     struct disk **ret_disk, char *why, size_t why_size)
{
	struct disk_file_options options = { .path = config->file,
					     .serial = config->serial,
					     .read_only = config->read_only,
					     .block_bytes = config->block_bytes,
					     .cache = config->cache,
					     .user = *user };
	return disk_file_open(&options, ret_disk, why, why_size);
}

static int open_nbd(const struct disk_config *config, const struct backend_user *user,
		    struct disk **ret_disk, char *why, size_t why_size)
{
	struct disk_nbd_options options = { .uri = config->nbd,
					    .serial = config->serial,
					    .read_only = config->read_only,
					    .block_bytes = config->block_bytes,
					    .timeout_s = config->timeout_s,
					    .user = *user };
	return disk_nbd_open(&options, ret_disk, why, why_size);
}

static void offer_disk(struct io_device *device)
{
	uint32_t vcpus = device->io->node->config->vcpu_count;
	virtio_blk_offer(&device->info.disk,
			 (uint16_t)(vcpus < DISK_QUEUES_MAX ? vcpus : DISK_QUEUES_MAX),
			 &device->offer);
}

/* In a pod of several nodes all of them use it. */
static int share_disk(struct io_device *device, struct disk *disk)
{
	const struct node *node = device->io->node;
	device->disk = disk;
	if (!members_may_have_others(node->members))
		return 0;
	int r = disk_share_create(disk, node->members->number_count, &device->share);
	if (!r)
		device->disk = disk_share_port(device->share, node->self);
	return r;
}

static int open_disk(struct io_device *device, const struct disk_config *config, char *why,
		     size_t why_size)
{
	struct io *io = device->io;
	struct backend_user user = user_of(io, "disk", config->name);
	struct disk *disk = NULL;
	device->node = config->node;
	device->info = (struct device_info){ .device = device->number, .kind = VIRTIO_KIND_BLOCK };
	/* A server may take its time, and memory that is in use cannot go elsewhere. */
	device->in_place = !config->nbd[0];
	if (device->node != io->node->self)
		return 0;
	int r = config->nbd[0] ? open_nbd(config, &user, &disk, why, why_size)
			       : open_file(config, &user, &disk, why, why_size);
	if (!r)
		r = io_watch(io, disk_fd(disk), device->number);
	if (!r)
		r = share_disk(device, disk);
	if (!r)
		device->info.disk = disk->info;
	return r;
}

static int open_user_net(const struct net_config *config, uint16_t pairs,
			 const struct backend_user *user, struct net **ret_net, char *why,
			 size_t why_size)
{
	struct user_net_forward forward[FORWARDS_MAX];
	struct user_net_options options = { .pairs = pairs,
					    .forward = forward,
					    .forward_count = config->forward_count,
					    .user = *user };
	for (uint32_t i = 0; i < config->forward_count; i++)
		forward[i] = (struct user_net_forward){
			.udp = config->forward[i].udp,
			.host = config->forward[i].host,
			.host_port = config->forward[i].host_port,
			.guest_port = config->forward[i].guest_port,
		};
	return user_net_open(&options, ret_net, why, why_size);
}

/* One for each vCPU. */
static uint16_t pairs_of(const struct pod_config *config)
{
	return (uint16_t)(config->vcpu_count < NET_PAIRS_MAX ? config->vcpu_count : NET_PAIRS_MAX);
}

static int open_net(struct io_device *device, const struct net_config *config, char *why,
		    size_t why_size)
{
	struct io *io = device->io;
	struct backend_user user = user_of(io, "net", config->name);
	uint16_t pairs = pairs_of(io->node->config);
	struct tap_options tap = {
		.name = config->tap, .bridge = config->bridge, .pairs = pairs, .user = user
	};
	device->node = config->node;
	device->info = (struct device_info){ .device = device->number, .kind = VIRTIO_KIND_NET };
	memcpy(device->mac, config->mac, sizeof(device->mac));
	if (device->node != io->node->self)
		return 0;
	int r = config->user ? open_user_net(config, pairs, &user, &device->net, why, why_size)
			     : tap_open(&tap, &device->net, why, why_size);
	if (!r)
		r = io_watch(io, net_fd(device->net), device->number);
	if (!r)
		device->info.net = device->net->info;
	return r;
}

static void say_nothing(void *ctx, const char *line)
{
}

int io_check(const struct node_options *options, char *why, size_t why_size)
{
	const struct pod_config *config = options->config;
	int r = 0;
	/* Files only: a server might not want to be asked twice. */
	for (uint32_t i = 0; !r && i < config->disk_count; i++) {
		const struct disk_config *disk = &config->disk[i];
		struct backend_user user = { .say = say_nothing };
		struct disk *opened = NULL;
		if (disk->nbd[0] || (disk->node != options->self && !options->all_here))
			continue;
		snprintf(user.name, sizeof(user.name), "disk %s", disk->name);
		r = open_file(disk, &user, &opened, why, why_size);
		disk_destroy(opened);
	}
	return r;
}

uint64_t io_kept_bytes(const struct pod_config *config, uint32_t n)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < config->disk_count; i++)
		if (config->disk[i].node == n)
			bytes += (uint64_t)(config->node_count - 1) * DISK_POOL_KEPT +
				 (config->disk[i].nbd[0]
					  ? disk_nbd_kept_bytes(config->disk[i].read_only)
					  : disk_file_kept_bytes());
	for (uint32_t i = 0; i < config->net_count; i++)
		if (config->net[i].node != FIRST_NODE &&
		    (n == FIRST_NODE || n == config->net[i].node))
			bytes += NET_KEPT_BYTES(n == FIRST_NODE ? pairs_of(config) : 0);
	return bytes;
}

/* The next in the pod's list. */
static struct io_device *add_device(struct io *io)
{
	struct io_device *device = &io->device[io->count];
	device->io = io;
	device->number = (uint8_t)io->count++;
	return device;
}

/* Its streams are the PC's node's, which alone has a guest to start. */
static bool has_command(const struct node *node)
{
	const struct node_guest *guest = node->options->guest;
	return guest && guest->console == CONSOLE_COMMAND;
}

static int open_devices(struct io *io, char *why, size_t why_size)
{
	const struct pod_config *config = io->node->config;
	int r = 0;
	for (uint32_t i = 0; !r && i < config->disk_count; i++)
		r = open_disk(add_device(io), &config->disk[i], why, why_size);
	for (uint32_t i = 0; !r && i < config->net_count; i++)
		r = open_net(add_device(io), &config->net[i], why, why_size);
	if (!r && pod_config_has_io(config))
		add_device(io); /* random numbers */
	if (!r)
		add_device(io)->balloon = true;
	/* The last, as only the PC's node has it. */
	if (!r && has_command(io->node))
		r = io_streams_open(io, add_device(io));
	return r;
}

int io_open(struct node *node, char *why, size_t why_size)
{
	/* A balloon alone has nothing to do with other nodes. */
	bool balloon = members_seat_is_here(node->members, SEAT_PC) &&
		       members_may_have_others(node->members);
	if (!balloon && !pod_config_has_io(node->config) && !has_command(node))
		return 0;
	struct io *io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->node = node;
	pthread_mutex_init(&io->lock, NULL);
	io->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	io->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = io->epoll_fd < 0 || io->wake_fd < 0 ? -errno
						    : io_watch(io, io->wake_fd, WAKE_EVENT);
	if (!r)
		r = say_create(node->options->warn, node->options->context, &io->say);
	io_queues_configure(io);
	if (!r)
		r = open_devices(io, why, why_size);
	node->virtio = io; /* what is open of it ends with the process */
	return r;
}

void io_list(const struct node *node, struct device_list *ret_list)
{
	const struct io *io = node->virtio;
	ret_list->count = 0;
	for (uint32_t i = 0; io && i < io->count; i++)
		if (io->device[i].info.kind && io->device[i].node == node->self)
			ret_list->info[ret_list->count++] = io->device[i].info;
}

static const struct device_info *find_info(const struct device_list *list, uint8_t number)
{
	for (uint32_t i = 0; i < list->count; i++)
		if (list->info[i].device == number)
			return &list->info[i];
	return NULL;
}

/* A node that says other devices than the configuration has for it is another pod's, or lies. */
int io_gather(const struct node *node, struct device_list *ret_list, char *why, size_t why_size)
{
	const struct io *io = node->virtio;
	uint32_t expected[NODES_MAX] = { 0 };
	io_list(node, ret_list);
	struct device_list own = *ret_list;
	ret_list->count = 0;
	for (uint32_t i = 0; io && i < io->count; i++) {
		const struct io_device *device = &io->device[i];
		const struct device_list *list =
			device->node == node->self ? &own
						   : &node->peer_features[device->node]->devices;
		const struct device_info *info = find_info(list, device->number);
		if (info && info->kind == device->info.kind)
			ret_list->info[ret_list->count++] = *info;
		expected[device->node] += device->info.kind != 0;
	}
	members_for_each(node->members, n) {
		uint32_t count =
			n == node->self ? own.count : node->peer_features[n]->devices.count;
		if (count == expected[n])
			continue;
		snprintf(
			why, why_size,
			"node %u (%s) has %u disks and cards, in the configuration it has %u: give "
			"all nodes the same file",
			n, members_name(node->members, n), count, expected[n]);
		return -EINVAL;
	}
	return 0;
}

int io_take(struct node *node, const struct device_list *list, char *why, size_t why_size)
{
	struct io *io = node->virtio;
	for (uint32_t i = 0; io && i < io->count; i++) {
		struct io_device *device = &io->device[i];
		const struct device_info *info = find_info(list, device->number);
		if (device->streams) {
			virtio_console_offer(&device->offer);
		} else if (device->balloon) {
			virtio_balloon_offer(&device->offer);
		} else if (!device->info.kind) {
			virtio_rng_offer(&device->offer);
		} else if (!info || info->kind != device->info.kind) {
			snprintf(why, why_size,
				 "the first node starts a pod with other disks and cards: give all "
				 "nodes the same file");
			return -EINVAL;
		} else if (info->kind == VIRTIO_KIND_BLOCK) {
			device->info = *info;
			offer_disk(device);
		} else {
			device->info = *info;
			virtio_net_offer(&info->net, device->mac, info->net.pairs, &device->offer);
		}
		io->offer[i] = device->offer;
		device->window_first = io->window_count;
		/* Where there is no front half, no guest memory is touched. */
		if (io_has_front(device))
			io->window_count += device->offer.queue_count;
	}
	return 0;
}

uint32_t io_offers(const struct node *node, const struct virtio_offer **ret_offer)
{
	*ret_offer = node->virtio ? node->virtio->offer : NULL;
	return node->virtio ? node->virtio->count : 0;
}

uint32_t io_window_count(const struct node *node)
{
	return node->virtio ? node->virtio->window_count : 0;
}
