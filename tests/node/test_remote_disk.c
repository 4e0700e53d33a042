/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of another node, both sides over a real socket in one thread: what is written is there and
 * read again, whatever the pieces and however full the socket; errors come back; no more is under way
 * than is reserved, and what waits is done in its turn; and of peers that lie nothing is believed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/share.h"
#include "link/tcp.h"
#include "node/disk_service.h"
#include "node/remote_disk.h"
#include "tests/backend/drive.h"
#include "tests/backend/memory_disk.h"
#include "tests/link/support.h"

#define BYTES  (24u << 20)
#define DEVICE 3
#define MIB    (1u << 20)

/* Both nodes; `disk` is the asking one's, and its disk_work() runs both. */
struct pair {
	struct disk disk; /* first */
	struct memory_disk memory;
	struct disk_share *share;
	struct io_channel *asks, *serves;
	struct remote_disk *remote;
	struct disk_service *service;
	int error;
};

static struct pair pair;

static int ask_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		     uint32_t *ret_count)
{
	return msg->type == IO_DISK_REPLY && msg->device == DEVICE
		       ? remote_disk_place(pair.remote, msg, ret_iov, ret_count)
		       : -EPROTO;
}

static int ask_arrived(void *ctx, const struct io_message *msg)
{
	return msg->type == IO_DISK_REPLY && msg->device == DEVICE
		       ? remote_disk_arrived(pair.remote, msg)
		       : -EPROTO;
}

static int serve_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		       uint32_t *ret_count)
{
	return msg->type == IO_DISK_REQUEST && msg->device == DEVICE
		       ? disk_service_place(pair.service, msg, ret_iov, ret_count)
		       : -EPROTO;
}

static int serve_arrived(void *ctx, const struct io_message *msg)
{
	return msg->type == IO_DISK_REQUEST && msg->device == DEVICE
		       ? disk_service_arrived(pair.service, msg)
		       : -EPROTO;
}

static const struct io_receiver asking = { ask_place, ask_arrived, NULL };
static const struct io_receiver serving = { serve_place, serve_arrived, NULL };

static void flush_asks(void)
{
	struct io_parcel *parcel;
	int r = io_flush(pair.asks);
	assert_true(r == 0 || r == -EAGAIN);
	while ((parcel = io_left(pair.asks)))
		remote_disk_left(pair.remote, parcel);
}

static void flush_serves(void)
{
	struct io_parcel *parcel;
	int r = io_flush(pair.serves);
	assert_true(r == 0 || r == -EAGAIN);
	while ((parcel = io_left(pair.serves)))
		disk_service_left(pair.service, parcel);
}

static int pair_submit(struct disk *disk, struct disk_request *request)
{
	return disk_submit(remote_disk_disk(pair.remote), request);
}

static void pair_settle(struct disk *disk)
{
	flush_asks();
}

static void pair_work(struct disk *disk)
{
	struct disk *port = disk_share_port(pair.share, 1);
	flush_asks();
	assert_int_equal(io_receive(pair.serves, &serving), 0);
	disk_work(port);
	disk_service_work(pair.service);
	flush_serves();
	pair.error = io_receive(pair.asks, &asking);
	assert_int_equal(pair.error, 0);
}

static struct disk_request *pair_done(struct disk *disk)
{
	return disk_done(remote_disk_disk(pair.remote));
}

static void pair_destroy(struct disk *disk)
{
}

static const struct disk_ops pair_ops = { .submit = pair_submit,
					  .settle = pair_settle,
					  .work = pair_work,
					  .done = pair_done,
					  .destroy = pair_destroy };

