/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's front half: see net.h.
 *
 * Sending: the header is copied and judged, the packet's pages are pinned while the network takes it,
 * which is one call; where they cannot be had at once the packet is copied.
 *
 * Receiving: a packet is copied from where it lies with the network into as many of the guest's buffers
 * as it needs, page by page, and only then taken. So it is not lost while the guest's memory is
 * missing: it waits, and others wait behind it with the network, which bounds them.
 *
 *	      .------------- next --------------.
 *	      v                                 |
 *	   net_peek() -> COLLECT* -> COPY* -> USED*, net_drop()    (* goes on where it was, after -EAGAIN)
 *
 * The guest's receive filters are taken note of and not applied: what a network delivers is for it.
 *
 * Tested in tests/virtio/test_net.c, fuzzed by tests/fuzz/fuzz_virtio_net.c.
 */
#include "virtio/net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net_header.h"
#include "core/limits.h"
#include "virtio/queue.h"

/* Feature bits and the device's configuration (virtio 1.2, 5.1.3 and 5.1.4). */
#define F_CSUM		      (1ull << 0)
#define F_GUEST_CSUM	      (1ull << 1)
#define F_CTRL_GUEST_OFFLOADS (1ull << 2)
#define F_MTU		      (1ull << 3)
#define F_MAC		      (1ull << 5)
#define F_GUEST_TSO4	      (1ull << 7)
#define F_GUEST_TSO6	      (1ull << 8)
#define F_GUEST_ECN	      (1ull << 9)
#define F_HOST_TSO4	      (1ull << 11)
#define F_HOST_TSO6	      (1ull << 12)
#define F_HOST_ECN	      (1ull << 13)
#define F_MRG_RXBUF	      (1ull << 15)
#define F_STATUS	      (1ull << 16)
#define F_CTRL_VQ	      (1ull << 17)
#define F_CTRL_RX	      (1ull << 18)
#define F_MQ		      (1ull << 22)
#define F_CTRL_MAC_ADDR	      (1ull << 23)

#define F_GUEST_SEGMENTS (F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN)

struct net_registers {
	uint8_t mac[6];
	uint16_t status;
	uint16_t max_virtqueue_pairs;
	uint16_t mtu;
};

_Static_assert(sizeof(struct net_registers) == 12, "virtio 1.2, 5.1.4");
_Static_assert(sizeof(struct net_header) == NET_HEADER_BYTES, "virtio 1.2, 5.1.6");

#define STATUS_LINK_UP 1u

/* The control queue (virtio 1.2, 5.1.6.5). */
enum control_class { CLASS_RX = 0, CLASS_MAC = 1, CLASS_MQ = 4, CLASS_OFFLOADS = 5 };
enum { RX_COMMANDS = 6 };
enum { MAC_TABLE_SET = 0, MAC_ADDR_SET = 1 };
enum { ACK_OK = 0, ACK_ERROR = 1 };

#define NO_QUEUE       UINT16_MAX
#define RX_CHAINS_MAX  64u /* buffers of one packet */
#define RX_SPANS_MAX   (2u * RX_CHAINS_MAX)
#define TX_CHAIN_MAX   64u
#define PIN_TRIES_MAX  4u
#define PACKET_BYTES   NET_PACKET_MAX
#define CONTROL_BYTES  16u  /* of a command that are looked at */
#define COMMAND_CHAINS 128u /* of a queue's share: a command may be dozens of calls of the kernel */
#define ETHERNET_BYTES 14u

struct rx_chain {
	uint16_t head;
	uint32_t bytes, used;
};

struct net_queue {
	struct virtio_queue ring;
	struct virtio_chain chain;
	uint8_t *packet; /* PACKET_BYTES: what is sent by a copy */
	struct net_header header;
	size_t done; /* bytes of what is being copied now */

	/* Sending and control: a chain that has been popped is at `state`. */
	enum { TX_POP, TX_HEADER, TX_DATA, TX_USED } state;
	uint8_t pin_tries;
	bool copied; /* it is in `packet` */
	bool later;  /* the network takes it after its next net_work() */
	uint8_t ack;
	uint32_t written;

	/* Receiving. */
	enum { RX_NONE, RX_COLLECT, RX_COPY, RX_USED } rx_state;
	const uint8_t *arrived; /* with the network, which keeps it until it has been taken */
	size_t packet_bytes;	/* header included */
	uint64_t room;		/* in the chains so far */
	uint32_t chain_count, span_count, span_at, filled;
	struct rx_chain rx_chain[RX_CHAINS_MAX];
	struct dma_span rx_span[RX_SPANS_MAX];
};

