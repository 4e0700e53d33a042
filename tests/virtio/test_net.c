/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's front half against a model driver and a model network: packets of all sizes both ways,
 * whatever memory is missing; a network that takes nothing; the control queue; drivers that lie.
 */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net_header.h"
#include "tests/virtio/model.h"
#include "virtio/net.h"

#define MEMORY_BYTES (2u << 20)
#define PAIRS	     2u
#define QUEUES	     (2 * PAIRS + 1)
#define CONTROL	     (2 * PAIRS)
#define RING_AT(q)   (MODEL_BASE + (q)*MODEL_RING_BYTES)
#define DATA_AT	     0x100000u
#define TABLE_AT     0x80000u

#define F_CSUM	    (1ull << 0)
#define F_HOST_TSO4 (1ull << 11)
#define F_MRG_RXBUF (1ull << 15)
#define F_MQ	    (1ull << 22)

#define KEPT 16u

struct packet {
	uint16_t pair;
	size_t bytes;
	uint8_t data[NET_PACKET_MAX];
};

struct model_net {
	struct net net; /* first */
	struct packet *sent, *waiting;
	uint32_t sent_count, waiting_first, waiting_count;
	uint32_t room; /* packets that it takes */
	struct net_offloads offloads;
	uint16_t pairs;
};

static int model_send(struct net *base, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	struct model_net *net = (struct model_net *)base;
	struct packet *packet = &net->sent[net->sent_count];

	assert_true(pair < PAIRS && count <= NET_IOV_MAX);
	if (net->room == 0)
		return -EAGAIN;
	net->room--;
	net->sent_count++;
	packet->pair = pair;
	packet->bytes = 0;
	for (uint32_t i = 0; i < count; i++) {
		memcpy(packet->data + packet->bytes, iov[i].iov_base, iov[i].iov_len);
		packet->bytes += iov[i].iov_len;
	}
	return 0;
}

static const uint8_t *model_peek(struct net *base, uint16_t pair, uint32_t *ret_bytes)
{
	struct model_net *net = (struct model_net *)base;
	const struct packet *packet = &net->waiting[net->waiting_first];

	assert_true(pair < net->pairs);
	if (net->waiting_first == net->waiting_count || packet->pair != pair)
		return NULL;
	*ret_bytes = (uint32_t)packet->bytes;
	return packet->data;
}

static void model_drop(struct net *base, uint16_t pair)
{
	struct model_net *net = (struct model_net *)base;

	assert_true(pair < net->pairs && net->waiting_first < net->waiting_count &&
		    net->waiting[net->waiting_first].pair == pair);
	net->waiting_first++;
}

static int model_offload(struct net *base, const struct net_offloads *offloads)
{
	((struct model_net *)base)->offloads = *offloads;
	return 0;
}

static int model_set_pairs(struct net *base, uint16_t pairs)
{
	((struct model_net *)base)->pairs = pairs;
	return 0;
}

static const struct net_ops model_ops = { .send = model_send,
					  .peek = model_peek,
					  .drop = model_drop,
					  .offload = model_offload,
					  .set_pairs = model_set_pairs };

struct rig {
	struct model_memory memory;
	struct model_net net;
	struct model_host host;
	struct model_ring ring[QUEUES];
	struct virtio_front *front;
	struct virtio_offer offer;
	struct virtio_published published;
};

static const uint8_t mac[6] = { 2, 3, 4, 5, 6, 7 };

static void driver_starts(struct rig *rig, uint64_t without)
{
	rig->published.generation++;
	rig->published.running = false;
	virtio_front_publish(rig->front, &rig->published);
	rig->published.features = rig->offer.features & ~without;
	rig->published.queue_count = QUEUES;
	for (uint32_t q = 0; q < QUEUES; q++) {
		memset(model_at(&rig->memory, RING_AT(q)), 0, MODEL_RING_BYTES);
		model_ring_init(&rig->ring[q], &rig->memory, RING_AT(q), 256);
		rig->published.queue[q] = model_ring_published(&rig->ring[q]);
	}
	rig->published.running = true;
	virtio_front_publish(rig->front, &rig->published);
}

