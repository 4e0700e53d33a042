/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of channel.c: frames survive any cutting of the stream, and nothing else gets through. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guest/channel.h"

static size_t append(uint8_t *stream, size_t at, enum channel_kind kind, const char *text)
{
	ssize_t n = channel_encode(kind, text, strlen(text), stream + at, CHANNEL_FRAME_MAX);

	assert_true(n > 0);
	return at + (size_t)n;
}

static size_t make_stream(uint8_t *stream)
{
	size_t at = append(stream, 0, CHANNEL_HELLO, CHANNEL_GREETING);
	ssize_t n = channel_encode_u32(CHANNEL_WINDOW, 0x01020304, stream + at, 64);

	at = append(stream, at + (size_t)n, CHANNEL_STDOUT, "to stdout");
	at = append(stream, at, CHANNEL_STDERR, "to stderr");
	n = channel_encode_u32(CHANNEL_EXIT, 42, stream + at, 64);
	return at + (size_t)n;
}

static void check_frame(const struct channel_frame *f, int index)
{
	static const enum channel_kind kinds[] = { CHANNEL_HELLO, CHANNEL_WINDOW, CHANNEL_STDOUT,
						   CHANNEL_STDERR, CHANNEL_EXIT };

	assert_in_range(index, 0, 4);
	assert_int_equal(f->kind, kinds[index]);
	if (f->kind == CHANNEL_WINDOW)
		assert_int_equal(channel_frame_u32(f), 0x01020304);
	if (f->kind == CHANNEL_STDOUT)
		assert_memory_equal(f->payload, "to stdout", 9);
	if (f->kind == CHANNEL_STDERR)
		assert_memory_equal(f->payload, "to stderr", 9);
	if (f->kind == CHANNEL_EXIT)
		assert_int_equal(channel_frame_u32(f), 42);
}

static void frames_survive_every_cut(void **state)
{
	uint8_t stream[1024];
	size_t size = make_stream(stream);

	(void)state;
	for (size_t cut = 1; cut <= size; cut++) {
		struct channel_decoder d;
		struct channel_frame f;
		int index = 0, whole;

		channel_decoder_init(&d, CHANNEL_FROM_SERVER);
		for (size_t at = 0; at < size;) {
			size_t part = size - at < cut ? size - at : cut;
			ssize_t n = channel_decode(&d, stream + at, part, &f, &whole);

			assert_true(n > 0);
			at += (size_t)n;
			if (whole)
				check_frame(&f, index++);
		}
		assert_int_equal(index, 5);
	}
}

static int decode_all(enum channel_sender sender, const uint8_t *data, size_t size)
{
	struct channel_decoder d;
	struct channel_frame f;
	int whole;

	channel_decoder_init(&d, sender);
	for (size_t at = 0; at < size;) {
		ssize_t n = channel_decode(&d, data + at, size - at, &f, &whole);

		if (n < 0) {
			/* A broken stream stays broken. */
			assert_int_equal(channel_decode(&d, data, size, &f, &whole), n);
			return (int)n;
		}
		at += (size_t)n;
	}
	return 0;
}

