// SPDX-License-Identifier: Apache-2.0
/*
 * Io channels over real sockets: whatever pieces bytes come in, messages and their data arrive
 * whole, in order, where the receiver wants them, both ways at once in one thread: nothing may ever
 * block; memory is the sender's again when it has left, and not before.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/tcp.h"
#include "tests/link/secure.h"
#include "tests/link/support.h"

#define MESSAGES   3000u
#define UNDER_WAY  40u
#define DATA_MAX   (300u << 10)
#define PEER	   4
#define PIECES	   20u
#define LARGE_ONES 20u
#define LARGE_MIN  (100u << 10)

static struct tls_keys *keys; /* NULL: the tests' streams are plain */

struct end {
	struct io_channel *channel;
	struct random random; /* of the pieces that data is cut into */
	uint64_t seed;	      /* of what it sends */
	uint32_t sent, left, arrived;
	bool placed;
	struct parcel {
		struct io_parcel io;
		struct iovec iov[PIECES];
		uint8_t *data;
		bool under_way;
	} parcel[UNDER_WAY];
	uint64_t peer_seed;
	uint8_t *in;
	struct iovec in_iov[PIECES];
	int refuse_after; /* messages; -1: never */
};

/* The `number`th message of a seed, so that the receiver knows what to expect. */
static void make_message(uint64_t seed, uint32_t number, struct io_message *msg,
			 struct random *ret_bytes)
{
	struct random random;
	uint32_t dice;

	random_seed(&random, seed + number * 1000003ull);
	dice = random_below(&random, 100);
	*msg = (struct io_message){ .device = (uint8_t)random_below(&random, 31) };
	if (dice < 50)
		msg->data_bytes = dice < 30 ? 4096 : 1 + random_below(&random, 20000);
	if (dice == 99)
		msg->data_bytes = 1 + random_below(&random, DATA_MAX);
	if (dice % 2) {
		msg->type = IO_DISK_REPLY;
		msg->disk_reply = (struct io_disk_reply){ .id = number };
	} else {
		msg->type = IO_DISK_REQUEST;
		msg->disk_request = (struct io_disk_request){
			.id = number,
			.op = msg->data_bytes ? DISK_WRITE : DISK_READ,
			.length = msg->data_bytes ? msg->data_bytes : 4096,
		};
	}
	*ret_bytes = random;
}

static void fill(uint8_t *data, uint32_t bytes, struct random *random)
{
	for (uint32_t i = 0; i < bytes; i += 64)
		data[i] = (uint8_t)random_next(random);
}

/* Cuts it at random, with pieces of no bytes, too. */
static uint32_t cut(struct random *random, uint8_t *data, uint32_t bytes, struct iovec *iov)
{
	uint32_t count = 0;

	while (count < PIECES - 1 && random_below(random, 3)) {
		uint32_t part = random_below(random, bytes + 1);

		iov[count++] = (struct iovec){ data, part };
		data += part;
		bytes -= part;
	}
	iov[count++] = (struct iovec){ data, bytes };
	return count;
}

static int on_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		    uint32_t *ret_count)
{
	struct end *end = ctx;

	if (end->refuse_after >= 0 && (int)end->arrived >= end->refuse_after)
		return -EPROTO;
	assert_false(end->placed);
	end->placed = true;
	assert_in_range(msg->data_bytes, 1, DATA_MAX);
	memset(end->in, 0, msg->data_bytes);
	*ret_count = cut(&end->random, end->in, msg->data_bytes, end->in_iov);
	*ret_iov = end->in_iov;
	return 0;
}

static int on_arrived(void *ctx, const struct io_message *msg)
{
	struct end *end = ctx;
	uint8_t got[IO_HEAD_BYTES], want[IO_HEAD_BYTES];
	struct io_message expected;
	struct random random;

	make_message(end->peer_seed, end->arrived, &expected, &random);
	assert_int_equal(io_message_encode(msg, 0, got), 0);
	assert_int_equal(io_message_encode(&expected, 0, want), 0);
	assert_memory_equal(got, want, sizeof(got));
	assert_int_equal(end->placed, msg->data_bytes > 0);
	for (uint32_t i = 0; i < msg->data_bytes; i += 64)
		assert_int_equal(end->in[i], (uint8_t)random_next(&random));
	end->placed = false;
	end->arrived++;
	return 0;
}