static void rig_create(struct rig *rig, uint64_t without)
{
	struct virtio_net_config config = { .pairs = PAIRS };
	struct virtio_host host;

	memset(rig, 0, sizeof(*rig));
	model_memory_create(&rig->memory, MEMORY_BYTES);
	rig->net = (struct model_net){ .net = { .ops = &model_ops,
						.info = { .mtu = 1500,
							  .pairs = PAIRS,
							  .checksum = true,
							  .segments = true } },
				       .sent = calloc(KEPT, sizeof(struct packet)),
				       .waiting = calloc(KEPT, sizeof(struct packet)),
				       .room = KEPT };
	rig->host.memory = &rig->memory;
	host = model_host_of(&rig->host);
	config.net = &rig->net.net;
	memcpy(config.mac, mac, sizeof(mac));
	virtio_net_offer(&rig->net.net.info, mac, PAIRS, &rig->offer);
	assert_int_equal(virtio_offer_check(&rig->offer), 0);
	assert_int_equal(virtio_net_create(&config, &host, &rig->front), 0);
	driver_starts(rig, without);
}

static void rig_destroy(struct rig *rig)
{
	assert_int_equal(rig->memory.pins, 0);
	virtio_front_destroy(rig->front);
	free(rig->net.sent);
	free(rig->net.waiting);
	model_memory_destroy(&rig->memory);
}

static void settle(struct rig *rig)
{
	do {
		rig->memory.asked = false;
		for (uint16_t q = 0; q < QUEUES; q++)
			virtio_front_work(rig->front, q);
		virtio_net_ready(rig->front);
	} while (rig->memory.asked);
}

static void fill(struct rig *rig, uint64_t gpa, size_t length)
{
	uint8_t *at = model_at(&rig->memory, gpa);

	for (size_t i = 0; i < length; i++)
		at[i] = (uint8_t)(i * 7 + i / 256);
}

static void put_header(struct rig *rig, uint64_t gpa, struct net_header header)
{
	memcpy(model_at(&rig->memory, gpa), &header, sizeof(header));
}

/* A packet of so many bytes with the header before it, in parts of `part`. */
static void send(struct rig *rig, uint32_t pair, uint32_t bytes, uint32_t part, bool table)
{
	struct model_buffer buffer[70];
	uint16_t count = 0;

	for (uint32_t at = 0; at < bytes; at += part)
		buffer[count++] =
			(struct model_buffer){ DATA_AT + at, part < bytes - at ? part : bytes - at,
					       false };
	model_ring_add(&rig->ring[2 * pair + 1], buffer, count, table ? TABLE_AT : 0);
}

static void packets_go_out(void **state)
{
	static const uint32_t bytes[] = { 26, 60, 1514 + 12, 9000, 65562 };
	struct rig rig;
	uint32_t head, written, sent = 0;

	rig_create(&rig, 0);
	fill(&rig, DATA_AT, 70000);
	put_header(&rig, DATA_AT, (struct net_header){ .gso_type = NET_GSO_TCPV4, .buffers = 9 });
	for (uint32_t i = 0; i < 15; i++) {
		uint32_t part = i < 5 ? 70000 : i < 10 ? 1000 : 12, length = bytes[i % 5];

		if (length / part > 60)
			part = 4096;
		rig.memory.pages_max = i % 2 ? 1 : 0;
		send(&rig, i % 2, length, part, i % 3);
		settle(&rig);
		assert_int_equal(rig.net.sent_count, ++sent);
		assert_int_equal(rig.net.sent[sent - 1].pair, i % 2);
		assert_int_equal(rig.net.sent[sent - 1].bytes, length);
		/* But for the field that is the device's. */
		assert_int_equal(rig.net.sent[sent - 1].data[10], 0);
		assert_memory_equal(rig.net.sent[sent - 1].data + 12,
				    model_at(&rig.memory, DATA_AT + 12), length - 12);
		assert_true(model_ring_used(&rig.ring[2 * (i % 2) + 1], &head, &written));
		assert_int_equal(written, 0);
	}
	rig_destroy(&rig);
}

