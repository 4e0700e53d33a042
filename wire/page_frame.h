/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page frame: what one pass of a shard's loop has for one peer (link/channel.h).
 *
 *      0       4               6            8          12     16
 *      | magic | message_count | page_count | sequence | zero | messages (48 each) | pages (4096)
 *
 * The pages belong, in order, to the messages flagged COH_MSG_DATA. The sequence counts a channel's
 * frames from 0. At least one message; at most FRAME_MESSAGES_MAX; no more pages than messages.
 */
#ifndef WIRE_PAGE_FRAME_H
#define WIRE_PAGE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "core/coherence.h"

#define FRAME_MESSAGES_MAX 256 /* per frame; also pages per frame */

#define PAGE_FRAME_HEADER_BYTES	 16u
#define PAGE_FRAME_MESSAGE_BYTES 48u
#define PAGE_FRAME_HEAD_MAX                                                                        \
	(PAGE_FRAME_HEADER_BYTES + FRAME_MESSAGES_MAX * PAGE_FRAME_MESSAGE_BYTES)

struct page_frame_header {
	uint16_t message_count, page_count;
	uint32_t sequence;
};

void page_frame_encode_header(const struct page_frame_header *header,
			      uint8_t out[PAGE_FRAME_HEADER_BYTES]);

/* 0, or -EPROTO. */
int page_frame_decode_header(const uint8_t in[PAGE_FRAME_HEADER_BYTES],
			     struct page_frame_header *ret_header);

/* Bytes of header and messages; bytes of the whole frame. */
size_t page_frame_head_bytes(const struct page_frame_header *header);
size_t page_frame_bytes(const struct page_frame_header *header);

/*
 * Header and messages of a frame; `in` has page_frame_head_bytes(). Every message is decoded and
 * checked, its src set to `src`, and as many are flagged COH_MSG_DATA as there are pages. 0, or
 * -EPROTO.
 */
int page_frame_decode_messages(const struct page_frame_header *header, const uint8_t *in,
			       uint16_t src, struct coh_msg *ret_message);

/* Encodes header and messages into out (PAGE_FRAME_HEAD_MAX bytes are always enough). Returns the
 * bytes. */
size_t page_frame_encode_head(const struct page_frame_header *header, const struct coh_msg *message,
			      uint8_t *out);

#endif
