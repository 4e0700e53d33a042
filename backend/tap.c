/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tap devices (tap.h): packets of the guest's go to the kernel from where they lie; one that comes in
 * waits in memory of ours, as the guest's may not be here. They have virtio's header, so checksums and
 * segmentation are the kernel's or the hardware's.
 *
 * The device is watched edge by edge: packets that the guest has no room for yet stay in the kernel,
 * and do not wake us again.
 *
 * A tap made with multi_queue has a descriptor for each pair; the kernel gives a flow's packets to the
 * one that sent last on it. What the guest does not use is detached.
 *
 * One that is made here belongs to its descriptors: the kernel removes it with the last of them, however
 * the process ends.
 *
 * Tested by tests/backend/test_tap.c and tests/pod/network.
 */
#include "backend/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/bridge.h"

#define MTU_USUAL 1500
#define MTU_MIN	  1280 /* of a card's (virtio 1.2, 5.1.4.1) */

struct tap {
	struct net net;
	bool multi_queue;
	uint16_t attached; /* pairs: the first ones */
	int fd[NET_PAIRS_MAX];
	uint32_t bytes[NET_PAIRS_MAX]; /* of the packet that is here; 0: none is */
	uint8_t *packets;	       /* NET_PACKET_MAX for each pair */
};

static struct tap *tap_of(struct net *net)
{
	return (struct tap *)net;
}

static int tap_send(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	ssize_t r;
	do
		r = writev(tap_of(net)->fd[pair], iov, (int)count);
	while (r < 0 && errno == EINTR);
	/*
	 * What the kernel does not like of a packet is the guest's affair: it is dropped. So is one for
	 * which it has no memory (ENOBUFS): nothing tells when it has, as it does of a queue (EAGAIN).
	 */
	return r < 0 && errno == EAGAIN ? -EAGAIN : 0;
}

static const uint8_t *tap_peek(struct net *net, uint16_t pair, uint32_t *ret_bytes)
{
	struct tap *tap = tap_of(net);
	uint8_t *packet = tap->packets + (size_t)pair * NET_PACKET_MAX;
	ssize_t r = tap->bytes[pair];
	while (r < (ssize_t)NET_HEADER_BYTES) {
		r = read(tap->fd[pair], packet, NET_PACKET_MAX);
		if (r < 0 && errno != EINTR)
			return NULL;
	}
	tap->bytes[pair] = *ret_bytes = (uint32_t)r;
	return packet;
}

static void tap_drop(struct net *net, uint16_t pair)
{
	tap_of(net)->bytes[pair] = 0;
}

static int tap_offload(struct net *net, const struct net_offloads *offloads)
{
	unsigned int flags = offloads->checksum ? TUN_F_CSUM : 0;
	if (offloads->checksum)
		flags |= (offloads->tso4 ? TUN_F_TSO4 : 0u) | (offloads->tso6 ? TUN_F_TSO6 : 0u) |
			 (offloads->ecn && (offloads->tso4 || offloads->tso6) ? TUN_F_TSO_ECN : 0u);
	return ioctl(tap_of(net)->fd[0], TUNSETOFFLOAD, flags) < 0 ? -EOPNOTSUPP : 0;
}

static int set_attached(struct tap *tap, uint16_t pair, bool attached)
{
	struct ifreq request = { .ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };
	return ioctl(tap->fd[pair], TUNSETQUEUE, &request) < 0 ? -errno : 0;
}

static int tap_set_pairs(struct net *net, uint16_t pairs)
{
	struct tap *tap = tap_of(net);
	if (pairs < 1 || pairs > net->info.pairs)
		return -EINVAL;
	int r = 0;
	for (; tap->attached < pairs && !r; tap->attached += !r)
		r = set_attached(tap, tap->attached, true);
	for (; tap->attached > pairs && !r; tap->attached -= !r) {
		r = set_attached(tap, tap->attached - 1, false);
		tap->bytes[tap->attached - 1] = 0;
	}
	return r;
}

static void tap_settle(struct net *net)
{
}

static void tap_work(struct net *net)
{
	struct epoll_event event[NET_PAIRS_MAX];
	(void)!epoll_wait(net->fd, event, NET_PAIRS_MAX, 0); /* the edges are seen */
}

static void tap_destroy(struct net *net)
{
	struct tap *tap = tap_of(net);
	for (uint16_t pair = 0; pair < NET_PAIRS_MAX; pair++)
		if (tap->fd[pair] >= 0)
			close(tap->fd[pair]);
	if (net->fd >= 0)
		close(net->fd);
	free(tap->packets);
	free(tap);
}

