/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages about the list of members: the words of core/member_list.h. How encoders and
 * decoders are made: control_message.c.
 *
 * What a word does not say is not sent, whatever its struct holds there, and is 0 in one that came. What
 * is judged here is a word by itself; whether the list can follow it, member_list_hear() says.
 */
#include "wire/control_parts.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/text.h"

static const uint8_t types[MEMBER_WORD_COUNT] = {
	[MEMBER_STEP] = CONTROL_STEP,
	[MEMBER_DONE] = CONTROL_STEP_DONE,
	[MEMBER_OVER] = CONTROL_STEP_OVER,
	[MEMBER_WISH] = CONTROL_WISH,
	[MEMBER_REFUSED] = CONTROL_WISH_REFUSED,
	[MEMBER_READY] = CONTROL_JOIN_READY,
	[MEMBER_FAILED] = CONTROL_JOIN_FAILED,
	[MEMBER_DRAINED] = CONTROL_DRAINED,
};

uint8_t control_member_type(enum member_word_type type)
{
	assert(type < MEMBER_WORD_COUNT);
	return types[type];
}

/* MEMBER_WORD_COUNT: none. */
static enum member_word_type word_type(uint8_t type)
{
	enum member_word_type word = 0;

	while (word < MEMBER_WORD_COUNT && types[word] != type)
		word++;
	return word;
}

/* ---- Rules: the same for encoding (our own bug) and decoding (a peer's). ---- */

bool control_about_valid(const struct member_about *about)
{
	return about->name[0] && wire_text_valid(about->name, sizeof(about->name)) &&
	       wire_text_valid(about->address, sizeof(about->address));
}

static bool why_valid(int why)
{
	return why <= 0 && why >= -CONTROL_MEMBER_WHY_MAX;
}

/* What STEP and WISH have in common; enums may be any number. */
static bool change_valid(const struct member_word *m)
{
	if (m->kind >= KIND_COUNT || m->node >= NODES_MAX)
		return false;
	if (m->kind == KIND_SEAT && m->seat >= SEAT_COUNT)
		return false;
	return m->kind != KIND_JOIN || control_about_valid(&m->about);
}

static bool step_valid(const struct member_word *m)
{
	bool own = m->by == NODE_NONE;

	if (!change_valid(m) || m->number == 0 || (!own && m->by >= NODES_MAX) ||
	    own != (m->id == 0))
		return false;
	if (!why_valid(m->why) || (m->why && m->kind != KIND_GONE))
		return false;
	if (m->kind == KIND_GONE || m->kind == KIND_FREE)
		return own;
	return m->kind == KIND_ACTIVE || !own;
}

static bool wish_valid(const struct member_word *m)
{
	return change_valid(m) && m->by < NODES_MAX && m->id != 0 && m->kind != KIND_GONE &&
	       m->kind != KIND_FREE;
}

static bool refused_valid(const struct member_word *m)
{
	return m->id != 0 && m->why != 0 && why_valid(m->why);
}

/* Who is ready, or drained, says so of himself; of a joiner that fails, others do. */
static bool report_valid(uint8_t type, const struct member_word *m)
{
	bool failed = type == CONTROL_JOIN_FAILED;

	return m->node < NODES_MAX && m->by < NODES_MAX && (m->node == m->by) != failed &&
	       why_valid(m->why) && (m->why != 0) == failed;
}

/* ---- Encoding. Each returns the payload's size, or -EINVAL. ---- */

void control_put_about(const struct member_about *about, uint8_t *out)
{
	struct wire_about w = { .promise_bytes = htole64(about->promise_bytes),
				.token_id = htole64(about->token_id),
				.token_expiry_s = htole64(about->token_expiry_s),
				.cores = htole16(about->cores) };

	memcpy(w.name, about->name, sizeof(w.name));
	memcpy(w.address, about->address, sizeof(w.address));
	memcpy(out, &w, sizeof(w));
}

static int encode_change(const struct member_word *m, bool step, uint8_t *out)
{
	struct wire_step w = { .id = htole32(m->id),
			       .by = htole16(m->by),
			       .kind = (uint8_t)m->kind };

	if (step)
		w.number = htole64(m->number);
	if (step && m->kind == KIND_GONE)
		w.why = htole16((uint16_t)-m->why);
	if (step || m->kind != KIND_JOIN)
		w.node = htole16(m->node);
	if (m->kind == KIND_SEAT)
		w.seat = (uint8_t)m->seat;
	memcpy(out, &w, sizeof(w));
	if (m->kind != KIND_JOIN)
		return sizeof(w);
	control_put_about(&m->about, out + sizeof(w));
	return sizeof(w) + sizeof(struct wire_about);
}

