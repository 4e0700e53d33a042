/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads of io messages: what is right comes back as it was, and whatever is wrong in one, a bit or a
 * number, is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wire/io_message.h"

#define SEQUENCE 77u

static const struct io_message right[] = {
	{ .type = IO_DISK_REQUEST,
	  .device = 3,
	  .disk_request = { .id = 9, .op = DISK_READ, .offset = 4096, .length = 8192 } },
	{ .type = IO_DISK_REQUEST,
	  .device = 30,
	  .data_bytes = IO_DATA_MAX,
	  .disk_request = { .id = UINT32_MAX,
			    .op = DISK_WRITE,
			    .offset = UINT64_MAX - IO_DATA_MAX,
			    .length = IO_DATA_MAX } },
	{ .type = IO_DISK_REQUEST, .disk_request = { .op = DISK_FLUSH } },
	{ .type = IO_DISK_REQUEST, .disk_request = { .op = DISK_DISCARD, .length = 1ull << 40 } },
	{ .type = IO_DISK_REQUEST,
	  .disk_request = { .op = DISK_ZERO, .unmap = true, .length = 1ull << 40 } },
	{ .type = IO_DISK_REPLY, .data_bytes = 512, .disk_reply = { .id = 5 } },
	{ .type = IO_DISK_REPLY, .disk_reply = { .id = 5, .result = IO_RESULT_FAILED } },
	{ .type = IO_DISK_REPLY, .disk_reply = { .result = IO_RESULT_UNSUPPORTED } },
	{ .type = IO_NET_OUT, .data_bytes = IO_RUN_MAX, .net_run = { .pair = NET_PAIRS_MAX - 1 } },
	{ .type = IO_NET_IN, .data_bytes = 1 },
	{ .type = IO_NET_ROOM, .net_room = { .pair = 3, .limit = UINT64_MAX } },
	{ .type = IO_NET_DRIVER,
	  .net_driver = { .pairs = NET_PAIRS_MAX, .offloads = { true, false, true, true } } },
};

static const struct io_message wrong[] = {
	{ .type = 0 },
	{ .type = IO_TYPE_LIMIT },
	{ .type = IO_DISK_REQUEST, .device = 31, .disk_request = { .op = DISK_FLUSH } },
	{ .type = IO_DISK_REQUEST, .disk_request = { .op = DISK_ZERO + 1, .length = 512 } },
	{ .type = IO_DISK_REQUEST, .disk_request = { .op = DISK_READ } },
	{ .type = IO_DISK_REQUEST, .disk_request = { .op = DISK_READ, .length = IO_DATA_MAX + 1 } },
	{ .type = IO_DISK_REQUEST,
	  .disk_request = { .op = DISK_READ, .offset = UINT64_MAX - 510, .length = 512 } },
	{ .type = IO_DISK_REQUEST,
	  .data_bytes = 512,
	  .disk_request = { .op = DISK_READ, .length = 512 } },
	{ .type = IO_DISK_REQUEST,
	  .data_bytes = 511,
	  .disk_request = { .op = DISK_WRITE, .length = 512 } },
	{ .type = IO_DISK_REQUEST,
	  .data_bytes = IO_DATA_MAX + 1,
	  .disk_request = { .op = DISK_WRITE, .length = IO_DATA_MAX + 1 } },
	{ .type = IO_DISK_REQUEST, .disk_request = { .op = DISK_FLUSH, .length = 512 } },
	{ .type = IO_DISK_REQUEST, .disk_request = { .op = DISK_FLUSH, .offset = 512 } },
	{ .type = IO_DISK_REQUEST,
	  .disk_request = { .op = DISK_DISCARD, .unmap = true, .length = 512 } },
	{ .type = IO_DISK_REPLY, .data_bytes = IO_DATA_MAX + 1 },
	{ .type = IO_DISK_REPLY, .disk_reply = { .result = IO_RESULT_LIMIT } },
	{ .type = IO_DISK_REPLY, .data_bytes = 512, .disk_reply = { .result = IO_RESULT_FAILED } },
	{ .type = IO_NET_OUT },
	{ .type = IO_NET_OUT, .data_bytes = IO_RUN_MAX + 1 },
	{ .type = IO_NET_IN, .data_bytes = 4, .net_run = { .pair = NET_PAIRS_MAX } },
	{ .type = IO_NET_ROOM, .net_room = { .pair = NET_PAIRS_MAX } },
	{ .type = IO_NET_ROOM, .data_bytes = 1 },
	{ .type = IO_NET_DRIVER },
	{ .type = IO_NET_DRIVER, .net_driver = { .pairs = NET_PAIRS_MAX + 1 } },
	{ .type = IO_NET_DRIVER, .data_bytes = 1, .net_driver = { .pairs = 1 } },
};

static void assert_same(const struct io_message *a, const struct io_message *b)
{
	uint8_t first[IO_HEAD_BYTES], second[IO_HEAD_BYTES];

	assert_int_equal(io_message_encode(a, SEQUENCE, first), 0);
	assert_int_equal(io_message_encode(b, SEQUENCE, second), 0);
	assert_memory_equal(first, second, sizeof(first));
}

static void test_round_trip(void **state)
{
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		uint8_t head[IO_HEAD_BYTES];
		struct io_message got;

		assert_int_equal(io_message_encode(&right[i], SEQUENCE, head), 0);
		assert_int_equal(io_message_decode(head, SEQUENCE, &got), 0);
		assert_same(&got, &right[i]);
		assert_int_equal(io_message_decode(head, SEQUENCE + 1, &got), -EPROTO);
	}
}

static void test_wrong_is_not_sent(void **state)
{
	uint8_t head[IO_HEAD_BYTES];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(io_message_encode(&wrong[i], 0, head), -EINVAL);
}

/* Whatever bit is flipped: refused, or another message that is right, never a third thing. */
static void test_every_bit(void **state)
{
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		for (uint32_t bit = 0; bit < IO_HEAD_BYTES * 8; bit++) {
			uint8_t head[IO_HEAD_BYTES], again[IO_HEAD_BYTES];
			struct io_message got;

			assert_int_equal(io_message_encode(&right[i], SEQUENCE, head), 0);
			head[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (io_message_decode(head, SEQUENCE, &got) < 0)
				continue;
			assert_int_equal(io_message_encode(&got, SEQUENCE, again), 0);
			assert_memory_equal(head, again, sizeof(head));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_wrong_is_not_sent),
		cmocka_unit_test(test_every_bit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