static void make(int buffer)
{
	int fd[2];
	memset(&pair, 0, sizeof(pair));
	memory_disk_make(&pair.memory, BYTES, 3);
	test_tcp_pair(fd, buffer);
	assert_int_equal(tcp_io_create(stream_plain(fd[0]), 1, &pair.asks), 0);
	assert_int_equal(tcp_io_create(stream_plain(fd[1]), 0, &pair.serves), 0);
	assert_int_equal(disk_share_create(&pair.memory.disk, 2, &pair.share), 0);
	assert_int_equal(disk_service_create(pair.serves, DEVICE, disk_share_port(pair.share, 1),
					     &pair.service),
			 0);
	assert_int_equal(
		remote_disk_create(pair.asks, DEVICE, &pair.memory.disk.info, &pair.remote), 0);
	pair.disk = (struct disk){ .ops = &pair_ops,
				   .info = pair.memory.disk.info,
				   .fd = pair.memory.disk.fd };
}

static void end(void)
{
	io_destroy(pair.asks);
	io_destroy(pair.serves);
	remote_disk_destroy(pair.remote);
	disk_service_destroy(pair.service);
	disk_share_destroy(pair.share);
	memory_disk_free(&pair.memory);
}

static void test_storm(void **state)
{
	static const int buffers[] = { 0, 2048, 65536 };
	for (uint32_t i = 0; i < 3; i++) {
		const struct disk_counts *served;
		make(buffers[i]);
		pair.memory.limit = i == 1 ? 3 : DISK_REQUESTS_MAX;
		/* The storm ends with one of the whole disk. */
		pair.disk.info.bytes = 3 * MIB;
		drive_storm(&pair.disk, 77 + i, 2000);
		served = disk_service_counts(pair.service);
		assert_true(served->requests >= 2000 && served->read_bytes > 0 &&
			    served->write_bytes > 0 && served->errors == 0);
		end();
	}
}

/* More and larger requests than are reserved for: all are taken, and done by and by. */
static void test_much_at_once(void **state)
{
	static struct disk_request request[DISK_REQUESTS_MAX + 1];
	static struct iovec iov[DISK_REQUESTS_MAX + 1];
	uint8_t *data = malloc(IO_DATA_MAX);
	make(0);
	memset(data, 0x5a, IO_DATA_MAX);
	for (uint32_t i = 0; i <= DISK_REQUESTS_MAX; i++) {
		uint64_t length = i % 3 ? 4096 : IO_DATA_MAX;
		iov[i] = (struct iovec){ data, length };
		request[i] = (struct disk_request){ .op = DISK_WRITE,
						    .offset = i % 5 * IO_DATA_MAX,
						    .length = length,
						    .iov = &iov[i],
						    .iov_count = 1 };
		assert_int_equal(disk_submit(&pair.disk, &request[i]),
				 i < DISK_REQUESTS_MAX ? 0 : -EAGAIN);
	}
	for (uint32_t i = 0; i < DISK_REQUESTS_MAX; i++)
		assert_int_equal(drive_next(&pair.disk, 1000)->result, 0);
	assert_int_equal(pair.memory.bytes[IO_DATA_MAX - 1], 0x5a);
	request[0].length = iov[0].iov_len = IO_DATA_MAX + 512;
	assert_int_equal(disk_submit(&pair.disk, &request[0]), -EINVAL);
	free(data);
	end();
}

/* A request of some pieces of memory, there and back. Its first `pieces` are of these sizes. */
static struct disk_request *in_pieces(enum disk_op op, uint8_t *data, const size_t *size,
				      uint32_t pieces)
{
	static struct disk_request request;
	static struct iovec iov[8];
	request = (struct disk_request){ .op = op, .offset = 512, .iov = iov, .iov_count = pieces };
	for (uint32_t i = 0; i < pieces; i++) {
		iov[i] = (struct iovec){ data + request.length, size[i] };
		request.length += size[i];
	}
	return &request;
}

/* What is done after some rounds of all that can work, or NULL. */
static struct disk_request *after_rounds(uint32_t rounds)
{
	for (uint32_t i = 0; i < rounds; i++) {
		disk_settle(&pair.disk);
		disk_work(&pair.disk);
	}
	return disk_done(&pair.disk);
}

static void fill(uint8_t *data, size_t bytes, uint32_t seed)
{
	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)((i >> 9) * 7 + i + seed);
}

