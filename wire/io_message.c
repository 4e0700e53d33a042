/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout of io messages' heads. Pure; the data is never looked at.
 *
 * Tested by tests/link/test_io_message.c, fuzzed by tests/fuzz/fuzz_io_message.c.
 */
#include "wire/io_message.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "virtio/published.h"
#include "wire/version.h"

#define PART_BYTES 32u

struct wire_io {
	uint32_t magic;
	uint8_t type, device;
	uint16_t zero;
	uint32_t sequence;
	uint32_t data_bytes;
	uint8_t part[PART_BYTES];
};
static_assert(sizeof(struct wire_io) == IO_HEAD_BYTES);
static_assert(offsetof(struct wire_io, part) == 16);

struct wire_disk_request {
	uint64_t offset, length;
	uint32_t id;
	uint8_t op, unmap;
	uint8_t zero[10];
};
static_assert(sizeof(struct wire_disk_request) == PART_BYTES);

struct wire_disk_reply {
	uint32_t id;
	uint8_t result;
	uint8_t zero[27];
};
static_assert(sizeof(struct wire_disk_reply) == PART_BYTES);

struct wire_net_run {
	uint16_t pair;
	uint8_t zero[30];
};
static_assert(sizeof(struct wire_net_run) == PART_BYTES);

struct wire_net_room {
	uint64_t limit;
	uint16_t pair;
	uint8_t zero[22];
};
static_assert(sizeof(struct wire_net_room) == PART_BYTES);

struct wire_net_driver {
	uint16_t pairs;
	uint8_t checksum, tso4, tso6, ecn;
	uint8_t zero[26];
};
static_assert(sizeof(struct wire_net_driver) == PART_BYTES);

static_assert(NET_PACKET_MAX + 8 <= IO_RUN_MAX && IO_RUN_MAX <= IO_DATA_MAX);

static bool all_zero(const uint8_t *bytes, size_t count)
{
	uint8_t any = 0;

	for (size_t i = 0; i < count; i++)
		any |= bytes[i];
	return any == 0;
}

static bool disk_request_valid(const struct io_disk_request *m, uint32_t data_bytes)
{
	bool moves = m->op == DISK_READ || m->op == DISK_WRITE;

	if (m->op > DISK_ZERO || (m->unmap && m->op != DISK_ZERO) ||
	    data_bytes != (m->op == DISK_WRITE ? m->length : 0))
		return false;
	if (m->op == DISK_FLUSH)
		return m->offset == 0 && m->length == 0;
	return m->length > 0 && m->length <= UINT64_MAX - m->offset &&
	       (!moves || m->length <= IO_DATA_MAX);
}

static bool disk_reply_valid(const struct io_disk_reply *m, uint32_t data_bytes)
{
	return m->result < IO_RESULT_LIMIT && (data_bytes == 0 || m->result == IO_RESULT_OK);
}

static bool valid(const struct io_message *msg)
{
	if (msg->device >= VIRTIO_DEVICES_MAX || msg->data_bytes > IO_DATA_MAX)
		return false;
	switch (msg->type) {
	case IO_DISK_REQUEST:
		return disk_request_valid(&msg->disk_request, msg->data_bytes);
	case IO_DISK_REPLY:
		return disk_reply_valid(&msg->disk_reply, msg->data_bytes);
	case IO_NET_OUT:
	case IO_NET_IN:
		return msg->net_run.pair < NET_PAIRS_MAX && msg->data_bytes > 0 &&
		       msg->data_bytes <= IO_RUN_MAX;
	case IO_NET_ROOM:
		return msg->net_room.pair < NET_PAIRS_MAX && msg->data_bytes == 0;
	case IO_NET_DRIVER:
		return msg->net_driver.pairs >= 1 && msg->net_driver.pairs <= NET_PAIRS_MAX &&
		       msg->data_bytes == 0;
	default:
		return false;
	}
}

static void put_disk_request(const struct io_disk_request *m, uint8_t *part)
{
	struct wire_disk_request w = {
		.offset = htole64(m->offset),
		.length = htole64(m->length),
		.id = htole32(m->id),
		.op = m->op,
		.unmap = m->unmap,
	};

	memcpy(part, &w, sizeof(w));
}

static void put_disk_reply(const struct io_disk_reply *m, uint8_t *part)
{
	struct wire_disk_reply w = { .id = htole32(m->id), .result = m->result };

	memcpy(part, &w, sizeof(w));
}

static void put_net_run(const struct io_net_run *m, uint8_t *part)
{
	struct wire_net_run w = { .pair = htole16(m->pair) };

	memcpy(part, &w, sizeof(w));
}

static void put_net_room(const struct io_net_room *m, uint8_t *part)
{
	struct wire_net_room w = { .limit = htole64(m->limit), .pair = htole16(m->pair) };

	memcpy(part, &w, sizeof(w));
}

