// SPDX-License-Identifier: Apache-2.0
/* Fuzzes page frames' headers and messages: what is accepted encodes to the same bytes again. */
#include <stdlib.h>
#include <string.h>

#include "wire/page_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct coh_msg message[FRAME_MESSAGES_MAX];
	static uint8_t again[PAGE_FRAME_HEAD_MAX];
	struct page_frame_header header;
	uint32_t data_count = 0;

	if (size < PAGE_FRAME_HEADER_BYTES || page_frame_decode_header(data, &header) < 0)
		return 0;
	if (header.message_count > FRAME_MESSAGES_MAX || header.page_count > header.message_count)
		abort();
	if (size < page_frame_head_bytes(&header) ||
	    page_frame_decode_messages(&header, data, 3, message) < 0)
		return 0;
	for (uint16_t i = 0; i < header.message_count; i++) {
		data_count += (message[i].flags & COH_MSG_DATA) != 0;
		if (message[i].src != 3)
			abort();
	}
	if (data_count != header.page_count ||
	    page_frame_encode_head(&header, message, again) != page_frame_head_bytes(&header) ||
	    memcmp(again, data, page_frame_head_bytes(&header)) != 0)
		abort();
	return 0;
}