static void strangers_are_refused(void **state)
{
	static const struct {
		const char *what;
		enum channel_sender sender;
		uint8_t bytes[24];
		size_t size;
		int want;
	} cases[] = {
		{ "text", CHANNEL_FROM_SERVER, "[    0.000000] Linux", 20, -EPROTO },
		{ "no greeting", CHANNEL_FROM_SERVER, { CHANNEL_WINDOW, 0, 4, 0, 1 }, 8, -EPROTO },
		{ "another version", CHANNEL_FROM_SERVER, "A\0\017\0eagre channel 1", 19,
		  -EPROTONOSUPPORT },
		{ "a short greeting", CHANNEL_FROM_SERVER, "A\0\005\0eagre", 9, -EPROTONOSUPPORT },
		{ "server speaks as client",
		  CHANNEL_FROM_CLIENT,
		  { CHANNEL_EXIT, 0, 4, 0 },
		  8,
		  -EPROTO },
		{ "client speaks as server",
		  CHANNEL_FROM_SERVER,
		  { CHANNEL_STDIN, 0, 1, 0 },
		  5,
		  -EPROTO },
		{ "reserved byte",
		  CHANNEL_FROM_CLIENT,
		  { CHANNEL_STDIN, 1, 1, 0, 'x' },
		  5,
		  -EPROTO },
		{ "empty stdin", CHANNEL_FROM_CLIENT, { CHANNEL_STDIN, 0, 0, 0 }, 4, -EPROTO },
		{ "a payload over the limit",
		  CHANNEL_FROM_CLIENT,
		  { CHANNEL_STDIN, 0, 0xfd, 0x7f },
		  4,
		  -EPROTO },
		{ "end with data",
		  CHANNEL_FROM_CLIENT,
		  { CHANNEL_STDIN_END, 0, 1, 0 },
		  5,
		  -EPROTO },
		{ "start with reserved bits",
		  CHANNEL_FROM_CLIENT,
		  { CHANNEL_START, 0, 6, 0, 2 },
		  10,
		  -EPROTO },
		{ "kind zero", CHANNEL_FROM_CLIENT, { 0 }, 4, -EPROTO },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int got = decode_all(cases[i].sender, cases[i].bytes, cases[i].size);

		if (got != cases[i].want)
			fail_msg("%s: %d, not %d", cases[i].what, got, cases[i].want);
	}
}

static void greeting_comes_once(void **state)
{
	uint8_t stream[256];
	size_t at = append(stream, 0, CHANNEL_HELLO, CHANNEL_GREETING);

	(void)state;
	at = append(stream, at, CHANNEL_HELLO, CHANNEL_GREETING);
	assert_int_equal(decode_all(CHANNEL_FROM_SERVER, stream, at), -EPROTO);
}

static void exit_status_is_a_byte(void **state)
{
	uint8_t stream[256];
	size_t at = append(stream, 0, CHANNEL_HELLO, CHANNEL_GREETING);
	ssize_t n = channel_encode_u32(CHANNEL_EXIT, 256, stream + at, 64);

	(void)state;
	assert_int_equal(decode_all(CHANNEL_FROM_SERVER, stream, at + (size_t)n), -EPROTO);
}

static void encoder_keeps_its_bounds(void **state)
{
	static uint8_t payload[CHANNEL_PAYLOAD_MAX + 1];
	static uint8_t out[CHANNEL_FRAME_MAX];

	(void)state;
	assert_int_equal(
		channel_encode(CHANNEL_STDIN, payload, CHANNEL_PAYLOAD_MAX, out, sizeof(out)),
		CHANNEL_FRAME_MAX);
	assert_int_equal(
		channel_encode(CHANNEL_STDIN, payload, CHANNEL_PAYLOAD_MAX, out, sizeof(out) - 1),
		-ENOBUFS);
	assert_int_equal(
		channel_encode(CHANNEL_STDIN, payload, CHANNEL_PAYLOAD_MAX + 1, out, sizeof(out)),
		-EMSGSIZE);
}

static void terminal_goes_round(void **state)
{
	struct channel_terminal t = { .wanted = 1, .rows = 0x1234, .columns = 0xfedc };
	struct channel_decoder d;
	struct channel_frame f;
	uint8_t out[64];
	int whole;
	ssize_t n = channel_encode_terminal(CHANNEL_START, &t, out, sizeof(out));

	(void)state;
	channel_decoder_init(&d, CHANNEL_FROM_CLIENT);
	assert_int_equal(channel_decode(&d, out, (size_t)n, &f, &whole), n);
	assert_int_equal(whole, 1);
	t = channel_frame_terminal(&f);
	assert_int_equal(t.wanted, 1);
	assert_int_equal(t.rows, 0x1234);
	assert_int_equal(t.columns, 0xfedc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_survive_every_cut), cmocka_unit_test(strangers_are_refused),
		cmocka_unit_test(greeting_comes_once),	    cmocka_unit_test(exit_status_is_a_byte),
		cmocka_unit_test(encoder_keeps_its_bounds), cmocka_unit_test(terminal_goes_round),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
