// SPDX-License-Identifier: Apache-2.0
/*
 * Layout, encoding and decoding of control messages.
 *
 * Every type has a struct of its fixed fields as they lie on the wire, frozen by static asserts,
 * and may have a tail: a list of vCPUs, CPUID leaves, bytes or text, whose length the fixed fields
 * say. A decoder copies the fixed fields out, converts and checks them, checks that the tail has
 * exactly the size they promise, and only then touches the tail. Nothing here allocates or keeps
 * anything.
 *
 * Tested by tests/link/test_control_message.c, fuzzed by tests/fuzz/fuzz_control_message.c.
 */
#include "wire/control_message.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/text.h"
#include "wire/vcpu_image.h"
#include "wire/version.h"

struct wire_header {
	uint32_t magic;
	uint16_t type;
	uint16_t zero;
	uint32_t payload_size;
	uint32_t sequence;
};
static_assert(sizeof(struct wire_header) == CONTROL_HEADER_BYTES);
static_assert(offsetof(struct wire_header, payload_size) == 8);

/* Messages of one to four numbers: HEARTBEAT, CLOCK_*, READY, RUN, STATS_REQUEST. */
struct wire_numbers {
	uint64_t number[4];
};

struct wire_interrupt {
	uint8_t delivery, vector, level, zero;
	uint16_t from_vcpu, vcpu_count;
	/* uint16_t vcpu[vcpu_count] */
};
static_assert(sizeof(struct wire_interrupt) == 8);

struct wire_eoi {
	uint16_t vcpu;
	uint8_t vector;
	uint8_t zero;
};
static_assert(sizeof(struct wire_eoi) == 4);

struct wire_io_request {
	uint64_t id;
	uint64_t address;
	uint16_t vcpu;
	uint16_t count;
	uint8_t kind, size, write, zero;
	/* uint8_t data[count * size], if write */
};
static_assert(sizeof(struct wire_io_request) == 24);
static_assert(offsetof(struct wire_io_request, kind) == 20);

struct wire_io_reply {
	uint64_t id;
	uint16_t vcpu;
	uint16_t count;
	uint8_t zero1, size;
	uint8_t zero2[2];
	/* uint8_t data[count * size] */
};
static_assert(sizeof(struct wire_io_reply) == 16);

struct wire_leaf {
	uint32_t function, index;
	uint32_t index_matters;
	uint32_t eax, ebx, ecx, edx;
};
static_assert(sizeof(struct wire_leaf) == 28);

struct wire_features {
	char engine[CONTROL_ENGINE_MAX];
	uint64_t capacity_pages;
	uint32_t tsc_khz;
	uint16_t vcpu_count;
	uint16_t leaf_count;
	uint8_t tsc_deadline, tsc_scaling, walks_write, zero[1];
	uint32_t tsc_margin_ppm;
	/* struct wire_leaf leaf[leaf_count] */
};
static_assert(sizeof(struct wire_features) == 40);
static_assert(offsetof(struct wire_features, tsc_deadline) == 32);

struct wire_start {
	uint64_t memory_bytes;
	uint64_t epoch_ns;
	uint32_t tsc_khz;
	uint16_t vcpu_count;
	uint16_t leaf_count;
	uint8_t tsc_deadline, walks_write, zero[6];
	/* struct wire_leaf leaf[leaf_count] */
};
static_assert(sizeof(struct wire_start) == 32);

struct wire_stats_reply {
	uint64_t id;
	uint32_t offset, total;
	/* char text[] */
};
static_assert(sizeof(struct wire_stats_reply) == 16);

struct wire_end {
	uint64_t rip;
	uint16_t node, vcpu;
	uint16_t text_size;
	uint8_t kind, status;
	/* char text[text_size], without NUL */
};
static_assert(sizeof(struct wire_end) == 16);

struct wire_move {
	uint16_t vcpu, image_size;
	uint16_t carry_size, hints_size;
	uint64_t epoch, clock_ns, guest_tsc, decided_ns;
	/* uint8_t image[image_size], carry[carry_size], hints[hints_size] */
};
static_assert(sizeof(struct wire_move) == 40);

