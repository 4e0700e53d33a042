/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network of this host: a tap, or a user's (libslirp). Packets go in and out with virtio's header
 * of 12 bytes in front (virtio 1.2, 5.1.6), which a tap takes as it is.
 *
 *	net_send() ...                    packets of the guest
 *	net_peek(), net_drop() ... NULL   packets for the guest
 *	net_settle()                      before the thread waits
 *	(net_fd() is readable)
 *	net_work()                        looks what has happened
 *
 * One thread owns a network and makes all calls; none of them waits. A network drops what it cannot
 * keep, as networks do; what it keeps is bounded.
 */
#ifndef BACKEND_NET_H
#define BACKEND_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define NET_HEADER_BYTES 12u
#define NET_PACKET_MAX	 (NET_HEADER_BYTES + 65550u) /* with header */
#define NET_IOV_MAX	 64u
#define NET_PAIRS_MAX	 32u

struct net_info {
	uint16_t mtu;
	uint16_t pairs; /* of queues, 1 to NET_PAIRS_MAX */
	/* What the network takes without a checksum, and whole where it is too large for the wire;
	 * and whether it gives packets of that kind if told to by net_offload(). */
	bool checksum, segments;
};

/* What the guest's driver accepts (VIRTIO_NET_F_GUEST_*). */
struct net_offloads {
	bool checksum, tso4, tso6, ecn;
};

struct net;

struct net_ops {
	int (*send)(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count);
	const uint8_t *(*peek)(struct net *net, uint16_t pair, uint32_t *ret_bytes);
	void (*drop)(struct net *net, uint16_t pair);
	int (*offload)(struct net *net, const struct net_offloads *offloads);
	int (*set_pairs)(struct net *net, uint16_t pairs);
	void (*settle)(struct net *net);
	void (*work)(struct net *net);
	void (*destroy)(struct net *net);
};

/* The beginning of every kind of network. `info` and `fd` never change. */
struct net {
	const struct net_ops *ops;
	struct net_info info;
	int fd;
};

/* 0: gone, or dropped. -EAGAIN: ask again after the next net_work(). */
static inline int net_send(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	return net->ops->send(net, pair, iov, count);
}

/*
 * The next packet for that pair, where it lies, with its header; it stays until net_drop(), or until
 * the pair is no longer in use. At least NET_HEADER_BYTES, at most NET_PACKET_MAX. NULL: there is none.
 */
static inline const uint8_t *net_peek(struct net *net, uint16_t pair, uint32_t *ret_bytes)
{
	return net->ops->peek(net, pair, ret_bytes);
}

/* It has been taken. There was one. */
static inline void net_drop(struct net *net, uint16_t pair)
{
	net->ops->drop(net, pair);
}

/* 0, or -EOPNOTSUPP and nothing has changed. */
static inline int net_offload(struct net *net, const struct net_offloads *offloads)
{
	return net->ops->offload(net, offloads);
}

/* How many pairs the guest uses, 1 to info.pairs. 0, or -errno: it does not, and some may be lost. */
static inline int net_set_pairs(struct net *net, uint16_t pairs)
{
	return net->ops->set_pairs(net, pairs);
}

static inline void net_settle(struct net *net)
{
	net->ops->settle(net);
}

static inline void net_work(struct net *net)
{
	net->ops->work(net);
}

static inline int net_fd(const struct net *net)
{
	return net->fd;
}

static inline void net_destroy(struct net *net)
{
	if (net)
		net->ops->destroy(net);
}

#endif
