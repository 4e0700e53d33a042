/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page message on the wire: the 48 bytes of struct coh_msg, little-endian, `src` as zero.
 *
 *      0      1       2     4           6      8      12        16    24    32    40           48
 *      | type | flags | 0   | requester | node | acks | version | gpn | age | seq | waited_ns |
 *
 * A message flagged COH_MSG_DATA has one page with it (wire/page_frame.h).
 */
#ifndef WIRE_PAGE_MESSAGE_H
#define WIRE_PAGE_MESSAGE_H

#include <stdint.h>

#include "core/coherence.h"

#define PAGE_MESSAGE_BYTES 48u

void page_message_encode(const struct coh_msg *msg, uint8_t out[PAGE_MESSAGE_BYTES]);

/*
 * 0 with src 0, or -EPROTO: unknown type, data with a type that has none, a number out of any
 * range. Whether the message makes sense now is the core's to judge (coh_message()).
 */
int page_message_decode(const uint8_t in[PAGE_MESSAGE_BYTES], struct coh_msg *ret_msg);

#endif