struct virtio_net {
	struct virtio_front front; /* first */
	struct virtio_net_config config;
	uint16_t pairs;	  /* in use */
	uint32_t turn;	  /* which pair is tried first */
	uint16_t control; /* its queue */
	uint8_t *packets;
	struct net_queue *queue;
};

/* --- what the driver finds --- */

void virtio_net_offer(const struct net_info *info, const uint8_t mac[6], uint16_t pairs,
		      struct virtio_offer *ret_offer)
{
	struct net_registers registers = { .status = STATUS_LINK_UP,
					   .max_virtqueue_pairs = pairs,
					   .mtu = info->mtu };
	uint64_t features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX |
			    F_MTU | F_MAC | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX |
			    F_CTRL_MAC_ADDR;

	if (pairs > 1)
		features |= F_MQ;
	if (info->checksum)
		features |= F_CSUM | F_GUEST_CSUM;
	if (info->checksum && info->segments)
		features |= F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_GUEST_SEGMENTS |
			    F_CTRL_GUEST_OFFLOADS;
	memcpy(registers.mac, mac, sizeof(registers.mac));
	*ret_offer = (struct virtio_offer){ .kind = VIRTIO_KIND_NET,
					    .queue_count = (uint16_t)(2 * pairs + 1),
					    .queue_size = VIRTIO_NET_QUEUE_SIZE,
					    .config_bytes = sizeof(registers),
					    .features = features };
	memcpy(ret_offer->config, &registers, sizeof(registers));
}

static struct dma *dma_of(struct virtio_net *net, const struct net_queue *queue)
{
	return virtio_front_dma(&net->front, (uint16_t)(queue - net->queue));
}

static uint16_t pair_of(const struct virtio_net *net, const struct net_queue *queue)
{
	return (uint16_t)((queue - net->queue) / 2);
}

static bool net_reset(struct virtio_front *front)
{
	struct virtio_net *net = (struct virtio_net *)front;

	for (uint16_t i = 0; i < front->queue_count; i++) {
		struct net_queue *queue = &net->queue[i];

		queue->ring = (struct virtio_queue){ 0 };
		queue->state = TX_POP;
		queue->rx_state = RX_NONE;
		queue->later = false;
	}
	return true;
}

static int judged(struct virtio_net *net, int error)
{
	return virtio_front_judged(&net->front, error);
}

/* --- sending --- */

/* What the driver has not agreed on it must not ask for; the network judges the rest. */
static bool header_allowed(const struct virtio_net *net, const struct net_header *header)
{
	uint8_t gso = header->gso_type & (uint8_t)~NET_GSO_ECN;

	if ((header->flags & NET_NEEDS_CHECKSUM) && !(net->front.features & F_CSUM))
		return false;
	if (header->gso_type == NET_GSO_NONE)
		return true;
	if ((header->gso_type & NET_GSO_ECN) && !(net->front.features & F_HOST_ECN))
		return false;
	return (gso == NET_GSO_TCPV4 && (net->front.features & F_HOST_TSO4)) ||
	       (gso == NET_GSO_TCPV6 && (net->front.features & F_HOST_TSO6));
}

static int used(struct virtio_net *net, struct net_queue *queue)
{
	int error = judged(net, virtio_queue_push(&queue->ring, queue->chain.head, queue->written));

	if (error == 0)
		queue->state = TX_POP;
	return error;
}

static int send_popped(struct virtio_net *net, struct net_queue *queue)
{
	const struct virtio_chain *chain = &queue->chain;

	queue->done = 0;
	queue->pin_tries = 0;
	queue->copied = false;
	queue->written = 0;
	/* Too short or too long for a packet: there is nothing to be said to the driver. */
	if (chain->read_bytes < NET_HEADER_BYTES + ETHERNET_BYTES ||
	    chain->read_bytes > PACKET_BYTES)
		queue->state = TX_USED;
	else
		queue->state = TX_HEADER;
	return 0;
}

static int send_header(struct virtio_net *net, struct net_queue *queue)
{
	int error =
		judged(net, virtio_chain_read(dma_of(net, queue), &queue->chain, 0, &queue->header,
					      sizeof(queue->header), &queue->done));

	if (error < 0)
		return error;
	queue->header.buffers = 0;
	queue->done = 0;
	queue->state = header_allowed(net, &queue->header) ? TX_DATA : TX_USED;
	return 0;
}

