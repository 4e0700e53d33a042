// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes virtio-net's front half as fuzz_virtio.c does virtio-blk's: a driver that writes anywhere,
 * makes packets, buffers and commands that are nearly right, and resets; memory that is missing; a
 * network that is full, and one that has packets of any size. Nothing outside memory is touched, the
 * network gets nothing that is no packet, what it has is taken as backend/net.h says, and after a
 * reset no page is pinned.
 *
 * The network keeps to its contract: a packet that was looked at stays until it is dropped, or its pair
 * is given up, and is freed then: AddressSanitizer sees who looks later.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/virtio_rig.h"
#include "virtio/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES 0x50000u
#define PAIRS	     2u
#define QUEUES	     (2 * PAIRS + 1)
#define DATA_AT	     (MODEL_BASE + QUEUES * MODEL_RING_BYTES)

/* Packets for a pair: the first may have been looked at. */
struct waiting {
	uint32_t count, bytes;
	uint8_t *packet; /* the first, of packet_bytes; NULL: nobody has looked */
	uint32_t packet_bytes;
};

struct rig {
	struct virtio_rig virtio; /* first */
	struct net net;
	uint16_t pairs;
	uint32_t room;
	struct waiting waiting[PAIRS];
};

static struct rig *rig_of(struct net *net)
{
	return (struct rig *)((uint8_t *)net - offsetof(struct rig, net));
}

/* Every byte is looked at: the sanitizers see one that is not the guest's. */
static int fuzz_send(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	static volatile uint8_t sum;
	size_t bytes = 0;

	if (pair >= PAIRS || count > NET_IOV_MAX)
		abort();
	if (rig_of(net)->room == 0)
		return -EAGAIN;
	rig_of(net)->room--;
	for (uint32_t i = 0; i < count; i++) {
		for (size_t at = 0; at < iov[i].iov_len; at += 64)
			sum += ((const uint8_t *)iov[i].iov_base)[at];
		bytes += iov[i].iov_len;
	}
	if (bytes < NET_HEADER_BYTES + 14 || bytes > NET_PACKET_MAX)
		abort();
	return 0;
}

static const uint8_t *fuzz_peek(struct net *net, uint16_t pair, uint32_t *ret_bytes)
{
	struct waiting *waiting;

	if (pair >= rig_of(net)->pairs)
		abort();
	waiting = &rig_of(net)->waiting[pair];
	if (waiting->count == 0)
		return NULL;
	if (!waiting->packet) {
		waiting->packet_bytes = waiting->bytes;
		waiting->packet = calloc(1, waiting->packet_bytes);
		if (!waiting->packet)
			abort();
	}
	*ret_bytes = waiting->packet_bytes;
	return waiting->packet;
}

static void forget(struct waiting *waiting)
{
	free(waiting->packet);
	waiting->packet = NULL;
}

static void fuzz_drop(struct net *net, uint16_t pair)
{
	struct waiting *waiting;

	if (pair >= rig_of(net)->pairs)
		abort();
	waiting = &rig_of(net)->waiting[pair];
	if (waiting->count == 0 || !waiting->packet)
		abort();
	forget(waiting);
	waiting->count--;
}

static int fuzz_offload(struct net *net, const struct net_offloads *offloads)
{
	return 0;
}

static int fuzz_set_pairs(struct net *net, uint16_t pairs)
{
	struct rig *rig = rig_of(net);

	if (pairs < 1 || pairs > PAIRS)
		abort();
	for (uint16_t pair = pairs; pair < rig->pairs; pair++) {
		forget(&rig->waiting[pair]);
		rig->waiting[pair].count = 0;
	}
	rig->pairs = pairs;
	return 0;
}

static const struct net_ops net_ops = { .send = fuzz_send,
					.peek = fuzz_peek,
					.drop = fuzz_drop,
					.offload = fuzz_offload,
					.set_pairs = fuzz_set_pairs };

static void generation_begins(struct rig *rig)
{
	rig_reset(&rig->virtio);
	rig_set_up(&rig->virtio);
}