static void send_one(struct end *end)
{
	struct parcel *parcel = &end->parcel[end->sent % UNDER_WAY];
	struct random random;

	assert_false(parcel->under_way);
	make_message(end->seed, end->sent++, &parcel->io.message, &random);
	fill(parcel->data, parcel->io.message.data_bytes, &random);
	parcel->io.iov_count =
		cut(&end->random, parcel->data, parcel->io.message.data_bytes, parcel->iov);
	parcel->io.iov = parcel->iov;
	parcel->io.owner = parcel;
	parcel->under_way = true;
	io_send(end->channel, &parcel->io);
}

static void take_left(struct end *end)
{
	struct io_parcel *left;

	while ((left = io_left(end->channel))) {
		struct parcel *parcel = left->owner;

		assert_ptr_equal(parcel, &end->parcel[end->left % UNDER_WAY]);
		assert_true(parcel->under_way);
		parcel->under_way = false;
		/* Nobody reads it any more. */
		memset(parcel->data, 0xee, parcel->io.message.data_bytes);
		end->left++;
	}
}

static void make_end(struct end *end, struct io_channel *channel, uint64_t seed, uint64_t peer_seed)
{
	memset(end, 0, sizeof(*end));
	end->channel = channel;
	end->seed = seed;
	end->peer_seed = peer_seed;
	end->refuse_after = -1;
	random_seed(&end->random, seed + 1);
	end->in = malloc(DATA_MAX);
	for (uint32_t i = 0; i < UNDER_WAY; i++)
		end->parcel[i].data = malloc(DATA_MAX);
}

static void free_end(struct end *end)
{
	io_destroy(end->channel);
	free(end->in);
	for (uint32_t i = 0; i < UNDER_WAY; i++)
		free(end->parcel[i].data);
}

static void make_pair(int buffer, struct end end[2], uint64_t seed)
{
	struct io_channel *channel;
	struct stream stream[2];
	int fd[2];

	test_tcp_pair(fd, buffer);
	test_secure(keys, fd[0], fd[1], stream);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(tcp_io_create(stream[i], PEER, &channel), 0);
		make_end(&end[i], channel, seed + (uint64_t)i, seed + 1 - (uint64_t)i);
	}
}

/* MESSAGES both ways. */
static void exchange(struct end end[2], struct random *random)
{
	while (end[0].arrived < MESSAGES || end[1].arrived < MESSAGES) {
		struct pollfd fds[2];

		for (int i = 0; i < 2; i++) {
			const struct io_receiver receiver = { on_place, on_arrived, &end[i] };
			uint32_t burst = random_below(random, 12);
			int error;

			for (; burst > 0 && end[i].sent < MESSAGES &&
			       end[i].sent - end[i].left < UNDER_WAY;
			     burst--)
				send_one(&end[i]);
			error = io_flush(end[i].channel);
			assert_true(error == 0 || error == -EAGAIN);
			take_left(&end[i]);
			/* What is encrypted may have left the parcels before it leaves us. */
			assert_true(error == 0 ? end[i].sent == end[i].left
					       : keys || end[i].sent > end[i].left);
			fds[i] = (struct pollfd){ io_fd(end[i].channel),
						  (short)(POLLIN | (error ? POLLOUT : 0)), 0 };
			assert_int_equal(io_receive(end[i].channel, &receiver), 0);
		}
		if (end[0].sent == MESSAGES && end[1].sent == MESSAGES &&
		    (end[0].arrived < MESSAGES || end[1].arrived < MESSAGES))
			assert_true(poll(fds, 2, 10000) > 0);
	}
}

static void exchange_with_buffer(int buffer)
{
	uint64_t seed = test_seed();
	struct io_channel_stats out, in;
	static struct end end[2];
	struct random random;

	random_seed(&random, seed);
	make_pair(buffer, end, seed);
	exchange(end, &random);
	io_stats(end[0].channel, &out);
	io_stats(end[1].channel, &in);
	assert_int_equal(out.messages_out, MESSAGES);
	assert_int_equal(in.messages_in, MESSAGES);
	assert_int_equal(out.bytes_out, in.bytes_in);
	if (buffer == 0) {
		/* A burst leaves, and arrives, in few calls. */
		assert_true(out.sends < MESSAGES);
		assert_true(in.receives < 2 * MESSAGES);
	}
	free_end(&end[0]);
	free_end(&end[1]);
}

static void test_exchange(void **state)
{
	exchange_with_buffer(0);
}

