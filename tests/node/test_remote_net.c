/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A card on another node: its two sides over real sockets, with a network and a guest that are made up.
 * Packets of all sizes both ways, in order, each on its pair; a guest that takes nothing, and a link that
 * does not; pairs given up in the middle; peers that lie.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/packet_ring.h"
#include "link/tcp.h"
#include "node/net_service.h"
#include "node/remote_net.h"

#define DEVICE 3u
#define PAIRS  4u
#define KEPT   20000u

/* A packet is known by its number, which its first bytes say; the rest follows from it. */
struct note {
	uint32_t number, bytes;
};

/* The network: what was sent to it, and what it has for the guest. */
struct model {
	struct net net; /* first */
	struct note sent[PAIRS][KEPT];
	uint32_t sent_count[PAIRS];
	uint32_t next[PAIRS], end[PAIRS]; /* for the guest: numbers */
	uint32_t refuse;		  /* one in so many is not taken; 0: all are */
	uint16_t pairs;
	struct net_offloads offloads;
	uint8_t packet[PAIRS][NET_PACKET_MAX];
};

struct rig {
	struct model model;
	struct io_channel *front, *back;
	struct remote_net *remote;
	struct net_service *service;
	struct net *net;
	uint32_t taken[PAIRS];
};

static uint32_t bytes_of(uint32_t number)
{
	static const uint32_t some[] = { NET_PACKET_BYTES, 60, 61, 1526, 62, 9000, 63,
					 NET_PACKET_MAX };

	return some[number * 2654435761u >> 29];
}

static void fill(uint8_t *packet, uint32_t number)
{
	memset(packet, (int)(number & 0xff), bytes_of(number));
	memcpy(packet, &number, sizeof(number));
}

static void check_packet(const uint8_t *packet, uint32_t bytes, uint32_t number)
{
	uint32_t got;

	memcpy(&got, packet, sizeof(got));
	assert_int_equal(got, number);
	assert_int_equal(bytes, bytes_of(number));
	for (uint32_t i = sizeof(got); i < bytes; i += 97)
		assert_int_equal(packet[i], number & 0xff);
	assert_int_equal(packet[bytes - 1], number & 0xff);
}

static int model_send(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	struct model *model = (struct model *)net;
	uint32_t number, at;

	assert_true(pair < PAIRS && count == 1);
	memcpy(&number, iov[0].iov_base, sizeof(number));
	check_packet(iov[0].iov_base, (uint32_t)iov[0].iov_len, number);
	if (model->refuse && number % model->refuse == 0)
		return -EAGAIN;
	at = model->sent_count[pair]++;
	assert_true(at < KEPT);
	model->sent[pair][at] = (struct note){ number, (uint32_t)iov[0].iov_len };
	return 0;
}

static const uint8_t *model_peek(struct net *net, uint16_t pair, uint32_t *ret_bytes)
{
	struct model *model = (struct model *)net;
	uint32_t number = model->next[pair];

	assert_true(pair < model->pairs);
	if (number == model->end[pair])
		return NULL;
	fill(model->packet[pair], number);
	*ret_bytes = bytes_of(number);
	return model->packet[pair];
}

static void model_drop(struct net *net, uint16_t pair)
{
	((struct model *)net)->next[pair]++;
}

static int model_offload(struct net *net, const struct net_offloads *offloads)
{
	((struct model *)net)->offloads = *offloads;
	return 0;
}

static int model_set_pairs(struct net *net, uint16_t pairs)
{
	((struct model *)net)->pairs = pairs;
	return 0;
}

static const struct net_ops model_ops = { .send = model_send,
					  .peek = model_peek,
					  .drop = model_drop,
					  .offload = model_offload,
					  .set_pairs = model_set_pairs };

static const struct net_info info = {
	.mtu = 1500, .pairs = PAIRS, .checksum = true, .segments = true
};

static struct rig *rig_create(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	int fd[2];

	assert_non_null(rig);
	rig->model.net = (struct net){ .ops = &model_ops, .info = info, .fd = -1 };
	rig->model.pairs = 1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_int_equal(tcp_io_create(stream_plain(fd[0]), 1, &rig->front), 0);
	assert_int_equal(tcp_io_create(stream_plain(fd[1]), 0, &rig->back), 0);
	assert_int_equal(net_service_create(rig->back, DEVICE, &rig->model.net, &rig->service), 0);
	assert_int_equal(remote_net_create(rig->front, DEVICE, &info, &rig->remote), 0);
	rig->net = remote_net_net(rig->remote);
	return rig;
}