/* A packet, a buffer or a command. */
static void chain(struct rig *rig, struct input *input)
{
	uint32_t index = take(input, 1) % QUEUES, kind = take(input, 1);
	uint32_t parts = 1 + (kind & 7), length = take(input, 2), count = 0;
	struct model_buffer buffer[10];

	for (uint32_t i = 0; i < parts; i++)
		buffer[count++] = (struct model_buffer){ DATA_AT + take(input, 2),
							 kind & 8 ? length : 1 + length % 2000,
							 index % 2 == 0 && index != QUEUES - 1 };
	if (index == QUEUES - 1)
		buffer[count++] = (struct model_buffer){ DATA_AT + take(input, 2), 1, true };
	rig_chain(&rig->virtio, index, buffer, count, kind & 16 ? DATA_AT + (length & 0xff0) : 0);
}

/* How many pairs, as a driver says it that knows how. */
static void command(struct rig *rig, uint32_t pairs)
{
	const uint8_t bytes[4] = { 4, 0, (uint8_t)pairs };
	struct model_buffer buffer[2] = { { DATA_AT + 0xff00, sizeof(bytes), false },
					  { DATA_AT + 0xff10, 1, true } };

	memcpy(model_at(&rig->virtio.memory, buffer[0].gpa), bytes, sizeof(bytes));
	rig_chain(&rig->virtio, QUEUES - 1, buffer, 2, 0);
	virtio_front_work(rig->virtio.front, QUEUES - 1);
}

static void registers(struct rig *rig, struct input *input)
{
	uint32_t what = take(input, 1), value = take(input, 2), change = what % 8;

	if (change == 0) {
		generation_begins(rig);
		virtio_front_publish(rig->virtio.front, &rig->virtio.published);
	} else if (change == 7) {
		command(rig, value % 4);
	} else {
		rig_change(&rig->virtio, (enum rig_change)(change - 1), value, value);
	}
}

/* Packets come for a pair that is in use; those that wait already stay. */
static void network(struct rig *rig, struct input *input, uint32_t what)
{
	struct waiting *waiting = &rig->waiting[what / 32 % PAIRS];

	if (what / 32 % PAIRS < rig->pairs)
		waiting->count = (waiting->packet ? 1 : 0) + what / 8 % 4;
	waiting->bytes = NET_HEADER_BYTES + take(input, 2) % (NET_PACKET_MAX - 12);
	rig->room = what / 8;
	virtio_net_ready(rig->virtio.front);
}

static void step(struct rig *rig, struct input *input)
{
	uint32_t what = take(input, 1);

	switch (what % 8) {
	case 0:
		rig_scribble(&rig->virtio, input);
		break;
	case 1:
	case 2:
	case 3:
		chain(rig, input);
		break;
	case 4:
		virtio_front_work(rig->virtio.front, (uint16_t)(what / 8 % (QUEUES + 1)));
		break;
	case 5:
		network(rig, input, what);
		break;
	case 6:
		registers(rig, input);
		break;
	default:
		rig_memory_fails(&rig->virtio, what);
		break;
	}
}

static void begin(struct rig *rig)
{
	struct virtio_net_config config = { .net = &rig->net, .pairs = PAIRS };
	struct virtio_host host;

	*rig = (struct rig){ .room = 10, .pairs = 1 };
	rig_begin(&rig->virtio, MEMORY_BYTES, QUEUES);
	for (uint32_t q = 0; q < QUEUES; q += 2)
		rig->virtio.size[q] = 128;
	rig->net = (struct net){
		.ops = &net_ops,
		.info = { .mtu = 1500, .pairs = PAIRS, .checksum = true, .segments = true }
	};
	host = model_host_of(&rig->virtio.host);
	virtio_net_offer(&rig->net.info, config.mac, PAIRS, &rig->virtio.offer);
	if (virtio_net_create(&config, &host, &rig->virtio.front) < 0)
		abort();
	generation_begins(rig);
	rig_run(&rig->virtio);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct rig rig;

	begin(&rig);
	for (uint32_t i = 0; i < RIG_STEPS_MAX && input.left > 0; i++)
		step(&rig, &input);

	rig_reset(&rig.virtio);
	if (!rig_has_stopped(&rig.virtio))
		abort();
	rig_end(&rig.virtio);
	for (uint32_t pair = 0; pair < PAIRS; pair++)
		forget(&rig.waiting[pair]);
	return 0;
}