static void put_net_driver(const struct io_net_driver *m, uint8_t *part)
{
	struct wire_net_driver w = {
		.pairs = htole16(m->pairs),
		.checksum = m->offloads.checksum,
		.tso4 = m->offloads.tso4,
		.tso6 = m->offloads.tso6,
		.ecn = m->offloads.ecn,
	};

	memcpy(part, &w, sizeof(w));
}

static void put_part(const struct io_message *msg, uint8_t *part)
{
	switch (msg->type) {
	case IO_DISK_REQUEST:
		put_disk_request(&msg->disk_request, part);
		break;
	case IO_DISK_REPLY:
		put_disk_reply(&msg->disk_reply, part);
		break;
	case IO_NET_OUT:
	case IO_NET_IN:
		put_net_run(&msg->net_run, part);
		break;
	case IO_NET_ROOM:
		put_net_room(&msg->net_room, part);
		break;
	case IO_NET_DRIVER:
		put_net_driver(&msg->net_driver, part);
		break;
	}
}

int io_message_encode(const struct io_message *msg, uint32_t sequence, uint8_t out[IO_HEAD_BYTES])
{
	struct wire_io w = {
		.magic = htole32(WIRE_MAGIC_IO),
		.type = msg->type,
		.device = msg->device,
		.sequence = htole32(sequence),
		.data_bytes = htole32(msg->data_bytes),
	};

	if (!valid(msg))
		return -EINVAL;
	put_part(msg, w.part);
	memcpy(out, &w, sizeof(w));
	return 0;
}

static int get_disk_request(const uint8_t *part, struct io_disk_request *m)
{
	struct wire_disk_request w;

	memcpy(&w, part, sizeof(w));
	*m = (struct io_disk_request){
		.id = le32toh(w.id),
		.op = w.op,
		.unmap = w.unmap,
		.offset = le64toh(w.offset),
		.length = le64toh(w.length),
	};
	return w.unmap <= 1 && all_zero(w.zero, sizeof(w.zero)) ? 0 : -EPROTO;
}

static int get_disk_reply(const uint8_t *part, struct io_disk_reply *m)
{
	struct wire_disk_reply w;

	memcpy(&w, part, sizeof(w));
	*m = (struct io_disk_reply){ .id = le32toh(w.id), .result = w.result };
	return all_zero(w.zero, sizeof(w.zero)) ? 0 : -EPROTO;
}

static int get_net_run(const uint8_t *part, struct io_net_run *m)
{
	struct wire_net_run w;

	memcpy(&w, part, sizeof(w));
	*m = (struct io_net_run){ .pair = le16toh(w.pair) };
	return all_zero(w.zero, sizeof(w.zero)) ? 0 : -EPROTO;
}

static int get_net_room(const uint8_t *part, struct io_net_room *m)
{
	struct wire_net_room w;

	memcpy(&w, part, sizeof(w));
	*m = (struct io_net_room){ .pair = le16toh(w.pair), .limit = le64toh(w.limit) };
	return all_zero(w.zero, sizeof(w.zero)) ? 0 : -EPROTO;
}

static int get_net_driver(const uint8_t *part, struct io_net_driver *m)
{
	struct wire_net_driver w;

	memcpy(&w, part, sizeof(w));
	*m = (struct io_net_driver){
		.pairs = le16toh(w.pairs),
		.offloads = { .checksum = w.checksum, .tso4 = w.tso4, .tso6 = w.tso6, .ecn = w.ecn }
	};
	return w.checksum <= 1 && w.tso4 <= 1 && w.tso6 <= 1 && w.ecn <= 1 &&
			       all_zero(w.zero, sizeof(w.zero))
		       ? 0
		       : -EPROTO;
}

static int get_part(const uint8_t *part, struct io_message *msg)
{
	switch (msg->type) {
	case IO_DISK_REQUEST:
		return get_disk_request(part, &msg->disk_request);
	case IO_DISK_REPLY:
		return get_disk_reply(part, &msg->disk_reply);
	case IO_NET_OUT:
	case IO_NET_IN:
		return get_net_run(part, &msg->net_run);
	case IO_NET_ROOM:
		return get_net_room(part, &msg->net_room);
	case IO_NET_DRIVER:
		return get_net_driver(part, &msg->net_driver);
	default:
		return -EPROTO;
	}
}

int io_message_decode(const uint8_t in[IO_HEAD_BYTES], uint32_t sequence,
		      struct io_message *ret_msg)
{
	struct io_message msg;
	struct wire_io w;

	memcpy(&w, in, sizeof(w));
	msg = (struct io_message){
		.type = w.type,
		.device = w.device,
		.data_bytes = le32toh(w.data_bytes),
	};
	if (le32toh(w.magic) != WIRE_MAGIC_IO || w.zero != 0 || le32toh(w.sequence) != sequence ||
	    get_part(w.part, &msg) < 0 || !valid(&msg))
		return -EPROTO;
	*ret_msg = msg;
	return 0;
}
