/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages about where vCPUs are and where they shall go: MOVE to TAKEN, LOAD, POLICY, PIN
 * and OUTCOMES. How encoders and decoders are made: control_message.c.
 */
#include "wire/control_parts.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/text.h"
#include "wire/vcpu_image.h"

/* ---- Rules: the same for encoding (our own bug) and decoding (a peer's). ---- */

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

static uint8_t *append(uint8_t *out, const void *from, size_t size)
{
	if (size)
		memcpy(out, from, size);
	return out + size;
}

int control_encode_move(const struct control_move *m, uint8_t *out)
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

int control_encode_place(uint16_t vcpu, uint64_t epoch, uint8_t *out)
{
	struct wire_place w = { .epoch = htole64(epoch), .vcpu = htole16(vcpu) };

	if (vcpu >= VCPUS_MAX)
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

int control_encode_move_ask(const struct control_move_ask *m, uint8_t *out)
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

int control_encode_move_told(const struct control_move_told *m, uint8_t *out)
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

int control_encode_taken(const struct control_taken *m, uint8_t *out)
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

int control_encode_load(const struct control_load *m, uint8_t *out)
{
	return encode_pair(load_valid(m), m->cores, m->awake, out);
}

int control_encode_policy(const struct control_policy *m, uint8_t *out)
{
	return encode_pair(policy_valid(m), m->shadow, m->policy, out);
}

int control_encode_pin(const struct control_pin *m, uint8_t *out)
{
	return encode_pair(pin_valid(m), m->vcpu, m->pinned, out);
}

int control_encode_outcomes(const struct control_outcomes *m, uint8_t *out)
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

/* ---- Decoding ---- */

int control_decode_move(const uint8_t *in, size_t size, struct control_move *m)
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

int control_decode_place(const uint8_t *in, size_t size, uint16_t *ret_vcpu, uint64_t *ret_epoch)
{
	struct wire_place w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	*ret_vcpu = le16toh(w.vcpu);
	*ret_epoch = le64toh(w.epoch);
	return wire_zero(w.zero, sizeof(w.zero)) && *ret_vcpu < VCPUS_MAX ? 0 : -EPROTO;
}

int control_decode_move_ask(const uint8_t *in, size_t size, struct control_move_ask *m)
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

int control_decode_move_told(const uint8_t *in, size_t size, struct control_move_told *m)
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

int control_decode_taken(const uint8_t *in, size_t size, struct control_taken *m)
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

int control_decode_load(const uint8_t *in, size_t size, struct control_load *m)
{
	int r = decode_pair(in, size, &m->cores, &m->awake);

	return r == 0 && load_valid(m) ? 0 : -EPROTO;
}

int control_decode_outcomes(const uint8_t *in, size_t size, struct control_outcomes *m)
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

int control_decode_policy(const uint8_t *in, size_t size, struct control_policy *m)
{
	uint16_t shadow, policy;
	int r = decode_pair(in, size, &shadow, &policy);

	if (r < 0 || shadow > 1 || policy > PLACEMENT_POLICIES)
		return -EPROTO;
	*m = (struct control_policy){ .policy = (uint8_t)policy, .shadow = (uint8_t)shadow };
	return policy_valid(m) ? 0 : -EPROTO;
}

int control_decode_pin(const uint8_t *in, size_t size, struct control_pin *m)
{
	uint16_t pinned;
	int r = decode_pair(in, size, &m->vcpu, &pinned);

	if (r < 0 || pinned > 1)
		return -EPROTO;
	m->pinned = (uint8_t)pinned;
	return pin_valid(m) ? 0 : -EPROTO;
}