/* PLACE, REFUSED */
struct wire_place {
	uint64_t epoch;
	uint16_t vcpu;
	uint8_t zero[6];
};
static_assert(sizeof(struct wire_place) == 16);

struct wire_move_ask {
	uint64_t id;
	uint16_t vcpu, to, asker;
	uint8_t zero[2];
};
static_assert(sizeof(struct wire_move_ask) == 16);

struct wire_move_told {
	uint64_t id;
	uint16_t vcpu;
	uint8_t result, zero[5];
};
static_assert(sizeof(struct wire_move_told) == 16);

struct wire_taken {
	uint16_t vcpu;
	uint8_t zero[6];
};
static_assert(sizeof(struct wire_taken) == 8);

struct wire_outcomes {
	uint16_t count;
	uint8_t zero[6];
};
static_assert(sizeof(struct wire_outcomes) == 8);

struct wire_outcome {
	uint8_t arm, zero;
	int8_t feature[PLACEMENT_FEATURES];
	uint32_t program, lost_us;
} __attribute__((packed));
static_assert(sizeof(struct wire_outcome) == 26);

/* LOAD: cores, awake. POLICY: shadow, policy. PIN: vCPU, pinned. */
struct wire_pair {
	uint16_t first, second;
	uint8_t zero[4];
};
static_assert(sizeof(struct wire_pair) == 8);

static_assert(sizeof(struct wire_stats_reply) + CONTROL_STATS_PART_MAX <= CONTROL_PAYLOAD_MAX);
static_assert(sizeof(struct wire_features) + CPUID_LEAVES_MAX * sizeof(struct wire_leaf) <=
	      CONTROL_PAYLOAD_MAX);

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
	};

	return type < CONTROL_TYPE_LIMIT && names[type] ? names[type] : "?";
}

/* ---- Rules of each type: the same for encoding (our own bug) and decoding (a peer's). ---- */

static bool interrupt_valid(const struct control_interrupt *m)
{
	switch (m->delivery) {
	case CONTROL_DELIVERY_FIXED:
	case CONTROL_DELIVERY_LOWEST:
	case CONTROL_DELIVERY_SMI:
	case CONTROL_DELIVERY_NMI:
	case CONTROL_DELIVERY_INIT:
	case CONTROL_DELIVERY_SIPI:
	case CONTROL_DELIVERY_EXTINT:
		break;
	default:
		return false;
	}
	if (m->level > 1)
		return false;
	if (m->from_vcpu >= VCPUS_MAX && m->from_vcpu != NODE_NONE)
		return false;
	if (m->vcpu_count == 0 || m->vcpu_count > CONTROL_VCPUS_MAX)
		return false;
	for (uint16_t i = 0; i < m->vcpu_count; i++) {
		if (m->vcpu[i] >= VCPUS_MAX)
			return false;
	}
	return true;
}

static bool startup_valid(const struct control_io_request *m)
{
	uint8_t mode = (uint8_t)(m->address >> CONTROL_STARTUP_MODE);

	return m->address >> 32 == 0 && (m->address & 0xffff) < VCPUS_MAX &&
	       (mode == CONTROL_DELIVERY_INIT || mode == CONTROL_DELIVERY_SIPI) && m->size == 1 &&
	       m->count == 1 && m->write;
}

static bool io_request_valid(const struct control_io_request *m)
{
	if (m->vcpu >= VCPUS_MAX || m->write > 1)
		return false;
	if (m->kind == CONTROL_IO_PORT)
		return (m->size == 1 || m->size == 2 || m->size == 4) && m->address <= 0xffff &&
		       m->count >= 1 && m->count <= CONTROL_IO_ITEMS_MAX;
	if (m->kind == CONTROL_IO_MMIO)
		return m->size >= 1 && m->size <= 8 && m->address < GPA_LIMIT && m->count == 1;
	if (m->kind == CONTROL_IO_STARTUP)
		return startup_valid(m);
	return false;
}

static bool io_reply_valid(const struct control_io_reply *m)
{
	return m->vcpu < VCPUS_MAX && m->size >= 1 && m->size <= 8 &&
	       m->count <= CONTROL_IO_ITEMS_MAX;
}