static void rig_destroy(struct rig *rig)
{
	io_destroy(rig->front);
	io_destroy(rig->back);
	remote_net_destroy(rig->remote);
	net_service_destroy(rig->service);
	free(rig);
}

static int front_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		       uint32_t *ret_count)
{
	return msg->type == IO_NET_IN
		       ? remote_net_place(((struct rig *)ctx)->remote, msg, ret_iov, ret_count)
		       : -EPROTO;
}

static int front_arrived(void *ctx, const struct io_message *msg)
{
	return remote_net_arrived(((struct rig *)ctx)->remote, msg);
}

static int back_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		      uint32_t *ret_count)
{
	return net_service_place(((struct rig *)ctx)->service, msg, ret_iov, ret_count);
}

static int back_arrived(void *ctx, const struct io_message *msg)
{
	struct rig *rig = ctx;
	int r = net_service_arrived(rig->service, msg);

	net_service_work(rig->service);
	return r;
}

/* One turn of each io thread. 0, or how a side's reading ended. */
static int front_turn(struct rig *rig)
{
	const struct io_receiver receiver = { front_place, front_arrived, rig };
	struct io_parcel *parcel;
	int r = io_receive(rig->front, &receiver);

	net_settle(rig->net);
	io_flush(rig->front);
	while ((parcel = io_left(rig->front)))
		remote_net_left(rig->remote, parcel);
	return r;
}

static int back_turn(struct rig *rig)
{
	const struct io_receiver receiver = { back_place, back_arrived, rig };
	struct io_parcel *parcel;
	int r = io_receive(rig->back, &receiver);

	net_service_work(rig->service);
	io_flush(rig->back);
	while ((parcel = io_left(rig->back)))
		net_service_left(rig->service, parcel);
	return r;
}

static int send_packet(struct rig *rig, uint16_t pair, uint32_t number)
{
	static uint8_t packet[NET_PACKET_MAX];
	uint32_t bytes = bytes_of(number), part = number % NET_PACKET_BYTES;
	struct iovec iov[3] = { { packet, part }, { packet + part, 1 } };

	iov[2] = (struct iovec){ packet + part + 1, bytes - part - 1 };
	fill(packet, number);
	int r = net_send(rig->net, pair, iov, 3);

	memset(packet, 0xee, bytes);
	return r;
}

/* The guest takes up to `max` packets of a pair, which come in order. */
static void take(struct rig *rig, uint16_t pair, uint32_t max)
{
	const uint8_t *packet;
	uint32_t bytes;

	while (max-- > 0 && (packet = net_peek(rig->net, pair, &bytes))) {
		check_packet(packet, bytes, rig->taken[pair]++);
		net_drop(rig->net, pair);
	}
}

static void turns(struct rig *rig, uint32_t count)
{
	while (count-- > 0) {
		assert_int_equal(front_turn(rig), 0);
		assert_int_equal(back_turn(rig), 0);
	}
}

static void use_pairs(struct rig *rig, uint16_t pairs)
{
	assert_int_equal(net_set_pairs(rig->net, pairs), 0);
	for (uint32_t i = 0; rig->model.pairs != pairs; i++) {
		assert_true(i < 1000);
		turns(rig, 1);
	}
}

static void test_both_ways(void **state)
{
	struct rig *rig = rig_create();
	uint32_t next[PAIRS] = { 0 };
	struct net_service_stats stats;

	use_pairs(rig, PAIRS);
	for (uint32_t round = 0; round < 4000; round++) {
		uint16_t pair = (uint16_t)(round * 7 / 5 % PAIRS);

		for (uint32_t i = 0; i < round % 9; i++)
			if (send_packet(rig, pair, next[pair]) == 0)
				next[pair]++;
		rig->model.end[pair] += round % 5;
		turns(rig, round % 3 == 0);
		take(rig, (uint16_t)(round % PAIRS), round % 17);
	}
	for (uint32_t i = 0; i < 2000; i++) {
		turns(rig, 1);
		take(rig, (uint16_t)(i % PAIRS), 1000);
	}
	for (uint16_t pair = 0; pair < PAIRS; pair++) {
		assert_true(next[pair] > 2000);
		assert_int_equal(rig->model.sent_count[pair], next[pair]);
		for (uint32_t i = 0; i < next[pair]; i++)
			assert_int_equal(rig->model.sent[pair][i].number, i);
		assert_int_equal(rig->taken[pair], rig->model.end[pair]);
	}
	net_service_stats(rig->service, &stats);
	assert_int_equal(stats.dropped, 0);
	rig_destroy(rig);
}

