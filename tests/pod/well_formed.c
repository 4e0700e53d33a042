/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says whether what tests/pod/hostile_peer says would be decoded: tests/pod/every_lie asks.
 *
 * A line of input is a frame in hexadecimal, with a name before it; a line of output is that name,
 * if the frame is well formed.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/control_message.h"
#include "wire/io_message.h"
#include "wire/page_frame.h"
#include "wire/version.h"

#define LINE_MAX (16u << 20)

static bool control_good(const uint8_t *frame, size_t size)
{
	static struct control_message msg;
	struct control_header header;

	return size >= CONTROL_HEADER_BYTES && control_header_decode(frame, &header) == 0 &&
	       header.payload_size == size - CONTROL_HEADER_BYTES &&
	       control_message_decode((uint16_t)header.type, frame + CONTROL_HEADER_BYTES,
				      header.payload_size, &msg) == 0;
}

static bool pages_good(const uint8_t *frame, size_t size)
{
	static struct coh_msg message[FRAME_MESSAGES_MAX];
	struct page_frame_header header;

	return size >= PAGE_FRAME_HEADER_BYTES && page_frame_decode_header(frame, &header) == 0 &&
	       size == page_frame_bytes(&header) &&
	       page_frame_decode_messages(&header, frame, 0, message) == 0;
}

static bool io_good(const uint8_t *frame, size_t size)
{
	struct io_message msg;

	return size >= IO_HEAD_BYTES && io_message_decode(frame, 0, &msg) == 0 &&
	       msg.data_bytes == size - IO_HEAD_BYTES;
}

static bool good(const uint8_t *frame, size_t size)
{
	uint32_t magic;

	if (size < sizeof(magic))
		return false;
	memcpy(&magic, frame, sizeof(magic));
	switch (le32toh(magic)) {
	case WIRE_MAGIC_CONTROL:
		return control_good(frame, size);
	case WIRE_MAGIC_PAGES:
		return pages_good(frame, size);
	case WIRE_MAGIC_IO:
		return io_good(frame, size);
	default:
		return false;
	}
}

static uint8_t digit(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Its bytes, in place of the text. */
static size_t bytes_of(char *hex)
{
	size_t size = 0;

	for (; hex[2 * size] >= '0' && hex[2 * size + 1] >= '0'; size++)
		hex[size] = (char)(digit(hex[2 * size]) << 4 | digit(hex[2 * size + 1]));
	return size;
}

int main(void)
{
	char *line = malloc(LINE_MAX);

	while (line && fgets(line, LINE_MAX, stdin)) {
		char *hex = strchr(line, ' ');

		if (!hex)
			return 1;
		*hex++ = '\0';
		size_t size = bytes_of(hex);
		if (good((const uint8_t *)hex, size))
			puts(line);
	}
	free(line);
	return line ? 0 : 1;
}
