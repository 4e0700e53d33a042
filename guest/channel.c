/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel: frames on a byte stream; channel.h tells the protocol.
 *
 * The decoder collects one frame in its own buffer, checks all of it and only then shows it. The
 * table below is the whole grammar: who may send a kind, and how long its payload is. A header is
 * judged as soon as its four bytes are there, so garbage is refused before its length is believed.
 *
 * Tested by guest/test_channel.c, fuzzed by tests/fuzz/fuzz_channel.c.
 */
#include "guest/channel.h"

#include <errno.h>
#include <string.h>

struct kind_rule {
	uint8_t kind;
	uint8_t sender;
	uint16_t size_min;
	uint16_t size_max;
};

static const struct kind_rule kind_rules[] = {
	{ CHANNEL_HELLO, CHANNEL_FROM_SERVER, 1, 64 },
	{ CHANNEL_WINDOW, CHANNEL_FROM_SERVER, 4, 4 },
	{ CHANNEL_STDOUT, CHANNEL_FROM_SERVER, 1, CHANNEL_PAYLOAD_MAX },
	{ CHANNEL_STDERR, CHANNEL_FROM_SERVER, 1, CHANNEL_PAYLOAD_MAX },
	{ CHANNEL_EXIT, CHANNEL_FROM_SERVER, 4, 4 },
	{ CHANNEL_ARG, CHANNEL_FROM_CLIENT, 0, CHANNEL_PAYLOAD_MAX },
	{ CHANNEL_START, CHANNEL_FROM_CLIENT, 6, 6 },
	{ CHANNEL_STDIN, CHANNEL_FROM_CLIENT, 1, CHANNEL_PAYLOAD_MAX },
	{ CHANNEL_STDIN_END, CHANNEL_FROM_CLIENT, 0, 0 },
	{ CHANNEL_RESIZE, CHANNEL_FROM_CLIENT, 6, 6 },
	{ CHANNEL_BYE, CHANNEL_FROM_CLIENT, 0, 0 },
};

static const struct kind_rule *rule_find(uint8_t kind)
{
	for (size_t i = 0; i < sizeof(kind_rules) / sizeof(kind_rules[0]); i++) {
		if (kind_rules[i].kind == kind)
			return &kind_rules[i];
	}
	return NULL;
}

static size_t header_length(const uint8_t *header)
{
	return (size_t)header[2] | (size_t)header[3] << 8;
}

static int check_header(const struct channel_decoder *decoder)
{
	const uint8_t *header = decoder->bytes;
	const struct kind_rule *rule = rule_find(header[0]);
	size_t length = header_length(header);

	if (!rule || rule->sender != decoder->sender || header[1] != 0)
		return -EPROTO;
	if (length < rule->size_min || length > rule->size_max)
		return -EPROTO;
	if (decoder->sender == CHANNEL_FROM_SERVER &&
	    (header[0] == CHANNEL_HELLO) == (decoder->greeted != 0))
		return -EPROTO;
	return 0;
}

static int check_payload(const uint8_t *header, size_t length)
{
	const uint8_t *payload = header + CHANNEL_HEADER_SIZE;

	switch (header[0]) {
	case CHANNEL_HELLO:
		if (length != strlen(CHANNEL_GREETING) ||
		    memcmp(payload, CHANNEL_GREETING, length) != 0)
			return -EPROTONOSUPPORT;
		return 0;
	case CHANNEL_EXIT:
		return payload[1] || payload[2] || payload[3] ? -EPROTO : 0;
	case CHANNEL_START:
	case CHANNEL_RESIZE:
		return payload[0] > 1 || payload[1] ? -EPROTO : 0;
	default:
		return 0;
	}
}

void channel_decoder_init(struct channel_decoder *decoder, enum channel_sender sender)
{
	decoder->sender = sender;
	decoder->greeted = 0;
	decoder->failed = 0;
	decoder->have = 0;
}