static void test_exchange_in_small_pieces(void **state)
{
	exchange_with_buffer(2048);
}

/* Large messages that follow each other are received where they belong, in a call or two each. */
static void test_large_ones(void **state)
{
	static struct end end[2];
	struct io_channel_stats in;
	uint64_t seed = 1, bytes = 0;
	struct random random;

	make_pair(0, end, 0);
	const struct io_receiver receiver = { on_place, on_arrived, &end[1] };
	for (uint32_t i = 0; i < LARGE_ONES; i++) {
		struct io_message msg;

		do
			make_message(++seed, 0, &msg, &random);
		while (msg.data_bytes < LARGE_MIN);
		bytes += msg.data_bytes;
		end[0].seed = end[1].peer_seed = seed;
		end[0].sent = end[0].left = end[1].arrived = 0;
		send_one(&end[0]);
		while (end[0].left == 0 || end[1].arrived == 0) {
			int error = io_flush(end[0].channel);

			assert_true(error == 0 || error == -EAGAIN);
			take_left(&end[0]);
			assert_int_equal(io_receive(end[1].channel, &receiver), 0);
		}
	}
	io_stats(end[1].channel, &in);
	assert_true(bytes > LARGE_ONES * LARGE_MIN);
	/* The first comes unexpected. */
	assert_in_range(in.bytes_copied, 0, 64u << 10);
	free_end(&end[0]);
	free_end(&end[1]);
}

static void send_raw(int fd, const void *bytes, size_t size)
{
	assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* What is no message, out of its turn, or has no place, ends the channel; and so does the end. */
static void test_malformed(void **state)
{
	for (int kind = 0; kind < 4; kind++) {
		uint8_t head[IO_HEAD_BYTES];
		struct io_channel *channel;
		static struct end end;
		struct io_message msg;
		struct random random;
		uint64_t seed = 7;
		int fd[2];

		test_tcp_pair(fd, 0);
		assert_int_equal(tcp_io_create(stream_plain(fd[0]), PEER, &channel), 0);
		make_end(&end, channel, 1, seed);
		make_message(seed, 0, &msg, &random);
		while (msg.data_bytes == 0)
			make_message(++seed, 0, &msg, &random);
		end.peer_seed = seed;
		end.refuse_after = kind == 2 ? 0 : -1;
		assert_int_equal(io_message_encode(&msg, kind == 1, head), 0);
		head[0] ^= kind == 0;
		send_raw(fd[1], head, sizeof(head) - (kind == 3));
		if (kind == 3)
			close(fd[1]);
		const struct io_receiver receiver = { on_place, on_arrived, &end };
		int error;
		while ((error = io_receive(channel, &receiver)) == 0)
			test_sleep_ms(1);
		assert_int_equal(error, kind == 3 ? -EPIPE : -EPROTO);
		assert_int_equal(end.arrived, 0);
		if (kind != 3)
			close(fd[1]);
		free_end(&end);
	}
}

/* The peer does not read: nothing blocks, and what waits stays the sender's parcels. */
static void test_peer_does_not_read(void **state)
{
	static struct end end[2];

	make_pair(4096, end, 5);
	while (end[0].sent < UNDER_WAY)
		send_one(&end[0]);
	for (int i = 0; i < 100; i++)
		assert_int_equal(io_flush(end[0].channel), -EAGAIN);
	take_left(&end[0]);
	assert_true(end[0].left < end[0].sent);
	io_destroy(end[1].channel);
	end[1].channel = NULL;
	int error;
	while ((error = io_flush(end[0].channel)) == -EAGAIN)
		test_sleep_ms(1);
	assert_true(error == -EPIPE || error == -ECONNRESET);
	free_end(&end[0]);
	free_end(&end[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exchange),
		cmocka_unit_test(test_exchange_in_small_pieces),
		cmocka_unit_test(test_large_ones),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_peer_does_not_read),
	};

	/* The same, as far as it makes no bytes of its own, where the streams are encrypted. */
	const struct CMUnitTest secure[] = {
		cmocka_unit_test(test_exchange),
		cmocka_unit_test(test_exchange_in_small_pieces),
		cmocka_unit_test(test_peer_does_not_read),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	keys = test_keys("no tide comes twice");
	failed += cmocka_run_group_tests(secure, NULL, NULL);
	tls_keys_destroy(keys);
	return failed;
}