static int hand_over(struct virtio_net *net, struct net_queue *queue, const struct iovec *iov,
		     uint32_t count)
{
	int error = net_send(net->config.net, pair_of(net, queue), iov, count);

	if (error == -EAGAIN) {
		queue->later = true;
		return -EBUSY;
	}
	queue->state = TX_USED;
	return 0;
}

static int send_copied(struct virtio_net *net, struct net_queue *queue)
{
	struct iovec iov[2] = { { &queue->header, sizeof(queue->header) } };
	size_t length = (size_t)queue->chain.read_bytes - NET_HEADER_BYTES;
	int error =
		judged(net, virtio_chain_read(dma_of(net, queue), &queue->chain, NET_HEADER_BYTES,
					      queue->packet, length, &queue->done));

	if (error < 0)
		return error;
	iov[1] = (struct iovec){ queue->packet, length };
	return hand_over(net, queue, iov, 2);
}

static int send_data(struct virtio_net *net, struct net_queue *queue)
{
	struct dma_span span[TX_CHAIN_MAX];
	struct iovec iov[NET_IOV_MAX];
	void *hva[TX_CHAIN_MAX];
	uint16_t count = virtio_chain_slice(&queue->chain, false, NET_HEADER_BYTES,
					    queue->chain.read_bytes, span);
	int error;

	if (queue->copied || count >= NET_IOV_MAX || queue->pin_tries == PIN_TRIES_MAX) {
		queue->copied = true;
		return send_copied(net, queue);
	}
	error = dma_pin(dma_of(net, queue), span, count, hva);
	if (error == -ENOBUFS) {
		queue->copied = true;
		return send_copied(net, queue);
	}
	queue->pin_tries += error == -EAGAIN;
	if (error < 0)
		return judged(net, error);
	iov[0] = (struct iovec){ &queue->header, sizeof(queue->header) };
	for (uint16_t i = 0; i < count; i++)
		iov[i + 1] = (struct iovec){ hva[i], span[i].length };
	error = hand_over(net, queue, iov, count + 1u);
	dma_unpin(dma_of(net, queue), span, count);
	return error;
}

/* One packet on, as far as it goes: 0: it is done; else why not. */
static int send_one(struct virtio_net *net, struct net_queue *queue)
{
	int error = 0;

	do {
		switch (queue->state) {
		case TX_POP:
			error = judged(net, virtio_queue_pop(&queue->ring, &queue->chain));
			if (error == 0)
				error = send_popped(net, queue);
			break;
		case TX_HEADER:
			error = send_header(net, queue);
			break;
		case TX_DATA:
			error = send_data(net, queue);
			break;
		case TX_USED:
			error = used(net, queue);
			break;
		}
	} while (error == 0 && queue->state != TX_POP);
	return error;
}

/* --- receiving --- */

/* The packet stays where it is; its buffers are for the next. */
static void abandon(struct net_queue *queue)
{
	virtio_queue_unpop(&queue->ring, (uint16_t)queue->chain_count);
	queue->rx_state = RX_NONE;
}

/* The packet is for nobody. */
static void drop(struct virtio_net *net, struct net_queue *queue)
{
	abandon(queue);
	net_drop(net->config.net, pair_of(net, queue));
}

static int receive_packet(struct virtio_net *net, struct net_queue *queue)
{
	uint32_t bytes;

	if (queue->ring.leaving)
		return -ENOENT;
	queue->arrived = net_peek(net->config.net, pair_of(net, queue), &bytes);
	if (!queue->arrived)
		return -ENOENT;
	memcpy(&queue->header, queue->arrived, sizeof(queue->header));
	queue->packet_bytes = bytes;
	queue->room = 0;
	queue->chain_count = queue->span_count = 0;
	queue->rx_state = RX_COLLECT;
	return 0;
}

static bool keep_chain(struct net_queue *queue)
{
	const struct virtio_chain *chain = &queue->chain;

	if (queue->chain_count == RX_CHAINS_MAX ||
	    queue->span_count + chain->count - chain->readable > RX_SPANS_MAX)
		return false;
	for (uint16_t i = chain->readable; i < chain->count; i++)
		queue->rx_span[queue->span_count++] = chain->span[i];
	queue->rx_chain[queue->chain_count++] =
		(struct rx_chain){ chain->head, (uint32_t)chain->write_bytes, 0 };
	queue->room += chain->write_bytes;
	return true;
}