static bool leaves_valid(const struct cpuid_set *set)
{
	if (set->count == 0 || set->count > CPUID_LEAVES_MAX)
		return false;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct cpuid_leaf *leaf = &set->leaf[i];

		if (leaf->index_matters > 1)
			return false;
		if (i == 0)
			continue;
		if (leaf[-1].function > leaf->function ||
		    (leaf[-1].function == leaf->function && leaf[-1].index >= leaf->index))
			return false;
	}
	return true;
}

static bool features_valid(const struct control_features *m)
{
	return wire_text_valid(m->engine, sizeof(m->engine)) && m->engine[0] != '\0' &&
	       m->tsc_khz > 0 && m->vcpu_count <= VCPUS_MAX && m->tsc_deadline <= 1 &&
	       m->tsc_scaling <= 1 && m->walks_write <= 1 && m->capacity_pages <= GPN_LIMIT &&
	       m->tsc_margin_ppm <= CONTROL_TSC_MARGIN_MAX && leaves_valid(&m->offer);
}

static bool start_valid(const struct control_start *m)
{
	return m->memory_bytes > 0 && m->memory_bytes <= GPA_LIMIT &&
	       m->memory_bytes % PAGE_BYTES == 0 && m->tsc_khz > 0 && m->vcpu_count >= 1 &&
	       m->vcpu_count <= VCPUS_MAX && m->tsc_deadline <= 1 && m->walks_write <= 1 &&
	       leaves_valid(&m->cpuid);
}

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

static bool move_valid(const struct control_move *m)
{
	return m->vcpu < VCPUS_MAX && m->image && m->image_size >= 1 &&
	       m->image_size <= VCPU_IMAGE_BYTES_MAX && m->hints_size <= PAGE_HINTS_BYTES_MAX;
}

static bool move_ask_valid(const struct control_move_ask *m)
{
	return m->vcpu < VCPUS_MAX && m->to < NODES_MAX && m->asker < NODES_MAX;
}

static bool move_told_valid(const struct control_move_told *m)
{
	return m->vcpu < VCPUS_MAX && m->result < CONTROL_MOVE_RESULT_LIMIT;
}

static bool outcomes_valid(const struct control_outcomes *m)
{
	if (m->count == 0 || m->count > PLACEMENT_OUTCOMES)
		return false;
	for (uint32_t i = 0; i < m->count; i++) {
		if (!placement_outcome_valid(&m->outcome[i]))
			return false;
	}
	return true;
}

static bool load_valid(const struct control_load *m)
{
	return m->awake <= VCPUS_MAX;
}

static bool policy_valid(const struct control_policy *m)
{
	return m->shadow <= 1 && m->policy < PLACEMENT_POLICIES + m->shadow;
}

static bool pin_valid(const struct control_pin *m)
{
	return m->vcpu < VCPUS_MAX && m->pinned <= 1;
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

static int encode_interrupt(const struct control_interrupt *m, uint8_t *out)
{
	struct wire_interrupt w = {
		.delivery = m->delivery,
		.vector = m->vector,
		.level = m->level,
		.from_vcpu = htole16(m->from_vcpu),
		.vcpu_count = htole16(m->vcpu_count),
	};

	if (!interrupt_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	out += sizeof(w);
	for (uint16_t i = 0; i < m->vcpu_count; i++) {
		uint16_t le = htole16(m->vcpu[i]);

		memcpy(out + i * sizeof(le), &le, sizeof(le));
	}
	return (int)(sizeof(w) + m->vcpu_count * sizeof(uint16_t));
}

static int encode_eoi(const struct control_eoi *m, uint8_t *out)
{
	struct wire_eoi w = { .vcpu = htole16(m->vcpu), .vector = m->vector };

	if (m->vcpu >= VCPUS_MAX)
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static int encode_io_request(const struct control_io_request *m, uint8_t *out)
{
	struct wire_io_request w = {
		.id = htole64(m->id),
		.address = htole64(m->address),
		.vcpu = htole16(m->vcpu),
		.count = htole16(m->count),
		.kind = m->kind,
		.size = m->size,
		.write = m->write,
	};
	size_t data_bytes;

	if (!io_request_valid(m))
		return -EINVAL;
	data_bytes = m->write ? (size_t)m->count * m->size : 0;
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), m->data, data_bytes);
	return (int)(sizeof(w) + data_bytes);
}

static int encode_io_reply(const struct control_io_reply *m, uint8_t *out)
{
	struct wire_io_reply w = {
		.id = htole64(m->id),
		.vcpu = htole16(m->vcpu),
		.count = htole16(m->count),
		.size = m->size,
	};
	size_t data_bytes = (size_t)m->count * m->size;

	if (!io_reply_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), m->data, data_bytes);
	return (int)(sizeof(w) + data_bytes);
}