/*
 * A large request is several at the disk, whatever pieces its memory has; it is done once all are,
 * and fails if one does. Where pieces end within blocks it is one.
 */
static void test_large_in_parts(void **state)
{
	static const struct {
		size_t size[8];
		uint32_t pieces, least, most; /* requests that the disk sees */
	} cases[] = {
		{ { MIB }, 1, 4, 4 },
		{ { MIB + 512 }, 1, 5, 5 },
		{ { 256u << 10 }, 1, 1, 1 },
		{ { 512, 256u << 10, 512, 300u << 10, 4096, 4096 }, 6, 5, 6 },
		{ { 128u << 10, 128u << 10, 512, 128u << 10, 1536, 512u << 10 }, 6, 4, 4 },
		{ { 600u << 10, 200, 312 }, 3, 1, 1 },
		{ { 100, 600u << 10, 412 }, 3, 1, 1 },
	};
	uint8_t *data = malloc(2 * MIB), *again = malloc(2 * MIB);
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct disk_request *request;
		uint64_t length;
		make(i % 2 ? 4096 : 0);
		fill(data, 2 * MIB, i);
		request = in_pieces(DISK_WRITE, data, cases[i].size, cases[i].pieces);
		length = request->length;
		pair.memory.hold = true;
		assert_int_equal(disk_submit(&pair.disk, request), 0);
		assert_null(after_rounds(2000));
		assert_in_range(pair.memory.count, cases[i].least, cases[i].most);
		pair.memory.hold = false;
		assert_ptr_equal(drive_next(&pair.disk, 1000), request);
		assert_int_equal(request->result, 0);
		assert_memory_equal(pair.memory.bytes + 512, data, length);
		assert_int_equal(pair.memory.bytes[511] | pair.memory.bytes[512 + length], 0);
		request = in_pieces(DISK_READ, again, cases[i].size, cases[i].pieces);
		assert_int_equal(drive_one(&pair.disk, request), 0);
		assert_memory_equal(again, data, length);
		end();
	}
	free(data);
	free(again);
}

/* One part of several fails, whichever: so does the request, and not before all are back. */
static void test_a_part_fails(void **state)
{
	static const size_t size[] = { MIB };
	uint8_t *data = malloc(MIB);
	for (uint32_t bad = 0; bad < 4; bad++) {
		struct disk_request *request = in_pieces(DISK_READ, data, size, 1);
		make(0);
		pair.memory.hold = true;
		assert_int_equal(disk_submit(&pair.disk, request), 0);
		assert_null(after_rounds(2000));
		assert_int_equal(pair.memory.count, 4);
		for (uint32_t i = 0; i < 4; i++) {
			struct disk_request *part = pair.memory.under_way[3 - i];
			assert_true(i == 0 || !after_rounds(50));
			part->result = i == bad ? -EIO : 0;
			part->next = NULL;
			*pair.memory.done_end = part;
			pair.memory.done_end = &part->next;
			pair.memory.count--;
		}
		assert_ptr_equal(drive_next(&pair.disk, 1000), request);
		assert_int_equal(request->result, -EIO);
		end();
	}
	free(data);
}

static void test_errors(void **state)
{
	uint8_t data[512];
	make(0);
	pair.memory.fail = -EIO;
	assert_int_equal(drive_data(&pair.disk, DISK_READ, 0, data, 512), -EIO);
	assert_int_equal(drive_data(&pair.disk, DISK_WRITE, 0, data, 512), -EIO);
	assert_int_equal(drive_range(&pair.disk, DISK_FLUSH, 0, 0, false), -EIO);
	pair.memory.fail = -EOPNOTSUPP;
	assert_int_equal(drive_range(&pair.disk, DISK_ZERO, 0, 512, true), -EOPNOTSUPP);
	pair.memory.fail = 0;
	assert_int_equal(drive_data(&pair.disk, DISK_READ, 0, data, 512), 0);
	assert_int_equal(drive_data(&pair.disk, DISK_READ, BYTES, data, 512), -EINVAL);
	assert_int_equal(drive_data(&pair.disk, DISK_READ, 1, data, 512), -EINVAL);
	end();
}