static void packets_that_are_none(void **state)
{
	struct rig rig;
	uint32_t head, written;
	struct net_header asks[] = { { .flags = NET_NEEDS_CHECKSUM },
				     { .gso_type = NET_GSO_TCPV4 },
				     { .gso_type = NET_GSO_UDP },
				     { .gso_type = 77 },
				     { .gso_type = NET_GSO_ECN } };

	/* Too short, too long; asking for what was not agreed on: used, and not sent. */
	rig_create(&rig, F_CSUM | F_HOST_TSO4 | 1ull << 13);
	send(&rig, 0, 12, 12, false);
	send(&rig, 0, 25, 25, false);
	send(&rig, 0, NET_PACKET_MAX + 1, NET_PACKET_MAX + 1, false);
	for (uint32_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
		put_header(&rig, DATA_AT + 0x20000 + i * 64, asks[i]);
		model_ring_add(&rig.ring[1],
			       &(struct model_buffer){ DATA_AT + 0x20000 + i * 64, 64, false }, 1,
			       0);
	}
	settle(&rig);
	assert_int_equal(rig.net.sent_count, 0);
	for (uint32_t i = 0; i < 8; i++)
		assert_true(model_ring_used(&rig.ring[1], &head, &written));
	assert_int_equal(rig.host.resets, 0);
	rig_destroy(&rig);
}

static void a_network_that_is_full(void **state)
{
	struct rig rig;

	rig_create(&rig, 0);
	rig.net.room = 3;
	for (uint32_t i = 0; i < 10; i++)
		send(&rig, i % 2, 100, 50, false);
	settle(&rig);
	assert_int_equal(rig.net.sent_count, 3);
	rig.net.room = 20;
	for (uint16_t q = 0; q < QUEUES; q++)
		virtio_front_work(rig.front, q);
	assert_int_equal(rig.net.sent_count, 10);
	rig_destroy(&rig);
}

static void arrives(struct rig *rig, uint16_t pair, size_t bytes)
{
	struct packet *packet = &rig->net.waiting[rig->net.waiting_count++];

	packet->pair = pair;
	packet->bytes = bytes;
	for (size_t i = 0; i < bytes; i++)
		packet->data[i] = (uint8_t)(i * 3 + bytes);
}

/* A buffer of the guest's for packets. */
static void offer_buffer(struct rig *rig, uint16_t pair, uint64_t gpa, uint32_t bytes)
{
	struct model_buffer half[2] = { { gpa, bytes / 2, true },
					{ gpa + bytes / 2, bytes - bytes / 2, true } };

	model_ring_add(&rig->ring[2 * pair], half, 2, 0);
}

/* Takes a packet of so many buffers of 4096 at DATA_AT from the used ring; its bytes. */
static size_t taken(struct rig *rig, uint16_t pair, uint32_t buffers)
{
	uint32_t head, written;
	size_t bytes = 0;

	for (uint32_t i = 0; i < buffers; i++) {
		assert_true(model_ring_used(&rig->ring[2 * pair], &head, &written));
		bytes += written;
	}
	return bytes;
}