/* How much of each chain the packet will take. */
static void divide(struct net_queue *queue)
{
	size_t left = queue->packet_bytes;

	for (uint32_t i = 0; i < queue->chain_count; i++) {
		struct rx_chain *chain = &queue->rx_chain[i];

		chain->used = left < chain->bytes ? (uint32_t)left : chain->bytes;
		left -= chain->used;
	}
	queue->header.buffers = (uint16_t)queue->chain_count;
	queue->done = 0;
	queue->span_at = 0;
	queue->filled = 0;
	queue->rx_state = RX_COPY;
}

static int collect(struct virtio_net *net, struct net_queue *queue)
{
	bool merge = net->front.features & F_MRG_RXBUF;

	while (queue->room < queue->packet_bytes) {
		int error;

		if (queue->chain_count > 0 && !merge) {
			drop(net, queue);
			return 0;
		}
		error = judged(net, virtio_queue_pop(&queue->ring, &queue->chain));
		if (error < 0)
			return error;
		/* The first has to take the header, and none is endless. */
		if ((queue->chain_count == 0 && queue->chain.write_bytes < NET_HEADER_BYTES) ||
		    queue->chain.write_bytes == 0 || queue->chain.write_bytes > UINT32_MAX)
			return virtio_front_broken(&net->front);
		if (!keep_chain(queue)) {
			virtio_queue_unpop(&queue->ring, 1);
			drop(net, queue);
			return 0;
		}
	}
	divide(queue);
	return 0;
}

/* The packet's bytes from `at` on, as far as they lie together. */
static const void *packet_at(const struct net_queue *queue, size_t at, size_t *ret_length)
{
	if (at < NET_HEADER_BYTES) {
		*ret_length = NET_HEADER_BYTES - at;
		return (const uint8_t *)&queue->header + at;
	}
	*ret_length = queue->packet_bytes - at;
	return queue->arrived + at;
}

/* The spans one after the other: `begin` is the packet's byte at the start of span_at. */
static int copy_packet(struct virtio_net *net, struct net_queue *queue)
{
	struct dma *dma = dma_of(net, queue);
	size_t begin = 0;

	for (uint32_t i = 0; i < queue->span_at; i++)
		begin += queue->rx_span[i].length;
	while (queue->done < queue->packet_bytes) {
		const struct dma_span *span = &queue->rx_span[queue->span_at];
		size_t in_span = queue->done - begin, length, copied = 0;
		const void *from = packet_at(queue, queue->done, &length);
		int error;

		if (length > span->length - in_span)
			length = span->length - in_span;
		error = dma_write(dma, span->gpa + in_span, from, length, &copied);
		queue->done += copied;
		if (error < 0)
			return judged(net, error);
		if (in_span + copied == span->length) {
			begin += span->length;
			queue->span_at++;
		}
	}
	queue->rx_state = RX_USED;
	return 0;
}

static int receive_used(struct virtio_net *net, struct net_queue *queue)
{
	int error = 0;

	for (; queue->filled < queue->chain_count && error == 0; queue->filled += error == 0) {
		const struct rx_chain *chain = &queue->rx_chain[queue->filled];

		error = virtio_queue_fill(&queue->ring, (uint16_t)queue->filled, chain->head,
					  chain->used);
	}
	if (error == 0)
		error = virtio_queue_publish(&queue->ring, (uint16_t)queue->chain_count);
	if (error == 0) {
		queue->rx_state = RX_NONE;
		net_drop(net->config.net, pair_of(net, queue));
	}
	return judged(net, error);
}

static int receive_one(struct virtio_net *net, struct net_queue *queue)
{
	int error = 0;

	do {
		switch (queue->rx_state) {
		case RX_NONE:
			error = receive_packet(net, queue);
			break;
		case RX_COLLECT:
			error = collect(net, queue);
			break;
		case RX_COPY:
			error = copy_packet(net, queue);
			break;
		case RX_USED:
			error = receive_used(net, queue);
			break;
		}
	} while (error == 0 && queue->rx_state != RX_NONE);
	return error;
}

/* --- the control queue --- */

