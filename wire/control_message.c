// SPDX-License-Identifier: Apache-2.0
/*
 * Layout, encoding and decoding of control messages.
 *
 * Every type has a struct of its fixed fields as they lie on the wire (control_parts.h), and may
 * have a tail: a list of vCPUs, CPUID leaves, bytes or text, whose length the fixed fields say. A
 * decoder copies the fixed fields out, converts and checks them, checks that the tail has exactly
 * the size they promise, and only then touches the tail. Nothing here allocates or keeps anything.
 *
 * What has a part in the guest's machine is in control_machine.c, what is about where its vCPUs are
 * in control_moves.c, what changes the list of members in control_members.c,
 * what is said with who asks to join in control_join.c, all else here.
 *
 * Tested by tests/link/test_control_message.c, fuzzed by tests/fuzz/fuzz_control_message.c.
 */
#include "wire/control_message.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/control_parts.h"
#include "wire/text.h"
#include "wire/vcpu_image.h"
#include "wire/version.h"

const char *control_type_name(uint8_t type)
{
	static const char *const names[CONTROL_TYPE_LIMIT] = {
		[CONTROL_HEARTBEAT] = "HEARTBEAT",
		[CONTROL_CLOCK_PING] = "CLOCK_PING",
		[CONTROL_CLOCK_PONG] = "CLOCK_PONG",
		[CONTROL_INTERRUPT] = "INTERRUPT",
		[CONTROL_EOI] = "EOI",
		[CONTROL_IO_REQUEST] = "IO_REQUEST",
		[CONTROL_IO_REPLY] = "IO_REPLY",
		[CONTROL_FEATURES] = "FEATURES",
		[CONTROL_START] = "START",
		[CONTROL_READY] = "READY",
		[CONTROL_RUN] = "RUN",
		[CONTROL_STATS_REQUEST] = "STATS_REQUEST",
		[CONTROL_STATS_REPLY] = "STATS_REPLY",
		[CONTROL_END] = "END",
		[CONTROL_MOVE] = "MOVE",
		[CONTROL_PLACE] = "PLACE",
		[CONTROL_REFUSED] = "REFUSED",
		[CONTROL_MOVE_ASK] = "MOVE_ASK",
		[CONTROL_MOVE_TOLD] = "MOVE_TOLD",
		[CONTROL_TAKEN] = "TAKEN",
		[CONTROL_LOAD] = "LOAD",
		[CONTROL_OUTCOMES] = "OUTCOMES",
		[CONTROL_POLICY] = "POLICY",
		[CONTROL_PIN] = "PIN",
		[CONTROL_COMING] = "COMING",
		[CONTROL_BUTTON] = "BUTTON",
		[CONTROL_PUBLISHED] = "PUBLISHED",
		[CONTROL_STOPPED] = "STOPPED",
		[CONTROL_NEEDS_RESET] = "NEEDS_RESET",
		[CONTROL_QUEUE] = "QUEUE",
		[CONTROL_QUEUE_PLACE] = "QUEUE_PLACE",
		[CONTROL_DOORBELL] = "DOORBELL",
		[CONTROL_STEP] = "STEP",
		[CONTROL_STEP_DONE] = "STEP_DONE",
		[CONTROL_STEP_OVER] = "STEP_OVER",
		[CONTROL_WISH] = "WISH",
		[CONTROL_WISH_REFUSED] = "WISH_REFUSED",
		[CONTROL_JOIN_READY] = "JOIN_READY",
		[CONTROL_JOIN_FAILED] = "JOIN_FAILED",
		[CONTROL_DRAINED] = "DRAINED",
		[CONTROL_JOIN_ASK] = "JOIN_ASK",
		[CONTROL_JOIN_TOLD] = "JOIN_TOLD",
	};

	return type < CONTROL_TYPE_LIMIT && names[type] ? names[type] : "?";
}

/* ---- Rules of each type: the same for encoding (our own bug) and decoding (a peer's). ---- */

static bool stats_reply_valid(const struct control_stats_reply *m)
{
	return m->text && m->text_size >= 1 && m->text_size <= CONTROL_STATS_PART_MAX &&
	       m->total <= CONTROL_STATS_TEXT_MAX && m->offset <= m->total &&
	       m->text_size <= m->total - m->offset &&
	       wire_text_span_valid(m->text, m->text_size, true);
}