static size_t put_leaves(uint8_t *out, const struct cpuid_set *set)
{
	for (uint32_t i = 0; i < set->count; i++) {
		const struct cpuid_leaf *leaf = &set->leaf[i];
		struct wire_leaf w = {
			.function = htole32(leaf->function),
			.index = htole32(leaf->index),
			.index_matters = htole32(leaf->index_matters),
			.eax = htole32(leaf->eax),
			.ebx = htole32(leaf->ebx),
			.ecx = htole32(leaf->ecx),
			.edx = htole32(leaf->edx),
		};

		memcpy(out + i * sizeof(w), &w, sizeof(w));
	}
	return set->count * sizeof(struct wire_leaf);
}

static int encode_features(const struct control_features *m, uint8_t *out)
{
	struct wire_features w = {
		.capacity_pages = htole64(m->capacity_pages),
		.tsc_khz = htole32(m->tsc_khz),
		.vcpu_count = htole16(m->vcpu_count),
		.leaf_count = htole16((uint16_t)m->offer.count),
		.tsc_deadline = m->tsc_deadline,
		.tsc_scaling = m->tsc_scaling,
		.walks_write = m->walks_write,
		.tsc_margin_ppm = htole32(m->tsc_margin_ppm),
	};

	if (!features_valid(m))
		return -EINVAL;
	wire_text_put(w.engine, sizeof(w.engine), m->engine);
	memcpy(out, &w, sizeof(w));
	return (int)(sizeof(w) + put_leaves(out + sizeof(w), &m->offer));
}

