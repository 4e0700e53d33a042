// SPDX-License-Identifier: Apache-2.0
/*
 * Layout of page frames. Pure; the pages themselves are never looked at.
 *
 * Tested by tests/link/test_tcp.c, fuzzed by tests/fuzz/fuzz_page_frame.c.
 */
#include "wire/page_frame.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "wire/page_message.h"
#include "wire/version.h"

struct wire_header {
	uint32_t magic;
	uint16_t message_count, page_count;
	uint32_t sequence;
	uint32_t zero;
};
static_assert(sizeof(struct wire_header) == PAGE_FRAME_HEADER_BYTES);
static_assert(offsetof(struct wire_header, page_count) == 6);
static_assert(PAGE_FRAME_MESSAGE_BYTES == PAGE_MESSAGE_BYTES);

void page_frame_encode_header(const struct page_frame_header *header,
			      uint8_t out[PAGE_FRAME_HEADER_BYTES])
{
	struct wire_header w = {
		.magic = htole32(WIRE_MAGIC_PAGES),
		.message_count = htole16(header->message_count),
		.page_count = htole16(header->page_count),
		.sequence = htole32(header->sequence),
	};

	memcpy(out, &w, sizeof(w));
}

int page_frame_decode_header(const uint8_t in[PAGE_FRAME_HEADER_BYTES],
			     struct page_frame_header *ret_header)
{
	struct wire_header w;
	uint16_t message_count, page_count;

	memcpy(&w, in, sizeof(w));
	message_count = le16toh(w.message_count);
	page_count = le16toh(w.page_count);
	if (le32toh(w.magic) != WIRE_MAGIC_PAGES || w.zero != 0 || message_count == 0 ||
	    message_count > FRAME_MESSAGES_MAX || page_count > message_count)
		return -EPROTO;
	ret_header->message_count = message_count;
	ret_header->page_count = page_count;
	ret_header->sequence = le32toh(w.sequence);
	return 0;
}

size_t page_frame_head_bytes(const struct page_frame_header *header)
{
	return PAGE_FRAME_HEADER_BYTES + (size_t)header->message_count * PAGE_FRAME_MESSAGE_BYTES;
}

size_t page_frame_bytes(const struct page_frame_header *header)
{
	return page_frame_head_bytes(header) + (size_t)header->page_count * PAGE_BYTES;
}

int page_frame_decode_messages(const struct page_frame_header *header, const uint8_t *in,
			       uint16_t src, struct coh_msg *ret_message)
{
	uint32_t data_count = 0;

	in += PAGE_FRAME_HEADER_BYTES;
	for (uint16_t i = 0; i < header->message_count; i++) {
		if (page_message_decode(in + i * PAGE_FRAME_MESSAGE_BYTES, &ret_message[i]) < 0)
			return -EPROTO;
		ret_message[i].src = src;
		data_count += (ret_message[i].flags & COH_MSG_DATA) != 0;
	}
	return data_count == header->page_count ? 0 : -EPROTO;
}

size_t page_frame_encode_head(const struct page_frame_header *header, const struct coh_msg *message,
			      uint8_t *out)
{
	page_frame_encode_header(header, out);
	for (uint16_t i = 0; i < header->message_count; i++)
		page_message_encode(&message[i],
				    out + PAGE_FRAME_HEADER_BYTES + i * PAGE_FRAME_MESSAGE_BYTES);
	return page_frame_head_bytes(header);
}