static void packets_come_in(void **state)
{
	struct net_header header;
	struct rig rig;

	rig_create(&rig, 0);
	arrives(&rig, 0, 100);
	arrives(&rig, 0, 9000);
	arrives(&rig, 1, 4096);
	settle(&rig); /* no buffers yet */
	for (uint32_t i = 0; i < 3; i++)
		offer_buffer(&rig, 0, DATA_AT + i * 4096, 4096);
	settle(&rig); /* two of the three that the second one needs are there */
	assert_int_equal(taken(&rig, 0, 1), 100);
	memcpy(&header, model_at(&rig.memory, DATA_AT), sizeof(header));
	assert_int_equal(header.buffers, 1);
	assert_memory_equal((uint8_t *)model_at(&rig.memory, DATA_AT) + 12,
			    rig.net.waiting[0].data + 12, 100 - 12);
	offer_buffer(&rig, 0, DATA_AT + 3 * 4096, 4096);
	settle(&rig);
	assert_int_equal(taken(&rig, 0, 3), 9000);
	memcpy(&header, model_at(&rig.memory, DATA_AT + 4096), sizeof(header));
	assert_int_equal(header.buffers, 3);
	assert_memory_equal((uint8_t *)model_at(&rig.memory, DATA_AT + 4096) + 12,
			    rig.net.waiting[1].data + 12, 9000 - 12);
	assert_true(rig.host.interrupts[0] > 0);
	offer_buffer(&rig, 1, DATA_AT + 0x10000, 4096);
	settle(&rig);
	assert_int_equal(taken(&rig, 1, 0), 0); /* one pair is in use, as nobody asked for more */
	rig_destroy(&rig);
}

/* What no buffers can hold is dropped, and its buffers are for the next. */
static void packets_that_do_not_fit(void **state)
{
	struct rig rig;

	rig_create(&rig, F_MRG_RXBUF);
	arrives(&rig, 0, 5000);
	arrives(&rig, 0, 4096);
	offer_buffer(&rig, 0, DATA_AT, 4096);
	offer_buffer(&rig, 0, DATA_AT + 4096, 4096);
	settle(&rig);
	assert_int_equal(taken(&rig, 0, 1), 4096);
	assert_memory_equal((uint8_t *)model_at(&rig.memory, DATA_AT) + 12,
			    rig.net.waiting[1].data + 12, 4096 - 12);
	rig_destroy(&rig);
	rig_create(&rig, 0);
	arrives(&rig, 0, 9000);
	arrives(&rig, 0, 100);
	for (uint32_t i = 0; i < 80; i++)
		offer_buffer(&rig, 0, DATA_AT + i * 128, 100);
	settle(&rig);
	assert_int_equal(taken(&rig, 0, 1), 100);
	assert_int_equal(rig.host.resets, 0);
	rig_destroy(&rig);
}

/* A command and its answer; `alone`: the other queues do nothing meanwhile. */
static uint8_t command(struct rig *rig, const void *bytes, uint32_t length, bool alone)
{
	struct model_buffer buffer[3] = { { DATA_AT, length < 2 ? length : 2, false },
					  { DATA_AT + 2, length - 2, false },
					  { DATA_AT + 0x1000, 1, true } };
	uint32_t head, written;

	memcpy(model_at(&rig->memory, DATA_AT), bytes, length);
	*(uint8_t *)model_at(&rig->memory, DATA_AT + 0x1000) = 0xee;
	if (length <= 2)
		buffer[1] = buffer[2];
	model_ring_add(&rig->ring[CONTROL], buffer, length <= 2 ? 2 : 3, 0);
	if (alone)
		virtio_front_work(rig->front, CONTROL);
	else
		settle(rig);
	assert_true(model_ring_used(&rig->ring[CONTROL], &head, &written));
	assert_int_equal(written, 1);
	return *(uint8_t *)model_at(&rig->memory, DATA_AT + 0x1000);
}

static uint8_t control(struct rig *rig, const void *bytes, uint32_t length)
{
	return command(rig, bytes, length, false);
}

