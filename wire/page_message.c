/* SPDX-License-Identifier: Apache-2.0 */
/* Page messages, encoded and decoded. Tested by tests/core/test_page_message.c. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "wire/page_message.h"

static_assert(sizeof(struct coh_msg) == PAGE_MESSAGE_BYTES, "frozen layout");
static_assert(offsetof(struct coh_msg, flags) == 1, "frozen layout");
static_assert(offsetof(struct coh_msg, src) == 2, "frozen layout");
static_assert(offsetof(struct coh_msg, requester) == 4, "frozen layout");
static_assert(offsetof(struct coh_msg, node) == 6, "frozen layout");
static_assert(offsetof(struct coh_msg, acks) == 8, "frozen layout");
static_assert(offsetof(struct coh_msg, version) == 12, "frozen layout");
static_assert(offsetof(struct coh_msg, gpn) == 16, "frozen layout");
static_assert(offsetof(struct coh_msg, age) == 24, "frozen layout");
static_assert(offsetof(struct coh_msg, seq) == 32, "frozen layout");
static_assert(offsetof(struct coh_msg, waited_ns) == 40, "frozen layout");

void page_message_encode(const struct coh_msg *msg, uint8_t out[PAGE_MESSAGE_BYTES])
{
	struct coh_msg wire = {
		.type = msg->type,
		.flags = msg->flags,
		.requester = htole16(msg->requester),
		.node = htole16(msg->node),
		.acks = htole32(msg->acks),
		.version = htole32(msg->version),
		.gpn = htole64(msg->gpn),
		.age = htole64(msg->age),
		.seq = htole64(msg->seq),
		.waited_ns = htole64(msg->waited_ns),
	};

	memcpy(out, &wire, sizeof(wire));
}

static int carries_data(uint8_t type)
{
	return type == COH_GRANT_READ || type == COH_GRANT_WRITE || type == COH_PUSH_DATA;
}

int page_message_decode(const uint8_t in[PAGE_MESSAGE_BYTES], struct coh_msg *ret_msg)
{
	struct coh_msg wire, msg;

	memcpy(&wire, in, sizeof(wire));
	msg = (struct coh_msg){
		.type = wire.type,
		.flags = wire.flags,
		.requester = le16toh(wire.requester),
		.node = le16toh(wire.node),
		.acks = le32toh(wire.acks),
		.version = le32toh(wire.version),
		.gpn = le64toh(wire.gpn),
		.age = le64toh(wire.age),
		.seq = le64toh(wire.seq),
		.waited_ns = le64toh(wire.waited_ns),
	};
	if (msg.type == 0 || msg.type >= COH_MSG_TYPES || wire.src != 0 ||
	    msg.requester >= NODES_MAX || msg.node >= NODES_MAX || msg.gpn >= GPN_LIMIT ||
	    ((msg.flags & COH_MSG_DATA) && !carries_data(msg.type)))
		return -EPROTO;
	*ret_msg = msg;
	return 0;
}