static bool end_valid(const struct control_end *m)
{
	return m->kind < CONTROL_END_KIND_LIMIT && (m->node < NODES_MAX || m->node == NODE_NONE) &&
	       (m->vcpu < VCPUS_MAX || m->vcpu == NODE_NONE) &&
	       wire_text_valid(m->text, sizeof(m->text));
}

/* ---- Encoding. Each returns the payload's size, or -EINVAL. ---- */

static int put_numbers(uint8_t *out, unsigned count, const uint64_t *number)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t le = htole64(number[i]);

		memcpy(out + i * sizeof(le), &le, sizeof(le));
	}
	return (int)(count * sizeof(uint64_t));
}

static int encode_stats_reply(const struct control_stats_reply *m, uint8_t *out)
{
	struct wire_stats_reply w = {
		.id = htole64(m->id),
		.offset = htole32(m->offset),
		.total = htole32(m->total),
	};

	if (!stats_reply_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), m->text, m->text_size);
	return (int)(sizeof(w) + m->text_size);
}

static int encode_end(const struct control_end *m, uint8_t *out)
{
	struct wire_end w = {
		.rip = htole64(m->rip),
		.node = htole16(m->node),
		.vcpu = htole16(m->vcpu),
		.kind = m->kind,
		.status = m->status,
	};
	struct control_end clean = *m;
	size_t text_size;

	/* The pod is ending: words that are not fit to print must not keep the reason back. */
	if (strnlen(m->text, sizeof(m->text)) == sizeof(m->text))
		return -EINVAL;
	wire_text_clean(clean.text, sizeof(clean.text), m->text);
	if (!end_valid(&clean))
		return -EINVAL;
	text_size = strlen(clean.text);
	w.text_size = htole16((uint16_t)text_size);
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), clean.text, text_size);
	return (int)(sizeof(w) + text_size);
}

/* What is more than a payload can have is refused by the encoder. */
static size_t join_told_bytes_max(const struct control_join_told *m)
{
	uint64_t bytes = sizeof(struct wire_join_told) + CONTROL_TEXT_MAX + m->secret_size +
			 (uint64_t)m->config_size + m->list_size;

	return bytes < CONTROL_PAYLOAD_MAX ? bytes : CONTROL_PAYLOAD_MAX;
}

/* Bounds how much the encoders above write, before they do. */
static size_t payload_bytes_max(const struct control_message *msg)
{
	switch (msg->type) {
	case CONTROL_INTERRUPT:
		return sizeof(struct wire_interrupt) + CONTROL_VCPUS_MAX * sizeof(uint16_t);
	case CONTROL_IO_REQUEST:
	case CONTROL_IO_REPLY:
		return sizeof(struct wire_io_request) + CONTROL_IO_BYTES_MAX;
	case CONTROL_FEATURES:
	case CONTROL_START:
		return sizeof(struct wire_features) + CPUID_LEAVES_MAX * sizeof(struct wire_leaf) +
		       VIRTIO_DEVICES_MAX * DEVICE_INFO_BYTES;
	case CONTROL_STATS_REPLY:
		return sizeof(struct wire_stats_reply) + (size_t)msg->stats_reply.text_size;
	case CONTROL_END:
		return sizeof(struct wire_end) + CONTROL_TEXT_MAX;
	case CONTROL_MOVE:
		return sizeof(struct wire_move) + VCPU_IMAGE_BYTES_MAX + PLACEMENT_CARRY_BYTES +
		       PAGE_HINTS_BYTES_MAX;
	case CONTROL_PUBLISHED:
		return sizeof(struct wire_published) +
		       VIRTIO_QUEUES_MAX * sizeof(struct wire_published_queue) +
		       VIRTIO_VECTORS_MAX * sizeof(struct wire_published_vector);
	case CONTROL_OUTCOMES:
		return sizeof(struct wire_outcomes) +
		       PLACEMENT_OUTCOMES * sizeof(struct wire_outcome);
	case CONTROL_STEP:
	case CONTROL_WISH:
		return sizeof(struct wire_step) + sizeof(struct wire_about);
	case CONTROL_JOIN_ASK:
		return sizeof(struct wire_about) + sizeof(struct wire_features) +
		       CPUID_LEAVES_MAX * sizeof(struct wire_leaf) +
		       VIRTIO_DEVICES_MAX * DEVICE_INFO_BYTES;
	case CONTROL_JOIN_TOLD:
		return join_told_bytes_max(&msg->join_told);
	default:
		return sizeof(struct wire_numbers);
	}
}