static void the_control_queue(void **state)
{
	struct rig rig;

	rig_create(&rig, 0);
	assert_true(rig.net.offloads.checksum && rig.net.offloads.tso4 && rig.net.offloads.tso6);
	assert_int_equal(rig.net.pairs, 1);
	assert_int_equal(control(&rig, "\x04\0\x02\0", 4), 0);
	assert_int_equal(rig.net.pairs, 2);
	assert_int_equal(control(&rig, "\x04\0\x03\0", 4), 1);
	assert_int_equal(control(&rig, "\x04\0\0\0", 4), 1);
	assert_int_equal(control(&rig, "\x04\0\x02", 3), 1);
	assert_int_equal(rig.net.pairs, 2);
	assert_int_equal(control(&rig, "\0\x01\x01", 3), 0); /* all multicast */
	assert_int_equal(control(&rig, "\0\x09\x01", 3), 1);
	assert_int_equal(control(&rig, "\x01\x01\x02\x03\x04\x05\x06\x07", 8), 0);
	assert_int_equal(control(&rig, "\x05\0\x01\0\0\0\0\0\0\0", 10),
			 1); /* not the guest's bit */
	assert_int_equal(control(&rig, "\x05\0\x02\0\0\0\0\0\0\0", 10), 0);
	assert_true(rig.net.offloads.checksum && !rig.net.offloads.tso4);
	assert_int_equal(control(&rig, "\x07\0\0", 3), 1);
	assert_int_equal(control(&rig, "\x04", 1), 1);
	assert_int_equal(rig.host.resets, 0);
	/* Now the other pair gets its packets, too. */
	arrives(&rig, 1, 200);
	offer_buffer(&rig, 1, DATA_AT + 0x10000, 4096);
	settle(&rig);
	assert_int_equal(taken(&rig, 1, 1), 200);
	/* Without F_MQ it is the third. */
	driver_starts(&rig, F_MQ);
	assert_int_equal(rig.net.pairs, 1);
	rig.ring[CONTROL] = rig.ring[2];
	assert_int_equal(control(&rig, "\0\0\x01", 3), 0);
	rig_destroy(&rig);
}

/* A pair that is given up in the middle of a packet: its buffers are for the next, which is another's. */
static void a_pair_that_is_given_up(void **state)
{
	for (uint64_t fail_at = 1; fail_at < 40; fail_at++) {
		struct rig rig;

		rig_create(&rig, 0);
		assert_int_equal(control(&rig, "\x04\0\x02\0", 4), 0);
		for (uint32_t i = 0; i < 3; i++)
			offer_buffer(&rig, 1, DATA_AT + 0x10000 + i * 4096, 4096);
		arrives(&rig, 1, 9000);
		rig.memory.calls = 0;
		rig.memory.fail_at = fail_at;
		virtio_net_ready(rig.front);
		rig.memory.fail_at = 0;
		bool taken_whole = rig.net.waiting_first == 1;
		assert_int_equal(command(&rig, "\x04\0\x01\0", 4, true), 0);
		assert_int_equal(rig.net.waiting_first, taken_whole);
		if (!taken_whole)
			rig.net.waiting_first++; /* as a network does with what is for nobody */
		arrives(&rig, 1, 200);
		for (uint32_t i = 0; i < 3 && taken_whole; i++)
			offer_buffer(&rig, 1, DATA_AT + 0x10000 + i * 4096, 4096);
		assert_int_equal(control(&rig, "\x04\0\x02\0", 4), 0);
		settle(&rig);
		if (taken_whole)
			assert_int_equal(taken(&rig, 1, 3), 9000);
		assert_int_equal(taken(&rig, 1, 1), 200);
		assert_memory_equal((uint8_t *)model_at(&rig.memory, DATA_AT + 0x10000) + 12,
				    rig.net.waiting[1].data + 12, 200 - 12);
		assert_int_equal(rig.host.resets, 0);
		rig_destroy(&rig);
	}
}

struct outcome {
	uint8_t *ram;
	struct packet *sent;
	uint64_t calls;
};

static void both_ways(uint64_t fail_at, uint32_t fail_every, struct outcome *ret_outcome)
{
	struct rig rig;

	rig_create(&rig, 0);
	rig.memory.calls = 0;
	rig.memory.fail_at = fail_at;
	rig.memory.fail_every = fail_every;
	fill(&rig, DATA_AT, 20000);
	put_header(&rig, DATA_AT, (struct net_header){ .flags = NET_NEEDS_CHECKSUM });
	send(&rig, 0, 3000, 700, true);
	send(&rig, 0, 10000, 4096, false);
	arrives(&rig, 0, 300);
	arrives(&rig, 0, 9000);
	for (uint32_t i = 0; i < 4; i++)
		offer_buffer(&rig, 0, DATA_AT + 0x10800 + i * 4096, 4096);
	settle(&rig);
	assert_int_equal(control(&rig, "\x04\0\x02\0", 4), 0);
	assert_int_equal(rig.net.sent_count, 2);
	assert_int_equal(taken(&rig, 0, 4), 9300);
	assert_int_equal(rig.memory.pins, 0);
	assert_true(rig.host.interrupts[0] > 0 && rig.host.interrupts[1] > 0);
	*ret_outcome = (struct outcome){ rig.memory.ram, rig.net.sent, rig.memory.calls };
	rig.memory.ram = NULL;
	rig.net.sent = NULL;
	rig_destroy(&rig);
}