/* Many small packets are few messages. */
static void test_batches(void **state)
{
	struct rig *rig = rig_create();
	struct io_channel_stats before, after;

	turns(rig, 3);
	io_stats(rig->front, &before);
	for (uint32_t i = 0, sent = 0; sent < 500; i++)
		if (bytes_of(i) < 100) {
			assert_int_equal(send_packet(rig, 0, i), 0);
			sent++;
		}
	turns(rig, 2);
	io_stats(rig->front, &after);
	assert_int_equal(rig->model.sent_count[0], 500);
	assert_in_range(after.messages_out - before.messages_out, 1, 2);
	assert_in_range(after.sends - before.sends, 1, 2);
	rig_destroy(rig);
}

/* A large packet is not copied where the socket takes it; where not, its memory is the guest's all the same. */
static void test_large_packets_leave_at_once(void **state)
{
	struct rig *rig = rig_create();
	struct io_channel_stats before, after;
	uint32_t large = 0, sent = 0;

	while (bytes_of(large) != NET_PACKET_MAX)
		large++;
	turns(rig, 3);
	io_stats(rig->front, &before);
	assert_int_equal(send_packet(rig, 0, large), 0);
	io_stats(rig->front, &after);
	assert_int_equal(after.messages_out - before.messages_out, 1);
	while (send_packet(rig, 0, large) == 0)
		sent++;
	io_stats(rig->front, &after);
	assert_in_range(after.messages_out - before.messages_out, 1, sent);
	turns(rig, 200);
	assert_int_equal(rig->model.sent_count[0], sent + 1);
	rig_destroy(rig);
}

/* What the guest does not take stays with the network, but for what was promised; then all goes on. */
static void test_a_guest_that_takes_nothing(void **state)
{
	struct rig *rig = rig_create();
	struct net_service_stats stats;

	use_pairs(rig, 2);
	rig->model.end[0] = rig->model.end[1] = 5000;
	turns(rig, 500);
	for (uint16_t pair = 0; pair < 2; pair++) {
		uint64_t bytes = 0;

		for (uint32_t i = 0; i < rig->model.next[pair]; i++)
			bytes += PACKET_RING_TAKES(bytes_of(i));
		assert_in_range(bytes, NET_ROOM_BYTES - NET_PACKET_MAX - 8, NET_ROOM_BYTES);
	}
	net_service_stats(rig->service, &stats);
	assert_true(stats.waited > 0);
	/* One pair that is stuck does not keep the other. */
	for (uint32_t i = 0; i < 20000 && rig->taken[1] < 5000; i++) {
		take(rig, 1, 3);
		turns(rig, 1);
	}
	assert_int_equal(rig->taken[1], 5000);
	for (uint32_t i = 0; i < 20000 && rig->taken[0] < 5000; i++) {
		take(rig, 0, 50);
		turns(rig, 1);
	}
	assert_int_equal(rig->taken[0], 5000);
	rig_destroy(rig);
}

/* Nobody reads: the guest is told to wait, after so many bytes; then all goes on where it was. */
static void test_a_link_that_is_full(void **state)
{
	struct rig *rig = rig_create();
	uint32_t next = 0;
	uint64_t bytes = 0;

	turns(rig, 3);
	for (uint32_t i = 0; i < 10; i++) {
		while (send_packet(rig, 0, next) == 0)
			bytes += bytes_of(next++);
		front_turn(rig);
	}
	assert_in_range(bytes, 900 << 10, 3 << 20);
	while (next < 3000) {
		turns(rig, 1);
		while (send_packet(rig, 0, next) == 0)
			next++;
	}
	turns(rig, 100);
	assert_int_equal(rig->model.sent_count[0], next);
	for (uint32_t i = 0; i < next; i++)
		assert_int_equal(rig->model.sent[0][i].number, i);
	rig_destroy(rig);
}

/* What the network does not take at once is dropped, and only that. */
static void test_a_network_that_is_full(void **state)
{
	struct rig *rig = rig_create();
	struct net_service_stats stats;

	rig->model.refuse = 3;
	for (uint32_t i = 0; i < 300; i++) {
		assert_int_equal(send_packet(rig, 0, i), 0);
		turns(rig, 2);
	}
	net_service_stats(rig->service, &stats);
	assert_int_equal(stats.dropped, 100);
	assert_int_equal(rig->model.sent_count[0], 200);
	rig_destroy(rig);
}