static int encode_payload(const struct control_message *msg, uint8_t *out)
{
	switch (msg->type) {
	case CONTROL_HEARTBEAT:
		return 0;
	case CONTROL_BUTTON:
		return put_numbers(out, 1, &msg->button.count);
	case CONTROL_CLOCK_PING:
		return put_numbers(out, 2,
				   (uint64_t[]){ msg->clock_ping.id, msg->clock_ping.sent_ns });
	case CONTROL_CLOCK_PONG:
		if (msg->clock_pong.peer_received_ns > msg->clock_pong.peer_sent_ns)
			return -EINVAL;
		return put_numbers(out, 4,
				   (uint64_t[]){ msg->clock_pong.id, msg->clock_pong.sent_ns,
						 msg->clock_pong.peer_received_ns,
						 msg->clock_pong.peer_sent_ns });
	case CONTROL_INTERRUPT:
		return control_encode_interrupt(&msg->interrupt, out);
	case CONTROL_EOI:
		return control_encode_eoi(&msg->eoi, out);
	case CONTROL_PUBLISHED:
		return control_encode_published(&msg->published, out);
	case CONTROL_STOPPED:
	case CONTROL_NEEDS_RESET:
		return control_encode_stopped(&msg->stopped, out);
	case CONTROL_QUEUE:
		return control_encode_queue(&msg->queue, out);
	case CONTROL_QUEUE_PLACE:
		return control_encode_queue_place(&msg->queue_place, out);
	case CONTROL_DOORBELL:
		return control_encode_doorbell(&msg->doorbell, out);
	case CONTROL_IO_REQUEST:
		return control_encode_io_request(&msg->io_request, out);
	case CONTROL_IO_REPLY:
		return control_encode_io_reply(&msg->io_reply, out);
	case CONTROL_FEATURES:
		return control_encode_features(&msg->features, out);
	case CONTROL_START:
		return control_encode_start(&msg->start, out);
	case CONTROL_READY:
		return put_numbers(out, 1, &msg->ready.clock_error_ns);
	case CONTROL_RUN:
		return put_numbers(out, 2, (uint64_t[]){ msg->run.start_ns, msg->run.entry });
	case CONTROL_STATS_REQUEST:
		if (msg->stats_request.what >= CONTROL_STATS_WHAT_LIMIT)
			return -EINVAL;
		return put_numbers(out, 2,
				   (uint64_t[]){ msg->stats_request.id, msg->stats_request.what });
	case CONTROL_STATS_REPLY:
		return encode_stats_reply(&msg->stats_reply, out);
	case CONTROL_END:
		return encode_end(&msg->end, out);
	case CONTROL_MOVE:
		return control_encode_move(&msg->move, out);
	case CONTROL_PLACE:
		return control_encode_place(msg->place.vcpu, msg->place.epoch, out);
	case CONTROL_REFUSED:
		return control_encode_place(msg->refused.vcpu, msg->refused.epoch, out);
	case CONTROL_COMING:
		return control_encode_place(msg->coming.vcpu, msg->coming.epoch, out);
	case CONTROL_MOVE_ASK:
		return control_encode_move_ask(&msg->move_ask, out);
	case CONTROL_MOVE_TOLD:
		return control_encode_move_told(&msg->move_told, out);
	case CONTROL_TAKEN:
		return control_encode_taken(&msg->taken, out);
	case CONTROL_LOAD:
		return control_encode_load(&msg->load, out);
	case CONTROL_OUTCOMES:
		return control_encode_outcomes(&msg->outcomes, out);
	case CONTROL_POLICY:
		return control_encode_policy(&msg->policy, out);
	case CONTROL_PIN:
		return control_encode_pin(&msg->pin, out);
	case CONTROL_STEP:
	case CONTROL_STEP_DONE:
	case CONTROL_STEP_OVER:
	case CONTROL_WISH:
	case CONTROL_WISH_REFUSED:
	case CONTROL_JOIN_READY:
	case CONTROL_JOIN_FAILED:
	case CONTROL_DRAINED:
		return control_encode_member(msg->type, &msg->member, out);
	case CONTROL_JOIN_ASK:
		return control_encode_join_ask(&msg->join_ask, out);
	case CONTROL_JOIN_TOLD:
		return control_encode_join_told(&msg->join_told, out);
	default:
		return -EINVAL;
	}
}