static void offload(struct virtio_net *net, uint64_t bits)
{
	struct net_offloads offloads = { .checksum = bits & F_GUEST_CSUM,
					 .tso4 = bits & F_GUEST_TSO4,
					 .tso6 = bits & F_GUEST_TSO6,
					 .ecn = bits & F_GUEST_ECN };

	/* A network that cannot was not offered as if it could. */
	(void)net_offload(net->config.net, &offloads);
}

static bool set_pairs(struct virtio_net *net, uint16_t pairs)
{
	if (!(net->front.features & F_MQ) || pairs < 1 || pairs > net->config.pairs)
		return false;
	for (uint16_t pair = pairs; pair < net->pairs; pair++)
		if (net->queue[2 * pair].rx_state != RX_NONE)
			abandon(&net->queue[2 * pair]);
	if (net_set_pairs(net->config.net, pairs) < 0)
		return false;
	net->pairs = pairs;
	return true;
}

static bool command(struct virtio_net *net, const uint8_t *bytes, uint64_t length)
{
	uint64_t offloads;
	uint16_t pairs;

	if (length < 2)
		return false;
	switch (bytes[0]) {
	case CLASS_RX:
		return bytes[1] < RX_COMMANDS && length == 3;
	case CLASS_MAC:
		return bytes[1] == MAC_TABLE_SET ? length >= 10
						 : bytes[1] == MAC_ADDR_SET && length == 8;
	case CLASS_MQ:
		memcpy(&pairs, bytes + 2, sizeof(pairs));
		return bytes[1] == 0 && length == 4 && set_pairs(net, pairs);
	case CLASS_OFFLOADS:
		memcpy(&offloads, bytes + 2, sizeof(offloads));
		if (bytes[1] != 0 || length != 10 ||
		    !(net->front.features & F_CTRL_GUEST_OFFLOADS) ||
		    (offloads & ~(net->front.features & (F_GUEST_CSUM | F_GUEST_SEGMENTS))))
			return false;
		offload(net, offloads);
		return true;
	default:
		return false;
	}
}

static int control_one(struct virtio_net *net, struct net_queue *queue)
{
	struct virtio_chain *chain = &queue->chain;
	uint8_t *bytes = queue->packet;
	size_t length;
	int error;

	if (queue->state == TX_POP) {
		error = judged(net, virtio_queue_pop(&queue->ring, chain));
		if (error < 0)
			return error;
		if (chain->write_bytes < 1)
			return virtio_front_broken(&net->front);
		memset(bytes, 0, CONTROL_BYTES);
		queue->done = 0;
		queue->state = TX_HEADER;
	}
	if (queue->state == TX_HEADER) {
		length = chain->read_bytes < CONTROL_BYTES ? (size_t)chain->read_bytes
							   : CONTROL_BYTES;
		error = judged(net, virtio_chain_read(dma_of(net, queue), chain, 0, bytes, length,
						      &queue->done));
		if (error < 0)
			return error;
		queue->ack = command(net, bytes, chain->read_bytes) ? ACK_OK : ACK_ERROR;
		queue->written = 1;
		queue->done = 0;
		queue->state = TX_DATA;
	}
	if (queue->state == TX_DATA) {
		error = judged(net, virtio_chain_write(dma_of(net, queue), chain, 0, &queue->ack, 1,
						       &queue->done));
		if (error < 0)
			return error;
		queue->state = TX_USED;
	}
	return used(net, queue);
}

/* --- queues --- */

static void run_queue(struct virtio_net *net, uint16_t index)
{
	struct net_queue *queue = &net->queue[index];
	int error = 0;

	bool unused = index % 2 == 0 && index != net->control && index >= 2 * net->pairs;
	uint32_t chains = index == net->control ? COMMAND_CHAINS : 1;

	if (!virtio_front_runs(&net->front) || !queue->ring.ready || unused)
		return;
	queue->later = false;
	for (uint32_t i = 0; error == 0 && !virtio_front_share(&net->front, index, i);
	     i += chains) {
		if (index == net->control)
			error = control_one(net, queue);
		else if (index % 2)
			error = send_one(net, queue);
		else
			error = receive_one(net, queue);
	}
	virtio_front_tell(&net->front, index, &queue->ring);
}

static void net_run(struct virtio_front *front, uint16_t queue)
{
	run_queue((struct virtio_net *)front, queue);
}