static void test_the_driver(void **state)
{
	struct net_offloads all = { true, true, true, true }, none = { 0 };
	struct rig *rig = rig_create();

	assert_int_equal(net_set_pairs(rig->net, 0), -EINVAL);
	assert_int_equal(net_set_pairs(rig->net, PAIRS + 1), -EINVAL);
	/* The newest counts, however often it changes meanwhile. */
	for (uint16_t i = 0; i < 100; i++) {
		assert_int_equal(net_offload(rig->net, i % 2 ? &all : &none), 0);
		assert_int_equal(net_set_pairs(rig->net, 1 + i % PAIRS), 0);
		if (i % 10 == 0)
			turns(rig, 1);
	}
	turns(rig, 5);
	assert_int_equal(rig->model.pairs, 1 + 99 % PAIRS);
	assert_true(rig->model.offloads.checksum && rig->model.offloads.tso4);
	rig_destroy(rig);
}

/* A pair is given up and taken again in the middle of a flood: others go on, and there is room again. */
static void test_pairs_come_and_go(void **state)
{
	struct rig *rig = rig_create();

	for (uint32_t round = 0; round < 200; round++) {
		uint16_t pairs = (uint16_t)(1 + round * 3 % PAIRS);

		assert_int_equal(net_set_pairs(rig->net, pairs), 0);
		for (uint16_t pair = 0; pair < PAIRS; pair++)
			rig->model.end[pair] += 20;
		turns(rig, round % 4);
		for (uint16_t pair = pairs; pair < PAIRS; pair++) {
			uint32_t bytes;

			assert_null(net_peek(rig->net, pair, &bytes));
		}
		take(rig, 0, 100);
		for (uint16_t pair = 1; pair < pairs; pair++) {
			uint32_t bytes;
			const uint8_t *packet = net_peek(rig->net, pair, &bytes);

			if (packet)
				memcpy(&rig->taken[pair], packet, 4);
			take(rig, pair, 50);
		}
	}
	use_pairs(rig, PAIRS);
	for (uint32_t i = 0; i < 3000; i++) {
		turns(rig, 1);
		for (uint16_t pair = 0; pair < PAIRS; pair++)
			rig->model.end[pair] +=
				i == 100; /* what comes after the last that was dropped */
		for (uint16_t pair = 0; pair < PAIRS; pair++) {
			uint32_t bytes;
			const uint8_t *packet = net_peek(rig->net, pair, &bytes);

			if (packet && pair > 0)
				memcpy(&rig->taken[pair], packet, 4);
			take(rig, pair, 1000);
		}
	}
	for (uint16_t pair = 0; pair < PAIRS; pair++)
		assert_int_equal(rig->taken[pair], rig->model.end[pair]);
	rig_destroy(rig);
}

/* A message with `data` by hand, from one side; how the other takes it. */
static int lie(struct rig *rig, bool to_back, struct io_message msg, void *data)
{
	struct iovec iov = { data, msg.data_bytes };
	struct io_parcel parcel = { .message = msg, .iov = &iov, .iov_count = msg.data_bytes > 0 };
	struct io_channel *from = to_back ? rig->front : rig->back;
	int r = 0;

	turns(rig, 5);
	io_send(from, &parcel);
	for (uint32_t i = 0; i < 50 && !r; i++) {
		io_flush(from);
		r = to_back ? back_turn(rig) : front_turn(rig);
		while (io_left(from))
			;
	}
	rig_destroy(rig);
	return r;
}

static int send_nowhere(struct net *net, uint16_t pair, const struct iovec *iov, uint32_t count)
{
	for (size_t i = 0; i < iov[0].iov_len; i++)
		(void)((const volatile uint8_t *)iov[0].iov_base)[i];
	return 0;
}

/* The same, with a network that only looks at every byte. */
static int lie_unread(bool to_back, struct io_message msg, void *data)
{
	static const struct net_ops ops = { .send = send_nowhere,
					    .peek = model_peek,
					    .drop = model_drop,
					    .offload = model_offload,
					    .set_pairs = model_set_pairs };
	struct rig *rig = rig_create();

	rig->model.net.ops = &ops;
	return lie(rig, to_back, msg, data);
}