int control_message_encode(const struct control_message *msg, uint32_t sequence, uint8_t *out,
			   size_t size)
{
	struct wire_header header = {
		.magic = htole32(WIRE_MAGIC_CONTROL),
		.type = htole16(msg->type),
		.sequence = htole32(sequence),
	};
	int payload;

	if (msg->type == CONTROL_STATS_REPLY && msg->stats_reply.text_size > CONTROL_STATS_PART_MAX)
		return -EINVAL;
	if (size < CONTROL_HEADER_BYTES + payload_bytes_max(msg))
		return -EMSGSIZE;
	payload = encode_payload(msg, out + CONTROL_HEADER_BYTES);
	if (payload < 0)
		return payload;
	header.payload_size = htole32((uint32_t)payload);
	memcpy(out, &header, sizeof(header));
	return (int)CONTROL_HEADER_BYTES + payload;
}

/* ---- Decoding ---- */

int control_header_decode(const uint8_t in[CONTROL_HEADER_BYTES], struct control_header *ret_header)
{
	struct wire_header w;
	uint16_t type;
	uint32_t payload_size;

	memcpy(&w, in, sizeof(w));
	type = le16toh(w.type);
	payload_size = le32toh(w.payload_size);
	if (le32toh(w.magic) != WIRE_MAGIC_CONTROL || w.zero != 0 || type == 0 ||
	    type >= CONTROL_TYPE_LIMIT || payload_size > CONTROL_PAYLOAD_MAX)
		return -EPROTO;
	ret_header->type = type;
	ret_header->payload_size = payload_size;
	ret_header->sequence = le32toh(w.sequence);
	return 0;
}

static int get_numbers(const uint8_t *in, size_t size, unsigned count, uint64_t *ret_number)
{
	if (size != count * sizeof(uint64_t))
		return -EPROTO;
	for (unsigned i = 0; i < count; i++) {
		uint64_t le;

		memcpy(&le, in + i * sizeof(le), sizeof(le));
		ret_number[i] = le64toh(le);
	}
	return 0;
}

static int decode_run(const uint8_t *payload, size_t size, struct control_run *m)
{
	uint64_t number[2];
	int r = get_numbers(payload, size, 2, number);

	if (!r)
		*m = (struct control_run){ .start_ns = number[0], .entry = number[1] };
	return r;
}

static int decode_clock_ping(const uint8_t *in, size_t size, struct control_clock_ping *m)
{
	uint64_t number[2];

	if (get_numbers(in, size, 2, number) < 0)
		return -EPROTO;
	m->id = number[0];
	m->sent_ns = number[1];
	return 0;
}

static int decode_clock_pong(const uint8_t *in, size_t size, struct control_clock_pong *m)
{
	uint64_t number[4];

	if (get_numbers(in, size, 4, number) < 0)
		return -EPROTO;
	m->id = number[0];
	m->sent_ns = number[1];
	m->peer_received_ns = number[2];
	m->peer_sent_ns = number[3];
	return m->peer_received_ns > m->peer_sent_ns ? -EPROTO : 0;
}

static int decode_stats_reply(const uint8_t *in, size_t size, struct control_stats_reply *m)
{
	struct wire_stats_reply w;

	if (size < sizeof(w) || size > sizeof(w) + CONTROL_STATS_PART_MAX)
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->id = le64toh(w.id);
	m->offset = le32toh(w.offset);
	m->total = le32toh(w.total);
	m->text = (const char *)in + sizeof(w);
	m->text_size = (uint32_t)(size - sizeof(w));
	return stats_reply_valid(m) ? 0 : -EPROTO;
}

static int decode_end(const uint8_t *in, size_t size, struct control_end *m)
{
	struct wire_end w;
	uint16_t text_size;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	text_size = le16toh(w.text_size);
	if (text_size >= CONTROL_TEXT_MAX || size != sizeof(w) + text_size)
		return -EPROTO;
	m->rip = le64toh(w.rip);
	m->node = le16toh(w.node);
	m->vcpu = le16toh(w.vcpu);
	m->kind = w.kind;
	m->status = w.status;
	memcpy(m->text, in + sizeof(w), text_size);
	memset(m->text + text_size, 0, sizeof(m->text) - text_size);
	/* A NUL inside would shorten the text in silence. */
	return strlen(m->text) == text_size && end_valid(m) ? 0 : -EPROTO;
}

static int decode_stats_request(const uint8_t *in, size_t size, struct control_stats_request *m)
{
	uint64_t number[2];
	int r = get_numbers(in, size, 2, number);

	if (r < 0 || number[1] >= CONTROL_STATS_WHAT_LIMIT)
		return -EPROTO;
	*m = (struct control_stats_request){ .id = number[0], .what = number[1] };
	return 0;
}