static int encode_start(const struct control_start *m, uint8_t *out)
{
	struct wire_start w = {
		.memory_bytes = htole64(m->memory_bytes),
		.epoch_ns = htole64(m->epoch_ns),
		.tsc_khz = htole32(m->tsc_khz),
		.vcpu_count = htole16(m->vcpu_count),
		.leaf_count = htole16((uint16_t)m->cpuid.count),
		.tsc_deadline = m->tsc_deadline,
		.walks_write = m->walks_write,
	};

	if (!start_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return (int)(sizeof(w) + put_leaves(out + sizeof(w), &m->cpuid));
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

static uint8_t *append(uint8_t *out, const void *from, size_t size)
{
	if (size)
		memcpy(out, from, size);
	return out + size;
}

static int encode_move(const struct control_move *m, uint8_t *out)
{
	struct wire_move w = {
		.vcpu = htole16(m->vcpu),
		.image_size = htole16(m->image_size),
		.carry_size = htole16(m->carry ? PLACEMENT_CARRY_BYTES : 0),
		.hints_size = htole16(m->hints_size),
		.epoch = htole64(m->epoch),
		.clock_ns = htole64(m->clock_ns),
		.guest_tsc = htole64(m->guest_tsc),
		.decided_ns = htole64(m->decided_ns),
	};

	if (!move_valid(m))
		return -EINVAL;
	out = append(out, &w, sizeof(w));
	out = append(out, m->image, m->image_size);
	out = append(out, m->carry, le16toh(w.carry_size));
	append(out, m->hints, m->hints_size);
	return (int)(sizeof(w) + m->image_size + le16toh(w.carry_size) + m->hints_size);
}

static int encode_place(uint16_t vcpu, uint64_t epoch, uint8_t *out)
{
	struct wire_place w = { .epoch = htole64(epoch), .vcpu = htole16(vcpu) };

	if (vcpu >= VCPUS_MAX)
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static int encode_move_ask(const struct control_move_ask *m, uint8_t *out)
{
	struct wire_move_ask w = {
		.id = htole64(m->id),
		.vcpu = htole16(m->vcpu),
		.to = htole16(m->to),
		.asker = htole16(m->asker),
	};

	if (!move_ask_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static int encode_move_told(const struct control_move_told *m, uint8_t *out)
{
	struct wire_move_told w = {
		.id = htole64(m->id),
		.vcpu = htole16(m->vcpu),
		.result = m->result,
	};

	if (!move_told_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static int encode_taken(const struct control_taken *m, uint8_t *out)
{
	struct wire_taken w = { .vcpu = htole16(m->vcpu) };

	if (m->vcpu >= VCPUS_MAX)
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static int encode_pair(bool valid, uint16_t first, uint16_t second, uint8_t *out)
{
	struct wire_pair w = { .first = htole16(first), .second = htole16(second) };

	if (!valid)
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static int encode_outcomes(const struct control_outcomes *m, uint8_t *out)
{
	struct wire_outcomes head = { .count = htole16(m->count) };

	if (!outcomes_valid(m))
		return -EINVAL;
	memcpy(out, &head, sizeof(head));
	out += sizeof(head);
	for (uint32_t i = 0; i < m->count; i++, out += sizeof(struct wire_outcome)) {
		struct wire_outcome w = { .arm = m->outcome[i].arm,
					  .program = htole32(m->outcome[i].program),
					  .lost_us = htole32(m->outcome[i].lost_us) };

		memcpy(w.feature, m->outcome[i].feature, sizeof(w.feature));
		memcpy(out, &w, sizeof(w));
	}
	return (int)(sizeof(head) + m->count * sizeof(struct wire_outcome));
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
		return sizeof(struct wire_features) + CPUID_LEAVES_MAX * sizeof(struct wire_leaf);
	case CONTROL_STATS_REPLY:
		return sizeof(struct wire_stats_reply) + (size_t)msg->stats_reply.text_size;
	case CONTROL_END:
		return sizeof(struct wire_end) + CONTROL_TEXT_MAX;
	case CONTROL_MOVE:
		return sizeof(struct wire_move) + VCPU_IMAGE_BYTES_MAX + PLACEMENT_CARRY_BYTES +
		       PAGE_HINTS_BYTES_MAX;
	case CONTROL_OUTCOMES:
		return sizeof(struct wire_outcomes) +
		       PLACEMENT_OUTCOMES * sizeof(struct wire_outcome);
	default:
		return sizeof(struct wire_numbers);
	}
}

static int encode_payload(const struct control_message *msg, uint8_t *out)
{
	switch (msg->type) {
	case CONTROL_HEARTBEAT:
		return put_numbers(out, 1, &msg->heartbeat.count);
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
		return encode_interrupt(&msg->interrupt, out);
	case CONTROL_EOI:
		return encode_eoi(&msg->eoi, out);
	case CONTROL_IO_REQUEST:
		return encode_io_request(&msg->io_request, out);
	case CONTROL_IO_REPLY:
		return encode_io_reply(&msg->io_reply, out);
	case CONTROL_FEATURES:
		return encode_features(&msg->features, out);
	case CONTROL_START:
		return encode_start(&msg->start, out);
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
		return encode_move(&msg->move, out);
	case CONTROL_PLACE:
		return encode_place(msg->place.vcpu, msg->place.epoch, out);
	case CONTROL_REFUSED:
		return encode_place(msg->refused.vcpu, msg->refused.epoch, out);
	case CONTROL_MOVE_ASK:
		return encode_move_ask(&msg->move_ask, out);
	case CONTROL_MOVE_TOLD:
		return encode_move_told(&msg->move_told, out);
	case CONTROL_TAKEN:
		return encode_taken(&msg->taken, out);
	case CONTROL_LOAD:
		return encode_pair(load_valid(&msg->load), msg->load.cores, msg->load.awake, out);
	case CONTROL_OUTCOMES:
		return encode_outcomes(&msg->outcomes, out);
	case CONTROL_POLICY:
		return encode_pair(policy_valid(&msg->policy), msg->policy.shadow,
				   msg->policy.policy, out);
	case CONTROL_PIN:
		return encode_pair(pin_valid(&msg->pin), msg->pin.vcpu, msg->pin.pinned, out);
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

static int decode_interrupt(const uint8_t *in, size_t size, struct control_interrupt *m)
{
	struct wire_interrupt w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->delivery = w.delivery;
	m->vector = w.vector;
	m->level = w.level;
	m->from_vcpu = le16toh(w.from_vcpu);
	m->vcpu_count = le16toh(w.vcpu_count);
	if (m->vcpu_count > CONTROL_VCPUS_MAX ||
	    size != sizeof(w) + m->vcpu_count * sizeof(uint16_t))
		return -EPROTO;
	for (uint16_t i = 0; i < m->vcpu_count; i++) {
		uint16_t le;

		memcpy(&le, in + sizeof(w) + i * sizeof(le), sizeof(le));
		m->vcpu[i] = le16toh(le);
	}
	return w.zero == 0 && interrupt_valid(m) ? 0 : -EPROTO;
}

static int decode_eoi(const uint8_t *in, size_t size, struct control_eoi *m)
{
	struct wire_eoi w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->vcpu = le16toh(w.vcpu);
	m->vector = w.vector;
	return w.zero != 0 || m->vcpu >= VCPUS_MAX ? -EPROTO : 0;
}

static int decode_io_request(const uint8_t *in, size_t size, struct control_io_request *m)
{
	struct wire_io_request w;
	size_t data_bytes;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->id = le64toh(w.id);
	m->address = le64toh(w.address);
	m->vcpu = le16toh(w.vcpu);
	m->count = le16toh(w.count);
	m->kind = w.kind;
	m->size = w.size;
	m->write = w.write;
	if (w.zero != 0 || !io_request_valid(m))
		return -EPROTO;
	data_bytes = m->write ? (size_t)m->count * m->size : 0;
	if (size != sizeof(w) + data_bytes)
		return -EPROTO;
	memcpy(m->data, in + sizeof(w), data_bytes);
	return 0;
}

static int decode_io_reply(const uint8_t *in, size_t size, struct control_io_reply *m)
{
	struct wire_io_reply w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->id = le64toh(w.id);
	m->vcpu = le16toh(w.vcpu);
	m->count = le16toh(w.count);
	m->size = w.size;
	if (w.zero1 != 0 || !wire_zero(w.zero2, sizeof(w.zero2)) || !io_reply_valid(m) ||
	    size != sizeof(w) + (size_t)m->count * m->size)
		return -EPROTO;
	memcpy(m->data, in + sizeof(w), (size_t)m->count * m->size);
	return 0;
}

static int get_leaves(const uint8_t *in, size_t size, uint16_t count, struct cpuid_set *ret_set)
{
	if (count > CPUID_LEAVES_MAX || size != count * sizeof(struct wire_leaf))
		return -EPROTO;
	for (uint16_t i = 0; i < count; i++) {
		struct wire_leaf w;

		memcpy(&w, in + i * sizeof(w), sizeof(w));
		if (le32toh(w.index_matters) > 1)
			return -EPROTO;
		ret_set->leaf[i] = (struct cpuid_leaf){
			.function = le32toh(w.function),
			.index = le32toh(w.index),
			.index_matters = (uint8_t)le32toh(w.index_matters),
			.eax = le32toh(w.eax),
			.ebx = le32toh(w.ebx),
			.ecx = le32toh(w.ecx),
			.edx = le32toh(w.edx),
		};
	}
	ret_set->count = count;
	return 0;
}

static int decode_features(const uint8_t *in, size_t size, struct control_features *m)
{
	struct wire_features w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	if (!wire_text_valid(w.engine, sizeof(w.engine)) || !wire_zero(w.zero, sizeof(w.zero)) ||
	    get_leaves(in + sizeof(w), size - sizeof(w), le16toh(w.leaf_count), &m->offer) < 0)
		return -EPROTO;
	memcpy(m->engine, w.engine, sizeof(m->engine));
	m->capacity_pages = le64toh(w.capacity_pages);
	m->tsc_khz = le32toh(w.tsc_khz);
	m->vcpu_count = le16toh(w.vcpu_count);
	m->tsc_deadline = w.tsc_deadline;
	m->tsc_scaling = w.tsc_scaling;
	m->walks_write = w.walks_write;
	m->tsc_margin_ppm = le32toh(w.tsc_margin_ppm);
	return features_valid(m) ? 0 : -EPROTO;
}

static int decode_start(const uint8_t *in, size_t size, struct control_start *m)
{
	struct wire_start w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	if (!wire_zero(w.zero, sizeof(w.zero)) ||
	    get_leaves(in + sizeof(w), size - sizeof(w), le16toh(w.leaf_count), &m->cpuid) < 0)
		return -EPROTO;
	m->memory_bytes = le64toh(w.memory_bytes);
	m->epoch_ns = le64toh(w.epoch_ns);
	m->tsc_khz = le32toh(w.tsc_khz);
	m->vcpu_count = le16toh(w.vcpu_count);
	m->tsc_deadline = w.tsc_deadline;
	m->walks_write = w.walks_write;
	return start_valid(m) ? 0 : -EPROTO;
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

static int decode_move(const uint8_t *in, size_t size, struct control_move *m)
{
	struct wire_move w;
	uint16_t carry_size;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	carry_size = le16toh(w.carry_size);
	*m = (struct control_move){
		.vcpu = le16toh(w.vcpu),
		.image_size = le16toh(w.image_size),
		.epoch = le64toh(w.epoch),
		.clock_ns = le64toh(w.clock_ns),
		.guest_tsc = le64toh(w.guest_tsc),
		.decided_ns = le64toh(w.decided_ns),
		.image = in + sizeof(w),
		.hints_size = le16toh(w.hints_size),
	};
	if (carry_size)
		m->carry = m->image + m->image_size;
	m->hints = m->image + m->image_size + carry_size;
	return move_valid(m) && (carry_size == 0 || carry_size == PLACEMENT_CARRY_BYTES) &&
			       size == sizeof(w) + m->image_size + carry_size + m->hints_size
		       ? 0
		       : -EPROTO;
}

static int decode_place(const uint8_t *in, size_t size, uint16_t *ret_vcpu, uint64_t *ret_epoch)
{
	struct wire_place w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	*ret_vcpu = le16toh(w.vcpu);
	*ret_epoch = le64toh(w.epoch);
	return wire_zero(w.zero, sizeof(w.zero)) && *ret_vcpu < VCPUS_MAX ? 0 : -EPROTO;
}

static int decode_move_ask(const uint8_t *in, size_t size, struct control_move_ask *m)
{
	struct wire_move_ask w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	*m = (struct control_move_ask){
		.id = le64toh(w.id),
		.vcpu = le16toh(w.vcpu),
		.to = le16toh(w.to),
		.asker = le16toh(w.asker),
	};
	return wire_zero(w.zero, sizeof(w.zero)) && move_ask_valid(m) ? 0 : -EPROTO;
}

static int decode_move_told(const uint8_t *in, size_t size, struct control_move_told *m)
{
	struct wire_move_told w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	*m = (struct control_move_told){
		.id = le64toh(w.id),
		.vcpu = le16toh(w.vcpu),
		.result = w.result,
	};
	return wire_zero(w.zero, sizeof(w.zero)) && move_told_valid(m) ? 0 : -EPROTO;
}

static int decode_taken(const uint8_t *in, size_t size, struct control_taken *m)
{
	struct wire_taken w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->vcpu = le16toh(w.vcpu);
	return wire_zero(w.zero, sizeof(w.zero)) && m->vcpu < VCPUS_MAX ? 0 : -EPROTO;
}

static int decode_pair(const uint8_t *in, size_t size, uint16_t *ret_first, uint16_t *ret_second)
{
	struct wire_pair w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	*ret_first = le16toh(w.first);
	*ret_second = le16toh(w.second);
	return wire_zero(w.zero, sizeof(w.zero)) ? 0 : -EPROTO;
}

static int decode_load(const uint8_t *in, size_t size, struct control_load *m)
{
	int r = decode_pair(in, size, &m->cores, &m->awake);

	return r == 0 && load_valid(m) ? 0 : -EPROTO;
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

static int decode_outcomes(const uint8_t *in, size_t size, struct control_outcomes *m)
{
	struct wire_outcomes head;

	if (size < sizeof(head))
		return -EPROTO;
	memcpy(&head, in, sizeof(head));
	m->count = le16toh(head.count);
	if (!wire_zero(head.zero, sizeof(head.zero)) || m->count > PLACEMENT_OUTCOMES ||
	    size != sizeof(head) + m->count * sizeof(struct wire_outcome))
		return -EPROTO;
	in += sizeof(head);
	for (uint32_t i = 0; i < m->count; i++, in += sizeof(struct wire_outcome)) {
		struct wire_outcome w;

		memcpy(&w, in, sizeof(w));
		if (w.zero)
			return -EPROTO;
		m->outcome[i] = (struct placement_outcome){ .arm = w.arm,
							    .program = le32toh(w.program),
							    .lost_us = le32toh(w.lost_us) };
		memcpy(m->outcome[i].feature, w.feature, sizeof(w.feature));
	}
	return outcomes_valid(m) ? 0 : -EPROTO;
}

static int decode_policy(const uint8_t *in, size_t size, struct control_policy *m)
{
	uint16_t shadow, policy;
	int r = decode_pair(in, size, &shadow, &policy);

	if (r < 0 || shadow > 1 || policy > PLACEMENT_POLICIES)
		return -EPROTO;
	*m = (struct control_policy){ .policy = (uint8_t)policy, .shadow = (uint8_t)shadow };
	return policy_valid(m) ? 0 : -EPROTO;
}

static int decode_pin(const uint8_t *in, size_t size, struct control_pin *m)
{
	uint16_t pinned;
	int r = decode_pair(in, size, &m->vcpu, &pinned);

	if (r < 0 || pinned > 1)
		return -EPROTO;
	m->pinned = (uint8_t)pinned;
	return pin_valid(m) ? 0 : -EPROTO;
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
		return get_numbers(payload, size, 1, &ret_msg->heartbeat.count);
	case CONTROL_CLOCK_PING:
		return decode_clock_ping(payload, size, &ret_msg->clock_ping);
	case CONTROL_CLOCK_PONG:
		return decode_clock_pong(payload, size, &ret_msg->clock_pong);
	case CONTROL_INTERRUPT:
		return decode_interrupt(payload, size, &ret_msg->interrupt);
	case CONTROL_EOI:
		return decode_eoi(payload, size, &ret_msg->eoi);
	case CONTROL_IO_REQUEST:
		return decode_io_request(payload, size, &ret_msg->io_request);
	case CONTROL_IO_REPLY:
		return decode_io_reply(payload, size, &ret_msg->io_reply);
	case CONTROL_FEATURES:
		return decode_features(payload, size, &ret_msg->features);
	case CONTROL_START:
		return decode_start(payload, size, &ret_msg->start);
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
		return decode_move(payload, size, &ret_msg->move);
	case CONTROL_PLACE:
		return decode_place(payload, size, &ret_msg->place.vcpu, &ret_msg->place.epoch);
	case CONTROL_REFUSED:
		return decode_place(payload, size, &ret_msg->refused.vcpu, &ret_msg->refused.epoch);
	case CONTROL_MOVE_ASK:
		return decode_move_ask(payload, size, &ret_msg->move_ask);
	case CONTROL_MOVE_TOLD:
		return decode_move_told(payload, size, &ret_msg->move_told);
	case CONTROL_TAKEN:
		return decode_taken(payload, size, &ret_msg->taken);
	case CONTROL_LOAD:
		return decode_load(payload, size, &ret_msg->load);
	case CONTROL_OUTCOMES:
		return decode_outcomes(payload, size, &ret_msg->outcomes);
	case CONTROL_POLICY:
		return decode_policy(payload, size, &ret_msg->policy);
	case CONTROL_PIN:
		return decode_pin(payload, size, &ret_msg->pin);
	default:
		return -EPROTO;
	}
}