static void every_access_may_fail(void **state)
{
	struct outcome good, outcome;

	both_ways(0, 0, &good);
	assert_true(good.calls > 50 && good.calls < 300);
	for (uint64_t i = 1; i <= good.calls + 10; i++) {
		both_ways(i <= good.calls ? i : 0,
			  i <= good.calls ? 0 : (uint32_t)(i - good.calls) + 1, &outcome);
		assert_memory_equal(outcome.ram, good.ram, MEMORY_BYTES);
		for (uint32_t p = 0; p < 2; p++) {
			assert_int_equal(outcome.sent[p].bytes, good.sent[p].bytes);
			assert_memory_equal(outcome.sent[p].data, good.sent[p].data,
					    good.sent[p].bytes);
		}
		free(outcome.ram);
		free(outcome.sent);
	}
	free(good.ram);
	free(good.sent);
}

static void expect_broken(struct rig *rig)
{
	settle(rig);
	assert_int_equal(rig->host.resets, 1);
	driver_starts(rig, 0);
	send(rig, 0, 100, 50, false);
	settle(rig);
	assert_int_equal(rig->net.sent_count, 1);
	assert_int_equal(rig->host.stopped, rig->published.generation);
	rig_destroy(rig);
}

static void drivers_that_lie(void **state)
{
	struct rig rig;

	/* A packet that is no memory; a buffer that is none, or too small for a header. */
	rig_create(&rig, 0);
	model_ring_add(&rig.ring[1], &(struct model_buffer){ 0x8000, 100, false }, 1, 0);
	expect_broken(&rig);
	rig_create(&rig, 0);
	arrives(&rig, 0, 100);
	model_ring_add(&rig.ring[0], &(struct model_buffer){ 0x8000, 4096, true }, 1, 0);
	expect_broken(&rig);
	rig_create(&rig, 0);
	arrives(&rig, 0, 100);
	model_ring_add(&rig.ring[0], &(struct model_buffer){ DATA_AT, 11, true }, 1, 0);
	expect_broken(&rig);
	/* A buffer that is to be read; a command without a place for the answer. */
	rig_create(&rig, 0);
	arrives(&rig, 0, 100);
	model_ring_add(&rig.ring[0], &(struct model_buffer){ DATA_AT, 4096, false }, 1, 0);
	expect_broken(&rig);
	rig_create(&rig, 0);
	model_ring_add(&rig.ring[CONTROL], &(struct model_buffer){ DATA_AT, 4, false }, 1, 0);
	expect_broken(&rig);
	/* A pair that the network has not: without F_MQ the last queue is nobody's. */
	rig_create(&rig, F_MQ);
	arrives(&rig, 1, 100);
	model_ring_add(&rig.ring[CONTROL], &(struct model_buffer){ DATA_AT, 4096, true }, 1, 0);
	settle(&rig);
	assert_int_equal(rig.host.resets, 0);
	rig_destroy(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packets_go_out),	   cmocka_unit_test(packets_that_are_none),
		cmocka_unit_test(a_network_that_is_full),  cmocka_unit_test(packets_come_in),
		cmocka_unit_test(packets_that_do_not_fit), cmocka_unit_test(the_control_queue),
		cmocka_unit_test(a_pair_that_is_given_up), cmocka_unit_test(every_access_may_fail),
		cmocka_unit_test(drivers_that_lie),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