void virtio_net_ready(struct virtio_front *front)
{
	struct virtio_net *net = (struct virtio_net *)front;

	uint32_t first = net->turn++;

	/* What waits on a pair that is no longer in use leaves, too. And each comes first in its turn. */
	for (uint32_t i = 0; i < net->config.pairs; i++) {
		uint16_t pair = (uint16_t)((first + i) % net->config.pairs);

		if (pair < net->pairs)
			run_queue(net, (uint16_t)(2 * pair));
		if (net->queue[2 * pair + 1].later)
			run_queue(net, (uint16_t)(2 * pair + 1));
	}
}

void virtio_net_say(struct virtio_front *front, uint16_t index, char *to)
{
	static const char *const sends[] = { "", "a header", "a packet", "used" };
	static const char *const receives[] = { "", "buffers", "a packet", "used" };
	const struct virtio_net *net = (struct virtio_net *)front;
	const struct net_queue *queue = &net->queue[index];
	bool in = index % 2 == 0 && index != net->control;
	const char *at = in ? receives[queue->rx_state] : sends[queue->state];

	snprintf(to, VIRTIO_NET_SAY_BYTES, "%s%s%s", at[0] ? ", under way: " : "", at,
		 queue->later ? ", the network takes it later" : "");
}

/* --- life --- */

/* The network's pairs, and one queue more: a driver that takes no notice of F_MQ has it elsewhere. */
static bool is_queue(const struct virtio_net *net, uint16_t index)
{
	return index == net->control || index < 2 * net->config.pairs;
}

static int net_start(struct virtio_front *front, const struct virtio_published *published)
{
	struct virtio_net *net = (struct virtio_net *)front;
	int error = 0;

	net->pairs = 1;
	net->control = (uint16_t)(front->features & F_MQ ? 2 * net->config.pairs : 2);
	if (!(front->features & F_CTRL_VQ))
		net->control = NO_QUEUE;
	(void)net_set_pairs(net->config.net, 1);
	offload(net, front->features);
	for (uint16_t i = 0; error == 0 && i < front->queue_count && i < published->queue_count;
	     i++)
		if (published->queue[i].enabled && is_queue(net, i))
			error = virtio_queue_start(&net->queue[i].ring, virtio_front_dma(front, i),
						   &published->queue[i], front->features,
						   TX_CHAIN_MAX);
	return error;
}

static struct virtio_queue *net_ring(struct virtio_front *front, uint16_t queue)
{
	return &((struct virtio_net *)front)->queue[queue].ring;
}

/* The control queue speaks for the whole card, and stays. */
static int net_quiet(struct virtio_front *front, uint16_t index)
{
	struct virtio_net *net = (struct virtio_net *)front;
	struct net_queue *queue = &net->queue[index];

	if (index == net->control || index >= 2 * net->config.pairs)
		return -EOPNOTSUPP;
	if (index % 2)
		return queue->state == TX_POP ? 0 : -EBUSY;
	/* A packet for which the driver has no buffers stays with its network. */
	if (queue->ring.leaving && queue->rx_state == RX_COLLECT)
		abandon(queue);
	return queue->rx_state == RX_NONE ? 0 : -EBUSY;
}

static void net_destroy_front(struct virtio_front *front)
{
	struct virtio_net *net = (struct virtio_net *)front;

	free(net->packets);
	free(net->queue);
	free(net);
}

static const struct virtio_front_ops net_ops = { .reset = net_reset,
						 .start = net_start,
						 .run = net_run,
						 .ring = net_ring,
						 .quiet = net_quiet,
						 .destroy = net_destroy_front };

int virtio_net_create(const struct virtio_net_config *config, const struct virtio_host *host,
		      struct virtio_front **ret_front)
{
	struct virtio_net *net;

	if (config->pairs == 0 || config->pairs > NET_PAIRS_MAX ||
	    config->pairs > config->net->info.pairs)
		return -EINVAL;
	net = calloc(1, sizeof(*net));
	if (!net)
		return -ENOMEM;
	net->front = (struct virtio_front){ .ops = &net_ops,
					    .host = *host,
					    .queue_count = (uint16_t)(2 * config->pairs + 1) };
	net->config = *config;
	net->queue = calloc(net->front.queue_count, sizeof(*net->queue));
	net->packets = malloc((size_t)net->front.queue_count * PACKET_BYTES);
	if (!net->queue || !net->packets) {
		net_destroy_front(&net->front);
		return -ENOMEM;
	}
	for (uint16_t i = 0; i < net->front.queue_count; i++)
		net->queue[i].packet = net->packets + (size_t)i * PACKET_BYTES;
	*ret_front = &net->front;
	return 0;
}