static const struct net_ops tap_ops = {
	.send = tap_send,
	.peek = tap_peek,
	.drop = tap_drop,
	.offload = tap_offload,
	.set_pairs = tap_set_pairs,
	.settle = tap_settle,
	.work = tap_work,
	.destroy = tap_destroy,
};

static int refuse(const struct tap_options *options, int error, const char *remedy, char *why,
		  size_t why_size)
{
	snprintf(why, why_size, "%s: tap %s: %s%s", options->user.name, options->name,
		 strerror(-error), remedy);
	return error;
}

/* The error of a tap that has been made another way: with or without several queues. */
static int open_pair(struct tap *tap, const struct tap_options *options, uint16_t pair)
{
	/* To be made by us, or not at all: somebody else may be quicker. */
	bool makes = options->bridge[0] && pair == 0;
	struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
						      (tap->multi_queue ? IFF_MULTI_QUEUE : 0) |
						      (makes ? IFF_TUN_EXCL : 0)) };
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", options->name);
	return ioctl(tap->fd[pair], TUNSETIFF, &request) < 0 ? -errno : 0;
}

/*
 * A tap with several queues lets others in. It has a carrier as long as somebody is: while it is up,
 * that can be seen.
 */
static bool is_in_use(const struct tap_options *options)
{
	struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
	struct ifreq request = { .ifr_data = (char *)&link };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", options->name);
	bool is = ioctl(fd, SIOCETHTOOL, &request) == 0 && link.data;
	close(fd);
	return is;
}

/* The first pair of a tap that is there. */
static int open_there(struct tap *tap, const struct tap_options *options, char *why,
		      size_t why_size)
{
	bool in_use = is_in_use(options);
	tap->multi_queue = true;
	int r = open_pair(tap, options, 0);
	if (r == -EINVAL) {
		tap->multi_queue = false;
		r = open_pair(tap, options, 0);
	} else if (!r && in_use) {
		r = -EBUSY;
	}
	if (r < 0)
		return refuse(options, r,
			      r == -EBUSY ? "; another virtual machine has it"
			      : r == -EPERM
				      ? "; make it this user's: 'ip tuntap add ... user $USER'"
			      : r == -EINVAL ? "; it is no tap"
					     : "",
			      why, why_size);
	return 0;
}

/*
 * For whoever may make one: a tap that belongs to nobody is everybody's to attach to. And it is no good
 * if somebody was quicker than that.
 */
static int make_own(const struct tap *tap, const char *name)
{
	char second[sizeof("/sys/class/net//queues/rx-1") + IFNAMSIZ];
	if (ioctl(tap->fd[0], TUNSETOWNER, (unsigned long)geteuid()) < 0)
		return -errno;
	snprintf(second, sizeof(second), "/sys/class/net/%s/queues/rx-1", name);
	return access(second, F_OK) == 0 ? -EBUSY : 0;
}

/* The first pair of one that is not, which is on its bridge then. */
static int make(struct tap *tap, const struct tap_options *options, char *why, size_t why_size)
{
	char detail[128];
	tap->multi_queue = true;
	int r = open_pair(tap, options, 0);
	if (r == -EBUSY || r == -EEXIST || (r == -EINVAL && if_nametoindex(options->name)))
		return refuse(options, -EEXIST,
			      "; to use it as it is leave out the bridge, or take another name",
			      why, why_size);
	if (!r)
		r = make_own(tap, options->name);
	if (r == -EBUSY)
		return refuse(options, r, "; somebody else has attached to it already", why,
			      why_size);
	if (r < 0)
		return refuse(options, r,
			      r == -EPERM
				      ? ": CAP_NET_ADMIN makes one; or have it made for this user: "
					"'ip tuntap add ... user $USER'"
				      : "",
			      why, why_size);
	r = bridge_join(options->bridge, options->name, detail, sizeof(detail));
	if (r < 0)
		snprintf(why, why_size, "%s: tap %s: %s", options->user.name, options->name,
			 detail);
	return r;
}

/* The guest's packets have to fit; one that is larger than usual is not made use of. */
static uint16_t mtu_of(const char *name)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = 0;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &request) == 0)
		mtu = request.ifr_mtu;
	if (fd >= 0)
		close(fd);
	return mtu >= MTU_MIN && mtu < MTU_USUAL ? (uint16_t)mtu : MTU_USUAL;
}