int control_message_decode(uint16_t type, const uint8_t *payload, size_t size,
			   struct control_message *ret_msg)
{
	if (size > CONTROL_PAYLOAD_MAX)
		return -EPROTO;
	ret_msg->type = (uint8_t)type;
	ret_msg->src = 0;
	switch (type) {
	case CONTROL_HEARTBEAT:
		return size == 0 ? 0 : -EPROTO;
	case CONTROL_BUTTON:
		return get_numbers(payload, size, 1, &ret_msg->button.count);
	case CONTROL_CLOCK_PING:
		return decode_clock_ping(payload, size, &ret_msg->clock_ping);
	case CONTROL_CLOCK_PONG:
		return decode_clock_pong(payload, size, &ret_msg->clock_pong);
	case CONTROL_INTERRUPT:
		return control_decode_interrupt(payload, size, &ret_msg->interrupt);
	case CONTROL_EOI:
		return control_decode_eoi(payload, size, &ret_msg->eoi);
	case CONTROL_PUBLISHED:
		return control_decode_published(payload, size, &ret_msg->published);
	case CONTROL_STOPPED:
	case CONTROL_NEEDS_RESET:
		return control_decode_stopped(payload, size, &ret_msg->stopped);
	case CONTROL_QUEUE:
		return control_decode_queue(payload, size, &ret_msg->queue);
	case CONTROL_QUEUE_PLACE:
		return control_decode_queue_place(payload, size, &ret_msg->queue_place);
	case CONTROL_DOORBELL:
		return control_decode_doorbell(payload, size, &ret_msg->doorbell);
	case CONTROL_IO_REQUEST:
		return control_decode_io_request(payload, size, &ret_msg->io_request);
	case CONTROL_IO_REPLY:
		return control_decode_io_reply(payload, size, &ret_msg->io_reply);
	case CONTROL_FEATURES:
		return control_decode_features(payload, size, &ret_msg->features);
	case CONTROL_START:
		return control_decode_start(payload, size, &ret_msg->start);
	case CONTROL_READY:
		return get_numbers(payload, size, 1, &ret_msg->ready.clock_error_ns);
	case CONTROL_RUN:
		return decode_run(payload, size, &ret_msg->run);
	case CONTROL_STATS_REQUEST:
		return decode_stats_request(payload, size, &ret_msg->stats_request);
	case CONTROL_STATS_REPLY:
		return decode_stats_reply(payload, size, &ret_msg->stats_reply);
	case CONTROL_END:
		return decode_end(payload, size, &ret_msg->end);
	case CONTROL_MOVE:
		return control_decode_move(payload, size, &ret_msg->move);
	case CONTROL_PLACE:
		return control_decode_place(payload, size, &ret_msg->place.vcpu,
					    &ret_msg->place.epoch);
	case CONTROL_REFUSED:
		return control_decode_place(payload, size, &ret_msg->refused.vcpu,
					    &ret_msg->refused.epoch);
	case CONTROL_COMING:
		return control_decode_place(payload, size, &ret_msg->coming.vcpu,
					    &ret_msg->coming.epoch);
	case CONTROL_MOVE_ASK:
		return control_decode_move_ask(payload, size, &ret_msg->move_ask);
	case CONTROL_MOVE_TOLD:
		return control_decode_move_told(payload, size, &ret_msg->move_told);
	case CONTROL_TAKEN:
		return control_decode_taken(payload, size, &ret_msg->taken);
	case CONTROL_LOAD:
		return control_decode_load(payload, size, &ret_msg->load);
	case CONTROL_OUTCOMES:
		return control_decode_outcomes(payload, size, &ret_msg->outcomes);
	case CONTROL_POLICY:
		return control_decode_policy(payload, size, &ret_msg->policy);
	case CONTROL_PIN:
		return control_decode_pin(payload, size, &ret_msg->pin);
	case CONTROL_STEP:
	case CONTROL_STEP_DONE:
	case CONTROL_STEP_OVER:
	case CONTROL_WISH:
	case CONTROL_WISH_REFUSED:
	case CONTROL_JOIN_READY:
	case CONTROL_JOIN_FAILED:
	case CONTROL_DRAINED:
		return control_decode_member((uint8_t)type, payload, size, &ret_msg->member);
	case CONTROL_JOIN_ASK:
		return control_decode_join_ask(payload, size, &ret_msg->join_ask);
	case CONTROL_JOIN_TOLD:
		return control_decode_join_told(payload, size, &ret_msg->join_told);
	default:
		return -EPROTO;
	}
}