static void test_peers_that_lie(void **state)
{
	static uint8_t run[IO_RUN_MAX];
	static uint8_t bad[8] = { 3 };
	const uint32_t size = NET_PACKET_BYTES;
	struct io_message out = { .type = IO_NET_OUT, .device = DEVICE, .data_bytes = size + 6 };
	struct io_message in = { .type = IO_NET_IN, .device = DEVICE, .data_bytes = size + 6 };
	struct io_message room = { .type = IO_NET_ROOM, .device = DEVICE };
	struct io_message driver = { .type = IO_NET_DRIVER,
				     .device = DEVICE,
				     .net_driver = { .pairs = 1 } };

	memcpy(run, &size, sizeof(size));
	assert_int_equal(lie(rig_create(), true, out, run), 0);
	assert_int_equal(lie(rig_create(), false, in, run), 0);
	for (int to_back = 0; to_back < 2; to_back++) {
		struct io_message *msg = to_back ? &out : &in;

		msg->net_run.pair = PAIRS;
		assert_int_equal(lie(rig_create(), to_back, *msg, run), -EPROTO);
		msg->net_run.pair = 0;
		msg->data_bytes = 8;
		assert_int_equal(lie(rig_create(), to_back, *msg, bad), -EPROTO);
		msg->data_bytes = size + 5;
		assert_int_equal(lie(rig_create(), to_back, *msg, run), -EPROTO);
		/* What is the other's to say. */
		msg->data_bytes = size + 6;
		msg->type = to_back ? IO_NET_IN : IO_NET_OUT;
		assert_int_equal(lie(rig_create(), to_back, *msg, run), -EPROTO);
	}
	room.net_room = (struct io_net_room){ 0, NET_ROOM_BYTES - 1 };
	assert_int_equal(lie(rig_create(), true, room, NULL), -EPROTO);
	room.net_room = (struct io_net_room){ PAIRS, UINT64_MAX };
	assert_int_equal(lie(rig_create(), true, room, NULL), -EPROTO);
	driver.net_driver.pairs = PAIRS + 1;
	assert_int_equal(lie(rig_create(), true, driver, NULL), -EPROTO);
}

/* Runs with a few bytes that are anything: refused, or whole packets, to whichever side. */
static void test_garbage(void **state)
{
	static uint8_t run[4096];
	uint64_t random = 5;
	int refused = 0;

	for (uint32_t round = 0; round < 400; round++) {
		struct io_message msg = { .type = round % 2 ? IO_NET_OUT : IO_NET_IN,
					  .device = DEVICE };
		uint32_t at = 0, end = 1 + round % 7 * 100;

		memset(run, 0, sizeof(run));
		while (at < end) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			uint32_t bytes = NET_PACKET_BYTES + (uint32_t)(random >> 40) % 200;

			if (random >> 33 & 16)
				bytes = random >> 33 & 32 ? (uint32_t)(random >> 7) : bytes & 31;
			memcpy(run + at, &bytes, sizeof(bytes));
			at += bytes < 300 ? (uint32_t)PACKET_RING_TAKES(bytes) : 44;
		}
		msg.data_bytes = at - (round % 8 == 7);
		refused += lie_unread(round % 2, msg, run) == -EPROTO;
	}
	assert_in_range(refused, 100, 399);
}

/* More than was promised, though the guest has taken nothing. */
static void test_a_flood(void **state)
{
	static uint8_t run[IO_RUN_MAX];
	const struct io_message in = { .type = IO_NET_IN,
				       .device = DEVICE,
				       .data_bytes = IO_RUN_MAX };
	const uint32_t size = IO_RUN_MAX / 2 - 4;
	struct iovec iov = { run, sizeof(run) };
	struct rig *rig = rig_create();
	int r = 0;

	memcpy(run, &size, sizeof(size));
	memcpy(run + IO_RUN_MAX / 2, &size, sizeof(size));
	for (uint32_t i = 0; i < NET_ROOM_BYTES / IO_RUN_MAX + 1; i++) {
		struct io_parcel parcel = { .message = in, .iov = &iov, .iov_count = 1 };

		assert_int_equal(r, 0);
		io_send(rig->back, &parcel);
		for (uint32_t turn = 0; turn < 50 && !r; turn++) {
			io_flush(rig->back);
			r = front_turn(rig);
		}
		while (io_left(rig->back))
			;
	}
	assert_int_equal(r, -EPROTO);
	rig_destroy(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_large_packets_leave_at_once),
		cmocka_unit_test(test_a_guest_that_takes_nothing),
		cmocka_unit_test(test_a_link_that_is_full),
		cmocka_unit_test(test_a_network_that_is_full),
		cmocka_unit_test(test_the_driver),
		cmocka_unit_test(test_pairs_come_and_go),
		cmocka_unit_test(test_peers_that_lie),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_a_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