static int attach_first(struct tap *tap, const struct tap_options *options, char *why,
			size_t why_size)
{
	int header = NET_HEADER_BYTES;
	if (!options->bridge[0] && !if_nametoindex(options->name)) {
		snprintf(why, why_size,
			 "%s: there is no tap %s; 'ip tuntap add %s mode tap multi_queue user "
			 "$USER' and 'ip link set %s up' make one, or bridge=NAME beside it",
			 options->user.name, options->name, options->name, options->name);
		return -ENODEV;
	}
	tap->fd[0] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap->fd[0] < 0)
		return refuse(options, -errno,
			      errno == EACCES || errno == EPERM
				      ? ": /dev/net/tun; let this user read and write it"
			      : errno == ENOENT || errno == ENODEV || errno == ENXIO
				      ? ": /dev/net/tun; 'modprobe tun' may help"
				      : ": /dev/net/tun",
			      why, why_size);
	int r = options->bridge[0] ? make(tap, options, why, why_size)
				   : open_there(tap, options, why, why_size);
	if (r < 0)
		return r;
	if (ioctl(tap->fd[0], TUNSETVNETHDRSZ, &header) < 0)
		return refuse(options, -errno, "; its kernel is too old", why, why_size);
	tap->attached = 1;
	tap->net.info.pairs = 1;
	tap->net.info.mtu = mtu_of(options->name);
	return 0;
}

/* Opened now, while it may still be said what is wrong, and detached until the guest uses them. */
static int attach_others(struct tap *tap, const struct tap_options *options, char *why,
			 size_t why_size)
{
	for (uint16_t pair = 1; tap->multi_queue && pair < options->pairs; pair++) {
		int r = 0;
		tap->fd[pair] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (tap->fd[pair] < 0)
			r = -errno;
		if (!r)
			r = open_pair(tap, options, pair);
		if (!r)
			r = set_attached(tap, pair, false);
		if (r < 0)
			return refuse(options, r, ": one more of its queues", why, why_size);
		tap->net.info.pairs++;
	}
	return 0;
}

static int watch(struct tap *tap, const struct tap_options *options, char *why, size_t why_size)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	int r = 0;
	tap->net.fd = epoll_create1(EPOLL_CLOEXEC);
	if (tap->net.fd < 0)
		r = -errno;
	for (uint16_t pair = 0; pair < tap->net.info.pairs && !r; pair++)
		if (epoll_ctl(tap->net.fd, EPOLL_CTL_ADD, tap->fd[pair], &event) < 0)
			r = -errno;
	return r < 0 ? refuse(options, r, "", why, why_size) : 0;
}

int tap_open(const struct tap_options *options, struct net **ret_net, char *why, size_t why_size)
{
	if (options->pairs < 1 || options->pairs > NET_PAIRS_MAX)
		return refuse(options, -EINVAL, "; it cannot have so many pairs of queues", why,
			      why_size);
	struct tap *tap = calloc(1, sizeof(*tap));
	if (!tap)
		return refuse(options, -ENOMEM, "", why, why_size);
	for (uint16_t pair = 0; pair < NET_PAIRS_MAX; pair++)
		tap->fd[pair] = -1;
	tap->net = (struct net){
		.ops = &tap_ops,
		.fd = -1,
		.info = { .mtu = MTU_USUAL, .checksum = true, .segments = true },
	};
	tap->packets = malloc((size_t)options->pairs * NET_PACKET_MAX);
	int r = tap->packets ? attach_first(tap, options, why, why_size)
			     : refuse(options, -ENOMEM, "", why, why_size);
	if (!r)
		r = attach_others(tap, options, why, why_size);
	if (!r)
		r = watch(tap, options, why, why_size);
	if (r < 0) {
		tap_destroy(&tap->net);
		return r;
	}
	*ret_net = &tap->net;
	return 0;
}

/* -1: it is nobody's, or there is none. */
static long long number_of(const char *name, const char *what)
{
	char path[128];
	long long number = -1;
	snprintf(path, sizeof(path), "/sys/class/net/%s/%s", name, what);
	FILE *file = fopen(path, "re");
	if (file && fscanf(file, "%lld", &number) != 1)
		number = -1;
	if (file)
		fclose(file);
	return number;
}

/* As the kernel decides it (tun_not_capable()). */
bool tap_is_others(const char *name)
{
	long long owner = number_of(name, "owner"), group = number_of(name, "group");
	return (owner != -1 && owner != geteuid()) || (group != -1 && !group_member((gid_t)group));
}