static int encode_number(uint64_t number, uint8_t *out)
{
	uint64_t le = htole64(number);

	if (number == 0)
		return -EINVAL;
	memcpy(out, &le, sizeof(le));
	return sizeof(le);
}

int control_encode_member(uint8_t type, const struct member_word *m, uint8_t *out)
{
	struct wire_report w = { 0 };

	if (m->type != word_type(type))
		return -EINVAL;
	switch (m->type) {
	case MEMBER_STEP:
		return step_valid(m) ? encode_change(m, true, out) : -EINVAL;
	case MEMBER_WISH:
		return wish_valid(m) ? encode_change(m, false, out) : -EINVAL;
	case MEMBER_DONE:
	case MEMBER_OVER:
		return encode_number(m->number, out);
	case MEMBER_REFUSED:
		if (!refused_valid(m))
			return -EINVAL;
		w.id = htole32(m->id);
		break;
	default:
		if (!report_valid(type, m))
			return -EINVAL;
		w.node = htole16(m->node);
		w.by = htole16(m->by);
	}
	w.why = htole16((uint16_t)-m->why);
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

/* ---- Decoding ---- */

bool control_get_about(const uint8_t *in, struct member_about *about)
{
	struct wire_about w;

	memcpy(&w, in, sizeof(w));
	about->promise_bytes = le64toh(w.promise_bytes);
	about->token_id = le64toh(w.token_id);
	about->token_expiry_s = le64toh(w.token_expiry_s);
	about->cores = le16toh(w.cores);
	memcpy(about->name, w.name, sizeof(about->name));
	memcpy(about->address, w.address, sizeof(about->address));
	return wire_zero(w.zero, sizeof(w.zero));
}

static int decode_change(const uint8_t *in, size_t size, bool step, struct member_word *m)
{
	struct wire_step w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->number = le64toh(w.number);
	m->id = le32toh(w.id);
	m->node = le16toh(w.node);
	m->by = le16toh(w.by);
	m->why = -(int)le16toh(w.why);
	m->kind = (enum member_kind)w.kind;
	m->seat = (enum member_seat)w.seat;
	if (!wire_zero(w.zero, sizeof(w.zero)) || (m->kind != KIND_SEAT && m->seat) ||
	    (!step && (m->number || m->why || (m->kind == KIND_JOIN && m->node))))
		return -EPROTO;
	if (size != sizeof(w) + (m->kind == KIND_JOIN ? sizeof(struct wire_about) : 0))
		return -EPROTO;
	if (m->kind == KIND_JOIN && !control_get_about(in + sizeof(w), &m->about))
		return -EPROTO;
	return (step ? step_valid(m) : wish_valid(m)) ? 0 : -EPROTO;
}

static int decode_number(const uint8_t *in, size_t size, struct member_word *m)
{
	uint64_t le;

	if (size != sizeof(le))
		return -EPROTO;
	memcpy(&le, in, sizeof(le));
	m->number = le64toh(le);
	return m->number ? 0 : -EPROTO;
}

static int decode_report(uint8_t type, const uint8_t *in, size_t size, struct member_word *m)
{
	struct wire_report w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->id = le32toh(w.id);
	m->node = le16toh(w.node);
	m->by = le16toh(w.by);
	m->why = -(int)le16toh(w.why);
	if (!wire_zero(w.zero, sizeof(w.zero)))
		return -EPROTO;
	if (type == CONTROL_WISH_REFUSED)
		return m->node == 0 && m->by == 0 && refused_valid(m) ? 0 : -EPROTO;
	return m->id == 0 && report_valid(type, m) ? 0 : -EPROTO;
}

int control_decode_member(uint8_t type, const uint8_t *in, size_t size, struct member_word *m)
{
	*m = (struct member_word){ .type = word_type(type) };
	switch (m->type) {
	case MEMBER_STEP:
		return decode_change(in, size, true, m);
	case MEMBER_WISH:
		return decode_change(in, size, false, m);
	case MEMBER_DONE:
	case MEMBER_OVER:
		return decode_number(in, size, m);
	default:
		return decode_report(type, in, size, m);
	}
}