/* Moves up to `until - have` bytes into the buffer; returns how many. */
static size_t collect(struct channel_decoder *decoder, const uint8_t *data, size_t size,
		      size_t until)
{
	size_t want = until - decoder->have;
	size_t take = size < want ? size : want;

	memcpy(decoder->bytes + decoder->have, data, take);
	decoder->have += take;
	return take;
}

ssize_t channel_decode(struct channel_decoder *decoder, const void *data, size_t size,
		       struct channel_frame *ret_frame, int *ret_whole)
{
	const uint8_t *bytes = data;
	size_t taken = 0;
	size_t length;

	*ret_whole = 0;
	if (decoder->failed)
		return decoder->failed;
	if (decoder->have < CHANNEL_HEADER_SIZE) {
		taken = collect(decoder, bytes, size, CHANNEL_HEADER_SIZE);
		if (decoder->have < CHANNEL_HEADER_SIZE)
			return (ssize_t)taken;
		decoder->failed = check_header(decoder);
		if (decoder->failed)
			return decoder->failed;
	}
	length = header_length(decoder->bytes);
	taken += collect(decoder, bytes + taken, size - taken, CHANNEL_HEADER_SIZE + length);
	if (decoder->have < CHANNEL_HEADER_SIZE + length)
		return (ssize_t)taken;
	decoder->failed = check_payload(decoder->bytes, length);
	if (decoder->failed)
		return decoder->failed;
	decoder->have = 0;
	decoder->greeted = 1;
	ret_frame->kind = (enum channel_kind)decoder->bytes[0];
	ret_frame->size = length;
	ret_frame->payload = decoder->bytes + CHANNEL_HEADER_SIZE;
	*ret_whole = 1;
	return (ssize_t)taken;
}

ssize_t channel_encode_header(enum channel_kind kind, size_t size, void *out)
{
	uint8_t *bytes = out;

	if (size > CHANNEL_PAYLOAD_MAX)
		return -EMSGSIZE;
	bytes[0] = (uint8_t)kind;
	bytes[1] = 0;
	bytes[2] = (uint8_t)size;
	bytes[3] = (uint8_t)(size >> 8);
	return CHANNEL_HEADER_SIZE;
}

ssize_t channel_encode(enum channel_kind kind, const void *payload, size_t size, void *out,
		       size_t out_size)
{
	uint8_t *bytes = out;

	if (size > CHANNEL_PAYLOAD_MAX)
		return -EMSGSIZE;
	if (out_size < CHANNEL_HEADER_SIZE + size)
		return -ENOBUFS;
	channel_encode_header(kind, size, out);
	if (size)
		memcpy(bytes + CHANNEL_HEADER_SIZE, payload, size);
	return (ssize_t)(CHANNEL_HEADER_SIZE + size);
}

uint32_t channel_frame_u32(const struct channel_frame *frame)
{
	const uint8_t *p = frame->payload;

	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

struct channel_terminal channel_frame_terminal(const struct channel_frame *frame)
{
	const uint8_t *p = frame->payload;

	return (struct channel_terminal){
		.wanted = p[0],
		.rows = (uint16_t)(p[2] | p[3] << 8),
		.columns = (uint16_t)(p[4] | p[5] << 8),
	};
}

ssize_t channel_encode_u32(enum channel_kind kind, uint32_t value, void *out, size_t out_size)
{
	uint8_t payload[4] = { (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
			       (uint8_t)(value >> 24) };

	return channel_encode(kind, payload, sizeof(payload), out, out_size);
}

ssize_t channel_encode_terminal(enum channel_kind kind, const struct channel_terminal *terminal,
				void *out, size_t out_size)
{
	uint8_t payload[6] = { terminal->wanted ? 1 : 0,   0,
			       (uint8_t)terminal->rows,	   (uint8_t)(terminal->rows >> 8),
			       (uint8_t)terminal->columns, (uint8_t)(terminal->columns >> 8) };

	return channel_encode(kind, payload, sizeof(payload), out, out_size);
}