/* --- a disk's node that lies --- */

static void reply(uint32_t sequence, uint32_t id, uint8_t result, uint32_t data_bytes)
{
	struct io_message msg = { .type = IO_DISK_REPLY,
				  .device = DEVICE,
				  .data_bytes = data_bytes,
				  .disk_reply = { .id = id, .result = result } };
	uint8_t bytes[IO_HEAD_BYTES + 8192] = { 0 };
	assert_int_equal(io_message_encode(&msg, sequence, bytes), 0);
	assert_int_equal(send(io_fd(pair.serves), bytes, IO_HEAD_BYTES + data_bytes, 0),
			 IO_HEAD_BYTES + data_bytes);
}

static int hear(void)
{
	int r;
	for (uint32_t i = 0; i < 50; i++) {
		r = io_receive(pair.asks, &asking);
		if (r < 0)
			return r;
		test_sleep_ms(1);
	}
	return 0;
}

static void test_replies_that_lie(void **state)
{
	static const struct {
		uint32_t id;
		uint8_t result;
		uint32_t data_bytes;
		bool unsent; /* before the request has left */
		uint32_t times;
	} lies[] = {
		{ 1, IO_RESULT_OK, 4096, false, 1 },
		{ DISK_REQUESTS_MAX, IO_RESULT_OK, 4096, false, 1 },
		{ UINT32_MAX, IO_RESULT_FAILED, 0, false, 1 },
		{ 0, IO_RESULT_OK, 4095, false, 1 },
		{ 0, IO_RESULT_OK, 8192, false, 1 },
		{ 0, IO_RESULT_OK, 0, false, 1 },
		{ 0, IO_RESULT_OK, 4096, false, 2 },
		{ 0, IO_RESULT_FAILED, 0, true, 1 },
		{ 0, IO_RESULT_OK, 4096, true, 1 },
	};
	for (uint32_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint8_t data[4096 + 1];
		struct iovec iov = { data, 4096 };
		struct disk_request request = {
			.op = DISK_READ, .length = 4096, .iov = &iov, .iov_count = 1
		};
		make(0);
		data[4096] = 0x77;
		assert_int_equal(disk_submit(&pair.disk, &request), 0);
		if (!lies[i].unsent)
			flush_asks();
		for (uint32_t n = 0; n < lies[i].times; n++)
			reply(n, lies[i].id, lies[i].result, lies[i].data_bytes);
		assert_int_equal(hear(), -EPROTO);
		assert_int_equal(data[4096], 0x77);
		end();
	}
	/* And the truth. */
	uint8_t data[4096];
	struct iovec iov = { data, 4096 };
	struct disk_request request = {
		.op = DISK_READ, .length = 4096, .iov = &iov, .iov_count = 1
	};
	make(0);
	assert_int_equal(disk_submit(&pair.disk, &request), 0);
	flush_asks();
	reply(0, 0, IO_RESULT_OK, 4096);
	assert_int_equal(hear(), 0);
	assert_ptr_equal(disk_done(&pair.disk), &request);
	end();
}

/* --- a node that asks for what it may not --- */

static int request_raw(uint32_t *sequence, const struct io_disk_request *ask)
{
	struct io_message msg = { .type = IO_DISK_REQUEST,
				  .device = DEVICE,
				  .data_bytes = ask->op == DISK_WRITE ? (uint32_t)ask->length : 0,
				  .disk_request = *ask };
	static uint8_t bytes[IO_HEAD_BYTES + IO_DATA_MAX];
	size_t size = IO_HEAD_BYTES + msg.data_bytes, sent = 0;
	assert_int_equal(io_message_encode(&msg, (*sequence)++, bytes), 0);
	for (uint32_t idle = 0; sent < size || idle < 20; idle++) {
		ssize_t part = send(io_fd(pair.asks), bytes + sent, size - sent, MSG_NOSIGNAL);
		int r = io_receive(pair.serves, &serving);
		if (r < 0)
			return r;
		if (part > 0) {
			sent += (size_t)part;
			idle = 0;
		}
	}
	return 0;
}

static void test_requests_that_lie(void **state)
{
	static const struct io_disk_request lies[] = {
		{ .op = DISK_READ, .offset = BYTES, .length = 512 },
		{ .op = DISK_READ, .offset = BYTES - 512, .length = 1024 },
		{ .op = DISK_WRITE, .offset = UINT64_MAX - 511, .length = 511 },
		{ .op = DISK_READ, .offset = 1, .length = 512 },
		{ .op = DISK_WRITE, .offset = 0, .length = 100 },
		{ .op = DISK_ZERO, .offset = 0, .length = 1ull << 60 },
	};
	for (uint32_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint32_t sequence = 0;
		make(0);
		assert_int_equal(request_raw(&sequence, &lies[i]), -EPROTO);
		end();
	}
	uint32_t sequence = 0;
	make(0);
	pair.memory.disk.info.read_only = true;
	disk_share_port(pair.share, 1)->info.read_only = true;
	assert_int_equal(request_raw(&sequence,
				     &(struct io_disk_request){ .op = DISK_WRITE, .length = 512 }),
			 -EPROTO);
	end();
}

/* As many as are reserved for, and as much, but not one more. */
static void test_greed(void **state)
{
	const struct io_disk_request flush = { .op = DISK_FLUSH };
	const struct io_disk_request large = { .op = DISK_READ, .length = IO_DATA_MAX };
	const struct io_disk_request written = { .op = DISK_WRITE, .length = IO_DATA_MAX };
	uint32_t sequence = 0, fit = DISK_PIECES_MAX * DISK_PIECE_BYTES / IO_DATA_MAX;
	make(0);
	pair.memory.hold = true;
	for (uint32_t i = 0; i < DISK_REQUESTS_MAX; i++)
		assert_int_equal(request_raw(&sequence, &flush), 0);
	assert_int_equal(request_raw(&sequence, &flush), -EPROTO);
	end();
	for (int write = 0; write < 2; write++) {
		make(0);
		pair.memory.hold = true;
		sequence = 0;
		for (uint32_t i = 0; i < fit; i++)
			assert_int_equal(request_raw(&sequence, write ? &written : &large), 0);
		assert_int_equal(request_raw(&sequence, &flush), 0);
		assert_int_equal(request_raw(&sequence, write ? &written : &large), -EPROTO);
		end();
	}
}

/* It asks for much, and does not read: the disk's node goes on, and has no more than is reserved. */
static void test_who_asks_does_not_read(void **state)
{
	const struct io_disk_request large = { .op = DISK_READ, .length = IO_DATA_MAX };
	struct disk *own, *theirs;
	uint32_t sequence = 0;
	uint8_t data[512];
	make(4096);
	own = disk_share_port(pair.share, 0);
	theirs = disk_share_port(pair.share, 1);
	assert_int_equal(request_raw(&sequence, &large), 0);
	assert_int_equal(request_raw(&sequence, &large), 0);
	for (uint32_t i = 0; i < 20; i++) {
		disk_work(theirs);
		disk_service_work(pair.service);
		flush_serves();
		/* Who uses the disk beside it is not held up. */
		assert_int_equal(drive_data(own, DISK_READ, 0, data, 512), 0);
	}
	assert_int_equal(io_flush(pair.serves), -EAGAIN);
	assert_int_equal(request_raw(&sequence, &large), -EPROTO);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_much_at_once),
		cmocka_unit_test(test_large_in_parts),
		cmocka_unit_test(test_a_part_fails),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_replies_that_lie),
		cmocka_unit_test(test_requests_that_lie),
		cmocka_unit_test(test_greed),
		cmocka_unit_test(test_who_asks_does_not_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
